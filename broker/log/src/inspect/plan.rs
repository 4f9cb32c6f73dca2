//! What a repair would do, and what would be lost by it. Looks only.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use millpond_protocol::batch::{Attributes, Batch, BatchChecksum, BatchHeader, CHECKSUMMED_FROM, HEADER_BYTES, MAGIC};
use thiserror::Error;

use crate::compact::COMPACTION;
use crate::disk::{Disk, OpenMode};
use crate::error::{LogError, is_unreadable};
use crate::folder::{Folder, INDEX, LOG, TIME_INDEX, file_path};
use crate::index::NO_TIMESTAMP;
use crate::inspect::beside::{Mend, MendKind, mends};
use crate::inspect::entries::IndexCheck;
use crate::inspect::names;
use crate::inspect::next_start::NextStart;
use crate::inspect::verify::Watch;
use crate::inspect::walk::{DamagedRange, Piece, SegmentWalk};
use crate::log_start::StartFiles;

/// What is done about damage in the middle of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RepairMode {
    /// Each damaged range is cut out, and an empty batch takes its offsets. Everything behind it stays.
    DropBatch,
    /// Everything from the first damage on goes, and the log ends there.
    Truncate,
}

/// Why a log can't be repaired.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RepairError {
    /// A file could not be read or written.
    #[error(transparent)]
    Log(#[from] LogError),
    /// One empty batch can't take so many offsets.
    #[error("{} lacks offsets {} to {}, more than can be bridged", .path.display(), .offsets.start, .offsets.end - 1)]
    TooWide {
        /// The segment file.
        path: PathBuf,
        /// The offsets that are missing.
        offsets: Range<i64>,
    },
    /// There is too much damage to cut out piece by piece.
    #[error("{} is damaged in more than {DAMAGES_MAX} places", .path.display())]
    TooManyDamages {
        /// The segment file where the counting ended.
        path: PathBuf,
    },
    /// A broker has ended while compaction was putting segments in the place of others.
    #[error("{} says that segments were being exchanged: start the broker once, which completes it, and then repair", .path.display())]
    Interrupted {
        /// The note of it.
        path: PathBuf,
    },
    /// A file is not what the plan was made for.
    #[error("{} has changed since it was looked at", .path.display())]
    Changed {
        /// The segment file.
        path: PathBuf,
    },
}

/// What a repair does in one log. Nothing of it is done before [`RepairPlan::apply`].
#[derive(Debug)]
pub struct RepairPlan {
    pub(super) dir: PathBuf,
    /// The segments that are written anew.
    pub(super) rewrites: Vec<Rewrite>,
    /// Where the log is to end, if it is to be truncated.
    pub(super) cut: Option<CutAt>,
    /// Base offsets of the segments whose indexes are built again.
    pub(super) reindexed: Vec<i64>,
    /// What is done with the small files beside the segments.
    pub(super) mends: Vec<Mend>,
    /// The number of this repair, for the names of what it keeps.
    pub(super) number: u64,
    losses: Vec<Loss>,
    unopened: Vec<Unopened>,
}

/// A segment that the disk does not even let be opened, so that nothing of it can be kept or mended. It stays as it is.
#[derive(Debug)]
pub struct Unopened {
    /// The segment file.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

/// What is lost at one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// The segment file.
    pub path: PathBuf,
    /// Where in it, in bytes from its start.
    pub position: u64,
    /// Bytes that are removed, of this file and, where the log is truncated, of those behind it. They are kept in other files.
    pub bytes: u64,
    /// The offsets that are lost. Empty where a batch can be mended, and where nobody can say which there were.
    pub offsets: Range<i64>,
    /// Whole records among them, which are given up for lack of what is in front of them. Others can't be read anyway.
    pub whole_records: u64,
    /// Whether only the part of a header was damaged that its batch's checksum does not cover, so that it can be restored.
    pub mended: bool,
    /// Of the bytes that are removed, those that the disk does not give back. In the file that is kept zeros take their place.
    pub unreadable_bytes: u64,
}

/// One segment that is written anew.
#[derive(Debug)]
pub(super) struct Rewrite {
    pub(super) base_offset: i64,
    pub(super) next_base: Option<i64>,
    pub(super) file_bytes: u64,
    pub(super) patches: Vec<Patch>,
}

/// Bytes of a segment that others take the place of.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Patch {
    pub(super) position: u64,
    pub(super) bytes: u64,
    pub(super) instead: Vec<u8>,
}

/// Where a log is cut.
#[derive(Debug)]
pub(super) struct CutAt {
    pub(super) base_offset: i64,
    /// What is removed: of each segment from where on, and its size.
    pub(super) removed: Vec<(i64, u64, u64)>,
}

impl RepairPlan {
    /// Reads a log's folder through and decides what to do. Nothing may write to the log from here until the repair is done.
    ///
    /// A segment that the disk does not let be opened keeps [`RepairMode::DropBatch`] from none of the others ([`RepairPlan::unopened`]).
    ///
    /// # Errors
    ///
    /// [`RepairError::Log`] if a file can't be read; the others if the damage is beyond this mode.
    pub fn new(disk: &dyn Disk, dir: &Path, mode: RepairMode, watch: &mut dyn Watch) -> Result<RepairPlan, RepairError> {
        let found = disk.list(dir).map_err(|source| LogError::io("list", dir, source))?;
        let folder = Folder::of(&found);
        let exchange = dir.join(COMPACTION);
        if disk.exists(&exchange).map_err(|source| LogError::io("look for", &exchange, source))? {
            return Err(RepairError::Interrupted { path: exchange });
        }
        let number = names::next_kept(&found.iter().filter_map(|name| names::kept_in(name.to_str()?)).collect());
        let starts = StartFiles::read(disk, dir)?;
        let (_, bases) = names::split_deleted(&folder, starts.start());
        let (rewrites, reindexed, losses, dir_buf) = (Vec::new(), Vec::new(), Vec::new(), dir.to_path_buf());
        let next = NextStart::look(disk, dir, bases, starts.start())?;
        let mends = mends(disk, dir, (&starts, &next), &folder, bases)?;
        let mut plan = RepairPlan { dir: dir_buf, rewrites, cut: None, reindexed, mends, number, losses, unopened: Vec::new() };
        let mut is_end_damaged = false;
        for (index, base) in bases.iter().enumerate() {
            let survey = match survey(disk, dir, *base, (bases.get(index + 1).copied(), next.end()), watch) {
                // What is in the others can be mended all the same. Where all behind a place goes, nothing may be left in between.
                Err(RepairError::Log(LogError::Io { path, source, .. })) if mode == RepairMode::DropBatch && is_unreadable(&source) => {
                    plan.unopened.push(Unopened { path, source });
                    continue;
                }
                survey => survey?,
            };
            let is_to_the_end =
                |range: &DamagedRange| survey.next_base.is_none() && range.next_offset.is_some_and(|to| Some(to) == next.end());
            is_end_damaged |= survey.ranges.last().is_some_and(is_to_the_end);
            match mode {
                RepairMode::DropBatch => plan.drop_batches(disk, &survey)?,
                RepairMode::Truncate => plan.truncate(&survey),
            }
            // A segment that is written anew, or cut, gets its indexes anyway.
            let untouched = survey.ranges.is_empty() && plan.cut.is_none();
            if survey.index_is_wrong && untouched {
                plan.reindexed.push(*base);
            }
        }
        let is_at_stake = next.goes_on.is_some() || is_end_damaged;
        if let (Some(to), true, false, RepairMode::DropBatch) = (next.end(), is_at_stake, next.is_pointed_at, mode) {
            // Before the note of a clean stop goes, which knows it as well.
            let path = names::recovery_point(dir);
            plan.mends.push(Mend { path, kind: MendKind::RecoveryPointRaised { to } });
        }
        Ok(plan)
    }

    /// What is lost, place by place.
    pub fn losses(&self) -> &[Loss] {
        &self.losses
    }

    /// Segments that this repair leaves as they are, because they can't even be opened.
    pub fn unopened(&self) -> &[Unopened] {
        &self.unopened
    }

    /// Segments whose indexes are built again although their batches are whole.
    pub fn reindexed(&self) -> usize {
        self.reindexed.len()
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.losses.is_empty() && self.reindexed.is_empty() && self.mends.is_empty()
    }

    /// What is done with the small files beside the segments, and what follows from it.
    pub fn mends(&self) -> &[Mend] {
        &self.mends
    }

    /// What the names of the files end with that the repair keeps in the folder.
    pub fn kept_suffix(&self) -> String {
        names::kept_suffix(self.number)
    }

    fn drop_batches(&mut self, disk: &dyn Disk, survey: &Survey) -> Result<(), RepairError> {
        if survey.ranges.is_empty() {
            return Ok(());
        }
        let Survey { base_offset, next_base, file_bytes, .. } = *survey;
        let mut patches = Vec::new();
        for range in &survey.ranges {
            let front = mended_front(disk, survey, range)?;
            let mended = front.is_some();
            let end = if mended { range.offset } else { range.next_offset.unwrap_or(range.offset) };
            let (bytes, instead) = match front {
                Some(front) => (front.len() as u64, front),
                None => (range.bytes, instead_of(survey, range)?),
            };
            let (path, position, offsets) = (survey.path.clone(), range.position, range.offset..end);
            let unreadable_bytes = range.unreadable_bytes;
            self.losses.push(Loss { path, position, bytes, offsets, whole_records: 0, mended, unreadable_bytes });
            patches.push(Patch { position, bytes, instead });
        }
        if self.losses.len() > DAMAGES_MAX {
            return Err(RepairError::TooManyDamages { path: survey.path.clone() });
        }
        self.rewrites.push(Rewrite { base_offset, next_base, file_bytes, patches });
        Ok(())
    }

    fn truncate(&mut self, survey: &Survey) {
        let Survey { base_offset, file_bytes, .. } = *survey;
        let unreadable_bytes = survey.ranges.iter().map(|range| range.unreadable_bytes).sum();
        if let (Some(cut), Some(loss)) = (&mut self.cut, self.losses.last_mut()) {
            cut.removed.push((base_offset, 0, file_bytes));
            loss.bytes += file_bytes;
            loss.unreadable_bytes += unreadable_bytes;
            loss.whole_records += survey.records;
            loss.offsets.end = survey.end;
            return;
        }
        let Some(first) = survey.ranges.first() else { return };
        self.cut = Some(CutAt { base_offset, removed: vec![(base_offset, first.position, file_bytes)] });
        self.losses.push(Loss {
            path: survey.path.clone(),
            position: first.position,
            bytes: file_bytes - first.position,
            offsets: first.offset..survey.end,
            whole_records: survey.records_behind_damage,
            mended: false,
            unreadable_bytes,
        });
    }
}

/// One segment, looked through.
struct Survey {
    path: PathBuf,
    base_offset: i64,
    next_base: Option<i64>,
    file_bytes: u64,
    ranges: Vec<DamagedRange>,
    /// Records in whole batches.
    records: u64,
    /// Those of them behind the first damage.
    records_behind_damage: u64,
    /// One past the last offset that is known of.
    end: i64,
    index_is_wrong: bool,
}

/// `end` is where the log goes on behind its last segment, if that is written down.
fn survey(
    disk: &dyn Disk,
    dir: &Path,
    base_offset: i64,
    (next_base, end): (Option<i64>, Option<i64>),
    watch: &mut dyn Watch,
) -> Result<Survey, RepairError> {
    let path = file_path(dir, base_offset, LOG);
    let mut indexes: Vec<Option<IndexCheck>> =
        [INDEX, TIME_INDEX].map(|extension| IndexCheck::open(disk, &file_path(dir, base_offset, extension), base_offset).ok()).into();
    let mut walk = SegmentWalk::open(disk, &path, base_offset, next_base.or(end))?;
    let file_bytes = walk.file_bytes();
    let mut ranges = Vec::new();
    let (mut records, mut records_behind_damage) = (0, 0);
    while let Some(piece) = walk.next_piece()? {
        match piece {
            Piece::Batch(batch) => {
                let count = u64::try_from(batch.header.record_count).unwrap_or(0);
                records += count;
                records_behind_damage += if ranges.is_empty() { 0 } else { count };
                for index in &mut indexes {
                    // One that can't be read is as good as none.
                    if index.as_mut().is_some_and(|index| index.batch(batch.position, &batch.header).is_err()) {
                        *index = None;
                    }
                }
                watch.progress(batch.header.total_bytes() as u64);
            }
            Piece::Damage(range) => {
                watch.progress(range.bytes);
                if ranges.len() == DAMAGES_MAX {
                    return Err(RepairError::TooManyDamages { path });
                }
                ranges.push(range);
            }
        }
    }
    let closed = next_base.is_some();
    // The walk of a damaged segment leaves its indexes to the rewriting.
    let wrong = |index: Option<IndexCheck>| index.is_none_or(|index| index.finish(closed, true).is_some());
    let index_is_wrong = ranges.is_empty() && indexes.into_iter().any(wrong);
    let end = walk.next_offset();
    Ok(Survey { path, base_offset, next_base, file_bytes, ranges, records, records_behind_damage, end, index_is_wrong })
}

/// What takes the place of a damaged range: an empty batch with its offsets, or nothing at the end of the log, where the next start would
/// cut as well.
fn instead_of(survey: &Survey, range: &DamagedRange) -> Result<Vec<u8>, RepairError> {
    let Some(next_offset) = range.next_offset.filter(|next_offset| *next_offset > range.offset) else { return Ok(Vec::new()) };
    let too_wide = || RepairError::TooWide { path: survey.path.clone(), offsets: range.offset..next_offset };
    let last_distance = (next_offset - 1).checked_sub(survey.base_offset).ok_or_else(too_wide)?;
    i32::try_from(last_distance).map_err(|_| too_wide())?;
    let last_offset_delta = i32::try_from(next_offset - 1 - range.offset).map_err(|_| too_wide())?;
    Ok(empty_batch(range.offset, last_offset_delta).to_vec())
}

/// The front of the damaged batch with the base offset, the length and the format version that it must have had, if its checksum then
/// says that it is whole. One byte may differ: more is not a flipped bit, but a batch that belongs somewhere else.
fn mended_front(disk: &dyn Disk, survey: &Survey, range: &DamagedRange) -> Result<Option<Vec<u8>>, LogError> {
    let Some(next_offset) = range.next_offset.filter(|_| range.unreadable_bytes == 0) else { return Ok(None) };
    let Some(batch_length) = i32::try_from(range.bytes).ok().and_then(|bytes| bytes.checked_sub(LENGTH_PREFIX)) else { return Ok(None) };
    let bytes = usize::try_from(range.bytes).unwrap_or(usize::MAX);
    if !(HEADER_BYTES..=MENDED_BYTES_MAX).contains(&bytes) {
        return Ok(None);
    }
    let file = disk.open(&survey.path, OpenMode::Read).map_err(|source| LogError::io("open", &survey.path, source))?;
    let read = |bytes| {
        let mut found = Vec::new();
        file.read_at(&mut found, bytes, range.position).map_err(|source| LogError::io("read", &survey.path, source)).map(|_| found)
    };
    let found = read(FRONT_BYTES)?;
    let mut front = found.clone();
    if front.len() < FRONT_BYTES {
        return Ok(None);
    }
    front[..8].copy_from_slice(&range.offset.to_be_bytes());
    front[8..12].copy_from_slice(&batch_length.to_be_bytes());
    front[16..].copy_from_slice(&MAGIC.to_be_bytes());
    if front.iter().zip(&found).filter(|(now, before)| now != before).count() != 1 {
        return Ok(None);
    }
    let mut whole = read(bytes)?;
    if whole.len() < bytes {
        return Ok(None);
    }
    whole[..FRONT_BYTES].copy_from_slice(&front);
    let batch = Batch::parse(whole.into()).ok().filter(|batch| batch.header().next_offset() == next_offset);
    Ok(batch.filter(|batch| batch.verify_crc().is_ok()).map(|_| front))
}

/// A batch that takes offsets and holds no records, as Kafka's cleaner leaves it where all records of a batch are gone
/// (`DefaultRecordBatch.writeEmptyHeader`).
pub(crate) fn empty_batch(base_offset: i64, last_offset_delta: i32) -> [u8; HEADER_BYTES] {
    let mut header = BatchHeader {
        base_offset,
        batch_length: 49,
        partition_leader_epoch: -1,
        magic: MAGIC,
        crc: 0,
        attributes: Attributes::default(),
        last_offset_delta,
        base_timestamp: NO_TIMESTAMP,
        max_timestamp: NO_TIMESTAMP,
        producer_id: -1,
        producer_epoch: -1,
        base_sequence: -1,
        record_count: 0,
    };
    let mut checksum = BatchChecksum::new();
    checksum.update(&header.encode()[CHECKSUMMED_FROM..]);
    header.crc = checksum.value();
    header.encode()
}

/// The most places that are repaired at once.
const DAMAGES_MAX: usize = 10_000;

/// Bytes of a header up to and including the format version: what the checksum neither covers nor is.
const FRONT_BYTES: usize = 17;

/// Bytes in front of what a batch's length counts.
const LENGTH_PREFIX: i32 = 12;

/// The largest range that is taken into memory to see whether it is a batch with a damaged header.
const MENDED_BYTES_MAX: usize = 64 << 20;

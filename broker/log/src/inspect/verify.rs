//! Reads everything in a log's folder and says what is wrong. Changes nothing.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use millpond_protocol::batch::BatchHeader;

use crate::compact::{COMPACTION, replaced_already};
use crate::disk::{Disk, OpenMode};
use crate::error::{Damage, LogError};
use crate::folder::{Folder, INDEX, LOG, TIME_INDEX, file_path};
use crate::inspect::beside::Aside;
use crate::inspect::entries::IndexCheck;
use crate::inspect::fault::{Fault, FaultKind};
use crate::inspect::names::{self, Name};
use crate::inspect::next_start::{NextStart, closed_end};
use crate::inspect::walk::{DamagedRange, Piece, SegmentWalk, WalkedBatch};
use crate::inspect::{IndexFault, RECORDS_BYTES_MAX};
use crate::log_start::StartFiles;
use crate::recovery_point::{RecoveryPoint, read_recovery_point};
use crate::verdict::{Place, Verdict, judge};

/// Who is told while a log is looked through.
pub trait Watch {
    /// A fault was found.
    fn fault(&mut self, fault: &Fault);

    /// This many more bytes of batches were read.
    fn progress(&mut self, bytes: u64);
}

/// What a verification has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Segments.
    pub segments: u64,
    /// Whole batches.
    pub batches: u64,
    /// Records that their headers announce.
    pub records: u64,
    /// Bytes of all `.log` files.
    pub bytes: u64,
    /// The first offset of the first segment.
    pub log_start: i64,
    /// One past the last offset of the last whole batch.
    pub log_end: i64,
    /// Faults, other than notes.
    pub faults: u64,
    /// Notes, see [`FaultKind::is_note`].
    pub notes: u64,
}

/// How a log is looked through.
#[derive(Clone, Copy, Debug, Default)]
pub struct VerifyOptions {
    /// Look only at the segment that begins with this offset.
    pub segment: Option<i64>,
    /// Whether a broker may be writing: then the end of the last segment may be in motion, and files may go.
    pub in_use: bool,
}

/// Reads a log's folder through: every batch of every segment with its checksum, its offset and its records, the indexes entry by entry, the
/// recovery point, and the names of the files; and holds that against what is written down as durable. What is said of damage is what the next
/// opening does with it. Faults go to `watch` as they are found, so memory is bounded whatever there is.
///
/// # Errors
///
/// [`LogError::Io`] if the folder can't be listed. A file that can't be read is a fault.
pub fn verify(disk: &dyn Disk, dir: &Path, options: VerifyOptions, watch: &mut dyn Watch) -> Result<Verified, LogError> {
    let found = disk.list(dir).map_err(|source| LogError::io("list", dir, source))?;
    let mut folder = Folder::of(&found);
    let mut verification =
        Verification { disk, dir, options, watch, seen: Verified::default(), leader_epoch: 0, held: None, log_start: None, next: None };
    if let Some(replaced) = verification.check_exchange() {
        folder.bases.retain(|base| !replaced.contains(base));
    }
    let log_start = verification.check_log_start();
    verification.log_start = log_start;
    let (deleted, bases) = names::split_deleted(&folder, log_start);
    verification.look_ahead(bases, log_start);
    if options.segment.is_none() {
        verification.check_names(&found, deleted);
        verification.check_recovery_point(&folder);
        verification.check_asides();
        verification.check_front();
    }
    let mut first = true;
    for (number, base) in bases.iter().enumerate() {
        if options.segment.is_some_and(|wanted| wanted != *base) {
            continue;
        }
        if std::mem::take(&mut first) {
            (verification.seen.log_start, verification.seen.log_end) = (*base, *base);
        }
        verification.check_segment(*base, bases.get(number + 1).copied());
    }
    Ok(verification.seen)
}

struct Verification<'a> {
    disk: &'a dyn Disk,
    dir: &'a Path,
    options: VerifyOptions,
    watch: &'a mut dyn Watch,
    seen: Verified,
    /// The leader epoch of the last batch that has one: not those that a repair or compaction has written to take offsets.
    leader_epoch: i32,
    /// The faults of a segment that a broker may be exchanging meanwhile.
    held: Option<Vec<Fault>>,
    /// The first offset that is left, if some were deleted.
    log_start: Option<i64>,
    /// What the next start will do. None beside a broker that writes, or where nobody can say.
    next: Option<NextStart>,
}

impl Verification<'_> {
    fn fault(&mut self, path: PathBuf, position: Option<u64>, offset: Option<i64>, kind: FaultKind) {
        let fault = Fault { path, position, offset, kind };
        match &mut self.held {
            Some(held) if held.len() < HELD_FAULTS_MAX => held.push(fault),
            _ => self.tell(&fault),
        }
    }

    fn tell(&mut self, fault: &Fault) {
        if fault.kind.is_note() {
            self.seen.notes += 1;
        } else {
            self.seen.faults += 1;
        }
        self.watch.fault(fault);
    }

    /// The segments that an interrupted exchange has left beside the one that has replaced them.
    fn check_exchange(&mut self) -> Option<Vec<i64>> {
        let path = self.dir.join(COMPACTION);
        let replaced = match replaced_already(self.disk, self.dir) {
            Ok(replaced) => replaced?,
            Err(source) => {
                self.fault(path.clone(), None, None, FaultKind::Unreadable(LogError::io("read", &path, source)));
                return None;
            }
        };
        self.fault(path, None, None, FaultKind::Exchange);
        Some(replaced)
    }

    fn check_names(&mut self, found: &[OsString], deleted: &[i64]) {
        let folder = Folder::of(found);
        let mut found: Vec<_> = found.iter().collect();
        found.sort();
        for name in found {
            let kind = match names::sort(name, &folder) {
                Name::Log if names::segment_of(Path::new(name)).is_some_and(|(base, _)| deleted.contains(&base)) => FaultKind::Leftover,
                Name::Log => continue,
                Name::Leftover => FaultKind::Leftover,
                Name::Kept => FaultKind::Kept,
                Name::Stranger => FaultKind::Stranger,
            };
            self.fault(self.dir.join(name), None, None, kind);
        }
    }

    fn check_recovery_point(&mut self, folder: &Folder) {
        let path = names::recovery_point(self.dir);
        let kind = match (self.disk.exists(&path), read_recovery_point(self.disk, self.dir)) {
            (Err(source), _) | (_, Err(source)) => FaultKind::Unreadable(LogError::io("read", &path, source)),
            (Ok(true), Ok(None)) => FaultKind::RecoveryPointUnreadable,
            // All before it is there, or what is gone is said elsewhere.
            (_, Ok(Some(point))) if point.is_ahead_of(&folder.bases) => return,
            (_, Ok(Some(RecoveryPoint { base_offset: point, .. }))) if !folder.bases.contains(&point) && !folder.bases.is_empty() => {
                FaultKind::RecoveryPointAstray { point }
            }
            _ => return,
        };
        self.fault(path, None, None, kind);
    }

    /// Asks the recovery what the next start will do with these segments.
    fn look_ahead(&mut self, bases: &[i64], log_start: Option<i64>) {
        if self.options.in_use {
            return;
        }
        match NextStart::look(self.disk, self.dir, bases, log_start) {
            Ok(next) => self.next = Some(next),
            Err(error) => self.fault(self.dir.to_path_buf(), None, None, FaultKind::Unreadable(error)),
        }
    }

    /// Segments that are gone in front of the first one, or altogether.
    fn check_front(&mut self) {
        if let Some(gone) = self.next.as_ref().and_then(|next| next.gone_in_front.clone()) {
            let kind = FaultKind::Gone { next_offset: gone.end };
            self.fault(file_path(self.dir, gone.start, LOG), Some(0), Some(gone.start), kind);
        }
    }

    /// The first offset that is left, if some were deleted.
    fn check_log_start(&mut self) -> Option<i64> {
        let files = match StartFiles::read(self.disk, self.dir) {
            Ok(files) => files,
            Err(error) => {
                self.fault(names::log_start(self.dir), None, None, FaultKind::Unreadable(error));
                return None;
            }
        };
        for path in files.damaged(self.dir) {
            let kind = if files.is_lost() { FaultKind::LogStartUnreadable } else { FaultKind::LogStartCopyUnreadable };
            self.fault(path, None, None, kind);
        }
        files.start()
    }

    /// The files that a log can go without.
    fn check_asides(&mut self) {
        for aside in Aside::ALL {
            let kind = match aside.is_damaged(self.disk, self.dir) {
                Ok(false) => continue,
                Ok(true) => FaultKind::Aside(aside),
                Err(error) => FaultKind::Unreadable(error),
            };
            self.fault(aside.path(self.dir), None, None, kind);
        }
    }

    /// Of a closed segment that a broker has exchanged meanwhile, nothing is said but that.
    fn check_segment(&mut self, base: i64, next_base: Option<i64>) {
        let Some(next_base) = next_base.filter(|_| self.options.in_use) else { return self.check_segment_at_rest(base, next_base) };
        let before = self.shape_of(base, next_base);
        self.held = Some(Vec::new());
        self.check_segment_at_rest(base, Some(next_base));
        let held = self.held.take().unwrap_or_default();
        if before.is_some() && self.shape_of(base, next_base) == before {
            for fault in &held {
                self.tell(fault);
            }
        } else if !held.is_empty() {
            self.fault(file_path(self.dir, base, LOG), None, Some(base), FaultKind::Exchange);
        }
    }

    /// What changes where a segment is exchanged: the sizes of its files, and whether the next one is there. None while one is.
    fn shape_of(&self, base: i64, next_base: i64) -> Option<([Option<u64>; 3], bool)> {
        let size = |extension| {
            let file = self.disk.open(&file_path(self.dir, base, extension), OpenMode::Read);
            file.and_then(|file| file.size_bytes()).ok()
        };
        let is_there = |path: &Path| self.disk.exists(path).unwrap_or(false);
        let shape = ([LOG, INDEX, TIME_INDEX].map(size), is_there(&file_path(self.dir, next_base, LOG)));
        (!is_there(&self.dir.join(COMPACTION))).then_some(shape)
    }

    fn check_segment_at_rest(&mut self, base: i64, next_base: Option<i64>) {
        let path = file_path(self.dir, base, LOG);
        if let Err(error) = self.try_check_segment(&path, base, next_base) {
            // Retention may have removed it since the folder was listed.
            let gone = matches!(&error, LogError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound);
            if !(gone && self.options.in_use) {
                self.fault(path, None, Some(base), FaultKind::Unreadable(error));
            }
        }
    }

    fn try_check_segment(&mut self, path: &Path, base: i64, next_base: Option<i64>) -> Result<(), LogError> {
        // The indexes are measured first, so that the batches which they name are within the `.log` as it is measured after.
        let mut indexes = Vec::new();
        for extension in [INDEX, TIME_INDEX] {
            let path = file_path(self.dir, base, extension);
            match IndexCheck::open(self.disk, &path, base) {
                Ok(check) => indexes.push((path, check)),
                Err(LogError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                    if !self.options.in_use {
                        self.fault(path, None, Some(base), FaultKind::Index(IndexFault::Missing));
                    }
                }
                Err(error) => self.fault(path, None, Some(base), FaultKind::Unreadable(error)),
            }
        }
        let end = if next_base.is_none() { self.end_of(base) } else { None };
        let mut walk = SegmentWalk::open(self.disk, path, base, next_base.or(end))?;
        self.seen.segments += 1;
        self.seen.bytes += walk.file_bytes();
        let mut torn = false;
        while let Some(piece) = walk.next_piece()? {
            match piece {
                Piece::Batch(batch) => {
                    for (_, index) in &mut indexes {
                        index.batch(batch.position, &batch.header)?;
                    }
                    self.check_batch(path, &mut walk, &batch)?;
                }
                Piece::Damage(mut range) => {
                    // Somebody has begun to append since.
                    if self.options.in_use && range.next_offset.is_some() && range.next_offset == end && self.end_of(base) != end {
                        range.next_offset = None;
                    }
                    let verdict = self.verdict(path, (base, next_base), &range)?;
                    if let Some(Verdict::Rot(span)) = verdict {
                        (range.bytes, range.next_offset) = (span.behind - range.position, Some(span.next_offset));
                        walk = walk.resume(span.behind, span.next_offset);
                    }
                    let behind = range.position + range.bytes;
                    for (_, index) in &mut indexes {
                        index.damage(behind, range.next_offset.unwrap_or(range.offset))?;
                    }
                    torn |= range.next_offset.is_none();
                    self.watch.progress(range.bytes);
                    self.damage(path, range, verdict);
                }
            }
        }
        for (path, index) in indexes {
            let closed = next_base.is_some();
            if let Some((at, fault)) = index.finish(closed, closed || !torn) {
                self.fault(path, Some(at), Some(base), FaultKind::Index(fault));
            }
        }
        Ok(())
    }

    /// Where the last segment ends, if that is written down.
    fn end_of(&self, last: i64) -> Option<i64> {
        if self.options.in_use {
            return closed_end(self.disk, self.dir, last, self.log_start);
        }
        self.next.as_ref().and_then(NextStart::end)
    }

    fn check_batch(&mut self, path: &Path, walk: &mut SegmentWalk, found: &WalkedBatch) -> Result<(), LogError> {
        let BatchHeader { base_offset, record_count, partition_leader_epoch, .. } = found.header;
        if partition_leader_epoch != NO_LEADER_EPOCH {
            let before = std::mem::replace(&mut self.leader_epoch, partition_leader_epoch);
            if partition_leader_epoch < before {
                let kind = FaultKind::LeaderEpoch { found: partition_leader_epoch, before };
                self.fault(path.to_path_buf(), Some(found.position), Some(base_offset), kind);
            }
        }
        self.seen.batches += 1;
        self.seen.records += u64::try_from(record_count).unwrap_or(0);
        self.seen.log_end = found.header.next_offset();
        // What is too large to be unpacked in bounded memory has a right checksum all the same.
        if let Some(batch) = walk.load(found)?
            && let Err(error) = batch.check_records(RECORDS_BYTES_MAX)
            && !is_over_limit(&error)
        {
            self.fault(path.to_path_buf(), Some(found.position), Some(base_offset), FaultKind::Records(error));
        }
        self.watch.progress(found.header.total_bytes() as u64);
        Ok(())
    }

    /// What the next start takes damage for, if it is the first that it meets where it may cut.
    fn verdict(
        &mut self,
        path: &Path,
        (base_offset, next_base): (i64, Option<i64>),
        range: &DamagedRange,
    ) -> Result<Option<Verdict>, LogError> {
        let Some(next) = self.next.as_mut().filter(|next| next.may_cut(base_offset)) else { return Ok(None) };
        let place = Place { path, base_offset, next_base, position: range.position, expected: range.offset };
        let verdict = match judge(self.disk, place) {
            Ok(verdict) => verdict,
            // What can't be read now is judged by nobody. It is a fault of its own.
            Err(LogError::Corrupt { reason: Damage::Unreadable(_), .. }) => {
                self.next = None;
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        next.is_cut |= !matches!(verdict, Verdict::Rot(_));
        Ok(Some(verdict))
    }

    fn damage(&mut self, path: &Path, range: DamagedRange, verdict: Option<Verdict>) {
        let DamagedRange { position, bytes, offset, next_offset, reason, .. } = range;
        let goes_on = self.next.as_ref().and_then(|next| next.goes_on);
        let kind = match (next_offset, verdict) {
            (None, _) if matches!(reason, Damage::Unreadable(_)) => FaultKind::Damaged { bytes, next_offset, reason },
            (None, _) if self.options.in_use => FaultKind::InMotion { bytes },
            (_, Some(Verdict::Interrupted)) => FaultKind::Interrupted { bytes, reason },
            (None, _) | (_, Some(Verdict::Torn)) => FaultKind::TornTail { bytes, reason },
            (Some(next_offset), _) if bytes == 0 && goes_on == Some(next_offset) => FaultKind::Gone { next_offset },
            (Some(_), _) => FaultKind::Damaged { bytes, next_offset, reason },
        };
        self.fault(path.to_path_buf(), Some(position), Some(offset), kind);
    }
}

/// What an empty batch has in the place of a leader epoch, as Kafka's cleaner leaves it.
const NO_LEADER_EPOCH: i32 = -1;

/// Faults of one segment that are held back. Further ones are told at once.
const HELD_FAULTS_MAX: usize = 10_000;

fn is_over_limit(error: &millpond_protocol::batch::BatchError) -> bool {
    use millpond_protocol::{batch::BatchError, compression::CompressionError};
    matches!(error, BatchError::Compression(CompressionError::OverLimit { .. }))
}

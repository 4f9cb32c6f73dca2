//! Compaction: of each key the latest record is kept, and offsets never change (Kafka's log compaction, KIP-58; tombstones by KIP-534).
//!
//! ```text
//!   closed, durable, below the high watermark                                          not looked at
//! |------------------------- clean ---------------|------------ dirty --------------| |-------------------->
//!   0000.log      4711.log                         9012.log          13337.log          20000.log (active)
//!                                                 ^ compacted-to                    ^ where the pass ends, if the map holds all keys
//!   1  the dirty part is read: key -> offset of its latest record          KeyMap, bounded
//!   2  everything up to there is read: what would be left of it?           sift, pure
//!   3  which segments are written anew, and which together?                group, pure
//!   4  written beside the log, durable, and put in their place             write, swap
//!   5  compacted-to moves to the end of what was mapped
//! ```
//!
//! A pass is done in steps, of a segment each, so that whoever runs it can do other things in between, or stop. One that is left, by a stop
//! or a crash, has done no harm: what it has written is in place, and the next one begins with the same dirty part. If the map is full
//! before the dirty part ends, the pass ends at the record that found no room, and the next one begins there.
//!
//! A record that goes leaves its offset unused. Where a whole batch goes, an empty one takes its offsets, and its neighbours': the offsets
//! of a log have no gap between batches, so that one that is missing is still noticed.
//!
//! # What can't be read
//!
//! A segment that can't be read as a whole is left alone, and said once. Records whose later occurrence lies in such a segment stay; so do
//! the tombstones behind it, which may remove a value in it; and the log counts as compacted up to its start and no further ([`unreadable`]).
//! A batch whose checksum is right and whose records can't be decoded, or take more than 64 MiB, counts likewise, and goes where its segment
//! goes.

mod compacted_to;
mod group;
mod key_map;
mod progress;
mod room;
mod sift;
mod swap;
mod unreadable;
mod write;

use std::collections::{BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use millpond_protocol::batch::HEADER_BYTES;

use crate::append_times::WALL_CLOCK_FLOOR_MS;
use crate::config::LogConfig;
use crate::disk::Disk;
use crate::error::LogError;
use crate::open_files::OpenFiles;
use crate::reader::{SegmentInfo, Shared};
use crate::recovery_point::read_recovery_point;
use crate::segment::Segment;

use compacted_to::{read_compacted_to, write_compacted_to};
use group::{State, Survey};
use key_map::KeyMap;
use sift::{Rules, Tombstones, note_keys};
use unreadable::{Held, Unreadable, read_through};
use write::{Counted, Draft, Sieve, each_batch};

pub(crate) use compacted_to::{COMPACTED_TO, find_compacted_to, forget_beyond};
pub use progress::{Compacted, Progress};
pub(crate) use swap::{replaced_already, resume};

/// Compacts one log. From [`Log::compactor`](crate::Log::compactor); one for each log, used by one thread at a time, and not any more once
/// the log is closed. It works beside appends, reads, flushes and deletions.
#[derive(Debug)]
pub struct Compactor {
    folders: Folders,
    key_map_bytes: usize,
    /// The first dirty offset, once it was read.
    compacted_to: Option<i64>,
    /// What keeps it from moving on.
    held: Option<Held>,
    /// Base offsets of the segments that the last pass could not read, which was said.
    said: BTreeSet<i64>,
    /// The folder may hold an exchange by halves, which the next opening completes.
    is_stuck: bool,
}

/// Where a log lives, and what of it is shared with its readers and its tail.
#[derive(Debug)]
struct Folders {
    disk: Arc<dyn Disk>,
    files: OpenFiles,
    dir: PathBuf,
    config: LogConfig,
    shared: Arc<Shared>,
}

/// What a pass is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compaction {
    /// Only offsets before this one are compacted: the high watermark.
    pub below: i64,
    /// A pass is made only if so many hundredths of the bytes that it could look at are dirty (Kafka's `min.cleanable.dirty.ratio`):
    /// otherwise much would be written for little.
    pub dirty_percent_min: u8,
    /// Milliseconds since 1970-01-01 UTC, as far as the machine knows. Before [`WALL_CLOCK_FLOOR_MS`] no tombstone goes, and none is dated.
    pub wall_ms: i64,
    /// How long tombstones are kept from their first compaction on, in milliseconds (Kafka's `delete.retention.ms`).
    pub delete_retention_ms: u64,
}

/// A pass that is under way. Dropping it ends it; what it has done stays.
#[derive(Debug)]
pub struct CompactionPass {
    stage: Stage,
    map: KeyMap,
    tombstones: Tombstones,
    /// The first dirty offset.
    from: i64,
    /// Records before it are not in the map: an earlier pass has noted them.
    map_from: i64,
    /// Where the segments end that may be compacted.
    end: i64,
    /// Records from here on are not in the map.
    map_end: i64,
    unreadable: Unreadable,
    surveys: Vec<Survey>,
    done: Compacted,
}

#[derive(Debug)]
enum Stage {
    /// The segment that the last pass could not read is to be tried.
    Retry { held: Held },
    /// The keys from this offset on are to be noted.
    Map { next: i64 },
    /// The segments from this offset on are to be looked at.
    Survey { next: i64 },
    /// These groups are to be written.
    Write { groups: VecDeque<Vec<Survey>> },
}

/// What a step has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompactionStep {
    /// There is more to do.
    More,
    /// Likewise; this segment has taken the place of all that began at its offsets.
    Replaced(SegmentInfo),
    /// The pass has ended.
    Done(Compacted),
}

impl Compactor {
    pub(crate) fn new(disk: &Arc<dyn Disk>, files: &OpenFiles, dir: &Path, config: LogConfig, shared: &Arc<Shared>) -> Compactor {
        let (disk, files, dir, shared) = (Arc::clone(disk), files.clone(), dir.to_path_buf(), Arc::clone(shared));
        let folders = Folders { disk, files, dir, config, shared };
        let (compacted_to, held, said) = (None, None, BTreeSet::new());
        Compactor { folders, key_map_bytes: KEY_MAP_DEFAULT_BYTES, compacted_to, held, said, is_stuck: false }
    }

    /// The same compactor, with so much memory for its map of keys; 24 bytes for each key, a quarter of them unused.
    #[must_use]
    pub fn with_key_map_bytes(mut self, bytes: usize) -> Compactor {
        self.key_map_bytes = bytes;
        self
    }

    /// Begins a pass, if there is enough to do. Reads two small files, the first time.
    ///
    /// # Errors
    ///
    /// [`LogError::Io`], [`LogError::TooManyOpenFiles`].
    pub fn begin(&mut self, compaction: Compaction) -> Result<Option<CompactionPass>, LogError> {
        if self.is_stuck || self.folders.shared.half_deleted(&self.folders.shared.changing()).is_some() {
            return Ok(None);
        }
        let Some(part) = self.part(compaction.below)? else { return Ok(None) };
        if part.dirty_bytes == 0 || part.dirty_bytes.saturating_mul(100) < part.bytes.saturating_mul(compaction.dirty_percent_min.into()) {
            return Ok(None);
        }
        let (now_ms, delete_retention_ms) = (compaction.wall_ms, compaction.delete_retention_ms);
        let is_believed = now_ms >= WALL_CLOCK_FLOOR_MS;
        let tombstones = if is_believed { Tombstones::Expire { now_ms, delete_retention_ms } } else { Tombstones::Stay };
        Ok(Some(CompactionPass {
            stage: self.held.map_or(Stage::Map { next: part.from }, |held| Stage::Retry { held }),
            // No more keys than offsets.
            map: KeyMap::new(self.key_map_bytes, part.end.abs_diff(part.from)),
            tombstones,
            from: part.from,
            map_from: part.from,
            end: part.end,
            map_end: part.end,
            unreadable: Unreadable::default(),
            surveys: Vec::new(),
            done: Compacted { from: part.from, to: part.from, ..Compacted::default() },
        }))
    }

    /// Whether the log should begin a new segment, so that what is in the active one can be compacted: it has a mebibyte at least, without
    /// it there is too little to do, and with it there is enough.
    ///
    /// # Errors
    ///
    /// As [`Compactor::begin`].
    pub fn wants_roll(&mut self, compaction: Compaction) -> Result<bool, LogError> {
        let segments = self.folders.shared.segments();
        let (Some(active), false) = (segments.last(), self.is_stuck) else { return Ok(false) };
        let closed: u64 = segments.iter().map(|segment| segment.bytes()).sum::<u64>() - active.bytes();
        let dirty_from = self.dirty_from()?;
        let dirty = self.folders.shared.closed_bytes_from(dirty_from);
        let is_enough = |dirty: u64, bytes: u64| dirty.saturating_mul(100) >= bytes.saturating_mul(compaction.dirty_percent_min.into());
        let without = dirty > 0 && is_enough(dirty, closed);
        Ok(active.bytes() >= ROLL_BYTES_MIN && !without && is_enough(dirty + active.bytes(), closed + active.bytes()))
    }

    /// Does the next part of a pass: reads one segment, or writes one. Blocking.
    ///
    /// # Errors
    ///
    /// [`LogError::Full`], [`LogError::TooManyOpenFiles`], [`LogError::Io`], [`LogError::Corrupt`] if a segment was damaged in the
    /// middle of the pass. The pass is to be dropped then; the log is as it was before the step, and another pass may succeed. Only after a
    /// failed rename or flush of the folder ([`LogError::Failed`]) there is none before the log was opened again. After [`LogError::Full`] the same step may be
    /// done once more, as soon as there is room. Where it is known that a segment has none, nothing of it is written.
    pub fn step(&mut self, pass: &mut CompactionPass) -> Result<CompactionStep, LogError> {
        if self.is_stuck {
            return Err(LogError::Failed { cause: "segments are exchanged by halves".to_owned() });
        }
        swap::refuse_half_deleted(&self.folders, &self.folders.shared.changing())?;
        match pass.stage {
            Stage::Retry { held } => {
                pass.stage = self.retry(pass, held)?;
                Ok(CompactionStep::More)
            }
            Stage::Map { next } => {
                pass.stage = self.map(pass, next)?;
                Ok(CompactionStep::More)
            }
            Stage::Survey { next } => {
                pass.stage = self.survey(pass, next)?;
                Ok(CompactionStep::More)
            }
            Stage::Write { ref mut groups } => match groups.pop_front() {
                Some(group) => self.write(pass, group),
                None => self.end(pass).map(CompactionStep::Done),
            },
        }
    }

    /// Reads what the last pass could not. If it still can't be read, the keys are noted from where an earlier pass has ended.
    fn retry(&self, pass: &mut CompactionPass, held: Held) -> Result<Stage, LogError> {
        if let Some((segment, end)) = self.closed_at(held.base_offset, pass.end) {
            let read = read_through(&segment, end);
            if read.is_ok() || !segment.is_removed() {
                let is_undecodable = matches!(read, Ok(false));
                pass.unreadable.note(&segment, read.map(drop), is_undecodable)?;
            }
        }
        if pass.unreadable.first().is_some() {
            pass.map_from = held.tried_to.max(pass.from);
        }
        Ok(Stage::Map { next: pass.map_from })
    }

    /// Notes the keys of the segment that holds `next`.
    fn map(&self, pass: &mut CompactionPass, next: i64) -> Result<Stage, LogError> {
        let survey = Stage::Survey { next: 0 };
        let Some((segment, end)) = self.closed_at(next, pass.end) else { return Ok(survey) };
        let (mut full_at, mut is_undecodable) = (None, false);
        let noted = each_batch(&segment, end, |batch| {
            if full_at.is_none() && batch.header().next_offset() > pass.map_from {
                // What can't be decoded is kept as it is, and takes no other record's place.
                full_at = note_keys(batch, pass.map_from, &mut pass.map).unwrap_or_else(|_| {
                    is_undecodable = true;
                    None
                });
            }
            Ok(())
        });
        pass.done.bytes_read += segment.bytes();
        // If not, it was deleted on another thread, since it was looked up.
        if noted.is_ok() || !segment.is_removed() {
            pass.unreadable.note(&segment, noted, is_undecodable)?;
        }
        Ok(match full_at {
            Some(full_at) => {
                pass.map_end = full_at;
                survey
            }
            None => Stage::Map { next: end },
        })
    }

    /// Looks at what would be left of the segment that holds `next`.
    fn survey(&self, pass: &mut CompactionPass, next: i64) -> Result<Stage, LogError> {
        let Some((segment, end)) = self.closed_at(next, pass.end).filter(|(segment, _)| segment.base_offset() < pass.map_end) else {
            return Ok(Stage::Write { groups: pass.plan(self.folders.config.segment_bytes_max()) });
        };
        // Its own, too: it may have been unreadable when its keys were to be noted.
        let tombstones_stay = pass.unreadable.first().is_some_and(|first| first <= segment.base_offset());
        let rules = pass.rules(tombstones_stay);
        let mut sieve = Sieve::new(Counted::default());
        let path = segment.path();
        let sifted = each_batch(&segment, end, |batch| sieve.push(batch, &rules).map_err(|source| LogError::io("read", &path, source)));
        pass.done.bytes_read += segment.bytes();
        let kept_bytes = sieve.sink.bytes;
        if sifted.is_err() && segment.is_removed() {
            return Ok(Stage::Survey { next: end });
        }
        // Records that are compressed anew can take more than before, and no segment may be larger than an index entry can say.
        let fits = kept_bytes <= write::SEGMENT_BYTES_MAX - 2 * HEADER_BYTES as u64;
        let state = match pass.unreadable.note(&segment, sifted, sieve.is_unreadable)? {
            false => State::Damaged,
            true if sieve.changed && fits => State::Changed,
            true => State::Same,
        };
        let survey = Survey {
            base_offset: segment.base_offset(),
            end_offset: end,
            generation: segment.generation(),
            bytes: segment.bytes(),
            kept_bytes,
            starts_empty: sieve.starts_empty,
            ends_empty: sieve.ends_empty(),
            state,
            tombstones_stay,
        };
        pass.surveys.push(survey);
        Ok(Stage::Survey { next: end })
    }

    /// Writes one group, and puts it in its place. Segments of it that were deleted for good since, the oldest ones, are left out.
    fn write(&mut self, pass: &mut CompactionPass, mut group: Vec<Survey>) -> Result<CompactionStep, LogError> {
        let segments = self.folders.shared.segments();
        let find = |survey: &Survey| segments.iter().find(|segment| segment.generation() == survey.generation).cloned();
        group.retain(|survey| find(survey).is_some());
        let old: Vec<_> = group.iter().filter_map(find).collect();
        let (Some(first), Some(last)) = (group.first(), group.last()) else { return Ok(CompactionStep::More) };
        let (base_offset, end_offset) = (first.base_offset, last.end_offset);
        if let Err(error) = self.find_room(&group) {
            return pass.in_halves(group, error);
        }
        let drafted = self.draft(pass, &group, &old);
        let before: u64 = group.iter().map(|survey| survey.bytes).sum();
        pass.done.bytes_read += before;
        let drafted = drafted.inspect_err(|_| write::discard(&*self.folders.disk, &self.folders.dir, base_offset));
        if drafted.is_err() && old.iter().any(|segment| segment.is_removed()) {
            pass.once_more(group);
            return Ok(CompactionStep::More);
        }
        let exchanged = drafted.and_then(|(drafted, removed)| {
            let new = swap::exchange(&self.folders, &old, drafted).map_err(|failed| {
                if failed.is_half_done {
                    self.is_stuck = true;
                    let dir = self.folders.dir.display();
                    tracing::error!(%dir, "segments are exchanged by halves: the log is compacted again once it was opened anew, which completes it");
                }
                failed.error
            })?;
            Ok((new, removed))
        });
        let (new, removed) = match exchanged {
            Ok((Some(new), removed)) => (new, removed),
            Ok((None, _)) => {
                pass.once_more(group);
                return Ok(CompactionStep::More);
            }
            // Not for lack of room: no step after this one would know of it.
            Err(error) if self.is_stuck => return Err(LogError::Failed { cause: error.chain() }),
            Err(error) => {
                pass.once_more(group);
                return Err(error);
            }
        };
        let bytes = new.bytes();
        pass.done.bytes_after = (pass.done.bytes_after + bytes).saturating_sub(before);
        pass.done.bytes_written += bytes;
        pass.done.records_removed += removed;
        pass.done.segments_after -= group.len() as u64 - 1;
        Ok(CompactionStep::Replaced(SegmentInfo { base_offset, end_offset, bytes }))
    }

    /// Writes what is left of the segments of a group under names that nobody looks at. Gives how many records are left out, too.
    fn draft(&self, pass: &CompactionPass, group: &[Survey], old: &[Arc<Segment>]) -> Result<(write::Drafted, u64), LogError> {
        let Folders { disk, dir, config, .. } = &self.folders;
        let draft = Draft::create(disk, dir, group[0].base_offset, config.index_interval_bytes)?;
        let path = draft.path();
        let failed = |source| LogError::io("write", &path, source);
        let mut sieve = Sieve::new(draft);
        for (survey, segment) in group.iter().zip(old) {
            let rules = pass.rules(survey.tombstones_stay);
            each_batch(segment, survey.end_offset, |batch| sieve.push(batch, &rules).map_err(failed))?;
        }
        sieve.fill().map_err(failed)?;
        Ok((sieve.sink.finish()?, sieve.removed))
    }

    /// Notes how far the log is compacted, and says what could not be read.
    fn end(&mut self, pass: &mut CompactionPass) -> Result<Compacted, LogError> {
        let Folders { disk, dir, .. } = &self.folders;
        let first_unreadable = pass.unreadable.first();
        let to = first_unreadable.map_or(pass.map_end, |first| first.max(pass.from).min(pass.map_end));
        if self.compacted_to != Some(to) {
            write_compacted_to(&**disk, dir, to).map_err(|source| LogError::io("write", &dir.join(COMPACTED_TO), source))?;
            self.compacted_to = Some(to);
        }
        let tried_to = self.held.map_or(pass.map_end, |held| held.tried_to.max(pass.map_end));
        self.held = first_unreadable.map(|base_offset| Held { base_offset, tried_to });
        pass.unreadable.say(dir, &mut self.said);
        Ok(Compacted { to, segments_damaged: pass.unreadable.causes.len() as u64, ..pass.done })
    }

    /// The closed segment that holds `offset`, or the first one behind it, and where it ends: at `end` at the latest.
    fn closed_at(&self, offset: i64, end: i64) -> Option<(Arc<Segment>, i64)> {
        let segments = self.folders.shared.segments();
        let ends = segments.iter().skip(1).map(|next| next.base_offset());
        let mut closed = segments.iter().zip(ends).skip_while(|(_, segment_end)| *segment_end <= offset);
        closed.next().filter(|(_, segment_end)| *segment_end <= end).map(|(segment, end)| (Arc::clone(segment), end))
    }

    /// What may be compacted. None if there is nothing dirty.
    fn part(&mut self, below: i64) -> Result<Option<Part>, LogError> {
        let Folders { disk, dir, shared, .. } = &self.folders;
        // What lies before it is durable, complete, and read by no recovery.
        let point = read_recovery_point(&**disk, dir).map_err(|source| LogError::io("read the recovery point in", dir, source))?;
        let point = point.map(|point| point.base_offset);
        let Some(point) = point else { return Ok(None) };
        let segments = shared.segments();
        let (compacted_to, dirty_from) = (self.compacted_to()?, self.dirty_from()?);
        let mut part = Part { from: compacted_to.max(segments[0].base_offset()), end: 0, bytes: 0, dirty_bytes: 0 };
        for (segment, next) in segments.iter().zip(&segments[1..]) {
            let end = next.base_offset();
            if end > below.min(point) {
                break;
            }
            part.end = end;
            part.bytes += segment.bytes();
            part.dirty_bytes += if end > dirty_from { segment.bytes() } else { 0 };
        }
        Ok((part.end > part.from).then_some(part))
    }

    /// What lies before it is no reason for a pass.
    fn dirty_from(&mut self) -> Result<i64, LogError> {
        let compacted_to = self.compacted_to()?;
        Ok(self.held.map_or(compacted_to, |held| held.tried_to.max(compacted_to)))
    }

    fn compacted_to(&mut self) -> Result<i64, LogError> {
        if let Some(known) = self.compacted_to {
            return Ok(known);
        }
        let Folders { disk, dir, .. } = &self.folders;
        let read = read_compacted_to(&**disk, dir).map_err(|source| LogError::io("read", &dir.join(COMPACTED_TO), source))?;
        Ok(*self.compacted_to.insert(read.unwrap_or(0)))
    }
}

/// The segments that may be compacted.
#[derive(Debug)]
struct Part {
    /// The first dirty offset.
    from: i64,
    end: i64,
    bytes: u64,
    /// Bytes of the segments with dirty offsets that no pass has looked at.
    dirty_bytes: u64,
}

impl CompactionPass {
    fn rules(&self, tombstones_stay: bool) -> Rules<'_> {
        let tombstones = if tombstones_stay { Tombstones::Stay } else { self.tombstones };
        Rules { map: &self.map, map_end: self.map_end, tombstones }
    }

    /// Of a group of which a segment was deleted meanwhile, the others are to be written.
    fn once_more(&mut self, group: Vec<Survey>) {
        if let Stage::Write { groups } = &mut self.stage {
            groups.push_front(group);
        }
    }

    fn plan(&mut self, segment_bytes_max: u64) -> VecDeque<Vec<Survey>> {
        let bytes = self.surveys.iter().map(|survey| survey.bytes).sum();
        let segments = self.surveys.len() as u64;
        (self.done.bytes_before, self.done.bytes_after) = (bytes, bytes);
        (self.done.segments_before, self.done.segments_after) = (segments, segments);
        group::plan(&self.surveys, segment_bytes_max).into_iter().map(|group| self.surveys[group].to_vec()).collect()
    }
}

/// The file that is there while segments are exchanged; see [`swap`].
pub(crate) const COMPACTION: &str = "compaction";

/// Ends the names of the files of a segment that has not taken its place yet; Kafka calls them so, too.
pub(crate) const CLEANED_SUFFIX: &str = ".cleaned";

/// Memory of the map of keys unless it is told otherwise: a quarter of a million keys.
const KEY_MAP_DEFAULT_BYTES: usize = 8 << 20;

/// With less in it, the active segment is not closed to be compacted: what could be won is not worth the wear.
const ROLL_BYTES_MIN: u64 = 1 << 20;

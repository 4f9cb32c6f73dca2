//! What is done with the files when a log is opened.
//!
//! ```text
//!   durable and complete: looked at,            may be torn: read in full,
//!   never cut                                   cut at a torn tail or a hole
//! |--------------------|--------------------| |--------------------|------------------->
//!   0000.log             4711.log               9012.log  ^          13337.log (last)
//!                                               recovery point
//! ```
//!
//! The recovery point moves in a flush, once every segment before it and its indexes are durable. As a rule it is the last segment.
//! Segments behind one that had to be cut get another name: their offsets no longer follow. Where there is no recovery point, as in a
//! folder that was copied without it, every segment but the last counts as durable, so nothing older can be cut by mistake.
//!
//! The recovery point also says which producers there were before it ([`crate::producers`]); the walk behind it adds theirs. Where it says
//! nothing of them, or there is none, the headers of all batches before are read once.
//!
//! A log that was closed in order has a note of how its last segment ends ([`crate::clean_stop`]). Where the files are as it says,
//! nothing is read but the ends of the older segments' indexes, and nothing is written or synced.
//!
//! What is not a whole batch ends the log only if nothing whole is behind it, or if it has a hole in it as an interrupted write leaves one;
//! then what is behind the hole is kept ([`crate::kept`]). Otherwise it was whole once, and what is behind it may have been acknowledged:
//! the walk goes on behind it, and readers step over it ([`crate::verdict`], [`crate::damages`]). The recovery point moves past such a
//! segment as past any other: it was read, it has lost what it will lose, and its indexes speak of the rest. While it is the last one, no
//! clean stop is noted, so that each opening reads it and says again what is wrong with it.
//!
//! # What was durable is never contradicted in silence
//!
//! A whole recovery point at P says that everything before offset P was durable; a whole note of a clean stop says so of everything before
//! the next offset in it. Both were written when it was true, and offsets never change, so it stays true whatever happens to the files:
//! only a repair takes it back, which moves the one and removes the other. Neither says so of what was appended since, which a crash may
//! take under any durability. Let E be the larger of the two ([`durable`]).
//!
//! - The log ends at E or behind it, so no offset before E is given out a second time.
//! - Where the last segment ends before E, or is damaged before it, nothing of it is cut: it is closed as it is, and a new segment at E
//!   is the last one. What it lacks are missing offsets, as behind any other segment that ends too early: reads of them fail and go on
//!   behind them, `log verify` finds them, `log repair` gives them up. Where no segment is left at all, an empty one at the log start
//!   takes the place of those that are gone.
//! - The note goes once the recovery point lies at the new segment, so that a power cut in between changes nothing of this.
//!
//! ```text
//!   found     | 0000.log | 4711.log |???                        recovery point or note: E = 13337
//!   opened    | 0000.log | 4711.log |?????????| 13337.log >     offsets up to 13337 are missing in 4711.log
//! ```
//!
//! Likewise at the other end: where the files of the log start say that it begins at S, the first segment begins there or before
//! ([`crate::log_start`]). If not, an empty segment at S takes the place of those that are gone.
//!
//! What has no checksum (a recovery point of the first layout) is no evidence, and neither is a file that is damaged or missing, as in a
//! folder that was copied without it.
//!
//! # Cuts
//!
//! A cut is made durable before the log takes appends, and everything that was kept is synced: a broker that was killed and started
//! again answers only for bytes that are on disk. After a flush that failed, the system may have dropped what it could not write and still
//! show it: then everything that is walked is written once more before it is synced ([`crate::flush_failed`]).

mod durable;
mod loss;
mod report;
mod walk;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::clean_stop::CleanStop;
use crate::config::LogConfig;
use crate::damages::{DamagedSpan, SPANS_MAX};
use crate::disk::{Disk, OpenMode, parent, sync_names};
use crate::error::{Damage, LogError};
use crate::flush_failed;
use crate::folder::{Folder, INDEX, LOG, TIME_INDEX, file_path};
use crate::index::{Entries, Entry, Index, LazyFile};
use crate::kept::{Keeper, SetAside, WhenFull};
use crate::log_start::{StartFiles, count_before, note_first_start, remove_files};
use crate::open_files::{OpenFiles, PooledFile};
use crate::producers::{Listed, Pools, Producers, Snapshot};
use crate::recovery_point::write_recovery_point;
use crate::scan::{BATCHES_CHUNK_BYTES, Scan};
use crate::sealed::{Keeping, Reconciled, open_sealed, reconcile};
use crate::segment::{Content, Segment};
use crate::sidecar::Found;
use crate::tail::Tail;
use crate::verdict::{Verdict, judge};
use crate::verified::Verified;

pub(crate) use durable::Durable;
use walk::Walk;

pub use report::{Cut, DamagedSegment, RecoveryReport};

/// An opened log, before anybody has it.
pub(crate) struct Recovered {
    pub(crate) segments: Vec<Arc<Segment>>,
    /// The last of them.
    pub(crate) active: Arc<Segment>,
    pub(crate) tail: Tail,
    /// Closed segments whose indexes could not be completed; the recovery point has to stay in front of them.
    pub(crate) incomplete: Vec<Arc<Segment>>,
    /// The first offset that was not deleted, if any was.
    pub(crate) log_start: Option<i64>,
    pub(crate) producers: Producers,
    /// The producers of the batches before the active segment.
    pub(crate) base_producers: Snapshot,
}

/// Opens the files in `dir`. What it finds and does is added to the report as it goes, so that it is there after an error, too.
pub(crate) fn recover(
    disk: &Arc<dyn Disk>,
    pools: &Pools,
    dir: &Path,
    config: &LogConfig,
    when_full: WhenFull,
    report: &mut RecoveryReport,
) -> Result<Recovered, LogError> {
    report.begin_try();
    let mut recovery = Recovery::new(disk, pools, dir, config, when_full, report);
    let mut folder = recovery.prepare()?;
    recovery.remove_deleted(&mut folder)?;
    let mut durable = Durable::read(&**disk, dir)?;
    let (point, last) = (durable.point, folder.bases.last().copied());
    let is_closed = recovery.is_closed(&durable, last)?;
    let Some(last) = last else { return recovery.open_emptied(durable) };
    let goes_on = if is_closed { None } else { durable.holds_less(&**disk, dir, last, recovery.log_start)? };

    let unproven_from = if goes_on.is_some() { last } else { durable.unproven_from(&folder.bases) };
    let (proven, unproven) = folder.bases.split_at(folder.bases.partition_point(|base| *base < unproven_from));
    let mut segments = Vec::with_capacity(folder.bases.len() + 2);
    segments.extend(recovery.lost_front(folder.bases[0])?);
    for (number, base) in proven.iter().enumerate() {
        // The segment behind the last proven one is there: at least the last segment is unproven.
        let next_base = folder.bases[number + 1];
        segments.push(recovery.open_proven((*base, next_base), point)?);
    }
    if let Some(goes_on) = goes_on {
        let listed = durable.producers_at(goes_on);
        let unlisted = if listed.is_some() { &[] } else { &folder.bases[..] };
        recovery.restore_or_observe(listed, unlisted)?;
        return recovery.go_on_behind(point, segments, (last, goes_on));
    }
    if let (true, Found::Whole(note)) = (is_closed, durable.note) {
        return Ok(recovery.open_as_closed(&note.stop, note.producers, segments));
    }
    // A point that is believed, though its segment may be deleted, or lie before others that are proven.
    let point_used = point.filter(|point| folder.bases.contains(point) || *point < folder.bases[0]);
    let listed = durable.listed.filter(|_| point_used.is_some());
    let listed_to = point_used.filter(|_| listed.is_some()).unwrap_or(0);
    recovery.restore_or_observe(listed, &proven[proven.partition_point(|base| *base < listed_to)..])?;
    let tail = recovery.walk_unproven(unproven, &mut segments)?;
    if recovery.log_start.is_some_and(|start| tail.next_offset < start) {
        return recovery.begin_anew(point, &segments);
    }
    recovery.finish(point, segments, tail)
}

struct Recovery<'a> {
    disk: &'a Arc<dyn Disk>,
    files: &'a OpenFiles,
    dir: &'a Path,
    config: &'a LogConfig,
    when_full: WhenFull,
    report: &'a mut RecoveryReport,
    incomplete: Vec<Arc<Segment>>,
    /// Where the log begins, as it was written down.
    log_start: Option<i64>,
    /// The first segment begins there or before it, if all are there. None if nobody knows.
    claimed_start: Option<i64>,
    producers: Producers,
    /// The producers of the batches before the last segment that was walked. After a clean stop the recovery point has them already, and
    /// nobody asks.
    base_producers: Snapshot,
    /// Whether the recovery point said nothing of them.
    producers_found: bool,
    /// Whether there is a note of a clean stop that is whole and not to be believed.
    has_note: bool,
}

impl<'a> Recovery<'a> {
    fn new(
        disk: &'a Arc<dyn Disk>,
        pools: &'a Pools,
        dir: &'a Path,
        config: &'a LogConfig,
        when_full: WhenFull,
        report: &'a mut RecoveryReport,
    ) -> Recovery<'a> {
        Recovery {
            disk,
            files: &pools.files,
            dir,
            config,
            when_full,
            report,
            incomplete: Vec::new(),
            log_start: None,
            claimed_start: None,
            producers: Producers::new(pools, config),
            base_producers: Snapshot::default(),
            producers_found: false,
            has_note: false,
        }
    }

    /// Opens a closed segment whose batches are durable. Its indexes are only known to be if the recovery point lies behind it.
    fn open_proven(&mut self, (base, next_base): (i64, i64), point: Option<i64>) -> Result<Arc<Segment>, LogError> {
        let keeping = if point.is_some_and(|point| base < point) { Keeping::SealedDurable } else { Keeping::Sealed };
        let opened = open_sealed((self.disk, self.files), self.dir, (base, next_base), self.config, keeping, self.report)?;
        let (segment, is_complete) = (Arc::new(opened.0), opened.1);
        if !is_complete && keeping == Keeping::Sealed {
            self.incomplete.push(Arc::clone(&segment));
        }
        Ok(segment)
    }

    /// Makes sure that there is a folder, lists it, and removes what is of no use.
    fn prepare(&mut self) -> Result<Folder, LogError> {
        self.disk.create_dir_all(self.dir).map_err(|source| LogError::io("create the folder", self.dir, source))?;
        self.report.removed_leftovers.extend(crate::compact::resume(&**self.disk, self.dir)?);
        self.report.flush_has_failed |=
            flush_failed::is_noted(&**self.disk, self.dir).map_err(|source| LogError::io("look for", self.dir, source))?;
        let names = self.disk.list(self.dir).map_err(|source| LogError::io("list", self.dir, source))?;
        let folder = Folder::of(&names);
        for name in &folder.leftovers {
            let path = self.dir.join(name);
            self.remove(&path)?;
            self.report.removed_leftovers.push(path);
        }
        Ok(folder)
    }

    /// Knows the producers as they are written down, and as the batches behind that say, in these segments; or as all headers say.
    fn restore_or_observe(&mut self, listed: Option<Listed>, bases: &[i64]) -> Result<(), LogError> {
        self.producers_found = listed.is_none();
        let Some(listed) = listed else { return self.producers.observe_segments(self.disk, self.dir, bases) };
        self.producers.restore(listed);
        self.producers.observe_in_full(self.disk, self.dir, bases)
    }

    /// Opens the last segment as it was closed. No name is synced: that was done when they were made.
    fn open_as_closed(mut self, stop: &CleanStop, producers: Listed, mut segments: Vec<Arc<Segment>>) -> Recovered {
        let tail = stop.tail;
        self.producers.restore(producers);
        let index = |extension| LazyFile::new(Arc::clone(self.disk), file_path(self.dir, tail.base_offset, extension));
        let offsets = Index::durable(index(INDEX), stop.offset_entries);
        let times = Index::durable(index(TIME_INDEX), stop.time_entries);
        let log = PooledFile::new(self.files, Arc::clone(self.disk), file_path(self.dir, tail.base_offset, LOG));
        let verified = Verified::new(self.config.verify_on_read, tail.bytes);
        let content = Content { bytes: tail.bytes, max_timestamp: tail.indexer.max_timestamp(), verified };
        let active = Arc::new(Segment::assemble(tail.base_offset, log, offsets, times, content));
        segments.push(Arc::clone(&active));
        self.report.clean_stop = true;
        self.recovered(segments, active, tail)
    }

    /// Removes the segments that lie before the log start. A crash may have brought any of them back.
    fn remove_deleted(&mut self, folder: &mut Folder) -> Result<(), LogError> {
        let files = StartFiles::read(&**self.disk, self.dir)?;
        self.log_start = files.start();
        let gone = self.log_start.map_or(0, |start| count_before(folder.bases.iter().copied(), start));
        if gone > 0 {
            self.sync_names()?;
        }
        for base in folder.bases.drain(..gone) {
            remove_files(&**self.disk, self.dir, base, &[LOG, INDEX, TIME_INDEX])?;
            self.report.removed_leftovers.push(file_path(self.dir, base, LOG));
        }
        files.mend(&**self.disk, self.dir, folder.bases.first().copied(), self.report);
        self.claimed_start = files.claimed();
        Ok(())
    }

    /// Before anything is removed because of what was read: a deletion may have ended between giving `log-start` its name and syncing
    /// that, and a power cut now would bring the older one back, to some of the segments.
    fn sync_names(&self) -> Result<(), LogError> {
        sync_names(&**self.disk, self.dir).map_err(|source| LogError::io("flush", self.dir, source))
    }

    /// A log without segments of which nothing durable is known to have been in any.
    fn create_first(mut self, point: Option<i64>) -> Result<Recovered, LogError> {
        self.base_producers = self.producers.snapshot();
        let base_offset = point.max(self.log_start).unwrap_or(0);
        let segment = Arc::new(Segment::create(self.disk, self.files, self.dir, base_offset, self.config)?);
        // Until somebody writes to it. A log that is idle needs no descriptor.
        segment.log().close();
        if base_offset == 0 && self.claimed_start.is_none() {
            note_first_start(&**self.disk, self.dir);
        }
        let tail = Tail::new(base_offset, self.config);
        self.finish(point, vec![segment], tail)
    }

    /// Reads the segments that may be torn, oldest first, up to a torn tail or a hole; cuts there, and sets aside what is behind.
    fn walk_unproven(&mut self, bases: &[i64], segments: &mut Vec<Arc<Segment>>) -> Result<Tail, LogError> {
        let mut tail = None;
        for (number, base) in bases.iter().enumerate() {
            self.base_producers = self.producers.snapshot();
            let next = bases.get(number + 1).copied();
            let mut walk = self.walk(*base, next)?;
            self.report.scanned_bytes += walk.tail.bytes;
            // A segment is followed by one that begins where it ends. If not, its tail is lost, although no torn batch shows it.
            if walk.damage.is_none()
                && let Some(next_base) = next.filter(|next| *next != walk.tail.next_offset)
            {
                walk.damage = Some(Damage::OffsetsMissing { next_base });
            }
            let cut = walk.damage.take();
            let last = next.is_none() || cut.is_some();
            if let Some(reason) = cut {
                let copied = self.set_aside(&walk, &bases[number + 1..])?;
                let done = self.cut(&walk, reason, bases.len() - number - 1);
                // Also where it failed: nobody knows what is left then.
                self.report.add_set_aside(copied);
                done?;
            }
            let (segment, at_end) = self.open_walked(walk, last)?;
            segments.push(segment);
            tail = Some(at_end);
            if last {
                break;
            }
        }
        Ok(tail.unwrap_or_else(|| unreachable!("the last segment of a log is always walked")))
    }

    /// Reads a segment in full, up to its end, a torn tail or a hole.
    fn walk(&mut self, base_offset: i64, next_base: Option<i64>) -> Result<Walk, LogError> {
        let path = file_path(self.dir, base_offset, LOG);
        let opened = self.disk.open(&path, OpenMode::ReadWrite).and_then(|file| file.size_bytes().map(|bytes| (file, bytes)));
        let (log, file_bytes) = opened.map_err(|source| LogError::io("open", &path, source))?;
        let mut scan = Scan::new(Arc::clone(&log), path.clone(), base_offset, 0, file_bytes).with_chunk(BATCHES_CHUNK_BYTES);
        let tail = Tail::new(base_offset, self.config);
        let entries = Entries::default();
        let mut walk = Walk { log, path, file_bytes, next_base, damage: None, is_interrupted: false, damages: Vec::new(), tail, entries };
        loop {
            match scan.next_batch() {
                Ok(Some((found, _))) => {
                    self.producers.observe(&found.header, found.header.base_offset);
                    walk.tail.indexer.add(&found.header, found.position, &mut walk.entries);
                    walk.tail.bytes = scan.position();
                    walk.tail.next_offset = found.next_offset;
                }
                Ok(None) => return Ok(walk),
                Err(LogError::Corrupt { reason, .. }) => match judge(&**self.disk, walk.place())? {
                    Verdict::Rot(rotten) => {
                        self.step_over(&mut walk, rotten, reason);
                        scan = scan.resume(rotten.behind, rotten.next_offset);
                    }
                    verdict => return Ok(Walk { damage: Some(reason), is_interrupted: verdict != Verdict::Torn, ..walk }),
                },
                Err(error) => return Err(error),
            }
        }
    }

    /// Leaves damage where it is. Its offsets stay taken. Where there are more places than are remembered, the last of them reaches to the
    /// end of this one: better than that whole batches behind it count as damaged is no cut.
    fn step_over(&mut self, walk: &mut Walk, span: DamagedSpan, reason: Damage) {
        self.report.add_damaged(walk.path.clone(), span.position, reason);
        (walk.tail.bytes, walk.tail.next_offset) = (span.behind, span.next_offset);
        let is_full = walk.damages.len() == SPANS_MAX;
        match walk.damages.last_mut() {
            Some(last) if is_full => (last.behind, last.next_offset) = (span.behind, span.next_offset),
            _ => walk.damages.push(span),
        }
    }

    /// Cuts a segment behind its last whole batch, and notes it. What is left is synced with the rest.
    fn cut(&mut self, walk: &Walk, reason: Damage, segments_behind: usize) -> Result<(), LogError> {
        let bytes = walk.tail.bytes;
        if walk.file_bytes > bytes {
            walk.log.set_len(bytes).map_err(|source| LogError::io("cut", &walk.path, source))?;
        }
        self.report.truncated_bytes += walk.file_bytes - bytes;
        let (path, cut_bytes) = (walk.path.display(), walk.file_bytes - bytes);
        tracing::warn!(%path, position = bytes, cut_bytes, segments_behind, %reason, "the log was cut");
        self.report.cut = Some(Cut { segment: walk.tail.base_offset, position: bytes, next_offset: walk.tail.next_offset, reason });
        Ok(())
    }

    /// Keeps what is behind a hole: gives the copy of what is of the same segment, and sets aside those that follow. They go newest first,
    /// and were one to come back after later appends, it could pass for a part of the log; so the names are synced before there can be any.
    fn set_aside(&mut self, walk: &Walk, behind: &[i64]) -> Result<Option<SetAside>, LogError> {
        if !walk.is_interrupted && behind.is_empty() {
            return Ok(None);
        }
        let keeper = Keeper::new(&**self.disk, self.dir, self.when_full)?;
        let is_kept = walk.is_interrupted && walk.tail.bytes < walk.file_bytes;
        let copied = is_kept.then(|| keeper.copy(&*walk.log, walk.place(), walk.file_bytes)).transpose()?;
        for base in behind.iter().rev() {
            let log = file_path(self.dir, *base, LOG);
            let bytes = self.disk.open(&log, OpenMode::Read).and_then(|file| file.size_bytes());
            let bytes = bytes.map_err(|source| LogError::io("open", &log, source))?;
            match bytes {
                0 => self.remove(&log)?,
                _ => self.report.set_aside.push(keeper.rename(*base, bytes)?),
            }
            self.report.truncated_bytes += bytes;
            self.report.removed_segments.push(*base);
            for extension in [INDEX, TIME_INDEX] {
                let path = file_path(self.dir, *base, extension);
                if self.disk.exists(&path).map_err(|source| LogError::io("look for", &path, source))? {
                    self.remove(&path)?;
                }
            }
        }
        Ok(copied)
    }

    /// Makes a walked segment durable and compares its indexes with what the walk says they should hold.
    fn open_walked(&mut self, walk: Walk, last: bool) -> Result<(Arc<Segment>, Tail), LogError> {
        let Walk { log, path, mut tail, mut entries, damages, .. } = walk;
        // A killed broker has not given it back. Failing is harmless.
        if let Err(error) = log.release() {
            tracing::warn!(path = %path.display(), %error, "room that a segment does not need can't be given back");
        }
        if self.report.flush_has_failed {
            let rewritten = flush_failed::rewrite(&*log, tail.bytes);
            rewritten.map_err(|source| LogError::io("write once more", &path, source))?;
        }
        // By the handle that it was cut with.
        log.sync_data().map_err(|source| {
            // Neither the next try nor the next opening must take the system's word. A full disk may have no room for the note.
            self.report.flush_has_failed = true;
            flush_failed::note(&**self.disk, self.dir);
            LogError::io("flush", &path, source)
        })?;
        // The entry that a closed segment ends with. A log that was closed in order has it for its last segment too.
        let mut indexer = tail.indexer;
        let closing = indexer.time_entry();
        if !last {
            tail.indexer = indexer;
            entries.times.extend(closing);
        }
        let allowed_extra = closing.filter(|_| last);
        let base = tail.base_offset;
        let keeping = if last { Keeping::Active } else { Keeping::Sealed };
        let offsets = self.reconcile(file_path(self.dir, base, INDEX), entries.offsets, None, keeping);
        let times = self.reconcile(file_path(self.dir, base, TIME_INDEX), entries.times, allowed_extra, keeping);
        let settled = offsets.unwritten.is_none() && times.unwritten.is_none();
        self.report.unwritten_indexes.extend(offsets.unwritten.into_iter().chain(times.unwritten));
        let max_timestamp = tail.indexer.max_timestamp();
        // All of its batches were compared with their checksums. Those in front of damage are compared once more.
        let trusted_from = damages.last().map_or(0, |span| span.behind);
        let content = Content { bytes: tail.bytes, max_timestamp, verified: Verified::new(self.config.verify_on_read, trusted_from) };
        let log = PooledFile::new(self.files, Arc::clone(self.disk), path);
        let segment = Arc::new(Segment::assemble(base, log, offsets.index, times.index, content).with_damages(damages));
        if !last && !settled {
            self.incomplete.push(Arc::clone(&segment));
        }
        Ok((segment, tail))
    }

    fn reconcile<E: Entry>(&mut self, path: PathBuf, expected: Vec<E>, extra: Option<E>, keeping: Keeping) -> Reconciled<E> {
        let reconciled = reconcile(self.disk, path, expected, extra, keeping);
        if reconciled.wrong {
            self.report.rebuilt_indexes.push(reconciled.index.path().to_path_buf());
        }
        reconciled
    }

    /// Makes the names durable, and moves the recovery point to the last segment.
    fn finish(self, point: Option<i64>, segments: Vec<Arc<Segment>>, tail: Tail) -> Result<Recovered, LogError> {
        // Whether or not this opening has changed any: the last owner may have been killed between creating a file and syncing its name.
        for folder in [self.dir, parent(self.dir)] {
            sync_names(&**self.disk, folder).map_err(|source| LogError::io("flush", folder, source))?;
        }
        let mut is_at_last = point == Some(tail.base_offset);
        if (!is_at_last || self.producers_found) && self.incomplete.is_empty() {
            match write_recovery_point(&**self.disk, self.dir, tail.base_offset, Some(&self.base_producers)) {
                Ok(()) => is_at_last = true,
                Err(error) => tracing::warn!(dir = %self.dir.display(), %error, "the recovery point can't be written and lags"),
            }
        }
        self.forget_note(is_at_last, &segments)?;
        if self.report.flush_has_failed
            && let Err(error) = flush_failed::forget(&**self.disk, self.dir)
        {
            tracing::warn!(dir = %self.dir.display(), %error, "the note of a failed flush stays, and the next opening writes the last segment once more");
        }
        let active = segments.last().map(Arc::clone);
        let active = active.unwrap_or_else(|| unreachable!("a recovered log has at least the segment that its tail is in"));
        Ok(self.recovered(segments, active, tail))
    }

    fn recovered(self, segments: Vec<Arc<Segment>>, active: Arc<Segment>, tail: Tail) -> Recovered {
        let Recovery { incomplete, log_start, producers, base_producers, report, dir, .. } = self;
        if let Some(error) = report.unwritten_indexes.first() {
            let indexes = report.unwritten_indexes.len();
            tracing::warn!(dir = %dir.display(), indexes, %error, "indexes can't be written and stay in memory");
        }
        Recovered { segments, active, tail, incomplete, log_start, producers, base_producers }
    }

    fn remove(&self, path: &Path) -> Result<(), LogError> {
        self.disk.remove_file(path).map_err(|source| LogError::io("remove", path, source))
    }
}

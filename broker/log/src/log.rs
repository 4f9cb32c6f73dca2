//! The tail of a log: the one place that writes batches.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use millpond_protocol::batch::Batch;

use crate::append_times::forget_lost;
use crate::clean_stop::{CleanStop, clean_stop_path};
use crate::compact::{Compactor, forget_beyond};
use crate::config::LogConfig;
use crate::disk::{Disk, DiskFile, sync_names, write_all_at};
use crate::error::LogError;
use crate::flush::{Flush, FlushedTo, Unflushed};
use crate::flush_failed;
use crate::folder::{INDEX, LOG, TIME_INDEX, file_path};
use crate::kept::WhenFull;
use crate::log_start::Deletion;
use crate::open_files::OpenFiles;
use crate::producers::{Pools, Producers};
use crate::reader::{LogReader, Shared};
use crate::recovery::{RecoveryReport, recover};
use crate::segment::Segment;
use crate::tail::{Plan, Tail, plan};

/// One partition's log, held by its one writer. Blocking. Dropping it does no I/O: what was not flushed is left to the system, and
/// sorted out by the recovery when the log is opened again.
#[derive(Debug)]
pub struct Log {
    disk: Arc<dyn Disk>,
    files: OpenFiles,
    dir: PathBuf,
    config: LogConfig,
    shared: Arc<Shared>,
    active: Arc<Segment>,
    tail: Tail,
    unflushed: Unflushed,
    failure: Option<Failure>,
    /// Whether the folder still has the note that the log was closed in order. It goes before the first append.
    is_as_closed: bool,
    /// What is remembered of the producers of its batches.
    pub(crate) producers: Producers,
}

/// The first failure, which the log keeps.
#[derive(Debug)]
struct Failure {
    cause: String,
    /// Whether a sync failed, or may have. Then nothing may be flushed any more; after a mere failed write, what was appended before it
    /// may.
    of_flush: bool,
}

impl Log {
    /// Opens the log in a folder, creating both if they are not there, and repairs what a crash has left: see [`RecoveryReport`].
    /// Afterwards everything in the log is durable, the folder's own name included; those above it are the caller's business. Reads the
    /// last segment in full, unless the log was closed in order.
    ///
    /// The log has pools of its own; see [`Log::open_in`].
    ///
    /// Only one `Log` may have a folder open; the engine's lock on its data folder sees to that.
    ///
    /// # Errors
    ///
    /// [`LogError::Io`] and [`LogError::Full`] if files can't be read, cut or created; [`LogError::Corrupt`] if the end of the last segment
    /// can't be read, which may have been acknowledged. Other damage is no error: what a crash leaves is repaired, and reads meet the rest.
    pub fn open(disk: Arc<dyn Disk>, dir: &Path, config: LogConfig) -> Result<(Log, RecoveryReport), LogError> {
        Log::open_in(disk, Pools::default(), dir, config)
    }

    /// As [`Log::open`], with pools that other logs use as well: of open files, of which an idle log needs none, and of producers.
    ///
    /// # Errors
    ///
    /// As [`Log::open`].
    pub fn open_in(disk: Arc<dyn Disk>, pools: Pools, dir: &Path, config: LogConfig) -> Result<(Log, RecoveryReport), LogError> {
        let mut report = RecoveryReport::default();
        let opened = Log::try_open(disk, pools, dir, config, WhenFull::Drop, &mut report);
        // Another try without this report would take the system's word.
        opened.map_err(|error| if report.flush_has_failed { error.of_sync() } else { error }).map(|log| (log, report))
    }

    /// As [`Log::open_in`], as one try of several: what it has found and done is added to the report, also where it fails. Of one report
    /// for all tries none is silent about what it has cut, and none takes the system's word for what another could not flush.
    ///
    /// # Errors
    ///
    /// As [`Log::open`]; [`LogError::Full`] also as [`WhenFull::Fail`] says.
    pub fn try_open(
        disk: Arc<dyn Disk>,
        pools: Pools,
        dir: &Path,
        config: LogConfig,
        when_full: WhenFull,
        report: &mut RecoveryReport,
    ) -> Result<Log, LogError> {
        let recovered = recover(&disk, &pools, dir, &config, when_full, report)?;
        if !report.clean_stop {
            // Whoever has cut the log: an opening before this one may have failed behind the cut.
            forget_beyond(&*disk, dir, recovered.tail.next_offset, when_full)?;
            let sizes = recovered.segments.iter().map(|segment| (segment.base_offset(), segment.bytes())).collect();
            forget_lost(&*disk, dir, &sizes, when_full)?;
        }
        let log_start = recovered.log_start.unwrap_or(0);
        let shared = Arc::new(Shared::new(recovered.segments, log_start, recovered.tail.next_offset));
        let log = Log {
            disk,
            files: pools.files,
            dir: dir.to_path_buf(),
            config,
            shared,
            active: recovered.active,
            tail: recovered.tail,
            unflushed: Unflushed::nothing(recovered.tail.next_offset, recovered.incomplete, recovered.base_producers),
            failure: None,
            is_as_closed: report.clean_stop,
            producers: recovered.producers,
        };
        Ok(log)
    }

    /// Appends batches: all of them, or none. They get the offsets from [`Log::log_end`] on, one behind the other, and the leader
    /// epoch; the rest of their bytes is written as it is, without a copy, with one write for all that go to the same segment.
    ///
    /// Returns the base offset of the first; each of the others begins one behind the last offset of the one before it. Readers see
    /// the batches when this returns. They are durable after a flush that began later.
    ///
    /// The checksums are not compared here: whoever took the batches in has done it. Nor are the sequences of producers, which the log
    /// takes down: [`Log::admit`] does it before.
    ///
    /// # Errors
    ///
    /// In every case nothing of the append is in the log. [`LogError::Full`], [`LogError::TooManyOpenFiles`]: the disk has no room, or
    /// no further segment can be opened, and the same append may succeed later. [`LogError::Io`], or one of those two after which the
    /// files could not be put right: the log latches, and answers [`LogError::Failed`] from then on.
    /// [`LogError::OffsetsExhausted`]: after nine quintillion records.
    pub fn append(&mut self, batches: &[Batch], leader_epoch: i32) -> Result<i64, LogError> {
        if let Some(failure) = &self.failure {
            return Err(LogError::Failed { cause: failure.cause.clone() });
        }
        self.leave_as_closed()?;
        let base_offset = self.tail.next_offset;
        let plan = plan(self.tail, batches, &self.config)?;
        self.ready_to_write(&plan)?;
        let mut created = Vec::new();
        match self.write(&plan, batches, leader_epoch, &mut created) {
            Ok(()) => self.commit(&plan, &created, batches),
            Err(error) => return Err(self.take_back(&plan, &created, error)),
        }
        Ok(base_offset)
    }

    /// The first offset in the log.
    pub fn log_start(&self) -> i64 {
        self.shared.log_start()
    }

    /// One past the last offset in the log: the next batch gets it.
    pub fn log_end(&self) -> i64 {
        self.tail.next_offset
    }

    /// Bytes of all batches in the log. Indexes are not counted.
    pub fn size_bytes(&self) -> u64 {
        self.shared.size_bytes()
    }

    /// One past the last offset that is known to be durable.
    pub fn durable_end(&self) -> i64 {
        self.unflushed.durable_end()
    }

    /// Takes down everything that was appended so far, to be made durable. No I/O.
    ///
    /// None if nothing is unflushed, if a flush has begun and its outcome was not brought to [`Log::end_flush`] yet, or if a flush has
    /// failed, in [`Flush::run`] or while a failed append was taken back.
    pub fn begin_flush(&mut self) -> Option<Flush> {
        if self.failure.as_ref().is_some_and(|failure| failure.of_flush) {
            return None;
        }
        self.unflushed.begin(&self.disk, &self.dir, &self.active, self.tail.next_offset)
    }

    /// As [`Log::begin_flush`], of the closed segments alone. None if [`Log::wants_flush`] says no, too.
    ///
    /// For a durability that promises nothing about single batches: a recovery then has the active segment to read and no other, and
    /// no append meets the sync of the file that it writes to.
    pub fn begin_flush_closed(&mut self) -> Option<Flush> {
        let refused = self.failure.as_ref().is_some_and(|failure| failure.of_flush) || self.unflushed.is_running();
        if refused || !self.wants_flush() {
            return None;
        }
        Some(self.unflushed.begin_closed(&self.disk, &self.dir, &self.active))
    }

    /// Takes the outcome of [`Flush::run`] back, and returns how far the log is durable.
    ///
    /// # Errors
    ///
    /// The error of the flush. The log latches: nothing is appended or flushed any more, reads go on. After
    /// [`LogError::TooManyOpenFiles`] it does not: no sync has failed, and the next flush covers what this one should have.
    pub fn end_flush(&mut self, outcome: Result<FlushedTo, LogError>) -> Result<i64, LogError> {
        match outcome {
            Ok(flushed) => {
                // Linux tells of a failed write-back once for each open file. If another sync of this file was told, the flush that
                // ran beside it knows nothing of it, and its success is no evidence.
                if let Some(Failure { cause, of_flush: true }) = &self.failure {
                    return Err(LogError::Failed { cause: cause.clone() });
                }
                self.unflushed.end(flushed, self.tail.next_offset);
                Ok(self.unflushed.durable_end())
            }
            Err(error @ LogError::TooManyOpenFiles { .. }) => {
                self.unflushed.put_off();
                Err(error)
            }
            Err(error) => {
                let error = error.of_sync();
                self.latch(&error, true);
                Err(error)
            }
        }
    }

    /// Whether a segment was closed and not flushed since. Under a durability that asks for no flushes the owner should start one all
    /// the same: until then a recovery would read the closed segment in full.
    pub fn wants_flush(&self) -> bool {
        self.unflushed.has_closed(&self.active)
    }

    /// Closes the active segment and begins the next one, so that the records up to now can be deleted in their time. Does nothing if
    /// the active segment is empty.
    ///
    /// # Errors
    ///
    /// [`LogError::Failed`], [`LogError::Full`], [`LogError::TooManyOpenFiles`], [`LogError::Io`]. The log is as it was.
    pub fn roll(&mut self) -> Result<(), LogError> {
        if let Some(failure) = &self.failure {
            return Err(LogError::Failed { cause: failure.cause.clone() });
        }
        if self.tail.bytes == 0 {
            return Ok(());
        }
        self.leave_as_closed()?;
        let next = Segment::create(&self.disk, &self.files, &self.dir, self.tail.next_offset, &self.config)?;
        let next = Arc::new(next);
        self.active.times.push(self.tail.indexer.time_entry().as_slice());
        self.unflushed.add(&self.active);
        self.unflushed.add(&next);
        self.unflushed.begin_segment(self.producers.snapshot());
        self.tail = Tail::new(self.tail.next_offset, &self.config);
        self.shared.publish(&[Arc::clone(&next)], self.tail.next_offset);
        self.active = next;
        Ok(())
    }

    /// A segment that would grow over so many bytes is closed from the next append on, as by
    /// [`LogConfig::segment_bytes`](crate::LogConfig::segment_bytes).
    pub fn set_segment_bytes(&mut self, bytes: u64) {
        self.config.segment_bytes = bytes;
    }

    /// Takes down what it takes to delete the records before `before`, or before the end of the log if that is lower. No I/O. None if
    /// there are none, and no segment that a deletion had to leave or has half deleted, and no file that one could not remove.
    ///
    /// Segments that lie before it as a whole are removed, but for the active one. Of the one that it lies in nothing is; the log begins
    /// there all the same, and offsets before the log start are out of range from then on.
    pub fn begin_delete(&self, before: i64) -> Option<Deletion> {
        let (before, log_start) = (before.min(self.log_end()), self.log_start());
        // The segment that was active when all of its records were deleted is not any more.
        let has_left_over = || self.shared.segments().get(1).is_some_and(|next| next.base_offset() <= log_start);
        let start = before.max(log_start);
        (before > log_start || has_left_over() || self.shared.has_unremoved())
            .then(|| Deletion::new(&self.disk, &self.dir, &self.shared, start))
    }

    /// What compacts this log, for any thread. There is to be one.
    pub fn compactor(&self) -> Compactor {
        Compactor::new(&self.disk, &self.files, &self.dir, self.config, &self.shared)
    }

    /// Gives back the room on the disk that the active segment has asked for ahead of its writes. True if there was some. For a disk that is
    /// full: the room is of more use to whoever writes next.
    pub fn release_room(&mut self) -> bool {
        let is_held = self.active.room().is_held(self.tail.bytes);
        if is_held {
            self.active.release_room();
        }
        is_held && !self.active.room().is_held(self.tail.bytes)
    }

    /// A reader of this log, for any thread.
    pub fn reader(&self) -> LogReader {
        LogReader::new(Arc::clone(&self.shared))
    }

    /// Why the log takes no more appends; None while it does.
    pub fn failure(&self) -> Option<&str> {
        self.failure.as_ref().map(|failure| failure.cause.as_str())
    }

    /// Whether the files of this log and the others in its pool have so many unsynced bytes in them that more than half of the pool can't
    /// be closed. A flush should not be put off then, whatever the durability.
    pub fn is_crowded(&self) -> bool {
        self.files.is_crowded()
    }

    /// Flushes everything, completes the index files, and notes that the next opening has nothing to read. A flush that is running
    /// elsewhere makes no difference.
    ///
    /// # Errors
    ///
    /// Those of a flush; [`LogError::Failed`] if one has failed before.
    pub fn close(mut self) -> Result<(), LogError> {
        if let Some(Failure { cause, of_flush: true }) = &self.failure {
            return Err(LogError::Failed { cause: cause.clone() });
        }
        if self.is_as_closed && !self.producers.has_skipped() {
            return Ok(());
        }
        self.unflushed.forget_running();
        let holds_room = self.active.room().is_held(self.tail.bytes);
        self.active.release_room();
        let flushed = match self.begin_flush() {
            Some(flush) => flush.run().map(drop),
            None if holds_room => self.active.sync_log(),
            None => Ok(()),
        };
        if let Err(error) = flushed {
            if !matches!(error, LogError::TooManyOpenFiles { .. }) {
                flush_failed::note(&*self.disk, &self.dir);
            }
            return Err(error);
        }
        let (offset_entries, time_entries, tail) = (self.active.offsets.entries(), self.active.times.entries(), self.tail);
        let closing = self.tail.indexer.time_entry();
        if !self.is_as_closed {
            self.active.times.push(closing.as_slice());
        }
        // Failing is harmless and was logged: without the note, the next opening compares the indexes with the batches. It should where the
        // segment is damaged in the middle: it says so again, and knows where.
        let is_settled = self.is_as_closed || self.active.settle_indexes();
        if is_settled && self.failure.is_none() && self.active.damages().is_empty() {
            let stop = CleanStop { tail, offset_entries, time_entries, has_closing_entry: closing.is_some() };
            if let Err(error) = stop.write(&self.producers.snapshot(), &*self.disk, &self.dir) {
                tracing::warn!(dir = %self.dir.display(), %error, "the clean stop can't be noted; the next opening reads the last segment");
            }
        }
        Ok(())
    }

    /// Removes the note that the log was closed in order, durably: from now on it would not be true.
    fn leave_as_closed(&mut self) -> Result<(), LogError> {
        if !self.is_as_closed {
            return Ok(());
        }
        let path = clean_stop_path(&self.dir);
        let removed = match self.disk.remove_file(&path) {
            // An earlier try has got this far.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.map_err(|source| LogError::io("remove", &path, source)),
        };
        let synced = || sync_names(&*self.disk, &self.dir).map_err(|source| LogError::io("flush", &self.dir, source));
        if let Err(error) = removed.and_then(|()| synced()) {
            if !error.is_passing() {
                self.latch(&error, false);
            }
            return Err(error);
        }
        // The entry that the closing has added. If it stays, a recovery finds the index wrong and builds it again.
        if let Err(error) = self.active.times.trim() {
            tracing::warn!(path = %self.active.times.path().display(), %error, "the last entry of an index can't be cut off");
        }
        self.is_as_closed = false;
        Ok(())
    }

    /// Opens the active segment if it is to be written to. After an error nothing was written.
    fn ready_to_write(&mut self, plan: &Plan) -> Result<(), LogError> {
        if plan.groups.first().is_none_or(|group| group.opens.is_some()) {
            return Ok(());
        }
        let log = self.active.log();
        if let Err(source) = log.for_write() {
            let error = LogError::io("open", log.path(), source);
            if !error.is_passing() {
                self.latch(&error, false);
            }
            return Err(error);
        }
        Ok(())
    }

    /// Writes every group of the plan, creating segments on the way. Nobody sees anything of it yet.
    fn write(&self, plan: &Plan, batches: &[Batch], leader_epoch: i32, created: &mut Vec<Arc<Segment>>) -> Result<(), LogError> {
        for group in &plan.groups {
            if group.opens.is_some() {
                created.push(Arc::new(Segment::create(&self.disk, &self.files, &self.dir, group.segment, &self.config)?));
            }
            let segment = created.last().unwrap_or(&self.active);
            let log = segment.log();
            let (batches, base_offsets) = (&batches[group.batches.clone()], &plan.base_offsets[group.batches.clone()]);
            let file = log.for_write().map_err(|source| LogError::io("open", log.path(), source))?;
            segment.room().ensure(&*file, group.bytes, self.config.segment_bytes_max());
            write_batches(&*file, batches, base_offsets, leader_epoch, group.position)
                .map_err(|source| LogError::io("write", log.path(), source))?;
        }
        Ok(())
    }

    /// Lets everyone see what was written: the segments, their indexes, and last the end of the log.
    fn commit(&mut self, plan: &Plan, created: &[Arc<Segment>], batches: &[Batch]) {
        let mut new_segments = created.iter();
        for group in &plan.groups {
            if let Some(closing) = group.opens
                && let Some(segment) = new_segments.next()
            {
                self.active.times.push(closing.time_entry.as_slice());
                // Its indexes are to be completed, even where its batches are durable already.
                self.unflushed.add(&self.active);
                self.unflushed.begin_segment(self.producers.snapshot());
                self.active = Arc::clone(segment);
            }
            // The batches first: an index entry never names a batch that readers can't see.
            self.active.publish(group.bytes, group.max_timestamp);
            self.active.offsets.push(&group.entries.offsets);
            self.active.times.push(&group.entries.times);
            self.active.spill_indexes();
            self.unflushed.add(&self.active);
            for (batch, base_offset) in batches[group.batches.clone()].iter().zip(&plan.base_offsets[group.batches.clone()]) {
                self.producers.observe(batch.header(), *base_offset);
            }
        }
        self.tail = plan.tail;
        self.shared.publish(created, plan.tail.next_offset);
    }

    /// Removes what a failed append has left in the files, and latches unless the cause may pass and the files are put right.
    fn take_back(&mut self, plan: &Plan, created: &[Arc<Segment>], error: LogError) -> LogError {
        let undone = self.undo(plan, created);
        if let Err(undo) = &undone {
            tracing::error!(error = %undo.chain(), "what a failed append left behind can't be removed; the next opening will");
        }
        if undone.is_err() || !error.is_passing() {
            // Among what failed in the undoing may be a sync, after which no flush is to be believed.
            self.latch(&error, undone.is_err());
        }
        error
    }

    /// Cuts the active segment where it was, and removes the new ones. Made durable at once: were the bytes to come back after a crash,
    /// behind batches that were appended later, they would pass for batches of the log.
    fn undo(&self, plan: &Plan, created: &[Arc<Segment>]) -> Result<(), LogError> {
        for segment in created.iter().rev() {
            for extension in [LOG, INDEX, TIME_INDEX] {
                let path = file_path(&self.dir, segment.base_offset(), extension);
                self.disk.remove_file(&path).map_err(|source| LogError::io("remove", &path, source))?;
            }
            // Syncing the folder takes a descriptor, and there may be no other left.
            segment.log().discard();
        }
        if !created.is_empty() {
            sync_names(&*self.disk, &self.dir).map_err(|source| LogError::io("flush", &self.dir, source))?;
        }
        if plan.groups.first().is_some_and(|group| group.opens.is_none()) {
            let log = self.active.log();
            let cut = log.for_write().and_then(|file| {
                file.set_len(self.tail.bytes)?;
                log.sync()
            });
            cut.map_err(|source| LogError::io("cut", log.path(), source))?;
        }
        Ok(())
    }

    fn latch(&mut self, error: &LogError, of_flush: bool) {
        let cause = error.chain();
        tracing::error!(dir = %self.dir.display(), cause, "the log stops writing and goes on serving reads");
        let failure = self.failure.get_or_insert(Failure { cause, of_flush: false });
        if of_flush && !std::mem::replace(&mut failure.of_flush, true) {
            flush_failed::note(&*self.disk, &self.dir);
        }
    }
}

/// Writes batches one behind the other, each as its patched start and the rest of its bytes.
fn write_batches(file: &dyn DiskFile, batches: &[Batch], base_offsets: &[i64], leader_epoch: i32, at: u64) -> io::Result<()> {
    let heads: Vec<_> =
        batches.iter().zip(base_offsets).map(|(batch, base_offset)| batch.with_base_offset(*base_offset, leader_epoch)).collect();
    let mut buffers = Vec::with_capacity(2 * batches.len());
    for (batch, head) in batches.iter().zip(&heads) {
        buffers.push(IoSlice::new(head));
        buffers.push(IoSlice::new(&batch.bytes()[head.len()..]));
    }
    write_all_at(file, &mut buffers, at)
}

//! Group commit: one flush makes durable whatever was appended before it began, while the appends go on.
//!
//! [`Log::begin_flush`](crate::Log::begin_flush) takes down what there is to flush, without I/O. [`Flush::run`] does the syncs, on any
//! thread. [`Log::end_flush`](crate::Log::end_flush) takes the outcome back. There is one flush of a log at a time.
//!
//! The order of the syncs is what recovery relies on: the batches of each segment, oldest first; the indexes of the closed ones; the
//! folder, if it has new names; and only then the recovery point, past the segments that are complete and durable from now on, with what is
//! known of the producers there.
//!
//! [`Log::begin_flush_closed`](crate::Log::begin_flush_closed) leaves the active segment out: what is appended to it then never waits
//! for the disk, and a recovery still reads one segment and no more. Kafka flushes a segment when it is closed, and no other, likewise.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::{Disk, sync_names};
use crate::error::LogError;
use crate::producers::Snapshot;
use crate::recovery_point::write_recovery_point;
use crate::segment::Segment;

/// What is to be made durable, apart from the log: it can go to another thread.
#[derive(Debug)]
pub struct Flush {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    /// Closed segments that are not known to be durable with their indexes, oldest first.
    closed: Vec<Arc<Segment>>,
    /// The segment that was active when the flush began; none if it is left out.
    active: Option<Arc<Segment>>,
    /// The base offset of that segment.
    active_base: i64,
    /// The producers of the batches before it.
    producers: Snapshot,
    /// Whether segments were created since the last flush.
    new_names: bool,
    /// Where what the flush covers ends.
    end: i64,
}

/// How far the log is durable after a flush that succeeded.
#[derive(Debug)]
#[must_use = "the log learns of it by Log::end_flush"]
pub struct FlushedTo {
    end: i64,
    active_base: i64,
    /// Closed segments whose batches are durable and whose indexes could not be completed.
    incomplete: Vec<Arc<Segment>>,
}

impl FlushedTo {
    /// One past the last durable offset.
    pub fn end(&self) -> i64 {
        self.end
    }
}

impl Flush {
    /// Syncs the files, and the folder where segments were created. Blocks for as long as the disk takes.
    ///
    /// Call it once: after an error the system may have dropped what it could not write, and trying again would answer for bytes that
    /// are gone. After [`LogError::TooManyOpenFiles`] it has not, and the next flush of the log does the work of this one.
    pub fn run(&self) -> Result<FlushedTo, LogError> {
        for segment in &self.closed {
            segment.release_room();
            segment.sync_log()?;
        }
        if let Some(active) = &self.active {
            active.sync_log()?;
        }
        // An index that can't be completed does no harm: the recovery point stays in front of its segment, and the next flush tries
        // again.
        let incomplete: Vec<_> = self.closed.iter().filter(|segment| !segment.settle_indexes()).cloned().collect();
        if self.new_names {
            sync_names(&*self.disk, &self.dir).map_err(|source| LogError::io("flush", &self.dir, source))?;
        }
        if incomplete.is_empty() && !self.closed.is_empty() {
            self.advance_recovery_point();
        }
        Ok(FlushedTo { end: self.end, active_base: self.active_base, incomplete })
    }

    /// A point that lags costs time in a recovery, nothing else; so failing is no failure of the flush.
    fn advance_recovery_point(&self) {
        if let Err(error) = write_recovery_point(&*self.disk, &self.dir, self.active_base, Some(&self.producers)) {
            tracing::warn!(dir = %self.dir.display(), %error, "the recovery point can't be written and lags");
        }
        for segment in &self.closed {
            // Readers open it again if they want it. It is durable, so nothing pins it.
            segment.log().close();
        }
    }
}

/// What the log remembers between flushes.
#[derive(Debug)]
pub(crate) struct Unflushed {
    /// Segments with batches or indexes that are not durable, oldest first.
    segments: Vec<Arc<Segment>>,
    /// Closed segments before those, whose indexes wait for another try. They are no reason for a flush by themselves.
    incomplete: Vec<Arc<Segment>>,
    new_names: bool,
    durable_end: i64,
    running: bool,
    /// The producers of the batches before the active segment.
    producers: Snapshot,
}

impl Unflushed {
    /// No batches, as after an opening. `producers` are those of the batches before the active segment.
    pub(crate) fn nothing(durable_end: i64, incomplete: Vec<Arc<Segment>>, producers: Snapshot) -> Unflushed {
        Unflushed { segments: Vec::new(), incomplete, new_names: false, durable_end, running: false, producers }
    }

    /// Notes that another segment is the active one from now on, with the producers of the batches before it.
    pub(crate) fn begin_segment(&mut self, producers: Snapshot) {
        self.new_names = true;
        self.producers = producers;
    }

    pub(crate) fn durable_end(&self) -> i64 {
        self.durable_end
    }

    /// Whether a closed segment waits for a flush.
    pub(crate) fn has_closed(&self, active: &Segment) -> bool {
        self.segments.first().is_some_and(|segment| segment.base_offset() != active.base_offset())
    }

    /// Notes that a segment has something to flush. Calls come in the order of the segments.
    pub(crate) fn add(&mut self, segment: &Arc<Segment>) {
        if self.segments.last().is_none_or(|last| last.base_offset() != segment.base_offset()) {
            self.segments.push(Arc::clone(segment));
        }
    }

    /// None if there is nothing to flush, or a flush is running.
    pub(crate) fn begin(&mut self, disk: &Arc<dyn Disk>, dir: &Path, active: &Arc<Segment>, end: i64) -> Option<Flush> {
        if self.running || (self.segments.is_empty() && !self.new_names) {
            return None;
        }
        let closed = self.begin_closed(disk, dir, active);
        Some(Flush { active: Some(Arc::clone(active)), end, ..closed })
    }

    /// A flush of everything but the active segment.
    pub(crate) fn begin_closed(&mut self, disk: &Arc<dyn Disk>, dir: &Path, active: &Arc<Segment>) -> Flush {
        self.running = true;
        let candidates = self.incomplete.iter().chain(&self.segments);
        let closed = candidates.filter(|segment| segment.base_offset() != active.base_offset()).cloned().collect();
        Flush {
            disk: Arc::clone(disk),
            dir: dir.to_path_buf(),
            closed,
            active: None,
            active_base: active.base_offset(),
            producers: self.producers.clone(),
            new_names: std::mem::take(&mut self.new_names),
            // Segments follow each other without a gap.
            end: active.base_offset(),
        }
    }

    pub(crate) fn is_running(&self) -> bool {
        self.running
    }

    /// Forgets that a flush is running: its outcome will not be brought back.
    pub(crate) fn forget_running(&mut self) {
        // It may never sync the names that it has taken.
        self.new_names |= self.running;
        self.running = false;
    }

    /// Takes back a flush that could not be done and may be tried again. Its segments are still noted here.
    pub(crate) fn put_off(&mut self) {
        self.running = false;
        // Perhaps nothing is new in the folder; syncing it once too often does no harm.
        self.new_names = true;
    }

    /// Forgets what the flush has covered. `log_end` is the end of the log by now.
    pub(crate) fn end(&mut self, flushed: FlushedTo, log_end: i64) {
        self.running = false;
        self.durable_end = self.durable_end.max(flushed.end);
        self.incomplete = flushed.incomplete;
        // A segment that was begun since, though nothing is in it, has closed another.
        let is_same = self.segments.last().is_none_or(|last| last.base_offset() <= flushed.active_base);
        if log_end == flushed.end && is_same {
            self.segments.clear();
        } else {
            // The segment that was active has grown, or was closed, or both.
            self.segments.retain(|segment| segment.base_offset() >= flushed.active_base);
        }
    }
}

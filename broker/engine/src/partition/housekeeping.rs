//! Deleting the oldest records, on request, and by age and size. Runs on the background thread, beside turns and flushes: nobody waits for
//! it with a deadline. What makes room for batches that wait has a thread of its own, see [`crate::space`].
//!
//! ```text
//!   ages, sizes ──> decided (millpond_log::RetentionLimits) ──> log start written down ──> published ──> files removed
//!        │                     │                                          │
//!   AppendTimes           roll: the tail, for a moment               no append waits for it
//! ```
//!
//! Nothing above the high watermark is deleted, so nothing that is not answered yet.
//!
//! One deletion of a log is under way at a time; the others wait for it, or come back. A compaction goes on beside it, on the other thread:
//! what was deleted under its hands it leaves out (`millpond_log::Compactor`). Only while it exchanges segments does a deletion wait for it,
//! or come back.

use super::{Partition, PoisonOnPanic, answer::Owed};
use crate::error::EngineError;
use millpond_log::{AppendTimes, Deletion, LogError, LogReader, Now, RetentionLimits};
use millpond_protocol::message::Watermarks;
use std::sync::Arc;
use tokio::sync::MutexGuard;

impl Partition {
    /// Deletes what is older, or more, than the limits allow. What can't be done now is logged, and tried again at the next check.
    /// Blocking; on the background thread.
    pub(crate) fn check_retention(self: &Arc<Self>, limits: RetentionLimits) {
        let (Ok(reader), Some(_work)) = (self.reader(), self.begin_deletion()) else { return };
        let _poison = PoisonOnPanic(self);
        let now = self.services.now();
        let mut times = self.append_times.lock();
        if let Err(error) = self.delete_expired(reader, &mut times, now, limits) {
            tracing::warn!(topic = %self.topic, partition = self.number, error = error.to_wire().message, "retention can't delete now");
        }
        // Without a limit by age nobody asks for them.
        if limits.retention_ms.is_some()
            && let Err(error) = times.save(now)
        {
            tracing::warn!(topic = %self.topic, partition = self.number, %error, "the append times can't be written and lag");
        }
    }

    /// Deletes the records before `before`, or before the high watermark if that is lower. Gives the log start from now on. Blocking; on
    /// the background thread.
    pub(crate) fn delete_records(self: &Arc<Self>, before: i64) -> Result<i64, EngineError> {
        self.reader()?;
        let Some(_work) = self.begin_deletion() else {
            return Err(self.queue.lock().refusal.clone().unwrap_or(EngineError::ShuttingDown));
        };
        let _poison = PoisonOnPanic(self);
        let before = before.min(self.watermarks().high_watermark);
        let is_everything = self.tail.lock().log.as_ref().is_some_and(|log| before > log.log_start() && before == log.log_end());
        if is_everything && let Err(error) = self.roll() {
            // The records are gone all the same; their bytes stay until a later segment is begun.
            tracing::warn!(topic = %self.topic, partition = self.number, error = error.to_wire().message, "no new segment can be begun");
        }
        self.delete_before(before)
    }

    fn delete_expired(
        self: &Arc<Self>,
        reader: &LogReader,
        times: &mut AppendTimes,
        now: Now,
        limits: RetentionLimits,
    ) -> Result<(), EngineError> {
        let high_watermark = self.watermarks().high_watermark;
        let mut expired = limits.expired(&times.observe(now, &reader.segments()), high_watermark);
        let mut rolled = Ok(());
        if expired.roll {
            rolled = self.roll();
            expired = limits.expired(&times.observe(now, &reader.segments()), high_watermark);
        }
        // On a full disk no segment can be begun, and the old ones must go all the more.
        if let Some(before) = expired.delete_before {
            let (start_before, bytes_before) = (self.watermarks().log_start, reader.size_bytes());
            let log_start = self.delete_before(before)?;
            let (offsets, bytes) = (log_start - start_before, bytes_before.saturating_sub(reader.size_bytes()));
            tracing::info!(topic = %self.topic, partition = self.number, log_start, offsets, bytes, "retention has deleted the oldest records");
        }
        rolled
    }

    pub(super) fn delete_before(&self, before: i64) -> Result<i64, EngineError> {
        let log_start = self.delete_by(before, |deletion| deletion.run().map(Some))?;
        Ok(log_start.unwrap_or_else(|| self.watermarks().log_start))
    }

    /// The same without waiting for a compaction: None while it exchanges segments here, and nothing is deleted then.
    pub(super) fn try_delete_before(&self, before: i64) -> Result<Option<i64>, EngineError> {
        self.delete_by(before, Deletion::try_run)
    }

    fn delete_by(&self, before: i64, run: impl Fn(&Deletion) -> Result<Option<i64>, LogError>) -> Result<Option<i64>, EngineError> {
        let deletion = self.tail.lock().log.as_ref().and_then(|log| log.begin_delete(before));
        let Some(deletion) = deletion else { return Ok(Some(self.watermarks().log_start)) };
        let run = || run(&deletion).map_err(|error| self.log_error(Arc::new(error)));
        let deleted = self.services.space.reserve.lend(EngineError::is_disk_full, run);
        if matches!(deleted, Ok(None)) {
            return Ok(None);
        }
        // Also where it failed, segments may be gone.
        Partition::recount(&mut self.tail.lock());
        self.services.space.has_changed();
        let log_start = deleted?;
        if let Some(log_start) = log_start {
            self.publish(Watermarks { log_start, ..self.watermarks() });
        }
        Ok(log_start)
    }

    /// Begins a new segment, and has the last one flushed.
    pub(super) fn roll(self: &Arc<Self>) -> Result<(), EngineError> {
        let mut answers = Vec::new();
        let rolled = {
            let mut tail = self.tail.lock();
            let roll = || tail.log.as_mut().map_or(Ok(()), millpond_log::Log::roll);
            let rolled = self.services.space.reserve.lend(|error| matches!(error, LogError::Full { .. }), roll);
            tail.flush_due = true;
            self.start_flush(&mut tail, &mut answers);
            rolled
        };
        super::turn::send_all(answers);
        rolled.map_err(|error| self.log_error(Arc::new(error)))
    }

    /// Waits until no other deletion is under way, and begins one. None if the log is closed. Blocking.
    pub(super) fn begin_deletion(&self) -> Option<Work<'_>> {
        let turn = self.deleting.blocking_lock();
        self.begin_work(Some(turn))
    }

    /// The same without waiting: none, too, if another deletion is under way.
    pub(super) fn try_begin_deletion(&self) -> Result<Option<Work<'_>>, DeletionRunning> {
        let turn = self.deleting.try_lock().map_err(|_| DeletionRunning)?;
        Ok(self.begin_work(Some(turn)))
    }

    /// Waits until that is over which the partition was busy with.
    pub(crate) async fn is_free_of(&self, busy: Busy) {
        match busy {
            Busy::Deletion => drop(self.deleting.lock().await),
            Busy::Exchange => {
                let ended = self.work_ends.notified();
                tokio::pin!(ended);
                // Before the look, so that no end falls in between: whoever compacts gives that lock back first, and then says so.
                ended.as_mut().enable();
                if self.compacting.is_locked() {
                    ended.await;
                }
            }
        }
    }

    /// Keeps the log from being closed, and its folder from being given back. None if it is closed.
    pub(super) fn begin_work<'a>(&'a self, turn: Option<MutexGuard<'a, ()>>) -> Option<Work<'a>> {
        let mut tail = self.tail.lock();
        tail.log.as_ref()?;
        tail.works_running += 1;
        Some(Work { partition: self, _turn: turn, _owed: self.open.owe() })
    }
}

/// Why a partition can't yield at this moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Busy {
    /// Records of it are being deleted already.
    Deletion,
    /// A compaction puts a segment in the place of others.
    Exchange,
}

/// Another deletion has the log.
pub(super) struct DeletionRunning;

/// While it lives, there is work in the partition's folder.
pub(super) struct Work<'a> {
    partition: &'a Partition,
    /// Of a deletion.
    _turn: Option<MutexGuard<'a, ()>>,
    // Dropped after it is counted no more: whoever waits for this looks at that.
    _owed: Owed,
}

impl Drop for Work<'_> {
    fn drop(&mut self) {
        self.partition.tail.lock().works_running -= 1;
        self.partition.work_ends.notify_waiters();
    }
}

//! A partition's part in its compaction: single steps, on the background thread, beside turns, flushes, and the deletion of oldest segments.
//!
//! What is compacted are closed segments. A topic of little records would never close one, so the active segment is closed where that is
//! worth it: it holds a mebibyte at least, and with it, half of what could be compacted is new (`millpond_log::Compactor::wants_roll`). It
//! is compacted at a later look, once it is flushed.

use super::{Partition, PoisonOnPanic};
use millpond_log::{Compaction, CompactionPass, CompactionStep, Compactor, LogError};
use std::sync::Arc;

/// What a partition remembers between two passes.
#[derive(Debug)]
pub(super) struct Compacting {
    compactor: Compactor,
    /// No pass before this moment, by the monotonic clock: the last one has failed.
    not_before_ms: i64,
}

impl Compacting {
    pub(super) fn new(compactor: Compactor) -> Compacting {
        Compacting { compactor, not_before_ms: i64::MIN }
    }
}

impl Partition {
    /// Begins a pass if there is enough to do. None if not, or if it can't be done now, which is logged.
    pub(crate) fn begin_compaction(self: &Arc<Self>, delete_retention_ms: u64) -> Option<CompactionPass> {
        let (reader, _work) = (self.reader().ok()?, self.begin_work(None)?);
        let _poison = PoisonOnPanic(self);
        // The disk that failed a write is not written to for this, either.
        if self.failure.lock().is_some() {
            return None;
        }
        let now = self.services.now();
        let mut compacting = self.compacting.lock();
        let Compacting { compactor, not_before_ms } = compacting.as_mut()?;
        if now.monotonic_ms < *not_before_ms {
            return None;
        }
        // Looked at before a segment is exchanged: what takes its place inherits its age.
        self.append_times.lock().observe(now, &reader.segments());
        let below = self.watermarks().high_watermark;
        let compaction = Compaction { below, dirty_percent_min: DIRTY_PERCENT_MIN, wall_ms: now.wall_ms, delete_retention_ms };
        let wants_roll = compactor.wants_roll(compaction);
        // What the last look has found, a pass or not.
        self.compaction_log.lock().saw(compactor.progress());
        let begun = match wants_roll {
            Ok(true) => {
                if let Err(error) = self.roll() {
                    tracing::warn!(topic = %self.topic, partition = self.number, error = error.to_wire().message, "no segment can be begun");
                }
                compactor.begin(compaction)
            }
            Ok(false) => compactor.begin(compaction),
            Err(error) => Err(error),
        };
        match begun {
            Ok(pass) => {
                if pass.is_none() {
                    self.compaction_log.lock().has_nothing_to_do();
                }
                pass
            }
            Err(error) => {
                self.put_off(&error, compactor, not_before_ms);
                None
            }
        }
    }

    /// Does the next part of a pass. None if it has ended, or can't go on, which is logged; the next one begins where it did.
    pub(crate) fn continue_compaction(self: &Arc<Self>, mut pass: CompactionPass) -> Option<CompactionPass> {
        let _work = self.begin_work(None)?;
        let _poison = PoisonOnPanic(self);
        let mut compacting = self.compacting.lock();
        let Compacting { compactor, not_before_ms } = compacting.as_mut()?;
        let before = pass.so_far();
        let step = compactor.step(&mut pass);
        self.compaction_log.lock().add(before, pass.so_far());
        match step {
            Ok(CompactionStep::More) => Some(pass),
            Ok(CompactionStep::Replaced(segment)) => {
                self.append_times.lock().replaced(&segment);
                // There is room at once, for whoever waits for it.
                Partition::recount(&mut self.tail.lock());
                self.services.space.has_changed();
                Some(pass)
            }
            Ok(CompactionStep::Done(done)) => {
                self.compaction_log.lock().ended(compactor.progress(), self.services.clock.monotonic_ms());
                let (topic, partition) = (&self.topic, self.number);
                let (bytes_before, bytes_after, records_removed) = (done.bytes_before, done.bytes_after, done.records_removed);
                let (segments, bytes_written, damaged) = (done.segments_after, done.bytes_written, done.segments_damaged);
                tracing::info!(
                    %topic, partition, from = done.from, to = done.to, bytes_before, bytes_after, records_removed, segments, bytes_written, damaged,
                    "a partition was compacted"
                );
                None
            }
            Err(error) => {
                self.put_off(&error, compactor, not_before_ms);
                None
            }
        }
    }

    fn put_off(&self, error: &LogError, compactor: &Compactor, not_before_ms: &mut i64) {
        *not_before_ms = self.services.clock.monotonic_ms().saturating_add(PUT_OFF_MS);
        self.compaction_log.lock().failed(compactor.progress(), error.chain(), *not_before_ms);
        tracing::warn!(topic = %self.topic, partition = self.number, error = error.chain(), "compaction can't go on now, and is tried again");
    }
}

/// After a pass has failed, as on a full disk, the next one waits so long: each may write a segment before it fails again.
const PUT_OFF_MS: i64 = 600_000;

/// Kafka's `min.cleanable.dirty.ratio`: so many hundredths of what could be compacted must be new, or much is read and written for little.
const DIRTY_PERCENT_MIN: u8 = 50;

#[cfg(test)]
mod tests {
    use crate::{
        partition::{Extent, Look},
        testing::{Site, VALUE_BYTES, answer, batch},
    };
    use millpond_protocol::message::Cleanup;

    #[tokio::test(start_paused = true)]
    async fn what_a_step_has_made_smaller_counts_less_at_once() {
        let site = Site::new().await;
        let partition = site.topic("t", |config| config.cleanup = Cleanup::Compact).await;
        for number in 0..60 {
            answer(site.submit("t", batch(number % 3, VALUE_BYTES)).await).await.expect("there is room");
        }
        let before = partition.size_bytes();
        assert_eq!(partition.space.level().used, before);
        // Nobody else looks at what is used: that would be in an hour.
        let mut pass = partition.begin_compaction(0).expect("there is enough to do");
        let mut seen = vec![before];
        while let Some(next) = partition.continue_compaction(pass) {
            pass = next;
            assert_eq!(partition.space.level().used, partition.size_bytes(), "after each step");
            seen.push(partition.size_bytes());
        }
        assert!(partition.size_bytes() < before / 2 && seen.is_sorted_by(|a, b| a >= b), "{seen:?}");
        assert_eq!(site.engine.services.space.level().used, partition.size_bytes(), "for the broker, too");
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_is_not_said_any_more_once_there_is_nothing_to_do() {
        let site = Site::new().await;
        let partition = site.topic("t", |config| config.cleanup = Cleanup::Compact).await;
        for number in 0..60 {
            answer(site.submit("t", batch(number % 3, VALUE_BYTES)).await).await.expect("there is room");
        }
        let status = || {
            let look = Look { extent: Extent::All, compacts: true, reserve_held: true };
            partition.info(look).0.compaction.expect("it is compacted")
        };
        let mut pass = partition.begin_compaction(0);
        assert!(pass.is_some(), "there is enough to do");
        // No room for a draft.
        site.disk.limit_bytes(Some(1));
        while let Some(next) = pass {
            pass = partition.continue_compaction(next);
        }
        site.disk.limit_bytes(None);
        assert!(status().failure.is_some() && status().retry_seconds.is_some(), "{:?}", status());
        let deleting = std::sync::Arc::clone(&partition);
        site.engine.services.background.run(move || deleting.delete_records(60)).await.expect("no panic").expect("they can be deleted");
        assert!(partition.begin_compaction(0).is_none(), "it is put off");
        assert!(status().failure.is_some());
        site.clock.pass(600_000);
        assert!(partition.begin_compaction(0).is_none(), "nothing is there");
        let status = status();
        assert_eq!((status.failure, status.retry_seconds, status.failures, status.dirty_bytes), (None, None, 1, 0));
    }
}

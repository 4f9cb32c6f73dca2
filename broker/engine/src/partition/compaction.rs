//! A partition's part in its compaction: single steps, on the background thread, beside turns, flushes, and the deletion of oldest segments.
//!
//! What is compacted are closed segments. A topic of little records would never close one, so the active segment is closed where that is
//! worth it: it holds a mebibyte at least, and with it, half of what could be compacted is new (`millpond_log::Compactor::wants_roll`). It
//! is compacted at a later look, once it is flushed.
//!
//! Where there is no room, a pass is made for whatever is new ([`Occasion::Room`]), and the active segment is closed from a kibibyte on and
//! waited for. That could be done over and over for little, so: nothing is done before there is something new; and after a pass that has
//! made the log smaller by less than an eighth, nine times as long as it took.

use super::{Partition, PoisonOnPanic};
use millpond_log::{Compacted, Compaction, CompactionPass, CompactionStep, Compactor, LogError};
use std::sync::Arc;
use tokio::sync::futures::Notified;

/// What a partition remembers between two passes.
#[derive(Debug)]
pub(super) struct Compacting {
    compactor: Compactor,
    /// No pass before this moment, by the monotonic clock: the last one has failed.
    not_before_ms: i64,
    /// Likewise, for want of room: the last one was in vain, or nearly.
    room_not_before_ms: i64,
    /// When the pass for want of room began that is under way.
    for_room_since_ms: Option<i64>,
    /// Where the log ended when nothing was found to be compacted for want of room.
    nothing_at: Option<i64>,
}

/// Why a partition is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Occasion {
    /// It is time again.
    Look,
    /// Somebody wants room.
    Room,
}

impl Compacting {
    pub(super) fn new(compactor: Compactor) -> Compacting {
        let (not_before_ms, room_not_before_ms) = (i64::MIN, i64::MIN);
        Compacting { compactor, not_before_ms, room_not_before_ms, for_room_since_ms: None, nothing_at: None }
    }

    /// Whether there may be something to do, without a look at the disk.
    fn is_due(&self, occasion: Occasion, log_end: i64, monotonic_ms: i64) -> bool {
        let room = || monotonic_ms >= self.room_not_before_ms && self.nothing_at != Some(log_end);
        monotonic_ms >= self.not_before_ms && (occasion == Occasion::Look || room())
    }

    /// After a pass: the next one for want of room has to be worth it.
    fn ended(&mut self, done: Compacted, monotonic_ms: i64) {
        let Some(since_ms) = self.for_room_since_ms.take() else { return };
        let freed = done.bytes_before.saturating_sub(done.bytes_after);
        if freed.saturating_mul(WORTHWHILE_PART) < done.bytes_before {
            let took_ms = monotonic_ms.saturating_sub(since_ms).max(0);
            let pause_ms = took_ms.saturating_mul(PAUSE_TIMES).clamp(PAUSE_MIN_MS, PUT_OFF_MS);
            self.room_not_before_ms = monotonic_ms.saturating_add(pause_ms);
        }
    }
}

impl Partition {
    /// Takes over whether the topic is compacted: then it can be said how far, before anybody looks whether there is something to do. Reads
    /// one small file, the first time. Blocking, but never for a step of a pass.
    pub(crate) fn set_compacts(&self, compacts: bool) {
        // Whoever holds it is about to take a look, which says it.
        let Some(mut compacting) = self.compacting.try_lock() else { return };
        let Some(compacting) = compacting.as_mut().filter(|_| compacts) else { return };
        if let Err(error) = compacting.compactor.learn() {
            let said = "how far a partition is compacted can't be read now, and all of it counts as not compacted";
            tracing::warn!(topic = %self.topic, partition = self.number, error = error.chain(), "{said}");
        }
        self.compaction_log.lock().saw(compacting.compactor.progress());
    }

    /// For want of room: closes the active segment if it holds anything that is worth it. Says whether a flush is under way, without which
    /// the segment is not compacted. Blocking; on the background thread.
    pub(crate) fn close_for_compaction(self: &Arc<Self>) -> bool {
        let (Ok(reader), Some(_work)) = (self.reader(), self.begin_work(None)) else { return false };
        let _poison = PoisonOnPanic(self);
        let mut compacting = self.compacting.lock();
        let Some(compacting) = compacting.as_mut().filter(|compacting| !compacting.compactor.progress().is_stuck) else { return false };
        let is_due = compacting.is_due(Occasion::Room, self.watermarks().log_end, self.services.clock.monotonic_ms());
        if self.failure.lock().is_some() || !is_due {
            return false;
        }
        if reader.segments().last().is_some_and(|active| active.bytes >= ROLL_FOR_ROOM_BYTES_MIN) {
            self.roll_for_compaction();
        }
        self.is_flushing()
    }

    /// Whether a flush is under way. On the background thread.
    pub(crate) fn is_flushing(&self) -> bool {
        self.tail.lock().flush_running
    }

    /// Waits for the next end of a flush.
    pub(crate) fn flush_ends(&self) -> Notified<'_> {
        self.open.flush_ends()
    }

    fn roll_for_compaction(self: &Arc<Self>) {
        if let Err(error) = self.roll() {
            tracing::warn!(topic = %self.topic, partition = self.number, error = error.to_wire().message, "no segment can be begun");
        }
    }

    /// Begins a pass if there is enough to do. None if not, or if it can't be done now, which is logged.
    pub(crate) fn begin_compaction(self: &Arc<Self>, delete_retention_ms: u64, occasion: Occasion) -> Option<CompactionPass> {
        let (reader, _work) = (self.reader().ok()?, self.begin_work(None)?);
        let _poison = PoisonOnPanic(self);
        // The disk that failed a write is not written to for this, either.
        if self.failure.lock().is_some() {
            return None;
        }
        let now = self.services.now();
        let mut compacting = self.compacting.lock();
        let compacting = compacting.as_mut()?;
        let log_end = self.watermarks().log_end;
        if !compacting.is_due(occasion, log_end, now.monotonic_ms) {
            return None;
        }
        // Looked at before a segment is exchanged: what takes its place inherits its age.
        self.append_times.lock().observe(now, &reader.segments());
        let below = self.watermarks().high_watermark;
        let dirty_percent_min = if occasion == Occasion::Look { DIRTY_PERCENT_MIN } else { 0 };
        let compaction = Compaction { below, dirty_percent_min, wall_ms: now.wall_ms, delete_retention_ms };
        let wants_roll = match occasion {
            Occasion::Look => compacting.compactor.wants_roll(compaction),
            // It is closed already, if that is worth it.
            Occasion::Room => Ok(false),
        };
        let begun = wants_roll.and_then(|wants_roll| {
            if wants_roll {
                self.roll_for_compaction();
            }
            compacting.compactor.begin(compaction)
        });
        // What the last look has found, a pass or not.
        let progress = compacting.compactor.progress();
        self.compaction_log.lock().saw(progress);
        let is_for_room = occasion == Occasion::Room;
        match begun {
            Ok(pass) => {
                if pass.is_none() {
                    self.compaction_log.lock().has_nothing_to_do();
                }
                compacting.for_room_since_ms = (pass.is_some() && is_for_room).then_some(now.monotonic_ms);
                let nothing = pass.is_none() && is_for_room && progress.dirty_bytes == 0;
                compacting.nothing_at = nothing.then_some(log_end);
                pass
            }
            Err(error) => {
                self.put_off(&error, compacting);
                None
            }
        }
    }

    /// Does the next part of a pass. None if it has ended, or can't go on, which is logged; the next one begins where it did.
    pub(crate) fn continue_compaction(self: &Arc<Self>, mut pass: CompactionPass) -> Option<CompactionPass> {
        let _work = self.begin_work(None)?;
        let _poison = PoisonOnPanic(self);
        let mut compacting = self.compacting.lock();
        let compacting = compacting.as_mut()?;
        let before = pass.so_far();
        let step = if compacting.for_room_since_ms.is_none() {
            compacting.compactor.step(&mut pass)
        } else {
            // On a full disk a segment has to be written before others can go: that is what the reserve is for.
            let is_full = |error: &LogError| matches!(error, LogError::Full { .. });
            self.services.space.reserve.lend(is_full, || compacting.compactor.step(&mut pass))
        };
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
                let monotonic_ms = self.services.clock.monotonic_ms();
                self.compaction_log.lock().ended(compacting.compactor.progress(), monotonic_ms);
                compacting.ended(done, monotonic_ms);
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
                self.put_off(&error, compacting);
                None
            }
        }
    }

    fn put_off(&self, error: &LogError, compacting: &mut Compacting) {
        compacting.for_room_since_ms = None;
        compacting.not_before_ms = self.services.clock.monotonic_ms().saturating_add(PUT_OFF_MS);
        self.compaction_log.lock().failed(compacting.compactor.progress(), error.chain(), compacting.not_before_ms);
        tracing::warn!(topic = %self.topic, partition = self.number, error = error.chain(), "compaction can't go on now, and is tried again");
    }
}

/// After a pass has failed, as on a full disk, the next one waits so long: each may write a segment before it fails again.
const PUT_OFF_MS: i64 = 600_000;

/// Kafka's `min.cleanable.dirty.ratio`: so many hundredths of what could be compacted must be new, or much is read and written for little.
const DIRTY_PERCENT_MIN: u8 = 50;

/// For want of room the active segment is closed from so many bytes on: a quarter of the smallest quota.
const ROLL_FOR_ROOM_BYTES_MIN: u64 = 1 << 10;

/// A pass for want of room that makes the log smaller by such a part was worth it: as much can be appended before the next one.
const WORTHWHILE_PART: u64 = 8;

/// After one that was not, as many times as long as it took no other is made: a tenth of the time at most goes into it.
const PAUSE_TIMES: i64 = 9;

/// And so long at least, in milliseconds.
const PAUSE_MIN_MS: i64 = 1_000;

#[cfg(test)]
mod tests {
    use super::Occasion;
    use crate::{
        partition::{Extent, Look},
        testing::{Site, VALUE_BYTES, answer, batch, until},
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
        let mut pass = partition.begin_compaction(0, Occasion::Look).expect("there is enough to do");
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
        let mut pass = partition.begin_compaction(0, Occasion::Look);
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
        assert!(partition.begin_compaction(0, Occasion::Look).is_none(), "it is put off");
        assert!(status().failure.is_some());
        site.clock.pass(600_000);
        assert!(partition.begin_compaction(0, Occasion::Look).is_none(), "nothing is there");
        let status = status();
        assert_eq!((status.failure, status.retry_seconds, status.failures, status.dirty_bytes), (None, None, 1, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn on_a_full_disk_a_pass_gets_through_with_the_reserve_and_gives_it_back() {
        for reserve_bytes in [0, 256 << 10] {
            let site = Site::with(|config| config.reserve_bytes = reserve_bytes).await;
            let space = &site.engine.services.space;
            until("the reserve", || space.reserve.is_held()).await;
            let partition = site.topic("t", |config| config.cleanup = Cleanup::Compact).await;
            for number in 0..60 {
                answer(site.submit("t", batch(number % 3, VALUE_BYTES)).await).await.expect("there is room");
            }
            let before = partition.size_bytes();
            site.disk.limit_bytes(Some(site.disk.used_bytes()));
            let mut pass = partition.begin_compaction(0, Occasion::Room);
            assert!(pass.is_some(), "there is enough to do");
            while let Some(next) = pass {
                pass = partition.continue_compaction(next);
            }
            let look = Look { extent: Extent::All, compacts: true, reserve_held: true };
            let status = partition.info(look).0.compaction.expect("it is compacted");
            if reserve_bytes == 0 {
                assert!(
                    status.passes == 0 && status.failure.is_some() && partition.size_bytes() == before,
                    "nothing can be written: {status:?}"
                );
                continue;
            }
            assert_eq!((status.passes, status.failures, status.dirty_bytes), (1, 0, 0), "{status:?}");
            assert!(partition.size_bytes() < before / 2);
            until("the reserve", || space.reserve.is_held()).await;
            assert!(site.disk.used_bytes() >= reserve_bytes + partition.size_bytes(), "it is whole");
            answer(site.submit("t", batch(0, VALUE_BYTES)).await).await.expect("batches are taken again");
        }
    }
}

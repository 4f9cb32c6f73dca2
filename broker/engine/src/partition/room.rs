//! Room for the next append: counted in before it, waited for where somebody yields, refused where nobody does.
//!
//! A partition that waits for room keeps its batches in the queue, in their order, and has no turn until it is woken or its patience is at
//! an end. No thread waits with it.

use super::{Entry, Partition, PoisonOnPanic, Queued, Tail, turn::Answers};
use crate::{
    error::{EngineError, Shortage, StorageBound},
    inflight::Reserved,
    space::{self, Level},
};
use millpond_log::{Log, LogError};
use millpond_protocol::{batch::Batch, message::TopicConfig};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// What came of asking a partition for its oldest segment.
pub(crate) enum Yielded {
    /// It is gone.
    Segment,
    /// It can go when everything before this offset is answered.
    NotYet(i64),
    /// There is none.
    Nothing,
}

impl Partition {
    /// Before an append: counts in as much of the run as there is room for, and puts the rest back. None where nothing fits: then the run
    /// is refused, or waits in the queue.
    pub(super) fn find_room(self: &Arc<Self>, tail: &mut Tail, mut entries: Vec<Entry>, answers: &mut Answers) -> Option<Vec<Entry>> {
        match self.count_in(tail) {
            Ok(fitting) if fitting == entries.len() => Some(entries),
            Ok(fitting) => {
                let rest = entries.split_off(fitting);
                self.put_back(tail, fitting, rest);
                Some(entries)
            }
            Err(bound) => {
                self.out_of_room(tail, bound, None, entries, answers);
                None
            }
        }
    }

    /// How many of the run's batches there is room for; they are counted in.
    fn count_in(&self, tail: &mut Tail) -> Result<usize, StorageBound> {
        if !self.space.node().reserve.is_held() {
            return Err(StorageBound::Disk);
        }
        let sizes = || tail.run.iter().map(|batch| batch.bytes().len() as u64);
        let mut near = tail.counted.try_add(sizes().sum());
        let mut fitting = tail.run.len();
        if near.is_err() {
            let (room, mut bytes) = (tail.counted.room(), 0);
            let fits = |size: &u64| {
                bytes += size;
                bytes <= room
            };
            fitting = sizes().take_while(fits).count();
            if fitting > 0 {
                near = tail.counted.try_add(sizes().take(fitting).sum());
            }
        }
        for bound in near? {
            if self.space.may_yield(bound) {
                // Nobody waits for it yet.
                self.space.request(bound, 0, std::sync::Weak::new());
            }
        }
        Ok(fitting)
    }

    /// After an append that worked.
    pub(super) fn room_was_found(&self, tail: &mut Tail) {
        if tail.patience_ends.take().is_some() {
            self.queue.lock().is_hopeless = false;
        }
        if std::mem::take(&mut tail.is_refused) {
            self.refusals.lock().is_over();
        }
        if std::mem::take(&mut tail.is_refusing) {
            tracing::info!(topic = %self.topic, partition = self.number, "there is room again, and batches are taken");
        }
    }

    /// What the log has is what counts, whatever was counted in. After anything that changes it but an append that worked.
    pub(super) fn recount(tail: &mut Tail) {
        if let Some(log) = &tail.log {
            tail.counted.set(log.size_bytes());
        }
    }

    /// There is no room for the first batch of the run: all of it waits where somebody may yield, and is refused otherwise.
    pub(super) fn out_of_room(
        self: &Arc<Self>,
        tail: &mut Tail,
        bound: StorageBound,
        source: Option<LogError>,
        entries: Vec<Entry>,
        answers: &mut Answers,
    ) {
        let first_bytes = tail.run.first().map_or(0, |batch| batch.bytes().len() as u64);
        let is_hopeless = std::mem::take(&mut self.queue.lock().is_hopeless);
        let is_patient = tail.patience_ends.is_none_or(|end| Instant::now() < end);
        if self.space.may_yield(bound) && !is_hopeless && is_patient {
            if tail.patience_ends.is_none() {
                tail.patience_ends = Some(Instant::now() + PATIENCE);
                self.wake_after(PATIENCE);
            }
            self.put_back(tail, 0, entries);
            self.queue.lock().is_waiting_for_room = true;
            self.space.request(bound, first_bytes, Arc::downgrade(self));
            if tail.patience_ends.is_some_and(|end| Instant::now() >= end) {
                // The timer may have looked before there was anybody to wake.
                self.wake(true);
            }
            return;
        }
        tail.patience_ends = None;
        let error = self.full(bound, first_bytes, source);
        tail.is_refused = true;
        self.refusals.lock().add(&error, entries.len(), self.services.clock.monotonic_ms());
        // Small batches may fit now and then while larger ones do not.
        let is_quiet = tail.refusal_said.is_some_and(|at| at.elapsed() < SAID_EVERY);
        if !tail.is_refusing && !is_quiet {
            (tail.is_refusing, tail.refusal_said) = (true, Some(Instant::now()));
            let why = error.to_wire().message;
            tracing::warn!(topic = %self.topic, partition = self.number, why, "batches are refused until there is room");
            if bound == StorageBound::Disk && !self.space.may_yield(bound) {
                // Although no topic yields: other partitions may hold room that they do not use.
                self.space.request(bound, first_bytes, std::sync::Weak::new());
            }
        }
        answers.extend(entries.into_iter().map(|entry| (entry.reply, Err(error.clone()))));
        tail.run.clear();
    }

    pub(super) fn full(&self, bound: StorageBound, batch_bytes: u64, source: Option<LogError>) -> EngineError {
        let node = self.space.node();
        let Level { used, quota } = match bound {
            StorageBound::Topic => self.space.level(),
            StorageBound::Node | StorageBound::Disk => node.level(),
        };
        let reserve_bytes = Some(node.reserve.bytes()).filter(|_| !node.reserve.is_held());
        let shortage = Shortage { bound, batch_bytes, used_bytes: used, quota_bytes: quota, reserve_bytes };
        EngineError::Full { topic: Arc::clone(&self.topic), partition: self.number, shortage, source: source.map(Arc::new) }
    }

    /// Puts the batches of the run from `from` on back where they came from. Their room in the queue was given back when they were taken
    /// out of it; so the queue may hold one run more than its bound.
    fn put_back(&self, tail: &mut Tail, from: usize, entries: Vec<Entry>) {
        let batches: Vec<Batch> = tail.run.drain(from..).collect();
        let mut queue = self.queue.lock();
        for (batch, entry) in batches.into_iter().zip(entries).rev() {
            queue.batches.push_front(Queued { batch, entry, _room: Reserved::nothing() });
        }
    }

    /// Room was made, or none can be: the partition has its turn again.
    pub(crate) fn wake(self: &Arc<Self>, is_freed: bool) {
        let mut queue = self.queue.lock();
        if !std::mem::take(&mut queue.is_waiting_for_room) {
            return;
        }
        queue.is_hopeless = !is_freed;
        // Where the turn that found no room has not ended, it goes on.
        let is_scheduled = queue.batches.is_empty() || std::mem::replace(&mut queue.turn_scheduled, true);
        drop(queue);
        if !is_scheduled {
            self.schedule_turn();
        }
    }

    fn wake_after(self: &Arc<Self>, time: Duration) {
        let partition = Arc::downgrade(self);
        self.services.timers.spawn(async move {
            tokio::time::sleep(time).await;
            if let Some(partition) = partition.upgrade() {
                partition.wake(true);
            }
        });
    }

    /// Deletes the oldest segment, if everything in it is answered. Where the active one is all there is, a new one is begun first.
    /// Blocking; on the background thread.
    pub(crate) fn drop_oldest(self: &Arc<Self>) -> Yielded {
        let (Ok(reader), Some(_work)) = (self.reader(), self.begin_work()) else { return Yielded::Nothing };
        let _poison = PoisonOnPanic(self);
        let segments = reader.segments();
        let Some(oldest) = segments.first().filter(|oldest| segments.len() > 1 || oldest.bytes > 0) else { return Yielded::Nothing };
        let outcome = if segments.len() == 1 { self.roll() } else { Ok(()) };
        let watermarks = self.watermarks();
        if outcome.is_ok() && oldest.end_offset > watermarks.high_watermark {
            // Of one that has stopped writing, nothing more is ever answered.
            let has_stopped = self.failure.lock().is_some();
            return if has_stopped { Yielded::Nothing } else { Yielded::NotYet(oldest.end_offset) };
        }
        match outcome.and_then(|()| self.delete_before(oldest.end_offset)) {
            Ok(log_start) => {
                let records = (oldest.end_offset - oldest.base_offset.max(watermarks.log_start)).max(0).unsigned_abs();
                self.space.count_dropped(records, oldest.bytes);
                tracing::warn!(
                    topic = %self.topic, partition = self.number, records, bytes = oldest.bytes, log_start,
                    "the oldest records were dropped to make room"
                );
                Yielded::Segment
            }
            Err(error) => {
                let error = error.to_wire().message;
                tracing::warn!(topic = %self.topic, partition = self.number, error, "the oldest records can't be dropped now");
                Yielded::Nothing
            }
        }
    }

    /// Gives back what the log holds of the disk without having written it. True if there was some. Blocking; on the background thread.
    pub(crate) fn release_room(&self) -> bool {
        self.tail.lock().log.as_mut().is_some_and(Log::release_room)
    }

    /// Removes what could not be removed, counts again what the log has, and forgets producers that are long gone. Blocking; on the background
    /// thread.
    pub(crate) fn check_space(self: &Arc<Self>) {
        let Ok(reader) = self.reader() else { return };
        if reader.has_unremoved_files()
            && let Some(_work) = self.begin_work()
        {
            let _poison = PoisonOnPanic(self);
            if let Err(error) = self.delete_before(0) {
                let error = error.to_wire().message;
                tracing::warn!(topic = %self.topic, partition = self.number, error, "files of deleted records can't be removed now");
            }
        }
        let mut tail = self.tail.lock();
        Partition::recount(&mut tail);
        if let Some(log) = &mut tail.log {
            log.expire_producers(self.services.now());
        }
    }

    /// Closes segments at the size that these settings ask for, from the next append on.
    pub(crate) fn set_segment_bytes(&self, config: &TopicConfig) {
        let bytes = space::segment_bytes(config, self.services.config.quota_bytes);
        if let Some(log) = &mut self.tail.lock().log {
            log.set_segment_bytes(bytes);
        }
    }

    /// Bytes of its batches.
    pub(crate) fn size_bytes(&self) -> u64 {
        self.reader.as_ref().map_or(0, millpond_log::LogReader::size_bytes)
    }
}

/// A partition does not say more often than this that it refuses batches.
const SAID_EVERY: Duration = Duration::from_mins(1);

/// How long batches wait for room that somebody may make. A client hears of it then, and sends them again.
const PATIENCE: Duration = Duration::from_secs(2);

//! Room for the next append: counted in before it, waited for where somebody yields, refused where nobody does.
//!
//! A partition that waits for room keeps its batches in the queue, in their order, and has no turn until it is woken or the first batch has
//! waited long enough. No thread waits with it.
//!
//! Each batch waits for [`PATIENCE`]: from when it was queued, or, if it was queued before, from when there was no room any more, so
//! that a slow disk costs no patience. Then it is refused, and not those that came later: they have their own time, but for those that
//! continue its producer's numbers, of which none can be stored without it. So a long queue does not take many times as long to be refused,
//! and room that comes a moment later helps whoever still waits. An append that works gives those behind it their whole time again. Where
//! nobody yields, or it is known that nobody can, nothing waits: all that was to be appended together is refused at once.
//!
//! ```text
//!   queued, s   0.0   0.5   1.0   1.5   2.0   2.5   3.0
//!   a           ├── waits ──────────────x                   refused at 2.0: no room since 0.0
//!   b                 ├── waits ──────────────x             refused at 2.5
//!   c                                   ├── waits ──o       appended at 2.9, when there is room
//! ```
//!
//! A partition that takes nothing more, because the broker stops or the topic goes, keeps nobody waiting: what has no room at that moment
//! is answered with the reason.

use super::{Entry, Partition, PoisonOnPanic, Queue, Queued, Tail, housekeeping::DeletionRunning, turn::Answers};
use crate::{
    error::{EngineError, Shortage, StorageBound},
    inflight::Reserved,
    space::{self, Level},
};
use millpond_log::{Log, LogError};
use millpond_protocol::{batch::Batch, message::TopicConfig};
use parking_lot::MutexGuard;
use std::{
    sync::{Arc, Weak},
    time::Duration,
};
use tokio::time::Instant;

/// How the queue waits for room.
#[derive(Debug, Default)]
pub(super) struct WaitForRoom {
    /// There is no turn before there is room, or none can be made, or the wait was long enough.
    pub(super) is_on: bool,
    request: Asked,
    /// A timer is set that ends the wait.
    has_timer: bool,
}

/// What became of the last request for room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Asked {
    /// There is room, perhaps, or nobody has asked.
    #[default]
    Settled,
    /// There is no answer yet.
    Pending,
    /// Nobody can make any.
    Hopeless,
}

/// What came of asking a partition for its oldest segment.
pub(crate) enum Yielded {
    /// It is gone.
    Segment,
    /// It can go when everything before this offset is answered.
    NotYet(i64),
    /// Records of the partition are being deleted already.
    Busy,
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
                self.space.request(bound, 0, Weak::new());
            }
        }
        Ok(fitting)
    }

    /// After an append that worked.
    pub(super) fn room_was_found(&self, tail: &mut Tail) {
        if tail.short_since.take().is_some() {
            self.queue.lock().wait.take_hopeless();
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

    /// There is no room for the first batch of the run. Those that may wait do, where somebody may yield; the others are refused.
    pub(super) fn out_of_room(
        self: &Arc<Self>,
        tail: &mut Tail,
        bound: StorageBound,
        source: Option<LogError>,
        mut entries: Vec<Entry>,
        answers: &mut Answers,
    ) {
        let now = self.services.instant();
        let short_since = *tail.short_since.get_or_insert(now);
        let (is_hopeless, refusal) = {
            let mut queue = self.queue.lock();
            (queue.wait.take_hopeless(), queue.refusal.clone())
        };
        let may_wait = self.space.may_yield(bound) && !is_hopeless && refusal.is_none();
        let is_over = |entry: &&Entry| entry.patience_ends(short_since) <= now;
        let refused = if may_wait { entries.iter().take_while(is_over).count() } else { entries.len() };
        let rest = entries.split_off(refused);
        if !entries.is_empty() {
            let first_bytes = tail.run.first().map_or(0, |batch| batch.bytes().len() as u64);
            let error = refusal.unwrap_or_else(|| self.no_room(tail, bound, (entries.len(), first_bytes), source, now));
            answers.extend(entries.into_iter().map(|entry| (entry.reply, Err(error.clone()))));
        }
        if let Some(first) = rest.first() {
            let (ends, first_bytes) =
                (first.patience_ends(short_since), tail.run.get(refused).map_or(0, |batch| batch.bytes().len() as u64));
            self.put_back(tail, refused, rest);
            self.wait_for_room(bound, first_bytes, ends);
        }
        tail.run.clear();
    }

    /// The queue waits until somebody has made room for its first batch, or until it has waited long enough.
    fn wait_for_room(self: &Arc<Self>, bound: StorageBound, first_bytes: u64, ends: Instant) {
        let mut queue = self.queue.lock();
        if queue.refusal.is_some() {
            // Since a moment ago. The turn goes on, and answers with it.
            return;
        }
        queue.wait.is_on = true;
        let is_timed = std::mem::replace(&mut queue.wait.has_timer, true);
        let is_asking = std::mem::replace(&mut queue.wait.request, Asked::Pending) == Asked::Pending;
        drop(queue);
        if !is_timed {
            self.end_wait_at(ends);
        }
        if !is_asking {
            self.space.request(bound, first_bytes, Arc::downgrade(self));
        }
    }

    /// What so many refused batches, the first one of so many bytes, are answered, and a line in the broker's log, now and then.
    fn no_room(
        self: &Arc<Self>,
        tail: &mut Tail,
        bound: StorageBound,
        (batches, first_bytes): (usize, u64),
        source: Option<LogError>,
        now: Instant,
    ) -> EngineError {
        let error = self.full(bound, first_bytes, source);
        tail.is_refused = true;
        self.refusals.lock().add(&error, batches, self.services.clock.monotonic_ms());
        // Small batches may fit now and then while larger ones do not.
        let is_quiet = tail.refusal_said.is_some_and(|at| now.saturating_duration_since(at) < SAID_EVERY);
        if !tail.is_refusing && !is_quiet {
            (tail.is_refusing, tail.refusal_said) = (true, Some(now));
            let why = error.to_wire().message;
            tracing::warn!(topic = %self.topic, partition = self.number, why, "batches are refused until there is room");
            if bound == StorageBound::Disk && !self.space.may_yield(bound) {
                // Although no topic yields: other partitions may hold room that they do not use.
                self.space.request(bound, first_bytes, Weak::new());
            }
        }
        error
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

    /// The room that was asked for was made, or may be by somebody else soon, or nobody can make it: the partition has its turn again.
    pub(crate) fn answer_room(self: &Arc<Self>, is_hopeless: bool) {
        let mut queue = self.queue.lock();
        queue.wait.request = if is_hopeless && queue.wait.is_on { Asked::Hopeless } else { Asked::Settled };
        self.end_wait(queue);
    }

    /// If the queue waits for room, the partition has its turn all the same.
    pub(super) fn end_wait(self: &Arc<Self>, mut queue: MutexGuard<'_, Queue>) {
        if !std::mem::take(&mut queue.wait.is_on) {
            return;
        }
        // Where the turn that found no room has not ended, it goes on.
        let is_scheduled = queue.batches.is_empty() || std::mem::replace(&mut queue.turn_scheduled, true);
        drop(queue);
        if !is_scheduled {
            self.schedule_turn();
        }
    }

    /// One timer at a time: it may end the wait of a batch that came later, which then waits on.
    fn end_wait_at(self: &Arc<Self>, moment: Instant) {
        let partition = Arc::downgrade(self);
        self.services.timers.spawn(async move {
            tokio::time::sleep_until(moment).await;
            if let Some(partition) = partition.upgrade() {
                let mut queue = partition.queue.lock();
                queue.wait.has_timer = false;
                partition.end_wait(queue);
            }
        });
    }

    /// Deletes the oldest segment, if everything in it is answered. Where the active one is all there is, a new one is begun first.
    /// Blocking; on the thread that makes room, also while a compaction is at work here.
    pub(crate) fn drop_oldest(self: &Arc<Self>) -> Yielded {
        let Ok(reader) = self.reader() else { return Yielded::Nothing };
        let _work = match self.try_begin_deletion() {
            Ok(Some(work)) => work,
            Ok(None) => return Yielded::Nothing,
            Err(DeletionRunning) => return Yielded::Busy,
        };
        let _poison = PoisonOnPanic(self);
        let mut segments = reader.segments();
        let outcome = match segments.as_slice() {
            [] => return Yielded::Nothing,
            [active] if active.bytes == 0 => return Yielded::Nothing,
            // Appends may have gone on: where it ends is known once it is closed.
            [_] => self.roll().inspect(|()| segments = reader.segments()),
            _ => Ok(()),
        };
        let (oldest, watermarks) = (segments[0], self.watermarks());
        if outcome.is_ok() && oldest.end_offset > watermarks.high_watermark {
            // Of one that has stopped writing, nothing more is ever answered.
            let has_stopped = self.failure.lock().is_some();
            return if has_stopped { Yielded::Nothing } else { Yielded::NotYet(oldest.end_offset) };
        }
        match outcome.and_then(|()| self.delete_before(oldest.end_offset)) {
            Ok(_) => {
                let records = (oldest.end_offset - oldest.base_offset.max(watermarks.log_start)).max(0).unsigned_abs();
                // A compaction may have put it into a larger one a moment ago: then its bytes go with that.
                let is_gone = reader.segments().first().is_none_or(|first| first.base_offset >= oldest.end_offset);
                self.note_dropped(records, if is_gone { oldest.bytes } else { 0 });
                Yielded::Segment
            }
            Err(error) => {
                let error = error.to_wire().message;
                tracing::warn!(topic = %self.topic, partition = self.number, error, "the oldest records can't be dropped now");
                Yielded::Nothing
            }
        }
    }

    /// Gives back what the log holds of the disk without having written it. True if there was some. Blocking; on the thread that makes
    /// room.
    pub(crate) fn release_room(&self) -> bool {
        self.tail.lock().log.as_mut().is_some_and(Log::release_room)
    }

    /// Removes what could not be removed, counts again what the log has, and forgets producers that are long gone. Blocking; on the background
    /// thread.
    pub(crate) fn check_space(self: &Arc<Self>) {
        let Ok(reader) = self.reader() else { return };
        if reader.has_unremoved_files()
            && let Some(_work) = self.begin_deletion()
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

impl WaitForRoom {
    /// Whether nobody could make any room; it counts once.
    fn take_hopeless(&mut self) -> bool {
        let is_hopeless = self.request == Asked::Hopeless;
        if is_hopeless {
            self.request = Asked::Settled;
        }
        is_hopeless
    }
}

impl Entry {
    /// When it is refused, if there is still no room.
    fn patience_ends(&self, short_since: Instant) -> Instant {
        self.queued_at.max(short_since) + PATIENCE
    }
}

/// A partition does not say more often than this that it refuses batches.
const SAID_EVERY: Duration = Duration::from_mins(1);

/// How long a batch waits for room that somebody may make. A client hears of it then, and sends it again.
const PATIENCE: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests;

//! Room for the next append: counted in before it, waited for where somebody yields, refused where nobody does.
//!
//! A partition that waits for room keeps its batches in the queue, in their order, and has no turn until it is woken or the first batch has
//! waited long enough. No thread waits with it.
//!
//! Each batch waits for [`PATIENCE`]: from when it was queued, or, if it was queued before, from when there was no room any more, so
//! that a slow disk costs no patience. Then it is refused, and not those that came later: they have their own time, but for those that
//! continue its producer's numbers, of which none can be stored without it. So a long queue does not take many times as long to be refused,
//! and room that comes a moment later helps whoever still waits. An append that works gives those behind it their whole time again. Where
//! nobody yields, nothing waits. Where it is known that nobody can make room for a batch, it does not wait, nor does any that is as large.
//!
//! Only what has no room is refused: a smaller batch behind one that is too large for what a quota has left is appended. How much room a
//! full disk has is seen by trying, and all that was to be appended together is refused together.
//!
//! ```text
//!   queued, s   0.0   0.5   1.0   1.5   2.0   2.5   3.0
//!   a           ├── waits ──────────────x                   refused at 2.0: no room since 0.0
//!   b                 ├── waits ──────────────x             refused at 2.5
//!   c                                   ├── waits ──o       appended at 2.9, when there is room
//! ```
//!
//! So batches of one connection may be stored in another order than they were sent in: where `a` is refused and sent again, it comes behind
//! `b`. A producer that numbers its batches is not affected: without `a`, its `b` is not taken either, and both are sent again. Others keep
//! their order by waiting for each answer before they send the next batch, as with any broker.
//!
//! A partition that takes nothing more, because the broker stops or the topic goes, keeps nobody waiting: what has no room at that moment
//! is answered with the reason.

use super::{
    Entry, Partition, PoisonOnPanic, Queue, Queued, Tail,
    housekeeping::{Busy, DeletionRunning},
    turn::Answers,
};
use crate::{
    error::{EngineError, Shortage, StorageBound},
    inflight::Reserved,
    space::{self, Level, Wanted},
};
use millpond_log::{Log, LogError};
use millpond_protocol::{
    batch::Batch,
    message::{OnFull, TopicConfig},
};
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

/// What a tail knows of a want of room.
#[derive(Debug, Default)]
pub(super) struct Want {
    /// Since when nothing could be appended.
    since: Option<Instant>,
    /// What had been removed from the disk before the last try.
    removals: u64,
    /// It was said that batches are refused, and not yet that they are taken again.
    is_refusing: bool,
    /// When it was said last.
    refusal_said: Option<Instant>,
    /// A batch was refused, and none was taken since.
    is_refused: bool,
}

/// What became of the last request for room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Asked {
    /// There is room, perhaps, or nobody has asked.
    #[default]
    Settled,
    /// There is no answer yet.
    Pending,
    /// Nobody can make this room.
    Hopeless(Wanted),
}

/// What came of asking a partition for its oldest segment.
pub(crate) enum Yielded {
    /// It is gone.
    Segment,
    /// It can go when everything before this offset is answered.
    NotYet(i64),
    /// Somebody else is at its oldest segments.
    Busy(Busy),
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
                let rest = tail.run.drain(fitting..).zip(rest).collect();
                self.put_back(rest);
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
        tail.want.removals = self.space.node().removals();
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
                self.space.request_some(bound);
            }
        }
        Ok(fitting)
    }

    /// After an append that worked.
    pub(super) fn room_was_found(&self, tail: &mut Tail) {
        if tail.want.since.take().is_some() {
            self.queue.lock().wait.take_hopeless();
        }
        if std::mem::take(&mut tail.want.is_refused) {
            self.refusals.lock().is_over();
        }
        if std::mem::take(&mut tail.want.is_refusing) {
            tracing::info!(topic = %self.topic, partition = self.number, "there is room again, and batches are taken");
        }
    }

    /// What the log has is what counts, whatever was counted in. After anything that changes it but an append that worked.
    pub(super) fn recount(tail: &mut Tail) {
        if let Some(log) = &tail.log {
            tail.counted.set(log.size_bytes());
        }
    }

    /// There is no room for the first batch of the run. Of those that have none, those that may wait do, where somebody may yield, and the
    /// others are refused. What is left goes back, for another run.
    pub(super) fn out_of_room(
        self: &Arc<Self>,
        tail: &mut Tail,
        bound: StorageBound,
        source: Option<LogError>,
        entries: Vec<Entry>,
        answers: &mut Answers,
    ) {
        let now = self.services.instant();
        let (since, removals) = (*tail.want.since.get_or_insert(now), tail.want.removals);
        let (hopeless, refusal) = {
            let mut queue = self.queue.lock();
            (queue.wait.take_hopeless(), queue.refusal.clone())
        };
        let may_wait = self.space.may_yield(bound) && refusal.is_none();
        let room = if bound == StorageBound::Disk { 0 } else { tail.counted.room() };
        let wanted = |batch: &Batch| Wanted { bound, bytes: batch.bytes().len() as u64, removals };
        let is_refused = |wanted: Wanted, entry: &Entry| {
            !may_wait || entry.patience_ends(since) <= now || hopeless.is_some_and(|hopeless| wanted.is_as_much_as(hopeless))
        };
        let (mut refused, mut first_bytes, mut rest) = (Vec::new(), 0, Vec::with_capacity(entries.len()));
        for (number, (batch, entry)) in tail.run.drain(..).zip(entries).enumerate() {
            let wanted = wanted(&batch);
            // For the first there was none a moment ago.
            let has_none = number == 0 || wanted.bytes > room;
            if has_none && is_refused(wanted, &entry) {
                first_bytes = if refused.is_empty() { wanted.bytes } else { first_bytes };
                refused.push(entry);
            } else {
                rest.push((batch, entry));
            }
        }
        if !refused.is_empty() {
            let error = refusal.unwrap_or_else(|| self.no_room(tail, bound, (refused.len(), first_bytes), source, now));
            answers.extend(refused.into_iter().map(|entry| (entry.reply, Err(error.clone()))));
        }
        let first = rest.first().map(|(batch, entry)| (wanted(batch), entry.patience_ends(since)));
        self.put_back(rest);
        // Where there is room for the first of them, it was only behind one that has none, and the turn goes on with it.
        if let Some((wanted, ends)) = first.filter(|(wanted, _)| wanted.bytes > room) {
            self.wait_for_room(wanted, ends);
        }
    }

    /// The queue waits until somebody has made room for its first batch, or until it has waited long enough.
    fn wait_for_room(self: &Arc<Self>, wanted: Wanted, ends: Instant) {
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
            self.space.request(wanted, Arc::downgrade(self));
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
        tail.want.is_refused = true;
        self.refusals.lock().add(&error, batches, self.services.clock.monotonic_ms());
        // Small batches may fit now and then while larger ones do not.
        let is_quiet = tail.want.refusal_said.is_some_and(|at| now.saturating_duration_since(at) < SAID_EVERY);
        if !tail.want.is_refusing && !is_quiet {
            (tail.want.is_refusing, tail.want.refusal_said) = (true, Some(now));
            let why = error.to_wire().message;
            tracing::warn!(topic = %self.topic, partition = self.number, why, "batches are refused until there is room");
            if bound == StorageBound::Disk && !self.space.may_yield(bound) {
                // Although no topic yields: other partitions may hold room that they do not use.
                self.space.request(Wanted { bound, bytes: first_bytes, removals: tail.want.removals }, Weak::new());
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
        let cleanup = self.space.cleanup();
        let on_full = if self.space.drops_oldest() { OnFull::DropOldest } else { OnFull::Reject };
        let shortage = Shortage { bound, batch_bytes, used_bytes: used, quota_bytes: quota, reserve_bytes, cleanup, on_full };
        EngineError::Full { topic: Arc::clone(&self.topic), partition: self.number, shortage, source: source.map(Arc::new) }
    }

    /// Puts batches of the run back where they came from. Their room in the queue was given back when they were taken out of it; so the
    /// queue may hold one run more than its bound.
    fn put_back(&self, batches: Vec<(Batch, Entry)>) {
        let mut queue = self.queue.lock();
        for (batch, entry) in batches.into_iter().rev() {
            queue.batches.push_front(Queued { batch, entry, _room: Reserved::nothing() });
        }
    }

    /// The room that was asked for was made, or may be by somebody else soon, or nobody can make it: the partition has its turn again. Who
    /// waits now may be another one than when it was asked, so it is said what is hopeless.
    pub(crate) fn answer_room(self: &Arc<Self>, hopeless: Option<Wanted>) {
        let mut queue = self.queue.lock();
        queue.wait.request = hopeless.filter(|_| queue.wait.is_on).map_or(Asked::Settled, Asked::Hopeless);
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
            Err(DeletionRunning) => return Yielded::Busy(Busy::Deletion),
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
        match outcome.and_then(|()| self.try_delete_before(oldest.end_offset)) {
            Ok(None) => Yielded::Busy(Busy::Exchange),
            Ok(Some(_)) => {
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

    /// Removes what could not be removed, counts again what the log has, and forgets producers that are long gone, and a full disk that is
    /// not full any more. Blocking; on the background thread.
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
        if self.refusals.lock().wait_for_disk()
            && let Ok(Some(free_bytes)) = self.services.disk.free_bytes(&self.services.config.data_dir)
        {
            self.refusals.lock().disk_has(free_bytes);
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
    /// The room that nobody could make; it counts once.
    fn take_hopeless(&mut self) -> Option<Wanted> {
        let Asked::Hopeless(wanted) = self.request else { return None };
        self.request = Asked::Settled;
        Some(wanted)
    }
}

impl Wanted {
    /// Whether nobody can make this room if nobody can make the other.
    fn is_as_much_as(self, other: Wanted) -> bool {
        // On a full disk nobody has anything to yield, however much is wanted.
        self.bound == other.bound && (self.bound == StorageBound::Disk || self.bytes >= other.bytes)
    }
}

impl Want {
    /// Nothing is left that wants any.
    pub(super) fn is_over(&mut self) {
        self.since = None;
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

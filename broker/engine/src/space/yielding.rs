//! Making room: who yields, one segment after the other, and telling those who wait.
//!
//! ```text
//!   requests ──> a future for each, side by side ──> step, step, step on the thread `room` ──> the partition is told
//!                  │                      ^
//!                  └── the segment is not answered yet, or its partition is busy: waits, and holds up nobody else
//! ```
//!
//! Batches wait for this, and for two seconds at most, so it has a thread of its own: on the background thread a step would stand behind
//! a segment that is compacted, a module that is compiled, a large folder that is removed. On that thread stay retention and what an
//! operator deletes, which take longer and nobody waits for with a deadline, and the look, once in a while, at what could not be removed
//! and at whether what is counted is what the logs have.
//!
//! A step decides with all topics in view, and there is one at a time, so two requests never drop two segments where one is enough: for a
//! quota it looks at what is used, and on a full disk what was removed since a request was made is tried before anything more goes.
//!
//! Where the records of the next one to yield are being deleted already, or a compaction is exchanging its segments, the one after it
//! yields; only where nobody else can does the request wait for the end of that, and the thread never does.

use super::{Request, TopicSpace, Wanted, gauge::Lack};
use crate::{
    engine::Engine,
    error::{EngineError, StorageBound},
    folders,
    partition::{Busy, Partition, Yielded},
    services::Services,
    topic::Topic,
};
use futures_util::{StreamExt, stream::FuturesUnordered};
use std::{
    cmp::Reverse,
    sync::{Arc, Weak, atomic::Ordering},
    time::Duration,
};
use tokio::time::{MissedTickBehavior, interval, timeout};

/// Begins to look. Ends when the engine is dropped or stops.
pub(crate) fn start(engine: &Arc<Engine>, check_interval: Duration) {
    engine.services.timers.spawn(run(Arc::downgrade(engine)));
    engine.services.timers.spawn(check(Arc::downgrade(engine), check_interval));
}

/// Makes room whenever somebody wants some.
async fn run(engine: Weak<Engine>) {
    let Some(space) = engine.upgrade().map(|engine| Arc::clone(&engine.services.space)) else { return };
    // One for each partition at most, and one for each step of a gauge above its mark.
    let mut at_work = FuturesUnordered::new();
    loop {
        tokio::select! {
            () = space.wanted.notified() => {
                let Some(engine) = engine.upgrade() else { return };
                // Whoever waits is told by the partitions, which refuse what comes now.
                if engine.refuse_while_closing().is_err() {
                    return;
                }
                engine.make_reserve();
                at_work.extend(space.take_requests().into_iter().map(|request| answer(Arc::clone(&engine), request)));
            }
            Some(()) = at_work.next() => {}
        }
    }
}

/// Looks at everything, once in a while.
async fn check(engine: Weak<Engine>, check_interval: Duration) {
    let Some(space) = engine.upgrade().map(|engine| Arc::clone(&engine.services.space)) else { return };
    let mut ticks = interval(check_interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first one comes at once.
    ticks.tick().await;
    loop {
        ticks.tick().await;
        // Others may have made room, in which the reserve is made again. And where there is no engine any more, both tasks end.
        space.wanted.notify_one();
        let Some(engine) = engine.upgrade() else { return };
        if engine.check_space().await.is_err() {
            return;
        }
    }
}

/// Does what is asked for. Whoever waits is told in any case.
async fn answer(engine: Arc<Engine>, request: Request) {
    let mut made = engine.make_room_for(&request).await;
    // Who drops the engine does not wait for a compaction.
    drop(engine);
    let waits = made == Made::Nothing && request.partition.strong_count() > 0;
    let compacted = request.topic.wish_for_room(request.wanted.bound, request.wanted.bytes, waits);
    if let (true, Some(compacted)) = (waits, compacted) {
        // It may still come, and others may make room meanwhile: who waits asks again.
        let is_dropped = timeout(STEP_WAITS_MAX, compacted).await.is_ok_and(|answer| answer.is_err());
        made = if is_dropped { Made::Nothing } else { Made::Some };
    }
    if let Some(partition) = request.partition.upgrade() {
        partition.answer_room((made == Made::Nothing).then_some(request.wanted));
    }
}

/// What has become of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Made {
    /// There is more room than before, or may be soon: whoever waits has another look, and waits on if it is too early.
    Some,
    /// Nobody has anything to yield.
    Nothing,
}

/// What one step has come to.
enum Step {
    /// There is room.
    Enough,
    /// A segment is gone.
    Freed,
    /// The next segment to go is not answered yet as far as its end.
    Unanswered(Arc<Partition>, i64),
    /// Somebody else is at the oldest segments of the partition that is to yield.
    Busy(Arc<Partition>, Busy),
    /// Nobody has anything to yield.
    Nothing,
}

impl Engine {
    /// The reserve comes before any batch: it is made before all steps that are to come. Nobody waits for it here, where those who wait for
    /// something else have to be told of it.
    fn make_reserve(&self) {
        let space = &self.services.space;
        if space.reserve.is_held() || space.reserve_queued.swap(true, Ordering::AcqRel) {
            return;
        }
        let services = Arc::clone(&self.services);
        self.services.room.spawn(move || {
            // Before it looks at what is free: whoever removes something from now on wants it to be looked at again.
            services.space.reserve_queued.store(false, Ordering::Release);
            make_reserve(&services);
        });
    }

    /// Deletes oldest segments until there is room.
    async fn make_room_for(&self, request: &Request) -> Made {
        let mut made = Made::Nothing;
        for _ in 0..STEPS_PER_REQUEST_MAX {
            if self.refuse_while_closing().is_err() {
                return Made::Some;
            }
            let (services, topics) = (Arc::clone(&self.services), self.all_topics());
            let (topic, wanted) = (Arc::clone(&request.topic), request.wanted);
            let step = self.services.room.run(move || step(&services, &topics, &topic, wanted)).await;
            let is_over = match step {
                Ok(Step::Enough) => return Made::Some,
                Ok(Step::Freed) => {
                    made = Made::Some;
                    false
                }
                Ok(Step::Unanswered(partition, end)) => {
                    let mut view = partition.subscribe();
                    timeout(STEP_WAITS_MAX, view.wait_for(|view| view.watermarks.high_watermark >= end)).await.is_err()
                }
                Ok(Step::Busy(partition, busy)) => timeout(STEP_WAITS_MAX, partition.is_free_of(busy)).await.is_err(),
                // A job that panicked has poisoned its partition.
                Ok(Step::Nothing) | Err(_) => break,
            };
            if is_over {
                // It may still come. Others have their turn, and who waits asks again.
                return Made::Some;
            }
            if made == Made::Some && wanted.bound == StorageBound::Disk && self.services.space.reserve.is_held() {
                // How much room a segment has made is seen by trying.
                break;
            }
        }
        made
    }

    /// Looks at everything once, on the background thread. Fails when the broker stops.
    async fn check_space(&self) -> Result<(), EngineError> {
        self.refuse_while_closing()?;
        let services = Arc::clone(&self.services);
        let _ = self.services.background.run(move || remove_again(&services)).await;
        for topic in self.all_topics() {
            for partition in &topic.partitions {
                self.refuse_while_closing()?;
                let partition = Arc::clone(partition);
                // One that panics has poisoned itself; the others go on.
                let _ = self.services.background.run(move || partition.check_space()).await;
            }
        }
        Ok(())
    }

    fn all_topics(&self) -> Vec<Arc<Topic>> {
        self.topics.read().values().map(Arc::clone).collect()
    }
}

/// Says whether the reserve is there. Blocking.
fn make_reserve(services: &Services) -> bool {
    let space = &services.space;
    space.reserve.is_held() || space.reserve.make(services.instant(), space.removals())
}

/// Deletes one segment, if one has to go. Blocking.
fn step(services: &Services, topics: &[Arc<Topic>], asking: &Arc<TopicSpace>, wanted: Wanted) -> Step {
    let (space, Wanted { bound, bytes, removals }) = (&services.space, wanted);
    let reserve = &space.reserve;
    if bound == StorageBound::Disk {
        if !reserve.is_held() && make_reserve(services) {
            return Step::Enough;
        }
        // What no record is in goes before any record does.
        let partitions = topics.iter().flat_map(|topic| &topic.partitions);
        let released = partitions.filter(|partition| partition.release_room()).count();
        if released > 0 {
            tracing::debug!(released, "segments have given back room that they had asked for ahead");
            space.has_changed();
            return Step::Freed;
        }
        // For another request, say. Whether that is enough is seen by trying.
        if reserve.is_held() && space.removals() != removals {
            return Step::Enough;
        }
    }
    let candidates: Vec<_> = topics
        .iter()
        .map(|topic| Candidate {
            is_asking: Arc::ptr_eq(topic.space(), asking),
            drops_oldest: topic.space().drops_oldest(),
            bytes: topic.space().level().used,
        })
        .collect();
    let order = order(&candidates, bound);
    // No record goes in vain: not for a batch that would not fit all the same, nor for a reserve that could not be made.
    let droppable = order.iter().map(|number| candidates[*number].bytes).sum();
    let mut fits = false;
    match bound {
        StorageBound::Disk if reserve.is_held() => {}
        StorageBound::Disk => {
            if reserve.missing_bytes().is_some_and(|missing| missing == 0 || missing > droppable) {
                return Step::Nothing;
            }
        }
        StorageBound::Topic | StorageBound::Node => match asking.level_of(bound).lack(bytes) {
            Lack { to_be_roomy: 0, .. } => return Step::Enough,
            Lack { to_fit, .. } if to_fit > droppable => return Step::Nothing,
            // It fits, and more can't be had.
            Lack { to_fit: 0, to_be_roomy } if to_be_roomy > droppable => return Step::Enough,
            Lack { to_fit, .. } => fits = to_fit == 0,
        },
    }
    match drop_one(order.iter().map(|number| &*topics[*number])) {
        // Whoever waits has its room. That there is some more is not worth a longer wait.
        Step::Unanswered(..) | Step::Busy(..) if bytes > 0 && fits => Step::Enough,
        step => step,
    }
}

/// Deletes the oldest segment of the first one that can yield it. Blocking.
fn drop_one<'a>(topics: impl Iterator<Item = &'a Topic>) -> Step {
    let mut busy = None;
    for topic in topics {
        // The fullest first. A partition that has hardly anything is not asked to yield it while another one can.
        let mut partitions: Vec<_> = topic.partitions.iter().collect();
        partitions.sort_by_cached_key(|partition| Reverse(partition.size_bytes()));
        for partition in partitions {
            match partition.drop_oldest() {
                Yielded::Segment => return Step::Freed,
                Yielded::NotYet(end) => return Step::Unanswered(Arc::clone(partition), end),
                // Only if no other one can is its end waited for.
                Yielded::Busy(with) => busy = busy.or_else(|| Some((Arc::clone(partition), with))),
                Yielded::Nothing => {}
            }
        }
    }
    busy.map_or(Step::Nothing, |(partition, with)| Step::Busy(partition, with))
}

/// A topic that might yield.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    is_asking: bool,
    drops_oldest: bool,
    bytes: u64,
}

/// Who yields, in this order: the topic that asks, and, unless it is about its own quota, the others, the largest first. Never one that
/// rejects.
fn order(candidates: &[Candidate], bound: StorageBound) -> Vec<usize> {
    let may = |candidate: &Candidate| candidate.drops_oldest && (candidate.is_asking || bound != StorageBound::Topic);
    let mut order: Vec<usize> = (0..candidates.len()).filter(|number| may(&candidates[*number])).collect();
    order.sort_by_key(|number| (!candidates[*number].is_asking, Reverse(candidates[*number].bytes)));
    order
}

/// Tries once more to remove the folders of deleted topics. Blocking.
fn remove_again(services: &Services) {
    for (folder, counted) in services.space.take_unremoved() {
        folders::remove_deleted(services, folder, counted);
    }
}

/// Segments that go for one request before the next one has its turn.
const STEPS_PER_REQUEST_MAX: usize = 64;

/// How long a request waits for a flush, another deletion or an exchange of segments, before its next step, and for a compaction. It is longer than a disk
/// takes that still works.
const STEP_WAITS_MAX: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(is_asking: bool, drops_oldest: bool, bytes: u64) -> Candidate {
        Candidate { is_asking, drops_oldest, bytes }
    }

    #[test]
    fn who_asks_goes_first_then_the_largest_and_never_one_that_rejects() {
        let candidates = [candidate(false, true, 10), candidate(true, true, 1), candidate(false, false, 99), candidate(false, true, 20)];
        assert_eq!(order(&candidates, StorageBound::Node), [1, 3, 0]);
        assert_eq!(order(&candidates, StorageBound::Disk), [1, 3, 0]);
        assert_eq!(order(&candidates, StorageBound::Topic), [1]);
        let rejecting = [candidate(true, false, 50), candidate(false, true, 0)];
        assert_eq!(order(&rejecting, StorageBound::Node), [1]);
        assert!(order(&rejecting, StorageBound::Topic).is_empty());
    }
}

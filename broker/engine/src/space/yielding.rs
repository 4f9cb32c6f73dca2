//! Making room: who yields, one segment after the other, and telling those who wait.
//!
//! A task collects what is asked for, and the background thread does it. The task also looks, once in a while, at what could not be removed,
//! at the reserve, and at whether what is counted is what the logs have.

use super::{Request, TopicSpace};
use crate::{
    engine::Engine,
    error::{EngineError, StorageBound},
    folders,
    partition::{Partition, Yielded},
    services::Services,
    topic::Topic,
};
use std::{
    cmp::Reverse,
    sync::{Arc, Weak},
    time::Duration,
};
use tokio::time::{MissedTickBehavior, interval, timeout};

/// Begins to look. Ends when the engine is dropped or stops.
pub(crate) fn start(engine: &Arc<Engine>, check_interval: Duration) {
    engine.services.timers.spawn(run(Arc::downgrade(engine), check_interval));
}

async fn run(engine: Weak<Engine>, check_interval: Duration) {
    let Some(space) = engine.upgrade().map(|engine| Arc::clone(&engine.services.space)) else { return };
    let mut ticks = interval(check_interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first one comes at once.
    ticks.tick().await;
    loop {
        let is_check = tokio::select! {
            () = space.wanted.notified() => false,
            _ = ticks.tick() => true,
        };
        let Some(engine) = engine.upgrade() else { return };
        engine.make_room().await;
        if engine.refuse_while_closing().is_err() || (is_check && engine.check_space().await.is_err()) {
            return;
        }
    }
}

/// What one step has come to.
enum Step {
    /// There is room.
    Enough,
    /// A segment is gone.
    Freed,
    /// The next segment to go is not answered yet as far as its end.
    Unanswered(Arc<Partition>, i64),
    /// Nobody has anything to yield.
    Nothing,
}

impl Engine {
    /// Does what is asked for. Whoever waits is told in any case.
    async fn make_room(&self) {
        let (services, requests) = (&self.services, self.services.space.take_requests());
        if !services.space.reserve.is_held() {
            let for_job = Arc::clone(services);
            // One that panics has not made it.
            let _ = services.background.run(move || for_job.space.reserve.make()).await;
        }
        for request in requests {
            let is_freed = self.make_room_for(&request).await;
            if let Some(partition) = request.partition.upgrade() {
                partition.wake(is_freed);
            }
        }
    }

    /// Deletes oldest segments until there is room. Says whether there is more than before.
    async fn make_room_for(&self, request: &Request) -> bool {
        let mut is_freed = false;
        for _ in 0..STEPS_PER_REQUEST_MAX {
            if self.refuse_while_closing().is_err() {
                break;
            }
            let (services, topics) = (Arc::clone(&self.services), self.all_topics());
            let (topic, bound, bytes) = (Arc::clone(&request.topic), request.bound, request.bytes);
            let step = self.services.background.run(move || step(&services, &topics, &topic, bound, bytes)).await;
            match step {
                Ok(Step::Enough) => return true,
                Ok(Step::Freed) => is_freed = true,
                Ok(Step::Unanswered(partition, end)) => {
                    let mut view = partition.subscribe();
                    let answered = view.wait_for(|view| view.watermarks.high_watermark >= end);
                    if !matches!(timeout(ANSWERED_WITHIN, answered).await, Ok(Ok(_))) {
                        break;
                    }
                }
                // A job that panicked has poisoned its partition.
                Ok(Step::Nothing) | Err(_) => break,
            }
            if is_freed && bound == StorageBound::Disk && self.services.space.reserve.is_held() {
                // How much room a segment has made is seen by trying.
                break;
            }
        }
        is_freed
    }

    /// Looks at everything once. Fails when the broker stops.
    async fn check_space(&self) -> Result<(), EngineError> {
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

/// Deletes one segment, if one has to go. Blocking.
fn step(services: &Services, topics: &[Arc<Topic>], asking: &Arc<TopicSpace>, bound: StorageBound, bytes: u64) -> Step {
    let reserve = &services.space.reserve;
    if asking.is_roomy(bound, bytes) || (bound == StorageBound::Disk && !reserve.is_held() && reserve.make()) {
        return Step::Enough;
    }
    if bound == StorageBound::Disk {
        // What no record is in goes before any record does.
        let partitions = topics.iter().flat_map(|topic| &topic.partitions);
        let released = partitions.filter(|partition| partition.release_room()).count();
        if released > 0 {
            tracing::debug!(released, "segments have given back room that they had asked for ahead");
            return Step::Freed;
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
    if bound == StorageBound::Disk && !reserve.is_held() {
        // No record goes for a reserve that could not be made all the same.
        let droppable: u64 = candidates.iter().filter(|candidate| candidate.drops_oldest).map(|candidate| candidate.bytes).sum();
        if reserve.missing_bytes().is_some_and(|missing| missing == 0 || missing > droppable) {
            return Step::Nothing;
        }
    }
    for number in order(&candidates, bound) {
        // The fullest first. A partition that has hardly anything is not asked to yield it while another one can.
        let mut partitions: Vec<_> = topics[number].partitions.iter().collect();
        partitions.sort_by_cached_key(|partition| Reverse(partition.size_bytes()));
        for partition in partitions {
            match partition.drop_oldest() {
                Yielded::Segment => return Step::Freed,
                Yielded::NotYet(end) => return Step::Unanswered(Arc::clone(partition), end),
                Yielded::Nothing => {}
            }
        }
    }
    Step::Nothing
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

/// How long the background thread's next step waits for a flush. It is longer than a disk takes that still works.
const ANSWERED_WITHIN: Duration = Duration::from_secs(1);

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

//! Counting bytes against a quota that is never passed.

use super::{Level, MARK_PERCENT, TopicSpace};
use crate::error::StorageBound;
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// What is used of a quota.
#[derive(Debug)]
pub(super) struct Gauge {
    used: AtomicU64,
    /// [`UNLIMITED`] for none.
    quota: AtomicU64,
}

/// What one log has in its topic's gauge and the node's. Given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Counted {
    topic: Arc<TopicSpace>,
    bytes: u64,
}

impl Gauge {
    pub(super) fn new(quota: Option<u64>) -> Gauge {
        Gauge { used: AtomicU64::new(0), quota: AtomicU64::new(quota.unwrap_or(UNLIMITED)) }
    }

    pub(super) fn set_quota(&self, quota: Option<u64>) {
        self.quota.store(quota.unwrap_or(UNLIMITED), Ordering::Release);
    }

    pub(super) fn level(&self) -> Level {
        let quota = self.quota.load(Ordering::Acquire);
        Level { used: self.used.load(Ordering::Acquire), quota: (quota != UNLIMITED).then_some(quota) }
    }

    /// Counts bytes in if they fit. Says whether that came near the quota: it has passed the mark, or a further step above it.
    fn try_add(&self, bytes: u64) -> Option<bool> {
        let quota = self.quota.load(Ordering::Acquire);
        let fitting = |used: u64| used.checked_add(bytes).filter(|after| *after <= quota);
        let before = self.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, fitting).ok()?;
        let (after, step) = (before + bytes, (quota / STEPS).max(1));
        Some(after > mark(quota) && (before <= mark(quota) || before / step != after / step))
    }

    /// Counts bytes in that are there already, whether they fit or not.
    fn add(&self, bytes: u64) {
        self.used.fetch_add(bytes, Ordering::AcqRel);
    }

    fn sub(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::AcqRel);
    }

    fn room(&self) -> u64 {
        self.quota.load(Ordering::Acquire).saturating_sub(self.used.load(Ordering::Acquire))
    }
}

/// What has to go before so many bytes fit, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lack {
    pub(super) to_fit: u64,
    /// And some room is left then.
    pub(super) to_be_roomy: u64,
}

impl Level {
    /// What has to go before so many bytes more fit.
    pub(super) fn lack(&self, bytes: u64) -> Lack {
        let over = |limit: fn(u64) -> u64| self.quota.map_or(0, |quota| self.used.saturating_add(bytes).saturating_sub(limit(quota)));
        Lack { to_fit: over(|quota| quota), to_be_roomy: over(mark) }
    }
}

impl Counted {
    /// For a log that has so many bytes.
    pub(crate) fn new(topic: &Arc<TopicSpace>, bytes: u64) -> Counted {
        let mut counted = Counted { topic: Arc::clone(topic), bytes: 0 };
        counted.set(bytes);
        counted
    }

    /// Counts more in if there is room for it. The bounds that come near are said, so that whoever yields can begin.
    pub(crate) fn try_add(&mut self, bytes: u64) -> Result<Vec<StorageBound>, StorageBound> {
        let topic_is_near = self.topic.gauge.try_add(bytes).ok_or(StorageBound::Topic)?;
        let Some(node_is_near) = self.topic.node.node.try_add(bytes) else {
            self.topic.gauge.sub(bytes);
            return Err(StorageBound::Node);
        };
        self.bytes += bytes;
        let near = [(topic_is_near, StorageBound::Topic), (node_is_near, StorageBound::Node)];
        // No allocation as long as there is nothing to say.
        Ok(near.into_iter().filter(|(is_near, _)| *is_near).map(|(_, bound)| bound).collect())
    }

    /// How many more bytes there is room for at this moment.
    pub(crate) fn room(&self) -> u64 {
        self.topic.gauge.room().min(self.topic.node.node.room())
    }

    /// Sets it to what the log has.
    pub(crate) fn set(&mut self, bytes: u64) {
        for gauge in [&self.topic.gauge, &self.topic.node.node] {
            if bytes >= self.bytes {
                gauge.add(bytes - self.bytes);
            } else {
                gauge.sub(self.bytes - bytes);
            }
        }
        self.bytes = bytes;
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.set(0);
    }
}

/// Where a quota counts as nearly used up.
fn mark(quota: u64) -> u64 {
    if quota == UNLIMITED { UNLIMITED } else { quota / 100 * MARK_PERCENT + quota % 100 * MARK_PERCENT / 100 }
}

/// No quota is as large as this.
const UNLIMITED: u64 = u64::MAX;

/// Above the mark, one is said to be near once for each such part of the quota.
const STEPS: u64 = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{reserve::Reserve, space::Space};
    use millpond_log::sim::SimDisk;
    use millpond_protocol::message::TopicConfig;
    use std::path::Path;

    fn space(quota: Option<u64>) -> Arc<Space> {
        Space::new(quota, Reserve::open(Arc::new(SimDisk::new()), Path::new("/data"), 0))
    }

    fn topic(space: &Arc<Space>, quota_bytes: Option<u64>) -> Arc<TopicSpace> {
        space.topic(&TopicConfig { quota_bytes, ..TopicConfig::default() })
    }

    #[test]
    fn what_does_not_fit_is_not_counted_anywhere_and_what_is_dropped_is_given_back() {
        let space = space(Some(1_000));
        let (one, two) = (topic(&space, Some(600)), topic(&space, None));
        let (mut a, mut b) = (Counted::new(&one, 100), Counted::new(&two, 0));
        assert_eq!(a.try_add(501), Err(StorageBound::Topic));
        assert_eq!(a.try_add(300), Ok(vec![]));
        assert_eq!(b.try_add(601), Err(StorageBound::Node));
        assert_eq!((one.level().used, two.level().used, space.level().used), (400, 0, 400));
        assert_eq!((a.room(), b.room()), (200, 600));
        assert_eq!(b.try_add(600), Ok(vec![StorageBound::Node]));
        assert_eq!(a.try_add(1), Err(StorageBound::Node), "the topic has room and the node has not");
        a.set(50);
        assert_eq!((one.level().used, space.level().used), (50, 650));
        drop(b);
        assert_eq!((two.level().used, space.level().used), (0, 50));
        drop(a);
        assert_eq!(space.level(), Level { used: 0, quota: Some(1_000) });
    }

    #[test]
    fn what_is_there_already_counts_even_if_it_is_more_than_the_quota() {
        let space = space(Some(100));
        let topic = topic(&space, Some(50));
        let mut counted = Counted::new(&topic, 200);
        assert_eq!(counted.room(), 0);
        assert_eq!(counted.try_add(0), Err(StorageBound::Topic));
        counted.set(40);
        assert_eq!(counted.try_add(10), Ok(vec![StorageBound::Topic]));
    }

    #[test]
    fn coming_near_is_said_once_for_each_step() {
        let gauge = Gauge::new(Some(6_400));
        let near = (0..6_400).filter(|_| gauge.try_add(1) == Some(true)).count();
        assert!((6..=9).contains(&near), "a tenth of 64 steps, and the mark: {near}");
        assert_eq!(gauge.try_add(1), None);
        let unlimited = Gauge::new(None);
        assert_eq!((unlimited.try_add(1 << 60), unlimited.level().quota), (Some(false), None));
        assert_eq!(unlimited.level().lack(1 << 60), Lack { to_fit: 0, to_be_roomy: 0 });
        assert_eq!(gauge.level().lack(5), Lack { to_fit: 5, to_be_roomy: 645 });
    }

    #[test]
    fn threads_that_race_never_pass_a_quota_and_forget_nothing() {
        let space = space(Some(10_000));
        let topics: Vec<_> = (0..4).map(|_| topic(&space, Some(6_000))).collect();
        std::thread::scope(|scope| {
            for (number, topic) in (0_u64..).zip(&topics) {
                let space = &space;
                scope.spawn(move || {
                    let mut counted = Counted::new(topic, 0);
                    for step in 0..20_000_u64 {
                        let bytes = (step * 31 + number * 7) % 900;
                        if counted.try_add(bytes).is_err() || step % 5 == 0 {
                            counted.set(counted.bytes / 2);
                        }
                        assert!(space.level().used <= 10_000 && topic.level().used <= 6_000);
                    }
                });
            }
        });
        assert_eq!(space.level().used, 0);
    }
}

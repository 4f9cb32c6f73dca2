//! How many bytes the records may take: quotas, the reserve, and who makes room.
//!
//! ```text
//!   turn: count the run in ──> fits ──────────────────────────────────> append
//!             │                                                            │ no space left on the device
//!             └──> does not fit <────────────────────────────────────────<─┘
//!                    │
//!                    ├── somebody may yield ──> the partition waits ──> oldest segments go ──> counted in again
//!                    └── else, or too late ───> refused: StorageFull, and sending it again is safe
//! ```
//!
//! What counts are the bytes of batches, for each topic and for the node. A run of batches is counted in before the first of its bytes is
//! written, with one step that either fits or does not, so however many partitions write at the same time, no quota is passed. Each
//! partition remembers what it has counted in ([`Counted`]): an append that failed, a deletion or a cleaning sets it to what the log has,
//! so nothing is counted twice and nothing is forgotten. Indexes and small files come on top, less than a hundredth as a rule.
//!
//! A quota counts the batches of segments that are in their place. What a compaction writes takes the place of others, and counts from then
//! on; until then the draft comes on top of the node's quota and the disk: one segment at a time in the whole broker, as large as
//! `segment_bytes` of the topic, or as the segment that it replaces where that is larger. It is not put off for a quota that is used up,
//! since it is what makes room there; Kafka's cleaner asks for the same headroom. On a disk that has no room for it the pass is put off.
//!
//! A topic with `drop-oldest` yields its oldest segments; one with `reject` never does. Where the topic's own quota is used up, the topic
//! yields itself; where the node's is, or the disk is full, the topic that wants to write goes first if it may, and then whichever has the
//! most. It begins before the end is reached ([`MARK_PERCENT`]), so that producers hardly notice. None goes in vain: where all that could
//! yield is less than what has to go, nothing does, and the batch is refused.
//!
//! A topic that keeps the latest record of each key (`compact`) never yields: dropping its oldest segments would break that, so it can't be
//! told to. One that also deletes (`compact,delete`) can. Either is compacted at once where there is hardly any room, whatever share of it
//! is new, and batches wait for that as they do for who yields.

mod compacting;
mod gauge;
mod yielding;

pub(crate) use compacting::{Granting, Wish};
pub(crate) use gauge::Counted;
pub(crate) use yielding::start;

use crate::{error::StorageBound, partition::Partition, reserve::Reserve};
use compacting::{Compacts, Wishes};
use gauge::Gauge;
use millpond_protocol::message::{Dropped, OnFull, TopicConfig};
use parking_lot::Mutex;
use std::{
    path::PathBuf,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
};
use tokio::sync::Notify;

/// The room of one node.
#[derive(Debug)]
pub(crate) struct Space {
    node: Gauge,
    /// A piece of the disk for the broker itself.
    pub(crate) reserve: Reserve,
    /// How many topics drop their oldest records.
    yielding: AtomicUsize,
    /// What compaction is to make room for.
    wishes: Wishes,
    /// Who wants room. At most one for each partition waits, and one for each step of a gauge above its mark.
    requests: Mutex<Vec<Request>>,
    /// Somebody wants room, or there is room where there was none.
    wanted: Notify,
    /// Counts what was removed from the disk: whoever has failed at an earlier count may find room.
    removals: AtomicU64,
    /// The reserve is to be made, and that has not begun.
    reserve_queued: AtomicBool,
    /// Folders of deleted topics that could not be removed yet, with what still counts of them.
    unremoved: Mutex<Vec<(PathBuf, Vec<Counted>)>>,
}

/// The room of one topic.
#[derive(Debug)]
pub(crate) struct TopicSpace {
    node: Arc<Space>,
    gauge: Gauge,
    drops_oldest: AtomicBool,
    compacts: Compacts,
    dropped_segments: AtomicU64,
    dropped_records: AtomicU64,
    dropped_bytes: AtomicU64,
}

/// Somebody wants room.
#[derive(Debug)]
pub(crate) struct Request {
    topic: Arc<TopicSpace>,
    wanted: Wanted,
    /// Who waits for it.
    partition: Weak<Partition>,
}

/// What room is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// Where there is none.
    pub(crate) bound: StorageBound,
    /// What has to fit; nothing where it is only about keeping some room free.
    pub(crate) bytes: u64,
    /// [`Space::removals`] before it was found that there is none. What was removed since is tried before anything more goes.
    pub(crate) removals: u64,
}

/// A quota, and how much of it is used, in bytes of batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Level {
    pub(crate) used: u64,
    /// None for no limit.
    pub(crate) quota: Option<u64>,
}

impl Space {
    pub(crate) fn new(quota: Option<u64>, reserve: Reserve) -> Arc<Space> {
        Arc::new(Space {
            node: Gauge::new(quota),
            reserve,
            yielding: AtomicUsize::new(0),
            wishes: Wishes::new(),
            requests: Mutex::default(),
            wanted: Notify::new(),
            removals: AtomicU64::new(0),
            reserve_queued: AtomicBool::new(false),
            unremoved: Mutex::default(),
        })
    }

    /// The room of a topic with these settings, which has nothing yet.
    pub(crate) fn topic(self: &Arc<Self>, config: &TopicConfig) -> Arc<TopicSpace> {
        let topic = TopicSpace {
            node: Arc::clone(self),
            gauge: Gauge::new(None),
            drops_oldest: AtomicBool::new(false),
            compacts: Compacts::default(),
            dropped_segments: AtomicU64::new(0),
            dropped_records: AtomicU64::new(0),
            dropped_bytes: AtomicU64::new(0),
        };
        topic.set(config);
        Arc::new(topic)
    }

    pub(crate) fn level(&self) -> Level {
        self.node.level()
    }

    /// Asks for room, for a partition that waits until it hears of it.
    pub(crate) fn request(&self, request: Request) {
        self.requests.lock().push(request);
        self.wanted.notify_one();
    }

    /// Something was removed, so there may be room.
    pub(crate) fn has_changed(&self) {
        self.removals.fetch_add(1, Ordering::AcqRel);
        self.wanted.notify_one();
    }

    /// How often something was removed from the disk since the broker started.
    pub(crate) fn removals(&self) -> u64 {
        self.removals.load(Ordering::Acquire)
    }

    /// Keeps the folder of a deleted topic in mind that could not be removed.
    pub(crate) fn add_unremoved(&self, folder: PathBuf, counted: Vec<Counted>) {
        self.unremoved.lock().push((folder, counted));
    }

    fn take_unremoved(&self) -> Vec<(PathBuf, Vec<Counted>)> {
        std::mem::take(&mut self.unremoved.lock())
    }

    fn take_requests(&self) -> Vec<Request> {
        std::mem::take(&mut self.requests.lock())
    }
}

impl TopicSpace {
    /// Takes over the topic's settings. A quota below what is used deletes nothing by itself where the topic rejects.
    pub(crate) fn set(&self, config: &TopicConfig) {
        self.gauge.set_quota(config.quota_bytes);
        self.set_compacts(config);
        let drops = config.on_full == OnFull::DropOldest;
        match (self.drops_oldest.swap(drops, Ordering::AcqRel), drops) {
            (false, true) => drop(self.node.yielding.fetch_add(1, Ordering::AcqRel)),
            (true, false) => drop(self.node.yielding.fetch_sub(1, Ordering::AcqRel)),
            _ => {}
        }
    }

    pub(crate) fn level(&self) -> Level {
        self.gauge.level()
    }

    pub(crate) fn node(&self) -> &Arc<Space> {
        &self.node
    }

    pub(crate) fn drops_oldest(&self) -> bool {
        self.drops_oldest.load(Ordering::Acquire)
    }

    /// Whether there may be somebody who yields, or is compacted, when this has no room.
    pub(crate) fn may_yield(&self, bound: StorageBound) -> bool {
        let yields = match bound {
            StorageBound::Topic => self.drops_oldest(),
            StorageBound::Node | StorageBound::Disk => self.node.yielding.load(Ordering::Acquire) > 0,
        };
        yields || self.may_compact(bound)
    }

    /// What was dropped since the broker started.
    pub(crate) fn dropped(&self) -> Dropped {
        Dropped {
            segments: self.dropped_segments.load(Ordering::Relaxed),
            records: self.dropped_records.load(Ordering::Relaxed),
            bytes: self.dropped_bytes.load(Ordering::Relaxed),
        }
    }

    /// Notes that a segment was dropped.
    pub(crate) fn count_dropped(&self, records: u64, bytes: u64) {
        self.dropped_segments.fetch_add(1, Ordering::Relaxed);
        self.dropped_records.fetch_add(records, Ordering::Relaxed);
        self.dropped_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Asks for room.
    pub(crate) fn request(self: &Arc<Self>, wanted: Wanted, partition: Weak<Partition>) {
        self.node.request(Request { topic: Arc::clone(self), wanted, partition });
    }

    /// Asks for room above the mark: nobody waits for it yet.
    pub(crate) fn request_some(self: &Arc<Self>, bound: StorageBound) {
        self.request(Wanted { bound, bytes: 0, removals: self.node.removals() }, Weak::new());
    }

    /// What is used of a quota; nothing is said of the disk.
    fn level_of(&self, bound: StorageBound) -> Level {
        match bound {
            StorageBound::Topic => self.gauge.level(),
            StorageBound::Node => self.node.level(),
            StorageBound::Disk => Level { used: 0, quota: None },
        }
    }
}

impl Drop for TopicSpace {
    fn drop(&mut self) {
        if *self.drops_oldest.get_mut() {
            self.node.yielding.fetch_sub(1, Ordering::AcqRel);
        }
        self.forget_compacts();
    }
}

/// The size at which segments of a topic are closed. One that drops whole segments has several of them in its quota, or there would be
/// nothing to drop but everything.
pub(crate) fn segment_bytes(config: &TopicConfig, node_quota: Option<u64>) -> u64 {
    let quota = config.quota_bytes.into_iter().chain(node_quota).min();
    match quota {
        Some(quota) if config.on_full == OnFull::DropOldest => {
            (quota / SEGMENTS_PER_QUOTA).max(SEGMENT_BYTES_MIN).min(config.segment_bytes)
        }
        _ => config.segment_bytes,
    }
}

/// From here on, in percent of a quota, topics that drop their oldest records do so.
pub(crate) const MARK_PERCENT: u64 = 90;

/// A segment that is dropped costs an eighth of what may be kept.
const SEGMENTS_PER_QUOTA: u64 = 8;

/// A block of most file systems: the files of smaller segments would take more room than their batches.
const SEGMENT_BYTES_MIN: u64 = 4 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_that_drops_its_oldest_records_has_several_segments_in_its_quota() {
        let of = |quota_bytes, on_full, node| {
            let config = TopicConfig { quota_bytes, on_full, segment_bytes: 1 << 20, ..TopicConfig::default() };
            segment_bytes(&config, node)
        };
        assert_eq!(of(None, OnFull::DropOldest, None), 1 << 20);
        assert_eq!(of(Some(4 << 20), OnFull::DropOldest, None), 512 << 10);
        assert_eq!(of(Some(4 << 20), OnFull::DropOldest, Some(2 << 20)), 256 << 10);
        assert_eq!(of(Some(64 << 10), OnFull::DropOldest, None), 8 << 10);
        for tiny in [0, 1, 1 << 10] {
            assert_eq!(of(Some(tiny), OnFull::DropOldest, None), SEGMENT_BYTES_MIN);
        }
        assert_eq!(of(Some(1 << 40), OnFull::DropOldest, None), 1 << 20);
        assert_eq!(of(Some(4 << 20), OnFull::Reject, Some(1 << 20)), 1 << 20);
        // As a catalogue may say that was written by hand.
        let smaller = TopicConfig { quota_bytes: Some(1 << 20), on_full: OnFull::DropOldest, segment_bytes: 1, ..TopicConfig::default() };
        assert_eq!(segment_bytes(&smaller, None), 1);
    }
}

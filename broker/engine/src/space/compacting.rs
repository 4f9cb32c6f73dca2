//! Room that compaction can make: who wants some, and hears when there is.
//!
//! The look, once in a while, makes a pass where half of a log is new. Where there is no room, or hardly any, less is worth a pass: it is
//! wished for at once ([`crate::compaction`] grants it), of the partitions of the topic whose quota it is about, or, for the node's quota
//! and the disk, of all topics that are compacted.

use super::{Space, TopicSpace};
use crate::error::StorageBound;
use millpond_protocol::message::{Cleanup, TopicConfig};
use parking_lot::Mutex;
use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};
use tokio::sync::{mpsc, oneshot};

/// Of the node: how many topics are compacted, and what is wished for. A partition that waits has one wish at most, and of those that
/// nobody waits for there is one for each topic, and one for the node.
#[derive(Debug)]
pub(super) struct Wishes {
    topics: AtomicUsize,
    sender: mpsc::UnboundedSender<Wish>,
    /// None once somebody grants them.
    receiver: Mutex<Option<mpsc::UnboundedReceiver<Wish>>>,
    is_wished: AtomicBool,
}

/// Of a topic: whether it is compacted, and something is wished for.
#[derive(Debug, Default)]
pub(super) struct Compacts {
    on: AtomicBool,
    /// And nothing else: no record goes but for a later one of its key.
    alone: AtomicBool,
    is_wished: AtomicBool,
}

/// Somebody wants room, and compaction may make some.
#[derive(Debug)]
pub(crate) struct Wish {
    topic: Arc<TopicSpace>,
    bound: StorageBound,
    bytes: u64,
    /// Told once there is more room. Dropped where there is none to be had.
    answer: Option<oneshot::Sender<()>>,
}

impl Wishes {
    pub(super) fn new() -> Wishes {
        let (sender, receiver) = mpsc::unbounded_channel();
        Wishes { topics: AtomicUsize::new(0), sender, receiver: Mutex::new(Some(receiver)), is_wished: AtomicBool::new(false) }
    }
}

impl Wish {
    /// From now on the next one is another.
    pub(crate) fn is_taken(&self) {
        if self.answer.is_none() {
            self.topic.is_wished(self.bound).store(false, Ordering::Release);
        }
    }

    /// Whether there is no room yet.
    pub(crate) fn is_open(&self) -> bool {
        self.topic.is_tight(self.bound, self.bytes, self.answer.is_some())
    }

    /// Whether a pass over this topic may help.
    pub(crate) fn is_about(&self, topic: &Arc<TopicSpace>) -> bool {
        self.bound != StorageBound::Topic || Arc::ptr_eq(&self.topic, topic)
    }

    /// There is more room than there was.
    pub(crate) fn grant(&mut self) {
        // Nobody may wait any more.
        self.answer.take().map(|answer| answer.send(()));
    }
}

impl Space {
    /// What is wished for from now on; once.
    pub(crate) fn take_wishes(&self) -> Option<mpsc::UnboundedReceiver<Wish>> {
        self.wishes.receiver.lock().take()
    }
}

impl TopicSpace {
    /// Takes over whether the topic is compacted.
    pub(super) fn set_compacts(&self, config: &TopicConfig) {
        let compacts = config.cleanup.compacts();
        self.compacts.alone.store(compacts && !config.cleanup.deletes(), Ordering::Release);
        match (self.compacts.on.swap(compacts, Ordering::AcqRel), compacts) {
            (false, true) => drop(self.node.wishes.topics.fetch_add(1, Ordering::AcqRel)),
            (true, false) => drop(self.node.wishes.topics.fetch_sub(1, Ordering::AcqRel)),
            _ => {}
        }
    }

    /// What becomes of its old records.
    pub(crate) fn cleanup(&self) -> Cleanup {
        match (self.compacts.on.load(Ordering::Acquire), self.compacts.alone.load(Ordering::Acquire)) {
            (_, true) => Cleanup::Compact,
            (true, false) => Cleanup::CompactDelete,
            (false, false) => Cleanup::Delete,
        }
    }

    /// Before it is dropped.
    pub(super) fn forget_compacts(&mut self) {
        if *self.compacts.on.get_mut() {
            self.node.wishes.topics.fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// Whether there is somebody to be compacted when this has no room.
    pub(super) fn may_compact(&self, bound: StorageBound) -> bool {
        match bound {
            StorageBound::Topic => self.compacts.on.load(Ordering::Acquire),
            StorageBound::Node | StorageBound::Disk => self.node.wishes.topics.load(Ordering::Acquire) > 0,
        }
    }

    /// Wishes for a compaction where so many bytes have no room, or none would be left behind them. Who waits hears of the first room that
    /// it makes. None where there is room, or nothing is compacted.
    pub(crate) fn wish_for_room(self: &Arc<Self>, bound: StorageBound, bytes: u64, waits: bool) -> Option<oneshot::Receiver<()>> {
        if !self.is_tight(bound, bytes, waits) || !self.may_compact(bound) {
            return None;
        }
        if !waits && self.is_wished(bound).swap(true, Ordering::AcqRel) {
            return None;
        }
        let (answer, answered) = oneshot::channel();
        // Nobody grants any more where the broker stops; the answer is dropped then.
        let _ = self.node.wishes.sender.send(Wish { topic: Arc::clone(self), bound, bytes, answer: waits.then_some(answer) });
        Some(answered)
    }

    fn is_tight(&self, bound: StorageBound, bytes: u64, waits: bool) -> bool {
        match bound {
            StorageBound::Topic | StorageBound::Node => self.level_of(bound).lack(bytes).to_be_roomy > 0,
            // How much room a full disk has is seen by trying.
            StorageBound::Disk => waits || !self.node.reserve.is_held(),
        }
    }

    fn is_wished(&self, bound: StorageBound) -> &AtomicBool {
        if bound == StorageBound::Topic { &self.compacts.is_wished } else { &self.node.wishes.is_wished }
    }
}

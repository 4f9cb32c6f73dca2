//! Room that compaction can make: who wants some, and hears when there is.
//!
//! The look, once in a while, makes a pass where half of a log is new. Where there is no room, or hardly any, less is worth a pass: it is
//! wished for at once ([`crate::compaction`] grants it), of the partitions of the topic whose quota it is about, or, for the node's quota
//! and the disk, of all topics that are compacted.
//!
//! # What is bounded
//!
//! - Nobody waits for a wish longer than a second ([`super::yielding`]): a pass over another large partition may be under way, and
//!   meanwhile there may be room by other means. Whoever still has none asks again, for all of it: for somebody who yields, then for a
//!   compaction.
//! - A partition asks once at a time, and a wish that it does not wait for any more is over. So of wishes with an answer there is one for
//!   each partition that waits, and as many, and a few, that are over and not thrown away yet.
//! - Wishes without an answer are for keeping some room free. There is one for each topic, and one for the node, until they are begun to be
//!   granted; then there may be another one, for what has filled up since.
//! - A wish is answered when there is more room, and dropped when a pass over all that it is about has made none, when nothing is
//!   compacted any more, and when nobody grants wishes any more, because the broker stops.

use super::{Space, TopicSpace};
use crate::error::StorageBound;
use millpond_protocol::message::{Cleanup, TopicConfig};
use parking_lot::Mutex;
use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};
use tokio::sync::{Notify, oneshot};

/// Of the node: how many topics are compacted, and what is wished for.
#[derive(Debug)]
pub(super) struct Wishes {
    topics: AtomicUsize,
    /// Those that nobody has taken yet. None once nobody grants them any more.
    list: Mutex<Option<Vec<Wish>>>,
    /// There are some.
    added: Notify,
    is_wished: AtomicBool,
}

/// Takes what is wished for; one for each broker. When it goes, nobody waits for a wish any more.
#[derive(Debug)]
pub(crate) struct Granting {
    space: Arc<Space>,
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
    /// Somebody does, for a while.
    waits: bool,
    /// Told once there is more room. Dropped where there is none to be had.
    answer: Option<oneshot::Sender<()>>,
}

impl Wishes {
    pub(super) fn new() -> Wishes {
        let list = Mutex::new(Some(Vec::new()));
        Wishes { topics: AtomicUsize::new(0), list, added: Notify::new(), is_wished: AtomicBool::new(false) }
    }

    /// Drops it where nobody grants any more.
    fn add(&self, wish: Wish) {
        let mut list = self.list.lock();
        let Some(list) = list.as_mut() else { return };
        if list.len() == list.capacity() {
            list.retain(|wish| !wish.is_over());
            // So that this is seldom done.
            list.reserve(list.len() + 1);
        }
        list.push(wish);
        self.added.notify_one();
    }
}

impl Granting {
    pub(crate) fn new(space: &Arc<Space>) -> Granting {
        Granting { space: Arc::clone(space) }
    }

    /// Waits until something is wished for.
    pub(crate) async fn added(&self) {
        self.space.wishes.added.notified().await;
    }

    /// Adds what is wished for to those that are being granted, of which the ones go that are over.
    pub(crate) fn take(&self, pending: &mut Vec<Wish>) {
        pending.extend(self.space.wishes.list.lock().as_mut().into_iter().flat_map(std::mem::take));
        pending.retain(|wish| !wish.is_over());
    }
}

impl Drop for Granting {
    fn drop(&mut self) {
        self.space.wishes.list.lock().take();
    }
}

impl Wish {
    /// From now on the next one is another.
    pub(crate) fn begin(&self) {
        if !self.waits {
            self.topic.is_wished(self.bound).store(false, Ordering::Release);
        }
    }

    /// Whether there is no room yet.
    pub(crate) fn is_open(&self) -> bool {
        self.topic.is_tight(self.bound, self.bytes, self.waits)
    }

    /// Whether who waited has an answer, or waits no more.
    fn is_over(&self) -> bool {
        self.waits && self.answer.as_ref().is_none_or(oneshot::Sender::is_closed)
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

#[cfg(test)]
impl Space {
    /// How many wishes nobody has taken yet.
    pub(crate) fn wished(&self) -> usize {
        self.wishes.list.lock().as_ref().map_or(0, Vec::len)
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
        self.node.wishes.add(Wish { topic: Arc::clone(self), bound, bytes, waits, answer: waits.then_some(answer) });
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

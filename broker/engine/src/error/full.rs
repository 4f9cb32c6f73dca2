//! What is said where there is no room: for a batch, and for one more version of a module.

use super::size::{About, Exact};
use millpond_protocol::message::{Cleanup, OnFull};
use std::{fmt, io};
use thiserror::Error;

/// Whether the system has no room on the disk, or none for this user.
pub(crate) fn is_no_room(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// What has no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StorageBound {
    /// The topic's quota.
    Topic,
    /// The broker's quota.
    Node,
    /// The disk.
    Disk,
}

/// A module has as many versions as it may, and each of them is needed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("the module `{module}` has {limit} versions, as many as it may, and none can go: {}", .kept.join(", "))]
pub struct VersionsFull {
    /// The module's name.
    pub module: String,
    /// So many it may have.
    pub limit: usize,
    /// The oldest, each with what it is needed for, in words.
    pub kept: Vec<String>,
}

/// How full it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shortage {
    /// What has no room.
    pub bound: StorageBound,
    /// Bytes of the batch.
    pub batch_bytes: u64,
    /// Bytes that the topic's records take, where it is about its quota, else those of all topics.
    pub used_bytes: u64,
    /// The quota in bytes, where it is about one.
    pub quota_bytes: Option<u64>,
    /// Bytes of the reserve that was given up, or could not be made, and comes first where there is room.
    pub reserve_bytes: Option<u64>,
    /// What becomes of the topic's old records.
    pub cleanup: Cleanup,
    /// What becomes of them where there is no room.
    pub on_full: OnFull,
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let free = About::down(self.quota_bytes.unwrap_or(u64::MAX).saturating_sub(self.used_bytes));
        let (quota, records) = (Exact(self.quota_bytes.unwrap_or(u64::MAX)), About::down(self.used_bytes));
        match (self.bound, self.reserve_bytes) {
            (StorageBound::Topic, _) => write!(f, "of the topic's quota of {quota}, {free} are free"),
            (StorageBound::Node, _) => write!(f, "of the broker's quota of {quota}, {free} are free"),
            (StorageBound::Disk, None) => write!(f, "the disk is full, and {records} of it are the broker's records"),
            (StorageBound::Disk, Some(reserve)) => write!(
                f,
                "the disk is full, {records} of it are the broker's records, and the reserve of {} for cleaning up comes first",
                Exact(reserve)
            ),
        }
    }
}

impl Shortage {
    /// The batch, for people: never less than it has, as what is free is never more.
    pub(super) fn batch(&self) -> About {
        About::up(self.batch_bytes)
    }

    /// What lets old records of the topic go, as far as it is not on already.
    fn letting_go(&self, topic: &str) -> String {
        match (self.cleanup.deletes(), self.on_full) {
            (false, _) => {
                format!("`millpond topic alter {topic} --cleanup compact,delete --on-full drop-oldest`, the latest of their keys too")
            }
            (true, OnFull::Reject) => format!("`millpond topic alter {topic} --on-full drop-oldest`, or `--retention`"),
            (true, OnFull::DropOldest) => format!("`millpond topic alter {topic} --retention`"),
        }
    }

    /// What a person can do about it.
    pub(super) fn hint(&self, topic: &str) -> String {
        let what = match (self.bound, self.reserve_bytes) {
            (StorageBound::Topic, _) => format!(
                "delete records (`millpond topic delete-records {topic} --partition N --before OFFSET`), let old ones go ({}), or raise its quota (`--quota`)",
                self.letting_go(topic)
            ),
            (StorageBound::Node, _) => {
                format!("delete topics or records, let old ones go ({}), or raise `storage.quota` of the broker", self.letting_go(topic))
            }
            (StorageBound::Disk, None) => format!(
                "free some space on the broker's disk: delete topics or records, or what else is on it, or let old records go by \
                 themselves ({})",
                self.letting_go(topic)
            ),
            (StorageBound::Disk, Some(_)) => "free some space on the broker's disk, more than `storage.reserve` takes: delete topics or \
                                              records, or what else is on it"
                .to_owned(),
        };
        format!("{what}; nothing was stored, and sending it again is safe: it works by itself once there is room")
    }
}

//! What is said of a batch for which there is no room.

use std::fmt;

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
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (used, quota) = (self.used_bytes, self.quota_bytes.unwrap_or(u64::MAX));
        match (self.bound, self.reserve_bytes) {
            (StorageBound::Topic, _) => write!(f, "the topic uses {used} of the {quota} bytes of its quota"),
            (StorageBound::Node, _) => write!(f, "the broker uses {used} of the {quota} bytes of its quota"),
            (StorageBound::Disk, None) => write!(f, "the disk is full, and {used} bytes of it are the broker's records"),
            (StorageBound::Disk, Some(reserve)) => write!(
                f,
                "the disk is full, {used} bytes of it are the broker's records, and the reserve of {reserve} bytes for cleaning up comes first"
            ),
        }
    }
}

impl Shortage {
    /// What a person can do about it.
    pub(super) fn hint(&self, topic: &str) -> String {
        let what = match (self.bound, self.reserve_bytes) {
            (StorageBound::Topic, _) => format!(
                "delete records (`millpond topic delete-records {topic}`), let old ones go (`millpond topic alter {topic} --on-full \
                 drop-oldest`, or `--retention`), or raise its quota (`--quota`)"
            ),
            (StorageBound::Node, _) => "delete topics or records, let old ones go (`millpond topic alter TOPIC --on-full drop-oldest`, or \
                                        `--retention`), or raise `storage.quota` of the broker"
                .to_owned(),
            (StorageBound::Disk, None) => {
                "free some space on the broker's disk: delete topics or records, or what else is on it; `millpond topic alter TOPIC \
                 --on-full drop-oldest` lets old records go by themselves"
                    .to_owned()
            }
            (StorageBound::Disk, Some(reserve)) => format!(
                "free some space on the broker's disk, more than the {reserve} bytes of `storage.reserve`: delete topics or records, or \
                 what else is on it"
            ),
        };
        format!("{what}; nothing was stored, and sending it again is safe: it works by itself once there is room")
    }
}

//! What the broker answers.

use super::topic::{AttachPoint, Durability, TopicConfig};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The answer to a request that did not fail.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Response {
    /// Done, and there is nothing to tell.
    Done,
    /// To `broker_info`.
    BrokerInfo(BrokerInfo),
    /// To `open_produce`.
    ProduceOpened(ProduceOpened),
    /// To `open_consume`.
    ConsumeOpened(ConsumeOpened),
    /// To `list_topics`, in the order of their names.
    Topics(Vec<TopicInfo>),
    /// To `create_topic` and `describe_topic`.
    Topic(TopicInfo),
    /// To `list_offset`.
    Offset(OffsetFound),
    /// To `deploy_module`.
    Module(ModuleInfo),
    /// To `list_modules`, in the order of their names.
    Modules(Vec<ModuleInfo>),
    /// To `delete_records`.
    RecordsDeleted(RecordsDeleted),
}

/// What the broker is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct BrokerInfo {
    /// Its version, as in `millpond --version`.
    pub version: String,
    /// The largest `Produce` frame that it reads, in bytes of payload, for any topic.
    pub max_batch_bytes: u32,
    /// The largest module that it takes, in bytes.
    pub max_module_bytes: u64,
}

/// The stream takes batches now.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProduceOpened {
    /// The largest batch, in bytes.
    pub max_batch_bytes: u32,
    /// What an acknowledgement will mean.
    pub durability: Durability,
    /// The topic's configuration epoch, see [`super::Ack::topic_epoch`].
    pub topic_epoch: u32,
    /// A producer id that no other producer has, for a producer without one: it numbers its batches with it (KIP-98), and then none is
    /// stored twice. None from a broker that does not look at the numbers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub producer_id: Option<i64>,
}

/// The stream will carry batches now.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ConsumeOpened {
    /// The offset that the position came to. The first batch may begin before it.
    pub start_offset: i64,
    /// The first offset that is still there.
    pub log_start: i64,
    /// One past the last offset that can be read.
    pub high_watermark: i64,
    /// One past the last offset that was written.
    pub log_end: i64,
}

/// One topic.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TopicInfo {
    /// Its name.
    pub name: String,
    /// Its settings.
    pub config: TopicConfig,
    /// Its configuration epoch, see [`super::Ack::topic_epoch`].
    pub epoch: u32,
    /// Its partitions, in order.
    pub partitions: Vec<PartitionInfo>,
    /// The modules that run on it, in the order in which they run.
    pub attachments: Vec<AttachmentStatus>,
    /// Bytes of its batches, all partitions together: what counts against the quotas.
    pub used_bytes: u64,
    /// What went since the broker started because a quota or the disk was full.
    pub dropped: Dropped,
}

/// What a topic has lost to [`OnFull::DropOldest`](super::OnFull::DropOldest) since the broker started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Dropped {
    /// Segments that were deleted, whole.
    pub segments: u64,
    /// Offsets that went with them: records, and gaps where compaction or a module has left records out.
    pub records: u64,
    /// Bytes of their batches.
    pub bytes: u64,
}

impl TopicInfo {
    /// Whether the broker places the records of this topic, by a module.
    pub fn is_placed_by_broker(&self) -> bool {
        self.attachments.iter().any(|attachment| attachment.on == AttachPoint::Partition)
    }
}

/// One partition.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PartitionInfo {
    /// Its number, from 0.
    pub partition: u32,
    /// The first offset that is still there.
    pub log_start: i64,
    /// One past the last offset that consumers can read.
    pub high_watermark: i64,
    /// One past the last offset that was written.
    pub log_end: i64,
    /// Bytes of its segments on disk, indexes included.
    pub size_bytes: u64,
    /// Why it has stopped writing, if it has.
    pub failure: Option<String>,
}

/// A module on a topic, and what it has done since the broker started.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AttachmentStatus {
    /// The module's name.
    pub module: String,
    /// The SHA-256 of the upload, in hex.
    #[serde(default)]
    pub sha256: String,
    /// Where it runs.
    pub on: AttachPoint,
    /// The settings that it was attached with. A broker that does not know this field sends none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub params: BTreeMap<String, String>,
    /// Records that were given to it.
    #[serde(default)]
    pub records_in: u64,
    /// Records that it gave back.
    #[serde(default)]
    pub records_out: u64,
    /// Records that it left out.
    #[serde(default)]
    pub records_dropped: u64,
    /// Records that came back with other bytes.
    #[serde(default)]
    pub records_changed: u64,
    /// Batches that it ran on.
    #[serde(default)]
    pub batches: u64,
    /// Batches on which it failed.
    #[serde(default)]
    pub failures: u64,
}

/// An offset for a position.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct OffsetFound {
    /// The offset.
    pub offset: i64,
    /// The timestamp of the record there, for a position in time that was found.
    pub timestamp: Option<i64>,
}

/// The oldest records of a partition are gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RecordsDeleted {
    /// The first offset that is still there; it never goes back.
    pub log_start: i64,
}

/// One module.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ModuleInfo {
    /// Its name.
    pub name: String,
    /// The SHA-256 of the upload, in hex.
    pub sha256: String,
    /// Bytes of the upload.
    pub size_bytes: u64,
    /// The world that it implements: `transform` or `partitioner`.
    pub world: String,
    /// The topics that it is attached to.
    pub attached_to: Vec<String>,
    /// What an upload has taken the place of; none where the name was free, or had the same bytes, and in listings.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replaced: Option<ReplacedModule>,
}

/// The module that had a name before.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ReplacedModule {
    /// The SHA-256 of its upload, in hex.
    pub sha256: String,
    /// The topics on which the new one runs in its place.
    pub topics: Vec<String>,
}

//! What a client asks for.

use super::{
    attachment::{AlterTransform, AttachTransform, DetachTransform},
    module::{DeleteModule, DeployModule, DescribeModule, RollbackModule},
    module_log::ReadModuleLog,
    topic::{Cleanup, Durability, Limit, OnFull, TopicConfig},
};
use serde::{Deserialize, Serialize};

/// The first frame on a stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Request {
    /// What the broker is.
    BrokerInfo,
    /// Open this stream for producing.
    OpenProduce(OpenProduce),
    /// Open this stream for consuming.
    OpenConsume(OpenConsume),
    /// Make a topic.
    CreateTopic(CreateTopic),
    /// Remove a topic and all its records.
    DeleteTopic(DeleteTopic),
    /// All topics.
    ListTopics,
    /// One topic.
    DescribeTopic(DescribeTopic),
    /// Turn a position into an offset.
    ListOffset(ListOffset),
    /// Upload a module: `Body` frames follow.
    DeployModule(DeployModule),
    /// All modules.
    ListModules,
    /// Remove a module that is attached nowhere, or one version of it.
    DeleteModule(DeleteModule),
    /// Run a module on a topic.
    AttachTransform(AttachTransform),
    /// Stop running it.
    DetachTransform(DetachTransform),
    /// Change how it runs.
    AlterTransform(AlterTransform),
    /// Change settings of a topic while it is used.
    AlterTopic(AlterTopic),
    /// Delete the oldest records of a partition.
    DeleteRecords(DeleteRecords),
    /// One module with all its versions.
    DescribeModule(DescribeModule),
    /// Make an older version of a module the current one.
    RollbackModule(RollbackModule),
    /// What a module has logged, and how it failed.
    ReadModuleLog(ReadModuleLog),
}

impl Request {
    /// Whether doing it twice is the same as doing it once, so that it may travel in QUIC's 0-RTT data and be sent again.
    pub const fn is_idempotent(&self) -> bool {
        matches!(
            self,
            Request::BrokerInfo
                | Request::OpenConsume(_)
                | Request::ListTopics
                | Request::DescribeTopic(_)
                | Request::ListOffset(_)
                | Request::ListModules
                | Request::DescribeModule(_)
                | Request::ReadModuleLog(_)
        )
    }
}

/// Opens an ordered stream of batches into a topic.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct OpenProduce {
    /// The topic's name.
    pub topic: String,
    /// The partition; none lets the broker place each record: by the topic's own partitioner, or by Kafka's default.
    pub partition: Option<u32>,
}

/// Opens a stream on which the broker pushes one partition's batches.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct OpenConsume {
    /// The topic's name.
    pub topic: String,
    /// The partition.
    pub partition: u32,
    /// Where to begin. The first batch is the whole one that holds this offset.
    pub from: Position,
    /// The records as this view has them ([`AttachPoint::Fetch`](super::AttachPoint::Fetch)): filtered or changed, at their offsets. None
    /// is as they are stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub view: Option<String>,
}

/// A place in a partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Position {
    /// The first record that is still there.
    #[default]
    Beginning,
    /// Behind the last record that consumers can see (the high watermark).
    End,
    /// This offset.
    Offset(i64),
    /// The first record whose timestamp is at or after this one, in milliseconds since 1970-01-01 UTC; the end if there is none.
    Time(i64),
}

/// Makes a topic.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CreateTopic {
    /// 1 to 249 characters from `a-z A-Z 0-9 . _ -`, as in Kafka.
    pub name: String,
    /// 1 to 10,000.
    pub partitions: u32,
    /// Its settings.
    pub config: TopicConfig,
}

/// Changes settings of a topic; what is not named stays as it is. Answered with the topic as it is then.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AlterTopic {
    /// The topic's name.
    pub name: String,
    /// As in [`TopicConfig::durability`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub durability: Option<Durability>,
    /// As in [`TopicConfig::max_batch_bytes`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_batch_bytes: Option<u32>,
    /// As in [`TopicConfig::retention_ms`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retention_ms: Option<Limit>,
    /// As in [`TopicConfig::retention_bytes`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retention_bytes: Option<Limit>,
    /// As in [`TopicConfig::cleanup`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cleanup: Option<Cleanup>,
    /// As in [`TopicConfig::delete_retention_ms`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delete_retention_ms: Option<u64>,
    /// As in [`TopicConfig::quota_bytes`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quota_bytes: Option<Limit>,
    /// As in [`TopicConfig::on_full`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_full: Option<OnFull>,
}

impl AlterTopic {
    /// Whether it changes nothing, whatever the topic.
    pub fn is_empty(&self) -> bool {
        *self == AlterTopic { name: self.name.clone(), ..AlterTopic::default() }
    }

    /// The settings of a topic after the change.
    pub fn applied_to(&self, config: &TopicConfig) -> TopicConfig {
        TopicConfig {
            durability: self.durability.unwrap_or(config.durability),
            segment_bytes: config.segment_bytes,
            max_batch_bytes: self.max_batch_bytes.unwrap_or(config.max_batch_bytes),
            retention_ms: self.retention_ms.map_or(config.retention_ms, Option::from),
            retention_bytes: self.retention_bytes.map_or(config.retention_bytes, Option::from),
            cleanup: self.cleanup.unwrap_or(config.cleanup),
            delete_retention_ms: self.delete_retention_ms.unwrap_or(config.delete_retention_ms),
            quota_bytes: self.quota_bytes.map_or(config.quota_bytes, Option::from),
            on_full: self.on_full.unwrap_or(config.on_full),
        }
    }
}

/// Deletes the oldest records of a partition (Kafka's `DeleteRecords`, KIP-107). Offsets are not used again.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeleteRecords {
    /// The topic's name.
    pub topic: String,
    /// The partition.
    pub partition: u32,
    /// The first record that stays. [`Position::End`] deletes everything that consumers can see.
    pub before: Position,
}

/// Removes a topic.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeleteTopic {
    /// The topic's name.
    pub name: String,
}

/// Asks for one topic.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DescribeTopic {
    /// The topic's name.
    pub name: String,
}

/// Turns a position into an offset.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ListOffset {
    /// The topic's name.
    pub topic: String,
    /// The partition.
    pub partition: u32,
    /// The position.
    pub at: Position,
}

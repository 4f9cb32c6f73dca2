//! What the broker answers.

use super::{
    attachment::AttachmentStatus,
    module::ModuleInfo,
    module_log::ModuleLog,
    topic::{AttachPoint, Durability, TopicConfig},
};
use serde::{Deserialize, Serialize};

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
    /// To `deploy_module`, `describe_module` and `rollback_module`.
    Module(ModuleInfo),
    /// To `list_modules`, in the order of their names.
    Modules(Vec<ModuleInfo>),
    /// To `delete_records`.
    RecordsDeleted(RecordsDeleted),
    /// To `read_module_log`.
    ModuleLog(ModuleLog),
    /// To `alter_transform`; and to `detach_transform`, as it was at its end.
    Attachment(Box<AttachmentStatus>),
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
    /// What was refused since the broker started because a quota or the disk was full.
    pub refused: Refused,
    /// How much room the broker has. In the answer to `describe_topic` alone: it is the same for all topics.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeSpace>,
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

/// Batches of a topic that were refused since the broker started, by what had no room for them. One that is sent again counts again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Refused {
    /// The topic's quota.
    pub topic: u64,
    /// The broker's quota.
    pub node: u64,
    /// The disk.
    pub disk: u64,
}

impl Refused {
    /// All of them.
    pub const fn total(&self) -> u64 {
        self.topic.saturating_add(self.node).saturating_add(self.disk)
    }
}

/// The room of a broker, for all its topics together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeSpace {
    /// Bytes of all batches: what counts against the quota.
    pub used_bytes: u64,
    /// How many there may be. None for no limit.
    pub quota_bytes: Option<u64>,
    /// Bytes of the disk that are kept free for cleaning up; 0 for none.
    pub reserve_bytes: u64,
    /// Whether they are there. As long as they are not, no batch is taken.
    pub reserve_held: bool,
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
    /// Bytes of its batches on disk, as retention and quotas count them. Indexes and small files come on top, less than a hundredth as a rule.
    pub size_bytes: u64,
    /// Why it has stopped writing, if it has, until the broker starts again.
    pub failure: Option<String>,
    /// What a person can do about that. None in a list of topics.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure_hint: Option<String>,
    /// Nothing of it can be read, either: its log could not be opened.
    pub unreadable: bool,
    /// Why the last batch was refused for want of room. None once there is room again, or one was taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refusing: Option<Refusing>,
    /// Damage in the middle of its log, as far as somebody has met it: the start of the broker, or a read. None where nobody has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub damage: Option<KnownDamage>,
    /// How far its compaction is. None where the topic is not compacted, and in a list of topics.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compaction: Option<CompactionStatus>,
}

/// Why a partition takes no batch for the moment. It takes them again by itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Refusing {
    /// What has no room: `topic` for the topic's quota, `node` for the broker's, `disk`. A newer broker may know another.
    pub bound: String,
    /// How full that is, in words. Empty in a list of topics.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// What a person can do about it. Empty in a list of topics.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub hint: String,
    /// Seconds since the last batch was refused. None if none was, and the next one would be.
    pub seconds_ago: Option<u64>,
}

/// Places in a log that hold no whole batch, with something whole behind them. Reads of them fail, and all else is served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct KnownDamage {
    /// How many there are.
    pub ranges: u64,
    /// The first offset in the first of them.
    pub first_offset: i64,
}

/// How far the compaction of a partition is, and what it has done since the broker started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CompactionStatus {
    /// Of the records before this offset, only the latest of each key are left.
    pub compacted_to: i64,
    /// Bytes of closed segments that no pass has looked at.
    pub dirty_bytes: u64,
    /// Passes that came to their end.
    pub passes: u64,
    /// Passes that did not, or could not begin.
    pub failures: u64,
    /// Bytes of batches that were read for it.
    pub bytes_read: u64,
    /// Bytes of batches that were written.
    pub bytes_written: u64,
    /// Bytes that the log has less by that.
    pub bytes_removed: u64,
    /// Seconds since the last pass came to its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds_since_pass: Option<u64>,
    /// Why the last pass failed. None once one has come to its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// With `failure`: seconds until the next pass is tried, at the earliest. None where that is when the broker starts again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_seconds: Option<u64>,
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

#[cfg(test)]
mod tests {
    use super::super::tests::{NULL, array, is_golden, map, text};
    use super::*;
    use crate::message::decode;

    /// A partition that has nothing to complain of, and its bytes.
    fn well() -> (PartitionInfo, Vec<(&'static str, Vec<u8>)>) {
        let partition =
            PartitionInfo { partition: 0, log_start: 1, high_watermark: 2, log_end: 3, size_bytes: 4, ..PartitionInfo::default() };
        let bytes = vec![
            ("partition", vec![0]),
            ("log_start", vec![1]),
            ("high_watermark", vec![2]),
            ("log_end", vec![3]),
            ("size_bytes", vec![4]),
            ("failure", vec![NULL]),
            ("unreadable", vec![0xf4]),
        ];
        (partition, bytes)
    }

    #[test]
    fn a_topic_has_golden_bytes() {
        let attachment = AttachmentStatus { failures: 6, ..AttachmentStatus::new("m", AttachPoint::Partition) };
        let (partition, partition_bytes) = well();
        let info = TopicInfo {
            name: "t".into(),
            config: TopicConfig { segment_bytes: 5, max_batch_bytes: 6, delete_retention_ms: 7, ..TopicConfig::default() },
            epoch: 7,
            partitions: vec![partition],
            attachments: vec![attachment],
            used_bytes: 8,
            dropped: Dropped { segments: 9, records: 10, bytes: 11 },
            refused: Refused { topic: 12, node: 13, disk: 14 },
            node: None,
        };
        assert!(info.is_placed_by_broker() && info.refused.total() == 39);
        let config = map(&[
            ("durability", text("sync")),
            ("segment_bytes", vec![5]),
            ("max_batch_bytes", vec![6]),
            ("cleanup", text("delete")),
            ("delete_retention_ms", vec![7]),
            ("on_full", text("reject")),
        ]);
        let attachment = map(&[
            ("module", text("m")),
            ("sha256", text("")),
            ("on", text("partition")),
            ("records_in", vec![0]),
            ("records_out", vec![0]),
            ("records_dropped", vec![0]),
            ("records_changed", vec![0]),
            ("batches", vec![0]),
            ("failures", vec![6]),
            ("records_failed", vec![0]),
        ]);
        let mut fields = vec![
            ("name", text("t")),
            ("config", config),
            ("epoch", vec![7]),
            ("partitions", array(&[map(&partition_bytes)])),
            ("attachments", array(&[attachment])),
            ("used_bytes", vec![8]),
            ("dropped", map(&[("segments", vec![9]), ("records", vec![10]), ("bytes", vec![11])])),
            ("refused", map(&[("topic", vec![12]), ("node", vec![13]), ("disk", vec![14])])),
        ];
        is_golden(&Response::Topics(vec![info.clone()]), &map(&[("topics", array(&[map(&fields)]))]));
        let node = NodeSpace { used_bytes: 1, quota_bytes: Some(2), reserve_bytes: 3, reserve_held: true };
        let node_bytes = [("used_bytes", vec![1]), ("quota_bytes", vec![2]), ("reserve_bytes", vec![3]), ("reserve_held", vec![0xf5])];
        fields.push(("node", map(&node_bytes)));
        is_golden(&Response::Topic(TopicInfo { node: Some(node), ..info }), &map(&[("topic", map(&fields))]));
    }

    #[test]
    fn what_is_wrong_with_a_partition_has_golden_bytes_and_an_older_broker_says_nothing_of_it() {
        let (partition, mut fields) = well();
        is_golden(&partition, &map(&fields));
        assert_eq!(decode::<PartitionInfo>(&map(&fields[..6])).expect("readable"), partition);
        let refusing = Refusing { bound: "disk".into(), reason: "full".into(), hint: "free some".into(), seconds_ago: Some(5) };
        let compaction = CompactionStatus {
            compacted_to: 1,
            dirty_bytes: 2,
            passes: 3,
            failures: 4,
            bytes_read: 5,
            bytes_written: 6,
            bytes_removed: 7,
            seconds_since_pass: Some(8),
            failure: Some("no".into()),
            retry_seconds: Some(9),
        };
        let compaction_bytes = [
            ("compacted_to", vec![1]),
            ("dirty_bytes", vec![2]),
            ("passes", vec![3]),
            ("failures", vec![4]),
            ("bytes_read", vec![5]),
            ("bytes_written", vec![6]),
            ("bytes_removed", vec![7]),
            ("seconds_since_pass", vec![8]),
            ("failure", text("no")),
            ("retry_seconds", vec![9]),
        ];
        is_golden(
            &CompactionStatus { seconds_since_pass: None, failure: None, retry_seconds: None, ..compaction.clone() },
            &map(&compaction_bytes[..7]),
        );
        let sick = PartitionInfo {
            failure: Some("EIO".into()),
            failure_hint: Some("look".into()),
            unreadable: true,
            refusing: Some(refusing),
            damage: Some(KnownDamage { ranges: 2, first_offset: -1 }),
            compaction: Some(compaction),
            ..partition
        };
        fields.truncate(5);
        fields.extend([
            ("failure", text("EIO")),
            ("failure_hint", text("look")),
            ("unreadable", vec![0xf5]),
            ("refusing", map(&[("bound", text("disk")), ("reason", text("full")), ("hint", text("free some")), ("seconds_ago", vec![5])])),
            ("damage", map(&[("ranges", vec![2]), ("first_offset", vec![0x20])])),
            ("compaction", map(&compaction_bytes)),
        ]);
        is_golden(&sick, &map(&fields));
    }
}

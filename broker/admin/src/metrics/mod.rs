//! What is measured. All of it is read from the engine at the moment of the scrape.
//!
//! Counters begin at 0 when the broker starts, and when a module is attached; whoever reads them expects that (`rate()`).

mod text;
mod transforms;

use crate::{response::Body, status::Status};
use millpond_engine::Usage;
use millpond_protocol::message::{CompactionStatus, PartitionInfo, TopicInfo};
use std::{
    io,
    time::{Duration, UNIX_EPOCH},
};
use text::{Kind, Page};
use tokio::io::AsyncWrite;

pub(crate) use text::CONTENT_TYPE;

/// One metric of a thing that there may be many of.
struct Family<T> {
    name: &'static str,
    kind: Kind,
    help: &'static str,
    value: Value<T>,
}

/// Where a value comes from.
enum Value<T> {
    /// There is always one.
    Of(fn(&T) -> i128),
    /// There is one for some of the things: a limit where it is set, what is done where it is asked for.
    OfSome(fn(&T) -> Option<i128>),
}

impl<T> Family<T> {
    fn value(&self, of: &T) -> Option<i128> {
        match self.value {
            Value::Of(value) => Some(value(of)),
            Value::OfSome(value) => value(of),
        }
    }
}

/// Writes all metrics, to the end of the body.
pub(crate) async fn write<W: AsyncWrite + Unpin>(status: &Status, body: Body<'_, W>) -> io::Result<()> {
    let mut page = Page::new(body);
    let phase = status.phase();
    process(&mut page, status, phase.is_ready());
    if let Some(engine) = phase.engine() {
        usage(&mut page, &engine.usage());
        // What is said of a partition in one family fits what is said in the next, for all of it was seen at once.
        let topics = phase.topics().await?;
        topic_info(&mut page, &topics).await?;
        of_topics(&mut page, &topics).await?;
        refused(&mut page, &topics).await?;
        partitions(&mut page, &topics).await?;
        transforms::write(&mut page, &topics).await?;
    }
    page.end().await
}

fn process<W: AsyncWrite + Unpin>(page: &mut Page<'_, W>, status: &Status, is_ready: bool) {
    page.family("millpond_build_info", Kind::Gauge, "What runs; always 1.");
    page.sample("millpond_build_info", &[("version", &env!("CARGO_PKG_VERSION"))], 1);
    page.family("millpond_start_time_seconds", Kind::Gauge, "When the broker was started, in seconds since 1970 by its own clock.");
    // A clock before 1970 counts as 1970.
    let started: Duration = status.started().duration_since(UNIX_EPOCH).unwrap_or_default();
    page.sample("millpond_start_time_seconds", &[], format_args!("{}.{:03}", started.as_secs(), started.subsec_millis()));
    page.family("millpond_ready", Kind::Gauge, "1 while the broker takes requests, 0 while it starts and stops.");
    page.sample("millpond_ready", &[], u8::from(is_ready));
}

fn usage<W: AsyncWrite + Unpin>(page: &mut Page<'_, W>, usage: &Usage) {
    for family in USAGE {
        page.family(family.name, family.kind, family.help);
        if let Some(value) = family.value(usage) {
            page.sample(family.name, &[], value);
        }
    }
}

async fn topic_info<W: AsyncWrite + Unpin>(page: &mut Page<'_, W>, topics: &[TopicInfo]) -> io::Result<()> {
    const NAME: &str = "millpond_topic_info";
    page.family(NAME, Kind::Gauge, "The topic's settings: when a batch is acknowledged, and what becomes of old records; always 1.");
    for topic in topics {
        page.sample(NAME, &[("topic", &topic.name), ("durability", &topic.config.durability), ("cleanup", &topic.config.cleanup)], 1);
        page.relieve().await?;
    }
    Ok(())
}

async fn of_topics<W: AsyncWrite + Unpin>(page: &mut Page<'_, W>, topics: &[TopicInfo]) -> io::Result<()> {
    for family in TOPIC {
        page.family(family.name, family.kind, family.help);
        for topic in topics {
            if let Some(value) = family.value(topic) {
                page.sample(family.name, &[("topic", &topic.name)], value);
            }
            page.relieve().await?;
        }
    }
    Ok(())
}

async fn refused<W: AsyncWrite + Unpin>(page: &mut Page<'_, W>, topics: &[TopicInfo]) -> io::Result<()> {
    const NAME: &str = "millpond_topic_refused_batches_total";
    let help = "Batches that were refused because there was no room: in the quota of the topic, in that of the node, or on the disk.";
    page.family(NAME, Kind::Counter, help);
    for topic in topics {
        for (bound, batches) in [("topic", topic.refused.topic), ("node", topic.refused.node), ("disk", topic.refused.disk)] {
            page.sample(NAME, &[("topic", &topic.name), ("bound", &bound)], batches);
        }
        page.relieve().await?;
    }
    Ok(())
}

async fn partitions<W: AsyncWrite + Unpin>(page: &mut Page<'_, W>, topics: &[TopicInfo]) -> io::Result<()> {
    for family in PARTITION {
        page.family(family.name, family.kind, family.help);
        for topic in topics {
            for partition in &topic.partitions {
                if let Some(value) = family.value(partition) {
                    page.sample(family.name, &[("topic", &topic.name), ("partition", &partition.partition)], value);
                }
                page.relieve().await?;
            }
        }
    }
    Ok(())
}

const fn gauge<T>(name: &'static str, help: &'static str, value: fn(&T) -> i128) -> Family<T> {
    Family { name, kind: Kind::Gauge, help, value: Value::Of(value) }
}

/// A gauge that not all things have.
const fn gauge_of_some<T>(name: &'static str, help: &'static str, value: fn(&T) -> Option<i128>) -> Family<T> {
    Family { name, kind: Kind::Gauge, help, value: Value::OfSome(value) }
}

const fn counter<T>(name: &'static str, help: &'static str, value: fn(&T) -> i128) -> Family<T> {
    Family { name, kind: Kind::Counter, help, value: Value::Of(value) }
}

/// A counter that not all things have.
const fn counter_of_some<T>(name: &'static str, help: &'static str, value: fn(&T) -> Option<i128>) -> Family<T> {
    Family { name, kind: Kind::Counter, help, value: Value::OfSome(value) }
}

/// A sum over the partitions of a topic that is compacted.
fn compaction(topic: &TopicInfo, value: fn(&CompactionStatus) -> u64) -> Option<i128> {
    let partitions = || topic.partitions.iter().filter_map(|partition| partition.compaction.as_ref());
    topic.config.cleanup.compacts().then(|| partitions().map(|status| i128::from(value(status))).sum())
}

/// A count of things in memory, on any machine.
fn count(count: usize) -> i128 {
    i128::try_from(count).unwrap_or(i128::MAX)
}

const USAGE: &[Family<Usage>] = &[
    gauge("millpond_inflight_bytes", "Memory taken by batches on their way to the log.", |usage| usage.inflight_bytes.into()),
    gauge(
        "millpond_inflight_limit_bytes",
        "The most that batches on their way to the log can take; producers wait for the rest.",
        |usage| usage.inflight_bytes_max.into(),
    ),
    gauge("millpond_segment_files_open", "Segment files that are open.", |usage| count(usage.segment_files)),
    gauge("millpond_segment_files_unsynced", "Open segment files with bytes that no flush has covered.", |usage| {
        count(usage.segment_files_unsynced)
    }),
    gauge("millpond_segment_files_limit", "Segment files that are kept open at most.", |usage| count(usage.segment_files_max)),
    counter(
        "millpond_module_compilations_total",
        "Modules that were compiled, and not taken from the cache of compiled ones; none at a start with a whole cache.",
        |usage| usage.module_compilations.into(),
    ),
    gauge("millpond_storage_used_bytes", "Bytes of all batches of the broker, as its quota counts them.", |usage| {
        usage.space.used_bytes.into()
    }),
    gauge_of_some("millpond_storage_quota_bytes", "The quota of the broker (`storage.quota`), where there is one.", |usage| {
        usage.space.quota_bytes.map(i128::from)
    }),
    gauge("millpond_storage_reserve_bytes", "Bytes of the disk that are kept free for cleaning up (`storage.reserve`).", |usage| {
        usage.space.reserve_bytes.into()
    }),
    gauge("millpond_storage_reserve_held", "0 while they are not: no batch is taken then, of any topic.", |usage| {
        usage.space.reserve_held.into()
    }),
];

const TOPIC: &[Family<TopicInfo>] = &[
    gauge("millpond_topic_used_bytes", "Bytes of all batches of the topic, as its quota counts them.", |topic| topic.used_bytes.into()),
    gauge_of_some("millpond_topic_quota_bytes", "The quota of the topic, where it has one.", |topic| {
        topic.config.quota_bytes.map(i128::from)
    }),
    counter("millpond_topic_dropped_segments_total", "Segments that the topic has dropped to make room.", |topic| {
        topic.dropped.segments.into()
    }),
    counter("millpond_topic_dropped_records_total", "Offsets in them.", |topic| topic.dropped.records.into()),
    counter("millpond_topic_dropped_bytes_total", "Bytes of batches in them.", |topic| topic.dropped.bytes.into()),
    counter_of_some("millpond_topic_compaction_passes_total", "Passes of compaction over a partition that came to their end.", |topic| {
        compaction(topic, |status| status.passes)
    }),
    counter_of_some(
        "millpond_topic_compaction_failures_total",
        "Passes that did not, and are tried again; `millpond topic describe` says why.",
        |topic| compaction(topic, |status| status.failures),
    ),
    counter_of_some("millpond_topic_compaction_read_bytes_total", "Bytes of batches that compaction has read.", |topic| {
        compaction(topic, |status| status.bytes_read)
    }),
    counter_of_some("millpond_topic_compaction_written_bytes_total", "Bytes of batches that compaction has written.", |topic| {
        compaction(topic, |status| status.bytes_written)
    }),
    counter_of_some("millpond_topic_compaction_removed_bytes_total", "Bytes that the topic has less by compaction.", |topic| {
        compaction(topic, |status| status.bytes_removed)
    }),
    gauge_of_some("millpond_topic_compaction_dirty_bytes", "Bytes of closed segments that no pass has compacted yet.", |topic| {
        compaction(topic, |status| status.dirty_bytes)
    }),
];

const PARTITION: &[Family<PartitionInfo>] = &[
    gauge("millpond_partition_log_start_offset", "The first offset that is still there.", |partition| partition.log_start.into()),
    gauge("millpond_partition_high_watermark", "One past the last offset that consumers can read.", |partition| {
        partition.high_watermark.into()
    }),
    gauge("millpond_partition_log_end_offset", "One past the last offset that was written.", |partition| partition.log_end.into()),
    gauge("millpond_partition_size_bytes", "Bytes of all batches in the partition.", |partition| partition.size_bytes.into()),
    gauge(
        "millpond_partition_writable",
        "0 once a write or a flush has failed, or the log could not be opened: no record is taken until the broker starts again. \
         `millpond topic describe` says why.",
        |partition| i128::from(partition.failure.is_none()),
    ),
    gauge(
        "millpond_partition_damaged_ranges",
        "Places in the middle of the log that are known to be damaged, because the start of the broker or a read has met them; reads of \
         them fail. `millpond topic describe` has the first offset.",
        |partition| partition.damage.map_or(0, |damage| damage.ranges.into()),
    ),
];

//! `millpond topic alter` and `millpond topic delete-records`: changing a topic while it is used.

use super::space::{self, SpaceArgs};
use crate::{
    config::{ByteSize, RETENTION, RETENTION_BYTES, Span, UNLIMITED},
    connection::ClientArgs,
    failure::{Failure, Outcome},
    names,
    output::{self, OutputArgs, thousands},
};
use clap::Args;
use millpond_protocol::message::{AlterTopic, Cleanup, Durability, Limit, Position, TopicInfo};
use serde::Serialize;
use std::time::Duration;

/// Arguments of `millpond topic alter`.
#[derive(Args, Debug)]
#[command(after_help = ALTER_EXAMPLES)]
pub(crate) struct AlterArgs {
    /// The topic
    #[arg(value_parser = names::parse)]
    name: String,
    /// When a batch is acknowledged from now on: sync, interval:200ms or os
    #[arg(long, value_name = "DURABILITY")]
    durability: Option<Durability>,
    /// The largest batch that the topic takes from now on, such as 4MiB; 1KiB or more, and what the broker allows
    #[arg(long, value_name = "SIZE", value_parser = super::topic::parse_batch_bytes)]
    max_batch_bytes: Option<ByteSize>,
    #[command(flatten)]
    retention: RetentionArgs,
    #[command(flatten)]
    space: SpaceArgs,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    client: ClientArgs,
}

/// What is kept of a topic's records.
#[derive(Args, Debug)]
pub(crate) struct RetentionArgs {
    /// Delete records that were appended longer ago than this, such as 12h or 7d; `unlimited` keeps them
    #[arg(long, value_name = "TIME", value_parser = parse_retention)]
    retention: Option<Limit>,
    /// Delete the oldest records of a partition as long as this is left, such as 1GiB; `unlimited` keeps them
    #[arg(long, value_name = "SIZE", value_parser = parse_retention_bytes)]
    retention_bytes: Option<Limit>,
    /// What becomes of old records: `delete` lets age and size decide, `compact` keeps the latest record of each key, `compact,delete` does both
    #[arg(long, value_name = "CLEANUP")]
    pub(crate) cleanup: Option<Cleanup>,
    /// How long a compacted topic keeps a tombstone (a key without a value) at least, such as 24h: it goes with the next pass, which new records bring
    /// about
    #[arg(long, value_name = "TIME", value_parser = parse_delete_retention)]
    delete_retention: Option<Span>,
}

/// Arguments of `millpond topic delete-records`.
#[derive(Args, Debug)]
#[command(after_help = DELETE_EXAMPLES)]
pub(crate) struct DeleteRecordsArgs {
    /// The topic
    #[arg(value_parser = names::parse)]
    name: String,
    /// The partition
    #[arg(long, short = 'p', value_name = "N")]
    partition: u32,
    /// The first offset that stays; `end` deletes every record that consumers can see
    #[arg(long, value_name = "OFFSET|end", value_parser = parse_before)]
    before: Position,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    client: ClientArgs,
}

/// What is printed of a deletion.
#[derive(Serialize)]
struct Deleted<'a> {
    topic: &'a str,
    partition: u32,
    log_start: i64,
}

impl RetentionArgs {
    /// The limit by age, in milliseconds, if one is given or lifted.
    pub(crate) fn retention_ms(&self) -> Option<Limit> {
        self.retention
    }

    /// The limit by size, in bytes, if one is given or lifted.
    pub(crate) fn retention_bytes(&self) -> Option<Limit> {
        self.retention_bytes
    }

    /// How long a tombstone is kept, in milliseconds.
    pub(crate) fn delete_retention_ms(&self) -> Option<u64> {
        self.delete_retention.map(|span| u64::try_from(span.0.as_millis()).unwrap_or(u64::MAX))
    }
}

/// Runs `millpond topic alter`.
pub(crate) async fn alter(arguments: AlterArgs) -> Outcome {
    let request = AlterTopic {
        name: arguments.name,
        durability: arguments.durability,
        max_batch_bytes: arguments.max_batch_bytes.map(|size| u32::try_from(size.0).unwrap_or(u32::MAX)),
        retention_ms: arguments.retention.retention_ms(),
        retention_bytes: arguments.retention.retention_bytes(),
        cleanup: arguments.retention.cleanup,
        delete_retention_ms: arguments.retention.delete_retention_ms(),
        quota_bytes: arguments.space.quota,
        on_full: arguments.space.on_full,
    };
    if request.is_empty() {
        return Err(Failure::usage("there is nothing to change")
            .hint("give --durability, --retention, --cleanup or another of its options; --help has all"));
    }
    let begins_to_compact = request.cleanup.is_some_and(Cleanup::compacts);
    let topic = arguments.client.with(async |client| Ok(client.admin().alter_topic(request).await?)).await?;
    if begins_to_compact && topic.partitions.iter().any(|partition| partition.log_end > partition.log_start) {
        output::note(KEYLESS_STAY);
    }
    arguments.output.one(&topic, |topic| {
        let settings: Vec<_> = settings(topic).iter().map(|(name, value)| format!("{name} {value}")).collect();
        format!("changed {}: {}\n", topic.name, settings.join(", "))
    })
}

/// Runs `millpond topic delete-records`.
pub(crate) async fn delete_records(arguments: DeleteRecordsArgs) -> Outcome {
    let DeleteRecordsArgs { name, partition, before, output, client } = arguments;
    let deleted = client.with(async |client| Ok(client.admin().delete_records(&name, partition, before).await?)).await?;
    output.one(&Deleted { topic: &name, partition, log_start: deleted.log_start }, |deleted| {
        format!("{}[{}] begins with offset {}\n", deleted.topic, deleted.partition, thousands(deleted.log_start))
    })
}

/// The settings that can be changed, in words.
pub(crate) fn settings(topic: &TopicInfo) -> Vec<(&'static str, String)> {
    let config = &topic.config;
    let unlimited = || UNLIMITED.to_owned();
    let mut settings = vec![
        ("durability", config.durability.to_string()),
        ("max batch bytes", ByteSize(u64::from(config.max_batch_bytes)).to_string()),
        ("retention", config.retention_ms.map_or_else(unlimited, |ms| Span(Duration::from_millis(ms)).to_string())),
        ("retention bytes", config.retention_bytes.map_or_else(unlimited, |bytes| ByteSize(bytes).to_string())),
        ("cleanup", config.cleanup.to_string()),
    ];
    if config.cleanup.compacts() {
        settings.push(("delete retention", Span(Duration::from_millis(config.delete_retention_ms)).to_string()));
    }
    settings.extend(space::settings(topic));
    settings
}

fn parse_delete_retention(text: &str) -> Result<Span, String> {
    text.parse::<Span>().map_err(|error| error.to_string())?.within(&RETENTION)
}

fn parse_retention(text: &str) -> Result<Limit, String> {
    if text == UNLIMITED {
        return Ok(Limit::Unlimited);
    }
    let span = text.parse::<Span>().map_err(|error| format!("{error}, or `{UNLIMITED}`"))?.within(&RETENTION)?;
    Ok(Limit::Of(span.millis()))
}

fn parse_retention_bytes(text: &str) -> Result<Limit, String> {
    if text == UNLIMITED {
        return Ok(Limit::Unlimited);
    }
    let size = text.parse::<ByteSize>().map_err(|error| format!("{error}, or `{UNLIMITED}`"))?;
    Ok(Limit::Of(size.within(&RETENTION_BYTES)?.0))
}

fn parse_before(text: &str) -> Result<Position, String> {
    match text.parse() {
        Ok(offset) if offset >= 0 => Ok(Position::Offset(offset)),
        _ if text == "end" => Ok(Position::End),
        _ => Err("write an offset, such as 4711, or `end`".to_owned()),
    }
}

/// Whether there are such records, nobody knows without reading all of them.
const KEYLESS_STAY: &str = "Records without a key that are stored already stay: compaction removes none of them. From now on a batch with \
                            such a record is refused.";

const ALTER_EXAMPLES: &str = "\
What is not named stays as it is. Records are deleted in whole segments, in the background, by the time at which they were appended.

Examples:
  millpond topic alter readings --retention 7d --retention-bytes 1GiB
  millpond topic alter settings --cleanup compact --delete-retention 48h
  millpond topic alter readings --durability interval:200ms --retention unlimited
  millpond topic alter readings --quota 10GiB --on-full drop-oldest";

const DELETE_EXAMPLES: &str = "\
Offsets are not used again, and there is no way back.

Examples:
  millpond topic delete-records readings --partition 0 --before 4711
  millpond topic delete-records readings --partition 0 --before end";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_retention_is_a_time_or_a_size_within_bounds_or_unlimited() {
        assert_eq!(parse_retention("7d"), Ok(Limit::Of(604_800_000)));
        assert_eq!(parse_retention("unlimited"), Ok(Limit::Unlimited));
        assert_eq!(parse_retention_bytes("1GiB"), Ok(Limit::Of(1 << 30)));
        assert_eq!(parse_retention_bytes("unlimited"), Ok(Limit::Unlimited));
        for wrong in ["", "7", "-1", "1ms", "200000d", "99999999999999999999d"] {
            assert!(parse_retention(wrong).is_err(), "{wrong}");
        }
        for wrong in ["", "1KiB", "-1", "2000000TiB"] {
            assert!(parse_retention_bytes(wrong).is_err(), "{wrong}");
        }
        assert_eq!(parse_delete_retention("24h").map(|span| span.0), Ok(Duration::from_hours(24)));
        for wrong in ["", "24", "unlimited", "1ms", "200000d"] {
            assert!(parse_delete_retention(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_stays_begins_with_an_offset_or_is_nothing() {
        assert_eq!(parse_before("0"), Ok(Position::Offset(0)));
        assert_eq!(parse_before("end"), Ok(Position::End));
        for wrong in ["", "-1", "beginning", "1.5", "99999999999999999999"] {
            assert!(parse_before(wrong).is_err(), "{wrong}");
        }
    }
}

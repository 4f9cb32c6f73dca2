//! `millpond topic`: create, list, describe and delete. What changes a topic in use is in [`super::alter`].

use super::{
    alter::{self, AlterArgs, DeleteRecordsArgs, RetentionArgs},
    attachments,
    shared::{self, ListArgs},
    space::{self, SpaceArgs},
    state,
};
use crate::{
    config::{self, ByteSize, ConfigFileArgs, Limited, Span},
    connection::ClientArgs,
    failure::{Failure, Outcome},
    names,
    output::{self, OutputArgs, Row, counted, human_bytes, pairs, short_sha256, table, thousands},
};
use clap::{Args, Subcommand};
use millpond::Client;
use millpond_protocol::{
    error::ErrorCode,
    message::{AttachmentStatus, CreateTopic, Durability, OnFull, PartitionInfo, TopicConfig, TopicInfo},
};
use serde::Serialize;
use std::{
    io::{self, BufRead, IsTerminal},
    ops::RangeInclusive,
};

/// Create, list, describe, change and delete topics
#[derive(Debug, Subcommand)]
pub(crate) enum TopicCommand {
    /// Create a topic
    Create(CreateArgs),
    /// List all topics
    List(ListArgs),
    /// Show a topic's settings, partitions and modules
    Describe(DescribeArgs),
    /// Change a topic's settings while it is used
    Alter(AlterArgs),
    /// Delete the oldest records of a partition
    DeleteRecords(DeleteRecordsArgs),
    /// Delete a topic and all its records
    Delete(DeleteArgs),
}

/// Arguments of `millpond topic create`.
#[derive(Args, Debug)]
#[command(after_help = CREATE_EXAMPLES)]
pub(crate) struct CreateArgs {
    /// Name: 1 to 249 characters from a-z A-Z 0-9 . _ -
    #[arg(value_parser = names::parse)]
    name: String,
    /// How many partitions, up to 10,000
    #[arg(long, short = 'p', value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(PARTITIONS))]
    partitions: u32,
    /// When a batch is acknowledged: sync, interval:200ms or os
    #[arg(long, value_name = "DURABILITY")]
    durability: Option<Durability>,
    /// A segment file is closed before it grows over this size, such as 256MiB; 64KiB or more. A larger batch has one for itself
    #[arg(long, value_name = "SIZE", value_parser = parse_segment_bytes)]
    segment_bytes: Option<ByteSize>,
    /// The largest batch that the topic takes, such as 4MiB; 1KiB or more, and what the broker allows
    #[arg(long, value_name = "SIZE", value_parser = parse_batch_bytes)]
    max_batch_bytes: Option<ByteSize>,
    #[command(flatten)]
    retention: RetentionArgs,
    #[command(flatten)]
    space: SpaceArgs,
    /// Succeed if a topic with this name is there already, and leave it as it is
    #[arg(long)]
    if_not_exists: bool,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    client: ClientArgs,
    #[command(flatten)]
    config: ConfigFileArgs,
}

/// Arguments of `millpond topic describe`.
#[derive(Args, Debug)]
pub(crate) struct DescribeArgs {
    /// The topic
    #[arg(value_parser = names::parse)]
    name: String,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    client: ClientArgs,
}

/// Arguments of `millpond topic delete`.
#[derive(Args, Debug)]
pub(crate) struct DeleteArgs {
    /// The topic
    #[arg(value_parser = names::parse)]
    name: String,
    /// Do not ask; without a terminal nobody is asked anyway
    #[arg(long, short = 'y')]
    yes: bool,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    client: ClientArgs,
}

/// Runs `millpond topic`.
pub(crate) async fn run(command: TopicCommand) -> Outcome {
    match command {
        TopicCommand::Create(arguments) => create(arguments).await,
        TopicCommand::List(arguments) => shared::list(&arguments, async |client| Ok(client.admin().topics().await?), NONE_YET).await,
        TopicCommand::Describe(arguments) => describe(arguments).await,
        TopicCommand::Alter(arguments) => alter::alter(arguments).await,
        TopicCommand::DeleteRecords(arguments) => alter::delete_records(arguments).await,
        TopicCommand::Delete(arguments) => delete(arguments).await,
    }
}

async fn create(arguments: CreateArgs) -> Outcome {
    let config = arguments.topic_config()?;
    let request = CreateTopic { name: arguments.name.clone(), partitions: arguments.partitions, config };
    let create = async |client: &Client| match client.admin().create_topic(request).await {
        Ok(topic) => Ok((topic, "created")),
        Err(error) if !is(&error, ErrorCode::TopicExists) => Err(error.into()),
        Err(_) if arguments.if_not_exists => Ok((client.admin().topic(&arguments.name).await?, "left as it was:")),
        Err(error) => Err(Failure::from(error).hint("--if-not-exists leaves it as it is and succeeds")),
    };
    let (topic, done) = arguments.client.with(create).await?;
    arguments.output.one(&topic, |topic| {
        let partitions = counted(topic.partitions.len() as u64, "partition");
        format!("{done} {}: {partitions}, durability {}\n", topic.name, topic.config.durability)
    })
}

impl CreateArgs {
    /// What the flags say, and for the rest the `[topic]` section of the configuration.
    fn topic_config(&self) -> Outcome<TopicConfig> {
        let defaults = self.config.load()?.config.topic;
        let max_batch_bytes = self.max_batch_bytes.unwrap_or(defaults.max_batch_bytes);
        let cleanup = self.retention.cleanup.unwrap_or(defaults.cleanup);
        // Limits for topics in general say nothing of one that keeps the latest of each key. A limit for this one the broker refuses.
        let retention_ms = defaults.retention.value().filter(|_| cleanup.deletes()).map(Span::millis);
        let retention_bytes = bytes_of(defaults.retention_bytes).filter(|_| cleanup.deletes());
        // Nor does what topics in general do on a full disk: it has no oldest records to drop.
        let on_full = if cleanup.deletes() { defaults.on_full } else { OnFull::Reject };
        Ok(TopicConfig {
            durability: self.durability.unwrap_or(defaults.durability),
            segment_bytes: self.segment_bytes.unwrap_or(defaults.segment_bytes).0,
            max_batch_bytes: u32::try_from(max_batch_bytes.0)
                .unwrap_or_else(|_| unreachable!("{max_batch_bytes} was held against its range")),
            retention_ms: self.retention.retention_ms().map_or(retention_ms, Option::from),
            retention_bytes: self.retention.retention_bytes().map_or(retention_bytes, Option::from),
            quota_bytes: self.space.quota.map_or(bytes_of(defaults.quota), Option::from),
            on_full: self.space.on_full.unwrap_or(on_full),
            cleanup,
            delete_retention_ms: self.retention.delete_retention_ms().unwrap_or(defaults.delete_retention.millis()),
        })
    }
}

async fn describe(arguments: DescribeArgs) -> Outcome {
    let topic = arguments.client.with(async |client| Ok(client.admin().topic(&arguments.name).await?)).await?;
    arguments.output.one(&topic, describe_words)
}

async fn delete(arguments: DeleteArgs) -> Outcome {
    let delete = async |client: &Client| {
        if !arguments.yes && io::stdin().is_terminal() && io::stderr().is_terminal() {
            confirm(client, &arguments.name).await?;
        }
        Ok(client.admin().delete_topic(&arguments.name).await?)
    };
    arguments.client.with(delete).await?;
    shared::print_deleted(arguments.output, arguments.name)
}

async fn confirm(client: &Client, name: &str) -> Outcome {
    let topic = client.admin().topic(name).await?;
    let partitions = counted(topic.partitions.len() as u64, "partition");
    output::ask(format!("Delete {name} with {} in {partitions}? [y/N] ", human_bytes(size_bytes(&topic))));
    let mut answer = String::new();
    let read = io::stdin().lock().read_line(&mut answer);
    read.map_err(|error| Failure::new("can't read the answer").because(&error))?;
    if ["y", "yes"].contains(&answer.trim().to_ascii_lowercase().as_str()) {
        return Ok(());
    }
    Err(Failure::new(format!("{name} was not deleted")).hint("answer `y`, or give --yes"))
}

/// Whether the broker refused with this code.
pub(crate) fn is(error: &millpond::Error, code: ErrorCode) -> bool {
    error.broker().is_some_and(|error| error.code == code)
}

fn bytes_of(limit: Limited<ByteSize>) -> Option<u64> {
    limit.value().map(|size| size.0)
}

fn size_bytes(topic: &TopicInfo) -> u64 {
    topic.partitions.iter().map(|partition| partition.size_bytes).sum()
}

fn modules(topic: &TopicInfo) -> String {
    let words = |module: &AttachmentStatus| match attachments::trouble(module) {
        Some(trouble) => format!("{} ({}: {trouble})", module.module, module.on),
        None => format!("{} ({})", module.module, module.on),
    };
    let names: Vec<_> = topic.attachments.iter().map(words).collect();
    if names.is_empty() { "-".to_owned() } else { names.join(", ") }
}

impl Row for TopicInfo {
    const HEADINGS: &'static [&'static str] = &["NAME", ">PARTITIONS", ">SIZE", "DURABILITY", "STATE", "MODULES"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.name.clone(),
            thousands(self.partitions.len() as u64),
            human_bytes(size_bytes(self)),
            self.config.durability.to_string(),
            state::of_topic(self),
            modules(self),
        ]
    }
}

#[derive(Serialize)]
struct PartitionRow<'a>(&'a PartitionInfo);

impl Row for PartitionRow<'_> {
    const HEADINGS: &'static [&'static str] = &[">PARTITION", ">LOG START", ">HIGH WATERMARK", ">LOG END", ">SIZE", "STATE"];

    fn cells(&self) -> Vec<String> {
        let partition = self.0;
        vec![
            partition.partition.to_string(),
            thousands(partition.log_start),
            thousands(partition.high_watermark),
            thousands(partition.log_end),
            human_bytes(partition.size_bytes),
            state::word(partition),
        ]
    }
}

#[derive(Serialize)]
struct ModuleRow<'a>(&'a AttachmentStatus);

impl Row for ModuleRow<'_> {
    const HEADINGS: &'static [&'static str] =
        &["MODULE", "ON", ">BATCHES", ">FAILURES", ">RECORDS IN", ">OUT", ">DROPPED", ">CHANGED", ">FAILED", "SHA-256"];

    fn cells(&self) -> Vec<String> {
        let module = self.0;
        vec![
            module.version.map_or_else(|| module.module.clone(), |version| format!("{}@{version}", module.module)),
            module.view.as_ref().map_or_else(|| module.on.to_string(), |view| format!("{}: {view}", module.on)),
            thousands(module.batches),
            thousands(module.failures),
            thousands(module.records_in),
            thousands(module.records_out),
            thousands(module.records_dropped),
            thousands(module.records_changed),
            thousands(module.records_failed),
            short_sha256(&module.sha256),
        ]
    }
}

fn describe_words(topic: &TopicInfo) -> String {
    let mut lines = vec![("topic", topic.name.clone()), ("segment bytes", ByteSize(topic.config.segment_bytes).to_string())];
    lines.extend(alter::settings(topic));
    lines.extend(space::usage(topic));
    lines.extend(state::compaction(topic));
    let mut words = pairs(&lines);
    words.push('\n');
    words.push_str(&table(&topic.partitions.iter().map(PartitionRow).collect::<Vec<_>>()));
    words.push_str(&state::notes(topic));
    if !topic.attachments.is_empty() {
        words.push('\n');
        words.push_str(&table(&topic.attachments.iter().map(ModuleRow).collect::<Vec<_>>()));
        words.push_str(&attachments::notes(&topic.attachments));
    }
    words
}

fn parse_segment_bytes(text: &str) -> Result<ByteSize, String> {
    parse_size(text, &config::SEGMENT_BYTES)
}

pub(crate) fn parse_batch_bytes(text: &str) -> Result<ByteSize, String> {
    parse_size(text, &config::BATCH_BYTES)
}

fn parse_size(text: &str, range: &RangeInclusive<u64>) -> Result<ByteSize, String> {
    text.parse::<ByteSize>().map_err(|error| error.to_string())?.within(range)
}

/// As the broker has it.
const PARTITIONS: RangeInclusive<i64> = 1..=10_000;

const NONE_YET: &str = "There are no topics yet: `millpond topic create NAME` makes one.";

const CREATE_EXAMPLES: &str = "\
A setting without a flag is taken from the [topic] section of the configuration, see `millpond config show`.

Examples:
  millpond topic create readings --partitions 3 --retention 7d --retention-bytes 1GiB
  millpond topic create camera --quota 20GiB --on-full drop-oldest
  millpond topic create settings --cleanup compact
  millpond topic create debug --durability os --segment-bytes 16MiB --if-not-exists";

#[cfg(test)]
mod tests {
    use super::*;
    use millpond_protocol::message::AttachPoint;

    fn topic() -> TopicInfo {
        let partition = |partition, end| PartitionInfo {
            partition,
            log_start: 0,
            high_watermark: end,
            log_end: end + 1,
            size_bytes: 588_895,
            failure: (partition == 1).then(|| "can't flush 0.log: Input/output error".to_owned()),
            failure_hint: (partition == 1).then(|| "check the disk".to_owned()),
            ..PartitionInfo::default()
        };
        let module = AttachmentStatus {
            version: Some(2),
            sha256: "0123456789abcdef0123".to_owned(),
            records_in: 1_200,
            records_out: 999,
            records_dropped: 200,
            records_changed: 10,
            batches: 3,
            failures: 1,
            records_failed: 1,
            ..AttachmentStatus::new("drop-idle", AttachPoint::Produce)
        };
        let partitions = vec![partition(0, 33_334), partition(1, 7)];
        TopicInfo { name: "readings".to_owned(), partitions, attachments: vec![module], used_bytes: 1_177_790, ..TopicInfo::default() }
    }

    #[test]
    fn a_list_of_topics_reads_as_a_table() {
        assert_eq!(
            table(&[topic(), TopicInfo { name: "empty".to_owned(), ..TopicInfo::default() }]),
            "NAME      PARTITIONS     SIZE  DURABILITY  STATE                                  MODULES\n\
             readings           2  1.1 MiB  sync        1 of 2: read-only: writing has failed  drop-idle (produce)\n\
             empty              0      0 B  sync        ok                                     -\n"
        );
    }

    #[test]
    fn a_topic_is_described_with_its_partitions_and_modules() {
        assert_eq!(
            describe_words(&topic()),
            "topic            readings\n\
             segment bytes    256MiB\n\
             durability       sync\n\
             max batch bytes  4MiB\n\
             retention        unlimited\n\
             retention bytes  unlimited\n\
             cleanup          delete\n\
             quota            unlimited\n\
             on full          reject\n\
             used             1.1 MiB\n\
             dropped          nothing since the broker started\n\
             refused          nothing since the broker started\n\
             \n\
             PARTITION  LOG START  HIGH WATERMARK  LOG END       SIZE  STATE\n\
             \x20       0          0          33,334   33,335  575.1 KiB  ok\n\
             \x20       1          0               7        8  575.1 KiB  read-only: writing has failed\n\
             \n\
             partition 1: nothing more is written, and reads go on: can't flush 0.log: Input/output error\n\
             \x20 hint: check the disk\n\
             \n\
             MODULE       ON       BATCHES  FAILURES  RECORDS IN  OUT  DROPPED  CHANGED  FAILED  SHA-256\n\
             drop-idle@2  produce        3         1       1,200  999      200       10       1  0123456789ab\n\
             \ndrop-idle: on error reject\n"
        );
    }
}

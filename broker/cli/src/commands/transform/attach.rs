//! Modules on topics.

use super::super::consume::parse_start;
use crate::{
    config::{ByteSize, Span},
    connection::ClientArgs,
    failure::{Failure, Outcome},
    names,
    output::OutputArgs,
};
use clap::{ArgGroup, Args, ValueEnum};
use millpond::Client;
use millpond_plugin::Limits;
use millpond_protocol::message::{
    AttachLimits, AttachPoint, AttachTransform, AttachmentStatus, DeriveInto, DerivedPartition, DetachTransform, ModuleRef, OnError,
    Position,
};
use serde::Serialize;
use std::{collections::BTreeMap, fmt::Write as _};

/// Arguments of `millpond transform attach`.
#[derive(Args, Debug)]
#[command(after_help = ATTACH_EXAMPLES, group = ArgGroup::new("where").args(["on", "into"]).required(true).multiple(true))]
pub(crate) struct AttachArgs {
    /// The topic
    #[arg(value_parser = names::parse)]
    topic: String,
    /// The module, which stays the current version; or one version that it stays: NAME@3 or NAME@sha256:HEX
    #[arg(value_name = "MODULE", value_parser = names::parse_module)]
    module: ModuleRef,
    /// Where it runs: produce (before the append), partition (in place of the default partitioner) or fetch (for consumers that ask for the
    /// view that it makes); with --into it runs on its own
    #[arg(long, value_name = "PLACE", value_enum, hide_possible_values = true)]
    on: Option<Point>,
    /// On fetch: what the view is called; several modules of one name form a chain
    #[arg(long, value_name = "VIEW", value_parser = names::parse)]
    name: Option<String>,
    /// What the module is told when it starts; may be repeated
    #[arg(long = "param", value_name = "KEY=VALUE", value_parser = parse_param)]
    params: Vec<(String, String)>,
    /// What becomes of records on which the module fails: reject (the producer gets the error, and nothing of the batch is stored), skip (they
    /// are left out) or dead-letter:TOPIC (they go there, with the error in their headers). With --into it is stop (it waits before them until
    /// another version runs), skip or dead-letter:TOPIC [default: reject; with --into: stop]
    #[arg(long, value_name = "WHAT")]
    on_error: Option<OnError>,
    #[command(flatten)]
    derive: DeriveArgs,
    #[command(flatten)]
    limits: LimitArgs,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    client: ClientArgs,
}

/// A topic that is derived from another.
#[derive(Args, Debug)]
#[command(next_help_heading = "Derived topics")]
struct DeriveArgs {
    /// The topics that the module writes to, by the keys of its records; each record of TOPIC has its effect there exactly once
    #[arg(long, value_name = "TOPIC[,TOPIC...]", value_delimiter = ',', value_parser = names::parse, conflicts_with = "name")]
    into: Vec<String>,
    /// Where in each partition of TOPIC it begins: beginning, end, offset:N, offset:P=N,P=N... (by partition; the others at the beginning),
    /// time:2026-01-01T00:00:00Z or time:MILLISECONDS [default: beginning]
    #[arg(long, value_name = "PLACE", value_parser = parse_from, requires = "into")]
    from: Option<Begin>,
    /// What the module may keep from batch to batch for each partition of TOPIC, such as 1MiB; 16MiB at most [default: nothing]
    #[arg(long, value_name = "SIZE", requires = "into")]
    state_bytes: Option<ByteSize>,
    /// How often it is tried again on a batch for which it had no time or no room, or on which it trapped [default: 3]
    #[arg(long, value_name = "N", requires = "into")]
    retries: Option<u32>,
}

impl DeriveArgs {
    fn into_request(self) -> Option<DeriveInto> {
        let DeriveArgs { into, from, state_bytes, retries } = self;
        let state_bytes = state_bytes.map_or(0, |size| size.0);
        let Begin { start, offsets } = from.unwrap_or_default();
        (!into.is_empty()).then_some(DeriveInto { targets: into, start, offsets, state_bytes, retries })
    }
}

/// Where a derived topic begins in its source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Begin {
    start: Position,
    /// By partition, in place of that.
    offsets: BTreeMap<u32, i64>,
}

fn parse_from(text: &str) -> Result<Begin, String> {
    let Some(places) = text.strip_prefix("offset:").filter(|places| places.contains('=')) else {
        return Ok(Begin { start: parse_start(text)?, offsets: BTreeMap::new() });
    };
    let mut offsets = BTreeMap::new();
    for place in places.split(',') {
        let parsed = place.split_once('=').and_then(|(partition, offset)| Some((partition.parse().ok()?, offset.parse().ok()?)));
        let Some((partition, offset)) = parsed.filter(|(_, offset)| *offset >= 0) else {
            return Err(format!("`{place}` is not a partition and an offset, such as 0=17"));
        };
        if offsets.insert(partition, offset).is_some() {
            return Err(format!("partition {partition} is named twice"));
        }
    }
    Ok(Begin { start: Position::Beginning, offsets })
}

/// As [`parse_from`] reads it.
fn words_of(offsets: &BTreeMap<u32, i64>) -> String {
    let places: Vec<_> = offsets.iter().map(|(partition, offset)| format!("{partition}={offset}")).collect();
    format!("offset:{}", places.join(","))
}

/// What the module may use. Without a flag it is what the broker says under [plugin].
#[derive(Args, Debug)]
#[command(next_help_heading = "Limits")]
pub(super) struct LimitArgs {
    /// The memory of one instance, such as 32MiB
    #[arg(long, value_name = "SIZE")]
    memory: Option<ByteSize>,
    /// The processor time for one batch, such as 50ms
    #[arg(long, value_name = "TIME")]
    time: Option<Span>,
    /// What it may return for one batch, such as 4MiB
    #[arg(long = "max-output", value_name = "SIZE")]
    max_output: Option<ByteSize>,
    /// What it may log each second in the long run, such as 8KiB
    #[arg(long, value_name = "SIZE")]
    log_rate: Option<ByteSize>,
}

impl LimitArgs {
    /// The same for a module that runs in this process; without a flag it is what a broker has without a configuration.
    pub(super) fn plugin_limits(&self) -> Limits {
        let default = Limits::default();
        Limits {
            memory_bytes: self.memory.map_or(default.memory_bytes, ByteSize::bytes),
            time: self.time.map_or(default.time, |time| time.0),
            output_bytes: self.max_output.map_or(default.output_bytes, ByteSize::bytes),
            log_bytes_per_second: self.log_rate.map_or(default.log_bytes_per_second, |size| size.0),
            ..default
        }
    }

    pub(super) fn limits(&self) -> AttachLimits {
        AttachLimits {
            memory_bytes: self.memory.map(|size| size.0),
            // Less than one is none, which the broker refuses.
            time_ms: self.time.map(|time| u64::try_from(time.0.as_millis()).unwrap_or(u64::MAX)),
            output_bytes: self.max_output.map(|size| size.0),
            log_bytes_per_second: self.log_rate.map(|size| size.0),
        }
    }
}

/// Arguments of `millpond transform detach`.
#[derive(Args, Debug)]
pub(crate) struct DetachArgs {
    /// The topic
    #[arg(value_parser = names::parse)]
    topic: String,
    /// The module, whichever version of it runs there
    #[arg(value_parser = names::parse_module_name)]
    module: String,
    /// Where it runs: produce, partition, fetch or derive; needed only if it is attached in several places
    #[arg(long, value_name = "PLACE", value_enum, hide_possible_values = true)]
    on: Option<Point>,
    /// On fetch: which view; needed only if it makes several
    #[arg(long, value_name = "VIEW", value_parser = names::parse)]
    name: Option<String>,
    /// Derived topics: lose what the module has made and its targets can't take at this moment
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    client: ClientArgs,
}

/// What came of attaching or detaching a module.
#[derive(Debug, Serialize)]
struct Attachment {
    topic: String,
    module: String,
    on: AttachPoint,
    #[serde(skip_serializing_if = "Option::is_none")]
    view: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    into: Vec<String>,
    attached: bool,
    /// The next offset of each partition of the source, where it derived topics.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    positions: BTreeMap<u32, i64>,
    #[serde(skip)]
    had_state: bool,
}

impl Attachment {
    fn words(&self, done: &str) -> String {
        let Attachment { topic, module, on, .. } = self;
        let view = self.view.as_ref().map(|view| format!(" as the view {view}")).unwrap_or_default();
        let on = if self.into.is_empty() || !self.attached { format!("on {on}") } else { format!("into {}", self.into.join(", ")) };
        let mut words = format!("{done} {topic}, {on}{view}\n").replacen("{}", module, 1);
        if !self.positions.is_empty() {
            let (state, from) = (if self.had_state { "its state is gone; " } else { "" }, words_of(&self.positions));
            // Writing to a string can't fail.
            let _ = writeln!(words, "{state}to go on where it was, attach it again with `--from {from}`");
        }
        words
    }
}

/// Where a module can run.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Point {
    /// Before the append: the module keeps, changes or drops records
    Produce,
    /// In place of the default partitioner: the module says where records go
    Partition,
    /// After the read: the module makes a view that consumers ask for
    Fetch,
    /// On its own: the module writes to other topics
    Derive,
}

impl From<Point> for AttachPoint {
    fn from(point: Point) -> AttachPoint {
        match point {
            Point::Produce => AttachPoint::Produce,
            Point::Partition => AttachPoint::Partition,
            Point::Fetch => AttachPoint::Fetch,
            Point::Derive => AttachPoint::Derive,
        }
    }
}

/// Runs `millpond transform attach`.
pub(super) async fn attach(arguments: AttachArgs) -> Outcome {
    let AttachArgs { topic, module, on, name, params, on_error, derive, limits, output, client } = arguments;
    let derive = derive.into_request();
    let on = on.map_or(AttachPoint::Derive, AttachPoint::from);
    if let (Some(_), AttachPoint::Produce | AttachPoint::Partition | AttachPoint::Fetch) = (&derive, on) {
        return Err(Failure::usage("--into makes topics on its own, and is no part of another place").hint("leave out --on"));
    }
    let on_error = on_error.unwrap_or(if on == AttachPoint::Derive { OnError::Stop } else { OnError::Reject });
    let into = derive.as_ref().map_or_else(Vec::new, |derive| derive.targets.clone());
    let params = unique(params)?;
    let attach = AttachTransform::new(topic.clone(), module.clone(), on);
    let request = AttachTransform { view: name.clone(), params, limits: limits.limits(), on_error, derive, ..attach };
    client.with(async |client| Ok(client.admin().attach(request).await?)).await?;
    let attached = Attachment {
        topic,
        module: module.to_string(),
        on,
        view: name,
        into,
        attached: true,
        positions: BTreeMap::new(),
        had_state: false,
    };
    output.one(&attached, |now| now.words("attached {} to"))
}

/// Runs `millpond transform detach`.
pub(super) async fn detach(arguments: DetachArgs) -> Outcome {
    let DetachArgs { topic, module, on, name, force, output, client } = arguments;
    let detach = async |client: &Client| {
        let (on, view) = attached_on(client, &topic, &module, on.map(AttachPoint::from), name.as_deref()).await?;
        let request = DetachTransform { view: view.clone(), force, ..DetachTransform::new(&topic, &module, on) };
        Ok((on, view, client.admin().detach(request).await?))
    };
    let (on, view, last) = client.with(detach).await?;
    let derived = last.and_then(|last| last.derived).unwrap_or_default();
    // What was made and did not come to its targets is not made again.
    let next = |one: &DerivedPartition| one.undelivered.map_or(one.position, |undelivered| undelivered.committed);
    let next = derived.partitions.iter().map(|one| (one.partition, next(one)));
    let positions = next.filter(|(_, position)| *position != DerivedPartition::UNKNOWN).collect();
    let had_state = derived.state_bytes_max > 0;
    let detached = Attachment { topic, module, on, view, into: derived.targets, attached: false, positions, had_state };
    output.one(&detached, |now| now.words("detached {} from"))
}

/// Each parameter once.
pub(super) fn unique(params: Vec<(String, String)>) -> Outcome<BTreeMap<String, String>> {
    let mut unique = BTreeMap::new();
    for (key, value) in params {
        if let Some(earlier) = unique.insert(key.clone(), value) {
            return Err(Failure::usage(format!("the parameter `{key}` is given twice (first as `{earlier}`)")));
        }
    }
    Ok(unique)
}

/// Where a module is attached, of the places that may be meant.
pub(super) async fn attached_on(
    client: &Client,
    topic: &str,
    module: &str,
    on: Option<AttachPoint>,
    view: Option<&str>,
) -> Outcome<(AttachPoint, Option<String>)> {
    let attachments = client.admin().topic(topic).await?.attachments;
    let is_meant = |attachment: &&AttachmentStatus| {
        attachment.module == module && on.is_none_or(|on| on == attachment.on) && (view.is_none() || view == attachment.view.as_deref())
    };
    let places: Vec<_> = attachments.iter().filter(is_meant).map(|attachment| (attachment.on, attachment.view.clone())).collect();
    match &places[..] {
        [place] => Ok(place.clone()),
        [] => Err(Failure::new(format!("no module `{module}` is attached to {topic}"))
            .hint(format!("`millpond topic describe {topic}` shows what is attached"))),
        _ => Err(Failure::new(format!("{module} is attached to {topic} in several places"))
            .hint("say which one with --on, and --name for a view")),
    }
}

pub(super) fn parse_param(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write KEY=VALUE".to_owned()),
    }
}

const ATTACH_EXAMPLES: &str = "\
Examples:
  millpond transform attach readings drop-idle --on produce
  millpond transform attach readings drop-idle@2 --on produce
  millpond transform attach readings drop-idle --on produce --on-error dead-letter:failed --time 20ms
  millpond transform attach readings drop-idle --on fetch --name busy-only
  millpond transform attach readings by-device --on partition --param field=device
  millpond transform attach readings changes --into changed --state-bytes 1MiB --param deadband=0.5
  millpond transform attach events route --into alarms,readings --from end --on-error dead-letter:failed";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_one_for_all_partitions_or_one_for_each() {
        let at = |start| Ok(Begin { start, offsets: BTreeMap::new() });
        assert_eq!(parse_from("end"), at(Position::End));
        assert_eq!(parse_from("offset:7"), at(Position::Offset(7)));
        let offsets = BTreeMap::from([(0, 17), (12, 0)]);
        assert_eq!(words_of(&offsets), "offset:0=17,12=0");
        assert_eq!(parse_from(&words_of(&offsets)), Ok(Begin { start: Position::Beginning, offsets }));
        for wrong in ["offset:0=", "offset:=1", "offset:0=1,", "offset:0=-1", "offset:-1=0", "offset:0=1,0=2", "offset:0=1,2", "0=1"] {
            parse_from(wrong).expect_err(wrong);
        }
    }
}

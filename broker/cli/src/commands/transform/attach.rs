//! Modules on topics.

use crate::{
    config::{ByteSize, Span},
    connection::ClientArgs,
    failure::{Failure, Outcome},
    names,
    output::OutputArgs,
};
use clap::{Args, ValueEnum};
use millpond::Client;
use millpond_protocol::message::{AttachLimits, AttachPoint, AttachTransform, DetachTransform, ModuleRef, OnError};
use serde::Serialize;
use std::collections::BTreeMap;

/// Arguments of `millpond transform attach`.
#[derive(Args, Debug)]
#[command(after_help = ATTACH_EXAMPLES)]
pub(crate) struct AttachArgs {
    /// The topic
    #[arg(value_parser = names::parse)]
    topic: String,
    /// The module, which stays the current version; or one version that it stays: NAME@3 or NAME@sha256:HEX
    #[arg(value_name = "MODULE", value_parser = names::parse_module)]
    module: ModuleRef,
    /// Where it runs: produce (before the append) or partition (in place of the default partitioner)
    #[arg(long, value_name = "PLACE", value_enum, hide_possible_values = true)]
    on: Point,
    /// What the module is told when it starts; may be repeated
    #[arg(long = "param", value_name = "KEY=VALUE", value_parser = parse_param)]
    params: Vec<(String, String)>,
    /// What becomes of records on which the module fails: reject (the producer gets the error, and nothing of the batch is stored), skip (they
    /// are left out) or dead-letter:TOPIC (they go there, with the error in their headers)
    #[arg(long, value_name = "WHAT", default_value = "reject")]
    on_error: OnError,
    #[command(flatten)]
    limits: LimitArgs,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    client: ClientArgs,
}

/// What the module may use. Without a flag it is what the broker says under [plugin].
#[derive(Args, Debug)]
#[command(next_help_heading = "Limits")]
struct LimitArgs {
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
    fn limits(&self) -> AttachLimits {
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
    /// The module
    #[arg(value_parser = names::parse)]
    module: String,
    /// Where it runs: produce or partition; needed only if it is attached in both places
    #[arg(long, value_name = "PLACE", value_enum, hide_possible_values = true)]
    on: Option<Point>,
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
    attached: bool,
}

/// Where a module can run.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Point {
    /// Before the append: the module keeps, changes or drops records
    Produce,
    /// In place of the default partitioner: the module says where records go
    Partition,
}

impl From<Point> for AttachPoint {
    fn from(point: Point) -> AttachPoint {
        match point {
            Point::Produce => AttachPoint::Produce,
            Point::Partition => AttachPoint::Partition,
        }
    }
}

/// Runs `millpond transform attach`.
pub(super) async fn attach(arguments: AttachArgs) -> Outcome {
    let AttachArgs { topic, module, on, params, on_error, limits, output, client } = arguments;
    let on = AttachPoint::from(on);
    let mut unique = BTreeMap::new();
    for (key, value) in params {
        if let Some(earlier) = unique.insert(key.clone(), value) {
            return Err(Failure::usage(format!("the parameter `{key}` is given twice (first as `{earlier}`)")));
        }
    }
    let attach = AttachTransform::new(topic.clone(), module.clone(), on);
    let request = AttachTransform { params: unique, limits: limits.limits(), on_error, ..attach };
    client.with(async |client| Ok(client.admin().attach(request).await?)).await?;
    let attached = Attachment { topic, module: module.to_string(), on, attached: true };
    output.one(&attached, |now| format!("attached {} to {}, on {}\n", now.module, now.topic, now.on))
}

/// Runs `millpond transform detach`.
pub(super) async fn detach(arguments: DetachArgs) -> Outcome {
    let DetachArgs { topic, module, on, output, client } = arguments;
    let detach = async |client: &Client| {
        let on = match on {
            Some(on) => on.into(),
            None => attached_on(client, &topic, &module).await?,
        };
        client.admin().detach(DetachTransform { topic: topic.clone(), module: module.clone(), on }).await?;
        Ok(on)
    };
    let on = client.with(detach).await?;
    let detached = Attachment { topic, module, on, attached: false };
    output.one(&detached, |now| format!("detached {} from {}, on {}\n", now.module, now.topic, now.on))
}

async fn attached_on(client: &Client, topic: &str, module: &str) -> Outcome<AttachPoint> {
    let attachments = client.admin().topic(topic).await?.attachments;
    let places: Vec<_> = attachments.iter().filter(|attachment| attachment.module == module).map(|attachment| attachment.on).collect();
    match places[..] {
        [on] => Ok(on),
        [] => Err(Failure::new(format!("no module `{module}` is attached to {topic}"))
            .hint(format!("`millpond topic describe {topic}` shows what is attached"))),
        _ => Err(Failure::new(format!("{module} is attached to {topic} in several places")).hint("say which one with --on")),
    }
}

fn parse_param(text: &str) -> Result<(String, String), String> {
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
  millpond transform attach readings by-device --on partition --param field=device";

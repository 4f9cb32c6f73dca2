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
use millpond_protocol::message::{AttachLimits, AttachPoint, AttachTransform, AttachmentStatus, DetachTransform, ModuleRef, OnError};
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
    /// Where it runs: produce (before the append), partition (in place of the default partitioner) or fetch (for consumers that ask for the
    /// view that it makes)
    #[arg(long, value_name = "PLACE", value_enum, hide_possible_values = true)]
    on: Point,
    /// On fetch: what the view is called; several modules of one name form a chain
    #[arg(long, value_name = "VIEW", value_parser = names::parse)]
    name: Option<String>,
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
    /// Where it runs: produce, partition or fetch; needed only if it is attached in several places
    #[arg(long, value_name = "PLACE", value_enum, hide_possible_values = true)]
    on: Option<Point>,
    /// On fetch: which view; needed only if it makes several
    #[arg(long, value_name = "VIEW", value_parser = names::parse)]
    name: Option<String>,
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
    attached: bool,
}

impl Attachment {
    fn words(&self, done: &str) -> String {
        let Attachment { topic, module, on, .. } = self;
        let view = self.view.as_ref().map(|view| format!(" as the view {view}")).unwrap_or_default();
        format!("{done} {topic}, on {on}{view}\n").replacen("{}", module, 1)
    }
}

/// Where a module can run.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Point {
    /// Before the append: the module keeps, changes or drops records
    Produce,
    /// In place of the default partitioner: the module says where records go
    Partition,
    /// After the read: the module makes a view that consumers ask for
    Fetch,
}

impl From<Point> for AttachPoint {
    fn from(point: Point) -> AttachPoint {
        match point {
            Point::Produce => AttachPoint::Produce,
            Point::Partition => AttachPoint::Partition,
            Point::Fetch => AttachPoint::Fetch,
        }
    }
}

/// Runs `millpond transform attach`.
pub(super) async fn attach(arguments: AttachArgs) -> Outcome {
    let AttachArgs { topic, module, on, name, params, on_error, limits, output, client } = arguments;
    let on = AttachPoint::from(on);
    let mut unique = BTreeMap::new();
    for (key, value) in params {
        if let Some(earlier) = unique.insert(key.clone(), value) {
            return Err(Failure::usage(format!("the parameter `{key}` is given twice (first as `{earlier}`)")));
        }
    }
    let attach = AttachTransform::new(topic.clone(), module.clone(), on);
    let request = AttachTransform { view: name.clone(), params: unique, limits: limits.limits(), on_error, ..attach };
    client.with(async |client| Ok(client.admin().attach(request).await?)).await?;
    let attached = Attachment { topic, module: module.to_string(), on, view: name, attached: true };
    output.one(&attached, |now| now.words("attached {} to"))
}

/// Runs `millpond transform detach`.
pub(super) async fn detach(arguments: DetachArgs) -> Outcome {
    let DetachArgs { topic, module, on, name, output, client } = arguments;
    let detach = async |client: &Client| {
        let (on, view) = attached_on(client, &topic, &module, on.map(AttachPoint::from), name.as_deref()).await?;
        client.admin().detach(DetachTransform { topic: topic.clone(), module: module.clone(), on, view: view.clone() }).await?;
        Ok((on, view))
    };
    let (on, view) = client.with(detach).await?;
    let detached = Attachment { topic, module, on, view, attached: false };
    output.one(&detached, |now| now.words("detached {} from"))
}

/// Where a module is attached, of the places that may be meant.
async fn attached_on(
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
  millpond transform attach readings drop-idle --on fetch --name busy-only
  millpond transform attach readings by-device --on partition --param field=device";

//! Changing how a module runs.

use super::super::attachments;
use super::attach::{LimitArgs, Point, attached_on, parse_param, unique};
use crate::{
    config::ByteSize,
    connection::ClientArgs,
    failure::{Failure, Outcome},
    names,
    output::OutputArgs,
};
use clap::Args;
use millpond::Client;
use millpond_protocol::message::{AlterTransform, AttachPoint, AttachmentStatus, ModuleRef, OnError};

/// Arguments of `millpond transform alter`.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct AlterArgs {
    /// The topic
    #[arg(value_parser = names::parse)]
    topic: String,
    /// The module; or one version that it stays from here on: NAME@3 or NAME@sha256:HEX
    #[arg(value_name = "MODULE", value_parser = names::parse_module)]
    module: ModuleRef,
    /// Where it runs: produce, partition, fetch or derive; needed only if it is attached in several places
    #[arg(long, value_name = "PLACE", value_enum, hide_possible_values = true)]
    on: Option<Point>,
    /// On fetch: which view; needed only if it makes several
    #[arg(long, value_name = "VIEW", value_parser = names::parse)]
    name: Option<String>,
    /// It runs the current version from here on, whichever that is
    #[arg(long)]
    follow_current: bool,
    /// What the module is told when it starts, beside what it is told now or in place of it; may be repeated
    #[arg(long = "param", value_name = "KEY=VALUE", value_parser = parse_param)]
    params: Vec<(String, String)>,
    /// What it is told no more; may be repeated
    #[arg(long = "remove-param", value_name = "KEY")]
    removed: Vec<String>,
    /// What becomes of records on which the module fails: reject, skip, dead-letter:TOPIC, or stop where it derives topics
    #[arg(long, value_name = "WHAT")]
    on_error: Option<OnError>,
    /// Derived topics: what it may keep for each partition; no less than it has
    #[arg(long, value_name = "SIZE")]
    state_bytes: Option<ByteSize>,
    /// Derived topics: how often it is tried again on a batch
    #[arg(long, value_name = "N")]
    retries: Option<u32>,
    /// Limits that are not given are the broker's again
    #[arg(long, help_heading = "Limits")]
    default_limits: bool,
    #[command(flatten)]
    limits: LimitArgs,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    client: ClientArgs,
}

/// Runs `millpond transform alter`.
pub(super) async fn alter(arguments: AlterArgs) -> Outcome {
    let AlterArgs { topic, module, on, name, params, removed, output, client, .. } = arguments;
    let name_of_module = module.name.clone();
    // Where it runs is known once the broker has been asked.
    let change = AlterTransform {
        follow_current: arguments.follow_current,
        params: unique(params)?,
        params_removed: removed.into_iter().collect(),
        limits_reset: arguments.default_limits,
        limits: arguments.limits.limits(),
        on_error: arguments.on_error,
        state_bytes: arguments.state_bytes.map(|size| size.0),
        retries: arguments.retries,
        ..AlterTransform::new(topic.clone(), module, AttachPoint::Produce)
    };
    if change.is_empty() {
        return Err(
            Failure::usage("there is nothing to change").hint("give --param, --on-error, --time or another of its options; --help has all")
        );
    }
    let alter = async |client: &Client| {
        let (on, view) = attached_on(client, &topic, &name_of_module, on.map(AttachPoint::from), name.as_deref()).await?;
        Ok(client.admin().alter_attachment(AlterTransform { on, view, ..change }).await?)
    };
    let status = client.with(alter).await?;
    output.one(&status, |status| format!("changed {} on {topic}: {}\n", status.module, settings(status)))
}

/// All that can be changed.
fn settings(status: &AttachmentStatus) -> String {
    let version = status.version.map(|version| format!("version {version}"));
    let derived = status.derived.as_ref().map(attachments::derived_settings);
    version.into_iter().chain([attachments::settings(status)]).chain(derived).collect::<Vec<_>>().join(", ")
}

const EXAMPLES: &str = "\
It takes effect between two batches, and what is not named stays as it is. What derives topics goes on where it is, with its state; one that \
has stopped tries again.

Examples:
  millpond transform alter readings changes --param deadband=0.2
  millpond transform alter readings changes@3
  millpond transform alter readings downsample --state-bytes 4MiB --on-error dead-letter:failed
  millpond transform alter readings drop-idle --default-limits --time 20ms";

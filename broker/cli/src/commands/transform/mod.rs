//! `millpond transform`: deploy modules, attach them to topics, change how they run, look at their logs, roll back, detach and delete.

mod alter;
mod attach;
mod deploy;
mod describe;
mod logs;
mod project;
mod test;

use super::shared::{self, ListArgs};
use crate::{
    connection::ClientArgs,
    failure::Outcome,
    names,
    output::{OutputArgs, Row, human_bytes, short_sha256},
};
use clap::{Args, Subcommand};
use millpond_protocol::message::{ModuleInfo, ModuleRef};

/// Deploy WebAssembly modules and attach them to topics
#[derive(Debug, Subcommand)]
pub(crate) enum TransformCommand {
    /// Begin a project for a module
    New(project::NewArgs),
    /// Make the module of a project
    Build(project::BuildArgs),
    /// Run a module on records from a file, here, and compare what comes out
    Test(test::TestArgs),
    /// Upload a module, or a new version of one; the broker checks and compiles it
    Deploy(deploy::DeployArgs),
    /// List the modules and where they are attached
    List(ListArgs),
    /// Show a module with all its versions, and how it is doing where it is attached
    Describe(describe::DescribeArgs),
    /// Run a module on a topic
    Attach(attach::AttachArgs),
    /// Change how a module runs on a topic: its parameters, limits, version
    Alter(alter::AlterArgs),
    /// Stop running a module on a topic
    Detach(attach::DetachArgs),
    /// Go back to an older version of a module, on all topics that run the current one
    Rollback(deploy::RollbackArgs),
    /// Show what a module has logged, and how it failed
    Logs(logs::LogsArgs),
    /// Delete a module that is attached nowhere, or one version of it
    Delete(DeleteArgs),
}

/// Arguments of `millpond transform delete`.
#[derive(Args, Debug)]
pub(crate) struct DeleteArgs {
    /// The module with all its versions, or one of them: NAME@3 or NAME@sha256:HEX
    #[arg(value_name = "MODULE", value_parser = names::parse_module)]
    module: ModuleRef,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    client: ClientArgs,
}

impl TransformCommand {
    /// Whether it is done without a broker.
    pub(crate) fn is_offline(&self) -> bool {
        matches!(self, TransformCommand::New(_) | TransformCommand::Build(_) | TransformCommand::Test(_))
    }
}

/// Runs a command that asks no broker.
pub(crate) fn run_offline(command: TransformCommand) -> Outcome {
    match command {
        TransformCommand::New(arguments) => project::new(arguments),
        TransformCommand::Build(arguments) => project::build(&arguments),
        TransformCommand::Test(arguments) => test::run(arguments),
        online => unreachable!("{online:?} needs a broker"),
    }
}

/// Runs `millpond transform`.
pub(crate) async fn run(command: TransformCommand) -> Outcome {
    match command {
        TransformCommand::New(_) | TransformCommand::Build(_) | TransformCommand::Test(_) => run_offline(command),
        TransformCommand::Deploy(arguments) => deploy::deploy(arguments).await,
        TransformCommand::List(arguments) => shared::list(&arguments, async |client| Ok(client.admin().modules().await?), NONE_YET).await,
        TransformCommand::Describe(arguments) => describe::describe(arguments).await,
        TransformCommand::Attach(arguments) => attach::attach(arguments).await,
        TransformCommand::Alter(arguments) => alter::alter(arguments).await,
        TransformCommand::Detach(arguments) => attach::detach(arguments).await,
        TransformCommand::Rollback(arguments) => deploy::rollback(arguments).await,
        TransformCommand::Logs(arguments) => logs::logs(arguments).await,
        TransformCommand::Delete(arguments) => delete(arguments).await,
    }
}

async fn delete(arguments: DeleteArgs) -> Outcome {
    let DeleteArgs { module, output, client } = arguments;
    client.with(async |client| Ok(client.admin().delete_module(module.clone()).await?)).await?;
    shared::print_deleted(output, module.to_string())
}

impl Row for ModuleInfo {
    const HEADINGS: &'static [&'static str] = &["NAME", ">VERSION", "WORLD", ">SIZE", "SHA-256", "ATTACHED TO"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.name.clone(),
            self.version.to_string(),
            world_name(&self.world, self.stateful),
            human_bytes(self.size_bytes),
            short_sha256(&self.sha256),
            if self.attached_to.is_empty() { "-".to_owned() } else { self.attached_to.join(", ") },
        ]
    }
}

/// A world as it is called in `plugin.wit`.
fn world_name(world: &str, stateful: bool) -> String {
    if stateful { format!("stateful-{world}") } else { world.to_owned() }
}

const NONE_YET: &str = "There are no modules yet: `millpond transform deploy FILE` uploads one.";

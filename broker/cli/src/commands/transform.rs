//! `millpond transform`: deploy modules, attach them to topics, detach and delete them.

use super::shared::{self, ListArgs};
use crate::{
    connection::ClientArgs,
    failure::{Failure, Outcome},
    names,
    output::{OutputArgs, Row, human_bytes, short_sha256},
    progress::Spinner,
};
use clap::{Args, Subcommand, ValueEnum};
use millpond::Client;
use millpond_protocol::message::{AttachPoint, AttachTransform, DetachTransform, ModuleInfo};
use serde::Serialize;
use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

/// Deploy WebAssembly modules and attach them to topics
#[derive(Debug, Subcommand)]
pub(crate) enum TransformCommand {
    /// Upload a module; the broker checks and compiles it
    Deploy(DeployArgs),
    /// List the modules and where they are attached
    List(ListArgs),
    /// Run a module on a topic
    Attach(AttachArgs),
    /// Stop running a module on a topic
    Detach(DetachArgs),
    /// Delete a module that is attached nowhere
    Delete(DeleteArgs),
}

/// Arguments of `millpond transform deploy`.
#[derive(Args, Debug)]
#[command(after_help = DEPLOY_EXAMPLES)]
pub(crate) struct DeployArgs {
    /// The .wasm file: a component, or a core module that carries its component type
    file: PathBuf,
    /// What the module is called on the broker; without it, the file's name
    #[arg(long, value_parser = names::parse)]
    name: Option<String>,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    client: ClientArgs,
}

/// Arguments of `millpond transform attach`.
#[derive(Args, Debug)]
#[command(after_help = ATTACH_EXAMPLES)]
pub(crate) struct AttachArgs {
    /// The topic
    #[arg(value_parser = names::parse)]
    topic: String,
    /// The module
    #[arg(value_parser = names::parse)]
    module: String,
    /// Where it runs: produce (before the append) or partition (in place of the default partitioner)
    #[arg(long, value_name = "PLACE", value_enum, hide_possible_values = true)]
    on: Point,
    /// What the module is told when it starts; may be repeated
    #[arg(long = "param", value_name = "KEY=VALUE", value_parser = parse_param)]
    params: Vec<(String, String)>,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    client: ClientArgs,
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

/// Arguments of `millpond transform delete`.
#[derive(Args, Debug)]
pub(crate) struct DeleteArgs {
    /// The module
    #[arg(value_parser = names::parse)]
    name: String,
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

/// Runs `millpond transform`.
pub(crate) async fn run(command: TransformCommand) -> Outcome {
    match command {
        TransformCommand::Deploy(arguments) => deploy(arguments).await,
        TransformCommand::List(arguments) => shared::list(&arguments, async |client| Ok(client.admin().modules().await?), NONE_YET).await,
        TransformCommand::Attach(arguments) => attach(arguments).await,
        TransformCommand::Detach(arguments) => detach(arguments).await,
        TransformCommand::Delete(arguments) => delete(arguments).await,
    }
}

async fn deploy(arguments: DeployArgs) -> Outcome {
    let name = match arguments.name {
        Some(name) => name,
        None => name_of(&arguments.file)?,
    };
    let wasm = read_module(&arguments.file)?;
    let deploy = async |client: &Client| {
        let _spinner = Spinner::start(format!("deploying {name} ({})", human_bytes(wasm.len() as u64)));
        Ok(client.admin().deploy_module(&name, wasm.into()).await?)
    };
    arguments.output.one(&arguments.client.with(deploy).await?, deployed_words)
}

fn deployed_words(module: &ModuleInfo) -> String {
    let (size, sha256) = (human_bytes(module.size_bytes), short_sha256(&module.sha256));
    let deployed = format!("deployed {}: {}, {size}, sha256 {sha256}\n", module.name, module.world);
    let Some(replaced) = &module.replaced else { return deployed };
    let before = short_sha256(&replaced.sha256);
    match replaced.topics.join(", ") {
        topics if topics.is_empty() => format!("{deployed}it takes the place of sha256 {before}, which was attached nowhere\n"),
        topics => format!("{deployed}it takes the place of sha256 {before}, and runs on {topics} from now on\n"),
    }
}

/// What a module is called that was given no name.
fn name_of(file: &Path) -> Outcome<String> {
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    let wrong = |why| Failure::usage(format!("`{stem}` can't be the name of a module: {why}")).hint("give it another one with --name NAME");
    names::parse(&stem).map_err(wrong)
}

fn read_module(path: &Path) -> Outcome<Vec<u8>> {
    let unreadable = |error: io::Error| {
        let failure = Failure::usage(format!("can't read the module {}", path.display()));
        let failure = if error.kind() == io::ErrorKind::NotFound {
            failure.hint("build it first; a guest's build leaves it as a .wasm file")
        } else {
            failure
        };
        failure.because(&error)
    };
    let mut wasm = Vec::new();
    File::open(path).and_then(|file| file.take(MODULE_BYTES_MAX + 1).read_to_end(&mut wasm)).map_err(unreadable)?;
    if wasm.len() as u64 > MODULE_BYTES_MAX {
        return Err(Failure::usage(format!("{} is larger than {}", path.display(), human_bytes(MODULE_BYTES_MAX))));
    }
    Ok(wasm)
}

async fn attach(arguments: AttachArgs) -> Outcome {
    let AttachArgs { topic, module, on, params, output, client } = arguments;
    let on = AttachPoint::from(on);
    let mut unique = BTreeMap::new();
    for (key, value) in params {
        if let Some(earlier) = unique.insert(key.clone(), value) {
            return Err(Failure::usage(format!("the parameter `{key}` is given twice (first as `{earlier}`)")));
        }
    }
    let request = AttachTransform { topic: topic.clone(), module: module.clone(), on, params: unique };
    client.with(async |client| Ok(client.admin().attach(request).await?)).await?;
    let attached = Attachment { topic, module, on, attached: true };
    output.one(&attached, |now| format!("attached {} to {}, on {}\n", now.module, now.topic, now.on))
}

async fn detach(arguments: DetachArgs) -> Outcome {
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

async fn delete(arguments: DeleteArgs) -> Outcome {
    arguments.client.with(async |client| Ok(client.admin().delete_module(&arguments.name).await?)).await?;
    shared::print_deleted(arguments.output, arguments.name)
}

fn parse_param(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write KEY=VALUE".to_owned()),
    }
}

impl Row for ModuleInfo {
    const HEADINGS: &'static [&'static str] = &["NAME", "WORLD", ">SIZE", "SHA-256", "ATTACHED TO"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.name.clone(),
            self.world.clone(),
            human_bytes(self.size_bytes),
            short_sha256(&self.sha256),
            if self.attached_to.is_empty() { "-".to_owned() } else { self.attached_to.join(", ") },
        ]
    }
}

/// No broker takes more; it keeps a mistyped file name from filling the memory.
const MODULE_BYTES_MAX: u64 = 1 << 30;

const NONE_YET: &str = "There are no modules yet: `millpond transform deploy FILE` uploads one.";

const DEPLOY_EXAMPLES: &str = "\
Example:
  millpond transform deploy plugins/dist/drop-idle.wasm --name drop-idle";

const ATTACH_EXAMPLES: &str = "\
Examples:
  millpond transform attach readings drop-idle --on produce
  millpond transform attach readings by-device --on partition --param field=device";

#[cfg(test)]
mod tests {
    use super::*;
    use millpond_protocol::message::ReplacedModule;

    #[test]
    fn what_a_module_takes_the_place_of_is_told() {
        let module = ModuleInfo {
            name: "m".to_owned(),
            sha256: "0123456789abcdef".to_owned(),
            size_bytes: 2048,
            world: "transform".to_owned(),
            ..ModuleInfo::default()
        };
        let first = "deployed m: transform, 2.0 KiB, sha256 0123456789ab\n";
        assert_eq!(deployed_words(&module), first);
        let with = |topics: &[&str]| {
            let topics = topics.iter().map(|&topic| topic.to_owned()).collect();
            ModuleInfo { replaced: Some(ReplacedModule { sha256: "fedcba9876543210".to_owned(), topics }), ..module.clone() }
        };
        let nowhere = format!("{first}it takes the place of sha256 fedcba987654, which was attached nowhere\n");
        assert_eq!(deployed_words(&with(&[])), nowhere);
        let on_two = format!("{first}it takes the place of sha256 fedcba987654, and runs on t, u from now on\n");
        assert_eq!(deployed_words(&with(&["t", "u"])), on_two);
    }
}

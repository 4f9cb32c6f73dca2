//! `millpond transform`: deploy modules, attach them to topics, detach and delete them.

use super::topic::SHA256_DIGITS_SHOWN;
use crate::{
    connection::ClientArgs,
    failure::{Failure, Outcome},
    output::{self, OutputArgs, Row, human_bytes},
    progress::Spinner,
};
use clap::{Args, Subcommand, ValueEnum};
use millpond::Client;
use millpond_protocol::message::{AttachPoint, AttachTransform, DetachTransform, ModuleInfo};
use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, IsTerminal, Read},
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
    #[arg(long)]
    name: Option<String>,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    client: ClientArgs,
}

/// Arguments of `millpond transform list`.
#[derive(Args, Debug)]
pub(crate) struct ListArgs {
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
    topic: String,
    /// The module
    module: String,
    /// Where it runs: produce (before the append) or partition (in place of the default partitioner)
    #[arg(long, value_name = "PLACE", value_enum, hide_possible_values = true)]
    on: Point,
    /// What the module is told when it starts; may be repeated
    #[arg(long = "param", value_name = "KEY=VALUE", value_parser = parse_param)]
    params: Vec<(String, String)>,
    #[command(flatten)]
    client: ClientArgs,
}

/// Arguments of `millpond transform detach`.
#[derive(Args, Debug)]
pub(crate) struct DetachArgs {
    /// The topic
    topic: String,
    /// The module
    module: String,
    /// Where it runs: produce or partition; needed only if it is attached in both places
    #[arg(long, value_name = "PLACE", value_enum, hide_possible_values = true)]
    on: Option<Point>,
    #[command(flatten)]
    client: ClientArgs,
}

/// Arguments of `millpond transform delete`.
#[derive(Args, Debug)]
pub(crate) struct DeleteArgs {
    /// The module
    name: String,
    #[command(flatten)]
    client: ClientArgs,
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
        TransformCommand::List(arguments) => list(arguments).await,
        TransformCommand::Attach(arguments) => attach(arguments).await,
        TransformCommand::Detach(arguments) => detach(arguments).await,
        TransformCommand::Delete(arguments) => delete(arguments).await,
    }
}

async fn deploy(arguments: DeployArgs) -> Outcome {
    let wasm = read_module(&arguments.file)?;
    let name = match arguments.name {
        Some(name) => name,
        None => arguments.file.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default(),
    };
    let deploy = async |client: &Client| {
        let _spinner = Spinner::start(format!("deploying {name} ({})", human_bytes(wasm.len() as u64)));
        Ok(client.admin().deploy_module(&name, wasm.into()).await?)
    };
    arguments.output.one(&arguments.client.with(deploy).await?, |module| {
        let sha256: String = module.sha256.chars().take(SHA256_DIGITS_SHOWN).collect();
        format!("deployed {}: {}, {}, sha256 {sha256}\n", module.name, module.world, human_bytes(module.size_bytes))
    })
}

fn read_module(path: &Path) -> Outcome<Vec<u8>> {
    let unreadable = |error: io::Error| {
        let failure = Failure::new(format!("can't read the module {}", path.display()));
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
        return Err(Failure::new(format!("{} is larger than {}", path.display(), human_bytes(MODULE_BYTES_MAX))));
    }
    Ok(wasm)
}

async fn list(arguments: ListArgs) -> Outcome {
    let modules = arguments.client.with(async |client| Ok(client.admin().modules().await?)).await?;
    arguments.output.list(&modules)?;
    if modules.is_empty() && io::stdout().is_terminal() {
        eprintln!("There are no modules yet: `millpond transform deploy FILE` uploads one.");
    }
    Ok(())
}

async fn attach(arguments: AttachArgs) -> Outcome {
    let AttachArgs { topic, module, on, params, client } = arguments;
    let words = format!("attached {module} to {topic}, on {}\n", AttachPoint::from(on));
    let mut unique = BTreeMap::new();
    for (key, value) in params {
        if let Some(earlier) = unique.insert(key.clone(), value) {
            return Err(Failure::usage(format!("the parameter `{key}` is given twice (first as `{earlier}`)")));
        }
    }
    let request = AttachTransform { topic, module, on: on.into(), params: unique };
    client.with(async |client| Ok(client.admin().attach(request).await?)).await?;
    output::print(&words)
}

async fn detach(arguments: DetachArgs) -> Outcome {
    let DetachArgs { topic, module, on, client } = arguments;
    let detach = async |client: &Client| {
        let on = match on {
            Some(on) => on.into(),
            None => attached_on(client, &topic, &module).await?,
        };
        client.admin().detach(DetachTransform { topic: topic.clone(), module: module.clone(), on }).await?;
        Ok(on)
    };
    let on = client.with(detach).await?;
    output::print(&format!("detached {module} from {topic}, on {on}\n"))
}

async fn attached_on(client: &Client, topic: &str, module: &str) -> Outcome<AttachPoint> {
    let attachments = client.admin().topic(topic).await?.attachments;
    let places: Vec<_> = attachments.iter().filter(|attachment| attachment.module == module).map(|attachment| attachment.on).collect();
    match places[..] {
        [on] => Ok(on),
        [] => Err(Failure::new(format!("no module `{module}` is attached to {topic}"))
            .hint(format!("`millpond topic describe {topic}` shows what is attached"))),
        _ => Err(Failure::usage(format!("{module} is attached to {topic} in several places")).hint("say which one with --on")),
    }
}

async fn delete(arguments: DeleteArgs) -> Outcome {
    arguments.client.with(async |client| Ok(client.admin().delete_module(&arguments.name).await?)).await?;
    output::print(&format!("deleted {}\n", arguments.name))
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
            self.sha256.chars().take(SHA256_DIGITS_SHOWN).collect(),
            if self.attached_to.is_empty() { "-".to_owned() } else { self.attached_to.join(", ") },
        ]
    }
}

/// No broker takes more; it keeps a mistyped file name from filling the memory.
const MODULE_BYTES_MAX: u64 = 1 << 30;

const DEPLOY_EXAMPLES: &str = "\
Example:
  millpond transform deploy plugins/dist/drop-idle.wasm --name drop-idle";

const ATTACH_EXAMPLES: &str = "\
Examples:
  millpond transform attach readings drop-idle --on produce
  millpond transform attach readings by-device --on partition --param field=device";

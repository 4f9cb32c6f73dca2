//! Uploading a version of a module, and going back to one.

use crate::{
    connection::ClientArgs,
    failure::{Failure, Outcome},
    names,
    output::{OutputArgs, human_bytes, short_sha256},
    progress::Spinner,
};
use clap::Args;
use millpond::Client;
use millpond_protocol::message::ModuleInfo;
use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

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

/// Arguments of `millpond transform rollback`.
#[derive(Args, Debug)]
#[command(after_help = ROLLBACK_EXAMPLES)]
pub(crate) struct RollbackArgs {
    /// The module
    #[arg(value_parser = names::parse)]
    module: String,
    /// The version to go to; without it, the one that was current before this one was deployed
    #[arg(long, value_name = "VERSION", value_parser = clap::value_parser!(u32).range(1..))]
    to: Option<u32>,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    client: ClientArgs,
}

/// Runs `millpond transform deploy`.
pub(super) async fn deploy(arguments: DeployArgs) -> Outcome {
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

/// Runs `millpond transform rollback`.
pub(super) async fn rollback(arguments: RollbackArgs) -> Outcome {
    let RollbackArgs { module, to, output, client } = arguments;
    let rollback = async |client: &Client| {
        let _spinner = Spinner::start(format!("rolling {module} back"));
        Ok(client.admin().rollback_module(&module, to).await?)
    };
    output.one(&client.with(rollback).await?, |module| words("rolled back to", module))
}

fn deployed_words(module: &ModuleInfo) -> String {
    words("deployed", module)
}

fn words(done: &str, module: &ModuleInfo) -> String {
    let ModuleInfo { name, version, removed, .. } = module;
    let world = super::world_name(&module.world, module.stateful);
    let (size, sha256) = (human_bytes(module.size_bytes), short_sha256(&module.sha256));
    let now = format!("{done} {name}@{version}: {world}, {size}, sha256 {sha256}\n");
    let Some(replaced) = &module.replaced else { return now };
    let before = replaced.version;
    let gone = removed.iter().map(|gone| format!("version {gone} is gone: the broker keeps so many and no more\n"));
    let gone: String = gone.collect();
    match replaced.topics.join(", ") {
        topics if topics.is_empty() => format!("{now}it takes the place of version {before}, which ran on no topic\n{gone}"),
        topics => format!("{now}it takes the place of version {before}, and runs on {topics} from now on\n{gone}"),
    }
}

/// What a module is called that was given no name.
fn name_of(file: &Path) -> Outcome<String> {
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    let wrong = |why| Failure::usage(format!("`{stem}` can't be the name of a module: {why}")).hint("give it another one with --name NAME");
    names::parse(&stem).map_err(wrong)
}

pub(super) fn read_module(path: &Path) -> Outcome<Vec<u8>> {
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

/// No broker takes more; it keeps a mistyped file name from filling the memory.
const MODULE_BYTES_MAX: u64 = 1 << 30;

const DEPLOY_EXAMPLES: &str = "\
Topics that run the current version run the new one from their next batch on. Older versions stay until they are deleted, or until there are as many as the broker keeps (plugin.max_module_versions): then the oldest goes that nothing needs.

Example:
  millpond transform deploy plugins/dist/drop-idle.wasm --name drop-idle";

const ROLLBACK_EXAMPLES: &str = "\
Examples:
  millpond transform rollback drop-idle
  millpond transform rollback drop-idle --to 1";

#[cfg(test)]
mod tests {
    use super::*;
    use millpond_protocol::message::ReplacedModule;

    #[test]
    fn what_a_module_takes_the_place_of_is_told() {
        let module = ModuleInfo {
            name: "m".to_owned(),
            version: 3,
            sha256: "0123456789abcdef".to_owned(),
            size_bytes: 2048,
            world: "transform".to_owned(),
            ..ModuleInfo::default()
        };
        let first = "deployed m@3: transform, 2.0 KiB, sha256 0123456789ab\n";
        assert_eq!(deployed_words(&module), first);
        let with = |topics: &[&str]| {
            let topics = topics.iter().map(|&topic| topic.to_owned()).collect();
            ModuleInfo { replaced: Some(ReplacedModule { version: 2, sha256: "fedcba9876543210".to_owned(), topics }), ..module.clone() }
        };
        let nowhere = format!("{first}it takes the place of version 2, which ran on no topic\n");
        assert_eq!(deployed_words(&with(&[])), nowhere);
        let on_two = format!("{first}it takes the place of version 2, and runs on t, u from now on\n");
        assert_eq!(deployed_words(&with(&["t", "u"])), on_two);
        let full = ModuleInfo { removed: vec![1], stateful: true, ..with(&[]) };
        let words = deployed_words(&full);
        assert!(words.starts_with("deployed m@3: stateful-transform, "), "{words}");
        assert!(words.ends_with("\nversion 1 is gone: the broker keeps so many and no more\n"), "{words}");
    }
}

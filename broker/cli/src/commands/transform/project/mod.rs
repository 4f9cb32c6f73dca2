//! `millpond transform new` and `build`: a project for a module, and the module that is made of it.
//!
//! A project carries all it needs but the compiler: the SDK of its language and the contract lie in it, as they were when this binary was
//! built ([`template`]). What makes a module of it is fixed too: [`recipe`] runs the tools of the language in the versions that the SDK names.
//!
//! ```text
//!  NAME/millpond.toml        name, language and world: what `build` reads
//!  NAME/guest.py             the module (src/lib.rs, guest.js, guest.c)
//!  NAME/sdk-python/, wit/    the SDK and the contract
//!  NAME/test/                records.jsonl and expected.jsonl, for `millpond transform test`
//!  NAME/build/NAME.wasm      what `build` makes
//! ```

mod manifest;
mod recipe;
mod template;

use crate::{
    failure::{Failure, Outcome},
    logging, names,
    output::{OutputArgs, human_bytes},
};
use clap::{Args, ValueEnum};
use manifest::Manifest;
use serde::{Deserialize, Serialize};
use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Instant,
};

/// Arguments of `millpond transform new`.
#[derive(Args, Debug)]
#[command(after_help = NEW_EXAMPLES)]
pub(crate) struct NewArgs {
    /// What the module is called; the project's folder has this name
    #[arg(value_parser = names::parse)]
    name: String,
    /// The language: rust, python, js or c
    #[arg(long, value_name = "LANGUAGE", value_enum, hide_possible_values = true)]
    lang: Language,
    /// What it does: transform, or stateful-derive, which makes records of other topics and remembers something. There are more worlds, see
    /// the project's millpond.toml
    #[arg(long, value_name = "WORLD", value_enum, default_value_t = World::Transform, hide_possible_values = true)]
    world: World,
    #[command(flatten)]
    output: OutputArgs,
}

/// Arguments of `millpond transform build`.
#[derive(Args, Debug)]
#[command(after_help = BUILD_EXAMPLES)]
pub(crate) struct BuildArgs {
    /// The project's folder, in which millpond.toml lies
    #[arg(default_value = ".")]
    folder: PathBuf,
    #[command(flatten)]
    output: OutputArgs,
}

/// The languages that a module can be written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Language {
    /// With the crate millpond-guest, by cargo
    Rust,
    /// With `CPython` in the module, by componentize-py
    Python,
    /// With `QuickJS` in the module, by componentize-qjs
    Js,
    /// With zig's clang and C library
    C,
}

/// What a project does: a world of `plugin.wit`. A project is begun for those that have a module to begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum World {
    /// Changes records before they are stored
    Transform,
    #[value(skip)]
    Partitioner,
    #[value(skip)]
    Derive,
    #[value(skip)]
    StatefulTransform,
    /// Makes records of other topics, and keeps state
    StatefulDerive,
}

impl World {
    fn name(self) -> &'static str {
        match self {
            World::Transform => "transform",
            World::Partitioner => "partitioner",
            World::Derive => "derive",
            World::StatefulTransform => "stateful-transform",
            World::StatefulDerive => "stateful-derive",
        }
    }
}

#[derive(Serialize)]
struct Created {
    name: String,
    lang: Language,
    world: World,
    folder: PathBuf,
    files: Vec<String>,
}

#[derive(Serialize)]
struct Built {
    name: String,
    lang: Language,
    file: PathBuf,
    size_bytes: u64,
}

/// Runs `millpond transform new`.
pub(super) fn new(arguments: NewArgs) -> Outcome {
    logging::start_client()?;
    let NewArgs { name, lang, world, output } = arguments;
    let folder = PathBuf::from(&name);
    let failed = |error: &io::Error| Failure::new(format!("can't make the project {name}")).because(error);
    match fs::create_dir(&folder) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let what = format!("{name} is there already, and nothing is written over");
            return Err(Failure::usage(what).hint("choose another name, or another folder to begin in"));
        }
        created => created.map_err(|error| failed(&error))?,
    }
    let files = template::files(lang, world, &name);
    for (path, text) in &files {
        let path = folder.join(path);
        let parent = path.parent().unwrap_or(&folder);
        fs::create_dir_all(parent).and_then(|()| fs::write(&path, text)).map_err(|error| failed(&error))?;
    }
    let files = files.into_iter().map(|(path, _)| path).collect();
    output.one(&Created { name, lang, world, folder, files }, created_words)
}

fn created_words(created: &Created) -> String {
    let Created { name, lang, world, .. } = created;
    let guest = template::guest(*lang);
    let test = template::test_words(*world, name);
    format!("made {name}: the module is {name}/{guest}\n\n  cd {name}\n  millpond transform build\n  {test}\n")
}

/// Runs `millpond transform build`.
pub(super) fn build(arguments: &BuildArgs) -> Outcome {
    logging::start_client()?;
    let manifest = Manifest::read(&arguments.folder)?;
    let Manifest { name, lang, world } = manifest;
    let begin = Instant::now();
    let file = PathBuf::from("build").join(&name).with_added_extension("wasm");
    recipe::run(&arguments.folder, lang, world, &file)?;
    let file = arguments.folder.join(file);
    let metadata = fs::metadata(&file).map_err(|error| Failure::new(format!("{} was not made", file.display())).because(&error))?;
    let built = Built { name, lang, file: without_dot(&file), size_bytes: metadata.len() };
    let seconds = begin.elapsed().as_secs_f64();
    arguments.output.one(&built, |built| {
        let (file, size) = (built.file.display(), human_bytes(built.size_bytes));
        format!("made {file}: {size}, in {seconds:.1} s\n")
    })
}

fn without_dot(path: &Path) -> PathBuf {
    path.strip_prefix(".").unwrap_or(path).to_owned()
}

const NEW_EXAMPLES: &str = "\
The project has the SDK of its language in it, a module to begin with, which keeps hot readings or makes alarms of them, its tests, and a README.

Examples:
  millpond transform new hot-only --lang python
  millpond transform new alarms --lang js --world stateful-derive";

const BUILD_EXAMPLES: &str = "\
What it needs: cargo for Rust, python3 for Python and C, node and npm for JavaScript. The rest is installed in the version that the SDK names, \
from PyPI to the folder that MILLPOND_TOOLS names ($XDG_CACHE_HOME/millpond/tools without it), or from npm to the project.

Examples:
  millpond transform build
  millpond transform build hot-only && millpond transform deploy hot-only/build/hot-only.wasm";

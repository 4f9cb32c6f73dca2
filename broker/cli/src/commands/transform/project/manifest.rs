//! `millpond.toml`: what a project is.
//!
//! ```text
//! name = "hot-only"
//! lang = "python"
//! world = "transform"
//! ```

use super::{Language, World};
use crate::{
    failure::{Failure, Outcome},
    names,
};
use serde::Deserialize;
use std::{fs, io, path::Path};

/// The file.
pub(super) const FILE: &str = "millpond.toml";

/// What it says.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Manifest {
    pub(super) name: String,
    pub(super) lang: Language,
    pub(super) world: World,
}

impl Manifest {
    /// Reads the file of a project.
    pub(super) fn read(folder: &Path) -> Outcome<Manifest> {
        let path = folder.join(FILE);
        let text = fs::read_to_string(&path).map_err(|error| {
            let failure = Failure::usage(format!("can't read {}", path.display())).because(&error);
            if error.kind() == io::ErrorKind::NotFound {
                failure.hint("`millpond transform new NAME --lang LANGUAGE` makes a project; build it in its folder")
            } else {
                failure
            }
        })?;
        let wrong = || Failure::usage(format!("{} does not say what the project is", path.display()));
        let manifest: Manifest = toml::from_str(&text).map_err(|error| wrong().cause(error.to_string()).hint(HINT))?;
        // The name becomes a file's.
        names::parse(&manifest.name).map_err(|why| wrong().cause(format!("`{}` can't be a name: {why}", manifest.name)))?;
        Ok(manifest)
    }
}

const HINT: &str = "it has three lines: name, lang (rust, python, js or c) and world (transform, partitioner, derive, \
    stateful-transform or stateful-derive)";

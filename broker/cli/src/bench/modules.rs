//! The modules that some cases need: where they are, and how they are told apart from what a broker has compiled before.

use super::{BenchArgs, BenchError, error, note, plan::Case};
use bytes::Bytes;
use std::{
    collections::BTreeMap,
    env, fs, io,
    path::{Path, PathBuf},
};

/// A module, as it is uploaded, with its settings on a topic.
#[derive(Clone, Debug)]
pub(super) struct Module {
    pub(super) wasm: Bytes,
    pub(super) params: &'static [(&'static str, &'static str)],
}

/// The modules of the cases that need one.
#[derive(Debug, Default)]
pub(super) struct Modules(BTreeMap<Case, Module>);

impl Modules {
    /// Reads those of the cases before anything is measured. A case whose module is not there is left out, unless it was asked for.
    pub(super) fn find(args: &BenchArgs, cases: &mut Vec<Case>) -> Result<Modules, BenchError> {
        let mut found = BTreeMap::new();
        for case in cases.clone() {
            let Some((file, params)) = needed(case) else { continue };
            let named = args.plugin.as_ref().filter(|_| case == Case::Produce100bJson);
            let path = named.cloned().or_else(|| places(file).into_iter().find(|path| path.is_file()));
            let Some(path) = path else {
                if args.only.contains(&case) {
                    let source = io::Error::from(io::ErrorKind::NotFound);
                    return Err(BenchError::File { action: error::READ_MODULE, path: file.into(), source });
                }
                note(&format!("{} is left out: there is no {file}; build it with `make plugins`", case.name()));
                cases.retain(|other| *other != case);
                continue;
            };
            match fs::read(&path) {
                Ok(wasm) => found.insert(case, Module { wasm: wasm.into(), params }),
                Err(source) => return Err(BenchError::File { action: error::READ_MODULE, path, source }),
            };
        }
        Ok(Modules(found))
    }

    /// The module of a case, if it needs one.
    pub(super) fn of(&self, case: Case) -> Option<&Module> {
        self.0.get(&case)
    }

    /// All of them, each with its case.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Case, &Module)> {
        self.0.iter().map(|(case, module)| (*case, module))
    }
}

impl Module {
    /// The same module under another digest, so that a broker has to compile it: with one more custom section, which says nothing.
    pub(super) fn unseen(&self, number: u32) -> Bytes {
        let name = format!("bench-{number:08}");
        let length = u8::try_from(name.len()).unwrap_or(u8::MAX);
        [&self.wasm[..], &[CUSTOM_SECTION, length + 1, length], name.as_bytes()].concat().into()
    }
}

/// The id of a custom section: an id, the length of all that comes, the length of its name, its name (WebAssembly Core Specification, 5.5.3).
const CUSTOM_SECTION: u8 = 0;

/// The file of a case's module from the top of the repository, and its settings.
const fn needed(case: Case) -> Option<(&'static str, &'static [(&'static str, &'static str)])> {
    match case {
        Case::Produce100bFilter => Some(("plugins/dist/identity.wasm", &[("drop_every", "4")])),
        Case::Produce100bJson | Case::Deploy => Some(("plugins/dist/drop-idle.wasm", &[])),
        _ => None,
    }
}

/// Under the current folder, beside the binary, under the folder of the binary, or in the repository that the binary was built in.
fn places(file: &str) -> Vec<PathBuf> {
    let binary = env::current_exe().unwrap_or_default();
    let folder = binary.parent().unwrap_or(Path::new("."));
    let name = Path::new(file).file_name().unwrap_or_default();
    let beside = [folder.join(name), folder.join(file)];
    let repository = folder.ancestors().nth(2).map(|root| root.join(file));
    [PathBuf::from(file)].into_iter().chain(beside).chain(repository).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn a_module_is_looked_for_in_different_places() {
        let places = places("plugins/dist/x.wasm");
        assert_eq!(places[0], Path::new("plugins/dist/x.wasm"));
        assert_eq!(places.iter().collect::<HashSet<_>>().len(), places.len());
        let beside = env::current_exe().expect("it has a path").with_file_name("x.wasm");
        assert!(places.contains(&beside), "{places:?}");
    }

    #[test]
    fn an_unseen_module_ends_with_a_section_of_the_length_that_it_says() {
        let module = Module { wasm: Bytes::from_static(b"\0asm"), params: &[] };
        let (one, two) = (module.unseen(1), module.unseen(2));
        assert_ne!(one, two);
        assert_eq!(&one[..4], b"\0asm");
        assert_eq!((one[4], usize::from(one[5]), usize::from(one[6])), (CUSTOM_SECTION, one.len() - 6, one.len() - 7));
    }
}

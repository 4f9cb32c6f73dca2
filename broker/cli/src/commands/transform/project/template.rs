//! The files of a new project. Those of the SDKs, the contract and the module to begin with are this repository's own, so that what is
//! tested here is what an author gets.

use super::{Language, World, manifest};

/// Text of files under `plugins/`, each with its path there.
macro_rules! plugins {
    ($($path:literal),* $(,)?) => {
        &[$(($path, include_str!(concat!("../../../../../../plugins/", $path)))),*]
    };
}

const RUST_SDK: &[(&str, &str)] = plugins![
    "sdk-rust/Cargo.toml",
    "sdk-rust/README.md",
    "sdk-rust/examples/hot.rs",
    "sdk-rust/src/bindings.rs",
    "sdk-rust/src/derive.rs",
    "sdk-rust/src/json/edits.rs",
    "sdk-rust/src/json/mod.rs",
    "sdk-rust/src/json/path.rs",
    "sdk-rust/src/json/quotes.rs",
    "sdk-rust/src/json/scan.rs",
    "sdk-rust/src/json/text.rs",
    "sdk-rust/src/lib.rs",
    "sdk-rust/src/log.rs",
    "sdk-rust/src/output.rs",
    "sdk-rust/src/params.rs",
    "sdk-rust/src/place.rs",
    "sdk-rust/src/record.rs",
    "sdk-rust/src/run.rs",
    "sdk-rust/src/state.rs",
    "sdk-rust/src/testing.rs",
    "sdk-rust/src/varint.rs",
    ".cargo/config.toml",
    "Cargo.lock",
];

const PYTHON_SDK: &[(&str, &str)] = plugins![
    "sdk-python/README.md",
    "sdk-python/build.py",
    "sdk-python/requirements.txt",
    "sdk-python/millpond_guest/__init__.py",
    "sdk-python/millpond_guest/log.py",
    "sdk-python/millpond_guest/state.py",
    "sdk-python/millpond_guest/testing.py",
];

const JS_SDK: &[(&str, &str)] = plugins![
    "sdk-js/README.md",
    "sdk-js/build.mjs",
    "sdk-js/millpond-guest.js",
    "sdk-js/package.json",
    "sdk-js/package-lock.json",
    "sdk-js/state.js",
    "sdk-js/testing.js",
    "sdk-js/text.js",
];

const C_SDK: &[(&str, &str)] = plugins![
    "sdk-c/README.md",
    "sdk-c/build.sh",
    "sdk-c/component_type.h",
    "sdk-c/guest.c",
    "sdk-c/internal.h",
    "sdk-c/json.c",
    "sdk-c/millpond_guest.h",
    "sdk-c/millpond_testing.h",
    "sdk-c/params.c",
    "sdk-c/records.c",
    "sdk-c/requirements.txt",
    "sdk-c/run.c",
    "sdk-c/sealed.c",
    "sdk-c/state.c",
    "sdk-c/test.sh",
    "sdk-c/testing.c",
];

const CONTRACT: &[(&str, &str)] = plugins!["wit/plugin.wit"];

/// The modules to begin with and their tests: path in the project, and text under `plugins/`.
macro_rules! guest {
    ($($path:literal from $place:literal),* $(,)?) => {
        &[$(($path, include_str!(concat!("../../../../../../plugins/", $place)))),*]
    };
}

const RUST_HOT: &[(&str, &str)] = guest!["src/lib.rs" from "hot/src/lib.rs"];
const PYTHON_HOT: &[(&str, &str)] = guest!["guest.py" from "hot-python/hot.py", "test_guest.py" from "hot-python/test_hot.py"];
const JS_HOT: &[(&str, &str)] = guest!["guest.js" from "hot-js/hot.js", "guest.test.js" from "hot-js/hot.test.js"];
const C_HOT: &[(&str, &str)] = guest!["guest.c" from "hot-c/hot.c", "guest_test.c" from "hot-c/hot_test.c"];
const RUST_ALARMS: &[(&str, &str)] = guest!["src/lib.rs" from "alarms/src/lib.rs"];
const PYTHON_ALARMS: &[(&str, &str)] =
    guest!["guest.py" from "alarms-python/alarms.py", "test_guest.py" from "alarms-python/test_alarms.py"];
const JS_ALARMS: &[(&str, &str)] = guest!["guest.js" from "alarms-js/alarms.js", "guest.test.js" from "alarms-js/alarms.test.js"];
const C_ALARMS: &[(&str, &str)] = guest!["guest.c" from "alarms-c/alarms.c", "guest_test.c" from "alarms-c/alarms_test.c"];

/// The manifest of the guests' workspace, whose versions and lints a project has too.
const WORKSPACE: &str = include_str!("../../../../../../plugins/Cargo.toml");

/// Path and text of each file of a project.
pub(super) fn files(lang: Language, world: World, name: &str) -> Vec<(String, String)> {
    let (sdk, hot, alarms) = match lang {
        Language::Rust => (RUST_SDK, RUST_HOT, RUST_ALARMS),
        Language::Python => (PYTHON_SDK, PYTHON_HOT, PYTHON_ALARMS),
        Language::Js => (JS_SDK, JS_HOT, JS_ALARMS),
        Language::C => (C_SDK, C_HOT, C_ALARMS),
    };
    let guest = if derives(world) { alarms } else { hot };
    let verbatim = sdk.iter().chain(CONTRACT).map(|(path, text)| ((*path).to_owned(), (*text).to_owned()));
    let guest = guest.iter().map(|(path, text)| ((*path).to_owned(), placed(text)));
    let mut files: Vec<_> = guest.chain(verbatim).collect();
    let mut add = |path: &str, text: String| files.push((path.to_owned(), text));
    if lang == Language::Rust {
        add("Cargo.toml", cargo_toml());
    }
    if lang == Language::Js {
        add("package.json", format!("{{ \"name\": \"{}\", \"private\": true, \"type\": \"module\" }}\n", name.to_lowercase()));
    }
    add(manifest::FILE, manifest(lang, world, name));
    add("README.md", readme(lang, world, name));
    add(".gitignore", IGNORED.to_owned());
    let (records, expected) = if derives(world) { (ALARMS_RECORDS, ALARMS_EXPECTED) } else { (RECORDS, EXPECTED) };
    add("test/records.jsonl", records.to_owned());
    add("test/expected.jsonl", expected.to_owned());
    files
}

/// The file to be edited.
pub(super) fn guest(lang: Language) -> &'static str {
    match lang {
        Language::Rust => "src/lib.rs",
        Language::Python => "guest.py",
        Language::Js => "guest.js",
        Language::C => "guest.c",
    }
}

/// The command that tests what was built.
pub(super) fn test_words(world: World, name: &str) -> String {
    let derived = if derives(world) { " --into alarms,readings --state-bytes 1MiB" } else { "" };
    format!("millpond transform test build/{name}.wasm{derived} --input test/records.jsonl --expect test/expected.jsonl")
}

/// The command that tests the module without WebAssembly.
fn native_test(lang: Language, world: World) -> String {
    match lang {
        Language::Rust => "cargo test".to_owned(),
        Language::Python => "PYTHONPATH=sdk-python python3 -m unittest".to_owned(),
        Language::Js => "node --test".to_owned(),
        Language::C => format!("bash sdk-c/test.sh guest_test.c guest.c {}", world.name()),
    }
}

fn derives(world: World) -> bool {
    matches!(world, World::Derive | World::StatefulDerive)
}

/// A guest's file with the names that it has in a project: there the SDK lies below it and not beside.
fn placed(text: &str) -> String {
    let renamed = text
        .replace("\"../sdk-js/", "\"./sdk-js/")
        .replace("\"./hot.js\"", "\"./guest.js\"")
        .replace("from hot import", "from guest import");
    renamed.replace("\"./alarms.js\"", "\"./guest.js\"").replace("from alarms import", "from guest import")
}

fn cargo_toml() -> String {
    let shared = WORKSPACE.find("[workspace.package]").map_or("", |at| &WORKSPACE[at..]);
    format!("{CARGO_TOML}{shared}")
}

fn manifest(lang: Language, world: World, name: &str) -> String {
    let lang = format!("{lang:?}").to_lowercase();
    let world = world.name();
    format!("{MANIFEST_WORDS}name = \"{name}\"\nlang = \"{lang}\"\nworld = \"{world}\"\n")
}

fn readme(lang: Language, world: World, name: &str) -> String {
    let (guest, native) = (guest(lang), native_test(lang, world));
    let (does, attach) = if derives(world) {
        let attach = format!("TOPIC {name} --into ALARMS,READINGS --state-bytes 1MiB --param limit=90");
        ("makes alarms of the readings that are hotter than a limit", attach)
    } else {
        ("keeps the readings that are hotter than a limit", format!("TOPIC {name} --on produce --param limit=90"))
    };
    let test = test_words(world, name);
    format!(
        "# {name}\n\nA module for the Millpond broker. `{guest}` {does}, until it does what you want.\n\n\
         ```sh\n{native}\nmillpond transform build\n{test}\nmillpond transform deploy build/{name}.wasm\n\
         millpond transform attach {attach}\n```\n"
    )
}

const MANIFEST_WORDS: &str = "\
# What `millpond transform build` makes. The world is transform (changes records before they are stored), partitioner (places them), derive
# (makes records of other topics), or one of the two that keep state and make topics of their own: stateful-transform, stateful-derive.
";

const CARGO_TOML: &str = "\
[package]
name = \"guest\"
version.workspace = true
edition.workspace = true
rust-version.workspace = true
license.workspace = true
publish.workspace = true

[lib]
crate-type = [\"cdylib\"]

[dependencies]
millpond-guest.workspace = true

[workspace]
resolver = \"3\"
members = [\"sdk-rust\"]

";

const IGNORED: &str = "build/\ntarget/\nnode_modules/\n__pycache__/\n";

const RECORDS: &str = r#"{"key":"pump-3","value":{"temperature":79.5},"timestamp":1767225600000}
{"key":"pump-4","value":{"temperature":91.5},"headers":{"trace":"1"},"timestamp":1767225600001}
{"key":"pump-5","value":null,"timestamp":1767225600002}
"#;

const EXPECTED: &str = r#"{"key":"pump-4","value":{"temperature":91.5},"headers":{"trace":"1","alert":"hot"},"timestamp":1767225600001}
{"key":"pump-5","value":null,"timestamp":1767225600002}
"#;

const ALARMS_RECORDS: &str = r#"{"key":"pump-3","value":{"temperature":91.5},"timestamp":1767225600000}
{"key":"pump-4","value":{"temperature":20},"timestamp":1767225600001}
{"key":"pump-3","value":{"temperature":92},"timestamp":1767225600002}
{"key":"pump-3","value":{"temperature":79.5},"timestamp":1767225600003}
"#;

const ALARMS_EXPECTED: &str = r#"{"topic":"alarms","key":"pump-3","value":{"temperature":91.5},"headers":{"count":"1"}}
{"topic":"readings","key":"pump-4","value":{"temperature":20},"timestamp":1767225600001}
{"topic":"alarms","key":"pump-3","value":{"temperature":92},"headers":{"count":"2"}}
{"topic":"alarms","key":"pump-3","value":null,"headers":{"cleared":"2"}}
{"topic":"readings","key":"pump-3","value":{"temperature":79.5},"timestamp":1767225600003}
"#;

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    /// Every file of an SDK that its guests need, by its path under `plugins/`.
    fn found(folder: &str, out: &mut Vec<String>) {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../plugins");
        for entry in std::fs::read_dir(root.join(folder)).expect("the SDK is there").flatten() {
            let name = entry.file_name().into_string().expect("a plain name");
            let path = format!("{folder}/{name}");
            let is_dir = entry.file_type().expect("it has one").is_dir();
            if is_dir && !["tests", "test", "node_modules", "__pycache__"].contains(&name.as_str()) && !name.starts_with('.') {
                found(&path, out);
            } else if !is_dir && name != "tests.c" {
                out.push(path);
            }
        }
    }

    #[test]
    fn a_project_has_every_file_of_its_sdk() {
        for (lang, folder) in
            [(Language::Rust, "sdk-rust"), (Language::Python, "sdk-python"), (Language::Js, "sdk-js"), (Language::C, "sdk-c")]
        {
            for world in [World::Transform, World::StatefulDerive] {
                has_every_file(lang, world, folder);
            }
        }
    }

    fn has_every_file(lang: Language, world: World, folder: &str) {
        let files = files(lang, world, "x");
        let mut needed = vec!["wit/plugin.wit".to_owned(), guest(lang).to_owned()];
        found(folder, &mut needed);
        for path in needed {
            assert!(files.iter().any(|(found, _)| *found == path), "{path} is not in a project in {lang:?}");
        }
        for name in ["\"../sdk-js/", "hot.js\"", "alarms.js\"", "from hot", "from alarms"] {
            assert!(
                files.iter().all(|(_, text)| !text.contains(name)),
                "a guest and its test find what they name in {lang:?}, and not {name}"
            );
        }
    }
}

//! The house rules that a machine can hold: sizes, directions, and what must not be in the repository.

use std::{
    fs,
    path::{Path, PathBuf},
};

const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 75;

/// Which of the project's crates each crate may use. A new arrow is a change to ARCHITECTURE.md.
const ARROWS: &[(&str, &[&str])] = &[
    ("broker/protocol", &[]),
    ("broker/log", &["millpond-protocol"]),
    ("broker/plugin", &["millpond-protocol"]),
    ("broker/engine", &["millpond-protocol", "millpond-log", "millpond-plugin"]),
    ("broker/quic", &["millpond-protocol", "millpond-engine"]),
    ("broker/admin", &["millpond-protocol", "millpond-engine"]),
    ("sdk-rust", &["millpond-protocol"]),
    ("sdk-rust/bridge", &["millpond", "millpond-protocol"]),
    ("sdk-node/native", &["millpond-bridge"]),
    ("sdk-python", &["millpond-bridge"]),
];

/// Crates whose code may hold an explained `unsafe`.
const UNSAFE_ALLOWED: &[&str] = &["broker/plugin", "sdk-node/native", "sdk-python"];

#[test]
fn files_fit_and_functions_fit_a_screen() {
    let mut complaints = Vec::new();
    for path in rust_files() {
        let text = read(&path);
        let lines: Vec<&str> = text.lines().collect();
        if lines.len() > FILE_LINES_MAX {
            complaints.push(format!("{}: {} lines, at most {FILE_LINES_MAX}", shown(&path), lines.len()));
        }
        for (name, at, length) in functions(&lines) {
            if length > FUNCTION_LINES_MAX {
                complaints.push(format!("{}:{at}: fn {name} has {length} lines, at most {FUNCTION_LINES_MAX}", shown(&path)));
            }
        }
    }
    assert!(complaints.is_empty(), "too long:\n{}", complaints.join("\n"));
}

#[test]
fn dependencies_point_one_way() {
    for (folder, allowed) in ARROWS {
        let manifest = read(&root().join(folder).join("Cargo.toml"));
        let dependencies = manifest.split("[dev-dependencies]").next().unwrap_or_default();
        for line in dependencies.lines().filter(|line| line.starts_with("millpond")) {
            let name = line.split(['.', ' ', '=']).next().unwrap_or_default();
            assert!(allowed.contains(&name), "{folder} must not depend on {name}");
        }
    }
}

#[test]
fn unsafe_code_is_forbidden_where_it_is_not_explained() {
    for (folder, _) in ARROWS {
        let text = read(&root().join(folder).join("src/lib.rs"));
        if !UNSAFE_ALLOWED.contains(folder) {
            assert!(text.contains("#![forbid(unsafe_code)]"), "{folder}/src/lib.rs does not forbid unsafe code");
        }
    }
}

#[test]
fn nothing_is_unfinished_or_switched_off() {
    let marks = [concat!("to", "do!("), concat!("unimplem", "ented!("), concat!("#[ig", "nore"), concat!("FIX", "ME")];
    for path in rust_files() {
        let text = read(&path);
        for mark in marks {
            assert!(!text.contains(mark), "{} holds `{mark}`", shown(&path));
        }
    }
}

#[test]
fn tests_wait_for_events_and_never_sleep() {
    let marks = [concat!("thread::", "sleep("), concat!("time::", "sleep(")];
    for path in rust_files().into_iter().filter(|path| path.components().any(|part| part.as_os_str() == "tests")) {
        let text = read(&path);
        for mark in marks {
            assert!(!text.contains(mark), "{} sleeps", shown(&path));
        }
    }
}

/// Name, first line (from 1) and length of every function, by the indentation that rustfmt gives its closing brace.
fn functions<'a>(lines: &[&'a str]) -> Vec<(&'a str, usize, usize)> {
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let indent = line.len() - code.len();
        let Some(name) = function_name(code) else { continue };
        let closes = |line: &&str| line.len() > indent && line.starts_with(&" ".repeat(indent)) && line[indent..].starts_with('}');
        if let Some(length) = lines[at..].iter().position(closes) {
            found.push((name, at + 1, length + 1));
        }
    }
    found
}

fn function_name(code: &str) -> Option<&str> {
    let mut words = code.split_whitespace().skip_while(|word| {
        matches!(*word, "pub" | "async" | "const" | "unsafe" | "extern") || word.starts_with("pub(") || word.starts_with("crate)")
    });
    if words.next()? != "fn" || code.ends_with(';') || code.ends_with('}') {
        return None;
    }
    words.next()?.split(['(', '<']).next()
}

fn rust_files() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let folders = ["broker", "sdk-rust", "sdk-node/native", "sdk-python", "plugins", "tests"];
    let mut folders: Vec<PathBuf> = folders.iter().map(|name| root().join(name)).collect();
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries.flatten() {
            let path = entry.path();
            let name = entry.file_name();
            if path.is_dir() && name != "target" && name != "dist" {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    assert!(found.len() > 30, "the sources are where they are looked for");
    found.sort();
    found
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new(".."))
}

fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn the_length_of_a_function_is_measured() {
    let lines = ["impl A {", "    pub async fn long<T>(", "        a: T,", "    ) {", "        b();", "    }", "}"];
    assert_eq!(functions(&lines), vec![("long", 2, 5)]);
}

//! `millpond transform new`, `build` and `test`: a project builds and passes its own test at once, in every language.

use crate::place::{Place, text};
use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// Where `plugins/build.sh` has installed what it needs.
fn plugins() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../plugins")
}

/// Runs a command in a folder of the place, with the tools of whoever runs the tests.
fn run(place: &Place, folder: &str, arguments: &[&str]) -> Output {
    let mut command = place.millpond();
    for name in ["PATH", "HOME", "CARGO_HOME", "RUSTUP_HOME"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    // What a build needs has been fetched before; the versions are the same.
    command.env("MILLPOND_TOOLS", plugins().join("target/tools")).env("CARGO_NET_OFFLINE", "true");
    command.current_dir(place.path(folder)).arg("transform").args(arguments).output().expect("it runs")
}

fn ok(place: &Place, folder: &str, arguments: &[&str]) -> String {
    let output = run(place, folder, arguments);
    assert!(output.status.success(), "transform {}:\n{}{}", arguments.join(" "), text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

fn fails(place: &Place, folder: &str, arguments: &[&str], code: i32) -> String {
    let output = run(place, folder, arguments);
    assert_eq!(output.status.code(), Some(code), "{}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stderr)
}

/// What npm would install is there.
fn has_tools(place: &Place, project: &str, lang: &str) {
    if lang == "js" {
        let modules = plugins().join("sdk-js/node_modules");
        std::os::unix::fs::symlink(modules, place.path(project).join("sdk-js/node_modules")).expect("a link");
    }
}

/// A project is made, built and tested with the commands that it was made with; then it is broken and not built.
fn builds_and_passes(lang: &str, guest: &str, broken: &str) {
    let place = Place::new();
    let made = ok(&place, ".", &["new", "my.filter-1", "--lang", lang]);
    assert!(made.starts_with(&format!("made my.filter-1: the module is my.filter-1/{guest}\n")), "{made}");
    has_tools(&place, "my.filter-1", lang);
    let built = ok(&place, "my.filter-1", &["build"]);
    assert!(built.starts_with("made build/my.filter-1.wasm: "), "{built}");
    let test = made.lines().last().and_then(|line| line.trim().strip_prefix("millpond transform ")).expect("the last line is the test");
    let tested = ok(&place, "my.filter-1", &test.split(' ').collect::<Vec<_>>());
    for words in ["line 1: dropped\n", "line 2: changed\n", "line 3: kept\n", "\nall as in test/expected.jsonl\n"] {
        assert!(tested.contains(words), "{words}: {tested}");
    }
    place.file(&format!("my.filter-1/{guest}"), broken.as_bytes());
    let refused = fails(&place, "my.filter-1", &["build"], 1);
    assert!(refused.contains("ended with exit status: ") && refused.contains(guest), "{refused}");
}

/// A project of a module that derives topics and keeps state is made, tested natively as its readme says, built, and tested with the command
/// that it was made with.
fn derives_and_passes(lang: &str) -> Place {
    let place = Place::new();
    let made = ok(&place, ".", &["new", "alarms", "--lang", lang, "--world", "stateful-derive"]);
    has_tools(&place, "alarms", lang);
    if lang != "rust" {
        let readme = std::fs::read_to_string(place.path("alarms/README.md")).expect("a readme");
        let test = readme.split("```sh\n").nth(1).and_then(|block| block.lines().next()).expect("the first command");
        let tested = Command::new("bash").args(["-c", test]).current_dir(place.path("alarms")).output().expect("it runs");
        assert!(tested.status.success(), "{test}:\n{}{}", text(&tested.stdout), text(&tested.stderr));
    }
    let built = ok(&place, "alarms", &["build"]);
    assert!(built.starts_with("made build/alarms.wasm: "), "{built}");
    let test = made.lines().last().and_then(|line| line.trim().strip_prefix("millpond transform ")).expect("the last line is the test");
    let tested = ok(&place, "alarms", &test.split(' ').collect::<Vec<_>>());
    for words in ["line 1: changed, to alarms\n", "line 2: kept, to readings\n", "\nall as in test/expected.jsonl\n"] {
        assert!(tested.contains(words), "{words}: {tested}");
    }
    place.file("alarms/millpond.toml", format!("name = \"alarms\"\nlang = \"{lang}\"\nworld = \"derive\"\n").as_bytes());
    place
}

#[test]
fn rust() {
    builds_and_passes("rust", "src/lib.rs", "fn broken(");
    derives_and_passes("rust");
}

#[test]
fn python() {
    builds_and_passes("python", "guest.py", "def broken(");
    derives_and_passes("python");
}

#[test]
fn javascript() {
    builds_and_passes("js", "guest.js", "import \"./none-of-guest.js\"; class {");
    // Without a state there are words in its place, when the module asks for it.
    let place = derives_and_passes("js");
    ok(&place, "alarms", &["build"]);
}

#[test]
fn c() {
    builds_and_passes("c", "guest.c", "int broken(");
    let refused = fails(&derives_and_passes("c"), "alarms", &["build"], 1);
    assert!(refused.contains("this world has no state: build the module for stateful-derive or stateful-transform"), "{refused}");
}

#[test]
fn nothing_is_written_over_and_wrong_usage_is_explained() {
    let place = Place::new();
    ok(&place, ".", &["new", "one", "--lang", "c"]);
    let refused = fails(&place, ".", &["new", "one", "--lang", "rust"], 2);
    assert!(refused.contains("one is there already, and nothing is written over"), "{refused}");
    assert!(place.path("one/guest.c").exists() && !place.path("one/Cargo.toml").exists());
    for wrong in [
        &["new", "two"][..],
        &["new", "two", "--lang", "cobol"],
        &["new", "two", "--lang", "c", "--world", "derive"],
        &["new", "a/b", "--lang", "c"],
        &["new", "..", "--lang", "c"],
    ] {
        fails(&place, ".", wrong, 2);
    }
    let refused = fails(&place, ".", &["build"], 2);
    assert!(refused.contains("can't read ./millpond.toml") && refused.contains("millpond transform new NAME"), "{refused}");
    for wrong in [
        "",
        "name = \"x\"",
        "name = \"x\"\nlang = \"c\"\nworld = \"view\"",
        "name = \"../x\"\nlang = \"c\"\nworld = \"transform\"",
        "\u{0}",
    ] {
        place.file("one/millpond.toml", wrong.as_bytes());
        let refused = fails(&place, ".", &["build", "one"], 2);
        assert!(refused.contains("one/millpond.toml does not say what the project is"), "{refused}");
    }
}

#[test]
fn a_tool_that_is_missing_is_named_with_its_package() {
    let place = Place::new();
    for (lang, words) in [
        ("rust", "can't run rustc"),
        ("python", "Debian's packages python3 and python3-venv"),
        ("js", "Debian's packages nodejs and npm"),
        ("c", "Debian's packages python3 and python3-venv"),
    ] {
        ok(&place, ".", &["new", lang, "--lang", lang]);
        let mut command = place.millpond();
        command.env("PATH", OsString::from("/nowhere")).env("MILLPOND_TOOLS", place.path("tools"));
        let output = command.args(["transform", "build", lang]).output().expect("it runs");
        let stderr = text(&output.stderr);
        assert!(output.status.code() == Some(1) && stderr.contains(words), "{stderr}");
    }
}

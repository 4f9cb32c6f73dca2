//! What the documents say is so: the quick start is typed as it is written, the code compiles, the paths are there.

use millpond_tests::{Broker, Site, text};
use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// What ARCHITECTURE.md names although it is not there yet.
const PLANNED: &[&str] = &["broker/kafka"];

#[test]
fn the_quick_start_of_the_readme_works_as_it_is_written() {
    let readme = read("README.md");
    let section = readme.split("## Quick start").nth(1).and_then(|rest| rest.split("\n## ").next()).expect("the section is there");
    let commands: Vec<&str> = blocks(section, "```\n").flat_map(str::lines).filter(|line| !line.is_empty()).collect();
    // The binary is built already, and the broker gets a folder and a port of its own: all else is typed.
    let (prepared, typed): (Vec<&str>, Vec<&str>) =
        commands.into_iter().partition(|line| line.starts_with("cargo ") || line.starts_with("millpond serve") || line.contains("://"));
    assert!(prepared.iter().any(|line| line.starts_with("millpond serve --data-dir ./data ")), "{prepared:?}");
    assert_eq!(typed.len(), 14, "{typed:#?}");

    let site = Site::new();
    let broker = site.start();
    let mut said = typed.iter().map(|line| (*line, typed_in(&broker, line)));
    let mut next = |start: &str| {
        let (line, said) = said.next().expect("a command");
        assert!(line.starts_with(start), "{line} stands where {start} was");
        said
    };
    assert_eq!(next("millpond topic create readings"), "created readings: 3 partitions, durability sync\n");
    assert!(next("millpond topic list").contains("readings"));
    assert_eq!(next("seq 1 100000 | millpond produce readings"), "");
    let mut numbers: Vec<u32> = next("millpond consume").lines().map(|line| line.parse().expect("a number")).collect();
    numbers.sort_unstable();
    assert!(numbers.into_iter().eq(1..=100_000));
    assert!(next("millpond transform deploy").starts_with("deployed drop-idle@1: transform"));
    assert!(next("millpond transform attach").contains("drop-idle"));
    let busy = next("echo");
    assert!(busy.contains("\"offset\":") && !busy.contains("null"), "{busy}");
    next("echo");
    let from = next("millpond consume readings --from offset:500");
    assert!(from.starts_with("{\"topic\":\"readings\",\"partition\":1,\"offset\":500,"), "{from}");
    assert!(next("millpond consume readings --from 'time:").lines().count() > 0);
    next("millpond topic create changed");
    assert!(next("millpond transform deploy").starts_with("deployed changes@1: "));
    assert!(next("millpond transform attach readings changes --into").contains("changed"));
    assert!(next("millpond transform alter readings changes").contains("deadband=0.2"));

    let stored = broker.ok(&["consume", "readings", "--from-beginning", "--until-end"]);
    let readings: Vec<&str> = stored.lines().filter(|line| line.contains("device")).collect();
    assert_eq!(readings, [r#"{"device":"pump-1","state":"busy","host":"***","watts":41}"#], "the idle one is dropped, the host is masked");
}

#[test]
fn the_code_of_the_readme_is_that_of_examples_which_are_compiled() {
    let readme = read("README.md");
    let shown: Vec<&str> = blocks(&readme, "```rust\n").collect();
    let compiled = ["plugins/sdk-rust/examples/hot.rs", "tests/examples/client.rs"].map(read);
    assert_eq!(shown.len(), compiled.len());
    for (shown, compiled) in shown.iter().zip(&compiled) {
        // What comes before the first `use` is for the compiler and its lints.
        let start = compiled.find("use ").expect("an example uses something");
        assert_eq!(*shown, &compiled[start..]);
    }
}

#[test]
fn every_path_in_the_architecture_is_there() {
    let architecture = read("ARCHITECTURE.md");
    let words = architecture.split('`').skip(1).step_by(2);
    let paths: Vec<&str> = words.filter(|word| word.contains('/') && !word.contains([' ', ':', '(', '<'])).collect();
    assert!(paths.len() > 15, "paths are where they are looked for: {paths:?}");
    let missing: Vec<_> = paths.iter().filter(|path| !root().join(path).exists() && !PLANNED.contains(path)).collect();
    assert!(missing.is_empty(), "ARCHITECTURE.md names what is not there: {missing:?}");
    let arrived: Vec<_> = PLANNED.iter().filter(|path| root().join(path).exists()).collect();
    assert!(arrived.is_empty(), "planned no longer: {arrived:?}");
}

/// What a command of the documents prints. One that would go on for ever is stopped after a few lines, as a person would.
#[track_caller]
fn typed_in(broker: &Broker, line: &str) -> String {
    let goes_on = line.starts_with("millpond consume") && !line.contains("--until-end");
    let binary = millpond_tests::millpond();
    let folder = Path::new(binary.get_program()).parent().expect("the binary is in a folder");
    let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap_or_default());
    // Without a shell in between, there is only one process to stop.
    let script = if goes_on { format!("exec {line}") } else { line.to_owned() };
    let mut child = Command::new("sh")
        .args(["-c", &script])
        .current_dir(root())
        .env("PATH", path)
        .env("MILLPOND_URL", broker.url())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("there is a shell");
    if goes_on {
        let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let said: Vec<String> = lines.take(3).map(|line| line.expect("it is text") + "\n").collect();
        child.kill().expect("it was ours");
        child.wait().expect("it was ours");
        return said.concat();
    }
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{line}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// The blocks of a document that begin so.
fn blocks<'a>(document: &'a str, opening: &'static str) -> impl Iterator<Item = &'a str> {
    let mut inside = None;
    let mut at = 0;
    let mut found = Vec::new();
    for line in document.split_inclusive('\n') {
        let start = at;
        at += line.len();
        match inside {
            Some((from, wanted)) if line.starts_with("```") => {
                if wanted {
                    found.push(&document[from..start]);
                }
                inside = None;
            }
            None if line.starts_with("```") => inside = Some((at, line == opening)),
            _ => {}
        }
    }
    found.into_iter()
}

fn read(path: &str) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests are in the repository").to_owned()
}

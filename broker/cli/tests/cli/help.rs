//! What help looks like, and that wrong usage ends with 2.

use crate::{
    place::{Place, text},
    snapshot,
};

const COMMANDS: &[&[&str]] = &[
    &[],
    &["serve"],
    &["topic"],
    &["topic", "create"],
    &["topic", "list"],
    &["topic", "describe"],
    &["topic", "alter"],
    &["topic", "delete-records"],
    &["topic", "delete"],
    &["produce"],
    &["consume"],
    &["transform"],
    &["transform", "new"],
    &["transform", "build"],
    &["transform", "test"],
    &["transform", "deploy"],
    &["transform", "list"],
    &["transform", "describe"],
    &["transform", "rollback"],
    &["transform", "attach"],
    &["transform", "alter"],
    &["transform", "detach"],
    &["transform", "logs"],
    &["transform", "delete"],
    &["log"],
    &["log", "dump"],
    &["log", "verify"],
    &["log", "repair"],
    &["bench"],
    &["config"],
    &["config", "show"],
    &["completions"],
];

#[test]
fn every_command_explains_itself() {
    let place = Place::new();
    for command in COMMANDS {
        let mut arguments = command.to_vec();
        arguments.push("--help");
        let output = place.run(&arguments);
        assert!(output.stderr.is_empty(), "{arguments:?}");
        let name = if command.is_empty() { "millpond".to_owned() } else { command.join("-") };
        snapshot::check(&format!("help-{name}"), &snapshot::of(&arguments, &output));
    }
}

#[test]
fn wrong_usage_ends_with_2_and_says_so_on_stderr() {
    let place = Place::new();
    for arguments in [
        &["serv"][..],
        &["topic"],
        &["topic", "create"],
        &["topic", "create", "a", "--partitions", "many"],
        &["topic", "create", "a", "--durability", "perhaps"],
        &["topic", "list", "-o", "xml"],
        &["consume", "a", "--from", "yesterday"],
        &["consume", "a", "--from-beginning", "--from", "end"],
        &["produce", "a", "-i", "jsonl", "--key-separator", ":"],
        &["produce", "a", "--linger", "5"],
        &["produce", "a", "--compression", "rar"],
        &["transform", "attach", "a", "b"],
        &["transform", "attach", "a", "b", "--on", "produce", "--param", "novalue"],
        &["serve", "--set", "quic.listen"],
        &["serve", "--quic-listen", "everywhere"],
        &["serve", "--config", "none.toml"],
        &["topic", "create", "a", "--config", "none.toml"],
        &["topic", "list", "--url", "http://127.0.0.1"],
        &["topic", "list", "--url", "millpond://127.0.0.1?fp=sha256:00"],
        &["topic", "list", "--ca-file", "none.pem"],
        &["topic", "create", "a", "--partitions", "0"],
        &["topic", "create", "a", "--partitions", "10001"],
        &["topic", "create", "a", "--segment-bytes", "1"],
        &["topic", "create", "a", "--max-batch-bytes", "1"],
        &["topic", "create", "not/a/name"],
        &["topic", "describe", ".hidden"],
        &["topic", "delete", ""],
        &["consume", "not/a/name"],
        &["consume", "a", "--from", "offset:-1"],
        &["consume", "a", "--partition", "-1"],
        &["consume", "a", "--max", "0"],
        &["produce", "not a name"],
        &["produce", "a", "--linger", "2h"],
        &["produce", "a", "--batch-bytes", "1"],
        &["produce", "a", "--delivery-timeout", "0s"],
        &["produce", "a", "--file", "none.txt"],
        &["produce", "a", "--file", "."],
        &["transform", "deploy", "none.wasm"],
        &["transform", "deploy", "no name.wasm"],
        &["transform", "attach", "a", "not/a/name", "--on", "produce"],
        &["transform", "attach", "a", "b", "--on", "produce", "--param", "k=1", "--param", "k=2"],
        &["bench", "--only", "everything"],
        &["bench", "--seconds", "0"],
        &["bench", "--plugin", "none.wasm"],
    ] {
        let output = place.run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", text(&output.stderr));
        assert!(output.stdout.is_empty(), "{arguments:?}");
        assert!(text(&output.stderr).starts_with("error: ") || arguments == ["topic"], "{arguments:?}: {}", text(&output.stderr));
    }
}

#[test]
fn the_help_of_the_benchmark_names_every_case() {
    let place = Place::new();
    let (short, long) = (text(&place.run(&["bench", "-h"]).stdout), text(&place.run(&["bench", "--help"]).stdout));
    assert!(short.contains("`millpond bench --help` explains"), "{short}");
    // clap lists them as the values of --only.
    let listed = long.split("[possible values: ").nth(1).and_then(|rest| rest.split(']').next()).expect("the cases");
    let table = long.split("\nCases: ").nth(1).expect("the table of cases");
    let cases: Vec<_> = listed.split([',', ' ', '\n']).filter(|case| !case.is_empty()).collect();
    assert!(cases.len() == 12 && cases.iter().all(|case| table.contains(&format!("\n  {case} "))), "{cases:?}\n{table}");
}

#[test]
fn the_version_goes_to_stdout() {
    let output = Place::new().run(&["--version"]);
    assert_eq!(text(&output.stdout), format!("millpond {}\n", env!("CARGO_PKG_VERSION")));
    assert!(output.status.success());
}

#[test]
fn completions_are_written_for_every_shell() {
    let place = Place::new();
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let output = place.run(&["completions", shell]);
        assert!(output.status.success() && text(&output.stdout).contains("produce"), "{shell}");
    }
}

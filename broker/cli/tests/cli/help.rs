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
    &["topic", "delete"],
    &["produce"],
    &["consume"],
    &["transform"],
    &["transform", "deploy"],
    &["transform", "list"],
    &["transform", "attach"],
    &["transform", "detach"],
    &["transform", "delete"],
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
    ] {
        let output = place.run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", text(&output.stderr));
        assert!(output.stdout.is_empty(), "{arguments:?}");
        assert!(text(&output.stderr).starts_with("error: ") || arguments == ["topic"], "{arguments:?}: {}", text(&output.stderr));
    }
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

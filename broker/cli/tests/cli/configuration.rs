//! `config show`, and what is refused.

use crate::{
    place::{Place, text},
    snapshot,
};

/// Defaults that depend on the machine.
const FIXED: &[&str] = &["--set", "threads.io=2", "--set", "threads.plugin=2"];

const FILE: &str = "\
data_dir = \"/srv/millpond\"

[quic]
listen = \"0.0.0.0:9440\"
idle_timeout = \"45s\"

[tls]
names = [\"gateway.example\", \"10.0.0.7\"]
";

#[test]
fn the_defaults_are_shown() {
    let place = Place::new();
    let mut arguments = vec!["config", "show"];
    arguments.extend(FIXED);
    snapshot::check("config-show", &snapshot::of(&arguments, &place.run(&arguments)));
}

#[test]
fn every_value_is_shown_with_where_it_came_from() {
    let place = Place::new();
    place.file("mill.toml", FILE.as_bytes());
    let mut arguments = vec!["config", "show", "-o", "json", "--config", "mill.toml", "--log-level", "debug"];
    arguments.extend(FIXED);
    let variables = [("MILLPOND_QUIC__LISTEN", "[::]:9441"), ("MILLPOND_TOPIC__DURABILITY", "os")];
    let output = place.run_with(&arguments, &variables, b"");
    snapshot::check("config-show-layers", &snapshot::of(&arguments, &output));
    let by_variable = place.run_with(
        &["config", "show", "-o", "json", "--log-level", "debug", "--set", "threads.io=2", "--set", "threads.plugin=2"],
        &[variables[0], variables[1], ("MILLPOND_CONFIG", "mill.toml")],
        b"",
    );
    assert_eq!(text(&output.stdout), text(&by_variable.stdout), "MILLPOND_CONFIG is the same as --config");
}

#[test]
fn json_lines_have_one_key_each() {
    let output = Place::new().run(&["config", "show", "-o", "jsonl"]);
    for line in text(&output.stdout).lines() {
        let shown: serde_json::Value = serde_json::from_str(line).expect("JSON");
        assert!(shown["key"].is_string() && shown["from"]["kind"] == "default", "{line}");
    }
}

#[test]
fn what_is_wrong_is_refused_with_its_place_and_a_hint() {
    let place = Place::new();
    place.file("misspelt.toml", b"[quic]\nlisen = \"0.0.0.0:9440\"\n");
    place.file("topic.toml", b"[topic]\ncleanup_policy = \"compact\"\n");
    place.file("section.toml", b"[quik]\nlisten = \"0.0.0.0:9440\"\n");
    place.file("broken.toml", b"[quic\n");
    place.file("value.toml", b"memory_limit = \"lots\"\n");
    let mut shown = String::new();
    for (arguments, variables) in [
        (&["config", "show", "--config", "misspelt.toml"][..], &[][..]),
        (&["config", "show", "--config", "topic.toml"], &[]),
        (&["config", "show", "--config", "section.toml"], &[]),
        (&["config", "show", "--config", "broken.toml"], &[]),
        (&["config", "show", "--config", "value.toml"], &[]),
        (&["config", "show", "--config", "none.toml"], &[]),
        (&["config", "show"], &[("MILLPOND_QUIC_LISTEN", "0.0.0.0:9440")]),
        (&["config", "show"], &[("MILLPOND_TOPIC__DURABILITY", "sometimes")]),
        (&["config", "show", "--set", "durability=os"], &[]),
        (&["config", "show", "--set", "something.else=1"], &[]),
        (&["serve", "--log-level", "loud"], &[]),
        (&["serve", "--quic-listen", "banana"], &[]),
        (&["serve"], &[("MILLPOND_LOG", "=,=")]),
        (&["topic", "create", "a"], &[("MILLPOND_TOPIC__SEGMENT_BYTES", "1")]),
    ] {
        let output = place.run_with(arguments, variables, b"");
        let variables: String = variables.iter().flat_map(|(name, value)| [*name, "=", *value, " "]).collect();
        shown.push_str(&snapshot::of(arguments, &output).replacen("$ ", &format!("$ {variables}"), 1));
        shown.push('\n');
    }
    snapshot::check("config-refused", &shown);
}

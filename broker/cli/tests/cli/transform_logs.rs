//! What a module has logged and how it failed, as the operator reads it: at once, and as it comes.

use crate::{
    guests,
    place::{Broker, Place, send, text},
};
use rustix::process::Signal;
use serde_json::Value;
use std::{
    io::{BufRead, BufReader, Read},
    process::Stdio,
};

/// Topics `t` and `u`, on which the hostile guest panics at batches with `poison` in them.
fn prepared() -> (Place, Broker) {
    let place = Place::new();
    let broker = place.serve();
    place.file("hostile.wasm", &guests::hostile());
    broker.ok(&place, &["transform", "deploy", "hostile.wasm"], b"");
    for topic in ["t", "u"] {
        broker.ok(&place, &["topic", "create", topic], b"");
        let attach = ["transform", "attach", topic, "hostile", "--on", "produce", "--param", "mode=trap", "--param", "only=poison"];
        broker.ok(&place, &attach, b"");
    }
    (place, broker)
}

#[test]
fn a_trap_is_shown_with_its_batch_and_the_functions_of_the_guest() {
    let (place, broker) = prepared();
    assert_eq!(broker.ok(&place, &["transform", "logs", "hostile"], b""), "");
    broker.ok(&place, &["produce", "t"], b"good\n");
    let refused = broker.fails(&place, &["produce", "t"], b"poison\n");
    assert!(refused.contains("transform logs hostile"), "the hint says where to look: {refused}");
    let words = broker.ok(&place, &["transform", "logs", "hostile"], b"");
    let lines: Vec<&str> = words.lines().collect();
    assert!(lines[0].contains(" ERROR t[0] produce hostile@1: ") && lines[0].contains("told to panic"), "{words}");
    assert!(lines[1].contains(" ERROR t[0] produce hostile@1: the module `hostile` failed on a batch for the topic `t`"), "{words}");
    assert!(
        lines[2].starts_with("    guest_trapped: 1 record, producer ") && lines[2].contains(", sequence 0, base timestamp 1"),
        "{words}"
    );
    assert!(lines[3..].iter().any(|line| line.starts_with("    ") && line.contains("transform")), "{words}");

    let json: Value = serde_json::from_str(&broker.ok(&place, &["transform", "logs", "hostile", "-o", "json"], b"")).expect("JSON");
    let failure = &json[1];
    assert_eq!((&failure["module"], &failure["topic"], &failure["partition"]), (&"hostile".into(), &"t".into(), &0.into()));
    assert_eq!(
        (&failure["level"], &failure["version"], &failure["failure"]["code"]),
        (&"error".into(), &1.into(), &"guest_trapped".into())
    );
    assert_eq!(failure["failure"]["batch"]["records"], 1);
    assert!(failure["failure"]["backtrace"].as_str().is_some_and(|backtrace| backtrace.contains("transform")), "{failure}");
    let last = broker.ok(&place, &["transform", "logs", "hostile", "--limit", "1", "-o", "jsonl"], b"");
    assert_eq!(serde_json::from_str::<Value>(&last).expect("one line"), *failure);
    assert_eq!(broker.ok(&place, &["transform", "logs", "hostile", "--topic", "u"], b""), "");

    let unknown = broker.fails(&place, &["transform", "logs", "hostil"], b"");
    assert!(unknown.contains("did you mean `hostile`?"), "{unknown}");
    for wrong in [&["--limit", "0"][..], &["--limit", "1001"], &["--follow", "-o", "json"], &["--topic", "not/a/name"]] {
        let output = broker.run(&place, &[&["transform", "logs", "hostile"], wrong].concat(), b"");
        assert_eq!(output.status.code(), Some(2), "{wrong:?}: {}", text(&output.stderr));
    }
}

#[test]
fn how_a_module_is_doing_is_described_from_both_sides() {
    let (place, broker) = prepared();
    broker.ok(&place, &["produce", "t"], b"good\n");
    broker.fails(&place, &["produce", "t"], b"poison\n");
    let words = broker.ok(&place, &["topic", "describe", "t"], b"");
    assert!(words.contains("\nhostile: a batch took ") && words.contains(" on average, half of them "), "{words}");
    assert!(words.contains("\nhostile has failed: guest_trapped on 1 batch; 1 record refused with the batch\n"), "{words}");
    let words = broker.ok(&place, &["transform", "describe", "hostile"], b"");
    let row = |topic: &str| -> Vec<String> {
        let line = words.lines().find(|line| line.starts_with(&format!("{topic}  "))).unwrap_or_else(|| panic!("no {topic} in\n{words}"));
        line.split_whitespace().map(str::to_owned).collect()
    };
    assert_eq!(row("t")[..8], ["t", "produce", "1", "runs", "2", "1", "2", "1"]);
    assert_eq!(row("u")[..8], ["u", "produce", "1", "runs", "0", "0", "0", "0"]);
    assert!(words.ends_with("\non t it has failed: guest_trapped on 1 batch; 1 record refused with the batch\n"), "{words}");
    let module: Value = serde_json::from_str(&broker.ok(&place, &["transform", "describe", "hostile", "-o", "json"], b"")).expect("JSON");
    let work = &module["versions"][0]["attached"][0]["status"]["work"];
    assert_eq!((&work["failures_by_kind"]["guest_trapped"], &work["batch_times"]["batches"]), (&1.into(), &2.into()), "{module}");
    assert!(work["memory_bytes_peak"].as_u64().is_some_and(|bytes| bytes >= 65_536), "{work}");
}

#[test]
fn a_log_is_followed_as_it_comes_until_a_signal() {
    let (place, broker) = prepared();
    broker.fails(&place, &["produce", "u"], b"poison\n");
    let mut command = place.millpond();
    command.args(["transform", "logs", "hostile", "--follow", "-o", "jsonl"]).env("MILLPOND_URL", broker.url());
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary runs");
    let mut stdout = BufReader::new(child.stdout.take().expect("it is piped"));
    let mut next = || -> Value {
        let mut line = String::new();
        stdout.read_line(&mut line).expect("it can be read");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
    };
    let mut topics = vec![next()["topic"].clone(), next()["topic"].clone()];
    // What comes now.
    broker.fails(&place, &["produce", "t"], b"poison\n");
    topics.extend([next()["topic"].clone(), next()["topic"].clone()]);
    assert_eq!(topics, ["u", "u", "t", "t"]);
    send(&child, Signal::TERM);
    let status = child.wait().expect("it ends");
    let (mut rest, mut words) = (String::new(), String::new());
    stdout.read_to_string(&mut rest).expect("it can be read");
    child.stderr.take().expect("it is piped").read_to_string(&mut words).expect("it can be read");
    assert!(status.success() && rest.is_empty() && words.is_empty(), "{status} {rest} {words}");
}

//! A derived topic from the command line: attached, described, detached.

use crate::{
    guests,
    place::{Broker, Place, text},
};
use serde_json::Value;

fn prepared() -> (Place, Broker) {
    let place = Place::new();
    let broker = place.serve();
    for topic in ["source", "target"] {
        broker.ok(&place, &["topic", "create", topic], b"");
    }
    place.file("half.wasm", &guests::transform());
    broker.ok(&place, &["transform", "deploy", "half.wasm", "--name", "half"], b"");
    (place, broker)
}

fn derived(place: &Place, broker: &Broker) -> Value {
    let topic: Value = serde_json::from_str(&broker.ok(place, &["topic", "describe", "source", "-o", "json"], b"")).expect("JSON");
    topic["attachments"][0]["derived"].clone()
}

#[test]
fn what_is_derived_can_be_read_and_the_source_says_how_far_it_is() {
    let (place, broker) = prepared();
    broker.ok(&place, &["produce", "source"], b"1\n2\n");
    let attach = ["transform", "attach", "source", "half", "--into", "target", "--from", "offset:1", "--param", "mode=even"];
    let limits = ["--retries", "2"];
    assert_eq!(broker.ok(&place, &[&attach[..], &limits].concat(), b""), "attached half to source, into target\n");
    broker.ok(&place, &["produce", "source"], b"3\n4\n5\n");
    while derived(&place, &broker)["partitions"][0]["position"] != 5 {}
    assert_eq!(broker.ok(&place, &["consume", "target", "--from-beginning", "--until-end"], b""), "3\n5\n");
    let found = derived(&place, &broker);
    assert_eq!((&found["targets"][0], &found["retries"], &found["state_bytes_max"]), (&"target".into(), &2.into(), &0.into()));
    let words = broker.ok(&place, &["topic", "describe", "source"], b"");
    assert!(words.contains("half: on error stop") && words.contains("\nhalf into target: no state, files up to "), "{words}");
    assert!(words.contains("POSITION") && words.contains("\nhalf@1  derive "), "{words}");
    let words = broker.ok(&place, &["transform", "describe", "half"], b"");
    assert!(words.contains("source (on derive into target)") && words.contains("\nsource into target: no state"), "{words}");
    let row = words.lines().rev().find(|line| !line.is_empty()).map(|line| line.split_whitespace().take(3).collect::<Vec<_>>());
    assert_eq!(row, Some(vec!["0", "5", "0"]), "partition, position and lag: {words}");
    let module: Value = serde_json::from_str(&broker.ok(&place, &["transform", "describe", "half", "-o", "json"], b"")).expect("JSON");
    let partition = &module["versions"][0]["attached"][0]["status"]["derived"]["partitions"][0];
    assert_eq!((&partition["position"], &partition["lag"]), (&5.into(), &0.into()), "{module}");
    let refused = broker.fails(&place, &["topic", "delete", "target", "--yes"], b"");
    assert!(refused.contains("hint: `millpond transform detach source half --on derive` first"), "{refused}");
    let detached = "detached half from source, on derive\nto go on where it was, attach it again with `--from offset:0=5`\n";
    assert_eq!(broker.ok(&place, &["transform", "detach", "source", "half"], b""), detached);
    broker.ok(&place, &["topic", "delete", "target", "--yes"], b"");
}

#[test]
fn how_it_runs_is_changed_where_it_is() {
    let (place, broker) = prepared();
    let alter = |arguments: &[&'static str]| [&["transform", "alter", "source", "half"], arguments].concat();
    let none = broker.fails(&place, &alter(&["--time", "20ms"]), b"");
    assert!(none.contains("no module `half` is attached to source"), "{none}");
    broker.ok(&place, &["transform", "attach", "source", "half", "--into", "target", "--param", "mode=even"], b"");
    broker.ok(&place, &["produce", "source"], b"1\n2\n");
    while derived(&place, &broker)["partitions"][0]["position"] != 2 {}
    let changed = broker.ok(&place, &alter(&["--param", "mode=case", "--time", "20ms", "--retries", "9"]), b"");
    assert!(changed.starts_with("changed half on source: version 1, on error stop, memory "), "{changed}");
    assert!(
        changed.contains(", 20 ms a batch, ") && changed.contains(", mode=case, no state, ") && changed.ends_with(", 9 retries\n"),
        "{changed}"
    );
    broker.ok(&place, &["produce", "source"], b"a\nb\n");
    while derived(&place, &broker)["partitions"][0]["position"] != 4 {}
    assert_eq!(broker.ok(&place, &["consume", "target", "--from-beginning", "--until-end"], b""), "1\nA\nB\n");
    let pinned = broker.ok(&place, &["transform", "alter", "source", "half@1", "--default-limits", "-o", "json"], b"");
    let pinned: Value = serde_json::from_str(&pinned).expect("JSON");
    assert_eq!((&pinned["pinned"], &pinned["derived"]["retries"]), (&true.into(), &9.into()), "{pinned}");
    assert_ne!(pinned["limits"]["time_ms"], 20);

    let output = broker.run(&place, &alter(&[]), b"");
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("there is nothing to change"), "{}", text(&output.stderr));
    let small = broker.fails(&place, &alter(&["--memory", "1KiB"]), b"");
    assert!(small.contains("`memory_bytes` is 1 KiB: 64 KiB to ") && small.contains("hint:"), "{small}");
}

#[test]
fn what_does_not_go_together_is_said() {
    let (place, broker) = prepared();
    for arguments in [
        &["source", "half"][..],
        &["source", "half", "--on", "produce", "--from", "end"],
        &["source", "half", "--on", "fetch", "--into", "target"],
        &["source", "half", "--into", "target", "--name", "v"],
        &["source", "half", "--into", "a,,b"],
    ] {
        let output = broker.run(&place, &[&["transform", "attach"], arguments].concat(), b"");
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", text(&output.stderr));
    }
    let usage = |arguments: &[&str]| text(&broker.run(&place, arguments, b"").stderr);
    let place_missing = usage(&["transform", "attach", "source", "half"]);
    assert!(place_missing.contains("--on") && place_missing.contains("--into"), "{place_missing}");
    let version = usage(&["transform", "detach", "source", "half@7"]);
    assert!(version.contains("give the name alone, `half`"), "{version}");
    let state = broker.fails(&place, &["transform", "attach", "source", "half", "--into", "target", "--state-bytes", "1MiB"], b"");
    assert!(state.contains("keeps no state") && state.contains("leave out `--state-bytes`"), "{state}");
    let round = broker.fails(&place, &["transform", "attach", "source", "half", "--into", "source"], b"");
    assert!(round.contains("round for ever") && round.contains("hint:"), "{round}");
    let alone = broker.fails(&place, &["transform", "attach", "source", "half", "--on", "derive"], b"");
    assert!(alone.contains("--into"), "{alone}");
}

//! `millpond transform test` for modules that derive topics and keep a state: the same as a broker does, without one.

use crate::{
    guests,
    place::{Place, text},
};
use serde_json::Value;

/// Of the samples in `plugins/`, which `plugins/build.sh` builds.
const SAMPLES: [&str; 3] = ["changes", "count", "route"];

const EVENTS: &str = r#"{"key":"a","value":{"type":"alarm","value":20.0},"timestamp":1000}
{"key":"b","value":{"type":"reading","value":20.5},"timestamp":1001,"headers":{"h":"x"}}
{"key":"a","value":{"type":"alarm","value":20.0},"timestamp":1002}
{"value":{"type":"other"},"timestamp":1003}
{"key":"c","value":{"type":"reading","value":21},"timestamp":1004}
"#;

fn prepared() -> Place {
    let place = Place::new();
    for name in SAMPLES {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../plugins/dist").join(name).with_extension("wasm");
        let wasm = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}; plugins/build.sh makes it", path.display()));
        place.file(&format!("{name}.wasm"), &wasm);
    }
    place.file("events.jsonl", EVENTS.as_bytes());
    place
}

/// Runs a test of a module on the events: exit code, stdout, stderr.
fn run(place: &Place, arguments: &[&str]) -> (i32, String, String) {
    let output = place.run(&[&["transform", "test", "--input", "events.jsonl"][..], arguments].concat());
    (output.status.code().expect("it ended by itself"), text(&output.stdout), text(&output.stderr))
}

fn ok(place: &Place, arguments: &[&str]) -> String {
    let (code, stdout, stderr) = run(place, arguments);
    assert_eq!(code, 0, "{arguments:?}: {stdout}{stderr}");
    stdout
}

#[test]
fn each_record_is_told_with_the_topics_that_it_went_to() {
    let place = prepared();
    let route =
        ["route.wasm", "--into", "alarms:1,rest", "--param", "to.alarm=alarms", "--param", "to.reading=rest", "--param", "key=type"];
    let stdout = ok(&place, &route);
    let lines: Vec<_> = stdout.lines().collect();
    assert!(lines[0].starts_with("route.wasm: derive, ") && lines[1].starts_with("batch 1: 5 records, "), "{stdout}");
    assert_eq!(lines[2], "  line 1: changed, to alarms");
    assert_eq!(lines[3], r#"    - {"timestamp":1000,"key":"a","value":"{\"type\":\"alarm\",\"value\":20.0}","headers":{}}"#);
    let came = r#"    + {"topic":"alarms","partition":0,"offset":0,"timestamp":1000,"key":"alarm","value":""#;
    assert!(lines[4].starts_with(came), "{stdout}");
    assert!(stdout.contains("\n  line 4: dropped\n"), "{stdout}");
    assert!(stdout.contains("\n5 records in: 4 changed, 1 dropped; 4 records out (2 to alarms, 2 to rest), "), "{stdout}");
    assert!(!stdout.contains("state: "), "there is none");
}

#[test]
fn the_topic_of_a_line_counts_where_the_module_chooses_it() {
    let place = prepared();
    let route =
        ["route.wasm", "--into", "alarms,rest", "--param", "to.alarm=alarms", "--param", "otherwise=rest", "--expect", "expected.jsonl"];
    let line = |topic: &str, line: usize| format!("{{\"topic\":\"{topic}\",{}\n", &EVENTS.lines().nth(line).expect("a line")[1..]);
    let right: String = ["alarms", "rest", "alarms", "rest", "rest"].iter().zip(0..).map(|(topic, at)| line(topic, at)).collect();
    place.file("expected.jsonl", right.as_bytes());
    for batch in ["1", "2", "1000"] {
        let stdout = ok(&place, &[&route[..], &["--batch", batch]].concat());
        assert!(stdout.ends_with("\nall as in expected.jsonl\n"), "in the order of the records, however they are batched: {stdout}");
    }
    // Without a topic any will do.
    place.file("expected.jsonl", EVENTS.as_bytes());
    ok(&place, &route);
    place.file("expected.jsonl", right.replacen("rest", "alarms", 1).as_bytes());
    let (code, stdout, _) = run(&place, &route);
    assert!(code == 1 && stdout.contains("\n  - line 2: {\"topic\":\"alarms\",\"timestamp\":1001,"), "{stdout}");
    assert!(stdout.contains("\n  + {\"topic\":\"rest\",\"partition\":"), "{stdout}");
    // Nothing chooses the topic of a transform on produce.
    place.file("half.wasm", &guests::transform());
    ok(&place, &["half.wasm", "--expect", "expected.jsonl"]);
    place.file("expected.jsonl", b"{\"topic\":7,\"value\":1}\n");
    let (code, _, stderr) = run(&place, &route);
    assert!(code == 2 && stderr.contains("`topic` must be a string, or null"), "{stderr}");
}

#[test]
fn the_state_lives_from_batch_to_batch_and_its_size_is_told() {
    let place = prepared();
    let changes = ["changes.wasm", "--into", "changed", "--state-bytes", "1KiB", "--batch", "1"];
    let stdout = ok(&place, &changes);
    assert!(stdout.contains("\n  line 1: kept, to changed\n") && stdout.contains("\n  line 3: dropped\n"), "{stdout}");
    assert!(stdout.ends_with("\nstate: 3 entries, 243 B of 1.0 KiB\n"), "three keys of one byte: {stdout}");
    let brief = ok(&place, &[&changes[..], &["-o", "brief"]].concat());
    assert!(brief.lines().count() == 8 && brief.ends_with("\nstate: 3 entries, 243 B of 1.0 KiB\n"), "{brief}");
    let (code, stdout, stderr) = run(&place, &[&changes[..], &["-o", "jsonl"]].concat());
    assert!(code == 0 && stdout.lines().count() == 4 && stderr.contains("state: 3 entries"), "{stdout}{stderr}");
    // A transform without a state runs there too.
    place.file("half.wasm", &guests::transform());
    let stdout = ok(&place, &["half.wasm", "--into", "t", "--param", "mode=i"]);
    assert!(stdout.contains("5 records out (5 to t), "), "{stdout}");
}

#[test]
fn what_a_batch_changed_on_which_the_module_failed_is_taken_back() {
    let place = prepared();
    // There is room for two keys, each of 73 bytes.
    let count = ["count.wasm", "--into", "numbered", "--state-bytes", "146", "--batch", "2", "-o", "brief"];
    place.file(
        "events.jsonl",
        b"{\"key\":\"a\",\"value\":1}\n{\"key\":\"a\",\"value\":1}\n{\"key\":\"b\",\"value\":1}\n{\"key\":\"c\",\"value\":1}\n",
    );
    let (code, stdout, stderr) = run(&place, &count);
    assert!(code == 1 && stderr.contains("the module failed on line 4 of events.jsonl") && stderr.contains("is full"), "{stderr}");
    assert!(stdout.ends_with("\nstate, without the batch that failed: 1 entry, 73 B of 146 B\n"), "b is gone with c: {stdout}");
}

#[test]
fn what_a_broker_would_not_attach_is_not_run() {
    let place = prepared();
    place.file("half.wasm", &guests::transform());
    place.file("deal.wasm", &guests::partitioner());
    for (arguments, cause, hint) in [
        (&["changes.wasm"][..], "keeps state, which there is for derived topics alone", "--into TOPIC --state-bytes"),
        (&["changes.wasm", "--into", "t"], "keeps state, and it is granted none", "--state-bytes"),
        (&["route.wasm"], "a module that derives topics is to be told which", "--into"),
        (&["half.wasm", "--into", "t,u"], "a transform does not choose among topics", "derive"),
        (&["route.wasm", "--into", "t,t"], "a topic is named twice", "once"),
        (&["deal.wasm", "--into", "t"], "is a partitioner, and on derive runs a derive", "--on partition"),
        (&["changes.wasm", "--into", "t", "--state-bytes", "17MiB"], "state_bytes", ""),
    ] {
        let (code, _, stderr) = run(&place, arguments);
        assert_eq!(code, 2, "{arguments:?}: {stderr}");
        assert!(stderr.contains("error: a broker would not attach ") && stderr.contains(cause), "{arguments:?}: {stderr}");
        assert!(stderr.contains("hint: ") && stderr.contains(hint), "{arguments:?}: {stderr}");
    }
    for arguments in [&["changes.wasm", "--state-bytes", "1MiB"][..], &["route.wasm", "--into", "t:0"], &["route.wasm", "--into", "t,,u"]] {
        let (code, _, stderr) = run(&place, arguments);
        assert!(code == 2 && !stderr.contains("a broker would"), "{arguments:?}: {stderr}");
    }
}

/// The same records through the same modules in a broker, whose topics have as many partitions.
#[test]
fn a_broker_has_the_same_records_at_the_same_places_and_the_same_state() {
    let place = prepared();
    let broker = place.serve();
    broker.ok(&place, &["topic", "create", "source", "--partitions", "1"], b"");
    let event = |number: usize| {
        let (key, kind, time) = (number % 7, ["alarm", "reading", "other"][number % 3], 1000 + number);
        format!("{{\"key\":\"k{key}\",\"value\":{{\"type\":\"{kind}\",\"value\":{number}}},\"timestamp\":{time}}}\n")
    };
    let mut events: String = (0..40).map(event).collect();
    events += "{\"value\":{\"type\":\"alarm\"},\"timestamp\":7}\n";
    place.file("events.jsonl", events.as_bytes());
    broker.ok(&place, &["produce", "source", "-i", "jsonl"], events.as_bytes());
    for (module, targets, options) in [
        ("route", &[("alarms", "3"), ("rest", "5")][..], &["--param", "to.alarm=alarms", "--param", "otherwise=rest"][..]),
        ("changes", &[("changed", "4")], &["--state-bytes", "1KiB", "--param", "deadband=8"]),
    ] {
        for (topic, partitions) in targets {
            broker.ok(&place, &["topic", "create", topic, "--partitions", partitions], b"");
        }
        let names: Vec<_> = targets.iter().map(|(topic, _)| *topic).collect();
        broker.ok(&place, &["transform", "deploy", &format!("{module}.wasm"), "--name", module], b"");
        broker.ok(&place, &[&["transform", "attach", "source", module, "--into", &names.join(",")], options].concat(), b"");
        let derived = loop {
            let topic = broker.ok(&place, &["topic", "describe", "source", "-o", "json"], b"");
            let topic: Value = serde_json::from_str(&topic).expect("JSON");
            let found = topic["attachments"].as_array().into_iter().flatten().find(|attachment| attachment["module"] == module);
            let derived = found.expect("it is attached")["derived"]["partitions"][0].clone();
            assert_eq!(derived["error"], Value::Null);
            if derived["position"] == 41 {
                break derived;
            }
        };
        let consume = |topic: &&str| broker.ok(&place, &["consume", topic, "--from-beginning", "--until-end", "-o", "jsonl"], b"");
        let mut stored: Vec<String> =
            names.iter().map(consume).flat_map(|lines| lines.lines().map(str::to_owned).collect::<Vec<_>>()).collect();
        let into = targets.iter().map(|(topic, partitions)| format!("{topic}:{partitions}")).collect::<Vec<_>>().join(",");
        let file = format!("{module}.wasm");
        let (code, stdout, stderr) = run(&place, &[&[&file, "-o", "jsonl", "--batch", "9", "--into", &into], options].concat());
        let mut tested: Vec<_> = stdout.lines().map(str::to_owned).collect();
        stored.sort_unstable();
        tested.sort_unstable();
        assert!(code == 0 && tested.len() > 10, "{stderr}");
        assert_eq!(stored, tested, "{module}");
        let entries = format!("state: {} entries, {} B of ", derived["state_entries"], derived["state_bytes"]);
        assert!(module == "route" || stderr.contains(&entries), "{entries}{stderr}");
    }
}

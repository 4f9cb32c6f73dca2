//! The life of a module: deployed, attached, at work, detached, deleted.

use crate::{
    guests,
    place::{Broker, Place, text},
};
use serde_json::Value;
use wit_component::ComponentEncoder;

/// A topic with one partition, and both modules deployed.
fn prepared() -> (Place, Broker) {
    let place = Place::new();
    let broker = place.serve();
    broker.ok(&place, &["topic", "create", "t"], b"");
    place.file("half.wasm", &guests::transform());
    place.file("deal.wasm", &guests::partitioner());
    let deployed = broker.ok(&place, &["transform", "deploy", "half.wasm", "--name", "drop-half"], b"");
    assert!(deployed.starts_with("deployed drop-half@1: transform, ") && deployed.contains("sha256 "), "{deployed}");
    broker.ok(&place, &["transform", "deploy", "deal.wasm"], b"");
    (place, broker)
}

fn described(place: &Place, broker: &Broker) -> Value {
    serde_json::from_str(&broker.ok(place, &["topic", "describe", "t", "-o", "json"], b"")).expect("JSON")
}

#[test]
fn a_transform_that_drops_records_is_seen_by_producer_consumer_and_topic() {
    let (place, broker) = prepared();
    let attached = broker.ok(&place, &["transform", "attach", "t", "drop-half", "--on", "produce", "--param", "mode=even"], b"");
    assert_eq!(attached, "attached drop-half to t, on produce\n");
    let produced = broker.run(&place, &["produce", "t", "-o", "jsonl", "--stats-json", "stats.json"], b"1\n2\n3\n4\n");
    assert_eq!(text(&produced.stdout).lines().count(), 4, "a line for each record");
    let summary = text(&produced.stderr);
    assert!(summary.starts_with("stored 2 records ") && summary.contains("; 2 left out by a transform"), "{summary}");
    let stats: Value = serde_json::from_slice(&std::fs::read(place.path("stats.json")).expect("written")).expect("JSON");
    assert_eq!((stats["records"].as_u64(), stats["dropped"].as_u64()), (Some(4), Some(2)));
    assert_eq!(broker.ok(&place, &["consume", "t", "--from-beginning", "--until-end"], b""), "1\n3\n");
    let attachment = described(&place, &broker)["attachments"][0].clone();
    assert_eq!((attachment["records_in"].as_u64(), attachment["records_dropped"].as_u64()), (Some(4), Some(2)));
    let words = broker.ok(&place, &["topic", "describe", "t"], b"");
    assert!(words.contains("\ndrop-half@1  produce "), "{words}");
}

#[test]
fn records_that_are_all_dropped_say_so() {
    let (place, broker) = prepared();
    broker.ok(&place, &["transform", "attach", "t", "drop-half", "--on", "produce", "--param", "mode=all"], b"");
    let answer = "{\"partition\":null,\"offset\":null,\"dropped\":true}\n";
    assert_eq!(broker.ok(&place, &["produce", "t", "-o", "jsonl"], b"1\n"), answer);
    assert_eq!(broker.ok(&place, &["consume", "t", "--from-beginning", "--until-end"], b""), "");
}

#[test]
fn a_batch_that_a_module_refuses_is_told_to_the_producer_by_its_line() {
    let (place, broker) = prepared();
    broker.ok(&place, &["transform", "attach", "t", "drop-half", "--on", "produce"], b"");
    let output = broker.run(&place, &["produce", "t", "-o", "jsonl"], b"all is well?\n");
    assert_eq!(output.status.code(), Some(1));
    let answer: Value = serde_json::from_slice(&output.stdout).expect("one line of JSON");
    assert_eq!((&answer["partition"], &answer["offset"], &answer["error"]), (&Value::Null, &Value::Null, &Value::from("guest_failed")));
    assert!(answer["line"] == 1 && answer["message"].as_str().is_some_and(|message| message.contains("refused")), "{answer}");
    let words = text(&output.stderr);
    assert!(words.contains("error: line 1 could not be stored") && words.contains("refused"), "{words}");
    let trapped = broker.fails(&place, &["produce", "t"], b"stop!\n");
    assert!(trapped.contains("line 1 could not be stored"), "{trapped}");
    broker.ok(&place, &["produce", "t"], b"the next one is stored\n");
}

#[test]
fn modules_are_listed_detached_and_deleted() {
    let (place, broker) = prepared();
    broker.ok(&place, &["transform", "attach", "t", "deal", "--on", "partition"], b"");
    let list = broker.ok(&place, &["transform", "list"], b"");
    let rows: Vec<Vec<&str>> = list.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(
        (rows[0][0], &rows[1][..3], &rows[2][..3]),
        ("NAME", &["deal", "1", "partitioner"][..], &["drop-half", "1", "transform"][..])
    );
    assert_eq!((rows[1].last(), rows[2].last()), (Some(&"t"), Some(&"-")));
    let modules: Value = serde_json::from_str(&broker.ok(&place, &["transform", "list", "-o", "json"], b"")).expect("JSON");
    assert_eq!((&modules[0]["attached_to"][0], &modules[1]["name"]), (&Value::from("t"), &Value::from("drop-half")));

    let refused = broker.fails(&place, &["transform", "delete", "deal"], b"");
    assert!(refused.contains("hint: `millpond transform detach t deal` frees it"), "{refused}");
    let refused = broker.fails(&place, &["transform", "attach", "t", "drop-half", "--on", "partition"], b"");
    assert!(refused.contains("--on produce"), "{refused}");
    assert_eq!(broker.ok(&place, &["transform", "detach", "t", "deal"], b""), "detached deal from t, on partition\n");
    assert_eq!(broker.ok(&place, &["transform", "delete", "deal"], b""), "deleted deal\n");
    assert!(!broker.ok(&place, &["transform", "list"], b"").contains("deal"));
}

#[test]
fn a_module_under_a_used_name_says_what_it_takes_the_place_of() {
    let (place, broker) = prepared();
    broker.ok(&place, &["transform", "attach", "t", "drop-half", "--on", "produce"], b"");
    place.file("other.wasm", &guests::transform_again());
    let deployed = broker.ok(&place, &["transform", "deploy", "other.wasm", "--name", "drop-half"], b"");
    assert!(deployed.ends_with("\nit takes the place of version 1, and runs on t from now on\n"), "{deployed}");
    let again = broker.ok(&place, &["transform", "deploy", "other.wasm", "--name", "drop-half"], b"");
    assert_eq!(again.lines().count(), 1, "the same bytes replace nothing: {again}");
}

#[test]
fn versions_are_shown_pinned_rolled_back_and_deleted() {
    let (place, broker) = prepared();
    broker.ok(&place, &["topic", "create", "u"], b"");
    broker.ok(&place, &["transform", "attach", "t", "drop-half", "--on", "produce"], b"");
    place.file("other.wasm", &guests::transform_again());
    broker.ok(&place, &["transform", "deploy", "other.wasm", "--name", "drop-half"], b"");
    let attached = broker.ok(&place, &["transform", "attach", "u", "drop-half@1", "--on", "produce"], b"");
    assert_eq!(attached, "attached drop-half@1 to u, on produce\n");
    let words = broker.ok(&place, &["transform", "describe", "drop-half"], b"");
    assert!(words.contains("u (on produce, stays version 1), t (on produce)") && words.contains("* 2  transform"), "{words}");
    let module: Value = serde_json::from_str(&broker.ok(&place, &["transform", "describe", "drop-half", "-o", "json"], b"")).expect("JSON");
    assert_eq!((&module["version"], &module["versions"][0]["attached"][0]["pinned"]), (&2.into(), &true.into()));

    place.file("broken.wasm", &guests::that_does_not_start());
    let refused = broker.fails(&place, &["transform", "deploy", "broken.wasm", "--name", "drop-half"], b"");
    assert!(refused.contains("drop-half") && refused.contains("unreachable"), "{refused}");

    let back = broker.ok(&place, &["transform", "rollback", "drop-half"], b"");
    assert!(back.starts_with("rolled back to drop-half@1: transform, "), "{back}");
    assert!(back.ends_with("\nit takes the place of version 2, and runs on t from now on\n"), "{back}");
    let refused = broker.fails(&place, &["transform", "rollback", "drop-half"], b"");
    assert!(refused.contains("rollback drop-half --to N"), "{refused}");
    let refused = broker.fails(&place, &["transform", "rollback", "drop-half", "--to", "7"], b"");
    assert!(refused.contains("no version `drop-half@7`") && refused.contains("versions 1, 2"), "{refused}");
    assert_eq!(broker.ok(&place, &["transform", "delete", "drop-half@2"], b""), "deleted drop-half@2\n");
    let refused = broker.fails(&place, &["transform", "delete", "drop-half@1"], b"");
    assert!(refused.contains("in use by t, u") && refused.contains("detach t drop-half` frees it"), "{refused}");
    for wrong in ["drop-half@", "drop-half@v1", "drop-half@sha256:12", "a b@1"] {
        let output = broker.run(&place, &["transform", "delete", wrong], b"");
        assert_eq!(output.status.code(), Some(2), "{wrong}");
    }
}

#[test]
fn every_change_can_be_told_as_json() {
    let (place, broker) = prepared();
    let json = |arguments: &[&str]| -> Value {
        let line = broker.ok(&place, arguments, b"");
        assert_eq!(line.lines().count(), 1, "{line}");
        serde_json::from_str(&line).expect("JSON")
    };
    let deployed = json(&["transform", "deploy", "deal.wasm", "--name", "again", "-o", "jsonl"]);
    assert_eq!((&deployed["name"], &deployed["world"]), (&Value::from("again"), &Value::from("partitioner")));
    let attached = json(&["transform", "attach", "t", "deal", "--on", "partition", "-o", "jsonl"]);
    assert_eq!(attached, serde_json::json!({"topic": "t", "module": "deal", "on": "partition", "attached": true}));
    let detached = json(&["transform", "detach", "t", "deal", "-o", "jsonl"]);
    assert_eq!(detached, serde_json::json!({"topic": "t", "module": "deal", "on": "partition", "attached": false}));
    assert_eq!(json(&["transform", "delete", "deal", "-o", "jsonl"]), serde_json::json!({"name": "deal", "deleted": true}));
    assert_eq!(json(&["topic", "delete", "t", "-o", "jsonl"]), serde_json::json!({"name": "t", "deleted": true}));
}

#[test]
fn an_upload_that_makes_a_library_panic_is_one_line_of_the_log() {
    let place = Place::new();
    let broker = place.serve_with(&["--log-format", "json"]);
    let uploads = uploads_that_make_the_encoder_panic();
    assert!(!uploads.is_empty(), "the encoder of components has learnt not to panic: this test has nothing to try any more");
    for upload in &uploads {
        place.file("broken.wasm", upload);
        let output = broker.run(&place, &["transform", "deploy", "broken.wasm"], b"");
        assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    }
    let log = broker.stop().2;
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("not JSON: {line}"))).collect();
    let is_panic = |line: &&Value| line["message"].as_str().is_some_and(|message| message.starts_with("panicked: "));
    let panics: Vec<_> = lines.iter().filter(is_panic).collect();
    assert!(!panics.is_empty() && panics.len() <= uploads.len(), "{log}");
    assert!(panics.iter().all(|line| line["level"] == "ERROR" && line["place"].is_string()), "{log}");
}

/// Valid modules whose component type has one wrong bit, in a place that the encoder does not expect to be wrong.
fn uploads_that_make_the_encoder_panic() -> Vec<Vec<u8>> {
    let whole = guests::transform();
    let broken = (0..whole.len() * 8).map(|bit| {
        let mut broken = whole.to_vec();
        broken[bit / 8] ^= 1 << (bit % 8);
        broken
    });
    let panics = |module: &Vec<u8>| {
        let encode = || ComponentEncoder::default().module(module).and_then(|mut encoder| encoder.encode()).is_ok();
        std::panic::catch_unwind(encode).is_err()
    };
    broken.filter(panics).collect()
}

#[test]
fn records_on_which_a_module_fails_go_where_they_were_told_to() {
    let (place, broker) = prepared();
    broker.ok(&place, &["topic", "create", "failed"], b"");
    let refused =
        broker.fails(&place, &["transform", "attach", "t", "drop-half", "--on", "produce", "--on-error", "dead-letter:nowhere"], b"");
    assert!(refused.contains("there is no topic `nowhere`"), "{refused}");
    for wrong in [["--on-error", "ignore"], ["--time", "fast"], ["--memory", "-1"]] {
        let output = broker.run(&place, &[&["transform", "attach", "t", "drop-half", "--on", "produce"][..], &wrong].concat(), b"");
        assert_eq!(output.status.code(), Some(2), "{wrong:?}");
    }
    let refused = broker.fails(&place, &["transform", "attach", "t", "drop-half", "--on", "produce", "--memory", "1GiB"], b"");
    assert!(refused.contains("`memory_bytes` is 1 GiB: 64 KiB to 128 MiB are allowed"), "{refused}");
    let attach = ["transform", "attach", "t", "drop-half", "--on", "produce", "--param", "mode=i", "--time", "50ms", "--on-error"];
    broker.ok(&place, &[&attach[..], &["dead-letter:failed"]].concat(), b"");
    broker.ok(&place, &["produce", "t"], b"good\nstop!\n");
    assert_eq!(broker.ok(&place, &["consume", "t", "--from-beginning", "--until-end"], b""), "good\n");
    let letter = broker.ok(&place, &["consume", "failed", "--from-beginning", "--until-end", "-o", "jsonl"], b"");
    let letter: Value = serde_json::from_str(&letter).expect("one line of JSON");
    assert_eq!((&letter["value"], letter["topic"].as_str()), (&Value::from("stop!"), Some("failed")));
    assert!(letter["headers"].to_string().contains("guest_trapped"), "{letter}");
    let words = broker.ok(&place, &["topic", "describe", "t"], b"");
    assert!(words.contains("\ndrop-half: on error dead-letter:failed, memory 32.0 MiB, 50 ms a batch"), "{words}");
    let refused = broker.fails(&place, &["topic", "delete", "failed", "--yes"], b"");
    assert!(refused.contains("takes the dead letters of `drop-half` on t") && refused.contains("detach t drop-half"), "{refused}");
}

#[test]
fn a_view_is_attached_consumed_described_and_detached() {
    let (place, broker) = prepared();
    broker.ok(&place, &["produce", "t"], b"1\n2\n3\n4\n");
    let attach = ["transform", "attach", "t", "drop-half", "--on", "fetch", "--param", "mode=even"];
    let refused = broker.fails(&place, &attach, b"");
    assert!(refused.contains("--name NAME"), "{refused}");
    let attached = broker.ok(&place, &[&attach[..], &["--name", "odd"]].concat(), b"");
    assert_eq!(attached, "attached drop-half to t, on fetch as the view odd\n");
    broker.ok(&place, &[&attach[..], &["--name", "also"]].concat(), b"");
    assert_eq!(broker.ok(&place, &["consume", "t", "--from-beginning", "--until-end", "--view", "odd"], b""), "1\n3\n");
    assert_eq!(broker.ok(&place, &["consume", "t", "--from-beginning", "--until-end"], b""), "1\n2\n3\n4\n");
    let unknown = broker.fails(&place, &["consume", "t", "--until-end", "--view", "ood"], b"");
    assert!(unknown.contains("has no view `ood`") && unknown.contains("did you mean `odd`?"), "{unknown}");
    let words = broker.ok(&place, &["topic", "describe", "t"], b"");
    assert!(words.contains("drop-half@1  fetch: odd "), "{words}");
    let unclear = broker.fails(&place, &["transform", "detach", "t", "drop-half"], b"");
    assert!(unclear.contains("--name for a view"), "{unclear}");
    let detached = broker.ok(&place, &["transform", "detach", "t", "drop-half", "--name", "odd"], b"");
    assert_eq!(detached, "detached drop-half from t, on fetch as the view odd\n");
    assert_eq!(
        broker.ok(&place, &["transform", "detach", "t", "drop-half"], b""),
        "detached drop-half from t, on fetch as the view also\n"
    );
}

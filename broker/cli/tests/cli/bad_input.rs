//! What is wrong gets its cause and a hint, and nothing else suffers from it.

use crate::place::{Place, text};
use serde_json::Value;
use std::{net::UdpSocket, process::Output};

/// Fails unless stderr names all of this, as an error with a hint.
fn assert_explained(stderr: &str, words: &[&str]) {
    assert!(stderr.contains("error: ") && stderr.contains("\nhint: "), "{stderr}");
    for word in words {
        assert!(stderr.contains(word), "`{word}` is not in:\n{stderr}");
    }
}

#[test]
fn a_topic_that_is_not_there() {
    let place = Place::new();
    let broker = place.serve();
    broker.ok(&place, &["topic", "create", "readings"], b"");
    for arguments in [
        &["produce", "raedings"][..],
        &["consume", "raedings"],
        &["topic", "describe", "raedings"],
        &["topic", "delete", "raedings"],
        &["transform", "detach", "raedings", "m"],
    ] {
        assert_explained(&broker.fails(&place, arguments, b"x\n"), &["raedings", "did you mean `readings`?"]);
    }
    let status = broker.stop().0;
    assert!(status.success());
}

#[test]
fn a_partition_or_an_offset_out_of_range() {
    let place = Place::new();
    let broker = place.serve();
    broker.ok(&place, &["topic", "create", "a", "-p", "2"], b"");
    broker.ok(&place, &["produce", "a", "-p", "0"], b"1\n2\n3\n");
    let refused = broker.fails(&place, &["produce", "a", "-p", "7"], b"x\n");
    assert_explained(&refused, &["error: line 1 could not be stored", "no partition 7", "0 to 1"]);
    assert!(!refused.contains("stored 0") && !refused.contains("stored no"), "{refused}");
    let refused = broker.fails(&place, &["consume", "a", "-p", "7", "--until-end"], b"");
    assert_explained(&refused, &["no partition 7", "0 to 1"]);
    let refused = broker.fails(&place, &["consume", "a", "-p", "0", "--from", "offset:99", "--until-end"], b"");
    assert!(refused.contains("99") && refused.contains('3'), "the range is named: {refused}");
}

#[test]
fn a_line_that_is_not_a_record_is_named_and_those_before_it_are_stored() {
    let place = Place::new();
    let broker = place.serve();
    broker.ok(&place, &["topic", "create", "a"], b"");
    let refused =
        broker.fails(&place, &["produce", "a", "-i", "jsonl"], b"{\"value\":\"one\"}\n{\"vaule\":\"two\"}\n{\"value\":\"three\"}\n");
    assert_explained(&refused, &["stored 1 record", "line 2 is not a record", "a record has no field `vaule`"]);
    assert_eq!(broker.ok(&place, &["consume", "a", "--from-beginning", "--until-end"], b""), "one\n");
}

/// The lines of an output in JSON lines.
fn answers(output: &Output) -> Vec<Value> {
    text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"))).collect()
}

#[test]
fn a_line_that_is_not_a_record_has_its_answer_behind_those_before_it() {
    let place = Place::new();
    let broker = place.serve();
    broker.ok(&place, &["topic", "create", "a"], b"");
    let input = b"{\"value\":\"one\"}\n\n{\"value\":\"two\"}\nnonsense\n{\"value\":\"three\"}\n";
    let output = broker.run(&place, &["produce", "a", "-i", "jsonl", "-o", "jsonl"], input);
    assert_eq!(output.status.code(), Some(1));
    let words = text(&output.stderr);
    assert!(words.contains("stored 2 records") && words.contains("error: line 4 is not a record\n  cause: it is not JSON"), "{words}");
    let answers = answers(&output);
    assert_eq!(answers.len(), 3, "one for each line that was read: {answers:?}");
    assert_eq!((&answers[0]["offset"], &answers[1]["offset"]), (&Value::from(0), &Value::from(1)));
    let last = &answers[2];
    assert_eq!((&last["partition"], &last["offset"]), (&Value::Null, &Value::Null));
    assert_eq!((&last["error"], &last["line"]), (&Value::from("not_a_record"), &Value::from(4)));
    assert!(last["message"].as_str().is_some_and(|message| message.contains("it is not JSON")), "{last}");
    assert_eq!(broker.ok(&place, &["consume", "a", "--from-beginning", "--until-end"], b""), "one\ntwo\n");
}

#[test]
fn a_record_that_the_client_refuses_has_its_answer_in_its_place() {
    let place = Place::new();
    let broker = place.serve();
    broker.ok(&place, &["topic", "create", "a", "--max-batch-bytes", "4KiB"], b"");
    let lines = format!("small\n{}\nbehind\n", "x".repeat(5000));
    let output = broker.run(&place, &["produce", "a", "-o", "jsonl"], lines.as_bytes());
    assert_eq!(output.status.code(), Some(1));
    assert_explained(&text(&output.stderr), &["line 2 could not be stored", "stored 1 record"]);
    let answers = answers(&output);
    assert_eq!(answers.len(), 2, "{answers:?}");
    assert_eq!(answers[0]["offset"], Value::from(0));
    assert_eq!((&answers[1]["error"], &answers[1]["line"]), (&Value::from("record_too_large"), &Value::from(2)));

    let output = broker.run(&place, &["produce", "a", "-p", "7", "-o", "jsonl"], b"x\n");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(self::answers(&output)[0]["error"], Value::from("partition_out_of_range"));
}

#[test]
fn nothing_to_store_is_told_without_latencies() {
    let place = Place::new();
    let broker = place.serve();
    broker.ok(&place, &["topic", "create", "a"], b"");
    let output = broker.run(&place, &["produce", "a"], b"");
    assert!(output.status.success());
    assert_eq!(text(&output.stderr), "stored no records: there were none in the input\n");
}

#[test]
fn a_record_that_is_too_large_is_named_by_its_line() {
    let place = Place::new();
    let broker = place.serve();
    broker.ok(&place, &["topic", "create", "a", "--max-batch-bytes", "4KiB"], b"");
    let lines = format!("small\n{}\n", "x".repeat(5000));
    let refused = broker.fails(&place, &["produce", "a"], lines.as_bytes());
    assert_explained(&refused, &["line 2 could not be stored", "4096"]);
    assert_eq!(broker.ok(&place, &["consume", "a", "--from-beginning", "--until-end"], b""), "small\n");
}

#[test]
fn a_wrong_fingerprint_or_url() {
    let place = Place::new();
    let broker = place.serve();
    let (address, fingerprint) = broker.url().split_once("?fp=sha256:").expect("a fingerprint");
    let wrong: String = fingerprint.chars().rev().collect();
    let output = place.run(&["topic", "list", "--url", &format!("{address}?fp=sha256:{wrong}")]);
    assert_eq!(output.status.code(), Some(1));
    assert_explained(&text(&output.stderr), &[fingerprint, &wrong, "certificate"]);
    let output = place.run(&["topic", "list", "--url", address]);
    assert_eq!(output.status.code(), Some(1));
    assert_explained(&text(&output.stderr), &["not trusted", "--ca-file"]);
    let output = place.run(&["topic", "list", "--url", "http://127.0.0.1"]);
    assert_eq!(output.status.code(), Some(2));
    assert_explained(&text(&output.stderr), &["http://127.0.0.1", "millpond://"]);
}

#[test]
fn nobody_answers() {
    let place = Place::new();
    // It takes what comes and says nothing.
    let silent = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let url = format!("millpond://{}", silent.local_addr().expect("its address"));
    let output = place.run(&["topic", "list", "--url", &url]);
    assert_eq!(output.status.code(), Some(1));
    assert_explained(&text(&output.stderr), &["could not reach a broker at 127.0.0.1", "millpond serve"]);
}

#[test]
fn a_module_that_is_not_one() {
    let place = Place::new();
    let broker = place.serve();
    broker.ok(&place, &["topic", "create", "a"], b"");
    place.file("text.wasm", b"this is not WebAssembly");
    let refused = broker.run(&place, &["transform", "deploy", "none.wasm"], b"");
    assert_eq!(refused.status.code(), Some(2));
    assert_explained(&text(&refused.stderr), &["can't read the module none.wasm", "No such file"]);
    let refused = broker.fails(&place, &["transform", "deploy", "text.wasm", "--name", "m"], b"");
    assert!(refused.contains("error: "), "{refused}");
    let refused = broker.fails(&place, &["transform", "attach", "a", "m", "--on", "produce"], b"");
    assert_explained(&refused, &["`m`", "millpond transform deploy"]);
    let refused = broker.fails(&place, &["transform", "detach", "a", "m"], b"");
    assert_explained(&refused, &["no module `m` is attached to a"]);
    assert!(broker.run(&place, &["transform", "delete", "m"], b"").status.code() == Some(1));
}

#[test]
fn a_port_that_is_taken() {
    let place = Place::new();
    let taken = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("its address").to_string();
    let output = place.serve_fails(&["--quic-listen", &address]);
    assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(1), ""));
    assert_explained(&text(&output.stderr), &[&address, "taken"]);
    // Nothing is left behind that keeps the next one from starting.
    assert!(place.serve().stop().0.success());
}

#[test]
fn a_data_folder_that_is_in_use() {
    let place = Place::new();
    let broker = place.serve();
    let output = place.serve_fails(&[]);
    assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(1), ""));
    assert_explained(&text(&output.stderr), &["in use by another broker"]);
    assert!(place.path("data/url").exists(), "the first broker's URL is untouched");
    broker.ok(&place, &["topic", "list"], b"");
}

#[test]
fn a_data_folder_that_can_not_be_written() {
    let place = Place::new();
    place.file("file", b"in the way");
    let output = place.serve_fails(&["--data-dir", "file/data"]);
    assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(1), ""));
    assert_explained(&text(&output.stderr), &["file/data"]);
}

#[test]
fn certificate_files_that_are_not_there() {
    let place = Place::new();
    let output = place.serve_fails(&["--tls-cert", "cert.pem", "--tls-key", "key.pem"]);
    assert_eq!(output.status.code(), Some(2));
    assert_explained(&text(&output.stderr), &["cert.pem"]);
}

#[test]
fn a_place_for_the_summary_that_can_not_be_written_is_told_before_anything_is_stored() {
    let place = Place::new();
    let broker = place.serve();
    broker.ok(&place, &["topic", "create", "t"], b"");
    let output = broker.run(&place, &["produce", "t", "--stats-json", "nowhere/stats.json"], b"1\n");
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("nowhere/stats.json"), "{}", text(&output.stderr));
    assert_eq!(broker.ok(&place, &["consume", "t", "--from-beginning", "--until-end"], b""), "");
}

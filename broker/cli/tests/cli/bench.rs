//! `millpond bench`, as short as it can be.

use crate::place::{Place, send, text};
use rustix::process::Signal;
use serde_json::Value;
use std::{fs, process::Stdio, thread, time::Instant};

#[test]
fn a_case_is_measured_beside_its_limit() {
    let place = Place::new();
    let arguments = ["bench", "--quick", "--seconds", "0.1", "--only", "consume_1k", "ack_latency_os", "--data-dir", "here", "-o", "jsonl"];
    let output = place.run(&arguments);
    // What the machine is busy with may make it miss a target; that is said, and shown all the same.
    let words = text(&output.stderr);
    assert_eq!(output.status.code(), Some(i32::from(words.contains("targets were missed"))), "{words}");
    let shown = text(&output.stdout);
    assert_eq!(shown.lines().count(), 1, "{shown}");
    let shown: Value = serde_json::from_str(&shown).expect("JSON");
    for limit in [
        "quinn_mb_s",
        "seq_write_mb_s",
        "flushed_write_mb_s",
        "fdatasync_p50_us",
        "fdatasync_p99_us",
        "quinn_ping_p50_us",
        "quinn_ping_p99_us",
    ] {
        assert!(shown["limits"][limit].as_f64() > Some(0.0), "{limit} in {shown}");
    }
    let [consumed, acknowledged] = &shown["results"].as_array().expect("results")[..] else { panic!("{shown}") };
    assert_eq!((&consumed["name"], &acknowledged["name"]), (&Value::from("consume_1k"), &Value::from("ack_latency_os")));
    assert!(consumed["mb_s"].as_f64() > Some(0.0) && consumed["ratio"].as_f64() > Some(0.0), "{consumed}");
    assert!(consumed["target"].as_f64() == Some(0.6) && consumed["reached"].is_boolean(), "{consumed}");
    assert!(acknowledged["p50_us"].as_f64() > Some(0.0) && acknowledged["ratio"].as_f64() > Some(0.0), "{acknowledged}");
    assert_eq!(fs::read_dir(place.path("here")).expect("the folder").count(), 0, "nothing stays behind");
}

#[test]
fn a_transform_that_is_not_there_is_told_before_anything_is_measured() {
    let place = Place::new();
    let begun = Instant::now();
    let output = place.run(&["bench", "--plugin", "none.wasm", "--data-dir", "here"]);
    assert_eq!(output.status.code(), Some(2));
    let words = text(&output.stderr);
    assert!(
        words.contains("could not read the module none.wasm") && words.contains("hint: ") && words.contains("--plugin FILE"),
        "{words}"
    );
    assert!(!place.path("here").exists() && begun.elapsed().as_secs() < 10);
}

#[test]
fn one_that_is_interrupted_leaves_nothing_behind() {
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let place = Place::new();
        let mut command = place.millpond();
        command.args(["bench", "--data-dir", "here"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut bench = command.spawn().expect("it runs");
        let left = || fs::read_dir(place.path("here")).into_iter().flatten().count();
        while left() == 0 {
            assert!(bench.try_wait().expect("it was ours").is_none(), "it ended by itself");
            thread::yield_now();
        }
        send(&bench, signal);
        assert_eq!(bench.wait().expect("it was ours").code(), Some(1), "{signal:?}");
        assert_eq!(left(), 0, "{signal:?}");
    }
}

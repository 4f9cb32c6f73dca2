//! The client commands, each against a broker.

use crate::{
    place::{Broker, Place, lines, send, text},
    snapshot,
};
use rustix::process::Signal;
use serde_json::Value;
use std::{
    io::{BufRead, BufReader, Read, Write},
    process::{Child, Command, Stdio},
};

fn start(command: &mut Command, broker: &Broker) -> Child {
    command.env("MILLPOND_URL", broker.url());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary runs")
}

#[test]
fn topics_are_made_listed_described_and_deleted() {
    let place = Place::new();
    let broker = place.serve();
    let mut shown = String::new();
    for arguments in [
        &["topic", "list"][..],
        &["topic", "create", "a"],
        &["topic", "create", "b", "-p", "2", "--durability", "interval:200ms", "--segment-bytes", "1MiB", "--max-batch-bytes", "64KiB"],
        &["topic", "create", "a"],
        &["topic", "create", "a", "--if-not-exists"],
        &["topic", "create", "not/a/name"],
        &["topic", "create", "c", "-p", "0"],
        &["topic", "list"],
        &["topic", "list", "-o", "json"],
        &["topic", "list", "-o", "jsonl"],
        &["topic", "describe", "b"],
        &["topic", "describe", "bb"],
        &["topic", "alter", "b"],
        &["topic", "alter", "bb", "--durability", "os"],
        &["topic", "alter", "b", "--retention", "7"],
        &["topic", "alter", "b", "--retention", "7d", "--retention-bytes", "1GiB", "--durability", "os", "--max-batch-bytes", "1MiB"],
        &["topic", "describe", "b"],
        &["topic", "alter", "b", "--retention", "unlimited", "-o", "json"],
        &["topic", "delete-records", "b", "-p", "0", "--before", "end", "-o", "json"],
        &["topic", "delete-records", "b", "-p", "0", "--before", "7"],
        &["topic", "delete-records", "b", "-p", "0", "--before", "soon"],
        &["topic", "delete", "b"],
        &["topic", "delete", "b"],
        &["transform", "list"],
        &["transform", "list", "-o", "json"],
    ] {
        shown.push_str(&snapshot::of(arguments, &broker.run(&place, arguments, b"")));
        shown.push('\n');
    }
    snapshot::check("topics", &shown);
}

#[test]
fn deleted_records_are_gone_and_the_rest_keep_their_offsets() {
    let place = Place::new();
    let broker = place.serve();
    broker.ok(&place, &["topic", "create", "a", "--retention", "12h"], b"");
    broker.ok(&place, &["produce", "a"], b"one\ntwo\nthree\n");
    let deleted = broker.ok(&place, &["topic", "delete-records", "a", "--partition", "0", "--before", "2"], b"");
    assert_eq!(deleted, "a[0] begins with offset 2\n");
    let described = broker.ok(&place, &["topic", "describe", "a"], b"");
    assert!(described.lines().any(|line| line.starts_with("retention ") && line.ends_with(" 12h")), "{described}");
    let deleted = broker.ok(&place, &["topic", "delete-records", "a", "--partition", "0", "--before", "end", "-o", "jsonl"], b"");
    assert_eq!(deleted, "{\"topic\":\"a\",\"partition\":0,\"log_start\":3}\n");
}

#[test]
fn a_compacted_topic_is_made_shown_changed_and_takes_no_record_without_a_key() {
    let place = Place::new();
    let broker = place.serve();
    let mut shown = String::new();
    for (arguments, input) in [
        (&["topic", "create", "a", "--cleanup", "compact,delete", "--delete-retention", "36h"][..], &b""[..]),
        (&["topic", "describe", "a"], b""),
        (&["topic", "describe", "a", "-o", "json"], b""),
        (&["produce", "a", "--key-separator", ":"], b"k:kept\n"),
        (&["produce", "a"], b"refused\n"),
        (&["topic", "create", "b", "--cleanup", "shrink"], b""),
        (&["topic", "create", "b", "--cleanup", "delete,compact", "-o", "json"], b""),
        (&["topic", "alter", "a", "--delete-retention", "0s"], b""),
        (&["topic", "alter", "a", "--cleanup", "delete"], b""),
        (&["produce", "a"], b"taken\n"),
        (&["topic", "alter", "a", "--cleanup", "compact", "--delete-retention", "2d"], b""),
    ] {
        let output = broker.run(&place, arguments, input);
        // What was stored is told with the time that it took.
        if arguments[0] == "produce" && output.status.success() {
            continue;
        }
        shown.push_str(&snapshot::of(arguments, &output));
        shown.push('\n');
    }
    assert_eq!(broker.ok(&place, &["topic", "describe", "a", "-o", "json"], b"").matches("\"high_watermark\": 2").count(), 1);
    snapshot::check("compacted", &shown);
}

#[test]
fn defaults_for_topics_come_from_the_configuration() {
    let place = Place::new();
    let broker = place.serve();
    place.file("mill.toml", b"[topic]\ndurability = \"os\"\nsegment_bytes = \"2MiB\"\n");
    broker.ok(&place, &["topic", "create", "a", "--config", "mill.toml", "--segment-bytes", "3MiB"], b"");
    let described = broker.ok(&place, &["topic", "describe", "a"], b"");
    assert!(described.contains("durability       os\n") && described.contains("segment bytes    3MiB\n"), "{described}");
    place.file("compact.toml", b"[topic]\ncleanup = \"delete,compact\"\ndelete_retention = \"36h\"\n");
    for (arguments, cleanup, delete_retention_ms) in [
        (&["topic", "create", "b", "--config", "compact.toml", "-o", "json"][..], "compact,delete", 36 * 3_600_000),
        (&["topic", "create", "c", "--config", "compact.toml", "-o", "json", "--cleanup", "delete"], "delete", 36 * 3_600_000),
        (&["topic", "create", "d", "--config", "compact.toml", "-o", "json", "--delete-retention", "1h"], "compact,delete", 3_600_000),
    ] {
        let made: Value = serde_json::from_str(&broker.ok(&place, arguments, b"")).expect("JSON");
        assert_eq!((&made["config"]["cleanup"], &made["config"]["delete_retention_ms"]), (&cleanup.into(), &delete_retention_ms.into()));
    }
}

#[test]
fn who_begins_to_compact_a_topic_with_records_hears_that_those_without_a_key_stay() {
    let place = Place::new();
    let broker = place.serve();
    broker.ok(&place, &["topic", "create", "a"], b"");
    let said = |cleanup: &str| {
        let altered = broker.run(&place, &["topic", "alter", "a", "--cleanup", cleanup], b"");
        assert!(altered.status.success());
        String::from_utf8_lossy(&altered.stderr).contains("Records without a key that are stored already stay")
    };
    assert_eq!(["compact", "delete"].map(said), [false, false], "there are none");
    broker.ok(&place, &["produce", "a"], b"without a key\n");
    assert_eq!(["compact", "delete"].map(said), [true, false]);
}

#[test]
fn a_default_that_does_not_apply_is_left_out_and_what_is_said_is_refused() {
    let place = Place::new();
    let broker = place.serve();
    place.file("limited.toml", b"[topic]\nretention = \"7d\"\nretention_bytes = \"1GiB\"\non_full = \"drop-oldest\"\n");
    let create = ["topic", "create", "a", "--config", "limited.toml", "-o", "json", "--cleanup"];
    let of = |more: &[&'static str]| create.into_iter().chain(more.iter().copied()).collect::<Vec<_>>();
    for (flag, value, setting) in [("--retention", "7d", "retention_ms"), ("--retention-bytes", "1GiB", "retention_bytes")] {
        let refused = broker.run(&place, &of(&["compact", flag, value]), b"");
        let words = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success() && words.contains(&format!("`{setting}` is set")), "{words}");
        assert!(words.contains("`--cleanup compact,delete`"), "{words}");
    }
    let words = broker.fails(&place, &of(&["compact", "--on-full", "drop-oldest"]), b"");
    assert!(words.contains("drop-oldest"), "{words}");
    for (cleanup, limits, on_full) in
        [("compact", (None, None), "reject"), ("compact,delete", (Some(604_800_000), Some(1 << 30)), "drop-oldest")]
    {
        let made: Value = serde_json::from_str(&broker.ok(&place, &of(&[cleanup]), b"")).expect("JSON");
        assert_eq!((made["config"]["retention_ms"].as_u64(), made["config"]["retention_bytes"].as_u64()), limits, "{cleanup}");
        assert_eq!(made["config"]["on_full"], on_full, "{cleanup}");
        broker.ok(&place, &["topic", "delete", "a", "--yes"], b"");
    }
}

#[test]
fn a_topic_without_room_says_so_and_what_to_do_in_lines_that_can_be_read() {
    let place = Place::new();
    let broker = place.serve_with(&["--storage-quota", "64MiB"]);
    broker.ok(&place, &["topic", "create", "t", "-p", "2", "--quota", "4KiB", "--max-batch-bytes", "1KiB"], b"");
    let full = lines((0..100).map(|number| format!("{number:0100}")));
    let refused = broker.fails(&place, &["produce", "t", "-p", "1", "-c", "none", "--no-retry"], full.as_bytes());
    assert!(refused.contains("of the topic's quota of 4 KiB, ") && refused.contains(" are free"), "{refused}");
    let described = broker.ok(&place, &["topic", "describe", "t"], b"");
    for words in ["quota            4KiB\n", "% of the quota\n", "broker used      ", "  ok\n", "  refusing: topic quota reached\n"] {
        assert!(described.contains(words), "`{words}` is not in:\n{described}");
    }
    assert!(described.contains("\npartition 1: batches are refused, the last ") && described.contains("\n  hint: "), "{described}");
    assert!(described.lines().all(|line| line.chars().count() <= 100), "{described}");
    let described: Value = serde_json::from_str(&broker.ok(&place, &["topic", "describe", "t", "-o", "json"], b"")).expect("JSON");
    assert_eq!(
        (&described["partitions"][1]["refusing"]["bound"], &described["partitions"][0]["refusing"]),
        (&"topic".into(), &Value::Null)
    );
    assert!(described["refused"]["topic"].as_u64() >= Some(1) && described["node"]["quota_bytes"] == 64 << 20, "{described}");

    broker.ok(&place, &["topic", "delete-records", "t", "-p", "1", "--before", "end"], b"");
    let described = broker.ok(&place, &["topic", "describe", "t"], b"");
    assert!(!described.contains("refusing") && !described.contains("hint"), "{described}");
}

#[test]
fn keys_partitions_and_compression_are_obeyed() {
    let place = Place::new();
    let broker = place.serve();
    broker.ok(&place, &["topic", "create", "a", "-p", "4"], b"");
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let line = format!("{codec}=1\n");
        let placed = broker.ok(&place, &["produce", "a", "-p", "2", "-k", "=", "-c", codec, "-o", "jsonl"], line.as_bytes());
        assert!(placed.starts_with("{\"partition\":2,\"offset\":"), "{placed}");
    }
    let read = broker.ok(&place, &["consume", "a", "-p", "2", "-p", "3", "--from-beginning", "--until-end", "-o", "jsonl"], b"");
    let keys: Vec<_> = read.lines().filter_map(|line| line.split("\"key\":\"").nth(1)?.split('"').next()).collect();
    assert_eq!(keys, ["none", "gzip", "snappy", "lz4", "zstd"]);
}

#[test]
fn a_file_is_read_to_its_end_and_its_last_line_needs_no_break() {
    let place = Place::new();
    let broker = place.serve();
    broker.ok(&place, &["topic", "create", "a"], b"");
    place.file("lines.txt", b"one\n\nthree");
    let output = broker.run(&place, &["produce", "a", "--file", "lines.txt", "--stats-json", "stats.json", "-q"], b"");
    assert!(output.status.success() && output.stderr.is_empty() && output.stdout.is_empty(), "{}", text(&output.stderr));
    assert_eq!(broker.ok(&place, &["consume", "a", "--from-beginning", "--until-end"], b""), "one\n\nthree\n");
    let stats = std::fs::read_to_string(place.path("stats.json")).expect("written");
    let stats: serde_json::Value = serde_json::from_str(&stats).expect("JSON");
    assert_eq!((stats["records"].as_u64(), stats["bytes"].as_u64(), stats["dropped"].as_u64()), (Some(3), Some(8), Some(0)));
    assert!(stats["seconds"].is_f64() && stats["mb_s"].is_f64() && stats["ack_p99_us"].as_u64() > Some(0), "{stats}");
}

#[test]
fn each_line_that_is_typed_is_stored_and_shown_at_once() {
    let place = Place::new();
    let broker = place.serve();
    broker.ok(&place, &["topic", "create", "a"], b"");
    let mut producing = start(place.millpond().args(["produce", "a", "-o", "jsonl"]), &broker);
    let mut typed = producing.stdin.take().expect("piped");
    let mut answers = BufReader::new(producing.stdout.take().expect("piped"));
    let mut consuming = start(place.millpond().args(["consume", "a", "--from-beginning"]), &broker);
    let mut shown = BufReader::new(consuming.stdout.take().expect("piped"));
    for number in 0..3 {
        writeln!(typed, "line {number}").expect("it reads");
        let mut answer = String::new();
        answers.read_line(&mut answer).expect("it answers");
        assert_eq!(answer, format!("{{\"partition\":0,\"offset\":{number}}}\n"));
        let mut line = String::new();
        shown.read_line(&mut line).expect("it shows");
        assert_eq!(line, format!("line {number}\n"));
    }
    drop(typed);
    assert!(producing.wait().expect("it ends").success());
    send(&consuming, Signal::INT);
    assert!(consuming.wait().expect("it ends").success(), "Ctrl-C ends a consumer with 0");
}

#[test]
fn a_reader_that_has_enough_ends_a_consumer_quietly() {
    let place = Place::new();
    let broker = place.serve();
    broker.ok(&place, &["topic", "create", "a"], b"");
    broker.ok(&place, &["produce", "a"], lines(0..200_000).as_bytes());
    has_enough_after_one_line(&place, &broker);
}

#[test]
fn a_reader_that_has_enough_ends_a_consumer_that_waits_for_more() {
    let place = Place::new();
    let broker = place.serve();
    broker.ok(&place, &["topic", "create", "a"], b"");
    broker.ok(&place, &["produce", "a"], b"0\n1\n");
    has_enough_after_one_line(&place, &broker);
}

fn has_enough_after_one_line(place: &Place, broker: &Broker) {
    let mut consuming = start(place.millpond().args(["consume", "a", "--from-beginning"]), broker);
    let mut shown = BufReader::new(consuming.stdout.take().expect("piped"));
    let mut line = String::new();
    shown.read_line(&mut line).expect("it shows");
    assert_eq!(line, "0\n");
    drop(shown);
    let mut words = String::new();
    consuming.stderr.take().expect("piped").read_to_string(&mut words).expect("it ends");
    assert!(consuming.wait().expect("it ends").success());
    assert_eq!(words, "");
}

#[test]
fn answers_that_nobody_reads_do_not_stop_the_storing() {
    let place = Place::new();
    let broker = place.serve();
    broker.ok(&place, &["topic", "create", "a"], b"");
    let mut producing = start(place.millpond().args(["produce", "a", "-o", "jsonl"]), &broker);
    drop(producing.stdout.take());
    producing.stdin.take().expect("piped").write_all(lines(0..50_000).as_bytes()).expect("it reads");
    assert!(producing.wait().expect("it ends").success());
    assert_eq!(broker.ok(&place, &["consume", "a", "--from-beginning", "--until-end"], b"").lines().count(), 50_000);
}

#[test]
fn an_interrupted_producer_says_that_input_is_left_and_stores_what_it_has_read() {
    let place = Place::new();
    let broker = place.serve();
    broker.ok(&place, &["topic", "create", "a"], b"");
    let mut producing = start(place.millpond().args(["produce", "a", "-o", "jsonl"]), &broker);
    let mut typed = producing.stdin.take().expect("piped");
    let mut answers = BufReader::new(producing.stdout.take().expect("piped"));
    writeln!(typed, "one").expect("it reads");
    answers.read_line(&mut String::new()).expect("it answers");
    send(&producing, Signal::INT);
    let mut words = String::new();
    producing.stderr.take().expect("piped").read_to_string(&mut words).expect("it ends");
    assert_eq!(producing.wait().expect("it ends").code(), Some(1));
    assert!(words.starts_with("stored 1 record (3 B)") && words.contains("error: interrupted"), "{words}");
    drop(typed);
}

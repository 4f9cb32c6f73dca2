//! What is damaged or gone: who reads it hears of it, and everything else is served.

use crate::place::{Broker, Place, lines, send, text};
use rustix::process::Signal;
use serde_json::Value;
use std::{
    fs,
    io::{BufRead, BufReader},
    process::Stdio,
};

const RECORDS: usize = 900;

/// Three partitions with some segments each; the records of partition 1 are damaged at their start.
fn damaged(place: &Place) -> Broker {
    let broker = place.serve();
    broker.ok(place, &["topic", "create", "readings", "--partitions", "3", "--segment-bytes", "64KiB"], b"");
    for partition in ["0", "1", "2"] {
        let records = lines((0..RECORDS).map(|number| format!("{partition}-{number:0100}")));
        broker.ok(place, &["produce", "readings", "-c", "none", "-p", partition, "--batch-bytes", "8KiB"], records.as_bytes());
    }
    assert!(broker.stop().0.success());
    let segment = place.path("data/topics/readings/1/00000000000000000000.log");
    let mut bytes = fs::read(&segment).expect("a segment");
    bytes[80] ^= 1;
    fs::write(&segment, bytes).expect("is written");
    place.serve()
}

fn count(printed: &str, partition: &str) -> usize {
    printed.lines().filter(|line| line.starts_with(partition)).count()
}

#[test]
fn a_partition_that_is_damaged_at_its_start_keeps_no_other_from_being_read() {
    let place = Place::new();
    let broker = damaged(&place);
    let output = broker.run(&place, &["consume", "readings", "--from-beginning", "--until-end"], b"");
    let (printed, words) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(["0-", "1-", "2-"].map(|partition| count(&printed, partition)), [RECORDS, 0, RECORDS], "{words}");
    assert_eq!(output.status.code(), Some(1), "{words}");
    assert_eq!(words.matches("partition 1, failed").count(), 1, "it is told once: {words}");
    assert!(words.contains("millpond log verify") && words.ends_with("error: 1 of 3 partitions can't be read to the end\n"), "{words}");

    // Alone it has nothing to add.
    let words = broker.fails(&place, &["consume", "readings", "--from-beginning", "--until-end", "-p", "1"], b"");
    assert_eq!(words.matches("error: ").count(), 1, "{words}");
    // Enough is enough, and that something is missing is said all the same.
    let output = broker.run(&place, &["consume", "readings", "--from-beginning", "-n", "1800"], b"");
    assert_eq!((text(&output.stdout).lines().count(), output.status.code()), (1_800, Some(1)), "{}", text(&output.stderr));
    let output = broker.run(&place, &["consume", "readings", "--from-beginning", "-p", "0", "-p", "2", "-n", "7"], b"");
    assert_eq!((text(&output.stdout).lines().count(), output.status.code()), (7, Some(0)), "{}", text(&output.stderr));
}

#[test]
fn a_consumer_that_waits_for_more_goes_on_beside_a_damaged_partition() {
    let place = Place::new();
    let broker = damaged(&place);
    let mut command = place.millpond();
    command.args(["consume", "readings", "--from-beginning", "--url", broker.url()]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut consuming = command.spawn().expect("it runs");
    let mut shown = BufReader::new(consuming.stdout.take().expect("piped")).lines().map(|line| line.expect("text"));
    assert_eq!(shown.by_ref().take(2 * RECORDS).count(), 2 * RECORDS);
    broker.ok(&place, &["produce", "readings", "-p", "2"], b"one more\n");
    assert_eq!(shown.next().as_deref(), Some("one more"));
    send(&consuming, Signal::INT);
    let output = consuming.wait_with_output().expect("it ends");
    let words = text(&output.stderr);
    assert!(words.contains("partition 1") && words.contains("1 of 3 partitions"), "{words}");
    assert_eq!(output.status.code(), Some(1));
}

/// A data folder of a broker that was stopped, with a record in each of three partitions of two topics.
fn stopped() -> Place {
    let place = Place::new();
    let broker = place.serve();
    for (topic, partitions) in [("a", "2"), ("b", "1")] {
        broker.ok(&place, &["topic", "create", topic, "--partitions", partitions], b"");
        for partition in 0..partitions.parse().expect("a number") {
            broker.ok(&place, &["produce", topic, "-p", &u32::to_string(&partition)], b"one\n");
        }
    }
    assert!(broker.stop().0.success());
    place
}

fn flip(place: &Place, name: &str) {
    let path = place.path(name);
    let text = fs::read_to_string(&path).expect("it is there").replacen("\"partitions\": 1", "\"partitions\": 3", 1);
    fs::write(path, text).expect("is written");
}

/// How it ended, what is said of faults (`fault`, `is_note`, `partition`), and the words on stderr.
fn verified(place: &Place, path: &str) -> (Option<i32>, Vec<(String, bool, Value)>, String) {
    let output = place.run(&["log", "verify", path, "-o", "jsonl"]);
    let rows = text(&output.stdout);
    let rows = rows.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON")).filter(|row| row["kind"] == "fault");
    let fault = |row: Value| {
        assert!(row["meaning"].as_str().is_some_and(|meaning| !meaning.is_empty()), "{row}");
        (row["fault"].as_str().expect("a name").to_owned(), row["is_note"] == true, row["partition"].clone())
    };
    (output.status.code(), rows.map(fault).collect(), text(&output.stderr))
}

#[test]
fn a_damaged_catalogue_is_a_note_while_the_other_one_is_whole_and_else_a_fault() {
    let (first, second) = ("data/catalogue.json", "data/catalogue.2.json");
    for damaged in [first, second] {
        for is_removed in [false, true] {
            let place = stopped();
            assert_eq!(verified(&place, "data"), (Some(0), vec![], String::new()));
            if is_removed {
                fs::remove_file(place.path(damaged)).expect("it is there");
            } else {
                flip(&place, damaged);
            }
            let note = ("catalogue_copy".to_owned(), true, Value::Null);
            assert_eq!(verified(&place, "data"), (Some(0), vec![note], String::new()), "{damaged}");
            let shown = text(&place.run(&["log", "verify", "data"]).stdout);
            assert!(shown.contains("note") && shown.contains(damaged) && shown.contains("nothing is lost"), "{shown}");
            // As it says, the next start mends it.
            assert!(place.serve().stop().0.success());
            assert_eq!(verified(&place, "data").1, vec![]);
        }
    }
    for is_removed in [false, true] {
        let place = stopped();
        for file in [first, second] {
            flip(&place, file);
            if is_removed {
                fs::remove_file(place.path(file)).expect("it is there");
            }
        }
        let (code, faults, words) = verified(&place, "data");
        let fault = ("catalogue".to_owned(), false, Value::Null);
        assert_eq!((code, faults), (Some(1), vec![fault; if is_removed { 1 } else { 2 }]));
        assert!(words.contains(" in the catalogue\n") && words.contains("hint: what to do is said with each of them"), "{words}");
        let shown = text(&place.run(&["log", "verify", "data"]).stdout);
        assert!(shown.contains("a broker does not start on this folder; put back a copy of"), "{shown}");
        assert_eq!(place.serve_fails(&[]).status.code(), Some(1));
    }
}

#[test]
fn a_partition_without_its_folder_is_a_fault() {
    let lost = |partition: &str| ("partition_lost".to_owned(), false, Value::from(partition));
    for (removed, faults, summary) in [
        ("topics/a/0", vec![lost("a/0")], "1 fault in 1 partition"),
        ("topics/a", vec![lost("a/0"), lost("a/1")], "2 faults in 2 partitions"),
        ("topics", vec![lost("a/0"), lost("a/1"), lost("b/0")], "3 faults in 3 partitions"),
    ] {
        let place = stopped();
        fs::remove_dir_all(place.path("data").join(removed)).expect("it is there");
        let (code, found, words) = verified(&place, "data");
        assert_eq!((code, found), (Some(1), faults), "{removed}");
        assert!(words.contains(summary) && words.contains("hint: what to do is said with each of them"), "{words}");
        let shown = text(&place.run(&["log", "verify", "data"]).stdout);
        assert!(shown.contains("is lost: its folder") && shown.contains("bring ") && shown.contains("from a backup"), "{shown}");
        // Beside a broker, which says the same, nothing else is found.
        let broker = place.serve();
        assert_eq!(verified(&place, "data").0, Some(1), "{removed}");
        assert!(broker.ok(&place, &["topic", "describe", "a"], b"").contains("is lost"));
    }
    // What a power cut leaves of the making of a topic is no loss: the next start gives it its name.
    let place = stopped();
    fs::remove_dir_all(place.path("data/topics/b/0")).expect("it is there");
    fs::create_dir(place.path("data/topics/b/0")).expect("an empty one");
    fs::rename(place.path("data/topics/b"), place.path("data/topics/.new-b")).expect("renames");
    assert_eq!(verified(&place, "data"), (Some(0), vec![], String::new()));
    assert!(place.serve().stop().0.success());
    assert_eq!(verified(&place, "data").0, Some(0));
}

#[test]
fn the_hint_of_a_verification_is_a_command_that_can_be_run() {
    let place = stopped();
    let file = "data/topics/b/0/00000000000000000000.log";
    let mut bytes = fs::read(place.path(file)).expect("a segment");
    let whole = bytes.len();
    // A torn end is no work for a repair.
    bytes.extend_from_slice(&bytes.clone()[..30]);
    fs::write(place.path(file), &bytes).expect("is written");
    let (code, faults, words) = verified(&place, file);
    assert_eq!((code, faults.len()), (Some(1), 1), "{words}");
    assert!(words.contains("hint: nothing has to be done: the next start of the broker mends this"), "{faults:?} {words}");
    // Damage in front of it is.
    bytes.truncate(whole);
    let mut two = bytes.clone();
    two.extend_from_slice(&bytes);
    two[whole + 7] = 1;
    two[80.min(whole - 1)] ^= 1;
    fs::write(place.path(file), &two).expect("is written");
    for path in [file, "data/topics/b/0", "data"] {
        let (_, _, words) = verified(&place, path);
        let hint = words.split('`').nth(1).unwrap_or_else(|| panic!("a command is named: {words}"));
        let arguments: Vec<_> = hint.split(' ').skip(1).collect();
        let output = place.run(&arguments);
        let (plan, refused) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.code() == Some(1) && refused.contains("nothing was changed"), "`{hint}`: {plan}{refused}");
        assert!(plan.contains("is lost"), "`{hint}`: {plan}");
    }
}

//! What is damaged or gone: who reads it hears of it, and everything else is served.

use crate::place::{Broker, Place, lines, send, text};
use rustix::process::Signal;
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

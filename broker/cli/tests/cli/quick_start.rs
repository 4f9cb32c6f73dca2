//! The quick start of the README, step by step.

use crate::place::{Place, lines, text};
use serde_json::Value;
use std::collections::BTreeSet;

#[test]
fn the_quick_start_works_as_it_is_written() {
    let place = Place::new();
    let broker = place.serve();
    let created = broker.ok(&place, &["topic", "create", "readings", "--partitions", "3"], b"");
    assert_eq!(created, "created readings: 3 partitions, durability sync\n");
    let listed = broker.ok(&place, &["topic", "list"], b"");
    assert!(listed.starts_with("NAME      PARTITIONS") && listed.contains("\nreadings           3"), "{listed}");

    let produced = broker.run(&place, &["produce", "readings"], lines(1..=100_000).as_bytes());
    assert!(produced.status.success() && produced.stdout.is_empty());
    let summary = text(&produced.stderr);
    assert!(summary.starts_with("stored 100,000 records (477.4 KiB) in "), "{summary}");

    let consumed = broker.ok(&place, &["consume", "readings", "--from-beginning", "--until-end"], b"");
    let mut read: Vec<u32> = consumed.lines().map(|line| line.parse().expect("a number")).collect();
    read.sort_unstable();
    assert_eq!(read, (1..=100_000).collect::<Vec<_>>());

    let described: Value = serde_json::from_str(&broker.ok(&place, &["topic", "describe", "readings", "-o", "json"], b"")).expect("JSON");
    let ends: Vec<_> =
        described["partitions"].as_array().expect("partitions").iter().map(|partition| &partition["high_watermark"]).collect();
    assert_eq!(ends.iter().map(|end| end.as_i64().expect("an offset")).sum::<i64>(), 100_000);

    let from = ["consume", "readings", "--from", "offset:500", "--partition", "1", "-o", "jsonl", "--until-end"];
    let read = broker.ok(&place, &from, b"");
    let offsets: Vec<i64> = read.lines().map(|line| field(line, "offset").as_i64().expect("a number")).collect();
    let end = ends[1].as_i64().expect("an offset");
    assert_eq!(offsets, (500..end).collect::<Vec<_>>());
    let first: Value = serde_json::from_str(read.lines().next().expect("a line")).expect("JSON");
    let fields: Vec<_> = first.as_object().expect("an object").keys().map(String::as_str).collect();
    assert_eq!(fields, ["headers", "key", "offset", "partition", "timestamp", "topic", "value"]);
    assert_eq!((first["topic"].as_str(), first["partition"].as_i64(), &first["key"]), (Some("readings"), Some(1), &Value::Null));

    let since = ["consume", "readings", "--from", "time:2020-01-01T00:00:00Z", "--until-end", "--max", "10"];
    assert_eq!(broker.ok(&place, &since, b"").lines().count(), 10);
    let future = ["consume", "readings", "--from", "time:2100-01-01T00:00:00Z", "--until-end"];
    assert_eq!(broker.ok(&place, &future, b""), "");

    let (status, rest, log) = broker.stop();
    assert!(status.success() && rest.is_empty(), "{log}");
    let broker = place.serve();
    let consumed = broker.ok(&place, &["consume", "readings", "--from-beginning", "--until-end"], b"");
    assert_eq!(consumed.lines().collect::<BTreeSet<_>>().len(), 100_000, "all of it survives a restart");
}

#[test]
fn a_broker_of_the_same_user_is_found_without_a_url() {
    let place = Place::new();
    let broker = place.serve();
    // The usual port is not a test's to take, so the file that a broker there would have left is put in its place.
    std::fs::write(place.path("state/millpond/broker-9440.url"), broker.url()).expect("written");
    let output = place.run(&["topic", "create", "found"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(text(&place.run_with(&["topic", "list", "-o", "jsonl"], &[("MILLPOND_URL", "")], b"").stdout).lines().count(), 1);
}

#[test]
fn what_is_consumed_can_be_produced_again() {
    let place = Place::new();
    let broker = place.serve();
    broker.ok(&place, &["topic", "create", "a", "-p", "2"], b"");
    broker.ok(&place, &["topic", "create", "b", "-p", "2"], b"");
    let input = concat!(
        "{\"key\":\"k\",\"value\":\"v\",\"headers\":{\"unit\":\"C\",\"many\":[\"1\",\"2\"],\"none\":null},\"timestamp\":1000,\"partition\":1}\n",
        "{\"key_base64\":\"/wA=\",\"value_base64\":\"AP8=\",\"headers\":{\"raw\":{\"base64\":\"/w==\"}},\"timestamp\":2000,\"partition\":1}\n",
        "{\"key\":null,\"value\":{ \"t\" : 21.50 },\"timestamp\":\"1970-01-01T00:00:03Z\",\"partition\":0}\n",
        "{\"key\":\"gone\",\"value\":null,\"timestamp\":4000,\"partition\":0}\n",
    );
    let placed = broker.ok(&place, &["produce", "a", "-i", "jsonl", "-o", "jsonl"], input.as_bytes());
    assert_eq!(
        placed,
        "{\"partition\":1,\"offset\":0}\n{\"partition\":1,\"offset\":1}\n{\"partition\":0,\"offset\":0}\n{\"partition\":0,\"offset\":1}\n"
    );
    let first = broker.ok(&place, &["consume", "a", "--from-beginning", "--until-end", "-o", "jsonl"], b"");
    broker.ok(&place, &["produce", "b", "-i", "jsonl"], first.as_bytes());
    let second = broker.ok(&place, &["consume", "b", "--from-beginning", "--until-end", "-o", "jsonl"], b"");
    let sorted = |text: &str| text.lines().map(str::to_owned).collect::<BTreeSet<_>>();
    assert_eq!(sorted(&first.replace("\"topic\":\"a\"", "\"topic\":\"b\"")), sorted(&second));
    assert!(first.contains(
        "{\"topic\":\"a\",\"partition\":0,\"offset\":0,\"timestamp\":3000,\"key\":null,\"value\":\"{\\\"t\\\":21.50}\",\"headers\":{}}"
    ));
    assert!(first.contains("\"key_base64\":\"/wA=\",\"value_base64\":\"AP8=\",\"headers\":{\"raw\":{\"base64\":\"/w==\"}}"));
}

fn field(line: &str, name: &str) -> Value {
    serde_json::from_str::<Value>(line).unwrap_or_else(|error| panic!("{line}: {error}"))[name].clone()
}

//! The admin door of a real broker: what a scraper and a probe get from its start to its end.

use crate::place::{Broker, Place, send, text};
use rustix::process::Signal;
use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    process::Stdio,
};

const ANY_PORT: &[&str] = &["--admin-listen", "127.0.0.1:0"];

/// Where the door is, as the log says.
fn address(broker: &mut Broker) -> String {
    let log = broker.wait_for_log("the broker is ready");
    let (_, rest) = log.split_once("metrics=\"http://").expect("the log says where they are");
    rest.split_once("/metrics\"").expect("the path").0.to_owned()
}

/// The status and the body of an answer.
fn get(address: &str, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).expect("it listens");
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n").expect("it takes a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    let (head, body) = answer.split_once("\r\n\r\n").expect("an answer");
    let code = head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok()).expect("a status");
    (code, body.to_owned())
}

fn assert_has_line(text: &str, line: &str) {
    assert!(text.lines().any(|other| other == line), "`{line}` is not in\n{text}");
}

#[test]
fn a_broker_is_scraped() {
    let place = Place::new();
    let mut broker = place.serve_with(ANY_PORT);
    let address = address(&mut broker);
    broker.ok(&place, &["topic", "create", "readings", "--partitions", "2", "--durability", "os"], b"");
    let module = place.file("copy.wasm", &crate::guests::transform());
    broker.ok(&place, &["transform", "deploy", module.to_str().expect("a path"), "--name", "copy"], b"");
    broker.ok(&place, &["transform", "attach", "readings", "copy", "--on", "produce", "--param", "mode=identity"], b"");
    broker.ok(&place, &["produce", "readings", "--partition", "1"], b"a\nb\nc\n");
    let (code, metrics) = get(&address, "/metrics");
    assert_eq!(code, 200, "{metrics}");
    for line in [
        concat!("millpond_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
        "# TYPE millpond_partition_writable gauge",
        "millpond_ready 1",
        "millpond_inflight_limit_bytes 67108864",
        "millpond_topic_info{topic=\"readings\",durability=\"os\",cleanup=\"delete\"} 1",
        "millpond_partition_high_watermark{topic=\"readings\",partition=\"0\"} 0",
        "millpond_partition_high_watermark{topic=\"readings\",partition=\"1\"} 3",
        "millpond_partition_writable{topic=\"readings\",partition=\"1\"} 1",
        "millpond_transform_records_in_total{topic=\"readings\",on=\"produce\",module=\"copy\",version=\"1\"} 3",
        "millpond_transform_failures_total{topic=\"readings\",on=\"produce\",module=\"copy\",version=\"1\",kind=\"guest_trapped\"} 0",
        "millpond_transform_paused{topic=\"readings\",on=\"produce\",module=\"copy\",version=\"1\"} 0",
    ] {
        assert_has_line(&metrics, line);
    }
    // The first record goes at once; how many are with it is the machine's affair.
    let place_of = "{topic=\"readings\",on=\"produce\",module=\"copy\",version=\"1\"";
    let count = metrics
        .lines()
        .find_map(|line| line.strip_prefix(&format!("millpond_transform_batch_seconds_count{place_of}}} ")))
        .expect("a count");
    assert!((1..=3).contains(&count.parse().expect("a number")), "{count}");
    assert_has_line(&metrics, &format!("millpond_transform_batch_seconds_bucket{place_of},le=\"+Inf\"}} {count}"));
    assert_eq!(get(&address, "/health/ready"), (200, "ready\n".to_owned()));
    assert_eq!(get(&address, "/health/live"), (200, "alive\n".to_owned()));
    assert_eq!(get(&address, "/").0, 404);
    assert!(broker.stop().0.success());
    assert!(TcpStream::connect(&address).is_err(), "nothing is left of it");
}

#[test]
fn a_lost_partition_shows_in_the_metrics_in_describe_and_in_the_log() {
    let place = Place::new();
    let broker = place.serve();
    broker.ok(&place, &["topic", "create", "a", "--partitions", "2"], b"");
    assert!(broker.stop().0.success());
    fs::remove_dir_all(place.path("data/topics/a/1")).expect("it was there");

    let mut broker = place.serve_with(ANY_PORT);
    let address = address(&mut broker);
    let (code, metrics) = get(&address, "/metrics");
    assert_eq!(code, 200, "{metrics}");
    assert_has_line(&metrics, "millpond_partition_writable{topic=\"a\",partition=\"0\"} 1");
    assert_has_line(&metrics, "millpond_partition_writable{topic=\"a\",partition=\"1\"} 0");
    let (code, ready) = get(&address, "/health/ready");
    assert_eq!((code, ready.lines().count()), (200, 2), "{ready}");
    let cause = ready.lines().nth(1).and_then(|line| line.strip_prefix("a[1] takes no records: ")).expect("a line for it").to_owned();
    let described: serde_json::Value =
        serde_json::from_str(&broker.ok(&place, &["topic", "describe", "a", "-o", "json"], b"")).expect("JSON");
    assert_eq!(described["partitions"][1]["failure"], cause.as_str());
    assert!(described["partitions"][1]["failure_hint"].as_str().is_some_and(|hint| hint.contains("from a backup")), "{described}");
    let unreadable: Vec<_> = (0..2).map(|partition| described["partitions"][partition]["unreadable"].as_bool()).collect();
    assert_eq!(unreadable, [Some(false), Some(true)]);
    let described = broker.ok(&place, &["topic", "describe", "a"], b"");
    assert!(described.contains("  unreadable\n") && described.contains("\npartition 1: it can't be read or written: "), "{described}");
    let (_, _, log) = broker.stop();
    assert!(log.contains("ERROR") && log.contains(&cause), "{log}");
}

#[test]
fn a_broker_that_stops_is_alive_and_not_ready() {
    let place = Place::new();
    let mut broker = place.serve_with(ANY_PORT);
    let address = address(&mut broker);
    broker.ok(&place, &["topic", "create", "a"], b"");
    broker.ok(&place, &["produce", "a"], b"one\n");
    let mut consuming =
        place.millpond().args(["consume", "a", "--from-beginning", "--url", broker.url()]).stdout(Stdio::piped()).spawn().expect("it runs");
    let mut line = String::new();
    BufReader::new(consuming.stdout.take().expect("piped")).read_line(&mut line).expect("it shows");
    // A client that does not react any more, so that stopping takes its time.
    send(&consuming, Signal::STOP);
    broker.signal(Signal::TERM);
    broker.wait_for_log("SIGTERM");
    assert_eq!(get(&address, "/health/ready"), (503, "stopping\n".to_owned()));
    assert_eq!(get(&address, "/health/live").0, 200);
    let (code, metrics) = get(&address, "/metrics");
    assert_eq!(code, 200);
    assert_has_line(&metrics, "millpond_ready 0");
    assert_has_line(&metrics, "millpond_partition_high_watermark{topic=\"a\",partition=\"0\"} 1");
    broker.signal(Signal::TERM);
    broker.wait();
    consuming.kill().expect("it was ours");
    consuming.wait().expect("it was ours");
}

#[test]
fn a_taken_port_is_an_error_that_names_the_key() {
    let place = Place::new();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("an address").to_string();
    let output = place.serve_fails(&["--admin-listen", &address]);
    let stderr = text(&output.stderr);
    assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(1), ""), "{stderr}");
    for words in [&*format!("can't listen on TCP {address}"), "hint: the port is taken", "`admin.listen`", "`off`"] {
        assert!(stderr.contains(words), "{stderr}");
    }
    assert!(!place.path("data").exists(), "a folder for a broker that never was");
    // Of two mistakes at once, the folder is the one that counts.
    let broker = place.serve();
    let stderr = text(&place.serve_fails(&["--admin-listen", &address]).stderr);
    assert!(stderr.contains("in use by another broker") && !stderr.contains("TCP"), "{stderr}");
    assert!(broker.stop().0.success());
}

#[test]
fn a_door_for_everybody_is_warned_of_and_none_is_none() {
    let log = |flags: &[&str]| Place::new().serve_with(flags).stop().2;
    let warnings = |log: &str| log.lines().filter(|line| line.contains("WARN") && line.contains("`admin.listen`")).count();
    let open = log(&["--admin-listen", "0.0.0.0:0"]);
    assert!(warnings(&open) == 1 && open.contains("can read the names of topics"), "{open}");
    assert_eq!(warnings(&log(ANY_PORT)), 0);
    let shut = log(&["--admin-listen", "off"]);
    assert!(!shut.contains("metrics=") && warnings(&shut) == 0, "{shut}");
}

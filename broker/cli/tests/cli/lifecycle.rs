//! How a broker starts, tells where it is, and stops.

use crate::place::{Place, send, text, url_files};
use rustix::process::Signal;
use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    os::unix::fs::PermissionsExt,
    process::{Command, Stdio},
    thread,
};

#[test]
fn the_url_is_told_when_the_broker_is_ready_and_taken_back_when_it_stops() {
    let place = Place::new();
    let broker = place.serve();
    let url = broker.url().to_owned();
    let (address, fingerprint) = url.split_once("?fp=sha256:").expect("a fingerprint");
    assert!(address.starts_with("millpond://127.0.0.1:") && fingerprint.len() == 64, "{url}");
    assert_eq!(fs::read_to_string(place.path("data/url")).expect("the file is there"), format!("{url}\n"));
    let port = address.rsplit(':').next().expect("a port");
    let state = place.path("state/millpond");
    let file = state.join(format!("broker-{port}.url"));
    assert_eq!(fs::read_to_string(&file).expect("the file is there").lines().next(), Some(url.as_str()));
    assert_eq!(fs::metadata(&file).expect("the file is there").permissions().mode() & 0o777, 0o600);
    let (status, rest, log) = broker.stop();
    assert!(status.success(), "{log}");
    assert_eq!(rest, "", "stdout carries the URL and nothing else");
    assert!(!place.path("data/url").exists() && url_files(&state).is_empty());
    assert!(place.serve().url().ends_with(fingerprint), "the certificate is kept");
}

#[test]
fn what_a_killed_broker_left_is_replaced() {
    let place = Place::new();
    let broker = place.serve();
    broker.signal(Signal::KILL);
    broker.wait();
    assert_eq!(url_files(&place.path("state/millpond")).len(), 1);
    let broker = place.serve();
    assert_eq!(fs::read_to_string(place.path("data/url")).expect("the file is there").trim_end(), broker.url());
    assert_eq!(url_files(&place.path("state/millpond")).len(), 1);
}

#[test]
fn the_log_says_what_answers_and_what_does_not_yet() {
    let place = Place::new();
    let (_, _, log) = place.serve_with(&["--kafka-listen", "127.0.0.1:19092", "--admin-listen", "127.0.0.1:0"]).stop();
    for words in ["127.0.0.1:19092", "metrics=\"http://127.0.0.1:", "the broker is ready", "stopped"] {
        assert!(log.contains(words), "{log}");
    }
    assert!(!log.contains('\x1b'), "no colours outside of a terminal");
}

#[test]
fn the_log_can_be_json() {
    let place = Place::new();
    let (_, _, log) = place.serve_with(&["--log-format", "json", "--log-level", "debug"]).stop();
    let lines: Vec<serde_json::Value> = log.lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect();
    assert!(lines.iter().any(|line| line["message"] == "the broker is ready" && line["level"] == "INFO" && line["url"].is_string()));
}

#[test]
fn listening_everywhere_gives_a_url_that_works_here() {
    let place = Place::new();
    let broker = place.serve_with(&["--quic-listen", "0.0.0.0:0"]);
    assert!(!broker.url().contains("0.0.0.0"), "{}", broker.url());
    broker.ok(&place, &["topic", "list"], b"");
    let files = url_files(&place.path("state/millpond"));
    assert!(fs::read_to_string(&files[0]).expect("the file is there").starts_with("millpond://127.0.0.1:"));
}

#[test]
fn what_was_acknowledged_before_sigterm_is_there_afterwards() {
    let place = Place::new();
    let broker = place.serve();
    broker.ok(&place, &["topic", "create", "a"], b"");
    let mut producing = Command::new(env!("CARGO_BIN_EXE_millpond"))
        .args(["produce", "a", "-o", "jsonl", "--no-retry", "--delivery-timeout", "1s", "--url", broker.url()])
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    let mut stdin = producing.stdin.take().expect("piped");
    // Until the producer has had enough.
    let writer = thread::spawn(move || (0_u64..).try_for_each(|number| writeln!(stdin, "{number}")));
    let mut answers = BufReader::new(producing.stdout.take().expect("piped"));
    let mut acknowledged = String::new();
    while acknowledged.lines().count() < 1000 {
        assert!(answers.read_line(&mut acknowledged).expect("it answers") > 0, "the producer ended early");
    }
    let (status, _, log) = broker.stop();
    assert!(status.success(), "{log}");
    answers.read_to_string(&mut acknowledged).expect("it answers");
    assert_eq!(producing.wait().expect("it ends").code(), Some(1), "a producer whose broker goes away says so");
    assert!(writer.join().expect("no panic").is_err());

    let broker = place.serve();
    let stored = broker.ok(&place, &["consume", "a", "--from-beginning", "--until-end"], b"");
    let acknowledged: Vec<_> = acknowledged.lines().filter(|line| !line.contains("error")).collect();
    for (number, (answer, line)) in acknowledged.iter().zip(stored.lines()).enumerate() {
        assert_eq!((*answer, line), (format!("{{\"partition\":0,\"offset\":{number}}}").as_str(), number.to_string().as_str()));
    }
    assert!(acknowledged.len() >= 1000 && acknowledged.len() <= stored.lines().count());
}

#[test]
fn a_second_signal_stops_at_once() {
    let place = Place::new();
    let mut broker = place.serve();
    broker.ok(&place, &["topic", "create", "a"], b"");
    broker.ok(&place, &["produce", "a"], b"one\n");
    let mut consuming =
        place.millpond().args(["consume", "a", "--from-beginning", "--url", broker.url()]).stdout(Stdio::piped()).spawn().expect("it runs");
    let mut line = String::new();
    BufReader::new(consuming.stdout.take().expect("piped")).read_line(&mut line).expect("it shows");
    assert_eq!(line, "one\n");
    // A client that does not react any more, so that stopping takes its time.
    send(&consuming, Signal::STOP);
    broker.signal(Signal::TERM);
    broker.wait_for_log("SIGTERM");
    broker.signal(Signal::TERM);
    let (status, _, log) = broker.wait();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("stopping at once"), "{log}");
    consuming.kill().expect("it was ours");
    consuming.wait().expect("it was ours");
}

#[test]
fn a_broker_ends_with_the_pipe_of_the_program_that_runs_it() {
    let place = Place::new();
    let mut command = place.millpond();
    command
        .args(["serve", "--stop-with-stdin", "--quic-listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--data-dir"])
        .arg(place.path("data"));
    let mut broker = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary runs");
    let mut url = String::new();
    BufReader::new(broker.stdout.take().expect("piped")).read_line(&mut url).expect("it says its URL");
    let mut pipe = broker.stdin.take().expect("piped");
    pipe.write_all(b"nobody reads this\n").expect("it is open");
    let created = place.run(&["topic", "create", "a", "--url", url.trim()]);
    assert!(created.status.success(), "{}", text(&created.stderr));
    drop(pipe);
    let output = broker.wait_with_output().expect("it ends");
    assert!(output.status.success() && text(&output.stderr).contains("standard input has ended"), "{}", text(&output.stderr));
}

#[test]
fn a_consumer_outlives_its_broker_and_says_what_it_waits_for() {
    let place = Place::new();
    let broker = place.serve();
    broker.ok(&place, &["topic", "create", "a"], b"");
    broker.ok(&place, &["produce", "a"], b"one\n");
    let mut command = place.millpond();
    command.args(["consume", "a", "--from-beginning", "--url", broker.url()]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut consuming = command.spawn().expect("it runs");
    let mut shown = BufReader::new(consuming.stdout.take().expect("piped"));
    let mut words = BufReader::new(consuming.stderr.take().expect("piped"));
    let next = |stream: &mut dyn BufRead| {
        let mut line = String::new();
        stream.read_line(&mut line).expect("a line");
        line
    };
    assert_eq!(next(&mut shown), "one\n");
    let address = broker.url().trim_start_matches("millpond://").split('?').next().expect("an address").to_owned();
    assert!(broker.stop().0.success());
    let lost = next(&mut words);
    assert!(lost.contains(&format!("the connection to {address} is lost; trying again")), "{lost}");
    let broker = place.serve_with(&["--quic-listen", &address]);
    let back = next(&mut words);
    assert!(back.contains(&format!("the connection to {address} is back")), "{back}");
    broker.ok(&place, &["produce", "a"], b"two\n");
    assert_eq!(next(&mut shown), "two\n");
    send(&consuming, Signal::INT);
    assert!(consuming.wait().expect("it ends").success());
}

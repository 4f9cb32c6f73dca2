//! The Rust client's examples, run as anybody would run them. Cargo builds them with the tests.

use millpond_tests::{Broker, Site};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    fs,
    io::{BufRead, BufReader, Read},
    path::PathBuf,
    process::{Command, Output, Stdio},
};

fn example(name: &str, url: &str) -> Command {
    let binary = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/release/examples").join(name);
    assert!(binary.exists(), "{} is not there: cargo build --release -p millpond --examples makes it", binary.display());
    let mut command = Command::new(binary);
    command.arg(url);
    command
}

fn lines(output: &Output) -> Vec<String> {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

fn run(broker: &Broker, name: &str) -> Vec<String> {
    lines(&example(name, broker.url()).output().expect("it starts"))
}

#[test]
fn each_example_shows_what_it_says() {
    let site = Site::new();
    let broker = site.start();

    let greetings = run(&broker, "produce_and_consume");
    assert!(greetings.len() == 4 && greetings[0].starts_with("the last one is at partition "), "{greetings:?}");
    assert!(greetings[1..].iter().any(|line| line.ends_with(" Rust")), "{greetings:?}");

    let evening = run(&broker, "start_at_a_time");
    assert_eq!(evening, ["21:00 opened in hour 21", "22:00 opened in hour 22", "23:00 opened in hour 23", "back at offset 0"]);

    let devices = run(&broker, "headers_and_keys");
    assert!(devices.contains(&"device-1 reading 1 Some(b\"0001\")".to_owned()), "{devices:?}");
    assert!(devices.contains(&"device-0 is deleted None".to_owned()), "{devices:?}");
    assert_eq!(devices[13..], ["device-0 is in 1 partition", "device-1 is in 1 partition", "device-2 is in 1 partition"]);

    let readings = run(&broker, "json_models");
    assert_eq!(readings[..2], ["device-7: 21.4 ", "device-8: 19.9 window open"]);
    assert!(readings.len() == 3 && readings[2].starts_with("a bad one, kept at offset 0: expected "), "{readings:?}");

    let work = run(&broker, "pause_and_resume");
    assert_eq!(work, ["while partition 0 is paused: job 1, job 3, job 5", "it waits at offset 0", "afterwards: job 0, job 2, job 4"]);

    // Twice, as whoever tries something out does.
    assert_eq!(run(&broker, "produce_and_consume").len(), 7);
}

#[test]
fn a_module_is_deployed_and_seen_at_work() {
    let site = Site::new();
    let broker = site.start();
    let module = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../plugins/dist/drop-idle.wasm");
    let seen = lines(&example("deploy_a_transform", broker.url()).arg(module).output().expect("it starts"));
    assert!(seen[0].starts_with("drop-idle version 1, transform, "), "{seen:?}");
    assert_eq!(seen[1..3], ["m0 is kept", "m1 is left out"]);
    assert_eq!(seen[9], "4 records are kept; the module was given 8 and left out 4");
}

#[test]
fn a_file_is_loaded_with_a_progress_bar() {
    let site = Site::new();
    let broker = site.start();
    let file = site.folder().join("devices.csv");
    let rows: Vec<String> = (0..2_000).map(|number| format!("device-{number},{}\n", number % 30)).collect();
    fs::write(&file, format!("device,celsius\n{}", rows.concat())).expect("it is written");
    let output = example("load_csv", broker.url()).arg(&file).arg("loaded").output().expect("it starts");
    assert_eq!(lines(&output), ["2000 records are stored in loaded"]);
    let bar = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(bar.contains("[########################################] 100 %"), "{bar}");
}

#[test]
fn a_service_that_is_told_to_end_has_stored_what_it_sent() {
    let site = Site::new();
    let broker = site.start();
    let mut child = example("graceful_shutdown", broker.url()).stdout(Stdio::piped()).spawn().expect("it starts");
    let mut stdout = BufReader::new(child.stdout.take().expect("it is piped"));
    let mut line = String::new();
    stdout.read_line(&mut line).expect("it can be read");
    assert_eq!(line, "ready\n");
    let orders = site.folder().join("orders");
    fs::write(&orders, "a\nb\nc\n").expect("it is written");
    let produce = |topic: &str| {
        let mut command = millpond_tests::millpond();
        command.args(["produce", topic, "--url", broker.url(), "--file"]).arg(&orders);
        command.output().expect("it starts")
    };
    assert!(produce("orders").status.success());
    // Until the receipts are there.
    let mut command = millpond_tests::millpond();
    let receipts = command.args(["consume", "receipts", "--url", broker.url(), "--from", "beginning", "-n", "3"]).output();
    assert_eq!(lines(&receipts.expect("it starts")).len(), 3);
    kill_process(Pid::from_child(&child), Signal::TERM).expect("it runs");
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).expect("it can be read");
    assert!(child.wait().expect("it ends").success());
    assert_eq!(rest, "3 receipts are stored, next is offset 3\n");
}

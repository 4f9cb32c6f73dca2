//! What a person gets for each mistake: a clear error with its cause and a hint, and a broker that goes on.

use millpond::{Client, Record};
use millpond_tests::{Broker, Site, millpond, plugin, text};
use std::{fs::Permissions, net::UdpSocket, os::unix::fs::PermissionsExt, path::PathBuf, process::Output};

/// The command failed with 1, and its stderr holds every one of these.
#[track_caller]
fn refused(output: &Output, expected: &[&str]) {
    ended_with(1, output, expected);
}

#[track_caller]
fn ended_with(code: i32, output: &Output, expected: &[&str]) {
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "exit code; stderr: {stderr}");
    for part in expected {
        assert!(stderr.contains(part), "stderr lacks `{part}`:\n{stderr}");
    }
}

/// The broker still does its work.
#[track_caller]
fn goes_on(broker: &Broker, topic: &str) {
    let stored = broker.run_with_input(&["produce", topic], b"still here\n");
    assert!(stored.status.success(), "produce: {}", text(&stored.stderr));
    let read = broker.ok(&["consume", topic, "--from-beginning", "--until-end"]);
    assert!(read.ends_with("still here\n"), "{read}");
}

fn broker_with_topic(site: &Site) -> Broker {
    let broker = site.start();
    broker.ok(&["topic", "create", "readings", "--partitions", "1"]);
    broker
}

#[test]
fn an_unknown_topic_is_named_with_the_nearest_one() {
    let site = Site::new();
    let broker = broker_with_topic(&site);
    refused(&broker.run_with_input(&["produce", "reading"], b"x\n"), &["reading", "hint:", "readings"]);
    refused(&broker.run(&["consume", "nothing", "--until-end"]), &["nothing", "hint:"]);
    goes_on(&broker, "readings");
}

#[test]
fn a_partition_out_of_range_is_told_with_the_range() {
    let site = Site::new();
    let broker = broker_with_topic(&site);
    let range = ["partition 7", "has 1, from 0 to 0", "hint:"];
    refused(&broker.run_with_input(&["produce", "readings", "--partition", "7"], b"x\n"), &range);
    refused(&broker.run(&["consume", "readings", "--partition", "7", "--until-end"]), &range);
    goes_on(&broker, "readings");
}

#[test]
fn an_offset_out_of_range_is_told_with_the_range() {
    let site = Site::new();
    let broker = broker_with_topic(&site);
    broker.run_with_input(&["produce", "readings"], b"a\nb\nc\n");
    refused(&broker.run(&["consume", "readings", "--from", "offset:500", "--until-end"]), &["500", "0", "3", "hint:"]);
    goes_on(&broker, "readings");
}

#[test]
fn a_record_over_the_limit_is_told_the_limit() {
    let site = Site::new();
    let broker = site.start();
    broker.ok(&["topic", "create", "readings", "--partitions", "1", "--max-batch-bytes", "16KiB"]);
    let mut large = vec![b'x'; 20_000];
    large.push(b'\n');
    refused(&broker.run_with_input(&["produce", "readings"], &large), &["16", "line 1", "hint:"]);
    goes_on(&broker, "readings");
}

#[test]
fn a_wrong_fingerprint_is_refused_by_the_client() {
    let site = Site::new();
    let broker = broker_with_topic(&site);
    let (address, _) = broker.url().split_once("?fp=").expect("the URL has a fingerprint");
    let wrong = format!("{address}?fp=sha256:{}", "0".repeat(64));
    let output = millpond().args(["topic", "list", "--url", &wrong]).output().expect("the command runs");
    refused(&output, &["fingerprint", "hint:"]);
    goes_on(&broker, "readings");
}

#[test]
fn a_broker_that_is_not_there_is_told_so() {
    let site = Site::new();
    let url = broker_with_topic(&site).url().to_owned();
    let output = millpond().args(["topic", "list", "--url", &url]).output().expect("the command runs");
    refused(&output, &["hint:", "millpond serve"]);
}

#[test]
fn random_bytes_on_the_port_change_nothing() {
    let site = Site::new();
    let broker = broker_with_topic(&site);
    let address = broker.url().trim_start_matches("millpond://").split('?').next().expect("an address").to_owned();
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let mut noise = 0x9e37_79b9_7f4a_7c15_u64;
    for length in 1..1400 {
        let datagram: Vec<u8> = (0..length)
            .map(|_| {
                noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                noise.to_be_bytes()[0]
            })
            .collect();
        socket.send_to(&datagram, &address).expect("loopback takes datagrams");
    }
    goes_on(&broker, "readings");
}

#[test]
fn a_file_that_is_no_module_is_refused() {
    let site = Site::new();
    let broker = broker_with_topic(&site);
    let file = site.folder().join("readme.wasm");
    std::fs::write(&file, "# not a module\n").expect("the folder is writable");
    let path = file.to_str().expect("a temporary path is UTF-8");
    refused(&broker.run(&["transform", "deploy", path, "--name", "nothing"]), &["WebAssembly", "hint:"]);
    // No broker is needed to see that.
    ended_with(2, &broker.run(&["transform", "deploy", "no/such/file.wasm", "--name", "nothing"]), &["no/such/file.wasm"]);
    goes_on(&broker, "readings");
}

#[test]
fn a_module_in_the_wrong_place_is_refused() {
    let site = Site::new();
    let broker = broker_with_topic(&site);
    deploy(&broker, "by-device");
    refused(&broker.run(&["transform", "attach", "readings", "by-device", "--on", "produce"]), &["partitioner", "hint:"]);
    refused(&broker.run(&["transform", "attach", "readings", "by-devic", "--on", "partition"]), &["by-devic", "hint:"]);
    goes_on(&broker, "readings");
}

#[test]
fn a_hostile_module_costs_its_own_topic_and_nothing_else() {
    let site = Site::new();
    let broker = broker_with_topic(&site);
    broker.ok(&["topic", "create", "victim", "--partitions", "1"]);
    deploy(&broker, "hostile");
    for (mode, expected) in [
        ("loop", "ran longer than 100ms"),
        ("recurse", "call stack"),
        ("grow", "needs more memory than its 33554432 bytes"),
        ("trap", "told to panic"),
        ("garbage", "can't be stored"),
        ("huge-output", "returned more than 8388608 bytes"),
        ("fail", "told to fail"),
    ] {
        broker.ok(&["transform", "attach", "victim", "hostile", "--on", "produce", "--param", &format!("mode={mode}")]);
        refused(&broker.run_with_input(&["produce", "victim"], b"poison\n"), &[expected, "line 1", "hint:"]);
        broker.ok(&["transform", "detach", "victim", "hostile", "--on", "produce"]);
        goes_on(&broker, "readings");
    }
    goes_on(&broker, "victim");
    refused(
        &broker.run(&["transform", "attach", "victim", "hostile", "--on", "produce", "--param", "mode=refuse"]),
        &["told to refuse", "hint:"],
    );
    goes_on(&broker, "victim");
}

#[test]
fn a_module_that_floods_the_log_is_cut_short_and_its_records_are_stored() {
    const CALLS: usize = 20;
    // A burst of 64 KiB in lines that count for 128 bytes and more, and what a second brings, for as long as the test may take.
    const LINES_MAX: usize = 512 + 64 * 60;
    let site = Site::new();
    let broker = broker_with_topic(&site);
    deploy(&broker, "hostile");
    broker.ok(&["transform", "attach", "readings", "hostile", "--on", "produce", "--param", "mode=flood"]);
    for _ in 0..CALLS {
        goes_on(&broker, "readings");
    }
    let log = broker.log();
    let lines = log.lines().filter(|line| line.contains("of a flood")).count();
    assert!((100..LINES_MAX).contains(&lines), "{lines} lines of {}", CALLS * 10_000);
    assert!(log.contains("more lines in this call, over its 8192 bytes"), "{log}");
    assert!(log.contains("lines of this module were left out, over its 8192 bytes a second"), "{log}");
}

#[test]
fn a_port_that_is_taken_ends_the_start() {
    let site = Site::new();
    let broker = broker_with_topic(&site);
    let address = broker.url().trim_start_matches("millpond://").split('?').next().expect("an address").to_owned();
    let other = Site::new();
    refused(&other.start_and_fail(&["--quic-listen", &address]), &[&address, "hint:"]);
    goes_on(&broker, "readings");
}

#[test]
fn a_data_folder_that_is_locked_ends_the_start() {
    let site = Site::new();
    let broker = broker_with_topic(&site);
    refused(&site.start_and_fail(&["--quic-listen", "127.0.0.1:0"]), &["another broker", "hint:"]);
    goes_on(&broker, "readings");
}

#[test]
fn a_data_folder_that_may_not_be_written_ends_the_start() {
    let site = Site::new();
    let locked = site.folder().join("locked");
    std::fs::create_dir(&locked).expect("the folder is writable");
    std::fs::set_permissions(&locked, Permissions::from_mode(0o555)).expect("the folder is ours");
    // Permissions don't hold root back, but nobody can make a folder among those of the kernel.
    let is_root = std::fs::write(locked.join("probe"), "").is_ok();
    let inside = if is_root { PathBuf::from("/sys/millpond-data") } else { locked.join("data") };
    let path = inside.to_str().expect("a temporary path is UTF-8");
    let output = site.start_and_fail(&["--data-dir", path]);
    refused(&output, &[path, "hint:"]);
    let words = text(&output.stderr);
    let causes = ["Permission denied", "Operation not permitted", "Read-only file system"];
    assert!(causes.iter().any(|cause| words.contains(cause)), "{words}");
}

#[test]
fn a_data_folder_inside_a_file_ends_the_start() {
    let site = Site::new();
    std::fs::write(site.folder().join("file"), "").expect("the folder is writable");
    let inside_a_file = site.folder().join("file/data");
    let path = inside_a_file.to_str().expect("a temporary path is UTF-8");
    refused(&site.start_and_fail(&["--data-dir", path]), &[path, "hint:"]);
}

/// Longer than the connection may be silent: it is the broker that keeps it alive then, for a client does so every five seconds.
#[test]
fn a_module_that_takes_longer_than_the_idle_timeout_is_told_and_no_lost_connection() {
    let site = Site::new();
    let broker = site.start_with(&["--set", "quic.idle_timeout=1s"]);
    broker.ok(&["topic", "create", "readings", "--partitions", "1"]);
    deploy(&broker, "hostile");
    broker.ok(&["transform", "attach", "readings", "hostile", "--on", "produce", "--param", "mode=loop", "--time", "3s"]);
    refused(&broker.run_with_input(&["produce", "readings", "--no-retry"], b"x\n"), &["the module ran longer than 3s", "hint:"]);
}

/// A service that sends for months is not started again because a topic was made anew.
#[tokio::test]
async fn a_producer_goes_on_with_a_topic_that_was_deleted_and_made_again() {
    let site = Site::new();
    let broker = broker_with_topic(&site);
    let client = Client::connect(broker.url()).await.expect("it connects");
    let producer = client.producer("readings").build().await.expect("the topic is there");
    for round in 0..3 {
        for number in 0..5 {
            producer.send(Record::new(format!("{round} {number}"))).await.expect("the topic is there");
        }
        broker.ok(&["topic", "delete", "readings", "--yes"]);
        if round == 1 {
            let error = producer.send(Record::new("nowhere")).await.expect_err("there is no topic");
            assert_eq!(error.code(), "topic_not_found", "{error}");
        }
        broker.ok(&["topic", "create", "readings", "--partitions", "1"]);
    }
    for number in 0..5 {
        drop(producer.enqueue(Record::new(format!("last {number}"))).await.expect("there is room"));
    }
    producer.flush().await.expect("all are stored");
    let stored = broker.ok(&["consume", "readings", "--from-beginning", "--until-end"]);
    assert_eq!(stored.lines().collect::<Vec<_>>(), ["last 0", "last 1", "last 2", "last 3", "last 4"]);
}

fn deploy(broker: &Broker, name: &str) {
    let file = plugin(name);
    broker.ok(&["transform", "deploy", file.to_str().expect("the repository's path is UTF-8"), "--name", name]);
}

//! What a broker does before it answers anybody, and how it refuses to start.

use crate::place::{Place, send, text};
use rustix::process::Signal;
use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead, BufReader},
    net::UdpSocket,
    process::{Command, Stdio},
};

#[test]
fn a_taken_port_leaves_nothing_behind_in_a_new_folder_or_in_one_that_was_there() {
    let place = Place::new();
    let taken = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("an address").to_string();
    let output = place.serve_fails(&["--quic-listen", &address]);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains(&format!("can't listen on UDP {address}")) && stderr.contains("hint: the port is taken"), "{stderr}");
    assert!(!place.path("data").exists(), "a folder for a broker that never was");
    assert!(place.serve().stop().0.success());
    let files = || fs::read_dir(place.path("data")).expect("a folder").flatten().map(|entry| entry.file_name()).collect::<BTreeSet<_>>();
    let before = files();
    assert_eq!(place.serve_fails(&["--quic-listen", &address]).status.code(), Some(1));
    assert_eq!(files(), before);
    drop(taken);
    assert!(place.serve_with(&["--quic-listen", &address]).stop().0.success(), "nothing holds the folder or the port");
}

#[test]
fn a_folder_in_use_is_left_alone() {
    let place = Place::new();
    let broker = place.serve();
    fs::remove_dir_all(place.path("data/tls")).expect("the broker has read them");
    let output = place.serve_fails(&[]);
    let stderr = text(&output.stderr);
    assert!(stderr.contains("in use by another broker") && stderr.contains("hint: stop the other broker"), "{stderr}");
    assert!(!place.path("data/tls").exists());
    assert_eq!(fs::read_to_string(place.path("data/url")).expect("the file is there").trim_end(), broker.url());
}

#[test]
fn a_data_folder_that_can_not_be_is_refused_with_a_hint_that_fits() {
    let place = Place::new();
    let file = place.file("file", b"");
    for (data_dir, hint) in [
        (file.clone(), format!("hint: {} is not a folder", file.display())),
        (file.join("data"), format!("hint: {} is not a folder", file.display())),
        ("/proc/no-such-folder".into(), "hint: no folder can be made in /proc".to_owned()),
    ] {
        let output = place
            .millpond()
            .args(["serve", "--quic-listen", "127.0.0.1:0", "--admin-listen", "off", "--data-dir"])
            .arg(data_dir)
            .output()
            .expect("it runs");
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(stderr.contains(&hint) && !stderr.contains("lock"), "{stderr}");
    }
}

#[test]
fn whoever_lets_others_connect_is_warned_once() {
    let warnings = |listen: &str| {
        let (_, _, log) = Place::new().serve_with(&["--quic-listen", listen]).stop();
        log.lines().filter(|line| line.contains("WARN") && line.contains("no authentication")).count()
    };
    assert_eq!(warnings("0.0.0.0:0"), 1);
    assert_eq!(warnings("127.0.0.1:0"), 0);
    assert_eq!(warnings("[::1]:0"), 0);
}

#[test]
fn whoever_serves_batches_unverified_is_warned_once() {
    let warnings = |choice: &str| {
        let (_, _, log) = Place::new().serve_with(&["--set", &format!("storage.verify_on_read={choice}")]).stop();
        log.lines().filter(|line| line.contains("WARN") && line.contains("storage.verify_on_read")).count()
    };
    assert_eq!(["never", "first", "always"].map(warnings), [1, 0, 0]);
}

#[test]
fn a_broker_whose_log_can_not_be_written_does_its_work() {
    for format in ["pretty", "json"] {
        for log in ["a full disk", "a closed pipe"] {
            let place = Place::new();
            let mut command = place.millpond();
            command.args(["serve", "--data-dir", "data", "--quic-listen", "127.0.0.1:0", "--admin-listen", "off", "--log-format", format]);
            let full = || fs::OpenOptions::new().write(true).open("/dev/full").expect("Linux has it");
            command.stdin(Stdio::null()).stdout(Stdio::piped());
            let mut broker =
                if log == "a full disk" { command.stderr(full()) } else { command.stderr(Stdio::piped()) }.spawn().expect("it runs");
            drop(broker.stderr.take());
            let mut url = String::new();
            BufReader::new(broker.stdout.as_mut().expect("piped")).read_line(&mut url).expect("stdout can be read");
            assert!(url.starts_with("millpond://"), "{format}, {log}: it ended with {:?}", broker.wait());
            for arguments in [&["topic", "create", "a"][..], &["produce", "a"], &["topic", "delete", "a", "--yes"]] {
                let output = place.run_with(arguments, &[("MILLPOND_URL", url.trim_end())], b"one\n");
                assert!(output.status.success(), "{format}, {log}: {}", text(&output.stderr));
            }
            send(&broker, Signal::TERM);
            assert_eq!(broker.wait().expect("it ends").code(), Some(0), "{format}, {log}");
        }
    }
}

#[test]
fn a_broker_whose_url_can_not_be_written_to_stdout_starts_all_the_same() {
    let place = Place::new();
    let mut command = place.millpond();
    command.args(["serve", "--data-dir", "data", "--quic-listen", "127.0.0.1:0", "--admin-listen", "off"]);
    let full = fs::OpenOptions::new().write(true).open("/dev/full").expect("Linux has it");
    let mut broker = command.stdin(Stdio::null()).stdout(full).stderr(Stdio::piped()).spawn().expect("it runs");
    let log = BufReader::new(broker.stderr.take().expect("piped")).lines().map(|line| line.expect("text"));
    let mut log = log.inspect(|line| assert!(!line.contains("panicked"), "{line}"));
    assert!(log.any(|line| line.contains("the URL can't be written to stdout")));
    assert!(log.any(|line| line.contains("the broker is ready")));
    let url = fs::read_to_string(place.path("data/url")).expect("it is told there");
    assert!(place.run_with(&["topic", "list"], &[("MILLPOND_URL", url.trim_end())], b"").status.success());
    send(&broker, Signal::TERM);
    log.for_each(drop);
    assert_eq!(broker.wait().expect("it ends").code(), Some(0));
}

#[test]
fn a_command_whose_words_nobody_reads_does_its_work() {
    let place = Place::new();
    let broker = place.serve();
    broker.ok(&place, &["topic", "create", "a"], b"");
    place.file("lines", b"one\ntwo\n");
    for arguments in [&["produce", "a", "--file", "lines"][..], &["topic", "alter", "a", "--cleanup", "compact"]] {
        let full = fs::OpenOptions::new().write(true).open("/dev/full").expect("Linux has it");
        let mut command = place.millpond();
        let ended =
            command.args(arguments).env("MILLPOND_URL", broker.url()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(full).status();
        assert_eq!(ended.expect("it runs").code(), Some(0), "{arguments:?}");
    }
}

#[test]
fn the_url_is_shown_once() {
    let place = Place::new();
    let broker = place.serve();
    let url = broker.url().to_owned();
    let (_, _, log) = broker.stop();
    assert!(log.contains("the broker is ready") && !log.contains(&url), "{log}");
}

#[test]
fn the_limit_on_open_files_is_raised_and_partitions_share_what_there_is() {
    let place = Place::new();
    // The shell's own limits, which the broker takes over with the process.
    let serve = format!(
        "ulimit -S -n 256 && ulimit -H -n 512 && exec {} serve --data-dir data --quic-listen 127.0.0.1:0 --admin-listen off --log-format json",
        env!("CARGO_BIN_EXE_millpond")
    );
    let mut command = Command::new("sh");
    command.args(["-c", &serve]).env_clear().env("XDG_STATE_HOME", place.path("state")).current_dir(place.path(""));
    let mut broker = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("a shell");
    let mut url = String::new();
    BufReader::new(broker.stdout.as_mut().expect("piped")).read_line(&mut url).expect("stdout can be read");
    let created = place.run(&["topic", "create", "large", "--partitions", "1000", "--url", url.trim_end()]);
    let files = fs::read_dir(format!("/proc/{}/fd", broker.id())).expect("it runs").count();
    let limits = fs::read_to_string(format!("/proc/{}/limits", broker.id())).expect("it runs");
    send(&broker, Signal::TERM);
    let log = text(&broker.wait_with_output().expect("it ends").stderr);

    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).expect("it is there");
    assert_eq!(line.split_whitespace().take(2).collect::<Vec<_>>(), ["512", "512"], "the soft limit is the hard one");
    assert!(log.contains("the limit on open files was raised"), "{log}");
    assert!(created.status.success(), "{}", text(&created.stderr));
    assert!(files < 256, "1000 partitions that nobody uses have {files} files open");
}

//! A real broker process for end-to-end tests: started, killed, stopped and started again on the same folder and port.
//!
//! The binary is the one that `cargo build --release -p millpond-cli` made beside the tests; `make test` builds it first.

#![forbid(unsafe_code)]

mod small_disk;

pub use small_disk::{SMALL_DISK_BYTES, SmallDisk};

use rustix::process::{Pid, Signal, kill_process};
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::UdpSocket,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::{Arc, Mutex},
    thread::JoinHandle,
};
use tempfile::TempDir;

/// A broker that runs in a process of its own, and is killed when this is dropped.
pub struct Broker {
    child: Child,
    url: String,
    log: Log,
}

/// A folder and a port that brokers share, one after another.
pub struct Site {
    folder: TempDir,
    port: u16,
}

type Log = Arc<Mutex<Vec<String>>>;

impl Site {
    /// A new data folder, and a UDP port that was free a moment ago.
    pub fn new() -> Site {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a UDP port on loopback");
        let port = socket.local_addr().expect("the port that was bound").port();
        Site { folder: tempfile::tempdir().expect("a temporary folder"), port }
    }

    /// The broker's data folder.
    pub fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// A folder for whatever else a test needs.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Starts a broker and waits until it says that it is ready.
    pub fn start(&self) -> Broker {
        self.start_with(&[])
    }

    /// The same with more flags for `serve`.
    pub fn start_with(&self, flags: &[&str]) -> Broker {
        let mut child = self.spawn(flags);
        let log = Log::default();
        collect_lines(child.stderr.take().expect("stderr is piped"), Arc::clone(&log));
        let mut url = String::new();
        let stdout = child.stdout.take().expect("stdout is piped");
        BufReader::new(stdout).read_line(&mut url).expect("stdout can be read");
        let url = url.trim().to_owned();
        assert!(url.starts_with("millpond://"), "the broker did not start; it said:\n{}", log.lock().expect("no panic").join("\n"));
        Broker { child, url, log }
    }

    /// Starts a broker that is expected to end by itself, and returns what it said.
    pub fn start_and_fail(&self, flags: &[&str]) -> Output {
        self.spawn(flags).wait_with_output().expect("the broker ends")
    }

    fn spawn(&self, flags: &[&str]) -> Child {
        let mut command = millpond();
        command.arg("serve").args(["--kafka-listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
        if !flags.contains(&"--quic-listen") {
            command.args(["--quic-listen", &format!("127.0.0.1:{}", self.port)]);
        }
        if !flags.contains(&"--data-dir") {
            command.arg("--data-dir").arg(self.data_dir());
        }
        command
            .args(flags)
            .env("XDG_STATE_HOME", self.folder.path().join("state"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the millpond binary is built: cargo build --release -p millpond-cli")
    }
}

impl Default for Site {
    fn default() -> Self {
        Site::new()
    }
}

impl Broker {
    /// The broker's URL, with its certificate's fingerprint.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        self.log.lock().expect("no panic while logging").join("\n")
    }

    /// Bytes of memory that are resident now.
    pub fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("the process is there");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("Linux says how much is resident");
        let kib: u64 = line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number of KiB");
        kib * 1024
    }

    /// Runs a client command against it.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.run_with_input(arguments, b"")
    }

    /// The same with bytes on stdin.
    pub fn run_with_input(&self, arguments: &[&str], input: &[u8]) -> Output {
        let mut child = millpond()
            .args(arguments)
            .env("MILLPOND_URL", &self.url)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the millpond binary is built");
        let mut stdin = child.stdin.take().expect("stdin is piped");
        let input = input.to_vec();
        // The command may stop reading before the end, and says so by its exit code.
        let writer = std::thread::spawn(move || stdin.write_all(&input));
        let output = child.wait_with_output().expect("the command ends");
        let _ = writer.join().expect("the writer does not panic");
        output
    }

    /// Runs a client command that must succeed, and returns its stdout.
    pub fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "millpond {}: {}\n{}", arguments.join(" "), text(&output.stderr), self.log());
        text(&output.stdout)
    }

    /// `kill -9`.
    pub fn kill(mut self) {
        self.signal(Signal::KILL);
        self.child.wait().expect("the process was ours");
    }

    /// Asks it to stop and waits until it has.
    pub fn stop(mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.child.wait().expect("the process was ours")
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a process id");
        kill_process(pid, signal).expect("the process is there");
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The `millpond` command, with no configuration from the environment.
pub fn millpond() -> Command {
    let mut command = Command::new(binary());
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("MILLPOND_")) {
        command.env_remove(name);
    }
    command
}

/// A plugin that `plugins/build.sh` made.
pub fn plugin(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins/dist").join(format!("{name}.wasm"));
    assert!(path.exists(), "{} is not built: run plugins/build.sh", path.display());
    path
}

/// Bytes as text, for messages.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn binary() -> PathBuf {
    let tests = std::env::current_exe().expect("this test has a path");
    // target/release/deps/test-hash
    let folder = tests.parent().and_then(Path::parent).expect("cargo puts tests two folders down");
    folder.join("millpond")
}

fn collect_lines(stream: impl Read + Send + 'static, log: Log) -> JoinHandle<()> {
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            log.lock().expect("no panic while logging").push(line);
        }
    })
}

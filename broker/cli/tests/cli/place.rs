//! A folder of its own for each test, and brokers in it.

use rustix::process::{Pid, Signal, kill_process};
use std::{
    io::{BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Output, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
};
use tempfile::TempDir;

/// Where a test's brokers keep their data, and where its commands find them.
pub(crate) struct Place(TempDir);

/// A running broker. Killed when dropped.
pub(crate) struct Broker {
    child: Child,
    url: String,
    rest_of_stdout: BufReader<ChildStdout>,
    log: Receiver<String>,
    /// What was taken from `log` so far.
    read: String,
}

impl Place {
    pub(crate) fn new() -> Place {
        Place(tempfile::tempdir().expect("a temporary folder"))
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A file with these bytes.
    pub(crate) fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, bytes).expect("a file in a temporary folder");
        path
    }

    /// `millpond`, with nothing from the environment of whoever runs the tests.
    pub(crate) fn millpond(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_millpond"));
        command.env_clear().env("HOME", "/home/someone").env("XDG_STATE_HOME", self.path("state")).current_dir(self.0.path());
        command
    }

    /// Starts a broker on the folder `data`, and waits until it says that it is ready.
    pub(crate) fn serve(&self) -> Broker {
        self.serve_with(&[])
    }

    pub(crate) fn serve_with(&self, flags: &[&str]) -> Broker {
        let mut child = self.spawn_serve(flags);
        let log = collect(child.stderr.take().expect("stderr is piped"));
        let mut rest_of_stdout = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let mut url = String::new();
        rest_of_stdout.read_line(&mut url).expect("stdout can be read");
        let url = url.trim_end().to_owned();
        if !url.starts_with("millpond://") {
            let _ = child.kill();
            panic!("the broker did not start:\n{}", log.iter().collect::<String>());
        }
        Broker { child, url, rest_of_stdout, log, read: String::new() }
    }

    /// Starts a broker that must not come up.
    pub(crate) fn serve_fails(&self, flags: &[&str]) -> Output {
        self.spawn_serve(flags).wait_with_output().expect("it ends")
    }

    fn spawn_serve(&self, flags: &[&str]) -> Child {
        let mut command = self.millpond();
        command.args(["serve", "--data-dir", "data", "--quic-listen", "127.0.0.1:0"]).args(flags);
        if !flags.contains(&"--admin-listen") {
            // Brokers of many tests run side by side.
            command.args(["--admin-listen", "off"]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary runs")
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.run_with(arguments, &[], b"")
    }

    /// Runs a command with variables and bytes on stdin.
    pub(crate) fn run_with(&self, arguments: &[&str], variables: &[(&str, &str)], input: &[u8]) -> Output {
        let mut command = self.millpond();
        command.args(arguments).envs(variables.iter().copied());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary runs");
        let mut stdin = child.stdin.take().expect("stdin is piped");
        let input = input.to_vec();
        // A command may end before it has read everything.
        let writer = thread::spawn(move || drop(stdin.write_all(&input)));
        let output = child.wait_with_output().expect("it ends");
        writer.join().expect("no panic");
        output
    }
}

impl Broker {
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Runs a client command against this broker.
    pub(crate) fn run(&self, place: &Place, arguments: &[&str], input: &[u8]) -> Output {
        place.run_with(arguments, &[("MILLPOND_URL", &self.url)], input)
    }

    /// Runs a client command that must succeed, and gives its stdout.
    pub(crate) fn ok(&self, place: &Place, arguments: &[&str], input: &[u8]) -> String {
        let output = self.run(place, arguments, input);
        assert!(output.status.success(), "millpond {} ended with {}:\n{}", arguments.join(" "), output.status, text(&output.stderr));
        text(&output.stdout)
    }

    /// Runs a client command that must fail, and gives its stderr.
    pub(crate) fn fails(&self, place: &Place, arguments: &[&str], input: &[u8]) -> String {
        let output = self.run(place, arguments, input);
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "millpond {}:\n{stderr}", arguments.join(" "));
        stderr
    }

    pub(crate) fn signal(&self, signal: Signal) {
        send(&self.child, signal);
    }

    /// Waits until it ends. Gives its exit status, what it printed on stdout behind the URL, and its log.
    pub(crate) fn wait(mut self) -> (ExitStatus, String, String) {
        let status = self.child.wait().expect("it was ours");
        let mut rest = String::new();
        self.rest_of_stdout.read_to_string(&mut rest).expect("stdout can be read");
        let mut log = std::mem::take(&mut self.read);
        log.extend(self.log.iter());
        (status, rest, log)
    }

    /// Waits until the broker has logged this,
    /// and give all that it has logged so far.
    pub(crate) fn wait_for_log(&mut self, words: &str) -> &str {
        while !self.read.contains(words) {
            let line = self.log.recv().unwrap_or_else(|_| panic!("the broker ended without `{words}`:\n{}", self.read));
            self.read.push_str(&line);
        }
        &self.read
    }

    /// SIGTERM, and what came of it.
    pub(crate) fn stop(self) -> (ExitStatus, String, String) {
        self.signal(Signal::TERM);
        self.wait()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a signal to a process of ours.
pub(crate) fn send(child: &Child, signal: Signal) {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).expect("a process id");
    kill_process(pid, signal).expect("it runs");
}

/// A line for each item.
pub(crate) fn lines<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    items.into_iter().flat_map(|item| [item.to_string(), "\n".to_owned()]).collect()
}

/// Bytes as text.
pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Whether a file with the URL of some broker is in the state folder.
pub(crate) fn url_files(state: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(state).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

/// The lines that come from a stream, each with its line break.
fn collect(stderr: ChildStderr) -> Receiver<String> {
    let (out, lines) = channel();
    thread::spawn(move || {
        let mut stderr = BufReader::new(stderr);
        let mut line = String::new();
        while stderr.read_line(&mut line).is_ok_and(|bytes| bytes > 0) && out.send(std::mem::take(&mut line)).is_ok() {}
    });
    lines
}

//! The other process: this binary again, as the broker or as the peer of the raw measurements, so that both are measured across
//! two processes.
//!
//! Dropping a [`Child`] ends its process. If this process is killed, the child sees its standard input close.

use super::{BenchError, disk::blocking};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    env,
    ffi::OsString,
    fs::{self, File},
    io::{self, BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::Duration,
};
use tokio::{sync::oneshot, time::timeout};

/// Long enough for a slow flash disk and the first certificates.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// Lines of a child's log that go into an error.
const LOG_LINES_SHOWN: usize = 5;

/// A process that ends with this value.
#[derive(Debug)]
pub(super) struct Child {
    name: &'static str,
    process: std::process::Child,
    /// What it writes to stderr.
    log: PathBuf,
}

impl Child {
    /// Runs this binary with `arguments` and waits for the first line of its output in which `find` finds something.
    ///
    /// In `folder` are its log, and what it would write to the user's own folders.
    pub(super) async fn start(
        name: &'static str,
        arguments: Vec<OsString>,
        folder: PathBuf,
        find: fn(&str) -> Option<String>,
    ) -> Result<(Child, String), BenchError> {
        let log = folder.join(format!("{name}.log"));
        let reason = match spawn(name, arguments, &folder, &log, find) {
            Err(error) => error.to_string(),
            Ok((child, found)) => match timeout(START_TIMEOUT, found).await {
                Ok(Ok(found)) => return Ok((child, found)),
                Ok(Err(_)) => "it ended before it was ready".to_owned(),
                Err(_) => format!("it was not ready within {} s", START_TIMEOUT.as_secs()),
            },
        };
        Err(BenchError::Start { name, reason, log: last_lines(&log) })
    }

    /// Asks it to stop, and waits until it has.
    pub(super) async fn stop(mut self) -> Result<(), BenchError> {
        blocking(move || {
            let pid = i32::try_from(self.process.id()).ok().and_then(Pid::from_raw);
            let asked = pid.map_or(Ok(()), |pid| kill_process(pid, Signal::TERM)).map_err(io::Error::from);
            match asked.and_then(|()| self.process.wait()) {
                Ok(status) if status.success() => Ok(()),
                Ok(status) => Err(BenchError::Stop { name: self.name, reason: status.to_string(), log: last_lines(&self.log) }),
                Err(error) => Err(BenchError::Stop { name: self.name, reason: error.to_string(), log: last_lines(&self.log) }),
            }
        })
        .await
    }

    /// The last lines of its log, each on a line of its own, and how it ended if it has.
    pub(super) fn last_words(&mut self) -> String {
        let ended = match self.process.try_wait() {
            Ok(Some(status)) => format!("\n  (it has ended: {status})"),
            _ => String::new(),
        };
        last_lines(&self.log) + &ended
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // It fails only if the process has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn spawn(
    name: &'static str,
    arguments: Vec<OsString>,
    folder: &Path,
    log: &Path,
    find: fn(&str) -> Option<String>,
) -> io::Result<(Child, oneshot::Receiver<String>)> {
    let mut command = Command::new(env::current_exe()?);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(File::create(log)?);
    // A broker of the user's may be configured by the environment; this one must not be.
    for (key, _) in env::vars_os().filter(|(key, _)| key.to_string_lossy().starts_with("MILLPOND_")) {
        command.env_remove(key);
    }
    for variable in ["HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME"] {
        command.env(variable, folder);
    }
    let mut child = Child { name, process: command.spawn()?, log: log.to_owned() };
    let output = child.process.stdout.take().ok_or_else(|| io::Error::other("it has no standard output"))?;
    let (sender, receiver) = oneshot::channel();
    // A thread, not a task: reading a pipe blocks. It ends with the child, and reads on so that the child never waits for it.
    thread::spawn(move || {
        let mut sender = Some(sender);
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if let Some(found) = find(&line)
                && let Some(sender) = sender.take()
            {
                // Nobody waits any more if it came too late.
                let _ = sender.send(found);
            }
        }
    });
    Ok((child, receiver))
}

fn last_lines(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].iter().flat_map(|line| ["\n  ", line]).collect()
}

//! What can stop a measurement.

use crate::failure::Failure;
use std::{error::Error as _, io, path::PathBuf, time::Duration};
use thiserror::Error;

/// Why there is no result.
#[derive(Debug, Error)]
pub(crate) enum BenchError {
    /// A file or folder in the way.
    #[error("could not {action} {path}")]
    File {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The broker, or the peer of the raw measurements, did not come up.
    #[error("{name} did not start: {reason}{log}")]
    Start {
        /// Which of the two.
        name: &'static str,
        /// Why.
        reason: String,
        /// The last lines of what it wrote, each on a line of its own; empty if it wrote nothing.
        log: String,
    },
    /// It did not end in order when it was asked to.
    #[error("{name} did not stop in order: {reason}{log}")]
    Stop {
        /// Which of the two.
        name: &'static str,
        /// How it ended, or why it could not be asked.
        reason: String,
        /// The last lines of what it wrote, each on a line of its own; empty if it wrote nothing.
        log: String,
    },
    /// The raw connection broke.
    #[error("the raw QUIC connection failed: {0}")]
    Raw(String),
    /// Millpond refused something, or went away.
    #[error(transparent)]
    Client(#[from] millpond::Error),
    /// The engine, where it runs in this process.
    #[error(transparent)]
    Engine(#[from] millpond_engine::EngineError),
    /// Fewer or more records came back than were acknowledged.
    #[error("{case}: {expected} records were acknowledged and {actual} were found")]
    Miscounted {
        /// Where.
        case: &'static str,
        /// What the producer was told.
        expected: u64,
        /// What was there.
        actual: u64,
    },
    /// A measurement took far longer than it was given.
    #[error("{what} did not end within {} s", limit.as_secs())]
    Stuck {
        /// Which.
        what: &'static str,
        /// How long it was waited for.
        limit: Duration,
    },
    /// What went wrong during the measurements, with what the broker said last: its log goes with the folder.
    #[error("{what} could not be measured: {error}")]
    Broken {
        /// What was measured, or was to be.
        what: String,
        /// Why it could not be.
        error: Box<BenchError>,
        /// The last lines of the broker's log, each on a line of its own; empty if it wrote nothing.
        log: String,
    },
    /// Ctrl-C or SIGTERM.
    #[error("interrupted; the temporary folder is removed")]
    Interrupted,
    /// The raw peer could not say where it is.
    #[error("could not write to stdout")]
    Output(#[source] io::Error),
}

/// What was tried when a module can't be read; it has a hint of its own.
pub(super) const READ_MODULE: &str = "read the module";

impl From<BenchError> for Failure {
    fn from(error: BenchError) -> Failure {
        let error = match error {
            BenchError::Client(error) => return error.into(),
            BenchError::Broken { what, error, log } => {
                let failure = Failure::from(*error).within(format!("{what} could not be measured"));
                return if log.is_empty() { failure } else { failure.cause(format!("the broker's last words:{log}")) };
            }
            error => error,
        };
        let hint = match &error {
            BenchError::File { action: READ_MODULE, .. } => "build the plugins with `make plugins`, or name a transform with --plugin FILE",
            BenchError::File { .. } => "choose a folder that is writable and has room with --data-dir DIR",
            BenchError::Stuck { .. } => "the machine may be busy with something else; try again",
            _ => "",
        };
        let mut failure = match &error {
            BenchError::File { action: READ_MODULE, .. } => Failure::usage(error.to_string()),
            _ => Failure::new(error.to_string()),
        };
        if let Some(source) = error.source() {
            failure = failure.because(source);
        }
        if hint.is_empty() { failure } else { failure.hint(hint) }
    }
}

//! What a command ends with when it could not do its work, and how a person reads it.
//!
//! ```text
//! error: WHAT happened
//!   cause: the reason, and its reason, a line each
//! hint: what to do about it
//! ```
//!
//! Exit codes are decided here and nowhere else: 0 done, 1 failed, 2 bad usage. Bad usage is what shows to be wrong without asking
//! a broker: an argument, a variable, the configuration, or a file that one of them names.

use std::{
    error::Error,
    fmt,
    io::{self, IsTerminal, Write},
    process::ExitCode,
};

/// What a command returns.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

/// Why a command ended before its work was done.
#[derive(Debug)]
pub(crate) struct Failure(Box<Words>);

#[derive(Debug)]
struct Words {
    ending: Ending,
    what: String,
    causes: Vec<String>,
    hint: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// Whoever read our stdout has enough: `millpond consume … | head`. Not an error.
    ReaderGone,
    Failed,
    /// As that, and it was told already, when it happened.
    Told,
    Usage,
}

impl Failure {
    /// The work could not be done; `what` says what happened, in one sentence without a full stop.
    pub(crate) fn new(what: impl Into<String>) -> Failure {
        Failure::with_ending(Ending::Failed, what)
    }

    /// The command line, the environment, the configuration or a file that they name can't be meant that way. No broker was asked.
    pub(crate) fn usage(what: impl Into<String>) -> Failure {
        Failure::with_ending(Ending::Usage, what)
    }

    /// Nobody reads stdout any more, so there is nothing left to do and nothing to complain about.
    pub(crate) fn reader_gone() -> Failure {
        Failure::with_ending(Ending::ReaderGone, "nobody reads the output any more")
    }

    /// Something failed on the way, of which [`Failure::tell`] has told at once.
    pub(crate) fn told() -> Failure {
        Failure::with_ending(Ending::Told, "not all of it could be done")
    }

    /// What came of writing to stdout.
    pub(crate) fn writing_stdout(error: &io::Error) -> Failure {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Failure::reader_gone();
        }
        Failure::new("can't write to stdout").because(error)
    }

    /// Adds an error and all that it was caused by.
    #[must_use]
    pub(crate) fn because(mut self, error: &dyn Error) -> Failure {
        let mut next = Some(error);
        while let Some(cause) = next {
            self.push_cause(cause.to_string());
            next = cause.source();
        }
        self
    }

    /// Adds a cause in its own words.
    #[must_use]
    pub(crate) fn cause(mut self, cause: String) -> Failure {
        self.push_cause(cause);
        self
    }

    /// Says what a person can do about it.
    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Failure {
        self.0.hint = Some(hint.into());
        self
    }

    /// The same, unless there is a hint already.
    #[must_use]
    pub(crate) fn hint_if_none(self, hint: &str) -> Failure {
        if self.0.hint.is_some() { self } else { self.hint(hint) }
    }

    /// Puts the failure into a wider sentence, and keeps its own as the cause.
    #[must_use]
    pub(crate) fn within(mut self, what: impl Into<String>) -> Failure {
        let inner = std::mem::replace(&mut self.0.what, what.into());
        self.0.causes.insert(0, inner);
        self
    }

    /// Adds a few words to what happened.
    #[must_use]
    pub(crate) fn and(mut self, words: &str) -> Failure {
        self.0.what.push_str(words);
        self
    }

    /// Whether it only says that stdout is closed.
    pub(crate) fn is_reader_gone(&self) -> bool {
        self.0.ending == Ending::ReaderGone
    }

    /// Tells the person on stderr, and the shell by the exit code.
    pub(crate) fn report(&self) -> ExitCode {
        if !matches!(self.0.ending, Ending::ReaderGone | Ending::Told) {
            self.tell();
        }
        match self.0.ending {
            Ending::ReaderGone => ExitCode::SUCCESS,
            Ending::Failed | Ending::Told => ExitCode::from(1),
            Ending::Usage => ExitCode::from(2),
        }
    }

    /// Tells the person on stderr, while the command goes on with something else.
    pub(crate) fn tell(&self) {
        // Nobody can be told that stderr is closed.
        let _ = io::stderr().lock().write_all(self.words(colours_on_stderr()).as_bytes());
    }

    fn with_ending(ending: Ending, what: impl Into<String>) -> Failure {
        Failure(Box::new(Words { ending, what: what.into(), causes: Vec::new(), hint: None }))
    }

    /// Many errors repeat their source in their own words; a person should read each thing once.
    fn push_cause(&mut self, cause: String) {
        let said_already = self.0.what.contains(&cause) || self.0.causes.iter().any(|said| said.contains(&cause));
        if !said_already && !cause.is_empty() {
            self.0.causes.push(cause);
        }
    }

    fn words(&self, colours: bool) -> String {
        let paint = |style: &str, word: &str| if colours { format!("\x1b[{style}m{word}\x1b[0m") } else { word.to_owned() };
        let mut words = format!("{} {}\n", paint("1;31", "error:"), self.0.what);
        for cause in &self.0.causes {
            words.push_str("  cause: ");
            words.push_str(&cause.trim_end().replace('\n', "\n         "));
            words.push('\n');
        }
        if let Some(hint) = &self.0.hint {
            words.push_str(&paint("1;36", "hint:"));
            words.extend([" ", hint, "\n"]);
        }
        words
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.what)?;
        self.0.causes.iter().try_for_each(|cause| write!(f, ": {cause}"))
    }
}

impl From<millpond::Error> for Failure {
    fn from(error: millpond::Error) -> Failure {
        let ending = match &error {
            // What the client can judge by itself.
            millpond::Error::InvalidUrl { .. } | millpond::Error::InvalidSetting { .. } | millpond::Error::CaFile { .. } => Ending::Usage,
            _ => Ending::Failed,
        };
        let mut failure = Failure::with_ending(ending, error.to_string());
        if let Some(source) = error.source() {
            failure = failure.because(source);
        }
        match error.hint() {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

/// Whether words on stderr may be coloured: on a terminal, unless `NO_COLOR` (no-color.org) asks otherwise.
pub(crate) fn colours_on_stderr() -> bool {
    io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("the outer: {0}")]
    struct Outer(#[source] io::Error);

    #[test]
    fn a_failure_reads_as_what_then_causes_then_the_hint() {
        let failure = Failure::new("can't read x").because(&io::Error::other("no disk")).hint("buy a disk");
        assert_eq!(failure.words(false), "error: can't read x\n  cause: no disk\nhint: buy a disk\n");
    }

    #[test]
    fn a_cause_that_was_said_already_is_not_said_again() {
        let failure = Failure::new("broken").because(&Outer(io::Error::other("no disk")));
        assert_eq!(failure.words(false), "error: broken\n  cause: the outer: no disk\n");
    }

    #[test]
    fn a_closed_pipe_is_not_an_error() {
        let failure = Failure::writing_stdout(&io::Error::from(io::ErrorKind::BrokenPipe));
        assert!(failure.is_reader_gone());
        assert!(!Failure::writing_stdout(&io::Error::from(io::ErrorKind::StorageFull)).is_reader_gone());
    }

    #[test]
    fn a_wider_sentence_keeps_the_first_as_its_cause() {
        let failure = Failure::new("the topic is gone").within("line 3 could not be stored");
        assert_eq!(failure.to_string(), "line 3 could not be stored: the topic is gone");
    }
}

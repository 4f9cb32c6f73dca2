//! The log: always on stderr, so that results on stdout stay results.
//!
//! Where stderr can't be written to, a file on a full disk or a pipe whose reader is gone, lines are lost and nothing else: a broker does its
//! work without a log. Once a line can be written again, the one in front of it says how many are missing.

use crate::{
    config::{LogFormat, LogLevel},
    failure::{Failure, Outcome, colours_on_stderr},
};
use jiff::Timestamp;
use std::{
    backtrace::{Backtrace, BacktraceStatus},
    env,
    io::{self, Write},
    panic,
    panic::PanicHookInfo,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::SystemTime,
};
use tracing_subscriber::{EnvFilter, fmt};

/// Starts logging for the broker. `MILLPOND_LOG` (such as `debug` or `millpond_engine=trace,warn`) takes the place of the level.
pub(crate) fn start_broker(format: LogFormat, level: LogLevel) -> Outcome {
    // Libraries speak up only when something is wrong; every crate of ours begins with the same word.
    start(format, &format!("warn,millpond={}", level.name()))
}

/// Starts logging for a client command, which has its own words for what it does.
pub(crate) fn start_client() -> Outcome {
    start(LogFormat::Pretty, "warn")
}

/// Starts logging for a test of a module, whose own lines belong to what its author wants to see.
pub(crate) fn start_module_test() -> Outcome {
    start(LogFormat::Pretty, "warn,millpond::guest=debug")
}

fn start(format: LogFormat, default: &str) -> Outcome {
    let wanted = env::var(VARIABLE).ok().filter(|directives| !directives.is_empty());
    let filter = EnvFilter::try_new(wanted.as_deref().unwrap_or(default)).map_err(|error| {
        Failure::usage(format!("{VARIABLE} is not a log filter"))
            .because(&error)
            .hint("write a level (error, warn, info, debug, trace), or levels for modules such as `millpond_quic=debug,warn`")
    })?;
    // What the library says of its own failures goes to stderr by a macro that panics where nothing can be written.
    let log = fmt().with_env_filter(filter).with_writer(Arc::new(Lines::new(format))).log_internal_errors(false);
    match format {
        LogFormat::Pretty => log.compact().with_ansi(colours_on_stderr()).with_target(false).init(),
        LogFormat::Json => log.json().flatten_event(true).with_current_span(false).init(),
    }
    log_panics();
    Ok(())
}

/// From now on a panic is a line of the log like any other: a text of several lines from the standard library has no place in a log
/// of JSON. That a panic is caught (by a library that looks at an upload, by a task of its own) does not make it less of a mistake, so
/// it is always told. Where the filter leaves errors out, the standard library's own words are better than none.
/// Neither panics where stderr can't be written to: a panic in here would end the process.
fn log_panics() {
    let default = panic::take_hook();
    panic::set_hook(Box::new(move |info| if tracing::enabled!(tracing::Level::ERROR) { log_panic(info) } else { default(info) }));
}

fn log_panic(info: &PanicHookInfo<'_>) {
    let message = info.payload_as_str().unwrap_or("it has no message").replace('\n', " ");
    let place = info.location().map(ToString::to_string).unwrap_or_default();
    let (current, backtrace) = (thread::current(), Backtrace::capture());
    let thread = current.name().unwrap_or("-");
    if backtrace.status() == BacktraceStatus::Captured {
        tracing::error!(place, thread, %backtrace, "panicked: {message}");
    } else {
        tracing::error!(place, thread, "panicked: {message}");
    }
}

/// The lines of the log on their way to stderr. What is in it is changed under the lock of stderr alone.
#[derive(Debug)]
struct Lines {
    format: LogFormat,
    /// Lines that could not be written, or not whole, since the last one that was.
    lost: AtomicU64,
    /// What was written last is a part of a line.
    is_cut: AtomicBool,
}

impl Lines {
    fn new(format: LogFormat) -> Lines {
        Lines { format, lost: AtomicU64::new(0), is_cut: AtomicBool::new(false) }
    }

    /// Writes a line; in front of it how many are missing there, if any are.
    fn put(&self, out: &mut impl Write, line: &[u8]) {
        let lost = self.lost.load(Ordering::Relaxed);
        let is_told = lost == 0 || self.write_whole(out, self.notice(lost).as_bytes());
        if is_told {
            self.lost.store(0, Ordering::Relaxed);
        }
        if !is_told || !self.write_whole(out, line) {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whether all of it could be written.
    fn write_whole(&self, out: &mut impl Write, bytes: &[u8]) -> bool {
        let mut rest = bytes;
        while !rest.is_empty() {
            match out.write(rest) {
                Ok(written) if written > 0 => rest = rest.get(written..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(_) | Err(_) => break,
            }
        }
        if rest.len() < bytes.len() {
            self.is_cut.store(!rest.is_empty(), Ordering::Relaxed);
        }
        rest.is_empty()
    }

    /// A line like the others, made without the library: this is called from within it.
    fn notice(&self, lost: u64) -> String {
        let line_break = if self.is_cut.load(Ordering::Relaxed) { "\n" } else { "" };
        let timestamp = Timestamp::try_from(SystemTime::now()).map_or_else(|_| "-".to_owned(), |time| format!("{time:.6}"));
        match self.format {
            LogFormat::Pretty => format!("{line_break}{timestamp}  WARN {LINES_LOST} lines={lost}\n"),
            LogFormat::Json => {
                let target = module_path!();
                let fields =
                    serde_json::json!({ "timestamp": timestamp, "level": "WARN", "message": LINES_LOST, "lines": lost, "target": target });
                format!("{line_break}{fields}\n")
            }
        }
    }
}

/// A line each time, whole, as the library writes it.
impl Write for &Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        // A thread that has this lock may take it again, so that even a panic in here could be logged.
        self.put(&mut io::stderr().lock(), line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

const LINES_LOST: &str = "lines of the log are missing here: stderr could not be written to";

/// The variable that says what is logged, in the syntax of `tracing-subscriber`'s `EnvFilter`.
const VARIABLE: &str = "MILLPOND_LOG";

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes so many bytes, then fails until it is given room again.
    struct Narrow {
        room: usize,
        taken: Vec<u8>,
        interrupted: bool,
    }

    impl Write for Narrow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.interrupted = !self.interrupted;
            if self.interrupted {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let written = bytes.len().min(self.room).min(7);
            if written == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.taken.extend_from_slice(&bytes[..written]);
            self.room -= written;
            Ok(written)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn written(format: LogFormat, room: usize) -> String {
        let mut out = Narrow { room, taken: Vec::new(), interrupted: false };
        let lines = Lines::new(format);
        for line in ["the first\n", "the second\n", "the third\n"] {
            lines.put(&mut out, line.as_bytes());
        }
        out.room = usize::MAX;
        for line in ["the fourth\n", "the fifth\n"] {
            lines.put(&mut out, line.as_bytes());
        }
        String::from_utf8(out.taken).expect("text")
    }

    #[test]
    fn lines_that_can_not_be_written_are_counted_and_said_once() {
        let said = written(LogFormat::Pretty, 10);
        let lines: Vec<_> = said.lines().collect();
        assert_eq!((lines.len(), lines[0], lines[2], lines[3]), (4, "the first", "the fourth", "the fifth"), "{said}");
        assert!(lines[1].ends_with("  WARN lines of the log are missing here: stderr could not be written to lines=2"), "{said}");
        assert_eq!(written(LogFormat::Pretty, 1_000), "the first\nthe second\nthe third\nthe fourth\nthe fifth\n");
    }

    #[test]
    fn a_line_that_was_cut_is_missing_and_spoils_no_other() {
        let said = written(LogFormat::Json, 14);
        let lines: Vec<_> = said.lines().collect();
        assert_eq!((lines.len(), lines[1], lines[3]), (5, "the ", "the fourth"), "{said}");
        let notice: serde_json::Value = serde_json::from_str(lines[2]).expect("a line of JSON");
        assert_eq!((&notice["lines"], &notice["level"]), (&2.into(), &"WARN".into()));
    }
}

//! What guests write: lines for the broker's log, under the target `millpond::guest` with the module's name and the topic, and for whoever keeps
//! the lines of one module ([`LogSink`]).
//!
//! There are two bounds, and the attachment sets both: on the bytes of one call, and on those over time, whatever the number of its calls
//! and instances. They hold for each of the two by itself, for these take lines of different levels: the broker's log those that it was told
//! to show, a sink all.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Instant;

use millpond_protocol::message::LogLevel;
use wasmtime::component::{Linker, WasmStr};
use wasmtime::{AsContext, StoreContextMut};

use crate::BatchInfo;
use crate::contract::{LOG, Level};
use crate::instance::State;
use crate::limits::{LOG_LINE_BYTES_MAX, Limits};
use crate::log_budget::{LogBudget, Verdict};

/// Takes the lines that the guests of one attachment write. It is called in the middle of a guest's run, by any number of threads, and must
/// come back soon.
pub trait LogSink: Debug + Send + Sync {
    /// One line. Like those of the broker's log it has no control characters and at most [`LOG_LINE_BYTES_MAX`] bytes, and the limits of the
    /// attachment hold for all of them together.
    fn write(&self, line: GuestLine<'_>);
}

/// A line that a guest wrote, or one about those that it may not write.
#[derive(Clone, Copy, Debug)]
pub struct GuestLine<'a> {
    /// How bad.
    pub level: LogLevel,
    /// The partition of the batch that the guest was given; none where that is not known, and while it starts.
    pub partition: Option<u32>,
    /// The words.
    pub message: &'a str,
}

/// Where the lines of one attachment go, with what all its instances together may write there.
pub(crate) type Outlets = Arc<[Outlet]>;

#[derive(Debug)]
pub(crate) struct Outlet {
    to: Destination,
    budget: LogBudget,
}

#[derive(Debug)]
enum Destination {
    BrokerLog { module: Arc<str> },
    Sink(Arc<dyn LogSink>),
}

/// The log of one instance.
#[derive(Debug)]
pub(crate) struct GuestLog {
    outlets: Outlets,
    /// What the call in progress has left, for each of them.
    left: Vec<Left>,
    bytes_per_call: usize,
    origin: Origin,
    last_error: String,
}

/// The batch of the call that is in progress; none during the start.
#[derive(Debug, Default)]
struct Origin {
    /// Reused from call to call.
    topic: String,
    partition: Option<u32>,
}

/// What one call has left of one outlet.
#[derive(Clone, Copy, Debug)]
struct Left {
    bytes: usize,
    lines_left_out: u64,
}

/// The broker's log, and a sink where there is one.
pub(crate) fn outlets(module: Arc<str>, sink: Option<Arc<dyn LogSink>>, limits: &Limits) -> Outlets {
    let destinations = [Destination::BrokerLog { module }].into_iter().chain(sink.map(Destination::Sink));
    destinations.map(|to| Outlet { to, budget: LogBudget::new(limits.log_bytes_per_second) }).collect()
}

impl GuestLog {
    pub(crate) fn new(outlets: Outlets, bytes_per_call: usize) -> GuestLog {
        let left = vec![Left { bytes: bytes_per_call, lines_left_out: 0 }; outlets.len()];
        GuestLog { outlets, left, bytes_per_call, origin: Origin::default(), last_error: String::new() }
    }

    pub(crate) fn begin_call(&mut self, batch: &BatchInfo<'_>) {
        self.origin.topic.clear();
        self.origin.topic.push_str(batch.topic);
        self.origin.partition = batch.partition;
        self.left.iter_mut().for_each(|left| left.bytes = self.bytes_per_call);
        self.last_error.clear();
    }

    /// Says once how much was left out of the log.
    pub(crate) fn end_call(&mut self) {
        for (outlet, left) in self.outlets.iter().zip(&mut self.left) {
            let left_out = std::mem::take(&mut left.lines_left_out);
            if left_out > 0 {
                let text = format!("{left_out} more lines in this call, over its {} bytes", self.bytes_per_call);
                if !outlet.write_within_budget(&self.origin, LogLevel::Warn, &text) {
                    outlet.budget.leave_out(left_out);
                }
            }
        }
    }

    /// The last line of level `error` in this call: a guest's SDK logs its panic before it traps.
    pub(crate) fn last_error(&self) -> Option<&str> {
        (!self.last_error.is_empty()).then_some(&self.last_error)
    }

    fn write(&mut self, level: LogLevel, message: &str) {
        let line = one_line(message, LOG_LINE_BYTES_MAX);
        if level == LogLevel::Error {
            self.last_error.clone_from(&line);
        }
        for (outlet, left) in self.outlets.iter().zip(&mut self.left) {
            if !outlet.to.wants(level) {
                continue; // it costs nothing, for nobody sees it
            }
            match left.bytes.checked_sub(line.len()) {
                Some(bytes) => {
                    left.bytes = bytes;
                    outlet.write_within_budget(&self.origin, level, &line);
                }
                None => left.lines_left_out += 1,
            }
        }
    }
}

impl Outlet {
    /// Writes the line if the module may write now, and before it how many others were left out. Says whether it did.
    fn write_within_budget(&self, origin: &Origin, level: LogLevel, line: &str) -> bool {
        let Verdict::Write { left_out_before } = self.budget.take(Instant::now(), line.len()) else { return false };
        if left_out_before > 0 {
            let rate = self.budget.bytes_per_second();
            let text = format!("{left_out_before} lines of this module were left out, over its {rate} bytes a second");
            self.to.write(origin, LogLevel::Warn, &text);
        }
        self.to.write(origin, level, line);
        true
    }
}

impl Destination {
    /// Whether lines of this level are taken there.
    fn wants(&self, level: LogLevel) -> bool {
        match (self, level) {
            (Destination::Sink(_), _) => true,
            (Destination::BrokerLog { .. }, LogLevel::Debug) => tracing::enabled!(target: TARGET, tracing::Level::DEBUG),
            (Destination::BrokerLog { .. }, LogLevel::Info) => tracing::enabled!(target: TARGET, tracing::Level::INFO),
            (Destination::BrokerLog { .. }, LogLevel::Warn) => tracing::enabled!(target: TARGET, tracing::Level::WARN),
            (Destination::BrokerLog { .. }, LogLevel::Error) => tracing::enabled!(target: TARGET, tracing::Level::ERROR),
        }
    }

    fn write(&self, origin: &Origin, level: LogLevel, line: &str) {
        let Origin { topic, partition } = origin;
        let module = match self {
            Destination::Sink(sink) => return sink.write(GuestLine { level, partition: *partition, message: line }),
            Destination::BrokerLog { module } => module,
        };
        match level {
            LogLevel::Debug => tracing::debug!(target: TARGET, %module, topic, partition, "{line}"),
            LogLevel::Info => tracing::info!(target: TARGET, %module, topic, partition, "{line}"),
            LogLevel::Warn => tracing::warn!(target: TARGET, %module, topic, partition, "{line}"),
            LogLevel::Error => tracing::error!(target: TARGET, %module, topic, partition, "{line}"),
        }
    }
}

impl From<Level> for LogLevel {
    fn from(level: Level) -> LogLevel {
        match level {
            Level::Debug => LogLevel::Debug,
            Level::Info => LogLevel::Info,
            Level::Warn => LogLevel::Warn,
            Level::Error => LogLevel::Error,
        }
    }
}

/// Gives guests their one import.
pub(crate) fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    linker.instance(LOG)?.func_wrap("log", |mut store: StoreContextMut<'_, State>, (level, message): (Level, WasmStr)| {
        // A copy, because the text lies in the guest's memory, which the store owns as it owns the log.
        let text = message.to_str(store.as_context())?;
        let text = text[..text.floor_char_boundary(LOG_LINE_BYTES_MAX + 1)].to_owned();
        store.data_mut().log.write(level.into(), &text);
        Ok(())
    })
}

/// A guest's text as one line, cut to a length, without what could forge other lines, drive a terminal or turn the order of what is shown
/// around: control characters, line and paragraph separators, and Unicode's directional marks.
pub(crate) fn one_line(text: &str, bytes_max: usize) -> String {
    let misleads =
        |c: char| c.is_control() || matches!(c, '\u{61c}' | '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let printable = |c: char| if misleads(c) { ' ' } else { c };
    crate::error::cut(text.chars().map(printable).collect(), bytes_max)
}

const TARGET: &str = "millpond::guest";

#[cfg(test)]
mod tests {
    use super::one_line;
    use crate::limits::LOG_LINE_BYTES_MAX;

    #[test]
    fn a_line_can_not_forge_another_or_drive_a_terminal() {
        assert_eq!(one_line("one\nERROR two\x1b[2J\u{85}", 99), "one ERROR two [2J ");
        assert_eq!(one_line("user\u{202e}nimda\u{2066}\u{2029}x", 99), "user nimda  x");
    }

    #[test]
    fn a_long_line_is_cut_at_a_character() {
        let exact = "x".repeat(LOG_LINE_BYTES_MAX);
        assert_eq!(one_line(&exact, LOG_LINE_BYTES_MAX), exact);
        let long = "ä".repeat(LOG_LINE_BYTES_MAX);
        assert_eq!(one_line(&long, LOG_LINE_BYTES_MAX), format!("{}…", "ä".repeat(LOG_LINE_BYTES_MAX / 2)));
    }
}

//! What guests write to the broker's log: lines under the target `millpond::guest`, with the module's name and the topic.
//!
//! There are two bounds, and the attachment sets both: on the bytes of one call, and on those over time, whatever the number of its calls
//! and instances.

use std::sync::Arc;
use std::time::Instant;

use wasmtime::component::{Linker, WasmStr};
use wasmtime::{AsContext, StoreContextMut};

use crate::BatchInfo;
use crate::contract::{LOG, Level};
use crate::instance::State;
use crate::limits::LOG_LINE_BYTES_MAX;
use crate::log_budget::{LogBudget, Verdict};

/// The log of one instance.
#[derive(Debug)]
pub(crate) struct GuestLog {
    module: Arc<str>,
    /// Shared by all instances of the attachment.
    budget: Arc<LogBudget>,
    /// Of the call that is in progress; empty during the start. Reused from call to call.
    topic: String,
    partition: Option<u32>,
    bytes_per_call: usize,
    bytes_left: usize,
    lines_left_out: u64,
    last_error: String,
}

impl GuestLog {
    pub(crate) fn new(module: Arc<str>, budget: Arc<LogBudget>, bytes_per_call: usize) -> GuestLog {
        GuestLog {
            module,
            budget,
            topic: String::new(),
            partition: None,
            bytes_per_call,
            bytes_left: bytes_per_call,
            lines_left_out: 0,
            last_error: String::new(),
        }
    }

    pub(crate) fn begin_call(&mut self, batch: &BatchInfo<'_>) {
        self.topic.clear();
        self.topic.push_str(batch.topic);
        self.partition = batch.partition;
        self.bytes_left = self.bytes_per_call;
        self.last_error.clear();
    }

    /// Says once how much was left out of the log.
    pub(crate) fn end_call(&mut self) {
        let left_out = std::mem::take(&mut self.lines_left_out);
        if left_out > 0 {
            let text = format!("{left_out} more lines in this call, over its {} bytes", self.bytes_per_call);
            if !self.write_within_budget(Level::Warn, &text) {
                self.budget.leave_out(left_out);
            }
        }
    }

    /// The last line of level `error` in this call: a guest's SDK logs its panic before it traps.
    pub(crate) fn last_error(&self) -> Option<&str> {
        (!self.last_error.is_empty()).then_some(&self.last_error)
    }

    fn write(&mut self, level: Level, message: &str) {
        let line = one_line(message);
        if matches!(level, Level::Error) {
            self.last_error.clone_from(&line);
        }
        if !is_wanted(level) {
            return; // it costs nothing, for nobody sees it
        }
        match self.bytes_left.checked_sub(line.len()) {
            Some(bytes_left) => {
                self.bytes_left = bytes_left;
                self.write_within_budget(level, &line);
            }
            None => self.lines_left_out += 1,
        }
    }

    /// Writes the line if the module may write now, and before it how many others were left out. Says whether it did.
    fn write_within_budget(&self, level: Level, line: &str) -> bool {
        let Verdict::Write { left_out_before } = self.budget.take(Instant::now(), line.len()) else { return false };
        if left_out_before > 0 {
            let rate = self.budget.bytes_per_second();
            let text = format!("{left_out_before} lines of this module were left out, over its {rate} bytes a second");
            self.emit(Level::Warn, &text);
        }
        self.emit(level, line);
        true
    }

    fn emit(&self, level: Level, line: &str) {
        let GuestLog { module, topic, partition, .. } = self;
        match level {
            Level::Debug => tracing::debug!(target: TARGET, %module, topic, partition, "{line}"),
            Level::Info => tracing::info!(target: TARGET, %module, topic, partition, "{line}"),
            Level::Warn => tracing::warn!(target: TARGET, %module, topic, partition, "{line}"),
            Level::Error => tracing::error!(target: TARGET, %module, topic, partition, "{line}"),
        }
    }
}

/// Whether the broker's log has lines of this level.
fn is_wanted(level: Level) -> bool {
    match level {
        Level::Debug => tracing::enabled!(target: TARGET, tracing::Level::DEBUG),
        Level::Info => tracing::enabled!(target: TARGET, tracing::Level::INFO),
        Level::Warn => tracing::enabled!(target: TARGET, tracing::Level::WARN),
        Level::Error => tracing::enabled!(target: TARGET, tracing::Level::ERROR),
    }
}

/// Gives guests their one import.
pub(crate) fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    linker.instance(LOG)?.func_wrap("log", |mut store: StoreContextMut<'_, State>, (level, message): (Level, WasmStr)| {
        // A copy, because the text lies in the guest's memory, which the store owns as it owns the log.
        let text = message.to_str(store.as_context())?;
        let text = text[..text.floor_char_boundary(LOG_LINE_BYTES_MAX + 1)].to_owned();
        store.data_mut().log.write(level, &text);
        Ok(())
    })
}

/// A guest's line without control characters, which could forge other lines or drive a terminal, and cut to its limit.
fn one_line(message: &str) -> String {
    let printable = |c: char| if c.is_control() { ' ' } else { c };
    crate::error::cut(message.chars().map(printable).collect(), LOG_LINE_BYTES_MAX)
}

const TARGET: &str = "millpond::guest";

#[cfg(test)]
mod tests {
    use super::one_line;
    use crate::limits::LOG_LINE_BYTES_MAX;

    #[test]
    fn a_line_can_not_forge_another_or_drive_a_terminal() {
        assert_eq!(one_line("one\nERROR two\x1b[2J\u{85}"), "one ERROR two [2J ");
    }

    #[test]
    fn a_long_line_is_cut_at_a_character() {
        let exact = "x".repeat(LOG_LINE_BYTES_MAX);
        assert_eq!(one_line(&exact), exact);
        let long = "ä".repeat(LOG_LINE_BYTES_MAX);
        assert_eq!(one_line(&long), format!("{}…", "ä".repeat(LOG_LINE_BYTES_MAX / 2)));
    }
}

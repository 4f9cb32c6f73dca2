//! What modules have logged, and how they failed: the last lines of each place where a module runs.
//!
//! A broker keeps a bounded number of lines for each attachment, and the oldest make room. Whoever follows them asks again and again, with the
//! places that the last answer ended at:
//!
//! ```text
//!  ReadModuleLog { after: [] }             ──>   the newest lines, and for each log where it ends
//!  ReadModuleLog { after: [(log 7, 120)] } ──>   lines 120, 121 ... of log 7; or 150 ..., and 30 are lost; and where that ends
//! ```
//!
//! A log that the request does not name is read from its oldest line, one that is gone is left out.

use super::topic::AttachPoint;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The most lines that one answer has; of those that are left the next one has more.
pub const MODULE_LOG_LINES_MAX: u32 = 1_000;

/// Asks for what a module has logged, on all topics or on one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ReadModuleLog {
    /// The module's name; all its versions are meant.
    pub module: String,
    /// Only on this topic.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    /// How many lines at most; [`MODULE_LOG_LINES_MAX`] if it is more, or 0.
    pub lines_max: u32,
    /// What was read already: [`ModuleLog::next`] of the answer before. Nothing for the newest lines.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<ModuleLogPlace>,
}

/// What a module has logged.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ModuleLog {
    /// The oldest first; those of one attachment are in their order, whatever their times.
    pub lines: Vec<ModuleLogLine>,
    /// Lines behind the places of the request that are not kept any more: there were more than the broker keeps.
    pub lines_lost: u64,
    /// Where this answer ends.
    pub next: Vec<ModuleLogPlace>,
}

/// A place in the log of one attachment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ModuleLogPlace {
    /// Which log. A number that no other has, also after a restart of the broker, with which it begins anew.
    pub log: u64,
    /// The number of the next line, counted from 0.
    pub line: u64,
}

/// One line of a module, or one of the broker about how it failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModuleLogLine {
    /// When, in milliseconds since 1970-01-01 UTC by the broker's clock.
    pub at_ms: i64,
    /// How bad.
    pub level: LogLevel,
    /// The topic.
    pub topic: String,
    /// The partition of the batch; none where it was not known, and while the module starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition: Option<u32>,
    /// Where in the topic's path the module runs.
    pub on: AttachPoint,
    /// On fetch: the view.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub view: Option<String>,
    /// Which version of the module it was.
    pub version: u32,
    /// The words, without control characters.
    pub message: String,
    /// With a failure: on which batch, and where in the module.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<ModuleFailure>,
}

/// A failure of a module on a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ModuleFailure {
    /// The name of the error code, such as `guest_trapped`.
    pub code: String,
    /// The batch.
    pub batch: BatchCoordinates,
    /// The module's functions at the moment of a trap, innermost first, a line each.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backtrace: Option<String>,
    /// Failures before this one that have no line, because there were too many in one second.
    pub left_out: u64,
}

/// What tells a batch from others of its topic and partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BatchCoordinates {
    /// Records that the module was given.
    pub records: u32,
    /// The timestamp that those of its records are counted from, in milliseconds since 1970-01-01 UTC.
    pub base_timestamp_ms: i64,
    /// Its first offset. None of one that is not stored yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base_offset: Option<i64>,
    /// The producer that numbers its batches (KIP-98). None of one that does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub producer_id: Option<i64>,
    /// With the producer: the number of the first record.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base_sequence: Option<i32>,
}

/// How bad a line of a log is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogLevel {
    /// For who looks for a mistake.
    Debug,
    /// The usual.
    #[default]
    Info,
    /// Somebody may want to know.
    Warn,
    /// Something is wrong.
    Error,
}

impl LogLevel {
    /// All of them, the least first.
    pub const ALL: [LogLevel; 4] = [LogLevel::Debug, LogLevel::Info, LogLevel::Warn, LogLevel::Error];

    /// As it is written on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            LogLevel::Debug => "debug",
            LogLevel::Info => "info",
            LogLevel::Warn => "warn",
            LogLevel::Error => "error",
        }
    }
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for BatchCoordinates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} record{}", self.records, if self.records == 1 { "" } else { "s" })?;
        if let Some(offset) = self.base_offset {
            write!(f, " from offset {offset}")?;
        }
        if let (Some(id), Some(sequence)) = (self.producer_id, self.base_sequence) {
            write!(f, ", producer {id}, sequence {sequence}")?;
        }
        write!(f, ", base timestamp {}", self.base_timestamp_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{array, is_golden, map, text};
    use super::*;
    use crate::message::{Request, Response, decode};

    #[test]
    fn asking_for_the_log_of_a_module_has_golden_bytes() {
        let first = ReadModuleLog { module: "m".into(), topic: None, lines_max: 9, after: Vec::new() };
        is_golden(
            &Request::ReadModuleLog(first.clone()),
            &map(&[("read_module_log", map(&[("module", text("m")), ("lines_max", vec![9])]))]),
        );
        let then = ReadModuleLog { topic: Some("t".into()), after: vec![ModuleLogPlace { log: 1, line: 2 }], ..first };
        let place = map(&[("log", vec![1]), ("line", vec![2])]);
        is_golden(&then, &map(&[("module", text("m")), ("topic", text("t")), ("lines_max", vec![9]), ("after", array(&[place]))]));
        assert!(Request::ReadModuleLog(then).is_idempotent());
    }

    #[test]
    fn the_log_of_a_module_has_golden_bytes() {
        let line = ModuleLogLine {
            at_ms: 1,
            level: LogLevel::Warn,
            topic: "t".into(),
            partition: None,
            on: AttachPoint::Produce,
            view: None,
            version: 2,
            message: "hot".into(),
            failure: None,
        };
        let fields = |level| {
            vec![
                ("at_ms", vec![1]),
                ("level", text(level)),
                ("topic", text("t")),
                ("on", text("produce")),
                ("version", vec![2]),
                ("message", text("hot")),
            ]
        };
        let log = ModuleLog { lines: vec![line.clone()], lines_lost: 3, next: vec![ModuleLogPlace { log: 4, line: 5 }] };
        let next = array(&[map(&[("log", vec![4]), ("line", vec![5])])]);
        let golden = map(&[("lines", array(&[map(&fields("warn"))])), ("lines_lost", vec![3]), ("next", next)]);
        is_golden(&Response::ModuleLog(log), &map(&[("module_log", golden)]));
        for level in LogLevel::ALL {
            is_golden(&ModuleLogLine { level, ..line.clone() }, &map(&fields(level.name())));
        }
        let batch =
            BatchCoordinates { records: 6, base_timestamp_ms: 7, base_offset: Some(8), producer_id: Some(9), base_sequence: Some(10) };
        assert_eq!(batch.to_string(), "6 records from offset 8, producer 9, sequence 10, base timestamp 7");
        assert_eq!(BatchCoordinates { records: 1, ..BatchCoordinates::default() }.to_string(), "1 record, base timestamp 0");
        let failure = ModuleFailure { code: "c".into(), batch, backtrace: Some("b".into()), left_out: 11 };
        let batch = map(&[
            ("records", vec![6]),
            ("base_timestamp_ms", vec![7]),
            ("base_offset", vec![8]),
            ("producer_id", vec![9]),
            ("base_sequence", vec![10]),
        ]);
        let golden = map(&[("code", text("c")), ("batch", batch), ("backtrace", text("b")), ("left_out", vec![11])]);
        is_golden(&failure, &golden);
        let older = map(&[("code", text("c"))]);
        assert_eq!(decode::<ModuleFailure>(&older).expect("readable").batch, BatchCoordinates::default());
    }
}

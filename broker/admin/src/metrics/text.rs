//! Prometheus' text format, version 0.0.4.
//!
//! ```text
//! # HELP millpond_partition_writable 0 once a write or a flush has failed ...
//! # TYPE millpond_partition_writable gauge
//! millpond_partition_writable{topic="readings",partition="0"} 1
//! millpond_partition_writable{topic="readings",partition="1"} 0
//! ```
//!
//! The lines of a family stand together. In a label's value a backslash, a quote and a line feed are escaped, in a help text a backslash
//! and a line feed. See <https://prometheus.io/docs/instrumenting/exposition_formats/>.

use crate::response::Body;
use std::{
    fmt::{self, Display, Write},
    io,
};
use tokio::io::AsyncWrite;

/// What the answer is.
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What the values of a family do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// They go up and down.
    Gauge,
    /// They only go up, or begin again.
    Counter,
    /// Counts by rising bounds (`_bucket`), with their number and sum (`_count`, `_sum`).
    Histogram,
}

/// A time of so many microseconds, in seconds without needless zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seconds(pub(super) u64);

impl Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Seconds(us) = self;
        match us % 1_000_000 {
            0 => write!(f, "{}", us / 1_000_000),
            rest => f.write_str(format!("{}.{rest:06}", us / 1_000_000).trim_end_matches('0')),
        }
    }
}

/// The text, family by family.
#[derive(Debug)]
pub(super) struct Page<'a, W> {
    body: Body<'a, W>,
}

impl<'a, W: AsyncWrite + Unpin> Page<'a, W> {
    pub(super) fn new(body: Body<'a, W>) -> Page<'a, W> {
        Page { body }
    }

    /// Begins a family. All of its samples come before the next one.
    pub(super) fn family(&mut self, name: &str, kind: Kind, help: &str) {
        write_family(self.body.text(), name, kind, help);
    }

    /// One value.
    pub(super) fn sample(&mut self, name: &str, labels: &[(&str, &dyn Display)], value: impl Display) {
        write_sample(self.body.text(), name, labels, value);
    }

    /// To be called between samples, of which there may be many.
    pub(super) async fn relieve(&mut self) -> io::Result<()> {
        self.body.relieve().await
    }

    pub(super) async fn end(self) -> io::Result<()> {
        self.body.end().await
    }
}

// Writing to a String does not fail, so the results below say nothing.

fn write_family(text: &mut String, name: &str, kind: Kind, help: &str) {
    let kind = match kind {
        Kind::Gauge => "gauge",
        Kind::Counter => "counter",
        Kind::Histogram => "histogram",
    };
    let _ = write!(text, "# HELP {name} ");
    let _ = Escaped { text, quotes: false }.write_str(help);
    let _ = write!(text, "\n# TYPE {name} {kind}\n");
}

fn write_sample(text: &mut String, name: &str, labels: &[(&str, &dyn Display)], value: impl Display) {
    text.push_str(name);
    for (at, (label, value)) in labels.iter().enumerate() {
        let _ = write!(text, "{}{label}=\"", if at == 0 { '{' } else { ',' });
        let _ = write!(Escaped { text, quotes: true }, "{value}");
        text.push('"');
    }
    let end = if labels.is_empty() { "" } else { "}" };
    let _ = writeln!(text, "{end} {value}");
}

/// Escapes what passes through it.
struct Escaped<'a> {
    text: &'a mut String,
    quotes: bool,
}

impl Write for Escaped<'_> {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        for character in part.chars() {
            match character {
                '\\' => self.text.push_str("\\\\"),
                '\n' => self.text.push_str("\\n"),
                '"' if self.quotes => self.text.push_str("\\\""),
                other => self.text.push(other),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_written_as_short_as_they_are() {
        let written = [0, 1, 50, 2_500, 100_000, 1_000_000, 20_000_000, 61_250_000].map(|us| Seconds(us).to_string());
        assert_eq!(written, ["0", "0.000001", "0.00005", "0.0025", "0.1", "1", "20", "61.25"]);
    }

    #[test]
    fn what_would_end_a_value_or_a_line_is_escaped() {
        let mut text = String::new();
        write_family(&mut text, "a", Kind::Counter, "a \\ and a \" in\ntwo lines");
        write_sample(&mut text, "a", &[("topic", &"\"} 1\n\\ü"), ("partition", &7)], -1);
        write_sample(&mut text, "a", &[], format_args!("{}.{:03}", 1, 5));
        let expected = concat!(
            "# HELP a a \\\\ and a \" in\\ntwo lines\n",
            "# TYPE a counter\n",
            "a{topic=\"\\\"} 1\\n\\\\ü\",partition=\"7\"} -1\n",
            "a 1.005\n",
        );
        assert_eq!(text, expected);
    }
}

//! What is printed, piece by piece and never held as a whole: lines of a table, or JSON.

use crate::{
    failure::{Failure, Outcome},
    output::Format,
};
use jiff::Timestamp;
use serde::Serialize;
use std::{
    fmt::Write as _,
    io::{self, BufWriter, StdoutLock, Write},
};

/// The way to stdout.
#[derive(Debug)]
pub(super) struct Rows {
    out: BufWriter<StdoutLock<'static>>,
    format: Format,
    /// Whether nothing of a JSON array was written yet.
    first: bool,
}

impl Rows {
    pub(super) fn new(format: Format) -> Rows {
        Rows { out: BufWriter::with_capacity(BUFFER_BYTES, io::stdout().lock()), format, first: true }
    }

    pub(super) fn is_table(&self) -> bool {
        self.format == Format::Table
    }

    /// A line for a person. Nothing where JSON is wanted.
    pub(super) fn line(&mut self, line: &str) -> Outcome {
        if self.is_table() { self.write(&[line.trim_end(), "\n"]) } else { Ok(()) }
    }

    /// An object for a program. Nothing where a table is wanted.
    pub(super) fn object<T: Serialize>(&mut self, object: &T) -> Outcome {
        if self.is_table() {
            return Ok(());
        }
        let text = serde_json::to_string(object).map_err(|error| Failure::new("can't write the result as JSON").because(&error))?;
        self.json(&text)
    }

    /// An object that is JSON already, without a line break.
    pub(super) fn json(&mut self, text: &str) -> Outcome {
        match (self.format, std::mem::take(&mut self.first)) {
            (Format::Table, _) => Ok(()),
            (Format::Jsonl, _) => self.write(&[text, "\n"]),
            (Format::Json, true) => self.write(&["[\n  ", text]),
            (Format::Json, false) => self.write(&[",\n  ", text]),
        }
    }

    /// Shows what was written so far.
    pub(super) fn flush(&mut self) -> Outcome {
        self.out.flush().map_err(|error| Failure::writing_stdout(&error))
    }

    pub(super) fn finish(mut self) -> Outcome {
        match (self.format, self.first) {
            (Format::Json, true) => self.write(&["[]\n"])?,
            (Format::Json, false) => self.write(&["\n]\n"])?,
            _ => {}
        }
        self.flush()
    }

    fn write(&mut self, pieces: &[&str]) -> Outcome {
        let written = pieces.iter().try_for_each(|piece| self.out.write_all(piece.as_bytes()));
        written.map_err(|error| Failure::writing_stdout(&error))
    }
}

/// A time for a person; a dash where there is none.
pub(super) fn time(timestamp_ms: i64) -> String {
    match Timestamp::from_millisecond(timestamp_ms) {
        Ok(time) if timestamp_ms >= 0 => format!("{time:.3}"),
        _ => "-".to_owned(),
    }
}

/// Bytes for a person: text in quotes with its control characters escaped, anything else in hexadecimal; both cut where they are long.
pub(super) fn bytes(bytes: Option<&[u8]>) -> String {
    let Some(bytes) = bytes else { return "null".to_owned() };
    let mut shown = String::new();
    let cut = if let Ok(text) = std::str::from_utf8(bytes) {
        let kept: String = text.chars().take(CHARACTERS_SHOWN_MAX).collect();
        let _ = write!(shown, "{kept:?}");
        kept.len() < text.len()
    } else {
        shown.push_str("0x");
        for byte in bytes.iter().take(CHARACTERS_SHOWN_MAX / 2) {
            let _ = write!(shown, "{byte:02x}");
        }
        bytes.len() > CHARACTERS_SHOWN_MAX / 2
    };
    if cut {
        let _ = write!(shown, "… ({} bytes)", bytes.len());
    }
    shown
}

/// Characters of a key, a value or a header that a table shows.
const CHARACTERS_SHOWN_MAX: usize = 120;

const BUFFER_BYTES: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_shown_so_that_a_terminal_takes_no_harm() {
        assert_eq!(bytes(None), "null");
        assert_eq!(bytes(Some(b"")), "\"\"");
        assert_eq!(bytes(Some(b"21.5 \x1b[31m\n")), "\"21.5 \\u{1b}[31m\\n\"");
        assert_eq!(bytes(Some(&[0xff, 0x00, 0x1b])), "0xff001b");
        assert_eq!(bytes(Some(&[b'a'; 500])), format!("\"{}\"… (500 bytes)", "a".repeat(120)));
        assert_eq!(bytes(Some(&[0xfe; 61])), format!("0x{}… (61 bytes)", "fe".repeat(60)));
    }

    #[test]
    fn a_time_is_shown_to_the_millisecond_and_a_missing_one_as_a_dash() {
        assert_eq!(time(1_767_225_600_000), "2026-01-01T00:00:00.000Z");
        assert_eq!((time(-1), time(i64::MAX)), ("-".to_owned(), "-".to_owned()));
    }
}

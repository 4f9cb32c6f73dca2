//! Results on stdout: as a table for a person, as JSON for a program.
//!
//! A person reads sizes in KiB, MiB, GiB (powers of 1024), as they are written in the configuration; rates in MB/s (10^6 bytes a
//! second); counts and offsets with a comma before every third digit; and values of the configuration as they would be typed. A program
//! reads whole numbers of bytes.

use crate::failure::{Failure, Outcome};
use clap::{Args, ValueEnum};
use comfy_table::{Cell, CellAlignment, Table};
use serde::Serialize;
use std::{
    borrow::Cow,
    fmt::{Display, Write as _},
    io::{self, Write},
};

/// The `-o` of every listing, and of every other command that has a result.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct OutputArgs {
    /// How the result is written: table, json (one document) or jsonl (one object a line)
    #[arg(short = 'o', long = "output", value_name = "FORMAT", value_enum, default_value_t = Format::Table, hide_possible_values = true)]
    format: Format,
}

/// How a listing is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Columns, for a person
    Table,
    /// One JSON document, indented
    Json,
    /// One JSON object a line
    Jsonl,
}

/// Something that can be listed: one row of a table, or one JSON object.
pub(crate) trait Row: Serialize {
    /// The headings. One that starts with `>` stands over a column of numbers, which is aligned to the right.
    const HEADINGS: &'static [&'static str];

    /// A cell for each heading.
    fn cells(&self) -> Vec<String>;
}

impl OutputArgs {
    /// What was asked for, for a result that is printed as it is found.
    pub(crate) fn format(self) -> Format {
        self.format
    }

    /// Prints a list.
    pub(crate) fn list<R: Row>(self, rows: &[R]) -> Outcome {
        print(&match self.format {
            Format::Table => table(rows),
            Format::Json => pretty(&rows)?,
            Format::Jsonl => rows.iter().map(line).collect::<Outcome<String>>()?,
        })
    }

    /// Prints one thing; `words` writes it for a person.
    pub(crate) fn one<T: Serialize>(self, value: &T, words: impl FnOnce(&T) -> String) -> Outcome {
        print(&match self.format {
            Format::Table => words(value),
            Format::Json => pretty(value)?,
            Format::Jsonl => line(value)?,
        })
    }
}

/// Prints text as it is.
pub(crate) fn print(text: &str) -> Outcome {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(|error| Failure::writing_stdout(&error))
}

/// Words beside the results, for a person: a line on stderr. Where it can't be written nobody can be told, and the work goes on.
pub(crate) fn note(words: impl Display) {
    let _ = io::stderr().lock().write_all(format!("{words}\n").as_bytes());
}

/// The same without a line break, in front of an answer.
pub(crate) fn ask(question: impl Display) {
    let _ = io::stderr().lock().write_all(question.to_string().as_bytes());
}

/// Rows as aligned columns under their headings, with a line break at the end of each.
pub(crate) fn table<R: Row>(rows: &[R]) -> String {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    let alignment = |heading: &str| if heading.starts_with('>') { CellAlignment::Right } else { CellAlignment::Left };
    let headings = R::HEADINGS;
    let cell = |heading: &str, text: &str| Cell::new(text).set_alignment(alignment(heading));
    table.set_header(headings.iter().map(|heading| cell(heading, heading.trim_start_matches('>'))));
    for row in rows {
        table.add_row(row.cells().iter().zip(headings).map(|(text, heading)| cell(heading, text)));
    }
    if let Some(first) = table.column_mut(0) {
        first.set_padding((0, 1));
    }
    table.lines().flat_map(|line| [line.trim_end().to_owned(), "\n".to_owned()]).collect()
}

/// Label and value, a pair a line, the values under each other.
pub(crate) fn pairs(pairs: &[(&str, String)]) -> String {
    let width = pairs.iter().map(|(label, _)| label.len()).max().unwrap_or_default() + 2;
    pairs.iter().flat_map(|(label, value)| [format!("{label:width$}"), value.clone(), "\n".to_owned()]).collect()
}

/// Words in lines of at most [`WIDTH`] characters, with this in front of every line but the first. A longer word has a line to itself.
pub(crate) fn wrapped(text: &str, indent: &str) -> String {
    let (mut lines, mut width) = (String::with_capacity(text.len()), 0);
    for word in text.split_whitespace() {
        let more = word.chars().count();
        if width > 0 && width + 1 + more > WIDTH {
            lines.push('\n');
            lines.push_str(indent);
            width = indent.chars().count();
        } else if width > 0 {
            lines.push(' ');
            width += 1;
        } else {
            let start = &text[..text.len() - text.trim_start().len()];
            lines.push_str(start);
            width = start.chars().count();
        }
        lines.push_str(word);
        width += more;
    }
    lines.push('\n');
    lines
}

/// What a person sees at once: as many characters as the help has in a line.
const WIDTH: usize = 100;

/// A number with a comma before every third digit.
pub(crate) fn thousands(number: impl Into<i128>) -> String {
    let number: i128 = number.into();
    let digits = number.unsigned_abs().to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3 + 1);
    if number < 0 {
        grouped.push('-');
    }
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// How many there are of something whose plural ends in s.
pub(crate) fn counted(number: u64, noun: &str) -> String {
    format!("{} {noun}{}", thousands(number), if number == 1 { "" } else { "s" })
}

/// A number of bytes in powers of 1024, to about three digits.
pub(crate) fn human_bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut unit = 0;
    // Rounding to what a person reads is what is wanted.
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let mut value = bytes as f64;
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// Text that somebody else wrote, in one line: what would drive a terminal, break the line or turn the order of its characters around is
/// written as `\u{1b}`.
pub(crate) fn escaped(text: &str) -> Cow<'_, str> {
    let misleads =
        |c: char| c.is_control() || matches!(c, '\u{61c}' | '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    if !text.contains(misleads) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if misleads(character) {
            // Writing to a String does not fail.
            let _ = write!(escaped, "{}", character.escape_unicode());
        } else {
            escaped.push(character);
        }
    }
    Cow::Owned(escaped)
}

/// The beginning of a SHA-256 in hex: enough to tell two uploads apart.
pub(crate) fn short_sha256(sha256: &str) -> String {
    sha256.chars().take(SHA256_DIGITS_SHOWN).collect()
}

const SHA256_DIGITS_SHOWN: usize = 12;

fn pretty<T: Serialize>(value: &T) -> Outcome<String> {
    serde_json::to_string_pretty(value)
        .map(|text| text + "\n")
        .map_err(|error| Failure::new("can't write the result as JSON").because(&error))
}

fn line<T: Serialize>(value: &T) -> Outcome<String> {
    serde_json::to_string(value).map(|text| text + "\n").map_err(|error| Failure::new("can't write the result as JSON").because(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    struct Fruit {
        name: &'static str,
        weight: u32,
    }

    impl Row for Fruit {
        const HEADINGS: &'static [&'static str] = &["NAME", ">WEIGHT", "NOTE"];

        fn cells(&self) -> Vec<String> {
            vec![self.name.to_owned(), thousands(self.weight), String::new()]
        }
    }

    #[test]
    fn numbers_are_aligned_to_the_right_and_no_line_ends_in_blanks() {
        let shown = table(&[Fruit { name: "apple", weight: 1200 }, Fruit { name: "fig", weight: 3 }]);
        assert_eq!(shown, "NAME   WEIGHT  NOTE\napple   1,200\nfig         3\n");
    }

    #[test]
    fn an_empty_list_still_has_its_headings() {
        assert_eq!(table::<Fruit>(&[]), "NAME  WEIGHT  NOTE\n");
    }

    #[test]
    fn pairs_stand_under_each_other() {
        assert_eq!(pairs(&[("a", "1".to_owned()), ("long", "2".to_owned())]), "a     1\nlong  2\n");
    }

    #[test]
    fn words_are_wrapped_and_none_is_cut() {
        assert_eq!(wrapped("  hint: one", "    "), "  hint: one\n");
        let text = wrapped(&format!("  {}{} end", "word ".repeat(30), "x".repeat(120)), "    ");
        let widths: Vec<_> = text.lines().map(str::len).collect();
        assert_eq!(widths, [96, 58, 124, 7]);
        assert!(text.lines().skip(1).all(|line| line.starts_with("    ") && !line.ends_with(' ')));
    }

    #[test]
    fn numbers_are_grouped_and_bytes_rounded() {
        assert_eq!((thousands(0), thousands(999), thousands(-1_234_567)), ("0".into(), "999".into(), "-1,234,567".into()));
        assert_eq!(
            (human_bytes(1023), human_bytes(588_895), human_bytes((1 << 20) - 1)),
            ("1023 B".into(), "575.1 KiB".into(), "1.0 MiB".into())
        );
    }
}

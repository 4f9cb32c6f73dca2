//! The words and the lines of a test.

use super::{
    Format,
    fate::{Fate, Passed},
    input::Numbered,
};
use crate::{
    json_line::{self, Place},
    output::{counted, human_bytes, note, print, thousands},
};
use millpond::Record;
use millpond_plugin::World;
use std::{fmt::Write, path::Path, time::Duration};

/// What is known once a module runs.
#[derive(Debug)]
pub(super) struct Started {
    pub(super) world: World,
    pub(super) size_bytes: u64,
    pub(super) compile: Duration,
    pub(super) start: Duration,
}

/// What is printed next, and what was counted.
#[derive(Debug)]
pub(super) struct Report {
    format: Format,
    text: String,
    batches: u64,
    kept: u64,
    changed: u64,
    dropped: u64,
    several: u64,
    came_out: u64,
    time: Duration,
    memory_bytes_peak: u64,
}

impl Report {
    pub(super) fn new(format: Format) -> Report {
        Report {
            format,
            text: String::new(),
            batches: 0,
            kept: 0,
            changed: 0,
            dropped: 0,
            several: 0,
            came_out: 0,
            time: Duration::ZERO,
            memory_bytes_peak: 0,
        }
    }

    /// What was written since the last call.
    pub(super) fn take(&mut self) -> String {
        std::mem::take(&mut self.text)
    }

    /// A failure goes to stderr; what was said before it should be there by then.
    pub(super) fn flush_before_failure(&mut self) {
        // The failure itself is the better one to tell.
        let _ = print(&self.take());
    }

    pub(super) fn started(&mut self, file: &Path, started: &Started) {
        let Started { world, size_bytes, compile, start } = started;
        let size = human_bytes(*size_bytes);
        self.words(&format!("{}: {world}, {size}, compiled in {}, started in {}", file.display(), millis(*compile), millis(*start)));
    }

    /// One batch; `first_offset` is how many records came out before it.
    pub(super) fn batch(&mut self, topic: &str, first_offset: usize, batch: &[Numbered], passed: &Passed) {
        self.count(passed);
        if self.format == Format::Jsonl {
            let first_offset = i64::try_from(first_offset).unwrap_or(i64::MAX);
            for output in &passed.output {
                self.text.push_str(&json(&output.record, topic, Some(first_offset.saturating_add(output.offset_delta))));
                self.text.push('\n');
            }
            return;
        }
        let (bytes_in, bytes_out) = (human_bytes(passed.bytes_in), human_bytes(passed.bytes_out));
        let (time, memory) = (millis(passed.time), human_bytes(passed.memory_bytes_peak));
        let records = counted(batch.len() as u64, "record");
        let number = self.batches;
        self.words(&format!("batch {number}: {records}, {bytes_in} in, {bytes_out} out, {time}, peak memory {memory}"));
        if self.format == Format::Text {
            self.fates(topic, batch, passed);
        }
    }

    /// The sum of all batches.
    pub(super) fn finish(&mut self, records: usize) {
        let Report { kept, changed, dropped, several, came_out, .. } = *self;
        let (time, memory) = (millis(self.time), human_bytes(self.memory_bytes_peak));
        let each =
            self.time.as_nanos().checked_div(records as u128).map(|each| format!(" ({} ns a record)", thousands(each.cast_signed())));
        let (records, came_out) = (counted(records as u64, "record"), counted(came_out, "record"));
        let parts = [(kept, "kept"), (changed, "changed"), (dropped, "dropped"), (several, "became several")];
        let parts: Vec<_> =
            parts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{} {what}", thousands(*count))).collect();
        let parts = if parts.is_empty() { String::new() } else { format!(": {}", parts.join(", ")) };
        let each = each.unwrap_or_default();
        self.words(&format!("{records} in{parts}; {came_out} out, {time}{each}, peak memory {memory}"));
    }

    fn fates(&mut self, topic: &str, batch: &[Numbered], passed: &Passed) {
        for ((Numbered { line, .. }, (fate, places)), before) in batch.iter().zip(&passed.fates).zip(&passed.input) {
            let what = match fate {
                Fate::Kept => "kept".to_owned(),
                Fate::Changed => "changed".to_owned(),
                Fate::Dropped => "dropped".to_owned(),
                Fate::Became(several) => format!("became {several}"),
                Fate::Placed(partition) => format!("partition {partition}"),
            };
            let _ = writeln!(self.text, "  line {line}: {what}");
            if matches!(fate, Fate::Changed | Fate::Became(_)) {
                let _ = writeln!(self.text, "    - {}", json(before, topic, None));
                self.came(topic, passed, places);
            }
        }
        if !passed.strays.is_empty() {
            let _ = writeln!(self.text, "  new, for none of these:");
            self.came(topic, passed, &passed.strays);
        }
    }

    fn came(&mut self, topic: &str, passed: &Passed, places: &[usize]) {
        for output in places.iter().filter_map(|place| passed.output.get(*place)) {
            let _ = writeln!(self.text, "    + {}", json(&output.record, topic, None));
        }
    }

    fn count(&mut self, passed: &Passed) {
        self.batches += 1;
        self.time += passed.time;
        self.memory_bytes_peak = self.memory_bytes_peak.max(passed.memory_bytes_peak);
        self.came_out += passed.output.len() as u64;
        for (fate, _) in &passed.fates {
            match fate {
                Fate::Kept => self.kept += 1,
                Fate::Changed => self.changed += 1,
                Fate::Dropped => self.dropped += 1,
                Fate::Became(_) => self.several += 1,
                Fate::Placed(_) => {}
            }
        }
    }

    /// A line for a person: not where a program reads.
    fn words(&mut self, words: &str) {
        if self.format == Format::Jsonl {
            // stdout has the records, and nothing else.
            note(words);
        } else {
            self.text.push_str(words);
            self.text.push('\n');
        }
    }
}

/// A record as `consume -o jsonl` writes it, without the line break; without an offset only what a record is by itself.
pub(super) fn json(record: &Record, topic: &str, offset: Option<i64>) -> String {
    let headers: Vec<_> = record.headers.iter().map(|(name, value)| (name.as_str(), value.as_ref())).collect();
    let timestamp = record.timestamp.unwrap_or_default();
    let place = Place { topic, partition: record.partition.unwrap_or_default(), offset: offset.unwrap_or_default(), timestamp };
    let mut line = Vec::new();
    json_line::write(&mut line, place, record.key.as_deref(), record.value.as_deref(), &headers);
    let line = String::from_utf8_lossy(line.trim_ascii_end()).into_owned();
    // Topic, partition and offset come first, and say nothing where a record has none yet.
    let first = if record.timestamp.is_some() { "\"timestamp\":" } else { "\"key" };
    match line.find(first) {
        Some(at) if offset.is_none() && record.partition.is_none() => format!("{{{}", &line[at..]),
        _ => line,
    }
}

/// Microseconds or milliseconds, to about three digits.
fn millis(time: Duration) -> String {
    let millis = time.as_secs_f64() * 1e3;
    match millis {
        ..1.0 => format!("{:.0} µs", millis * 1e3),
        ..10.0 => format!("{millis:.2} ms"),
        ..100.0 => format!("{millis:.1} ms"),
        _ => format!("{millis:.0} ms"),
    }
}

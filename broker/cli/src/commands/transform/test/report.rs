//! The words and the lines of a test.

use super::{
    Format,
    fate::{Fate, Output, Passed},
    input::Numbered,
};
use crate::{
    json_line::{self, Place},
    output::{counted, human_bytes, note, print, thousands},
};
use millpond::Record;
use millpond_plugin::{KeyValues, World};
use std::{collections::BTreeMap, fmt::Write, path::Path, sync::Arc, time::Duration};

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
    /// Of the records that go in.
    topic: String,
    text: String,
    batches: u64,
    kept: u64,
    changed: u64,
    dropped: u64,
    several: u64,
    failed: u64,
    came_out: u64,
    /// How many of these for each derived topic.
    into: BTreeMap<Arc<str>, u64>,
    time: Duration,
    memory_bytes_peak: u64,
}

impl Report {
    pub(super) fn new(format: Format, topic: &str) -> Report {
        Report {
            format,
            topic: topic.to_owned(),
            text: String::new(),
            batches: 0,
            kept: 0,
            changed: 0,
            dropped: 0,
            several: 0,
            failed: 0,
            came_out: 0,
            into: BTreeMap::new(),
            time: Duration::ZERO,
            memory_bytes_peak: 0,
        }
    }

    /// What was written since the last call.
    pub(super) fn take(&mut self) -> String {
        std::mem::take(&mut self.text)
    }

    /// A failure goes to stderr; what was said before it should be there by then, and what state the failed batch has left.
    pub(super) fn flush_before_failure(&mut self, state: Option<(&KeyValues, u64)>) {
        self.state("state, without the batch that failed", state);
        // The failure itself is the better one to tell.
        let _ = print(&self.take());
    }

    pub(super) fn started(&mut self, file: &Path, started: &Started) {
        let Started { world, size_bytes, compile, start } = started;
        let size = human_bytes(*size_bytes);
        self.words(&format!("{}: {world}, {size}, compiled in {}, started in {}", file.display(), millis(*compile), millis(*start)));
    }

    /// One batch.
    pub(super) fn batch(&mut self, batch: &[Numbered], passed: &Passed) {
        self.count(passed);
        if self.format == Format::Jsonl {
            for output in &passed.output {
                self.text.push_str(&line(output, &self.topic));
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
            self.fates(batch, passed);
        }
    }

    /// A record on which the module has failed, and that is left out.
    pub(super) fn failed(&mut self, record: &Numbered, reason: &str) {
        self.failed += 1;
        self.words(&format!("  line {}: failed: {reason}", record.line));
    }

    /// The sum of all batches, and the state that they leave.
    pub(super) fn finish(&mut self, records: usize, state: Option<(&KeyValues, u64)>) {
        let Report { kept, changed, dropped, several, failed, came_out, .. } = *self;
        let (time, memory) = (millis(self.time), human_bytes(self.memory_bytes_peak));
        let each =
            self.time.as_nanos().checked_div(records as u128).map(|each| format!(" ({} ns a record)", thousands(each.cast_signed())));
        let (records, came_out) = (counted(records as u64, "record"), counted(came_out, "record"));
        let parts = [(kept, "kept"), (changed, "changed"), (dropped, "dropped"), (several, "became several"), (failed, "failed")];
        let parts: Vec<_> =
            parts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{} {what}", thousands(*count))).collect();
        let parts = if parts.is_empty() { String::new() } else { format!(": {}", parts.join(", ")) };
        let each = each.unwrap_or_default();
        let into: Vec<_> = self.into.iter().map(|(topic, count)| format!("{} to {topic}", thousands(*count))).collect();
        let into = if into.is_empty() { String::new() } else { format!(" ({})", into.join(", ")) };
        self.words(&format!("{records} in{parts}; {came_out} out{into}, {time}{each}, peak memory {memory}"));
        self.state("state", state);
    }

    /// How large the state is, where there is one.
    fn state(&mut self, what: &str, state: Option<(&KeyValues, u64)>) {
        let Some((state, limit)) = state else { return };
        let entries = if state.len() == 1 { "entry" } else { "entries" };
        let (number, bytes, limit) = (thousands(state.len() as u64), human_bytes(state.bytes()), human_bytes(limit));
        self.words(&format!("{what}: {number} {entries}, {bytes} of {limit}"));
    }

    fn fates(&mut self, batch: &[Numbered], passed: &Passed) {
        for ((Numbered { line, .. }, (fate, places)), before) in batch.iter().zip(&passed.fates).zip(&passed.input) {
            let what = match fate {
                Fate::Kept => "kept".to_owned(),
                Fate::Changed => "changed".to_owned(),
                Fate::Dropped => "dropped".to_owned(),
                Fate::Became(several) => format!("became {several}"),
                Fate::Placed(partition) => format!("partition {partition}"),
            };
            let _ = writeln!(self.text, "  line {line}: {what}{}", to_topics(passed, places));
            if matches!(fate, Fate::Changed | Fate::Became(_)) {
                let _ = writeln!(self.text, "    - {}", json(before, None, None));
                self.came(passed, places);
            }
        }
        if !passed.strays.is_empty() {
            let _ = writeln!(self.text, "  new, for none of these{}:", to_topics(passed, &passed.strays));
            self.came(passed, &passed.strays);
        }
    }

    fn came(&mut self, passed: &Passed, places: &[usize]) {
        for output in places.iter().filter_map(|place| passed.output.get(*place)) {
            let _ = writeln!(self.text, "    + {}", shown(output));
        }
    }

    fn count(&mut self, passed: &Passed) {
        self.batches += 1;
        self.time += passed.time;
        self.memory_bytes_peak = self.memory_bytes_peak.max(passed.memory_bytes_peak);
        self.came_out += passed.output.len() as u64;
        for topic in passed.output.iter().filter_map(|output| output.topic.as_ref()) {
            *self.into.entry(Arc::clone(topic)).or_default() += 1;
        }
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

/// The derived topics that records went to.
fn to_topics(passed: &Passed, places: &[usize]) -> String {
    let topics = places.iter().filter_map(|place| passed.output.get(*place)?.topic.as_deref());
    let mut distinct: Vec<&str> = Vec::new();
    for topic in topics {
        if !distinct.contains(&topic) {
            distinct.push(topic);
        }
    }
    if distinct.is_empty() { String::new() } else { format!(", to {}", distinct.join(", ")) }
}

/// A record that came out as `consume -o jsonl` writes it, without the line break.
fn line(output: &Output, topic: &str) -> String {
    let Output { record, topic: into, offset } = output;
    let (topic, partition) = (into.as_deref().unwrap_or(topic), record.partition.unwrap_or_default());
    let mut line = Vec::new();
    write(&mut line, record, Place { topic, partition, offset: *offset, timestamp: record.timestamp.unwrap_or_default() });
    String::from_utf8_lossy(line.trim_ascii_end()).into_owned()
}

/// A record that came out, with its place as far as the module or the broker has chosen it.
pub(super) fn shown(output: &Output) -> String {
    json(&output.record, output.topic.as_deref(), output.record.partition.map(|_| output.offset))
}

/// A record as `consume -o jsonl` writes it, without the line break, and without what is not known of it.
pub(super) fn json(record: &Record, topic: Option<&str>, offset: Option<i64>) -> String {
    let mut whole = Vec::new();
    write(&mut whole, record, Place { topic: "", partition: 0, offset: 0, timestamp: record.timestamp.unwrap_or_default() });
    let whole = String::from_utf8_lossy(whole.trim_ascii_end());
    // The place comes first, then the record by itself.
    let first = if record.timestamp.is_some() { "\"timestamp\":" } else { "\"key" };
    let itself = whole.find(first).map_or(&*whole, |at| &whole[at..]);
    let mut place = Vec::new();
    if let Some(topic) = topic {
        place.extend_from_slice(b"\"topic\":");
        json_line::write_text(&mut place, topic);
        place.push(b',');
    }
    let mut place = String::from_utf8_lossy(&place).into_owned();
    let numbers = [("partition", record.partition.map(i64::from)), ("offset", offset)];
    for (name, number) in numbers.iter().filter_map(|(name, number)| Some((name, (*number)?))) {
        let _ = write!(place, "\"{name}\":{number},");
    }
    format!("{{{place}{itself}")
}

fn write(out: &mut Vec<u8>, record: &Record, place: Place<'_>) {
    let headers: Vec<_> = record.headers.iter().map(|(name, value)| (name.as_str(), value.as_ref())).collect();
    json_line::write(out, place, record.key.as_deref(), record.value.as_deref(), &headers);
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

//! How producing went, in one line and as JSON.

use super::answers::Report;
use crate::{
    failure::{Failure, Outcome},
    output::{counted, human_bytes, thousands},
    progress::per_second,
};
use millpond::ProducerStats;
use serde::Serialize;
use std::{
    fmt::Write,
    fs::{self, OpenOptions},
    path::Path,
    time::Duration,
};

/// The summary. The field names are those of the JSON.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Summary {
    /// Records that were acknowledged.
    records: u64,
    /// Bytes of their keys and values.
    bytes: u64,
    /// Of the records, those that a transform left out.
    dropped: u64,
    /// Batches that were sent once more.
    retries: u64,
    /// From the first line to the last acknowledgement.
    seconds: f64,
    /// `bytes` in millions a second.
    mb_s: f64,
    records_s: u64,
    /// From the sending of a batch to its acknowledgement.
    ack_p50_us: u64,
    ack_p99_us: u64,
}

impl Summary {
    pub(super) fn new(report: &Report, stats: &ProducerStats, elapsed: Duration) -> Summary {
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        #[expect(clippy::cast_precision_loss, reason = "a rate for people and charts")]
        let mb_s = report.bytes as f64 / 1e6 / elapsed.as_secs_f64().max(f64::EPSILON);
        Summary {
            records: report.records,
            bytes: report.bytes,
            dropped: stats.records_dropped,
            retries: stats.retries,
            seconds: elapsed.as_secs_f64(),
            mb_s,
            records_s: per_second(report.records, elapsed),
            ack_p50_us: micros(stats.ack_latency.p50),
            ack_p99_us: micros(stats.ack_latency.p99),
        }
    }

    /// For a person.
    pub(super) fn words(&self) -> String {
        if self.records == 0 {
            return "stored no records: there were none in the input".to_owned();
        }
        let stored = self.records.saturating_sub(self.dropped);
        let mut words = format!(
            "stored {} ({}) in {:.2} s: {} records/s, acknowledged in p50 {} p99 {}",
            counted(stored, "record"),
            human_bytes(self.bytes),
            self.seconds,
            thousands(self.records_s),
            latency(self.ack_p50_us),
            latency(self.ack_p99_us),
        );
        // Writing to a string can't fail.
        if self.dropped > 0 {
            let _ = write!(words, "; {} left out by a transform", thousands(self.dropped));
        }
        if self.retries > 0 {
            let _ = write!(words, "; {} {} sent again", thousands(self.retries), if self.retries == 1 { "batch" } else { "batches" });
        }
        words
    }

    /// For a program.
    pub(super) fn write(&self, path: &Path) -> Outcome {
        let failed = || format!("can't write {}", path.display());
        let json = serde_json::to_string(self).map_err(|error| Failure::new(failed()).because(&error))?;
        fs::write(path, json + "\n").map_err(|error| Failure::new(failed()).because(&error))
    }
}

/// Makes the file for the JSON, so that what stands in its way shows before anything is stored.
pub(super) fn check(path: &Path) -> Outcome {
    match OpenOptions::new().create(true).append(true).open(path) {
        Ok(_) => Ok(()),
        Err(error) => Err(Failure::usage(format!("can't write {}", path.display())).because(&error)),
    }
}

fn latency(micros: u64) -> String {
    match (micros / 1000, micros % 1000 / 100) {
        (0, _) => format!("{micros} us"),
        (whole @ 1..10, tenth) => format!("{whole}.{tenth} ms"),
        (whole, _) => format!("{whole} ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary() -> Summary {
        Summary {
            records: 100_000,
            bytes: 488_895,
            dropped: 0,
            retries: 0,
            seconds: 0.21,
            mb_s: 2.3,
            records_s: 476_190,
            ack_p50_us: 3_149,
            ack_p99_us: 18_000,
        }
    }

    #[test]
    fn a_person_reads_one_line() {
        assert_eq!(
            summary().words(),
            "stored 100,000 records (477.4 KiB) in 0.21 s: 476,190 records/s, acknowledged in p50 3.1 ms p99 18 ms"
        );
        let less = Summary { records: 3, dropped: 2, retries: 1, ..summary() };
        assert!(less.words().starts_with("stored 1 record ("), "{}", less.words());
        let nothing = Summary { records: 0, bytes: 0, ..summary() };
        assert_eq!(nothing.words(), "stored no records: there were none in the input");
        assert!(less.words().ends_with("; 2 left out by a transform; 1 batch sent again"), "{}", less.words());
    }

    #[test]
    fn a_program_reads_these_fields() {
        let json = serde_json::to_value(summary()).expect("JSON");
        let names: Vec<_> = json.as_object().expect("an object").keys().map(String::as_str).collect();
        let mut expected = ["records", "bytes", "dropped", "retries", "seconds", "mb_s", "records_s", "ack_p50_us", "ack_p99_us"];
        expected.sort_unstable();
        assert_eq!(names, expected);
    }
}

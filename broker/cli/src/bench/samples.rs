//! Numbers as they are taken, and how several rounds become one.

use serde::Serialize;
use std::{collections::BTreeMap, time::Duration};

use super::plan::Case;

/// So many bytes and records in so much time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Throughput {
    /// Bytes of values, without what the batches and the network add.
    pub(super) bytes: u64,
    /// Records, where there are any.
    pub(super) records: u64,
    /// From the first to the last acknowledged.
    pub(super) elapsed: Duration,
}

impl Throughput {
    /// Megabytes (10^6 bytes) a second.
    pub(super) fn mb_s(&self) -> f64 {
        approximate(self.bytes) / 1e6 / self.elapsed.as_secs_f64()
    }

    /// Records a second.
    pub(super) fn records_s(&self) -> f64 {
        approximate(self.records) / self.elapsed.as_secs_f64()
    }
}

/// Latencies of one round. A round takes at most some seconds, so all are kept.
#[derive(Clone, Debug, Default)]
pub(super) struct Latencies(Vec<Duration>);

impl Latencies {
    pub(super) fn add(&mut self, latency: Duration) {
        self.0.push(latency);
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The 50th and the 99th percentile in microseconds, by nearest rank.
    pub(super) fn p50_p99_us(mut self) -> (f64, f64) {
        self.0.sort_unstable();
        let rank = |percent: usize| {
            let at = (self.0.len() * percent).div_ceil(100).saturating_sub(1);
            self.0.get(at).map_or(0.0, |latency| latency.as_secs_f64() * 1e6)
        };
        (rank(50), rank(99))
    }
}

/// What one round of a case came to. What does not apply to the case is none.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Sample {
    pub(super) mb_s: Option<f64>,
    pub(super) records_s: Option<f64>,
    pub(super) p50_us: Option<f64>,
    pub(super) p99_us: Option<f64>,
}

impl FromIterator<Duration> for Latencies {
    fn from_iter<I: IntoIterator<Item = Duration>>(latencies: I) -> Latencies {
        Latencies(latencies.into_iter().collect())
    }
}

impl From<Throughput> for Sample {
    fn from(throughput: Throughput) -> Sample {
        Sample { mb_s: Some(throughput.mb_s()), records_s: Some(throughput.records_s()), ..Sample::default() }
    }
}

impl From<Latencies> for Sample {
    fn from(latencies: Latencies) -> Sample {
        let (p50_us, p99_us) = latencies.p50_p99_us();
        Sample { p50_us: Some(p50_us), p99_us: Some(p99_us), ..Sample::default() }
    }
}

/// All rounds.
#[derive(Clone, Debug, Default)]
pub(super) struct Samples {
    pub(super) quinn_mb_s: Vec<f64>,
    pub(super) seq_write_mb_s: Vec<f64>,
    pub(super) flushed_write_mb_s: Vec<f64>,
    pub(super) fdatasync_us: Vec<(f64, f64)>,
    pub(super) quinn_ping_us: Vec<(f64, f64)>,
    pub(super) cases: BTreeMap<Case, Vec<Sample>>,
}

impl Samples {
    pub(super) fn add(&mut self, case: Case, sample: impl Into<Sample>) {
        self.cases.entry(case).or_default().push(sample.into());
    }

    /// The median of each limit.
    pub(super) fn limits(&self) -> Limits {
        let median_of = |pairs: &[(f64, f64)], pick: fn(&(f64, f64)) -> f64| median(pairs.iter().map(pick));
        Limits {
            quinn_mb_s: median(self.quinn_mb_s.iter().copied()),
            seq_write_mb_s: median(self.seq_write_mb_s.iter().copied()),
            flushed_write_mb_s: median(self.flushed_write_mb_s.iter().copied()),
            fdatasync_p50_us: median_of(&self.fdatasync_us, |pair| pair.0),
            fdatasync_p99_us: median_of(&self.fdatasync_us, |pair| pair.1),
            quinn_ping_p50_us: median_of(&self.quinn_ping_us, |pair| pair.0),
            quinn_ping_p99_us: median_of(&self.quinn_ping_us, |pair| pair.1),
        }
    }

    /// The median of each number of a case.
    pub(super) fn case(&self, case: Case) -> Sample {
        let rounds = self.cases.get(&case).map(Vec::as_slice).unwrap_or_default();
        let median_of = |pick: fn(&Sample) -> Option<f64>| median(rounds.iter().filter_map(pick));
        Sample {
            mb_s: median_of(|sample| sample.mb_s),
            records_s: median_of(|sample| sample.records_s),
            p50_us: median_of(|sample| sample.p50_us),
            p99_us: median_of(|sample| sample.p99_us),
        }
    }
}

/// What the machine gives without Millpond. None where it was not measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(super) struct Limits {
    /// Bulk transfer over one QUIC connection, MB/s.
    pub(super) quinn_mb_s: Option<f64>,
    /// Sequential writing with one flush at the end, MB/s.
    pub(super) seq_write_mb_s: Option<f64>,
    /// Sequential writing with a flush for each half of the records that the writers of the group commit have under way, MB/s.
    pub(super) flushed_write_mb_s: Option<f64>,
    /// 4 KiB written and flushed, microseconds.
    pub(super) fdatasync_p50_us: Option<f64>,
    /// The same.
    pub(super) fdatasync_p99_us: Option<f64>,
    /// 1 KiB over QUIC and 16 bytes back, microseconds.
    pub(super) quinn_ping_p50_us: Option<f64>,
    /// The same.
    pub(super) quinn_ping_p99_us: Option<f64>,
}

/// The middle one, or the mean of the two in the middle.
pub(super) fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        length if length % 2 == 1 => Some(values[middle]),
        _ => Some(f64::midpoint(values[middle - 1], values[middle])),
    }
}

/// A count as a float: exact up to 2^53, more than any count here.
#[expect(clippy::cast_precision_loss, reason = "no count here comes near 2^53")]
pub(super) fn approximate(count: u64) -> f64 {
    count as f64
}

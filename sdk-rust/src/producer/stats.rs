//! What a producer has done, in numbers.

use hdrhistogram::Histogram;
use parking_lot::Mutex;
use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// The longest time that the histograms tell apart, in microseconds: an hour.
const MICROSECONDS_MAX: u64 = 3_600_000_000;

/// Significant digits of the times: within 1 %.
const SIGNIFICANT_DIGITS: u8 = 2;

/// What a producer has done since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProducerStats {
    /// Records that were acknowledged.
    pub records: u64,
    /// Of these, records that a transform left out.
    pub records_dropped: u64,
    /// Records whose delivery failed.
    pub records_failed: u64,
    /// Bytes of acknowledged batches, as they travelled.
    pub bytes: u64,
    /// Batches that were acknowledged.
    pub batches: u64,
    /// Batches that were sent once more.
    pub retries: u64,
    /// Of the records in them, those that may have been stored before, because an answer was lost. The broker recognises them; without
    /// [`crate::ProducerBuilder::idempotence`] the log can hold them twice.
    pub records_resent: u64,
    /// Bytes of records that are not answered yet, of [`crate::ProducerBuilder::buffer_bytes`].
    pub buffered_bytes: u64,
    /// From when a batch was sent to its acknowledgement. Where it was sent more than once, from the last time.
    pub ack_latency: LatencySummary,
    /// From when a batch's first record came to when the batch was sent.
    pub queue_time: LatencySummary,
}

/// A distribution of times, within 1 %.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LatencySummary {
    /// How many times were measured.
    pub count: u64,
    /// The median.
    pub p50: Duration,
    /// 99 % are not longer.
    pub p99: Duration,
    /// The longest.
    pub max: Duration,
}

/// The counters behind [`ProducerStats`]. Touched once for each batch.
#[derive(Debug)]
pub(crate) struct Counters {
    pub(crate) records: AtomicU64,
    pub(crate) records_dropped: AtomicU64,
    pub(crate) records_failed: AtomicU64,
    pub(crate) bytes: AtomicU64,
    pub(crate) batches: AtomicU64,
    pub(crate) retries: AtomicU64,
    pub(crate) records_resent: AtomicU64,
    pub(crate) ack_latency: Latency,
    pub(crate) queue_time: Latency,
}

impl Counters {
    pub(crate) fn new() -> Counters {
        Counters {
            records: AtomicU64::new(0),
            records_dropped: AtomicU64::new(0),
            records_failed: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            batches: AtomicU64::new(0),
            retries: AtomicU64::new(0),
            records_resent: AtomicU64::new(0),
            ack_latency: Latency::new(),
            queue_time: Latency::new(),
        }
    }

    pub(crate) fn summary(&self, buffered_bytes: u64) -> ProducerStats {
        ProducerStats {
            records: self.records.load(Relaxed),
            records_dropped: self.records_dropped.load(Relaxed),
            records_failed: self.records_failed.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
            batches: self.batches.load(Relaxed),
            retries: self.retries.load(Relaxed),
            records_resent: self.records_resent.load(Relaxed),
            buffered_bytes,
            ack_latency: self.ack_latency.summary(),
            queue_time: self.queue_time.summary(),
        }
    }
}

/// A histogram of times.
#[derive(Debug)]
pub(crate) struct Latency(Mutex<Histogram<u64>>);

impl Latency {
    fn new() -> Latency {
        let histogram = Histogram::new_with_bounds(1, MICROSECONDS_MAX, SIGNIFICANT_DIGITS)
            .unwrap_or_else(|error| unreachable!("the bounds are constants that hdrhistogram takes: {error}"));
        Latency(Mutex::new(histogram))
    }

    /// Counts a time; one over an hour as an hour.
    pub(crate) fn record(&self, time: Duration) {
        let microseconds = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.0.lock().saturating_record(microseconds.max(1));
    }

    fn summary(&self) -> LatencySummary {
        let histogram = self.0.lock();
        let at = |quantile| Duration::from_micros(histogram.value_at_quantile(quantile));
        LatencySummary { count: histogram.len(), p50: at(0.5), p99: at(0.99), max: Duration::from_micros(histogram.max()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_within_a_hundredth() {
        let latency = Latency::new();
        (1..=10_000).for_each(|microseconds| latency.record(Duration::from_micros(microseconds)));
        let summary = latency.summary();
        let close = |time: Duration, expected: u128| time.as_micros().abs_diff(expected) * 100 <= expected;
        assert!(close(summary.p50, 5_000) && close(summary.p99, 9_900) && close(summary.max, 10_000), "{summary:?}");
        assert_eq!(summary.count, 10_000);
    }

    #[test]
    fn times_out_of_range_are_counted_at_its_ends() {
        let latency = Latency::new();
        latency.record(Duration::ZERO);
        latency.record(Duration::MAX);
        assert_eq!(latency.summary().count, 2);
        assert!(latency.summary().max >= Duration::from_hours(1));
    }

    #[test]
    fn a_producer_that_did_nothing_has_zeros() {
        assert_eq!(Counters::new().summary(0), ProducerStats::default());
    }
}

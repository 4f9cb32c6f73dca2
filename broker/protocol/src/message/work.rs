//! What a module has done on a topic, beside the counts of records: time, memory, and what went wrong.
//!
//! Times are counted into buckets, as in a Prometheus histogram: the count of a bucket holds all batches that took at most so long. Those
//! that took longer than the last bound are in [`BatchTimes::batches`] alone.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The bounds of the buckets that batches are counted into by their time, in microseconds: from a filter on a small batch to ten times what
/// a batch may take by default.
pub const BATCH_TIME_BOUNDS_US: [u64; 14] =
    [50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000];

/// What a module on a topic has done since the broker started; another version that takes its place counts on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AttachmentWork {
    /// Records of batches that were refused because it failed on them ([`OnError::Reject`](super::OnError::Reject)).
    #[serde(skip_serializing_if = "is_zero")]
    pub records_rejected: u64,
    /// Those of [`AttachmentStatus::records_failed`](super::AttachmentStatus::records_failed) that became dead letters; the others were
    /// skipped.
    #[serde(skip_serializing_if = "is_zero")]
    pub records_dead_lettered: u64,
    /// Batches on which it failed, by how: the name of an error code, such as `guest_trapped`, or `other`. A batch is counted once, by what
    /// went wrong first. Empty in a list of topics.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub failures_by_kind: BTreeMap<String, u64>,
    /// The most memory that an instance had after a batch, in bytes.
    #[serde(skip_serializing_if = "is_zero")]
    pub memory_bytes_peak: u64,
    /// How long it is at the batch that it is at for longest, by the clock, in milliseconds; 0 where that is less than a second.
    #[serde(skip_serializing_if = "is_zero")]
    pub busy_ms: u64,
    /// How long batches took. None in a list of topics.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch_times: Option<BatchTimes>,
}

/// How long batches took, from the moment at which the module got the first record to the one at which its answer was checked, by the clock.
/// Where it failed on one, the search for the records at fault counts as well.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BatchTimes {
    /// All of them.
    pub batches: u64,
    /// Their times together, in microseconds.
    pub sum_us: u64,
    /// By rising bound.
    pub buckets: Vec<TimeBucket>,
}

/// Batches that took at most so long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TimeBucket {
    /// So long, in microseconds.
    pub le_us: u64,
    /// How many that are, those of the buckets before this one included.
    pub batches: u64,
}

impl AttachmentWork {
    /// Whether there is nothing to tell.
    pub fn is_empty(&self) -> bool {
        *self == AttachmentWork::default()
    }
}

impl BatchTimes {
    /// The bound, in microseconds, that so many percent of the batches have kept; none if it is longer than all bounds, or if there was no
    /// batch.
    pub fn within_us(&self, percent: u64) -> Option<u64> {
        let wanted = self.batches.checked_mul(percent)?.div_ceil(100).max(1);
        self.buckets.iter().find(|bucket| bucket.batches >= wanted).map(|bucket| bucket.le_us)
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[cfg(test)]
mod tests {
    use super::super::tests::{array, is_golden, map, text};
    use super::*;
    use crate::message::decode;

    #[test]
    fn what_a_module_has_done_has_golden_bytes_and_an_older_broker_says_nothing_of_it() {
        is_golden(&AttachmentWork::default(), &map(&[]));
        let buckets = vec![TimeBucket { le_us: 5, batches: 6 }, TimeBucket { le_us: 7, batches: 8 }];
        let work = AttachmentWork {
            records_rejected: 1,
            records_dead_lettered: 2,
            failures_by_kind: BTreeMap::from([("other".to_owned(), 3)]),
            memory_bytes_peak: 4,
            busy_ms: 11,
            batch_times: Some(BatchTimes { batches: 9, sum_us: 10, buckets }),
        };
        let bucket = |le_us, batches| map(&[("le_us", vec![le_us]), ("batches", vec![batches])]);
        let times = map(&[("batches", vec![9]), ("sum_us", vec![10]), ("buckets", array(&[bucket(5, 6), bucket(7, 8)]))]);
        let golden = map(&[
            ("records_rejected", vec![1]),
            ("records_dead_lettered", vec![2]),
            ("failures_by_kind", map(&[("other", vec![3])])),
            ("memory_bytes_peak", vec![4]),
            ("busy_ms", vec![11]),
            ("batch_times", times),
        ]);
        is_golden(&work, &golden);
        let newer = map(&[("records_rejected", vec![1]), ("colour", text("red"))]);
        assert_eq!(decode::<AttachmentWork>(&newer).expect("readable").records_rejected, 1);
    }

    #[test]
    fn the_bound_that_most_batches_kept_is_found() {
        let times = |batches, counts: &[u64]| BatchTimes {
            batches,
            sum_us: 0,
            buckets: counts.iter().zip(BATCH_TIME_BOUNDS_US).map(|(batches, le_us)| TimeBucket { le_us, batches: *batches }).collect(),
        };
        let some = times(200, &[0, 100, 197, 198]);
        assert_eq!(
            (some.within_us(50), some.within_us(98), some.within_us(99), some.within_us(100)),
            (Some(100), Some(250), Some(500), None)
        );
        assert_eq!((times(0, &[0, 0]).within_us(50), times(1, &[1]).within_us(0)), (None, Some(50)));
        assert_eq!(times(u64::MAX, &[u64::MAX]).within_us(99), None, "nobody counts so far");
        assert!(BATCH_TIME_BOUNDS_US.is_sorted());
    }
}

//! How long batches took, counted into buckets of fixed bounds.

use millpond_protocol::message::{BATCH_TIME_BOUNDS_US, BatchTimes, TimeBucket};
use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// Counts for each bound of [`BATCH_TIME_BOUNDS_US`], and one for what is over the last; each batch in one of them.
#[derive(Debug, Default)]
pub(super) struct Times {
    counts: [AtomicU64; BATCH_TIME_BOUNDS_US.len() + 1],
    sum_ns: AtomicU64,
}

impl Times {
    pub(super) fn add(&self, took: Duration) {
        // A time of exactly a bound is within it.
        let bucket = BATCH_TIME_BOUNDS_US.partition_point(|bound_us| Duration::from_micros(*bound_us) < took);
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        // Enough for five hundred years of work.
        self.sum_ns.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// As they are now. What is added meanwhile may be in the sum and not in the counts, or the other way round.
    pub(super) fn read(&self) -> BatchTimes {
        let mut batches = 0;
        let mut counts = self.counts.iter().map(|count| {
            batches += count.load(Ordering::Relaxed);
            batches
        });
        let buckets = BATCH_TIME_BOUNDS_US.iter().zip(&mut counts).map(|(le_us, batches)| TimeBucket { le_us: *le_us, batches }).collect();
        // Those over the last bound.
        let _ = counts.next();
        BatchTimes { batches, sum_us: self.sum_ns.load(Ordering::Relaxed) / 1_000, buckets }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_time_is_in_the_bucket_of_the_first_bound_that_it_keeps() {
        let times = Times::default();
        let (first, last) = (BATCH_TIME_BOUNDS_US[0], BATCH_TIME_BOUNDS_US[BATCH_TIME_BOUNDS_US.len() - 1]);
        let within = |us| Duration::from_micros(us);
        for took in [Duration::ZERO, within(first), within(first) + Duration::from_nanos(1), within(last), within(last + 1)] {
            times.add(took);
        }
        let read = times.read();
        let counts: Vec<_> = read.buckets.iter().map(|bucket| bucket.batches).collect();
        let mut expected = [3; BATCH_TIME_BOUNDS_US.len()];
        (expected[0], expected[expected.len() - 1]) = (2, 4);
        assert_eq!((counts.as_slice(), read.batches), (&expected[..], 5));
        assert_eq!(read.sum_us, first + first + last + last + 1);
        times.add(Duration::MAX);
        assert_eq!(times.read().batches, 6);
    }
}

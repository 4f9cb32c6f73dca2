//! Which batches of a segment had their checksums compared since the log was opened.
//!
//! What this process appended was checked on its way in, and what the recovery read was checked there; both are the end of a segment, so
//! one position says it. For what lies before it there is a short list of ranges: one that grows, while a consumer reads on; a few, where
//! several read at different places.
//!
//! ```text
//!   0                                                             trusted_from
//!   |-----[ compared ]----------[ compared ]---------------------|------------------->
//! ```

use std::ops::Range;

use parking_lot::Mutex;

use crate::config::VerifyOnRead;

#[derive(Debug)]
pub(crate) struct Verified {
    mode: VerifyOnRead,
    /// Batches from this position on count as compared.
    trusted_from: u64,
    /// Rising, apart from each other, at most [`RANGES_MAX`] of them. Each begins and ends between two batches.
    ranges: Mutex<Vec<Range<u64>>>,
}

impl Verified {
    /// Of a segment whose batches from a position on were checked by this process.
    pub(crate) fn new(mode: VerifyOnRead, trusted_from: u64) -> Verified {
        Verified { mode, trusted_from, ranges: Mutex::default() }
    }

    /// Up to which position the batches from `position` on need no comparison; `position` itself if the first one does.
    pub(crate) fn until(&self, position: u64) -> u64 {
        match self.mode {
            VerifyOnRead::Always => return position,
            VerifyOnRead::Never => return u64::MAX,
            VerifyOnRead::First => {}
        }
        // The usual read, at the end of the log, takes no lock.
        if position >= self.trusted_from {
            return u64::MAX;
        }
        let ranges = self.ranges.lock();
        let after = ranges.partition_point(|range| range.start <= position);
        let end = after.checked_sub(1).and_then(|last| ranges.get(last)).map_or(position, |range| range.end.max(position));
        if end >= self.trusted_from { u64::MAX } else { end }
    }

    /// Notes that the batches in this range were compared.
    pub(crate) fn add(&self, range: Range<u64>) {
        if self.mode != VerifyOnRead::First || range.is_empty() || range.start >= self.trusted_from {
            return;
        }
        let mut ranges = self.ranges.lock();
        // Those that touch it become one with it.
        let from = ranges.partition_point(|other| other.end < range.start);
        let to = ranges.partition_point(|other| other.start <= range.end);
        let start = ranges[from..to].first().map_or(range.start, |first| first.start.min(range.start));
        let end = ranges[from..to].last().map_or(range.end, |last| last.end.max(range.end));
        ranges.splice(from..to, std::iter::once(start..end));
        if ranges.len() > RANGES_MAX
            && let Some((shortest, _)) = ranges.iter().enumerate().min_by_key(|(_, range)| range.end - range.start)
        {
            // Its batches are compared once more than need be.
            ranges.remove(shortest);
        }
    }
}

/// Ranges that are remembered of one segment: a kilobyte.
const RANGES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::Random;

    #[test]
    fn ranges_that_touch_become_one_and_the_rest_is_not_believed() {
        let verified = Verified::new(VerifyOnRead::First, 1_000);
        assert_eq!((verified.until(0), verified.until(999), verified.until(1_000)), (0, 999, u64::MAX));
        verified.add(100..200);
        verified.add(300..400);
        assert_eq!([0, 100, 199, 200, 250, 300, 400].map(|position| verified.until(position)), [0, 200, 200, 200, 250, 400, 400]);
        verified.add(200..300);
        assert_eq!((verified.until(100), verified.ranges.lock().len()), (400, 1));
        verified.add(0..1_000);
        assert_eq!(verified.until(0), u64::MAX, "all of it");
    }

    #[test]
    fn what_is_always_or_never_compared_needs_no_list() {
        let (always, never) = (Verified::new(VerifyOnRead::Always, 0), Verified::new(VerifyOnRead::Never, 1_000));
        always.add(0..100);
        assert_eq!((always.until(0), never.until(0)), (0, u64::MAX));
    }

    #[test]
    fn the_list_is_bounded_and_never_says_too_much() {
        let mut random = Random::new(1);
        let verified = Verified::new(VerifyOnRead::First, 10_000);
        let mut compared = vec![false; 10_000];
        for _ in 0..5_000 {
            let start = random.below(9_990);
            let range = start..start + 1 + random.below(9);
            range.clone().for_each(|position| compared[usize::try_from(position).expect("small")] = true);
            verified.add(range);
            assert!(verified.ranges.lock().len() <= RANGES_MAX);
            let from = random.below(10_000);
            let until = verified.until(from).min(10_000);
            assert!((from..until).all(|position| compared[usize::try_from(position).expect("small")]));
        }
    }
}

//! How much one attachment may write to the broker's log over time: a bucket that fills at a steady rate and that each line takes from.

use std::time::Instant;

use parking_lot::Mutex;

/// The budget of one attachment, shared by all its instances.
#[derive(Debug)]
pub(crate) struct LogBudget {
    bytes_per_second: u64,
    bucket: Mutex<Bucket>,
}

/// What becomes of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is written, after a word about those that were left out since the one before.
    Write {
        /// How many that are.
        left_out_before: u64,
    },
    /// It is left out, and counted.
    LeaveOut,
}

impl LogBudget {
    /// A full one, that fills at this rate.
    pub(crate) fn new(bytes_per_second: u64) -> LogBudget {
        LogBudget { bytes_per_second, bucket: Mutex::new(Bucket::full(bytes_per_second)) }
    }

    /// The rate.
    pub(crate) fn bytes_per_second(&self) -> u64 {
        self.bytes_per_second
    }

    /// Asks for a line of so many bytes.
    pub(crate) fn take(&self, now: Instant, line_bytes: usize) -> Verdict {
        self.bucket.lock().take(self.bytes_per_second, now, line_bytes)
    }

    /// Counts lines that were left out for another reason, and could not be spoken of.
    pub(crate) fn leave_out(&self, lines: u64) {
        let mut bucket = self.bucket.lock();
        bucket.left_out = bucket.left_out.saturating_add(lines);
    }
}

#[derive(Debug)]
struct Bucket {
    bytes: u64,
    /// When the bucket had these bytes; none before the first line.
    counted_at: Option<Instant>,
    left_out: u64,
}

impl Bucket {
    fn full(bytes_per_second: u64) -> Bucket {
        Bucket { bytes: burst_bytes(bytes_per_second), counted_at: None, left_out: 0 }
    }

    fn take(&mut self, bytes_per_second: u64, now: Instant, line_bytes: usize) -> Verdict {
        let millis = self.counted_at.map_or(0, |then| now.saturating_duration_since(then).as_millis());
        let gained = u64::try_from(millis).unwrap_or(u64::MAX).saturating_mul(bytes_per_second) / 1000;
        // A time that gains nothing goes on to count, so that many short ones are not lost.
        if gained > 0 || self.counted_at.is_none() {
            self.bytes = self.bytes.saturating_add(gained).min(burst_bytes(bytes_per_second));
            self.counted_at = Some(now);
        }
        let cost = LINE_OVERHEAD_BYTES + line_bytes as u64;
        if let Some(rest) = self.bytes.checked_sub(cost) {
            self.bytes = rest;
            Verdict::Write { left_out_before: std::mem::take(&mut self.left_out) }
        } else {
            self.left_out = self.left_out.saturating_add(1);
            Verdict::LeaveOut
        }
    }
}

/// What an attachment may write at once after a silence.
fn burst_bytes(bytes_per_second: u64) -> u64 {
    bytes_per_second.saturating_mul(BURST_SECONDS)
}

/// A burst is what comes in so many seconds.
const BURST_SECONDS: u64 = 8;

/// What a line takes beside its own bytes: the time, the module, the topic and the partition before it.
const LINE_OVERHEAD_BYTES: u64 = 128;

#[cfg(test)]
mod tests {
    use super::{BURST_SECONDS, Bucket, LINE_OVERHEAD_BYTES, LogBudget, Verdict};
    use std::time::{Duration, Instant};

    const BYTES_PER_SECOND: u64 = 8 * 1024;
    const BURST_BYTES: u64 = BURST_SECONDS * BYTES_PER_SECOND;
    const LINE_BYTES: usize = 128;
    const COST: u64 = LINE_OVERHEAD_BYTES + LINE_BYTES as u64;

    fn written(bucket: &mut Bucket, now: Instant, lines: u64) -> u64 {
        (0..lines).map(|_| u64::from(bucket.take(BYTES_PER_SECOND, now, LINE_BYTES) != Verdict::LeaveOut)).sum()
    }

    #[test]
    fn a_burst_is_written_and_what_is_over_it_is_counted_in_the_next_line() {
        let (mut bucket, start) = (Bucket::full(BYTES_PER_SECOND), Instant::now());
        assert_eq!(written(&mut bucket, start, 10_000), BURST_BYTES / COST);
        let later = start + Duration::from_secs(1);
        assert_eq!(bucket.take(BYTES_PER_SECOND, later, LINE_BYTES), Verdict::Write { left_out_before: 10_000 - BURST_BYTES / COST });
        assert_eq!(bucket.take(BYTES_PER_SECOND, later, LINE_BYTES), Verdict::Write { left_out_before: 0 });
    }

    #[test]
    fn in_the_long_run_a_module_writes_at_its_rate_however_often_it_asks() {
        let (mut bucket, start) = (Bucket::full(BYTES_PER_SECOND), Instant::now());
        written(&mut bucket, start, 10_000);
        let in_a_minute: u64 = (1..=60_000).map(|millis| written(&mut bucket, start + Duration::from_millis(millis), 2)).sum();
        let expected = 60 * BYTES_PER_SECOND / COST;
        assert!((expected * 9 / 10..=expected).contains(&in_a_minute), "{in_a_minute} lines, {expected} expected");
    }

    #[test]
    fn a_long_silence_saves_up_no_more_than_a_burst() {
        let (mut bucket, start) = (Bucket::full(BYTES_PER_SECOND), Instant::now());
        written(&mut bucket, start, 10_000);
        assert_eq!(written(&mut bucket, start + Duration::from_hours(1000), 10_000), BURST_BYTES / COST);
    }

    #[test]
    fn empty_lines_are_bounded_too() {
        let (mut bucket, now) = (Bucket::full(BYTES_PER_SECOND), Instant::now());
        let written = (0..10_000).filter(|_| bucket.take(BYTES_PER_SECOND, now, 0) != Verdict::LeaveOut).count() as u64;
        assert_eq!(written, BURST_BYTES / LINE_OVERHEAD_BYTES);
    }

    #[test]
    fn a_rate_of_nothing_lets_nothing_through() {
        let budget = LogBudget::new(0);
        assert_eq!(budget.take(Instant::now(), LINE_BYTES), Verdict::LeaveOut);
    }
}

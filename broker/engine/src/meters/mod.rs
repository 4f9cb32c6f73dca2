//! What is measured of a module in one place, and what is kept of its words.
//!
//! Every attachment holds one [`AttachmentMeters`], whatever it is attached to, and the version that takes its place goes on with the same.
//! A batch is counted once, when all is over with it: as passed, as refused, or as taken apart to find the records at fault. Its dead letters
//! are counted when they are stored, or as refused with their batch when they can't be. So
//!
//! ```text
//!  records in  =  kept, changed or dropped by the module  +  left out because it failed on them  +  refused with their batch
//! ```
//!
//! and the failures of all kinds together are the batches on which it failed. Where a module makes several records of one, more of them come
//! out than went in.
//!
//! Counting takes a few atomic additions for a batch, none for a record, and no lock.

mod log;
mod times;

pub(crate) use log::{Failure, KeptLog, Line, ModuleLog, Said};

use crate::{error::EngineError, transform::Difference};
use millpond_protocol::{
    error::ErrorCode,
    message::{AttachmentStatus, AttachmentWork},
};
use parking_lot::Mutex;
use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};
use times::Times;

/// What a module in one place has done since the broker started, and the end of its log.
#[derive(Debug, Default)]
pub(crate) struct AttachmentMeters {
    records_in: AtomicU64,
    records_out: AtomicU64,
    records_dropped: AtomicU64,
    records_changed: AtomicU64,
    records_skipped: AtomicU64,
    records_dead_lettered: AtomicU64,
    records_rejected: AtomicU64,
    batches: AtomicU64,
    /// One for each of [`FAILURE_KINDS`], and one for all others.
    failures: [AtomicU64; FAILURE_KINDS.len() + 1],
    times: Times,
    memory_bytes_peak: AtomicU64,
    failure_logged_at: Mutex<Option<Instant>>,
    pub(crate) log: ModuleLog,
}

impl AttachmentMeters {
    /// A batch of so many records went through.
    pub(crate) fn passed(&self, records_in: u32, difference: &Difference, took: Duration) {
        self.count(records_in, difference, took);
    }

    /// The module failed on a batch, which was refused as a whole.
    pub(crate) fn refused(&self, records_in: u32, error: &EngineError, took: Duration) {
        add(&self.records_rejected, records_in.into());
        self.failed(error);
        self.count(records_in, &Difference::default(), took);
    }

    /// The module failed on a batch, of which so many records were skipped. What became of the others is in the difference, or they are
    /// dead letters.
    pub(crate) fn taken_apart(&self, records_in: u32, error: &EngineError, skipped: u64, others: &Difference, took: Duration) {
        add(&self.records_skipped, skipped);
        self.failed(error);
        self.count(records_in, others, took);
    }

    /// So many dead letters are stored; or are not, and their batch is refused.
    pub(crate) fn dead_letters(&self, letters: u64, is_stored: bool) {
        add(if is_stored { &self.records_dead_lettered } else { &self.records_rejected }, letters);
    }

    /// An instance had so much memory. Gives the most that any had.
    pub(crate) fn note_memory(&self, bytes: u64) -> u64 {
        self.memory_bytes_peak.fetch_max(bytes, Ordering::Relaxed).max(bytes)
    }

    /// Batches on which the module failed.
    pub(crate) fn failures(&self) -> u64 {
        self.failures.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    /// Whether the broker's log is to be told of a failure now: once a second, for a producer can bring about any number of them.
    pub(crate) fn is_failure_told(&self, now: Instant) -> bool {
        let mut logged_at = self.failure_logged_at.lock();
        let is_told = logged_at.is_none_or(|at| now.saturating_duration_since(at) >= FAILURE_LOG_INTERVAL);
        if is_told {
            *logged_at = Some(now);
        }
        is_told
    }

    /// Fills in what it knows. A list of topics gets no more than the counts.
    pub(crate) fn tell(&self, status: &mut AttachmentStatus, is_list: bool) {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let dead_lettered = read(&self.records_dead_lettered);
        status.records_in = read(&self.records_in);
        status.records_out = read(&self.records_out);
        status.records_dropped = read(&self.records_dropped);
        status.records_changed = read(&self.records_changed);
        status.records_failed = read(&self.records_skipped).saturating_add(dead_lettered);
        status.batches = read(&self.batches);
        status.failures = self.failures();
        let names = FAILURE_KINDS.iter().map(|kind| kind.name()).chain([OTHER_FAILURES]);
        let kinds = names.zip(&self.failures).map(|(name, count)| (name.to_owned(), read(count)));
        status.work = AttachmentWork {
            records_rejected: read(&self.records_rejected),
            records_dead_lettered: dead_lettered,
            failures_by_kind: if is_list { BTreeMap::new() } else { kinds.collect() },
            memory_bytes_peak: status.work.memory_bytes_peak,
            busy_ms: status.work.busy_ms,
            batch_times: (!is_list).then(|| self.times.read()),
        };
    }

    fn failed(&self, error: &EngineError) {
        let code = error.code();
        let kind = FAILURE_KINDS.iter().position(|kind| *kind == code).unwrap_or(FAILURE_KINDS.len());
        add(&self.failures[kind], 1);
    }

    fn count(&self, records_in: u32, difference: &Difference, took: Duration) {
        add(&self.batches, 1);
        add(&self.records_in, records_in.into());
        add(&self.records_out, difference.records_out);
        add(&self.records_dropped, difference.dropped);
        add(&self.records_changed, difference.changed);
        self.times.add(took);
    }
}

fn add(counter: &AtomicU64, more: u64) {
    counter.fetch_add(more, Ordering::Relaxed);
}

/// The kinds of failure that are counted by themselves: what a module can do wrong.
const FAILURE_KINDS: [ErrorCode; 5] =
    [ErrorCode::GuestFailed, ErrorCode::GuestTrapped, ErrorCode::GuestTimedOut, ErrorCode::GuestOutOfMemory, ErrorCode::GuestOutputInvalid];

/// What is not the module's: it could not be loaded, or all instances were in use.
const OTHER_FAILURES: &str = "other";

/// How often the broker's log is told that a module fails.
const FAILURE_LOG_INTERVAL: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::FailedAt;
    use millpond_plugin::PluginError;
    use millpond_protocol::message::AttachPoint;
    use std::sync::Arc;

    fn error(source: PluginError) -> EngineError {
        EngineError::Guest { topic: Arc::from("t"), module: Arc::from("m"), at: FailedAt::Somewhere, source: Arc::new(source) }
    }

    fn told(meters: &AttachmentMeters, is_list: bool) -> AttachmentStatus {
        let mut status = AttachmentStatus::new("m", AttachPoint::Produce);
        meters.tell(&mut status, is_list);
        status
    }

    #[test]
    fn every_record_and_every_batch_is_counted_once() {
        let meters = AttachmentMeters::default();
        let took = Duration::from_millis(2);
        meters.passed(10, &Difference { records_out: 7, dropped: 3, changed: 2 }, took);
        let trap = error(PluginError::Trapped { reason: String::new(), backtrace: String::new() });
        let others = Difference { records_out: 4, dropped: 1, changed: 0 };
        meters.taken_apart(6, &trap, 1, &others, took);
        meters.taken_apart(7, &trap, 0, &others, took);
        meters.dead_letters(2, true);
        for (source, records) in [
            (PluginError::TimedOut { limit: took, backtrace: String::new() }, 1),
            (PluginError::OutOfMemory { limit_bytes: 1, backtrace: String::new() }, 2),
            (PluginError::TableFull { limit_elements: 1, backtrace: String::new() }, 3),
            (PluginError::OutputTooLarge { limit_bytes: 1 }, 4),
            (PluginError::Guest { message: String::new(), record_index: None }, 5),
            (PluginError::Busy { limit: 1 }, 6),
        ] {
            meters.refused(records, &error(source), took);
        }
        let status = told(&meters, false);
        let work = &status.work;
        assert_eq!((status.records_in, status.records_out, status.records_dropped, status.records_changed), (44, 15, 5, 2));
        assert_eq!((status.records_failed, work.records_dead_lettered, work.records_rejected), (3, 2, 21));
        assert_eq!(status.records_in, status.records_out + status.records_dropped + status.records_failed + work.records_rejected);
        let kinds: Vec<_> = work.failures_by_kind.iter().map(|(kind, count)| (kind.as_str(), *count)).collect();
        let expected = [
            ("guest_failed", 1),
            ("guest_out_of_memory", 2),
            ("guest_output_invalid", 1),
            ("guest_timed_out", 1),
            ("guest_trapped", 2),
            ("other", 1),
        ];
        assert_eq!((kinds.as_slice(), status.failures, status.batches), (&expected[..], 8, 9));
        let times = work.batch_times.as_ref().expect("they are there");
        assert_eq!((times.batches, times.sum_us, times.within_us(100)), (9, 18_000, Some(2_500)));
        let listed = told(&meters, true);
        assert_eq!((listed.failures, listed.work.records_rejected, listed.work.batch_times), (8, 21, None));
        assert!(listed.work.failures_by_kind.is_empty());
    }

    #[test]
    fn the_log_is_told_of_a_failure_once_a_second() {
        let (meters, start) = (AttachmentMeters::default(), Instant::now());
        let told: Vec<_> = [0, 1, 999, 1_000, 1_001, 2_500].map(|ms| meters.is_failure_told(start + Duration::from_millis(ms))).into();
        assert_eq!(told, [true, false, false, true, false, true]);
    }
}

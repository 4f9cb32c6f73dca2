//! The end of the log of one attachment: the last lines that its module wrote, and how it failed, in the order in which they came.
//!
//! ```text
//!   number    117   118   119   120   121        lines are counted from 0
//!            ┌─────┬─────┬─────┬─────┬─────┐
//!    gone <──│info │info │error│info │warn │<── the next one is 122
//!            └─────┴─────┴─────┴─────┴─────┘
//!             at most LINES_MAX and BYTES_MAX
//! ```
//!
//! Who reads it names the number that comes next; if that line is gone already, the one that is found says how many are lost. Readers hold the
//! lock for one line at a time, and no line is copied.

use millpond_plugin::{GuestLine, LogSink};
use millpond_protocol::message::{BatchCoordinates, LogLevel};
use parking_lot::Mutex;
use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use super::AttachmentMeters;
use crate::clock::{Clock, SystemClock};

/// The last lines of one attachment.
#[derive(Debug)]
pub(crate) struct ModuleLog {
    /// No other log has it, also not one after a restart.
    pub(crate) id: u64,
    ring: Mutex<Ring>,
}

/// What goes into a line.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) level: LogLevel,
    pub(crate) partition: Option<u32>,
    /// Of the module.
    pub(crate) version: u32,
    pub(crate) message: String,
}

/// A line that is kept.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) number: u64,
    /// By the broker's clock.
    pub(crate) at_ms: i64,
    pub(crate) said: Said,
    pub(crate) failure: Option<Failure>,
}

/// What a line about a failure has beside its words.
#[derive(Debug, Default)]
pub(crate) struct Failure {
    pub(crate) code: &'static str,
    pub(crate) batch: BatchCoordinates,
    pub(crate) backtrace: Option<String>,
    /// Failures before it that have no line.
    pub(crate) left_out: u64,
}

#[derive(Debug, Default)]
struct Ring {
    lines: VecDeque<Arc<Line>>,
    /// Of all that are there.
    bytes: usize,
    /// The number of the next line.
    next: u64,
    failures: Failures,
}

/// How many failures have had their lines lately.
#[derive(Debug, Default)]
struct Failures {
    since: Option<Instant>,
    count: u32,
    left_out: u64,
}

impl Default for ModuleLog {
    fn default() -> Self {
        ModuleLog { id: rand::random(), ring: Mutex::default() }
    }
}

impl ModuleLog {
    /// Adds a line of the module.
    pub(crate) fn add(&self, at_ms: i64, said: Said) {
        self.ring.lock().push(at_ms, said, None);
    }

    /// Adds a line about a failure, or counts it where there were many within a second: they must not push all else out.
    pub(crate) fn add_failure(&self, at_ms: i64, now: Instant, said: Said, failure: Failure) {
        let mut ring = self.ring.lock();
        if let Some(left_out) = ring.failures.admit(now) {
            ring.push(at_ms, said, Some(Failure { left_out, ..failure }));
        }
    }

    /// The number of the next line.
    pub(crate) fn end(&self) -> u64 {
        self.ring.lock().next
    }

    /// The first line with this number or a higher one.
    pub(crate) fn at_or_behind(&self, number: u64) -> Option<Arc<Line>> {
        let ring = self.ring.lock();
        let index = number.saturating_sub(ring.first());
        ring.lines.get(usize::try_from(index).ok()?).map(Arc::clone)
    }

    /// The last line with a lower number.
    pub(crate) fn before(&self, number: u64) -> Option<Arc<Line>> {
        let ring = self.ring.lock();
        let index = number.min(ring.next).checked_sub(ring.first())?.checked_sub(1)?;
        ring.lines.get(usize::try_from(index).ok()?).map(Arc::clone)
    }
}

impl Ring {
    /// The number of the oldest line that is there, or of the next one where none is.
    fn first(&self) -> u64 {
        self.next - self.lines.len() as u64
    }

    fn push(&mut self, at_ms: i64, said: Said, failure: Option<Failure>) {
        let line = Line { number: self.next, at_ms, said, failure };
        self.next += 1;
        self.bytes += line.bytes();
        self.lines.push_back(Arc::new(line));
        while self.lines.len() > LINES_MAX || self.bytes > BYTES_MAX {
            let Some(oldest) = self.lines.pop_front() else { break };
            self.bytes -= oldest.bytes();
        }
    }
}

impl Line {
    /// What counts against [`BYTES_MAX`].
    pub(crate) fn bytes(&self) -> usize {
        let backtrace = self.failure.as_ref().and_then(|failure| failure.backtrace.as_ref()).map_or(0, String::len);
        LINE_OVERHEAD_BYTES + self.said.message.len() + backtrace
    }
}

impl Failures {
    /// Whether one more has its line; then how many before it had none.
    fn admit(&mut self, now: Instant) -> Option<u64> {
        if self.since.is_none_or(|since| now.saturating_duration_since(since) >= FAILURE_INTERVAL) {
            (self.since, self.count) = (Some(now), 0);
        }
        self.count = self.count.saturating_add(1);
        if self.count > FAILURES_PER_INTERVAL_MAX {
            self.left_out += 1;
            return None;
        }
        Some(std::mem::take(&mut self.left_out))
    }
}

/// Keeps what the guests of one version write.
#[derive(Debug)]
pub(crate) struct KeptLog {
    pub(crate) meters: Arc<AttachmentMeters>,
    pub(crate) version: u32,
}

impl LogSink for KeptLog {
    fn write(&self, line: GuestLine<'_>) {
        let GuestLine { level, partition, message } = line;
        // By the machine's clock, as the broker's own log.
        self.meters.log.add(SystemClock.now_ms(), Said { level, partition, version: self.version, message: message.to_owned() });
    }
}

/// The most lines that are kept of one attachment.
pub(crate) const LINES_MAX: usize = 512;

/// The most bytes of lines that are kept of one attachment: as many as the smallest memory of one instance has.
pub(crate) const BYTES_MAX: usize = 64 << 10;

/// What a line takes beside its text.
const LINE_OVERHEAD_BYTES: usize = 128;

/// So many failures have lines of their own in each [`FAILURE_INTERVAL`].
const FAILURES_PER_INTERVAL_MAX: u32 = 5;

const FAILURE_INTERVAL: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use millpond_log::sim::Random;

    fn said(message: String) -> Said {
        Said { level: LogLevel::Info, partition: None, version: 1, message }
    }

    fn kept(log: &ModuleLog) -> Vec<Arc<Line>> {
        let mut number = 0;
        std::iter::from_fn(|| {
            let line = log.at_or_behind(number)?;
            number = line.number + 1;
            Some(line)
        })
        .collect()
    }

    #[test]
    fn the_last_lines_are_kept_within_both_bounds_and_each_is_found_from_either_side() {
        let mut random = Random::new(4);
        let log = ModuleLog::default();
        assert!(log.before(u64::MAX).is_none() && log.at_or_behind(0).is_none());
        for number in 0..5_000_u64 {
            let length = usize::try_from(random.below(if number < 2_500 { 4 } else { 5_000 })).expect("small");
            let backtrace = (number % 7 == 0).then(|| "b".repeat(length));
            let at_ms = number.cast_signed();
            if let Some(backtrace) = backtrace {
                let failure = Failure { backtrace: Some(backtrace), ..Failure::default() };
                let now = Instant::now() + FAILURE_INTERVAL * u32::try_from(number).expect("small");
                log.add_failure(at_ms, now, said("f".to_owned()), failure);
            } else {
                log.add(at_ms, said("x".repeat(length)));
            }
            let lines = kept(&log);
            assert_eq!(lines.last().map(|line| line.number), Some(number));
            assert!(lines.len() <= LINES_MAX && lines.iter().map(|line| line.bytes()).sum::<usize>() <= BYTES_MAX);
            assert_eq!(log.ring.lock().bytes, lines.iter().map(|line| line.bytes()).sum::<usize>());
            let first = lines[0].number;
            assert!(number < 20 || first > 0 || lines.len() == usize::try_from(number + 1).expect("small"), "only what has no room goes");
            assert!(lines.iter().zip(first..).all(|(line, expected)| line.number == expected));
            assert!(log.before(first).is_none());
            assert_eq!(log.before(number).map(|line| line.number), (number > first).then(|| number - 1));
            assert_eq!(log.before(u64::MAX).map(|line| line.number), Some(number));
        }
        assert_eq!(log.end(), 5_000);
    }

    #[test]
    fn failures_do_not_push_all_else_out_and_those_without_a_line_are_counted() {
        let (log, start) = (ModuleLog::default(), Instant::now());
        log.add(1, said("a word".to_owned()));
        for number in 0..1_000 {
            log.add_failure(2, start + Duration::from_micros(number), said(number.to_string()), Failure::default());
        }
        log.add_failure(3, start + FAILURE_INTERVAL, said("later".to_owned()), Failure::default());
        let lines = kept(&log);
        let words: Vec<_> = lines.iter().map(|line| line.said.message.as_str()).collect();
        assert_eq!(words, ["a word", "0", "1", "2", "3", "4", "later"]);
        let left_out: Vec<_> = lines.iter().filter_map(|line| line.failure.as_ref()).map(|failure| failure.left_out).collect();
        assert_eq!(left_out, [0, 0, 0, 0, 0, 995]);
    }
}

//! Pausing a module that fails on everything, rather than burning the processor for it.
//!
//! ```text
//!            10 batches in a row of which nothing goes through               the time is over
//!   running ────────────────────────────────────────────────────> paused ──────────────────────> one batch tries
//!      ^                                                             ^                                │      │
//!      │                                                             └──── it fails: twice as long ───┘      │
//!      └───────────────────────────────────────────────────────────────────── something goes through ───────┘
//! ```
//!
//! Only what costs time counts: a trap, a time limit, a memory limit, output that is none. A module that refuses a record in words does its
//! work. While it is paused, batches are refused with the reason, whatever becomes of failed records otherwise: it is the module that is
//! wrong then, and not they. Producers may send them again.

use crate::error::EngineError;
use millpond_plugin::PluginError;
use parking_lot::Mutex;
use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

/// Of one attachment.
#[derive(Debug, Default)]
pub(crate) struct Breaker {
    /// In a row. Beside the lock, for the batches of a module that works.
    failures: AtomicU32,
    pause: Mutex<Option<Pause>>,
}

#[derive(Clone, Debug)]
struct Pause {
    until: Instant,
    length: Duration,
    /// A batch tries whether it works again.
    is_tried: bool,
    reason: String,
}

/// Why a batch does not get to the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Paused {
    pub(super) failures: u32,
    pub(super) seconds: u64,
    pub(super) reason: String,
}

impl Breaker {
    /// Whether a batch may go to the module now.
    pub(super) fn admit(&self, now: Instant) -> Result<(), Paused> {
        if self.failures.load(Ordering::Relaxed) < FAILURES_MAX {
            return Ok(());
        }
        let mut pause = self.pause.lock();
        match &mut *pause {
            Some(pause) if now >= pause.until => {
                // If nothing is heard of this one, another may try after the same time again.
                (pause.is_tried, pause.until) = (true, now + pause.length);
                Ok(())
            }
            Some(pause) => Err(self.paused(pause, now)),
            None => Ok(()),
        }
    }

    /// Something went through.
    pub(crate) fn worked(&self) {
        if self.failures.load(Ordering::Relaxed) > 0 {
            *self.pause.lock() = None;
            self.failures.store(0, Ordering::Relaxed);
        }
    }

    /// Nothing of a batch went through. Says for how long the module is paused, if it has just come to that.
    pub(super) fn failed(&self, error: &EngineError, now: Instant) -> Option<Duration> {
        match kind_of(error) {
            Kind::CostsTime => {}
            Kind::Word => {
                self.worked();
                return None;
            }
            Kind::NotItsOwn => return None,
        }
        let failures = self.failures.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        if failures < FAILURES_MAX {
            return None;
        }
        let mut pause = self.pause.lock();
        let length = match &*pause {
            // Others were on their way when the first one paused it.
            Some(pause) if !pause.is_tried => return None,
            Some(pause) => (pause.length * 2).min(PAUSE_MAX),
            None => PAUSE_MIN,
        };
        *pause = Some(Pause { until: now + length, length, is_tried: false, reason: error.to_wire().message });
        Some(length)
    }

    /// Why it does not run now; none where it does, and where the next batch would try it again.
    pub(super) fn reason(&self, now: Instant) -> Option<String> {
        let pause = self.pause.lock();
        let paused = self.paused(pause.as_ref().filter(|pause| now < pause.until)?, now);
        Some(format!("paused for {} s after {} batches in a row failed: {}", paused.seconds, paused.failures, paused.reason))
    }

    fn paused(&self, pause: &Pause, now: Instant) -> Paused {
        let left = pause.until.saturating_duration_since(now);
        Paused {
            failures: self.failures.load(Ordering::Relaxed),
            seconds: left.as_secs() + u64::from(left.subsec_nanos() > 0),
            reason: pause.reason.clone(),
        }
    }
}

#[derive(Clone, Copy)]
enum Kind {
    CostsTime,
    /// The module has said no.
    Word,
    /// The broker had no room for it, or stopped it, or it is not there.
    NotItsOwn,
}

fn kind_of(error: &EngineError) -> Kind {
    match error {
        EngineError::Guest { source, .. } => match **source {
            PluginError::Guest { .. } => Kind::Word,
            PluginError::Busy { .. } | PluginError::Interrupted => Kind::NotItsOwn,
            _ => Kind::CostsTime,
        },
        EngineError::GuestOutput { .. } => Kind::CostsTime,
        _ => Kind::NotItsOwn,
    }
}

/// Whether the records may be the cause, so that it is worth looking for them.
pub(crate) fn is_of_records(error: &EngineError) -> bool {
    !matches!(kind_of(error), Kind::NotItsOwn)
}

/// Whether it may be that there are only too many records: a part of them may pass.
pub(crate) fn is_of_amount(error: &EngineError) -> bool {
    match error {
        EngineError::Guest { source, .. } => matches!(
            **source,
            PluginError::TimedOut { .. }
                | PluginError::OutOfMemory { .. }
                | PluginError::TableFull { .. }
                | PluginError::OutputTooLarge { .. }
        ),
        _ => false,
    }
}

/// So many batches in a row.
const FAILURES_MAX: u32 = 10;

/// The first pause.
const PAUSE_MIN: Duration = Duration::from_secs(1);

/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_mins(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::FailedAt;
    use std::sync::Arc;

    fn error(source: PluginError) -> EngineError {
        EngineError::Guest { topic: Arc::from("t"), module: Arc::from("m"), at: FailedAt::Somewhere, source: Arc::new(source) }
    }

    fn trap() -> EngineError {
        error(PluginError::Trapped { reason: "unreachable".to_owned(), backtrace: String::new() })
    }

    #[test]
    fn after_ten_failures_it_is_paused_and_each_trial_that_fails_doubles_the_pause() {
        let (breaker, mut now) = (Breaker::default(), Instant::now());
        for number in 1..10 {
            breaker.admit(now).expect("it may run");
            assert_eq!(breaker.failed(&trap(), now), None, "{number}");
        }
        assert_eq!(breaker.failed(&trap(), now), Some(Duration::from_secs(1)));
        for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
            let paused = breaker.admit(now).expect_err("it is paused");
            assert_eq!(paused.seconds, seconds);
            assert!(paused.reason.contains("failed") && breaker.reason(now).is_some_and(|reason| reason.contains("in a row")));
            assert_eq!(breaker.failed(&trap(), now), None, "one that was on its way");
            now += Duration::from_secs(seconds);
            assert_eq!(breaker.reason(now), None, "no batch would be refused");
            breaker.admit(now).expect("one may try");
            breaker.admit(now).expect_err("and no other meanwhile");
            assert!(breaker.failed(&trap(), now).is_some());
        }
        now += Duration::from_mins(1);
        breaker.admit(now).expect("one may try");
        breaker.worked();
        for _ in 0..9 {
            breaker.admit(now).expect("it runs");
            assert_eq!(breaker.failed(&trap(), now), None);
        }
        assert_eq!(breaker.reason(now), None);
    }

    #[test]
    fn a_module_that_refuses_in_words_and_one_without_a_free_instance_are_not_paused() {
        let (breaker, now) = (Breaker::default(), Instant::now());
        for _ in 0..100 {
            breaker.failed(&error(PluginError::Guest { message: "no".to_owned(), record_index: None }), now);
            breaker.failed(&error(PluginError::Busy { limit: 1 }), now);
            breaker.admit(now).expect("it may run");
        }
        // One that refuses between traps is at work.
        for _ in 0..100 {
            breaker.failed(&trap(), now);
            breaker.failed(&error(PluginError::Guest { message: "no".to_owned(), record_index: None }), now);
            breaker.admit(now).expect("it may run");
        }
    }
}

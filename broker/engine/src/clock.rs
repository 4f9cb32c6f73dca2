//! Time as the broker sees it, so that a test can say what time it is.

use std::{
    sync::{
        LazyLock,
        atomic::{AtomicI64, Ordering},
    },
    time::{Instant, SystemTime, UNIX_EPOCH},
};

/// The time by two clocks. The wall clock stamps acknowledgements, the monotonic one measures how old records are; nothing waits by
/// either.
pub trait Clock: Send + Sync + std::fmt::Debug + 'static {
    /// Milliseconds since 1970-01-01 UTC. May go backwards when someone sets the clock.
    fn now_ms(&self) -> i64;

    /// Milliseconds since some moment that is the same for the life of the process. Never goes back, whoever sets the clock.
    fn monotonic_ms(&self) -> i64;
}

/// The clock of the machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now_ms(&self) -> i64 {
        // A gateway without a battery boots in 1970, and one with a broken one before it; neither may stop the broker.
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }

    fn monotonic_ms(&self) -> i64 {
        static FIRST: LazyLock<Instant> = LazyLock::new(Instant::now);
        i64::try_from(FIRST.elapsed().as_millis()).unwrap_or(i64::MAX)
    }
}

/// A clock that stands still until it is told to move.
#[derive(Debug, Default)]
pub struct SimClock {
    now_ms: AtomicI64,
    monotonic_ms: AtomicI64,
}

impl SimClock {
    /// A clock that shows this time.
    pub fn at(now_ms: i64) -> SimClock {
        SimClock { now_ms: AtomicI64::new(now_ms), monotonic_ms: AtomicI64::new(0) }
    }

    /// Sets the wall clock forwards, backwards if `by_ms` is negative. No time passes.
    pub fn advance(&self, by_ms: i64) {
        self.now_ms.fetch_add(by_ms, Ordering::Relaxed);
    }

    /// Lets so much time pass, by both clocks.
    pub fn pass(&self, ms: u32) {
        self.now_ms.fetch_add(i64::from(ms), Ordering::Relaxed);
        self.monotonic_ms.fetch_add(i64::from(ms), Ordering::Relaxed);
    }
}

impl Clock for SimClock {
    fn now_ms(&self) -> i64 {
        self.now_ms.load(Ordering::Relaxed)
    }

    fn monotonic_ms(&self) -> i64 {
        self.monotonic_ms.load(Ordering::Relaxed)
    }
}

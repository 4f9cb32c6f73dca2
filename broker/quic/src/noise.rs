//! A lid on log lines that strangers can cause.
//!
//! Whoever reaches the port can make connections fail. One line a second tells an operator that it happens; the rest is counted.

use parking_lot::Mutex;
use std::time::{Duration, Instant};

/// Time between two lines.
const INTERVAL: Duration = Duration::from_secs(1);

/// Lets one line through in each interval and counts the others.
#[derive(Debug, Default)]
pub(crate) struct NoiseLimit {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    last: Option<Instant>,
    suppressed: u64,
}

impl NoiseLimit {
    /// `Some` if a line may be written now, with the number of lines that were kept back since the last one.
    pub(crate) fn permit(&self) -> Option<u64> {
        self.permit_at(Instant::now())
    }

    fn permit_at(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock();
        if state.last.is_some_and(|last| now.duration_since(last) < INTERVAL) {
            state.suppressed += 1;
            return None;
        }
        state.last = Some(now);
        Some(std::mem::take(&mut state.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_passes_in_each_interval_and_tells_how_many_did_not() {
        let limit = NoiseLimit::default();
        let start = Instant::now();
        assert_eq!(limit.permit_at(start), Some(0));
        assert_eq!(limit.permit_at(start + INTERVAL / 3), None);
        assert_eq!(limit.permit_at(start + INTERVAL / 2), None);
        assert_eq!(limit.permit_at(start + INTERVAL), Some(2));
        assert_eq!(limit.permit_at(start + INTERVAL * 3), Some(0));
    }
}

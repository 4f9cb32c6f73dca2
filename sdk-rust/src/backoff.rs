//! How long to wait before trying again.
//!
//! Exponential, with jitter so that a fleet of clients does not come back in step. Pure: randomness is an argument.

use std::time::Duration;

/// The first delay, before jitter.
pub(crate) const DELAY_MIN: Duration = Duration::from_millis(50);

/// The longest delay, before jitter. Short enough that a gateway is back soon after its network is.
pub(crate) const DELAY_MAX: Duration = Duration::from_secs(5);

/// The delays of one series of failures.
#[derive(Clone, Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The delay after one more failure: doubled each time, at most [`DELAY_MAX`], of which `random` (0 to 1) takes away up to half.
    pub(crate) fn next_delay(&mut self, random: f64) -> Duration {
        let doubled = DELAY_MIN.saturating_mul(1_u32.checked_shl(self.failures).unwrap_or(u32::MAX));
        self.failures = self.failures.saturating_add(1);
        doubled.min(DELAY_MAX).mul_f64(1.0 - random.clamp(0.0, 1.0) / 2.0)
    }

    /// [`Backoff::next_delay`] with randomness from the operating system.
    pub(crate) fn next(&mut self) -> Duration {
        self.next_delay(rand::random())
    }

    /// None for the first failure after a success, which may be tried again at once; then [`Backoff::next`].
    pub(crate) fn next_but_first(&mut self) -> Option<Duration> {
        if self.failures == 0 {
            self.failures = 1;
            return None;
        }
        Some(self.next())
    }

    /// It worked: the next failure is a first one.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_longest() {
        let mut backoff = Backoff::default();
        let delays: Vec<u128> = (0..9).map(|_| backoff.next_delay(0.0).as_millis()).collect();
        assert_eq!(delays, [50, 100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        backoff.reset();
        assert_eq!(backoff.next_delay(0.0), DELAY_MIN);
    }

    #[test]
    fn the_first_failure_after_a_success_can_be_free() {
        let mut backoff = Backoff::default();
        for _ in 0..2 {
            assert_eq!(backoff.next_but_first(), None);
            assert!(backoff.next_but_first().is_some() && backoff.next_but_first().is_some());
            backoff.reset();
        }
    }

    #[test]
    fn jitter_takes_away_at_most_half() {
        for random in [-1.0, 0.0, 0.3, 1.0, 7.0] {
            let delay = Backoff::default().next_delay(random);
            assert!((DELAY_MIN / 2..=DELAY_MIN).contains(&delay), "{random}: {delay:?}");
        }
    }

    #[test]
    fn a_thousand_failures_do_not_overflow() {
        let mut backoff = Backoff::default();
        for _ in 0..1000 {
            assert!(backoff.next() <= DELAY_MAX);
        }
    }
}

//! Failures that nobody has heard of: what a flush tells.
//!
//! Whoever awaits a [`super::Delivery`] and gets its error has heard of it, and is not told again. The records of a batch fail together and are
//! looked at one by one, so a batch is remembered until the last of its records was.

use super::pending::Pending;
use crate::error::Error;
use std::sync::Arc;

/// Failed batches that are remembered one by one; of what comes on top the first is told, whether somebody looks at it or not.
const BATCHES_MAX: usize = 64;

/// Batches that have failed since the last flush.
#[derive(Debug, Default)]
pub(super) struct Untold {
    batches: Vec<Failed>,
    beyond: Option<Error>,
}

#[derive(Debug)]
struct Failed {
    pending: Arc<Pending>,
    records: u32,
    error: Error,
}

impl Untold {
    /// A batch has failed, and its records are about to be told.
    pub(super) fn add(&mut self, pending: &Arc<Pending>, records: u32, error: &Error) {
        if self.batches.len() >= BATCHES_MAX {
            self.batches.retain(Failed::is_untold);
        }
        if self.batches.len() >= BATCHES_MAX {
            self.beyond.get_or_insert_with(|| error.clone());
        } else {
            self.batches.push(Failed { pending: Arc::clone(pending), records, error: error.clone() });
        }
    }

    /// The first failure that somebody has not heard of. All are forgotten.
    pub(super) fn take(&mut self) -> Option<Error> {
        let Untold { batches, beyond } = std::mem::take(self);
        batches.into_iter().find(Failed::is_untold).map(|failed| failed.error).or(beyond)
    }
}

impl Failed {
    fn is_untold(&self) -> bool {
        self.pending.looked_at() < self.records
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::producer::Delivery;

    fn failed(untold: &mut Untold, records: u32, name: &'static str) -> Vec<Delivery> {
        let pending = Arc::new(Pending::default());
        untold.add(&pending, records, &Error::Closed(name));
        pending.settle(Err(Error::Closed(name)));
        (0..records).map(|index| Delivery::new(Arc::clone(&pending), index)).collect()
    }

    fn told(untold: &mut Untold) -> Option<String> {
        untold.take().map(|error| error.to_string())
    }

    #[test]
    fn what_somebody_looked_at_is_not_told_and_what_nobody_did_is_told_once() {
        let mut untold = Untold::default();
        let (first, second) = (failed(&mut untold, 1, "first"), failed(&mut untold, 1, "second"));
        assert!(first[0].is_answered() && second[0].is_answered(), "that looks at nothing");
        assert!(first[0].try_get().is_some_and(|outcome| outcome.is_err()));
        assert!(told(&mut untold).is_some_and(|error| error.contains("second")));
        assert!(told(&mut untold).is_none());
    }

    #[test]
    fn a_batch_is_told_until_the_last_of_its_records_was_looked_at() {
        let mut untold = Untold::default();
        let deliveries = failed(&mut untold, 70, "batch");
        for delivery in &deliveries[..69] {
            // Twice is once.
            assert!(delivery.try_get().is_some() && delivery.clone().try_get().is_some());
        }
        assert!(told(&mut untold).is_some());
        let mut untold = Untold::default();
        let all: Vec<_> = failed(&mut untold, 70, "batch").iter().map(Delivery::try_get).collect();
        assert!(all.len() == 70 && told(&mut untold).is_none());
    }

    #[test]
    fn what_is_remembered_is_bounded_and_nothing_is_lost_by_that() {
        let mut untold = Untold::default();
        let mut kept: Vec<_> = (0..BATCHES_MAX).map(|_| failed(&mut untold, 1, "kept")).collect();
        drop(kept.pop().map(|last| last[0].try_get()));
        // In the place of the one that was looked at.
        kept.push(failed(&mut untold, 1, "kept"));
        assert_eq!((untold.batches.len(), untold.beyond.is_some()), (BATCHES_MAX, false));
        let beyond = failed(&mut untold, 1, "beyond");
        assert!(kept.iter().flatten().chain(&beyond).all(|delivery| delivery.try_get().is_some()));
        assert_eq!(untold.batches.len(), BATCHES_MAX);
        assert!(told(&mut untold).is_some_and(|error| error.contains("beyond")));
    }
}

//! The memory budget for batches on their way to the log.
//!
//! The front door reserves before it reads a batch from the network, so that a thousand producers can't send more than the broker
//! has room for: they wait, and their connections' flow control holds them back.

use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Semaphores count in `u32`, so memory is counted in KiB.
const UNIT_BYTES: usize = 1024;

/// A count of bytes that waits when it is used up, first come, first served.
#[derive(Clone, Debug)]
pub(crate) struct ByteBudget {
    units: Arc<Semaphore>,
    units_max: u32,
}

/// Some bytes of a budget, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Reserved {
    _permit: Option<OwnedSemaphorePermit>,
}

impl Reserved {
    /// None, for what goes on without a reservation.
    pub(crate) fn nothing() -> Reserved {
        Reserved { _permit: None }
    }
}

impl ByteBudget {
    pub(crate) fn new(bytes_max: usize) -> ByteBudget {
        let units_max = u32::try_from((bytes_max / UNIT_BYTES).clamp(1, Semaphore::MAX_PERMITS)).unwrap_or(u32::MAX);
        ByteBudget { units: Arc::new(Semaphore::new(units_max as usize)), units_max }
    }

    /// The whole budget, in bytes.
    pub(crate) fn bytes_max(&self) -> u64 {
        u64::from(self.units_max) * UNIT_BYTES as u64
    }

    /// What is taken of it at this moment, in bytes. Takes no lock.
    pub(crate) fn bytes_in_use(&self) -> u64 {
        self.bytes_max().saturating_sub(self.units.available_permits() as u64 * UNIT_BYTES as u64)
    }

    /// Waits for so many bytes. What is larger than the whole budget waits for the whole budget: it goes alone.
    pub(crate) fn reserve(&self, bytes: usize) -> impl Future<Output = Reserved> + Send + use<> {
        let units = u32::try_from(bytes.div_ceil(UNIT_BYTES).max(1)).unwrap_or(u32::MAX).min(self.units_max);
        let semaphore = Arc::clone(&self.units);
        // The semaphore is never closed, so the permit is always there.
        async move { Reserved { _permit: semaphore.acquire_many_owned(units).await.ok() } }
    }
}

/// Room in the broker's memory for one batch: taken before the batch is read, given back when it is answered.
#[derive(Clone, Debug)]
pub struct InflightPermit {
    // Shared by the parts of a batch that goes to several partitions.
    _reserved: Arc<Reserved>,
}

impl InflightPermit {
    pub(crate) fn new(reserved: Reserved) -> InflightPermit {
        InflightPermit { _reserved: Arc::new(reserved) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[tokio::test]
    async fn who_asks_for_more_than_is_left_waits_until_it_is_given_back() {
        let budget = ByteBudget::new(4096);
        let first = budget.reserve(4000).await;
        assert_eq!((budget.bytes_in_use(), budget.bytes_max()), (4096, 4096), "in whole KiB");
        let mut second = Box::pin(budget.reserve(1));
        assert!((&mut second).now_or_never().is_none());
        drop(first);
        drop(second.await);
        assert_eq!(budget.bytes_in_use(), 0);
    }

    #[tokio::test]
    async fn what_is_larger_than_the_budget_goes_alone_instead_of_never() {
        let budget = ByteBudget::new(4096);
        let all = budget.reserve(1 << 30).await;
        assert!(budget.reserve(1).now_or_never().is_none());
        drop(all);
        budget.reserve(1).await;
    }
}

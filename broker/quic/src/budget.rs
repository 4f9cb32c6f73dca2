//! How connections share the memory for bytes in transit.
//!
//! A window that keeps a fast link busy is megabytes; a thousand of them are more than a gateway has. So windows are not a constant:
//! a connection takes a third of what is left of the budget when its handshake is complete, and gives it back when it goes. The
//! first few get windows for full throughput, a crowd gets small ones, and the sum stays under the budget plus [`SHARE_BYTES_MIN`]
//! for each connection.
//!
//! A part of the budget is kept out of the shares, for what passes: windows that are wider while streams wait for memory (see
//! [`crate::window`]), and long answers. Whoever finds nothing left there is told that the broker is overloaded.
//!
//! Until then a connection has [`INITIAL_WINDOW_BYTES`]. That is what the handshake promises, and it must be the same for all: a
//! client that resumes a session sends early data by the promise of its last connection (RFC 9000, section 7.4.1).

use parking_lot::Mutex;
use std::sync::Arc;

/// The windows of a connection before its handshake is complete.
pub(crate) const INITIAL_WINDOW_BYTES: u64 = 64 << 10;

/// What every connection gets, however many there are: windows with which it works, slowly on long paths.
const SHARE_BYTES_MIN: u64 = SHARE_PARTS * INITIAL_WINDOW_BYTES;

/// What no connection gets more than: windows of 16 MiB carry 1 GB/s at 16 ms of round trip.
const SHARE_BYTES_MAX: u64 = 48 << 20;

/// A share is for receiving, for sending, and for pushing, in equal parts.
const SHARE_PARTS: u64 = 3;

/// The part of what is left for shares that the next connection takes.
const SHARE_DIVISOR: u64 = 3;

/// The part of the budget that shares leave alone.
const SPARE_DIVISOR: u64 = 4;

/// The budget of all connections.
#[derive(Debug)]
pub(crate) struct TransitBudget {
    /// Bytes that nobody has taken.
    left_bytes: Mutex<u64>,
    /// Bytes that no share is made of.
    spare_bytes: u64,
}

/// One connection's part of the budget, until it is dropped.
#[derive(Debug)]
pub(crate) struct TransitShare {
    budget: Arc<TransitBudget>,
    /// What it may use.
    bytes: u64,
    /// What it took from the budget: less than `bytes` when the budget was empty.
    taken_bytes: u64,
}

/// Some bytes of the budget for a while, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct TransitRoom {
    budget: Arc<TransitBudget>,
    bytes: u64,
}

impl TransitBudget {
    pub(crate) fn new(bytes_max: u64) -> Arc<TransitBudget> {
        Arc::new(TransitBudget { left_bytes: Mutex::new(bytes_max), spare_bytes: bytes_max / SPARE_DIVISOR })
    }

    /// A share for one more connection.
    pub(crate) fn take(self: &Arc<Self>) -> TransitShare {
        let mut left_bytes = self.left_bytes.lock();
        let for_shares_bytes = left_bytes.saturating_sub(self.spare_bytes);
        let bytes = (for_shares_bytes / SHARE_DIVISOR).clamp(SHARE_BYTES_MIN, SHARE_BYTES_MAX);
        let taken_bytes = bytes.min(for_shares_bytes);
        *left_bytes -= taken_bytes;
        TransitShare { budget: Arc::clone(self), bytes, taken_bytes }
    }

    /// Room for nothing yet.
    pub(crate) fn room(self: &Arc<Self>) -> TransitRoom {
        TransitRoom { budget: Arc::clone(self), bytes: 0 }
    }
}

impl TransitRoom {
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Makes it room for so many bytes, or leaves it as it is and says false: the budget has not that much left.
    pub(crate) fn resize(&mut self, bytes: u64) -> bool {
        let mut left_bytes = self.budget.left_bytes.lock();
        let Some(left) = (*left_bytes + self.bytes).checked_sub(bytes) else { return false };
        *left_bytes = left;
        self.bytes = bytes;
        true
    }
}

impl Drop for TransitRoom {
    fn drop(&mut self) {
        *self.budget.left_bytes.lock() += self.bytes;
    }
}

impl TransitShare {
    /// Bytes that the client may have sent and the broker not yet read.
    pub(crate) fn receive_bytes(&self) -> u64 {
        self.bytes / SHARE_PARTS
    }

    /// Bytes that the broker may have sent and the client not yet acknowledged.
    pub(crate) fn send_bytes(&self) -> u64 {
        self.bytes / SHARE_PARTS
    }

    /// Bytes that may have been read from the log and not yet been taken by QUIC.
    pub(crate) fn push_bytes(&self) -> u64 {
        self.bytes / SHARE_PARTS
    }
}

impl Drop for TransitShare {
    fn drop(&mut self) {
        *self.budget.left_bytes.lock() += self.taken_bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUDGET_BYTES: u64 = 128 << 20;

    #[test]
    fn the_sum_of_all_shares_stays_bounded() {
        let budget = TransitBudget::new(BUDGET_BYTES);
        let shares: Vec<_> = (0..1000).map(|_| budget.take()).collect();
        assert_eq!(shares[0].bytes, 32 << 20);
        assert_eq!(shares[999].bytes, SHARE_BYTES_MIN);
        let sum: u64 = shares.iter().map(|share| share.bytes).sum();
        assert!(sum <= BUDGET_BYTES + 1000 * SHARE_BYTES_MIN, "{sum} bytes are shared out");
    }

    #[test]
    fn what_a_connection_took_comes_back() {
        let budget = TransitBudget::new(BUDGET_BYTES);
        let shares: Vec<_> = (0..1000).map(|_| budget.take()).collect();
        drop(shares);
        assert_eq!(*budget.left_bytes.lock(), BUDGET_BYTES);
    }

    #[test]
    fn room_for_what_passes_is_left_however_many_connections_there_are() {
        let budget = TransitBudget::new(BUDGET_BYTES);
        let _shares: Vec<_> = (0..1000).map(|_| budget.take()).collect();
        let mut room = budget.room();
        assert!(room.resize(BUDGET_BYTES / SPARE_DIVISOR), "{} bytes are left", budget.left_bytes.lock());
    }

    #[test]
    fn room_grows_as_far_as_the_budget_goes_and_comes_back() {
        let budget = TransitBudget::new(BUDGET_BYTES);
        let (mut first, mut second) = (budget.room(), budget.room());
        assert!(first.resize(BUDGET_BYTES - 1) && second.resize(1));
        assert!(!second.resize(2));
        assert_eq!(second.bytes(), 1, "it stays as it is");
        assert!(first.resize(0) && second.resize(BUDGET_BYTES));
        drop(second);
        assert_eq!(*budget.left_bytes.lock(), BUDGET_BYTES);
    }
}

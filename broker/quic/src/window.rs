//! How much a client may have sent that the broker has not read: the window of its connection, wider while streams wait.
//!
//! A stream that waits for memory is not read meanwhile, so what its client sends on it stays in the connection's window. Where many
//! wait, they fill it. A stream that has been given its memory, but has not got all its bytes yet, then never gets them and never
//! gives the memory back: everything stands still until somebody's patience ends.
//!
//! ```text
//!  window of the share            extra, from the transit budget
//! +------------------------------+------------------------------------------+
//! | unread bytes of the streams that wait, a stream's window each |  free   | <- always room for whoever does not wait
//! +------------------------------+------------------------------------------+
//! ```
//!
//! So the window grows with the streams that wait, by memory that the budget has left. Where it has none left, the stream that would
//! have to wait is refused instead, and its client comes again. Whoever does not wait always gets on, and memory stays bounded.
//!
//! If all the streams of a connection that are in the middle of a frame wait, one of them may do so without extra: the first that
//! gets its memory is read. Therefore a connection with one busy stream never needs any.
//!
//! A client can't be told to send less than it has been promised: a window that is made smaller is so only when as many bytes have
//! been read as it shrank by (RFC 9000, section 4.1). Until then those bytes are owed, and the budget gets them back only as they are
//! read. So that many short waits don't owe more with each, the window shrinks frame by frame, not at the end of a wait.

use crate::{
    budget::{INITIAL_WINDOW_BYTES, TransitRoom},
    transport::{STREAM_WINDOW_BYTES, bytes},
};
use millpond_protocol::error::{ErrorCode, WireError};
use parking_lot::Mutex;
use quinn::Connection;
use std::{future::poll_fn, pin::pin, task::Poll};
use tokio::task::unconstrained;

/// The receive window of one connection.
#[derive(Debug)]
pub(crate) struct ReceiveWindow {
    connection: Connection,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// What the connection has in any case.
    share_bytes: u64,
    /// What the client was promised on top, because streams wait or did.
    extra: TransitRoom,
    /// What the window has shrunk by already, out of `extra`, and is still to be read.
    owed_bytes: u64,
    /// Streams in the middle of a frame, from its header to its last byte.
    busy: u64,
    /// Those among them that wait for memory.
    waiting: u64,
}

/// A stream in the middle of a frame.
#[derive(Debug)]
pub(crate) struct Busy<'a> {
    window: &'a ReceiveWindow,
    frame_bytes: u64,
}

/// A stream that waits.
struct Waiting<'a>(&'a ReceiveWindow);

impl ReceiveWindow {
    pub(crate) fn new(connection: Connection, extra: TransitRoom) -> ReceiveWindow {
        let state = State { share_bytes: INITIAL_WINDOW_BYTES, extra, owed_bytes: 0, busy: 0, waiting: 0 };
        ReceiveWindow { connection, state: Mutex::new(state) }
    }

    /// The connection has been given its share.
    pub(crate) fn set_share(&self, share_bytes: u64) {
        let mut state = self.state.lock();
        state.share_bytes = share_bytes;
        self.apply(&state);
    }

    /// Waits for `memory`, which is for a frame of `frame_bytes`, without holding up the other streams of the connection. The guard
    /// is for [`Busy::done`] when the frame has been read.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::Overloaded`] if it would have to wait and there is no room for the bytes that come meanwhile.
    pub(crate) async fn obtain<T>(&self, frame_bytes: usize, memory: impl Future<Output = T>) -> Result<(T, Busy<'_>), WireError> {
        let busy = self.begin(frame_bytes as u64);
        // Whether it has to wait is for the memory to say, not for the scheduler.
        let mut memory = pin!(unconstrained(memory));
        if let Poll::Ready(obtained) = poll_fn(|context| Poll::Ready(memory.as_mut().poll(context))).await {
            return Ok((obtained, busy));
        }
        let _waiting = self.wait().ok_or_else(no_room)?;
        Ok((memory.await, busy))
    }

    fn begin(&self, frame_bytes: u64) -> Busy<'_> {
        let mut state = self.state.lock();
        state.busy += 1;
        // If there is no room: who waits now does not wait for this stream, which has nothing yet.
        self.grow(&mut state);
        Busy { window: self, frame_bytes }
    }

    fn wait(&self) -> Option<Waiting<'_>> {
        let mut state = self.state.lock();
        state.waiting += 1;
        if self.grow(&mut state) {
            return Some(Waiting(self));
        }
        state.waiting -= 1;
        None
    }

    /// Widens the window to what is needed; false if the budget has not that much.
    fn grow(&self, state: &mut State) -> bool {
        let missing_bytes = state.wanted_bytes().saturating_sub(state.usable_bytes());
        if missing_bytes == 0 {
            return true;
        }
        let promised_bytes = state.extra.bytes() + missing_bytes;
        let has_grown = state.extra.resize(promised_bytes);
        if has_grown {
            self.apply(state);
        }
        has_grown
    }

    fn apply(&self, state: &State) {
        self.connection.set_receive_window(bytes(state.share_bytes + state.usable_bytes()));
    }
}

impl State {
    /// The part of `extra` by which the window is wider.
    fn usable_bytes(&self) -> u64 {
        self.extra.bytes() - self.owed_bytes
    }

    fn wanted_bytes(&self) -> u64 {
        extra_bytes(self.share_bytes, self.busy, self.waiting)
    }

    /// So many bytes were read, which pays what is owed. Then the window shrinks by as many of those that are not needed any more, and
    /// they are owed in turn. Says whether the window has changed.
    fn read(&mut self, read_bytes: u64) -> bool {
        let paid_bytes = self.owed_bytes.min(read_bytes);
        self.owed_bytes -= paid_bytes;
        let promised_bytes = self.extra.bytes() - paid_bytes;
        // Less than before is always granted.
        self.extra.resize(promised_bytes);
        let shrunk_bytes = self.usable_bytes().saturating_sub(self.wanted_bytes()).min(read_bytes);
        self.owed_bytes += shrunk_bytes;
        shrunk_bytes > 0
    }
}

impl Busy<'_> {
    /// The frame has been read.
    pub(crate) fn done(self) {
        let mut state = self.window.state.lock();
        if state.extra.bytes() > 0 && state.read(self.frame_bytes) {
            self.window.apply(&state);
        }
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.window.state.lock().busy -= 1;
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.state.lock().waiting -= 1;
    }
}

/// quinn tells the client of room again once it is one part in so many of the window. If less than that were left free, a client that
/// has used it up would never hear of more.
const ANNOUNCED_DIVISOR: u64 = 8;

/// What a window of `share_bytes` lacks so that the streams that wait leave room for those that don't: a stream's window, or all that
/// the connection has if that is less, and never so little that its becoming free again is not announced.
fn extra_bytes(share_bytes: u64, busy: u64, waiting: u64) -> u64 {
    let stream_bytes = u64::from(STREAM_WINDOW_BYTES);
    let unread_bytes = waiting.min(busy.saturating_sub(1)) * stream_bytes;
    let free_bytes = share_bytes.min(stream_bytes).max(unread_bytes.div_ceil(ANNOUNCED_DIVISOR - 1));
    (unread_bytes + free_bytes).saturating_sub(share_bytes)
}

fn no_room() -> WireError {
    WireError::new(ErrorCode::Overloaded, "the broker has no memory for what this stream sends, and none to let it wait")
        .with_hint("send it again after a moment; if it happens often, give the broker a larger `memory_limit`")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::TransitBudget;

    const MIB: u64 = 1 << 20;

    #[test]
    fn one_busy_stream_may_wait_without_extra_whatever_the_share() {
        for share_bytes in [INITIAL_WINDOW_BYTES, 10 * MIB] {
            assert_eq!(extra_bytes(share_bytes, 1, 1), 0);
            assert_eq!(extra_bytes(share_bytes, 5, 0), 0, "nor does it take any where nobody waits");
        }
    }

    #[test]
    fn streams_that_wait_leave_room_for_the_others() {
        for share_bytes in [INITIAL_WINDOW_BYTES, MIB, 3 * MIB, 10 * MIB, 16 * MIB] {
            for (busy, waiting) in [(2, 1), (24, 1), (24, 12), (24, 23), (1000, 999)] {
                let window_bytes = share_bytes + extra_bytes(share_bytes, busy, waiting);
                let free_bytes = window_bytes.checked_sub(waiting * u64::from(STREAM_WINDOW_BYTES)).expect("they fit");
                let free_bytes_min = INITIAL_WINDOW_BYTES.max(window_bytes / ANNOUNCED_DIVISOR);
                assert!(free_bytes >= free_bytes_min, "{free_bytes} bytes with a share of {share_bytes}, {waiting} of {busy} wait");
            }
        }
    }

    #[test]
    fn what_is_not_needed_goes_back_as_bytes_are_read_and_never_earlier() {
        let budget = TransitBudget::new(64 * MIB);
        let mut room = budget.room();
        assert!(room.resize(10 * MIB));
        let mut state = State { share_bytes: MIB, extra: room, owed_bytes: 0, busy: 1, waiting: 0 };
        assert!(state.read(4 * MIB));
        assert_eq!((state.extra.bytes(), state.usable_bytes()), (10 * MIB, 6 * MIB), "still promised");
        assert!(state.read(3 * MIB));
        assert_eq!((state.extra.bytes(), state.usable_bytes()), (7 * MIB, 3 * MIB));
        state.read(4 * MIB);
        assert!(!state.read(3 * MIB), "there is nothing left to shrink by");
        assert_eq!((state.extra.bytes(), state.owed_bytes), (0, 0));
    }

    #[test]
    fn what_is_needed_stays() {
        let budget = TransitBudget::new(64 * MIB);
        let mut room = budget.room();
        assert!(room.resize(10 * MIB));
        let mut state = State { share_bytes: MIB, extra: room, owed_bytes: 0, busy: 4, waiting: 3 };
        state.read(16 * MIB);
        assert_eq!(state.usable_bytes(), 3 * u64::from(STREAM_WINDOW_BYTES));
    }

    #[test]
    fn the_one_that_gets_its_memory_takes_no_more_than_there_was_when_all_waited() {
        for streams in 1..100 {
            assert_eq!(extra_bytes(MIB, streams, streams), extra_bytes(MIB, streams, streams - 1));
        }
    }
}

//! Buffers of pushes that nobody has any more, for the pushes that come next.
//!
//! A program that reads a long log lets go of its records in its own time, in a language with a garbage collector many megabytes at once. Memory that
//! goes back to the system then comes back one page fault at a time, which took 8 % of a reader's time. So buffers wait here to be read into again:
//!
//! ```text
//!   FrameReader ── take(length) ──> BytesMut ── lend ──> Bytes: the push, its batches, their records
//!        ^                                                    |  the last of them is dropped, on any thread
//!        +------------------- Spare: at most SPARE_BYTES_MAX <+
//! ```
//!
//! Only for as long as somebody is a [`User`]: a reader is one while it catches up. What is here when the last one ends is given back, and what comes
//! later goes back at once, so that a client that waits for new records holds nothing.

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use std::sync::{Arc, Weak};

/// Buffers that wait take no more than this, in bytes: about what a young generation of V8 holds on to.
const SPARE_BYTES_MAX: usize = 8 << 20;

/// Smaller ones are left to the allocator. Capacities are multiples of it, so that a buffer fits more than the push that it was made for.
const STEP: usize = 64 << 10;

/// Buffers that wait for their next use; one for each connection.
#[derive(Debug, Default)]
pub(crate) struct Spare(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    waiting: Vec<BytesMut>,
    bytes: usize,
    users: usize,
}

/// Somebody who reads pushes one after the other.
#[derive(Debug)]
pub(crate) struct User(Arc<Spare>);

impl Spare {
    /// One more user.
    pub(crate) fn user(self: &Arc<Spare>) -> User {
        self.0.lock().users += 1;
        User(Arc::clone(self))
    }

    fn put(&self, mut buffer: BytesMut) {
        buffer.clear();
        let mut state = self.0.lock();
        if state.users > 0 && state.bytes + buffer.capacity() <= SPARE_BYTES_MAX {
            state.bytes += buffer.capacity();
            state.waiting.push(buffer);
        }
    }
}

impl User {
    /// An empty buffer with room for at least so many bytes, and not for much more than twice as many.
    pub(crate) fn take(&self, length: usize) -> BytesMut {
        if length < STEP {
            return BytesMut::with_capacity(length);
        }
        let fits = |buffer: &BytesMut| (length..=length.saturating_mul(2)).contains(&buffer.capacity());
        let mut state = self.0.0.lock();
        // The one that came last is the warmest.
        if let Some(at) = state.waiting.iter().rposition(fits) {
            let buffer = state.waiting.swap_remove(at);
            state.bytes -= buffer.capacity();
            return buffer;
        }
        drop(state);
        BytesMut::with_capacity(length.next_multiple_of(STEP))
    }

    /// These bytes for whoever wants them: when the last has let go of them, their buffer comes back.
    pub(crate) fn lend(&self, buffer: BytesMut) -> Bytes {
        if buffer.capacity() < STEP {
            return buffer.freeze();
        }
        Bytes::from_owner(Lent { buffer, home: Arc::downgrade(&self.0) })
    }
}

impl Drop for User {
    fn drop(&mut self) {
        let mut state = self.0.0.lock();
        state.users -= 1;
        if state.users == 0 {
            let given_back = std::mem::take(&mut state.waiting);
            state.bytes = 0;
            drop(state);
            drop(given_back);
        }
    }
}

struct Lent {
    buffer: BytesMut,
    home: Weak<Spare>,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.buffer
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(home) = self.home.upgrade() {
            home.put(std::mem::take(&mut self.buffer));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(user: &User, length: usize) -> BytesMut {
        let mut buffer = user.take(length);
        buffer.resize(length, 7);
        buffer
    }

    fn waiting(spare: &Spare) -> (usize, usize) {
        let state = spare.0.lock();
        assert_eq!(state.bytes, state.waiting.iter().map(BytesMut::capacity).sum::<usize>());
        (state.waiting.len(), state.bytes)
    }

    #[test]
    fn a_buffer_is_used_again_once_nobody_has_any_of_it() {
        let spare = Arc::new(Spare::default());
        let user = spare.user();
        let lent = user.lend(filled(&user, 3 * STEP - 5));
        let (place, part) = (lent.as_ptr(), lent.slice(9..12));
        drop(lent);
        assert_eq!((waiting(&spare).0, &part[..]), (0, &[7, 7, 7][..]), "somebody has a part of it");
        drop(part);
        assert_eq!(waiting(&spare), (1, 3 * STEP));

        assert_ne!(user.take(3 * STEP + 1).as_ptr(), place, "too small");
        assert_ne!(user.take(STEP).as_ptr(), place, "far too large");
        let again = user.take(2 * STEP + 1);
        assert_eq!((again.as_ptr(), again.len()), (place, 0));
        assert_eq!(waiting(&spare), (0, 0));
    }

    #[test]
    fn nothing_waits_without_a_user_and_never_more_than_the_limit() {
        let spare = Arc::new(Spare::default());
        let (user, other) = (spare.user(), spare.user());
        let lent: Vec<Bytes> = (0..20).map(|_| user.lend(filled(&user, 1 << 20))).collect();
        let (late, later) = (user.lend(filled(&user, 1 << 20)), user.lend(filled(&user, 1 << 20)));
        drop(lent);
        assert_eq!(waiting(&spare), (8, SPARE_BYTES_MAX));
        drop(other);
        assert_eq!(waiting(&spare).0, 8);
        drop(user);
        assert_eq!(waiting(&spare), (0, 0));
        drop(late);
        assert_eq!(waiting(&spare), (0, 0), "nobody reads any more");
        drop(spare);
        assert_eq!(later.len(), 1 << 20, "what was lent stays");
    }

    #[test]
    fn small_ones_are_left_to_the_allocator() {
        let spare = Arc::new(Spare::default());
        let user = spare.user();
        drop(user.lend(filled(&user, STEP - 1)));
        assert_eq!(waiting(&spare), (0, 0));
    }
}

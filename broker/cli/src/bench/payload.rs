//! What is sent: made before the clock starts, no two values alike, and not compressible where it matters.

use bytes::{Bytes, BytesMut};
use std::fmt::Write as _;

/// Bytes of a large value.
pub(super) const LARGE_VALUE_BYTES: usize = 1024;

/// Bytes of a small value.
pub(super) const SMALL_VALUE_BYTES: usize = 100;

/// Large values in the set: 32 MiB, more than a processor's caches hold.
const LARGE_VALUES: usize = 32 << 10;

/// Small values in the set: 12.5 MiB.
const SMALL_VALUES: usize = 128 << 10;

/// One small value in so many says that its device is idle, which is what the filter of the demo drops.
const IDLE_EVERY: usize = 4;

/// Values of one size, slices of one buffer, taken in turns.
#[derive(Clone, Debug)]
pub(super) struct Values {
    buffer: Bytes,
    value_bytes: usize,
}

impl Values {
    /// 1 KiB of noise each.
    pub(super) fn large() -> Values {
        Values { buffer: noise(LARGE_VALUES * LARGE_VALUE_BYTES), value_bytes: LARGE_VALUE_BYTES }
    }

    /// Readings of devices in JSON, exactly 100 bytes each; a quarter of them idle.
    pub(super) fn small() -> Values {
        let mut text = String::with_capacity(SMALL_VALUES * SMALL_VALUE_BYTES);
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        for index in 0..SMALL_VALUES {
            let state = if index % IDLE_EVERY == 0 { "idle" } else { "busy" };
            let (device, host, load, sum) =
                (random.next() % 100, random.next() % 1000, random.next() % 10_000, random.next() % 10_000_000_000_000);
            let written = write!(
                text,
                r#"{{"device":"cpu{device:02}","host":"gw-{host:03}.plant.example","state":"{state}","load":0.{load:04},"ticks":1{sum:013}}}"#
            );
            assert!(written.is_ok(), "a string takes what is written to it");
        }
        assert_eq!(text.len(), SMALL_VALUES * SMALL_VALUE_BYTES, "every field has a fixed width");
        Values { buffer: Bytes::from(text), value_bytes: SMALL_VALUE_BYTES }
    }

    /// The value with this number, over and over.
    pub(super) fn get(&self, index: usize) -> Bytes {
        let at = index % self.count() * self.value_bytes;
        self.buffer.slice(at..at + self.value_bytes)
    }

    /// Different values that there are.
    pub(super) fn count(&self) -> usize {
        self.buffer.len() / self.value_bytes
    }

    /// Bytes of one value.
    pub(super) fn value_bytes(&self) -> usize {
        self.value_bytes
    }

    /// `length` bytes of the buffer, the `index`th such piece, over and over: what the raw measurements send.
    pub(super) fn piece(&self, index: usize, length: usize) -> Bytes {
        let at = index % (self.buffer.len() / length) * length;
        self.buffer.slice(at..at + length)
    }
}

fn noise(length: usize) -> Bytes {
    let mut buffer = BytesMut::with_capacity(length + size_of::<u64>());
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    while buffer.len() < length {
        buffer.extend_from_slice(&random.next().to_le_bytes());
    }
    buffer.truncate(length);
    buffer.freeze()
}

/// Marsaglia's xorshift64: the same values in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

//! Turning sealed batches into the bytes that travel: here and now, or aside if they are to be compressed.

use super::{
    accumulator::Sealed,
    flight::{Flight, Outgoing},
    lane::{Lane, Task},
    shared::Shared,
};
use crate::error::Error;
use millpond_protocol::compression::Codec;
use parking_lot::Mutex;
use std::sync::Arc;

/// From this size on, in bytes, a batch is compressed on a thread of its own, so that it does not hold up other tasks.
const COMPRESS_ASIDE_BYTES: usize = 16 << 10;

impl Task {
    /// Turns records into bytes and puts them among those that wait to be sent.
    pub(super) fn encode(&self, sealed: Sealed, sequence: u64) {
        let encoding = Encoding {
            lane: Arc::clone(&self.lane),
            shared: Arc::clone(&self.shared),
            flight: Arc::clone(&self.flight),
            sequence,
            codec: self.shared.settings.compression,
        };
        if encoding.codec == Codec::None || sealed.builder.size_bytes() < COMPRESS_ASIDE_BYTES {
            encoding.run(sealed);
        } else {
            self.flight.lock().encoding = true;
            self.shared.runtime.spawn_blocking(move || {
                let lane = Arc::clone(&encoding.lane);
                encoding.run(sealed);
                lane.wake.notify_one();
            });
        }
    }
}

/// The work of turning a sealed batch into bytes, wherever it runs.
struct Encoding {
    lane: Arc<Lane>,
    shared: Arc<Shared>,
    flight: Arc<Mutex<Flight>>,
    sequence: u64,
    codec: Codec,
}

impl Encoding {
    fn run(self, mut sealed: Sealed) {
        let records = sealed.builder.len();
        let outcome = sealed.builder.finish(self.codec);
        let mut flight = self.flight.lock();
        flight.encoding = false;
        match outcome {
            Ok(bytes) => {
                let Sealed { builder, pending, charged, opened_at } = sealed;
                self.lane.accumulator.lock().give_back(builder);
                let sequence = self.sequence;
                flight.wait(Outgoing { bytes, pending, records, charged, sequence, opened_at, sent_at: None, maybe_stored: false });
            }
            Err(error) => {
                self.shared.fail(&sealed, Error::InvalidRecord(error));
            }
        }
    }
}

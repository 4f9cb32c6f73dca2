//! Turning sealed batches into the bytes that travel: here and now, or aside if they are to be compressed.

use super::{
    accumulator::Sealed,
    flight::{Flight, Outgoing},
    identity::Numbers,
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
    /// Turns records into bytes and puts them among those that wait to be sent: at this place in the order, and with these numbers.
    pub(super) fn encode(&self, sealed: Sealed, (order, numbers): (u64, Option<Numbers>)) {
        let encoding = Encoding {
            lane: Arc::clone(&self.lane),
            shared: Arc::clone(&self.shared),
            flight: Arc::clone(&self.flight),
            order,
            numbers,
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
    order: u64,
    numbers: Option<Numbers>,
    codec: Codec,
}

impl Encoding {
    fn run(self, mut sealed: Sealed) {
        let records = sealed.builder.len();
        if let Some(Numbers { producer_id, epoch, sequence }) = self.numbers {
            sealed.builder.set_producer(producer_id, epoch, sequence);
        }
        let outcome = sealed.builder.finish(self.codec);
        let mut flight = self.flight.lock();
        flight.encoding = false;
        match outcome {
            Ok(bytes) => {
                let Sealed { builder, pending, charged, opened_at } = sealed;
                self.lane.accumulator.lock().give_back(builder);
                let Encoding { order, numbers, .. } = self;
                let (sent_at, maybe_stored) = (None, false);
                flight.encoded(Outgoing { bytes, pending, records, charged, order, numbers, opened_at, sent_at, maybe_stored });
            }
            Err(error) => {
                self.shared.fail(&sealed, Error::InvalidRecord(error));
            }
        }
    }
}

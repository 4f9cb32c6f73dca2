//! The settings of a producer.

use super::{Producer, identity::REMEMBERED_BATCHES, shared::Shared};
use crate::{admin::Admin, client::Core, error::Error};
use millpond_protocol::compression::Codec;
use std::{sync::Arc, time::Duration};

/// When a batch counts as full, by default, in bytes before compression.
pub const DEFAULT_BATCH_BYTES: usize = 1 << 20;

/// How long a record waits for others, by default, while a batch of its partition is in flight.
pub const DEFAULT_LINGER: Duration = Duration::from_millis(5);

/// How many bytes of records may wait for their answers, by default.
pub const DEFAULT_BUFFER_BYTES: usize = 32 << 20;

/// How many batches of a partition may be in flight, by default.
pub const DEFAULT_IN_FLIGHT: usize = 5;

/// How long a record may take from being enqueued to its answer, by default.
pub const DEFAULT_DELIVERY_TIMEOUT: Duration = Duration::from_mins(2);

/// The largest buffer, in bytes.
const BUFFER_BYTES_MAX: usize = 1 << 31;

/// The most batches in flight that make sense: at 1 MiB each, far more than any path holds.
const IN_FLIGHT_MAX: usize = 1024;

/// The most batches in flight with idempotence.
#[expect(clippy::cast_possible_truncation, reason = "it is 5")]
const IN_FLIGHT_IDEMPOTENT_MAX: usize = REMEMBERED_BATCHES as usize;

/// The settings of a producer. From [`crate::Client::producer`].
#[derive(Clone, Debug)]
pub struct ProducerBuilder {
    core: Arc<Core>,
    topic: Arc<str>,
    settings: Settings,
}

#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) batch_bytes: usize,
    pub(crate) linger: Duration,
    pub(crate) compression: Codec,
    pub(crate) buffer_bytes: usize,
    pub(crate) in_flight: usize,
    pub(crate) delivery_timeout: Duration,
    pub(crate) retry: bool,
    pub(crate) idempotence: bool,
}

impl ProducerBuilder {
    pub(crate) fn new(core: Arc<Core>, topic: Arc<str>) -> ProducerBuilder {
        let settings = Settings {
            batch_bytes: DEFAULT_BATCH_BYTES,
            linger: DEFAULT_LINGER,
            compression: Codec::None,
            buffer_bytes: DEFAULT_BUFFER_BYTES,
            in_flight: DEFAULT_IN_FLIGHT,
            delivery_timeout: DEFAULT_DELIVERY_TIMEOUT,
            retry: true,
            idempotence: true,
        };
        ProducerBuilder { core, topic, settings }
    }

    /// When a batch counts as full, in bytes before compression; [`DEFAULT_BATCH_BYTES`] when not set. The topic's own limit caps it.
    #[must_use]
    pub fn batch_bytes(mut self, bytes: usize) -> Self {
        self.settings.batch_bytes = bytes;
        self
    }

    /// How long a record waits for others to share a batch with; [`DEFAULT_LINGER`] when not set. It only waits while another batch of
    /// its partition is in flight: the first record after a pause goes at once.
    #[must_use]
    pub fn linger(mut self, linger: Duration) -> Self {
        self.settings.linger = linger;
        self
    }

    /// How batches are compressed; not at all when not set.
    #[must_use]
    pub fn compression(mut self, codec: Codec) -> Self {
        self.settings.compression = codec;
        self
    }

    /// How many bytes of records may wait for their answers before `enqueue` waits; [`DEFAULT_BUFFER_BYTES`] when not set. At
    /// least one batch of the largest size that the topic takes fits in any case.
    #[must_use]
    pub fn buffer_bytes(mut self, bytes: usize) -> Self {
        self.settings.buffer_bytes = bytes;
        self
    }

    /// How many batches of a partition may be in flight, 1 to 5, or up to 1024 without [`ProducerBuilder::idempotence`];
    /// [`DEFAULT_IN_FLIGHT`] when not set.
    #[must_use]
    pub fn in_flight(mut self, batches: usize) -> Self {
        self.settings.in_flight = batches;
        self
    }

    /// How long a record may take from being enqueued to its answer, reconnecting and sending again included;
    /// [`DEFAULT_DELIVERY_TIMEOUT`] when not set.
    #[must_use]
    pub fn delivery_timeout(mut self, timeout: Duration) -> Self {
        self.settings.delivery_timeout = timeout;
        self
    }

    /// Whether a batch is sent again after its stream was lost or the broker asked for patience; yes when not set. Without it
    /// [`Error::Unanswered`] says which records may or may not be stored. A batch that had not left whole when its stream was lost, and one
    /// that the broker refused because another before it is missing, cannot be stored, and is sent again in any case.
    #[must_use]
    pub fn retry(mut self, retry: bool) -> Self {
        self.settings.retry = retry;
        self
    }

    /// Whether batches carry a producer id, an epoch and a sequence (KIP-98), by which the broker recognises one that it has stored
    /// already; yes when not set. A batch that is sent again is then stored once, and the batches of a partition stay in their order,
    /// whatever happens. Without it, or with a broker that gives no producer id, a batch that is sent again may be stored twice, and one
    /// that the broker asked to send later can end up behind those that were in flight with it.
    #[must_use]
    pub fn idempotence(mut self, idempotence: bool) -> Self {
        self.settings.idempotence = idempotence;
        self
    }

    /// What is wrong with the settings, if something is; [`ProducerBuilder::build`] asks this first.
    pub fn check(&self) -> Result<(), Error> {
        let settings = &self.settings;
        let outside = |setting, value: usize, reason| Error::InvalidSetting { setting, value: value.to_string(), reason };
        if !(1..=IN_FLIGHT_MAX).contains(&settings.in_flight) {
            return Err(outside("in_flight", settings.in_flight, "it is a number from 1 to 1024"));
        }
        if settings.idempotence && settings.in_flight > IN_FLIGHT_IDEMPOTENT_MAX {
            let reason = "with idempotence it is a number from 1 to 5: set one of these, or turn it off with idempotence(false)";
            return Err(outside("in_flight", settings.in_flight, reason));
        }
        if !(1..=BUFFER_BYTES_MAX).contains(&settings.buffer_bytes) {
            return Err(outside("buffer_bytes", settings.buffer_bytes, "it is a number of bytes from 1 to 2 GiB"));
        }
        Ok(())
    }

    /// Asks the broker for the topic and makes the producer. Fails with the code `topic_not_found` if there is no such topic.
    pub async fn build(self) -> Result<Producer, Error> {
        self.check()?;
        let topic = Admin::new(Arc::clone(&self.core)).topic(&self.topic).await?;
        Ok(Producer { shared: Arc::new(Shared::new(self.core, self.topic, self.settings, &topic)) })
    }
}

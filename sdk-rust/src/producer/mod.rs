//! Producing: records become batches, batches travel on one ordered stream for each partition.
//!
//! | module | holds |
//! |---|---|
//! | `placement` | which partition a record goes to |
//! | `accumulator` | the open batch of a partition and the full ones behind it |
//! | `lane` | the task that sends a partition's batches |
//! | `encoding` | sealed batches become bytes |
//! | `answers` | what comes back: answers, refusals, the end of a stream |
//! | `flight` | batches that were sent and are not answered, and those to be sent again |
//! | `identity` | the numbers by which the broker recognises a batch |
//! | `failure` | batches that are too old, or refused for good |
//! | `pending` | the answer that the records of a batch share |
//! | `untold` | failures that nobody has heard of, which a flush tells |
//!
//! # What it promises
//!
//! A record is acknowledged once the broker says that its topic's durability is met. Until then it is sent again whenever the connection
//! is lost or the broker asks for patience, up to the delivery timeout. Each partition's batches are numbered, so the broker recognises one
//! that it has stored already: for as long as the producer lives, a record is stored once, and the records of a partition are stored
//! in the order in which they were enqueued, whatever was lost, refused or restarted in between (KIP-98). What the producer cannot know is
//! whether a record is stored whose answer did not come in time, or which the broker has forgotten by the time that it is sent again: its
//! error says so ([`Error::maybe_done`]), and nobody but the caller sends it again. A record that is enqueued again, by the same
//! producer or another one, is another record.
//!
//! Without idempotence ([`ProducerBuilder::idempotence`]), or with a broker that gives no producer ids, a record may be stored twice (at
//! least once), and a batch which the broker asked to send later can end up behind ones that were in flight with it; `in_flight(1)` rules
//! that out. A broker that is stopped as planned answers what it has taken, and the answers are read before anything is sent again.
//!
//! When the buffer is full, `enqueue` waits; it never fails for that.

mod accumulator;
mod answers;
mod builder;
mod encoding;
mod failure;
mod flight;
mod identity;
mod lane;
mod pending;
mod placement;
mod shared;
mod stats;
mod untold;

pub use builder::{
    DEFAULT_BATCH_BYTES, DEFAULT_BUFFER_BYTES, DEFAULT_DELIVERY_TIMEOUT, DEFAULT_IN_FLIGHT, DEFAULT_LINGER, ProducerBuilder,
};
pub use pending::Delivery;
pub use stats::{LatencySummary, ProducerStats};

use crate::{
    error::Error,
    record::{BorrowedRecord, Record, RecordPlace},
};
use shared::Shared;
use std::sync::Arc;

/// Sends records to one topic. From [`crate::Client::producer`]. All methods take `&self`; share it in an [`Arc`].
///
/// ```no_run
/// # async fn run(client: millpond::Client) -> Result<(), millpond::Error> {
/// use millpond::Record;
///
/// let producer = client.producer("readings").build().await?;
/// for celsius in [21.4, 21.5] {
///     let delivery = producer.enqueue(Record::new(celsius.to_string()).with_key("device-7")).await?;
///     drop(delivery); // or await it to learn partition and offset
/// }
/// producer.close().await?; // everything is stored now, or this says what failed first
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Producer {
    shared: Arc<Shared>,
}

impl Producer {
    /// Puts a record into the open batch of its partition and returns the coming answer. Waits while the buffer is full.
    ///
    /// Fails, and without effect on other records, if the record is larger than the topic takes (where the connection is up, the broker is asked whether
    /// that has changed), names a partition that is not there or cannot be encoded, or if the producer is closed. Dropping the future before it is ready
    /// leaves nothing behind.
    pub async fn enqueue(&self, record: Record) -> Result<Delivery, Error> {
        match self.shared.try_enqueue(&record)? {
            Some(delivery) => Ok(delivery),
            None => self.shared.enqueue(record).await,
        }
    }

    /// As [`Producer::enqueue`] where that needs no waiting; none, and nothing has happened, where the buffer has no room for the record at this moment, or
    /// the record is larger than the topic took when it was last asked for.
    pub fn try_enqueue(&self, record: &Record) -> Result<Option<Delivery>, Error> {
        self.shared.try_enqueue(record)
    }

    /// As [`Producer::try_enqueue`], for a record whose parts lie in somebody else's memory: they are copied once, into the batch.
    pub fn try_enqueue_borrowed(&self, record: &BorrowedRecord<'_>) -> Result<Option<Delivery>, Error> {
        self.shared.try_enqueue_borrowed(record)
    }

    /// Sends a record and waits until it is acknowledged. Records that are sent at the same time share batches.
    pub async fn send(&self, record: Record) -> Result<RecordPlace, Error> {
        self.enqueue(record).await?.await
    }

    /// Waits until everything that was enqueued before is answered; batches that were waiting for more records go at once.
    ///
    /// Fails with the first error since the last flush that nobody has heard of: whoever awaited a [`Delivery`] and got its error has.
    pub async fn flush(&self) -> Result<(), Error> {
        self.shared.flush().await
    }

    /// Takes no more records and flushes. Further calls do the same again.
    pub async fn close(&self) -> Result<(), Error> {
        self.shared.close();
        self.flush().await
    }

    /// What this producer has done so far.
    pub fn stats(&self) -> ProducerStats {
        self.shared.stats()
    }

    /// The topic.
    pub fn topic(&self) -> &str {
        &self.shared.topic
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        self.shared.close();
        let unanswered = self.shared.hurry().len();
        if unanswered > 0 {
            tracing::warn!(
                topic = %self.shared.topic,
                batches = unanswered,
                "a producer was dropped before its records were answered; they are sent for as long as the process goes on. Call close"
            );
        }
    }
}

//! The client of Millpond, an edge broker that is reached over QUIC.
//!
//! ```no_run
//! use millpond::{Client, Record, Start};
//!
//! #[tokio::main]
//! async fn main() -> Result<(), millpond::Error> {
//!     let client = Client::connect("millpond://localhost:9440?ca=data/tls/ca.pem").await?;
//!     let producer = client.producer("readings").build().await?;
//!     let place = producer.send(Record::new("21.4").with_key("device-7")).await?;
//!     println!("stored at {}[{}]", place.partition, place.offset);
//!     let mut consumer = client.consumer("readings").start(Start::Beginning).build().await?;
//!     while let Some(record) = consumer.next().await {
//!         println!("{:?}", record?.value);
//!     }
//!     Ok(())
//! }
//! ```
//!
//! | module | holds |
//! |---|---|
//! | `client`, `connection` | one QUIC connection for everything, made again when it is lost |
//! | `stream`, `spare` | frames on its streams, and the buffers that they are read into |
//! | `url`, `trust` | where the broker is, and whose certificate is accepted |
//! | `admin` | topics, modules, the broker |
//! | `producer` | batching, many batches in flight, sending again |
//! | `consumer` | a stream of records or of batches, seeking, reading until the end |
//! | `error` | one variant for each cause, each with a code, a retry flag and a hint |
//!
//! # What it promises
//!
//! A client needs no care: it reconnects by itself, with growing delays. A producer that is faster than its broker waits; it does not
//! fail and it does not grow. A consumer that is slower than its broker makes the broker wait. Times, bytes and counts that bound
//! any of this are constants with names (`DEFAULT_...`) and can be set.
//!
//! Everything runs on the tokio runtime in which it was made.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

mod admin;
mod backoff;
mod client;
mod connection;
mod consumer;
mod error;
mod producer;
mod record;
mod spare;
mod stream;
mod transport;
mod trust;
mod url;

pub use admin::Admin;
pub use client::{Client, ClientBuilder, DEFAULT_CONNECT_TIMEOUT, DEFAULT_IDLE_TIMEOUT, DEFAULT_KEEP_ALIVE, DEFAULT_REQUEST_TIMEOUT};
pub use consumer::{ConsumedBatch, ConsumedRecords, Consumer, ConsumerBuilder, OutOfRange, Start};
pub use error::{Cause, Error};
pub use producer::{
    DEFAULT_BATCH_BYTES, DEFAULT_BUFFER_BYTES, DEFAULT_DELIVERY_TIMEOUT, DEFAULT_IN_FLIGHT, DEFAULT_LINGER, Delivery, LatencySummary,
    Producer, ProducerBuilder, ProducerStats,
};
pub use record::{BorrowedRecord, ConsumedRecord, Fate, Record, RecordPlace};
pub use trust::{Fingerprint, Trust};
pub use url::{BrokerUrl, DEFAULT_PORT};

pub use millpond_protocol::{
    compression::Codec,
    error::{ErrorCode, WireError},
    message::{
        AlterTopic, AlterTransform, AttachLimits, AttachPoint, AttachTransform, AttachedModule, AttachmentStatus, AttachmentWork,
        BatchCoordinates, BatchTimes, BrokerInfo, Cleanup, CompactionStatus, CreateTopic, DetachTransform, Dropped, Durability,
        KnownDamage, Limit, LogLevel, ModuleFailure, ModuleInfo, ModuleLog, ModuleLogLine, ModuleLogPlace, ModuleRef, ModuleVersion,
        NodeSpace, OffsetFound, OnError, OnFull, PartitionInfo, Pick, Position, ReadModuleLog, RecordsDeleted, Refused, Refusing,
        ReplacedModule, TimeBucket, TopicConfig, TopicInfo, Watermarks,
    },
    record::Headers,
};

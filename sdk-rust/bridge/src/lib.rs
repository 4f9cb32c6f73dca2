//! What the client packages for Python and Node.js share, so that they differ in idiom alone.
//!
//! ```text
//!   sdk-python            sdk-node            idioms, types, documentation
//!        \                   /
//!         v                 v
//!          millpond-bridge                    one runtime, options as data, one kind of failure, batches for one crossing
//!                 |
//!                 v
//!            sdk-rust (millpond)              batching, sending again, reconnecting: all that is hard
//! ```
//!
//! | module | holds |
//! |---|---|
//! | [`runtime`] | the one runtime of the process, and what a forked child is told |
//! | [`failure`] | every error as data, with the kind that decides its class in each language |
//! | [`options`] | settings as JSON, refused by name where they are wrong |
//! | [`client`] | the connection |
//! | [`admin`] | every request about topics and modules as one call with JSON in and out |
//! | [`records`] | a batch as a language sees it: one owner of the bytes, one table |
//! | [`consumer`] | batches on their way to a language: nothing is lost when whoever waits gives up |
//! | [`producer`] | sending without an error for a full buffer |
//! | [`deliveries`] | answers, handed over many at a time |
//! | [`runs`] | answers to records that were handed over together |
//!
//! # What it promises
//!
//! Nothing here is about one language. Everything that waits is an `async fn`, to be run on [`runtime::handle`] or by
//! [`runtime::block_on`], and may be dropped at any point without losing a record. In a forked child every call fails at once with the code
//! `forked`, and nothing is dropped or joined there.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

pub mod admin;
pub mod client;
pub mod consumer;
pub mod deliveries;
pub mod failure;
pub mod options;
pub mod producer;
pub mod records;
pub mod runs;
pub mod runtime;

pub use client::Client;
pub use consumer::{Consumer, PartitionState};
pub use deliveries::Collector;
pub use failure::{Failure, FailureKind};
pub use options::{ClientOptions, ConsumerOptions, OnOutOfRange, Place, ProducerOptions};
pub use producer::{Outcome, Producer, Sending};
pub use records::Records;
pub use runs::Runs;

pub use millpond::{BorrowedRecord, Durability, Fate, Record, RecordPlace};

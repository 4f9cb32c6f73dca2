//! The wire and disk formats of Millpond, without any I/O.
//!
//! Everything here takes bytes and returns values, or the other way round. There is no socket, no file, no clock and no task in
//! this crate, so the broker, the client core and the fuzzers share one reading of every byte.
//!
//! | module | holds |
//! |---|---|
//! | [`batch`] | Kafka's `RecordBatch` v2: header, checksum, parsing, building |
//! | [`record`] | the records inside a batch, borrowed from its bytes |
//! | [`compression`] | gzip, snappy, lz4 and zstd, with a limit on what comes out |
//! | [`frame`] | the eight-byte header that every message on a QUIC stream starts with |
//! | [`message`] | the CBOR requests and responses, and the fixed-size acknowledgement |
//! | [`error`] | the codes that cross the wire, each with its retry flag |
//! | [`partitioner`] | Kafka's default placement of keys (murmur2) |
//! | [`varint`] | zig-zag variable-length integers |
//!
//! # What it refuses
//!
//! A length that came from outside is compared with what is there, and with a limit, before anything is allocated for it. Nothing
//! here panics on any input.

#![forbid(unsafe_code)]

pub mod batch;
pub mod compression;
pub mod error;
pub mod frame;
pub mod message;
pub mod partitioner;
pub mod record;
pub mod varint;

/// The application protocol that both ends name in the TLS handshake (ALPN, RFC 7301).
pub const ALPN: &[u8] = b"millpond/1";

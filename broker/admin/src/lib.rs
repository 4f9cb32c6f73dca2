//! The admin door: what the broker says about itself over HTTP, for whoever watches over it.
//!
//! | path | answers |
//! |---|---|
//! | `/metrics` | 200 and the metrics, in Prometheus' text format 0.0.4 |
//! | `/health/live` | 200 for as long as the process answers |
//! | `/health/ready` | 200 while the broker takes requests, 503 while it starts and stops |
//!
//! # What it promises
//!
//! - Nothing is counted for it on a batch's way: a scrape reads what the engine knows at that moment.
//! - A partition that has stopped writing is `millpond_partition_writable` 0, and a line under `/health/ready`, but no 503: the broker goes
//!   on taking requests for all the others. Where batches are refused for want of room, `ready` is followed by what has none.
//! - Memory is bounded: [`AdminLimits`] for connections and request heads, 16 KiB of text for each answer that is being written, and one
//!   look at all topics for each of at most [`AdminLimits::scrapes_max`] scrapes.
//! - Whatever bytes come in, the answer is a status or a closed connection, within [`AdminLimits::head_timeout`] and
//!   [`AdminLimits::response_timeout`].
//!
//! # What it refuses
//!
//! Everything but GET and HEAD; a request head over [`AdminLimits::head_bytes_max`]; a second request on a connection: each is closed after
//! its answer, so an idle one holds no place; and, where it listens on a loopback address, a request under a name that is not this
//! machine's own, so that no web page in a browser here reads it under a name of its own. There is no TLS and no authentication, so it belongs on a loopback address.
//!
//! # Map
//!
//! | module | holds |
//! |---|---|
//! | `server` | [`AdminServer`]: listening, and how many are served at a time |
//! | `connection` | one connection: its request, its answer, its end |
//! | `request` | a request head, from bytes |
//! | `response` | the bytes of an answer, and a body that is written as it is made |
//! | `host` | by which names the door may be called |
//! | `routes` | which path gives which answer |
//! | `metrics` | what is measured, and its text |
//! | `status` | [`Status`]: how far the broker is |

#![forbid(unsafe_code)]

mod connection;
mod error;
mod host;
mod metrics;
mod request;
mod response;
mod routes;
mod server;
mod status;

pub use error::AdminError;
pub use server::{AdminLimits, AdminServer};
pub use status::Status;

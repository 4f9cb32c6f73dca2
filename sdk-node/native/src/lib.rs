//! The native half of the npm package `millpond`: what its TypeScript half calls, and nothing that a user sees.
//!
//! ```text
//!   one turn of the event loop         send(number, bytes, table)       ──>  the open batches of the core, or a queue where these have no room
//!   one call for many answers          answers()                        <──  columns, as many as have come
//!   one call for a batch of records    read()                           <──  one buffer and one table
//! ```
//!
//! | module | holds |
//! |---|---|
//! | `promise` | a promise for what runs on the bridge's runtime, and how it is cancelled |
//! | `client` | the connection and the requests |
//! | `producer` | records on their way to the core, answers on their way back |
//! | `consumer` | batches as buffers that JavaScript owns without a copy |
//!
//! # What it promises
//!
//! Nothing here waits on the thread of the event loop. A promise that is not settled keeps the process alive, and nothing else does. A failure is the
//! text of a JSON object, of which the TypeScript half makes an error.

#![expect(clippy::needless_pass_by_value, reason = "texts that come from JavaScript are handed over")]

pub mod client;
pub mod consumer;
pub mod producer;
pub mod promise;

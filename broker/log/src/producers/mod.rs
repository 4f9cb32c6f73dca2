//! Which batches of which producers the log holds, so that one that is sent again is not stored again (KIP-98, KIP-360).
//!
//! A producer has an id, an epoch, and a sequence number for every record. Each partition remembers of each producer the last few
//! batches, and takes a batch only if it follows on them:
//!
//! ```text
//!  producer id -> epoch   up to five batches, by the sequence of their last record             the next one begins with
//!     4711          0     [  9 @ 100..109 ] [ 19 @ 110..119 ] [ 20 @ 131..131 ]                          21
//!      815          3     [  2 @ 120..122 ] [  9 @ -          ]  <- nothing of it was stored             10
//!                            |    |
//!                            |    '--- where it is in the log: the answer, should it come again
//!                            '--- wraps after 2^31 - 1 to 0
//! ```
//!
//! What comes is one of these:
//!
//! | it | is |
//! |---|---|
//! | ends with a sequence that is remembered | a repetition: answered with the offsets that it got the first time |
//! | begins behind the last one, or where a new epoch or a new producer begins | appended |
//! | ends before the last one, and is not remembered | [`SequenceError::Duplicate`] |
//! | leaves a gap | [`SequenceError::OutOfOrder`], or [`SequenceError::UnknownProducer`] where nothing is known |
//! | has an epoch before the known one | [`SequenceError::OldEpoch`] |
//!
//! Only the *last* sequence counts, since a module may change how many offsets a batch takes. Batches that the broker has split among
//! partitions have gaps in each of them; what must hold there is that no part of a stream overtakes another ([`SequenceOrder::After`]). What the
//! broker makes of a batch beside it has any gaps, and is only not to be there twice ([`SequenceOrder::Any`]).
//!
//! # Runs
//!
//! Batches that are appended together are admitted one by one before, into an overlay, [`AppendRun`]: with the offsets that they will
//! get, so that a repetition within the run is answered right too. If the append fails the run is dropped, and nothing has changed.
//! [`Log::append`](crate::Log::append) itself takes down what the headers say, and checks nothing: batches that come by another way have
//! the same state, and a recovery finds the same.
//!
//! # On disk
//!
//! The state belongs to the log: what the headers say, from the first batch to the last, is what is remembered. So that a recovery need
//! not read them all, the state as of the recovery point is written with it, in one step (`recovery-point`), and the recovery goes on
//! from there through the batches that it reads anyway; the state as of the end is in the note of a clean stop (`clean-stop`). Both have a
//! checksum. Where the point is lost, the headers of all segments are read once. It is lines of text:
//!
//! ```text
//! producers 2
//! 815 3 2:120:122:0badcafe:1763700000000:0 9:-1:-1:1a2b3c4d:1763700000500:7
//! 4711 0 9:100:109:3c0ffee5:-1:0 19:110:119:00c0ffee:-1:0 20:131:131:5ca1ab1e:-1:0
//! |    | |  |   |   |        |  '-- offsets of it that have no record
//! |    | |  |   |   |        '-- when it was appended, in milliseconds since 1970; -1 once that is forgotten
//! |    | |  |   |   '-- checksum of the batch, as its header says
//! |    | |  |   '-- its last offset, -1 if nothing was stored
//! |    | |  '-- its base offset, likewise
//! |    | '-- sequence of its last record
//! |    '-- epoch
//! '-- producer id; the one that was used longest ago comes first
//! ```
//!
//! # Bounds
//!
//! A log remembers [`PRODUCERS_MAX`] producers, all logs that share a [`ProducerPool`] as many as that allows, and 16 each; the one that was used
//! longest ago goes first, but for the broker's own ([`BROKER_PRODUCER_ID_MIN`]). One that was not used for
//! [`LogConfig::producer_id_expiration_ms`](crate::LogConfig::producer_id_expiration_ms) is forgotten, by the monotonic clock: its age
//! begins anew when a log is opened, and it never goes early. Deleting records forgets no producer.
//!
//! # Refused
//!
//! Nothing here makes a log unopenable. A state that is lost or wrong costs its producers an error, after which they begin a new epoch.
//! So does a batch that was answered and is gone, where a topic is answered before it is flushed: its producer is told of the gap.
//!
//! A producer must not send a batch that is more than five ahead of one without an answer: that one would be forgotten.
//! Transactions are not known: a producer is fenced by its epoch alone.

mod judge;
mod observe;
mod pool;
mod producer;
mod run;
mod snapshot;
mod table;
#[cfg(test)]
mod tests;

pub use judge::{SequenceError, SequenceOrder};
pub use pool::{PRODUCERS_DEFAULT_MAX, Pools, ProducerPool};
pub use producer::{Appended, ProducerBatch, ProducerState};
pub use run::{Admission, AppendRun};
pub(crate) use snapshot::{Listed, SNAPSHOT_BYTES_MAX, Snapshot, UNKNOWN, parse};
pub(crate) use table::Producers;

/// Producers that one log remembers.
pub const PRODUCERS_MAX: usize = 1_000;

/// Producer ids from this one on are the broker's own: those producers are not forgotten to make room for others, so that what they send
/// again after a crash is known however many others came first. There are as many as the broker has work for, and no client can have such an
/// id.
pub const BROKER_PRODUCER_ID_MIN: i64 = 1 << 62;

/// Batches of each producer that are remembered: as many as a producer has in flight at most (KIP-98).
pub const PRODUCER_BATCHES_MAX: usize = 5;

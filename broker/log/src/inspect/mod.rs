//! Looking at a log from outside: what is in its files, what is wrong with them, and mending it.
//!
//! Everything here but [`RepairPlan::apply`] only reads, and works beside a broker that writes: what is appended after a file was opened
//! is not seen, and the end of the last segment may be in the middle of a write. Memory is bounded whatever the files say, and no bytes
//! make it panic.
//!
//! | item | does |
//! |---|---|
//! | [`SegmentWalk`] | the batches of one segment, and the damage between them |
//! | [`IndexWalk`] | the entries of an `.index` or a `.timeindex` |
//! | [`verify`] | everything in a log's folder, and a [`Fault`] for each thing that is wrong |
//! | [`RepairPlan`] | what can be done about damage that recovery leaves alone, what is lost by it, and doing it |
//!
//! # What can't be read
//!
//! Where the disk does not give bytes back, that is damage as any other ([`Damage::Unreadable`](crate::Damage::Unreadable)), no larger than
//! the pages that fail, and what is behind it is found. It may be readable later; a repair gives it up. An error that says nothing about
//! the bytes, as a right that is missing, ends the walk.
//!
//! # Damage in the middle
//!
//! Recovery cuts a torn tail and never what rot has damaged. Offsets that were durable and that no file holds any more are such damage,
//! too. It can be repaired in two ways: [`RepairMode::Truncate`] ends the log in front of it, [`RepairMode::DropBatch`] keeps what is
//! behind. The offsets of a log have no gap between batches, so an empty batch takes the place of the one that is dropped, as Kafka's
//! cleaner leaves it:
//!
//! ```text
//!   before  | 0..4 | 5..9 | ??????????? | 31..31 | 32..40 |
//!   after   | 0..4 | 5..9 | 10..30, 0 records | 31..31 | 32..40 |
//! ```
//!
//! Where one byte was damaged that the checksum does not cover (in the base offset, the length or the format version), the batch
//! gets it back and nothing is lost. All that a repair removes is kept beside the log, in files whose names end with `.removed-<n>`; so is
//! what a recovery cuts off behind a hole. [`SegmentWalk::open_kept`] reads them.

mod beside;
mod entries;
mod fault;
pub(crate) mod names;
mod next_start;
mod plan;
mod repair;
mod unreadable;
mod verify;
mod walk;

pub use beside::{Aside, Mend, MendKind};
pub use entries::{IndexEntry, IndexFault, IndexWalk};
pub use fault::{Fault, FaultKind};
pub(crate) use names::kept_suffix;
pub use names::{kept_log_of, segment_of};
pub(crate) use plan::empty_batch;
pub use plan::{Loss, RepairError, RepairMode, RepairPlan, Unopened};
pub(crate) use repair::copy_range;
pub use verify::{Verified, VerifyOptions, Watch, verify};
pub use walk::{DamagedRange, Piece, SegmentWalk, WalkedBatch};

/// The most that the records of one batch may take when they are decompressed to be looked at.
pub const RECORDS_BYTES_MAX: usize = 64 << 20;

//! What a verification can find, where it is, and what it means.

use std::path::PathBuf;

use millpond_protocol::batch::BatchError;
use thiserror::Error;

use crate::error::{Damage, LogError};
use crate::inspect::{Aside, IndexFault};

/// Something in a log's folder that is not as it should be.
#[derive(Debug)]
pub struct Fault {
    /// The file.
    pub path: PathBuf,
    /// Where in it, in bytes from its start. None if it is about the file as a whole.
    pub position: Option<u64>,
    /// The offset that is concerned, where one is.
    pub offset: Option<i64>,
    /// What it is.
    pub kind: FaultKind,
}

/// A kind of fault.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum FaultKind {
    /// Bytes or offsets that are not a whole batch. Reads fail there.
    #[error("{reason}")]
    Damaged {
        /// Bytes of the file that are concerned.
        bytes: u64,
        /// The first offset behind the damage. None where nobody can say.
        next_offset: Option<i64>,
        /// What is wrong.
        reason: Damage,
    },
    /// Offsets that were durable, by a checksum, and that no file holds any more.
    #[error("the records before offset {next_offset} were durable, and are gone")]
    Gone {
        /// The first offset behind them.
        next_offset: i64,
    },
    /// Bytes that the next start takes for a write that a power cut has interrupted, with whole batches behind them.
    #[error("{reason}")]
    Interrupted {
        /// Bytes up to the next whole batch.
        bytes: u64,
        /// What is wrong with them.
        reason: Damage,
    },
    /// The last segment does not end with a whole batch, as after a crash.
    #[error("{reason}")]
    TornTail {
        /// Bytes behind the last whole batch.
        bytes: u64,
        /// What is wrong with them.
        reason: Damage,
    },
    /// The end of the last segment while a broker may be writing to it.
    #[error("{bytes} bytes at the end are not a whole batch yet")]
    InMotion {
        /// Bytes behind the last whole batch.
        bytes: u64,
    },
    /// The bytes are as they were stored, but the records are not what the header of their batch says.
    #[error("{0}")]
    Records(BatchError),
    /// The leader epoch of a batch is less than that of the batch before, or none. No checksum covers it.
    #[error("the leader epoch is {found}, behind {before}")]
    LeaderEpoch {
        /// That of the batch.
        found: i32,
        /// That of the batch before.
        before: i32,
    },
    /// An index file is wrong.
    #[error("{0}")]
    Index(IndexFault),
    /// The recovery point can't be read.
    #[error("the recovery point can't be read")]
    RecoveryPointUnreadable,
    /// The recovery point names a segment that is not there.
    #[error("the recovery point names offset {point}, where no segment begins")]
    RecoveryPointAstray {
        /// The offset in it.
        point: i64,
    },
    /// The log start can't be read.
    #[error("the log start can't be read")]
    LogStartUnreadable,
    /// One of the two files with the log start can't be read; the other one can.
    #[error("one of the two files with the log start can't be read")]
    LogStartCopyUnreadable,
    /// A file that the log can go without.
    #[error("{0}")]
    Aside(Aside),
    /// A file can't be read.
    #[error("{}", .0.chain())]
    Unreadable(LogError),
    /// Compaction is putting segments in the place of others, or a broker has ended in the middle of it.
    #[error("segments are being exchanged by compaction")]
    Exchange,
    /// A file that was being written when a broker ended, or an index without its segment.
    #[error("a leftover")]
    Leftover,
    /// A file that is kept from a repair or a recovery.
    #[error("kept from a repair or a recovery")]
    Kept,
    /// A file that is none of a log's.
    #[error("not a file of a log")]
    Stranger,
}

impl FaultKind {
    /// Whether it is only worth a mention: nothing is lost, and nothing has to be done.
    pub fn is_note(&self) -> bool {
        matches!(
            self,
            FaultKind::LogStartCopyUnreadable
                | FaultKind::LeaderEpoch { .. }
                | FaultKind::Aside(_)
                | FaultKind::InMotion { .. }
                | FaultKind::Exchange
                | FaultKind::Leftover
                | FaultKind::Kept
                | FaultKind::Stranger
        )
    }

    /// Whether the next start of the broker mends it, as after any crash, and nothing that a repair could choose otherwise is lost by that.
    pub fn is_mended_by_start(&self) -> bool {
        matches!(
            self,
            FaultKind::TornTail { .. }
                | FaultKind::Index(IndexFault::Missing | IndexFault::EntryCutOff { .. })
                | FaultKind::RecoveryPointUnreadable
                | FaultKind::RecoveryPointAstray { .. }
        )
    }

    /// A name for programs; it never changes.
    pub fn name(&self) -> &'static str {
        match self {
            FaultKind::Damaged { .. } => "damaged",
            FaultKind::Gone { .. } => "gone",
            FaultKind::Interrupted { .. } => "interrupted",
            FaultKind::TornTail { .. } => "torn_tail",
            FaultKind::InMotion { .. } => "in_motion",
            FaultKind::Records(_) => "records",
            FaultKind::LeaderEpoch { .. } => "leader_epoch",
            FaultKind::Index(_) => "index",
            FaultKind::RecoveryPointUnreadable | FaultKind::RecoveryPointAstray { .. } => "recovery_point",
            FaultKind::LogStartUnreadable => "log_start",
            FaultKind::LogStartCopyUnreadable => "log_start_copy",
            FaultKind::Aside(aside) => aside.name(),
            FaultKind::Unreadable(_) => "unreadable",
            FaultKind::Exchange => "exchange",
            FaultKind::Leftover => "leftover",
            FaultKind::Kept => "kept",
            FaultKind::Stranger => "stranger",
        }
    }

    /// What it means for whoever keeps the log.
    pub fn meaning(&self) -> &'static str {
        match self {
            FaultKind::Damaged { next_offset: None, .. } => {
                "what can't be read may be the end of the log, so nothing is cut: a broker does not open it, unless it was stopped in order; \
                 look at the disk, then copy the folder from it, or give these bytes up with a repair"
            }
            FaultKind::Damaged { reason: Damage::Unreadable(_), .. } => {
                "reads that meet these bytes fail while the disk does not give them back; everything else is served; a repair gives them up"
            }
            FaultKind::Damaged { bytes: 0, .. } => "these offsets are gone; reads of them fail, and everything else is served",
            FaultKind::Damaged { .. } => "reads that meet these bytes fail; everything else is served",
            FaultKind::Gone { .. } => {
                "reads of these offsets fail; the next start goes on behind them and gives none of them out again; restore them from a backup, or \
                 give them up with a repair"
            }
            FaultKind::Interrupted { .. } => {
                "the next start of the broker takes this for a write that a power cut has interrupted, cuts it off with all that is behind it, and \
                 keeps that in files whose names end with .removed-<n>; a repair decides otherwise"
            }
            FaultKind::TornTail { .. } => "the next start of the broker cuts it off, as after any crash; nothing that was flushed ends so",
            FaultKind::InMotion { .. } => "a broker is writing here",
            FaultKind::Records(_) => "the bytes are as a producer sent them; consumers can't decode this batch",
            FaultKind::LeaderEpoch { .. } => {
                "one of the two has changed, in bytes that no checksum covers; the records are whole, and Millpond makes no use of the number"
            }
            FaultKind::Index(IndexFault::EndsEarly { .. }) => "lookups by time can miss records",
            FaultKind::Index(IndexFault::Missing | IndexFault::EntryCutOff { .. }) => {
                "lookups may be slower; the batches are not concerned, and the next start of the broker builds the index again"
            }
            FaultKind::Index(_) => "lookups may be slower; the batches are not concerned, and a repair builds the index again",
            FaultKind::RecoveryPointUnreadable | FaultKind::RecoveryPointAstray { .. } => {
                "the next start takes every segment but the last for durable, and writes it anew; a repair mends it as well"
            }
            FaultKind::LogStartUnreadable => {
                "deleted records of the first segment are served again; the next start, or a repair, writes it anew as where that begins"
            }
            FaultKind::LogStartCopyUnreadable => "nothing is lost: the next start, or a repair, writes it anew from the other",
            FaultKind::Aside(aside) => aside.meaning(),
            FaultKind::Unreadable(_) => "the disk, or the rights on the file, need a look",
            FaultKind::Exchange => "a broker that runs completes it, and otherwise its next start; look again then",
            FaultKind::Leftover => "the next start of the broker removes it",
            FaultKind::Kept => "it can be deleted once nobody needs it",
            FaultKind::Stranger => "left alone",
        }
    }
}

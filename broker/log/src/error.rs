//! What can go wrong with a log, for whoever acts on it.

use std::io;
use std::path::{Path, PathBuf};

use millpond_protocol::batch::BatchError;
use millpond_protocol::error::ErrorCode;
use rustix::io::Errno;
use thiserror::Error;

/// Why a log could not do what it was asked. The text of a variant leaves out its cause, which is its `source`;
/// [`LogError::chain`] has both.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LogError {
    /// The offset lies before the log or behind the end that was asked for.
    #[error("offset {requested} is out of range: the log holds offsets from {start} up to, not including, {end}")]
    OffsetOutOfRange {
        /// The offset that was asked for.
        requested: i64,
        /// The first offset that can be read.
        start: i64,
        /// One past the last offset that can be read. Reading there is allowed and yields nothing.
        end: i64,
    },
    /// The operating system refused. On a write or a flush the log latches.
    #[error("can't {operation} {}", path.display())]
    Io {
        /// What was tried, as a verb: "write", "flush", "open".
        operation: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The disk or the quota has no room. Nothing of the append is left, and the same append may succeed later.
    #[error("no room on the disk to {operation} {}", path.display())]
    Full {
        /// What was tried, as a verb.
        operation: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The process has as many files open as it may. Nothing of an append is left, a flush has made nothing durable, and either may
    /// succeed later.
    #[error("no file descriptor is left to {operation} {}", path.display())]
    TooManyOpenFiles {
        /// What was tried, as a verb.
        operation: &'static str,
        /// The file or folder that was to be opened.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// An earlier write or flush failed, and the log takes no more appends until it is opened again.
    #[error("the log stopped writing after a failure: {cause}")]
    Failed {
        /// The first failure, with its causes.
        cause: String,
    },
    /// Bytes that were stored are not what was written, or the disk does not give them back. Nothing is changed on disk.
    #[error("{} is damaged at byte {position}, at or after offset {offset}: {reason}{}", path.display(), behind(*.next_offset))]
    Corrupt {
        /// The segment file.
        path: PathBuf,
        /// Where the damaged batch begins, in bytes from the start of the file.
        position: u64,
        /// The offset that was expected there.
        offset: i64,
        /// The first offset behind the damage that can be read, where a read by offset has met it and found out.
        next_offset: Option<i64>,
        /// What is wrong with it.
        reason: Damage,
    },
    /// The offsets of the batches would not fit into 63 bits.
    #[error("the offsets after {next} are used up")]
    OffsetsExhausted {
        /// The next offset of the log.
        next: i64,
    },
}

impl LogError {
    /// The code that crosses the wire for this error.
    pub fn code(&self) -> ErrorCode {
        match self {
            LogError::OffsetOutOfRange { .. } => ErrorCode::OffsetOutOfRange,
            LogError::Full { .. } => ErrorCode::StorageFull,
            LogError::TooManyOpenFiles { .. } => ErrorCode::Overloaded,
            LogError::Corrupt { .. } => ErrorCode::CorruptBatch,
            LogError::Io { .. } | LogError::Failed { .. } | LogError::OffsetsExhausted { .. } => ErrorCode::StorageFailed,
        }
    }

    /// Where a read can go on that has met damage, if that is known.
    pub fn next_offset(&self) -> Option<i64> {
        match self {
            LogError::Corrupt { next_offset, .. } => *next_offset,
            _ => None,
        }
    }

    /// The error and its causes in one line.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }

    /// [`LogError::Full`] and [`LogError::TooManyOpenFiles`] where the system said so, [`LogError::Io`] otherwise.
    pub(crate) fn io(operation: &'static str, path: &Path, source: io::Error) -> LogError {
        let path = path.to_path_buf();
        match source {
            source if is_full(&source) => LogError::Full { operation, path, source },
            source if is_out_of_files(&source) => LogError::TooManyOpenFiles { operation, path, source },
            source => LogError::Io { operation, path, source },
        }
    }

    /// Where the disk does not give back what is stored, the damage that this is: of the batch that begins at this position of the segment,
    /// with this offset. Any other error stays as it is.
    pub(crate) fn at(self, position: u64, offset: i64) -> LogError {
        match self {
            LogError::Io { path, source, .. } if is_unreadable(&source) => {
                LogError::Corrupt { path, position, offset, next_offset: None, reason: Damage::Unreadable(source) }
            }
            other => other,
        }
    }

    /// Of a sync: what has no room there may be lost already, and trying again does not help. So a full disk is a failure like any other.
    pub(crate) fn of_sync(self) -> LogError {
        match self {
            LogError::Full { operation, path, source } => LogError::Io { operation, path, source },
            other => other,
        }
    }

    /// Whether the disk is as it was before and the same call may succeed later, so that the log need not latch.
    pub(crate) fn is_passing(&self) -> bool {
        matches!(self, LogError::Full { .. } | LogError::TooManyOpenFiles { .. })
    }
}

/// Whether the system refused to open a file because the process, or the machine, has too many open (EMFILE, ENFILE). Only opening fails
/// so: of a write or a sync it never says this.
pub fn is_out_of_files(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE))
}

/// Whether the system has no room: on the disk, or in a quota.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Whether the disk, or the file system, says that what is stored there is lost, or can't be read for now. A right that is missing, or a
/// descriptor, says nothing about the bytes.
pub(crate) fn is_unreadable(error: &io::Error) -> bool {
    Errno::from_io_error(error).is_some_and(|errno| UNREADABLE.contains(&errno))
}

/// What Linux says of a sector that can't be read (EIO, as a rule; ENODATA and EILSEQ from below), and a file system of bytes that fail its
/// own checks (EBADMSG, EUCLEAN).
#[cfg(target_os = "linux")]
const UNREADABLE: &[Errno] = &[Errno::IO, Errno::NODATA, Errno::ILSEQ, Errno::BADMSG, Errno::UCLEAN];

/// What every system says of a sector that can't be read.
#[cfg(not(target_os = "linux"))]
const UNREADABLE: &[Errno] = &[Errno::IO];

/// Ends the text of damage.
fn behind(next_offset: Option<i64>) -> String {
    next_offset.map_or_else(String::new, |next_offset| format!("; what is behind it begins with offset {next_offset}"))
}

/// What is wrong with stored bytes.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Damage {
    /// The file ends inside a header.
    #[error("{left_bytes} bytes are left, fewer than the header of a batch has")]
    HeaderCutOff {
        /// Bytes from the start of the batch to the end of the file.
        left_bytes: u64,
    },
    /// The file ends inside a batch.
    #[error("the batch says that it has {batch_bytes} bytes, {left_bytes} are left")]
    BatchCutOff {
        /// The length that the header gives.
        batch_bytes: u64,
        /// Bytes from the start of the batch to the end of the file.
        left_bytes: u64,
    },
    /// What should be a header is none.
    #[error("the header of the batch is not valid: {0}")]
    Header(BatchError),
    /// The batch does not follow on the one before it, or does not belong to the segment.
    #[error("the batch begins with offset {found}, expected {expected}")]
    UnexpectedOffset {
        /// The offset after the batch before.
        expected: i64,
        /// The base offset in the header.
        found: i64,
    },
    /// The batch reaches further from the segment's base offset than an index entry can say.
    #[error("the batch ends {distance} offsets after the start of its segment")]
    OffsetTooFar {
        /// Last offset of the batch, less the base offset of the segment.
        distance: i64,
    },
    /// The checksum does not match the bytes.
    #[error("{0}")]
    Checksum(BatchError),
    /// The disk does not give the bytes back. It may do so later.
    #[error("it can't be read: {0}")]
    Unreadable(io::Error),
    /// A segment ends before the next one begins: a file was lost or shortened.
    #[error("the segment ends before offset {next_base}, where the next one begins")]
    OffsetsMissing {
        /// The base offset of the next segment.
        next_base: i64,
    },
    /// A batch takes offsets that belong to the next segment.
    #[error("the batch reaches behind offset {next_base}, where the next segment begins")]
    OffsetsOverlap {
        /// The base offset of the next segment.
        next_base: i64,
    },
}

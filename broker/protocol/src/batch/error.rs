//! Why a batch was refused.

use crate::{compression::CompressionError, error::ErrorCode};
use thiserror::Error;

/// Why a batch was refused, or could not be built.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BatchError {
    /// The bytes end inside the header or inside the batch that it announces.
    #[error("the batch is cut off: {needed} bytes are needed and {available} are there")]
    Truncated {
        /// Bytes that the header, or the length in it, asks for.
        needed: usize,
        /// Bytes that are there.
        available: usize,
    },
    /// More bytes are there than the one batch that was expected.
    #[error("{bytes} bytes follow the batch")]
    BytesFollow {
        /// How many.
        bytes: usize,
    },
    /// An older or newer format than version 2 of the record batch.
    #[error("the batch has format version {0}; only version 2 is understood")]
    UnsupportedMagic(i8),
    /// The length in the header is less than the rest of the header alone.
    #[error("the batch announces a length of {0} bytes, less than its own header")]
    LengthTooSmall(i32),
    /// The number of records is negative, or larger than the offsets that the batch takes.
    #[error("the batch announces {record_count} records with a last offset delta of {last_offset_delta}")]
    CountOutOfRange {
        /// Records that the header announces.
        record_count: i32,
        /// The last offset delta that it announces.
        last_offset_delta: i32,
    },
    /// The attributes name a codec that is not there.
    #[error("the batch names compression {0}, which is unknown")]
    UnknownCodec(i16),
    /// The checksum does not match: the bytes have changed since the batch was built.
    #[error("the batch's checksum is {stored:08x} but its bytes have {computed:08x}")]
    ChecksumMismatch {
        /// The CRC-32C in the header.
        stored: u32,
        /// The CRC-32C of the bytes.
        computed: u32,
    },
    /// The records section could not be decompressed or compressed.
    #[error(transparent)]
    Compression(#[from] CompressionError),
    /// The section holds another number of records than the header announces.
    #[error("the batch announces {announced} records and holds {found}")]
    CountMismatch {
        /// Records in the header.
        announced: i32,
        /// Records found; where reading stopped early because there were more than announced, one more than that.
        found: i64,
    },
    /// A record is not well formed.
    #[error("record {index} of the batch is not valid: {fault}")]
    InvalidRecord {
        /// Which one, from 0.
        index: u32,
        /// What is wrong with it.
        fault: RecordFault,
    },
    /// A batch without records was to be finished.
    #[error("a batch needs at least one record")]
    Empty,
    /// The batch would grow over what its length field can say.
    #[error("the batch would have {bytes} bytes, over the format's limit of {limit} bytes")]
    TooLarge {
        /// Bytes with the record that was refused.
        bytes: usize,
        /// Bytes that are possible.
        limit: usize,
    },
    /// A record's timestamp lies too far from the first one's to be written as a difference.
    #[error("the timestamps {base} and {timestamp} lie too far apart for one batch")]
    TimestampsTooFarApart {
        /// The first record's timestamp, in milliseconds since 1970-01-01 UTC.
        base: i64,
        /// The timestamp that was refused, likewise.
        timestamp: i64,
    },
}

impl BatchError {
    /// The code that crosses the wire: `CorruptBatch` for a checksum, `BatchTooLarge` for records over a limit, else `InvalidBatch`.
    pub const fn code(&self) -> ErrorCode {
        match self {
            BatchError::ChecksumMismatch { .. } => ErrorCode::CorruptBatch,
            BatchError::TooLarge { .. } | BatchError::Compression(CompressionError::OverLimit { .. }) => ErrorCode::BatchTooLarge,
            _ => ErrorCode::InvalidBatch,
        }
    }
}

/// What is wrong with a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RecordFault {
    /// A variable-length integer is cut off or has more bits than it may.
    #[error("an integer is cut off or too long")]
    Integer,
    /// A length is negative where it can't be, or reaches behind the bytes that are there.
    #[error("a length of {length} where {available} bytes are left")]
    Length {
        /// The length that is claimed.
        length: i32,
        /// Bytes that are left.
        available: usize,
    },
    /// The record ends before its attributes.
    #[error("it is empty")]
    Empty,
    /// The offset delta is negative, or behind the last one that the header announces.
    #[error("an offset delta of {0}")]
    OffsetDelta(i32),
    /// The number of headers is negative or larger than the bytes that are left could hold.
    #[error("{count} headers in {available} bytes")]
    HeaderCount {
        /// Headers that are claimed.
        count: i32,
        /// Bytes that are left.
        available: usize,
    },
    /// The name of a header is not UTF-8.
    #[error("the name of a header is not UTF-8")]
    HeaderName,
    /// The record's length says more than its content.
    #[error("{bytes} bytes are left over behind its headers")]
    BytesLeftOver {
        /// How many.
        bytes: usize,
    },
}

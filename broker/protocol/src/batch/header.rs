//! The header of a batch.

use super::BatchError;
use crate::compression::Codec;

/// Bytes of the header.
pub const HEADER_BYTES: usize = 61;

/// Bytes in front of what `batch_length` counts: the base offset and the length itself.
pub const LENGTH_PREFIX_BYTES: usize = 12;

/// The format version that is read and written.
pub const MAGIC: i8 = 2;

/// What `batch_length` is without any record: the header less the bytes that it does not count.
const BATCH_LENGTH_MIN: i32 = 49;

/// Where the bytes begin that the checksum covers; they reach to the end of the batch.
pub const CHECKSUMMED_FROM: usize = 21;
/// Where the checksum itself is.
pub(super) const CHECKSUM_AT: usize = 17;
/// Where the producer id, the producer epoch and the base sequence are, one behind the other.
pub(super) const PRODUCER_AT: usize = 43;
/// Bytes of these three.
pub(super) const PRODUCER_BYTES: usize = 14;

/// What a header says, in the order of its bytes (drawn in [`crate::batch`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    /// The offset of the record whose offset delta is 0. The broker assigns it; the checksum does not cover it.
    pub base_offset: i64,
    /// Bytes that follow this field.
    pub batch_length: i32,
    /// The broker assigns it; the checksum does not cover it.
    pub partition_leader_epoch: i32,
    /// The format version: 2.
    pub magic: i8,
    /// CRC-32C of everything from the attributes to the end.
    pub crc: u32,
    /// Compression and flags.
    pub attributes: Attributes,
    /// The offset delta of the last record that was in the batch when it was built; that record may be gone since.
    pub last_offset_delta: i32,
    /// Milliseconds since 1970-01-01 UTC, to which the records' timestamp deltas are added.
    pub base_timestamp: i64,
    /// The highest timestamp, in milliseconds since 1970-01-01 UTC; with `LogAppendTime` the timestamp of every record.
    pub max_timestamp: i64,
    /// -1 without idempotence.
    pub producer_id: i64,
    /// -1 without idempotence.
    pub producer_epoch: i16,
    /// The sequence number of the record whose offset delta is 0; -1 without idempotence.
    pub base_sequence: i32,
    /// Records in the batch. Less than `last_offset_delta + 1` where some were removed; 0 where all were.
    pub record_count: i32,
}

/// The attributes of a batch.
///
/// ```text
///  bit  15 ... 7   6              5        4              3               2 1 0
///      +---------+--------------+--------+--------------+---------------+--------+
///      | unused  | delete       | control| transactional| timestamp type| codec  |
///      |         | horizon      |        |              | 1: log append |        |
///      +---------+--------------+--------+--------------+---------------+--------+
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes(pub i16);

/// What the timestamps of a batch mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimestampType {
    /// The producer gave each record its own.
    CreateTime,
    /// The broker gave all of them one, when it appended the batch: the header's `max_timestamp`.
    LogAppendTime,
}

const LOG_APPEND_TIME: i16 = 1 << 3;
const TRANSACTIONAL: i16 = 1 << 4;
const CONTROL: i16 = 1 << 5;
const DELETE_HORIZON: i16 = 1 << 6;

impl Attributes {
    /// How the records section is compressed; an error for the numbers that no codec has.
    pub fn codec(self) -> Result<Codec, BatchError> {
        Codec::from_attributes(self.0).ok_or(BatchError::UnknownCodec(self.0 & Codec::ATTRIBUTES_MASK))
    }

    /// The same attributes with another codec.
    #[must_use]
    pub const fn with_codec(self, codec: Codec) -> Attributes {
        Attributes(self.0 & !Codec::ATTRIBUTES_MASK | codec as i16)
    }

    /// What the timestamps mean.
    pub const fn timestamp_type(self) -> TimestampType {
        if self.0 & LOG_APPEND_TIME == 0 { TimestampType::CreateTime } else { TimestampType::LogAppendTime }
    }

    /// Whether the batch is part of a transaction.
    pub const fn is_transactional(self) -> bool {
        self.0 & TRANSACTIONAL != 0
    }

    /// Whether the batch holds a marker (of a transaction) in place of records.
    pub const fn is_control(self) -> bool {
        self.0 & CONTROL != 0
    }

    /// Whether `base_timestamp` says from when on compaction may remove the batch's tombstones (KIP-534).
    pub const fn has_delete_horizon(self) -> bool {
        self.0 & DELETE_HORIZON != 0
    }

    /// The same attributes, saying that `base_timestamp` is a delete horizon.
    #[must_use]
    pub const fn with_delete_horizon(self) -> Attributes {
        Attributes(self.0 | DELETE_HORIZON)
    }
}

impl BatchHeader {
    /// Reads the header at the front of `bytes`; more may follow. Checks the format version, that the length holds at least the
    /// header, that the codec is known, and that there are no more records than offsets. Does not need the rest of the batch and
    /// does not look at the checksum.
    pub fn parse(bytes: &[u8]) -> Result<BatchHeader, BatchError> {
        let bytes: &[u8; HEADER_BYTES] =
            bytes.first_chunk().ok_or(BatchError::Truncated { needed: HEADER_BYTES, available: bytes.len() })?;
        let header = BatchHeader {
            base_offset: i64::from_be_bytes(field(bytes, 0)),
            batch_length: i32::from_be_bytes(field(bytes, 8)),
            partition_leader_epoch: i32::from_be_bytes(field(bytes, 12)),
            magic: i8::from_be_bytes(field(bytes, 16)),
            crc: u32::from_be_bytes(field(bytes, CHECKSUM_AT)),
            attributes: Attributes(i16::from_be_bytes(field(bytes, CHECKSUMMED_FROM))),
            last_offset_delta: i32::from_be_bytes(field(bytes, 23)),
            base_timestamp: i64::from_be_bytes(field(bytes, 27)),
            max_timestamp: i64::from_be_bytes(field(bytes, 35)),
            producer_id: i64::from_be_bytes(field(bytes, 43)),
            producer_epoch: i16::from_be_bytes(field(bytes, 51)),
            base_sequence: i32::from_be_bytes(field(bytes, 53)),
            record_count: i32::from_be_bytes(field(bytes, 57)),
        };
        header.check()?;
        Ok(header)
    }

    fn check(&self) -> Result<(), BatchError> {
        if self.magic != MAGIC {
            return Err(BatchError::UnsupportedMagic(self.magic));
        }
        if self.batch_length < BATCH_LENGTH_MIN {
            return Err(BatchError::LengthTooSmall(self.batch_length));
        }
        let (record_count, last_offset_delta) = (self.record_count, self.last_offset_delta);
        if record_count < 0 || last_offset_delta < 0 || i64::from(record_count) > i64::from(last_offset_delta) + 1 {
            return Err(BatchError::CountOutOfRange { record_count, last_offset_delta });
        }
        self.attributes.codec().map(|_| ())
    }

    /// Bytes of the whole batch, header included. 0 for a length that no parsed header has.
    pub fn total_bytes(&self) -> usize {
        usize::try_from(self.batch_length).map_or(0, |length| length + LENGTH_PREFIX_BYTES)
    }

    /// The last offset that the batch takes.
    pub const fn last_offset(&self) -> i64 {
        self.base_offset.saturating_add(self.last_offset_delta as i64)
    }

    /// The sequence number of the record with the last offset delta: the batch takes the numbers up to this one. -1 without idempotence.
    pub const fn last_sequence(&self) -> i32 {
        if self.base_sequence < 0 { self.base_sequence } else { sequence_after(self.base_sequence, self.last_offset_delta) }
    }

    /// The first offset behind the batch.
    pub const fn next_offset(&self) -> i64 {
        self.last_offset().saturating_add(1)
    }

    /// The header as bytes.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[0..8].copy_from_slice(&self.base_offset.to_be_bytes());
        bytes[8..12].copy_from_slice(&self.batch_length.to_be_bytes());
        bytes[12..16].copy_from_slice(&self.partition_leader_epoch.to_be_bytes());
        bytes[16..17].copy_from_slice(&self.magic.to_be_bytes());
        bytes[17..21].copy_from_slice(&self.crc.to_be_bytes());
        bytes[21..23].copy_from_slice(&self.attributes.0.to_be_bytes());
        bytes[23..27].copy_from_slice(&self.last_offset_delta.to_be_bytes());
        bytes[27..35].copy_from_slice(&self.base_timestamp.to_be_bytes());
        bytes[35..43].copy_from_slice(&self.max_timestamp.to_be_bytes());
        bytes[43..51].copy_from_slice(&self.producer_id.to_be_bytes());
        bytes[51..53].copy_from_slice(&self.producer_epoch.to_be_bytes());
        bytes[53..57].copy_from_slice(&self.base_sequence.to_be_bytes());
        bytes[57..61].copy_from_slice(&self.record_count.to_be_bytes());
        bytes
    }
}

/// The sequence number `by` records behind this one. Behind `i32::MAX` they begin again with 0 (KIP-98).
pub const fn sequence_after(sequence: i32, by: i32) -> i32 {
    sequence.wrapping_add(by) & i32::MAX
}

/// The sequence number `by` records before this one.
pub const fn sequence_before(sequence: i32, by: i32) -> i32 {
    sequence.wrapping_sub(by) & i32::MAX
}

/// `N` bytes from `at` on; both are constants of the layout above, inside the header.
fn field<const N: usize>(bytes: &[u8; HEADER_BYTES], at: usize) -> [u8; N] {
    let mut value = [0; N];
    value.copy_from_slice(&bytes[at..at + N]);
    value
}

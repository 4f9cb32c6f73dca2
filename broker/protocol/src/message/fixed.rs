//! The messages of the hot path, with a fixed layout.

use super::{Durability, MessageError};
use std::time::Duration;

/// The answer to one batch that was stored.
///
/// ```text
///  0             8             16            24              28           32          36
/// +-------------+-------------+-------------+---------------+------------+-----------+
/// | base_offset | last_offset | append_time | topic_epoch   | durability | records   |
/// | i64         | i64         | i64 ms      | u32           | u32        | _dropped  |
/// +-------------+-------------+-------------+---------------+------------+-----------+
/// ```
///
/// `durability` is 0 for `sync`, `0xffff_ffff` for `os`, else the interval in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack {
    /// The offset of the batch's first record: record number `n` of the batch is at `base_offset + n`, unless a transform left it
    /// out (then that offset stays unused) or made several records of one (then the offsets run on from here). -1 if transforms
    /// left out all of them: nothing is stored then, and no offset is taken.
    pub base_offset: i64,
    /// The last offset that the batch takes; -1 if it takes none.
    pub last_offset: i64,
    /// When it was appended, in milliseconds since 1970-01-01 UTC by the broker's clock.
    pub append_time_ms: i64,
    /// Goes up when the topic's settings or modules change. A client that sees a new value asks for the topic again.
    pub topic_epoch: u32,
    /// What this acknowledgement means.
    pub durability: Durability,
    /// How many of the batch's records a transform left out.
    pub records_dropped: u32,
}

/// Where the records of a batch went that the broker placed.
///
/// ```text
///  0      36           40
/// +------+------------+-----------------------------+----
/// | Ack  | count u32  | partition u32 | offset i64  | ... count times
/// +------+------------+-----------------------------+----
/// ```
///
/// In the [`Ack`], `base_offset` and `last_offset` are -1. A record that was left out has partition `0xffff_ffff` and offset -1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placements {
    /// What holds for the whole batch.
    pub ack: Ack,
    /// One entry for each record of the batch, in order.
    pub records: Vec<PlacedRecord>,
}

/// Where one record went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlacedRecord {
    /// Its partition.
    pub partition: u32,
    /// Its offset.
    pub offset: i64,
}

impl PlacedRecord {
    /// A record that a transform left out.
    pub const DROPPED: PlacedRecord = PlacedRecord { partition: u32::MAX, offset: -1 };
}

/// How far a partition reaches. In front of the batches of a `Batches` frame.
///
/// ```text
///  0            8                16          24
/// +------------+----------------+-----------+-------------------------------
/// | log_start  | high_watermark | log_end   | record batches as they are ...
/// | i64        | i64            | i64       |
/// +------------+----------------+-----------+-------------------------------
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Watermarks {
    /// The first offset that is still there.
    pub log_start: i64,
    /// One past the last offset that consumers can read.
    pub high_watermark: i64,
    /// One past the last offset that was written.
    pub log_end: i64,
}

impl Ack {
    /// Bytes of the layout.
    pub const BYTES: usize = 36;

    /// The acknowledgement as bytes.
    pub fn encode(&self) -> [u8; Ack::BYTES] {
        let mut bytes = [0; Ack::BYTES];
        bytes[0..8].copy_from_slice(&self.base_offset.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.last_offset.to_be_bytes());
        bytes[16..24].copy_from_slice(&self.append_time_ms.to_be_bytes());
        bytes[24..28].copy_from_slice(&self.topic_epoch.to_be_bytes());
        bytes[28..32].copy_from_slice(&durability_number(self.durability).to_be_bytes());
        bytes[32..36].copy_from_slice(&self.records_dropped.to_be_bytes());
        bytes
    }

    /// Reads an acknowledgement from exactly [`Ack::BYTES`] bytes.
    pub fn decode(bytes: &[u8]) -> Result<Ack, MessageError> {
        let bytes: &[u8; Ack::BYTES] =
            bytes.try_into().map_err(|_| MessageError::WrongLength { expected: Ack::BYTES, actual: bytes.len() })?;
        Ok(Ack {
            base_offset: i64_at(bytes, 0),
            last_offset: i64_at(bytes, 8),
            append_time_ms: i64_at(bytes, 16),
            topic_epoch: u32_at(bytes, 24),
            durability: durability_from(u32_at(bytes, 28)),
            records_dropped: u32_at(bytes, 32),
        })
    }
}

impl Placements {
    const ENTRY_BYTES: usize = 12;

    /// The placements as bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(Ack::BYTES + 4 + self.records.len() * Self::ENTRY_BYTES);
        bytes.extend_from_slice(&self.ack.encode());
        let count = u32::try_from(self.records.len()).unwrap_or_else(|_| unreachable!("a batch holds at most i32::MAX records"));
        bytes.extend_from_slice(&count.to_be_bytes());
        for record in &self.records {
            bytes.extend_from_slice(&record.partition.to_be_bytes());
            bytes.extend_from_slice(&record.offset.to_be_bytes());
        }
        bytes
    }

    /// Reads placements; the count must agree with the bytes that are there.
    pub fn decode(bytes: &[u8]) -> Result<Placements, MessageError> {
        let short = MessageError::WrongLength { expected: Ack::BYTES + 4, actual: bytes.len() };
        let (ack, rest) = bytes.split_at_checked(Ack::BYTES).ok_or(short)?;
        let ack = Ack::decode(ack)?;
        let (count, entries) =
            rest.split_at_checked(4).ok_or(MessageError::WrongLength { expected: Ack::BYTES + 4, actual: bytes.len() })?;
        let expected = u64::from(u32_at(count, 0)) * Self::ENTRY_BYTES as u64;
        if entries.len() as u64 != expected {
            return Err(MessageError::WrongLength { expected: usize::try_from(expected).unwrap_or(usize::MAX), actual: entries.len() });
        }
        let records = entries
            .chunks_exact(Self::ENTRY_BYTES)
            .map(|entry| PlacedRecord { partition: u32_at(entry, 0), offset: i64_at(entry, 4) })
            .collect();
        Ok(Placements { ack, records })
    }
}

impl Watermarks {
    /// Bytes of the layout.
    pub const BYTES: usize = 24;

    /// The watermarks as bytes.
    pub fn encode(&self) -> [u8; Watermarks::BYTES] {
        let mut bytes = [0; Watermarks::BYTES];
        bytes[0..8].copy_from_slice(&self.log_start.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.high_watermark.to_be_bytes());
        bytes[16..24].copy_from_slice(&self.log_end.to_be_bytes());
        bytes
    }

    /// Reads the watermarks from the front of a payload; the batches lie behind them.
    pub fn decode_front(bytes: &[u8]) -> Result<Watermarks, MessageError> {
        let front = bytes.get(..Watermarks::BYTES).ok_or(MessageError::WrongLength { expected: Watermarks::BYTES, actual: bytes.len() })?;
        Ok(Watermarks { log_start: i64_at(front, 0), high_watermark: i64_at(front, 8), log_end: i64_at(front, 16) })
    }
}

fn durability_number(durability: Durability) -> u32 {
    match durability {
        Durability::Sync => 0,
        Durability::Os => u32::MAX,
        // An interval is at least a millisecond and at most an hour.
        Durability::Interval(interval) => u32::try_from(interval.as_millis()).unwrap_or(u32::MAX - 1).max(1),
    }
}

fn durability_from(number: u32) -> Durability {
    match number {
        0 => Durability::Sync,
        u32::MAX => Durability::Os,
        interval_ms => Durability::Interval(Duration::from_millis(u64::from(interval_ms))),
    }
}

/// The caller has checked that the bytes are there.
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut value = [0; 4];
    value.copy_from_slice(&bytes[at..at + 4]);
    u32::from_be_bytes(value)
}

/// The caller has checked that the bytes are there.
fn i64_at(bytes: &[u8], at: usize) -> i64 {
    let mut value = [0; 8];
    value.copy_from_slice(&bytes[at..at + 8]);
    i64::from_be_bytes(value)
}

//! Kafka's `RecordBatch` v2 (KIP-98): what is sent, stored and fetched, verbatim.
//!
//! ```text
//!  0             8          12         16      17       21           23            27
//! +-------------+----------+----------+-------+--------+------------+-------------+----------------
//! | base_offset | batch_   | leader_  | magic | crc    | attributes | last_offset | base_timestamp
//! | i64         | length   | epoch    | i8    | u32    | i16        | _delta      | i64
//! |             | i32      | i32      | = 2   |        |            | i32         |
//! +-------------+----------+----------+-------+--------+------------+-------------+----------------
//!               '--- batch_length counts from here ->  '--- crc covers from here to the end ->
//!
//!  27               35              43            51              53              57             61
//! +----------------+---------------+-------------+---------------+---------------+--------------+-----------
//! | base_timestamp | max_timestamp | producer_id | producer_     | base_         | record_count | records
//! | i64 ms         | i64 ms        | i64         | epoch i16     | sequence i32  | i32          | section ...
//! +----------------+---------------+-------------+---------------+---------------+--------------+-----------
//! ```
//!
//! Integers are big-endian. The records section (drawn in [`crate::record`]) is compressed as a whole. The checksum, a CRC-32C,
//! leaves out what the broker assigns, so a batch gets its offset without anyone reading its records.
//!
//! A [`Batch`] has a well formed header and exactly the bytes that it announces. Nothing is known about its checksum until
//! [`Batch::verify_crc`], nor about its records until they are read.

mod builder;
mod error;
mod header;

pub use builder::{BatchBuilder, rebuild, with_producer};
pub use error::{BatchError, RecordFault};
pub use header::{
    Attributes, BatchHeader, CHECKSUMMED_FROM, HEADER_BYTES, LENGTH_PREFIX_BYTES, MAGIC, TimestampType, sequence_after, sequence_before,
};

use crate::{
    compression::{self, Codec, CompressionError},
    record::{self, Records, SectionSummary},
};
use bytes::Bytes;

/// One whole batch. Cheap to clone: the bytes are shared.
#[derive(Clone, PartialEq, Eq)]
pub struct Batch {
    header: BatchHeader,
    bytes: Bytes,
}

impl std::fmt::Debug for Batch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Batch").field("header", &self.header).field("bytes", &self.bytes.len()).finish()
    }
}

impl Batch {
    /// Takes bytes that are exactly one batch.
    pub fn parse(bytes: Bytes) -> Result<Batch, BatchError> {
        let header = BatchHeader::parse(&bytes)?;
        let needed = header.total_bytes();
        if bytes.len() < needed {
            return Err(BatchError::Truncated { needed, available: bytes.len() });
        }
        if bytes.len() > needed {
            return Err(BatchError::BytesFollow { bytes: bytes.len() - needed });
        }
        Ok(Batch { header, bytes })
    }

    /// Takes the first of several batches that follow each other; none when there are no bytes. After an error the bytes are as
    /// they were.
    pub fn take_front(bytes: &mut Bytes) -> Result<Option<Batch>, BatchError> {
        if bytes.is_empty() {
            return Ok(None);
        }
        let header = BatchHeader::parse(bytes)?;
        let needed = header.total_bytes();
        if bytes.len() < needed {
            return Err(BatchError::Truncated { needed, available: bytes.len() });
        }
        Ok(Some(Batch { header, bytes: bytes.split_to(needed) }))
    }

    /// Compares the checksum with the bytes.
    pub fn verify_crc(&self) -> Result<(), BatchError> {
        let computed = checksum(&self.bytes[CHECKSUMMED_FROM..]);
        let stored = self.header.crc;
        if computed == stored { Ok(()) } else { Err(BatchError::ChecksumMismatch { stored, computed }) }
    }

    /// What the header says.
    pub const fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// The batch as it travels and rests, header included.
    pub const fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The first 16 bytes (base offset, length, leader epoch) with the two values that a broker assigns. The rest of the batch,
    /// checksum included, holds whatever they are.
    pub fn with_base_offset(&self, base_offset: i64, leader_epoch: i32) -> [u8; 16] {
        let mut front = [0; 16];
        front[0..8].copy_from_slice(&base_offset.to_be_bytes());
        front[8..12].copy_from_slice(&self.header.batch_length.to_be_bytes());
        front[12..16].copy_from_slice(&leader_epoch.to_be_bytes());
        front
    }

    /// The records section, decompressed to at most `limit_bytes` bytes; without compression a part of the batch, not a copy.
    pub fn records_section(&self, limit_bytes: usize) -> Result<Bytes, BatchError> {
        let section = self.bytes.slice(HEADER_BYTES..);
        match self.header.attributes.codec()? {
            Codec::None if section.len() > limit_bytes => Err(CompressionError::OverLimit { limit_bytes }.into()),
            Codec::None => Ok(section),
            // A batch whose records were all removed has no section, whatever its codec.
            _ if section.is_empty() && self.header.record_count == 0 => Ok(section),
            codec => Ok(Bytes::from(compression::decompress(codec, &section, limit_bytes)?)),
        }
    }

    /// The records, in order. The section is decompressed here and now, to at most `limit_bytes` bytes.
    pub fn records(&self, limit_bytes: usize) -> Result<Records, BatchError> {
        Ok(Records::new(&self.header, self.records_section(limit_bytes)?))
    }

    /// Walks every record and holds them against the header: their number, and that no offset delta lies behind the last one.
    /// Returns the section so that it need not be decompressed again. Does not look at the checksum.
    pub fn check_records(&self, limit_bytes: usize) -> Result<(Bytes, SectionSummary), BatchError> {
        let section = self.records_section(limit_bytes)?;
        let summary = record::check_section(&section)?;
        let header = &self.header;
        if summary.record_count != header.record_count {
            return Err(BatchError::CountMismatch { announced: header.record_count, found: i64::from(summary.record_count) });
        }
        if summary.last_offset_delta > header.last_offset_delta {
            let index = header.record_count.saturating_sub(1).cast_unsigned();
            return Err(BatchError::InvalidRecord { index, fault: RecordFault::OffsetDelta(summary.last_offset_delta) });
        }
        Ok((section, summary))
    }
}

/// CRC-32C (Castagnoli), as in the header of a batch.
pub fn checksum(bytes: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(bytes)
}

/// The checksum of a batch that is read piece by piece, for whoever must not hold a whole one in memory.
#[derive(Clone, Debug)]
pub struct BatchChecksum(crc_fast::Digest);

impl BatchChecksum {
    /// The checksum of no bytes.
    pub fn new() -> BatchChecksum {
        BatchChecksum(crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi))
    }

    /// Takes the next bytes of the batch into account. The first are those from [`CHECKSUMMED_FROM`] on.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The CRC-32C of the bytes so far, which a header holds in [`BatchHeader::crc`].
    pub fn value(&self) -> u32 {
        // The digest of a checksum of 32 bits has no others set.
        u32::try_from(self.0.finalize()).unwrap_or(u32::MAX)
    }
}

impl Default for BatchChecksum {
    fn default() -> BatchChecksum {
        BatchChecksum::new()
    }
}

#[cfg(test)]
mod tests;

//! Building batches.

use super::{
    Attributes, BatchError, BatchHeader, HEADER_BYTES, LENGTH_PREFIX_BYTES, TimestampType,
    header::{CHECKSUM_AT, CHECKSUMMED_FROM, MAGIC, PRODUCER_AT, PRODUCER_BYTES, sequence_before},
};
use crate::{
    compression::{self, Codec},
    record::{self, NewRecord, SectionSummary},
};
use bytes::{Bytes, BytesMut};

/// The largest batch that the length field can announce, in bytes.
const BATCH_BYTES_MAX: usize = i32::MAX as usize + LENGTH_PREFIX_BYTES;

/// Builds one batch after the other.
///
/// Records are written once, behind room that is left for the header: a batch without compression is handed over as it lies. A
/// record costs no allocation of its own. The buffer of the next batch is taken with its first record, as large as the last batch
/// was.
#[derive(Debug)]
pub struct BatchBuilder {
    /// Empty, or the header's room and the records so far.
    buffer: Vec<u8>,
    /// Bytes to start the next buffer with.
    next_capacity: usize,
    record_count: u32,
    base_timestamp: i64,
    max_timestamp: i64,
    producer: Producer,
}

#[derive(Clone, Copy, Debug)]
struct Producer {
    id: i64,
    epoch: i16,
    base_sequence: i32,
}

impl Producer {
    const NONE: Producer = Producer { id: -1, epoch: -1, base_sequence: -1 };
}

impl Default for BatchBuilder {
    fn default() -> Self {
        BatchBuilder::new()
    }
}

impl BatchBuilder {
    /// A builder without records. Takes no memory yet.
    pub const fn new() -> Self {
        BatchBuilder {
            buffer: Vec::new(),
            next_capacity: 0,
            record_count: 0,
            base_timestamp: 0,
            max_timestamp: 0,
            producer: Producer::NONE,
        }
    }

    /// Appends a record and returns its index in the batch, which is its offset delta. After an error the batch is as it was.
    #[inline]
    pub fn push(&mut self, record: &NewRecord<'_>) -> Result<u32, BatchError> {
        if self.record_count == 0 {
            self.begin(record.timestamp);
        }
        let timestamp_delta = record
            .timestamp
            .checked_sub(self.base_timestamp)
            .ok_or(BatchError::TimestampsTooFarApart { base: self.base_timestamp, timestamp: record.timestamp })?;
        let index = self.record_count;
        // Every record takes at least seven bytes, so the size limit below comes long before i32::MAX records.
        let offset_delta = index.cast_signed();
        let body_bytes = record::body_bytes(record, timestamp_delta, offset_delta);
        let size = self.buffer.len().saturating_add(record::encoded_bytes(body_bytes));
        if size > BATCH_BYTES_MAX {
            return Err(BatchError::TooLarge { bytes: size, limit: BATCH_BYTES_MAX });
        }
        record::write(&mut self.buffer, record, timestamp_delta, offset_delta, body_bytes);
        self.max_timestamp = self.max_timestamp.max(record.timestamp);
        self.record_count += 1;
        Ok(index)
    }

    #[cold]
    fn begin(&mut self, timestamp: i64) {
        self.buffer.clear();
        self.buffer.reserve(self.next_capacity.max(HEADER_BYTES));
        self.buffer.resize(HEADER_BYTES, 0);
        self.base_timestamp = timestamp;
        self.max_timestamp = timestamp;
    }

    /// Records so far.
    pub const fn len(&self) -> u32 {
        self.record_count
    }

    /// Whether there is no record yet.
    pub const fn is_empty(&self) -> bool {
        self.record_count == 0
    }

    /// Bytes of the batch as it stands, without compression: the header and the records.
    pub const fn size_bytes(&self) -> usize {
        if self.record_count == 0 { HEADER_BYTES } else { self.buffer.len() }
    }

    /// Bytes that the batch would have with this record, without compression.
    pub fn size_with(&self, record: &NewRecord<'_>) -> usize {
        let base = if self.record_count == 0 { record.timestamp } else { self.base_timestamp };
        let body_bytes = record::body_bytes(record, record.timestamp.saturating_sub(base), self.record_count.cast_signed());
        self.size_bytes().saturating_add(record::encoded_bytes(body_bytes))
    }

    /// Names the producer of this batch; `base_sequence` is the number of its first record. Holds until the batch is finished.
    pub const fn set_producer(&mut self, id: i64, epoch: i16, base_sequence: i32) {
        self.producer = Producer { id, epoch, base_sequence };
    }

    /// The batch, with base offset 0 and leader epoch -1, and a builder without records. After an error the records are still there.
    pub fn finish(&mut self, codec: Codec) -> Result<Bytes, BatchError> {
        if self.record_count == 0 {
            return Err(BatchError::Empty);
        }
        let header = BatchHeader {
            base_offset: 0,
            batch_length: 0,
            partition_leader_epoch: -1,
            magic: MAGIC,
            crc: 0,
            attributes: Attributes::default().with_codec(codec),
            last_offset_delta: (self.record_count - 1).cast_signed(),
            base_timestamp: self.base_timestamp,
            max_timestamp: self.max_timestamp,
            producer_id: self.producer.id,
            producer_epoch: self.producer.epoch,
            base_sequence: self.producer.base_sequence,
            record_count: self.record_count.cast_signed(),
        };
        let batch = if codec == Codec::None {
            self.next_capacity = self.buffer.len();
            seal(std::mem::take(&mut self.buffer), header)?
        } else {
            // The buffer stays here and serves the next batch.
            assemble(header, codec, &self.buffer[HEADER_BYTES..])?
        };
        self.record_count = 0;
        self.producer = Producer::NONE;
        Ok(batch)
    }
}

/// A batch with other records in place of those of `original`.
///
/// `section` is uncompressed and `summary` is what [`record::check_section`] said about it. The producer fields, the timestamp type
/// and the base timestamp are the original's, and so is the last offset delta, so that the producer's sequence still adds up. Only
/// where the new records reach further it grows with them, and the base sequence goes back as far: the last sequence, which the next
/// batch of the producer continues, is the original's in any case. The records are compressed with the original's codec; a batch
/// without records has no section and names none, as in Kafka.
pub fn rebuild(original: &BatchHeader, section: &[u8], summary: &SectionSummary) -> Result<Bytes, BatchError> {
    let codec = if summary.record_count == 0 { Codec::None } else { original.attributes.codec()? };
    let keeps_max_timestamp = summary.record_count == 0 || original.attributes.timestamp_type() == TimestampType::LogAppendTime;
    let last_offset_delta = original.last_offset_delta.max(summary.last_offset_delta);
    let base_sequence = match original.last_sequence() {
        none @ i32::MIN..0 => none,
        last => sequence_before(last, last_offset_delta),
    };
    let header = BatchHeader {
        attributes: original.attributes.with_codec(codec),
        last_offset_delta,
        base_sequence,
        max_timestamp: if keeps_max_timestamp {
            original.max_timestamp
        } else {
            original.base_timestamp.saturating_add(summary.max_timestamp_delta)
        },
        record_count: summary.record_count,
        magic: MAGIC,
        ..*original
    };
    assemble(header, codec, section)
}

/// The same batch, numbered anew: `base_sequence` is the number of its first record, all three are -1 for a batch of no producer that is
/// known by an id. The checksum is made again over the bytes that are there; nothing is copied where nobody else holds them. Refuses only
/// bytes that are too short for a header.
pub fn with_producer(batch: Bytes, id: i64, epoch: i16, base_sequence: i32) -> Result<Bytes, BatchError> {
    if batch.len() < HEADER_BYTES {
        return Err(BatchError::Truncated { needed: HEADER_BYTES, available: batch.len() });
    }
    let mut batch = batch.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]));
    let mut numbers = [0; PRODUCER_BYTES];
    numbers[..8].copy_from_slice(&id.to_be_bytes());
    numbers[8..10].copy_from_slice(&epoch.to_be_bytes());
    numbers[10..].copy_from_slice(&base_sequence.to_be_bytes());
    batch[PRODUCER_AT..PRODUCER_AT + PRODUCER_BYTES].copy_from_slice(&numbers);
    let crc = super::checksum(&batch[CHECKSUMMED_FROM..]);
    batch[CHECKSUM_AT..CHECKSUMMED_FROM].copy_from_slice(&crc.to_be_bytes());
    Ok(batch.freeze())
}

fn assemble(header: BatchHeader, codec: Codec, section: &[u8]) -> Result<Bytes, BatchError> {
    let mut buffer = Vec::with_capacity(HEADER_BYTES + if codec == Codec::None { section.len() } else { section.len() / 2 });
    buffer.resize(HEADER_BYTES, 0);
    compression::compress_into(codec, section, &mut buffer)?;
    seal(buffer, header)
}

/// Writes the header into the room in front of the records, with the length and the checksum that they have.
fn seal(mut buffer: Vec<u8>, header: BatchHeader) -> Result<Bytes, BatchError> {
    let batch_length = i32::try_from(buffer.len() - LENGTH_PREFIX_BYTES)
        .map_err(|_| BatchError::TooLarge { bytes: buffer.len(), limit: BATCH_BYTES_MAX })?;
    buffer[..HEADER_BYTES].copy_from_slice(&BatchHeader { batch_length, crc: 0, ..header }.encode());
    let crc = super::checksum(&buffer[CHECKSUMMED_FROM..]);
    buffer[CHECKSUM_AT..CHECKSUMMED_FROM].copy_from_slice(&crc.to_be_bytes());
    Ok(Bytes::from(buffer))
}

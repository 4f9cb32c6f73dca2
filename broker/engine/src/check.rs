//! What a batch from a producer must be, before anything is done with it. Pure; records are not decoded here.

use crate::error::EngineError;
use bytes::Bytes;
use millpond_protocol::{
    batch::{Batch, HEADER_BYTES, TimestampType},
    compression::Codec,
};
use std::sync::Arc;

/// Takes the bytes of one batch: not larger than `bytes_max`, whole, with the checksum that its bytes have, and of a kind that a
/// producer may send.
pub(crate) fn accept(topic: &Arc<str>, bytes: Bytes, bytes_max: u32) -> Result<Batch, EngineError> {
    if bytes.len() as u64 > u64::from(bytes_max) {
        return Err(EngineError::BatchTooLarge { topic: Arc::clone(topic), bytes: bytes.len(), limit: bytes_max });
    }
    let batch = Batch::parse(bytes)?;
    batch.verify_crc()?;
    match refusal(&batch) {
        Some(reason) => Err(EngineError::BatchRefused { reason }),
        None => Ok(batch),
    }
}

fn refusal(batch: &Batch) -> Option<&'static str> {
    let header = batch.header();
    let attributes = header.attributes;
    if attributes.is_control() {
        return Some("it is a control batch, and only brokers write those");
    }
    if attributes.is_transactional() {
        return Some("it belongs to a transaction, and this broker has none");
    }
    if attributes.timestamp_type() == TimestampType::LogAppendTime {
        return Some("it says that a broker gave it its timestamps");
    }
    if header.record_count == 0 {
        return Some("it holds no records");
    }
    // Consumers, placements and the next base offset rely on it: a producer's batch has no gaps.
    if header.last_offset_delta != header.record_count - 1 {
        return Some("its last offset delta is not its record count less one");
    }
    let section_bytes = batch.bytes().len() - HEADER_BYTES;
    let records_max = section_bytes / RECORD_BYTES_MIN;
    // Without it, 61 bytes could take two thousand million offsets.
    if attributes.codec() == Ok(Codec::None) && u64::from(header.record_count.cast_unsigned()) > records_max as u64 {
        return Some("it announces more records than its bytes can hold");
    }
    None
}

/// Length, attributes, two deltas, two lengths and the count of headers take a byte each at least.
const RECORD_BYTES_MIN: usize = 7;

#[cfg(test)]
mod tests {
    use super::*;
    use millpond_protocol::{
        batch::{BatchBuilder, BatchHeader},
        error::ErrorCode,
        record::NewRecord,
    };

    fn batch_of(records: u32) -> Bytes {
        let mut builder = BatchBuilder::new();
        for _ in 0..records {
            builder.push(&NewRecord { value: Some(b"x"), ..NewRecord::default() }).expect("it fits");
        }
        builder.finish(Codec::None).expect("it has records")
    }

    /// The batch with another header, its checksum made right again.
    fn with_header(bytes: &Bytes, change: impl FnOnce(&mut BatchHeader)) -> Bytes {
        let mut header = BatchHeader::parse(bytes).expect("it is well formed");
        change(&mut header);
        let mut changed = bytes.to_vec();
        changed[..HEADER_BYTES].copy_from_slice(&header.encode());
        let stale = Batch::parse(changed.clone().into()).expect("the length is unchanged").verify_crc();
        if let Err(millpond_protocol::batch::BatchError::ChecksumMismatch { computed, .. }) = stale {
            header.crc = computed;
            changed[..HEADER_BYTES].copy_from_slice(&header.encode());
        }
        changed.into()
    }

    fn code_of(bytes: Bytes) -> Option<ErrorCode> {
        accept(&Arc::from("t"), bytes, 1000).err().map(|error| error.code())
    }

    #[test]
    fn a_batch_of_a_producer_is_taken_and_each_broken_rule_is_refused() {
        let good = batch_of(3);
        assert_eq!(code_of(good.clone()), None);
        let broken: [fn(&mut BatchHeader); 6] = [
            |header| header.attributes.0 |= 1 << 5,
            |header| header.attributes.0 |= 1 << 4,
            |header| header.attributes.0 |= 1 << 3,
            |header| header.record_count = 0,
            |header| header.last_offset_delta = 7,
            |header| (header.record_count, header.last_offset_delta) = (i32::MAX, i32::MAX - 1),
        ];
        for (rule, change) in broken.into_iter().enumerate() {
            assert_eq!(code_of(with_header(&good, change)), Some(ErrorCode::InvalidBatch), "rule {rule}");
        }
    }

    #[test]
    fn damage_size_and_garbage_have_codes_of_their_own() {
        let mut flipped = batch_of(3).to_vec();
        *flipped.last_mut().expect("it has bytes") ^= 1;
        assert_eq!(code_of(flipped.into()), Some(ErrorCode::CorruptBatch));
        assert_eq!(code_of(batch_of(200)), Some(ErrorCode::BatchTooLarge));
        assert_eq!(code_of(Bytes::from_static(b"GET / HTTP/1.1")), Some(ErrorCode::InvalidBatch));
        assert_eq!(code_of(batch_of(3).slice(..70)), Some(ErrorCode::InvalidBatch));
        assert_eq!(code_of([&batch_of(1)[..], b"more"].concat().into()), Some(ErrorCode::InvalidBatch));
    }
}

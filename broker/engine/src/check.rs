//! What a batch from a producer must be, before anything is done with it. Pure; records are not decoded here.

use crate::{error::EngineError, transform::BatchLimits};
use bytes::Bytes;
use millpond_log::BROKER_PRODUCER_ID_MIN;
use millpond_protocol::{
    batch::{Batch, HEADER_BYTES, TimestampType},
    compression::Codec,
    record,
};
use std::sync::Arc;

/// Takes the bytes of one batch: within the limits, whole, with the checksum that its bytes have, and of a kind that a producer may
/// send.
pub(crate) fn accept(topic: &Arc<str>, bytes: Bytes, limits: BatchLimits) -> Result<Batch, EngineError> {
    let limit = limits.batch_bytes_max;
    if bytes.len() as u64 > u64::from(limit) {
        return Err(EngineError::BatchTooLarge { topic: Arc::clone(topic), bytes: bytes.len(), limit });
    }
    let batch = Batch::parse(bytes)?;
    batch.verify_crc()?;
    if let Some(reason) = refusal(&batch) {
        return Err(EngineError::BatchRefused { reason });
    }
    check_record_count(&batch, limits.section_bytes_max)?;
    Ok(batch)
}

/// What a compacted topic asks for beyond: every record has a key. `section` is uncompressed.
pub(crate) fn keyed(topic: &Arc<str>, section: &[u8]) -> Result<(), EngineError> {
    for record in record::iterate(section) {
        let record = record?;
        if record.key.is_none() {
            return Err(EngineError::RecordWithoutKey { topic: Arc::clone(topic), record: record.offset_delta });
        }
    }
    Ok(())
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
    if attributes.has_delete_horizon() {
        return Some("it says that a broker has compacted it");
    }
    if header.producer_id >= BROKER_PRODUCER_ID_MIN {
        return Some("its producer id is one of those that the broker itself writes with");
    }
    if header.record_count == 0 {
        return Some("it holds no records");
    }
    // Consumers, placements and the next base offset rely on it: a producer's batch has no gaps.
    if header.last_offset_delta != header.record_count - 1 {
        return Some("its last offset delta is not its record count less one");
    }
    None
}

/// Holds the announced number of records against the bytes that they can have. Without it, a batch of 61 bytes could take two thousand
/// million offsets, and with them the rest of its segment.
fn check_record_count(batch: &Batch, section_bytes_max: usize) -> Result<(), EngineError> {
    let section_bytes = match batch.header().attributes.codec()? {
        Codec::None => batch.bytes().len() - HEADER_BYTES,
        // What it unpacks to is not known here. This is what the broker would unpack.
        _ => section_bytes_max,
    };
    let (announced, limit) = (batch.header().record_count, section_bytes / RECORD_BYTES_MIN);
    if announced.cast_unsigned() as usize > limit {
        return Err(EngineError::TooManyRecords { announced, limit });
    }
    Ok(())
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
        packed(records, Codec::None)
    }

    fn packed(records: u32, codec: Codec) -> Bytes {
        let mut builder = BatchBuilder::new();
        for _ in 0..records {
            builder.push(&NewRecord { value: Some(b"x"), ..NewRecord::default() }).expect("it fits");
        }
        builder.finish(codec).expect("it has records")
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
        accept(&Arc::from("t"), bytes, LIMITS).err().map(|error| error.code())
    }

    const LIMITS: BatchLimits = BatchLimits { section_bytes_max: 700, batch_bytes_max: 1000 };

    #[test]
    fn a_batch_of_a_producer_is_taken_and_each_broken_rule_is_refused() {
        let good = batch_of(3);
        assert_eq!(code_of(good.clone()), None);
        let broken: [fn(&mut BatchHeader); 8] = [
            |header| header.attributes.0 |= 1 << 5,
            |header| header.attributes.0 |= 1 << 4,
            |header| header.attributes.0 |= 1 << 3,
            |header| header.attributes.0 |= 1 << 6,
            |header| header.producer_id = BROKER_PRODUCER_ID_MIN,
            |header| header.record_count = 0,
            |header| header.last_offset_delta = 7,
            |header| (header.record_count, header.last_offset_delta) = (i32::MAX, i32::MAX - 1),
        ];
        for (rule, change) in broken.into_iter().enumerate() {
            assert_eq!(code_of(with_header(&good, change)), Some(ErrorCode::InvalidBatch), "rule {rule}");
        }
    }

    #[test]
    fn no_batch_takes_more_offsets_than_it_can_have_records_whatever_its_codec() {
        for codec in Codec::ALL {
            let good = packed(3, codec);
            assert_eq!(code_of(good.clone()), None);
            // 100 records of 7 bytes are 700 bytes.
            let takes = |records: i32| {
                let bytes = with_header(&good, |header| (header.record_count, header.last_offset_delta) = (records, records - 1));
                accept(&Arc::from("t"), bytes, LIMITS).map(|_| ())
            };
            assert_eq!(takes(100).is_ok(), codec != Codec::None);
            for records in [101, i32::MAX] {
                let error = takes(records).expect_err("its bytes can't hold them");
                assert_eq!(error.code(), ErrorCode::InvalidBatch);
                assert!(matches!(error, EngineError::TooManyRecords { announced, .. } if announced == records), "{error:?}");
                assert!(error.hint().is_some());
            }
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

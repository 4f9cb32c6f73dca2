//! Placing records: one batch becomes one for each partition that its records go to. Pure.
//!
//! The parts have offset deltas 0, 1, 2 and so on. Each has the producer of the batch that came, and its last sequence: the numbers
//! count the records of all parts together, so within one partition they rise with gaps ([`crate::chain`]).

use crate::{error::EngineError, transform::Records};
use millpond_protocol::{
    batch::{Batch, BatchHeader, rebuild},
    partitioner,
    record::{self, RecordRef, SectionSummary},
};
use std::sync::Arc;

/// A batch that was split.
#[derive(Debug)]
pub(crate) struct Routed {
    /// In the order in which their first records came.
    pub(crate) parts: Vec<Part>,
    /// One for each record of the batch that came. Where a module made several records of one, the records were numbered anew and
    /// there is no telling which came from which: the slots are then those of the records that came out, in order, cut or filled
    /// up with [`Slot::DROPPED`].
    pub(crate) slots: Vec<Slot>,
    /// Records that modules left out.
    pub(crate) records_dropped: u32,
}

/// The records for one partition.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) partition: u32,
    pub(crate) batch: Batch,
}

/// Where a record went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    /// Which of the parts.
    pub(crate) part: u32,
    /// Its offset less the part's base offset.
    pub(crate) offset_delta: i32,
}

impl Slot {
    /// A module left it out.
    pub(crate) const DROPPED: Slot = Slot { part: u32::MAX, offset_delta: -1 };
}

/// Kafka's default: by the hash of the key, and all records without a key in one batch to the same partition, `sticky` modulo their
/// number, which the caller moves on from batch to batch (KIP-480).
pub(crate) fn by_default(records: &Records, partitions: u32, sticky: u32) -> Vec<u32> {
    let keyless = sticky % partitions.max(1);
    let place = |record: RecordRef<'_>| record.key.map_or(keyless, |key| partitioner::for_key(key, partitions));
    record::iterate(&records.section).map_while(Result::ok).map(place).collect()
}

/// Splits a batch; `places` has the partition of each of `records`.
pub(crate) fn split(
    topic: &Arc<str>,
    original: &Batch,
    records: &Records,
    places: &[u32],
    batch_bytes_max: u32,
) -> Result<Routed, EngineError> {
    let header = original.header();
    let mut slots = vec![Slot::DROPPED; header.record_count.cast_unsigned() as usize];
    let goes_whole = places.windows(2).all(|pair| pair[0] == pair[1]);
    let parts = match places.first() {
        None => Vec::new(),
        // One partition takes all: the batch may keep its bytes.
        Some(&partition) if goes_whole => {
            for (index, record) in record::iterate(&records.section).map_while(Result::ok).enumerate() {
                fill(&mut slots, records, index, record.offset_delta, Slot { part: 0, offset_delta: record.offset_delta });
            }
            records.pack(topic, original, batch_bytes_max)?.map(|batch| Part { partition, batch }).into_iter().collect()
        }
        Some(_) => {
            let mut drafts = Drafts::default();
            for (index, (record, &partition)) in record::iterate(&records.section).map_while(Result::ok).zip(places).enumerate() {
                fill(&mut slots, records, index, record.offset_delta, drafts.push(partition, &record));
            }
            drafts.finish(topic, header, batch_bytes_max)?
        }
    };
    Ok(Routed { parts, slots, records_dropped: records.dropped_u32() })
}

/// Notes where a record went, under the record that it was when the batch came.
fn fill(slots: &mut [Slot], records: &Records, index: usize, offset_delta: i32, slot: Slot) {
    let original = if records.renumbered { index } else { offset_delta.cast_unsigned() as usize };
    if let Some(place) = slots.get_mut(original) {
        *place = slot;
    }
}

/// The parts while they grow.
#[derive(Default)]
struct Drafts {
    /// For each partition up to the highest: its draft's index plus one, or 0.
    of_partition: Vec<u32>,
    drafts: Vec<Draft>,
}

struct Draft {
    partition: u32,
    section: Vec<u8>,
    record_count: i32,
    max_timestamp_delta: i64,
}

impl Drafts {
    fn push(&mut self, partition: u32, record: &RecordRef<'_>) -> Slot {
        let entry = partition as usize;
        if entry >= self.of_partition.len() {
            self.of_partition.resize(entry + 1, 0);
        }
        if self.of_partition[entry] == 0 {
            self.drafts.push(Draft { partition, section: Vec::new(), record_count: 0, max_timestamp_delta: i64::MIN });
            // No more drafts than partitions.
            self.of_partition[entry] = u32::try_from(self.drafts.len()).unwrap_or(u32::MAX);
        }
        let part = self.of_partition[entry] - 1;
        let draft = &mut self.drafts[part as usize];
        let slot = Slot { part, offset_delta: draft.record_count };
        draft.section.extend_from_slice(record.encoded);
        draft.record_count += 1;
        draft.max_timestamp_delta = draft.max_timestamp_delta.max(record.timestamp_delta);
        slot
    }

    fn finish(self, topic: &Arc<str>, original: &BatchHeader, batch_bytes_max: u32) -> Result<Vec<Part>, EngineError> {
        // The delta of a part grows with its records, and the last sequence stays; see `rebuild`.
        let header = BatchHeader { base_sequence: original.last_sequence(), last_offset_delta: 0, ..*original };
        let finish = |draft: Draft| {
            let section = record::renumber(&draft.section)?;
            let summary = SectionSummary {
                record_count: draft.record_count,
                last_offset_delta: draft.record_count - 1,
                max_timestamp_delta: draft.max_timestamp_delta,
                offsets_rise: true,
            };
            let bytes = rebuild(&header, &section, &summary)?;
            if bytes.len() as u64 > u64::from(batch_bytes_max) {
                return Err(EngineError::BatchTooLarge { topic: Arc::clone(topic), bytes: bytes.len(), limit: batch_bytes_max });
            }
            Ok(Part { partition: draft.partition, batch: Batch::parse(bytes)? })
        };
        self.drafts.into_iter().map(finish).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use millpond_protocol::{batch::BatchBuilder, compression::Codec, record::NewRecord};

    fn batch(keys: &[Option<&str>], codec: Codec, producer_id: i64) -> Batch {
        let mut builder = BatchBuilder::new();
        for (timestamp, key) in (1000..).zip(keys) {
            let value = timestamp.to_string();
            let record = NewRecord { timestamp, key: key.map(str::as_bytes), value: Some(value.as_bytes()), headers: &[] };
            builder.push(&record).expect("it fits");
        }
        builder.set_producer(producer_id, 0, 0);
        Batch::parse(builder.finish(codec).expect("it has records")).expect("it is a batch")
    }

    fn route(batch: &Batch, places: &[u32]) -> Routed {
        let records = Records::unpack(batch, 1 << 20).expect("it unpacks");
        split(&Arc::from("t"), batch, &records, places, 1 << 20).expect("it splits")
    }

    #[test]
    fn every_record_lands_where_it_was_placed_and_its_slot_says_where() {
        for codec in Codec::ALL {
            let original = batch(&[None; 7], codec, 9);
            let places = [4, 0, 4, 4, 2, 0, 4];
            let routed = route(&original, &places);
            assert_eq!(routed.parts.iter().map(|part| part.partition).collect::<Vec<_>>(), [4, 0, 2]);
            for (index, (slot, place)) in routed.slots.iter().zip(places).enumerate() {
                let part = &routed.parts[slot.part as usize];
                assert_eq!(part.partition, place);
                let record = part.batch.records(1 << 20).expect("it unpacks").nth(slot.offset_delta.cast_unsigned() as usize);
                let record = record.expect("the slot is inside").expect("it reads");
                assert_eq!(record.offset, i64::from(slot.offset_delta));
                assert_eq!(record.timestamp, 1000 + i64::try_from(index).expect("small"));
                assert_eq!(record.value.expect("it has one"), record.timestamp.to_string().as_bytes());
            }
            let first = &routed.parts[0].batch;
            first.verify_crc().expect("it is sealed");
            let header = first.header();
            assert_eq!((header.record_count, header.last_offset_delta, header.max_timestamp), (4, 3, 1006));
            assert_eq!((header.producer_id, header.producer_epoch, header.last_sequence()), (9, 0, original.header().last_sequence()));
            assert_eq!(header.attributes.codec(), Ok(codec));
        }
    }

    #[test]
    fn where_records_multiplied_the_slots_are_those_of_the_first_that_came_out() {
        let original = batch(&[None; 2], Codec::None, 9);
        let more = Records::unpack(&batch(&[None; 3], Codec::None, 9), 1 << 20).expect("it unpacks");
        let records = Records { changed: true, renumbered: true, ..more };
        let routed = split(&Arc::from("t"), &original, &records, &[1, 0, 1], 1 << 20).expect("it splits");
        assert_eq!(routed.slots, [Slot { part: 0, offset_delta: 0 }, Slot { part: 1, offset_delta: 0 }]);
        assert_eq!(routed.parts[0].batch.header().record_count, 2, "all three are stored");
    }

    #[test]
    fn a_batch_for_one_partition_keeps_its_bytes() {
        let original = batch(&[None; 3], Codec::Snappy, -1);
        let routed = route(&original, &[5, 5, 5]);
        assert_eq!(routed.parts.len(), 1);
        assert_eq!(routed.parts[0].batch.bytes(), original.bytes());
        assert_eq!(routed.slots[2], Slot { part: 0, offset_delta: 2 });
    }

    #[test]
    fn the_default_is_kafkas() {
        let original = batch(&[Some("21"), None, Some("foobar"), None], Codec::None, -1);
        let records = Records::unpack(&original, 1 << 20).expect("it unpacks");
        let expected = [partitioner::for_key(b"21", 10), 3, partitioner::for_key(b"foobar", 10), 3];
        assert_eq!(by_default(&records, 10, 13), expected);
        assert_eq!(by_default(&records, 1, 13), [0; 4]);
    }
}

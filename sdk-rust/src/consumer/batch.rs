//! Batches of records that were read, and the records in them.

use crate::{error::Error, record::ConsumedRecord};
use bytes::Bytes;
use millpond_protocol::{
    batch::{Batch, BatchError},
    message::Watermarks,
    record::Records,
};
use std::{ops::Range, sync::Arc};

/// The most bytes that the records of one batch may take when they are decompressed.
const DECOMPRESSED_BYTES_MAX: usize = 256 << 20;

/// Records of one partition that arrived together. Cheap to clone: the bytes are shared.
#[derive(Clone, Debug)]
pub struct ConsumedBatch {
    topic: Arc<str>,
    partition: u32,
    watermarks: Watermarks,
    batches: Vec<Batch>,
    /// What the batches are parts of, in their order. Empty where that is not known.
    push: Bytes,
    /// Offsets that are asked for: batches travel whole, and may begin before or end behind them.
    wanted: Range<i64>,
}

impl ConsumedBatch {
    pub(crate) fn new(topic: Arc<str>, partition: u32, watermarks: Watermarks, batches: Vec<Batch>, from: i64) -> ConsumedBatch {
        ConsumedBatch { topic, partition, watermarks, batches, push: Bytes::new(), wanted: from..i64::MAX }
    }

    /// These batches of a partition, of which only the wanted offsets count; for who has them from elsewhere. The watermarks say nothing.
    pub fn from_parts(topic: Arc<str>, partition: u32, batches: Vec<Batch>, wanted: Range<i64>) -> ConsumedBatch {
        ConsumedBatch { topic, partition, watermarks: Watermarks::default(), batches, push: Bytes::new(), wanted }
    }

    /// The same, with the bytes that the batches are parts of: see [`ConsumedBatch::push`].
    #[must_use]
    pub fn with_push(self, push: Bytes) -> ConsumedBatch {
        ConsumedBatch { push, ..self }
    }

    /// Leaves out what lies at `end` and behind.
    pub(crate) fn end_at(&mut self, end: i64) {
        self.wanted.end = self.wanted.end.min(end);
    }

    /// Leaves out what lies before `start`.
    pub(crate) fn start_at(&mut self, start: i64) {
        self.wanted.start = self.wanted.start.max(start);
    }

    /// The topic.
    pub fn topic(&self) -> &Arc<str> {
        &self.topic
    }

    /// The partition.
    pub fn partition(&self) -> u32 {
        self.partition
    }

    /// How far the partition reached when this was sent.
    pub fn watermarks(&self) -> Watermarks {
        self.watermarks
    }

    /// The offset from which reading goes on behind this.
    pub fn next_offset(&self) -> i64 {
        let end = self.batches.last().map_or(self.wanted.start, |batch| batch.header().next_offset());
        end.clamp(self.wanted.start, self.wanted.end.max(self.wanted.start))
    }

    /// The offsets that are wanted of what [`ConsumedBatch::raw`] has.
    pub fn wanted(&self) -> Range<i64> {
        self.wanted.clone()
    }

    /// Bytes of the record batches, as they travelled.
    pub fn size_bytes(&self) -> usize {
        self.batches.iter().map(|batch| batch.bytes().len()).sum()
    }

    /// The record batches as they were stored. The first may begin before the offset that was asked for.
    pub fn raw(&self) -> &[Batch] {
        &self.batches
    }

    /// The one buffer that the batches of [`ConsumedBatch::raw`] are parts of, as it came over the network; empty where they did not come together.
    pub fn push(&self) -> &Bytes {
        &self.push
    }

    /// The records, in order. Keys and values are parts of the batch's bytes, not copies. An error says which record batch
    /// cannot be read; the records behind that batch follow.
    pub fn records(&self) -> ConsumedRecords {
        ConsumedRecords {
            topic: Arc::clone(&self.topic),
            partition: self.partition,
            batches: self.batches.clone().into_iter(),
            current: None,
            wanted: self.wanted.clone(),
        }
    }
}

impl IntoIterator for ConsumedBatch {
    type Item = Result<ConsumedRecord, Error>;
    type IntoIter = ConsumedRecords;

    fn into_iter(self) -> ConsumedRecords {
        let ConsumedBatch { topic, partition, batches, wanted, .. } = self;
        ConsumedRecords { topic, partition, batches: batches.into_iter(), current: None, wanted }
    }
}

/// The records of a [`ConsumedBatch`], in order.
#[derive(Debug)]
pub struct ConsumedRecords {
    topic: Arc<str>,
    partition: u32,
    batches: std::vec::IntoIter<Batch>,
    current: Option<Open>,
    wanted: Range<i64>,
}

#[derive(Debug)]
struct Open {
    records: Records,
    base_offset: i64,
    next_offset: i64,
}

impl ConsumedRecords {
    /// Opens the next batch that can hold records that are wanted; none if there is none.
    fn open_next(&mut self) -> Option<Result<Open, Error>> {
        loop {
            let batch = self.batches.next()?;
            let header = batch.header();
            // Control batches mark the ends of transactions and hold nothing that a user wrote.
            if header.next_offset() <= self.wanted.start || header.base_offset >= self.wanted.end || header.attributes.is_control() {
                continue;
            }
            let (base_offset, next_offset) = (header.base_offset, header.next_offset());
            return Some(match batch.records(DECOMPRESSED_BYTES_MAX) {
                Ok(records) => Ok(Open { records, base_offset, next_offset }),
                Err(cause) => Err(self.unreadable(base_offset, next_offset, cause)),
            });
        }
    }

    #[cold]
    fn unreadable(&self, offset: i64, next_offset: i64, cause: BatchError) -> Error {
        let (topic, partition) = (Arc::clone(&self.topic), self.partition);
        Error::UnreadableBatch { topic, partition, offset, next_offset: Some(next_offset), cause }
    }
}

impl Iterator for ConsumedRecords {
    type Item = Result<ConsumedRecord, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let Some(open) = &mut self.current else {
                match self.open_next()? {
                    Ok(open) => self.current = Some(open),
                    Err(error) => return Some(Err(error)),
                }
                continue;
            };
            match open.records.next() {
                Some(Ok(record)) if self.wanted.contains(&record.offset) => {
                    return Some(Ok(ConsumedRecord {
                        topic: Arc::clone(&self.topic),
                        partition: self.partition,
                        offset: record.offset,
                        timestamp: record.timestamp,
                        key: record.key,
                        value: record.value,
                        headers: record.headers,
                    }));
                }
                Some(Ok(_)) => {}
                Some(Err(cause)) => {
                    let (offset, next_offset) = (open.base_offset, open.next_offset);
                    self.current = None;
                    return Some(Err(self.unreadable(offset, next_offset, cause)));
                }
                None => self.current = None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BytesMut;
    use millpond_protocol::{batch::BatchBuilder, compression::Codec, record::NewRecord};

    fn batch_at(base_offset: i64, values: &[&str], codec: Codec) -> Batch {
        let mut builder = BatchBuilder::new();
        for value in values {
            builder.push(&NewRecord { timestamp: 7, value: Some(value.as_bytes()), ..NewRecord::default() }).unwrap();
        }
        let built = Batch::parse(builder.finish(codec).unwrap()).unwrap();
        let mut bytes = BytesMut::from(&built.bytes()[..]);
        bytes[..16].copy_from_slice(&built.with_base_offset(base_offset, 0));
        Batch::parse(bytes.freeze()).unwrap()
    }

    fn consumed(batches: Vec<Batch>, from: i64) -> ConsumedBatch {
        ConsumedBatch::new("t".into(), 3, Watermarks::default(), batches, from)
    }

    fn values(batch: &ConsumedBatch) -> Vec<(i64, String)> {
        let text = |record: ConsumedRecord| (record.offset, String::from_utf8(record.value.unwrap().to_vec()).unwrap());
        batch.records().map(|record| text(record.unwrap())).collect()
    }

    #[test]
    fn records_before_the_start_and_from_the_end_on_are_left_out() {
        let batches = vec![batch_at(10, &["a", "b", "c"], Codec::None), batch_at(13, &["d", "e"], Codec::Zstd)];
        let mut batch = consumed(batches, 11);
        assert_eq!(batch.next_offset(), 15);
        batch.end_at(14);
        assert_eq!(values(&batch), [(11, "b".into()), (12, "c".into()), (13, "d".into())]);
        assert_eq!(batch.next_offset(), 14);
        batch.start_at(13);
        assert_eq!(values(&batch), [(13, "d".into())]);
    }

    #[test]
    fn values_share_the_memory_of_the_batch() {
        let batch = batch_at(0, &["shared"], Codec::None);
        let bytes = batch.bytes().clone();
        let record = consumed(vec![batch], 0).into_iter().next().unwrap().unwrap();
        let value = record.value.unwrap();
        assert!(bytes.as_ptr_range().contains(&value.as_ptr()), "not a copy");
    }

    #[test]
    fn a_batch_that_cannot_be_read_is_told_and_the_next_one_follows() {
        let good = batch_at(5, &["x", "y"], Codec::None);
        let broken = {
            let mut bytes = BytesMut::from(&batch_at(3, &["a", "b"], Codec::Gzip).bytes()[..]);
            let end = bytes.len();
            bytes[61..end].fill(0xff);
            Batch::parse(bytes.freeze()).unwrap()
        };
        let results: Vec<_> = consumed(vec![broken, good], 0).into_iter().collect();
        assert_eq!(results.len(), 3);
        let error = results[0].as_ref().unwrap_err();
        assert_eq!(error.code(), "invalid_batch");
        assert!(error.to_string().starts_with("the batch at offset 3 of t[3] cannot be read"), "{error}");
        assert_eq!(error.hint().as_deref(), Some("seek to offset 5 to read on behind it"));
        assert_eq!(results[1].as_ref().unwrap().offset, 5);
    }

    #[test]
    fn nothing_but_bytes_before_the_start_is_an_empty_batch() {
        let batch = consumed(vec![batch_at(0, &["a"], Codec::None)], 9);
        assert_eq!((values(&batch).len(), batch.next_offset()), (0, 9));
        let empty = ConsumedBatch::new("t".into(), 0, Watermarks::default(), Vec::new(), 4);
        assert_eq!((empty.next_offset(), empty.size_bytes()), (4, 0));
        assert_eq!(Bytes::new().len(), 0);
    }
}

//! What a round writes: the records that a module has returned, placed and gathered into batches. Pure.
//!
//! A record goes to the partition that its key belongs to by Kafka's default; without a key, to the one with the number of the source's
//! partition, modulo how many there are, so that those of one partition stay in order. Modules of the target don't run on it.
//!
//! Each batch has the attachment's producer for that partition of the source, and the sequence that follows on the one before it in that
//! partition of the target.

use super::{frame::Output, store::Store};
use crate::{error::EngineError, topic::Topic};
use bytes::Bytes;
use millpond_protocol::{
    batch::{Batch, BatchBuilder, BatchHeader, sequence_after, with_producer},
    compression::Codec,
    partitioner,
    record::{self, NewRecord, RecordRef},
};
use std::{collections::BTreeMap, sync::Arc};

/// Records sections, each for a target.
pub(crate) type Sections = Vec<(u32, Vec<u8>)>;

/// The batches of a round, as they grow.
pub(crate) struct Outputs<'a> {
    targets: &'a [Arc<Topic>],
    source_partition: u32,
    open: BTreeMap<(u32, u32), (BatchBuilder, Codec)>,
    done: BTreeMap<(u32, u32), Vec<Bytes>>,
    bytes: usize,
}

/// Holds what a module has returned against the format and the rules of the targets. Says how many records it has, or what is wrong.
pub(crate) fn check(targets: &[Arc<Topic>], base_timestamp: i64, sections: &Sections) -> Result<u64, String> {
    let (mut records, none) = (0, BatchBuilder::new());
    for (target, section) in sections {
        let Some(topic) = targets.get(*target as usize) else { return Err(format!("there is no target {target}")) };
        let config = &topic.runtime().config;
        for record in record::iterate(section) {
            let record = record.map_err(|error| error.to_string())?;
            if record.key.is_none() && config.cleanup.compacts() {
                let name = &topic.name;
                return Err(format!(
                    "a record for `{name}` has no key, and the topic is compacted; it goes on after `millpond topic alter {name} --cleanup delete`"
                ));
            }
            with_new(&record, base_timestamp, |new| {
                let (bytes, limit) = (none.size_with(new), config.max_batch_bytes as usize);
                if bytes <= limit {
                    return Ok(());
                }
                let name = &topic.name;
                Err(format!(
                    "a record takes {bytes} bytes, over the limit of {limit} bytes of the topic `{name}`; it goes on after `millpond topic \
                     alter {name} --max-batch-bytes SIZE`"
                ))
            })?;
            records += 1;
        }
    }
    Ok(records)
}

impl<'a> Outputs<'a> {
    pub(crate) fn new(targets: &'a [Arc<Topic>], source_partition: u32) -> Outputs<'a> {
        Outputs { targets, source_partition, open: BTreeMap::new(), done: BTreeMap::new(), bytes: 0 }
    }

    /// Bytes so far, about.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds what was checked.
    pub(crate) fn add(&mut self, base_timestamp: i64, codec: Codec, sections: &Sections) -> Result<(), EngineError> {
        for (target, section) in sections {
            let Some(topic) = self.targets.get(*target as usize) else { continue };
            let (partitions, limit) = (topic.partition_count().max(1), topic.runtime().config.max_batch_bytes as usize);
            for record in record::iterate(section).map_while(Result::ok) {
                let keyless = self.source_partition % partitions;
                let place = (*target, record.key.map_or(keyless, |key| partitioner::for_key(key, partitions)));
                self.bytes += record.encoded.len();
                with_new(&record, base_timestamp, |new| self.push(place, limit, codec, new))?;
            }
        }
        Ok(())
    }

    /// Adds a batch that is whole.
    pub(crate) fn add_batch(&mut self, place: (u32, u32), batch: &Batch) -> Result<(), EngineError> {
        self.close(place)?;
        self.bytes += batch.bytes().len();
        self.done.entry(place).or_default().push(batch.bytes().clone());
        Ok(())
    }

    fn push(&mut self, place: (u32, u32), limit: usize, codec: Codec, new: &NewRecord<'_>) -> Result<(), EngineError> {
        if let Some((builder, _)) = self.open.get_mut(&place) {
            if builder.size_with(new) <= limit && builder.push(new).is_ok() {
                return Ok(());
            }
            self.close(place)?;
        }
        let mut builder = BatchBuilder::new();
        builder.push(new)?;
        self.open.insert(place, (builder, codec));
        Ok(())
    }

    fn close(&mut self, place: (u32, u32)) -> Result<(), EngineError> {
        if let Some((mut builder, codec)) = self.open.remove(&place) {
            self.done.entry(place).or_default().push(builder.finish(codec)?);
        }
        Ok(())
    }

    /// The batches, numbered.
    pub(crate) fn finish(mut self, producer_id: i64, store: &Store) -> Result<Vec<Output>, EngineError> {
        let open: Vec<_> = self.open.keys().copied().collect();
        open.into_iter().try_for_each(|place| self.close(place))?;
        let mut outputs = Vec::new();
        for ((target, partition), batches) in self.done {
            let mut next = store.next_sequence(target, partition);
            for batch in batches {
                let batch = with_producer(batch, producer_id, EPOCH, next)?;
                next = sequence_after(BatchHeader::parse(&batch)?.last_sequence(), 1);
                outputs.push(Output { target, partition, batch });
            }
        }
        Ok(outputs)
    }
}

/// The record as one that is to be written.
fn with_new<T>(record: &RecordRef<'_>, base_timestamp: i64, then: impl FnOnce(&NewRecord<'_>) -> T) -> T {
    let timestamp = base_timestamp.saturating_add(record.timestamp_delta);
    // Without headers this allocates nothing.
    let headers: Vec<_> = record.headers.iter().collect();
    then(&NewRecord { timestamp, key: record.key, value: record.value, headers: &headers })
}

/// The producers of derived topics have one.
const EPOCH: i16 = 0;

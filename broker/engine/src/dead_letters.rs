//! Dead letters: records that a module failed on, on their way to another topic.
//!
//! A dead letter is the record as the module was given it (with what modules before it have masked), with its key, its value, its timestamp
//! and its headers, and behind these:
//!
//! | header | value |
//! |---|---|
//! | `millpond.error` | what went wrong, in words |
//! | `millpond.error.code` | the same as an error code, such as `guest_trapped` |
//! | `millpond.module` | the module, as `NAME@VERSION` |
//! | `millpond.module.sha256` | the hash of its upload |
//! | `millpond.topic` | where the record was written to |
//! | `millpond.partition` | and to which partition, if that was known |
//! | `millpond.offset` | which record of that it is, if it was stored: where a module fails that derives other topics |
//!
//! On produce it has no offset: it was never stored. It goes to the partition that its key belongs to by Kafka's default, without a key to the
//! one of the same number, modulo how many there are. Modules don't run on dead letters, so no topic that takes
//! them has one on produce, nor a partitioner.
//!
//! On produce, they are sent off once what is left of their batch is stored, so a batch that is refused, and comes again and again, leaves none;
//! and the producer gets its acknowledgement once they are stored too. Where it numbers its batches and
//! sends one again, as it does after a crash between the two, neither is stored twice: the letters have a producer of their own, made of theirs
//! ([`producer_of`]), and a letter whose bytes are remembered under its number is there already. Each partition remembers the last
//! five batches of letters of such a producer, and as many producers as of clients; a letter beyond that, or one that is another one the second
//! time because its module does not answer twice the same, is stored again rather than lost.

use crate::{
    check::keyed,
    error::{EngineError, Purpose},
    inflight::{InflightPermit, Reserved},
    meters::AttachmentMeters,
    partition::Submission,
    topic::Topic,
    transform::{Attachment, DeadLetter, Failed},
};
use millpond_log::SequenceOrder;
use millpond_protocol::{
    batch::{Batch, BatchBuilder, BatchHeader, sequence_after, with_producer},
    compression::Codec,
    partitioner,
    record::{self, NewRecord},
};
use parking_lot::RwLock;
use sha2::{Digest, Sha256};
use std::{collections::BTreeMap, mem, sync::Arc};

/// All topics, by name.
pub(crate) type Topics = RwLock<BTreeMap<String, Arc<Topic>>>;

/// Some dead letters for one partition.
#[derive(Debug)]
pub(crate) struct Letters {
    pub(crate) topic: Arc<Topic>,
    pub(crate) partition: u32,
    pub(crate) batch: Batch,
}

/// Where records come from that a module failed on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin<'a> {
    pub(crate) topic: &'a str,
    pub(crate) partition: Option<u32>,
    /// Of a batch that is stored.
    pub(crate) base_offset: Option<i64>,
    pub(crate) base_timestamp: i64,
}

/// The id under which the dead letters of a producer's batches for this partition are stored, so that none is there twice. A client that is
/// without one has none for its letters either.
pub(crate) fn producer_of(origin: Origin<'_>, header: &BatchHeader) -> Option<i64> {
    if header.producer_id < 0 {
        return None;
    }
    let mut hash = Sha256::new();
    hash.update(header.producer_id.to_be_bytes());
    hash.update(header.producer_epoch.to_be_bytes());
    // Another one than that of any partition, where none is known yet.
    hash.update(origin.partition.map_or(-1, i64::from).to_be_bytes());
    hash.update(origin.topic.as_bytes());
    let first = u64::from_be_bytes(*hash.finalize().first_chunk()?);
    // As the ids of clients: below those of the broker's own, which are not forgotten.
    Some((first >> 2).cast_signed())
}

/// Numbers the letters of one batch of a producer as it is numbered itself: those for one partition follow each other.
pub(crate) fn numbered(letters: Vec<Letters>, producer_id: i64, base_sequence: i32) -> Result<Vec<Letters>, EngineError> {
    let mut sequences = BTreeMap::new();
    let number = |letters: Letters| {
        let Letters { topic, partition, batch } = letters;
        let next = sequences.entry((Arc::clone(&topic.name), partition)).or_insert(base_sequence);
        let base_sequence = mem::replace(next, sequence_after(*next, batch.header().record_count));
        let batch = Batch::parse(with_producer(batch.bytes().clone(), producer_id, EPOCH, base_sequence)?)?;
        Ok(Letters { topic, partition, batch })
    };
    letters.into_iter().map(number).collect()
}

/// Stores letters, and waits until they are.
pub(crate) async fn send(letters: Vec<Letters>, permit: Option<InflightPermit>) -> Result<(), EngineError> {
    let permit = permit.unwrap_or_else(|| InflightPermit::new(Reserved::nothing()));
    let mut receivers = Vec::with_capacity(letters.len());
    for Letters { topic, partition, batch } in letters {
        let (topic_epoch, order) = (topic.runtime().epoch, SequenceOrder::Any);
        let submission = Submission { batch, records_dropped: 0, topic_epoch, order, is_nothing: false, permit: permit.clone() };
        let submitted = topic.partition(partition, Purpose::Produce)?.submit(submission).await;
        receivers.push((submitted.map_err(|error| lost(&topic.name, error))?, topic));
    }
    for (receiver, topic) in receivers {
        let stored = receiver.await.unwrap_or(Err(EngineError::JobLost { pool: "io" }));
        stored.map_err(|error| lost(&topic.name, error))?;
    }
    Ok(())
}

/// Addresses dead letters, each batch within the limits of its topic. Fails where one can't be delivered.
pub(crate) fn address(topics: &Topics, origin: Origin<'_>, letters: &[DeadLetter]) -> Result<Vec<Letters>, EngineError> {
    let mut drafts = Drafts { origin, open: BTreeMap::new(), finished: Vec::new(), bytes: 0 };
    for letter in letters {
        let Some(name) = letter.attachment.on_error.dead_letter_topic() else { continue };
        let found = topics.read().get(name).map(Arc::clone);
        let topic = found.ok_or_else(|| lost(name, EngineError::TopicNotFound { name: name.to_owned(), nearest: None }))?;
        drafts.push(&topic, letter).map_err(|error| lost(name, error))?;
    }
    drafts.finish()
}

/// Counts dead letters at their modules, when it is dropped: by then it is known what has become of them.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    letters: Vec<(Arc<AttachmentMeters>, u64)>,
    /// They are stored, as far as anybody knows.
    is_stored: bool,
}

impl Tally {
    /// Some more, of one module.
    pub(crate) fn add(&mut self, attachment: &Attachment, letters: u64) {
        self.letters.push((Arc::clone(&attachment.lasting.meters), letters));
    }

    pub(crate) fn set_stored(&mut self, is_stored: bool) {
        self.is_stored = is_stored;
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        for (meters, letters) in &self.letters {
            meters.dead_letters(*letters, self.is_stored);
        }
    }
}

fn lost(topic: &str, source: EngineError) -> EngineError {
    EngineError::DeadLetter { topic: topic.into(), source: Box::new(source) }
}

/// The epoch of a client is a part of the id of its letters.
const EPOCH: i16 = 0;

/// What the dead letters of one batch may come to, in bytes: each has the words of its error, which may be more than the record.
pub(crate) const BYTES_PER_BATCH_MAX: usize = 64 << 20;

/// The lengths of a header's name and of its value.
const HEADER_OVERHEAD_BYTES: usize = 8;

struct Drafts<'a> {
    origin: Origin<'a>,
    /// One for each topic and partition.
    open: BTreeMap<(Arc<str>, u32), (Arc<Topic>, BatchBuilder)>,
    finished: Vec<Letters>,
    /// Of all of them, about.
    bytes: usize,
}

impl Drafts<'_> {
    fn push(&mut self, topic: &Arc<Topic>, letter: &DeadLetter) -> Result<(), EngineError> {
        let DeadLetter { attachment, failed: Failed { encoded, error } } = letter;
        let config = &topic.runtime().config;
        if config.cleanup.compacts() {
            keyed(&topic.name, encoded)?;
        }
        let Some(record) = record::iterate(encoded).next().transpose()? else { return Ok(()) };
        let error = error.to_wire();
        let module = format!("{}@{}", attachment.module, attachment.version);
        let partition_text = self.origin.partition.map(|partition| partition.to_string());
        let mut headers: Vec<(&str, Option<&[u8]>)> = record.headers.iter().collect();
        headers.push(("millpond.error", Some(error.message.as_bytes())));
        headers.push(("millpond.error.code", Some(error.code.name().as_bytes())));
        headers.push(("millpond.module", Some(module.as_bytes())));
        headers.push(("millpond.module.sha256", Some(attachment.sha256.as_bytes())));
        headers.push(("millpond.topic", Some(self.origin.topic.as_bytes())));
        let offset_text = self.origin.base_offset.map(|base| base.saturating_add(i64::from(record.offset_delta)).to_string());
        headers.extend(offset_text.as_ref().map(|offset| ("millpond.offset", Some(offset.as_bytes()))));
        headers.extend(partition_text.as_ref().map(|partition| ("millpond.partition", Some(partition.as_bytes()))));
        self.count(encoded, &headers)?;
        let timestamp = self.origin.base_timestamp.saturating_add(record.timestamp_delta);
        let new = NewRecord { timestamp, key: record.key, value: record.value, headers: &headers };

        let partitions = topic.partition_count().max(1);
        let partition = match record.key {
            Some(key) => partitioner::for_key(key, partitions),
            None => self.origin.partition.unwrap_or(0) % partitions,
        };
        let limit = config.max_batch_bytes;
        let place = (Arc::clone(&topic.name), partition);
        let (_, builder) = self.open.entry(place.clone()).or_insert_with(|| (Arc::clone(topic), BatchBuilder::new()));
        if !builder.is_empty() && (builder.size_with(&new) > limit as usize || builder.push(&new).is_err()) {
            self.close(&place)?;
        } else if !builder.is_empty() {
            return Ok(());
        }
        let (_, builder) = self.open.entry(place).or_insert_with(|| (Arc::clone(topic), BatchBuilder::new()));
        let bytes = builder.size_with(&new);
        if bytes > limit as usize {
            return Err(EngineError::BatchTooLarge { topic: Arc::clone(&topic.name), bytes, limit });
        }
        builder.push(&new)?;
        Ok(())
    }

    /// Counts what a letter takes, give or take a few bytes, its own headers twice.
    fn count(&mut self, encoded: &[u8], headers: &[(&str, Option<&[u8]>)]) -> Result<(), EngineError> {
        let header_bytes = headers.iter().map(|(name, value)| name.len() + value.map_or(0, <[u8]>::len) + HEADER_OVERHEAD_BYTES);
        self.bytes += encoded.len() + header_bytes.sum::<usize>();
        if self.bytes <= BYTES_PER_BATCH_MAX {
            return Ok(());
        }
        Err(EngineError::BatchRefused { reason: "its dead letters have more than 64 MiB; smaller batches have fewer" })
    }

    /// Finishes what is open for a partition.
    fn close(&mut self, place: &(Arc<str>, u32)) -> Result<(), EngineError> {
        if let Some((topic, mut builder)) = self.open.remove(place) {
            let batch = Batch::parse(builder.finish(Codec::None)?)?;
            self.finished.push(Letters { topic, partition: place.1, batch });
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Vec<Letters>, EngineError> {
        let open: Vec<_> = self.open.iter().filter(|(_, (_, builder))| !builder.is_empty()).map(|(place, _)| place.clone()).collect();
        for place in &open {
            self.close(place)?;
        }
        Ok(self.finished)
    }
}

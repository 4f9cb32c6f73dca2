//! What is left of a topic that is compacted: of each key the latest record, where it was acknowledged; of removed keys their tombstone or
//! nothing. What else is still there is what was sent, in its place and its order.
//!
//! Each producer writes keys of its own over and over, and then goes on to others: most of the first it removes before, so that their
//! tombstones have the time to go as well, and nothing of what they removed may come back.

use crate::{
    client,
    load::{Acknowledged, Load, Place, Sent, value},
};
use millpond::{Cleanup, Client, ConsumedRecord, Record, Start, TopicConfig};
use std::{collections::HashMap, mem};

pub(crate) const TOPIC: &str = "state";

pub(crate) const PARTITIONS: u32 = 2;

pub(crate) const PRODUCERS: u32 = 2;

/// A key: of which producer, and which of its keys.
type Key = (u32, u32);

/// What the topic should hold.
#[derive(Default)]
pub(crate) struct Compacted {
    /// All that was ever acknowledged.
    acknowledged: Acknowledged,
    /// The last record of each key.
    latest: HashMap<Key, (Place, Sent)>,
    /// Passes that brokers have told of before they were killed.
    passes: usize,
    /// Records found at the last look, and removed keys of which nothing was left.
    records: usize,
    keys_gone: usize,
}

pub(crate) fn config() -> TopicConfig {
    // The shortest that the broker takes.
    TopicConfig { cleanup: Cleanup::Compact, delete_retention_ms: 1_000, ..TopicConfig::default() }
}

/// The record that a producer sends as its `number`th. The timestamp is the number: a tombstone has no value to say it.
pub(crate) fn record(sent: Sent) -> Record {
    let (_, key) = key_of(sent);
    let name = format!("{}/{key}", sent.name);
    let record = if is_tombstone(sent) { Record::tombstone(name) } else { Record::new(value(sent, VALUE_BYTES)).with_key(name) };
    record.with_partition(key % PARTITIONS).with_timestamp(sent.number.into())
}

fn key_of(Sent { name, number }: Sent) -> Key {
    (name, number / RECORDS_PER_CHAPTER * KEYS_PER_CHAPTER + number % KEYS_PER_CHAPTER)
}

fn is_tombstone(Sent { number, .. }: Sent) -> bool {
    let is_last = number % RECORDS_PER_CHAPTER >= RECORDS_PER_CHAPTER - KEYS_PER_CHAPTER;
    is_last && !(number % KEYS_PER_CHAPTER).is_multiple_of(KEYS_PER_KEPT_ONE)
}

impl Compacted {
    /// Reads all that is left, while nobody produces and everything is acknowledged.
    pub(crate) async fn look(&mut self, url: &str, load: &Load) {
        for (place, sent) in mem::take(&mut *load.acknowledged().lock().expect("no panic")) {
            assert_eq!(self.acknowledged.insert(place, sent), None, "two records were acknowledged at {place:?}");
            let latest = self.latest.entry(key_of(sent)).or_insert((place, sent));
            // Answers are noted by place, and a key has one partition.
            assert!(latest.1 <= sent, "{sent:?} was acknowledged at {place:?}, behind {latest:?}");
            *latest = (place, sent);
        }
        assert_eq!(self.acknowledged.len(), load.sent(), "each record has a place of its own");
        let client = client(url).await;
        let (mut last_found, mut records) = (HashMap::new(), 0);
        for partition in 0..PARTITIONS {
            let mut order = HashMap::new();
            for (offset, sent) in read(&client, load, partition).await {
                let place = (partition, offset);
                assert_eq!(self.acknowledged.get(&place), Some(&sent), "at {place:?}: offsets never change");
                let before = order.insert(sent.name, sent);
                assert!(before.is_none_or(|before| before < sent), "at {place:?}: {sent:?} lies behind {before:?}");
                last_found.insert(key_of(sent), (place, sent));
                records += 1;
            }
        }
        let mut keys_gone = 0;
        for (key, latest) in &self.latest {
            match last_found.get(key) {
                None if is_tombstone(latest.1) => keys_gone += 1,
                found => assert_eq!(found, Some(latest), "the latest record of key {key:?}"),
            }
        }
        (self.records, self.keys_gone) = (records, keys_gone);
    }

    /// Counts the passes in the log of a broker.
    pub(crate) fn count_passes(&mut self, log: &str) {
        self.passes += log.matches("a partition was compacted").count();
    }

    /// The kills would show little if nothing had been compacted meanwhile.
    pub(crate) fn must_have_been_compacted(&self, load: &Load) {
        let Compacted { passes, records, keys_gone, .. } = self;
        let (sent, keys) = (load.sent(), self.latest.len());
        assert!(*passes >= PASSES_MIN, "{passes} passes");
        assert!(records * 2 < sent, "{records} records are left of {sent}");
        assert!(*keys_gone > 0, "tombstones are gone: {keys_gone} of {keys} keys");
    }
}

/// The records of a partition, each as it was sent; its batches follow each other without a gap, up to the end.
async fn read(client: &Client, load: &Load, partition: u32) -> Vec<(i64, Sent)> {
    let consumer = client.consumer(TOPIC).partitions([partition]).start(Start::Beginning).until_end(true);
    let mut consumer = consumer.build().await.expect("the topic is there");
    let (mut found, mut next_offset) = (Vec::new(), 0);
    while let Some(batch) = consumer.next_batch().await {
        let batch = batch.expect("the broker is up");
        for raw in batch.raw() {
            assert_eq!(raw.header().base_offset, next_offset, "the batches of partition {partition} have no gap");
            next_offset = raw.header().next_offset();
        }
        for record in batch {
            let ConsumedRecord { offset, timestamp, key, value, .. } = record.expect("every batch can be read");
            let key = String::from_utf8(key.expect("a key").to_vec()).expect("text");
            let (name, _) = key.split_once('/').expect("producer/key");
            let sent = Sent { name: name.parse().expect("a producer"), number: u32::try_from(timestamp).expect("a number") };
            let expected = load.record(sent);
            assert_eq!((expected.key.as_deref(), expected.value), (Some(key.as_bytes()), value), "partition {partition} offset {offset}");
            found.push((offset, sent));
        }
    }
    let end = client.admin().topic(TOPIC).await.expect("it is there").partitions[partition as usize].high_watermark;
    assert_eq!(next_offset, end, "partition {partition} is read to its end");
    found
}

const VALUE_BYTES: usize = 100;

/// A producer writes so many records with the same keys, each key ten times.
const RECORDS_PER_CHAPTER: u32 = 500;

const KEYS_PER_CHAPTER: u32 = 50;

/// Of so many keys one is not removed in the end.
const KEYS_PER_KEPT_ONE: u32 = 10;

const PASSES_MIN: usize = 50;

//! What is stored in a topic that keeps everything: each record once, those of each producer in their order and without a gap.

use crate::{
    client,
    load::{Load, Sent, sent_in},
};
use millpond::{Client, ConsumedRecord, Start};
use std::collections::HashMap;

/// Partitions of the topic. Record n of a producer goes to partition n modulo this.
pub(crate) const PARTITIONS: u32 = 3;

/// What was found so far: for each partition the records, by their offsets.
pub(crate) struct Seen {
    topic: &'static str,
    records: [Vec<Sent>; PARTITIONS as usize],
    /// The next number of each producer in each partition.
    next_numbers: HashMap<(u32, u32), u32>,
}

impl Seen {
    /// Nothing, yet.
    pub(crate) fn new(topic: &'static str) -> Seen {
        Seen { topic, records: Default::default(), next_numbers: HashMap::new() }
    }

    /// Reads what came since the last look, and finds what was acknowledged in it.
    pub(crate) async fn look(&mut self, url: &str, load: &Load) {
        let client = client(url).await;
        for (partition, records) in (0..PARTITIONS).zip(&mut self.records) {
            let start = i64::try_from(records.len()).expect("few");
            for (offset, sent) in read(&client, load, (self.topic, partition), Start::Offset(start)).await {
                assert_eq!(usize::try_from(offset), Ok(records.len()), "the offsets of partition {partition} have no gap");
                let expected = self.next_numbers.entry((partition, sent.name)).or_insert(partition);
                assert_eq!(
                    sent.number, *expected,
                    "partition {partition} offset {offset}: producer {}, each record once, in order, without a gap",
                    sent.name
                );
                *expected += PARTITIONS;
                records.push(sent);
            }
        }
        // What was acknowledged a moment ago may lie behind the end that was read, and is left for the next look.
        load.acknowledged().lock().expect("no panic").retain(|(partition, offset), sent| {
            let found = usize::try_from(*offset).ok().and_then(|offset| self.records[*partition as usize].get(offset));
            assert!(found.is_none_or(|found| found == sent), "{sent:?} was acknowledged at {offset} of {partition}, where {found:?} is");
            found.is_none()
        });
    }

    /// Reads everything that is left once more, from the beginning, when the producers have stopped: all that was ever sent was found, and
    /// what is not deleted is what was found before. Gives the log starts.
    pub(crate) async fn look_again(&self, url: &str, load: &Load) -> [i64; PARTITIONS as usize] {
        assert!(load.acknowledged().lock().expect("no panic").is_empty(), "all that was acknowledged was found");
        assert_eq!(self.count(), load.sent(), "each record is there once");
        let (client, mut log_starts) = (client(url).await, [0; PARTITIONS as usize]);
        for ((partition, records), log_start) in (0..PARTITIONS).zip(&self.records).zip(&mut log_starts) {
            let again = read(&client, load, (self.topic, partition), Start::Beginning).await;
            let end = i64::try_from(records.len()).expect("few");
            *log_start = again.first().map_or(end, |(offset, _)| *offset);
            let left = usize::try_from(*log_start).expect("an offset");
            let expected = (*log_start..end).zip(records[left..].iter().copied());
            assert!(again.into_iter().eq(expected), "partition {partition} from {log_start} to {end}, as it was seen before");
        }
        log_starts
    }

    /// How many records were found.
    pub(crate) fn count(&self) -> usize {
        self.records.iter().map(Vec::len).sum()
    }

    /// One past the last offset that was found in a partition.
    pub(crate) fn end(&self, partition: u32) -> i64 {
        i64::try_from(self.records[partition as usize].len()).expect("few")
    }
}

/// The records of a partition, each of them byte for byte what was sent.
async fn read(client: &Client, load: &Load, (topic, partition): (&str, u32), start: Start) -> Vec<(i64, Sent)> {
    let consumer = client.consumer(topic).partitions([partition]).start(start).until_end(true);
    let mut consumer = consumer.build().await.expect("no offset that was seen is lost");
    let mut found = Vec::new();
    while let Some(record) = consumer.next().await {
        let ConsumedRecord { offset, value, .. } = record.expect("the broker is up");
        let sent = sent_in(value.as_deref().expect("a value"));
        assert_eq!(value, load.record(sent).value, "partition {partition} offset {offset}");
        found.push((offset, sent));
    }
    found
}

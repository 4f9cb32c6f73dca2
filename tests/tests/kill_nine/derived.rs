//! A hundred kills under a topic that is derived with state: each record has its effect once.
//!
//! The module numbers the records of each key, from what it keeps in its state, and two topics are derived in this way: one whose batches are
//! acknowledged when they are on disk, and one where that is the system's business. A record that was lost between the source and the target,
//! one that is there twice, and a state that is not the one which the record before has left: each would break the numbers.

use crate::{
    client, create_topic,
    load::{Load, Sent, sent_in, value},
    under_load::writers,
};
use millpond::{Client, ConsumedRecord, Record, Start, TopicConfig};
use millpond_protocol::message::{AttachPoint, AttachTransform, AttachmentStatus, DeriveInto, Durability, ModuleRef};
use millpond_tests::{Broker, Site, plugin};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::collections::BTreeMap;

const KILLS: u32 = 100;

const PRODUCERS: u32 = 2;

const PARTITIONS: u32 = 2;

/// Of the source; so few that each has many numbers.
const KEYS: u32 = 7;

const VALUE_BYTES: usize = 40;

/// The topics that are derived, and how their batches are acknowledged.
const TARGETS: [(&str, Durability); 2] = [("numbered", Durability::Sync), ("numbered-os", Durability::Os)];

/// By key, in the order of the partition: which record it is, and the number that it was given.
type ByKey = BTreeMap<Vec<u8>, Vec<(Sent, u64)>>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_record_is_numbered_once_through_a_hundred_kills() {
    let site = Site::new();
    let mut broker = site.start();
    begin(&broker).await;
    let load = Load::new(reading);
    let producing = load.run(writers(&broker, "readings", PRODUCERS).await);
    let mut random = StdRng::seed_from_u64(0x0064_6572_6976_6564);
    for _ in 0..KILLS {
        load.acknowledge(random.random_range(1..300)).await;
        broker.kill();
        broker = site.start();
    }
    has_got_on(&broker).await;
    producing.stop().await;
    check(&broker).await;
    assert!(broker.stop().success(), "the broker stops cleanly");
    broker = site.start();
    check(&broker).await;
    assert!(broker.stop().success(), "the broker stops cleanly");
}

/// Most of what the producers have sent until now was derived between the kills, and not only at the end.
async fn has_got_on(broker: &Broker) {
    let admin = client(broker.url()).await.admin();
    let mut sums = Vec::new();
    for topic in ["numbered", "readings"] {
        let partitions = admin.topic(topic).await.expect("it is there").partitions;
        sums.push(partitions.iter().map(|partition| partition.high_watermark).sum::<i64>());
    }
    assert!(sums[0] * 2 > sums[1], "{sums:?}");
}

async fn begin(broker: &Broker) {
    create_topic(broker.url(), "readings", PARTITIONS, TopicConfig::default()).await;
    let file = plugin("count");
    for (target, durability) in TARGETS {
        create_topic(broker.url(), target, 3, TopicConfig { durability, ..TopicConfig::default() }).await;
        // A module is on a topic once, so each has a name of its own.
        broker.ok(&["transform", "deploy", file.to_str().expect("the repository's path is UTF-8"), "--name", target]);
        let derive = Some(DeriveInto { state_bytes: 64 << 10, ..DeriveInto::new([target]) });
        let attach = AttachTransform { derive, ..AttachTransform::new("readings", ModuleRef::current(target), AttachPoint::Derive) };
        client(broker.url()).await.admin().attach(attach).await.expect("it can be attached");
    }
}

fn reading(sent: Sent) -> Record {
    let key = sent.number % KEYS;
    Record::new(value(sent, VALUE_BYTES)).with_key(format!("key-{key}")).with_partition(key % PARTITIONS)
}

/// Waits until all has had its effect, and holds what was derived against the source.
async fn check(broker: &Broker) {
    let client = client(broker.url()).await;
    while !client.admin().topic("readings").await.expect("it is there").attachments.iter().all(has_caught_up) {
        tokio::task::yield_now().await;
    }
    let source = read_all(&client, "readings").await;
    assert!(source.values().map(Vec::len).sum::<usize>() > KILLS as usize, "the producers got on");
    for (target, _) in TARGETS {
        let mut found = read_all(&client, target).await;
        for (key, records) in &source {
            let expected: Vec<_> = (1..).zip(records).map(|(number, (sent, _))| (*sent, number)).collect();
            let found = found.remove(key).unwrap_or_default();
            let key = String::from_utf8_lossy(key);
            assert_eq!(found.len(), expected.len(), "{target}, {key}");
            let first_other = found.iter().zip(&expected).position(|(found, expected)| found != expected);
            assert_eq!(first_other, None, "{target}, {key}: {:?}", first_other.map(|at| (&found[at], &expected[at])));
        }
        assert!(found.is_empty(), "{target} has keys that the source does not have");
    }
}

fn has_caught_up(attachment: &AttachmentStatus) -> bool {
    let derived = attachment.derived.as_ref().expect("it derives a topic");
    assert!(derived.partitions.iter().all(|partition| partition.skipped == 0), "{derived:?}");
    derived.partitions.iter().all(|partition| partition.lag == 0 && partition.error.is_none())
}

async fn read_all(client: &Client, topic: &str) -> ByKey {
    let mut consumer = client.consumer(topic).start(Start::Beginning).until_end(true).build().await.expect("the topic is there");
    let mut found = ByKey::new();
    while let Some(record) = consumer.next().await {
        let ConsumedRecord { key, value, headers, .. } = record.expect("the broker is up");
        let sent = sent_in(value.as_deref().expect("a value"));
        let number = headers.get("count").map_or(0, |number| String::from_utf8_lossy(&number).parse().expect("a number"));
        found.entry(key.expect("a key").to_vec()).or_default().push((sent, number));
    }
    found
}

//! Exactly once: whenever the power goes, each record of the source has its effect once, and output, state and position agree.
//!
//! The module numbers the records of each key. Its count is its state, and what it writes: a record that was lost, done twice, or
//! done with a state that was not the one before it, leaves a gap or a repetition in the numbers.

use crate::{
    broker::{Broker, create},
    derive::{counts, into, send, until},
    derive_guests,
};
use millpond_engine::Engine;
use millpond_log::sim::{Random, SimDisk};
use std::{collections::BTreeMap, sync::Arc};

const PARTITIONS: u32 = 2;

/// How many records there are of each key in a topic.
async fn by_key(broker: &Broker, topic: &str) -> BTreeMap<String, u32> {
    use millpond_protocol::{batch::Batch, message::OpenConsume, message::Position};
    let mut found = BTreeMap::new();
    for partition in 0..PARTITIONS {
        let end = broker.offset_at(topic, partition, Position::End).await.expect("it is there").offset;
        let open = OpenConsume { topic: topic.to_owned(), partition, from: Position::Beginning, view: None };
        let (mut stream, _) = broker.engine.open_consume(&open).await.expect("it opens");
        while stream.position() < end {
            let (_, mut batches) = stream.next(1 << 20).await.expect("it reads");
            while let Some(batch) = Batch::take_front(&mut batches).expect("whole batches") {
                for record in batch.records(1 << 20).expect("it unpacks") {
                    let key = record.expect("it reads").key.expect("it has one");
                    *found.entry(String::from_utf8_lossy(&key).into_owned()).or_default() += 1;
                }
            }
        }
    }
    found
}

/// Sends until the power is gone, or some batches are through.
async fn send_some(broker: &Broker, random: &mut Random) {
    for _ in 0..random.below(12) {
        let partition = u32::try_from(random.below(u64::from(PARTITIONS))).expect("small");
        // State is by partition, so a key belongs to one.
        let keys: Vec<_> = (0..=random.below(6)).map(|_| format!("{partition}-{}", random.below(4))).collect();
        let values: Vec<_> = keys.iter().map(|_| random.below(100).to_string()).collect();
        let records: Vec<_> = keys.iter().zip(&values).map(|(key, value)| (key.as_str(), value.as_str())).collect();
        if send(broker, "source", partition, &records).await.is_err() {
            return;
        }
    }
}

/// Holds the targets against the source: of each key the numbers from 1 to its last, each once.
async fn check(broker: &Broker, what: &str) {
    until(broker, "source", |partitions| {
        for partition in partitions {
            // It would stay like this for ever.
            let diverged = partition.error.as_ref().filter(|error| error.contains("has more than was derived into it"));
            assert!(diverged.is_none(), "{what}: {partition:?}");
        }
        partitions.iter().all(|one| one.lag == 0)
    })
    .await;
    let mut found: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    for target in ["even", "odd"] {
        for partition in 0..PARTITIONS {
            let in_partition = counts(broker, target, partition).await;
            let mut last: BTreeMap<&str, u32> = BTreeMap::new();
            for (key, count) in &in_partition {
                let before = last.insert(key, *count).unwrap_or(0);
                assert!(before < *count, "{what}: {key} is out of order in {target}");
                found.entry(key.clone()).or_default().push(*count);
            }
        }
    }
    let expected = by_key(broker, "source").await;
    for numbers in found.values_mut() {
        numbers.sort_unstable();
    }
    for (key, count) in &expected {
        let numbers = found.remove(key).unwrap_or_default();
        assert_eq!(numbers, (1..=*count).collect::<Vec<_>>(), "{what}: {key}");
    }
    assert!(found.is_empty(), "{what}: the source has nothing of {found:?}");
}

async fn begin(durability: &str) -> (Broker, SimDisk) {
    let (broker, disk) = Broker::simulated().await;
    for topic in ["source", "even", "odd"] {
        broker.engine.create_topic(create(topic, PARTITIONS, durability)).await.expect("it can be made");
    }
    broker.engine.deploy_module("counter", derive_guests::counter(1)).await.expect("it can be deployed");
    broker.engine.attach(into("source", "counter", &["even", "odd"])).await.expect("it can be attached");
    (broker, disk)
}

/// The power goes, and the broker starts on what is left.
async fn crash(broker: Broker, disk: &SimDisk, random: &mut Random) -> Broker {
    broker.engine.shutdown().await;
    disk.crash(random.next_u64());
    loop {
        let opened = Engine::open(broker.config.clone(), Arc::clone(&broker.disk), Arc::clone(&broker.clock) as _).await;
        if let Ok(engine) = opened {
            return Broker { engine, ..broker };
        }
        // The power has gone again while it started.
        disk.crash(random.next_u64());
    }
}

async fn survive(durability: &str, seeds: std::ops::Range<u64>) {
    for seed in seeds {
        let mut random = Random::new(seed);
        let (mut broker, disk) = begin(durability).await;
        for round in 0..5 {
            disk.cut_power_after(random.below(90));
            send_some(&broker, &mut random).await;
            broker = crash(broker, &disk, &mut random).await;
            if random.percent(30) {
                // Before all of it was done anew.
                disk.cut_power_after(random.below(40));
                broker = crash(broker, &disk, &mut random).await;
            }
            check(&broker, &format!("{durability}, seed {seed}, round {round}")).await;
        }
        broker.engine.shutdown().await;
    }
}

#[tokio::test]
async fn each_record_has_its_effect_once_whenever_the_power_goes() {
    survive("sync", 0..40).await;
}

#[tokio::test]
async fn where_nothing_is_flushed_for_producers_what_is_derived_is_durable_before_it_counts() {
    survive("interval:1ms", 100..112).await;
    survive("os", 200..212).await;
}

//! Compacted topics without room: compaction makes some, at once, and not over and over for nothing.

use crate::{
    broker::{Broker, create, keyed_batch},
    compaction::{rows, send},
    retention::{HOUR_MS, large, partition, small_segments},
};
use millpond_engine::EngineError;
use millpond_log::sim::SimDisk;
use millpond_protocol::{
    compression::Codec,
    error::ErrorCode,
    message::{Ack, Cleanup, CreateTopic, TopicConfig},
};
use std::sync::Arc;

/// A topic that keeps the latest of each key, with a quota.
fn compacted(name: &str, quota_bytes: Option<u64>, durability: &str) -> CreateTopic {
    let request = create(name, 1, durability);
    let config = TopicConfig { cleanup: Cleanup::Compact, quota_bytes, max_batch_bytes: 64 << 10, ..request.config };
    CreateTopic { config, ..request }
}

/// A hundred records of 300 bytes, with the keys from `first` on, or the same few over and over.
async fn send_hundred(broker: &Broker, topic: &str, first: usize, keys: usize) -> Result<Ack, EngineError> {
    let records: Vec<_> = (0..100).map(|number| ((first + number % keys).to_string(), format!("{first:0290}"))).collect();
    let records: Vec<_> = records.iter().map(|(key, value)| (Some(key.as_str()), value.as_str())).collect();
    send(broker, topic, keyed_batch(&records, Codec::None)).await
}

fn passes(broker: &Broker, topic: &str) -> u64 {
    partition(broker, topic).compaction.expect("it is compacted").passes
}

#[tokio::test]
async fn a_topic_that_reaches_its_quota_before_a_segment_is_full_takes_everything() {
    for durability in ["sync", "interval:5ms", "os"] {
        let (broker, _) = Broker::simulated().await;
        broker.engine.create_topic(compacted("small", Some(512 << 10), durability)).await.expect("it can be made");
        // Four times the quota, and nobody looks at it for a minute.
        for number in 0..70 {
            let sent = send_hundred(&broker, "small", 0, 10).await;
            sent.unwrap_or_else(|error| panic!("{durability}, batch {number}: {error}"));
            assert!(partition(&broker, "small").size_bytes <= 512 << 10);
        }
        let rows = rows(&broker, "small").await;
        assert_eq!(rows.last().map(|(offset, key, _)| (*offset, key.as_str())), Some((6_999, "9")), "the offsets are those of all records");
        assert!(passes(&broker, "small") <= 20, "{durability}: each pass was worth it");
    }
}

#[tokio::test]
async fn a_topic_of_which_less_than_half_could_go_takes_everything() {
    let (broker, _) = Broker::simulated().await;
    let mut request = compacted("t", Some(4 << 20), "os");
    request.config.segment_bytes = 256 << 10;
    broker.engine.create_topic(request).await.expect("it can be made");
    for number in 0..80 {
        send_hundred(&broker, "t", number * 100, 100).await.expect("there is room");
    }
    for number in 0..200 {
        send_hundred(&broker, "t", 0, 5).await.unwrap_or_else(|error| panic!("batch {number}: {error}"));
    }
    let keys: std::collections::BTreeSet<_> = rows(&broker, "t").await.into_iter().map(|(_, key, _)| key).collect();
    assert_eq!(keys.len(), 8_000, "the latest of each key is there");
}

#[tokio::test]
async fn for_the_quota_of_the_node_all_compacted_topics_make_room_and_for_anybody() {
    let broker = Broker::with(Arc::new(SimDisk::new()), |config| config.quota_bytes = Some(2 << 20)).await;
    broker.engine.create_topic(compacted("latest", None, "sync")).await.expect("it can be made");
    broker.engine.create_topic(compacted("other", None, "sync")).await.expect("it can be made");
    broker.topic("plain", 1, "sync").await;
    for _ in 0..25 {
        send_hundred(&broker, "latest", 0, 10).await.expect("there is room");
        send_hundred(&broker, "other", 0, 10).await.expect("there is room");
    }
    for number in 0..50 {
        send_hundred(&broker, "plain", 0, 100).await.unwrap_or_else(|error| panic!("batch {number}: {error}"));
    }
    assert!(passes(&broker, "latest") > 0 && passes(&broker, "other") > 0);
    assert_eq!(rows(&broker, "plain").await.len(), 5_000, "and has lost nothing");
}

#[tokio::test]
async fn where_all_keys_are_distinct_nothing_is_done_over_and_over() {
    let (broker, sim) = Broker::simulated().await;
    broker.engine.create_topic(compacted("t", Some(512 << 10), "sync")).await.expect("it can be made");
    let mut sent = 0;
    let refuse = async |from: usize| {
        let error = send_hundred(&broker, "t", from, 100).await.expect_err("nothing could go");
        assert_eq!(error.code(), ErrorCode::StorageFull);
    };
    while send_hundred(&broker, "t", sent, 100).await.is_ok() {
        sent += 100;
    }
    let first = passes(&broker, "t");
    assert!((1..=2).contains(&first), "{first}");
    for _ in 0..100 {
        refuse(sent).await;
    }
    assert_eq!(passes(&broker, "t"), first, "it was in vain a moment ago");
    broker.clock.pass(HOUR_MS);
    for _ in 0..100 {
        refuse(sent).await;
    }
    let second = passes(&broker, "t");
    assert!(second <= first + 1, "{second}: once for what came since");
    for _ in 0..100 {
        broker.clock.pass(HOUR_MS);
        refuse(sent).await;
    }
    assert_eq!(passes(&broker, "t"), second, "there is nothing new");
    assert_eq!(rows(&broker, "t").await.len(), sent);
    assert!(sim.used_bytes() < 700 << 10);
}

#[tokio::test]
async fn on_a_full_disk_what_can_be_compacted_makes_room() {
    let (broker, sim) = Broker::simulated().await;
    let config = TopicConfig { cleanup: Cleanup::Compact, ..TopicConfig::default() };
    broker.engine.create_topic(small_segments("t", config)).await.expect("it can be made");
    let produce = async || send(&broker, "t", keyed_batch(&[(Some("a"), "1"), (Some("b"), &large())], Codec::None)).await;
    for _ in 0..6 {
        produce().await.expect("there is room");
    }
    sim.limit_bytes(Some(sim.used_bytes()));
    for number in 0..50 {
        produce().await.unwrap_or_else(|error| panic!("batch {number}: {error}"));
    }
    assert!(passes(&broker, "t") > 0);
}

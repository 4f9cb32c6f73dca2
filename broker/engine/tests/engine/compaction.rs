//! Compacted topics: what they take, and what is left of it.

use crate::{
    broker::{Broker, batch, create, keyed_batch},
    retention::{HOUR_MS, a_whole_check, change, large, partition, small_segments, watchful},
};
use bytes::Bytes;
use millpond_engine::{Answer, EngineError};
use millpond_log::sim::{Operation, Random, SimDisk};
use millpond_protocol::{
    batch::{Batch, BatchBuilder},
    compression::Codec,
    error::ErrorCode,
    message::{Ack, AlterTopic, Cleanup, CreateTopic, Limit, OnFull, OpenConsume, Position, TopicConfig},
    record::NewRecord,
};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

fn compacted(cleanup: Cleanup) -> TopicConfig {
    TopicConfig { cleanup, ..TopicConfig::default() }
}

pub(crate) async fn send(broker: &Broker, topic: &str, batch: Bytes) -> Result<Ack, EngineError> {
    let mut producer = broker.producer(topic, Some(0));
    match broker.submit(&mut producer, batch).await.await? {
        Answer::Ack(ack) => Ok(ack),
        Answer::Placements(placements) => panic!("an ack was expected, not {placements:?}"),
    }
}

/// Something that takes room, compressed or not.
fn noise(seed: usize) -> String {
    let mut random = Random::new(seed as u64);
    (0..6_400).map(|_| char::from(b"0123456789abcdef"[usize::try_from(random.below(16)).expect("small")])).collect()
}

/// Rounds of the same ten keys.
pub(crate) async fn fill(broker: &Broker, topic: &str, rounds: std::ops::Range<usize>) {
    for round in rounds {
        for key in 0..10 {
            let (name, value) = (key.to_string(), noise(round * 10 + key));
            send(broker, topic, keyed_batch(&[(Some(&name), &value)], Codec::ALL[round % 5])).await.expect("it is stored");
        }
    }
}

/// Waits until the partition has less than so many bytes.
async fn shrunk(broker: &Broker, topic: &str, bytes: u64) {
    while partition(broker, topic).size_bytes >= bytes {
        tokio::task::yield_now().await;
    }
}

/// Keys and values of all that can be read, by offset.
pub(crate) async fn rows(broker: &Broker, topic: &str) -> Vec<(i64, String, Option<String>)> {
    let open = OpenConsume { topic: topic.to_owned(), partition: 0, from: Position::Beginning, view: None };
    let (mut stream, opened) = broker.engine.open_consume(&open).await.expect("it opens");
    let text = |bytes: Bytes| String::from_utf8(bytes.to_vec()).expect("text");
    let mut rows = Vec::new();
    while stream.position() < opened.high_watermark {
        let (_, mut batches) = stream.next(1 << 20).await.expect("it reads");
        while let Some(batch) = Batch::take_front(&mut batches).expect("whole batches") {
            batch.verify_crc().expect("an intact batch");
            for record in batch.records(1 << 20).expect("it unpacks").map(|record| record.expect("it reads")) {
                rows.push((record.offset, record.key.map(text).unwrap_or_default(), record.value.map(text)));
            }
        }
    }
    rows
}

#[tokio::test]
async fn of_each_key_the_latest_record_is_left_at_its_offset_and_after_a_restart() {
    let broker = watchful().await;
    broker.engine.create_topic(small_segments("t", compacted(Cleanup::Compact))).await.expect("it can be made");
    fill(&broker, "t", 0..40).await;
    shrunk(&broker, "t", 300 << 10).await;
    let found = rows(&broker, "t").await;
    assert!(found.len() < 100, "{}", found.len());
    let latest: BTreeMap<&String, i64> = found.iter().map(|(offset, key, _)| (key, *offset)).collect();
    assert_eq!(latest.values().copied().collect::<Vec<_>>(), (390..400).collect::<Vec<_>>());
    let first = found[0].0;
    let broker = broker.restart().await;
    let again = rows(&broker, "t").await;
    assert!(again[0].0 >= first && again.ends_with(&found[found.len() - 10..]));
    assert_eq!(send(&broker, "t", keyed_batch(&[(Some("k"), "v")], Codec::None)).await.expect("it is stored").base_offset, 400);
}

#[tokio::test]
async fn a_topic_that_never_fills_a_segment_is_compacted_too_and_one_that_is_not_compacted_stays() {
    let broker = watchful().await;
    for (name, cleanup) in [("t", Cleanup::Compact), ("u", Cleanup::Delete)] {
        let request = CreateTopic { config: compacted(cleanup), ..create(name, 1, "os") };
        broker.engine.create_topic(request).await.expect("it can be made");
        // 1.4 MB.
        for round in 0..200 {
            let value = format!("{round} {}", "x".repeat(7_000));
            send(&broker, name, keyed_batch(&[(Some("k"), &value)], Codec::None)).await.expect("it is stored");
        }
    }
    shrunk(&broker, "t", 500 << 10).await;
    assert_eq!(rows(&broker, "t").await.last().map(|(offset, key, _)| (*offset, key.as_str())), Some((199, "k")));
    assert_eq!(rows(&broker, "u").await.len(), 200);
    broker.engine.alter_topic(AlterTopic { cleanup: Some(Cleanup::Compact), ..change("u") }).await.expect("it can be changed");
    shrunk(&broker, "u", 500 << 10).await;
}

#[tokio::test]
async fn a_tombstone_takes_the_values_with_it_and_goes_in_its_time() {
    let broker = watchful().await;
    broker.clock.advance(3 * 365 * 24 * i64::from(HOUR_MS));
    let config = TopicConfig { delete_retention_ms: u64::from(HOUR_MS), ..compacted(Cleanup::Compact) };
    broker.engine.create_topic(small_segments("t", config)).await.expect("it can be made");
    send(&broker, "t", keyed_batch(&[(Some("gone"), "value")], Codec::None)).await.expect("it is stored");
    let mut builder = BatchBuilder::new();
    builder.push(&NewRecord { key: Some(b"gone"), ..NewRecord::default() }).expect("it fits");
    send(&broker, "t", builder.finish(Codec::None).expect("it has a record")).await.expect("it is stored");
    fill(&broker, "t", 0..30).await;
    shrunk(&broker, "t", 300 << 10).await;
    let of_gone = |rows: Vec<(i64, String, Option<String>)>| rows.into_iter().filter(|(_, key, _)| key == "gone").collect::<Vec<_>>();
    assert_eq!(of_gone(rows(&broker, "t").await), [(1, "gone".to_owned(), None)]);
    broker.clock.advance(i64::from(HOUR_MS));
    fill(&broker, "t", 30..60).await;
    while !of_gone(rows(&broker, "t").await).is_empty() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn age_and_size_delete_where_the_cleanup_says_so_and_nowhere_else() {
    let broker = watchful().await;
    let limit = Some(64 << 10);
    let all = [("both", Cleanup::CompactDelete, limit), ("compact", Cleanup::Compact, None), ("zz-last", Cleanup::Delete, limit)];
    for (name, cleanup, retention_bytes) in all {
        let config = TopicConfig { retention_bytes, ..compacted(cleanup) };
        broker.engine.create_topic(small_segments(name, config)).await.expect("it can be made");
    }
    for name in ["both", "compact"] {
        for key in 0..20 {
            send(&broker, name, keyed_batch(&[(Some(&key.to_string()), &large())], Codec::None)).await.expect("it is stored");
        }
    }
    a_whole_check(&broker).await;
    assert!(partition(&broker, "both").log_start >= 17);
    assert_eq!(rows(&broker, "compact").await.len(), 20, "each key is there");
}

#[tokio::test]
async fn what_was_compacted_is_as_old_as_it_was() {
    let broker = watchful().await;
    let config = TopicConfig { retention_ms: Some(10 * u64::from(HOUR_MS)), ..TopicConfig::default() };
    broker.engine.create_topic(small_segments("t", config)).await.expect("it can be made");
    let config = TopicConfig { retention_bytes: Some(64 << 10), ..TopicConfig::default() };
    broker.engine.create_topic(small_segments("zz-last", config)).await.expect("it can be made");
    fill(&broker, "t", 0..30).await;
    // A record is as old as the first look at it.
    a_whole_check(&broker).await;
    broker.clock.pass(6 * HOUR_MS);
    let request = AlterTopic { cleanup: Some(Cleanup::CompactDelete), ..change("t") };
    broker.engine.alter_topic(request).await.expect("it can be changed");
    shrunk(&broker, "t", 300 << 10).await;
    assert!(partition(&broker, "t").log_start < 290);
    broker.clock.pass(5 * HOUR_MS);
    while partition(&broker, "t").log_start < 300 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_record_without_a_key_is_refused_with_its_whole_batch_whatever_its_way() {
    let (broker, _) = Broker::simulated().await;
    for (name, cleanup) in [("t", Cleanup::Compact), ("u", Cleanup::CompactDelete)] {
        let request = CreateTopic { config: compacted(cleanup), ..create(name, 2, "sync") };
        broker.engine.create_topic(request).await.expect("it can be made");
        for codec in Codec::ALL {
            let records = [(Some("a"), "1"), (Some(""), "an empty key is one"), (None, "3"), (None, "4")];
            let error = send(&broker, name, keyed_batch(&records, codec)).await.expect_err("one has no key");
            assert_eq!(error.code(), ErrorCode::InvalidRecord);
            let wire = error.to_wire();
            assert!(wire.message.starts_with("record 2 of the batch has no key") && !wire.retryable, "{wire:?}");
            assert!(wire.hint.is_some_and(|hint| hint.contains(&format!("`millpond topic alter {name} --cleanup delete`"))));
            let error = broker.place(name, keyed_batch(&records, codec)).await.expect_err("nor so");
            assert_eq!(error.code(), ErrorCode::InvalidRecord);
            send(&broker, name, keyed_batch(&records[..2], codec)).await.expect("these are taken");
        }
        assert_eq!(partition(&broker, name).log_end, 10, "nothing of a refused batch was stored");
    }
    let bomb = keyed_batch(&[(Some("a"), &"0".repeat(33 << 20))], Codec::Zstd);
    assert_eq!(send(&broker, "t", bomb).await.expect_err("too large to be looked at").code(), ErrorCode::BatchTooLarge);
    broker.engine.alter_topic(AlterTopic { cleanup: Some(Cleanup::Delete), ..change("t") }).await.expect("it can be changed");
    send(&broker, "t", batch(&["no key"])).await.expect("it is taken now");
}

#[tokio::test]
async fn a_module_may_take_the_record_without_a_key_away() {
    let (broker, _) = Broker::simulated().await;
    let request = CreateTopic { config: compacted(Cleanup::Compact), ..create("t", 1, "sync") };
    broker.engine.create_topic(request).await.expect("it can be made");
    // Drops every record.
    broker.attach("t", "drop", 'a').await;
    assert_eq!(send(&broker, "t", batch(&["no key"])).await.expect("nothing is left to refuse").base_offset, -1);
}

#[tokio::test]
async fn a_time_for_tombstones_that_can_not_be_is_refused() {
    let (broker, _) = Broker::simulated().await;
    for delete_retention_ms in [0, 999, u64::MAX] {
        let config = TopicConfig { delete_retention_ms, ..TopicConfig::default() };
        let error = broker.engine.create_topic(CreateTopic { config, ..create("t", 1, "sync") }).await.expect_err("it can't be");
        assert_eq!(error.code(), ErrorCode::InvalidConfig);
    }
}

#[tokio::test]
async fn on_a_full_disk_a_pass_is_given_up_and_made_when_there_is_room() {
    let disk = SimDisk::new();
    let broker = Broker::with(Arc::new(disk.clone()), |config| config.retention_check_interval = Duration::from_millis(1)).await;
    let cleanup = |cleanup| AlterTopic { cleanup: Some(cleanup), ..change("t") };
    broker.engine.create_topic(small_segments("t", TopicConfig::default())).await.expect("it can be made");
    fill(&broker, "t", 0..30).await;
    broker.engine.alter_topic(cleanup(Cleanup::Compact)).await.expect("it can be changed");
    // No room for anything more.
    disk.limit_bytes(Some(1));
    let writes = disk.count(Operation::Write);
    let status = || partition(&broker, "t").compaction.expect("it is compacted");
    while status().failures == 0 && partition(&broker, "t").size_bytes > 300 << 10 {
        tokio::task::yield_now().await;
    }
    if let Some(cause) = status().failure {
        assert!(cause.contains("bytes are needed for a new segment before others go, and 0 are free"), "{cause}");
        assert_eq!(disk.count(Operation::Write), writes, "nothing is written in vain");
    }
    disk.limit_bytes(None);
    while partition(&broker, "t").size_bytes >= 300 << 10 {
        // The one that has failed is not tried again at once.
        broker.clock.pass(HOUR_MS);
        tokio::task::yield_now().await;
    }
    assert_eq!(rows(&broker, "t").await.last().map(|(offset, _, _)| *offset), Some(299));
}

#[tokio::test]
async fn a_topic_is_deleted_and_a_broker_stops_only_when_no_segment_is_being_exchanged() {
    for deletes in [true, false] {
        let (_, _, gated) = Broker::gated().await;
        let broker = Broker::with(gated.disk(), |config| config.retention_check_interval = Duration::from_millis(1)).await;
        broker.engine.create_topic(small_segments("t", compacted(Cleanup::Compact))).await.expect("it can be made");
        gated.removals.shut();
        fill(&broker, "t", 0..30).await;
        gated.removals.arrived(1).await;
        // What was exchanged can be read, old or new.
        let found = rows(&broker, "t").await;
        assert_eq!(found.last().map(|(offset, _, _)| *offset), Some(299));
        let engine = Arc::clone(&broker.engine);
        let ending =
            tokio::spawn(
                async move { if deletes { engine.delete_topic("t").await.expect("it is deleted") } else { engine.shutdown().await } },
            );
        // Enough for it to come as far as it can.
        for _ in 0..1_000 {
            tokio::task::yield_now().await;
        }
        assert!(!ending.is_finished(), "segments are being exchanged in the folder");
        gated.removals.open();
        ending.await.expect("no panic");
        let folder = broker.dir.path().join("topics/t");
        assert_eq!(gated.disk().exists(&folder).expect("it can be asked"), !deletes);
        if !deletes {
            let broker = broker.restart().await;
            assert_eq!(rows(&broker, "t").await.last().map(|(offset, _, _)| *offset), Some(299));
        }
    }
}

#[tokio::test]
async fn a_topic_that_keeps_the_latest_of_each_key_is_never_told_to_drop_its_oldest() {
    let (broker, _) = Broker::simulated().await;
    let wanted = |cleanup, on_full| CreateTopic { config: TopicConfig { on_full, ..compacted(cleanup) }, ..create("t", 1, "sync") };
    let refused = |error: EngineError| {
        let wire = error.to_wire();
        assert_eq!((wire.code, wire.retryable), (ErrorCode::InvalidConfig, false));
        assert!(wire.message.starts_with("`cleanup` is `compact` and `on_full` is `drop-oldest`"), "{}", wire.message);
        assert!(wire.hint.is_some_and(|hint| hint.contains("`--on-full reject`") && hint.contains("`--cleanup compact,delete`")));
    };
    refused(broker.engine.create_topic(wanted(Cleanup::Compact, OnFull::DropOldest)).await.expect_err("it can't keep both"));
    broker.engine.create_topic(wanted(Cleanup::Compact, OnFull::Reject)).await.expect("it can be made");
    let to = |cleanup, on_full| AlterTopic { cleanup, on_full, ..change("t") };
    refused(broker.engine.alter_topic(to(None, Some(OnFull::DropOldest))).await.expect_err("nor so"));
    assert_eq!(broker.engine.topic("t").expect("it is there").config.on_full, OnFull::Reject);
    for both in [to(Some(Cleanup::CompactDelete), Some(OnFull::DropOldest)), to(Some(Cleanup::Delete), None)] {
        broker.engine.alter_topic(both).await.expect("its oldest records may go");
    }
    refused(broker.engine.alter_topic(to(Some(Cleanup::Compact), None)).await.expect_err("from the other side"));
    broker.engine.alter_topic(to(Some(Cleanup::Compact), Some(OnFull::Reject))).await.expect("both at once");
}

#[tokio::test]
async fn a_limit_that_would_never_apply_is_refused() {
    let (broker, _) = Broker::simulated().await;
    let refused = |error: EngineError, setting: &str| {
        let wire = error.to_wire();
        assert_eq!((wire.code, wire.retryable), (ErrorCode::InvalidConfig, false));
        assert!(wire.message.starts_with(&format!("`cleanup` is `compact` and `{setting}` is set")), "{}", wire.message);
        assert!(wire.hint.is_some_and(|hint| hint.contains("`--cleanup compact,delete`") && hint.contains("`--retention unlimited ")));
    };
    let (hour_ms, size) = (u64::from(HOUR_MS), 1 << 20);
    let limits =
        [(Some(hour_ms), None, "retention_ms"), (None, Some(size), "retention_bytes"), (Some(hour_ms), Some(size), "retention_ms")];
    for (retention_ms, retention_bytes, setting) in limits {
        let wanted = |cleanup| TopicConfig { retention_ms, retention_bytes, ..compacted(cleanup) };
        let create = |name: &str, config| CreateTopic { config, ..create(name, 1, "sync") };
        refused(broker.engine.create_topic(create("t", wanted(Cleanup::Compact))).await.expect_err("it would never apply"), setting);
        broker.engine.create_topic(create("t", compacted(Cleanup::Compact))).await.expect("without, it can be made");
        let limited =
            AlterTopic { retention_ms: retention_ms.map(Limit::Of), retention_bytes: retention_bytes.map(Limit::Of), ..change("t") };
        refused(broker.engine.alter_topic(limited.clone()).await.expect_err("nor so"), setting);
        assert_eq!(broker.engine.topic("t").expect("it is there").config, compacted(Cleanup::Compact));
        let both = AlterTopic { cleanup: Some(Cleanup::CompactDelete), ..limited };
        broker.engine.alter_topic(both).await.expect("as the hint says");
        let alone = AlterTopic { cleanup: Some(Cleanup::Compact), ..change("t") };
        refused(broker.engine.alter_topic(alone.clone()).await.expect_err("from the other side"), setting);
        let unlimited = AlterTopic { retention_ms: Some(Limit::Unlimited), retention_bytes: Some(Limit::Unlimited), ..alone };
        broker.engine.alter_topic(unlimited).await.expect("as the hint says");
        broker.engine.delete_topic("t").await.expect("it is deleted");
        broker.engine.create_topic(create("t", wanted(Cleanup::CompactDelete))).await.expect("it applies");
        broker.engine.delete_topic("t").await.expect("it is deleted");
    }
}

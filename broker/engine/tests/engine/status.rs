//! What a partition says of itself when something is wrong with it, and that it stops saying so.

use crate::{
    broker::{Broker, RESERVE_BYTES, keyed_batch},
    quotas::{QUOTA, change, fill, info, limited, value},
    retention::{HOUR_MS, large, small_segments},
};
use millpond_engine::EngineConfig;
use millpond_log::sim::{Fault, Operation, SimDisk};
use millpond_protocol::{
    compression::Codec,
    message::{
        AlterTopic, Cleanup, CompactionStatus, DeleteRecords, KnownDamage, Limit, NodeSpace, OnFull, OpenConsume, PartitionInfo, Position,
        Refused, Refusing, TopicConfig,
    },
};
use std::{fs, sync::Arc, time::Duration};

fn partition(broker: &Broker, topic: &str) -> PartitionInfo {
    info(broker, topic).partitions.remove(0)
}

fn refusing(broker: &Broker, topic: &str) -> Refusing {
    partition(broker, topic).refusing.expect("it refuses batches")
}

#[tokio::test]
async fn a_topic_at_its_quota_says_so_until_there_is_room() {
    let (broker, _) = Broker::simulated().await;
    broker.engine.create_topic(limited("t", 1, Some(QUOTA), OnFull::Reject)).await.expect("it can be made");
    assert_eq!(partition(&broker, "t").refusing, None);
    let (error, _) = fill(&broker, "t").await;
    broker.clock.pass(65_000);
    let said = refusing(&broker, "t");
    let used = info(&broker, "t").used_bytes;
    assert_eq!((said.bound.as_str(), said.seconds_ago), ("topic", Some(65)));
    assert_eq!(said.reason, format!("of the topic's quota of 512 KiB, {} B are free", QUOTA - used));
    assert_eq!(Some(said.hint), error.hint(), "as the producer got it");
    assert_eq!(info(&broker, "t").refused, Refused { topic: 1, node: 0, disk: 0 });
    // There is room, and no producer has tried yet.
    let request = DeleteRecords { topic: "t".to_owned(), partition: 0, before: Position::End };
    broker.engine.delete_records(&request).await.expect("it can be emptied");
    assert_eq!(partition(&broker, "t").refusing, None);
    fill(&broker, "t").await;
    refusing(&broker, "t");
    let more = AlterTopic { quota_bytes: Some(Limit::Of(2 * QUOTA)), ..change("t") };
    let altered = broker.engine.alter_topic(more).await.expect("it can be raised");
    assert_eq!((&altered.partitions[0].refusing, altered.refused.topic, altered.node), (&None, 2, None));
    broker.produce("t", 0, &[&value(1)]).await.expect("there is more room");
    let less = AlterTopic { quota_bytes: Some(Limit::Of(QUOTA)), ..change("t") };
    let altered = broker.engine.alter_topic(less).await.expect("it may be less than what is there");
    assert_eq!(altered.partitions[0].refusing, None, "nothing was refused since the last batch that was taken");
}

#[tokio::test]
async fn the_quota_of_the_broker_is_shown_with_what_is_used_of_it() {
    let broker = Broker::with(Arc::new(SimDisk::new()), |config: &mut EngineConfig| config.quota_bytes = Some(QUOTA)).await;
    for name in ["t", "u"] {
        broker.engine.create_topic(limited(name, 2, None, OnFull::Reject)).await.expect("it can be made");
    }
    let (_, taken) = fill(&broker, "t").await;
    broker.produce("u", 1, &[&value(0)]).await.expect_err("nor has it room there");
    let (t, u) = (info(&broker, "t"), info(&broker, "u"));
    assert!(
        taken > 0
            && refusing(&broker, "t").reason.starts_with("of the broker's quota of 512 KiB, ")
            && refusing(&broker, "t").bound == "node"
    );
    assert_eq!((&u.partitions[0].refusing, u.partitions[1].refusing.is_some()), (&None, true), "one of them was asked");
    assert_eq!((t.refused, u.refused), (Refused { node: 1, ..Refused::default() }, Refused { node: 1, ..Refused::default() }));
    let node = NodeSpace { used_bytes: t.used_bytes, quota_bytes: Some(QUOTA), reserve_bytes: RESERVE_BYTES, reserve_held: true };
    assert_eq!((t.node, broker.engine.usage().space), (Some(node), node));
    let listed = broker.engine.topics().remove(0);
    let brief = Refusing { reason: String::new(), hint: String::new(), ..refusing(&broker, "t") };
    assert_eq!((listed.node, &listed.partitions[0].refusing), (None, &Some(brief)), "a list is short");
}

#[tokio::test]
async fn a_disk_that_has_room_again_is_not_said_to_be_full_although_nobody_has_tried() {
    let sim = SimDisk::new();
    let broker = Broker::with(Arc::new(sim.clone()), |config| config.retention_check_interval = Duration::from_millis(1)).await;
    broker.engine.create_topic(limited("t", 1, None, OnFull::Reject)).await.expect("it can be made");
    sim.limit_bytes(Some(sim.used_bytes()));
    broker.produce("t", 0, &["x"]).await.expect_err("the disk is full");
    assert_eq!(refusing(&broker, "t").bound, "disk");
    sim.limit_bytes(Some(sim.used_bytes() + (2 << 20)));
    while partition(&broker, "t").refusing.is_some() {
        tokio::task::yield_now().await;
    }
    broker.produce("t", 0, &["x"]).await.expect("there is room");
}

#[tokio::test]
async fn a_full_disk_and_a_reserve_that_is_gone_are_said_by_every_partition() {
    let sim = SimDisk::new();
    let broker = Broker::with(Arc::new(sim.clone()), |config| config.retention_check_interval = Duration::from_millis(1)).await;
    for name in ["t", "u"] {
        broker.engine.create_topic(limited(name, 1, None, OnFull::Reject)).await.expect("it can be made");
        broker.produce(name, 0, &[&value(0)]).await.expect("there is room");
    }
    sim.limit_bytes(Some(sim.used_bytes()));
    broker.produce("t", 0, &["x"]).await.expect_err("the disk is full");
    let said = refusing(&broker, "t");
    assert!(said.bound == "disk" && said.reason.starts_with("the disk is full, and ") && said.reason.contains(".log"), "{said:?}");
    assert_eq!((partition(&broker, "u").refusing, info(&broker, "t").refused.disk), (None, 1), "nobody has asked it");
    // The catalogue takes the reserve.
    let request = AlterTopic { retention_ms: Some(Limit::Of(86_400_000)), ..change("t") };
    broker.engine.alter_topic(request).await.expect("the catalogue can be written");
    let said = refusing(&broker, "u");
    assert_eq!((said.bound.as_str(), said.seconds_ago), ("disk", None));
    assert!(said.reason.contains(&format!("the reserve of {RESERVE_BYTES} B")) && said.hint.contains("`storage.reserve`"), "{said:?}");
    assert!(!broker.engine.usage().space.reserve_held);
    sim.limit_bytes(None);
    for name in ["t", "u"] {
        while broker.produce(name, 0, &["again"]).await.is_err() {}
        assert_eq!(partition(&broker, name).refusing, None);
    }
    assert!(info(&broker, "t").refused.disk >= 1 && broker.engine.usage().space.reserve_held);
}

#[tokio::test]
async fn a_partition_that_has_stopped_is_readable_and_one_that_could_not_be_opened_is_not() {
    let (broker, sim) = Broker::simulated().await;
    broker.topic("t", 1, "sync").await;
    broker.produce("t", 0, &["before"]).await.expect("it is stored");
    assert_eq!((partition(&broker, "t").failure, partition(&broker, "t").failure_hint), (None, None));
    sim.fail(Operation::Sync, 1, Fault::Device);
    broker.produce("t", 0, &["during"]).await.expect_err("the disk failed");
    let said = partition(&broker, "t");
    assert!(said.failure.is_some() && !said.unreadable);
    assert!(said.failure_hint.is_some_and(|hint| hint.starts_with("records are still served; check the disk")));

    let broker = Broker::real().await;
    broker.topic("t", 2, "sync").await;
    broker.produce("t", 0, &["a"]).await.expect("it is stored");
    broker.engine.shutdown().await;
    let folder = broker.dir.path().join("topics/t/0");
    let segment = folder.join("00000000000000000000.log");
    fs::remove_file(&segment).expect("it is there");
    fs::create_dir(&segment).expect("its place is free");
    let broker = broker.restart().await;
    let said = partition(&broker, "t");
    assert!(said.unreadable && said.refusing.is_none());
    assert!(said.failure.as_ref().is_some_and(|failure| failure.contains("00000000000000000000.log")), "{said:?}");
    let hint = said.failure_hint.expect("a hint");
    assert!(
        hint.starts_with("nothing there is changed") && hint.contains(&format!("`millpond log verify {}`", folder.display())),
        "{hint}"
    );
    let well = &info(&broker, "t").partitions[1];
    assert!(!well.unreadable && well.failure.is_none());
}

#[tokio::test]
async fn damage_is_known_once_somebody_has_met_it() {
    let (broker, sim) = Broker::simulated().await;
    broker.engine.create_topic(small_segments("t", TopicConfig::default())).await.expect("it can be made");
    for _ in 0..4 {
        broker.produce("t", 0, &[&large()]).await.expect("it is stored");
    }
    // One segment each. After a clean stop none of them is read.
    broker.engine.shutdown().await;
    for first in [1, 2] {
        sim.damage(&broker.dir.path().join(format!("topics/t/0/{first:020}.log")), |bytes| bytes[1_000] ^= 1);
    }
    let broker = broker.restart().await;
    assert_eq!(partition(&broker, "t").damage, None);
    for (offset, ranges, first_offset) in [(2, 1, 2), (1, 2, 1)] {
        let open = OpenConsume { topic: "t".to_owned(), partition: 0, from: Position::Offset(offset), view: None };
        let (mut stream, _) = broker.engine.open_consume(&open).await.expect("it opens");
        stream.next(1 << 20).await.expect_err("it is damaged");
        assert_eq!(partition(&broker, "t").damage, Some(KnownDamage { ranges, first_offset }));
    }
    let request = DeleteRecords { topic: "t".to_owned(), partition: 0, before: Position::Offset(3) };
    broker.engine.delete_records(&request).await.expect("it goes as any other");
    assert_eq!(partition(&broker, "t").damage, None);
    broker.produce("t", 0, &["a"]).await.expect("it goes on");
}

#[tokio::test]
async fn who_meets_damage_is_told_the_first_offset_behind_it_that_can_be_read() {
    let (broker, sim) = Broker::simulated().await;
    broker.engine.create_topic(small_segments("t", TopicConfig::default())).await.expect("it can be made");
    // Three to a segment.
    let value = "x".repeat(20_000);
    for _ in 0..12 {
        broker.produce("t", 0, &[&value]).await.expect("it is stored");
    }
    broker.engine.shutdown().await;
    // One in the middle, two that are neighbours over the end of their segment, a whole segment but for its last, and the last of all.
    let rotten = [1, 5, 6, 7, 11];
    for offset in rotten {
        let (segment, number) = (offset / 3 * 3, offset % 3);
        let path = broker.dir.path().join(format!("topics/t/0/{segment:020}.log"));
        sim.damage(&path, |bytes| {
            let batch_bytes = bytes.len() / 3;
            bytes[number * batch_bytes + 1_000] ^= 1;
        });
    }
    let broker = broker.restart().await;
    let read = async |offset: i64| {
        let open = OpenConsume { topic: "t".to_owned(), partition: 0, from: Position::Offset(offset), view: None };
        let (mut stream, _) = broker.engine.open_consume(&open).await.expect("it opens");
        stream.next(1).await.map(drop)
    };
    for (offset, behind) in [(1, 2), (5, 8), (6, 8), (7, 8), (11, 12)] {
        let error = read(offset).await.expect_err("it is damaged");
        assert_eq!(error.to_wire().next_offset, Some(behind), "{error}");
        let hint = error.hint().expect("there is always one");
        assert!(hint.contains(&format!("`millpond consume t --partition 0 --from offset:{behind}`")), "{hint}");
    }
    // Damage that is younger than the look at its segment, in a batch that nobody has read yet.
    sim.damage(&broker.dir.path().join(format!("topics/t/0/{:020}.log", 0)), |bytes| bytes[1_000] ^= 1);
    assert_eq!(read(0).await.expect_err("it is damaged").to_wire().next_offset, Some(2), "behind both");
    for offset in [2, 3, 4, 8, 9, 10] {
        read(offset).await.unwrap_or_else(|error| panic!("offset {offset}: {error}"));
    }
}

#[tokio::test]
async fn compaction_says_what_it_has_done_and_why_it_does_not_go_on() {
    let sim = SimDisk::new();
    let broker = Broker::with(Arc::new(sim.clone()), |config| config.retention_check_interval = Duration::from_millis(1)).await;
    broker.engine.create_topic(small_segments("t", TopicConfig::default())).await.expect("it can be made");
    send_large(&broker, "t", 20).await;
    assert_eq!(partition(&broker, "t").compaction, None, "it is not compacted");
    let before = partition(&broker, "t").size_bytes;
    // No room for anything more.
    sim.limit_bytes(Some(1));
    let request = AlterTopic { cleanup: Some(Cleanup::Compact), ..change("t") };
    // The catalogue has the reserve.
    while broker.engine.alter_topic(request.clone()).await.is_err() {
        sim.limit_bytes(Some(sim.used_bytes() + RESERVE_BYTES));
    }
    sim.limit_bytes(Some(1));
    let status = loop {
        let status = partition(&broker, "t").compaction.expect("it is compacted now");
        if status.failures > 0 {
            break status;
        }
        tokio::task::yield_now().await;
    };
    assert!(status.failure.is_some_and(|cause| cause.contains("no room")), "what the disk said");
    assert_eq!((status.passes, status.seconds_since_pass, status.retry_seconds), (0, None, Some(600)));
    assert!(status.dirty_bytes > before / 2 && status.compacted_to == 0);
    assert_eq!(broker.engine.topics()[0].partitions[0].compaction, None);
    let counted = broker.engine.topics_with_counts().remove(0).partitions.remove(0).compaction.expect("it is counted");
    assert_eq!((counted.failures, counted.failure), (1, None));
    sim.limit_bytes(None);
    let status = loop {
        broker.clock.pass(HOUR_MS);
        let status = partition(&broker, "t").compaction.expect("it is compacted");
        if status.passes > 0 && status.dirty_bytes == 0 {
            break status;
        }
        tokio::task::yield_now().await;
    };
    let left = partition(&broker, "t").size_bytes;
    assert_eq!((&status.failure, status.retry_seconds, status.compacted_to), (&None, None, 19));
    assert_eq!(status.bytes_removed, before - left);
    assert!(status.bytes_read > before && status.bytes_written > 0 && status.bytes_written < before, "{status:?}");
    assert!(status.seconds_since_pass.is_some_and(|seconds| seconds % 3_600 == 0));
}

#[tokio::test]
async fn what_is_not_compacted_is_said_before_anybody_has_looked_for_it() {
    let seldom = Duration::from_hours(1);
    let mut broker = Broker::with(Arc::new(SimDisk::new()), |config| config.retention_check_interval = seldom).await;
    let status = |broker: &Broker, topic: &str| partition(broker, topic).compaction.expect("it is compacted");
    let not_compacted = |dirty_bytes| CompactionStatus { dirty_bytes, ..CompactionStatus::default() };
    for (name, cleanup) in [("t", Cleanup::Compact), ("u", Cleanup::Delete)] {
        let config = TopicConfig { cleanup, ..TopicConfig::default() };
        broker.engine.create_topic(small_segments(name, config)).await.expect("it can be made");
        send_large(&broker, name, 10).await;
    }
    // Each batch has a segment to itself, and the last one is not closed.
    let nine = partition(&broker, "t").size_bytes / 10 * 9;
    assert_eq!(status(&broker, "t"), not_compacted(nine));
    let request = AlterTopic { cleanup: Some(Cleanup::Compact), ..change("u") };
    let altered = broker.engine.alter_topic(request).await.expect("it can be changed").partitions.remove(0);
    assert_eq!(altered.compaction, Some(not_compacted(nine)));
    broker = broker.restart().await;
    assert_eq!((status(&broker, "t"), status(&broker, "u")), (not_compacted(nine), not_compacted(nine)));

    broker.config.retention_check_interval = Duration::from_millis(1);
    broker = broker.restart().await;
    while status(&broker, "t").passes == 0 || status(&broker, "t").dirty_bytes > 0 {
        tokio::task::yield_now().await;
    }
    broker.config.retention_check_interval = seldom;
    broker = broker.restart().await;
    let compacted = CompactionStatus { compacted_to: 9, ..CompactionStatus::default() };
    assert_eq!(status(&broker, "t"), compacted);
    send_large(&broker, "t", 2).await;
    assert_eq!(status(&broker, "t"), CompactionStatus { dirty_bytes: nine / 9 * 2, ..compacted });
}

/// So many large batches with the same key.
async fn send_large(broker: &Broker, topic: &str, batches: usize) {
    let mut producer = broker.producer(topic, Some(0));
    for _ in 0..batches {
        let batch = keyed_batch(&[(Some("k"), &large())], Codec::None);
        broker.submit(&mut producer, batch).await.await.expect("it is stored");
    }
}

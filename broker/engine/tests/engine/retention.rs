//! Changing topics while they are used, and deleting their oldest records.

use crate::broker::{Broker, batch, create};
use futures_util::FutureExt;
use millpond_engine::{Answer, EngineError};
use millpond_log::sim::{Operation, SimDisk};
use millpond_protocol::{
    error::ErrorCode,
    message::{AlterTopic, CreateTopic, DeleteRecords, Durability, Limit, OpenConsume, PartitionInfo, Position, TopicConfig},
};
use std::{sync::Arc, time::Duration};

pub(crate) const HOUR_MS: u32 = 3_600_000;

/// Two of them fill a segment.
pub(crate) fn large() -> String {
    "x".repeat(40 << 10)
}

/// A topic whose segments hold one large batch each.
pub(crate) fn small_segments(name: &str, mut config: TopicConfig) -> CreateTopic {
    config.segment_bytes = 64 << 10;
    CreateTopic { name: name.to_owned(), partitions: 1, config }
}

pub(crate) fn change(name: &str) -> AlterTopic {
    AlterTopic { name: name.to_owned(), ..AlterTopic::default() }
}

pub(crate) fn partition(broker: &Broker, topic: &str) -> PartitionInfo {
    broker.engine.topic(topic).expect("it is there").partitions[0].clone()
}

async fn delete_before(broker: &Broker, topic: &str, before: Position) -> Result<i64, EngineError> {
    let request = DeleteRecords { topic: topic.to_owned(), partition: 0, before };
    broker.engine.delete_records(&request).await.map(|deleted| deleted.log_start)
}

/// A broker that looks at its partitions all the time.
pub(crate) async fn watchful() -> Broker {
    Broker::with(Arc::new(SimDisk::new()), |config| config.retention_check_interval = Duration::from_millis(1)).await
}

/// Waits until the log begins there, or later.
async fn log_start(broker: &Broker, topic: &str, start: i64) {
    let open = OpenConsume { topic: topic.to_owned(), partition: 0, from: Position::End, view: None };
    let (mut stream, opened) = broker.engine.open_consume(&open).await.expect("it opens");
    let mut seen = opened.log_start;
    while seen < start {
        seen = stream.next(1 << 20).await.expect("it reads").0.log_start;
    }
}

/// Waits until every topic was looked at, from the first to the last.
pub(crate) async fn a_whole_check(broker: &Broker) {
    // The check that is under way may be past the others already.
    for _ in 0..2 {
        let first = partition(broker, "zz-last").log_end;
        for _ in 0..4 {
            broker.produce("zz-last", 0, &[&large()]).await.expect("it is stored");
        }
        log_start(broker, "zz-last", first + 2).await;
    }
}

#[tokio::test]
async fn a_change_is_in_force_at_once_and_after_a_restart_and_names_what_it_leaves_alone() {
    let (broker, _) = Broker::simulated().await;
    let made = broker.topic("t", 2, "sync").await;
    let request =
        AlterTopic { durability: Some(Durability::Os), max_batch_bytes: Some(2048), retention_ms: Some(Limit::Of(7_000)), ..change("t") };
    let altered = broker.engine.alter_topic(request).await.expect("it can be changed");
    let expected = TopicConfig { durability: Durability::Os, max_batch_bytes: 2048, retention_ms: Some(7_000), ..made.config };
    assert_eq!((&altered.config, altered.epoch), (&expected, made.epoch + 1), "clients see that it has changed");
    assert_eq!(broker.produce("t", 1, &["a"]).await.expect("it is stored").durability, Durability::Os);
    let refused = broker.produce("t", 1, &[&"x".repeat(4000)]).await.expect_err("it is too large now");
    assert!(refused.hint().is_some_and(|hint| hint.contains("`millpond topic alter t --max-batch-bytes")), "{refused:?}");

    let same = broker.engine.alter_topic(AlterTopic { max_batch_bytes: Some(2048), ..change("t") }).await.expect("it is so already");
    assert_eq!(same.epoch, altered.epoch);
    let broker = broker.restart().await;
    assert_eq!(broker.engine.topic("t").expect("it is there").config, expected);
    assert_eq!(broker.produce("t", 1, &["b"]).await.expect("it is stored").durability, Durability::Os);
    let lifted = broker.engine.alter_topic(AlterTopic { retention_ms: Some(Limit::Unlimited), ..change("t") }).await;
    assert_eq!(lifted.expect("it can be changed").config, TopicConfig { retention_ms: None, ..expected });
}

#[tokio::test]
async fn a_change_to_what_can_not_be_changes_nothing() {
    let (broker, _) = Broker::simulated().await;
    let made = broker.topic("t", 1, "sync").await;
    let wrong = [
        AlterTopic { max_batch_bytes: Some(1), ..change("t") },
        AlterTopic { max_batch_bytes: Some(u32::MAX), durability: Some(Durability::Os), ..change("t") },
        AlterTopic { retention_ms: Some(Limit::Of(999)), ..change("t") },
        AlterTopic { retention_ms: Some(Limit::Of(u64::MAX)), ..change("t") },
        AlterTopic { retention_bytes: Some(Limit::Of(0)), ..change("t") },
    ];
    for request in wrong {
        let error = broker.engine.alter_topic(request.clone()).await.expect_err("it can't be");
        assert_eq!(error.code(), ErrorCode::InvalidConfig, "{request:?}");
        assert_eq!(broker.engine.topic("t").expect("it is there").config, made.config);
    }
    let config = TopicConfig { retention_bytes: Some(1), ..TopicConfig::default() };
    let error = broker.engine.create_topic(CreateTopic { config, ..create("u", 1, "sync") }).await.expect_err("nor made so");
    assert_eq!(error.code(), ErrorCode::InvalidConfig);
    let error = broker.engine.alter_topic(change("tt")).await.expect_err("there is none");
    assert_eq!(error.to_wire().hint.as_deref(), Some("did you mean `t`?"));
}

#[tokio::test]
async fn what_waits_for_a_flush_is_answered_by_it_when_the_durability_has_changed() {
    let (broker, _, disk) = Broker::gated().await;
    broker.topic("t", 1, "sync").await;
    disk.syncs.shut();
    let mut producer = broker.producer("t", Some(0));
    let mut first = broker.submit(&mut producer, batch(&["first"])).await;
    disk.syncs.arrived(1).await;
    let mut second = broker.submit(&mut producer, batch(&["second"])).await;
    // Appended behind the flush that runs. A third batch under the new durability follows it.
    while partition(&broker, "t").log_end < 2 {
        tokio::task::yield_now().await;
    }
    disk.syncs.open();
    let altered = broker.engine.alter_topic(AlterTopic { durability: Some(Durability::Os), ..change("t") }).await;
    altered.expect("it can be changed");
    for answer in [&mut first, &mut second] {
        let Answer::Ack(ack) = answer.await.expect("it is stored") else { panic!("an ack was expected") };
        assert_eq!(ack.durability, Durability::Sync, "what it was promised");
    }
    disk.syncs.shut();
    let third = broker.produce("t", 0, &["third"]).await.expect("no flush is waited for");
    assert_eq!(third.durability, Durability::Os);
    assert_eq!(broker.values("t", 0).await, ["first", "second", "third"]);
    disk.syncs.open();
}

#[tokio::test]
async fn a_change_to_sync_flushes_what_was_appended_before_and_waits_from_then_on() {
    for before in ["os", "interval:3600s"] {
        let (broker, sim, disk) = Broker::gated().await;
        broker.topic("t", 1, before).await;
        broker.produce("t", 0, &["a"]).await.expect("it is stored");
        let syncs = sim.count(Operation::Sync);
        broker.engine.alter_topic(AlterTopic { durability: Some(Durability::Sync), ..change("t") }).await.expect("it can be changed");
        // One for the catalogue, and one for the log.
        while sim.count(Operation::Sync) < syncs + 2 {
            tokio::task::yield_now().await;
        }
        disk.syncs.shut();
        let mut producer = broker.producer("t", Some(0));
        let mut answer = broker.submit(&mut producer, batch(&["b"])).await;
        disk.syncs.arrived(1).await;
        assert!((&mut answer).now_or_never().is_none(), "it waits for the flush");
        assert_eq!(partition(&broker, "t").high_watermark, 1, "what was seen is seen, what is new is not");
        disk.syncs.open();
        answer.await.expect("it is stored");
    }
}

#[tokio::test]
async fn a_shorter_interval_does_not_wait_for_the_longer_one() {
    let (broker, sim) = Broker::simulated().await;
    broker.topic("t", 1, "interval:3600s").await;
    broker.produce("t", 0, &["a"]).await.expect("it is stored");
    let durability = Some(Durability::Interval(Duration::from_millis(1)));
    broker.engine.alter_topic(AlterTopic { durability, ..change("t") }).await.expect("it can be changed");
    for _ in 0..3 {
        let syncs = sim.count(Operation::Sync);
        broker.produce("t", 0, &["b"]).await.expect("it is stored");
        while sim.count(Operation::Sync) == syncs {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn deleted_records_are_gone_for_good_and_their_offsets_are_out_of_range() {
    let (broker, _) = Broker::simulated().await;
    broker.engine.create_topic(small_segments("t", TopicConfig::default())).await.expect("it can be made");
    for _ in 0..5 {
        broker.produce("t", 0, &[&large()]).await.expect("it is stored");
    }
    let size_bytes = partition(&broker, "t").size_bytes;
    assert_eq!(delete_before(&broker, "t", Position::Offset(3)).await.expect("deletes"), 3);
    assert!(partition(&broker, "t").size_bytes < size_bytes / 2);
    assert_eq!(delete_before(&broker, "t", Position::Offset(1)).await.expect("there is nothing to do"), 3);
    for (before, code) in [(6, ErrorCode::OffsetOutOfRange), (-1, ErrorCode::OffsetOutOfRange)] {
        let error = delete_before(&broker, "t", Position::Offset(before)).await.expect_err("it is outside");
        assert_eq!(error.code(), code, "{before}");
        assert!(
            error.hint().is_some_and(|hint| hint.starts_with("give the first offset that is to stay, 5 at most, or `end`")),
            "{error:?}"
        );
    }
    let error = broker.offset_at("t", 0, Position::Offset(2)).await.expect_err("it is gone");
    assert_eq!(error.to_wire().range, Some((3, 5)));
    assert_eq!(broker.offset_at("t", 0, Position::Beginning).await.expect("it is there").offset, 3);
    let broker = broker.restart().await;
    assert_eq!(broker.read_all("t", 0).await.len(), 2);

    assert_eq!(delete_before(&broker, "t", Position::End).await.expect("deletes"), 5);
    assert_eq!(partition(&broker, "t").size_bytes, 0, "the last segment goes, too");
    let broker = broker.restart().await;
    assert_eq!(broker.produce("t", 0, &["next"]).await.expect("it is stored").base_offset, 5);
    assert_eq!(broker.read_all("t", 0).await, [(5, "next".to_owned())]);
    for (topic, partition) in [("none", 0), ("t", 1)] {
        let request = DeleteRecords { topic: topic.to_owned(), partition, before: Position::End };
        let hint = broker.engine.delete_records(&request).await.expect_err("there is none").hint().expect("there always is one");
        assert!(topic == "none" || hint == "name a partition from 0 to 0; records are deleted from one partition at a time", "{hint}");
    }
}

#[tokio::test]
async fn a_consumer_whose_place_is_deleted_is_told_the_range() {
    let (broker, _) = Broker::simulated().await;
    broker.engine.create_topic(small_segments("t", TopicConfig::default())).await.expect("it can be made");
    for _ in 0..5 {
        broker.produce("t", 0, &[&large()]).await.expect("it is stored");
    }
    let open = OpenConsume { topic: "t".to_owned(), partition: 0, from: Position::Beginning, view: None };
    let (mut stream, _) = broker.engine.open_consume(&open).await.expect("it opens");
    stream.next(1).await.expect("the first batch");
    delete_before(&broker, "t", Position::Offset(4)).await.expect("deletes");
    let error = stream.next(1).await.expect_err("the second is gone");
    assert_eq!(error.to_wire().range, Some((4, 5)));
}

#[tokio::test]
async fn nothing_that_is_not_acknowledged_is_deleted() {
    let (broker, _, disk) = Broker::gated().await;
    broker.topic("t", 1, "sync").await;
    broker.produce("t", 0, &["a"]).await.expect("it is stored");
    disk.syncs.shut();
    let mut producer = broker.producer("t", Some(0));
    let answer = broker.submit(&mut producer, batch(&["b"])).await;
    disk.syncs.arrived(1).await;
    let error = delete_before(&broker, "t", Position::Offset(2)).await.expect_err("it is not to be seen yet");
    assert_eq!(error.code(), ErrorCode::OffsetOutOfRange);
    disk.syncs.open();
    answer.await.expect("it is stored");
}

#[tokio::test]
async fn a_topic_is_deleted_only_when_nothing_is_at_work_in_its_folder() {
    let (broker, sim, disk) = Broker::gated().await;
    broker.engine.create_topic(small_segments("t", TopicConfig::default())).await.expect("it can be made");
    broker.topic("other", 1, "os").await;
    for _ in 0..3 {
        broker.produce("t", 0, &[&large()]).await.expect("it is stored");
    }
    disk.removals.shut();
    let engine = Arc::clone(&broker.engine);
    let request = DeleteRecords { topic: "t".to_owned(), partition: 0, before: Position::Offset(2) };
    let records = tokio::spawn(async move { engine.delete_records(&request).await });
    disk.removals.arrived(1).await;
    let engine = Arc::clone(&broker.engine);
    let topic = tokio::spawn(async move { engine.delete_topic("t").await });
    // Enough for the deletion to come as far as it can.
    for _ in 0..100 {
        broker.produce("other", 0, &["x"]).await.expect("it is stored");
    }
    assert!(!topic.is_finished(), "records are being deleted in the folder");
    disk.removals.open();
    assert_eq!(records.await.expect("no panic").expect("deletes").log_start, 2);
    topic.await.expect("no panic").expect("it is deleted");
    assert!(!millpond_log::Disk::exists(&sim, &broker.dir.path().join("topics/t")).expect("it can be asked"));
}

#[tokio::test]
async fn records_go_when_they_are_older_than_the_limit_and_the_active_segment_too() {
    let broker = watchful().await;
    let config = TopicConfig { retention_ms: Some(10 * u64::from(HOUR_MS)), ..TopicConfig::default() };
    broker.engine.create_topic(small_segments("t", config)).await.expect("it can be made");
    for _ in 0..3 {
        broker.produce("t", 0, &[&large()]).await.expect("it is stored");
    }
    while partition(&broker, "t").log_start < 3 {
        broker.clock.pass(HOUR_MS);
        tokio::task::yield_now().await;
    }
    log_start(&broker, "t", 3).await;
    assert_eq!(partition(&broker, "t").size_bytes, 0);
    assert_eq!(broker.produce("t", 0, &["next"]).await.expect("it is stored").base_offset, 3);
    assert_eq!(broker.values("t", 0).await, ["next"]);
}

#[tokio::test]
async fn young_records_stay_and_no_step_of_the_clock_deletes_any() {
    let broker = watchful().await;
    let config = TopicConfig { retention_ms: Some(10 * u64::from(HOUR_MS)), ..TopicConfig::default() };
    broker.engine.create_topic(small_segments("t", config)).await.expect("it can be made");
    let config = TopicConfig { retention_bytes: Some(64 << 10), ..TopicConfig::default() };
    broker.engine.create_topic(small_segments("zz-last", config)).await.expect("it can be made");
    for _ in 0..3 {
        broker.produce("t", 0, &[&large()]).await.expect("it is stored");
    }
    a_whole_check(&broker).await;
    let year_ms = 365 * 24 * i64::from(HOUR_MS);
    for step_ms in [year_ms, -2 * year_ms, 50 * year_ms, -60 * year_ms, 12 * year_ms] {
        broker.clock.advance(step_ms);
        broker.clock.pass(HOUR_MS);
        a_whole_check(&broker).await;
        assert_eq!(partition(&broker, "t").log_start, 0, "after a step of {step_ms} ms");
    }
    let broker = broker.restart().await;
    assert_eq!(broker.values("t", 0).await.len(), 3);
}

#[tokio::test]
async fn the_oldest_records_go_when_there_are_more_bytes_than_the_limit_and_a_change_of_it_counts() {
    let broker = watchful().await;
    let config = TopicConfig { retention_bytes: Some(1 << 20), ..TopicConfig::default() };
    broker.engine.create_topic(small_segments("t", config)).await.expect("it can be made");
    for _ in 0..60 {
        broker.produce("t", 0, &[&large()]).await.expect("it is stored");
    }
    log_start(&broker, "t", 30).await;
    let left = partition(&broker, "t");
    assert!((1 << 20..2 << 20).contains(&left.size_bytes), "{left:?}");
    let request = AlterTopic { retention_bytes: Some(Limit::Of(128 << 10)), ..change("t") };
    broker.engine.alter_topic(request).await.expect("it can be changed");
    log_start(&broker, "t", 55).await;
    let values = broker.values("t", 0).await.len();
    assert_eq!(i64::try_from(values).expect("few"), 60 - partition(&broker, "t").log_start);
}

#[tokio::test]
async fn a_shutdown_in_the_middle_of_checks_ends_them() {
    let mut broker = watchful().await;
    let config = TopicConfig { retention_bytes: Some(64 << 10), ..TopicConfig::default() };
    broker.engine.create_topic(small_segments("t", config)).await.expect("it can be made");
    for _ in 0..20 {
        broker.produce("t", 0, &[&large()]).await.expect("it is stored");
    }
    // The next look of the restarted broker comes in a minute.
    broker.config.retention_check_interval = Duration::from_mins(1);
    let broker = broker.restart().await;
    let start = partition(&broker, "t").log_start;
    let values = broker.values("t", 0).await;
    assert_eq!(i64::try_from(values.len()).expect("few"), 20 - start);
    broker.engine.shutdown().await;
    assert!(matches!(delete_before(&broker, "t", Position::End).await, Err(EngineError::ShuttingDown)));
}

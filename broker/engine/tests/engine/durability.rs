//! What an acknowledgement means, what a failing disk does to it, and what a shutdown does.

use crate::broker::{Broker, batch};
use futures_util::{FutureExt, future::join_all};
use millpond_engine::EngineError;
use millpond_log::{
    Disk,
    sim::{Fault, Operation},
};
use millpond_protocol::{
    error::ErrorCode,
    message::{AlterTopic, CreateTopic, Durability, OpenConsume, PartitionInfo, Position, TopicConfig},
};
use std::{sync::Arc, time::Duration};

fn partition(broker: &Broker, topic: &str) -> PartitionInfo {
    broker.engine.topic(topic).expect("it is there").partitions[0].clone()
}

/// Waits until the log reaches so far, durable or not.
async fn log_end(broker: &Broker, topic: &str, end: i64) {
    let open = OpenConsume { topic: topic.to_owned(), partition: 0, from: Position::End, view: None };
    let (mut stream, opened) = broker.engine.open_consume(&open).await.expect("it opens");
    let mut reached = opened.log_end;
    while reached < end {
        reached = stream.next(1 << 20).await.expect("it reads").0.log_end;
    }
}

#[tokio::test]
async fn a_hundred_batches_that_wait_share_a_flush() {
    let (broker, sim, disk) = Broker::gated().await;
    broker.topic("t", 1, "sync").await;
    let before = sim.count(Operation::Sync);
    disk.syncs.shut();
    let mut producer = broker.producer("t", Some(0));
    let first = broker.submit(&mut producer, batch(&["first"])).await;
    disk.syncs.arrived(1).await;
    let mut answers = vec![first];
    for _ in 1..100 {
        answers.push(broker.submit(&mut producer, batch(&["more"])).await);
    }
    log_end(&broker, "t", 100).await;
    assert!(answers.iter_mut().all(|answer| answer.now_or_never().is_none()), "nothing is answered before it is flushed");
    assert_eq!(partition(&broker, "t").high_watermark, 0, "nor seen");
    disk.syncs.open();
    for answer in answers {
        answer.await.expect("it is stored");
    }
    assert_eq!(partition(&broker, "t").high_watermark, 100);
    assert_eq!(sim.count(Operation::Sync) - before, 2, "one for the first batch, one for all the others");
}

#[tokio::test]
async fn os_and_interval_are_answered_before_the_flush_and_say_so() {
    let (broker, sim, disk) = Broker::gated().await;
    broker.topic("os", 1, "os").await;
    broker.topic("interval", 1, "interval:1ms").await;
    let before = sim.count(Operation::Sync);
    disk.syncs.shut();
    let ack = broker.produce("os", 0, &["a"]).await.expect("it is stored");
    assert_eq!(ack.durability, Durability::Os);
    assert_eq!(broker.values("os", 0).await, ["a"]);
    assert_eq!(sim.count(Operation::Sync), before, "nobody asked for a flush");

    let ack = broker.produce("interval", 0, &["a"]).await.expect("it is stored");
    assert_eq!(ack.durability, Durability::Interval(Duration::from_millis(1)));
    assert_eq!(broker.values("interval", 0).await, ["a"]);
    disk.syncs.arrived(1).await;
    // The next interval falls into the flush that runs, and is not lost.
    broker.produce("interval", 0, &["b"]).await.expect("it is stored");
    disk.syncs.open();
    broker.engine.shutdown().await;
    assert!(sim.count(Operation::Sync) > before + 1, "what is left is flushed at the end");
}

/// A topic that asks for no flushes, with small segments.
fn rolling(name: &str) -> CreateTopic {
    let config = TopicConfig { durability: Durability::Os, segment_bytes: 64 << 10, ..TopicConfig::default() };
    CreateTopic { name: name.to_owned(), partitions: 1, config }
}

#[tokio::test]
async fn with_os_a_closed_segment_is_flushed_and_the_active_one_is_not() {
    let (broker, sim) = Broker::simulated().await;
    broker.engine.create_topic(rolling("t")).await.expect("it can be made");
    let large = "x".repeat(40 << 10);
    let before = sim.count(Operation::Sync);
    broker.produce("t", 0, &[&large]).await.expect("it is stored");
    assert_eq!(sim.count(Operation::Sync), before, "nothing is closed");
    broker.produce("t", 0, &[&large]).await.expect("it is stored, in a segment of its own");
    // Waits for the flush.
    broker.engine.delete_topic("t").await.expect("it is there");
    let (first_segment, recovery_point, both_catalogues) = (3, 1, 2);
    assert_eq!(sim.count(Operation::Sync) - before, first_segment + recovery_point + both_catalogues);
}

#[tokio::test]
async fn with_os_no_append_waits_for_a_flush() {
    let (broker, sim, disk) = Broker::gated().await;
    broker.engine.create_topic(rolling("t")).await.expect("it can be made");
    let large = "x".repeat(40 << 10);
    disk.syncs.shut();
    let before = sim.count(Operation::Sync);
    for _ in 0..2 {
        broker.produce("t", 0, &[&large]).await.expect("it is stored");
    }
    disk.syncs.arrived(1).await;
    // While the first segment is on its way to the disk, which takes as long as it likes.
    for _ in 0..5 {
        broker.produce("t", 0, &[&large]).await.expect("it is stored");
    }
    assert_eq!(sim.count(Operation::Sync), before);
    disk.syncs.open();
    broker.engine.shutdown().await;
    assert_eq!(broker.restart().await.values("t", 0).await.len(), 7);
}

#[tokio::test]
async fn a_topic_is_gone_only_when_its_last_flush_is() {
    for durability in [Durability::Os, Durability::Interval(Duration::from_millis(1))] {
        let (broker, sim, disk) = Broker::gated().await;
        let config = TopicConfig { durability, ..rolling("t").config };
        broker.engine.create_topic(CreateTopic { config, ..rolling("t") }).await.expect("it can be made");
        broker.topic("other", 1, "os").await;
        disk.syncs.shut();
        for _ in 0..2 {
            broker.produce("t", 0, &["x".repeat(40 << 10).as_str()]).await.expect("it is stored");
        }
        disk.syncs.arrived(1).await;
        let deleted = tokio::spawn({
            let engine = Arc::clone(&broker.engine);
            async move { engine.delete_topic("t").await }
        });
        // Enough for the deletion to come as far as it can.
        for _ in 0..100 {
            broker.produce("other", 0, &["x"]).await.expect("it is stored");
        }
        assert!(!deleted.is_finished(), "{durability}: a flush is still at work in the folder");
        assert!(sim.exists(&broker.dir.path().join("topics/t/0")).expect("it can be asked"));
        disk.syncs.open();
        deleted.await.expect("no panic").expect("it is there");
        assert!(!sim.exists(&broker.dir.path().join("topics/t")).expect("it can be asked"));
    }
}

#[tokio::test]
async fn without_a_descriptor_for_the_next_segment_a_batch_is_refused_and_the_next_one_is_taken() {
    let (broker, sim) = Broker::simulated().await;
    broker.engine.create_topic(rolling("t")).await.expect("it can be made");
    let large = "x".repeat(40 << 10);
    broker.produce("t", 0, &[&large]).await.expect("it is stored");
    for _ in 0..3 {
        sim.fail(Operation::Create, 1, Fault::TooManyOpenFiles);
        let wire = broker.produce("t", 0, &[&large]).await.expect_err("no segment can be made").to_wire();
        assert_eq!((wire.code, wire.retryable), (ErrorCode::Overloaded, true), "{wire:?}");
        assert!(wire.message.contains("no file descriptor is left"), "{}", wire.message);
        assert!(wire.hint.is_some_and(|hint| hint.contains("LimitNOFILE=") && hint.contains("ulimit -n")));
        assert_eq!(partition(&broker, "t").failure, None, "nothing was lost");
    }
    let ack = broker.produce("t", 0, &[&large]).await.expect("there is a descriptor again");
    assert_eq!(ack.base_offset, 1);
    assert_eq!(broker.values("t", 0).await.len(), 2);
}

#[tokio::test]
async fn without_a_descriptor_for_a_flush_nothing_is_acknowledged_and_the_next_flush_makes_up_for_it() {
    let (broker, sim) = Broker::simulated().await;
    let config = TopicConfig { durability: Durability::Sync, ..rolling("t").config };
    broker.engine.create_topic(CreateTopic { config, ..rolling("t") }).await.expect("it can be made");
    let large = "x".repeat(40 << 10);
    broker.produce("t", 0, &[&large]).await.expect("it is stored");
    // The new segment's name is to be made durable.
    sim.fail(Operation::SyncDir, 1, Fault::TooManyOpenFiles);
    let wire = broker.produce("t", 0, &[&large]).await.expect_err("the folder can't be opened").to_wire();
    assert_eq!((wire.code, wire.retryable), (ErrorCode::Overloaded, true), "{wire:?}");
    let info = partition(&broker, "t");
    assert_eq!((info.high_watermark, info.log_end, info.failure), (1, 2, None), "it is not seen, and nothing has failed for good");
    let ack = broker.produce("t", 0, &["small"]).await.expect("there is a descriptor again");
    assert_eq!(ack.base_offset, 2);
    assert_eq!(partition(&broker, "t").high_watermark, 3);
    sim.crash(3);
    let broker = broker.restart().await;
    assert_eq!(broker.values("t", 0).await.len(), 3);
}

#[tokio::test]
async fn what_was_acknowledged_with_sync_survives_a_power_cut() {
    for seed in 0..20 {
        let (broker, sim) = Broker::simulated().await;
        broker.topic("t", 1, "sync").await;
        for number in 0..10 {
            broker.produce("t", 0, &[number.to_string().as_str()]).await.expect("it is stored");
        }
        sim.crash(seed);
        let broker = broker.restart().await;
        let expected: Vec<_> = (0..10).map(|number| (number, number.to_string())).collect();
        assert_eq!(broker.read_all("t", 0).await, expected, "seed {seed}");
    }
}

#[tokio::test]
async fn a_full_disk_refuses_what_does_not_fit_and_goes_on_when_there_is_room() {
    for durability in ["sync", "os"] {
        let (broker, sim) = Broker::simulated().await;
        broker.topic("t", 1, durability).await;
        broker.produce("t", 0, &["before"]).await.expect("it is stored");
        sim.limit_bytes(Some(0));
        let error = broker.produce("t", 0, &["during"]).await.expect_err("the disk is full");
        let wire = error.to_wire();
        assert_eq!((wire.code, wire.retryable), (ErrorCode::StorageFull, true), "{wire:?}");
        assert!(wire.hint.is_some_and(|hint| hint.contains("free some space")));
        assert_eq!(broker.values("t", 0).await, ["before"]);
        assert_eq!(partition(&broker, "t").failure, None, "a full disk is not a broken one");
        sim.limit_bytes(None);
        let ack = broker.produce("t", 0, &["after"]).await.expect("there is room again");
        assert_eq!(ack.base_offset, 1);
        assert_eq!(broker.values("t", 0).await, ["before", "after"]);
    }
}

#[tokio::test]
async fn after_a_failed_write_the_partition_stops_writing_and_serves_reads() {
    let (broker, sim) = Broker::simulated().await;
    broker.topic("t", 2, "os").await;
    broker.produce("t", 0, &["before"]).await.expect("it is stored");
    sim.fail(Operation::Write, 1, Fault::Device);
    let first = broker.produce("t", 0, &["during"]).await.expect_err("the device failed");
    assert_eq!(first.code(), ErrorCode::StorageFailed);
    assert!(!first.to_wire().retryable);
    let later = broker.produce("t", 0, &["after"]).await.expect_err("the partition has stopped");
    assert_eq!(later.code(), ErrorCode::StorageFailed);
    assert!(partition(&broker, "t").failure.is_some_and(|failure| failure.contains("write")));
    assert_eq!(broker.values("t", 0).await, ["before"]);
    broker.produce("t", 1, &["elsewhere"]).await.expect("other partitions go on");

    let broker = broker.restart().await;
    let ack = broker.produce("t", 0, &["again"]).await.expect("a restart begins anew");
    assert_eq!(ack.base_offset, 1);
    assert_eq!(broker.values("t", 0).await, ["before", "again"]);
}

#[tokio::test]
async fn after_a_failed_flush_nothing_that_it_covered_is_acknowledged_or_seen() {
    let (broker, sim, disk) = Broker::gated().await;
    broker.topic("t", 1, "sync").await;
    broker.produce("t", 0, &["before"]).await.expect("it is stored");
    disk.syncs.shut();
    let mut producer = broker.producer("t", Some(0));
    let covered = broker.submit(&mut producer, batch(&["covered"])).await;
    disk.syncs.arrived(1).await;
    let behind = broker.submit(&mut producer, batch(&["behind it"])).await;
    log_end(&broker, "t", 3).await;
    sim.fail(Operation::Sync, 1, Fault::Device);
    disk.syncs.open();
    for answer in [covered, behind] {
        let error = answer.await.expect_err("the flush failed").to_wire();
        assert_eq!((error.code, error.partly_stored), (ErrorCode::StorageFailed, true), "it is written, and may be there after a start");
        assert!(error.message.contains("nobody knows"), "{}", error.message);
    }
    assert_eq!(broker.values("t", 0).await, ["before"]);
    let info = partition(&broker, "t");
    assert_eq!((info.high_watermark, info.log_end), (1, 3));
    assert!(info.failure.is_some_and(|failure| failure.contains("flush")));
    let after = broker.produce("t", 0, &["after"]).await.expect_err("it has stopped").to_wire();
    assert_eq!((after.code, after.partly_stored), (ErrorCode::StorageFailed, false), "this one was not written");
    // A weaker promise for what comes shows nothing of what was promised before.
    for durability in ["os", "interval:10ms", "sync"] {
        let request = AlterTopic { name: "t".to_owned(), durability: Some(durability.parse().expect("one")), ..AlterTopic::default() };
        broker.engine.alter_topic(request).await.expect("it can be altered");
        assert_eq!((partition(&broker, "t").high_watermark, broker.values("t", 0).await), (1, vec!["before".to_owned()]), "{durability}");
    }
}

#[tokio::test]
async fn what_waits_for_its_flush_is_not_seen_before_whatever_is_promised_from_then_on() {
    let (broker, _, disk) = Broker::gated().await;
    broker.topic("t", 1, "sync").await;
    disk.syncs.shut();
    let mut producer = broker.producer("t", Some(0));
    let waiting = broker.submit(&mut producer, batch(&["waits"])).await;
    disk.syncs.arrived(1).await;
    let request = AlterTopic { name: "t".to_owned(), durability: Some("os".parse().expect("one")), ..AlterTopic::default() };
    broker.engine.alter_topic(request).await.expect("it can be altered");
    let behind = broker.submit(&mut producer, batch(&["behind it"])).await;
    behind.await.expect("it is with the system");
    assert_eq!(partition(&broker, "t").high_watermark, 0, "an offset is seen after those before it");
    disk.syncs.open();
    waiting.await.expect("it is durable");
    log_end(&broker, "t", 2).await;
    assert_eq!(broker.values("t", 0).await, ["waits", "behind it"]);
}

#[tokio::test]
async fn a_full_queue_makes_producers_wait_and_refuses_nothing() {
    let sim = millpond_log::sim::SimDisk::new();
    let disk = crate::gate::GatedDisk::new(Arc::new(sim));
    let broker = Broker::with(disk.disk(), |config| config.partition_queue_bytes_max = 4096).await;
    broker.topic("t", 1, "os").await;
    let large = "x".repeat(3000);
    disk.writes.shut();
    let mut producer = broker.producer("t", Some(0));
    let written = broker.submit(&mut producer, batch(&[&large])).await;
    disk.writes.arrived(1).await;
    let queued = broker.submit(&mut producer, batch(&[&large])).await;
    let mut third = Box::pin(broker.submit(&mut producer, batch(&[&large])));
    assert!((&mut third).now_or_never().is_none(), "the queue is full");
    disk.writes.open();
    let waited = third.await;
    for answer in join_all([written, queued, waited]).await {
        answer.expect("it is stored");
    }
}

#[tokio::test]
async fn a_shutdown_answers_what_is_in_flight_and_refuses_what_comes_later() {
    let (broker, _, disk) = Broker::gated().await;
    broker.topic("t", 1, "sync").await;
    disk.syncs.shut();
    let mut producer = broker.producer("t", Some(0));
    let mut answers = Vec::new();
    for number in 0..20 {
        answers.push(broker.submit(&mut producer, batch(&[number.to_string().as_str()])).await);
    }
    disk.syncs.arrived(1).await;
    let mut shutdown = Box::pin(broker.engine.shutdown());
    assert!((&mut shutdown).now_or_never().is_none(), "batches wait for their flush");
    let late = broker.submit(&mut producer, batch(&["late"])).await.await.expect_err("the broker stops");
    assert!(matches!(late, EngineError::ShuttingDown), "{late:?}");
    let open = OpenConsume { topic: "t".to_owned(), ..OpenConsume::default() };
    assert!(matches!(broker.engine.open_consume(&open).await.map(|_| ()), Err(EngineError::ShuttingDown)));
    disk.syncs.open();
    shutdown.await;
    for (answer, offset) in answers.into_iter().zip(0..) {
        let millpond_engine::Answer::Ack(ack) = answer.await.expect("it was in flight") else { panic!("an ack was expected") };
        assert_eq!(ack.base_offset, offset);
    }
    let broker = broker.restart().await;
    assert_eq!(broker.values("t", 0).await.len(), 20);
}

#[tokio::test]
async fn a_consumer_reads_to_the_end_while_the_broker_stops_and_then_is_told() {
    let (broker, _) = Broker::simulated().await;
    broker.topic("t", 1, "sync").await;
    broker.produce("t", 0, &["a"]).await.expect("it is stored");
    let open = OpenConsume { topic: "t".to_owned(), ..OpenConsume::default() };
    let (mut stream, _) = broker.engine.open_consume(&open).await.expect("it opens");
    broker.engine.shutdown().await;
    let (_, batches) = stream.next(1 << 20).await.expect("what is there can be read");
    assert_eq!(crate::broker::records(batches), [(0, "a".to_owned())]);
    assert!(matches!(stream.next(1 << 20).await, Err(EngineError::ShuttingDown)));
}

#[tokio::test]
async fn a_fault_in_the_broker_stops_one_partition_and_leaves_nobody_waiting() {
    for in_the_flush in [false, true] {
        let (broker, _, disk) = Broker::gated().await;
        broker.topic("t", 2, "sync").await;
        broker.produce("t", 0, &["before"]).await.expect("it is stored");
        if in_the_flush {
            disk.syncs.set_trap();
        } else {
            disk.writes.set_trap();
        }
        let code = broker.produce("t", 0, &["during"]).await.expect_err("a thread panicked").code();
        assert_eq!(code, if in_the_flush { ErrorCode::StorageFailed } else { ErrorCode::Internal });
        let error = broker.produce("t", 0, &["after"]).await.expect_err("it has stopped");
        assert!(matches!(error, EngineError::PartitionStopped { partition: 0, .. }), "{error:?}");
        assert!(partition(&broker, "t").failure.is_some_and(|failure| failure.contains("panicked")));
        assert_eq!(broker.values("t", 0).await, ["before"]);
        broker.produce("t", 1, &["elsewhere"]).await.expect("the others go on");
        let broker = broker.restart().await;
        broker.produce("t", 0, &["again"]).await.expect("a restart begins anew");
        assert_eq!(broker.values("t", 0).await.first().map(String::as_str), Some("before"));
    }
}

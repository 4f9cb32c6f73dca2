//! A disk without room: what goes on all the same, with the reserve, and what resumes by itself.

use crate::{
    broker::{Broker, RESERVE_BYTES, create},
    quotas::{QUOTA, change, info, limited, log_bytes, value},
};
use millpond_engine::{EngineError, Shortage, StorageBound};
use millpond_log::{
    Disk,
    sim::{Fault, Operation, SimDisk},
};
use millpond_protocol::{
    error::ErrorCode,
    message::{AlterTopic, DeleteRecords, Dropped, Limit, OnFull, OpenConsume, Position},
};
use std::{path::PathBuf, sync::Arc, time::Duration};

/// A broker that looks around all the time.
async fn watchful(sim: &SimDisk) -> Broker {
    Broker::with(Arc::new(sim.clone()), |config| config.retention_check_interval = Duration::from_millis(1)).await
}

fn reserve(broker: &Broker) -> PathBuf {
    broker.dir.path().join("reserve")
}

/// Not a byte is left.
fn fill_up(sim: &SimDisk) {
    sim.limit_bytes(Some(sim.used_bytes()));
}

/// Produces until it is taken; it is refused for want of room, and for nothing else.
async fn until_taken(broker: &Broker, topic: &str) {
    while let Err(error) = broker.produce(topic, 0, &["again"]).await {
        assert_eq!(error.code(), ErrorCode::StorageFull, "{error:?}");
    }
}

#[tokio::test]
async fn on_a_disk_that_is_full_to_the_last_byte_topics_can_be_deleted_and_writing_resumes() {
    let sim = SimDisk::new();
    let broker = watchful(&sim).await;
    assert_eq!(sim.bytes(&reserve(&broker)).expect("it is there").len() as u64, RESERVE_BYTES);
    for name in ["a", "b", "c"] {
        broker.engine.create_topic(limited(name, 1, None, OnFull::Reject)).await.expect("it can be made");
        for number in 0..4 {
            broker.produce(name, 0, &[&value(number)]).await.expect("there is room");
        }
    }
    fill_up(&sim);
    let error = broker.produce("a", 0, &["x"]).await.expect_err("the disk is full");
    let wire = error.to_wire();
    assert_eq!((wire.code, wire.retryable), (ErrorCode::StorageFull, true));
    assert!(wire.message.contains(": the disk is full, and 1"), "{}", wire.message);
    let EngineError::Full { shortage: Shortage { bound, reserve_bytes, .. }, .. } = error else { panic!("{error:?}") };
    assert_eq!((bound, reserve_bytes), (StorageBound::Disk, None));
    assert!(sim.exists(&reserve(&broker)).expect("it can be asked"), "no batch has it");
    // What the catalogue has grown by is not free any more, so the reserve can't be made again.
    let request = AlterTopic { retention_ms: Some(Limit::Of(86_400_000)), ..change("b") };
    broker.engine.alter_topic(request).await.expect("the catalogue can be written");
    let left = sim.bytes(&reserve(&broker)).expect("a part is left").len() as u64;
    assert!((RESERVE_BYTES / 2..RESERVE_BYTES).contains(&left), "what the catalogue has not needed is held: {left}");
    let wire = broker.produce("b", 0, &["x"]).await.expect_err("what is left is for cleaning up").to_wire();
    assert!(wire.message.contains("the reserve of 20000 B"), "{}", wire.message);
    assert_eq!((wire.code, wire.retryable), (ErrorCode::StorageFull, true));
    broker.engine.delete_topic("a").await.expect("it can be deleted");
    until_taken(&broker, "b").await;
    assert_eq!(sim.bytes(&reserve(&broker)).expect("it is there again").len() as u64, RESERVE_BYTES);
    assert_eq!((broker.values("b", 0).await.len(), broker.values("c", 0).await.len()), (5, 4), "nothing was lost");
}

#[tokio::test]
async fn a_topic_that_finds_no_room_leaves_nothing_behind() {
    let (broker, sim) = Broker::simulated().await;
    broker.topic("t", 1, "sync").await;
    let names = || sim.list(&broker.dir.path().join("topics")).expect("it is there");
    // Folders find room, and then the catalogue none; or not all of the folders.
    let limits: [fn(&SimDisk); 2] = [fill_up, |sim| sim.limit_names(Some(sim.used_names() + 2))];
    for limit in limits {
        limit(&sim);
        broker.engine.create_topic(create("a", 3, "sync")).await.expect_err("the disk is full");
        assert_eq!(names(), ["t"]);
        sim.limit_bytes(None);
        sim.limit_names(None);
    }
    broker.topic("a", 3, "sync").await;
    broker.produce("a", 2, &["x"]).await.expect("there is room");
}

#[tokio::test]
async fn a_refused_topic_that_the_catalogue_names_all_the_same_keeps_its_folders() {
    let (broker, sim) = Broker::simulated().await;
    let before = sim.count(Operation::SyncDir);
    broker.topic("probe", 1, "sync").await;
    let mut came_true = 0;
    for nth in 1..=sim.count(Operation::SyncDir) - before {
        for crash in [None, Some(1), Some(2), Some(3)] {
            let (broker, sim) = Broker::simulated().await;
            // Among them that of the catalogue's folder, when the new file has taken the place of the old one. That is not put back then.
            sim.fail(Operation::SyncDir, nth, Fault::Device);
            sim.fail(Operation::Rename, 2, Fault::Device);
            let is_made = broker.engine.create_topic(create("a", 2, "sync")).await.is_ok();
            sim.forget_failures(Operation::SyncDir);
            sim.forget_failures(Operation::Rename);
            broker.engine.shutdown().await;
            if let Some(seed) = crash {
                sim.crash(seed);
            }
            let broker = broker.restart().await;
            let topics = broker.engine.topics();
            assert!(!is_made || topics.len() == 1, "sync {nth}, crash {crash:?}");
            came_true += u32::from(!is_made && !topics.is_empty());
            let lost = topics.iter().flat_map(|topic| &topic.partitions).filter_map(|partition| partition.failure.as_ref());
            assert_eq!(lost.count(), 0, "sync {nth}, crash {crash:?}");
        }
    }
    assert!(came_true > 0, "there is nothing to see");
}

#[tokio::test]
async fn records_can_be_deleted_on_a_full_disk() {
    let sim = SimDisk::new();
    let broker = watchful(&sim).await;
    broker.engine.create_topic(limited("t", 1, None, OnFull::Reject)).await.expect("it can be made");
    for number in 0..4 {
        broker.produce("t", 0, &[&value(number)]).await.expect("there is room");
    }
    fill_up(&sim);
    broker.produce("t", 0, &["x"]).await.expect_err("the disk is full");
    for (before, start) in [(Position::Offset(2), 2), (Position::End, 4)] {
        let request = DeleteRecords { topic: "t".to_owned(), partition: 0, before };
        assert_eq!(broker.engine.delete_records(&request).await.expect("it has the reserve").log_start, start);
    }
    until_taken(&broker, "t").await;
    assert_eq!(broker.values("t", 0).await, ["again"]);
}

#[tokio::test]
async fn a_broker_stops_in_order_and_starts_on_a_full_disk() {
    for seed in 0..20 {
        let sim = SimDisk::new();
        let broker = watchful(&sim).await;
        broker.engine.create_topic(limited("t", 3, None, OnFull::Reject)).await.expect("it can be made");
        broker.topic("empty", 2, "sync").await;
        for number in 0..9 {
            broker.produce("t", u32::try_from(number % 3).expect("small"), &[&value(number)]).await.expect("there is room");
        }
        fill_up(&sim);
        for partition in 0..3 {
            broker.produce("t", partition, &["x"]).await.expect_err("the disk is full");
        }
        // In order, or in the middle of it all.
        if seed % 2 == 0 {
            broker.engine.shutdown().await;
            let stop = broker.dir.path().join("topics/t/0/clean-stop");
            assert!(sim.exists(&stop).expect("it can be asked"), "there is room for the notes");
        } else {
            sim.crash(seed);
        }
        fill_up(&sim);
        let broker = broker.restart().await;
        for partition in 0..3 {
            assert_eq!(broker.values("t", partition).await.len(), 3, "seed {seed}");
            let error = broker.produce("t", partition, &["x"]).await.expect_err("it is as full as before");
            assert_eq!(error.code(), ErrorCode::StorageFull);
        }
        broker.engine.delete_topic("empty").await.expect("it can be deleted");
        sim.limit_bytes(None);
        until_taken(&broker, "t").await;
        assert!(sim.exists(&reserve(&broker)).expect("it can be asked"));
    }
}

#[tokio::test]
async fn a_start_that_has_to_begin_a_segment_has_the_reserve_for_it() {
    let (broker, sim) = Broker::simulated().await;
    broker.topic("t", 2, "sync").await;
    broker.engine.shutdown().await;
    for name in sim.list(&broker.dir.path().join("topics/t/0")).expect("it is there") {
        sim.remove_file(&broker.dir.path().join("topics/t/0").join(name)).expect("it is there");
    }
    sim.limit_names(Some(sim.used_names() + 2));
    let broker = broker.restart().await;
    assert_eq!(info(&broker, "t").partitions[0].failure, None);
    assert!(!sim.exists(&reserve(&broker)).expect("it can be asked"));
}

/// Stops a broker with records of so many bytes, makes a hole behind the first one as a power cut does, and starts it on a disk that is full.
/// Gives what is behind the hole, and what is kept of it.
async fn start_with_hole_on_a_full_disk(value_bytes: usize) -> (Broker, Vec<u8>, Vec<Vec<u8>>) {
    let (broker, sim) = Broker::simulated().await;
    broker.topic("t", 1, "sync").await;
    for _ in 0..3 {
        broker.produce("t", 0, &[&"x".repeat(value_bytes)]).await.expect("there is room");
    }
    broker.engine.shutdown().await;
    let dir = broker.dir.path().join("topics/t/0");
    sim.remove_file(&dir.join("clean-stop")).expect("it was stopped in order");
    let log = dir.join("00000000000000000000.log");
    let position = sim.bytes(&log).expect("it is there").len() / 3;
    sim.damage(&log, |bytes| bytes[position..(position + 1).next_multiple_of(512)].fill(0));
    let behind = sim.bytes(&log).expect("it is there").split_off(position);
    fill_up(&sim);
    let broker = broker.restart().await;
    let names = sim.list(&dir).expect("it is there").into_iter().filter(|name| name.to_string_lossy().ends_with(".removed-1"));
    let kept = names.map(|name| sim.bytes(&dir.join(name)).expect("it is there")).collect();
    (broker, behind, kept)
}

#[tokio::test]
async fn a_start_that_has_to_cut_a_log_keeps_what_it_cuts_in_the_room_of_the_reserve() {
    let (broker, behind, kept) = start_with_hole_on_a_full_disk(1_000).await;
    assert!(kept == [behind], "{} files are kept", kept.len());
    assert_eq!((info(&broker, "t").partitions[0].failure.as_ref(), broker.values("t", 0).await.len()), (None, 1));
}

#[tokio::test]
async fn a_start_that_has_to_cut_more_than_the_reserve_has_room_for_works_all_the_same() {
    let (broker, _, kept) = start_with_hole_on_a_full_disk(usize::try_from(RESERVE_BYTES).expect("small")).await;
    assert!(kept.is_empty());
    assert_eq!((info(&broker, "t").partitions[0].failure.as_ref(), broker.values("t", 0).await.len()), (None, 1));
}

#[tokio::test]
async fn without_room_for_the_reserve_the_broker_starts_and_says_what_it_needs() {
    let sim = SimDisk::new();
    let broker = watchful(&sim).await;
    broker.topic("t", 1, "sync").await;
    broker.engine.shutdown().await;
    sim.remove_file(&reserve(&broker)).expect("it is there");
    sim.limit_bytes(Some(sim.used_bytes() + RESERVE_BYTES / 2));
    let broker = broker.restart().await;
    let wire = broker.produce("t", 0, &["x"]).await.expect_err("the reserve comes first").to_wire();
    assert_eq!((wire.code, wire.retryable), (ErrorCode::StorageFull, true));
    assert!(wire.hint.is_some_and(|hint| hint.contains("`storage.reserve`")));
    sim.limit_bytes(None);
    until_taken(&broker, "t").await;
    let none = SimDisk::new();
    let broker = Broker::with(Arc::new(none.clone()), |config| config.reserve_bytes = 0).await;
    broker.topic("t", 1, "sync").await;
    broker.produce("t", 0, &["x"]).await.expect("none was asked for");
    assert!(!none.exists(&reserve(&broker)).expect("it can be asked"));
}

#[tokio::test]
async fn room_that_a_segment_has_asked_for_ahead_is_given_back_when_the_disk_is_full() {
    let sim = SimDisk::new();
    let broker = watchful(&sim).await;
    for name in ["a", "b"] {
        broker.topic(name, 1, "os").await;
    }
    // From 128 KiB on a segment holds more than it has.
    for _ in 0..6 {
        broker.produce("a", 0, &[&"x".repeat(50_000)]).await.expect("there is room");
    }
    fill_up(&sim);
    let taken = tokio::time::timeout(Duration::from_secs(20), until_taken(&broker, "b")).await;
    taken.expect("the room is given back, although no topic drops records");
    assert_eq!(broker.values("a", 0).await.len(), 6);
}

#[tokio::test]
async fn no_record_goes_for_a_reserve_that_can_not_be_made() {
    let sim = SimDisk::new();
    let mut broker = watchful(&sim).await;
    for (name, on_full) in [("camera", OnFull::DropOldest), ("t", OnFull::Reject)] {
        broker.engine.create_topic(limited(name, 1, None, on_full)).await.expect("it can be made");
        for number in 0..4 {
            broker.produce(name, 0, &[&value(number)]).await.expect("there is room");
        }
    }
    // More than all records together would make room for.
    sim.limit_bytes(Some(sim.used_bytes() + 100_000));
    broker.config.reserve_bytes = 10 << 20;
    let broker = broker.restart().await;
    for name in ["t", "camera", "camera"] {
        let error = broker.produce(name, 0, &["x"]).await.expect_err("no batch is taken without the reserve");
        assert_eq!(error.code(), ErrorCode::StorageFull, "{error:?}");
    }
    assert_eq!((broker.values("camera", 0).await.len(), broker.values("t", 0).await.len()), (4, 4));
}

#[tokio::test]
async fn a_topic_that_drops_its_oldest_records_goes_on_for_ever_on_a_full_disk() {
    for short_writes in [None, Some(7)] {
        let sim = SimDisk::new();
        let broker = watchful(&sim).await;
        let mut request = limited("t", 1, None, OnFull::DropOldest);
        request.config.segment_bytes = 64 << 10;
        broker.engine.create_topic(request).await.expect("it can be made");
        broker.engine.create_topic(limited("keep", 1, None, OnFull::Reject)).await.expect("it can be made");
        for number in 0..5 {
            broker.produce("keep", 0, &[&value(number)]).await.expect("there is room");
        }
        sim.limit_bytes(Some(RESERVE_BYTES + QUOTA));
        sim.shorten_writes(short_writes);
        for number in 0..300 {
            broker.produce("t", 0, &[&value(number)]).await.unwrap_or_else(|error| panic!("batch {number}: {error:?}"));
        }
        let topic = info(&broker, "t");
        assert_eq!(broker.values("t", 0).await.len() as u64 + topic.dropped.records, 300);
        assert!(topic.dropped.records < 290, "no more goes than has to: {:?}", topic.dropped);
        assert_eq!(topic.used_bytes, log_bytes(&broker, &sim, "t"));
        assert_eq!(broker.values("keep", 0).await.len(), 5);
        assert_eq!(info(&broker, "keep").dropped, Dropped::default());
        assert!(sim.exists(&reserve(&broker)).expect("it can be asked"), "whole segments were enough");
        // One that rejects is made room for, too.
        broker.produce("keep", 0, &[&value(5)]).await.expect("the other yields");
    }
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_on_a_disk_that_is_full_now_and_then() {
    for seed in 0..15 {
        let sim = SimDisk::new();
        let broker = watchful(&sim).await;
        broker.engine.create_topic(limited("t", 1, None, OnFull::Reject)).await.expect("it can be made");
        let mut acknowledged = Vec::new();
        for step in 0..60 {
            if step % 7 == 0 {
                sim.limit_bytes((step % 14 == 0).then_some(sim.used_bytes() + seed * 1_500));
                sim.shorten_writes((seed % 2 == 0).then_some(seed));
            }
            match broker.produce("t", 0, &[&value(step)]).await {
                Ok(ack) => acknowledged.push((ack.base_offset, value(step))),
                Err(error) => assert_eq!(error.code(), ErrorCode::StorageFull),
            }
            assert_eq!(info(&broker, "t").used_bytes, log_bytes(&broker, &sim, "t"), "seed {seed}, step {step}");
        }
        assert!(acknowledged.len() > 20 && acknowledged.len() < 60, "seed {seed}: {}", acknowledged.len());
        assert!(broker.read_all("t", 0).await == acknowledged, "seed {seed}");
        sim.crash(seed);
        let broker = broker.restart().await;
        assert!(broker.read_all("t", 0).await == acknowledged, "seed {seed}");
    }
}

#[tokio::test]
async fn what_could_not_be_removed_goes_while_the_broker_runs() {
    let sim = SimDisk::new();
    let broker = watchful(&sim).await;
    let mut request = limited("t", 1, None, OnFull::Reject);
    request.config.segment_bytes = 64 << 10;
    broker.engine.create_topic(request).await.expect("it can be made");
    for number in 0..20 {
        broker.produce("t", 0, &[&value(number)]).await.expect("there is room");
    }
    let open = OpenConsume { topic: "t".to_owned(), partition: 0, from: Position::End, view: None };
    let (mut stream, _) = broker.engine.open_consume(&open).await.expect("it opens");
    for nth in 1..=6 {
        sim.fail(Operation::Remove, nth, Fault::Device);
    }
    let request = DeleteRecords { topic: "t".to_owned(), partition: 0, before: Position::Offset(15) };
    broker.engine.delete_records(&request).await.expect("the records are gone, if not their files");
    while info(&broker, "t").used_bytes != log_bytes(&broker, &sim, "t") {
        broker.produce("t", 0, &["tick"]).await.expect("there is room");
        stream.next(1 << 20).await.expect("it reads");
    }
    sim.fail(Operation::Remove, 1, Fault::Device);
    sim.fail(Operation::Remove, 2, Fault::Device);
    broker.topic("other", 1, "os").await;
    broker.engine.delete_topic("t").await.expect("it is gone, if not its folder");
    let topics = broker.dir.path().join("topics");
    while sim.list(&topics).expect("it is there").len() > 1 {
        broker.produce("other", 0, &["tick"]).await.expect("there is room");
    }
}

#[tokio::test]
async fn on_a_full_disk_a_topic_can_be_deleted_and_none_is_made_with_the_reserve() {
    let sim = SimDisk::new();
    let broker = watchful(&sim).await;
    for name in ["t", "u"] {
        broker.topic(name, 1, "sync").await;
    }
    sim.limit_bytes(Some(sim.used_bytes()));
    let refused = broker.engine.create_topic(create("v", 3, "sync")).await.expect_err("there is no room");
    assert_eq!(refused.code(), ErrorCode::StorageFull);
    assert!(sim.exists(&reserve(&broker)).expect("it can be asked"), "the others need it");
    assert!(broker.engine.topic("v").is_err());
    broker.engine.delete_topic("u").await.expect("it has the reserve");
    sim.limit_bytes(None);
    broker.engine.create_topic(create("v", 3, "sync")).await.expect("nothing of the first try is in the way");
    until_taken_or_full(&broker).await;
}

/// The catalogue may have grown by a few bytes, for which the reserve waits.
async fn until_taken_or_full(broker: &Broker) {
    if let Err(error) = broker.produce("t", 0, &["x"]).await {
        assert_eq!(error.code(), ErrorCode::StorageFull);
    }
}

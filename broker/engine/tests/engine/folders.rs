//! The folders of topics: made before the catalogue names them, and missed when they are gone.

use crate::broker::{Broker, create};
use millpond_engine::EngineError;
use millpond_log::{Disk, sim::SimDisk};
use millpond_protocol::{
    error::ErrorCode,
    message::{OpenConsume, Position},
};
use std::path::PathBuf;

fn folder(broker: &Broker, path: &str) -> PathBuf {
    broker.dir.path().join("topics").join(path)
}

fn failures(broker: &Broker, topic: &str) -> Vec<Option<String>> {
    let topic = broker.engine.topic(topic).expect("it is there");
    topic.partitions.into_iter().map(|partition| partition.failure).collect()
}

/// The names right under `topics/`, in order.
fn names(broker: &Broker, sim: &SimDisk) -> Vec<String> {
    let names = sim.list(&broker.dir.path().join("topics")).expect("it is there");
    let mut names: Vec<_> = names.into_iter().map(|name| name.into_string().expect("text")).collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_partition_whose_folder_is_gone_says_so_and_the_others_are_served() {
    let (broker, sim) = Broker::simulated().await;
    broker.topic("k", 3, "sync").await;
    broker.topic("other", 1, "sync").await;
    for (topic, partition) in [("k", 0), ("k", 1), ("k", 2), ("other", 0)] {
        broker.produce(topic, partition, &["a", "b"]).await.expect("it is stored");
    }
    broker.engine.shutdown().await;
    let lost = folder(&broker, "k/1");
    sim.remove_dir_all(&lost).expect("it is there");

    // Twice: the first start has not made it good without a word.
    let mut broker = broker;
    for _ in 0..2 {
        broker = broker.restart().await;
        let error = broker.produce("k", 1, &["c"]).await.expect_err("its records are gone");
        assert!(matches!(error, EngineError::PartitionLost { partition: 1, .. }), "{error:?}");
        let wire = error.to_wire();
        assert_eq!((wire.code, wire.retryable), (ErrorCode::StorageFailed, false));
        assert_eq!(wire.message, format!("`k`, partition 1, is lost: its folder {} is missing", lost.display()));
        let hint = wire.hint.expect("a hint");
        assert!(hint.contains("from a backup") && hint.contains("`millpond topic delete k`"), "{hint}");

        let open = OpenConsume { topic: "k".to_owned(), partition: 1, from: Position::Beginning, view: None };
        assert!(matches!(broker.engine.open_consume(&open).await, Err(EngineError::PartitionLost { .. })));
        assert!(matches!(broker.offset_at("k", 1, Position::End).await, Err(EngineError::PartitionLost { .. })));
        assert_eq!(failures(&broker, "k"), [None, Some(wire.message), None]);
        assert!(!sim.exists(&lost).expect("it can be asked"), "it is left to a backup");

        for (topic, partition) in [("k", 0), ("k", 2), ("other", 0)] {
            broker.produce(topic, partition, &["c"]).await.expect("it is stored");
            assert_eq!(broker.values(topic, partition).await[..2], ["a", "b"]);
        }
    }
}

#[tokio::test]
async fn a_folder_that_was_brought_back_is_served_after_the_next_start() {
    let (broker, sim) = Broker::simulated().await;
    broker.topic("k", 2, "sync").await;
    broker.produce("k", 1, &["a"]).await.expect("it is stored");
    broker.engine.shutdown().await;
    let (there, away) = (folder(&broker, "k/1"), folder(&broker, "k/away"));
    sim.rename(&there, &away).expect("it is there");
    let broker = broker.restart().await;
    broker.produce("k", 1, &["b"]).await.expect_err("it is away");
    broker.engine.shutdown().await;
    sim.rename(&away, &there).expect("it is there");
    let broker = broker.restart().await;
    assert_eq!(failures(&broker, "k"), [None, None]);
    let ack = broker.produce("k", 1, &["b"]).await.expect("it is stored");
    assert_eq!(ack.base_offset, 1);
}

#[tokio::test]
async fn a_topic_whose_folders_are_all_gone_can_be_deleted_and_made_again() {
    let (broker, sim) = Broker::simulated().await;
    broker.topic("k", 2, "sync").await;
    broker.produce("k", 0, &["a"]).await.expect("it is stored");
    broker.engine.shutdown().await;
    sim.remove_dir_all(&folder(&broker, "k")).expect("it is there");
    let broker = broker.restart().await;
    assert!(failures(&broker, "k").iter().all(Option::is_some));
    broker.engine.delete_topic("k").await.expect("it is given up");
    broker.topic("k", 2, "sync").await;
    assert_eq!(broker.produce("k", 0, &["b"]).await.expect("it is stored").base_offset, 0);
}

#[tokio::test]
async fn a_power_cut_while_a_topic_is_made_leaves_it_whole_or_not_there() {
    let mut outcomes = [0, 0];
    for cut in 0.. {
        let mut was_cut = false;
        for seed in 0..6 {
            let (broker, sim) = Broker::simulated().await;
            sim.cut_power_after(cut);
            let is_made = broker.engine.create_topic(create("t", 2, "sync")).await.is_ok();
            was_cut |= !sim.is_powered();
            broker.engine.shutdown().await;
            sim.crash(seed);

            let broker = broker.restart().await;
            let is_there = !broker.engine.topics().is_empty();
            outcomes[usize::from(is_there)] += 1;
            assert!(is_there || !is_made, "cut {cut}, seed {seed}");
            if !is_there {
                assert_eq!(names(&broker, &sim), [""; 0], "cut {cut}, seed {seed}");
                broker.topic("t", 3, "sync").await;
            }
            assert!(failures(&broker, "t").iter().all(Option::is_none), "cut {cut}, seed {seed}: {:?}", failures(&broker, "t"));
            assert_eq!(names(&broker, &sim), ["t"], "cut {cut}, seed {seed}");
            for partition in 0..2 {
                broker.produce("t", partition, &["a"]).await.expect("it is stored");
            }
        }
        if !was_cut {
            break;
        }
    }
    assert!(outcomes.iter().all(|count| *count > 10), "both happen: {outcomes:?}");
}

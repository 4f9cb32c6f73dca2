//! Making room: beside a compaction that takes its time, and what is said of it.

use crate::{
    broker::{Broker, batch},
    compaction::{fill, rows},
    gate::GatedDisk,
    quotas::{QUOTA, info, limited, log_bytes, value},
    said,
};
use millpond_log::sim::SimDisk;
use millpond_protocol::message::{Cleanup, OnFull};
use std::{sync::Arc, time::Duration};

/// A broker that looks around all the time, over a disk with gates.
async fn watchful() -> (Broker, SimDisk, GatedDisk) {
    let sim = SimDisk::new();
    let gated = GatedDisk::new(Arc::new(sim.clone()));
    let broker = Broker::with(gated.disk(), |config| config.retention_check_interval = Duration::from_millis(1)).await;
    (broker, sim, gated)
}

#[tokio::test]
async fn room_is_made_at_once_while_a_segment_of_another_topic_is_compacted() {
    let (broker, _, disk) = watchful().await;
    let mut settings = limited("settings", 1, None, OnFull::Reject);
    (settings.config.cleanup, settings.config.segment_bytes) = (Cleanup::Compact, 64 << 10);
    broker.engine.create_topic(settings).await.expect("it can be made");
    broker.engine.create_topic(limited("camera", 1, Some(QUOTA), OnFull::DropOldest)).await.expect("it can be made");
    disk.drafts.shut();
    fill(&broker, "settings", 0..20).await;
    disk.drafts.arrived(1).await;
    // Several times the quota, while the step of the compaction goes on.
    for number in 0..150 {
        broker.produce("camera", 0, &[&value(number)]).await.unwrap_or_else(|error| panic!("batch {number}: {error}"));
    }
    assert!(info(&broker, "camera").dropped.segments > 0);
    disk.drafts.open();
    broker.engine.shutdown().await;
}

#[tokio::test]
async fn the_oldest_segments_go_while_they_are_compacted_and_nothing_else_is_lost() {
    let (broker, sim, disk) = watchful().await;
    let mut request = limited("t", 1, Some(QUOTA), OnFull::DropOldest);
    (request.config.cleanup, request.config.segment_bytes) = (Cleanup::CompactDelete, 64 << 10);
    broker.engine.create_topic(request).await.expect("it can be made");
    let mut rounds = 0;
    for pass in 1..=4 {
        disk.drafts.shut();
        rounds += 10;
        fill_again(&broker, 10).await;
        disk.drafts.arrived(pass).await;
        let dropped = info(&broker, "t").dropped;
        // What is being compacted goes, and all that was closed then.
        rounds += 20;
        fill_again(&broker, 20).await;
        assert!(info(&broker, "t").dropped.segments >= dropped.segments + 3, "{:?}", info(&broker, "t").dropped);
        // The pass ends with what is left, or the next one does.
        disk.drafts.open();
    }
    assert_eq!(info(&broker, "t").partitions[0].failure, None);
    let broker = broker.restart().await;
    assert_eq!(info(&broker, "t").used_bytes, log_bytes(&broker, &sim, "t"));
    let found = rows(&broker, "t").await;
    let latest: Vec<_> = found.iter().rev().take(10).map(|(offset, _, _)| *offset).collect();
    assert_eq!(latest, (rounds * 10 - 10..rounds * 10).rev().collect::<Vec<_>>(), "the latest of each key");
}

/// Stores the same ten records so many times, within the quota.
async fn fill_again(broker: &Broker, times: usize) {
    for _ in 0..times {
        fill(broker, "t", 0..1).await;
        assert!(info(broker, "t").used_bytes <= QUOTA);
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_dropped_is_said_at_once_then_once_a_minute_and_in_full() {
    const WORDS: &str = "the oldest records were dropped to make room";
    said::listen();
    // As long as something is to be done, time stands still.
    let busy = tokio::spawn(async {
        loop {
            tokio::task::yield_now().await;
        }
    });
    let (broker, _) = Broker::simulated().await;
    let topic = "said-camera";
    broker.engine.create_topic(limited(topic, 2, Some(QUOTA), OnFull::DropOldest)).await.expect("it can be made");
    let mut seen = Vec::new();
    for minute in 0..3 {
        for number in 0..200 {
            broker.produce(topic, u32::from(number % 4 == 0), &[&value(number)]).await.expect("it is always taken");
        }
        assert!(info(&broker, topic).dropped.segments > 10 * (minute + 1));
        seen.push(said::lines(topic, WORDS).len());
        tokio::time::advance(Duration::from_millis(60_001)).await;
        while said::lines(topic, WORDS).len() == seen[seen.len() - 1] {
            tokio::task::yield_now().await;
        }
    }
    let lines = said::lines(topic, WORDS);
    assert!(lines.iter().filter_map(|line| line.get("within_s")).all(|seconds| seconds == "60"), "{lines:?}");
    for number in 0..100 {
        broker.produce(topic, 0, &[&value(number)]).await.expect("it is always taken");
    }
    broker.engine.shutdown().await;
    busy.abort();
    let dropped = info(&broker, topic).dropped;
    assert_eq!(seen[0], 2, "one for each partition");
    let lines = said::lines(topic, WORDS);
    assert!(lines.len() <= 10, "{lines:?}");
    let sum = |field| lines.iter().map(|line| line[field].parse::<u64>().expect("a number")).sum::<u64>();
    assert_eq!((sum("segments"), sum("records"), sum("bytes")), (dropped.segments, dropped.records, dropped.bytes));
    assert_eq!(dropped.bytes, dropped.records * batch(&[&value(0)]).len() as u64);
}

//! Thirty kills on a file system that fills up: producers wait for room, and go on when somebody makes some.

use crate::{
    client, create_topic,
    load::{Load, Sent, value},
    seen::{PARTITIONS, Seen},
    under_load::writers,
};
use millpond::{Position, Record, TopicConfig};
use millpond_tests::{Site, SmallDisk};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::time::Duration;
use tokio::time::timeout;

const KILLS: u32 = 30;

/// So often at least the disk has to be full.
const FILLED_MIN: u32 = 3;

const PRODUCERS: u32 = 2;

const VALUE_BYTES: usize = 1 << 10;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn producers_on_a_disk_that_fills_up_store_everything_once_and_in_order_through_thirty_kills() {
    let site = Site::new();
    let disk = SmallDisk::new(&site);
    let mut broker = disk.start(&site);
    create_topic(broker.url(), "readings", PARTITIONS, config()).await;
    let (load, mut seen) = (Load::new(reading), Seen::new("readings"));
    let producing = load.run(writers(&broker, "readings", PRODUCERS).await);
    let mut random = StdRng::seed_from_u64(0x006d_696c_6c70_6f6e);
    let (mut filled, mut is_full) = (0, false);
    for _ in 0..KILLS {
        // At any moment, and where too little is acknowledged, after a while of that.
        let answers = random.random_range(1..6_000);
        if !is_full && timeout(FULL_AFTER, load.acknowledge(answers)).await.is_err() {
            is_full = broker.log().contains("batches are refused until there is room");
        }
        if is_full {
            filled += 1;
            disk.take_the_rest();
        }
        broker.kill();
        broker = disk.start(&site);
        seen.look(broker.url(), &load).await;
        if is_full {
            // In two steps, and not always: the next broker may have to start on the full disk as well.
            disk.give_back();
            is_full = random.random_bool(0.3);
        }
        if !is_full && filled > 0 {
            delete_what_was_seen(broker.url(), &seen, random.random_range(0.5..1.0)).await;
        }
    }
    delete_what_was_seen(broker.url(), &seen, 1.0).await;
    producing.stop().await;
    seen.look(broker.url(), &load).await;
    assert!(filled >= FILLED_MIN, "the disk was full {filled} times");
    assert!(load.retries() > 0, "batches were refused, or their answers lost, and they were sent again");
    assert!(broker.stop().success(), "the broker stops cleanly");

    broker = disk.start(&site);
    let log_starts = seen.look_again(broker.url(), &load).await;
    assert!(log_starts.iter().all(|start| *start > 0), "room was made: {log_starts:?}");
    assert!(broker.stop().success(), "the broker stops cleanly");
}

fn config() -> TopicConfig {
    // What the broker on a small disk allows.
    TopicConfig { max_batch_bytes: 1 << 20, ..TopicConfig::default() }
}

/// This share of each partition, and the producers go on.
#[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "a share of few records")]
async fn delete_what_was_seen(url: &str, seen: &Seen, share: f64) {
    let client = client(url).await;
    for partition in 0..PARTITIONS {
        let before = Position::Offset((seen.end(partition) as f64 * share) as i64);
        client.admin().delete_records("readings", partition, before).await.expect("what was seen can be deleted");
    }
}

fn reading(sent: Sent) -> Record {
    Record::new(value(sent, VALUE_BYTES)).with_partition(sent.number % PARTITIONS)
}

/// Longer is not waited for so many answers: the disk may be full.
const FULL_AFTER: Duration = Duration::from_millis(200);

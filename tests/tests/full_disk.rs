//! A real broker on a small file system of its own, which fills up to the last byte.

use bytes::Bytes;
use millpond::{Client, Producer, Record, Start};
use millpond_protocol::message::{CreateTopic, OnFull, TopicConfig};
use millpond_tests::{SMALL_DISK_BYTES, Site, SmallDisk};
use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_read_stopped_started_and_cleaned_up_and_loses_nothing() {
    let site = Site::new();
    let disk = SmallDisk::new(&site);
    let mut broker = disk.start(&site);
    let mut client = Client::connect(broker.url()).await.expect("the broker is ready");
    for name in ["bulk", "keep"] {
        client.admin().create_topic(topic(name, OnFull::Reject)).await.expect("the name is free");
    }
    let keep = client.producer("keep").retry(false).build().await.expect("the topic is there");
    for number in 0..50 {
        produce(&keep, number).await.expect("there is room");
    }
    let bulk = client.producer("bulk").retry(false).build().await.expect("the topic is there");
    let taken = fill(&bulk).await;
    disk.take_the_rest();
    refuses(&bulk).await;
    // Its segment may have room that it has asked for ahead.
    let kept = top_up(&keep, 50).await;
    assert_eq!((read(&client, "bulk").await, read(&client, "keep").await), (numbers(taken), numbers(kept)), "reads go on");

    // In order, and killed; on a disk without a byte.
    for is_killed in [false, true] {
        if is_killed {
            broker.kill();
        } else {
            assert!(broker.stop().success(), "the broker stops cleanly");
        }
        disk.take_the_rest();
        broker = disk.start(&site);
        client = Client::connect(broker.url()).await.expect("the broker is ready");
        assert_eq!((read(&client, "bulk").await, read(&client, "keep").await), (numbers(taken), numbers(kept)));
        refuses(&client.producer("keep").retry(false).build().await.expect("the topic is there")).await;
    }

    // Whoever retries needs nothing but patience.
    let patient = client.producer("keep").build().await.expect("the topic is there");
    let delivery = patient.enqueue(record(kept)).await.expect("there is memory");
    broker.ok(&["topic", "delete", "bulk", "--yes"]);
    tokio::time::timeout(WAIT_MAX, delivery).await.expect("writing resumes by itself").expect("it is stored");
    assert_eq!(read(&client, "keep").await, numbers(kept + 1));
    let log = broker.log();
    assert!(log.contains("batches are refused until there is room"), "{log}");
    assert!(log.contains("there is room again"), "{log}");
    if disk.is_real() {
        assert!(log.contains("the reserve is there again"), "{log}");
    }
    assert!(broker.stop().success(), "the broker stops cleanly");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_drops_its_oldest_records_never_refuses_one() {
    let site = Site::new();
    let disk = SmallDisk::new(&site);
    let broker = disk.start(&site);
    let client = Client::connect(broker.url()).await.expect("the broker is ready");
    client.admin().create_topic(topic("camera", OnFull::DropOldest)).await.expect("the name is free");
    let camera = client.producer("camera").retry(false).build().await.expect("the topic is there");
    let total = 3 * SMALL_DISK_BYTES / VALUE_BYTES;
    for number in 0..total {
        produce(&camera, number).await.unwrap_or_else(|error| panic!("record {number}: {error}\n{}", broker.log()));
    }
    let topic = client.admin().topic("camera").await.expect("it is there");
    assert!(topic.dropped.segments > 0 && topic.dropped.records >= total - SMALL_DISK_BYTES / VALUE_BYTES, "{:?}", topic.dropped);
    let left = read(&client, "camera").await;
    assert_eq!(left, (topic.dropped.records..total).collect::<Vec<_>>(), "what is left is the end of it, without a gap");
    assert!(left.len() as u64 > total / 6, "no more went than had to: {} are left", left.len());
    let words = broker.ok(&["topic", "describe", "camera"]);
    assert!(words.contains("drop-oldest") && words.contains("segments since the broker started"), "{words}");
    assert!(broker.log().contains("the oldest records were dropped to make room"));
    assert!(broker.stop().success(), "the broker stops cleanly");
}

fn topic(name: &str, on_full: OnFull) -> CreateTopic {
    let config = TopicConfig { max_batch_bytes: 1 << 20, segment_bytes: 1 << 20, on_full, ..TopicConfig::default() };
    CreateTopic { name: name.into(), partitions: 1, config }
}

/// So many refusals in a row say that nothing more is given back.
const REFUSALS_WHEN_FULL: u32 = 100;

/// Its number, and bytes to fill the disk with.
fn record(number: u64) -> Record {
    let mut value = number.to_be_bytes().to_vec();
    value.resize(usize::try_from(VALUE_BYTES).expect("small"), 7);
    Record { value: Some(Bytes::from(value)), ..Record::default() }
}

async fn produce(producer: &Producer, number: u64) -> Result<(), millpond::Error> {
    producer.enqueue(record(number)).await?.await.map(drop)
}

/// Produces until there is no room, and gives how many records were taken.
async fn fill(producer: &Producer) -> u64 {
    let taken = top_up(producer, 0).await;
    assert!(taken * VALUE_BYTES > SMALL_DISK_BYTES / 2, "most of the disk is for records: {taken}");
    taken
}

/// Produces from this number on until there is no room, and gives the number that was not taken. What segments hold ahead is given back after the
/// first refusal, and more fits then.
async fn top_up(producer: &Producer, first: u64) -> u64 {
    let (mut number, mut refusals) = (first, 0);
    while number < 10 * SMALL_DISK_BYTES / VALUE_BYTES {
        match produce(producer, number).await {
            Ok(()) => (number, refusals) = (number + 1, 0),
            Err(error) => {
                assert_eq!(error.code(), "storage_full", "{error}");
                refusals += 1;
                if refusals == REFUSALS_WHEN_FULL {
                    return number;
                }
            }
        }
    }
    panic!("the disk is never full");
}

async fn refuses(producer: &Producer) {
    let error = produce(producer, u64::MAX).await.expect_err("there is no room");
    assert_eq!(error.code(), "storage_full", "{error}");
    assert!(error.broker().is_some_and(|wire| wire.retryable && wire.hint.is_some()), "{error:?}");
}

/// The numbers of a topic's records, in order.
async fn read(client: &Client, topic: &str) -> Vec<u64> {
    let mut consumer = client.consumer(topic).start(Start::Beginning).until_end(true).build().await.expect("the topic is there");
    let mut found = Vec::new();
    while let Some(record) = consumer.next().await {
        let value = record.expect("the broker is up").value.expect("a value");
        found.push(u64::from_be_bytes(*value.first_chunk().expect("a number")));
    }
    found
}

fn numbers(count: u64) -> Vec<u64> {
    (0..count).collect()
}

const VALUE_BYTES: u64 = 8 << 10;

/// Longer than a slow machine takes, shorter than a person waits for a test.
const WAIT_MAX: Duration = Duration::from_mins(1);

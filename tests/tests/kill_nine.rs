//! `kill -9` in the middle of producing, again and again: what was acknowledged is there, in order, once.

use bytes::Bytes;
use futures_util::{StreamExt, stream::FuturesOrdered};
use millpond::{Client, ConsumedRecord, Producer, Record, Start};
use millpond_protocol::message::{CreateTopic, TopicConfig};
use millpond_tests::{Broker, Site};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::collections::{BTreeMap, HashMap};

const KILLS: u32 = 50;
const PARTITIONS: u32 = 3;

/// How many records are in flight at most; far fewer are acknowledged before a kill.
const RECORDS_IN_FLIGHT_MAX: usize = 20_000;

/// A record that was acknowledged: its value by its place.
type Acknowledged = BTreeMap<(u32, i64), String>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_acknowledged_record_survives_fifty_kills() {
    let site = Site::new();
    let mut random = StdRng::seed_from_u64(0x006d_696c_6c70_6f6e);
    let mut acknowledged = Acknowledged::new();
    for round in 0..KILLS {
        let broker = site.start();
        let client = Client::connect(broker.url()).await.expect("the broker is ready");
        if round == 0 {
            create_topic(&client).await;
        }
        let producer = client.producer("readings").retry(false).batch_bytes(8 * 1024).build().await.expect("the topic is there");
        let kill_after = random.random_range(1..3000);
        produce_until_killed(&producer, broker, round, kill_after, &mut acknowledged).await;
    }

    let broker = site.start();
    let client = Client::connect(broker.url()).await.expect("the broker is ready");
    let stored = read_all(&client).await;
    assert!(acknowledged.len() > KILLS as usize, "the producer got on: {} acknowledged", acknowledged.len());
    check_acknowledged(&stored, &acknowledged);
    check_order(&stored);
    let mut copies: HashMap<&str, u32> = HashMap::new();
    for value in stored.values() {
        *copies.entry(value).or_default() += 1;
    }
    assert!(copies.values().all(|count| *count == 1), "nothing was sent twice, so nothing is there twice");
    assert!(broker.stop().success(), "the broker stops cleanly");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_producer_that_reconnects_delivers_everything_through_kills() {
    const ROUNDS: u32 = 10;
    let site = Site::new();
    let mut broker = site.start();
    let client = Client::connect(broker.url()).await.expect("the broker is ready");
    create_topic(&client).await;
    let producer = client.producer("readings").batch_bytes(8 * 1024).build().await.expect("the topic is there");
    let mut acknowledged = Acknowledged::new();
    for round in 0..ROUNDS {
        let mut deliveries = FuturesOrdered::new();
        for number in 0..3000 {
            let delivery = producer.enqueue(record(round, number)).await.expect("back-pressure waits, it does not fail");
            deliveries.push_back(async move { (value(round, number), delivery.await) });
        }
        let (text, place) = deliveries.next().await.expect("a delivery");
        acknowledged.insert(placed(place), text);
        broker.kill();
        broker = site.start();
        while let Some((text, place)) = deliveries.next().await {
            acknowledged.insert(placed(place), text);
        }
    }
    let resent = producer.stats().records_resent;
    let stored = read_all(&client).await;
    check_acknowledged(&stored, &acknowledged);
    assert_eq!(acknowledged.len(), (ROUNDS * 3000) as usize, "each record has a place of its own");
    let extra = (stored.len() - acknowledged.len()) as u64;
    assert!(extra <= resent, "{extra} records are there twice, but only {resent} were sent twice");
    assert!(broker.stop().success(), "the broker stops cleanly");
}

async fn produce_until_killed(producer: &Producer, broker: Broker, round: u32, kill_after: usize, acknowledged: &mut Acknowledged) {
    let mut broker = Some(broker);
    let mut deliveries = FuturesOrdered::new();
    let mut seen = 0;
    for number in 0..u32::MAX {
        if deliveries.len() < RECORDS_IN_FLIGHT_MAX && broker.is_some() {
            match producer.enqueue(record(round, number)).await {
                Ok(delivery) => deliveries.push_back(async move { (value(round, number), delivery.await) }),
                Err(_) => break,
            }
        }
        // Take what is answered; wait for it only when there is nothing to send.
        while let Some(answered) = next_answer(&mut deliveries, broker.is_none() || number % 512 == 511).await {
            let (text, Ok(place)) = answered else { continue };
            acknowledged.insert((place.partition, place.offset), text);
            seen += 1;
            if seen >= kill_after
                && let Some(broker) = broker.take()
            {
                broker.kill();
            }
        }
        if broker.is_none() && deliveries.is_empty() {
            return;
        }
    }
    unreachable!("the broker is killed long before");
}

async fn next_answer<F: Future>(deliveries: &mut FuturesOrdered<F>, wait: bool) -> Option<F::Output> {
    if wait {
        return deliveries.next().await;
    }
    futures_util::FutureExt::now_or_never(deliveries.next()).flatten()
}

async fn create_topic(client: &Client) {
    let topic = CreateTopic { name: "readings".into(), partitions: PARTITIONS, config: TopicConfig::default() };
    client.admin().create_topic(topic).await.expect("the name is free");
}

async fn read_all(client: &Client) -> Acknowledged {
    let mut consumer = client.consumer("readings").start(Start::Beginning).until_end(true).build().await.expect("the topic is there");
    let mut stored = Acknowledged::new();
    while let Some(record) = consumer.next().await {
        let ConsumedRecord { partition, offset, value, .. } = record.expect("the broker is up");
        let text = String::from_utf8(value.expect("a value").to_vec()).expect("text");
        assert!(stored.insert((partition, offset), text).is_none(), "offset {offset} of partition {partition} came twice");
    }
    stored
}

#[track_caller]
fn check_acknowledged(stored: &Acknowledged, acknowledged: &Acknowledged) {
    for (place, value) in acknowledged {
        assert_eq!(stored.get(place), Some(value), "partition {} offset {}", place.0, place.1);
    }
}

/// Within a partition, the records of a round lie in the order in which they were sent, and the rounds follow each other.
#[track_caller]
fn check_order(stored: &Acknowledged) {
    let mut last: HashMap<u32, (u32, u32)> = HashMap::new();
    for ((partition, offset), value) in stored {
        let (round, number) = value.split_once(':').expect("round:number");
        let position = (round.parse().expect("a round"), number.parse().expect("a number"));
        if let Some(before) = last.insert(*partition, position) {
            assert!(before < position, "partition {partition} offset {offset}: {position:?} lies behind {before:?}");
        }
    }
}

#[track_caller]
fn placed(place: Result<millpond::RecordPlace, millpond::Error>) -> (u32, i64) {
    let place = place.expect("the producer reconnects and delivers");
    (place.partition, place.offset)
}

fn record(round: u32, number: u32) -> Record {
    Record { value: Some(Bytes::from(value(round, number))), partition: Some(number % PARTITIONS), ..Record::default() }
}

fn value(round: u32, number: u32) -> String {
    format!("{round}:{number}")
}

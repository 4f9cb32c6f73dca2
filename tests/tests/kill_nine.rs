//! `kill -9` in the middle of producing, again and again: what was acknowledged is there, in order, once.

use bytes::Bytes;
use futures_util::{StreamExt, stream::FuturesOrdered};
use millpond::{Client, ConsumedRecord, Producer, Record, Start};
use millpond_protocol::message::{CreateTopic, TopicConfig};
use millpond_tests::{Broker, Site};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
};
use tokio::sync::Notify;

const KILLS: u32 = 20;
const KILLS_UNDER_LOAD: u32 = 200;
const PRODUCERS: u32 = 3;
const PARTITIONS: u32 = 3;

/// How many records are in flight at most; far fewer are acknowledged before a kill.
const RECORDS_IN_FLIGHT_MAX: usize = 20_000;

/// The same for each producer under load.
const RECORDS_PER_PRODUCER_MAX: usize = 2_000;

/// A record that was acknowledged: its value by its place.
type Acknowledged = BTreeMap<(u32, i64), String>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_retries_every_acknowledged_record_survives_twenty_kills() {
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

/// The producers number their batches, so a repetition after a kill is recognised: each partition holds the records of each producer
/// once, in order and without a gap. That is looked at after each start, from where the last look ended.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn producers_that_reconnect_store_everything_once_and_in_order_through_two_hundred_kills() {
    let site = Site::new();
    let mut broker = site.start();
    create_topic(&Client::connect(broker.url()).await.expect("the broker is ready")).await;
    let load = Arc::new(Load::default());
    let mut producers = Vec::new();
    for name in 0..PRODUCERS {
        let client = Client::connect(broker.url()).await.expect("the broker is ready");
        let producer = client.producer("readings").batch_bytes(8 * 1024).build().await.expect("the topic is there");
        producers.push(tokio::spawn(Arc::clone(&load).produce(name, producer)));
    }
    let mut random = StdRng::seed_from_u64(0x006d_696c_6c70_6f6e);
    let mut seen = Seen::default();
    for _ in 0..KILLS_UNDER_LOAD {
        // At any moment, but for the first answer that shows that the producers have found the broker again.
        load.acknowledge(random.random_range(1..1500)).await;
        broker.kill();
        broker = site.start();
        seen.look(broker.url(), &load).await;
    }
    load.stop.store(true, Ordering::Relaxed);
    for producer in producers {
        producer.await.expect("everything is delivered");
    }
    seen.look(broker.url(), &load).await;
    assert!(load.acknowledged.lock().expect("no panic").is_empty(), "all that was acknowledged was found");
    let sent = load.sent.load(Ordering::Relaxed);
    assert_eq!(seen.records.iter().map(Vec::len).sum::<usize>(), sent as usize, "each record is there once");
    assert!(load.retries.load(Ordering::Relaxed) > 0, "answers were lost, and their batches sent again");
    assert!(broker.stop().success(), "the broker stops cleanly");
}

/// What the producers have done.
#[derive(Default)]
struct Load {
    stop: AtomicBool,
    sent: AtomicU32,
    retries: AtomicU64,
    /// Acknowledged and not found yet.
    acknowledged: Mutex<Acknowledged>,
    /// One for each acknowledgement.
    answers: AtomicUsize,
    answered: Notify,
}

impl Load {
    /// Sends numbered records to all partitions in turn until it is stopped, and until all are delivered.
    async fn produce(self: Arc<Load>, name: u32, producer: Producer) {
        let mut deliveries = FuturesOrdered::new();
        for number in 0..u32::MAX {
            let stopped = self.stop.load(Ordering::Relaxed);
            if !stopped {
                let delivery = producer.enqueue(record(name, number)).await.expect("back-pressure waits, it does not fail");
                deliveries.push_back(async move { (value(name, number), delivery.await) });
                self.sent.fetch_add(1, Ordering::Relaxed);
            }
            let wait = stopped || deliveries.len() >= RECORDS_PER_PRODUCER_MAX;
            while let Some((text, place)) = next_answer(&mut deliveries, wait).await {
                self.acknowledged.lock().expect("no panic").insert(placed(place), text);
                self.answers.fetch_add(1, Ordering::Relaxed);
                self.answered.notify_one();
                if !stopped && deliveries.len() < RECORDS_PER_PRODUCER_MAX {
                    break;
                }
            }
            if stopped {
                break;
            }
        }
        self.retries.fetch_add(producer.stats().retries, Ordering::Relaxed);
    }

    /// Waits until so many more are acknowledged.
    async fn acknowledge(&self, count: usize) {
        let until = self.answers.load(Ordering::Relaxed) + count;
        while self.answers.load(Ordering::Relaxed) < until {
            self.answered.notified().await;
        }
    }
}

/// What was found so far: for each partition the producer and the number of every record, by its offset.
#[derive(Default)]
struct Seen {
    records: [Vec<(u32, u32)>; PARTITIONS as usize],
    /// The next number of each producer in each partition.
    next_numbers: HashMap<(u32, u32), u32>,
}

impl Seen {
    /// Reads what came since the last look, and finds what was acknowledged in it.
    async fn look(&mut self, url: &str, load: &Load) {
        let client = Client::connect(url).await.expect("the broker is ready");
        for (partition, records) in (0..PARTITIONS).zip(&mut self.records) {
            let start = Start::Offset(i64::try_from(records.len()).expect("few"));
            let consumer = client.consumer("readings").partitions([partition]).start(start).until_end(true);
            let mut consumer = consumer.build().await.expect("no offset that was seen is lost");
            while let Some(record) = consumer.next().await {
                let ConsumedRecord { offset, value, .. } = record.expect("the broker is up");
                assert_eq!(usize::try_from(offset), Ok(records.len()), "the offsets of partition {partition} have no gap");
                let text = String::from_utf8(value.expect("a value").to_vec()).expect("text");
                let (name, number) = parse(&text);
                let expected = self.next_numbers.entry((partition, name)).or_insert(partition);
                assert_eq!(
                    number, *expected,
                    "partition {partition} offset {offset}: producer {name}, each record once, in order, without a gap"
                );
                *expected += PARTITIONS;
                records.push((name, number));
            }
        }
        // What was acknowledged a moment ago may lie behind the end that was read, and is left for the next look.
        load.acknowledged.lock().expect("no panic").retain(|(partition, offset), text| {
            let found = usize::try_from(*offset).ok().and_then(|offset| self.records[*partition as usize].get(offset));
            assert!(
                found.is_none_or(|found| *found == parse(text)),
                "{text} was acknowledged at {offset} of {partition}, where {found:?} is"
            );
            found.is_none()
        });
    }
}

/// Who sent a record, and its number.
fn parse(text: &str) -> (u32, u32) {
    let (name, number) = text.split_once(':').expect("producer:number");
    (name.parse().expect("a producer"), number.parse().expect("a number"))
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

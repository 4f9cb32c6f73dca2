//! A broker that is stopped and started again as planned, under a producer that is busy: every record is there, once, in its order.

use futures_util::{StreamExt, stream::FuturesUnordered};
use millpond::{Client, CreateTopic, Error, Producer, Record, RecordPlace, Start, TopicConfig};
use millpond_tests::{Broker, Site};
use std::{collections::BTreeMap, sync::Arc};
use tokio::{sync::mpsc, task::JoinHandle};

const RESTARTS: u32 = 10;
const PARTITIONS: u32 = 3;

/// Records that must be acknowledged before the broker is stopped: by then many more are on their way.
const RECORDS_BEFORE_STOP: usize = 3_000;

/// Records that wait for their answers at most.
const RECORDS_IN_FLIGHT_MAX: usize = 20_000;

/// What became of each record of a partition, in the order in which they were sent.
type Outcomes = BTreeMap<(u32, u32), Result<RecordPlace, Error>>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_planned_restart_stores_every_record_once_and_in_order() {
    let (site, outcomes, stats) = produce_through_restarts(true).await;
    for ((partition, number), outcome) in &outcomes {
        assert!(outcome.is_ok(), "record {number} of partition {partition}: {outcome:?}");
    }
    let broker = site.start();
    let stored = read_all(&broker).await;
    for (partition, numbers) in &stored {
        let sent = u32::try_from(outcomes.range((*partition, 0)..(*partition + 1, 0)).count()).expect("far fewer");
        assert!(
            numbers.iter().copied().eq(0..sent),
            "partition {partition}: {sent} records were sent, and there are {}",
            described(numbers)
        );
    }
    assert!(stats.retries > 0, "the stops came while batches were on their way");
    assert!(broker.stop().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_retry_no_record_that_is_stored_is_reported_as_unanswered() {
    let (site, outcomes, _) = produce_through_restarts(false).await;
    let broker = site.start();
    let stored = read_all(&broker).await;
    for (partition, numbers) in &stored {
        assert!(numbers.is_sorted_by(|a, b| a < b), "partition {partition}: once and in order, {}", described(numbers));
    }
    for ((partition, number), outcome) in &outcomes {
        let is_stored = stored[partition].binary_search(number).is_ok();
        match outcome {
            Ok(_) => assert!(is_stored, "record {number} of partition {partition} was acknowledged"),
            Err(error) => {
                assert_eq!(error.code(), "unanswered", "{error}");
                assert!(!is_stored, "record {number} of partition {partition} is stored, and its producer was told: {error}");
            }
        }
    }
    assert!(broker.stop().success());
}

/// Produces while the broker is stopped and started again. Gives the folder of the broker, which is stopped.
async fn produce_through_restarts(retry: bool) -> (Site, Outcomes, millpond::ProducerStats) {
    let site = Site::new();
    let mut broker = site.start();
    let client = Client::connect(broker.url()).await.expect("the broker is ready");
    let topic = CreateTopic { name: "readings".into(), partitions: PARTITIONS, config: TopicConfig::default() };
    client.admin().create_topic(topic).await.expect("the name is free");
    let producer = client.producer("readings").batch_bytes(4 * 1024).retry(retry).build().await.expect("the topic is there");
    let producer = Arc::new(producer);
    let (acknowledged, mut acknowledgements) = mpsc::unbounded_channel();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let producing: Vec<JoinHandle<Outcomes>> = (0..PARTITIONS)
        .map(|partition| tokio::spawn(produce(Arc::clone(&producer), partition, acknowledged.clone(), stopped.clone())))
        .collect();
    for _ in 0..RESTARTS {
        for _ in 0..RECORDS_BEFORE_STOP {
            acknowledgements.recv().await.expect("the producers go on");
        }
        broker = restart(&site, broker).await;
        // Acknowledgements from before the restart say nothing about the broker that runs now.
        while acknowledgements.try_recv().is_ok() {}
    }
    stop.send(true).expect("the producers listen");
    let mut outcomes = Outcomes::new();
    for partition in producing {
        outcomes.extend(partition.await.expect("a producer does not panic"));
    }
    let stats = producer.stats();
    client.close().await;
    assert!(broker.stop().success(), "the broker stops cleanly");
    (site, outcomes, stats)
}

async fn restart(site: &Site, broker: Broker) -> Broker {
    let stopping = tokio::task::spawn_blocking(move || broker.stop());
    assert!(stopping.await.expect("no panic").success(), "the broker stops cleanly");
    tokio::task::block_in_place(|| site.start())
}

/// Sends numbers to a partition, one after another, until it is told to stop, and waits for what becomes of them.
async fn produce(
    producer: Arc<Producer>,
    partition: u32,
    acknowledged: mpsc::UnboundedSender<()>,
    stopped: tokio::sync::watch::Receiver<bool>,
) -> Outcomes {
    let mut outcomes = Outcomes::new();
    let mut deliveries = FuturesUnordered::new();
    let mut number = 0;
    loop {
        if *stopped.borrow() {
            break;
        }
        let record = Record::new(number.to_string()).with_partition(partition);
        let delivery = producer.enqueue(record).await.expect("back-pressure waits, it does not fail");
        deliveries.push(async move { (number, delivery.await) });
        number += 1;
        let full = deliveries.len() >= RECORDS_IN_FLIGHT_MAX / PARTITIONS as usize;
        if full && let Some((number, outcome)) = deliveries.next().await {
            // Nobody listens any more once the last restart is over.
            let _ = outcome.is_ok().then(|| acknowledged.send(()));
            outcomes.insert((partition, number), outcome);
        }
    }
    while let Some((number, outcome)) = deliveries.next().await {
        outcomes.insert((partition, number), outcome);
    }
    outcomes
}

/// The numbers of each partition, in the order in which they are stored.
async fn read_all(broker: &Broker) -> BTreeMap<u32, Vec<u32>> {
    let client = Client::connect(broker.url()).await.expect("the broker is ready");
    let mut consumer = client.consumer("readings").start(Start::Beginning).until_end(true).build().await.expect("the topic is there");
    let mut stored: BTreeMap<u32, Vec<u32>> = (0..PARTITIONS).map(|partition| (partition, Vec::new())).collect();
    while let Some(record) = consumer.next().await {
        let record = record.expect("the broker is up");
        let value = String::from_utf8(record.value.expect("a value").to_vec()).expect("text");
        stored.entry(record.partition).or_default().push(value.parse().expect("a number"));
    }
    client.close().await;
    stored
}

/// How many numbers there are, and the first that is out of its order.
fn described(numbers: &[u32]) -> String {
    let odd = numbers.windows(2).position(|pair| pair[1] != pair[0] + 1);
    let place = odd.map(|at| format!(", {} behind {} at offset {}", numbers[at + 1], numbers[at], at + 1)).unwrap_or_default();
    format!("{} numbers{place}", numbers.len())
}

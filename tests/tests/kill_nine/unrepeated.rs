//! Twenty kills under a producer that sends nothing twice: what was acknowledged is there, and nothing is there twice.

use crate::{
    client, create_topic,
    load::{Acknowledged, Place, Sent, next_answer, sent_in, value},
};
use futures_util::stream::FuturesOrdered;
use millpond::{Client, ConsumedRecord, Producer, Record, Start, TopicConfig};
use millpond_tests::{Broker, Site};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

const KILLS: u32 = 20;

const PARTITIONS: u32 = 3;

const VALUE_BYTES: usize = 100;

/// What had not left when the broker was killed waits so long for another one.
const DELIVERY_TIMEOUT: Duration = Duration::from_millis(500);

/// How many records are in flight at most; far fewer are acknowledged before a kill.
const RECORDS_IN_FLIGHT_MAX: usize = 20_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_retries_every_acknowledged_record_survives_twenty_kills() {
    let site = Site::new();
    let mut random = StdRng::seed_from_u64(0x006d_696c_6c70_6f6e);
    let mut acknowledged = Acknowledged::new();
    for round in 0..KILLS {
        let broker = site.start();
        if round == 0 {
            create_topic(broker.url(), "readings", PARTITIONS, TopicConfig::default()).await;
        }
        let client = client(broker.url()).await;
        let producer = client.producer("readings").retry(false).batch_bytes(8 * 1024).delivery_timeout(DELIVERY_TIMEOUT).build();
        let producer = producer.await.expect("the topic is there");
        let kill_after = random.random_range(1..3000);
        produce_until_killed(&producer, broker, round, kill_after, &mut acknowledged).await;
    }

    let broker = site.start();
    let stored = read_all(&client(broker.url()).await).await;
    assert!(acknowledged.len() > KILLS as usize, "the producer got on: {} acknowledged", acknowledged.len());
    for (place, sent) in &acknowledged {
        assert_eq!(stored.get(place), Some(sent), "partition {} offset {}", place.0, place.1);
    }
    check_order(&stored);
    assert_eq!(stored.values().collect::<BTreeSet<_>>().len(), stored.len(), "nothing was sent twice, so nothing is there twice");
    assert!(broker.stop().success(), "the broker stops cleanly");
}

async fn produce_until_killed(producer: &Producer, broker: Broker, round: u32, kill_after: usize, acknowledged: &mut Acknowledged) {
    let mut broker = Some(broker);
    let mut deliveries = FuturesOrdered::new();
    let mut seen = 0;
    for number in 0..u32::MAX {
        if deliveries.len() < RECORDS_IN_FLIGHT_MAX && broker.is_some() {
            let sent = Sent { name: round, number };
            match producer.enqueue(record(sent)).await {
                Ok(delivery) => deliveries.push_back(async move { (sent, delivery.await) }),
                Err(_) => break,
            }
        }
        // Take what is answered; wait for it only when there is nothing to send.
        while let Some(answered) = next_answer(&mut deliveries, broker.is_none() || number % 512 == 511).await {
            let (sent, Ok(place)) = answered else { continue };
            acknowledged.insert((place.partition, place.offset), sent);
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

async fn read_all(client: &Client) -> Acknowledged {
    let mut consumer = client.consumer("readings").start(Start::Beginning).until_end(true).build().await.expect("the topic is there");
    let mut stored = Acknowledged::new();
    while let Some(found) = consumer.next().await {
        let ConsumedRecord { partition, offset, value, .. } = found.expect("the broker is up");
        let sent = sent_in(value.as_deref().expect("a value"));
        assert_eq!(value, record(sent).value, "partition {partition} offset {offset}");
        assert!(stored.insert((partition, offset), sent).is_none(), "offset {offset} of partition {partition} came twice");
    }
    stored
}

/// The offsets of a partition have no gap. Its records of a round lie in the order in which they were sent, and the rounds follow each other.
#[track_caller]
fn check_order(stored: &Acknowledged) {
    let mut last: HashMap<u32, (Place, Sent)> = HashMap::new();
    for (place, sent) in stored {
        let (partition, offset) = *place;
        match last.insert(partition, (*place, *sent)) {
            None => assert_eq!(offset, 0, "partition {partition} begins with its first record"),
            Some((before, sent_before)) => {
                assert_eq!(offset, before.1 + 1, "the offsets of partition {partition} have no gap");
                assert!(sent_before < *sent, "partition {partition} offset {offset}: {sent:?} lies behind {sent_before:?}");
            }
        }
    }
}

fn record(sent: Sent) -> Record {
    Record::new(value(sent, VALUE_BYTES)).with_partition(sent.number % PARTITIONS)
}

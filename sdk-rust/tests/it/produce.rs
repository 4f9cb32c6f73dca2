//! Producing, while nothing goes wrong.

use crate::support::{FakeBroker, FakeTopic, OnBatch, State, soon};
use futures_util::{FutureExt, future::join_all};
use millpond::{Codec, Fate, Record};
use std::{sync::Arc, time::Duration};

const HOUR: Duration = Duration::from_hours(1);

#[tokio::test]
async fn records_of_a_partition_are_stored_in_order_and_told_where() {
    let broker = FakeBroker::start(1);
    let producer = broker.client().await.producer("readings").batch_bytes(2_000).build().await.unwrap();
    let mut deliveries = Vec::new();
    for number in 0..5_000 {
        deliveries.push(soon(producer.enqueue(Record::new(number.to_string()))).await.unwrap());
    }
    for (offset, place) in (0..).zip(soon(join_all(deliveries)).await) {
        let place = place.unwrap();
        assert_eq!((place.fate, place.partition, place.offset), (Fate::Stored, 0, offset));
    }
    assert_eq!(broker.state.values(0), (0..5_000).map(|number| number.to_string()).collect::<Vec<_>>());
    let stats = producer.stats();
    assert_eq!((stats.records, stats.records_failed, stats.retries, stats.buffered_bytes), (5_000, 0, 0, 0));
    assert!(stats.batches > 10 && stats.ack_latency.count == stats.batches);
}

#[tokio::test]
async fn everything_of_a_record_arrives() {
    let broker = FakeBroker::start(1);
    let producer = broker.client().await.producer("readings").build().await.unwrap();
    let record = Record::new("21.4").with_key("device-7").with_timestamp(-5).with_header("unit", "C").with_header("unit", "F");
    soon(producer.send(record)).await.unwrap();
    soon(producer.send(Record::tombstone("device-7"))).await.unwrap();
    let batches = broker.state.topics.lock()["readings"].partitions[0].clone();
    let stored: Vec<_> = batches.iter().flat_map(|batch| batch.records(1 << 20).unwrap()).map(Result::unwrap).collect();
    assert_eq!((stored[0].timestamp, stored[0].key.as_deref()), (-5, Some(&b"device-7"[..])));
    let headers: Vec<_> = stored[0].headers.iter().map(|(name, value)| (name.to_owned(), value.unwrap())).collect();
    assert_eq!(headers, [("unit".to_owned(), "C".into()), ("unit".to_owned(), "F".into())]);
    assert_eq!(stored[1].value, None);
    assert!(stored[1].timestamp > 1_600_000_000_000, "now");
}

#[tokio::test]
async fn keys_go_where_kafka_puts_them_and_the_record_s_own_partition_counts_more() {
    let broker = FakeBroker::start(5);
    let producer = broker.client().await.producer("readings").build().await.unwrap();
    for key in ["21", "foobar", "abc"] {
        let place = soon(producer.send(Record::new("x").with_key(key))).await.unwrap();
        assert_eq!(place.partition, millpond_protocol::partitioner::for_key(key.as_bytes(), 5));
        let place = soon(producer.send(Record::new("x").with_key(key).with_partition(4))).await.unwrap();
        assert_eq!(place.partition, 4);
    }
    let error = soon(producer.send(Record::new("x").with_partition(5))).await.unwrap_err();
    assert_eq!(error.code(), "partition_out_of_range");
}

#[tokio::test]
async fn records_without_a_key_are_spread_batch_by_batch() {
    let broker = FakeBroker::start(3);
    let producer = broker.client().await.producer("readings").batch_bytes(1_000).build().await.unwrap();
    for number in 0..3_000 {
        drop(soon(producer.enqueue(Record::new(number.to_string()))).await.unwrap());
    }
    soon(producer.flush()).await.unwrap();
    for partition in 0..3 {
        let count = broker.state.values(partition).len();
        assert!((500..=1_500).contains(&count), "{count} in partition {partition}");
    }
    let batches: u64 = producer.stats().batches;
    assert!(batches < 300, "{batches} batches: a batch holds many records");
}

#[tokio::test]
async fn a_compressed_batch_is_stored_as_it_was_sent() {
    let broker = FakeBroker::start(1);
    for codec in Codec::ALL {
        let producer = broker.client().await.producer("readings").compression(codec).linger(HOUR).build().await.unwrap();
        for _ in 0..4_000 {
            drop(soon(producer.enqueue(Record::new("the same text again and again"))).await.unwrap());
        }
        soon(producer.close()).await.unwrap();
        let batch = broker.state.topics.lock()["readings"].partitions[0].last().unwrap().clone();
        assert_eq!(batch.header().attributes.codec().unwrap(), codec);
    }
    assert_eq!(broker.state.values(0).len(), 4_000 * Codec::ALL.len());
}

#[tokio::test]
async fn a_full_buffer_makes_enqueue_wait_and_never_fail() {
    let state = Arc::new(State::new("readings", FakeTopic { max_batch_bytes: 10_000, ..FakeTopic::new(1) }));
    let broker = FakeBroker::start_with(state);
    broker.state.script_batches(vec![OnBatch::StoreWhenLetThrough; 100]);
    let client = broker.client().await;
    let producer = client.producer("readings").batch_bytes(2_000).buffer_bytes(20_000).linger(HOUR).build().await.unwrap();
    let record = || Record::new(vec![b'x'; 1_000]);
    let mut deliveries = Vec::new();
    let waiting = loop {
        let mut enqueue = Box::pin(producer.enqueue(record()));
        match (&mut enqueue).now_or_never() {
            Some(delivery) => deliveries.push(delivery.unwrap()),
            None => break enqueue,
        }
        assert!(deliveries.len() < 100, "the buffer has no end");
    };
    assert!((15..20).contains(&deliveries.len()), "{}", deliveries.len());
    broker.state.gate.add_permits(100);
    deliveries.push(soon(waiting).await.unwrap());
    assert!(soon(join_all(deliveries)).await.into_iter().all(|place| place.is_ok()));
    assert_eq!(producer.stats().buffered_bytes, 0);
}

#[tokio::test]
async fn a_caller_that_gives_up_waiting_for_room_leaves_nothing_behind() {
    let state = Arc::new(State::new("readings", FakeTopic { max_batch_bytes: 5_000, ..FakeTopic::new(1) }));
    let broker = FakeBroker::start_with(state);
    broker.state.script_batches([OnBatch::StoreWhenLetThrough]);
    let producer = broker.client().await.producer("readings").buffer_bytes(1).build().await.unwrap();
    let first = soon(producer.enqueue(Record::new(vec![b'1'; 4_000]))).await.unwrap();
    {
        let second = producer.enqueue(Record::new(vec![b'2'; 4_000]));
        assert!(second.now_or_never().is_none());
    }
    broker.state.gate.add_permits(1);
    soon(first).await.unwrap();
    soon(producer.send(Record::new("3"))).await.unwrap();
    assert_eq!(broker.state.values(0).len(), 2);
}

#[tokio::test]
async fn batches_are_held_back_for_linger_only_while_another_is_in_flight() {
    let broker = FakeBroker::start(1);
    let producer = broker.client().await.producer("readings").linger(HOUR).build().await.unwrap();
    broker.state.script_batches([OnBatch::StoreWhenLetThrough]);
    let first = soon(producer.enqueue(Record::new("first"))).await.unwrap();
    broker.state.arrived(1).await;
    let rest: Vec<_> = {
        let enqueued = (0..10).map(|number| producer.enqueue(Record::new(number.to_string())));
        join_all(enqueued).await.into_iter().map(Result::unwrap).collect()
    };
    assert_eq!(broker.state.arrived.borrow().to_owned(), 1);
    broker.state.gate.add_permits(1);
    soon(first).await.unwrap();
    assert!(soon(join_all(rest)).await.into_iter().all(|place| place.is_ok()));
    assert_eq!(producer.stats().batches, 2, "the ten shared one");
}

#[tokio::test]
async fn no_more_batches_are_in_flight_than_allowed() {
    let broker = FakeBroker::start(1);
    broker.state.script_batches(vec![OnBatch::StoreWhenLetThrough; 10]);
    let client = broker.client().await;
    let producer = client.producer("readings").linger(Duration::ZERO).batch_bytes(100).in_flight(2).build().await.unwrap();
    for _ in 0..10 {
        drop(soon(producer.enqueue(Record::new(vec![b'x'; 100]))).await.unwrap());
    }
    broker.state.arrived(1).await;
    for let_through in 1..=10 {
        broker.state.gate.add_permits(1);
        broker.state.arrived((let_through + 1).min(10)).await;
    }
    soon(producer.close()).await.unwrap();
    assert_eq!(broker.state.values(0).len(), 10);
}

#[tokio::test]
async fn a_record_over_the_topic_s_limit_is_refused_with_the_limit() {
    let state = Arc::new(State::new("readings", FakeTopic { max_batch_bytes: 1_000, ..FakeTopic::new(1) }));
    let broker = FakeBroker::start_with(state);
    let producer = broker.client().await.producer("readings").build().await.unwrap();
    let error = soon(producer.enqueue(Record::new(vec![0; 1_000]))).await.unwrap_err();
    assert_eq!((error.code(), error.retryable()), ("record_too_large", false));
    assert!(error.to_string().contains("batches of up to 1000 bytes"), "{error}");
    // The largest that fits: 61 bytes of header, 11 of the record around the value.
    soon(producer.send(Record::new(vec![0; 1_000 - 61 - 11]))).await.unwrap();
}

#[tokio::test]
async fn where_a_module_places_the_records_the_broker_says_where_each_went() {
    let state = Arc::new(State::new("readings", FakeTopic { placed_by_broker: true, ..FakeTopic::new(4) }));
    let broker = FakeBroker::start_with(state);
    let producer = broker.client().await.producer("readings").build().await.unwrap();
    let keys = ["a", "b", "c", "d", "e"];
    let places = soon(join_all(keys.map(|key| producer.send(Record::new(key).with_key(key))))).await;
    for (key, place) in keys.iter().zip(places) {
        let place = place.unwrap();
        let offset = usize::try_from(place.offset).unwrap();
        assert_eq!(broker.state.values(place.partition as usize)[offset], *key);
    }
    assert_eq!(*broker.state.opened.lock(), [None], "one stream for all partitions");
}

#[tokio::test]
async fn a_change_of_the_topic_is_noticed_and_followed() {
    let broker = FakeBroker::start(3);
    let producer = broker.client().await.producer("readings").build().await.unwrap();
    soon(producer.send(Record::new("x").with_key("a"))).await.unwrap();
    broker.state.with_topic(|topic| {
        topic.placed_by_broker = true;
        topic.epoch += 1;
    });
    soon(async {
        while !broker.state.opened.lock().contains(&None) {
            producer.send(Record::new("x").with_key("a")).await.unwrap();
        }
    })
    .await;
}

#[tokio::test]
async fn flush_sends_what_lingers_and_waits_for_its_answer() {
    let broker = FakeBroker::start(2);
    let producer = broker.client().await.producer("readings").linger(HOUR).build().await.unwrap();
    for number in 0..100_u32 {
        drop(soon(producer.enqueue(Record::new("x").with_partition(number % 2))).await.unwrap());
    }
    soon(producer.flush()).await.unwrap();
    assert_eq!((broker.state.values(0).len(), broker.state.values(1).len()), (50, 50));
    soon(producer.flush()).await.unwrap();
}

#[tokio::test]
async fn a_closed_producer_has_stored_everything_and_takes_nothing_more() {
    let broker = FakeBroker::start(1);
    let producer = broker.client().await.producer("readings").linger(HOUR).build().await.unwrap();
    for _ in 0..10 {
        drop(soon(producer.enqueue(Record::new("x"))).await.unwrap());
    }
    soon(producer.close()).await.unwrap();
    assert_eq!(broker.state.values(0).len(), 10);
    assert_eq!(soon(producer.enqueue(Record::new("x"))).await.unwrap_err().code(), "closed");
    soon(producer.close()).await.unwrap();
}

#[tokio::test]
async fn a_dropped_producer_still_sends_what_it_has() {
    let broker = FakeBroker::start(1);
    let producer = broker.client().await.producer("readings").linger(HOUR).build().await.unwrap();
    let delivery = soon(producer.enqueue(Record::new("x"))).await.unwrap();
    drop(producer);
    soon(delivery).await.unwrap();
}

#[tokio::test]
async fn a_producer_for_a_topic_that_is_not_there_is_not_made() {
    let broker = FakeBroker::start(1);
    let client = broker.client().await;
    assert_eq!(soon(client.producer("missing").build()).await.unwrap_err().code(), "topic_not_found");
    assert_eq!(soon(client.producer("readings").in_flight(0).build()).await.unwrap_err().code(), "invalid_setting");
    assert_eq!(soon(client.producer("readings").buffer_bytes(0).build()).await.unwrap_err().code(), "invalid_setting");
}

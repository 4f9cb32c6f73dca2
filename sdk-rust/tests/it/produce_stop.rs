//! Producing to a broker that stops a stream: what it had read it still answers.

use crate::support::{FakeBroker, FakeTopic, OnBatch, State, soon};
use futures_util::future::join_all;
use millpond::{Client, Delivery, Error, ErrorCode, Producer, Record, WireError};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// A producer each of whose records is a batch.
async fn producer(client: &Client, retry: bool) -> Producer {
    client.producer("readings").batch_bytes(1).linger(Duration::ZERO).retry(retry).build().await.unwrap()
}

async fn enqueue(producer: &Producer, value: &'static str) -> Delivery {
    soon(producer.enqueue(Record::new(value))).await.unwrap()
}

/// The first of three records has arrived at a broker that takes no more on its stream. The producer runs into that with the second one.
async fn stopped(broker: &FakeBroker, client: &Client, producer: &Producer) -> Vec<Delivery> {
    let mut deliveries = vec![enqueue(producer, "first").await];
    broker.state.arrived(1).await;
    // Behind this answer the client knows that the stream was stopped, and behind the next one it has written to it.
    soon(client.admin().broker_info()).await.unwrap();
    deliveries.push(enqueue(producer, "second").await);
    deliveries.push(enqueue(producer, "third").await);
    soon(client.admin().broker_info()).await.unwrap();
    deliveries
}

#[tokio::test]
async fn what_was_taken_before_the_stop_is_answered_and_stored_once() {
    for (retry, then_lose) in [(true, false), (true, true), (false, false), (false, true)] {
        let broker = FakeBroker::start(1);
        broker.state.script_batches([OnBatch::StopFirst { refuse: None, then_lose }]);
        let client = broker.client().await;
        let producer = producer(&client, retry).await;
        let deliveries = stopped(&broker, &client, &producer).await;
        broker.state.gate.add_permits(1);
        let offsets: Vec<_> = soon(join_all(deliveries)).await.into_iter().map(|place| place.unwrap().offset).collect();
        assert_eq!(offsets, [0, 1, 2], "retry {retry}, connection lost {then_lose}");
        assert_eq!(broker.state.values(0), ["first", "second", "third"]);
        assert_eq!(producer.stats().records_resent, 0, "no record can be there twice");
    }
}

#[tokio::test]
async fn the_reason_for_the_stop_reaches_the_record_that_it_is_about() {
    let broker = FakeBroker::start(1);
    let refuse = Some(WireError::new(ErrorCode::FrameTooLarge, "too large").with_hint("send less"));
    broker.state.script_batches([OnBatch::StopFirst { refuse, then_lose: false }]);
    let client = broker.client().await;
    let producer = producer(&client, true).await;
    let deliveries = stopped(&broker, &client, &producer).await;
    broker.state.gate.add_permits(1);
    let places = soon(join_all(deliveries)).await;
    let error = places[0].as_ref().unwrap_err();
    assert_eq!((error.code(), error.hint().as_deref(), error.maybe_done()), ("frame_too_large", Some("send less"), false));
    assert!(places[1..].iter().all(Result::is_ok));
    assert_eq!(broker.state.values(0), ["second", "third"]);
}

#[tokio::test]
async fn an_answer_that_does_not_come_after_a_stop_holds_nothing_up_for_longer_than_a_delivery_may_take() {
    let broker = FakeBroker::start(1);
    broker.state.script_batches([OnBatch::StopFirst { refuse: None, then_lose: false }]);
    let client = broker.client().await;
    let settings = client.producer("readings").batch_bytes(1).linger(Duration::ZERO);
    let producer = settings.delivery_timeout(Duration::from_millis(300)).build().await.unwrap();
    let first = enqueue(&producer, "first").await;
    broker.state.arrived(1).await;
    soon(client.admin().broker_info()).await.unwrap();
    drop(enqueue(&producer, "second").await);
    let error = soon(first).await.unwrap_err();
    assert_eq!((error.code(), error.maybe_done()), ("timed_out", true));
    let third = enqueue(&producer, "third").await;
    assert!(soon(third).await.is_ok(), "on another stream");
}

#[tokio::test]
async fn a_batch_that_may_be_stored_says_so_when_sending_it_again_is_refused() {
    let broker = FakeBroker::start(1);
    let refuse = OnBatch::Refuse(WireError::new(ErrorCode::BatchTooLarge, "it is too large").with_hint("send less"));
    broker.state.script_batches([OnBatch::LoseAfter, refuse.clone(), refuse]);
    let client = broker.client().await;
    let producer = producer(&client, true).await;
    let error = soon(producer.send(Record::new("x"))).await.unwrap_err();
    assert_eq!((error.code(), error.maybe_done(), error.retryable()), ("unanswered", true, false));
    assert!(error.to_string().contains("storing 1 records in readings[0] may or may not have been done"), "{error}");
    assert!(error.to_string().contains("it is too large"), "{error}");
    assert!(error.hint().unwrap().contains("send less"));
    let cause = std::error::Error::source(&error).unwrap();
    assert_eq!(cause.to_string(), "it is too large");
    assert_eq!(broker.state.values(0), ["x"], "it is");
    let error = soon(producer.send(Record::new("y"))).await.unwrap_err();
    assert_eq!((error.code(), error.maybe_done()), ("batch_too_large", false), "was not stored by any try");
}

#[tokio::test]
async fn a_batch_that_may_be_stored_says_so_when_its_topic_is_gone() {
    let broker = FakeBroker::start(1);
    broker.state.script_batches([OnBatch::StoreWhenLetThrough]);
    let producer = producer(&broker.client().await, true).await;
    let delivery = enqueue(&producer, "x").await;
    broker.state.arrived(1).await;
    let stopped = broker.stop().await;
    stopped.state.topics.lock().clear();
    let _broker = stopped.start();
    let error = soon(delivery).await.unwrap_err();
    assert_eq!((error.code(), error.maybe_done(), error.retryable()), ("unanswered", true, false));
    let Error::Unanswered { refused: Some(refused), .. } = error else { panic!("{error}") };
    assert_eq!(refused.code(), "topic_not_found");
}

#[tokio::test]
async fn more_partitions_than_the_broker_allows_streams_are_all_written_to() {
    const PARTITIONS: u32 = 40;
    let state = State { streams_max: 8, ..State::new("readings", FakeTopic::new(PARTITIONS as usize)) };
    let broker = FakeBroker::start_with(Arc::new(state));
    let client = broker.client().await;
    // Two producers, because they share the connection.
    let producers = [producer(&client, true).await, producer(&client, true).await];
    for round in 0..2 {
        let mut deliveries = Vec::new();
        for partition in 0..PARTITIONS {
            for producer in &producers {
                deliveries.push(soon(producer.enqueue(Record::new(round.to_string()).with_partition(partition))).await.unwrap());
            }
        }
        assert!(soon(join_all(deliveries)).await.into_iter().all(|place| place.is_ok()));
    }
    for partition in 0..PARTITIONS as usize {
        assert_eq!(broker.state.values(partition), ["0", "0", "1", "1"]);
    }
}

#[tokio::test]
async fn requests_and_consumers_get_a_stream_from_partitions_that_rest() {
    const PARTITIONS: u32 = 8;
    let state = State { streams_max: 8, ..State::new("readings", FakeTopic::new(PARTITIONS as usize)) };
    let broker = FakeBroker::start_with(Arc::new(state));
    let client = broker.client().await;
    let producer = producer(&client, true).await;
    let begun = Instant::now();
    for partition in 0..PARTITIONS {
        soon(producer.send(Record::new("x").with_partition(partition))).await.unwrap();
    }
    soon(client.admin().broker_info()).await.unwrap();
    let start = millpond::Start::Beginning;
    let mut consumer = soon(client.consumer("readings").partition(3).start(start).build()).await.unwrap();
    assert_eq!(soon(consumer.next()).await.unwrap().unwrap().partition, 3);
    assert!(begun.elapsed() < Duration::from_secs(9), "not only because a stream that rests ends after ten seconds in any case");
}

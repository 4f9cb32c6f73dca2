//! Producing, while everything goes wrong.

use crate::support::{FakeBroker, OnBatch, soon};
use futures_util::future::join_all;
use millpond::{Codec, Error, ErrorCode, Producer, Record, RecordPlace, WireError};
use std::time::Duration;

const HOUR: Duration = Duration::from_hours(1);

/// Sends these numbers, ten to a batch, and returns what became of each.
async fn send(producer: &Producer, numbers: std::ops::Range<u32>) -> Vec<Result<RecordPlace, Error>> {
    let mut deliveries = Vec::new();
    for number in numbers {
        deliveries.push(soon(producer.enqueue(Record::new(format!("{number:03}")))).await.unwrap());
    }
    soon(join_all(deliveries)).await
}

/// A producer whose batches hold ten of the records above.
async fn producer(broker: &FakeBroker) -> Producer {
    builder(broker).await.build().await.unwrap()
}

async fn builder(broker: &FakeBroker) -> millpond::ProducerBuilder {
    broker.client().await.producer("readings").batch_bytes(61 + 9 * 10 + 24).linger(HOUR)
}

fn numbers(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|number| format!("{number:03}")).collect()
}

fn refusal(code: ErrorCode) -> OnBatch {
    OnBatch::Refuse(WireError::new(code, "no").with_hint("because"))
}

#[tokio::test]
async fn a_batch_that_was_not_stored_is_sent_again_after_a_loss() {
    for lost in [OnBatch::LoseBefore, OnBatch::ResetStream] {
        let broker = FakeBroker::start(1);
        broker.state.script_batches([OnBatch::Store, OnBatch::Store, lost]);
        let producer = builder(&broker).await.in_flight(1).build().await.unwrap();
        let places = send(&producer, 0..200).await;
        let offsets: Vec<i64> = places.into_iter().map(|place| place.unwrap().offset).collect();
        assert_eq!(offsets, (0..200).collect::<Vec<i64>>());
        assert_eq!(broker.state.values(0), numbers(0..200), "each once, in order");
        assert_eq!(producer.stats().retries, 1);
    }
}

#[tokio::test]
async fn after_many_losses_with_many_in_flight_nothing_is_missing_or_out_of_order() {
    let broker = FakeBroker::start(1);
    let script = (0..70).map(|number| match number {
        12 => OnBatch::LoseBefore,
        24 | 50 => OnBatch::LoseAfter,
        36 | 38 => OnBatch::ResetStream,
        _ => OnBatch::Store,
    });
    broker.state.script_batches(script);
    let producer = producer(&broker).await;
    let places = send(&producer, 0..900).await;
    let stored = broker.state.values(0);
    for (offset, place) in (0..).zip(places) {
        assert_eq!(place.unwrap().offset, offset, "it is where the answer says");
    }
    assert_eq!(stored, numbers(0..900), "each once, in order");
}

#[tokio::test]
async fn a_broker_that_restarts_loses_nothing() {
    let broker = FakeBroker::start(1);
    broker.state.script_batches([OnBatch::Store, OnBatch::StoreWhenLetThrough]);
    let producer = producer(&broker).await;
    let sending = async {
        let places = send(&producer, 0..300).await;
        assert!(places.into_iter().all(|place| place.is_ok()));
    };
    let restarting = async {
        broker.state.arrived(2).await;
        // The second batch hangs in the broker that stops; the third never gets there.
        broker.stop().await.start()
    };
    let ((), broker) = soon(async { tokio::join!(sending, restarting) }).await;
    assert_eq!(broker.state.values(0), numbers(0..300), "each once, in order");
    assert_eq!(broker.state.connections(), 2);
}

#[tokio::test]
async fn without_retry_nothing_is_sent_twice_and_the_lost_ones_are_told() {
    let broker = FakeBroker::start(1);
    broker.state.script_batches([OnBatch::Store, OnBatch::LoseBefore]);
    let producer = builder(&broker).await.retry(false).in_flight(1).build().await.unwrap();
    let places = send(&producer, 0..100).await;
    let (stored, lost): (Vec<_>, Vec<_>) = places.iter().partition(|place| place.is_ok());
    assert!(!lost.is_empty() && stored.len() + lost.len() == 100);
    for error in lost {
        let error = error.as_ref().unwrap_err();
        assert_eq!((error.code(), error.retryable(), error.maybe_done()), ("unanswered", true, true));
        assert!(error.to_string().contains("records in readings[0] may or may not have been done"), "{error}");
    }
    assert_eq!(broker.state.values(0).len(), stored.len());
    assert_eq!(producer.stats().retries, 0);
    // Those behind the lost batch were never sent, and are.
    assert!(broker.state.values(0).contains(&"099".to_owned()));
}

#[tokio::test]
async fn an_error_in_the_middle_fails_its_own_batch_alone() {
    let broker = FakeBroker::start(1);
    broker.state.script_batches([OnBatch::Store, refusal(ErrorCode::GuestFailed)]);
    let producer = producer(&broker).await;
    let places = send(&producer, 0..100).await;
    let failed: Vec<&Error> = places.iter().filter_map(|place| place.as_ref().err()).collect();
    assert!(!failed.is_empty() && failed.len() < 100);
    for error in &failed {
        assert_eq!((error.code(), error.hint().as_deref(), error.maybe_done()), ("guest_failed", Some("because"), false));
    }
    assert_eq!(broker.state.values(0).len(), 100 - failed.len());
    assert_eq!(producer.stats().records_failed, failed.len() as u64);
    // Everybody has heard of it.
    soon(producer.flush()).await.unwrap();
}

#[tokio::test]
async fn what_failed_and_nobody_looked_at_is_told_by_flush_once() {
    let broker = FakeBroker::start(1);
    broker.state.script_batches([refusal(ErrorCode::GuestFailed)]);
    let producer = producer(&broker).await;
    drop(producer.enqueue(Record::new("x")).await.unwrap());
    assert_eq!(soon(producer.flush()).await.unwrap_err().code(), "guest_failed");
    soon(producer.flush()).await.unwrap();
}

#[tokio::test]
async fn a_batch_that_the_broker_put_off_is_sent_again_and_keeps_its_place_with_one_in_flight() {
    let broker = FakeBroker::start(1);
    broker.state.script_batches([OnBatch::Store, refusal(ErrorCode::StorageFull), refusal(ErrorCode::Overloaded)]);
    let producer = builder(&broker).await.in_flight(1).build().await.unwrap();
    assert!(send(&producer, 0..100).await.into_iter().all(|place| place.is_ok()));
    assert_eq!(broker.state.values(0), numbers(0..100));
    assert_eq!(producer.stats().retries, 2);
}

#[tokio::test]
async fn without_retry_a_batch_that_the_broker_put_off_fails() {
    let broker = FakeBroker::start(1);
    broker.state.script_batches([refusal(ErrorCode::Overloaded)]);
    let producer = builder(&broker).await.retry(false).build().await.unwrap();
    let error = soon(producer.send(Record::new("x"))).await.unwrap_err();
    assert_eq!((error.code(), error.retryable(), error.maybe_done()), ("overloaded", true, false));
    soon(producer.send(Record::new("x"))).await.unwrap();
}

#[tokio::test]
async fn a_broker_that_breaks_the_protocol_fails_what_is_in_flight_and_the_producer_goes_on() {
    let broker = FakeBroker::start(1);
    broker.state.script_batches([OnBatch::AnswerNonsense]);
    let producer = producer(&broker).await;
    let error = soon(producer.send(Record::new("x"))).await.unwrap_err();
    assert_eq!((error.code(), error.retryable()), ("protocol_violation", false));
    soon(producer.send(Record::new("y"))).await.unwrap();
    assert_eq!(broker.state.values(0), ["y"]);
}

#[tokio::test]
async fn a_batch_that_is_never_answered_is_given_up_as_maybe_stored() {
    let broker = FakeBroker::start(1);
    broker.state.script_batches([OnBatch::StoreWhenLetThrough]);
    let producer = builder(&broker).await.delivery_timeout(Duration::from_millis(100)).build().await.unwrap();
    let error = soon(producer.send(Record::new("x"))).await.unwrap_err();
    assert_eq!((error.code(), error.maybe_done()), ("timed_out", true));
    assert_eq!(producer.stats().buffered_bytes, 0, "its room is free");
    // Its late answer does not confuse the next one's.
    broker.state.gate.add_permits(1);
    let place = soon(producer.send(Record::new("y"))).await.unwrap();
    assert_eq!(place.offset, 1);
}

#[tokio::test]
async fn records_that_could_not_be_sent_in_time_are_certainly_not_stored() {
    let broker = FakeBroker::start(1);
    let client = broker.client().await;
    let producer = client.producer("readings").delivery_timeout(Duration::from_millis(300)).build().await.unwrap();
    let stopped = broker.stop().await;
    let error = soon(producer.send(Record::new("x"))).await.unwrap_err();
    assert_eq!((error.code(), error.maybe_done(), error.retryable()), ("timed_out", false, true));
    assert!(error.to_string().contains("storing 1 records in readings[0] took longer than 300ms; it was not done"), "{error}");
    assert!(error.hint().unwrap().contains("millpond serve"), "the hint of what went wrong last");
    let broker = stopped.start();
    let patient = soon(client.producer("readings").build()).await.unwrap();
    soon(patient.send(Record::new("y"))).await.unwrap();
    assert_eq!(broker.state.values(0), ["y"]);
}

#[tokio::test]
async fn a_topic_that_was_deleted_fails_everything_that_waits_for_it() {
    let broker = FakeBroker::start(1);
    let producer = producer(&broker).await;
    let topic = broker.state.topics.lock().remove("readings").unwrap();
    for place in send(&producer, 0..30).await {
        assert_eq!(place.unwrap_err().code(), "topic_not_found");
    }
    broker.state.topics.lock().insert("readings".to_owned(), topic);
    soon(producer.send(Record::new("x"))).await.unwrap();
}

#[tokio::test]
async fn a_client_that_is_closed_fails_what_waits() {
    let broker = FakeBroker::start(1);
    broker.state.script_batches([OnBatch::StoreWhenLetThrough]);
    let client = broker.client().await;
    let producer = client.producer("readings").build().await.unwrap();
    let delivery = soon(producer.enqueue(Record::new("x"))).await.unwrap();
    broker.state.arrived(1).await;
    soon(client.close()).await;
    assert_eq!(soon(delivery).await.unwrap_err().code(), "unanswered");
    assert_eq!(soon(producer.send(Record::new("x"))).await.unwrap_err().code(), "closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn compressed_batches_survive_losses_in_their_order() {
    let broker = FakeBroker::start(1);
    let script = (0..40).map(|number| if number % 7 == 3 { OnBatch::LoseBefore } else { OnBatch::Store });
    broker.state.script_batches(script);
    let client = broker.client().await;
    let producer = client.producer("readings").compression(Codec::Lz4).batch_bytes(20_000).build().await.unwrap();
    let text = |number: u32| format!("{number:05}{}", "x".repeat(100));
    for number in 0..20_000 {
        drop(soon(producer.enqueue(Record::new(text(number)))).await.unwrap());
    }
    soon(producer.close()).await.unwrap();
    assert_eq!(broker.state.values(0), (0..20_000).map(text).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_batch_that_is_put_off_until_it_is_too_late_says_why() {
    let broker = FakeBroker::start(1);
    broker.state.script_batches(std::iter::repeat_with(|| refusal(ErrorCode::StorageFull)).take(1_000));
    let producer = builder(&broker).await.delivery_timeout(Duration::from_millis(500)).build().await.unwrap();
    let error = send(&producer, 0..1).await.remove(0).unwrap_err();
    assert_eq!((error.code(), error.hint().as_deref()), ("timed_out", Some("because")));
    assert!(matches!(&error, Error::TimedOut { last: Some(last), .. } if last.code() == ErrorCode::StorageFull.name()), "{error:?}");
}

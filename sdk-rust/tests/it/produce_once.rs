//! Idempotent producers (KIP-98, KIP-360): whatever is sent again is stored once and in its place, or its records are told.

use crate::support::{FakeBroker, FakeTopic, OnBatch, State, soon};
use futures_util::future::join_all;
use millpond::{Error, ErrorCode, Producer, ProducerBuilder, Record, RecordPlace, WireError};
use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

/// A producer each of whose records is a batch.
async fn builder(broker: &FakeBroker) -> ProducerBuilder {
    broker.client().await.producer("readings").batch_bytes(1).linger(Duration::ZERO)
}

async fn producer(broker: &FakeBroker) -> Producer {
    builder(broker).await.build().await.unwrap()
}

/// Sends these, one behind the other without waiting for answers, and returns what became of each.
async fn send<V: ToString>(producer: &Producer, values: impl IntoIterator<Item = V>) -> Vec<Result<RecordPlace, Error>> {
    let mut deliveries = Vec::new();
    for value in values {
        deliveries.push(soon(producer.enqueue(Record::new(value.to_string()))).await.unwrap());
    }
    soon(join_all(deliveries)).await
}

async fn send_one(producer: &Producer, value: &'static str) -> Result<RecordPlace, Error> {
    soon(producer.send(Record::new(value))).await
}

fn texts(numbers: std::ops::Range<u32>) -> Vec<String> {
    numbers.map(|number| number.to_string()).collect()
}

fn refusal(code: ErrorCode) -> OnBatch {
    OnBatch::Refuse(WireError::new(code, "no"))
}

#[tokio::test]
async fn a_batch_whose_answer_was_lost_is_stored_once_and_told_where() {
    let broker = FakeBroker::start(1);
    broker.state.script_batches([OnBatch::Store, OnBatch::LoseAfter]);
    let producer = producer(&broker).await;
    assert_eq!(send_one(&producer, "a").await.unwrap().append_time_ms, Some(1));
    let place = send_one(&producer, "b").await.unwrap();
    assert_eq!((place.offset, place.append_time_ms), (1, None), "when that was is not known any more");
    assert_eq!(send_one(&producer, "c").await.unwrap().offset, 2);
    assert_eq!(broker.state.values(0), ["a", "b", "c"]);
    assert_eq!(broker.state.numbers(0), [(1, 0, 0), (1, 0, 1), (1, 0, 2)], "the id is kept over the loss, whatever the new stream brings");
    assert_eq!((producer.stats().records_resent, producer.stats().records), (1, 3));
}

#[tokio::test]
async fn records_that_the_broker_places_are_stored_once_too() {
    let broker = FakeBroker::start_with(Arc::new(State::new("readings", FakeTopic { placed_by_broker: true, ..FakeTopic::new(4) })));
    broker.state.script_batches([OnBatch::LoseAfter, OnBatch::Store, OnBatch::LoseAfter]);
    let producer = producer(&broker).await;
    for key in ["a", "b", "c", "d"] {
        let place = soon(producer.send(Record::new(key).with_key(key))).await.unwrap();
        assert_eq!(broker.state.values(place.partition as usize)[usize::try_from(place.offset).unwrap()], key);
    }
    assert_eq!((0..4).map(|partition| broker.state.values(partition).len()).sum::<usize>(), 4);
}

#[tokio::test]
async fn a_broker_that_gives_no_ids_and_a_producer_that_wants_none_go_without_numbers() {
    for (next_producer_id, idempotence) in [(i64::MIN, true), (1, false)] {
        let broker = FakeBroker::start(1);
        broker.state.next_producer_id.store(next_producer_id, Ordering::SeqCst);
        broker.state.script_batches([OnBatch::LoseAfter]);
        let producer = builder(&broker).await.idempotence(idempotence).build().await.unwrap();
        assert_eq!(send_one(&producer, "0").await.unwrap().offset, 1);
        assert_eq!(broker.state.values(0), ["0", "0"], "at least once");
        assert_eq!(broker.state.numbers(0), [(-1, -1, -1); 2]);
    }
}

#[tokio::test]
async fn every_partition_is_numbered_by_itself() {
    let broker = FakeBroker::start(2);
    let producer = producer(&broker).await;
    for partition in [0, 1, 0] {
        soon(producer.send(Record::new("x").with_partition(partition))).await.unwrap();
    }
    assert_eq!((broker.state.numbers(0), broker.state.numbers(1)), (vec![(1, 0, 0), (1, 0, 1)], vec![(2, 0, 0)]));
}

#[tokio::test]
async fn a_batch_that_the_broker_put_off_keeps_its_place_with_five_in_flight() {
    let broker = FakeBroker::start(1);
    let script = [OnBatch::Store, OnBatch::StoreWhenLetThrough, refusal(ErrorCode::StorageFull)];
    broker.state.script_batches(script);
    let client = broker.client().await;
    let producer = client.producer("readings").batch_bytes(1).linger(Duration::ZERO).build().await.unwrap();
    let sending = send(&producer, 0..40);
    let letting = async {
        // The one that is put off has others behind it in flight by the time that it is answered.
        broker.state.arrived(2).await;
        soon(client.admin().broker_info()).await.unwrap();
        broker.state.gate.add_permits(1);
    };
    let (places, ()) = tokio::join!(sending, letting);
    let offsets: Vec<i64> = places.into_iter().map(|place| place.unwrap().offset).collect();
    assert_eq!(offsets, (0..40).collect::<Vec<i64>>());
    assert_eq!(broker.state.values(0), texts(0..40));
    assert!(broker.state.numbers(0).iter().all(|(id, epoch, _)| (*id, *epoch) == (1, 0)), "what is sent again keeps its numbers");
    assert!(producer.stats().retries <= 5 && producer.stats().records_failed == 0);
}

#[tokio::test]
async fn through_every_loss_and_every_refusal_each_record_is_stored_once_and_in_order() {
    const RECORDS: u32 = 600;
    let broker = FakeBroker::start(1);
    let script = (0..RECORDS).map(|number| match number % 61 {
        7 | 8 => OnBatch::LoseAfter,
        19 => OnBatch::LoseBefore,
        31 => OnBatch::ResetStream,
        43 if number < 200 => refusal(ErrorCode::Overloaded),
        44 if number > 400 => refusal(ErrorCode::TimedOut),
        _ => OnBatch::Store,
    });
    broker.state.script_batches(script);
    let producer = producer(&broker).await;
    let places = send(&producer, 0..RECORDS).await;
    for (offset, place) in (0..).zip(places) {
        assert_eq!(place.unwrap().offset, offset);
    }
    assert_eq!(broker.state.values(0), texts(0..RECORDS));
}

#[tokio::test]
async fn behind_a_batch_that_was_refused_for_good_the_numbers_begin_anew_without_a_round_trip() {
    let broker = FakeBroker::start(1);
    broker.state.script_batches([OnBatch::Store, refusal(ErrorCode::GuestFailed)]);
    let producer = producer(&broker).await;
    send_one(&producer, "a").await.unwrap();
    assert_eq!(send_one(&producer, "b").await.unwrap_err().code(), "guest_failed");
    send_one(&producer, "c").await.unwrap();
    assert_eq!((broker.state.values(0), broker.state.numbers(0)), (vec!["a".into(), "c".into()], vec![(1, 0, 0), (1, 1, 0)]));
    assert_eq!(producer.stats().retries, 0);
}

#[tokio::test]
async fn those_in_flight_behind_a_batch_that_failed_are_stored_all_the_same_and_in_order() {
    for (code, retry) in [(ErrorCode::GuestFailed, true), (ErrorCode::Overloaded, false)] {
        let broker = FakeBroker::start(1);
        broker.state.script_batches([OnBatch::Store, OnBatch::StoreWhenLetThrough, refusal(code)]);
        let client = broker.client().await;
        let producer = client.producer("readings").batch_bytes(1).linger(Duration::ZERO).retry(retry).build().await.unwrap();
        let letting = async {
            broker.state.arrived(2).await;
            soon(client.admin().broker_info()).await.unwrap();
            broker.state.gate.add_permits(1);
        };
        let (places, ()) = tokio::join!(send(&producer, 0..20), letting);
        let stored: Vec<bool> = places.iter().map(Result::is_ok).collect();
        assert_eq!(stored, (0..20).map(|number| number != 2).collect::<Vec<_>>(), "only the third fails");
        assert_eq!(places[2].as_ref().unwrap_err().code(), code.name());
        assert_eq!(broker.state.values(0), [texts(0..2), texts(3..20)].concat());
    }
}

#[tokio::test]
async fn a_broker_that_lost_its_newest_records_with_the_power_gets_what_comes_next() {
    for lost in 1..=3 {
        let broker = FakeBroker::start(1);
        let producer = producer(&broker).await;
        for value in ["a", "b", "c"] {
            send_one(&producer, value).await.unwrap();
        }
        let stopped = broker.stop().await;
        stopped.state.with_topic(|topic| topic.lose_newest(0, lost));
        let broker = stopped.start();
        let kept = 3 - lost;
        assert_eq!(send_one(&producer, "d").await.unwrap().offset, i64::try_from(kept).unwrap());
        assert_eq!(send_one(&producer, "e").await.unwrap().offset, i64::try_from(kept).unwrap() + 1);
        assert_eq!(broker.state.numbers(0)[kept..], [(1, 1, 0), (1, 1, 1)], "numbered anew, {lost} lost");
    }
}

#[tokio::test]
async fn what_may_be_stored_is_not_sent_under_other_numbers_to_a_broker_that_forgot_the_producer() {
    let broker = FakeBroker::start(1);
    broker.state.script_batches([OnBatch::Store, OnBatch::StoreWhenLetThrough]);
    let producer = producer(&broker).await;
    send_one(&producer, "a").await.unwrap();
    let undecided = soon(producer.enqueue(Record::new("b"))).await.unwrap();
    broker.state.arrived(2).await;
    let stopped = broker.stop().await;
    stopped.state.with_topic(|topic| topic.sequences.clear());
    let broker = stopped.start();
    let behind = soon(producer.enqueue(Record::new("c"))).await.unwrap();
    let error = soon(undecided).await.unwrap_err();
    assert_eq!((error.code(), error.maybe_done(), error.retryable()), ("unanswered", true, false));
    let Error::Unanswered { refused: Some(refused), .. } = error else { panic!("{error}") };
    assert_eq!(refused.code(), "unknown_producer_id");
    assert_eq!(soon(behind).await.unwrap().offset, 1);
    assert_eq!((broker.state.values(0), broker.state.numbers(0)), (vec!["a".into(), "c".into()], vec![(1, 0, 0), (1, 1, 0)]));
}

#[tokio::test]
async fn a_producer_that_was_forgotten_while_it_rested_goes_on() {
    let broker = FakeBroker::start(1);
    let producer = producer(&broker).await;
    send_one(&producer, "a").await.unwrap();
    broker.state.with_topic(|topic| topic.sequences.clear());
    assert!(send(&producer, ["b", "c", "d"]).await.into_iter().all(|place| place.is_ok()));
    assert_eq!(broker.state.values(0), ["a", "b", "c", "d"]);
    assert_eq!(broker.state.numbers(0), [(1, 0, 0), (1, 1, 0), (1, 1, 1), (1, 1, 2)]);
}

#[tokio::test]
async fn a_batch_that_was_stored_too_long_ago_to_say_where_fails_as_undecided() {
    let broker = FakeBroker::start(1);
    broker.state.script_batches([refusal(ErrorCode::DuplicateSequence)]);
    let producer = producer(&broker).await;
    let error = send_one(&producer, "a").await.unwrap_err();
    assert_eq!((error.code(), error.maybe_done(), error.retryable()), ("unanswered", true, false));
    let Error::Unanswered { refused: Some(refused), .. } = error else { panic!("{error}") };
    assert_eq!(refused.code(), "duplicate_sequence");
    send_one(&producer, "b").await.unwrap();
}

#[tokio::test]
async fn another_producer_with_the_same_id_is_told_and_the_next_records_go_under_another_id() {
    let broker = FakeBroker::start(1);
    broker.state.script_batches([OnBatch::Store, refusal(ErrorCode::InvalidProducerEpoch)]);
    let producer = producer(&broker).await;
    send_one(&producer, "a").await.unwrap();
    let error = send_one(&producer, "b").await.unwrap_err();
    assert_eq!((error.code(), error.maybe_done(), error.retryable()), ("invalid_producer_epoch", false, false));
    assert!(error.hint().unwrap().contains("another producer has the same producer id"));
    send_one(&producer, "c").await.unwrap();
    assert_eq!((broker.state.values(0), broker.state.numbers(0)), (vec!["a".into(), "c".into()], vec![(1, 0, 0), (2, 0, 0)]));
}

#[tokio::test]
async fn more_in_flight_than_a_broker_remembers_takes_a_producer_without_numbers() {
    let broker = FakeBroker::start(1);
    let error = builder(&broker).await.in_flight(6).build().await.unwrap_err();
    assert_eq!(error.code(), "invalid_setting");
    assert!(error.to_string().contains("turn it off with idempotence(false)"), "{error}");
    let producer = builder(&broker).await.idempotence(false).in_flight(6).build().await.unwrap();
    send_one(&producer, "a").await.unwrap();
}

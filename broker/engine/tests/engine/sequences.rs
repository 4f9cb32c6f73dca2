//! Producers that number their batches: nothing is stored twice, out of order or with a gap, whatever is sent again.

use crate::broker::{Broker, NOW_MS};
use bytes::Bytes;
use futures_util::FutureExt;
use millpond_engine::{Answer, EngineError, ProduceStream};
use millpond_log::sim::{Fault, Operation};
use millpond_protocol::{
    batch::BatchBuilder,
    compression::Codec,
    error::ErrorCode,
    message::{Ack, OpenProduce, Placements},
    record::NewRecord,
};
use std::collections::{BTreeMap, BTreeSet};

const PRODUCER: i64 = 4_711;

/// A batch of records without keys, numbered from `base_sequence` on.
fn numbered(epoch: i16, base_sequence: i32, values: &[&str]) -> Bytes {
    keyed(epoch, base_sequence, &values.iter().map(|value| (None, *value)).collect::<Vec<_>>())
}

pub(crate) fn keyed(epoch: i16, base_sequence: i32, records: &[(Option<&str>, &str)]) -> Bytes {
    let mut builder = BatchBuilder::new();
    for (key, value) in records {
        let record = NewRecord { timestamp: NOW_MS, key: key.map(str::as_bytes), value: Some(value.as_bytes()), headers: &[] };
        builder.push(&record).expect("it fits");
    }
    builder.set_producer(PRODUCER, epoch, base_sequence);
    builder.finish(Codec::None).expect("it has records")
}

async fn send(broker: &Broker, stream: &mut ProduceStream, batch: Bytes) -> Result<Ack, EngineError> {
    match broker.submit(stream, batch).await.await? {
        Answer::Ack(ack) => Ok(ack),
        Answer::Placements(placements) => panic!("an ack was expected, not {placements:?}"),
    }
}

pub(crate) async fn place(broker: &Broker, stream: &mut ProduceStream, batch: Bytes) -> Result<Placements, EngineError> {
    match broker.submit(stream, batch).await.await? {
        Answer::Placements(placements) => Ok(placements),
        Answer::Ack(ack) => panic!("placements were expected, not {ack:?}"),
    }
}

pub(crate) fn code<T: std::fmt::Debug>(result: Result<T, EngineError>) -> ErrorCode {
    let error = result.expect_err("it is refused");
    assert!(error.hint().is_some(), "{error:?}");
    error.code()
}

#[tokio::test]
async fn each_stream_offers_an_id_that_no_other_one_has() {
    let (broker, _) = Broker::simulated().await;
    broker.topic("t", 1, "sync").await;
    let open = || broker.engine.open_produce(&OpenProduce { topic: "t".to_owned(), partition: Some(0) }).expect("it opens").1;
    let ids: BTreeSet<i64> = (0..100).map(|_| open().producer_id.expect("it is offered")).collect();
    assert!(ids.len() == 100 && ids.first() >= Some(&0));
}

#[tokio::test]
async fn a_batch_that_is_sent_again_gets_the_offsets_of_the_first_time() {
    for durability in ["sync", "os", "interval:3600s"] {
        let (broker, _) = Broker::simulated().await;
        broker.topic("t", 1, durability).await;
        let mut first = broker.producer("t", Some(0));
        let mut acks = Vec::new();
        for number in 0..5 {
            acks.push(send(&broker, &mut first, numbered(0, 2 * number, &["a", "b"])).await.expect("it is stored"));
        }
        broker.clock.pass(1_000);
        let mut second = broker.producer("t", Some(0));
        for (number, ack) in (0..5).zip(&acks) {
            assert_eq!(&send(&broker, &mut second, numbered(0, 2 * number, &["a", "b"])).await.expect("it was stored"), ack);
        }
        assert_eq!(send(&broker, &mut second, numbered(0, 10, &["c"])).await.expect("it goes on").base_offset, 10);
        assert_eq!(broker.read_all("t", 0).await.len(), 11, "{durability}");
    }
}

#[tokio::test]
async fn a_restart_forgets_nothing() {
    let (broker, _) = Broker::simulated().await;
    broker.topic("t", 1, "sync").await;
    let mut stream = broker.producer("t", Some(0));
    send(&broker, &mut stream, numbered(0, 0, &["a"])).await.expect("it is stored");
    send(&broker, &mut stream, numbered(0, 1, &["b", "c"])).await.expect("it is stored");
    drop(stream);
    let broker = broker.restart().await;
    let mut stream = broker.producer("t", Some(0));
    let again = send(&broker, &mut stream, numbered(0, 1, &["b", "c"])).await.expect("it was stored");
    assert_eq!((again.base_offset, again.last_offset), (1, 2));
    assert_eq!(code(send(&broker, &mut stream, numbered(0, 4, &["e"])).await), ErrorCode::OutOfOrderSequence);
    assert_eq!(send(&broker, &mut stream, numbered(0, 3, &["d"])).await.expect("it goes on").base_offset, 3);
}

#[tokio::test]
async fn a_gap_an_old_epoch_an_unknown_producer_and_an_old_repetition_have_errors_of_their_own() {
    let (broker, _) = Broker::simulated().await;
    broker.topic("t", 1, "sync").await;
    let mut stream = broker.producer("t", Some(0));
    assert_eq!(code(send(&broker, &mut stream, numbered(0, 7, &["a"])).await), ErrorCode::UnknownProducerId);
    for number in 0..7 {
        send(&broker, &mut stream, numbered(3, number, &["a"])).await.expect("it is stored");
    }
    assert_eq!(code(send(&broker, &mut stream, numbered(3, 8, &["a"])).await), ErrorCode::OutOfOrderSequence);
    assert_eq!(code(send(&broker, &mut stream, numbered(2, 7, &["a"])).await), ErrorCode::InvalidProducerEpoch);
    assert_eq!(code(send(&broker, &mut stream, numbered(3, 1, &["a"])).await), ErrorCode::DuplicateSequence);
    assert_eq!(code(send(&broker, &mut stream, numbered(4, 7, &["a"])).await), ErrorCode::OutOfOrderSequence);
    assert_eq!(send(&broker, &mut stream, numbered(4, 0, &["a"])).await.expect("a new epoch begins with 0").base_offset, 7);
    assert_eq!(broker.read_all("t", 0).await.len(), 8, "nothing of what was refused is stored");
}

#[tokio::test]
async fn behind_a_batch_that_was_refused_nothing_is_taken_until_it_comes_again() {
    let (broker, disk, gate) = Broker::gated().await;
    broker.topic("t", 1, "sync").await;
    let mut stream = broker.producer("t", Some(0));
    send(&broker, &mut stream, numbered(0, 0, &["0"])).await.expect("it is stored");
    // One run for each: the disk is full for the first of them only.
    disk.fail(Operation::Write, 1, Fault::NoSpace);
    let mut answers = Vec::new();
    for (number, value) in (1..5).zip(["1", "2", "3", "4"]) {
        answers.push(broker.submit(&mut stream, numbered(0, number, &[value])).await);
    }
    let mut codes = Vec::new();
    for answer in answers {
        codes.push(code(answer.await));
    }
    assert_eq!(codes[0], ErrorCode::StorageFull);
    // Those that shared its run share its error, whatever comes later has a gap in front of it.
    assert!(codes.iter().all(|code| matches!(code, ErrorCode::StorageFull | ErrorCode::OutOfOrderSequence)), "{codes:?}");
    for (number, value) in (1..5).zip(["1", "2", "3", "4"]) {
        send(&broker, &mut stream, numbered(0, number, &[value])).await.expect("there is room again");
    }
    assert_eq!(broker.values("t", 0).await, ["0", "1", "2", "3", "4"]);
    drop(gate);
}

#[tokio::test]
async fn a_repetition_waits_for_the_flush_that_the_first_one_waits_for() {
    let (broker, _, disk) = Broker::gated().await;
    broker.topic("t", 1, "sync").await;
    let (mut first, mut second) = (broker.producer("t", Some(0)), broker.producer("t", Some(0)));
    disk.syncs.shut();
    let mut one = broker.submit(&mut first, numbered(0, 0, &["a"])).await;
    disk.syncs.arrived(1).await;
    let mut again = broker.submit(&mut second, numbered(0, 0, &["a"])).await;
    let mut next = broker.submit(&mut second, numbered(0, 1, &["b"])).await;
    assert!([&mut one, &mut again, &mut next].into_iter().all(|answer| answer.now_or_never().is_none()));
    disk.syncs.open();
    let (Answer::Ack(one), Answer::Ack(again)) = (one.await.expect("it is stored"), again.await.expect("it is stored")) else {
        panic!("the partition is known")
    };
    assert_eq!(one, again);
    next.await.expect("it is stored");
    assert_eq!(broker.values("t", 0).await, ["a", "b"]);
}

#[tokio::test]
async fn a_flush_that_could_not_be_done_yet_costs_no_repetition() {
    let (broker, disk) = Broker::simulated().await;
    broker.topic("t", 1, "sync").await;
    let mut stream = broker.producer("t", Some(0));
    send(&broker, &mut stream, numbered(0, 0, &["a"])).await.expect("it is stored");
    broker
        .engine
        .delete_records(&millpond_protocol::message::DeleteRecords {
            topic: "t".to_owned(),
            partition: 0,
            before: millpond_protocol::message::Position::End,
        })
        .await
        .expect("it rolls");
    disk.fail(Operation::SyncDir, 1, Fault::TooManyOpenFiles);
    let first = send(&broker, &mut stream, numbered(0, 1, &["b"])).await;
    let again = send(&broker, &mut stream, numbered(0, 1, &["b"])).await.expect("it is stored by now");
    assert!(first.is_ok() || code(first) == ErrorCode::Overloaded);
    assert_eq!((again.base_offset, broker.values("t", 0).await), (1, vec!["b".to_owned()]));
}

#[tokio::test]
async fn what_modules_leave_out_or_add_does_not_break_the_sequence() {
    for mode in ['a', 'o', 'x'] {
        let (broker, _) = Broker::simulated().await;
        broker.topic("t", 1, "sync").await;
        broker.attach("t", "m", mode).await;
        let mut stream = broker.producer("t", Some(0));
        let mut acks = Vec::new();
        for number in 0..4 {
            acks.push(send(&broker, &mut stream, numbered(0, 3 * number, &["a", "b", "c"])).await.expect("it is answered"));
        }
        let stored = broker.read_all("t", 0).await;
        let mut other = broker.producer("t", Some(0));
        for (number, ack) in (0..4).zip(&acks) {
            let again = send(&broker, &mut other, numbered(0, 3 * number, &["a", "b", "c"])).await.expect("it is known");
            assert_eq!((again.base_offset, again.last_offset), (ack.base_offset, ack.last_offset), "{mode}");
        }
        assert_eq!(broker.read_all("t", 0).await, stored, "{mode}");
        drop((stream, other));
        let broker = broker.restart().await;
        let mut stream = broker.producer("t", Some(0));
        let again = send(&broker, &mut stream, numbered(0, 9, &["a", "b", "c"])).await.expect("it is known");
        assert_eq!((again.base_offset, again.last_offset), (acks[3].base_offset, acks[3].last_offset), "{mode}");
        send(&broker, &mut stream, numbered(0, 12, &["a"])).await.expect("it goes on");
        let expected = BTreeMap::from([('a', 0), ('o', 2 * 4 + 1), ('x', 6 * 4 + 2)])[&mode];
        assert_eq!(broker.read_all("t", 0).await.len(), expected, "{mode}");
    }
}

#[tokio::test]
async fn a_batch_that_was_placed_is_placed_once() {
    let (broker, _) = Broker::simulated().await;
    broker.topic("t", 3, "sync").await;
    let records = [(Some("k1"), "a"), (Some("k2"), "b"), (None, "c"), (Some("k3"), "d"), (Some("k1"), "e")];
    let mut stream = broker.producer("t", None);
    let mut placed = Vec::new();
    for number in 0..5 {
        placed.push(place(&broker, &mut stream, keyed(0, 5 * number, &records)).await.expect("it is stored"));
    }
    let mut other = broker.producer("t", None);
    for (number, first) in (0..5).zip(&placed) {
        let again = place(&broker, &mut other, keyed(0, 5 * number, &records)).await.expect("it was stored");
        assert_eq!(again.records, first.records);
    }
    place(&broker, &mut other, keyed(0, 25, &records)).await.expect("it goes on");
    assert_eq!(code(place(&broker, &mut other, keyed(0, 35, &records)).await), ErrorCode::OutOfOrderSequence);
    let mut count = 0;
    for partition in 0..3 {
        count += broker.read_all("t", partition).await.len();
    }
    assert_eq!(count, 30);
}

#[tokio::test]
async fn parts_that_were_stored_are_not_stored_again_with_those_that_were_not() {
    let (broker, disk) = Broker::simulated().await;
    broker.topic("t", 4, "os").await;
    let keys: Vec<String> = (0..16).map(|number| format!("key-{number}")).collect();
    let records: Vec<_> = keys.iter().map(|key| (Some(key.as_str()), key.as_str())).collect();
    let mut stream = broker.producer("t", None);
    let mut next = 0;
    for round in 0..40 {
        // One of the parts fails, another one each time, and what comes behind it in its partition.
        disk.fail(Operation::Write, 1 + round % 4, Fault::NoSpace);
        let (one, two) = (keyed(0, next, &records), keyed(0, next + 16, &records));
        let first = broker.submit(&mut stream, one.clone()).await;
        let second = broker.submit(&mut stream, two.clone()).await;
        let outcomes = [first.await.map(|_| ()), second.await.map(|_| ())];
        for (outcome, batch) in outcomes.into_iter().zip([one, two]) {
            // The first that failed and everything behind it is sent again; what was stored is known.
            if round % 2 == 0 {
                stream = broker.producer("t", None);
            }
            let _ = outcome;
            place(&broker, &mut stream, batch).await.expect("it is stored, or was");
        }
        next += 32;
    }
    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    for partition in 0..4 {
        for value in broker.values("t", partition).await {
            *seen.entry(value).or_default() += 1;
        }
    }
    assert!(seen.len() == 16 && seen.values().all(|count| *count == 80), "{seen:?}");
}

//! Single steps of a lane.

use super::*;

fn outgoing(flight: &mut Flight, opened_at: Instant) -> Outgoing {
    let ((order, numbers), bytes, pending) = (flight.begin(), Bytes::new(), Arc::default());
    Outgoing { bytes, pending, records: 1, charged: 1, order, numbers, opened_at, sent_at: None, maybe_stored: false }
}

fn with_sent(count: u32) -> (Flight, Instant) {
    let (mut flight, now) = (Flight::default(), Instant::now());
    for _ in 0..count {
        let batch = outgoing(&mut flight, now);
        flight.send(batch, now);
        flight.written();
    }
    (flight, now)
}

fn overloaded() -> Error {
    Error::Broker(millpond_protocol::error::WireError::new(ErrorCode::Overloaded, "no"))
}

fn waiting(flight: &mut Flight) -> Option<Outgoing> {
    match flight.next() {
        Ready::Batch(batch) => Some(batch),
        Ready::Fresh => None,
        other => panic!("{other:?}"),
    }
}

fn orders(batches: &[Outgoing]) -> Vec<u64> {
    batches.iter().map(|batch| batch.order).collect()
}

#[test]
fn what_is_stored_in_part_is_not_sent_under_other_numbers() {
    for is_placed in [false, true] {
        let mut flight = Flight { is_placed, ..Flight::default() };
        flight.opened(Some(7));
        let now = Instant::now();
        for _ in 0..2 {
            let batch = encoded(&mut flight, now);
            flight.send(batch, now);
            flight.written();
        }
        // The first is refused for good, and the second has lost its answer before.
        let refusal = Error::Broker(millpond_protocol::error::WireError::new(ErrorCode::GuestFailed, "no"));
        let (first, second) = (next_answered(&mut flight), next_answered(&mut flight));
        assert!(matches!(flight.refused(first, &refusal, true), Refused::ForGood(_)));
        let wire = millpond_protocol::error::WireError::new(ErrorCode::OutOfOrderSequence, "one is missing");
        let behind = Error::Broker(millpond_protocol::error::WireError { partly_stored: is_placed, ..wire });
        assert!(matches!(flight.refused(second, &behind, true), Refused::Anew));
        match flight.next() {
            Ready::Batch(batch) => assert!(!is_placed && batch.numbers == Some(Numbers { producer_id: 7, epoch: 1, sequence: 0 })),
            Ready::Undecided(batches, _) => assert!(is_placed && batches.len() == 1),
            other => panic!("{other:?}"),
        }
    }
}

fn next_answered(flight: &mut Flight) -> Outgoing {
    match flight.answered() {
        Answered::Batch(batch) => batch,
        other => panic!("{other:?}"),
    }
}

/// A batch with real bytes.
fn encoded(flight: &mut Flight, now: Instant) -> Outgoing {
    let mut builder = batch::BatchBuilder::new();
    builder.push(&millpond_protocol::record::NewRecord::default()).expect("it fits");
    let bytes = builder.finish(millpond_protocol::compression::Codec::None).expect("it has a record");
    let outgoing = Outgoing { bytes, numbers: None, ..outgoing(flight, now) };
    flight.encoded(outgoing);
    waiting(flight).expect("it was encoded")
}

#[test]
fn answers_belong_to_batches_in_the_order_in_which_they_were_sent() {
    let (mut flight, _) = with_sent(2);
    for expected in [1, 2] {
        assert!(matches!(flight.answered(), Answered::Batch(batch) if batch.order == expected));
    }
    assert!(matches!(flight.answered(), Answered::Nothing), "an answer too many");
}

#[test]
fn after_a_loss_everything_is_sent_again_in_its_order_before_anything_new() {
    let (mut flight, now) = with_sent(3);
    let Answered::Batch(refused) = flight.answered() else { panic!("no batch") };
    let fresh = outgoing(&mut flight, now);
    flight.encoded(fresh);
    assert!(matches!(flight.refused(refused, &overloaded(), true), Refused::PutOff));
    assert!(flight.lost(|_| true).is_empty());
    let order: Vec<(u64, bool)> = std::iter::from_fn(|| waiting(&mut flight)).map(|batch| (batch.order, batch.maybe_stored)).collect();
    assert_eq!(order, [(1, false), (2, true), (3, true), (4, false)]);
    assert!(flight.is_empty());
}

#[test]
fn a_batch_that_was_torn_is_certainly_not_stored_unless_it_was_sent_whole_before() {
    let (mut flight, now) = with_sent(1);
    let torn = outgoing(&mut flight, now);
    flight.send(torn, now);
    let lost: Vec<(u64, bool)> = flight.lost(|_| false).iter().map(|batch| (batch.order, batch.maybe_stored)).collect();
    assert_eq!(lost, [(1, true), (2, false)]);
    let again = Outgoing { maybe_stored: true, ..outgoing(&mut flight, now) };
    flight.send(again, now);
    assert!(flight.lost(|_| false)[0].maybe_stored);
}

#[test]
fn a_batch_that_was_refused_while_it_was_being_written_leaves_the_others_as_they_are() {
    let (mut flight, now) = with_sent(1);
    let large = outgoing(&mut flight, now);
    flight.send(large, now);
    for expected in [1, 2] {
        assert!(matches!(flight.answered(), Answered::Batch(batch) if batch.order == expected));
    }
    flight.written();
    assert!(!flight.is_waited_for() && flight.lost(|_| false).is_empty());
}

#[test]
fn a_batch_that_was_given_up_keeps_its_place_until_its_answer_comes() {
    let (mut flight, now) = with_sent(1);
    let later = outgoing(&mut flight, now + Duration::from_secs(1));
    flight.send(later, now);
    let older = flight.take_older(now);
    assert_eq!((orders(&older), older[0].maybe_stored), (vec![1], true));
    assert_eq!(flight.oldest(), Some(now + Duration::from_secs(1)));
    assert!(matches!(flight.answered(), Answered::GivenUp { order: 1 }));
    assert!(matches!(flight.answered(), Answered::Batch(batch) if batch.order == 2));
}

#[test]
fn a_batch_that_was_never_sent_is_certainly_not_stored() {
    let (mut flight, now) = (Flight::default(), Instant::now());
    let batch = outgoing(&mut flight, now);
    flight.encoded(batch);
    assert!(!flight.take_older(now)[0].maybe_stored);
}

use super::*;
use crate::{FailureKind, records::unpack};
use bytes::BytesMut;
use millpond::Codec;
use millpond_protocol::{
    batch::{Batch, BatchBuilder},
    record::NewRecord,
};

const NOW: Duration = Duration::ZERO;

fn records(partition: u32, first: i64, count: usize) -> Unpack {
    let mut builder = BatchBuilder::new();
    for _ in 0..count {
        builder.push(&NewRecord { value: Some(b"v"), ..NewRecord::default() }).unwrap();
    }
    let built = Batch::parse(builder.finish(Codec::None).unwrap()).unwrap();
    let mut bytes = BytesMut::from(&built.bytes()[..]);
    bytes[..16].copy_from_slice(&built.with_base_offset(first, 0));
    unpack(&"t".into(), partition, vec![Batch::parse(bytes.freeze()).unwrap()], 0..i64::MAX)
}

fn shelf(packed: impl IntoIterator<Item = Unpack>) -> Shelf {
    let mut shelf = Shelf::default();
    for unpack in packed {
        while shelf.unpack_next() {}
        shelf.packed = Some(unpack);
    }
    shelf
}

fn taken(shelf: &mut Shelf, records_max: usize) -> Option<(u32, Vec<i64>)> {
    shelf.take(records_max).unwrap().map(|records| (records.partition(), records.offsets().to_vec()))
}

#[test]
fn what_is_there_is_taken_in_order_and_no_more_than_was_asked_for() {
    let mut shelf = shelf([records(0, 0, 3), records(1, 7, 1)]);
    assert_eq!(shelf.answer(1, NOW, &mut None), Some(Ok(true)));
    assert_eq!(taken(&mut shelf, 2), Some((0, vec![0, 1])));
    assert_eq!((shelf.position(0), shelf.position(1)), (Some(2), Some(7)));
    assert_eq!(taken(&mut shelf, 9), Some((0, vec![2])));
    assert_eq!(taken(&mut shelf, 9), Some((1, vec![7])));
    assert_eq!((taken(&mut shelf, 9), shelf.answer(1, NOW, &mut None)), (None, None));
}

#[test]
fn a_paused_partition_waits_on_the_shelf_and_is_there_afterwards() {
    let mut shelf = shelf([records(0, 0, 1), records(1, 7, 1)]);
    shelf.set_paused([0].into());
    assert_eq!((taken(&mut shelf, 9), taken(&mut shelf, 9)), (Some((1, vec![7])), None));
    assert_eq!((shelf.position(0), shelf.answer(1, NOW, &mut None)), (Some(0), None));
    shelf.set_paused([].into());
    assert_eq!(taken(&mut shelf, 9), Some((0, vec![0])));
}

#[test]
fn a_wait_for_more_begins_with_the_first_record_and_ends_with_the_stream() {
    let mut shelf = shelf([records(0, 0, 2)]);
    let mut until = None;
    assert_eq!((shelf.answer(5, Duration::from_hours(1), &mut until), until.is_some()), (None, true));
    assert_eq!(shelf.answer(2, Duration::from_hours(1), &mut None), Some(Ok(true)));
    shelf.ended = true;
    assert_eq!(shelf.answer(5, Duration::from_hours(1), &mut None), Some(Ok(true)));
    assert!(taken(&mut shelf, 9).is_some());
    assert_eq!(shelf.answer(5, Duration::MAX, &mut None), Some(Ok(false)));
}

#[test]
fn a_failure_is_told_once_and_in_its_place() {
    let mut shelf = shelf([records(0, 0, 1)]);
    shelf.put(Some(Err(millpond::Error::Closed("client"))), [0].into(), 2, &"t".into());
    assert_eq!(shelf.answer(9, Duration::MAX, &mut None), Some(Ok(true)), "nobody waits on a failure");
    assert_eq!(taken(&mut shelf, 9), Some((0, vec![0])));
    assert_eq!(shelf.take(9).unwrap_err().kind, FailureKind::Closed);
    assert_eq!(taken(&mut shelf, 9), None);
}

#[test]
fn once_all_partitions_have_failed_so_does_every_wait_until_a_seek() {
    let mut shelf = Shelf::default();
    for (number, failed) in [(1, [1].into()), (0, [0, 1].into())] {
        shelf.put(Some(Err(millpond::Error::Closed("client"))), failed, 2, &"t".into());
        let failure = shelf.take(9).unwrap_err();
        assert_eq!((failure.partition, failure.topic.as_deref()), (Some(number), Some("t")));
    }
    shelf.put(None, [0, 1].into(), 2, &"t".into());
    for _ in 0..2 {
        assert_eq!(shelf.answer(1, NOW, &mut None).unwrap().unwrap_err().partition, Some(0));
    }
    shelf.forget(Some(1));
    assert_eq!(shelf.answer(1, NOW, &mut None), None);
    // One has failed, and the others have come to their ends.
    shelf.put(None, [0].into(), 2, &"t".into());
    assert_eq!(shelf.answer(1, NOW, &mut None), Some(Ok(false)));
}

#[test]
fn a_seek_forgets_its_partition_alone() {
    let mut shelf = shelf([records(0, 0, 1), records(1, 7, 1), records(0, 1, 1)]);
    shelf.ended = true;
    shelf.forget(Some(0));
    assert_eq!((taken(&mut shelf, 9), taken(&mut shelf, 9)), (Some((1, vec![7])), None));
    assert_eq!(shelf.answer(1, NOW, &mut None), None, "there may be more now");
}

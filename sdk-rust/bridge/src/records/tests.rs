use super::*;
use millpond::Codec;
use millpond_protocol::{batch::BatchBuilder, record::NewRecord};
use proptest::prelude::*;

type Header = (String, Option<Vec<u8>>);
type Part = (Option<Vec<u8>>, Option<Vec<u8>>, Vec<Header>, i64);

fn batch_at(base_offset: i64, records: &[Part], codec: Codec) -> Batch {
    let mut builder = BatchBuilder::new();
    for (key, value, headers, timestamp) in records {
        let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_deref())).collect();
        let record = NewRecord { timestamp: *timestamp, key: key.as_deref(), value: value.as_deref(), headers: &headers };
        builder.push(&record).unwrap();
    }
    let built = Batch::parse(builder.finish(codec).unwrap()).unwrap();
    let mut bytes = BytesMut::from(&built.bytes()[..]);
    bytes[..16].copy_from_slice(&built.with_base_offset(base_offset, 0));
    Batch::parse(bytes.freeze()).unwrap()
}

fn plain(values: &[&str]) -> Vec<Part> {
    values.iter().map(|value| (None, Some(value.as_bytes().to_vec()), Vec::new(), 7)).collect()
}

fn unpacked(batches: Vec<Batch>, wanted: Range<i64>) -> Vec<Result<Records, Failure>> {
    unpack(&"t".into(), 3, batches, wanted).collect()
}

fn rows(records: &Records) -> Vec<Part> {
    let headers = |index| records.headers(index).map(|(name, value)| (name.to_owned(), value.map(<[u8]>::to_vec))).collect();
    let row = |index| {
        (records.key(index).map(<[u8]>::to_vec), records.value(index).map(<[u8]>::to_vec), headers(index), records.timestamps_ms()[index])
    };
    (0..records.len()).map(row).collect()
}

#[test]
fn one_batch_is_not_copied_and_several_are_put_together() {
    let batch = batch_at(0, &plain(&["shared"]), Codec::None);
    let bytes = batch.bytes().clone();
    let one = unpacked(vec![batch], 0..i64::MAX).remove(0).unwrap();
    assert!(bytes.as_ptr_range().contains(&one.value(0).unwrap().as_ptr()), "not a copy");
    let batches = vec![batch_at(0, &plain(&["a", "b"]), Codec::None), batch_at(2, &plain(&["c"]), Codec::Lz4)];
    let all = unpacked(batches, 0..i64::MAX);
    assert_eq!(all.len(), 1, "one crossing");
    let records = all[0].as_ref().unwrap();
    assert_eq!(rows(records), plain(&["a", "b", "c"]));
    assert_eq!((records.offsets(), records.next_offset(), records.partition()), (&[0, 1, 2][..], 3, 3));
}

#[test]
fn batches_of_one_push_are_not_copied() {
    let parts = [plain(&["a", "b"]), plain(&["c"]), plain(&["d"])];
    let whole: Vec<u8> = (0..).zip(&parts).flat_map(|(number, part)| batch_at(number * 2, part, Codec::None).bytes().to_vec()).collect();
    let push = Bytes::from(whole);
    let (mut rest, mut batches) = (push.clone(), Vec::new());
    while let Some(batch) = Batch::take_front(&mut rest).unwrap() {
        batches.push(batch);
    }
    let consumed = ConsumedBatch::from_parts("t".into(), 3, batches.clone(), 0..i64::MAX).with_push(push.clone());
    let records = Unpack::new(consumed).next().unwrap().unwrap();
    assert_eq!((rows(&records), records.offsets()), (plain(&["a", "b", "c", "d"]), &[0, 1, 2, 4][..]));
    assert!(push.as_ptr_range().contains(&records.value(3).unwrap().as_ptr()), "not a copy");
    // One that is decompressed lies elsewhere, and so does what another push has: these are put together.
    batches.push(batch_at(6, &plain(&["e"]), Codec::Lz4));
    let mixed = ConsumedBatch::from_parts("t".into(), 3, batches, 0..i64::MAX).with_push(push);
    assert_eq!(rows(&Unpack::new(mixed).next().unwrap().unwrap()), plain(&["a", "b", "c", "d", "e"]));
}

#[test]
fn large_batches_come_one_by_one() {
    let large = "x".repeat(JOINED_BYTES_MAX);
    let batches = vec![batch_at(0, &plain(&[&large]), Codec::Zstd), batch_at(1, &plain(&["a"]), Codec::None)];
    assert_eq!(unpacked(batches, 0..i64::MAX).into_iter().map(|records| records.unwrap().len()).collect::<Vec<_>>(), [1, 1]);
}

#[test]
fn what_is_not_wanted_is_left_out() {
    let batches = vec![batch_at(10, &plain(&["a", "b", "c"]), Codec::None), batch_at(13, &plain(&["d", "e"]), Codec::None)];
    let records = unpacked(batches.clone(), 11..14).remove(0).unwrap();
    assert_eq!((rows(&records), records.next_offset()), (plain(&["b", "c", "d"]), 14));
    assert!(unpacked(batches, 15..i64::MAX).is_empty());
}

#[test]
fn records_are_divided_without_a_copy() {
    let mut rest = unpacked(vec![batch_at(5, &plain(&["a", "b", "c"]), Codec::None)], 0..i64::MAX).remove(0).unwrap();
    let front = rest.split_to(2);
    assert_eq!((rows(&front), front.next_offset()), (plain(&["a", "b"]), 7));
    assert_eq!((rows(&rest), rest.offsets(), rest.next_offset()), (plain(&["c"]), &[7][..], 8));
    assert_eq!((rest.split_to(9).len(), rest.len()), (1, 0));
    assert!(rest.is_empty());
}

#[test]
fn columns_are_the_same_moved_and_copied() {
    let records = || unpacked(vec![batch_at(5, &plain(&["a", "bc", "d"]), Codec::None)], 0..i64::MAX).remove(0).unwrap();
    let whole = records();
    let place = whole.ranges().as_ptr();
    let columns = whole.into_columns();
    assert_eq!((columns.ranges.as_ptr(), &columns.offsets[..]), (place, &[5, 6, 7][..]), "moved");

    let shared = records();
    assert_eq!(shared.clone().into_columns(), columns, "copied, as somebody else has them");
    drop(shared);

    let mut rest = records();
    drop(rest.split_to(1));
    let part = rest.into_columns();
    assert_eq!((&part.offsets[..], &part.timestamps_ms[..]), (&[6, 7][..], &columns.timestamps_ms[1..]), "a part");
    assert_eq!(part.ranges, columns.ranges[RANGE_COLUMNS..]);
}

#[test]
fn a_batch_that_cannot_be_read_is_told_and_the_next_one_follows() {
    let broken = {
        let mut bytes = BytesMut::from(&batch_at(3, &plain(&["a", "b"]), Codec::Gzip).bytes()[..]);
        bytes[61..].fill(0xff);
        Batch::parse(bytes.freeze()).unwrap()
    };
    let results = unpacked(vec![batch_at(2, &plain(&["v"]), Codec::None), broken, batch_at(5, &plain(&["x"]), Codec::None)], 0..i64::MAX);
    assert_eq!(results.len(), 3);
    assert_eq!(rows(results[0].as_ref().unwrap()), plain(&["v"]));
    let failure = results[1].as_ref().unwrap_err();
    assert_eq!((failure.partition, failure.next_offset), (Some(3), Some(5)));
    assert_eq!(results[2].as_ref().unwrap().offsets(), [5]);
}

#[test]
fn a_header_that_announces_other_records_is_a_failure() {
    let mut bytes = BytesMut::from(&batch_at(0, &plain(&["a", "b"]), Codec::None).bytes()[..]);
    bytes[57..61].copy_from_slice(&1_i32.to_be_bytes());
    let results = unpacked(vec![Batch::parse(bytes.freeze()).unwrap()], 0..i64::MAX);
    assert_eq!(results[0].as_ref().unwrap().len(), 2);
    assert!(results[1].as_ref().unwrap_err().message.contains("cannot be read"));
}

fn part() -> impl Strategy<Value = Part> {
    let bytes = || proptest::option::of(proptest::collection::vec(any::<u8>(), 0..40));
    let headers = proptest::collection::vec(("[a-zü]{0,9}", bytes()), 0..4);
    (bytes(), bytes(), headers, 0..1_000_000_i64)
}

proptest! {
    #[test]
    fn what_was_written_is_read(parts in proptest::collection::vec(proptest::collection::vec(part(), 1..6), 1..5), packed: bool) {
        let codec = if packed { Codec::Snappy } else { Codec::None };
        let mut offset = 100;
        let batches = parts.iter().map(|part| {
            let batch = batch_at(offset, part, codec);
            offset += i64::try_from(part.len()).unwrap();
            batch
        });
        let read: Vec<_> = unpacked(batches.collect(), 0..i64::MAX).into_iter().flat_map(|records| rows(&records.unwrap())).collect();
        prop_assert_eq!(read, parts.concat());
    }

    #[test]
    fn no_bytes_make_it_panic(at in 61_usize..120, byte: u8, cut in 0_usize..3) {
        let whole = batch_at(0, &[(Some(b"key".to_vec()), Some(vec![7; 20]), vec![("n".into(), None)], 5), (None, None, vec![], 6)], Codec::None);
        let mut bytes = BytesMut::from(&whole.bytes()[..]);
        let end = bytes.len();
        bytes[at.min(end - 1 - cut)] = byte;
        for records in unpacked(vec![Batch::parse(bytes.freeze()).unwrap()], 0..i64::MAX).into_iter().flatten() {
            let _ = rows(&records);
        }
    }
}

use super::*;
use crate::varint::write_i32;

/// A record from its parts, each as it will lie there.
fn record(parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    let mut out = Vec::new();
    write_i32(&mut out, i32::try_from(body.len()).expect("short"));
    out.extend_from_slice(&body);
    out
}

/// Attributes, timestamp delta 0, offset delta 0, null key, null value.
const FRONT: &[u8] = &[0, 0, 0, 1, 1];

fn fault(section: &[u8]) -> RecordFault {
    match check_section(section) {
        Err(BatchError::InvalidRecord { index: 0, fault }) => fault,
        other => panic!("a fault of the first record was expected, not {other:?}"),
    }
}

#[test]
fn an_empty_section_has_no_records() {
    let summary = SectionSummary { record_count: 0, last_offset_delta: -1, max_timestamp_delta: 0, offsets_rise: true };
    assert_eq!(check_section(&[]), Ok(summary));
}

#[test]
fn a_summary_says_how_far_the_records_reach() {
    let section = [
        record(&[&[0, 5, 4], &[1, 1, 0]]),  // timestamp delta -3, offset delta 2
        record(&[&[0, 3, 10], &[1, 1, 0]]), // -2, 5
    ];
    let summary = SectionSummary { record_count: 2, last_offset_delta: 5, max_timestamp_delta: -2, offsets_rise: true };
    assert_eq!(check_section(&section.concat()), Ok(summary));
    let falling = [&section[1][..], &section[0]].concat();
    assert_eq!(check_section(&falling), Ok(SectionSummary { offsets_rise: false, ..summary }));
    let twice = [&section[0][..], &section[0]].concat();
    assert!(!check_section(&twice).expect("valid").offsets_rise, "a record that became two");
}

#[test]
fn the_front_of_a_record_is_read_without_the_rest() {
    let first = record(&[&[0, 5, 4], &[1, 1, 0]]);
    let section = [&first[..], &record(&[FRONT, &[0]])].concat();
    let front = RecordFront { offset_delta: 2, timestamp_delta: -3, encoded: &first };
    assert_eq!(read_front(&section), Some(front));
    // What is behind the front may be anything, but has to be there.
    let odd = record(&[&[0, 5, 4], &[0xff; 3]]);
    assert_eq!(read_front(&odd), Some(RecordFront { encoded: &odd, ..front }));
    for cut in 0..first.len() {
        assert_eq!(read_front(&first[..cut]), None, "{cut} bytes");
    }
    for broken in [&[0][..], &[1], &[2, 0], &[4, 0, 0], &[6, 0, 0x80, 0x80], &[0xfe, 0xff, 0xff, 0xff, 0x0f, 0, 0, 0]] {
        assert_eq!(read_front(broken), None, "{broken:?}");
    }
}

#[test]
fn each_way_to_break_a_record_has_its_fault() {
    let cases: Vec<(&str, Vec<u8>, RecordFault)> = vec![
        ("no body", vec![0], RecordFault::Empty),
        ("length cut off", vec![0x80], RecordFault::Integer),
        ("negative length", vec![1], RecordFault::Length { length: -1, available: 0 }),
        ("length behind the section", vec![14, 0, 0], RecordFault::Length { length: 7, available: 2 }),
        ("length of two gibibytes", vec![0xfe, 0xff, 0xff, 0xff, 0x0f], RecordFault::Length { length: i32::MAX, available: 0 }),
        ("timestamp cut off", record(&[&[0]]), RecordFault::Integer),
        ("offset delta negative", record(&[&[0, 0, 1, 1, 1, 0]]), RecordFault::OffsetDelta(-1)),
        ("key length -2", record(&[&[0, 0, 0, 3, 1, 0]]), RecordFault::Length { length: -2, available: 2 }),
        ("key behind the record", record(&[&[0, 0, 0, 6, 1, 0]]), RecordFault::Length { length: 3, available: 2 }),
        ("value behind the record", record(&[&[0, 0, 0, 1, 4, 0]]), RecordFault::Length { length: 2, available: 1 }),
        ("header count cut off", record(&[FRONT]), RecordFault::Integer),
        ("header count negative", record(&[FRONT, &[1]]), RecordFault::HeaderCount { count: -1, available: 0 }),
        ("more headers than bytes", record(&[FRONT, &[6, 0, 1, 0, 1, 0]]), RecordFault::HeaderCount { count: 3, available: 5 }),
        ("header name null", record(&[FRONT, &[2, 1, 1]]), RecordFault::Length { length: -1, available: 1 }),
        ("header name not UTF-8", record(&[FRONT, &[2, 2, 0xff, 1]]), RecordFault::HeaderName),
        ("header value behind the record", record(&[FRONT, &[2, 0, 4, 0]]), RecordFault::Length { length: 2, available: 1 }),
        ("a byte behind no headers", record(&[FRONT, &[0, 7]]), RecordFault::BytesLeftOver { bytes: 1 }),
        ("a byte behind the headers", record(&[FRONT, &[2, 0, 1, 7]]), RecordFault::BytesLeftOver { bytes: 1 }),
    ];
    for (name, section, expected) in cases {
        assert_eq!(fault(&section), expected, "{name}");
    }
}

#[test]
fn the_index_names_the_record_at_fault_and_nothing_follows() {
    let good = record(&[FRONT, &[0]]);
    let section = [&good[..], &good, &[0], &good].concat();
    let results: Vec<_> = iterate(&section).collect();
    assert_eq!(results.len(), 3);
    assert_eq!(results[2], Err(BatchError::InvalidRecord { index: 2, fault: RecordFault::Empty }));
}

#[test]
fn a_borrowed_record_has_all_its_parts() {
    let encoded = record(&[&[0, 8, 6], &[2, b'k'], &[4, b'v', b'w'], &[4, 2, b'a', 1, 0, 2, b'z']]);
    let section = [&encoded[..], &record(&[FRONT, &[0]])].concat();
    let mut records = iterate(&section);
    let first = records.next().expect("two").expect("valid");
    assert_eq!((first.timestamp_delta, first.offset_delta), (4, 3));
    assert_eq!((first.key, first.value), (Some(&b"k"[..]), Some(&b"vw"[..])));
    assert_eq!(first.encoded, encoded);
    assert_eq!(first.headers.len(), 2);
    assert_eq!((&first.headers).into_iter().collect::<Vec<_>>(), [("a", None), ("", Some(&b"z"[..]))]);
    assert_eq!(records.rest().len(), section.len() - encoded.len());
    assert!(records.next().expect("two").expect("valid").headers.is_empty());
    assert_eq!(records.next(), None);
}

#[test]
fn the_last_of_several_headers_with_a_name_counts() {
    let headers = |bytes: &[u8]| Headers { count: 2, bytes: bytes::Bytes::copy_from_slice(bytes) };
    let twice = headers(&[2, b'a', 2, b'1', 2, b'a', 2, b'2']);
    assert_eq!(twice.get("a").as_deref(), Some(&b"2"[..]));
    assert_eq!(twice.get("b"), None);
    assert_eq!((&twice).into_iter().count(), twice.len());
    let nulled = headers(&[2, b'a', 2, b'1', 2, b'a', 1]);
    assert_eq!(nulled.get("a"), None, "null, as its last value says");
}

#[test]
fn renumbered_records_count_from_zero_and_keep_the_rest() {
    // Enough records that offset deltas, and with them the lengths, change their size.
    let mut section = Vec::new();
    for index in 0..9000_u32 {
        section.extend(record(&[&[9, 3, 14], &[4, 1, b'k'], &[1], &[2, 2, b'n', 2, index.to_le_bytes()[0]]]));
    }
    let renumbered = renumber(&section).expect("valid");
    let summary = check_section(&renumbered).expect("valid");
    assert_eq!((summary.record_count, summary.last_offset_delta, summary.offsets_rise), (9000, 8999, true));
    for (index, (before, after)) in iterate(&section).zip(iterate(&renumbered)).enumerate() {
        let (before, after) = (before.expect("valid"), after.expect("valid"));
        assert_eq!(usize::try_from(after.offset_delta), Ok(index));
        assert_eq!(RecordRef { offset_delta: 7, encoded: before.encoded, ..after }, before);
        let attributes = split_behind_offset(after.encoded).expect("valid").0;
        assert_eq!(attributes, 9, "a record's attributes are kept");
    }
    assert!(renumber(&[0]).is_err());
}

#[test]
fn a_shifted_record_differs_in_its_timestamp_delta_alone() {
    let mut section = Vec::new();
    let record = NewRecord { timestamp: 0, key: Some(b"k"), value: None, headers: &[("h", Some(b"v"))] };
    for (timestamp_delta, offset_delta) in [(5, 0), (-7, 300), (i64::MAX, 301)] {
        let body = body_bytes(&record, timestamp_delta, offset_delta);
        write(&mut section, &record, timestamp_delta, offset_delta, body);
    }
    for shift in [0, 1, -1, 1_700_000_000_000] {
        for original in iterate(&section).map(Result::unwrap) {
            let mut shifted = b"front".to_vec();
            let Some(expected) = original.timestamp_delta.checked_sub(shift) else {
                assert!(!append_shifted(&mut shifted, original.encoded, shift) && shifted == b"front");
                continue;
            };
            assert!(append_shifted(&mut shifted, original.encoded, shift));
            let read = iterate(&shifted[5..]).next().expect("there is one").expect("it is well formed");
            assert_eq!(read, RecordRef { timestamp_delta: expected, encoded: &shifted[5..], ..original });
        }
    }
    assert!(!append_shifted(&mut Vec::new(), b"", 0) && !append_shifted(&mut Vec::new(), &[9, 0], 0));
}

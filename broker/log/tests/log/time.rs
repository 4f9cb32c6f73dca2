//! Reads by time.

use bytes::Bytes;
use millpond_log::sim::Random;
use millpond_log::{LogError, LogReader};
use millpond_protocol::batch::{Batch, BatchError, HEADER_BYTES};
use millpond_protocol::compression::Codec;

use crate::harness::{Fixture, ROOMY, SMALL, Stored, batch_with, files, open, random_batch};

/// Compares a lookup with a look at every record.
pub(crate) fn check_find_time(reader: &LogReader, model: &[Stored], timestamp: i64, end: i64) {
    let expected = expected_time(reader, model, timestamp, end);
    assert_eq!(reader.find_time(timestamp, end).expect("looks"), expected, "timestamp {timestamp}, end {end}");
}

/// What a look at every record finds: its offset and its timestamp.
pub(crate) fn expected_time(reader: &LogReader, model: &[Stored], timestamp: i64, end: i64) -> Option<(i64, i64)> {
    let visible = model.iter().take_while(|stored| stored.next <= end);
    let records = visible.flat_map(|stored| {
        let batch = Batch::parse(Bytes::from(stored.bytes.clone())).expect("a whole batch");
        batch.records(1 << 24).expect("records").map(|record| record.expect("a record"))
    });
    records.map(|record| (record.offset, record.timestamp)).find(|(offset, found)| *offset >= reader.log_start() && *found >= timestamp)
}

#[test]
fn the_first_record_at_or_after_a_time_is_found_whatever_the_order_and_the_codec() {
    for codec in [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        let mut fixture = Fixture::new(SMALL);
        let mut random = Random::new(11);
        for clock in 0..40 {
            let times: Vec<i64> = (0..4).map(|_| clock * 100 + random.below(500).cast_signed() - 250).collect();
            fixture.append(&[batch_with(&times, 150, codec)]);
        }
        for reopened in [false, true] {
            if reopened {
                fixture.reopen();
            }
            for timestamp in (-300..4_300).step_by(13) {
                check_find_time(&fixture.log.reader(), &fixture.model, timestamp, i64::MAX);
                check_find_time(&fixture.log.reader(), &fixture.model, timestamp, 50);
            }
        }
    }
}

#[test]
fn times_before_1970_and_no_time_at_all_are_found() {
    let mut fixture = Fixture::new(SMALL);
    for timestamp in [-5_000, -5_000, -1, i64::MIN, 0, 5] {
        fixture.append(&[batch_with(&[timestamp; 3], 900, Codec::None)]);
    }
    for reopened in [false, true] {
        if reopened {
            fixture.flush();
            fixture.reopen();
        }
        for timestamp in [i64::MIN, -6_000, -5_000, -4_999, -2, -1, 0, 1, 5, 6, i64::MAX] {
            check_find_time(&fixture.log.reader(), &fixture.model, timestamp, i64::MAX);
        }
    }
}

#[test]
fn a_batch_that_reaches_behind_the_end_is_not_looked_at() {
    let mut fixture = Fixture::new(ROOMY);
    fixture.append(&[batch_with(&[1, 2], 10, Codec::None), batch_with(&[3, 4], 10, Codec::None)]);
    let reader = fixture.log.reader();
    assert_eq!(reader.find_time(3, 4).expect("looks"), Some((2, 3)));
    assert_eq!(reader.find_time(3, 3).expect("looks"), None);
    assert_eq!(reader.find_time(1, 0).expect("looks"), None);
}

/// A batch whose checksum is right and whose records are none.
fn undecodable(timestamps: &[i64], codec: Codec) -> Batch {
    let mut bytes = batch_with(timestamps, 50, codec).bytes().to_vec();
    bytes[HEADER_BYTES..].fill(0xff);
    let stale = Batch::parse(Bytes::from(bytes.clone())).expect("the header is as it was").verify_crc();
    let Err(BatchError::ChecksumMismatch { computed, .. }) = stale else { panic!("the bytes have changed: {stale:?}") };
    bytes[17..21].copy_from_slice(&computed.to_be_bytes());
    Batch::parse(Bytes::from(bytes)).expect("the header is as it was")
}

#[test]
fn records_that_can_not_be_decoded_stop_no_lookup_but_those_that_end_at_them() {
    for codec in [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        let mut fixture = Fixture::new(ROOMY);
        let whole = |timestamps: &[i64]| batch_with(timestamps, 50, Codec::None);
        fixture.append(&[whole(&[100, 200]), undecodable(&[300, 400], codec), whole(&[350, 500]), whole(&[600])]);
        for reopened in [false, true] {
            if reopened {
                fixture.flush();
                fixture.reopen();
            }
            let find = |timestamp| fixture.log.reader().find_time(timestamp, i64::MAX).expect("looks");
            assert_eq!(find(150), Some((1, 200)), "in front of it");
            for timestamp in [201, 300, 301, 400] {
                assert_eq!(find(timestamp), Some((2, 400)), "from its start on nothing is missed");
            }
            assert_eq!(find(401), Some((5, 500)), "behind it");
            assert_eq!(find(600), Some((6, 600)));
            assert_eq!(find(601), None);
        }
    }
}

#[test]
fn a_header_that_says_too_much_hides_nothing_behind_it() {
    let mut fixture = Fixture::new(SMALL);
    for clock in 0..20 {
        fixture.append(&[batch_with(&[clock; 3], 300, Codec::None)]);
    }
    let (path, second) = (fixture.segments()[0].clone(), fixture.model[0].bytes.len());
    // The last offset delta of the second batch: it seems to reach behind its segment.
    fixture.disk.damage(&path, |bytes| bytes[second + 23] ^= 0x40);
    fixture.flush();
    fixture.reopen();
    let find = |timestamp| fixture.log.reader().find_time(timestamp, i64::MAX);
    // The index leads past it, for as long as nobody has met it.
    assert_eq!(find(2).expect("looks"), Some((6, 2)));
    assert!(matches!(find(1), Err(LogError::Corrupt { .. })), "{:?}", find(1));
    assert!(matches!(find(2), Err(LogError::Corrupt { .. })), "nobody knows which timestamps there were");
}

#[test]
fn a_header_that_says_too_little_does_not_hide_its_records() {
    let mut fixture = Fixture::new(SMALL);
    for clock in [8, 1, 2, 8, 9] {
        fixture.append(&[batch_with(&[clock; 3], 300, Codec::None)]);
    }
    let path = fixture.segments()[0].clone();
    let (fixture, _) = fixture.close_and_reopen(1);
    assert_eq!(fixture.log.reader().find_time(8, i64::MAX).expect("looks"), Some((0, 8)));
    fixture.log.close().expect("the log closes");
    // The largest timestamp of the first batch: 8 becomes 0.
    fixture.disk.damage(&path, |bytes| bytes[42] ^= 8);
    let (log, _) = crate::harness::open(&fixture.disk, SMALL);
    let found = log.reader().find_time(8, i64::MAX);
    assert!(matches!(found, Err(LogError::Corrupt { position: 0, .. })), "{found:?}");
}

#[test]
fn an_empty_log_has_no_times() {
    let fixture = Fixture::new(ROOMY);
    assert_eq!(fixture.log.reader().find_time(i64::MIN, i64::MAX).expect("looks"), None);
}

#[test]
fn a_lookup_skips_segments_whose_times_are_smaller() {
    let mut fixture = Fixture::new(SMALL);
    let mut random = Random::new(12);
    for clock in 0..300 {
        fixture.append(&[random_batch(&mut random, clock * 1_000)]);
    }
    fixture.flush();
    let reads = |fixture: &Fixture| fixture.disk.count(millpond_log::sim::Operation::Read);
    let before = reads(&fixture);
    fixture.log.reader().find_time(290_000, i64::MAX).expect("looks");
    assert!(reads(&fixture) - before < 20, "{} reads", reads(&fixture) - before);
}

#[test]
fn a_flipped_bit_in_the_last_entry_of_a_time_index_hides_no_segment() {
    let mut fixture = Fixture::new(SMALL);
    for clock in 0..40 {
        fixture.append(&[batch_with(&[clock * 10, 1_000_000 - clock, clock], 300, Codec::None)]);
    }
    let (fixture, report) = fixture.close_and_reopen(1);
    assert!(report.clean_stop);
    let Fixture { disk, config, model, .. } = fixture;
    let indexes = files(&disk, ".timeindex");
    for path in &indexes[..indexes.len() - 1] {
        let whole = disk.bytes(path).expect("an index");
        for bit in 0..12 * 8 {
            disk.damage(path, |bytes| {
                let at = bytes.len() - 12 + bit / 8;
                bytes[at] ^= 1 << (bit % 8);
            });
            let (log, _) = open(&disk, config);
            // The first asks, and the others rely on the answer.
            for timestamp in [999_990, 999_990, 999_961, 5_000] {
                check_find_time(&log.reader(), &model, timestamp, i64::MAX);
            }
            drop(log);
            disk.damage(path, |bytes| bytes.clone_from(&whole));
        }
    }
}

//! Appending and reading on a disk that works.

use millpond_log::sim::{Operation, Random};
use millpond_log::{Cursor, LogError};
use millpond_protocol::batch::{Batch, rebuild};
use millpond_protocol::compression::Codec;
use millpond_protocol::record::SectionSummary;

use crate::harness::{Fixture, ROOMY, SMALL, batch, batch_with, batches, config, files, random_batch, read_all};

#[test]
fn what_was_appended_is_read_back_verbatim_but_for_offset_and_epoch() {
    let mut fixture = Fixture::new(ROOMY);
    let mut random = Random::new(1);
    for _ in 0..50 {
        let some: Vec<_> = (0..=random.below(4)).map(|_| random_batch(&mut random, 0)).collect();
        fixture.append(&some);
    }
    fixture.check();
    fixture.reopen();
    fixture.check();
}

#[test]
fn all_batches_of_an_append_to_one_segment_are_one_write() {
    let mut fixture = Fixture::new(ROOMY);
    let before = fixture.disk.count(Operation::Write);
    fixture.append(&vec![batch(1, 10); 512]);
    assert_eq!(fixture.disk.count(Operation::Write) - before, 1);
    // 513 batches are 1,026 buffers, two more than one write takes.
    fixture.append(&vec![batch(1, 10); 513]);
    assert_eq!(fixture.disk.count(Operation::Write) - before, 3);
    fixture.check();
}

#[test]
fn an_append_of_nothing_changes_nothing() {
    let mut fixture = Fixture::new(ROOMY);
    fixture.append(&[batch(3, 10)]);
    assert_eq!(fixture.log.append(&[], 0).expect("nothing can be appended"), 3);
    fixture.check();
}

#[test]
fn a_batch_without_records_takes_its_offsets() {
    let mut fixture = Fixture::new(ROOMY);
    let original = batch(5, 10);
    let summary = SectionSummary { record_count: 0, last_offset_delta: -1, max_timestamp_delta: 0, offsets_rise: true };
    let emptied = rebuild(original.header(), &[], &summary).expect("a filter may drop every record");
    fixture.append(&[batch(1, 10), Batch::parse(emptied).expect("a whole batch"), batch(1, 10)]);
    assert_eq!(fixture.log.log_end(), 7);
    let read = batches(fixture.log.reader().read(3, 1 << 20, 7).expect("reads"));
    assert_eq!((read[0].header().base_offset, read[0].header().record_count), (1, 0));
    fixture.check();
}

#[test]
fn segments_roll_before_they_grow_too_large_and_are_named_by_their_first_offset() {
    let mut fixture = Fixture::new(SMALL);
    for _ in 0..100 {
        fixture.append(&[batch(2, 100)]);
    }
    let segments = fixture.segments();
    assert!(segments.len() > 3);
    for path in &segments {
        let bytes = fixture.disk.bytes(path).expect("a segment");
        assert!(bytes.len() as u64 <= SMALL.segment_bytes);
        let base = i64::from_be_bytes(bytes[..8].try_into().expect("eight bytes"));
        assert!(path.ends_with(format!("{base:020}.log")));
    }
    assert_eq!(files(&fixture.disk, ".index").len(), segments.len());
    assert_eq!(files(&fixture.disk, ".timeindex").len(), segments.len());
    fixture.check();
}

#[test]
fn one_append_can_fill_several_segments() {
    let mut fixture = Fixture::new(SMALL);
    fixture.append(&vec![batch(3, 300); 40]);
    assert!(fixture.segments().len() > 5);
    fixture.check();
    fixture.reopen();
    fixture.check();
}

#[test]
fn a_batch_larger_than_a_segment_has_one_to_itself() {
    let mut fixture = Fixture::new(SMALL);
    fixture.append(&[batch(1, 10), batch(1, 10_000), batch(1, 10_000), batch(1, 10)]);
    assert_eq!(fixture.segments().len(), 4);
    fixture.check();
    let read = fixture.log.reader().read(1, 100, i64::MAX).expect("reads");
    assert_eq!(read, fixture.model[1].bytes, "a batch larger than the limit comes alone and whole");
}

#[test]
fn every_batch_has_a_segment_of_its_own_where_segments_have_no_room() {
    let mut fixture = Fixture::new(config(0, 0));
    fixture.append(&vec![batch(2, 10); 5]);
    assert_eq!(fixture.segments().len(), 5);
    fixture.check();
    fixture.reopen();
    fixture.check();
}

#[test]
fn a_read_in_the_middle_of_a_batch_returns_the_whole_batch() {
    let mut fixture = Fixture::new(SMALL);
    let mut random = Random::new(2);
    for _ in 0..60 {
        fixture.append(&[random_batch(&mut random, 0)]);
    }
    fixture.flush();
    for reopened in [false, true] {
        if reopened {
            fixture.reopen();
        }
        let reader = fixture.log.reader();
        for stored in &fixture.model {
            for offset in stored.base..stored.next {
                let read = reader.read(offset, 1, i64::MAX).expect("reads");
                assert_eq!(read, stored.bytes, "offset {offset}, reopened: {reopened}");
            }
        }
    }
}

#[test]
fn a_read_returns_as_many_whole_batches_as_fit() {
    let mut fixture = Fixture::new(ROOMY);
    fixture.append(&vec![batch(1, 100); 20]);
    let one = fixture.model[0].bytes.len();
    for (max_bytes, expected) in [(0, 1), (1, 1), (one, 1), (2 * one - 1, 1), (2 * one, 2), (5 * one + 60, 5), (usize::MAX, 20)] {
        let read = fixture.log.reader().read(0, max_bytes, i64::MAX).expect("reads");
        assert_eq!(read.len(), expected * one, "{max_bytes} bytes asked for");
    }
}

#[test]
fn a_read_shows_only_batches_that_end_before_the_given_end() {
    let mut fixture = Fixture::new(ROOMY);
    fixture.append(&vec![batch(3, 50); 4]);
    let reader = fixture.log.reader();
    for (end, expected) in [(0, 0), (1, 0), (2, 0), (3, 1), (5, 1), (6, 2), (11, 3), (12, 4), (i64::MAX, 4)] {
        let read = reader.read(0, 1 << 20, end).expect("reads");
        assert_eq!(batches(read).len(), expected, "up to {end}");
    }
    let mut cursor = Cursor::new(0);
    assert!(reader.read_next(&mut cursor, 1 << 20, 2).expect("reads").is_empty());
    assert_eq!(cursor.offset(), 0, "a batch that may not be seen yet is not skipped");
    assert_eq!(batches(reader.read_next(&mut cursor, 1 << 20, 7).expect("reads")).len(), 2);
    assert_eq!(batches(reader.read_next(&mut cursor, 1 << 20, 12).expect("reads")).len(), 2);
}

#[test]
fn a_read_at_the_end_is_empty_and_one_outside_names_the_range() {
    let mut fixture = Fixture::new(SMALL);
    let reader = fixture.log.reader();
    assert!(reader.read(0, 100, i64::MAX).expect("the end of an empty log").is_empty());
    fixture.append(&vec![batch(3, 500); 10]);
    assert!(reader.read(30, 100, i64::MAX).expect("the end").is_empty());
    assert!(reader.read(12, 100, 12).expect("the given end").is_empty());
    for (requested, given_end, expected_end) in [(31, i64::MAX, 30), (-1, i64::MAX, 30), (13, 12, 12), (i64::MIN, 12, 12)] {
        match reader.read(requested, 100, given_end) {
            Err(LogError::OffsetOutOfRange { requested: named, start: 0, end }) => {
                assert_eq!((named, end), (requested, expected_end));
            }
            other => panic!("expected a range for {requested}, got {other:?}"),
        }
    }
}

#[test]
fn a_cursor_reads_on_where_it_stopped_with_one_read_of_the_file() {
    let mut fixture = Fixture::new(config(64 << 10, 4096));
    fixture.append(&vec![batch(4, 200); 500]);
    fixture.flush();
    let reader = fixture.log.reader();
    let mut cursor = Cursor::new(0);
    // The first read looks the place up.
    let mut all = reader.read_next(&mut cursor, 10_000, i64::MAX).expect("reads").to_vec();
    let (mut reads, before) = (0, fixture.disk.count(Operation::Read));
    while cursor.offset() < 2000 {
        all.extend_from_slice(&reader.read_next(&mut cursor, 10_000, i64::MAX).expect("reads"));
        reads += 1;
    }
    // Opening each closed segment's file counts as a read.
    let opened = fixture.segments().len() as u64 - 1;
    assert!(fixture.disk.count(Operation::Read) - before <= reads + opened);
    assert!(all == read_all(&reader, 0, 1 << 20).expect("reads"));
}

#[test]
fn a_reader_sees_what_is_appended_after_it_was_made() {
    let mut fixture = Fixture::new(SMALL);
    let reader = fixture.log.reader();
    let mut cursor = Cursor::new(0);
    let mut all = Vec::new();
    for _ in 0..30 {
        fixture.append(&vec![batch(1, 300); 3]);
        while cursor.offset() < reader.log_end() {
            all.extend_from_slice(&reader.read_next(&mut cursor, 1 << 20, i64::MAX).expect("reads"));
        }
    }
    assert!(all == fixture.model.iter().flat_map(|stored| stored.bytes.clone()).collect::<Vec<u8>>());
}

#[test]
fn a_flush_covers_what_was_appended_before_it_began_and_the_next_one_the_rest() {
    let mut fixture = Fixture::new(SMALL);
    assert!(fixture.log.begin_flush().is_none(), "nothing to flush");
    fixture.append(&vec![batch(1, 500); 20]);
    assert!(fixture.log.wants_flush(), "segments were closed");
    let flush = fixture.log.begin_flush().expect("there is something to flush");
    fixture.append(&vec![batch(1, 500); 20]);
    assert!(fixture.log.begin_flush().is_none(), "one flush at a time");
    let outcome = flush.run();
    assert_eq!(fixture.log.durable_end(), 0);
    assert_eq!(fixture.log.end_flush(outcome).expect("the flush works"), 20);
    fixture.flush();
    assert_eq!(fixture.log.durable_end(), 40);
    assert!(!fixture.log.wants_flush());
    assert!(fixture.log.begin_flush().is_none());
    fixture.check();
}

#[test]
fn a_flush_of_the_closed_segments_leaves_the_active_one_to_the_system() {
    let mut fixture = Fixture::new(SMALL);
    fixture.append(&vec![batch(1, 700); 4]);
    assert!(fixture.log.begin_flush_closed().is_none(), "no segment is closed");
    fixture.append(&vec![batch(1, 700); 8]);
    let syncs = |fixture: &Fixture| fixture.disk.count(Operation::Sync);
    let before = syncs(&fixture);
    let flush = fixture.log.begin_flush_closed().expect("two segments are closed");
    assert!(fixture.log.begin_flush_closed().is_none() && fixture.log.begin_flush().is_none(), "one flush at a time");
    fixture.append(&[batch(1, 700)]);
    assert_eq!(fixture.log.end_flush(flush.run()).expect("the flush works"), 10);
    assert_eq!(syncs(&fixture) - before, 2 * 3 + 1, "three files for each of the two, and the recovery point");
    assert_eq!(fixture.log.durable_end(), 10);
    assert!(!fixture.log.wants_flush() && fixture.log.begin_flush_closed().is_none());

    fixture.disk.crash(4);
    let report = fixture.reopen();
    let scanned_bytes_max = 3 * fixture.model[0].bytes.len() as u64;
    assert!(report.scanned_bytes <= scanned_bytes_max, "the active segment is read and no other: {report:?}");
    assert!(fixture.log.log_end() >= 10);
    fixture.model.truncate(usize::try_from(fixture.log.log_end()).expect("not negative"));
    fixture.check();
}

#[test]
fn what_a_flush_of_the_closed_segments_left_out_is_covered_by_the_next_full_one() {
    let mut fixture = Fixture::new(SMALL);
    fixture.append(&vec![batch(1, 700); 12]);
    let flush = fixture.log.begin_flush_closed().expect("two segments are closed");
    fixture.log.end_flush(flush.run()).expect("the flush works");
    fixture.flush();
    assert_eq!(fixture.log.durable_end(), 12);
    fixture.disk.crash(0);
    fixture.reopen();
    fixture.check();
}

#[test]
fn an_idle_log_is_flushed_with_one_sync() {
    let mut fixture = Fixture::new(ROOMY);
    fixture.append(&[batch(1, 10)]);
    fixture.flush();
    fixture.append(&[batch(1, 10)]);
    let syncs = |fixture: &Fixture| fixture.disk.count(Operation::Sync) + fixture.disk.count(Operation::SyncDir);
    let before = syncs(&fixture);
    fixture.flush();
    assert_eq!(syncs(&fixture) - before, 1);
}

#[test]
fn a_log_that_was_closed_in_order_opens_without_repairs() {
    let mut fixture = Fixture::new(SMALL);
    for round in 0..5 {
        for time in 0..17 + round {
            fixture.append(&[batch_with(&[time, time], 200, Codec::None)]);
        }
        let report;
        (fixture, report) = fixture.close_and_reopen(round.cast_unsigned());
        assert!(report.is_clean(), "{report:?}");
        assert_eq!(fixture.log.durable_end(), fixture.end());
        fixture.check();
    }
}

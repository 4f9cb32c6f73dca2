//! Deleting the oldest records, on disks that work and on others.

use std::path::Path;

use millpond_log::sim::{Fault, Operation};
use millpond_log::{Cursor, Disk, LogError};

use crate::harness::{DIR, Fixture, ROOMY, SMALL, batch, batch_with, files, open};
use crate::time::check_find_time;
use millpond_protocol::compression::Codec;

/// Some segments of five batches of two records each.
pub(crate) fn filled() -> Fixture {
    let mut fixture = Fixture::new(SMALL);
    for time in 0..40 {
        fixture.append(&[batch_with(&[time, time], 330, Codec::None)]);
    }
    fixture.flush();
    assert!(fixture.segments().len() > 5);
    fixture
}

fn expect_out_of_range(read: Result<bytes::Bytes, LogError>, start: i64) {
    match read {
        Err(LogError::OffsetOutOfRange { start: named, .. }) => assert_eq!(named, start),
        other => panic!("expected a range from {start} on, got {other:?}"),
    }
}

#[test]
fn whole_segments_before_the_new_start_go_and_offsets_before_it_are_out_of_range() {
    for before in [1, 7, 10, 11, 33, 79, 80] {
        let mut fixture = filled();
        let segments = fixture.log.reader().segments();
        fixture.delete_before(before);
        for reopened in [false, true] {
            if reopened {
                assert!(fixture.reopen().is_clean());
            }
            fixture.check();
            for offset in [0, before - 1] {
                expect_out_of_range(fixture.log.reader().read(offset, 100, i64::MAX), before);
            }
            let kept = segments.iter().filter(|segment| segment.end_offset > before).count().max(1);
            for ending in [".log", ".index", ".timeindex"] {
                assert_eq!(files(&fixture.disk, ending).len(), kept, "{ending}, before {before}");
            }
            for timestamp in 0..41 {
                check_find_time(&fixture.log.reader(), &fixture.model, timestamp, i64::MAX);
            }
        }
        fixture.append(&vec![batch(3, 500); 10]);
        fixture.check();
    }
}

#[test]
fn there_is_nothing_to_do_before_the_start_and_no_going_behind_the_end() {
    let mut fixture = filled();
    fixture.delete_before(30);
    for before in [i64::MIN, -1, 0, 29, 30] {
        assert!(fixture.log.begin_delete(before).is_none(), "{before}");
    }
    fixture.delete_before(i64::MAX);
    assert_eq!((fixture.log.log_start(), fixture.log.log_end()), (80, 80));
    fixture.check();
}

#[test]
fn a_log_that_rolls_can_lose_everything_and_goes_on_with_its_next_offset() {
    let mut fixture = filled();
    fixture.log.roll().expect("rolls");
    fixture.log.roll().expect("an empty segment is not closed");
    fixture.delete_before(80);
    assert_eq!((fixture.segments().len(), fixture.log.size_bytes()), (1, 0));
    for how in 0..4 {
        match how {
            0 => {}
            1 => drop(fixture.reopen()),
            2 => (fixture, _) = fixture.close_and_reopen(3),
            _ => {
                fixture.disk.crash(5);
                fixture.reopen();
            }
        }
        fixture.check();
        assert_eq!(fixture.log.log_end(), 80 + 2 * how);
        fixture.append(&[batch(2, 10)]);
        fixture.flush();
    }
}

#[test]
fn the_active_segment_goes_later_when_all_of_it_was_deleted() {
    let mut fixture = filled();
    fixture.delete_before(80);
    assert_eq!(fixture.segments().len(), 1);
    assert!(fixture.log.begin_delete(80).is_none(), "it is active");
    fixture.append(&vec![batch(2, 700); 6]);
    assert!(fixture.log.reader().segments()[0].end_offset <= 80);
    let deletion = fixture.log.begin_delete(5).expect("it is not any more");
    assert_eq!(deletion.run().expect("deletes"), 80);
    assert_eq!(fixture.log.reader().segments()[0].base_offset, 80);
    fixture.check();
}

#[test]
fn a_segment_that_was_rolled_is_durable_with_its_indexes_after_a_flush() {
    let mut fixture = Fixture::new(ROOMY);
    fixture.append(&vec![batch(2, 500); 30]);
    // The flush begins before the segment is closed.
    let flush = fixture.log.begin_flush().expect("something to flush");
    fixture.log.roll().expect("rolls");
    fixture.log.end_flush(flush.run()).expect("flushes");
    fixture.flush();
    fixture.disk.crash(0);
    let report = fixture.reopen();
    assert_eq!((report.scanned_bytes, report.rebuilt_indexes.len()), (0, 0), "{report:?}");
    fixture.check();
}

#[test]
fn a_reader_in_a_segment_that_goes_finishes_from_its_open_file_or_is_told_the_range() {
    for was_open in [false, true] {
        let mut fixture = filled();
        fixture.reopen();
        let reader = fixture.log.reader();
        let mut cursor = Cursor::new(0);
        if was_open {
            reader.read_next(&mut cursor, 1, i64::MAX).expect("reads");
        }
        let deletion = fixture.log.begin_delete(50).expect("there is something");
        deletion.run().expect("deletes");
        expect_out_of_range(reader.read_next(&mut cursor, 1, i64::MAX), 50);
        assert_eq!(cursor.offset(), if was_open { 2 } else { 0 }, "the cursor stays where it was");
        fixture.note_start(50);
        fixture.check();
    }
}

#[test]
fn readers_that_run_into_a_deletion_get_right_bytes_or_the_range() {
    let mut fixture = filled();
    let model = fixture.model.clone();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            let (reader, model) = (fixture.log.reader(), &model);
            scope.spawn(move || {
                let mut offset = 0;
                while offset < 80 {
                    match reader.read(offset, 1, i64::MAX) {
                        Ok(read) => {
                            let stored = model.iter().find(|stored| stored.next > offset).expect("a batch holds it");
                            assert!(read == stored.bytes, "offset {offset}");
                            offset = stored.next;
                        }
                        Err(LogError::OffsetOutOfRange { start, .. }) => {
                            assert!(start > offset);
                            offset = start;
                        }
                        Err(error) => panic!("offset {offset}: {error}"),
                    }
                    let _ = reader.find_time(20, i64::MAX).expect("a lookup finds its way, too");
                }
            });
        }
        for before in 1..=70 {
            fixture.delete_before(before);
        }
    });
    fixture.check();
}

#[test]
fn a_flush_beside_a_deletion_does_not_stumble_over_what_is_gone() {
    for early in [false, true] {
        let mut fixture = Fixture::new(SMALL);
        fixture.append(&vec![batch(2, 700); 20]);
        let flush = fixture.log.begin_flush().expect("something to flush");
        let outcome = early.then(|| flush.run());
        fixture.delete_before(30);
        fixture.log.end_flush(outcome.unwrap_or_else(|| flush.run())).expect("the flush works");
        fixture.append(&[batch(2, 700)]);
        fixture.flush();
        assert!(!fixture.log.wants_flush());
        fixture.disk.crash(1);
        fixture.reopen();
        fixture.check();
    }
}

#[test]
fn a_crash_at_any_point_of_a_deletion_brings_nothing_back_that_was_said_to_be_gone() {
    for before in [7, 20, 45, 80] {
        for changes in 0..40 {
            for seed in 0..5 {
                let mut fixture = filled();
                fixture.disk.cut_power_after(changes);
                let deleted = fixture.log.begin_delete(before).expect("there is something").run().is_ok();
                let seen = fixture.log.log_start();
                fixture.disk.crash(seed);
                fixture.reopen();
                let start = fixture.log.log_start();
                assert!(start == before || (start == 0 && !deleted && seen == 0), "{start} after {changes} changes");
                fixture.note_start(start);
                fixture.check();
                assert!(fixture.reopen().is_clean(), "the opening has cleaned up");
            }
        }
    }
}

#[test]
fn an_end_that_is_lost_before_the_start_gives_no_offset_out_again() {
    for seed in 0..30 {
        let mut fixture = Fixture::new(SMALL);
        fixture.append(&vec![batch(2, 700); 5]);
        fixture.flush();
        fixture.append(&vec![batch(2, 700); 15]);
        fixture.delete_before(33);
        fixture.disk.crash(seed);
        fixture.reopen();
        assert_eq!(fixture.log.log_start(), 33);
        assert!(fixture.log.log_end() >= 33);
        let end = fixture.log.log_end();
        fixture.model.retain(|stored| stored.next <= end);
        fixture.check();
        fixture.append(&[batch(2, 700)]);
        fixture.flush();
        fixture.disk.crash(seed);
        assert!(fixture.reopen().damaged.is_empty());
        fixture.check();
    }
}

#[test]
fn segments_behind_a_deleted_recovery_point_count_as_unproven() {
    for seed in 0..30 {
        let mut fixture = Fixture::new(SMALL);
        fixture.append(&vec![batch(2, 700); 20]);
        // Never flushed, and the recovery point names a segment that goes.
        fixture.delete_before(21);
        fixture.disk.crash(seed);
        let report = fixture.reopen();
        assert!(report.damaged.is_empty(), "what was never flushed is cut, and not damaged: {report:?}");
        let end = fixture.log.log_end();
        fixture.model.retain(|stored| stored.next <= end);
        fixture.check();
    }
}

#[test]
fn on_a_full_disk_the_oldest_segments_make_room_for_the_note() {
    for before in [1, 45, 80] {
        let mut fixture = filled();
        let used: u64 = fixture
            .disk
            .list(Path::new(DIR))
            .expect("lists")
            .iter()
            .map(|name| fixture.disk.bytes(&Path::new(DIR).join(name)).expect("a file").len() as u64)
            .sum();
        fixture.disk.limit_bytes(Some(used));
        let deletion = fixture.log.begin_delete(before).expect("there is something");
        if before == 1 {
            assert!(matches!(deletion.run(), Err(LogError::Full { .. })), "no whole segment can make room");
            assert!(fixture.log.failure().is_none());
        } else {
            assert_eq!(deletion.run().expect("deletes"), before);
            fixture.note_start(before);
        }
        fixture.check();
        fixture.disk.crash(2);
        fixture.reopen();
        fixture.check();
    }
}

#[test]
fn a_crash_at_any_point_of_a_deletion_on_a_full_disk_leaves_the_end_of_the_log() {
    for changes in 0..60 {
        for seed in 0..5 {
            let mut fixture = filled();
            fixture.disk.limit_bytes(Some(0));
            fixture.disk.cut_power_after(changes);
            let outcome = fixture.log.begin_delete(45).expect("there is something").run();
            assert!(outcome.is_err(), "there is never room");
            let seen = fixture.log.log_start();
            fixture.disk.crash(seed);
            let (log, report) = open(&fixture.disk, SMALL);
            assert!(report.damaged.is_empty() && report.cut.is_none(), "{report:?}");
            assert!((seen..=45).contains(&log.log_start()), "{} after {seen} was seen", log.log_start());
            fixture.log = log;
            fixture.note_start(fixture.log.log_start());
            fixture.check();
        }
    }
}

#[test]
fn a_deletion_that_fails_changes_nothing_and_the_log_goes_on() {
    let faults = [(Operation::Write, 1), (Operation::Create, 1), (Operation::Sync, 1), (Operation::Rename, 1)];
    for (operation, nth) in faults {
        let mut fixture = filled();
        fixture.disk.fail(operation, nth, Fault::Device);
        let deletion = fixture.log.begin_delete(45).expect("there is something");
        assert!(matches!(deletion.run(), Err(LogError::Io { .. })), "{operation:?}");
        fixture.check();
        fixture.append(&[batch(2, 10)]);
        fixture.delete_before(45);
        fixture.check();
    }
}

#[test]
fn a_file_that_can_not_be_removed_goes_at_the_next_opening() {
    let mut fixture = filled();
    let before = fixture.segments().len();
    fixture.disk.fail(Operation::Remove, 1, Fault::Device);
    fixture.delete_before(45);
    fixture.check();
    let left = fixture.segments().len();
    let report = fixture.reopen();
    assert_eq!(report.removed_leftovers.len(), 1, "{report:?}");
    assert!(fixture.segments().len() < left && left < before);
    fixture.check();
}

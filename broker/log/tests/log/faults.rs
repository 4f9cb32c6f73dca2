//! A disk that fails, fills up, or writes less than it was given.

use std::path::Path;

use millpond_log::sim::{Fault, Operation, Random};
use millpond_log::{Damage, Disk, LogError};
use millpond_protocol::compression::Codec;

use crate::harness::{DIR, Fixture, ROOMY, SMALL, batch, batch_with, config, files, open, random_batch, try_open};

#[test]
fn a_full_disk_refuses_the_append_whole_and_takes_it_once_there_is_room() {
    // Every amount of room, from none to just too little for three batches.
    let three = [batch(2, 100), batch(1, 150), batch(3, 60)];
    let bytes: usize = three.iter().map(|batch| batch.bytes().len()).sum();
    for room in 0..bytes as u64 {
        let mut fixture = Fixture::new(ROOMY);
        fixture.append(&[batch(1, 40)]);
        let used: u64 = files(&fixture.disk, "").iter().map(|path| fixture.disk.bytes(path).expect("a file").len() as u64).sum();
        fixture.disk.limit_bytes(Some(used + room));
        let error = fixture.log.append(&three, 7).expect_err("there is no room");
        assert!(matches!(error, LogError::Full { .. }), "{error}");
        assert!(fixture.log.failure().is_none(), "a full disk is no failure");
        fixture.check();
        let path = fixture.segments()[0].clone();
        assert_eq!(fixture.disk.bytes(&path).expect("a segment").len() as u64, fixture.log.size_bytes(), "nothing is left behind");
        fixture.disk.limit_bytes(None);
        fixture.append(&three);
        fixture.check();
        fixture.reopen();
        fixture.check();
    }
}

#[test]
fn an_append_over_several_segments_that_finds_the_disk_full_leaves_no_segment_behind() {
    let mut fixture = Fixture::new(SMALL);
    fixture.append(&vec![batch(1, 700); 2]);
    let before = files(&fixture.disk, "");
    for nth in 1..5 {
        fixture.disk.fail(Operation::Write, nth, Fault::NoSpace);
        let error = fixture.log.append(&vec![batch(1, 700); 20], 7).expect_err("a write fails");
        assert!(matches!(error, LogError::Full { .. }), "{error}");
        assert_eq!(files(&fixture.disk, ""), before);
        fixture.check();
        fixture.disk.crash(nth);
        fixture.model.truncate(usize::try_from(fixture.log.log_end().min(2)).expect("not negative"));
        fixture.reopen();
        fixture.model.truncate(usize::try_from(fixture.log.log_end()).expect("not negative"));
        fixture.check();
        fixture = Fixture::new(SMALL);
        fixture.append(&vec![batch(1, 700); 2]);
    }
}

#[test]
fn a_segment_that_can_not_be_created_refuses_the_append() {
    for nth in 1..=3 {
        let mut fixture = Fixture::new(SMALL);
        fixture.append(&vec![batch(1, 700); 5]);
        fixture.disk.fail(Operation::Create, nth, Fault::NoSpace);
        assert!(matches!(fixture.log.append(&[batch(1, 700)], 7), Err(LogError::Full { .. })));
        fixture.append(&[batch(1, 700)]);
        fixture.check();
    }
}

#[test]
fn a_failed_write_latches_and_reads_and_flushes_of_what_was_there_go_on() {
    let mut fixture = Fixture::new(ROOMY);
    fixture.append(&vec![batch(2, 50); 3]);
    fixture.disk.fail(Operation::Write, 1, Fault::Device);
    let error = fixture.log.append(&[batch(1, 500)], 7).expect_err("the write fails");
    assert!(matches!(error, LogError::Io { operation: "write", .. }), "{error}");
    let refused = fixture.log.append(&[batch(1, 1)], 7).expect_err("the log is latched");
    assert!(matches!(&refused, LogError::Failed { cause } if cause.contains("write")), "{refused}");
    assert!(fixture.log.failure().is_some());
    fixture.check();
    fixture.flush();
    let path = fixture.segments()[0].clone();
    assert_eq!(fixture.disk.bytes(&path).expect("a segment").len() as u64, fixture.log.size_bytes(), "nothing is left behind");
    fixture.reopen();
    fixture.append(&[batch(1, 500)]);
    fixture.check();
}

#[test]
fn a_full_disk_on_which_the_file_can_not_be_cut_latches_and_shows_nothing() {
    for (operation, expect_left) in [(Operation::SetLen, true), (Operation::Sync, false)] {
        let mut fixture = Fixture::new(ROOMY);
        fixture.append(&[batch(2, 50)]);
        fixture.disk.fail(Operation::Write, 1, Fault::NoSpace);
        fixture.disk.fail(operation, 1, Fault::Device);
        let error = fixture.log.append(&[batch(1, 500)], 7).expect_err("the write fails");
        assert!(matches!(error, LogError::Full { .. }), "{error}");
        assert!(matches!(fixture.log.append(&[batch(1, 500)], 7), Err(LogError::Failed { .. })));
        assert!(fixture.log.begin_flush().is_none(), "a sync may have failed, and no other can be believed");
        fixture.check();
        let path = fixture.segments()[0].clone();
        assert_eq!(fixture.disk.bytes(&path).expect("a segment").len() as u64 > fixture.log.size_bytes(), expect_left);
        let report = fixture.reopen();
        assert_eq!(report.truncated_bytes > 0, expect_left);
        fixture.check();
    }
}

#[test]
fn a_failed_flush_latches_and_reads_go_on() {
    for operation in [Operation::Sync, Operation::SyncDir] {
        let mut fixture = Fixture::new(SMALL);
        fixture.append(&[batch(1, 50)]);
        fixture.flush();
        fixture.append(&vec![batch(1, 700); 12]);
        let flush = fixture.log.begin_flush().expect("there is something to flush");
        fixture.disk.fail(operation, 1, Fault::Device);
        let error = fixture.log.end_flush(flush.run()).expect_err("the flush fails");
        assert!(matches!(error, LogError::Io { operation: "flush", .. }), "{error}");
        assert_eq!(fixture.log.durable_end(), 1, "nothing more is promised");
        assert!(matches!(fixture.log.append(&[batch(1, 1)], 7), Err(LogError::Failed { cause }) if cause.contains("flush")));
        assert!(fixture.log.begin_flush().is_none(), "a failed flush can't be repeated");
        fixture.check();
        assert!(matches!(fixture.log.close(), Err(LogError::Failed { .. })));
    }
}

#[test]
fn a_flush_beside_a_sync_that_failed_acknowledges_nothing() {
    // The flush syncs after the failure, or before it.
    for syncs_late in [true, false] {
        let mut fixture = Fixture::new(ROOMY);
        fixture.append(&[batch(1, 50)]);
        fixture.flush();
        fixture.append(&[batch(2, 50)]);
        let flush = fixture.log.begin_flush().expect("there is something to flush");
        let early = (!syncs_late).then(|| flush.run());
        // An append finds the disk full, and what it has written can't be taken back durably.
        fixture.disk.fail(Operation::Write, 1, Fault::NoSpace);
        fixture.disk.fail(Operation::Sync, 1, Fault::Device);
        fixture.log.append(&[batch(1, 500)], 7).expect_err("there is no room");
        // The system has told of the lost bytes once. It says that all is well now.
        let outcome = early.unwrap_or_else(|| flush.run());
        assert!(outcome.is_ok(), "{outcome:?}");
        let error = fixture.log.end_flush(outcome).expect_err("the success is no evidence");
        assert!(matches!(error, LogError::Failed { .. }), "{error}");
        assert_eq!(fixture.log.durable_end(), 1, "nothing more is promised");
        assert!(fixture.log.begin_flush().is_none());
        fixture.check();
    }
}

/// How many rolls of a segment the append of `appended` batches needs; each makes three files.
fn creations(appended: &[millpond_protocol::batch::Batch]) -> u64 {
    let mut fixture = rolled();
    let before = fixture.disk.count(Operation::Create);
    fixture.append(appended);
    fixture.disk.count(Operation::Create) - before
}

/// A log whose active segment is full.
fn rolled() -> Fixture {
    let mut fixture = Fixture::new(SMALL);
    fixture.append(&vec![batch(1, 700); 5]);
    fixture.flush();
    fixture
}

#[test]
fn a_segment_for_which_no_descriptor_is_left_refuses_the_append_and_is_tried_again() {
    // The first segment of the append, and the second one, when the first is written already.
    let six = vec![batch(1, 700); 6];
    assert_eq!(creations(&six), 6);
    for nth in 1..=6 {
        let mut fixture = rolled();
        let before = files(&fixture.disk, ".log");
        fixture.disk.fail(Operation::Create, nth, Fault::TooManyOpenFiles);
        let error = fixture.log.append(&six, 7).expect_err("there is no descriptor");
        assert!(matches!(error, LogError::TooManyOpenFiles { operation: "create", .. }), "{error}");
        assert!(error.code().retryable());
        assert!(fixture.log.failure().is_none(), "nothing was lost: {:?}", fixture.log.failure());
        assert_eq!(files(&fixture.disk, ".log"), before);
        fixture.check();
        fixture.append(&six);
        fixture.flush();
        fixture.disk.crash(nth);
        fixture.reopen();
        fixture.check();
    }
}

#[test]
fn a_flush_for_which_no_descriptor_is_left_acknowledges_nothing_and_the_next_one_all() {
    let mut fixture = rolled();
    fixture.append(&vec![batch(1, 700); 2]);
    let flush = fixture.log.begin_flush().expect("there is something to flush");
    fixture.disk.fail(Operation::SyncDir, 1, Fault::TooManyOpenFiles);
    let error = fixture.log.end_flush(flush.run()).expect_err("the folder can't be opened");
    assert!(matches!(error, LogError::TooManyOpenFiles { operation: "flush", .. }), "{error}");
    assert_eq!(fixture.log.durable_end(), 5, "the new segment's name is not durable");
    assert!(fixture.log.failure().is_none(), "no sync has failed");
    fixture.append(&[batch(1, 700)]);
    let before = fixture.disk.count(Operation::SyncDir);
    fixture.flush();
    // One more for the recovery point.
    assert_eq!(fixture.disk.count(Operation::SyncDir) - before, 2, "the name is made up for");
    fixture.disk.crash(1);
    fixture.reopen();
    fixture.check();
}

#[test]
fn short_writes_are_completed() {
    for seed in 0..100 {
        let mut fixture = Fixture::new(SMALL);
        fixture.disk.shorten_writes(Some(seed));
        let mut random = Random::new(seed);
        for _ in 0..10 {
            let some: Vec<_> = (0..=random.below(5)).map(|_| random_batch(&mut random, 0)).collect();
            fixture.append(&some);
            fixture.flush();
        }
        fixture.check();
        fixture.disk.crash(seed);
        assert_eq!(fixture.reopen().truncated_bytes, 0);
        fixture.check();
    }
}

#[test]
fn a_disk_that_takes_no_index_entries_loses_none() {
    let mut fixture = Fixture::new(config(1 << 30, 0));
    for number in 0..1_200 {
        // Once 512 entries have gathered, the append tries to write them after its batches, and again once 512 more have.
        if number == 512 {
            fixture.disk.fail(Operation::Write, 2, Fault::NoSpace);
        }
        fixture.append(&[batch(1, 10)]);
    }
    let index = files(&fixture.disk, ".index").pop().expect("an index");
    assert_eq!(fixture.disk.bytes(&index).expect("an index").len(), 1_024 * 8, "written at the next try");
    for offset in (0..1_200).step_by(100) {
        assert_eq!(fixture.log.reader().read(offset, 1, i64::MAX).expect("reads").len(), fixture.model[0].bytes.len());
    }
}

#[test]
fn an_index_that_can_not_be_completed_keeps_the_recovery_point_back_until_it_can() {
    let mut fixture = Fixture::new(SMALL);
    fixture.append(&vec![batch(1, 700); 12]);
    let flush = fixture.log.begin_flush().expect("there is something to flush");
    fixture.disk.fail(Operation::Write, 1, Fault::NoSpace);
    fixture.log.end_flush(flush.run()).expect("the batches are durable all the same");
    assert_eq!(fixture.log.durable_end(), 12);
    let scanned = {
        let (log, report) = crate::harness::open(&fixture.disk, SMALL);
        drop(log);
        report.scanned_bytes
    };
    assert_eq!(scanned, fixture.log.size_bytes(), "the recovery reads all segments");

    let mut fixture = Fixture::new(SMALL);
    fixture.append(&vec![batch(1, 700); 12]);
    let flush = fixture.log.begin_flush().expect("there is something to flush");
    fixture.disk.fail(Operation::Write, 1, Fault::NoSpace);
    fixture.log.end_flush(flush.run()).expect("the batches are durable all the same");
    fixture.append(&[batch(1, 10)]);
    fixture.flush();
    let report = fixture.reopen();
    assert!(report.scanned_bytes < fixture.log.size_bytes(), "the next flush has completed it");
    assert!(report.is_clean(), "{report:?}");
    fixture.check();
}

/// What the recovery point says, in words.
fn recovery_point(fixture: &Fixture) -> String {
    let bytes = fixture.disk.bytes(&Path::new(DIR).join("recovery-point")).expect("it is there");
    String::from_utf8(bytes).expect("text").lines().nth(1).expect("a second line").trim_start_matches('0').to_owned()
}

#[test]
fn after_a_failed_sync_of_an_index_no_later_sync_is_believed() {
    let mut fixture = Fixture::new(SMALL);
    fixture.append(&vec![batch(1, 700); 6]);
    // The batches of the closed segment and of the active one, then the index.
    fixture.disk.fail(Operation::Sync, 3, Fault::Device);
    fixture.flush();
    fixture.append(&vec![batch(1, 700); 6]);
    fixture.flush();
    assert_eq!(recovery_point(&fixture), "", "the recovery point stays in front of the segment");
    fixture.disk.crash(0);
    fixture.reopen();
    fixture.check();
    assert_eq!(recovery_point(&fixture), "10");
}

/// The system shows what it could not write until the next boot, so no sync of a later process is evidence either.
#[test]
fn after_a_failed_sync_of_an_index_a_kill_and_a_power_cut_no_lookup_is_wrong() {
    // The syncs are those of the closed segment, of the active one, and of the closed one's indexes.
    for nth in [3, 4] {
        for seed in 0..10 {
            let mut fixture = Fixture::new(SMALL);
            let append = |fixture: &mut Fixture, times: &[i64]| {
                for time in times {
                    fixture.append(&[batch_with(&[*time], 640, Codec::None)]);
                }
            };
            // A part of the indexes is durable: with it they look as if they belonged to a segment without the rest.
            append(&mut fixture, &[3_000, 100]);
            fixture = fixture.close_and_reopen(seed).0;
            append(&mut fixture, &[9_000, 200, 300, 400]);
            assert_eq!(fixture.segments().len(), 2);
            let flush = fixture.log.begin_flush().expect("there is something to flush");
            fixture.disk.fail(Operation::Sync, nth, Fault::Device);
            fixture.log.end_flush(flush.run()).expect("the batches are durable all the same");
            // Killed, and started again on the same system; then the power goes.
            fixture.reopen();
            fixture.disk.crash(seed);
            fixture.reopen();
            fixture.check();
            for timestamp in (0..9_500).step_by(250) {
                crate::time::check_find_time(&fixture.log.reader(), &fixture.model, timestamp, i64::MAX);
            }
        }
    }
}

#[test]
fn after_a_failed_sync_of_the_last_index_the_stop_is_not_clean() {
    for nth in [1, 2] {
        let mut fixture = Fixture::new(config(1 << 30, 0));
        for time in 0..600 {
            fixture.append(&[batch_with(&[1_000 - time], 10, Codec::None)]);
        }
        fixture.flush();
        fixture.disk.fail(Operation::Sync, nth, Fault::Device);
        let Fixture { disk, log, config, model, .. } = fixture;
        log.close().expect("the batches are durable");
        assert!(files(&disk, "clean-stop").is_empty());
        // The next process is stopped in order, on the same system, and has nothing to flush.
        let (log, report) = crate::harness::open(&disk, config);
        assert!(!report.clean_stop);
        log.close().expect("closes");
        disk.crash(nth);
        let (log, report) = crate::harness::open(&disk, config);
        assert!(report.clean_stop && report.is_clean(), "{report:?}");
        crate::harness::check(&log.reader(), &model);
        for timestamp in (300..1_100).step_by(50) {
            crate::time::check_find_time(&log.reader(), &model, timestamp, i64::MAX);
        }
    }
}

#[test]
fn an_opening_that_can_not_complete_an_index_keeps_the_recovery_point_back() {
    let mut fixture = Fixture::new(SMALL);
    fixture.append(&vec![batch(1, 700); 12]);
    fixture.disk.fail(Operation::Write, 1, Fault::NoSpace);
    fixture.reopen();
    fixture.check();
    assert_eq!(recovery_point(&fixture), "");
    fixture.append(&vec![batch(1, 700); 6]);
    fixture.flush();
    assert_eq!(recovery_point(&fixture), "15", "the next flush has completed it");
    fixture.disk.crash(0);
    only_the_last_indexes_were_rebuilt(&mut fixture);
}

/// Opens the log. The indexes of the last segment are never synced, and may be torn.
fn only_the_last_indexes_were_rebuilt(fixture: &mut Fixture) {
    let mut report = fixture.reopen();
    let last = fixture.segments().pop().expect("segments");
    report.rebuilt_indexes.retain(|path| path.file_stem() != last.file_stem());
    assert!(report.is_clean(), "{report:?}");
}

#[test]
fn what_an_opening_has_repaired_is_whole_after_a_power_cut() {
    for seed in 0..30 {
        let mut fixture = Fixture::new(SMALL);
        for time in 0..40 {
            fixture.append(&[batch_with(&[time; 2], usize::try_from(time % 7 * 31).expect("small"), Codec::None)]);
        }
        fixture.reopen();
        fixture.disk.crash(seed);
        only_the_last_indexes_were_rebuilt(&mut fixture);
        fixture.check();
    }
}

#[test]
fn a_full_disk_can_still_be_opened() {
    let mut fixture = Fixture::new(SMALL);
    fixture.append(&vec![batch(1, 700); 12]);
    fixture.flush();
    for path in files(&fixture.disk, "index") {
        fixture.disk.remove_file(&path).expect("it is there");
    }
    fixture.disk.limit_bytes(Some(0));
    fixture.reopen();
    fixture.check();
    for stored in &fixture.model {
        assert_eq!(fixture.log.reader().read(stored.base, 1, i64::MAX).expect("reads"), stored.bytes);
    }
    assert!(matches!(fixture.log.append(&[batch(1, 700)], 7), Err(LogError::Full { .. })));
    fixture.disk.limit_bytes(None);
    fixture.append(&[batch(1, 700)]);
}

#[test]
fn a_read_that_fails_says_so_and_the_next_one_works() {
    let mut fixture = Fixture::new(ROOMY);
    fixture.append(&[batch(2, 50)]);
    let path = fixture.segments()[0].clone();
    fixture.disk.make_unreadable(&path, std::slice::from_ref(&(0..1)));
    let read = fixture.log.reader().read(0, 100, 2);
    assert!(matches!(&read, Err(LogError::Corrupt { position: 0, reason: Damage::Unreadable(_), .. })), "{read:?}");
    fixture.disk.make_unreadable(&path, &[]);
    fixture.check();
    // A disk that fails once costs nobody a read.
    fixture.disk.fail(Operation::Read, 1, Fault::Device);
    fixture.check();
    fixture.append(&[batch(2, 50)]);
}

#[test]
fn after_an_opening_or_a_close_whose_flush_fails_the_next_opening_does_not_take_the_systems_word() {
    for closes in [false, true] {
        let mut fixture = Fixture::new(ROOMY);
        fixture.append(&[batch(3, 100)]);
        let (disk, end) = (fixture.disk.clone(), fixture.end());
        disk.fail(Operation::Sync, 1, Fault::Device);
        let has_failed = if closes { fixture.log.close().is_err() } else { try_open(&disk, ROOMY).is_err() };
        assert!(has_failed && files(&disk, "flush-failed").len() == 1);
        // What it counts as durable is.
        assert_eq!(open(&disk, ROOMY).0.durable_end(), end);
        disk.crash(1);
        assert_eq!(open(&disk, ROOMY).0.log_end(), end, "closes: {closes}");
    }
}

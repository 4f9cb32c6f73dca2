//! Producers whose batches are numbered: what the log remembers of them, through rolls, flushes, crashes and damage.

use std::path::{Path, PathBuf};

use millpond_log::sim::{Fault, Operation, Random, SimDisk};
use millpond_log::{Admission, AppendRun, Appended, Disk, Log, Now, PRODUCERS_MAX, SequenceError, SequenceOrder};
use millpond_protocol::batch::{Batch, checksum};

use crate::harness::{DIR, Fixture, ROOMY, SMALL, batch, config, open, try_open};
use crate::numbers::{numbered, remembered, replayed};

fn now(monotonic_ms: i64) -> Now {
    Now { wall_ms: 1_763_700_000_000 + monotonic_ms, monotonic_ms }
}

/// A batch of some records of producer 7.
fn sent(base_sequence: i32, records: usize) -> Batch {
    numbered(&batch(records, 100), 7, 0, base_sequence)
}

fn admit(log: &Log, run: &mut AppendRun, batch: &Batch) -> Result<Admission, SequenceError> {
    log.admit(run, batch.header(), SequenceOrder::Next, false)
}

/// Sends a batch as a broker would, and says where it is.
fn send(fixture: &mut Fixture, batch: &Batch) -> Result<Appended, SequenceError> {
    let mut run = fixture.log.begin_run(now(0));
    match admit(&fixture.log, &mut run, batch)? {
        Admission::Append { base_offset } => {
            assert_eq!(base_offset, fixture.log.log_end());
            fixture.append(std::slice::from_ref(batch));
            fixture.log.settle_run(run);
            let last_offset = fixture.log.log_end() - 1;
            Ok(Appended { base_offset, last_offset, append_time_ms: now(0).wall_ms, records_dropped: 0 })
        }
        Admission::Repeated(appended) => Ok(appended),
        Admission::Skip => panic!("there is something to store"),
    }
}

fn check(fixture: &Fixture) {
    fixture.check();
    assert_eq!(remembered(&fixture.log), replayed(&fixture.model));
}

fn recovery_point() -> PathBuf {
    Path::new(DIR).join("recovery-point")
}

#[test]
fn a_batch_that_is_sent_again_gets_the_offsets_of_the_first_time() {
    let mut fixture = Fixture::new(SMALL);
    let mut answers = Vec::new();
    for number in 0..30 {
        fixture.append(&[batch(2, 50)]);
        answers.push(send(&mut fixture, &sent(3 * number, 3)).expect("the next one"));
    }
    for how in 0..4 {
        for number in 0..30_u8 {
            let again = send(&mut fixture, &sent(3 * i32::from(number), 3));
            if number < 25 {
                let duplicate = SequenceError::Duplicate { producer_id: 7, epoch: 0, expected: 90, found: 3 * i32::from(number) + 2 };
                assert_eq!(again, Err(duplicate));
                continue;
            }
            let again = again.expect("it is remembered");
            let first = answers[usize::from(number)];
            assert_eq!(Appended { append_time_ms: first.append_time_ms, ..again }, first);
            // A clean stop keeps the time as well; what a recovery has read anew has lost it.
            assert!(again.append_time_ms == first.append_time_ms || (again.append_time_ms == -1 && how >= 2));
        }
        let gap = SequenceError::OutOfOrder { producer_id: 7, epoch: 0, expected: 90, found: 91 };
        assert_eq!(send(&mut fixture, &sent(91, 3)), Err(gap));
        check(&fixture);
        if how == 0 {
            fixture = fixture.close_and_reopen(1).0;
        } else {
            fixture.flush();
            fixture.disk.crash(how);
            fixture.disk.remove_file(&Path::new(DIR).join("clean-stop")).ok();
            fixture.reopen();
        }
    }
    send(&mut fixture, &sent(90, 3)).expect("the producer goes on");
}

#[test]
fn a_repetition_within_one_run_gets_the_offsets_that_the_first_one_will_get() {
    let mut fixture = Fixture::new(ROOMY);
    fixture.append(&[batch(4, 10)]);
    let mut run = fixture.log.begin_run(now(5));
    let (first, second) = (sent(0, 3), sent(3, 2));
    assert_eq!(admit(&fixture.log, &mut run, &first), Ok(Admission::Append { base_offset: 4 }));
    assert_eq!(admit(&fixture.log, &mut run, &batch(5, 1)), Ok(Admission::Append { base_offset: 7 }));
    assert_eq!(admit(&fixture.log, &mut run, &second), Ok(Admission::Append { base_offset: 12 }));
    let appended = Appended { base_offset: 4, last_offset: 6, append_time_ms: now(5).wall_ms, records_dropped: 0 };
    assert_eq!(admit(&fixture.log, &mut run, &first), Ok(Admission::Repeated(appended)));
    assert_eq!(fixture.log.producers(), [], "nothing is known of it before it is appended");
    fixture.append(&[first.clone(), batch(5, 1), second]);
    assert_eq!(remembered(&fixture.log), replayed(&fixture.model), "the append itself takes it down, but for the time");
    fixture.log.settle_run(run);
    check(&fixture);
    let mut run = fixture.log.begin_run(now(6));
    assert_eq!(admit(&fixture.log, &mut run, &first), Ok(Admission::Repeated(appended)));
    assert_eq!(fixture.log.producers()[0].batches[1].appended.base_offset, 12);
}

#[test]
fn an_append_that_fails_changes_nothing_of_what_is_remembered() {
    for (operation, fault) in [(Operation::Write, Fault::NoSpace), (Operation::Write, Fault::Device), (Operation::Create, Fault::NoSpace)] {
        let mut fixture = Fixture::new(config(600, 100));
        send(&mut fixture, &sent(0, 2)).expect("the first");
        let before = fixture.log.producers();
        let mut run = fixture.log.begin_run(now(1));
        let run_batches: Vec<_> = (1..4).map(|number| sent(2 * number, 2)).chain([numbered(&batch(1, 100), 8, 0, 0)]).collect();
        for batch in &run_batches {
            admit(&fixture.log, &mut run, batch).expect("the next one");
        }
        // The second of several, so that some are written and a segment is begun.
        fixture.disk.fail(operation, 2, fault);
        fixture.log.append(&run_batches, 7).expect_err("the disk fails");
        drop(run);
        assert_eq!(fixture.log.producers(), before);
        if fixture.log.failure().is_some() {
            fixture.reopen();
            let left = fixture.log.log_end();
            fixture.model.extend(crate::harness::stored(2, 7, &run_batches));
            fixture.model.retain(|stored| stored.next <= left);
        }
        check(&fixture);
        // What was not stored is taken when it comes again, and what was is not.
        for batch in &run_batches {
            send(&mut fixture, batch).expect("it comes again");
        }
        assert_eq!(fixture.log.log_end(), 9);
        check(&fixture);
    }
}

#[test]
fn what_the_recovery_point_says_is_what_the_batches_before_it_say() {
    // One flush for everything: the point moves over many segments at once, and lags behind in between.
    let mut fixture = Fixture::new(SMALL);
    let mut random = Random::new(3);
    for number in 0..120 {
        let producer = i64::from(number % 3);
        fixture.append(&[numbered(&batch(2, 300), producer, 0, number / 3 * 2)]);
        match random.below(12) {
            0 => fixture.flush(),
            // Rolls while the flush runs: the point is where the segment began that was active when the flush did.
            1 => {
                if let Some(flush) = fixture.log.begin_flush() {
                    fixture.append(&vec![numbered(&batch(1, 900), 100 + i64::from(number), 0, 0); 6]);
                    fixture.log.end_flush(flush.run()).expect("flushes");
                }
            }
            2 => fixture.log.roll().expect("rolls"),
            3 => {
                fixture.log.roll().expect("rolls");
                let Some(flush) = fixture.log.begin_flush_closed() else { continue };
                fixture.append(&vec![numbered(&batch(1, 900), 100 + i64::from(number), 0, 0); 6]);
                fixture.log.end_flush(flush.run()).expect("flushes");
            }
            _ => {}
        }
        if number % 10 == 9 {
            let (log, _) = open(&fixture.disk, SMALL);
            assert_eq!(remembered(&log), replayed(&fixture.model), "after {number}");
            fixture.log = log;
        }
    }
    check(&fixture);
}

#[test]
fn without_a_recovery_point_the_headers_of_all_segments_are_read_and_a_damaged_one_is_passed_over() {
    type Change = fn(&SimDisk);
    let changes: [Change; 4] = [
        |disk| disk.remove_file(&recovery_point()).expect("it is there"),
        |disk| disk.damage(&recovery_point(), |bytes| bytes[50] ^= 1),
        |disk| disk.damage(&recovery_point(), Vec::clear),
        // One of a log that was copied from elsewhere.
        |disk| disk.damage(&recovery_point(), |bytes| *bytes = b"millpond recovery point 1\n00000000000000000002\n".to_vec()),
    ];
    for change in changes {
        let mut fixture = Fixture::new(SMALL);
        for number in 0..40 {
            fixture.append(&[numbered(&batch(1, 400), i64::from(number % 4), 0, number / 4)]);
        }
        fixture = fixture.close_and_reopen(0).0;
        change(&fixture.disk);
        fixture.reopen();
        check(&fixture);
        // And it is written down again.
        let report = fixture.reopen();
        assert!(report.is_clean());
        check(&fixture);

        // A header that can't be read hides what is behind it in its segment, and nothing else.
        let paths = fixture.segments();
        fixture.disk.damage(&paths[1], |bytes| bytes[16] = 9);
        change(&fixture.disk);
        fixture.reopen();
        let base: i64 = paths[1].file_stem().and_then(|name| name.to_str()).expect("a name").parse().expect("an offset");
        let next: i64 = paths[2].file_stem().and_then(|name| name.to_str()).expect("a name").parse().expect("an offset");
        let readable: Vec<_> = fixture.model.iter().filter(|stored| stored.base < base || stored.base >= next).cloned().collect();
        assert_eq!(remembered(&fixture.log), replayed(&readable));
        fixture.append(&[batch(1, 1)]);
    }
}

#[test]
fn a_segment_that_can_not_be_read_for_its_producers_does_not_keep_the_log_from_opening() {
    let mut fixture = Fixture::new(SMALL);
    for number in 0..40 {
        fixture.append(&[numbered(&batch(1, 400), i64::from(number % 4), 0, number / 4)]);
    }
    fixture.flush();
    let mut opened = 0;
    for nth in 1..60 {
        fixture.disk.remove_file(&recovery_point()).ok();
        fixture.disk.fail(Operation::Read, nth, Fault::Device);
        // Other reads of an opening may not fail.
        let Ok((log, _)) = try_open(&fixture.disk, SMALL) else { continue };
        opened += 1;
        crate::harness::check(&log.reader(), &fixture.model);
        let all = replayed(&fixture.model);
        assert!(log.producers().iter().all(|state| all.iter().any(|other| other.producer_id == state.producer_id)));
    }
    assert!(opened > 5);
}

#[test]
fn the_layouts_before_are_those_of_logs_without_producers() {
    let mut fixture = Fixture::new(SMALL);
    fixture.append(&vec![batch(1, 700); 12]);
    fixture = fixture.close_and_reopen(0).0;
    let point = String::from_utf8(fixture.disk.bytes(&recovery_point()).expect("a point")).expect("text");
    let digits = point.lines().nth(1).expect("an offset").to_owned();
    fixture.disk.damage(&recovery_point(), |bytes| *bytes = format!("millpond recovery point 1\n{digits}\n").into_bytes());
    let note = Path::new(DIR).join("clean-stop");
    fixture.disk.damage(&note, |bytes| {
        bytes.truncate(96);
        bytes[..8].copy_from_slice(b"mpclean1");
        let crc = checksum(bytes);
        bytes.extend_from_slice(&crc.to_be_bytes());
    });
    let report = fixture.reopen();
    assert!(report.clean_stop && report.is_clean() && report.scanned_bytes == 0, "{report:?}");
    check(&fixture);
    send(&mut fixture, &sent(0, 1)).expect("its first");
    fixture.reopen();
    check(&fixture);
}

#[test]
fn deleting_records_forgets_no_producer() {
    let mut fixture = Fixture::new(SMALL);
    for number in 0..40 {
        fixture.append(&[numbered(&batch(1, 400), i64::from(number % 4), 0, number / 4)]);
    }
    fixture.flush();
    let before = remembered(&fixture.log);
    fixture.delete_before(40);
    assert_eq!(remembered(&fixture.log), before);
    fixture.reopen();
    assert_eq!(remembered(&fixture.log), before);
    // Nor does a log that is left without any segment.
    fixture.log.roll().expect("rolls");
    fixture.flush();
    for path in fixture.segments() {
        fixture.disk.remove_file(&path).expect("it is there");
    }
    fixture.reopen();
    assert_eq!(remembered(&fixture.log), before);
    let appended = send(&mut fixture, &numbered(&batch(1, 400), 0, 0, 10)).expect("the next one");
    assert_eq!(appended.base_offset, 40);
}

#[test]
fn a_skipped_batch_takes_no_offset_and_is_remembered_until_a_crash() {
    let mut fixture = Fixture::new(SMALL);
    send(&mut fixture, &sent(0, 1)).expect("the first");
    let mut run = fixture.log.begin_run(now(1));
    let skipped = sent(1, 2);
    assert_eq!(fixture.log.admit(&mut run, skipped.header(), SequenceOrder::Next, true), Ok(Admission::Skip));
    fixture.log.settle_run(run);
    assert_eq!(fixture.log.log_end(), 1);
    let nothing = Appended { base_offset: -1, last_offset: -1, append_time_ms: now(1).wall_ms, records_dropped: 0 };
    assert_eq!(send(&mut fixture, &skipped), Ok(nothing));
    // Over a clean stop too, whether or not anything was appended before it.
    fixture.log.roll().expect("rolls");
    fixture = fixture.close_and_reopen(0).0;
    assert_eq!(send(&mut fixture, &skipped), Ok(nothing));
    let mut run = fixture.log.begin_run(now(1));
    assert_eq!(fixture.log.admit(&mut run, sent(3, 1).header(), SequenceOrder::Next, true), Ok(Admission::Skip));
    fixture.log.settle_run(run);
    let (mut fixture, report) = fixture.close_and_reopen(0);
    assert!(report.clean_stop && report.is_clean(), "{report:?}");
    send(&mut fixture, &sent(4, 1)).expect("the next one");
    fixture.check();
    // In a crash it is lost, and its producer is told.
    let mut run = fixture.log.begin_run(now(1));
    assert_eq!(fixture.log.admit(&mut run, sent(5, 1).header(), SequenceOrder::Next, true), Ok(Admission::Skip));
    fixture.log.settle_run(run);
    fixture.reopen();
    let gap = SequenceError::OutOfOrder { producer_id: 7, epoch: 0, expected: 5, found: 6 };
    assert_eq!(send(&mut fixture, &sent(6, 1)), Err(gap));
}

#[test]
fn a_log_that_is_cut_forgets_what_it_has_lost() {
    let mut fixture = Fixture::new(ROOMY);
    for number in 0..8 {
        send(&mut fixture, &sent(number, 1)).expect("the next one");
    }
    fixture.flush();
    let path = fixture.segments()[0].clone();
    fixture.disk.damage(&path, |bytes| bytes.truncate(bytes.len() - 1));
    let report = fixture.reopen();
    assert!(report.cut.is_some());
    fixture.model.pop();
    check(&fixture);
    send(&mut fixture, &sent(7, 1)).expect("it is not there any more");
    check(&fixture);
}

#[test]
fn after_a_repair_the_producers_are_those_of_what_is_left() {
    let mut fixture = Fixture::new(SMALL);
    for number in 0..40 {
        fixture.append(&[numbered(&batch(1, 400), i64::from(number % 4), 0, number / 4)]);
    }
    let mut fixture = fixture.close_and_reopen(0).0;
    let path = fixture.segments()[2].clone();
    fixture.disk.damage(&path, |bytes| {
        let at = bytes.len() - 1;
        bytes[at] ^= 1;
    });
    let disk: std::sync::Arc<dyn Disk> = std::sync::Arc::new(fixture.disk.clone());
    let plan = crate::inspect::plan(&fixture.disk, millpond_log::inspect::RepairMode::Truncate);
    plan.apply_with(&disk, SMALL).expect("repairs");
    fixture.reopen();
    let end = fixture.log.log_end();
    assert!(end < 40);
    fixture.model.retain(|stored| stored.next <= end);
    check(&fixture);
    assert!(fixture.disk.bytes(&recovery_point()).is_ok_and(|bytes| !bytes.windows(7).any(|word| word == b"unknown")));
}

#[test]
fn the_largest_state_is_written_down_and_read_back() {
    let mut fixture = Fixture::new(ROOMY);
    for round in 0..5 {
        let many: Vec<_> = (0..PRODUCERS_MAX + 100)
            .map(|number| numbered(&batch(1, 1), i64::MAX - i64::try_from(number).expect("small"), i16::MAX, i32::MAX - 5 + round))
            .collect();
        fixture.append(&many);
    }
    let before = fixture.log.producers();
    assert_eq!(before.len(), PRODUCERS_MAX);
    fixture.log.roll().expect("rolls");
    fixture.flush();
    fixture.append(&[batch(1, 1)]);
    fixture.reopen();
    assert_eq!(fixture.log.producers(), before);
    let (fixture, report) = fixture.close_and_reopen(0);
    assert!(report.clean_stop);
    assert_eq!(fixture.log.producers(), before);
}

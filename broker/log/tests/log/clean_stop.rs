//! Logs that were closed in order, and notes of it that are not true.

use std::path::{Path, PathBuf};

use millpond_log::sim::{Fault, Operation, Random, SimDisk};
use millpond_log::{Disk, LogConfig, LogError, OpenMode, write_all_at};
use millpond_protocol::compression::Codec;

use crate::compacted::faults;
use crate::harness::{DIR, Fixture, ROOMY, SMALL, batch, batch_with, config, files, open, prepared_disk, random_batch, try_open};
use crate::time::check_find_time;

const CHANGES: [Operation; 7] =
    [Operation::Write, Operation::SetLen, Operation::Sync, Operation::SyncDir, Operation::Create, Operation::Rename, Operation::Remove];

fn note() -> PathBuf {
    Path::new(DIR).join("clean-stop")
}

/// A log of several segments that was closed in order.
fn closed(config: LogConfig, batches: usize) -> Fixture {
    let mut fixture = Fixture::new(config);
    let mut random = Random::new(batches as u64);
    for _ in 0..batches {
        let clock = random.below(50_000).cast_signed();
        fixture.append(&[random_batch(&mut random, clock)]);
    }
    let (fixture, report) = fixture.close_and_reopen(1);
    assert!(report.clean_stop, "{report:?}");
    fixture
}

/// Holds everything that can be read against what there should be.
fn check_all(fixture: &Fixture) {
    fixture.check();
    let reader = fixture.log.reader();
    for stored in &fixture.model {
        assert_eq!(reader.read(stored.base, 1, i64::MAX).expect("reads"), stored.bytes);
    }
    for timestamp in (0..50_000).step_by(5_000) {
        check_find_time(&reader, &fixture.model, timestamp, i64::MAX);
    }
}

#[test]
fn after_a_clean_stop_nothing_is_scanned_written_or_synced() {
    for config in [SMALL, ROOMY, config(1, 0)] {
        let mut fixture = closed(config, 50);
        // A log that nobody writes to is not written to by closing it either.
        for _ in 0..3 {
            let before = CHANGES.map(|operation| fixture.disk.count(operation));
            let (log, report) = open(&fixture.disk, config);
            assert!(report.clean_stop && report.scanned_bytes == 0 && report.is_clean(), "{report:?}");
            assert_eq!(log.durable_end(), fixture.end());
            fixture.log = log;
            check_all(&fixture);
            std::mem::replace(&mut fixture.log, open(&fixture.disk, config).0).close().expect("closes");
            assert_eq!(CHANGES.map(|operation| fixture.disk.count(operation)), before);
        }
        fixture.append(&[batch(2, 100)]);
        assert!(!fixture.disk.exists(&note()).expect("looks"), "it is gone before the first append");
        let report = fixture.reopen();
        assert!(!report.clean_stop && report.is_clean(), "{report:?}");
        check_all(&fixture);
    }
}

#[test]
fn a_log_that_is_closed_often_has_the_files_of_one_that_never_was() {
    for (number, config) in [SMALL, config(4_096, 0), config(20_000, 300)].into_iter().enumerate() {
        let mut random = Random::new(number as u64);
        let mut often = Fixture::new(config);
        let mut never = Fixture::new(config);
        for round in 0..60 {
            let clock = random.below(10_000).cast_signed();
            let batches: Vec<_> = (0..=random.below(3)).map(|_| random_batch(&mut random, clock)).collect();
            often.append(&batches);
            never.append(&batches);
            if random.percent(40) {
                let report;
                (often, report) = often.close_and_reopen(round);
                assert!(report.clean_stop && report.is_clean(), "{report:?}");
            }
        }
        check_all(&often);
        often.log.close().expect("closes");
        never.log.close().expect("closes");
        for ending in [".log", ".index", ".timeindex", "clean-stop"] {
            let paths = files(&often.disk, ending);
            assert_eq!(paths, files(&never.disk, ending));
            for path in paths {
                assert_eq!(often.disk.bytes(&path).expect("a file"), never.disk.bytes(&path).expect("a file"), "{}", path.display());
            }
        }
    }
}

#[test]
fn a_note_with_any_bit_flipped_or_cut_anywhere_is_not_believed() {
    let fixture = closed(ROOMY, 20);
    drop(fixture.log);
    let whole = fixture.disk.bytes(&note()).expect("a note");
    let damage = (0..whole.len() * 8).map(|bit| {
        let mut bytes = whole.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        bytes
    });
    let cut = (0..whole.len()).map(|length| whole[..length].to_vec());
    for bytes in damage.chain(cut) {
        fixture.disk.open(&note(), OpenMode::Replace).expect("a note");
        fixture.disk.damage(&note(), |note| *note = bytes);
        let (log, report) = open(&fixture.disk, ROOMY);
        assert!(!report.clean_stop && report.scanned_bytes == log.size_bytes() && report.is_clean(), "{report:?}");
        crate::harness::check(&log.reader(), &fixture.model);
        assert!(!fixture.disk.exists(&note()).expect("looks"), "what is not believed is removed");
    }
}

#[test]
fn a_note_that_the_files_contradict_is_not_believed() {
    type Change = fn(&SimDisk, &Path);
    let changes: [(&str, Change); 7] = [
        (".log", |disk, path| disk.damage(path, |bytes| bytes.push(0))),
        (".log", |disk, path| disk.damage(path, |bytes| bytes.extend_from_within(..))),
        (".index", |disk, path| disk.damage(path, Vec::clear)),
        (".index", |disk, path| disk.remove_file(path).expect("it is there")),
        (".timeindex", |disk, path| disk.damage(path, |bytes| bytes.truncate(bytes.len() - 12))),
        (".timeindex", |disk, path| disk.damage(path, |bytes| bytes.extend_from_slice(&[0; 12]))),
        ("recovery-point", |disk, path| disk.remove_file(path).expect("it is there")),
    ];
    for (ending, change) in changes {
        let mut fixture = closed(config(20_000, 300), 80);
        let path = files(&fixture.disk, ending).pop().expect("a file");
        change(&fixture.disk, &path);
        let report = fixture.reopen();
        assert!(!report.clean_stop && report.scanned_bytes > 0, "{ending}: {report:?}");
        check_all(&fixture);
        assert!(!fixture.disk.exists(&note()).expect("looks"));
    }
    // Another index interval asks for other indexes.
    let mut fixture = closed(ROOMY, 20);
    fixture.config.index_interval_bytes = 100;
    assert!(!fixture.reopen().clean_stop);
    check_all(&fixture);
}

#[test]
fn a_last_segment_that_was_shortened_is_not_cut_and_lacks_what_the_note_says() {
    let mut fixture = closed(ROOMY, 20);
    let path = fixture.segments()[0].clone();
    fixture.disk.damage(&path, |bytes| bytes.truncate(bytes.len() - 1));
    let report = fixture.reopen();
    assert!(!report.clean_stop && report.cut.is_none() && report.damaged.len() == 1, "{report:?}");
    assert_eq!(fixture.log.log_end(), fixture.end());
    let lost = fixture.model.pop().expect("a batch");
    assert!(matches!(fixture.log.reader().read(lost.base, 1, i64::MAX), Err(LogError::Corrupt { .. })));
    for stored in &fixture.model {
        assert_eq!(fixture.log.reader().read(stored.base, 1, lost.base).expect("reads"), stored.bytes);
    }
}

#[test]
fn a_power_cut_at_any_step_from_one_clean_stop_to_the_next_loses_nothing_that_was_durable() {
    let batches = [batch_with(&[40_000, 1], 300, Codec::None), batch_with(&[20_000], 900, Codec::None)];
    for config in [ROOMY, config(2_000, 0)] {
        for changes in 0.. {
            let mut is_over = false;
            for seed in 0..20 {
                let mut fixture = closed(config, 6);
                fixture.disk.cut_power_after(changes);
                let durable = fixture.end();
                let is_appended = fixture.log.append(&batches, 7).is_ok();
                // Where the power has failed in the middle of it, they may be there all the same.
                fixture.model.extend(crate::harness::stored(durable, 7, &batches));
                let log = std::mem::replace(&mut fixture.log, open(&prepared_disk(), ROOMY).0);
                let is_closed = log.close().is_ok() && is_appended && fixture.disk.is_powered();
                is_over |= is_closed;
                fixture.disk.crash(seed);
                let report = fixture.reopen();
                let end = fixture.log.log_end();
                assert!(end >= durable && (end == fixture.end() || !is_closed), "{changes} changes, seed {seed}: {report:?}");
                assert!(report.clean_stop || !is_closed);
                fixture.model.truncate(fixture.model.iter().take_while(|stored| stored.next <= end).count());
                check_all(&fixture);
                // And the next life is as good as any.
                fixture.append(&[batch(1, 10)]);
                fixture.flush();
                fixture.disk.crash(seed);
                fixture.reopen();
                check_all(&fixture);
            }
            if is_over {
                break;
            }
        }
    }
}

#[test]
fn a_clean_stop_behind_indexes_that_could_not_be_written_hides_no_time() {
    // The largest time comes first, behind an entry of a smaller one.
    let times = [1, 40_000, 3_000, 2_000, 4_000];
    let mut notes = 0;
    for (operation, fault) in [Operation::Write, Operation::Sync, Operation::Create, Operation::Rename, Operation::SetLen]
        .into_iter()
        .flat_map(|operation| [(operation, Fault::NoSpace), (operation, Fault::Device)])
    {
        for (nth, next) in (1..10).flat_map(|nth| (1..10).map(move |next| (nth, nth + next))) {
            let mut fixture = Fixture::new(config(1 << 30, 300));
            for time in times {
                fixture.append(&[batch_with(&[time], 200, Codec::None)]);
            }
            fixture.flush();
            fixture.disk.fail(operation, nth, fault);
            fixture.disk.fail(operation, next, fault);
            let rolled = fixture.log.roll().is_ok();
            let flushed = fixture.log.begin_flush().is_none_or(|flush| fixture.log.end_flush(flush.run()).is_ok());
            let Fixture { disk, log, config, model, start } = fixture;
            let closed = log.close().is_ok();
            if disk.exists(&note()).expect("looks") && rolled && flushed && closed {
                notes += 1;
            }
            disk.forget_failures(operation);
            disk.crash(nth);
            let (log, _) = open(&disk, config);
            let mut fixture = Fixture { disk, log, config, model, start };
            for _ in 0..2 {
                check_all(&fixture);
                assert_eq!(faults(&fixture.disk), [""; 0], "{operation:?} {fault:?} {nth} {next}");
                fixture.reopen();
            }
        }
    }
    assert!(notes > 10, "{notes}");
}

#[test]
fn a_note_whose_removal_the_folder_has_lost_tells_the_truth_or_is_not_believed() {
    // A dense index, so that entries of batches that were lost may be left in the files.
    for seed in 0..60 {
        let mut fixture = closed(config(1 << 30, 0), 100);
        let bytes = fixture.disk.bytes(&note()).expect("a note");
        let durable = fixture.model.len();
        for number in 0..600 {
            fixture.append(&[batch_with(&[49_000 + number % 7], 10, Codec::None)]);
        }
        if seed % 3 == 0 {
            fixture.flush();
        }
        fixture.disk.crash(seed);
        let back = fixture.disk.open(&note(), OpenMode::CreateNew).expect("it was removed");
        write_all_at(&*back, &mut [std::io::IoSlice::new(&bytes)], 0).expect("writes");
        let report = fixture.reopen();
        let left = fixture.model.iter().take_while(|stored| stored.next <= fixture.log.log_end()).count();
        assert_eq!(report.clean_stop, left == durable && report.scanned_bytes == 0, "{report:?}");
        assert!(left >= durable && (left == fixture.model.len() || seed % 3 != 0));
        fixture.model.truncate(left);
        check_all(&fixture);
        for number in 0..20 {
            fixture.append(&[batch_with(&[number], 10, Codec::None)]);
        }
        let (fixture, report) = fixture.close_and_reopen(seed);
        assert!(report.clean_stop);
        check_all(&fixture);
    }
}

#[test]
fn a_note_that_can_not_be_removed_refuses_the_append_and_stays_true() {
    for (operation, fault, passes) in [
        (Operation::SyncDir, Fault::TooManyOpenFiles, true),
        (Operation::Remove, Fault::Device, false),
        (Operation::SyncDir, Fault::Device, false),
    ] {
        let mut fixture = closed(ROOMY, 10);
        fixture.disk.fail(operation, 1, fault);
        fixture.log.append(&[batch(1, 10)], 7).expect_err("the note is there");
        assert_eq!(fixture.log.failure().is_none(), passes);
        fixture.check();
        if !passes {
            let report = fixture.reopen();
            assert_eq!(report.truncated_bytes, 0);
        }
        fixture.append(&[batch(1, 10)]);
        fixture.flush();
        fixture.disk.crash(0);
        fixture.reopen();
        check_all(&fixture);
    }
}

#[test]
fn a_full_disk_is_closed_and_opened_all_the_same() {
    let mut fixture = closed(SMALL, 20);
    fixture.append(&[batch(1, 100)]);
    fixture.disk.limit_bytes(Some(0));
    let Fixture { disk, log, config, model, .. } = fixture;
    log.close().expect("the batches are durable");
    assert!(!disk.exists(&note()).expect("looks"), "there is no room for it");
    let (log, report) = try_open(&disk, config).expect("opens");
    assert!(!report.clean_stop);
    crate::harness::check(&log.reader(), &model);
}

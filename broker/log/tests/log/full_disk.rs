//! A disk that has no room: for a long time, again and again, for bytes and for names.

use std::path::Path;

use millpond_log::sim::{Fault, Operation, Random, SimDisk};
use millpond_log::{Disk, LogError};

use crate::harness::{DIR, Fixture, ROOMY, SMALL, batch, config, files, random_batch};

/// What the `.log` files have, in bytes.
fn log_bytes(fixture: &Fixture) -> u64 {
    fixture.segments().iter().map(|path| fixture.disk.bytes(path).expect("a segment").len() as u64).sum()
}

#[track_caller]
fn is_full<T: std::fmt::Debug>(outcome: &Result<T, LogError>) {
    assert!(matches!(outcome, Err(LogError::Full { .. })), "{outcome:?}");
}

/// Now and then: from less than there is to some room, or none of these limits.
fn change_limits(disk: &SimDisk, random: &mut Random, seed: u64) {
    if random.percent(30) {
        let limit = (disk.used_bytes() + random.below(6_000)).saturating_sub(1_500);
        disk.limit_bytes(random.percent(70).then_some(limit));
        let names = disk.used_names() + random.below(5);
        disk.limit_names(random.percent(30).then_some(names));
        disk.shorten_writes(random.percent(50).then_some(seed));
    }
}

#[test]
fn a_log_on_a_disk_that_is_full_now_and_then_loses_nothing_and_never_stops() {
    for seed in 0..150 {
        let mut random = Random::new(seed);
        let mut fixture = Fixture::new(config(2048, 256));
        let (mut refused, mut taken) = (0, 0);
        for step in 0..120 {
            change_limits(&fixture.disk, &mut random, step);
            match random.below(10) {
                0 => fixture.flush(),
                1 => match fixture.log.roll() {
                    Ok(()) => {}
                    outcome => is_full(&outcome),
                },
                2 => {
                    let before = fixture.start + random.below(40).cast_signed();
                    if let Some(deletion) = fixture.log.begin_delete(before) {
                        let outcome = deletion.run();
                        if outcome.is_err() {
                            is_full(&outcome);
                        }
                        // Also where it failed, whole segments may be gone.
                        fixture.note_start(fixture.log.log_start());
                    }
                }
                _ => {
                    let batches: Vec<_> = (0..=random.below(4)).map(|_| random_batch(&mut random, 1_000)).collect();
                    match fixture.log.append(&batches, 7) {
                        Ok(base) => {
                            fixture.model.extend(crate::harness::stored(base, 7, &batches));
                            taken += 1;
                        }
                        outcome => {
                            is_full(&outcome);
                            refused += 1;
                        }
                    }
                }
            }
            assert_eq!(fixture.log.failure(), None, "seed {seed}: a full disk is no failure");
            assert_eq!(fixture.log.size_bytes(), log_bytes(&fixture), "seed {seed}: nothing is left of what was refused");
        }
        assert!(refused > 0 && taken > 0, "seed {seed}: {refused} refused, {taken} taken");
        fixture.check();
        // It closes and opens on a disk that is full to the last byte and the last name.
        fixture.disk.limit_bytes(Some(0));
        fixture.disk.limit_names(Some(0));
        let closes_in_order = random.percent(50);
        if closes_in_order {
            let Fixture { disk, log, config, model, start } = fixture;
            log.close().expect("what it can't note is not needed");
            let (log, _) = crate::harness::open(&disk, config);
            fixture = Fixture { disk, log, config, model, start };
        } else {
            fixture.reopen();
        }
        fixture.check();
        fixture.disk.crash(seed);
        let report = fixture.reopen();
        assert!(report.damaged.is_empty() && report.cut.is_none(), "seed {seed}: {report:?}");
        fixture.check();
        fixture.append(&[batch(2, 30)]);
        fixture.check();
    }
}

#[test]
fn a_sync_that_finds_the_disk_full_is_a_failure_for_good() {
    // A file system that gives out blocks late says only now that it has none, and nobody knows what it has dropped.
    let mut fixture = Fixture::new(ROOMY);
    fixture.append(&[batch(2, 50)]);
    fixture.disk.fail(Operation::Sync, 1, Fault::NoSpace);
    let flush = fixture.log.begin_flush().expect("there is something to flush");
    let outcome = flush.run();
    let error = fixture.log.end_flush(outcome).expect_err("the sync failed");
    assert!(matches!(error, LogError::Io { operation: "flush", .. }), "it must not pass for one that may be tried again: {error:?}");
    assert!(matches!(fixture.log.append(&[batch(1, 10)], 7), Err(LogError::Failed { .. })));
    fixture.check();
}

#[test]
fn without_a_name_for_the_next_segment_an_append_is_refused_whole() {
    for names in 0..3 {
        let mut fixture = Fixture::new(SMALL);
        fixture.append(&vec![batch(1, 700); 4]);
        fixture.flush();
        fixture.disk.limit_names(Some(fixture.disk.used_names() + names));
        is_full(&fixture.log.append(&vec![batch(1, 700); 4], 7));
        is_full(&fixture.log.roll());
        assert_eq!(fixture.segments().len(), 1);
        fixture.check();
        fixture.disk.limit_names(None);
        fixture.append(&vec![batch(1, 700); 4]);
        fixture.check();
        fixture.reopen();
        fixture.check();
    }
}

#[test]
fn a_file_that_could_not_be_removed_goes_with_the_next_deletion() {
    let mut fixture = Fixture::new(SMALL);
    fixture.append(&vec![batch(2, 700); 20]);
    fixture.flush();
    let names = |fixture: &Fixture| fixture.disk.list(Path::new(DIR)).expect("lists").len();
    let segments = fixture.segments().len();
    fixture.disk.fail(Operation::Remove, 1, Fault::Device);
    fixture.disk.fail(Operation::Remove, 2, Fault::Device);
    fixture.delete_before(20);
    let (left, reader) = (fixture.segments().len(), fixture.log.reader());
    assert!(left < segments && reader.has_unremoved_files());
    assert!(fixture.log.size_bytes() < log_bytes(&fixture), "they are there, and not part of the log");
    fixture.check();
    // It may fail again.
    fixture.disk.fail(Operation::Remove, 1, Fault::Device);
    fixture.delete_before(20);
    assert!(reader.has_unremoved_files());
    let syncs = fixture.disk.count(Operation::Sync);
    fixture.delete_before(20);
    assert!(!reader.has_unremoved_files() && fixture.log.begin_delete(20).is_none());
    assert_eq!(fixture.disk.count(Operation::Sync), syncs, "the log start is where it was, and is not written again");
    assert_eq!(fixture.log.size_bytes(), log_bytes(&fixture));
    let beside = files(&fixture.disk, "log-start").len() + files(&fixture.disk, "log-start.2").len() + 1;
    assert_eq!((names(&fixture) - beside) % 3, 0, "three files for each segment, and what it keeps beside");
    fixture.check();
    fixture.reopen();
    fixture.check();
}

#[test]
fn segments_are_closed_at_the_size_that_was_set_last() {
    let mut fixture = Fixture::new(ROOMY);
    fixture.append(&vec![batch(1, 700); 4]);
    fixture.log.set_segment_bytes(2_000);
    fixture.append(&vec![batch(1, 700); 4]);
    assert_eq!(fixture.segments().len(), 3, "four in the first, and two in each of the next");
    fixture.log.set_segment_bytes(1 << 30);
    fixture.append(&vec![batch(1, 700); 4]);
    assert_eq!(fixture.segments().len(), 3);
    fixture.check();
}

//! Compaction beside power cuts, faults, readers and deletions: nothing of it may change what a log holds.

use std::collections::BTreeMap;
use std::path::Path;

use millpond_log::inspect::{RepairError, RepairMode, RepairPlan};
use millpond_log::sim::{Fault, Operation};
use millpond_log::{Compaction, CompactionStep, Cursor, Disk, LogError};
use millpond_protocol::compression::Codec;

use crate::compacted::{CONFIG, Compacting, NOON_MS, Quiet, Row, changes, compaction, faults, filled, finish, row};
use crate::harness::{DIR, config, files, try_open};

/// A disk with an intent, as a crash between any two steps of an exchange leaves it, must open as if there had been none, or none left.
#[test]
fn a_power_cut_at_any_moment_of_a_pass_loses_nothing_and_the_next_pass_completes_it() {
    let prepare = || {
        let compacting = filled(4);
        compacting.disk.sync_dir(Path::new(DIR)).expect("syncs");
        compacting
    };
    let steps = {
        let mut whole = prepare();
        let before = changes(&whole.disk);
        whole.compact().expect("there is enough");
        changes(&whole.disk) - before
    };
    assert!(steps > 30, "{steps}");
    for cut in 0..steps {
        for seed in 0..5 {
            let mut compacting = prepare();
            let mut pass = compacting.compactor.begin(compaction(i64::MAX, NOON_MS)).expect("begins").expect("there is enough");
            compacting.model.attempt(compacting.model.end(), NOON_MS);
            compacting.disk.cut_power_after(cut);
            finish(&mut compacting.compactor, &mut pass).expect_err("the power is cut");
            compacting.disk.crash(seed * 1_000 + cut);
            // The tools see no damage in what an opening will complete.
            let seen = faults(&compacting.disk);
            assert!(seen.iter().all(|fault| !fault.contains("Damaged") && !fault.contains("Torn")), "cut {cut}, seed {seed}: {seen:?}");
            let is_exchanging = !files(&compacting.disk, "compaction").is_empty();
            let plan = RepairPlan::new(&compacting.disk, Path::new(DIR), RepairMode::Truncate, &mut Quiet);
            assert_eq!(matches!(plan, Err(RepairError::Interrupted { .. })), is_exchanging);
            // And once more, while the opening mends it.
            compacting.disk.cut_power_after(seed);
            let _ = try_open(&compacting.disk, CONFIG);
            compacting.disk.crash(seed);
            compacting.reopen(CONFIG);
            assert!(files(&compacting.disk, ".cleaned").is_empty(), "cut {cut}, seed {seed}");
            compacting.model.check(&compacting.log.reader());
            assert_eq!(faults(&compacting.disk), [""; 0], "cut {cut}, seed {seed}");
            compacting.append(&[row("one more", Some("x"))], Codec::None);
            compacting.settle();
            compacting.compact().expect("there is enough");
        }
    }
}

#[test]
fn whatever_fails_on_the_way_the_log_goes_on_and_a_later_pass_works() {
    let all = [
        (Operation::Write, Fault::NoSpace),
        (Operation::Create, Fault::NoSpace),
        (Operation::Create, Fault::TooManyOpenFiles),
        (Operation::Write, Fault::Device),
        (Operation::Sync, Fault::Device),
        (Operation::SyncDir, Fault::Device),
        (Operation::Rename, Fault::Device),
        (Operation::Remove, Fault::Device),
        (Operation::Read, Fault::Device),
    ];
    for (operation, fault) in all {
        for nth in 1.. {
            let mut compacting = filled(3);
            let failing = compacting.disk.count(operation);
            let begun = {
                compacting.disk.fail(operation, nth, fault);
                compacting.compactor.begin(compaction(i64::MAX, NOON_MS))
            };
            compacting.model.attempt(compacting.model.end(), NOON_MS);
            let outcome = begun.and_then(|pass| finish(&mut compacting.compactor, &mut pass.expect("there is enough")));
            if compacting.disk.count(operation) < failing + nth {
                assert!(nth > 1 && outcome.is_ok());
                break;
            }
            compacting.model.check(&compacting.log.reader());
            if matches!(fault, Fault::NoSpace | Fault::TooManyOpenFiles) && outcome.is_err() {
                assert!(files(&compacting.disk, ".cleaned").is_empty(), "{operation:?} {nth}: the room is given back");
                assert!(compacting.compact().is_some(), "{operation:?} {nth}: it is tried later");
            }
            compacting.append(&[row("still", Some("written to"))], Codec::None);
            compacting.settle();
            let _ = compacting.compact();
            // Once it was opened again, it works whatever it was.
            compacting.reopen(CONFIG);
            compacting.model.check(&compacting.log.reader());
            assert_eq!(faults(&compacting.disk), [""; 0]);
            compacting.append(&[row("again", Some("x"))], Codec::None);
            compacting.settle();
            compacting.compact().expect("there is something dirty");
        }
    }
}

/// Segments of which neighbours become one, in several exchanges.
fn several_groups() -> Compacting {
    let mut compacting = Compacting::new(CONFIG);
    for number in 0..18 {
        let (again, once) = (row("again", Some(&"x".repeat(150))), row(&format!("once {number}"), Some(&"x".repeat(40))));
        compacting.append(&[again, once], Codec::None);
    }
    compacting.settle();
    compacting
}

#[test]
fn after_an_exchange_by_halves_no_pass_goes_on_before_the_log_was_opened_again() {
    let exchanges = {
        let mut whole = several_groups();
        let mut pass = whole.compactor.begin(compaction(i64::MAX, NOON_MS)).expect("begins").expect("there is enough");
        finish(&mut whole.compactor, &mut pass).expect("compacts").1.len()
    };
    assert!(exchanges > 2, "{exchanges}");
    let mut stuck = 0;
    // What fails first; and whether it can't be taken back either, as then the removal of the intent fails.
    let failing = [Operation::Rename, Operation::SyncDir, Operation::Remove].into_iter();
    let failing = failing.flat_map(|operation| [(operation, Fault::Device), (operation, Fault::NoSpace)]);
    for ((operation, fault), removes) in failing.flat_map(|failing| [(failing, true), (failing, false)]) {
        for nth in 1.. {
            let mut compacting = several_groups();
            let (end, reader) = (compacting.model.end(), compacting.log.reader());
            // Somebody who has begun to read the old files.
            let (mut cursor, mut found) = (Cursor::new(0), BTreeMap::new());
            compacting.model.read(&reader, &mut cursor, 1, &mut found).expect("reads");
            let mut pass = compacting.compactor.begin(compaction(i64::MAX, NOON_MS)).expect("begins").expect("there is enough");
            compacting.model.attempt(end, NOON_MS);
            let before = compacting.disk.count(operation);
            compacting.disk.fail(operation, nth, fault);
            if !removes {
                compacting.disk.fail(Operation::Remove, 1, Fault::Device);
            }
            let outcome = finish(&mut compacting.compactor, &mut pass);
            if compacting.disk.count(operation) < before + nth {
                break;
            }
            for operation in [operation, Operation::Remove] {
                compacting.disk.forget_failures(operation);
            }
            compacting.model.check(&reader);
            if !compacting.compactor.progress().is_stuck {
                assert!(!matches!(outcome, Err(LogError::Failed { .. })), "{operation:?} {nth}: {outcome:?}");
                continue;
            }
            stuck += 1;
            // Not for lack of room, which somebody could make.
            assert!(matches!(outcome, Err(LogError::Failed { .. })), "{operation:?} {nth}: {outcome:?}");
            let before = changes(&compacting.disk);
            for _ in 0..2 {
                let refused = compacting.compactor.step(&mut pass);
                assert!(matches!(refused, Err(LogError::Failed { .. })), "{operation:?} {nth}: {refused:?}");
                assert!(compacting.compactor.begin(compaction(i64::MAX, NOON_MS)).expect("begins").is_none());
            }
            assert_eq!(changes(&compacting.disk), before, "{operation:?} {nth}: nothing more is touched");
            // The log itself goes on, and so does the reader.
            compacting.append(&[row("still", Some("written to"))], Codec::None);
            compacting.settle();
            while compacting.model.read(&reader, &mut cursor, 300, &mut found).expect("reads") {}
            compacting.model.check(&reader);
            // After a kill, or a power cut.
            if nth % 2 == 0 {
                compacting.disk.crash(nth);
            }
            compacting.reopen(CONFIG);
            compacting.model.check(&compacting.log.reader());
            assert!(files(&compacting.disk, "compaction").is_empty() && files(&compacting.disk, ".cleaned").is_empty());
            assert_eq!(faults(&compacting.disk), [""; 0], "{operation:?} {nth}");
            assert!(!compacting.compactor.progress().is_stuck);
            compacting.compact().expect("the rest is dirty");
        }
    }
    assert!(stuck > 40, "{stuck} exchanges have failed by halves");
}

#[test]
fn a_log_that_can_not_be_compacted_before_it_was_opened_again_is_not_rolled_for_it() {
    let large = "x".repeat(600_000);
    let mostly = Compaction { dirty_percent_min: 90, ..compaction(i64::MAX, NOON_MS) };
    for fails in [false, true] {
        // Some of what is closed was compacted, some not yet.
        let mut compacting = Compacting::new(config(8 << 20, 4_096));
        compacting.append(&[row("a", Some("1")), row("b", Some("1"))], Codec::None);
        compacting.settle();
        compacting.compact().expect("there is enough");
        compacting.append(&[row("a", Some("2"))], Codec::None);
        compacting.settle();
        if fails {
            let mut pass = compacting.compactor.begin(compaction(i64::MAX, NOON_MS)).expect("begins").expect("there is enough");
            compacting.disk.fail(Operation::Rename, 2, Fault::Device);
            compacting.disk.fail(Operation::Remove, 1, Fault::Device);
            finish(&mut compacting.compactor, &mut pass).expect_err("the exchange stops in its middle");
        }
        assert_eq!(compacting.compactor.progress().is_stuck, fails);
        compacting.append(&[row("a", Some(&large))], Codec::None);
        compacting.append(&[row("a", Some(&large))], Codec::None);
        assert_eq!(compacting.compactor.wants_roll(mostly).expect("looks"), !fails);
    }
}

#[test]
fn readers_go_on_beside_a_pass_wherever_they_are() {
    let mut compacting = filled(20);
    let reader = compacting.log.reader();
    let end = compacting.model.end();
    // One cursor in each place, each with its place in the files known.
    let mut cursors: Vec<(Cursor, BTreeMap<i64, Row>)> = Vec::new();
    for from in 0..end {
        let (mut cursor, mut found) = (Cursor::new(from), BTreeMap::new());
        compacting.model.read(&reader, &mut cursor, 1, &mut found).expect("reads");
        cursors.push((cursor, found));
    }
    let mut pass = compacting.compactor.begin(compaction(i64::MAX, NOON_MS)).expect("begins").expect("there is enough");
    compacting.model.attempt(end, NOON_MS);
    loop {
        let step = compacting.compactor.step(&mut pass).expect("compacts");
        for (cursor, found) in &mut cursors {
            compacting.model.read(&reader, cursor, 300, found).expect("reads");
        }
        if let CompactionStep::Done(done) = step {
            compacting.model.completed(&done, NOON_MS);
            break;
        }
    }
    let left = compacting.rows();
    for (from, (mut cursor, mut found)) in (0..).zip(cursors) {
        while compacting.model.read(&reader, &mut cursor, 300, &mut found).expect("reads") {}
        assert_eq!(cursor.offset(), end);
        assert!(left.iter().filter(|(offset, _)| *offset >= from).all(|(offset, _)| found.contains_key(offset)), "from {from}");
    }
    // Nobody holds what was replaced.
    assert!(compacting.disk.open_files() <= 3, "{}", compacting.disk.open_files());
}

#[test]
fn threads_that_read_beside_passes_never_see_a_wrong_byte() {
    let mut compacting = filled(40);
    let (reader, model) = (compacting.log.reader(), compacting.model.clone());
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..3)
            .map(|number| {
                let (reader, model, stop) = (reader.clone(), &model, &stop);
                scope.spawn(move || {
                    let mut rounds = 0;
                    while rounds < 3 || !stop.load(std::sync::atomic::Ordering::Relaxed) {
                        let mut cursor = Cursor::new(0);
                        while cursor.offset() < model.end() {
                            model.read(&reader, &mut cursor, 200 + number * 300, &mut BTreeMap::new()).expect("reads");
                            let at = reader.find_time(1_000 + (rounds % 40), i64::MAX).expect("looks");
                            assert!(at.is_none_or(|(_, timestamp)| timestamp >= 1_000 + rounds % 40));
                        }
                        rounds += 1;
                    }
                })
            })
            .collect();
        for map_bytes in [24 * 4, 24 * 6, 24 * 12, 1 << 20] {
            compacting.compactor = compacting.log.compactor().with_key_map_bytes(map_bytes);
            compacting.compact();
        }
        while compacting.compact().is_some() {}
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        for reader in readers {
            reader.join().expect("no reader fails");
        }
    });
}

#[test]
fn a_deletion_between_two_steps_takes_what_it_should_and_the_pass_goes_on() {
    for steps in 0..60 {
        let mut compacting = filled(6);
        let end = compacting.model.end();
        let mut pass = compacting.compactor.begin(compaction(i64::MAX, NOON_MS)).expect("begins").expect("there is enough");
        compacting.model.attempt(end, NOON_MS);
        let is_done = (0..steps).any(|_| matches!(compacting.compactor.step(&mut pass).expect("compacts"), CompactionStep::Done(_)));
        compacting.log.begin_delete(end / 2).expect("there is something").run().expect("deletes");
        compacting.model.start = end / 2;
        if !is_done {
            let (done, _) = finish(&mut compacting.compactor, &mut pass).expect("compacts");
            compacting.model.completed(&done, NOON_MS);
        }
        compacting.model.check(&compacting.log.reader());
        compacting.reopen(CONFIG);
        compacting.model.check(&compacting.log.reader());
        assert!(files(&compacting.disk, ".cleaned").is_empty());
    }
}

#[test]
fn deletions_on_another_thread_do_not_meet_an_exchange() {
    for round in 0..20 {
        let mut compacting = filled(40);
        let end = compacting.model.end();
        let deletions: Vec<_> = (1..end / 2).step_by(1 + round % 7).filter_map(|before| compacting.log.begin_delete(before)).collect();
        let start = std::thread::scope(|scope| {
            let deleting = scope.spawn(|| deletions.iter().fold(None, |_, deletion| Some(deletion.run().expect("deletes"))));
            for map_bytes in [24 * 6, 24 * 12, 1 << 20] {
                compacting.compactor = compacting.log.compactor().with_key_map_bytes(map_bytes);
                while let Some(mut pass) = compacting.compactor.begin(compaction(i64::MAX, NOON_MS)).expect("begins") {
                    compacting.model.attempt(end, NOON_MS);
                    let (done, _) = finish(&mut compacting.compactor, &mut pass).expect("compacts");
                    compacting.model.completed(&done, NOON_MS);
                }
            }
            deleting.join().expect("no panic")
        });
        compacting.model.start = start.expect("there were some");
        compacting.model.check(&compacting.log.reader());
        compacting.reopen(CONFIG);
        compacting.model.check(&compacting.log.reader());
        assert_eq!(faults(&compacting.disk), [""; 0]);
    }
}

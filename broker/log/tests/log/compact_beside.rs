//! Compaction beside power cuts, faults, readers and deletions: nothing of it may change what a log holds.

use std::collections::BTreeMap;
use std::path::Path;

use millpond_log::inspect::{RepairError, RepairMode, RepairPlan};
use millpond_log::sim::{Fault, Operation, SimDisk};
use millpond_log::{CompactionStep, Cursor, Disk};
use millpond_protocol::compression::Codec;

use crate::compacted::{CONFIG, NOON_MS, Quiet, Row, compaction, faults, filled, finish, row};
use crate::harness::{DIR, files, try_open};

/// A disk with an intent, as a crash between any two steps of an exchange leaves it, must open as if there had been none, or none left.
#[test]
fn a_power_cut_at_any_moment_of_a_pass_loses_nothing_and_the_next_pass_completes_it() {
    let prepare = || {
        let compacting = filled(4);
        compacting.disk.sync_dir(Path::new(DIR)).expect("syncs");
        compacting
    };
    let changes = {
        let mut whole = prepare();
        let count = |disk: &SimDisk| {
            [
                Operation::Write,
                Operation::SetLen,
                Operation::Sync,
                Operation::SyncDir,
                Operation::Create,
                Operation::Rename,
                Operation::Remove,
            ]
            .map(|operation| disk.count(operation))
            .iter()
            .sum::<u64>()
        };
        let before = count(&whole.disk);
        whole.compact().expect("there is enough");
        count(&whole.disk) - before
    };
    assert!(changes > 30, "{changes}");
    for cut in 0..changes {
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

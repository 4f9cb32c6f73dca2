//! Files that hold less than was durable: what is gone is said, and none of its offsets is given out again.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use millpond_log::inspect::{RepairMode, VerifyOptions};
use millpond_log::sim::SimDisk;
use millpond_log::{Disk, KnownDamage, LogError, LogReader};

use crate::harness::{DIR, Fixture, SMALL, Stored, batch, files, open, try_open};
use crate::inspect::{closed_log, look, look_with, plan, segment};

/// Something that happens to the folder of [`closed_log`], whose segments begin at 0, 5, 10, 15 and 20, and which ends at 23.
struct Harm {
    what: &'static str,
    does: fn(&SimDisk),
    /// The offsets that are gone by it.
    gone: Range<i64>,
    /// Where the log goes on.
    end: i64,
    /// Faults that a verification finds before the next start.
    faults: u64,
}

fn remove(disk: &SimDisk, ending: &str) {
    for path in files(disk, ending) {
        disk.remove_file(&path).expect("it is there");
    }
    disk.sync_dir(Path::new(DIR)).expect("syncs");
}

fn remove_segment(disk: &SimDisk, base: i64) {
    for extension in ["log", "index", "timeindex"] {
        remove(disk, &format!("{base:020}.{extension}"));
    }
}

fn remove_all_segments(disk: &SimDisk) {
    for ending in [".log", ".index", ".timeindex"] {
        remove(disk, ending);
    }
}

/// Each with the note of a clean stop or without it.
const HARMS: [Harm; 10] = [
    Harm {
        what: "the last two segments and the note removed",
        does: |disk| {
            remove(disk, "clean-stop");
            remove_segment(disk, 15);
            remove_segment(disk, 20);
        },
        gone: 15..20,
        end: 20,
        faults: 1,
    },
    Harm { what: "all segments removed", does: remove_all_segments, gone: 0..23, end: 23, faults: 1 },
    Harm {
        what: "all segments and the note removed",
        does: |disk| {
            remove(disk, "clean-stop");
            remove_all_segments(disk);
        },
        gone: 0..20,
        end: 20,
        faults: 1,
    },
    Harm { what: "the first segment removed", does: |disk| remove_segment(disk, 0), gone: 0..5, end: 23, faults: 1 },
    Harm {
        what: "the first segment and the note removed",
        does: |disk| {
            remove(disk, "clean-stop");
            remove_segment(disk, 0);
        },
        gone: 0..5,
        end: 23,
        faults: 1,
    },
    Harm { what: "the last segment emptied", does: |disk| disk.damage(&segment(disk, 4), Vec::clear), gone: 20..23, end: 23, faults: 1 },
    Harm {
        what: "the .log of the last segment removed",
        does: |disk| remove(disk, "00000000000000000020.log"),
        gone: 20..23,
        end: 23,
        faults: 1,
    },
    Harm {
        what: "the last segment cut between two batches",
        does: |disk| disk.damage(&segment(disk, 4), |bytes| bytes.truncate(770)),
        gone: 21..23,
        end: 23,
        faults: 1,
    },
    Harm {
        what: "the last segment cut in a batch",
        does: |disk| disk.damage(&segment(disk, 4), |bytes| bytes.truncate(870)),
        gone: 21..23,
        end: 23,
        faults: 1,
    },
    Harm {
        what: "a hole as an interrupted write leaves it, and the note contradicted by an index",
        does: |disk| {
            disk.damage(&segment(disk, 4), |bytes| bytes[770..1024].fill(0));
            remove(disk, "00000000000000000020.timeindex");
        },
        gone: 21..22,
        end: 23,
        faults: 2,
    },
];

impl Harm {
    fn done(&self) -> (SimDisk, Vec<Stored>) {
        let (disk, model) = closed_log();
        (self.does)(&disk);
        (disk, model)
    }

    /// Everything but what is gone is served, and that is an error which says what comes behind it.
    fn check(&self, reader: &LogReader, model: &[Stored]) {
        for stored in model.iter().filter(|stored| stored.base < self.end) {
            match reader.read(stored.base, 1, i64::MAX) {
                Ok(read) => assert!(!self.gone.contains(&stored.base) && read == stored.bytes, "{}: {}", self.what, stored.base),
                Err(LogError::Corrupt { offset, .. }) => {
                    assert!(self.gone.contains(&stored.base) && self.gone.contains(&offset), "{}: {}", self.what, stored.base);
                }
                Err(error) => panic!("{}: {}: {error}", self.what, stored.base),
            }
        }
    }
}

#[test]
fn what_is_gone_is_said_and_the_log_goes_on_behind_it() {
    for harm in HARMS {
        let what = harm.what;
        let (disk, mut model) = harm.done();
        let (verified, faults) = look(&disk);
        let place = format!(" {} ", harm.gone.start);
        let is_named = |fault: &String| fault.contains(&place) && (fault.contains(" gone: ") || fault.contains(" damaged: "));
        assert!(verified.faults == harm.faults && faults.iter().any(is_named), "{what}: {faults:#?}");

        let (mut log, report) = open(&disk, SMALL);
        let reader = log.reader();
        assert!(!report.damaged.is_empty() && report.cut.is_none() && report.truncated_bytes == 0, "{what}: {report:?}");
        assert_eq!(reader.known_damage().map(|known| (known.ranges, known.first_offset)), Some((1, harm.gone.start)), "{what}");
        assert_eq!((reader.log_start(), reader.log_end()), (0, harm.end), "{what}");
        harm.check(&reader, &model);
        // It stays so, however often it is opened, and whatever ends the broker.
        model.retain(|stored| stored.base < harm.end);
        for round in 0..3 {
            let new = vec![batch(1, 700); 4];
            let base = log.append(&new, 7).expect("appends");
            assert_eq!(base, harm.end + 4 * round, "{what}");
            model.extend(crate::harness::stored(base, 7, &new));
            let flush = log.begin_flush().expect("something to flush");
            log.end_flush(flush.run()).expect("flushes");
            if round == 1 {
                log.close().expect("closes");
            }
            disk.crash(round.cast_unsigned());
            log = open(&disk, SMALL).0;
            assert_eq!((log.log_start(), log.log_end()), (0, base + 4), "{what}");
            Harm { end: base + 4, ..Harm { gone: harm.gone.clone(), ..harm } }.check(&log.reader(), &model);
            assert!(look(&disk).0.faults >= 1, "{what}");
        }
    }
}

#[test]
fn a_repair_gives_up_what_is_gone_and_is_believed() {
    for harm in HARMS {
        for (mode, is_started) in
            [(RepairMode::DropBatch, false), (RepairMode::Truncate, false), (RepairMode::DropBatch, true), (RepairMode::Truncate, true)]
        {
            let what = format!("{}, {mode:?}, started before {is_started}", harm.what);
            let (disk, _) = harm.done();
            if is_started {
                open(&disk, SMALL);
            }
            let plan = plan(&disk, mode);
            assert!(!plan.is_empty(), "{what}");
            plan.apply_with(&(Arc::new(disk.clone()) as Arc<dyn Disk>), SMALL).expect("is repaired");
            assert_eq!(look(&disk).0.faults, 0, "{what}: {:#?}", look(&disk).1);
            // Before the start there is nothing in front of the loss that a truncation could keep.
            let is_front = harm.gone.start == 0 && !is_started;
            let end = if mode == RepairMode::Truncate && !is_front { harm.gone.start } else { harm.end };
            for _ in 0..2 {
                let (log, report) = open(&disk, SMALL);
                assert!(report.damaged.is_empty(), "{what}: {report:?}");
                assert_eq!((log.log_start(), log.log_end()), (if is_front { harm.gone.end } else { 0 }, end), "{what}");
                crate::harness::read_all(&log.reader(), log.log_start(), 1 << 20).expect("nothing is damaged");
                log.close().expect("closes");
            }
        }
    }
}

#[test]
fn a_power_cut_while_a_loss_is_noted_or_repaired_gives_no_offset_out_again() {
    for harm in HARMS {
        for is_repaired in [false, true] {
            for changes in 0.. {
                let (disk, model) = harm.done();
                let plan = plan(&disk, RepairMode::DropBatch);
                disk.cut_power_after(changes);
                let done = if is_repaired {
                    plan.apply_with(&(Arc::new(disk.clone()) as Arc<dyn Disk>), SMALL).is_ok()
                } else {
                    try_open(&disk, SMALL).is_ok()
                };
                let done = done && disk.is_powered();
                disk.crash(changes);
                for _ in 0..2 {
                    let (log, _) = open(&disk, SMALL);
                    assert_eq!(log.log_end(), harm.end, "{}, {changes} changes, repaired {is_repaired}", harm.what);
                    if !is_repaired {
                        harm.check(&log.reader(), &model);
                    }
                }
                if done {
                    break;
                }
            }
        }
    }
}

#[test]
fn on_a_full_disk_a_loss_is_remembered_until_there_is_room_to_note_it() {
    for harm in HARMS {
        let (disk, model) = harm.done();
        disk.limit_bytes(Some(0));
        for _ in 0..2 {
            let (log, _) = open(&disk, SMALL);
            assert_eq!(log.log_end(), harm.end, "{}", harm.what);
            harm.check(&log.reader(), &model);
            drop(log);
            disk.crash(1);
        }
        disk.limit_bytes(None);
        let (mut log, _) = open(&disk, SMALL);
        assert_eq!(log.append(&[batch(1, 10)], 7).expect("appends"), harm.end, "{}", harm.what);
        harm.check(&log.reader(), &model);
    }
}

#[test]
fn what_says_nothing_with_a_checksum_is_no_evidence_of_a_loss() {
    // An older folder: its recovery point has no checksum, and nothing says where it begins.
    let (disk, model) = closed_log();
    for name in ["clean-stop", "log-start.2"] {
        remove(&disk, name);
    }
    disk.damage(&Path::new(DIR).join("recovery-point"), |bytes| *bytes = b"millpond recovery point 1\n00000000000000000020\n".to_vec());
    for base in [0, 20] {
        remove_segment(&disk, base);
    }
    let (log, report) = open(&disk, SMALL);
    assert!(report.damaged.is_empty(), "{report:?}");
    crate::harness::check(&log.reader(), &model[5..20]);
    assert_eq!(look(&disk).0.faults, 0, "{:#?}", look(&disk).1);

    // What is deleted is not missing, whatever becomes of the end.
    let mut fixture = Fixture::new(SMALL);
    fixture.append(&vec![batch(1, 700); 23]);
    fixture.flush();
    fixture.delete_before(23);
    let (fixture, _) = fixture.close_and_reopen(1);
    remove_all_segments(&fixture.disk);
    assert_eq!(look(&fixture.disk).0.faults, 0, "{:#?}", look(&fixture.disk).1);
    let (log, report) = open(&fixture.disk, SMALL);
    assert!(report.damaged.is_empty(), "{report:?}");
    assert_eq!((log.log_start(), log.log_end()), (23, 23));
}

#[test]
fn a_verification_says_what_the_next_start_does_with_the_last_segment() {
    let hole: fn(&mut Vec<u8>) = |bytes| bytes[770..1024].fill(0);
    let rot: fn(&mut Vec<u8>) = |bytes| bytes[870] ^= 1;
    let torn: fn(&mut Vec<u8>) = |bytes| bytes.truncate(870);
    // Of the last batch but one, of which nothing but the last one itself is behind.
    let late: fn(&mut Vec<u8>) = |bytes| bytes[770 + 100] ^= 1;
    for (change, kind, end, is_cut) in
        [(hole, "interrupted", 21, true), (rot, "damaged", 23, false), (torn, "torn_tail", 21, true), (late, "damaged", 23, false)]
    {
        let (disk, _) = closed_log();
        remove(&disk, "clean-stop");
        disk.damage(&segment(&disk, 4), change);
        let (_, faults) = look(&disk);
        assert!(faults[0].starts_with(&format!("00000000000000000020.log 770 21 {kind}: ")), "{faults:#?}");
        let (log, report) = open(&disk, SMALL);
        assert_eq!((log.log_end(), report.cut.is_some()), (end, is_cut), "{kind}");
        assert_eq!(report.set_aside.is_empty(), kind != "interrupted");
    }
    // After a clean stop the last segment is not read, and nothing is cut.
    let (disk, _) = closed_log();
    disk.damage(&segment(&disk, 4), hole);
    let (_, faults) = look(&disk);
    assert!(faults[0].starts_with("00000000000000000020.log 770 21 damaged: "), "{faults:#?}");
    let (log, report) = open(&disk, SMALL);
    assert!(report.clean_stop && log.log_end() == 23);
    log.reader().read(22, 1, i64::MAX).expect("it is behind the damage");
}

#[test]
fn rot_at_the_very_end_of_a_log_that_was_closed_is_no_torn_tail_and_costs_its_offsets_in_both_repairs() {
    for mode in [RepairMode::DropBatch, RepairMode::Truncate] {
        for changes in 0.. {
            let (disk, _) = closed_log();
            let end = open(&disk, SMALL).0.log_end();
            disk.damage(&segment(&disk, 4), |bytes| {
                let at = bytes.len() - 30;
                bytes[at] ^= 1;
            });
            let (verified, faults) = look(&disk);
            assert!(faults[0].contains(" 22 damaged: ") && verified.faults == 1, "{faults:#?}");
            // The broker says the same, and knows it once somebody has read it.
            let (log, report) = open(&disk, SMALL);
            assert!(report.clean_stop && log.log_end() == end && log.reader().known_damage().is_none());
            log.reader().read(22, 1, i64::MAX).expect_err("it is damaged");
            assert_eq!(log.reader().known_damage(), Some(KnownDamage { ranges: 1, first_offset: 22 }));
            drop(log);
            let plan = plan(&disk, mode);
            assert!(matches!(plan.losses(), [loss] if loss.offsets == (22..end)), "{:?}", plan.losses());
            disk.cut_power_after(changes);
            let shared = Arc::new(disk.clone()) as Arc<dyn Disk>;
            let done = plan.apply_with(&shared, SMALL).is_ok() && disk.is_powered();
            disk.crash(changes);
            let (log, _) = open(&disk, SMALL);
            match mode {
                RepairMode::DropBatch => assert_eq!(log.log_end(), end, "{changes} changes"),
                RepairMode::Truncate => assert!(log.log_end() == end && !done || log.log_end() == 22, "{changes} changes"),
            }
            if done {
                assert_eq!(look(&disk).0.faults, 0, "{:#?}", look(&disk).1);
                break;
            }
        }
    }
}

#[test]
fn beside_a_broker_that_does_nothing_rot_at_the_end_is_no_write_in_motion() {
    let (disk, _) = closed_log();
    let rot: fn(&mut Vec<u8>) = |bytes| {
        let at = bytes.len() - 30;
        bytes[at] ^= 1;
    };
    let beside = |disk: &SimDisk| look_with(disk, VerifyOptions { in_use: true, ..VerifyOptions::default() }).1;
    let (mut log, _) = open(&disk, SMALL);
    disk.damage(&segment(&disk, 4), rot);
    assert!(beside(&disk)[0].contains(" 22 damaged: "), "{:#?}", beside(&disk));
    // Behind an append nobody knows.
    log.append(&[batch(1, 700)], 0).expect("appends");
    disk.damage(&segment(&disk, 4), rot);
    assert!(beside(&disk).iter().any(|fault| fault.contains(" in_motion: ")), "{:#?}", beside(&disk));
}

#[test]
fn what_a_deletion_without_room_to_say_so_has_removed_is_not_missed() {
    for (before, has_some_room) in [(10, false), (12, false), (12, true)] {
        for changes in 0.. {
            let mut fixture = Fixture::new(SMALL);
            fixture.append(&vec![batch(1, 700); 23]);
            fixture.flush();
            let disk = fixture.disk.clone();
            disk.limit_bytes(Some(if has_some_room { disk.used_bytes() } else { 0 }));
            disk.cut_power_after(changes);
            let deleted = fixture.log.begin_delete(before).expect("something to delete").run();
            let done = disk.is_powered();
            assert!(!done || deleted.is_ok() == (has_some_room || before == 10), "{deleted:?}");
            disk.crash(changes);
            // The room that was made is taken again, or not.
            if changes % 2 == 0 {
                disk.limit_bytes(None);
            }
            for _ in 0..2 {
                let (log, report) = open(&disk, SMALL);
                assert!(report.damaged.is_empty(), "{changes} changes: {report:?}");
                assert!(log.log_end() == 23 && (!done || log.log_start() >= 10), "{changes} changes");
            }
            if done {
                break;
            }
        }
    }
}

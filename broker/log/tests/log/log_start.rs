//! The two files that hold the log start: whatever happens to one of them, nothing that was deleted comes back.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use millpond_log::inspect::{MendKind, RepairMode};
use millpond_log::sim::{Fault, Operation, SimDisk};
use millpond_log::{Disk, LogError, OpenMode};

use crate::delete::filled;
use crate::harness::{DIR, Fixture, SMALL, check_from, open};
use crate::inspect::{closed_log, look, plan};

/// In the middle of a segment of ten records.
const START: i64 = 45;

fn path(name: &str) -> PathBuf {
    Path::new(DIR).join(name)
}

fn both() -> [PathBuf; 2] {
    [path("log-start"), path("log-start.2")]
}

/// A log that begins at [`START`], closed in order.
fn begun_later() -> Fixture {
    let mut fixture = filled();
    fixture.delete_before(START);
    fixture.close_and_reopen(0).0
}

/// What can happen to a file whose bytes these are.
fn damages(whole: &[u8]) -> Vec<Vec<u8>> {
    let flipped = (0..whole.len() * 8).map(|bit| {
        let mut bytes = whole.to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        bytes
    });
    let cut = (0..whole.len()).map(|length| whole[..length].to_vec());
    flipped.chain(cut).chain([vec![0; whole.len()], vec![0; 100_000], [whole, b"\n"].concat()]).collect()
}

/// The case of a hexadecimal digit of the checksum says nothing.
fn says_something_else(damaged: &[u8], whole: &[u8]) -> bool {
    let checksum_at = whole.len() - 9;
    damaged.len() != whole.len() || damaged[..checksum_at] != whole[..checksum_at] || damaged.to_ascii_lowercase() != whole
}

fn put(disk: &SimDisk, path: &Path, bytes: &[u8]) {
    disk.open(path, OpenMode::Replace).expect("opens");
    disk.damage(path, |into| *into = bytes.to_vec());
}

#[test]
fn one_damaged_file_brings_nothing_back_and_is_written_anew() {
    let mut fixture = begun_later();
    let whole = fixture.disk.bytes(&both()[0]).expect("it is there");
    let damages = damages(&whole);
    for file in both() {
        assert_eq!(fixture.disk.bytes(&file).expect("it is there"), whole);
        for damaged in &damages {
            put(&fixture.disk, &file, damaged);
            let is_seen = says_something_else(damaged, &whole);
            assert_eq!(look(&fixture.disk).0.notes, u64::from(is_seen));
            let report = fixture.reopen();
            fixture.check();
            let expected: &[PathBuf] = if is_seen { std::slice::from_ref(&file) } else { &[] };
            assert_eq!((&report.mended_log_start[..], report.lost_log_start), (expected, None), "{damaged:?}");
            if is_seen {
                assert!(fixture.disk.bytes(&file).expect("it is there") == whole && fixture.reopen().is_clean(), "it is said once");
            }
            put(&fixture.disk, &file, &whole);
        }
        fixture.disk.remove_file(&file).expect("removes");
        fixture.disk.create_dir_all(&file).expect("creates");
        assert_eq!(fixture.reopen().mended_log_start, std::slice::from_ref(&file));
        fixture.check();
        assert!(fixture.disk.bytes(&file).expect("a file again") == whole && fixture.reopen().is_clean());
        let aside = file.with_file_name(format!("{}.removed-1", file.file_name().expect("a name").display()));
        fixture.disk.remove_dir_all(&aside).expect("the folder is kept by another name");
    }
}

#[test]
fn where_both_are_damaged_the_log_begins_with_its_first_segment_and_that_is_said_once() {
    for closed in [false, true] {
        let mut fixture = filled();
        fixture.delete_before(START);
        if closed {
            fixture = fixture.close_and_reopen(0).0;
        }
        let first = fixture.log.reader().segments()[0].base_offset;
        assert!(first < START);
        for file in both() {
            fixture.disk.damage(&file, |bytes| bytes[25] ^= 1);
        }
        assert_eq!(look(&fixture.disk).0.faults, 2);
        let report = fixture.reopen();
        assert!(!report.is_clean());
        assert_eq!((report.lost_log_start, fixture.log.log_start()), (Some(first), first));
        assert_eq!(look(&fixture.disk).0.faults, 0);
        let report = fixture.reopen();
        assert_eq!((report.lost_log_start, fixture.log.log_start()), (None, first), "and no further back");
        // From here on all is as ever.
        fixture.delete_before(START);
        fixture.reopen();
        fixture.check();
    }
}

#[test]
fn the_larger_of_the_two_is_true() {
    let mut fixture = filled();
    fixture.delete_before(12);
    let older = fixture.disk.bytes(&both()[0]).expect("it is there");
    fixture.delete_before(START);
    let newer = fixture.disk.bytes(&both()[0]).expect("it is there");
    for lagging in both() {
        put(&fixture.disk, &lagging, &older);
        assert!(fixture.reopen().is_clean(), "nothing is wrong with it");
        fixture.check();
        assert!(both().iter().all(|file| fixture.disk.bytes(file).expect("it is there") == newer));
        // As in a folder from before there were two.
        fixture.disk.remove_file(&lagging).expect("removes");
        assert_eq!(look(&fixture.disk).1, [""; 0]);
        assert!(fixture.reopen().is_clean());
        fixture.check();
        assert!(both().iter().all(|file| fixture.disk.bytes(file).expect("it is there") == newer));
    }
}

#[test]
fn a_power_cut_between_the_two_leaves_the_log_start_where_it_was_seen_whatever_is_damaged_later() {
    for changes in 0..30 {
        for seed in 0..6 {
            let mut fixture = filled();
            fixture.delete_before(12);
            fixture.disk.cut_power_after(changes);
            let deletion = fixture.log.begin_delete(START).expect("there is something");
            let answered = deletion.run();
            let seen = fixture.log.log_start();
            fixture.disk.crash(seed);
            fixture.reopen();
            let start = fixture.log.log_start();
            assert!(start >= seen && (start == START || (start == 12 && answered.is_err())), "{start} after {changes} changes");
            fixture.note_start(start);
            let file = &both()[usize::try_from(seed % 2).expect("small")];
            fixture.disk.damage(file, |bytes| bytes[30] ^= 1);
            fixture.disk.crash(seed);
            assert_eq!(fixture.reopen().mended_log_start, std::slice::from_ref(file));
            fixture.check();
        }
    }
}

#[test]
fn without_room_for_the_second_the_first_is_enough_and_the_next_opening_completes_it() {
    // Within the first segment, so that nothing goes that could make room.
    let mut fixture = filled();
    fixture.disk.limit_names(Some(fixture.disk.used_names() + 1));
    fixture.delete_before(7);
    fixture.check();
    assert_ne!(fixture.disk.bytes(&both()[0]).expect("it is there"), fixture.disk.bytes(&both()[1]).expect("as the log was created with"));
    fixture.reopen();
    fixture.check();
    fixture.disk.limit_names(None);
    assert!(fixture.reopen().is_clean());
    assert_eq!(fixture.disk.bytes(&both()[0]).expect("it is there"), fixture.disk.bytes(&both()[1]).expect("it is there"));
    // What was deleted makes room for it.
    let mut fixture = filled();
    fixture.disk.limit_names(Some(fixture.disk.used_names() + 1));
    fixture.delete_before(START);
    assert_eq!(fixture.disk.bytes(&both()[0]).expect("it is there"), fixture.disk.bytes(&both()[1]).expect("it is there"));
    fixture.check();
}

#[test]
fn an_opening_that_can_not_write_them_anew_works_and_leaves_it_to_the_next() {
    for operation in [Operation::Create, Operation::Write, Operation::Sync, Operation::Rename] {
        let mut fixture = begun_later();
        fixture.disk.damage(&both()[0], Vec::clear);
        fixture.disk.fail(operation, 1, Fault::Device);
        let report = fixture.reopen();
        fixture.check();
        assert_eq!(report.mended_log_start.len(), 1);
        fixture.reopen();
        fixture.check();
        assert_eq!(look(&fixture.disk).0.notes, 0, "{operation:?}");
    }
    // What can't be read at all may be read later.
    let mut fixture = begun_later();
    for nth in 1..8 {
        fixture.disk.fail(Operation::Read, nth, Fault::Device);
        if let Err(error) = crate::harness::try_open(&fixture.disk, SMALL) {
            assert!(matches!(error, LogError::Io { .. }), "{error}");
        }
        fixture.disk.forget_failures(Operation::Read);
        fixture.reopen();
        fixture.check();
    }
}

#[test]
fn a_repair_leads_out_of_damage_to_the_log_start() {
    for mode in [RepairMode::DropBatch, RepairMode::Truncate] {
        for (files, start) in [(&both()[..1], START), (&both()[1..], START), (&both()[..], 40)] {
            let fixture = begun_later();
            for file in files {
                fixture.disk.damage(file, |bytes| bytes.truncate(9));
            }
            let found = look(&fixture.disk).0;
            assert_eq!((found.faults + found.notes, found.faults == 2), (files.len() as u64, start == 40));
            let plan = plan(&fixture.disk, mode);
            let expected = if start == 40 { MendKind::LogStartLost { start } } else { MendKind::LogStartCopied { start } };
            assert!(!plan.is_empty() && plan.losses().is_empty());
            assert!(plan.mends().iter().map(|mend| mend.kind).eq(files.iter().map(|_| expected)), "{:?}", plan.mends());
            let lost = "the log start is lost; written anew as 40, where the first segment begins; records of that segment that were deleted \
                        are served again";
            let copied = "written anew from the other copy of the log start, 45; nothing is lost";
            assert_eq!(plan.mends()[0].to_string(), if start == 40 { lost } else { copied });
            plan.apply(&(Arc::new(fixture.disk.clone()) as Arc<dyn Disk>)).expect("is repaired");
            assert_eq!(look(&fixture.disk).1, [""; 0]);
            assert!(crate::inspect::plan(&fixture.disk, mode).is_empty());
            let (log, report) = open(&fixture.disk, SMALL);
            assert!(report.is_clean() && log.log_start() == start);
            if start == START {
                check_from(&log.reader(), &fixture.model, START);
            }
        }
    }
}

/// A log that has every small file.
fn with_all_files() -> SimDisk {
    let (disk, _) = closed_log();
    for (name, text) in
        [("compacted-to", "millpond compacted to 1\n00000000000000000012\n"), ("append-times", "millpond append times 1\n\n")]
    {
        let sealed = format!("{text}crc32c {:08x}\n", millpond_protocol::batch::checksum(text.as_bytes()));
        put(&disk, &path(name), sealed.as_bytes());
    }
    disk
}

#[test]
fn a_small_file_that_is_damaged_is_named_with_what_follows_and_a_repair_removes_it() {
    assert_eq!(look(&with_all_files()).1, [""; 0]);
    assert!(plan(&with_all_files(), RepairMode::DropBatch).is_empty());
    let flip: fn(&SimDisk, &Path) = |disk, path| disk.damage(path, |bytes| *bytes.last_mut().expect("it is not empty") ^= 8);
    let cut: fn(&SimDisk, &Path) = |disk, path| disk.damage(path, |bytes| bytes.truncate(bytes.len() / 2));
    let empty: fn(&SimDisk, &Path) = |disk, path| disk.damage(path, Vec::clear);
    let zeros: fn(&SimDisk, &Path) = |disk, path| disk.damage(path, |bytes| *bytes = vec![0; 20 << 20]);
    let folder: fn(&SimDisk, &Path) = |disk, path| {
        disk.remove_file(path).expect("it is there");
        disk.create_dir_all(path).expect("creates");
    };
    for (name, kind, is_note) in [
        ("clean-stop", "clean_stop", true),
        ("compacted-to", "compacted_to", true),
        ("append-times", "append_times", true),
        ("recovery-point", "recovery_point", false),
    ] {
        for damage in [flip, cut, empty, zeros, folder] {
            let disk = with_all_files();
            damage(&disk, &path(name));
            let (verified, faults) = look(&disk);
            assert_eq!((verified.notes, verified.faults), (u64::from(is_note), u64::from(!is_note)), "{faults:#?}");
            assert!(faults[0].starts_with(&format!("{name} - - {kind}: ")), "{faults:#?}");
            // A start of the broker goes without it.
            let other = with_all_files();
            damage(&other, &path(name));
            let (log, report) = open(&other, SMALL);
            assert!(report.cut.is_none() && report.damaged.is_empty() && log.log_end() == 23, "{report:?}");
            drop(log);
            for mode in [RepairMode::DropBatch, RepairMode::Truncate] {
                let plan = plan(&disk, mode);
                if plan.is_empty() {
                    continue;
                }
                assert!(plan.mends().len() == 1 && plan.losses().is_empty() && plan.mends()[0].to_string().starts_with("removed; "));
                plan.apply(&(Arc::new(disk.clone()) as Arc<dyn Disk>)).expect("is repaired");
            }
            let (verified, faults) = look(&disk);
            assert!(verified.faults == 0 && faults.iter().all(|fault| fault.contains("kept: ")), "{name}: {faults:#?}");
            assert!(plan(&disk, RepairMode::DropBatch).is_empty());
            let (log, report) = open(&disk, SMALL);
            assert!(report.is_clean() && log.log_end() == 23, "{report:?}");
        }
    }
}

#[test]
fn a_recovery_point_astray_is_mended_and_nobody_takes_more_for_durable_than_before() {
    for (point, expected) in [(3, MendKind::RecoveryPointRemoved), (21, MendKind::RecoveryPointRemoved)] {
        let (disk, _) = closed_log();
        disk.damage(&path("recovery-point"), |bytes| *bytes = format!("millpond recovery point 1\n{point:020}\n").into_bytes());
        assert_eq!(look(&disk).0.faults, 1);
        let plan = plan(&disk, RepairMode::DropBatch);
        assert_eq!(plan.mends()[0].kind, expected);
        plan.apply(&(Arc::new(disk.clone()) as Arc<dyn Disk>)).expect("is repaired");
        assert_eq!(look(&disk).1, [""; 0]);
    }
    // One that lags behind the first segment: all that is there may be torn.
    let mut fixture = crate::harness::Fixture::new(SMALL);
    fixture.append(&vec![crate::harness::batch(1, 700); 23]);
    fixture.delete_before(10);
    assert_eq!(look(&fixture.disk).1[0], "recovery-point - - recovery_point: the recovery point names offset 0, where no segment begins");
    let plan = plan(&fixture.disk, RepairMode::DropBatch);
    assert_eq!(plan.mends()[0].kind, MendKind::RecoveryPointMoved { to: 10 });
    plan.apply(&(Arc::new(fixture.disk.clone()) as Arc<dyn Disk>)).expect("is repaired");
    assert_eq!(look(&fixture.disk).0.faults, 0);
    let report = fixture.reopen();
    assert_eq!(report.scanned_bytes, fixture.log.size_bytes(), "it is all read");
    fixture.check();
}

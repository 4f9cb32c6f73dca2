//! What a recovery cuts off is kept first: on a full disk, with room to borrow and without, whatever fails, and when the power goes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use millpond_log::inspect::kept_log_of;
use millpond_log::sim::{Fault, Operation, SimDisk};
use millpond_log::{AppendTimes, Disk, Log, LogError, Now, OpenMode, Pools, RecoveryReport, WhenFull, write_all_at, write_atomically};
use millpond_protocol::compression::Codec;

use crate::compacted::{NOON_MS, filled};
use crate::harness::{DIR, Fixture, batch, batch_with, config, files, try_open};

/// A log of three segments with a hole in the first one, as a power cut leaves it, and what is behind the hole. All of it is durable.
fn interrupted() -> (Fixture, Vec<Vec<u8>>) {
    let mut fixture = Fixture::new(config(5_000, 500));
    for clock in 0..9 {
        fixture.append(&[batch_with(&[clock; 3], 500, Codec::None)]);
    }
    let path = fixture.segments()[0].clone();
    let position = fixture.model[0].bytes.len();
    fixture.disk.damage(&path, |bytes| bytes[position..(position + 1).next_multiple_of(512)].fill(0));
    let tail = fixture.disk.bytes(&path).expect("a segment").split_off(position);
    let segments = fixture.segments();
    let behind: Vec<_> = segments[1..].iter().map(|path| fixture.disk.bytes(path).expect("a segment")).chain([tail]).collect();
    assert_eq!(behind.len(), 3);
    for path in files(&fixture.disk, "") {
        fixture.disk.damage(&path, |_| {});
    }
    fixture.disk.sync_dir(Path::new(DIR)).expect("syncs");
    fixture.model.truncate(1);
    (fixture, behind)
}

fn open(fixture: &Fixture, when_full: WhenFull, report: &mut RecoveryReport) -> Result<Log, LogError> {
    Log::try_open(Arc::new(fixture.disk.clone()), Pools::default(), Path::new(DIR), fixture.config, when_full, report)
}

/// All files of the log, with their bytes.
fn all(disk: &SimDisk) -> BTreeMap<PathBuf, Vec<u8>> {
    files(disk, "").into_iter().map(|path| (path.clone(), disk.bytes(&path).expect("it is there"))).collect()
}

/// The bytes of all that is kept, whatever the names.
fn kept(disk: &SimDisk) -> Vec<Vec<u8>> {
    all(disk).into_iter().filter(|(path, _)| kept_log_of(path).is_some()).map(|(_, bytes)| bytes).collect()
}

/// Compares what the report says with what was behind the hole: all of it is kept, and each file named once.
fn check_report(disk: &SimDisk, report: &RecoveryReport, behind: &[Vec<u8>]) {
    let named = report.set_aside.iter().map(|part| (part.bytes, disk.bytes(part.kept.as_ref().expect("kept")).expect("it is there")));
    let mut named: Vec<_> = named.inspect(|(bytes, kept)| assert_eq!(*bytes, kept.len() as u64)).map(|(_, kept)| kept).collect();
    let mut expected = behind.to_vec();
    let cut_off: usize = behind.iter().map(Vec::len).sum();
    named.sort();
    expected.sort();
    assert!(named == expected, "{report:?}");
    assert_eq!((report.truncated_bytes, report.removed_segments.len()), (cut_off as u64, behind.len() - 1), "{report:?}");
    assert!(report.cut.as_ref().is_some_and(|cut| cut.next_offset == 3), "{report:?}");
}

/// A file that takes the rest of the disk, and can be lent.
fn fill_up(disk: &SimDisk, bytes: usize) -> PathBuf {
    let path = PathBuf::from("/data/reserve");
    write_atomically(disk, &path, &vec![7; bytes]).expect("there is room");
    disk.limit_bytes(Some(disk.used_bytes()));
    disk.limit_names(Some(disk.used_names()));
    path
}

#[test]
fn a_try_without_room_cuts_nothing_and_one_with_room_that_was_lent_keeps_it_all() {
    let (fixture, behind) = interrupted();
    let reserve = fill_up(&fixture.disk, 10_000);
    let before = all(&fixture.disk);
    let mut report = RecoveryReport::default();
    for limits in [(true, true), (true, false), (false, true)] {
        fixture.disk.limit_bytes(limits.0.then(|| fixture.disk.used_bytes()));
        fixture.disk.limit_names(limits.1.then(|| fixture.disk.used_names()));
        let error = open(&fixture, WhenFull::Fail, &mut report).expect_err("there is no room for what is to be kept");
        assert!(matches!(error, LogError::Full { .. }), "{error:?}");
        assert!(all(&fixture.disk) == before && report.is_clean(), "{report:?}");
    }
    fixture.disk.limit_bytes(Some(fixture.disk.used_bytes()));
    fixture.disk.remove_file(&reserve).expect("it is lent");
    let log = open(&fixture, WhenFull::Fail, &mut report).expect("there is room");
    check_report(&fixture.disk, &report, &behind);
    let fixture = Fixture { log, ..fixture };
    fixture.check();
}

#[test]
fn only_the_last_try_drops_what_nobody_has_room_for_and_says_so() {
    let (fixture, behind) = interrupted();
    let reserve = fill_up(&fixture.disk, 100);
    let mut report = RecoveryReport::default();
    open(&fixture, WhenFull::Fail, &mut report).expect_err("there is no room");
    fixture.disk.remove_file(&reserve).expect("it is lent");
    open(&fixture, WhenFull::Fail, &mut report).expect_err("what was lent is too little");
    assert!(report.is_clean() && kept(&fixture.disk).is_empty(), "{report:?}");
    let log = open(&fixture, WhenFull::Drop, &mut report).expect("a log opens on a full disk");
    // Segments that go as a whole take no room.
    let (gone, set_aside): (Vec<_>, Vec<_>) = report.set_aside.iter().partition(|part| part.kept.is_none());
    assert!(matches!(gone[..], [part] if part.bytes == behind[2].len() as u64 && part.offsets == (3..9)), "{report:?}");
    assert!(set_aside.len() == 2 && kept(&fixture.disk) == behind[..2]);
    let fixture = Fixture { log, ..fixture };
    fixture.check();
}

#[test]
fn whatever_fails_in_the_first_try_both_together_say_and_keep_all_that_was_cut() {
    let all =
        [Operation::Write, Operation::SetLen, Operation::Sync, Operation::SyncDir, Operation::Create, Operation::Rename, Operation::Remove];
    let mut failed_behind_the_cut = 0;
    for (operation, fault) in all.iter().flat_map(|operation| [(*operation, Fault::Device), (*operation, Fault::NoSpace)]) {
        for nth in 1.. {
            let (fixture, behind) = interrupted();
            let before = fixture.disk.count(operation);
            fixture.disk.fail(operation, nth, fault);
            let mut report = RecoveryReport::default();
            let first = open(&fixture, WhenFull::Fail, &mut report);
            if fixture.disk.count(operation) < before + nth {
                break;
            }
            failed_behind_the_cut += usize::from(first.is_err() && report.cut.is_some());
            let log = first.unwrap_or_else(|_| open(&fixture, WhenFull::Fail, &mut report).expect("nothing fails any more"));
            check_report(&fixture.disk, &report, &behind);
            assert_eq!(kept(&fixture.disk).len(), behind.len(), "{operation:?} {nth}: nothing is kept twice");
            let mut fixture = Fixture { log, ..fixture };
            fixture.check();
            fixture.append(&[batch(1, 10)]);
            fixture.flush();
            fixture.disk.crash(nth);
            let report = fixture.reopen();
            // A folder whose flush has failed may lose the names that it shows, and then what was kept is set aside once more.
            assert!(report.cut.is_none() || operation == Operation::SyncDir, "{operation:?} {nth}: {report:?}");
            fixture.check();
        }
    }
    assert!(failed_behind_the_cut > 3, "{failed_behind_the_cut}");
}

#[test]
fn a_power_cut_between_any_two_changes_of_the_tries_leaves_the_log_or_what_was_kept() {
    for changes in 0.. {
        let (mut fixture, behind) = interrupted();
        let reserve = fill_up(&fixture.disk, 10_000);
        fixture.disk.sync_dir(Path::new("/data")).expect("syncs");
        fixture.disk.cut_power_after(changes);
        let mut report = RecoveryReport::default();
        let opened = open(&fixture, WhenFull::Fail, &mut report).or_else(|_| {
            let _ = fixture.disk.remove_file(&reserve);
            open(&fixture, WhenFull::Fail, &mut report)
        });
        let is_done = opened.is_ok() && fixture.disk.is_powered();
        fixture.disk.crash(changes);
        fixture.reopen();
        fixture.check();
        let kept = kept(&fixture.disk);
        assert!(behind.iter().all(|wanted| kept.contains(wanted)), "{changes} changes: all is kept");
        if is_done {
            break;
        }
    }
}

#[test]
fn a_copy_that_is_not_whole_is_not_taken_for_one() {
    for (spoil, number) in [(0, 2), (1, 2), (2, 2), (3, 1)] {
        let (fixture, behind) = interrupted();
        let from = fixture.model[0].bytes.len();
        let to = from + behind[2].len();
        let name = format!("{}.{from}-{to}.removed-1", fixture.segments()[0].display());
        let mut bytes = behind[2].clone();
        match spoil {
            0 => bytes.truncate(to - from - 1),
            1 => bytes.push(0),
            2 => bytes[to - from - 1] ^= 1,
            _ => {}
        }
        let file = fixture.disk.open(Path::new(&name), OpenMode::CreateNew).expect("creates");
        write_all_at(&*file, &mut [std::io::IoSlice::new(&bytes)], 0).expect("writes");
        let mut report = RecoveryReport::default();
        open(&fixture, WhenFull::Fail, &mut report).expect("opens");
        check_report(&fixture.disk, &report, &behind);
        let copy = report.set_aside.iter().find(|part| part.position > 0).and_then(|part| part.kept.clone()).expect("kept");
        assert!(copy.to_string_lossy().ends_with(&format!(".removed-{number}")), "{copy:?}");
    }
}

#[test]
fn a_try_that_fails_behind_the_cut_leaves_nothing_compacted_beyond_the_end() {
    let mut compacted = filled(6);
    compacted.compact().expect("there is enough");
    let path = Path::new(DIR).join("compacted-to");
    let beyond = compacted.disk.bytes(&path).expect("it is there");
    let mut failed_behind_the_cut = 0;
    for nth in 1..20 {
        let (fixture, _) = interrupted();
        fixture.disk.open(&path, OpenMode::CreateNew).expect("creates");
        fixture.disk.damage(&path, |bytes| bytes.clone_from(&beyond));
        fixture.disk.fail(Operation::SyncDir, nth, Fault::Device);
        let mut report = RecoveryReport::default();
        let first = open(&fixture, WhenFull::Fail, &mut report);
        if first.is_err() && report.cut.is_some() {
            failed_behind_the_cut += 1;
            // In the next process.
            open(&fixture, WhenFull::Fail, &mut RecoveryReport::default()).expect("nothing fails any more");
        }
        let text = String::from_utf8(fixture.disk.bytes(&path).expect("it is there")).expect("text");
        assert!(first.is_err() && report.cut.is_none() || text.contains("\n00000000000000000003\n"), "{nth}: {text}");
    }
    assert!(failed_behind_the_cut > 0);
}

#[test]
fn a_try_whose_flush_finds_no_room_is_not_believed_by_the_one_with_room() {
    for takes_note in [false, true] {
        let mut fixture = Fixture::new(config(5_000, 500));
        fixture.append(&vec![batch(2, 700); 10]);
        let names = fixture.disk.used_names();
        fixture.disk.limit_names((!takes_note).then_some(names));
        fixture.disk.fail(Operation::Sync, 1, Fault::NoSpace);
        let mut report = RecoveryReport::default();
        let error = open(&fixture, WhenFull::Fail, &mut report).expect_err("nothing is flushed");
        assert!(matches!(error, LogError::Full { operation: "flush", .. }), "more room may help: {error:?}");
        assert_eq!(files(&fixture.disk, "flush-failed").len(), usize::from(takes_note));
        fixture.disk.limit_names(None);
        fixture.log = open(&fixture, WhenFull::Fail, &mut report).expect("there is room");
        assert_eq!(fixture.log.durable_end(), fixture.end());
        assert_eq!(files(&fixture.disk, "flush-failed").len(), 0);
        for seed in 0..4 {
            fixture.disk.crash(seed);
            let report = fixture.reopen();
            assert!(report.damaged.is_empty() && report.cut.is_none(), "what was counted as durable is: {report:?}");
            fixture.check();
        }
    }
}

#[test]
fn an_opening_in_one_try_does_not_offer_another_one_after_its_flush_has_failed() {
    let mut fixture = Fixture::new(config(5_000, 500));
    fixture.append(&[batch(2, 700)]);
    fixture.disk.fail(Operation::Sync, 1, Fault::NoSpace);
    let error = try_open(&fixture.disk, fixture.config).expect_err("nothing is flushed");
    assert!(matches!(error, LogError::Io { operation: "flush", .. }), "{error:?}");
}

#[test]
fn no_log_stays_closed_for_the_sake_of_a_file_that_it_can_do_without() {
    let mut compacted = filled(6);
    compacted.compact().expect("there is enough");
    let compacted_to = Path::new(DIR).join("compacted-to");
    let beyond = compacted.disk.bytes(&compacted_to).expect("it is there");
    let now = Now { wall_ms: NOON_MS, monotonic_ms: 0 };
    let prepare = || {
        let (fixture, _) = interrupted();
        fixture.disk.open(&compacted_to, OpenMode::CreateNew).expect("creates");
        fixture.disk.damage(&compacted_to, |bytes| bytes.clone_from(&beyond));
        // The segments are as they were: of each the file says more bytes than the cut leaves.
        let segments = fixture.log.reader().segments();
        let mut times = AppendTimes::new(Arc::new(fixture.disk.clone()), Path::new(DIR), &segments, 0);
        times.observe(now, &segments);
        assert!(times.save(now).expect("there is room"));
        fixture
    };
    for when_full in [WhenFull::Fail, WhenFull::Drop] {
        let fixture = prepare();
        // What is kept and cut has its room. Only behind it there is none.
        let mut report = RecoveryReport::default();
        fixture.disk.fail(Operation::SyncDir, 3, Fault::Device);
        open(&fixture, WhenFull::Fail, &mut report).expect_err("it fails behind the cut");
        assert!(report.cut.is_some(), "{report:?}");
        fill_up(&fixture.disk, 0);
        let opened = open(&fixture, when_full, &mut report);
        assert_eq!(opened.is_ok(), when_full == WhenFull::Drop, "{opened:?}");
        let Ok(log) = opened else { continue };
        assert_eq!((files(&fixture.disk, "compacted-to").len(), files(&fixture.disk, "append-times").len()), (0, 0));
        let mut fixture = Fixture { log, ..fixture };
        fixture.check();
        fixture.disk.limit_bytes(None);
        fixture.disk.limit_names(None);
        fixture.append(&[batch(2, 100)]);
        fixture.check();
    }
}

#[test]
fn a_copy_that_had_room_is_kept_although_its_folder_finds_none() {
    let (fixture, behind) = interrupted();
    fixture.disk.fail(Operation::SyncDir, 1, Fault::NoSpace);
    let mut report = RecoveryReport::default();
    let log = open(&fixture, WhenFull::Drop, &mut report).expect("a log opens on a full disk");
    assert!(!fixture.disk.has_just_failed(Operation::SyncDir), "the names are synced again");
    check_report(&fixture.disk, &report, &behind);
    let mut fixture = Fixture { log, ..fixture };
    fixture.check();
    fixture.disk.crash(1);
    fixture.reopen();
    fixture.check();
    check_report(&fixture.disk, &report, &behind);
}

/// A folder of this name, with something in it. Gives what is in it.
fn put_folder(disk: &SimDisk, name: &str) -> PathBuf {
    let inside = Path::new(DIR).join(name).join("inside");
    disk.create_dir_all(&inside).expect("creates");
    inside
}

#[test]
fn a_folder_in_the_place_of_what_is_to_be_kept_is_nobodys_concern() {
    for numbers in [vec![1], (1..=12).collect(), (40..52).collect(), vec![u64::MAX], vec![7, u64::MAX - 1, u64::MAX]] {
        let (fixture, behind) = interrupted();
        let (from, to) = (fixture.model[0].bytes.len(), fixture.model[0].bytes.len() + behind[2].len());
        let wanted = [format!("{:020}.log.{from}-{to}", 0), format!("{:020}.log.0-{}", 9, behind[0].len()), "log-start".to_owned()];
        assert!(fixture.segments().iter().any(|path| path.ends_with("00000000000000000009.log")), "a whole segment behind");
        let names = numbers.iter().flat_map(|number| wanted.iter().map(move |name| format!("{name}.removed-{number}")));
        let folders: Vec<_> = names.map(|name| put_folder(&fixture.disk, &name)).collect();
        let mut report = RecoveryReport::default();
        // The first try fails behind the copy, and the second one uses that.
        fixture.disk.fail(Operation::Rename, 1, Fault::Device);
        open(&fixture, WhenFull::Fail, &mut report).expect_err("a segment can't be renamed");
        let log = open(&fixture, WhenFull::Fail, &mut report).expect("nothing fails any more");
        check_report(&fixture.disk, &report, &behind);
        let copies = files(&fixture.disk, "").into_iter().filter(|path| kept_log_of(path).is_some());
        let copies = copies.filter(|path| fixture.disk.bytes(path).is_ok()).count();
        assert_eq!(copies, behind.len(), "{numbers:?}: nothing is kept twice");
        assert!(folders.iter().all(|inside| fixture.disk.exists(inside).expect("looks")), "{numbers:?}");
        Fixture { log, ..fixture }.check();
    }
}

#[test]
fn a_read_that_fails_makes_no_opening_remove_a_folder_or_what_is_not_there() {
    for nth in 1.. {
        let (fixture, behind) = interrupted();
        let inside = put_folder(&fixture.disk, "log-start.removed-1");
        for number in 2..14 {
            let path = Path::new(DIR).join(format!("{:020}.log.0-0.removed-{number}", 0));
            fixture.disk.open(&path, OpenMode::CreateNew).expect("creates");
        }
        let before = fixture.disk.count(Operation::Read);
        fixture.disk.fail(Operation::Read, nth, Fault::Device);
        let mut report = RecoveryReport::default();
        let first = open(&fixture, WhenFull::Fail, &mut report);
        if fixture.disk.count(Operation::Read) < before + nth {
            break;
        }
        if let Err(error) = &first {
            assert!(!matches!(error, LogError::Io { operation: "remove", .. }), "{nth}: {}", error.chain());
        }
        let log = first.unwrap_or_else(|_| open(&fixture, WhenFull::Fail, &mut report).expect("nothing fails any more"));
        check_report(&fixture.disk, &report, &behind);
        assert!(fixture.disk.exists(&inside).expect("looks"), "{nth}");
        Fixture { log, ..fixture }.check();
    }
}

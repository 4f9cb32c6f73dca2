//! The two files that hold the log start: whatever happens to one of them, nothing that was deleted comes back.

use std::path::{Path, PathBuf};

use millpond_log::sim::{Fault, Operation, SimDisk};
use millpond_log::{Disk, LogError, OpenMode};

use crate::delete::filled;
use crate::harness::{DIR, Fixture, SMALL};
use crate::inspect::look;

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
    assert!(!fixture.disk.exists(&both()[1]).expect("asks"));
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

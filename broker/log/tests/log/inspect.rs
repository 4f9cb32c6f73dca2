//! A log seen from outside: what is found, and what is dumped.

use std::path::{Path, PathBuf};

use millpond_log::inspect::{
    Fault, FaultKind, IndexEntry, IndexFault, IndexWalk, Piece, RepairMode, RepairPlan, SegmentWalk, Verified, VerifyOptions, Watch, verify,
};
use millpond_log::sim::{Fault as DiskFault, Operation, Random, SimDisk};
use millpond_log::{Damage, Disk, LogError, OpenMode};

use crate::harness::{DIR, Fixture, SMALL, Stored, batch, files, open, random_batch};

/// What is found, each fault as a line.
#[derive(Default)]
pub(crate) struct Seen {
    faults: Vec<String>,
    bytes: u64,
}

impl Watch for Seen {
    fn fault(&mut self, fault: &Fault) {
        let name = fault.path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        let kind = fault.kind.name();
        assert!(!fault.kind.to_string().is_empty() && !fault.kind.meaning().is_empty());
        let number = |number: Option<i128>| number.map_or("-".to_owned(), |number| number.to_string());
        let (position, offset) = (number(fault.position.map(i128::from)), number(fault.offset.map(i128::from)));
        self.faults.push(format!("{name} {position} {offset} {kind}: {}", fault.kind));
    }

    fn progress(&mut self, bytes: u64) {
        self.bytes += bytes;
    }
}

pub(crate) fn look(disk: &SimDisk) -> (Verified, Vec<String>) {
    look_with(disk, VerifyOptions::default())
}

pub(crate) fn look_with(disk: &SimDisk, options: VerifyOptions) -> (Verified, Vec<String>) {
    let mut seen = Seen::default();
    let verified = verify(disk, Path::new(DIR), options, &mut seen).expect("the folder can be listed");
    assert_eq!(verified.faults + verified.notes, seen.faults.len() as u64);
    if options.segment.is_none() {
        assert_eq!(seen.bytes, verified.bytes, "every byte is looked at once");
    }
    (verified, seen.faults)
}

/// A log of four closed segments and an active one, five batches of one record in each, closed in order.
pub(crate) fn closed_log() -> (SimDisk, Vec<Stored>) {
    let mut fixture = Fixture::new(SMALL);
    fixture.append(&vec![batch(1, 700); 23]);
    fixture.flush();
    fixture.log.close().expect("closes");
    (fixture.disk, fixture.model)
}

pub(crate) fn segment(disk: &SimDisk, number: usize) -> PathBuf {
    files(disk, ".log").swap_remove(number)
}

pub(crate) fn plan(disk: &SimDisk, mode: RepairMode) -> RepairPlan {
    RepairPlan::new(disk, Path::new(DIR), mode, &mut Seen::default()).expect("can be repaired")
}

#[test]
fn a_log_as_it_should_be_has_no_faults_whether_it_was_closed_or_not() {
    let mut random = Random::new(3);
    for round in 0..20 {
        let mut fixture = Fixture::new(SMALL);
        for clock in 0..random.below(60) {
            fixture.append(&[random_batch(&mut random, clock.cast_signed() * 50)]);
        }
        fixture.flush();
        let end = fixture.end();
        if round % 2 == 0 {
            fixture.log.close().expect("closes");
        }
        let (verified, faults) = look(&fixture.disk);
        assert!(faults.is_empty(), "{faults:#?}");
        assert_eq!((verified.log_start, verified.log_end, verified.batches), (0, end, fixture.model.len() as u64));
        assert_eq!(verified.bytes, fixture.model.iter().map(|stored| stored.bytes.len() as u64).sum::<u64>());
        assert!(plan(&fixture.disk, RepairMode::DropBatch).is_empty() && plan(&fixture.disk, RepairMode::Truncate).is_empty());
    }
}

#[test]
fn what_is_said_to_be_mended_by_the_next_start_is() {
    let junk: fn(&mut Vec<u8>) = |bytes| bytes.extend([7; 30]);
    let one_more: fn(&mut Vec<u8>) = |bytes| bytes.push(1);
    for (extension, change) in [("log", junk), ("index", one_more), ("timeindex", one_more), ("", Vec::clear)] {
        for number in 0..4 {
            for closed in [false, true] {
                let (disk, _) = closed_log();
                if !closed {
                    disk.remove_file(&Path::new(DIR).join("clean-stop")).expect("removes");
                }
                let log = segment(&disk, number);
                let path = if extension.is_empty() { Path::new(DIR).join("recovery-point") } else { log.with_extension(extension) };
                disk.damage(&path, change);
                let mut seen = Lasting::default();
                verify(&disk, Path::new(DIR), VerifyOptions::default(), &mut seen).expect("looks");
                assert!(seen.lasting + seen.mended > 0, "{}", path.display());
                if seen.lasting == 0 {
                    drop(crate::harness::open(&disk, SMALL));
                    assert_eq!(look(&disk).0.faults, 0, "{}, closed: {closed}: {:#?}", path.display(), look(&disk).1);
                }
                assert!(extension == "log" || seen.lasting == 0, "{}", path.display());
            }
        }
    }
}

/// Counts faults by whether a start mends them.
#[derive(Default)]
struct Lasting {
    lasting: u32,
    mended: u32,
}

impl Watch for Lasting {
    fn fault(&mut self, fault: &millpond_log::inspect::Fault) {
        *(if fault.kind.is_mended_by_start() { &mut self.mended } else { &mut self.lasting }) += u32::from(!fault.kind.is_note());
    }

    fn progress(&mut self, _: u64) {}
}

#[test]
fn looking_changes_nothing() {
    let (disk, _) = closed_log();
    let changes =
        [Operation::Write, Operation::SetLen, Operation::Sync, Operation::SyncDir, Operation::Create, Operation::Rename, Operation::Remove];
    let before = changes.map(|change| disk.count(change));
    disk.damage(&segment(&disk, 1), |bytes| bytes[100] ^= 1);
    look(&disk);
    plan(&disk, RepairMode::DropBatch);
    plan(&disk, RepairMode::Truncate);
    assert_eq!(changes.map(|change| disk.count(change)), before);
}

/// Something that is done to the bytes of a file.
type Change = Box<dyn Fn(&mut Vec<u8>)>;

#[test]
fn each_kind_of_damage_is_named_with_its_place() {
    let one = closed_log().1[0].bytes.len();
    let at = move |batch: usize, byte: usize| batch * one + byte;
    let flip = |byte: usize| move |bytes: &mut Vec<u8>| bytes[byte] ^= 0x10;
    let cases: Vec<(&str, usize, Change, &str)> = vec![
        ("magic", 1, Box::new(flip(at(1, 16))), "00000000000000000005.log 770 6 damaged: the header of the batch is not valid"),
        ("a record", 1, Box::new(flip(at(1, 400))), "00000000000000000005.log 770 6 damaged: the batch's checksum is"),
        ("timestamp", 1, Box::new(flip(at(4, 36))), "00000000000000000005.log 3080 9 damaged: the batch's checksum is"),
        ("length", 1, Box::new(flip(at(1, 9))), "00000000000000000005.log 770 6 damaged: the batch says that it has"),
        ("offset", 1, Box::new(flip(at(1, 7))), "00000000000000000005.log 770 6 damaged: the batch begins with offset 22, expected 6"),
        (
            "shortened",
            1,
            Box::new(move |bytes| bytes.truncate(at(4, 0))),
            "00000000000000000005.log 3080 9 damaged: the segment ends before",
        ),
        ("torn", 1, Box::new(move |bytes| bytes.truncate(at(4, 100))), "00000000000000000005.log 3080 9 damaged: the batch says that it"),
        ("empty", 1, Box::new(Vec::clear), "00000000000000000005.log 0 5 damaged: the segment ends before offset 10"),
        ("zeros", 1, Box::new(|bytes| bytes.fill(0)), "00000000000000000005.log 0 5 damaged: the header of the batch is not valid"),
        (
            "cut out",
            1,
            Box::new(move |bytes| drop(bytes.drain(at(1, 0)..at(2, 0)))),
            "00000000000000000005.log 770 6 damaged: the batch begins with",
        ),
        (
            "doubled",
            1,
            Box::new(move |bytes| {
                let copy = bytes[at(1, 0)..at(2, 0)].to_vec();
                drop(bytes.splice(at(2, 0)..at(2, 0), copy));
            }),
            "00000000000000000005.log 1540 7 damaged: the batch begins with offset 6, expected 7",
        ),
        (
            "tail",
            4,
            Box::new(move |bytes| bytes.truncate(at(2, 100))),
            "00000000000000000020.log 1540 22 damaged: the batch says that it has",
        ),
    ];
    for (what, number, change, expected) in cases {
        let (disk, _) = closed_log();
        disk.damage(&segment(&disk, number), |bytes| change(bytes));
        let (verified, faults) = look(&disk);
        assert!(verified.faults >= 1 && faults[0].starts_with(expected), "{what}: {faults:#?}");
        assert_eq!(verified.segments, 5, "{what}");
        assert!(verified.log_end >= 22, "{what}: what is behind the damage is read: {verified:?}");
    }
}

#[test]
fn random_bytes_and_a_lost_segment_are_found() {
    let (disk, _) = closed_log();
    let mut random = Random::new(8);
    disk.damage(&segment(&disk, 2), |bytes| bytes.iter_mut().for_each(|byte| *byte = random.next_u64().to_le_bytes()[0]));
    let (verified, faults) = look(&disk);
    assert!(faults[0].starts_with("00000000000000000010.log 0 10 damaged: "), "{faults:#?}");
    assert_eq!(verified.batches, 18);

    let (disk, _) = closed_log();
    disk.remove_file(&segment(&disk, 2)).expect("it is there");
    let (_, faults) = look(&disk);
    assert!(
        faults.iter().any(|fault| fault.starts_with("00000000000000000005.log 3850 10 damaged: the segment ends before offset 15")),
        "{faults:#?}"
    );
    assert!(faults.iter().any(|fault| fault == "00000000000000000010.index - - leftover: a leftover"), "{faults:#?}");
}

#[test]
fn files_that_are_not_the_logs_are_named_and_are_no_faults() {
    let (disk, _) = closed_log();
    for name in ["notes.txt", "recovery-point.tmp", "00000000000000000099.index", "00000000000000000005.log.0-9.removed-3"] {
        disk.open(&Path::new(DIR).join(name), OpenMode::CreateNew).expect("creates");
    }
    let (verified, faults) = look(&disk);
    assert_eq!((verified.faults, verified.notes), (0, 4), "{faults:#?}");
    let kinds: Vec<_> = faults.iter().map(|fault| fault.split(' ').nth(3).expect("a kind")).collect();
    assert_eq!(kinds, ["kept:", "leftover:", "stranger:", "leftover:"]);
}

#[test]
fn a_recovery_point_that_says_nothing_is_a_fault() {
    let (disk, _) = closed_log();
    let path = Path::new(DIR).join("recovery-point");
    disk.damage(&path, |bytes| bytes[3] ^= 1);
    assert_eq!(look(&disk).1, ["recovery-point - - recovery_point: the recovery point can't be read"]);
    disk.damage(&path, |bytes| *bytes = b"millpond recovery point 1\n00000000000000000021\n".to_vec());
    assert_eq!(look(&disk).1, ["recovery-point - - recovery_point: the recovery point names offset 21, where no segment begins"]);
}

#[test]
fn segments_before_the_log_start_are_no_part_of_the_log() {
    let (disk, _) = closed_log();
    let text = "millpond log start 1\n00000000000000000012\n";
    let sealed = format!("{text}crc32c {:08x}\n", millpond_protocol::batch::checksum(text.as_bytes()));
    let path = Path::new(DIR).join("log-start");
    disk.open(&path, OpenMode::CreateNew).expect("creates");
    disk.damage(&path, |bytes| *bytes = sealed.into_bytes());
    // What a deletion that was cut short by a crash can leave.
    disk.remove_file(&segment(&disk, 1)).expect("it is there");
    let (verified, faults) = look(&disk);
    assert_eq!((verified.faults, verified.notes, verified.log_start), (0, 5, 10), "{faults:#?}");
    assert!(plan(&disk, RepairMode::DropBatch).is_empty());
    disk.damage(&path, |bytes| bytes[30] ^= 1);
    let (verified, faults) = look(&disk);
    assert!(
        verified.faults == 2 && faults.iter().any(|fault| fault == "log-start - - log_start: the log start can't be read"),
        "{faults:#?}"
    );
}

#[test]
fn the_end_of_a_log_in_use_may_be_in_motion() {
    let (disk, _) = closed_log();
    disk.damage(&segment(&disk, 4), |bytes| bytes.truncate(bytes.len() - 9));
    let (verified, faults) = look_with(&disk, VerifyOptions { in_use: true, segment: None });
    assert_eq!((verified.faults, verified.notes), (0, 1), "{faults:#?}");
    assert!(faults[0].contains("in_motion"), "{faults:#?}");
    // One segment alone.
    let (verified, _) = look_with(&disk, VerifyOptions { in_use: false, segment: Some(5) });
    assert_eq!((verified.segments, verified.log_start, verified.log_end, verified.faults), (1, 5, 10, 0));
}

#[test]
fn a_file_that_cant_be_read_is_a_fault_and_the_rest_is_looked_at() {
    let (disk, _) = closed_log();
    // A listing, the recovery point (looked for twice, opened, read), then the first index is opened.
    let mut found = 0;
    for nth in 2..40 {
        disk.fail(Operation::Read, nth, DiskFault::Device);
        let (verified, faults) = look(&disk);
        // Of the small files some are read once more.
        assert!(faults.is_empty() || faults.iter().any(|fault| fault.contains("unreadable")), "{nth}: {faults:#?}");
        assert!(verified.batches >= 18, "{nth}: {verified:?}");
        found += verified.faults;
    }
    assert!(found > 3, "{found}");
    for path in files(&disk, "") {
        disk.make_unreadable(&path, std::slice::from_ref(&(0..1 << 30)));
        let (verified, faults) = look(&disk);
        assert!(
            verified.faults >= 1 && faults.iter().any(|fault| fault.contains("can't read") || fault.contains("can't be read")),
            "{faults:#?}"
        );
        assert!(verified.batches >= 15, "{}: {verified:?}", path.display());
        disk.make_unreadable(&path, &[]);
    }
    assert_eq!(look(&disk).0.faults, 0);
}

#[test]
fn a_dump_shows_what_was_written() {
    let (disk, model) = closed_log();
    let path = segment(&disk, 1);
    disk.damage(&path, |bytes| bytes[770 + 100] ^= 1);
    let mut walk = SegmentWalk::open(&disk, &path, 5, Some(10)).expect("opens");
    let mut lines = Vec::new();
    while let Some(piece) = walk.next_piece().expect("reads") {
        lines.push(match piece {
            Piece::Batch(found) => {
                let batch = walk.load(&found).expect("reads").expect("is small");
                assert_eq!(batch.bytes()[..], model[usize::try_from(found.header.base_offset).expect("small")].bytes[..]);
                format!("{} at {}", found.header.base_offset, found.position)
            }
            Piece::Damage(range) => {
                assert!(matches!(range.reason, Damage::Checksum(_)) && range.header.is_some());
                format!("damage from {} to {:?} in {} bytes at {}", range.offset, range.next_offset, range.bytes, range.position)
            }
        });
    }
    assert_eq!(lines, ["5 at 0", "damage from 6 to Some(7) in 770 bytes at 770", "7 at 1540", "8 at 2310", "9 at 3080"]);

    let entries = |extension: &str| {
        let mut walk = IndexWalk::open(&disk, &path.with_extension(extension), 5).expect("opens");
        std::iter::from_fn(|| walk.next_entry().expect("reads")).collect::<Vec<_>>()
    };
    let offset = |at, offset, position| (at, IndexEntry::Offset { offset, position });
    assert_eq!(entries("index"), [offset(0, 6, 770), offset(8, 7, 1540), offset(16, 8, 2310), offset(24, 9, 3080)]);
    assert_eq!(entries("timeindex"), [(0, IndexEntry::Time { timestamp: 1_000, offset: 5 })]);
}

#[test]
fn a_reader_that_meets_damage_says_where() {
    let (disk, _) = closed_log();
    let path = segment(&disk, 1);
    disk.damage(&path, |bytes| bytes[770 + 100] ^= 1);
    let (log, _) = open(&disk, SMALL);
    let error = log.reader().read(6, 1, i64::MAX).expect_err("damaged");
    assert!(matches!(&error, LogError::Corrupt { path: named, position: 770, offset: 6, .. } if *named == path), "{error}");
}

#[test]
fn records_that_are_not_what_the_header_says_are_found() {
    use millpond_protocol::batch::{BatchChecksum, CHECKSUMMED_FROM};
    let (disk, _) = closed_log();
    let path = segment(&disk, 1);
    // A batch with a right checksum, of a producer that can't count.
    disk.damage(&path, |bytes| {
        bytes[60] = 0;
        let mut checksum = BatchChecksum::new();
        checksum.update(&bytes[CHECKSUMMED_FROM..770]);
        bytes[17..21].copy_from_slice(&checksum.value().to_be_bytes());
    });
    let (verified, faults) = look(&disk);
    assert_eq!(verified.faults, 1, "{faults:#?}");
    assert_eq!(faults[0], "00000000000000000005.log 0 5 records: the batch announces 0 records and holds 1");
    assert!(plan(&disk, RepairMode::DropBatch).is_empty(), "the bytes are as they were stored");
    assert!(!FaultKind::Index(IndexFault::Missing).is_note());
}

#[test]
fn a_flipped_bit_in_a_leader_epoch_is_noted_and_the_batch_served() {
    for (bit, offset) in [(0, 7), (20, 8), (31, 7)] {
        let (disk, model) = closed_log();
        let (path, one) = (segment(&disk, 1), model[0].bytes.len());
        disk.damage(&path, |bytes| {
            let epoch = &mut bytes[2 * one + 12..2 * one + 16];
            let flipped = i32::from_be_bytes(epoch.try_into().expect("four bytes")) ^ (1 << bit);
            epoch.copy_from_slice(&flipped.to_be_bytes());
        });
        let (verified, faults) = look(&disk);
        assert_eq!((verified.faults, verified.notes), (0, 1), "{faults:#?}");
        // The one with the bit, or the one behind it, if the number has grown.
        assert!(faults[0].contains(&format!(" {} {offset} leader_epoch: ", (offset - 5) * one)), "{faults:#?}");
        let (log, _) = open(&disk, SMALL);
        assert_eq!(log.reader().read(7, 1, i64::MAX).expect("served").len(), one);
    }
}

//! Bytes taken for the files in a log's folder.
//!
//! ```text
//! 0         1                                    the first byte: see [`Settings`]
//! +---------+--------------------------------+
//! | how     | files, one behind the other    |
//! +---------+--------------------------------+
//!
//! "\n=="    up to the next "\n"   up to the next "\n=="
//! +--------+---------------------+---------------------+
//! | mark   | name of the file    | its bytes           |  ...
//! +--------+---------------------+---------------------+
//! ```
//!
//! Names are text, so that the reading of names is tried as well. Where the first byte says so, checksums are set right: bytes that
//! a checksum keeps out would never try what is behind it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use millpond_log::inspect::{
    Fault, FaultKind, IndexWalk, Piece, RepairMode, RepairPlan, SegmentWalk, VerifyOptions, Watch, segment_of, verify,
};
use millpond_log::sim::{Operation, SimDisk};
use millpond_log::{Cursor, Damage, Disk, Log, LogConfig, LogError, LogReader, OpenMode};
use millpond_protocol::batch::{CHECKSUMMED_FROM, HEADER_BYTES, checksum};

use crate::harness::{DIR, batch, batches, config, prepared_disk, stored};

/// Takes the bytes for a folder, looks at it, opens it, and repairs it.
pub(crate) fn run(data: &[u8]) {
    let Some((first, files)) = data.split_first() else { return };
    let settings = Settings::of(*first);
    let files = files_of(files, settings.seals);
    let disk = disk_with(&files);
    let overlaps = look(&disk);
    open_and_use(&disk, &settings, overlaps);
    if settings.repairs {
        for mode in [RepairMode::DropBatch, RepairMode::Truncate] {
            repair(&disk_with(&files), mode, settings.config);
        }
    }
}

/// What the first byte says.
struct Settings {
    /// Bit 0: set the checksums right.
    seals: bool,
    /// Bit 1: repair the folder as well.
    repairs: bool,
    /// Bit 2: end by closing the log, otherwise by a kill.
    closes: bool,
    /// Bits 3 and 4: the size of segments.
    config: LogConfig,
}

impl Settings {
    fn of(byte: u8) -> Settings {
        let segment_bytes = [1 << 30, 1_000, 1, 300][usize::from(byte >> 3) % 4];
        Settings { seals: byte & 1 != 0, repairs: byte & 2 != 0, closes: byte & 4 != 0, config: config(segment_bytes, 100) }
    }
}

fn files_of(data: &[u8], seals: bool) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files: Vec<(PathBuf, Vec<u8>)> = Vec::new();
    for part in split(data, MARK).into_iter().skip(1).take(FILES_MAX) {
        let end_of_name = part.iter().position(|byte| *byte == b'\n').unwrap_or(part.len());
        let Ok(name) = std::str::from_utf8(&part[..end_of_name]) else { continue };
        let path = Path::new(DIR).join(name);
        if name.is_empty() || name.contains('/') || name.starts_with('.') || files.iter().any(|(known, _)| *known == path) {
            continue;
        }
        let mut bytes = part.get(end_of_name + 1..).unwrap_or_default().to_vec();
        if seals {
            seal(&path, &mut bytes);
        }
        files.push((path, bytes));
    }
    files
}

fn split<'a>(mut data: &'a [u8], mark: &[u8]) -> Vec<&'a [u8]> {
    let mut parts = Vec::new();
    while let Some(at) = data.windows(mark.len()).position(|window| window == mark) {
        parts.push(&data[..at]);
        data = &data[at + mark.len()..];
    }
    parts.push(data);
    parts
}

/// Sets the checksums right: of every batch that is whole by what its header says, and of the small files.
fn seal(path: &Path, bytes: &mut Vec<u8>) {
    if segment_of(path).is_some_and(|(_, extension)| extension == "log") {
        let mut at = 0;
        while let Some(length) = bytes.get(at + 8..at + 12).and_then(|field| field.first_chunk()).map(|field| i32::from_be_bytes(*field)) {
            let end = at + 12 + usize::try_from(length).unwrap_or(0);
            if end < at + HEADER_BYTES || end > bytes.len() {
                break;
            }
            let sum = checksum(&bytes[at + CHECKSUMMED_FROM..end]);
            bytes[at + CHECKSUMMED_FROM - 4..at + CHECKSUMMED_FROM].copy_from_slice(&sum.to_be_bytes());
            at = end;
        }
    } else if let Some(at) = bytes.windows(SEAL.len()).rposition(|window| window == SEAL) {
        // A small file in text, whose last line is its checksum.
        let sum = checksum(&bytes[..=at]);
        bytes.truncate(at + SEAL.len());
        bytes.extend_from_slice(format!("{sum:08x}\n").as_bytes());
    } else if let Some(body) = bytes.len().checked_sub(4)
        && bytes.starts_with(BINARY)
    {
        // A small file in binary, whose last four bytes are.
        let sum = checksum(&bytes[..body]);
        bytes[body..].copy_from_slice(&sum.to_be_bytes());
    }
}

fn disk_with(files: &[(PathBuf, Vec<u8>)]) -> SimDisk {
    let disk = prepared_disk();
    disk.create_dir_all(Path::new(DIR)).expect("creates");
    for (path, bytes) in files {
        disk.open(path, OpenMode::CreateNew).expect("creates");
        disk.damage(path, |empty| empty.clone_from(bytes));
    }
    disk.sync_dir(Path::new(DIR)).expect("syncs");
    disk.sync_dir(Path::new("/data")).expect("syncs");
    disk
}

/// Faults as they are found.
#[derive(Default)]
struct Seen {
    faults: Vec<(PathBuf, String)>,
    overlaps: bool,
}

impl Watch for Seen {
    fn fault(&mut self, fault: &Fault) {
        assert!(!fault.kind.name().is_empty() && !fault.kind.meaning().is_empty());
        // Records that are none, under a checksum that is right, are what a producer has sent.
        let stays = matches!(fault.kind, FaultKind::Records(_));
        if !fault.kind.is_note() && !stays {
            self.faults.push((fault.path.clone(), format!("byte {:?}, offset {:?}: {}", fault.position, fault.offset, fault.kind)));
        }
        self.overlaps |= matches!(fault.kind, FaultKind::Damaged { reason: Damage::OffsetsOverlap { .. }, .. });
    }

    fn progress(&mut self, _bytes: u64) {}
}

/// Looks at everything there is to look at, which changes nothing. Says whether a segment reaches into the next one: whole batches with
/// offsets that belong to others, which no damage makes of a log, but a file of another log in the place of its own.
fn look(disk: &SimDisk) -> bool {
    let changes = CHANGES.map(|change| disk.count(change));
    let mut bases = Vec::new();
    for name in disk.list(Path::new(DIR)).expect("lists") {
        let path = Path::new(DIR).join(name);
        match segment_of(&path) {
            Some((base, "log")) => bases.push((base, path)),
            Some((base, _)) => walk_index(disk, &path, base).expect("the disk works"),
            None => {}
        }
    }
    bases.sort();
    for (number, (base, path)) in bases.iter().enumerate() {
        walk_segment(disk, path, *base, bases.get(number + 1).map(|(next, _)| *next)).expect("the disk works");
    }
    let mut seen = Seen::default();
    verify(disk, Path::new(DIR), VerifyOptions::default(), &mut seen).expect("the disk works");
    for mode in [RepairMode::DropBatch, RepairMode::Truncate] {
        let _ = RepairPlan::new(disk, Path::new(DIR), mode, &mut Seen::default());
    }
    assert_eq!(CHANGES.map(|change| disk.count(change)), changes, "looking changes nothing");
    seen.overlaps
}

fn walk_index(disk: &SimDisk, path: &Path, base: i64) -> Result<(), LogError> {
    let mut walk = IndexWalk::open(disk, path, base)?;
    while walk.next_entry()?.is_some() {}
    let whole = disk.bytes(path).expect("a file").len() as u64 - walk.left_over_bytes();
    assert!(whole.is_multiple_of(walk.entry_bytes() as u64));
    Ok(())
}

fn walk_segment(disk: &SimDisk, path: &Path, base: i64, next_base: Option<i64>) -> Result<(), LogError> {
    let mut walk = SegmentWalk::open(disk, path, base, next_base)?;
    let (mut position, mut offset) = (0, base);
    while let Some(piece) = walk.next_piece()? {
        match piece {
            Piece::Batch(found) => {
                assert_eq!((found.position, found.header.base_offset), (position, offset), "pieces follow each other");
                (position, offset) = (position + found.header.total_bytes() as u64, found.header.next_offset());
                if let Some(batch) = walk.load(&found)? {
                    batch.verify_crc().expect("a whole batch has its checksum");
                    let _ = batch.check_records(RECORDS_BYTES_MAX);
                }
            }
            Piece::Damage(range) => {
                assert_eq!(range.position, position, "pieces follow each other");
                position += range.bytes;
                let Some(next_offset) = range.next_offset else { continue };
                assert!(next_offset >= offset, "offsets rise");
                offset = next_offset;
            }
        }
    }
    assert_eq!(position, walk.file_bytes(), "every byte is looked at once");
    Ok(())
}

/// Opens the log, reads all of it, appends to it, and finds that again.
fn open_and_use(disk: &SimDisk, settings: &Settings, overlaps: bool) {
    let mut log = open(disk, settings.config);
    let (start, end) = (log.log_start(), log.log_end());
    assert!((0..=end).contains(&start), "{start}..{end}");
    assert_eq!(log.durable_end(), end, "what an opening has kept is durable");
    if overlaps {
        let _ = log.reader().read(start, 2_000, end);
        return;
    }
    let (before, damaged) = read_what_can_be(&log.reader());
    for timestamp in [i64::MIN, 0, 1_000, i64::MAX] {
        match log.reader().find_time(timestamp, i64::MAX) {
            Ok(found) => assert!(found.is_none_or(|(offset, found)| (start..end).contains(&offset) && found >= timestamp)),
            Err(error) => assert!(matches!(error, LogError::Corrupt { .. }), "{error}"),
        }
    }
    let new = vec![batch(2, 10), batch(1, 30)];
    match log.append(&new, 3) {
        Ok(base) => assert_eq!((base, log.log_end()), (end, end + 3)),
        Err(error) => return assert!(matches!(error, LogError::OffsetsExhausted { .. }), "{error}"),
    }
    if damaged {
        // What lies behind damage in its segment can't be found, and an opening that has to read the segment cuts the log there.
        read_what_can_be(&log.reader());
        drop(log);
        read_what_can_be(&open(disk, settings.config).reader());
        return;
    }
    let appended: Vec<u8> = stored(end, 3, &new).into_iter().flat_map(|stored| stored.bytes).collect();
    let expected = [&before[..], &appended].concat();
    let holds = |log: &Log| read_what_can_be(&log.reader()) == (expected.clone(), false);
    assert!(holds(&log), "the append is behind what was there");
    if settings.closes {
        log.close().expect("closes");
    } else {
        drop(log);
    }
    let log = open(disk, settings.config);
    assert_eq!((log.log_start(), log.log_end()), (start, end + 3), "it is there after the next opening");
    assert!(holds(&log));
    drop(log);
    disk.crash(1);
    let log = open(disk, settings.config);
    assert_eq!((log.log_start(), log.log_end()), (start, end + 3), "what an opening has kept survives a power cut");
    assert!(holds(&log));
}

fn open(disk: &SimDisk, config: LogConfig) -> Log {
    Log::open(Arc::new(disk.clone()), Path::new(DIR), config).expect("damage is no error").0
}

/// Everything that is served, and whether there was damage. That is stepped over, segment by segment.
fn read_what_can_be(reader: &LogReader) -> (Vec<u8>, bool) {
    let (mut all, mut damaged) = (Vec::new(), false);
    for segment in reader.segments() {
        let mut cursor = Cursor::new(segment.base_offset.max(reader.log_start()));
        while cursor.offset() < segment.end_offset {
            let before = cursor.offset();
            match reader.read_next(&mut cursor, 2_000, i64::MAX) {
                // A batch that reaches behind the end of the log, under a checksum that is right, is never visible.
                Ok(bytes) if bytes.is_empty() => {
                    damaged = true;
                    break;
                }
                Ok(bytes) => {
                    check_served(before, cursor.offset(), &bytes);
                    all.extend_from_slice(&bytes);
                }
                Err(LogError::Corrupt { .. }) => {
                    damaged = true;
                    break;
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
    (all, damaged)
}

/// Whole batches with their checksums, from the one that holds `from` on, without a gap.
fn check_served(from: i64, next: i64, bytes: &Bytes) {
    let served = batches(bytes.clone());
    let first = served.first().expect("something is served in front of the end");
    assert!(first.header().base_offset <= from && from < first.header().next_offset());
    let mut expected = first.header().base_offset;
    for batch in &served {
        batch.verify_crc().expect("damage is never served");
        assert_eq!(batch.header().base_offset, expected, "no gap and no repetition");
        expected = batch.header().next_offset();
    }
    assert_eq!(next, expected);
}

/// Repairs the folder, after which no segment has anything wrong with it; the small files are for the next opening to write anew.
fn repair(disk: &SimDisk, mode: RepairMode, config: LogConfig) {
    let Ok(plan) = RepairPlan::new(disk, Path::new(DIR), mode, &mut Seen::default()) else { return };
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    plan.apply_with(&shared, config).expect("the disk works");
    let left = faults(disk);
    assert!(left.iter().all(|(path, _)| segment_of(path).is_none()), "{mode:?} leaves {left:#?}");
    let log = open(disk, config);
    let reader = log.reader();
    let mut cursor = Cursor::new(reader.log_start());
    while cursor.offset() < reader.log_end() {
        let before = cursor.offset();
        let bytes = reader.read_next(&mut cursor, 2_000, i64::MAX).expect("nothing is damaged after a repair");
        check_served(before, cursor.offset(), &bytes);
    }
    log.close().expect("closes");
    let left = faults(disk);
    assert!(left.is_empty(), "{mode:?} and an opening leave {left:#?}");
}

fn faults(disk: &SimDisk) -> Vec<(PathBuf, String)> {
    let mut seen = Seen::default();
    verify(disk, Path::new(DIR), VerifyOptions::default(), &mut seen).expect("the disk works");
    seen.faults
}

const MARK: &[u8] = b"\n==";

/// Begins the last line of a small file in text.
const SEAL: &[u8] = b"\ncrc32c ";

/// Begins a small file in binary.
const BINARY: &[u8] = b"mp";

const FILES_MAX: usize = 16;

/// What the records of one batch may take when they are decompressed.
const RECORDS_BYTES_MAX: usize = 1 << 16;

const CHANGES: [Operation; 7] =
    [Operation::Write, Operation::SetLen, Operation::Sync, Operation::SyncDir, Operation::Create, Operation::Rename, Operation::Remove];

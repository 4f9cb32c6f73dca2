//! The recovery point: every segment before it is whole and durable, and its producers are known.
//!
//! ```text
//! recovery-point, in the manner of crate::sidecar
//!
//! millpond recovery point 2
//! 00000000000000004711                  base offset of the first segment that may not be whole
//! producers 1                           what the batches before it say of their producers: see crate::producers
//! 815 3 2:120:122:0badcafe:-1:0
//! crc32c 1a2b3c4d
//! ```
//!
//! It moves in a flush, with the producers in one step, so that the two belong together. Where a repair has moved it, it says `producers
//! unknown`, and the next opening reads the headers of all batches for them. The layout before this one, `millpond recovery point 1`, ends
//! with the offset and has no checksum; it is read as one of a log without producers.

use std::io;
use std::path::Path;

use crate::disk::Disk;
use crate::folder::{BASE_DIGITS, parse_base};
use crate::producers::{Listed, SNAPSHOT_BYTES_MAX, Snapshot, UNKNOWN, parse};
use crate::sidecar::{read_bounded, unseal, write_sealed};

/// What the file says.
#[derive(Debug)]
pub(crate) struct RecoveryPoint {
    /// The base offset of the first segment that may not be whole and durable; all before it are.
    pub(crate) base_offset: i64,
    /// The producers of the batches before it. None if nobody knows.
    pub(crate) producers: Option<Listed>,
    /// Whether it has a checksum, so that no digit of it has changed.
    pub(crate) is_sealed: bool,
}

impl RecoveryPoint {
    /// Whether it lies behind the start of the last of these segments, as where everything before it is in that one, or was.
    pub(crate) fn is_ahead_of(&self, bases: &[i64]) -> bool {
        self.is_sealed && bases.last().is_some_and(|last| *last < self.base_offset)
    }
}

/// The recovery point in this folder. None if nothing usable is written down.
pub(crate) fn read_recovery_point(disk: &dyn Disk, dir: &Path) -> io::Result<Option<RecoveryPoint>> {
    let path = dir.join(RECOVERY_POINT);
    let Some(bytes) = read_bounded(disk, &path, RECOVERY_POINT_BYTES_MAX)? else { return Ok(None) };
    let text = std::str::from_utf8(&bytes).ok();
    let point = text.and_then(|text| unseal(text, HEADING).and_then(parse_body).or_else(|| parse_first_layout(text)));
    if point.is_none() {
        tracing::warn!(path = %path.display(), "the recovery point can't be read; every segment but the last counts as durable");
    }
    Ok(point)
}

/// Writes the recovery point down, durably. It may lag, but never run ahead. The producers are those of the batches before it; none if
/// they are not known.
pub(crate) fn write_recovery_point(disk: &dyn Disk, dir: &Path, base_offset: i64, producers: Option<&Snapshot>) -> io::Result<()> {
    let producers = producers.map_or(UNKNOWN, Snapshot::text);
    write_sealed(disk, &dir.join(RECOVERY_POINT), HEADING, &format!("{base_offset:0BASE_DIGITS$}\n{producers}"))
}

fn parse_body(body: &str) -> Option<RecoveryPoint> {
    let (digits, producers) = body.split_once('\n')?;
    let base_offset = parse_base(digits)?;
    let producers = if producers == UNKNOWN { None } else { Some(parse(producers)?) };
    Some(RecoveryPoint { base_offset, producers, is_sealed: true })
}

fn parse_first_layout(text: &str) -> Option<RecoveryPoint> {
    let digits = text.strip_prefix(FIRST_HEADING)?.strip_prefix('\n')?.strip_suffix('\n')?;
    Some(RecoveryPoint { base_offset: parse_base(digits)?, producers: Some(Listed::new()), is_sealed: false })
}

/// The file that holds the recovery point.
pub(crate) const RECOVERY_POINT: &str = "recovery-point";

/// Its first line, so that a later layout can have another.
const HEADING: &str = "millpond recovery point 2";

/// The first line of the layout before.
const FIRST_HEADING: &str = "millpond recovery point 1";

/// More than the file ever has: its other lines take 64 bytes.
const RECOVERY_POINT_BYTES_MAX: usize = SNAPSHOT_BYTES_MAX + 128;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::SimDisk;

    const DIR: &str = "/";

    fn file() -> std::path::PathBuf {
        Path::new(DIR).join(RECOVERY_POINT)
    }

    /// The point, and how many producers there are.
    fn read(disk: &SimDisk) -> Option<(i64, Option<usize>)> {
        let point = read_recovery_point(disk, Path::new(DIR)).expect("reads")?;
        Some((point.base_offset, point.producers.map(|listed| listed.len())))
    }

    fn put(disk: &SimDisk, text: &str) {
        crate::disk::write_atomically(disk, &file(), text.as_bytes()).expect("writes");
    }

    #[test]
    fn the_recovery_point_is_read_back_and_anything_else_counts_as_none() {
        let disk = SimDisk::new();
        assert_eq!(read(&disk), None);
        let write = |producers: Option<&Snapshot>| write_recovery_point(&disk, Path::new(DIR), 4711, producers).expect("writes");
        write(Some(&Snapshot::default()));
        assert_eq!(read(&disk), Some((4711, Some(0))));
        write(None);
        assert_eq!(read(&disk), Some((4711, None)));
        for length in 0..disk.bytes(&file()).expect("it is there").len() {
            disk.damage(&file(), |bytes| bytes.truncate(length));
            assert_eq!(read(&disk), None);
            write(None);
        }
        disk.damage(&file(), |bytes| bytes.fill(0xff));
        assert_eq!(read(&disk), None);
    }

    #[test]
    fn the_layouts_are_these_to_the_byte() {
        let disk = SimDisk::new();
        let golden = "millpond recovery point 2\n00000000000000004711\nproducers 1\n815 3 2:120:122:0badcafe:-1:0\ncrc32c 7fc1b56f\n";
        put(&disk, golden);
        assert_eq!(read(&disk), Some((4711, Some(1))));
        let mut producers = crate::producers::Producers::new(&crate::Pools::default(), &crate::LogConfig::default());
        producers.restore(read_recovery_point(&disk, Path::new(DIR)).expect("reads").and_then(|point| point.producers).expect("one"));
        write_recovery_point(&disk, Path::new(DIR), 4711, Some(&producers.snapshot())).expect("writes");
        assert_eq!(disk.bytes(&file()).expect("it is there"), golden.as_bytes());
        // A checksum that is right makes nothing true that no log writes.
        for body in ["4711\nproducers 0", "00000000000000004711", "00000000000000004711\nproducers 2", "00000000000000004711\n"] {
            write_sealed(&disk, &file(), HEADING, body).expect("writes");
            assert_eq!(read(&disk), None, "{body}");
        }

        put(&disk, "millpond recovery point 1\n00000000000000004711\n");
        assert_eq!(read(&disk), Some((4711, Some(0))));
        put(&disk, "millpond recovery point 1\n00000000000000004711\nproducers 0\n");
        assert_eq!(read(&disk), None);
    }

    #[test]
    fn a_file_that_is_too_large_is_not_read_as_a_whole() {
        let disk = SimDisk::new();
        put(&disk, &format!("millpond recovery point 2\n{}", "0".repeat(2 * RECOVERY_POINT_BYTES_MAX)));
        assert_eq!(read(&disk), None);
    }
}

//! The names in a log's folder, and the recovery point.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use crate::append_times::APPEND_TIMES;
use crate::disk::{Disk, OpenMode, TEMPORARY_SUFFIX, write_atomically};
use crate::log_start::LOG_START;

/// Extension of the file with the batches.
pub(crate) const LOG: &str = "log";
/// Extension of the offset index.
pub(crate) const INDEX: &str = "index";
/// Extension of the time index.
pub(crate) const TIME_INDEX: &str = "timeindex";

/// The path of one file of the segment with this base offset.
pub(crate) fn file_path(dir: &Path, base_offset: i64, extension: &str) -> PathBuf {
    dir.join(format!("{base_offset:0BASE_DIGITS$}.{extension}"))
}

/// What is in a log's folder, as far as it concerns the log.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Folder {
    /// Base offsets of the segments that have a `.log`, rising.
    pub(crate) bases: Vec<i64>,
    /// Files of ours that are of no use: unfinished ones, and indexes without a log.
    pub(crate) leftovers: Vec<String>,
}

impl Folder {
    /// Sorts the names in the folder. Names that are not ours are left out.
    pub(crate) fn of(names: &[OsString]) -> Folder {
        let names = || names.iter().filter_map(|name| name.to_str());
        let bases: BTreeSet<i64> = names().filter_map(|name| base_of(name, LOG)).collect();
        let orphan = |name: &str| {
            let base = base_of(name, INDEX).or_else(|| base_of(name, TIME_INDEX));
            base.is_some_and(|base| !bases.contains(&base))
        };
        let leftovers = names().filter(|name| is_temporary(name) || orphan(name)).map(str::to_owned).collect();
        Folder { bases: bases.into_iter().collect(), leftovers }
    }
}

/// The base offset of the first segment that may not be whole and durable; all before it are. None if nothing usable is written down.
pub(crate) fn read_recovery_point(disk: &dyn Disk, dir: &Path) -> io::Result<Option<i64>> {
    let path = dir.join(RECOVERY_POINT);
    if !disk.exists(&path)? {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    disk.open(&path, OpenMode::Read)?.read_at(&mut bytes, RECOVERY_POINT_BYTES_MAX, 0)?;
    let point = std::str::from_utf8(&bytes).ok().and_then(parse_recovery_point);
    if point.is_none() {
        tracing::warn!(path = %path.display(), "the recovery point can't be read; every segment but the last counts as durable");
    }
    Ok(point)
}

/// Writes the recovery point down, durably. It may lag, but never run ahead.
pub(crate) fn write_recovery_point(disk: &dyn Disk, dir: &Path, base_offset: i64) -> io::Result<()> {
    let text = format!("{RECOVERY_POINT_HEADING}\n{base_offset:0BASE_DIGITS$}\n");
    write_atomically(disk, &dir.join(RECOVERY_POINT), text.as_bytes())
}

fn parse_recovery_point(text: &str) -> Option<i64> {
    let digits = text.strip_prefix(RECOVERY_POINT_HEADING)?.strip_prefix('\n')?.strip_suffix('\n')?;
    parse_base(digits)
}

fn base_of(name: &str, extension: &str) -> Option<i64> {
    let (digits, found) = name.split_once('.')?;
    if found == extension { parse_base(digits) } else { None }
}

fn parse_base(digits: &str) -> Option<i64> {
    let plain = digits.len() == BASE_DIGITS && digits.bytes().all(|digit| digit.is_ascii_digit());
    if plain { digits.parse().ok() } else { None }
}

fn is_temporary(name: &str) -> bool {
    let Some(finished) = name.strip_suffix(TEMPORARY_SUFFIX) else { return false };
    [RECOVERY_POINT, CLEAN_STOP, LOG_START, APPEND_TIMES].contains(&finished)
        || [LOG, INDEX, TIME_INDEX].iter().any(|extension| base_of(finished, extension).is_some())
}

/// Digits of an offset in a file name.
const BASE_DIGITS: usize = 20;

/// The file that says that the log was closed in order; see [`crate::clean_stop`].
pub(crate) const CLEAN_STOP: &str = "clean-stop";

/// The file that holds the recovery point.
pub(crate) const RECOVERY_POINT: &str = "recovery-point";

/// Its first line, so that a later layout can have another.
const RECOVERY_POINT_HEADING: &str = "millpond recovery point 1";

/// More than the file ever has.
const RECOVERY_POINT_BYTES_MAX: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::SimDisk;

    #[test]
    fn names_are_sorted_into_segments_and_leftovers_and_strangers_are_left_alone() {
        let names = [
            "00000000000000000042.log",
            "00000000000000000042.index",
            "00000000000000000007.log",
            "00000000000000000009.index",
            "00000000000000000042.timeindex.tmp",
            "recovery-point",
            "recovery-point.tmp",
            "clean-stop",
            "clean-stop.tmp",
            "notes.tmp",
            "7.log",
            "0000000000000000000x.log",
            "99999999999999999999.log",
            "00000000000000000001.log.bak",
        ]
        .map(OsString::from);
        let folder = Folder::of(&names);
        assert_eq!(folder.bases, [7, 42]);
        assert_eq!(
            folder.leftovers,
            ["00000000000000000009.index", "00000000000000000042.timeindex.tmp", "recovery-point.tmp", "clean-stop.tmp"]
        );
    }

    #[test]
    fn the_recovery_point_is_read_back_and_anything_else_counts_as_none() {
        let disk = SimDisk::new();
        let dir = Path::new("/");
        assert_eq!(read_recovery_point(&disk, dir).expect("reads"), None);
        write_recovery_point(&disk, dir, 4711).expect("writes");
        assert_eq!(read_recovery_point(&disk, dir).expect("reads"), Some(4711));
        for length in 0..46 {
            disk.damage(&dir.join(RECOVERY_POINT), |bytes| bytes.truncate(length));
            assert_eq!(read_recovery_point(&disk, dir).expect("reads"), None);
            write_recovery_point(&disk, dir, 4711).expect("writes");
        }
        disk.damage(&dir.join(RECOVERY_POINT), |bytes| bytes.fill(0xff));
        assert_eq!(read_recovery_point(&disk, dir).expect("reads"), None);
    }
}

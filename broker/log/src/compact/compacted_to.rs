//! How far a log is compacted: of the records before that offset, only the latest of each key are left.
//!
//! ```text
//! compacted-to, in the manner of crate::sidecar
//!
//! millpond compacted to 1
//! 00000000000000004711                  the first dirty offset
//! crc32c 1a2b3c4d
//! ```
//!
//! Without it, or where it can't be read, everything is dirty.

use std::io;
use std::path::Path;

use crate::disk::Disk;
use crate::error::LogError;
use crate::kept::WhenFull;
use crate::sidecar::{Found, Stale, find_sealed, read_sealed, write_sealed};

/// Takes back a `compacted-to` that lies behind the end of the log, as after a cut: what is appended from there on is dirty. One that can't
/// be read, or not be written for lack of room, is removed: see [`Stale`].
pub(crate) fn forget_beyond(disk: &dyn Disk, dir: &Path, log_end: i64, when_full: WhenFull) -> Result<(), LogError> {
    let stale = Stale { disk, path: &dir.join(COMPACTED_TO), when_full, without: "all of the log counts as not compacted" };
    let Some(compacted_to) = stale.read(|| read_compacted_to(disk, dir))? else { return Ok(()) };
    if compacted_to <= log_end { Ok(()) } else { stale.replace(|| write_compacted_to(disk, dir, log_end)) }
}

pub(super) fn read_compacted_to(disk: &dyn Disk, dir: &Path) -> io::Result<Option<i64>> {
    let body = read_sealed(disk, &dir.join(COMPACTED_TO), COMPACTED_TO_HEADING, COMPACTED_TO_BYTES_MAX)?;
    Ok(body.and_then(|digits| parse(&digits)))
}

/// What there is in the place of the file.
pub(crate) fn find_compacted_to(disk: &dyn Disk, dir: &Path) -> io::Result<Found<i64>> {
    find_sealed(disk, (&dir.join(COMPACTED_TO), COMPACTED_TO_HEADING), COMPACTED_TO_BYTES_MAX, parse)
}

fn parse(digits: &str) -> Option<i64> {
    digits.parse().ok().filter(|offset| *offset >= 0)
}

pub(super) fn write_compacted_to(disk: &dyn Disk, dir: &Path, offset: i64) -> io::Result<()> {
    write_sealed(disk, &dir.join(COMPACTED_TO), COMPACTED_TO_HEADING, &format!("{offset:020}"))
}

/// The file that holds the first dirty offset.
pub(crate) const COMPACTED_TO: &str = "compacted-to";

const COMPACTED_TO_HEADING: &str = "millpond compacted to 1";

/// More than the file ever has.
const COMPACTED_TO_BYTES_MAX: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::{Fault, Operation, SimDisk};

    const DIR: &str = "/";

    #[test]
    fn it_is_read_back_taken_back_and_removed_where_that_fails() {
        let disk = SimDisk::new();
        let forget = |when_full| forget_beyond(&disk, Path::new(DIR), 10, when_full);
        let is = |offset| assert_eq!(read_compacted_to(&disk, Path::new(DIR)).expect("reads"), offset);
        let write = |offset| write_compacted_to(&disk, Path::new(DIR), offset).expect("writes");
        forget(WhenFull::Drop).expect("there is nothing to do");
        for (written, kept) in [(9, 9), (10, 10), (11, 10), (i64::MAX, 10)] {
            write(written);
            forget(WhenFull::Drop).expect("there is room");
            is(Some(kept));
        }
        write(11);
        disk.limit_bytes(Some(0));
        assert!(matches!(forget(WhenFull::Fail), Err(LogError::Full { .. })), "the next try may keep it");
        is(Some(11));
        forget(WhenFull::Drop).expect("all of the log is dirty");
        is(None);
        disk.limit_bytes(None);
        for (fault, is_removed) in [(Fault::Device, true), (Fault::TooManyOpenFiles, false)] {
            write(9);
            disk.fail(Operation::Read, 1, fault);
            assert_eq!(forget(WhenFull::Fail).is_ok(), is_removed);
            is((!is_removed).then_some(9));
        }
    }
}

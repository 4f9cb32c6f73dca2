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
use crate::sidecar::{read_sealed, write_sealed};

/// Takes back a `compacted-to` that lies behind the end of the log, as after a cut: what is appended from there on is dirty.
pub(crate) fn forget_beyond(disk: &dyn Disk, dir: &Path, log_end: i64) -> Result<(), LogError> {
    let moved = match read_compacted_to(disk, dir) {
        Ok(Some(compacted_to)) if compacted_to > log_end => write_compacted_to(disk, dir, log_end),
        read => read.map(drop),
    };
    moved.map_err(|source| LogError::io("replace", &dir.join(COMPACTED_TO), source))
}

pub(super) fn read_compacted_to(disk: &dyn Disk, dir: &Path) -> io::Result<Option<i64>> {
    let body = read_sealed(disk, &dir.join(COMPACTED_TO), COMPACTED_TO_HEADING, COMPACTED_TO_BYTES_MAX)?;
    Ok(body.and_then(|digits| digits.parse().ok()).filter(|offset| *offset >= 0))
}

pub(super) fn write_compacted_to(disk: &dyn Disk, dir: &Path, offset: i64) -> io::Result<()> {
    write_sealed(disk, &dir.join(COMPACTED_TO), COMPACTED_TO_HEADING, &format!("{offset:020}"))
}

/// The file that holds the first dirty offset.
pub(crate) const COMPACTED_TO: &str = "compacted-to";

const COMPACTED_TO_HEADING: &str = "millpond compacted to 1";

/// More than the file ever has.
const COMPACTED_TO_BYTES_MAX: usize = 128;

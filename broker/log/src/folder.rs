//! The names in a log's folder.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::append_times::APPEND_TIMES;
use crate::compact::{CLEANED_SUFFIX, COMPACTED_TO, COMPACTION};
use crate::disk::{TEMPORARY_SUFFIX, TOUCHED};
use crate::flush_failed::FLUSH_FAILED;
use crate::log_start::{LOG_START, LOG_START_COPY};
use crate::recovery_point::RECOVERY_POINT;

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

fn base_of(name: &str, extension: &str) -> Option<i64> {
    let (digits, found) = name.split_once('.')?;
    if found == extension { parse_base(digits) } else { None }
}

/// An offset as it stands in a file name.
pub(crate) fn parse_base(digits: &str) -> Option<i64> {
    let plain = digits.len() == BASE_DIGITS && digits.bytes().all(|digit| digit.is_ascii_digit());
    if plain { digits.parse().ok() } else { None }
}

fn is_temporary(name: &str) -> bool {
    let of_segment = |name: &str| [LOG, INDEX, TIME_INDEX].iter().any(|extension| base_of(name, extension).is_some());
    if let Some(compacted) = name.strip_suffix(CLEANED_SUFFIX) {
        return of_segment(compacted);
    }
    let Some(finished) = name.strip_suffix(TEMPORARY_SUFFIX) else { return false };
    [RECOVERY_POINT, CLEAN_STOP, LOG_START, LOG_START_COPY, APPEND_TIMES, COMPACTED_TO, COMPACTION, FLUSH_FAILED].contains(&finished)
        || of_segment(finished)
        || name == TOUCHED
}

/// Digits of an offset in a file name.
pub(crate) const BASE_DIGITS: usize = 20;

/// The file that says that the log was closed in order; see [`crate::clean_stop`].
pub(crate) const CLEAN_STOP: &str = "clean-stop";

#[cfg(test)]
mod tests {
    use super::*;

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
            "log-start.2",
            "log-start.2.tmp",
            "notes.tmp",
            "notes.cleaned",
            "00000000000000000042.log.cleaned",
            "compaction",
            "compaction.tmp",
            "folder.tmp",
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
            [
                "00000000000000000009.index",
                "00000000000000000042.timeindex.tmp",
                "recovery-point.tmp",
                "clean-stop.tmp",
                "log-start.2.tmp",
                "00000000000000000042.log.cleaned",
                "compaction.tmp",
                "folder.tmp"
            ]
        );
    }
}

//! What the files in a log's folder are, by their names.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::append_times::APPEND_TIMES;
use crate::compact::{COMPACTED_TO, COMPACTION};
use crate::flush_failed::FLUSH_FAILED;
use crate::folder::{CLEAN_STOP, Folder, INDEX, LOG, TIME_INDEX};
use crate::log_start::{LOG_START, LOG_START_COPY, count_before};
use crate::recovery_point::RECOVERY_POINT;

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Name {
    /// A part of the log.
    Log,
    /// Of no use any more.
    Leftover,
    /// What a repair has removed, and kept.
    Kept,
    /// Not ours.
    Stranger,
}

/// Says what a name in the folder stands for.
pub(super) fn sort(name: &OsStr, folder: &Folder) -> Name {
    let Some(name) = name.to_str() else { return Name::Stranger };
    if folder.leftovers.iter().any(|leftover| leftover == name) {
        return Name::Leftover;
    }
    if [RECOVERY_POINT, CLEAN_STOP, LOG_START, LOG_START_COPY, APPEND_TIMES, COMPACTED_TO, COMPACTION, FLUSH_FAILED].contains(&name)
        || segment_of(Path::new(name)).is_some()
    {
        return Name::Log;
    }
    if kept_in(name).is_some() { Name::Kept } else { Name::Stranger }
}

/// The base offset and the extension of a file of a segment: `.log`, `.index` or `.timeindex`.
pub fn segment_of(path: &Path) -> Option<(i64, &'static str)> {
    let (digits, extension) = path.file_name()?.to_str()?.split_once('.')?;
    let extension = [LOG, INDEX, TIME_INDEX].into_iter().find(|known| *known == extension)?;
    let plain = digits.len() == BASE_DIGITS && digits.bytes().all(|digit| digit.is_ascii_digit());
    if plain { Some((digits.parse().ok()?, extension)) } else { None }
}

/// The base offset of the segment that a file was kept from, by a repair or a recovery: `<digits>.log.<from>-<to>.removed-<number>`.
pub fn kept_log_of(path: &Path) -> Option<i64> {
    let (log, range) = path.file_name()?.to_str()?.rsplit_once(KEPT)?.0.rsplit_once('.')?;
    let (from, to) = range.split_once('-')?;
    let is_range = from.parse::<u64>().is_ok() && to.parse::<u64>().is_ok();
    let (base_offset, extension) = segment_of(Path::new(log))?;
    (is_range && extension == LOG).then_some(base_offset)
}

/// The number of the repair that has kept a file: `<name>.removed-<number>`.
pub(crate) fn kept_in(name: &str) -> Option<u64> {
    name.rsplit_once(KEPT)?.1.parse().ok()
}

/// The number for what is to be kept next: behind the largest one that has none behind it, so that no name is there already.
pub(crate) fn next_kept(numbers: &BTreeSet<u64>) -> u64 {
    let behind = |number: &u64| number.checked_add(1).filter(|next| !numbers.contains(next));
    numbers.iter().rev().find_map(behind).unwrap_or(1)
}

/// The name under which a repair keeps the bytes of a `.log` from one position up to another.
pub(crate) fn kept(log: &Path, from: u64, to: u64, repair: u64) -> PathBuf {
    let mut name = log.as_os_str().to_os_string();
    name.push(format!(".{from}-{to}{}", kept_suffix(repair)));
    PathBuf::from(name)
}

/// What the names of the files end with that a repair keeps.
pub(crate) fn kept_suffix(repair: u64) -> String {
    format!("{KEPT}{repair}")
}

/// Splits the segments into those before the log start, which the next opening removes, and those of the log.
pub(super) fn split_deleted(folder: &Folder, log_start: Option<i64>) -> (&[i64], &[i64]) {
    folder.bases.split_at(log_start.map_or(0, |start| count_before(folder.bases.iter().copied(), start)))
}

pub(super) fn log_start(dir: &Path) -> PathBuf {
    dir.join(LOG_START)
}

pub(super) fn recovery_point(dir: &Path) -> PathBuf {
    dir.join(RECOVERY_POINT)
}

const BASE_DIGITS: usize = 20;

/// Stands before the number of the repair in the name of a file that it has kept. Recovery takes no notice of such names.
const KEPT: &str = ".removed-";

//! The small files beside the segments: which of them are damaged, what that means, and what a repair does about it.
//!
//! No batch depends on them, and a broker that starts goes without what it can't read. So most of it is a note, and a repair removes the
//! file or writes it anew: what is left after it is a folder of which [`verify`](crate::inspect::verify) has nothing to say.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::append_times::{APPEND_TIMES, find_append_times};
use crate::clean_stop::CleanStop;
use crate::compact::{COMPACTED_TO, find_compacted_to};
use crate::config::LogConfig;
use crate::disk::Disk;
use crate::error::{LogError, is_unreadable};
use crate::folder::{CLEAN_STOP, Folder};
use crate::inspect::next_start::NextStart;
use crate::log_start::{LOG_START, StartFiles};
use crate::producers::{Listed, Pools, Producers, Snapshot};
use crate::recovery::Durable;
use crate::recovery_point::{RECOVERY_POINT, RecoveryPoint, read_recovery_point, write_recovery_point};
use crate::sidecar::{Found, clear};

/// A file that a log can go without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aside {
    /// How the log was closed: `clean-stop`.
    CleanStop,
    /// How far it is compacted: `compacted-to`.
    CompactedTo,
    /// When its segments got their last appends: `append-times`.
    AppendTimes,
}

impl Aside {
    pub(super) const ALL: [Aside; 3] = [Aside::CleanStop, Aside::CompactedTo, Aside::AppendTimes];

    pub(super) fn path(self, dir: &Path) -> PathBuf {
        dir.join(match self {
            Aside::CleanStop => CLEAN_STOP,
            Aside::CompactedTo => COMPACTED_TO,
            Aside::AppendTimes => APPEND_TIMES,
        })
    }

    pub(super) fn is_damaged(self, disk: &dyn Disk, dir: &Path) -> Result<bool, LogError> {
        let damaged = match self {
            Aside::CleanStop => CleanStop::find(disk, dir).map(|found| matches!(found, Found::Damaged)),
            Aside::CompactedTo => find_compacted_to(disk, dir).map(|found| found == Found::Damaged),
            Aside::AppendTimes => find_append_times(disk, dir).map(|found| found == Found::Damaged),
        };
        damaged.map_err(|source| LogError::io("read", &self.path(dir), source))
    }

    /// A name for programs; it never changes.
    pub(super) fn name(self) -> &'static str {
        match self {
            Aside::CleanStop => "clean_stop",
            Aside::CompactedTo => "compacted_to",
            Aside::AppendTimes => "append_times",
        }
    }

    /// What follows where it is left out of account.
    pub(super) fn meaning(self) -> &'static str {
        match self {
            Aside::CleanStop => "nothing is lost: the next start removes it and reads the last segment; so does a repair",
            Aside::CompactedTo => "no record is lost: compaction begins anew at the start of the log; a repair removes the file",
            Aside::AppendTimes => {
                "no record is lost: segments count as appended to just now, and retention by time keeps them for longer; a repair removes \
                 the file"
            }
        }
    }
}

impl fmt::Display for Aside {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Aside::CleanStop => "the note of a clean stop is damaged",
            Aside::CompactedTo => "the note of how far the log is compacted is damaged",
            Aside::AppendTimes => "the append times are damaged",
        })
    }
}

/// What a repair does with one small file. As text it says what follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mend {
    /// The file.
    pub path: PathBuf,
    /// What is done.
    pub kind: MendKind,
}

/// See [`Mend`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MendKind {
    /// Written anew from the other file that holds the log start.
    LogStartCopied {
        /// The log start.
        start: i64,
    },
    /// Written anew with the offset that the first segment begins with, since no file holds the log start any more.
    LogStartLost {
        /// That offset.
        start: i64,
    },
    /// The recovery point says nothing, and is removed.
    RecoveryPointRemoved,
    /// The recovery point names a segment that was deleted, and is moved to the first one that is left.
    RecoveryPointMoved {
        /// Where that begins.
        to: i64,
    },
    /// The recovery point is moved to where the log goes on, behind offsets that were durable and are gone.
    RecoveryPointRaised {
        /// That offset.
        to: i64,
    },
    /// The log start is moved behind offsets that were durable, and are gone with their segments.
    LogStartMoved {
        /// The first offset that is left, or the next one that is given out.
        to: i64,
    },
    /// Removed.
    Removed(Aside),
}

impl fmt::Display for Mend {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            MendKind::LogStartCopied { start } => {
                write!(formatter, "written anew from the other copy of the log start, {start}; nothing is lost")
            }
            MendKind::LogStartLost { start } => {
                let said = "where the first segment begins; records of that segment that were deleted are served again";
                write!(formatter, "the log start is lost; written anew as {start}, {said}")
            }
            MendKind::RecoveryPointRemoved => {
                let said = "the next start takes every segment but the last for durable, and looks for the producers in all batches";
                write!(formatter, "removed; no record is lost: {said}")
            }
            MendKind::RecoveryPointMoved { to } => write!(formatter, "moved to {to}, where the first segment begins; nothing is lost"),
            MendKind::RecoveryPointRaised { to } => {
                write!(formatter, "moved to {to}, so that no offset before it is given out again; nothing is lost by that")
            }
            MendKind::LogStartMoved { to } => write!(formatter, "the log start is moved to {to}; the offsets before it are given up"),
            MendKind::Removed(Aside::CleanStop) => formatter.write_str("removed; nothing is lost: the next start reads the last segment"),
            MendKind::Removed(Aside::CompactedTo) => {
                formatter.write_str("removed; no record is lost: compaction begins anew at the start of the log")
            }
            MendKind::Removed(Aside::AppendTimes) => {
                formatter.write_str("removed; no record is lost: segments count as appended to just now, and are kept for longer")
            }
        }
    }
}

/// What is to be done with the small files of a log with these segments in its folder, of which those in `bases` are left.
pub(super) fn mends(
    disk: &dyn Disk,
    dir: &Path,
    (starts, next): (&StartFiles, &NextStart),
    folder: &Folder,
    bases: &[i64],
) -> Result<Vec<Mend>, LogError> {
    let first = bases.first().copied();
    let kind = match starts.start() {
        Some(start) => MendKind::LogStartCopied { start },
        None => MendKind::LogStartLost { start: first.unwrap_or(0) },
    };
    let mut mends: Vec<Mend> = starts.damaged(dir).into_iter().map(|path| Mend { path, kind }).collect();
    let path = dir.join(RECOVERY_POINT);
    let io = |source| LogError::io("read", &path, source);
    let found = match read_recovery_point(disk, dir) {
        // An opening goes without it.
        Err(error) if is_unreadable(&error) => None,
        found => found.map_err(io)?,
    };
    let point = match found {
        // It may be the one that knows what is gone.
        Some(point) if point.is_ahead_of(bases) => None,
        Some(RecoveryPoint { base_offset: point, .. }) if bases.is_empty() || folder.bases.contains(&point) => None,
        // An opening reads all that is behind it.
        Some(RecoveryPoint { base_offset: point, .. }) if first.is_some_and(|first| point < first) => {
            first.map(|to| MendKind::RecoveryPointMoved { to })
        }
        Some(_) => Some(MendKind::RecoveryPointRemoved),
        None => disk.exists(&path).map_err(io)?.then_some(MendKind::RecoveryPointRemoved),
    };
    mends.extend(point.map(|kind| Mend { path, kind }));
    if let Some(gone) = &next.gone_in_front {
        mends.push(Mend { path: dir.join(LOG_START), kind: MendKind::LogStartMoved { to: gone.end } });
    }
    for aside in Aside::ALL {
        if aside.is_damaged(disk, dir)? {
            mends.push(Mend { path: aside.path(dir), kind: MendKind::Removed(aside) });
        }
    }
    Ok(mends)
}

impl Mend {
    /// Does it, durably. Once more does no harm.
    pub(super) fn apply(&self, disk: &dyn Disk, dir: &Path) -> Result<(), LogError> {
        let done = match self.kind {
            MendKind::LogStartCopied { start } | MendKind::LogStartLost { start } | MendKind::LogStartMoved { to: start } => {
                StartFiles::read(disk, dir)?.settle(disk, dir, start)
            }
            MendKind::RecoveryPointRemoved | MendKind::Removed(_) => clear(disk, &self.path),
            MendKind::RecoveryPointMoved { to } => read_recovery_point(disk, dir).and_then(|point| {
                let listed = point.and_then(|point| point.producers);
                write_recovery_point(disk, dir, to, listed.map(snapshot).as_ref())
            }),
            MendKind::RecoveryPointRaised { to } => {
                let listed = Durable::read(disk, dir)?.producers_at(to);
                write_recovery_point(disk, dir, to, listed.map(snapshot).as_ref())
            }
        };
        done.map_err(|source| LogError::io("write", &self.path, source))
    }
}

fn snapshot(listed: Listed) -> Snapshot {
    let mut producers = Producers::new(&Pools::default(), &LogConfig::default());
    producers.restore(listed);
    producers.snapshot()
}

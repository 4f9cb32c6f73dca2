//! What a recovery cuts off and keeps: in the log's folder, under the names that a repair uses, in files that no opening looks at.
//!
//! ```text
//! 00000000000000004711.log.8192-20480.removed-3     bytes 8192 to 20480 of that segment
//! 00000000000000009012.log.0-4096.removed-3         a whole segment behind it
//! ```
//!
//! A part of a segment is copied and synced before it is cut off; a segment that goes as a whole gets another name. Of the recoveries and
//! repairs that have kept something, the newest [`REMOVALS_KEPT_MAX`] count when a recovery adds another; the files of older ones go.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::disk::{Disk, DiskFile, OpenMode};
use crate::error::LogError;
use crate::folder::{LOG, file_path};
use crate::inspect::{SegmentWalk, copy_range, names};
use crate::verdict::Place;

/// Bytes that a recovery has cut off behind a hole, although there were whole batches among them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetAside {
    /// The segment file that they were in.
    pub segment: PathBuf,
    /// Where in it, in bytes from its start.
    pub position: u64,
    /// How many.
    pub bytes: u64,
    /// The offsets that they had in the log. Some of them may lie in the hole.
    pub offsets: Range<i64>,
    /// The file that they are in now. None if the disk had no room for it: then they are gone.
    pub kept: Option<PathBuf>,
}

/// Keeps what one recovery cuts off.
#[derive(Debug)]
pub(crate) struct Keeper<'a> {
    disk: &'a dyn Disk,
    dir: &'a Path,
    /// In the names of the files.
    number: u64,
}

impl Keeper<'_> {
    /// Finds the next number, and removes what was kept too long ago.
    pub(crate) fn new<'a>(disk: &'a dyn Disk, dir: &'a Path) -> Result<Keeper<'a>, LogError> {
        let found = disk.list(dir).map_err(|source| LogError::io("list", dir, source))?;
        let kept: Vec<_> = found.iter().filter_map(|name| Some((names::kept_in(name.to_str()?)?, name))).collect();
        let numbers: BTreeSet<u64> = kept.iter().map(|(number, _)| *number).collect();
        let oldest = numbers.iter().rev().nth(REMOVALS_KEPT_MAX - 2).copied().unwrap_or(0);
        for (_, name) in kept.iter().filter(|(number, _)| *number < oldest) {
            let path = dir.join(name);
            tracing::warn!(path = %path.display(), "a file that was kept from an older repair or recovery is removed");
            disk.remove_file(&path).map_err(|source| LogError::io("remove", &path, source))?;
        }
        Ok(Keeper { disk, dir, number: numbers.last().map_or(1, |last| last.saturating_add(1)) })
    }

    /// Copies a segment from a place on to its end at byte `to`, durably.
    pub(crate) fn copy(&self, file: &dyn DiskFile, place: Place<'_>, to: u64) -> Result<SetAside, LogError> {
        let path = names::kept(place.path, place.position, to, self.number);
        let copy = || {
            let copy = self.disk.open(&path, OpenMode::Replace)?;
            copy_range(file, place.position, to, &*copy, 0)?;
            copy.sync_data()
        };
        let copied = copy().map_err(|source| LogError::io("write", &path, source)).and_then(|()| self.sync_dir());
        let kept = match copied {
            Ok(()) => Some(path),
            Err(LogError::Full { .. }) => {
                // What is left of it would take the room that is missing. If this fails too, it is there, and too short.
                let _ = self.disk.remove_file(&path);
                None
            }
            Err(error) => return Err(error),
        };
        let mut walk = SegmentWalk::open(self.disk, place.path, place.base_offset, place.next_base)?.resume(place.position, place.expected);
        while walk.next_piece()?.is_some() {}
        let offsets = place.expected..walk.next_offset();
        Ok(SetAside { segment: place.path.to_path_buf(), position: place.position, bytes: to - place.position, offsets, kept })
    }

    /// Gives a segment of so many bytes another name. Its indexes are left to the caller, and so is the sync of the names.
    pub(crate) fn rename(&self, base_offset: i64, bytes: u64) -> Result<SetAside, LogError> {
        let path = file_path(self.dir, base_offset, LOG);
        let kept = names::kept(&path, 0, bytes, self.number);
        let mut walk = SegmentWalk::open(self.disk, &path, base_offset, None)?;
        while walk.next_piece()?.is_some() {}
        // What a killed broker has left may not be on the disk yet. After a power cut there is nothing to sync.
        if let Err(error) = self.disk.open(&path, OpenMode::ReadWrite).and_then(|file| file.sync_data()) {
            tracing::warn!(path = %path.display(), %error, "a segment that is kept can't be flushed");
        }
        self.disk.rename(&path, &kept).map_err(|source| LogError::io("rename", &path, source))?;
        Ok(SetAside { segment: path, position: 0, bytes, offsets: base_offset..walk.next_offset(), kept: Some(kept) })
    }

    fn sync_dir(&self) -> Result<(), LogError> {
        self.disk.sync_dir(self.dir).map_err(|source| LogError::io("flush", self.dir, source))
    }
}

/// Recoveries and repairs whose kept files stay in a log's folder when a recovery adds its own, this one included.
pub const REMOVALS_KEPT_MAX: usize = 8;

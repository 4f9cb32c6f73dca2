//! What a recovery cuts off and keeps: in the log's folder, under the names that a repair uses, in files that no opening looks at.
//!
//! ```text
//! 00000000000000004711.log.8192-20480.removed-3     bytes 8192 to 20480 of that segment
//! 00000000000000009012.log.0-4096.removed-3         a whole segment behind it
//! ```
//!
//! A part of a segment is copied before it is cut off; a segment that goes as a whole gets another name. Nothing is cut before its copy is
//! durable, unless no room for it can be had at all: an opening that may be tried again with more room fails without having cut anything
//! ([`WhenFull::Fail`]), and only one that may not goes on without the copy. If an opening fails between the copy and the cut, the next one
//! uses the copy that is there.
//!
//! Of the recoveries and repairs that have kept something, the newest [`REMOVALS_KEPT_MAX`] count when a recovery adds another; the files
//! of older ones go.

use std::collections::BTreeSet;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::disk::{Disk, DiskFile, OpenMode, sync_names};
use crate::error::LogError;
use crate::folder::{LOG, file_path};
use crate::inspect::{SegmentWalk, copy_range, names};
use crate::sidecar::is_folder;
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

/// What an opening does where bytes are to be cut off and kept, and the disk has no room to keep them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFull {
    /// It fails with [`LogError::Full`], before anything is cut: for one that is tried again with more room.
    Fail,
    /// It cuts them off all the same, and [`SetAside::kept`] is none: they are gone, and the log can be opened.
    Drop,
}

/// Keeps what one recovery cuts off.
#[derive(Debug)]
pub(crate) struct Keeper<'a> {
    disk: &'a dyn Disk,
    dir: &'a Path,
    when_full: WhenFull,
    /// In the names of the files. The try before this one had the number before it.
    number: u64,
}

impl Keeper<'_> {
    /// Finds the next number, and removes what was kept too long ago.
    pub(crate) fn new<'a>(disk: &'a dyn Disk, dir: &'a Path, when_full: WhenFull) -> Result<Keeper<'a>, LogError> {
        let found = disk.list(dir).map_err(|source| LogError::io("list", dir, source))?;
        let kept = found.iter().filter_map(|name| Some((names::kept_in(name.to_str()?)?, dir.join(name))));
        // A folder lay in the place of a small file. It is not ours, and takes no file's place among those that count.
        let (folders, files): (Vec<_>, Vec<_>) = kept.partition(|(_, path)| is_folder(disk, path));
        let counted: BTreeSet<u64> = files.iter().map(|(number, _)| *number).collect();
        let oldest = counted.iter().rev().nth(REMOVALS_KEPT_MAX - 2).copied().unwrap_or(0);
        let too_old: Vec<_> = files.iter().filter(|(number, _)| *number < oldest).collect();
        for (_, path) in &too_old {
            match disk.remove_file(path) {
                // A folder that could not be listed just now, and no reason to keep a log closed.
                Err(error) if error.kind() == io::ErrorKind::IsADirectory => {}
                removed => removed.map_err(|source| LogError::io("remove", path, source))?,
            }
        }
        if !too_old.is_empty() {
            let files = too_old.len();
            tracing::warn!(dir = %dir.display(), files, "files that were kept from older repairs and recoveries are removed");
        }
        let numbers = folders.iter().map(|(number, _)| *number).chain(counted).collect();
        Ok(Keeper { disk, dir, when_full, number: names::next_kept(&numbers) })
    }

    /// Copies a segment from a place on to its end at byte `to`, durably.
    pub(crate) fn copy(&self, file: &dyn DiskFile, place: Place<'_>, to: u64) -> Result<SetAside, LogError> {
        let earlier = self.earlier_copy(file, place, to);
        let kept = match earlier.map_or_else(|| self.new_copy(file, place, to), Ok) {
            Err(LogError::Full { .. }) if self.when_full == WhenFull::Drop => None,
            copied => Some(copied?),
        };
        if kept.is_some() {
            self.sync_name()?;
        }
        let mut walk = SegmentWalk::open(self.disk, place.path, place.base_offset, place.next_base)?.resume(place.position, place.expected);
        while walk.next_piece()?.is_some() {}
        let offsets = place.expected..walk.next_offset();
        Ok(SetAside { segment: place.path.to_path_buf(), position: place.position, bytes: to - place.position, offsets, kept })
    }

    /// Copies the bytes, durably. The name is left to the caller.
    fn new_copy(&self, file: &dyn DiskFile, place: Place<'_>, to: u64) -> Result<PathBuf, LogError> {
        let path = names::kept(place.path, place.position, to, self.number);
        let copy = || {
            let copy = self.disk.open(&path, OpenMode::Replace)?;
            copy_range(file, place.position, to, &*copy, 0)?;
            copy.sync_data()
        };
        let copied = copy().map_err(|source| LogError::io("write", &path, source));
        if copied.is_err() {
            // What is left of it would take the room that may be missing. If this fails too, it is there, and perhaps too short.
            let _ = self.disk.remove_file(&path);
        }
        copied.map(|()| path)
    }

    /// The copy of the same bytes that the opening before this one has made, if it failed before the cut. One that can't be read or flushed
    /// is none.
    fn earlier_copy(&self, file: &dyn DiskFile, place: Place<'_>, to: u64) -> Option<PathBuf> {
        let path = names::kept(place.path, place.position, to, self.number - 1);
        self.is_copy(&path, file, place.position, to).unwrap_or(false).then_some(path)
    }

    fn is_copy(&self, path: &Path, file: &dyn DiskFile, from: u64, to: u64) -> io::Result<bool> {
        if !self.disk.exists(path)? {
            return Ok(false);
        }
        let copy = self.disk.open(path, OpenMode::ReadWrite)?;
        let is_as_long = copy.size_bytes()? == to - from;
        let (mut at, mut original, mut copied) = (from, Vec::new(), Vec::new());
        while is_as_long && at < to {
            let bytes = usize::try_from(to - at).unwrap_or(usize::MAX).min(COMPARED_AT_ONCE_BYTES);
            original.clear();
            copied.clear();
            file.read_at(&mut original, bytes, at)?;
            copy.read_at(&mut copied, bytes, at - from)?;
            if original != copied || original.is_empty() {
                return Ok(false);
            }
            at += original.len() as u64;
        }
        copy.sync_data()?;
        Ok(is_as_long)
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

    /// Makes the name of a copy durable. One that can't be stays where it is: its bytes had their room, the next try takes it for its own, and
    /// where there is none the names are synced again before the log takes appends.
    fn sync_name(&self) -> Result<(), LogError> {
        match sync_names(self.disk, self.dir).map_err(|source| LogError::io("flush", self.dir, source)) {
            Err(error @ LogError::Full { .. }) if self.when_full == WhenFull::Drop => {
                tracing::warn!(
                    error = error.chain(),
                    "until the folder can be flushed, a power cut may take what is kept of the end of a log"
                );
                Ok(())
            }
            synced => synced,
        }
    }
}

/// Recoveries and repairs whose kept files stay in a log's folder when a recovery adds its own, this one included.
pub const REMOVALS_KEPT_MAX: usize = 8;

/// Bytes of a copy that are compared at once.
const COMPARED_AT_ONCE_BYTES: usize = 256 << 10;

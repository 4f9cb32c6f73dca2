//! Does what a [`RepairPlan`] says, in steps of which each can be the last. The small files beside the segments come first: each is
//! removed, or replaced as a whole.
//!
//! Dropping, for each damaged segment on its own:
//!
//! ```text
//!   1  copy what is removed   4711.log.4096-8192.removed-1, synced         the old log, with files that recovery does not look at
//!   2  write                  4711.log.tmp, synced, walked over            the old log; recovery removes the file
//!   3  forget                 what says that the folder was left clean, and the indexes: both speak of the old bytes
//!   4  rename                 4711.log.tmp -> 4711.log                     from here on the new log; recovery builds the indexes
//!   5  write                  4711.index, 4711.timeindex
//! ```
//!
//! Truncating:
//!
//! ```text
//!   1  copy what is removed   of the damaged segment and of all behind it
//!   2  forget                 what says that the folder was left clean
//!   3  move                   the recovery point back to the damaged segment
//!   4  cut                    the damaged segment, synced: from here on its end is missing, and recovery keeps nothing behind that
//!   5  remove                 the segments behind it, newest first
//!   6  recover                as every start does; if the power goes before, the next start does it
//! ```

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::compact::COMPACTED_TO;
use crate::config::LogConfig;
use crate::disk::{Disk, DiskFile, OpenMode, TEMPORARY_SUFFIX, sync_names, write_all_at, write_atomically};
use crate::error::{Damage, LogError};
use crate::folder::{CLEAN_STOP, Folder, INDEX, LOG, TIME_INDEX, file_path};
use crate::index::{Entries, Indexer, encode};
use crate::inspect::names;
use crate::inspect::plan::{CutAt, RepairError, RepairPlan, Rewrite};
use crate::inspect::unreadable::Unreadable;
use crate::inspect::walk::{DamagedRange, Piece, SegmentWalk};
use crate::log::Log;
use crate::recovery_point::write_recovery_point;
use crate::scan::corrupt;

impl RepairPlan {
    /// Repairs the log. Nobody else may use it meanwhile. A power cut at any moment leaves each segment as it was or as it is to be, and a
    /// plan that is made again goes on from there.
    ///
    /// # Errors
    ///
    /// [`RepairError::Changed`] if the log is not what the plan was made for; [`RepairError::Log`] if a file can't be written, as on a full
    /// disk. Whatever was not done yet is as it was.
    pub fn apply(&self, disk: &Arc<dyn Disk>) -> Result<(), RepairError> {
        self.apply_with(disk, LogConfig::default())
    }

    /// As [`RepairPlan::apply`], for a log whose indexes have another interval than usual.
    pub fn apply_with(&self, disk: &Arc<dyn Disk>, config: LogConfig) -> Result<(), RepairError> {
        for mend in &self.mends {
            mend.apply(&**disk, &self.dir)?;
        }
        for rewrite in &self.rewrites {
            self.rewrite(&**disk, rewrite, &config)?;
        }
        for base_offset in &self.reindexed {
            forget_clean_stop(&**disk, &self.dir)?;
            let next_base = self.next_base(&**disk, *base_offset)?;
            build_indexes(&**disk, &self.dir, *base_offset, next_base, &config)?;
        }
        match &self.cut {
            Some(cut) => self.cut_off(disk, cut, config),
            None => Ok(()),
        }
    }

    fn rewrite(&self, disk: &dyn Disk, rewrite: &Rewrite, config: &LogConfig) -> Result<(), RepairError> {
        let path = file_path(&self.dir, rewrite.base_offset, LOG);
        let old = open_as_planned(disk, &path, rewrite.file_bytes)?;
        for patch in rewrite.patches.iter().filter(|patch| patch.bytes > 0) {
            self.keep(disk, &*old, &path, patch.position, patch.position + patch.bytes)?;
        }
        self.sync_dir(disk)?;

        let mut name = path.as_os_str().to_os_string();
        name.push(TEMPORARY_SUFFIX);
        let temporary = PathBuf::from(name);
        write_patched(disk, &*old, &path, &temporary, rewrite)?;
        let mut walk = SegmentWalk::open(disk, &temporary, rewrite.base_offset, rewrite.next_base)?;
        while let Some(piece) = walk.next_piece()? {
            if let Piece::Damage(range) = piece {
                return Err(not_whole(&path, range));
            }
        }

        forget_clean_stop(disk, &self.dir)?;
        for extension in [INDEX, TIME_INDEX] {
            remove_if_there(disk, &file_path(&self.dir, rewrite.base_offset, extension))?;
        }
        self.sync_dir(disk)?;
        disk.rename(&temporary, &path).map_err(|source| LogError::io("rename", &temporary, source))?;
        self.sync_dir(disk)?;
        build_indexes(disk, &self.dir, rewrite.base_offset, rewrite.next_base, config)
    }

    fn cut_off(&self, disk: &Arc<dyn Disk>, cut: &CutAt, config: LogConfig) -> Result<(), RepairError> {
        for (base_offset, from, file_bytes) in &cut.removed {
            let path = file_path(&self.dir, *base_offset, LOG);
            let old = open_as_planned(&**disk, &path, *file_bytes)?;
            if from < file_bytes {
                self.keep(&**disk, &*old, &path, *from, *file_bytes)?;
            }
        }
        self.sync_dir(&**disk)?;
        forget_clean_stop(&**disk, &self.dir)?;
        // The producers that were written down are those of another offset.
        write_recovery_point(&**disk, &self.dir, cut.base_offset, None)
            .map_err(|source| LogError::io("write the recovery point in", &self.dir, source))?;
        for (base_offset, from, _) in cut.removed.iter().take(1) {
            let path = file_path(&self.dir, *base_offset, LOG);
            let cut = disk.open(&path, OpenMode::ReadWrite).and_then(|file| file.set_len(*from).and_then(|()| file.sync_data()));
            cut.map_err(|source| LogError::io("cut", &path, source))?;
        }
        for (base_offset, ..) in cut.removed.iter().skip(1).rev() {
            for extension in [LOG, INDEX, TIME_INDEX] {
                remove_if_there(&**disk, &file_path(&self.dir, *base_offset, extension))?;
            }
        }
        let (log, _) = Log::open(Arc::clone(disk), &self.dir, config)?;
        Ok(log.close()?)
    }

    /// Copies a part of a segment to a file of its own, with zeros in the place of what can't be read.
    fn keep(&self, disk: &dyn Disk, old: &dyn DiskFile, path: &Path, from: u64, to: u64) -> Result<(), LogError> {
        let kept = names::kept(path, from, to, self.number);
        let copy = || -> io::Result<()> {
            let file = disk.open(&kept, OpenMode::Replace)?;
            copy_readable(old, from, to, &*file)?;
            file.sync_data()
        };
        copy().map_err(|source| LogError::io("write", &kept, source))
    }

    fn next_base(&self, disk: &dyn Disk, base_offset: i64) -> Result<Option<i64>, LogError> {
        let names = disk.list(&self.dir).map_err(|source| LogError::io("list", &self.dir, source))?;
        Ok(Folder::of(&names).bases.into_iter().find(|base| *base > base_offset))
    }

    fn sync_dir(&self, disk: &dyn Disk) -> Result<(), LogError> {
        sync_names(disk, &self.dir).map_err(|source| LogError::io("flush", &self.dir, source))
    }
}

/// Opens a segment that must still have the size that it had when it was looked at.
fn open_as_planned(disk: &dyn Disk, path: &Path, file_bytes: u64) -> Result<Arc<dyn DiskFile>, RepairError> {
    let opened = disk.open(path, OpenMode::Read).and_then(|file| file.size_bytes().map(|bytes| (file, bytes)));
    let (file, bytes) = opened.map_err(|source| LogError::io("open", path, source))?;
    if bytes == file_bytes { Ok(file) } else { Err(RepairError::Changed { path: path.to_path_buf() }) }
}

/// Writes the segment as it is to be into another file, and makes it durable.
fn write_patched(disk: &dyn Disk, old: &dyn DiskFile, path: &Path, temporary: &Path, rewrite: &Rewrite) -> Result<(), LogError> {
    let write = || -> io::Result<()> {
        let new = disk.open(temporary, OpenMode::Replace)?;
        let (mut from, mut at) = (0, 0);
        for patch in &rewrite.patches {
            at += copy_range(old, from, patch.position, &*new, at)?;
            write_all_at(&*new, &mut [IoSlice::new(&patch.instead)], at)?;
            at += patch.instead.len() as u64;
            from = patch.position + patch.bytes;
        }
        copy_range(old, from, rewrite.file_bytes, &*new, at)?;
        new.sync_data()
    };
    write().map_err(|source| {
        // On a full disk every byte counts. If this fails too, the next start removes it.
        let _ = disk.remove_file(temporary);
        LogError::io("write", path, source)
    })
}

/// Copies the bytes from one position up to another, and says how many those are.
pub(crate) fn copy_range(from: &dyn DiskFile, start: u64, end: u64, to: &dyn DiskFile, mut at: u64) -> io::Result<u64> {
    let mut position = start;
    let mut buffer = Vec::new();
    while position < end {
        buffer.clear();
        let wanted = usize::try_from(end - position).unwrap_or(usize::MAX).min(COPIED_AT_ONCE_BYTES);
        let read = from.read_at(&mut buffer, wanted, position)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        write_all_at(to, &mut [IoSlice::new(&buffer)], at)?;
        position += read as u64;
        at += read as u64;
    }
    Ok(end - start)
}

/// Copies the bytes from one position up to another, and leaves zeros where there are some that can't be read.
fn copy_readable(from: &dyn DiskFile, start: u64, end: u64, to: &dyn DiskFile) -> io::Result<()> {
    let (mut unreadable, mut buffer, mut position) = (Unreadable::default(), Vec::new(), start);
    while position < end {
        buffer.clear();
        let wanted = usize::try_from(end - position).unwrap_or(usize::MAX).min(COPIED_AT_ONCE_BYTES);
        unreadable.read(from, &mut buffer, wanted, position)?;
        if buffer.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        write_all_at(to, &mut [IoSlice::new(&buffer)], position - start)?;
        position += buffer.len() as u64;
    }
    Ok(())
}

/// Why a segment that should be without damage is not.
fn not_whole(path: &Path, range: DamagedRange) -> RepairError {
    match range.reason {
        reason @ Damage::Unreadable(_) => RepairError::Log(corrupt(path, range.position, range.offset, reason)),
        _ => RepairError::Changed { path: path.to_path_buf() },
    }
}

/// Builds both indexes of a segment without damage from its batches, each in one step.
fn build_indexes(disk: &dyn Disk, dir: &Path, base_offset: i64, next_base: Option<i64>, config: &LogConfig) -> Result<(), RepairError> {
    let path = file_path(dir, base_offset, LOG);
    let mut walk = SegmentWalk::open(disk, &path, base_offset, next_base)?;
    let mut indexer = Indexer::new(base_offset, config.index_interval_bytes);
    let mut entries = Entries::default();
    while let Some(piece) = walk.next_piece()? {
        match piece {
            Piece::Batch(batch) => indexer.add(&batch.header, batch.position, &mut entries),
            Piece::Damage(range) => return Err(not_whole(&path, range)),
        }
    }
    if next_base.is_some() {
        entries.times.extend(indexer.time_entry());
    }
    for (extension, bytes) in [(INDEX, encode(&entries.offsets)), (TIME_INDEX, encode(&entries.times))] {
        let path = file_path(dir, base_offset, extension);
        write_atomically(disk, &path, &bytes).map_err(|source| LogError::io("write", &path, source))?;
    }
    Ok(())
}

fn remove_if_there(disk: &dyn Disk, path: &Path) -> Result<(), LogError> {
    match disk.remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(LogError::io("remove", path, source)),
        _ => Ok(()),
    }
}

/// Removes the note of a clean stop, durably: the next opening must look at the files as they are. And the one that says how far the log is
/// compacted: what could not be read then can be read now.
fn forget_clean_stop(disk: &dyn Disk, dir: &Path) -> Result<(), LogError> {
    remove_if_there(disk, &dir.join(CLEAN_STOP))?;
    remove_if_there(disk, &dir.join(COMPACTED_TO))?;
    sync_names(disk, dir).map_err(|source| LogError::io("flush", dir, source))
}

/// Bytes that are copied at once.
const COPIED_AT_ONCE_BYTES: usize = 1 << 20;

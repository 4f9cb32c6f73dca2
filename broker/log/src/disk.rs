//! What the log asks of a disk, so that a simulated one can stand in for it.
//!
//! The calls are those that a crash-safe store needs and no more: positioned reads and writes, and the two syncs. A file's bytes are
//! durable after [`DiskFile::sync_data`]; its name is durable after [`Disk::sync_dir`] of its folder. Neither implies the other.

use std::ffi::OsString;
use std::fmt::Debug;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::is_out_of_files;

/// A file system. Object safe, blocking, shared between threads.
pub trait Disk: Send + Sync + Debug + 'static {
    /// Opens a file.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>>;

    /// Creates a folder and those above it. One that is there already is not an error.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;

    /// The names in a folder, in no order.
    fn list(&self, path: &Path) -> io::Result<Vec<OsString>>;

    /// Gives a file or folder another name in the same folder; a file that has the new name is replaced, in one step.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    fn remove_file(&self, path: &Path) -> io::Result<()>;

    /// Removes a folder and everything in it, not in one step.
    fn remove_dir_all(&self, path: &Path) -> io::Result<()>;

    /// Whether there is a file or a folder.
    fn exists(&self, path: &Path) -> io::Result<bool>;

    /// Makes the names in a folder durable: what was created, renamed and removed there.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;

    /// Bytes that this process may still write on the file system of a path, as far as the system can tell; none where it can't. It is
    /// out of date at once: others use the file system too.
    fn free_bytes(&self, path: &Path) -> io::Result<Option<u64>> {
        let _ = path;
        Ok(None)
    }
}

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// To read a file that is there.
    Read,
    /// To read and write a file that is there.
    ReadWrite,
    /// To read and write a file that must not be there yet.
    CreateNew,
    /// To read and write an empty file; what was there by this name loses its bytes.
    Replace,
}

/// An open file. Reads and writes give their position, so that threads can share it.
pub trait DiskFile: Send + Sync + Debug {
    /// Appends the bytes from position `at` to `into`: `bytes_max` of them, fewer only where the file ends. Returns how many. After an
    /// error `into` is as it was.
    fn read_at(&self, into: &mut Vec<u8>, bytes_max: usize, at: u64) -> io::Result<usize>;

    /// Writes from position `at`, and returns how many bytes were written, which may be fewer than there are. Takes up to
    /// [`WRITE_BUFFERS_MAX`] buffers.
    fn write_vectored_at(&self, buffers: &[IoSlice<'_>], at: u64) -> io::Result<usize>;

    /// Bytes in the file.
    fn size_bytes(&self) -> io::Result<u64>;

    /// Cuts the file, or extends it with zeros.
    fn set_len(&self, bytes: u64) -> io::Result<()>;

    /// Asks for room on the disk for the bytes up to position `end`. The size stays as it is. A hint: a file system that knows no such
    /// thing does nothing, and after an error a write may find room all the same.
    fn allocate(&self, end: u64) -> io::Result<()> {
        let _ = end;
        Ok(())
    }

    /// Gives back the room behind the end of the file. Not beside a write.
    fn release(&self) -> io::Result<()> {
        Ok(())
    }

    /// Makes the bytes, and the length, durable. After an error it is unknown which are, and asking again does not help.
    fn sync_data(&self) -> io::Result<()>;
}

/// The most buffers that one [`DiskFile::write_vectored_at`] takes (Linux' `IOV_MAX`).
pub const WRITE_BUFFERS_MAX: usize = 1024;

/// Writes all the buffers from position `at`, in as many calls as it takes. After an error some of the bytes may be in the file.
pub fn write_all_at(file: &dyn DiskFile, mut buffers: &mut [IoSlice<'_>], mut at: u64) -> io::Result<()> {
    // Skips empty buffers, so that a write of nothing is not taken for a disk that takes nothing.
    IoSlice::advance_slices(&mut buffers, 0);
    while !buffers.is_empty() {
        let now = buffers.len().min(WRITE_BUFFERS_MAX);
        let written = file.write_vectored_at(&buffers[..now], at)?;
        if written == 0 {
            return Err(io::Error::from(io::ErrorKind::WriteZero));
        }
        at += written as u64;
        IoSlice::advance_slices(&mut buffers, written);
    }
    Ok(())
}

/// Replaces a file in one step, durably: after a crash there is the old content or the new. The bytes are written to `<path>.tmp` and
/// renamed. Not for two threads at once on the same path.
pub fn write_atomically(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = path.as_os_str().to_os_string();
    name.push(TEMPORARY_SUFFIX);
    let temporary = PathBuf::from(name);

    let replaced = replace(disk, &temporary, path, bytes);
    if replaced.is_err() {
        // On a full disk every byte counts. If this fails too, whoever cleans up finds the name.
        let _ = disk.remove_file(&temporary);
    }
    replaced
}

fn replace(disk: &dyn Disk, temporary: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let file = disk.open(temporary, OpenMode::Replace)?;
    write_all_at(&*file, &mut [IoSlice::new(bytes)], 0)?;
    file.sync_data()?;
    disk.rename(temporary, path)?;
    sync_names(disk, parent(path))
}

/// Makes the names in a folder durable, as [`Disk::sync_dir`] does. After a failure the system may take the folder for written and sync
/// nothing the next time, as it does with a file; so the folder is changed once more, and a later sync that works has written all names.
pub(crate) fn sync_names(disk: &dyn Disk, dir: &Path) -> io::Result<()> {
    let synced = disk.sync_dir(dir);
    // Without a descriptor nothing was tried.
    if synced.as_ref().is_err_and(|error| !is_out_of_files(error)) {
        let touched = dir.join(TOUCHED);
        let touch = || disk.open(&touched, OpenMode::Replace).map(drop).and_then(|()| disk.remove_file(&touched));
        // What fails for another cause can work the next time. If not, there is nothing left to try.
        let _ = (0..TOUCHES_MAX).any(|_| touch().is_ok());
    }
    synced
}

/// The folder that a path is in.
pub(crate) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        Some(_) => Path::new("."),
        None => path,
    }
}

/// Ends the name of a file that [`write_atomically`] has not finished; what is left of it after a crash is of no use.
pub(crate) const TEMPORARY_SUFFIX: &str = ".tmp";

/// How often a folder is tried to be changed whose sync has failed.
const TOUCHES_MAX: usize = 3;

/// Comes and goes in a folder that could not be synced.
pub(crate) const TOUCHED: &str = "folder.tmp";

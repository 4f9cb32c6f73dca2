//! A disk on which something else happens first.

use std::ffi::OsString;
use std::fmt;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Operation;
use crate::disk::{Disk, DiskFile, OpenMode};

/// Told of what is about to be done, and to which path.
type Before = dyn Fn(Operation, &Path) + Send + Sync;

/// Another disk, with a function that is called before each operation that changes something: a test can act, or wait, in the middle of
/// somebody else's work. The function runs on the thread of the operation, and no lock is held.
#[derive(Clone)]
pub struct HookedDisk {
    disk: Arc<dyn Disk>,
    before: Arc<Before>,
}

impl HookedDisk {
    /// A hook in front of a disk. It is told what is about to be done, and to which path; of a renaming that is the old name. Opening a file
    /// with [`OpenMode::CreateNew`] or [`OpenMode::Replace`] is [`Operation::Create`], whether or not there is one. Looking, reading and
    /// hints are passed on without a word.
    pub fn new(disk: Arc<dyn Disk>, before: impl Fn(Operation, &Path) + Send + Sync + 'static) -> HookedDisk {
        HookedDisk { disk, before: Arc::new(before) }
    }
}

impl fmt::Debug for HookedDisk {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("HookedDisk").field("disk", &self.disk).finish_non_exhaustive()
    }
}

impl Disk for HookedDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        if matches!(mode, OpenMode::CreateNew | OpenMode::Replace) {
            (self.before)(Operation::Create, path);
        }
        let file = self.disk.open(path, mode)?;
        Ok(Arc::new(HookedFile { file, path: path.to_path_buf(), disk: self.clone() }))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        (self.before)(Operation::Create, path);
        self.disk.create_dir_all(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<OsString>> {
        self.disk.list(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        (self.before)(Operation::Rename, from);
        self.disk.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        (self.before)(Operation::Remove, path);
        self.disk.remove_file(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        (self.before)(Operation::Remove, path);
        self.disk.remove_dir_all(path)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.disk.exists(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        (self.before)(Operation::SyncDir, path);
        self.disk.sync_dir(path)
    }

    fn free_bytes(&self, path: &Path) -> io::Result<Option<u64>> {
        self.disk.free_bytes(path)
    }
}

#[derive(Debug)]
struct HookedFile {
    file: Arc<dyn DiskFile>,
    /// By which it was opened.
    path: PathBuf,
    disk: HookedDisk,
}

impl HookedFile {
    fn before(&self, operation: Operation) -> &dyn DiskFile {
        (self.disk.before)(operation, &self.path);
        &*self.file
    }
}

impl DiskFile for HookedFile {
    fn read_at(&self, into: &mut Vec<u8>, bytes_max: usize, at: u64) -> io::Result<usize> {
        self.file.read_at(into, bytes_max, at)
    }

    fn write_vectored_at(&self, buffers: &[IoSlice<'_>], at: u64) -> io::Result<usize> {
        self.before(Operation::Write).write_vectored_at(buffers, at)
    }

    fn size_bytes(&self) -> io::Result<u64> {
        self.file.size_bytes()
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.before(Operation::SetLen).set_len(bytes)
    }

    fn allocate(&self, end: u64) -> io::Result<()> {
        self.file.allocate(end)
    }

    fn release(&self) -> io::Result<()> {
        self.file.release()
    }

    fn sync_data(&self) -> io::Result<()> {
        self.before(Operation::Sync).sync_data()
    }
}

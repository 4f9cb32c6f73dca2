//! The data folder: where everything is, who may use it, and small files read whole.

use crate::error::EngineError;
use millpond_log::{Disk, OpenMode};
use parking_lot::Mutex;
use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

/// Paths in the data folder, drawn in the documentation of this crate.
#[derive(Clone, Debug)]
pub(crate) struct DataDir {
    root: PathBuf,
}

impl DataDir {
    pub(crate) fn new(root: PathBuf) -> DataDir {
        DataDir { root }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn catalogue(&self) -> PathBuf {
        self.root.join("catalogue.json")
    }

    pub(crate) fn topics(&self) -> PathBuf {
        self.root.join("topics")
    }

    pub(crate) fn topic(&self, name: &str) -> PathBuf {
        self.topics().join(name)
    }

    pub(crate) fn partition(&self, topic: &str, partition: u32) -> PathBuf {
        self.topic(topic).join(partition.to_string())
    }

    /// Where the folders of a topic are made, until the catalogue names it.
    pub(crate) fn new_topic(&self, name: &str) -> PathBuf {
        // Five bytes more than a topic's name, which has 249 at most; a file name may have 255.
        self.topics().join(format!("{NEW_PREFIX}{name}"))
    }

    /// Where a deleted topic waits for its removal.
    pub(crate) fn deleted_topic(&self, name: &str, number: u32) -> PathBuf {
        // Cut, because a file name has 255 bytes and a topic's name may have 249 of them.
        self.topics().join(format!("{DELETED_PREFIX}{name:.200}-{number}"))
    }

    pub(crate) fn modules(&self) -> PathBuf {
        self.root.join("modules")
    }

    pub(crate) fn module(&self, sha256: &str) -> PathBuf {
        self.modules().join(format!("{sha256}.wasm"))
    }

    /// Of the attachments that derive topics.
    pub(crate) fn derived(&self) -> PathBuf {
        self.root.join("derived")
    }

    /// Of one of them.
    pub(crate) fn derivation(&self, id: u64) -> PathBuf {
        self.derived().join(format!("{id:012x}"))
    }

    pub(crate) fn module_cache(&self) -> PathBuf {
        self.modules().join("cache")
    }
}

/// What the names of the folders begin with whose topic is being made. They hold no records.
pub(crate) const NEW_PREFIX: &str = ".new-";

/// What the names of deleted topics' folders begin with. No topic's name begins with a dot.
pub(crate) const DELETED_PREFIX: &str = ".deleted-";

/// The right to use the data folder: an `flock` on `lock`, which the system gives back even if the process is killed.
///
/// It is taken on the machine's own file system whatever the [`Disk`] is, because it is about processes and not about data.
#[derive(Debug)]
pub struct DirLock {
    file: Mutex<Option<File>>,
}

impl DirLock {
    /// Makes the folder if need be, and takes the lock. A broker holds it while it runs, a tool while it changes what is in the folder.
    ///
    /// # Errors
    ///
    /// [`EngineError::Locked`] if another process has it; [`EngineError::DataDir`].
    pub fn take(data_dir: &Path) -> Result<DirLock, EngineError> {
        // What a person knows is the data folder; the lock in it is our business.
        let failed = |operation, source| EngineError::data_dir(operation, data_dir, source);
        make_private_dir(data_dir).map_err(|source| failed("create the data folder", source))?;
        let path = data_dir.join("lock");
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(|source| failed("write to the data folder", source))?;
        match file.try_lock() {
            Ok(()) => Ok(DirLock { file: Mutex::new(Some(file)) }),
            Err(TryLockError::WouldBlock) => Err(EngineError::Locked { data_dir: data_dir.to_owned() }),
            Err(TryLockError::Error(source)) => Err(failed("lock the data folder", source)),
        }
    }

    /// Gives the folder back before the lock is dropped. The file stays: removing it would let two brokers lock two files.
    pub(crate) fn release(&self) {
        *self.file.lock() = None;
    }
}

/// Makes a folder, and its parents, that only its owner can enter. One that is there keeps its mode.
pub(crate) fn make_private_dir(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// A small file whole, or `None` if it is not there. Blocking.
pub(crate) fn read_whole(disk: &dyn Disk, path: &Path, bytes_max: u64) -> Result<Option<Vec<u8>>, EngineError> {
    let failed = |source| EngineError::data_dir("read", path, source);
    let file = match disk.open(path, OpenMode::Read) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let length = file.size_bytes().map_err(failed)?;
    let length = usize::try_from(length)
        .ok()
        .filter(|_| length <= bytes_max)
        .ok_or_else(|| failed(io::Error::new(io::ErrorKind::FileTooLarge, format!("{length} bytes, {bytes_max} at most are expected"))))?;
    let mut bytes = Vec::new();
    match file.read_at(&mut bytes, length, 0).map_err(failed)? {
        read if read == length => Ok(Some(bytes)),
        _ => Err(failed(io::ErrorKind::UnexpectedEof.into())),
    }
}

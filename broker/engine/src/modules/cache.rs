//! The cache of what modules compile to.
//!
//! An artifact is native code, and wasmtime believes what it says. So only this process writes the cache, into a folder and files that
//! only its user can touch, and a file is taken only if nobody else could have written it. That it is whole is checked by
//! the plugin crate, with a digest in front of it. The cache can be deleted at any time; modules are then compiled again when they are
//! needed next.
//!
//! It is bounded in files and in bytes: before one is written, those go that were not used for the longest time, but never one that the next
//! start loads, by this build. So it is larger than its bound by what is needed at most, and by the one that is written. What belongs to no
//! module any more goes at once, or at the next start.

use crate::data_dir::make_private_dir;
use millpond_plugin::ArtifactCache;
use parking_lot::Mutex;
use std::{
    collections::BTreeSet,
    fs,
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    time::SystemTime,
};

/// Compiled modules as files. On the machine's own file system whatever the [`Disk`] is: they are about this processor, not about the
/// data.
#[derive(Debug)]
pub(crate) struct FileCache {
    dir: PathBuf,
    bytes_max: u64,
    /// The hashes of the uploads whose artifacts stay.
    needed: Mutex<BTreeSet<String>>,
}

/// A file of the cache.
struct Cached {
    used: SystemTime,
    bytes: u64,
    path: PathBuf,
}

impl FileCache {
    /// Makes the folder if need be.
    pub(crate) fn open(dir: PathBuf, bytes_max: u64) -> io::Result<FileCache> {
        make_private_dir(&dir)?;
        Ok(FileCache { dir, bytes_max, needed: Mutex::default() })
    }

    /// Says which uploads the next start loads, by their hashes.
    pub(crate) fn need(&self, uploads: BTreeSet<String>) {
        *self.needed.lock() = uploads;
    }

    /// At a start: removes what other uploads compile to than these, and what is left of writing. Blocking.
    pub(crate) fn keep_only(&self, stays: impl Fn(&str) -> bool) {
        self.remove_if(|path| path.extension().is_none_or(|end| end != EXTENSION) || !upload_of(path).is_some_and(&stays));
    }

    /// Removes what an upload compiles to. Blocking.
    pub(crate) fn remove(&self, upload: &str) {
        self.remove_if(|path| upload_of(path) == Some(upload));
    }

    fn remove_if(&self, is_gone: impl Fn(&Path) -> bool) {
        let gone = |cached: &&Cached| is_gone(&cached.path);
        if let Err(error) = self.files().and_then(|files| files.iter().filter(gone).try_for_each(Cached::remove)) {
            tracing::warn!(%error, "a compiled module that belongs to nothing can't be removed");
        }
    }

    fn files(&self) -> io::Result<Vec<Cached>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            if !metadata.is_dir() {
                files.push(Cached { used: metadata.modified()?, bytes: metadata.len(), path: entry.path() });
            }
        }
        Ok(files)
    }

    fn path(&self, key: &str) -> Option<PathBuf> {
        // A key is made of hashes; anything else would leave the folder.
        key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-').then(|| self.dir.join(format!("{key}.{EXTENSION}")))
    }

    fn read(&self, key: &str) -> io::Result<Option<Vec<u8>>> {
        let Some(path) = self.path(key) else { return Ok(None) };
        let metadata = match fs::symlink_metadata(&path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        if !metadata.is_file() || metadata.permissions().mode() & OTHERS_CAN_WRITE != 0 {
            tracing::warn!(path = %path.display(), "a compiled module could have been written by others and is not used");
            return Ok(None);
        }
        let artifact = fs::read(&path)?;
        // The oldest go first when there are too many; this one is in use.
        if let Ok(file) = fs::File::options().append(true).open(&path) {
            let _ = file.set_modified(std::time::SystemTime::now());
        }
        Ok(Some(artifact))
    }

    fn write(&self, key: &str, artifact: &[u8]) -> io::Result<()> {
        let Some(path) = self.path(key) else { return Ok(()) };
        self.make_room(&path, artifact.len() as u64)?;
        let temporary = path.with_extension("tmp");
        let _ = fs::remove_file(&temporary);
        let mut file = fs::File::options().create_new(true).write(true).mode(0o600).open(&temporary)?;
        file.write_all(artifact)?;
        file.sync_data()?;
        fs::rename(&temporary, &path)
    }

    /// Removes the files that were not used for the longest time and are not needed, so that this one stays below the limits. Blocking.
    fn make_room(&self, path: &Path, bytes: u64) -> io::Result<()> {
        let mut files = self.files()?;
        files.retain(|cached| cached.path != path);
        files.sort_by(|one, other| (one.used, &one.path).cmp(&(other.used, &other.path)));
        let (mut count, mut total) = (files.len() + 1, files.iter().map(|cached| cached.bytes).sum::<u64>().saturating_add(bytes));
        let needed = self.needed.lock().clone();
        // Another build of the broker has other code for the same module, which this one does not need.
        let is_needed = |cached: &Cached| {
            upload_of(&cached.path).is_some_and(|upload| needed.contains(upload)) && build_of(&cached.path) == build_of(path)
        };
        for cached in files.iter().filter(|cached| !is_needed(cached)) {
            if count <= CACHE_FILES_MAX && total <= self.bytes_max {
                break;
            }
            cached.remove()?;
            (count, total) = (count - 1, total - cached.bytes);
        }
        Ok(())
    }
}

impl Cached {
    /// It may be gone already.
    fn remove(&self) -> io::Result<()> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// The hash of what was compiled, which a key begins with.
fn upload_of(path: &Path) -> Option<&str> {
    Some(path.file_stem()?.to_str()?.split_once('-')?.0)
}

/// What the compiled code depends on, which a key ends with.
fn build_of(path: &Path) -> Option<&str> {
    Some(path.file_stem()?.to_str()?.split_once('-')?.1)
}

impl ArtifactCache for FileCache {
    fn load(&self, key: &str) -> Option<Vec<u8>> {
        self.read(key).unwrap_or_else(|error| {
            tracing::warn!(%error, "a compiled module can't be read");
            None
        })
    }

    fn store(&self, key: &str, artifact: &[u8]) {
        // Without the cache the next start takes longer; that is all.
        if let Err(error) = self.write(key, artifact) {
            tracing::warn!(%error, "a compiled module can't be kept");
        }
    }
}

const EXTENSION: &str = "cwasm";

/// Write permission for the group or for everyone.
const OTHERS_CAN_WRITE: u32 = 0o022;

/// Twice as many as there may be modules by default: each may also be there for the version of the broker before this one.
const CACHE_FILES_MAX: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    fn cache() -> (tempfile::TempDir, FileCache) {
        let dir = tempfile::tempdir().expect("a folder");
        let cache = FileCache::open(dir.path().join("cache"), 1 << 20).expect("it can be made");
        (dir, cache)
    }

    /// So long ago that it was used before anything else.
    fn age(cache: &FileCache, key: &str, seconds: u64) {
        let file = fs::File::options().append(true).open(cache.dir.join(format!("{key}.cwasm"))).expect("it is there");
        file.set_modified(SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds)).expect("it can be dated");
    }

    #[test]
    fn bytes_are_bounded_and_what_is_needed_never_goes() {
        let (_dir, cache) = cache();
        let third = vec![7; (1 << 20) / 3];
        cache.need(["aa".to_owned()].into());
        for (seconds, key) in (1..).zip(["aa-1", "aa-2", "bb-2"]) {
            cache.store(key, &third);
            age(&cache, key, seconds);
        }
        let there = || ["aa-1", "aa-2", "bb-2", "cc-2", "dd-2"].map(|key| cache.dir.join(format!("{key}.cwasm")).exists());
        assert_eq!(there(), [true, true, true, false, false]);
        cache.store("bb-2", &third);
        age(&cache, "bb-2", 3);
        assert_eq!(there(), [true, true, true, false, false], "what takes its own place needs no other room");
        cache.store("cc-2", &third);
        assert_eq!(there(), [false, true, true, true, false], "another build needed the oldest");
        cache.need(["aa".to_owned(), "bb".to_owned(), "cc".to_owned()].into());
        cache.store("dd-2", &third);
        assert_eq!(there(), [false, true, true, true, true], "nothing can go");
        cache.need(["dd".to_owned()].into());
        cache.remove("cc");
        assert_eq!(there(), [false, true, true, false, true]);
        cache.store("cc-2", &third);
        assert_eq!(there(), [false, false, true, true, true], "the one that was not used for the longest time");
    }

    #[test]
    fn what_is_left_of_writing_goes() {
        let (_dir, cache) = cache();
        fs::write(cache.dir.join("aa-1.tmp"), b"half").expect("it can be written");
        cache.keep_only(|_| true);
        assert_eq!(fs::read_dir(&cache.dir).expect("it lists").count(), 0);
    }

    #[test]
    fn an_artifact_comes_back_and_is_for_its_owner_alone() {
        let (_dir, cache) = cache();
        assert_eq!(cache.load("a1-b2"), None);
        cache.store("a1-b2", b"code");
        assert_eq!(cache.load("a1-b2").as_deref(), Some(&b"code"[..]));
        let mode = |path| fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
        assert_eq!(mode(cache.dir.join("a1-b2.cwasm")), 0o600);
        assert_eq!(mode(cache.dir.clone()), 0o700);
    }

    #[test]
    fn an_artifact_that_others_could_have_written_is_not_used() {
        let (_dir, cache) = cache();
        cache.store("k", b"code");
        let path = cache.dir.join("k.cwasm");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o620)).expect("it is ours");
        assert_eq!(cache.load("k"), None);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("it is ours");
        assert!(cache.load("k").is_some());
        fs::rename(&path, cache.dir.join("elsewhere")).expect("it is ours");
        std::os::unix::fs::symlink(cache.dir.join("elsewhere"), &path).expect("it can be linked");
        assert_eq!(cache.load("k"), None, "a link can lead anywhere");
    }

    #[test]
    fn a_key_can_not_leave_the_folder() {
        let (dir, cache) = cache();
        cache.store("../escaped", b"code");
        assert!(!dir.path().join("escaped.cwasm").exists());
        assert_eq!(cache.load("../escaped"), None);
    }

    #[test]
    fn the_oldest_files_make_room() {
        let (_dir, cache) = cache();
        for number in 0..CACHE_FILES_MAX {
            let file = fs::File::create(cache.dir.join(format!("{number}.cwasm"))).expect("it can be made");
            let age = std::time::Duration::from_secs(u64::try_from(number).expect("small"));
            file.set_modified(std::time::SystemTime::UNIX_EPOCH + age).expect("it can be dated");
        }
        cache.store("new", b"code");
        assert_eq!(fs::read_dir(&cache.dir).expect("it lists").count(), CACHE_FILES_MAX);
        assert!(!cache.dir.join("0.cwasm").exists());
        assert!(cache.load("new").is_some());
    }
}

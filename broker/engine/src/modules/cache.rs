//! The cache of what modules compile to.
//!
//! An artifact is native code, and wasmtime believes what it says. So only this process writes the cache, into a folder and files that
//! only its user can touch, and a file is taken only if nobody else could have written it. That it is whole is checked by
//! the plugin crate, with a digest in front of it. The cache can be deleted at any time; modules are then compiled again when they are
//! needed next.

use crate::data_dir::make_private_dir;
use millpond_plugin::ArtifactCache;
use std::{
    fs,
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::PathBuf,
};

/// Compiled modules as files. On the machine's own file system whatever the [`Disk`] is: they are about this processor, not about the
/// data.
#[derive(Debug)]
pub(crate) struct FileCache {
    dir: PathBuf,
}

impl FileCache {
    /// Makes the folder if need be.
    pub(crate) fn open(dir: PathBuf) -> io::Result<FileCache> {
        make_private_dir(&dir)?;
        Ok(FileCache { dir })
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
        self.make_room()?;
        let temporary = path.with_extension("tmp");
        let _ = fs::remove_file(&temporary);
        let mut file = fs::File::options().create_new(true).write(true).mode(0o600).open(&temporary)?;
        file.write_all(artifact)?;
        file.sync_data()?;
        fs::rename(&temporary, &path)
    }

    /// Removes the files that were not used for the longest time, so that one more stays below the limit.
    fn make_room(&self) -> io::Result<()> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            files.push((entry.metadata()?.modified()?, entry.path()));
        }
        files.sort();
        let surplus = (files.len() + 1).saturating_sub(CACHE_FILES_MAX);
        files.into_iter().take(surplus).try_for_each(|(_, path)| fs::remove_file(path))
    }
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
        let cache = FileCache::open(dir.path().join("cache")).expect("it can be made");
        (dir, cache)
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

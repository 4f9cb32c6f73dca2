//! Small files of ours beside the segments, whose bytes can be told from damaged ones.
//!
//! ```text
//! HEADING                 which file, and which layout of it
//! BODY                    lines of digits
//! crc32c 1a2b3c4d         over all that comes before this line
//! ```
//!
//! They are replaced as a whole, so a crash leaves the old one or the new one. The checksum is for what time does to a disk: a digit that
//! has changed must not pass for another offset, or another time.

use std::io;
use std::path::Path;

use millpond_protocol::batch::checksum;

use crate::disk::{Disk, OpenMode, parent, sync_names, write_atomically};
use crate::error::{LogError, is_full, is_out_of_files};
use crate::kept::WhenFull;

/// Writes the file, durably and in one step.
pub(crate) fn write_sealed(disk: &dyn Disk, path: &Path, heading: &str, body: &str) -> io::Result<()> {
    let text = format!("{heading}\n{body}\n");
    let sealed = format!("{text}{CHECKSUM} {:08x}\n", checksum(text.as_bytes()));
    write_atomically(disk, path, sealed.as_bytes())
}

/// The body of the file. None if there is no file, or if it is not one that was written whole with this heading, which is logged.
pub(crate) fn read_sealed(disk: &dyn Disk, path: &Path, heading: &str, bytes_max: usize) -> io::Result<Option<String>> {
    let Some(bytes) = read_bounded(disk, path, bytes_max)? else { return Ok(None) };
    let body = std::str::from_utf8(&bytes).ok().and_then(|text| unseal(text, heading));
    if body.is_none() {
        tracing::warn!(path = %path.display(), "the file is damaged, and is left out of account");
    }
    Ok(body.map(str::to_owned))
}

/// The first bytes of a small file, `bytes_max` at most; takes no more memory than the file has. None if there is no file.
pub(crate) fn read_bounded(disk: &dyn Disk, path: &Path, bytes_max: usize) -> io::Result<Option<Vec<u8>>> {
    if !disk.exists(path)? {
        return Ok(None);
    }
    let file = disk.open(path, OpenMode::Read)?;
    let wanted = usize::try_from(file.size_bytes()?).map_or(bytes_max, |bytes| bytes.min(bytes_max));
    let mut bytes = Vec::new();
    file.read_at(&mut bytes, wanted, 0)?;
    Ok(Some(bytes))
}

/// A file that an opening must correct, because it speaks of what a cut has taken. Nothing is wrong without it: where it can't be corrected
/// it is removed, durably, so that no log stays closed for its sake. It could be read again later, and then nobody would know what of it
/// is true.
pub(crate) struct Stale<'a> {
    pub(crate) disk: &'a dyn Disk,
    pub(crate) path: &'a Path,
    /// Where there may be room in another try, that one keeps it.
    pub(crate) when_full: WhenFull,
    /// What its absence means, for the log.
    pub(crate) without: &'static str,
}

impl Stale<'_> {
    /// What is in it; none if there is no file, or no longer.
    ///
    /// # Errors
    ///
    /// [`LogError::TooManyOpenFiles`]: it may be read at once. [`LogError::Io`]: it can't be removed either.
    pub(crate) fn read<T>(&self, read: impl FnOnce() -> io::Result<Option<T>>) -> Result<Option<T>, LogError> {
        match read() {
            Err(error) if is_out_of_files(&error) => Err(LogError::io("read", self.path, error)),
            Err(error) => self.remove(&error).map(|()| None),
            Ok(found) => Ok(found),
        }
    }

    /// Writes what it should say.
    ///
    /// # Errors
    ///
    /// [`LogError::Full`] as [`WhenFull::Fail`] says; [`LogError::TooManyOpenFiles`]; [`LogError::Io`].
    pub(crate) fn replace(&self, write: impl FnOnce() -> io::Result<()>) -> Result<(), LogError> {
        match write() {
            Err(error) if is_full(&error) && self.when_full == WhenFull::Drop => self.remove(&error),
            written => written.map_err(|source| LogError::io("replace", self.path, source)),
        }
    }

    fn remove(&self, error: &io::Error) -> Result<(), LogError> {
        tracing::warn!(path = %self.path.display(), %error, "a file can't be corrected and is removed: {}", self.without);
        let removed = self.disk.remove_file(self.path).and_then(|()| sync_names(self.disk, parent(self.path)));
        removed.map_err(|source| LogError::io("remove", self.path, source))
    }
}

/// The body between the heading and the checksum, if it is true.
pub(crate) fn unseal<'a>(sealed: &'a str, heading: &str) -> Option<&'a str> {
    let (text, last) = sealed.strip_suffix('\n')?.rsplit_once('\n')?;
    let digits = last.strip_prefix(CHECKSUM)?.strip_prefix(' ')?;
    let sealed_part = sealed.get(..=text.len())?;
    if digits.len() != 8 || u32::from_str_radix(digits, 16).ok()? != checksum(sealed_part.as_bytes()) {
        return None;
    }
    text.strip_prefix(heading)?.strip_prefix('\n')
}

/// Begins the last line.
const CHECKSUM: &str = "crc32c";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::SimDisk;

    fn read(disk: &SimDisk) -> Option<String> {
        read_sealed(disk, Path::new("/file"), "heading 1", 1000).expect("reads")
    }

    #[test]
    fn what_was_sealed_is_read_back_and_no_changed_bit_passes() {
        let disk = SimDisk::new();
        assert_eq!(read(&disk), None, "there is no file");
        let seal = || write_sealed(&disk, Path::new("/file"), "heading 1", "12\n34").expect("writes");
        seal();
        assert_eq!(read(&disk).as_deref(), Some("12\n34"));
        let length = disk.bytes(Path::new("/file")).expect("it is there").len();
        for at in 0..length {
            for bit in 0..8 {
                disk.damage(Path::new("/file"), |bytes| bytes[at] ^= 1 << bit);
                // The case of a hexadecimal digit says nothing.
                assert!(read(&disk).is_none_or(|body| body == "12\n34"), "byte {at}, bit {bit}");
                seal();
            }
            disk.damage(Path::new("/file"), |bytes| bytes.truncate(at));
            assert_eq!(read(&disk), None, "cut to {at} bytes");
            seal();
        }
        assert_eq!(read_sealed(&disk, Path::new("/file"), "heading 2", 1000).expect("reads"), None, "another layout");
    }
}

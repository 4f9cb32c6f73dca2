//! Small files of ours beside the segments, whose bytes can be told from damaged ones.
//!
//! ```text
//! HEADING                 which file, and which layout of it
//! BODY                    lines of digits
//! crc32c 1a2b3c4d         over all that comes before this line
//! ```
//!
//! They are replaced as a whole, so a crash leaves the old one or the new one. The checksum is for what time does to a disk: a digit that
//! has changed must not pass for another offset, or another time. A folder in the place of one counts as a damaged file. It is not ours to
//! delete: where the file is written or removed, the folder gets a name that ends with `.removed-<n>`, as what a repair keeps.

use std::io;
use std::path::{Path, PathBuf};

use millpond_protocol::batch::checksum;

use crate::disk::{Disk, OpenMode, parent, sync_names, write_atomically};
use crate::error::{LogError, is_full, is_out_of_files, is_unreadable};
use crate::inspect::kept_suffix;
use crate::kept::WhenFull;

/// What there is in the place of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found<T> {
    /// No file.
    Nothing,
    /// Something that no log writes.
    Damaged,
    /// What the file says.
    Whole(T),
}

/// Writes the file, durably and in one step.
pub(crate) fn write_sealed(disk: &dyn Disk, path: &Path, heading: &str, body: &str) -> io::Result<()> {
    let text = format!("{heading}\n{body}\n");
    let sealed = format!("{text}{CHECKSUM} {:08x}\n", checksum(text.as_bytes()));
    match write_atomically(disk, path, sealed.as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::IsADirectory && is_folder(disk, path) => {
            set_folder_aside(disk, path)?;
            write_atomically(disk, path, sealed.as_bytes())
        }
        written => written,
    }
}

/// Removes what is in the place of a file, durably, if there is something.
pub(crate) fn clear(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    match disk.remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(_) if is_folder(disk, path) => set_folder_aside(disk, path)?,
        removed => removed?,
    }
    sync_names(disk, parent(path))
}

pub(crate) fn is_folder(disk: &dyn Disk, path: &Path) -> bool {
    disk.list(path).is_ok()
}

fn set_folder_aside(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    for number in 1..=SET_ASIDE_MAX {
        let mut name = path.as_os_str().to_os_string();
        name.push(kept_suffix(number));
        let aside = PathBuf::from(name);
        if !disk.exists(&aside)? {
            tracing::warn!(path = %path.display(), aside = %aside.display(), "a folder is in the place of a file, and gets another name");
            return disk.rename(path, &aside);
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// What the file says, as `parse` reads its body.
pub(crate) fn find_sealed<T>(
    disk: &dyn Disk,
    (path, heading): (&Path, &str),
    bytes_max: usize,
    parse: impl FnOnce(&str) -> Option<T>,
) -> io::Result<Found<T>> {
    let Some(bytes) = read_bounded(disk, path, bytes_max)? else { return Ok(Found::Nothing) };
    let body = std::str::from_utf8(&bytes).ok().and_then(|text| unseal(text, heading));
    Ok(body.and_then(parse).map_or(Found::Damaged, Found::Whole))
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

/// The first bytes of a small file, `bytes_max` at most; takes no more memory than the file has. None if there is no file. A
/// folder is as good as an empty file.
pub(crate) fn read_bounded(disk: &dyn Disk, path: &Path, bytes_max: usize) -> io::Result<Option<Vec<u8>>> {
    if !disk.exists(path)? {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    let read = disk.open(path, OpenMode::Read).and_then(|file| {
        let wanted = usize::try_from(file.size_bytes()?).map_or(bytes_max, |bytes| bytes.min(bytes_max));
        file.read_at(&mut bytes, wanted, 0)
    });
    match read {
        Err(error) if error.kind() != io::ErrorKind::IsADirectory => Err(error),
        _ => Ok(Some(bytes)),
    }
}

/// Reads a file that can be gone without, but not without a loss, once more where the disk does not give it back: a fault that passes must
/// not cost what it says.
pub(crate) fn once_more<T>(read: impl Fn() -> io::Result<T>) -> io::Result<T> {
    read().or_else(|error| if is_unreadable(&error) { read() } else { Err(error) })
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
        // It need not be there: nobody could look.
        clear(self.disk, self.path).map_err(|source| LogError::io("remove", self.path, source))
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

/// The most folders that are set aside from the place of one file.
const SET_ASIDE_MAX: u64 = 1_000;

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

    #[test]
    fn a_folder_in_the_place_of_a_file_is_damage_and_makes_room_for_the_file() {
        let (disk, path) = (SimDisk::new(), Path::new("/file"));
        for round in 1..=2 {
            disk.create_dir_all(&path.join("inside")).expect("creates");
            assert_eq!(read(&disk), None);
            assert_eq!(find_sealed(&disk, (path, "heading 1"), 1000, |_| Some(())).expect("reads"), Found::Damaged);
            write_sealed(&disk, path, "heading 1", "12").expect("writes");
            assert_eq!(read(&disk).as_deref(), Some("12"));
            assert!(disk.exists(Path::new(&format!("/file.removed-{round}/inside"))).expect("asks"), "nothing in it is lost");
            clear(&disk, path).expect("removes a file");
        }
        disk.create_dir_all(path).expect("creates");
        for _ in 0..2 {
            clear(&disk, path).expect("moves a folder");
            assert_eq!(find_sealed(&disk, (path, "heading 1"), 1000, |_| Some(())).expect("reads"), Found::Nothing);
        }
        // In the place of the unfinished file it is none of ours, and the file stays where it is.
        write_sealed(&disk, path, "heading 1", "12").expect("writes");
        disk.create_dir_all(Path::new("/file.tmp")).expect("creates");
        assert!(write_sealed(&disk, path, "heading 1", "13").is_err());
        assert_eq!(read(&disk).as_deref(), Some("12"));
    }
}

//! The disk of the operating system (Unix).

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;

use rustix::buffer::spare_capacity;
use rustix::io::Errno;

use crate::disk::{Disk, DiskFile, OpenMode};

/// The file system of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true);
        match mode {
            OpenMode::Read => {}
            OpenMode::ReadWrite => {
                options.write(true);
            }
            OpenMode::CreateNew => {
                options.write(true).create_new(true);
            }
            OpenMode::Replace => {
                options.write(true).create(true).truncate(true);
            }
        }
        Ok(Arc::new(RealFile(options.open(path)?)))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<OsString>> {
        fs::read_dir(path)?.map(|entry| entry.map(|entry| entry.file_name())).collect()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir_all(path)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        fs::exists(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn free_bytes(&self, path: &Path) -> io::Result<Option<u64>> {
        let found = rustix::fs::statvfs(path)?;
        Ok(found.f_bavail.checked_mul(found.f_frsize))
    }
}

#[derive(Debug)]
struct RealFile(File);

impl DiskFile for RealFile {
    fn read_at(&self, into: &mut Vec<u8>, bytes_max: usize, at: u64) -> io::Result<usize> {
        let start = into.len();
        let full = start + bytes_max;
        // The kernel writes into the reserved space, which nobody has set to zero before.
        into.reserve_exact(bytes_max);
        while into.len() < full {
            let position = at + (into.len() - start) as u64;
            match rustix::io::pread(&self.0, spare_capacity(into), position) {
                Ok(0) => break,
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => {
                    into.truncate(start);
                    return Err(error.into());
                }
            }
        }
        // The allocator may have reserved more than was asked for.
        into.truncate(full);
        Ok(into.len() - start)
    }

    #[cfg(not(target_vendor = "apple"))]
    fn write_vectored_at(&self, buffers: &[IoSlice<'_>], at: u64) -> io::Result<usize> {
        loop {
            match rustix::io::pwritev(&self.0, buffers, at) {
                Err(Errno::INTR) => {}
                other => return other.map_err(io::Error::from),
            }
        }
    }

    // Apple's systems have no pwritev before macOS 11, and rustix offers none.
    #[cfg(target_vendor = "apple")]
    fn write_vectored_at(&self, buffers: &[IoSlice<'_>], at: u64) -> io::Result<usize> {
        let first = buffers.iter().find(|buffer| !buffer.is_empty());
        std::os::unix::fs::FileExt::write_at(&self.0, first.map_or(&[][..], |buffer| buffer), at)
    }

    fn size_bytes(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.0.set_len(bytes)
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn allocate(&self, end: u64) -> io::Result<()> {
        use rustix::fs::{FallocateFlags, fallocate};
        let start = self.size_bytes()?;
        if start >= end {
            return Ok(());
        }
        match fallocate(&self.0, FallocateFlags::KEEP_SIZE, start, end - start) {
            // What a file system without it says.
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
            other => other.map_err(io::Error::from),
        }
    }

    // Cutting a file where it ends gives back what lies behind the end.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn release(&self) -> io::Result<()> {
        self.0.set_len(self.size_bytes()?)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}

//! The disk without a log: the system calls that a log could not do without, and nothing around them.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::figures::megabytes_per_second;

/// How much was moved in which time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moved {
    pub(crate) bytes: u64,
    pub(crate) elapsed: Duration,
    /// Of these, from the device and not from the page cache: reads only.
    pub(crate) from_device: u64,
}

impl Moved {
    pub(crate) fn megabytes_per_second(&self) -> f64 {
        megabytes_per_second(self.bytes, self.elapsed)
    }

    /// Times the reads that `read` does and counts.
    pub(crate) fn of_reads<E: From<io::Error>>(read: impl FnOnce() -> Result<u64, E>) -> Result<Moved, E> {
        let before = bytes_from_device()?;
        let begin = Instant::now();
        let bytes = read()?;
        let elapsed = begin.elapsed();
        Ok(Moved { bytes, elapsed, from_device: bytes_from_device()? - before })
    }
}

/// The file that a raw loop of writes and syncs goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// Empty at first, as a segment is: every sync has a new length and new blocks to note in the file system.
    Growing,
    /// Its blocks are given to it beforehand (`fallocate`); its length is what was written.
    Reserved,
    /// Its blocks are given to it beforehand, and its length is all of them.
    Allocated,
    /// Written in full beforehand, so that a sync has nothing to note but the bytes.
    Rewritten,
}

/// Writes `chunk_bytes` and syncs them, over and over, for that long. Returns megabytes a second that became durable.
pub(crate) fn write_and_sync(path: &Path, target: Target, chunk_bytes: usize, time: Duration) -> io::Result<f64> {
    let chunk = noise(chunk_bytes);
    let file = File::options().read(true).write(true).create(true).truncate(true).open(path)?;
    let room_bytes = (ROOM_BYTES / chunk_bytes as u64).max(2) * chunk_bytes as u64;
    match target {
        Target::Growing => {}
        Target::Reserved | Target::Allocated => allocate(&file, room_bytes, target == Target::Allocated)?,
        Target::Rewritten => {
            for at in (0..room_bytes).step_by(chunk_bytes) {
                file.write_all_at(&chunk, at)?;
            }
        }
    }
    file.sync_all()?;
    let (mut bytes, mut elapsed) = (0, Duration::ZERO);
    while elapsed < time {
        let begin = Instant::now();
        let at = if target == Target::Growing { bytes } else { bytes % room_bytes };
        file.write_all_at(&chunk, at)?;
        file.sync_data()?;
        bytes += chunk_bytes as u64;
        elapsed += begin.elapsed();
        if matches!(target, Target::Reserved | Target::Allocated) && bytes % room_bytes == 0 {
            // Its blocks are written to by now. Others are given to it, while the clock stands still.
            file.set_len(0)?;
            allocate(&file, room_bytes, target == Target::Allocated)?;
            file.sync_all()?;
        }
    }
    drop(file);
    fs::remove_file(path)?;
    Ok(megabytes_per_second(bytes, elapsed))
}

/// Reads files one behind the other, `chunk_bytes` at once into the same buffer. Returns how many bytes there were.
pub(crate) fn read_files(paths: &[PathBuf], chunk_bytes: usize) -> io::Result<u64> {
    let mut buffer = vec![0; chunk_bytes];
    let mut total = 0;
    for path in paths {
        let (file, mut at) = (File::open(path)?, 0);
        loop {
            let read = file.read_at(&mut buffer, at)?;
            if read == 0 {
                break;
            }
            at += read as u64;
        }
        total += at;
    }
    Ok(total)
}

/// Takes files out of the page cache. The system keeps pages that are not on disk yet, so they are synced first. Whether it has worked
/// is told by [`Moved::from_device`] of the reads that follow.
pub(crate) fn drop_from_cache(paths: &[PathBuf]) -> io::Result<()> {
    for path in paths {
        let file = File::open(path)?;
        file.sync_all()?;
        forget(&file)?;
    }
    Ok(())
}

/// The files in a folder, and in those in it, by name.
pub(crate) fn files_in(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() { files.extend(files_in(&path)?) } else { files.push(path) }
    }
    files.sort();
    Ok(files)
}

/// The files in a folder that hold batches.
pub(crate) fn segments_in(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = files_in(folder)?;
    files.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
    Ok(files)
}

/// Bytes that no disk can compress.
pub(crate) fn noise(bytes: usize) -> Vec<u8> {
    let mut noise = Vec::with_capacity(bytes + 8);
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    while noise.len() < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        noise.extend_from_slice(&state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
    }
    noise.truncate(bytes);
    noise
}

/// Bytes that this process has made the kernel fetch from a storage device, read-ahead included.
#[cfg(target_os = "linux")]
fn bytes_from_device() -> io::Result<u64> {
    let counters = fs::read_to_string("/proc/self/io")?;
    let counter = counters.lines().find_map(|line| line.strip_prefix("read_bytes: "));
    counter.and_then(|count| count.parse().ok()).ok_or_else(|| io::Error::other("/proc/self/io has no count of bytes from the device"))
}

#[cfg(target_os = "linux")]
fn forget(file: &File) -> io::Result<()> {
    Ok(rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed)?)
}

#[cfg(target_os = "linux")]
fn allocate(file: &File, bytes: u64, with_length: bool) -> io::Result<()> {
    let flags = if with_length { rustix::fs::FallocateFlags::empty() } else { rustix::fs::FallocateFlags::KEEP_SIZE };
    Ok(rustix::fs::fallocate(file, flags, 0, bytes)?)
}

/// Makes everything in the file system of this file durable.
#[cfg(target_os = "linux")]
pub(crate) fn sync_file_system(file: &File) -> io::Result<()> {
    Ok(rustix::fs::syncfs(file)?)
}

#[cfg(not(target_os = "linux"))]
fn bytes_from_device() -> io::Result<u64> {
    Ok(0)
}

#[cfg(not(target_os = "linux"))]
fn forget(_file: &File) -> io::Result<()> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "how to empty the page cache is known for Linux only"))
}

#[cfg(not(target_os = "linux"))]
fn allocate(file: &File, bytes: u64, with_length: bool) -> io::Result<()> {
    if with_length { file.set_len(bytes) } else { Ok(()) }
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn sync_file_system(_file: &File) -> io::Result<()> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "syncfs is known for Linux only"))
}

/// What a file that is there beforehand has room for. A loop of writes begins again at its end.
const ROOM_BYTES: u64 = 64 << 20;

//! What the disk gives without Millpond: sequential writing, with one flush and with many, and the time of one flush.
//!
//! Plain files that grow, as a log's segments do, in the same file system. All of it blocks, and belongs on a blocking thread.

use super::{
    BenchError,
    payload::Values,
    samples::{Latencies, Throughput},
};
use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::task::spawn_blocking;

/// One write of the sequential measurement.
const WRITE_BYTES: usize = 1 << 20;

/// One write before each flush whose time is taken.
const FLUSH_WRITE_BYTES: usize = 4 << 10;

/// Written at most with many flushes: more would fill small disks.
const FLUSHED_BYTES_MAX: usize = 2 << 30;

/// Flushes that are measured at least, however slow the disk is.
const FLUSHES_MIN: usize = 10;

/// Writes `bytes` in pieces of 1 MiB to a new file and flushes once at the end, the flush included in the time.
pub(super) fn write_sequentially(folder: &Path, values: &Values, bytes: usize) -> Result<Throughput, BenchError> {
    let scratch = Scratch::create(folder.join("sequential"))?;
    let writes = bytes.div_ceil(WRITE_BYTES);
    let started = Instant::now();
    let write = || -> io::Result<()> {
        for index in 0..writes {
            (&scratch.file).write_all(&values.piece(index, WRITE_BYTES))?;
        }
        scratch.file.sync_data()
    };
    write().map_err(|source| BenchError::File { action: "write", path: scratch.path.clone(), source })?;
    Ok(Throughput { bytes: (writes * WRITE_BYTES) as u64, records: 0, elapsed: started.elapsed() })
}

/// Appends 4 KiB and flushes, again and again for `duration`. The latencies are those of the write and its flush.
///
/// Each flush is handed to a blocking thread, as a broker has to. Where other processes keep the cores busy, Linux lets a thread that
/// does nothing but write and flush wait longer: 4 ms at the median were seen, where this measured 0.2 ms.
pub(super) async fn flush_repeatedly(folder: PathBuf, values: Values, duration: Duration) -> Result<Latencies, BenchError> {
    let scratch = Arc::new(Scratch::create(folder.join("flushes"))?);
    let mut latencies = Latencies::default();
    let started = Instant::now();
    while started.elapsed() < duration || latencies.len() < FLUSHES_MIN {
        let piece = values.piece(latencies.len(), FLUSH_WRITE_BYTES);
        let scratch = Arc::clone(&scratch);
        latencies.add(blocking(move || scratch.append_and_flush(&piece)).await?);
    }
    Ok(latencies)
}

/// Appends `piece_bytes` and flushes, again and again for `duration`: the same loop, and what comes of it in bytes.
pub(super) async fn write_and_flush(
    folder: PathBuf,
    values: Values,
    piece_bytes: usize,
    duration: Duration,
) -> Result<Throughput, BenchError> {
    let scratch = Arc::new(Scratch::create(folder.join("flushed"))?);
    let (started, mut pieces) = (Instant::now(), 0);
    while (started.elapsed() < duration || pieces < FLUSHES_MIN) && pieces * piece_bytes < FLUSHED_BYTES_MAX {
        let piece = values.piece(pieces, piece_bytes);
        let scratch = Arc::clone(&scratch);
        blocking(move || scratch.append_and_flush(&piece)).await?;
        pieces += 1;
    }
    Ok(Throughput { bytes: (pieces * piece_bytes) as u64, records: 0, elapsed: started.elapsed() })
}

/// Bytes that this user can still write there; none where nobody knows.
pub(super) fn room_bytes(folder: &Path) -> Option<u64> {
    rustix::fs::statvfs(folder).ok().map(|status| status.f_bavail.saturating_mul(status.f_frsize))
}

/// Takes the files under `folder` out of the page cache, as far as the system does that; they are on disk.
pub(super) fn drop_from_cache(folder: &Path) -> Result<(), BenchError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| BenchError::File { action: "read", path, source }
    };
    for entry in fs::read_dir(folder).map_err(failed(folder))? {
        let path = entry.map_err(failed(folder))?.path();
        if path.is_dir() {
            drop_from_cache(&path)?;
        } else {
            let file = File::open(&path).map_err(failed(&path))?;
            #[cfg(target_os = "linux")]
            rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).map_err(|error| failed(&path)(error.into()))?;
            drop(file);
        }
    }
    Ok(())
}

/// Runs what blocks where it may block.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, BenchError> + Send + 'static) -> Result<T, BenchError> {
    spawn_blocking(work).await.unwrap_or_else(|error| unreachable!("measuring a disk does not panic: {error}"))
}

/// Whether files there live in memory, where a flush costs nothing and means nothing.
pub(super) fn is_in_memory(folder: &Path) -> bool {
    #[cfg(target_os = "linux")]
    {
        /// `TMPFS_MAGIC` of statfs(2).
        const TMPFS_MAGIC: i128 = 0x0102_1994;
        rustix::fs::statfs(folder).is_ok_and(|status| i128::from(status.f_type) == TMPFS_MAGIC)
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = folder;
        false
    }
}

/// A file that is removed with this value.
struct Scratch {
    file: File,
    path: PathBuf,
}

impl Scratch {
    fn create(path: PathBuf) -> Result<Scratch, BenchError> {
        let file = File::create(&path).map_err(|source| BenchError::File { action: "create", path: path.clone(), source })?;
        Ok(Scratch { file, path })
    }

    /// How long both took together.
    fn append_and_flush(&self, piece: &[u8]) -> Result<Duration, BenchError> {
        let begun = Instant::now();
        let outcome = (&self.file).write_all(piece).and_then(|()| self.file.sync_data());
        outcome.map_err(|source| BenchError::File { action: "flush", path: self.path.clone(), source })?;
        Ok(begun.elapsed())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // The whole folder goes at the end; this only gives the room back early.
        let _ = fs::remove_file(&self.path);
    }
}

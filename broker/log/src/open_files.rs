//! Which segment files are open: a bounded number for all logs together.
//!
//! A broker has thousands of partitions and a gateway has a limit on open files. So a `.log` is opened when it is read or written, stays
//! open while there is room, and gives its descriptor up to a file that needs one: the one that was used longest ago goes first, by the
//! "second chance" rule (a file used since it was last looked at is passed over once), which needs no lock where a file is open.
//!
//! ```text
//!          get(): open?  -- yes --> the handle, and a mark that it was used
//!                  | no
//!                  v
//!     opened, and put at the end of the queue; while the queue is longer than the bound:
//!
//!     front -> [ used ] [ idle ] [ pinned ] [ idle ] ... -> end
//!                 |        |         |
//!                 |        v         '--> goes to the end, whatever else: it has bytes that no sync has covered
//!                 |     closed
//!                 '--> loses its mark and goes to the end
//! ```
//!
//! **A file with unsynced bytes is pinned.** Linux tells of a failed write-back once for each open file (fsync(2), "errseq"); a file that
//! was closed and opened again may never hear of it, and its sync would answer for bytes that are gone. So a file is pinned from before
//! it is written to until a sync that began after the last write has succeeded; after a failed one it stays pinned while its log lives.
//!
//! No more files are pinned than may be open. Who wants to write to one more is refused as by the system itself (EMFILE), and may try
//! again; a reader gets a handle of its own then, that nobody keeps. Readers and syncs in progress keep their handles however the queue
//! goes, so a few more than the bound can be open: one for each thread that is at work at that moment.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::{Mutex, RwLock};
use rustix::io::Errno;

use crate::disk::{Disk, DiskFile, OpenMode};

/// The open segment files of any number of logs. Clones are handles to the same pool; [`crate::Log::open_in`] takes one.
#[derive(Clone, Debug)]
pub struct OpenFiles {
    pool: Arc<Pool>,
}

#[derive(Debug)]
struct Pool {
    /// Files that may be open.
    max: usize,
    /// Files that must stay open.
    pinned: AtomicUsize,
    /// Every slot that is open, and some that were. Locked when a file is opened, never for a read or a write.
    queue: Mutex<VecDeque<Weak<Slot>>>,
}

impl OpenFiles {
    /// A pool that keeps up to `files_max` files open; 0 counts as 1.
    pub fn new(files_max: usize) -> OpenFiles {
        OpenFiles { pool: Arc::new(Pool { max: files_max.max(1), pinned: AtomicUsize::new(0), queue: Mutex::default() }) }
    }

    /// How many files the pool keeps open at most.
    pub fn files_max(&self) -> usize {
        self.pool.max
    }

    /// How many files the pool keeps open now, those included that were closed since it last looked.
    pub fn files(&self) -> usize {
        self.pool.queue.lock().len()
    }

    /// Files with bytes that no sync has covered.
    pub fn unsynced_files(&self) -> usize {
        self.pool.pinned.load(Ordering::Relaxed)
    }

    /// Whether more than half of the files can't be closed because of unsynced bytes. Who would put a flush off should not, then.
    pub fn is_crowded(&self) -> bool {
        self.unsynced_files() > self.pool.max / 2
    }
}

impl Default for OpenFiles {
    /// A pool for [`OPEN_FILES_DEFAULT_MAX`] files.
    fn default() -> OpenFiles {
        OpenFiles::new(OPEN_FILES_DEFAULT_MAX)
    }
}

impl Pool {
    /// Puts a slot that was opened into the queue, and closes others for it.
    fn admit(&self, slot: &Arc<Slot>) {
        let mut closed = Vec::new();
        let mut queue = self.queue.lock();
        if !slot.listed.swap(true, Ordering::Relaxed) {
            queue.push_back(Arc::downgrade(slot));
        }
        // Twice round: the first time may only take the marks away.
        let mut looks = 2 * queue.len();
        while queue.len() > self.max && looks > 0 {
            looks -= 1;
            let Some(candidate) = queue.pop_front() else { break };
            let Some(candidate) = candidate.upgrade() else { continue };
            match candidate.give_up() {
                GivenUp::Kept => queue.push_back(Arc::downgrade(&candidate)),
                GivenUp::Closed(file) => {
                    candidate.listed.store(false, Ordering::Relaxed);
                    closed.extend(file);
                }
            }
        }
        drop(queue);
        // Here, without the lock, the descriptors go.
        drop(closed);
    }
}

/// A file that is opened when it is needed, and closed when its descriptor is.
#[derive(Debug)]
pub(crate) struct PooledFile {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    slot: Arc<Slot>,
}

#[derive(Debug)]
struct Slot {
    pool: Arc<Pool>,
    open: RwLock<Option<Arc<dyn DiskFile>>>,
    /// Whether it was used since the pool last looked.
    used: AtomicBool,
    /// Whether it is in the pool's queue; changed under the queue's lock only.
    listed: AtomicBool,
    /// Held while the pool closes the file, so that nobody pins it meanwhile.
    pins: Mutex<Pins>,
}

/// The file is pinned while the two differ.
#[derive(Debug, Default)]
struct Pins {
    /// Writes that were begun.
    written: u64,
    /// How many of them a sync has covered.
    synced: u64,
}

enum GivenUp {
    Kept,
    Closed(Option<Arc<dyn DiskFile>>),
}

impl PooledFile {
    /// One that is opened when it is first used.
    pub(crate) fn new(files: &OpenFiles, disk: Arc<dyn Disk>, path: PathBuf) -> PooledFile {
        let slot = Slot {
            pool: Arc::clone(&files.pool),
            open: RwLock::new(None),
            used: AtomicBool::new(false),
            listed: AtomicBool::new(false),
            pins: Mutex::default(),
        };
        PooledFile { disk, path, slot: Arc::new(slot) }
    }

    /// One that is open already.
    pub(crate) fn opened(files: &OpenFiles, disk: Arc<dyn Disk>, path: PathBuf, file: Arc<dyn DiskFile>) -> PooledFile {
        let pooled = PooledFile::new(files, disk, path);
        pooled.keep(file);
        pooled
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    /// The open file.
    pub(crate) fn get(&self) -> io::Result<Arc<dyn DiskFile>> {
        if let Some(file) = &*self.slot.open.read() {
            // Looked at first: a mark that is there already is not written again by every reader.
            if !self.slot.used.load(Ordering::Relaxed) {
                self.slot.used.store(true, Ordering::Relaxed);
            }
            return Ok(Arc::clone(file));
        }
        // Opened outside the lock: two threads may both open it, and one handle is dropped.
        let file = self.disk.open(&self.path, OpenMode::ReadWrite)?;
        Ok(self.keep(file))
    }

    fn keep(&self, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        let kept = Arc::clone(self.slot.open.write().get_or_insert(file));
        self.slot.used.store(true, Ordering::Relaxed);
        self.slot.pool.admit(&self.slot);
        kept
    }

    /// The open file, pinned, for a write that follows; also for one that cuts. Only from the thread that owns the log's tail.
    pub(crate) fn for_write(&self) -> io::Result<Arc<dyn DiskFile>> {
        // Pinned before it is looked up: what is written to is the handle that stays.
        self.slot.pin()?;
        self.get().inspect_err(|_| self.slot.forget_pin())
    }

    /// Makes everything durable that was written before, and lets the pool close the file unless more was written meanwhile.
    pub(crate) fn sync(&self) -> io::Result<()> {
        let written = self.slot.pins.lock().written;
        self.get()?.sync_data()?;
        self.slot.synced_up_to(written);
        Ok(())
    }

    /// Lets go of the handle, unless it has unsynced bytes; reads in progress keep theirs.
    pub(crate) fn close(&self) {
        let pins = self.slot.pins.lock();
        if !pins.pinned() {
            *self.slot.open.write() = None;
        }
    }

    /// Lets go of the handle of a file that was removed, whatever was written to it.
    pub(crate) fn discard(&self) {
        let written = self.slot.pins.lock().written;
        self.slot.synced_up_to(written);
        self.close();
    }
}

impl Pins {
    fn pinned(&self) -> bool {
        self.written != self.synced
    }
}

impl Slot {
    fn pin(&self) -> io::Result<()> {
        let mut pins = self.pins.lock();
        if !pins.pinned() && self.pool.pinned.fetch_add(1, Ordering::Relaxed) >= self.pool.max {
            self.pool.pinned.fetch_sub(1, Ordering::Relaxed);
            return Err(Errno::MFILE.into());
        }
        pins.written += 1;
        Ok(())
    }

    /// Takes the last pin back: nothing was written.
    fn forget_pin(&self) {
        let mut pins = self.pins.lock();
        pins.written -= 1;
        if !pins.pinned() {
            self.pool.pinned.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn synced_up_to(&self, written: u64) {
        let mut pins = self.pins.lock();
        if pins.synced < written {
            pins.synced = written;
            if !pins.pinned() {
                self.pool.pinned.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }

    /// Closes the file unless it is pinned or was used lately.
    fn give_up(&self) -> GivenUp {
        let pins = self.pins.lock();
        if self.open.read().is_none() {
            return GivenUp::Closed(None);
        }
        if pins.pinned() || self.used.swap(false, Ordering::Relaxed) {
            return GivenUp::Kept;
        }
        GivenUp::Closed(self.open.write().take())
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if self.pins.get_mut().pinned() {
            self.pool.pinned.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Files that a pool keeps open unless it is told otherwise: enough for what a gateway is busy with, and about a megabyte in the kernel.
pub const OPEN_FILES_DEFAULT_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::write_all_at;
    use crate::sim::SimDisk;
    use std::io::IoSlice;

    fn files(count: usize, files_max: usize) -> (SimDisk, OpenFiles, Vec<PooledFile>) {
        let (disk, pool) = (SimDisk::new(), OpenFiles::new(files_max));
        let paths = (0..count).map(|number| PathBuf::from(format!("/{number}.log")));
        let pooled = paths.map(|path| {
            disk.open(&path, OpenMode::CreateNew).expect("creates");
            PooledFile::new(&pool, Arc::new(disk.clone()), path)
        });
        let pooled = pooled.collect();
        (disk, pool, pooled)
    }

    fn write(file: &PooledFile) -> io::Result<()> {
        let handle = file.for_write()?;
        write_all_at(&*handle, &mut [IoSlice::new(b"batch")], 0)
    }

    fn is_open(file: &PooledFile) -> bool {
        file.slot.open.read().is_some()
    }

    #[test]
    fn no_more_files_are_open_than_the_bound_and_the_one_used_longest_ago_is_closed() {
        let (disk, pool, files) = files(10, 3);
        for file in &files {
            file.get().expect("opens");
            assert!(pool.files() <= 3 && disk.open_files() <= 3);
        }
        assert_eq!(files.iter().map(is_open).collect::<Vec<_>>(), [[false; 7].as_slice(), &[true; 3]].concat());
    }

    #[test]
    fn a_file_that_was_used_lately_is_passed_over() {
        let (_, _, files) = files(5, 3);
        // The fourth has taken all marks away and closed the first.
        files[..4].iter().for_each(|file| drop(file.get().expect("opens")));
        files[1].get().expect("is open");
        files[4].get().expect("opens");
        assert_eq!(files.iter().map(is_open).collect::<Vec<_>>(), [false, true, false, true, true]);
    }

    #[test]
    fn a_file_with_unsynced_bytes_stays_open_until_a_sync_has_covered_them() {
        let (disk, pool, files) = files(10, 2);
        write(&files[0]).expect("writes");
        for file in &files[1..] {
            file.get().expect("opens");
            file.close();
        }
        assert!(is_open(&files[0]) && pool.unsynced_files() == 1);
        files[0].close();
        assert!(is_open(&files[0]), "nobody closes it");
        // What was lost on the way to the disk is told of, because it is still the file that was written to.
        disk.fail_write_back(files[0].path());
        assert!(files[0].sync().is_err());
        files[1].get().expect("opens");
        files[2].get().expect("opens");
        assert!(is_open(&files[0]), "nor after a failed sync");

        write(&files[3]).expect("writes");
        files[3].sync().expect("syncs");
        assert_eq!(pool.unsynced_files(), 1);
        drop(files);
        assert_eq!((pool.unsynced_files(), disk.open_files()), (0, 0));
    }

    #[test]
    fn a_write_beside_a_sync_keeps_the_file_pinned() {
        let (_, pool, files) = files(1, 1);
        write(&files[0]).expect("writes");
        let covered = files[0].slot.pins.lock().written;
        write(&files[0]).expect("writes");
        files[0].slot.synced_up_to(covered);
        assert_eq!(pool.unsynced_files(), 1);
        files[0].sync().expect("syncs");
        assert_eq!(pool.unsynced_files(), 0);
    }

    #[test]
    fn when_all_are_pinned_a_writer_is_refused_and_a_reader_is_not() {
        let (disk, pool, files) = files(4, 2);
        write(&files[0]).expect("writes");
        assert!(!pool.is_crowded());
        write(&files[1]).expect("writes");
        assert!(pool.is_crowded());
        let refused = write(&files[2]).expect_err("two are pinned");
        assert!(crate::is_out_of_files(&refused), "{refused}");
        write(&files[0]).expect("it is one of the two");
        let handle = files[3].get().expect("opens");
        assert!(!is_open(&files[3]) && disk.open_files() == 3, "the reader alone has it");
        drop(handle);
        assert_eq!(disk.open_files(), 2);
        files[1].sync().expect("syncs");
        write(&files[2]).expect("there is room");
        assert_eq!((pool.unsynced_files(), disk.open_files()), (2, 2));
    }

    #[test]
    fn a_file_that_can_not_be_opened_is_not_pinned() {
        let (disk, pool, files) = files(1, 1);
        disk.remove_file(files[0].path()).expect("removes");
        assert!(write(&files[0]).is_err());
        assert_eq!(pool.unsynced_files(), 0);
    }

    #[test]
    fn threads_that_open_and_close_the_same_files_leave_no_more_than_the_bound() {
        let (disk, pool, files) = files(16, 4);
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let files = &files;
                scope.spawn(move || {
                    for round in 0..2_000 {
                        let file = &files[(round * 7 + thread * 3) % files.len()];
                        file.get().expect("opens");
                        // Each file has one writer.
                        if round % 5 == 0 {
                            let own = &files[thread * 4 + round % 4];
                            write(own).or_else(|error| if crate::is_out_of_files(&error) { Ok(()) } else { Err(error) }).expect("writes");
                            own.sync().expect("syncs");
                        }
                    }
                });
            }
        });
        assert_eq!(pool.unsynced_files(), 0);
        files[0].get().expect("opens");
        assert!(pool.files() <= 4 && disk.open_files() <= 4);
    }
}

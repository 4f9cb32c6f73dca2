//! A disk in memory that keeps what is live and what is durable apart, and fails on demand.
//!
//! Every file has the bytes that a running program sees, and the bytes that a power cut would leave for certain; the changes in between
//! wait for a sync. The names in a folder are kept in the same two ways. [`SimDisk::crash`] cuts the power: of the changes that nobody
//! synced, a part survives that depends on the seed alone, in whole sectors, in no order: each as some write of it has left it. What was
//! synced survives.
//!
//! Faults are set beforehand: the nth operation of a kind fails ([`SimDisk::fail`]), the disk has so many bytes and no more
//! ([`SimDisk::limit_bytes`]), or so many files ([`SimDisk::limit_names`]), writes come back short ([`SimDisk::shorten_writes`]), the power
//! goes after so many changes ([`SimDisk::cut_power_after`]), parts of a file can't be read ([`SimDisk::make_unreadable`]). A failed sync loses what it should have made durable, as Linux
//! does: bytes for good, or until something is written to their sector again; names until their folder changes again.
//!
//! [`HookedDisk`] stands before any disk, and lets a test do something else first.
//!
//! The simulation is deterministic: the same calls in the same order with the same seeds leave the same bytes.

mod crash;
mod faults;
mod hooked;
mod random;
mod tree;

use std::ffi::OsString;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::disk::{Disk, DiskFile, OpenMode};
use crate::error::is_out_of_files;

pub use faults::{Fault, Operation};
pub use hooked::HookedDisk;
pub use random::Random;

use faults::{Faults, Verdict};
use tree::{Change, Id, Rename, Tree};

/// A simulated disk. Clones are handles to the same one.
#[derive(Clone, Debug, Default)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    tree: Tree,
    faults: Faults,
    /// Counts the crashes. A file that was opened before the last one is of no use.
    boot: u64,
    /// Open files.
    handles: usize,
    /// Calls that asked for room ahead.
    allocations: u64,
}

impl SimDisk {
    /// An empty disk without faults.
    pub fn new() -> SimDisk {
        SimDisk::default()
    }

    /// Cuts the power and starts again. What was synced is there, and of the rest what the seed chooses. Open files become useless, and
    /// all faults are forgotten. The counts go on.
    pub fn crash(&self, seed: u64) {
        let mut state = self.state.lock();
        state.tree.crash(&mut Random::new(seed));
        state.faults.forget();
        state.boot += 1;
    }

    /// Makes the `nth` operation of this kind from now on fail; 1 is the next. A write that fails may have written a part before.
    pub fn fail(&self, operation: Operation, nth: u64, fault: Fault) {
        self.state.lock().faults.fail(operation, nth, fault);
    }

    /// Takes back the failures of this kind that were planned and have not come.
    pub fn forget_failures(&self, operation: Operation) {
        self.state.lock().faults.forget_planned(operation);
    }

    /// Whether the last operation of this kind was one that was to fail.
    pub fn has_just_failed(&self, operation: Operation) -> bool {
        self.state.lock().faults.has_just_failed(operation)
    }

    /// Gives the disk this many bytes for all files together. A write that does not fit is cut short, and fails with "no space" if
    /// nothing of it fits. None lifts the limit.
    pub fn limit_bytes(&self, bytes: Option<u64>) {
        self.state.lock().faults.capacity = bytes;
    }

    /// Lets there be this many files and folders, as a file system has so many inodes. Creating one more fails with "no space". None lifts
    /// the limit.
    pub fn limit_names(&self, names: Option<u64>) {
        self.state.lock().faults.names_max = names;
    }

    /// What all files together have.
    pub fn used_bytes(&self) -> u64 {
        self.state.lock().tree.used().bytes
    }

    /// How many files and folders there are.
    pub fn used_names(&self) -> u64 {
        self.state.lock().tree.used().names
    }

    /// Makes writes write only a part of what they are given, and say so. The seed chooses which and how much. None ends it.
    pub fn shorten_writes(&self, seed: Option<u64>) {
        self.state.lock().faults.short_writes = seed.map(Random::new);
    }

    /// Lets this many more operations change something. The power goes at the next one: it and everything after it, reads too, fails and
    /// changes nothing, until [`SimDisk::crash`].
    pub fn cut_power_after(&self, changes: u64) {
        self.state.lock().faults.changes_left = Some(changes);
    }

    /// Whether the power is on.
    pub fn is_powered(&self) -> bool {
        self.state.lock().faults.powered()
    }

    /// How many operations of this kind there have been since the disk was made, failed ones included.
    pub fn count(&self, operation: Operation) -> u64 {
        self.state.lock().faults.count(operation)
    }

    /// How many files are open.
    pub fn open_files(&self) -> usize {
        self.state.lock().handles
    }

    /// Loses what was written to a file and not synced, on its way to the disk: it stays readable, and is never durable. Those who have
    /// the file open hear of it at their next sync, once; who opens it later does not.
    ///
    /// # Panics
    ///
    /// If there is no such file.
    pub fn fail_write_back(&self, path: &Path) {
        let mut state = self.state.lock();
        let id = state.tree.find(path);
        let file = id.and_then(|id| state.tree.file(id));
        let file = file.unwrap_or_else(|error| panic!("a test names a file that is there: {}: {error}", path.display()));
        file.forget_changes();
        file.lost_write_backs += 1;
    }

    /// The live bytes of a file.
    pub fn bytes(&self, path: &Path) -> io::Result<Vec<u8>> {
        let mut state = self.state.lock();
        let id = state.tree.find(path)?;
        Ok(state.tree.file(id)?.live.clone())
    }

    /// How far a file has room on the disk, by the calls that asked for it ahead; 0 if none did, or all was given back.
    ///
    /// # Panics
    ///
    /// If there is no such file.
    pub fn allocated_bytes(&self, path: &Path) -> u64 {
        let mut state = self.state.lock();
        let id = state.tree.find(path);
        let file = id.and_then(|id| state.tree.file(id));
        file.unwrap_or_else(|error| panic!("a test names a file that is there: {}: {error}", path.display())).allocated
    }

    /// How often room was asked for ahead.
    pub fn allocations(&self) -> u64 {
        self.state.lock().allocations
    }

    /// Makes every read of a file fail with a device error that touches some of these bytes, whatever becomes of its name, and through
    /// crashes, until it is told otherwise. No ranges let all of it be read again.
    ///
    /// # Panics
    ///
    /// If there is no such file.
    pub fn make_unreadable(&self, path: &Path, ranges: &[Range<u64>]) {
        let mut state = self.state.lock();
        let id = state.tree.find(path);
        let file = id.and_then(|id| state.tree.file(id));
        let file = file.unwrap_or_else(|error| panic!("a test names a file that is there: {}: {error}", path.display()));
        file.unreadable = ranges.to_vec();
    }

    /// Changes the bytes of a file behind everybody's back, live and durable ones.
    ///
    /// # Panics
    ///
    /// If there is no such file.
    pub fn damage(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.state.lock();
        let id = state.tree.find(path);
        let file = id.and_then(|id| state.tree.file(id));
        let file = file.unwrap_or_else(|error| panic!("a test damages a file that is there: {}: {error}", path.display()));
        change(&mut file.live);
        file.sync();
        file.durable = file.live.clone();
    }
}

impl State {
    fn refuse(&mut self, operation: Operation) -> io::Result<()> {
        match self.faults.judge(operation) {
            Verdict::Go => Ok(()),
            Verdict::Fail(error) => Err(error),
        }
    }
}

impl Disk for SimDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state.lock();
        let there = state.tree.find(path);
        let id = match (mode, there) {
            (OpenMode::Read | OpenMode::ReadWrite, Ok(id)) => {
                state.refuse(Operation::Read)?;
                id
            }
            (OpenMode::Read | OpenMode::ReadWrite, Err(error)) => return Err(error),
            (OpenMode::CreateNew, Ok(_)) => return Err(io::ErrorKind::AlreadyExists.into()),
            (OpenMode::Replace, Ok(id)) => {
                state.refuse(Operation::SetLen)?;
                state.tree.file(id)?.change(Change::SetLen(0));
                id
            }
            (OpenMode::CreateNew | OpenMode::Replace, Err(_)) => {
                state.refuse(Operation::Create)?;
                state.room_for_name()?;
                state.tree.create_file(path)?
            }
        };
        // A folder can't be opened as a file.
        let heard_of = AtomicU64::new(state.tree.file(id)?.lost_write_backs);
        let writable = mode != OpenMode::Read;
        state.handles += 1;
        Ok(Arc::new(SimFile { state: Arc::clone(&self.state), id, boot: state.boot, writable, heard_of }))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        if state.tree.find(path).is_ok() {
            return Ok(());
        }
        state.refuse(Operation::Create)?;
        state.room_for_name()?;
        state.tree.create_folders(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<OsString>> {
        let mut state = self.state.lock();
        state.refuse(Operation::Read)?;
        let id = state.tree.find(path)?;
        Ok(state.tree.folder(id)?.live.keys().cloned().collect())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.refuse(Operation::Rename)?;
        state.tree.rename(&Rename::of(from, to)?)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.refuse(Operation::Remove)?;
        let id = state.tree.find(path)?;
        state.tree.file(id)?;
        state.tree.unlink(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.refuse(Operation::Remove)?;
        state.tree.remove_folder(path)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        let mut state = self.state.lock();
        state.refuse(Operation::Read)?;
        Ok(state.tree.find(path).is_ok())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        let verdict = state.refuse(Operation::SyncDir);
        let powered = state.faults.powered();
        let id = state.tree.find(path)?;
        let folder = state.tree.folder(id)?;
        match &verdict {
            Ok(()) => folder.sync(),
            // The folder could not even be opened.
            Err(error) if is_out_of_files(error) => {}
            Err(_) if powered => folder.forget_changes(),
            Err(_) => {}
        }
        verdict
    }

    fn free_bytes(&self, _path: &Path) -> io::Result<Option<u64>> {
        let state = self.state.lock();
        Ok(state.faults.capacity.map(|capacity| capacity.saturating_sub(state.tree.used().bytes)))
    }
}

#[derive(Debug)]
struct SimFile {
    state: Arc<Mutex<State>>,
    id: Id,
    boot: u64,
    writable: bool,
    /// How many of the file's lost write-backs this handle was told of, or is too young for.
    heard_of: AtomicU64,
}

impl Drop for SimFile {
    fn drop(&mut self) {
        self.state.lock().handles -= 1;
    }
}

impl SimFile {
    fn with<T>(&self, act: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.state.lock();
        if state.boot != self.boot {
            return Err(io::Error::other("this file was opened before the crash"));
        }
        act(&mut state)
    }
}

impl DiskFile for SimFile {
    fn read_at(&self, into: &mut Vec<u8>, bytes_max: usize, at: u64) -> io::Result<usize> {
        self.with(|state| {
            state.refuse(Operation::Read)?;
            let file = state.tree.file(self.id)?;
            let start = usize::try_from(at).unwrap_or(usize::MAX).min(file.live.len());
            let found = &file.live[start..file.live.len().min(start.saturating_add(bytes_max))];
            let end = at.saturating_add(found.len() as u64);
            if file.unreadable.iter().any(|range| range.start < end && at < range.end) {
                return Err(Fault::Device.error());
            }
            into.extend_from_slice(found);
            Ok(found.len())
        })
    }

    fn write_vectored_at(&self, buffers: &[IoSlice<'_>], at: u64) -> io::Result<usize> {
        if !self.writable {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        self.with(|state| {
            let verdict = state.refuse(Operation::Write);
            let powered = state.faults.powered();
            let mut bytes: Vec<u8> = buffers.iter().flat_map(|buffer| buffer.iter().copied()).collect();
            if verdict.is_err() {
                // What a failed write has written before it failed.
                bytes.truncate(if powered { bytes.len() / 2 } else { 0 });
                state.tree.file(self.id)?.write(at, bytes);
                return verdict.map(|()| 0);
            }
            let wanted = bytes.len();
            let room = state.room_at(self.id, at)?;
            bytes.truncate(usize::try_from(room).unwrap_or(usize::MAX));
            if bytes.is_empty() && wanted > 0 {
                return Err(Fault::NoSpace.error());
            }
            let written = end_with_sector(at, state.faults.shorten(bytes.len()), bytes.len());
            bytes.truncate(written);
            state.tree.file(self.id)?.write(at, bytes);
            Ok(written)
        })
    }

    fn size_bytes(&self) -> io::Result<u64> {
        self.with(|state| {
            state.refuse(Operation::Read)?;
            Ok(state.tree.file(self.id)?.live.len() as u64)
        })
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.with(|state| {
            state.refuse(Operation::SetLen)?;
            state.tree.file(self.id)?.change(Change::SetLen(bytes));
            Ok(())
        })
    }

    // Neither is an operation that can be made to fail: whoever asks for a hint makes nothing of a failure.
    fn allocate(&self, end: u64) -> io::Result<()> {
        self.with(|state| {
            state.allocations += 1;
            let room = state.room_at(self.id, 0)?;
            let file = state.tree.file(self.id)?;
            if end > room {
                return Err(Fault::NoSpace.error());
            }
            file.allocated = file.allocated.max(end);
            Ok(())
        })
    }

    fn release(&self) -> io::Result<()> {
        self.with(|state| {
            state.tree.file(self.id)?.allocated = 0;
            Ok(())
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.with(|state| {
            let verdict = state.refuse(Operation::Sync);
            let powered = state.faults.powered();
            let file = state.tree.file(self.id)?;
            if self.heard_of.swap(file.lost_write_backs, Ordering::Relaxed) < file.lost_write_backs {
                return Err(Fault::Device.error());
            }
            match verdict {
                Ok(()) => file.sync(),
                // The kernel marks what it could not write as clean: it stays readable, and no later sync writes it.
                Err(_) if powered => file.forget_changes(),
                Err(_) => {}
            }
            verdict
        })
    }
}

impl State {
    /// How many bytes a write to this file from `at` on may have, before the disk is full.
    fn room_at(&mut self, id: Id, at: u64) -> io::Result<u64> {
        let Some(capacity) = self.faults.capacity else { return Ok(u64::MAX) };
        let size = self.tree.file(id)?.room_bytes();
        let free = capacity.saturating_sub(self.tree.used().bytes);
        Ok(size.saturating_sub(at).saturating_add(free))
    }

    fn room_for_name(&self) -> io::Result<()> {
        match self.faults.names_max {
            Some(names_max) if self.tree.used().names >= names_max => Err(Fault::NoSpace.error()),
            _ => Ok(()),
        }
    }
}

/// A write that is cut short ends with a sector, as a system's does: a part of one would be another write of the same sector, and a power
/// cut could take one of the two.
fn end_with_sector(at: u64, written: usize, wanted: usize) -> usize {
    if written == wanted {
        return wanted;
    }
    let behind = usize::try_from((at + written as u64) % crash::SECTOR_BYTES).unwrap_or(0);
    if written > behind { written - behind } else { wanted }
}

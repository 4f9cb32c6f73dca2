//! The two sparse indexes of a segment, in Kafka's layout, and the rule that says when an entry is due.
//!
//! An index promises little: an entry is a place to start looking from, never the answer. Whoever follows one compares it with the
//! batch that it names. So an index may be late, short or damaged, and the worst of it is a longer walk.
//!
//! The newest entries of the segment that is written to are kept in memory, and move to the file some hundreds at a time: an append
//! needs no second write, and an idle log keeps only a few kilobytes. Index files are synced when their segment is closed.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use millpond_protocol::batch::BatchHeader;
use parking_lot::RwLock;

use crate::disk::{Disk, DiskFile, OpenMode, write_all_at};

/// An entry of fixed size. Entries of one file rise strictly by their key.
pub(crate) trait Entry: Copy + std::fmt::Debug {
    const BYTES: usize;
    fn key(&self) -> i64;
    fn encode(&self, into: &mut Vec<u8>);
    /// From exactly [`Self::BYTES`] bytes.
    fn decode(bytes: &[u8]) -> Self;
}

/// The batch whose last offset is this begins at that position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OffsetEntry {
    /// Last offset of the batch, less the base offset of the segment. At most `i32::MAX`.
    pub(crate) relative_offset: u32,
    /// Where the batch begins in the `.log`. At most `i32::MAX`.
    pub(crate) position: u32,
}

impl Entry for OffsetEntry {
    const BYTES: usize = 8;

    fn key(&self) -> i64 {
        i64::from(self.relative_offset)
    }

    fn encode(&self, into: &mut Vec<u8>) {
        into.extend_from_slice(&self.relative_offset.to_be_bytes());
        into.extend_from_slice(&self.position.to_be_bytes());
    }

    fn decode(bytes: &[u8]) -> OffsetEntry {
        OffsetEntry { relative_offset: u32_at(bytes, 0), position: u32_at(bytes, 4) }
    }
}

/// No batch before the one whose last offset is this has a timestamp as large as that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TimeEntry {
    /// The largest timestamp up to and including the batch, in milliseconds since 1970.
    pub(crate) timestamp: i64,
    /// Last offset of the batch that brought it, less the base offset of the segment.
    pub(crate) relative_offset: u32,
}

impl Entry for TimeEntry {
    const BYTES: usize = 12;

    fn key(&self) -> i64 {
        self.timestamp
    }

    fn encode(&self, into: &mut Vec<u8>) {
        into.extend_from_slice(&self.timestamp.to_be_bytes());
        into.extend_from_slice(&self.relative_offset.to_be_bytes());
    }

    fn decode(bytes: &[u8]) -> TimeEntry {
        let high = u64::from(u32_at(bytes, 0));
        let low = u64::from(u32_at(bytes, 4));
        TimeEntry { timestamp: (high << 32 | low).cast_signed(), relative_offset: u32_at(bytes, 8) }
    }
}

/// Entries for both indexes.
#[derive(Debug, Default)]
pub(crate) struct Entries {
    pub(crate) offsets: Vec<OffsetEntry>,
    pub(crate) times: Vec<TimeEntry>,
}

/// Decides which batches get an entry, as Kafka's `LogSegment` does, from the batches of one segment in their order.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Indexer {
    pub(crate) base_offset: i64,
    pub(crate) interval_bytes: u64,
    /// Bytes of batches since the last entry of the offset index, or since the start of the segment.
    pub(crate) bytes_since_entry: u64,
    /// The largest timestamp so far, and the last offset of the batch that brought it.
    pub(crate) max_timestamp: i64,
    pub(crate) offset_of_max: i64,
    /// The timestamp in the last entry of the time index.
    pub(crate) timestamp_indexed: i64,
}

impl Indexer {
    pub(crate) fn new(base_offset: i64, index_interval_bytes: u32) -> Indexer {
        Indexer {
            base_offset,
            interval_bytes: u64::from(index_interval_bytes),
            bytes_since_entry: 0,
            max_timestamp: NO_TIMESTAMP,
            offset_of_max: base_offset,
            timestamp_indexed: NO_TIMESTAMP,
        }
    }

    /// Takes the next batch into account. `header` has the base offset that the batch has in the file.
    pub(crate) fn add(&mut self, header: &BatchHeader, position: u64, entries: &mut Entries) {
        let last_offset = header.base_offset + i64::from(header.last_offset_delta);
        if header.max_timestamp > self.max_timestamp {
            self.max_timestamp = header.max_timestamp;
            self.offset_of_max = last_offset;
        }
        if self.bytes_since_entry > self.interval_bytes {
            // A position or an offset too large for Kafka's 31 bits gets no entry: an index may be short, but never wrong. Only a
            // file from elsewhere can have one.
            if let (Some(relative_offset), Ok(place)) = (self.relative(last_offset), i32::try_from(position)) {
                entries.offsets.push(OffsetEntry { relative_offset, position: place.unsigned_abs() });
            }
            entries.times.extend(self.time_entry());
            self.bytes_since_entry = 0;
        }
        self.bytes_since_entry += header.total_bytes() as u64;
    }

    /// The last entry of the time index, which a segment gets when it is closed. None if the index says the same already.
    pub(crate) fn time_entry(&mut self) -> Option<TimeEntry> {
        if self.max_timestamp <= self.timestamp_indexed {
            return None;
        }
        let entry = TimeEntry { timestamp: self.max_timestamp, relative_offset: self.relative(self.offset_of_max)? };
        self.timestamp_indexed = self.max_timestamp;
        Some(entry)
    }

    /// The largest timestamp so far; [`NO_TIMESTAMP`] if no batch had a larger one than that.
    pub(crate) fn max_timestamp(&self) -> i64 {
        self.max_timestamp
    }

    fn relative(&self, offset: i64) -> Option<u32> {
        i32::try_from(offset - self.base_offset).ok().and_then(|relative| u32::try_from(relative).ok())
    }
}

/// One index of one segment: a file, and behind it the entries that are not in the file yet.
#[derive(Debug)]
pub(crate) struct Index<E> {
    file: LazyFile,
    state: RwLock<State<E>>,
    /// Whether it was said that an entry does not match its batch.
    is_said: AtomicBool,
}

#[derive(Debug)]
struct State<E> {
    /// Entries in the file.
    spilled: u64,
    /// The entries that follow them.
    pending: Vec<E>,
    /// How many of these are enough for a write to be worth its while. After one that has failed, as on a full disk, more have to gather.
    spill_at: usize,
    /// Whether the file may hold something that no sync has covered.
    unsynced: bool,
    /// Whether a sync has failed: what the file holds may never reach the disk.
    doubtful: bool,
}

impl<E: Entry> Index<E> {
    /// An index whose file has `spilled` entries, with `pending` entries behind them.
    pub(crate) fn new(file: LazyFile, spilled: u64, pending: Vec<E>) -> Index<E> {
        let state = State { spilled, pending, spill_at: PENDING_ENTRIES_MAX, unsynced: true, doubtful: false };
        Index { file, state: RwLock::new(state), is_said: AtomicBool::new(false) }
    }

    /// An index whose file is durable.
    pub(crate) fn durable(file: LazyFile, spilled: u64) -> Index<E> {
        let state = State { spilled, pending: Vec::new(), spill_at: PENDING_ENTRIES_MAX, unsynced: false, doubtful: false };
        Index { file, state: RwLock::new(state), is_said: AtomicBool::new(false) }
    }

    /// How many entries there are, in the file and behind it.
    pub(crate) fn entries(&self) -> u64 {
        let state = self.state.read();
        state.spilled + state.pending.len() as u64
    }

    /// Says that an entry does not match its batch: once for each opening, for every lookup may meet it again. A lookup then walks.
    pub(crate) fn say_mismatch(&self, entry: E) {
        if !self.is_said.swap(true, Ordering::Relaxed) {
            tracing::warn!(path = %self.path().display(), ?entry, "an index entry does not match its batch; lookups there take longer");
        }
    }

    pub(crate) fn path(&self) -> &Path {
        self.file.path()
    }

    /// Adds entries, in memory. Only the thread that owns the log's tail may call it.
    pub(crate) fn push(&self, entries: &[E]) {
        if !entries.is_empty() {
            self.state.write().pending.extend_from_slice(entries);
        }
    }

    /// Whether enough entries wait for a write to be worth its while.
    pub(crate) fn wants_spill(&self) -> bool {
        let state = self.state.read();
        state.pending.len() >= state.spill_at
    }

    /// Moves the entries in memory to the file. Not from two threads at once: the owner of the tail calls it while the segment is
    /// written to, and the flush after that. After an error the entries are where they were.
    pub(crate) fn spill(&self) -> io::Result<()> {
        let (bytes, at, count) = {
            let state = self.state.read();
            (encode(&state.pending), state.spilled * E::BYTES as u64, state.pending.len())
        };
        if count == 0 {
            return Ok(());
        }
        self.state.write().unsynced = true;
        let written = self.file.get().and_then(|file| write_all_at(&*file, &mut [IoSlice::new(&bytes)], at));
        // Not kept open: that would be two descriptors more for each log, for a write every few megabytes of batches.
        self.file.close();
        let mut state = self.state.write();
        state.spill_at = if written.is_ok() { PENDING_ENTRIES_MAX } else { count + PENDING_ENTRIES_MAX };
        written?;
        state.spilled += count as u64;
        // A new vector, so that a closed segment gives its memory back.
        state.pending = Vec::new();
        Ok(())
    }

    /// Moves all entries to the file, makes them durable, and closes the file until it is needed again. After a failed sync it never
    /// works again: another sync would find nothing to write and say that all is well.
    pub(crate) fn settle(&self) -> io::Result<()> {
        self.spill()?;
        let (unsynced, doubtful) = {
            let state = self.state.read();
            (state.unsynced, state.doubtful)
        };
        if doubtful {
            return Err(io::Error::other("an earlier sync of this file failed"));
        }
        if unsynced {
            self.file.get()?.sync_data().inspect_err(|_| self.state.write().doubtful = true)?;
            self.file.close();
            self.state.write().unsynced = false;
        }
        Ok(())
    }

    /// Cuts off what is in the file behind the entries. From the thread that owns the log's tail.
    pub(crate) fn trim(&self) -> io::Result<()> {
        let bytes = {
            let mut state = self.state.write();
            state.unsynced = true;
            state.spilled * E::BYTES as u64
        };
        let cut = self.file.get().and_then(|file| file.set_len(bytes));
        self.file.close();
        cut
    }

    /// The last entry whose key is not above `key`; None where there is none, or where the file can't be read.
    pub(crate) fn lookup(&self, key: i64) -> Option<E> {
        let spilled = {
            let state = self.state.read();
            let before = state.pending.partition_point(|entry| entry.key() <= key);
            match before.checked_sub(1) {
                Some(last) => return state.pending.get(last).copied(),
                None => state.spilled,
            }
        };
        // No lock is held over the reads: entries in a file stay as they are.
        let found = self.lookup_in_file(key, spilled);
        self.file.close();
        found.unwrap_or_else(|error| {
            tracing::warn!(path = %self.path().display(), %error, "an index can't be read; looking from the start of the segment instead");
            None
        })
    }

    fn lookup_in_file(&self, key: i64, spilled: u64) -> io::Result<Option<E>> {
        if spilled == 0 {
            return Ok(None);
        }
        let file = self.file.get()?;
        let (mut low, mut high) = (0, spilled);
        let mut bytes = Vec::new();
        // Halves by single entries down to a block that one read fetches. Invariant: entries before `low` are not above the key,
        // those from `high` on are; `low` itself goes into the block, so the answer is the block's or the one before it.
        while high - low > BLOCK_ENTRIES {
            let middle = low + (high - low) / 2;
            bytes.clear();
            if file.read_at(&mut bytes, E::BYTES, middle * E::BYTES as u64)? < E::BYTES || E::decode(&bytes).key() > key {
                high = middle;
            } else {
                low = middle;
            }
        }
        bytes.clear();
        let block_bytes = usize::try_from(high - low).unwrap_or(usize::MAX).saturating_mul(E::BYTES);
        file.read_at(&mut bytes, block_bytes, low * E::BYTES as u64)?;
        Ok(bytes.chunks_exact(E::BYTES).map(E::decode).take_while(|entry| entry.key() <= key).last())
    }
}

/// A file that is opened when it is first needed.
#[derive(Debug)]
pub(crate) struct LazyFile {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    open: RwLock<Option<Arc<dyn DiskFile>>>,
}

impl LazyFile {
    pub(crate) fn new(disk: Arc<dyn Disk>, path: PathBuf) -> LazyFile {
        LazyFile { disk, path, open: RwLock::new(None) }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn get(&self) -> io::Result<Arc<dyn DiskFile>> {
        if let Some(file) = &*self.open.read() {
            return Ok(Arc::clone(file));
        }
        // Opened outside the lock: two threads may both open it, and one handle is dropped.
        let file = self.disk.open(&self.path, OpenMode::ReadWrite)?;
        Ok(Arc::clone(self.open.write().get_or_insert(file)))
    }

    /// Lets go of the handle; reads in progress keep theirs.
    pub(crate) fn close(&self) {
        *self.open.write() = None;
    }
}

/// Entries as they are in a file.
pub(crate) fn encode<E: Entry>(entries: &[E]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(entries.len() * E::BYTES);
    for entry in entries {
        entry.encode(&mut bytes);
    }
    bytes
}

/// The timestamp of a batch that has none. Kafka's time index knows no smaller one.
pub(crate) const NO_TIMESTAMP: i64 = -1;

/// Entries that may wait in memory before they are written: 4 KiB of offsets, 6 KiB of times, for 2 MiB of batches at Kafka's interval.
const PENDING_ENTRIES_MAX: usize = 512;

/// Entries that a lookup reads at once at the end of its search: a page of offsets.
const BLOCK_ENTRIES: u64 = 512;

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let field: [u8; 4] =
        bytes[at..at + 4].try_into().unwrap_or_else(|error| unreachable!("a slice of four bytes is four bytes long: {error}"));
    u32::from_be_bytes(field)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::SimDisk;

    fn index_with(count: u32, spilled: u32) -> Index<OffsetEntry> {
        let disk = SimDisk::new();
        let path = PathBuf::from("/00.index");
        disk.open(&path, OpenMode::CreateNew).expect("creates");
        let index = Index::new(LazyFile::new(Arc::new(disk), path), 0, Vec::new());
        for number in 0..count {
            index.push(&[OffsetEntry { relative_offset: number * 10, position: number * 100 }]);
            if number + 1 == spilled {
                index.spill().expect("writes");
            }
        }
        index
    }

    #[test]
    fn a_lookup_finds_the_last_entry_not_above_the_key_in_memory_and_in_the_file() {
        for (count, spilled) in [(0, 0), (1, 0), (1, 1), (700, 0), (2000, 2000), (2000, 1999), (2000, 777)] {
            let index = index_with(count, spilled);
            for key in -1..i64::from(count) * 10 + 15 {
                let expected = if key < 0 || count == 0 { None } else { Some((key / 10).min(i64::from(count) - 1)) };
                let found = index.lookup(key).map(|entry| i64::from(entry.position) / 100);
                assert_eq!(found, expected, "{count} entries, {spilled} of them in the file, key {key}");
            }
        }
    }

    #[test]
    fn on_a_full_disk_a_write_is_not_tried_again_with_every_entry() {
        let path = PathBuf::from("/00.index");
        let disk = SimDisk::new();
        disk.open(&path, OpenMode::CreateNew).expect("creates");
        disk.limit_bytes(Some(0));
        let full = Index::new(LazyFile::new(Arc::new(disk.clone()), path), 0, Vec::new());
        let mut tries = 0;
        for number in 0..3_000 {
            let entry = OffsetEntry { relative_offset: number, position: number };
            full.push(&[entry]);
            if full.wants_spill() {
                full.spill().expect_err("there is no room");
                tries += 1;
            }
        }
        assert_eq!((tries, full.entries()), (5, 3_000));
        disk.limit_bytes(None);
        full.push(&[OffsetEntry { relative_offset: 3_000, position: 3_000 }; 100]);
        assert!(full.wants_spill() && full.spill().is_ok() && !full.wants_spill());
    }

    #[test]
    fn entries_are_big_endian() {
        let mut bytes = Vec::new();
        OffsetEntry { relative_offset: 0x0102_0304, position: 0x0506_0708 }.encode(&mut bytes);
        TimeEntry { timestamp: -2, relative_offset: 9 }.encode(&mut bytes);
        assert_eq!(bytes[..8], [1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(bytes[8..], [255, 255, 255, 255, 255, 255, 255, 254, 0, 0, 0, 9]);
        assert_eq!(OffsetEntry::decode(&bytes[..8]).position, 0x0506_0708);
        assert_eq!(TimeEntry::decode(&bytes[8..]), TimeEntry { timestamp: -2, relative_offset: 9 });
    }

    #[test]
    fn an_index_whose_file_is_gone_finds_nothing() {
        let index = index_with(100, 100);
        index.file.close();
        index.file.disk.remove_file(Path::new("/00.index")).expect("removes");
        assert_eq!(index.lookup(500), None);
    }
}

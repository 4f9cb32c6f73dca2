//! The entries of index files, read a page at a time, and what is wrong with them.
//!
//! The rules are those of Kafka's sanity check (`OffsetIndex.sanityCheck`, `TimeIndex.sanityCheck`: whole entries, none before the
//! segment), and more: entries rise, and each one names a batch that is there and is as it says.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use millpond_protocol::batch::BatchHeader;
use thiserror::Error;

use crate::disk::{Disk, DiskFile, OpenMode};
use crate::error::LogError;
use crate::index::{Entry, NO_TIMESTAMP, OffsetEntry, TimeEntry};

/// An entry of an index file, with its offset in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IndexEntry {
    /// Of an `.index`: the batch whose last offset this is begins at that position of the `.log`.
    Offset {
        /// Last offset of the batch.
        offset: i64,
        /// Bytes from the start of the `.log`.
        position: u64,
    },
    /// Of a `.timeindex`: no batch up to the one whose last offset this is has a larger timestamp than that.
    Time {
        /// Milliseconds since 1970-01-01 UTC.
        timestamp: i64,
        /// Last offset of the batch that brought the timestamp.
        offset: i64,
    },
}

/// What is wrong with an index file.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum IndexFault {
    /// The file is gone.
    #[error("the index is missing")]
    Missing,
    /// The file ends inside an entry.
    #[error("{bytes} bytes are left over behind the entries of {entry_bytes} bytes each")]
    EntryCutOff {
        /// How many.
        bytes: u64,
        /// Bytes of one entry.
        entry_bytes: usize,
    },
    /// An entry is not above the one before it.
    #[error("the entries do not rise")]
    NotRising,
    /// An entry of the offset index names no batch.
    #[error("the entry says that the batch at byte {position} ends with offset {offset}, which it does not")]
    NoSuchBatch {
        /// The offset in the entry.
        offset: i64,
        /// The position in the entry.
        position: u64,
    },
    /// An entry of the time index does not say what the batches say.
    #[error("the entry says that {timestamp} is the largest timestamp up to offset {offset}, and brought by that batch, which it is not")]
    NotTheLargest {
        /// The timestamp in the entry, in milliseconds since 1970-01-01 UTC.
        timestamp: i64,
        /// The offset in the entry.
        offset: i64,
    },
    /// The time index of a closed segment ends too early, so that a lookup by time can miss records.
    #[error("the last entry has timestamp {indexed}, but the segment holds {largest}")]
    EndsEarly {
        /// The timestamp in the last entry; -1 if there is none.
        indexed: i64,
        /// The largest timestamp of the segment.
        largest: i64,
    },
}

/// The entries of one index file, in the order of the file.
#[derive(Debug)]
pub struct IndexWalk {
    pages: Pages,
    base_offset: i64,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Offset,
    Time,
}

impl IndexWalk {
    /// Opens an index file by its extension, `index` or `timeindex`, of the segment that begins with `base_offset`.
    ///
    /// # Errors
    ///
    /// [`LogError::Io`] if the file can't be opened or measured.
    pub fn open(disk: &dyn Disk, path: &Path, base_offset: i64) -> Result<IndexWalk, LogError> {
        let is_time = path.extension().is_some_and(|extension| extension == crate::folder::TIME_INDEX);
        let (kind, entry_bytes) = if is_time { (Kind::Time, TimeEntry::BYTES) } else { (Kind::Offset, OffsetEntry::BYTES) };
        Ok(IndexWalk { pages: Pages::open(disk, path, entry_bytes)?, base_offset, kind })
    }

    /// The next entry and where it is in the file; None behind the last whole one.
    ///
    /// # Errors
    ///
    /// [`LogError::Io`] if the file can't be read.
    pub fn next_entry(&mut self) -> Result<Option<(u64, IndexEntry)>, LogError> {
        let position = self.pages.position;
        let (kind, base_offset) = (self.kind, self.base_offset);
        let offset = |relative: u32| base_offset.saturating_add(i64::from(relative));
        let Some(bytes) = self.pages.next_entry()? else { return Ok(None) };
        Ok(Some(match kind {
            Kind::Offset => {
                let entry = OffsetEntry::decode(bytes);
                (position, IndexEntry::Offset { offset: offset(entry.relative_offset), position: u64::from(entry.position) })
            }
            Kind::Time => {
                let entry = TimeEntry::decode(bytes);
                (position, IndexEntry::Time { timestamp: entry.timestamp, offset: offset(entry.relative_offset) })
            }
        }))
    }

    /// Bytes behind the last whole entry.
    pub fn left_over_bytes(&self) -> u64 {
        self.pages.end % self.pages.entry_bytes as u64
    }

    /// Bytes of one entry.
    pub fn entry_bytes(&self) -> usize {
        self.pages.entry_bytes
    }
}

/// A file of entries, read a page at a time.
#[derive(Debug)]
struct Pages {
    file: Arc<dyn DiskFile>,
    path: PathBuf,
    entry_bytes: usize,
    end: u64,
    /// Where the next entry is.
    position: u64,
    page: Vec<u8>,
    page_at: u64,
}

impl Pages {
    fn open(disk: &dyn Disk, path: &Path, entry_bytes: usize) -> Result<Pages, LogError> {
        let opened = disk.open(path, OpenMode::Read).and_then(|file| file.size_bytes().map(|bytes| (file, bytes)));
        let (file, end) = opened.map_err(|source| LogError::io("open", path, source))?;
        Ok(Pages { file, path: path.to_path_buf(), entry_bytes, end, position: 0, page: Vec::new(), page_at: 0 })
    }

    fn next_entry(&mut self) -> Result<Option<&[u8]>, LogError> {
        let behind = self.position + self.entry_bytes as u64;
        if behind > self.end {
            return Ok(None);
        }
        if behind > self.page_at + self.page.len() as u64 {
            self.page.clear();
            let read = self.file.read_at(&mut self.page, self.entry_bytes * ENTRIES_READ_AT_ONCE, self.position);
            read.map_err(|source| LogError::io("read", &self.path, source))?;
            self.page_at = self.position;
        }
        let skip = usize::try_from(self.position - self.page_at).unwrap_or(usize::MAX);
        self.position = behind;
        Ok(self.page.get(skip..).and_then(|bytes| bytes.get(..self.entry_bytes)))
    }
}

/// Holds an index against the batches of its segment, which are shown to it in their order. Ends at the first fault: what follows a wrong
/// entry is to be built again anyway.
#[derive(Debug)]
pub(super) struct IndexCheck {
    walk: IndexWalk,
    /// The entry that is next, and where it is.
    next: Option<(u64, IndexEntry)>,
    /// The timestamp or offset of the entry before.
    last_key: Option<i64>,
    /// The largest timestamp so far. None once there was damage: what it held is not known.
    largest: Option<i64>,
    fault: Option<(u64, IndexFault)>,
}

impl IndexCheck {
    pub(super) fn open(disk: &dyn Disk, path: &Path, base_offset: i64) -> Result<IndexCheck, LogError> {
        let walk = IndexWalk::open(disk, path, base_offset)?;
        let mut check = IndexCheck { walk, next: None, last_key: None, largest: Some(NO_TIMESTAMP), fault: None };
        check.advance()?;
        Ok(check)
    }

    /// Moves on to the next entry.
    fn advance(&mut self) -> Result<(), LogError> {
        self.next = self.walk.next_entry()?;
        if let Some((at, entry)) = self.next {
            let key = match entry {
                IndexEntry::Offset { offset, .. } => offset,
                IndexEntry::Time { timestamp, .. } => timestamp,
            };
            if self.last_key.is_some_and(|last| last >= key) {
                self.fail(at, IndexFault::NotRising);
            }
            self.last_key = Some(key);
        }
        Ok(())
    }

    fn fail(&mut self, at: u64, fault: IndexFault) {
        self.next = None;
        self.fault.get_or_insert((at, fault));
    }

    /// Takes the next batch into account.
    pub(super) fn batch(&mut self, at: u64, header: &BatchHeader) -> Result<(), LogError> {
        let last_offset = header.last_offset();
        let raised = self.largest.is_none_or(|largest| header.max_timestamp > largest);
        self.largest = self.largest.map(|largest| largest.max(header.max_timestamp));
        while let Some((entry_at, entry)) = self.next {
            let fault = match entry {
                IndexEntry::Offset { offset, position } if offset > last_offset && position > at => break,
                IndexEntry::Offset { offset, position } => {
                    ((offset, position) != (last_offset, at)).then_some(IndexFault::NoSuchBatch { offset, position })
                }
                IndexEntry::Time { offset, .. } if offset > last_offset => break,
                IndexEntry::Time { timestamp, offset } => {
                    let right = offset == last_offset && timestamp == header.max_timestamp && raised;
                    (!right).then_some(IndexFault::NotTheLargest { timestamp, offset })
                }
            };
            match fault {
                Some(fault) => self.fail(entry_at, fault),
                None => self.advance()?,
            }
        }
        Ok(())
    }

    /// Skips the entries that belong to damage: up to byte `behind` of the `.log`, and below offset `next_offset`.
    pub(super) fn damage(&mut self, behind: u64, next_offset: i64) -> Result<(), LogError> {
        self.largest = None;
        while let Some((_, entry)) = self.next {
            let skipped = match entry {
                IndexEntry::Offset { offset, position } => offset < next_offset || position < behind,
                IndexEntry::Time { offset, .. } => offset < next_offset,
            };
            if !skipped {
                break;
            }
            self.advance()?;
        }
        Ok(())
    }

    /// What is wrong with the index, and where in it. `ends` is whether the walk has met all the batches that the index can name.
    pub(super) fn finish(mut self, closed: bool, ends: bool) -> Option<(u64, IndexFault)> {
        if let (true, Some((at, entry))) = (ends, self.next) {
            let fault = match entry {
                IndexEntry::Offset { offset, position } => IndexFault::NoSuchBatch { offset, position },
                IndexEntry::Time { timestamp, offset } => IndexFault::NotTheLargest { timestamp, offset },
            };
            self.fail(at, fault);
        }
        let left_over = self.walk.left_over_bytes();
        if left_over > 0 && self.fault.is_none() {
            let fault = IndexFault::EntryCutOff { bytes: left_over, entry_bytes: self.walk.entry_bytes() };
            self.fail(self.walk.pages.end - left_over, fault);
        }
        let indexed = self.last_key.unwrap_or(NO_TIMESTAMP);
        if let (Kind::Time, true, Some(largest)) = (self.walk.kind, closed, self.largest)
            && self.fault.is_none()
            && indexed < largest
        {
            self.fail(self.walk.pages.end, IndexFault::EndsEarly { indexed, largest });
        }
        self.fault
    }
}

/// Entries that are read at once.
const ENTRIES_READ_AT_ONCE: usize = 4096;

//! Reads closed segments, and writes what is left of them into a new file beside the log.

use std::io::{self, IoSlice};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use millpond_protocol::batch::{Batch, BatchHeader};

use crate::compact::CLEANED_SUFFIX;
use crate::compact::sift::{Rules, Sifted, sift};
use crate::disk::{Disk, DiskFile, OpenMode, sync_names, write_all_at};
use crate::error::{Damage, LogError};
use crate::folder::{INDEX, LOG, TIME_INDEX, file_path};
use crate::index::{Entries, Indexer, encode};
use crate::inspect::empty_batch;
use crate::scan::{BATCHES_CHUNK_BYTES, corrupt};
use crate::segment::Segment;

/// Shows every batch of a closed segment, its checksum compared, in the order of the file.
///
/// # Errors
///
/// [`LogError::Corrupt`] if the segment is damaged, or does not end where the next one begins; [`LogError::Io`]; what `each` fails with.
pub(super) fn each_batch(segment: &Segment, end_offset: i64, mut each: impl FnMut(&Batch) -> Result<(), LogError>) -> Result<(), LogError> {
    let mut scan = segment.scan(0)?.with_chunk(BATCHES_CHUNK_BYTES);
    let mut next_offset = segment.base_offset();
    while let Some((found, batch)) = scan.next_batch()? {
        if found.next_offset > end_offset {
            let reason = Damage::OffsetsOverlap { next_base: end_offset };
            return Err(corrupt(&segment.path(), found.position, found.header.base_offset, reason));
        }
        next_offset = found.next_offset;
        each(&batch)?;
    }
    if next_offset != end_offset {
        let reason = Damage::OffsetsMissing { next_base: end_offset };
        return Err(corrupt(&segment.path(), scan.position(), next_offset, reason));
    }
    Ok(())
}

/// Where what is left of some segments goes: batches, and one empty batch for each run of offsets of which nothing is left.
pub(super) trait Sink {
    /// Takes a batch as it is.
    fn batch(&mut self, bytes: &[u8], header: &BatchHeader) -> io::Result<()>;
}

/// Sifts batches into a sink. The offsets of the log stay without a gap.
pub(super) struct Sieve<S> {
    pub(super) sink: S,
    /// Offsets of which nothing is left, up to the next batch.
    empty: Option<Range<i64>>,
    /// The first of the offsets that were pushed.
    start: Option<i64>,
    /// Whether they begin with an empty batch.
    pub(super) starts_empty: bool,
    kept: Vec<bool>,
    pub(super) removed: u64,
    /// Whether what comes out is not what went in.
    pub(super) changed: bool,
    /// A batch whose records can't be decoded was kept.
    pub(super) is_unreadable: bool,
}

impl<S: Sink> Sieve<S> {
    pub(super) fn new(sink: S) -> Sieve<S> {
        let (empty, start, kept) = (None, None, Vec::new());
        Sieve { sink, empty, start, starts_empty: false, kept, removed: 0, changed: false, is_unreadable: false }
    }

    /// Whether an empty batch comes last, as far as this has come.
    pub(super) fn ends_empty(&self) -> bool {
        self.empty.is_some()
    }

    pub(super) fn push(&mut self, batch: &Batch, rules: &Rules<'_>) -> io::Result<()> {
        let header = batch.header();
        let first = *self.start.get_or_insert(header.base_offset);
        match sift(batch, rules, &mut self.kept) {
            Ok(Sifted::Whole) => self.pass(batch.bytes(), header),
            Ok(Sifted::Rebuilt { bytes, removed }) => {
                self.removed += u64::from(removed);
                self.changed = true;
                let header = BatchHeader::parse(&bytes).map_err(io::Error::other)?;
                self.pass(&bytes, &header)
            }
            Ok(Sifted::Nothing { removed }) => {
                self.removed += u64::from(removed);
                // Another one in a row, or one that had records before.
                self.changed |= removed > 0 || self.empty.is_some();
                let start = self.empty.as_ref().map_or(header.base_offset, |empty| empty.start);
                self.starts_empty |= start == first;
                self.empty = Some(start..header.next_offset());
                Ok(())
            }
            Err(_) => {
                self.is_unreadable = true;
                self.pass(batch.bytes(), header)
            }
        }
    }

    fn pass(&mut self, bytes: &[u8], header: &BatchHeader) -> io::Result<()> {
        self.fill()?;
        self.sink.batch(bytes, header)
    }

    /// Writes the empty batch that is due. At the end of the segments.
    pub(super) fn fill(&mut self) -> io::Result<()> {
        let Some(empty) = self.empty.take() else { return Ok(()) };
        // Groups reach no further than an index entry can say, which is as far as a batch can.
        let last_offset_delta = i32::try_from(empty.end - 1 - empty.start).map_err(io::Error::other)?;
        let bytes = empty_batch(empty.start, last_offset_delta);
        let header = BatchHeader::parse(&bytes).map_err(io::Error::other)?;
        self.sink.batch(&bytes, &header)
    }
}

/// Counts the bytes, but for an empty batch at the start.
#[derive(Debug, Default)]
pub(super) struct Counted {
    pub(super) bytes: u64,
}

impl Sink for Counted {
    fn batch(&mut self, bytes: &[u8], header: &BatchHeader) -> io::Result<()> {
        if self.bytes > 0 || header.record_count > 0 {
            self.bytes += bytes.len() as u64;
        }
        Ok(())
    }
}

/// A segment that is being written, under names that nobody looks at.
pub(super) struct Draft {
    dir: PathBuf,
    base_offset: i64,
    disk: Arc<dyn Disk>,
    file: Arc<dyn DiskFile>,
    buffer: Vec<u8>,
    /// Bytes in the file.
    written: u64,
    indexer: Indexer,
    entries: Entries,
}

/// A segment that is written and durable, under those names.
#[derive(Clone, Copy, Debug)]
pub(super) struct Drafted {
    pub(super) base_offset: i64,
    pub(super) bytes: u64,
    pub(super) offset_entries: u64,
    pub(super) time_entries: u64,
    pub(super) max_timestamp: i64,
}

impl Draft {
    pub(super) fn create(disk: &Arc<dyn Disk>, dir: &Path, base_offset: i64, index_interval_bytes: u32) -> Result<Draft, LogError> {
        let path = cleaned_path(dir, base_offset, LOG);
        let file = disk.open(&path, OpenMode::Replace).map_err(|source| LogError::io("create", &path, source))?;
        Ok(Draft {
            dir: dir.to_path_buf(),
            base_offset,
            disk: Arc::clone(disk),
            file,
            buffer: Vec::new(),
            written: 0,
            indexer: Indexer::new(base_offset, index_interval_bytes),
            entries: Entries::default(),
        })
    }

    pub(super) fn path(&self) -> PathBuf {
        cleaned_path(&self.dir, self.base_offset, LOG)
    }

    fn write_out(&mut self) -> io::Result<()> {
        write_all_at(&*self.file, &mut [IoSlice::new(&self.buffer)], self.written)?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// Writes the rest and the indexes, and makes all three files durable, their names too.
    pub(super) fn finish(mut self) -> Result<Drafted, LogError> {
        let path = self.path();
        let written = self.write_out().and_then(|()| self.file.sync_data());
        written.map_err(|source| LogError::io("write", &path, source))?;
        self.entries.times.extend(self.indexer.time_entry());
        for (extension, bytes) in [(INDEX, encode(&self.entries.offsets)), (TIME_INDEX, encode(&self.entries.times))] {
            let path = cleaned_path(&self.dir, self.base_offset, extension);
            let write = || -> io::Result<()> {
                let file = self.disk.open(&path, OpenMode::Replace)?;
                write_all_at(&*file, &mut [IoSlice::new(&bytes)], 0)?;
                file.sync_data()
            };
            write().map_err(|source| LogError::io("write", &path, source))?;
        }
        sync_names(&*self.disk, &self.dir).map_err(|source| LogError::io("flush", &self.dir, source))?;
        Ok(Drafted {
            base_offset: self.base_offset,
            bytes: self.written,
            offset_entries: self.entries.offsets.len() as u64,
            time_entries: self.entries.times.len() as u64,
            max_timestamp: self.indexer.max_timestamp(),
        })
    }
}

impl Sink for Draft {
    fn batch(&mut self, bytes: &[u8], header: &BatchHeader) -> io::Result<()> {
        let position = self.written + self.buffer.len() as u64;
        // Records that are compressed anew can take more than before; no position may be further than an index entry can say.
        if position + bytes.len() as u64 > SEGMENT_BYTES_MAX {
            return Err(io::Error::other("the records take more bytes than a segment can have"));
        }
        self.indexer.add(header, position, &mut self.entries);
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= BATCHES_CHUNK_BYTES { self.write_out() } else { Ok(()) }
    }
}

/// Removes what is left of a draft, as far as it is there. Durable or not makes no difference: the next opening removes it too.
pub(super) fn discard(disk: &dyn Disk, dir: &Path, base_offset: i64) {
    for extension in [LOG, INDEX, TIME_INDEX] {
        let path = cleaned_path(dir, base_offset, extension);
        match disk.remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(path = %path.display(), %error, "a file that is not needed can't be removed; the next opening does it");
            }
            _ => {}
        }
    }
}

/// The name of a file of a segment, before it has its own.
pub(super) fn cleaned_path(dir: &Path, base_offset: i64, extension: &str) -> PathBuf {
    let mut name = file_path(dir, base_offset, extension).into_os_string();
    name.push(CLEANED_SUFFIX);
    PathBuf::from(name)
}

/// The largest position that an entry of Kafka's offset index can name.
pub(super) const SEGMENT_BYTES_MAX: u64 = i32::MAX.unsigned_abs() as u64;

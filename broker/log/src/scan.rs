//! The walk over the batches of one segment file, and what a header must satisfy to be followed.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use millpond_protocol::batch::{Batch, BatchHeader, HEADER_BYTES};

use crate::disk::DiskFile;
use crate::error::{Damage, LogError, is_unreadable};

/// Walks from batch to batch by their headers. Reads ahead in chunks, and skips what it need not see.
#[derive(Debug)]
pub(crate) struct Scan {
    file: Arc<dyn DiskFile>,
    path: PathBuf,
    /// Base offset of the segment.
    base_offset: i64,
    /// Where the next batch begins.
    position: u64,
    /// Where the last batch ends.
    end: u64,
    /// The base offset that the next batch must have; unknown where the walk begins at an index entry.
    expected: Option<i64>,
    /// Bytes read at once.
    chunk_bytes: usize,
    chunk: Bytes,
    chunk_at: u64,
}

/// A batch, by its header.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found {
    pub(crate) position: u64,
    pub(crate) header: BatchHeader,
    /// The offset after the batch.
    pub(crate) next_offset: i64,
}

impl Scan {
    /// A walk over the bytes from `position` to `end` of the segment that begins with `base_offset`.
    pub(crate) fn new(file: Arc<dyn DiskFile>, path: PathBuf, base_offset: i64, position: u64, end: u64) -> Scan {
        let expected = (position == 0).then_some(base_offset);
        Scan { file, path, base_offset, position, end, expected, chunk_bytes: HEADERS_CHUNK_BYTES, chunk: Bytes::new(), chunk_at: 0 }
    }

    /// The same walk, reading ahead for whole batches.
    pub(crate) fn with_chunk(mut self, chunk_bytes: usize) -> Scan {
        self.chunk_bytes = chunk_bytes;
        self
    }

    /// The same walk from another place, where a batch must begin with offset `expected`.
    pub(crate) fn resume(mut self, position: u64, expected: i64) -> Scan {
        (self.position, self.expected) = (position, Some(expected));
        self
    }

    /// Where the next batch begins.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// The next batch by its header, which is well formed, fits before the end and continues the offsets. None at the end.
    /// After [`LogError::Corrupt`], which bytes are that can't be read too, the walk is still in front of the damage.
    pub(crate) fn next_header(&mut self) -> Result<Option<Found>, LogError> {
        if self.position >= self.end {
            return Ok(None);
        }
        let left = self.end - self.position;
        let bytes = self.fetch(self.position, HEADER_BYTES);
        let bytes = bytes.map_err(|error| error.at(self.position, self.expected.unwrap_or(self.base_offset)))?;
        let checked = check_header(&bytes, left, self.expected, self.base_offset);
        let (header, next_offset) = checked.map_err(|reason| self.corrupt(reason))?;
        let found = Found { position: self.position, header, next_offset };
        self.position += header.total_bytes() as u64;
        self.expected = Some(next_offset);
        Ok(Some(found))
    }

    /// The next batch whole, its checksum compared.
    pub(crate) fn next_batch(&mut self) -> Result<Option<(Found, Batch)>, LogError> {
        let before = (self.position, self.expected);
        let Some(found) = self.next_header()? else { return Ok(None) };
        match self.batch(&found) {
            Ok(batch) => Ok(Some((found, batch))),
            Err(error) => {
                (self.position, self.expected) = before;
                Err(error)
            }
        }
    }

    /// The bytes of a batch that the walk has found, its checksum compared.
    pub(crate) fn batch(&mut self, found: &Found) -> Result<Batch, LogError> {
        let total = found.header.total_bytes();
        let bytes = self.fetch(found.position, total).map_err(|error| error.at(found.position, found.header.base_offset))?;
        let checked = if bytes.len() < total {
            Err(Damage::BatchCutOff { batch_bytes: total as u64, left_bytes: bytes.len() as u64 })
        } else {
            check_content(bytes)
        };
        checked.map_err(|reason| corrupt(&self.path, found.position, found.header.base_offset, reason))
    }

    /// `bytes` bytes from `at` on, fewer only at the end of the file.
    fn fetch(&mut self, at: u64, bytes: usize) -> Result<Bytes, LogError> {
        let within = at.checked_sub(self.chunk_at).and_then(|skip| usize::try_from(skip).ok());
        if let Some(skip) = within
            && skip + bytes <= self.chunk.len()
        {
            return Ok(self.chunk.slice(skip..skip + bytes));
        }
        let left = usize::try_from(self.end.saturating_sub(at)).unwrap_or(usize::MAX);
        let (mut chunk, ahead) = (Vec::new(), bytes.max(self.chunk_bytes).min(left));
        let mut read = self.file.read_at(&mut chunk, ahead, at);
        if ahead > bytes && read.as_ref().is_err_and(is_unreadable) {
            // What is asked for may be readable. From here on nothing is read ahead, so that the same place does not fail again and again.
            self.chunk_bytes = 0;
            read = self.file.read_at(&mut chunk, bytes, at);
        }
        read.map_err(|source| LogError::io("read", &self.path, source))?;
        self.chunk = Bytes::from(chunk);
        self.chunk_at = at;
        Ok(self.chunk.slice(..bytes.min(self.chunk.len())))
    }

    fn corrupt(&self, reason: Damage) -> LogError {
        corrupt(&self.path, self.position, self.expected.unwrap_or(self.base_offset), reason)
    }
}

/// Reads a header at the start of `bytes`, where `left_bytes` are left of the file: well formed, not cut off, its offsets where they
/// belong. Returns the offset after the batch too. `expected` is None where the offset of the batch is not known beforehand.
pub(crate) fn check_header(bytes: &[u8], left_bytes: u64, expected: Option<i64>, segment_base: i64) -> Result<(BatchHeader, i64), Damage> {
    if bytes.len() < HEADER_BYTES {
        return Err(Damage::HeaderCutOff { left_bytes: left_bytes.min(bytes.len() as u64) });
    }
    let header = BatchHeader::parse(bytes).map_err(Damage::Header)?;
    let batch_bytes = header.total_bytes() as u64;
    if batch_bytes > left_bytes {
        return Err(Damage::BatchCutOff { batch_bytes, left_bytes });
    }
    let wanted = expected.unwrap_or(header.base_offset).max(segment_base);
    if header.base_offset != wanted {
        return Err(Damage::UnexpectedOffset { expected: wanted, found: header.base_offset });
    }
    // Not negative: the base offset is not below the segment's, and the codec lets no negative delta pass. A sum beyond 63 bits is
    // further away than any index entry could say.
    let distance = (header.base_offset - segment_base).saturating_add(i64::from(header.last_offset_delta));
    match header.base_offset.checked_add(i64::from(header.last_offset_delta)).and_then(|last| last.checked_add(1)) {
        Some(next_offset) if distance <= i64::from(i32::MAX) => Ok((header, next_offset)),
        _ => Err(Damage::OffsetTooFar { distance }),
    }
}

/// Compares the checksum of the bytes of one batch, whose header was checked before.
pub(crate) fn check_content(bytes: Bytes) -> Result<Batch, Damage> {
    let batch = Batch::parse(bytes).map_err(Damage::Header)?;
    batch.verify_crc().map_err(Damage::Checksum)?;
    Ok(batch)
}

pub(crate) fn corrupt(path: &std::path::Path, position: u64, offset: i64, reason: Damage) -> LogError {
    LogError::Corrupt { path: path.to_path_buf(), position, offset, next_offset: None, reason }
}

/// Bytes that a walk over headers reads at once: two intervals of the index, so that a lookup needs one read as a rule.
const HEADERS_CHUNK_BYTES: usize = 8 << 10;

/// Bytes that a walk over whole batches reads at once.
pub(crate) const BATCHES_CHUNK_BYTES: usize = 1 << 20;

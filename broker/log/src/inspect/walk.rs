//! The walk over the bytes of one segment that goes on behind damage.
//!
//! ```text
//!   batch     batch     damage                         batch    batch
//! +---------+---------+------------------------------+--------+---------+
//! | 0..4    | 5..9    | ?????????????????????????????| 31..31 | 32..40  |
//! +---------+---------+------------------------------+--------+---------+
//!                     ^ expected: 10                 ^ found: 31, so offsets 10 to 30 are lost
//! ```
//!
//! What is not a whole batch is damage: the header is not valid, the offset is not the next one, the file ends inside, or the checksum
//! differs. Behind it the walk looks for the next whole batch whose offset can belong there: first where the damaged batch says that
//! it ends, then at every byte. A length that was damaged can so cost no more than the batch that it belongs to.
//!
//! The checksum does not cover the base offset of a batch. In front of damage it is the batches before that vouch for it; behind, it is believed
//! only if something else agrees: the number of offsets or of records that the damaged batch announces, or what follows.
//!
//! What the disk does not give back counts as zeros that are damaged: no batch is whole that has a part of it, and the walk goes on behind.
//!
//! Memory is bounded whatever the file says: batches are read through a window, and their checksums computed piece by piece.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use millpond_protocol::batch::{Batch, BatchChecksum, BatchError, BatchHeader, CHECKSUMMED_FROM, HEADER_BYTES, MAGIC};

use crate::disk::{Disk, DiskFile, OpenMode};
use crate::error::{Damage, LogError, is_unreadable};
use crate::inspect::unreadable::Unreadable;
use crate::scan::check_header;

/// Walks over the batches of one segment file, damaged or not.
#[derive(Debug)]
pub struct SegmentWalk {
    window: Window,
    /// The offset that the segment begins with.
    base_offset: i64,
    /// The offset that the next segment begins with, if there is one.
    next_base: Option<i64>,
    position: u64,
    /// The offset that the next batch must begin with.
    expected: i64,
    /// Bytes that may still be compared with checksums while looking for what is behind damage.
    search_left_bytes: u64,
    /// Whether the last batch of the file is believed without anything that agrees with its offset.
    believes_last: bool,
}

/// The offsets that may come behind a damaged batch, by what is left of its header.
type Announced = [Option<i64>; 2];

/// What a walk meets, in the order of the file.
#[derive(Debug)]
pub enum Piece {
    /// A whole batch with the expected offset, its checksum compared.
    Batch(WalkedBatch),
    /// Bytes, or offsets, that are not a batch.
    Damage(DamagedRange),
}

/// A whole batch, by its header.
#[derive(Clone, Copy, Debug)]
pub struct WalkedBatch {
    /// Where it begins, in bytes from the start of the file.
    pub position: u64,
    /// What its header says.
    pub header: BatchHeader,
}

/// A part of a segment that holds no whole batch.
#[derive(Debug)]
pub struct DamagedRange {
    /// Where it begins, in bytes from the start of the file.
    pub position: u64,
    /// Up to the next whole batch or the end of the file. 0 where only offsets are missing.
    pub bytes: u64,
    /// The offset that was expected there.
    pub offset: i64,
    /// The first offset behind it. None at the end of the last segment, where nobody can say.
    pub next_offset: Option<i64>,
    /// What is wrong with the first batch of it.
    pub reason: Damage,
    /// What the header of the first batch says, if that much is well formed.
    pub header: Option<BatchHeader>,
    /// Whether the checksum in that header is right, so that it is only the place that is wrong.
    pub crc_ok: bool,
    /// Bytes of it that the disk does not give back, whole pages as a rule.
    pub unreadable_bytes: u64,
}

impl SegmentWalk {
    /// Opens a segment file. `next_base` is the offset where the next segment begins, if there is one.
    ///
    /// The end of the file is taken as it is now: what is appended later is not seen.
    ///
    /// # Errors
    ///
    /// [`LogError::Io`] if the file can't be opened or measured.
    pub fn open(disk: &dyn Disk, path: &Path, base_offset: i64, next_base: Option<i64>) -> Result<SegmentWalk, LogError> {
        let window = Window::open(disk, path)?;
        let (position, expected) = (0, base_offset);
        let (search_left_bytes, believes_last) = (SEARCHED_BYTES_MAX, false);
        Ok(SegmentWalk { window, base_offset, next_base, position, expected, search_left_bytes, believes_last })
    }

    /// As [`SegmentWalk::open`]; a file that the disk does not let be opened or measured is one damaged range, of which nobody knows how long
    /// it is.
    ///
    /// # Errors
    ///
    /// [`LogError::Io`] where the cause says nothing about the bytes.
    pub fn open_or_damage(
        disk: &dyn Disk,
        path: &Path,
        base_offset: i64,
        next_base: Option<i64>,
    ) -> Result<Result<SegmentWalk, DamagedRange>, LogError> {
        match SegmentWalk::open(disk, path, base_offset, next_base) {
            Err(LogError::Io { source, .. }) if is_unreadable(&source) => Ok(Err(DamagedRange {
                position: 0,
                bytes: 0,
                offset: base_offset,
                next_offset: next_base,
                reason: Damage::Unreadable(source),
                header: None,
                crc_ok: false,
                unreadable_bytes: 0,
            })),
            walk => walk.map(Ok),
        }
    }

    /// The same walk from a place behind batches that are known to be whole, where a batch must begin with offset `expected`.
    ///
    /// Behind damage there it also believes a last batch that nothing but its checksum and its place at the end of the file vouches for, if
    /// it leaves offsets for what is damaged. Whoever is to decide about removing it must know of it.
    pub(crate) fn resume(mut self, position: u64, expected: i64) -> SegmentWalk {
        (self.position, self.expected, self.believes_last) = (position, expected, true);
        self
    }

    /// The same walk, up to a position where a batch ends.
    pub(crate) fn up_to(mut self, end: u64) -> SegmentWalk {
        self.window.end = self.window.end.min(end);
        self
    }

    /// Opens a file that a repair, or a recovery, has kept of the segment that begins with `base_offset`. It may begin anywhere in the
    /// segment, as a rule with damage.
    ///
    /// # Errors
    ///
    /// As [`SegmentWalk::open`].
    pub fn open_kept(disk: &dyn Disk, path: &Path, base_offset: i64) -> Result<SegmentWalk, LogError> {
        let mut walk = SegmentWalk::open(disk, path, base_offset, None)?;
        let first = offset_in(walk.window.bytes_from(0, HEADER_BYTES)?);
        let distance = first.checked_sub(base_offset).and_then(|distance| i32::try_from(distance).ok());
        let expected = if distance.is_some_and(|distance| distance >= 0) { first } else { base_offset };
        Ok(walk.resume(0, expected))
    }

    /// Where the next piece begins, in bytes from the start of the file.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The offset that the next batch must begin with; at the end of the walk one past the last.
    pub fn next_offset(&self) -> i64 {
        self.expected
    }

    /// Bytes in the file when it was opened.
    pub fn file_bytes(&self) -> u64 {
        self.window.end
    }

    /// The next batch or damaged range; None at the end of the file.
    ///
    /// # Errors
    ///
    /// [`LogError::Io`] if the file can't be read for a cause that says nothing about its bytes. Damage is not an error.
    pub fn next_piece(&mut self) -> Result<Option<Piece>, LogError> {
        let (position, offset) = (self.position, self.expected);
        if position >= self.window.end {
            // The file ends. The offsets up to the next segment must not.
            let missing = self.next_base.filter(|next_base| offset < *next_base);
            return Ok(missing.map(|next_base| {
                self.expected = next_base;
                let reason = Damage::OffsetsMissing { next_base };
                let (header, crc_ok, unreadable_bytes) = (None, false, 0);
                Piece::Damage(DamagedRange {
                    position,
                    bytes: 0,
                    offset,
                    next_offset: Some(next_base),
                    reason,
                    header,
                    crc_ok,
                    unreadable_bytes,
                })
            }));
        }
        match self.whole_at(position, Some(offset))? {
            Ok(header) => {
                self.position += header.total_bytes() as u64;
                self.expected = header.next_offset();
                Ok(Some(Piece::Batch(WalkedBatch { position, header })))
            }
            Err(reason) => {
                let header = self.header_at(position)?;
                let crc_ok = self.is_only_misplaced(position, header.as_ref(), &reason)?;
                let (behind, found) = self.resume_behind(position, header.as_ref())?;
                let next_offset = found.or(self.next_base);
                self.position = behind;
                self.expected = next_offset.unwrap_or(offset);
                let bytes = behind - position;
                let reason = self.window.unreadable.error_in(position..behind).map_or(reason, Damage::Unreadable);
                let unreadable_bytes = self.window.unreadable.bytes_in(position..behind);
                Ok(Some(Piece::Damage(DamagedRange { position, bytes, offset, next_offset, reason, header, crc_ok, unreadable_bytes })))
            }
        }
    }

    /// The bytes of a batch that the walk has met. None if it has more than 64 MiB.
    ///
    /// # Errors
    ///
    /// [`LogError::Io`] if the file can't be read.
    pub fn load(&mut self, batch: &WalkedBatch) -> Result<Option<Batch>, LogError> {
        let total = batch.header.total_bytes();
        if total > LOADED_BYTES_MAX {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        self.window.read(&mut bytes, total, batch.position)?;
        if let Some(source) = self.window.unreadable.error_in(batch.position..batch.position + total as u64) {
            return Err(LogError::io("read", &self.window.path, source));
        }
        Ok(Batch::parse(Bytes::from(bytes)).ok())
    }

    /// The header of the batch that begins here, if it is one with the expected offset and is whole.
    fn whole_at(&mut self, position: u64, expected: Option<i64>) -> Result<Result<BatchHeader, Damage>, LogError> {
        let left = self.window.end.saturating_sub(position);
        let base_offset = self.base_offset;
        let checked = check_header(self.window.bytes_from(position, HEADER_BYTES)?, left, expected, base_offset);
        let (header, next_offset) = match checked {
            Ok(checked) => checked,
            Err(reason) => return Ok(Err(reason)),
        };
        if let Some(next_base) = self.next_base.filter(|next_base| next_offset > *next_base) {
            return Ok(Err(Damage::OffsetsOverlap { next_base }));
        }
        let (stored, computed) = (header.crc, self.window.checksum(position, header.total_bytes() as u64)?);
        if stored != computed {
            return Ok(Err(Damage::Checksum(BatchError::ChecksumMismatch { stored, computed })));
        }
        // Zeros stand in the place of what can't be read, and may be what was there.
        let unreadable = self.window.unreadable.error_in(position..position + header.total_bytes() as u64);
        Ok(unreadable.map_or(Ok(header), |source| Err(Damage::Unreadable(source))))
    }

    /// Whether the checksum of the damaged batch that begins here is right.
    fn is_only_misplaced(&mut self, position: u64, header: Option<&BatchHeader>, reason: &Damage) -> Result<bool, LogError> {
        let is_misplaced = matches!(reason, Damage::UnexpectedOffset { .. } | Damage::OffsetsOverlap { .. } | Damage::OffsetTooFar { .. });
        let Some(header) = header.filter(|_| is_misplaced) else { return Ok(false) };
        let bytes = header.total_bytes() as u64;
        if bytes > self.search_left_bytes {
            return Ok(false);
        }
        self.search_left_bytes -= bytes;
        let is_right = self.window.checksum(position, bytes)? == header.crc;
        Ok(is_right && self.window.unreadable.error_in(position..position + bytes).is_none())
    }

    /// The header at a position, if it is well formed and the batch would fit into the file.
    fn header_at(&mut self, position: u64) -> Result<Option<BatchHeader>, LogError> {
        let left = self.window.end.saturating_sub(position);
        let header = BatchHeader::parse(self.window.bytes_from(position, HEADER_BYTES)?).ok();
        Ok(header.filter(|header| header.total_bytes() as u64 <= left))
    }

    /// Where the next whole batch begins behind the damage at `from`, and its base offset; the end of the file if there is none.
    fn resume_behind(&mut self, from: u64, header: Option<&BatchHeader>) -> Result<(u64, Option<i64>), LogError> {
        let announced = self.announced_at(from)?;
        if let Some(header) = header {
            if self.follows_a_gap(from, header)? {
                return Ok((from, Some(header.base_offset)));
            }
            let behind = from + header.total_bytes() as u64;
            let landed = self.base_of_whole(behind, announced)?;
            if landed.is_some() || behind == self.window.end {
                let is_announced = landed.or(self.next_base).is_some_and(|next| announced.contains(&Some(next)));
                let within = if is_announced { None } else { self.end_by_checksum(from, header, announced)? };
                return Ok(within.map_or((behind, landed), |(at, base_offset)| (at, Some(base_offset))));
            }
        }
        self.search(from + 1, self.window.end, announced)
    }

    /// Where the damaged batch ends and a whole one begins, short of where its header says, if its checksum is right up to there: then
    /// its length is what is damaged, which the checksum does not cover. Batches within its own records don't fit the checksum.
    fn end_by_checksum(&mut self, from: u64, header: &BatchHeader, announced: Announced) -> Result<Option<(u64, i64)>, LogError> {
        let behind = from + header.total_bytes() as u64;
        let mut at = from + HEADER_BYTES as u64;
        while let (found, Some(base_offset)) = self.search(at, behind, announced)? {
            let bytes = found - from;
            if bytes > self.search_left_bytes {
                break;
            }
            self.search_left_bytes -= bytes;
            if self.window.checksum(from, bytes)? == header.crc {
                return Ok(Some((found, base_offset)));
            }
            at = found + 1;
        }
        Ok(None)
    }

    /// The offset behind the damaged batch, by the number of offsets and by the number of records in its header, whatever else is wrong with
    /// that. Where nothing was compacted the two are the same, so that one of them may be damaged.
    fn announced_at(&mut self, from: u64) -> Result<Announced, LogError> {
        let bytes = self.window.bytes_from(from, HEADER_BYTES)?;
        let number_at =
            |at: usize| bytes.get(at..).and_then(|bytes| bytes.first_chunk()).map(|bytes| i64::from(i32::from_be_bytes(*bytes)));
        let counts = [number_at(LAST_OFFSET_DELTA_AT).map(|delta| delta + 1), number_at(RECORD_COUNT_AT)];
        Ok(counts.map(|count| count.filter(|count| *count > 0).and_then(|count| self.expected.checked_add(count))))
    }

    /// Whether the batch itself is whole, and it is the offsets in front of it that are missing. Its own offset may be what is damaged,
    /// so what follows has to agree with it.
    fn follows_a_gap(&mut self, from: u64, header: &BatchHeader) -> Result<bool, LogError> {
        if header.base_offset <= self.expected || self.whole_at(from, Some(header.base_offset))?.is_err() {
            return Ok(false);
        }
        self.agrees_with_what_follows(from, header)
    }

    /// The base offset of a whole batch that begins here, if its offsets can be those behind the damage and something vouches for them.
    fn base_of_whole(&mut self, at: u64, announced: Announced) -> Result<Option<i64>, LogError> {
        let Some(header) = self.header_at(at)? else { return Ok(None) };
        let bytes = header.total_bytes() as u64;
        if header.base_offset < self.expected || bytes > self.search_left_bytes {
            return Ok(None);
        }
        self.search_left_bytes -= bytes;
        if self.whole_at(at, None)?.is_err() {
            return Ok(None);
        }
        let is_last = self.believes_last && at + bytes == self.window.end && self.next_base.is_none() && header.base_offset > self.expected;
        let vouched = is_last || announced.contains(&Some(header.base_offset)) || self.agrees_with_what_follows(at, &header)?;
        Ok(vouched.then_some(header.base_offset))
    }

    /// Whether the batch, or the segment, behind this one begins with the offset behind it.
    fn agrees_with_what_follows(&mut self, at: u64, header: &BatchHeader) -> Result<bool, LogError> {
        let behind = at + header.total_bytes() as u64;
        if behind == self.window.end {
            return Ok(self.next_base == Some(header.next_offset()));
        }
        Ok(self.header_at(behind)?.is_some_and(|next| next.base_offset == header.next_offset()))
    }

    /// Looks at every byte in front of `until` for the start of a whole batch. The end of the file if there is none.
    fn search(&mut self, from: u64, until: u64, announced: Announced) -> Result<(u64, Option<i64>), LogError> {
        let mut at = from;
        while at < until && self.search_left_bytes > 0 {
            let (least, most) = (self.expected, self.base_offset.saturating_add(i64::from(i32::MAX)));
            let bytes = self.window.bytes_from(at, HEADER_BYTES)?;
            if bytes.len() < HEADER_BYTES {
                break;
            }
            let plausible = |front: &[u8]| front[16] == MAGIC.to_be_bytes()[0] && (least..=most).contains(&offset_in(front));
            let Some(skip) = bytes.windows(HEADER_BYTES).position(plausible) else {
                at += (bytes.len() - HEADER_BYTES + 1) as u64;
                continue;
            };
            at += skip as u64;
            if at < until
                && let Some(base_offset) = self.base_of_whole(at, announced)?
            {
                return Ok((at, Some(base_offset)));
            }
            at += 1;
        }
        Ok((self.window.end, None))
    }
}

/// The base offset at the front of a header.
fn offset_in(front: &[u8]) -> i64 {
    front.first_chunk().map_or(-1, |bytes| i64::from_be_bytes(*bytes))
}

/// A file, read through a buffer of fixed size.
#[derive(Debug)]
struct Window {
    file: Arc<dyn DiskFile>,
    path: PathBuf,
    /// Bytes in the file when it was opened.
    end: u64,
    chunk: Vec<u8>,
    chunk_at: u64,
    unreadable: Unreadable,
}

impl Window {
    fn open(disk: &dyn Disk, path: &Path) -> Result<Window, LogError> {
        let opened = disk.open(path, OpenMode::Read).and_then(|file| file.size_bytes().map(|bytes| (file, bytes)));
        let (file, end) = opened.map_err(|source| LogError::io("open", path, source))?;
        Ok(Window { file, path: path.to_path_buf(), end, chunk: Vec::new(), chunk_at: 0, unreadable: Unreadable::default() })
    }

    /// The bytes from `at` on: at least `least` of them, fewer only at the end of the file.
    fn bytes_from(&mut self, at: u64, least: usize) -> Result<&[u8], LogError> {
        let skip = at.checked_sub(self.chunk_at).and_then(|skip| usize::try_from(skip).ok());
        if let Some(skip) = skip
            && skip.saturating_add(least) <= self.chunk.len()
        {
            return Ok(&self.chunk[skip..]);
        }
        let mut chunk = std::mem::take(&mut self.chunk);
        chunk.clear();
        self.read(&mut chunk, least.max(WINDOW_BYTES), at)?;
        self.chunk = chunk;
        self.chunk_at = at;
        Ok(&self.chunk)
    }

    /// Appends `bytes` bytes from `at` on, fewer only at the end of the file as it was. Zeros stand for what can't be read.
    fn read(&mut self, into: &mut Vec<u8>, bytes: usize, at: u64) -> Result<(), LogError> {
        let left = usize::try_from(self.end.saturating_sub(at)).unwrap_or(usize::MAX);
        let read = self.unreadable.read(&*self.file, into, bytes.min(left), at);
        read.map_err(|source| LogError::io("read", &self.path, source))
    }

    /// The checksum of a batch of this many bytes, of as many as there are.
    fn checksum(&mut self, position: u64, batch_bytes: u64) -> Result<u32, LogError> {
        let mut checksum = BatchChecksum::new();
        let (mut at, end) = (position + CHECKSUMMED_FROM as u64, position + batch_bytes);
        while at < end {
            let bytes = self.bytes_from(at, 1)?;
            let wanted = usize::try_from(end - at).unwrap_or(usize::MAX).min(bytes.len());
            if wanted == 0 {
                break;
            }
            checksum.update(&bytes[..wanted]);
            at += wanted as u64;
        }
        Ok(checksum.value())
    }
}

/// Where a header has the last offset delta.
const LAST_OFFSET_DELTA_AT: usize = 23;

/// Where a header has the number of records.
const RECORD_COUNT_AT: usize = 57;

/// Bytes of a file that are in memory at once.
const WINDOW_BYTES: usize = 1 << 20;

/// The largest batch that is taken into memory as a whole, to look at its records.
const LOADED_BYTES_MAX: usize = 64 << 20;

/// Bytes that one walk compares with checksums while it looks for what is behind damage, all places together. A segment has 2 GiB at most;
/// only bytes that were made for it could cost more.
const SEARCHED_BYTES_MAX: u64 = 4 << 30;

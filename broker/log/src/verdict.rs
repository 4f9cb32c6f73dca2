//! What the first thing is that is not a whole batch, in a segment that may be torn: decided from what lies behind it.
//!
//! ```text
//!   | whole | whole | ????????                              nothing whole behind: a torn tail
//!   | whole | whole | ???000000000000? | whole | whole |    zeros as a power cut leaves them: an interrupted write
//!   | whole | whole | ???????????????? | whole | whole |    anything else: rot
//! ```
//!
//! A power cut leaves of unsynced writes what the system had happened to write back: whole sectors, in no order. A sector that was not
//! written reads as zeros, from where the last write before ended to the end of the sector. So what an interrupted write has left of the
//! first damaged batch lacks all that the batch has in some sector: the sector is zeros as a whole, or from the start of the batch on. Or
//! the file is shorter than the batch. What was behind such a hole was not flushed either, since a flush covers all that came before.
//!
//! Rot changes bytes that were durable, and what is behind it may have been acknowledged. A batch that has zeros of its own can be taken
//! for an interrupted one, so a single flipped bit is looked for first: a checksum tells which one it was. What is cut off as interrupted is
//! kept, for the case that the guess is wrong.
//!
//! What can't be read can't be judged. With something whole behind it, it stays where it is, as rot does. With nothing, it may be the end of
//! the log that was acknowledged, or a torn tail: then nothing is cut, and the log stays closed until somebody has decided.
//!
//! Time and memory are bounded: the walk that looks for whole batches has a budget ([`SegmentWalk`]), the range in front of them is read
//! once in pieces, and a flipped bit is looked for in batches up to [`EXPLAINED_BYTES_MAX`].

use std::path::Path;
use std::sync::Arc;

use millpond_protocol::batch::{BatchChecksum, BatchHeader, CHECKSUMMED_FROM, HEADER_BYTES, MAGIC};

use crate::damages::DamagedSpan;
use crate::disk::{Disk, DiskFile, OpenMode};
use crate::error::{Damage, LogError};
use crate::inspect::{DamagedRange, Piece, SegmentWalk};
use crate::scan::corrupt;

/// What damage is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The end of a write that was never finished: nothing whole is behind it.
    Torn,
    /// A write that was interrupted, in front of others that were not, or not as much.
    Interrupted,
    /// What was whole once.
    Rot(DamagedSpan),
}

/// Where something was met that is not a whole batch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    pub(crate) path: &'a Path,
    /// The offset that the segment begins with.
    pub(crate) base_offset: i64,
    /// The offset that the next segment begins with, if there is one.
    pub(crate) next_base: Option<i64>,
    /// Bytes from the start of the file.
    pub(crate) position: u64,
    /// The offset that a batch there must begin with.
    pub(crate) expected: i64,
}

/// Says what the damage at a place is. Changes nothing.
///
/// # Errors
///
/// [`LogError::Corrupt`] if it can't be read, and nothing whole is behind it; [`LogError::Io`].
pub(crate) fn judge(disk: &dyn Disk, place: Place<'_>) -> Result<Verdict, LogError> {
    let mut walk = SegmentWalk::open(disk, place.path, place.base_offset, place.next_base)?.resume(place.position, place.expected);
    let Place { path, position, expected, .. } = place;
    let rot = |behind, next_offset| Verdict::Rot(DamagedSpan { position, behind, offset: expected, next_offset });
    let (behind, next_offset) = match walk.next_piece()? {
        Some(Piece::Damage(DamagedRange { bytes, next_offset, reason: reason @ Damage::Unreadable(_), .. })) => {
            let next_offset = next_offset.filter(|next_offset| *next_offset > expected);
            return next_offset
                .map(|next_offset| rot(position + bytes, next_offset))
                .ok_or_else(|| corrupt(path, position, expected, reason));
        }
        Some(Piece::Damage(range)) => (range.position + range.bytes, range.next_offset),
        // Whole now: the disk does not answer the same twice. Nothing is cut for that, and every read compares again.
        Some(Piece::Batch(batch)) => return Ok(rot(walk.position(), batch.header.next_offset())),
        None => return Ok(Verdict::Torn),
    };
    let Some(next_offset) = next_offset else { return Ok(Verdict::Torn) };
    let opened = disk.open(path, OpenMode::Read).map_err(|source| LogError::io("open", path, source))?;
    let ends_the_file = behind == walk.file_bytes();
    let suspect = Suspect { file: opened, path, position, behind, expected, next_offset, ends_the_file };
    if next_offset <= expected || suspect.is_interrupted()? {
        return Ok(Verdict::Interrupted);
    }
    Ok(rot(behind, next_offset))
}

/// A damaged range with something whole behind it.
struct Suspect<'a> {
    file: Arc<dyn DiskFile>,
    path: &'a Path,
    position: u64,
    behind: u64,
    expected: i64,
    /// The offset of what is whole behind it.
    next_offset: i64,
    /// Whether it reaches to the end of the file; the next segment is what is behind it then.
    ends_the_file: bool,
}

impl Suspect<'_> {
    fn is_interrupted(&self) -> Result<bool, LogError> {
        if !self.lacks_its_end()? && !self.has_hole()? {
            return Ok(false);
        }
        // A byte that has changed, and not by becoming a part of a hole, is rot, whatever zeros the batch has of its own.
        match self.changed_byte()? {
            Some(at) => self.is_hole(at / SECTOR_BYTES * SECTOR_BYTES),
            None => Ok(true),
        }
    }

    fn read(&self, at: u64, bytes: usize) -> Result<Vec<u8>, LogError> {
        let mut found = Vec::new();
        let left = usize::try_from(self.sectors_end().saturating_sub(at)).unwrap_or(usize::MAX);
        let read = self.file.read_at(&mut found, bytes.min(left), at);
        read.map_err(|source| LogError::io("read", self.path, source))?;
        Ok(found)
    }

    /// Where the sectors end that the range has bytes in. What is behind the range may begin with zeros that were not written either.
    fn sectors_end(&self) -> u64 {
        self.behind.next_multiple_of(SECTOR_BYTES)
    }

    /// Whether the batch says that it is longer than the range: the file was cut short in it, and what is whole behind that is the next
    /// segment, or a part of its records that happens to look like a batch.
    fn lacks_its_end(&self) -> Result<bool, LogError> {
        let left = usize::try_from(self.behind - self.position).unwrap_or(usize::MAX);
        let front = self.read(self.position, HEADER_BYTES.min(left))?;
        let cut_off = self.ends_the_file && front.len() < HEADER_BYTES;
        let header = BatchHeader::parse(&front).ok().filter(|header| header.base_offset == self.expected);
        let is_longer = |header: BatchHeader| self.position + header.total_bytes() as u64 > self.behind;
        let follows = |header: &BatchHeader| !self.ends_the_file && header.next_offset() == self.next_offset;
        Ok(cut_off || header.filter(|header| !follows(header)).is_some_and(is_longer))
    }

    /// Whether a sector of the range was never written.
    fn has_hole(&self) -> Result<bool, LogError> {
        let mut sector = self.position / SECTOR_BYTES * SECTOR_BYTES;
        while sector < self.behind {
            let from = sector.max(self.position);
            // Up to the end of a sector.
            let bytes = self.read(from, READ_AT_ONCE_BYTES - usize::try_from(from - sector).unwrap_or(0))?;
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let skipped = self.position.saturating_sub(sector);
                let piece_bytes = usize::try_from(SECTOR_BYTES - skipped).unwrap_or(0).min(rest.len());
                let (piece, behind) = rest.split_at(piece_bytes);
                if self.was_never_written(sector, piece) {
                    return Ok(true);
                }
                rest = behind;
                sector += SECTOR_BYTES;
            }
            if bytes.is_empty() {
                break;
            }
        }
        Ok(false)
    }

    fn is_hole(&self, sector: u64) -> Result<bool, LogError> {
        let from = sector.max(self.position);
        let bytes = self.read(from, usize::try_from(sector + SECTOR_BYTES - from).unwrap_or(0))?;
        Ok(self.was_never_written(sector, &bytes))
    }

    /// Whether these are the zeros of a sector that was not written. `bytes` are those of the sector from the start of the range on.
    fn was_never_written(&self, sector: u64, bytes: &[u8]) -> bool {
        // The first bytes of the batch are those of its offset, which are zeros in any log of this world.
        let expected = self.expected.to_be_bytes();
        let is_front_of_offset = sector < self.position && expected.starts_with(bytes);
        !is_front_of_offset && bytes.iter().all(|byte| *byte == 0)
    }

    /// The position of the one byte that keeps the range from being a whole batch, if it is one byte: a flipped bit in what the checksum
    /// covers or in the checksum, or a changed byte in front of it.
    fn changed_byte(&self) -> Result<Option<u64>, LogError> {
        let Ok(bytes) = usize::try_from(self.behind - self.position) else { return Ok(None) };
        if !(HEADER_BYTES..=EXPLAINED_BYTES_MAX).contains(&bytes) {
            return Ok(None);
        }
        let whole = self.read(self.position, bytes)?;
        Ok(changed_byte(&whole, self.expected).map(|at| self.position + at as u64))
    }
}

/// As [`Suspect::changed_byte`], for the bytes of what should be a batch that begins with this offset.
fn changed_byte(whole: &[u8], expected: i64) -> Option<usize> {
    let (front, covered) = whole.split_at_checked(CHECKSUMMED_FROM)?;
    let stored = u32::from_be_bytes(*front.get(CRC_AT..)?.first_chunk()?);
    let mut checksum = BatchChecksum::new();
    checksum.update(covered);
    let difference = stored ^ checksum.value();
    if difference == 0 {
        let length = i32::try_from(whole.len() - LENGTH_PREFIX_BYTES).ok()?;
        let mut right = front.to_vec();
        right[..8].copy_from_slice(&expected.to_be_bytes());
        right[8..12].copy_from_slice(&length.to_be_bytes());
        right[MAGIC_AT] = MAGIC.to_be_bytes()[0];
        let mut changed = (0..front.len()).filter(|at| front[*at] != right[*at]);
        let first = changed.next();
        return first.filter(|_| changed.next().is_none());
    }
    if difference.is_power_of_two() {
        return Some(CRC_AT + 3 - usize::try_from(difference.trailing_zeros() / 8).unwrap_or(0));
    }
    // What the checksum changes by if the last bit is flipped, the one before it, and so on to the first.
    let mut of_this_bit = CRC_32C_REFLECTED;
    for back in 1..=covered.len() {
        for _ in 0..8 {
            if of_this_bit == difference {
                return Some(whole.len() - back);
            }
            of_this_bit = (of_this_bit >> 1) ^ if of_this_bit & 1 == 1 { CRC_32C_REFLECTED } else { 0 };
        }
    }
    None
}

/// What a disk writes whole or not at all.
const SECTOR_BYTES: u64 = 512;

/// Bytes that are read at once while looking for a hole; a multiple of a sector.
const READ_AT_ONCE_BYTES: usize = 1 << 20;

/// The largest batch in which a flipped bit is looked for: some 40 ms of computing.
const EXPLAINED_BYTES_MAX: usize = 4 << 20;

/// Where a header has its checksum.
const CRC_AT: usize = 17;

/// Where a header has the format version.
const MAGIC_AT: usize = 16;

/// Bytes in front of what a batch's length counts.
const LENGTH_PREFIX_BYTES: usize = 12;

/// The polynomial of the checksum, its bits in the order in which they are computed (RFC 3720, appendix B.4).
const CRC_32C_REFLECTED: u32 = 0x82F6_3B78;

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use millpond_protocol::batch::{Batch, BatchBuilder};
    use millpond_protocol::{compression::Codec, record::NewRecord};

    fn batch(value: &[u8]) -> Vec<u8> {
        let mut builder = BatchBuilder::new();
        builder.push(&NewRecord { timestamp: 5, key: None, value: Some(value), headers: &[] }).expect("fits");
        let bytes = builder.finish(Codec::None).expect("a record");
        let head = Batch::parse(bytes.clone()).expect("a batch").with_base_offset(4_711, 3);
        [&head[..], &bytes[head.len()..]].concat()
    }

    #[test]
    fn the_byte_of_every_flipped_bit_is_found() {
        let whole = batch(&[7; 300]);
        assert_eq!(changed_byte(&whole, 4_711), None, "nothing is wrong");
        for bit in (0..whole.len() * 8).filter(|bit| !(12 * 8..16 * 8).contains(bit)) {
            let mut damaged = whole.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(changed_byte(&damaged, 4_711), Some(bit / 8), "bit {bit}");
        }
    }

    #[test]
    fn more_than_one_changed_byte_is_not_explained() {
        let whole = batch(&[7; 300]);
        for (one, other) in [(0, 9), (20, 200), (100, 101), (60, 360)] {
            let mut damaged = whole.clone();
            damaged[one] ^= 3;
            damaged[other] ^= 5;
            assert_eq!(changed_byte(&damaged, 4_711), None);
        }
        for length in 0..whole.len() {
            assert_eq!(changed_byte(&whole[..length], 4_711).filter(|at| *at >= length), None, "never outside");
        }
        assert!(Batch::parse(Bytes::from(whole)).is_ok());
    }
}

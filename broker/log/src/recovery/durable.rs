//! What is written down of how far a log was durable, and the segment that holds less.
//!
//! Pure but for [`Durable::read`] and [`Durable::holds_less`], which only read: an opening asks here what to do, and so does whoever wants
//! to know beforehand what it will do.

use std::path::Path;

use crate::clean_stop::{CleanStop, clean_stop_path};
use crate::disk::Disk;
use crate::error::{LogError, is_unreadable};
use crate::folder::{LOG, file_path};
use crate::inspect::{Piece, SegmentWalk};
use crate::producers::Listed;
use crate::recovery_point::{RECOVERY_POINT, read_recovery_point};
use crate::sidecar::{Found, once_more};

/// The recovery point and the note of a clean stop, as far as each is whole.
#[derive(Debug)]
pub(crate) struct Durable {
    /// The base offset of the first segment that may not be whole and durable.
    pub(crate) point: Option<i64>,
    /// Whether that has a checksum. The layout that has none is good enough for where to begin reading, and no evidence of a loss.
    is_sealed: bool,
    /// What the recovery point says of the producers before it.
    pub(crate) listed: Option<Listed>,
    pub(crate) note: Found<Note>,
}

/// The note of a clean stop.
#[derive(Debug)]
pub(crate) struct Note {
    pub(crate) stop: CleanStop,
    pub(crate) producers: Listed,
    /// Whether the files of the last segment have the sizes that it says.
    fits: bool,
}

impl Durable {
    /// What the disk does not give back, a second time neither, counts as missing, or as damaged: it is no evidence, and more is read for it.
    pub(crate) fn read(disk: &dyn Disk, dir: &Path) -> Result<Durable, LogError> {
        let path = dir.join(RECOVERY_POINT);
        let point = match once_more(|| read_recovery_point(disk, dir)) {
            Err(error) if is_unreadable(&error) => {
                tracing::warn!(path = %path.display(), %error, "the disk does not give the recovery point back; it counts as missing");
                None
            }
            point => point.map_err(|source| LogError::io("read", &path, source))?,
        };
        let path = clean_stop_path(dir);
        let io = |source| LogError::io("read", &path, source);
        let note = match once_more(|| CleanStop::find(disk, dir)) {
            Err(error) if is_unreadable(&error) => Found::Damaged,
            found => found.map_err(io)?,
        };
        let note = match note {
            Found::Whole((stop, producers)) => Found::Whole(Note { stop, producers, fits: stop.fits(disk, dir).map_err(io)? }),
            Found::Damaged => Found::Damaged,
            Found::Nothing => Found::Nothing,
        };
        let is_sealed = point.as_ref().is_some_and(|point| point.is_sealed);
        let (point, listed) = point.map_or((None, None), |point| (Some(point.base_offset), point.producers));
        Ok(Durable { point, is_sealed, listed, note })
    }

    /// The note, if it is whole. It may be of an earlier stop: then it is true, and says less than there is.
    fn stop(&self) -> Option<&CleanStop> {
        if let Found::Whole(note) = &self.note { Some(&note.stop) } else { None }
    }

    /// Everything before this offset was durable once. None if nothing with a checksum says so of any.
    pub(crate) fn end(&self) -> Option<i64> {
        self.sealed_point().max(self.stop().map(|stop| stop.tail.next_offset))
    }

    fn sealed_point(&self) -> Option<i64> {
        self.point.filter(|_| self.is_sealed)
    }

    /// Where the log ends, if the last segment is as the log was closed with, so that it need not be read.
    pub(crate) fn closed_end(&self, last: Option<i64>, log_start: Option<i64>, interval_bytes: Option<u64>) -> Option<i64> {
        let Found::Whole(Note { stop: CleanStop { tail, .. }, fits, .. }) = &self.note else { return None };
        let base = Some(tail.base_offset);
        let is_in_range = log_start.is_none_or(|start| start <= tail.next_offset);
        let is_as_indexed = interval_bytes.is_none_or(|bytes| tail.indexer.interval_bytes == bytes);
        (*fits && base == last && base == self.point && is_in_range && is_as_indexed).then_some(tail.next_offset)
    }

    /// Where the segments begin that may be torn, of a log with these.
    pub(crate) fn unproven_from(&self, bases: &[i64]) -> i64 {
        let (first, last) = (bases.first().copied().unwrap_or(0), bases.last().copied().unwrap_or(0));
        let proven_to = self.sealed_point().max(self.stop().map(|stop| stop.tail.base_offset)).or(self.point);
        match (self.end(), proven_to) {
            // All before it is durable, whether or not an opening has got as far as moving the point here.
            (Some(end), _) if bases.contains(&end) => end,
            (_, Some(point)) if bases.contains(&point) => point,
            // Its segment was deleted, and nothing is known of those behind it.
            (_, Some(point)) if point < first => first,
            // A point that names no segment says nothing of those that are there.
            _ => last,
        }
    }

    /// Where the log goes on if its last segment lacks some of what was durable: behind all that was, and all that is there. None if
    /// it lacks nothing, or if all of it is deleted.
    pub(crate) fn holds_less(&self, disk: &dyn Disk, dir: &Path, last: i64, log_start: Option<i64>) -> Result<Option<i64>, LogError> {
        let Some(end) = self.end().filter(|end| *end > last) else { return Ok(None) };
        let mut walk = SegmentWalk::open(disk, &file_path(dir, last, LOG), last, None)?;
        let mut lacks_some = false;
        while let Some(piece) = walk.next_piece()? {
            lacks_some |= matches!(piece, Piece::Damage(range) if range.offset < end);
        }
        let goes_on = walk.next_offset().max(end);
        lacks_some |= walk.next_offset() < end;
        Ok(lacks_some.then_some(goes_on).filter(|goes_on| log_start.is_none_or(|start| start < *goes_on)))
    }

    /// The producers at this offset, if they are written down.
    pub(crate) fn producers_at(&mut self, offset: i64) -> Option<Listed> {
        let at_point = self.sealed_point() == Some(offset);
        match &mut self.note {
            Found::Whole(note) if note.stop.tail.next_offset == offset => Some(std::mem::take(&mut note.producers)),
            _ if at_point => self.listed.take(),
            _ => None,
        }
    }
}

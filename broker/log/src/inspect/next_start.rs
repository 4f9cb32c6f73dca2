//! What the next start of the broker will do with a log, by the recovery's own rules.

use std::ops::Range;
use std::path::Path;

use crate::disk::Disk;
use crate::error::{LogError, is_unreadable};
use crate::flush_failed;
use crate::log_start::StartFiles;
use crate::recovery::Durable;

/// Where a log ends that was closed with its last segment as it is now, and that nobody has appended to since.
pub(super) fn closed_end(disk: &dyn Disk, dir: &Path, last: i64, log_start: Option<i64>) -> Option<i64> {
    Durable::read(disk, dir).ok()?.closed_end(Some(last), log_start, None)
}

/// See the module.
#[derive(Debug)]
pub(super) struct NextStart {
    /// The offsets of the segments that are gone in front of the first one, or altogether.
    pub(super) gone_in_front: Option<Range<i64>>,
    /// Where the log goes on, if its last segment lacks what was durable.
    pub(super) goes_on: Option<i64>,
    /// Whether the recovery point says where it goes on.
    pub(super) is_pointed_at: bool,
    /// Where the log ends, if it was closed with its last segment as that is now: the start reads nothing of it, and cuts nothing.
    pub(super) closed_end: Option<i64>,
    /// The first segment of those in which a torn tail, or what is behind a hole, is cut. None if nothing is.
    cuts_from: Option<i64>,
    /// Whether a place was found where it will be cut: what is behind it is not looked at any more.
    pub(super) is_cut: bool,
}

impl NextStart {
    /// Looks at what is written down beside these segments, which are not deleted. Reads the last one if that may hold less than was durable.
    pub(super) fn look(disk: &dyn Disk, dir: &Path, bases: &[i64], log_start: Option<i64>) -> Result<NextStart, LogError> {
        let durable = Durable::read(disk, dir)?;
        let starts = StartFiles::read(disk, dir)?;
        let flush_has_failed = flush_failed::is_noted(disk, dir).map_err(|source| LogError::io("look for", dir, source))?;
        let mut is_closed_up = false;
        let (gone_from, gone_to, goes_on) = match bases {
            [] => (Some(log_start.unwrap_or(0)), durable.end(), None),
            [first, .., last] | [first @ last] => {
                let goes_on = match durable.holds_less(disk, dir, *last, log_start) {
                    // No start gets past that, so none cuts anything.
                    Err(LogError::Io { source, .. }) if is_unreadable(&source) => {
                        is_closed_up = true;
                        None
                    }
                    goes_on => goes_on?,
                };
                (starts.claimed(), Some(*first), goes_on)
            }
        };
        let gone_in_front = gone_from.zip(gone_to).map(|(from, to)| from..to).filter(|gone| !gone.is_empty());
        let closed_end = durable.closed_end(bases.last().copied(), log_start, None).filter(|_| !flush_has_failed);
        let goes_on = goes_on.filter(|_| closed_end.is_none());
        let cuts = closed_end.is_none() && !is_closed_up && goes_on.is_none() && !bases.is_empty();
        let cuts_from = cuts.then(|| durable.unproven_from(bases));
        let is_pointed_at = goes_on.is_some() && durable.point == goes_on;
        Ok(NextStart { gone_in_front, goes_on, is_pointed_at, closed_end, cuts_from, is_cut: false })
    }

    /// Where the log goes on behind its last segment, if that is written down: up to there each offset was given out.
    pub(super) fn end(&self) -> Option<i64> {
        self.goes_on.or(self.closed_end)
    }

    /// Whether the next start cuts this segment where it meets the end of a write that was never finished.
    pub(super) fn may_cut(&self, base_offset: i64) -> bool {
        !self.is_cut && self.cuts_from.is_some_and(|from| from <= base_offset)
    }
}

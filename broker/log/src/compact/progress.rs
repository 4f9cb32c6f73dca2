//! How far compaction is, and what a pass has done, for whoever watches over it.

use super::{CompactionPass, Compactor};
use crate::error::LogError;

/// How far a log is compacted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The first dirty offset.
    pub compacted_to: i64,
    /// No pass has looked at the offsets from here on. What had to stay dirty because of a segment that can't be read lies before it: it is
    /// no reason for another pass.
    pub dirty_from: i64,
    /// Bytes of the closed segments that hold any of them ([`LogReader::closed_bytes_from`](crate::LogReader::closed_bytes_from)).
    pub dirty_bytes: u64,
    /// There is no pass before the log was opened again: an exchange of segments has failed in the middle.
    pub is_stuck: bool,
    /// There is no pass before a deletion is completed that has failed half way on a full disk, unless it is under way just now. The next
    /// one completes it, from whatever offset on ([`Log::begin_delete`](crate::Log::begin_delete)).
    pub waits_for_deletion: bool,
}

/// What a pass has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compacted {
    /// The first offset that was dirty before.
    pub from: i64,
    /// The first offset that is dirty now.
    pub to: i64,
    /// Bytes of the segments that were looked at.
    pub bytes_before: u64,
    /// Bytes that they have now.
    pub bytes_after: u64,
    /// Bytes of segments that were read, as often as they were.
    pub bytes_read: u64,
    /// Bytes that were written.
    pub bytes_written: u64,
    /// Records that are gone.
    pub records_removed: u64,
    /// Segments that were looked at.
    pub segments_before: u64,
    /// Segments that they are now.
    pub segments_after: u64,
    /// Segments that could not be read as a whole. Tombstones behind the first of them stay, and so does where the next pass begins.
    pub segments_damaged: u64,
}

impl Compactor {
    /// Reads how far the log is compacted, unless that is known: one small file.
    ///
    /// # Errors
    ///
    /// [`LogError::Io`], [`LogError::TooManyOpenFiles`].
    pub fn learn(&mut self) -> Result<(), LogError> {
        self.compacted_to().map(drop)
    }

    /// How far the log is compacted at this moment. Reads nothing: before [`Compactor::learn`], or a pass was asked for, nobody knows, and
    /// everything counts as dirty.
    pub fn progress(&self) -> Progress {
        let compacted_to = self.compacted_to.unwrap_or(0);
        let dirty_from = self.held.map_or(compacted_to, |held| held.tried_to.max(compacted_to));
        Progress {
            compacted_to,
            dirty_from,
            dirty_bytes: self.folders.shared.closed_bytes_from(dirty_from),
            is_stuck: self.is_stuck,
            waits_for_deletion: self.folders.shared.leaving().is_some(),
        }
    }
}

impl CompactionPass {
    /// What it has done so far. `bytes_before` and `bytes_after` are there once every segment was looked at.
    pub fn so_far(&self) -> Compacted {
        self.done
    }
}

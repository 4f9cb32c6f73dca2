//! What an opening tells of what it found.

use std::io;
use std::path::PathBuf;

use crate::error::Damage;
use crate::kept::SetAside;

/// What an opening found and did, in all of its tries. `Default` is a log that was as it should be.
#[derive(Debug, Default)]
pub struct RecoveryReport {
    /// Whether the log was closed in order, so that its last segment was not read.
    pub clean_stop: bool,
    /// Bytes of batches that were read and compared with their checksums.
    pub scanned_bytes: u64,
    /// Bytes that were cut off or removed, all segments together, kept or not. They were written after the last flush, or damaged since.
    pub truncated_bytes: u64,
    /// Where the log was cut.
    pub cut: Option<Cut>,
    /// Base offsets of the segments behind the cut that were removed.
    pub removed_segments: Vec<i64>,
    /// What of that had whole batches in it, and where it is now.
    pub set_aside: Vec<SetAside>,
    /// Index files that were missing or wrong, and were built again from the batches.
    pub rebuilt_indexes: Vec<PathBuf>,
    /// Files of no use that were removed.
    pub removed_leftovers: Vec<PathBuf>,
    /// Damage in segments that were durable, and in the middle of others. Nothing was changed there; reads of these places fail.
    pub damaged: Vec<DamagedSegment>,
    /// Where the log begins because every file that held its log start was damaged: the first segment that is left. Records of that
    /// segment that were deleted are served again. The files are written anew, so that the next opening does not say it.
    pub lost_log_start: Option<i64>,
    /// Files with the log start that were damaged, and were written anew from the other one. Nothing is lost.
    pub mended_log_start: Vec<PathBuf>,
    /// Why index files could not be written, whose entries stay in memory.
    pub(crate) unwritten_indexes: Vec<io::Error>,
    /// What the system shows of the files may not be on disk: a flush has failed in a try before this one, or it was noted.
    pub(crate) flush_has_failed: bool,
}

/// The place where a log was cut.
#[derive(Debug)]
pub struct Cut {
    /// Base offset of the segment.
    pub segment: i64,
    /// Bytes that are left in it.
    pub position: u64,
    /// The next offset of the log from here on.
    pub next_offset: i64,
    /// What came there.
    pub reason: Damage,
}

/// Damage that is not to be cut off.
#[derive(Debug)]
pub struct DamagedSegment {
    /// The file.
    pub path: PathBuf,
    /// Where it begins, in bytes from the start of the file.
    pub position: u64,
    /// What came there.
    pub reason: Damage,
}

impl RecoveryReport {
    /// Before a further try: what that one finds of this is all there is to say.
    pub(crate) fn begin_try(&mut self) {
        self.clean_stop = false;
        self.unwritten_indexes.clear();
    }

    /// Notes what was kept, if an earlier try has not.
    pub(crate) fn add_set_aside(&mut self, part: Option<SetAside>) {
        self.set_aside.extend(part.filter(|part| !self.set_aside.contains(part)));
    }

    /// Notes damage, if an earlier try has not.
    pub(crate) fn add_damaged(&mut self, path: PathBuf, position: u64, reason: Damage) {
        if !self.damaged.iter().any(|known| known.path == path && known.position == position) {
            self.damaged.push(DamagedSegment { path, position, reason });
        }
    }

    /// Whether nothing had to be repaired and nothing is damaged.
    pub fn is_clean(&self) -> bool {
        self.truncated_bytes == 0
            && self.cut.is_none()
            && self.removed_segments.is_empty()
            && self.set_aside.is_empty()
            && self.rebuilt_indexes.is_empty()
            && self.removed_leftovers.is_empty()
            && self.damaged.is_empty()
            && self.lost_log_start.is_none()
            && self.mended_log_start.is_empty()
    }
}

//! Segments that a pass can't read, now or for good.
//!
//! ```text
//!              compacted-to stays                  no tombstone goes, and none is dated
//! |------------------|xxxxxxxxxxxx|-------------------------------------------------|----------->
//!   clean             can't be read    its records may be older than any of these   ^ where the pass has ended: tried_to
//! ```
//!
//! What such a segment holds is not known, and it may be readable the next time: an older value of a key whose tombstone lies behind it,
//! or a tombstone of its own, whose older values are still there. Were the tombstone gone by then, the value would be back. So from the
//! first such segment on tombstones stay as they are, and the log does not count as compacted beyond its start: the pass that can read it
//! again notes all keys from there on, and only then dates the tombstones.
//!
//! Until then no pass begins for what was looked at already: only what was appended behind `tried_to` counts as dirty. A pass reads the
//! segment first, and if that fails again it notes the keys from `tried_to` on alone, as if the log were compacted up to there. So a segment
//! that is damaged for good costs each pass one look at it, and one that is back is caught up with at the next pass. `tried_to` is not
//! written down: an opened log is looked at once from `compacted-to` on.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::compact::write::each_batch;
use crate::error::LogError;
use crate::inspect::RECORDS_BYTES_MAX;
use crate::segment::Segment;

/// The first segment that the last pass could not read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    pub(super) base_offset: i64,
    /// The keys of all records before this offset were noted by some pass, as far as they could be read.
    pub(super) tried_to: i64,
}

/// What one pass could not read: why, by base offset.
#[derive(Debug, Default)]
pub(super) struct Unreadable {
    pub(super) causes: BTreeMap<i64, String>,
}

impl Unreadable {
    /// The base offset of the first such segment.
    pub(super) fn first(&self) -> Option<i64> {
        self.causes.first_key_value().map(|(base_offset, _)| *base_offset)
    }

    /// Takes down how the reading of a segment came out, and whether there were records in it that can't be decoded. Says whether it could be
    /// read.
    ///
    /// # Errors
    ///
    /// The error, if it says nothing about the segment: [`LogError::TooManyOpenFiles`].
    pub(super) fn note(&mut self, segment: &Segment, read: Result<(), LogError>, is_undecodable: bool) -> Result<bool, LogError> {
        let is_read = match read {
            Err(error @ (LogError::Corrupt { .. } | LogError::Io { .. })) => {
                self.causes.entry(segment.base_offset()).or_insert_with(|| error.chain());
                false
            }
            read => read.map(|()| true)?,
        };
        if is_undecodable {
            let cause = || format!("{} has a batch whose records can't be decoded", segment.path().display());
            self.causes.entry(segment.base_offset()).or_insert_with(cause);
        }
        Ok(is_read)
    }

    /// Says what can't be read, in one line, but for what was said after the last pass.
    pub(super) fn say(&self, dir: &Path, said: &mut BTreeSet<i64>) {
        let mut new = self.causes.iter().filter(|(base_offset, _)| !said.contains(base_offset)).map(|(_, cause)| cause);
        if let Some(cause) = new.next() {
            let segments = 1 + new.count();
            let hint = "`log verify` shows damage, `log repair` mends it";
            tracing::error!(dir = %dir.display(), segments, cause, hint, "compaction leaves alone what it can't read, and the tombstones behind");
        }
        *said = self.causes.keys().copied().collect();
    }
}

/// Reads a segment through, its records too. Whether they can all be decoded.
pub(super) fn read_through(segment: &Segment, end_offset: i64) -> Result<bool, LogError> {
    let mut is_decodable = true;
    each_batch(segment, end_offset, |batch| {
        is_decodable &= batch.header().attributes.is_control() || batch.check_records(RECORDS_BYTES_MAX).is_ok();
        Ok(())
    })?;
    Ok(is_decodable)
}

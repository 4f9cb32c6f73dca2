//! Room for a new segment, which is written before those that it replaces go: on a full disk it is looked for first, so that nothing is
//! written in vain.

use std::io;

use super::group::{State, Survey};
use super::{CompactionPass, CompactionStep, Compactor, Folders};
use crate::error::LogError;

impl Compactor {
    /// Fails where the disk says that what is left of a group has no room on it beside the old segments.
    pub(super) fn find_room(&self, group: &[Survey]) -> Result<(), LogError> {
        let Folders { disk, dir, .. } = &self.folders;
        let kept: u64 = group.iter().map(|survey| survey.kept_bytes).sum();
        let needed = kept + kept / INDEX_PART + SMALL_FILES_BYTES;
        match disk.free_bytes(dir) {
            Ok(Some(free)) if free < needed => {
                let said = format!("{needed} bytes are needed for a new segment before others go, and {free} are free");
                let source = io::Error::new(io::ErrorKind::StorageFull, said);
                Err(LogError::io("compact", dir, source))
            }
            // Else it is seen by trying.
            _ => Ok(()),
        }
    }
}

impl CompactionPass {
    /// Of a group for which there is no room, each half may find some, the second one in what the first one has freed. Fails where one
    /// segment alone has none.
    pub(super) fn in_halves(&mut self, mut group: Vec<Survey>, error: LogError) -> Result<CompactionStep, LogError> {
        let is_one = group.len() == 1;
        let second = group.split_off(group.len() / 2);
        for half in [second, group] {
            // One that does not change is not written for itself.
            if half.len() > 1 || half.first().is_some_and(|survey| survey.state == State::Changed) {
                self.once_more(half);
            }
        }
        if is_one { Err(error) } else { Ok(CompactionStep::More) }
    }
}

/// The indexes of a segment take less than such a part of it.
const INDEX_PART: u64 = 64;

/// More than the other files of an exchange take.
const SMALL_FILES_BYTES: u64 = 1 << 10;

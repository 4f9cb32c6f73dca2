//! What the headers of the batches say, read from the segments where nothing was written down.

use std::path::Path;
use std::sync::Arc;

use super::table::Producers;
use crate::disk::{Disk, OpenMode};
use crate::error::LogError;
use crate::folder::{LOG, file_path};
use crate::inspect::{Piece, SegmentWalk};
use crate::scan::Scan;

impl Producers {
    /// Reads the headers of these segments, oldest first. Where one can't be read, the rest of its segment is passed over: the producers
    /// that wrote there are told that they are unknown, and begin anew.
    pub(crate) fn observe_segments(&mut self, disk: &Arc<dyn Disk>, dir: &Path, bases: &[i64]) -> Result<(), LogError> {
        bases.iter().try_for_each(|base_offset| pass_over(self.observe_segment(disk, dir, *base_offset)))
    }

    /// As [`Producers::observe_segments`], with the checksum of each batch, and going on behind damage.
    pub(crate) fn observe_in_full(&mut self, disk: &Arc<dyn Disk>, dir: &Path, bases: &[i64]) -> Result<(), LogError> {
        bases.iter().try_for_each(|base_offset| pass_over(self.observe_whole(disk, dir, *base_offset)))
    }

    fn observe_whole(&mut self, disk: &Arc<dyn Disk>, dir: &Path, base_offset: i64) -> Result<(), LogError> {
        let mut walk = SegmentWalk::open(&**disk, &file_path(dir, base_offset, LOG), base_offset, None)?;
        while let Some(piece) = walk.next_piece()? {
            if let Piece::Batch(batch) = piece {
                self.observe(&batch.header, batch.header.base_offset);
            }
        }
        Ok(())
    }

    fn observe_segment(&mut self, disk: &Arc<dyn Disk>, dir: &Path, base_offset: i64) -> Result<(), LogError> {
        let path = file_path(dir, base_offset, LOG);
        let opened = disk.open(&path, OpenMode::Read).and_then(|file| file.size_bytes().map(|bytes| (file, bytes)));
        let (log, bytes) = opened.map_err(|source| LogError::io("open", &path, source))?;
        let mut scan = Scan::new(log, path, base_offset, 0, bytes);
        while let Some(found) = scan.next_header()? {
            self.observe(&found.header, found.header.base_offset);
        }
        Ok(())
    }
}

/// What can't be read costs its producers an error, and keeps no log from opening.
fn pass_over(observed: Result<(), LogError>) -> Result<(), LogError> {
    match observed {
        Err(error) if !error.is_passing() => {
            tracing::warn!(error = error.chain(), "what the rest of a segment says of its producers can't be read, and is passed over");
            Ok(())
        }
        other => other,
    }
}

//! What the walk over one segment that may be torn has shown.

use std::path::PathBuf;
use std::sync::Arc;

use crate::damages::DamagedSpan;
use crate::disk::DiskFile;
use crate::error::Damage;
use crate::index::Entries;
use crate::tail::Tail;
use crate::verdict::Place;

/// What reading a segment in full has shown.
pub(super) struct Walk {
    /// Held from the first read to the sync, so that no error of the file is lost in between.
    pub(super) log: Arc<dyn DiskFile>,
    pub(super) path: PathBuf,
    pub(super) file_bytes: u64,
    /// The offset that the next segment begins with, if there is one.
    pub(super) next_base: Option<i64>,
    /// What ended the walk before the end of the file.
    pub(super) damage: Option<Damage>,
    /// Whether there are whole batches behind that.
    pub(super) is_interrupted: bool,
    /// What the walk has stepped over.
    pub(super) damages: Vec<DamagedSpan>,
    /// The end of the whole batches, and of the damage in front of others.
    pub(super) tail: Tail,
    /// What the indexes should hold for them.
    pub(super) entries: Entries,
}

impl Walk {
    /// Where it has ended.
    pub(super) fn place(&self) -> Place<'_> {
        let Tail { base_offset, bytes, next_offset, .. } = self.tail;
        Place { path: &self.path, base_offset, next_base: self.next_base, position: bytes, expected: next_offset }
    }
}

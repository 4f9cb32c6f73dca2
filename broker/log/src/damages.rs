//! Where a segment is damaged in the middle, as far as it is known, so that readers can step over it.
//!
//! A lookup walks from batch to batch, and ends at one that is damaged. What is behind can be found all the same once somebody has looked
//! for it, by the checksums: the recovery has where it read the segment, and otherwise the first read that meets the damage does, once for each
//! segment and opening.

use std::sync::OnceLock;

use crate::error::LogError;
use crate::inspect::{Piece, SegmentWalk};

/// Bytes of a segment that hold no whole batch, with something whole behind them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DamagedSpan {
    /// Where they begin, in bytes from the start of the file.
    pub(crate) position: u64,
    /// Where the next whole batch begins, or the file ends.
    pub(crate) behind: u64,
    /// The offset that was expected at the start.
    pub(crate) offset: i64,
    /// The first offset behind.
    pub(crate) next_offset: i64,
}

/// The damage of one segment, rising.
#[derive(Debug, Default)]
pub(crate) struct Damages {
    spans: OnceLock<Vec<DamagedSpan>>,
}

impl Damages {
    /// What a recovery has found. Empty if it has found nothing, so that a read may still look.
    pub(crate) fn new(spans: Vec<DamagedSpan>) -> Damages {
        let damages = Damages::default();
        if !spans.is_empty() {
            damages.learn(spans);
        }
        damages
    }

    /// What is known, rising.
    pub(crate) fn spans(&self) -> &[DamagedSpan] {
        self.spans.get().map_or(&[], Vec::as_slice)
    }

    /// Whether somebody has looked.
    pub(crate) fn is_surveyed(&self) -> bool {
        self.spans.get().is_some()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.spans().is_empty()
    }

    /// Takes what was found. Who comes second has found the same.
    pub(crate) fn learn(&self, spans: Vec<DamagedSpan>) {
        let _ = self.spans.set(spans);
    }

    /// The damage that has taken the place of this offset.
    pub(crate) fn holding(&self, offset: i64) -> Option<DamagedSpan> {
        self.spans().iter().copied().find(|span| (span.offset..span.next_offset).contains(&offset))
    }

    /// Where the batches begin behind the last damage before this offset; 0 if there is none.
    pub(crate) fn end_before(&self, offset: i64) -> u64 {
        self.spans().iter().filter(|span| span.next_offset <= offset).map(|span| span.behind).max().unwrap_or(0)
    }

    /// Whether damage begins here.
    pub(crate) fn begin_at(&self, position: u64) -> bool {
        self.spans().iter().any(|span| span.position == position)
    }
}

/// Walks on to the end and gathers the damage on the way; not what the walk ends with, if nobody can say what is behind it.
pub(crate) fn survey(mut walk: SegmentWalk) -> Result<Vec<DamagedSpan>, LogError> {
    let mut spans = Vec::new();
    while let Some(piece) = walk.next_piece()? {
        let Piece::Damage(range) = piece else { continue };
        let (position, behind, offset) = (range.position, range.position + range.bytes, range.offset);
        spans.extend(range.next_offset.map(|next_offset| DamagedSpan { position, behind, offset, next_offset }));
        if spans.len() == SPANS_MAX {
            break;
        }
    }
    Ok(spans)
}

/// Damaged places that are remembered of one segment: 32 KiB. Behind the last of them a lookup may not find its way.
pub(crate) const SPANS_MAX: usize = 1024;

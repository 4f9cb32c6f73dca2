//! Where a segment is damaged in the middle, as far as it is known, so that readers can step over it.
//!
//! A lookup walks from batch to batch, and ends at one that is damaged. What is behind can be found all the same once somebody has looked
//! for it, by the checksums. An opening has where it met damage. Otherwise a read does, by offset or by time, that meets damage of which nothing is known, and one
//! that works where damage is known: bytes change at any time, and what could not be read may be back. It reads the whole segment, so it is
//! done for nothing else, and no more than [`SURVEYS_MAX`] times.
//!
//! ```text
//!   | whole | whole | ?????????? | whole | whole | ?????
//!                   ^ span       ^ behind        ^ lost from here: nothing whole is behind, so nobody can say where to go on
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;

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

/// How far a segment reaches at some moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Extent {
    /// Bytes that readers may see.
    pub(crate) bytes: u64,
    /// Whether another segment follows, so that it does not grow.
    pub(crate) is_closed: bool,
}

/// What somebody has found who has read a segment through.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    /// Rising, [`SPANS_MAX`] at most.
    pub(crate) spans: Vec<DamagedSpan>,
    /// From where on nothing could be found: the position, and the offset that was expected there.
    pub(crate) lost_from: Option<(u64, i64)>,
    /// What was read.
    pub(crate) extent: Extent,
}

impl Survey {
    /// The offset where each damaged place begins.
    pub(crate) fn offsets(&self) -> impl Iterator<Item = i64> {
        self.spans.iter().map(|span| span.offset).chain(self.lost_from.map(|(_, offset)| offset))
    }
}

/// The damage of one segment.
#[derive(Debug, Default)]
pub(crate) struct Damages {
    /// None until some is met.
    known: ArcSwapOption<Survey>,
    /// Held by who reads the segment through, so that no two do at once.
    surveying: Mutex<()>,
    /// How often that was done.
    surveys: AtomicU32,
}

impl Damages {
    /// What an opening has found.
    pub(crate) fn new(spans: Vec<DamagedSpan>) -> Damages {
        let known = (!spans.is_empty()).then(|| Arc::new(Survey { spans, ..Survey::default() }));
        Damages { known: ArcSwapOption::from(known), ..Damages::default() }
    }

    /// What is known; None if that is nothing.
    pub(crate) fn known(&self) -> Option<Arc<Survey>> {
        self.known.load_full()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.find(|survey| survey.spans.first().copied()).is_none()
    }

    /// The damage that has taken the place of this offset.
    pub(crate) fn holding(&self, offset: i64) -> Option<DamagedSpan> {
        self.find(|survey| survey.spans.iter().copied().find(|span| (span.offset..span.next_offset).contains(&offset)))
    }

    /// The last damage before this offset.
    pub(crate) fn last_before(&self, offset: i64) -> Option<DamagedSpan> {
        self.find(|survey| survey.spans.iter().copied().rfind(|span| span.next_offset <= offset))
    }

    /// Whether damage begins here.
    pub(crate) fn begin_at(&self, position: u64) -> bool {
        self.find(|survey| survey.spans.iter().find(|span| span.position == position).copied()).is_some()
    }

    /// Where the first damage begins behind this position.
    pub(crate) fn next_behind(&self, position: u64) -> Option<u64> {
        self.find(|survey| survey.spans.iter().map(|span| span.position).find(|begin| *begin > position))
    }

    /// Whether damage that is met at this position, in a segment that reaches so far now, is nothing new.
    pub(crate) fn have(&self, position: u64, now: Extent) -> bool {
        self.find(|survey| {
            let is_in = |span: &DamagedSpan| span.position == position || (span.position..span.behind).contains(&position);
            // Once as much again is behind it, there may be something to go on with.
            let is_lost = |(from, _): (u64, i64)| {
                let seen = survey.extent;
                position >= from
                    && now.is_closed == seen.is_closed
                    && now.bytes.saturating_sub(seen.bytes) < seen.bytes.saturating_sub(from)
            };
            (survey.spans.iter().any(is_in) || survey.lost_from.is_some_and(is_lost)).then_some(())
        })
        .is_some()
    }

    fn find<T>(&self, look: impl FnOnce(&Survey) -> Option<T>) -> Option<T> {
        self.known.load().as_deref().and_then(look)
    }

    /// Lets one after the other read the segment through. Says whether anybody has meanwhile, so that what failed is worth another try.
    ///
    /// # Errors
    ///
    /// What `look` fails with. It can be tried again then.
    pub(crate) fn survey(&self, look: impl FnOnce() -> Result<Survey, LogError>) -> Result<bool, LogError> {
        let before = self.surveys.load(Ordering::Acquire);
        let _surveying = self.surveying.lock();
        if self.surveys.load(Ordering::Acquire) != before {
            return Ok(true);
        }
        if before == SURVEYS_MAX {
            return Ok(false);
        }
        let found = look()?;
        self.known.store(Some(Arc::new(found)));
        self.surveys.store(before + 1, Ordering::Release);
        Ok(true)
    }
}

/// Walks on to the end and gathers the damage on the way.
pub(crate) fn survey(mut walk: SegmentWalk, extent: Extent) -> Result<Survey, LogError> {
    let mut found = Survey { extent, ..Survey::default() };
    while let Some(piece) = walk.next_piece()? {
        let Piece::Damage(range) = piece else { continue };
        let (position, behind, offset) = (range.position, range.position + range.bytes, range.offset);
        match range.next_offset {
            Some(next_offset) => found.spans.push(DamagedSpan { position, behind, offset, next_offset }),
            None => found.lost_from = Some((position, offset)),
        }
        if found.spans.len() == SPANS_MAX {
            found.lost_from = Some((behind, walk.next_offset()));
            break;
        }
    }
    Ok(found)
}

/// Damaged places that are remembered of one segment: 32 KiB. Behind the last of them a lookup may not find its way.
pub(crate) const SPANS_MAX: usize = 1024;

/// How often one segment is read through for damage while its log is open. Each time the disk has to have changed its mind since the last,
/// so this bounds what one that fails and works in turns can cost.
pub(crate) const SURVEYS_MAX: u32 = 64;

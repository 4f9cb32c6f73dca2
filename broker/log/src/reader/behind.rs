//! Reading on behind damage, and telling where that can be done.

use std::sync::Arc;

use super::{Place, Read, read_from};
use crate::error::LogError;
use crate::segment::Segment;

/// As [`read_from`], also where there is damage in front of what is asked for that nobody has looked behind yet.
pub(super) fn read_around(
    segments: &[Arc<Segment>],
    known: Option<(&Arc<Segment>, u64, i64)>,
    offset: i64,
    max_bytes: usize,
    end: i64,
) -> Result<(Place, Read), LogError> {
    match read_from(segments, known, offset, max_bytes, end) {
        // What is behind the damage may be what was asked for.
        Err(LogError::Corrupt { position, .. }) if survey(segments, offset, position) => read_from(segments, None, offset, max_bytes, end),
        other => other,
    }
}

/// The first offset behind the damage at this one that can be read: tried, since what is known of damage need not be all. The end, if
/// nothing in front of it can be. None if there is too much damage, or it can't be looked at.
pub(super) fn readable_from(segments: &[Arc<Segment>], mut offset: i64, end: i64) -> Option<i64> {
    for _ in 0..DAMAGES_SKIPPED_MAX {
        offset = behind_damage(segments, offset, end)?;
        if offset >= end {
            return Some(end);
        }
        match read_around(segments, None, offset, 1, end) {
            Err(LogError::Corrupt { .. }) => {}
            read => return read.is_ok().then_some(offset),
        }
    }
    None
}

/// The offset behind the damaged place that holds `offset`, which a read has met: `end`, if nothing follows. None if nobody could look.
fn behind_damage(segments: &[Arc<Segment>], offset: i64, end: i64) -> Option<i64> {
    let after = segments.partition_point(|segment| segment.base_offset() <= offset);
    let segment = &segments[after.checked_sub(1)?];
    let next_base = segments.get(after).map_or(end, |next| next.base_offset());
    if let Some(span) = segment.damages().holding(offset) {
        return Some(span.next_offset);
    }
    // The segment was looked through before this place was damaged. If the header is whole, it says how far the batch goes.
    if let Ok(Some((found, _))) = segment.find(offset) {
        return Some(found.next_offset.min(next_base));
    }
    Some(next_base)
}

/// Looks for what is behind the damage in the segment that `offset` lies in, which was met at this position. Returns whether another try may
/// find more.
fn survey(segments: &[Arc<Segment>], offset: i64, position: u64) -> bool {
    let after = segments.partition_point(|segment| segment.base_offset() <= offset);
    let segment = after.checked_sub(1).and_then(|number| segments.get(number)).filter(|segment| !segment.is_removed());
    segment.is_some_and(|segment| segment.survey_for(position, segments.get(after).map(|next| next.base_offset())))
}

/// Damaged places, one behind the other, that are skipped in search of what can be read. With more of them a disk is beyond hints.
const DAMAGES_SKIPPED_MAX: usize = 64;

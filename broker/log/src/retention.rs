//! What is old enough to be deleted: decided from sizes and ages alone, without a clock or a file.
//!
//! The unit is the segment, and only a prefix of the log goes. The last segment is never deleted: where it should be, or where it has
//! been open so long that its first records would outlive the limit by much, the log begins a new one first, and what was the last
//! segment can go in its time.
//!
//! ```text
//!   segments, oldest first               active
//! |----------|----------|--------------|-----------|
//!   age > retention_ms    younger        begun more than retention_ms / 4 ago, or larger than retention_bytes / 4: roll
//!   deleted               kept
//! ```
//!
//! So a record is deleted between `retention_ms` and one and a quarter of it after it was appended, and the time between two checks. A
//! log has between `retention_bytes` and one and a quarter of it, and what is appended between two checks.
//!
//! Age is by append time, which the broker knows itself ([`AppendTimes`](crate::AppendTimes)), not by the timestamps of the records:
//! those come from producers whose clocks may be wrong by decades.

/// What is kept, for each partition. Without a limit everything is. Named as in Kafka (`retention.ms`, `retention.bytes`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RetentionLimits {
    /// A segment is deleted once its last append is longer ago than this many milliseconds.
    pub retention_ms: Option<u64>,
    /// The oldest segments are deleted as long as at least this many bytes are left without them.
    pub retention_bytes: Option<u64>,
}

/// What the decision needs to know of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentAge {
    /// One past its last offset.
    pub end_offset: i64,
    /// Bytes of its batches.
    pub bytes: u64,
    /// Milliseconds since it was begun, as far as is known; not more than that.
    pub since_begun_ms: u64,
    /// Milliseconds since its last append, as far as is known; not more than that.
    pub since_append_ms: u64,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Expired {
    /// The log should begin here: everything before it is to be deleted.
    pub delete_before: Option<i64>,
    /// The log should begin a new segment.
    pub roll: bool,
}

impl RetentionLimits {
    /// Whether anything is ever deleted.
    pub fn is_unlimited(&self) -> bool {
        *self == RetentionLimits::default()
    }

    /// What is to be done with a log of these segments, oldest first and the active one last. Only offsets before `below` are deleted:
    /// the high watermark.
    pub fn expired(&self, segments: &[SegmentAge], below: i64) -> Expired {
        let Some((active, closed)) = segments.split_last() else { return Expired::default() };
        let is_over = |value: u64, limit: Option<u64>| limit.is_some_and(|limit| value > limit);
        let mut left: u64 = segments.iter().map(|segment| segment.bytes).sum();
        let mut delete_before = None;
        for segment in closed {
            left -= segment.bytes;
            let too_old = is_over(segment.since_append_ms, self.retention_ms);
            let too_much = self.retention_bytes.is_some_and(|limit| left >= limit);
            if !(too_old || too_much) || segment.end_offset > below {
                break;
            }
            delete_before = Some(segment.end_offset);
        }
        let part = |limit: Option<u64>| limit.map(|limit| limit / ROLL_PARTS);
        let begun_long_ago = is_over(active.since_begun_ms, part(self.retention_ms));
        let roll = active.bytes > 0 && (begun_long_ago || is_over(active.bytes, part(self.retention_bytes)));
        Expired { delete_before, roll }
    }
}

/// The active segment is closed when it holds this part of what may be kept. With one large segment, nothing could go until all of it
/// could.
const ROLL_PARTS: u64 = 4;

//! Which batch goes where: decided before the first byte is written, so that a failed append has nothing to take back but bytes.

use std::ops::Range;

use millpond_protocol::batch::{Batch, BatchHeader};

use crate::config::LogConfig;
use crate::error::LogError;
use crate::index::{Entries, Indexer, TimeEntry};

/// The end of the active segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tail {
    /// Base offset of the segment.
    pub(crate) base_offset: i64,
    /// Bytes of whole batches in it.
    pub(crate) bytes: u64,
    /// The offset that the next batch begins with.
    pub(crate) next_offset: i64,
    pub(crate) indexer: Indexer,
}

impl Tail {
    /// The tail of an empty segment.
    pub(crate) fn new(base_offset: i64, config: &LogConfig) -> Tail {
        Tail { base_offset, bytes: 0, next_offset: base_offset, indexer: Indexer::new(base_offset, config.index_interval_bytes) }
    }
}

/// What one append does.
#[derive(Debug)]
pub(crate) struct Plan {
    /// The base offset of each batch.
    pub(crate) base_offsets: Vec<i64>,
    /// One for each segment that gets some of the batches. Only the first may go to the segment that is active already.
    pub(crate) groups: Vec<Group>,
    /// The end of the log afterwards.
    pub(crate) tail: Tail,
}

/// Batches that go to the same segment, one behind the other.
#[derive(Debug)]
pub(crate) struct Group {
    /// Set if the segment is a new one; holds what the segment before it gets when it is closed.
    pub(crate) opens: Option<Closing>,
    /// Base offset of the segment.
    pub(crate) segment: i64,
    /// Which of the batches.
    pub(crate) batches: Range<usize>,
    /// Where the first of them goes.
    pub(crate) position: u64,
    /// What goes into the indexes for them.
    pub(crate) entries: Entries,
    /// Bytes in the segment afterwards.
    pub(crate) bytes: u64,
    /// The largest timestamp in the segment afterwards.
    pub(crate) max_timestamp: i64,
}

/// What a segment gets when it is closed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Closing {
    /// The last entry of its time index, unless that says the same already.
    pub(crate) time_entry: Option<TimeEntry>,
}

/// Gives each batch its offset and its place. Changes nothing.
pub(crate) fn plan(mut tail: Tail, batches: &[Batch], config: &LogConfig) -> Result<Plan, LogError> {
    let mut base_offsets = Vec::with_capacity(batches.len());
    let mut groups: Vec<Group> = Vec::new();
    for (number, batch) in batches.iter().enumerate() {
        let header = BatchHeader { base_offset: tail.next_offset, ..*batch.header() };
        let next_offset = offset_after(&header)?;
        if needs_segment(&tail, &header, config) {
            let closing = Closing { time_entry: tail.indexer.time_entry() };
            tail = Tail::new(tail.next_offset, config);
            groups.push(Group::new(Some(closing), &tail, number));
        } else if groups.is_empty() {
            groups.push(Group::new(None, &tail, number));
        }
        if let Some(group) = groups.last_mut() {
            tail.indexer.add(&header, tail.bytes, &mut group.entries);
            tail.bytes += header.total_bytes() as u64;
            tail.next_offset = next_offset;
            group.batches.end = number + 1;
            group.bytes = tail.bytes;
            group.max_timestamp = tail.indexer.max_timestamp();
        }
        base_offsets.push(header.base_offset);
    }
    Ok(Plan { base_offsets, groups, tail })
}

impl Group {
    fn new(opens: Option<Closing>, tail: &Tail, first_batch: usize) -> Group {
        Group {
            opens,
            segment: tail.base_offset,
            batches: first_batch..first_batch,
            position: tail.bytes,
            entries: Entries::default(),
            bytes: tail.bytes,
            max_timestamp: tail.indexer.max_timestamp(),
        }
    }
}

/// Whether the batch must go to a new segment: it would make this one too large, or its offsets are too far from the base for an index
/// entry. An empty segment takes any batch.
fn needs_segment(tail: &Tail, header: &BatchHeader, config: &LogConfig) -> bool {
    let too_large = tail.bytes + header.total_bytes() as u64 > config.segment_bytes_max();
    let distance = header.base_offset - tail.base_offset + i64::from(header.last_offset_delta);
    tail.bytes > 0 && (too_large || distance > i64::from(i32::MAX))
}

fn offset_after(header: &BatchHeader) -> Result<i64, LogError> {
    let last = header.base_offset.checked_add(i64::from(header.last_offset_delta));
    last.and_then(|last| last.checked_add(1)).ok_or(LogError::OffsetsExhausted { next: header.base_offset })
}

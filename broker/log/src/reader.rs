//! Reads by offset, and onwards from where the last read ended.
//!
//! A reader shares with the tail a list of segments, how many bytes of each may be seen, and the end of the log. The tail publishes in
//! the reverse order of that in which a reader looks: bytes, list, end. So a reader that sees an end finds the bytes before it.

mod behind;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use arc_swap::ArcSwap;
use bytes::Bytes;
use millpond_protocol::batch::HEADER_BYTES;
use parking_lot::{Mutex, MutexGuard};

use self::behind::{read_around, readable_from};
use crate::error::{Damage, LogError};
use crate::log_start::count_before;
use crate::scan::{check_content, check_header, corrupt};
use crate::segment::Segment;

/// Reads a log, from any thread, while it is written to. Cheap to clone. Blocking, but never on the writer.
#[derive(Clone, Debug)]
pub struct LogReader {
    shared: Arc<Shared>,
}

/// Where a sequential read goes on: an offset, and the place in the files where its batch begins, once that is known.
///
/// A cursor is plain values and holds nothing open. It belongs to the log whose reader it was used with.
#[derive(Clone, Debug)]
pub struct Cursor {
    offset: i64,
    place: Option<Place>,
}

/// One segment of a log, as a reader sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentInfo {
    /// The offset of its first batch.
    pub base_offset: i64,
    /// One past its last offset.
    pub end_offset: i64,
    /// Bytes of its batches.
    pub bytes: u64,
}

/// Damage in the middle of a log, as far as an opening or a read has met it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownDamage {
    /// Ranges of bytes that hold no whole batch, with something whole behind them.
    pub ranges: usize,
    /// The first offset in the first of them.
    pub first_offset: i64,
}

/// Where a batch begins.
#[derive(Clone, Copy, Debug)]
struct Place {
    /// Base offset of the segment.
    segment: i64,
    /// Its generation: in another one with this base offset, the batches lie elsewhere.
    generation: u64,
    position: u64,
    /// The offset that the batch there must begin with.
    base_offset: i64,
}

impl Cursor {
    /// A cursor at an offset; the first read looks its place up in the index.
    pub fn new(offset: i64) -> Cursor {
        Cursor { offset, place: None }
    }

    /// The offset that the next read begins with: one past the last batch that was read.
    pub fn offset(&self) -> i64 {
        self.offset
    }
}

impl LogReader {
    pub(crate) fn new(shared: Arc<Shared>) -> LogReader {
        LogReader { shared }
    }

    /// The first offset in the log.
    pub fn log_start(&self) -> i64 {
        self.shared.log_start()
    }

    /// One past the last offset in the log.
    pub fn log_end(&self) -> i64 {
        self.shared.log_end()
    }

    /// Bytes of all batches in the log.
    pub fn size_bytes(&self) -> u64 {
        self.shared.size_bytes()
    }

    /// Whether files of deleted segments are still there because they could not be removed, or a deletion on a full disk has failed half
    /// way. [`Log::begin_delete`](crate::Log::begin_delete) tries again, from whatever offset on.
    pub fn has_unremoved_files(&self) -> bool {
        self.shared.has_unremoved()
    }

    /// The segments, oldest first, the active one last.
    pub fn segments(&self) -> Vec<SegmentInfo> {
        let segments = self.shared.segments();
        let ends = segments.iter().skip(1).map(|next| next.base_offset()).chain([self.log_end()]);
        let info = |(segment, end_offset): (&Arc<Segment>, i64)| SegmentInfo {
            base_offset: segment.base_offset(),
            end_offset,
            bytes: segment.bytes(),
        };
        segments.iter().zip(ends).map(info).collect()
    }

    /// Bytes of the batches of closed segments that hold anything from this offset on, whole segments each.
    pub fn closed_bytes_from(&self, offset: i64) -> u64 {
        self.shared.closed_bytes_from(offset)
    }

    /// What is known of damage. Reads nothing; none does not mean that there is none.
    pub fn known_damage(&self) -> Option<KnownDamage> {
        let segments = self.shared.segments();
        let known: Vec<_> = segments.iter().filter_map(|segment| segment.damages().known()).collect();
        let mut offsets = known.iter().flat_map(|survey| survey.offsets());
        offsets.next().map(|first_offset| KnownDamage { ranges: 1 + offsets.count(), first_offset })
    }

    /// Whole batches, verbatim, from the one that holds `offset` on: up to `max_bytes` of them, or one batch if that is larger, and
    /// only batches whose last offset is below `end` (which counts as [`LogReader::log_end`] if it is higher). Empty if `offset` is
    /// the end, or lies in a batch that reaches behind it.
    ///
    /// What is returned comes from one segment, so it can be shorter than what there is. Checksums are compared as
    /// [`LogConfig::verify_on_read`](crate::LogConfig::verify_on_read) says: every batch's, the first time that it is read.
    ///
    /// # Errors
    ///
    /// [`LogError::OffsetOutOfRange`] before the start and behind the end; [`LogError::Corrupt`] if the first batch is damaged, or the disk
    /// does not give it back, while either further on only ends the read there; [`LogError::Io`].
    pub fn read(&self, offset: i64, max_bytes: usize, end: i64) -> Result<Bytes, LogError> {
        self.read_next(&mut Cursor::new(offset), max_bytes, end)
    }

    /// As [`LogReader::read`] at the cursor's offset, and moves the cursor behind what was read. From the second read on this needs no
    /// index: the next batch is where the last one ended.
    pub fn read_next(&self, cursor: &mut Cursor, max_bytes: usize, end: i64) -> Result<Bytes, LogError> {
        // In this order: the end, then the list. See the module's documentation.
        let end = end.min(self.log_end());
        let segments = self.shared.segments();
        if cursor.offset < self.log_start() || cursor.offset > end {
            return Err(LogError::OffsetOutOfRange { requested: cursor.offset, start: self.log_start(), end });
        }
        if cursor.offset == end {
            return Ok(Bytes::new());
        }
        let known = cursor.place.and_then(|place| known_place(&segments, place));
        let read = read_around(&segments, known, cursor.offset, max_bytes, end);
        let (place, read) = read.map_err(|mut error| {
            if let Some(start) = removed_up_to(&segments, cursor.offset) {
                return LogError::OffsetOutOfRange { requested: cursor.offset, start: start.max(self.log_start()), end };
            }
            if let LogError::Corrupt { next_offset, .. } = &mut error {
                *next_offset = readable_from(&segments, cursor.offset, end);
            }
            error
        })?;
        (cursor.place, cursor.offset) = (Some(place), read.next_offset);
        Ok(read.bytes)
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }
}

/// Reads from a known place, or from where the batch begins that holds `offset`. Returns where the read ended, too.
fn read_from(
    segments: &[Arc<Segment>],
    known: Option<(&Arc<Segment>, u64, i64)>,
    offset: i64,
    max_bytes: usize,
    end: i64,
) -> Result<(Place, Read), LogError> {
    let (segment, position, base_offset) = known.map_or_else(|| locate(segments, offset), Ok)?;
    let next = segments.partition_point(|other| other.base_offset() <= segment.base_offset());
    let bounds = Bounds { end, next_base: segments.get(next).map(|next| next.base_offset()) };
    let read = read_batches(segment, (position, base_offset), offset, max_bytes, bounds)?;
    if !read.bytes.is_empty() && segment.damages().holding(base_offset).is_some() {
        // It is known to be damaged, and is not.
        segment.survey(bounds.next_base);
    }
    let base_offset = if read.bytes.is_empty() { base_offset } else { read.next_offset };
    Ok((
        Place {
            segment: segment.base_offset(),
            generation: segment.generation(),
            position: position + read.bytes.len() as u64,
            base_offset,
        },
        read,
    ))
}

/// The segment of a known place, the position, and the offset there. A place at the end of a segment is the start of the next one, if there
/// is one. None if the segment was compacted since: then the offset says where to go on.
fn known_place(segments: &[Arc<Segment>], place: Place) -> Option<(&Arc<Segment>, u64, i64)> {
    let number = segments.binary_search_by_key(&place.segment, |segment| segment.base_offset()).ok()?;
    let segment = segments.get(number).filter(|segment| segment.generation() == place.generation)?;
    if place.position < segment.bytes() {
        return Some((segment, place.position, place.base_offset));
    }
    segments.get(number + 1).map(|next| (next, 0, next.base_offset()))
}

/// The segment, the position and the base offset of the batch that holds `offset`, which lies in the log.
fn locate(segments: &[Arc<Segment>], offset: i64) -> Result<(&Arc<Segment>, u64, i64), LogError> {
    let after = segments.partition_point(|segment| segment.base_offset() <= offset);
    let segment = after.checked_sub(1).and_then(|number| segments.get(number));
    // The range was checked, and the first segment begins with the start of the log.
    let segment = segment.unwrap_or_else(|| unreachable!("no segment begins at or before offset {offset}, which lies in the log"));
    if let Some((found, _)) = segment.find(offset)? {
        return Ok((segment, found.position, found.header.base_offset));
    }
    let next_base = segments.get(after).map_or(offset, |next| next.base_offset());
    Err(corrupt(&segment.path(), segment.bytes(), offset, Damage::OffsetsMissing { next_base }))
}

/// Where the log begins, at least, if the segment that held `offset` has been deleted since this list was taken.
fn removed_up_to(segments: &[Arc<Segment>], offset: i64) -> Option<i64> {
    let after = segments.partition_point(|segment| segment.base_offset() <= offset);
    let segment = &segments[after.checked_sub(1)?];
    // The last segment of a log is never deleted.
    segment.is_removed().then(|| segments.get(after).map_or(offset, |next| next.base_offset()))
}

/// Where a read ends at the latest.
#[derive(Clone, Copy)]
struct Bounds {
    /// What may be seen ends here.
    end: i64,
    /// The base offset of the next segment. Whatever a file says that was put there, no offset is served twice.
    next_base: Option<i64>,
}

/// What one read yields.
struct Read {
    bytes: Bytes,
    /// The offset behind it.
    next_offset: i64,
}

/// Reads whole batches from the position where the batch begins that holds `offset`, with that base offset. One read from the file, unless
/// the first batch is larger than `max_bytes`.
fn read_batches(
    segment: &Segment,
    (position, base_offset): (u64, i64),
    offset: i64,
    max_bytes: usize,
    bounds: Bounds,
) -> Result<Read, LogError> {
    let damaged = |reason| corrupt(&segment.path(), position, base_offset, reason);
    let left = usize::try_from(segment.bytes().saturating_sub(position)).unwrap_or(usize::MAX);
    let mut buffer = read_front(segment, (position, base_offset), max_bytes, left, bounds)?;

    let base = segment.base_offset();
    let (first, next_offset) = check_header(&buffer, left as u64, Some(base_offset), base).map_err(damaged)?;
    if first.base_offset > offset || next_offset <= offset {
        return Err(damaged(Damage::UnexpectedOffset { expected: offset, found: first.base_offset }));
    }
    if first.total_bytes() > buffer.len() {
        let missing = first.total_bytes() - buffer.len();
        let read = segment.read_at(&mut buffer, missing, position + (first.total_bytes() - missing) as u64);
        read.map_err(|error| error.at(position, base_offset))?;
    }

    let buffer = Bytes::from(buffer);
    // What was damaged once is compared, whenever it was read before.
    let is_suspect = segment.damages().holding(base_offset).is_some();
    let verified_until = if is_suspect { position } else { segment.verified().until(position) };
    let (mut taken, mut expected) = (0, first.base_offset);
    while taken < buffer.len() {
        let rest = buffer.slice(taken..);
        let to_verify = position + taken as u64 >= verified_until;
        match next_whole(&rest, (left - taken) as u64, expected, base, bounds, to_verify) {
            Ok(Some((bytes, next_offset))) => (taken, expected) = (taken + bytes, next_offset),
            Ok(None) => break,
            // Behind whole batches, a torn or damaged one is left to the next read, which tells them apart.
            Err(_) if taken > 0 => break,
            Err(reason) => return Err(damaged(reason)),
        }
    }
    if position + taken as u64 > verified_until {
        segment.verified().add(position..position + taken as u64);
    }
    // A batch in front of `offset` that reaches behind `end` was not taken, and the offset stays where it was.
    let next_offset = if taken == 0 { offset } else { expected };
    Ok(Read { bytes: buffer.slice(..taken), next_offset })
}

/// Reads up to `max_bytes` of the `left` bytes from where a batch begins on, or its header if that is more. No further than to the next damage
/// that is known, and no more than the header if there is some of which nobody has known.
fn read_front(
    segment: &Segment,
    (position, base_offset): (u64, i64),
    max_bytes: usize,
    left: usize,
    bounds: Bounds,
) -> Result<Vec<u8>, LogError> {
    let whole = segment.damages().next_behind(position).and_then(|damage| usize::try_from(damage - position).ok());
    let wanted = max_bytes.min(whole.unwrap_or(usize::MAX)).max(HEADER_BYTES).min(left);
    let mut buffer = Vec::new();
    let mut read = segment.read_at(&mut buffer, wanted, position).map_err(|error| error.at(position, base_offset));
    if wanted > HEADER_BYTES && matches!(read, Err(LogError::Corrupt { .. })) {
        // The first batch may be readable. The next reads are to know how far they get.
        segment.survey_for(position, bounds.next_base);
        read = segment.read_at(&mut buffer, HEADER_BYTES, position).map_err(|error| error.at(position, base_offset));
    }
    read.map(|_| buffer)
}

/// The length of the batch at the start of `bytes`, and the offset behind it; None if it is not to be seen yet.
fn next_whole(
    bytes: &Bytes,
    left_bytes: u64,
    expected: i64,
    segment_base: i64,
    bounds: Bounds,
    to_verify: bool,
) -> Result<Option<(usize, i64)>, Damage> {
    let (header, next_offset) = check_header(bytes, left_bytes, Some(expected), segment_base)?;
    let batch_bytes = header.total_bytes();
    if batch_bytes > bytes.len() {
        return Err(Damage::BatchCutOff { batch_bytes: batch_bytes as u64, left_bytes: bytes.len() as u64 });
    }
    // Before its offsets are believed: a damaged header must not pass for a batch behind the end.
    if to_verify || next_offset > bounds.end {
        check_content(bytes.slice(..batch_bytes))?;
    }
    if let Some(next_base) = bounds.next_base.filter(|next_base| next_offset > *next_base) {
        return Err(Damage::OffsetsOverlap { next_base });
    }
    Ok((next_offset <= bounds.end).then_some((batch_bytes, next_offset)))
}

/// What the tail publishes and readers look at.
#[derive(Debug)]
pub(crate) struct Shared {
    /// Rising by base offset, never empty, the active one last.
    segments: ArcSwap<Vec<Arc<Segment>>>,
    log_start: AtomicI64,
    log_end: AtomicI64,
    /// Segments that are deleted, with files that could not be removed yet.
    unremoved: Mutex<Vec<Arc<Segment>>>,
    /// Held by who removes or replaces files of closed segments, so that no two do at once. Never by readers or the tail.
    changing: Mutex<()>,
}

impl Shared {
    /// `log_start` may lie before the first segment, which then begins the log.
    pub(crate) fn new(segments: Vec<Arc<Segment>>, log_start: i64, log_end: i64) -> Shared {
        let log_start = segments.first().map_or(log_end, |segment| segment.base_offset()).max(log_start);
        Shared {
            segments: ArcSwap::from_pointee(segments),
            log_start: AtomicI64::new(log_start),
            log_end: AtomicI64::new(log_end),
            unremoved: Mutex::default(),
            changing: Mutex::default(),
        }
    }

    /// To be held while files of closed segments are removed or replaced.
    pub(crate) fn changing(&self) -> MutexGuard<'_, ()> {
        self.changing.lock()
    }

    /// The same without waiting: None while somebody else holds it.
    pub(crate) fn try_changing(&self) -> Option<MutexGuard<'_, ()>> {
        self.changing.try_lock()
    }

    /// Puts one segment in the place of some that follow each other and are in the list. Under [`Shared::changing`].
    pub(crate) fn replace(&self, old: &[Arc<Segment>], new: &Arc<Segment>) {
        let is_old = |segment: &Arc<Segment>| old.iter().any(|old| old.generation() == segment.generation());
        // Appends may change the list at the same time, at its end.
        self.segments.rcu(|segments| {
            let at = segments.iter().position(is_old).unwrap_or(0);
            let mut next: Vec<_> = segments.iter().filter(|segment| !is_old(segment)).cloned().collect();
            next.insert(at, Arc::clone(new));
            next
        });
    }

    /// Adds new segments, then moves the end. The bytes are published already.
    pub(crate) fn publish(&self, new_segments: &[Arc<Segment>], log_end: i64) {
        if !new_segments.is_empty() {
            // A deletion may change the list at the same time, at its other end.
            self.segments.rcu(|segments| segments.iter().chain(new_segments).cloned().collect::<Vec<_>>());
        }
        self.log_end.store(log_end, Ordering::Release);
    }

    /// Moves the start, then takes away the segments before it. A reader that does not find a segment finds the start moved.
    pub(crate) fn advance_start(&self, log_start: i64) {
        self.log_start.fetch_max(log_start, Ordering::AcqRel);
        self.segments.rcu(|segments| {
            let gone = count_before(segments.iter().map(|segment| segment.base_offset()), log_start);
            segments[gone..].to_vec()
        });
    }

    /// The oldest segment, if its deletion has failed half way on a full disk. With the lock of [`Shared::changing`]: no deletion is under
    /// way.
    pub(crate) fn half_deleted(&self, _changing: &MutexGuard<'_, ()>) -> Option<Arc<Segment>> {
        self.leaving()
    }

    /// The oldest segment, if its deletion is under way on a full disk, or has failed half way.
    pub(crate) fn leaving(&self) -> Option<Arc<Segment>> {
        self.segments().first().filter(|segment| segment.is_leaving()).cloned()
    }

    /// Notes that the files of a deleted segment could not be removed.
    pub(crate) fn add_unremoved(&self, segment: &Arc<Segment>) {
        self.unremoved.lock().push(Arc::clone(segment));
    }

    /// Hands over the segments whose files are to be removed once more.
    pub(crate) fn take_unremoved(&self) -> Vec<Arc<Segment>> {
        std::mem::take(&mut self.unremoved.lock())
    }

    pub(crate) fn has_unremoved(&self) -> bool {
        !self.unremoved.lock().is_empty() || self.leaving().is_some()
    }

    pub(crate) fn segments(&self) -> Arc<Vec<Arc<Segment>>> {
        self.segments.load_full()
    }

    pub(crate) fn log_start(&self) -> i64 {
        self.log_start.load(Ordering::Acquire)
    }

    pub(crate) fn log_end(&self) -> i64 {
        self.log_end.load(Ordering::Acquire)
    }

    pub(crate) fn size_bytes(&self) -> u64 {
        self.segments.load().iter().map(|segment| segment.bytes()).sum()
    }

    pub(crate) fn closed_bytes_from(&self, offset: i64) -> u64 {
        let segments = self.segments.load();
        let ends = segments.iter().skip(1).map(|next| next.base_offset());
        segments.iter().zip(ends).filter(|(_, end)| *end > offset).map(|(segment, _)| segment.bytes()).sum()
    }
}

//! Reads by time.
//!
//! Timestamps come from producers and need not rise. What the lookup promises is Kafka's definition: the earliest offset whose record
//! has a timestamp of at least T. Whole segments are skipped by their largest timestamp, then batches by the time index and by the
//! largest timestamp in their headers; only a batch that says it has such a record is decoded.
//!
//! Nobody decodes the records of a batch before it is stored, so there may be some that can't be, whatever the checksum says. The lookup
//! then ends at the start of that batch: from there on a consumer misses nothing, and the batches behind it can still be found.

use millpond_protocol::batch::{Batch, BatchError};

use crate::error::{Damage, LogError};
use crate::index::{Entry, TimeEntry};
use crate::reader::LogReader;
use crate::scan::{Found, Scan, corrupt};
use crate::segment::Segment;

impl LogReader {
    /// The first record with a timestamp of at least `timestamp_ms` whose batch ends before `end`: its offset and timestamp. None if
    /// there is none.
    ///
    /// Of a batch whose records can't be decoded, or take more than 64 MiB decompressed, it is the first offset, and the largest timestamp
    /// that its header announces.
    ///
    /// # Errors
    ///
    /// [`LogError::Corrupt`] if damage is met on the way, which is known from then on ([`LogReader::known_damage`]); [`LogError::Io`].
    pub fn find_time(&self, timestamp_ms: i64, end: i64) -> Result<Option<(i64, i64)>, LogError> {
        let end = end.min(self.log_end());
        let segments = self.shared().segments();
        for (number, segment) in segments.iter().enumerate().take_while(|(_, segment)| segment.base_offset() < end) {
            let segment_end = segments.get(number + 1).map_or(end, |next| next.base_offset().min(end));
            let look = || self.find_time_in(segment, timestamp_ms, segment_end);
            let next_base = segments.get(number + 1).map(|next| next.base_offset());
            let found = match look() {
                // Whoever reads on wants to know where that can be done, and the disk may give it back by now.
                Err(LogError::Corrupt { position, .. }) if !segment.is_removed() && segment.survey_for(position, next_base) => look(),
                found => found,
            };
            match found {
                Ok(None) => {}
                // Deleted since the list was taken: what is looked for lies behind it.
                Err(_) if segment.is_removed() => {}
                other => return other,
            }
        }
        Ok(None)
    }

    /// Looks at the batches of one segment that end at or before offset `end`, which the segment reaches.
    fn find_time_in(&self, segment: &Segment, timestamp_ms: i64, end: i64) -> Result<Option<(i64, i64)>, LogError> {
        if has_smaller_only(segment, timestamp_ms)? {
            return Ok(None);
        }
        let (mut found, mut scan) = start(segment, timestamp_ms)?;
        let mut next_offset = segment.base_offset();
        while let Some(batch) = found {
            if batch.next_offset > end {
                // If that is true: with a flipped bit it would hide what is behind it.
                scan.batch(&batch)?;
                return Ok(None);
            }
            next_offset = batch.next_offset;
            if segment.damages().begin_at(batch.position) {
                // Its header looks right, and may not be.
                scan.batch(&batch)?;
            }
            if batch.header.max_timestamp < timestamp_ms {
                compare_skipped(segment, &mut scan, &batch)?;
            } else if batch.next_offset > self.log_start()
                && let Some(record) = self.first_in_batch(segment, &mut scan, &batch, timestamp_ms)?
            {
                return Ok(Some(record));
            }
            found = scan.next_header()?;
        }
        if next_offset < end {
            return Err(corrupt(&segment.path(), scan.position(), next_offset, Damage::OffsetsMissing { next_base: end }));
        }
        Ok(None)
    }

    /// The first record of the batch with such a timestamp. There may be none: a header can say more than the records hold.
    fn first_in_batch(&self, segment: &Segment, scan: &mut Scan, found: &Found, timestamp_ms: i64) -> Result<Option<(i64, i64)>, LogError> {
        let batch = scan.batch(found)?;
        match first_at_or_after(&batch, timestamp_ms, self.log_start()) {
            Ok(record) => Ok(record),
            Err(error) => {
                let (path, offset) = (segment.path(), found.header.base_offset);
                tracing::warn!(path = %path.display(), offset, %error, "a lookup by time ends at a batch whose records can't be decoded");
                Ok(Some((offset.max(self.log_start()), found.header.max_timestamp)))
            }
        }
    }
}

/// Whether every timestamp of the segment is smaller than that. What only its time index says of the largest is compared with the batch the
/// first time that it would hide the segment.
fn has_smaller_only(segment: &Segment, timestamp_ms: i64) -> Result<bool, LogError> {
    // Nobody knows which timestamps there were where it is damaged.
    if segment.max_timestamp() >= timestamp_ms || !segment.damages().is_empty() {
        return Ok(false);
    }
    if segment.is_max_timestamp_claimed() {
        let is_true = match segment.times.lookup(i64::MAX) {
            Some(entry) if !segment.is_replaced() => verified(segment, entry)?.is_some(),
            _ => false,
        };
        segment.settle_max_timestamp(is_true);
        return Ok(is_true);
    }
    Ok(true)
}

/// A batch that is skipped for its largest timestamp has its checksum compared the first time, as one that is read: with a flipped bit in
/// its header it would hide what it holds. There are few of them, for a walk begins where the time index says.
fn compare_skipped(segment: &Segment, scan: &mut Scan, batch: &Found) -> Result<(), LogError> {
    if segment.verified().until(batch.position) == batch.position {
        scan.batch(batch)?;
        segment.verified().add(batch.position..batch.position + batch.header.total_bytes() as u64);
    }
    Ok(())
}

/// Offset and timestamp of the first record of the batch that is not before `log_start`, and has at least this timestamp.
fn first_at_or_after(batch: &Batch, timestamp_ms: i64, log_start: i64) -> Result<Option<(i64, i64)>, BatchError> {
    for record in batch.records(RECORDS_BYTES_MAX)? {
        let record = record?;
        if record.timestamp >= timestamp_ms && record.offset >= log_start {
            return Ok(Some((record.offset, record.timestamp)));
        }
    }
    Ok(None)
}

/// The batch to start from: every one before it has smaller timestamps only. With the walk behind it.
fn start(segment: &Segment, timestamp_ms: i64) -> Result<(Option<Found>, Scan), LogError> {
    if segment.damages().is_empty()
        && let Some(entry) = segment.times.lookup(timestamp_ms)
        && !segment.is_replaced()
        && let Some((found, scan)) = verified(segment, entry)?
    {
        return Ok((Some(found), scan));
    }
    let mut scan = segment.scan(0)?;
    Ok((scan.next_header()?, scan))
}

/// The batch that an entry names, if it is as the entry says. An entry that is true is safe to start from, even if the lookup should
/// have found a later one.
fn verified(segment: &Segment, entry: TimeEntry) -> Result<Option<(Found, Scan)>, LogError> {
    let offset = segment.base_offset().saturating_add(i64::from(entry.relative_offset));
    match segment.find(offset)? {
        Some((found, scan)) if found.next_offset - 1 == offset && found.header.max_timestamp == entry.key() => Ok(Some((found, scan))),
        _ => {
            segment.times.say_mismatch(entry);
            Ok(None)
        }
    }
}

/// Bytes of decompressed records that a time lookup decodes of one batch.
const RECORDS_BYTES_MAX: usize = 64 << 20;

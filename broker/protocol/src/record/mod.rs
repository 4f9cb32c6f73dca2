//! The records inside a batch: its uncompressed records section.
//!
//! ```text
//! +---------+------------+-----------------+--------------+------------+-----+--------------+-------+--------------+---------
//! | length  | attributes | timestamp_delta | offset_delta | key length | key | value length | value | header count | headers
//! | varint  | i8, unused | varint (64 bit) | varint       | varint     |     | varint       |       | varint       | ...
//! +---------+------------+-----------------+--------------+------------+-----+--------------+-------+--------------+---------
//!           '--- length counts from here to the end of the headers
//!
//! one header:  +-------------+-------------+--------------+-------+
//!              | name length | name, UTF-8 | value length | value |
//!              | varint      |             | varint       |       |
//!              +-------------+-------------+--------------+-------+
//! ```
//!
//! Varints are zig-zag (see [`crate::varint`]). A length of -1 says "null"; a header's name can't be null. Records follow each
//! other without gaps.
//!
//! # What it refuses
//!
//! A record is handed out only when all of it is well formed: lengths inside the record, as many headers as announced, their names in UTF-8, a
//! length that is its content's, an offset delta that is not negative. What is borrowed from it later, its headers above all,
//! can't fail any more.

mod owned;

pub use crate::batch::RecordFault;
pub use owned::{Headers, HeadersIter, Record, Records};

use crate::{
    batch::BatchError,
    varint::{len_i32, len_i64, read_i32, read_i64, write_i32, write_i64},
};

/// A record to be written into a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NewRecord<'a> {
    /// Milliseconds since 1970-01-01 UTC.
    pub timestamp: i64,
    /// Decides about the partition, unless a module or the producer does.
    pub key: Option<&'a [u8]>,
    /// The payload; none is a tombstone.
    pub value: Option<&'a [u8]>,
    /// Names and values, in order; a name may occur more than once.
    pub headers: &'a [(&'a str, Option<&'a [u8]>)],
}

/// A well formed record, borrowed from its section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordRef<'a> {
    /// The record's offset less the batch's base offset; not negative.
    pub offset_delta: i32,
    /// The record's timestamp less the batch's base timestamp, in milliseconds.
    pub timestamp_delta: i64,
    /// The key.
    pub key: Option<&'a [u8]>,
    /// The value.
    pub value: Option<&'a [u8]>,
    /// The headers.
    pub headers: HeadersRef<'a>,
    /// The whole record as it is, with its length in front.
    pub encoded: &'a [u8],
}

/// The headers of a record. They were checked when the record was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeadersRef<'a> {
    count: u32,
    bytes: &'a [u8],
}

impl<'a> HeadersRef<'a> {
    /// How many there are.
    pub const fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The headers as they are in the record, behind their count.
    pub const fn as_bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Names and values, in order.
    pub const fn iter(&self) -> HeadersRefIter<'a> {
        HeadersRefIter { bytes: self.bytes }
    }
}

impl<'a> IntoIterator for &HeadersRef<'a> {
    type Item = (&'a str, Option<&'a [u8]>);
    type IntoIter = HeadersRefIter<'a>;

    fn into_iter(self) -> HeadersRefIter<'a> {
        self.iter()
    }
}

/// Names and values of headers, in order.
#[derive(Clone, Debug)]
pub struct HeadersRefIter<'a> {
    bytes: &'a [u8],
}

impl<'a> Iterator for HeadersRefIter<'a> {
    type Item = (&'a str, Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        if self.bytes.is_empty() {
            return None;
        }
        // Checked when the record was read, so this reads to the end.
        read_header(&mut self.bytes).ok()
    }
}

/// Reads the records of a section, one after the other.
pub const fn iterate(section: &[u8]) -> RecordRefs<'_> {
    RecordRefs { rest: section, index: 0 }
}

/// The records of a section. Ends after the first error.
#[derive(Clone, Debug)]
pub struct RecordRefs<'a> {
    rest: &'a [u8],
    index: u32,
}

impl<'a> RecordRefs<'a> {
    /// The bytes behind the records that were read so far.
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

impl<'a> Iterator for RecordRefs<'a> {
    type Item = Result<RecordRef<'a>, BatchError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        match read_record(&mut self.rest) {
            Ok(record) => {
                self.index = self.index.wrapping_add(1);
                Some(Ok(record))
            }
            Err(fault) => {
                self.rest = &[];
                Some(Err(BatchError::InvalidRecord { index: self.index, fault }))
            }
        }
    }
}

/// The front of a record: what can be said of it without a look at its key, its value and its headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordFront<'a> {
    /// The record's offset less the batch's base offset.
    pub offset_delta: i32,
    /// The record's timestamp less the batch's base timestamp, in milliseconds.
    pub timestamp_delta: i64,
    /// The whole record as it is, with its length in front.
    pub encoded: &'a [u8],
}

/// The front of the first record of a section. None where there is none, or not even that much is well formed; what is behind it
/// may be anything, unless the bytes were checked before.
#[inline]
pub fn read_front(section: &[u8]) -> Option<RecordFront<'_>> {
    let mut rest = section;
    let mut body = read_bytes(&mut rest).ok()?.split_first()?.1;
    let timestamp_delta = read_i64(&mut body)?;
    let offset_delta = read_i32(&mut body)?;
    Some(RecordFront { offset_delta, timestamp_delta, encoded: &section[..section.len() - rest.len()] })
}

/// What a section holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SectionSummary {
    /// How many records.
    pub record_count: i32,
    /// The highest offset delta; -1 without records.
    pub last_offset_delta: i32,
    /// The highest timestamp delta, in milliseconds; 0 without records.
    pub max_timestamp_delta: i64,
    /// Whether each offset delta is higher than the one before.
    pub offsets_rise: bool,
}

impl SectionSummary {
    /// The summary of no records, to which [`SectionSummary::add`] adds.
    pub const EMPTY: SectionSummary = SectionSummary { record_count: 0, last_offset_delta: -1, max_timestamp_delta: 0, offsets_rise: true };

    /// Takes the next record of the section into account. Of `i32::MAX` records there is no counting on.
    #[inline]
    pub fn add(&mut self, offset_delta: i32, timestamp_delta: i64) {
        self.max_timestamp_delta = if self.record_count == 0 { timestamp_delta } else { self.max_timestamp_delta.max(timestamp_delta) };
        // While the deltas rise the last one is the highest.
        self.offsets_rise &= offset_delta > self.last_offset_delta;
        self.last_offset_delta = self.last_offset_delta.max(offset_delta);
        self.record_count = self.record_count.saturating_add(1);
    }
}

/// More than a batch can hold: its length has 31 bits.
const SECTION_BYTES_MAX: usize = i32::MAX as usize;

/// Walks every record of a section.
pub fn check_section(section: &[u8]) -> Result<SectionSummary, BatchError> {
    if section.len() > SECTION_BYTES_MAX {
        return Err(BatchError::TooLarge { bytes: section.len(), limit: SECTION_BYTES_MAX });
    }
    let mut summary = SectionSummary::EMPTY;
    for record in iterate(section) {
        let record = record?;
        summary.add(record.offset_delta, record.timestamp_delta);
    }
    Ok(summary)
}

/// The same records with the offset deltas 0, 1, 2 and so on.
pub fn renumber(section: &[u8]) -> Result<Vec<u8>, BatchError> {
    let mut out = Vec::with_capacity(section.len());
    for (offset_delta, record) in (0_i32..).zip(iterate(section)) {
        let encoded = record?.encoded;
        let (attributes, timestamp_delta, tail) =
            split_behind_offset(encoded).unwrap_or_else(|fault| unreachable!("the record was read a moment ago: {fault}"));
        let body_bytes = 1 + len_i64(timestamp_delta) + len_i32(offset_delta) + tail.len();
        let length = i32::try_from(body_bytes).map_err(|_| BatchError::TooLarge { bytes: body_bytes, limit: i32::MAX as usize })?;
        write_i32(&mut out, length);
        out.push(attributes);
        write_i64(&mut out, timestamp_delta);
        write_i32(&mut out, offset_delta);
        out.extend_from_slice(tail);
    }
    Ok(out)
}

/// Appends a record as it is, but for a timestamp delta that is `shift_ms` less, as it must be where the base timestamp of its batch grows
/// by that. False, and nothing is appended, if the record is not well formed or the difference has more than 64 bits.
#[must_use]
pub fn append_shifted(out: &mut Vec<u8>, encoded: &[u8], shift_ms: i64) -> bool {
    let mut rest = encoded;
    let Some((&attributes, mut rest)) = read_bytes(&mut rest).ok().and_then(<[u8]>::split_first) else { return false };
    let Some(timestamp_delta) = read_i64(&mut rest).and_then(|delta| delta.checked_sub(shift_ms)) else { return false };
    let Ok(length) = i32::try_from(1 + len_i64(timestamp_delta) + rest.len()) else { return false };
    write_i32(out, length);
    out.push(attributes);
    write_i64(out, timestamp_delta);
    out.extend_from_slice(rest);
    true
}

/// Attributes, timestamp delta, and what lies behind the offset delta.
fn split_behind_offset(encoded: &[u8]) -> Result<(u8, i64, &[u8]), RecordFault> {
    let mut rest = encoded;
    read_i32(&mut rest).ok_or(RecordFault::Integer)?;
    let (&attributes, mut rest) = rest.split_first().ok_or(RecordFault::Empty)?;
    let timestamp_delta = read_i64(&mut rest).ok_or(RecordFault::Integer)?;
    read_i32(&mut rest).ok_or(RecordFault::Integer)?;
    Ok((attributes, timestamp_delta, rest))
}

#[inline]
fn read_record<'a>(rest: &mut &'a [u8]) -> Result<RecordRef<'a>, RecordFault> {
    let start = *rest;
    let mut cursor = start;
    let mut body = read_bytes(&mut cursor)?;
    let encoded = &start[..start.len() - cursor.len()];
    body = body.split_first().ok_or(RecordFault::Empty)?.1; // the attributes, of which no bit has a meaning
    let timestamp_delta = read_i64(&mut body).ok_or(RecordFault::Integer)?;
    let offset_delta = read_i32(&mut body).ok_or(RecordFault::Integer)?;
    if offset_delta < 0 {
        return Err(RecordFault::OffsetDelta(offset_delta));
    }
    let key = read_nullable(&mut body)?;
    let value = read_nullable(&mut body)?;
    let headers = read_headers(body)?;
    *rest = cursor;
    Ok(RecordRef { offset_delta, timestamp_delta, key, value, headers, encoded })
}

#[inline]
fn read_headers(mut body: &[u8]) -> Result<HeadersRef<'_>, RecordFault> {
    let count = read_i32(&mut body).ok_or(RecordFault::Integer)?;
    if count != 0 {
        return check_headers(count, body);
    }
    if !body.is_empty() {
        return Err(RecordFault::BytesLeftOver { bytes: body.len() });
    }
    Ok(HeadersRef::default())
}

/// The fewest bytes of a header: two lengths.
const HEADER_BYTES_MIN: usize = 2;

#[inline(never)]
fn check_headers(count: i32, bytes: &[u8]) -> Result<HeadersRef<'_>, RecordFault> {
    let count = u32::try_from(count)
        .ok()
        .filter(|count| *count as usize <= bytes.len() / HEADER_BYTES_MIN)
        .ok_or(RecordFault::HeaderCount { count, available: bytes.len() })?;
    let mut rest = bytes;
    for _ in 0..count {
        read_header(&mut rest)?;
    }
    if !rest.is_empty() {
        return Err(RecordFault::BytesLeftOver { bytes: rest.len() });
    }
    Ok(HeadersRef { count, bytes })
}

fn read_header<'a>(bytes: &mut &'a [u8]) -> Result<(&'a str, Option<&'a [u8]>), RecordFault> {
    let name = std::str::from_utf8(read_bytes(bytes)?).map_err(|_| RecordFault::HeaderName)?;
    Ok((name, read_nullable(bytes)?))
}

/// A length and as many bytes.
#[inline]
fn read_bytes<'a>(bytes: &mut &'a [u8]) -> Result<&'a [u8], RecordFault> {
    let length = read_i32(bytes).ok_or(RecordFault::Integer)?;
    take(bytes, length)
}

/// A length and as many bytes, or -1.
#[inline]
fn read_nullable<'a>(bytes: &mut &'a [u8]) -> Result<Option<&'a [u8]>, RecordFault> {
    let length = read_i32(bytes).ok_or(RecordFault::Integer)?;
    if length == -1 { Ok(None) } else { take(bytes, length).map(Some) }
}

#[inline]
fn take<'a>(bytes: &mut &'a [u8], length: i32) -> Result<&'a [u8], RecordFault> {
    let outside = RecordFault::Length { length, available: bytes.len() };
    let (taken, rest) = usize::try_from(length).ok().and_then(|length| bytes.split_at_checked(length)).ok_or(outside)?;
    *bytes = rest;
    Ok(taken)
}

/// Bytes of a record behind its length.
#[inline]
pub(crate) fn body_bytes(record: &NewRecord<'_>, timestamp_delta: i64, offset_delta: i32) -> usize {
    let mut bytes = (1 + len_i64(timestamp_delta) + len_i32(offset_delta))
        .saturating_add(nullable_bytes(record.key))
        .saturating_add(nullable_bytes(record.value))
        .saturating_add(len_i32(length_i32(record.headers.len())));
    for (name, value) in record.headers {
        bytes = bytes.saturating_add(nullable_bytes(Some(name.as_bytes()))).saturating_add(nullable_bytes(*value));
    }
    bytes
}

/// Bytes of a record with its length.
#[inline]
pub(crate) fn encoded_bytes(body_bytes: usize) -> usize {
    body_bytes.saturating_add(len_i32(length_i32(body_bytes)))
}

/// Appends a record. `body_bytes` is from [`body_bytes()`], and the caller has checked that the batch stays below `i32::MAX` bytes,
/// so every length fits.
#[inline]
pub(crate) fn write(out: &mut Vec<u8>, record: &NewRecord<'_>, timestamp_delta: i64, offset_delta: i32, body_bytes: usize) {
    out.reserve(encoded_bytes(body_bytes));
    write_i32(out, length_i32(body_bytes));
    out.push(0);
    write_i64(out, timestamp_delta);
    write_i32(out, offset_delta);
    write_nullable(out, record.key);
    write_nullable(out, record.value);
    write_i32(out, length_i32(record.headers.len()));
    for (name, value) in record.headers {
        write_nullable(out, Some(name.as_bytes()));
        write_nullable(out, *value);
    }
}

#[inline]
fn nullable_bytes(bytes: Option<&[u8]>) -> usize {
    bytes.map_or(1, |bytes| len_i32(length_i32(bytes.len())).saturating_add(bytes.len()))
}

#[inline]
fn write_nullable(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        None => write_i32(out, -1),
        Some(bytes) => {
            write_i32(out, length_i32(bytes.len()));
            out.extend_from_slice(bytes);
        }
    }
}

/// A length as it is written. One that does not fit only occurs while sizes are summed up, and makes a sum that is refused.
#[inline]
fn length_i32(length: usize) -> i32 {
    i32::try_from(length).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests;

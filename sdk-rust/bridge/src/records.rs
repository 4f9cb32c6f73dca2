//! A batch as a language sees it: one owner of the bytes and one table, handed over in one crossing. Records are made from it when they are
//! asked for.
//!
//! ```text
//!  bytes()          one buffer: the records sections, uncompressed, one behind the other
//!                   +------+-----+-------+---------+------+-----+-------+---------+----
//!                   |front | key | value | headers |front | key | value | headers | ...
//!                   +------+-----+-------+---------+------+-----+-------+---------+----
//!                          ^     ^       ^
//!  ranges()         for each record RANGE_COLUMNS numbers (i32):
//!                   key_at, key_len, value_at, value_len, headers_at, headers_len, header_count
//!                   where the first byte lies in bytes(), and how many there are; a length of -1 is none at all
//!  offsets()        for each record its offset (i64)
//!  timestamps_ms()  for each record its timestamp, in milliseconds since 1970-01-01 UTC (i64)
//! ```
//!
//! One header is a name and a value, each with its length in front as a zig-zag varint (see [`millpond_protocol::record`]); -1 is a value
//! that is none. They were checked when the table was made, names are UTF-8.
//!
//! Batches that are not compressed are not copied: the buffer is a part of what came over the network, where headers of batches lie between the
//! sections. Small batches that are decompressed are put together, so that a trickle of records costs one crossing as well.

use crate::failure::Failure;
use bytes::{Bytes, BytesMut};
use millpond::{ConsumedBatch, Error};
use millpond_protocol::{
    batch::{Batch, BatchError, BatchHeader, RecordFault, TimestampType},
    record::iterate,
    varint::read_i32,
};
use std::{ops::Range, sync::Arc};

/// Numbers for each record in [`Records::ranges`].
pub const RANGE_COLUMNS: usize = 7;

/// No more batches are put together from this on, in bytes of their records.
const JOINED_BYTES_MAX: usize = 1 << 20;

/// The most bytes that the records of one batch may take when they are decompressed.
const DECOMPRESSED_BYTES_MAX: usize = 256 << 20;

/// Records of one partition, in order. Cheap to clone and to divide: bytes and table are shared.
#[derive(Clone, Debug)]
pub struct Records {
    table: Arc<Table>,
    rows: Range<usize>,
}

#[derive(Debug)]
struct Table {
    topic: Arc<str>,
    partition: u32,
    bytes: Bytes,
    offsets: Vec<i64>,
    timestamps_ms: Vec<i64>,
    ranges: Vec<i32>,
    next_offset: i64,
}

impl Records {
    /// How many.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The topic.
    pub fn topic(&self) -> &Arc<str> {
        &self.table.topic
    }

    /// The partition.
    pub fn partition(&self) -> u32 {
        self.table.partition
    }

    /// The owner of all keys, values and headers: may hold bytes of other records too.
    pub fn bytes(&self) -> &Bytes {
        &self.table.bytes
    }

    /// The offsets, one for each record.
    pub fn offsets(&self) -> &[i64] {
        &self.table.offsets[self.rows.clone()]
    }

    /// The timestamps, in milliseconds since 1970-01-01 UTC, one for each record.
    pub fn timestamps_ms(&self) -> &[i64] {
        &self.table.timestamps_ms[self.rows.clone()]
    }

    /// Where keys, values and headers lie in [`Records::bytes`]: [`RANGE_COLUMNS`] numbers for each record, drawn above.
    pub fn ranges(&self) -> &[i32] {
        &self.table.ranges[self.rows.start * RANGE_COLUMNS..self.rows.end * RANGE_COLUMNS]
    }

    /// The key of a record; none where it has none.
    pub fn key(&self, index: usize) -> Option<&[u8]> {
        self.part(index, KEY_AT)
    }

    /// The value of a record; none is a tombstone.
    pub fn value(&self, index: usize) -> Option<&[u8]> {
        self.part(index, VALUE_AT)
    }

    /// How many headers a record has.
    pub fn header_count(&self, index: usize) -> usize {
        usize::try_from(self.ranges()[index * RANGE_COLUMNS + HEADER_COUNT_AT]).unwrap_or_default()
    }

    /// Names and values of a record's headers, in order.
    pub fn headers(&self, index: usize) -> Headers<'_> {
        Headers { rest: self.part(index, HEADERS_AT).unwrap_or_default() }
    }

    /// The offset from which reading goes on behind these.
    pub fn next_offset(&self) -> i64 {
        self.table.offsets.get(self.rows.end).copied().unwrap_or(self.table.next_offset)
    }

    /// Offsets, timestamps and ranges, for a language that takes them over: nothing is copied where nobody else has these records.
    pub fn into_columns(self) -> Columns {
        let all = 0..self.table.offsets.len();
        match Arc::try_unwrap(self.table) {
            Ok(Table { offsets, timestamps_ms, ranges, .. }) if self.rows == all => Columns { offsets, timestamps_ms, ranges },
            Ok(table) => Columns::copied(&table, &self.rows),
            Err(table) => Columns::copied(&table, &self.rows),
        }
    }

    /// Takes the first `count` records away, or all that there are.
    #[must_use]
    pub fn split_to(&mut self, count: usize) -> Records {
        let middle = self.rows.start + count.min(self.rows.len());
        let front = Records { table: Arc::clone(&self.table), rows: self.rows.start..middle };
        self.rows.start = middle;
        front
    }

    fn part(&self, index: usize, column: usize) -> Option<&[u8]> {
        let row = &self.ranges()[index * RANGE_COLUMNS..][..RANGE_COLUMNS];
        let length = usize::try_from(row[column + 1]).ok()?;
        let start = usize::try_from(row[column]).ok()?;
        Some(&self.table.bytes[start..start + length])
    }
}

/// What [`Records::into_columns`] hands over: [`Records::offsets`], [`Records::timestamps_ms`] and [`Records::ranges`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Columns {
    /// One for each record.
    pub offsets: Vec<i64>,
    /// One for each record, in milliseconds since 1970-01-01 UTC.
    pub timestamps_ms: Vec<i64>,
    /// [`RANGE_COLUMNS`] for each record.
    pub ranges: Vec<i32>,
}

impl Columns {
    fn copied(table: &Table, rows: &Range<usize>) -> Columns {
        Columns {
            offsets: table.offsets[rows.clone()].to_vec(),
            timestamps_ms: table.timestamps_ms[rows.clone()].to_vec(),
            ranges: table.ranges[rows.start * RANGE_COLUMNS..rows.end * RANGE_COLUMNS].to_vec(),
        }
    }
}

/// Columns of [`Records::ranges`]; the length is the next one.
const KEY_AT: usize = 0;
const VALUE_AT: usize = 2;
const HEADERS_AT: usize = 4;
const HEADER_COUNT_AT: usize = 6;

/// Names and values of headers, in order.
#[derive(Clone, Debug)]
pub struct Headers<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Headers<'a> {
    type Item = (&'a str, Option<&'a [u8]>);

    /// Everything was checked when the table was made, so this reads to the end.
    fn next(&mut self) -> Option<Self::Item> {
        let name_len = usize::try_from(read_i32(&mut self.rest)?).ok()?;
        let (name, rest) = self.rest.split_at_checked(name_len)?;
        self.rest = rest;
        let value = match usize::try_from(read_i32(&mut self.rest)?) {
            Err(_) => None,
            Ok(value_len) => {
                let (value, rest) = self.rest.split_at_checked(value_len)?;
                self.rest = rest;
                Some(value)
            }
        };
        Some((std::str::from_utf8(name).ok()?, value))
    }
}

/// The records of what arrived together, some batches at a time. An error says which batch cannot be read; what lies behind it follows.
#[derive(Debug)]
pub struct Unpack {
    batch: ConsumedBatch,
    /// How many of its batches were unpacked.
    done: usize,
    failed: Option<Failure>,
}

impl Unpack {
    /// Unpacks this.
    pub fn new(batch: ConsumedBatch) -> Unpack {
        Unpack { batch, done: 0, failed: None }
    }

    /// The partition.
    pub fn partition(&self) -> u32 {
        self.batch.partition()
    }

    /// The offset from which unpacking goes on; none if all is unpacked.
    pub fn position(&self) -> Option<i64> {
        let next = self.batch.raw().get(self.done)?;
        Some(next.header().base_offset.max(self.batch.wanted().start))
    }

    /// The next batches, decompressed, as many as are put together; and what is wrong with the one behind them.
    fn sections(&mut self) -> Vec<(BatchHeader, Bytes)> {
        let (mut sections, mut total) = (Vec::new(), 0);
        let wanted = self.batch.wanted();
        while let Some(batch) = self.batch.raw().get(self.done)
            && total < JOINED_BYTES_MAX
        {
            self.done += 1;
            let header = *batch.header();
            // Control batches mark the ends of transactions and hold nothing that a user wrote.
            if header.next_offset() <= wanted.start || header.base_offset >= wanted.end || header.attributes.is_control() {
                continue;
            }
            match batch.records_section(DECOMPRESSED_BYTES_MAX) {
                Ok(section) => {
                    total += section.len();
                    sections.push((header, section));
                }
                Err(cause) => {
                    self.failed = Some(self.unreadable(&header, cause));
                    break;
                }
            }
        }
        sections
    }

    fn unreadable(&self, header: &BatchHeader, cause: BatchError) -> Failure {
        Failure::from(Error::UnreadableBatch {
            topic: Arc::clone(self.batch.topic()),
            partition: self.batch.partition(),
            offset: header.base_offset,
            next_offset: Some(header.next_offset()),
            cause,
        })
    }

    /// One buffer that has all sections, and where each begins in it.
    fn owner(&self, sections: &[(BatchHeader, Bytes)]) -> (Bytes, Vec<usize>) {
        if let [(_, one)] = sections {
            return (one.clone(), vec![0]);
        }
        let push = self.batch.push();
        let place = |section: &Bytes| {
            let at = section.as_ptr().addr().checked_sub(push.as_ptr().addr())?;
            (at.checked_add(section.len())? <= push.len()).then_some(at)
        };
        let places = sections.iter().map(|(_, section)| place(section)).collect::<Option<Vec<usize>>>();
        if let (Some(places), Some((_, last))) = (places, sections.last())
            && let ([first, ..], [.., end]) = (places.as_slice(), places.as_slice())
            && places.is_sorted()
        {
            let starts = places.iter().map(|place| place - first).collect();
            return (push.slice(*first..end + last.len()), starts);
        }
        let mut joined = BytesMut::with_capacity(sections.iter().map(|(_, section)| section.len()).sum());
        let start = |(_, section): &(BatchHeader, Bytes)| {
            let start = joined.len();
            joined.extend_from_slice(section);
            start
        };
        let starts = sections.iter().map(start).collect();
        (joined.freeze(), starts)
    }

    fn table(&mut self, sections: &[(BatchHeader, Bytes)]) -> Table {
        let (bytes, starts) = self.owner(sections);
        let wanted = self.batch.wanted();
        let count = sections.iter().map(|(header, section)| record_count(header, section)).sum();
        let mut rows = Rows { wanted, ..Rows::with_capacity(count) };
        let mut next_offset = rows.wanted.start;
        for ((header, section), at) in sections.iter().zip(starts) {
            if let Err(cause) = rows.add(header, section, at) {
                // Of several faults the first one is told, in the order of the batches.
                self.failed = Some(self.unreadable(header, cause));
            }
            next_offset = header.next_offset().min(rows.wanted.end);
        }
        Table {
            topic: Arc::clone(self.batch.topic()),
            partition: self.batch.partition(),
            bytes,
            offsets: rows.offsets,
            timestamps_ms: rows.timestamps_ms,
            ranges: rows.ranges,
            next_offset,
        }
    }
}

impl Iterator for Unpack {
    type Item = Result<Records, Failure>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(failure) = self.failed.take() {
                return Some(Err(failure));
            }
            let sections = self.sections();
            if sections.is_empty() {
                if self.failed.is_some() {
                    continue;
                }
                return None;
            }
            let table = Arc::new(self.table(&sections));
            let rows = 0..table.offsets.len();
            if !rows.is_empty() {
                return Some(Ok(Records { table, rows }));
            }
        }
    }
}

/// The fewest bytes of a record.
const RECORD_BYTES_MIN: usize = 7;

/// How many records a section may have: never more than it has room for, whatever its header says.
fn record_count(header: &BatchHeader, section: &Bytes) -> usize {
    usize::try_from(header.record_count).unwrap_or_default().min(section.len() / RECORD_BYTES_MIN)
}

/// The rows of a table while it is made.
struct Rows {
    wanted: Range<i64>,
    offsets: Vec<i64>,
    timestamps_ms: Vec<i64>,
    ranges: Vec<i32>,
}

impl Rows {
    fn with_capacity(count: usize) -> Rows {
        Rows {
            wanted: 0..i64::MAX,
            offsets: Vec::with_capacity(count),
            timestamps_ms: Vec::with_capacity(count),
            ranges: Vec::with_capacity(count * RANGE_COLUMNS),
        }
    }

    /// The records of a section that begins at `at`. After an error those before it stay.
    fn add(&mut self, header: &BatchHeader, section: &Bytes, at: usize) -> Result<(), BatchError> {
        let start = section.as_ptr().addr();
        let range = |part: Option<&[u8]>| match part {
            None => [0, -1],
            Some(part) => [position(part.as_ptr().addr() - start + at), position(part.len())],
        };
        let append_time = (header.attributes.timestamp_type() == TimestampType::LogAppendTime).then_some(header.max_timestamp);
        let mut found = 0;
        for record in iterate(section) {
            let record = record?;
            if record.offset_delta > header.last_offset_delta {
                let fault = RecordFault::OffsetDelta(record.offset_delta);
                return Err(BatchError::InvalidRecord { index: found, fault });
            }
            found += 1;
            // Saturating, as the header is from outside; a broker's own batches are nowhere near.
            let offset = header.base_offset.saturating_add(i64::from(record.offset_delta));
            if !self.wanted.contains(&offset) {
                continue;
            }
            self.offsets.push(offset);
            self.timestamps_ms.push(append_time.unwrap_or_else(|| header.base_timestamp.saturating_add(record.timestamp_delta)));
            let ([key_at, key_len], [value_at, value_len]) = (range(record.key), range(record.value));
            // Of a record without headers the place may lie in no section.
            let headers = Some(record.headers.as_bytes()).filter(|bytes| !bytes.is_empty());
            let [headers_at, headers_len] = headers.map_or([0, 0], |bytes| range(Some(bytes)));
            let header_count = position(record.headers.len());
            self.ranges.extend_from_slice(&[key_at, key_len, value_at, value_len, headers_at, headers_len, header_count]);
        }
        let announced = header.record_count;
        if i64::from(found) == i64::from(announced) { Ok(()) } else { Err(BatchError::CountMismatch { announced, found: found.into() }) }
    }
}

/// A place in the buffer, which is far below 2 GiB.
fn position(bytes: usize) -> i32 {
    i32::try_from(bytes).unwrap_or_else(|_| unreachable!("a buffer has at most {JOINED_BYTES_MAX} and {DECOMPRESSED_BYTES_MAX} bytes"))
}

/// A table of these batches, for tests and for tools that have them from elsewhere.
pub fn unpack(topic: &Arc<str>, partition: u32, batches: Vec<Batch>, wanted: Range<i64>) -> Unpack {
    Unpack::new(ConsumedBatch::from_parts(Arc::clone(topic), partition, batches, wanted))
}

#[cfg(test)]
mod tests;

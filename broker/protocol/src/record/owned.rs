//! Records that own their bytes, by sharing those of the section.

use super::{HeadersRef, HeadersRefIter, RecordFault, RecordRef, iterate};
use crate::batch::{BatchError, BatchHeader, TimestampType};
use bytes::Bytes;

/// A record with its place in the log. Key, value and headers are parts of the batch's bytes and keep these alive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The offset in the partition.
    pub offset: i64,
    /// Milliseconds since 1970-01-01 UTC.
    pub timestamp: i64,
    /// The key.
    pub key: Option<Bytes>,
    /// The value; none is a tombstone.
    pub value: Option<Bytes>,
    /// The headers.
    pub headers: Headers,
}

/// The headers of a record, decoded when they are asked for. They were checked when the record was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers {
    pub(super) count: u32,
    pub(super) bytes: Bytes,
}

impl Headers {
    /// How many there are.
    pub const fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Names and values, in order. The values are parts of the batch's bytes.
    pub fn iter(&self) -> HeadersIter<'_> {
        HeadersIter { bytes: &self.bytes, headers: self.borrowed().iter() }
    }

    /// The value of the last header with this name. None where there is no such header and where its value is null; `iter` tells
    /// them apart.
    pub fn get(&self, name: &str) -> Option<Bytes> {
        let value = self.borrowed().iter().filter(|(found, _)| *found == name).last()?.1?;
        Some(self.bytes.slice_ref(value))
    }

    fn borrowed(&self) -> HeadersRef<'_> {
        HeadersRef { count: self.count, bytes: &self.bytes }
    }
}

impl<'a> IntoIterator for &'a Headers {
    type Item = (&'a str, Option<Bytes>);
    type IntoIter = HeadersIter<'a>;

    fn into_iter(self) -> HeadersIter<'a> {
        self.iter()
    }
}

/// Names and values of headers, in order.
#[derive(Clone, Debug)]
pub struct HeadersIter<'a> {
    bytes: &'a Bytes,
    headers: HeadersRefIter<'a>,
}

impl<'a> Iterator for HeadersIter<'a> {
    type Item = (&'a str, Option<Bytes>);

    fn next(&mut self) -> Option<Self::Item> {
        let (name, value) = self.headers.next()?;
        Some((name, value.map(|value| self.bytes.slice_ref(value))))
    }
}

/// The records of a batch, in order. Ends after the first error; one is that the section and the header's count disagree.
#[derive(Clone, Debug)]
pub struct Records {
    section: Bytes,
    /// Where the next record starts in the section.
    position: usize,
    found: i32,
    failed: bool,
    header: BatchHeader,
}

impl Records {
    pub(crate) fn new(header: &BatchHeader, section: Bytes) -> Records {
        Records { section, position: 0, found: 0, failed: false, header: *header }
    }

    /// The record as it will be handed out.
    #[inline]
    fn own(&self, record: &RecordRef<'_>) -> Record {
        let header = &self.header;
        Record {
            // Saturating, as the header is from outside; a broker's own batches are nowhere near.
            offset: header.base_offset.saturating_add(i64::from(record.offset_delta)),
            timestamp: match header.attributes.timestamp_type() {
                TimestampType::CreateTime => header.base_timestamp.saturating_add(record.timestamp_delta),
                TimestampType::LogAppendTime => header.max_timestamp,
            },
            key: record.key.map(|key| self.section.slice_ref(key)),
            value: record.value.map(|value| self.section.slice_ref(value)),
            headers: if record.headers.is_empty() {
                Headers::default()
            } else {
                Headers { count: record.headers.count, bytes: self.section.slice_ref(record.headers.bytes) }
            },
        }
    }

    fn read(&mut self) -> Result<Option<Record>, BatchError> {
        let announced = self.header.record_count;
        let rest = &self.section[self.position..];
        if self.found == announced {
            // More bytes than records: at least one record too many, or bytes that are none.
            return if rest.is_empty() { Ok(None) } else { Err(BatchError::CountMismatch { announced, found: i64::from(announced) + 1 }) };
        }
        let index = self.found.cast_unsigned();
        let record = match iterate(rest).next() {
            None => return Err(BatchError::CountMismatch { announced, found: i64::from(self.found) }),
            Some(Err(BatchError::InvalidRecord { fault, .. })) => return Err(BatchError::InvalidRecord { index, fault }),
            Some(result) => result?,
        };
        if record.offset_delta > self.header.last_offset_delta {
            return Err(BatchError::InvalidRecord { index, fault: RecordFault::OffsetDelta(record.offset_delta) });
        }
        let owned = self.own(&record);
        self.position += record.encoded.len();
        self.found += 1;
        Ok(Some(owned))
    }
}

impl Iterator for Records {
    type Item = Result<Record, BatchError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let result = self.read().transpose();
        self.failed = matches!(result, Some(Err(_)));
        result
    }
}

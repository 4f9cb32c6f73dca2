//! Records as they lie in a batch, and changed copies of them.
//!
//! ```text
//!  one record, numbers as in `varint.rs`
//!  +--------+------------+-----------+--------+---------+-----+-----------+-------+--------------+---------+
//!  | length | attributes | timestamp | offset | key     | key | value     | value | header count | headers |
//!  |        | 1 byte     | delta     | delta  | length  |     | length    |       |              |         |
//!  +--------+------------+-----------+--------+---------+-----+-----------+-------+--------------+---------+
//!           |<------------------------------ length ------------------------------------------------------>|
//!  a length of -1 is a key or a value that is not there; a header is name length, name, value length, value
//! ```

use std::ops::Range;

use crate::varint::{len_i64, put_i64, take_i32, take_i64};

/// One record, borrowed from its batch.
#[derive(Clone, Debug)]
pub struct Record<'a> {
    encoded: &'a [u8],
    start: usize,
    timestamp: i64,
    timestamp_delta: i64,
    offset_delta: i32,
    key: Option<&'a [u8]>,
    value: Option<&'a [u8]>,
    headers: Headers<'a>,
}

impl<'a> Record<'a> {
    /// The key, which places the record in a partition if no partitioner does.
    pub fn key(&self) -> Option<&'a [u8]> {
        self.key
    }

    /// The value. A record without one deletes its key where a topic is compacted.
    pub fn value(&self) -> Option<&'a [u8]> {
        self.value
    }

    /// The headers: an iterator over names and values.
    pub fn headers(&self) -> Headers<'a> {
        self.headers.clone()
    }

    /// The first header of this name; the inner `None` is a header without a value.
    pub fn header(&self, name: &str) -> Option<Option<&'a [u8]>> {
        self.headers().find(|(found, _)| *found == name).map(|(_, value)| value)
    }

    /// When it happened, in milliseconds since 1970-01-01 UTC, as the producer says.
    pub fn timestamp(&self) -> i64 {
        self.timestamp
    }

    /// The record's place in its batch: its offset will be this plus that of the batch.
    pub fn offset_delta(&self) -> i32 {
        self.offset_delta
    }

    /// A copy to be changed.
    pub fn change(&self) -> Change<'a> {
        Change {
            base_timestamp: self.timestamp.wrapping_sub(self.timestamp_delta),
            timestamp_delta: self.timestamp_delta,
            offset_delta: self.offset_delta,
            key: self.key,
            value: self.value,
            headers: NewHeaders::Kept(self.headers()),
        }
    }

    /// The same record with another value.
    pub fn with_value<'b>(&self, value: &'b [u8]) -> Change<'b>
    where
        'a: 'b,
    {
        let change: Change<'b> = self.change();
        change.with_value(value)
    }

    /// Where in its section the record lies.
    pub(crate) fn span(&self) -> Range<usize> {
        self.start..self.start + self.encoded.len()
    }
}

/// Names and values of a record's headers, in their order.
#[derive(Clone, Debug)]
pub struct Headers<'a> {
    count: i32,
    bytes: &'a [u8],
}

impl<'a> Iterator for Headers<'a> {
    type Item = (&'a str, Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        if self.count <= 0 {
            return None;
        }
        self.count -= 1;
        // The broker has checked them, so this ends early only in a test that made up its bytes.
        let name = take_bytes(&mut self.bytes)??;
        let value = take_bytes(&mut self.bytes)?;
        Some((std::str::from_utf8(name).ok()?, value))
    }
}

/// A record to be stored in place of another: it keeps what is not changed, and its place in the batch.
#[derive(Clone, Debug)]
pub struct Change<'a> {
    base_timestamp: i64,
    timestamp_delta: i64,
    offset_delta: i32,
    key: Option<&'a [u8]>,
    value: Option<&'a [u8]>,
    headers: NewHeaders<'a>,
}

#[derive(Clone, Debug)]
enum NewHeaders<'a> {
    Kept(Headers<'a>),
    New(&'a [(&'a str, Option<&'a [u8]>)]),
}

impl<'a> Change<'a> {
    /// Another value.
    #[must_use]
    pub fn with_value(mut self, value: &'a [u8]) -> Change<'a> {
        self.value = Some(value);
        self
    }

    /// No value.
    #[must_use]
    pub fn without_value(mut self) -> Change<'a> {
        self.value = None;
        self
    }

    /// Another key. The partition has been chosen already and stays what it is.
    #[must_use]
    pub fn with_key(mut self, key: &'a [u8]) -> Change<'a> {
        self.key = Some(key);
        self
    }

    /// No key.
    #[must_use]
    pub fn without_key(mut self) -> Change<'a> {
        self.key = None;
        self
    }

    /// Other headers, instead of all there were.
    #[must_use]
    pub fn with_headers(mut self, headers: &'a [(&'a str, Option<&'a [u8]>)]) -> Change<'a> {
        self.headers = NewHeaders::New(headers);
        self
    }

    /// Another time, in milliseconds since 1970-01-01 UTC.
    #[must_use]
    pub fn with_timestamp(mut self, timestamp: i64) -> Change<'a> {
        self.timestamp_delta = timestamp.wrapping_sub(self.base_timestamp);
        self
    }

    /// Appends the record as it is stored.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let (header_count, headers_len) = match &self.headers {
            NewHeaders::Kept(headers) => (i64::from(headers.count), headers.bytes.len()),
            NewHeaders::New(headers) => {
                let lens = headers.iter().map(|(name, value)| len_bytes(Some(name.as_bytes())) + len_bytes(*value));
                (len(headers), lens.sum())
            }
        };
        let length = 1
            + len_i64(self.timestamp_delta)
            + len_i64(self.offset_delta.into())
            + len_bytes(self.key)
            + len_bytes(self.value)
            + len_i64(header_count)
            + headers_len;
        out.reserve(length + LENGTH_BYTES_MAX);
        put_i64(out, i64::try_from(length).unwrap_or(i64::MAX));
        out.push(0);
        put_i64(out, self.timestamp_delta);
        put_i64(out, self.offset_delta.into());
        put_bytes(out, self.key);
        put_bytes(out, self.value);
        put_i64(out, header_count);
        match &self.headers {
            NewHeaders::Kept(headers) => out.extend_from_slice(headers.bytes),
            NewHeaders::New(headers) => {
                for (name, value) in *headers {
                    put_bytes(out, Some(name.as_bytes()));
                    put_bytes(out, *value);
                }
            }
        }
    }

    /// A record that changes nothing, for tests to encode.
    #[cfg(not(target_arch = "wasm32"))]
    pub(crate) fn fresh(offset_delta: i32, timestamp_delta: i64) -> Change<'a> {
        let headers = NewHeaders::New(&[]);
        Change { base_timestamp: 0, timestamp_delta, offset_delta, key: None, value: None, headers }
    }
}

/// The records of a section, one after another.
pub(crate) struct Section<'a> {
    bytes: &'a [u8],
    at: usize,
    base_timestamp: i64,
}

impl<'a> Section<'a> {
    pub(crate) fn new(bytes: &'a [u8], base_timestamp: i64) -> Section<'a> {
        Section { bytes, at: 0, base_timestamp }
    }

    fn take(&mut self) -> Option<Record<'a>> {
        let start = self.at;
        let mut rest = &self.bytes[start..];
        let length = usize::try_from(take_i32(&mut rest)?).ok()?;
        let mut body = rest.get(..length)?;
        let end = self.bytes.len() - (rest.len() - length);
        let (_attributes, after) = body.split_first()?;
        body = after;
        let timestamp_delta = take_i64(&mut body)?;
        let offset_delta = take_i32(&mut body)?;
        let key = take_bytes(&mut body)?;
        let value = take_bytes(&mut body)?;
        let count = take_i32(&mut body)?;
        self.at = end;
        Some(Record {
            encoded: &self.bytes[start..end],
            start,
            timestamp: self.base_timestamp.wrapping_add(timestamp_delta),
            timestamp_delta,
            offset_delta,
            key,
            value,
            headers: Headers { count, bytes: body },
        })
    }
}

/// A section that does not consist of records.
#[derive(Debug)]
pub(crate) struct Malformed;

impl<'a> Iterator for Section<'a> {
    type Item = Result<Record<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at == self.bytes.len() {
            return None;
        }
        let record = self.take();
        if record.is_none() {
            self.at = self.bytes.len();
        }
        Some(record.ok_or(Malformed))
    }
}

/// Bytes with their length before them; the inner `None` is a length of -1.
#[expect(clippy::option_option, reason = "there are no bytes, or there is no value")]
fn take_bytes<'a>(from: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    let length = take_i32(from)?;
    if length == -1 {
        return Some(None);
    }
    let (bytes, rest) = from.split_at_checked(usize::try_from(length).ok()?)?;
    *from = rest;
    Some(Some(bytes))
}

fn put_bytes(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    put_i64(out, bytes.map_or(-1, len));
    out.extend_from_slice(bytes.unwrap_or_default());
}

fn len_bytes(bytes: Option<&[u8]>) -> usize {
    bytes.map_or(1, |bytes| len_i64(len(bytes)) + bytes.len())
}

fn len<T>(slice: &[T]) -> i64 {
    i64::try_from(slice.len()).unwrap_or(i64::MAX)
}

/// The most bytes that the length before a record takes.
const LENGTH_BYTES_MAX: usize = 10;

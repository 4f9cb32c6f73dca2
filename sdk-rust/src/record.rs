//! Records, as they are given to a producer and as a consumer gets them.

use bytes::Bytes;
use millpond_protocol::{message::Durability, record::Headers};
use std::sync::Arc;

/// A record to be sent.
///
/// ```
/// use millpond::Record;
///
/// let record = Record::new("21.4").with_key("device-7").with_header("unit", "C");
/// assert_eq!(record.value.as_deref(), Some(&b"21.4"[..]));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Decides about the partition, unless `partition` or a module of the topic does. Records with the same key go to the same
    /// partition.
    pub key: Option<Bytes>,
    /// The payload; none is a tombstone.
    pub value: Option<Bytes>,
    /// Names and values, in order; a name may occur more than once.
    pub headers: Vec<(String, Option<Bytes>)>,
    /// Milliseconds since 1970-01-01 UTC. When it is not set, the time at which `enqueue` or `send` is first polled, by this machine's
    /// clock and to the millisecond, also where the record then has to wait for room.
    pub timestamp: Option<i64>,
    /// The partition, if it is decided already.
    pub partition: Option<u32>,
}

impl Record {
    /// A record with a value and nothing else.
    pub fn new(value: impl Into<Bytes>) -> Record {
        Record { value: Some(value.into()), ..Record::default() }
    }

    /// A record that says that the key's value is gone.
    pub fn tombstone(key: impl Into<Bytes>) -> Record {
        Record { key: Some(key.into()), ..Record::default() }
    }

    /// The same with a key.
    #[must_use]
    pub fn with_key(mut self, key: impl Into<Bytes>) -> Record {
        self.key = Some(key.into());
        self
    }

    /// The same with one more header.
    #[must_use]
    pub fn with_header(mut self, name: impl Into<String>, value: impl Into<Bytes>) -> Record {
        self.headers.push((name.into(), Some(value.into())));
        self
    }

    /// The same with a timestamp, in milliseconds since 1970-01-01 UTC.
    #[must_use]
    pub fn with_timestamp(mut self, timestamp_ms: i64) -> Record {
        self.timestamp = Some(timestamp_ms);
        self
    }

    /// The same for this partition.
    #[must_use]
    pub fn with_partition(mut self, partition: u32) -> Record {
        self.partition = Some(partition);
        self
    }
}

/// A record to be sent whose parts belong to somebody else, and are copied into a batch: see [`crate::Producer::try_enqueue_borrowed`]. Its fields are
/// those of a [`Record`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "they are those of a `Record`")]
pub struct BorrowedRecord<'a> {
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    pub headers: &'a [(&'a str, Option<&'a [u8]>)],
    pub timestamp: Option<i64>,
    pub partition: Option<u32>,
}

/// What became of a record that the broker acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fate {
    /// It is stored, at this partition and offset.
    Stored,
    /// A transform left it out: it is stored nowhere.
    Dropped,
    /// A transform left out some records of its batch, and the broker does not say which. If it is stored, then at this offset.
    StoredUnlessDropped,
    /// A transform made more records of its batch than were sent. They lie at this offset, which is the batch's first, and behind it.
    Expanded,
}

/// The answer to one record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordPlace {
    /// What became of it.
    pub fate: Fate,
    /// The partition; `u32::MAX` for a record that was dropped before it had one.
    pub partition: u32,
    /// The offset; -1 for a record that was dropped.
    pub offset: i64,
    /// When it was appended, in milliseconds since 1970-01-01 UTC by the broker's clock. None where the broker does not know it any more: the
    /// record was stored before, and its answer got lost.
    pub append_time_ms: Option<i64>,
    /// What this answer means: with [`Durability::Sync`] that the record survives a power cut.
    pub durability: Durability,
}

impl RecordPlace {
    /// Whether a transform left the record out.
    pub fn is_dropped(&self) -> bool {
        self.fate == Fate::Dropped
    }
}

/// A record that was read. Key, value and headers share the memory of the batch that they came in, and keep it alive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumedRecord {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: u32,
    /// The offset in the partition.
    pub offset: i64,
    /// Milliseconds since 1970-01-01 UTC.
    pub timestamp: i64,
    /// The key.
    pub key: Option<Bytes>,
    /// The value; none is a tombstone.
    pub value: Option<Bytes>,
    /// The headers, decoded when they are asked for.
    pub headers: Headers,
}

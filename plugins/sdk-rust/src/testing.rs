//! Tests of a guest on the machine that it is written on: records go in, what the broker would store comes out.
//!
//! ```
//! use millpond_guest::testing::{Batch, transform};
//! # use millpond_guest::{Output, Params, Record, Transform};
//! # struct Upper;
//! # impl Transform for Upper {
//! #     fn new(_: &Params) -> Result<Self, String> { Ok(Upper) }
//! #     fn transform(&mut self, record: &Record<'_>, out: &mut Output<'_>) -> Result<(), String> {
//! #         out.emit(&record.with_value(&record.value().unwrap_or_default().to_ascii_uppercase()));
//! #         Ok(())
//! #     }
//! # }
//! let stored = transform::<Upper>(&[], &Batch::of_values(["one", "two"]))?;
//! assert_eq!(stored[1].value_text(), "TWO");
//! # Ok::<(), String>(())
//! ```

use std::cell::RefCell;
use std::collections::BTreeMap;

use crate::bindings::{self, SourceBatch, Target};
use crate::derive::{self, Derive};
use crate::log::Level;
use crate::params::Params;
use crate::record::{Change, Section};
use crate::run::{self, Partition, Transform};

/// A batch to be passed to a guest.
#[derive(Clone, Debug)]
pub struct Batch {
    topic: String,
    partition: Option<u32>,
    records: Vec<Stored>,
}

/// A record, in full.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    /// Its place in the batch.
    pub offset_delta: i32,
    /// In milliseconds since 1970-01-01 UTC.
    pub timestamp: i64,
    /// The key.
    pub key: Option<Vec<u8>>,
    /// The value.
    pub value: Option<Vec<u8>>,
    /// Names and values of the headers.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Stored {
    /// The value as text, for a comparison; empty if there is none.
    pub fn value_text(&self) -> String {
        String::from_utf8_lossy(self.value.as_deref().unwrap_or_default()).into_owned()
    }
}

impl Batch {
    /// A batch without records, of partition 0 of the topic `test`.
    #[expect(clippy::new_without_default, reason = "an empty batch is no default, it is a start")]
    pub fn new() -> Batch {
        Batch { topic: "test".to_owned(), partition: Some(0), records: Vec::new() }
    }

    /// A batch of records that have a value and nothing else.
    pub fn of_values<V: AsRef<[u8]>>(values: impl IntoIterator<Item = V>) -> Batch {
        values.into_iter().fold(Batch::new(), |batch, value| batch.record(None, Some(value.as_ref()), &[]))
    }

    /// The same batch of another topic.
    #[must_use]
    pub fn topic(mut self, topic: &str) -> Batch {
        topic.clone_into(&mut self.topic);
        self
    }

    /// One record more, a millisecond after the one before.
    #[must_use]
    pub fn record(mut self, key: Option<&[u8]>, value: Option<&[u8]>, headers: &[(&str, Option<&[u8]>)]) -> Batch {
        let index = i32::try_from(self.records.len()).unwrap_or(i32::MAX);
        self.records.push(Stored {
            offset_delta: index,
            timestamp: BASE_TIMESTAMP + i64::from(index),
            key: key.map(<[u8]>::to_vec),
            value: value.map(<[u8]>::to_vec),
            headers: headers.iter().map(|(name, value)| ((*name).to_owned(), value.map(<[u8]>::to_vec))).collect(),
        });
        self
    }

    /// The last record at another time, in milliseconds since 1970-01-01 UTC. Nothing for a batch without records.
    #[must_use]
    pub fn at(mut self, timestamp: i64) -> Batch {
        if let Some(last) = self.records.last_mut() {
            last.timestamp = timestamp;
        }
        self
    }

    /// The records section of the batch, as it crosses to a guest.
    pub fn section(&self) -> Vec<u8> {
        let mut section = Vec::new();
        for record in &self.records {
            let headers: Vec<_> = record.headers.iter().map(|(name, value)| (name.as_str(), value.as_deref())).collect();
            let change = Change::fresh(record.offset_delta, record.timestamp.wrapping_sub(BASE_TIMESTAMP)).with_headers(&headers);
            let change = record.key.iter().fold(change, |change, key| change.with_key(key));
            let change = record.value.iter().fold(change, |change, value| change.with_value(value));
            change.encode(&mut section);
        }
        section
    }

    fn info(&self) -> bindings::Batch {
        bindings::Batch {
            topic: self.topic.clone(),
            partition: self.partition,
            base_timestamp: BASE_TIMESTAMP,
            record_count: u32::try_from(self.records.len()).unwrap_or(u32::MAX),
        }
    }
}

/// Starts a transform with these settings and passes a batch through it.
///
/// # Errors
///
/// The text with which it refused to start, or failed. What it has changed in its state is taken back then.
pub fn transform<T: Transform>(params: &[(&str, &str)], batch: &Batch) -> Result<Vec<Stored>, String> {
    let mut guest = T::new(&self::params(params))?;
    let before = STATE.with_borrow(State::clone);
    let section = run::transform(&mut guest, &batch.info(), batch.section()).map_err(|failure| {
        STATE.set(before);
        describe(failure)
    })?;
    records(&section)
}

/// Starts a partitioner with these settings and asks it for the partitions of a batch.
///
/// # Errors
///
/// The text with which it refused to start, or failed; or which record got a partition that doesn't exist.
pub fn partition<P: Partition>(params: &[(&str, &str)], batch: &Batch, partition_count: u32) -> Result<Vec<u32>, String> {
    let mut guest = P::new(&self::params(params))?;
    let info = bindings::Batch { partition: None, ..batch.info() };
    let partitions = run::partition(&mut guest, &info, &batch.section(), partition_count).map_err(describe)?;
    match partitions.iter().position(|partition| *partition >= partition_count) {
        Some(index) => Err(format!("record {index} was placed in partition {} of {partition_count}", partitions[index])),
        None => Ok(partitions),
    }
}

/// A module that derives topics, with what it remembers from batch to batch: the state of this thread, and whatever it keeps in memory.
#[derive(Debug)]
pub struct Deriving<D> {
    guest: D,
    targets: Vec<Target>,
    next_offset: i64,
}

impl<D: Derive> Deriving<D> {
    /// Starts it with these settings and targets, each of four partitions.
    ///
    /// # Errors
    ///
    /// The text with which it refused to start.
    pub fn start(params: &[(&str, &str)], targets: &[&str]) -> Result<Deriving<D>, String> {
        let targets: Vec<_> = targets.iter().map(|name| Target { name: (*name).to_owned(), partition_count: 4 }).collect();
        Ok(Deriving { guest: D::new(&self::params(params), &targets)?, targets, next_offset: 0 })
    }

    /// Passes a batch through it. Gives the records that it has written, each with the name of its topic; those of one topic in order.
    ///
    /// # Errors
    ///
    /// The text with which it failed. What it has changed in its state is taken back.
    pub fn run(&mut self, batch: &Batch) -> Result<Vec<(String, Stored)>, String> {
        let info = batch.info();
        let source = SourceBatch {
            topic: info.topic,
            partition: info.partition.unwrap_or(0),
            base_offset: self.next_offset,
            base_timestamp: info.base_timestamp,
            record_count: info.record_count,
        };
        self.next_offset += i64::from(info.record_count);
        let before = STATE.with_borrow(State::clone);
        let sections = derive::derive(&mut self.guest, self.targets.len(), &source, &batch.section());
        let sections = sections.map_err(|failure| {
            STATE.set(before);
            describe(failure)
        })?;
        let mut written = Vec::new();
        for (target, section) in sections {
            let name = &self.targets[target as usize].name;
            written.extend(records(&section)?.into_iter().map(|record| (name.clone(), record)));
        }
        Ok(written)
    }
}

/// Grants the state of this thread so many bytes, counted as the broker does. Without that it has no limit.
pub fn grant_state(bytes: usize) {
    STATE.with_borrow_mut(|state| state.granted = Some(bytes));
}

#[derive(Clone, Debug)]
struct State {
    entries: BTreeMap<Vec<u8>, Vec<u8>>,
    granted: Option<usize>,
}

/// What the broker does with a state, in memory.
pub(crate) mod state {
    use super::STATE;

    pub(crate) fn get(key: &[u8]) -> Option<Vec<u8>> {
        STATE.with_borrow(|state| state.entries.get(key).cloned())
    }

    pub(crate) fn put(key: &[u8], value: &[u8]) -> Result<(), String> {
        const KEY_BYTES_MAX: usize = 1024;
        const ENTRY_OVERHEAD_BYTES: usize = 64;
        if key.len() > KEY_BYTES_MAX {
            return Err(format!("a key of {} bytes is too long, {KEY_BYTES_MAX} are allowed", key.len()));
        }
        STATE.with_borrow_mut(|state| {
            let bytes = |key: &[u8], value: &[u8]| key.len() + value.len() + ENTRY_OVERHEAD_BYTES;
            let now: usize = state.entries.iter().map(|(key, value)| bytes(key, value)).sum();
            let after = now - state.entries.get(key).map_or(0, |value| bytes(key, value)) + bytes(key, value);
            if let Some(granted) = state.granted.filter(|granted| after > *granted && after > now) {
                return Err(format!("the state is full: it would have {after} bytes, and {granted} are granted"));
            }
            state.entries.insert(key.to_vec(), value.to_vec());
            Ok(())
        })
    }

    pub(crate) fn delete(key: &[u8]) {
        STATE.with_borrow_mut(|state| state.entries.remove(key));
    }

    pub(crate) fn scan(prefix: &[u8], after: Option<&[u8]>, limit: u32) -> Vec<(Vec<u8>, Vec<u8>)> {
        STATE.with_borrow(|state| {
            let behind = |key: &[u8]| key.starts_with(prefix) && after.is_none_or(|after| key > after);
            let found = state.entries.iter().filter(|(key, _)| behind(key));
            found.take(limit as usize).map(|(key, value)| (key.clone(), value.clone())).collect()
        })
    }
}

/// The records of a section.
///
/// # Errors
///
/// Says that the bytes are not records.
pub fn records(section: &[u8]) -> Result<Vec<Stored>, String> {
    let stored = |record: crate::Record<'_>| Stored {
        offset_delta: record.offset_delta(),
        timestamp: record.timestamp(),
        key: record.key().map(<[u8]>::to_vec),
        value: record.value().map(<[u8]>::to_vec),
        headers: record.headers().map(|(name, value)| (name.to_owned(), value.map(<[u8]>::to_vec))).collect(),
    };
    Section::new(section, BASE_TIMESTAMP).map(|record| record.map(stored).map_err(|_| "these bytes are not records".to_owned())).collect()
}

/// Takes the lines that were logged on this thread.
pub fn take_log() -> Vec<(Level, String)> {
    LOG.take()
}

pub(crate) fn write_log(level: Level, message: &str) {
    LOG.with_borrow_mut(|log| log.push((level, message.to_owned())));
}

fn params(params: &[(&str, &str)]) -> Params {
    Params::new(params.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
}

fn describe(failure: bindings::Failure) -> String {
    match failure.record_index {
        Some(index) => format!("record {index}: {}", failure.message),
        None => failure.message,
    }
}

std::thread_local! {
    static STATE: RefCell<State> = const { RefCell::new(State { entries: BTreeMap::new(), granted: None }) };
    static LOG: RefCell<Vec<(Level, String)>> = const { RefCell::new(Vec::new()) };
}

/// The time of the first record of a test batch, 2026-01-01 UTC.
const BASE_TIMESTAMP: i64 = 1_767_225_600_000;

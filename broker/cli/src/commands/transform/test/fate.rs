//! What became of each record of a batch.
//!
//! A record that comes out belongs to the one that went in with the same offset delta: guests keep it, whatever else they change. That
//! several come out with one delta says that one record became several; a broker numbers the batch anew then.

use super::input::Prepared;
use bytes::Bytes;
use millpond::Record;
use millpond_protocol::record::{RecordRef, check_section, iterate};
use std::{sync::Arc, time::Duration};

/// What one record became.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// The very bytes that went in.
    Kept,
    /// One other record.
    Changed,
    /// No record.
    Dropped,
    /// So many records.
    Became(usize),
    /// It was given a partition.
    Placed(u32),
}

/// A batch that has passed through a module.
#[derive(Debug)]
pub(super) struct Passed {
    /// For each record that went in, what became of it, and those that came out for it, by their place in `output`.
    pub(super) fates: Vec<(Fate, Vec<usize>)>,
    /// Records that came out for none that went in, by their place in `output`.
    pub(super) strays: Vec<usize>,
    /// The records that came out, in their order.
    pub(super) output: Vec<Output>,
    /// The records as they went in.
    pub(super) input: Vec<Record>,
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
    pub(super) time: Duration,
    /// The most memory that the instance has had after a call, so far.
    pub(super) memory_bytes_peak: u64,
}

/// A record that came out.
#[derive(Debug)]
pub(super) struct Output {
    /// With a partition where a partitioner or the broker has chosen it.
    pub(super) record: Record,
    /// Where the module chooses the topic: which.
    pub(super) topic: Option<Arc<str>>,
    /// Where a broker would store it.
    pub(super) offset: i64,
}

impl Passed {
    /// The records of a batch after a transform; or why a broker would not take what it returned. So many came out of those before.
    pub(super) fn transformed(prepared: &Prepared, section: &[u8], first_offset: i64) -> Result<Passed, String> {
        let summary = check_section(section).map_err(|error| error.to_string())?;
        let before: Vec<_> = iterate(&prepared.section).map_while(Result::ok).collect();
        let last = i64::try_from(before.len()).unwrap_or(i64::MAX) - 1;
        if summary.offsets_rise && i64::from(summary.last_offset_delta) > last {
            return Err(format!("it has a record with offset delta {} in a batch that ends at {last}", summary.last_offset_delta));
        }
        let mut passed = Passed { bytes_out: section.len() as u64, ..Passed::begin(prepared) };
        for (renumbered, record) in (0..).zip(iterate(section).map_while(Result::ok)) {
            let delta = if summary.offsets_rise { record.offset_delta.into() } else { renumbered };
            let owned = owned(&record, prepared.base_timestamp);
            passed.push(&before, &record, Output { record: owned, topic: None, offset: first_offset.saturating_add(delta) });
        }
        Ok(passed)
    }

    /// The records of a batch with the partitions that a partitioner chose. The host has held their number and range against the contract.
    pub(super) fn placed(prepared: &Prepared, partitions: Vec<u32>, first_offset: i64) -> Passed {
        let fates = partitions.iter().enumerate().map(|(place, partition)| (Fate::Placed(*partition), vec![place])).collect();
        let with_partition = |(record, partition): (&Record, u32)| Record { partition: Some(partition), ..record.clone() };
        let records = prepared.records.iter().zip(partitions).map(with_partition);
        let output = records.zip(first_offset..).map(|(record, offset)| Output { record, topic: None, offset }).collect();
        let passed = Passed::begin(prepared);
        Passed { fates, output, bytes_out: passed.bytes_in, ..passed }
    }

    /// A batch of which nothing has come out yet.
    pub(super) fn begin(prepared: &Prepared) -> Passed {
        Passed {
            fates: vec![(Fate::Dropped, Vec::new()); prepared.records.len()],
            strays: Vec::new(),
            output: Vec::new(),
            input: prepared.records.clone(),
            bytes_in: prepared.section.len() as u64,
            bytes_out: 0,
            time: Duration::ZERO,
            memory_bytes_peak: 0,
        }
    }

    /// Adds a record that came out; `before` is what went in.
    pub(super) fn push(&mut self, before: &[RecordRef<'_>], came: &RecordRef<'_>, output: Output) {
        let (place, source) = (self.output.len(), usize::try_from(came.offset_delta).unwrap_or(usize::MAX));
        match self.fates.get_mut(source) {
            Some((fate, places)) => {
                places.push(place);
                *fate = match places.len() {
                    1 if before.get(source).is_some_and(|before| before.encoded == came.encoded) => Fate::Kept,
                    1 => Fate::Changed,
                    several => Fate::Became(several),
                };
            }
            None => self.strays.push(place),
        }
        self.output.push(output);
    }
}

/// The record by itself.
pub(super) fn owned(record: &RecordRef<'_>, base_timestamp: i64) -> Record {
    let bytes = |bytes: Option<&[u8]>| bytes.map(Bytes::copy_from_slice);
    Record {
        key: bytes(record.key),
        value: bytes(record.value),
        headers: record.headers.iter().map(|(name, value)| (name.to_owned(), bytes(value))).collect(),
        timestamp: Some(base_timestamp.wrapping_add(record.timestamp_delta)),
        partition: None,
    }
}

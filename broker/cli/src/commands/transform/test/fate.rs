//! What became of each record of a batch.
//!
//! A record that comes out belongs to the one that went in with the same offset delta: guests keep it, whatever else they change. That
//! several come out with one delta says that one record became several; a broker numbers the batch anew then.

use super::input::Prepared;
use bytes::Bytes;
use millpond::Record;
use millpond_protocol::record::{RecordRef, check_section, iterate};
use std::time::Duration;

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
    /// The records that came out, in their order; `offset` is their place in the batch as a broker would store it.
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
    pub(super) record: Record,
    pub(super) offset_delta: i64,
}

impl Passed {
    /// The records of a batch after a transform; or why a broker would not take what it returned.
    pub(super) fn transformed(prepared: &Prepared, section: &[u8]) -> Result<Passed, String> {
        let summary = check_section(section).map_err(|error| error.to_string())?;
        let before: Vec<_> = iterate(&prepared.section).map_while(Result::ok).collect();
        let last = i64::try_from(before.len()).unwrap_or(i64::MAX) - 1;
        if summary.offsets_rise && i64::from(summary.last_offset_delta) > last {
            return Err(format!("it has a record with offset delta {} in a batch that ends at {last}", summary.last_offset_delta));
        }
        let mut fates = vec![(Fate::Dropped, Vec::new()); before.len()];
        let (mut strays, mut output) = (Vec::new(), Vec::new());
        for (place, record) in iterate(section).map_while(Result::ok).enumerate() {
            let source = usize::try_from(record.offset_delta).unwrap_or(usize::MAX);
            match fates.get_mut(source) {
                Some((fate, places)) => {
                    places.push(place);
                    *fate = match places.len() {
                        1 if before[source].encoded == record.encoded => Fate::Kept,
                        1 => Fate::Changed,
                        several => Fate::Became(several),
                    };
                }
                None => strays.push(place),
            }
            let renumbered = i64::try_from(place).unwrap_or(i64::MAX);
            let offset_delta = if summary.offsets_rise { record.offset_delta.into() } else { renumbered };
            output.push(Output { record: owned(&record, prepared.base_timestamp), offset_delta });
        }
        Ok(Passed { fates, strays, output, bytes_out: section.len() as u64, ..Passed::of(prepared) })
    }

    /// The records of a batch with the partitions that a partitioner chose. The host has held their number and range against the contract.
    pub(super) fn placed(prepared: &Prepared, partitions: Vec<u32>) -> Passed {
        let fates = partitions.iter().enumerate().map(|(place, partition)| (Fate::Placed(*partition), vec![place])).collect();
        let with_partition = |(record, partition): (&Record, u32)| Record { partition: Some(partition), ..record.clone() };
        let records = prepared.records.iter().zip(partitions).map(with_partition);
        let output = records.zip(0..).map(|(record, offset_delta)| Output { record, offset_delta }).collect();
        let passed = Passed::of(prepared);
        Passed { fates, output, bytes_out: passed.bytes_in, ..passed }
    }

    pub(super) fn into_output(self) -> impl Iterator<Item = Record> {
        self.output.into_iter().map(|output| output.record)
    }

    fn of(prepared: &Prepared) -> Passed {
        Passed {
            fates: Vec::new(),
            strays: Vec::new(),
            output: Vec::new(),
            input: prepared.records.clone(),
            bytes_in: prepared.section.len() as u64,
            bytes_out: 0,
            time: Duration::ZERO,
            memory_bytes_peak: 0,
        }
    }
}

fn owned(record: &RecordRef<'_>, base_timestamp: i64) -> Record {
    let bytes = |bytes: Option<&[u8]>| bytes.map(Bytes::copy_from_slice);
    Record {
        key: bytes(record.key),
        value: bytes(record.value),
        headers: record.headers.iter().map(|(name, value)| (name.to_owned(), bytes(value))).collect(),
        timestamp: Some(base_timestamp.wrapping_add(record.timestamp_delta)),
        partition: None,
    }
}

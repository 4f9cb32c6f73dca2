//! Records from a file of JSON lines, and batches of them.

use crate::{
    config::ByteSize,
    failure::{Failure, Outcome},
    json_line::{self, JsonLineError},
};
use bytes::Bytes;
use millpond::Record;
use millpond_protocol::{
    batch::{Batch, BatchBuilder},
    compression::Codec,
    record::NewRecord,
};
use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

/// The largest file of records: all of it is kept in memory.
const FILE_BYTES_MAX: u64 = 256 << 20;

/// The time of the first record that has none, in milliseconds: 2026-01-01 UTC. Each line has a millisecond of its own.
const TIMESTAMP_FIRST: i64 = 1_767_225_600_000;

/// A file of JSON lines.
pub(super) struct Lines {
    path: PathBuf,
    bytes: Vec<u8>,
}

/// A record and the line that it came from, counted from 1.
#[derive(Debug)]
pub(super) struct Numbered {
    pub(super) line: u64,
    pub(super) record: Record,
    /// The topic, if the line says one.
    pub(super) topic: Option<String>,
}

impl Lines {
    pub(super) fn read(path: &Path) -> Outcome<Lines> {
        let unreadable = |error: io::Error| Failure::usage(format!("can't read the records in {}", path.display())).because(&error);
        let mut bytes = Vec::new();
        File::open(path).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)).map_err(unreadable)?;
        if bytes.len() as u64 > FILE_BYTES_MAX {
            let what = format!("{} is larger than {}", path.display(), ByteSize(FILE_BYTES_MAX));
            return Err(Failure::usage(what).hint("a part of it is enough for a test"));
        }
        Ok(Lines { path: path.to_owned(), bytes })
    }

    /// The records, without blank lines. The first line that is none is an error.
    pub(super) fn records(&self) -> Outcome<Vec<Numbered>> {
        let lines = self.bytes.split(|&byte| byte == b'\n').zip(1_u64..);
        let lines = lines.filter(|(text, _)| !text.trim_ascii().is_empty());
        lines.map(|(text, line)| self.record(text, line)).collect()
    }

    fn record(&self, text: &[u8], line: u64) -> Outcome<Numbered> {
        let read = json_line::read(text).and_then(|record| Ok((record, json_line::topic(text)?)));
        let (record, topic) = read.map_err(|error| {
            let failure = Failure::usage(format!("line {line} of {} is not a record", self.path.display())).because(&error);
            match error {
                JsonLineError::UnknownField(_) | JsonLineError::NoValue => {
                    failure.hint("a line is {\"key\",\"value\",\"headers\",\"timestamp\"}, of which only the value is needed")
                }
                _ => failure,
            }
        })?;
        Ok(Numbered { line, record, topic })
    }
}

/// A batch as it crosses to a module.
#[derive(Debug)]
pub(super) struct Prepared {
    /// The records as they go in, each with its time.
    pub(super) records: Vec<Record>,
    /// The records section, uncompressed.
    pub(super) section: Bytes,
    pub(super) base_timestamp: i64,
}

impl Prepared {
    pub(super) fn new(batch: &[Numbered]) -> Outcome<Prepared> {
        let records: Vec<Record> = batch.iter().map(with_timestamp).collect();
        let mut builder = BatchBuilder::new();
        let too_large =
            |error| Failure::usage("these records don't fit into one batch").because(&error).hint("make batches smaller, with --batch N");
        for record in &records {
            let headers: Vec<_> = record.headers.iter().map(|(name, value)| (name.as_str(), value.as_deref())).collect();
            let (key, value) = (record.key.as_deref(), record.value.as_deref());
            let new = NewRecord { timestamp: record.timestamp.unwrap_or_default(), key, value, headers: &headers };
            builder.push(&new).map_err(too_large)?;
        }
        let batch = builder.finish(Codec::None).and_then(Batch::parse).map_err(too_large)?;
        let section = batch.records_section(i32::MAX as usize).map_err(too_large)?;
        Ok(Prepared { records, section, base_timestamp: batch.header().base_timestamp })
    }
}

fn with_timestamp(numbered: &Numbered) -> Record {
    let by_line = || TIMESTAMP_FIRST.saturating_add_unsigned(numbered.line - 1);
    Record { timestamp: Some(numbered.record.timestamp.unwrap_or_else(by_line)), ..numbered.record.clone() }
}

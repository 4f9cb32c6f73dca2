//! Batches to write, and a plain list to compare the log with.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use millpond_log::sim::{Random, SimDisk};
use millpond_log::{Cursor, Disk, Log, LogConfig, LogError, LogReader, RecoveryReport, VerifyOnRead};
use millpond_protocol::batch::{Batch, BatchBuilder};
use millpond_protocol::compression::Codec;
use millpond_protocol::record::NewRecord;

pub(crate) const DIR: &str = "/data/readings-0";

/// Small segments and a small index interval, so that a few batches need several of both.
pub(crate) const SMALL: LogConfig = config(4096, 512);

/// One segment, whatever comes.
pub(crate) const ROOMY: LogConfig = config(1 << 30, 4096);

pub(crate) const fn config(segment_bytes: u64, index_interval_bytes: u32) -> LogConfig {
    LogConfig { segment_bytes, index_interval_bytes, verify_on_read: VerifyOnRead::First, producer_id_expiration_ms: 86_400_000 }
}

/// A batch of records with these timestamps and values of this size.
pub(crate) fn batch_with(timestamps: &[i64], value_bytes: usize, codec: Codec) -> Batch {
    let mut builder = BatchBuilder::new();
    for (number, timestamp) in timestamps.iter().enumerate() {
        let value = vec![u8::try_from(number % 251).expect("below 251"); value_bytes];
        let record = NewRecord { timestamp: *timestamp, key: None, value: Some(&value), headers: &[] };
        builder.push(&record).expect("a small record fits");
    }
    Batch::parse(builder.finish(codec).expect("records were pushed")).expect("the builder builds batches")
}

/// A batch of some records.
pub(crate) fn batch(records: usize, value_bytes: usize) -> Batch {
    batch_with(&vec![1_000; records], value_bytes, Codec::None)
}

/// A batch of any kind: 1 to 6 records, most of them small, timestamps around `clock`, now and then compressed.
pub(crate) fn random_batch(random: &mut Random, clock: i64) -> Batch {
    let mut builder = BatchBuilder::new();
    for _ in 0..=random.below(6) {
        let size = if random.percent(10) { random.below(3000) } else { random.below(200) };
        let value: Vec<u8> = (0..size).map(|_| random.next_u64().to_le_bytes()[0]).collect();
        let timestamp = clock + random.below(200).cast_signed() - 100;
        builder.push(&NewRecord { timestamp, key: Some(b"k"), value: Some(&value), headers: &[] }).expect("a small record fits");
    }
    let codec = if random.percent(20) { Codec::Lz4 } else { Codec::None };
    Batch::parse(builder.finish(codec).expect("records were pushed")).expect("the builder builds batches")
}

/// A batch as the log should have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) base: i64,
    pub(crate) next: i64,
    pub(crate) bytes: Vec<u8>,
}

/// What the log should hold after these batches were appended from offset `base` on.
pub(crate) fn stored(mut base: i64, leader_epoch: i32, batches: &[Batch]) -> Vec<Stored> {
    let mut stored = Vec::new();
    for batch in batches {
        let mut bytes = batch.bytes().to_vec();
        bytes[..8].copy_from_slice(&base.to_be_bytes());
        bytes[12..16].copy_from_slice(&leader_epoch.to_be_bytes());
        let next = base + i64::from(batch.header().last_offset_delta) + 1;
        stored.push(Stored { base, next, bytes });
        base = next;
    }
    stored
}

/// A log on a simulated disk, and what it should hold.
pub(crate) struct Fixture {
    pub(crate) disk: SimDisk,
    pub(crate) log: Log,
    pub(crate) config: LogConfig,
    pub(crate) model: Vec<Stored>,
    /// Where the log begins. The first batch of the model may begin before it.
    pub(crate) start: i64,
}

impl Fixture {
    pub(crate) fn new(config: LogConfig) -> Fixture {
        let disk = prepared_disk();
        let (log, report) = open(&disk, config);
        assert!(report.is_clean(), "a new log is clean: {report:?}");
        Fixture { disk, log, config, model: Vec::new(), start: 0 }
    }

    pub(crate) fn append(&mut self, batches: &[Batch]) {
        let base = self.log.append(batches, 7).expect("the append works");
        assert_eq!(base, self.end());
        self.model.extend(stored(base, 7, batches));
        assert_eq!(self.log.log_end(), self.end());
    }

    pub(crate) fn flush(&mut self) {
        if let Some(flush) = self.log.begin_flush() {
            self.log.end_flush(flush.run()).expect("the flush works");
        }
        assert_eq!(self.log.durable_end(), self.end());
    }

    /// Deletes what lies before `before`.
    pub(crate) fn delete_before(&mut self, before: i64) {
        if let Some(deletion) = self.log.begin_delete(before) {
            // One that asks for less than is gone already may still have a segment to remove.
            let start = before.clamp(self.start, self.end());
            assert_eq!(deletion.run().expect("the deletion works"), start);
            self.note_start(start);
        }
    }

    /// The log begins here now.
    pub(crate) fn note_start(&mut self, start: i64) {
        self.start = start;
        self.model.retain(|stored| stored.next > start);
    }

    /// Drops the log as a kill would, and opens it again.
    pub(crate) fn reopen(&mut self) -> RecoveryReport {
        let (log, report) = open(&self.disk, self.config);
        self.log = log;
        report
    }

    /// Closes the log in order, cuts the power, and opens it again.
    pub(crate) fn close_and_reopen(self, seed: u64) -> (Fixture, RecoveryReport) {
        self.log.close().expect("the log closes");
        self.disk.crash(seed);
        let (log, report) = open(&self.disk, self.config);
        (Fixture { disk: self.disk, log, config: self.config, model: self.model, start: self.start }, report)
    }

    pub(crate) fn end(&self) -> i64 {
        self.model.last().map_or(self.start, |stored| stored.next)
    }

    pub(crate) fn check(&self) {
        check_from(&self.log.reader(), &self.model, self.start);
    }

    /// Paths of the `.log` files, in order.
    pub(crate) fn segments(&self) -> Vec<PathBuf> {
        files(&self.disk, ".log")
    }
}

pub(crate) fn files(disk: &SimDisk, ending: &str) -> Vec<PathBuf> {
    let names = disk.list(Path::new(DIR)).expect("the folder is there");
    let mut paths: Vec<PathBuf> =
        names.iter().filter_map(|name| name.to_str()).filter(|name| name.ends_with(ending)).map(|name| Path::new(DIR).join(name)).collect();
    paths.sort();
    paths
}

/// A disk with the folder above the log's.
pub(crate) fn prepared_disk() -> SimDisk {
    let disk = SimDisk::new();
    disk.create_dir_all(Path::new("/data")).expect("an empty disk takes a folder");
    disk.sync_dir(Path::new("/")).expect("syncs");
    disk
}

pub(crate) fn try_open(disk: &SimDisk, config: LogConfig) -> Result<(Log, RecoveryReport), LogError> {
    Log::open(Arc::new(disk.clone()), Path::new(DIR), config)
}

pub(crate) fn open(disk: &SimDisk, config: LogConfig) -> (Log, RecoveryReport) {
    try_open(disk, config).expect("the log opens")
}

/// Compares everything that can be read with what there should be.
pub(crate) fn check(reader: &LogReader, model: &[Stored]) {
    check_from(reader, model, model.first().map_or(reader.log_end(), |stored| stored.base));
}

/// As [`check`], of a log whose records before `start` were deleted.
pub(crate) fn check_from(reader: &LogReader, model: &[Stored], start: i64) {
    let end = model.last().map_or(start, |stored| stored.next);
    assert_eq!((reader.log_start(), reader.log_end()), (start, end), "the offsets of the log");
    let expected: Vec<u8> = model.iter().flat_map(|stored| stored.bytes.iter().copied()).collect();
    assert!(read_all(reader, start, 1 << 20).expect("everything can be read") == expected, "the bytes of the log");
    let segments = reader.segments();
    if segments[0].base_offset == start {
        assert_eq!(reader.size_bytes(), expected.len() as u64);
    } else {
        assert!(reader.size_bytes() >= expected.len() as u64, "nothing more than whole segments is removed");
        // One that was active when all of it was deleted may be there still.
        assert!(segments.len() == 1 || segments[1].base_offset >= start, "and every whole segment is");
    }
}

/// Everything from an offset to the end, by one cursor.
pub(crate) fn read_all(reader: &LogReader, from: i64, max_bytes: usize) -> Result<Vec<u8>, LogError> {
    let mut cursor = Cursor::new(from);
    let mut all = Vec::new();
    loop {
        let bytes = reader.read_next(&mut cursor, max_bytes, i64::MAX)?;
        if bytes.is_empty() {
            return Ok(all);
        }
        all.extend_from_slice(&bytes);
    }
}

/// The batches in what a read returned.
pub(crate) fn batches(mut bytes: Bytes) -> Vec<Batch> {
    std::iter::from_fn(|| Batch::take_front(&mut bytes).expect("a read returns whole batches")).collect()
}

//! Logs of every kind, the same bytes each time: for Kafka's own dump tool, and for what it has once said about them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use millpond_log::inspect::{Fault, RepairMode, RepairPlan, Watch};
use millpond_log::{Disk, Log, LogConfig, OpenMode, VerifyOnRead, write_all_at};
use millpond_protocol::batch::{Batch, BatchBuilder};
use millpond_protocol::compression::Codec;
use millpond_protocol::record::NewRecord;

/// Writes a log into a folder.
pub(crate) type Write = fn(&Arc<dyn Disk>, &Path);

/// The name of each sample, and what writes it.
pub(crate) const SAMPLES: [(&str, Write); 15] = [
    ("empty", |disk, dir| drop(Sample::new(disk, dir, ROOMY))),
    ("small", small),
    ("plain", |disk, dir| many(disk, dir, Codec::None)),
    ("gzip", |disk, dir| many(disk, dir, Codec::Gzip)),
    ("snappy", |disk, dir| many(disk, dir, Codec::Snappy)),
    ("lz4", |disk, dir| many(disk, dir, Codec::Lz4)),
    ("zstd", |disk, dir| many(disk, dir, Codec::Zstd)),
    ("times", times),
    ("killed", killed),
    ("torn", torn),
    ("lost-indexes", lost_indexes),
    ("dropped-batches", dropped_batches),
    ("truncated", truncated),
    ("deleted", deleted),
    ("reopened", reopened),
];

/// Those whose bytes follow from Millpond alone, and not from the version of a compression library.
pub(crate) fn is_ours_alone(name: &str) -> bool {
    Codec::ALL.iter().all(|codec| codec.name() != name)
}

/// A log that is being written.
struct Sample {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    config: LogConfig,
    log: Log,
}

impl Sample {
    fn new(disk: &Arc<dyn Disk>, dir: &Path, config: LogConfig) -> Sample {
        let (log, _) = Log::open(Arc::clone(disk), dir, config).expect("a new log opens");
        Sample { disk: Arc::clone(disk), dir: dir.to_path_buf(), config, log }
    }

    fn append(&mut self, batches: &[Batch]) {
        self.log.append(batches, 5).expect("appends");
    }

    fn flush(&mut self) {
        if let Some(flush) = self.log.begin_flush() {
            self.log.end_flush(flush.run()).expect("flushes");
        }
    }

    /// Closes the log in order, or leaves it as a kill would, and opens it again.
    fn reopen(self, closes: bool) -> Sample {
        let Sample { disk, dir, config, log } = self;
        if closes {
            log.close().expect("closes");
        } else {
            drop(log);
        }
        Sample::new(&disk, &dir, config)
    }

    /// Closes the log, damages the file of a segment, and repairs it.
    fn repaired(self, segment: i64, at: u64, mode: RepairMode) -> Sample {
        let Sample { disk, dir, config, log } = self;
        log.close().expect("closes");
        overwrite(&disk, &dir.join(format!("{segment:020}.log")), at, b"damage");
        let plan = RepairPlan::new(&*disk, &dir, mode, &mut Unseen).expect("can be repaired");
        plan.apply_with(&disk, config).expect("is repaired");
        Sample::new(&disk, &dir, config)
    }
}

struct Unseen;

impl Watch for Unseen {
    fn fault(&mut self, _fault: &Fault) {}
    fn progress(&mut self, _bytes: u64) {}
}

fn overwrite(disk: &Arc<dyn Disk>, path: &Path, at: u64, bytes: &[u8]) {
    let file = disk.open(path, OpenMode::ReadWrite).expect("the file is there");
    write_all_at(&*file, &mut [std::io::IoSlice::new(bytes)], at).expect("writes");
}

/// Everything that a record can be, in a few hundred bytes, closed in order.
fn small(disk: &Arc<dyn Disk>, dir: &Path) {
    let mut sample = Sample::new(disk, dir, config(400, 100));
    let mut builder = BatchBuilder::new();
    let records = [
        NewRecord { timestamp: TIME, key: Some(b"pump-1"), value: Some(b"21.5"), headers: &[] },
        NewRecord { timestamp: TIME - 5_000, key: None, value: Some(b"late"), headers: &[("unit", Some(b"celsius"))] },
        NewRecord { timestamp: TIME + 1, key: Some(b"pump-1"), value: None, headers: &[("why", None), ("why", Some(b"gone"))] },
        NewRecord { timestamp: TIME + 1, key: None, value: None, headers: &[] },
        NewRecord { timestamp: TIME + 2, key: Some(b""), value: Some(b""), headers: &[] },
        NewRecord { timestamp: TIME + 3, key: Some("Ω".as_bytes()), value: Some("°C".as_bytes()), headers: &[("", Some(b""))] },
    ];
    for record in &records {
        builder.push(record).expect("a small record fits");
    }
    builder.set_producer(4_711, 2, 17);
    let all = parsed(builder.finish(Codec::None).expect("records were pushed"));
    sample.append(&[all, numbered(0, 3, 20, Codec::None)]);
    sample.append(&[numbered(1, 1, 150, Codec::None), numbered(2, 2, 10, Codec::None)]);
    sample.append(&[numbered(3, 1, 500, Codec::None), numbered(4, 1, 30, Codec::None)]);
    sample.log.close().expect("closes");
}

/// Several segments, with a few index entries in each.
fn many(disk: &Arc<dyn Disk>, dir: &Path, codec: Codec) {
    let mut sample = Sample::new(disk, dir, config(20_000, 1_000));
    for number in 0..150 {
        sample.append(&[numbered(number, 1 + number % 7, 60, codec), numbered(number, 1, 300, codec)]);
    }
    sample.log.close().expect("closes");
}

/// Timestamps out of order, before 1970 and equal ones.
fn times(disk: &Arc<dyn Disk>, dir: &Path) {
    let mut sample = Sample::new(disk, dir, config(5_000, 300));
    for number in 0..60_i64 {
        let mut builder = BatchBuilder::new();
        for step in [0, 7, -3, 7, 11] {
            let timestamp = match number % 3 {
                0 => TIME + number * 10 + step,
                1 => TIME - number * 1_000 - step,
                _ => step - 20,
            };
            builder.push(&NewRecord { timestamp, key: None, value: Some(b"out of order"), headers: &[] }).expect("fits");
        }
        sample.append(&[parsed(builder.finish(Codec::None).expect("records were pushed"))]);
    }
    sample.log.close().expect("closes");
}

/// Left as a kill leaves it: the indexes hold less than there is.
fn killed(disk: &Arc<dyn Disk>, dir: &Path) {
    let mut sample = filled(disk, dir);
    sample.append(&[numbered(90, 2, 400, Codec::None), numbered(91, 2, 400, Codec::None)]);
}

/// Recovered after its last batch was torn, and gone on with.
fn torn(disk: &Arc<dyn Disk>, dir: &Path) {
    let sample = filled(disk, dir);
    let last = sample.log.reader().segments().last().copied().expect("a log has a segment");
    let path = dir.join(format!("{:020}.log", last.base_offset));
    drop(sample);
    let file = disk.open(&path, OpenMode::ReadWrite).expect("the file is there");
    file.set_len(last.bytes - 33).expect("cuts");
    let mut sample = Sample::new(disk, dir, config(3_000, 300));
    sample.append(&[numbered(92, 3, 100, Codec::None)]);
    sample.log.close().expect("closes");
}

/// Recovered with all indexes gone.
fn lost_indexes(disk: &Arc<dyn Disk>, dir: &Path) {
    drop(filled(disk, dir));
    for name in disk.list(dir).expect("lists") {
        let path = dir.join(name);
        if path.extension().is_some_and(|extension| extension == "index" || extension == "timeindex") {
            disk.remove_file(&path).expect("removes");
        }
    }
    let sample = Sample::new(disk, dir, config(3_000, 300));
    sample.log.close().expect("closes");
}

/// Repaired, with empty batches in the place of damaged ones.
fn dropped_batches(disk: &Arc<dyn Disk>, dir: &Path) {
    let sample = filled(disk, dir).repaired(0, 500, RepairMode::DropBatch);
    let second = sample.log.reader().segments()[1].base_offset;
    let mut sample = sample.repaired(second, 30, RepairMode::DropBatch);
    sample.append(&[numbered(93, 1, 100, Codec::None)]);
    sample.log.close().expect("closes");
}

/// Repaired by ending it in front of the damage.
fn truncated(disk: &Arc<dyn Disk>, dir: &Path) {
    let sample = filled(disk, dir);
    let second = sample.log.reader().segments()[1].base_offset;
    let mut sample = sample.repaired(second, 1_000, RepairMode::Truncate);
    sample.append(&[numbered(94, 1, 100, Codec::None)]);
    sample.log.close().expect("closes");
}

/// The oldest records deleted, up to the middle of a segment.
fn deleted(disk: &Arc<dyn Disk>, dir: &Path) {
    let mut sample = filled(disk, dir);
    sample.flush();
    let before = sample.log.reader().segments()[2].base_offset + 3;
    sample.log.begin_delete(before).expect("there is something to delete").run().expect("deletes");
    sample.log.close().expect("closes");
}

/// Closed and killed in turn, which neither an index nor a batch may show.
fn reopened(disk: &Arc<dyn Disk>, dir: &Path) {
    let mut sample = Sample::new(disk, dir, config(3_000, 300));
    for number in 0..40 {
        sample.append(&[numbered(number, 1 + number % 3, 90, Codec::None)]);
        sample = sample.reopen(number % 2 == 0);
    }
    sample.log.close().expect("closes");
}

fn filled(disk: &Arc<dyn Disk>, dir: &Path) -> Sample {
    let mut sample = Sample::new(disk, dir, config(3_000, 300));
    for number in 0..60 {
        sample.append(&[numbered(number, 1 + number % 4, 70, Codec::None)]);
    }
    sample
}

fn numbered(number: u32, records: u32, value_bytes: usize, codec: Codec) -> Batch {
    let mut builder = BatchBuilder::new();
    for index in 0..records {
        let key = format!("key-{}", number % 5);
        let mut value = format!("{number}/{index} ").into_bytes();
        value.extend(std::iter::repeat_n(b'.', value_bytes));
        let timestamp = TIME + i64::from(number) * 1_000 + i64::from(index);
        builder.push(&NewRecord { timestamp, key: Some(key.as_bytes()), value: Some(&value), headers: &[] }).expect("a record fits");
    }
    parsed(builder.finish(codec).expect("records were pushed"))
}

fn parsed(bytes: Bytes) -> Batch {
    Batch::parse(bytes).expect("the builder builds batches")
}

const fn config(segment_bytes: u64, index_interval_bytes: u32) -> LogConfig {
    LogConfig { segment_bytes, index_interval_bytes, verify_on_read: VerifyOnRead::First, producer_id_expiration_ms: 86_400_000 }
}

const ROOMY: LogConfig = config(1 << 30, 4_096);

/// Some day in 2025, in milliseconds.
const TIME: i64 = 1_750_000_000_000;

//! `millpond log dump`: what is in the files.

use super::{
    offsets::Offsets,
    rows::{Rows, bytes, time},
    target::{Partition, Target},
};
use crate::{
    failure::{Failure, Outcome},
    json_line,
    output::{self, OutputArgs, counted, thousands},
};
use clap::Args;
use millpond_log::{
    Damage, LogError, RealDisk,
    inspect::{DamagedRange, IndexEntry, IndexWalk, Piece, RECORDS_BYTES_MAX, SegmentWalk, WalkedBatch, kept_log_of, segment_of},
};
use millpond_protocol::{
    batch::{BatchHeader, TimestampType},
    compression::Codec,
    record::Record,
};
use serde::Serialize;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Arguments of `millpond log dump`.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DumpArgs {
    /// A data folder, a topic's or a partition's folder in it, or a .log, .index or .timeindex file
    path: PathBuf,
    /// Only what holds these offsets: A..B (B not included), A.., ..B, or one offset
    #[arg(long, value_name = "A..B")]
    offsets: Option<Offsets>,
    /// Print the records too; with -o json or jsonl, the records alone
    #[arg(long)]
    records: bool,
    #[command(flatten)]
    output: OutputArgs,
}

/// Runs `millpond log dump`.
pub(super) fn run(arguments: &DumpArgs) -> Outcome {
    let target = Target::of(&arguments.path)?;
    let in_use = target.is_in_use();
    let mut dump = Dump {
        rows: Rows::new(arguments.output.format()),
        offsets: arguments.offsets.clone().unwrap_or(Offsets::ALL),
        records: arguments.records,
        in_use,
        damages: 0,
    };
    match &target.file {
        Some((path, base_offset)) => dump.file(&target.partitions[0], path, *base_offset)?,
        None => target.partitions.iter().try_for_each(|partition| dump.partition(partition))?,
    }
    dump.rows.finish()?;
    if in_use {
        output::note("A broker is using this data folder: what it stores from now on is not shown, and the end may be in motion.");
    }
    if dump.damages == 0 {
        return Ok(());
    }
    let places = counted(dump.damages, "damaged place");
    Err(Failure::new(format!("{places} met")).hint(format!("`millpond log verify {}` says more", arguments.path.display())))
}

struct Dump {
    rows: Rows,
    offsets: Offsets,
    records: bool,
    in_use: bool,
    damages: u64,
}

/// A batch, for a program.
#[derive(Serialize)]
struct BatchRow<'a> {
    kind: &'static str,
    file: &'a Path,
    base_offset: i64,
    last_offset: i64,
    count: i32,
    position: u64,
    size_bytes: usize,
    codec: &'static str,
    timestamp_type: &'static str,
    base_timestamp: i64,
    max_timestamp: i64,
    leader_epoch: i32,
    producer_id: i64,
    producer_epoch: i16,
    base_sequence: i32,
    transactional: bool,
    control: bool,
    crc: String,
    crc_ok: bool,
}

/// Damage, for a program.
#[derive(Serialize)]
struct DamageRow<'a> {
    kind: &'static str,
    file: &'a Path,
    position: u64,
    size_bytes: u64,
    offset: i64,
    next_offset: Option<i64>,
    reason: String,
    /// What the header says, if it can be read.
    batch: Option<BatchRow<'a>>,
}

/// An entry of an index, for a program.
#[derive(Serialize)]
struct EntryRow<'a> {
    kind: &'static str,
    file: &'a Path,
    position: u64,
    offset: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    batch_position: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<i64>,
}

impl Dump {
    fn partition(&mut self, partition: &Partition) -> Outcome {
        let bases = bases_in(&partition.dir)?;
        for (number, (base_offset, path)) in bases.iter().enumerate() {
            let next_base = bases.get(number + 1).map(|(next_base, _)| *next_base);
            if self.offsets.overlaps(*base_offset, next_base.unwrap_or(i64::MAX)) {
                self.segment(partition, path, *base_offset, next_base)?;
            }
        }
        Ok(())
    }

    fn file(&mut self, partition: &Partition, path: &Path, base_offset: i64) -> Outcome {
        if kept_log_of(path).is_some() {
            let walk = SegmentWalk::open_kept(&RealDisk, path, base_offset).map_err(|error| failed(&error))?;
            return self.pieces(partition, path, walk);
        }
        if segment_of(path).is_none_or(|(_, extension)| extension != "log") {
            return self.index(path, base_offset);
        }
        let next_base = bases_in(&partition.dir)?.into_iter().map(|(base, _)| base).find(|base| *base > base_offset);
        self.segment(partition, path, base_offset, next_base)
    }

    fn segment(&mut self, partition: &Partition, path: &Path, base_offset: i64, next_base: Option<i64>) -> Outcome {
        match SegmentWalk::open_or_damage(&RealDisk, path, base_offset, next_base) {
            Ok(Ok(walk)) => self.pieces(partition, path, walk),
            Ok(Err(range)) => {
                self.rows.line(&path.display().to_string())?;
                self.damage(path, &range)?;
                self.rows.line("")
            }
            // Retention has removed it since the folder was listed.
            Err(LogError::Io { source, .. }) if self.in_use && source.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(failed(&error)),
        }
    }

    fn pieces(&mut self, partition: &Partition, path: &Path, mut walk: SegmentWalk) -> Outcome {
        self.rows.line(&path.display().to_string())?;
        self.rows.line(BATCH_HEADINGS)?;
        while let Some(piece) = walk.next_piece().map_err(|error| failed(&error))? {
            match piece {
                Piece::Batch(found) => {
                    if self.offsets.overlaps(found.header.base_offset, found.header.next_offset()) {
                        self.batch(partition, path, &mut walk, &found)?;
                    }
                }
                Piece::Damage(range) => self.damage(path, &range)?,
            }
        }
        self.rows.line("")
    }

    fn batch(&mut self, partition: &Partition, path: &Path, walk: &mut SegmentWalk, found: &WalkedBatch) -> Outcome {
        self.rows.line(&batch_line(found.position, &found.header, "ok"))?;
        if !self.records {
            return self.rows.object(&batch_row(path, found.position, &found.header, true));
        }
        let Some(batch) = walk.load(found).map_err(|error| failed(&error))? else {
            return self.beside(found, "the batch is too large to be unpacked here");
        };
        let records = match batch.records(RECORDS_BYTES_MAX) {
            Ok(records) => records,
            Err(error) => return self.beside(found, &error.to_string()),
        };
        for record in records {
            match record {
                Ok(record) if self.offsets.contains(record.offset) => self.record(partition, &record)?,
                Ok(_) => {}
                Err(error) => return self.beside(found, &error.to_string()),
            }
        }
        Ok(())
    }

    /// Says why the records of a batch are not shown.
    fn beside(&mut self, found: &WalkedBatch, why: &str) -> Outcome {
        self.damages += 1;
        if self.rows.is_table() {
            return self.rows.line(&format!("  ! {why}"));
        }
        self.rows.flush()?;
        output::note(format!("offsets {} to {}: {why}", found.header.base_offset, found.header.last_offset()));
        Ok(())
    }

    fn record(&mut self, partition: &Partition, record: &Record) -> Outcome {
        if self.rows.is_table() {
            let mut headers = String::new();
            for (name, value) in &record.headers {
                headers.extend(["  ", &bytes(Some(name.as_bytes())), "=", &bytes(value.as_deref())]);
            }
            let (key, value) = (bytes(record.key.as_deref()), bytes(record.value.as_deref()));
            return self.rows.line(&format!("  | {:>14}  {}  {key}: {value}{headers}", thousands(record.offset), time(record.timestamp)));
        }
        let place =
            json_line::Place { topic: &partition.topic, partition: partition.number, offset: record.offset, timestamp: record.timestamp };
        let headers: Vec<_> = record.headers.iter().collect();
        let mut line = Vec::new();
        json_line::write(&mut line, place, record.key.as_deref(), record.value.as_deref(), &headers);
        self.rows.json(String::from_utf8_lossy(&line).trim_end())
    }

    fn damage(&mut self, path: &Path, range: &DamagedRange) -> Outcome {
        if !self.offsets.overlaps(range.offset, range.next_offset.unwrap_or(i64::MAX)) {
            return Ok(());
        }
        let in_motion = self.in_use && range.next_offset.is_none() && !matches!(range.reason, Damage::Unreadable(_));
        self.damages += u64::from(!in_motion);
        let kind = if in_motion { "in_motion" } else { "damage" };
        let DamagedRange { position, bytes, offset, next_offset, reason, header, crc_ok, .. } = range;
        // What is only in a wrong place is shown with the offset that it says.
        if let Some(header) = header.as_ref().filter(|header| *crc_ok || header.base_offset == *offset) {
            self.rows.line(&batch_line(*position, header, if *crc_ok { "ok" } else { "WRONG" }))?;
        }
        let words = match reason {
            Damage::Unreadable(source) if *bytes == 0 => format!("offset {}: the file can't be opened: {source}", thousands(*offset)),
            _ => format!(
                "byte {}, offset {}: {} bytes are not a whole batch: {reason}",
                thousands(*position),
                thousands(*offset),
                thousands(*bytes)
            ),
        };
        self.rows.line(&format!("  ! {words}"))?;
        if self.records && !self.rows.is_table() {
            // What is on stdout then are records alone.
            self.rows.flush()?;
            output::note(format!("{}: {words}", path.display()));
            return Ok(());
        }
        let batch = header.as_ref().map(|header| batch_row(path, *position, header, *crc_ok));
        let (reason, size_bytes) = (reason.to_string(), *bytes);
        self.rows.object(&DamageRow {
            kind,
            file: path,
            position: *position,
            size_bytes,
            offset: *offset,
            next_offset: *next_offset,
            reason,
            batch,
        })
    }

    fn index(&mut self, path: &Path, base_offset: i64) -> Outcome {
        let mut walk = IndexWalk::open(&RealDisk, path, base_offset).map_err(|error| failed(&error))?;
        self.rows.line(&path.display().to_string())?;
        let mut headed = false;
        while let Some((position, entry)) = walk.next_entry().map_err(|error| failed(&error))? {
            let (kind, offset, batch_position, timestamp) = match entry {
                IndexEntry::Offset { offset, position } => ("offset_index_entry", offset, Some(position), None),
                IndexEntry::Time { timestamp, offset } => ("time_index_entry", offset, None, Some(timestamp)),
            };
            if !std::mem::replace(&mut headed, true) {
                let last = if timestamp.is_some() { "LARGEST TIMESTAMP" } else { "POSITION" };
                self.rows.line(&format!("{:>10}  {:>14}  {last:>24}", "ENTRY AT", "LAST OFFSET"))?;
            }
            if self.offsets.contains(offset) {
                let last = timestamp.map_or_else(|| thousands(batch_position.unwrap_or_default()), time);
                self.rows.line(&format!("{:>10}  {:>14}  {last:>24}", thousands(position), thousands(offset)))?;
                self.rows.object(&EntryRow { kind, file: path, position, offset, batch_position, timestamp })?;
            }
        }
        if walk.left_over_bytes() > 0 {
            self.damages += 1;
            self.rows.line(&format!("  ! {} bytes are left over behind the entries", walk.left_over_bytes()))?;
        }
        Ok(())
    }
}

/// The segments in a folder, in order.
pub(super) fn bases_in(dir: &Path) -> Outcome<Vec<(i64, PathBuf)>> {
    let entries = fs::read_dir(dir).map_err(|error| Failure::new(format!("can't list {}", dir.display())).because(&error))?;
    let logs = entries.flatten().map(|entry| entry.path()).filter_map(|path| match segment_of(&path) {
        Some((base_offset, "log")) => Some((base_offset, path)),
        _ => None,
    });
    let mut bases: Vec<_> = logs.collect();
    bases.sort();
    Ok(bases)
}

fn failed(error: &LogError) -> Failure {
    Failure::new("the log can't be read").because(error).hint("check the disk, and that you may read the file")
}

fn codec(header: &BatchHeader) -> &'static str {
    header.attributes.codec().map_or("?", Codec::name)
}

fn batch_line(position: u64, header: &BatchHeader, crc: &str) -> String {
    let producer = match header.producer_id {
        -1 => "-".to_owned(),
        id => format!("{id}/{}/{}", header.producer_epoch, header.base_sequence),
    };
    format!(
        "{:>14} {:>14} {:>9} {:>13} {:>11}  {:<6}  {:<24}  {:<24}  {crc:<5}  {producer}",
        thousands(header.base_offset),
        thousands(header.last_offset()),
        thousands(header.record_count),
        thousands(position),
        thousands(header.total_bytes() as u64),
        codec(header),
        time(header.base_timestamp),
        time(header.max_timestamp),
    )
}

fn batch_row<'a>(file: &'a Path, position: u64, header: &BatchHeader, crc_ok: bool) -> BatchRow<'a> {
    let timestamp_type = match header.attributes.timestamp_type() {
        TimestampType::CreateTime => "create_time",
        TimestampType::LogAppendTime => "log_append_time",
    };
    BatchRow {
        kind: "batch",
        file,
        base_offset: header.base_offset,
        last_offset: header.last_offset(),
        count: header.record_count,
        position,
        size_bytes: header.total_bytes(),
        codec: codec(header),
        timestamp_type,
        base_timestamp: header.base_timestamp,
        max_timestamp: header.max_timestamp,
        leader_epoch: header.partition_leader_epoch,
        producer_id: header.producer_id,
        producer_epoch: header.producer_epoch,
        base_sequence: header.base_sequence,
        transactional: header.attributes.is_transactional(),
        control: header.attributes.is_control(),
        crc: format!("{:08x}", header.crc),
        crc_ok,
    }
}

const BATCH_HEADINGS: &str = concat!(
    "   BASE OFFSET    LAST OFFSET   RECORDS      POSITION       BYTES  ",
    "CODEC   FIRST TIMESTAMP           LARGEST TIMESTAMP         CRC    PRODUCER"
);

const EXAMPLES: &str = "\
It only reads, takes little memory whatever the size of the files, and may run beside the broker. PRODUCER is id/epoch/sequence. \
Where bytes are no whole batch, or the disk does not give them back, it says so, goes on behind them, and ends with 1.

With `-o jsonl` each batch is a line {\"kind\":\"batch\",…}, damage {\"kind\":\"damage\",…}, an entry of an index \
{\"kind\":\"offset_index_entry\",…} or {\"kind\":\"time_index_entry\",…}; with `-o json` all of them are one array. With `--records` \
the lines are those of `millpond consume -o jsonl`, which `millpond produce -i jsonl` takes.

Examples:
  millpond log dump /var/lib/millpond/topics/readings/0
  millpond log dump ./data/topics/readings/0 --offsets 4700..4800 --records
  millpond log dump ./data/topics/readings/0/00000000000000000000.timeindex
  millpond log dump ./data/topics/readings --records -o jsonl | millpond produce rescued -i jsonl";

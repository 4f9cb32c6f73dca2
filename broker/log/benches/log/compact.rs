//! One pass of compaction over a log whose keys come again and again: uncompressed and compressed, with room for all keys and without.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use millpond_log::{Compacted, Compaction, CompactionStep, Log, LogConfig};
use millpond_protocol::batch::{Batch, BatchBuilder};
use millpond_protocol::compression::Codec;
use millpond_protocol::record::NewRecord;

use crate::bed::{Bed, Outcome};
use crate::figures::{Series, megabytes_per_second};
use crate::raw::{noise, read_files, segments_in};

pub(crate) fn run(bed: &mut Bed) -> Outcome<()> {
    let bytes = (bed.count("MILLPOND_BENCH_COMPACT_MIB", 512, 64)? as u64) << 20;
    let keys = bed.count("MILLPOND_BENCH_COMPACT_KEYS", 100_000, 10_000)?;
    bed.say(&format!(
        "\nCompaction: one pass over {} MiB, records of {VALUE_BYTES} bytes with {keys} keys in turn, beside reading the same twice and writing \
         what stays, with one fdatasync",
        bytes >> 20,
    ))?;
    bed.say("  codec   key map      MB/s looked at             raw MB/s                   ratio                  MB written  records gone  passes")?;
    for codec in [Codec::None, Codec::Lz4] {
        // A slot has 24 bytes, and a quarter of them stays free: the second has room for a third of the keys.
        for (name, map_bytes) in [("large", 64 * keys), ("a third", 11 * keys)] {
            let (mut rates, mut raw, mut last, mut passes) = (Series::default(), Series::default(), Compacted::default(), 0);
            for _ in 0..bed.rounds()? {
                let (log, end) = write_log(bed, bytes, keys, codec)?;
                let before = segments_in(&bed.path(NAME))?;
                let before_bytes: u64 = before.iter().map(|path| fs::metadata(path).map_or(0, |found| found.len())).sum();
                let copy = bed.path("copy");
                let begin = Instant::now();
                let outcome = compact(&log, end, map_bytes)?;
                let elapsed = begin.elapsed();
                (last, passes) = outcome;
                rates.push(megabytes_per_second(before_bytes, elapsed));
                drop(log);
                bed.remove(NAME)?;
                raw.push(raw_copy(bed, before_bytes, last.bytes_written, &copy)?);
            }
            let (written, gone) = (last.bytes_written / 1_000_000, last.records_removed);
            bed.say(&format!(
                "  {:<7} {name:<12} {rates:<26.0} {raw:<26.0} {:<22} {written:>10}  {gone:>12}  {passes:>6}",
                codec.name(),
                rates.over(&raw)
            ))?;
        }
    }
    Ok(())
}

/// A closed and durable part of about so many bytes, and an active segment behind it.
fn write_log(bed: &Bed, bytes: u64, keys: usize, codec: Codec) -> Outcome<(Log, i64)> {
    let config = LogConfig { segment_bytes: 64 << 20, ..LogConfig::default() };
    let (mut log, _) = bed.open(NAME, config)?;
    let (mut builder, values, mut number) = (BatchBuilder::new(), noise(VALUES_BYTES), 0_usize);
    let mut written = 0;
    while written < bytes {
        let mut run = Vec::new();
        for _ in 0..64 {
            for _ in 0..16 {
                let key = format!("sensor-{:08}", number % keys);
                // Half of each can be compressed.
                let at = number * VALUE_BYTES / 2 % (VALUES_BYTES - VALUE_BYTES);
                let value = [&values[at..at + VALUE_BYTES / 2], &[0; VALUE_BYTES / 2][..]].concat();
                let record = NewRecord { timestamp: 1_763_700_000_000, key: Some(key.as_bytes()), value: Some(&value), headers: &[] };
                builder.push(&record)?;
                number += 1;
            }
            run.push(Batch::parse(builder.finish(codec)?)?);
        }
        written += (run.len() * 16 * VALUE_BYTES) as u64;
        log.append(&run, 0)?;
    }
    log.roll()?;
    if let Some(flush) = log.begin_flush() {
        let outcome = flush.run();
        log.end_flush(outcome)?;
    }
    let end = log.log_end();
    Ok((log, end))
}

/// Passes until nothing is dirty. Gives what they have done together, and how many there were.
fn compact(log: &Log, end: i64, map_bytes: usize) -> Outcome<(Compacted, u32)> {
    let mut compactor = log.compactor().with_key_map_bytes(map_bytes);
    let compaction = Compaction { below: end, dirty_percent_min: 0, wall_ms: 1_763_700_000_000, delete_retention_ms: 86_400_000 };
    let (mut all, mut passes) = (Compacted::default(), 0);
    while let Some(mut pass) = compactor.begin(compaction)? {
        loop {
            if let CompactionStep::Done(done) = compactor.step(&mut pass)? {
                all.bytes_written += done.bytes_written;
                all.records_removed += done.records_removed;
                passes += 1;
                break;
            }
        }
    }
    Ok((all, passes))
}

/// Reads so many bytes twice, as a pass does for the map and for the records, and writes so many; MB read once a second.
fn raw_copy(bed: &Bed, read_bytes: u64, written_bytes: u64, to: &Path) -> Outcome<f64> {
    let (from, chunk): (PathBuf, Vec<u8>) = (bed.path("raw"), noise(1 << 20));
    let fill = |path: &Path, bytes: u64| -> Outcome<()> {
        let mut file = File::create(path)?;
        let mut left = bytes;
        while left > 0 {
            let now = usize::try_from(left.min(chunk.len() as u64))?;
            file.write_all(&chunk[..now])?;
            left -= now as u64;
        }
        Ok(file.sync_data()?)
    };
    fill(&from, read_bytes)?;
    let begin = Instant::now();
    for _ in 0..2 {
        read_files(std::slice::from_ref(&from), 1 << 20)?;
    }
    fill(to, written_bytes)?;
    let elapsed = begin.elapsed();
    fs::remove_file(&from)?;
    fs::remove_file(to)?;
    Ok(megabytes_per_second(read_bytes, elapsed))
}

const NAME: &str = "compact";

/// Of a record.
const VALUE_BYTES: usize = 1_000;

/// Of what the values are cut from: more than any codec looks back.
const VALUES_BYTES: usize = 1 << 20;

//! Sequential reads of a whole log, from the device and from the page cache.

use std::path::PathBuf;

use millpond_log::{Cursor, Log, LogConfig, VerifyOnRead};

use crate::bed::{Bed, Outcome};
use crate::figures::{Series, approximate};
use crate::raw::{Moved, drop_from_cache, read_files, segments_in};

pub(crate) fn run(bed: &mut Bed) -> Outcome<()> {
    let bytes = (bed.count("MILLPOND_BENCH_READ_MIB", 1024, 128)? as u64) << 20;
    let batch_bytes = bed.count("MILLPOND_BENCH_READ_BATCH_BYTES", 16 << 10, 16 << 10)?;
    let chunk_bytes = bed.count("MILLPOND_BENCH_READ_CHUNK_BYTES", 1 << 20, 1 << 20)?;
    bed.write_log("read", LogConfig::default(), bytes, batch_bytes)?.close()?;
    let segments = segments_in(&bed.path("read"))?;
    bed.say(&format!(
        "\nSequential read: {} MiB in {} segments, batches of {batch_bytes} bytes, {chunk_bytes} bytes at once, beside pread of the same",
        bytes >> 20,
        segments.len(),
    ))?;
    bed.say("                                            MB/s                         over raw              from the device")?;
    let cold = measure(bed, &segments, chunk_bytes, true)?;
    say(bed, "cold", &cold)?;
    let warm = measure(bed, &segments, chunk_bytes, false)?;
    say(bed, "warm", &warm)?;
    bed.must_reach("cold log, checksums compared, over raw reads", &cold[1].rate.over(&cold[0].rate), OVER_RAW_MIN);
    bed.must_reach("cold log, checksums not compared, over raw reads", &cold[2].rate.over(&cold[0].rate), OVER_RAW_MIN);
    bed.remove("read")
}

#[derive(Default)]
struct Column {
    rate: Series,
    from_device: Series,
}

impl Column {
    fn push(&mut self, moved: Moved) {
        self.rate.push(moved.megabytes_per_second());
        self.from_device.push(100.0 * approximate(moved.from_device) / approximate(moved.bytes));
    }
}

/// Raw reads, a log that compares checksums, a log that does not; and a second pass over the one that does.
fn measure(bed: &Bed, segments: &[PathBuf], chunk_bytes: usize, cold: bool) -> Outcome<[Column; 4]> {
    let ready = || if cold { drop_from_cache(segments) } else { read_files(segments, chunk_bytes).map(|_| ()) };
    let mut columns: [Column; 4] = Default::default();
    for _ in 0..bed.rounds()? {
        let (first, _) = bed.open("read", LogConfig::default())?;
        let (never, _) = bed.open("read", LogConfig { verify_on_read: VerifyOnRead::Never, ..LogConfig::default() })?;
        ready()?;
        columns[0].push(Moved::of_reads(|| read_files(segments, chunk_bytes))?);
        for (number, log) in [(1, &first), (2, &never), (3, &first)] {
            ready()?;
            columns[number].push(Moved::of_reads(|| read_log(log, chunk_bytes))?);
        }
    }
    Ok(columns)
}

fn say(bed: &Bed, state: &str, columns: &[Column; 4]) -> Outcome<()> {
    let names = ["pread", "log, checksums compared", "log, checksums never compared", "log, second pass"];
    for (name, column) in names.iter().zip(columns) {
        let (rate, ratio) = (format!("{:.0}", column.rate), column.rate.over(&columns[0].rate));
        bed.say(&format!("  {state}, {name:<35} {rate:<28} {ratio:<21} {:.0} %", column.from_device.median()))?;
    }
    Ok(())
}

fn read_log(log: &Log, chunk_bytes: usize) -> Outcome<u64> {
    let (reader, mut cursor) = (log.reader(), Cursor::new(log.log_start()));
    let mut bytes = 0;
    loop {
        let batches = reader.read_next(&mut cursor, chunk_bytes, i64::MAX)?;
        if batches.is_empty() {
            break;
        }
        bytes += batches.len() as u64;
    }
    if bytes == log.size_bytes() { Ok(bytes) } else { Err(format!("{bytes} bytes were read of {}", log.size_bytes()).into()) }
}

const OVER_RAW_MIN: f64 = 0.8;

//! Reads at random places of a log: by offset, and by time. Each fetches what a consumer that starts there gets first.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use millpond_log::{Log, LogConfig};

use crate::bed::{Batches, Bed, Outcome};
use crate::figures::{Series, approximate};
use crate::raw::{Moved, drop_from_cache, files_in, read_files, segments_in};

pub(crate) fn run(bed: &mut Bed) -> Outcome<()> {
    let bytes = (bed.count("MILLPOND_BENCH_READ_MIB", 1024, 128)? as u64) << 20;
    let batch_bytes = bed.count("MILLPOND_BENCH_READ_BATCH_BYTES", 16 << 10, 16 << 10)?;
    let seeks = bed.count("MILLPOND_BENCH_SEEKS", 2000, 300)?;
    bed.write_log("seek", LogConfig::default(), bytes, batch_bytes)?.close()?;
    bed.say(&format!(
        "\nRandom reads: {seeks} of {batch_bytes} bytes in a log of {} MiB, beside pread of as many bytes at as many places",
        bytes >> 20
    ))?;
    bed.say("                     microseconds each         over pread            KiB each from the device")?;
    for cold in [true, false] {
        measure(bed, cold, batch_bytes, seeks)?;
    }
    bed.remove("seek")
}

fn measure(bed: &Bed, cold: bool, batch_bytes: usize, seeks: usize) -> Outcome<()> {
    let folder = bed.path("seek");
    let (files, segments) = (files_in(&folder)?, segments_in(&folder)?);
    let ready = || if cold { drop_from_cache(&files) } else { read_files(&files, 1 << 20).map(|_| ()) };
    let mut columns: [Column; 3] = Default::default();
    for round in 0..bed.rounds()? {
        // In every round, and for every way to read, other places of the same log.
        let mut dice = Dice::new(round as u64);
        let (log, _) = bed.open("seek", LogConfig::default())?;
        ready()?;
        columns[0].push(Moved::of_reads(|| pread(&segments, batch_bytes, seeks, &mut dice))?, seeks);
        ready()?;
        columns[1].push(Moved::of_reads(|| by_offset(&log, batch_bytes, seeks, &mut dice))?, seeks);
        ready()?;
        columns[2].push(Moved::of_reads(|| by_time(&log, batch_bytes, seeks, &mut dice))?, seeks);
    }
    let state = if cold { "cold" } else { "warm" };
    for (name, column) in ["pread", "by offset", "by time"].iter().zip(&columns) {
        let (figure, ratio) = (format!("{:.1}", column.microseconds), column.microseconds.over(&columns[0].microseconds));
        bed.say(&format!("  {state}, {name:<12} {figure:<25} {ratio:<21} {:.0}", column.kib_from_device.median()))?;
    }
    Ok(())
}

#[derive(Default)]
struct Column {
    microseconds: Series,
    kib_from_device: Series,
}

impl Column {
    fn push(&mut self, moved: Moved, seeks: usize) {
        let seeks = approximate(seeks as u64);
        self.microseconds.push(moved.elapsed.as_secs_f64() * 1e6 / seeks);
        self.kib_from_device.push(approximate(moved.from_device) / 1024.0 / seeks);
    }
}

fn pread(segments: &[PathBuf], bytes: usize, count: usize, dice: &mut Dice) -> Outcome<u64> {
    let open = |path| -> std::io::Result<(File, u64)> {
        let file = File::open(path)?;
        let bytes = file.metadata()?.len();
        Ok((file, bytes))
    };
    let files = segments.iter().map(open).collect::<Result<Vec<_>, _>>()?;
    let mut buffer = vec![0; bytes];
    for _ in 0..count {
        let (file, file_bytes) = &files[usize::try_from(dice.below(files.len() as u64))?];
        file.read_exact_at(&mut buffer, dice.below(file_bytes - bytes as u64))?;
    }
    Ok((count * bytes) as u64)
}

fn by_offset(log: &Log, bytes: usize, count: usize, dice: &mut Dice) -> Outcome<u64> {
    let (reader, mut total) = (log.reader(), 0);
    for _ in 0..count {
        let offset = dice.below(log.log_end().unsigned_abs()).cast_signed();
        total += reader.read(offset, bytes, i64::MAX)?.len() as u64;
    }
    Ok(total)
}

fn by_time(log: &Log, bytes: usize, count: usize, dice: &mut Dice) -> Outcome<u64> {
    let (reader, mut total) = (log.reader(), 0);
    for _ in 0..count {
        // The timestamp of each record is its offset, counted from the first.
        let offset = dice.below(log.log_end().unsigned_abs()).cast_signed();
        let found = reader.find_time(Batches::FIRST_TIMESTAMP_MS + offset, i64::MAX)?;
        if found.map(|(found, _)| found) != Some(offset) {
            return Err(format!("the lookup of the time of offset {offset} found {found:?}").into());
        }
        total += reader.read(offset, bytes, i64::MAX)?.len() as u64;
    }
    Ok(total)
}

/// Random numbers that are the same in every run.
struct Dice(u64);

impl Dice {
    fn new(seed: u64) -> Dice {
        Dice(seed)
    }

    /// splitmix64.
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit.max(1)
    }
}

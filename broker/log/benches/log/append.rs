//! Appends into the page cache, by one thread and without a sync.

use std::fs::{self, File};
use std::io::IoSlice;
use std::os::fd::AsFd;
use std::time::Instant;

use cpu_time::ThreadTime;
use millpond_log::{LogConfig, WRITE_BUFFERS_MAX};
use millpond_protocol::batch::Batch;

use crate::bed::{Batches, Bed, Outcome};
use crate::figures::{Series, megabytes_per_second};

pub(crate) fn run(bed: &mut Bed) -> Outcome<()> {
    let total_bytes = bed.count("MILLPOND_BENCH_APPEND_MIB", 1024, 128)? << 20;
    bed.say(&format!("\nAppend: {} MiB into the page cache by one thread, beside pwritev of the same buffers", total_bytes >> 20))?;
    bed.say(
        "  batch     batches/append     GB/s, by the clock          GB/s of CPU time       raw GB/s of CPU time      ratio by CPU time",
    )?;
    for (batch_bytes, batches_per_append) in [(1 << 10, 1), (1 << 10, 64), (64 << 10, 1), (64 << 10, 16), (1 << 20, 1)] {
        let batches = Batches::of_bytes(batch_bytes, SOURCE_BYTES)?;
        let (mut by_clock, mut by_cpu, mut raw_by_cpu) = (Series::default(), Series::default(), Series::default());
        for _ in 0..bed.rounds()? {
            let ours = append(bed, &batches, batches_per_append, total_bytes as u64)?;
            let raw = write(bed, &batches, batches_per_append, total_bytes as u64)?;
            by_clock.push(ours.by_clock);
            by_cpu.push(ours.by_cpu);
            raw_by_cpu.push(raw.by_cpu);
        }
        let ratio = by_cpu.over(&raw_by_cpu);
        bed.say(&format!(
            "  {:>4} KiB  {batches_per_append:>9}          {by_clock:<26} {by_cpu:<22} {raw_by_cpu:<25} {ratio}",
            batch_bytes >> 10
        ))?;
        if batch_bytes >= LARGE_BATCH_BYTES {
            let what = format!("append of {} KiB batches, {batches_per_append} at once, GB/s on one core", batch_bytes >> 10);
            bed.must_reach(&what, &by_clock, APPEND_GB_PER_SECOND_MIN);
        }
    }
    Ok(())
}

/// Gigabytes a second.
struct Rates {
    by_clock: f64,
    /// Over the time that the thread was running: what else the machine does is not in it.
    by_cpu: f64,
}

impl Rates {
    fn measure(work: impl FnOnce() -> Outcome<u64>) -> Outcome<Rates> {
        let (begin, cpu_begin) = (Instant::now(), ThreadTime::now());
        let bytes = work()?;
        let (elapsed, cpu) = (begin.elapsed(), cpu_begin.elapsed());
        Ok(Rates { by_clock: megabytes_per_second(bytes, elapsed) / 1e3, by_cpu: megabytes_per_second(bytes, cpu) / 1e3 })
    }
}

fn append(bed: &Bed, batches: &[Batch], batches_per_append: usize, total_bytes: u64) -> Outcome<Rates> {
    let (mut log, _) = bed.open("append", LogConfig::default())?;
    let mut runs = batches.chunks(batches_per_append).cycle();
    let rates = Rates::measure(|| {
        while log.size_bytes() < total_bytes {
            log.append(runs.next().ok_or("no batches")?, 0)?;
        }
        Ok(log.size_bytes())
    })?;
    drop(log);
    // What was not written to the device by now never will be.
    bed.remove("append")?;
    Ok(rates)
}

fn write(bed: &Bed, batches: &[Batch], batches_per_append: usize, total_bytes: u64) -> Outcome<Rates> {
    let path = bed.path("append.raw");
    let file = File::options().write(true).create_new(true).open(&path)?;
    let mut runs = batches.chunks(batches_per_append).cycle();
    let rates = Rates::measure(|| {
        let mut at = 0;
        while at < total_bytes {
            let buffers: Vec<_> = runs.next().ok_or("no batches")?.iter().map(|batch| IoSlice::new(batch.bytes())).collect();
            for buffers in buffers.chunks(WRITE_BUFFERS_MAX) {
                let bytes: usize = buffers.iter().map(|buffer| buffer.len()).sum();
                if rustix::io::pwritev(file.as_fd(), buffers, at)? != bytes {
                    return Err("the disk took fewer bytes than it was given: is it full?".into());
                }
                at += bytes as u64;
            }
        }
        Ok(at)
    })?;
    drop(file);
    fs::remove_file(path)?;
    Ok(rates)
}

/// The batches that are appended over and over: more than the caches next to one core hold, as batches that come from a network are.
const SOURCE_BYTES: usize = 64 << 20;

const LARGE_BATCH_BYTES: usize = 64 << 10;

const APPEND_GB_PER_SECOND_MIN: f64 = 1.0;

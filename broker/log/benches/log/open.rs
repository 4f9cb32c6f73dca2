//! Opening: after a kill, where the last segment is read in full, and after a clean stop, where nothing is.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use millpond_log::{Log, LogConfig, Pools, RealDisk};

use crate::bed::{Bed, Outcome};
use crate::figures::{Series, approximate};
use crate::raw::{Moved, drop_from_cache, files_in, read_files, segments_in};

pub(crate) fn run(bed: &mut Bed) -> Outcome<()> {
    after_a_kill(bed)?;
    one_large_log(bed)?;
    many_small_logs(bed)
}

fn after_a_kill(bed: &mut Bed) -> Outcome<()> {
    let bytes = (bed.count("MILLPOND_BENCH_SCAN_MIB", 512, 64)? as u64) << 20;
    let batch_bytes = bed.count("MILLPOND_BENCH_READ_BATCH_BYTES", 16 << 10, 16 << 10)?;
    // One segment, so that all of it has to be scanned.
    let config = LogConfig { segment_bytes: 2 * bytes, ..LogConfig::default() };
    drop(bed.write_log("scan", config, bytes, batch_bytes)?);
    // The first opening builds the index files, which were in memory.
    drop(bed.open("scan", config)?);
    let (files, segments) = (files_in(&bed.path("scan"))?, segments_in(&bed.path("scan"))?);
    bed.say(&format!(
        "\nRecovery after a kill: a segment of {} MiB, batches of {batch_bytes} bytes, beside pread of the same file, 1 MiB at once",
        bytes >> 20
    ))?;
    bed.say("            MB/s scanned               raw MB/s                   ratio                 from the device")?;
    for cold in [true, false] {
        let (mut ours, mut raw, mut from_device) = (Series::default(), Series::default(), Series::default());
        for _ in 0..bed.rounds()? {
            let ready = || if cold { drop_from_cache(&files) } else { Ok(()) };
            ready()?;
            let moved = Moved::of_reads(|| scan(bed, config))?;
            ours.push(moved.megabytes_per_second());
            from_device.push(100.0 * approximate(moved.from_device) / approximate(moved.bytes));
            ready()?;
            raw.push(Moved::of_reads(|| read_files(&segments, 1 << 20))?.megabytes_per_second());
        }
        let (state, ratio) = (if cold { "cold" } else { "warm" }, ours.over(&raw));
        let (ours, raw) = (format!("{ours:.0}"), format!("{raw:.0}"));
        bed.say(&format!("  {state}      {ours:<26} {raw:<26} {ratio:<21} {:.0} %", from_device.median()))?;
    }
    bed.remove("scan")
}

/// Opens the log, and returns how many bytes were read for it.
fn scan(bed: &Bed, config: LogConfig) -> Outcome<u64> {
    let (_log, report) = bed.open("scan", config)?;
    if report.is_clean() && !report.clean_stop { Ok(report.scanned_bytes) } else { Err(format!("{report:?}").into()) }
}

fn one_large_log(bed: &mut Bed) -> Outcome<()> {
    let bytes = (bed.count("MILLPOND_BENCH_OPEN_MIB", 5120, 256)? as u64) << 20;
    bed.write_log("large", LogConfig::default(), bytes, 64 << 10)?.close()?;
    let files = files_in(&bed.path("large"))?;
    bed.say("\nOpening after a clean stop, in milliseconds, by one thread unless another number is given")?;
    for cold in [true, false] {
        let mut times = Series::default();
        for _ in 0..bed.rounds()? {
            if cold {
                drop_from_cache(&files)?;
            }
            let begin = Instant::now();
            let (log, report) = bed.open("large", LogConfig::default())?;
            times.push(begin.elapsed().as_secs_f64() * 1e3);
            if !report.clean_stop || log.size_bytes() < bytes {
                return Err(format!("{report:?}").into());
            }
            log.close()?;
        }
        let state = if cold { "cold" } else { "warm" };
        bed.say(&format!("  one log of {} MiB, {} files, {state}: {times:.1}", bytes >> 20, files.len()))?;
        if cold {
            bed.must_stay_below(&format!("opening a log of {} MiB after a clean stop, ms", bytes >> 20), &times, OPEN_MS_LIMIT);
        }
    }
    bed.remove("large")
}

fn many_small_logs(bed: &mut Bed) -> Outcome<()> {
    let logs = bed.count("MILLPOND_BENCH_OPEN_LOGS", 1000, 50)?;
    // One that was closed in order, and copies of it: a thousand logs written one by one would take a thousand times ten syncs.
    bed.write_log("small", LogConfig::default(), SMALL_LOG_BYTES, 4 << 10)?.close()?;
    let folders: Vec<_> = (0..logs).map(|number| bed.path("logs").join(number.to_string())).collect();
    for folder in &folders {
        copy(&bed.path("small"), folder)?;
    }
    let rounds = bed.rounds()?;
    let what = format!("{logs} logs of {} KiB", SMALL_LOG_BYTES >> 10);
    let files = files_in(&bed.path("logs"))?;
    let cold = time_openings(&folders, &files, (true, 1), rounds)?;
    bed.say(&format!("  {what}, cold: {cold:.0}"))?;
    bed.must_stay_below(&format!("opening {logs} logs after a clean stop, ms"), &cold, OPEN_MS_LIMIT);
    bed.say(&format!("  {what}, warm: {:.0}", time_openings(&folders, &[], (true, 1), rounds)?))?;
    for folder in &folders {
        fs::remove_file(folder.join("clean-stop"))?;
    }
    // Every opening syncs, so several at a time share the work of the file system.
    for threads in [1, RECOVERY_THREADS] {
        let times = time_openings(&folders, &[], (false, threads), rounds.min(KILL_ROUNDS_MAX))?;
        bed.say(&format!("  {what}, warm, after a kill, on {threads} threads: {times:.0}"))?;
    }
    bed.remove("logs")?;
    bed.remove("small")
}

/// How many milliseconds it takes to open all logs, with these files taken out of the page cache before each time.
fn time_openings(folders: &[PathBuf], uncached: &[PathBuf], (closed_in_order, threads): (bool, usize), rounds: usize) -> Outcome<Series> {
    let mut times = Series::default();
    for _ in 0..rounds {
        drop_from_cache(uncached)?;
        let (begin, pools) = (Instant::now(), Pools::default());
        let opened = thread::scope(|scope| {
            let pools = &pools;
            let open = |part| scope.spawn(move || open_all(part, pools, closed_in_order));
            let workers: Vec<_> = folders.chunks(folders.len().div_ceil(threads)).map(open).collect();
            workers.into_iter().map(|worker| worker.join().unwrap_or_else(|_| Err("an opening panicked".to_owned()))).collect::<Vec<_>>()
        });
        times.push(begin.elapsed().as_secs_f64() * 1e3);
        let _all_open: Vec<_> = opened.into_iter().collect::<Result<_, _>>()?;
    }
    Ok(times)
}

/// Opens logs one after the other, all in the same pools.
fn open_all(folders: &[PathBuf], pools: &Pools, closed_in_order: bool) -> Result<Vec<Log>, String> {
    let open = |folder: &PathBuf| {
        let opened = Log::open_in(Arc::new(RealDisk), pools.clone(), folder, LogConfig::default());
        let (log, report) = opened.map_err(|error| error.chain())?;
        if report.clean_stop == closed_in_order { Ok(log) } else { Err(format!("{report:?}")) }
    };
    folders.iter().map(open).collect()
}

fn copy(from: &Path, to: &Path) -> Outcome<()> {
    fs::create_dir_all(to)?;
    for path in files_in(from)? {
        fs::copy(&path, to.join(path.file_name().ok_or("a file has a name")?))?;
    }
    Ok(())
}

const SMALL_LOG_BYTES: u64 = 64 << 10;

/// As many logs as are opened side by side after a kill.
const RECOVERY_THREADS: usize = 8;

/// An opening after a kill takes seconds where a sync is slow, and varies little.
const KILL_ROUNDS_MAX: usize = 3;

const OPEN_MS_LIMIT: f64 = 1000.0;

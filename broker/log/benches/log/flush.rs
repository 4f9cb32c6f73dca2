//! Many logs with unsynced bytes: their flushes one after the other, side by side on several threads, and one `syncfs` instead of all.
//!
//! This is what a pool of flush threads has to decide: each partition has one flush under way at most, and a flush ends with the system
//! having written the bytes of a file and the file system's journal. Files that are flushed side by side can share the latter.

use std::fs::File;
use std::sync::{Barrier, Mutex};
use std::time::Instant;

use millpond_log::{Flush, Log, LogConfig, LogError};
use millpond_protocol::batch::Batch;

use crate::bed::{Batches, Bed, Outcome};
use crate::figures::Series;
use crate::raw::sync_file_system;

pub(crate) fn run(bed: &mut Bed) -> Outcome<()> {
    let bytes = bed.count("MILLPOND_BENCH_FLUSH_FILE_BYTES", 64 << 10, 64 << 10)?;
    let batch = Batches::new(bytes).next()?;
    bed.say(&format!("\nFlushing many logs with {} unsynced bytes each: milliseconds until all are durable", batch.bytes().len()))?;
    bed.say("  logs      threads   ms                        over one after the other")?;
    for count in [2, 8, 32] {
        let mut logs =
            (0..count).map(|number| Ok(bed.open(&format!("flush-{number}"), LogConfig::default())?.0)).collect::<Outcome<Vec<_>>>()?;
        let threads: Vec<usize> = [1, 2, 4, 8, 16, 32].into_iter().filter(|threads| *threads <= count).collect();
        let mut columns = vec![Series::default(); threads.len() + 1];
        // A round takes milliseconds, so there are many.
        for _ in 0..bed.rounds()? * ROUNDS_FACTOR {
            for (column, threads) in columns.iter_mut().zip(&threads) {
                column.push(flush_all(&mut logs, &batch, *threads)?);
            }
            let last = columns.len() - 1;
            columns[last].push(sync_all(bed, &mut logs, &batch)?);
        }
        for (number, column) in columns.iter().enumerate() {
            let name = threads.get(number).map_or("syncfs".to_owned(), usize::to_string);
            let (figure, ratio) = (format!("{column:.2}"), column.over(&columns[0]));
            bed.say(&format!("  {count:>4}   {name:>9}     {figure:<25} {ratio}"))?;
        }
        drop(logs);
        for number in 0..count {
            bed.remove(&format!("flush-{number}"))?;
        }
    }
    Ok(())
}

/// Appends a batch to each log, and takes down their flushes.
fn begin(logs: &mut [Log], batch: &Batch) -> Outcome<Vec<Flush>> {
    let begin = |log: &mut Log| {
        log.append(std::slice::from_ref(batch), 0)?;
        Ok(log.begin_flush().ok_or("nothing is unflushed after an append")?)
    };
    logs.iter_mut().map(begin).collect()
}

fn end(logs: &mut [Log], outcomes: Vec<(usize, Result<millpond_log::FlushedTo, LogError>)>) -> Outcome<()> {
    for (number, outcome) in outcomes {
        logs[number].end_flush(outcome)?;
    }
    Ok(())
}

fn flush_all(logs: &mut [Log], batch: &Batch, threads: usize) -> Outcome<f64> {
    let flushes = begin(logs, batch)?;
    let (next, outcomes) = (Mutex::new(flushes.iter().enumerate()), Mutex::new(Vec::new()));
    let start = Barrier::new(threads + 1);
    let since = std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                // A pool has its threads already.
                start.wait();
                while let Some((number, flush)) = take(&next) {
                    let outcome = flush.run();
                    if let Ok(mut outcomes) = outcomes.lock() {
                        outcomes.push((number, outcome));
                    }
                }
            });
        }
        start.wait();
        Instant::now()
    });
    let elapsed = since.elapsed();
    end(logs, outcomes.into_inner().map_err(|_| "a flush panicked")?)?;
    Ok(elapsed.as_secs_f64() * 1e3)
}

/// The lock is held for no longer than this takes, and not while the item is worked on.
fn take<T>(items: &Mutex<impl Iterator<Item = T>>) -> Option<T> {
    items.lock().ok()?.next()
}

/// One call for the whole file system. The flushes are done all the same, after the clock has stopped, and find nothing to write.
fn sync_all(bed: &Bed, logs: &mut [Log], batch: &Batch) -> Outcome<f64> {
    let flushes = begin(logs, batch)?;
    let folder = File::open(bed.folder())?;
    let since = Instant::now();
    sync_file_system(&folder)?;
    let elapsed = since.elapsed();
    end(logs, flushes.iter().map(Flush::run).enumerate().collect())?;
    Ok(elapsed.as_secs_f64() * 1e3)
}

const ROUNDS_FACTOR: usize = 5;

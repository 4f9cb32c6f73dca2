//! Many logs with unsynced bytes: their flushes one after the other, side by side on several threads, and one `syncfs` instead of all.
//!
//! This is what a pool of flush threads has to decide: each partition has one flush under way at most, and a flush ends with the system
//! having written the bytes of a file and the file system's journal. Files that are flushed side by side can share the latter.

use std::collections::VecDeque;
use std::fs::File;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use millpond_log::{Flush, Log, LogConfig, LogError};
use millpond_protocol::batch::Batch;
use parking_lot::Mutex;

use crate::bed::{Batches, Bed, Outcome};
use crate::figures::{Series, approximate};
use crate::raw::sync_file_system;

pub(crate) fn run(bed: &mut Bed) -> Outcome<()> {
    let bytes = bed.count("MILLPOND_BENCH_FLUSH_FILE_BYTES", 64 << 10, 64 << 10)?;
    let batch = Batches::new(bytes).next()?;
    bed.say(&format!("\nFlushing many logs with {} unsynced bytes each, all at once and without end", batch.bytes().len()))?;
    bed.say("  logs      threads   ms until all are durable  over one thread       flushes/s, without end    over one thread")?;
    for count in [2, 8, 32] {
        let open = |number| Ok(bed.open(&format!("flush-{number}"), LogConfig::default())?.0);
        let mut logs = (0..count).map(open).collect::<Outcome<Vec<_>>>()?;
        measure(bed, &mut logs, &batch)?;
        drop(logs);
        for number in 0..count {
            bed.remove(&format!("flush-{number}"))?;
        }
    }
    Ok(())
}

fn measure(bed: &Bed, logs: &mut [Log], batch: &Batch) -> Outcome<()> {
    let threads: Vec<usize> = [1, 2, 4, 8, 16, 32].into_iter().filter(|threads| *threads <= logs.len()).collect();
    let mut at_once = vec![Series::default(); threads.len() + 1];
    let mut without_end = vec![Series::default(); threads.len()];
    for _ in 0..bed.rounds()? {
        for (column, threads) in without_end.iter_mut().zip(&threads) {
            column.push(flush_without_end(logs, batch, *threads)?);
        }
        // These take milliseconds, so there are more of them.
        for _ in 0..AT_ONCE_ROUNDS {
            for (column, threads) in at_once.iter_mut().zip(&threads) {
                column.push(flush_all(logs, batch, *threads)?);
            }
            at_once[threads.len()].push(sync_all(bed, logs, batch)?);
        }
    }
    let ours = |figure: &Series, first: &Series, precision: usize| format!("{figure:<25.precision$} {:<21.2}", figure.over(first));
    for (number, column) in at_once.iter().enumerate() {
        let name = threads.get(number).map_or("syncfs".to_owned(), usize::to_string);
        let sustained = without_end.get(number).map(|rate| ours(rate, &without_end[0], 0)).unwrap_or_default();
        bed.say(&format!("  {:>4}   {name:>9}     {} {sustained}", logs.len(), ours(column, &at_once[0], 2)))?;
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
                    outcomes.lock().push((number, outcome));
                }
            });
        }
        start.wait();
        Instant::now()
    });
    let elapsed = since.elapsed();
    end(logs, outcomes.into_inner())?;
    Ok(elapsed.as_secs_f64() * 1e3)
}

/// The lock is held for no longer than this takes, and not while the item is worked on.
fn take<T>(items: &Mutex<impl Iterator<Item = T>>) -> Option<T> {
    items.lock().next()
}

/// Logs that always have something to flush: a thread takes the one that waits longest, appends to it, flushes it, and puts it back.
/// Returns flushes a second.
fn flush_without_end(logs: &mut [Log], batch: &Batch, threads: usize) -> Outcome<f64> {
    let begin = Instant::now();
    let (waiting, flushes) = (Mutex::new(logs.iter_mut().collect::<VecDeque<_>>()), AtomicU64::new(0));
    let work = || -> Result<(), LogError> {
        while begin.elapsed() < WITHOUT_END {
            let Some(log) = waiting.lock().pop_front() else { break };
            log.append(std::slice::from_ref(batch), 0)?;
            if let Some(flush) = log.begin_flush() {
                log.end_flush(flush.run())?;
                flushes.fetch_add(1, Ordering::Relaxed);
            }
            waiting.lock().push_back(log);
        }
        Ok(())
    };
    let outcomes: Vec<_> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().map(std::thread::ScopedJoinHandle::join).collect()
    });
    for outcome in outcomes {
        outcome.map_err(|_| "a flush panicked")??;
    }
    Ok(approximate(flushes.into_inner()) / begin.elapsed().as_secs_f64())
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

const AT_ONCE_ROUNDS: usize = 5;

const WITHOUT_END: Duration = Duration::from_millis(300);

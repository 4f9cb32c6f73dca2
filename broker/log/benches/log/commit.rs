//! Group commit: many writers, each of which waits for its batch to be durable before it sends the next.
//!
//! The threads are laid out as in the engine (`broker/engine/src/partition`): writers put batches into a queue, one thread appends all that
//! wait, and a few others take the flushes, one at a time, while the appends go on. The next flush is handed to another thread before the
//! answers go out.
//!
//! ```text
//!   writer --+
//!   writer --+-> queue -> append all that wait -> flush, on one of some threads -> answers
//!   writer --+                                      '--> the next flush, on another
//! ```

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use millpond_log::{Flush, Log, LogConfig, LogError};
use millpond_protocol::batch::Batch;
use parking_lot::{Condvar, Mutex};

use crate::bed::{Batches, Bed, Outcome};
use crate::figures::{Series, approximate, megabytes_per_second};
use crate::raw::{Target, write_and_sync};

pub(crate) fn run(bed: &mut Bed) -> Outcome<()> {
    let batch_bytes = bed.count("MILLPOND_BENCH_COMMIT_BATCH_BYTES", 16 << 10, 16 << 10)?;
    let time = Duration::from_millis(bed.count("MILLPOND_BENCH_COMMIT_MS", 500, 300)? as u64);
    let batch = Batches::new(batch_bytes).next()?;
    let heading =
        format!("batches of {} bytes, {} ms a round, beside pwrite and fdatasync of as many bytes", batch.bytes().len(), time.as_millis());
    bed.say(&format!("\nGroup commit: {heading} for each sync"))?;
    let over = "over growing          over reserved         over allocated        over rewritten file";
    bed.say(&format!("  writers   durable MB/s            acks/s   syncs/s  KiB/sync   p50 ms  p99 ms   {over}"))?;
    for writers in bed.counts("MILLPOND_BENCH_COMMIT_WRITERS", &[1, 16, 64, 256], &[1, 64])? {
        let mut columns = Columns::default();
        // Short rounds, and more of them: the disk may change its pace within seconds.
        for _ in 0..2 * bed.rounds()? {
            let ours = commit(bed, &batch, writers, time)?;
            let chunk_bytes = usize::try_from(ours.bytes / ours.syncs.max(1))?.max(1);
            columns.push(&ours);
            for (series, target) in columns.raw.iter_mut().zip(TARGETS) {
                series.push(write_and_sync(&bed.path("commit.raw"), target, chunk_bytes, time)?);
            }
        }
        columns.say(bed, writers)?;
        if writers == MUST_WRITERS {
            for (target, raw) in TARGETS.iter().zip(&columns.raw).take(3) {
                let what = format!("group commit of {MUST_WRITERS} writers over raw writes with fdatasync, file {target:?}");
                bed.must_reach(&what, &columns.rate.over(raw), OVER_RAW_MIN);
            }
        }
    }
    Ok(())
}

/// What came out of one round.
struct Committed {
    bytes: u64,
    acks: u64,
    syncs: u64,
    elapsed: Duration,
    /// How long each writer waited for each answer, sorted.
    waits: Vec<Duration>,
}

#[derive(Default)]
struct Columns {
    rate: Series,
    acks: Series,
    syncs: Series,
    kib_per_sync: Series,
    p50_ms: Series,
    p99_ms: Series,
    /// By target.
    raw: [Series; TARGETS.len()],
}

impl Columns {
    fn push(&mut self, ours: &Committed) {
        let seconds = ours.elapsed.as_secs_f64();
        let wait_ms = |hundredths: usize| ours.waits.get(ours.waits.len() * hundredths / 100).map_or(0.0, Duration::as_secs_f64) * 1e3;
        self.rate.push(megabytes_per_second(ours.bytes, ours.elapsed));
        self.acks.push(approximate(ours.acks) / seconds);
        self.syncs.push(approximate(ours.syncs) / seconds);
        self.kib_per_sync.push(approximate(ours.bytes) / 1024.0 / approximate(ours.syncs));
        self.p50_ms.push(wait_ms(50));
        self.p99_ms.push(wait_ms(99));
    }

    fn say(&self, bed: &Bed, writers: usize) -> Outcome<()> {
        let ratios: Vec<_> = self.raw.iter().map(|raw| format!("{:<21}", self.rate.over(raw))).collect();
        let medians = [&self.acks, &self.syncs, &self.kib_per_sync].map(Series::median);
        let waits = [&self.p50_ms, &self.p99_ms].map(Series::median);
        bed.say(&format!(
            "  {writers:>7}   {:<22} {:>8.0} {:>9.0} {:>9.0} {:>8.2} {:>7.2}   {}",
            format!("{:.1}", self.rate),
            medians[0],
            medians[1],
            medians[2],
            waits[0],
            waits[1],
            ratios.join(" "),
        ))
    }
}

/// One log with its writers, for that long.
fn commit(bed: &Bed, batch: &Batch, writers: usize, time: Duration) -> Outcome<Committed> {
    let (log, _) = bed.open("commit", LogConfig::default())?;
    let partition = Partition::new(log);
    let begin = Instant::now();
    let (waits, elapsed, outcomes) = thread::scope(|scope| {
        let partition = &partition;
        let mut workers = vec![scope.spawn(|| partition.stop_after(partition.append_until_closed()))];
        workers.extend((0..FLUSH_THREADS).map(|_| scope.spawn(|| partition.stop_after(partition.flush_until_closed()))));
        let writers: Vec<_> = (0..writers).map(|_| scope.spawn(|| partition.write_until_stopped(batch))).collect();
        thread::sleep(time);
        partition.stop.store(true, Ordering::Relaxed);
        let waits: Vec<Vec<Duration>> = writers.into_iter().map(|writer| writer.join().unwrap_or_default()).collect();
        let elapsed = begin.elapsed();
        partition.submitted.close();
        partition.flushes.close();
        (waits, elapsed, workers.into_iter().map(thread::ScopedJoinHandle::join).collect::<Vec<_>>())
    });
    for outcome in outcomes {
        outcome.map_err(|_| "a thread of the group commit panicked")??;
    }
    let tail = partition.tail.into_inner();
    let bytes = tail.log.size_bytes();
    drop(tail.log);
    bed.remove("commit")?;
    let mut waits = waits.concat();
    waits.sort_unstable();
    Ok(Committed { bytes, acks: waits.len() as u64, syncs: tail.syncs, elapsed, waits })
}

struct Partition {
    submitted: Inbox<(Batch, Arc<Reply>)>,
    /// One at most.
    flushes: Inbox<Flush>,
    tail: Mutex<Tail>,
    /// The time is over.
    stop: AtomicBool,
    /// Nobody is answered any more.
    failed: AtomicBool,
}

struct Tail {
    log: Log,
    /// One past the last offset of a batch, and who waits for it.
    waiting: VecDeque<(i64, Arc<Reply>)>,
    flush_running: bool,
    syncs: u64,
}

/// Wakes one writer.
struct Reply {
    done: AtomicBool,
    thread: Thread,
}

impl Partition {
    fn new(log: Log) -> Partition {
        let tail = Mutex::new(Tail { log, waiting: VecDeque::new(), flush_running: false, syncs: 0 });
        let (stop, failed) = (AtomicBool::new(false), AtomicBool::new(false));
        Partition { submitted: Inbox::new(), flushes: Inbox::new(), tail, stop, failed }
    }

    /// Writes one batch after the other, and returns how long each took to be durable.
    fn write_until_stopped(&self, batch: &Batch) -> Vec<Duration> {
        let reply = Arc::new(Reply { done: AtomicBool::new(false), thread: thread::current() });
        let mut waits = Vec::new();
        while !self.stop.load(Ordering::Relaxed) {
            let begin = Instant::now();
            self.submitted.push((batch.clone(), Arc::clone(&reply)));
            while !reply.done.swap(false, Ordering::Acquire) {
                if self.failed.load(Ordering::Relaxed) {
                    return waits;
                }
                thread::park_timeout(FAILED_CHECK);
            }
            waits.push(begin.elapsed());
        }
        waits
    }

    /// The I/O thread: appends all that waits.
    fn append_until_closed(&self) -> Result<(), LogError> {
        loop {
            let (run, replies): (Vec<_>, Vec<_>) = self.submitted.take(RUN_BATCHES_MAX).into_iter().unzip();
            if run.is_empty() {
                return Ok(());
            }
            let mut tail = self.tail.lock();
            let mut next_offset = tail.log.append(&run, 0)?;
            for (batch, reply) in run.iter().zip(replies) {
                next_offset += i64::from(batch.header().last_offset_delta) + 1;
                tail.waiting.push_back((next_offset, reply));
            }
            self.start_flush(&mut tail);
        }
    }

    /// A flush thread: answers what a flush has made durable, with the next flush under way.
    fn flush_until_closed(&self) -> Result<(), LogError> {
        while let Some(flush) = self.flushes.take(1).pop() {
            let outcome = flush.run();
            let mut tail = self.tail.lock();
            tail.flush_running = false;
            tail.syncs += 1;
            let durable_end = tail.log.end_flush(outcome)?;
            let durable = tail.waiting.partition_point(|(next_offset, _)| *next_offset <= durable_end);
            let replies: Vec<_> = tail.waiting.drain(..durable).collect();
            self.start_flush(&mut tail);
            drop(tail);
            for (_, reply) in replies {
                reply.done.store(true, Ordering::Release);
                reply.thread.unpark();
            }
        }
        Ok(())
    }

    fn start_flush(&self, tail: &mut Tail) {
        if tail.flush_running || tail.waiting.is_empty() {
            return;
        }
        if let Some(flush) = tail.log.begin_flush() {
            tail.flush_running = true;
            self.flushes.push(flush);
        }
    }

    /// Lets the writers go if a thread that they wait for has ended with an error.
    fn stop_after(&self, outcome: Result<(), LogError>) -> Result<(), LogError> {
        if outcome.is_err() {
            self.stop.store(true, Ordering::Relaxed);
            self.failed.store(true, Ordering::Relaxed);
        }
        outcome
    }
}

/// What waits for a thread.
struct Inbox<T> {
    /// With whether it is closed.
    items: Mutex<(VecDeque<T>, bool)>,
    wake: Condvar,
}

impl<T> Inbox<T> {
    fn new() -> Inbox<T> {
        Inbox { items: Mutex::new((VecDeque::new(), false)), wake: Condvar::new() }
    }

    fn push(&self, item: T) {
        self.items.lock().0.push_back(item);
        self.wake.notify_one();
    }

    fn close(&self) {
        self.items.lock().1 = true;
        self.wake.notify_all();
    }

    /// Waits until there is something, and takes up to so many; nothing once the inbox is closed and empty.
    fn take(&self, max: usize) -> Vec<T> {
        let mut items = self.items.lock();
        while items.0.is_empty() && !items.1 {
            self.wake.wait(&mut items);
        }
        let count = items.0.len().min(max);
        items.0.drain(..count).collect()
    }
}

const TARGETS: [Target; 4] = [Target::Growing, Target::Reserved, Target::Allocated, Target::Rewritten];

/// As in the engine: a write takes 1,024 pieces, and a batch has two.
const RUN_BATCHES_MAX: usize = 512;

/// As many as the engine has.
const FLUSH_THREADS: usize = 4;

/// How often a writer that waits looks whether there is anybody left to answer.
const FAILED_CHECK: Duration = Duration::from_secs(1);

const MUST_WRITERS: usize = 64;

const OVER_RAW_MIN: f64 = 0.9;

//! Power cuts under several partitions at once: one disk, one pool of open files, one crash for all of them.
//!
//! Beside each log go two readers. A consumer under `sync` reads up to the high watermark, which is the durable end, and goes on where
//! it was after every crash; another looks at any part of what is visible. Neither ever sees a byte that was not appended there.

use std::path::PathBuf;
use std::sync::Arc;

use millpond_log::sim::{Operation, Random, SimDisk};
use millpond_log::{Flush, Log, LogConfig, OpenFiles, Pools};

use crate::crash::{End, Known, append, break_something, delete, resume};
use crate::harness::{config, prepared_disk};
use crate::seeds;

/// One log, what is known of it, and its consumer.
#[derive(Default)]
struct Partition {
    /// None while it could not be opened.
    log: Option<Log>,
    known: Known,
    /// The flush that was begun, and may not have run.
    flush: Option<Flush>,
    /// Whether it takes no more appends in this life.
    stopped: bool,
    /// Whether a deletion has failed half way, and reads of what it took say that they are out of range.
    half_deleted: bool,
    /// The largest high watermark that the consumer was told.
    high_watermark: i64,
    /// Where the consumer goes on.
    position: i64,
}

struct World {
    disk: SimDisk,
    config: LogConfig,
    files_max: usize,
    partitions: Vec<Partition>,
    /// What the disk had done before and after each step that has synced something.
    syncing: Vec<std::ops::Range<u64>>,
}

impl World {
    fn new(random: &mut Random) -> World {
        let segment_bytes = [1, 1_500, 5_000, 100_000][index(random.below(4))];
        World {
            disk: prepared_disk(),
            config: config(segment_bytes, u32::try_from(random.below(2_000)).expect("small")),
            files_max: index(1 + random.below(8)),
            partitions: (0..2 + random.below(4)).map(|_| Partition::default()).collect(),
            syncing: Vec::new(),
        }
    }

    /// One life of the broker: opens the logs, works, and ends. Says whether the power must go, because something has failed.
    fn life(&mut self, random: &mut Random, steps: u64) -> bool {
        let files = OpenFiles::new(self.files_max);
        for number in 0..self.partitions.len() {
            self.noting_syncs(|world| world.open(number, &files));
        }
        for _ in 0..steps {
            if !self.disk.is_powered() {
                break;
            }
            let number = index(random.below(self.partitions.len() as u64));
            self.noting_syncs(|world| world.step(number, random));
            let looked_at = index(random.below(self.partitions.len() as u64));
            self.look(looked_at, random);
        }
        let mut failed = !self.disk.is_powered();
        for number in 0..self.partitions.len() {
            let closes = random.percent(30);
            failed |= self.noting_syncs(|world| world.end(number, closes));
        }
        failed || !self.disk.is_powered()
    }

    fn open(&mut self, number: usize, files: &OpenFiles) {
        let dir = PathBuf::from(format!("/data/readings-{number}"));
        let pools = Pools { files: files.clone(), ..Pools::default() };
        let opened = Log::open_in(Arc::new(self.disk.clone()), pools, &dir, self.config);
        let partition = &mut self.partitions[number];
        (partition.stopped, partition.half_deleted) = (opened.is_err(), false);
        let Ok((log, _)) = opened else { return };
        // An opening can end well in the dark: what it does last can be left out.
        if !self.disk.is_powered() {
            partition.stopped = true;
            return;
        }
        self.disk.forget_failures(Operation::Read);
        resume(&log, &mut partition.known);
        assert!(log.durable_end() >= partition.high_watermark, "the high watermark goes back from {}", partition.high_watermark);
        partition.log = Some(log);
    }

    fn step(&mut self, number: usize, random: &mut Random) {
        let partition = &mut self.partitions[number];
        let Some(log) = partition.log.as_mut().filter(|_| !partition.stopped) else { return };
        let end = match random.below(14) {
            0..6 => append(&self.disk, log, random, &mut partition.known),
            6..8 => {
                let begun = if random.percent(30) { log.begin_flush_closed() } else { log.begin_flush() };
                partition.flush = begun.or(partition.flush.take());
                None
            }
            8..11 => finish_flush(log, partition.flush.take(), &mut partition.known),
            11 => delete(log, random, &mut partition.known),
            12 => (log.roll().is_err() && log.failure().is_some()).then_some(End::Latched),
            _ => {
                break_something(&self.disk, random);
                None
            }
        };
        partition.stopped = end.is_some();
        partition.half_deleted = end == Some(End::Killed);
    }

    /// What the readers see between two steps.
    fn look(&mut self, number: usize, random: &mut Random) {
        let partition = &mut self.partitions[number];
        let Some(log) = partition.log.as_ref().filter(|_| self.disk.is_powered() && !partition.half_deleted) else { return };
        self.disk.forget_failures(Operation::Read);
        let (start, visible, watermark) = (log.log_start(), log.log_end(), log.durable_end());
        assert!(watermark >= partition.high_watermark && watermark <= visible, "{watermark} after {}", partition.high_watermark);
        partition.high_watermark = watermark;
        partition.position = partition.position.max(start);
        let max_bytes = index(random.below(3_000));
        if partition.position <= watermark {
            partition.position = check_read(log, &partition.known, partition.position, max_bytes, watermark);
        }
        let anywhere = start + random.below((visible - start).unsigned_abs() + 1).cast_signed();
        check_read(log, &partition.known, anywhere, max_bytes, visible);
    }

    /// The log is closed in order, or dropped. Says whether something has failed since it was opened.
    fn end(&mut self, number: usize, closes: bool) -> bool {
        let partition = &mut self.partitions[number];
        partition.flush = None;
        let Some(log) = partition.log.take() else { return true };
        if !closes || partition.stopped {
            return partition.stopped;
        }
        let outcome = log.close();
        if outcome.is_ok() {
            partition.known.durable = partition.known.appended;
        }
        outcome.is_err()
    }

    fn crash(&mut self, random: &mut Random) {
        self.disk.crash(random.next_u64());
        for partition in &mut self.partitions {
            partition.known.powered = false;
        }
    }

    fn changes(&self) -> u64 {
        CHANGES.iter().map(|change| self.disk.count(*change)).sum()
    }

    fn noting_syncs<T>(&mut self, act: impl FnOnce(&mut World) -> T) -> T {
        let syncs = |world: &World| world.disk.count(Operation::Sync) + world.disk.count(Operation::SyncDir);
        let before = (syncs(self), self.changes());
        let outcome = act(self);
        if syncs(self) > before.0 {
            self.syncing.push(before.1..self.changes() + 1);
        }
        outcome
    }
}

/// Ends the flush that was begun, if there is one. Says how the life of the log ends if it does.
fn finish_flush(log: &mut Log, flush: Option<Flush>, known: &mut Known) -> Option<End> {
    let outcome = flush?.run();
    match log.end_flush(outcome) {
        Ok(durable_end) => known.durable = known.batches.iter().take_while(|stored| stored.next <= durable_end).count(),
        // Put off, for lack of a descriptor.
        Err(_) if log.failure().is_none() => {}
        Err(_) => return Some(End::Latched),
    }
    None
}

/// Reads at an offset, and compares every byte. Returns where a consumer goes on.
fn check_read(log: &Log, known: &Known, from: i64, max_bytes: usize, end: i64) -> i64 {
    let read = log.reader().read(from, max_bytes, end).expect("what is visible can be read while the power is on");
    let (mut rest, mut next) = (&read[..], from);
    for stored in known.batches.iter().filter(|stored| stored.next > from) {
        if rest.is_empty() {
            break;
        }
        assert!(stored.next <= end, "a batch behind the end {end} is served");
        rest = rest.strip_prefix(&stored.bytes[..]).expect("the bytes that were appended there");
        next = stored.next;
    }
    assert!(rest.is_empty(), "more is served than was appended");
    next
}

fn index(number: u64) -> usize {
    usize::try_from(number).expect("small")
}

/// On a disk that works every log opens, and everything that was acknowledged is there.
fn settle(mut world: World, random: &mut Random) {
    world.crash(random);
    assert!(!world.life(random, 0), "a log does not open on a disk that works");
}

fn replay(seed: u64) {
    let mut random = Random::new(seed);
    let mut world = World::new(&mut random);
    for _ in 0..5 {
        if random.percent(30) {
            world.disk.shorten_writes(Some(random.next_u64()));
        }
        if random.percent(70) {
            let changes_max = if random.percent(40) { 40 } else { 300 };
            world.disk.cut_power_after(random.below(changes_max));
        }
        let steps = random.below(80);
        // After a kill the system may go on, and with it the bytes in its cache.
        if world.life(&mut random, steps) || random.percent(50) {
            world.crash(&mut random);
        }
    }
    settle(world, &mut random);
}

#[test]
fn several_logs_on_one_disk_survive_every_power_cut_and_no_reader_sees_a_wrong_byte() {
    seeds::replay_each(3_000, replay);
}

/// A life that is cut short after so many changes of the disk, and another one after it.
fn replay_cut(seed: u64, changes: Option<u64>) -> Vec<std::ops::Range<u64>> {
    let mut random = Random::new(seed);
    let mut world = World::new(&mut random);
    if let Some(changes) = changes {
        // The folders that were there from the start.
        world.disk.cut_power_after(changes - world.changes());
    }
    let steps = 10 + random.below(40);
    world.life(&mut random, steps);
    let syncing = world.syncing.clone();
    if changes.is_some() {
        // What follows depends on the moment of the cut, and what survives of it too.
        let mut random = Random::new(seed ^ changes.unwrap_or(0));
        world.crash(&mut random);
        if world.life(&mut random, 20) {
            world.crash(&mut random);
        }
        settle(world, &mut random);
    }
    syncing
}

#[test]
fn several_logs_on_one_disk_survive_a_power_cut_at_each_sync() {
    seeds::replay_some(150, CUTS_OF_A_SEED, |seed| {
        for changes in replay_cut(seed, None).into_iter().flatten() {
            replay_cut(seed, Some(changes));
        }
    });
}

/// How often a seed is replayed, about.
const CUTS_OF_A_SEED: u64 = 100;

const CHANGES: [Operation; 7] =
    [Operation::Write, Operation::SetLen, Operation::Sync, Operation::SyncDir, Operation::Create, Operation::Rename, Operation::Remove];

//! Everything at once: several partitions on one disk, with shared pools of open files and producers, and one power cut for all of them.
//!
//! Producers send and send again, flushes run beside appends, records are deleted, expire and are compacted, readers hold their places; the
//! disk fills up and gets room again, fails at any operation, flips bits while the broker is away, and loses power at any change. A seed
//! says all of it ([`crate::seeds`] says how it is replayed).
//!
//! ```text
//!   life                      what is known of a log, and must be so after it
//! |---- open, steps, end ---| offsets  never back, no gap, none twice: crash::Known
//!   |        |       |        bytes    those that were appended, or an error at a flipped bit: readers
//!   |        |       '- kill, clean stop, power cut; then perhaps rot
//!   |        '- one of produce, flush, delete, retain, compact, look, break, fill, wait
//!   '- what was acknowledged is there
//! ```
//!
//! | module | holds |
//! |---|---|
//! | `partition` | one log, what is done with it, and what is known of it |
//! | `producers` | who sends, and what a log must answer |
//! | `keyed` | compaction and what it may leave out |
//! | `readers` | what can be read, at an opening and in between |
//! | `rot` | flipped bits |

mod keyed;
mod partition;
mod producers;
mod readers;
mod rot;

use millpond_log::sim::{Operation, Random, SimDisk};
use millpond_log::{Now, OpenFiles, Pools, ProducerPool};

use crate::compacted::NOON_MS;
use crate::crash::break_something;
use crate::harness::prepared_disk;
use crate::seeds;

use partition::Partition;
use producers::PRODUCERS;

struct World {
    disk: SimDisk,
    files_max: usize,
    partitions: Vec<Partition>,
    /// Milliseconds that have passed.
    passed_ms: i64,
    /// Whether the wall clock of this life is set.
    knows_time: bool,
    /// Whether the disk takes only so many files.
    has_few_names: bool,
    /// What the disk had done before and after each step that has synced something.
    syncing: Vec<std::ops::Range<u64>>,
}

impl World {
    fn new(random: &mut Random) -> World {
        World {
            disk: prepared_disk(),
            files_max: index(1 + random.below(8)),
            partitions: (0..2 + random.below(5)).map(|number| Partition::new(number, random)).collect(),
            passed_ms: 0,
            knows_time: true,
            has_few_names: false,
            syncing: Vec::new(),
        }
    }

    fn now(&self) -> Now {
        Now { wall_ms: if self.knows_time { NOON_MS + self.passed_ms } else { 1_000 }, monotonic_ms: self.passed_ms }
    }

    /// One life of the broker: opens the logs, works, and ends. Says whether the power must go, because what the disk shows may not be
    /// what it holds.
    fn life(&mut self, random: &mut Random, steps: u64) -> bool {
        self.knows_time = random.percent(80);
        // As many as there are: none may be forgotten for another.
        let producers = ProducerPool::new(PRODUCERS * self.partitions.len());
        let pools = Pools { files: OpenFiles::new(self.files_max), producers };
        for number in 0..self.partitions.len() {
            let now = self.now();
            self.noting_syncs(|world| world.partitions[number].open(&world.disk, &pools, now));
        }
        for _ in 0..steps {
            if !self.disk.is_powered() {
                break;
            }
            self.noting_syncs(|world| world.step(random));
            let looked_at = index(random.below(self.partitions.len() as u64));
            if self.disk.is_powered() {
                self.partitions[looked_at].look(&self.disk, random);
            }
        }
        let mut must_lose_power = false;
        for number in 0..self.partitions.len() {
            let closes = random.percent(30);
            must_lose_power |= self.noting_syncs(|world| world.partitions[number].end(&world.disk, closes));
        }
        must_lose_power || !self.disk.is_powered()
    }

    fn step(&mut self, random: &mut Random) {
        match random.below(40) {
            0 => break_something(&self.disk, random),
            1 if random.percent(30) => self.disk.limit_bytes(Some(self.disk.used_bytes() + random.below(6_000))),
            2 if random.percent(30) => {
                self.disk.limit_names(Some(self.disk.used_names() + random.below(8)));
                self.has_few_names = true;
            }
            3 | 4 => {
                self.disk.limit_bytes(None);
                self.disk.limit_names(None);
                self.has_few_names = false;
            }
            5 => self.passed_ms += random.below(4_000_000).cast_signed(),
            6 if random.percent(10) => self.passed_ms += 86_400_000,
            _ => {
                let (number, now) = (index(random.below(self.partitions.len() as u64)), self.now());
                self.partitions[number].step(&self.disk, now, random);
            }
        }
        // A folder that can't be synced is written once more with the next name, and there must be one to be had.
        if self.has_few_names {
            self.disk.forget_failures(Operation::SyncDir);
        }
    }

    fn crash(&mut self, random: &mut Random) {
        self.disk.crash(random.next_u64());
        for partition in &mut self.partitions {
            partition.known.powered = false;
        }
    }

    /// Time passes over a disk that nobody uses.
    fn rest(&mut self, random: &mut Random) {
        self.disk.forget_failures(Operation::Read);
        if random.percent(30) {
            self.passed_ms += random.below(40_000_000).cast_signed();
        }
        for partition in &mut self.partitions {
            partition.rot(&self.disk, random);
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

fn index(number: u64) -> usize {
    usize::try_from(number).expect("small")
}

/// On a disk that works every log opens, everything that was acknowledged is there, and the producers get their answers.
fn settle(mut world: World, random: &mut Random) {
    world.crash(random);
    assert!(!world.life(random, 0), "a log does not open on a disk that works");
    world.crash(random);
    // A run of small segments may need more files than the pool of this world has.
    let (pools, now) = (Pools::default(), world.now());
    for partition in &mut world.partitions {
        partition.open(&world.disk, &pools, now);
        partition.answer_all(&world.disk, now, random);
        partition.compact_all(now);
        partition.check_contents();
    }
}

fn replay(seed: u64) {
    let mut random = Random::new(seed);
    let mut world = World::new(&mut random);
    for _ in 0..5 {
        if random.percent(30) {
            world.disk.shorten_writes(Some(random.next_u64()));
        }
        if random.percent(60) {
            let changes_max = if random.percent(40) { 60 } else { 500 };
            world.disk.cut_power_after(random.below(changes_max));
        }
        let steps = random.below(160);
        // After a kill the system may go on, and with it the bytes in its cache.
        if world.life(&mut random, steps) || random.percent(50) {
            world.crash(&mut random);
        }
        world.rest(&mut random);
    }
    settle(world, &mut random);
}

#[test]
fn several_logs_survive_everything_at_once_and_no_reader_sees_a_wrong_byte() {
    seeds::replay_each(2_500, replay);
}

/// A life that is cut short after so many changes of the disk, and another one after it.
fn replay_cut(seed: u64, changes: Option<u64>) -> Vec<std::ops::Range<u64>> {
    let mut random = Random::new(seed);
    let mut world = World::new(&mut random);
    if let Some(changes) = changes {
        // The folders that were there from the start.
        world.disk.cut_power_after(changes - world.changes());
    }
    let steps = 10 + random.below(60);
    world.life(&mut random, steps);
    let syncing = world.syncing.clone();
    if changes.is_some() {
        // What follows depends on the moment of the cut, and what survives of it too.
        let mut random = Random::new(seed ^ changes.unwrap_or(0));
        world.crash(&mut random);
        world.rest(&mut random);
        if world.life(&mut random, 20) {
            world.crash(&mut random);
        }
        settle(world, &mut random);
    }
    syncing
}

#[test]
fn several_logs_survive_a_power_cut_at_each_sync() {
    seeds::replay_some(60, CUTS_OF_A_SEED, |seed| {
        for changes in replay_cut(seed, None).into_iter().flatten() {
            replay_cut(seed, Some(changes));
        }
    });
}

/// How often a seed is replayed, about.
const CUTS_OF_A_SEED: u64 = 150;

const CHANGES: [Operation; 7] =
    [Operation::Write, Operation::SetLen, Operation::Sync, Operation::SyncDir, Operation::Create, Operation::Rename, Operation::Remove];

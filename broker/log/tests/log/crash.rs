//! Power cuts at any point of a random workload.
//!
//! A seed replays a failure: the workload, the moment of each cut, and what survives of the unsynced bytes all follow from it
//! ([`crate::seeds`] says how).

use std::path::Path;

use millpond_log::sim::{Fault, Operation, Random, SimDisk};
use millpond_log::{Disk, Log, LogConfig, LogError, ProducerBatch, ProducerState};
use millpond_protocol::batch::Batch;

use crate::harness::{DIR, Stored, check_from, config, prepared_disk, random_batch, stored, try_open};
use crate::numbers::{numbered, remembered, replayed};
use crate::seeds;
use crate::time::check_find_time;

/// What is known of a log between its lives.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// The batches that were appended, or may have been, in the order of their offsets.
    pub(crate) batches: Vec<Stored>,
    /// Those before them that were deleted.
    pub(crate) deleted: Vec<Stored>,
    /// How many of them are durable for certain.
    pub(crate) durable: usize,
    /// How many of them must be there as long as the power stays on: those whose append has succeeded.
    pub(crate) appended: usize,
    /// Where the log begins, as it was seen; it never goes back.
    pub(crate) start: i64,
    /// Where it was asked to begin.
    pub(crate) start_asked: i64,
    /// Whether the power has stayed on since.
    pub(crate) powered: bool,
    /// Whether bits were flipped in batches, which a recovery then learns nothing from.
    pub(crate) has_rotten: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The power was cut.
    Cut,
    /// The log was dropped, as by a kill.
    Killed,
    /// The log has latched, and its bytes in memory may differ from those on disk.
    Latched,
}

fn life(disk: &SimDisk, config: LogConfig, random: &mut Random, known: &mut Known) -> End {
    let Ok((mut log, _)) = try_open(disk, config) else { return End::Cut };
    // An opening can end well in the dark: what it does last can be left out.
    if !disk.is_powered() {
        return End::Cut;
    }
    disk.forget_failures(Operation::Read);
    resume(&log, known);
    for _ in 0..random.below(40) {
        match random.below(12) {
            0..6 => {
                if let Some(end) = append(disk, &mut log, random, known) {
                    return end;
                }
            }
            6..9 => {
                let flush = if random.percent(30) { log.begin_flush_closed() } else { log.begin_flush() };
                let Some(flush) = flush else { continue };
                // Some appends overlap the flush, before its syncs or after them.
                let early = random.percent(50).then(|| flush.run());
                if random.percent(15)
                    && let Some(end) = delete(&log, random, known)
                {
                    // A flush that has failed counts, whether or not the log was told.
                    return if early.is_some_and(|outcome| outcome.is_err()) { End::Latched } else { end };
                }
                for _ in 0..random.below(3) {
                    if let Some(end) = append(disk, &mut log, random, known) {
                        return end;
                    }
                }
                match log.end_flush(early.unwrap_or_else(|| flush.run())) {
                    Ok(durable_end) => known.durable_to(durable_end),
                    Err(_) if log.failure().is_none() => {}
                    Err(_) => return End::Latched,
                }
            }
            9 => {
                if let Some(end) = delete(&log, random, known) {
                    return end;
                }
            }
            10 => {
                if log.roll().is_err() && log.failure().is_some() {
                    return End::Latched;
                }
            }
            _ => break_something(disk, random),
        }
    }
    if random.percent(30) {
        if log.close().is_err() {
            return End::Latched;
        }
        known.durable = known.appended;
    }
    End::Killed
}

/// Lets one of the next operations fail.
pub(crate) fn break_something(disk: &SimDisk, random: &mut Random) {
    let operation = BREAKABLE[usize::try_from(random.below(BREAKABLE.len() as u64)).expect("small")];
    let fault = match (operation, random.below(10)) {
        (Operation::SyncDir, 0..5) | (Operation::Create, 0..3) => Fault::TooManyOpenFiles,
        (Operation::SyncDir | Operation::Read | Operation::Remove, _) => Fault::Device,
        (_, 0..7) => Fault::NoSpace,
        _ => Fault::Device,
    };
    // There are many more reads than anything else.
    let soon = if operation == Operation::Read { 20 } else { 4 };
    disk.fail(operation, 1 + random.below(soon), fault);
}

const BREAKABLE: [Operation; 8] = [
    Operation::Write,
    Operation::Create,
    Operation::Sync,
    Operation::SetLen,
    Operation::SyncDir,
    Operation::Read,
    Operation::Rename,
    Operation::Remove,
];

/// Appends some batches. Says how the life ends if it does.
fn append(disk: &SimDisk, log: &mut Log, random: &mut Random, known: &mut Known) -> Option<End> {
    // Up and down, so that no batch tells what the largest timestamp before it was.
    let clock = random.below(100_000).cast_signed();
    let batches: Vec<_> = (0..=random.below(4)).map(|_| from_a_producer(random_batch(random, clock), random)).collect();
    let (end, before) = (log.log_end(), log.producers());
    let outcome = log.append(&batches, 3);
    if outcome.is_ok() {
        known.batches.extend(stored(end, 3, &batches));
        known.appended = known.batches.len();
        known.check_producers(log);
        return None;
    }
    assert_eq!((log.log_end(), log.producers()), (end, before), "a failed append moves nothing");
    match outcome {
        // Taken back, durably: it must not come back.
        Err(LogError::Full { .. } | LogError::TooManyOpenFiles { .. }) if log.failure().is_none() => {
            if disk.is_powered() {
                disk.forget_failures(Operation::Read);
                check_from(&log.reader(), &known.batches, known.start);
            }
            None
        }
        _ => {
            // Some of it may be in the file.
            known.batches.extend(stored(end, 3, &batches));
            Some(End::Cut)
        }
    }
}

/// Most batches come from a producer. What its sequences are is for the broker to judge, not for the log.
fn from_a_producer(batch: Batch, random: &mut Random) -> Batch {
    let base_sequence = i32::try_from(random.below(1 << 31)).expect("31 bits");
    let epoch = i16::from(random.percent(3));
    if random.percent(80) { numbered(&batch, random.below(6).cast_signed(), epoch, base_sequence) } else { batch }
}

/// Deletes some of the oldest batches, or tries to. Says how the life ends if it does.
fn delete(log: &Log, random: &mut Random, known: &mut Known) -> Option<End> {
    let (start, end) = (log.log_start(), log.log_end());
    let before = start + random.below((end - start).unsigned_abs() + 1).cast_signed();
    if let Some(deletion) = log.begin_delete(before) {
        known.start_asked = known.start_asked.max(before);
        let outcome = deletion.run();
        // Whatever became of it: what readers have seen stays.
        known.begins_at(log.log_start());
        match outcome {
            Ok(answered) => assert_eq!((answered, log.log_start()), (before, before)),
            // On a full disk the oldest segment may be half gone.
            Err(_) => return Some(End::Killed),
        }
    }
    None
}

impl Known {
    pub(crate) fn begins_at(&mut self, start: i64) {
        self.start = start;
        let gone = self.batches.iter().take_while(|stored| stored.next <= start).count();
        self.deleted.extend(self.batches.drain(..gone));
        self.durable = self.durable.saturating_sub(gone);
        self.appended = self.appended.saturating_sub(gone);
    }

    /// What the log remembers of its producers is what its batches say. Of those that were deleted it need not be everything: the recovery
    /// point may not have covered them.
    pub(crate) fn check_producers(&self, log: &Log) {
        let (found, left) = (remembered(log), replayed(&self.batches));
        if self.has_rotten {
            return self.check_none_made_up(&found);
        }
        if self.deleted.is_empty() {
            assert_eq!(found, left);
            return;
        }
        self.check_none_made_up(&found);
        for state in left {
            let found = found.iter().find(|found| found.producer_id == state.producer_id).expect("a producer of a batch that is there");
            assert!(found.epoch > state.epoch || found.batches.ends_with(&state.batches), "{found:?} without {state:?}");
        }
    }

    fn check_none_made_up(&self, found: &[ProducerState]) {
        let all: Vec<_> = self.deleted.iter().chain(&self.batches).cloned().collect();
        let ever = replayed_without_bound(&all);
        for state in found {
            assert!(state.batches.iter().all(|batch| ever.contains(&(state.producer_id, *batch))), "{state:?} is made up");
        }
    }

    /// Holds the offsets and the producers of a log that was opened against what is known, which it settles.
    pub(crate) fn settle(&mut self, log: &Log) {
        let (start, end) = (log.log_start(), log.log_end());
        assert!((self.start..=self.start_asked.max(self.start)).contains(&start), "the log begins at {start}, not from {} on", self.start);
        self.begins_at(start);
        let kept = self.batches.iter().take_while(|stored| stored.next <= end).count();
        let least = if self.powered { self.appended } else { self.durable };
        assert!(kept >= least, "{least} batches must be there, {kept} are left");
        self.batches.truncate(kept);
        assert_eq!(self.batches.last().map_or(start, |stored| stored.next), end, "the log ends with a batch");
        self.check_producers(log);
        assert_eq!(log.durable_end(), end, "what an opening has kept is durable");
        (self.durable, self.appended, self.powered) = (kept, kept, true);
    }

    /// Takes over how far the log is durable.
    pub(crate) fn durable_to(&mut self, end: i64) {
        self.durable = self.batches.iter().take_while(|stored| stored.next <= end).count();
    }
}

/// Every batch that a producer has ever sent.
fn replayed_without_bound(batches: &[Stored]) -> Vec<(i64, ProducerBatch)> {
    let one = |stored: &Stored| replayed(std::slice::from_ref(stored)).into_iter().map(|state| (state.producer_id, state.batches[0]));
    batches.iter().flat_map(one).collect()
}

/// Holds a log that was opened against what is known, which it settles.
fn resume(log: &Log, known: &mut Known) {
    known.settle(log);
    let (start, end) = (log.log_start(), log.log_end());
    check_from(&log.reader(), &known.batches, start);
    for timestamp in (0..100_000).step_by(20_000) {
        check_find_time(&log.reader(), &known.batches, timestamp, end);
    }
    for offset in [start, start + (end - start) / 3, end - 1] {
        if (start..end).contains(&offset) {
            let read = log.reader().read(offset, 1, end).expect("reads");
            let expected = known.batches.iter().find(|stored| stored.next > offset).expect("a batch holds the offset");
            assert_eq!(read, expected.bytes);
        }
    }
}

fn replay(seed: u64) {
    let mut random = Random::new(seed);
    let config = config(
        [1, 1_500, 5_000, 100_000][usize::try_from(random.below(4)).expect("small")],
        u32::try_from(random.below(2_000)).expect("small"),
    );
    let disk = prepared_disk();
    let mut known = Known::default();
    for _ in 0..6 {
        if random.percent(30) {
            disk.shorten_writes(Some(random.next_u64()));
        }
        // Often within the opening itself.
        if random.percent(70) {
            let changes_max = if random.percent(40) { 15 } else { 150 };
            disk.cut_power_after(random.below(changes_max));
        }
        let end = life(&disk, config, &mut random, &mut known);
        // After a kill the system may go on, and with it the bytes in its cache. After a flush that has failed it shows bytes that are not on
        // disk, and the opening has to know it.
        let must_lose_power = match end {
            End::Cut => true,
            End::Latched => !disk.exists(&Path::new(DIR).join("flush-failed")).unwrap_or(false),
            End::Killed => false,
        };
        if must_lose_power || random.percent(50) {
            disk.crash(random.next_u64());
            known.powered = false;
        }
    }
    // At last on a disk that works.
    disk.crash(random.next_u64());
    known.powered = false;
    let (log, _) = try_open(&disk, config).expect("the log opens");
    resume(&log, &mut known);
}

#[test]
fn what_was_flushed_survives_every_power_cut_without_gap_or_repetition() {
    seeds::replay_each(5_000, replay);
}

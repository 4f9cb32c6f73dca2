//! A compacted log: its passes, step by step beside everything else, and what they may leave out.

use std::collections::BTreeMap;
use std::ops::Range;

use millpond_log::sim::Random;
use millpond_log::{Compaction, CompactionPass, CompactionStep, Compactor, Cursor, Log, LogError, LogReader, Now};
use millpond_protocol::batch::Batch;
use millpond_protocol::compression::Codec;

use crate::compacted::{Model, compaction, finish, rows_of};

use super::index;

/// What is known of the records of a compacted log.
pub(super) struct Keyed {
    keys: u64,
    key_map_bytes: usize,
    model: Model,
}

/// What compacts it.
pub(super) struct Compacting {
    compactor: Compactor,
    /// With the time at which it began.
    pass: Option<(CompactionPass, i64)>,
}

impl Compacting {
    pub(super) fn new(log: &Log, keyed: Option<&Keyed>) -> Compacting {
        let key_map_bytes = keyed.map_or(0, |keyed| keyed.key_map_bytes);
        Compacting { compactor: log.compactor().with_key_map_bytes(key_map_bytes), pass: None }
    }
}

impl Keyed {
    pub(super) fn new(random: &mut Random) -> Keyed {
        Keyed {
            keys: [3, 12, 60][index(random.below(3))],
            key_map_bytes: [24 * 4, 24 * 20, 1 << 20][index(random.below(3))],
            model: Model::default(),
        }
    }

    pub(super) fn keys(&self) -> u64 {
        self.keys
    }

    /// What an opening has found.
    pub(super) fn resume(&mut self, log: &Log) {
        self.begins_at(log.log_start());
        assert!(log.log_end() <= self.model.end());
        self.model.cut(log.log_end());
    }

    pub(super) fn begins_at(&mut self, start: i64) {
        assert!(start >= self.model.start, "the start never goes back");
        self.model.start = start;
    }

    pub(super) fn append(&mut self, batches: &[Batch]) {
        for batch in batches {
            let rows: Vec<_> = rows_of(batch).into_iter().map(|(_, row)| row).collect();
            self.model.append(&rows);
        }
    }

    pub(super) fn has_rotten(&mut self, range: Range<i64>) {
        self.model.rotten.push(range);
    }

    /// Goes on with a pass, or begins one.
    pub(super) fn step(&mut self, log: &Log, compacting: &mut Compacting, now: Now, random: &mut Random) -> Result<(), LogError> {
        if compacting.pass.is_none() {
            let below = if random.percent(50) { i64::MAX } else { log.durable_end() - random.below(20).cast_signed() };
            let pass = compacting.compactor.begin(Compaction {
                dirty_percent_min: [0, 50][index(random.below(2))],
                // Nothing that is not durable.
                ..compaction(below.min(log.durable_end()), now.wall_ms)
            })?;
            self.model.attempt(log.durable_end().min(below.max(0)), now.wall_ms);
            compacting.pass = pass.map(|pass| (pass, now.wall_ms));
        }
        for _ in 0..random.below(8) {
            let Some((pass, began_ms)) = &mut compacting.pass else { break };
            match compacting.compactor.step(pass) {
                Ok(CompactionStep::Done(done)) => {
                    self.model.completed(&done, *began_ms);
                    compacting.pass = None;
                }
                Ok(_) => {}
                Err(error) => {
                    compacting.pass = None;
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Passes until nothing is left to do, on a disk that works.
    pub(super) fn compact_all(&mut self, compacting: &mut Compacting, now: Now) {
        for passes in 0.. {
            let Some(mut pass) = compacting.compactor.begin(compaction(i64::MAX, now.wall_ms)).expect("begins") else { break };
            self.model.attempt(self.model.end(), now.wall_ms);
            let (done, _) = finish(&mut compacting.compactor, &mut pass).expect("compacts");
            self.model.completed(&done, now.wall_ms);
            assert!(passes < 1_000, "the passes get on: {done:?}");
        }
    }

    pub(super) fn check(&self, reader: &LogReader) {
        self.model.check(reader);
    }

    pub(super) fn read(&self, reader: &LogReader, cursor: &mut Cursor, max_bytes: usize) -> Result<bool, LogError> {
        self.model.read(reader, cursor, max_bytes, &mut BTreeMap::new())
    }
}

/// Most batches are not compressed, as it takes time.
pub(super) fn random_codec(random: &mut Random) -> Codec {
    if random.percent(80) { Codec::None } else { Codec::ALL[index(random.below(Codec::ALL.len() as u64))] }
}

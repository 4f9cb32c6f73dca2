//! Random lives of a compacted log, with power cuts and deletions, compared with a plain list of its records.
//!
//! A seed replays a failure.

use std::collections::BTreeMap;

use millpond_log::sim::{Random, SimDisk};
use millpond_log::{Compaction, CompactionPass, CompactionStep, Compactor, Cursor, Log, LogConfig};
use millpond_protocol::compression::Codec;

use crate::compacted::{DAY_MS, Model, NOON_MS, batch_of, compaction, random_rows};
use crate::harness::{config, open, prepared_disk, try_open};
use crate::seeds;

struct Life {
    disk: SimDisk,
    config: LogConfig,
    key_map_bytes: usize,
    keys: u64,
    model: Model,
    now_ms: i64,
}

struct Running {
    log: Log,
    compactor: Compactor,
    /// With the time at which it began.
    pass: Option<(CompactionPass, i64)>,
    cursor: Cursor,
}

impl Life {
    fn begin(&self) -> Option<Running> {
        let (log, _) = try_open(&self.disk, self.config).ok()?;
        if !self.disk.is_powered() {
            return None;
        }
        let compactor = log.compactor().with_key_map_bytes(self.key_map_bytes);
        let cursor = Cursor::new(log.log_start());
        Some(Running { log, compactor, pass: None, cursor })
    }

    /// What an opening has found.
    fn resume(&mut self, log: &Log) {
        assert!(log.log_start() >= self.model.start, "the start never goes back");
        self.model.start = log.log_start();
        assert!(log.log_end() <= self.model.end());
        self.model.cut(log.log_end());
        self.model.check(&log.reader());
    }

    /// Does something. None if it failed, as it does without power.
    fn act(&mut self, running: &mut Running, random: &mut Random) -> Option<()> {
        match random.below(20) {
            0..6 => {
                let rows: Vec<_> = (0..=random.below(3)).map(|_| random_rows(random, self.keys)).collect();
                let codec = Codec::ALL[usize::try_from(random.below(Codec::ALL.len() as u64)).unwrap_or(0)];
                let batches: Vec<_> = rows.iter().map(|rows| batch_of(rows, codec)).collect();
                // It may be in the files, and come back after a crash, also where this fails.
                for rows in &rows {
                    self.model.append(rows);
                }
                running.log.append(&batches, 0).ok()?;
            }
            6..9 => {
                if let Some(flush) = running.log.begin_flush() {
                    running.log.end_flush(flush.run()).ok()?;
                }
            }
            9 => running.log.roll().ok()?,
            10..16 => self.step(running, random)?,
            16 => {
                self.now_ms = match random.below(4) {
                    0 => 1_000,
                    1 => NOON_MS,
                    _ => self.now_ms.max(NOON_MS) + i64::try_from(random.below(DAY_MS)).unwrap_or(0),
                };
            }
            17 if random.percent(30) => {
                let before = self.model.start + random.below(self.model.end().abs_diff(self.model.start) + 1).cast_signed();
                let deletion = running.log.begin_delete(before.min(running.log.durable_end()))?;
                let deleted = deletion.run();
                self.model.start = deleted.ok()?;
            }
            _ => {
                let reader = running.log.reader();
                if running.cursor.offset() < self.model.start {
                    running.cursor = Cursor::new(self.model.start);
                }
                let max_bytes = usize::try_from(random.below(2_000)).unwrap_or(0);
                if !self.model.read(&reader, &mut running.cursor, max_bytes, &mut BTreeMap::new()).ok()? {
                    running.cursor = Cursor::new(self.model.start);
                }
                let looked_for = 1_000 + random.below(5_000).cast_signed();
                if let Some((_, timestamp)) = reader.find_time(looked_for, i64::MAX).ok()? {
                    assert!(timestamp >= looked_for);
                }
            }
        }
        Some(())
    }

    /// Goes on with a pass, or begins one.
    fn step(&mut self, running: &mut Running, random: &mut Random) -> Option<()> {
        if running.pass.is_none() {
            let below = if random.percent(50) { i64::MAX } else { running.log.durable_end() - random.below(20).cast_signed() };
            let dirty_percent_min = [0, 50][usize::try_from(random.below(2)).unwrap_or(0)];
            let compaction = Compaction { dirty_percent_min, ..compaction(below, self.now_ms) };
            let pass = running.compactor.begin(compaction).ok()?;
            self.model.attempt(running.log.durable_end().min(below.max(0)), self.now_ms);
            running.pass = pass.map(|pass| (pass, self.now_ms));
        }
        for _ in 0..random.below(8) {
            let Some((pass, began_ms)) = &mut running.pass else { break };
            if let CompactionStep::Done(done) = running.compactor.step(pass).ok()? {
                // Without power nothing can be read, and a pass leaves what it can't read as it is.
                if self.disk.is_powered() {
                    self.model.completed(&done, *began_ms);
                }
                running.pass = None;
            }
        }
        Some(())
    }
}

fn replay(seed: u64) {
    let mut random = Random::new(seed);
    let segment_bytes = 300 + random.below(4_000);
    let mut life = Life {
        disk: prepared_disk(),
        config: config(segment_bytes, u32::try_from(random.below(600)).unwrap_or(0)),
        key_map_bytes: [24 * 4, 24 * 20, 1 << 20][usize::try_from(random.below(3)).unwrap_or(0)],
        keys: [3, 12, 60][usize::try_from(random.below(3)).unwrap_or(0)],
        model: Model::default(),
        now_ms: NOON_MS,
    };
    // There is a folder from the start.
    drop(open(&life.disk, life.config));
    for _ in 0..3 + random.below(6) {
        if random.percent(60) {
            life.disk.cut_power_after(random.below(400));
        }
        if let Some(mut running) = life.begin() {
            life.resume(&running.log);
            for _ in 0..random.below(120) {
                if life.act(&mut running, &mut random).is_none() && !life.disk.is_powered() {
                    break;
                }
            }
            if life.disk.is_powered() && random.percent(30) {
                let _ = running.log.close();
            }
        }
        life.disk.crash(random.next_u64());
    }
    // At last on a disk that works.
    let mut running = life.begin().expect("the log opens");
    life.resume(&running.log);
    running.log.roll().expect("rolls");
    if let Some(flush) = running.log.begin_flush() {
        running.log.end_flush(flush.run()).expect("flushes");
    }
    while let Some(mut pass) = running.compactor.begin(compaction(i64::MAX, life.now_ms)).expect("begins") {
        life.model.attempt(life.model.end(), life.now_ms);
        let (done, _) = crate::compacted::finish(&mut running.compactor, &mut pass).expect("compacts");
        life.model.completed(&done, life.now_ms);
        life.model.check(&running.log.reader());
    }
}

#[test]
fn after_any_life_the_latest_record_of_each_key_is_there_and_no_other() {
    seeds::replay_each(600, replay);
}

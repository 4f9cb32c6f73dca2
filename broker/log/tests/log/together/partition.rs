//! One log among others: what is done with it, and what is known of it.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use millpond_log::sim::{Operation, Random, SimDisk};
use millpond_log::{AppendTimes, Cursor, Damage, Disk, Flush, FlushedTo, Log, LogConfig, LogError, Now, Pools, RetentionLimits};
use millpond_protocol::batch::Batch;

use crate::compacted::{batch_of, random_rows};
use crate::crash::Known;
use crate::harness::{config, random_batch, stored};

use super::index;
use super::keyed::{Compacting, Keyed, random_codec};
use super::producers::{Answer, PRODUCERS, Producer, admit};

pub(super) struct Partition {
    pub(super) dir: PathBuf,
    config: LogConfig,
    limits: RetentionLimits,
    pub(super) known: Known,
    /// Of a compacted log.
    pub(super) keyed: Option<Keyed>,
    /// Offsets of batches with a flipped bit.
    pub(super) rotten: Vec<Range<i64>>,
    /// Whether bits may flip in it.
    pub(super) rots: bool,
    producers: Vec<Producer>,
    /// When the batches were appended, by their base offsets.
    appended_ms: BTreeMap<i64, i64>,
    /// The largest high watermark that the consumer was told.
    pub(super) high_watermark: i64,
    /// Where the consumer goes on.
    pub(super) position: i64,
    /// None while it could not be opened.
    pub(super) running: Option<Running>,
}

/// What there is of a log while it is open.
pub(super) struct Running {
    pub(super) log: Log,
    flush: Option<Flushing>,
    /// Those that wait for a flush.
    answers: Vec<Answer>,
    times: AppendTimes,
    pub(super) compacting: Compacting,
    /// Of one that reads everything as it comes.
    pub(super) cursor: Cursor,
}

enum Flushing {
    Begun(Flush),
    Ran(Result<FlushedTo, LogError>),
}

impl Partition {
    pub(super) fn new(number: u64, random: &mut Random) -> Partition {
        let segment_bytes = [1, 700, 1_500, 5_000, 100_000][index(random.below(5))];
        let is_keyed = random.percent(35);
        let limit = |random: &mut Random, max: u64| random.percent(40).then(|| random.below(max));
        let limits =
            RetentionLimits { retention_ms: limit(random, 30_000_000), retention_bytes: limit(random, 20_000).filter(|_| !is_keyed) };
        Partition {
            dir: PathBuf::from(format!("/data/readings-{number}")),
            config: LogConfig {
                // Sequences of days pass, and no producer is to be forgotten.
                producer_id_expiration_ms: 1 << 60,
                ..config(segment_bytes, u32::try_from(random.below(2_000)).expect("small"))
            },
            limits,
            known: Known::default(),
            keyed: is_keyed.then(|| Keyed::new(random)),
            rotten: Vec::new(),
            rots: random.percent(40),
            producers: (0..PRODUCERS).map(Producer::new).collect(),
            appended_ms: BTreeMap::new(),
            high_watermark: 0,
            position: 0,
            running: None,
        }
    }

    pub(super) fn open(&mut self, disk: &SimDisk, pools: &Pools, now: Now) {
        self.running = None;
        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        let opened = Log::open_in(Arc::clone(&shared), pools.clone(), &self.dir, self.config);
        // An opening can end well in the dark: what it does last can be left out.
        let Some((log, _)) = opened.ok().filter(|_| disk.is_powered()) else { return };
        disk.forget_failures(Operation::Read);
        self.known.settle(&log);
        assert!(log.durable_end() >= self.high_watermark, "the high watermark goes back from {}", self.high_watermark);
        if let Some(keyed) = &mut self.keyed {
            keyed.resume(&log);
        }
        self.producers.iter_mut().for_each(Producer::disconnect);
        self.running = Some(Running {
            flush: None,
            answers: Vec::new(),
            times: AppendTimes::new(shared, &self.dir, &log.reader().segments(), now.monotonic_ms),
            compacting: Compacting::new(&log, self.keyed.as_ref()),
            cursor: Cursor::new(log.log_start()),
            log,
        });
        self.check_contents();
    }

    pub(super) fn step(&mut self, disk: &SimDisk, now: Now, random: &mut Random) {
        if self.running.is_none() {
            return;
        }
        match random.below(20) {
            0..6 => self.produce(disk, now, random, true),
            6 | 7 => self.begin_flush(random),
            8..11 => self.go_on_flushing(random),
            11 => self.delete_some(random),
            12 => self.expire(now),
            13 => self.roll(),
            14 => drop(self.running.as_mut().is_some_and(|running| running.log.release_room())),
            _ if self.keyed.is_some() => self.compact(now, random),
            _ => self.produce(disk, now, random, true),
        }
    }

    /// Some producers send, and what is new is appended.
    fn produce(&mut self, disk: &SimDisk, now: Now, random: &mut Random, may_be_new: bool) {
        let Some(running) = self.running.as_mut().filter(|running| running.log.failure().is_none()) else { return };
        let (rotten, keys) = (&self.rotten, self.keyed.as_ref().map(Keyed::keys));
        let is_rotten = |base: i64| rotten.iter().any(|range| range.start == base);
        let senders = (&mut self.producers[..], &self.known);
        let (sequences, run) = admit(&mut running.log, senders, now, random, |random| new_batch(keys, random), is_rotten, may_be_new);
        let (end, before) = (running.log.log_end(), running.log.producers());
        let appended = if run.batches.is_empty() { Ok(end) } else { running.log.append(&run.batches, 3) };
        match appended {
            Ok(base_offset) => {
                assert_eq!(base_offset, end);
                running.log.settle_run(sequences);
                running.answers.extend(run.answers);
                self.note(end, &run.batches, now);
                self.known.appended = self.known.batches.len();
                self.known.check_producers(&self.running.as_ref().expect("it runs").log);
                self.answer(random);
            }
            Err(error) => {
                assert_eq!((running.log.log_end(), running.log.producers()), (end, before), "a failed append moves nothing");
                let is_taken_back =
                    matches!(error, LogError::Full { .. } | LogError::TooManyOpenFiles { .. }) && running.log.failure().is_none();
                self.producers.iter_mut().for_each(Producer::disconnect);
                // Taken back, durably: it must not come back. Otherwise some of it may be in the file.
                if !is_taken_back {
                    assert!(!disk.is_powered() || running.log.failure().is_some(), "{error}");
                    self.note(end, &run.batches, now);
                }
            }
        }
    }

    /// These batches are in the log from this offset on, or may be.
    fn note(&mut self, end: i64, batches: &[Batch], now: Now) {
        let stored = stored(end, 3, batches);
        self.appended_ms.extend(stored.iter().map(|stored| (stored.base, now.monotonic_ms)));
        self.known.batches.extend(stored);
        if let Some(keyed) = &mut self.keyed {
            keyed.append(batches);
        }
    }

    fn begin_flush(&mut self, random: &mut Random) {
        let running = self.running.as_mut().expect("it runs");
        let begun = if random.percent(30) { running.log.begin_flush_closed() } else { running.log.begin_flush() };
        running.flush = begun.map(Flushing::Begun).or(running.flush.take());
    }

    /// Runs the flush that was begun, or brings its outcome back. Appends may come in between.
    fn go_on_flushing(&mut self, random: &mut Random) {
        let running = self.running.as_mut().expect("it runs");
        let outcome = match running.flush.take() {
            Some(Flushing::Begun(flush)) => {
                let outcome = flush.run();
                if random.percent(30) {
                    running.flush = Some(Flushing::Ran(outcome));
                    return;
                }
                outcome
            }
            Some(Flushing::Ran(outcome)) => outcome,
            None => return,
        };
        self.end_flush(outcome, random);
    }

    fn end_flush(&mut self, outcome: Result<FlushedTo, LogError>, random: &mut Random) {
        let running = self.running.as_mut().expect("it runs");
        match running.log.end_flush(outcome) {
            Ok(durable_end) => {
                self.known.durable_to(durable_end);
                self.answer(random);
            }
            // Put off, for lack of a descriptor.
            Err(LogError::TooManyOpenFiles { .. }) => {}
            Err(error) => assert!(running.log.failure().is_some(), "{error}"),
        }
    }

    /// Gives the answers that speak of what is durable. Some of them are lost.
    fn answer(&mut self, random: &mut Random) {
        let running = self.running.as_mut().expect("it runs");
        let durable_end = running.log.durable_end();
        for answer in running.answers.extract_if(.., |answer| answer.next_offset() <= durable_end) {
            let producer = &mut self.producers[answer.producer()];
            if random.percent(15) {
                producer.disconnect();
            }
            producer.take(&answer);
        }
    }

    /// Deletes some of the oldest batches. Of a compacted log no more than what is durable, as the broker does; of others anything.
    fn delete_some(&mut self, random: &mut Random) {
        let log = &self.running.as_ref().expect("it runs").log;
        let end = if self.keyed.is_some() { log.durable_end() } else { log.log_end() };
        let part = if random.percent(20) { 1 } else { 4 };
        let before = log.log_start() + random.below((end - log.log_start()).unsigned_abs() / part + 1).cast_signed();
        self.delete(before);
    }

    fn delete(&mut self, before: i64) {
        let running = self.running.as_mut().expect("it runs");
        let Some(deletion) = running.log.begin_delete(before) else { return };
        self.known.start_asked = self.known.start_asked.max(before);
        let outcome = deletion.run();
        // Whatever became of it: what readers have seen stays.
        let start = running.log.log_start();
        assert!(start >= self.known.start, "the log start goes back to {start}");
        self.known.begins_at(start);
        if let Some(keyed) = &mut self.keyed {
            keyed.begins_at(start);
        }
        if let Ok(answered) = outcome {
            assert!(answered == start && start >= before, "{answered}, {start}, {before}");
        }
    }

    /// Lets the retention delete what it may.
    fn expire(&mut self, now: Now) {
        let running = self.running.as_mut().expect("it runs");
        let reader = running.log.reader();
        let mut expired = self.limits.expired(&running.times.observe(now, &reader.segments()), running.log.durable_end());
        if expired.roll {
            let _ = running.log.roll();
            expired = self.limits.expired(&running.times.observe(now, &reader.segments()), running.log.durable_end());
        }
        if let Some(before) = expired.delete_before {
            self.check_expired(before, now);
            self.delete(before);
        }
        let running = self.running.as_mut().expect("it runs");
        let _ = running.times.save(now);
    }

    /// What goes is old enough, or there is enough without it.
    fn check_expired(&self, before: i64, now: Now) {
        let mut behind: u64 = self.known.batches.iter().map(|stored| stored.bytes.len() as u64).sum();
        for stored in self.known.batches.iter().take_while(|stored| stored.next <= before) {
            behind -= stored.bytes.len() as u64;
            let age_ms = now.monotonic_ms.abs_diff(self.appended_ms[&stored.base]);
            let is_old = self.limits.retention_ms.is_some_and(|limit| age_ms > limit);
            let is_too_much = self.limits.retention_bytes.is_some_and(|limit| behind >= limit);
            assert!(is_old || is_too_much, "the batch at {} goes after {age_ms} ms, with {behind} bytes behind it", stored.base);
        }
    }

    fn roll(&mut self) {
        let running = self.running.as_mut().expect("it runs");
        let end = running.log.log_end();
        let _ = running.log.roll();
        assert_eq!(running.log.log_end(), end);
    }

    fn compact(&mut self, now: Now, random: &mut Random) {
        let (Some(running), Some(keyed)) = (&mut self.running, &mut self.keyed) else { return };
        let outcome = keyed.step(&running.log, &mut running.compacting, now, random);
        if let Err(LogError::Corrupt { offset, reason, .. }) = outcome
            && !matches!(reason, Damage::Unreadable(_))
        {
            assert!(!self.rotten.is_empty(), "damage at {offset} that nobody has done");
        }
    }

    /// Compacts what there is, on a disk that works.
    pub(super) fn compact_all(&mut self, now: Now) {
        let (Some(running), Some(keyed)) = (&mut self.running, &mut self.keyed) else { return };
        running.log.roll().expect("rolls");
        if let Some(flush) = running.log.begin_flush() {
            running.log.end_flush(flush.run()).expect("flushes");
        }
        keyed.compact_all(&mut running.compacting, now);
        self.known.durable = self.known.appended;
    }

    /// The producers send until they have all their answers, on a disk that works.
    pub(super) fn answer_all(&mut self, disk: &SimDisk, now: Now, random: &mut Random) {
        for rounds in 0.. {
            self.produce(disk, now, random, rounds == 0);
            let flush = self.running.as_mut().expect("it runs").log.begin_flush();
            if let Some(flush) = flush {
                self.end_flush(flush.run(), random);
            }
            if rounds > 0 && self.producers.iter().all(Producer::has_all_answers) {
                break;
            }
            assert!(rounds < 1_000, "the producers get on: {:?}", self.producers);
        }
    }

    /// The log is closed in order, or dropped. Says whether the power has to go: what the disk shows may not be what it holds, and nothing
    /// says so.
    pub(super) fn end(&mut self, disk: &SimDisk, closes: bool) -> bool {
        disk.forget_failures(Operation::Read);
        let is_noted = |partition: &Partition| disk.exists(&partition.dir.join("flush-failed")).unwrap_or(false);
        let Some(mut running) = self.running.take() else { return !is_noted(self) };
        if let Some(Flushing::Ran(outcome)) = running.flush.take() {
            match running.log.end_flush(outcome) {
                Ok(durable_end) => self.known.durable_to(durable_end),
                Err(error) => assert!(running.log.failure().is_some() || matches!(error, LogError::TooManyOpenFiles { .. })),
            }
        }
        let has_failed = running.log.failure().is_some();
        let outcome = if closes { running.log.close() } else { Ok(()) };
        if closes && outcome.is_ok() && !has_failed {
            self.known.durable = self.known.appended;
        }
        disk.forget_failures(Operation::Read);
        (has_failed || outcome.is_err()) && !is_noted(self)
    }
}

/// A batch as this log takes it.
fn new_batch(keys: Option<u64>, random: &mut Random) -> Batch {
    if let Some(keys) = keys {
        return batch_of(&random_rows(random, keys), random_codec(random));
    }
    // Up and down, so that no batch tells what the largest timestamp before it was.
    let clock = random.below(100_000).cast_signed();
    random_batch(random, clock)
}

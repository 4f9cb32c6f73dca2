//! A lane against a broker with everything going wrong, drawn from a seed. Whatever happens: each batch has one outcome, what is
//! acknowledged lies at its offset, nothing is stored twice, nothing is stored ahead of what was enqueued before it, nothing hangs.

#[path = "../../../tests/it/support/sequences.rs"]
mod sequences;

use super::*;
use millpond_protocol::{
    batch::{Batch, BatchBuilder, BatchHeader},
    compression::Codec,
    error::WireError,
    record::NewRecord,
};
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use sequences::{Sequences, Verdict};
use std::collections::{BTreeMap, BTreeSet};

/// As many as a broker remembers.
const IN_FLIGHT: usize = 5;

const BATCHES: u64 = 60;

/// Steps with faults, then without. Without, so many are far more than it takes to answer everything.
const STEPS: u32 = 600;

/// The answer to a batch.
type Reply = Result<i64, ErrorCode>;

/// A partition of a broker.
struct Partition {
    /// Number of the first record, and the header, of each batch. Their offsets are those of `sequences`.
    log: Vec<(u64, BatchHeader)>,
    /// After each batch of the log.
    sequences: Vec<Sequences<i64>>,
    end: i64,
}

impl Partition {
    fn known(&self) -> &Sequences<i64> {
        self.sequences.last().unwrap_or_else(|| unreachable!("there is one for the empty log"))
    }

    fn append(&mut self, bytes: &Bytes) -> Reply {
        let batch = Batch::parse(bytes.clone()).unwrap();
        batch.verify_crc().unwrap();
        match self.known().look_at(batch.header()) {
            Verdict::Again(offset) => Ok(offset),
            Verdict::Refuse(code) => Err(code),
            Verdict::Append => {
                let offset = self.end;
                let mut known = self.known().clone();
                known.appended(batch.header(), offset);
                self.sequences.push(known);
                self.log.push((first_record(bytes), BatchHeader { base_offset: offset, ..*batch.header() }));
                self.end += i64::from(batch.header().record_count);
                Ok(offset)
            }
        }
    }

    /// The power went before the newest batches were on disk. Gives the numbers of their first records.
    fn lose_newest(&mut self, batches: usize) -> Vec<u64> {
        let keep = self.log.len().saturating_sub(batches);
        self.sequences.truncate(keep + 1);
        let lost: Vec<_> = self.log.drain(keep..).collect();
        self.end = lost.first().map_or(self.end, |(_, header)| header.base_offset);
        lost.into_iter().map(|(first, _)| first).collect()
    }

    /// The producers were idle for longer than they are remembered.
    fn forget(&mut self) {
        let empty = vec![Sequences::new(); self.sequences.len()];
        self.sequences = empty;
    }

    fn stores(&self, first: u64) -> bool {
        self.log.iter().any(|(stored, _)| *stored == first)
    }
}

/// The number of a batch's first record is its timestamp.
fn first_record(bytes: &Bytes) -> u64 {
    BatchHeader::parse(bytes).unwrap().base_timestamp.cast_unsigned()
}

/// What became of a batch.
#[derive(Debug)]
enum Outcome {
    Stored(i64),
    Failed { maybe_stored: bool },
}

struct World {
    random: SmallRng,
    faults: bool,
    flight: Flight,
    retry: bool,
    start: Instant,
    now: u64,
    /// Whether there is a stream, and whether its newest batch is being written.
    open: bool,
    /// Batches on their way to the broker, and answers on their way back.
    there: VecDeque<Bytes>,
    back: VecDeque<Reply>,
    /// On streams that are lost: what the broker had got of them and gets round to later.
    late: VecDeque<Bytes>,
    partition: Partition,
    next_id: i64,
    batches: u64,
    records: u64,
    compressing: Option<Outgoing>,
    /// By number of the first record.
    outcomes: BTreeMap<u64, Outcome>,
    /// First records of batches that went with the power.
    powerless: Vec<u64>,
    trace: Vec<String>,
}

impl World {
    fn new(seed: u64) -> World {
        let mut random = SmallRng::seed_from_u64(seed);
        let (retry, next_id) = (random.random_ratio(3, 4), 1_000);
        let partition = Partition { log: Vec::new(), sequences: vec![Sequences::new()], end: 0 };
        World {
            random,
            faults: true,
            flight: Flight::default(),
            retry,
            start: Instant::now(),
            now: 0,
            open: false,
            there: VecDeque::new(),
            back: VecDeque::new(),
            late: VecDeque::new(),
            partition,
            next_id,
            batches: 0,
            records: 0,
            compressing: None,
            outcomes: BTreeMap::new(),
            powerless: Vec::new(),
            trace: Vec::new(),
        }
    }

    fn chance(&mut self, one_in: u32) -> bool {
        self.random.random_ratio(1, one_in)
    }

    fn fault(&mut self, one_in: u32) -> bool {
        self.faults && self.chance(one_in)
    }

    fn at(&self, time: u64) -> Instant {
        self.start + Duration::from_millis(time)
    }

    fn outcome(&mut self, batch: &Outgoing, outcome: Outcome) {
        let first = first_record(&batch.bytes);
        self.trace.push(format!("  {first}: {outcome:?}"));
        assert!(self.outcomes.insert(first, outcome).is_none(), "two outcomes for {first}");
    }

    fn fail(&mut self, batch: &Outgoing) {
        self.outcome(batch, Outcome::Failed { maybe_stored: batch.maybe_stored });
    }

    fn step(&mut self) {
        self.now += 1;
        match self.random.random_range(0..12) {
            0..4 => self.write(),
            4..7 => self.serve(),
            7..10 => self.read(),
            10 => self.finish_compressing(),
            _ => self.misfortune(),
        }
    }

    /// What the writer of a lane does next.
    fn write(&mut self) {
        if !self.open {
            self.next_id += 1;
            self.flight.opened(Some(self.next_id));
            // Near the ends, so that they are passed.
            if self.batches == 0 && self.chance(2) {
                let (epoch, sequence) =
                    (self.random.random_range(i16::MAX - 3..=i16::MAX), self.random.random_range(i32::MAX - 40..=i32::MAX));
                let empty = BatchHeader { producer_id: self.next_id, producer_epoch: epoch, ..header_of(0) };
                let before = BatchHeader { base_sequence: sequence.wrapping_sub(1) & i32::MAX, ..empty };
                self.partition.sequences[0].appended(&before, -1);
                self.flight.numbers = Some(Numbers { producer_id: self.next_id, epoch, sequence });
            }
            self.open = true;
        }
        self.flight.written();
        if self.flight.in_flight() >= IN_FLIGHT {
            return;
        }
        match self.flight.next() {
            Ready::Batch(batch) => {
                self.trace.push(format!("send {} {:?}", first_record(&batch.bytes), batch.numbers));
                self.there.push_back(batch.bytes.clone());
                let now = self.at(self.now);
                self.flight.send(batch, now);
            }
            Ready::Undecided(batches, _) => batches.iter().for_each(|batch| self.fail(batch)),
            Ready::Elsewhere => self.lose_stream("elsewhere", true),
            Ready::Fresh if self.batches < BATCHES && !self.flight.encoding => self.encode(),
            Ready::Fresh | Ready::Later => {}
        }
    }

    fn encode(&mut self) {
        let records = self.random.random_range(1..=3);
        let mut builder = BatchBuilder::new();
        for record in self.records..self.records + records {
            builder.push(&NewRecord { timestamp: record.cast_signed(), value: Some(b"x"), ..NewRecord::default() }).unwrap();
        }
        self.batches += 1;
        self.records += records;
        let (order, numbers) = self.flight.begin();
        if let Some(Numbers { producer_id, epoch, sequence }) = numbers {
            builder.set_producer(producer_id, epoch, sequence);
        }
        let (bytes, records) = (builder.finish(Codec::None).unwrap(), u32::try_from(records).unwrap());
        let (opened_at, pending) = (self.at(self.now), Arc::default());
        let batch = Outgoing { bytes, pending, records, charged: 0, order, numbers, opened_at, sent_at: None, maybe_stored: false };
        self.flight.encoding = true;
        self.compressing = Some(batch);
        if self.chance(2) {
            self.finish_compressing();
        }
    }

    fn finish_compressing(&mut self) {
        let Some(batch) = self.compressing.take() else { return };
        self.flight.encoding = false;
        if self.fault(30) {
            self.fail(&batch);
        } else {
            self.flight.encoded(batch);
        }
    }

    /// The broker takes a batch.
    fn serve(&mut self) {
        if !self.late.is_empty() && self.chance(3) {
            self.serve_late();
            return;
        }
        let Some(bytes) = self.there.pop_front() else { return };
        // The same batch, on the stream before, comes first.
        while self.late.iter().any(|late| first_record(late) == first_record(&bytes)) {
            self.serve_late();
        }
        let reply = if self.fault(8) {
            let codes =
                [ErrorCode::StorageFull, ErrorCode::Overloaded, ErrorCode::TimedOut, ErrorCode::GuestFailed, ErrorCode::BatchTooLarge];
            let code = codes[self.random.random_range(0..codes.len())];
            if code == ErrorCode::TimedOut && self.chance(2) {
                let _ = self.partition.append(&bytes);
            }
            Err(code)
        } else {
            self.partition.append(&bytes)
        };
        self.trace.push(format!("serve {} {reply:?}", first_record(&bytes)));
        self.back.push_back(reply);
    }

    fn serve_late(&mut self) {
        let Some(bytes) = self.late.pop_front() else { return };
        let reply = self.partition.append(&bytes);
        self.trace.push(format!("late {} {reply:?}", first_record(&bytes)));
    }

    /// An answer arrives.
    fn read(&mut self) {
        let Some(reply) = self.back.pop_front() else { return };
        match (self.flight.answered(), reply) {
            (Answered::Batch(batch), Ok(offset)) => {
                self.flight.stored(batch.order);
                self.outcome(&batch, Outcome::Stored(offset));
            }
            (Answered::Batch(batch), Err(code)) => {
                let is_lost_count = matches!(code, ErrorCode::InvalidProducerEpoch | ErrorCode::DuplicateSequence);
                assert!(!is_lost_count, "{code} for {:?}\n{}", batch.numbers, self.trace.join("\n"));
                let error = Error::Broker(WireError::new(code, ""));
                if let Refused::ForGood(batch) = self.flight.refused(batch, &error, self.retry) {
                    let maybe_stored = batch.maybe_stored || error.maybe_done();
                    self.outcome(&batch, Outcome::Failed { maybe_stored });
                }
            }
            (Answered::GivenUp { order }, Ok(_)) => self.flight.stored(order),
            (Answered::GivenUp { order }, Err(_)) => self.flight.gone(order),
            (Answered::Nothing, reply) => panic!("{reply:?} is an answer too many"),
        }
    }

    fn misfortune(&mut self) {
        match self.random.random_range(0..5) {
            0 if self.fault(2) => self.lose_stream("stream lost", true),
            1 if self.fault(3) => self.restart(),
            2 if self.fault(4) => self.forget(),
            3 if self.fault(2) => self.give_up(),
            4 if self.fault(20) => {
                for batch in self.flight.take_waiting() {
                    self.fail(&batch);
                }
            }
            _ => {}
        }
    }

    fn lose_stream(&mut self, why: &str, broker_goes_on: bool) {
        self.trace.push(why.to_owned());
        self.open = false;
        self.back.clear();
        if self.there.is_empty() {
            // The broker has taken all of it already.
            self.flight.written();
        }
        let whole = self.there.len() - usize::from(self.flight.writing);
        let got = if broker_goes_on { self.random.random_range(0..=whole) } else { 0 };
        self.late.extend(self.there.drain(..got));
        self.there.clear();
        let retry = self.retry;
        for batch in self.flight.lost(|batch| retry || !batch.maybe_stored) {
            self.outcome(&batch, Outcome::Failed { maybe_stored: true });
        }
    }

    fn restart(&mut self) {
        self.lose_stream("restart", false);
        self.late.clear();
        if self.chance(2) {
            let batches = self.random.random_range(0..8);
            let lost = self.partition.lose_newest(batches);
            self.trace.push(format!("power cut: {lost:?} lost"));
            self.powerless.extend(lost);
        }
    }

    /// Not while the first batch of an epoch is stored and comes again: that one nobody would recognise.
    fn forget(&mut self) {
        let comes_again = |first: &u64| !self.outcomes.contains_key(first) || self.there.iter().any(|bytes| first_record(bytes) == *first);
        let is_first = |(first, header): &(u64, BatchHeader)| header.base_sequence == 0 && comes_again(first);
        if self.late.is_empty() && !self.partition.log.iter().any(is_first) {
            self.trace.push("forget".to_owned());
            self.partition.forget();
        }
    }

    fn give_up(&mut self) {
        let age = self.random.random_range(0..60);
        let limit = self.at(self.now.saturating_sub(age));
        for batch in self.flight.take_older(limit) {
            self.fail(&batch);
        }
    }

    fn check(&self) {
        assert_eq!(self.outcomes.len() as u64, self.batches, "all have an outcome");
        // A new producer id, behind the last epoch, does not shut out what a lost stream still holds of a batch that was given up.
        let is_in_order = |which: &dyn Fn(&(u64, BatchHeader)) -> bool| {
            let stored: Vec<u64> = self.partition.log.iter().filter(|batch| which(batch)).map(|(first, _)| *first).collect();
            assert!(stored.is_sorted_by(|a, b| a < b), "stored out of order: {stored:?}");
        };
        is_in_order(&|(first, _)| matches!(self.outcomes[first], Outcome::Stored(_)));
        let ids: BTreeSet<i64> = self.partition.log.iter().map(|(_, header)| header.producer_id).collect();
        for id in ids {
            is_in_order(&|(_, header)| header.producer_id == id);
        }
        let stored: BTreeSet<u64> = self.partition.log.iter().map(|(first, _)| *first).collect();
        assert_eq!(stored.len(), self.partition.log.len(), "stored twice");
        for (first, outcome) in &self.outcomes {
            match outcome {
                _ if self.powerless.contains(first) => {}
                Outcome::Stored(offset) => {
                    let at = self.partition.log.iter().find(|(stored, _)| stored == first).map(|(_, header)| header.base_offset);
                    assert_eq!(at, Some(*offset), "{first} is where the answer says");
                }
                Outcome::Failed { maybe_stored: false } => assert!(!self.partition.stores(*first), "{first} is stored, and it was denied"),
                Outcome::Failed { maybe_stored: true } => {}
            }
        }
    }
}

fn header_of(records: i32) -> BatchHeader {
    let mut builder = BatchBuilder::new();
    builder.push(&NewRecord::default()).unwrap();
    BatchHeader { last_offset_delta: records, ..BatchHeader::parse(&builder.finish(Codec::None).unwrap()).unwrap() }
}

fn run(seed: u64) -> World {
    let mut world = World::new(seed);
    for step in 0.. {
        world.faults = step < STEPS;
        if !world.faults && world.outcomes.len() as u64 == BATCHES {
            break;
        }
        assert!(step < 20 * STEPS, "it hangs:\n{}\n{:?}", world.trace.join("\n"), world.flight);
        world.step();
    }
    world
}

#[test]
fn nothing_is_lost_doubled_or_reordered_whatever_goes_wrong() {
    let (mut stored, mut failed) = (0, 0);
    for seed in 0..SEEDS {
        // A panic names the seed behind it.
        let _seed = Named(seed);
        let world = run(seed);
        world.check();
        let (acknowledged, rest): (Vec<_>, Vec<_>) = world.outcomes.values().partition(|outcome| matches!(outcome, Outcome::Stored(_)));
        stored += acknowledged.len();
        failed += rest.len();
    }
    assert!(stored > failed, "{stored} batches were stored and {failed} were not: the faults hide what goes well");
}

const SEEDS: u64 = 5_000;

/// The seed that a panic is about.
struct Named(u64);

impl Drop for Named {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the seed was {}", self.0);
        }
    }
}

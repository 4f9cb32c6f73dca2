//! The state against a plain model: sequences that never wrap, everything that was ever stored, and the rules in words.

use std::collections::BTreeMap;

use millpond_protocol::batch::{Attributes, BatchHeader, MAGIC};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::*;
use crate::append_times::Now;

pub(super) const HEADER: BatchHeader = BatchHeader {
    base_offset: 0,
    batch_length: 49,
    partition_leader_epoch: 0,
    magic: MAGIC,
    crc: 0,
    attributes: Attributes(0),
    last_offset_delta: 0,
    base_timestamp: 0,
    max_timestamp: 0,
    producer_id: -1,
    producer_epoch: -1,
    base_sequence: -1,
    record_count: 1,
};

/// How many producers the logs of the model remember.
const MODEL_MAX: usize = 3;

const EXPIRATION_MS: i64 = 1_000;

/// A batch that is sent. Its first sequence is one behind the last of its producer, and so many more.
#[derive(Clone, Copy, Debug)]
struct Sent {
    producer_id: i64,
    epoch_more: i16,
    gap: i64,
    records: i64,
    crc: u32,
    part: Part,
    may_skip: bool,
}

/// A whole batch, or a part of one.
#[derive(Clone, Copy, Debug)]
enum Part {
    Whole,
    /// A module has made so many more offsets of it.
    Grown(i64),
    First,
    /// Behind the last one that is stored, and so many sequences more.
    Behind(i64),
    /// Wherever it comes.
    Any,
}

/// Batches that are appended together. If the append fails, nothing of them is there.
#[derive(Clone, Debug)]
struct Run {
    pause_ms: i64,
    sent: Vec<Sent>,
    fails: bool,
}

fn runs() -> impl Strategy<Value = Vec<Run>> {
    let gap = prop_oneof![6 => Just(0_i64), 1 => -40_i64..0, 2 => -6_i64..0, 1 => 1_i64..4];
    let part = prop_oneof![
        6 => Just(Part::Whole),
        2 => (1_i64..20).prop_map(Part::Grown),
        3 => Just(Part::First),
        2 => (-1_i64..2).prop_map(Part::Behind),
        2 => Just(Part::Any),
    ];
    let epoch_more = prop_oneof![12 => Just(0_i16), 1 => Just(1_i16), 1 => Just(-1_i16)];
    let records = prop_oneof![4 => Just(1_i64), 4 => 1_i64..6];
    let sent = (0..5_i64, epoch_more, gap, records, 0..2_u32, part, prop::bool::weighted(0.1)).prop_map(
        |(producer_id, epoch_more, gap, records, crc, part, may_skip)| Sent { producer_id, epoch_more, gap, records, crc, part, may_skip },
    );
    let run = (prop_oneof![8 => 0..50_i64, 1 => 900..1_100_i64], prop::collection::vec(sent, 1..7), prop::bool::weighted(0.15))
        .prop_map(|(pause_ms, sent, fails)| Run { pause_ms, sent, fails });
    prop::collection::vec(run, 1..60)
}

/// A producer of the model. Sequences are counted on and on.
#[derive(Clone, Debug)]
struct Known {
    epoch: i16,
    /// By their last sequences.
    stored: Vec<(i64, u32, Appended)>,
    used: u64,
    used_ms: i64,
}

#[derive(Clone, Debug, Default)]
struct Model {
    known: BTreeMap<i64, Known>,
    log_end: i64,
    uses: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome {
    Appended(i64),
    Repeated(Appended),
    Skipped,
    Refused(&'static str),
}

/// Where the sequences of a producer of the model begin, if it begins with a part: just before they wrap.
const START: i64 = (1 << 31) - 9;

impl Sent {
    /// The epoch, the first and the last sequence.
    fn place(&self, known: Option<&Known>) -> (i16, i64, i64) {
        let (epoch, last) = known.map_or((5, None), |known| (known.epoch, known.stored.last().map(|(last, ..)| *last)));
        let epoch = epoch + self.epoch_more;
        let base = match (last, self.epoch_more, self.part) {
            (Some(last), 0, _) => last + 1 + self.gap,
            (_, _, Part::Whole | Part::Grown(_)) => self.gap.max(0),
            (..) => START,
        };
        (epoch, base.max(0), (base + self.records - 1).max(0))
    }

    fn header(&self, epoch: i16, base: i64, last: i64) -> BatchHeader {
        let offsets = i32::try_from(last - base).expect("small");
        BatchHeader {
            producer_id: self.producer_id,
            producer_epoch: epoch,
            base_sequence: wrapped(base),
            last_offset_delta: offsets,
            record_count: offsets,
            crc: self.crc,
            ..HEADER
        }
    }
}

fn wrapped(sequence: i64) -> i32 {
    i32::try_from(sequence.rem_euclid(1 << 31)).expect("31 bits")
}

impl Model {
    /// What becomes of a batch, as a person would say it.
    fn send(&mut self, sent: &Sent, now_ms: i64) -> (BatchHeader, SequenceOrder, Outcome) {
        let known = self.known.get(&sent.producer_id);
        let (epoch, base, last) = sent.place(known);
        let newest = known.filter(|known| known.epoch == epoch).and_then(|known| known.stored.last()).map(|(last, ..)| *last);
        let (order, found) = match sent.part {
            Part::Whole => (SequenceOrder::Next, Some(base)),
            Part::Grown(_) => (SequenceOrder::NextFrom { base_sequence: wrapped(base) }, Some(base)),
            Part::First => (SequenceOrder::After { previous: None }, None),
            Part::Any => (SequenceOrder::Any, None),
            Part::Behind(more) => {
                let previous = newest.map_or(START, |last| (last + more).max(0));
                (SequenceOrder::After { previous: Some(wrapped(previous)) }, Some(previous + 1))
            }
        };
        let outcome = self.decide(sent, (epoch, last), newest, found);
        let more = if let Part::Grown(more) = sent.part { more } else { 0 };
        self.note(sent, (epoch, last), (last - base + more, now_ms), &outcome);
        (sent.header(epoch, base - more, last), order, outcome)
    }

    fn decide(&self, sent: &Sent, (epoch, last): (i16, i64), newest: Option<i64>, found: Option<i64>) -> Outcome {
        let known = self.known.get(&sent.producer_id);
        if matches!(sent.part, Part::Any) {
            let stored = known.filter(|known| known.epoch == epoch).map(|known| &known.stored[..]);
            let recent = stored.map(|stored| &stored[stored.len().saturating_sub(PRODUCER_BATCHES_MAX)..]);
            let same = recent.and_then(|recent| recent.iter().rev().find(|(other, crc, _)| (*other, *crc) == (last, sent.crc)));
            return match same {
                Some((_, _, appended)) => Outcome::Repeated(*appended),
                None if sent.may_skip && stored.is_some() => Outcome::Skipped,
                None => Outcome::Appended(self.log_end),
            };
        }
        let is_whole = matches!(sent.part, Part::Whole | Part::Grown(_));
        match known {
            None if is_whole && found != Some(0) => return Outcome::Refused("unknown"),
            Some(known) if epoch < known.epoch => return Outcome::Refused("epoch"),
            _ if newest.is_none() => {
                let begins = found.is_none() || (is_whole && found == Some(0));
                return if begins { Outcome::Appended(self.log_end) } else { Outcome::Refused("order") };
            }
            _ => {}
        }
        let (newest, stored) = (newest.unwrap_or(0), known.map(|known| &known.stored[..]).unwrap_or_default());
        let recent = &stored[stored.len().saturating_sub(PRODUCER_BATCHES_MAX)..];
        if let Some((_, crc, appended)) = recent.iter().rev().find(|(other, ..)| *other == last) {
            return if is_whole || *crc == sent.crc { Outcome::Repeated(*appended) } else { Outcome::Refused("duplicate") };
        }
        let follows = found == Some(newest + 1);
        match () {
            () if last <= newest => Outcome::Refused("duplicate"),
            () if !follows && found.is_some() => Outcome::Refused("order"),
            () if sent.may_skip => Outcome::Skipped,
            () => Outcome::Appended(self.log_end),
        }
    }

    fn note(&mut self, sent: &Sent, (epoch, last): (i16, i64), (delta, now_ms): (i64, i64), outcome: &Outcome) {
        let (base_offset, last_offset) = match outcome {
            Outcome::Refused(_) => return,
            Outcome::Repeated(_) => (None, None),
            Outcome::Skipped => (Some(-1), Some(-1)),
            Outcome::Appended(base) => (Some(*base), Some(base + delta)),
        };
        let fresh = Known { epoch, stored: Vec::new(), used: 0, used_ms: 0 };
        let known = self.known.entry(sent.producer_id).or_insert(fresh);
        (known.used, known.used_ms) = (self.uses, now_ms);
        self.uses += 1;
        if let (Some(base_offset), Some(last_offset)) = (base_offset, last_offset) {
            if known.epoch != epoch {
                (known.epoch, known.stored) = (epoch, Vec::new());
            }
            // One offset of each batch of the model has no record.
            known.stored.push((last, sent.crc, Appended { base_offset, last_offset, append_time_ms: now_ms, records_dropped: 1 }));
            self.log_end = self.log_end.max(last_offset + 1);
        }
    }

    /// Forgets those that were used longest ago.
    fn bound(&mut self) {
        while self.known.len() > MODEL_MAX {
            let oldest = *self.known.iter().min_by_key(|(_, known)| known.used).expect("there are some").0;
            self.known.remove(&oldest);
        }
    }

    fn states(&self) -> Vec<ProducerState> {
        let batch =
            |(last, crc, appended): &(i64, u32, Appended)| ProducerBatch { last_sequence: wrapped(*last), crc: *crc, appended: *appended };
        let state = |(producer_id, known): (&i64, &Known)| {
            let recent = &known.stored[known.stored.len().saturating_sub(PRODUCER_BATCHES_MAX)..];
            ProducerState { producer_id: *producer_id, epoch: known.epoch, batches: recent.iter().map(batch).collect() }
        };
        self.known.iter().map(state).collect()
    }
}

fn outcome_of(admitted: Result<Admission, SequenceError>) -> Outcome {
    match admitted {
        Ok(Admission::Append { base_offset }) => Outcome::Appended(base_offset),
        Ok(Admission::Repeated(appended)) => Outcome::Repeated(appended),
        Ok(Admission::Skip) => Outcome::Skipped,
        Err(SequenceError::OutOfOrder { .. }) => Outcome::Refused("order"),
        Err(SequenceError::OldEpoch { .. }) => Outcome::Refused("epoch"),
        Err(SequenceError::UnknownProducer { .. }) => Outcome::Refused("unknown"),
        Err(SequenceError::Duplicate { .. }) => Outcome::Refused("duplicate"),
        Err(SequenceError::InvalidProducer { .. }) => Outcome::Refused("invalid"),
    }
}

/// Runs against both, and says what came of every batch.
fn check(runs: &[Run]) -> Vec<Outcome> {
    let mut producers = Producers::bounded(ProducerPool::default(), MODEL_MAX, EXPIRATION_MS.unsigned_abs());
    let (mut model, mut now_ms, mut outcomes) = (Model::default(), 0, Vec::new());
    for Run { pause_ms, sent, fails } in runs {
        now_ms += pause_ms;
        model.known.retain(|_, known| now_ms - known.used_ms < EXPIRATION_MS);
        let before = (model.clone(), producers.states());
        let mut run = producers.begin_run(Now { wall_ms: now_ms, monotonic_ms: now_ms }, model.log_end);
        let mut appended = Vec::new();
        for sent in sent {
            let (header, order, expected) = model.send(sent, now_ms);
            let outcome = outcome_of(producers.admit(&mut run, &header, order, sent.may_skip));
            assert_eq!(outcome, expected, "{sent:?} is {header:?}, {order:?}, of {model:?}");
            if let Outcome::Appended(base_offset) = outcome {
                appended.push((header, base_offset));
            }
            outcomes.push(outcome);
        }
        if *fails {
            drop(run);
            model = before.0;
            assert!(producers.states().iter().all(|state| before.1.contains(state)), "a failed append changes nothing");
            continue;
        }
        // As the append does it.
        for (header, base_offset) in &appended {
            producers.observe(header, *base_offset);
        }
        producers.settle(run, model.log_end);
        model.bound();
        let mut states = producers.states();
        // One that has expired may still be there, and counts for nothing.
        states.retain(|state| model.known.contains_key(&state.producer_id));
        assert_eq!(states, model.states());
        assert!(producers.states().len() <= MODEL_MAX);
    }
    outcomes
}

#[test]
fn every_batch_is_answered_as_the_plain_model_does() {
    let seen = std::cell::RefCell::new(BTreeMap::<String, u32>::new());
    let config = ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() };
    let outcome = TestRunner::new(config).run(&runs(), |runs| {
        for outcome in check(&runs) {
            let kind = format!("{outcome:?}").split(['(', '{']).next().unwrap_or_default().to_owned();
            let kind = if let Outcome::Refused(reason) = outcome { reason.to_owned() } else { kind };
            *seen.borrow_mut().entry(kind).or_default() += 1;
        }
        Ok(())
    });
    outcome.unwrap_or_else(|failure| panic!("{failure}"));
    // The workload is one that meets every answer often.
    let seen = seen.into_inner();
    for kind in ["Appended", "Repeated", "Skipped", "order", "epoch", "unknown", "duplicate"] {
        assert!(seen.get(kind).is_some_and(|count| *count > 1_000), "{kind}: {seen:?}");
    }
}

#[test]
fn numbers_that_no_producer_has_are_refused_and_noted_nowhere() {
    let mut producers = Producers::bounded(ProducerPool::default(), MODEL_MAX, 1);
    let mut run = producers.begin_run(Now { wall_ms: 0, monotonic_ms: 0 }, 0);
    for (producer_id, producer_epoch, base_sequence) in [(-2, 0, 0), (i64::MIN, -1, -1), (5, -1, 0), (5, 0, -1), (5, -1, -1)] {
        let header = BatchHeader { producer_id, producer_epoch, base_sequence, ..HEADER };
        for order in [SequenceOrder::Next, SequenceOrder::After { previous: None }] {
            let refused = producers.admit(&mut run, &header, order, false).expect_err("no producer has that");
            assert!(matches!(refused, SequenceError::InvalidProducer { .. }), "{refused}");
        }
        producers.observe(&header, 0);
    }
    // Without an id there is nothing to follow on, any number of times.
    for base_offset in 0..3 {
        assert_eq!(producers.admit(&mut run, &HEADER, SequenceOrder::Next, false), Ok(Admission::Append { base_offset }));
    }
    assert_eq!(producers.admit(&mut run, &HEADER, SequenceOrder::Next, true), Ok(Admission::Skip));
    producers.settle(run, 3);
    assert_eq!(producers.states(), []);
}

#[test]
fn nothing_is_skipped_that_would_leave_no_trace_of_a_producer_or_an_epoch() {
    let mut producers = Producers::bounded(ProducerPool::default(), MODEL_MAX, 1_000);
    let mut run = producers.begin_run(Now { wall_ms: 9, monotonic_ms: 0 }, 0);
    let mut admit = |producer_epoch, base_sequence| {
        let header = BatchHeader { producer_id: 5, producer_epoch, base_sequence, record_count: 0, ..HEADER };
        producers.admit(&mut run, &header, SequenceOrder::Next, true).expect("it is the next one")
    };
    assert_eq!(admit(0, 0), Admission::Append { base_offset: 0 });
    assert_eq!(admit(0, 1), Admission::Skip);
    let skipped = Appended { base_offset: -1, last_offset: -1, append_time_ms: 9, records_dropped: 1 };
    assert_eq!(admit(0, 1), Admission::Repeated(skipped));
    assert_eq!(admit(1, 0), Admission::Append { base_offset: 1 });
    assert_eq!(admit(1, 1), Admission::Skip);
}

#[test]
fn a_run_that_was_not_appended_as_it_was_admitted_is_left_out() {
    let mut producers = Producers::bounded(ProducerPool::default(), MODEL_MAX, 1_000);
    let header = BatchHeader { producer_id: 5, producer_epoch: 0, base_sequence: 0, ..HEADER };
    for log_end in [0, 2] {
        let mut run = producers.begin_run(Now { wall_ms: 9, monotonic_ms: 0 }, 0);
        producers.admit(&mut run, &header, SequenceOrder::Next, false).expect("the first");
        producers.settle(run, log_end);
        assert_eq!(producers.states(), []);
    }
}

#[test]
fn a_pool_bounds_all_logs_together_and_leaves_none_without() {
    let pool = ProducerPool::new(10);
    let mut logs: Vec<_> = (0..4).map(|_| Producers::bounded(pool.clone(), 6, 1_000)).collect();
    let send = |log: &mut Producers, producer_id, offset| {
        let header = BatchHeader { producer_id, producer_epoch: 0, base_sequence: 0, ..HEADER };
        log.observe(&header, offset);
    };
    for round in 0..20 {
        for log in &mut logs {
            send(log, round, round);
            assert!(log.states().last().is_some_and(|newest| newest.producer_id == round), "the newest is there");
        }
        let held: usize = logs.iter().map(|log| log.states().len()).sum();
        assert_eq!(held, pool.producers());
        assert!(held <= pool.producers_max() + logs.len(), "{held} producers");
    }
    // What the first takes from now on it takes from itself.
    let others = |logs: &[Producers]| logs[1..].iter().map(Producers::states).collect::<Vec<_>>();
    let before = others(&logs);
    (20..40).for_each(|producer_id| send(&mut logs[0], producer_id, producer_id));
    assert_eq!(others(&logs), before);

    logs.truncate(1);
    assert_eq!(pool.producers(), logs[0].states().len(), "a log that is closed gives its own back");
    (40..60).for_each(|producer_id| send(&mut logs[0], producer_id, producer_id));
    assert_eq!(logs[0].states().iter().map(|state| state.producer_id).collect::<Vec<_>>(), (54..60).collect::<Vec<_>>());
    logs[0].expire(0);
    logs[0].expire(i64::MAX);
    assert_eq!((pool.producers(), logs[0].states().len()), (0, 0));
}

#[test]
fn two_producers_that_write_by_turns_are_both_remembered_though_others_have_filled_the_pool() {
    let pool = ProducerPool::new(10);
    let send = |log: &mut Producers, producer_id, sequence, offset| {
        let header = BatchHeader { producer_id, producer_epoch: 0, base_sequence: sequence, ..HEADER };
        log.observe(&header, offset);
    };
    let mut full = Producers::bounded(pool.clone(), 1_000, 1_000);
    (0..20).for_each(|producer_id| send(&mut full, producer_id, 0, producer_id));
    assert_eq!(pool.producers(), 16, "a log keeps so many, whatever the bound of the pool");
    let mut other = Producers::bounded(pool, 1_000, 1_000);
    for round in 0..10 {
        for producer_id in [100, 200] {
            send(&mut other, producer_id, round, i64::from(round));
        }
        assert_eq!(other.states().len(), 2, "round {round}");
    }
}

#[test]
fn a_producer_is_forgotten_after_its_time_and_never_before() {
    let mut producers = Producers::bounded(ProducerPool::default(), MODEL_MAX, 1_000);
    let first = BatchHeader { producer_id: 5, producer_epoch: 0, base_sequence: 0, ..HEADER };
    let second = BatchHeader { base_sequence: 1, ..first };
    // Without a clock, as by a recovery; its age begins with the first look, whatever that clock says.
    producers.observe(&first, 0);
    let now = |monotonic_ms| Now { wall_ms: 0, monotonic_ms };
    let at = |producers: &mut Producers, monotonic_ms| {
        let mut run = producers.begin_run(now(monotonic_ms), 1);
        producers.admit(&mut run, &second, SequenceOrder::Next, false)
    };
    for (monotonic_ms, is_known) in [(50_000, true), (50_999, true), (51_000, false), (51_001, false)] {
        assert_eq!(at(&mut producers, monotonic_ms).is_ok(), is_known, "at {monotonic_ms}");
    }
    // A repetition is a use as well.
    let mut run = producers.begin_run(now(50_999), 1);
    assert!(matches!(producers.admit(&mut run, &first, SequenceOrder::Next, false), Ok(Admission::Repeated(_))));
    producers.settle(run, 1);
    assert!(at(&mut producers, 51_998).is_ok());
    let unknown = SequenceError::UnknownProducer { producer_id: 5, epoch: 0, found: 1 };
    assert_eq!(at(&mut producers, 51_999), Err(unknown));
    assert_eq!(producers.states().len(), 1, "it is removed when somebody looks");
    producers.expire(200_000);
    assert_eq!(producers.states(), []);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_makes_the_parser_panic(text in "producers [0-9]{1,3}(\n[-0-9a-f: ]{0,60}){0,4}") {
        let _ = parse(&text);
    }
}

#[test]
fn the_brokers_own_producers_are_not_forgotten_for_others() {
    let send = |log: &mut Producers, producer_id, offset| {
        let header = BatchHeader { producer_id, producer_epoch: 0, base_sequence: 0, ..HEADER };
        log.observe(&header, offset);
    };
    let mut log = Producers::bounded(ProducerPool::new(1), 20, 1_000);
    let own = |number| BROKER_PRODUCER_ID_MIN + number;
    (0..3).for_each(|number| send(&mut log, own(number), number));
    (0..100).for_each(|producer_id| send(&mut log, producer_id, 3 + producer_id));
    let ids = |log: &Producers| log.states().iter().map(|state| state.producer_id).collect::<Vec<_>>();
    assert!((0..3).all(|number| ids(&log).contains(&own(number))) && ids(&log).contains(&99), "{:?}", ids(&log));
    // Alone they are bounded as all are.
    (3..50).for_each(|number| send(&mut log, own(number), 200 + number));
    assert_eq!(ids(&log), (30..50).map(own).collect::<Vec<_>>());
    log.expire(0);
    log.expire(i64::MAX);
    assert!(ids(&log).is_empty(), "one that is not used any more goes");
}

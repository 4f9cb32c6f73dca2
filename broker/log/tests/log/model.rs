//! Random operations, compared with a plain list of batches.

use millpond_log::LogConfig;
use millpond_log::sim::Random;
use millpond_protocol::batch::Batch;
use proptest::prelude::*;

use crate::harness::{Fixture, config, random_batch, stored};
use crate::numbers::{numbered, remembered, replayed};
use crate::time::check_find_time;

#[derive(Clone, Debug)]
pub(crate) enum Step {
    Append {
        seed: u64,
        batches: u64,
        clock: i64,
    },
    /// Where, in thousandths of the log.
    Read {
        from: i64,
        max_bytes: usize,
        end: i64,
    },
    FindTime {
        timestamp: i64,
        end: i64,
    },
    /// Up to where, in thousandths of the log.
    Delete(i64),
    Roll,
    Flush,
    Kill,
    Close,
}

/// Segments of one batch, of several, and of all of them.
pub(crate) fn any_config() -> impl Strategy<Value = LogConfig> {
    let segment_bytes = prop_oneof![Just(1_u64), 500..10_000_u64, Just(1 << 30)];
    (segment_bytes, 0..3_000_u32).prop_map(|(segment_bytes, index_interval_bytes)| config(segment_bytes, index_interval_bytes))
}

pub(crate) fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (any::<u64>(), 1..6_u64, 0..5_000_i64).prop_map(|(seed, batches, clock)| Step::Append { seed, batches, clock }),
        4 => (0..1_001_i64, prop_oneof![0..3_000_usize, Just(usize::MAX)], 0..1_100_i64)
            .prop_map(|(from, max_bytes, end)| Step::Read { from, max_bytes, end }),
        3 => (-200..5_200_i64, 0..1_100_i64).prop_map(|(timestamp, end)| Step::FindTime { timestamp, end }),
        1 => (0..1_001_i64).prop_map(Step::Delete),
        1 => Just(Step::Roll),
        1 => Just(Step::Flush),
        1 => Just(Step::Kill),
        1 => Just(Step::Close),
    ]
}

pub(crate) fn run(config: LogConfig, steps: Vec<Step>) {
    let mut fixture = Fixture::new(config);
    let mut all = Vec::new();
    for step in steps {
        let thousandths = |part: i64, fixture: &Fixture| fixture.end() * part / 1_000;
        match step {
            Step::Append { seed, batches, clock } => {
                let mut random = Random::new(seed);
                let mut numbered_batch = || {
                    let batch = random_batch(&mut random, clock);
                    numbered(&batch, random.below(4).cast_signed(), 0, i32::try_from(random.below(1 << 31)).expect("31 bits"))
                };
                let batches: Vec<_> = (0..batches).map(|_| numbered_batch()).collect();
                fixture.append(&batches);
                all.extend(stored(fixture.end() - offsets(&batches), 7, &batches));
            }
            Step::Read { from, max_bytes, end } => {
                let (from, end) = (thousandths(from, &fixture), thousandths(end, &fixture).min(fixture.end()));
                check_read(&fixture, from, max_bytes, end);
            }
            Step::FindTime { timestamp, end } => {
                check_find_time(&fixture.log.reader(), &fixture.model, timestamp, thousandths(end, &fixture));
            }
            Step::Delete(before) => fixture.delete_before(thousandths(before, &fixture)),
            Step::Roll => fixture.log.roll().expect("rolls"),
            Step::Flush => fixture.flush(),
            Step::Kill => {
                fixture.reopen();
                let is_whole = fixture.start == 0;
                assert!(!is_whole || remembered(&fixture.log) == replayed(&all), "what the batches say");
            }
            Step::Close => {
                let before = fixture.log.producers();
                fixture = fixture.close_and_reopen(1).0;
                assert_eq!(fixture.log.producers(), before);
            }
        }
    }
    fixture.check();
}

/// How many offsets they take.
fn offsets(batches: &[Batch]) -> i64 {
    batches.iter().map(|batch| i64::from(batch.header().last_offset_delta) + 1).sum()
}

fn check_read(fixture: &Fixture, from: i64, max_bytes: usize, end: i64) {
    let read = fixture.log.reader().read(from, max_bytes, end);
    if from > end || from < fixture.start {
        assert!(read.is_err());
        return;
    }
    let read = read.expect("reads");
    let mut wanted = fixture.model.iter().filter(|stored| stored.next > from).take_while(|stored| stored.next <= end);
    let mut rest = &read[..];
    // What comes is what should, in order; the first is there, and none that would go over the limit follows it.
    while !rest.is_empty() {
        let next = wanted.next().expect("no more than there should be");
        rest = rest.strip_prefix(&next.bytes[..]).expect("the batches in order");
    }
    assert!(!read.is_empty() || wanted.next().is_none(), "nothing came, and something should have");
    assert!(read.len() <= max_bytes || fixture.model.iter().any(|stored| read == stored.bytes), "more than asked for");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_log_does_as_a_plain_list_would(config in any_config(), steps in prop::collection::vec(step(), 1..40)) {
        run(config, steps);
    }
}

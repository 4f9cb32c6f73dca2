//! Bytes taken for operations on a log, which a plain list of batches does as well.
//!
//! ```text
//! 0          4           8
//! +----------+-----------+-----------+ ...
//! | settings | operation | operation |      each the seed from which one is drawn
//! +----------+-----------+-----------+ ...
//! ```
//!
//! The operations are those of the log's property test: one that is added there is fuzzed here. A seed for each of them lets the fuzzer
//! change, drop and repeat one without touching the others.

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::model::{any_config, run as run_steps, step};

/// Takes the bytes for settings and operations.
pub(crate) fn run(data: &[u8]) {
    let (seeds, _) = data.as_chunks();
    let Some((settings, operations)) = seeds.split_first() else { return };
    let step = step();
    let steps = operations.iter().take(OPERATIONS_MAX).map(|seed| drawn(&step, *seed)).collect();
    run_steps(drawn(&any_config(), *settings), steps);
}

fn drawn<T>(strategy: &impl Strategy<Value = T>, seed: [u8; 4]) -> T {
    let mut key = [0; 32];
    key[..4].copy_from_slice(&seed);
    let mut runner = TestRunner::new_with_rng(Config::default(), TestRng::from_seed(RngAlgorithm::ChaCha, &key));
    strategy.new_tree(&mut runner).expect("nothing is filtered out").current()
}

const OPERATIONS_MAX: usize = 100;

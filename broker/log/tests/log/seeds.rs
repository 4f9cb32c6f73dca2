//! Seeds of random workloads: how many, from which on, and which one has failed.
//!
//! | variable | says |
//! |---|---|
//! | `MILLPOND_CRASH_SEEDS` | how many seeds each test replays, in the place of its own number |
//! | `MILLPOND_CRASH_FROM` | the first of them, in the place of 0 |
//! | `MILLPOND_CRASH_SEED` | the one seed to replay |
//!
//! `make soak SEEDS=100000` and `make soak SEED=14307` set them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

/// Replays so many seeds, spread over the cores. Stops at the first that fails, and says how to replay it alone.
pub(crate) fn replay_each(default_seeds: u64, replay: impl Fn(u64) + Sync) {
    replay_some(default_seeds, 1, replay);
}

/// As [`replay_each`], for what takes so many times as long: of the seeds that are asked for, one in `cost` is replayed.
pub(crate) fn replay_some(default_seeds: u64, cost: u64, replay: impl Fn(u64) + Sync) {
    if let Some(seed) = variable("MILLPOND_CRASH_SEED") {
        return replay(seed);
    }
    let asked = variable("MILLPOND_CRASH_SEEDS").map(|seeds| seeds.div_ceil(cost));
    let (from, seeds) = (variable("MILLPOND_CRASH_FROM").unwrap_or(0), asked.unwrap_or(default_seeds));
    let (next, failed, began) = (AtomicU64::new(0), AtomicBool::new(false), Instant::now());
    let test = thread::current().name().unwrap_or("the test").to_owned();
    let worker = || {
        while !failed.load(Ordering::Relaxed) {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= seeds {
                break;
            }
            if asked.is_some() && number > 0 && number.is_multiple_of(SEEDS_BETWEEN_WORDS.div_ceil(cost)) {
                eprintln!("{test}: {number} of {seeds} seeds in {} s", began.elapsed().as_secs());
            }
            let seed = from + number;
            if catch_unwind(AssertUnwindSafe(|| replay(seed))).is_err() {
                failed.store(true, Ordering::Relaxed);
                eprintln!("{test}: seed {seed} fails; `make soak SEED={seed}` replays it");
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(worker);
        }
    });
    assert!(!failed.into_inner(), "a seed fails");
    if asked.is_some() {
        eprintln!("{test}: {seeds} seeds from {from} on in {:.1} s", began.elapsed().as_secs_f64());
    }
}

fn variable(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok().filter(|value| !value.is_empty())?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name} is a number, not `{value}`")))
}

/// How often a long run says how far it is.
const SEEDS_BETWEEN_WORDS: u64 = 10_000;

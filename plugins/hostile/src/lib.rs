//! Misbehaves as it is told to, so that tests can see that the broker comes to no harm.
//!
//! | `mode` | what it does with a batch |
//! |---|---|
//! | `none`, the default | keeps it |
//! | `loop` | never returns |
//! | `recurse` | calls itself until the stack ends |
//! | `grow` | takes memory until there is none |
//! | `trap` | panics |
//! | `garbage` | returns bytes that are no records |
//! | `huge-output` | returns 12 MiB |
//! | `flood` | writes ten thousand lines to the log and keeps the batch |
//! | `fail` | returns an error for the second record |
//! | `leak` | keeps the batch, and 256 KiB more of memory with each |
//! | `later` | keeps `after` batches, 10,000 if nothing else is said, and panics at the next |
//! | `lie-offset`, `lie-order`, `lie-time`, `lie-length`, `lie-headers` | returns one record, or two, that lie: see `lies.rs` |
//! | `swell` | returns an error for several records, and for one of them alone a record of 7 MiB |
//! | `refuse` | refuses to start |
//!
//! With `only` set, a batch is treated like this only if one of its values has this text in it; other batches are kept.

mod lies;

use std::cell::RefCell;
use std::hint::black_box;

use millpond_guest::raw::transform::Guest;
use millpond_guest::{Batch, Failure, log};

/// The export of the world `transform`, without records: some of this can't be done with them.
pub struct Hostile;

impl Guest for Hostile {
    fn init(params: Vec<(String, String)>) -> Result<(), String> {
        let setting = |name: &str| params.iter().find(|(found, _)| found == name).map(|(_, value)| value.clone());
        let mode = setting("mode").unwrap_or_default();
        std::panic::set_hook(Box::new(|panic| log::error(&panic.to_string())));
        match mode.as_str() {
            "refuse" => return Err("told to refuse".to_owned()),
            mode if mode.is_empty() || MODES.contains(&mode) => {}
            other => return Err(format!("there is no mode `{other}`")),
        }
        let after = match setting("after") {
            Some(after) => after.parse().map_err(|error| format!("`after` can't be `{after}`: {error}"))?,
            None => AFTER_DEFAULT,
        };
        STATE.set(State { mode, only: setting("only").unwrap_or_default(), after, batches: 0, hoard: Vec::new() });
        Ok(())
    }

    fn transform(batch: Batch, records: Vec<u8>) -> Result<Vec<u8>, Failure> {
        STATE.with_borrow_mut(|state| {
            let only = state.only.as_bytes();
            if !only.is_empty() && !records.windows(only.len()).any(|window| window == only) {
                return Ok(records);
            }
            state.misbehave(records, batch.record_count)
        })
    }
}

/// What an instance remembers.
#[derive(Default)]
struct State {
    mode: String,
    only: String,
    after: u64,
    batches: u64,
    hoard: Vec<Vec<u8>>,
}

impl State {
    fn misbehave(&mut self, records: Vec<u8>, record_count: u32) -> Result<Vec<u8>, Failure> {
        self.batches += 1;
        match self.mode.as_str() {
            "loop" => loop {
                black_box(());
            },
            "recurse" => Ok(vec![deeper(1)]),
            "grow" => grow(),
            "trap" => panic!("told to panic"),
            "garbage" => Ok(vec![0xee; 1000]),
            "huge-output" => Ok(vec![0; 12 * 1024 * 1024]),
            "flood" => {
                for line in 0..10_000 {
                    log::warn(&format!("line {line} of a flood"));
                }
                Ok(records)
            }
            "fail" => Err(Failure { message: "told to fail".to_owned(), record_index: Some(1) }),
            "leak" => {
                self.hoard.push(black_box(vec![1; LEAK_BYTES]));
                Ok(records)
            }
            "later" if self.batches > self.after => panic!("told to panic after {} batches", self.after),
            "swell" if record_count > 1 => Err(Failure { message: "told to look for one".to_owned(), record_index: None }),
            "swell" => Ok(lies::swollen()),
            mode => Ok(lies::told(mode).unwrap_or(records)),
        }
    }
}

#[expect(unconditional_recursion, reason = "this is the point")]
fn deeper(depth: u8) -> u8 {
    // The addition keeps this from being made a loop.
    black_box(deeper(black_box(depth))).wrapping_add(1)
}

fn grow() -> ! {
    let mut hoard = Vec::new();
    loop {
        hoard.push(black_box(vec![1_u8; 1024 * 1024]));
    }
}

std::thread_local! {
    static STATE: RefCell<State> = RefCell::default();
}

/// The modes that start.
const MODES: [&str; 17] = [
    "none",
    "loop",
    "recurse",
    "grow",
    "trap",
    "garbage",
    "huge-output",
    "flood",
    "fail",
    "leak",
    "later",
    "swell",
    "lie-offset",
    "lie-order",
    "lie-time",
    "lie-length",
    "lie-headers",
];

/// What `leak` keeps of each batch.
const LEAK_BYTES: usize = 256 * 1024;

/// How many batches `later` keeps.
const AFTER_DEFAULT: u64 = 10_000;

#[cfg(target_arch = "wasm32")]
millpond_guest::raw::transform::export_transform!(Hostile with_types_in millpond_guest::raw::transform);

#[cfg(test)]
mod tests {
    use super::{Guest, Hostile, State};
    use millpond_guest::Batch;
    use millpond_guest::testing::{self, records, take_log};

    fn batch() -> Batch {
        Batch { topic: "test".to_owned(), partition: Some(0), base_timestamp: 0, record_count: 2 }
    }

    fn state(mode: &str) -> State {
        State { mode: mode.to_owned(), after: 3, ..State::default() }
    }

    #[test]
    fn an_unknown_mode_and_the_mode_refuse_do_not_start() {
        let init = |mode: &str| Hostile::init(vec![("mode".to_owned(), mode.to_owned())]);
        assert_eq!(init("refuse"), Err("told to refuse".to_owned()));
        assert_eq!(init("lop"), Err("there is no mode `lop`".to_owned()));
        assert_eq!(init("none"), Ok(()));
    }

    #[test]
    fn batches_that_do_not_concern_it_are_kept() {
        Hostile::init(vec![("mode".to_owned(), "garbage".to_owned()), ("only".to_owned(), "poison".to_owned())]).expect("it starts");
        let good = testing::Batch::of_values(["one", "two"]).section();
        assert_eq!(Hostile::transform(batch(), good.clone()).expect("no error"), good);
        let bad = testing::Batch::of_values(["one", "poison"]).section();
        let garbage = Hostile::transform(batch(), bad).expect("no error");
        assert!(records(&garbage).is_err());
    }

    #[test]
    fn the_milder_modes_do_what_they_say() {
        assert_eq!(state("huge-output").misbehave(vec![], 1).expect("no error").len(), 12 * 1024 * 1024);
        assert_eq!(state("fail").misbehave(vec![], 1).expect_err("an error").record_index, Some(1));
        take_log();
        assert_eq!(state("flood").misbehave(vec![7], 1).expect("no error"), [7]);
        assert_eq!(take_log().len(), 10_000);
        assert!(state("swell").misbehave(vec![7], 2).is_err());
        let swollen = state("swell").misbehave(vec![7], 1).expect("no error");
        assert_eq!(records(&swollen).expect("it is a record").len(), 1);
        assert!(swollen.len() > 7 << 20);
        let mut leak = state("leak");
        for batches in 1..4 {
            assert_eq!(leak.misbehave(vec![7], 1).expect("no error"), [7]);
            assert_eq!(leak.hoard.len(), batches);
        }
        let mut later = state("later");
        for _ in 0..3 {
            assert_eq!(later.misbehave(vec![7], 1).expect("no error"), [7]);
        }
        assert!(std::panic::catch_unwind(move || later.misbehave(vec![7], 1)).is_err());
    }

    #[test]
    fn a_lie_is_not_what_came_and_is_the_same_each_time() {
        for mode in super::MODES.iter().filter(|mode| mode.starts_with("lie-")) {
            let told = state(mode).misbehave(vec![7], 1).expect("no error");
            assert_ne!(told, [7], "{mode}");
            assert_eq!(state(mode).misbehave(vec![], 1).expect("no error"), told, "{mode}");
        }
    }
}

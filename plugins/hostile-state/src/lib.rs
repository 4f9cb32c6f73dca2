//! Does to its state what it is told to, so that tests can see that the broker comes to no harm. A transform that keeps state, so it runs on
//! derived topics.
//!
//! | `mode` | what it does with a batch |
//! |---|---|
//! | `none`, the default | keeps it |
//! | `fill` | puts values of 4 KiB under new keys until that is refused |
//! | `tiny` | the same with keys of eight bytes and nothing under them |
//! | `long-key` | puts a key of 1 MiB |
//! | `large-value` | puts a value of 7 MiB |
//! | `huge-value` | puts a value of 12 MiB, more than may cross at once |
//! | `churn` | puts a value of 64 KiB and deletes it, for ever |
//! | `overwrite` | puts values of 64 KiB under one key until that is refused |
//! | `scan` | reads all entries, for ever |
//! | `sweep` | puts a thousand entries and deletes all that there are |
//!
//! A put that is refused is no failure here: it keeps the batch all the same. With `only` set, other batches than those in which a value has
//! this text in it are kept.

use std::cell::RefCell;
use std::hint::black_box;

use millpond_guest::raw::transform::Guest;
use millpond_guest::{Batch, Failure, state};

/// The export of the world `transform`, without records.
pub struct HostileState;

impl Guest for HostileState {
    fn init(params: Vec<(String, String)>) -> Result<(), String> {
        let setting = |name: &str| params.iter().find(|(found, _)| found == name).map(|(_, value)| value.clone()).unwrap_or_default();
        let (mode, only) = (setting("mode"), setting("only"));
        if !mode.is_empty() && !MODES.contains(&mode.as_str()) {
            return Err(format!("there is no mode `{mode}`"));
        }
        SETTINGS.set(Settings { mode, only });
        Ok(())
    }

    fn transform(_batch: Batch, records: Vec<u8>) -> Result<Vec<u8>, Failure> {
        SETTINGS.with_borrow(|settings| {
            let only = settings.only.as_bytes();
            if only.is_empty() || records.windows(only.len()).any(|window| window == only) {
                misbehave(&settings.mode);
            }
        });
        Ok(records)
    }
}

#[derive(Default)]
struct Settings {
    mode: String,
    only: String,
}

fn misbehave(mode: &str) {
    match mode {
        "fill" => fill(&[1; 4096]),
        "tiny" => fill(&[]),
        "long-key" => drop(black_box(state::put(&vec![1; 1 << 20], b"x"))),
        "large-value" => drop(black_box(state::put(b"large", &vec![1; 7 << 20]))),
        "huge-value" => drop(black_box(state::put(b"huge", &vec![1; 12 << 20]))),
        "churn" => churn(),
        "overwrite" => {
            let value = vec![1; LARGE_BYTES];
            while state::put(b"again", &value).is_ok() {}
        }
        "scan" => loop {
            black_box(state::entries(b"").count());
        },
        "sweep" => sweep(),
        _ => {}
    }
}

fn churn() -> ! {
    let value = vec![1; LARGE_BYTES];
    loop {
        let _ = black_box(state::put(b"churn", &value));
        state::delete(b"churn");
    }
}

/// Goes on behind the last key that is there.
fn fill(value: &[u8]) {
    let mut next = state::get_u64(NEXT);
    while state::put(&next.to_be_bytes(), value).is_ok() {
        next += 1;
    }
    // It has its room from the first batch on, or never.
    let _ = state::put_u64(NEXT, next);
}

fn sweep() {
    for number in 0..1000_u64 {
        let _ = state::put(&number.to_be_bytes(), &[1; 512]);
    }
    for (key, _) in state::entries(b"") {
        state::delete(&key);
    }
}

std::thread_local! {
    static SETTINGS: RefCell<Settings> = RefCell::default();
}

/// The modes that there are.
const MODES: [&str; 10] = ["none", "fill", "tiny", "long-key", "large-value", "huge-value", "churn", "overwrite", "scan", "sweep"];

/// Of a value that is put again and again.
const LARGE_BYTES: usize = 64 << 10;

/// Behind all numbers.
const NEXT: &[u8] = b"\xffnext";

#[cfg(target_arch = "wasm32")]
millpond_guest::raw::transform::export_transform!(HostileState with_types_in millpond_guest::raw::transform);

#[cfg(test)]
mod tests {
    use super::{Guest, HostileState};
    use millpond_guest::{Batch, state, testing};

    fn run(mode: &str) {
        HostileState::init(vec![("mode".to_owned(), mode.to_owned())]).expect("it starts");
        let records = testing::Batch::of_values(["a"]).section();
        let batch = Batch { topic: "t".to_owned(), partition: Some(0), base_timestamp: 0, record_count: 1 };
        assert_eq!(HostileState::transform(batch, records.clone()).expect("no error"), records, "{mode}");
    }

    #[test]
    fn the_modes_that_end_keep_the_batch_and_leave_the_state_as_full_as_it_may_be() {
        testing::grant_state(100_000);
        for mode in ["none", "long-key", "large-value"] {
            run(mode);
            assert_eq!(state::entries(b"").count(), 0, "{mode}");
        }
        run("fill");
        assert_eq!(state::entries(b"").count(), 24);
        run("sweep");
        assert_eq!(state::entries(b"").count(), 0);
        run("tiny");
        let tiny = state::entries(b"").count();
        run("tiny");
        assert_eq!((tiny, state::entries(b"").count()), (1388, 1388));
    }

    #[test]
    fn an_unknown_mode_does_not_start() {
        let error = HostileState::init(vec![("mode".to_owned(), "fil".to_owned())]).expect_err("there is none");
        assert_eq!(error, "there is no mode `fil`");
    }
}

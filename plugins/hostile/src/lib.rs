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
//! | `refuse` | refuses to start |
//!
//! With `only` set, a batch is treated like this only if one of its values has this text in it; other batches are kept.

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
            "" | "none" | "loop" | "recurse" | "grow" | "trap" | "garbage" | "huge-output" | "flood" | "fail" => {}
            other => return Err(format!("there is no mode `{other}`")),
        }
        SETTINGS.set((mode, setting("only").unwrap_or_default()));
        Ok(())
    }

    fn transform(_batch: Batch, records: Vec<u8>) -> Result<Vec<u8>, Failure> {
        let (mode, only) = SETTINGS.with_borrow(Clone::clone);
        if !only.is_empty() && !records.windows(only.len()).any(|window| window == only.as_bytes()) {
            return Ok(records);
        }
        misbehave(&mode, records)
    }
}

fn misbehave(mode: &str, records: Vec<u8>) -> Result<Vec<u8>, Failure> {
    match mode {
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
        _ => Ok(records),
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
    static SETTINGS: std::cell::RefCell<(String, String)> = const { std::cell::RefCell::new((String::new(), String::new())) };
}

#[cfg(target_arch = "wasm32")]
millpond_guest::raw::transform::export_transform!(Hostile with_types_in millpond_guest::raw::transform);

#[cfg(test)]
mod tests {
    use super::{Guest, Hostile, misbehave};
    use millpond_guest::Batch;
    use millpond_guest::testing::{self, records, take_log};

    fn batch() -> Batch {
        Batch { topic: "test".to_owned(), partition: Some(0), base_timestamp: 0, record_count: 2 }
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
        assert_eq!(misbehave("huge-output", vec![]).expect("no error").len(), 12 * 1024 * 1024);
        assert_eq!(misbehave("fail", vec![]).expect_err("an error").record_index, Some(1));
        take_log();
        assert_eq!(misbehave("flood", vec![7]).expect("no error"), [7]);
        assert_eq!(take_log().len(), 10_000);
    }
}

//! A partitioner that misbehaves as it is told to, so that tests can see that the broker comes to no harm.
//!
//! | `mode` | what it does with a batch |
//! |---|---|
//! | `none`, the default | places all records in partition 0 |
//! | `loop` | never returns |
//! | `grow` | takes memory until there is none |
//! | `trap` | panics |
//! | `outside` | names a partition that there is not |
//! | `few` | places all records but one |
//! | `many` | places a million records |
//! | `huge-output` | places three million, more than may cross at once |
//! | `fail` | returns an error for the second record |
//!
//! With `only` set, batches without this text in one of their values are placed in partition 0.

use std::cell::RefCell;
use std::hint::black_box;

use millpond_guest::raw::partitioner::Guest;
use millpond_guest::{Batch, Failure};

/// The export of the world `partitioner`, without records: some of this can't be done with them.
pub struct HostilePartitioner;

impl Guest for HostilePartitioner {
    fn init(params: Vec<(String, String)>) -> Result<(), String> {
        let setting = |name: &str| params.iter().find(|(found, _)| found == name).map(|(_, value)| value.clone()).unwrap_or_default();
        let (mode, only) = (setting("mode"), setting("only"));
        if !mode.is_empty() && !MODES.contains(&mode.as_str()) {
            return Err(format!("there is no mode `{mode}`"));
        }
        SETTINGS.set(Settings { mode, only });
        Ok(())
    }

    fn partition(batch: Batch, records: Vec<u8>, partition_count: u32) -> Result<Vec<u32>, Failure> {
        let count = batch.record_count as usize;
        SETTINGS.with_borrow(|settings| {
            let only = settings.only.as_bytes();
            if !only.is_empty() && !records.windows(only.len()).any(|window| window == only) {
                return Ok(vec![0; count]);
            }
            misplace(&settings.mode, count, partition_count)
        })
    }
}

#[derive(Default)]
struct Settings {
    mode: String,
    only: String,
}

fn misplace(mode: &str, count: usize, partition_count: u32) -> Result<Vec<u32>, Failure> {
    match mode {
        "loop" => loop {
            black_box(());
        },
        "grow" => grow(),
        "trap" => panic!("told to panic"),
        "outside" => Ok(vec![partition_count; count]),
        "few" => Ok(vec![0; count.saturating_sub(1)]),
        "many" => Ok(vec![0; 1_000_000]),
        "huge-output" => Ok(vec![0; 3_000_000]),
        "fail" => Err(Failure { message: "told to fail".to_owned(), record_index: Some(1) }),
        _ => Ok(vec![0; count]),
    }
}

fn grow() -> ! {
    let mut hoard = Vec::new();
    loop {
        hoard.push(black_box(vec![1_u8; 1024 * 1024]));
    }
}

std::thread_local! {
    static SETTINGS: RefCell<Settings> = RefCell::default();
}

/// The modes that there are.
const MODES: [&str; 9] = ["none", "loop", "grow", "trap", "outside", "few", "many", "huge-output", "fail"];

#[cfg(target_arch = "wasm32")]
millpond_guest::raw::partitioner::export_partitioner!(HostilePartitioner with_types_in millpond_guest::raw::partitioner);

#[cfg(test)]
mod tests {
    use super::{Guest, HostilePartitioner};
    use millpond_guest::{Batch, Failure, testing};

    fn run(mode: &str, value: &str) -> Result<Vec<u32>, Failure> {
        let params = [("mode", mode), ("only", "poison")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        HostilePartitioner::init(params.to_vec()).expect("it starts");
        let records = testing::Batch::of_values(["a", value]).section();
        let batch = Batch { topic: "t".to_owned(), partition: None, base_timestamp: 0, record_count: 2 };
        HostilePartitioner::partition(batch, records, 4)
    }

    #[test]
    fn the_modes_that_end_do_what_they_say_to_a_batch_that_concerns_them() {
        let count = |mode| run(mode, "poison").expect("no error").len();
        assert_eq!((count("few"), count("many"), count("huge-output")), (1, 1_000_000, 3_000_000));
        assert_eq!(run("outside", "poison").expect("no error"), [4, 4]);
        assert_eq!(run("fail", "poison").expect_err("an error").record_index, Some(1));
        for mode in ["none", "few", "fail", "trap"] {
            assert_eq!(run(mode, "good").expect("no error"), [0, 0], "{mode}");
        }
    }
}

//! What a guest gets that asks for a clock, a file or a random number: in each language an answer, and never the thing.

use crate::{NoCache, encoded, wasm};
use millpond_plugin::{Derive, Limits, Partitioner, PluginError, PluginHost, SourceBatch, Target};
use millpond_protocol::record;
use std::sync::Arc;

/// What is asked for, and what comes of it: the partition of 1000, or a text in the error.
type Asked = (&'static str, Result<u32, &'static str>);

const NO_CLOCK: &str = "a module has no clock: the same records must give the same answer";
const NO_RANDOM: &str = "a module has no random numbers: the same records must give the same answer";
const NO_PARTITION: &str = "there is no partition 1000 among 1000";

#[test]
fn python() {
    answers(
        "probe-python",
        &[
            ("four", Ok(4)),
            ("time", Err(NO_CLOCK)),
            ("random", Err(NO_RANDOM)),
            ("file", Err("a module has no files")),
            ("import", Err("`csv` was not loaded when the module was built: import it at the top of a file")),
            ("range", Err(NO_PARTITION)),
            ("mistake", Err("AttributeError: 'Record' object has no attribute 'none'")),
        ],
    );
}

#[test]
fn javascript() {
    answers(
        "probe-js",
        &[
            ("four", Ok(4)),
            ("time", Err(NO_CLOCK)),
            ("date", Err(NO_CLOCK)),
            ("random", Err(NO_RANDOM)),
            ("range", Err(NO_PARTITION)),
            ("mistake", Err("TypeError: not a function")),
        ],
    );
}

#[test]
fn c() {
    answers(
        "probe-c",
        &[
            ("four", Ok(4)),
            ("print", Ok(5)),
            ("time", Ok(4)),
            ("file", Ok(4)),
            ("variable", Ok(8)),
            ("range", Err("partition 1000")),
            ("exit", Err("its last error: the module called exit")),
        ],
    );
}

#[test]
fn a_world_without_state_derives_topics_and_has_none() {
    derives("stateless-c", &[("2", "it wrote to a target that there is not: they are counted from 0, as they were named")]);
    let no_state = "the module has no state: build it for the world `stateful-derive` or `stateful-transform`";
    derives("stateless-js", &[("2", "RangeError: there is no target 2: 2 were named"), ("state", no_state)]);
}

/// Writes to each of two targets, and fails in these words where that can't be.
fn derives(module: &str, refused: &[(&str, &str)]) {
    let host = PluginHost::new(Arc::new(NoCache)).expect("a host");
    let loaded = host.load(&wasm(module)).unwrap_or_else(|error| panic!("{module}: {error}"));
    assert!(!loaded.has_state(), "{module} imports no state");
    let targets = ["one", "two"].map(|name| Target { name: name.to_owned(), partition_count: 1 });
    let derive = Derive::new(&host, &loaded, Limits::default(), &[], &targets).unwrap_or_else(|error| panic!("{module}: {error}"));
    let run = |values: &[&str]| {
        let (section, info) = encoded(&values.iter().map(|value| crate::cases::Record::of_value(value)).collect::<Vec<_>>());
        derive.run(&SourceBatch { info, base_offset: 7 }, &section, Limits::default().time, None)
    };
    for (value, words) in refused {
        let error = run(&["0", value]).expect_err("it is refused");
        assert!(error.to_string().contains(words), "{module}: {error}");
        let written = run(&["0", "1", "0"]).unwrap_or_else(|error| panic!("{module}: {error}"));
        let counts: Vec<_> = written.iter().map(|(target, section)| (*target, record::iterate(section).count())).collect();
        assert_eq!(counts, [(0, 2), (1, 1)], "{module}");
    }
}

/// Asks for each thing, and for something harmless behind it.
fn answers(module: &str, asked: &[Asked]) {
    let host = PluginHost::new(Arc::new(NoCache)).expect("a host");
    let loaded = host.load(&wasm(module)).unwrap_or_else(|error| panic!("{module}: {error}"));
    let partitioner = Partitioner::new(&host, &loaded, Limits::default(), &[]).unwrap_or_else(|error| panic!("{module}: {error}"));
    let run = |value: &str| -> Result<Vec<u32>, PluginError> {
        let (section, info) = encoded(&[crate::cases::Record::of_value("ab"), crate::cases::Record::of_value(value)]);
        partitioner.run(&info, &section, 1000)
    };
    for (value, expected) in asked {
        match (run(value), expected) {
            (Ok(partitions), Ok(partition)) => assert_eq!(partitions, [2, *partition], "{module}: {value}"),
            (Err(error), Err(words)) => assert!(error.to_string().contains(words), "{module}: {value}: {error}"),
            (came, _) => panic!("{module}: {value}: {came:?}"),
        }
        assert_eq!(run("harmless"), Ok(vec![2, 8]), "{module}, after {value}");
    }
}

//! Modules that are there in four languages: each passes the cases of `tests/behaviour/guests` in the very host that the broker has, under its
//! default limits. `plugins/build.sh` makes the modules.

#![forbid(unsafe_code)]

mod cases;
mod probe;
mod stateful;

use bytes::Bytes;
use cases::{Case, Expected, Outcome};
use millpond_plugin::{BatchInfo, Limits, NoCache, PluginError, PluginHost, Transform};
use millpond_protocol::{
    batch::{Batch, BatchBuilder},
    compression::Codec,
    record::{self, NewRecord},
};
use std::{path::Path, sync::Arc};

#[test]
fn rust() {
    behaves("hot");
}

#[test]
fn python() {
    behaves("hot-python");
}

#[test]
fn javascript() {
    behaves("hot-js");
}

#[test]
fn c() {
    behaves("hot-c");
}

/// Runs all cases, each twice with the same instance: a module that failed is asked again.
fn behaves(module: &str) {
    let host = PluginHost::new(Arc::new(NoCache)).expect("a host");
    let loaded = host.load(&wasm(module)).unwrap_or_else(|error| panic!("{module}: {error}"));
    assert!(!loaded.has_state(), "{module} imports no state");
    for case in Case::all("hot") {
        let context = format!("{module}: {}", case.name);
        let transform = match (Transform::new(&host, &loaded, Limits::default(), &case.params), &case.expected) {
            (Ok(transform), Expected::Outcome(_)) => transform,
            (Err(PluginError::Init(message)), Expected::Refused(start)) => {
                assert!(message.starts_with(start), "{context}: {message}");
                continue;
            }
            (Ok(_), Expected::Refused(_)) => panic!("{context}: it started"),
            (Err(error), _) => panic!("{context}: {error}"),
        };
        for round in 0..2 {
            let Expected::Outcome(expected) = &case.expected else { unreachable!("a refusal was handled above") };
            let outcome = run(&transform, &case.input);
            assert!(outcome == *expected, "{context}, round {round}: {}", difference(&outcome, expected));
        }
        assert!(transform.memory_bytes_peak() <= Limits::default().memory_bytes, "{context}");
    }
}

/// A module that `plugins/build.sh` has made.
fn wasm(module: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../plugins/dist").join(module).with_extension("wasm");
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}; plugins/build.sh makes it", path.display()))
}

/// Records as they cross to a module.
fn encoded(input: &[cases::Record]) -> (Bytes, BatchInfo<'static>) {
    let mut builder = BatchBuilder::new();
    for record in input {
        let headers: Vec<_> = record.headers.iter().map(|(name, value)| (name.as_str(), value.as_deref())).collect();
        let (key, value) = (record.key.as_deref(), record.value.as_deref());
        builder.push(&NewRecord { timestamp: record.timestamp, key, value, headers: &headers }).expect("it fits");
    }
    let batch = Batch::parse(builder.finish(Codec::None).expect("it has records")).expect("it is a batch");
    let section = batch.records_section(1 << 30).expect("it unpacks");
    let base_timestamp = batch.header().base_timestamp;
    let record_count = input.len().try_into().expect("few");
    (section, BatchInfo { topic: "readings", partition: Some(3), base_timestamp, record_count })
}

fn run(transform: &Transform, input: &[cases::Record]) -> Outcome {
    let (section, info) = encoded(input);
    match transform.run(&info, &section) {
        Ok(output) => {
            let summary = record::check_section(&output).expect("well formed records come out");
            assert!(summary.offsets_rise, "each record keeps its place");
            Outcome::Output(record::iterate(&output).map(|record| owned(&record.expect("checked"), info.base_timestamp)).collect())
        }
        Err(PluginError::Guest { message, record_index }) => Outcome::Failed { record: record_index, message },
        Err(error) => panic!("{error}: {error:?}"),
    }
}

fn owned(record: &record::RecordRef<'_>, base_timestamp: i64) -> cases::Record {
    cases::Record {
        key: record.key.map(<[u8]>::to_vec),
        value: record.value.map(<[u8]>::to_vec),
        headers: record.headers.iter().map(|(name, value)| (name.to_owned(), value.map(<[u8]>::to_vec))).collect(),
        timestamp: base_timestamp + record.timestamp_delta,
    }
}

/// The first of many records that differ, and no more.
fn difference(came: &Outcome, expected: &Outcome) -> String {
    match (came, expected) {
        (Outcome::Output(came), Outcome::Output(expected)) => {
            let place = came.iter().zip(expected).take_while(|(came, expected)| came == expected).count();
            let (came_count, expected_count) = (came.len(), expected.len());
            let (came, expected) = (came.get(place), expected.get(place));
            format!("{came_count} records came, {expected_count} were expected; record {place}: {came:?} is not {expected:?}")
        }
        _ => format!("{came:?} is not {expected:?}"),
    }
}

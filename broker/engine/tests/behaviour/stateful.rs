//! Modules that keep state: `count` changes records, `alarms` makes records of two topics. Each case is a row of batches, of which every one
//! begins with the state that the one before has left.

use crate::{
    NoCache,
    cases::{self, Record},
    encoded, owned, wasm,
};
use millpond_plugin::{BatchInfo, Derive, KeyValues, Limits, PluginError, PluginHost, SourceBatch, StateDraft, Target, Transform, World};
use millpond_protocol::record;
use serde_json::Value;
use std::{collections::BTreeMap, mem, sync::Arc};

#[test]
fn rust() {
    behaves("count", "count");
    behaves("alarms", "alarms");
}

#[test]
fn python() {
    behaves("count-python", "count");
    behaves("alarms-python", "alarms");
}

#[test]
fn javascript() {
    behaves("count-js", "count");
    behaves("alarms-js", "alarms");
}

#[test]
fn c() {
    behaves("count-c", "count");
    behaves("alarms-c", "alarms");
}

#[test]
fn a_module_that_has_worked_for_long_is_as_large_as_at_first() {
    let host = PluginHost::new(Arc::new(NoCache)).expect("a host");
    let batch = serde_json::json!([
        {"key": "device-<n>", "value": "{\"temperature\":90}", "repeat": 50},
        {"value": "device-"},
        {"key": "device-<n>", "value": "{\"temperature\":10}", "repeat": 50},
    ]);
    let input = cases::records(&batch);
    for module in ["alarms", "alarms-c", "alarms-js"] {
        let loaded = host.load(&wasm(module)).unwrap_or_else(|error| panic!("{module}: {error}"));
        let Ok(guest @ Guest::Derive(..)) = start(&host, &loaded, &Value::Null) else { panic!("{module} starts, and derives topics") };
        let mut draft = StateDraft::new(Arc::default(), STATE_BYTES);
        let mut grown = [0; 2];
        for (rounds, bytes) in [20, 400].into_iter().zip(&mut grown) {
            for _ in 0..rounds {
                run(&guest, &input, 0, &mut draft).unwrap_or_else(|error| panic!("{module}: {error:?}"));
                draft.keep();
            }
            *bytes = guest.memory_bytes_peak();
        }
        // 40,000 records with two values, keys and answers each: whatever was kept of each would be many times this.
        assert!(grown[1] - grown[0] <= 128 << 10, "{module}: {grown:?}");
    }
}

/// A module that was started.
enum Guest {
    Transform(Transform),
    Derive(Derive, Vec<String>),
}

impl Guest {
    fn memory_bytes_peak(&self) -> usize {
        match self {
            Guest::Transform(transform) => transform.memory_bytes_peak(),
            Guest::Derive(derive, _) => derive.memory_bytes_peak(),
        }
    }
}

/// What comes of a batch: records by topic, those of a transform under no name; or the record at fault and the message.
type Outcome = Result<BTreeMap<String, Vec<Record>>, (Option<u32>, String)>;

/// Runs all cases, each twice with the same instance, which finds an empty state again. The second time what a batch has changed is committed
/// before the next one.
fn behaves(module: &str, name: &str) {
    let host = PluginHost::new(Arc::new(NoCache)).expect("a host");
    let loaded = host.load(&wasm(module)).unwrap_or_else(|error| panic!("{module}: {error}"));
    assert!(loaded.has_state(), "{module} imports the state");
    for case in cases::list(name) {
        let context = format!("{module}: {}", cases::text(&case["name"]));
        let guest = match (start(&host, &loaded, &case), case["refuses"].as_str()) {
            (Ok(guest), None) => guest,
            (Err(PluginError::Init(message)), Some(words)) => {
                assert!(message.starts_with(words), "{context}: {message}");
                continue;
            }
            (Ok(_), Some(_)) => panic!("{context}: it started"),
            (Err(error), _) => panic!("{context}: {error}"),
        };
        for commits in [false, true] {
            run_case(&guest, &case, commits, &context);
        }
        assert!(guest.memory_bytes_peak() <= Limits::default().memory_bytes, "{context}");
    }
}

fn start(host: &PluginHost, module: &millpond_plugin::Module, case: &Value) -> Result<Guest, PluginError> {
    let (limits, params) = (Limits::default(), cases::params(case));
    if module.world() == World::Transform {
        return Transform::new(host, module, limits, &params).map(Guest::Transform);
    }
    let names = case["targets"].as_array().map_or_else(|| vec!["alarms".to_owned(), "readings".to_owned()], |names| texts(names));
    let targets: Vec<_> = names.iter().map(|name| Target { name: name.clone(), partition_count: 4 }).collect();
    Ok(Guest::Derive(Derive::new(host, module, limits, &params, &targets)?, names))
}

fn run_case(guest: &Guest, case: &Value, commits: bool, context: &str) {
    let granted = case["state_bytes"].as_u64().unwrap_or(STATE_BYTES);
    let mut committed = Arc::new(KeyValues::default());
    let mut draft = StateDraft::new(Arc::clone(&committed), granted);
    let mut offset = 0;
    for (number, batch) in case["batches"].as_array().expect("a list of batches").iter().enumerate() {
        let context = format!("{context}, batch {number}, commits {commits}");
        let input = cases::records(&batch["input"]);
        let mark = draft.mark();
        let outcome = run(guest, &input, offset, &mut draft);
        // What a batch changes on which its module fails is taken back, as the broker does it.
        if outcome.is_err() {
            draft.undo_to(mark);
        } else {
            draft.keep();
        }
        assert!(outcome == expected(batch), "{context}: {outcome:?}");
        if let Some(state) = batch["state"].as_array() {
            let state: Vec<_> = state.iter().map(|entry| (bytes(&entry[0]), bytes(&entry[1]))).collect();
            assert_eq!(draft.scan(b"", None, 1000), state, "{context}: the state");
        }
        offset += i64::try_from(input.len()).expect("few");
        if commits {
            for change in mem::take(&mut draft).into_changes() {
                Arc::make_mut(&mut committed).apply(change);
            }
            draft = StateDraft::new(Arc::clone(&committed), granted);
        }
    }
}

fn run(guest: &Guest, input: &[Record], base_offset: i64, draft: &mut StateDraft) -> Outcome {
    let (section, info) = encoded(input);
    let time = Limits::default().time;
    let result = match guest {
        Guest::Transform(transform) => transform.run_with(&info, &section, time, Some(draft)).map(|output| vec![(String::new(), output)]),
        Guest::Derive(derive, names) => {
            let written = derive.run(&SourceBatch { info, base_offset }, &section, time, Some(draft));
            written.map(|written| written.into_iter().map(|(target, section)| (names[target as usize].clone(), section)).collect())
        }
    };
    match result {
        Ok(written) => Ok(written.into_iter().map(|(topic, section)| (topic, decoded(&section, &info))).collect()),
        Err(PluginError::Guest { message, record_index }) => Err((record_index, message)),
        Err(error) => panic!("{error}: {error:?}"),
    }
}

fn decoded(section: &[u8], info: &BatchInfo<'_>) -> Vec<Record> {
    record::check_section(section).expect("well formed records come out");
    record::iterate(section).map(|record| owned(&record.expect("checked"), info.base_timestamp)).collect()
}

fn expected(batch: &Value) -> Outcome {
    match (&batch["output"], &batch["fails"]) {
        (Value::Array(_), Value::Null) => Ok(BTreeMap::from([(String::new(), cases::records(&batch["output"]))])),
        (Value::Object(topics), Value::Null) => Ok(topics.iter().map(|(topic, list)| (topic.clone(), cases::records(list))).collect()),
        (Value::Null, fails) => {
            let record = fails["record"].as_u64().and_then(|record| u32::try_from(record).ok());
            Err((record, cases::text(&fails["message"])))
        }
        _ => panic!("a batch has one ending: {batch}"),
    }
}

fn texts(list: &[Value]) -> Vec<String> {
    list.iter().map(cases::text).collect()
}

fn bytes(value: &Value) -> Vec<u8> {
    cases::bytes(value).expect("a key or a value of the state")
}

/// What is granted where a case says nothing.
const STATE_BYTES: u64 = 1 << 20;

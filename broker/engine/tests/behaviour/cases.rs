//! The cases as they are written in `tests/behaviour/guests`, whose README says what a field means.

use serde_json::Value;
use std::path::Path;

/// What a module is given, and what it must do.
#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) params: Vec<(String, String)>,
    pub(crate) input: Vec<Record>,
    pub(crate) expected: Expected,
}

/// What a module must do.
#[derive(Debug)]
pub(crate) enum Expected {
    /// Refuse to start, in words that begin like this.
    Refused(String),
    /// Start, and then this.
    Outcome(Outcome),
}

/// What comes of a batch.
#[derive(Debug, PartialEq)]
pub(crate) enum Outcome {
    Output(Vec<Record>),
    Failed { record: Option<u32>, message: String },
}

/// A record, in full.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Record {
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) headers: Vec<(String, Option<Vec<u8>>)>,
    pub(crate) timestamp: i64,
}

impl Case {
    /// All cases of a file.
    pub(crate) fn all(name: &str) -> Vec<Case> {
        let cases = list(name);
        assert!(cases.len() > 20, "{name} has its cases");
        cases.iter().map(Case::read).collect()
    }

    fn read(case: &Value) -> Case {
        let expected = match (case.get("output"), case.get("fails"), case.get("refuses")) {
            (Some(output), None, None) => Expected::Outcome(Outcome::Output(records(output))),
            (None, Some(fails), None) => {
                let record = fails["record"].as_u64().and_then(|record| u32::try_from(record).ok());
                Expected::Outcome(Outcome::Failed { record, message: text(&fails["message"]) })
            }
            (None, None, Some(refuses)) => Expected::Refused(text(refuses)),
            _ => panic!("a case has one ending: {case}"),
        };
        Case { name: text(&case["name"]), params: params(case), input: records(&case["input"]), expected }
    }
}

/// The cases of a file, as they are written.
pub(crate) fn list(name: &str) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/behaviour/guests").join(name).with_extension("json");
    let text = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_slice(&text).expect("a list of cases")
}

/// The settings of a case.
pub(crate) fn params(case: &Value) -> Vec<(String, String)> {
    case["params"].as_object().into_iter().flatten().map(|(name, value)| (name.clone(), text(value))).collect()
}

impl Record {
    /// A record with a value and nothing else.
    pub(crate) fn of_value(value: &str) -> Record {
        Record { key: None, value: Some(value.as_bytes().to_vec()), headers: Vec::new(), timestamp: TIMESTAMP }
    }
}

pub(crate) fn records(list: &Value) -> Vec<Record> {
    let mut records = Vec::new();
    for one in list.as_array().expect("a list of records") {
        match one["repeat"].as_u64() {
            Some(count) => records.extend((0..count).map(|number| record(&numbered(one, number)))),
            None => records.push(record(one)),
        }
    }
    records
}

/// A record that is there many times, with its number.
fn numbered(record: &Value, number: u64) -> Value {
    let text = record.to_string().replace(NUMBER, &format!("{number:04}"));
    serde_json::from_str(&text).expect("it is JSON as it was before")
}

fn record(record: &Value) -> Record {
    let headers = record["headers"].as_array().into_iter().flatten();
    Record {
        key: bytes(&record["key"]),
        value: bytes(&record["value"]),
        headers: headers.map(|header| (text(&header[0]), bytes(&header[1]))).collect(),
        timestamp: record["timestamp"].as_i64().unwrap_or(TIMESTAMP),
    }
}

pub(crate) fn bytes(value: &Value) -> Option<Vec<u8>> {
    if let Some(hex) = value["hex"].as_str() {
        let digits = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal digits");
        return Some((0..hex.len()).step_by(2).map(digits).collect());
    }
    value.as_str().map(|text| text.as_bytes().to_vec())
}

pub(crate) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("a text, not {value}")).to_owned()
}

/// What stands for the number of a record that is repeated.
const NUMBER: &str = "<n>";

/// The time of a record that names none, 2026-01-01 UTC.
const TIMESTAMP: i64 = 1_767_225_600_000;

//! Records, places and answers as the cases write them.

use bytes::Bytes;
use millpond::{ConsumedRecord, Error, Fate, Record, RecordPlace, Start};
use serde_json::{Map, Value, json};

/// Only what is named is compared, and lists whole.
pub(crate) fn check(actual: &Value, expected: &Value, at: &str) -> Result<(), String> {
    match expected {
        Value::Null if !at.contains(['.', '[']) => Ok(()),
        Value::Array(expected) => {
            let list = actual.as_array().filter(|list| list.len() == expected.len());
            let list = list.ok_or_else(|| format!("{at}: there must be {} of {actual}", expected.len()))?;
            let mut pairs = list.iter().zip(expected).enumerate();
            pairs.try_for_each(|(index, (actual, expected))| check(actual, expected, &format!("{at}[{index}]")))
        }
        Value::Object(expected) if expected.contains_key("fails") => {
            check(&actual["code"], &expected["fails"]["code"], &format!("{at}.code"))
        }
        // Bytes, which are compared as they are.
        Value::Object(expected) if expected.contains_key("hex") => same(actual, &Value::Object(expected.clone()), at),
        Value::Object(expected) => expected.iter().try_for_each(|(name, expected)| check(&actual[name], expected, &format!("{at}.{name}"))),
        expected => same(actual, expected, at),
    }
}

fn same(actual: &Value, expected: &Value, at: &str) -> Result<(), String> {
    if actual == expected { Ok(()) } else { Err(format!("{at}: it must be {expected}, and is {actual}")) }
}

/// The records to send, each as often as it is to be sent.
pub(crate) fn records(step: &Value) -> Vec<Record> {
    let list = step["records"].as_array().expect("`records` is a list");
    let repeated = |given: &Value| {
        let times = given["repeat"].as_u64().map_or(1, |times| usize::try_from(times).expect("a small number"));
        std::iter::repeat_n(record(given), times)
    };
    list.iter().flat_map(repeated).collect()
}

fn record(given: &Value) -> Record {
    let headers = given["headers"].as_array().into_iter().flatten();
    Record {
        key: bytes(&given["key"]),
        value: bytes(&given["value"]),
        headers: headers.map(|pair| (pair[0].as_str().expect("a name is text").to_owned(), bytes(&pair[1]))).collect(),
        timestamp: given["timestamp_ms"].as_i64(),
        partition: given["partition"].as_u64().map(|partition| u32::try_from(partition).expect("a small number")),
    }
}

fn bytes(given: &Value) -> Option<Bytes> {
    match given {
        Value::Null => None,
        Value::String(text) => Some(Bytes::copy_from_slice(text.as_bytes())),
        given => {
            if let Some(hex) = given["hex"].as_str() {
                let digit = |digit: char| u8::try_from(digit.to_digit(16).expect("a hex digit")).expect("four bits");
                let digits: Vec<u8> = hex.chars().map(digit).collect();
                return Some(digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect());
            }
            let times = usize::try_from(given["times"].as_u64().expect("`times` is a number")).expect("a small number");
            Some(given["text"].as_str().expect("`text` is text").repeat(times).into())
        }
    }
}

/// A place in a partition.
pub(crate) fn place(given: &Value) -> Start {
    match given {
        Value::String(text) if text == "beginning" => Start::Beginning,
        Value::String(text) if text == "end" => Start::End,
        given => match (given["offset"].as_i64(), given["timestamp_ms"].as_i64()) {
            (Some(offset), _) => Start::Offset(offset),
            (_, Some(ms)) => Start::Time(ms),
            _ => panic!("{given} is no place"),
        },
    }
}

/// Where a record was stored.
pub(crate) fn placed(place: &RecordPlace) -> Value {
    let fate = match place.fate {
        Fate::Dropped => "dropped",
        Fate::StoredUnlessDropped => "stored-unless-dropped",
        Fate::Expanded => "expanded",
        _ => "stored",
    };
    json!({ "partition": place.partition, "offset": place.offset, "fate": fate })
}

/// Where a record was stored, or with which code it failed.
pub(crate) fn outcome(outcome: &Result<RecordPlace, Error>) -> Value {
    match outcome {
        Ok(place) => placed(place),
        Err(error) => json!({ "code": error.code() }),
    }
}

/// A record that was read.
pub(crate) fn shown(record: &ConsumedRecord) -> Value {
    let headers: Vec<_> = record.headers.iter().map(|(name, value)| json!([name, shown_bytes(value.as_ref())])).collect();
    json!({
        "partition": record.partition,
        "offset": record.offset,
        "timestamp_ms": record.timestamp,
        "key": shown_bytes(record.key.as_ref()),
        "value": shown_bytes(record.value.as_ref()),
        "headers": headers,
    })
}

fn shown_bytes(bytes: Option<&Bytes>) -> Value {
    let Some(bytes) = bytes else { return Value::Null };
    if let Ok(text) = std::str::from_utf8(bytes) {
        return json!(text);
    }
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    let hex: String = digits.filter_map(|digit| char::from_digit(u32::from(digit), 16)).collect();
    json!({ "hex": hex })
}

/// In the order of partition and offset, where the step asks for that.
pub(crate) fn sorted(step: &Value, mut records: Vec<Value>) -> Value {
    if step["sorted"] == true {
        records.sort_by_key(|record| (record["partition"].as_u64(), record["offset"].as_i64()));
    }
    Value::Array(records)
}

/// A limit as the protocol writes it.
pub(crate) fn with_limits(config: &Value) -> Map<String, Value> {
    let limits = ["retention_ms", "retention_bytes", "quota_bytes"];
    let limit = |name: &String, value: &Value| {
        if limits.contains(&name.as_str()) && value.is_number() { json!({ "of": value }) } else { value.clone() }
    };
    config.as_object().expect("`config` is an object").iter().map(|(name, value)| (name.clone(), limit(name, value))).collect()
}

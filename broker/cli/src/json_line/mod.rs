//! One record as one line of JSON, written and read back without loss.
//!
//! ```text
//! {"topic":"readings","partition":0,"offset":7,"timestamp":1767225600000,"key":"a","value":"21.5","headers":{"unit":"C"}}
//! ```
//!
//! Keys, values and headers are bytes. Those that are UTF-8 are JSON strings; others stand, as base64, in `key_base64` and
//! `value_base64` in place of `key` and `value`, and in a header as `{"base64":"…"}`. A missing one is `null`. A header that comes
//! several times is an array. `millpond consume -o jsonl` writes such lines and `millpond produce -i jsonl` takes them.

mod scan;
#[cfg(test)]
mod tests;

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;
use jiff::Timestamp;
use millpond::Record;
use serde::de::IgnoredAny;
use std::borrow::Cow;

/// Why a line is not a record.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JsonLineError {
    /// Not JSON at all.
    #[error("it is not JSON")]
    NotJson(#[source] serde_json::Error),
    /// JSON, but not an object.
    #[error("it is not a JSON object")]
    NotAnObject,
    /// A field that a record does not have.
    #[error("a record has no field `{0}`")]
    UnknownField(String),
    /// A field came twice, or both as text and as base64.
    #[error("the field `{0}` is there twice")]
    Repeated(&'static str),
    /// There is neither a value nor an explicit `null`.
    #[error("there is no `value`")]
    NoValue,
    /// A field holds what it can't hold.
    #[error("`{field}` must be {expected}")]
    BadField {
        /// The field.
        field: Cow<'static, str>,
        /// What it may be.
        expected: &'static str,
    },
}

/// What is the same for every record that a line is written for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    pub(crate) topic: &'a str,
    pub(crate) partition: u32,
    pub(crate) offset: i64,
    pub(crate) timestamp: i64,
}

/// Appends the line for a record, line break included.
pub(crate) fn write<B: AsRef<[u8]>>(
    out: &mut Vec<u8>,
    place: Place<'_>,
    key: Option<&[u8]>,
    value: Option<&[u8]>,
    headers: &[(&str, Option<B>)],
) {
    out.extend_from_slice(b"{\"topic\":");
    write_text(out, place.topic);
    out.extend_from_slice(b",\"partition\":");
    write_number(out, i64::from(place.partition));
    out.extend_from_slice(b",\"offset\":");
    write_number(out, place.offset);
    out.extend_from_slice(b",\"timestamp\":");
    write_number(out, place.timestamp);
    write_bytes_field(out, b",\"key", key);
    write_bytes_field(out, b",\"value", value);
    out.extend_from_slice(b",\"headers\":{");
    write_headers(out, headers);
    out.extend_from_slice(b"}}\n");
}

/// Appends a number in decimal.
pub(crate) fn write_number(out: &mut Vec<u8>, number: i64) {
    // The formatting machinery of the standard library costs as much as the rest of the line.
    const DIGITS_MAX: usize = 20;
    let mut digits = [0; DIGITS_MAX];
    let mut at = DIGITS_MAX;
    let mut rest = number.unsigned_abs();
    loop {
        at -= 1;
        // A remainder of ten is one digit.
        digits[at] = b'0' + u8::try_from(rest % 10).unwrap_or_default();
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if number < 0 {
        out.push(b'-');
    }
    out.extend_from_slice(&digits[at..]);
}

/// Appends text as a JSON string.
pub(crate) fn write_text(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).unwrap_or_else(|error| unreachable!("writing text to memory can't fail: {error}"));
}

fn write_base64(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'"');
    out.extend_from_slice(BASE64.encode(bytes).as_bytes());
    out.push(b'"');
}

/// `name` comes with its comma and opening quote.
fn write_bytes_field(out: &mut Vec<u8>, name: &[u8], bytes: Option<&[u8]>) {
    out.extend_from_slice(name);
    match bytes.map(|bytes| std::str::from_utf8(bytes).map_err(|_| bytes)) {
        None => out.extend_from_slice(b"\":null"),
        Some(Ok(text)) => {
            out.extend_from_slice(b"\":");
            write_text(out, text);
        }
        Some(Err(bytes)) => {
            out.extend_from_slice(b"_base64\":");
            write_base64(out, bytes);
        }
    }
}

fn write_headers<B: AsRef<[u8]>>(out: &mut Vec<u8>, headers: &[(&str, Option<B>)]) {
    let mut first = true;
    for (at, (name, _)) in headers.iter().enumerate() {
        // The first of a name writes all of that name.
        if headers[..at].iter().any(|(earlier, _)| earlier == name) {
            continue;
        }
        if !std::mem::take(&mut first) {
            out.push(b',');
        }
        write_text(out, name);
        out.push(b':');
        let same = headers[at..].iter().filter(|(other, _)| other == name);
        let repeated = same.clone().count() > 1;
        if repeated {
            out.push(b'[');
        }
        for (index, (_, value)) in same.enumerate() {
            if index > 0 {
                out.push(b',');
            }
            write_header_value(out, value.as_ref().map(AsRef::as_ref));
        }
        if repeated {
            out.push(b']');
        }
    }
}

fn write_header_value(out: &mut Vec<u8>, value: Option<&[u8]>) {
    match value.map(|bytes| std::str::from_utf8(bytes).map_err(|_| bytes)) {
        None => out.extend_from_slice(b"null"),
        Some(Ok(text)) => write_text(out, text),
        Some(Err(bytes)) => {
            out.extend_from_slice(b"{\"base64\":");
            write_base64(out, bytes);
            out.push(b'}');
        }
    }
}

/// Reads one line. A `value` or `key` that is neither a string nor `null` is stored as its JSON text without blanks.
pub(crate) fn read(line: &[u8]) -> Result<Record, JsonLineError> {
    // The whole line is checked once, so that what follows only has to find where the fields begin and end.
    serde_json::from_slice::<IgnoredAny>(line).map_err(JsonLineError::NotJson)?;
    let mut record = Record::default();
    let mut value_given = false;
    let mut key_given = false;
    for (name, raw) in scan::fields(line).ok_or(JsonLineError::NotAnObject)? {
        let name: Text<'_> = from_json(name, "the name of a field", "a string")?;
        match name.0.as_ref() {
            "key" | "key_base64" if std::mem::replace(&mut key_given, true) => return Err(JsonLineError::Repeated("key")),
            "value" | "value_base64" if std::mem::replace(&mut value_given, true) => return Err(JsonLineError::Repeated("value")),
            "key" => record.key = any_bytes(raw)?,
            "key_base64" => record.key = Some(base64_bytes(raw, "key_base64")?),
            "value" => record.value = any_bytes(raw)?,
            "value_base64" => record.value = Some(base64_bytes(raw, "value_base64")?),
            "headers" => record.headers = headers(raw)?,
            "timestamp" => record.timestamp = timestamp(raw)?,
            "partition" => record.partition = from_json(raw, "partition", "a number from 0, or null")?,
            // What `consume` writes beside; where a record was before does not matter.
            "topic" | "offset" => {}
            other => return Err(JsonLineError::UnknownField(other.to_owned())),
        }
    }
    if value_given { Ok(record) } else { Err(JsonLineError::NoValue) }
}

/// The topic of a line that is a record, if it says one.
pub(crate) fn topic(line: &[u8]) -> Result<Option<String>, JsonLineError> {
    let fields = scan::fields(line).ok_or(JsonLineError::NotAnObject)?;
    let is_topic = |name: &[u8]| serde_json::from_slice::<Text<'_>>(name).is_ok_and(|name| name.0 == "topic");
    let topic = fields.into_iter().rev().find(|(name, _)| is_topic(name));
    topic.map_or(Ok(None), |(_, raw)| from_json(raw, "topic", "a string, or null"))
}

fn bad(field: impl Into<Cow<'static, str>>, expected: &'static str) -> JsonLineError {
    JsonLineError::BadField { field: field.into(), expected }
}

fn from_json<'a, T: serde::Deserialize<'a>>(raw: &'a [u8], field: &'static str, expected: &'static str) -> Result<T, JsonLineError> {
    serde_json::from_slice(raw).map_err(|_| bad(field, expected))
}

fn any_bytes(raw: &[u8]) -> Result<Option<Bytes>, JsonLineError> {
    match raw.first() {
        Some(b'n') => Ok(None),
        Some(b'"') => text_bytes(raw, "value", "a string").map(Some),
        _ => Ok(Some(scan::compact(raw).into())),
    }
}

fn text_bytes(raw: &[u8], field: &'static str, expected: &'static str) -> Result<Bytes, JsonLineError> {
    let text: Cow<'_, str> = serde_json::from_slice::<Text<'_>>(raw).map_err(|_| bad(field, expected))?.0;
    Ok(Bytes::from(text.into_owned()))
}

fn base64_bytes(raw: &[u8], field: &'static str) -> Result<Bytes, JsonLineError> {
    const EXPECTED: &str = "a string in base64";
    let text = text_bytes(raw, field, EXPECTED)?;
    BASE64.decode(&text).map(Bytes::from).map_err(|_| bad(field, EXPECTED))
}

/// Milliseconds, or a time as RFC 3339 writes it; `null` lets the client say when.
fn timestamp(raw: &[u8]) -> Result<Option<i64>, JsonLineError> {
    const EXPECTED: &str = "milliseconds since 1970 as a number, or a time such as \"2026-01-01T00:00:00Z\"";
    if raw.first() != Some(&b'"') {
        return from_json(raw, "timestamp", EXPECTED);
    }
    let text = text_bytes(raw, "timestamp", EXPECTED)?;
    let time: Option<Timestamp> = std::str::from_utf8(&text).ok().and_then(|text| text.parse().ok());
    time.map(|time| Some(time.as_millisecond())).ok_or_else(|| bad("timestamp", EXPECTED))
}

fn headers(raw: &[u8]) -> Result<Vec<(String, Option<Bytes>)>, JsonLineError> {
    if raw == b"null" {
        return Ok(Vec::new());
    }
    let mut headers = Vec::new();
    for (name, raw) in scan::fields(raw).ok_or_else(|| bad("headers", "an object"))? {
        let name: String = from_json(name, "the name of a header", "a string")?;
        let values = if raw.first() == Some(&b'[') { scan::items(raw) } else { vec![raw] };
        for raw in values {
            headers.push((name.clone(), header_value(&name, raw)?));
        }
    }
    Ok(headers)
}

fn header_value(name: &str, raw: &[u8]) -> Result<Option<Bytes>, JsonLineError> {
    let wrong = || bad(format!("headers.{name}"), "a string, null, {\"base64\":\"…\"} or an array of them");
    match raw.first() {
        Some(b'n') => Ok(None),
        Some(b'"') => text_bytes(raw, "headers", "strings").map(Some),
        Some(b'{') => {
            let fields: Vec<_> = scan::fields(raw).into_iter().flatten().collect();
            match fields[..] {
                [(b"\"base64\"", text)] => base64_bytes(text, "base64").map(Some).map_err(|_| wrong()),
                _ => Err(wrong()),
            }
        }
        _ => Err(wrong()),
    }
}

/// A string that borrows where it has no escapes.
#[derive(serde::Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

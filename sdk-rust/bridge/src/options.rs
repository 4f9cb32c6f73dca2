//! Settings as data: JSON objects, with units in their names.
//!
//! A setting that is not known is refused with the nearest one that is, one with a value that it cannot have with its name. Nothing is ignored.

use crate::failure::Failure;
use millpond::{Codec, OutOfRange, Position};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value};
use std::{collections::BTreeMap, time::Duration};

/// How to reach a broker.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default, deny_unknown_fields)]
pub struct ClientOptions {
    /// `millpond://HOST:PORT?fp=sha256:...`; this machine's broker when not set.
    pub url: Option<String>,
    /// A PEM file of authorities to trust, whatever the URL says.
    pub ca_file: Option<String>,
    /// The fingerprint of the one certificate to trust, whatever the URL says.
    pub fingerprint: Option<String>,
    /// How long one attempt to connect may take.
    pub connect_timeout_ms: Option<u64>,
    /// How long the broker may be silent.
    pub idle_timeout_ms: Option<u64>,
    /// How long a request may take, trying again included.
    pub request_timeout_ms: Option<u64>,
}

/// How to send. What is not set is as in [`millpond::ProducerBuilder`].
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default, deny_unknown_fields)]
pub struct ProducerOptions {
    /// When a batch counts as full, in bytes before compression.
    pub batch_bytes: Option<usize>,
    /// How long a record waits for others while a batch of its partition is in flight.
    pub linger_ms: Option<u64>,
    /// `none`, `gzip`, `snappy`, `lz4` or `zstd`.
    pub compression: Option<Compression>,
    /// Bytes of records that may wait for their answers.
    pub buffer_bytes: Option<usize>,
    /// Batches of a partition that may be in flight.
    pub in_flight: Option<usize>,
    /// How long a record may take to its answer.
    pub delivery_timeout_ms: Option<u64>,
    /// Whether a batch is sent again.
    pub retry: Option<bool>,
    /// Whether batches are numbered, so that none is stored twice.
    pub idempotence: Option<bool>,
}

/// What to read, and from where. What is not set is as in [`millpond::ConsumerBuilder`].
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default, deny_unknown_fields)]
pub struct ConsumerOptions {
    /// Where to begin in each partition; at the end when not set.
    pub start: Option<Place>,
    /// Where to begin in single partitions: the offset of the next record of each.
    pub offsets: BTreeMap<u32, i64>,
    /// The partitions; all when not set.
    pub partitions: Option<Vec<u32>>,
    /// Whether to end where the topic ended when reading began.
    pub until_end: bool,
    /// The view to read; the records as they are stored when not set.
    pub view: Option<String>,
    /// What happens where a partition does not reach to the offset.
    pub on_out_of_range: Option<OnOutOfRange>,
}

/// How batches are compressed.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "they are names of algorithms")]
pub enum Compression {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

impl From<Compression> for Codec {
    fn from(compression: Compression) -> Codec {
        match compression {
            Compression::None => Codec::None,
            Compression::Gzip => Codec::Gzip,
            Compression::Snappy => Codec::Snappy,
            Compression::Lz4 => Codec::Lz4,
            Compression::Zstd => Codec::Zstd,
        }
    }
}

/// A place in a partition: `"beginning"`, `"end"`, `{"offset": 7}` or `{"timestamp_ms": 1735689600000}`.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Place {
    /// The first record that is still there.
    Beginning,
    /// Behind the last one.
    End,
    /// This offset.
    Offset(i64),
    /// The first record at or after this time, in milliseconds since 1970-01-01 UTC.
    TimestampMs(i64),
}

impl From<Place> for Position {
    fn from(place: Place) -> Position {
        match place {
            Place::Beginning => Position::Beginning,
            Place::End => Position::End,
            Place::Offset(offset) => Position::Offset(offset),
            Place::TimestampMs(ms) => Position::Time(ms),
        }
    }
}

/// What happens where a partition does not reach to the offset from which it is to be read.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum OnOutOfRange {
    /// An error, which has the range.
    Error,
    /// Reading goes on at the first record that is there.
    Earliest,
    /// Reading goes on with what comes from then on.
    Latest,
}

impl From<OnOutOfRange> for OutOfRange {
    fn from(policy: OnOutOfRange) -> OutOfRange {
        match policy {
            OnOutOfRange::Error => OutOfRange::Error,
            OnOutOfRange::Earliest => OutOfRange::Earliest,
            OnOutOfRange::Latest => OutOfRange::Latest,
        }
    }
}

/// Options that know their own names.
pub trait Options: DeserializeOwned {
    /// Of what they are the settings, as in "a producer".
    const OF: &'static str;
    /// All names.
    const NAMES: &'static [&'static str];

    /// Reads them from the text of a JSON object; none is left at its default by a mistake.
    fn from_json(json: &str) -> Result<Self, Failure> {
        match serde_json::from_str(json) {
            Ok(Value::Object(given)) => read(given, Self::OF, Self::NAMES),
            Ok(_) => Err(Failure::invalid(format!("the settings of {} are not an object", Self::OF))),
            Err(error) => Err(Failure::invalid(format!("the settings of {} are not JSON: {error}", Self::OF))),
        }
    }
}

impl Options for ClientOptions {
    const OF: &'static str = "a client";
    const NAMES: &'static [&'static str] =
        &["url", "ca_file", "fingerprint", "connect_timeout_ms", "idle_timeout_ms", "request_timeout_ms"];
}

impl Options for ProducerOptions {
    const OF: &'static str = "a producer";
    const NAMES: &'static [&'static str] =
        &["batch_bytes", "linger_ms", "compression", "buffer_bytes", "in_flight", "delivery_timeout_ms", "retry", "idempotence"];
}

impl Options for ConsumerOptions {
    const OF: &'static str = "a consumer";
    const NAMES: &'static [&'static str] = &["start", "offsets", "partitions", "until_end", "view", "on_out_of_range"];
}

/// Refuses a name that is not one of `names`, and says which is nearest.
pub(crate) fn check_names<'a>(given: impl IntoIterator<Item = &'a String>, of: &str, names: &[&str]) -> Result<(), Failure> {
    for name in given {
        if !names.contains(&name.as_str()) {
            let message = format!("`{name}` is no setting of {of}: there are {}", names.join(", "));
            let failure = Failure::invalid(message);
            return Err(match nearest(name, names) {
                Some(nearest) => failure.with_hint(format!("did you mean `{nearest}`?")),
                None => failure,
            });
        }
    }
    Ok(())
}

pub(crate) fn read<T: DeserializeOwned>(given: Map<String, Value>, of: &str, names: &[&str]) -> Result<T, Failure> {
    check_names(given.keys(), of, names)?;
    let error = match serde_json::from_value(Value::Object(given.clone())) {
        Ok(options) => return Ok(options),
        Err(error) => error,
    };
    // Which one it is: that which can't be read by itself.
    for (name, value) in given {
        let alone = Map::from_iter([(name.clone(), value.clone())]);
        if let Err(error) = serde_json::from_value::<T>(Value::Object(alone)) {
            return Err(Failure::invalid(format!("`{name}` of {of} cannot be {value}: {error}")));
        }
    }
    Err(Failure::invalid(format!("the settings of {of} cannot be used: {error}")))
}

/// The name that is most like this one, where one is.
fn nearest<'a>(name: &str, names: &[&'a str]) -> Option<&'a str> {
    let like = |known: &str| strsim::jaro_winkler(name, known);
    names.iter().copied().filter(|known| like(known) > ALIKE_MIN).max_by(|a, b| like(a).total_cmp(&like(b)))
}

/// How alike a name is that may have been meant.
const ALIKE_MIN: f64 = 0.75;

/// Milliseconds as a time.
pub(crate) const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read() {
        let json = r#"{"start": {"timestamp_ms": 5}, "offsets": {"2": 7}, "partitions": [0, 2], "until_end": true, "view": "v", "on_out_of_range": "latest"}"#;
        let options = ConsumerOptions::from_json(json).unwrap();
        assert_eq!((options.start, options.offsets), (Some(Place::TimestampMs(5)), BTreeMap::from([(2, 7)])));
        assert_eq!((options.partitions, options.until_end), (Some(vec![0, 2]), true));
        assert_eq!(options.on_out_of_range, Some(OnOutOfRange::Latest));
        assert_eq!(ProducerOptions::from_json("{}").unwrap(), ProducerOptions::default());
    }

    #[test]
    fn a_name_that_is_not_known_is_refused_with_the_nearest() {
        let failure = ProducerOptions::from_json(r#"{"linger": 5}"#).unwrap_err();
        assert!(failure.message.contains("`linger` is no setting of a producer"), "{failure}");
        assert_eq!(failure.hint.as_deref(), Some("did you mean `linger_ms`?"));
        assert_eq!(ProducerOptions::from_json(r#"{"qqq": 5}"#).unwrap_err().hint.as_deref(), None);
    }

    #[test]
    fn a_value_that_cannot_be_is_named() {
        for (json, expected) in [
            (r#"{"in_flight": 5, "linger_ms": "soon"}"#, "`linger_ms` of a producer cannot be \"soon\""),
            (r#"{"compression": "zip"}"#, "`compression` of a producer cannot be \"zip\""),
            ("[]", "not an object"),
            ("{", "not JSON"),
        ] {
            let failure = ProducerOptions::from_json(json).unwrap_err();
            assert!(failure.message.contains(expected), "{failure}");
        }
        assert!(ConsumerOptions::from_json(r#"{"start": {"time": 5}}"#).unwrap_err().message.contains("timestamp_ms"));
    }

    /// Deserializing must refuse exactly the names that are not listed.
    #[test]
    fn the_names_are_all_names() {
        fn check<T: Options>() {
            for name in T::NAMES {
                let alone = Map::from_iter([((*name).to_owned(), Value::Array(Vec::new()))]);
                let wrong = serde_json::from_value::<T>(Value::Object(alone)).err().map_or(String::new(), |error| error.to_string());
                assert!(!wrong.contains("unknown field"), "{wrong}");
            }
            let expected = serde_json::from_str::<T>(r#"{"?": 1}"#).err().unwrap().to_string();
            let listed = expected.matches('`').count() / 2 - 1;
            assert_eq!(listed, T::NAMES.len(), "{expected}");
        }
        check::<ClientOptions>();
        check::<ProducerOptions>();
        check::<ConsumerOptions>();
    }
}

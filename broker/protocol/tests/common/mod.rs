//! Records for the property tests, and batches of them.

use bytes::Bytes;
use millpond_protocol::{
    batch::BatchBuilder,
    compression::Codec,
    record::{NewRecord, Record},
};
use proptest::{collection::vec, option, prelude::*};

/// Far more than any batch of these tests.
pub(crate) const LIMIT_BYTES: usize = 16 << 20;

/// A record that owns its parts.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sample {
    pub(crate) timestamp: i64,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Sample {
    /// What a reader found, in the same words.
    pub(crate) fn found(record: &Record) -> Sample {
        Sample {
            timestamp: record.timestamp,
            key: record.key.as_ref().map(|bytes| bytes.to_vec()),
            value: record.value.as_ref().map(|bytes| bytes.to_vec()),
            headers: record.headers.iter().map(|(name, value)| (name.to_owned(), value.map(|bytes| bytes.to_vec()))).collect(),
        }
    }
}

fn bytes(longest: usize) -> impl Strategy<Value = Vec<u8>> {
    // Repeated bytes too, so that there is something to compress.
    prop_oneof![vec(any::<u8>(), 0..longest), (any::<u8>(), 0..longest).prop_map(|(byte, length)| std::vec::from_elem(byte, length))]
}

fn sample() -> impl Strategy<Value = Sample> {
    let header = (".{0,12}", option::of(bytes(80)));
    (-4_000_000_000_000_i64..4_000_000_000_000, option::of(bytes(40)), option::of(bytes(300)), vec(header, 0..4))
        .prop_map(|(timestamp, key, value, headers)| Sample { timestamp, key, value, headers })
}

/// One to `most` records.
pub(crate) fn samples(most: usize) -> impl Strategy<Value = Vec<Sample>> {
    vec(sample(), 1..most + 1)
}

/// Any codec.
pub(crate) fn codec() -> impl Strategy<Value = Codec> {
    proptest::sample::select(Codec::ALL.to_vec())
}

/// A batch of these records.
pub(crate) fn build(builder: &mut BatchBuilder, samples: &[Sample], codec: Codec) -> Bytes {
    for (index, sample) in samples.iter().enumerate() {
        let headers: Vec<(&str, Option<&[u8]>)> = sample.headers.iter().map(|(name, value)| (name.as_str(), value.as_deref())).collect();
        let record =
            NewRecord { timestamp: sample.timestamp, key: sample.key.as_deref(), value: sample.value.as_deref(), headers: &headers };
        let size = builder.size_with(&record);
        assert_eq!(builder.push(&record).ok(), u32::try_from(index).ok());
        assert_eq!(builder.size_bytes(), size);
    }
    builder.finish(codec).expect("at least one record")
}

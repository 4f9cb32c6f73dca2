//! Batches of another implementation, the `kafka-protocol` crate, are read here, and ours there.

#![forbid(unsafe_code)]

mod common;

use bytes::{Bytes, BytesMut};
use common::{LIMIT_BYTES, Sample, build, codec, samples};
use kafka_protocol::{
    protocol::StrBytes,
    records::{Compression, Record, RecordBatchDecoder, RecordBatchEncoder, RecordEncodeOptions, TimestampType},
};
use millpond_protocol::{
    batch::{Attributes, Batch, BatchBuilder},
    compression::Codec,
};
use proptest::prelude::*;
use std::collections::BTreeMap;

fn compression(codec: Codec) -> Compression {
    match codec {
        Codec::None => Compression::None,
        Codec::Gzip => Compression::Gzip,
        Codec::Snappy => Compression::Snappy,
        Codec::Lz4 => Compression::Lz4,
        Codec::Zstd => Compression::Zstd,
    }
}

/// The other crate keeps headers in a map, so a name occurs once.
fn with_unique_names(samples: &[Sample]) -> Vec<Sample> {
    let unique = |sample: &Sample| {
        let headers: BTreeMap<_, _> = sample.headers.iter().cloned().collect();
        Sample { headers: headers.into_iter().collect(), ..sample.clone() }
    };
    samples.iter().map(unique).collect()
}

const BASE_OFFSET: i64 = 1_000;
const BASE_SEQUENCE: i32 = 50;

fn theirs(index: usize, sample: &Sample) -> Record {
    let index = i32::try_from(index).expect("few");
    Record {
        transactional: true,
        control: false,
        delete_horizon: false,
        partition_leader_epoch: 6,
        producer_id: 77,
        producer_epoch: 5,
        timestamp_type: TimestampType::Creation,
        offset: BASE_OFFSET + i64::from(index),
        sequence: BASE_SEQUENCE + index,
        timestamp: sample.timestamp,
        key: sample.key.clone().map(Bytes::from),
        value: sample.value.clone().map(Bytes::from),
        headers: sample.headers.iter().map(|(name, value)| (StrBytes::from_string(name.clone()), value.clone().map(Bytes::from))).collect(),
    }
}

fn from_theirs(record: &Record) -> Sample {
    Sample {
        timestamp: record.timestamp,
        key: record.key.as_ref().map(|bytes| bytes.to_vec()),
        value: record.value.as_ref().map(|bytes| bytes.to_vec()),
        headers: record.headers.iter().map(|(name, value)| (name.to_string(), value.as_ref().map(|bytes| bytes.to_vec()))).collect(),
    }
}

proptest! {
    #[test]
    fn their_batches_are_read_here(samples in samples(40), codec in codec()) {
        let samples = with_unique_names(&samples);
        let records: Vec<Record> = samples.iter().enumerate().map(|(index, sample)| theirs(index, sample)).collect();
        let mut bytes = BytesMut::new();
        RecordBatchEncoder::encode(&mut bytes, &records, &RecordEncodeOptions { version: 2, compression: compression(codec) })
            .expect("they encode it");

        let batch = Batch::parse(bytes.freeze()).expect("well formed");
        batch.verify_crc().expect("the checksum is right");
        let header = batch.header();
        prop_assert_eq!((header.base_offset, header.partition_leader_epoch), (BASE_OFFSET, 6));
        prop_assert_eq!((header.producer_id, header.producer_epoch, header.base_sequence), (77, 5, BASE_SEQUENCE));
        prop_assert_eq!(header.attributes.codec(), Ok(codec));
        prop_assert!(header.attributes.is_transactional() && !header.attributes.is_control());
        prop_assert_eq!(Some(header.max_timestamp), samples.iter().map(|sample| sample.timestamp).max());
        batch.check_records(LIMIT_BYTES).expect("header and records agree");
        for ((offset, expected), found) in (BASE_OFFSET..).zip(&samples).zip(batch.records(LIMIT_BYTES).expect("decompresses")) {
            let found = found.expect("valid");
            prop_assert_eq!(found.offset, offset);
            prop_assert_eq!(&Sample::found(&found), expected);
        }
    }

    #[test]
    fn our_batches_are_read_there(samples in samples(40), codec in codec()) {
        let samples = with_unique_names(&samples);
        let mut builder = BatchBuilder::new();
        builder.set_producer(77, 5, BASE_SEQUENCE);
        let mut bytes = build(&mut builder, &samples, codec);
        let decoded = RecordBatchDecoder::decode(&mut bytes).expect("they decode it");
        prop_assert_eq!((decoded.version, decoded.compression), (2, compression(codec)));
        prop_assert_eq!(decoded.records.iter().map(from_theirs).collect::<Vec<_>>(), samples);
        for (index, record) in (0_i32..).zip(&decoded.records) {
            prop_assert_eq!((record.offset, record.sequence), (i64::from(index), BASE_SEQUENCE + index));
            prop_assert_eq!((record.producer_id, record.producer_epoch, record.partition_leader_epoch), (77, 5, -1));
        }
    }
}

#[test]
fn their_control_batch_is_seen_as_one() {
    let sample = Sample { timestamp: 1, key: Some(vec![0, 0, 0, 1]), value: Some(vec![0; 6]), headers: vec![] };
    let record = Record { control: true, ..theirs(0, &sample) };
    let mut bytes = BytesMut::new();
    RecordBatchEncoder::encode(&mut bytes, [&record], &RecordEncodeOptions { version: 2, compression: Compression::None })
        .expect("they encode it");
    let batch = Batch::parse(bytes.freeze()).expect("well formed");
    assert_eq!(batch.header().attributes, Attributes(0b0011_0000));
    assert!(batch.header().attributes.is_control());
}

//! Bytes from outside never make anything panic, and never get past the checks.

#![forbid(unsafe_code)]

mod common;

use bytes::Bytes;
use common::{LIMIT_BYTES, Sample, build, codec, samples};
use millpond_protocol::{
    batch::{Batch, BatchBuilder, BatchHeader, HEADER_BYTES},
    compression::{self, Codec, CompressionError},
    error::WireError,
    frame::FrameHeader,
    message::{self, Ack, Placements, Request, Response, Watermarks},
    record, varint,
};
use proptest::{collection::vec, prelude::*, sample::Index};

/// Small, so that what gets through is cut off early.
const SMALL_LIMIT_BYTES: usize = 4096;

/// Where the bytes start that the checksum covers.
const CHECKSUMMED_FROM: usize = 21;

/// Everything that a broker or a client does with a batch from outside.
fn use_batch(batch: &Batch) {
    let _ = batch.verify_crc();
    let _ = batch.check_records(SMALL_LIMIT_BYTES);
    if let Ok(section) = batch.records_section(SMALL_LIMIT_BYTES) {
        assert!(section.len() <= SMALL_LIMIT_BYTES);
        use_section(&section);
    }
    let Ok(records) = batch.records(SMALL_LIMIT_BYTES) else { return };
    let mut failed = false;
    for (index, record) in records.enumerate() {
        assert!(!failed, "nothing follows an error");
        assert!(index <= batch.header().record_count.cast_unsigned() as usize, "no more records than announced, and an error");
        match record {
            Ok(record) => assert_eq!(Sample::found(&record).headers.len(), record.headers.len()),
            Err(_) => failed = true,
        }
    }
}

fn use_section(section: &[u8]) {
    let summary = record::check_section(section);
    let mut count = 0;
    let mut length = 0;
    let mut failed = false;
    for result in record::iterate(section) {
        assert!(!failed, "nothing follows an error");
        match result {
            Ok(record) => {
                assert_eq!(record.headers.iter().count(), record.headers.len(), "headers were checked with the record");
                count += 1;
                length += record.encoded.len();
            }
            Err(_) => failed = true,
        }
    }
    assert_eq!(summary.is_err(), failed, "both walks see the same");
    assert_eq!(record::renumber(section).is_err(), failed);
    if let Ok(summary) = summary {
        assert_eq!((summary.record_count, length), (count, section.len()), "records follow each other without gaps");
    }
}

/// Bytes that begin like an encoded stream of the codec now and then, so that more than the first check is reached.
fn encoded(codec: Codec) -> impl Strategy<Value = Vec<u8>> {
    let mutated = (vec(any::<u8>(), 0..3000), vec((any::<Index>(), any::<u8>()), 1..4), any::<Index>(), any::<bool>()).prop_map(
        move |(plain, changes, cut, cuts)| {
            let mut bytes = compression::compress(codec, &plain).expect("compresses");
            if bytes.is_empty() {
                return bytes; // nothing, not compressed
            }
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            if cuts {
                bytes.truncate(cut.index(bytes.len()));
            }
            bytes
        },
    );
    prop_oneof![vec(any::<u8>(), 0..400), mutated]
}

/// Records of few bits, so that most lengths are short and some records are valid.
fn section() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![4 => 0..16_u8, 1 => any::<u8>()];
    vec(byte, 0..300)
}

/// A header that is mostly well formed in front of any bytes.
fn batch() -> impl Strategy<Value = Bytes> {
    (any::<[u8; HEADER_BYTES]>(), section(), any::<bool>(), 0..16_i16, 0..60_i32, 0..60_i32).prop_map(
        |(mut header, section, free, attributes, count, last)| {
            if !free {
                let length = i32::try_from(HEADER_BYTES - 12 + section.len()).expect("short");
                header[8..12].copy_from_slice(&length.to_be_bytes());
                header[16] = 2;
                header[21..23].copy_from_slice(&attributes.to_be_bytes());
                header[23..27].copy_from_slice(&last.to_be_bytes());
                header[57..61].copy_from_slice(&count.to_be_bytes());
            }
            [&header[..], &section].concat().into()
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_bytes_are_parsed_or_refused_as_batches(bytes in prop_oneof![batch(), vec(any::<u8>(), 0..200).prop_map(Bytes::from)]) {
        let _ = BatchHeader::parse(&bytes);
        if let Ok(batch) = Batch::parse(bytes.clone()) {
            prop_assert_eq!(batch.header().total_bytes(), bytes.len());
            prop_assert_eq!(&batch.header().encode()[..], &bytes[..HEADER_BYTES]);
            use_batch(&batch);
        }
        let mut rest = bytes;
        while let Ok(Some(batch)) = Batch::take_front(&mut rest) {
            use_batch(&batch);
        }
    }

    #[test]
    fn any_bytes_are_parsed_or_refused_as_records(section in prop_oneof![section(), vec(any::<u8>(), 0..300)]) {
        use_section(&section);
    }

    #[test]
    fn any_bytes_are_decompressed_within_the_limit_or_refused(
        (codec, bytes) in codec().prop_flat_map(|codec| (Just(codec), encoded(codec))),
        limit_bytes in 0..SMALL_LIMIT_BYTES,
    ) {
        match compression::decompress(codec, &bytes, limit_bytes) {
            Ok(out) => prop_assert!(out.len() <= limit_bytes),
            Err(CompressionError::OverLimit { limit_bytes: named }) => prop_assert_eq!(named, limit_bytes),
            Err(_) => {}
        }
    }

    #[test]
    fn any_bytes_are_decoded_or_refused_as_messages(bytes in vec(any::<u8>(), 0..300)) {
        let _ = message::decode::<Request>(&bytes);
        let _ = message::decode::<Response>(&bytes);
        let _ = message::decode::<WireError>(&bytes);
        let _ = Ack::decode(&bytes);
        let _ = Placements::decode(&bytes);
        let _ = Watermarks::decode_front(&bytes);
        if let Some(header) = bytes.first_chunk() {
            let _ = FrameHeader::decode(*header, 1 << 20);
        }
    }

    #[test]
    fn a_changed_message_is_decoded_or_refused(at in any::<Index>(), byte in any::<u8>(), cut in any::<Index>()) {
        let topic = millpond_protocol::message::TopicInfo {
            partitions: vec![millpond_protocol::message::PartitionInfo::default(); 3],
            ..Default::default()
        };
        let mut bytes = message::encode(&Response::Topic(topic));
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let _ = message::decode::<Response>(&bytes);
        let _ = message::decode::<Response>(&bytes[..cut.index(bytes.len())]);
    }

    #[test]
    fn any_bytes_are_read_or_refused_as_integers(bytes in vec(prop_oneof![any::<u8>(), Just(0xff), Just(0x80)], 0..12)) {
        let mut rest = &bytes[..];
        let narrow = varint::read_i32(&mut rest);
        let taken = bytes.len() - rest.len();
        prop_assert!(taken <= varint::I32_BYTES_MAX && (narrow.is_some() == (taken > 0)));
        let mut rest = &bytes[..];
        let wide = varint::read_i64(&mut rest);
        let taken = bytes.len() - rest.len();
        prop_assert!(taken <= varint::I64_BYTES_MAX && (wide.is_some() == (taken > 0)));
        if let Some(narrow) = narrow {
            prop_assert_eq!(wide, Some(i64::from(narrow)));
        }
    }
}

proptest! {
    #[test]
    fn a_changed_byte_is_refused_or_caught_by_the_checksum(
        samples in samples(8), codec in codec(), changes in vec((any::<Index>(), 1..=255_u8), 1..5),
    ) {
        let original = build(&mut BatchBuilder::new(), &samples, codec);
        let mut bytes = original.to_vec();
        for (at, flip) in changes {
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
        }
        let Ok(batch) = Batch::parse(bytes.into()) else { return Ok(()) };
        let covered = |bytes: &[u8]| bytes[CHECKSUMMED_FROM..].to_vec();
        let checksum_unchanged = batch.bytes()[17..CHECKSUMMED_FROM] == original[17..CHECKSUMMED_FROM];
        if checksum_unchanged && covered(batch.bytes()) != covered(&original) {
            prop_assert!(batch.verify_crc().is_err(), "a change behind the checksum went unseen");
        }
        use_batch(&batch);
    }

    #[test]
    fn a_cut_off_batch_is_refused(samples in samples(5), codec in codec(), cut in any::<Index>()) {
        let original = build(&mut BatchBuilder::new(), &samples, codec);
        let cut = cut.index(original.len());
        prop_assert!(Batch::parse(original.slice(..cut)).is_err());
        if cut > 0 {
            prop_assert!(Batch::take_front(&mut original.slice(..cut)).is_err());
        }
    }
}

#[test]
fn a_batch_that_is_a_bomb_stops_at_the_limit() {
    let zeros = vec![0; 32 << 20];
    for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        let samples = [Sample { timestamp: 0, key: None, value: Some(zeros.clone()), headers: vec![] }];
        let batch = Batch::parse(build(&mut BatchBuilder::new(), &samples, codec)).expect("well formed");
        assert!(batch.bytes().len() < 2 << 20, "{codec} makes it small");
        let error = batch.records(LIMIT_BYTES).expect_err("over the limit");
        assert_eq!(error.code(), millpond_protocol::error::ErrorCode::BatchTooLarge);
    }
}

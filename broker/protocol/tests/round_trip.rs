//! What is written is read back the same, for any records and every codec.

#![forbid(unsafe_code)]

mod common;

use common::{LIMIT_BYTES, Sample, build, codec, samples};
use millpond_protocol::{
    batch::{Batch, BatchBuilder, rebuild},
    compression::{self, Codec},
    record, varint,
};
use proptest::{collection::vec, prelude::*};

fn read(batch: &Batch) -> Vec<Sample> {
    let records = batch.records(LIMIT_BYTES).expect("decompresses");
    records.map(|record| Sample::found(&record.expect("a valid record"))).collect()
}

proptest! {
    #[test]
    fn records_come_back_from_a_batch(first in samples(30), second in samples(30), codec in codec()) {
        let mut builder = BatchBuilder::new();
        for samples in [first, second] {
            let batch = Batch::parse(build(&mut builder, &samples, codec)).expect("well formed");
            batch.verify_crc().expect("the checksum is right");
            prop_assert_eq!(read(&batch), &samples[..]);
            let (section, summary) = batch.check_records(LIMIT_BYTES).expect("valid records");
            prop_assert_eq!(usize::try_from(summary.record_count), Ok(samples.len()));
            prop_assert!(summary.offsets_rise);
            prop_assert_eq!(batch.header().max_timestamp, samples.iter().map(|sample| sample.timestamp).max().expect("one or more"));
            for (index, record) in record::iterate(&section).enumerate() {
                prop_assert_eq!(usize::try_from(record.expect("valid").offset_delta), Ok(index));
            }
        }
    }

    #[test]
    fn a_filtered_batch_holds_what_was_kept(samples in samples(30), codec in codec(), keep in any::<u32>()) {
        let batch = Batch::parse(build(&mut BatchBuilder::new(), &samples, codec)).expect("well formed");
        let section = batch.records_section(LIMIT_BYTES).expect("decompresses");
        let kept = |index: usize| keep >> (index % 32) & 1 == 1;
        let mut left = Vec::new();
        for (index, record) in record::iterate(&section).enumerate() {
            if kept(index) {
                left.extend_from_slice(record.expect("valid").encoded);
            }
        }
        let summary = record::check_section(&left).expect("valid");
        let rebuilt = Batch::parse(rebuild(batch.header(), &left, &summary).expect("fits")).expect("well formed");
        rebuilt.verify_crc().expect("the checksum is new");
        rebuilt.check_records(LIMIT_BYTES).expect("header and records agree");
        prop_assert_eq!(rebuilt.header().last_offset(), batch.header().last_offset());
        let expected: Vec<(i64, Sample)> =
            (0_i64..).zip(&samples).enumerate().filter(|(index, _)| kept(*index)).map(|(_, (offset, sample))| (offset, sample.clone())).collect();
        let found: Vec<(i64, Sample)> = rebuilt
            .records(LIMIT_BYTES)
            .expect("decompresses")
            .map(|record| record.expect("valid"))
            .map(|record| (record.offset, Sample::found(&record)))
            .collect();
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn renumbering_a_fresh_batch_changes_nothing(samples in samples(200)) {
        let batch = Batch::parse(build(&mut BatchBuilder::new(), &samples, Codec::None)).expect("well formed");
        let section = batch.records_section(LIMIT_BYTES).expect("not compressed");
        prop_assert_eq!(record::renumber(&section).expect("valid"), &section[..]);
    }

    #[test]
    fn a_concatenation_comes_apart_where_it_was_put_together(several in vec((samples(5), codec()), 0..5)) {
        let mut builder = BatchBuilder::new();
        let batches: Vec<_> = several.iter().map(|(samples, codec)| build(&mut builder, samples, *codec)).collect();
        let mut rest = bytes::Bytes::from(batches.concat());
        for expected in &batches {
            let batch = Batch::take_front(&mut rest).expect("whole").expect("there");
            prop_assert_eq!(batch.bytes(), expected);
        }
        prop_assert!(Batch::take_front(&mut rest).expect("nothing is torn").is_none());
    }

    #[test]
    fn bytes_come_back_from_every_codec(input in vec(any::<u8>(), 0..100_000), codec in codec()) {
        let compressed = compression::compress(codec, &input).expect("compresses");
        prop_assert_eq!(compression::decompress(codec, &compressed, input.len()).expect("fits"), input);
    }

    #[test]
    fn integers_come_back(narrow in any::<i32>(), wide in any::<i64>(), shift in 0..64_u32) {
        let (narrow, wide) = (narrow >> (shift % 32), wide >> shift);
        let mut bytes = Vec::new();
        varint::write_i32(&mut bytes, narrow);
        prop_assert_eq!(bytes.len(), varint::len_i32(narrow));
        varint::write_i64(&mut bytes, wide);
        prop_assert_eq!(bytes.len(), varint::len_i32(narrow) + varint::len_i64(wide));
        let mut rest = &bytes[..];
        prop_assert_eq!(varint::read_i32(&mut rest), Some(narrow));
        prop_assert_eq!(varint::read_i64(&mut rest), Some(wide));
        prop_assert!(rest.is_empty());
    }
}

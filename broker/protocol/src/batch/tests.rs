use super::*;
use crate::record::NewRecord;

/// Two records, as another program wrote them (a Python script with a checksum of its own).
const GOLDEN: &[&str] = &[
    "0000000000000000", // base offset 0
    "0000004d",         // 77 bytes follow
    "ffffffff",         // leader epoch -1
    "02",               // magic
    "35743c97",         // CRC-32C of what follows
    "0000",             // attributes: no compression, create time
    "00000001",         // last offset delta
    "0000018bcfe56800", // base timestamp 1,700,000,000,000
    "0000018bcfe56800", // max timestamp: the second record is older
    "0000000000000007", // producer id
    "0003",             // producer epoch
    "00000029",         // base sequence
    "00000002",         // two records
    "28",               // the first is 20 bytes long
    "00",               // attributes
    "00",               // timestamp delta 0
    "00",               // offset delta 0
    "046b31",           // key "k1"
    "0a68656c6c6f",     // value "hello"
    "04",               // two headers
    "02680276",         // "h" is "v"
    "026e01",           // "n" is null
    "0c00090201",       // the second: 6 bytes, attributes, timestamp delta -5, offset delta 1, null key
    "0100",             // null value, no headers
];

fn golden() -> Bytes {
    let hex = GOLDEN.concat();
    let digits: Vec<u8> = hex.bytes().map(|digit| (char::from(digit).to_digit(16).expect("a digit")).to_le_bytes()[0]).collect();
    digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

const T: i64 = 1_700_000_000_000;

fn build_golden(builder: &mut BatchBuilder, codec: Codec) -> Bytes {
    builder.set_producer(7, 3, 41);
    let headers: [(&str, Option<&[u8]>); 2] = [("h", Some(b"v")), ("n", None)];
    let first = NewRecord { timestamp: T, key: Some(b"k1"), value: Some(b"hello"), headers: &headers };
    let second = NewRecord { timestamp: T - 5, ..NewRecord::default() };
    for (index, record) in [first, second].iter().enumerate() {
        let size = builder.size_with(record);
        assert_eq!(builder.push(record), Ok(u32::try_from(index).expect("two")));
        assert_eq!(builder.size_bytes(), size, "size_with foretells size_bytes");
    }
    builder.finish(codec).expect("it has records")
}

/// A valid batch with some of its header's bytes replaced; the checksum is made right again.
fn patched(at: usize, with: &[u8]) -> Bytes {
    let mut bytes = golden().to_vec();
    bytes[at..at + with.len()].copy_from_slice(with);
    let crc = checksum(&bytes[CHECKSUMMED_FROM..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    bytes.into()
}

#[test]
fn a_built_batch_has_the_golden_bytes() {
    assert_eq!(build_golden(&mut BatchBuilder::new(), Codec::None), golden());
}

#[test]
fn the_golden_bytes_are_read() {
    let batch = Batch::parse(golden()).expect("valid");
    batch.verify_crc().expect("the checksum is right");
    let header = batch.header();
    assert_eq!((header.producer_id, header.producer_epoch, header.base_sequence), (7, 3, 41));
    assert_eq!((header.base_timestamp, header.max_timestamp), (T, T));
    assert_eq!((header.total_bytes(), header.last_offset(), header.next_offset()), (89, 1, 2));
    assert_eq!(header.encode(), golden()[..HEADER_BYTES], "the header is written back as it was");

    let records: Vec<_> = batch.records(usize::MAX).expect("not compressed").collect::<Result<_, _>>().expect("valid records");
    assert_eq!(records.len(), 2);
    assert_eq!((records[0].offset, records[0].timestamp), (0, T));
    assert_eq!((records[0].key.as_deref(), records[0].value.as_deref()), (Some(&b"k1"[..]), Some(&b"hello"[..])));
    let headers: Vec<_> = records[0].headers.iter().collect();
    assert_eq!(headers, [("h", Some(Bytes::from("v"))), ("n", None)]);
    assert_eq!(records[0].headers.get("h"), Some(Bytes::from("v")));
    assert_eq!((records[1].offset, records[1].timestamp), (1, T - 5));
    assert_eq!((&records[1].key, &records[1].value, records[1].headers.is_empty()), (&None, &None, true));
}

#[test]
fn keys_and_values_are_parts_of_the_batch_and_not_copies() {
    let bytes = golden();
    let inside = bytes.as_ptr_range();
    let batch = Batch::parse(bytes.clone()).expect("valid");
    let first = batch.records(usize::MAX).expect("not compressed").next().expect("two records").expect("valid");
    for part in [first.key.expect("a key"), first.value.expect("a value"), first.headers.get("h").expect("a header")] {
        assert!(inside.contains(&part.as_ptr()));
    }
}

#[test]
fn a_builder_is_reused_and_forgets_everything() {
    let mut builder = BatchBuilder::new();
    for codec in Codec::ALL.into_iter().chain(Codec::ALL) {
        let batch = Batch::parse(build_golden(&mut builder, codec)).expect("valid");
        batch.verify_crc().expect("the checksum is right");
        assert_eq!(batch.header().attributes.codec(), Ok(codec));
        assert_eq!(batch.records_section(usize::MAX).expect("decompresses"), golden().slice(HEADER_BYTES..), "{codec}");
        assert_eq!((builder.len(), builder.is_empty(), builder.size_bytes()), (0, true, HEADER_BYTES));
    }
    builder.push(&NewRecord::default()).expect("room");
    let header = *Batch::parse(builder.finish(Codec::None).expect("one record")).expect("valid").header();
    assert_eq!((header.producer_id, header.producer_epoch, header.base_sequence), (-1, -1, -1), "the producer was for one batch");
    assert_eq!(builder.finish(Codec::None), Err(BatchError::Empty));
}

#[test]
fn a_record_that_does_not_fit_leaves_the_batch_as_it_was() {
    let mut builder = BatchBuilder::new();
    builder.push(&NewRecord { timestamp: i64::MIN, ..NewRecord::default() }).expect("room");
    let size = builder.size_bytes();
    let far = NewRecord { timestamp: 1, ..NewRecord::default() };
    assert_eq!(builder.push(&far), Err(BatchError::TimestampsTooFarApart { base: i64::MIN, timestamp: 1 }));

    // Many headers that borrow the same bytes announce more than a batch can hold, without anyone having them in memory.
    let megabyte = vec![0; 1 << 20];
    let headers = vec![("", Some(&megabyte[..])); 3000];
    let huge = NewRecord { timestamp: i64::MIN, headers: &headers, ..NewRecord::default() };
    assert!(matches!(builder.push(&huge), Err(BatchError::TooLarge { .. })));
    assert_eq!((builder.len(), builder.size_bytes()), (1, size));
    Batch::parse(builder.finish(Codec::None).expect("one record")).expect("valid").check_records(usize::MAX).expect("valid records");
}

#[test]
fn assigning_an_offset_keeps_the_checksum() {
    let batch = Batch::parse(golden()).expect("valid");
    let mut bytes = golden().to_vec();
    bytes[..16].copy_from_slice(&batch.with_base_offset(1_000, 12));
    let moved = Batch::parse(bytes.into()).expect("valid");
    moved.verify_crc().expect("offset and epoch are not covered");
    assert_eq!((moved.header().base_offset, moved.header().partition_leader_epoch), (1_000, 12));
    let offsets: Vec<i64> = moved.records(usize::MAX).expect("not compressed").map(|record| record.expect("valid").offset).collect();
    assert_eq!(offsets, [1_000, 1_001]);
}

#[test]
fn each_rule_of_the_header_has_its_error() {
    let parse = |at, with: &[u8]| Batch::parse(patched(at, with)).map(|_| ());
    assert_eq!(Batch::parse(Bytes::new()), Err(BatchError::Truncated { needed: HEADER_BYTES, available: 0 }));
    assert_eq!(parse(16, &[1]), Err(BatchError::UnsupportedMagic(1)));
    assert_eq!(parse(8, &48_i32.to_be_bytes()), Err(BatchError::LengthTooSmall(48)));
    assert_eq!(parse(8, &(-1_i32).to_be_bytes()), Err(BatchError::LengthTooSmall(-1)));
    assert_eq!(parse(8, &76_i32.to_be_bytes()), Err(BatchError::BytesFollow { bytes: 1 }));
    assert_eq!(parse(8, &i32::MAX.to_be_bytes()), Err(BatchError::Truncated { needed: 2_147_483_659, available: 89 }));
    assert_eq!(parse(22, &[5]), Err(BatchError::UnknownCodec(5)));
    assert_eq!(parse(57, &3_i32.to_be_bytes()), Err(BatchError::CountOutOfRange { record_count: 3, last_offset_delta: 1 }));
    assert_eq!(parse(57, &(-1_i32).to_be_bytes()), Err(BatchError::CountOutOfRange { record_count: -1, last_offset_delta: 1 }));
    assert_eq!(parse(23, &(-1_i32).to_be_bytes()), Err(BatchError::CountOutOfRange { record_count: 2, last_offset_delta: -1 }));
    assert_eq!(parse(57, &0_i32.to_be_bytes()), Ok(()), "a batch may have lost all its records");
    assert_eq!(parse(23, &i32::MAX.to_be_bytes()), Ok(()), "offsets may have gaps");
}

#[test]
fn a_header_of_extremes_overflows_nothing() {
    let mut bytes = golden().to_vec();
    bytes[0..8].copy_from_slice(&i64::MAX.to_be_bytes());
    bytes[27..35].copy_from_slice(&i64::MIN.to_be_bytes());
    let batch = Batch::parse(bytes.into()).expect("well formed");
    assert_eq!((batch.header().last_offset(), batch.header().next_offset()), (i64::MAX, i64::MAX));
    let records: Vec<_> = batch.records(usize::MAX).expect("not compressed").map(|record| record.expect("valid")).collect();
    assert_eq!((records[1].offset, records[1].timestamp), (i64::MAX, i64::MIN));
}

#[test]
fn a_count_that_disagrees_with_the_records_ends_in_an_error() {
    let read = |count: i32| {
        let bytes = patched(57, &count.to_be_bytes());
        let mut bytes = bytes.to_vec();
        bytes[23..27].copy_from_slice(&9_i32.to_be_bytes());
        let batch = Batch::parse(bytes.into()).expect("well formed");
        let records: Vec<_> = batch.records(usize::MAX).expect("not compressed").take(10).collect();
        assert_eq!(batch.check_records(usize::MAX).map(|_| ()).is_ok(), count == 2);
        records
    };
    assert_eq!(read(2).iter().filter(|record| record.is_ok()).count(), 2);
    let too_few = read(3);
    assert_eq!((too_few.len(), too_few[2].clone()), (3, Err(BatchError::CountMismatch { announced: 3, found: 2 })));
    let too_many = read(1);
    assert_eq!((too_many.len(), too_many[1].clone()), (2, Err(BatchError::CountMismatch { announced: 1, found: 2 })));
    assert_eq!(read(0), [Err(BatchError::CountMismatch { announced: 0, found: 1 })]);
}

#[test]
fn an_offset_behind_the_last_one_is_refused() {
    let mut bytes = golden().to_vec();
    bytes[23..27].copy_from_slice(&5_i32.to_be_bytes());
    bytes[85] = 12; // the second record's offset delta, as a varint: 6
    let batch = Batch::parse(bytes.into()).expect("well formed");
    let expected = BatchError::InvalidRecord { index: 1, fault: RecordFault::OffsetDelta(6) };
    assert_eq!(batch.records(usize::MAX).expect("not compressed").nth(1), Some(Err(expected.clone())));
    assert_eq!(batch.check_records(usize::MAX), Err(expected));
}

#[test]
fn a_flipped_bit_is_a_corrupt_batch() {
    let mut bytes = golden().to_vec();
    bytes[70] ^= 1;
    let error = Batch::parse(bytes.into()).expect("well formed").verify_crc().expect_err("the bytes changed");
    assert_eq!(error.code(), crate::error::ErrorCode::CorruptBatch);
    assert!(error.to_string().contains("35743c97"), "{error}");
}

#[test]
fn batches_that_follow_each_other_are_taken_one_by_one() {
    let mut bytes = Bytes::from([golden(), golden(), golden().slice(..80)].concat());
    for _ in 0..2 {
        assert_eq!(Batch::take_front(&mut bytes).expect("whole").expect("there").bytes(), &golden());
    }
    let torn = Batch::take_front(&mut bytes);
    assert_eq!(torn, Err(BatchError::Truncated { needed: 89, available: 80 }));
    assert_eq!(bytes.len(), 80, "what could not be taken stays");
    assert_eq!(Batch::take_front(&mut Bytes::new()), Ok(None));
}

#[test]
fn the_attributes_are_read_bit_by_bit() {
    let attributes = Attributes(0b0111_1100);
    assert_eq!(attributes.codec(), Ok(Codec::Zstd));
    assert_eq!(attributes.timestamp_type(), TimestampType::LogAppendTime);
    assert!(attributes.is_transactional() && attributes.is_control() && attributes.has_delete_horizon());
    let plain = Attributes(0);
    assert_eq!(plain.timestamp_type(), TimestampType::CreateTime);
    assert!(!plain.is_transactional() && !plain.is_control() && !plain.has_delete_horizon());
    assert_eq!(attributes.with_codec(Codec::Gzip), Attributes(0b0111_1001));
}

#[test]
fn with_log_append_time_every_record_has_the_time_of_the_append() {
    let mut bytes = patched(22, &[0b1000]).to_vec();
    bytes[35..43].copy_from_slice(&99_i64.to_be_bytes());
    let batch = Batch::parse(bytes.into()).expect("well formed");
    let times: Vec<i64> = batch.records(usize::MAX).expect("not compressed").map(|record| record.expect("valid").timestamp).collect();
    assert_eq!(times, [99, 99]);
}

#[test]
fn a_rebuilt_batch_keeps_the_producer_and_the_unused_offsets() {
    for codec in Codec::ALL {
        let original = Batch::parse(build_golden(&mut BatchBuilder::new(), codec)).expect("valid");
        let section = original.records_section(usize::MAX).expect("decompresses");
        let second = record::iterate(&section).nth(1).expect("two").expect("valid").encoded;
        let summary = record::check_section(second).expect("valid");
        let rebuilt = Batch::parse(rebuild(original.header(), second, &summary).expect("fits")).expect("valid");
        rebuilt.verify_crc().expect("the checksum is new");
        let header = rebuilt.header();
        assert_eq!((header.producer_id, header.base_sequence, header.last_offset_delta), (7, 41, 1));
        assert_eq!((header.record_count, header.max_timestamp), (1, T - 5));
        assert_eq!(header.attributes, original.header().attributes);
        assert_eq!(rebuilt.check_records(usize::MAX).expect("valid records").1, summary);
    }
}

#[test]
fn a_rebuilt_batch_grows_where_the_records_became_more() {
    let original = Batch::parse(golden()).expect("valid");
    let section = original.records_section(usize::MAX).expect("not compressed");
    let renumbered = record::renumber(&[&section[..], &section[..]].concat()).expect("valid");
    let summary = record::check_section(&renumbered).expect("valid");
    let rebuilt = Batch::parse(rebuild(original.header(), &renumbered, &summary).expect("fits")).expect("valid");
    assert_eq!((rebuilt.header().record_count, rebuilt.header().last_offset_delta), (4, 3));
    // It ends where the original's sequence ends: 41 and 42.
    assert_eq!((rebuilt.header().base_sequence, rebuilt.header().last_sequence()), (39, 42));
    rebuilt.check_records(usize::MAX).expect("header and records agree");
}

#[test]
fn a_batch_may_lose_all_its_records() {
    let original = Batch::parse(build_golden(&mut BatchBuilder::new(), Codec::Snappy)).expect("valid");
    let summary = record::check_section(&[]).expect("nothing to refuse");
    let empty = Batch::parse(rebuild(original.header(), &[], &summary).expect("fits")).expect("valid");
    empty.verify_crc().expect("the checksum is new");
    assert_eq!((empty.bytes().len(), empty.header().attributes.codec()), (HEADER_BYTES, Ok(Codec::None)));
    assert_eq!((empty.header().last_offset_delta, empty.header().max_timestamp), (1, T));
    assert_eq!(empty.records(usize::MAX).expect("no section").count(), 0);

    // Others leave the codec in the attributes.
    let named = Batch::parse([&empty.bytes()[..22], &[2], &empty.bytes()[23..]].concat().into()).expect("well formed");
    assert_eq!(named.records(usize::MAX).expect("no section").count(), 0);
}

#[test]
fn sequences_go_round_behind_the_largest() {
    assert_eq!((sequence_after(i32::MAX, 1), sequence_after(i32::MAX - 1, 3), sequence_after(0, i32::MAX)), (0, 1, i32::MAX));
    assert_eq!((sequence_before(0, 1), sequence_before(1, 3), sequence_before(i32::MAX, i32::MAX)), (i32::MAX, i32::MAX - 1, 0));
    let header = |base_sequence| BatchHeader { base_sequence, ..*Batch::parse(golden()).expect("valid").header() };
    assert_eq!((header(i32::MAX).last_sequence(), header(-1).last_sequence()), (0, -1));
}

#[test]
fn a_rebuilt_batch_keeps_the_time_of_its_append() {
    let original = Batch::parse(patched(22, &[0b1000])).expect("valid");
    let section = original.records_section(usize::MAX).expect("not compressed");
    let second = record::iterate(&section).nth(1).expect("two").expect("valid").encoded;
    let rebuilt = rebuild(original.header(), second, &record::check_section(second).expect("valid")).expect("fits");
    assert_eq!(BatchHeader::parse(&rebuilt).expect("valid").max_timestamp, T);
}

#[test]
fn a_batch_that_is_numbered_anew_is_the_one_that_was_built_with_the_numbers() {
    for (id, epoch, base_sequence) in [(7, 3, 41), (-1, -1, -1), (i64::MAX, i16::MAX, i32::MAX), (0, 0, 0)] {
        for codec in Codec::ALL {
            let mut builder = BatchBuilder::new();
            let build = |builder: &mut BatchBuilder, numbers: Option<(i64, i16, i32)>| {
                let record = NewRecord { timestamp: T, value: Some(b"hello"), ..NewRecord::default() };
                builder.push(&record).expect("fits");
                if let Some((id, epoch, base_sequence)) = numbers {
                    builder.set_producer(id, epoch, base_sequence);
                }
                builder.finish(codec).expect("one record")
            };
            let (before, expected) = (build(&mut builder, None), build(&mut builder, Some((id, epoch, base_sequence))));
            let (held, unnumbered) = (before.clone(), before.to_vec());
            let after = with_producer(before, id, epoch, base_sequence).expect("a batch");
            assert_eq!((after, held), (expected, unnumbered.into()), "whoever holds it too keeps it as it was");
        }
    }
    let short = with_producer(Bytes::from_static(&[0; HEADER_BYTES - 1]), 7, 3, 41);
    assert_eq!(short, Err(BatchError::Truncated { needed: HEADER_BYTES, available: HEADER_BYTES - 1 }));
}

#[test]
fn the_limit_holds_for_records_that_are_not_compressed_too() {
    let batch = Batch::parse(golden()).expect("valid");
    assert!(batch.records_section(28).is_ok());
    let error = batch.records_section(27).expect_err("28 bytes");
    assert_eq!(error, BatchError::Compression(CompressionError::OverLimit { limit_bytes: 27 }));
    assert_eq!(error.code(), crate::error::ErrorCode::BatchTooLarge);
}

#[test]
fn a_checksum_in_pieces_is_that_of_the_whole() {
    let bytes: Vec<u8> = (0..=255).cycle().take(5_000).collect();
    for piece in [1, 7, 64, 1_000, 5_000] {
        let mut checksum = BatchChecksum::new();
        bytes.chunks(piece).for_each(|bytes| checksum.update(bytes));
        assert_eq!(checksum.value(), checksum_of(&bytes), "{piece} bytes at once");
    }
    assert_eq!(BatchChecksum::default().value(), checksum_of(&[]));
}

fn checksum_of(bytes: &[u8]) -> u32 {
    super::checksum(bytes)
}

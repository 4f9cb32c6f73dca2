//! Bytes taken for a batch, for records, and for a compressed stream.

use bytes::Bytes;
use millpond_protocol::batch::{Batch, BatchBuilder, BatchHeader, HEADER_BYTES, rebuild};
use millpond_protocol::compression::{self, Codec, CompressionError};
use millpond_protocol::record::{self, NewRecord, RecordRef};
use millpond_protocol::varint;

/// What a batch from outside may become when it is decompressed, in bytes. Small, so that much is tried in a short time.
const LIMIT_BYTES: usize = 1 << 16;

/// Takes the bytes for everything that they can be.
pub(crate) fn run(data: &[u8]) {
    as_batches(&Bytes::copy_from_slice(data));
    as_section(data);
    as_integers(data);
    if let Some((first, rest)) = data.split_first() {
        let codec = Codec::ALL[usize::from(*first) % Codec::ALL.len()];
        as_compressed(codec, rest);
        as_content(codec, rest);
    }
}

fn as_batches(bytes: &Bytes) {
    let header = BatchHeader::parse(bytes);
    if let Ok(batch) = Batch::parse(bytes.clone()) {
        assert_eq!(Some(batch.header()), header.ok().as_ref(), "a batch has the header that is parsed alone");
        assert_eq!(batch.header().total_bytes(), bytes.len());
        assert_eq!(batch.header().encode()[..], bytes[..HEADER_BYTES]);
        use_batch(&batch);
    }
    let mut rest = bytes.clone();
    loop {
        let before = rest.len();
        match Batch::take_front(&mut rest) {
            Ok(Some(batch)) => {
                assert_eq!(before - rest.len(), batch.bytes().len(), "what is taken is gone");
                use_batch(&batch);
            }
            Ok(None) => break assert_eq!(before, 0),
            Err(_) => break assert_eq!(rest.len(), before, "after an error the bytes are as they were"),
        }
    }
}

/// Everything that a broker or a client does with a batch from outside.
fn use_batch(batch: &Batch) {
    let _ = batch.verify_crc();
    let checked = batch.check_records(LIMIT_BYTES);
    if let Ok(section) = batch.records_section(LIMIT_BYTES) {
        assert!(section.len() <= LIMIT_BYTES);
        as_section(&section);
    }
    let Ok(records) = batch.records(LIMIT_BYTES) else {
        return assert!(checked.is_err(), "a section that can't be had was checked");
    };
    let announced = usize::try_from(batch.header().record_count).unwrap_or(0);
    let mut failed = false;
    for (index, record) in records.enumerate() {
        assert!(!failed, "nothing follows an error");
        assert!(index <= announced, "no more records than announced, and an error");
        match record {
            Ok(record) => assert_eq!(record.headers.iter().count(), record.headers.len()),
            Err(_) => failed = true,
        }
    }
    let Ok((section, summary)) = checked else { return };
    assert!(!failed, "records that were checked can be read");
    // A module that changed nothing: the batch is built again.
    if let Ok(bytes) = rebuild(batch.header(), &section, &summary) {
        let again = Batch::parse(bytes).expect("what is built is a batch");
        again.verify_crc().expect("with its checksum");
        let (same, _) = again.check_records(LIMIT_BYTES).expect("and its records");
        assert_eq!(same, section);
    }
}

fn as_section(section: &[u8]) {
    let summary = record::check_section(section);
    let (mut count, mut bytes, mut failed) = (0, 0, false);
    for result in record::iterate(section) {
        assert!(!failed, "nothing follows an error");
        match result {
            Ok(record) => {
                assert_eq!(record.headers.iter().count(), record.headers.len(), "headers were checked with the record");
                count += 1;
                bytes += record.encoded.len();
            }
            Err(_) => failed = true,
        }
    }
    let front = record::read_front(section);
    assert!(failed || count == 0 || front.is_some(), "a whole record has a front");
    assert_eq!(summary.is_err(), failed, "both walks see the same");
    assert_eq!(record::renumber(section).is_err(), failed, "and so does the third");
    if let Ok(summary) = summary {
        assert_eq!((summary.record_count, bytes), (count, section.len()), "records follow each other without gaps");
    }
}

fn as_integers(bytes: &[u8]) {
    let mut rest = bytes;
    let narrow = varint::read_i32(&mut rest);
    let taken = bytes.len() - rest.len();
    assert!(taken <= varint::I32_BYTES_MAX && narrow.is_some() == (taken > 0));
    let mut rest = bytes;
    let wide = varint::read_i64(&mut rest);
    let taken = bytes.len() - rest.len();
    assert!(taken <= varint::I64_BYTES_MAX && wide.is_some() == (taken > 0));
    if let Some(narrow) = narrow {
        assert_eq!(wide, Some(i64::from(narrow)));
    }
}

fn as_compressed(codec: Codec, bytes: &[u8]) {
    let whole = compression::decompress(codec, bytes, LIMIT_BYTES);
    match &whole {
        Ok(out) => assert!(out.len() <= LIMIT_BYTES),
        Err(CompressionError::OverLimit { limit_bytes }) => assert_eq!(*limit_bytes, LIMIT_BYTES),
        Err(_) => {}
    }
    let Ok(whole) = whole else { return };
    // The limit is exact: what fits to the byte is given, one byte less is refused.
    assert_eq!(compression::decompress(codec, bytes, whole.len()).ok().as_ref(), Some(&whole));
    if let Some(less) = whole.len().checked_sub(1) {
        assert!(compression::decompress(codec, bytes, less).is_err(), "{codec} gives more than the limit");
    }
}

/// Takes the bytes for what a producer sends: keys, values and a header, cut where a byte says so.
fn as_content(codec: Codec, data: &[u8]) {
    let mut builder = BatchBuilder::new();
    let mut pushed = Vec::new();
    for chunk in data.split(|byte| *byte == b'\n').take(RECORDS_MAX) {
        let (key, value) = chunk.split_at(chunk.len() / 3);
        let timestamp = chunk.first_chunk().map_or(0, |bytes| i64::from_le_bytes(*bytes));
        let headers = [("h", Some(value))];
        let (key, value) = ((!key.is_empty()).then_some(key), (!value.is_empty()).then_some(value));
        let record = NewRecord { timestamp, key, value, headers: &headers[..chunk.len() % 2] };
        if builder.push(&record).is_ok() {
            pushed.push((timestamp, key, value));
        }
    }
    let Ok(bytes) = builder.finish(codec) else { return };
    let batch = Batch::parse(bytes).expect("the builder builds batches");
    batch.verify_crc().expect("with a checksum");
    let section = batch.records_section(usize::MAX).expect("that can be decompressed");
    let read: Vec<RecordRef<'_>> = record::iterate(&section).map(|record| record.expect("to records")).collect();
    assert_eq!(read.len(), pushed.len());
    for (record, (timestamp, key, value)) in read.iter().zip(&pushed) {
        let found = batch.header().base_timestamp.wrapping_add(record.timestamp_delta);
        assert_eq!((found, record.key, record.value), (*timestamp, *key, *value));
    }
}

const RECORDS_MAX: usize = 64;

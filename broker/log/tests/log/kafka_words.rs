//! What is in a log, in the words of Kafka's `DumpLogSegments --print-data-log`, so that the two can be compared line by line; and the
//! files that the tool has read so, to be known again.

use std::fmt::Write as _;
use std::path::Path;

use millpond_log::inspect::{IndexEntry, IndexWalk, Piece, SegmentWalk, WalkedBatch, segment_of};
use millpond_log::{Disk, OpenMode};
use millpond_protocol::batch::{Batch, MAGIC, checksum};
use millpond_protocol::record::Record;

/// What the tool prints of all the files of a log, given by their names in their order, and the gaps that it names, one a line.
///
/// A gap is where a record does not follow on the one before it; the tool takes every segment for one that begins with offset 0.
pub(crate) fn in_kafkas_words(disk: &dyn Disk, dir: &Path) -> (String, String) {
    let mut names: Vec<_> = disk.list(dir).expect("lists").into_iter().filter_map(|name| name.into_string().ok()).collect();
    names.sort();
    let (mut text, mut gaps) = (String::new(), String::new());
    for name in names {
        let path = dir.join(&name);
        let Some((base, extension)) = segment_of(&path) else { continue };
        line(&mut text, format_args!("Dumping {name}"));
        if extension == "log" {
            segment(&mut text, &mut gaps, disk, &path, base);
        } else {
            index(&mut text, disk, &path, base);
        }
    }
    (text, gaps)
}

/// Each file of a segment with its size and its checksum (CRC-32C), a line for each.
pub(crate) fn file_list(disk: &dyn Disk, dir: &Path) -> String {
    let mut names = disk.list(dir).expect("lists");
    names.sort();
    let mut text = String::new();
    for path in names.iter().map(|name| dir.join(name)).filter(|path| segment_of(path).is_some()) {
        let mut bytes = Vec::new();
        disk.open(&path, OpenMode::Read).and_then(|file| file.read_at(&mut bytes, FILE_BYTES_MAX, 0)).expect("reads");
        let shown = path.strip_prefix(dir.parent().expect("a folder of a folder")).expect("lies there").display();
        line(&mut text, format_args!("{shown} {} {:08x}", bytes.len(), checksum(&bytes)));
    }
    text
}

fn segment(text: &mut String, gaps: &mut String, disk: &dyn Disk, path: &Path, base: i64) {
    let name = path.file_name().and_then(|name| name.to_str()).expect("a name in digits");
    line(text, format_args!("Log starting offset: {base}"));
    let mut walk = SegmentWalk::open(disk, path, base, None).expect("opens");
    let mut last = -1;
    while let Some(piece) = walk.next_piece().expect("reads") {
        let Piece::Batch(found) = piece else { panic!("{name} is damaged: {piece:?}") };
        let loaded = walk.load(&found).expect("reads").expect("a small batch");
        batch(text, &found, &loaded);
        for (index, found) in loaded.records(RECORDS_BYTES_MAX).expect("decompresses").enumerate() {
            let found = found.expect("a record");
            if found.offset != last + 1 {
                line(gaps, format_args!("{name}: {last} is followed by {}", found.offset));
            }
            last = found.offset;
            record(text, &loaded, index, &found);
        }
    }
}

fn batch(text: &mut String, found: &WalkedBatch, batch: &Batch) {
    let header = &found.header;
    let codec = header.attributes.codec().expect("a known codec");
    let last_sequence = sequence(batch, i64::from(header.record_count) - 1);
    line(
        text,
        format_args!(
            "baseOffset: {} lastOffset: {} count: {} baseSequence: {} lastSequence: {last_sequence} producerId: {} producerEpoch: {} \
             partitionLeaderEpoch: {} isTransactional: {} isControl: {} deleteHorizonMs: OptionalLong.empty position: {} CreateTime: {} \
             size: {} magic: {MAGIC} compresscodec: {codec} crc: {} isvalid: {}",
            header.base_offset,
            header.next_offset() - 1,
            header.record_count,
            header.base_sequence,
            header.producer_id,
            header.producer_epoch,
            header.partition_leader_epoch,
            header.attributes.is_transactional(),
            header.attributes.is_control(),
            found.position,
            header.max_timestamp,
            header.total_bytes(),
            header.crc,
            batch.verify_crc().is_ok(),
        ),
    );
}

fn record(text: &mut String, batch: &Batch, index: usize, record: &Record) {
    let size = |part: &Option<bytes::Bytes>| part.as_ref().map_or(-1, |part| i64::try_from(part.len()).expect("small"));
    let names: Vec<String> = record.headers.iter().map(|(name, _)| name.to_string()).collect();
    let sequence = sequence(batch, i64::try_from(index).expect("small"));
    let mut shown = format!(
        "| offset: {} CreateTime: {} keySize: {} valueSize: {} sequence: {sequence} headerKeys: [{}]",
        record.offset,
        record.timestamp,
        size(&record.key),
        size(&record.value),
        names.join(","),
    );
    for (name, part) in [("key", &record.key), ("payload", &record.value)] {
        if let Some(part) = part {
            write!(shown, " {name}: {}", String::from_utf8_lossy(part)).expect("a string takes all");
        }
    }
    line(text, format_args!("{shown}"));
}

/// The sequence of the record with this index; -1 without a producer.
fn sequence(batch: &Batch, index: i64) -> i64 {
    let base = i64::from(batch.header().base_sequence);
    if base < 0 { -1 } else { base + index }
}

fn index(text: &mut String, disk: &dyn Disk, path: &Path, base: i64) {
    let mut walk = IndexWalk::open(disk, path, base).expect("opens");
    let mut entries = 0;
    while let Some((_, entry)) = walk.next_entry().expect("reads") {
        entries += 1;
        match entry {
            IndexEntry::Offset { offset, position } => line(text, format_args!("offset: {offset} position: {position}")),
            IndexEntry::Time { timestamp, offset } => line(text, format_args!("timestamp: {timestamp} offset: {offset}")),
        }
    }
    if entries == 0 && path.extension().is_some_and(|extension| extension == "index") {
        let name = path.file_name().and_then(|name| name.to_str()).expect("a name in digits");
        line(text, format_args!("{name} is empty."));
    }
}

fn line(text: &mut String, shown: std::fmt::Arguments<'_>) {
    writeln!(text, "{shown}").expect("a string takes all");
}

/// Larger than any file of the samples.
const FILE_BYTES_MAX: usize = 1 << 20;

/// What the records of one batch may take when they are decompressed.
const RECORDS_BYTES_MAX: usize = 1 << 20;

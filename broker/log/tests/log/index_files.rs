//! The index files, byte for byte.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use millpond_log::sim::{Random, SimDisk};
use millpond_log::{Disk, LogConfig};
use millpond_protocol::compression::Codec;

use crate::harness::{DIR, Fixture, batch, batch_with, config, files, random_batch};

const DENSE: LogConfig = config(4096, 300);

fn entry_offset(bytes: &[u8]) -> (u32, u32) {
    let half = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
    (half(0), half(4))
}

fn entry_time(bytes: &[u8]) -> (i64, u32) {
    let high: [u8; 8] = bytes[..8].try_into().expect("eight bytes");
    (i64::from_be_bytes(high), u32::from_be_bytes(bytes[8..12].try_into().expect("four bytes")))
}

/// As Kafka's `LogSegment.append` would write them for batches of 200 bytes, an entry after more than 300 bytes: for the batches at
/// positions 400, 800, ... with their last offsets.
#[test]
fn the_index_files_are_those_that_kafka_would_have_written() {
    let mut fixture = Fixture::new(DENSE);
    // 2 records each; the timestamps of the batches go up and down.
    let times = [1_000, 5_000, 3_000, 4_000, 6_000, 2_000, 7_000];
    for time in times {
        let one = batch_with(&[time, time - 1], 59, Codec::None);
        assert_eq!(one.bytes().len(), 200 - 5);
        fixture.append(&[one]);
    }
    let fixture = fixture.close_and_reopen(0).0;
    fixture.log.close().expect("closes");
    let bytes = |name: &str| fixture.disk.bytes(&Path::new(DIR).join(name)).expect("an index");
    // The third batch begins at 390, which is the first time that more than 300 bytes lie behind an entry or the start.
    let offsets: Vec<_> = bytes("00000000000000000000.index").chunks(8).map(entry_offset).collect();
    assert_eq!(offsets, [(5, 390), (9, 780), (13, 1170)]);
    // The largest timestamp so far, and the last offset of its batch. The last batch brings one with its own entry; nothing is left to
    // add on closing.
    let times: Vec<_> = bytes("00000000000000000000.timeindex").chunks(12).map(entry_time).collect();
    assert_eq!(times, [(5_000, 3), (6_000, 9), (7_000, 13)]);
}

#[test]
fn closing_a_segment_adds_the_largest_timestamp_once() {
    let mut fixture = Fixture::new(DENSE);
    fixture.append(&[batch_with(&[9_000], 10, Codec::None), batch_with(&[8_000], 10, Codec::None)]);
    for seed in 0..3 {
        fixture = fixture.close_and_reopen(seed).0;
    }
    fixture.log.close().expect("closes");
    let times = fixture.disk.bytes(&Path::new(DIR).join("00000000000000000000.timeindex")).expect("an index");
    assert_eq!(times.chunks(12).map(entry_time).collect::<Vec<_>>(), [(9_000, 0)]);
}

#[test]
fn relative_offsets_count_from_the_segment() {
    let mut fixture = Fixture::new(DENSE);
    fixture.append(&vec![batch(2, 500); 10]);
    fixture.log.close().expect("closes");
    let path = &files(&fixture.disk, ".index")[1];
    assert!(path.ends_with("00000000000000000006.index"));
    let offsets: Vec<_> = fixture.disk.bytes(path).expect("an index").chunks(8).map(entry_offset).collect();
    assert_eq!(offsets.iter().map(|entry| entry.0).collect::<Vec<_>>(), [3, 5]);
}

/// A flushed log of several segments with rising timestamps, and its index files.
fn several_segments(seed: u64) -> (Fixture, BTreeMap<PathBuf, Vec<u8>>) {
    let mut fixture = Fixture::new(DENSE);
    let mut random = Random::new(seed);
    for clock in 0..60 {
        fixture.append(&[random_batch(&mut random, clock * 1_000)]);
    }
    let (mut fixture, _) = fixture.close_and_reopen(seed);
    // With the note, an index of the last segment that has its size would not be looked at.
    fixture.disk.remove_file(&Path::new(DIR).join("clean-stop")).expect("the log was closed in order");
    assert!(fixture.reopen().is_clean());
    let indexes = index_files(&fixture.disk);
    (fixture, indexes)
}

fn index_files(disk: &SimDisk) -> BTreeMap<PathBuf, Vec<u8>> {
    files(disk, "index").into_iter().map(|path| (path.clone(), disk.bytes(&path).expect("an index"))).collect()
}

#[test]
fn an_index_that_is_missing_garbled_or_cut_is_built_again_byte_for_byte() {
    let (fixture, indexes) = several_segments(3);
    drop(fixture);
    for (number, path) in indexes.keys().enumerate() {
        for damage in 0..6 {
            let (mut fixture, before) = several_segments(3);
            let bytes = before[path].len();
            match damage {
                0 => fixture.disk.remove_file(path).expect("it is there"),
                1 => fixture.disk.damage(path, Vec::clear),
                2 => fixture.disk.damage(path, |bytes| bytes.truncate(bytes.len().saturating_sub(1))),
                3 => fixture.disk.damage(path, |bytes| bytes.truncate(bytes.len() / 24 * 12)),
                4 => fixture.disk.damage(path, |bytes| bytes.fill(0xff)),
                _ => fixture.disk.damage(path, |bytes| bytes.extend_from_slice(&[0; 24])),
            }
            let changed = fixture.disk.bytes(path).ok() != Some(before[path].clone());
            let report = fixture.reopen();
            let is_last = number >= indexes.len() - 2;
            if changed && (damage == 0 || !is_last) {
                assert_eq!(report.rebuilt_indexes, std::slice::from_ref(path), "damage {damage} to {bytes} bytes");
            }
            assert_eq!(index_files(&fixture.disk), before, "damage {damage} to {}", path.display());
            fixture.check();
        }
    }
}

#[test]
fn an_index_that_lies_in_the_middle_costs_time_and_no_truth() {
    let mut random = Random::new(9);
    for round in 0..100 {
        let (mut fixture, indexes) = several_segments(4);
        for (path, bytes) in indexes {
            // All entries but the last, which an opening checks.
            let entry = if path.extension().is_some_and(|extension| extension == "index") { 8 } else { 12 };
            let last = bytes.len().saturating_sub(entry);
            fixture.disk.damage(&path, |bytes| bytes[..last].fill_with(|| random.next_u64().to_le_bytes()[0]));
        }
        fixture.reopen();
        fixture.check();
        let reader = fixture.log.reader();
        for stored in &fixture.model {
            assert_eq!(reader.read(stored.base, 1, i64::MAX).expect("reads"), stored.bytes, "round {round}");
        }
        for clock in 0..60 {
            crate::time::check_find_time(&reader, &fixture.model, clock * 1_000, i64::MAX);
        }
    }
}

#[test]
fn an_entry_that_names_another_batch_is_not_believed() {
    let (fixture, indexes) = several_segments(5);
    drop(fixture);
    for (path, bytes) in &indexes {
        let of_times = path.extension().is_some_and(|extension| extension == "timeindex");
        let entry = if of_times { 12 } else { 8 };
        for number in 0..(bytes.len() / entry).saturating_sub(1) {
            let (mut fixture, _) = several_segments(5);
            let at = number * entry;
            fixture.disk.damage(path, |bytes| {
                if of_times {
                    // A time too early: what lies before would be skipped.
                    let earlier = if number == 0 { 0 } else { entry_time(&bytes[at - 12..]).0 + 1 };
                    bytes[at..at + 8].copy_from_slice(&earlier.to_be_bytes());
                } else {
                    // The position of a later batch.
                    bytes.copy_within(at + 12..at + 16, at + 4);
                }
            });
            fixture.reopen();
            let reader = fixture.log.reader();
            for stored in &fixture.model {
                assert_eq!(reader.read(stored.base, 1, i64::MAX).expect("reads"), stored.bytes);
            }
            for timestamp in (0..60_000).step_by(170) {
                crate::time::check_find_time(&reader, &fixture.model, timestamp, i64::MAX);
            }
        }
    }
}

#[test]
fn an_index_deleted_while_the_log_is_open_is_done_without() {
    let (mut fixture, indexes) = several_segments(6);
    fixture.reopen();
    for path in indexes.keys() {
        fixture.disk.remove_file(path).expect("it is there");
    }
    fixture.check();
    for stored in &fixture.model {
        assert_eq!(fixture.log.reader().read(stored.base, 1, i64::MAX).expect("reads"), stored.bytes);
    }
}

#[test]
fn another_index_interval_is_taken_up_at_the_next_opening() {
    let (mut fixture, _) = several_segments(7);
    for index_interval_bytes in [0, 100, 5_000, 300] {
        fixture.config.index_interval_bytes = index_interval_bytes;
        fixture.reopen();
        fixture.check();
        fixture.append(&[batch(1, 900)]);
    }
}

#[test]
fn entries_go_to_the_file_once_many_have_gathered_and_are_found_there() {
    let mut fixture = Fixture::new(config(1 << 30, 0));
    let times: Vec<i64> = (0..3_000).collect();
    for time in &times {
        fixture.append(&[batch_with(&[*time], 10, Codec::None)]);
    }
    let spilled = fixture.disk.bytes(&Path::new(DIR).join("00000000000000000000.index")).expect("an index").len();
    assert!(spilled > 0 && spilled < 8 * 3_000, "{spilled} bytes of the index are in the file");
    let reader = fixture.log.reader();
    for offset in (0..3_000).step_by(37) {
        let expected = &fixture.model[usize::try_from(offset).expect("not negative")];
        assert_eq!(reader.read(offset, 1, i64::MAX).expect("reads"), expected.bytes);
        assert_eq!(reader.find_time(offset, i64::MAX).expect("finds"), Some((offset, offset)));
    }
    fixture.reopen();
    fixture.check();
}

//! Compaction: what is left of a log.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use millpond_log::inspect::{RepairMode, RepairPlan};
use millpond_log::{Disk, LogError};
use millpond_protocol::batch::HEADER_BYTES;
use millpond_protocol::compression::Codec;

use crate::compacted::{CONFIG, Compacting, DAY_MS, NOON_MS, Quiet, Row, batch_of, compaction, filled, finish, row, rows_of};
use crate::harness::{DIR, batches, config, files, open};

#[test]
fn the_latest_record_of_each_key_is_left_at_its_offset_and_the_files_become_few() {
    let mut compacting = filled(30);
    let before = (compacting.log.size_bytes(), compacting.log.reader().segments().len());
    let done = compacting.compact().expect("there is enough");
    let after = (compacting.log.size_bytes(), compacting.log.reader().segments().len());
    assert_eq!((done.bytes_before, done.segments_before), (before.0, before.1 as u64 - 1));
    assert_eq!((done.bytes_after, done.segments_after), (after.0, after.1 as u64 - 1));
    assert!(before.1 > 20 && after.1 == 2 && after.0 < before.0 / 20, "{before:?} {after:?}");
    assert_eq!(done.records_removed, (compacting.model.records.len() - compacting.rows().len()) as u64);
    assert_eq!((done.from, done.to), (0, compacting.model.end()));

    // Nothing is left of files that were replaced, or written on the way.
    assert_eq!(files(&compacting.disk, ".log").len(), 2);
    assert!(files(&compacting.disk, ".cleaned").is_empty() && files(&compacting.disk, "compaction").is_empty());
    assert_eq!(compacting.compact(), None, "nothing is dirty");
    compacting.reopen(CONFIG);
    compacting.model.check(&compacting.log.reader());
    assert_eq!(compacting.compact(), None, "nor after a restart");
}

#[test]
fn the_indexes_of_what_was_compacted_are_as_an_opening_wants_them() {
    let mut compacting = Compacting::new(config(20_000, 200));
    for number in 0..400 {
        let timestamp = 1_000 + number;
        compacting.append(&[Row { timestamp, ..row(&format!("{}", number % 150), Some(&"v".repeat(50))) }], Codec::None);
    }
    compacting.settle();
    compacting.compact().expect("there is enough");
    assert!(files(&compacting.disk, ".index").iter().any(|path| !compacting.disk.bytes(path).expect("is there").is_empty()));
    let reader = compacting.log.reader();
    // 250 to 399 are left.
    for (timestamp, expected) in [(0, 250), (1_100, 250), (1_250, 250), (1_251, 251), (1_399, 399)] {
        assert_eq!(reader.find_time(timestamp, i64::MAX).expect("looks").map(|(offset, _)| offset), Some(expected), "{timestamp}");
    }
    drop(reader);
    let (log, report) = open(&compacting.disk, config(20_000, 200));
    assert!(report.is_clean(), "{report:?}");
    log.close().expect("closes");
}

#[test]
fn a_batch_of_which_nothing_goes_keeps_its_bytes_and_one_that_is_gone_leaves_its_offsets() {
    let mut compacting = Compacting::new(config(1 << 20, 200));
    compacting.append(&[row("a", Some("1")), row("b", Some("1"))], Codec::Lz4);
    compacting.append(&[row("a", Some("2"))], Codec::None);
    compacting.append(&[row("b", Some("2")), row("c", Some("2"))], Codec::Zstd);
    compacting.append(&[row("a", Some("3")), row("b", Some("3"))], Codec::Gzip);
    let last = batches(compacting.log.reader().read(5, 1 << 20, i64::MAX).expect("reads"));
    compacting.settle();
    compacting.compact().expect("there is enough");
    let left = batches(compacting.log.reader().read(0, 1 << 20, i64::MAX).expect("reads"));
    let seen: Vec<_> =
        left.iter().map(|batch| (batch.header().base_offset, batch.header().last_offset(), batch.header().record_count)).collect();
    assert_eq!(seen, [(0, 2, 0), (3, 4, 1), (5, 6, 2)]);
    assert_eq!(left[0].bytes().len(), HEADER_BYTES);
    assert_eq!(left[1].header().attributes.codec(), Ok(Codec::Zstd));
    assert_eq!(left[2].bytes(), last[0].bytes());
}

#[test]
fn records_without_a_key_are_kept() {
    let mut compacting = Compacting::new(CONFIG);
    let keyless = |value: &str| Row { key: None, ..row("", Some(value)) };
    compacting.append(&[keyless("1"), row("a", Some("1")), row("", Some("an empty key is one"))], Codec::None);
    compacting.append(&[keyless("2"), row("a", Some("2")), row("", Some("of them all"))], Codec::None);
    compacting.settle();
    assert_eq!(compacting.compact().expect("there is enough").records_removed, 2);
    assert_eq!(compacting.offsets(), [0, 3, 4, 5]);
}

#[test]
fn a_tombstone_stays_for_its_time_and_takes_every_value_with_it() {
    let mut compacting = Compacting::new(CONFIG);
    let day = DAY_MS.cast_signed();
    let more = |compacting: &mut Compacting| {
        compacting.append(&[row("filler", Some(&"x".repeat(100)))], Codec::None);
        compacting.settle();
    };
    compacting.append(&[row("a", Some("1")), row("b", Some("1"))], Codec::Lz4);
    compacting.append(&[Row { timestamp: -5, ..row("a", None) }, Row { timestamp: 77, ..row("b", Some("2")) }], Codec::Lz4);
    more(&mut compacting);
    compacting.compact().expect("there is enough");
    assert_eq!(compacting.offsets(), [2, 3, 4]);
    let dated = &batches(compacting.log.reader().read(2, 1 << 20, i64::MAX).expect("reads"))[0];
    let header = dated.header();
    assert!(header.attributes.has_delete_horizon());
    assert_eq!((header.base_timestamp, header.max_timestamp), (NOON_MS + day, 77));
    assert_eq!(rows_of(dated).iter().map(|(_, row)| row.timestamp).collect::<Vec<_>>(), [-5, 77]);

    compacting.now_ms = NOON_MS + day - 1;
    more(&mut compacting);
    compacting.compact().expect("there is enough");
    assert_eq!(compacting.offsets(), [2, 3, 5], "its time has not come");
    // A clock that was not set says nothing.
    compacting.now_ms = 3_600_000;
    more(&mut compacting);
    compacting.compact().expect("there is enough");
    assert_eq!(compacting.offsets(), [2, 3, 6]);
    compacting.now_ms = NOON_MS + day;
    more(&mut compacting);
    compacting.compact().expect("there is enough");
    assert_eq!(compacting.offsets(), [3, 7]);
}

#[test]
fn without_a_clock_no_tombstone_is_dated() {
    let mut compacting = Compacting::new(CONFIG);
    compacting.now_ms = 1_000;
    for round in 0..4 {
        compacting.append(&[row("a", None), row("b", Some(&round.to_string()))], Codec::None);
        compacting.settle();
        compacting.compact().expect("there is enough");
        let (_, last) = compacting.offsets().len().checked_sub(1).map(|last| (last, compacting.rows()[0].clone())).expect("two");
        assert_eq!(last.0, round * 2, "the tombstone is there");
    }
    let left = batches(compacting.log.reader().read(6, 1 << 20, i64::MAX).expect("reads"));
    assert!(left.iter().all(|batch| !batch.header().attributes.has_delete_horizon()));
}

#[test]
fn a_map_that_is_too_small_takes_several_passes() {
    let mut compacting = Compacting::new(CONFIG);
    for number in 0..300 {
        compacting.append(&[row(&format!("{}", number % 100), Some(&number.to_string())), row("all", Some("x"))], Codec::None);
    }
    compacting.settle();
    compacting.compactor = compacting.log.compactor().with_key_map_bytes(24 * 40);
    let mut passes = 0;
    while let Some(done) = compacting.compact() {
        assert!(done.to > done.from);
        passes += 1;
        if passes == 5 {
            // The next opening goes on where this one has left off.
            compacting.reopen(CONFIG);
            compacting.compactor = compacting.log.compactor().with_key_map_bytes(24 * 40);
        }
    }
    assert!(passes > 8, "{passes}");
    assert_eq!(compacting.rows().len(), 101);
}

#[test]
fn what_is_not_worth_it_is_not_written() {
    let mut compacting = filled(30);
    compacting.compact().expect("there is enough");
    let unique = |compacting: &mut Compacting, from: usize, to: usize| {
        (from..to).for_each(|number| compacting.append(&[row(&format!("unique {number}"), Some(&"x".repeat(100)))], Codec::None));
        compacting.settle();
    };
    // Little is dirty.
    unique(&mut compacting, 0, 1);
    let ask = |compacting: &mut Compacting| {
        let half = millpond_log::Compaction { dirty_percent_min: 50, ..compaction(i64::MAX, NOON_MS) };
        compacting.compactor.begin(half).expect("begins")
    };
    assert!(ask(&mut compacting).is_none());
    // Much is, but nothing of it goes.
    unique(&mut compacting, 1, 60);
    let mut pass = ask(&mut compacting).expect("there is enough");
    let segments = compacting.log.reader().segments();
    let (done, replaced) = finish(&mut compacting.compactor, &mut pass).expect("compacts");
    assert_eq!((done.records_removed, done.bytes_before), (0, done.bytes_after));
    assert!(replaced.iter().all(|range| range.end < segments[3].base_offset), "full segments are left alone: {replaced:?}");
    assert!(ask(&mut compacting).is_none());
}

#[test]
fn nothing_behind_the_high_watermark_or_the_last_flush_is_touched() {
    let mut compacting = Compacting::new(CONFIG);
    for number in 0..60 {
        compacting.append(&[row("k", Some(&"x".repeat(50 + number)))], Codec::None);
    }
    assert!(compacting.compactor.begin(compaction(i64::MAX, NOON_MS)).expect("begins").is_none(), "nothing is flushed");
    compacting.settle();
    assert!(compacting.compactor.begin(compaction(0, NOON_MS)).expect("begins").is_none(), "nothing is to be seen");
    let mut pass = compacting.compactor.begin(compaction(30, NOON_MS)).expect("begins").expect("there is enough");
    let (done, _) = finish(&mut compacting.compactor, &mut pass).expect("compacts");
    assert!((20..=30).contains(&done.to), "{done:?}");
    assert_eq!(compacting.offsets(), (done.to - 1..60).collect::<Vec<_>>());
}

#[test]
fn a_damaged_segment_is_left_alone_with_all_that_it_may_hide() {
    let mut compacting = Compacting::new(config(300, 200));
    let filler = "x".repeat(100);
    for round in 0..6 {
        compacting.append(&[row("a", (round < 5).then_some(&*filler)), row("b", Some(&filler))], Codec::None);
    }
    compacting.settle();
    let segments = files(&compacting.disk, ".log");
    assert_eq!(segments.len(), 7);
    // Offsets 4 and 5.
    let damaged = segments[2].clone();
    compacting.disk.damage(&damaged, |bytes| bytes[100] ^= 1);
    compacting.reopen(config(300, 200));
    for (now_ms, more) in [(NOON_MS, "1"), (NOON_MS + 2 * DAY_MS.cast_signed(), "2")] {
        compacting.now_ms = now_ms;
        compacting.log.append(&[batch_of(&[row("c", Some(more))], Codec::None)], 0).expect("appends");
        compacting.settle();
        let mut pass = compacting.compactor.begin(compaction(i64::MAX, now_ms)).expect("begins").expect("there is enough");
        let (done, replaced) = finish(&mut compacting.compactor, &mut pass).expect("compacts");
        assert_eq!(done.segments_damaged, 1);
        assert!(replaced.iter().all(|range| range.end <= 4 || range.start >= 6), "{replaced:?}");
    }
    assert!(matches!(compacting.log.reader().read(4, 1 << 20, i64::MAX), Err(LogError::Corrupt { .. })));
    let offsets: Vec<i64> = compacting.rows_from(6).iter().map(|(offset, _)| *offset).collect();
    assert_eq!(offsets, [10, 11, 13], "the tombstone of `a` stays: the damaged segment has a value");
}

#[test]
fn a_log_that_was_repaired_is_compacted_from_its_start_again() {
    let mut compacting = filled(6);
    compacting.compact().expect("there is enough");
    let noted = PathBuf::from(DIR).join("compacted-to");
    assert!(compacting.disk.exists(&noted).expect("looks"));
    let first = files(&compacting.disk, ".log")[0].clone();
    compacting.log.close().expect("closes");
    compacting.disk.damage(&first, |bytes| *bytes.last_mut().expect("it has bytes") ^= 1);
    let disk: Arc<dyn Disk> = Arc::new(compacting.disk.clone());
    let plan = RepairPlan::new(&*disk, Path::new(DIR), RepairMode::DropBatch, &mut Quiet);
    plan.expect("it can be repaired").apply(&disk).expect("repairs");
    assert!(!compacting.disk.exists(&noted).expect("looks"));
}

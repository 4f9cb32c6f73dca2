//! Files that are not as they were left.

use std::path::Path;

use millpond_log::sim::{Operation, Random};
use millpond_log::{Damage, Disk, LogError, OpenMode};

use crate::harness::{DIR, Fixture, ROOMY, SMALL, batch, files, open, random_batch, read_all};

/// A log of one segment with some batches, all durable.
fn one_segment() -> Fixture {
    let mut fixture = Fixture::new(ROOMY);
    fixture.append(&[batch(2, 30), batch(1, 50), batch(3, 20)]);
    fixture.flush();
    fixture
}

#[test]
fn a_tail_torn_at_any_byte_is_cut_to_the_last_whole_batch() {
    let last = one_segment().model[2].bytes.len();
    for left in 0..last {
        let mut fixture = one_segment();
        let path = fixture.segments()[0].clone();
        fixture.disk.damage(&path, |bytes| bytes.truncate(bytes.len() - last + left));
        let report = fixture.reopen();
        fixture.model.pop();
        fixture.check();
        assert_eq!(report.truncated_bytes, left as u64);
        assert_eq!(report.cut.is_some(), left > 0, "{left} bytes of the last batch are left: {report:?}");
        if let Some(cut) = report.cut {
            let whole: usize = fixture.model.iter().map(|stored| stored.bytes.len()).sum();
            assert_eq!((cut.segment, cut.position, cut.next_offset), (0, whole as u64, 3));
            match cut.reason {
                Damage::HeaderCutOff { left_bytes } => assert!(left < 61 && left_bytes == left as u64),
                Damage::BatchCutOff { left_bytes, .. } => assert!(left >= 61 && left_bytes == left as u64),
                other => panic!("cut off at {left}, but {other}"),
            }
        }
        // The log goes on where it was cut, and stays so.
        fixture.append(&[batch(1, 10)]);
        fixture.flush();
        assert!(fixture.reopen().is_clean());
        fixture.check();
    }
}

#[test]
fn a_bit_flipped_anywhere_in_the_last_batch_cuts_it_off() {
    let last = one_segment().model[2].bytes.len();
    for bit in 0..last * 8 {
        // The leader epoch is the broker's, and outside the checksum.
        if (12 * 8..16 * 8).contains(&bit) {
            continue;
        }
        let mut fixture = one_segment();
        let path = fixture.segments()[0].clone();
        fixture.disk.damage(&path, |bytes| {
            let start = bytes.len() - last;
            bytes[start + bit / 8] ^= 1 << (bit % 8);
        });
        let report = fixture.reopen();
        fixture.model.pop();
        fixture.check();
        assert_eq!(report.truncated_bytes, last as u64, "bit {bit}");
        assert!(report.cut.is_some());
    }
}

#[test]
fn zeros_and_garbage_behind_the_last_batch_are_cut_off() {
    for (filler, count) in [(0, 1), (0, 5000), (0xff, 61), (2, 3000)] {
        let mut fixture = one_segment();
        let path = fixture.segments()[0].clone();
        fixture.disk.damage(&path, |bytes| bytes.resize(bytes.len() + count, filler));
        assert_eq!(fixture.reopen().truncated_bytes, count as u64);
        fixture.check();
    }
}

#[test]
fn a_whole_batch_with_the_wrong_offset_does_not_pass_for_the_next_one() {
    let mut fixture = one_segment();
    let stale = fixture.model[1].bytes.clone();
    let path = fixture.segments()[0].clone();
    fixture.disk.damage(&path, |bytes| bytes.extend_from_slice(&stale));
    let report = fixture.reopen();
    assert!(matches!(report.cut.map(|cut| cut.reason), Some(Damage::UnexpectedOffset { expected: 6, found: 2 })));
    fixture.check();
}

#[test]
fn what_was_cut_does_not_come_back_after_a_power_cut() {
    for seed in 0..50 {
        let mut fixture = one_segment();
        let path = fixture.segments()[0].clone();
        let stale = fixture.model[2].bytes.clone();
        fixture.disk.damage(&path, |bytes| {
            let end = bytes.len();
            bytes[end - 1] ^= 1;
            bytes.extend_from_slice(&stale);
        });
        fixture.reopen();
        fixture.disk.crash(seed);
        assert!(fixture.reopen().is_clean());
        fixture.model.pop();
        fixture.check();
    }
}

#[test]
fn a_last_segment_without_bytes_or_without_a_header_is_kept_and_used() {
    for left in [0, 1, 60] {
        let mut fixture = Fixture::new(SMALL);
        fixture.append(&vec![batch(1, 700); 12]);
        fixture.flush();
        let last = fixture.segments().pop().expect("segments");
        fixture.disk.damage(&last, |bytes| bytes.truncate(left));
        let report = fixture.reopen();
        assert_eq!(report.truncated_bytes, left as u64);
        let base: i64 = last.file_stem().and_then(|stem| stem.to_str()).and_then(|digits| digits.parse().ok()).expect("digits");
        fixture.model.retain(|stored| stored.base < base);
        fixture.check();
        fixture.append(&vec![batch(1, 700); 12]);
        fixture.check();
    }
}

#[test]
fn damage_in_an_older_segment_is_never_cut_and_fails_the_reads_that_meet_it() {
    let mut random = Random::new(5);
    for _ in 0..200 {
        let mut fixture = Fixture::new(SMALL);
        for _ in 0..40 {
            fixture.append(&[random_batch(&mut random, 0)]);
        }
        fixture.flush();
        let segments = fixture.segments();
        let segment = &segments[usize::try_from(random.below(segments.len() as u64 - 1)).expect("small")];
        let mut left = fixture.disk.bytes(segment).expect("a segment");
        let place = usize::try_from(random.below(left.len() as u64)).expect("small");
        fixture.disk.damage(segment, |bytes| {
            bytes[place] ^= 0x40;
            left.clone_from(bytes);
        });
        fixture.reopen();
        assert_eq!(fixture.log.log_end(), fixture.end(), "nothing is cut");
        assert!(fixture.disk.bytes(segment).expect("still there") == left, "nothing is changed");

        // The damaged batch, and where in it the damage is.
        let mut at = 0;
        let segment_base: i64 = segment.file_stem().and_then(|stem| stem.to_str()).and_then(|digits| digits.parse().ok()).expect("digits");
        let damaged = fixture.model.iter().find(|stored| {
            at += if stored.base < segment_base { 0 } else { stored.bytes.len() };
            at > place
        });
        let damaged = damaged.expect("the damage lies in some batch").clone();
        let in_batch = place + damaged.bytes.len() - at;
        if (12..16).contains(&in_batch) {
            continue;
        }
        let reader = fixture.log.reader();
        match reader.read(damaged.base, 1, i64::MAX) {
            Err(LogError::Corrupt { path, position, .. }) => {
                assert_eq!(&path, segment);
                assert_eq!(position, (place - in_batch) as u64, "the position is the start of the batch");
            }
            other => panic!("byte {in_batch} of a batch is damaged, but {other:?}"),
        }
        // All before it can be read, and what comes later too, from an offset that the index finds.
        for stored in fixture.model.iter().filter(|stored| stored.base < damaged.base) {
            assert_eq!(reader.read(stored.base, 1, i64::MAX).expect("whole"), stored.bytes);
        }
        let behind = fixture.model.iter().filter(|stored| stored.base >= damaged.next);
        let readable = behind.filter(|stored| reader.read(stored.base, 1, i64::MAX).is_ok_and(|read| read == stored.bytes)).count();
        let last_segment: i64 = segments.last().and_then(|path| path.file_stem()?.to_str()?.parse().ok()).expect("digits");
        assert!(readable >= fixture.model.iter().filter(|stored| stored.base >= last_segment).count());
        assert!(matches!(read_all(&reader, 0, 1 << 20), Err(LogError::Corrupt { .. })));
        // And the log goes on.
        fixture.append(&[batch(1, 10)]);
    }
}

#[test]
fn an_older_segment_that_lost_its_end_is_reported_and_the_rest_is_kept() {
    let mut fixture = Fixture::new(SMALL);
    fixture.append(&vec![batch(1, 700); 20]);
    fixture.flush();
    let second = fixture.segments()[1].clone();
    let one = fixture.model[0].bytes.len();
    fixture.disk.damage(&second, |bytes| bytes.truncate(bytes.len() - one));
    let report = fixture.reopen();
    assert_eq!(report.damaged.len(), 1);
    assert_eq!(report.damaged[0].path, second);
    let missing = fixture.model[9].base;
    let error = fixture.log.reader().read(missing, 1, i64::MAX).expect_err("the batch is gone");
    assert!(matches!(error, LogError::Corrupt { reason: Damage::OffsetsMissing { next_base: 10 }, .. }), "{error}");
    assert_eq!(fixture.log.reader().read(10, 1, i64::MAX).expect("the next segment"), fixture.model[10].bytes);
    assert!(fixture.log.reader().find_time(2_000, i64::MAX).is_err(), "nobody can say what the lost batch held");
}

#[test]
fn without_a_recovery_point_only_the_last_segment_may_be_cut() {
    let mut fixture = Fixture::new(SMALL);
    fixture.append(&vec![batch(1, 700); 20]);
    fixture.flush();
    fixture.disk.remove_file(&Path::new(DIR).join("recovery-point")).expect("it is there");
    let first = fixture.segments()[0].clone();
    fixture.disk.damage(&first, |bytes| bytes[100] ^= 1);
    fixture.reopen();
    assert_eq!(fixture.log.log_end(), 20);
    assert!(matches!(fixture.log.reader().read(0, 1, 20), Err(LogError::Corrupt { position: 0, .. })));
}

#[test]
fn segments_that_nobody_flushed_are_cut_at_the_first_hole_and_kept_behind_it() {
    let mut fixture = Fixture::new(SMALL);
    fixture.append(&vec![batch(1, 700); 20]);
    let second = fixture.segments()[1].clone();
    let one = fixture.model[0].bytes.len();
    // The sector in which the batch begins was not written again for it.
    fixture.disk.damage(&second, |bytes| bytes[one..1024].fill(0));
    let before: Vec<_> = fixture.segments().iter().map(|path| fixture.disk.bytes(path).expect("a segment")).collect();
    let report = fixture.reopen();
    let cut = report.cut.expect("the log was cut");
    assert_eq!((cut.segment, cut.position, cut.next_offset), (5, one as u64, 6));
    assert_eq!(report.removed_segments, [15, 10]);
    assert_eq!(report.truncated_bytes, 14 * one as u64);
    assert_eq!(fixture.segments().len(), 2);
    assert_eq!((files(&fixture.disk, ".index").len(), files(&fixture.disk, ".timeindex").len()), (2, 2));
    let kept: Vec<u8> = files(&fixture.disk, ".removed-1").iter().flat_map(|path| fixture.disk.bytes(path).expect("kept")).collect();
    assert!(kept == [&before[1][one..], &before[2], &before[3]].concat(), "all that was cut off");
    let said: Vec<_> = report.set_aside.iter().map(|part| (part.position, part.offsets.clone(), part.kept.is_some())).collect();
    assert_eq!(said, [(0, 15..20, true), (0, 10..15, true), (one as u64, 6..10, true)]);
    fixture.model.truncate(6);
    fixture.check();
}

#[test]
fn leftovers_are_removed_and_strangers_are_not() {
    let mut fixture = one_segment();
    let leftovers = ["recovery-point.tmp", "00000000000000000099.index", "00000000000000000000.timeindex.tmp"];
    for name in leftovers.iter().chain(&["notes.txt"]) {
        fixture.disk.open(&Path::new(DIR).join(name), OpenMode::CreateNew).expect("creates");
    }
    let report = fixture.reopen();
    assert_eq!(report.removed_leftovers.len(), 3);
    assert_eq!(files(&fixture.disk, "").len(), 6, "three files of the segment, the log start, the recovery point and the stranger");
    assert!(fixture.reopen().is_clean());
}

#[test]
fn offsets_are_not_given_out_again_when_all_segments_are_gone() {
    let mut fixture = Fixture::new(SMALL);
    fixture.append(&vec![batch(1, 700); 20]);
    fixture.flush();
    for path in fixture.segments() {
        fixture.disk.remove_file(&path).expect("it is there");
    }
    fixture.reopen();
    assert_eq!((fixture.log.log_start(), fixture.log.log_end()), (0, 15));
    assert!(matches!(fixture.log.reader().read(3, 1, i64::MAX), Err(LogError::Corrupt { .. })));
}

#[test]
fn opening_a_log_reads_only_the_last_segment_in_full() {
    let mut fixture = Fixture::new(SMALL);
    fixture.append(&vec![batch(1, 700); 100]);
    fixture.flush();
    let last = fixture.segments().pop().expect("segments");
    let report = fixture.reopen();
    assert_eq!(report.scanned_bytes, fixture.disk.bytes(&last).expect("a segment").len() as u64);
}

#[test]
fn an_open_that_fails_says_where_and_can_be_repeated() {
    let mut fixture = Fixture::new(SMALL);
    fixture.append(&vec![batch(1, 700); 20]);
    fixture.flush();
    for nth in 1.. {
        let before = fixture.disk.count(Operation::Read);
        fixture.disk.fail(Operation::Read, nth, millpond_log::sim::Fault::Device);
        let outcome = crate::harness::try_open(&fixture.disk, SMALL);
        let reads = fixture.disk.count(Operation::Read) - before;
        if reads < nth {
            break;
        }
        if let Err(error) = outcome {
            assert!(matches!(error, LogError::Io { .. }), "{error}");
        }
        let (log, _) = open(&fixture.disk, SMALL);
        fixture.log = log;
        fixture.check();
    }
}

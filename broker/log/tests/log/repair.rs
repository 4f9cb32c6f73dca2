//! Repairs: what is lost, what is kept, and the power that goes in the middle.

use std::path::Path;
use std::sync::Arc;

use millpond_log::inspect::{RepairMode, RepairPlan};
use millpond_log::sim::{Random, SimDisk};
use millpond_log::{Disk, OpenMode};
use millpond_protocol::batch::Batch;
use proptest::prelude::*;

use crate::harness::{DIR, Fixture, SMALL, Stored, files, open, random_batch, read_all};
use crate::inspect::{closed_log, look, plan, segment};

fn repair(disk: &SimDisk, mode: RepairMode) -> RepairPlan {
    let plan = plan(disk, mode);
    plan.apply(&(Arc::new(disk.clone()) as Arc<dyn Disk>)).expect("is repaired");
    plan
}

/// The batches that can be read, without the empty ones.
fn readable(disk: &SimDisk) -> Vec<Stored> {
    let (log, _) = open(disk, SMALL);
    let all = read_all(&log.reader(), log.log_start(), 1 << 20).expect("nothing is damaged");
    let batches = crate::harness::batches(all.into());
    let full = batches.iter().filter(|batch| batch.header().record_count > 0);
    full.map(|batch| Stored { base: batch.header().base_offset, next: batch.header().next_offset(), bytes: batch.bytes().to_vec() })
        .collect()
}

/// Something that is done to the bytes of a file.
type Change = fn(&mut Vec<u8>);

#[test]
fn wrong_indexes_are_found_and_built_again_as_they_were() {
    let name = |extension: &str| Path::new(DIR).join(format!("00000000000000000005.{extension}"));
    let far = |bytes: &mut Vec<u8>| bytes[7] ^= 1;
    let swap: Change = |bytes| bytes.rotate_left(8);
    let cut: Change = |bytes| bytes.truncate(bytes.len() - 3);
    let later: Change = |bytes| bytes[7] ^= 1;
    let double: Change = |bytes| bytes.extend_from_within(..);
    let empty: Change = Vec::clear;
    for (extension, change, expected) in [
        ("index", swap, "the entries do not rise"),
        ("index", far, "the entry says that the batch at byte 771 ends"),
        ("index", cut, "5 bytes are left over"),
        ("timeindex", cut, "9 bytes are left over"),
        ("timeindex", later, "the entry says that 1001 is the largest"),
        ("timeindex", double, "the entries do not rise"),
        ("timeindex", empty, "the last entry has timestamp -1"),
    ] {
        let (disk, _) = closed_log();
        let right = disk.bytes(&name(extension)).expect("an index");
        disk.damage(&name(extension), change);
        let (verified, faults) = look(&disk);
        assert!(verified.faults == 1 && faults[0].contains(expected), "{extension}: {faults:#?}");
        let plan = repair_indexes(&disk);
        assert_eq!((plan.reindexed(), plan.losses().len()), (1, 0), "{expected}");
        assert!(disk.bytes(&name(extension)).expect("an index") == right, "{expected}: it is as it was");
        assert!(look(&disk).1.is_empty());
    }
    let (disk, _) = closed_log();
    disk.remove_file(&name("index")).expect("it is there");
    assert!(look(&disk).1[0].ends_with("index: the index is missing"));
}

/// With the interval of the index that the log had.
fn repair_indexes(disk: &SimDisk) -> RepairPlan {
    let plan = plan(disk, RepairMode::DropBatch);
    plan.apply_with(&(Arc::new(disk.clone()) as Arc<dyn Disk>), SMALL).expect("is repaired");
    plan
}

#[test]
fn a_dropped_batch_leaves_its_offsets_empty_and_all_others_readable() {
    let (disk, mut model) = closed_log();
    let path = segment(&disk, 1);
    disk.damage(&path, |bytes| bytes[770 + 100] ^= 1);
    let damaged = disk.bytes(&path).expect("a segment");
    let plan = repair(&disk, RepairMode::DropBatch);
    let [loss] = plan.losses() else { panic!("{:?}", plan.losses()) };
    assert_eq!((&loss.path, loss.position, loss.bytes, loss.offsets.clone(), loss.mended), (&path, 770, 770, 6..7, false));

    let kept = Path::new(DIR).join("00000000000000000005.log.770-1540.removed-1");
    assert!(disk.bytes(&kept).expect("kept") == damaged[770..1540], "what was removed is kept");
    let (verified, faults) = look(&disk);
    assert_eq!((verified.faults, verified.notes, verified.log_end), (0, 1, 23), "{faults:#?}");
    model.remove(6);
    assert_eq!(readable(&disk), model);
    let (log, report) = open(&disk, SMALL);
    assert!(report.cut.is_none() && report.damaged.is_empty(), "{report:?}");
    // The offset itself can be read from, and goes on behind.
    let read = log.reader().read(6, 1, i64::MAX).expect("an empty batch");
    let empty = Batch::parse(read).expect("one batch");
    assert_eq!((empty.header().base_offset, empty.header().next_offset(), empty.header().record_count), (6, 7, 0));
    assert_eq!(empty.check_records(0).expect("no records").1.record_count, 0);
    assert!(log.reader().find_time(0, i64::MAX).expect("finds").is_some());
    drop(log);
    // A second repair has a number of its own.
    disk.damage(&path, |bytes| bytes[100] ^= 1);
    assert_eq!(repair(&disk, RepairMode::DropBatch).kept_suffix(), ".removed-2");
}

#[test]
fn a_truncated_log_ends_in_front_of_the_damage_and_keeps_the_rest_beside_it() {
    let (disk, mut model) = closed_log();
    let path = segment(&disk, 1);
    disk.damage(&path, |bytes| bytes[770 + 100] ^= 1);
    let before: Vec<Vec<u8>> = files(&disk, ".log").iter().map(|path| disk.bytes(path).expect("a segment")).collect();
    let plan = repair(&disk, RepairMode::Truncate);
    let [loss] = plan.losses() else { panic!("{:?}", plan.losses()) };
    assert_eq!((loss.position, loss.bytes, loss.offsets.clone(), loss.whole_records), (770, 17 * 770, 6..23, 16));
    assert_eq!(files(&disk, ".log").len(), 2);
    let kept: Vec<u8> = files(&disk, ".removed-1").iter().flat_map(|path| disk.bytes(path).expect("kept")).collect();
    assert!(kept == [&before[1][770..], &before[2], &before[3], &before[4]].concat());
    model.truncate(6);
    assert_eq!(readable(&disk), model);
    assert_eq!(look(&disk).0.faults, 0);
}

#[test]
fn a_damaged_byte_that_the_checksum_does_not_cover_is_given_back() {
    for byte in (0..12).chain([16]) {
        for bit in 0..8 {
            let (disk, model) = closed_log();
            let path = segment(&disk, 1);
            let right = disk.bytes(&path).expect("a segment");
            disk.damage(&path, |bytes| bytes[2 * 770 + byte] ^= 1 << bit);
            assert_eq!(look(&disk).0.faults, 1, "byte {byte} bit {bit}");
            let plan = repair(&disk, RepairMode::DropBatch);
            assert!(plan.losses().iter().all(|loss| loss.mended && loss.offsets.is_empty()), "{:?}", plan.losses());
            assert!(disk.bytes(&path).expect("a segment") == right, "byte {byte} bit {bit}");
            assert_eq!(readable(&disk), model);
        }
    }
}

#[test]
fn a_batch_behind_damage_whose_own_offset_is_damaged_is_not_believed() {
    let (disk, mut model) = closed_log();
    disk.damage(&segment(&disk, 1), |bytes| {
        bytes[770 + 100] ^= 1;
        // Offset 7 becomes 6, which would follow on what is whole.
        bytes[2 * 770 + 7] ^= 1;
    });
    let plan = repair(&disk, RepairMode::DropBatch);
    let [loss] = plan.losses() else { panic!("{:?}", plan.losses()) };
    assert_eq!(loss.offsets, 6..8);
    model.drain(6..8);
    assert_eq!(readable(&disk), model);
}

#[test]
fn a_lost_segment_and_a_torn_one_are_bridged() {
    let (disk, mut model) = closed_log();
    disk.damage(&segment(&disk, 3), |bytes| bytes.truncate(900));
    disk.damage(&segment(&disk, 4), |bytes| bytes.truncate(900));
    disk.remove_file(&segment(&disk, 1)).expect("it is there");
    let plan = repair(&disk, RepairMode::DropBatch);
    let lost: Vec<_> = plan.losses().iter().map(|loss| (loss.bytes, loss.offsets.clone())).collect();
    assert_eq!(lost, [(0, 5..10), (130, 16..20), (130, 21..23)]);
    model.retain(|stored| ![5..10, 16..20, 21..23].iter().any(|lost| lost.contains(&stored.base)));
    assert_eq!(readable(&disk), model);
    assert_eq!(look(&disk).0.faults, 0, "{:#?}", look(&disk).1);
}

#[test]
fn a_repair_that_finds_no_room_changes_nothing() {
    for mode in [RepairMode::DropBatch, RepairMode::Truncate] {
        for room in [0, 500, 800, 3_000, 10_000] {
            let (disk, model) = closed_log();
            let path = segment(&disk, 1);
            disk.damage(&path, |bytes| bytes[770 + 100] ^= 1);
            let before = disk.bytes(&path).expect("a segment");
            let plan = plan(&disk, mode);
            let used: u64 = files(&disk, "").iter().map(|path| disk.bytes(path).expect("a file").len() as u64).sum();
            disk.limit_bytes(Some(used + room));
            if let Err(error) = plan.apply(&(Arc::new(disk.clone()) as Arc<dyn Disk>)) {
                assert!(error.to_string().contains("no room"), "{error}");
                assert!(disk.bytes(&path).expect("still there") == before, "{mode:?} with {room} bytes");
            }
            // With room it is done.
            disk.limit_bytes(None);
            repair(&disk, mode);
            assert!(readable(&disk).len() < model.len());
        }
    }
}

/// Cuts the power at every operation of a repair.
fn crash_at_every_operation(mode: RepairMode, expected: &[Stored], prepare: impl Fn() -> SimDisk) {
    for changes in 0.. {
        for seed in 0..6 {
            let disk = prepare();
            let path = segment(&disk, 1);
            let before = disk.bytes(&path).expect("a segment");
            let plan = plan(&disk, mode);
            disk.cut_power_after(changes);
            let done = plan.apply(&(Arc::new(disk.clone()) as Arc<dyn Disk>)).is_ok() && disk.is_powered();
            disk.crash(changes * 100 + seed);
            // The broker may start before the repair is made again.
            if seed % 2 == 0 {
                let (log, report) = open(&disk, SMALL);
                let is_old = report.damaged.len() + usize::from(log.reader().read(6, 1, i64::MAX).is_err()) > 0;
                assert!(is_old || report.damaged.is_empty());
                if is_old {
                    assert!(disk.bytes(&path).expect("there") == before, "{changes} changes: the old bytes");
                    assert_eq!(log.log_end(), 23, "{changes} changes: all that was there");
                    assert!(!done, "{changes} changes: what was done holds");
                } else {
                    assert_eq!(log.log_end(), expected.last().expect("some").next, "{changes} changes: what is to be");
                }
            }
            repair(&disk, mode);
            assert_eq!(readable(&disk), expected, "{changes} changes, seed {seed}");
            assert_eq!(look(&disk).0.faults, 0, "{:#?}", look(&disk).1);
            let kept: u64 = files(&disk, ".removed-1").iter().map(|path| disk.bytes(path).expect("kept").len() as u64).sum();
            let kept_later: u64 = files(&disk, ".removed-2").iter().map(|path| disk.bytes(path).expect("kept").len() as u64).sum();
            assert!(kept.max(kept_later) >= 770, "{changes} changes: what is removed is kept");
            if done && seed == 5 {
                return;
            }
        }
    }
}

#[test]
fn a_power_cut_during_a_repair_leaves_the_old_segment_or_the_new_one() {
    let prepare = || {
        let (disk, _) = closed_log();
        disk.damage(&segment(&disk, 1), |bytes| bytes[770 + 100] ^= 1);
        disk
    };
    let mut model = closed_log().1;
    model.remove(6);
    crash_at_every_operation(RepairMode::DropBatch, &model, prepare);
    let mut model = closed_log().1;
    model.truncate(6);
    crash_at_every_operation(RepairMode::Truncate, &model, prepare);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever is done to the bytes, a look neither panics nor changes anything, a flipped bit in what the checksum covers is found, and after a
    /// repair nothing is left to find.
    #[test]
    fn any_damage_is_survived_and_a_flipped_bit_is_found(
        seed in any::<u64>(),
        changes in prop::collection::vec((0_usize..5, 0_usize..3, any::<u64>(), any::<u8>()), 1..6),
        flips_only in any::<bool>(),
    ) {
        let mut random = Random::new(seed);
        let mut fixture = Fixture::new(SMALL);
        for clock in 0..20 {
            fixture.append(&[random_batch(&mut random, clock)]);
        }
        fixture.flush();
        let Fixture { disk, log, model, .. } = fixture;
        log.close().expect("closes");
        let mut flipped = std::collections::BTreeSet::new();
        for (number, kind, place, byte) in changes {
            let all = files(&disk, if kind == 0 || flips_only { ".log" } else { "index" });
            let path = all[number % all.len()].clone();
            let bytes = disk.bytes(&path).expect("a file");
            if bytes.is_empty() {
                continue;
            }
            let at = usize::try_from(place % bytes.len() as u64).expect("small");
            if flips_only {
                if flipped.insert((path.clone(), at)) {
                    disk.damage(&path, |bytes| bytes[at] ^= 1 << (byte % 8));
                }
            } else {
                disk.damage(&path, |bytes| match byte % 5 {
                    0 => bytes.truncate(at),
                    1 => bytes[at] = byte,
                    2 => bytes[at..].fill(byte),
                    3 => drop(bytes.drain(at..(at + usize::from(byte)).min(bytes.len()))),
                    _ => drop(bytes.splice(at..at, vec![byte; usize::from(byte)])),
                });
            }
        }
        let (verified, faults) = look(&disk);
        if flips_only {
            let covered = flipped.iter().any(|(path, at)| in_batch(&model, path, *at) >= 16);
            prop_assert!(!covered || verified.faults > 0, "{flipped:?}: {faults:#?}");
        }
        for mode in [RepairMode::DropBatch, RepairMode::Truncate] {
            let copy = copied(&disk);
            repair(&copy, mode);
            let (after, faults) = look(&copy);
            prop_assert_eq!(after.faults, 0, "{:?}: {:#?}", mode, faults);
            let left = readable(&copy);
            // The bytes that the checksum covers are always those of a batch that was there. Its offset is vouched for by its neighbours, which
            // two flipped bits in headers could bring to agree on another one.
            let in_headers = flipped.iter().filter(|(path, at)| in_batch(&model, path, *at) < 61).count();
            let was_there = |left: &Stored| {
                model.iter().any(|known| known.bytes[16..] == left.bytes[16..] && (in_headers > 1 || same_but_for_the_epoch(known, left)))
            };
            prop_assert!(!flips_only || left.iter().all(was_there), "a batch that was never there: {:?}", flipped);
        }
    }
}

/// Where in its batch a byte of a segment lies.
fn in_batch(model: &[Stored], path: &Path, at: usize) -> usize {
    let base: i64 = path.file_stem().and_then(|stem| stem.to_str()).and_then(|digits| digits.parse().ok()).expect("digits");
    let mut start = 0;
    for stored in model.iter().filter(|stored| stored.base >= base) {
        if at < start + stored.bytes.len() {
            return at - start;
        }
        start += stored.bytes.len();
    }
    unreachable!("a byte of a segment lies in a batch")
}

/// The leader epoch is the broker's, and nothing covers it.
fn same_but_for_the_epoch(one: &Stored, other: &Stored) -> bool {
    one.base == other.base && one.bytes[..12] == other.bytes[..12] && one.bytes[16..] == other.bytes[16..]
}

/// Another disk with the same files.
fn copied(disk: &SimDisk) -> SimDisk {
    let copy = crate::harness::prepared_disk();
    copy.create_dir_all(Path::new(DIR)).expect("creates");
    for path in files(disk, "") {
        copy.open(&path, OpenMode::CreateNew).expect("creates");
        let bytes = disk.bytes(&path).expect("a file");
        copy.damage(&path, |empty| *empty = bytes);
    }
    copy.sync_dir(Path::new(DIR)).expect("syncs");
    copy.sync_dir(Path::new("/data")).expect("syncs");
    copy
}

//! Damage in the middle of segments that may be torn: what is cut, what is kept, and what can still be read.

use std::path::Path;
use std::sync::Arc;

use millpond_log::inspect::{Piece, RepairMode, SegmentWalk, kept_log_of};
use millpond_log::sim::{Random, SimDisk};
use millpond_log::{Disk, KnownDamage, LogConfig, LogError, LogReader, REMOVALS_KEPT_MAX, RecoveryReport};
use millpond_protocol::batch::{Batch, BatchBuilder};
use millpond_protocol::compression::Codec;
use millpond_protocol::record::NewRecord;

use crate::harness::{DIR, Fixture, ROOMY, SMALL, Stored, batch, batch_with, config, files, random_batch, read_all, stored, try_open};
use crate::inspect::{look, plan};
use crate::seeds;

/// A log of one segment: five batches of three records, which nobody has flushed, or closed in order.
fn five(value_bytes: usize) -> Fixture {
    let mut fixture = Fixture::new(ROOMY);
    for clock in 0..5 {
        fixture.append(&[batch_with(&[clock * 10, clock * 10 + 5, clock * 10 + 2], value_bytes, Codec::None)]);
    }
    fixture.flush();
    fixture
}

/// Where a batch begins that lies in the first segment.
fn position_of(model: &[Stored], number: usize) -> usize {
    model[..number].iter().map(|stored| stored.bytes.len()).sum()
}

/// Reads every batch by each of its offsets, and expects all but some to be served.
fn check_but(reader: &LogReader, model: &[Stored], rotten: &[usize]) {
    for (number, stored) in model.iter().enumerate() {
        for offset in stored.base..stored.next {
            match reader.read(offset, 1, i64::MAX) {
                Ok(read) => assert!(!rotten.contains(&number) && read == stored.bytes, "offset {offset}"),
                Err(LogError::Corrupt { offset: at, .. }) if rotten.contains(&number) => assert_eq!(at, stored.base, "offset {offset}"),
                Err(error) => panic!("offset {offset}: {error}"),
            }
        }
    }
    assert_eq!(reader.log_end(), model.last().map_or(0, |stored| stored.next));
}

fn check_damaged(report: &RecoveryReport, path: &Path, position: usize) {
    assert!(report.cut.is_none() && report.truncated_bytes == 0 && report.set_aside.is_empty(), "{report:?}");
    let places: Vec<_> = report.damaged.iter().map(|damaged| (damaged.path.as_path(), damaged.position)).collect();
    assert_eq!(places, [(path, position as u64)]);
}

#[test]
fn a_flipped_bit_in_front_of_whole_batches_cuts_nothing_and_is_never_served() {
    // With values that are zeros for more than a sector, too; in front of several batches, and of the last.
    for (value_bytes, rotten) in [(20, 1), (700, 2), (20, 3)] {
        let fixture = five(value_bytes);
        let position = position_of(&fixture.model, rotten);
        let bits = fixture.model[rotten].bytes.len() * 8;
        // All of the header, and some of the rest.
        let bits = (0..61 * 8).chain((61 * 8..bits).step_by(if value_bytes > 100 { 997 } else { 1 }));
        let whole = fixture.disk.bytes(&fixture.segments()[0]).expect("a segment");
        for bit in bits.filter(|bit| !(12 * 8..16 * 8).contains(bit)) {
            let mut fixture = five(value_bytes);
            let path = fixture.segments()[0].clone();
            fixture.disk.damage(&path, |bytes| bytes[position + bit / 8] ^= 1 << (bit % 8));
            // What an opening decides, the next one does too.
            for _ in 0..2 {
                let report = fixture.reopen();
                check_damaged(&report, &path, position);
                check_but(&fixture.log.reader(), &fixture.model, &[rotten]);
            }
            assert!(fixture.disk.bytes(&path).expect("a segment").len() == whole.len(), "bit {bit}");
            let reader = fixture.log.reader();
            let read = read_all(&reader, 0, 1 << 20);
            assert!(matches!(&read, Err(LogError::Corrupt { position: at, .. }) if *at == position as u64), "bit {bit}: {read:?}");
            // The log goes on behind, durably.
            fixture.append(&[batch(2, 30)]);
            fixture.flush();
            fixture.disk.crash(bit as u64);
            check_damaged(&fixture.reopen(), &path, position);
            check_but(&fixture.log.reader(), &fixture.model, &[rotten]);
        }
    }
}

#[test]
fn a_length_that_reaches_to_a_later_batch_hides_none_in_between() {
    for swallowed in 1..=3 {
        let mut fixture = five(20);
        let path = fixture.segments()[0].clone();
        let position = position_of(&fixture.model, 1);
        let bytes = i32::try_from(position_of(&fixture.model, 2 + swallowed) - position).expect("small");
        // Behind the base offset, and without the two.
        fixture.disk.damage(&path, |found| found[position + 8..position + 12].copy_from_slice(&(bytes - 12).to_be_bytes()));
        for _ in 0..2 {
            check_damaged(&fixture.reopen(), &path, position);
            check_but(&fixture.log.reader(), &fixture.model, &[1]);
        }
        // Nor where another segment follows, and the length reaches to the end of this one.
        fixture.log.roll().expect("rolls");
        fixture.append(&[batch(1, 10)]);
        let (fixture, _) = fixture.close_and_reopen(1);
        check_but(&fixture.log.reader(), &fixture.model, &[1]);
    }
}

#[test]
fn more_damaged_places_than_are_remembered_cut_nothing() {
    let mut fixture = Fixture::new(ROOMY);
    for _ in 0..21 {
        fixture.append(&vec![batch(1, 5); 100]);
    }
    fixture.flush();
    let (path, bytes) = (fixture.segments()[0].clone(), fixture.model[0].bytes.len());
    fixture.disk.damage(&path, |found| (0..2_099).step_by(2).for_each(|number| found[number * bytes + bytes - 2] ^= 1));
    for _ in 0..2 {
        let report = fixture.reopen();
        assert!(report.cut.is_none() && report.truncated_bytes == 0 && report.set_aside.is_empty(), "{:?}", report.cut);
        let reader = fixture.log.reader();
        assert_eq!(reader.log_end(), 2_100);
        for number in [1, 1_001, 2_099] {
            assert_eq!(reader.read(number, 1, i64::MAX).expect("it is whole"), fixture.model[index(number)].bytes);
        }
        for number in [0, 2_000, 2_098] {
            assert!(matches!(reader.read(number, 1, i64::MAX), Err(LogError::Corrupt { .. })), "{number}");
        }
    }
}

fn index(offset: i64) -> usize {
    usize::try_from(offset).expect("small")
}

#[test]
fn a_rotten_sector_of_garbage_is_not_taken_for_a_torn_tail() {
    for number in 0..4 {
        let mut fixture = five(700);
        let path = fixture.segments()[0].clone();
        let position = position_of(&fixture.model, number);
        let end = position + fixture.model[number].bytes.len();
        // Header and all.
        fixture.disk.damage(&path, |bytes| bytes[position..end - 512].fill(0xa5));
        check_damaged(&fixture.reopen(), &path, position);
        let known = KnownDamage { ranges: 1, first_offset: fixture.model[number].base };
        assert_eq!(fixture.log.reader().known_damage(), Some(known));
        check_but(&fixture.log.reader(), &fixture.model, &[number]);
    }
}

#[test]
fn a_lookup_by_time_never_passes_over_what_is_damaged() {
    let mut fixture = five(20);
    let path = fixture.segments()[0].clone();
    let position = position_of(&fixture.model, 2);
    fixture.disk.damage(&path, |bytes| bytes[position + 80] ^= 1);
    fixture.reopen();
    let find = |fixture: &Fixture, timestamp| fixture.log.reader().find_time(timestamp, i64::MAX);
    assert_eq!(find(&fixture, 14).expect("it lies before"), Some((4, 15)));
    for timestamp in [16, 25, 44, 1_000] {
        assert!(matches!(find(&fixture, timestamp), Err(LogError::Corrupt { position: at, .. }) if at == position as u64));
    }
    // Nor once the segment is closed.
    fixture.log.roll().expect("rolls");
    fixture.append(&[batch_with(&[60], 10, Codec::None)]);
    assert!(find(&fixture, 60).is_err());
}

#[test]
fn a_damaged_last_segment_is_read_at_every_opening_until_it_is_closed() {
    let mut fixture = five(20);
    let path = fixture.segments()[0].clone();
    let position = position_of(&fixture.model, 2);
    fixture.disk.damage(&path, |bytes| bytes[position + 80] ^= 1);
    fixture.reopen();
    for _ in 0..2 {
        fixture.append(&[batch(1, 10)]);
        let report;
        (fixture, report) = fixture.close_and_reopen(3);
        assert!(!report.clean_stop && files(&fixture.disk, "clean-stop").is_empty());
        check_damaged(&report, &path, position);
    }
    // From then on the recovery point lies behind it, and what is behind the damage is found all the same.
    fixture.log.roll().expect("rolls");
    fixture.append(&[batch(1, 10)]);
    let (fixture, report) = fixture.close_and_reopen(4);
    assert!(report.clean_stop);
    check_but(&fixture.log.reader(), &fixture.model, &[2]);
}

#[test]
fn damage_at_the_end_of_a_segment_that_another_follows_is_not_cut() {
    let mut fixture = Fixture::new(SMALL);
    fixture.append(&vec![batch(1, 700); 20]);
    let segments = fixture.segments();
    let last_of_second = position_of(&fixture.model[5..], 4);
    fixture.disk.damage(&segments[1], |bytes| bytes[last_of_second + 80] ^= 1);
    check_damaged(&fixture.reopen(), &segments[1], last_of_second);
    assert_eq!(fixture.segments(), segments);
    check_but(&fixture.log.reader(), &fixture.model, &[9]);
    // It is closed and durable now.
    fixture.reopen();
    check_but(&fixture.log.reader(), &fixture.model, &[9]);

    // A file that is too short is what a power cut leaves.
    let mut fixture = Fixture::new(SMALL);
    fixture.append(&vec![batch(1, 700); 20]);
    fixture.disk.damage(&segments[1], |bytes| bytes.truncate(last_of_second + 300));
    let report = fixture.reopen();
    assert_eq!(report.cut.map(|cut| cut.next_offset), Some(9));
    fixture.model.truncate(9);
    fixture.check();
}

#[test]
fn verify_finds_the_damage_and_a_repair_mends_it_in_both_ways() {
    for mode in [RepairMode::DropBatch, RepairMode::Truncate] {
        let mut fixture = five(700);
        let path = fixture.segments()[0].clone();
        let position = position_of(&fixture.model, 2);
        fixture.disk.damage(&path, |bytes| bytes[position + 80] ^= 1);
        fixture.reopen();
        fixture.append(&[batch(1, 10)]);
        fixture.flush();
        let (verified, faults) = look(&fixture.disk);
        assert!(verified.faults == 1 && faults[0].contains(&format!("{position} 6 damaged")), "{faults:#?}");
        let disk = Arc::new(fixture.disk.clone()) as Arc<dyn Disk>;
        plan(&fixture.disk, mode).apply_with(&disk, ROOMY).expect("is repaired");
        assert_eq!(look(&fixture.disk).0.faults, 0, "{:#?}", look(&fixture.disk).1);
        let report = fixture.reopen();
        assert!(report.is_clean(), "{report:?}");
        let end = if mode == RepairMode::Truncate { 6 } else { fixture.end() };
        assert_eq!(fixture.log.log_end(), end);
        read_all(&fixture.log.reader(), 0, 1 << 20).expect("nothing is damaged");
    }
}

/// Makes a hole where a batch begins, and opens the log.
fn reopen_with_hole(fixture: &mut Fixture, number: usize) -> (RecoveryReport, Vec<u8>) {
    let path = fixture.segments()[0].clone();
    let position = position_of(&fixture.model, number);
    fixture.disk.damage(&path, |bytes| bytes[position..(position + 1).next_multiple_of(512)].fill(0));
    let cut_off = fixture.disk.bytes(&path).expect("a segment").split_off(position);
    (fixture.reopen(), cut_off)
}

#[test]
fn what_lies_behind_a_hole_is_cut_off_and_kept_where_it_can_be_dumped() {
    let mut fixture = five(700);
    let (report, cut_off) = reopen_with_hole(&mut fixture, 2);
    let [part] = &report.set_aside[..] else { panic!("{report:?}") };
    assert_eq!((part.bytes, part.offsets.clone(), report.truncated_bytes), (cut_off.len() as u64, 6..15, cut_off.len() as u64));
    let kept = part.kept.clone().expect("there is room");
    assert!(fixture.disk.bytes(&kept).expect("kept") == cut_off && report.damaged.is_empty());
    assert_eq!(kept_log_of(&kept), Some(0));
    let mut walk = SegmentWalk::open_kept(&fixture.disk, &kept, 0).expect("opens");
    let mut found = Vec::new();
    while let Some(piece) = walk.next_piece().expect("reads") {
        if let Piece::Batch(batch) = piece {
            found.push(batch.header.base_offset);
        }
    }
    assert_eq!(found, [9, 12]);
    // It is durable, looked at by nobody, and a note to a verification.
    fixture.model.truncate(2);
    fixture.check();
    fixture.append(&[batch(1, 10)]);
    fixture.flush();
    fixture.disk.crash(1);
    assert!(fixture.reopen().is_clean());
    fixture.check();
    assert!(fixture.disk.bytes(&kept).expect("kept") == cut_off);
    assert_eq!((look(&fixture.disk).0.faults, look(&fixture.disk).0.notes), (0, 1));
}

#[test]
fn batches_within_the_records_of_a_torn_batch_are_not_taken_for_batches_of_the_log() {
    // As somebody stores who keeps a copy of another log in this one.
    let inner: Vec<u8> =
        stored(100, 7, &[batch(2, 30), batch(3, 20), batch(1, 10)]).iter().flat_map(|stored| stored.bytes.clone()).collect();
    for left_behind in [0, 1, 40] {
        let mut fixture = five(20);
        let mut builder = BatchBuilder::new();
        let value = [&inner[..], &[7; 1_000]].concat();
        builder.push(&NewRecord { timestamp: 1, key: None, value: Some(&value), headers: &[] }).expect("fits");
        let outer = Batch::parse(builder.finish(Codec::None).expect("a record")).expect("a batch");
        fixture.log.append(&[outer], 7).expect("appends");
        let path = fixture.segments()[0].clone();
        fixture.disk.damage(&path, |bytes| {
            let at = bytes.windows(inner.len()).position(|window| window == inner).expect("it is there");
            bytes.truncate(at + inner.len() + left_behind);
        });
        let report = fixture.reopen();
        assert!(report.cut.is_some() && report.damaged.is_empty(), "{report:?}");
        fixture.check();
    }
}

#[test]
fn what_is_kept_is_bounded() {
    let mut fixture = five(700);
    for round in 1..=REMOVALS_KEPT_MAX as u64 + 5 {
        let number = fixture.model.len() - 2;
        let (report, _) = reopen_with_hole(&mut fixture, number);
        fixture.model.truncate(number);
        // Other bytes than in the round before, or its copy would do.
        let timestamps = [round.cast_signed(); 3];
        fixture.append(&[batch_with(&timestamps, 500, Codec::None), batch_with(&timestamps, 600, Codec::None)]);
        assert!(report.set_aside[0].kept.as_ref().is_some_and(|kept| kept.to_string_lossy().ends_with(&format!(".removed-{round}"))));
    }
    let kept: Vec<_> = files(&fixture.disk, "").into_iter().filter(|path| kept_log_of(path).is_some()).collect();
    assert_eq!(kept.len(), REMOVALS_KEPT_MAX, "{kept:?}");
    assert!(!kept.iter().any(|path| path.to_string_lossy().ends_with("removed-5")), "the oldest are gone: {kept:?}");
}

#[test]
fn folders_with_the_names_of_kept_files_stay_and_cost_no_kept_file_its_place() {
    for numbers in [vec![1, 2], (1..=12).collect(), (40..52).collect(), vec![7, u64::MAX - 1, u64::MAX]] {
        let mut fixture = five(700);
        let inside: Vec<_> = numbers.iter().map(|number| Path::new(DIR).join(format!("log-start.removed-{number}/inside"))).collect();
        for inside in &inside {
            fixture.disk.create_dir_all(inside).expect("creates");
        }
        let mut kept = Vec::new();
        for round in 1..=REMOVALS_KEPT_MAX + 5 {
            let number = fixture.model.len() - 2;
            let (report, cut_off) = reopen_with_hole(&mut fixture, number);
            kept.push((report.set_aside[0].kept.clone().expect("there is room"), cut_off));
            for (path, bytes) in kept.iter().rev().take(REMOVALS_KEPT_MAX) {
                assert!(fixture.disk.bytes(path).is_ok_and(|found| found == *bytes), "{numbers:?}, round {round}: {}", path.display());
            }
            fixture.model.truncate(number);
            let timestamps = [i64::try_from(round).expect("small"); 3];
            fixture.append(&[batch_with(&timestamps, 500, Codec::None), batch_with(&timestamps, 600, Codec::None)]);
        }
        fixture.flush();
        fixture.check();
        // To a verification they are notes, and a repair keeps what it removes beside them.
        let notes = (numbers.len() + REMOVALS_KEPT_MAX) as u64;
        assert_eq!((look(&fixture.disk).0.faults, look(&fixture.disk).0.notes), (0, notes), "{:?}", look(&fixture.disk).1);
        let (path, position) = (fixture.segments()[0].clone(), position_of(&fixture.model, 1));
        fixture.disk.damage(&path, |bytes| bytes[position + 80] ^= 1);
        let dropped = fixture.disk.bytes(&path).expect("a segment")[position..position + fixture.model[1].bytes.len()].to_vec();
        let disk = Arc::new(fixture.disk.clone()) as Arc<dyn Disk>;
        let plan = plan(&fixture.disk, RepairMode::DropBatch);
        plan.apply_with(&disk, ROOMY).expect("is repaired");
        let copy = files(&fixture.disk, &plan.kept_suffix());
        assert!(copy.iter().any(|path| fixture.disk.bytes(path).is_ok_and(|bytes| bytes == dropped)), "{numbers:?}: {copy:?}");
        assert!(fixture.reopen().is_clean());
        assert!(inside.iter().all(|inside| fixture.disk.exists(inside).expect("looks")), "{numbers:?}");
    }
}

#[test]
fn on_a_full_disk_a_hole_is_cut_without_keeping_and_said() {
    let mut fixture = five(700);
    fixture.disk.limit_bytes(Some(0));
    let (report, cut_off) = reopen_with_hole(&mut fixture, 2);
    assert!(matches!(&report.set_aside[..], [part] if part.kept.is_none() && part.bytes == cut_off.len() as u64), "{report:?}");
    fixture.model.truncate(2);
    fixture.check();
    assert!(!files(&fixture.disk, "").iter().any(|path| kept_log_of(path).is_some()));
}

#[test]
fn a_power_cut_while_a_hole_is_cut_leaves_the_log_or_what_was_kept() {
    for changes in 0.. {
        let mut fixture = Fixture::new(config(5_000, 500));
        for clock in 0..9 {
            fixture.append(&[batch_with(&[clock; 3], 500, Codec::None)]);
        }
        let path = fixture.segments()[0].clone();
        let position = position_of(&fixture.model, 1);
        fixture.disk.damage(&path, |bytes| bytes[position..(position + 1).next_multiple_of(512)].fill(0));
        let behind: Vec<_> = fixture.segments()[1..].iter().map(|path| fixture.disk.bytes(path).expect("a segment")).collect();
        let tail = fixture.disk.bytes(&path).expect("a segment").split_off(position);
        // As a power cut would have left it: durable.
        for path in files(&fixture.disk, "") {
            fixture.disk.damage(&path, |_| {});
        }
        fixture.disk.sync_dir(Path::new(DIR)).expect("syncs");
        fixture.disk.cut_power_after(changes);
        let done = try_open(&fixture.disk, fixture.config).is_ok() && fixture.disk.is_powered();
        fixture.disk.crash(changes);
        fixture.reopen();
        fixture.model.truncate(1);
        fixture.check();
        let kept: Vec<_> = files(&fixture.disk, "").into_iter().filter(|path| kept_log_of(path).is_some()).collect();
        let kept: Vec<_> = kept.iter().map(|path| fixture.disk.bytes(path).expect("kept")).collect();
        for wanted in behind.iter().chain([&tail]) {
            assert!(kept.contains(wanted), "{changes} changes: all is kept");
        }
        if done {
            break;
        }
    }
}

/// Flips a bit of a batch. If it is one that the broker writes without a checksum, none.
fn flip(disk: &SimDisk, path: &Path, start: usize, bytes: usize, random: &mut Random) {
    let at = usize::try_from(random.below(bytes as u64)).expect("small");
    if !(12..16).contains(&at) {
        disk.damage(path, |found| found[start + at] ^= 1 << random.below(8));
    }
}

/// Where each batch lies: its file, and where it begins there.
fn places(disk: &SimDisk, model: &[Stored]) -> Vec<(std::path::PathBuf, usize)> {
    let segments = files(disk, ".log");
    let base_of = |path: &Path| path.file_stem().and_then(|stem| stem.to_str()?.parse::<i64>().ok()).expect("digits");
    let segment_of = |stored: &Stored| segments.iter().rev().find(|path| base_of(path) <= stored.base).expect("a segment").clone();
    let mut at: (Option<std::path::PathBuf>, usize) = (None, 0);
    let place = |stored: &Stored| {
        let path = segment_of(stored);
        if at.0.as_ref() != Some(&path) {
            at = (Some(path.clone()), 0);
        }
        at.1 += stored.bytes.len();
        (path, at.1 - stored.bytes.len())
    };
    model.iter().map(place).collect()
}

/// A power cut in a random workload, and rot of what was durable before anybody has looked.
fn replay(seed: u64) {
    let mut random = Random::new(seed);
    let config: LogConfig = config([3_000, 20_000, 1 << 30][usize::try_from(random.below(3)).expect("small")], 700);
    let mut fixture = Fixture::new(config);
    for _ in 0..5 + random.below(30) {
        let clock = random.below(1_000).cast_signed();
        fixture.append(&[random_batch(&mut random, clock)]);
    }
    // The recovery point stays at the first segment, so all of it may be torn for all that the recovery knows.
    let point = fixture.disk.bytes(&Path::new(DIR).join("recovery-point")).expect("a point");
    fixture.flush();
    fixture.disk.damage(&Path::new(DIR).join("recovery-point"), |bytes| *bytes = point);
    let durable = fixture.model.len();
    for _ in 0..random.below(10) {
        let clock = random.below(1_000).cast_signed();
        let batches: Vec<_> = (0..=random.below(3)).map(|_| random_batch(&mut random, clock)).collect();
        fixture.model.extend(stored(fixture.log.append(&batches, 7).expect("appends"), 7, &batches));
    }
    fixture.disk.crash(seed);
    let mut rotten = Vec::new();
    for (number, (path, start)) in places(&fixture.disk, &fixture.model[..durable]).iter().enumerate().take(durable - 1) {
        if random.percent(15) && rotten.last().is_none_or(|last| last + 1 < number) {
            flip(&fixture.disk, path, *start, fixture.model[number].bytes.len(), &mut random);
            rotten.push(number);
        }
    }
    for _ in 0..2 {
        let report = fixture.reopen();
        let (reader, end) = (fixture.log.reader(), fixture.log.log_end());
        assert!(end >= fixture.model[durable - 1].next, "what was durable is there, but {end}, rotten {rotten:?}: {report:?}");
        for (number, stored) in fixture.model.iter().enumerate().filter(|(_, stored)| stored.base < end) {
            for offset in [stored.base, stored.next - 1] {
                match reader.read(offset, 1, i64::MAX) {
                    Ok(read) => assert!(read == stored.bytes, "a wrong byte at offset {offset}"),
                    Err(LogError::Corrupt { .. }) if rotten.contains(&number) => {}
                    Err(error) => panic!("offset {offset}: {error}"),
                }
            }
        }
        fixture.model.truncate(fixture.model.iter().take_while(|stored| stored.next <= end).count());
        fixture.append(&[batch(2, 40)]);
        fixture.flush();
        fixture.disk.crash(seed);
    }
}

#[test]
fn rot_of_durable_bytes_under_power_cuts_takes_nothing_but_the_rotten_batches() {
    seeds::replay_each(1_000, replay);
}

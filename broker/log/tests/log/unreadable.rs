//! What the disk does not give back: it is damage where it is, and nothing else is lost for it, nor for good.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use millpond_log::inspect::{Piece, RepairMode, RepairPlan, SegmentWalk, kept_log_of};
use millpond_log::sim::{Fault, Operation, Random, SimDisk};
use millpond_log::{Cursor, Damage, Disk, KnownDamage, LogConfig, LogError};

use crate::harness::{DIR, Fixture, Stored, batch, config, files, open, random_batch, read_all, try_open};
use crate::inspect::{Seen, look, plan};
use crate::seeds;

/// Segments of ten pages, fifty-three batches of 770 bytes in each.
const PAGES: LogConfig = config(41_000, 1_000);

const PAGE: u64 = 4096;

fn page(number: u64) -> Range<u64> {
    number * PAGE..(number + 1) * PAGE
}

/// More than any segment has.
const ALL: Range<u64> = 0..1 << 30;

/// Three closed segments and an active one, flushed.
fn four() -> Fixture {
    let mut fixture = Fixture::new(PAGES);
    for _ in 0..200 {
        fixture.append(&[batch(1, 700)]);
    }
    fixture.flush();
    assert_eq!(fixture.segments().len(), 4);
    fixture
}

/// The file of each batch, and its bytes there.
fn places(disk: &SimDisk, model: &[Stored]) -> Vec<(PathBuf, Range<u64>)> {
    let segments: Vec<(i64, PathBuf)> = files(disk, ".log")
        .into_iter()
        .map(|path| (path.file_stem().and_then(|stem| stem.to_str()?.parse().ok()).expect("digits"), path))
        .collect();
    let mut places: Vec<(PathBuf, Range<u64>)> = Vec::new();
    for stored in model {
        let (_, path) = segments.iter().rev().find(|(base, _)| *base <= stored.base).expect("a segment");
        let start = places.last().filter(|(last, _)| last == path).map_or(0, |(_, place)| place.end);
        places.push((path.clone(), start..start + stored.bytes.len() as u64));
    }
    places
}

/// Which batches have a part in what can't be read of a file.
fn lost(disk: &SimDisk, model: &[Stored], path: &Path, ranges: &[Range<u64>]) -> Vec<usize> {
    let places = places(disk, model);
    let touches = |place: &Range<u64>| ranges.iter().any(|range| range.start < place.end && place.start < range.end);
    (0..model.len()).filter(|number| places[*number].0 == path && touches(&places[*number].1)).collect()
}

/// Reads every batch for itself, and all of them onwards from wherever reads work. All but these are served, and the errors say where the
/// damage is, and what is behind it.
fn check_but(fixture: &Fixture, lost: &[usize]) {
    let reader = fixture.log.reader();
    for (number, stored) in fixture.model.iter().enumerate() {
        match reader.read(stored.base, 1, i64::MAX) {
            Ok(read) => assert!(!lost.contains(&number) && read == stored.bytes, "offset {}", stored.base),
            Err(LogError::Corrupt { path, position, offset, next_offset, reason }) => {
                assert!(lost.contains(&number), "offset {} is not lost", stored.base);
                assert!(matches!(reason, Damage::Unreadable(_)), "{reason}");
                let first = lost.iter().rev().copied().filter(|first| *first <= number && !lost.contains(&first.wrapping_sub(1))).max();
                let first = first.expect("one of them");
                let behind = (number..fixture.model.len()).find(|behind| !lost.contains(behind)).expect("a batch");
                let place = &places(&fixture.disk, &fixture.model)[first];
                assert_eq!((&path, position, offset), (&place.0, place.1.start, fixture.model[first].base));
                assert_eq!(next_offset, Some(fixture.model[behind].base), "offset {}", stored.base);
            }
            Err(error) => panic!("offset {}: {error}", stored.base),
        }
    }
    let mut cursor = Cursor::new(0);
    let mut served = Vec::new();
    loop {
        match reader.read_next(&mut cursor, 1 << 20, i64::MAX) {
            Ok(read) if read.is_empty() => break,
            Ok(read) => served.extend_from_slice(&read),
            Err(LogError::Corrupt { next_offset: Some(next_offset), .. }) => cursor = Cursor::new(next_offset),
            Err(error) => panic!("offset {}: {error}", cursor.offset()),
        }
    }
    let whole = fixture.model.iter().enumerate().filter(|(number, _)| !lost.contains(number));
    assert!(served == whole.flat_map(|(_, stored)| stored.bytes.clone()).collect::<Vec<_>>(), "all but {lost:?}");
}

#[test]
fn a_closed_segment_that_cannot_be_read_costs_its_own_batches_and_no_others() {
    // All of it, some pages, its start, its end; twice the same. With the note of a clean stop, and without.
    for ranges in [vec![ALL], vec![page(2)], vec![page(0), page(4)], vec![page(9), page(3)], vec![page(9)]] {
        for is_closed in [false, true] {
            let mut fixture = four();
            let path = fixture.segments()[1].clone();
            if is_closed {
                fixture = fixture.close_and_reopen(1).0;
                fixture.log.close().expect("closes");
                fixture.log = open(&fixture.disk, PAGES).0;
            }
            fixture.disk.make_unreadable(&path, &ranges);
            let lost = lost(&fixture.disk, &fixture.model, &path, &ranges);
            for _ in 0..2 {
                let report = fixture.reopen();
                assert!(report.cut.is_none() && report.truncated_bytes == 0 && report.set_aside.is_empty(), "{report:?}");
                check_but(&fixture, &lost);
                let known = fixture.log.reader().known_damage().expect("it was met");
                assert_eq!((known.ranges, known.first_offset), (ranges.len(), fixture.model[lost[0]].base), "{ranges:?}");
            }
            // What is appended and flushed goes behind, and an opening does not forget it.
            fixture.append(&[batch(2, 30)]);
            fixture.flush();
            fixture.disk.crash(7);
            fixture.reopen();
            check_but(&fixture, &lost);
            // It was not for good.
            fixture.disk.make_unreadable(&path, &[]);
            fixture.check();
            fixture.reopen();
            fixture.check();
            assert_eq!(fixture.log.reader().known_damage(), None);
        }
    }
}

#[test]
fn what_an_opening_cannot_read_is_known_from_the_start() {
    let mut fixture = four();
    let path = fixture.segments()[1].clone();
    fixture.disk.make_unreadable(&path, &[ALL]);
    let report = fixture.reopen();
    assert!(matches!(&report.damaged[..], [one] if one.path == path && matches!(one.reason, Damage::Unreadable(_))), "{report:?}");
    assert_eq!(fixture.log.reader().known_damage(), Some(KnownDamage { ranges: 1, first_offset: 53 }));
}

#[test]
fn a_segment_that_cannot_even_be_opened_is_damage_and_a_missing_right_or_descriptor_is_none() {
    let fixture = four();
    let reads = |before: &SimDisk| before.count(Operation::Read);
    let before = reads(&fixture.disk);
    open(&fixture.disk, PAGES);
    let reads_of_opening = reads(&fixture.disk) - before;
    let (mut opened, mut refused) = (0, 0);
    for nth in 1..=reads_of_opening {
        fixture.disk.fail(Operation::Read, nth, Fault::TooManyOpenFiles);
        let outcome = try_open(&fixture.disk, PAGES);
        fixture.disk.forget_failures(Operation::Read);
        if let Ok((log, report)) = outcome {
            assert!(report.damaged.is_empty() && log.reader().known_damage().is_none(), "read {nth}: {report:?}");
        }
        fixture.disk.fail(Operation::Read, nth, Fault::Device);
        match try_open(&fixture.disk, PAGES) {
            Ok((log, report)) => {
                assert!(report.cut.is_none() && report.truncated_bytes == 0 && log.log_end() == fixture.end(), "read {nth}: {report:?}");
                let reader = log.reader();
                assert_eq!(report.damaged.is_empty(), reader.known_damage().is_none(), "read {nth}");
                for stored in &fixture.model {
                    match reader.read(stored.base, 1, i64::MAX) {
                        Ok(read) => assert!(read == stored.bytes),
                        // Nobody knew how long it is.
                        Err(LogError::Corrupt { .. }) => assert!(!report.damaged.is_empty(), "read {nth}"),
                        Err(error) => panic!("{error}"),
                    }
                }
                opened += 1;
            }
            Err(_) => refused += 1,
        }
        fixture.disk.forget_failures(Operation::Read);
        fixture.check();
    }
    assert!(opened > 3 && refused > 0, "{opened} {refused}");
}

#[test]
fn the_tools_step_over_a_segment_that_cannot_even_be_opened() {
    let mut fixture = four();
    for closes in [false, true] {
        if closes {
            fixture = fixture.close_and_reopen(1).0;
        }
        let (disk, segments) = (&fixture.disk, fixture.segments());
        disk.damage(&segments[1], |bytes| bytes[2_000] ^= 1);
        let before = disk.count(Operation::Read);
        assert_eq!((plan(disk, RepairMode::DropBatch).losses().len(), plan(disk, RepairMode::DropBatch).unopened().len()), (1, 0));
        let (reads, mut stepped_over) = ((disk.count(Operation::Read) - before) / 2, std::collections::BTreeSet::new());
        for nth in 1..=reads {
            disk.fail(Operation::Read, nth, Fault::Device);
            let plan = RepairPlan::new(disk, Path::new(DIR), RepairMode::DropBatch, &mut Seen::default());
            disk.forget_failures(Operation::Read);
            let Ok(plan) = plan else { continue };
            let unopened: Vec<_> = plan.unopened().iter().map(|unopened| unopened.path.clone()).collect();
            let losses = plan.losses().iter().filter(|loss| loss.path == segments[1] && loss.unreadable_bytes == 0).count();
            assert!(losses == 1 || unopened == [segments[1].clone()] || !plan.losses().is_empty(), "read {nth}: {plan:?}");
            stepped_over.extend(unopened);
        }
        assert!(segments.iter().all(|path| stepped_over.contains(path)), "{stepped_over:?}");
        disk.damage(&segments[1], |bytes| bytes[2_000] ^= 1);

        disk.fail(Operation::Read, 1, Fault::Device);
        let range = SegmentWalk::open_or_damage(disk, &segments[1], 53, Some(106)).expect("it is damage").expect_err("it fails");
        assert!(matches!(range.reason, Damage::Unreadable(_)), "{range:?}");
        assert_eq!((range.position, range.bytes, range.offset, range.next_offset), (0, 0, 53, Some(106)));
        disk.fail(Operation::Read, 1, Fault::TooManyOpenFiles);
        SegmentWalk::open_or_damage(disk, &segments[1], 53, Some(106)).expect_err("that says nothing about the bytes");
    }
}

#[test]
fn a_small_file_that_cannot_be_read_keeps_no_log_closed_that_can_do_without() {
    let at = |name: &str| Path::new(DIR).join(name);
    for closes in [false, true] {
        let mut fixture = four();
        fixture.delete_before(60);
        if closes {
            fixture = fixture.close_and_reopen(1).0;
        }
        for name in ["recovery-point", "clean-stop", "log-start", "log-start.2"] {
            if !fixture.disk.exists(&at(name)).expect("asks") {
                continue;
            }
            fixture.disk.make_unreadable(&at(name), &[ALL]);
            plan(&fixture.disk, RepairMode::DropBatch);
            let report = fixture.reopen();
            assert!(report.cut.is_none() && report.damaged.is_empty() && report.lost_log_start.is_none(), "{name}: {report:?}");
            fixture.check();
            fixture.disk.make_unreadable(&at(name), &[]);
            fixture.reopen();
            fixture.check();
        }
        // Of the log start there is nothing else.
        for name in ["log-start", "log-start.2"] {
            fixture.disk.make_unreadable(&at(name), &[ALL]);
        }
        let error = try_open(&fixture.disk, PAGES).expect_err("nobody knows where it begins").chain();
        assert!(error.contains("can't read") && error.contains("/log-start: "), "{error}");
        for name in ["log-start", "log-start.2"] {
            fixture.disk.make_unreadable(&at(name), &[]);
        }
        fixture.reopen();
        fixture.check();
    }
}

#[test]
fn what_is_lost_while_the_log_is_open_is_found_and_back_when_it_is_back() {
    for number in [0, 3] {
        let fixture = four();
        let path = fixture.segments()[number].clone();
        fixture.check();
        for round in 0..5 {
            let ranges = [page(round), page(6)];
            fixture.disk.make_unreadable(&path, &ranges);
            check_but(&fixture, &lost(&fixture.disk, &fixture.model, &path, &ranges));
            assert_eq!(fixture.log.reader().known_damage().map(|known| known.ranges), Some(2));
            fixture.disk.make_unreadable(&path, &[]);
            fixture.check();
            assert_eq!(fixture.log.reader().known_damage(), None);
        }
        assert!(fixture.log.failure().is_none());
    }
}

#[test]
fn readers_cannot_make_a_segment_be_read_through_again_and_again() {
    let fixture = four();
    let (path, reader) = (fixture.segments()[3].clone(), fixture.log.reader());
    // At the end of the active segment, where nothing is behind.
    let bytes = fixture.disk.bytes(&path).expect("a segment").len() as u64;
    let ranges = [page(0), page(2), page(4), bytes - 1_000..bytes];
    fixture.disk.make_unreadable(&path, &ranges);
    let lost = lost(&fixture.disk, &fixture.model, &path, &ranges);
    let reads = |disk: &SimDisk| disk.count(Operation::Read);
    assert!(lost.iter().all(|number| reader.read(fixture.model[*number].base, 1, i64::MAX).is_err()));
    let lost = &lost[lost.len() - 2..];
    let before = reads(&fixture.disk);
    for _ in 0..1_000 {
        for number in lost {
            let error = reader.read(fixture.model[*number].base, 1 << 20, i64::MAX).expect_err("it can't be read");
            assert!(matches!(error, LogError::Corrupt { reason: Damage::Unreadable(_), .. }), "{error}");
        }
    }
    // With those that look for where reads work again.
    assert!(reads(&fixture.disk) - before <= 1_000 * lost.len() as u64 * 24, "{}", reads(&fixture.disk) - before);

    // A disk that changes its mind all the time.
    let path = fixture.segments()[0].clone();
    let before = reads(&fixture.disk);
    for _ in 0..1_000 {
        fixture.disk.make_unreadable(&path, &[page(2), page(4), page(6)]);
        reader.read(fixture.model[12].base, 1, i64::MAX).expect_err("it can't be read");
        fixture.disk.make_unreadable(&path, &[]);
        assert!(reader.read(fixture.model[12].base, 1, i64::MAX).expect("reads") == fixture.model[12].bytes);
    }
    assert!(reads(&fixture.disk) - before <= 2_000 * 12 + 64 * 100, "{}", reads(&fixture.disk) - before);
}

#[test]
fn in_the_last_segment_the_middle_is_stepped_over_and_nothing_is_cut_at_an_end_that_cannot_be_read() {
    let mut fixture = four();
    let path = fixture.segments()[3].clone();
    let whole = fixture.disk.bytes(&path).expect("a segment");
    let ranges = [page(1), page(4)];
    fixture.disk.make_unreadable(&path, &ranges);
    let lost_batches = lost(&fixture.disk, &fixture.model, &path, &ranges);
    for seed in 0..3 {
        let report = fixture.reopen();
        assert!(report.cut.is_none() && report.truncated_bytes == 0 && report.damaged.len() == 2, "{report:?}");
        check_but(&fixture, &lost_batches);
        fixture.append(&[batch(1, 50)]);
        fixture.flush();
        fixture.disk.crash(seed);
    }
    fixture = fixture.close_and_reopen(9).0;
    check_but(&fixture, &lost_batches);

    // The end, with and without something of a torn write behind.
    for (start, torn) in [(0, 0), (1_000, 0), (10_000, 0), (10_000, 300)] {
        let mut fixture = four();
        fixture.disk.damage(&path, |bytes| bytes.extend(vec![0xa5; torn]));
        let found = fixture.disk.bytes(&path).expect("a segment");
        fixture.disk.make_unreadable(&path, std::slice::from_ref(&(start..whole.len() as u64)));
        for _ in 0..2 {
            let error = try_open(&fixture.disk, PAGES).expect_err("nobody knows where the log ends");
            assert!(matches!(&error, LogError::Corrupt { path: named, reason: Damage::Unreadable(_), .. } if *named == path), "{error}");
            assert!(fixture.disk.bytes(&path).expect("a segment") == found && files(&fixture.disk, "removed-1").is_empty());
        }
        let (verified, faults) = look(&fixture.disk);
        assert!(verified.faults >= 1 && faults.iter().any(|fault| fault.contains("damaged: it can't be read")), "{faults:#?}");
        fixture.disk.make_unreadable(&path, &[]);
        fixture.reopen();
        fixture.check();
    }
}

#[test]
fn a_repair_gives_up_what_cannot_be_read_and_keeps_what_can() {
    for mode in [RepairMode::DropBatch, RepairMode::Truncate] {
        let fixture = four();
        let path = fixture.segments()[1].clone();
        let (ranges, before) = ([page(2), page(6)], fixture.disk.bytes(&path).expect("a segment"));
        fixture.disk.make_unreadable(&path, &ranges);
        let gone = lost(&fixture.disk, &fixture.model, &path, &ranges);
        let (verified, faults) = look(&fixture.disk);
        assert!(verified.faults == 2 && faults.iter().all(|fault| fault.contains("damaged: it can't be read")), "{faults:#?}");
        let plan = plan(&fixture.disk, mode);
        assert_eq!(plan.losses().iter().map(|loss| loss.unreadable_bytes).sum::<u64>(), 2 * PAGE, "{:?}", plan.losses());
        let disk = Arc::new(fixture.disk.clone()) as Arc<dyn Disk>;
        plan.apply_with(&disk, PAGES).expect("is repaired");
        assert_eq!(look(&fixture.disk).0.faults, 0, "{:#?}", look(&fixture.disk).1);
        // The copy has all but the pages.
        let kept: Vec<_> = files(&fixture.disk, &plan.kept_suffix()).into_iter().filter(|kept| kept_log_of(kept) == Some(53)).collect();
        for kept in &kept {
            let name = kept.to_string_lossy();
            let loss = plan.losses().iter().find(|loss| name.contains(&format!(".log.{}-", loss.position))).expect("named by its place");
            let bytes = fixture.disk.bytes(kept).expect("kept");
            let page_of = |at: usize| ranges.iter().any(|range| range.contains(&(loss.position + at as u64)));
            let expected = |at: usize| if page_of(at) { 0 } else { before[usize::try_from(loss.position).expect("small") + at] };
            assert!(!bytes.is_empty() && bytes.iter().enumerate().all(|(at, byte)| *byte == expected(at)), "{}", kept.display());
            let base = fixture.model[gone[0]].base;
            SegmentWalk::open_kept(&fixture.disk, kept, base).expect("opens").next_piece().expect("reads");
        }
        let (log, report) = open(&fixture.disk, PAGES);
        assert!(report.is_clean() && !kept.is_empty(), "{report:?}");
        let all = read_all(&log.reader(), 0, 1 << 20).expect("nothing is damaged");
        let end = if mode == RepairMode::Truncate { gone[0] } else { fixture.model.len() };
        let left = (0..end).filter(|number| !gone.contains(number));
        let batches = crate::harness::batches(all.into());
        let full: Vec<_> = batches.iter().filter(|batch| batch.header().record_count > 0).map(|batch| batch.bytes().to_vec()).collect();
        assert!(full == left.map(|number| fixture.model[number].bytes.clone()).collect::<Vec<_>>());
        assert_eq!(log.log_end(), fixture.model[end - 1].next);
    }
}

#[test]
fn a_walk_goes_on_behind_what_cannot_be_read_and_says_which_pages_those_are() {
    let fixture = four();
    let path = fixture.segments()[1].clone();
    fixture.disk.make_unreadable(&path, &[page(3)]);
    let lost = lost(&fixture.disk, &fixture.model, &path, &[page(3)]);
    let mut walk = SegmentWalk::open(&fixture.disk, &path, 53, Some(106)).expect("opens");
    let (mut batches, mut damages) = (0, Vec::new());
    while let Some(piece) = walk.next_piece().expect("reads on") {
        match piece {
            Piece::Batch(found) => {
                batches += 1;
                walk.load(&found).expect("reads").expect("small");
            }
            Piece::Damage(range) => damages.push(range),
        }
    }
    let [range] = &damages[..] else { panic!("{damages:?}") };
    assert_eq!((batches, range.unreadable_bytes, range.offset), (53 - lost.len(), PAGE, fixture.model[lost[0]].base));
    assert_eq!(range.next_offset, Some(fixture.model[lost[lost.len() - 1]].next));
    assert!(matches!(range.reason, Damage::Unreadable(_)) && !range.crc_ok);
}

/// A random log, some of whose durable pages can't be read for a while.
fn replay(seed: u64) {
    let mut random = Random::new(seed);
    let config = config([9_000, 40_000, 1 << 30][usize::try_from(random.below(3)).expect("small")], 700);
    let mut fixture = Fixture::new(config);
    // As it is before any segment is proven.
    let (point, first) =
        (Path::new(DIR).join("recovery-point"), fixture.disk.bytes(&Path::new(DIR).join("recovery-point")).expect("a point"));
    for _ in 0..20 + random.below(80) {
        let clock = random.below(1_000).cast_signed();
        fixture.append(&[random_batch(&mut random, clock)]);
    }
    fixture.flush();
    if random.percent(50) {
        fixture = fixture.close_and_reopen(seed).0;
    }
    for round in 0..3 {
        let mut broken: Vec<(PathBuf, Vec<Range<u64>>)> = Vec::new();
        for path in fixture.segments() {
            let pages: Vec<_> = (0..20).filter(|_| random.percent(10)).map(page).collect();
            fixture.disk.make_unreadable(&path, &pages);
            broken.push((path, pages));
        }
        if random.percent(30) {
            fixture.disk.damage(&point, |bytes| bytes.clone_from(&first));
        }
        let before: Vec<_> = fixture.segments().iter().map(|path| fixture.disk.bytes(path).expect("a segment")).collect();
        let opened = if random.percent(60) { try_open(&fixture.disk, config).map(|(log, _)| fixture.log = log) } else { Ok(()) };
        if let Err(error) = &opened {
            assert!(matches!(error, LogError::Corrupt { reason: Damage::Unreadable(_), .. }), "{error}");
        }
        let gone: Vec<usize> = broken.iter().flat_map(|(path, pages)| lost(&fixture.disk, &fixture.model, path, pages)).collect();
        let reader = fixture.log.reader();
        let mut may_fail = vec![false; fixture.model.len() + 1];
        for (number, stored) in fixture.model.iter().enumerate() {
            let is_alone = number > 0 && may_fail[number - 1] && (gone.contains(&(number + 1)) || number + 1 == fixture.model.len());
            may_fail[number] = gone.contains(&number) || is_alone;
            match reader.read(stored.next - 1, 1, i64::MAX) {
                Ok(read) => assert!(read == stored.bytes && !gone.contains(&number), "offset {}", stored.base),
                Err(LogError::Corrupt { .. }) => assert!(may_fail[number], "round {round}: offset {} of {gone:?}", stored.base),
                Err(error) => panic!("offset {}: {error}", stored.base),
            }
        }
        let after: Vec<_> = fixture.segments().iter().map(|path| fixture.disk.bytes(path).expect("a segment")).collect();
        // Behind a last segment that lacks, for now, some of what was durable, a new one is begun.
        assert!(after.starts_with(&before) && after[before.len()..].iter().all(Vec::is_empty), "nothing is cut");
        for (path, _) in &broken {
            fixture.disk.make_unreadable(path, &[]);
        }
        if opened.is_ok() {
            fixture.check();
            fixture.append(&[batch(1, 900)]);
            fixture.flush();
        }
        fixture.disk.crash(seed);
        fixture.reopen();
        fixture.check();
    }
    assert!(files(&fixture.disk, "").iter().all(|path| kept_log_of(path).is_none()), "in {DIR}");
}

#[test]
fn pages_that_come_and_go_in_random_logs_take_nothing_for_good() {
    seeds::replay_each(600, replay);
}

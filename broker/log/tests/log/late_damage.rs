//! Damage that comes while the log is open, one after the other, and what is known of it from the start.

use std::path::PathBuf;

use millpond_log::inspect::{Piece, SegmentWalk};
use millpond_log::sim::{Operation, Random};
use millpond_log::{Damage, KnownDamage, LogConfig, LogError, VerifyOnRead};
use millpond_protocol::compression::Codec;

use crate::harness::{Fixture, SMALL, Stored, batch, batch_with, config, files};
use crate::seeds;

/// Segments of 26 batches of 770 bytes, every one of which is compared on its way out.
const COMPARED: LogConfig = LogConfig { verify_on_read: VerifyOnRead::Always, ..config(20_100, 4_000) };

/// Three closed segments and an active one.
fn four() -> Fixture {
    let mut fixture = Fixture::new(COMPARED);
    for _ in 0..100 {
        fixture.append(&[batch(1, 700)]);
    }
    fixture.flush();
    assert_eq!(fixture.segments().len(), 4);
    fixture
}

/// Where a batch lies.
fn place(fixture: &Fixture, number: usize) -> (PathBuf, usize) {
    (fixture.segments()[number / 26].clone(), (number % 26) * fixture.model[0].bytes.len())
}

fn flip(fixture: &Fixture, number: usize, byte: usize) {
    let (path, start) = place(fixture, number);
    fixture.disk.damage(&path, |bytes| bytes[start + byte] ^= 1);
}

/// Every batch but these is served, and those are not.
fn check_but(fixture: &Fixture, rotten: &[usize]) {
    let reader = fixture.log.reader();
    for (number, Stored { base, bytes, .. }) in fixture.model.iter().enumerate() {
        match reader.read(*base, 1, i64::MAX) {
            Ok(read) => assert!(read == *bytes && !rotten.contains(&number), "offset {base}"),
            Err(LogError::Corrupt { offset, next_offset, .. }) => {
                assert!(rotten.contains(&number), "offset {base} is whole");
                assert_eq!((offset, next_offset.is_none_or(|next| next == base + 1)), (*base, true));
            }
            Err(error) => panic!("offset {base}: {error}"),
        }
    }
}

#[test]
fn damage_that_comes_later_takes_nothing_with_it_that_is_whole() {
    let fixture = four();
    let known = || fixture.log.reader().known_damage();
    flip(&fixture, 5, 300);
    check_but(&fixture, &[5]);
    assert_eq!(known(), Some(KnownDamage { ranges: 1, first_offset: 5 }));
    // A length that is too large, one that is too small, an offset, a format version.
    for (nth, (number, byte)) in [(8, 10), (11, 11), (14, 7), (17, 16), (30, 10), (40, 200)].into_iter().enumerate() {
        flip(&fixture, number, byte);
        let rotten: Vec<_> = [5, 8, 11, 14, 17, 30, 40].into_iter().take_while(|rotten| *rotten <= number).collect();
        check_but(&fixture, &rotten);
        assert_eq!(known(), Some(KnownDamage { ranges: nth + 2, first_offset: 5 }));
    }
    // And what was changed back is served again.
    flip(&fixture, 8, 10);
    check_but(&fixture, &[5, 11, 14, 17, 30, 40]);
    assert_eq!(known().map(|known| known.ranges), Some(6));
}

#[test]
fn a_lookup_by_time_that_meets_damage_makes_it_known_as_a_read_does() {
    for unreadable in [false, true] {
        let mut fixture = Fixture::new(COMPARED);
        for clock in 0..100 {
            fixture.append(&[batch_with(&[clock], 700, Codec::None)]);
        }
        fixture.flush();
        let (reader, (path, start)) = (fixture.log.reader(), place(&fixture, 5));
        assert_eq!((reader.find_time(5, i64::MAX).expect("looks"), reader.known_damage()), (Some((5, 5)), None));
        if unreadable {
            fixture.disk.make_unreadable(&path, std::slice::from_ref(&(start as u64 + 300..start as u64 + 301)));
        } else {
            flip(&fixture, 5, 16);
        }
        let mut reads = Vec::new();
        for _ in 0..3 {
            let before = fixture.disk.count(Operation::Read);
            let error = reader.find_time(5, i64::MAX).expect_err("nobody knows whether it is there");
            assert!(matches!(error, LogError::Corrupt { .. }), "{error}");
            reads.push(fixture.disk.count(Operation::Read) - before);
            assert_eq!(reader.known_damage().map(|known| known.ranges), Some(1), "unreadable: {unreadable}");
        }
        assert!(reads[1] < reads[0] && reads[2] == reads[1], "it is read through once: {reads:?}");
        if unreadable {
            fixture.disk.make_unreadable(&path, &[]);
        } else {
            flip(&fixture, 5, 16);
        }
        assert_eq!(reader.find_time(5, i64::MAX).expect("it is back"), Some((5, 5)));
    }
}

#[test]
fn damage_that_nobody_has_looked_behind_is_looked_at_again_once_there_is_more() {
    let mut fixture = four();
    let last = fixture.model.len() - 1;
    flip(&fixture, last, 300);
    check_but(&fixture, &[last]);
    assert_eq!(fixture.log.reader().known_damage(), Some(KnownDamage { ranges: 1, first_offset: 99 }), "nothing is behind it");
    let path = fixture.segments()[3].clone();
    let before = fixture.disk.count(Operation::Read);
    for _ in 0..100 {
        fixture.log.reader().read(fixture.model[last].base, 1, i64::MAX).expect_err("it is damaged");
    }
    assert!(fixture.disk.count(Operation::Read) - before < 100 * 8, "{}", path.display());
    fixture.append(&[batch(1, 700), batch(1, 700), batch(1, 700)]);
    check_but(&fixture, &[last]);
    assert_eq!(fixture.log.reader().known_damage(), Some(KnownDamage { ranges: 1, first_offset: fixture.model[last].base }));
}

#[test]
fn all_that_an_opening_meets_is_known_from_the_start() {
    for verify_on_read in [VerifyOnRead::First, VerifyOnRead::Never] {
        let mut fixture = four();
        fixture.config.verify_on_read = verify_on_read;
        // The walk over the headers is what an index that is gone costs.
        for path in files(&fixture.disk, ".index") {
            fixture.disk.damage(&path, |bytes| bytes.truncate(3));
        }
        for (number, byte) in [(3, 10), (9, 7), (20, 16), (25, 11), (51, 8)] {
            flip(&fixture, number, byte);
        }
        let report = fixture.reopen();
        let places: Vec<_> = [3, 9, 20, 25, 51].into_iter().map(|number| place(&fixture, number)).collect();
        let said: Vec<_> = report.damaged.iter().map(|one| (one.path.clone(), usize::try_from(one.position).expect("small"))).collect();
        assert_eq!(said, places);
        assert_eq!(fixture.log.reader().known_damage(), Some(KnownDamage { ranges: 5, first_offset: 3 }));
        check_but(&fixture, &[3, 9, 20, 25, 51]);
    }
}

#[test]
fn segments_in_each_others_place_are_known_from_the_start() {
    let mut fixture = Fixture::new(SMALL);
    fixture.append(&vec![batch(1, 700); 33]);
    fixture.flush();
    let (one, other) = (fixture.segments()[2].clone(), fixture.segments()[4].clone());
    let (bytes, others) = (fixture.disk.bytes(&one).expect("a segment"), fixture.disk.bytes(&other).expect("a segment"));
    fixture.disk.damage(&one, |found| *found = others);
    fixture.disk.damage(&other, |found| *found = bytes);
    let report = fixture.reopen();
    assert_eq!(report.damaged.len(), 2, "{report:?}");
    assert_eq!(fixture.log.reader().known_damage(), Some(KnownDamage { ranges: 2, first_offset: 10 }));
    for (number, stored) in fixture.model.iter().enumerate() {
        let read = fixture.log.reader().read(stored.base, 1, i64::MAX);
        assert_eq!(read.is_ok(), !(10..15).contains(&number) && !(20..25).contains(&number), "{number}: {read:?}");
    }
}

#[test]
fn a_walk_says_of_what_is_only_misplaced_that_its_checksum_is_right() {
    let fixture = four();
    for (number, byte, crc_ok) in [(3, 7, true), (9, 300, false), (14, 10, false), (20, 18, false)] {
        flip(&fixture, number, byte);
        let (path, position) = place(&fixture, number);
        let mut walk = SegmentWalk::open(&fixture.disk, &path, 0, Some(26)).expect("opens");
        let mut found = None;
        while let Some(piece) = walk.next_piece().expect("reads") {
            if let Piece::Damage(range) = piece {
                found = (range.position == position as u64).then_some(range).or(found);
            }
        }
        let range = found.expect("it is found");
        assert_eq!((range.crc_ok, matches!(range.reason, Damage::UnexpectedOffset { .. })), (crc_ok, crc_ok), "{number}: {range:?}");
    }
}

/// Batches rot one after the other, while the log is read and written, and opened again.
fn replay(seed: u64) {
    let mut random = Random::new(seed);
    let mut fixture = four();
    let mut rotten: Vec<usize> = Vec::new();
    for _ in 0..10 {
        for _ in 0..=random.below(3) {
            // Not two that touch each other, which are one range; nor the last batches of the log, behind which is nothing.
            let number = usize::try_from(random.below(98)).expect("small");
            let byte = usize::try_from(random.below(770)).expect("small");
            let is_apart = rotten.iter().all(|other| other.abs_diff(number) > 1);
            if is_apart && number < 97 && byte < fixture.model[0].bytes.len() && !(12..16).contains(&byte) {
                flip(&fixture, number, byte);
                rotten.push(number);
            }
        }
        rotten.sort_unstable();
        check_but(&fixture, &rotten);
        let known = fixture.log.reader().known_damage();
        assert_eq!(known.map_or(0, |known| known.ranges), rotten.len(), "{rotten:?}");
        if random.percent(20) {
            let report = fixture.reopen();
            assert!(report.cut.is_none() && report.set_aside.is_empty(), "{report:?}");
            check_but(&fixture, &rotten);
        }
    }
}

#[test]
fn batches_that_rot_one_after_the_other_are_lost_alone() {
    seeds::replay_each(150, replay);
}

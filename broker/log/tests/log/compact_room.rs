//! Compaction on a disk that has room for a part of what is to be written before others go.

use std::collections::BTreeSet;

use millpond_log::{CompactionPass, CompactionStep, LogError};
use millpond_protocol::compression::Codec;

use crate::compacted::{CONFIG, Compacting, NOON_MS, changes, compaction, row};
use crate::harness::files;

/// One segment for each of these sizes, of which a record of so many bytes is left, and the first four together as one. A large record
/// goes of each, but for those that are said to stay as they are. Gives a pass that has looked at all of it, too.
fn one_group(left_bytes: [usize; 4], stays: Option<usize>) -> (Compacting, CompactionPass) {
    let mut compacting = Compacting::new(CONFIG);
    for (number, bytes) in left_bytes.into_iter().chain([0]).enumerate() {
        let left = row(&format!("left {number}"), Some(&"x".repeat(bytes)));
        let goes = row("goes", Some(&"x".repeat(880 - bytes)));
        let rows = if stays == Some(number) { vec![left] } else { vec![goes, left] };
        compacting.append(&rows, Codec::None);
    }
    compacting.settle();
    assert_eq!(files(&compacting.disk, ".log").len(), 6, "one for each, and the active one");
    let mut pass = compacting.compactor.begin(compaction(i64::MAX, NOON_MS)).expect("begins").expect("there is enough");
    compacting.model.attempt(compacting.model.end(), NOON_MS);
    // Five to note, and the end of that; five to look at, and the end of that.
    for _ in 0..12 {
        assert_eq!(compacting.compactor.step(&mut pass).expect("reads"), CompactionStep::More);
    }
    (compacting, pass)
}

/// Goes on, and gives how many offsets each new segment has; or how many it gave before there was no room.
fn go_on(compacting: &mut Compacting, pass: &mut CompactionPass) -> (Vec<i64>, Option<LogError>) {
    let mut replaced = Vec::new();
    loop {
        match compacting.compactor.step(pass) {
            Ok(CompactionStep::More) => {}
            Ok(CompactionStep::Replaced(segment)) => replaced.push(segment.end_offset - segment.base_offset),
            Ok(CompactionStep::Done(done)) => {
                compacting.model.completed(&done, NOON_MS);
                let segments = compacting.log.reader().segments();
                let closed = &segments[..segments.len() - 1];
                let bytes: u64 = closed.iter().map(|segment| segment.bytes).sum();
                assert_eq!((done.segments_after, done.bytes_after), (closed.len() as u64, bytes), "{done:?}");
                return (replaced, None);
            }
            Err(error) => return (replaced, Some(error)),
        }
    }
}

fn leave_free(compacting: &Compacting, bytes: u64) {
    compacting.disk.limit_bytes(Some(compacting.disk.used_bytes() + bytes));
}

#[test]
fn with_less_room_a_group_is_written_in_halves_and_with_too_little_nothing_is() {
    let mut seen = BTreeSet::new();
    for free in (0..2_500).step_by(25) {
        let (mut compacting, mut pass) = one_group([100; 4], None);
        leave_free(&compacting, free);
        let (before, files_before) = (changes(&compacting.disk), files(&compacting.disk, ""));
        let (mut replaced, error) = go_on(&mut compacting, &mut pass);
        compacting.model.check(&compacting.log.reader());
        if let Some(error) = error {
            assert!(matches!(error, LogError::Full { .. }) && replaced.is_empty(), "{free}: {replaced:?}, {error:?}");
            assert_eq!(
                (changes(&compacting.disk), files(&compacting.disk, "")),
                (before, files_before),
                "{free}: nothing is written in vain"
            );
            assert!(compacting.compactor.step(&mut pass).is_err(), "{free}: nor the next time");
            seen.insert((0, replaced.clone()));
            compacting.disk.limit_bytes(None);
            let error;
            (replaced, error) = go_on(&mut compacting, &mut pass);
            assert!(error.is_none(), "{free}: there is room now: {error:?}");
            compacting.model.check(&compacting.log.reader());
        } else {
            seen.insert((1 + replaced.len(), replaced.clone()));
        }
        assert_eq!(replaced.iter().sum::<i64>(), 8, "{free}: two offsets for each segment: {replaced:?}");
        compacting.reopen(CONFIG);
        compacting.model.check(&compacting.log.reader());
    }
    // The first quarter frees enough for the second half.
    let seen: Vec<_> = seen.into_iter().map(|(_, replaced)| replaced).collect();
    assert_eq!(seen, [vec![], vec![8], vec![4, 4], vec![2, 2, 4]]);
}

#[test]
fn the_second_half_may_find_its_room_in_what_the_first_has_freed() {
    // The second half alone finds none at first, and neither does a segment of it.
    let (mut compacting, mut pass) = one_group([10, 10, 250, 250], None);
    leave_free(&compacting, 1_300);
    let (replaced, error) = go_on(&mut compacting, &mut pass);
    assert!(replaced == [4, 4] && error.is_none(), "{replaced:?}, {error:?}");
    compacting.model.check(&compacting.log.reader());

    let (mut compacting, mut pass) = one_group([250, 250, 10, 10], None);
    leave_free(&compacting, 1_300);
    let (replaced, error) = go_on(&mut compacting, &mut pass);
    assert!(replaced.is_empty() && matches!(error, Some(LogError::Full { .. })), "the other way round: {replaced:?}, {error:?}");
    compacting.model.check(&compacting.log.reader());
}

#[test]
fn a_segment_that_does_not_change_is_not_written_for_itself() {
    for stays in 0..4 {
        let (mut compacting, mut pass) = one_group([100; 4], Some(stays));
        let path = files(&compacting.disk, ".log")[stays].clone();
        let before = compacting.disk.bytes(&path).expect("a segment");
        // Room for one at a time; the rest of the disk is taken as soon as something is freed.
        leave_free(&compacting, 1_250);
        let mut alone = 0;
        while let Ok(step) = compacting.compactor.step(&mut pass) {
            match step {
                CompactionStep::More => {}
                CompactionStep::Replaced(segment) => {
                    assert_eq!(segment.end_offset - segment.base_offset, 2, "one at a time");
                    alone += 1;
                    leave_free(&compacting, 1_250);
                }
                CompactionStep::Done(_) => break,
            }
        }
        assert_eq!(alone, 3);
        assert_eq!(compacting.disk.bytes(&path).expect("a segment"), before);
        compacting.model.check(&compacting.log.reader());
    }
}

//! Compaction of what can't be read now, and can later: no key may rise again, and no pass be made in vain.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use millpond_log::sim::{Fault, Operation, Random, SimDisk};
use millpond_log::{Compacted, CompactionPass, CompactionStep, Disk};
use millpond_protocol::compression::Codec;

use crate::compacted::{CONFIG, Compacting, DAY_MS, NOON_MS, Row, compaction, finish, random_rows, row};
use crate::harness::{DIR, config, files};
use crate::seeds;

/// Segments of one batch each.
fn one_each() -> Compacting {
    Compacting::new(config(300, 200))
}

fn append(compacting: &mut Compacting, key: &str, value: Option<&str>) {
    let filler = "x".repeat(200);
    compacting.append(&[row(key, value), row("filler", Some(&filler))], Codec::None);
}

fn begin(compacting: &mut Compacting) -> CompactionPass {
    compacting.compactor.begin(compaction(i64::MAX, compacting.now_ms)).expect("begins").expect("there is enough")
}

/// A pass a day later, with something new to be compacted.
fn a_day_later(compacting: &mut Compacting) -> Compacted {
    compacting.now_ms += DAY_MS.cast_signed() + 1;
    append(compacting, "more", Some("x"));
    compacting.settle();
    let mut pass = begin(compacting);
    finish(&mut compacting.compactor, &mut pass).expect("compacts").0
}

/// Changes a byte of the first header of a segment, which the checksum covers, and gives what was in it.
fn flip(disk: &SimDisk, path: &Path) -> Vec<u8> {
    let before = disk.bytes(path).expect("a segment");
    disk.damage(path, |bytes| bytes[30] ^= 1);
    before
}

/// What is there of a key: tombstones and values.
fn of_key(compacting: &Compacting, key: &str) -> Vec<Option<Vec<u8>>> {
    let rows = compacting.rows().into_iter().map(|(_, row)| row);
    rows.filter(|row| row.key.as_deref() == Some(key.as_bytes())).map(|row| row.value).collect()
}

/// How a segment fails.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Failure {
    /// What is read is not what was written.
    Checksum,
    /// The device says no.
    Device,
}

#[test]
fn a_key_whose_value_or_tombstone_can_not_be_read_for_one_step_or_one_pass_never_rises_again() {
    // Which segment, and for how many steps from which on: its keys are noted in step 1 + its number, and it is looked at in step 6 + that.
    for failure in [Failure::Checksum, Failure::Device] {
        for (unreadable, from) in (0..4).flat_map(|segment| (0..14).map(move |from| (segment, from))) {
            for steps in [1, 2, 6, 20] {
                let mut compacting = one_each();
                for (key, value) in [("a", Some("1")), ("b", Some("1")), ("a", None), ("b", Some("2"))] {
                    append(&mut compacting, key, value);
                }
                compacting.settle();
                let path = files(&compacting.disk, ".log")[unreadable].clone();
                let mut pass = begin(&mut compacting);
                let mut whole = None;
                for step in 0.. {
                    if step == from && failure == Failure::Checksum && compacting.disk.bytes(&path).is_ok() {
                        whole = Some((flip(&compacting.disk, &path), compacting.disk.bytes(&path).expect("a segment")));
                    }
                    if (from..from + steps.min(3)).contains(&step) && failure == Failure::Device {
                        compacting.disk.fail(Operation::Read, 1, Fault::Device);
                    }
                    if step == from + steps {
                        restore(&compacting.disk, &path, whole.take());
                    }
                    match compacting.compactor.step(&mut pass) {
                        Ok(CompactionStep::Done(_)) | Err(_) => break,
                        Ok(_) => {}
                    }
                }
                restore(&compacting.disk, &path, whole.take());
                use_up_faults(&compacting.disk);
                for _ in 0..4 {
                    a_day_later(&mut compacting);
                    let found = of_key(&compacting, "a");
                    let name = format!("{failure:?} of {unreadable} for {steps} from {from}: {found:?}");
                    assert!(found.is_empty() || found.last() == Some(&None), "{name}");
                    assert_eq!(of_key(&compacting, "b").last(), Some(&Some(b"2".to_vec())), "{name}");
                }
                let done = a_day_later(&mut compacting);
                assert_eq!((done.to, done.segments_damaged), (compacting.model.end(), 0));
                assert_eq!((of_key(&compacting, "a").len(), of_key(&compacting, "b").len()), (0, 1), "and all is done in the end");
            }
        }
    }
}

#[test]
fn a_tombstone_that_was_not_noted_is_neither_dated_nor_gone_although_it_can_be_read_then() {
    let mut compacting = one_each();
    for (number, (key, value)) in (0..).zip([("a", Some("1")), ("a", None), ("b", Some("1"))]) {
        let filler = "x".repeat(200);
        compacting.append(&[row(key, value), row(&format!("filler {number}"), Some(&filler))], Codec::None);
    }
    compacting.settle();
    let path = files(&compacting.disk, ".log")[1].clone();
    for _ in 0..3 {
        let mut pass = begin(&mut compacting);
        // The second step notes its keys, whether the first one has noted those before or has tried it once more.
        for step in 0.. {
            let whole = (step == 1).then(|| (flip(&compacting.disk, &path), compacting.disk.bytes(&path).expect("a segment")));
            let is_done = matches!(compacting.compactor.step(&mut pass).expect("compacts"), CompactionStep::Done(_));
            restore(&compacting.disk, &path, whole);
            if is_done {
                break;
            }
        }
        assert_eq!(of_key(&compacting, "a"), [Some(b"1".to_vec()), None]);
        compacting.now_ms += 2 * DAY_MS.cast_signed();
        append(&mut compacting, "more", Some("x"));
        compacting.settle();
    }
    a_day_later(&mut compacting);
    assert_eq!(of_key(&compacting, "a"), [None]);
    a_day_later(&mut compacting);
    assert!(of_key(&compacting, "a").is_empty());
}

/// The bytes of a segment, before and after.
type Flipped = (Vec<u8>, Vec<u8>);

/// Puts the bytes back, unless there are others by now.
fn restore(disk: &SimDisk, path: &Path, whole: Option<Flipped>) {
    if let Some((whole, damaged)) = whole
        && disk.bytes(path).is_ok_and(|bytes| bytes == damaged)
    {
        disk.damage(path, |bytes| *bytes = whole);
    }
}

#[test]
fn from_what_can_not_be_read_on_nothing_counts_as_compacted_and_no_tombstone_is_dated() {
    let mut compacting = one_each();
    for (key, value) in [("c", Some("1")), ("a", Some("1")), ("c", None), ("a", None), ("d", Some("1"))] {
        append(&mut compacting, key, value);
    }
    compacting.settle();
    let path = files(&compacting.disk, ".log")[1].clone();
    let whole = flip(&compacting.disk, &path);
    let mut pass = begin(&mut compacting);
    let (done, _) = finish(&mut compacting.compactor, &mut pass).expect("compacts");
    assert_eq!((done.from, done.to, done.segments_damaged), (0, 2, 1), "up to the segment, and not further");
    assert!(done.records_removed > 0, "what can be read is compacted all the same");
    for _ in 0..3 {
        let done = a_day_later(&mut compacting);
        assert_eq!((done.from, done.to, done.segments_damaged), (2, 2, 1));
        let tombstones = compacting.rows_from(4).into_iter().filter(|(_, row)| row.value.is_none()).count();
        assert_eq!(tombstones, 2, "they stay");
    }
    compacting.disk.damage(&path, |bytes| *bytes = whole);
    let done = a_day_later(&mut compacting);
    assert_eq!((done.from, done.to, done.segments_damaged), (2, compacting.model.end(), 0));
    assert_eq!(of_key(&compacting, "a"), [None], "the value is gone, and the tombstone has its time before it");
    a_day_later(&mut compacting);
    assert_eq!((of_key(&compacting, "a").len(), of_key(&compacting, "c").len()), (0, 0));
}

#[test]
fn a_damaged_segment_makes_no_pass_begin_again_and_costs_each_one_look() {
    let mut compacting = one_each();
    for number in 0..20 {
        append(&mut compacting, &format!("{}", number % 4), Some("x"));
    }
    compacting.settle();
    flip(&compacting.disk, &files(&compacting.disk, ".log")[0]);
    let mut pass = begin(&mut compacting);
    assert_eq!(finish(&mut compacting.compactor, &mut pass).expect("compacts").0.to, 0);
    let look = |compacting: &mut Compacting| {
        let reads = compacting.disk.count(Operation::Read);
        let begun = compacting.compactor.begin(compaction(i64::MAX, NOON_MS)).expect("begins");
        assert!(begun.is_none() && compacting.disk.count(Operation::Read) - reads <= 4, "no segment is read");
        let progress = compacting.compactor.progress();
        assert_eq!((progress.compacted_to, progress.dirty_bytes), (0, 0), "nothing waits for a pass");
    };
    (0..100).for_each(|_| look(&mut compacting));
    // What is new makes one pass each, which notes the keys of what is new alone.
    for _ in 0..5 {
        append(&mut compacting, "1", Some("y"));
        compacting.settle();
        let mut pass = begin(&mut compacting);
        let mut steps = 0;
        while !matches!(compacting.compactor.step(&mut pass).expect("compacts"), CompactionStep::Done(_)) {
            steps += 1;
        }
        // One look at it, one segment to note and the end of that; each is surveyed once, and one group at most is written.
        let segments = files(&compacting.disk, ".log").len();
        assert!(steps <= 3 + segments + 3, "{steps} steps for {segments} segments");
        look(&mut compacting);
    }
    // Nobody remembers that over a restart: there is one pass more, and then none.
    compacting.compactor = compacting.log.compactor();
    let mut pass = begin(&mut compacting);
    finish(&mut compacting.compactor, &mut pass).expect("compacts");
    look(&mut compacting);
}

#[test]
fn behind_a_damaged_segment_a_small_map_gets_to_the_end_all_the_same() {
    let mut compacting = Compacting::new(CONFIG);
    for number in 0..300 {
        compacting.append(&[row(&format!("{}", number % 100), Some(&number.to_string())), row("all", Some("x"))], Codec::None);
    }
    compacting.settle();
    let damaged = files(&compacting.disk, ".log")[2].clone();
    let whole = flip(&compacting.disk, &damaged);
    compacting.compactor = compacting.log.compactor().with_key_map_bytes(24 * 40);
    let pass = |compacting: &mut Compacting| {
        let mut pass = compacting.compactor.begin(compaction(i64::MAX, NOON_MS)).expect("begins")?;
        Some(finish(&mut compacting.compactor, &mut pass).expect("compacts").0)
    };
    let mut passes = 0;
    while let Some(done) = pass(&mut compacting) {
        passes += 1;
        assert!(passes < 40 && done.to < 100, "{passes} passes, {done:?}");
    }
    let behind = compacting.rows_from(400).len();
    assert!(passes > 8 && behind == 101, "{passes} passes, {behind} records");
    // Once it can be read, the rest goes too.
    compacting.disk.damage(&damaged, |bytes| *bytes = whole);
    append(&mut compacting, "all", Some("y"));
    compacting.settle();
    while let Some(done) = pass(&mut compacting) {
        assert_eq!(done.segments_damaged, 0);
    }
    assert_eq!(compacting.rows().len(), 102, "of each of 100 keys, of `all` and of the filler one");
}

#[test]
fn a_damaged_segment_does_not_keep_the_active_one_from_being_closed() {
    let mut compacting = Compacting::new(config(8 << 20, 4_096));
    let large = "x".repeat(600_000);
    compacting.append(&[row("a", Some(&large))], Codec::None);
    compacting.settle();
    flip(&compacting.disk, &files(&compacting.disk, ".log")[0]);
    let half = millpond_log::Compaction { dirty_percent_min: 50, ..compaction(i64::MAX, NOON_MS) };
    let mut pass = compacting.compactor.begin(half).expect("begins").expect("there is enough");
    finish(&mut compacting.compactor, &mut pass).expect("compacts");
    for wants in [false, true] {
        assert_eq!(compacting.compactor.wants_roll(half).expect("looks"), wants);
        compacting.append(&[row("a", Some(&large))], Codec::None);
        compacting.append(&[row("a", Some(&large))], Codec::None);
    }
}

/// A life of some days, in which segments can't be read now and then.
fn replay(seed: u64) {
    let mut random = Random::new(seed);
    let mut compacting = Compacting::new(CONFIG);
    let map_bytes = [24 * 6, 24 * 12, 1 << 20][usize::try_from(random.below(3)).expect("small")];
    compacting.compactor = compacting.log.compactor().with_key_map_bytes(map_bytes);
    for day in 0..12 {
        for _ in 0..=random.below(12) {
            let rows = random_rows(&mut random, 8);
            compacting.append(&rows, Codec::None);
        }
        compacting.settle();
        compacting.now_ms += random.below(2 * DAY_MS).cast_signed();
        let is_faulty = day < 8 && random.percent(70);
        let mut to = 0;
        for _ in 0..40 {
            let begun = compacting.compactor.begin(compaction(i64::MAX, compacting.now_ms)).expect("begins");
            let Some(mut pass) = begun else { break };
            let (end, now_ms) = (compacting.model.end(), compacting.now_ms);
            compacting.model.attempt(end, now_ms);
            let done = run(&mut compacting, &mut pass, is_faulty.then_some(&mut random));
            // Where some could not be read, records may stay that should have gone, up to the pass that comes to the end.
            if let Some(done) = done.filter(|done| done.segments_damaged == 0 && done.to == end) {
                compacting.model.completed(&done, now_ms);
            }
            if let Some(done) = done {
                to = done.to;
            }
            compacting.model.check(&compacting.log.reader());
            check_latest(&compacting);
        }
        assert!(day < 8 || to == compacting.model.end(), "seed {seed}: {to} is not all");
    }
}

/// Of each key the latest record that is there is the latest that was appended; or that was a tombstone, and none is there.
fn check_latest(compacting: &Compacting) {
    let rows: Vec<_> = compacting.rows();
    let latest = |rows: &mut dyn Iterator<Item = (i64, &Row)>| -> BTreeMap<Vec<u8>, (i64, bool)> {
        rows.filter_map(|(offset, row)| Some((row.key.clone()?, (offset, row.value.is_some())))).collect()
    };
    let found = latest(&mut rows.iter().map(|(offset, row)| (*offset, row)));
    for (key, latest) in latest(&mut (0..).zip(compacting.model.records.iter().map(|known| &known.row))) {
        let found = found.get(&key).copied();
        assert!(found == Some(latest) || found.is_none() && !latest.1, "key {key:?}: {found:?} in the place of {latest:?}");
    }
}

/// Goes on to the end, or to an error, with faults where there is randomness for them.
fn run(compacting: &mut Compacting, pass: &mut CompactionPass, mut random: Option<&mut Random>) -> Option<Compacted> {
    let mut damaged: Vec<(PathBuf, Option<Flipped>)> = Vec::new();
    let outcome = loop {
        if let Some(random) = &mut random {
            if random.percent(15) {
                for (path, whole) in damaged.drain(..) {
                    restore(&compacting.disk, &path, whole);
                }
            }
            let segments = files(&compacting.disk, ".log");
            let path = segments[usize::try_from(random.below(segments.len() as u64 - 1)).expect("small")].clone();
            if random.percent(15) && damaged.iter().all(|(known, _)| *known != path) {
                let whole = flip(&compacting.disk, &path);
                let bytes = compacting.disk.bytes(&path).expect("a segment");
                damaged.push((path, Some((whole, bytes))));
            }
            if random.percent(10) {
                compacting.disk.fail(Operation::Read, 1 + random.below(READS_TO_FAIL), Fault::Device);
            }
        }
        let step = compacting.compactor.step(pass);
        use_up_faults(&compacting.disk);
        match step {
            Ok(CompactionStep::Done(done)) => break Some(done),
            Ok(_) => {}
            Err(_) => break None,
        }
    };
    for (path, whole) in damaged {
        restore(&compacting.disk, &path, whole);
    }
    outcome
}

/// One that is left would fail somebody else.
fn use_up_faults(disk: &SimDisk) {
    for _ in 0..READS_TO_FAIL {
        let _ = disk.exists(Path::new(DIR));
    }
}

/// A fault is set for one of the next reads.
const READS_TO_FAIL: u64 = 3;

#[test]
fn no_key_rises_again_whatever_can_not_be_read_for_a_while() {
    seeds::replay_each(400, replay);
}

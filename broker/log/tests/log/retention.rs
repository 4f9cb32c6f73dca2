//! What retention decides, and how old it takes segments to be.

use std::path::Path;
use std::sync::Arc;

use millpond_log::sim::{Operation, SimDisk};
use millpond_log::{AppendTimes, Disk, Expired, Now, RetentionLimits, SegmentAge, SegmentInfo, WALL_CLOCK_FLOOR_MS};
use proptest::prelude::*;

use crate::harness::{DIR, Fixture, ROOMY, batch};

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;

/// Some day in 2026.
const TODAY_MS: i64 = 1_780_000_000_000;

fn segments(sizes_and_ages: &[(u64, u64)]) -> Vec<SegmentAge> {
    let age = |(number, (bytes, age_ms)): (i64, &(u64, u64))| SegmentAge {
        end_offset: 10 * number,
        bytes: *bytes,
        since_begun_ms: *age_ms,
        since_append_ms: *age_ms,
    };
    (1..).zip(sizes_and_ages).map(age).collect()
}

fn limits(retention_ms: Option<u64>, retention_bytes: Option<u64>) -> RetentionLimits {
    RetentionLimits { retention_ms, retention_bytes }
}

#[test]
fn segments_go_by_age_oldest_first_and_a_young_one_keeps_those_behind_it() {
    let log = segments(&[(5, 900), (5, 101), (5, 100), (5, 700), (0, 0)]);
    let expired = |retention_ms| limits(Some(retention_ms), None).expired(&log, i64::MAX).delete_before;
    assert_eq!(expired(1_000), None);
    assert_eq!(expired(899), Some(10));
    assert_eq!(expired(100), Some(20), "a segment that is just as old as the limit stays");
    assert_eq!(expired(99), Some(40));
    assert_eq!(limits(None, None).expired(&log, i64::MAX), Expired::default());
}

#[test]
fn segments_go_by_size_as_long_as_the_limit_is_left() {
    let log = segments(&[(40, 0), (30, 0), (20, 0), (10, 0)]);
    let expired = |retention_bytes| limits(None, Some(retention_bytes)).expired(&log, i64::MAX).delete_before;
    assert_eq!(expired(100), None);
    assert_eq!(expired(61), None, "60 would be left");
    assert_eq!(expired(60), Some(10));
    assert_eq!(expired(30), Some(20));
    assert_eq!(expired(1), Some(30), "the active one stays");
}

#[test]
fn nothing_behind_the_high_watermark_goes() {
    let log = segments(&[(1, 900), (1, 900), (1, 900)]);
    for (below, expected) in [(0, None), (9, None), (10, Some(10)), (19, Some(10)), (20, Some(20))] {
        assert_eq!(limits(Some(1), Some(0)).expired(&log, below).delete_before, expected, "below {below}");
    }
}

#[test]
fn an_active_segment_that_is_old_or_large_for_its_limit_is_closed_and_an_empty_one_is_not() {
    let roll = |bytes, age_ms, limits: RetentionLimits| limits.expired(&segments(&[(bytes, age_ms)]), i64::MAX).roll;
    assert!(roll(1, 26, limits(Some(100), None)));
    assert!(!roll(1, 25, limits(Some(100), None)));
    assert!(!roll(0, 1_000, limits(Some(100), None)));
    assert!(roll(26, 0, limits(None, Some(100))));
    assert!(!roll(25, 0, limits(None, Some(100))));
    assert!(!roll(1_000, 1_000, limits(None, None)));
}

proptest! {
    #[test]
    fn what_goes_is_too_old_or_too_much_and_what_stays_is_neither(
        log in prop::collection::vec((0..1_000_u64, 0..1_000_u64), 0..20),
        retention_ms in prop::option::of(0..1_000_u64),
        retention_bytes in prop::option::of(0..10_000_u64),
        below in 0..250_i64,
    ) {
        let (log, limits) = (segments(&log), limits(retention_ms, retention_bytes));
        let expired = limits.expired(&log, below);
        let (gone, kept) = log.split_at(log.partition_point(|segment| expired.delete_before.is_some_and(|before| segment.end_offset <= before)));
        prop_assert!(gone.is_empty() || !kept.is_empty(), "the active segment stays");
        prop_assert!(gone.iter().all(|segment| segment.end_offset <= below));
        let bytes = |segments: &[SegmentAge]| segments.iter().map(|segment| segment.bytes).sum::<u64>();
        for (number, segment) in gone.iter().enumerate() {
            let too_old = retention_ms.is_some_and(|limit| segment.since_append_ms > limit);
            let too_much = retention_bytes.is_some_and(|limit| bytes(&log[number + 1..]) >= limit);
            prop_assert!(too_old || too_much, "{segment:?} need not go");
        }
        if let [first, behind @ ..] = kept && !behind.is_empty() && first.end_offset <= below {
            prop_assert!(retention_ms.is_none_or(|limit| first.since_append_ms <= limit), "{first:?} is too old");
            prop_assert!(retention_bytes.is_none_or(|limit| bytes(behind) < limit), "{first:?} is too much");
        }
        prop_assert_eq!(limits.expired(kept, below).delete_before, None, "a second look finds no more");
    }
}

/// A process with its clocks, and the segments that it sees.
struct Watch {
    disk: SimDisk,
    times: AppendTimes,
    now: Now,
    log: Vec<SegmentInfo>,
}

impl Watch {
    /// Starts with these clocks.
    fn start(disk: &SimDisk, wall_ms: i64, log: &[SegmentInfo]) -> Watch {
        // Any moment will do for the monotonic clock.
        let now = Now { wall_ms, monotonic_ms: 12_345 };
        let times = AppendTimes::new(Arc::new(disk.clone()), Path::new("/"), log, now.monotonic_ms);
        Watch { disk: disk.clone(), times, now, log: log.to_vec() }
    }

    fn restart(self, wall_ms: i64) -> Watch {
        Watch::start(&self.disk, wall_ms, &self.log)
    }

    fn pass(&mut self, ms: i64) {
        self.now = Now { wall_ms: self.now.wall_ms + ms, monotonic_ms: self.now.monotonic_ms + ms };
    }

    /// The ages since the last appends, in milliseconds. What is to be written is written.
    fn look(&mut self) -> Vec<u64> {
        let ages = self.times.observe(self.now, &self.log);
        self.times.save(self.now).expect("the disk works");
        ages.iter().map(|age| age.since_append_ms).collect()
    }

    fn grow(&mut self, segment: usize) {
        self.log[segment].bytes += 100;
    }
}

/// Two closed segments and the active one.
fn three() -> Vec<SegmentInfo> {
    [0, 10, 20].map(|base_offset| SegmentInfo { base_offset, end_offset: base_offset + 10, bytes: 500 }).to_vec()
}

fn hours(ages: &[u64]) -> Vec<i64> {
    ages.iter().map(|age| age.cast_signed() / HOUR_MS).collect()
}

#[test]
fn ages_grow_with_time_and_an_append_makes_a_segment_young() {
    let mut watch = Watch::start(&SimDisk::new(), TODAY_MS, &three());
    assert_eq!(watch.look(), [0, 0, 0]);
    watch.pass(5 * HOUR_MS);
    watch.grow(2);
    assert_eq!(hours(&watch.look()), [5, 5, 0]);
    watch.pass(HOUR_MS);
    watch.log.remove(0);
    watch.log.push(SegmentInfo { base_offset: 30, end_offset: 30, bytes: 0 });
    assert_eq!(hours(&watch.look()), [6, 1, 0]);
}

#[test]
fn ages_survive_a_restart_and_the_time_that_the_machine_was_off_counts() {
    let mut watch = Watch::start(&SimDisk::new(), TODAY_MS, &three());
    watch.look();
    watch.pass(10 * DAY_MS);
    watch.look();
    let wall_ms = watch.now.wall_ms + DAY_MS;
    let mut watch = watch.restart(wall_ms);
    assert_eq!(hours(&watch.look()), [11 * 24; 3], "the active segment too: it has been quiet");
}

#[test]
fn the_last_append_to_a_segment_that_is_written_to_is_not_known_after_a_restart_and_counts_as_now() {
    let mut watch = Watch::start(&SimDisk::new(), TODAY_MS, &three());
    watch.look();
    watch.pass(DAY_MS);
    watch.look();
    watch.grow(2);
    watch.pass(HOUR_MS / 2);
    watch.look();
    let wall_ms = watch.now.wall_ms;
    let mut watch = watch.restart(wall_ms);
    assert_eq!(hours(&watch.look()), [24, 24, 0]);
}

#[test]
fn when_a_segment_was_begun_survives_however_busy_it_is() {
    let mut watch = Watch::start(&SimDisk::new(), TODAY_MS, &three());
    watch.look();
    for _ in 0..10 {
        watch.pass(DAY_MS);
        watch.grow(2);
        watch.look();
        let wall_ms = watch.now.wall_ms;
        watch = watch.restart(wall_ms);
        watch.look();
    }
    let age = watch.times.observe(watch.now, &watch.log)[2];
    assert_eq!((age.since_begun_ms, age.since_append_ms), (10 * DAY_MS.unsigned_abs(), 0));
}

#[test]
fn a_segment_that_lost_its_end_and_grew_to_its_old_size_is_young() {
    let disk = SimDisk::new();
    let mut watch = Watch::start(&disk, TODAY_MS, &three());
    watch.look();
    watch.pass(10 * DAY_MS);
    watch.look();
    // Within one life, before anybody has looked.
    let mut cut = three();
    cut[2].bytes = 400;
    let mut watch = Watch::start(&disk, watch.now.wall_ms, &cut);
    watch.grow(2);
    assert_eq!(hours(&watch.look()), [240, 240, 0]);
    // Over two lives, with a look in the first one.
    let mut watch = Watch::start(&disk, watch.now.wall_ms, &cut);
    watch.look();
    watch.grow(2);
    let wall_ms = watch.now.wall_ms;
    assert_eq!(hours(&watch.restart(wall_ms).look()), [240, 240, 0]);
}

#[test]
fn no_step_of_the_clock_makes_a_record_old_while_the_process_runs() {
    for step_ms in [-400 * DAY_MS, -DAY_MS, DAY_MS, 3_000 * DAY_MS] {
        let mut watch = Watch::start(&SimDisk::new(), TODAY_MS, &three());
        watch.look();
        watch.pass(HOUR_MS);
        watch.now.wall_ms += step_ms;
        assert_eq!(hours(&watch.look()), [1, 1, 1], "{step_ms}");
        // And what was written down has followed.
        watch.pass(HOUR_MS);
        let wall_ms = watch.now.wall_ms;
        let mut watch = watch.restart(wall_ms);
        assert!(watch.look().iter().all(|age| hours(&[*age])[0] <= 2), "{step_ms}");
    }
}

#[test]
fn a_gateway_that_boots_in_1970_neither_forgets_ages_nor_makes_any_up() {
    let disk = SimDisk::new();
    let mut watch = Watch::start(&disk, TODAY_MS, &three());
    watch.look();
    watch.pass(DAY_MS);
    watch.look();
    let written = disk.bytes(Path::new("/append-times")).expect("it was written");

    let mut watch = watch.restart(5_000);
    assert_eq!(watch.look(), [0, 0, 0], "what is in the file means nothing by this clock");
    watch.pass(2 * DAY_MS);
    assert_eq!(hours(&watch.look()), [48, 48, 48], "but time passes");
    assert_eq!(disk.bytes(Path::new("/append-times")).expect("it is there"), written);
    watch.now.wall_ms = TODAY_MS + 4 * DAY_MS;
    assert_eq!(hours(&watch.look()), [96, 96, 96], "once the clock is set, the file is read");
}

#[test]
fn a_time_in_the_future_is_now_and_one_before_the_floor_is_unknown() {
    let disk = SimDisk::new();
    let mut watch = Watch::start(&disk, TODAY_MS, &three());
    watch.look();
    let mut watch = watch.restart(TODAY_MS - 300 * DAY_MS);
    assert_eq!(watch.look(), [0, 0, 0]);
    watch.pass(2 * DAY_MS);
    assert_eq!(hours(&watch.look()), [48, 48, 48]);
    for (wall_ms, is_written) in [(WALL_CLOCK_FLOOR_MS - 1, false), (WALL_CLOCK_FLOOR_MS, true)] {
        let disk = SimDisk::new();
        Watch::start(&disk, wall_ms, &three()).look();
        assert_eq!(disk.exists(Path::new("/append-times")).expect("asks"), is_written, "{wall_ms}");
    }
}

#[test]
fn a_file_that_is_damaged_or_says_nonsense_makes_nothing_old() {
    let disk = SimDisk::new();
    let mut watch = Watch::start(&disk, TODAY_MS, &three());
    watch.look();
    watch.pass(9 * DAY_MS);
    watch.look();
    let whole = disk.bytes(Path::new("/append-times")).expect("it was written");
    // In the place of a folder the file is written anew.
    disk.remove_file(Path::new("/append-times")).expect("removes");
    disk.create_dir_all(Path::new("/append-times")).expect("creates");
    assert_eq!(Watch::start(&disk, watch.now.wall_ms, &three()).look(), [0, 0, 0]);
    assert!(disk.bytes(Path::new("/append-times")).is_ok(), "a file again");
    for at in 0..whole.len() {
        disk.damage(Path::new("/append-times"), |bytes| {
            bytes.clone_from(&whole);
            bytes[at] ^= 0x04;
        });
        assert_eq!(Watch::start(&disk, watch.now.wall_ms, &three()).look(), [0, 0, 0], "byte {at}");
    }
}

#[test]
fn what_takes_the_place_of_lost_records_is_no_older_than_it_is() {
    let mut lost = 0;
    for (is_segment_lost, seed) in [false, true].into_iter().flat_map(|lost| (0..20).map(move |seed| (lost, seed))) {
        let mut fixture = Fixture::new(ROOMY);
        if !is_segment_lost {
            fixture.append(&[batch(1, 10)]);
            fixture.flush();
        }
        fixture.append(&[batch(3, 100)]);
        let look = |fixture: &Fixture, passed_ms: i64| {
            let (disk, segments) = (Arc::new(fixture.disk.clone()), fixture.log.reader().segments());
            let mut now = Now { wall_ms: TODAY_MS + passed_ms, monotonic_ms: 7 };
            let mut times = AppendTimes::new(disk, Path::new(DIR), &segments, now.monotonic_ms);
            let age = times.observe(now, &segments)[0].since_append_ms;
            now = Now { wall_ms: now.wall_ms + 2 * HOUR_MS, monotonic_ms: now.monotonic_ms + 2 * HOUR_MS };
            times.observe(now, &segments);
            times.save(now).expect("the disk works");
            age
        };
        assert_eq!(look(&fixture, 0), 0);
        let was = fixture.log.size_bytes();
        fixture.disk.crash(seed);
        fixture.reopen();
        if fixture.log.size_bytes() == was {
            continue;
        }
        lost += 1;
        fixture.model.pop();
        // Ten days later, and no look before the next kill.
        fixture.append(&[batch(3, 100)]);
        fixture.flush();
        fixture.reopen();
        assert_eq!((fixture.log.size_bytes(), look(&fixture, 10 * DAY_MS)), (was, 0), "seed {seed}");
    }
    assert!(lost > 10, "what was not flushed is gone in {lost} of 40 crashes");
}

#[test]
fn a_busy_log_does_not_write_the_file_and_a_quiet_one_writes_it_once() {
    let disk = SimDisk::new();
    let mut watch = Watch::start(&disk, TODAY_MS, &three());
    watch.look();
    let before = disk.count(Operation::Sync);
    for _ in 0..1_000 {
        watch.pass(60_000);
        watch.grow(2);
        watch.look();
    }
    assert_eq!(disk.count(Operation::Sync), before, "busy");
    for _ in 0..1_000 {
        watch.pass(60_000);
        watch.look();
    }
    assert_eq!(disk.count(Operation::Sync), before + 1, "quiet");
}

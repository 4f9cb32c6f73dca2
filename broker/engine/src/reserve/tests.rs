use super::*;
use millpond_log::sim::{Fault, Operation, SimDisk};

fn disk() -> SimDisk {
    let disk = SimDisk::new();
    disk.create_dir_all(Path::new("/data")).expect("a new disk");
    disk
}

fn reserve(disk: &SimDisk, bytes: u64) -> Reserve {
    Reserve::open(Arc::new(disk.clone()), Path::new("/data"), bytes)
}

fn bytes_of(disk: &SimDisk) -> usize {
    disk.bytes(Path::new("/data/reserve")).expect("it is there").len()
}

fn is_full(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::StorageFull
}

fn note(disk: &SimDisk) -> io::Result<()> {
    millpond_log::write_atomically(disk, Path::new("/data/note"), &[7; 100])
}

#[test]
fn it_is_written_in_full_and_survives_a_power_cut() {
    let disk = disk();
    let made = reserve(&disk, 700_000);
    assert!(!made.is_held() && made.make(Instant::now(), 0) && made.is_held());
    disk.sync_dir(Path::new("/")).expect("it syncs");
    disk.crash(1);
    let bytes = disk.bytes(Path::new("/data/reserve")).expect("it is there");
    assert_eq!(bytes.len(), 700_000);
    assert!(bytes.chunks(64).all(|chunk| chunk.iter().any(|byte| *byte != 0)), "no hole, and nothing to leave out");
    let writes = disk.count(Operation::Write);
    assert!(reserve(&disk, 700_000).is_held());
    assert_eq!(disk.count(Operation::Write), writes, "it is not written at every start");
    assert!(reserve(&disk, 1_000).is_held(), "of a larger one there is enough");
    assert_eq!(bytes_of(&disk), 1_000);
    let larger = reserve(&disk, 2_000);
    assert!(!larger.is_held() && larger.make(Instant::now(), 0));
    assert_eq!(bytes_of(&disk), 2_000);
    assert!(reserve(&disk, 0).is_held());
    assert!(!disk.exists(Path::new("/data/reserve")).expect("it can be asked"), "none is wanted any more");
}

#[test]
fn a_step_that_finds_the_disk_full_gets_the_room_and_batches_wait_until_it_is_back() {
    let disk = disk();
    let reserve = reserve(&disk, 10_000);
    assert!(reserve.make(Instant::now(), 0));
    disk.limit_bytes(Some(disk.used_bytes()));
    reserve.lend(is_full, || note(&disk)).expect("there is room in the reserve");
    assert!(!reserve.is_held());
    assert!(!reserve.make(Instant::now(), 0), "the note has taken some of it");
    assert_eq!(bytes_of(&disk), 9_900, "and nobody else gets the rest");
    let writes = disk.count(Operation::Write);
    assert!(!reserve.make(Instant::now(), 0));
    assert_eq!(disk.count(Operation::Write), writes, "nothing is written in vain");
    disk.limit_bytes(Some(10_099));
    assert!(!reserve.make(Instant::now(), 0));
    disk.limit_bytes(Some(10_100));
    assert!(reserve.make(Instant::now(), 0) && reserve.is_held());
    assert_eq!(bytes_of(&disk), 10_000);
}

#[test]
fn a_part_is_given_up_as_the_whole_is_also_after_a_restart() {
    let disk = disk();
    disk.limit_bytes(Some(700));
    let first = reserve(&disk, 1_000);
    assert!(!first.make(Instant::now(), 0));
    let reserve = reserve(&disk, 1_000);
    assert!(!reserve.is_held());
    for number in 0..3 {
        reserve.lend(is_full, || note(&disk)).unwrap_or_else(|error| panic!("{number}: {error}"));
        assert!(!reserve.make(Instant::now(), 0));
    }
    disk.limit_bytes(None);
    assert!(reserve.make(Instant::now(), 0));
    assert_eq!(bytes_of(&disk), 1_000);
}

#[test]
fn a_step_that_came_too_late_for_the_reserve_is_tried_again_all_the_same() {
    let disk = disk();
    let reserve = reserve(&disk, 10_000);
    assert!(reserve.make(Instant::now(), 0));
    disk.limit_bytes(Some(disk.used_bytes()));
    let mut tries = 0;
    let outcome = reserve.lend(is_full, || {
        tries += 1;
        if tries == 1 {
            // Another step has given it up between this one's failure and its question.
            reserve.lend(is_full, || note(&disk)).expect("there is room in the reserve");
            return Err(io::ErrorKind::StorageFull.into());
        }
        note(&disk)
    });
    outcome.expect("there is room now");
    let outcome = reserve.lend(is_full, || Err::<(), _>(io::ErrorKind::StorageFull.into()));
    outcome.expect_err("and there is no second reserve");
}

#[test]
fn without_a_name_left_the_reserve_gives_its_own() {
    let disk = disk();
    let reserve = reserve(&disk, 10_000);
    assert!(reserve.make(Instant::now(), 0));
    disk.limit_names(Some(disk.used_names()));
    reserve.lend(is_full, || note(&disk)).expect("there is a name");
}

#[test]
fn a_failure_of_another_kind_costs_nothing() {
    let disk = disk();
    let reserve = reserve(&disk, 10_000);
    assert!(reserve.make(Instant::now(), 0));
    disk.fail(Operation::Write, 1, Fault::Device);
    reserve.lend(is_full, || note(&disk)).expect_err("the device failed");
    assert!(reserve.is_held());
    reserve.give_up_if_tight();
    assert!(reserve.is_held(), "there is no limit");
    disk.limit_bytes(Some(disk.used_bytes() + 1_000));
    reserve.give_up_if_tight();
    assert!(!reserve.is_held() && !reserve.make(Instant::now(), 0), "nobody takes it before the logs are closed");
    reserve.make_after_all(Instant::now());
    assert!(reserve.is_held());
}

#[test]
fn after_a_failure_it_is_written_again_once_something_was_removed_or_some_time_has_passed() {
    let disk = disk();
    let (reserve, begun) = (reserve(&disk, 10_000), Instant::now());
    // There is room by what the file system says.
    let fail = || disk.fail(Operation::Write, 1, Fault::NoSpace);
    fail();
    assert!(!reserve.make(begun, 7));
    let writes = disk.count(Operation::Write);
    for seconds in [0, 1, 59] {
        assert!(!reserve.make(begun + Duration::from_secs(seconds), 7), "it is too early");
    }
    assert_eq!(disk.count(Operation::Write), writes, "and nothing is written in vain");
    fail();
    assert!(!reserve.make(begun + Duration::from_secs(1), 8));
    assert!(disk.count(Operation::Write) > writes, "something was removed, so it was tried");
    assert!(!reserve.make(begun + Duration::from_mins(1), 8), "a minute after the last time");
    assert!(reserve.make(begun + Duration::from_secs(61), 8));
}

#[test]
fn where_less_can_be_written_than_is_free_what_can_be_had_is_held() {
    let disk = disk();
    let made = reserve(&disk, 1_000_000);
    disk.limit_bytes(Some(disk.used_bytes() + 600_000));
    disk.fail(Operation::Write, 2, Fault::NoSpace);
    let now = Instant::now();
    assert!(!made.make(now, 0));
    assert!((256 << 10..600_000).contains(&bytes_of(&disk)), "nobody else takes it");
    let writes = disk.count(Operation::Write);
    assert!(!made.make(now, 0) && disk.count(Operation::Write) == writes, "and it is left alone for a while");
    disk.limit_bytes(Some(disk.used_bytes()));
    note(&disk).expect_err("the disk is full");
    made.lend(is_full, || note(&disk)).expect("the part is there for this");
}

#[test]
fn what_a_step_does_not_need_is_nobody_elses_in_it_or_after_it_and_after_any_power_cut() {
    for seed in 0..200 {
        let disk = disk();
        let reserve_bytes = 800_000;
        let before = reserve(&disk, reserve_bytes);
        assert!(before.make(Instant::now(), 0));
        disk.sync_dir(Path::new("/")).expect("it syncs");
        let mut room = disk.used_bytes();
        disk.limit_bytes(Some(room));
        for number in 0..20 {
            let note = || {
                let noted = note(&disk);
                // Another user of the disk takes what there is.
                room = disk.used_bytes();
                disk.limit_bytes(Some(room));
                noted
            };
            before.lend(is_full, note).unwrap_or_else(|error| panic!("seed {seed}, step {number}: {error}"));
        }
        let left = bytes_of(&disk) as u64;
        assert!(left > reserve_bytes / 16, "an eighth at a time goes at most: {left}");
        disk.crash(seed);
        let after = reserve(&disk, reserve_bytes);
        let (there, _) = after.there();
        assert!(there >= left, "seed {seed}: {there} of {left}");
        after.lend(is_full, || note(&disk)).unwrap_or_else(|error| panic!("seed {seed}, after the power cut: {error}"));
    }
}

#[test]
fn a_larger_step_gets_all_of_it_and_leaves_what_it_has_not_used() {
    let disk = disk();
    let reserve = reserve(&disk, 100_000);
    assert!(reserve.make(Instant::now(), 0));
    disk.limit_bytes(Some(disk.used_bytes()));
    let large = || millpond_log::write_atomically(&disk, Path::new("/data/large"), &vec![7; 60_000]);
    reserve.lend(is_full, large).expect("there is room in all of it");
    assert_eq!(bytes_of(&disk), 40_000);
    let writes = disk.count(Operation::Write);
    reserve.lend(is_full, || note(&disk)).expect("an eighth is enough");
    assert!(disk.count(Operation::Write) - writes <= 4 && bytes_of(&disk) == 39_900, "and no more was written again");
    let too_large = || millpond_log::write_atomically(&disk, Path::new("/data/larger"), &vec![7; 60_000]);
    reserve.lend(is_full, too_large).expect_err("there is no room for it");
    assert_eq!(bytes_of(&disk), 39_900, "it is all there again");
}

#[test]
fn a_power_cut_leaves_no_whole_one_with_holes() {
    let mut found = Vec::new();
    for (changes, seed) in (1..12).flat_map(|changes| (0..20).map(move |seed| (changes, seed))) {
        let disk = disk();
        disk.sync_dir(Path::new("/")).expect("it syncs");
        disk.cut_power_after(changes);
        reserve(&disk, 1_000_000).make(Instant::now(), 0);
        disk.crash(seed);
        let is_held = reserve(&disk, 1_000_000).is_held();
        if is_held {
            let bytes = disk.bytes(Path::new("/data/reserve")).expect("it is there");
            let is_there = bytes[..999_999].chunks(512).all(|chunk| chunk.iter().any(|byte| *byte != 0));
            assert!(is_there, "{changes} changes, seed {seed}");
        }
        found.push(is_held);
    }
    assert!(found.contains(&true) && found.contains(&false), "the power was cut before its end and after");
}

#[test]
fn whoever_asks_whether_it_is_held_waits_for_nobody_who_removes_or_writes_it() {
    let disk = disk();
    let reserve = reserve(&disk, 10_000);
    assert!(reserve.make(Instant::now(), 0));
    let reserve = &reserve;
    std::thread::scope(|scope| {
        let (_state, _making) = (reserve.state.lock(), reserve.making.lock());
        let (sender, answer) = std::sync::mpsc::channel();
        scope.spawn(move || sender.send(reserve.is_held()));
        let answer = answer.recv_timeout(Duration::from_secs(20));
        assert_eq!(answer, Ok(true));
    });
}

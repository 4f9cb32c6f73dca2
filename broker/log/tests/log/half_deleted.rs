//! The oldest segment on its way out of a log on a full disk: what flushes, reads and passes meet beside it, and when it fails half way.

use std::path::Path;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use millpond_log::sim::{Fault, HookedDisk, Operation, SimDisk};
use millpond_log::{Disk, Log, LogError};

use crate::compacted::{CONFIG, Compacting, NOON_MS, compaction, filled, finish};
use crate::harness::{DIR, Fixture, SMALL, batch, open, prepared_disk};

type Act = Box<dyn FnOnce() + Send>;

/// Something that happens first, once, when a file with such a name is created or removed.
#[derive(Clone, Default)]
struct Hook(Arc<Mutex<Option<(&'static str, Act)>>>);

impl Hook {
    fn before(&self, ending: &'static str, act: impl FnOnce() + Send + 'static) {
        *self.0.lock().expect("no panic") = Some((ending, Box::new(act)));
    }

    fn is_set(&self) -> bool {
        self.0.lock().expect("no panic").is_some()
    }

    /// The disk that meets it.
    fn on(&self, disk: &SimDisk) -> Arc<dyn Disk> {
        let hook = Arc::clone(&self.0);
        Arc::new(HookedDisk::new(Arc::new(disk.clone()), move |operation, path| {
            let is_it = |(ending, _): &mut (&'static str, Act)| path.to_str().is_some_and(|path| path.ends_with(*ending));
            let meets = matches!(operation, Operation::Create | Operation::Remove);
            let hook = if meets { hook.lock().expect("no panic").take_if(is_it) } else { None };
            if let Some((_, act)) = hook {
                act();
            }
        }))
    }
}

/// Some segments that no flush has covered. What is done through the log meets the hook.
fn unflushed() -> (Hook, Fixture) {
    let (disk, hook) = (prepared_disk(), Hook::default());
    let (log, _) = Log::open(hook.on(&disk), Path::new(DIR), SMALL).expect("the log opens");
    let mut fixture = Fixture { disk, log, config: SMALL, model: Vec::new(), start: 0 };
    fixture.append(&vec![batch(2, 700); 12]);
    assert!(fixture.segments().len() > 3);
    (hook, fixture)
}

/// Segments with keys, likewise.
fn keyed() -> (Hook, Compacting) {
    let (mut compacting, hook) = (filled(6), Hook::default());
    (compacting.log, _) = Log::open(hook.on(&compacting.disk), Path::new(DIR), CONFIG).expect("the log opens");
    compacting.compactor = compacting.log.compactor();
    (hook, compacting)
}

/// Deletes the oldest segment on a full disk, whose folder can't be synced when its name is gone. Gives where the next segment begins.
fn delete_by_halves(disk: &SimDisk, log: &Log) -> i64 {
    let end = log.reader().segments()[0].end_offset;
    disk.limit_bytes(Some(0));
    disk.fail(Operation::SyncDir, 2, Fault::Device);
    let outcome = log.begin_delete(end).expect("there is something").run();
    assert!(matches!(outcome, Err(LogError::Io { operation: "flush", .. })), "{outcome:?}");
    disk.limit_bytes(None);
    end
}

#[test]
fn a_flush_beside_a_removal_that_fails_covers_the_segment_that_stays() {
    for seed in 0..5 {
        let (hook, mut fixture) = unflushed();
        let flush = fixture.log.begin_flush().expect("something to flush");
        let (tell, told) = mpsc::channel();
        let disk = fixture.disk.clone();
        hook.before(".log", move || {
            disk.limit_bytes(None);
            tell.send(flush.run()).expect("the test waits");
            disk.fail(Operation::Remove, 1, Fault::Device);
        });
        fixture.disk.limit_bytes(Some(0));
        let end = fixture.log.reader().segments()[0].end_offset;
        let outcome = fixture.log.begin_delete(end).expect("there is something").run();
        assert!(matches!(outcome, Err(LogError::Io { operation: "remove", .. })), "{outcome:?}");
        fixture.log.end_flush(told.recv().expect("it has run")).expect("the flush works");
        assert_eq!(fixture.log.durable_end(), fixture.end());
        fixture.check();
        fixture.disk.crash(seed);
        let report = fixture.reopen();
        assert!(report.damaged.is_empty() && report.cut.is_none(), "{report:?}");
        fixture.check();
    }
}

#[test]
fn a_flush_that_fails_beside_a_removal_that_fails_is_not_passed_over() {
    let (hook, mut fixture) = unflushed();
    let flush = fixture.log.begin_flush().expect("something to flush");
    let (tell, told) = mpsc::channel();
    let (disk, first) = (fixture.disk.clone(), fixture.segments()[0].clone());
    hook.before(".log", move || {
        disk.fail_write_back(&first);
        tell.send(flush.run()).expect("the test waits");
        disk.fail(Operation::Remove, 1, Fault::Device);
    });
    fixture.disk.limit_bytes(Some(0));
    let end = fixture.log.reader().segments()[0].end_offset;
    fixture.log.begin_delete(end).expect("there is something").run().expect_err("it can't be removed");
    fixture.log.end_flush(told.recv().expect("it has run")).expect_err("the segment was not synced, and stays");
    assert!(fixture.log.failure().is_some());
}

#[test]
fn whenever_the_power_goes_a_half_deleted_segment_comes_back_whole_or_not_at_all() {
    for cut in 0..30 {
        for seed in 0..8 {
            let (_, mut fixture) = unflushed();
            let next_base = delete_by_halves(&fixture.disk, &fixture.log);
            fixture.check();
            let flush = fixture.log.begin_flush().expect("something to flush");
            fixture.disk.cut_power_after(cut);
            let flushed = fixture.log.end_flush(flush.run()).is_ok();
            fixture.disk.crash(seed * 100 + cut);
            let (log, report) = open(&fixture.disk, SMALL);
            fixture.log = log;
            assert!(report.damaged.is_empty(), "cut {cut}, seed {seed}: {report:?}");
            let (start, end) = (fixture.log.log_start(), fixture.log.log_end());
            assert!(start == 0 || start == next_base, "{start}");
            assert!(!flushed || end == fixture.end());
            fixture.model.retain(|stored| stored.next <= end.max(start));
            fixture.note_start(start);
            if start <= end && fixture.end() == end {
                fixture.check();
            }
        }
    }
}

#[test]
fn a_half_deleted_segment_is_read_and_flushed_until_anybody_completes_its_deletion() {
    for (is_full, reads) in [(false, true), (true, true), (true, false)] {
        let (_, mut fixture) = unflushed();
        let reader = fixture.log.reader();
        let next_base = delete_by_halves(&fixture.disk, &fixture.log);
        assert_eq!(reader.log_start(), 0, "a power cut may bring it back");
        assert!(reader.has_unremoved_files());
        fixture.check();
        // The pool lets go of the handle then.
        fixture.flush();
        if reads {
            fixture.check();
        }
        fixture.disk.limit_bytes(is_full.then_some(0));
        // Whatever fails of the next try, it is no worse.
        fixture.disk.fail(Operation::SyncDir, 1, Fault::Device);
        fixture.log.begin_delete(0).expect("it is to be completed").run().expect_err("the folder can't be synced");
        fixture.check();
        let deletion = fixture.log.begin_delete(0).expect("it is to be completed");
        assert_eq!(deletion.run().expect("deletes"), next_base);
        assert!(!reader.has_unremoved_files() && fixture.log.begin_delete(0).is_none());
        fixture.note_start(next_base);
        fixture.check();
        let open = fixture.disk.open_files();
        assert!(open <= fixture.segments().len(), "{open} files are open");
        fixture.disk.crash(3);
        fixture.reopen();
        fixture.check();
    }
}

#[test]
fn no_pass_exchanges_anything_while_a_segment_is_half_deleted() {
    let (hook, mut compacting) = keyed();
    let end = compacting.model.end();
    let mut pass = compacting.compactor.begin(compaction(i64::MAX, NOON_MS)).expect("begins").expect("there is enough");
    compacting.model.attempt(end, NOON_MS);
    // The deletion begins when the step has looked at everything and writes.
    let log = Arc::new(compacting.log);
    let (disk, deleting) = (compacting.disk.clone(), Arc::clone(&log));
    hook.before(".cleaned", move || {
        delete_by_halves(&disk, &deleting);
    });
    let error = finish(&mut compacting.compactor, &mut pass).expect_err("a segment is half deleted");
    assert!(error.chain().contains("deletion is not complete"), "{}", error.chain());
    assert!(!hook.is_set());
    compacting.log = Arc::into_inner(log).expect("the hook is gone");
    compacting.model.check(&compacting.log.reader());
    let progress = compacting.compactor.progress();
    assert!(progress.waits_for_deletion && !progress.is_stuck, "{progress:?}");
    assert!(compacting.compactor.begin(compaction(i64::MAX, NOON_MS)).expect("reads").is_none());

    compacting.model.start = compacting.log.begin_delete(0).expect("it is to be completed").run().expect("deletes");
    assert!(!compacting.compactor.progress().waits_for_deletion);
    compacting.compact().expect("there is enough");
    compacting.reopen(CONFIG);
    compacting.model.check(&compacting.log.reader());
}

#[test]
fn a_pass_beside_a_deletion_that_works_or_is_taken_back_goes_on() {
    for (steps, is_taken_back) in (0..30).flat_map(|steps| [(steps, false), (steps, true)]) {
        let (hook, mut compacting) = keyed();
        let end = compacting.model.end();
        let mut pass = compacting.compactor.begin(compaction(i64::MAX, NOON_MS)).expect("begins").expect("there is enough");
        compacting.model.attempt(end, NOON_MS);
        for _ in 0..steps {
            let _ = compacting.compactor.step(&mut pass).expect("compacts");
        }
        let (go, gone) = mpsc::channel();
        let (stepped, has_stepped) = mpsc::channel();
        let disk = compacting.disk.clone();
        hook.before(".log", move || {
            disk.limit_bytes(None);
            go.send(()).expect("the pass waits");
            // One that has to wait for the deletion does not answer: then it goes on.
            let _ = has_stepped.recv_timeout(Duration::from_millis(10));
            if is_taken_back {
                disk.fail(Operation::Remove, 1, Fault::Device);
            }
        });
        let Compacting { disk, log, compactor, .. } = &mut compacting;
        let second = log.reader().segments()[0].end_offset;
        let done = std::thread::scope(|scope| {
            let pass = &mut pass;
            let passing = scope.spawn(move || {
                gone.recv().expect("the name is about to go");
                let step = compactor.step(pass);
                let _ = stepped.send(());
                step.and_then(|_| finish(compactor, pass))
            });
            disk.limit_bytes(Some(0));
            let outcome = log.begin_delete(second).expect("there is something").run();
            assert_eq!(outcome.is_err(), is_taken_back, "{outcome:?}");
            passing.join().expect("no panic")
        });
        compacting.model.start = compacting.log.log_start();
        let (done, _) = done.expect("nothing is wrong");
        compacting.model.completed(&done, NOON_MS);
        compacting.model.check(&compacting.log.reader());
    }
}

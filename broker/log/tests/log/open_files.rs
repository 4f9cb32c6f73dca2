//! Many logs, few descriptors.

use std::path::PathBuf;
use std::sync::Arc;

use millpond_log::sim::{Fault, Operation, Random};
use millpond_log::{Log, LogError, OpenFiles, Pools};

use crate::harness::{Fixture, SMALL, Stored, batch, check, open, prepared_disk, random_batch, stored};

/// Logs that share a pool, and what each should hold.
struct Many {
    disk: millpond_log::sim::SimDisk,
    files: OpenFiles,
    logs: Vec<(Log, Vec<Stored>)>,
}

impl Many {
    fn new(logs: usize, files_max: usize) -> Many {
        let (disk, files) = (prepared_disk(), OpenFiles::new(files_max));
        let mut many = Many { disk, files, logs: Vec::new() };
        many.logs = (0..logs).map(|number| (many.open(number), Vec::new())).collect();
        many
    }

    fn open(&self, number: usize) -> Log {
        Log::open_in(Arc::new(self.disk.clone()), self.pools(), &Many::dir(number), SMALL).expect("the log opens").0
    }

    fn pools(&self) -> Pools {
        Pools { files: self.files.clone(), ..Pools::default() }
    }

    fn dir(number: usize) -> PathBuf {
        PathBuf::from(format!("/data/readings-{number}"))
    }

    fn append(&mut self, number: usize, random: &mut Random) -> Result<(), LogError> {
        let (log, model) = &mut self.logs[number];
        let batches = [random_batch(random, 0)];
        let base = log.append(&batches, 7)?;
        model.extend(stored(base, 7, &batches));
        Ok(())
    }

    fn flush(&mut self, number: usize) {
        let log = &mut self.logs[number].0;
        if let Some(flush) = log.begin_flush() {
            log.end_flush(flush.run()).expect("flushes");
        }
    }
}

#[test]
fn an_idle_log_has_nothing_open() {
    let mut fixture = Fixture::new(SMALL);
    assert_eq!(fixture.disk.open_files(), 0, "a new one");
    fixture.append(&vec![batch(1, 700); 20]);
    fixture.flush();
    drop(fixture.log);
    assert_eq!(fixture.disk.open_files(), 0);
    let (log, report) = open(&fixture.disk, SMALL);
    assert!(report.scanned_bytes > 0);
    assert_eq!(fixture.disk.open_files(), 0, "one that was killed");
    check(&log.reader(), &fixture.model);
    log.close().expect("closes");
    let (_log, report) = open(&fixture.disk, SMALL);
    assert!(report.clean_stop);
    assert_eq!(fixture.disk.open_files(), 0, "one that was closed in order");
}

#[test]
fn many_logs_of_many_segments_never_have_more_files_open_than_the_bound() {
    let mut random = Random::new(3);
    for files_max in [1, 2, 7] {
        let mut many = Many::new(30, files_max);
        for _ in 0..1_500 {
            let number = usize::try_from(random.below(30)).expect("small");
            match many.append(number, &mut random) {
                // A segment that was closed by the append is pinned beside the new one, until the flush.
                Err(LogError::TooManyOpenFiles { .. }) if files_max == 1 => {}
                outcome => outcome.expect("appends"),
            }
            many.flush(number);
            assert_eq!(many.files.unsynced_files(), 0);
            let reader = many.logs[usize::try_from(random.below(30)).expect("small")].0.reader();
            if reader.log_end() > 0 {
                reader.read(random.below(reader.log_end().cast_unsigned()).cast_signed(), 1, i64::MAX).expect("reads");
            }
            assert!(many.disk.open_files() <= files_max, "{} files are open", many.disk.open_files());
        }
        for (log, model) in &many.logs {
            check(&log.reader(), model);
        }
        for (number, (log, model)) in std::mem::take(&mut many.logs).into_iter().enumerate() {
            log.close().expect("closes");
            check(&many.open(number).reader(), &model);
        }
        assert_eq!(many.disk.open_files(), 0);
    }
}

#[test]
fn a_failed_write_back_is_heard_of_however_many_files_were_opened_since() {
    let mut many = Many::new(20, 3);
    let mut random = Random::new(1);
    many.append(0, &mut random).expect("appends");
    for number in 1..20 {
        many.append(number, &mut random).expect("appends");
        many.flush(number);
        check(&many.logs[number].0.reader(), &many.logs[number].1);
    }
    many.disk.fail_write_back(&Many::dir(0).join("00000000000000000000.log"));
    let log = &mut many.logs[0].0;
    let flush = log.begin_flush().expect("there is something to flush");
    log.end_flush(flush.run()).expect_err("the bytes never reached the disk");
    assert!(log.failure().is_some());
    assert_eq!(log.durable_end(), 0);
    check(&many.logs[0].0.reader(), &many.logs[0].1);
}

#[test]
fn where_too_many_logs_have_unsynced_bytes_an_append_is_refused_until_one_is_flushed() {
    let mut many = Many::new(6, 4);
    let mut random = Random::new(2);
    for number in 0..4 {
        assert_eq!(many.logs[number].0.is_crowded(), number > 2);
        many.append(number, &mut random).expect("appends");
    }
    let refused = many.append(4, &mut random).expect_err("four are pinned");
    assert!(matches!(refused, LogError::TooManyOpenFiles { operation: "open", .. }) && refused.code().retryable(), "{refused}");
    assert!(many.logs[4].0.failure().is_none());
    // Reads go on everywhere, and so do appends to those that are open.
    for (log, model) in &many.logs {
        check(&log.reader(), model);
    }
    many.append(0, &mut random).expect("appends");
    many.flush(1);
    many.append(4, &mut random).expect("appends");
    for number in 0..6 {
        many.flush(number);
    }
    assert_eq!(many.files.unsynced_files(), 0);
}

#[test]
fn a_segment_for_which_no_file_may_be_open_is_taken_back() {
    let mut many = Many::new(2, 2);
    let mut random = Random::new(2);
    many.append(0, &mut random).expect("appends");
    many.append(1, &mut random).expect("appends");
    let six = vec![batch(1, 700); 6];
    let (log, model) = &mut many.logs[0];
    let refused = log.append(&six, 7).expect_err("the second segment can't be pinned");
    assert!(matches!(refused, LogError::TooManyOpenFiles { .. }) && log.failure().is_none(), "{refused}");
    check(&log.reader(), model);
    many.flush(1);
    let (log, model) = &mut many.logs[0];
    let base = log.append(&six[..4], 7).expect("there is room for one more");
    model.extend(stored(base, 7, &six[..4]));
    check(&log.reader(), model);
}

#[test]
fn a_segment_that_can_not_be_opened_again_says_so_and_latches_only_if_that_does_not_pass() {
    for (fault, passes) in [(Fault::TooManyOpenFiles, true), (Fault::Device, false)] {
        let mut fixture = Fixture::new(SMALL);
        fixture.append(&[batch(1, 10)]);
        fixture.flush();
        fixture.reopen();
        fixture.disk.fail(Operation::Read, 1, fault);
        let error = fixture.log.append(&[batch(1, 10)], 7).expect_err("it can't be opened");
        assert_eq!(matches!(error, LogError::TooManyOpenFiles { operation: "open", .. }), passes, "{error}");
        assert_eq!(fixture.log.failure().is_none(), passes);
        fixture.check();
        if passes {
            fixture.append(&[batch(1, 10)]);
            fixture.flush();
        }
    }
}

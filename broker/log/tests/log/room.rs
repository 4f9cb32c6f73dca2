//! Room ahead of the writes: asked for, never visible, and given back.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use millpond_log::{Log, LogConfig, RealDisk};

use crate::harness::{Fixture, ROOMY, batch, config};

#[test]
fn room_ahead_is_given_back_when_a_segment_or_the_log_is_closed_or_after_a_kill() {
    let mut fixture = Fixture::new(ROOMY);
    fixture.append(&vec![batch(1, 10_000); 10]);
    let path = fixture.segments()[0].clone();
    assert_eq!(fixture.disk.allocated_bytes(&path), 0, "a small log holds nothing");
    fixture.append(&vec![batch(1, 10_000); 100]);
    let held = |fixture: &Fixture| fixture.disk.allocated_bytes(&path) > fixture.disk.bytes(&path).expect("a segment").len() as u64;
    assert!(held(&fixture));
    fixture.check();
    assert_eq!(fixture.log.size_bytes(), fixture.disk.bytes(&path).expect("a segment").len() as u64, "a quota sees bytes");

    let report = fixture.reopen();
    assert!(report.is_clean() && !held(&fixture), "after a kill: {report:?}");
    fixture.append(&vec![batch(1, 10_000); 100]);
    assert!(held(&fixture));
    let (mut fixture, report) = fixture.close_and_reopen(1);
    assert!(report.clean_stop && !held(&fixture), "after a stop");
    fixture.append(&vec![batch(1, 10_000); 300]);
    assert!(held(&fixture));
    fixture.log.roll().expect("rolls");
    fixture.flush();
    assert!(!held(&fixture), "the segment is closed");
    fixture.check();
}

#[test]
fn room_ahead_fails_no_append_that_fits_and_ends_with_the_segment() {
    let mut fixture = Fixture::new(config(2_000_000, 4_096));
    // Not enough for any room ahead from the first step on.
    fixture.disk.limit_bytes(Some(1_500_000));
    for _ in 0..140 {
        fixture.append(&[batch(1, 10_000)]);
        fixture.flush();
    }
    assert!(fixture.disk.allocations() > 0);
    fixture.check();
    fixture.disk.limit_bytes(None);
    for _ in 0..500 {
        fixture.append(&[batch(1, 10_000)]);
    }
    for path in fixture.segments() {
        assert!(fixture.disk.allocated_bytes(&path) <= 2_000_000);
    }
    fixture.disk.crash(5);
    fixture.reopen();
    fixture.model.retain(|stored| stored.next <= fixture.log.log_end());
    fixture.check();
}

/// What a file holds, and what it takes of the disk, in bytes.
fn sizes(dir: &Path) -> (u64, u64) {
    let metadata = std::fs::metadata(dir.join("00000000000000000000.log")).expect("a segment");
    (metadata.size(), metadata.blocks() * 512)
}

#[test]
fn on_a_real_disk_the_size_is_what_was_written_and_the_rest_is_given_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let open = || Log::open(Arc::new(RealDisk), folder.path(), LogConfig::default()).expect("opens").0;
    let append = |log: &mut Log| {
        for _ in 0..50 {
            log.append(&vec![batch(1, 10_000); 10], 0).expect("appends");
        }
        let flush = log.begin_flush().expect("there is something to flush");
        log.end_flush(flush.run()).expect("flushes");
        assert_eq!(sizes(folder.path()).0, log.size_bytes(), "the size is what was written");
    };
    // A file system without the call holds nothing, and so gives nothing back.
    let is_given_back = || {
        let (bytes, on_disk) = sizes(folder.path());
        on_disk <= bytes + TAKEN_MORE_BYTES_MAX
    };
    let mut log = open();
    append(&mut log);
    if cfg!(target_os = "linux") {
        assert!(!is_given_back(), "room is held on the file systems that tests run on: {:?}", sizes(folder.path()));
    }
    log.close().expect("closes");
    assert!(is_given_back(), "after a stop: {:?}", sizes(folder.path()));

    let mut log = open();
    append(&mut log);
    drop(log);
    let mut log = open();
    assert!(is_given_back(), "after a kill: {:?}", sizes(folder.path()));

    append(&mut log);
    log.roll().expect("rolls");
    let flush = log.begin_flush().expect("there is something to flush");
    log.end_flush(flush.run()).expect("flushes");
    assert!(is_given_back(), "after a roll: {:?}", sizes(folder.path()));
}

/// What a file of some megabytes takes beyond its bytes: the rest of its last block, and where its blocks are.
const TAKEN_MORE_BYTES_MAX: u64 = 64 << 10;

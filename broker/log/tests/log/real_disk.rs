//! The same log on the disk of this machine.

use std::path::Path;
use std::sync::Arc;

use millpond_log::sim::Random;
use millpond_log::{Cursor, Disk, Log, LogConfig, OpenMode, RealDisk, write_all_at, write_atomically};

use crate::harness::{SMALL, batch, check, config, random_batch, read_all, stored};

fn open(dir: &Path, config: LogConfig) -> Log {
    let (log, _) = Log::open(Arc::new(RealDisk), dir, config).expect("the log opens");
    log
}

#[test]
fn a_log_in_a_real_folder_survives_closing_and_killing() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path().join("topics/readings/0");
    let mut model = Vec::new();
    let mut random = Random::new(1);
    for round in 0..6 {
        let mut log = open(&dir, SMALL);
        check(&log.reader(), &model);
        for _ in 0..20 {
            let batches: Vec<_> = (0..=random.below(5)).map(|_| random_batch(&mut random, 0)).collect();
            let base = log.append(&batches, 1).expect("appends");
            model.extend(stored(base, 1, &batches));
        }
        if let Some(flush) = log.begin_flush() {
            // On another thread, as the engine does it, with an append meanwhile.
            let running = std::thread::spawn(move || flush.run());
            let base = log.append(&[batch(1, 10)], 1).expect("appends");
            model.extend(stored(base, 1, &[batch(1, 10)]));
            let outcome = running.join().expect("the thread ends");
            log.end_flush(outcome).expect("flushes");
            assert_eq!(log.durable_end(), base);
        }
        check(&log.reader(), &model);
        if round % 2 == 0 {
            log.close().expect("closes");
        }
    }
}

#[test]
fn folders_in_the_place_of_small_files_are_moved_and_nothing_that_was_deleted_comes_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path();
    let mut log = open(dir, SMALL);
    log.append(&vec![batch(1, 700); 20], 1).expect("appends");
    assert_eq!(log.begin_delete(12).expect("there is something").run().expect("deletes"), 12);
    log.close().expect("closes");
    for name in ["log-start", "log-start.2", "clean-stop", "recovery-point", "compacted-to", "append-times"] {
        let path = dir.join(name);
        let _ = std::fs::remove_file(&path);
        std::fs::create_dir_all(path.join("inside")).expect("creates");
        let log = open(dir, SMALL);
        assert_eq!((log.log_start(), log.log_end()), (12, 20), "{name}");
        log.close().expect("closes");
        if ["compacted-to", "append-times"].contains(&name) {
            // Nobody has had anything to write.
            continue;
        }
        assert!(path.is_file() && dir.join(format!("{name}.removed-1/inside")).is_dir(), "{name}");
    }
}

#[test]
fn readers_follow_a_writer_on_another_thread() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut log = open(folder.path(), config(100_000, 1_000));
    let appends = 2_000;
    let readers: Vec<_> = (0..2)
        .map(|number: usize| {
            let reader = log.reader();
            std::thread::spawn(move || {
                let mut cursor = Cursor::new(0);
                let mut all = Vec::new();
                while cursor.offset() < appends * 4 {
                    if number == 1 && cursor.offset() < reader.log_end() {
                        // Looks every place up in the index that the writer is writing.
                        cursor = Cursor::new(cursor.offset());
                        let found = reader.find_time(1_000, i64::MAX).expect("looks");
                        assert_eq!(found, Some((0, 1_000)));
                    }
                    all.extend_from_slice(&reader.read_next(&mut cursor, 5_000, i64::MAX).expect("reads"));
                    std::thread::yield_now();
                }
                all
            })
        })
        .collect();
    for _ in 0..appends {
        log.append(&[batch(1, 100), batch(3, 20)], 0).expect("appends");
    }
    let expected = read_all(&log.reader(), 0, 1 << 20).expect("reads");
    for reader in readers {
        assert!(reader.join().expect("the reader ends") == expected);
    }
}

#[test]
fn reads_and_writes_at_positions_do_what_the_trait_says() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("file");
    let disk = RealDisk;
    assert!(disk.open(&path, OpenMode::ReadWrite).is_err());
    let file = disk.open(&path, OpenMode::CreateNew).expect("creates");
    assert!(disk.open(&path, OpenMode::CreateNew).is_err());
    let parts: Vec<Vec<u8>> = (0..3_000_u32).map(|number| number.to_be_bytes().to_vec()).collect();
    let mut buffers: Vec<_> = parts.iter().map(|part| std::io::IoSlice::new(part)).collect();
    write_all_at(&*file, &mut buffers, 10).expect("more buffers than one call takes");
    assert_eq!(file.size_bytes().expect("a size"), 12_010);
    let mut read = b"before".to_vec();
    assert_eq!(file.read_at(&mut read, 8, 10 + 4 * 1_023).expect("reads"), 8);
    assert_eq!(read, [b"before".as_slice(), &1_023_u32.to_be_bytes(), &1_024_u32.to_be_bytes()].concat());
    assert_eq!(file.read_at(&mut read, 100, 12_000).expect("reads"), 10, "the file ends");
    assert_eq!(file.read_at(&mut read, 100, 20_000).expect("reads"), 0);
    file.set_len(3).expect("cuts");
    file.sync_data().expect("syncs");
    disk.sync_dir(folder.path()).expect("syncs");
    assert_eq!(file.size_bytes().expect("a size"), 3);
    assert!(disk.open(&path, OpenMode::Replace).expect("replaces").size_bytes().expect("a size") == 0);

    write_atomically(&disk, &path, b"one").expect("writes");
    write_atomically(&disk, &path, b"two").expect("writes");
    assert_eq!(std::fs::read(&path).expect("reads"), b"two");
    assert_eq!(disk.list(folder.path()).expect("lists"), ["file"]);
    assert!(disk.exists(&path).expect("looks"));
    disk.remove_file(&path).expect("removes");
    assert!(!disk.exists(&path).expect("looks"));
}

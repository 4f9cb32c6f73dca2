//! Logs whose bytes Kafka's own dump tool has read without a complaint, and to which they are held here.
//!
//! `make kafka-check` runs the tool itself. What it has approved lies in `tests/kafka/approved`: a change of these bytes wants its
//! approval again (`tests/kafka/check.py --bless`).

use std::path::Path;
use std::sync::Arc;

use millpond_log::Disk;
use millpond_log::sim::SimDisk;

use crate::kafka_samples::{SAMPLES, is_ours_alone};
use crate::kafka_words::{file_list, in_kafkas_words};

fn written(name: &str) -> Arc<dyn Disk> {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new());
    let dir = Path::new("/").join(name);
    disk.create_dir_all(&dir).expect("creates");
    let (_, write) = SAMPLES.iter().find(|(known, _)| *known == name).expect("a sample");
    write(&disk, &dir);
    disk
}

#[test]
fn the_files_are_those_that_kafkas_dump_tool_has_approved() {
    let approved = include_str!("../../../../tests/kafka/approved/files");
    let mut files = String::new();
    for (name, _) in SAMPLES.iter().filter(|(name, _)| is_ours_alone(name)) {
        files.push_str(&file_list(&*written(name), &Path::new("/").join(name)));
    }
    for (found, approved) in files.lines().zip(approved.lines()) {
        assert_eq!(found, approved, "`make kafka-check` says whether Kafka still reads them");
    }
    assert_eq!(files.lines().count(), approved.lines().count());
}

#[test]
fn a_log_reads_as_kafkas_dump_tool_has_read_it() {
    let (text, _) = in_kafkas_words(&*written("small"), Path::new("/small"));
    assert_eq!(text, include_str!("../../../../tests/kafka/approved/small.stdout"));
}

#[test]
fn compressed_samples_are_read_back_whatever_the_library_makes_of_them() {
    for (name, _) in SAMPLES.iter().filter(|(name, _)| !is_ours_alone(name)) {
        let (text, _) = in_kafkas_words(&*written(name), &Path::new("/").join(name));
        assert!(text.contains(&format!("compresscodec: {name} ")), "{name}");
        assert_eq!(text.matches("isvalid: true").count(), 300, "{name}: a batch of records and one of a single record, 150 times");
    }
}

//! What a path stands for: a data folder, a topic's folder, a partition's folder, or one file of a segment.

use crate::failure::{Failure, Outcome};
use millpond_log::inspect::{kept_log_of, segment_of};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// The partitions that a path names, in order, and the one segment or file of them that is meant, if it is only one.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) partitions: Vec<Partition>,
    /// A single file, with the base offset of its segment.
    pub(super) file: Option<(PathBuf, i64)>,
    /// The path itself, where it is a data folder.
    pub(super) data_folder: Option<PathBuf>,
}

/// A partition's folder.
#[derive(Debug)]
pub(super) struct Partition {
    pub(super) dir: PathBuf,
    /// As the folders say.
    pub(super) topic: String,
    pub(super) number: u32,
    /// The data folder that it lies in, if it lies in one.
    pub(super) data_dir: Option<PathBuf>,
}

impl Target {
    /// Looks at what is there.
    pub(super) fn of(path: &Path) -> Outcome<Target> {
        let not_there = |error| Failure::usage(format!("can't look at {}", path.display())).because(&error).hint(WHAT_IT_CAN_BE);
        let path = fs::canonicalize(path).map_err(not_there)?;
        if path.is_file() {
            let base_offset = segment_of(&path).map(|(base_offset, _)| base_offset).or_else(|| kept_log_of(&path));
            let Some((base_offset, dir)) = base_offset.zip(path.parent()) else {
                return Err(Failure::usage(format!("{} is not a file of a segment", path.display())).hint(WHAT_IT_CAN_BE));
            };
            return Ok(Target { partitions: vec![Partition::at(dir)], file: Some((path, base_offset)), data_folder: None });
        }
        let topics = path.join("topics");
        let is_data_folder = topics.is_dir() || CATALOGUES.iter().any(|name| path.join(name).is_file());
        let mut partitions = match (is_data_folder, topics.is_dir()) {
            (true, false) => Vec::new(),
            (_, has_topics) => partitions_in(if has_topics { &topics } else { &path }, FOLDERS_DEEP)?,
        };
        partitions.sort_by(|one, other| (&one.topic, one.number).cmp(&(&other.topic, other.number)));
        if partitions.is_empty() && !is_data_folder {
            return Err(Failure::usage(format!("there is no log in {}", path.display())).hint(WHAT_IT_CAN_BE));
        }
        Ok(Target { partitions, file: None, data_folder: is_data_folder.then_some(path) })
    }

    /// The data folder of the partitions, if they lie in one.
    pub(super) fn data_dir(&self) -> Option<&Path> {
        let itself = self.data_folder.as_deref().filter(|data_dir| data_dir.join("lock").is_file());
        itself.or_else(|| self.partitions.first()?.data_dir.as_deref())
    }

    /// Whether a broker has one of the data folders open.
    pub(super) fn is_in_use(&self) -> bool {
        self.data_dir().is_some_and(|data_dir| is_locked(&data_dir.join("lock")))
    }
}

impl Partition {
    fn at(dir: &Path) -> Partition {
        let name = |path: Option<&Path>| path.and_then(|path| path.file_name()?.to_str()).unwrap_or_default().to_owned();
        let data_dir = dir.ancestors().nth(3).filter(|data_dir| data_dir.join("lock").is_file());
        let number = name(Some(dir)).parse().unwrap_or_default();
        Partition { dir: dir.to_path_buf(), topic: name(dir.parent()), number, data_dir: data_dir.map(Path::to_path_buf) }
    }

    /// The name of the partition as people write it.
    pub(super) fn name(&self) -> String {
        format!("{}/{}", self.topic, self.number)
    }

    /// Bytes of its segments, as far as they can be seen.
    pub(super) fn log_bytes(&self) -> u64 {
        let entries = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let logs = entries.filter(|entry| segment_of(&entry.path()).is_some_and(|(_, extension)| extension == "log"));
        logs.filter_map(|entry| entry.metadata().ok()).map(|metadata| metadata.len()).sum()
    }
}

/// The folders that hold segments, at most so many levels below this one. A name with a dot in front is a topic that is being deleted.
fn partitions_in(folder: &Path, levels: u32) -> Outcome<Vec<Partition>> {
    let failed = |error| Failure::new(format!("can't list {}", folder.display())).because(&error);
    let mut folders = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if segment_of(&path).is_some() || path.file_name().is_some_and(|name| name == "recovery-point") {
            return Ok(vec![Partition::at(folder)]);
        }
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if levels > 0 && !hidden && path.is_dir() {
            folders.push(path);
        }
    }
    let mut partitions = Vec::new();
    for path in folders {
        partitions.extend(partitions_in(&path, levels - 1)?);
    }
    Ok(partitions)
}

/// Whether somebody holds an `flock` on the file. Only asks: to take the lock, even for a moment, could keep a broker from starting.
#[cfg(target_os = "linux")]
fn is_locked(lock: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let Ok(metadata) = fs::metadata(lock) else { return false };
    // "1: FLOCK  ADVISORY  WRITE 4711 fe:00:131 0 EOF": the sixth word is the device and the inode. The device of some file systems is
    // another one here than that which stat(2) tells, so the inode has to do.
    let inode = metadata.ino().to_string();
    let held = |line: &str| {
        let mut words = line.split_whitespace();
        words.nth(1) == Some("FLOCK") && words.nth(3).and_then(|file| file.rsplit(':').next()) == Some(&inode)
    };
    fs::read_to_string("/proc/locks").is_ok_and(|locks| locks.lines().any(held))
}

/// Nobody can be asked, and it may be.
#[cfg(not(target_os = "linux"))]
fn is_locked(lock: &Path) -> bool {
    lock.exists()
}

/// What a data folder has beside `topics`. A broker keeps both.
const CATALOGUES: [&str; 2] = ["catalogue.json", "catalogue.2.json"];

/// From `topics` down to a partition.
const FOLDERS_DEEP: u32 = 2;

const WHAT_IT_CAN_BE: &str =
    "name a data folder, a topic's folder in it (DATA/topics/TOPIC), a partition's (DATA/topics/TOPIC/0), or a .log, .index or .timeindex";

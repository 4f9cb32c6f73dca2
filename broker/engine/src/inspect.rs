//! A data folder seen from outside: its catalogue, and whether each partition that the catalogue names has its folder. What is in the logs is
//! looked at by [`millpond_log::inspect`].
//!
//! It only reads, also beside a broker, and finds what the next start would: a file of the catalogue that it could not use, and partitions that
//! it would call lost. Other folders under `topics/` are none of its business.

use crate::{
    catalogue::{Catalogue, Copied},
    data_dir::DataDir,
    error::EngineError,
    folders,
    startup::refuse_lost_topics,
};
use millpond_log::Disk;
use std::{collections::BTreeSet, error::Error, fmt, path::Path, path::PathBuf};

/// Something that is wrong with a data folder.
#[derive(Debug)]
#[non_exhaustive]
pub enum FolderFault {
    /// One of the two files of the catalogue can't be used; the other one can.
    CatalogueCopy {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A file of the catalogue can't be used, and nothing takes its place: a broker does not start.
    Catalogue {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: EngineError,
    },
    /// The catalogue names a partition whose folder is not there.
    PartitionLost {
        /// The topic.
        topic: String,
        /// The partition.
        partition: u32,
        /// Where the folder should be.
        path: PathBuf,
        /// As the broker says it.
        error: EngineError,
    },
}

impl FolderFault {
    /// The file or the folder.
    pub fn path(&self) -> &Path {
        match self {
            FolderFault::CatalogueCopy { path, .. } | FolderFault::Catalogue { path, .. } | FolderFault::PartitionLost { path, .. } => path,
        }
    }

    /// Whether it is only worth a mention: nothing is lost, and nothing has to be done.
    pub fn is_note(&self) -> bool {
        matches!(self, FolderFault::CatalogueCopy { .. })
    }

    /// A name for programs; it never changes.
    pub fn name(&self) -> &'static str {
        match self {
            FolderFault::CatalogueCopy { .. } => "catalogue_copy",
            FolderFault::Catalogue { .. } => "catalogue",
            FolderFault::PartitionLost { .. } => "partition_lost",
        }
    }

    /// What it means for whoever keeps the data, and what to do about it.
    pub fn meaning(&self) -> String {
        match self {
            FolderFault::CatalogueCopy { .. } => {
                "nothing is lost: the next start goes by the other one, and writes this one anew".to_owned()
            }
            FolderFault::Catalogue { error, .. } => format!("a broker does not start on this folder; {}", error.hint().unwrap_or_default()),
            FolderFault::PartitionLost { error, .. } => error.hint().unwrap_or_default(),
        }
    }
}

impl fmt::Display for FolderFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FolderFault::CatalogueCopy { reason, .. } => write!(f, "one of the two files of the catalogue can't be used: {reason}"),
            FolderFault::Catalogue { error, .. } | FolderFault::PartitionLost { error, .. } => f.write_str(&chain(error)),
        }
    }
}

/// Looks at a data folder. Where a broker uses it (`in_use`), what is made or deleted at this moment is not taken for lost. Blocking.
///
/// # Errors
///
/// [`EngineError::DataDir`] if it can't be looked for a folder.
pub fn inspect(disk: &dyn Disk, data_dir: &Path, in_use: bool) -> Result<Vec<FolderFault>, EngineError> {
    let data = DataDir::new(data_dir.to_owned());
    let (mut faults, catalogue) = look(disk, &data);
    let Some(catalogue) = catalogue else { return Ok(faults) };
    let mut missing = missing(disk, &data, &catalogue)?;
    if in_use && !missing.is_empty() {
        let (_, again) = look(disk, &data);
        let again = again.map_or_else(|| Ok(BTreeSet::new()), |catalogue| self::missing(disk, &data, &catalogue))?;
        missing.retain(|partition| again.contains(partition));
    }
    faults.extend(missing.into_iter().map(|(topic, partition)| {
        let path = data.partition(&topic, partition);
        let error = EngineError::PartitionLost { topic: topic.as_str().into(), partition, path: path.clone() };
        FolderFault::PartitionLost { topic, partition, path, error }
    }));
    Ok(faults)
}

/// The catalogue by which the next start would go, and what is wrong with its files.
fn look(disk: &dyn Disk, data: &DataDir) -> (Vec<FolderFault>, Option<Catalogue>) {
    let [(path, first), (second_path, second)] = Catalogue::copies(disk, &data.catalogue());
    match (first, second) {
        (Ok(Some(catalogue)), second) => (Vec::from_iter(copy_fault(second_path, second)), Some(catalogue)),
        (first @ (Ok(None) | Err(EngineError::CatalogueDamaged { .. })), Ok(Some(catalogue))) => {
            (Vec::from_iter(copy_fault(path, first)), Some(catalogue))
        }
        // Where there is no first one and no topic either, a start begins anew.
        (first, second) => match first.and_then(|_| refuse_lost_topics(disk, data)) {
            Ok(()) => (Vec::from_iter(second.is_err().then(|| copy_fault(second_path, second)).flatten()), None),
            Err(error) => {
                let unusable = [(path, Some(error)), (second_path, second.err())].into_iter();
                (unusable.filter_map(|(path, error)| Some(FolderFault::Catalogue { path, error: error? })).collect(), None)
            }
        },
    }
}

fn copy_fault(path: PathBuf, copied: Copied) -> Option<FolderFault> {
    let reason = match copied {
        Ok(Some(_)) => return None,
        Ok(None) => "it is not there".to_owned(),
        Err(EngineError::CatalogueDamaged { reason, .. }) => reason,
        Err(error) => chain(&error),
    };
    Some(FolderFault::CatalogueCopy { path, reason })
}

/// The partitions of the catalogue that have no folder.
fn missing(disk: &dyn Disk, data: &DataDir, catalogue: &Catalogue) -> Result<BTreeSet<(String, u32)>, EngineError> {
    let mut missing = BTreeSet::new();
    for (topic, stored) in &catalogue.topics {
        // What a crash has left of the making of a topic, the next start gives its name. No record is in there.
        let is_new = !folders::exists(disk, &data.topic(topic))? && folders::exists(disk, &data.new_topic(topic))?;
        for partition in 0..stored.partitions {
            let folder = if is_new { data.new_topic(topic).join(partition.to_string()) } else { data.partition(topic, partition) };
            if !folders::exists(disk, &folder)? {
                missing.insert((topic.clone(), partition));
            }
        }
    }
    Ok(missing)
}

/// An error with what it was caused by.
fn chain(error: &EngineError) -> String {
    let mut words = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        words = format!("{words}: {cause}");
        next = cause.source();
    }
    words
}

//! The folders of topics: made before the first record, put aside and removed after the last.

use crate::{
    data_dir::{DataDir, DirLock},
    error::EngineError,
    services::Services,
    space::Counted,
};
use millpond_log::Disk;
use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Makes the data folder, durably with all the folders above it that were missing, and locks it. Blocking.
pub(crate) fn make_data_dir(
    disk: &dyn Disk,
    data_dir: &Path,
    lock: impl FnOnce(&Path) -> Result<DirLock, EngineError>,
) -> Result<DirLock, EngineError> {
    let absolute = std::path::absolute(data_dir).map_err(|source| EngineError::data_dir("find the data folder", data_dir, source))?;
    let mut missing = Vec::new();
    for folder in absolute.ancestors() {
        // A folder that can't be asked about can't be made either, and the lock says so in better words.
        if disk.exists(folder).unwrap_or(false) {
            break;
        }
        missing.push(folder);
    }
    let lock = lock(data_dir)?;
    disk.create_dir_all(&absolute).map_err(|source| EngineError::data_dir("create the data folder", data_dir, source))?;
    for parent in missing.into_iter().filter_map(Path::parent) {
        disk.sync_dir(parent).map_err(|source| EngineError::data_dir("flush", parent, source))?;
    }
    Ok(lock)
}

/// Makes the folders right under the data folder that are missing, durably. Blocking.
pub(crate) fn make_layout(disk: &dyn Disk, data: &DataDir) -> Result<(), EngineError> {
    let mut is_new = false;
    for folder in [data.topics(), data.modules()] {
        if !exists(disk, &folder)? {
            is_new = true;
            disk.create_dir_all(&folder).map_err(|source| EngineError::data_dir("create", &folder, source))?;
        }
    }
    if is_new {
        disk.sync_dir(data.root()).map_err(|source| EngineError::data_dir("flush", data.root(), source))?;
    }
    Ok(())
}

/// Makes the folders of a new topic's partitions, durably, where [`name_new`] finds them once the catalogue names the topic. Blocking.
pub(crate) fn make_new(disk: &dyn Disk, data: &DataDir, topic: &str, partitions: u32) -> Result<(), EngineError> {
    let new = data.new_topic(topic);
    // Left by a topic that could not be made; it may have had more partitions.
    remove_new(disk, &new)?;
    let made = (0..partitions).try_for_each(|number| {
        let folder = new.join(number.to_string());
        disk.create_dir_all(&folder).map_err(|source| EngineError::data_dir("create", &folder, source))
    });
    // From the inside out: a name that is durable leads to names that are.
    let flushed = made.and_then(|()| {
        [new.clone(), data.topics()]
            .iter()
            .try_for_each(|folder| disk.sync_dir(folder).map_err(|source| EngineError::data_dir("flush", folder, source)))
    });
    if flushed.is_err() {
        // What stays is removed by the next start, or the next topic of this name.
        let _ = remove_new(disk, &new);
    }
    flushed
}

/// Gives the folders of a new topic their name, durably: a record can't outlive the name of its folder. The catalogue names the topic by
/// now, and if this is not reached, the next start does it. Blocking.
pub(crate) fn name_new(disk: &dyn Disk, data: &DataDir, topic: &str) -> Result<(), EngineError> {
    let (from, topics) = (data.new_topic(topic), data.topics());
    disk.rename(&from, &data.topic(topic)).map_err(|source| EngineError::data_dir("rename", &from, source))?;
    disk.sync_dir(&topics).map_err(|source| EngineError::data_dir("flush", &topics, source))
}

/// Removes the folders of a topic that was not made: empty ones. Blocking.
pub(crate) fn remove_new(disk: &dyn Disk, folder: &Path) -> Result<(), EngineError> {
    if exists(disk, folder)? {
        disk.remove_dir_all(folder).map_err(|source| EngineError::data_dir("remove", folder, source))?;
    }
    Ok(())
}

/// Renames the folder of a deleted topic so that its name is free; where it is now, or none if there was no folder. Blocking.
pub(crate) fn put_aside(disk: &dyn Disk, data: &DataDir, topic: &str) -> Result<Option<PathBuf>, EngineError> {
    let from = data.topic(topic);
    if !exists(disk, &from)? {
        return Ok(None);
    }
    let mut number = 0;
    let to = loop {
        let to = data.deleted_topic(topic, number);
        if !exists(disk, &to)? {
            break to;
        }
        // A topic that is deleted and made again faster than its folders are removed; it ends with the disk.
        number += 1;
    };
    disk.rename(&from, &to).map_err(|source| EngineError::data_dir("rename", &from, source))?;
    let topics = data.topics();
    disk.sync_dir(&topics).map_err(|source| EngineError::data_dir("flush", &topics, source))?;
    Ok(Some(to))
}

/// Removes a folder that was put aside, when there is time, and then counts its bytes no more. What is left after a crash is removed at
/// the next start.
pub(crate) fn remove_later(services: &Arc<Services>, folder: PathBuf, counted: Vec<Counted>) {
    let for_job = Arc::clone(services);
    services.background.spawn(move || remove_deleted(&for_job, folder, counted));
}

/// The same now, or, if it can't be done now, at the next look. Blocking.
pub(crate) fn remove_deleted(services: &Services, folder: PathBuf, counted: Vec<Counted>) {
    match services.disk.remove_dir_all(&folder) {
        Ok(()) => tracing::debug!(folder = %folder.display(), "a deleted topic is removed"),
        // An earlier try has come as far as that.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => {
            tracing::warn!(folder = %folder.display(), %error, "a deleted topic can't be removed yet; it is tried again");
            return services.space.add_unremoved(folder, counted);
        }
    }
    drop(counted);
    services.space.has_changed();
}

pub(crate) fn exists(disk: &dyn Disk, path: &Path) -> Result<bool, EngineError> {
    disk.exists(path).map_err(|source| EngineError::data_dir("look for", path, source))
}

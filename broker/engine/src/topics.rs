//! Making and deleting topics.
//!
//! ```text
//! create:  folders made under another name ──> catalogue names it ──> folders get its name ──> logs ──> batches are taken
//! delete:  catalogue forgets it ──> batches are refused ──> folder put aside ──> folder removed, when there is time
//! ```
//!
//! A crash between two steps leaves folders that the next start names or removes, never a topic by halves. The folders of a topic that the
//! catalogue names have been made, durably, before: one that is missing at a start is lost, with its records, and is not made anew.

use crate::{
    catalogue::{Catalogue, PARTITIONS_PER_TOPIC_MAX, StoredTopic},
    data_dir::DataDir,
    engine::Engine,
    error::{EngineError, within},
    folders, name,
    name::NameOf,
    partition::Partition,
    services::Services,
    space::Counted,
    startup::open_partitions,
    topic::{Opened, Runtime, Topic},
};
use futures_util::future::join_all;
use millpond_log::Disk;
use millpond_protocol::message::{Cleanup, CreateTopic, OnFull, TopicConfig, TopicInfo};
use std::{ops::RangeInclusive, sync::Arc};

/// What a step on a full disk may have.
#[derive(Clone, Copy, Debug)]
enum Reserved {
    /// The reserve.
    Lent,
    /// What the disk has without it.
    Kept,
}

impl Reserved {
    /// Does the step. Blocking.
    fn step<T>(self, services: &Services, mut step: impl FnMut() -> Result<T, EngineError>) -> Result<T, EngineError> {
        match self {
            Reserved::Lent => services.space.reserve.lend(EngineError::is_disk_full, step),
            Reserved::Kept => step(),
        }
    }
}

/// A change of the catalogue that is not in force.
#[derive(Debug)]
struct Unsaved {
    error: EngineError,
    /// No start finds it either.
    is_undone: bool,
}

impl From<EngineError> for Unsaved {
    fn from(error: EngineError) -> Unsaved {
        Unsaved { error, is_undone: false }
    }
}

impl Engine {
    /// Makes a topic. Once begun it is finished, even if the future is dropped.
    ///
    /// # Errors
    ///
    /// [`EngineError::InvalidName`], [`EngineError::InvalidPartitionCount`], [`EngineError::InvalidConfig`],
    /// [`EngineError::CompactedDropsOldest`], [`EngineError::CompactedRetention`], [`EngineError::TopicExists`], [`EngineError::TooMany`],
    /// [`EngineError::FolderInTheWay`], [`EngineError::DataDir`], [`EngineError::Log`], [`EngineError::ShuttingDown`]. In all these cases
    /// there is no such topic afterwards.
    pub async fn create_topic(self: &Arc<Self>, request: CreateTopic) -> Result<TopicInfo, EngineError> {
        let engine = Arc::clone(self);
        to_the_end(async move { engine.create_topic_now(request).await }).await
    }

    /// Deletes a topic and all its records. What is queued for it is still answered; consumers get [`EngineError::TopicNotFound`].
    /// Once begun it is finished, even if the future is dropped.
    ///
    /// # Errors
    ///
    /// [`EngineError::TopicNotFound`], [`EngineError::TopicInUse`], [`EngineError::TopicDerived`], [`EngineError::DataDir`], [`EngineError::ShuttingDown`].
    pub async fn delete_topic(self: &Arc<Self>, name: &str) -> Result<(), EngineError> {
        let (engine, name) = (Arc::clone(self), name.to_owned());
        to_the_end(async move { engine.delete_topic_now(&name).await }).await
    }

    async fn create_topic_now(self: Arc<Self>, request: CreateTopic) -> Result<TopicInfo, EngineError> {
        let CreateTopic { name, partitions, config } = request;
        name::check(NameOf::Topic, &name)?;
        if !(1..=PARTITIONS_PER_TOPIC_MAX).contains(&partitions) {
            return Err(EngineError::InvalidPartitionCount { requested: partitions, max: PARTITIONS_PER_TOPIC_MAX });
        }
        self.check_config(&config)?;

        let mut catalogue = self.catalogue.lock().await;
        self.refuse_while_closing()?;
        self.check_room_for_topic(&catalogue, &name, partitions)?;
        self.clear_the_way(&mut catalogue, &name).await?;
        // Making one is no cleaning up: on a full disk it gets nothing of the reserve, without which no topic takes batches.
        self.with_folders(&name, Reserved::Kept, move |disk, data, name| folders::make_new(disk, data, name, partitions)).await?;
        let stored = StoredTopic::new(partitions, config);
        let add = |next: &mut Catalogue| {
            next.deleted_topics.remove(&name);
            next.topics.insert(name.clone(), stored.clone());
        };
        if let Err(Unsaved { error, is_undone }) = self.save_with(&mut catalogue, Reserved::Kept, add).await {
            if is_undone {
                self.give_up_new(&name).await;
            }
            return Err(error);
        }

        let opened = match self.with_folders(&name, Reserved::Lent, folders::name_new).await {
            Ok(()) => open_partitions(&self.services, &self.data, &name, &stored).await.and_then(all_work),
            Err(error) => Err(error),
        };
        let opened = match opened {
            Ok(opened) => opened,
            Err(error) => {
                self.forget_topic(&mut catalogue, &name).await;
                return Err(error);
            }
        };
        let runtime = Runtime::new(stored.epoch, stored.config.known, self.services.config.max_batch_bytes);
        let topic = Arc::new(Topic::new(name.as_str().into(), opened, runtime, &self.services));
        let info = topic.info();
        tracing::info!(topic = name, partitions = info.partitions.len(), durability = %info.config.durability, "a topic was made");
        self.topics.write().insert(name, topic);
        Ok(info)
    }

    async fn delete_topic_now(self: Arc<Self>, name: &str) -> Result<(), EngineError> {
        let mut catalogue = self.catalogue.lock().await;
        self.refuse_while_closing()?;
        let topic = self.find_topic(name)?;
        if let Some((module, topics)) = catalogue.senders_of_dead_letters(name) {
            return Err(EngineError::TopicInUse { topic: name.to_owned(), module, topics });
        }
        if let Some((module, topics)) = catalogue.deriving_into(name) {
            return Err(EngineError::TopicDerived { topic: name.to_owned(), module, topics });
        }
        let derived: Vec<_> = catalogue.derivations().filter(|(from, ..)| *from == name).map(|(_, _, derive)| derive.id).collect();
        self.save(&mut catalogue, |next| {
            next.topics.remove(name);
            next.deleted_topics.insert(name.to_owned());
        })
        .await?;
        self.topics.write().remove(name);
        self.end(topic.runtime().attachments()).await;
        self.remove_derivations(derived);
        let gone = || EngineError::TopicNotFound { name: name.to_owned(), nearest: None };
        topic.partitions.iter().for_each(|partition| partition.refuse(gone()));
        let counted = join_all(topic.partitions.iter().map(Partition::abandon)).await;
        // The topic is gone whatever happens to its folder; where this fails the name stays in the list, and the next start, or the
        // next topic of this name, tries again.
        match self.put_aside(name, counted.into_iter().flatten().collect()).await {
            Ok(()) => {
                catalogue.deleted_topics.remove(name);
            }
            Err(error) => tracing::warn!(topic = name, %error, "the folder of a deleted topic is still there"),
        }
        tracing::info!(topic = name, "a topic was deleted");
        Ok(())
    }

    /// Writes the changed catalogue, if need be with the reserve, and takes it over once it is written.
    pub(crate) async fn save(&self, catalogue: &mut Catalogue, change: impl FnOnce(&mut Catalogue)) -> Result<(), EngineError> {
        self.save_with(catalogue, Reserved::Lent, change).await.map_err(|unsaved| unsaved.error)
    }

    async fn save_with(&self, catalogue: &mut Catalogue, reserved: Reserved, change: impl FnOnce(&mut Catalogue)) -> Result<(), Unsaved> {
        let before = catalogue.clone();
        let mut next = catalogue.clone();
        change(&mut next);
        let (services, path) = (Arc::clone(&self.services), self.data.catalogue());
        let saved = self.services.io.run(move || {
            let disk = &*services.disk;
            let Err(error) = reserved.step(&services, || next.save(disk, &path)) else { return Ok(next) };
            // It may have failed after the new file took the place of the old one. What is refused must not come true at the next
            // start, so the old one is put back; where that fails too, the next change that succeeds does it.
            let put_back = if next.may_be_stored(disk, &path) { before.save(disk, &path) } else { Ok(()) };
            if let Err(error) = &put_back {
                tracing::warn!(%error, "the catalogue may hold a change that was refused");
            }
            Err(Unsaved { error, is_undone: put_back.is_ok() })
        });
        *catalogue = saved.await??;
        self.workshop.cache.need(catalogue.needed_uploads());
        Ok(())
    }

    pub(crate) fn check_config(&self, config: &TopicConfig) -> Result<(), EngineError> {
        within("segment_bytes", config.segment_bytes, &SEGMENT_BYTES)?;
        let max_batch_bytes = BATCH_BYTES_MAX_MIN..=u64::from(self.services.config.max_batch_bytes);
        within("max_batch_bytes", u64::from(config.max_batch_bytes), &max_batch_bytes)?;
        let retention_ms = config.retention_ms.map_or(Ok(()), |ms| within("retention_ms", ms, &RETENTION_MS));
        retention_ms?;
        within("delete_retention_ms", config.delete_retention_ms, &RETENTION_MS)?;
        config.retention_bytes.map_or(Ok(()), |bytes| within("retention_bytes", bytes, &RETENTION_BYTES))?;
        if config.cleanup == Cleanup::Compact && config.on_full == OnFull::DropOldest {
            return Err(EngineError::CompactedDropsOldest);
        }
        let limits = [("retention_ms", config.retention_ms), ("retention_bytes", config.retention_bytes)];
        if let (Cleanup::Compact, Some((setting, _))) = (config.cleanup, limits.into_iter().find(|(_, limit)| limit.is_some())) {
            return Err(EngineError::CompactedRetention(setting));
        }
        // With less, one batch could make a topic drop nearly everything that it has.
        let quota_bytes = QUOTA_BATCHES_MIN * u64::from(config.max_batch_bytes)..=*RETENTION_BYTES.end();
        config.quota_bytes.map_or(Ok(()), |bytes| within("quota_bytes", bytes, &quota_bytes))
    }

    fn check_room_for_topic(&self, catalogue: &Catalogue, name: &str, partitions: u32) -> Result<(), EngineError> {
        let config = &self.services.config;
        if catalogue.topics.contains_key(name) {
            return Err(EngineError::TopicExists { name: name.to_owned() });
        }
        if catalogue.topics.len() >= config.topics_max {
            return Err(EngineError::TooMany { what: "topics", limit: config.topics_max });
        }
        if catalogue.partition_count() + partitions as usize > config.partitions_max {
            return Err(EngineError::TooMany { what: "partitions", limit: config.partitions_max });
        }
        Ok(())
    }

    /// Records of an earlier topic must not appear in the new one.
    async fn clear_the_way(&self, catalogue: &mut Catalogue, name: &str) -> Result<(), EngineError> {
        if catalogue.deleted_topics.contains(name) {
            self.put_aside(name, Vec::new()).await?;
            catalogue.deleted_topics.remove(name);
        }
        let (disk, path) = (Arc::clone(&self.services.disk), self.data.topic(name));
        let folder = path.clone();
        if self.services.io.run(move || folders::exists(&*disk, &folder)).await?? {
            return Err(EngineError::FolderInTheWay { path });
        }
        Ok(())
    }

    async fn put_aside(&self, name: &str, counted: Vec<Counted>) -> Result<(), EngineError> {
        if let Some(folder) = self.with_folders(name, Reserved::Lent, folders::put_aside).await? {
            folders::remove_later(&self.services, folder, counted);
        }
        Ok(())
    }

    /// Does something with the folders of a topic, on the I/O threads.
    async fn with_folders<T: Send + 'static>(
        &self,
        topic: &str,
        reserved: Reserved,
        job: impl Fn(&dyn Disk, &DataDir, &str) -> Result<T, EngineError> + Send + 'static,
    ) -> Result<T, EngineError> {
        let (services, data, topic) = (Arc::clone(&self.services), self.data.clone(), topic.to_owned());
        let step = move || reserved.step(&services, || job(&*services.disk, &data, &topic));
        self.services.io.run(step).await?
    }

    /// Removes the folders of a topic of which no start will find anything in the catalogue. What can't be removed is left to the next topic of
    /// this name, or to that start.
    async fn give_up_new(&self, name: &str) {
        let give_up = |disk: &dyn Disk, data: &DataDir, name: &str| folders::remove_new(disk, &data.new_topic(name));
        if let Err(error) = self.with_folders(name, Reserved::Kept, give_up).await {
            tracing::warn!(topic = name, %error, "the folders of a topic that was not made can't be removed yet");
        }
    }

    /// Takes a topic back whose logs could not be opened.
    async fn forget_topic(&self, catalogue: &mut Catalogue, name: &str) {
        let forgotten = self.save(catalogue, |next| {
            next.topics.remove(name);
            next.deleted_topics.insert(name.to_owned());
        });
        if let Err(error) = forgotten.await {
            // In memory all the same: the next change that can be written says so on disk.
            tracing::warn!(topic = name, %error, "the catalogue still has a topic that could not be made");
            catalogue.topics.remove(name);
            catalogue.deleted_topics.insert(name.to_owned());
        }
    }
}

/// A new topic begins with all its partitions, an old one with those that are left.
fn all_work(opened: Opened) -> Result<Opened, EngineError> {
    match opened.0.iter().find_map(|partition| partition.reader().err()) {
        Some(error) => Err(error),
        None => Ok(opened),
    }
}

/// Runs a change to its end, whoever waits for it. Half a change would leave memory and disk with different topics.
pub(crate) async fn to_the_end<T: Send + 'static>(
    change: impl Future<Output = Result<T, EngineError>> + Send + 'static,
) -> Result<T, EngineError> {
    tokio::spawn(change).await.unwrap_or(Err(EngineError::JobLost { pool: "async" }))
}

/// The smallest is for tests and tiny disks; the largest is what a position in Kafka's index can say.
const SEGMENT_BYTES: RangeInclusive<u64> = (64 << 10)..=(i32::MAX as u64);

/// From a second, below which the time between two checks is all that counts, to a century.
const RETENTION_MS: RangeInclusive<u64> = 1_000..=36_525 * 86_400_000;

/// From the smallest segment on, to what no disk has.
const RETENTION_BYTES: RangeInclusive<u64> = *SEGMENT_BYTES.start()..=1 << 60;

/// How many of a topic's largest batches its quota holds at least.
const QUOTA_BATCHES_MIN: u64 = 4;

/// Smaller batches would hold hardly a record.
const BATCH_BYTES_MAX_MIN: u64 = 1 << 10;

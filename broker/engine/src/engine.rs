//! The engine: what is there, and the ways in.

use crate::{
    catalogue::Catalogue,
    clock::Clock,
    compaction,
    config::EngineConfig,
    consume::{self, ConsumeStream},
    data_dir::{DataDir, DirLock},
    dead_letters::Topics,
    derive,
    error::{EngineError, Purpose, is_no_room},
    folders,
    inflight::{ByteBudget, InflightPermit},
    modules::{Deployed, Workshop},
    name,
    partition::{Extent, Partition},
    produce::ProduceStream,
    retention,
    services::Services,
    startup,
    topic::Topic,
    views::TopicView,
};
use futures_util::future::join_all;
use millpond_log::Disk;
use millpond_protocol::message::{
    BrokerInfo, ConsumeOpened, ListOffset, ModuleInfo, OffsetFound, OpenConsume, OpenProduce, ProduceOpened, TopicInfo,
};
use parking_lot::RwLock;
use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
};
use tokio::sync::Mutex;

/// The broker without a network. Used as `Arc<Engine>`, by as many front doors as there are.
#[derive(Debug)]
pub struct Engine {
    pub(crate) services: Arc<Services>,
    pub(crate) data: DataDir,
    pub(crate) workshop: Workshop,
    /// Shared with the streams of producers: a dead letter goes to another topic.
    pub(crate) topics: Arc<Topics>,
    pub(crate) modules: RwLock<BTreeMap<String, Deployed>>,
    /// What is on disk. Whoever changes topics or modules holds it from the first look to the last step.
    pub(crate) catalogue: Mutex<Catalogue>,
    pub(crate) inflight: ByteBudget,
    closing: AtomicBool,
    /// Where the next stream begins that has records placed, so that streams do not all begin with partition 0.
    next_sticky: AtomicU32,
}

impl Engine {
    /// Opens the data folder: takes its lock, reads the catalogue, loads the modules and opens the logs. Needs a tokio runtime with
    /// timers around it, for as long as the engine lives.
    ///
    /// A log or a module that can't be opened does not keep the others from working: it answers with the reason.
    ///
    /// # Errors
    ///
    /// [`EngineError::Locked`], [`EngineError::DataDir`], [`EngineError::CatalogueDamaged`], [`EngineError::CatalogueTooNew`],
    /// [`EngineError::Threads`]. In all these cases nothing was changed.
    pub async fn open(config: EngineConfig, disk: Arc<dyn Disk>, clock: Arc<dyn Clock>) -> Result<Arc<Engine>, EngineError> {
        let lock = folders::make_data_dir(&*disk, &config.data_dir, DirLock::take)?;
        let services = Arc::new(Services::start(config, disk, clock, lock)?);
        let engine = Arc::new(startup::open(services).await?);
        engine.topics.read().values().for_each(|topic| derive::start(&engine, topic));
        retention::start(&engine);
        compaction::start(&engine);
        Ok(engine)
    }

    pub(crate) fn new(
        services: Arc<Services>,
        workshop: Workshop,
        catalogue: Catalogue,
        topics: BTreeMap<String, Arc<Topic>>,
        modules: BTreeMap<String, Deployed>,
    ) -> Engine {
        Engine {
            data: DataDir::new(services.config.data_dir.clone()),
            workshop,
            topics: Arc::new(RwLock::new(topics)),
            modules: RwLock::new(modules),
            catalogue: Mutex::new(catalogue),
            inflight: ByteBudget::new(services.config.inflight_bytes_max),
            closing: AtomicBool::new(false),
            next_sticky: AtomicU32::new(0),
            services,
        }
    }

    /// What the broker is.
    pub fn info(&self) -> BrokerInfo {
        BrokerInfo {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            max_batch_bytes: self.services.config.max_batch_bytes,
            max_module_bytes: self.services.config.max_module_bytes,
        }
    }

    /// All topics, in the order of their names. What is wrong with a partition is told without its hints, and nothing of compaction:
    /// [`Engine::topic`] has that.
    pub fn topics(&self) -> Vec<TopicInfo> {
        self.topics_of(Extent::List)
    }

    /// As [`Engine::topics`], and what compaction has done.
    pub fn topics_with_counts(&self) -> Vec<TopicInfo> {
        self.topics_of(Extent::Counts)
    }

    fn topics_of(&self, extent: Extent) -> Vec<TopicInfo> {
        // The partitions are asked without the lock, which opening a stream needs.
        let topics: Vec<_> = self.topics.read().values().map(Arc::clone).collect();
        topics.iter().map(|topic| topic.info_of(extent)).collect()
    }

    /// One topic, and the room that it shares with the others.
    pub fn topic(&self, name: &str) -> Result<TopicInfo, EngineError> {
        Ok(TopicInfo { node: Some(self.space()), ..self.find_topic(name)?.info() })
    }

    /// All modules, in the order of their names.
    pub fn modules(&self) -> Vec<ModuleInfo> {
        let modules = self.modules.read().clone();
        modules.iter().map(|(name, deployed)| deployed.info(name, &self.uses(name))).collect()
    }

    /// One module with all its versions.
    ///
    /// # Errors
    ///
    /// [`EngineError::ModuleNotFound`].
    pub fn module(&self, name: &str) -> Result<ModuleInfo, EngineError> {
        Ok(self.find_module(name)?.info_with_versions(name, &self.uses(name)))
    }

    /// Turns a position into an offset. One that is an offset already is held against the range, as for [`Engine::open_consume`].
    pub async fn list_offset(&self, request: &ListOffset) -> Result<OffsetFound, EngineError> {
        let topic = self.find_topic(&request.topic)?;
        consume::resolve(&self.services, topic.partition(request.partition, Purpose::Read)?, request.at, Purpose::Read).await
    }

    /// Opens a stream of batches into a topic, to one partition or with every record placed by the broker.
    pub fn open_produce(&self, request: &OpenProduce) -> Result<(ProduceStream, ProduceOpened), EngineError> {
        self.refuse_while_closing()?;
        let topic = self.find_topic(&request.topic)?;
        ProduceStream::open(&self.services, &self.topics, &topic, request.partition, self.next_sticky.fetch_add(1, Ordering::Relaxed))
    }

    /// Opens a stream of batches out of one partition.
    pub async fn open_consume(&self, request: &OpenConsume) -> Result<(ConsumeStream, ConsumeOpened), EngineError> {
        self.refuse_while_closing()?;
        let topic = self.find_topic(&request.topic)?;
        let partition = topic.partition(request.partition, Purpose::Read)?;
        let view = request.view.as_deref().map(|view| TopicView::open(&topic, view)).transpose()?;
        ConsumeStream::open(&self.services, partition, request.from, view).await
    }

    /// Writes a small file that the broker can't start without, if need be with the reserve of a full disk. Blocking.
    ///
    /// # Errors
    ///
    /// Those of the step.
    pub fn with_reserve<T>(&self, step: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        self.services.space.reserve.lend(is_no_room, step)
    }

    /// Waits until there is memory for a batch of so many bytes. To be called before the batch is read from the network; a batch
    /// that is larger than the whole budget waits until it is alone.
    pub fn reserve_inflight(&self, bytes: usize) -> impl Future<Output = InflightPermit> + Send + use<> {
        let reserved = self.inflight.reserve(bytes);
        async move { InflightPermit::new(reserved.await) }
    }

    /// Stops: refuses what is new, answers every batch that is queued, flushes and closes all logs, and gives the data folder back.
    /// Readers can read what is there until they reach its end. Calling it again waits for the first call and does nothing.
    pub async fn shutdown(&self) {
        self.closing.store(true, Ordering::Release);
        // Whoever stops a broker has given its modules the time that they have: one that goes on for long is not waited for, not even by
        // the change that it is a part of.
        self.workshop.interrupt.raise();
        // A change of the catalogue that is under way is finished first, and none comes after.
        let _catalogue = self.catalogue.lock().await;
        let topics: Vec<_> = self.topics.read().values().map(Arc::clone).collect();
        let runtimes: Vec<_> = topics.iter().map(|topic| topic.runtime()).collect();
        let derived: Vec<_> = runtimes.iter().flat_map(|runtime| &runtime.derived).collect();
        // They write what they have read, and only then is nothing taken any more.
        derive::stop(&derived).await;
        let partitions = || topics.iter().flat_map(|topic| &topic.partitions);
        // All refuse before one is waited for.
        partitions().for_each(|partition| partition.refuse(EngineError::ShuttingDown));
        let services = Arc::clone(&self.services);
        // A panic there leaves the logs to be read at the next start, and nothing worse.
        let _ = self.services.io.run(move || services.space.reserve.give_up_if_tight()).await;
        join_all(partitions().map(Partition::close)).await;
        let services = Arc::clone(&self.services);
        let _ = self.services.io.run(move || services.space.reserve.make_after_all(services.instant())).await;
        self.services.lock.release();
    }

    pub(crate) fn refuse_while_closing(&self) -> Result<(), EngineError> {
        if self.closing.load(Ordering::Acquire) { Err(EngineError::ShuttingDown) } else { Ok(()) }
    }

    pub(crate) fn find_topic(&self, name: &str) -> Result<Arc<Topic>, EngineError> {
        let topics = self.topics.read();
        topics.get(name).map(Arc::clone).ok_or_else(|| EngineError::TopicNotFound {
            name: name::cut(name),
            nearest: name::nearest(name, topics.keys().map(String::as_str)),
        })
    }

    pub(crate) fn find_module(&self, name: &str) -> Result<Deployed, EngineError> {
        let modules = self.modules.read();
        modules.get(name).cloned().ok_or_else(|| EngineError::ModuleNotFound {
            name: name::cut(name),
            nearest: name::nearest(name, modules.keys().map(String::as_str)),
        })
    }
}

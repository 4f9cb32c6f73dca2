//! From the data folder to a broker that works: the catalogue first, then modules and logs at the same time.

use crate::{
    catalogue::{Catalogue, StoredAttachment, StoredTopic},
    data_dir::{DELETED_PREFIX, DataDir, NEW_PREFIX},
    derive::{self, Derivation},
    engine::Engine,
    error::{EngineError, runs_on, world_on},
    folders,
    modules::{Deployed, FileCache, Workshop, load_stored},
    partition::Partition,
    services::Services,
    space::TopicSpace,
    topic::{Opened, Runtime, Topic},
    transform::{Attachment, Guest},
};
use futures_util::future::join_all;
use millpond_log::Disk;
use millpond_plugin::{Interrupt, PluginHost};
use millpond_protocol::message::{Pick, TopicConfig};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
};

/// Opens everything that the catalogue names.
pub(crate) async fn open(services: Arc<Services>) -> Result<Engine, EngineError> {
    let data = DataDir::new(services.config.data_dir.clone());
    let found = {
        let (services, data) = (Arc::clone(&services), data.clone());
        let for_job = Arc::clone(&services);
        let look = move || for_job.space.reserve.lend(EngineError::is_disk_full, || look(&*for_job.disk, &data));
        services.io.run(look).await??
    };
    let mut catalogue = found.catalogue;
    // Both start now; the logs are read while the modules are loaded.
    let modules = {
        let (services, data, catalogue) = (Arc::clone(&services), data.clone(), catalogue.clone());
        let background = Arc::clone(&services);
        background.background.run(move || load_modules(&services, &data, &catalogue))
    };
    let logs: Vec<_> = catalogue.topics.iter().map(|(name, topic)| open_partitions(&services, &data, name, topic)).collect();
    let logs = join_all(logs).await.into_iter().collect::<Result<Vec<_>, _>>()?;
    let (workshop, modules) = modules.await??;

    let mut topics = BTreeMap::new();
    for (name, opened) in catalogue.topics.keys().zip(logs) {
        let runtime = runtime_of(&services, &workshop, &modules, &catalogue, name).await?;
        topics.insert(name.clone(), Arc::new(Topic::new(name.as_str().into(), opened, runtime, &services)));
    }
    for folder in found.leftovers {
        folders::remove_later(&services, folder, Vec::new());
    }
    let for_job = Arc::clone(&services);
    services.io.run(move || for_job.space.reserve.make(for_job.instant(), 0)).await?;
    catalogue.deleted_topics.clear();
    tracing::info!(topics = topics.len(), partitions = catalogue.partition_count(), modules = modules.len(), "the data folder is open");
    Ok(Engine::new(services, workshop, catalogue, topics, modules))
}

struct Found {
    catalogue: Catalogue,
    /// Folders of deleted topics.
    leftovers: Vec<PathBuf>,
}

/// Makes the folders that are missing, reads the catalogue, and finds what a crash has left. Blocking.
fn look(disk: &dyn Disk, data: &DataDir) -> Result<Found, EngineError> {
    // The catalogue first: if it can't be understood, nothing is touched.
    let found = Catalogue::load(disk, &data.catalogue())?;
    if found.is_none() {
        refuse_lost_topics(disk, data)?;
    }
    folders::make_layout(disk, data)?;
    let catalogue = match found {
        Some(catalogue) => catalogue,
        // From now on one that is not there is a loss.
        None => Catalogue::begin(disk, &data.catalogue())?,
    };
    for name in &catalogue.deleted_topics {
        if !catalogue.topics.contains_key(name) {
            folders::put_aside(disk, data, name)?;
        }
    }
    derive::remove_leftovers(disk, data, &catalogue)?;
    let topics = data.topics();
    let names = disk.list(&topics).map_err(|source| EngineError::data_dir("list", &topics, source))?;
    let mut leftovers = Vec::new();
    for name in names {
        let name = name.to_string_lossy().into_owned();
        if name.starts_with(DELETED_PREFIX) {
            leftovers.push(topics.join(name));
        } else if let Some(topic) = name.strip_prefix(NEW_PREFIX) {
            finish_new(disk, data, topic, &catalogue)?;
        } else if !catalogue.topics.contains_key(&name) {
            tracing::warn!(folder = %topics.join(&name).display(), "a folder belongs to no topic of the catalogue; it is left as it is");
        }
    }
    Ok(Found { catalogue, leftovers })
}

/// A data folder with topics and without a catalogue has lost it, and an empty one would hide them.
pub(crate) fn refuse_lost_topics(disk: &dyn Disk, data: &DataDir) -> Result<(), EngineError> {
    let topics = data.topics();
    if folders::exists(disk, &topics)? {
        let names = disk.list(&topics).map_err(|source| EngineError::data_dir("list", &topics, source))?;
        let names = names.iter().map(|name| name.to_string_lossy());
        let found = names.filter(|name| !name.starts_with(DELETED_PREFIX) && !name.starts_with(NEW_PREFIX)).count();
        if found > 0 {
            let reason = format!("it is not there, and {} has folders of topics ({found})", topics.display());
            return Err(EngineError::CatalogueDamaged { path: data.catalogue(), reason });
        }
    }
    Ok(())
}

/// After a crash while a topic was made: it is there if the catalogue names it, and else its folders, which are empty, are removed.
fn finish_new(disk: &dyn Disk, data: &DataDir, topic: &str, catalogue: &Catalogue) -> Result<(), EngineError> {
    if catalogue.topics.contains_key(topic) && !folders::exists(disk, &data.topic(topic))? {
        return folders::name_new(disk, data, topic);
    }
    let folder = data.new_topic(topic);
    if let Err(error) = folders::remove_new(disk, &folder) {
        tracing::warn!(folder = %folder.display(), %error, "what is left of a topic that was not made can't be removed");
    }
    Ok(())
}

/// Opens the logs of a topic, each as a job of its own. Starts before it is polled.
pub(crate) fn open_partitions(
    services: &Arc<Services>,
    data: &DataDir,
    name: &str,
    topic: &StoredTopic,
) -> impl Future<Output = Result<Opened, EngineError>> + use<> {
    let (topic_name, config): (Arc<str>, _) = (name.into(), &topic.config.known);
    let space = services.space.topic(config);
    let jobs: Vec<_> = (0..topic.partitions).map(|number| open_partition(services, (&topic_name, number), config, &space, data)).collect();
    async move { Ok((join_all(jobs).await.into_iter().collect::<Result<_, _>>()?, space)) }
}

fn open_partition(
    services: &Arc<Services>,
    (topic, number): (&Arc<str>, u32),
    config: &TopicConfig,
    space: &Arc<TopicSpace>,
    data: &DataDir,
) -> impl Future<Output = Result<Arc<Partition>, EngineError>> + use<> {
    let dir = data.partition(topic, number);
    let (for_job, topic, config, space) = (Arc::clone(services), Arc::clone(topic), config.clone(), Arc::clone(space));
    services.io.run(move || Partition::open(for_job, (topic, number), &config, space, &dir))
}

/// Loads every module in the versions that run or may run next; one that can't be loaded says why to whoever wants it. Blocking.
fn load_modules(services: &Services, data: &DataDir, catalogue: &Catalogue) -> Result<(Workshop, BTreeMap<String, Deployed>), EngineError> {
    let cache_dir = data.module_cache();
    let cache = FileCache::open(cache_dir.clone(), services.config.module_cache_bytes_max);
    let cache = Arc::new(cache.map_err(|source| EngineError::data_dir("create", cache_dir, source))?);
    cache.keep_only(|sha256| catalogue.has_upload(sha256));
    cache.need(catalogue.needed_uploads());
    let host = PluginHost::new(Arc::clone(&cache) as _).map_err(|source| EngineError::Plugins(Arc::new(source)))?;
    let workshop = Workshop { host, cache, limits: services.config.plugin_limits.clone(), interrupt: Interrupt::default() };
    let mut modules = BTreeMap::new();
    for (name, stored) in &catalogue.modules {
        let pinned = catalogue.topics.values().flat_map(|topic| &topic.attachments).filter(|attachment| attachment.module == *name);
        let mut versions: BTreeSet<u32> = pinned.filter_map(|attachment| attachment.version).collect();
        versions.insert(stored.current().version);
        let load = |version| {
            let found = stored.pick(name, &Pick::Version(version));
            let module = found.and_then(|found| load_stored(services, data, &workshop, name, &found.sha256));
            if let Err(error) = &module {
                let error = error.to_wire().message;
                tracing::error!(module = name, version, error, "a module can't be loaded; topics that need it refuse batches");
            }
            (version, module)
        };
        let loaded = versions.into_iter().map(load).collect();
        modules.insert(name.clone(), Deployed { stored: stored.clone(), loaded });
    }
    Ok((workshop, modules))
}

/// What is in force on a topic, with its modules started.
async fn runtime_of(
    services: &Services,
    workshop: &Workshop,
    modules: &BTreeMap<String, Deployed>,
    catalogue: &Catalogue,
    name: &str,
) -> Result<Runtime, EngineError> {
    let Some(stored) = catalogue.topics.get(name) else { unreachable!("it is one of the catalogue's") };
    let mut runtime = Runtime::new(stored.epoch, stored.config.known.clone(), services.config.max_batch_bytes);
    for attachment in &stored.attachments {
        let derivation = attachment.derive.as_ref().map(|derive| {
            let targets = derive.targets(|target| catalogue.topics.get(target).map_or(0, |topic| topic.partitions));
            Derivation::new(derive.id, targets, (0..stored.partitions).map(|_| None))
        });
        let (workshop, attachment) = (workshop.clone(), attachment.clone());
        let deployed = modules.get(&attachment.module).cloned();
        let attached = services.plugin.run(move || start_attachment(&workshop, &attachment, deployed, derivation)).await?;
        if let Guest::Unavailable(error) = &attached.guest {
            let error = error.to_wire().message;
            tracing::error!(
                topic = name,
                module = &*attached.module,
                error,
                "a module does not run; the topic refuses batches that need it"
            );
        }
        runtime.add(attached);
    }
    Ok(runtime)
}

/// Starts a module on a topic; if it can't be started, the attachment says why to every batch. Blocking.
fn start_attachment(
    workshop: &Workshop,
    stored: &StoredAttachment,
    deployed: Option<Deployed>,
    derivation: Option<Arc<Derivation>>,
) -> Arc<Attachment> {
    let lasting = workshop.lasting(derivation);
    let Some(Deployed { stored: module, mut loaded }) = deployed else {
        let lost = EngineError::ModuleLost { module: stored.module.clone(), reason: "the catalogue does not have it".to_owned() };
        return stored.plan(0, lasting).unavailable(String::new(), lost);
    };
    let version = stored.version.unwrap_or(module.current().version);
    let sha256 = module.find(version).map(|found| found.sha256.clone()).unwrap_or_default();
    let plan = || stored.plan(version, lasting.clone());
    let not_loaded = || Err(EngineError::ModuleLost { module: stored.module.clone(), reason: "it was not loaded".to_owned() });
    let started = loaded.remove(&version).unwrap_or_else(not_loaded).and_then(|module| match module.world() {
        world if runs_on(world, stored.on) => workshop.attach(plan(), &module),
        found => Err(EngineError::ModuleWrongWorld { module: stored.module.clone(), found, on: stored.on, wanted: world_on(stored.on) }),
    });
    started.unwrap_or_else(|error| plan().unavailable(sha256, error))
}

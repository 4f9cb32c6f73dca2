//! One topic while the broker runs: its partitions, and what is in force for the next batch.

use crate::{
    derive,
    earlier::Earlier,
    error::{EngineError, Purpose},
    modules::Use,
    partition::{Extent, Look, Partition},
    pool::Lane,
    services::Services,
    space::TopicSpace,
    transform::Attachment,
};
use arc_swap::ArcSwap;
use millpond_protocol::message::{
    AttachPoint, AttachedModule, AttachmentStatus, DerivedPartition, Refused, TopicConfig, TopicInfo, Watermarks,
};
use std::{collections::BTreeMap, sync::Arc};
use tokio::sync::Semaphore;

/// A topic. Its partitions stay for as long as it lives; what runs on it may change.
#[derive(Debug)]
pub(crate) struct Topic {
    pub(crate) name: Arc<str>,
    pub(crate) partitions: Vec<Arc<Partition>>,
    space: Arc<TopicSpace>,
    /// Replaced as a whole. A batch takes one look and keeps what it saw, so a change falls between two batches.
    runtime: ArcSwap<Runtime>,
    /// The topic's way to the plugin threads.
    pub(crate) plugin: Lane,
    /// What the batches went through that it has placed.
    pub(crate) earlier: Arc<Earlier>,
    /// Rounds of what is derived from it, at modules.
    pub(crate) derive_rounds: Arc<Semaphore>,
}

/// The partitions of a topic, and the room that they share.
pub(crate) type Opened = (Vec<Arc<Partition>>, Arc<TopicSpace>);

/// What holds for a batch.
#[derive(Clone, Debug)]
pub(crate) struct Runtime {
    pub(crate) epoch: u32,
    /// The topic's settings, within the broker's limits.
    pub(crate) config: TopicConfig,
    /// Run before the append, in order.
    pub(crate) transforms: Vec<Arc<Attachment>>,
    /// Chooses the partition of a record when the producer leaves it to the broker.
    pub(crate) partitioner: Option<Arc<Attachment>>,
    /// What consumers can ask for, by name. Each chain runs in order.
    pub(crate) views: BTreeMap<Arc<str>, Vec<Arc<Attachment>>>,
    /// Make other topics of this one, each for itself.
    pub(crate) derived: Vec<Arc<Attachment>>,
}

impl Topic {
    pub(crate) fn new(name: Arc<str>, (partitions, space): Opened, runtime: Runtime, services: &Services) -> Topic {
        let (plugin, derive_rounds) = (services.plugin.lane(), derive::rounds_of_source(services.config.plugin_threads));
        Topic { name, partitions, space, runtime: ArcSwap::from_pointee(runtime), plugin, earlier: Arc::default(), derive_rounds }
    }

    pub(crate) fn runtime(&self) -> Arc<Runtime> {
        self.runtime.load_full()
    }

    /// From the next batch on.
    pub(crate) fn set_runtime(&self, runtime: Runtime) {
        let runtime = Arc::new(runtime);
        self.runtime.store(Arc::clone(&runtime));
        // One that has stopped tries again with what has changed.
        runtime.derived.iter().filter_map(|attachment| attachment.lasting.derivation.as_ref()).for_each(|derivation| derivation.wake());
    }

    pub(crate) fn partition(&self, number: u32, purpose: Purpose) -> Result<&Arc<Partition>, EngineError> {
        self.partitions.get(number as usize).ok_or_else(|| EngineError::PartitionOutOfRange {
            topic: Arc::clone(&self.name),
            partition: number,
            partitions: self.partition_count(),
            purpose,
        })
    }

    pub(crate) fn partition_count(&self) -> u32 {
        u32::try_from(self.partitions.len()).unwrap_or(u32::MAX)
    }

    /// All that is known of it.
    pub(crate) fn info(&self) -> TopicInfo {
        self.info_of(Extent::All)
    }

    pub(crate) fn info_of(&self, extent: Extent) -> TopicInfo {
        let runtime = self.runtime.load();
        let look = Look { extent, compacts: runtime.config.cleanup.compacts(), reserve_held: self.space.node().reserve.is_held() };
        let mut refused = Refused::default();
        let of_partition = |partition: &Arc<Partition>| {
            let (info, more) = partition.info(look);
            refused = Refused { topic: refused.topic + more.topic, node: refused.node + more.node, disk: refused.disk + more.disk };
            info
        };
        TopicInfo {
            name: self.name.as_ref().to_owned(),
            config: runtime.config.clone(),
            epoch: runtime.epoch,
            partitions: self.partitions.iter().map(of_partition).collect(),
            attachments: runtime.attachments().map(|attachment| self.status_of(attachment, extent == Extent::List)).collect(),
            used_bytes: self.space.level().used,
            dropped: self.space.dropped(),
            refused,
            node: None,
        }
    }

    /// How a module on it is doing; where it derives other topics, with how far it is behind what there is.
    pub(crate) fn status_of(&self, attachment: &Attachment, is_list: bool) -> AttachmentStatus {
        let mut status = attachment.status(is_list);
        for (derived, partition) in status.derived.iter_mut().flat_map(|derived| &mut derived.partitions).zip(&self.partitions) {
            let Watermarks { log_start, high_watermark, .. } = partition.watermarks();
            // Where the position is not known yet it may be all that there is.
            let position = if derived.position == DerivedPartition::UNKNOWN { log_start } else { derived.position };
            derived.lag = high_watermark.saturating_sub(position).max(0).cast_unsigned();
        }
        status
    }

    /// Where on it a module runs.
    pub(crate) fn uses(self: &Arc<Self>, module: &str) -> Vec<Use> {
        let of = |one: &Arc<Attachment>| Use {
            topic: Arc::clone(self),
            version: one.version,
            at: AttachedModule {
                topic: self.name.as_ref().to_owned(),
                on: one.on,
                view: one.view.as_deref().map(str::to_owned),
                pinned: one.pinned,
                status: None,
            },
            attachment: Arc::clone(one),
        };
        self.runtime().attachments().filter(|attachment| &*attachment.module == module).map(of).collect()
    }

    /// How many bytes it may have, and has.
    pub(crate) fn space(&self) -> &Arc<TopicSpace> {
        &self.space
    }
}

impl Runtime {
    /// A topic without modules. The broker's limit on a batch may be lower than it was when the topic was made; then that one holds, and
    /// is what clients are told.
    pub(crate) fn new(epoch: u32, mut config: TopicConfig, max_batch_bytes: u32) -> Runtime {
        config.max_batch_bytes = config.max_batch_bytes.min(max_batch_bytes);
        Runtime { epoch, config, transforms: Vec::new(), partitioner: None, views: BTreeMap::new(), derived: Vec::new() }
    }

    /// What is attached, in the order in which it runs.
    pub(crate) fn attachments(&self) -> impl Iterator<Item = &Arc<Attachment>> {
        self.transforms.iter().chain(&self.partitioner).chain(self.views.values().flatten()).chain(&self.derived)
    }

    /// Adds a module at its place: behind the others of a chain, or as the one partitioner.
    pub(crate) fn add(&mut self, attachment: Arc<Attachment>) {
        match attachment.on {
            AttachPoint::Produce => self.transforms.push(attachment),
            AttachPoint::Partition => self.partitioner = Some(attachment),
            AttachPoint::Derive => self.derived.push(attachment),
            AttachPoint::Fetch => self.views.entry(attachment.view.clone().unwrap_or_default()).or_default().push(attachment),
        }
    }

    /// Takes a module away.
    pub(crate) fn remove(&mut self, module: &str, on: AttachPoint, view: Option<&str>) {
        let others = |attachment: &Arc<Attachment>| !attachment.is(module, on, view);
        self.transforms.retain(others);
        self.partitioner = self.partitioner.take().filter(others);
        self.views.values_mut().for_each(|chain| chain.retain(others));
        self.views.retain(|_, chain| !chain.is_empty());
        self.derived.retain(others);
    }

    /// Puts a module in the place of the one with the same name that is there.
    pub(crate) fn replace(&mut self, attachment: &Arc<Attachment>) {
        let same = |old: &&mut Arc<Attachment>| old.is(&attachment.module, attachment.on, attachment.view.as_deref());
        let all = self.transforms.iter_mut().chain(&mut self.partitioner).chain(self.views.values_mut().flatten()).chain(&mut self.derived);
        for old in all.filter(same) {
            *old = Arc::clone(attachment);
        }
    }
}

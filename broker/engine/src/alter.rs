//! Changing the settings of a topic while it is used.
//!
//! On disk before it is in force, as every change of the catalogue. The limit on a batch holds from the next batch on; the durability from
//! the next append of each partition, whose answer says which it was; retention and compaction from the next look at the partition; a
//! quota at once. Records without a key that a topic holds when it becomes a compacted one stay; of those that come, the next batch on, none
//! is taken.

use crate::{
    engine::Engine,
    error::{EngineError, StorageBound},
    topic::Runtime,
    topics::to_the_end,
};
use futures_util::future::join_all;
use millpond_protocol::message::{AlterTopic, TopicInfo};
use std::sync::Arc;

impl Engine {
    /// Changes settings of a topic; those that are not named stay as they are. Once begun it is finished, even if the future is dropped.
    ///
    /// # Errors
    ///
    /// [`EngineError::TopicNotFound`], [`EngineError::InvalidConfig`], [`EngineError::CompactedDropsOldest`],
    /// [`EngineError::CompactedRetention`], [`EngineError::DataDir`], [`EngineError::ShuttingDown`]. In all these cases nothing is changed.
    pub async fn alter_topic(self: &Arc<Self>, request: AlterTopic) -> Result<TopicInfo, EngineError> {
        let engine = Arc::clone(self);
        to_the_end(async move { engine.alter_topic_now(&request).await }).await
    }

    async fn alter_topic_now(self: Arc<Self>, request: &AlterTopic) -> Result<TopicInfo, EngineError> {
        let mut catalogue = self.catalogue.lock().await;
        self.refuse_while_closing()?;
        let topic = self.find_topic(&request.name)?;
        // What is in force stands for what is not named: the broker's limit may be lower than it was.
        self.check_config(&request.applied_to(&topic.runtime().config))?;
        let Some(before) = catalogue.topics.get(&request.name).map(|stored| stored.config.known.clone()) else {
            return Err(EngineError::TopicNotFound { name: request.name.clone(), nearest: None });
        };
        let config = request.applied_to(&before);
        if config == before {
            return Ok(topic.info());
        }
        let epoch = topic.runtime().epoch.wrapping_add(1);
        self.save(&mut catalogue, |next| {
            if let Some(stored) = next.topics.get_mut(&request.name) {
                stored.config.known = config.clone();
                stored.epoch = epoch;
            }
        })
        .await?;

        let runtime = Runtime::clone(&topic.runtime());
        let durability = config.durability;
        let within = Runtime::new(epoch, config, self.services.config.max_batch_bytes).config;
        topic.space().set(&within);
        topic.set_runtime(Runtime { epoch, config: within.clone(), ..runtime });
        let changes = topic.partitions.iter().map(|partition| {
            let partition = Arc::clone(partition);
            let config = within.clone();
            self.services.io.run(move || {
                partition.set_segment_bytes(&config);
                partition.set_durability(durability);
                partition.set_compacts(config.cleanup.compacts());
            })
        });
        for changed in join_all(changes).await {
            // A partition that panics has stopped, and says so to everyone who asks it.
            changed?;
        }
        // One that stopped at a record that this topic did not take tries again.
        self.wake_writers(&catalogue, &request.name);
        // There may be room now for who waits, and one that drops its oldest records begins with it.
        topic.space().request_some(StorageBound::Topic);
        let info = topic.info();
        let (name, durability) = (&request.name, info.config.durability);
        let (retention_ms, retention_bytes) = (info.config.retention_ms, info.config.retention_bytes);
        tracing::info!(topic = name, %durability, retention_ms, retention_bytes, max_batch_bytes = info.config.max_batch_bytes, cleanup = %info.config.cleanup, "a topic was changed");
        Ok(info)
    }
}

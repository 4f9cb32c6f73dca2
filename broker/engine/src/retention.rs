//! Retention in the background: every partition is looked at once in a while, one after the other, on the background thread. So may a
//! deletion that an operator asks for have to wait for one step of a compaction, some seconds on flash at most.
//!
//! The first look comes one interval after the start: by then the time service has set the clock of a gateway that has none of its own.

use crate::{
    config::EngineConfig,
    engine::Engine,
    error::{EngineError, Purpose},
    space,
};
use millpond_log::RetentionLimits;
use millpond_protocol::message::{DeleteRecords, Position, RecordsDeleted, TopicConfig};
use std::{
    ops::RangeInclusive,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

/// Begins to look. Ends when the engine is dropped or stops.
pub(crate) fn start(engine: &Arc<Engine>) {
    let services = &engine.services;
    let interval = check_interval(&services.config);
    services.timers.spawn(run(Arc::downgrade(engine), interval));
    space::start(engine, interval);
}

/// The time between two looks.
pub(crate) fn check_interval(config: &EngineConfig) -> Duration {
    config.retention_check_interval.clamp(*CHECK_INTERVAL.start(), *CHECK_INTERVAL.end())
}

async fn run(engine: Weak<Engine>, interval: Duration) {
    loop {
        tokio::time::sleep(interval).await;
        let Some(engine) = engine.upgrade() else { return };
        if engine.check_retention().await.is_err() {
            return;
        }
    }
}

impl Engine {
    /// Deletes the oldest records of a partition, durably: whatever comes afterwards, they are not there again, and their offsets are
    /// not used again. A position before the log start deletes nothing.
    ///
    /// # Errors
    ///
    /// [`EngineError::TopicNotFound`], [`EngineError::PartitionOutOfRange`]; [`EngineError::OffsetOutOfRange`] behind the high watermark;
    /// [`EngineError::Log`], [`EngineError::ShuttingDown`].
    pub async fn delete_records(&self, request: &DeleteRecords) -> Result<RecordsDeleted, EngineError> {
        self.refuse_while_closing()?;
        let topic = self.find_topic(&request.topic)?;
        let partition = Arc::clone(topic.partition(request.partition, Purpose::DeleteRecords)?);
        let before = match request.before {
            Position::Offset(offset) if (0..=partition.watermarks().log_start).contains(&offset) => offset,
            position => crate::consume::resolve(&self.services, &partition, position, Purpose::DeleteRecords).await?.offset,
        };
        let deleted = self.services.background.run(move || partition.delete_records(before));
        let log_start = deleted.await??;
        tracing::info!(topic = request.topic, partition = request.partition, log_start, "records were deleted");
        Ok(RecordsDeleted { log_start })
    }

    /// Looks at every partition once. Fails when the broker stops.
    async fn check_retention(&self) -> Result<(), EngineError> {
        let topics: Vec<_> = self.topics.read().values().map(Arc::clone).collect();
        for topic in topics {
            topic.earlier.forget(Instant::now());
            for partition in &topic.partitions {
                self.refuse_while_closing()?;
                // Asked for each: they may be changed while a topic of many partitions is looked at.
                let limits = limits_of(&topic.runtime().config);
                if limits.is_unlimited() {
                    break;
                }
                let partition = Arc::clone(partition);
                // One that panics has poisoned itself; the others go on.
                let _ = self.services.background.run(move || partition.check_retention(limits)).await;
            }
        }
        Ok(())
    }
}

/// The limits of a topic; without `delete` in its cleanup it has none.
fn limits_of(config: &TopicConfig) -> RetentionLimits {
    if !config.cleanup.deletes() {
        return RetentionLimits::default();
    }
    RetentionLimits { retention_ms: config.retention_ms, retention_bytes: config.retention_bytes }
}

/// Time between two looks. More often would only heat the room; more seldom, and a limit means little.
const CHECK_INTERVAL: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_hours(1);

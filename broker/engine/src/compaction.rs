//! Compaction in the background: of each key of a compacted topic the latest record is kept.
//!
//! Every partition is looked at once in a while, one after the other, and a pass is made where there is enough to do: one at a time for
//! the whole broker, so that one map of keys is in memory, and in steps of a segment each on the background thread, so that deletions and
//! retention have their turns in between. A pass ends early, and without harm, when the topic goes, or is not to be compacted any more, or
//! the broker stops.
//!
//! The first look comes one interval after the start, as that of retention.

use crate::{engine::Engine, error::EngineError, partition::Partition, retention, topic::Topic};
use std::{
    sync::{Arc, Weak},
    time::Duration,
};

/// Begins to look. Ends when the engine is dropped or stops.
pub(crate) fn start(engine: &Arc<Engine>) {
    let interval = retention::check_interval(&engine.services.config);
    engine.services.timers.spawn(run(Arc::downgrade(engine), interval));
}

async fn run(engine: Weak<Engine>, interval: Duration) {
    loop {
        tokio::time::sleep(interval).await;
        let Some(topics) = engine.upgrade().map(|engine| engine.topics.read().values().map(Arc::clone).collect::<Vec<_>>()) else { return };
        for topic in topics {
            for partition in &topic.partitions {
                if compact(&engine, &topic, partition).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// Makes a pass over a partition, if there is enough to do. Fails when the broker stops. The engine is not held between two steps: who
/// drops it does not wait for the pass.
async fn compact(engine: &Weak<Engine>, topic: &Topic, partition: &Arc<Partition>) -> Result<(), EngineError> {
    let mut pass = None;
    loop {
        let engine = engine.upgrade().ok_or(EngineError::ShuttingDown)?;
        engine.refuse_while_closing()?;
        // Asked for each step: they may be changed while a large partition is compacted.
        let runtime = topic.runtime();
        if !runtime.config.cleanup.compacts() {
            return Ok(());
        }
        let (partition, delete_retention_ms) = (Arc::clone(partition), runtime.config.delete_retention_ms);
        let step = engine.services.background.run(move || match pass {
            None => partition.begin_compaction(delete_retention_ms),
            Some(pass) => partition.continue_compaction(pass),
        });
        drop(engine);
        // One that panics has poisoned itself; the others go on.
        pass = step.await.unwrap_or(None);
        if pass.is_none() {
            return Ok(());
        }
    }
}

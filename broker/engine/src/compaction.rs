//! Compaction in the background: of each key of a compacted topic the latest record is kept.
//!
//! Every partition is looked at once in a while, one after the other, and a pass is made where there is enough to do: one at a time for
//! the whole broker, so that one map of keys is in memory, and in steps of a segment each on the background thread, so that deletions and
//! retention have their turns in between. A pass ends early, and without harm, when the topic goes, or is not to be compacted any more, or
//! the broker stops.
//!
//! The first look comes one interval after the start, as that of retention. Where there is no room, a pass is wished for
//! ([`crate::space`]): that comes before the next partition of a look, and less is worth it.

use crate::{
    engine::Engine,
    error::EngineError,
    partition::{Partition, compaction::Occasion},
    retention,
    space::{Granting, Wish},
    topic::Topic,
};
use millpond_log::CompactionPass;
use std::{
    cmp::Reverse,
    sync::{Arc, Weak},
    time::Duration,
};
use tokio::time::{Instant, sleep_until, timeout};

/// Begins to look. Ends when the engine is dropped or stops.
pub(crate) fn start(engine: &Arc<Engine>) {
    let interval = retention::check_interval(&engine.services.config);
    let wishes = Granting::new(&engine.services.space);
    let compaction = Background { engine: Arc::downgrade(engine), wishes, pending: Vec::new(), granting: Vec::new() };
    engine.services.timers.spawn(compaction.run(interval));
}

struct Background {
    engine: Weak<Engine>,
    wishes: Granting,
    /// Those that are next.
    pending: Vec<Wish>,
    /// Those that are being granted.
    granting: Vec<Wish>,
}

impl Background {
    async fn run(mut self, interval: Duration) {
        let mut next_look = Instant::now() + interval;
        loop {
            if !self.pending.is_empty() && Instant::now() < next_look {
                if self.grant().await.is_err() {
                    return;
                }
                continue;
            }
            let outcome = tokio::select! {
                () = sleep_until(next_look) => {
                    let outcome = self.look().await;
                    next_look = Instant::now() + interval;
                    outcome
                }
                () = self.wishes.added() => self.take_wishes(),
            };
            if outcome.is_err() {
                return;
            }
        }
    }

    /// Looks at every partition. Fails when the broker stops, as all of these do.
    async fn look(&mut self) -> Result<(), EngineError> {
        for topic in self.topics()? {
            for partition in &topic.partitions {
                self.compact(&topic, partition, Occasion::Look).await?;
                self.grant().await?;
            }
        }
        Ok(())
    }

    /// Makes room for those who wish for it, as far as it can be made. The largest topics first.
    async fn grant(&mut self) -> Result<(), EngineError> {
        self.take_wishes()?;
        if self.pending.is_empty() {
            return Ok(());
        }
        self.granting = std::mem::take(&mut self.pending);
        self.granting.iter().for_each(Wish::begin);
        // Some has been made since, for others.
        self.granting.iter_mut().filter(|wish| !wish.is_open()).for_each(Wish::grant);
        self.granting.retain(Wish::is_open);
        let mut topics = self.topics()?;
        topics.retain(|topic| topic.runtime().config.cleanup.compacts() && self.granting.iter().any(|wish| wish.is_about(topic.space())));
        topics.sort_by_cached_key(|topic| Reverse(topic.space().level().used));
        for topic in topics {
            for partition in &topic.partitions {
                self.close_active(partition).await?;
                self.compact(&topic, partition, Occasion::Room).await?;
            }
        }
        // The others hear that there is nothing to be had. Those that came meanwhile are next.
        self.granting.clear();
        Ok(())
    }

    /// Closes the active segment of a partition, if it holds anything that is worth it, and waits until it is flushed.
    async fn close_active(&self, partition: &Arc<Partition>) -> Result<(), EngineError> {
        let engine = self.engine()?;
        let mut flushed = Box::pin(partition.flush_ends());
        flushed.as_mut().enable();
        let closing = Arc::clone(partition);
        let mut is_flushing = engine.services.background.run(move || closing.close_for_compaction()).await.unwrap_or(false);
        drop(engine);
        // The flush that was under way did not cover all of it.
        for _ in 0..FLUSHES_PER_ROLL {
            if !is_flushing || timeout(FLUSH_WAITS_MAX, flushed.as_mut()).await.is_err() {
                break;
            }
            flushed.set(partition.flush_ends());
            flushed.as_mut().enable();
            let (engine, looking) = (self.engine()?, Arc::clone(partition));
            is_flushing = engine.services.background.run(move || looking.is_flushing()).await.unwrap_or(false);
        }
        Ok(())
    }

    /// Makes a pass over a partition, if there is enough to do. The engine is not held between two steps: who drops it does not wait for
    /// the pass.
    async fn compact(&mut self, topic: &Topic, partition: &Arc<Partition>, occasion: Occasion) -> Result<(), EngineError> {
        let mut pass: Option<CompactionPass> = None;
        loop {
            let engine = self.engine()?;
            // Asked for each step: they may be changed while a large partition is compacted.
            let runtime = topic.runtime();
            if !runtime.config.cleanup.compacts() {
                return Ok(());
            }
            let before = pass.as_ref().map_or(0, |pass| pass.so_far().bytes_after);
            let (for_job, delete_retention_ms) = (Arc::clone(partition), runtime.config.delete_retention_ms);
            let step = engine.services.background.run(move || match pass {
                None => for_job.begin_compaction(delete_retention_ms, occasion),
                Some(pass) => for_job.continue_compaction(pass),
            });
            drop(engine);
            // One that panics has poisoned itself; the others go on.
            pass = step.await.unwrap_or(None);
            let Some(going_on) = &pass else { return Ok(()) };
            if going_on.so_far().bytes_after < before {
                self.take_wishes()?;
                let wishes = self.pending.iter_mut().chain(&mut self.granting);
                wishes.filter(|wish| wish.is_about(topic.space())).for_each(Wish::grant);
            }
        }
    }

    /// Those that came meanwhile.
    fn take_wishes(&mut self) -> Result<(), EngineError> {
        self.wishes.take(&mut self.pending);
        self.engine().map(drop)
    }

    fn topics(&self) -> Result<Vec<Arc<Topic>>, EngineError> {
        Ok(self.engine()?.topics.read().values().map(Arc::clone).collect())
    }

    fn engine(&self) -> Result<Arc<Engine>, EngineError> {
        let engine = self.engine.upgrade().ok_or(EngineError::ShuttingDown)?;
        engine.refuse_while_closing()?;
        Ok(engine)
    }
}

/// One that was under way when the segment was closed, and the one behind it.
const FLUSHES_PER_ROLL: usize = 2;

/// How long a flush is waited for. It is longer than a disk takes that still works; the segment is compacted another time then.
const FLUSH_WAITS_MAX: Duration = Duration::from_secs(1);

//! Derived topics: a module that runs on its own on what a topic has, from a chosen place on, and writes what it makes of it to other topics.
//!
//! ```text
//!   source, partition p                                                       targets
//!   | 0 1 2 3 | 4 5 | 6 7 8 |       round                  commit                | .. |
//!              '- position    ──>  module, state  ──>  position, state,  ──>     | .. | by key
//!                                  (plugin threads)    batches: one sync         | .. |
//! ```
//!
//! # What it promises
//!
//! - Each record of the source has its effect exactly once, whatever crashes: its records in the targets, the changes of the state, and the
//!   position, all or none of them ([`store`]). It depends neither on the module's giving the same answer twice, nor on its version.
//! - What is read is durable before it has an effect: a power cut takes no record back that a target knows of. So a source with `os` or
//!   `interval` is flushed for it, and so is a target.
//! - The state of a module is scoped to its attachment and to the partition of the source; partitions don't see each other's.
//! - A module in its place changes between two batches: another version goes on at the position, with the state, of the one before.
//! - Where the source was deleted before it was read, or is damaged, it goes on behind that, says so, and counts the offsets.
//! - A failure that may pass (a target that is full, a disk that has no room) is tried again, after pauses that grow up to
//!   [`PAUSE_MAX`], and told in the topic's description. Nothing is held in memory meanwhile but where it stands.
//! - So many rounds at modules at once as there are plugin threads, of one source all but one of them, in turn, whatever the number of
//!   attachments ([`turns`]); a module runs on its source's lane.
//! - Where it is to stop, nobody waits for its module: a guest that runs is interrupted, and its batch is as if it had never been begun. A runner
//!   ends within twice [`STOP_GRACE`], and what the disk takes.
//!
//! # What it refuses
//!
//! A cycle of topics, dead letters included; a target on which modules run on produce, or that has a partitioner, because they don't run
//! on what the broker itself writes; a target that takes the dead letters too; a module that wants a state and was granted none, or that was
//! granted one and wants none. A topic is not deleted while records are derived into it.
//!
//! # Bounds
//!
//! [`TARGETS_MAX`], [`STATE_BYTES_MAX`], [`STATE_BYTES_ALL_MAX`], [`PRODUCERS_PER_TARGET_MAX`], and those of a round. In memory: the state of each
//! attachment and partition for as long as it runs; one round for each plugin thread; and, of each attachment, what as many rounds as there
//! are threads (two at least) have made, until the targets have it or have refused it. On disk, beside what quotas count:
//! [`store::file_bytes_max`] for each attachment and partition.
//!
//! | module | holds |
//! |---|---|
//! | [`attach`] | what an attachment must be, its folder, its beginning and its end |
//! | [`runner`] | one attachment on one partition, from round to round |
//! | [`turns`] | which rounds there are at once |
//! | [`round`], [`output`] | the module at work, and what becomes of its records; pure |
//! | [`apply`] | what was committed, into the targets |
//! | [`store`], [`frame`] | what is on disk |

mod apply;
mod attach;
mod frame;
mod output;
mod round;
mod runner;
mod store;
mod turns;

pub(crate) use turns::{Rounds, rounds_of_source};

pub(crate) use attach::{StoredDerive, check_bounds, check_request, check_state, check_targets, remove_leftovers};

use crate::{data_dir::DataDir, engine::Engine, services::Services, topic::Topic, transform::Attachment};
use futures_util::future::join_all;
use millpond_log::BROKER_PRODUCER_ID_MIN;
use millpond_plugin::Target;
use millpond_protocol::message::{DerivedPartition, DerivedStatus, Undelivered};
use parking_lot::Mutex;
use runner::Runner;
use std::{pin::pin, sync::Arc, time::Duration};
use store::Store;
use tokio::{sync::watch, task::JoinHandle, time::timeout};
use turns::Turns;

/// What outlives the versions and the settings of a module that derives topics: where it writes to, and how far it is.
#[derive(Debug)]
pub(crate) struct Derivation {
    /// Its own: the name of its folder, and a part of its producers' ids.
    pub(crate) id: u64,
    /// The targets as the module knows them.
    pub(crate) targets: Vec<Target>,
    control: watch::Sender<Control>,
    /// One for each partition of the source.
    progress: Vec<Mutex<Progress>>,
    runners: Mutex<Vec<JoinHandle<()>>>,
}

/// What the runners are told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Control {
    /// They are to end.
    is_over: bool,
    /// Rises when another version or other settings take over, and when a target changes, so that one that has stopped tries again.
    turn: u64,
}

/// How far a runner is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Progress {
    /// None until its files were read, after a start.
    position: Option<i64>,
    /// What was committed and the targets don't have.
    undelivered: Option<Undelivered>,
    state_bytes: u64,
    state_entries: u64,
    file_bytes: u64,
    /// Offsets that were gone before they were read.
    skipped: u64,
    /// What keeps it from going on.
    error: Option<String>,
}

/// See [`millpond_protocol::message::Undelivered`].
fn undelivered(store: &Store) -> Option<Undelivered> {
    let batches = store.pending().len() as u64;
    (batches > 0).then(|| Undelivered { batches, committed: store.position() })
}

impl Derivation {
    /// With the places of the partitions, as far as they are known.
    pub(crate) fn new(id: u64, targets: Vec<Target>, places: impl IntoIterator<Item = Option<i64>>) -> Arc<Derivation> {
        let progress = |position| Mutex::new(Progress { position, ..Progress::default() });
        let progress = places.into_iter().map(progress).collect();
        let control = watch::Sender::default();
        Arc::new(Derivation { id, targets, control, progress, runners: Mutex::default() })
    }

    /// The bytes of state that it has for some partition, where that is the most.
    pub(crate) fn state_bytes(&self) -> u64 {
        self.progress.iter().map(|progress| progress.lock().state_bytes).max().unwrap_or(0)
    }

    /// How it is doing, but for the lag, which the partitions know. Its module may return so many bytes for one batch.
    pub(crate) fn status(&self, settings: &StoredDerive, output_bytes_max: u64) -> DerivedStatus {
        let of_partition = |(partition, progress): (u32, &Mutex<Progress>)| {
            let Progress { position, undelivered, state_bytes, state_entries, file_bytes, skipped, error } = progress.lock().clone();
            let position = position.unwrap_or(DerivedPartition::UNKNOWN);
            DerivedPartition { partition, position, undelivered, lag: 0, state_bytes, state_entries, file_bytes, skipped, error }
        };
        DerivedStatus {
            file_bytes_max: store::file_bytes_max(settings.state_bytes, round::outputs_bytes_max(output_bytes_max)),
            targets: settings.targets.clone(),
            state_bytes_max: settings.state_bytes,
            retries: settings.retries,
            partitions: (0..).zip(&self.progress).map(of_partition).collect(),
        }
    }

    /// Another version has taken over, or something has changed that it may have waited for.
    pub(crate) fn wake(&self) {
        self.control.send_modify(|control| control.turn += 1);
    }

    /// Ends the runners, and waits until they have: for what is on its way to the disk, and for no module.
    async fn stop(&self) {
        self.control.send_modify(|control| control.is_over = true);
        let runners = std::mem::take(&mut *self.runners.lock());
        let mut stopping = pin!(join_all(runners));
        let ended = if let Ok(ended) = timeout(STOP_TOLD, &mut stopping).await {
            ended
        } else {
            tracing::warn!(targets = ?self.targets, "a derived topic does not stop yet: its runners wait for the disk");
            stopping.await
        };
        for ended in ended {
            if let Err(error) = ended {
                tracing::error!(%error, "a derived topic's runner panicked; this is a bug, please report it");
            }
        }
    }

    /// What would be lost with it at this moment, of a partition that does not go on: its number, and what its targets don't have.
    pub(crate) fn would_be_lost(&self) -> Option<(u32, Undelivered)> {
        let of = |(partition, progress): (u32, &Mutex<Progress>)| {
            let progress = progress.lock();
            progress.undelivered.filter(|_| progress.error.is_some()).map(|undelivered| (partition, undelivered))
        };
        (0..).zip(&self.progress).find_map(of)
    }

    /// Reads what is not known yet.
    pub(crate) async fn learn_places(&self, services: &Services, data: &DataDir) {
        for (partition, progress) in (0..).zip(&self.progress) {
            if progress.lock().position.is_some() {
                continue;
            }
            let (disk, dir) = (Arc::clone(&services.disk), data.derivation(self.id));
            if let Ok(Ok(store)) = services.io.run(move || Store::open(disk, &dir, partition)).await {
                let mut progress = progress.lock();
                progress.undelivered = undelivered(&store);
                progress.position = progress.undelivered.is_none().then(|| store.position());
                progress.state_bytes = store.state().bytes();
            }
        }
    }

    /// The producer for what comes of a partition of the source.
    fn producer_id(&self, partition: u32) -> i64 {
        BROKER_PRODUCER_ID_MIN | (self.id.cast_signed() << PARTITION_BITS) | i64::from(partition)
    }

    fn note(&self, partition: u32, change: impl FnOnce(&mut Progress)) {
        if let Some(progress) = self.progress.get(partition as usize) {
            change(&mut progress.lock());
        }
    }
}

/// Starts the runners of all attachments on a topic that have none yet.
pub(crate) fn start(engine: &Arc<Engine>, topic: &Topic) {
    for derivation in topic.runtime().derived.iter().filter_map(|attachment| attachment.lasting.derivation.as_ref()) {
        let mut runners = derivation.runners.lock();
        if runners.is_empty() && !derivation.control.borrow().is_over {
            let services = &engine.services;
            let turns = Turns::new(&services.derive_rounds, &topic.derive_rounds, services.config.plugin_threads);
            let spawn = |partition| services.timers.spawn(Runner::new(engine, topic, partition, derivation, turns.clone()).run());
            runners.extend(topic.partitions.iter().map(spawn));
        }
    }
}

/// Ends some attachments, and their runners.
pub(crate) async fn stop(attachments: &[&Arc<Attachment>]) {
    // First, so that a runner that is told sees a module that has ended.
    for attachment in attachments {
        attachment.lasting.interrupt.raise();
    }
    let derivations = attachments.iter().filter_map(|attachment| attachment.lasting.derivation.as_ref());
    join_all(derivations.map(|derivation| derivation.stop())).await;
}

/// How many topics one attachment may write to.
pub(crate) const TARGETS_MAX: usize = 16;

/// The most state that an attachment may be granted for each partition, in bytes.
pub(crate) const STATE_BYTES_MAX: u64 = 16 << 20;

/// What all grants on all partitions may come to, in bytes: it is in memory while the modules run.
pub(crate) const STATE_BYTES_ALL_MAX: u64 = 256 << 20;

/// So many partitions of sources may be derived into one topic: each is a producer that its partitions remember, and never forget for others.
pub(crate) const PRODUCERS_PER_TARGET_MAX: usize = 500;

/// How often a module is tried again on a batch, where the attachment says nothing.
pub(crate) const RETRIES_DEFAULT: u32 = 3;

/// The most retries that an attachment may ask for.
pub(crate) const RETRIES_MAX: u32 = 100;

/// The pause after the first failure; each further one is twice as long.
const PAUSE_MIN: Duration = Duration::from_millis(100);

/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// What is at a module, or on its way into targets, when a derived topic is to stop has so long to come to its end; what has not is done
/// again at the next start, if there is one.
const STOP_GRACE: Duration = Duration::from_millis(500);

/// A stop that takes longer is told: the disk is in the way.
const STOP_TOLD: Duration = Duration::from_secs(2);

/// Of a producer id, for the partition: a topic has 10,000 at most. The rest, but for the bit that makes it the broker's own, is the attachment.
const PARTITION_BITS: u32 = 14;

/// Of an attachment's id.
const ID_BITS: u32 = 62 - PARTITION_BITS;

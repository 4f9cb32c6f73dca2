//! A module on a topic: the guest, and what is counted of its work.

use super::{Records, difference::Difference};
use crate::error::EngineError;
use millpond_plugin::{BatchInfo, Partitioner, Transform};
use millpond_protocol::message::{AttachPoint, AttachmentStatus};
use parking_lot::Mutex;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// A module on a topic, ready to run.
#[derive(Debug)]
pub(crate) struct Attachment {
    pub(crate) module: Arc<str>,
    /// 0 where nobody knows: the catalogue has lost the module.
    pub(crate) version: u32,
    /// It stays this version.
    pub(crate) pinned: bool,
    pub(crate) sha256: String,
    pub(crate) on: AttachPoint,
    pub(crate) params: Vec<(String, String)>,
    pub(crate) guest: Guest,
    /// Shared with the attachment that takes this one's place when its module is uploaded anew.
    pub(crate) counters: Arc<Counters>,
}

/// The module itself.
pub(crate) enum Guest {
    Transform(Transform),
    Partitioner(Partitioner),
    /// It could not be loaded when the broker started. Batches get this error: storing them as if the module had run would
    /// keep what it was meant to drop or mask.
    Unavailable(EngineError),
}

impl std::fmt::Debug for Guest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Guest::Transform(_) => "Transform",
            Guest::Partitioner(_) => "Partitioner",
            Guest::Unavailable(_) => "Unavailable",
        })
    }
}

/// What an attachment has done since the broker started.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    records_in: AtomicU64,
    records_out: AtomicU64,
    records_dropped: AtomicU64,
    records_changed: AtomicU64,
    batches: AtomicU64,
    failures: AtomicU64,
    failure_logged_at: Mutex<Option<Instant>>,
}

impl Attachment {
    /// How it is doing.
    pub(crate) fn status(&self) -> AttachmentStatus {
        let counters = &self.counters;
        AttachmentStatus {
            module: self.module.as_ref().to_owned(),
            version: Some(self.version).filter(|version| *version > 0),
            pinned: self.pinned,
            sha256: self.sha256.clone(),
            on: self.on,
            params: self.params.iter().cloned().collect(),
            records_in: counters.records_in.load(Ordering::Relaxed),
            records_out: counters.records_out.load(Ordering::Relaxed),
            records_dropped: counters.records_dropped.load(Ordering::Relaxed),
            records_changed: counters.records_changed.load(Ordering::Relaxed),
            batches: counters.batches.load(Ordering::Relaxed),
            failures: counters.failures.load(Ordering::Relaxed),
        }
    }

    /// Asks the module for the partition of each record.
    pub(crate) fn partition(
        &self,
        topic: &Arc<str>,
        records: &Records,
        base_timestamp: i64,
        partitions: u32,
    ) -> Result<Vec<u32>, EngineError> {
        let info = BatchInfo { topic, partition: None, base_timestamp, record_count: records.count() };
        let result = match &self.guest {
            Guest::Partitioner(partitioner) => {
                partitioner.run(&info, &records.section, partitions).map_err(|source| self.guest_error(topic, source))
            }
            other => Err(self.unavailable(topic, other)),
        };
        let all_kept = Difference { records_out: u64::from(info.record_count), dropped: 0, changed: 0 };
        self.note(topic, info.record_count, result.as_ref().map(|_| &all_kept));
        result
    }

    pub(super) fn transform(&self, topic: &Arc<str>, info: &BatchInfo<'_>, section: &[u8]) -> Result<Vec<u8>, EngineError> {
        match &self.guest {
            Guest::Transform(transform) => transform.run(info, section).map_err(|source| self.guest_error(topic, source)),
            other => Err(self.unavailable(topic, other)),
        }
    }

    /// Counts one batch, and tells the broker's log of a failure: once a second, for a producer can bring about any number of them.
    pub(super) fn note(&self, topic: &str, records_in: u32, result: Result<&Difference, &EngineError>) {
        self.counters.count(u64::from(records_in), result.ok());
        let Err(error) = result else { return };
        let mut logged_at = self.counters.failure_logged_at.lock();
        if logged_at.is_some_and(|at| at.elapsed() < FAILURE_LOG_INTERVAL) {
            return;
        }
        *logged_at = Some(Instant::now());
        drop(logged_at);
        let backtrace = match error {
            EngineError::Guest { source, .. } => source.backtrace(),
            _ => None,
        };
        let failures = self.counters.failures.load(Ordering::Relaxed);
        tracing::warn!(topic, module = &*self.module, failures, error = error.to_wire().message, backtrace, "a module failed on a batch");
    }

    fn guest_error(&self, topic: &Arc<str>, source: millpond_plugin::PluginError) -> EngineError {
        EngineError::Guest { topic: Arc::clone(topic), module: Arc::clone(&self.module), source: Arc::new(source) }
    }

    fn unavailable(&self, topic: &Arc<str>, guest: &Guest) -> EngineError {
        match guest {
            Guest::Unavailable(error) => error.clone(),
            // A module is held against its place when it is attached and when it is loaded.
            other => EngineError::GuestOutput {
                topic: Arc::clone(topic),
                module: Arc::clone(&self.module),
                reason: format!("a {other:?} runs on {}", self.on),
            },
        }
    }
}

impl Counters {
    /// Counts one batch; no difference means that the module failed on it.
    fn count(&self, records_in: u64, difference: Option<&Difference>) {
        self.batches.fetch_add(1, Ordering::Relaxed);
        self.records_in.fetch_add(records_in, Ordering::Relaxed);
        match difference {
            Some(difference) => {
                self.records_out.fetch_add(difference.records_out, Ordering::Relaxed);
                self.records_dropped.fetch_add(difference.dropped, Ordering::Relaxed);
                self.records_changed.fetch_add(difference.changed, Ordering::Relaxed);
            }
            None => {
                self.failures.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// How often the log is told that a module fails.
const FAILURE_LOG_INTERVAL: Duration = Duration::from_secs(1);

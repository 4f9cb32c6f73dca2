//! A module on a topic: the guest, and what is counted of its work.

use super::{
    Records,
    breaker::{Breaker, Paused},
    difference::Difference,
};
use crate::error::EngineError;
use millpond_plugin::{BatchInfo, Partitioner, Transform};
use millpond_protocol::message::{AttachLimits, AttachPoint, AttachmentStatus, OnError};
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
    /// On fetch.
    pub(crate) view: Option<Arc<str>>,
    pub(crate) params: Vec<(String, String)>,
    /// What it was attached with; the guest has what holds.
    pub(crate) limits: AttachLimits,
    pub(crate) on_error: OnError,
    pub(crate) guest: Guest,
    pub(crate) breaker: Breaker,
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
    records_failed: AtomicU64,
    failure_logged_at: Mutex<Option<Instant>>,
}

impl Attachment {
    /// Whether it is this one: a module is in one place once.
    pub(crate) fn is(&self, module: &str, on: AttachPoint, view: Option<&str>) -> bool {
        *self.module == *module && self.on == on && self.view.as_deref() == view
    }

    /// How it is doing.
    pub(crate) fn status(&self) -> AttachmentStatus {
        let counters = &self.counters;
        let paused = match &self.guest {
            Guest::Unavailable(error) => Some(error.to_wire().message),
            Guest::Transform(_) | Guest::Partitioner(_) => self.breaker.reason(Instant::now()),
        };
        AttachmentStatus {
            limits: self.limits_in_force(),
            on_error: self.on_error.clone(),
            paused,
            records_failed: counters.records_failed.load(Ordering::Relaxed),
            module: self.module.as_ref().to_owned(),
            version: Some(self.version).filter(|version| *version > 0),
            pinned: self.pinned,
            sha256: self.sha256.clone(),
            on: self.on,
            view: self.view.as_deref().map(str::to_owned),
            params: self.params.iter().cloned().collect(),
            records_in: counters.records_in.load(Ordering::Relaxed),
            records_out: counters.records_out.load(Ordering::Relaxed),
            records_dropped: counters.records_dropped.load(Ordering::Relaxed),
            records_changed: counters.records_changed.load(Ordering::Relaxed),
            batches: counters.batches.load(Ordering::Relaxed),
            failures: counters.failures.load(Ordering::Relaxed),
        }
    }

    /// What it may use, where it runs.
    fn limits_in_force(&self) -> AttachLimits {
        let limits = match &self.guest {
            Guest::Transform(transform) => transform.limits(),
            Guest::Partitioner(partitioner) => partitioner.limits(),
            Guest::Unavailable(_) => return self.limits.clone(),
        };
        AttachLimits {
            memory_bytes: Some(limits.memory_bytes as u64),
            time_ms: u64::try_from(limits.time.as_millis()).ok(),
            output_bytes: Some(limits.output_bytes as u64),
            log_bytes_per_second: Some(limits.log_bytes_per_second),
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
        self.admit(topic)?;
        let result = match &self.guest {
            Guest::Partitioner(partitioner) => {
                partitioner.run(&info, &records.section, partitions).map_err(|source| self.guest_error(topic, source))
            }
            other => Err(self.unavailable(topic, other)),
        };
        let all_kept = Difference { records_out: u64::from(info.record_count), dropped: 0, changed: 0 };
        match &result {
            Ok(_) => self.breaker.worked(),
            Err(error) => self.has_failed(topic, error),
        }
        self.note(topic, info.record_count, result.as_ref().map(|_| &all_kept));
        result
    }

    /// Whether a batch may go to the module now.
    pub(super) fn admit(&self, topic: &Arc<str>) -> Result<(), EngineError> {
        self.breaker.admit(Instant::now()).map_err(|Paused { failures, seconds, reason }| EngineError::ModulePaused {
            topic: Arc::clone(topic),
            module: Arc::clone(&self.module),
            failures,
            seconds,
            reason,
        })
    }

    /// Nothing of a batch went through.
    pub(super) fn has_failed(&self, topic: &Arc<str>, error: &EngineError) {
        if let Some(pause) = self.breaker.failed(error, Instant::now()) {
            tracing::warn!(topic = &**topic, module = &*self.module, ?pause, "a module that keeps failing is paused");
        }
    }

    /// Gives it records, as a share of the processor time that it has for a whole batch.
    pub(super) fn transform(&self, info: &BatchInfo<'_>, section: &[u8], share: Share) -> Result<Vec<u8>, EngineError> {
        let topic: &str = info.topic;
        match &self.guest {
            Guest::Transform(transform) => {
                let time = share.of(transform.limits().time);
                transform.run_within(info, section, time).map_err(|source| self.guest_error(&Arc::from(topic), source))
            }
            other => Err(self.unavailable(&Arc::from(topic), other)),
        }
    }

    /// The time that it has for one batch; none where it is not a transform that runs.
    pub(super) fn time(&self) -> Option<Duration> {
        match &self.guest {
            Guest::Transform(transform) => Some(transform.limits().time),
            Guest::Partitioner(_) | Guest::Unavailable(_) => None,
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

/// A part of the records of a batch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Share {
    pub(super) records: usize,
    pub(super) of: usize,
}

impl Share {
    pub(super) const WHOLE: Share = Share { records: 1, of: 1 };

    /// As much of the time as of the records, but enough for one.
    fn of(self, time: Duration) -> Duration {
        let (records, of) = (u32::try_from(self.records).unwrap_or(u32::MAX), u32::try_from(self.of.max(1)).unwrap_or(u32::MAX));
        if records >= of { time } else { (time / of * records).max(PART_TIME_MIN).min(time) }
    }
}

impl Counters {
    /// Counts the records of a batch that is counted as failed, where some of them went on.
    pub(super) fn count_failed(&self, failed: u64, others: &Difference) {
        self.records_failed.fetch_add(failed, Ordering::Relaxed);
        self.count_difference(others);
    }

    fn count_difference(&self, difference: &Difference) {
        self.records_out.fetch_add(difference.records_out, Ordering::Relaxed);
        self.records_dropped.fetch_add(difference.dropped, Ordering::Relaxed);
        self.records_changed.fetch_add(difference.changed, Ordering::Relaxed);
    }

    /// Counts one batch; no difference means that the module failed on it.
    fn count(&self, records_in: u64, difference: Option<&Difference>) {
        self.batches.fetch_add(1, Ordering::Relaxed);
        self.records_in.fetch_add(records_in, Ordering::Relaxed);
        match difference {
            Some(difference) => self.count_difference(difference),
            None => {
                self.failures.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// What a part of a batch has at least, however small.
const PART_TIME_MIN: Duration = Duration::from_millis(10);

/// How often the log is told that a module fails.
const FAILURE_LOG_INTERVAL: Duration = Duration::from_secs(1);

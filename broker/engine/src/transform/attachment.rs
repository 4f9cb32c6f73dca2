//! A module on a topic: the guest, and how what it does is counted and told ([`AttachmentMeters`]).

use super::{
    Records,
    breaker::{Breaker, Paused},
    difference::Difference,
};
use crate::{
    clock::{Clock, SystemClock},
    derive::{Derivation, StoredDerive},
    error::{EngineError, FailedAt},
    meters::{AttachmentMeters, Failure, Said},
};
use millpond_plugin::{BatchInfo, Derive, Interrupt, Partitioner, PluginError, Transform};
use millpond_protocol::{
    batch::BatchHeader,
    message::{AttachLimits, AttachPoint, AttachmentStatus, BatchCoordinates, LogLevel, OnError},
    record,
};
use std::{
    sync::Arc,
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
    /// On derive: what it was granted, and where it writes to.
    pub(crate) derive: Option<StoredDerive>,
    pub(crate) guest: Guest,
    pub(crate) breaker: Breaker,
    /// Ends what this one is at, when another one has taken its place.
    pub(crate) interrupt: Interrupt,
    pub(crate) lasting: Lasting,
}

/// What an attachment leaves to the one that takes its place: with another version of the module, or with other settings.
#[derive(Clone, Debug)]
pub(crate) struct Lasting {
    pub(crate) meters: Arc<AttachmentMeters>,
    /// Ends what the module is at, in whatever version.
    pub(crate) interrupt: Interrupt,
    /// On derive.
    pub(crate) derivation: Option<Arc<Derivation>>,
}

/// The module itself.
pub(crate) enum Guest {
    Transform(Transform),
    Partitioner(Partitioner),
    Derive(Derive),
    /// It could not be loaded when the broker started. Batches get this error: storing them as if the module had run would
    /// keep what it was meant to drop or mask.
    Unavailable(EngineError),
}

impl std::fmt::Debug for Guest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Guest::Transform(_) => "Transform",
            Guest::Partitioner(_) => "Partitioner",
            Guest::Derive(_) => "Derive",
            Guest::Unavailable(_) => "Unavailable",
        })
    }
}

/// A batch at a module: which one it is, and since when it is there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Visit<'a> {
    pub(crate) topic: &'a Arc<str>,
    pub(crate) partition: Option<u32>,
    /// Records that the module is given.
    pub(crate) records: u32,
    /// Of the batch as it came.
    pub(crate) header: &'a BatchHeader,
    /// It has its offsets.
    pub(crate) is_stored: bool,
    pub(crate) begun: Instant,
}

impl Visit<'_> {
    fn coordinates(&self) -> BatchCoordinates {
        let header = self.header;
        let has_producer = header.producer_id >= 0;
        BatchCoordinates {
            records: self.records,
            base_timestamp_ms: header.base_timestamp,
            base_offset: self.is_stored.then_some(header.base_offset),
            producer_id: has_producer.then_some(header.producer_id),
            base_sequence: has_producer.then_some(header.base_sequence),
        }
    }
}

impl Attachment {
    /// Whether it is this one: a module is in one place once.
    pub(crate) fn is(&self, module: &str, on: AttachPoint, view: Option<&str>) -> bool {
        *self.module == *module && self.on == on && self.view.as_deref() == view
    }

    /// How it is doing. A list of topics gets no more than the counts.
    pub(crate) fn status(&self, is_list: bool) -> AttachmentStatus {
        let paused = match &self.guest {
            Guest::Unavailable(error) => Some(error.to_wire().message),
            Guest::Transform(_) | Guest::Partitioner(_) | Guest::Derive(_) => self.breaker.reason(Instant::now()),
        };
        let mut status = AttachmentStatus {
            limits: self.limits_in_force(),
            on_error: self.on_error.clone(),
            paused,
            version: Some(self.version).filter(|version| *version > 0),
            pinned: self.pinned,
            sha256: self.sha256.clone(),
            view: self.view.as_deref().map(str::to_owned),
            params: self.params.iter().cloned().collect(),
            ..AttachmentStatus::new(&*self.module, self.on)
        };
        let output_bytes_max = status.limits.output_bytes.unwrap_or(0);
        let derived = self.lasting.derivation.as_ref().zip(self.derive.as_ref());
        status.derived = derived.map(|(derivation, settings)| derivation.status(settings, output_bytes_max));
        self.lasting.meters.tell(&mut status, is_list);
        status.work.memory_bytes_peak = self.memory_bytes_peak();
        status.work.busy_ms =
            self.busy_for().filter(|time| *time >= BUSY_TOLD).and_then(|time| u64::try_from(time.as_millis()).ok()).unwrap_or(0);
        status
    }

    /// How long it is at the batch that it is at for longest.
    pub(crate) fn busy_for(&self) -> Option<Duration> {
        match &self.guest {
            Guest::Transform(transform) => transform.busy_for(),
            Guest::Partitioner(partitioner) => partitioner.busy_for(),
            Guest::Derive(derive) => derive.busy_for(),
            Guest::Unavailable(_) => None,
        }
    }

    /// The most memory that an instance of it had after a call, whatever version it was.
    pub(crate) fn memory_bytes_peak(&self) -> u64 {
        let of_guest = match &self.guest {
            Guest::Transform(transform) => transform.memory_bytes_peak(),
            Guest::Partitioner(partitioner) => partitioner.memory_bytes_peak(),
            Guest::Derive(derive) => derive.memory_bytes_peak(),
            Guest::Unavailable(_) => 0,
        };
        self.lasting.meters.note_memory(of_guest as u64)
    }

    /// What it may use, where it runs.
    fn limits_in_force(&self) -> AttachLimits {
        let limits = match &self.guest {
            Guest::Transform(transform) => transform.limits(),
            Guest::Partitioner(partitioner) => partitioner.limits(),
            Guest::Derive(derive) => derive.limits(),
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
        header: &BatchHeader,
        partitions: u32,
    ) -> Result<Vec<u32>, EngineError> {
        let info = BatchInfo { topic, partition: None, base_timestamp: header.base_timestamp, record_count: records.count() };
        self.admit(topic)?;
        let visit = Visit { topic, partition: None, records: info.record_count, header, is_stored: false, begun: Instant::now() };
        let result = match &self.guest {
            Guest::Partitioner(partitioner) => {
                let result = partitioner.run(&info, &records.section, partitions);
                result.map_err(|source| self.guest_error(topic, records.deltas(header).place(None, &records.section, &source), source))
            }
            other => Err(self.unavailable(topic, other)),
        };
        match &result {
            Ok(_) => self.passed(&visit, &Difference { records_out: u64::from(info.record_count), dropped: 0, changed: 0 }),
            Err(error) => self.refused(&visit, error),
        }
        result
    }

    /// Whether what it is at was ended: another one has taken its place, or nobody wants anything of it any more.
    pub(crate) fn is_interrupted(&self) -> bool {
        self.interrupt.is_raised()
    }

    /// Whether nobody wants anything of it any more, in whatever version and with whatever settings.
    pub(crate) fn is_over(&self) -> bool {
        self.lasting.interrupt.is_raised()
    }

    /// Whether a batch may go to the module now.
    pub(crate) fn admit(&self, topic: &Arc<str>) -> Result<(), EngineError> {
        self.breaker.admit(Instant::now()).map_err(|Paused { failures, seconds, reason }| EngineError::ModulePaused {
            topic: Arc::clone(topic),
            module: Arc::clone(&self.module),
            failures,
            seconds,
            reason,
        })
    }

    /// Nothing of a batch went through.
    fn has_failed(&self, topic: &Arc<str>, error: &EngineError) {
        if let Some(pause) = self.breaker.failed(error, Instant::now()) {
            tracing::warn!(topic = &**topic, module = &*self.module, ?pause, "a module that keeps failing is paused");
        }
    }

    /// Gives it records, as a share of the processor time that it has for a whole batch.
    pub(super) fn transform(&self, info: &BatchInfo<'_>, section: &[u8], deltas: Deltas, share: Share) -> Result<Vec<u8>, EngineError> {
        let topic = || Arc::from(info.topic);
        match &self.guest {
            Guest::Transform(transform) => {
                let time = share.of(transform.limits().time);
                let result = transform.run_within(info, section, time);
                result.map_err(|source| self.guest_error(&topic(), deltas.place(info.partition, section, &source), source))
            }
            other => Err(self.unavailable(&topic(), other)),
        }
    }

    /// The time that it has for one batch; none where it is not a transform that runs.
    pub(super) fn time(&self) -> Option<Duration> {
        match &self.guest {
            Guest::Transform(transform) => Some(transform.limits().time),
            Guest::Derive(derive) => Some(derive.limits().time),
            Guest::Partitioner(_) | Guest::Unavailable(_) => None,
        }
    }

    /// What it may return for one batch, in bytes.
    pub(super) fn output_bytes(&self) -> usize {
        match &self.guest {
            Guest::Transform(transform) => transform.limits().output_bytes,
            Guest::Derive(derive) => derive.limits().output_bytes,
            Guest::Partitioner(partitioner) => partitioner.limits().output_bytes,
            Guest::Unavailable(_) => 0,
        }
    }

    /// The batch went through.
    pub(crate) fn passed(&self, visit: &Visit<'_>, difference: &Difference) {
        self.breaker.worked();
        self.lasting.meters.passed(visit.records, difference, visit.begun.elapsed());
    }

    /// The module failed on the batch, and nothing of it goes on.
    pub(crate) fn refused(&self, visit: &Visit<'_>, error: &EngineError) {
        if matches!(error, EngineError::Guest { source, .. } if **source == PluginError::Interrupted) {
            return;
        }
        self.has_failed(visit.topic, error);
        self.lasting.meters.refused(visit.records, error, visit.begun.elapsed());
        self.tell(visit, error);
    }

    /// The module failed on the batch with this error first, and so many of its records were left out; `passed` others went through. Those
    /// that are left out as dead letters are counted once it is known what becomes of them ([`crate::dead_letters::Tally`]).
    pub(crate) fn taken_apart(&self, visit: &Visit<'_>, first: &EngineError, left_out: u64, passed: usize, others: &Difference) {
        if passed == 0 {
            self.has_failed(visit.topic, first);
        } else {
            self.breaker.worked();
        }
        let skipped = if self.on_error.dead_letter_topic().is_some() { 0 } else { left_out };
        self.lasting.meters.taken_apart(visit.records, first, skipped, others, visit.begun.elapsed());
        self.tell(visit, first);
    }

    /// Tells the log of the attachment of a failure, and that of the broker now and then.
    fn tell(&self, visit: &Visit<'_>, error: &EngineError) {
        let (now, batch, wire) = (Instant::now(), visit.coordinates(), error.to_wire());
        let backtrace = match error {
            EngineError::Guest { source, .. } => source.backtrace(),
            _ => None,
        };
        if self.lasting.meters.is_failure_told(now) {
            tracing::warn!(
                topic = &**visit.topic,
                partition = visit.partition,
                module = &*self.module,
                version = self.version,
                on = %self.on,
                view = self.view.as_deref(),
                batch = batch.to_string(),
                failures = self.lasting.meters.failures(),
                error = wire.message,
                backtrace,
                "a module failed on a batch"
            );
        }
        let failure = Failure { code: wire.code.name(), batch, backtrace: backtrace.map(str::to_owned), left_out: 0 };
        let said = Said { level: LogLevel::Error, partition: visit.partition, version: self.version, message: wire.message };
        self.lasting.meters.log.add_failure(SystemClock.now_ms(), now, said, failure);
    }

    pub(crate) fn guest_error(&self, topic: &Arc<str>, at: FailedAt, source: PluginError) -> EngineError {
        EngineError::Guest { topic: Arc::clone(topic), module: Arc::clone(&self.module), at, source: Arc::new(source) }
    }

    pub(crate) fn unavailable(&self, topic: &Arc<str>, guest: &Guest) -> EngineError {
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

/// What the offset deltas of records stand for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Deltas {
    /// Offsets, from this one on.
    Offsets(i64),
    /// The numbers of the records in their producer's batch.
    Records,
    /// Nothing any more.
    Nothing,
}

impl Deltas {
    /// Where a module has failed that was given these records.
    pub(crate) fn place(self, partition: Option<u32>, section: &[u8], error: &PluginError) -> FailedAt {
        let at_fault = if let PluginError::Guest { record_index, .. } = error { *record_index } else { None };
        let delta_of = |index: u32| record::iterate(section).nth(index as usize).and_then(Result::ok).map(|record| record.offset_delta);
        let delta = at_fault.and_then(delta_of);
        match (self, partition) {
            (Deltas::Offsets(base_offset), Some(partition)) => {
                let offset = |delta: i32| base_offset.saturating_add(i64::from(delta));
                match delta {
                    Some(delta) => FailedAt::Offset { offset: offset(delta), partition },
                    None => FailedAt::From { offset: offset(delta_of(0).unwrap_or(0)), partition },
                }
            }
            (Deltas::Records, _) => delta.map_or(FailedAt::Somewhere, FailedAt::Record),
            (Deltas::Offsets(_) | Deltas::Nothing, _) => FailedAt::Somewhere,
        }
    }
}

/// A part of the records of a batch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Share {
    pub(crate) records: usize,
    pub(crate) of: usize,
}

impl Share {
    pub(crate) const WHOLE: Share = Share { records: 1, of: 1 };

    /// As much of the time as of the records, but enough for one.
    pub(crate) fn of(self, time: Duration) -> Duration {
        let (records, of) = (u32::try_from(self.records).unwrap_or(u32::MAX), u32::try_from(self.of.max(1)).unwrap_or(u32::MAX));
        if records >= of { time } else { (time / of * records).max(PART_TIME_MIN).min(time) }
    }
}

/// A module that is at a batch for so long is told to be.
const BUSY_TOLD: Duration = Duration::from_secs(1);

/// What a part of a batch has at least, however small.
const PART_TIME_MIN: Duration = Duration::from_millis(10);

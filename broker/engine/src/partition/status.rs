//! What a partition says of itself: to `topic describe`, to the metrics, to a probe.
//!
//! Nothing here is asked of the log's one writer, which may be in the middle of a write: what it has to tell is left in these notes, and
//! only where something is out of the ordinary.

use super::Partition;
use crate::error::{EngineError, StorageBound};
use millpond_log::{Compacted, LogError, LogReader, Progress};
use millpond_protocol::message::{CompactionStatus, KnownDamage, PartitionInfo, Refused, Refusing};
use std::sync::Arc;

/// Why a partition takes nothing until the broker starts again.
#[derive(Clone, Debug)]
pub(super) struct Stopped {
    pub(super) cause: String,
    /// What a person can do about it.
    pub(super) hint: String,
}

/// Batches that were refused for want of room, since the broker started.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    counted: Refused,
    /// None once a batch was taken again.
    last: Option<Refusal>,
}

#[derive(Clone, Debug)]
struct Refusal {
    bound: StorageBound,
    batch_bytes: u64,
    /// What the disk said.
    source: Option<Arc<LogError>>,
    /// By the monotonic clock.
    at_ms: i64,
}

/// What came of compaction since the broker started.
#[derive(Debug, Default)]
pub(super) struct CompactionLog {
    progress: Progress,
    passes: u64,
    failures: u64,
    bytes_read: u64,
    bytes_written: u64,
    bytes_removed: u64,
    /// When a pass came to its end, by the monotonic clock.
    ended_ms: Option<i64>,
    /// Why the last one did not, and when the next one is tried.
    put_off: Option<(String, i64)>,
}

/// How much of a partition is told. An answer about all topics has to fit where each of 20,000 partitions has something to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Extent {
    /// What a list of topics shows.
    List,
    /// And what is counted: for the metrics.
    Counts,
    /// And every cause and hint.
    All,
}

/// What is the same for all partitions of a topic, looked at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Look {
    pub(crate) extent: Extent,
    /// The topic is compacted.
    pub(crate) compacts: bool,
    /// The reserve is there, or none is kept.
    pub(crate) reserve_held: bool,
}

impl Stopped {
    /// The log could not be opened.
    pub(super) fn at_opening(error: &EngineError) -> Stopped {
        let cause = match error {
            // Which partition it is about is said beside it.
            EngineError::LogNotOpened { source, .. } => source.chain(),
            _ => error.to_wire().message,
        };
        Stopped { cause, hint: error.hint().unwrap_or_default() }
    }

    /// A write or a flush failed, or a job panicked.
    pub(super) fn while_open(cause: &str) -> Stopped {
        Stopped { cause: cause.to_owned(), hint: STOPPED_HINT.to_owned() }
    }
}

impl Refusals {
    /// Counts batches that were refused with this error, an [`EngineError::Full`].
    pub(super) fn add(&mut self, error: &EngineError, batches: usize, now_ms: i64) {
        let EngineError::Full { shortage, source, .. } = error else { return };
        let counter = match shortage.bound {
            StorageBound::Topic => &mut self.counted.topic,
            StorageBound::Node => &mut self.counted.node,
            StorageBound::Disk => &mut self.counted.disk,
        };
        *counter += batches as u64;
        self.last = Some(Refusal { bound: shortage.bound, batch_bytes: shortage.batch_bytes, source: source.clone(), at_ms: now_ms });
    }

    /// A batch was taken.
    pub(super) fn is_over(&mut self) {
        self.last = None;
    }

    /// Whether the disk had no room for the last batch.
    pub(super) fn wait_for_disk(&self) -> bool {
        self.last.as_ref().is_some_and(|last| last.bound == StorageBound::Disk)
    }

    /// The disk has so much free by now. Where such a batch fits well, it is not refused any more, as far as that can be said without one.
    pub(super) fn disk_has(&mut self, free_bytes: u64) {
        self.last.take_if(|last| last.bound == StorageBound::Disk && free_bytes >= last.batch_bytes.saturating_add(SPARE_BYTES));
    }
}

impl CompactionLog {
    /// After a look at what there is to do.
    pub(super) fn saw(&mut self, progress: Progress) {
        self.progress = progress;
    }

    /// After a step of a pass.
    pub(super) fn add(&mut self, before: Compacted, after: Compacted) {
        self.bytes_read += after.bytes_read.saturating_sub(before.bytes_read);
        self.bytes_written += after.bytes_written.saturating_sub(before.bytes_written);
        self.bytes_removed += before.bytes_after.saturating_sub(after.bytes_after);
    }

    /// A pass came to its end.
    pub(super) fn ended(&mut self, progress: Progress, now_ms: i64) {
        (self.progress, self.ended_ms, self.put_off) = (progress, Some(now_ms), None);
        self.passes += 1;
    }

    /// A pass did not, or could not begin.
    pub(super) fn failed(&mut self, progress: Progress, cause: String, retry_ms: i64) {
        (self.progress, self.put_off) = (progress, Some((cause, retry_ms)));
        self.failures += 1;
    }

    /// A look has found that there is not enough to do: nothing is put off any more, unless nothing can be done at all.
    pub(super) fn has_nothing_to_do(&mut self) {
        if !self.progress.is_stuck && !self.progress.waits_for_deletion {
            self.put_off = None;
        }
    }

    /// What is dirty is counted now: segments are closed, and deleted, between two looks.
    fn status(&self, reader: Option<&LogReader>, now_ms: i64) -> CompactionStatus {
        let retry_ms = self.put_off.as_ref().map(|(_, retry_ms)| *retry_ms).filter(|_| !self.progress.is_stuck);
        CompactionStatus {
            compacted_to: self.progress.compacted_to,
            dirty_bytes: reader.map_or(0, |reader| reader.closed_bytes_from(self.progress.dirty_from)),
            passes: self.passes,
            failures: self.failures,
            bytes_read: self.bytes_read,
            bytes_written: self.bytes_written,
            bytes_removed: self.bytes_removed,
            seconds_since_pass: self.ended_ms.map(|at_ms| seconds(at_ms, now_ms)),
            failure: self.put_off.as_ref().map(|(cause, _)| cause.clone()),
            retry_seconds: retry_ms.map(|at_ms| seconds(now_ms, at_ms)),
        }
    }
}

impl Partition {
    /// What is known of it, and what has become of its batches.
    pub(crate) fn info(&self, look: Look) -> (PartitionInfo, Refused) {
        let watermarks = self.watermarks();
        let stopped = self.failure.lock().clone();
        let (refused, refusal) = {
            let refusals = self.refusals.lock();
            (refusals.counted, refusals.last.clone())
        };
        let reader = self.reader().ok();
        let damage = reader.and_then(LogReader::known_damage);
        let refusing = if stopped.is_some() { None } else { self.refusing(refusal, look) };
        let (failure, failure_hint) = stopped.map(|stopped| (stopped.cause, stopped.hint)).unzip();
        let has_words = look.extent == Extent::All;
        let mut compaction = None;
        if look.compacts && look.extent >= Extent::Counts {
            let status = self.compaction_log.lock().status(reader, self.services.clock.monotonic_ms());
            compaction = Some(CompactionStatus { failure: status.failure.filter(|_| has_words), ..status });
        }
        let info = PartitionInfo {
            partition: self.number,
            log_start: watermarks.log_start,
            high_watermark: watermarks.high_watermark,
            log_end: watermarks.log_end,
            size_bytes: self.size_bytes(),
            failure,
            failure_hint: failure_hint.filter(|_| has_words),
            unreadable: reader.is_none(),
            refusing,
            damage: damage.map(|damage| KnownDamage { ranges: damage.ranges as u64, first_offset: damage.first_offset }),
            compaction,
        };
        (info, refused)
    }

    /// Whether a batch such as the one that was refused last would be refused again, as far as that can be said without trying.
    fn refusing(&self, refusal: Option<Refusal>, look: Look) -> Option<Refusing> {
        let (refusal, seconds_ago) = match refusal {
            Some(refusal) => {
                let ago = seconds(refusal.at_ms, self.services.clock.monotonic_ms());
                (refusal, Some(ago))
            }
            None if look.reserve_held => return None,
            None => (Refusal { bound: StorageBound::Disk, batch_bytes: 0, source: None, at_ms: 0 }, None),
        };
        let level = match refusal.bound {
            StorageBound::Topic => Some(self.space.level()),
            StorageBound::Node => Some(self.space.node().level()),
            // How much room a full disk has is seen by trying, and by the look once in a while.
            StorageBound::Disk => None,
        };
        let has_room = level.is_some_and(|level| level.quota.is_none_or(|quota| level.used.saturating_add(refusal.batch_bytes) <= quota));
        if has_room && look.reserve_held {
            return None;
        }
        let bound = if has_room { StorageBound::Disk } else { refusal.bound };
        let refusing = Refusing { bound: name_of(bound).to_owned(), seconds_ago, ..Refusing::default() };
        if look.extent < Extent::All {
            return Some(refusing);
        }
        let error = self.full(bound, refusal.batch_bytes, None);
        let EngineError::Full { shortage, .. } = &error else { return None };
        let said = refusal.source.map(|source| format!(": {}", source.chain())).unwrap_or_default();
        Some(Refusing { reason: format!("{shortage}{said}"), hint: error.hint().unwrap_or_default(), ..refusing })
    }
}

/// What a disk has to have free beside a batch that fits well: files take blocks, and their names do.
const SPARE_BYTES: u64 = 256 << 10;

/// As it is on the wire.
const fn name_of(bound: StorageBound) -> &'static str {
    match bound {
        StorageBound::Topic => "topic",
        StorageBound::Node => "node",
        StorageBound::Disk => "disk",
    }
}

/// Whole seconds between two moments.
fn seconds(from_ms: i64, to_ms: i64) -> u64 {
    to_ms.saturating_sub(from_ms).max(0).unsigned_abs() / 1_000
}

const STOPPED_HINT: &str =
    "records are still served; check the disk, then start the broker again: it looks at the last segments before it writes behind them";

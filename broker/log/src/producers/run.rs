//! Batches that are to be appended together, admitted one by one.

use std::collections::HashMap;

use millpond_protocol::batch::BatchHeader;

use super::judge::{SequenceError, SequenceOrder, Verdict, is_valid, judge};
use super::producer::{Appended, Producer, ProducerBatch, ProducerState};
use super::table::Producers;
use crate::append_times::Now;
use crate::log::Log;

/// What a log will remember of its producers once the batches are appended that were admitted. Dropping it changes nothing.
#[derive(Debug)]
#[must_use = "the log remembers what was admitted when the run is settled"]
pub struct AppendRun {
    now: Now,
    /// The base offset of the next batch that is admitted.
    next_offset: i64,
    uses: u64,
    has_skipped: bool,
    /// The producers of its batches, as they will be.
    touched: HashMap<i64, Producer>,
}

/// What to do with a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Append it.
    Append {
        /// The base offset that it will get, if the batches of the run are appended in the order in which they were admitted, and nothing
        /// else is before.
        base_offset: i64,
    },
    /// It was appended before, or stands before this one in the run: answer with that.
    Repeated(Appended),
    /// Nothing of it need be stored: answer with the offsets -1. Its sequence is noted, and kept over a stop in order; a crash forgets it,
    /// unless a segment was closed since.
    Skip,
}

impl Log {
    /// Begins a run of batches that are to be appended together.
    pub fn begin_run(&mut self, now: Now) -> AppendRun {
        let next_offset = self.log_end();
        self.producers.begin_run(now, next_offset)
    }

    /// Decides whether a batch is appended, by what the log remembers of its producer and what else is in the run. A batch without a
    /// producer id (-1) always is.
    ///
    /// `may_skip` says that there is nothing in the batch to be stored, all its records having been dropped. It is appended all the same
    /// where it is the first of its producer, or epoch: without it no trace of them would be in the log.
    ///
    /// # Errors
    ///
    /// The batch does not follow on what its producer has sent before. The run is as it was.
    pub fn admit(
        &self,
        run: &mut AppendRun,
        header: &BatchHeader,
        order: SequenceOrder,
        may_skip: bool,
    ) -> Result<Admission, SequenceError> {
        self.producers.admit(run, header, order, may_skip)
    }

    /// Takes over what the run has noted, after [`Log::append`] has appended the batches that it admitted, or if there were none to append.
    ///
    /// A run that does not end where the log does is not one that was appended: it is left out of account, and said. What the log has
    /// taken down of the batches itself is true in any case.
    pub fn settle_run(&mut self, run: AppendRun) {
        let log_end = self.log_end();
        self.producers.settle(run, log_end);
    }

    /// Forgets the producers that were not used for too long. [`Log::begin_run`] does it too; this is for a log that nobody appends to.
    pub fn expire_producers(&mut self, now: Now) {
        self.producers.expire(now.monotonic_ms);
    }

    /// What the log remembers of its producers, by producer id. Those that have expired may still be there.
    pub fn producers(&self) -> Vec<ProducerState> {
        self.producers.states()
    }
}

impl Producers {
    pub(super) fn begin_run(&mut self, now: Now, next_offset: i64) -> AppendRun {
        self.expire(now.monotonic_ms);
        AppendRun { now, next_offset, uses: self.uses, has_skipped: false, touched: std::mem::take(&mut self.spare) }
    }

    pub(super) fn admit(
        &self,
        run: &mut AppendRun,
        header: &BatchHeader,
        order: SequenceOrder,
        may_skip: bool,
    ) -> Result<Admission, SequenceError> {
        let (producer_id, epoch) = (header.producer_id, header.producer_epoch);
        if producer_id == NO_PRODUCER_ID {
            return Ok(if may_skip { Admission::Skip } else { run.append(header) });
        }
        if !is_valid(header) {
            return Err(SequenceError::InvalidProducer { producer_id, epoch, found: header.base_sequence });
        }
        let known = run.touched.get(&producer_id).or_else(|| self.get(producer_id, run.now.monotonic_ms));
        let admission = match judge(known, header, order)? {
            Verdict::Repeated(appended) => Admission::Repeated(appended),
            Verdict::New if may_skip && known.is_some_and(|producer| producer.epoch == epoch) => Admission::Skip,
            Verdict::New => run.append(header),
        };
        self.note(run, header, admission);
        Ok(admission)
    }

    /// Notes in the run what was decided.
    fn note(&self, run: &mut AppendRun, header: &BatchHeader, admission: Admission) {
        let Now { wall_ms, monotonic_ms } = run.now;
        let fresh = || self.get(header.producer_id, monotonic_ms).cloned().unwrap_or_else(|| Producer::new(header.producer_epoch));
        let producer = run.touched.entry(header.producer_id).or_insert_with(fresh);
        (producer.used, producer.used_ms) = (run.uses, Some(monotonic_ms));
        run.uses += 1;
        match admission {
            Admission::Repeated(_) => {}
            Admission::Append { base_offset } => {
                producer.add(header.producer_epoch, ProducerBatch::of(header, base_offset, wall_ms));
            }
            Admission::Skip => {
                producer.add(header.producer_epoch, ProducerBatch::of(header, -1, wall_ms));
                run.has_skipped = true;
            }
        }
    }

    pub(super) fn settle(&mut self, run: AppendRun, log_end: i64) {
        if run.next_offset == log_end {
            self.has_skipped |= run.has_skipped;
            self.take_over(run.touched, run.uses);
        } else {
            let next_offset = run.next_offset;
            tracing::error!(next_offset, log_end, "batches were admitted and not appended, or the other way round; the run is left out");
        }
    }
}

impl AppendRun {
    fn append(&mut self, header: &BatchHeader) -> Admission {
        let base_offset = self.next_offset;
        // Where the offsets are used up, the append says so.
        self.next_offset = base_offset.saturating_add(i64::from(header.last_offset_delta)).saturating_add(1);
        Admission::Append { base_offset }
    }
}

/// The producer id of a batch without idempotence.
const NO_PRODUCER_ID: i64 = -1;

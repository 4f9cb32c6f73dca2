//! A turn at the log: what is queued is appended. Runs on the I/O threads, at most one at a time for each partition.

use super::{Entry, Partition, PoisonOnPanic, Tail, flush::Waiting};
use crate::error::EngineError;
use millpond_log::{Admission, Appended, Log, LogError, SequenceError};
use millpond_protocol::{
    batch::BatchHeader,
    message::{Ack, Durability},
};
use std::sync::Arc;

use super::answer::Reply;

/// Answers that are sent once no lock is held.
pub(super) type Answers = Vec<(Reply, Result<Ack, EngineError>)>;

impl Partition {
    /// Queues a turn. The caller has set `turn_scheduled`.
    pub(super) fn schedule_turn(self: &Arc<Self>) {
        let partition = Arc::clone(self);
        self.services.io.spawn(move || partition.turn());
    }

    fn turn(self: &Arc<Self>) {
        let _poison = PoisonOnPanic(self);
        for _ in 0..RUNS_PER_TURN_MAX {
            let mut tail = self.tail.lock();
            let Some(entries) = self.take_run(&mut tail) else { return };
            let mut answers = Answers::with_capacity(entries.len());
            self.append_run(&mut tail, entries, &mut answers);
            self.flush_as_needed(&mut tail, &mut answers);
            let watermarks = tail.watermarks();
            drop(tail);
            // Published first: a producer that has its answer finds the record.
            if let Some(watermarks) = watermarks {
                self.publish(watermarks);
            }
            send_all(answers);
        }
        // There is more, and other partitions want the thread as well.
        self.schedule_turn();
    }

    /// Moves batches from the queue into the tail's run. None when the queue is empty; the next batch then schedules a turn.
    fn take_run(&self, tail: &mut Tail) -> Option<Vec<Entry>> {
        let mut queue = self.queue.lock();
        if queue.batches.is_empty() {
            queue.turn_scheduled = false;
            return None;
        }
        tail.run.clear();
        let mut entries = Vec::with_capacity(queue.batches.len().min(RUN_BATCHES_MAX));
        let mut bytes = 0;
        while bytes < RUN_BYTES_MAX && entries.len() < RUN_BATCHES_MAX {
            let Some(queued) = queue.batches.pop_front() else { break };
            bytes += queued.batch.bytes().len();
            tail.run.push(queued.batch);
            // The room is free again: the bytes leave the memory with this run.
            entries.push(queued.entry);
        }
        Some(entries)
    }

    /// Appends what continues its producer's sequence, and answers the rest by what is known of it.
    fn append_run(&self, tail: &mut Tail, entries: Vec<Entry>, answers: &mut Answers) {
        let Some(log) = &mut tail.log else {
            let error = LogError::Failed { cause: "the log is closed".to_owned() };
            return self.fail_run(tail, error, entries.into_iter().map(|entry| entry.reply), answers);
        };
        let now = self.services.now();
        let (mut run, first_new) = (log.begin_run(now), log.log_end());
        let mut admitted = Vec::with_capacity(entries.len());
        let (mut entries, durability) = (entries.into_iter(), tail.durability);
        tail.run.retain(|batch| {
            // There is one for each batch.
            let Some(entry) = entries.next() else { return false };
            let header = batch.header();
            let admission = log.admit(&mut run, header, entry.order, entry.is_nothing);
            let is_new = matches!(admission, Ok(Admission::Append { .. }));
            match admission {
                Ok(admission) => admitted.push(Admitted::new(admission, header, entry, durability, now.wall_ms)),
                Err(source) => answers.push((entry.reply, Err(self.sequence_error(source)))),
            }
            is_new
        });
        // Only repetitions, perhaps.
        let appended = if tail.run.is_empty() { Ok(first_new) } else { log.append(&tail.run, LEADER_EPOCH) };
        tail.run.clear();
        let error = match appended {
            Ok(_) => {
                log.settle_run(run);
                return tail.answer_or_wait(admitted, answers);
            }
            Err(error) => error,
        };
        // What an earlier run has stored, is stored.
        let (old, new): (Vec<_>, Vec<_>) = admitted.into_iter().partition(|admitted| admitted.is_before(first_new));
        tail.answer_or_wait(old, answers);
        self.fail_run(tail, error, new.into_iter().map(|admitted| admitted.reply), answers);
    }

    fn sequence_error(&self, source: SequenceError) -> EngineError {
        tracing::debug!(topic = %self.topic, partition = self.number, error = %source, "a batch does not continue its producer");
        EngineError::Sequence { topic: Arc::clone(&self.topic), partition: Some(self.number), source }
    }

    /// One write for all, one error for all.
    fn fail_run(&self, tail: &Tail, error: LogError, replies: impl ExactSizeIterator<Item = Reply>, answers: &mut Answers) {
        if tail.log.as_ref().is_some_and(|log| log.failure().is_some()) {
            self.note_failure(&error.chain());
        } else {
            let batches = replies.len();
            tracing::warn!(topic = %self.topic, partition = self.number, error = error.chain(), batches, "an append failed");
        }
        let error = self.log_error(Arc::new(error));
        answers.extend(replies.map(|reply| (reply, Err(error.clone()))));
    }
}

/// A batch that is stored once the append has succeeded, or was before.
struct Admitted {
    ack: Ack,
    /// Everything before this offset must be as durable as the topic asks.
    end_offset: i64,
    is_skipped: bool,
    reply: Reply,
}

impl Admitted {
    fn new(admission: Admission, header: &BatchHeader, entry: Entry, durability: Durability, append_time_ms: i64) -> Admitted {
        let is_skipped = matches!(admission, Admission::Skip);
        let stored = match admission {
            Admission::Append { base_offset } => Appended {
                base_offset,
                last_offset: base_offset + i64::from(header.last_offset_delta),
                append_time_ms,
                records_dropped: entry.records_dropped,
            },
            Admission::Repeated(first) => first,
            Admission::Skip => Appended { base_offset: -1, last_offset: -1, append_time_ms, records_dropped: entry.records_dropped },
        };
        // An empty batch has offsets, and its records have none.
        let shown = |offset| if entry.is_nothing { -1 } else { offset };
        let ack = Ack {
            base_offset: shown(stored.base_offset),
            last_offset: shown(stored.last_offset),
            append_time_ms: stored.append_time_ms,
            topic_epoch: entry.topic_epoch,
            durability,
            records_dropped: stored.records_dropped,
        };
        Admitted { ack, end_offset: stored.last_offset + 1, is_skipped, reply: entry.reply }
    }

    /// Whether it does not depend on what is appended from this offset on.
    fn is_before(&self, offset: i64) -> bool {
        !self.is_skipped && self.end_offset <= offset
    }
}

impl Tail {
    /// Answers what is as durable as the topic asks; the rest waits for a flush.
    fn answer_or_wait(&mut self, admitted: Vec<Admitted>, answers: &mut Answers) {
        let durable_end = match self.durability {
            Durability::Sync => self.log.as_ref().map_or(i64::MAX, Log::durable_end),
            Durability::Interval(_) | Durability::Os => i64::MAX,
        };
        for Admitted { ack, end_offset, reply, .. } in admitted {
            if end_offset <= durable_end {
                answers.push((reply, Ok(ack)));
            } else {
                self.waiting.push_back(Waiting { ack, end_offset, reply });
            }
        }
    }
}

pub(super) fn send_all(answers: Answers) {
    for (reply, answer) in answers {
        reply.send(answer);
    }
}

/// There is one broker, which has led every partition from the start.
const LEADER_EPOCH: i32 = 0;

/// What one append writes at most, give or take a batch. Larger runs gain nothing, and an answer waits for the whole run.
const RUN_BYTES_MAX: usize = 8 << 20;

/// A write takes 1,024 pieces at most on Linux, and a batch has two.
const RUN_BATCHES_MAX: usize = 512;

/// After so many runs the thread goes to another partition.
const RUNS_PER_TURN_MAX: usize = 8;

//! A turn at the log: what is queued is appended. Runs on the I/O threads, at most one at a time for each partition.

use super::{Entry, Partition, PoisonOnPanic, Tail, flush::Waiting};
use crate::error::{EngineError, StorageBound};
use millpond_log::{Admission, AppendRun, Appended, Log, LogError, Now, SequenceError};
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

    /// Moves batches from the queue into the tail's run. None when the queue is empty; the next batch then schedules a turn. None, too, while
    /// the queue waits for room; whoever makes some does.
    fn take_run(&self, tail: &mut Tail) -> Option<Vec<Entry>> {
        let mut queue = self.queue.lock();
        if queue.batches.is_empty() || queue.wait.is_on {
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

    /// Appends what continues its producer's sequence and has room, and answers the rest by what is known of it.
    fn append_run(self: &Arc<Self>, tail: &mut Tail, entries: Vec<Entry>, answers: &mut Answers) {
        let now = self.services.now();
        let entries = match self.admit_run(tail, entries, now, answers) {
            // Nothing is left that needs room.
            Ok(admitted) if admitted.entries.is_empty() => {
                tail.want.is_over();
                return;
            }
            Ok(admitted) => {
                let all = admitted.entries.len();
                let Some(entries) = self.find_room(tail, admitted.entries, answers) else { return };
                if entries.len() == all {
                    return self.append_admitted(tail, Run { entries, ..admitted }, now, answers);
                }
                entries
            }
            Err(entries) => entries,
        };
        // Some of them are back in the queue, and none of the others depends on those.
        match self.admit_run(tail, entries, now, answers) {
            Ok(admitted) => self.append_admitted(tail, admitted, now, answers),
            Err(entries) => self.fail_run(tail, LogError::Failed { cause: "the log is closed".to_owned() }, entries, answers),
        }
    }

    /// Holds the batches against the sequences of their producers. Those that are stored already, and those that can't be, are answered
    /// and taken out of the run. Gives the entries back where there is no log.
    fn admit_run(&self, tail: &mut Tail, entries: Vec<Entry>, now: Now, answers: &mut Answers) -> Result<Run, Vec<Entry>> {
        let Some(log) = &mut tail.log else { return Err(entries) };
        let (mut run, first_new) = (log.begin_run(now), log.log_end());
        let (mut known, mut admissions, mut kept) = (Vec::new(), Vec::with_capacity(entries.len()), Vec::with_capacity(entries.len()));
        let (mut entries, durability) = (entries.into_iter(), tail.durability);
        tail.run.retain(|batch| {
            // There is one for each batch.
            let Some(entry) = entries.next() else { return false };
            match log.admit(&mut run, batch.header(), entry.order, entry.is_nothing) {
                // Where nothing was stored, the first may be one of this run.
                Ok(Admission::Repeated(first)) if (0..first_new).contains(&first.last_offset) => {
                    known.push(Admitted::new(Admission::Repeated(first), batch.header(), entry, durability, now.wall_ms));
                    return false;
                }
                Ok(admission) => {
                    admissions.push(admission);
                    kept.push(entry);
                }
                Err(source) => {
                    answers.push((entry.reply, Err(self.sequence_error(source))));
                    return false;
                }
            }
            true
        });
        tail.answer_or_wait(known.into_iter(), answers);
        Ok(Run { sequences: run, admissions, entries: kept })
    }

    fn append_admitted(self: &Arc<Self>, tail: &mut Tail, admitted: Run, now: Now, answers: &mut Answers) {
        let Run { sequences, admissions, entries } = admitted;
        let is_new = |admission: &Admission| matches!(admission, Admission::Append { .. });
        let all_new = admissions.iter().all(is_new);
        let appended = match &mut tail.log {
            Some(log) if all_new => log.append(&tail.run, LEADER_EPOCH).map(|_| log.settle_run(sequences)),
            // Among them is one that another of the run repeats, or of which nothing need be stored.
            Some(log) => {
                let new = tail.run.iter().zip(&admissions).filter(|(_, admission)| is_new(admission));
                let new: Vec<_> = new.map(|(batch, _)| batch.clone()).collect();
                let appended = if new.is_empty() { Ok(0) } else { log.append(&new, LEADER_EPOCH) };
                appended.map(|_| log.settle_run(sequences))
            }
            None => Err(LogError::Failed { cause: "the log is closed".to_owned() }),
        };
        if let Err(error) = appended {
            return self.fail_run(tail, error, entries, answers);
        }
        if !all_new {
            Partition::recount(tail);
        }
        self.room_was_found(tail);
        let batches = std::mem::take(&mut tail.run);
        let durability = tail.durability;
        let stored = admissions.into_iter().zip(batches.iter().zip(entries));
        let stored = stored.map(|(admission, (batch, entry))| Admitted::new(admission, batch.header(), entry, durability, now.wall_ms));
        tail.answer_or_wait(stored, answers);
        tail.run = batches;
        tail.run.clear();
    }

    fn sequence_error(&self, source: SequenceError) -> EngineError {
        tracing::debug!(topic = %self.topic, partition = self.number, error = %source, "a batch does not continue its producer");
        EngineError::Sequence { topic: Arc::clone(&self.topic), partition: Some(self.number), source }
    }

    /// One write for all, one error for all.
    fn fail_run(self: &Arc<Self>, tail: &mut Tail, error: LogError, entries: Vec<Entry>, answers: &mut Answers) {
        Partition::recount(tail);
        let has_stopped = tail.log.as_ref().is_none_or(|log| log.failure().is_some());
        if matches!(error, LogError::Full { .. }) && !has_stopped {
            return self.out_of_room(tail, StorageBound::Disk, Some(error), entries, answers);
        }
        if tail.log.as_ref().is_some_and(|log| log.failure().is_some()) {
            self.note_failure(&error.chain());
        } else {
            let batches = entries.len();
            tracing::warn!(topic = %self.topic, partition = self.number, error = error.chain(), batches, "an append failed");
        }
        let error = self.log_error(Arc::new(error));
        answers.extend(entries.into_iter().map(|entry| (entry.reply, Err(error.clone()))));
        tail.run.clear();
    }
}

/// Batches that may be appended together, in the order of the run.
struct Run {
    /// What their producers' sequences will be.
    sequences: AppendRun,
    /// One for each batch: appended, or answered with another one of the run, or noted without being stored.
    admissions: Vec<Admission>,
    entries: Vec<Entry>,
}

/// A batch that is stored once the append has succeeded, or was before.
struct Admitted {
    ack: Ack,
    /// Everything before this offset must be as durable as the topic asks.
    end_offset: i64,
    reply: Reply,
}

impl Admitted {
    fn new(admission: Admission, header: &BatchHeader, entry: Entry, durability: Durability, append_time_ms: i64) -> Admitted {
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
        Admitted { ack, end_offset: stored.last_offset + 1, reply: entry.reply }
    }
}

impl Tail {
    /// Answers what is as durable as the topic asks; the rest waits for a flush.
    fn answer_or_wait(&mut self, admitted: impl Iterator<Item = Admitted>, answers: &mut Answers) {
        let durable_end = match self.durability {
            Durability::Sync => self.log.as_ref().map_or(i64::MAX, Log::durable_end),
            Durability::Interval(_) | Durability::Os => i64::MAX,
        };
        for Admitted { ack, end_offset, reply } in admitted {
            if self.durability == Durability::Sync {
                self.promised_end = self.promised_end.max(end_offset);
            }
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

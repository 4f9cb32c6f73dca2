//! A turn at the log: what is queued is appended. Runs on the I/O threads, at most one at a time for each partition.

use super::{Entry, Partition, PoisonOnPanic, Tail, flush::Waiting};
use crate::error::EngineError;
use millpond_log::LogError;
use millpond_protocol::{
    batch::{Batch, BatchHeader},
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

    fn append_run(&self, tail: &mut Tail, entries: Vec<Entry>, answers: &mut Answers) {
        let result = match &mut tail.log {
            Some(log) => log.append(&tail.run, LEADER_EPOCH),
            None => Err(LogError::Failed { cause: "the log is closed".to_owned() }),
        };
        match result {
            Ok(base_offset) => {
                let append_time_ms = self.services.clock.now_ms();
                let headers = tail.run.iter().map(Batch::header);
                let mut next_offset = base_offset;
                for (header, entry) in headers.zip(entries) {
                    let ack = ack(tail.durability, next_offset, append_time_ms, header, &entry);
                    next_offset = ack.last_offset + 1;
                    if tail.durability == Durability::Sync {
                        tail.waiting.push_back(Waiting { ack, reply: entry.reply });
                    } else {
                        answers.push((entry.reply, Ok(ack)));
                    }
                }
            }
            Err(error) => self.fail_run(tail, error, entries, answers),
        }
        tail.run.clear();
    }

    /// One write for all, one error for all.
    fn fail_run(&self, tail: &Tail, error: LogError, entries: Vec<Entry>, answers: &mut Answers) {
        if tail.log.as_ref().is_some_and(|log| log.failure().is_some()) {
            self.note_failure(&error.chain());
        } else {
            tracing::warn!(topic = %self.topic, partition = self.number, error = error.chain(), batches = entries.len(), "an append failed");
        }
        let error = self.log_error(Arc::new(error));
        answers.extend(entries.into_iter().map(|entry| (entry.reply, Err(error.clone()))));
    }
}

fn ack(durability: Durability, base_offset: i64, append_time_ms: i64, header: &BatchHeader, entry: &Entry) -> Ack {
    Ack {
        base_offset,
        last_offset: base_offset + i64::from(header.last_offset_delta),
        append_time_ms,
        topic_epoch: entry.topic_epoch,
        durability,
        records_dropped: entry.records_dropped,
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

//! Group commit: one flush for all that wait, and the next one as soon as it is done. Runs on the flush threads, at most one at a time
//! for each partition, while turns go on.

use super::{Partition, PoisonOnPanic, Tail, answer::Reply, turn::Answers, turn::send_all};
use crate::{
    error::EngineError,
    inflight::{InflightPermit, Reserved},
};
use millpond_log::{Flush, Log, LogError};
use millpond_protocol::message::{Ack, Durability};
use std::{sync::Arc, time::Duration};

/// A batch that is appended, and answered once it is durable.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) ack: Ack,
    /// What is durable up to here.
    pub(super) end_offset: i64,
    pub(super) reply: Reply,
}

impl Partition {
    /// After an append: sees to it that what is not durable yet will be, as the durability asks.
    pub(super) fn flush_as_needed(self: &Arc<Self>, tail: &mut Tail, answers: &mut Answers) {
        // A file with unflushed bytes can't be closed for another. When there are too many of them, no flush is put off.
        let is_crowded = tail.log.as_ref().is_some_and(Log::is_crowded);
        match tail.durability {
            Durability::Interval(interval) if !is_crowded => return self.set_timer(tail, interval),
            Durability::Sync => {}
            Durability::Interval(_) => tail.flush_due = true,
            // Nobody waits, but a closed segment that is not flushed would be read in full by the next recovery.
            Durability::Os => tail.flush_due |= is_crowded || tail.log.as_ref().is_some_and(Log::wants_flush),
        }
        self.start_flush(tail, answers);
    }

    /// Hands a flush to the flush threads if one is wanted and none is running.
    pub(super) fn start_flush(self: &Arc<Self>, tail: &mut Tail, answers: &mut Answers) {
        if tail.flush_running || (tail.waiting.is_empty() && !tail.flush_due) {
            return;
        }
        tail.flush_due = false;
        // Batches may wait from before the durability was changed.
        let flush_all = std::mem::take(&mut tail.flush_all) || !tail.waiting.is_empty();
        let durability = tail.durability;
        let begun = tail.log.as_mut().and_then(|log| match durability {
            // The active segment is the system's business: nobody waits for it, and its sync would hold up the appends to it.
            Durability::Os if !log.is_crowded() && !flush_all => log.begin_flush_closed(),
            Durability::Os | Durability::Sync | Durability::Interval(_) => log.begin_flush(),
        });
        if let Some(flush) = begun {
            tail.flush_running = true;
            let (partition, owed) = (Arc::clone(self), self.open.owe());
            self.services.flush.spawn(move || {
                partition.flush(&flush);
                // Also where no answer waits for the flush, whoever closes the partition does.
                drop(owed);
            });
            return;
        }
        // Nothing is left to flush: what waits is durable already, or never will be.
        let Some(log) = &tail.log else { return };
        let durable_end = log.durable_end();
        let cause = log.failure().unwrap_or("a flush left something behind").to_owned();
        tail.answer_up_to(durable_end, answers);
        if !tail.waiting.is_empty() {
            let error = self.log_error(Arc::new(LogError::Failed { cause }));
            tail.answer_all(&EngineError::NotFlushed(Box::new(error)), answers);
        }
    }

    fn flush(self: &Arc<Self>, flush: &Flush) {
        let _poison = PoisonOnPanic(self);
        let outcome = flush.run();
        let mut answers = Answers::new();
        let mut tail = self.tail.lock();
        tail.flush_running = false;
        match tail.log.as_mut().map(|log| log.end_flush(outcome)) {
            Some(Ok(durable_end)) => tail.answer_up_to(durable_end, &mut answers),
            Some(Err(error)) => {
                if tail.log.as_ref().is_some_and(|log| log.failure().is_some()) {
                    // A failed fsync can't be asked again: the system may have dropped the pages, and the second one says yes.
                    self.note_failure(&error.chain());
                } else {
                    // What waits is not kept waiting for the next append, whose flush will cover it: there may be none.
                    tracing::warn!(topic = %self.topic, partition = self.number, error = error.chain(), "a flush could not be done yet");
                }
                let error = EngineError::NotFlushed(Box::new(self.log_error(Arc::new(error))));
                tail.answer_all(&error, &mut answers);
            }
            // The partition was poisoned in the meantime.
            None => {}
        }
        // The next flush starts before anyone is woken, so the disk is never idle while somebody waits for it.
        self.start_flush(&mut tail, &mut answers);
        let watermarks = tail.watermarks();
        drop(tail);
        if let Some(watermarks) = watermarks {
            self.publish(watermarks);
        }
        self.open.flush_has_ended();
        send_all(answers);
    }

    /// Waits until everything before an offset that was appended is on the disk, whatever the durability; asks for a flush if need be.
    pub(crate) async fn make_durable(self: &Arc<Self>, end_offset: i64) -> Result<(), EngineError> {
        let (reply, receiver) = Reply::new(&self.open, InflightPermit::new(Reserved::nothing()));
        let partition = Arc::clone(self);
        self.services.flush.spawn(move || partition.wait_for_flush(end_offset, reply));
        receiver.await.unwrap_or(Err(EngineError::JobLost { pool: "flush" })).map(|_| ())
    }

    fn wait_for_flush(self: &Arc<Self>, end_offset: i64, reply: Reply) {
        let _poison = PoisonOnPanic(self);
        let mut answers = Answers::new();
        let mut tail = self.tail.lock();
        let ack =
            Ack { base_offset: -1, last_offset: -1, append_time_ms: -1, topic_epoch: 0, durability: Durability::Sync, records_dropped: 0 };
        match tail.log.as_ref().map(|log| end_offset <= log.durable_end()) {
            Some(true) => answers.push((reply, Ok(ack))),
            Some(false) => tail.waiting.push_back(Waiting { ack, end_offset, reply }),
            None => {
                let cause = "the log is closed".to_owned();
                answers.push((reply, Err(self.log_error(Arc::new(LogError::Failed { cause })))));
            }
        }
        self.start_flush(&mut tail, &mut answers);
        let watermarks = tail.watermarks();
        drop(tail);
        if let Some(watermarks) = watermarks {
            self.publish(watermarks);
        }
        send_all(answers);
    }

    /// From the next append on. What is appended is flushed now, whatever was promised of it: the timer of an interval is void, and after a
    /// change to `sync` everything in the log should be durable. What waits for a flush still does.
    pub(crate) fn set_durability(self: &Arc<Self>, durability: Durability) {
        let _poison = PoisonOnPanic(self);
        let mut answers = Answers::new();
        let mut tail = self.tail.lock();
        if std::mem::replace(&mut tail.durability, durability) == durability {
            return;
        }
        tail.timer_epoch += 1;
        tail.timer_set = false;
        (tail.flush_due, tail.flush_all) = (true, true);
        self.start_flush(&mut tail, &mut answers);
        let watermarks = tail.watermarks();
        drop(tail);
        if let Some(watermarks) = watermarks {
            self.publish(watermarks);
        }
        send_all(answers);
    }

    /// Makes a flush due `interval` after the first append that was not flushed. A partition that is not written to has no timer.
    fn set_timer(self: &Arc<Self>, tail: &mut Tail, interval: Duration) {
        if std::mem::replace(&mut tail.timer_set, true) {
            return;
        }
        let (partition, epoch) = (Arc::downgrade(self), tail.timer_epoch);
        self.services.timers.spawn(async move {
            tokio::time::sleep(interval).await;
            if let Some(partition) = partition.upgrade() {
                let services = Arc::clone(&partition.services);
                services.flush.spawn(move || partition.interval_is_over(epoch));
            }
        });
    }

    fn interval_is_over(self: &Arc<Self>, epoch: u64) {
        let _poison = PoisonOnPanic(self);
        let mut answers = Answers::new();
        let mut tail = self.tail.lock();
        if tail.timer_epoch != epoch {
            return;
        }
        tail.timer_set = false;
        tail.flush_due = true;
        self.start_flush(&mut tail, &mut answers);
        drop(tail);
        send_all(answers);
    }
}

impl Tail {
    /// Everything that lies before `durable_end` is stored.
    fn answer_up_to(&mut self, durable_end: i64, answers: &mut Answers) {
        while let Some(waiting) = self.waiting.pop_front_if(|waiting| waiting.end_offset <= durable_end) {
            answers.push((waiting.reply, Ok(waiting.ack)));
        }
    }

    fn answer_all(&mut self, error: &EngineError, answers: &mut Answers) {
        answers.extend(self.waiting.drain(..).map(|waiting| (waiting.reply, Err(error.clone()))));
    }
}

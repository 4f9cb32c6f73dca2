//! What a partition still owes, answers to batches and the end of a flush, and waiting until it owes nothing.

use crate::{error::EngineError, inflight::InflightPermit};
use millpond_protocol::message::Ack;
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};
use tokio::sync::{Notify, futures::Notified, oneshot};

/// How much a partition owes. Its log is not let go before that is nothing.
#[derive(Debug, Default)]
pub(crate) struct Open {
    /// Answers, and the flush that is under way.
    count: AtomicUsize,
    none_left: Notify,
    /// A flush has ended.
    flushed: Notify,
}

/// The answer that is owed to one batch. Dropped without being sent, it leaves the asker with [`EngineError::JobLost`].
#[derive(Debug)]
pub(crate) struct Reply {
    sender: oneshot::Sender<Result<Ack, EngineError>>,
    _permit: InflightPermit,
    // Last: a batch counts as open until its answer is on its way.
    _owed: Owed,
}

/// One thing that is owed, until it is dropped.
#[derive(Debug)]
pub(crate) struct Owed(Arc<Open>);

impl Reply {
    pub(crate) fn new(open: &Arc<Open>, permit: InflightPermit) -> (Reply, oneshot::Receiver<Result<Ack, EngineError>>) {
        let (sender, receiver) = oneshot::channel();
        (Reply { sender, _permit: permit, _owed: open.owe() }, receiver)
    }

    pub(crate) fn send(self, answer: Result<Ack, EngineError>) {
        // No receiver: the producer has gone; the batch is where it is all the same.
        let _ = self.sender.send(answer);
    }
}

impl Drop for Owed {
    fn drop(&mut self) {
        if self.0.count.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.none_left.notify_waiters();
        }
    }
}

impl Open {
    pub(crate) fn owe(self: &Arc<Self>) -> Owed {
        self.count.fetch_add(1, Ordering::Relaxed);
        Owed(Arc::clone(self))
    }

    /// After a flush.
    pub(crate) fn flush_has_ended(&self) {
        self.flushed.notify_waiters();
    }

    /// Waits for the next end of a flush, from this call on.
    pub(crate) fn flush_ends(&self) -> Notified<'_> {
        self.flushed.notified()
    }

    /// Waits until every answer is sent, and no flush is under way.
    pub(crate) async fn none_left(&self) {
        loop {
            let notified = self.none_left.notified();
            tokio::pin!(notified);
            // Before the look at the count, so that no notification falls in between.
            notified.as_mut().enable();
            if self.count.load(Ordering::Acquire) == 0 {
                return;
            }
            notified.await;
        }
    }
}

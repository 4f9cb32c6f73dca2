//! Batches that fail: those that are too old, those that the broker refused for good, and everything where no stream can be opened.
//!
//! A batch that was sent may be stored in spite of it, and its records are told.

use super::{flight::Outgoing, lane::Task};
use crate::error::Error;
use std::time::Duration;
use tokio::time::Instant;

impl Task {
    /// Gives up the batches that are too old, and says when the next one will be; none if there are no batches.
    pub(super) fn give_up_old(&self, now: Instant, last: Option<&Error>) -> Option<Instant> {
        let mut flight = self.flight.lock();
        let mut accumulator = self.lane.accumulator.lock();
        let oldest = || [flight.oldest(), accumulator.oldest()].into_iter().flatten().min();
        let after = self.shared.settings.delivery_timeout;
        if let Some(limit) = now.checked_sub(after)
            && oldest().is_some_and(|oldest| oldest <= limit)
        {
            let last = || last.cloned().or_else(|| self.patience.lock().refusal.clone()).or_else(|| self.shared.core.link.last_error());
            let last = || last().map(Box::new);
            for batch in flight.take_older(limit) {
                let what = self.describe(batch.records);
                self.shared.settle(&batch, Err(Error::TimedOut { what, after, maybe_done: batch.maybe_stored, last: last() }));
            }
            for sealed in accumulator.take_older(limit) {
                let what = self.describe(sealed.builder.len());
                self.shared.fail(&sealed, Error::TimedOut { what, after, maybe_done: false, last: last() });
            }
        }
        let next = [flight.oldest(), accumulator.oldest()].into_iter().flatten().min();
        // What is being compressed is neither here nor there, and keeps the lane going.
        let next = next.or_else(|| flight.encoding.then_some(now));
        next.map(|oldest| self.deadline(oldest))
    }

    /// No stream can be opened, and that will not change by itself.
    pub(super) fn fail_everything(&self, error: &Error) {
        let mut flight = self.flight.lock();
        for batch in flight.take_waiting() {
            self.fail(&batch, error.clone());
        }
        for sealed in self.lane.accumulator.lock().take_all() {
            self.shared.fail(&sealed, error.clone());
        }
    }

    /// Fails a batch for good. Where an earlier try may have stored it, its records are told that too.
    pub(super) fn fail(&self, batch: &Outgoing, error: Error) {
        let error = if batch.maybe_stored {
            let (what, reason) = (self.describe(batch.records), format!("and sending it again failed: {error}"));
            Error::Unanswered { what, reason, refused: Some(Box::new(error)) }
        } else {
            error
        };
        self.shared.settle(batch, Err(error));
    }

    pub(super) fn deadline(&self, opened_at: Instant) -> Instant {
        opened_at.checked_add(self.shared.settings.delivery_timeout).unwrap_or_else(|| opened_at + FAR)
    }

    pub(super) fn describe(&self, records: u32) -> String {
        let topic = &self.shared.topic;
        match self.lane.partition {
            Some(partition) => format!("storing {records} records in {topic}[{partition}]"),
            None => format!("storing {records} records in {topic}"),
        }
    }
}

/// A time that no batch lives to see: what is meant by a delivery timeout that no clock can count to.
const FAR: Duration = Duration::from_hours(365 * 24);

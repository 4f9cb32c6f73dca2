//! Encoded batches of one partition: those that were sent and are not answered, and those that wait to be sent, first or again.
//!
//! Pure: time is an argument.
//!
//! # Numbers
//!
//! A batch is numbered in the order of the lane, behind the one before it, and keeps its numbers when it is sent again: the broker then
//! recognises what it has. It stores nothing that does not continue the sequence exactly. So once a batch is refused, those behind it in
//! flight are refused too. They are put back, nothing is sent until all that is in flight is answered, and then everything goes again from
//! the first one on. Only with nothing in flight do the numbers begin anew, in the next epoch, and only for one of these reasons:
//!
//! | reason | what may be stored of what waits |
//! |---|---|
//! | a batch does not continue the sequence, and none before it waits | nothing: the broker lacks one before all of them |
//! | the broker knows nothing of the producer, and no batch before waits | what it said it may be: fails as that, the rest is certain |
//! | another producer has the same id (the lane takes another one then) | likewise |
//! | a batch was given up or refused for good, so a number is missing | nothing: else the broker is asked first |
//!
//! Where the broker places the records, a batch has a part in each of several partitions, and the first reason says nothing of those that
//! don't lack anything. What may be stored there fails as that, as for the second reason.
//!
//! A later epoch shuts out whatever the broker may still hold of an earlier one. Until then it is taken for granted that a broker gets to a
//! batch on a stream that is lost before it gets to the same batch on the next one.

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

use super::{
    identity::{Numbers, REMEMBERED_BATCHES},
    pending::Pending,
};
use crate::error::Error;
use bytes::Bytes;
use millpond_protocol::{batch, error::ErrorCode};
use std::{collections::VecDeque, sync::Arc, time::Duration};
use tokio::time::Instant;

/// An encoded batch.
#[derive(Debug)]
pub(crate) struct Outgoing {
    /// As it travels. Kept until it is answered, so that it can be sent again.
    pub(crate) bytes: Bytes,
    pub(crate) pending: Arc<Pending>,
    pub(crate) records: u32,
    /// Bytes that its records took from the producer's buffer.
    pub(crate) charged: usize,
    /// Its place in the order of the partition's batches.
    pub(crate) order: u64,
    /// As in its header; none if the broker does not look at them.
    pub(crate) numbers: Option<Numbers>,
    /// When its first record came.
    pub(crate) opened_at: Instant,
    /// When it was sent last.
    pub(crate) sent_at: Option<Instant>,
    /// It was sent whole, and the answer got lost with the stream.
    pub(crate) maybe_stored: bool,
}

impl Outgoing {
    fn set_numbers(&mut self, numbers: Option<Numbers>) {
        if self.numbers != numbers {
            self.numbers = numbers;
            let Numbers { producer_id, epoch, sequence } = numbers.unwrap_or(Numbers::NONE);
            self.bytes = batch::with_producer(std::mem::take(&mut self.bytes), producer_id, epoch, sequence)
                .unwrap_or_else(|error| unreachable!("it is a batch from the builder: {error}"));
        }
    }
}

/// The encoded batches of one partition, each in its order.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub(crate) struct Flight {
    sent: VecDeque<Slot>,
    waiting: VecDeque<Outgoing>,
    /// The newest of `sent` has not left whole: the broker cannot store it.
    writing: bool,
    /// A batch is being compressed.
    pub(crate) encoding: bool,
    /// The broker asked for patience: nothing is sent before.
    pub(crate) not_before: Option<Instant>,
    last_order: u64,
    /// Those of the batch that is encoded next; none if the broker does not look at numbers.
    numbers: Option<Numbers>,
    /// A batch was refused: those behind it in flight are refused too, and go again before anything else does.
    held: bool,
    /// The newest batch that has numbers and is gone without being known to be stored. One behind it that is stored disproves it.
    hole: Option<u64>,
    restart: Option<Restart>,
    /// The broker places the records.
    is_placed: bool,
    /// The topic of this stream was deleted.
    is_topic_gone: bool,
    /// A batch was stored on this stream.
    is_stream_proven: bool,
}

/// The broker answers in order, so a batch that was given up keeps its place until its answer comes.
#[derive(Debug)]
enum Slot {
    Sent(Outgoing),
    GivenUp { order: u64 },
}

/// Why the numbers have to begin anew, apart from a hole.
#[derive(Debug)]
enum Restart {
    /// The broker lacks a batch that nobody will send it any more.
    Gap(Error),
    /// The broker knows nothing of the producer, so it can't say any more what it has stored.
    Forgotten(Error),
    /// Another producer has the same id.
    Fenced(Error),
}

/// What an answer belongs to.
#[derive(Debug)]
pub(crate) enum Answered {
    Batch(Outgoing),
    /// A batch whose records were told already that it took too long.
    GivenUp {
        order: u64,
    },
    /// There is no batch without an answer.
    Nothing,
}

/// What becomes of a batch that the broker refused.
#[derive(Debug)]
pub(crate) enum Refused {
    /// It is sent again after a pause: the broker asked for patience.
    PutOff,
    /// It is sent again behind one before it, which the broker lacks.
    Behind,
    /// It is sent again under other numbers.
    Anew,
    /// It is sent again on another stream, if there is one to be had.
    Elsewhere,
    /// It fails.
    ForGood(Outgoing),
}

/// What can be sent.
#[derive(Debug)]
pub(crate) enum Ready {
    /// This batch, which waited.
    Batch(Outgoing),
    /// No batch waits: a fresh one can be encoded.
    Fresh,
    /// Nothing until the batches in flight are answered.
    Later,
    /// Nothing on this stream: the lane needs another one, and with it perhaps another producer id.
    Elsewhere,
    /// Nothing before these have failed: they may be stored, and the broker cannot say, for this reason.
    Undecided(Vec<Outgoing>, Error),
}

impl Flight {
    /// That of a lane whose records the broker places.
    pub(crate) fn placed() -> Flight {
        Flight { is_placed: true, ..Flight::default() }
    }

    /// A stream was opened. The lane takes the producer id that came with it, unless it has one.
    pub(crate) fn opened(&mut self, producer_id: Option<i64>) {
        (self.is_topic_gone, self.is_stream_proven) = (false, false);
        if self.numbers.is_none() {
            self.renumber(producer_id.map(Numbers::first));
        }
    }

    /// The place in the order, and the numbers, of the batch that is encoded next.
    pub(crate) fn begin(&mut self) -> (u64, Option<Numbers>) {
        self.last_order += 1;
        (self.last_order, self.numbers)
    }

    /// A batch was encoded. Only now are its numbers taken: those of one that cannot be encoded go to the next.
    pub(crate) fn encoded(&mut self, mut batch: Outgoing) {
        // Others only if the numbers began anew while it was compressed.
        batch.set_numbers(self.numbers);
        self.numbers = self.numbers.map(|numbers| numbers.behind(batch.records));
        if self.numbers.is_some_and(|numbers| numbers.sequence == 0) {
            // A broker that knows nothing of the producer would take the next batch for its first, and ahead of one that waits.
            self.hole = Some(batch.order);
        }
        self.wait(batch);
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.sent.len()
    }

    /// Whether there is nothing to send, to encode or to wait for.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && !self.encoding && !self.is_waited_for()
    }

    /// Whether somebody waits for an answer on this stream.
    pub(crate) fn is_waited_for(&self) -> bool {
        self.sent.iter().any(|slot| matches!(slot, Slot::Sent(_)))
    }

    /// Puts a batch among those to be sent, where its number belongs.
    fn wait(&mut self, batch: Outgoing) {
        let at = self.waiting.partition_point(|other| other.order < batch.order);
        self.waiting.insert(at, batch);
    }

    /// What can be sent now, as far as the order and the numbers are concerned.
    pub(crate) fn next(&mut self) -> Ready {
        if self.is_topic_gone {
            return if self.is_waited_for() { Ready::Later } else { Ready::Elsewhere };
        }
        let anew = self.restart.is_some() || self.hole.is_some() && !self.waiting.iter().any(|batch| batch.maybe_stored);
        if !self.sent.is_empty() && (self.held || anew) {
            // Nobody waits for the answers to what was given up.
            return if self.is_waited_for() { Ready::Later } else { Ready::Elsewhere };
        }
        self.held = false;
        if anew && let Some(first) = self.begin_anew() {
            return first;
        }
        if self.is_out_of_reach() {
            return Ready::Later;
        }
        self.waiting.pop_front().map_or(Ready::Fresh, Ready::Batch)
    }

    /// Whether the broker, were it to store the next batch too, could forget the oldest one in flight. It may have that one from an earlier
    /// try, put this one off all the same, and store what is behind it.
    fn is_out_of_reach(&self) -> bool {
        let oldest = self.sent.iter().find_map(|slot| match slot {
            Slot::Sent(batch) => batch.numbers.map(|_| batch.order),
            Slot::GivenUp { .. } => None,
        });
        let next = self.waiting.front().map_or(self.last_order + 1, |batch| batch.order);
        oldest.is_some_and(|oldest| next >= oldest + REMEMBERED_BATCHES)
    }

    /// Numbers everything that waits from 0 on, in the next epoch. Gives what has to be done before. Nothing is in flight.
    fn begin_anew(&mut self) -> Option<Ready> {
        match &self.restart {
            Some(Restart::Gap(_)) if !self.is_placed => self.waiting.iter_mut().for_each(|batch| batch.maybe_stored = false),
            Some(Restart::Gap(cause) | Restart::Forgotten(cause) | Restart::Fenced(cause))
                if self.waiting.iter().any(|batch| batch.maybe_stored) =>
            {
                let cause = cause.clone();
                let (undecided, certain) = std::mem::take(&mut self.waiting).into_iter().partition(|batch| batch.maybe_stored);
                self.waiting = certain;
                return Some(Ready::Undecided(Vec::from(undecided), cause));
            }
            _ => {}
        }
        let is_fenced = matches!(self.restart, Some(Restart::Fenced(_)));
        let next = self.numbers.filter(|_| !is_fenced).and_then(Numbers::next_epoch);
        self.renumber(next);
        next.is_none().then_some(Ready::Elsewhere)
    }

    fn renumber(&mut self, mut next: Option<Numbers>) {
        for batch in &mut self.waiting {
            batch.set_numbers(next);
            next = next.map(|numbers| numbers.behind(batch.records));
        }
        (self.numbers, self.hole, self.restart) = (next, None, None);
    }

    /// A batch is sent now. It counts as in flight from here on: a broker that finds it too large answers before it has all of it.
    pub(crate) fn send(&mut self, mut batch: Outgoing, now: Instant) {
        batch.sent_at = Some(now);
        self.sent.push_back(Slot::Sent(batch));
        self.writing = true;
    }

    /// The batch that was sent last has left whole.
    pub(crate) fn written(&mut self) {
        self.writing = false;
    }

    /// An answer came: it belongs to the oldest batch in flight. What it says is told with [`Flight::stored`], [`Flight::refused`] or
    /// [`Flight::gone`].
    pub(crate) fn answered(&mut self) -> Answered {
        match self.sent.pop_front() {
            Some(Slot::Sent(batch)) => Answered::Batch(batch),
            Some(Slot::GivenUp { order }) => Answered::GivenUp { order },
            None => Answered::Nothing,
        }
    }

    /// The batch at this place is stored.
    pub(crate) fn stored(&mut self, order: u64) {
        self.is_stream_proven = true;
        // Behind a number that is missing nothing is stored.
        self.hole = self.hole.filter(|hole| *hole > order);
    }

    /// The batch at this place will not be sent again, and is not known to be stored: its numbers may be missing.
    pub(crate) fn gone(&mut self, order: u64) {
        if self.numbers.is_some() {
            self.hole = self.hole.max(Some(order));
            self.held = true;
        }
    }

    /// The broker did not take a batch. One that it asks to send later is put back if `retry` says so.
    pub(crate) fn refused(&mut self, mut batch: Outgoing, error: &Error, retry: bool) -> Refused {
        self.held |= batch.numbers.is_some();
        batch.maybe_stored |= error.maybe_done();
        // Before it in the order, so one that the broker lacks.
        let is_behind = self.waiting.front().is_some_and(|first| first.order < batch.order);
        if error.broker().is_some_and(|error| error.code == ErrorCode::TopicNotFound) {
            // Of the name there may be another one by now: whoever opens a stream to it hears that. Once: this one did store batches.
            self.is_topic_gone = true;
            if self.is_stream_proven {
                self.wait(batch);
                return Refused::Elsewhere;
            }
        }
        let becomes = match error.broker().filter(|_| batch.numbers.is_some()).map(|error| error.code) {
            Some(ErrorCode::OutOfOrderSequence | ErrorCode::UnknownProducerId) if is_behind => Refused::Behind,
            Some(ErrorCode::OutOfOrderSequence) => {
                self.restart.get_or_insert_with(|| Restart::Gap(error.clone()));
                Refused::Anew
            }
            Some(ErrorCode::UnknownProducerId) => {
                self.restart.get_or_insert_with(|| Restart::Forgotten(error.clone()));
                Refused::Anew
            }
            code => {
                if code == Some(ErrorCode::InvalidProducerEpoch) {
                    self.restart = Some(Restart::Fenced(error.clone()));
                } else if error.retryable() && retry {
                    self.wait(batch);
                    return Refused::PutOff;
                }
                // It, or one with its numbers, was stored.
                batch.maybe_stored |= code == Some(ErrorCode::DuplicateSequence);
                self.gone(batch.order);
                return Refused::ForGood(batch);
            }
        };
        self.wait(batch);
        becomes
    }

    /// The stream is gone, and with it all answers. What was in flight is put back, and is stored or not; gives what `keep` does not want
    /// to be sent again.
    pub(crate) fn lost(&mut self, keep: impl Fn(&Outgoing) -> bool) -> Vec<Outgoing> {
        let torn = if std::mem::take(&mut self.writing) { self.sent.pop_back() } else { None };
        // Behind one that is refused for its numbers nothing is stored.
        let all_refused = self.restart.is_some() && !self.is_placed;
        let whole = std::mem::take(&mut self.sent).into_iter().map(|slot| match slot {
            Slot::Sent(batch) => Slot::Sent(Outgoing { maybe_stored: batch.maybe_stored || !all_refused, ..batch }),
            given_up @ Slot::GivenUp { .. } => given_up,
        });
        let mut unwanted = Vec::new();
        for slot in whole.chain(torn) {
            match slot {
                Slot::Sent(batch) if keep(&batch) => self.wait(batch),
                Slot::Sent(batch) => {
                    self.gone(batch.order);
                    unwanted.push(batch);
                }
                Slot::GivenUp { order } => self.gone(order),
            }
        }
        unwanted
    }

    /// When the first record of the oldest batch came.
    pub(crate) fn oldest(&self) -> Option<Instant> {
        let in_flight = self.sent.iter().find_map(|slot| match slot {
            Slot::Sent(batch) => Some(batch.opened_at),
            Slot::GivenUp { .. } => None,
        });
        let waiting = self.waiting.front().map(|batch| batch.opened_at);
        [in_flight, waiting].into_iter().flatten().min()
    }

    /// Takes out the batches whose first record came at `limit` or before.
    pub(crate) fn take_older(&mut self, limit: Instant) -> Vec<Outgoing> {
        let mut older = Vec::new();
        for slot in &mut self.sent {
            let given_up = match slot {
                Slot::Sent(batch) if batch.opened_at <= limit => Slot::GivenUp { order: batch.order },
                _ => continue,
            };
            if let Slot::Sent(batch) = std::mem::replace(slot, given_up) {
                older.push(Outgoing { maybe_stored: true, ..batch });
            }
        }
        while let Some(batch) = self.waiting.pop_front_if(|batch| batch.opened_at <= limit) {
            self.gone(batch.order);
            older.push(batch);
        }
        older
    }

    /// Takes out every batch that waits to be sent.
    pub(crate) fn take_waiting(&mut self) -> Vec<Outgoing> {
        let waiting: Vec<Outgoing> = self.waiting.drain(..).collect();
        for batch in &waiting {
            self.gone(batch.order);
        }
        waiting
    }

    /// The broker asked for patience.
    pub(crate) fn pause(&mut self, now: Instant, delay: Duration) {
        self.not_before = now.checked_add(delay);
    }
}

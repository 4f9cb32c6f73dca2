//! What comes back on a lane's stream: answers, each to the oldest batch in flight, and the end.

use super::{
    flight::{Answered, Flight, Outgoing, Refused},
    lane::Task,
    pending::Answer,
};
use crate::{
    error::Error,
    stream::{Frame, FrameReader, ended, wire_error},
};
use millpond_protocol::{
    frame::Kind,
    message::{Ack, Placements},
};
use std::{pin::pin, time::Duration};
use tokio::time::{Instant, sleep_until};

/// The largest answer to a batch, in bytes of payload.
pub(super) const ANSWER_BYTES_MAX: u32 = 16 << 20;

/// How long answers are waited for on a stream that the broker has stopped. A broker that stops gives its streams as long.
const LAST_ANSWERS_DURATION_MAX: Duration = Duration::from_secs(10);

impl Task {
    /// Matches answers with batches until the stream ends.
    pub(super) async fn read_answers(&self, reader: &mut FrameReader) -> Error {
        loop {
            let frame = match reader.next(ANSWER_BYTES_MAX).await {
                Ok(Some(frame)) => frame,
                Ok(None) => return ended(),
                Err(error) => return error,
            };
            // Held until the answer has its effect: what is sent next depends on it.
            let mut flight = self.flight.lock();
            match flight.answered() {
                Answered::Batch(batch) => {
                    if let Err(error) = self.answer(&mut flight, batch, &frame) {
                        return error;
                    }
                }
                Answered::GivenUp { order } if matches!(frame.kind, Kind::Ack | Kind::Placements) => flight.stored(order),
                Answered::GivenUp { order } => flight.gone(order),
                Answered::Nothing => return Error::Protocol("an answer came for which there is no batch".to_owned()),
            }
            drop(flight);
            self.lane.wake.notify_one();
        }
    }

    /// The broker takes no more on this stream. It still answers what it had read before, and says what was wrong with a batch that it
    /// would not read: a broker that stops, and one that finds a fault, stop the stream first. So the answers are waited for, and only
    /// what is left without one is lost. Gives the reason for that.
    pub(super) async fn read_last_answers(&self, reader: &mut FrameReader, unwritable: Error) -> Error {
        let until = Instant::now() + LAST_ANSWERS_DURATION_MAX;
        let mut answers = pin!(self.read_answers(reader));
        loop {
            let now = Instant::now();
            let deadline = self.give_up_old(now, Some(&unwritable)).map_or(until, |deadline| deadline.min(until));
            if now >= until || !self.flight.lock().is_waited_for() {
                return unwritable;
            }
            tokio::select! {
                biased;
                // Where the connection has ended already, this still reads what had come before.
                error = &mut answers => return if error.retryable() { unwritable } else { error },
                // An answer came, or more records did.
                () = self.lane.wake.notified() => {}
                () = sleep_until(deadline) => {}
            }
        }
    }

    /// Acts on the answer to a batch. An error says that the stream cannot be trusted any more.
    fn answer(&self, flight: &mut Flight, batch: Outgoing, frame: &Frame) -> Result<(), Error> {
        let malformed = |error| Error::Protocol(format!("the answer to a batch is {error}"));
        let answer = match frame.kind {
            Kind::Ack => Ack::decode(&frame.payload).map_err(malformed).and_then(|ack| match self.lane.partition {
                Some(partition) => Ok(Answer::Ack { ack, partition, records: batch.records }),
                None => Err(Error::Protocol("a batch that the broker places was acknowledged without places".to_owned())),
            }),
            Kind::Placements => Placements::decode(&frame.payload).map_err(malformed).and_then(|placements| {
                let places = placements.records.len();
                if places == batch.records as usize {
                    Ok(Answer::Placements(placements))
                } else {
                    Err(Error::Protocol(format!("{places} places came for {} records", batch.records)))
                }
            }),
            Kind::Error => match wire_error(&frame.payload) {
                error @ Error::Broker(_) => {
                    self.refused(flight, batch, error);
                    return Ok(());
                }
                broken => Err(broken),
            },
            other => Err(Error::Protocol(format!("a frame of kind {other:?} in place of an answer to a batch"))),
        };
        let broken = answer.as_ref().err().cloned();
        if let Ok(answer) = &answer {
            flight.stored(batch.order);
            self.accepted();
            self.shared.acknowledged(&batch, answer);
        } else {
            flight.gone(batch.order);
        }
        self.shared.settle(&batch, answer);
        broken.map_or(Ok(()), Err)
    }

    /// The broker did not take a batch.
    fn refused(&self, flight: &mut Flight, batch: Outgoing, error: Error) {
        match flight.refused(batch, &error, self.shared.settings.retry) {
            Refused::PutOff => {
                let delay = self.put_off(error);
                flight.pause(Instant::now(), delay);
            }
            Refused::Behind | Refused::Elsewhere => {}
            Refused::Anew => {
                tracing::debug!(topic = %self.shared.topic, partition = self.lane.partition, %error, "batches are numbered anew");
                // A broker that keeps answering so is left in peace for a while.
                if let Some(delay) = self.patience.lock().backoff.next_but_first() {
                    flight.pause(Instant::now(), delay);
                }
            }
            Refused::ForGood(batch) => self.fail(&batch, error),
        }
    }

    fn accepted(&self) {
        let mut patience = self.patience.lock();
        patience.backoff.reset();
        if patience.refusal.take().is_some() {
            tracing::info!(topic = %self.shared.topic, partition = self.lane.partition, "the broker takes batches again");
        }
    }

    /// Remembers why the broker takes nothing for now, and says it once. Gives the time to wait.
    fn put_off(&self, error: Error) -> Duration {
        let mut patience = self.patience.lock();
        let delay = patience.backoff.next();
        let (topic, partition) = (&self.shared.topic, self.lane.partition);
        if patience.refusal.is_none() {
            tracing::warn!(%topic, partition, %error, "the broker takes no batches for now; they are sent again");
        } else {
            tracing::debug!(%topic, partition, %error, ?delay, "a batch will be sent again");
        }
        patience.refusal = Some(error);
        delay
    }

    /// The stream ended with batches in flight.
    pub(super) fn stream_lost(&self, error: &Error) {
        let mut flight = self.flight.lock();
        let (lost, retry) = (flight.in_flight(), self.shared.settings.retry);
        tracing::debug!(topic = %self.shared.topic, partition = self.lane.partition, %error, batches = lost, "a stream was lost");
        if flight.is_waited_for()
            && let Some(delay) = self.patience.lock().backoff.next_but_first()
        {
            flight.pause(Instant::now(), delay);
        }
        // One that is certainly not stored cannot be stored twice.
        for batch in flight.lost(|batch| error.retryable() && (retry || !batch.maybe_stored)) {
            let (what, reason) = (self.describe(batch.records), error.how_lost());
            self.shared.settle(&batch, Err(Error::Unanswered { what, reason, refused: None }));
        }
    }
}

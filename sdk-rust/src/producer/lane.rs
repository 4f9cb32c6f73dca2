//! One partition's way to the broker: a task that sends its batches on an ordered stream and matches the answers.
//!
//! ```text
//!  enqueue --> accumulator --> encode --> in flight ... stream ... answer --> deliveries
//!                                 ^                        |
//!                                 +------ waiting <--------+  stream lost, or the broker asked for patience
//! ```
//!
//! A batch goes at once when nothing is in flight; else when it is full or old enough and one of the places in flight is free. When the
//! stream or the connection is lost, the lane opens another one and sends what was not answered again, in its order. A batch
//! whose time is over is given up, and its records are told whether they may be stored.

use super::{
    Shared,
    accumulator::{Accumulator, Next, Sealed},
    flight::{Answered, Flight, Outgoing},
    pending::{Answer, Pending},
};
use crate::{
    backoff::Backoff,
    connection::{CODE_DONE, CODE_PROTOCOL},
    error::Error,
    stream::{self, Frame, FrameReader, ended, frame, wire_error, write_failed},
};
use millpond_protocol::{
    compression::Codec,
    frame::Kind,
    message::{Ack, OpenProduce, Placements, Request, Response},
};
use parking_lot::Mutex;
use quinn::SendStream;
use std::sync::{Arc, atomic::AtomicBool, atomic::Ordering};
use tokio::{
    sync::Notify,
    time::{Instant, sleep, sleep_until, timeout_at},
};

/// The largest answer to a batch, in bytes of payload.
pub(crate) const ANSWER_BYTES_MAX: u32 = 16 << 20;

/// From this size on, in bytes, a batch is compressed on a thread of its own, so that it does not hold up other tasks.
const COMPRESS_ASIDE_BYTES: usize = 16 << 10;

/// One partition of a producer, or all those that the broker chooses from.
#[derive(Debug)]
pub(crate) struct Lane {
    /// None where the broker places each record.
    pub(crate) partition: Option<u32>,
    pub(crate) accumulator: Mutex<Accumulator>,
    /// Something changed that the lane's task should look at.
    pub(crate) wake: Notify,
    started: AtomicBool,
}

impl Lane {
    pub(crate) fn new(partition: Option<u32>) -> Lane {
        Lane { partition, accumulator: Mutex::default(), wake: Notify::new(), started: AtomicBool::new(false) }
    }

    /// Starts the lane's task, the first time that it is called. It ends when the lane is closed and everything is answered.
    pub(crate) fn start(self: &Arc<Lane>, shared: &Arc<Shared>) {
        if !self.started.swap(true, Ordering::AcqRel) {
            let task = Task { lane: Arc::clone(self), shared: Arc::clone(shared), flight: Arc::default(), backoff: Mutex::default() };
            shared.runtime.spawn(task.run());
        }
    }

    /// Takes no more records.
    pub(crate) fn close(&self) {
        self.accumulator.lock().close();
        self.wake.notify_one();
    }

    /// The batches that are not answered; none of them is held back.
    pub(crate) fn hurry(&self) -> Vec<Arc<Pending>> {
        let unanswered = self.accumulator.lock().hurry();
        self.wake.notify_one();
        unanswered
    }
}

/// The task of a lane. Within it one future writes batches and one reads answers, so the locks are never waited for long.
struct Task {
    lane: Arc<Lane>,
    shared: Arc<Shared>,
    /// Shared with the thread that compresses.
    flight: Arc<Mutex<Flight>>,
    /// Since the last batch that was stored.
    backoff: Mutex<Backoff>,
}

/// What the writer does next.
enum Step {
    Send(Outgoing),
    Wait(Option<Instant>),
    /// The lane is closed and has nothing left.
    Finish,
}

impl Task {
    async fn run(self) {
        while self.has_work().await {
            if let Some((send, reader)) = self.open().await {
                self.serve(send, reader).await;
            }
        }
    }

    /// Waits until there is something to send; false when the lane is closed and there will not be.
    async fn has_work(&self) -> bool {
        loop {
            let nothing_in_flight = self.flight.lock().is_empty();
            {
                let accumulator = self.lane.accumulator.lock();
                if !nothing_in_flight || !accumulator.is_empty() {
                    return true;
                }
                if accumulator.is_finished() {
                    return false;
                }
            }
            self.lane.wake.notified().await;
        }
    }

    /// Opens a stream, for as long as there is anything to send that is not too old.
    async fn open(&self) -> Option<(SendStream, FrameReader)> {
        let mut backoff = Backoff::default();
        let mut last = None;
        loop {
            let error = match self.unless_given_up(self.try_open(), &mut last).await? {
                Ok(opened) => return Some(opened),
                Err(error) => error,
            };
            if !error.retryable() {
                self.fail_everything(&error);
                return None;
            }
            tracing::debug!(topic = %self.shared.topic, partition = self.lane.partition, %error, "could not open a stream to produce");
            last = Some(error);
            // While the connection is down, it is the connection that keeps attempts apart.
            if self.shared.core.link.live().is_some() {
                self.unless_given_up(sleep(backoff.next()), &mut last).await?;
            }
        }
    }

    async fn try_open(&self) -> Result<(SendStream, FrameReader), Error> {
        let connection = self.shared.core.link.get().await?;
        let open = OpenProduce { topic: self.shared.topic.to_string(), partition: self.lane.partition };
        let (send, mut reader) = stream::request(&connection, &Request::OpenProduce(open)).await?;
        match reader.response().await? {
            Response::ProduceOpened(opened) => {
                self.shared.opened(&opened);
                Ok((send, reader))
            }
            other => Err(Error::Protocol(format!("open_produce was answered with {other:?}"))),
        }
    }

    /// Waits for something while giving up what gets too old meanwhile; none when nothing is left that it would be for.
    async fn unless_given_up<F: Future>(&self, what: F, last: &mut Option<Error>) -> Option<F::Output> {
        tokio::pin!(what);
        loop {
            let deadline = self.give_up_old(Instant::now(), last.as_ref())?;
            tokio::select! {
                biased;
                output = &mut what => return Some(output),
                () = sleep_until(deadline) => {}
            }
        }
    }

    /// Sends and is answered until the lane is finished or the stream ends.
    async fn serve(&self, mut send: SendStream, mut reader: FrameReader) {
        let ended = tokio::select! {
            biased;
            error = self.read_answers(&mut reader) => Err(error),
            ended = self.write_batches(&mut send) => ended,
        };
        match ended {
            // Fails only on a stream that the broker has stopped.
            Ok(()) => drop(send.finish()),
            Err(error) => {
                let code = if matches!(error, Error::Protocol(_)) { CODE_PROTOCOL } else { CODE_DONE };
                // A half-written batch must not look like the end of the stream. Fails only if the stream is gone already.
                let _ = send.reset(code);
                self.stream_lost(&error);
            }
        }
    }

    async fn write_batches(&self, send: &mut SendStream) -> Result<(), Error> {
        loop {
            match self.next_step(Instant::now()) {
                Step::Send(batch) => self.write(send, batch).await?,
                Step::Wait(None) => self.lane.wake.notified().await,
                // Whether it was the time or a change is seen by looking again.
                Step::Wait(Some(until)) => drop(timeout_at(until, self.lane.wake.notified()).await),
                Step::Finish => return Ok(()),
            }
        }
    }

    fn next_step(&self, now: Instant) -> Step {
        let deadline = self.give_up_old(now, None);
        let earlier = |at: Instant| Step::Wait(Some(deadline.map_or(at, |deadline| deadline.min(at))));
        loop {
            let mut flight = self.flight.lock();
            if flight.in_flight() >= self.shared.settings.in_flight {
                return Step::Wait(deadline);
            }
            match flight.not_before {
                Some(at) if at > now => return earlier(at),
                _ => flight.not_before = None,
            }
            if let Some(batch) = flight.take() {
                return Step::Send(batch);
            }
            if flight.encoding {
                return Step::Wait(deadline);
            }
            let idle = flight.in_flight() == 0;
            let mut accumulator = self.lane.accumulator.lock();
            match accumulator.next(now, self.shared.settings.linger, idle, self.shared.is_short_of_room()) {
                Next::Full(sealed) => {
                    let sequence = flight.number();
                    drop((accumulator, flight));
                    self.encode(sealed, sequence);
                }
                Next::Open(sealed) => {
                    let sequence = flight.number();
                    drop((accumulator, flight));
                    self.shared.batch_is_full(&self.lane);
                    self.encode(sealed, sequence);
                }
                Next::At(at) => return earlier(at),
                Next::Nothing if flight.is_empty() && accumulator.is_finished() => return Step::Finish,
                Next::Later | Next::Nothing => return Step::Wait(deadline),
            }
        }
    }

    /// Turns records into bytes and puts them among those that wait to be sent: here and now, or aside if they are to be compressed.
    fn encode(&self, sealed: Sealed, sequence: u64) {
        let encoding = Encoding {
            lane: Arc::clone(&self.lane),
            shared: Arc::clone(&self.shared),
            flight: Arc::clone(&self.flight),
            sequence,
            codec: self.shared.settings.compression,
        };
        if encoding.codec == Codec::None || sealed.builder.size_bytes() < COMPRESS_ASIDE_BYTES {
            encoding.run(sealed);
        } else {
            self.flight.lock().encoding = true;
            self.shared.runtime.spawn_blocking(move || {
                let lane = Arc::clone(&encoding.lane);
                encoding.run(sealed);
                lane.wake.notify_one();
            });
        }
    }

    async fn write(&self, send: &mut SendStream, batch: Outgoing) -> Result<(), Error> {
        let counters = &self.shared.counters;
        let now = Instant::now();
        if batch.sent_at.is_some() {
            counters.retries.fetch_add(1, Ordering::Relaxed);
            counters.records_resent.fetch_add(u64::from(batch.records), Ordering::Relaxed);
        } else {
            counters.queue_time.record(now - batch.opened_at);
        }
        let deadline = self.deadline(batch.opened_at);
        let mut chunks = frame(Kind::Produce, batch.bytes.clone());
        self.flight.lock().send(batch, now);
        match timeout_at(deadline, send.write_all_chunks(&mut chunks)).await {
            Ok(written) => written.map_err(write_failed),
            Err(_) => Err(Error::ConnectionLost { reason: "the broker took nothing for too long".to_owned(), cause: None }),
        }
    }

    /// Matches answers with batches until the stream ends.
    async fn read_answers(&self, reader: &mut FrameReader) -> Error {
        loop {
            let frame = match reader.next(ANSWER_BYTES_MAX).await {
                Ok(Some(frame)) => frame,
                Ok(None) => return ended(),
                Err(error) => return error,
            };
            let answered = self.flight.lock().answered();
            match answered {
                Answered::Batch(batch) => {
                    if let Err(error) = self.answer(batch, &frame) {
                        return error;
                    }
                }
                Answered::GivenUp => {}
                Answered::Nothing => return Error::Protocol("an answer came for which there is no batch".to_owned()),
            }
            self.lane.wake.notify_one();
        }
    }

    /// Acts on the answer to a batch. An error says that the stream cannot be trusted any more.
    fn answer(&self, batch: Outgoing, frame: &Frame) -> Result<(), Error> {
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
                    self.refused(batch, error);
                    return Ok(());
                }
                broken => Err(broken),
            },
            other => Err(Error::Protocol(format!("a frame of kind {other:?} in place of an answer to a batch"))),
        };
        let broken = answer.as_ref().err().cloned();
        if let Ok(answer) = &answer {
            self.backoff.lock().reset();
            self.shared.acknowledged(&batch, answer);
        }
        self.shared.settle(&batch, answer);
        broken.map_or(Ok(()), Err)
    }

    /// The broker did not take a batch.
    fn refused(&self, batch: Outgoing, error: Error) {
        if error.retryable() && self.shared.settings.retry {
            let delay = self.backoff.lock().next();
            tracing::debug!(topic = %self.shared.topic, partition = self.lane.partition, %error, ?delay, "a batch will be sent again");
            let mut flight = self.flight.lock();
            flight.pause(Instant::now(), delay);
            flight.wait(batch);
        } else {
            self.shared.settle(&batch, Err(error));
        }
    }

    /// The stream ended with batches in flight.
    fn stream_lost(&self, error: &Error) {
        let mut flight = self.flight.lock();
        let lost = flight.lost();
        tracing::debug!(topic = %self.shared.topic, partition = self.lane.partition, %error, batches = lost.len(), "a stream was lost");
        let again = self.shared.settings.retry && error.retryable();
        if !lost.is_empty()
            && let Some(delay) = self.backoff.lock().next_but_first()
        {
            flight.pause(Instant::now(), delay);
        }
        for batch in lost {
            if again {
                flight.wait(batch);
            } else {
                let what = self.describe(batch.records);
                self.shared.settle(&batch, Err(Error::Unanswered { what, reason: error.how_lost() }));
            }
        }
    }

    /// Gives up the batches that are too old, and says when the next one will be; none if there are no batches.
    fn give_up_old(&self, now: Instant, last: Option<&Error>) -> Option<Instant> {
        let mut flight = self.flight.lock();
        let mut accumulator = self.lane.accumulator.lock();
        let oldest = || [flight.oldest(), accumulator.oldest()].into_iter().flatten().min();
        let after = self.shared.settings.delivery_timeout;
        if let Some(limit) = now.checked_sub(after)
            && oldest().is_some_and(|oldest| oldest <= limit)
        {
            let last = || last.cloned().or_else(|| self.shared.core.link.last_error()).map(Box::new);
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
    fn fail_everything(&self, error: &Error) {
        let mut flight = self.flight.lock();
        for batch in flight.take_waiting() {
            self.shared.settle(&batch, Err(error.clone()));
        }
        for sealed in self.lane.accumulator.lock().take_all() {
            self.shared.fail(&sealed, error.clone());
        }
    }

    fn deadline(&self, opened_at: Instant) -> Instant {
        opened_at.checked_add(self.shared.settings.delivery_timeout).unwrap_or_else(|| opened_at + FAR)
    }

    fn describe(&self, records: u32) -> String {
        let topic = &self.shared.topic;
        match self.lane.partition {
            Some(partition) => format!("storing {records} records in {topic}[{partition}]"),
            None => format!("storing {records} records in {topic}"),
        }
    }
}

/// A time that no batch lives to see: what is meant by a delivery timeout that no clock can count to.
const FAR: std::time::Duration = std::time::Duration::from_hours(365 * 24);

/// The work of turning a sealed batch into bytes, wherever it runs.
struct Encoding {
    lane: Arc<Lane>,
    shared: Arc<Shared>,
    flight: Arc<Mutex<Flight>>,
    sequence: u64,
    codec: Codec,
}

impl Encoding {
    fn run(self, mut sealed: Sealed) {
        let records = sealed.builder.len();
        let outcome = sealed.builder.finish(self.codec);
        let mut flight = self.flight.lock();
        flight.encoding = false;
        match outcome {
            Ok(bytes) => {
                let Sealed { builder, pending, charged, opened_at } = sealed;
                self.lane.accumulator.lock().give_back(builder);
                let sequence = self.sequence;
                flight.wait(Outgoing { bytes, pending, records, charged, sequence, opened_at, sent_at: None, maybe_stored: false });
            }
            Err(error) => {
                self.shared.fail(&sealed, Error::InvalidRecord(error));
            }
        }
    }
}

//! One partition's way to the broker: a task that sends its batches on an ordered stream and matches the answers.
//!
//! ```text
//!  enqueue --> accumulator --> encode --> in flight ... stream ... answer --> deliveries
//!                                 ^                        |
//!                                 +------ waiting <--------+  stream lost, or the broker asked for patience
//! ```
//!
//! A batch goes at once when nothing is in flight; else when it is full or old enough and one of the places in flight is free. When the
//! stream or the connection is lost, the lane opens another one and sends what was not answered again, in its order. A broker that
//! stops takes nothing more and answers what it has: the answers are read to the end before anything counts as lost. A batch
//! whose time is over is given up, and its records are told whether they may be stored. A lane that has had nothing to do for a while
//! gives its stream up, and at once where another one waits for a stream.

use super::{
    accumulator::{Accumulator, Next},
    flight::{Flight, Outgoing, Ready},
    pending::Pending,
    shared::Shared,
};
use crate::{
    backoff::Backoff,
    connection::{CODE_DONE, CODE_PROTOCOL},
    error::Error,
    stream::{self, FrameReader, frame, write_failed},
};
use millpond_protocol::{
    frame::Kind,
    message::{OpenProduce, Request, Response},
};
use parking_lot::Mutex;
use quinn::SendStream;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::Notify,
    time::{Instant, sleep, sleep_until, timeout_at},
};

/// How long a stream is kept while its lane has nothing to send and nothing to wait for. Opening another one costs the next batch a round
/// trip; keeping it takes one of the streams that a connection may have (1,024 by a broker's default) from another partition.
const STREAM_IDLE_MAX: Duration = Duration::from_secs(10);

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
            let flight = if self.partition.is_some() { Flight::default() } else { Flight::placed() };
            let flight = Arc::new(Mutex::new(flight));
            let task = Task { lane: Arc::clone(self), shared: Arc::clone(shared), flight, patience: Mutex::default() };
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
pub(super) struct Task {
    pub(super) lane: Arc<Lane>,
    pub(super) shared: Arc<Shared>,
    /// Shared with the thread that compresses.
    pub(super) flight: Arc<Mutex<Flight>>,
    pub(super) patience: Mutex<Patience>,
}

/// Since the last batch that was stored.
#[derive(Default)]
pub(super) struct Patience {
    pub(super) backoff: Backoff,
    /// Why the broker takes nothing at the moment.
    pub(super) refusal: Option<Error>,
}

/// What the writer does next.
enum Step {
    Send(Outgoing),
    Wait(Option<Instant>),
    /// There is nothing to send and nothing to wait for.
    Rest,
    /// The lane needs another stream.
    Reopen,
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
        let (send, mut reader) = stream::request(&self.shared.core.link, &connection, &Request::OpenProduce(open)).await?;
        match reader.response().await? {
            Response::ProduceOpened(opened) => {
                self.shared.opened(&opened);
                self.flight.lock().opened(opened.producer_id.filter(|_| self.shared.settings.idempotence));
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

    /// Sends and is answered until there is nothing more to send or the stream ends.
    async fn serve(&self, mut send: SendStream, mut reader: FrameReader) {
        let error = tokio::select! {
            biased;
            error = self.read_answers(&mut reader) => error,
            ended = self.write_batches(&mut send) => match ended {
                Ok(()) => {
                    // Fails only on a stream that the broker has stopped.
                    let _ = send.finish();
                    // What was given up and may still be answered is of no interest any more.
                    self.flight.lock().lost(|_| true);
                    return;
                }
                Err(unwritable) => self.read_last_answers(&mut reader, unwritable).await,
            },
        };
        let code = if matches!(error, Error::Protocol(_)) { CODE_PROTOCOL } else { CODE_DONE };
        // A half-written batch must not look like the end of the stream. Fails only if the stream is gone already.
        let _ = send.reset(code);
        self.stream_lost(&error);
    }

    /// Sends until the lane is closed and everything is answered, or until the stream is of no more use.
    async fn write_batches(&self, send: &mut SendStream) -> Result<(), Error> {
        let mut idle_since = None;
        loop {
            let now = Instant::now();
            match self.next_step(now) {
                Step::Rest => {
                    let since = *idle_since.get_or_insert(now);
                    if self.rest(since + STREAM_IDLE_MAX).await {
                        continue;
                    }
                    return Ok(());
                }
                Step::Send(batch) => self.write(send, batch).await?,
                Step::Wait(None) => self.lane.wake.notified().await,
                // Whether it was the time or a change is seen by looking again.
                Step::Wait(Some(until)) => drop(timeout_at(until, self.lane.wake.notified()).await),
                Step::Reopen | Step::Finish => return Ok(()),
            }
            idle_since = None;
        }
    }

    /// Waits for a change; false if none comes in time, or if the stream is wanted elsewhere.
    async fn rest(&self, until: Instant) -> bool {
        tokio::select! {
            biased;
            () = self.lane.wake.notified() => true,
            () = self.shared.core.link.streams.wanted() => false,
            () = sleep_until(until) => false,
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
            match flight.next() {
                Ready::Batch(batch) => return Step::Send(batch),
                Ready::Later => return Step::Wait(deadline),
                Ready::Elsewhere => return Step::Reopen,
                Ready::Undecided(batches, cause) => {
                    for batch in &batches {
                        self.fail(batch, cause.clone());
                    }
                    continue;
                }
                Ready::Fresh => {}
            }
            if flight.encoding {
                return Step::Wait(deadline);
            }
            let idle = flight.in_flight() == 0;
            let mut accumulator = self.lane.accumulator.lock();
            match accumulator.next(now, self.shared.settings.linger, idle, self.shared.is_short_of_room()) {
                Next::Full(sealed) => {
                    let place = flight.begin();
                    drop((accumulator, flight));
                    self.encode(sealed, place);
                }
                Next::Open(sealed) => {
                    let place = flight.begin();
                    drop((accumulator, flight));
                    self.shared.batch_is_full(&self.lane);
                    self.encode(sealed, place);
                }
                Next::At(at) => return earlier(at),
                Next::Nothing if flight.is_empty() => return if accumulator.is_finished() { Step::Finish } else { Step::Rest },
                Next::Later | Next::Nothing => return Step::Wait(deadline),
            }
        }
    }

    async fn write(&self, send: &mut SendStream, batch: Outgoing) -> Result<(), Error> {
        let counters = &self.shared.counters;
        let now = Instant::now();
        if batch.sent_at.is_some() {
            counters.retries.fetch_add(1, Ordering::Relaxed);
            if batch.maybe_stored {
                counters.records_resent.fetch_add(u64::from(batch.records), Ordering::Relaxed);
            }
        } else {
            counters.queue_time.record(now - batch.opened_at);
        }
        let deadline = self.deadline(batch.opened_at);
        let mut chunks = frame(Kind::Produce, batch.bytes.clone());
        self.flight.lock().send(batch, now);
        match timeout_at(deadline, send.write_all_chunks(&mut chunks)).await {
            Ok(Ok(())) => {
                self.flight.lock().written();
                Ok(())
            }
            Ok(Err(error)) => Err(write_failed(error)),
            Err(_) => Err(Error::ConnectionLost { reason: "the broker took nothing for too long".to_owned(), cause: None }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        client::Core,
        connection::{Link, Timing},
        producer::{builder::Settings, flight::Answered},
    };
    use futures_util::FutureExt;
    use millpond_protocol::{
        compression::Codec,
        message::{TopicConfig, TopicInfo},
        record::NewRecord,
    };

    const SOON: Duration = Duration::from_millis(20);
    const HOUR: Duration = Duration::from_hours(1);

    /// The task of a lane whose client is not connected.
    fn task() -> Task {
        let url = format!("millpond://localhost?fp=sha256:{}", "0".repeat(64)).parse().unwrap();
        let link = Link::new(url, Timing { connect_timeout: HOUR, idle_timeout: HOUR, keep_alive: HOUR }).unwrap();
        let settings = Settings {
            batch_bytes: 1 << 20,
            linger: HOUR,
            compression: Codec::None,
            buffer_bytes: 1 << 20,
            in_flight: 1,
            delivery_timeout: HOUR,
            retry: true,
            idempotence: true,
        };
        let (name, config) = ("readings".to_owned(), TopicConfig::default());
        let topic = TopicInfo { name, config, epoch: 1, ..TopicInfo::default() };
        let core = Arc::new(Core::new(link, HOUR));
        let shared = Arc::new(Shared::new(core, "readings".into(), settings, &topic));
        Task { lane: Arc::new(Lane::new(Some(0))), shared, flight: Arc::default(), patience: Mutex::default() }
    }

    #[tokio::test]
    async fn a_lane_rests_when_there_is_nothing_to_send_and_nothing_to_wait_for() {
        let (task, now) = (task(), Instant::now());
        assert!(matches!(task.next_step(now), Step::Rest));
        let record = NewRecord { value: Some(b"x"), ..NewRecord::default() };
        task.lane.accumulator.lock().push(&record, 100, 1 << 20, || now).unwrap().unwrap();
        let Step::Send(batch) = task.next_step(now) else { panic!("no batch") };
        task.flight.lock().send(batch, now);
        assert!(matches!(task.next_step(now), Step::Wait(Some(_))), "for the answer");
        assert!(matches!(task.flight.lock().answered(), Answered::Batch(_)));
        assert!(matches!(task.next_step(now), Step::Rest));
        task.lane.close();
        assert!(matches!(task.next_step(now), Step::Finish));
    }

    #[tokio::test]
    async fn a_lane_that_rests_gives_its_stream_up_in_time_and_at_once_where_one_is_wanted() {
        let task = task();
        assert!(!task.rest(Instant::now() + SOON).await, "its time is over");
        task.lane.wake.notify_one();
        assert!(task.rest(Instant::now() + HOUR).await, "there may be something to send");
        assert!(task.rest(Instant::now() + HOUR).now_or_never().is_none());
        let streams = &task.shared.core.link.streams;
        let waiting = streams.wait();
        assert!(!task.rest(Instant::now() + HOUR).await);
        task.lane.wake.notify_one();
        assert!(task.rest(Instant::now() + HOUR).await, "work comes first");
        drop(waiting);
        assert!(task.rest(Instant::now() + HOUR).now_or_never().is_none());
    }
}

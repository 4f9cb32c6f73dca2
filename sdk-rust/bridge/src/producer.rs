//! Sending without an error for a full buffer.
//!
//! ```text
//!  send    ──>  waits while the buffer is full: for a thread, or for a caller that awaits it
//!  post    ──>  never waits: what finds no room queues up here, in order, until there is some
//!                 |
//!                 v
//!          Sending: the coming answer, a future that may be dropped: flush tells what failed
//! ```
//!
//! A producer is made at once and opened with its first record, so that making one never waits.

use crate::{
    client::Client,
    failure::Failure,
    options::{ProducerOptions, ms},
    runs::Runs,
    runtime::{Kept, check_process, handle},
};
use millpond::{BorrowedRecord, Delivery, Record, RecordPlace};
use parking_lot::Mutex;
use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    sync::{Notify, OnceCell, oneshot},
    time::timeout,
};

/// What became of a record.
pub type Outcome = Result<RecordPlace, Failure>;

/// Sends records to one topic; cheap to clone. See [`millpond::Producer`].
#[derive(Clone, Debug)]
pub struct Producer(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    client: Client,
    topic: Arc<str>,
    options: ProducerOptions,
    core: OnceCell<Kept<millpond::Producer>>,
    posted: Mutex<Posted>,
    /// Nothing is posted any more.
    drained: Notify,
    closed: AtomicBool,
}

/// What waits for room, or for the producer to be opened.
#[derive(Debug, Default)]
struct Posted {
    records: VecDeque<(Record, oneshot::Sender<Started>)>,
    /// A task takes them out. It holds one more record.
    running: bool,
    /// Those that could not be sent since the last flush, for whoever posted them to look at.
    refused: Vec<Arc<Refused>>,
    /// The first that nobody can look at any more.
    unheard: Option<Failure>,
}

/// What becomes of a record that was posted: it is sent, or it can't be.
type Started = Result<Delivery, Arc<Refused>>;

/// A record that was posted and could not be sent.
#[derive(Debug)]
struct Refused {
    failure: Failure,
    looked_at: AtomicBool,
}

/// Refused records that are remembered one by one.
const REFUSED_MAX: usize = 1_024;

impl Producer {
    /// A producer, which is opened with its first record, or by [`Producer::open`]. Fails where its options can't be.
    pub fn new(client: &Client, topic: &str, options: ProducerOptions) -> Result<Producer, Failure> {
        check_process()?;
        let inner = Inner {
            client: client.clone(),
            topic: topic.into(),
            options,
            core: OnceCell::new(),
            posted: Mutex::default(),
            drained: Notify::new(),
            closed: AtomicBool::new(false),
        };
        inner.builder()?.check()?;
        Ok(Producer(Arc::new(inner)))
    }

    /// Asks the broker for the topic. Fails with the code `topic_not_found` if there is no such topic, and can be called again then.
    pub async fn open(&self) -> Result<(), Failure> {
        self.0.opened().await.map(|_| ())
    }

    /// The topic.
    pub fn topic(&self) -> &str {
        &self.0.topic
    }

    /// Sends a record if that can be done at this moment; none, and nothing has happened, where it would have to wait.
    pub fn try_send(&self, record: &Record) -> Result<Option<Sending>, Failure> {
        self.0.check_open()?;
        let Some(core) = self.0.core.get() else { return Ok(None) };
        if self.0.posted.lock().running {
            return Ok(None);
        }
        Ok(core.try_enqueue(record)?.map(Sending::known))
    }

    /// Sends a record; waits while the buffer is full. Fails at once if the record can never be sent.
    pub async fn send(&self, record: Record) -> Result<Sending, Failure> {
        self.0.check_open()?;
        if self.0.posted.lock().running {
            // In the order of the calls.
            return self.post(record);
        }
        Ok(Sending::known(self.0.opened().await?.enqueue(record).await?))
    }

    /// For records that can be sent at this moment; none where others wait for their room, or the producer is not open yet: those go before.
    pub fn now(&self) -> Result<Option<Now<'_>>, Failure> {
        self.0.check_open()?;
        let is_free = !self.0.posted.lock().running;
        Ok(self.0.core.get().filter(|_| is_free).map(|core| Now(core)))
    }

    /// Sends records that came over together, in order, numbered from `first` on; waits while the buffer is full. What can't be sent is told for
    /// each. Beside [`Producer::send`] it looks only once whether this can be done at all.
    pub async fn send_many(&self, first: usize, records: impl Iterator<Item = Result<Record, Failure>>) -> Runs {
        let mut runs = Runs::default();
        let usable = async {
            self.0.check_open()?;
            self.0.opened().await
        };
        let usable = usable.await;
        let posted = self.0.posted.lock().running;
        for (index, record) in records.enumerate() {
            let sent = match (record, &usable) {
                (Err(failure), _) => Err(failure),
                (_, Err(failure)) => Err(failure.clone()),
                // In the order of the calls.
                (Ok(record), _) if posted => self.post(record),
                (Ok(record), Ok(core)) => match core.try_enqueue(&record) {
                    Ok(Some(delivery)) => Ok(Sending::known(delivery)),
                    Ok(None) => core.enqueue(record).await.map(Sending::known).map_err(Failure::from),
                    Err(error) => Err(error.into()),
                },
            };
            runs.push(first + index, sent);
        }
        runs
    }

    /// Sends a record and never waits: one that finds no room has its place behind those that were posted before. They stay in memory, so
    /// somebody should wait for answers now and then.
    pub fn post(&self, record: Record) -> Result<Sending, Failure> {
        if let Some(sending) = self.try_send(&record)? {
            return Ok(sending);
        }
        let (sender, receiver) = oneshot::channel();
        let starts = {
            let mut posted = self.0.posted.lock();
            posted.records.push_back((record, sender));
            !std::mem::replace(&mut posted.running, true)
        };
        if starts {
            handle()?.spawn(Arc::clone(&self.0).send_posted());
        }
        Ok(Sending(Progress::Posted(receiver)))
    }

    /// Waits until everything that was sent before is answered. Fails with the first error since the last flush that nobody has heard of, or
    /// with the code `timed_out`. Whoever waited for a record and got its error has heard of it.
    pub async fn flush(&self, within: Option<Duration>) -> Result<(), Failure> {
        check_process()?;
        bounded("flushing the producer", within, self.0.flush()).await
    }

    /// Takes no more records and flushes. Further calls do the same again.
    pub async fn close(&self, within: Option<Duration>) -> Result<(), Failure> {
        check_process()?;
        self.0.closed.store(true, Ordering::Release);
        let close = async {
            let flushed = self.0.flush().await;
            match self.0.core.get() {
                Some(core) => flushed.and(core.close().await.map_err(Failure::from)),
                None => flushed,
            }
        };
        bounded("closing the producer", within, close).await
    }

    /// Whether it was closed.
    pub fn is_closed(&self) -> bool {
        self.0.closed.load(Ordering::Acquire)
    }

    /// What it has done so far; nothing before it was opened.
    pub fn stats(&self) -> millpond::ProducerStats {
        self.0.core.get().map(|core| core.stats()).unwrap_or_default()
    }
}

async fn bounded<T>(what: &str, within: Option<Duration>, future: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    match within {
        None => future.await,
        Some(within) => timeout(within, future).await.unwrap_or_else(|_| Err(Failure::timed_out(what, within))),
    }
}

impl Inner {
    fn check_open(&self) -> Result<(), Failure> {
        check_process()?;
        if self.closed.load(Ordering::Acquire) { Err(Failure::closed("producer")) } else { Ok(()) }
    }

    async fn opened(&self) -> Result<&Kept<millpond::Producer>, Failure> {
        check_process()?;
        self.core.get_or_try_init(|| async { Ok(Kept::new(self.builder()?.build().await?)) }).await
    }

    fn builder(&self) -> Result<millpond::ProducerBuilder, Failure> {
        let options = &self.options;
        let mut builder = self.client.core()?.producer(Arc::clone(&self.topic));
        if let Some(bytes) = options.batch_bytes {
            builder = builder.batch_bytes(bytes);
        }
        if let Some(linger) = options.linger_ms {
            builder = builder.linger(ms(linger));
        }
        if let Some(compression) = options.compression {
            builder = builder.compression(compression.into());
        }
        if let Some(bytes) = options.buffer_bytes {
            builder = builder.buffer_bytes(bytes);
        }
        if let Some(batches) = options.in_flight {
            builder = builder.in_flight(batches);
        }
        if let Some(timeout) = options.delivery_timeout_ms {
            builder = builder.delivery_timeout(ms(timeout));
        }
        if let Some(retry) = options.retry {
            builder = builder.retry(retry);
        }
        if let Some(idempotence) = options.idempotence {
            builder = builder.idempotence(idempotence);
        }
        Ok(builder)
    }

    /// Sends what was posted, until nothing is left.
    async fn send_posted(self: Arc<Inner>) {
        loop {
            let (record, answer) = {
                let mut posted = self.posted.lock();
                let Some(next) = posted.records.pop_front() else {
                    posted.running = false;
                    break;
                };
                next
            };
            let sent = match self.opened().await {
                Ok(core) => core.enqueue(record).await.map_err(Failure::from),
                Err(failure) => Err(failure),
            };
            // Whoever posted it may not want to know.
            match sent {
                Ok(delivery) => drop(answer.send(Ok(delivery))),
                Err(failure) => self.posted.lock().refuse(failure, answer),
            }
        }
        self.drained.notify_waiters();
    }

    async fn flush(&self) -> Result<(), Failure> {
        loop {
            let drained = self.drained.notified();
            if !self.posted.lock().running {
                break;
            }
            drained.await;
        }
        let untold = self.posted.lock().take_untold();
        if let Some(core) = self.core.get() {
            core.flush().await?;
        }
        untold.map_or(Ok(()), Err)
    }
}

impl Posted {
    fn refuse(&mut self, failure: Failure, answer: oneshot::Sender<Started>) {
        if self.refused.len() >= REFUSED_MAX {
            self.refused.retain(|refused| !refused.looked_at.load(Ordering::Relaxed));
        }
        let refused = Arc::new(Refused { failure, looked_at: AtomicBool::new(false) });
        let is_full = self.refused.len() >= REFUSED_MAX;
        if answer.send(Err(Arc::clone(&refused))).is_err() || is_full {
            self.unheard.get_or_insert_with(|| refused.failure.clone());
        } else {
            self.refused.push(refused);
        }
    }

    /// The first failure that nobody has heard of. All are forgotten.
    fn take_untold(&mut self) -> Option<Failure> {
        let refused = std::mem::take(&mut self.refused);
        let unseen = refused.iter().find(|refused| !refused.looked_at.load(Ordering::Relaxed));
        self.unheard.take().or_else(|| unseen.map(|refused| refused.failure.clone()))
    }
}

/// Sends without waiting, from [`Producer::now`].
#[derive(Debug)]
pub struct Now<'a>(&'a millpond::Producer);

impl Now<'_> {
    /// Sends a record, whose parts are copied into its batch; none, and nothing has happened, where it would have to wait for room.
    pub fn send(&self, record: &BorrowedRecord<'_>) -> Result<Option<Sending>, Failure> {
        Ok(self.0.try_enqueue_borrowed(record)?.map(Sending::known))
    }
}

/// The coming answer to one record: a future. It may be dropped, and is still sent.
#[derive(Debug)]
#[must_use = "await it to know that the record is stored, or call flush and drop it"]
pub struct Sending(Progress);

#[derive(Debug)]
enum Progress {
    Posted(oneshot::Receiver<Started>),
    Sent(Delivery),
    Refused(Arc<Refused>),
    Answered(Outcome),
    /// Somebody else waits for it.
    Taken,
}

impl Sending {
    const fn known(delivery: Delivery) -> Sending {
        Sending(Progress::Sent(delivery))
    }

    /// Another one for the same answer. None while the record still waits for its room ([`Producer::post`]): then [`Sending::take`] it.
    pub fn another(&self) -> Option<Sending> {
        match &self.0 {
            Progress::Sent(delivery) => Some(Sending(Progress::Sent(delivery.clone()))),
            Progress::Refused(refused) => Some(Sending(Progress::Refused(Arc::clone(refused)))),
            Progress::Answered(outcome) => Some(Sending(Progress::Answered(outcome.clone()))),
            Progress::Posted(_) | Progress::Taken => None,
        }
    }

    /// Whether the answer is there, an error included. That is no look at it: flush still tells the error.
    pub fn is_answered(&mut self) -> bool {
        let mut context = Context::from_waker(std::task::Waker::noop());
        self.poll_sent(&mut context).is_ready() && !matches!(&self.0, Progress::Sent(delivery) if !delivery.is_answered())
    }

    /// Ready once the answer is there, an error included. That is no look at it.
    pub fn poll_answered(&mut self, context: &mut Context<'_>) -> Poll<()> {
        ready!(self.poll_sent(context));
        match &mut self.0 {
            Progress::Sent(delivery) => delivery.poll_answered(context),
            _ => Poll::Ready(()),
        }
    }

    /// Ready once the record does not wait for its room any more.
    fn poll_sent(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if let Progress::Posted(posted) = &mut self.0 {
            self.0 = match ready!(Pin::new(posted).poll(context)) {
                Ok(Ok(delivery)) => Progress::Sent(delivery),
                Ok(Err(refused)) => Progress::Refused(refused),
                Err(_) => Progress::Answered(Err(Failure::closed("client"))),
            };
        }
        Poll::Ready(())
    }

    /// Takes the answer away, for who waits for it elsewhere; this one says nothing but that from then on, unless it is there already. None if it
    /// was taken before.
    pub fn take(&mut self) -> Option<Sending> {
        match std::mem::replace(&mut self.0, Progress::Taken) {
            Progress::Taken => None,
            Progress::Answered(outcome) => {
                self.0 = Progress::Answered(outcome.clone());
                Some(Sending(Progress::Answered(outcome)))
            }
            progress => Some(Sending(progress)),
        }
    }

    /// Whether `next` is the answer to the record that lies `behind` records behind this one in the same batch.
    pub(crate) fn is_followed_by(&self, next: &Sending, behind: u32) -> bool {
        matches!((&self.0, &next.0), (Progress::Sent(run), Progress::Sent(next)) if run.is_followed_by(next, behind))
    }

    /// The answer to such a record, if it is there, and with 0 that to this one. That is no look at it: flush still tells an error.
    pub(crate) fn peek_behind(&mut self, behind: u32) -> Option<Outcome> {
        let mut context = Context::from_waker(std::task::Waker::noop());
        if self.poll_sent(&mut context).is_pending() {
            return None;
        }
        match &self.0 {
            Progress::Sent(delivery) => delivery.try_get_behind(behind).map(|answer| answer.map_err(Failure::from)),
            Progress::Refused(refused) => Some(Err(refused.failure.clone())),
            Progress::Answered(outcome) => Some(outcome.clone()),
            Progress::Posted(_) | Progress::Taken => None,
        }
    }

    /// The answer, if it is there.
    pub fn try_get(&mut self) -> Option<Outcome> {
        let mut context = Context::from_waker(std::task::Waker::noop());
        match &self.0 {
            // Without leaving a waker behind.
            Progress::Sent(delivery) => delivery.try_get().map(|answer| answer.map_err(Failure::from)),
            _ => match Pin::new(self).poll(&mut context) {
                Poll::Ready(outcome) => Some(outcome),
                Poll::Pending => None,
            },
        }
    }
}

impl Future for Sending {
    type Output = Outcome;

    /// May be polled again after it is ready, and says the same.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Outcome> {
        ready!(self.poll_sent(context));
        loop {
            match &mut self.0 {
                Progress::Posted(_) => unreachable!("it was polled a moment ago"),
                Progress::Refused(refused) => {
                    refused.looked_at.store(true, Ordering::Relaxed);
                    self.0 = Progress::Answered(Err(refused.failure.clone()));
                }
                Progress::Sent(delivery) => {
                    let answer = ready!(Pin::new(delivery).poll(context)).map_err(Failure::from);
                    self.0 = Progress::Answered(answer);
                }
                Progress::Answered(outcome) => return Poll::Ready(outcome.clone()),
                Progress::Taken => {
                    return Poll::Ready(Err(Failure::invalid("the answer to this record was taken to be awaited elsewhere")));
                }
            }
        }
    }
}

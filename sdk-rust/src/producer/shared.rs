//! What the lanes of a producer share: its settings, its buffer, its view of the topic, its counters.

use super::{
    accumulator::Sealed,
    builder::Settings,
    flight::Outgoing,
    lane::Lane,
    pending::{Answer, Delivery, Pending},
    placement::Placement,
    stats::{Counters, ProducerStats},
    untold::Untold,
};
use crate::{
    admin::Admin,
    client::Core,
    error::Error,
    record::{BorrowedRecord, Record},
};
use arc_swap::ArcSwap;
use millpond_protocol::{
    batch::{BatchBuilder, HEADER_BYTES},
    message::{ProduceOpened, TopicInfo},
    record::NewRecord,
};
use parking_lot::Mutex;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::{
    runtime::Handle,
    sync::{Semaphore, SemaphorePermit, TryAcquireError},
    time::{Instant, timeout},
};

/// Bytes by which a record can be larger somewhere in a batch than alone in one: its timestamp delta takes up to 10 in place of 1, its
/// offset delta up to 5, and its length one more.
const RECORD_GROWTH_BYTES_MAX: usize = 9 + 4 + 1;

/// How long a record that is too large waits for the broker to say so again.
const ASK_TIMEOUT: Duration = Duration::from_secs(2);

/// The parts of a producer that its lanes' tasks use too.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) core: Arc<Core>,
    pub(crate) topic: Arc<str>,
    pub(crate) settings: Settings,
    pub(crate) runtime: Handle,
    pub(crate) counters: Counters,
    placement: ArcSwap<Placement>,
    /// The largest batch that the topic takes.
    max_batch_bytes: AtomicUsize,
    /// The topic's configuration epoch that `placement` is for.
    topic_epoch: AtomicU32,
    refreshing: AtomicBool,
    /// Held by who asks for the topic again: one after the other.
    asking: tokio::sync::Mutex<()>,
    /// One permit for each byte that records may take until they are answered.
    room: Semaphore,
    room_bytes: usize,
    /// Callers that wait for room.
    short_of_room: AtomicUsize,
    /// What the next flush tells.
    untold: Mutex<Untold>,
}

impl Shared {
    pub(crate) fn new(core: Arc<Core>, topic: Arc<str>, settings: Settings, info: &TopicInfo) -> Shared {
        let max_batch_bytes = info.config.max_batch_bytes as usize;
        let room_bytes = settings.buffer_bytes.max(max_batch_bytes.saturating_add(RECORD_GROWTH_BYTES_MAX));
        Shared {
            core,
            topic,
            settings,
            runtime: Handle::current(),
            counters: Counters::new(),
            placement: ArcSwap::from_pointee(Placement::new(partition_count(info), info.is_placed_by_broker())),
            max_batch_bytes: AtomicUsize::new(max_batch_bytes),
            topic_epoch: AtomicU32::new(info.epoch),
            refreshing: AtomicBool::new(false),
            asking: tokio::sync::Mutex::default(),
            room: Semaphore::new(room_bytes),
            room_bytes,
            short_of_room: AtomicUsize::new(0),
            untold: Mutex::default(),
        }
    }

    /// Takes the record if that needs no waiting. None if it does: for room, or for the broker to say whether the topic still takes no more.
    #[inline]
    pub(crate) fn try_enqueue(self: &Arc<Shared>, record: &Record) -> Result<Option<Delivery>, Error> {
        with_borrowed(record, |borrowed| self.try_enqueue_borrowed(borrowed))
    }

    /// The same for a record whose parts lie elsewhere.
    #[inline]
    pub(crate) fn try_enqueue_borrowed(self: &Arc<Shared>, record: &BorrowedRecord<'_>) -> Result<Option<Delivery>, Error> {
        let charge = match self.charge(record) {
            Err(Error::RecordTooLarge { .. }) => return Ok(None),
            charge => charge?,
        };
        match self.room.try_acquire_many(charge) {
            Ok(room) => self.push(record, room).map(Some),
            Err(TryAcquireError::NoPermits) => Ok(None),
            Err(TryAcquireError::Closed) => Err(Error::Closed("producer")),
        }
    }

    /// Takes the record as soon as there is room for it.
    pub(crate) async fn enqueue(self: &Arc<Shared>, mut record: Record) -> Result<Delivery, Error> {
        // The time of the call, however long the wait.
        record.timestamp.get_or_insert_with(now_ms);
        let charge = match with_borrowed(&record, |borrowed| self.charge(borrowed)) {
            // Somebody may have let the topic take larger ones since it was asked for, as the error says that one can.
            Err(Error::RecordTooLarge { .. }) if self.core.link.live().is_some() => {
                let _ = timeout(ASK_TIMEOUT, Box::pin(self.ask_again())).await;
                with_borrowed(&record, |borrowed| self.charge(borrowed))?
            }
            charge => charge?,
        };
        // Half-full batches must not wait for company while others wait for their room.
        let short = ShortOfRoom::new(self);
        let room = self.room.acquire_many(charge).await.map_err(|_| Error::Closed("producer"))?;
        drop(short);
        with_borrowed(&record, |borrowed| self.push(borrowed, room))
    }

    /// The most bytes that the record takes in a batch.
    #[inline]
    fn charge(&self, record: &BorrowedRecord<'_>) -> Result<u32, Error> {
        static ALONE: BatchBuilder = BatchBuilder::new();
        // Where it has no timestamp yet, 0 stands for it: the size in a batch of its own is the same.
        let alone = ALONE.size_with(&at(record, record.timestamp.unwrap_or_default()));
        let limit = self.max_batch_bytes.load(Ordering::Relaxed).min(self.room_bytes - RECORD_GROWTH_BYTES_MAX);
        if alone > limit {
            return Err(Error::RecordTooLarge { bytes: alone, limit });
        }
        let charge = alone - HEADER_BYTES + RECORD_GROWTH_BYTES_MAX;
        Ok(u32::try_from(charge).unwrap_or_else(|_| unreachable!("the buffer's limit is far below 4 GiB")))
    }

    #[inline]
    fn push(self: &Arc<Shared>, record: &BorrowedRecord<'_>, room: SemaphorePermit<'_>) -> Result<Delivery, Error> {
        let placement = self.placement.load();
        let lane = placement.lane_for(record, &self.topic)?;
        let batch_bytes = self.settings.batch_bytes.min(self.max_batch_bytes.load(Ordering::Relaxed));
        // The one look at the clock for each record; one for each batch would be off by as long as a batch stays open.
        let timestamped = at(record, record.timestamp.unwrap_or_else(now_ms));
        let pushed = lane
            .accumulator
            .lock()
            .push(&timestamped, room.num_permits(), batch_bytes, Instant::now)
            .map_err(Error::InvalidRecord)?
            .ok_or(Error::Closed("producer"))?;
        if pushed.sealed {
            placement.batch_is_full(lane);
        } else {
            placement.took(lane, record, room.num_permits());
        }
        // Given back when the batch is answered.
        room.forget();
        if pushed.opened {
            lane.start(self);
            lane.wake.notify_one();
        }
        Ok(Delivery::new(pushed.pending, pushed.index))
    }

    /// The lane's open batch was taken to be sent.
    pub(crate) fn batch_is_full(&self, lane: &Lane) {
        self.placement.load().batch_is_full(lane);
    }

    pub(crate) fn is_short_of_room(&self) -> bool {
        self.short_of_room.load(Ordering::Relaxed) > 0
    }

    /// The batches that are not answered; none of them is held back any longer.
    pub(crate) fn hurry(&self) -> Vec<Arc<Pending>> {
        let placement = self.placement.load_full();
        placement.lanes().flat_map(|lane| lane.hurry()).collect()
    }

    pub(crate) async fn flush(&self) -> Result<(), Error> {
        for pending in self.hurry() {
            pending.settled().await;
        }
        self.untold.lock().take().map_or(Ok(()), Err)
    }

    pub(crate) fn close(&self) {
        self.room.close();
        let placement = self.placement.load_full();
        placement.lanes().for_each(|lane| lane.close());
    }

    /// A stream was opened.
    pub(crate) fn opened(self: &Arc<Shared>, opened: &ProduceOpened) {
        self.max_batch_bytes.store(opened.max_batch_bytes as usize, Ordering::Relaxed);
        self.saw_epoch(opened.topic_epoch);
    }

    /// A batch was acknowledged.
    pub(crate) fn acknowledged(self: &Arc<Shared>, batch: &Outgoing, answer: &Answer) {
        let (Answer::Ack { ack, .. } | Answer::Placements(millpond_protocol::message::Placements { ack, .. })) = answer;
        let counters = &self.counters;
        counters.batches.fetch_add(1, Ordering::Relaxed);
        counters.records.fetch_add(u64::from(batch.records), Ordering::Relaxed);
        counters.records_dropped.fetch_add(u64::from(ack.records_dropped), Ordering::Relaxed);
        counters.bytes.fetch_add(batch.bytes.len() as u64, Ordering::Relaxed);
        if let Some(sent_at) = batch.sent_at {
            counters.ack_latency.record(sent_at.elapsed());
        }
        self.core.link.was_useful();
        self.saw_epoch(ack.topic_epoch);
    }

    /// Answers the records of a batch and gives back their room.
    pub(crate) fn settle(&self, batch: &Outgoing, answer: Result<Answer, Error>) {
        self.finish(&batch.pending, batch.records, batch.charged, answer);
    }

    /// Fails the records of a batch that was never encoded.
    pub(crate) fn fail(&self, sealed: &Sealed, error: Error) {
        self.finish(&sealed.pending, sealed.builder.len(), sealed.charged, Err(error));
    }

    fn finish(&self, pending: &Arc<Pending>, records: u32, charged: usize, answer: Result<Answer, Error>) {
        if let Err(error) = &answer {
            self.counters.records_failed.fetch_add(u64::from(records), Ordering::Relaxed);
            self.untold.lock().add(pending, records, error);
        }
        self.room.add_permits(charged);
        pending.settle(answer);
    }

    pub(crate) fn stats(&self) -> ProducerStats {
        self.counters.summary((self.room_bytes - self.room.available_permits().min(self.room_bytes)) as u64)
    }

    /// The topic has this configuration epoch: if that is news, asks for the topic again, aside.
    fn saw_epoch(self: &Arc<Shared>, epoch: u32) {
        if epoch == self.topic_epoch.load(Ordering::Relaxed) || self.refreshing.swap(true, Ordering::AcqRel) {
            return;
        }
        let shared = Arc::clone(self);
        self.runtime.spawn(async move {
            shared.ask_again().await;
            shared.refreshing.store(false, Ordering::Release);
        });
    }

    /// Asks for the topic again.
    async fn ask_again(&self) {
        let _turn = self.asking.lock().await;
        match Admin::new(Arc::clone(&self.core)).topic(&self.topic).await {
            Ok(info) => self.topic_changed(&info),
            // What is known stays. The next answer from the broker leads here again.
            Err(error) => tracing::debug!(topic = %self.topic, %error, "could not ask for the topic again"),
        }
    }

    fn topic_changed(&self, info: &TopicInfo) {
        tracing::debug!(topic = %self.topic, epoch = info.epoch, by_broker = info.is_placed_by_broker(), "the topic has changed");
        // Only one asks at a time.
        let changed = self.placement.load().changed(partition_count(info), info.is_placed_by_broker());
        self.placement.store(Arc::new(changed));
        self.max_batch_bytes.store(info.config.max_batch_bytes as usize, Ordering::Relaxed);
        self.topic_epoch.store(info.epoch, Ordering::Relaxed);
    }
}

/// Counts a caller that waits for room, until it goes on or gives up.
struct ShortOfRoom<'a>(&'a Shared);

impl<'a> ShortOfRoom<'a> {
    fn new(shared: &'a Shared) -> ShortOfRoom<'a> {
        if shared.short_of_room.fetch_add(1, Ordering::Relaxed) == 0 {
            shared.placement.load().lanes().for_each(|lane| lane.wake.notify_one());
        }
        ShortOfRoom(shared)
    }
}

impl Drop for ShortOfRoom<'_> {
    fn drop(&mut self) {
        self.0.short_of_room.fetch_sub(1, Ordering::Relaxed);
    }
}

fn partition_count(info: &TopicInfo) -> u32 {
    u32::try_from(info.partitions.len()).unwrap_or(u32::MAX)
}

/// Headers of a record that are lent without taking memory for that.
const HEADERS_ON_STACK_MAX: usize = 8;

/// Lends the parts of a record.
#[inline]
fn with_borrowed<T>(record: &Record, then: impl FnOnce(&BorrowedRecord<'_>) -> T) -> T {
    let Record { timestamp, partition, .. } = *record;
    let borrowed = BorrowedRecord { key: record.key.as_deref(), value: record.value.as_deref(), headers: &[], timestamp, partition };
    if record.headers.is_empty() {
        return then(&borrowed);
    }
    let lent = record.headers.iter().map(|(name, value)| (name.as_str(), value.as_deref()));
    if record.headers.len() > HEADERS_ON_STACK_MAX {
        return then(&BorrowedRecord { headers: &lent.collect::<Vec<_>>(), ..borrowed });
    }
    let mut headers = [("", None); HEADERS_ON_STACK_MAX];
    headers.iter_mut().zip(lent).for_each(|(place, header)| *place = header);
    then(&BorrowedRecord { headers: &headers[..record.headers.len()], ..borrowed })
}

/// For the batch builder.
#[inline]
fn at<'a>(record: &BorrowedRecord<'a>, timestamp: i64) -> NewRecord<'a> {
    NewRecord { timestamp, key: record.key, value: record.value, headers: record.headers }
}

/// Milliseconds since 1970-01-01 UTC by this machine's clock; 0 if it stands before that.
#[inline]
fn now_ms() -> i64 {
    let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    time.as_secs().saturating_mul(1_000).saturating_add(u64::from(time.subsec_millis())).cast_signed()
}

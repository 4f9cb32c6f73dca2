//! One partition: a queue in front of a log that has one writer.
//!
//! ```text
//!   submit ──> queue ──> turn (I/O threads) ──> log.append ──> published: log end
//!                │        at most one at a time     │
//!                │                                  ├── `os`, `interval`: answered
//!            waits while                            └── `sync`: waits for a flush
//!            it is full                                     │
//!                           flush (flush threads) ──────────┴──> published: durable end; answered
//!                           at most one at a time, while turns go on
//! ```
//!
//! A turn takes all that waits, up to a bound, and writes it with one append. While a flush runs, appends go on and gather for the
//! next one, so the number of flushes follows the speed of the disk and not the number of batches.
//!
//! Readers never meet the writer: log end and high watermark are published, bytes are read through a [`LogReader`].
//!
//! After a failed write or flush the log takes nothing more and says why; reads go on. A panic in a turn or in a flush has the same
//! outcome, because nobody can say in which state it left the log. A full disk, or no descriptor left for a further file, is no such
//! failure: what is asked at that moment is refused, and the next append tries again.

mod answer;
pub(crate) mod compaction;
mod dropped;
mod flush;
mod found;
mod housekeeping;
mod room;
mod status;
mod turn;

pub(crate) use answer::Reply;
pub(crate) use housekeeping::Busy;
pub(crate) use room::Yielded;
pub(crate) use status::{Extent, Look};

use crate::{
    error::EngineError,
    folders,
    inflight::{ByteBudget, InflightPermit, Reserved},
    services::Services,
    space::{self, Counted, TopicSpace},
};
use answer::Open;
use compaction::Compacting;
use dropped::Unsaid;
use flush::Waiting;
use found::report_recovery;
use millpond_log::{AppendTimes, Log, LogConfig, LogError, LogReader, Pools, RecoveryReport, SequenceOrder, WhenFull};
use millpond_protocol::{
    batch::Batch,
    message::{Ack, Durability, TopicConfig, Watermarks},
};
use parking_lot::Mutex;
use room::{WaitForRoom, Want};
use status::{CompactionLog, Refusals, Stopped};
use std::{collections::VecDeque, path::Path, sync::Arc};
use tokio::{
    sync::{oneshot, watch},
    time::Instant,
};

/// One partition.
#[derive(Debug)]
pub(crate) struct Partition {
    topic: Arc<str>,
    number: u32,
    services: Arc<Services>,
    space: Arc<TopicSpace>,
    /// The error is why the log could not be opened.
    reader: Result<LogReader, EngineError>,
    /// Bytes that may wait in the queue.
    room: ByteBudget,
    /// Held for moments only. Taken after `tail` where both are needed.
    queue: Mutex<Queue>,
    /// Held during writes; only taken on the I/O and the flush threads.
    tail: Mutex<Tail>,
    view: watch::Sender<View>,
    /// Why writing has stopped, for people.
    failure: Mutex<Option<Stopped>>,
    /// What was refused for want of room.
    refusals: Mutex<Refusals>,
    /// Only locked on the background thread, for as long as it is at work here.
    append_times: Mutex<AppendTimes>,
    /// Likewise, and for the moment that [`Partition::set_compacts`] takes. None where the log could not be opened.
    compacting: Mutex<Option<Compacting>>,
    /// What came of that. Held for moments only.
    compaction_log: Mutex<CompactionLog>,
    /// Held while records are deleted. Never waited for on the thread that makes room, nor under another lock.
    deleting: tokio::sync::Mutex<()>,
    /// A deletion, or a step of a compaction, has ended and holds no lock any more.
    work_ends: tokio::sync::Notify,
    /// What was dropped to make room, and not said yet.
    unsaid: Mutex<Unsaid>,
    open: Arc<Open>,
}

/// What readers see of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct View {
    pub(crate) watermarks: Watermarks,
    pub(crate) phase: Phase,
}

/// How long a partition is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// For now.
    Serving,
    /// The broker stops: what is there can still be read, nothing will be added.
    Closed,
    /// The topic is gone.
    Deleted,
}

/// A batch that is to be appended.
#[derive(Debug)]
pub(crate) struct Submission {
    pub(crate) batch: Batch,
    pub(crate) records_dropped: u32,
    pub(crate) topic_epoch: u32,
    /// What it must continue, if its producer numbers its batches.
    pub(crate) order: SequenceOrder,
    /// The batch is empty, since modules left out every record. It is stored only where the sequence of its producer could not be
    /// followed otherwise, and answered as not stored.
    pub(crate) is_nothing: bool,
    pub(crate) permit: InflightPermit,
}

#[derive(Debug, Default)]
struct Queue {
    batches: VecDeque<Queued>,
    turn_scheduled: bool,
    wait: WaitForRoom,
    /// Why nothing more is taken.
    refusal: Option<EngineError>,
}

#[derive(Debug)]
struct Queued {
    batch: Batch,
    entry: Entry,
    _room: Reserved,
}

/// What is kept of a batch until it is answered.
#[derive(Debug)]
struct Entry {
    records_dropped: u32,
    topic_epoch: u32,
    order: SequenceOrder,
    is_nothing: bool,
    queued_at: Instant,
    reply: Reply,
}

#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own, set and looked at by other jobs than the next")]
struct Tail {
    /// What the next append is answered by. Changed while the partition is at work.
    durability: Durability,
    /// None before the log is opened and after it is closed.
    log: Option<Log>,
    /// Appended, not durable yet, in the order of their offsets. Only `sync` fills it.
    waiting: VecDeque<Waiting>,
    flush_running: bool,
    /// Another flush is due although nobody waits for it.
    flush_due: bool,
    /// It is to cover the active segment, whatever the durability.
    flush_all: bool,
    /// A timer is set that will make a flush due.
    timer_set: bool,
    /// Counts the changes of the durability: a timer of an earlier one is void.
    timer_epoch: u64,
    /// Up to here nothing is seen before it is durable: the end of what was appended under `sync`.
    promised_end: i64,
    /// Jobs that delete or compact records at this moment: the log and its folder stay.
    works_running: usize,
    /// What the log has in its topic's quota and the node's.
    counted: Counted,
    /// What is known of a want of room.
    want: Want,
    /// Kept between turns for its memory.
    run: Vec<Batch>,
}

impl Partition {
    /// Opens the log in `dir`. A log that can't be opened is not fatal: the partition then answers everything with the reason, and
    /// the others work. So does one whose folder is missing: the folders are made before the topic is, so the records are lost, and an
    /// empty log in their place would give their offsets away again. Blocking, and reads the last segment in full unless it was closed in
    /// order.
    pub(crate) fn open(
        services: Arc<Services>,
        (topic, number): (Arc<str>, u32),
        config: &TopicConfig,
        space: Arc<TopicSpace>,
        dir: &Path,
    ) -> Arc<Partition> {
        let mut report = RecoveryReport::default();
        let opened = open_log(&services, &topic, number, config, dir, &mut report);
        // Also of an opening that has failed: the next one finds nothing of what this one has cut.
        report_recovery(&topic, number, &report);
        let (log, reader, failure) = match opened {
            Ok(log) => {
                let (clean_stop, scanned_bytes, is_clean) = (report.clean_stop, report.scanned_bytes, report.is_clean());
                tracing::debug!(%topic, partition = number, clean_stop, scanned_bytes, is_clean, "a log is open");
                let reader = log.reader();
                (Some(log), Ok(reader), None)
            }
            Err(error) => {
                let stopped = Stopped::at_opening(&error);
                tracing::error!(%topic, partition = number, error = stopped.cause, hint = stopped.hint, "a log can't be opened");
                (None, Err(error), Some(stopped))
            }
        };
        let view = View { watermarks: log.as_ref().map_or_else(Watermarks::default, all_of), phase: Phase::Serving };
        let segments = reader.as_ref().map_or_else(|_| Vec::new(), LogReader::segments);
        let append_times = AppendTimes::new(Arc::clone(&services.disk), dir, &segments, services.clock.monotonic_ms());
        let counted = Counted::new(&space, log.as_ref().map_or(0, Log::size_bytes));
        let compacting = log.as_ref().map(|log| Compacting::new(log.compactor()));
        let queue = Queue { refusal: reader.as_ref().err().cloned(), ..Queue::default() };
        let partition = Partition {
            topic,
            number,
            reader,
            room: ByteBudget::new(services.config.partition_queue_bytes_max),
            services,
            space,
            queue: Mutex::new(queue),
            tail: Mutex::new(Tail::new(log, config.durability, counted)),
            view: watch::Sender::new(view),
            failure: Mutex::new(failure),
            refusals: Mutex::default(),
            append_times: Mutex::new(append_times),
            compacting: Mutex::new(compacting),
            compaction_log: Mutex::default(),
            deleting: tokio::sync::Mutex::default(),
            work_ends: tokio::sync::Notify::new(),
            unsaid: Mutex::default(),
            open: Arc::default(),
        };
        partition.set_compacts(config.cleanup.compacts());
        Arc::new(partition)
    }

    /// Queues a batch, waiting while the queue is full. Calls that follow each other are appended in their order. The receiver gets
    /// the answer once the durability of the topic is met.
    pub(crate) async fn submit(
        self: &Arc<Self>,
        submission: Submission,
    ) -> Result<oneshot::Receiver<Result<Ack, EngineError>>, EngineError> {
        let room = self.room.reserve(submission.batch.bytes().len()).await;
        let (reply, receiver) = Reply::new(&self.open, submission.permit);
        let Submission { batch, records_dropped, topic_epoch, order, is_nothing, permit: _ } = submission;
        let queued_at = self.services.instant();
        let entry = Entry { records_dropped, topic_epoch, order, is_nothing, queued_at, reply };
        let queued = Queued { batch, entry, _room: room };
        let is_scheduled = {
            let mut queue = self.queue.lock();
            if let Some(refusal) = &queue.refusal {
                return Err(refusal.clone());
            }
            queue.batches.push_back(queued);
            queue.wait.is_on || std::mem::replace(&mut queue.turn_scheduled, true)
        };
        if !is_scheduled {
            self.schedule_turn();
        }
        Ok(receiver)
    }

    /// What readers can see, now and when it changes.
    pub(crate) fn subscribe(&self) -> watch::Receiver<View> {
        self.view.subscribe()
    }

    /// The way to the bytes, or why there is none.
    pub(crate) fn reader(&self) -> Result<&LogReader, EngineError> {
        self.reader.as_ref().map_err(Clone::clone)
    }

    pub(crate) fn topic(&self) -> &Arc<str> {
        &self.topic
    }

    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    pub(crate) fn watermarks(&self) -> Watermarks {
        self.view.borrow().watermarks
    }

    /// Takes nothing more from now on; what is queued is still appended, but for what would have to wait for room.
    pub(crate) fn refuse(self: &Arc<Self>, refusal: EngineError) {
        let mut queue = self.queue.lock();
        queue.refusal.get_or_insert(refusal);
        self.end_wait(queue);
    }

    /// After [`Partition::refuse`]: waits until every batch is answered and every flush is done, then flushes and closes the log.
    pub(crate) async fn close(self: &Arc<Self>) {
        let closed = self.take_log(|log| log.map_or(Ok(()), Log::close)).await;
        self.enter(Phase::Closed);
        self.say_rest_dropped();
        match closed {
            Ok((Ok(()), _)) => {}
            // It has been said already if the log had latched; nothing that was acknowledged is in question.
            Ok((Err(error), _)) => {
                tracing::warn!(topic = %self.topic, partition = self.number, error = error.chain(), "a log was not closed cleanly");
            }
            Err(error) => tracing::warn!(topic = %self.topic, partition = self.number, %error, "a log was not closed cleanly"),
        }
    }

    /// After [`Partition::refuse`]: ends the readers, waits until every batch is answered and every flush is done, then lets go of the
    /// log without a flush. What it has counted in stays so until its files are gone: that is handed over.
    pub(crate) async fn abandon(self: &Arc<Self>) -> Option<Counted> {
        self.enter(Phase::Deleted);
        // Closing many files takes a while, so not here.
        let taken = self.take_log(drop).await;
        self.say_rest_dropped();
        match taken {
            Ok(((), counted)) => Some(counted),
            Err(error) => {
                tracing::warn!(topic = %self.topic, partition = self.number, %error, "a log was not let go cleanly");
                None
            }
        }
    }

    /// Takes the log away once nothing is owed, and does something with it on the flush threads; there is none where it could not be
    /// opened. A flush that outlived the log would write into a folder that is given back, or removed, by then.
    async fn take_log<T: Send + 'static>(self: &Arc<Self>, end: fn(Option<Log>) -> T) -> Result<(T, Counted), EngineError> {
        loop {
            self.open.none_left().await;
            let partition = Arc::clone(self);
            let ended = self.services.flush.run(move || {
                let (log, counted) = {
                    let mut tail = partition.tail.lock();
                    // A timer has begun a flush since, or records are being deleted.
                    if (tail.flush_running || tail.works_running > 0) && tail.log.is_some() {
                        return None;
                    }
                    let nothing = Counted::new(&partition.space, 0);
                    (tail.log.take(), std::mem::replace(&mut tail.counted, nothing))
                };
                Some((end(log), counted))
            });
            if let Some(ended) = ended.await? {
                return Ok(ended);
            }
        }
    }

    fn enter(&self, phase: Phase) {
        self.view.send_modify(|view| view.phase = phase);
    }

    /// Tells readers how far the log reaches.
    fn publish(&self, now: Watermarks) {
        self.view.send_if_modified(|view| {
            let before = view.watermarks;
            // A turn and the end of a flush publish after each other in any order; neither goes back behind the other.
            view.watermarks = Watermarks {
                log_start: before.log_start.max(now.log_start),
                high_watermark: before.high_watermark.max(now.high_watermark),
                log_end: before.log_end.max(now.log_end),
            };
            view.watermarks != before
        });
    }

    fn log_error(&self, source: Arc<LogError>) -> EngineError {
        EngineError::Log { topic: Arc::clone(&self.topic), partition: self.number, source }
    }

    /// Notes a failure that keeps the partition from writing; the first one stays.
    fn note_failure(&self, cause: &str) {
        let mut failure = self.failure.lock();
        if failure.is_none() {
            tracing::error!(topic = %self.topic, partition = self.number, cause, "the partition has stopped writing; reads go on");
            *failure = Some(Stopped::while_open(cause));
        }
    }

    /// After a panic: nobody knows what state the log is in, so it is not written to again.
    fn poison(&self) {
        self.note_failure("a job of the broker panicked");
        let stopped = EngineError::PartitionStopped { topic: Arc::clone(&self.topic), partition: self.number };
        let mut tail = self.tail.lock();
        let waiting = std::mem::take(&mut tail.waiting);
        tail.log = None;
        let mut queue = self.queue.lock();
        queue.refusal = Some(stopped.clone());
        let queued = std::mem::take(&mut queue.batches);
        drop(queue);
        drop(tail);
        let replies = waiting.into_iter().map(|waiting| waiting.reply).chain(queued.into_iter().map(|queued| queued.entry.reply));
        replies.for_each(|reply| reply.send(Err(stopped.clone())));
    }
}

impl Tail {
    fn new(log: Option<Log>, durability: Durability, counted: Counted) -> Tail {
        Tail {
            durability,
            log,
            waiting: VecDeque::new(),
            flush_running: false,
            flush_due: false,
            flush_all: false,
            timer_set: false,
            timer_epoch: 0,
            promised_end: 0,
            works_running: 0,
            counted,
            want: Want::default(),
            run: Vec::new(),
        }
    }

    /// How far readers may see. None once there is no log.
    fn watermarks(&self) -> Option<Watermarks> {
        let log = self.log.as_ref()?;
        let high_watermark = match self.durability {
            // What was promised under another durability is kept, also where a flush of it has failed.
            _ if log.durable_end() < self.promised_end => log.durable_end(),
            Durability::Sync => log.durable_end(),
            Durability::Interval(_) | Durability::Os => log.log_end(),
        };
        Some(Watermarks { log_start: log.log_start(), high_watermark, log_end: log.log_end() })
    }
}

/// Poisons the partition if the job that holds it panics.
struct PoisonOnPanic<'a>(&'a Partition);

impl Drop for PoisonOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.poison();
        }
    }
}

/// What it has done is added to the report, also where it fails.
fn open_log(
    services: &Services,
    topic: &Arc<str>,
    partition: u32,
    config: &TopicConfig,
    dir: &Path,
    report: &mut RecoveryReport,
) -> Result<Log, EngineError> {
    if !folders::exists(&*services.disk, dir)? {
        return Err(EngineError::PartitionLost { topic: Arc::clone(topic), partition, path: dir.to_owned() });
    }
    let verify_on_read = services.config.verify_on_read;
    let segment_bytes = space::segment_bytes(config, services.config.quota_bytes);
    let producer_id_expiration_ms = u64::try_from(services.config.producer_id_expiration.as_millis()).unwrap_or(u64::MAX);
    let log_config = LogConfig { segment_bytes, verify_on_read, producer_id_expiration_ms, ..LogConfig::default() };
    // Opening makes durable what a killed broker left in the page cache, so all of it can be served.
    let mut open = |when_full| {
        let pools = Pools { files: services.files.clone(), producers: services.producers.clone() };
        let opened = Log::try_open(Arc::clone(&services.disk), pools, dir, log_config, when_full, report);
        opened.map_err(|source| EngineError::not_opened(topic, partition, dir, source))
    };
    match services.space.reserve.lend(EngineError::is_disk_full, || open(WhenFull::Fail)) {
        // Not even the reserve has room for what is to be kept of the end of the log.
        Err(error) if error.is_disk_full() => open(WhenFull::Drop),
        opened => opened,
    }
}

/// All that a freshly opened log holds is durable, so all of it can be read.
fn all_of(log: &Log) -> Watermarks {
    Watermarks { log_start: log.log_start(), high_watermark: log.log_end(), log_end: log.log_end() }
}

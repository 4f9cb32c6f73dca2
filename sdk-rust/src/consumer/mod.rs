//! Consuming: the broker pushes batches, one stream for each partition.
//!
//! | module | holds |
//! |---|---|
//! | `reader` | the task that reads one partition's stream and reconnects |
//! | `batch` | what arrived together, and the records in it |
//!
//! # What it promises
//!
//! Records of one partition come in the order of their offsets, each once for as long as this consumer lives, whatever
//! happens to the connection. Partitions take turns, batch by batch. What is read ahead is bounded: a few frames, and what QUIC's windows hold. Every
//! batch is checked against its checksum. An error ends one partition, not the consumer: [`Consumer::seek`] takes it up again. A
//! partition that is paused keeps its position and costs nothing: its stream is given back. Where the broker's
//! disk has damaged records, the broker's error says from which offset on ([`WireError::next_offset`](crate::WireError::next_offset)).

mod batch;
mod builder;
mod reader;

pub use batch::{ConsumedBatch, ConsumedRecords};
pub use builder::ConsumerBuilder;

/// Where to begin in a partition.
pub use millpond_protocol::message::Position as Start;

use crate::{client::Core, error::Error, record::ConsumedRecord};
use futures_core::Stream;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use millpond_protocol::message::Watermarks;
use parking_lot::Mutex;
use reader::{Event, Reader, Source, What};
use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};
use tokio::{sync::mpsc, task::JoinHandle};

/// What happens where a partition does not reach to the offset from which it is to be read: because retention has passed it, or because the
/// partition ends before it. Kafka's `auto.offset.reset`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OutOfRange {
    /// Reading ends with the error `offset_out_of_range`, which has the range.
    #[default]
    Error,
    /// Reading goes on at the first record that is there. A warning says so.
    Earliest,
    /// Reading goes on with what comes from then on. A warning says so.
    Latest,
}

/// Frames that wait for the consumer, over all partitions. Each partition's task holds one more.
const FRAMES_AHEAD_MAX: usize = 4;

/// Partitions that are read over one connection: half of the streams that a broker allows on it by default, so that producers and requests
/// find one too.
const PARTITIONS_PER_CONNECTION_MAX: usize = 512;

/// Partitions that are opened at the same time.
const OPENING_MAX: usize = 64;

/// Reads one topic. From [`crate::Client::consumer`]. A [`Stream`] of records; [`Consumer::next_batch`] gives them batch by batch,
/// which is faster.
///
/// ```no_run
/// # async fn run(client: millpond::Client) -> Result<(), millpond::Error> {
/// use millpond::Start;
///
/// let mut consumer = client.consumer("readings").start(Start::Beginning).build().await?;
/// while let Some(record) = consumer.next().await {
///     let record = record?;
///     println!("{}[{}] {}: {:?}", record.topic, record.partition, record.offset, record.value);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Consumer {
    core: Arc<Core>,
    source: Source,
    partitions: BTreeMap<u32, Partition>,
    events: mpsc::Receiver<Event>,
    /// For the readers that a seek starts.
    sender: mpsc::Sender<Event>,
    /// The batch that is being handed out record by record.
    current: Option<Current>,
    until_end: bool,
}

#[derive(Debug)]
struct Current {
    batch: ConsumedBatch,
    records: ConsumedRecords,
}

/// A partition as the consumer sees it.
#[derive(Debug)]
struct Partition {
    /// The connection that it is read over.
    core: Arc<Core>,
    generation: u64,
    /// The offset of the next record to hand out.
    position: i64,
    /// The broker has sent everything below this, whether records lie there or not.
    caught_up: i64,
    /// The high watermark when the partition was opened.
    end: i64,
    watermarks: Arc<Mutex<Watermarks>>,
    /// None after it failed, and while it is paused.
    reader: Option<Task>,
    is_paused: bool,
}

/// A task that ends with its owner.
#[derive(Debug)]
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Partition {
    fn has_reached(&self, offset: i64) -> bool {
        self.position.max(self.caught_up) >= offset
    }

    fn has_failed(&self) -> bool {
        self.reader.is_none() && !self.is_paused
    }
}

impl Consumer {
    pub(crate) async fn open(core: Arc<Core>, source: Source, places: &[(u32, Start)], until_end: bool) -> Result<Consumer, Error> {
        let (sender, events) = mpsc::channel(FRAMES_AHEAD_MAX);
        let mut consumer = Consumer { core, source, partitions: BTreeMap::new(), events, sender, current: None, until_end };
        consumer.take_up(places, false).await?;
        Ok(consumer)
    }

    /// The connection for each of these partitions: that over which it is read already, else the client's for the first ones, and one more
    /// for each [`PARTITIONS_PER_CONNECTION_MAX`] behind them.
    fn connections(&self, places: &[(u32, Start)]) -> Result<Vec<(u32, Start, Arc<Core>)>, Error> {
        let mut core = Arc::clone(&self.core);
        let mut connections = Vec::with_capacity(places.len());
        for (index, (partition, start)) in places.iter().enumerate() {
            if index > 0 && index % PARTITIONS_PER_CONNECTION_MAX == 0 && !self.partitions.contains_key(partition) {
                core = self.core.beside()?;
            }
            let before = self.partitions.get(partition).map(|partition| &partition.core);
            connections.push((*partition, *start, Arc::clone(before.unwrap_or(&core))));
        }
        Ok(connections)
    }

    /// Reads these partitions from these places, whether they were read before or not; one that is paused only if it `resumes`. After an
    /// error all is as it was.
    async fn take_up(&mut self, places: &[(u32, Start)], resumes: bool) -> Result<(), Error> {
        let source = &self.source;
        let open = |(partition, start, core): (u32, Start, Arc<Core>)| async move {
            reader::open(&core, source, partition, start).await.map(|opened| (partition, core, opened))
        };
        // Collected, because the compiler can't see that a future which holds the borrowing iterator may move between threads.
        let opening: Vec<_> = self.connections(places)?.into_iter().map(open).collect();
        let opened: Vec<_> = stream::iter(opening).buffer_unordered(OPENING_MAX).try_collect().await?;
        for (partition, core, (frames, opened)) in opened {
            let generation = self.partitions.get(&partition).map_or(0, |before| before.generation + 1);
            let watermarks = Arc::new(Mutex::new(reader::watermarks(&opened)));
            let reader = Reader {
                core: Arc::clone(&core),
                source: self.source.clone(),
                partition,
                generation,
                watermarks: Arc::clone(&watermarks),
                out: self.sender.clone(),
                next: opened.start_offset,
            };
            let task = Task(tokio::spawn(reader.run(frames)));
            let position = opened.start_offset;
            let end = opened.high_watermark;
            let before = self.partitions.get(&partition);
            let is_paused = !resumes && before.is_some_and(|before| before.is_paused);
            // Where it ends was said when it was opened first, or sought in.
            let end = before.filter(|_| resumes).map_or(end, |before| before.end);
            let reader = Some(task).filter(|_| !is_paused);
            let opened = Partition { core, generation, position, caught_up: position, end, watermarks, reader, is_paused };
            self.partitions.insert(partition, opened);
            if self.current.as_ref().is_some_and(|current| current.batch.partition() == partition) {
                self.current = None;
            }
        }
        Ok(())
    }

    /// The next record; none once there will not be another one: `until_end` is reached, or every partition has failed.
    pub async fn next(&mut self) -> Option<Result<ConsumedRecord, Error>> {
        std::future::poll_fn(|context| self.poll_record(context)).await
    }

    /// The next batch of records, all of one partition; none as for [`Consumer::next`]. It may turn out to hold no record that is wanted.
    pub async fn next_batch(&mut self) -> Option<Result<ConsumedBatch, Error>> {
        std::future::poll_fn(|context| self.poll_batch(context)).await
    }

    /// The batches as a stream.
    pub fn batches(&mut self) -> impl Stream<Item = Result<ConsumedBatch, Error>> + '_ {
        stream::poll_fn(|context| self.poll_batch(context))
    }

    /// Goes on from another place, in this partition or (none) in all of them. What was read ahead is thrown away. A partition that
    /// failed is taken up again, and one that is paused stays so. After an error nothing has changed.
    pub async fn seek(&mut self, partition: impl Into<Option<u32>>, start: Start) -> Result<(), Error> {
        let partitions = self.named(partition.into(), "the partition to seek in")?;
        let places: Vec<_> = partitions.into_iter().map(|partition| (partition, start)).collect();
        self.take_up(&places, false).await
    }

    /// Hands out no more records of this partition or (none) of all, until [`Consumer::resume`]. Its position stays, what was read ahead is
    /// thrown away, and the broker sends nothing. One that is paused already stays so.
    pub fn pause(&mut self, partition: impl Into<Option<u32>>) -> Result<(), Error> {
        for number in self.named(partition.into(), "the partition to pause")? {
            let Some(partition) = self.partitions.get_mut(&number) else { continue };
            partition.is_paused = true;
            partition.reader = None;
            // What it has handed on is not wanted any more.
            partition.generation += 1;
            if self.current.as_ref().is_some_and(|current| current.batch.partition() == number) {
                self.current = None;
            }
        }
        Ok(())
    }

    /// Goes on with this partition or (none) with all that are paused, from their positions. Those behind
    /// one that fails are paused still, as is that one.
    pub async fn resume(&mut self, partition: impl Into<Option<u32>>) -> Result<(), Error> {
        for number in self.named(partition.into(), "the partition to resume")? {
            if let Some(partition) = self.partitions.get(&number).filter(|partition| partition.is_paused) {
                self.take_up(&[(number, Start::Offset(partition.position))], true).await?;
            }
        }
        Ok(())
    }

    /// The partitions that are paused, in order.
    pub fn paused(&self) -> impl Iterator<Item = u32> + '_ {
        self.partitions.iter().filter(|(_, partition)| partition.is_paused).map(|(number, _)| *number)
    }

    /// The partitions that have failed, in order: nothing comes of them until a seek takes them up again.
    pub fn failed(&self) -> impl Iterator<Item = u32> + '_ {
        self.partitions.iter().filter(|(_, partition)| partition.has_failed()).map(|(number, _)| *number)
    }

    /// This partition, which must be one of those that are read, or all of them.
    fn named(&self, partition: Option<u32>, setting: &'static str) -> Result<Vec<u32>, Error> {
        match partition {
            None => Ok(self.partitions.keys().copied().collect()),
            Some(partition) if self.partitions.contains_key(&partition) => Ok(vec![partition]),
            Some(partition) => {
                let reason = "it is one of those that this consumer reads";
                Err(Error::InvalidSetting { setting, value: partition.to_string(), reason })
            }
        }
    }

    /// The topic.
    pub fn topic(&self) -> &Arc<str> {
        &self.source.topic
    }

    /// The partitions that are read, in order.
    pub fn partitions(&self) -> impl Iterator<Item = u32> + '_ {
        self.partitions.keys().copied()
    }

    /// The offset of the next record that is handed out; none for a partition that is not read.
    pub fn position(&self, partition: u32) -> Option<i64> {
        self.partitions.get(&partition).map(|partition| partition.position)
    }

    /// How far the partition reaches, as the broker said last; none for a partition that is not read.
    pub fn watermarks(&self, partition: u32) -> Option<Watermarks> {
        self.partitions.get(&partition).map(|partition| *partition.watermarks.lock())
    }

    /// Whether everything was handed out that could be read, as the broker said last. More may come.
    pub fn at_end(&self) -> bool {
        self.partitions.values().all(|partition| {
            let high_watermark = partition.watermarks.lock().high_watermark;
            partition.has_reached(high_watermark)
        })
    }

    /// Whether nothing will come any more.
    fn is_finished(&self) -> bool {
        let no_more = |partition: &Partition| partition.has_failed() || (self.until_end && partition.has_reached(partition.end));
        self.partitions.values().all(no_more)
    }

    fn poll_record(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<ConsumedRecord, Error>>> {
        loop {
            if let Some(Current { batch, records }) = &mut self.current {
                let partition = self.partitions.get_mut(&batch.partition());
                match records.next() {
                    Some(Ok(record)) => {
                        if let Some(partition) = partition {
                            partition.position = record.offset + 1;
                        }
                        return Poll::Ready(Some(Ok(record)));
                    }
                    Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                    None => {
                        if let Some(partition) = partition {
                            partition.position = batch.next_offset();
                        }
                        self.current = None;
                    }
                }
            } else {
                match ready!(self.poll_event(context)) {
                    Some(Ok(batch)) => self.current = Some(Current { records: batch.records(), batch }),
                    Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                    None => return Poll::Ready(None),
                }
            }
        }
    }

    fn poll_batch(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<ConsumedBatch, Error>>> {
        let rest = self.current.take().map(|current| current.batch);
        let batch = match rest {
            Some(batch) => batch,
            None => match ready!(self.poll_event(context)) {
                Some(Ok(batch)) => batch,
                other => return Poll::Ready(other),
            },
        };
        let mut batch = batch;
        if let Some(partition) = self.partitions.get_mut(&batch.partition()) {
            batch.start_at(partition.position);
            partition.position = batch.next_offset();
        }
        Poll::Ready(Some(Ok(batch)))
    }

    /// The next batch that a reader has handed on, with nothing in it that is not wanted.
    fn poll_event(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<ConsumedBatch, Error>>> {
        loop {
            if self.is_finished() {
                return Poll::Ready(None);
            }
            let Some(Event { partition, generation, what }) = ready!(self.events.poll_recv(context)) else {
                return Poll::Ready(None);
            };
            // What a reader handed on before a seek is not wanted any more.
            let Some(partition) = self.partitions.get_mut(&partition).filter(|partition| partition.generation == generation) else {
                continue;
            };
            match what {
                What::CaughtUp(high_watermark) => partition.caught_up = high_watermark,
                What::Moved(offset) => partition.position = offset,
                What::Failed(error) => {
                    partition.reader = None;
                    return Poll::Ready(Some(Err(error)));
                }
                What::Batch(mut batch) => {
                    if self.until_end {
                        batch.end_at(partition.end);
                        if batch.next_offset() <= partition.position {
                            continue;
                        }
                    }
                    return Poll::Ready(Some(Ok(batch)));
                }
            }
        }
    }
}

impl Stream for Consumer {
    type Item = Result<ConsumedRecord, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_record(context)
    }
}

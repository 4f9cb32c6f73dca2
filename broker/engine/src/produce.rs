//! The way of a batch in: checks, modules, the queue of its partition, and the answer.
//!
//! ```text
//!  submit ── length, header, checksum ── modules (plugin threads) ──┬── partition known ──────────> queue ──> Ack
//!                                                                   └── placed by the broker: split ─> queues ─> Placements
//! ```
//!
//! A stream keeps its order: `submit` comes back when the batch is in its queue, so the next one lands behind it. Batches of
//! different streams meet in the queue. While one batch is appended the next one can be in its modules.
//!
//! A batch of which modules left out every record is acknowledged with the offsets -1. It is not stored and takes no offset, but for the
//! first of a producer that numbers its batches: that one leaves an empty batch, so that the numbers can be followed from there on.
//!
//! # Repetitions
//!
//! A producer that gets no answer sends its batch again, on another stream. The partition knows it by its sequence number and answers as
//! it did the first time ([`millpond_log::Log::admit`]). Modules run once more, since what they would drop is not known before. Where the
//! broker places the records, each part has the number of its batch, and [`Chain`] says which part it follows; one that was stored in
//! part goes through the modules that it went through then ([`crate::earlier`]).

use crate::{
    chain::{self, Chain},
    check,
    dead_letters::{self, Letters, Origin, Tally, Topics},
    earlier::Try,
    error::{EngineError, Purpose},
    inflight::InflightPermit,
    partition::{Partition, Submission},
    route::{self, Part, Routed, Slot},
    services::Services,
    topic::{Runtime, Topic},
    transform::{self, BatchLimits, DeadLetter, Records},
};
use bytes::Bytes;
use futures_util::{FutureExt, future::BoxFuture};
use millpond_log::SequenceOrder;
use millpond_protocol::{
    batch::{Batch, BatchHeader},
    message::{Ack, PlacedRecord, Placements, ProduceOpened},
};
use std::{
    fmt, mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Instant,
};
use tokio::sync::oneshot;

/// An ordered stream of batches into one topic.
#[derive(Debug)]
pub struct ProduceStream {
    services: Arc<Services>,
    /// Where dead letters may go.
    topics: Arc<Topics>,
    topic: Arc<Topic>,
    target: Target,
}

/// Where the batches go.
#[derive(Debug)]
enum Target {
    /// To this partition, whatever the topic's partitioner would say: the producer has chosen.
    Partition(Arc<Partition>),
    /// Where each record belongs.
    Placed {
        /// Counts the batches; records without a key go to this partition, modulo their number.
        sticky: u32,
        chain: Chain,
    },
}

/// The answer to a batch that was stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// On a stream into one partition.
    Ack(Ack),
    /// On a stream whose records the broker places.
    Placements(Placements),
}

/// Answers one batch, once the durability of its topic is met. Dropping it does not take the batch back.
#[derive(Debug)]
#[must_use = "it says whether the batch is stored"]
pub struct PendingAnswer {
    state: State,
    /// Records of the batch that go to other topics, and have to be stored as well, once the batch is.
    dead_letters: Option<Box<Post>>,
    /// What the batch is answered once they are.
    answer: Option<Answer>,
}

/// Dead letters before they are sent off.
#[derive(Debug, Default)]
struct Post {
    letters: Vec<Letters>,
    tally: Tally,
    permit: Option<InflightPermit>,
    sending: Option<Sending>,
}

/// Dead letters on their way.
struct Sending(BoxFuture<'static, Result<(), EngineError>>);

impl fmt::Debug for Sending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sending")
    }
}

type AckReceiver = oneshot::Receiver<Result<Ack, EngineError>>;

#[derive(Debug)]
enum State {
    Known(Option<Result<Answer, EngineError>>),
    Stored(AckReceiver),
    Placed(Box<Placing>),
}

/// A batch that was split, while its parts are stored.
#[derive(Debug)]
struct Placing {
    parts: Vec<PlacingPart>,
    /// Parts that are answered: the first ones.
    answered: usize,
    slots: Vec<Slot>,
    /// The answer but for the records.
    ack: Ack,
    error: Option<EngineError>,
    /// Of all parts that failed nothing is stored.
    is_refused: bool,
    attempt: Try,
}

#[derive(Debug)]
struct PlacingPart {
    partition: u32,
    receiver: AckReceiver,
    base_offset: i64,
}

impl ProduceStream {
    pub(crate) fn open(
        services: &Arc<Services>,
        topics: &Arc<Topics>,
        topic: &Arc<Topic>,
        partition: Option<u32>,
        sticky: u32,
    ) -> Result<(ProduceStream, ProduceOpened), EngineError> {
        let target = match partition {
            Some(number) => Target::Partition(Arc::clone(topic.partition(number, Purpose::Produce)?)),
            None => Target::Placed { sticky, chain: Chain::default() },
        };
        let runtime = topic.runtime();
        let opened = ProduceOpened {
            max_batch_bytes: runtime.config.max_batch_bytes,
            durability: runtime.config.durability,
            topic_epoch: runtime.epoch,
            // Nobody else has it: of 2^62 numbers none comes twice. So it takes no file, and none of another broker's is the same.
            producer_id: Some((rand::random::<u64>() >> 2).cast_signed()),
        };
        Ok((ProduceStream { services: Arc::clone(services), topics: Arc::clone(topics), topic: Arc::clone(topic), target }, opened))
    }

    /// Takes one batch: checks it (length, header, checksum), runs the topic's modules on it, and queues it for the append. Waits for
    /// the modules, and while the partition's queue is full. What is wrong with the batch is said by the answer.
    ///
    /// Batches are appended in the order of the calls. The permit is held until the batch is answered. A future that is dropped before
    /// it is ready may have stored nothing or, where the broker places records, some parts.
    pub async fn submit(&mut self, batch: Bytes, permit: InflightPermit) -> PendingAnswer {
        let mut post = Post::default();
        let state = self.take(batch, permit, &mut post).await.unwrap_or_else(|error| State::Known(Some(Err(error))));
        let dead_letters = (!post.letters.is_empty()).then(|| Box::new(post));
        PendingAnswer { state, dead_letters, answer: None }
    }

    async fn take(&mut self, bytes: Bytes, permit: InflightPermit, post: &mut Post) -> Result<State, EngineError> {
        let runtime = self.topic.runtime();
        let batch =
            check::accept(&self.topic.name, bytes, BatchLimits { batch_bytes_max: runtime.config.max_batch_bytes, ..self.limits() })?;
        match &mut self.target {
            Target::Partition(partition) => {
                let partition = Arc::clone(partition);
                self.take_for(&partition, runtime, batch, permit, post).await
            }
            Target::Placed { .. } => self.take_and_place(runtime, batch, permit, post).await,
        }
    }

    async fn take_for(
        &self,
        partition: &Arc<Partition>,
        runtime: Arc<Runtime>,
        batch: Batch,
        permit: InflightPermit,
        post: &mut Post,
    ) -> Result<State, EngineError> {
        let topic_epoch = runtime.epoch;
        let order = SequenceOrder::NextFrom { base_sequence: batch.header().base_sequence };
        // Of a compacted topic, the records are looked at even where no module does: each must have a key.
        let (batch, records_dropped, is_nothing) = if runtime.transforms.is_empty() && !runtime.config.cleanup.compacts() {
            (batch, 0, false)
        } else {
            let topic = Arc::clone(&self.topic.name);
            let (number, limits, header) = (partition.number(), self.limits(), *batch.header());
            let job = {
                let runtime = Arc::clone(&runtime);
                move || transform::transform(&topic, number, &runtime, &batch, limits)
            };
            let transformed = self.topic.plugin.run(job).await??;
            post.tally = transformed.tally;
            self.address(&transformed.dead_letters, Some(number), &header, &permit, post)?;
            match transformed.batch {
                Some(batch) => (batch, transformed.records_dropped, false),
                None if header.producer_id >= 0 => (transform::empty(&header)?, transformed.records_dropped, true),
                None => return Ok(State::Known(Some(Ok(Answer::Ack(self.nothing_stored(&runtime, transformed.records_dropped)))))),
            }
        };
        let submission = Submission { batch, records_dropped, topic_epoch, order, is_nothing, permit };
        Ok(State::Stored(partition.submit(submission).await?))
    }

    async fn take_and_place(
        &mut self,
        runtime: Arc<Runtime>,
        batch: Batch,
        permit: InflightPermit,
        post: &mut Post,
    ) -> Result<State, EngineError> {
        let header = *batch.header();
        let sticky = self.begin_placing(&header)?;
        let mut attempt = self.topic.earlier.begin(&header, &runtime, Instant::now());
        let routed = match self.route(&attempt.runtime(&runtime), sticky, &batch, &permit, post).await {
            // What it went through before can't run any more.
            Err(_) if attempt.is_with_others() => self.route(&runtime, sticky, &batch, &permit, post).await?,
            routed => routed?,
        };
        if routed.parts.is_empty() {
            attempt.may_be_stored();
        }
        let mut placing = Placing {
            parts: Vec::with_capacity(routed.parts.len()),
            answered: 0,
            slots: routed.slots,
            ack: self.nothing_stored(&runtime, routed.records_dropped),
            error: None,
            is_refused: true,
            attempt,
        };
        for Part { partition, batch } in routed.parts {
            let order = SequenceOrder::After { previous: self.chain().previous(partition) };
            let permit = permit.clone();
            let submission = Submission { batch, records_dropped: 0, topic_epoch: runtime.epoch, order, is_nothing: false, permit };
            match self.topic.partition(partition, Purpose::Produce)?.submit(submission).await {
                Ok(receiver) => placing.parts.push(PlacingPart { partition, receiver, base_offset: -1 }),
                // The parts before this one are on their way; they are waited for, so that the answer comes in order.
                Err(error) => {
                    placing.refuse(error);
                    return Ok(State::Placed(Box::new(placing)));
                }
            }
            self.chain().submitted(partition, &header);
            placing.attempt.may_be_stored();
        }
        self.chain().complete(&header);
        Ok(State::Placed(Box::new(placing)))
    }

    /// Runs the modules, makes parts of what is left, and batches of its dead letters.
    async fn route(
        &self,
        runtime: &Arc<Runtime>,
        sticky: u32,
        batch: &Batch,
        permit: &InflightPermit,
        post: &mut Post,
    ) -> Result<Routed, EngineError> {
        let topic = Arc::clone(&self.topic.name);
        let (partitions, limits) = (self.topic.partition_count(), self.limits());
        let job = {
            let (runtime, batch) = (Arc::clone(runtime), batch.clone());
            move || place(&topic, partitions, sticky, &runtime, &batch, limits)
        };
        let (routed, dead_letters, tally) = self.topic.plugin.run(job).await??;
        post.tally = tally;
        self.address(&dead_letters, None, batch.header(), permit, post)?;
        Ok(routed)
    }

    /// Makes batches of the dead letters of a batch, for their topics; they are numbered as it is.
    fn address(
        &self,
        letters: &[DeadLetter],
        partition: Option<u32>,
        header: &BatchHeader,
        permit: &InflightPermit,
        post: &mut Post,
    ) -> Result<(), EngineError> {
        if letters.is_empty() {
            return Ok(());
        }
        let origin = Origin { topic: &self.topic.name, partition, base_offset: None, base_timestamp: header.base_timestamp };
        let addressed = dead_letters::address(&self.topics, origin, letters)?;
        post.letters = match dead_letters::producer_of(origin, header) {
            Some(producer_id) => dead_letters::numbered(addressed, producer_id, header.base_sequence)?,
            None => addressed,
        };
        post.permit = Some(permit.clone());
        Ok(())
    }

    /// Holds a batch against the one before it on this stream. Gives the number that places its records without a key: of a batch that
    /// is sent again the same as the first time, so that no part of it meets another partition.
    fn begin_placing(&mut self, header: &BatchHeader) -> Result<u32, EngineError> {
        let Target::Placed { sticky, chain } = &mut self.target else { return Ok(0) };
        chain.begin(header).map_err(|source| EngineError::Sequence { topic: Arc::clone(&self.topic.name), partition: None, source })?;
        let counted = *sticky;
        *sticky = sticky.wrapping_add(1);
        Ok(if header.producer_id < 0 { counted } else { chain::spread(header) })
    }

    fn chain(&mut self) -> &mut Chain {
        match &mut self.target {
            Target::Placed { chain, .. } => chain,
            Target::Partition(_) => unreachable!("a stream into one partition places nothing"),
        }
    }

    fn limits(&self) -> BatchLimits {
        let config = &self.services.config;
        BatchLimits { section_bytes_max: config.section_bytes_max, batch_bytes_max: config.max_batch_bytes }
    }

    /// The acknowledgement of a batch of which nothing was left, and the front of [`Placements`].
    fn nothing_stored(&self, runtime: &Runtime, records_dropped: u32) -> Ack {
        Ack {
            base_offset: -1,
            last_offset: -1,
            append_time_ms: self.services.clock.now_ms(),
            topic_epoch: runtime.epoch,
            durability: runtime.config.durability,
            records_dropped,
        }
    }
}

/// Runs the transforms on the whole batch, then decides for each record that is left. Blocking.
fn place(
    topic: &Arc<str>,
    partitions: u32,
    sticky: u32,
    runtime: &Runtime,
    batch: &Batch,
    limits: BatchLimits,
) -> Result<(Routed, Vec<DeadLetter>, Tally), EngineError> {
    let mut records = Records::unpack(batch, limits.section_bytes_max)?;
    records.pass_through(topic, None, &runtime.transforms, batch.header())?;
    records.check_keys(topic, runtime)?;
    let places = match &runtime.partitioner {
        // A module is not asked about nothing.
        Some(partitioner) if records.count() > 0 => partitioner.partition(topic, &records, batch.header(), partitions)?,
        _ => route::by_default(&records, partitions, sticky),
    };
    let routed = route::split(topic, batch, &records, &places, limits.batch_bytes_max)?;
    Ok((routed, records.dead_letters, records.tally))
}

impl Future for PendingAnswer {
    type Output = Result<Answer, EngineError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if self.answer.is_none() {
            let answer = ready!(match &mut self.state {
                State::Known(answer) => Poll::Ready(answer.take().unwrap_or(Err(LOST))),
                State::Stored(receiver) => receive(receiver, context).map_ok(Answer::Ack),
                State::Placed(placing) => placing.poll(context).map_ok(Answer::Placements),
            });
            match answer {
                Ok(answer) => self.answer = Some(answer),
                // A batch that is refused has no dead letters: it may come again, any number of times.
                Err(error) => {
                    self.dead_letters = None;
                    return Poll::Ready(Err(error));
                }
            }
        }
        let sent = self.dead_letters.as_mut().map_or(Poll::Ready(Ok(())), |dead_letters| dead_letters.poll(context));
        let sent = ready!(sent);
        // They are counted before anybody hears of them.
        self.dead_letters = None;
        // If the batch comes again it is known, and the letters that are not there are made anew.
        sent.map_err(|lost| EngineError::PartlyStored(Box::new(lost)))?;
        Poll::Ready(self.answer.take().ok_or(LOST))
    }
}

impl Post {
    /// Sends the dead letters off, and waits until they are stored.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<(), EngineError>> {
        let (letters, permit) = (mem::take(&mut self.letters), self.permit.take());
        let sending = self.sending.get_or_insert_with(|| Sending(dead_letters::send(letters, permit).boxed()));
        let sent = ready!(sending.0.as_mut().poll(context));
        self.sending = None;
        self.tally.set_stored(sent.is_ok());
        Poll::Ready(sent)
    }
}

impl Placing {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<Placements, EngineError>> {
        while let Some(part) = self.parts.get_mut(self.answered) {
            match ready!(receive(&mut part.receiver, context)) {
                Ok(ack) => {
                    part.base_offset = ack.base_offset;
                    self.ack.append_time_ms = self.ack.append_time_ms.max(ack.append_time_ms);
                }
                Err(error) => self.refuse(error),
            }
            self.answered += 1;
        }
        let is_any_stored = self.parts.iter().any(|part| part.base_offset >= 0);
        Poll::Ready(match self.error.take() {
            Some(error) if is_any_stored => Err(EngineError::PartlyStored(Box::new(error))),
            Some(error) => {
                if self.is_refused {
                    self.attempt.was_refused();
                }
                Err(error)
            }
            None => Ok(Placements { ack: self.ack, records: self.slots.iter().map(|slot| self.place_of(*slot)).collect() }),
        })
    }

    /// A part is not stored, as far as is known.
    fn refuse(&mut self, error: EngineError) {
        self.is_refused &= error.says_nothing_is_stored();
        self.error.get_or_insert(error);
    }

    fn place_of(&self, slot: Slot) -> PlacedRecord {
        self.parts.get(slot.part as usize).map_or(PlacedRecord::DROPPED, |part| PlacedRecord {
            partition: part.partition,
            offset: part.base_offset + i64::from(slot.offset_delta),
        })
    }
}

fn receive(receiver: &mut AckReceiver, context: &mut Context<'_>) -> Poll<Result<Ack, EngineError>> {
    Pin::new(receiver).poll(context).map(|received| received.unwrap_or(Err(LOST)))
}

/// The job that owed the answer panicked; the log of the broker has the cause.
const LOST: EngineError = EngineError::JobLost { pool: "io" };

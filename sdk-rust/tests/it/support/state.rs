//! What the broker holds, and what it was told to do wrong.

use super::sequences::Sequences;
use bytes::{Bytes, BytesMut};
use millpond::{AttachPoint, AttachmentStatus, ErrorCode, PartitionInfo, Position, TopicConfig, TopicInfo, WireError};
use millpond_protocol::{
    batch::{Batch, BatchBuilder},
    compression::Codec,
    message::{Ack, Placements},
    record::NewRecord,
};
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, VecDeque},
    sync::atomic::{AtomicI64, AtomicUsize, Ordering},
};
use tokio::sync::{Semaphore, watch};

/// What happens to the next batch that arrives; `Store` when nothing is scripted.
#[derive(Clone, Debug)]
pub(crate) enum OnBatch {
    Store,
    /// Store it once a permit of [`State::gate`] is there.
    StoreWhenLetThrough,
    Refuse(WireError),
    /// The connection is lost before it is stored.
    LoseBefore,
    /// The connection is lost after it is stored and before it is answered.
    LoseAfter,
    /// The stream alone is reset.
    ResetStream,
    /// It is answered with bytes that are no answer.
    AnswerNonsense,
    /// Nothing more is taken on its stream. It is stored, or refused with this, and answered once a permit of [`State::gate`] is there. Then
    /// the stream ends and, if so told, the connection as soon as the client's side has got the answer.
    StopFirst {
        refuse: Option<WireError>,
        then_lose: bool,
    },
}

/// What happens to the next request; `Answer` when nothing is scripted.
#[derive(Clone, Debug)]
pub(crate) enum OnRequest {
    Answer,
    Refuse(WireError),
    LoseBefore,
    LoseAfter,
    Hang,
}

/// What happens at the next frame that is pushed to a consumer; `Push` when nothing is scripted.
#[derive(Clone, Debug)]
pub(crate) enum OnPush {
    Push,
    /// The connection is lost in the middle of the frame.
    LoseInside,
    /// The frame has one bit wrong.
    Corrupt,
    Refuse(WireError),
}

/// The answer to a batch that was stored.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    Ack(Ack),
    Placements(Placements),
}

pub(crate) struct FakeTopic {
    pub(crate) partitions: Vec<Vec<Batch>>,
    /// What is known of the producers of each partition; under none of those whose records the broker places.
    pub(crate) sequences: BTreeMap<Option<u32>, Sequences<Answer>>,
    pub(crate) log_start: i64,
    /// Offsets behind the last batch that are taken and that no batch holds.
    pub(crate) tail_gap: i64,
    pub(crate) placed_by_broker: bool,
    pub(crate) epoch: u32,
    pub(crate) max_batch_bytes: u32,
}

impl FakeTopic {
    pub(crate) fn new(partitions: usize) -> FakeTopic {
        FakeTopic {
            partitions: vec![Vec::new(); partitions],
            sequences: BTreeMap::new(),
            log_start: 0,
            tail_gap: 0,
            placed_by_broker: false,
            epoch: 1,
            max_batch_bytes: 1 << 20,
        }
    }

    pub(crate) fn end(&self, partition: usize) -> i64 {
        self.partitions[partition].last().map_or(0, |batch| batch.header().next_offset()) + self.tail_gap
    }

    /// Stores a batch and returns its base offset.
    pub(crate) fn append(&mut self, partition: usize, batch: &Batch) -> i64 {
        let base_offset = self.end(partition);
        let mut bytes = BytesMut::from(&batch.bytes()[..]);
        bytes[..16].copy_from_slice(&batch.with_base_offset(base_offset, 0));
        self.partitions[partition].push(Batch::parse(bytes.freeze()).unwrap());
        base_offset
    }

    /// The power went before the newest batches of a partition were on disk.
    pub(crate) fn lose_newest(&mut self, partition: u32, batches: usize) {
        let log = &mut self.partitions[partition as usize];
        log.truncate(log.len() - batches);
        let mut recovered = Sequences::new();
        for batch in log {
            recovered.appended(batch.header(), Answer::Ack(ack_of(batch)));
        }
        self.sequences.insert(Some(partition), recovered);
    }

    /// Stores these values as one batch.
    pub(crate) fn fill<V: AsRef<[u8]>>(&mut self, partition: usize, values: &[V]) {
        let mut builder = BatchBuilder::new();
        for (index, value) in values.iter().enumerate() {
            let timestamp = self.end(partition) + i64::try_from(index).unwrap();
            builder.push(&NewRecord { timestamp, value: Some(value.as_ref()), ..NewRecord::default() }).unwrap();
        }
        self.append(partition, &Batch::parse(builder.finish(Codec::None).unwrap()).unwrap());
    }

    pub(crate) fn info(&self, name: &str) -> TopicInfo {
        let partition = |number: usize| PartitionInfo {
            partition: u32::try_from(number).unwrap(),
            log_start: self.log_start,
            high_watermark: self.end(number),
            log_end: self.end(number),
            ..PartitionInfo::default()
        };
        let attachment = AttachmentStatus::new("by-device", AttachPoint::Partition);
        TopicInfo {
            name: name.to_owned(),
            config: TopicConfig { max_batch_bytes: self.max_batch_bytes, ..TopicConfig::default() },
            epoch: self.epoch,
            partitions: (0..self.partitions.len()).map(partition).collect(),
            attachments: self.placed_by_broker.then_some(attachment).into_iter().collect(),
            ..TopicInfo::default()
        }
    }

    pub(crate) fn resolve(&self, partition: usize, position: Position) -> Result<i64, WireError> {
        let end = self.end(partition);
        match position {
            Position::Beginning => Ok(self.log_start),
            Position::End => Ok(end),
            // The helper above gives each record its offset as its timestamp.
            Position::Offset(at) | Position::Time(at) if (self.log_start..=end).contains(&at) => Ok(at),
            Position::Offset(at) | Position::Time(at) => {
                let message = format!("offset {at} is outside of {} to {end}", self.log_start);
                Err(WireError { range: Some((self.log_start, end)), ..WireError::new(ErrorCode::OffsetOutOfRange, message) })
            }
        }
    }
}

/// The acknowledgement of a batch as it lies in the log.
pub(crate) fn ack_of(stored: &Batch) -> Ack {
    let header = stored.header();
    let (base_offset, last_offset) = (header.base_offset, header.last_offset());
    Ack { base_offset, last_offset, append_time_ms: 1, topic_epoch: 1, durability: millpond::Durability::Os, records_dropped: 0 }
}

/// Everything that tests look at or set.
pub(crate) struct State {
    pub(crate) topics: Mutex<BTreeMap<String, FakeTopic>>,
    /// Changes whenever something was stored.
    pub(crate) changed: watch::Sender<u64>,
    pub(crate) on_batch: Mutex<VecDeque<OnBatch>>,
    pub(crate) on_request: Mutex<VecDeque<OnRequest>>,
    pub(crate) on_push: Mutex<VecDeque<OnPush>>,
    /// A permit for each batch that is let through.
    pub(crate) gate: Semaphore,
    pub(crate) connections: AtomicUsize,
    /// Names of the requests that were acted on, in order.
    pub(crate) done: Mutex<Vec<String>>,
    /// Partitions of the produce streams that were opened, in order; none where the broker places.
    pub(crate) opened: Mutex<Vec<Option<u32>>>,
    /// The producer id of the next stream; negative in a broker that knows no such thing.
    pub(crate) next_producer_id: AtomicI64,
    /// Streams that a connection may have at a time.
    pub(crate) streams_max: u32,
    /// Batches that arrived, stored or not.
    pub(crate) arrived: watch::Sender<usize>,
    /// Bytes of batches that were pushed.
    pub(crate) pushed_bytes: AtomicUsize,
    /// Bodies of the modules that were deployed.
    pub(crate) modules: Mutex<Vec<Bytes>>,
    pub(crate) max_module_bytes: AtomicUsize,
}

impl State {
    pub(crate) fn new(name: &str, topic: FakeTopic) -> State {
        State {
            topics: Mutex::new(BTreeMap::from([(name.to_owned(), topic)])),
            changed: watch::Sender::new(0),
            on_batch: Mutex::default(),
            on_request: Mutex::default(),
            on_push: Mutex::default(),
            gate: Semaphore::new(0),
            connections: AtomicUsize::new(0),
            done: Mutex::default(),
            opened: Mutex::default(),
            next_producer_id: AtomicI64::new(1),
            streams_max: 1024,
            arrived: watch::Sender::new(0),
            pushed_bytes: AtomicUsize::new(0),
            modules: Mutex::default(),
            max_module_bytes: AtomicUsize::new(usize::MAX),
        }
    }

    pub(crate) fn script_batches(&self, script: impl IntoIterator<Item = OnBatch>) {
        self.on_batch.lock().extend(script);
    }

    pub(crate) fn script_requests(&self, script: impl IntoIterator<Item = OnRequest>) {
        self.on_request.lock().extend(script);
    }

    pub(crate) fn script_pushes(&self, script: impl IntoIterator<Item = OnPush>) {
        self.on_push.lock().extend(script);
    }

    /// Changes the topic `readings` and tells whoever waits for records.
    pub(crate) fn with_topic<T>(&self, change: impl FnOnce(&mut FakeTopic) -> T) -> T {
        let result = change(self.topics.lock().get_mut("readings").unwrap());
        self.changed.send_modify(|changes| *changes += 1);
        result
    }

    /// The values of a partition, as text.
    pub(crate) fn values(&self, partition: usize) -> Vec<String> {
        let batches = self.topics.lock()["readings"].partitions[partition].clone();
        let records = batches.iter().flat_map(|batch| batch.records(1 << 30).unwrap());
        records.map(|record| String::from_utf8(record.unwrap().value.unwrap().to_vec()).unwrap()).collect()
    }

    /// Producer id, epoch and sequence of each batch of a partition.
    pub(crate) fn numbers(&self, partition: usize) -> Vec<(i64, i16, i32)> {
        let numbers = |batch: &Batch| (batch.header().producer_id, batch.header().producer_epoch, batch.header().base_sequence);
        self.topics.lock()["readings"].partitions[partition].iter().map(numbers).collect()
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Waits until so many batches have arrived.
    pub(crate) async fn arrived(&self, batches: usize) {
        super::soon(async { self.arrived.subscribe().wait_for(|arrived| *arrived >= batches).await.map(|_| ()) }).await.unwrap();
    }
}

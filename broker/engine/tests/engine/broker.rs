//! What the tests of the engine share: a broker over a simulated or a real disk, and words for producing and consuming.

use crate::{gate::GatedDisk, guests};
use bytes::Bytes;
use millpond_engine::{Answer, Engine, EngineConfig, EngineError, PendingAnswer, ProduceStream, SimClock};
use millpond_log::{Disk, RealDisk, sim::SimDisk};
use millpond_protocol::{
    batch::{Batch, BatchBuilder},
    compression::Codec,
    message::{
        Ack, AttachPoint, AttachTransform, CreateTopic, Durability, ListOffset, ModuleRef, OffsetFound, OpenConsume, OpenProduce,
        Placements, Position, TopicConfig, TopicInfo,
    },
    record::NewRecord,
};
use std::{collections::BTreeMap, sync::Arc};
use tempfile::TempDir;

/// What the broker's clock shows.
pub(crate) const NOW_MS: i64 = 1_700_000_000_000;

/// Bytes of the reserve.
pub(crate) const RESERVE_BYTES: u64 = 20_000;

/// A broker and what it stands on. The folder is real in any case: the lock and the compiled modules are there.
pub(crate) struct Broker {
    pub(crate) engine: Arc<Engine>,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) dir: Arc<TempDir>,
    pub(crate) clock: Arc<SimClock>,
    pub(crate) config: EngineConfig,
}

impl Broker {
    pub(crate) async fn simulated() -> (Broker, SimDisk) {
        let disk = SimDisk::new();
        (Broker::on(Arc::new(disk.clone())).await, disk)
    }

    pub(crate) async fn real() -> Broker {
        Broker::on(Arc::new(RealDisk)).await
    }

    /// A simulated disk with gates in front of it.
    pub(crate) async fn gated() -> (Broker, SimDisk, GatedDisk) {
        let disk = SimDisk::new();
        let gated = GatedDisk::new(Arc::new(disk.clone()));
        (Broker::on(gated.disk()).await, disk, gated)
    }

    pub(crate) async fn on(disk: Arc<dyn Disk>) -> Broker {
        Broker::with(disk, |_| {}).await
    }

    pub(crate) async fn with(disk: Arc<dyn Disk>, change: impl FnOnce(&mut EngineConfig)) -> Broker {
        let dir = Arc::new(tempfile::tempdir().expect("a folder"));
        let clock = Arc::new(SimClock::at(NOW_MS));
        let mut config = config_in(&dir);
        change(&mut config);
        let engine = Engine::open(config.clone(), Arc::clone(&disk), Arc::clone(&clock) as _).await.expect("it opens");
        Broker { engine, disk, dir, clock, config }
    }

    /// Stops the broker and starts it again.
    pub(crate) async fn restart(self) -> Broker {
        self.engine.shutdown().await;
        let opened = Engine::open(self.config.clone(), Arc::clone(&self.disk), Arc::clone(&self.clock) as _).await;
        Broker { engine: opened.expect("it opens again"), ..self }
    }

    pub(crate) async fn topic(&self, name: &str, partitions: u32, durability: &str) -> TopicInfo {
        self.engine.create_topic(create(name, partitions, durability)).await.expect("it can be made")
    }

    pub(crate) fn producer(&self, topic: &str, partition: Option<u32>) -> ProduceStream {
        self.engine.open_produce(&OpenProduce { topic: topic.to_owned(), partition }).expect("it opens").0
    }

    /// Queues a batch.
    pub(crate) async fn submit(&self, producer: &mut ProduceStream, batch: Bytes) -> PendingAnswer {
        let permit = self.engine.reserve_inflight(batch.len()).await;
        producer.submit(batch, permit).await
    }

    /// One batch into one partition, answered.
    pub(crate) async fn produce(&self, topic: &str, partition: u32, values: &[&str]) -> Result<Ack, EngineError> {
        let mut producer = self.producer(topic, Some(partition));
        match self.submit(&mut producer, batch(values)).await.await? {
            Answer::Ack(ack) => Ok(ack),
            Answer::Placements(placements) => panic!("an ack was expected, not {placements:?}"),
        }
    }

    /// One batch whose records the broker places, answered.
    pub(crate) async fn place(&self, topic: &str, batch: Bytes) -> Result<Placements, EngineError> {
        let mut producer = self.producer(topic, None);
        match self.submit(&mut producer, batch).await.await? {
            Answer::Placements(placements) => Ok(placements),
            Answer::Ack(ack) => panic!("placements were expected, not {ack:?}"),
        }
    }

    /// Offsets and values of everything that can be read, in order.
    pub(crate) async fn read_all(&self, topic: &str, partition: u32) -> Vec<(i64, String)> {
        let end = self.offset_at(topic, partition, Position::End).await.expect("it is there").offset;
        let open = OpenConsume { topic: topic.to_owned(), partition, from: Position::Beginning, view: None };
        let (mut stream, _) = self.engine.open_consume(&open).await.expect("it opens");
        let mut found = Vec::new();
        while stream.position() < end {
            let (_, batches) = stream.next(1 << 20).await.expect("it reads");
            found.extend(records(batches));
        }
        found
    }

    pub(crate) async fn offset_at(&self, topic: &str, partition: u32, at: Position) -> Result<OffsetFound, EngineError> {
        self.engine.list_offset(&ListOffset { topic: topic.to_owned(), partition, at }).await
    }

    /// The values alone.
    pub(crate) async fn values(&self, topic: &str, partition: u32) -> Vec<String> {
        self.read_all(topic, partition).await.into_iter().map(|(_, value)| value).collect()
    }

    /// Uploads a guest and attaches it, in the mode of this letter; see [`crate::guests`].
    pub(crate) async fn attach(&self, topic: &str, module: &str, mode: char) {
        self.engine.deploy_module(module, guests::transform()).await.expect("it can be deployed");
        self.engine.attach(attachment(topic, module, mode)).await.expect("it can be attached");
    }
}

/// The defaults, with a small reserve: a simulated disk keeps it in memory.
fn config_in(dir: &TempDir) -> EngineConfig {
    EngineConfig { reserve_bytes: RESERVE_BYTES, ..EngineConfig::new(dir.path()) }
}

pub(crate) fn create(name: &str, partitions: u32, durability: &str) -> CreateTopic {
    let durability: Durability = durability.parse().expect("a durability");
    CreateTopic { name: name.to_owned(), partitions, config: TopicConfig { durability, ..TopicConfig::default() } }
}

pub(crate) fn attachment(topic: &str, module: &str, mode: char) -> AttachTransform {
    let params = BTreeMap::from([("mode".to_owned(), mode.to_string())]);
    AttachTransform { params, ..AttachTransform::new(topic, ModuleRef::current(module), AttachPoint::Produce) }
}

/// One batch without keys.
pub(crate) fn batch(values: &[&str]) -> Bytes {
    keyed_batch(&values.iter().map(|value| (None, *value)).collect::<Vec<_>>(), Codec::None)
}

pub(crate) fn keyed_batch(records: &[(Option<&str>, &str)], codec: Codec) -> Bytes {
    let mut builder = BatchBuilder::new();
    for (key, value) in records {
        let record = NewRecord { timestamp: NOW_MS, key: key.map(str::as_bytes), value: Some(value.as_bytes()), headers: &[] };
        builder.push(&record).expect("it fits");
    }
    builder.finish(codec).expect("it has records")
}

/// Offsets and values of the records in these batches.
pub(crate) fn records(mut batches: Bytes) -> Vec<(i64, String)> {
    let mut found = Vec::new();
    while let Some(batch) = Batch::take_front(&mut batches).expect("whole batches") {
        batch.verify_crc().expect("an intact batch");
        for record in batch.records(1 << 20).expect("it unpacks") {
            let record = record.expect("it reads");
            found.push((record.offset, String::from_utf8(record.value.expect("it has one").to_vec()).expect("text")));
        }
    }
    found
}

//! The broker with the topic that is attacked, and its neighbour; and who sends to it or reads from it.

use crate::{
    ATTACKERS, MEMORY_BYTES_MAX, NOW_MS, OUTPUT_BYTES_MAX, PLUGIN_THREADS, RECORDS, TIME_LIMIT,
    attacks::{Attack, Place},
    derived,
};
use bytes::Bytes;
use millpond_engine::{Engine, EngineConfig, EngineError, ProduceStream, SimClock};
use millpond_log::RealDisk;
use millpond_protocol::{
    batch::BatchBuilder,
    compression::Codec,
    error::ErrorCode,
    message::{
        AttachLimits, AttachPoint, AttachTransform, CreateTopic, Durability, ModuleRef, OpenConsume, OpenProduce, Position, TopicConfig,
    },
    record::NewRecord,
};
use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};
use tempfile::TempDir;
use tokio::{sync::mpsc, task::JoinHandle};

/// Who hears what comes of each batch that is attacked.
pub(crate) type Heard = mpsc::UnboundedSender<Option<ErrorCode>>;

/// A broker, and the folder that it is in.
pub(crate) struct Scene {
    pub(crate) engine: Arc<Engine>,
    pub(crate) config: EngineConfig,
    pub(crate) dir: TempDir,
}

impl Scene {
    /// A topic whose module attacks it, and a neighbour whose module is a good one.
    pub(crate) async fn open(attack: &Attack) -> Scene {
        let dir = tempfile::tempdir().expect("a folder");
        let mut config = EngineConfig { plugin_threads: PLUGIN_THREADS, reserve_bytes: 0, ..EngineConfig::new(dir.path()) };
        config.plugin_limits.time = TIME_LIMIT;
        let limits = &config.plugin_limits;
        assert_eq!(
            (limits.memory_bytes as u64, limits.output_bytes as u64),
            (MEMORY_BYTES_MAX, OUTPUT_BYTES_MAX),
            "the bound is made of them"
        );
        let engine = open(config.clone()).await;
        for topic in ["neighbour", "attacked", derived::TARGET] {
            let config = TopicConfig { durability: Durability::Os, ..TopicConfig::default() };
            engine.create_topic(CreateTopic { name: topic.to_owned(), partitions: 1, config }).await.expect("it can be made");
        }
        for module in ["identity", attack.module()] {
            engine.deploy_module(module, built(module)).await.expect("it can be deployed");
        }
        let good = AttachTransform::new("neighbour", ModuleRef::current("identity"), AttachPoint::Produce);
        // A busy machine may take away what it needs: that is no attack.
        let limits = AttachLimits { time_ms: Some(5_000), ..AttachLimits::default() };
        engine.attach(AttachTransform { params: params(&[("drop_every", "2")]), limits, ..good }).await.expect("it can be attached");
        let scene = Scene { engine, config, dir };
        if matches!(attack.place, Place::View | Place::Derive) {
            scene.fill(attack.place).await;
        }
        if attack.place != Place::Derive {
            scene.engine.attach(request(attack)).await.expect("it can be attached");
        }
        scene
    }

    /// What is there to be read: large batches, and many small ones where a read gives the module many at once.
    async fn fill(&self, place: Place) {
        let mut producer = producer(&self.engine, "attacked", Some(0));
        let small = if place == Place::View { SMALL_BATCHES } else { 0 };
        for (count, records) in [(LARGE_BATCHES, RECORDS), (small, 1)] {
            for word in ["poison", "good"].into_iter().cycle().take(count) {
                send(&self.engine, &mut producer, &batch(word, records)).await.expect("it is stored");
            }
        }
    }

    /// Begins the attack.
    pub(crate) async fn begin(&self, attack: &Attack, stop: &Arc<AtomicBool>, heard: &Heard) -> Vec<JoinHandle<()>> {
        let begin = |_| {
            let (engine, stop, heard) = (Arc::clone(&self.engine), Arc::clone(stop), heard.clone());
            match attack.place {
                Place::Produce => tokio::spawn(send_all(engine, Some(0), stop, heard)),
                Place::Partition => tokio::spawn(send_all(engine, None, stop, heard)),
                Place::View => tokio::spawn(read_all(engine, stop, heard)),
                Place::Derive => tokio::spawn(derived::watch(engine, stop, heard)),
            }
        };
        if attack.place == Place::Derive {
            self.engine.attach(request(attack)).await.expect("it can be attached");
            return vec![begin(0)];
        }
        (0..ATTACKERS).map(begin).collect()
    }

    /// Ends it all; first what is kept of the module is held against its bounds.
    pub(crate) async fn end(self, attack: &Attack) {
        if attack.place == Place::Derive {
            return derived::is_bounded_and_stays(self, attack).await;
        }
        self.engine.shutdown().await;
    }
}

pub(crate) async fn open(config: EngineConfig) -> Arc<Engine> {
    Engine::open(config, Arc::new(RealDisk), Arc::new(SimClock::at(NOW_MS))).await.expect("it opens")
}

/// The hostile module on its place.
fn request(attack: &Attack) -> AttachTransform {
    let on = match attack.place {
        Place::Produce => AttachPoint::Produce,
        Place::Partition => AttachPoint::Partition,
        Place::View => AttachPoint::Fetch,
        Place::Derive => return derived::request(attack),
    };
    let plain = AttachTransform::new("attacked", ModuleRef::current(attack.module()), on);
    let params = params(&[("mode", attack.mode), ("only", "poison"), ("after", "20")]);
    let view = (attack.place == Place::View).then(|| VIEW.to_owned());
    AttachTransform { params, view, on_error: attack.on_error.parse().expect("it is one"), ..plain }
}

pub(crate) fn params(params: &[(&str, &str)]) -> BTreeMap<String, String> {
    params.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn built(module: &str) -> Bytes {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../plugins/dist").join(module).with_extension("wasm");
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}; plugins/build.sh makes it", path.display())).into()
}

/// Sends batches that the module attacks, each followed by one that it lets through: one that fails on everything would be paused, and do
/// no more harm.
async fn send_all(engine: Arc<Engine>, partition: Option<u32>, stop: Arc<AtomicBool>, heard: Heard) {
    let mut producer = producer(&engine, "attacked", partition);
    let (poison, good) = (batch("poison", RECORDS), batch("good", RECORDS));
    while !stop.load(Ordering::Relaxed) {
        let code = send(&engine, &mut producer, &poison).await.err().map(|error| error.code());
        heard.send(code).expect("somebody counts");
        send(&engine, &mut producer, &good).await.expect("a good batch goes through");
    }
}

/// Reads what is there again and again, behind each batch on which the view fails.
async fn read_all(engine: Arc<Engine>, stop: Arc<AtomicBool>, heard: Heard) {
    let end = engine.topic("attacked").expect("it is there").partitions[0].high_watermark;
    let mut position = 0;
    while !stop.load(Ordering::Relaxed) {
        let from = Position::Offset(position);
        let open = OpenConsume { topic: "attacked".to_owned(), partition: 0, from, view: Some(VIEW.to_owned()) };
        let (mut stream, _) = engine.open_consume(&open).await.expect("it opens");
        let failed = loop {
            if stream.position() >= end || stop.load(Ordering::Relaxed) {
                break false;
            }
            match stream.next(PUSH_BYTES).await {
                Ok(_) => heard.send(None).expect("somebody counts"),
                Err(error) => {
                    heard.send(Some(error.code())).expect("somebody counts");
                    break true;
                }
            }
        };
        let offset = |records: usize| i64::try_from(records).expect("small");
        let records = if stream.position() < offset(LARGE_BATCHES * RECORDS) { RECORDS } else { 1 };
        position = if failed { stream.position() + offset(records) } else { 0 };
        position = if position < end { position } else { 0 };
    }
}

pub(crate) fn producer(engine: &Arc<Engine>, topic: &str, partition: Option<u32>) -> ProduceStream {
    engine.open_produce(&OpenProduce { topic: topic.to_owned(), partition }).expect("it opens").0
}

pub(crate) async fn send(engine: &Engine, producer: &mut ProduceStream, batch: &Bytes) -> Result<(), EngineError> {
    // A copy, as each batch comes from the network anew.
    let batch = Bytes::copy_from_slice(batch);
    let permit = engine.reserve_inflight(batch.len()).await;
    producer.submit(batch, permit).await.await.map(|_| ())
}

/// One batch, of records of 100 bytes with this word in them.
pub(crate) fn batch(word: &str, records: usize) -> Bytes {
    let mut builder = BatchBuilder::new();
    for number in 0..records {
        let value = format!("{word} {number:0>90}");
        let record = NewRecord { timestamp: NOW_MS, key: None, value: Some(value.as_bytes()), headers: &[] };
        builder.push(&record).expect("it fits");
    }
    builder.finish(Codec::None).expect("it has records")
}

/// What a consumer asks for at once, in bytes.
pub(crate) const PUSH_BYTES: usize = 1 << 20;

/// The view that is read through.
const VIEW: &str = "view";

/// What is there to be read: every second is attacked.
pub(crate) const LARGE_BATCHES: usize = 60;
const SMALL_BATCHES: usize = 1_000;

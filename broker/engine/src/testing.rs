//! What the tests inside this crate share: a small engine over a simulated disk, whose threads and timers they hold.

use crate::{
    clock::SimClock, config::EngineConfig, engine::Engine, error::EngineError, partition::Partition, pool::Pool, produce::PendingAnswer,
};
use bytes::Bytes;
use millpond_log::sim::{HookedDisk, Operation, SimDisk};
use millpond_protocol::{
    batch::BatchBuilder,
    compression::Codec,
    message::{CreateTopic, OnFull, OpenProduce, TopicConfig},
    record::NewRecord,
};
use std::{
    path::Path,
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};
use tempfile::TempDir;
use tokio::task::JoinHandle;

/// An engine that looks at nothing by itself for an hour.
pub(crate) struct Site {
    pub(crate) engine: Arc<Engine>,
    pub(crate) disk: SimDisk,
    pub(crate) clock: Arc<SimClock>,
    _dir: TempDir,
    _busy: Busy,
}

/// As long as it lives, the clock of a runtime with paused time stands still, but for what the test moves it.
struct Busy(JoinHandle<()>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Site {
    pub(crate) async fn new() -> Site {
        Site::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut EngineConfig)) -> Site {
        Site::hooked(|_, _| {}, change).await
    }

    /// One whose disk tells what is about to be done (`millpond_log::sim::HookedDisk`).
    pub(crate) async fn hooked(before: impl Fn(Operation, &Path) + Send + Sync + 'static, change: impl FnOnce(&mut EngineConfig)) -> Site {
        let busy = tokio::spawn(async {
            loop {
                tokio::task::yield_now().await;
            }
        });
        let dir = tempfile::tempdir().expect("a folder");
        let mut config =
            EngineConfig { reserve_bytes: 0, retention_check_interval: Duration::from_hours(1), ..EngineConfig::new(dir.path()) };
        change(&mut config);
        let (disk, clock) = (SimDisk::new(), Arc::new(SimClock::at(1_700_000_000_000)));
        let hooked = HookedDisk::new(Arc::new(disk.clone()), before);
        let engine = Engine::open(config, Arc::new(hooked), Arc::clone(&clock) as _).await.expect("it opens");
        Site { engine, disk, clock, _dir: dir, _busy: Busy(busy) }
    }

    /// A topic of one partition with small batches.
    pub(crate) async fn topic(&self, name: &str, change: impl FnOnce(&mut TopicConfig)) -> Arc<Partition> {
        let mut config = TopicConfig { max_batch_bytes: 64 << 10, segment_bytes: 64 << 10, ..TopicConfig::default() };
        change(&mut config);
        self.engine.create_topic(CreateTopic { name: name.to_owned(), partitions: 1, config }).await.expect("it can be made");
        Arc::clone(&self.engine.find_topic(name).expect("it is there").partitions[0])
    }

    /// The same with a quota of [`QUOTA`] and hardly a byte left of it. It drops its oldest records, and was never asked to.
    pub(crate) async fn full_topic(&self, name: &str) -> Arc<Partition> {
        let mut config = TopicConfig::default();
        let partition = self
            .topic(name, |topic| {
                topic.quota_bytes = Some(QUOTA);
                config = topic.clone();
            })
            .await;
        for value_bytes in [VALUE_BYTES, 1_000, 100, 1] {
            let next = batch(0, value_bytes);
            while partition.size_bytes() + next.len() as u64 <= QUOTA {
                answer(self.submit(name, next.clone()).await).await.expect("there is room");
            }
        }
        self.engine.find_topic(name).expect("it is there").space().set(&TopicConfig { on_full: OnFull::DropOldest, ..config });
        partition
    }

    /// Queues a batch.
    pub(crate) async fn submit(&self, topic: &str, batch: Bytes) -> PendingAnswer {
        let open = OpenProduce { topic: topic.to_owned(), partition: Some(0) };
        let (mut stream, _) = self.engine.open_produce(&open).expect("it opens");
        let permit = self.engine.reserve_inflight(batch.len()).await;
        stream.submit(batch, permit).await
    }
}

/// A batch of one record with this key.
pub(crate) fn batch(key: usize, value_bytes: usize) -> Bytes {
    let (key, value) = (key.to_string(), vec![7; value_bytes]);
    let mut builder = BatchBuilder::new();
    builder.push(&NewRecord { key: Some(key.as_bytes()), value: Some(&value), ..NewRecord::default() }).expect("it fits");
    builder.finish(Codec::None).expect("it has a record")
}

/// Lets all that is ready go as far as it can, but for threads.
pub(crate) async fn settle() {
    for _ in 0..1_000 {
        tokio::task::yield_now().await;
    }
}

/// Holds one thread of a pool until it is dropped.
pub(crate) fn hold(pool: &Pool) -> mpsc::Sender<()> {
    let (held, gate) = mpsc::channel::<()>();
    pool.spawn(move || {
        let _ = gate.recv();
    });
    held
}

/// Waits until something is so, while time stands still.
pub(crate) async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(30), "{what} does not come");
        tokio::task::yield_now().await;
    }
}

/// Waits for an answer, while time stands still.
pub(crate) async fn answer(mut pending: PendingAnswer) -> Result<(), EngineError> {
    let mut answer = None;
    until("an answer", || {
        answer = futures_util::FutureExt::now_or_never(&mut pending);
        answer.is_some()
    })
    .await;
    answer.expect("it was waited for").map(drop)
}

/// For eight segments.
pub(crate) const QUOTA: u64 = 512 << 10;

/// Of a batch of which six fill a segment.
pub(crate) const VALUE_BYTES: usize = 10_000;

//! Group commit: many writers on one partition, each of which waits for its batch to be durable before it sends the next.
//!
//! The broker's engine runs in this process, with the settings that everybody gets, and the writers hand it their batches as its front door
//! does: what is measured is the way of a batch from there to the disk and back, on the engine's own threads. What QUIC takes of a machine is in
//! the other cases; beside it, two cores can't keep a fast disk busy.

use super::{
    BenchError,
    payload::Values,
    plan::Case,
    samples::{Latencies, Sample, Throughput},
};
use bytes::Bytes;
use millpond_engine::{Engine, EngineConfig, EngineError, SystemClock};
use millpond_log::RealDisk;
use millpond_protocol::{
    batch::BatchBuilder,
    compression::Codec,
    message::{CreateTopic, Durability, OpenProduce, TopicConfig},
    record::NewRecord,
};
use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::task::JoinSet;

/// Writers, each with one batch under way.
pub(super) const WRITERS: usize = 64;

/// Bytes of the record in each batch.
pub(super) const RECORD_BYTES: usize = 16 << 10;

/// What a writer stores before anything is measured: the first segment is there, and every thread has run.
const WARM_UP_BATCHES: usize = 4;

/// Writes for `duration` into a topic in this folder, which is removed afterwards, and asks the engine whether every record is there.
pub(super) async fn commit(folder: &Path, values: &Values, duration: Duration) -> Result<Sample, BenchError> {
    let data_dir = folder.join("group-commit");
    let engine = Engine::open(EngineConfig::new(&data_dir), Arc::new(RealDisk), Arc::new(SystemClock)).await?;
    let measured = measure(&engine, values, duration).await;
    engine.shutdown().await;
    drop(engine);
    let removed = std::fs::remove_dir_all(&data_dir).map_err(|source| BenchError::File { action: "remove", path: data_dir, source });
    measured.and_then(|sample| removed.map(|()| sample))
}

async fn measure(engine: &Arc<Engine>, values: &Values, duration: Duration) -> Result<Sample, BenchError> {
    let topic = Case::GroupCommit.name();
    let config = TopicConfig { durability: Durability::Sync, ..TopicConfig::default() };
    engine.create_topic(CreateTopic { name: topic.to_owned(), partitions: 1, config }).await?;
    let value = values.piece(0, RECORD_BYTES);
    let mut builder = BatchBuilder::new();
    // A record of 16 KiB fits, and the codec takes any bytes.
    let record = NewRecord { timestamp: 0, key: None, value: Some(&value), headers: &[] };
    builder.push(&record).map_err(EngineError::from)?;
    let batch = builder.finish(Codec::None).map_err(EngineError::from)?;
    write_all(engine, &batch, WARM_UP_BATCHES, None).await?;
    let started = Instant::now();
    let latencies = write_all(engine, &batch, 1, Some(started + duration)).await?;
    let elapsed = started.elapsed();
    let records = latencies.iter().map(Vec::len).sum::<usize>();
    let expected = (records + WRITERS * WARM_UP_BATCHES) as u64;
    let actual = engine.topic(topic)?.partitions.iter().map(|partition| partition.high_watermark.unsigned_abs()).sum();
    if expected != actual {
        return Err(BenchError::Miscounted { case: topic, expected, actual });
    }
    let latencies: Latencies = latencies.into_iter().flatten().collect();
    let throughput = Throughput { bytes: (records * RECORD_BYTES) as u64, records: records as u64, elapsed };
    let Sample { p50_us, p99_us, .. } = Sample::from(latencies);
    Ok(Sample { p50_us, p99_us, ..Sample::from(throughput) })
}

/// All writers at once, each with so many batches at least, and until then. The first error ends the others.
async fn write_all(
    engine: &Arc<Engine>,
    batch: &Bytes,
    batches_min: usize,
    until: Option<Instant>,
) -> Result<Vec<Vec<Duration>>, EngineError> {
    let mut writing = JoinSet::new();
    for _ in 0..WRITERS {
        // On the workers, where the front door's streams are.
        writing.spawn(write(Arc::clone(engine), batch.clone(), batches_min, until));
    }
    let mut waits = Vec::with_capacity(WRITERS);
    while let Some(outcome) = writing.join_next().await {
        waits.push(outcome.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))?);
    }
    Ok(waits)
}

/// One batch after the other.
async fn write(engine: Arc<Engine>, batch: Bytes, batches_min: usize, until: Option<Instant>) -> Result<Vec<Duration>, EngineError> {
    let open = OpenProduce { topic: Case::GroupCommit.name().to_owned(), partition: Some(0) };
    let (mut stream, _) = engine.open_produce(&open)?;
    let mut waits = Vec::new();
    while waits.len() < batches_min || until.is_some_and(|until| Instant::now() < until) {
        let begun = Instant::now();
        let permit = engine.reserve_inflight(batch.len()).await;
        stream.submit(batch.clone(), permit).await.await?;
        waits.push(begun.elapsed());
    }
    Ok(waits)
}

//! Group commit: many producers on one partition, each of which waits for its record to be durable before it sends the next.

use super::{
    BenchError,
    broker::Broker,
    payload::Values,
    plan::Case,
    samples::{Latencies, Sample, Throughput},
};
use millpond::{Producer, Record};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Producers, each with one record under way.
pub(super) const WRITERS: usize = 64;

/// Bytes of a record.
pub(super) const RECORD_BYTES: usize = 16 << 10;

/// What a producer sends before anything is measured: its stream is open, and the first segment is there.
const WARM_UP_RECORDS: usize = 4;

/// Produces for `duration`, and checks with the broker that every record is there.
pub(super) async fn commit(broker: &Broker, case: Case, values: &Values, duration: Duration) -> Result<Sample, BenchError> {
    let mut producers = Vec::with_capacity(WRITERS);
    for _ in 0..WRITERS {
        producers.push(broker.client.producer(case.name()).linger(Duration::ZERO).build().await?);
    }
    let mut writing = JoinSet::new();
    for (writer, producer) in producers.into_iter().enumerate() {
        let values = values.clone();
        writing.spawn(async move { write(&producer, &values, writer, WARM_UP_RECORDS, None).await.map(|_| producer) });
    }
    let producers = all(writing).await?;
    let (mut writing, started) = (JoinSet::new(), Instant::now());
    for (writer, producer) in producers.into_iter().enumerate() {
        let values = values.clone();
        writing.spawn(async move { write(&producer, &values, writer, 1, Some(started + duration)).await });
    }
    let latencies = all(writing).await?;
    let elapsed = started.elapsed();
    let latencies: Latencies = latencies.into_iter().flatten().collect();
    let records = latencies.len();
    let (expected, actual) = ((records + WRITERS * WARM_UP_RECORDS) as u64, broker.records(case).await?);
    if expected != actual {
        return Err(BenchError::Miscounted { case: case.name(), expected, actual });
    }
    let throughput = Throughput { bytes: (records * RECORD_BYTES) as u64, records: records as u64, elapsed };
    let Sample { p50_us, p99_us, .. } = Sample::from(latencies);
    Ok(Sample { p50_us, p99_us, ..Sample::from(throughput) })
}

/// One record after the other: so many at least, and until then.
async fn write(
    producer: &Producer,
    values: &Values,
    writer: usize,
    records_min: usize,
    until: Option<Instant>,
) -> Result<Vec<Duration>, BenchError> {
    let mut waits = Vec::new();
    while waits.len() < records_min || until.is_some_and(|until| Instant::now() < until) {
        let record = Record::new(values.piece(waits.len() * WRITERS + writer, RECORD_BYTES));
        let begun = Instant::now();
        producer.send(record).await?;
        waits.push(begun.elapsed());
    }
    Ok(waits)
}

/// What all of them come to. They run on the workers, as a user's would; the first error ends the others.
async fn all<T: Send + 'static>(mut tasks: JoinSet<Result<T, BenchError>>) -> Result<Vec<T>, BenchError> {
    let mut outcomes = Vec::with_capacity(tasks.len());
    while let Some(outcome) = tasks.join_next().await {
        outcomes.push(outcome.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))?);
    }
    Ok(outcomes)
}

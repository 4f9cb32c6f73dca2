//! Producing as fast as it goes, through the same calls that every user of the SDK makes.

use super::{
    BenchError,
    broker::Broker,
    payload::Values,
    plan::Case,
    samples::{Sample, Throughput},
};
use millpond::{Producer, Record};
use std::{
    ops::Range,
    time::{Duration, Instant},
};

/// Partitions of a topic that throughput is measured on: as many as the demo has, so that batches spread over appends and flushes.
pub(super) const PARTITIONS: u32 = 3;

/// Records between two looks at the clock, which would otherwise show in the result.
const RECORDS_BETWEEN_LOOKS: usize = 64;

/// Produced and acknowledged before the clock starts: streams are open, the first segment is there.
const WARM_UP_RECORDS: usize = 4096;

/// What came of producing.
pub(super) struct Produced {
    pub(super) sample: Sample,
    /// Records in the topic, those of the warm-up included.
    pub(super) stored: u64,
}

/// Produces for `duration`, waits for the last acknowledgement, and checks with the broker that all of them are there.
pub(super) async fn produce(broker: &Broker, case: Case, values: &Values, duration: Duration) -> Result<Produced, BenchError> {
    let producer = broker.client.producer(case.name()).build().await?;
    enqueue(&producer, values, 0..WARM_UP_RECORDS).await?;
    producer.flush().await?;
    let started = Instant::now();
    let mut records = 0;
    while started.elapsed() < duration {
        enqueue(&producer, values, records..records + RECORDS_BETWEEN_LOOKS).await?;
        records += RECORDS_BETWEEN_LOOKS;
    }
    producer.flush().await?;
    let elapsed = started.elapsed();
    let stats = producer.stats();
    producer.close().await?;
    let (expected, actual) = ((records + WARM_UP_RECORDS) as u64, broker.records(case).await?);
    if expected != actual {
        return Err(BenchError::Miscounted { case: case.name(), expected, actual });
    }
    let throughput = Throughput { bytes: (records * values.value_bytes()) as u64, records: records as u64, elapsed };
    let micros = |time: Duration| Some(time.as_secs_f64() * 1e6);
    let (p50_us, p99_us) = (micros(stats.ack_latency.p50), micros(stats.ack_latency.p99));
    Ok(Produced { sample: Sample { p50_us, p99_us, ..Sample::from(throughput) }, stored: actual })
}

/// Goes on through the values, as the raw measurements do: a few that come again and again would be read from a processor's cache.
async fn enqueue(producer: &Producer, values: &Values, records: Range<usize>) -> Result<(), BenchError> {
    for index in records {
        // Nobody waits for the single delivery; `flush` says whether all went well.
        drop(producer.enqueue(Record::new(values.get(index))).await?);
    }
    Ok(())
}

//! One record at a time, with no linger: what a single record waits for.

use super::{BenchError, broker::Broker, payload::Values, plan::Case, samples::Latencies};
use millpond::{Record, Start};
use std::time::{Duration, Instant};
use tokio::time::{MissedTickBehavior, interval};

/// Sent before anything is measured: streams are open, the first segment is there.
const WARM_UP_RECORDS: usize = 64;

/// Measured at least, however slow the disk is.
const RECORDS_MIN: usize = 10;

/// The rate of the end-to-end measurement is one record in so long: 500 a second.
const END_TO_END_PERIOD: Duration = Duration::from_millis(2);

/// From `send` to the acknowledgement, the next record after it.
pub(super) async fn acknowledgements(broker: &Broker, case: Case, values: &Values, duration: Duration) -> Result<Latencies, BenchError> {
    let producer = broker.client.producer(case.name()).linger(Duration::ZERO).build().await?;
    for index in 0..WARM_UP_RECORDS {
        producer.send(Record::new(values.get(index))).await?;
    }
    let mut latencies = Latencies::default();
    let started = Instant::now();
    while started.elapsed() < duration || latencies.len() < RECORDS_MIN {
        let record = Record::new(values.get(latencies.len()));
        let begun = Instant::now();
        producer.send(record).await?;
        latencies.add(begun.elapsed());
    }
    producer.close().await?;
    Ok(latencies)
}

/// From `enqueue` to the record in a consumer's hand. Records come at a fixed rate, and a late one does not hurry the next.
pub(super) async fn end_to_end(broker: &Broker, case: Case, values: &Values, duration: Duration) -> Result<Latencies, BenchError> {
    let producer = broker.client.producer(case.name()).linger(Duration::ZERO).build().await?;
    let mut consumer = broker.client.consumer(case.name()).start(Start::Beginning).build().await?;
    let mut ticks = interval(END_TO_END_PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut latencies = Latencies::default();
    let mut sent = 0;
    let mut started = Instant::now();
    while started.elapsed() < duration || latencies.len() < RECORDS_MIN {
        ticks.tick().await;
        if sent == WARM_UP_RECORDS {
            (latencies, started) = (Latencies::default(), Instant::now());
        }
        let record = Record::new(values.get(sent));
        sent += 1;
        let begun = Instant::now();
        let delivery = producer.enqueue(record).await?;
        let received = consumer.next().await.transpose()?;
        latencies.add(begun.elapsed());
        // Records come one by one and in order, so it is the one that was sent.
        if received.is_none_or(|received| received.offset.unsigned_abs() != sent as u64 - 1) {
            return Err(BenchError::Miscounted { case: case.name(), expected: sent as u64, actual: sent as u64 - 1 });
        }
        delivery.await?;
    }
    producer.close().await?;
    Ok(latencies)
}

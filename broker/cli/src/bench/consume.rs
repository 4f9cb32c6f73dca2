//! Reading a topic from the beginning, every record looked at.

use super::{BenchError, broker::Broker, plan::Case, samples::Throughput};
use millpond::Start;
use std::time::Instant;

/// Reads the `records` that a case left in its topic. The time begins with the request, so that nothing is under way before it.
pub(super) async fn consume(broker: &Broker, case: Case, records: u64) -> Result<Throughput, BenchError> {
    let started = Instant::now();
    let mut consumer = broker.client.consumer(case.name()).start(Start::Beginning).build().await?;
    let (mut counted, mut bytes) = (0, 0);
    while counted < records {
        let Some(batch) = consumer.next_batch().await.transpose()? else { break };
        for record in batch {
            counted += 1;
            bytes += record?.value.map_or(0, |value| value.len() as u64);
        }
    }
    let elapsed = started.elapsed();
    if counted != records {
        return Err(BenchError::Miscounted { case: Case::Consume1k.name(), expected: records, actual: counted });
    }
    Ok(Throughput { bytes, records: counted, elapsed })
}

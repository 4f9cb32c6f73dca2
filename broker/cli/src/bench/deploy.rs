//! From the upload of a module to the first record that has passed it.

use super::{
    BenchError,
    broker::Broker,
    modules::Module,
    payload::Values,
    plan::Case,
    samples::{Latencies, Sample},
};
use millpond::{AttachPoint, AttachTransform, DetachTransform, ModuleRef, Record};
use std::time::{Duration, Instant};

/// Uploads in a round. None of them is like another, so each is compiled.
const DEPLOYS: u32 = 5;

/// Deploys the module and attaches it to the topic, where a producer is at work already, until a record of it is acknowledged.
pub(super) async fn deploy(broker: &Broker, case: Case, module: &Module, values: &Values, number: &mut u32) -> Result<Sample, BenchError> {
    let producer = broker.client.producer(case.name()).linger(Duration::ZERO).build().await?;
    let admin = broker.client.admin();
    let mut latencies = Latencies::default();
    for index in 0..DEPLOYS {
        *number += 1;
        let name = format!("bench-deploy-{number}");
        let wasm = module.unseen(*number);
        producer.send(Record::new(values.get(index as usize)).with_partition(0)).await?;
        let begun = Instant::now();
        admin.deploy_module(&name, wasm).await?;
        let topic = case.name().to_owned();
        admin.attach(AttachTransform::new(topic, ModuleRef::current(&name), AttachPoint::Produce)).await?;
        producer.send(Record::new(values.get(index as usize)).with_partition(0)).await?;
        latencies.add(begun.elapsed());
        let passed = broker.records(case).await?;
        if passed != 1 {
            return Err(BenchError::Miscounted { case: case.name(), expected: 1, actual: passed });
        }
        admin.detach(DetachTransform::new(case.name(), name.clone(), AttachPoint::Produce)).await?;
        admin.delete_module(ModuleRef::current(&name)).await?;
    }
    producer.close().await?;
    Ok(latencies.into())
}

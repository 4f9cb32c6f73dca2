//! A module that does not come to its end, where what it derives is to stop: nobody waits for its time to be over, nothing of what it was at
//! has an effect, and it is no failure of the module's.

use crate::{
    broker::{Broker, attachment},
    derive::caught_up,
    guests,
};
use millpond_engine::{EngineConfig, EngineError};
use millpond_log::sim::SimDisk;
use millpond_protocol::message::{AttachLimits, AttachPoint, AttachTransform, DeriveInto, DetachTransform, ModuleRef, OnError};
use std::{sync::Arc, time::Duration};
use tokio::time::timeout;

/// The most that a module may ask for: it has some of it in each round.
const TIME_MS: u64 = 60_000;

/// Far more than a stop takes on a machine that is busy with other tests, and far less than the module has.
const SOON: Duration = Duration::from_secs(20);

/// More than there are threads for modules.
const PARTITIONS: u32 = 6;

/// A broker with a source of which each partition has two batches, and behind them one on which the module goes on for ever.
async fn with_looping() -> Broker {
    let broker = Broker::with(Arc::new(SimDisk::new()), |config: &mut EngineConfig| config.plugin_threads = 2).await;
    for topic in ["source", "target"] {
        broker.topic(topic, PARTITIONS, "sync").await;
    }
    for partition in 0..PARTITIONS {
        for value in ["a", "b", "c~"] {
            broker.produce("source", partition, &[value, value]).await.expect("it is stored");
        }
    }
    broker.engine.deploy_module("m", guests::transform()).await.expect("it can be deployed");
    broker
}

/// Begins, with the first answer for a record that it fails on being to leave it out; all partitions are at the module, or wait for it.
async fn begin(broker: &Broker) {
    let derive = Some(DeriveInto { retries: Some(0), ..DeriveInto::new(["target"]) });
    let limits = AttachLimits { time_ms: Some(TIME_MS), ..AttachLimits::default() };
    let attach = AttachTransform::new("source", ModuleRef::current("m"), AttachPoint::Derive);
    broker.engine.attach(AttachTransform { derive, limits, on_error: OnError::Skip, ..attach }).await.expect("it can be attached");
    // What others do goes on meanwhile, and takes longer than a round's way to its module.
    broker.topic("other", 1, "sync").await;
    for _ in 0..200 {
        broker.produce("other", 0, &["x"]).await.expect("it is stored");
    }
    broker.engine.delete_topic("other").await.expect("it can be deleted");
}

async fn soon<T>(what: &str, change: impl Future<Output = Result<T, EngineError>>) -> T {
    let done = timeout(SOON, change).await.unwrap_or_else(|_| panic!("{what} waits for the module"));
    done.unwrap_or_else(|error| panic!("{what}: {error}"))
}

#[tokio::test]
async fn detaching_waits_for_no_module_and_neither_do_other_changes() {
    let broker = with_looping().await;
    begin(&broker).await;
    let detach = DetachTransform::new("source", "m", AttachPoint::Derive);
    let create = broker.engine.create_topic(crate::broker::create("new", 1, "sync"));
    tokio::join!(soon("detaching", broker.engine.detach(detach)), soon("making a topic", create));
    // The threads are free again.
    broker.attach("new", "free", 'i').await;
    soon("a batch", broker.produce("new", 0, &["x"])).await;
    let again = AttachTransform { derive: Some(DeriveInto::new(["new"])), ..attachment("source", "m", 'i') };
    let refused = broker.engine.attach(AttachTransform { on: AttachPoint::Derive, ..again }).await;
    refused.expect_err("a module runs on its target: nothing else is in the way, the one before is gone");
}

#[tokio::test]
async fn deleting_the_source_waits_for_no_module() {
    let broker = with_looping().await;
    begin(&broker).await;
    soon("deleting", broker.engine.delete_topic("source")).await;
    soon("making it again", broker.engine.create_topic(crate::broker::create("source", 1, "sync"))).await;
}

#[tokio::test]
async fn a_shutdown_waits_for_no_module_and_each_record_has_its_effect_once() {
    let broker = with_looping().await;
    begin(&broker).await;
    // It runs from the next start on.
    soon("a deploy", broker.engine.deploy_module("m", guests::built("identity"))).await;
    let stopped = async {
        broker.engine.shutdown().await;
        Ok(())
    };
    soon("a shutdown", stopped).await;
    let status = broker.engine.topic("source").expect("it is there").attachments.remove(0);
    assert_eq!((status.failures, status.records_failed), (0, 0), "it has not failed: {status:?}");

    let broker = broker.restart().await;
    caught_up(&broker, "source").await;
    let mut values = Vec::new();
    for partition in 0..PARTITIONS {
        values.extend(broker.values("target", partition).await);
    }
    values.sort_unstable();
    let each = 2 * PARTITIONS as usize;
    assert_eq!(values, ["a", "b", "c~"].iter().flat_map(|value| vec![*value; each]).collect::<Vec<_>>());
}

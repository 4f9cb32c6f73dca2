//! A slow module slows its own topic, and not its neighbours.
//!
//! Time is not measured here, but what comes to its end before what: the slow one goes on until it is stopped, or its batches are counted.
//! The tests run on one async worker, so one that ran guest code would not get anywhere meanwhile.

use crate::{
    broker::{Broker, attachment, batch},
    derive::caught_up,
    guests,
};
use futures_util::FutureExt;
use millpond_engine::EngineConfig;
use millpond_log::sim::SimDisk;
use millpond_protocol::{
    error::ErrorCode,
    message::{AttachLimits, AttachPoint, AttachTransform, DeriveInto, DetachTransform, ModuleRef, OnError, OpenConsume, Position},
};
use std::{collections::BTreeMap, sync::Arc};

async fn broker_with(plugin_threads: usize) -> Broker {
    Broker::with(Arc::new(SimDisk::new()), |config: &mut EngineConfig| config.plugin_threads = plugin_threads).await
}

/// A topic with a module that goes on for ever on a value that ends in `~`, until its time is over.
async fn looping(broker: &Broker, topic: &str, time_ms: u64) {
    broker.topic(topic, 1, "os").await;
    broker.engine.deploy_module("m", guests::transform()).await.expect("it can be deployed");
    let limits = AttachLimits { time_ms: Some(time_ms), ..AttachLimits::default() };
    broker.engine.attach(AttachTransform { limits, ..attachment(topic, "m", 'c') }).await.expect("it can be attached");
}

/// As long as a module may have: the tests don't wait for its end.
const LONG_MS: u64 = 60_000;

/// Batches of each neighbour: many for one that would wait for another, and few for a machine on which some guests loop and others build.
const ROUNDS: usize = 20;

#[tokio::test]
async fn many_batches_of_neighbours_pass_while_one_batch_of_a_hostile_module_runs() {
    let broker = broker_with(2).await;
    broker.topic("slow", 1, "os").await;
    broker.engine.deploy_module("hostile", guests::hostile()).await.expect("it can be deployed");
    let params = BTreeMap::from([("mode".to_owned(), "loop".to_owned())]);
    let limits = AttachLimits { time_ms: Some(LONG_MS), ..AttachLimits::default() };
    let attach = AttachTransform::new("slow", ModuleRef::current("hostile"), AttachPoint::Produce);
    broker.engine.attach(AttachTransform { params, limits, ..attach }).await.expect("it can be attached");
    for topic in ["a", "b"] {
        looping(&broker, topic, LONG_MS).await;
    }
    broker.topic("plain", 1, "os").await;

    let mut producers: Vec<_> = (0..4).map(|_| broker.producer("slow", Some(0))).collect();
    let mut slow: Vec<_> = producers.iter_mut().map(|producer| Box::pin(broker.submit(producer, batch(&["x"])))).collect();
    for submitted in &mut slow {
        assert!(submitted.now_or_never().is_none());
    }
    for number in 0..ROUNDS {
        let value = number.to_string();
        for topic in ["a", "b", "plain"] {
            broker.produce(topic, 0, &[&value]).await.expect("it is stored");
        }
    }
    assert!(slow.iter_mut().all(|submitted| submitted.now_or_never().is_none()), "the slow one is still at its first batch");
    assert_eq!(broker.values("b", 0).await.len(), ROUNDS);
    let status = broker.engine.topic("slow").expect("it is there").attachments.remove(0);
    assert_eq!((status.batches, status.paused), (0, None));
    broker.engine.shutdown().await;
    for submitted in slow {
        let error = submitted.await.await.expect_err("it was stopped").to_wire();
        assert_eq!((error.code, error.retryable), (ErrorCode::ShuttingDown, true), "{error:?}");
    }
}

#[tokio::test]
async fn modules_that_hold_all_threads_hold_up_no_neighbour_on_any_way() {
    let broker = broker_with(2).await;
    for topic in ["slow-1", "slow-2", "slow-3", "neighbour"] {
        looping(&broker, topic, LONG_MS).await;
    }
    for topic in ["derived-1", "derived-2", "derived-3", "target"] {
        broker.topic(topic, 1, "sync").await;
    }
    let mut producers: Vec<_> = ["slow-1", "slow-2", "slow-3"].map(|topic| broker.producer(topic, Some(0))).into();
    let mut slow: Vec<_> = producers.iter_mut().map(|producer| Box::pin(broker.submit(producer, batch(&["x~"])))).collect();
    for submitted in &mut slow {
        assert!(submitted.now_or_never().is_none());
    }
    for (source, value) in [("derived-1", "x~"), ("derived-2", "x~"), ("derived-3", "a")] {
        broker.produce(source, 0, &[value]).await.expect("it is stored");
        let limits = AttachLimits { time_ms: Some(LONG_MS), ..AttachLimits::default() };
        let attach = AttachTransform { derive: Some(DeriveInto::new(["target"])), limits, ..attachment(source, "m", 'c') };
        broker.engine.attach(AttachTransform { on: AttachPoint::Derive, on_error: OnError::Stop, ..attach }).await.expect("it is attached");
    }
    caught_up(&broker, "derived-3").await;
    for _ in 0..ROUNDS {
        broker.produce("neighbour", 0, &["a"]).await.expect("it is stored");
        broker.produce("derived-3", 0, &["a"]).await.expect("it is stored");
        caught_up(&broker, "derived-3").await;
    }
    assert!(slow.iter_mut().all(|submitted| submitted.now_or_never().is_none()), "all of them are at their first batch");
    for topic in ["slow-1", "slow-2", "slow-3", "derived-1", "derived-2"] {
        assert_eq!(broker.engine.topic(topic).expect("it is there").attachments[0].batches, 0, "{topic}");
    }
    broker.engine.shutdown().await;
}

#[tokio::test]
async fn a_slow_derived_topic_of_many_partitions_holds_up_no_other_derived_topic() {
    let broker = broker_with(2).await;
    for topic in ["slow", "slow-target"] {
        broker.topic(topic, 4, "sync").await;
    }
    for topic in ["fast", "fast-target"] {
        broker.topic(topic, 1, "sync").await;
    }
    broker.engine.deploy_module("m", guests::transform()).await.expect("it can be deployed");
    for partition in 0..4 {
        broker.produce("slow", partition, &["x~"]).await.expect("it is stored");
    }
    let limits = AttachLimits { time_ms: Some(LONG_MS), ..AttachLimits::default() };
    for (source, target) in [("slow", "slow-target"), ("fast", "fast-target")] {
        let derive = Some(DeriveInto { retries: Some(100), ..DeriveInto::new([target]) });
        let attach = AttachTransform { derive, limits: limits.clone(), on_error: OnError::Stop, ..attachment(source, "m", 'c') };
        broker.engine.attach(AttachTransform { on: AttachPoint::Derive, ..attach }).await.expect("it can be attached");
    }
    for _ in 0..ROUNDS {
        broker.produce("fast", 0, &["a"]).await.expect("it is stored");
        caught_up(&broker, "fast").await;
        let status = broker.engine.topic("slow").expect("it is there").attachments.remove(0);
        assert_eq!((status.batches, status.paused), (0, None), "the slow one is still at its first batch");
    }
    assert_eq!(broker.values("fast-target", 0).await.len(), ROUNDS);
    broker.engine.shutdown().await;
}

#[tokio::test]
async fn a_slow_view_and_a_slow_start_hold_up_no_producer() {
    let broker = broker_with(2).await;
    broker.topic("viewed", 1, "os").await;
    broker.produce("viewed", 0, &["x~"]).await.expect("it is stored");
    looping(&broker, "neighbour", LONG_MS).await;
    let limits = AttachLimits { time_ms: Some(LONG_MS), ..AttachLimits::default() };
    let view = AttachTransform { on: AttachPoint::Fetch, view: Some("v".to_owned()), limits, ..attachment("viewed", "m", 'c') };
    broker.engine.attach(view.clone()).await.expect("it can be attached");
    let open = OpenConsume { topic: "viewed".to_owned(), partition: 0, from: Position::Beginning, view: Some("v".to_owned()) };
    let mut consumer = broker.engine.open_consume(&open).await.expect("it opens").0;
    let mut reading = Box::pin(consumer.next(1 << 20));
    assert!((&mut reading).now_or_never().is_none());
    let produce_many = async || {
        for _ in 0..ROUNDS {
            // The view's own topic has no module on produce.
            for topic in ["neighbour", "viewed"] {
                broker.produce(topic, 0, &["a"]).await.expect("it is stored");
            }
        }
    };
    produce_many().await;
    assert!((&mut reading).now_or_never().is_none(), "the view is still at its first batch");
    let detach = DetachTransform { view: Some("v".to_owned()), ..DetachTransform::new("viewed", "m", AttachPoint::Fetch) };
    broker.engine.detach(detach).await.expect("it can be detached");
    reading.await.expect_err("it is stopped a while after");

    // A start that does not come to its end, on a topic of its own.
    broker.topic("starting", 1, "os").await;
    let never = AttachTransform { params: attachment("t", "m", 'w').params, topic: "starting".to_owned(), ..view };
    let mut attaching = Box::pin(broker.engine.attach(never));
    assert!((&mut attaching).now_or_never().is_none());
    produce_many().await;
    assert!((&mut attaching).now_or_never().is_none(), "the module still starts");
    broker.engine.shutdown().await;
    attaching.await.expect_err("it was stopped");
}

#[tokio::test]
async fn on_one_thread_a_neighbour_waits_for_one_batch_of_each_slow_topic_at_most() {
    const SLOW: [&str; 3] = ["slow-1", "slow-2", "slow-3"];
    let broker = broker_with(1).await;
    looping(&broker, "neighbour", 1_000).await;
    for topic in SLOW {
        looping(&broker, topic, 40).await;
    }
    let ended = || -> u64 { SLOW.iter().map(|topic| broker.engine.topic(topic).expect("it is there").attachments[0].batches).sum() };
    // As many as a module may fail on before it is paused.
    let mut producers: Vec<_> = (0..10).flat_map(|_| SLOW.map(|topic| broker.producer(topic, Some(0)))).collect();
    let mut slow: Vec<_> = producers.iter_mut().map(|producer| Box::pin(broker.submit(producer, batch(&["x~"])))).collect();
    for submitted in &mut slow {
        // From here on it waits for the thread, or has it.
        assert!(submitted.now_or_never().is_none());
    }
    let mut waited_for = Vec::new();
    for _ in 0..3 {
        let before = ended();
        broker.produce("neighbour", 0, &["a"]).await.expect("it is stored");
        waited_for.push(ended() - before);
    }
    // The one that has the thread, and a turn of each; and one more that ends while the acknowledgement is on its way.
    assert!(waited_for.iter().all(|batches| *batches <= SLOW.len() as u64 + 2), "{waited_for:?}");
    assert!(waited_for.iter().sum::<u64>() >= 3, "they did stand in the way: {waited_for:?}");
    for submitted in slow {
        submitted.await.await.expect_err("its time is over");
    }
}

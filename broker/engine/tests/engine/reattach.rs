//! How a module runs is changed in its place: between two batches, and nothing that it has done is done again.

use crate::{
    broker::{Broker, attachment, batch},
    derive::{caught_up, counts, derived, into, send, until},
    derive_guests, guests,
};
use futures_util::FutureExt;
use millpond_engine::EngineConfig;
use millpond_log::sim::SimDisk;
use millpond_protocol::{
    error::ErrorCode,
    message::{
        AlterTopic, AlterTransform, AttachLimits, AttachPoint, AttachTransform, AttachmentStatus, Cleanup, DeriveInto, DetachTransform,
        Limit, ModuleRef, OnError, Position, RollbackModule,
    },
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

fn alter(topic: &str, module: &str, on: AttachPoint) -> AlterTransform {
    AlterTransform::new(topic, module.parse().expect("a module"), on)
}

fn mode(letter: char) -> BTreeMap<String, String> {
    BTreeMap::from([("mode".to_owned(), letter.to_string())])
}

fn status(broker: &Broker, topic: &str) -> AttachmentStatus {
    broker.engine.topic(topic).expect("it is there").attachments.remove(0)
}

async fn with_counter() -> Broker {
    let (broker, _) = Broker::simulated().await;
    for topic in ["source", "a", "dead"] {
        broker.topic(topic, 1, "sync").await;
    }
    broker.engine.deploy_module("counter", derive_guests::counter(1)).await.expect("it can be deployed");
    broker.engine.attach(into("source", "counter", &["a"])).await.expect("it can be attached");
    broker
}

fn of(expected: &[(&str, u32)]) -> Vec<(String, u32)> {
    expected.iter().map(|(key, count)| ((*key).to_owned(), *count)).collect()
}

#[tokio::test]
async fn what_derives_goes_on_where_it_is_with_its_state_and_what_is_said_holds_after_a_restart() {
    let broker = with_counter().await;
    send(&broker, "source", 0, &[("k", "0"), ("k", "0")]).await.expect("it is stored");
    caught_up(&broker, "source").await;
    send(&broker, "source", 0, &[("k", "?"), ("k", "0")]).await.expect("it is stored");
    until(&broker, "source", |partitions| partitions[0].error.is_some()).await;
    assert_eq!(derived(&broker, "source")[0].position, 2, "it has stopped before the record that it refuses");

    let on_error = Some(OnError::DeadLetter("dead".to_owned()));
    let limits = AttachLimits { time_ms: Some(70), memory_bytes: Some(1 << 20), ..AttachLimits::default() };
    let (state_bytes, retries) = (Some(1 << 10), Some(7));
    let change = AlterTransform { on_error, limits, state_bytes, retries, ..alter("source", "counter", AttachPoint::Derive) };
    let changed = broker.engine.alter_attachment(change).await.expect("it can be changed");
    let told = changed.derived.expect("it derives topics");
    assert_eq!((told.retries, told.state_bytes_max, changed.limits.time_ms), (7, 1 << 10, Some(70)));
    caught_up(&broker, "source").await;
    assert_eq!(counts(&broker, "a", 0).await, of(&[("k", 1), ("k", 2), ("k", 3)]), "nothing twice, and the state went on");
    assert_eq!(broker.values("dead", 0).await, ["?"]);

    // The one limit goes, the other stays; the rest is as it was.
    let limits = AttachLimits { memory_bytes: Some(1 << 20), ..AttachLimits::default() };
    let change = AlterTransform { limits_reset: true, limits, ..alter("source", "counter", AttachPoint::Derive) };
    broker.engine.alter_attachment(change).await.expect("it can be changed");
    let broker = broker.restart().await;
    send(&broker, "source", 0, &[("k", "0")]).await.expect("it is stored");
    until(&broker, "source", |partitions| partitions[0].position == 5).await;
    assert_eq!(counts(&broker, "a", 0).await.last(), Some(&("k".to_owned(), 4)));
    let status = status(&broker, "source");
    let told = status.derived.expect("it derives topics");
    assert_eq!((told.retries, told.state_bytes_max, status.on_error), (7, 1 << 10, OnError::DeadLetter("dead".to_owned())));
    assert_eq!(status.limits.memory_bytes, Some(1 << 20));
    assert_ne!(status.limits.time_ms, Some(70), "the broker's");
}

#[tokio::test]
async fn parameters_are_set_and_removed_and_the_place_in_the_chain_stays() {
    let (broker, _) = Broker::simulated().await;
    broker.topic("t", 1, "os").await;
    for (module, letter) in [("first", 'x'), ("second", 'o')] {
        broker.engine.deploy_module(module, guests::transform()).await.expect("it can be deployed");
        broker.engine.attach(attachment("t", module, letter)).await.expect("it can be attached");
    }
    broker.produce("t", 0, &["a", "b"]).await.expect("it is stored");
    let change = AlterTransform { params: mode('c'), ..alter("t", "first", AttachPoint::Produce) };
    let changed = broker.engine.alter_attachment(change).await.expect("it can be changed");
    assert_eq!((changed.params, changed.batches), (mode('c'), 1), "what it has counted stays");
    broker.produce("t", 0, &["c", "d"]).await.expect("it is stored");
    // Twice, then every other one; the other case, then every other one.
    assert_eq!(broker.values("t", 0).await, ["a", "a", "C"]);
    assert_eq!(status(&broker, "t").module, "first");

    let removed = BTreeSet::from(["mode".to_owned()]);
    let change = AlterTransform {
        params_removed: removed,
        params: BTreeMap::from([("a".to_owned(), "i".to_owned())]),
        ..alter("t", "first", AttachPoint::Produce)
    };
    let changed = broker.engine.alter_attachment(change).await.expect("it can be changed");
    assert_eq!(changed.params, BTreeMap::from([("a".to_owned(), "i".to_owned())]));
    broker.produce("t", 0, &["e", "f"]).await.expect("it is stored");
    assert_eq!(broker.values("t", 0).await, ["a", "a", "C", "e"]);
}

#[tokio::test]
async fn a_version_is_stayed_with_and_left_again_without_a_step_back() {
    let broker = with_counter().await;
    send(&broker, "source", 0, &[("k", "0")]).await.expect("it is stored");
    caught_up(&broker, "source").await;
    broker.engine.alter_attachment(alter("source", "counter@1", AttachPoint::Derive)).await.expect("it can be changed");
    broker.engine.deploy_module("counter", derive_guests::tolerant_counter()).await.expect("it can be deployed");
    let pinned = status(&broker, "source");
    assert_eq!((pinned.version, pinned.pinned), (Some(1), true), "it stays");
    send(&broker, "source", 0, &[("k", "?")]).await.expect("it is stored");
    until(&broker, "source", |partitions| partitions[0].error.is_some()).await;
    let change = AlterTransform { follow_current: true, ..alter("source", "counter", AttachPoint::Derive) };
    let followed = broker.engine.alter_attachment(change).await.expect("it can be changed");
    assert_eq!((followed.version, followed.pinned), (Some(2), false));
    caught_up(&broker, "source").await;
    assert_eq!(counts(&broker, "a", 0).await, of(&[("k", 1), ("k", 2)]), "version 2 bears what version 1 stopped at");
    broker.engine.rollback_module(RollbackModule { name: "counter".to_owned(), to: None }).await.expect("there is one");
    assert_eq!(status(&broker, "source").version, Some(1), "it follows");
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_and_whatever_ran_goes_on() {
    let broker = with_counter().await;
    broker.topic("t", 1, "os").await;
    broker.engine.deploy_module("m", guests::transform()).await.expect("it can be deployed");
    broker.engine.attach(attachment("t", "m", 'c')).await.expect("it can be attached");
    send(&broker, "source", 0, &[("k", "0"), ("l", "0")]).await.expect("it is stored");
    caught_up(&broker, "source").await;
    let (before, before_t) = (status(&broker, "source"), status(&broker, "t"));
    let (d, m) = (alter("source", "counter", AttachPoint::Derive), alter("t", "m", AttachPoint::Produce));
    let with = |change: fn(&mut AlterTransform)| {
        let mut altered = m.clone();
        change(&mut altered);
        altered
    };
    for (change, code, says) in [
        (alter("none", "m", AttachPoint::Produce), ErrorCode::TopicNotFound, "none"),
        (alter("t", "none", AttachPoint::Produce), ErrorCode::AttachmentNotFound, "none"),
        (alter("t", "m", AttachPoint::Fetch), ErrorCode::AttachmentNotFound, "fetch"),
        (alter("t", "m@7", AttachPoint::Produce), ErrorCode::ModuleNotFound, "m@7"),
        (with(|m| m.params = mode('r')), ErrorCode::GuestFailed, "refused to start"),
        (with(|m| m.limits.time_ms = Some(0)), ErrorCode::InvalidConfig, "`time_ms` is 0 ms: 1 ms to 60 s"),
        (with(|m| m.on_error = Some(OnError::Stop)), ErrorCode::InvalidConfig, "only what derives"),
        (with(|m| m.on_error = Some(OnError::DeadLetter("none".to_owned()))), ErrorCode::TopicNotFound, "none"),
        (with(|m| m.params_removed = BTreeSet::from(["none".to_owned()])), ErrorCode::InvalidConfig, "no parameter `none`"),
        (with(|m| m.retries = Some(1)), ErrorCode::InvalidConfig, "only what derives"),
        (with(|m| (m.module, m.follow_current) = ("m@1".parse().expect("a version"), true)), ErrorCode::InvalidConfig, "stay one version"),
        (with(|m| (m.params, m.params_removed) = (mode('c'), BTreeSet::from(["mode".to_owned()]))), ErrorCode::InvalidConfig, "`mode`"),
        // Two entries are there.
        (AlterTransform { state_bytes: Some(137), ..d.clone() }, ErrorCode::InvalidConfig, "138 bytes of state already"),
        (AlterTransform { state_bytes: Some(0), ..d.clone() }, ErrorCode::InvalidConfig, "keeps state"),
        (AlterTransform { state_bytes: Some(1 << 40), ..d.clone() }, ErrorCode::InvalidConfig, "16 MiB"),
        (AlterTransform { retries: Some(u32::MAX), ..d.clone() }, ErrorCode::InvalidConfig, "retries"),
        (
            AlterTransform { on_error: Some(OnError::DeadLetter("a".to_owned())), ..d.clone() },
            ErrorCode::InvalidConfig,
            "takes what is derived",
        ),
        (AlterTransform { on_error: Some(OnError::DeadLetter("source".to_owned())), ..d }, ErrorCode::InvalidConfig, "itself"),
    ] {
        let error = broker.engine.alter_attachment(change.clone()).await.expect_err("it is refused").to_wire();
        assert!(error.code == code && error.message.contains(says) && error.hint.is_some(), "{change:?}: {error:?}");
    }
    assert_eq!((status(&broker, "source"), status(&broker, "t")), (before, before_t));
    broker.produce("t", 0, &["a"]).await.expect("it is stored");
    assert_eq!(broker.values("t", 0).await, ["A"]);
    let broker = broker.restart().await;
    assert_eq!(status(&broker, "t").params, mode('c'));
}

#[tokio::test]
async fn what_has_stopped_at_a_target_goes_on_once_that_takes_it() {
    let (broker, _) = Broker::simulated().await;
    for topic in ["source", "target"] {
        broker.topic(topic, 1, "sync").await;
    }
    let change = AlterTopic { name: "target".to_owned(), cleanup: Some(Cleanup::Compact), ..AlterTopic::default() };
    broker.engine.alter_topic(change.clone()).await.expect("it can be changed");
    broker.engine.deploy_module("m", guests::transform()).await.expect("it can be deployed");
    let attach = AttachTransform { params: mode('i'), ..AttachTransform::new("source", ModuleRef::current("m"), AttachPoint::Derive) };
    let derive = Some(DeriveInto { retries: Some(0), ..DeriveInto::new(["target"]) });
    broker.engine.attach(AttachTransform { derive, on_error: OnError::Stop, ..attach }).await.expect("it can be attached");
    broker.produce("source", 0, &["without a key"]).await.expect("it is stored");
    until(&broker, "source", |partitions| partitions[0].error.is_some()).await;
    let error = derived(&broker, "source")[0].error.clone().expect("it has stopped");
    assert!(error.starts_with("stopped:") && error.contains("`millpond topic alter target --cleanup delete`"), "{error}");
    broker.engine.alter_topic(AlterTopic { cleanup: Some(Cleanup::Delete), ..change }).await.expect("it can be changed");
    until(&broker, "source", |partitions| partitions[0].lag == 0 && partitions[0].error.is_none()).await;
    assert_eq!(broker.values("target", 0).await, ["without a key"]);
}

#[tokio::test]
async fn who_detaches_hears_where_it_was_and_it_can_begin_there_again() {
    let (broker, _) = Broker::simulated().await;
    for topic in ["source", "a", "b"] {
        broker.topic(topic, 3, "sync").await;
    }
    broker.engine.deploy_module("counter", derive_guests::counter(1)).await.expect("it can be deployed");
    broker.engine.attach(into("source", "counter", &["a"])).await.expect("it can be attached");
    send(&broker, "source", 0, &[("k", "0"), ("k", "0"), ("k", "0")]).await.expect("it is stored");
    send(&broker, "source", 2, &[("k", "0")]).await.expect("it is stored");
    caught_up(&broker, "source").await;
    let detach = || DetachTransform::new("source", "counter", AttachPoint::Derive);
    let at_end = |targets: &[&str]| {
        let mut attach = into("source", "counter", targets);
        attach.derive.as_mut().expect("it has targets").start = Position::End;
        attach
    };
    let last = broker.engine.detach(detach()).await.expect("it is attached").derived.expect("it derived topics");
    let places: BTreeMap<_, _> = last.partitions.iter().map(|one| (one.partition, one.position)).collect();
    assert_eq!(places, BTreeMap::from([(0, 3), (1, 0), (2, 1)]));
    // Also where nobody has read the place since the start.
    broker.engine.attach(at_end(&["a"])).await.expect("it can be attached");
    let broker = broker.restart().await;
    let last = broker.engine.detach(detach()).await.expect("it is attached").derived.expect("it derived topics");
    assert_eq!(last.partitions.iter().map(|one| one.position).collect::<Vec<_>>(), [3, 0, 1]);

    send(&broker, "source", 2, &[("l", "0")]).await.expect("it is stored");
    let at = |offsets: BTreeMap<u32, i64>, start| {
        let attach = into("source", "counter", &["b"]);
        let derive = attach.derive.clone().map(|derive| DeriveInto { offsets, start, ..derive });
        AttachTransform { derive, ..attach }
    };
    for (offsets, code) in
        [([(3, 0)], ErrorCode::PartitionOutOfRange), ([(0, 4)], ErrorCode::OffsetOutOfRange), ([(0, -1)], ErrorCode::OffsetOutOfRange)]
    {
        let error = broker.engine.attach(at(offsets.into(), Position::Beginning)).await.expect_err("there is no such place");
        assert_eq!(error.code(), code, "{offsets:?}");
    }
    // The one that is not named begins where all others do.
    broker.engine.attach(at(BTreeMap::from([(0, 2), (2, 1)]), Position::End)).await.expect("it can be attached");
    caught_up(&broker, "source").await;
    let place = |key: &str| millpond_protocol::partitioner::for_key(key.as_bytes(), 3);
    let mut found = counts(&broker, "b", place("k")).await;
    if place("k") != place("l") {
        found.extend(counts(&broker, "b", place("l")).await);
    }
    found.sort();
    assert_eq!(found, of(&[("k", 1), ("l", 1)]));
}

#[tokio::test]
async fn what_is_on_its_way_to_a_topic_for_dead_letters_goes_there_whatever_is_said_since() {
    let (broker, _) = Broker::simulated().await;
    for (topic, partitions) in [("source", 1), ("out", 1), ("first", 3), ("second", 1)] {
        broker.topic(topic, partitions, "sync").await;
    }
    let room = |quota_bytes| AlterTopic { name: "first".to_owned(), quota_bytes: Some(quota_bytes), ..AlterTopic::default() };
    let small = AlterTopic { max_batch_bytes: Some(1 << 10), ..room(Limit::Of(4 << 10)) };
    broker.engine.alter_topic(small).await.expect("it can be changed");
    broker.engine.deploy_module("m", guests::transform()).await.expect("it can be deployed");
    let attach = AttachTransform { params: mode('i'), ..AttachTransform::new("source", ModuleRef::current("m"), AttachPoint::Derive) };
    let (derive, on_error) = (Some(DeriveInto { retries: Some(0), ..DeriveInto::new(["out"]) }), OnError::DeadLetter("first".to_owned()));
    broker.engine.attach(AttachTransform { derive, on_error, ..attach }).await.expect("it can be attached");
    let value = |number: i32| format!("{number:03}{}!", "x".repeat(300));
    let keyed = |number: i32| (format!("key-{number}"), value(number));
    let send_some = async |numbers: std::ops::Range<i32>| {
        let records: Vec<_> = numbers.map(keyed).collect();
        let records: Vec<_> = records.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        send(&broker, "source", 0, &records).await.expect("it is stored");
    };
    send_some(0..60).await;
    until(&broker, "source", |partitions| partitions[0].error.as_ref().is_some_and(|error| error.contains("room"))).await;
    let undelivered = derived(&broker, "source")[0].undelivered.expect("some letters have no room");
    let refused = broker.engine.detach(DetachTransform::new("source", "m", AttachPoint::Derive)).await.expect_err("they would be lost");
    let refused = refused.to_wire();
    let said =
        format!("before offset {} of partition 0 is not in its targets yet ({} batches)", undelivered.committed, undelivered.batches);
    assert!(refused.message.contains(&said) && refused.hint.is_some_and(|hint| hint.contains("--force")), "{}", refused.message);
    for (on_error, next) in [(OnError::DeadLetter("second".to_owned()), 60..70), (OnError::Skip, 70..80), (OnError::Stop, 80..80)] {
        let change = AlterTransform { on_error: Some(on_error), ..alter("source", "m", AttachPoint::Derive) };
        broker.engine.alter_attachment(change).await.expect("it can be changed");
        if !next.is_empty() {
            send_some(next).await;
        }
        // It goes on once there is room.
        assert!(derived(&broker, "source")[0].lag > 0);
    }
    let change = AlterTransform { on_error: Some(OnError::DeadLetter("second".to_owned())), ..alter("source", "m", AttachPoint::Derive) };
    broker.engine.alter_attachment(change).await.expect("it can be changed");
    let broker = broker.restart().await;
    broker.engine.alter_topic(room(Limit::Unlimited)).await.expect("it can be changed");
    until(&broker, "source", |partitions| partitions[0].position == 80 && partitions[0].error.is_none()).await;
    assert_eq!(derived(&broker, "source")[0].undelivered, None);
    let mut letters = broker.values("second", 0).await;
    assert!(letters.len() >= 20, "what came after is in the other one: {}", letters.len());
    for partition in 0..3 {
        letters.extend(broker.values("first", partition).await);
    }
    letters.sort();
    assert_eq!(letters, (0..80).map(value).collect::<Vec<_>>(), "each letter once");
}

#[tokio::test]
async fn what_is_stuck_can_be_given_up_and_one_hears_where_it_was() {
    let broker = with_counter().await;
    let room = |quota_bytes| AlterTopic { name: "a".to_owned(), quota_bytes: Some(quota_bytes), ..AlterTopic::default() };
    let small = AlterTopic { max_batch_bytes: Some(1 << 10), ..room(Limit::Of(4 << 10)) };
    broker.engine.alter_topic(small).await.expect("it can be changed");
    for _ in 0..30 {
        send(&broker, "source", 0, &[("key", "0"); 20]).await.expect("it is stored");
    }
    until(&broker, "source", |partitions| partitions[0].error.is_some() && partitions[0].undelivered.is_some()).await;
    let partition = derived(&broker, "source").remove(0);
    let undelivered = partition.undelivered.expect("it waits");
    assert!(partition.position < undelivered.committed && partition.lag > 0, "{partition:?}");
    let detach = DetachTransform { force: true, ..DetachTransform::new("source", "counter", AttachPoint::Derive) };
    let last = broker.engine.detach(detach).await.expect("it is told to").derived.expect("it derived topics");
    assert_eq!(last.partitions[0].undelivered, Some(undelivered));
    // From there on each record has its effect once more, and none that had one.
    broker.engine.alter_topic(room(Limit::Unlimited)).await.expect("it can be changed");
    let before = counts(&broker, "a", 0).await.len();
    let mut attach = into("source", "counter", &["a"]);
    attach.derive.as_mut().expect("it has targets").offsets = BTreeMap::from([(0, undelivered.committed)]);
    broker.engine.attach(attach).await.expect("it can be attached");
    caught_up(&broker, "source").await;
    assert_eq!(counts(&broker, "a", 0).await.len() - before, usize::try_from(600 - undelivered.committed).expect("small"));
}

#[tokio::test]
async fn what_it_is_at_with_the_old_settings_ends_a_while_after_and_goes_to_the_new_ones() {
    // One thread for all modules: who changes how they run does not wait for it.
    let broker = Broker::with(Arc::new(SimDisk::new()), |config: &mut EngineConfig| config.plugin_threads = 1).await;
    for topic in ["t", "source", "out"] {
        broker.topic(topic, 1, "sync").await;
    }
    broker.engine.deploy_module("m", guests::transform()).await.expect("it can be deployed");
    broker.engine.deploy_module("hostile", guests::hostile()).await.expect("it can be deployed");
    // As long as a module may have: nobody waits for it.
    let limits = AttachLimits { time_ms: Some(60_000), ..AttachLimits::default() };
    let looping = || BTreeMap::from([("mode".to_owned(), "loop".to_owned())]);
    let hostile = |topic, on| AttachTransform {
        params: looping(),
        limits: limits.clone(),
        ..AttachTransform::new(topic, ModuleRef::current("hostile"), on)
    };
    broker.engine.attach(hostile("t", AttachPoint::Produce)).await.expect("it can be attached");
    let derive = Some(DeriveInto { retries: Some(0), ..DeriveInto::new(["out"]) });
    broker.engine.attach(AttachTransform { derive, ..hostile("source", AttachPoint::Derive) }).await.expect("it can be attached");
    broker.produce("source", 0, &["a"]).await.expect("it is stored");
    let mut producer = broker.producer("t", Some(0));
    let mut submitting = Box::pin(broker.submit(&mut producer, batch(&["b"])));
    assert!((&mut submitting).now_or_never().is_none());
    for (topic, on) in [("source", AttachPoint::Derive), ("t", AttachPoint::Produce)] {
        let change = AlterTransform { params_removed: BTreeSet::from(["mode".to_owned()]), ..alter(topic, "hostile", on) };
        broker.engine.alter_attachment(change).await.expect("it can be changed while the thread is taken");
    }
    caught_up(&broker, "source").await;
    assert_eq!((broker.values("out", 0).await, status(&broker, "source").failures), (vec!["a".to_owned()], 0));
    let error = submitting.await.await.expect_err("it was stopped").to_wire();
    assert_eq!((error.code, error.retryable), (ErrorCode::ShuttingDown, true), "{error:?}");
    broker.produce("t", 0, &["b"]).await.expect("it is stored");
    assert_eq!(status(&broker, "t").failures, 0);
}

//! Derived topics from outside: where records go, what a module remembers, and what becomes of failures.

use crate::{
    broker::{Broker, NOW_MS, RESERVE_BYTES, create, keyed_batch},
    derive_guests, guests,
};
use bytes::Bytes;
use millpond_engine::{Answer, EngineError};
use millpond_log::sim::SimDisk;
use millpond_protocol::{
    batch::Batch,
    compression::Codec,
    error::ErrorCode,
    message::{
        AlterTopic, AttachPoint, AttachTransform, DeleteRecords, DeriveInto, DerivedPartition, DetachTransform, ModuleRef, OnError,
        OpenConsume, Position, RollbackModule,
    },
};
use std::collections::BTreeMap;

/// A module, into some topics, with state.
pub(crate) fn into(topic: &str, module: &str, targets: &[&str]) -> AttachTransform {
    let derive = DeriveInto { state_bytes: 1 << 16, ..DeriveInto::new(targets.iter().copied()) };
    AttachTransform { derive: Some(derive), ..AttachTransform::new(topic, ModuleRef::current(module), AttachPoint::Derive) }
}

fn detach(topic: &str, module: &str) -> DetachTransform {
    DetachTransform::new(topic, module, AttachPoint::Derive)
}

/// One batch with keys into one partition.
pub(crate) async fn send(broker: &Broker, topic: &str, partition: u32, records: &[(&str, &str)]) -> Result<(), EngineError> {
    let records: Vec<_> = records.iter().map(|(key, value)| (Some(*key), *value)).collect();
    let mut producer = broker.producer(topic, Some(partition));
    match broker.submit(&mut producer, keyed_batch(&records, Codec::None)).await.await? {
        Answer::Ack(_) => Ok(()),
        Answer::Placements(placements) => panic!("an ack was expected, not {placements:?}"),
    }
}

/// How the first module on a topic is doing.
pub(crate) fn derived(broker: &Broker, topic: &str) -> Vec<DerivedPartition> {
    let info = broker.engine.topic(topic).expect("it is there");
    info.attachments[0].derived.clone().expect("it derives topics").partitions
}

/// Waits until the first module on a topic is like this.
pub(crate) async fn until(broker: &Broker, topic: &str, is_so: impl Fn(&[DerivedPartition]) -> bool) {
    while !is_so(&derived(broker, topic)) {
        tokio::task::yield_now().await;
    }
}

/// Waits until all that is there has had its effect.
pub(crate) async fn caught_up(broker: &Broker, topic: &str) {
    until(broker, topic, |partitions| partitions.iter().all(|one| one.lag == 0)).await;
}

/// Keys and counts of all records of a partition, in order.
pub(crate) async fn counts(broker: &Broker, topic: &str, partition: u32) -> Vec<(String, u32)> {
    let end = broker.offset_at(topic, partition, Position::End).await.expect("it is there").offset;
    let open = OpenConsume { topic: topic.to_owned(), partition, from: Position::Beginning, view: None };
    let (mut stream, _) = broker.engine.open_consume(&open).await.expect("it opens");
    let mut found = Vec::new();
    while stream.position() < end {
        let (_, mut batches): (_, Bytes) = stream.next(1 << 20).await.expect("it reads");
        while let Some(batch) = Batch::take_front(&mut batches).expect("whole batches") {
            batch.verify_crc().expect("an intact batch");
            for record in batch.records(1 << 20).expect("it unpacks") {
                let record = record.expect("it reads");
                let key = String::from_utf8(record.key.expect("it has one").to_vec()).expect("text");
                let count = *record.value.expect("it has one").first_chunk().expect("four bytes");
                assert_eq!(record.timestamp, NOW_MS);
                found.push((key, u32::from_le_bytes(count)));
            }
        }
    }
    found
}

fn of(expected: &[(&str, u32)]) -> Vec<(String, u32)> {
    expected.iter().map(|(key, count)| ((*key).to_owned(), *count)).collect()
}

async fn with_counter(targets: u32) -> (Broker, SimDisk) {
    let (broker, disk) = Broker::simulated().await;
    broker.topic("source", 1, "sync").await;
    for target in ["a", "b"] {
        broker.topic(target, targets, "sync").await;
    }
    broker.engine.deploy_module("counter", derive_guests::counter(1)).await.expect("it can be deployed");
    (broker, disk)
}

#[tokio::test]
async fn a_module_chooses_the_topic_the_key_the_partition_and_the_state_stays_over_a_restart() {
    let (broker, _) = with_counter(3).await;
    send(&broker, "source", 0, &[("x", "2"), ("y", "1"), ("x", "3")]).await.expect("it is stored");
    broker.engine.attach(into("source", "counter", &["a", "b"])).await.expect("it can be attached");
    caught_up(&broker, "source").await;
    let broker = broker.restart().await;
    send(&broker, "source", 0, &[("x", "0"), ("y", "5")]).await.expect("it is stored");
    until(&broker, "source", |partitions| partitions[0].position == 5).await;
    let place = |key: &str| millpond_protocol::partitioner::for_key(key.as_bytes(), 3);
    let of_key = |all: Vec<(String, u32)>, key: &str| all.into_iter().filter(|(one, _)| one == key).collect::<Vec<_>>();
    assert_eq!(of_key(counts(&broker, "a", place("x")).await, "x"), of(&[("x", 1), ("x", 3)]));
    assert_eq!(of_key(counts(&broker, "b", place("x")).await, "x"), of(&[("x", 2)]));
    assert_eq!(of_key(counts(&broker, "b", place("y")).await, "y"), of(&[("y", 1), ("y", 2)]));
    let status = &derived(&broker, "source")[0];
    assert_eq!((status.state_entries, status.state_bytes, &status.error), (2, 2 * (5 + 64), &None));
}

#[tokio::test]
async fn it_begins_where_it_is_told_to_even_within_a_batch() {
    let (broker, _) = with_counter(1).await;
    send(&broker, "source", 0, &[("k", "0"), ("l", "0"), ("k", "0"), ("k", "0")]).await.expect("it is stored");
    for (start, expected) in
        [(Position::Beginning, of(&[("k", 1), ("l", 1), ("k", 2), ("k", 3)])), (Position::Offset(1), of(&[("l", 1), ("k", 1), ("k", 2)]))]
    {
        let name = format!("target-{}", expected.len());
        broker.topic(&name, 1, "sync").await;
        let mut attach = into("source", "counter", &[name.as_str()]);
        attach.derive.as_mut().expect("it has targets").start = start;
        broker.engine.attach(attach).await.expect("it can be attached");
        caught_up(&broker, "source").await;
        assert_eq!(counts(&broker, &name, 0).await, expected);
        broker.engine.detach(detach("source", "counter")).await.expect("it can be detached");
    }
    let mut attach = into("source", "counter", &["a"]);
    attach.derive.as_mut().expect("it has targets").start = Position::End;
    broker.engine.attach(attach.clone()).await.expect("it can be attached");
    send(&broker, "source", 0, &[("k", "0")]).await.expect("it is stored");
    until(&broker, "source", |partitions| partitions[0].position == 5).await;
    assert_eq!(counts(&broker, "a", 0).await, of(&[("k", 1)]));

    broker.engine.detach(detach("source", "counter")).await.expect("it can be detached");
    attach.derive.as_mut().expect("it has targets").start = Position::Offset(99);
    let error = broker.engine.attach(attach).await.expect_err("there is no such offset");
    assert_eq!(error.code(), ErrorCode::OffsetOutOfRange);
}

#[tokio::test]
async fn a_transform_derives_one_topic_and_its_records_keep_their_keys() {
    let (broker, _) = with_counter(1).await;
    broker.engine.deploy_module("odd", guests::transform()).await.expect("it can be deployed");
    let params = BTreeMap::from([("mode".to_owned(), "e".to_owned())]);
    let derive = Some(DeriveInto::new(["a"]));
    let attach = AttachTransform { params, derive, ..AttachTransform::new("source", ModuleRef::current("odd"), AttachPoint::Derive) };
    broker.engine.attach(attach).await.expect("it can be attached");
    broker.produce("source", 0, &["1", "2", "3"]).await.expect("it is stored");
    broker.produce("source", 0, &["4"]).await.expect("it is stored");
    broker.produce("source", 0, &["5"]).await.expect("it is stored");
    until(&broker, "source", |partitions| partitions[0].position == 5).await;
    assert_eq!(broker.values("a", 0).await, ["1", "3", "5"]);
}

#[tokio::test]
async fn what_can_not_work_is_refused_and_leaves_nothing_behind() {
    let (broker, disk) = with_counter(1).await;
    let names = disk.used_names();
    broker.engine.deploy_module("stateful", derive_guests::stateful_transform()).await.expect("it can be deployed");
    broker.engine.deploy_module("plain", guests::transform()).await.expect("it can be deployed");
    let files = disk.used_names();
    let refused = |attach: AttachTransform| async {
        let error = broker.engine.attach(attach).await.expect_err("it is refused");
        assert!(error.hint().is_some(), "{error:?}");
        (error.code(), error.to_string())
    };
    let with = |change: fn(&mut DeriveInto)| {
        let mut attach = into("source", "counter", &["a"]);
        change(attach.derive.as_mut().expect("it has targets"));
        attach
    };
    let (code, text) = refused(with(|into| into.state_bytes = 0)).await;
    assert!(code == ErrorCode::InvalidConfig && text.contains("keeps state"), "{text}");
    assert_eq!(refused(with(|into| into.state_bytes = 1 << 40)).await.0, ErrorCode::InvalidConfig);
    assert_eq!(refused(with(|into| into.retries = Some(1 << 20))).await.0, ErrorCode::InvalidConfig);
    assert_eq!(refused(with(|into| into.targets.clear())).await.0, ErrorCode::InvalidConfig);
    assert_eq!(refused(with(|into| into.targets.push("a".to_owned()))).await.0, ErrorCode::InvalidConfig);
    assert_eq!(refused(with(|into| into.targets = vec!["nowhere".to_owned()])).await.0, ErrorCode::TopicNotFound);
    assert_eq!(refused(with(|into| into.targets = (0..17).map(|n| n.to_string()).collect())).await.0, ErrorCode::InvalidConfig);
    assert!(refused(with(|into| into.targets = vec!["source".to_owned()])).await.1.contains("round for ever"));
    assert!(refused(into("source", "plain", &["a", "b"])).await.1.contains("does not choose"));
    assert_eq!(refused(AttachTransform { derive: None, ..into("source", "counter", &["a"]) }).await.0, ErrorCode::InvalidConfig);
    for on in [AttachPoint::Produce, AttachPoint::Fetch] {
        let view = (on == AttachPoint::Fetch).then(|| "v".to_owned());
        let stateful = AttachTransform { view, ..AttachTransform::new("source", ModuleRef::current("stateful"), on) };
        assert!(refused(stateful).await.1.contains("for derived topics alone"));
        let counter = AttachTransform::new("source", ModuleRef::current("counter"), AttachPoint::Produce);
        assert_eq!(refused(counter).await.0, ErrorCode::ModuleWrongWorld);
    }
    let stop = AttachTransform { on_error: OnError::Stop, ..AttachTransform::new("a", ModuleRef::current("plain"), AttachPoint::Produce) };
    assert_eq!(refused(stop).await.0, ErrorCode::InvalidConfig);
    assert_eq!((disk.used_names(), files > names), (files, true));

    broker.engine.attach(into("source", "counter", &["a"])).await.expect("it can be attached");
    let dead_letters = AttachTransform { on_error: OnError::DeadLetter("source".to_owned()), ..into("a", "counter", &["b"]) };
    assert!(refused(dead_letters).await.1.contains("round for ever"));
    broker.engine.attach(into("a", "counter", &["b"])).await.expect("it can be attached");
    assert!(refused(into("b", "counter", &["source"])).await.1.contains("round for ever"));
    assert_eq!(refused(into("source", "counter", &["b"])).await.0, ErrorCode::AttachmentExists);
    let on_target = AttachTransform::new("a", ModuleRef::current("plain"), AttachPoint::Produce);
    assert_eq!(refused(on_target).await.0, ErrorCode::TopicInUse);
    let error = broker.engine.delete_topic("a").await.expect_err("records are derived into it");
    assert_eq!(error.code(), ErrorCode::TopicInUse);
    broker.topic("masked", 1, "sync").await;
    broker.engine.attach(AttachTransform::new("masked", ModuleRef::current("plain"), AttachPoint::Produce)).await.expect("it runs");
    let plain = |target: &str| {
        let derive = DeriveInto { state_bytes: 0, ..DeriveInto::new([target]) };
        AttachTransform { derive: Some(derive), ..into("source", "plain", &[]) }
    };
    assert!(refused(plain("masked")).await.1.contains("modules run"));
    let dead_letters = |topic: &str| AttachTransform { on_error: OnError::DeadLetter(topic.to_owned()), ..plain("b") };
    assert!(refused(dead_letters("b")).await.1.contains("can't take the dead letters too"));
    assert!(refused(dead_letters("masked")).await.1.contains("would not on dead letters"));
    let names = disk.used_names();
    assert!(refused(into("source", "plain", &["b"])).await.1.contains("keeps no state"));
    assert_eq!(disk.used_names(), names);
    broker.engine.attach(plain("b")).await.expect("it can be attached");
}

#[tokio::test]
async fn detaching_forgets_place_and_state_and_so_does_deleting_the_source() {
    let (broker, disk) = with_counter(1).await;
    send(&broker, "source", 0, &[("k", "0")]).await.expect("it is stored");
    let without = disk.used_names();
    for round in 1..=2 {
        broker.engine.attach(into("source", "counter", &["a"])).await.expect("it can be attached");
        until(&broker, "source", |partitions| partitions[0].position == 1).await;
        assert_eq!(counts(&broker, "a", 0).await, vec![("k".to_owned(), 1); round]);
        broker.engine.detach(detach("source", "counter")).await.expect("it can be detached");
    }
    broker.engine.attach(into("source", "counter", &["a"])).await.expect("it can be attached");
    broker.engine.delete_topic("source").await.expect("it can be deleted");
    broker.engine.delete_topic("a").await.expect("nothing is derived into it any more");
    let broker = broker.restart().await;
    assert_eq!(broker.engine.topics().len(), 1);
    while disk.used_names() >= without {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn what_it_fails_on_is_left_out_or_becomes_a_dead_letter_with_its_offset() {
    for on_error in [OnError::Skip, OnError::DeadLetter("dead".to_owned())] {
        let (broker, _) = with_counter(1).await;
        broker.topic("dead", 1, "sync").await;
        let mut attach = AttachTransform { on_error: on_error.clone(), ..into("source", "counter", &["a"]) };
        attach.derive.as_mut().expect("it has targets").retries = Some(0);
        broker.engine.attach(attach).await.expect("it can be attached");
        send(&broker, "source", 0, &[("k", "0")]).await.expect("it is stored");
        send(&broker, "source", 0, &[("k", "0"), ("k", "!"), ("k", "0"), ("k", "?"), ("k", "0")]).await.expect("it is stored");
        until(&broker, "source", |partitions| partitions[0].position == 6).await;
        let expected = of(&[("k", 1), ("k", 2), ("k", 3), ("k", 4)]);
        assert_eq!(counts(&broker, "a", 0).await, expected, "what was changed for a record that failed is taken back");
        let status = &broker.engine.topic("source").expect("it is there").attachments[0];
        assert_eq!((status.records_failed, status.records_out), (2, 4), "{status:?}");
        let values = broker.values("dead", 0).await;
        assert_eq!(values, if on_error == OnError::Skip { vec![] } else { vec!["!".to_owned(), "?".to_owned()] });
        if on_error == OnError::Skip {
            continue;
        }
        let open = OpenConsume { topic: "dead".to_owned(), partition: 0, from: Position::Beginning, view: None };
        let (_, mut batches) = broker.engine.open_consume(&open).await.expect("it opens").0.next(1 << 20).await.expect("it reads");
        let batch = Batch::take_front(&mut batches).expect("it reads").expect("there is one");
        let record = batch.records(1 << 20).expect("it unpacks").next().expect("there is one").expect("it reads");
        assert_eq!(record.headers.get("millpond.offset").as_deref(), Some(&b"2"[..]));
        assert_eq!(record.headers.get("millpond.topic").as_deref(), Some(&b"source"[..]));
    }
}

#[tokio::test]
async fn one_that_stops_says_why_and_goes_on_where_it_was_once_another_version_runs() {
    let (broker, _) = with_counter(1).await;
    broker.engine.deploy_module("counter", derive_guests::counter(1_001)).await.expect("it can be deployed");
    let rollback = RollbackModule { name: "counter".to_owned(), to: Some(1) };
    broker.engine.rollback_module(rollback.clone()).await.expect("it can be rolled back");
    broker.engine.attach(into("source", "counter", &["a"])).await.expect("it can be attached");
    send(&broker, "source", 0, &[("k", "0")]).await.expect("it is stored");
    send(&broker, "source", 0, &[("k", "0"), ("k", "?")]).await.expect("it is stored");
    send(&broker, "source", 0, &[("l", "0")]).await.expect("it is stored");
    until(&broker, "source", |partitions| partitions[0].error.as_ref().is_some_and(|error| error.starts_with("stopped"))).await;
    assert_eq!((derived(&broker, "source")[0].position, counts(&broker, "a", 0).await), (1, of(&[("k", 1)])));
    // Both stop at the same record; the plain transform bears it.
    broker.engine.detach(detach("source", "counter")).await.expect("it can be detached");
    broker.engine.deploy_module("m", derive_guests::counter(1)).await.expect("it can be deployed");
    broker.engine.attach(into("source", "m", &["b"])).await.expect("it can be attached");
    until(&broker, "source", |partitions| partitions[0].error.is_some()).await;
    broker.engine.deploy_module("m", derive_guests::tolerant_counter()).await.expect("it can be deployed");
    until(&broker, "source", |partitions| partitions[0].position == 4 && partitions[0].error.is_none()).await;
    let expected = of(&[("k", 1), ("k", 2), ("k", 3), ("l", 1)]);
    assert_eq!(counts(&broker, "b", 0).await, expected, "the state is that of the version before");
}

#[tokio::test]
async fn a_state_that_is_full_fails_the_records_that_need_more_and_no_other() {
    let (broker, _) = with_counter(1).await;
    let mut attach = AttachTransform { on_error: OnError::Skip, ..into("source", "counter", &["a"]) };
    let derive = attach.derive.as_mut().expect("it has targets");
    // Two keys of one byte, with counts of four.
    (derive.state_bytes, derive.retries) = (2 * (1 + 4 + 64), Some(0));
    broker.engine.attach(attach).await.expect("it can be attached");
    let records = [("a", "0"), ("b", "0"), ("c", "0"), ("a", "0"), ("c", "0"), ("b", "0")];
    send(&broker, "source", 0, &records).await.expect("it is stored");
    until(&broker, "source", |partitions| partitions[0].position == 6).await;
    assert_eq!(counts(&broker, "a", 0).await, of(&[("a", 1), ("b", 1), ("a", 2), ("b", 2)]));
    let status = &derived(&broker, "source")[0];
    assert_eq!((status.state_entries, status.state_bytes), (2, 138));
}

#[tokio::test]
async fn a_full_target_is_waited_for_and_said() {
    let (broker, _) = with_counter(1).await;
    let quota = 4 << 10;
    let small = create("small", 1, "sync");
    broker.engine.create_topic(small).await.expect("it can be made");
    let alter = |bytes: u64| AlterTopic {
        name: "small".to_owned(),
        max_batch_bytes: Some(1 << 10),
        quota_bytes: Some(millpond_protocol::message::Limit::Of(bytes)),
        ..AlterTopic::default()
    };
    broker.engine.alter_topic(alter(quota)).await.expect("it can be changed");
    broker.engine.attach(into("source", "counter", &["small"])).await.expect("it can be attached");
    for _ in 0..100 {
        send(&broker, "source", 0, &[("key", "0"); 10]).await.expect("it is stored");
    }
    until(&broker, "source", |partitions| partitions[0].error.as_ref().is_some_and(|error| error.contains("room"))).await;
    let before = counts(&broker, "small", 0).await.len();
    assert!(before < 1_000, "{before}");
    broker.engine.alter_topic(alter(1 << 20)).await.expect("it can be changed");
    until(&broker, "source", |partitions| partitions[0].position == 1_000 && partitions[0].error.is_none()).await;
    assert_eq!(counts(&broker, "small", 0).await, (1..=1_000).map(|count| ("key".to_owned(), count)).collect::<Vec<_>>());
}

#[tokio::test]
async fn what_was_deleted_before_it_was_read_is_passed_over_and_counted() {
    let (broker, disk) = with_counter(1).await;
    // Stopped by the first record, so that it does not come to the others.
    send(&broker, "source", 0, &[("k", "?")]).await.expect("it is stored");
    broker.engine.attach(into("source", "counter", &["a"])).await.expect("it can be attached");
    until(&broker, "source", |partitions| partitions[0].error.is_some()).await;
    send(&broker, "source", 0, &[("k", "0"), ("k", "0")]).await.expect("it is stored");
    let before = Position::Offset(2);
    let delete = DeleteRecords { topic: "source".to_owned(), partition: 0, before };
    broker.engine.delete_records(&delete).await.expect("it can be done");
    let broker = broker.restart().await;
    until(&broker, "source", |partitions| partitions[0].position == 3).await;
    assert_eq!((counts(&broker, "a", 0).await, derived(&broker, "source")[0].skipped), (of(&[("k", 1)]), 2));
    assert!(disk.used_bytes() > RESERVE_BYTES);
}

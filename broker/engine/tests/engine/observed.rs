//! What the operator sees of modules: numbers, the end of their logs, and how they failed.

use crate::{
    broker::{Broker, NOW_MS, attachment, keyed_batch},
    guests,
    modules::detachment,
    said,
};
use bytes::Bytes;
use millpond_protocol::{
    batch::BatchBuilder,
    compression::Codec,
    error::ErrorCode,
    message::{
        AttachPoint, AttachTransform, AttachmentStatus, BatchCoordinates, LogLevel, ModuleLog, ModuleLogLine, ModuleRef, OnError,
        OpenConsume, Position, ReadModuleLog, RollbackModule,
    },
    record::NewRecord,
};
use std::collections::BTreeMap;

fn status(broker: &Broker, topic: &str) -> AttachmentStatus {
    broker.engine.topic(topic).expect("it is there").attachments.remove(0)
}

/// The hostile guest on a topic, in this mode for batches with `poison` in them.
async fn attach_hostile(broker: &Broker, topic: &str, mode: &str, change: impl FnOnce(&mut AttachTransform)) {
    broker.engine.deploy_module("hostile", guests::hostile()).await.expect("it can be deployed");
    let params = BTreeMap::from([("mode", mode), ("only", "poison")].map(|(name, value)| (name.to_owned(), value.to_owned())));
    let mut request = AttachTransform { params, ..AttachTransform::new(topic, ModuleRef::current("hostile"), AttachPoint::Produce) };
    change(&mut request);
    broker.engine.attach(request).await.expect("it can be attached");
}

fn read(broker: &Broker, request: &ReadModuleLog) -> ModuleLog {
    broker.engine.read_module_log(request).expect("the module is there")
}

fn hostile_log(broker: &Broker) -> Vec<ModuleLogLine> {
    read(broker, &ReadModuleLog { module: "hostile".to_owned(), ..ReadModuleLog::default() }).lines
}

/// A batch of a producer that numbers them.
fn numbered(values: &[&str], sequence: i32) -> Bytes {
    let mut builder = BatchBuilder::new();
    for value in values {
        let record = NewRecord { timestamp: NOW_MS, key: None, value: Some(value.as_bytes()), headers: &[] };
        builder.push(&record).expect("it fits");
    }
    builder.set_producer(77, 0, sequence);
    builder.finish(Codec::None).expect("it has records")
}

#[tokio::test]
async fn what_a_module_does_is_measured_wherever_it_runs() {
    let (broker, _) = Broker::simulated().await;
    broker.topic("t", 2, "os").await;
    broker.attach("t", "m", 'o').await;
    broker.engine.deploy_module("deal", guests::partitioner()).await.expect("it can be deployed");
    broker.engine.attach(AttachTransform::new("t", ModuleRef::current("deal"), AttachPoint::Partition)).await.expect("it can be attached");
    let view = AttachTransform { on: AttachPoint::Fetch, view: Some("v".to_owned()), ..attachment("t", "m", 'o') };
    broker.engine.attach(view).await.expect("it can be attached");
    broker.place("t", keyed_batch(&[(None, "a"), (None, "b"), (None, "c")], Codec::None)).await.expect("it is stored");
    broker.place("t", keyed_batch(&[(None, "d"), (None, "e!")], Codec::None)).await.expect_err("the module traps");
    let open = OpenConsume { topic: "t".to_owned(), partition: 0, from: Position::Beginning, view: Some("v".to_owned()) };
    broker.engine.open_consume(&open).await.expect("it opens").0.next(1 << 20).await.expect("it reads");

    let attachments = broker.engine.topic("t").expect("it is there").attachments;
    let expected = [(AttachPoint::Produce, 2, 5, 2, 1, 2), (AttachPoint::Partition, 1, 2, 2, 0, 0), (AttachPoint::Fetch, 1, 1, 1, 0, 0)];
    assert_eq!(attachments.len(), expected.len());
    for (status, (on, batches, records_in, records_out, dropped, rejected)) in attachments.iter().zip(expected) {
        assert_eq!((status.on, status.batches, status.records_in), (on, batches, records_in));
        assert_eq!((status.records_out, status.records_dropped, status.work.records_rejected), (records_out, dropped, rejected), "{on}");
        let times = status.work.batch_times.as_ref().expect("they are there");
        assert!(times.batches == batches && times.sum_us < 60_000_000, "{on}: {times:?}");
        assert!(times.buckets.is_sorted_by_key(|bucket| bucket.batches));
        assert!((65_536..=16 << 20).contains(&status.work.memory_bytes_peak), "{on}: {}", status.work.memory_bytes_peak);
        assert_eq!(status.work.failures_by_kind.values().sum::<u64>(), status.failures);
    }
    assert_eq!(attachments[0].work.failures_by_kind["guest_trapped"], 1);

    let listed = &broker.engine.topics()[0].attachments[0];
    assert_eq!((listed.batches, &listed.work.batch_times), (2, &None), "a list is short");
    let counted = &broker.engine.topics_with_counts()[0].attachments[0];
    assert_eq!(counted.work, attachments[0].work);
    let versions = broker.engine.module("m").expect("it is there").versions;
    let told: Vec<_> = versions[0].attached.iter().map(|at| at.status.as_ref().expect("it is told").batches).collect();
    assert_eq!(told, [2, 1], "and so is that of a module");
}

#[tokio::test]
async fn records_that_are_left_out_are_counted_by_what_became_of_them() {
    for (on_error, skipped, dead) in [(OnError::Skip, 2, 0), (OnError::DeadLetter("dead".to_owned()), 0, 2)] {
        let (broker, _) = Broker::simulated().await;
        broker.topic("dead", 1, "os").await;
        broker.topic("t", 1, "os").await;
        broker.engine.deploy_module("m", guests::transform()).await.expect("it can be deployed");
        broker.engine.attach(AttachTransform { on_error, ..attachment("t", "m", 'c') }).await.expect("it can be attached");
        broker.produce("t", 0, &["a", "b!", "c", "d!"]).await.expect("two are stored");
        let status = status(&broker, "t");
        assert_eq!((status.records_failed, status.work.records_dead_lettered, status.work.records_rejected), (skipped + dead, dead, 0));
        assert_eq!((status.batches, status.failures, status.work.failures_by_kind["guest_trapped"]), (1, 1, 1));
        assert_eq!(status.work.batch_times.expect("they are there").batches, 1, "the search is no batch of its own");
        assert_eq!((status.records_in, status.records_out, status.records_dropped), (4, 2, 0));
    }
}

#[tokio::test]
async fn a_trap_is_told_with_the_functions_of_the_guest_and_the_place_of_its_batch() {
    said::listen();
    let (broker, _) = Broker::simulated().await;
    broker.topic("traps", 2, "os").await;
    attach_hostile(&broker, "traps", "trap", |_| {}).await;
    let mut producer = broker.producer("traps", Some(1));
    broker.submit(&mut producer, numbered(&["good"], 0)).await.await.expect("it is stored");
    let error = broker.submit(&mut producer, numbered(&["good", "poison"], 1)).await.await.expect_err("it traps");
    assert_eq!(error.code(), ErrorCode::GuestTrapped);

    let lines = hostile_log(&broker);
    let [panic, failure] = &lines[..] else { panic!("{lines:#?}") };
    assert_eq!((panic.level, panic.partition, panic.version, panic.failure.as_ref()), (LogLevel::Error, Some(1), 1, None));
    assert!(panic.message.contains("told to panic"), "the guest's own words: {}", panic.message);
    assert_eq!((failure.level, &*failure.topic, failure.partition, failure.on), (LogLevel::Error, "traps", Some(1), AttachPoint::Produce));
    assert!(failure.message.contains("`hostile`") && failure.message.contains("told to panic"), "{}", failure.message);
    let told = failure.failure.as_ref().expect("it is one");
    let batch =
        BatchCoordinates { records: 2, base_timestamp_ms: NOW_MS, base_offset: None, producer_id: Some(77), base_sequence: Some(1) };
    assert_eq!((told.code.as_str(), told.batch, told.left_out), ("guest_trapped", batch, 0));
    let backtrace = told.backtrace.as_ref().expect("the guest's functions");
    assert!(backtrace.contains("misbehave") || backtrace.contains("transform"), "{backtrace}");
    assert!(failure.at_ms > NOW_MS, "by the machine's clock, as the broker's log");

    // The broker's own log has the same.
    let said = said::lines("traps", "a module failed on a batch");
    assert_eq!(said.len(), 1, "{said:#?}");
    for (field, expected) in [("partition", "1"), ("version", "1"), ("module", "hostile"), ("on", "produce")] {
        assert_eq!(said[0][field], expected, "{field}");
    }
    assert!(said[0]["batch"].contains("2 records, producer 77, sequence 1"), "{}", said[0]["batch"]);
    assert!(said[0]["backtrace"].contains("transform"), "{}", said[0]["backtrace"]);
    let words = said::lines("traps", "panicked");
    assert!(!words.is_empty() && words.iter().all(|line| line["thread"].starts_with("plugin-")), "guests have their threads: {words:#?}");
}

#[tokio::test]
async fn a_failure_in_a_view_names_the_offsets_of_its_batch() {
    let (broker, _) = Broker::simulated().await;
    broker.topic("t", 1, "os").await;
    for values in [&["a", "b"][..], &["poison"], &["c"]] {
        broker.produce("t", 0, values).await.expect("it is stored");
    }
    attach_hostile(&broker, "t", "recurse", |request| (request.on, request.view) = (AttachPoint::Fetch, Some("v".to_owned()))).await;
    let open = OpenConsume { topic: "t".to_owned(), partition: 0, from: Position::Offset(2), view: Some("v".to_owned()) };
    broker.engine.open_consume(&open).await.expect("it opens").0.next(1 << 20).await.expect_err("it traps");
    let lines = hostile_log(&broker);
    let line = lines.last().expect("the failure");
    assert_eq!((line.on, line.view.as_deref(), line.partition), (AttachPoint::Fetch, Some("v"), Some(0)));
    let failure = line.failure.as_ref().expect("it is one");
    assert_eq!((failure.batch.base_offset, failure.batch.records, failure.batch.producer_id), (Some(2), 1, None));
    let backtrace = failure.backtrace.as_ref().expect("the guest's functions");
    assert!(line.message.contains("stack") && backtrace.contains("deeper"), "{} {backtrace}", line.message);
}

#[tokio::test]
async fn a_log_is_followed_over_a_flood_a_new_version_and_a_restart() {
    let (broker, _) = Broker::simulated().await;
    for topic in ["t", "u"] {
        broker.topic(topic, 1, "os").await;
        attach_hostile(&broker, topic, "fail", |_| {}).await;
    }
    let request = ReadModuleLog { module: "hostile".to_owned(), ..ReadModuleLog::default() };
    let start = read(&broker, &request);
    assert_eq!((start.lines.len(), start.next.len()), (0, 2));
    let fail = async |topic: &str| broker.produce(topic, 0, &["poison", "poison"]).await.expect_err("it refuses").code();
    assert_eq!(fail("t").await, ErrorCode::GuestFailed);
    assert_eq!(fail("u").await, ErrorCode::GuestFailed);
    let of = |log: &ModuleLog| log.lines.iter().map(|line| (line.topic.clone(), line.version)).collect::<Vec<_>>();
    let place = |topic: &str, version| (topic.to_owned(), version);
    let behind = read(&broker, &ReadModuleLog { after: start.next.clone(), ..request.clone() });
    assert_eq!((of(&behind), behind.lines_lost), (vec![place("t", 1), place("u", 1)], 0));
    let one = ReadModuleLog { topic: Some("u".to_owned()), ..request.clone() };
    assert_eq!(of(&read(&broker, &one)), [place("u", 1)]);
    let one_by_one = read(&broker, &ReadModuleLog { after: start.next, lines_max: 1, ..request.clone() });
    assert_eq!(of(&one_by_one), [place("t", 1)]);
    let rest = read(&broker, &ReadModuleLog { after: one_by_one.next, lines_max: 1, ..request.clone() });
    assert_eq!(of(&rest), [place("u", 1)]);

    // Another version writes into the same log, and the numbers go on.
    let other = [&guests::hostile()[..], &[0, 2, 1, b'x']].concat();
    broker.engine.deploy_module("hostile", other.into()).await.expect("it can be deployed");
    let failures = status(&broker, "t").failures;
    assert_eq!(fail("t").await, ErrorCode::GuestFailed);
    let newer = read(&broker, &ReadModuleLog { after: rest.next, ..request.clone() });
    assert_eq!((of(&newer), status(&broker, "t").failures), (vec![place("t", 2)], failures + 1));
    let back = RollbackModule { name: "hostile".to_owned(), to: None };
    broker.engine.rollback_module(back).await.expect("it is there");
    assert_eq!(read(&broker, &ReadModuleLog { after: newer.next.clone(), ..request.clone() }).lines.len(), 0);

    broker.engine.detach(detachment("u", "hostile")).await.expect("it is attached");
    assert_eq!(read(&broker, &request).next.len(), 1, "what is not attached has no log");
    let broker = broker.restart().await;
    let anew = read(&broker, &ReadModuleLog { after: newer.next, ..request.clone() });
    assert_eq!((anew.lines.len(), anew.lines_lost), (0, 0), "a log begins anew with the broker, and nothing of it is passed over");
    let unknown = ReadModuleLog { module: "hostil".to_owned(), ..request.clone() };
    assert_eq!(broker.engine.read_module_log(&unknown).expect_err("there is none").code(), ErrorCode::ModuleNotFound);
    let nowhere = ReadModuleLog { topic: Some("nowhere".to_owned()), ..request };
    assert_eq!(broker.engine.read_module_log(&nowhere).expect_err("there is none").code(), ErrorCode::TopicNotFound);
}

#[tokio::test]
async fn a_module_that_floods_its_log_fills_no_more_than_its_share_and_who_follows_hears_what_is_lost() {
    let (broker, _) = Broker::simulated().await;
    broker.topic("t", 1, "os").await;
    attach_hostile(&broker, "t", "flood", |request| request.limits.log_bytes_per_second = Some(1 << 20)).await;
    let request = ReadModuleLog { module: "hostile".to_owned(), ..ReadModuleLog::default() };
    broker.produce("t", 0, &["poison"]).await.expect("it is stored");
    let first = read(&broker, &request);
    assert!(!first.lines.is_empty() && first.lines.iter().all(|line| line.level == LogLevel::Warn));
    // Ten thousand lines each.
    for _ in 0..20 {
        broker.produce("t", 0, &["poison"]).await.expect("it is stored");
    }
    let after = read(&broker, &ReadModuleLog { after: first.next, ..request.clone() });
    assert!(after.lines_lost > 1_000, "{} lost, {} there", after.lines_lost, after.lines.len());
    assert!(after.lines.len() <= 512, "{}", after.lines.len());
    assert!(after.lines.iter().any(|line| line.message.contains("more lines in this call")), "what it may not write is counted");
}

//! Records on which a module fails: refused with their batch, skipped, or dead letters. And a module that fails on everything.

use crate::{
    broker::{Broker, NOW_MS, attachment, batch, keyed_batch},
    derive::caught_up,
    guests,
    modules::detachment,
};
use bytes::Bytes;
use futures_util::FutureExt;
use millpond_engine::{Answer, EngineError};
use millpond_log::{
    Disk,
    sim::{HookedDisk, Operation, SimDisk},
};
use millpond_protocol::{
    batch::{Batch, BatchBuilder},
    compression::Codec,
    error::ErrorCode,
    message::{
        AlterTopic, AttachLimits, AttachPoint, AttachTransform, AttachmentStatus, DeriveInto, Limit, ModuleRef, OnError, OpenConsume,
        PlacedRecord, Position, TopicConfig,
    },
    partitioner,
    record::{NewRecord, Record},
};
use parking_lot::Mutex;
use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc,
        mpsc::{self, Receiver},
    },
};

/// The module `m` on the topic `t` of two partitions. It turns the case of the last letter around, and fails where a batch ends in `!`.
async fn broker_with(on_error: OnError) -> Broker {
    let (broker, _) = Broker::simulated().await;
    broker.topic("t", 2, "sync").await;
    broker.topic("dead", 3, "sync").await;
    broker.engine.deploy_module("m", guests::transform()).await.expect("it can be deployed");
    broker.engine.attach(AttachTransform { on_error, ..attachment("t", "m", 'c') }).await.expect("it can be attached");
    broker
}

fn dead_letter() -> OnError {
    OnError::DeadLetter("dead".to_owned())
}

fn status(broker: &Broker) -> AttachmentStatus {
    broker.engine.topic("t").expect("it is there").attachments.remove(0)
}

/// Everything in a partition.
async fn stored(broker: &Broker, topic: &str, partition: u32) -> Vec<Record> {
    let open = OpenConsume { topic: topic.to_owned(), partition, ..OpenConsume::default() };
    let (mut stream, opened) = broker.engine.open_consume(&open).await.expect("it opens");
    let mut found = Vec::new();
    while stream.position() < opened.high_watermark {
        let (_, mut batches) = stream.next(1 << 20).await.expect("it reads");
        while let Some(batch) = Batch::take_front(&mut batches).expect("whole batches") {
            found.extend(batch.records(1 << 20).expect("it unpacks").map(|record| record.expect("it reads")));
        }
    }
    found
}

fn text(bytes: Option<&Bytes>) -> String {
    String::from_utf8(bytes.expect("it is there").to_vec()).expect("text")
}

fn headers(record: &Record) -> Vec<(String, String)> {
    let text = |value: Option<Bytes>| String::from_utf8(value.expect("a value").to_vec()).expect("text");
    record.headers.iter().map(|(name, value)| (name.to_string(), text(value.map(|value| Bytes::copy_from_slice(&value))))).collect()
}

#[tokio::test]
async fn a_failed_record_is_skipped_and_the_others_of_its_batch_are_stored() {
    let broker = broker_with(OnError::Skip).await;
    let ack = broker.produce("t", 0, &["a", "b", "c", "d!"]).await.expect("three are stored");
    assert_eq!((ack.base_offset, ack.last_offset, ack.records_dropped), (0, 3, 1));
    let ack = broker.produce("t", 0, &["e!"]).await.expect("there is nothing to store");
    assert_eq!((ack.base_offset, ack.records_dropped), (-1, 1));
    broker.produce("t", 0, &["f"]).await.expect("it is stored");
    assert_eq!(broker.values("t", 0).await, ["A", "B", "C", "F"]);
    let status = status(&broker);
    assert_eq!((status.batches, status.failures, status.records_failed, status.records_dropped), (3, 2, 2, 0));
    assert_eq!((status.records_in, status.records_out, status.records_changed), (6, 4, 4));
}

#[tokio::test]
async fn a_dead_letter_is_the_record_with_what_went_wrong() {
    let (broker, _) = Broker::simulated().await;
    broker.topic("t", 2, "sync").await;
    broker.topic("dead", 3, "sync").await;
    broker.engine.deploy_module("m", guests::transform()).await.expect("it can be deployed");
    broker.engine.attach(AttachTransform { on_error: dead_letter(), ..attachment("t", "m", 'i') }).await.expect("it can be attached");
    let mut builder = BatchBuilder::new();
    // The guest looks at the last byte but one.
    for (timestamp, key, value, trace) in [(7, "k1", "good", "ok"), (8, "k2", "bad", "!x")] {
        let headers = [("trace", Some(trace.as_bytes()))];
        let record = NewRecord { timestamp, key: Some(key.as_bytes()), value: Some(value.as_bytes()), headers: &headers };
        builder.push(&record).expect("it fits");
    }
    let mut producer = broker.producer("t", Some(1));
    broker.submit(&mut producer, builder.finish(Codec::Zstd).expect("it has records")).await.await.expect("both are stored");
    assert_eq!(broker.values("t", 1).await, ["good"]);
    let letters = stored(&broker, "dead", partitioner::for_key(b"k2", 3)).await;
    assert_eq!(letters.len(), 1);
    let letter = &letters[0];
    assert_eq!((text(letter.key.as_ref()), text(letter.value.as_ref()), letter.timestamp), ("k2".into(), "bad".into(), 8));
    let sha256 = broker.engine.modules()[0].sha256.clone();
    let headers = headers(letter);
    assert!(headers[1].1.starts_with("the module `m` failed on a batch for the topic `t`: the module trapped"), "{headers:?}");
    let expected = [
        ("trace", "!x"),
        ("millpond.error", &headers[1].1),
        ("millpond.error.code", "guest_trapped"),
        ("millpond.module", "m@1"),
        ("millpond.module.sha256", &sha256),
        ("millpond.topic", "t"),
        ("millpond.partition", "1"),
    ];
    assert_eq!(headers, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
}

#[tokio::test]
async fn where_the_broker_places_the_records_a_dead_letter_has_no_place_of_its_own() {
    let broker = broker_with(dead_letter()).await;
    let placed = broker.place("t", keyed_batch(&[(Some("a"), "a"), (Some("b"), "b"), (None, "c!")], Codec::None)).await;
    let placed = placed.expect("they are stored");
    assert_eq!((placed.ack.records_dropped, placed.records[2]), (1, PlacedRecord::DROPPED));
    assert_eq!(placed.records[0].partition, partitioner::for_key(b"a", 2));
    let letters = stored(&broker, "dead", 0).await;
    assert_eq!(text(letters[0].value.as_ref()), "c!");
    assert!(headers(&letters[0]).iter().all(|(name, _)| name != "millpond.partition"));
}

#[tokio::test]
async fn many_dead_letters_go_in_batches_that_their_topic_takes_and_none_is_lost() {
    let broker = broker_with(dead_letter()).await;
    let config = TopicConfig { max_batch_bytes: 2_000, ..TopicConfig::default() };
    let small = millpond_protocol::message::CreateTopic { name: "small".to_owned(), partitions: 1, config };
    broker.engine.create_topic(small).await.expect("the name is free");
    broker.topic("u", 1, "os").await;
    let attach = AttachTransform { on_error: OnError::DeadLetter("small".to_owned()), ..attachment("u", "m", 'c') };
    broker.engine.attach(attach).await.expect("it can be attached");
    let values: Vec<String> = (0..50).map(|number| format!("{number}!")).collect();
    broker.produce("u", 0, &values.iter().map(String::as_str).collect::<Vec<_>>()).await.expect("they are stored");
    let found: Vec<_> = stored(&broker, "small", 0).await.iter().map(|record| text(record.value.as_ref())).collect();
    assert_eq!(found, values);

    // One that is larger than a batch may be.
    let large = "x".repeat(3_000) + "!";
    let error = broker.produce("u", 0, &["a", &large]).await.expect_err("the letter has no place").to_wire();
    assert_eq!(error.code, ErrorCode::BatchTooLarge);
    assert!(error.message.contains("dead letter in the topic `small`") && error.hint.is_some(), "{}", error.message);
    assert_eq!(broker.values("u", 0).await, Vec::<String>::new(), "nothing of the batch is stored");
    let work = broker.engine.topic("u").expect("it is there").attachments.remove(0).work;
    assert_eq!((work.records_dead_lettered, work.records_rejected), (50, 1), "and no letter is counted that is not stored");
}

#[tokio::test]
async fn dead_letters_that_take_far_more_than_their_batch_are_refused_with_it() {
    let broker = broker_with(dead_letter()).await;
    broker.topic("large", 1, "os").await;
    let limits = AttachLimits { time_ms: Some(1_000), ..AttachLimits::default() };
    let attach = AttachTransform { limits, on_error: dead_letter(), ..attachment("large", "m", 'c') };
    broker.engine.attach(attach).await.expect("it can be attached");
    // Almost 32 MiB, which is what a batch may unpack to. A record's own headers are in its letter, and count twice.
    let trace = format!("{}!x", "z".repeat(524_000));
    let headers = [("trace", Some(trace.as_bytes()))];
    let mut builder = BatchBuilder::new();
    for number in 0..164 {
        let (value, headers) = if number < 64 { ("x", &headers[..]) } else { ("x!", &[][..]) };
        builder.push(&NewRecord { timestamp: NOW_MS, key: None, value: Some(value.as_bytes()), headers }).expect("it fits");
    }
    let mut producer = broker.producer("large", Some(0));
    let large = builder.finish(Codec::Zstd).expect("it has records");
    let error = broker.submit(&mut producer, large).await.await.expect_err("it would be more than twice as much").to_wire();
    assert_eq!((error.code, error.retryable), (ErrorCode::InvalidBatch, false));
    assert!(error.message.contains("its dead letters have more than 64 MiB"), "{}", error.message);
    assert_eq!((stored(&broker, "dead", 0).await.len(), broker.values("large", 0).await.len()), (0, 0));
    broker.produce("t", 0, &["x", "y!"]).await.expect("a smaller one is stored");
    assert_eq!(stored(&broker, "dead", 0).await.len(), 1);
}

/// Where there is a channel, writes wait for its other end.
type Waits = Arc<Mutex<Option<Receiver<()>>>>;

/// Writes to this topic wait.
fn slow_for(topic: &'static str, disk: &SimDisk) -> (Arc<dyn Disk>, Waits) {
    let gate = Arc::new(Mutex::new(None::<Receiver<()>>));
    let waits = Arc::clone(&gate);
    let hook = move |operation, path: &Path| {
        let is_its = path.iter().any(|part| part.to_str().is_some_and(|part| part.split('-').next() == Some(topic)));
        if operation == Operation::Write && is_its {
            // It ends where the other end is dropped.
            let _ = waits.lock().as_ref().map(Receiver::recv);
        }
    };
    (Arc::new(HookedDisk::new(Arc::new(disk.clone()), hook)), gate)
}

#[tokio::test]
async fn a_producer_hears_of_a_dead_letter_that_could_not_be_stored_once_its_batch_is() {
    let disk = SimDisk::new();
    let (slow, gate) = slow_for("t", &disk);
    let broker = Broker::on(slow).await;
    broker.topic("t", 1, "os").await;
    broker.topic("dead", 1, "sync").await;
    broker.engine.deploy_module("m", guests::transform()).await.expect("it can be deployed");
    broker.engine.attach(AttachTransform { on_error: dead_letter(), ..attachment("t", "m", 'c') }).await.expect("it can be attached");
    broker.produce("t", 0, &["a!"]).await.expect("the letter is stored");
    let (held, waits) = mpsc::channel();
    *gate.lock() = Some(waits);
    disk.fail(Operation::Sync, 1, millpond_log::sim::Fault::Device);
    let mut producer = broker.producer("t", Some(0));
    let mut answer = broker.submit(&mut producer, batch(&["b", "c!"])).await;
    assert!((&mut answer).now_or_never().is_none(), "its batch is not stored");
    drop(held);
    let error = answer.await.expect_err("the letter may be lost").to_wire();
    assert_eq!(error.code, ErrorCode::StorageFailed);
    assert!(error.message.contains("dead letter") && error.partly_stored, "its batch is stored: {error:?}");
    assert_eq!(broker.values("t", 0).await, ["B"]);
    let status = status(&broker);
    assert_eq!((status.records_failed, status.work.records_dead_lettered, status.work.records_rejected), (1, 1, 1));
    broker.produce("t", 0, &["d"]).await.expect("others go on");
}

#[tokio::test]
async fn a_batch_that_comes_again_is_stored_once_and_so_are_its_dead_letters() {
    let mut broker = broker_with(dead_letter()).await;
    let mut acks = Vec::new();
    for round in 0..3 {
        if round == 2 {
            broker = broker.restart().await;
        }
        // In flight together, as a client has them.
        let mut producer = broker.producer("t", Some(0));
        let (first, second) = (numbered(7, 0, &["a", "b!", "c!"]), numbered(7, 3, &["d!"]));
        let (first, second) = (broker.submit(&mut producer, first).await, broker.submit(&mut producer, second).await);
        acks.push((first.await.expect("it is stored"), second.await.expect("it is stored")));
    }
    let offset = |answer: &Answer| match answer {
        Answer::Ack(ack) => (ack.base_offset, ack.last_offset, ack.records_dropped),
        Answer::Placements(_) => panic!("an acknowledgement was expected"),
    };
    for (first, second) in &acks[1..] {
        assert_eq!((offset(first), offset(second)), (offset(&acks[0].0), offset(&acks[0].1)), "what it got the first time");
    }
    assert_eq!(broker.values("t", 0).await, ["A"]);
    assert_eq!(broker.values("dead", 0).await, ["b!", "c!", "d!"], "each letter once");

    // Another producer, another partition, and one that is placed have letters of their own.
    let mut producer = broker.producer("t", Some(0));
    broker.submit(&mut producer, numbered(8, 0, &["b!"])).await.await.expect("it is stored");
    let mut producer = broker.producer("t", Some(1));
    broker.submit(&mut producer, numbered(7, 0, &["b!"])).await.await.expect("it is stored");
    for _ in 0..2 {
        let mut producer = broker.producer("t", None);
        broker.submit(&mut producer, numbered(7, 0, &["p!"])).await.await.expect("it is stored");
    }
    assert_eq!(broker.values("dead", 0).await, ["b!", "c!", "d!", "b!", "p!"]);
    assert_eq!(broker.values("dead", 1).await, ["b!"]);
}

#[tokio::test]
async fn the_record_that_a_module_names_is_told_wherever_it_runs() {
    let (broker, _) = Broker::simulated().await;
    for topic in ["t", "u", "out", "dead"] {
        broker.topic(topic, 1, "sync").await;
    }
    broker.engine.deploy_module("csv", guests::built("csv-to-json")).await.expect("it can be deployed");
    broker.engine.deploy_module("m", guests::transform()).await.expect("it can be deployed");
    let params = BTreeMap::from([("header".to_owned(), "a,b".to_owned())]);
    let attach = |topic: &str, on| AttachTransform { params: params.clone(), ..AttachTransform::new(topic, ModuleRef::current("csv"), on) };
    broker.engine.attach(attachment("t", "m", 'e')).await.expect("it can be attached");
    broker.engine.attach(attach("t", AttachPoint::Produce)).await.expect("it can be attached");
    // The second one is left out by the module before.
    let error = broker.produce("t", 0, &["1,1", "2,2", "3"]).await.expect_err("the last one has a field too few").to_wire();
    assert!(error.message.contains("for the topic `t`, on record 2 of it, counted from 0: the module failed: "), "{}", error.message);

    broker.produce("u", 0, &["1,1"]).await.expect("it is stored");
    broker.produce("u", 0, &["2,2", "3"]).await.expect("it is stored");
    let on_error = OnError::DeadLetter("dead".to_owned());
    let derive = Some(DeriveInto { retries: Some(0), ..DeriveInto::new(["out"]) });
    broker.engine.attach(AttachTransform { derive, on_error, ..attach("u", AttachPoint::Derive) }).await.expect("it can be attached");
    caught_up(&broker, "u").await;
    let letters = stored(&broker, "dead", 0).await;
    let told = headers(&letters[0]).into_iter().find(|(name, _)| name == "millpond.error").expect("it is told").1;
    assert!(told.contains("for the topic `u`, on the record at offset 2 of partition 0: the module failed: "), "{told}");

    let view = AttachTransform { view: Some("v".to_owned()), ..attach("u", AttachPoint::Fetch) };
    broker.engine.attach(view).await.expect("it can be attached");
    let open = |offset| OpenConsume { topic: "u".to_owned(), partition: 0, from: Position::Offset(offset), view: Some("v".to_owned()) };
    let (mut stream, _) = broker.engine.open_consume(&open(1)).await.expect("it opens");
    let error = stream.next(1 << 20).await.expect_err("a record of the batch fails").to_wire();
    assert!(error.message.contains(", on the record at offset 2 of partition 0: "), "{}", error.message);
    // A module that names none.
    broker.produce("u", 0, &["4,4", "5!"]).await.expect("it is stored");
    let view = AttachTransform { view: Some("w".to_owned()), on: AttachPoint::Fetch, ..attachment("u", "m", 'i') };
    broker.engine.attach(view).await.expect("it can be attached");
    let open = OpenConsume { view: Some("w".to_owned()), ..open(3) };
    let (mut stream, _) = broker.engine.open_consume(&open).await.expect("it opens");
    let error = stream.next(1 << 20).await.expect_err("a record of the batch fails").to_wire();
    assert!(error.message.contains(", on a record from offset 3 of partition 0 on: "), "{}", error.message);
}

#[tokio::test]
async fn a_batch_that_is_refused_leaves_no_dead_letter_however_often_it_comes() {
    let broker = broker_with(dead_letter()).await;
    let room = |quota_bytes| AlterTopic { name: "t".to_owned(), quota_bytes: Some(quota_bytes), ..AlterTopic::default() };
    let small = AlterTopic { max_batch_bytes: Some(1 << 10), ..room(Limit::Of(4 << 10)) };
    broker.engine.alter_topic(small).await.expect("it can be changed");
    let filler = "x".repeat(900);
    while broker.produce("t", 1, &[&filler]).await.is_ok() {}
    let value = "y".repeat(800);
    for target in [Some(0), None] {
        for _ in 0..10 {
            let mut producer = broker.producer("t", target);
            let error = broker.submit(&mut producer, numbered(7, 0, &[&value, "b!"])).await.await.expect_err("there is no room");
            assert_eq!(error.code(), ErrorCode::StorageFull);
        }
    }
    assert_eq!(broker.values("dead", 0).await, Vec::<String>::new());
    let work = status(&broker).work;
    assert_eq!((work.records_dead_lettered, work.records_rejected), (0, 20));
    broker.engine.alter_topic(room(Limit::Unlimited)).await.expect("it can be changed");
    let mut producer = broker.producer("t", Some(0));
    broker.submit(&mut producer, numbered(7, 0, &[&value, "b!"])).await.await.expect("it is stored");
    assert_eq!(broker.values("dead", 0).await, ["b!"]);
}

#[tokio::test]
async fn a_letter_that_found_no_room_is_stored_once_when_its_batch_comes_again_behind_a_later_one() {
    let broker = broker_with(dead_letter()).await;
    let quota = |quota_bytes| AlterTopic { name: "dead".to_owned(), quota_bytes: Some(quota_bytes), ..AlterTopic::default() };
    let small = AlterTopic { max_batch_bytes: Some(1 << 10), ..quota(Limit::Of(4 << 10)) };
    broker.engine.alter_topic(small).await.expect("it can be changed");
    let filler = "x".repeat(900);
    while broker.produce("dead", 0, &[&filler]).await.is_ok() {}
    let before = broker.values("dead", 0).await.len();
    let mut producer = broker.producer("t", Some(0));
    let large = format!("{}!", "y".repeat(500));
    broker.submit(&mut producer, numbered(7, 0, &["a", &large])).await.await.expect_err("its letter has no room");
    broker.engine.alter_topic(quota(Limit::Unlimited)).await.expect("it can be changed");
    // The later one first, as it was in flight with it.
    let mut producer = broker.producer("t", Some(0));
    let _ = broker.submit(&mut producer, numbered(7, 2, &["z!"])).await.await;
    for _ in 0..2 {
        let mut producer = broker.producer("t", Some(0));
        broker.submit(&mut producer, numbered(7, 0, &["a", &large])).await.await.expect("it is stored");
        broker.submit(&mut producer, numbered(7, 2, &["z!"])).await.await.expect("it is stored");
    }
    let mut letters = broker.values("dead", 0).await.split_off(before);
    letters.sort();
    assert_eq!(letters, [large.as_str(), "z!"]);
}

/// A batch without keys, numbered from `base_sequence` on.
fn numbered(producer_id: i64, base_sequence: i32, values: &[&str]) -> Bytes {
    let mut builder = BatchBuilder::new();
    for value in values {
        let record = NewRecord { timestamp: NOW_MS, key: None, value: Some(value.as_bytes()), headers: &[] };
        builder.push(&record).expect("it fits");
    }
    builder.set_producer(producer_id, 0, base_sequence);
    builder.finish(Codec::None).expect("it has records")
}

#[tokio::test]
async fn settings_that_make_no_sense_are_refused_and_those_that_do_survive_a_restart() {
    let broker = broker_with(dead_letter()).await;
    broker.topic("u", 1, "os").await;
    let refused = async |request: AttachTransform| broker.engine.attach(request).await.expect_err("it makes no sense").to_wire();
    let to = |topic: &str| AttachTransform { on_error: OnError::DeadLetter(topic.to_owned()), ..attachment("u", "m", 'c') };
    assert_eq!(refused(to("nowhere")).await.code, ErrorCode::TopicNotFound);
    let itself = refused(to("u")).await;
    assert_eq!(itself.code, ErrorCode::InvalidConfig);
    assert!(itself.hint.is_some_and(|hint| hint.contains("topic create")), "{}", itself.message);
    assert!(refused(to("t")).await.message.contains("modules run on what is produced to `t`, and would not on dead letters"));
    broker.engine.deploy_module("deal", guests::partitioner()).await.expect("it can be deployed");
    let partitioner = |topic: &str| AttachTransform::new(topic, ModuleRef::current("deal"), AttachPoint::Partition);
    for on_letters in [attachment("dead", "m", 'c'), partitioner("dead")] {
        let error = refused(on_letters).await;
        assert!(error.message.contains("`dead` takes the dead letters of `m` on t, and no module runs on those"), "{}", error.message);
    }
    assert_eq!(refused(AttachTransform { on_error: OnError::Skip, ..partitioner("u") }).await.code, ErrorCode::InvalidConfig);
    for (setting, limits) in [
        ("memory_bytes", AttachLimits { memory_bytes: Some(1 << 40), ..AttachLimits::default() }),
        ("time_ms", AttachLimits { time_ms: Some(0), ..AttachLimits::default() }),
        ("output_bytes", AttachLimits { output_bytes: Some(1), ..AttachLimits::default() }),
        ("log_bytes_per_second", AttachLimits { log_bytes_per_second: Some(u64::MAX), ..AttachLimits::default() }),
    ] {
        let error = refused(AttachTransform { limits, ..attachment("u", "m", 'c') }).await;
        assert!(error.code == ErrorCode::InvalidConfig && error.message.contains(&format!("`{setting}`")), "{}", error.message);
    }

    let error = broker.engine.delete_topic("dead").await.expect_err("letters go there").to_wire();
    assert_eq!((error.code, error.message.as_str()), (ErrorCode::TopicInUse, "the topic `dead` takes the dead letters of `m` on t"));
    let limits = AttachLimits { time_ms: Some(50), memory_bytes: Some(1 << 20), ..AttachLimits::default() };
    let attach = AttachTransform { limits, on_error: OnError::Skip, ..attachment("u", "m", 'c') };
    broker.engine.attach(attach).await.expect("it can be attached");
    let broker = broker.restart().await;
    let attached = broker.engine.topic("u").expect("it is there").attachments.remove(0);
    assert_eq!((attached.on_error, attached.limits.time_ms, attached.limits.memory_bytes), (OnError::Skip, Some(50), Some(1 << 20)));
    assert_eq!(attached.limits.output_bytes, Some(8 << 20), "the broker's, where none was given");
    assert_eq!(status(&broker).on_error, dead_letter());
    broker.engine.detach(detachment("t", "m")).await.expect("it is attached");
    broker.engine.delete_topic("dead").await.expect("nothing goes there any more");
}

#[tokio::test]
async fn a_record_that_takes_all_the_time_is_found_in_little_more_than_that() {
    let (broker, _) = Broker::simulated().await;
    broker.topic("t", 1, "os").await;
    broker.engine.deploy_module("m", guests::transform()).await.expect("it can be deployed");
    let limits = AttachLimits { time_ms: Some(200), ..AttachLimits::default() };
    let attach = AttachTransform { limits, on_error: OnError::Skip, ..attachment("t", "m", 'c') };
    broker.engine.attach(attach).await.expect("it can be attached");
    let mut values = vec!["a"; 63];
    values.push("b~");
    let ack = broker.produce("t", 0, &values).await.expect("the others are stored");
    assert_eq!((ack.records_dropped, broker.values("t", 0).await.len()), (1, 63));
}

#[tokio::test]
async fn a_module_that_fails_on_everything_is_paused_with_a_reason_until_another_version_takes_its_place() {
    for on_error in [OnError::Reject, OnError::Skip] {
        let broker = Broker::on(Arc::new(SimDisk::new())).await;
        broker.topic("t", 1, "os").await;
        broker.engine.deploy_module("m", guests::transform()).await.expect("it can be deployed");
        broker.engine.attach(AttachTransform { on_error, ..attachment("t", "m", 'c') }).await.expect("it can be attached");
        assert_eq!(status(&broker).paused, None);
        let mut refused = None;
        // It is tried again after a second; until then nothing runs.
        for _ in 0..1_000 {
            if let Err(error @ EngineError::ModulePaused { .. }) = broker.produce("t", 0, &["x!"]).await {
                refused = Some(error.to_wire());
                break;
            }
        }
        let error = refused.expect("it is paused after ten");
        assert!(error.code == ErrorCode::GuestPaused && error.retryable, "{error:?}");
        assert!(error.hint.is_some_and(|hint| hint.contains("trapped") && hint.contains("rollback m")));
        let status = status(&broker);
        assert_eq!(status.failures, 10);
        assert!(status.paused.is_some_and(|reason| reason.contains("10 batches in a row failed")));
        broker.engine.deploy_module("m", guests::transform_again()).await.expect("it can be deployed");
        broker.produce("t", 0, &["a"]).await.expect("it runs");
    }
    // One that works now and then is not.
    let broker = broker_with(OnError::Reject).await;
    for _ in 0..30 {
        for _ in 0..9 {
            assert_eq!(broker.produce("t", 0, &["x!"]).await.expect_err("it traps").code(), ErrorCode::GuestTrapped);
        }
        broker.produce("t", 0, &["a"]).await.expect("it runs");
    }
}

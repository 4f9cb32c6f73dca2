//! Modules on the way in: what they may do to a batch, and what they may not do to the broker.

use crate::{
    broker::{Broker, attachment, batch, keyed_batch},
    gate::GatedDisk,
    guests,
};
use bytes::Bytes;
use futures_util::FutureExt;
use millpond_engine::{Answer, EngineConfig, EngineError};
use millpond_log::{Disk, sim::SimDisk};
use millpond_protocol::{
    compression::Codec,
    error::ErrorCode,
    message::{AttachPoint, AttachTransform, AttachmentStatus, DetachTransform, ModuleRef, PlacedRecord, ReplacedModule},
    partitioner,
};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

fn status(broker: &Broker, topic: &str) -> AttachmentStatus {
    broker.engine.topic(topic).expect("it is there").attachments[0].clone()
}

pub(crate) fn detachment(topic: &str, module: &str) -> DetachTransform {
    DetachTransform::new(topic, module, AttachPoint::Produce)
}

async fn with_module(mode: char) -> Broker {
    let (broker, _) = Broker::simulated().await;
    broker.topic("t", 1, "sync").await;
    broker.attach("t", "m", mode).await;
    broker
}

#[tokio::test]
async fn dropped_records_leave_their_offsets_unused() {
    let broker = with_module('o').await;
    let ack = broker.produce("t", 0, &["a", "b", "c", "d"]).await.expect("it is stored");
    assert_eq!((ack.base_offset, ack.last_offset, ack.records_dropped), (0, 3, 2));
    let ack = broker.produce("t", 0, &["e"]).await.expect("it is stored");
    assert_eq!(ack.base_offset, 4);
    let expected = [(0, "a"), (2, "c"), (4, "e")].map(|(offset, value)| (offset, value.to_owned()));
    assert_eq!(broker.read_all("t", 0).await, expected);
    let status = status(&broker, "t");
    assert_eq!((status.records_in, status.records_out, status.records_dropped, status.records_changed), (5, 3, 2, 0));
    assert_eq!((status.batches, status.failures), (2, 0));
}

#[tokio::test]
async fn every_codec_goes_through_a_module_and_comes_out_the_same() {
    let broker = with_module('c').await;
    let mut producer = broker.producer("t", Some(0));
    for codec in Codec::ALL {
        let batch = keyed_batch(&[(Some("key"), codec.name())], codec);
        broker.submit(&mut producer, batch).await.await.expect("it is stored");
    }
    let expected = Codec::ALL.map(|codec| {
        let (start, last) = codec.name().split_at(codec.name().len() - 1);
        format!("{start}{}", char::from(last.as_bytes()[0] ^ 32))
    });
    assert_eq!(broker.values("t", 0).await, expected);
    assert_eq!(status(&broker, "t").records_changed, 5);
}

#[tokio::test]
async fn a_batch_that_comes_back_unchanged_keeps_its_very_bytes() {
    let broker = with_module('i').await;
    let sent = keyed_batch(&[(Some("k"), &"v".repeat(1000))], Codec::Zstd);
    let mut producer = broker.producer("t", Some(0));
    broker.submit(&mut producer, sent.clone()).await.await.expect("it is stored");
    let open = millpond_protocol::message::OpenConsume { topic: "t".to_owned(), ..Default::default() };
    let (mut stream, _) = broker.engine.open_consume(&open).await.expect("it opens");
    let (_, stored) = stream.next(1 << 20).await.expect("it reads");
    assert_eq!(stored[16..], sent[16..], "all but the base offset and the leader epoch");
}

#[tokio::test]
async fn records_that_multiply_are_numbered_anew() {
    let broker = with_module('x').await;
    let ack = broker.produce("t", 0, &["a", "b"]).await.expect("it is stored");
    assert_eq!((ack.base_offset, ack.last_offset, ack.records_dropped), (0, 3, 0));
    let expected = [(0, "a"), (1, "b"), (2, "a"), (3, "b")].map(|(offset, value)| (offset, value.to_owned()));
    assert_eq!(broker.read_all("t", 0).await, expected);
    assert_eq!(broker.produce("t", 0, &["c"]).await.expect("it is stored").base_offset, 4);
}

#[tokio::test]
async fn a_batch_of_which_nothing_is_left_takes_no_offset() {
    let broker = with_module('a').await;
    let ack = broker.produce("t", 0, &["a", "b", "c"]).await.expect("it is acknowledged");
    assert_eq!((ack.base_offset, ack.last_offset, ack.records_dropped), (-1, -1, 3));
    assert_eq!(broker.engine.topic("t").expect("it is there").partitions[0].log_end, 0);
}

#[tokio::test]
async fn a_batch_on_which_a_module_fails_is_refused_and_the_next_one_is_stored() {
    let broker = with_module('i').await;
    let mut producer = broker.producer("t", Some(0));
    let mut answers = Vec::new();
    for values in [["fine"], ["trap!"], ["fine too"], ["error?"], ["fine again"]] {
        answers.push(broker.submit(&mut producer, batch(&values)).await.await);
    }
    let codes: Vec<_> = answers.iter().map(|answer| answer.as_ref().err().map(EngineError::code)).collect();
    assert_eq!(codes, [None, Some(ErrorCode::GuestTrapped), None, Some(ErrorCode::GuestFailed), None]);
    let wire = answers[3].as_ref().expect_err("it failed").to_wire();
    assert!(wire.message.contains("`m`") && wire.message.contains("refused"), "{}", wire.message);
    assert_eq!(broker.values("t", 0).await, ["fine", "fine too", "fine again"]);
    let status = status(&broker, "t");
    assert_eq!((status.batches, status.failures, status.records_in, status.records_out), (5, 2, 5, 3));
}

#[tokio::test]
async fn garbage_from_a_module_is_not_stored() {
    let broker = with_module('g').await;
    let error = broker.produce("t", 0, &["a"]).await.expect_err("it is no record");
    assert_eq!(error.code(), ErrorCode::GuestOutputInvalid);
    assert_eq!(broker.read_all("t", 0).await, []);
    assert_eq!(status(&broker, "t").failures, 1);
}

#[tokio::test]
async fn records_that_are_none_are_the_producers_fault_and_not_the_modules() {
    let broker = with_module('i').await;
    let mut bytes = batch(&["abc"]).to_vec();
    let at = bytes.len() - 5; // the length of the value
    bytes[at] = 0x7e;
    let stale = millpond_protocol::batch::Batch::parse(Bytes::from(bytes.clone())).expect("the header is fine").verify_crc();
    let Err(millpond_protocol::batch::BatchError::ChecksumMismatch { computed, .. }) = stale else { panic!("{stale:?}") };
    bytes[17..21].copy_from_slice(&computed.to_be_bytes());
    let mut producer = broker.producer("t", Some(0));
    let error = broker.submit(&mut producer, bytes.into()).await.await.expect_err("it is not a record");
    assert_eq!(error.code(), ErrorCode::InvalidBatch);
    assert_eq!(status(&broker, "t").batches, 0);
}

#[tokio::test]
async fn modules_form_a_chain_in_the_order_in_which_they_were_attached() {
    let broker = with_module('c').await;
    broker.attach("t", "second", 'o').await;
    let ack = broker.produce("t", 0, &["a", "b", "c"]).await.expect("it is stored");
    assert_eq!(ack.records_dropped, 1);
    assert_eq!(broker.values("t", 0).await, ["A", "C"]);
    let attachments = broker.engine.topic("t").expect("it is there").attachments;
    assert_eq!(attachments.iter().map(|one| (one.module.as_str(), one.records_in)).collect::<Vec<_>>(), [("m", 3), ("second", 3)]);

    broker.engine.detach(detachment("t", "m")).await.expect("it is attached");
    broker.produce("t", 0, &["d", "e"]).await.expect("it is stored");
    assert_eq!(broker.values("t", 0).await, ["A", "C", "d"]);
}

#[tokio::test]
async fn a_change_takes_effect_between_two_batches_of_an_open_stream() {
    let (broker, _) = Broker::simulated().await;
    let before = broker.topic("t", 1, "sync").await.epoch;
    let mut producer = broker.producer("t", Some(0));
    let mut epochs = Vec::new();
    let mut produce = async |value: &str| match broker.submit(&mut producer, batch(&[value])).await.await.expect("it is stored") {
        Answer::Ack(ack) => epochs.push(ack.topic_epoch),
        Answer::Placements(other) => panic!("an ack was expected, not {other:?}"),
    };
    produce("a").await;
    broker.attach("t", "m", 'c').await;
    produce("b").await;
    broker.engine.detach(detachment("t", "m")).await.expect("it is attached");
    produce("c").await;
    assert_eq!(epochs, [before, before + 1, before + 2]);
    assert_eq!(broker.values("t", 0).await, ["a", "B", "c"]);
}

#[tokio::test]
async fn the_default_places_by_key_as_kafka_does_and_keyless_records_together() {
    let (broker, _) = Broker::simulated().await;
    broker.topic("t", 5, "sync").await;
    let records = [(Some("21"), "a"), (None, "b"), (Some("foobar"), "c"), (None, "d"), (Some("21"), "e")];
    let placements = broker.place("t", keyed_batch(&records, Codec::Lz4)).await.expect("it is stored");
    assert_eq!((placements.ack.base_offset, placements.ack.last_offset), (-1, -1));
    for (record, place) in records.iter().zip(&placements.records) {
        let found = broker.read_all("t", place.partition).await;
        assert!(found.contains(&(place.offset, record.1.to_owned())), "{record:?} is at {place:?}");
        if let Some(key) = record.0 {
            assert_eq!(place.partition, partitioner::for_key(key.as_bytes(), 5));
        }
    }
    assert_eq!(placements.records[1].partition, placements.records[3].partition);

    let mut producer = broker.producer("t", None);
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..5 {
        let Answer::Placements(placements) = broker.submit(&mut producer, batch(&["x"])).await.await.expect("it is stored") else {
            panic!("placements were expected")
        };
        seen.insert(placements.records[0].partition);
    }
    assert_eq!(seen.len(), 5, "the partition for keyless records moves on with each batch");
}

#[tokio::test]
async fn a_partitioner_places_what_the_transforms_have_left() {
    let (broker, _) = Broker::simulated().await;
    broker.topic("t", 2, "sync").await;
    broker.attach("t", "filter", 'o').await;
    broker.engine.deploy_module("deal", guests::partitioner()).await.expect("it can be deployed");
    let on = AttachPoint::Partition;
    let request = AttachTransform::new("t", ModuleRef::current("deal"), on);
    broker.engine.attach(request.clone()).await.expect("it can be attached");
    assert!(broker.engine.topic("t").expect("it is there").is_placed_by_broker());

    let placements = broker.place("t", batch(&["a", "b", "c", "d", "e"])).await.expect("it is stored");
    assert_eq!(placements.ack.records_dropped, 2);
    let place = |partition, offset| PlacedRecord { partition, offset };
    let expected = [place(0, 0), PlacedRecord::DROPPED, place(1, 0), PlacedRecord::DROPPED, place(0, 1)];
    assert_eq!(placements.records, expected);
    assert_eq!(broker.values("t", 0).await, ["a", "e"]);
    assert_eq!(broker.values("t", 1).await, ["c"]);

    let error = broker.engine.attach(request.clone()).await.expect_err("it is there already");
    assert!(matches!(error, EngineError::AttachmentExists { .. }), "{error:?}");
    broker.engine.deploy_module("deal-again", guests::partitioner()).await.expect("it can be deployed");
    let another = AttachTransform { module: ModuleRef::current("deal-again"), ..request };
    let error = broker.engine.attach(another).await.expect_err("there is another one");
    assert!(matches!(&error, EngineError::PlaceTaken { module, .. } if module == "deal"), "{error:?}");
    assert!(error.hint().is_some_and(|hint| hint.contains("detach t deal")));
    broker.produce("t", 1, &["chosen by the producer"]).await.expect("an explicit partition goes around the partitioner");
    assert_eq!(broker.values("t", 1).await, ["c", "chosen by the producer"]);
}

#[tokio::test]
async fn a_restart_brings_topics_modules_and_attachments_back() {
    for broker in [Broker::simulated().await.0, Broker::real().await] {
        broker.topic("t", 2, "interval:200ms").await;
        broker.topic("empty", 1, "os").await;
        broker.attach("t", "m", 'c').await;
        broker.produce("t", 1, &["a"]).await.expect("it is stored");
        let (before, modules) = (broker.engine.topic("t").expect("it is there"), broker.engine.modules());
        assert_eq!(modules[0].attached_to, ["t"]);

        let broker = broker.restart().await;
        let after = broker.engine.topic("t").expect("it came back");
        assert_eq!((after.epoch, &after.config, &after.partitions), (before.epoch, &before.config, &before.partitions));
        for topic in [&before, &after] {
            assert_eq!(topic.attachments[0].params, BTreeMap::from([("mode".to_owned(), "c".to_owned())]));
        }
        assert_eq!((&after.attachments[0].module, &after.attachments[0].sha256), (&modules[0].name, &modules[0].sha256));
        assert_eq!(broker.engine.modules(), modules);
        broker.produce("t", 1, &["b"]).await.expect("it is stored");
        assert_eq!(broker.values("t", 1).await, ["A", "B"]);
        assert_eq!(broker.engine.topics().len(), 2);
        let cached = std::fs::read_dir(broker.dir.path().join("modules/cache")).expect("it is there").count();
        assert_eq!(cached, 1, "it was compiled once");
    }
}

#[tokio::test]
async fn uploading_a_module_again_replaces_it_where_it_is_attached() {
    let broker = with_module('c').await;
    broker.produce("t", 0, &["a"]).await.expect("it is stored");
    let before = broker.engine.topic("t").expect("it is there");
    let old_sha256 = before.attachments[0].sha256.clone();
    let info = broker.engine.deploy_module("m", guests::transform_again()).await.expect("it can be deployed");
    assert_ne!(info.sha256, old_sha256);
    assert_eq!(info.attached_to, ["t"]);
    assert_eq!(
        info.replaced,
        Some(ReplacedModule { version: 1, sha256: old_sha256, topics: vec!["t".to_owned()] }),
        "the answer says what was there"
    );
    assert_eq!(broker.engine.modules()[0].replaced, None);
    let same = broker.engine.deploy_module("m", guests::transform_again()).await.expect("it can be deployed");
    assert_eq!((same.replaced, same.sha256), (None, info.sha256.clone()), "the same bytes replace nothing");
    broker.produce("t", 0, &["b"]).await.expect("it is stored");
    let after = broker.engine.topic("t").expect("it is there");
    assert_eq!(after.epoch, before.epoch + 2);
    assert_eq!((&after.attachments[0].sha256, after.attachments[0].records_in), (&info.sha256, 2), "it goes on counting");
    assert_eq!(broker.values("t", 0).await, ["A", "B"], "with its parameters");

    let error = broker.engine.deploy_module("m", guests::partitioner()).await.expect_err("it runs as a transform");
    assert_eq!(error.code(), ErrorCode::ModuleInUse);
    assert_eq!(broker.engine.modules()[0].sha256, info.sha256);
}

#[tokio::test]
async fn what_can_not_be_deployed_attached_or_deleted_says_why() {
    let (broker, _) = Broker::simulated().await;
    broker.topic("t", 1, "os").await;
    let engine = &broker.engine;
    let deploy = async |name: &str, wasm: &[u8]| {
        engine.deploy_module(name, Bytes::copy_from_slice(wasm)).await.expect_err("it is no module").to_wire()
    };
    assert_eq!(deploy("m", b"#!/bin/sh").await.code, ErrorCode::ModuleInvalid);
    assert_eq!(deploy("m", b"").await.code, ErrorCode::ModuleInvalid);
    assert_eq!(deploy("a/b", &guests::transform()).await.code, ErrorCode::InvalidRequest);
    assert_eq!(engine.modules(), []);

    let attach = async |request| engine.attach(request).await.expect_err("it can't be attached").to_wire();
    engine.deploy_module("mask", guests::transform()).await.expect("it can be deployed");
    let unknown = attach(attachment("t", "maks", 'i')).await;
    assert_eq!((unknown.code, unknown.hint.as_deref()), (ErrorCode::ModuleNotFound, Some("did you mean `mask`?")));
    assert_eq!(attach(attachment("nowhere", "mask", 'i')).await.code, ErrorCode::TopicNotFound);
    let wrong = attach(AttachTransform { on: AttachPoint::Partition, ..attachment("t", "mask", 'i') }).await;
    assert_eq!(wrong.code, ErrorCode::ModuleWrongWorld);
    assert!(wrong.hint.is_some_and(|hint| hint.contains("--on produce")));
    let refused = attach(attachment("t", "mask", 'r')).await;
    assert_eq!(refused.code, ErrorCode::GuestFailed);
    assert!(refused.message.contains("refused"), "{}", refused.message);
    assert_eq!(engine.topic("t").expect("it is there").attachments, []);

    engine.attach(attachment("t", "mask", 'i')).await.expect("it can be attached");
    let again = attach(attachment("t", "mask", 'i')).await;
    assert_eq!((again.code, &*again.message), (ErrorCode::AttachmentExists, "the topic `t` has the module `mask` on produce already"));
    let hint = again.hint.expect("there is one");
    assert!(hint.contains("runs once at one place") && hint.contains("transform alter t mask") && hint.contains("--name mask-2"), "{hint}");
    let in_use = engine.delete_module(ModuleRef::current("mask")).await.expect_err("it is attached");
    assert!(matches!(&in_use, EngineError::ModuleInUse { topics, .. } if topics == &["t"]), "{in_use:?}");
    let unknown = engine.detach(detachment("t", "other")).await.expect_err("it is not attached");
    assert_eq!(unknown.code(), ErrorCode::AttachmentNotFound);
    engine.detach(detachment("t", "mask")).await.expect("it is attached");
    engine.delete_module(ModuleRef::current("mask")).await.expect("it is free");
    assert_eq!(engine.delete_module(ModuleRef::current("mask")).await.expect_err("it is gone").code(), ErrorCode::ModuleNotFound);
}

#[tokio::test]
async fn a_module_that_is_uploaded_while_its_last_name_goes_keeps_its_file() {
    let sim = millpond_log::sim::SimDisk::new();
    let disk = GatedDisk::new(Arc::new(sim.clone()));
    let broker = Broker::with(disk.disk(), |config| config.io_threads = 2).await;
    broker.topic("t", 1, "os").await;
    let old = broker.engine.deploy_module("m", guests::transform()).await.expect("it can be deployed");
    // Its deletion holds the catalogue, and waits for the disk.
    disk.writes.shut();
    disk.removals.shut();
    let engine = Arc::clone(&broker.engine);
    let deleting = tokio::spawn(async move { engine.delete_module(ModuleRef::current("m")).await });
    disk.writes.arrived(1).await;
    // The same bytes come again under another name. They are compiled, in the order of the uploads, and wait for the catalogue.
    let engine = Arc::clone(&broker.engine);
    let returning = tokio::spawn(async move { engine.deploy_module("other", guests::transform()).await });
    broker.engine.deploy_module("none", Bytes::new()).await.expect_err("it is no module");
    disk.writes.open();
    disk.removals.arrived(1).await;
    // Enough for whoever does not wait to come as far as it can.
    for _ in 0..100 {
        broker.produce("t", 0, &["x"]).await.expect("it is stored");
    }
    disk.removals.open();
    deleting.await.expect("no panic").expect("it is attached nowhere");
    let info = returning.await.expect("no panic").expect("it can be deployed");
    assert_eq!(info.sha256, old.sha256);
    let broker = broker.restart().await;
    broker.engine.attach(attachment("t", "other", 'i')).await.expect("its file is there");
}

#[tokio::test]
async fn an_upload_over_the_limit_is_refused_with_the_limit() {
    let disk = std::sync::Arc::new(millpond_log::sim::SimDisk::new());
    let broker = Broker::with(disk, |config| config.max_module_bytes = 100).await;
    let error = broker.engine.deploy_module("m", guests::transform()).await.expect_err("it is larger");
    assert_eq!(error.code(), ErrorCode::ModuleTooLarge);
    assert!(error.to_string().contains("limit of 100 bytes"), "{error}");
}

#[tokio::test]
async fn a_module_that_was_lost_stops_its_topic_and_nothing_else() {
    let (broker, sim) = Broker::simulated().await;
    broker.topic("masked", 1, "os").await;
    broker.topic("plain", 1, "os").await;
    broker.attach("masked", "m", 'c').await;
    broker.produce("masked", 0, &["a"]).await.expect("it is stored");
    let sha256 = broker.engine.modules()[0].sha256.clone();
    broker.engine.shutdown().await;
    sim.remove_file(&broker.dir.path().join(format!("modules/{sha256}.wasm"))).expect("it is there");

    let broker = broker.restart().await;
    let error = broker.produce("masked", 0, &["secret"]).await.expect_err("it would be stored without its mask");
    assert!(matches!(error, EngineError::ModuleLost { .. }), "{error:?}");
    assert_eq!(broker.values("masked", 0).await, ["A"]);
    broker.produce("plain", 0, &["b"]).await.expect("it is stored");
    broker.engine.deploy_module("m", guests::transform()).await.expect("it can be uploaded again");
    broker.produce("masked", 0, &["b"]).await.expect("it is stored");
    assert_eq!(broker.values("masked", 0).await, ["A", "B"]);
}

#[tokio::test]
async fn a_module_that_loops_does_not_hold_up_the_modules_of_other_topics() {
    let change = |config: &mut EngineConfig| {
        config.plugin_threads = 2;
        config.plugin_limits.time = Duration::from_secs(1);
    };
    let broker = Broker::with(Arc::new(SimDisk::new()), change).await;
    for topic in ["looping", "other"] {
        broker.topic(topic, 1, "os").await;
        broker.attach(topic, "m", 'c').await;
        broker.produce(topic, 0, &["a"]).await.expect("it is stored");
    }
    let mut producers: Vec<_> = (0..3).map(|_| broker.producer("looping", Some(0))).collect();
    let mut looping = Vec::new();
    for producer in &mut producers {
        let mut submitted = Box::pin(broker.submit(producer, batch(&["x~"])));
        // From here on it waits for a plugin thread, or has one.
        assert!((&mut submitted).now_or_never().is_none());
        looping.push(submitted);
    }
    for _ in 0..10 {
        broker.produce("other", 0, &["b"]).await.expect("it is stored");
    }
    assert!(looping.iter_mut().all(|submitted| submitted.now_or_never().is_none()), "none has come to its limit yet");
    assert_eq!(broker.values("other", 0).await.len(), 11);
}

//! Derived topics and what there is room for: a disk that is full, files that stay within their bound, and sources whose records are deleted
//! before, or after, they were read.

use crate::{
    broker::{Broker, batch},
    derive::{caught_up, counts, derived, into, send, until},
    derive_guests, guests,
};
use millpond_engine::Engine;
use millpond_log::{
    Disk,
    sim::{Random, SimDisk},
};
use millpond_protocol::{
    error::ErrorCode,
    message::{AttachPoint, AttachTransform, DeleteRecords, DeriveInto, DerivedPartition, ModuleRef, Position},
};
use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

/// A module that leaves out what ends in an even digit, traps at `!`, and derives `target` from `source`.
async fn with_odd() -> (Broker, SimDisk) {
    let (broker, disk) = Broker::simulated().await;
    for topic in ["source", "target"] {
        broker.topic(topic, 1, "sync").await;
    }
    broker.engine.deploy_module("odd", guests::transform()).await.expect("it can be deployed");
    let params = BTreeMap::from([("mode".to_owned(), "e".to_owned())]);
    let derive = Some(DeriveInto::new(["target"]));
    let attach = AttachTransform { params, derive, ..AttachTransform::new("source", ModuleRef::current("odd"), AttachPoint::Derive) };
    broker.engine.attach(attach).await.expect("it can be attached");
    (broker, disk)
}

fn one(broker: &Broker) -> DerivedPartition {
    derived(broker, "source").remove(0)
}

async fn delete_before(broker: &Broker, offset: i64) {
    let delete = DeleteRecords { topic: "source".to_owned(), partition: 0, before: Position::Offset(offset) };
    broker.engine.delete_records(&delete).await.expect("it can be done");
}

/// The files of the one attachment there is.
fn files(broker: &Broker, disk: &SimDisk) -> Vec<PathBuf> {
    let derived = broker.dir.path().join("derived");
    let folder = derived.join(&disk.list(&derived).expect("it is there")[0]);
    disk.list(&folder).expect("it is there").iter().map(|name| folder.join(name)).collect()
}

fn has_journal(broker: &Broker, disk: &SimDisk) -> bool {
    files(broker, disk).iter().any(|file| file.extension().is_some_and(|extension| extension == "journal"))
}

#[tokio::test]
async fn on_a_disk_that_is_full_now_and_then_it_waits_and_each_record_has_its_effect_once() {
    let mut waited = 0;
    for seed in 0..6 {
        let (broker, disk) = Broker::simulated().await;
        for topic in ["source", "a", "b"] {
            broker.topic(topic, 1, "sync").await;
        }
        broker.engine.deploy_module("counter", derive_guests::counter(1)).await.expect("it can be deployed");
        broker.engine.attach(into("source", "counter", &["a", "b"])).await.expect("it can be attached");
        let (mut random, mut sent) = (Random::new(seed), BTreeMap::<String, u32>::new());
        for step in 0..40 {
            if step % 8 == 0 {
                // Enough for some batches of the source, and for a part of what is made of them.
                disk.limit_bytes((step % 16 == 0).then(|| disk.used_bytes() + 2_000 + random.below(6_000)));
                disk.shorten_writes((seed % 2 == 0).then_some(seed));
            }
            let keys: Vec<_> = (0..20).map(|_| format!("{:>40}", random.below(3))).collect();
            let records: Vec<_> = keys.iter().map(|key| (key.as_str(), if random.percent(50) { "0" } else { "1" })).collect();
            match send(&broker, "source", 0, &records).await {
                Ok(()) => keys.into_iter().for_each(|key| *sent.entry(key).or_default() += 1),
                Err(error) => {
                    assert_eq!(error.code(), ErrorCode::StorageFull, "{error:?}");
                    until(&broker, "source", |partitions| partitions[0].lag == 0 || partitions[0].error.is_some()).await;
                    waited += u32::from(one(&broker).error.is_some());
                }
            }
        }
        disk.limit_bytes(None);
        caught_up(&broker, "source").await;
        until(&broker, "source", |partitions| partitions[0].error.is_none()).await;
        let mut found = BTreeMap::<String, Vec<u32>>::new();
        for (key, count) in [counts(&broker, "a", 0).await, counts(&broker, "b", 0).await].concat() {
            found.entry(key).or_default().push(count);
        }
        for numbers in found.values_mut() {
            numbers.sort_unstable();
        }
        let expected: BTreeMap<_, Vec<_>> = sent.into_iter().map(|(key, count)| (key, (1..=count).collect())).collect();
        assert_eq!(found, expected, "seed {seed}");
        broker.engine.shutdown().await;
    }
    assert!(waited > 0, "it never found the disk full");
}

#[tokio::test]
async fn its_files_stay_within_their_bound_and_are_told() {
    let (broker, disk) = with_odd().await;
    let large = format!("{}1", "x".repeat(100_000));
    let (mut largest, mut written) = (0, 0);
    for number in 0..150 {
        broker.produce("source", 0, &[&large]).await.expect("there is room");
        written += 100_000;
        until(&broker, "source", |partitions| partitions[0].position > number).await;
        largest = largest.max(one(&broker).file_bytes);
    }
    assert!((1 << 20..written / 2).contains(&largest), "the journal begins anew now and then: {largest}");
    let info = broker.engine.topic("source").expect("it is there");
    let limit = info.attachments[0].derived.as_ref().expect("it derives a topic").file_bytes_max;
    assert!(largest < limit, "{largest} of {limit}");
    broker.engine.shutdown().await;
    let on_disk: usize = files(&broker, &disk).iter().map(|file| disk.bytes(file).expect("it is there").len()).sum();
    assert_eq!(one(&broker).file_bytes, on_disk as u64);
}

#[tokio::test]
async fn what_was_read_and_had_no_effect_is_not_taken_for_deleted() {
    let (broker, disk) = with_odd().await;
    for _ in 0..5 {
        broker.produce("source", 0, &["2"]).await.expect("it is stored");
    }
    until(&broker, "source", |partitions| partitions[0].position == 5).await;
    assert!(!has_journal(&broker, &disk), "five rounds without effect are not worth a commit");
    // Their deletion is: from then on the disk has to know that they were read.
    delete_before(&broker, 4).await;
    while !has_journal(&broker, &disk) {
        tokio::task::yield_now().await;
    }
    broker.produce("source", 0, &["3!"]).await.expect("it is stored");
    until(&broker, "source", |partitions| partitions[0].error.as_ref().is_some_and(|error| error.starts_with("stopped"))).await;
    assert_eq!((one(&broker).position, one(&broker).skipped), (5, 0), "however often it is tried again");

    // The power goes, so that nothing is written when it stops.
    disk.cut_power_after(0);
    broker.engine.shutdown().await;
    disk.crash(1);
    let opened = Engine::open(broker.config.clone(), Arc::clone(&broker.disk), Arc::clone(&broker.clock) as _).await;
    let broker = Broker { engine: opened.expect("it opens"), ..broker };
    until(&broker, "source", |partitions| partitions[0].error.is_some()).await;
    assert_eq!((one(&broker).position, one(&broker).skipped), (5, 0));
}

#[tokio::test]
async fn a_stop_in_order_keeps_the_place_behind_what_had_no_effect() {
    let (broker, _) = with_odd().await;
    for _ in 0..5 {
        broker.produce("source", 0, &["2"]).await.expect("it is stored");
    }
    until(&broker, "source", |partitions| partitions[0].position == 5).await;
    let broker = broker.restart().await;
    broker.produce("source", 0, &["3"]).await.expect("it is stored");
    until(&broker, "source", |partitions| partitions[0].position == 6).await;
    let status = broker.engine.topic("source").expect("it is there").attachments.remove(0);
    assert_eq!((status.records_in, status.records_out, one(&broker).skipped), (1, 1, 0), "nothing was read again");
    assert_eq!(broker.values("target", 0).await, ["3"]);
}

#[tokio::test]
async fn what_was_deleted_before_it_was_read_is_counted_once_however_often_what_follows_is_tried() {
    let (broker, _) = with_odd().await;
    broker.produce("source", 0, &["1!"]).await.expect("it is stored");
    until(&broker, "source", |partitions| partitions[0].error.as_ref().is_some_and(|error| error.starts_with("stopped"))).await;
    for values in [&["3"][..], &["5!"]] {
        broker.produce("source", 0, values).await.expect("it is stored");
    }
    delete_before(&broker, 2).await;
    let broker = broker.restart().await;
    // It is tried four times, and each time the store is opened again.
    until(&broker, "source", |partitions| partitions[0].error.as_ref().is_some_and(|error| error.starts_with("stopped"))).await;
    assert_eq!((one(&broker).position, one(&broker).skipped), (2, 2));
    // What comes to its end with it counts as well, and is told at once.
    delete_before(&broker, 3).await;
    let broker = broker.restart().await;
    until(&broker, "source", |partitions| partitions[0].position == 3).await;
    assert_eq!((one(&broker).lag, one(&broker).skipped), (0, 1));
}

#[tokio::test]
async fn a_module_says_how_far_it_is_wherever_it_derives_topics() {
    let (broker, _) = with_odd().await;
    broker.produce("source", 0, &["1", "2"]).await.expect("it is stored");
    until(&broker, "source", |partitions| partitions[0].position == 2).await;
    let stopped = batch(&["4", "5!"]);
    let mut producer = broker.producer("source", Some(0));
    broker.submit(&mut producer, stopped).await.await.expect("it is stored");
    until(&broker, "source", |partitions| partitions[0].error.is_some()).await;
    let module = broker.engine.module("odd").expect("it is there");
    let at = &module.versions[0].attached[0];
    let derived = at.status.as_ref().and_then(|status| status.derived.as_ref()).expect("it derives a topic");
    let DerivedPartition { position, lag, file_bytes, error, .. } = &derived.partitions[0];
    assert_eq!((&derived.targets[..], *position, *lag), (&["target".to_owned()][..], 2, 2));
    assert!(*file_bytes > 0 && error.is_some(), "{derived:?}");
}

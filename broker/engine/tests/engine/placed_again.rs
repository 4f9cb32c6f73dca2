//! Batches that come again where the broker places records, and what places them was changed meanwhile.

use crate::{
    broker::{Broker, attachment},
    guests,
    sequences::{code, keyed, place},
};
use millpond_log::sim::{Fault, Operation};
use millpond_protocol::{
    error::ErrorCode,
    message::{AttachPoint, AttachTransform, DetachTransform, ModuleRef, OnError},
};
use std::collections::{BTreeMap, BTreeSet};

fn partitioner(topic: &str) -> AttachTransform {
    AttachTransform::new(topic, ModuleRef::current("deal"), AttachPoint::Partition)
}

#[tokio::test]
async fn what_came_before_is_placed_as_it_was_whatever_places_records_since() {
    let (broker, disk) = Broker::simulated().await;
    broker.topic("t", 4, "os").await;
    broker.engine.deploy_module("deal", guests::partitioner()).await.expect("it can be deployed");
    let values: Vec<String> = (0..16).map(|number| format!("value-{number}")).collect();
    // Of one key: one partition has them all, or each has its share.
    let records: Vec<_> = values.iter().map(|value| (Some("k"), value.as_str())).collect();
    let mut next = 0;
    let (mut partly, mut places) = (0, BTreeSet::new());
    for round in 0..40 {
        let is_attached = round % 2 == 0;
        let mut stream = broker.producer("t", None);
        disk.fail(Operation::Write, round / 2 % 4, Fault::NoSpace);
        let batches = [keyed(0, next, &records), keyed(0, next + 16, &records)];
        let first = broker.submit(&mut stream, batches[0].clone()).await;
        let second = broker.submit(&mut stream, batches[1].clone()).await;
        let outcomes = [first.await.is_err_and(|error| error.to_wire().partly_stored), second.await.is_ok()];
        partly += u32::from(outcomes[0]);
        disk.forget_failures(Operation::Write);
        if is_attached {
            broker.engine.attach(partitioner("t")).await.expect("it can be attached");
        } else {
            broker.engine.detach(DetachTransform::new("t", "deal", AttachPoint::Partition)).await.expect("it can be detached");
        }
        if round % 3 == 0 {
            stream = broker.producer("t", None);
        }
        for batch in batches {
            place(&broker, &mut stream, batch).await.expect("it is stored, or was");
        }
        next += 32;
        let new = place(&broker, &mut stream, keyed(0, next, &records)).await.expect("it is stored");
        let used: BTreeSet<u32> = new.records.iter().map(|record| record.partition).collect();
        assert_eq!(used.len() > 1, is_attached, "what is new goes where it belongs now");
        places.extend(used);
        next += 16;
    }
    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    for partition in 0..4 {
        for value in broker.values("t", partition).await {
            *seen.entry(value).or_default() += 1;
        }
    }
    assert!(seen.len() == 16 && seen.values().all(|count| *count == 40 * 3), "{seen:?}");
    assert!(partly > 0 && places.len() == 4, "{partly} batches were stored in part");
}

/// What a producer sent before the broker was restarted is placed by what is attached since: the checksums of its parts tell.
#[tokio::test]
async fn a_partitioner_that_changes_its_mind_is_found_out() {
    let (broker, _) = Broker::simulated().await;
    broker.topic("t", 2, "sync").await;
    let records = [(Some("k"), "a"), (Some("k"), "b")];
    let mut stream = broker.producer("t", None);
    let first = place(&broker, &mut stream, keyed(0, 0, &records)).await.expect("it is stored");
    broker.engine.deploy_module("deal", guests::partitioner()).await.expect("it can be deployed");
    broker.engine.attach(partitioner("t")).await.expect("it can be attached");
    let mut other = broker.producer("t", None);
    assert_eq!(place(&broker, &mut other, keyed(0, 0, &records)).await.expect("it was stored").records, first.records);
    drop((stream, other));
    let broker = broker.restart().await;
    let mut other = broker.producer("t", None);
    assert_eq!(code(place(&broker, &mut other, keyed(0, 0, &records)).await), ErrorCode::DuplicateSequence);
}

#[tokio::test]
async fn a_module_that_was_attached_since_sees_a_batch_of_which_nothing_was_stored() {
    let (broker, disk) = Broker::simulated().await;
    broker.topic("t", 1, "os").await;
    broker.engine.deploy_module("m", guests::transform()).await.expect("it can be deployed");
    let mut stream = broker.producer("t", None);
    place(&broker, &mut stream, keyed(0, 0, &[(None, "a")])).await.expect("it is stored");
    disk.fail(Operation::Write, 1, Fault::NoSpace);
    let refused = place(&broker, &mut stream, keyed(0, 1, &[(None, "b")])).await.expect_err("there is no room");
    assert!(!refused.to_wire().partly_stored, "{refused:?}");
    broker.engine.attach(attachment("t", "m", 'c')).await.expect("it can be attached");
    place(&broker, &mut stream, keyed(0, 1, &[(None, "b")])).await.expect("there is room");
    // And one that was stored is known, though the module would change it.
    let mut again = broker.producer("t", None);
    place(&broker, &mut again, keyed(0, 0, &[(None, "a")])).await.expect("it was stored");
    assert_eq!(broker.values("t", 0).await, ["a", "B"]);
}

#[tokio::test]
async fn where_the_modules_of_the_first_try_can_not_run_any_more_those_that_run_now_do() {
    let (broker, disk) = Broker::simulated().await;
    broker.topic("t", 4, "os").await;
    broker.topic("letters", 1, "os").await;
    broker.engine.deploy_module("m", guests::transform()).await.expect("it can be deployed");
    let on_error = OnError::DeadLetter("letters".to_owned());
    broker.engine.attach(AttachTransform { on_error, ..attachment("t", "m", 'i') }).await.expect("it can be attached");
    let keys: Vec<String> = (0..16).map(|number| format!("key-{number}")).collect();
    let mut records: Vec<_> = keys.iter().map(|key| (Some(key.as_str()), key.as_str())).collect();
    let mut stream = broker.producer("t", None);
    let places = place(&broker, &mut stream, keyed(0, 0, &records)).await.expect("it is stored").records;
    // The module fails on a record that is alone in its partition.
    let alone = places[0].partition;
    records.retain({
        let mut places = places.iter();
        move |_| places.next().is_some_and(|place| place.partition != alone)
    });
    records.push((Some("key-0"), "bad?"));
    disk.fail(Operation::Write, 2, Fault::NoSpace);
    let partly = place(&broker, &mut stream, keyed(0, 16, &records)).await.expect_err("there is no room for a part");
    assert!(partly.to_wire().partly_stored, "{partly:?}");
    broker.engine.detach(DetachTransform::new("t", "m", AttachPoint::Produce)).await.expect("it can be detached");
    broker.engine.delete_topic("letters").await.expect("nobody needs it");
    place(&broker, &mut stream, keyed(0, 16, &records)).await.expect("the rest is stored");
    let mut stored = 0;
    for partition in 0..4 {
        stored += broker.values("t", partition).await.len();
    }
    assert_eq!((stored, broker.values("t", alone).await.last().map(String::as_str)), (16 + records.len(), Some("bad?")));
}

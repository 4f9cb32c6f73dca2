//! Batches of which there is too much for a module, and those with too many records on which it fails: none that it has not tried is left out.

use crate::{
    broker::{Broker, attachment, create},
    derive::{counts, derived, into, send, until},
    derive_guests, guests,
};
use millpond_protocol::{
    error::ErrorCode,
    message::{AlterTopic, AttachLimits, AttachPoint, AttachTransform, DeriveInto, ModuleRef, OnError, OpenConsume, Position},
};
use std::collections::BTreeMap;

/// So many that looking for those at fault takes more than is given to one batch.
const MANY: usize = 6_000;

fn dead() -> OnError {
    OnError::DeadLetter("dead".to_owned())
}

/// Every second one is bad.
fn alternating(records: usize) -> Vec<String> {
    (0..records).map(|number| if number % 2 == 0 { format!("good-{number}") } else { "poison".to_owned() }).collect()
}

fn good(values: &[String]) -> Vec<String> {
    values.iter().filter(|value| *value != "poison").cloned().collect()
}

fn texts(values: &[String]) -> Vec<&str> {
    values.iter().map(String::as_str).collect()
}

/// The module that traps where there is a bad record in a batch.
fn poisoned(on_error: OnError, on: AttachPoint) -> AttachTransform {
    let params = [("mode", "trap"), ("only", "poison")].map(|(name, value)| (name.to_owned(), value.to_owned()));
    AttachTransform { on_error, params: BTreeMap::from(params), ..AttachTransform::new("t", ModuleRef::current("hostile"), on) }
}

async fn with_hostile() -> Broker {
    let (broker, _) = Broker::simulated().await;
    for topic in ["t", "dead", "target"] {
        broker.topic(topic, 1, "os").await;
    }
    broker.engine.deploy_module("hostile", guests::hostile()).await.expect("it can be deployed");
    broker
}

#[tokio::test]
async fn where_not_all_records_can_be_tried_the_batch_is_refused_and_no_good_one_is_lost() {
    for on_error in [OnError::Skip, dead()] {
        let broker = with_hostile().await;
        broker.engine.attach(poisoned(on_error.clone(), AttachPoint::Produce)).await.expect("it can be attached");
        let values = alternating(MANY);
        let error = broker.produce("t", 0, &texts(&values)).await.expect_err("too much of it fails").to_wire();
        assert_eq!((error.code, error.retryable, error.partly_stored), (ErrorCode::GuestSearchEnded, false, false), "{}", error.message);
        assert!(error.message.contains(&format!("of its {MANY} records")) && error.message.contains("told to panic"), "{}", error.message);
        assert!(error.hint.is_some_and(|hint| hint.contains("--batch-bytes") && hint.contains("--time")));
        assert_eq!((broker.values("t", 0).await.len(), broker.values("dead", 0).await.len()), (0, 0), "neither a record nor a letter");
        let status = broker.engine.topic("t").expect("it is there").attachments.remove(0);
        assert_eq!((status.records_failed, status.work.records_rejected, status.failures), (0, MANY as u64, 1));

        let small = &values[..40];
        broker.produce("t", 0, &texts(small)).await.expect("of a smaller one all are tried");
        assert_eq!(broker.values("t", 0).await, good(small));
        assert_eq!(broker.values("dead", 0).await.len(), if on_error == OnError::Skip { 0 } else { 20 });
    }
}

#[tokio::test]
async fn a_view_refuses_such_a_batch_too() {
    let broker = with_hostile().await;
    broker.produce("t", 0, &texts(&alternating(MANY))).await.expect("nothing looks at it");
    let view = AttachTransform { view: Some("v".to_owned()), ..poisoned(OnError::Skip, AttachPoint::Fetch) };
    broker.engine.attach(view).await.expect("it can be attached");
    let open = OpenConsume { topic: "t".to_owned(), partition: 0, from: Position::Beginning, view: Some("v".to_owned()) };
    let (mut stream, _) = broker.engine.open_consume(&open).await.expect("it opens");
    assert_eq!(stream.next(1 << 20).await.expect_err("too much of it fails").code(), ErrorCode::GuestSearchEnded);
}

#[tokio::test]
async fn a_derived_topic_goes_on_within_a_batch_until_every_record_was_tried() {
    for on_error in [OnError::Skip, dead()] {
        let broker = with_hostile().await;
        let values = alternating(MANY);
        broker.produce("t", 0, &texts(&values)).await.expect("it is stored");
        let derive = Some(DeriveInto { retries: Some(0), ..DeriveInto::new(["target"]) });
        let attach = AttachTransform { derive, ..poisoned(on_error.clone(), AttachPoint::Derive) };
        broker.engine.attach(attach).await.expect("it can be attached");
        until(&broker, "t", |partitions| partitions[0].lag == 0).await;
        assert_eq!(broker.values("target", 0).await, good(&values), "each good one, once and in order");
        let status = broker.engine.topic("t").expect("it is there").attachments.remove(0);
        let (bad, letters) = (MANY as u64 / 2, if on_error == OnError::Skip { 0 } else { MANY / 2 });
        assert_eq!((broker.values("dead", 0).await.len(), status.work.records_dead_lettered), (letters, letters as u64));
        assert_eq!((status.records_in, status.records_out, status.records_failed), (MANY as u64, bad, bad));
        assert!(status.failures > 1, "in several rounds");
    }
}

/// The module that changes the case of the last letter, into `target`, with so little memory that it takes half a MiB at once, but not all of
/// a larger batch.
fn narrow() -> AttachTransform {
    let derive = Some(DeriveInto { retries: Some(0), ..DeriveInto::new(["target"]) });
    let limits = AttachLimits { memory_bytes: Some(1 << 20), ..AttachLimits::default() };
    AttachTransform { on: AttachPoint::Derive, derive, limits, ..attachment("t", "m", 'c') }
}

async fn with_narrow() -> Broker {
    let (broker, _) = Broker::simulated().await;
    for topic in ["t", "target"] {
        broker.topic(topic, 1, "os").await;
    }
    broker.engine.deploy_module("m", guests::transform()).await.expect("it can be deployed");
    broker
}

#[tokio::test]
async fn a_derived_topic_that_stops_at_failures_does_not_stop_at_a_batch_that_is_merely_large() {
    let broker = with_narrow().await;
    let values: Vec<_> = (0..30).map(|number| format!("{number}{}a", "-".repeat(30_000))).collect();
    broker.produce("t", 0, &texts(&values)).await.expect("it is stored");
    broker.produce("t", 0, &["b"]).await.expect("it is stored");
    broker.engine.attach(narrow()).await.expect("it can be attached");
    until(&broker, "t", |partitions| partitions[0].lag == 0 || partitions[0].error.is_some()).await;
    assert_eq!(derived(&broker, "t")[0].error, None);
    let expected: Vec<_> = values.iter().map(|value| value.replace('a', "A")).chain(["B".to_owned()]).collect();
    assert_eq!(broker.values("target", 0).await, expected, "each once, and in order");
    let status = broker.engine.topic("t").expect("it is there").attachments.remove(0);
    assert_eq!((status.records_out, status.records_failed, status.work.records_rejected), (31, 0, 0));
    assert!(status.work.failures_by_kind["guest_out_of_memory"] > 0, "{:?}", status.work);
}

#[tokio::test]
async fn a_record_that_is_too_much_alone_is_where_it_stops() {
    let broker = with_narrow().await;
    let mut values: Vec<_> = (0..30).map(|number| format!("{number}a")).collect();
    values[17] = "a".repeat(900_000);
    broker.produce("t", 0, &texts(&values)).await.expect("it is stored");
    broker.engine.attach(narrow()).await.expect("it can be attached");
    until(&broker, "t", |partitions| partitions[0].error.as_ref().is_some_and(|error| error.starts_with("stopped"))).await;
    let one = derived(&broker, "t").remove(0);
    assert!(one.position == 17 && one.error.is_some_and(|error| error.contains("needs more memory")), "{}", one.position);
    let expected: Vec<_> = (0..17).map(|number| format!("{number}A")).collect();
    assert_eq!(broker.values("target", 0).await, expected);
}

#[tokio::test]
async fn what_goes_with_a_letter_that_has_no_place_has_its_effect_once_it_has_one() {
    let (broker, _) = Broker::simulated().await;
    for topic in ["source", "a"] {
        broker.topic(topic, 1, "sync").await;
    }
    let mut small = create("dead", 1, "sync");
    small.config.max_batch_bytes = 1 << 10;
    broker.engine.create_topic(small).await.expect("it can be made");
    broker.engine.deploy_module("counter", derive_guests::counter(1)).await.expect("it can be deployed");
    send(&broker, "source", 0, &[("k", "0")]).await.expect("it is stored");
    let large = format!("{}!", "x".repeat(3_000));
    send(&broker, "source", 0, &[("k", "0"), ("k", &large), ("k", "0")]).await.expect("it is stored");
    let mut attach = AttachTransform { on_error: dead(), ..into("source", "counter", &["a"]) };
    attach.derive.as_mut().expect("it has targets").retries = Some(0);
    broker.engine.attach(attach).await.expect("it can be attached");
    until(&broker, "source", |partitions| partitions[0].error.as_ref().is_some_and(|error| error.contains("dead letter"))).await;
    let of = |counted: std::ops::RangeInclusive<u32>| counted.map(|count| ("k".to_owned(), count)).collect::<Vec<_>>();
    assert_eq!(counts(&broker, "a", 0).await, of(1..=1), "nothing of the batch that has failed");
    let dead_lettered = || broker.engine.topic("source").expect("it is there").attachments.remove(0).work.records_dead_lettered;
    assert_eq!(dead_lettered(), 0, "it is not stored");
    let larger = AlterTopic { name: "dead".to_owned(), max_batch_bytes: Some(1 << 20), ..AlterTopic::default() };
    broker.engine.alter_topic(larger).await.expect("it can be changed");
    until(&broker, "source", |partitions| partitions[0].lag == 0).await;
    assert_eq!((counts(&broker, "a", 0).await, dead_lettered()), (of(1..=3), 1));
}

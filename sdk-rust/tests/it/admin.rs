//! Requests: what is sent again and what is not.

use crate::support::{FakeBroker, OnRequest, soon};
use bytes::Bytes;
use millpond::{AlterTopic, CreateTopic, ErrorCode, Position, WireError};
use std::{sync::atomic::Ordering, time::Duration};

fn new_topic(name: &str) -> CreateTopic {
    CreateTopic { name: name.to_owned(), partitions: 2, ..CreateTopic::default() }
}

fn overloaded() -> WireError {
    WireError::new(ErrorCode::Overloaded, "too many requests")
}

#[tokio::test]
async fn a_topic_is_made_found_listed_and_removed() {
    let broker = FakeBroker::start(1);
    let admin = broker.client().await.admin();
    assert_eq!(soon(admin.create_topic(new_topic("a"))).await.unwrap().partitions.len(), 2);
    let names: Vec<String> = soon(admin.topics()).await.unwrap().into_iter().map(|topic| topic.name).collect();
    assert_eq!(names, ["a", "readings"]);
    assert_eq!(soon(admin.topic("a")).await.unwrap().name, "a");
    assert_eq!(soon(admin.list_offset("a", 1, Position::End)).await.unwrap().offset, 0);
    soon(admin.delete_topic("a")).await.unwrap();
    let error = soon(admin.topic("a")).await.unwrap_err();
    assert_eq!((error.code(), error.hint().as_deref()), ("topic_not_found", Some("create it first")));
}

#[tokio::test]
async fn a_topic_is_changed_and_its_oldest_records_are_deleted() {
    let broker = FakeBroker::start(1);
    broker.state.with_topic(|topic| topic.fill(0, &["a", "b", "c"]));
    let admin = broker.client().await.admin();
    let change = AlterTopic { name: "readings".to_owned(), max_batch_bytes: Some(5_000), ..AlterTopic::default() };
    assert_eq!(soon(admin.alter_topic(change.clone())).await.unwrap().config.max_batch_bytes, 5_000);
    assert_eq!(soon(admin.delete_records("readings", 0, Position::Offset(2))).await.unwrap().log_start, 2);
    assert_eq!(soon(admin.topic("readings")).await.unwrap().partitions[0].log_start, 2);
    let error = soon(admin.delete_records("readings", 0, Position::Offset(4))).await.unwrap_err();
    assert_eq!(error.code(), "offset_out_of_range");
    let error = soon(admin.alter_topic(AlterTopic { name: "none".to_owned(), ..change.clone() })).await.unwrap_err();
    assert_eq!(error.code(), "topic_not_found");
    // Neither is sent again once it may have been done.
    broker.state.script_requests([OnRequest::LoseAfter]);
    let error = soon(admin.alter_topic(change)).await.unwrap_err();
    assert!(error.to_string().contains("changing topic `readings` may or may not have been done"), "{error}");
    broker.state.script_requests([OnRequest::LoseAfter]);
    let error = soon(admin.delete_records("readings", 0, Position::End)).await.unwrap_err();
    assert!(error.to_string().contains("deleting records of readings[0] may or may not have been done"), "{error}");
}

#[tokio::test]
async fn a_request_that_changes_nothing_is_sent_again_after_a_loss() {
    let broker = FakeBroker::start(1);
    let admin = broker.client().await.admin();
    broker.state.script_requests([OnRequest::LoseBefore, OnRequest::LoseAfter]);
    assert_eq!(soon(admin.topics()).await.unwrap().len(), 1);
    assert_eq!(*broker.state.done.lock(), ["ListTopics", "ListTopics"]);
}

#[tokio::test]
async fn a_request_that_changes_something_is_not_sent_again_once_it_may_have_been_done() {
    let broker = FakeBroker::start(1);
    let admin = broker.client().await.admin();
    for lost in [OnRequest::LoseBefore, OnRequest::LoseAfter] {
        broker.state.script_requests([lost]);
        let error = soon(admin.create_topic(new_topic("a"))).await.unwrap_err();
        assert_eq!((error.code(), error.maybe_done()), ("unanswered", true));
        assert!(error.to_string().contains("creating topic `a` may or may not have been done"), "{error}");
    }
    assert_eq!(*broker.state.done.lock(), ["CreateTopic"], "once, for the second");
}

#[tokio::test]
async fn a_request_that_the_broker_put_off_is_sent_again_whatever_it_is() {
    let broker = FakeBroker::start(1);
    let admin = broker.client().await.admin();
    broker.state.script_requests([OnRequest::Refuse(overloaded()), OnRequest::Refuse(overloaded())]);
    soon(admin.create_topic(new_topic("a"))).await.unwrap();
    assert_eq!(*broker.state.done.lock(), ["CreateTopic"]);
}

#[tokio::test]
async fn a_request_while_the_broker_is_away_waits_for_it() {
    let broker = FakeBroker::start(1);
    let client = broker.client().await;
    soon(client.admin().topics()).await.unwrap();
    let stopped = broker.stop().await;
    let request = tokio::spawn({
        let admin = client.admin();
        async move { admin.create_topic(new_topic("a")).await }
    });
    tokio::task::yield_now().await;
    let broker = stopped.start();
    soon(request).await.unwrap().unwrap();
    assert_eq!(broker.state.connections(), 2);
}

#[tokio::test]
async fn a_deadline_says_whether_it_may_have_been_done() {
    let broker = FakeBroker::start(1);
    let client = broker.client().await;
    let admin = client.admin().with_timeout(Duration::from_millis(100));
    broker.state.script_requests([OnRequest::Hang, OnRequest::Hang]);
    let error = soon(admin.create_topic(new_topic("a"))).await.unwrap_err();
    assert_eq!((error.code(), error.maybe_done()), ("timed_out", true));
    let error = soon(admin.topics()).await.unwrap_err();
    assert_eq!((error.code(), error.maybe_done()), ("timed_out", false));
    assert!(error.to_string().starts_with("listing topics took longer than 100ms"), "{error}");
    drop(broker.stop().await);
    let error = soon(admin.create_topic(new_topic("a"))).await.unwrap_err();
    assert_eq!((error.code(), error.maybe_done()), ("timed_out", false));
    assert!(error.hint().unwrap().contains("millpond serve"), "the hint of what went wrong last");
}

#[tokio::test]
async fn a_module_is_uploaded_whole() {
    let broker = FakeBroker::start(1);
    let admin = broker.client().await.admin();
    let wasm: Bytes = (0..1_000_003_u32).map(|number| u8::try_from(number % 251).unwrap()).collect::<Vec<_>>().into();
    let info = soon(admin.deploy_module("filter", wasm.clone())).await.unwrap();
    assert_eq!((info.name.as_str(), info.size_bytes), ("filter", 1_000_003));
    assert_eq!(*broker.state.modules.lock(), [wasm]);
}

#[tokio::test]
async fn an_upload_that_the_broker_stops_early_gets_the_broker_s_reason() {
    let broker = FakeBroker::start(1);
    let admin = broker.client().await.admin();
    broker.state.max_module_bytes.store(10, Ordering::SeqCst);
    let error = soon(admin.deploy_module("filter", Bytes::from(vec![0; 50 << 20]))).await.unwrap_err();
    assert_eq!(error.code(), "module_too_large");
}

/// Some megabytes, where a request may have one.
#[tokio::test]
async fn an_answer_may_be_far_longer_than_a_request() {
    let broker = FakeBroker::start(1);
    let admin = broker.client().await.admin();
    let large = CreateTopic { name: "large".to_owned(), partitions: 50_000, ..CreateTopic::default() };
    assert_eq!(soon(admin.create_topic(large)).await.unwrap().partitions.len(), 50_000);
}

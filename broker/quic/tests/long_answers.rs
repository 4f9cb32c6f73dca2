//! Answers of megabytes: thousands of partitions, on a disk that is not there.

mod common;

use common::{Broker, Frames, ask, patiently};
use millpond_log::sim::SimDisk;
use millpond_protocol::{
    error::ErrorCode,
    frame::{CONTROL_PAYLOAD_BYTES_MAX, RESPONSE_PAYLOAD_BYTES_MAX},
    message::{
        self, CompactionStatus, CreateTopic, DescribeTopic, Dropped, KnownDamage, PartitionInfo, Refused, Refusing, Request, Response,
        TopicConfig, TopicInfo,
    },
};
use millpond_quic::QuicLimits;
use quinn::{Connection, TransportConfig, VarInt};
use std::{sync::Arc, time::Duration};

/// As many as a topic may have.
const PARTITIONS: u32 = 10_000;

/// As many as a broker may have, by default.
const TOPICS_MAX: u32 = 10_000;
const PARTITIONS_MAX: u32 = 20_000;

async fn create(connection: &Connection, name: &str) {
    let create = CreateTopic { name: name.to_owned(), partitions: PARTITIONS, config: TopicConfig::default() };
    match ask(connection, &Request::CreateTopic(create)).await {
        Ok(Response::Topic(topic)) => assert_eq!(topic.partitions.len(), PARTITIONS as usize),
        other => panic!("a topic, not {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_the_partitions_that_there_may_be_are_told() {
    let broker = Broker::start_on(Arc::new(SimDisk::new()), QuicLimits::default()).await;
    let connection = broker.connect().await;
    create(&connection, "first").await;
    create(&connection, "second").await;
    let describe = Request::DescribeTopic(DescribeTopic { name: "second".to_owned() });
    match ask(&connection, &describe).await {
        Ok(Response::Topic(topic)) => assert_eq!(topic.partitions.last().expect("partitions").partition, PARTITIONS - 1),
        other => panic!("a topic, not {other:?}"),
    }
    let Ok(answer @ Response::Topics(_)) = ask(&connection, &Request::ListTopics).await else { panic!("the topics") };
    assert!(message::encode(&answer).len() > CONTROL_PAYLOAD_BYTES_MAX, "else it shows nothing");
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_is_not_read_is_cut_off_and_its_memory_is_for_others() {
    let limits = QuicLimits { stall_timeout: Duration::from_millis(100), transit_bytes_max: 3 << 20, ..QuicLimits::default() };
    let broker = Broker::start_on(Arc::new(SimDisk::new()), limits).await;
    let mut transport = TransportConfig::default();
    transport.stream_receive_window(VarInt::from_u32(16 << 10));
    let lazy_connection = broker.connect_with(transport).await;
    let connection = broker.connect().await;
    create(&connection, "first").await;
    create(&connection, "second").await;

    let mut lazy = Frames::open(&lazy_connection, &Request::ListTopics).await;
    let cut_off = patiently(lazy.receive.received_reset()).await.expect("the connection lives");
    assert_eq!(cut_off, Some(VarInt::from_u32(3)));
    assert!(matches!(ask(&connection, &Request::ListTopics).await, Ok(Response::Topics(_))));
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_there_is_no_memory_for_is_refused_for_the_moment() {
    let broker = Broker::start_on(Arc::new(SimDisk::new()), QuicLimits { transit_bytes_max: 1 << 20, ..QuicLimits::default() }).await;
    let connection = broker.connect().await;
    create(&connection, "first").await;
    create(&connection, "second").await;
    let error = ask(&connection, &Request::ListTopics).await.expect_err("too much");
    assert_eq!((error.code, error.retryable), (ErrorCode::Overloaded, true));
    assert!(error.hint.is_some_and(|hint| hint.contains("one topic")));
    broker.stop().await;
}

#[test]
fn the_limit_has_room_for_a_broker_that_is_full_and_whose_disk_has_failed() {
    let failure = "the log of `readings`, partition 10000, failed: can't write /var/lib/millpond/topics/readings/10000/\
                   00000000000000000000.log: Input/output error (os error 5)";
    let partition = PartitionInfo {
        partition: PARTITIONS_MAX,
        log_start: i64::MAX,
        high_watermark: i64::MAX,
        log_end: i64::MAX,
        size_bytes: u64::MAX,
        failure: Some(failure.to_owned()),
        unreadable: true,
        damage: Some(KnownDamage { ranges: u64::MAX, first_offset: i64::MAX }),
        ..PartitionInfo::default()
    };
    let words = |bytes| "w".repeat(bytes);
    let compaction =
        CompactionStatus { failure: Some(words(200)), retry_seconds: Some(600), bytes_read: u64::MAX, ..CompactionStatus::default() };
    let refusing = Refusing { bound: "disk".to_owned(), reason: words(300), hint: words(500), seconds_ago: Some(u64::MAX) };
    let sick = PartitionInfo { failure: None, refusing: Some(refusing), compaction: Some(compaction), ..partition.clone() };
    let described = TopicInfo { partitions: vec![sick; PARTITIONS as usize], ..TopicInfo::default() };
    let bytes = message::encode(&Response::Topic(described)).len();
    assert!(bytes < RESPONSE_PAYLOAD_BYTES_MAX, "{bytes} bytes");
    let topic = TopicInfo {
        name: "n".repeat(249),
        partitions: vec![partition; (PARTITIONS_MAX / TOPICS_MAX) as usize],
        used_bytes: u64::MAX,
        dropped: Dropped { segments: u64::MAX, records: u64::MAX, bytes: u64::MAX },
        refused: Refused { topic: u64::MAX, node: u64::MAX, disk: u64::MAX },
        ..TopicInfo::default()
    };
    let bytes = message::encode(&Response::Topics(vec![topic; TOPICS_MAX as usize])).len();
    assert!(bytes < RESPONSE_PAYLOAD_BYTES_MAX, "{bytes} bytes");
}

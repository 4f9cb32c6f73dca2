//! The ordinary way of batches in and out, and what is said when something is wrong with them.

mod common;

use common::{Broker, Frames, ask, batch, big_batch, client_endpoint, header};
use millpond_protocol::{
    ALPN,
    error::ErrorCode,
    frame::Kind,
    message::{
        DeleteTopic, DescribeTopic, Durability, ListOffset, OffsetFound, OpenConsume, OpenProduce, Position, Request, Response, TopicInfo,
    },
};
use quinn::{TransportConfig, VarInt};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_produced_is_consumed_in_order() {
    let broker = Broker::start().await;
    let connection = broker.connect().await;
    broker.create_topic(&connection, "readings", Durability::Sync).await;

    let mut producer = Frames::produce(&connection, "readings").await;
    let mut expected = Vec::new();
    for number in 0..100 {
        let values = [format!("{number}a"), format!("{number}b"), format!("{number}c")];
        producer.send_batch(&batch(&values.each_ref().map(String::as_str))).await;
        expected.extend(values);
    }
    producer.send.finish().expect("open");
    for number in 0..100 {
        let ack = producer.ack().await.expect("stored");
        assert_eq!((ack.base_offset, ack.last_offset, ack.durability), (number * 3, number * 3 + 2, Durability::Sync));
    }
    assert_eq!(producer.next().await, None, "all is answered");

    let mut consumer = Frames::consume(&broker.connect().await, "readings", Position::Beginning).await;
    assert_eq!(consumer.values(300).await, expected);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_at_the_end_is_given_what_comes() {
    let broker = Broker::start().await;
    let connection = broker.connect().await;
    broker.create_topic(&connection, "readings", Durability::Os).await;
    let mut producer = Frames::produce(&connection, "readings").await;
    producer.send_batch(&batch(&["old"])).await;
    producer.ack().await.expect("stored");

    let mut consumer = Frames::consume(&connection, "readings", Position::End).await;
    for value in ["first", "second"] {
        producer.send_batch(&batch(&[value])).await;
        assert_eq!(consumer.values(1).await, [value]);
    }
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_come_in_order_with_errors_in_their_place() {
    let broker = Broker::start().await;
    let connection = broker.connect().await;
    broker.create_topic(&connection, "readings", Durability::Sync).await;
    let mut producer = Frames::produce(&connection, "readings").await;

    let good = batch(&["good"]);
    let mut corrupt = good.to_vec();
    *corrupt.last_mut().expect("bytes") ^= 1;
    for bytes in [&good[..], &corrupt, b"no batch at all", &good, b"", &good] {
        producer.send_batch(bytes).await;
    }
    assert_eq!(producer.ack().await.expect("good").base_offset, 0);
    assert_eq!(producer.ack().await.expect_err("corrupt").code, ErrorCode::CorruptBatch);
    producer.ack().await.expect_err("no batch");
    assert_eq!(producer.ack().await.expect("good").base_offset, 1);
    producer.ack().await.expect_err("empty");
    assert_eq!(producer.ack().await.expect("good").base_offset, 2);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frame_over_the_limit_ends_its_stream_after_the_answers_before_it() {
    let broker = Broker::start().await;
    let connection = broker.connect().await;
    broker.create_topic(&connection, "readings", Durability::Sync).await;
    let limit_bytes = broker.engine.info().max_batch_bytes;

    let mut producer = Frames::produce(&connection, "readings").await;
    producer.send_batch(&batch(&["before"])).await;
    producer.write(&header(Kind::Produce, limit_bytes + 1)).await;
    assert_eq!(producer.ack().await.expect("good").base_offset, 0);
    let error = producer.ack().await.expect_err("too large");
    assert_eq!(error.code, ErrorCode::FrameTooLarge);
    assert!(error.message.contains(&limit_bytes.to_string()), "{error}");
    assert!(error.hint.is_some());
    assert_eq!(producer.next().await, None, "the stream is over");
    assert_eq!(producer.stopped().await, Some(VarInt::from_u32(1)));

    let mut producer = Frames::produce(&connection, "readings").await;
    producer.send_batch(&batch(&["after"])).await;
    assert_eq!(producer.ack().await.expect("the connection goes on").base_offset, 1);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_that_its_topic_does_not_take_is_refused_and_the_stream_goes_on() {
    let broker = Broker::start().await;
    let connection = broker.connect().await;
    let topic = broker.create_topic(&connection, "readings", Durability::Sync).await;
    let mut producer = Frames::produce(&connection, "readings").await;
    producer.send_batch(&big_batch(topic.config.max_batch_bytes as usize)).await;
    producer.send_batch(&batch(&["small"])).await;
    assert_eq!(producer.ack().await.expect_err("too large").code, ErrorCode::BatchTooLarge);
    assert_eq!(producer.ack().await.expect("small").base_offset, 0);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_produce_stream_takes_nothing_but_batches() {
    let broker = Broker::start().await;
    let connection = broker.connect().await;
    broker.create_topic(&connection, "readings", Durability::Sync).await;
    for bytes in [&header(Kind::Body, 5)[..], b"GET / HTTP/1.1\r\n"] {
        let mut producer = Frames::produce(&connection, "readings").await;
        producer.write(bytes).await;
        assert_eq!(producer.ack().await.expect_err("no batch").code, ErrorCode::InvalidRequest);
        assert_eq!(producer.next().await, None);
    }
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_ends_inside_a_frame_is_told_so_after_its_answers() {
    let broker = Broker::start().await;
    let connection = broker.connect().await;
    broker.create_topic(&connection, "readings", Durability::Sync).await;
    let mut producer = Frames::produce(&connection, "readings").await;
    producer.send_batch(&batch(&["whole"])).await;
    producer.write(&header(Kind::Produce, 100)).await;
    producer.send.finish().expect("open");
    producer.ack().await.expect("the whole one is stored");
    assert_eq!(producer.ack().await.expect_err("half a frame").code, ErrorCode::InvalidRequest);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_are_made_found_and_removed() {
    let broker = Broker::start().await;
    let connection = broker.connect().await;
    let topic = broker.create_topic(&connection, "readings", Durability::Sync).await;
    assert_eq!(topic.partitions.len(), 1);
    assert_eq!(ask(&connection, &Request::ListTopics).await, Ok(Response::Topics(vec![topic.clone()])));
    let describe = Request::DescribeTopic(DescribeTopic { name: "readings".to_owned() });
    let Ok(Response::Topic(described)) = ask(&connection, &describe).await else { panic!("it is there") };
    assert!(described.node.is_some(), "what the broker has room for is told with one topic");
    assert_eq!(TopicInfo { node: None, ..described }, topic);
    let list = Request::ListOffset(ListOffset { topic: "readings".to_owned(), partition: 0, at: Position::End });
    assert_eq!(ask(&connection, &list).await, Ok(Response::Offset(OffsetFound { offset: 0, timestamp: None })));
    let delete = Request::DeleteTopic(DeleteTopic { name: "readings".to_owned() });
    assert_eq!(ask(&connection, &delete).await, Ok(Response::Done));
    assert_eq!(ask(&connection, &describe).await.expect_err("gone").code, ErrorCode::TopicNotFound);
    assert!(matches!(ask(&connection, &Request::BrokerInfo).await, Ok(Response::BrokerInfo(_))));
    assert_eq!(ask(&connection, &Request::ListModules).await, Ok(Response::Modules(Vec::new())));
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_can_not_be_opened_say_why() {
    let broker = Broker::start().await;
    let connection = broker.connect().await;
    broker.create_topic(&connection, "readings", Durability::Sync).await;
    let refused = async |request: Request| ask(&connection, &request).await.expect_err("refused");

    let produce = |topic: &str, partition| Request::OpenProduce(OpenProduce { topic: topic.to_owned(), partition });
    assert_eq!(refused(produce("reedings", Some(0))).await.code, ErrorCode::TopicNotFound);
    assert_eq!(refused(produce("readings", Some(1))).await.code, ErrorCode::PartitionOutOfRange);

    let consume = |topic: &str, partition, from| Request::OpenConsume(OpenConsume { topic: topic.to_owned(), partition, from, view: None });
    assert_eq!(refused(consume("reedings", 0, Position::End)).await.code, ErrorCode::TopicNotFound);
    assert_eq!(refused(consume("readings", 7, Position::End)).await.code, ErrorCode::PartitionOutOfRange);
    let error = refused(consume("readings", 0, Position::Offset(5))).await;
    assert_eq!((error.code, error.range), (ErrorCode::OffsetOutOfRange, Some((0, 0))));
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_may_stop_and_its_connection_goes_on() {
    let broker = Broker::start().await;
    let connection = broker.connect().await;
    broker.create_topic(&connection, "readings", Durability::Os).await;
    for _ in 0..3 {
        let mut consumer = Frames::consume(&connection, "readings", Position::Beginning).await;
        consumer.receive.stop(VarInt::from_u32(0)).expect("open");
        assert!(ask(&connection, &Request::BrokerInfo).await.is_ok());
    }
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_consumer_of_a_deleted_topic_is_told() {
    let broker = Broker::start().await;
    let connection = broker.connect().await;
    broker.create_topic(&connection, "readings", Durability::Os).await;
    let mut consumer = Frames::consume(&connection, "readings", Position::End).await;
    assert_eq!(ask(&connection, &Request::DeleteTopic(DeleteTopic { name: "readings".to_owned() })).await, Ok(Response::Done));
    let error = loop {
        if let Err(error) = consumer.push().await {
            break error;
        }
    };
    assert_eq!(error.code, ErrorCode::TopicNotFound);
    assert_eq!(consumer.next().await, None);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_changes_networks_goes_on() {
    let broker = Broker::start().await;
    let endpoint = client_endpoint();
    let config = broker.client_config(ALPN, TransportConfig::default());
    let connection = endpoint.connect_with(config, broker.address, "localhost").expect("an attempt").await.expect("a connection");
    broker.create_topic(&connection, "readings", Durability::Sync).await;
    let mut producer = Frames::produce(&connection, "readings").await;
    producer.send_batch(&batch(&["before"])).await;
    assert_eq!(producer.ack().await.expect("stored").base_offset, 0);

    endpoint.rebind(std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket")).expect("another port");
    producer.send_batch(&batch(&["after"])).await;
    assert_eq!(producer.ack().await.expect("stored").base_offset, 1);
    broker.stop().await;
}

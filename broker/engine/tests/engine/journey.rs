//! Batches in and out: order, positions, waiting, and the end of a topic.

use crate::broker::{Broker, NOW_MS, batch, records};
use futures_util::FutureExt;
use millpond_engine::{Answer, EngineError};
use millpond_protocol::{
    batch::BatchBuilder,
    compression::Codec,
    message::{OpenConsume, Position},
    record::NewRecord,
};
use std::sync::Arc;

fn open_at(topic: &str, partition: u32, from: Position) -> OpenConsume {
    OpenConsume { topic: topic.to_owned(), partition, from, view: None }
}

#[tokio::test]
async fn what_was_acknowledged_is_read_back_at_its_offsets() {
    for broker in [Broker::simulated().await.0, Broker::real().await] {
        broker.topic("readings", 2, "sync").await;
        let first = broker.produce("readings", 1, &["a", "b"]).await.expect("it is stored");
        let second = broker.produce("readings", 1, &["c"]).await.expect("it is stored");
        assert_eq!((first.base_offset, first.last_offset, first.append_time_ms), (0, 1, NOW_MS));
        assert_eq!((second.base_offset, second.last_offset, second.records_dropped), (2, 2, 0));
        let expected = [(0, "a".to_owned()), (1, "b".to_owned()), (2, "c".to_owned())];
        assert_eq!(broker.read_all("readings", 1).await, expected);
        assert_eq!(broker.read_all("readings", 0).await, []);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_producers_at_once_each_keep_their_order_and_lose_nothing() {
    const PRODUCERS: usize = 8;
    const BATCHES: usize = 60;
    let broker = Arc::new(Broker::real().await);
    broker.topic("t", 1, "sync").await;
    let mut tasks = Vec::new();
    for producer_number in 0..PRODUCERS {
        let broker = Arc::clone(&broker);
        tasks.push(tokio::spawn(async move {
            let mut producer = broker.producer("t", Some(0));
            let mut answers = Vec::new();
            for number in 0..BATCHES {
                let values = [format!("{producer_number}:{number}:x"), format!("{producer_number}:{number}:y")];
                answers.push(broker.submit(&mut producer, batch(&values.each_ref().map(String::as_str))).await);
            }
            let mut offsets = Vec::new();
            for answer in answers {
                let Answer::Ack(ack) = answer.await.expect("it is stored") else { panic!("an ack was expected") };
                offsets.push(ack.base_offset);
            }
            offsets
        }));
    }
    let read_by_producer = |all: &[(i64, String)], number: usize| -> Vec<(i64, String)> {
        all.iter().filter(|(_, value)| value.starts_with(&format!("{number}:"))).cloned().collect()
    };
    let mut acked = Vec::new();
    for task in tasks {
        acked.push(task.await.expect("no panic"));
    }
    let all = broker.read_all("t", 0).await;
    assert_eq!(all.len(), PRODUCERS * BATCHES * 2);
    assert!(all.iter().zip(0..).all(|((offset, _), expected)| *offset == expected), "offsets have no gap");
    for (number, offsets) in acked.into_iter().enumerate() {
        let found = read_by_producer(&all, number);
        let expected = (0..BATCHES).flat_map(|batch| ["x", "y"].map(|end| format!("{number}:{batch}:{end}")));
        assert!(found.iter().map(|(_, value)| value.clone()).eq(expected), "producer {number} finds its order");
        assert!(found.iter().step_by(2).map(|(offset, _)| *offset).eq(offsets), "the acks of producer {number} name the offsets");
    }
}

#[tokio::test]
async fn a_consumer_at_the_end_waits_and_wakes_with_the_next_batch() {
    let (broker, _) = Broker::simulated().await;
    broker.topic("t", 1, "sync").await;
    broker.produce("t", 0, &["old"]).await.expect("it is stored");
    let (mut stream, opened) = broker.engine.open_consume(&open_at("t", 0, Position::End)).await.expect("it opens");
    assert_eq!((opened.start_offset, opened.high_watermark), (1, 1));
    let mut next = Box::pin(stream.next(1 << 20));
    assert!((&mut next).now_or_never().is_none(), "nothing is there yet");
    broker.produce("t", 0, &["new"]).await.expect("it is stored");
    let mut found = next.await.expect("it wakes");
    if found.1.is_empty() {
        // The log end moved a moment before the high watermark, and the consumer was told of it.
        found = stream.next(1 << 20).await.expect("it wakes");
    }
    assert_eq!(records(found.1), [(1, "new".to_owned())]);
    assert_eq!((found.0.high_watermark, found.0.log_end), (2, 2));
}

#[tokio::test]
async fn a_read_that_was_given_up_loses_nothing() {
    let (broker, _) = Broker::simulated().await;
    broker.topic("t", 1, "os").await;
    for value in ["a", "b", "c"] {
        broker.produce("t", 0, &[value]).await.expect("it is stored");
    }
    let (mut stream, _) = broker.engine.open_consume(&open_at("t", 0, Position::Beginning)).await.expect("it opens");
    let mut found = Vec::new();
    while found.len() < 3 {
        // Most often the file is not read yet when this gives up.
        let (_, batches) = match stream.next(1).now_or_never() {
            Some(read) => read.expect("it reads"),
            None => stream.next(1).await.expect("it reads"),
        };
        found.extend(records(batches).into_iter().map(|(offset, _)| offset));
    }
    assert_eq!(found, [0, 1, 2]);
}

#[tokio::test]
async fn positions_lead_to_offsets_and_into_the_middle_of_a_batch() {
    let (broker, _) = Broker::simulated().await;
    broker.topic("t", 1, "sync").await;
    let mut producer = broker.producer("t", Some(0));
    for first in [1000_i64, 2000] {
        let mut builder = BatchBuilder::new();
        for timestamp in first..first + 3 {
            builder.push(&NewRecord { timestamp, value: Some(b"v"), ..NewRecord::default() }).expect("it fits");
        }
        let batch = builder.finish(Codec::Zstd).expect("it has records");
        broker.submit(&mut producer, batch).await.await.expect("it is stored");
    }
    let offset_at = async |at| broker.offset_at("t", 0, at).await.map(|found| (found.offset, found.timestamp));
    assert_eq!(offset_at(Position::Beginning).await.expect("it is there"), (0, None));
    assert_eq!(offset_at(Position::End).await.expect("it is there"), (6, None));
    assert_eq!(offset_at(Position::Offset(4)).await.expect("it is there"), (4, None));
    assert_eq!(offset_at(Position::Offset(6)).await.expect("the end can be asked for"), (6, None));
    assert_eq!(offset_at(Position::Time(0)).await.expect("it is there"), (0, Some(1000)));
    assert_eq!(offset_at(Position::Time(1500)).await.expect("it is there"), (3, Some(2000)));
    assert_eq!(offset_at(Position::Time(2001)).await.expect("it is there"), (4, Some(2001)));
    assert_eq!(offset_at(Position::Time(9999)).await.expect("it is there"), (6, None), "the end, where nothing is as late");

    let (mut stream, opened) = broker.engine.open_consume(&open_at("t", 0, Position::Offset(4))).await.expect("it opens");
    assert_eq!(opened.start_offset, 4);
    let (_, batches) = stream.next(1).await.expect("it reads");
    assert_eq!(records(batches).first().map(|(offset, _)| *offset), Some(3), "the whole batch comes");
    assert_eq!(stream.position(), 6);
}

#[tokio::test]
async fn a_consumer_gets_as_much_as_it_asks_for_and_at_least_one_batch() {
    let (broker, _) = Broker::simulated().await;
    broker.topic("t", 1, "os").await;
    for _ in 0..10 {
        broker.produce("t", 0, &["x".repeat(1000).as_str()]).await.expect("it is stored");
    }
    let (mut stream, _) = broker.engine.open_consume(&open_at("t", 0, Position::Beginning)).await.expect("it opens");
    for (max_bytes, expected) in [(1, 1), (3500, 3), (1 << 20, 6)] {
        let (watermarks, batches) = stream.next(max_bytes).await.expect("it reads");
        assert_eq!(records(batches).len(), expected, "{max_bytes} bytes");
        assert_eq!(watermarks.high_watermark, 10);
    }
}

#[tokio::test]
async fn deleting_a_topic_ends_its_streams_and_frees_its_name() {
    for broker in [Broker::simulated().await.0, Broker::real().await] {
        broker.topic("t", 2, "sync").await;
        broker.produce("t", 0, &["old"]).await.expect("it is stored");
        let mut producer = broker.producer("t", Some(0));
        let (mut stream, _) = broker.engine.open_consume(&open_at("t", 0, Position::End)).await.expect("it opens");
        let mut next = Box::pin(stream.next(1 << 20));
        assert!((&mut next).now_or_never().is_none());

        broker.engine.delete_topic("t").await.expect("it is there");
        let ended = next.await.expect_err("the topic is gone");
        assert!(matches!(&ended, EngineError::TopicNotFound { name, .. } if name == "t"), "{ended:?}");
        let refused = broker.submit(&mut producer, batch(&["late"])).await.await.expect_err("the topic is gone");
        assert!(matches!(refused, EngineError::TopicNotFound { .. }), "{refused:?}");
        assert!(matches!(broker.engine.topic("t"), Err(EngineError::TopicNotFound { .. })));
        assert!(matches!(broker.engine.delete_topic("t").await, Err(EngineError::TopicNotFound { .. })));

        broker.topic("t", 1, "sync").await;
        assert_eq!(broker.read_all("t", 0).await, [], "the new topic begins empty");
        let ack = broker.produce("t", 0, &["new"]).await.expect("it is stored");
        assert_eq!(ack.base_offset, 0);
    }
}

#[tokio::test]
async fn topics_are_listed_with_their_partitions_in_order() {
    let (broker, _) = Broker::simulated().await;
    broker.topic("b", 3, "os").await;
    broker.topic("a", 1, "interval:200ms").await;
    broker.produce("b", 2, &["x"]).await.expect("it is stored");
    let topics = broker.engine.topics();
    assert_eq!(topics.iter().map(|topic| topic.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    let ends: Vec<_> = topics[1].partitions.iter().map(|partition| (partition.partition, partition.high_watermark)).collect();
    assert_eq!(ends, [(0, 0), (1, 0), (2, 1)]);
    assert!(topics[1].partitions[2].size_bytes > 0);
    assert_eq!(topics[0].config.durability.to_string(), "interval:200ms");
}

//! Consuming, whatever happens.

use crate::support::{FakeBroker, OnPush, soon};
use futures_util::{FutureExt, StreamExt};
use millpond::{Consumer, Error, ErrorCode, OutOfRange, Record, Start, WireError};
use std::{sync::atomic::Ordering, time::Duration};

/// Batches of ten records with these numbers.
fn fill(broker: &FakeBroker, partition: usize, numbers: std::ops::Range<u32>) {
    broker.state.with_topic(|topic| {
        for first in numbers.step_by(10) {
            topic.fill(partition, &(first..first + 10).map(|number| number.to_string()).collect::<Vec<_>>());
        }
    });
}

async fn consumer(broker: &FakeBroker, start: Start) -> Consumer {
    soon(broker.client().await.consumer("readings").start(start).build()).await.unwrap()
}

/// The next records as (offset, value).
async fn take(consumer: &mut Consumer, count: usize) -> Vec<(i64, String)> {
    let mut taken = Vec::new();
    while taken.len() < count {
        let record = soon(consumer.next()).await.expect("an end").unwrap();
        taken.push((record.offset, String::from_utf8(record.value.unwrap().to_vec()).unwrap()));
    }
    taken
}

fn expected(range: std::ops::Range<u32>) -> Vec<(i64, String)> {
    range.map(|number| (i64::from(number), number.to_string())).collect()
}

#[tokio::test]
async fn reading_begins_where_it_was_asked_to() {
    let broker = FakeBroker::start(1);
    fill(&broker, 0, 0..100);
    assert_eq!(take(&mut consumer(&broker, Start::Beginning).await, 100).await, expected(0..100));
    let mut in_a_batch = consumer(&broker, Start::Offset(37)).await;
    assert_eq!(in_a_batch.position(0), Some(37));
    assert_eq!(take(&mut in_a_batch, 5).await, expected(37..42), "not from the start of the batch");
    assert_eq!(take(&mut consumer(&broker, Start::Time(95)).await, 5).await, expected(95..100));
    let mut at_end = consumer(&broker, Start::End).await;
    fill(&broker, 0, 100..110);
    assert_eq!(take(&mut at_end, 10).await, expected(100..110));
    assert_eq!(at_end.watermarks(0).map(|marks| (marks.log_start, marks.high_watermark, marks.log_end)), Some((0, 110, 110)));
}

#[tokio::test]
async fn it_is_a_stream_of_records_and_of_batches() {
    let broker = FakeBroker::start(1);
    fill(&broker, 0, 0..50);
    let mut consumer = soon(broker.client().await.consumer("readings").start(Start::Beginning).until_end(true).build()).await.unwrap();
    let first: Vec<i64> = soon((&mut consumer).take(13).map(|record| record.unwrap().offset).collect()).await;
    assert_eq!(first, (0..13).collect::<Vec<_>>());
    let rest = soon(consumer.next_batch()).await.unwrap().unwrap();
    assert_eq!((rest.partition(), &**rest.topic(), rest.next_offset()), (0, "readings", 20));
    assert_eq!(
        rest.records().map(|record| record.unwrap().offset).collect::<Vec<_>>(),
        (13..20).collect::<Vec<_>>(),
        "the rest of a batch"
    );
    assert_eq!(consumer.position(0), Some(20));
    let sizes: Vec<usize> = soon(consumer.batches().map(|batch| batch.unwrap().records().count()).collect()).await;
    assert_eq!(sizes, [10, 10, 10]);
}

#[tokio::test]
async fn until_end_stops_at_what_was_there_when_it_began() {
    let broker = FakeBroker::start(3);
    fill(&broker, 0, 0..100);
    fill(&broker, 2, 0..10);
    let builder = broker.client().await.consumer("readings").start(Start::Beginning).until_end(true);
    let mut consumer = soon(builder.build()).await.unwrap();
    assert!(!consumer.at_end());
    fill(&broker, 0, 100..200);
    fill(&broker, 1, 0..10);
    let mut counts = [0; 3];
    while let Some(record) = soon(consumer.next()).await {
        counts[record.unwrap().partition as usize] += 1;
    }
    assert_eq!(counts, [100, 0, 10]);
    assert!(soon(consumer.next_batch()).await.is_none(), "an end is an end");
}

#[tokio::test]
async fn until_end_of_an_empty_topic_ends_at_once() {
    let broker = FakeBroker::start(2);
    let builder = broker.client().await.consumer("readings").start(Start::Beginning).until_end(true);
    let mut consumer = soon(builder.build()).await.unwrap();
    assert!(consumer.at_end());
    assert!(soon(consumer.next()).await.is_none());
}

#[tokio::test]
async fn until_end_ends_behind_offsets_that_no_batch_holds() {
    let broker = FakeBroker::start(1);
    fill(&broker, 0, 0..10);
    broker.state.with_topic(|topic| topic.tail_gap = 5);
    let builder = broker.client().await.consumer("readings").start(Start::Beginning).until_end(true);
    let mut consumer = soon(builder.build()).await.unwrap();
    assert_eq!(take(&mut consumer, 10).await, expected(0..10));
    assert!(soon(consumer.next()).await.is_none());
    assert!(consumer.at_end());
}

#[tokio::test]
async fn every_record_comes_once_whatever_happens_to_the_connection() {
    let broker = FakeBroker::start(2);
    fill(&broker, 0, 0..300);
    fill(&broker, 1, 0..300);
    broker.state.script_pushes((0..60).map(|number| if number % 11 == 5 { OnPush::LoseInside } else { OnPush::Push }));
    let mut consumer = consumer(&broker, Start::Beginning).await;
    let mut seen = [Vec::new(), Vec::new()];
    for _ in 0..600 {
        let record = soon(consumer.next()).await.unwrap().unwrap();
        seen[record.partition as usize].push(record.offset);
    }
    for offsets in seen {
        assert_eq!(offsets, (0..300).collect::<Vec<_>>());
    }
    assert!(consumer.at_end());
    assert!(broker.state.connections() > 2);
}

#[tokio::test]
async fn reading_goes_on_when_the_broker_comes_back() {
    let broker = FakeBroker::start(1);
    fill(&broker, 0, 0..10);
    let mut consumer = consumer(&broker, Start::Beginning).await;
    assert_eq!(take(&mut consumer, 10).await, expected(0..10));
    let broker = broker.stop().await.start();
    fill(&broker, 0, 10..20);
    assert_eq!(take(&mut consumer, 10).await, expected(10..20));
}

#[tokio::test]
async fn a_batch_with_a_wrong_checksum_is_told_and_can_be_passed_over() {
    let broker = FakeBroker::start(2);
    fill(&broker, 0, 0..30);
    broker.state.script_pushes([OnPush::Push, OnPush::Corrupt]);
    let mut consumer = soon(broker.client().await.consumer("readings").start(Start::Beginning).partition(0).build()).await.unwrap();
    assert_eq!(take(&mut consumer, 10).await, expected(0..10));
    let error = soon(consumer.next()).await.unwrap().unwrap_err();
    assert_eq!((error.code(), error.retryable()), ("corrupt_batch", false));
    let Error::UnreadableBatch { offset: 10, next_offset: Some(20), .. } = &error else { panic!("{error:?}") };
    assert!(soon(consumer.next()).await.is_none(), "its only partition has failed");
    soon(consumer.seek(0, Start::Offset(20))).await.unwrap();
    assert_eq!(take(&mut consumer, 10).await, expected(20..30));
}

#[tokio::test]
async fn an_offset_that_is_not_there_is_refused_with_the_range() {
    let broker = FakeBroker::start(1);
    fill(&broker, 0, 0..10);
    let error = soon(broker.client().await.consumer("readings").start(Start::Offset(11)).build()).await.unwrap_err();
    assert_eq!(error.code(), "offset_out_of_range");
    assert_eq!(error.broker().unwrap().range, Some((0, 10)));
    let mut consumer = consumer(&broker, Start::Beginning).await;
    assert!(soon(consumer.seek(None, Start::Offset(99))).await.is_err());
    assert_eq!(take(&mut consumer, 10).await, expected(0..10), "a seek that failed changes nothing");
}

#[tokio::test]
async fn a_log_that_was_cut_off_while_the_connection_was_lost_is_told() {
    let broker = FakeBroker::start(1);
    fill(&broker, 0, 0..30);
    broker.state.script_pushes([OnPush::LoseInside]);
    broker.state.topics.lock().get_mut("readings").unwrap().log_start = 0;
    let mut consumer = consumer(&broker, Start::Beginning).await;
    broker.state.with_topic(|topic| topic.log_start = 20);
    // Which of the two comes first is a race, and either is right: the whole log, or the range of what is left.
    match soon(consumer.next()).await.unwrap() {
        Ok(record) => assert_eq!(record.offset, 0),
        Err(error) => assert_eq!(error.broker().unwrap().range, Some((20, 30))),
    }
}

#[tokio::test]
async fn an_error_of_the_broker_ends_its_partition_and_not_the_others() {
    let broker = FakeBroker::start(2);
    fill(&broker, 1, 0..10);
    broker.state.script_pushes([OnPush::Push, OnPush::Refuse(WireError::new(ErrorCode::TopicNotFound, "it was deleted"))]);
    let mut consumer = consumer(&broker, Start::Beginning).await;
    assert_eq!(take(&mut consumer, 10).await, expected(0..10));
    fill(&broker, 0, 0..10);
    assert_eq!(soon(consumer.next()).await.unwrap().unwrap_err().code(), "topic_not_found");
    fill(&broker, 1, 10..20);
    assert_eq!(take(&mut consumer, 10).await, expected(10..20));
}

#[tokio::test]
async fn a_seek_forgets_what_was_read_ahead() {
    let broker = FakeBroker::start(2);
    fill(&broker, 0, 0..100);
    let mut consumer = consumer(&broker, Start::Beginning).await;
    assert_eq!(take(&mut consumer, 15).await, expected(0..15));
    soon(consumer.seek(0, Start::Offset(90))).await.unwrap();
    assert_eq!(consumer.position(0), Some(90));
    assert_eq!(take(&mut consumer, 10).await, expected(90..100));
    soon(consumer.seek(None, Start::Beginning)).await.unwrap();
    assert_eq!(take(&mut consumer, 3).await, expected(0..3));
    assert_eq!(soon(consumer.seek(7, Start::Beginning)).await.unwrap_err().code(), "invalid_setting");
}

#[tokio::test]
async fn partitions_take_turns() {
    let broker = FakeBroker::start(3);
    for partition in 0..3 {
        fill(&broker, partition, 0..1_000);
    }
    let mut consumer = consumer(&broker, Start::Beginning).await;
    let mut batches = [0; 3];
    for _ in 0..150 {
        batches[soon(consumer.next_batch()).await.unwrap().unwrap().partition() as usize] += 1;
    }
    assert!(batches.iter().all(|count| *count >= 25), "{batches:?}");
}

#[tokio::test]
async fn a_consumer_that_does_not_read_makes_the_broker_wait() {
    const TOTAL_BYTES: usize = 64 << 20;
    let broker = FakeBroker::start(1);
    broker.state.with_topic(|topic| (0..64).for_each(|_| topic.fill(0, &[vec![b'x'; TOTAL_BYTES / 64]])));
    let client = broker.client().await;
    let mut consumer = soon(client.consumer("readings").start(Start::Beginning).build()).await.unwrap();
    let everything = async {
        while broker.state.pushed_bytes.load(Ordering::SeqCst) < TOTAL_BYTES {
            tokio::task::yield_now().await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_millis(300), everything).await.is_err(), "nothing held the broker back");
    // Whatever lies unread, answers on the same connection get through.
    let producer = soon(client.producer("readings").build()).await.unwrap();
    assert_eq!(soon(producer.send(Record::new("x"))).await.unwrap().offset, 64);
    for offset in 0..64 {
        assert_eq!(soon(consumer.next()).await.unwrap().unwrap().offset, offset);
    }
}

#[tokio::test]
async fn a_partition_or_topic_that_is_not_there_is_told() {
    let broker = FakeBroker::start(2);
    let client = broker.client().await;
    assert_eq!(soon(client.consumer("missing").build()).await.unwrap_err().code(), "topic_not_found");
    let error = soon(client.consumer("readings").partitions([0, 2]).build()).await.unwrap_err();
    assert_eq!(error.code(), "partition_out_of_range");
    assert!(error.to_string().contains("no partition 2"), "{error}");
}

/// The fake broker allows each connection 1,024 streams, as a real one does by default.
#[tokio::test]
async fn more_partitions_than_a_connection_has_streams_are_read_over_several() {
    const PARTITIONS: usize = 1_100;
    let broker = FakeBroker::start(PARTITIONS);
    broker.state.with_topic(|topic| (0..PARTITIONS).for_each(|partition| topic.fill(partition, &["x"])));
    let client = broker.client().await;
    let mut consumer = soon(client.consumer("readings").start(Start::Beginning).until_end(true).build()).await.unwrap();
    let mut read = vec![0; PARTITIONS];
    while let Some(record) = soon(consumer.next()).await {
        read[record.unwrap().partition as usize] += 1;
    }
    assert_eq!(read, vec![1; PARTITIONS]);
    assert_eq!(broker.state.connections(), 3);
    soon(consumer.seek(1_099, Start::Beginning)).await.unwrap();
    assert_eq!(broker.state.connections(), 3, "it goes on over the one that it was read over");
    soon(client.close()).await;
    let error = soon(consumer.seek(1_099, Start::Beginning)).await.unwrap_err();
    assert_eq!(error.code(), "closed");
}

/// Stores ten records of which compaction has left these.
fn fill_compacted(broker: &FakeBroker, left: &[i32]) {
    use millpond_protocol::{
        batch::{Batch, BatchBuilder, rebuild},
        compression::Codec,
        record::{NewRecord, SectionSummary, iterate},
    };
    let mut builder = BatchBuilder::new();
    for number in 0..10 {
        builder.push(&NewRecord { value: Some(number.to_string().as_bytes()), ..NewRecord::default() }).unwrap();
    }
    let whole = Batch::parse(builder.finish(Codec::Lz4).unwrap()).unwrap();
    let section = whole.records_section(1 << 20).unwrap();
    let (mut kept, mut summary) = (Vec::new(), SectionSummary::EMPTY);
    for record in iterate(&section).map(Result::unwrap).filter(|record| left.contains(&record.offset_delta)) {
        kept.extend_from_slice(record.encoded);
        summary.add(record.offset_delta, record.timestamp_delta);
    }
    let batch = Batch::parse(rebuild(whole.header(), &kept, &summary).unwrap()).unwrap();
    assert_eq!((batch.header().next_offset(), usize::try_from(batch.header().record_count)), (10, Ok(left.len())));
    broker.state.with_topic(|topic| topic.append(0, &batch));
}

#[tokio::test]
async fn offsets_that_compaction_has_left_unused_are_passed_over() {
    let broker = FakeBroker::start(1);
    for left in [&[][..], &[3, 7], &[], &[0], &[]] {
        fill_compacted(&broker, left);
    }
    let left = [(13, "3".to_owned()), (17, "7".to_owned()), (30, "0".to_owned())];
    for (start, expected) in [(0, &left[..]), (14, &left[1..]), (25, &left[2..]), (31, &[]), (45, &[])] {
        let builder = broker.client().await.consumer("readings").start(Start::Offset(start)).until_end(true);
        let mut consumer = soon(builder.build()).await.unwrap();
        assert_eq!(take(&mut consumer, expected.len()).await, expected, "from {start}");
        assert!(soon(consumer.next()).await.is_none(), "it ends, whatever the last batch holds");
        assert_eq!((consumer.position(0), consumer.at_end()), (Some(50), true));
        // In batches, likewise.
        let builder = broker.client().await.consumer("readings").start(Start::Offset(start)).until_end(true);
        let mut consumer = soon(builder.build()).await.unwrap();
        let batches: Vec<_> = soon(consumer.batches().map(Result::unwrap).collect()).await;
        assert_eq!(batches.iter().map(|batch| batch.records().count()).sum::<usize>(), expected.len());
        assert_eq!(batches.last().map(millpond::ConsumedBatch::next_offset), Some(50));
    }
    // One that waits for more gets it with its offset.
    let mut consumer = consumer(&broker, Start::Offset(31)).await;
    fill_compacted(&broker, &[9]);
    assert_eq!(take(&mut consumer, 1).await, [(59, "9".to_owned())]);
}

#[tokio::test]
async fn a_paused_partition_waits_where_it_is_and_the_others_go_on() {
    let broker = FakeBroker::start(2);
    fill(&broker, 0, 0..100);
    let mut consumer = consumer(&broker, Start::Beginning).await;
    assert_eq!(take(&mut consumer, 15).await, expected(0..15));
    consumer.pause(0).unwrap();
    consumer.pause(0).unwrap();
    assert_eq!((consumer.paused().collect::<Vec<_>>(), consumer.position(0)), (vec![0], Some(15)));
    fill(&broker, 1, 0..30);
    assert_eq!(take(&mut consumer, 30).await, expected(0..30), "nothing of the paused one, though it was read ahead");
    assert!(consumer.next().now_or_never().is_none(), "it waits, it does not end");
    soon(consumer.resume(None)).await.unwrap();
    assert_eq!(take(&mut consumer, 85).await, expected(15..100));
    assert_eq!(consumer.paused().count(), 0);
    assert_eq!(consumer.pause(7).unwrap_err().code(), "invalid_setting");
    assert_eq!(soon(consumer.resume(7)).await.unwrap_err().code(), "invalid_setting");
}

#[tokio::test]
async fn a_seek_in_a_paused_partition_moves_it_and_does_not_resume_it() {
    let broker = FakeBroker::start(1);
    fill(&broker, 0, 0..100);
    let mut consumer = consumer(&broker, Start::Beginning).await;
    consumer.pause(None).unwrap();
    soon(consumer.seek(0, Start::Offset(90))).await.unwrap();
    assert_eq!((consumer.paused().count(), consumer.position(0)), (1, Some(90)));
    assert!(consumer.next().now_or_never().is_none());
    broker.state.with_topic(|topic| topic.log_start = 95);
    assert_eq!(soon(consumer.resume(0)).await.unwrap_err().code(), "offset_out_of_range");
    assert_eq!((consumer.paused().count(), consumer.position(0)), (1, Some(90)), "nothing has changed");
    soon(consumer.seek(0, Start::Beginning)).await.unwrap();
    soon(consumer.resume(0)).await.unwrap();
    assert_eq!(take(&mut consumer, 5).await, expected(95..100));
}

#[tokio::test]
async fn until_end_waits_for_a_paused_partition_and_ends_where_it_was_to_end() {
    let broker = FakeBroker::start(1);
    fill(&broker, 0, 0..20);
    let builder = broker.client().await.consumer("readings").start(Start::Beginning).until_end(true);
    let mut consumer = soon(builder.build()).await.unwrap();
    assert_eq!(take(&mut consumer, 5).await, expected(0..5));
    consumer.pause(None).unwrap();
    fill(&broker, 0, 20..40);
    assert!(consumer.next().now_or_never().is_none());
    soon(consumer.resume(None)).await.unwrap();
    assert_eq!(take(&mut consumer, 15).await, expected(5..20));
    assert!(soon(consumer.next()).await.is_none());
}

#[tokio::test]
async fn an_offset_out_of_range_is_passed_by_as_the_consumer_was_told() {
    let broker = FakeBroker::start(1);
    fill(&broker, 0, 0..100);
    broker.state.with_topic(|topic| topic.log_start = 40);
    let client = broker.client().await;
    let builder = || client.consumer("readings").start(Start::Offset(7));
    let mut earliest = soon(builder().on_out_of_range(OutOfRange::Earliest).build()).await.unwrap();
    assert_eq!(earliest.position(0), Some(40));
    assert_eq!(take(&mut earliest, 10).await, expected(40..50));
    let mut latest = soon(builder().on_out_of_range(OutOfRange::Latest).build()).await.unwrap();
    fill(&broker, 0, 100..110);
    assert_eq!(take(&mut latest, 10).await, expected(100..110));
    assert_eq!(soon(builder().build()).await.unwrap_err().code(), "offset_out_of_range");
    let error = soon(client.consumer("none").on_out_of_range(OutOfRange::Earliest).build()).await.unwrap_err();
    assert_eq!(error.code(), "topic_not_found", "every other error is one");
}

#[tokio::test]
async fn a_reader_whose_place_retention_has_passed_goes_on_as_the_consumer_was_told() {
    let broker = FakeBroker::start(1);
    fill(&broker, 0, 0..10);
    let builder = broker.client().await.consumer("readings").start(Start::Beginning).on_out_of_range(OutOfRange::Earliest);
    let mut consumer = soon(builder.build()).await.unwrap();
    assert_eq!(take(&mut consumer, 10).await, expected(0..10));
    let refusal = WireError::new(ErrorCode::OffsetOutOfRange, "retention has passed it");
    broker.state.script_pushes([OnPush::Refuse(refusal)]);
    broker.state.with_topic(|topic| topic.log_start = 20);
    fill(&broker, 0, 10..40);
    assert_eq!(take(&mut consumer, 20).await, expected(20..40));
    assert_eq!(consumer.position(0), Some(40));
}

//! Quotas of topics and of the node: what is refused, what yields, and that nothing is counted wrong.

use crate::broker::{Broker, batch, create};
use futures_util::future::join_all;
use millpond_engine::{EngineError, Shortage, StorageBound};
use millpond_log::{
    Disk,
    sim::{Fault, Operation, Random, SimDisk},
};
use millpond_protocol::{
    error::ErrorCode,
    message::{AlterTopic, Cleanup, CreateTopic, DeleteRecords, Dropped, Limit, OnFull, OpenConsume, Position, TopicConfig, TopicInfo},
};
use std::{sync::Arc, time::Duration};

/// The smallest quota for batches of [`BATCH_BYTES_MAX`].
pub(crate) const QUOTA: u64 = 4 * BATCH_BYTES_MAX as u64;

const BATCH_BYTES_MAX: u32 = 128 << 10;

/// A batch of a good 10,000 bytes.
pub(crate) fn value(number: usize) -> String {
    format!("{number:010000}")
}

/// A topic of small batches with a quota.
pub(crate) fn limited(name: &str, partitions: u32, quota_bytes: Option<u64>, on_full: OnFull) -> CreateTopic {
    let config = TopicConfig { max_batch_bytes: BATCH_BYTES_MAX, quota_bytes, on_full, ..TopicConfig::default() };
    CreateTopic { partitions, config, ..create(name, 1, "sync") }
}

pub(crate) fn change(name: &str) -> AlterTopic {
    AlterTopic { name: name.to_owned(), ..AlterTopic::default() }
}

pub(crate) fn info(broker: &Broker, topic: &str) -> TopicInfo {
    broker.engine.topic(topic).expect("it is there")
}

/// What the `.log` files of a topic have.
pub(crate) fn log_bytes(broker: &Broker, sim: &SimDisk, topic: &str) -> u64 {
    let folder = broker.dir.path().join("topics").join(topic);
    let mut bytes = 0;
    for partition in sim.list(&folder).expect("it is there") {
        let partition = folder.join(partition);
        for name in sim.list(&partition).expect("it is there").into_iter().filter(|name| name.to_string_lossy().ends_with(".log")) {
            bytes += sim.bytes(&partition.join(name)).expect("a file").len() as u64;
        }
    }
    bytes
}

/// Produces until it is refused, and gives the refusal and how many batches were taken.
pub(crate) async fn fill(broker: &Broker, topic: &str) -> (EngineError, usize) {
    for number in 0..10_000 {
        if let Err(error) = broker.produce(topic, 0, &[&value(number)]).await {
            return (error, number);
        }
    }
    panic!("{topic} is never full");
}

#[track_caller]
fn shortage(error: &EngineError) -> Shortage {
    let wire = error.to_wire();
    assert_eq!((wire.code, wire.retryable), (ErrorCode::StorageFull, true), "{wire:?}");
    assert!(wire.hint.is_some_and(|hint| hint.contains("sending it again is safe")));
    let EngineError::Full { shortage, .. } = error else { panic!("{error:?}") };
    *shortage
}

#[tokio::test]
async fn a_topic_that_rejects_takes_what_fits_into_its_quota_and_goes_on_when_there_is_room() {
    let (broker, sim) = Broker::simulated().await;
    broker.engine.create_topic(limited("t", 1, Some(QUOTA), OnFull::Reject)).await.expect("it can be made");
    broker.engine.create_topic(limited("other", 1, None, OnFull::Reject)).await.expect("it can be made");
    let (error, taken) = fill(&broker, "t").await;
    let used = info(&broker, "t").used_bytes;
    let expected = Shortage {
        bound: StorageBound::Topic,
        batch_bytes: batch(&[&value(0)]).len() as u64,
        used_bytes: used,
        quota_bytes: Some(QUOTA),
        reserve_bytes: None,
        cleanup: Cleanup::Delete,
        on_full: OnFull::Reject,
    };
    assert_eq!(shortage(&error), expected);
    assert!(used <= QUOTA && QUOTA - used < expected.batch_bytes, "it is full to the last batch: {used}");
    let message = error.to_wire().message;
    assert_eq!(message, "no room for a batch of 9.9 KiB in `t`, partition 0: of the topic's quota of 512 KiB, 544 B are free");
    assert!(error.hint().is_some_and(|hint| hint.contains("millpond topic delete-records t") && hint.contains("--quota")));
    assert_eq!(used, log_bytes(&broker, &sim, "t"), "nothing was written");
    assert_eq!(broker.values("t", 0).await.len(), taken, "reads go on");
    assert_eq!(info(&broker, "t").partitions[0].failure, None);
    broker.produce("other", 0, &["a"]).await.expect("it has no quota");
    broker.produce("t", 0, &["small"]).await.expect("what fits is taken");

    let request = DeleteRecords { topic: "t".to_owned(), partition: 0, before: Position::End };
    broker.engine.delete_records(&request).await.expect("it can be emptied");
    assert_eq!((info(&broker, "t").used_bytes, log_bytes(&broker, &sim, "t")), (0, 0));
    broker.produce("t", 0, &[&value(1)]).await.expect("there is room again");
    fill(&broker, "t").await;
    let more = AlterTopic { quota_bytes: Some(Limit::Of(2 * QUOTA)), ..change("t") };
    broker.engine.alter_topic(more).await.expect("it can be raised");
    broker.produce("t", 0, &[&value(1)]).await.expect("there is more room");
    let broker = broker.restart().await;
    assert_eq!(info(&broker, "t").used_bytes, log_bytes(&broker, &sim, "t"), "it is known after a start");
    assert_eq!(shortage(&fill(&broker, "t").await.0).quota_bytes, Some(2 * QUOTA));
    let less = AlterTopic { quota_bytes: Some(Limit::Of(QUOTA)), ..change("t") };
    let altered = broker.engine.alter_topic(less).await.expect("it may be less than what is there");
    assert!(altered.used_bytes > QUOTA && altered.dropped == Dropped::default(), "and deletes nothing");
    fill(&broker, "t").await;
}

#[tokio::test]
async fn a_hint_names_the_topic_and_nothing_that_is_on_already_or_can_not_be() {
    let sim = SimDisk::new();
    let broker = Broker::with(Arc::new(sim.clone()), |config| config.quota_bytes = Some(3 * QUOTA)).await;
    broker.engine.create_topic(limited("t", 1, None, OnFull::Reject)).await.expect("it can be made");
    let mut compacted = limited("latest", 1, None, OnFull::Reject);
    compacted.config.cleanup = Cleanup::Compact;
    broker.engine.create_topic(compacted).await.expect("it can be made");
    broker.engine.create_topic(limited("drops", 1, None, OnFull::DropOldest)).await.expect("it can be made");
    let hint = fill(&broker, "t").await.0.hint().expect("always there");
    assert!(hint.contains("(`millpond topic alter t --on-full drop-oldest`, or `--retention`)"), "{hint}");
    let hint = broker.produce("drops", 0, &[&value(0)]).await.expect_err("the node is full").hint().expect("always there");
    assert!(hint.contains("(`millpond topic alter drops --retention`)") && !hint.contains("drop-oldest"), "{hint}");
    let keyed = crate::broker::keyed_batch(&[(Some("k"), &value(0))], millpond_protocol::compression::Codec::None);
    let hint = crate::compaction::send(&broker, "latest", keyed).await.expect_err("the node is full").hint().expect("always there");
    assert!(hint.contains("`millpond topic alter latest --cleanup compact,delete --on-full drop-oldest`"), "{hint}");
    assert!(!hint.contains("--retention"), "{hint}");
}

#[tokio::test]
async fn a_run_of_batches_that_fits_in_part_is_taken_in_part_and_in_order() {
    let (broker, _, disk) = Broker::gated().await;
    broker.engine.create_topic(limited("t", 1, Some(QUOTA), OnFull::Reject)).await.expect("it can be made");
    let mut producer = broker.producer("t", Some(0));
    disk.writes.shut();
    let mut answers = vec![broker.submit(&mut producer, batch(&[&value(0)])).await];
    disk.writes.arrived(1).await;
    // All of these are one run, and more than the quota.
    for number in 1..80 {
        answers.push(broker.submit(&mut producer, batch(&[&value(number)])).await);
    }
    disk.writes.open();
    let outcomes: Vec<_> = join_all(answers).await;
    let taken = outcomes.iter().take_while(|outcome| outcome.is_ok()).count();
    assert_eq!(taken as u64, QUOTA / batch(&[&value(0)]).len() as u64);
    assert!(outcomes[taken..].iter().all(|outcome| outcome.as_ref().is_err_and(|error| error.code() == ErrorCode::StorageFull)));
    let expected: Vec<_> = (0..taken).map(value).collect();
    assert!(broker.values("t", 0).await == expected);
}

#[tokio::test]
async fn a_topic_that_drops_its_oldest_records_takes_everything_and_stays_within_its_quota() {
    for durability in ["sync", "interval:5ms", "os"] {
        let (broker, sim) = Broker::simulated().await;
        let mut request = limited("t", 2, Some(QUOTA), OnFull::DropOldest);
        request.config.durability = durability.parse().expect("a durability");
        broker.engine.create_topic(request).await.expect("it can be made");
        let open = OpenConsume { topic: "t".to_owned(), partition: 1, from: Position::Beginning, view: None };
        let (mut slow, _) = broker.engine.open_consume(&open).await.expect("it opens");
        let mut produced = 0;
        for number in 0..300 {
            let partition = u32::from(number % 3 == 0);
            broker.produce("t", partition, &[&value(number)]).await.expect("it is always taken");
            produced += batch(&[&value(number)]).len() as u64;
            assert!(info(&broker, "t").used_bytes <= QUOTA);
        }
        // Some room is made ahead. Then what is not there was dropped, and counted.
        let is_settled = |topic: &TopicInfo| topic.used_bytes + topic.dropped.bytes == produced && topic.used_bytes <= QUOTA / 10 * 9;
        while !is_settled(&info(&broker, "t")) {
            tokio::task::yield_now().await;
        }
        let topic = info(&broker, "t");
        assert!(topic.used_bytes > QUOTA / 2, "{durability}: no more was dropped than had to be: {}", topic.used_bytes);
        assert_eq!(topic.used_bytes, log_bytes(&broker, &sim, "t"));
        let left = broker.values("t", 0).await.len() + broker.values("t", 1).await.len();
        assert_eq!(left as u64 + topic.dropped.records, 300);
        assert!(topic.dropped.segments >= 10, "{durability}: a part goes at a time: {topic:?}");
        assert!(broker.values("t", 0).await.last() == Some(&value(299)), "the newest are there");
        let lost = slow.next(1 << 20).await.expect_err("a consumer that was too slow is told");
        assert!(matches!(lost, EngineError::OffsetOutOfRange { requested: 0, .. }), "{lost:?}");
    }
}

#[tokio::test]
async fn for_the_node_those_yield_that_may_and_never_one_that_rejects() {
    let sim = SimDisk::new();
    let broker = Broker::with(Arc::new(sim.clone()), |config| config.quota_bytes = Some(3 * QUOTA)).await;
    for (name, on_full) in [("keep", OnFull::Reject), ("small", OnFull::DropOldest), ("large", OnFull::DropOldest)] {
        broker.engine.create_topic(limited(name, 1, None, on_full)).await.expect("it can be made");
    }
    for number in 0..15 {
        broker.produce("small", 0, &[&value(number)]).await.expect("there is room");
    }
    for number in 0..60 {
        broker.produce("large", 0, &[&value(number)]).await.expect("there is room");
    }
    let dropped = |topic| info(&broker, topic).dropped.segments;
    assert_eq!((dropped("small"), dropped("large")), (0, 0));
    // The one that writes rejects; those that drop make room for it.
    for number in 0..90 {
        broker.produce("keep", 0, &[&value(number)]).await.unwrap_or_else(|error| panic!("batch {number}: {error}"));
    }
    assert!(dropped("large") > 0 && dropped("keep") == 0);
    let (error, more) = fill(&broker, "keep").await;
    assert_eq!((shortage(&error).bound, shortage(&error).quota_bytes), (StorageBound::Node, Some(3 * QUOTA)));
    assert_eq!(broker.values("keep", 0).await.len(), 90 + more, "it has lost nothing");
    assert_eq!(info(&broker, "small").used_bytes + info(&broker, "large").used_bytes, 0, "there was nothing left to yield");
    // One that drops has nothing to yield to itself, and is refused as well.
    let error = broker.produce("small", 0, &[&value(0)]).await.expect_err("the node is full");
    assert_eq!(shortage(&error).bound, StorageBound::Node);
    broker.engine.delete_topic("keep").await.expect("it is there");
    let mut answer = broker.produce("small", 0, &[&value(0)]).await;
    while answer.as_ref().is_err_and(|error| error.code() == ErrorCode::StorageFull) {
        answer = broker.produce("small", 0, &[&value(0)]).await;
    }
    answer.expect("there is room once the files are gone");
}

#[tokio::test]
async fn nothing_goes_that_is_not_answered_and_what_waits_for_room_is_taken_in_its_order() {
    let (broker, _, disk) = Broker::gated().await;
    broker.engine.create_topic(limited("t", 1, Some(QUOTA), OnFull::DropOldest)).await.expect("it can be made");
    disk.syncs.shut();
    let mut producer = broker.producer("t", Some(0));
    let mut answers = Vec::new();
    for number in 0..200 {
        answers.push(broker.submit(&mut producer, batch(&[&value(number)])).await);
        if number == 100 {
            disk.syncs.arrived(1).await;
            assert_eq!(info(&broker, "t").dropped.segments, 0, "nothing is flushed, so nothing is answered");
            disk.syncs.open();
        }
    }
    let mut offsets = Vec::new();
    for answer in join_all(answers).await {
        let millpond_engine::Answer::Ack(ack) = answer.expect("all of it is taken") else { panic!("an ack was expected") };
        offsets.push(ack.base_offset);
    }
    assert_eq!(offsets, (0..200).collect::<Vec<_>>());
    assert!(info(&broker, "t").dropped.segments > 0 && info(&broker, "t").used_bytes <= QUOTA);
}

#[tokio::test]
async fn a_quota_that_can_not_work_is_refused() {
    let (broker, _) = Broker::simulated().await;
    let error = broker.engine.create_topic(limited("t", 1, Some(QUOTA - 1), OnFull::DropOldest)).await.expect_err("it is too small");
    let wire = error.to_wire();
    assert_eq!(wire.code, ErrorCode::InvalidConfig);
    assert_eq!(wire.message, "`quota_bytes` is 524287 B: 512 KiB to 1 EiB are allowed");
    assert!(wire.hint.is_some_and(|hint| hint.contains("four times `max_batch_bytes`") && !hint.contains("512")), "each number once");
    broker.engine.create_topic(limited("t", 1, Some(QUOTA), OnFull::Reject)).await.expect("it is just enough");
    let larger_batches = AlterTopic { max_batch_bytes: Some(BATCH_BYTES_MAX + 1), ..change("t") };
    let smaller_quota = AlterTopic { quota_bytes: Some(Limit::Of(1)), ..change("t") };
    for request in [larger_batches.clone(), smaller_quota] {
        let error = broker.engine.alter_topic(request).await.expect_err("they do not fit together");
        assert!(matches!(error, EngineError::InvalidConfig { setting: "quota_bytes", .. }), "{error:?}");
    }
    let both = AlterTopic { quota_bytes: Some(Limit::Unlimited), ..larger_batches };
    let altered = broker.engine.alter_topic(both).await.expect("without a quota they may be larger");
    assert_eq!(altered.config.quota_bytes, None);
}

#[tokio::test]
async fn small_quotas_take_everything_keep_what_they_can_and_are_never_passed() {
    // The last one holds four batches.
    for (quota, batch_bytes_max, left_min) in
        [(1 << 20, 16 << 10, 80), (64 << 10, 16 << 10, 3), (64 << 10, 10 << 10, 3), (44 << 10, 10 << 10, 1)]
    {
        for partitions in [1, 3] {
            let (broker, sim) = Broker::simulated().await;
            let config = TopicConfig {
                max_batch_bytes: batch_bytes_max,
                quota_bytes: Some(quota),
                on_full: OnFull::DropOldest,
                ..TopicConfig::default()
            };
            broker.engine.create_topic(CreateTopic { partitions, config, ..create("t", 1, "sync") }).await.expect("it can be made");
            for number in 0..300 {
                let partition = u32::try_from(number).expect("small") % partitions;
                broker
                    .produce("t", partition, &[&value(number)])
                    .await
                    .unwrap_or_else(|error| panic!("{quota}, batch {number}: {error:?}"));
                assert!(info(&broker, "t").used_bytes <= quota);
            }
            // Some room is made ahead, and what went is counted last.
            let is_settled = |topic: &TopicInfo| {
                let left: i64 = topic.partitions.iter().map(|partition| partition.high_watermark - partition.log_start).sum();
                topic.used_bytes * 10 <= quota * 9 && left.unsigned_abs() + topic.dropped.records == 300
            };
            while !is_settled(&info(&broker, "t")) {
                tokio::task::yield_now().await;
            }
            let mut left = 0;
            for partition in 0..partitions {
                left += broker.values("t", partition).await.len() as u64;
            }
            let topic = info(&broker, "t");
            assert_eq!(left + topic.dropped.records, 300, "{quota}");
            assert!(left >= left_min, "{quota}, {partitions} partitions: {left} are left");
            assert_eq!(broker.values("t", 299 % partitions).await.last(), Some(&value(299)), "{quota}: the newest is there");
            assert_eq!(topic.used_bytes, log_bytes(&broker, &sim, "t"));
        }
    }
}

#[tokio::test]
async fn no_record_goes_for_a_batch_that_would_not_fit_all_the_same() {
    for quota in [0, 1, 5_000, 64 << 10, 200 << 10] {
        let sim = SimDisk::new();
        let broker = Broker::with(Arc::new(sim.clone()), |config| config.quota_bytes = Some(quota)).await;
        for (name, on_full) in [("keep", OnFull::Reject), ("camera", OnFull::DropOldest)] {
            broker.engine.create_topic(limited(name, 1, None, on_full)).await.expect("it can be made");
        }
        for _ in 0..quota * 3 / 4 / 10_110 {
            broker.produce("keep", 0, &[&value(1)]).await.expect("there is room");
        }
        for _ in 0..quota.min(300) / 100 {
            broker.produce("camera", 0, &["small"]).await.expect("there is room");
        }
        let (kept, large) = (broker.values("camera", 0).await, "x".repeat(100_000));
        for _ in 0..3 {
            let error = broker.produce("camera", 0, &[&large]).await.expect_err("with everything gone it would not fit");
            assert_eq!((shortage(&error).bound, shortage(&error).quota_bytes), (StorageBound::Node, Some(quota)));
        }
        assert_eq!(broker.values("camera", 0).await, kept, "{quota}");
        assert_eq!(info(&broker, "camera").dropped, Dropped::default());
    }
}

#[tokio::test]
async fn those_that_yield_keep_what_fits_beside_those_that_reject() {
    let node = 4 << 20;
    let sim = SimDisk::new();
    let broker = Broker::with(Arc::new(sim.clone()), |config| config.quota_bytes = Some(node)).await;
    broker.engine.create_topic(limited("keep", 1, None, OnFull::Reject)).await.expect("it can be made");
    let mut camera = limited("camera", 1, None, OnFull::DropOldest);
    camera.config.segment_bytes = 64 << 10;
    broker.engine.create_topic(camera).await.expect("it can be made");
    // Above the mark from which on some room is made ahead, which can't be had any more.
    while info(&broker, "keep").used_bytes < node * 93 / 100 {
        broker.produce("keep", 0, &[&value(1)]).await.expect("there is room");
    }
    for number in 0..200 {
        broker.produce("camera", 0, &[&value(number)]).await.expect("it yields to itself");
        let used = info(&broker, "camera").used_bytes;
        assert!(number < 30 || used > node * 4 / 100, "{number}: only {used} are left");
    }
    assert!(info(&broker, "camera").dropped.segments > 10);
}

#[tokio::test]
async fn an_altered_topic_begins_to_yield_at_once() {
    let (broker, _) = Broker::simulated().await;
    broker.engine.create_topic(limited("t", 1, None, OnFull::Reject)).await.expect("it can be made");
    for number in 0..100 {
        broker.produce("t", 0, &[&value(number)]).await.expect("there is no limit");
    }
    let open = OpenConsume { topic: "t".to_owned(), partition: 0, from: Position::End, view: None };
    let (mut stream, _) = broker.engine.open_consume(&open).await.expect("it opens");
    let request = AlterTopic { quota_bytes: Some(Limit::Of(QUOTA)), on_full: Some(OnFull::DropOldest), ..change("t") };
    broker.engine.alter_topic(request).await.expect("it can be changed");
    // The active segment has it all, and is closed for that.
    while info(&broker, "t").dropped.records < 100 {
        stream.next(1 << 20).await.expect("it reads");
    }
    broker.produce("t", 0, &[&value(100)]).await.expect("there is room");
    assert_eq!(broker.read_all("t", 0).await, [(100, value(100))]);
}

#[tokio::test]
async fn many_that_write_at_the_same_time_never_pass_the_quota_of_the_node() {
    let sim = SimDisk::new();
    let broker = Broker::with(Arc::new(sim.clone()), |config| config.quota_bytes = Some(2 * QUOTA)).await;
    for number in 0..4 {
        broker.engine.create_topic(limited(&format!("t{number}"), 2, None, OnFull::Reject)).await.expect("it can be made");
    }
    let mut answers = Vec::new();
    for number in 0..400 {
        let mut producer = broker.producer(&format!("t{}", number % 4), Some(u32::from(number % 8 > 3)));
        answers.push(broker.submit(&mut producer, batch(&[&value(number)])).await);
    }
    let taken = join_all(answers).await.into_iter().flatten().count() as u64;
    let batch_bytes = batch(&[&value(0)]).len() as u64;
    let used: u64 = broker.engine.topics().iter().map(|topic| topic.used_bytes).sum();
    assert_eq!(used, taken * batch_bytes);
    assert!(used <= 2 * QUOTA && 2 * QUOTA - used < 8 * batch_bytes, "{used}");
    assert_eq!((0..4).map(|number| log_bytes(&broker, &sim, &format!("t{number}"))).sum::<u64>(), used);
}

/// A deletion that is under way has removed its files before it counts again.
async fn counts_what_it_has(broker: &Broker, topic: &str, seed: u64) {
    for _ in 0..100_000 {
        let topic = info(broker, topic);
        if topic.used_bytes == topic.partitions.iter().map(|partition| partition.size_bytes).sum::<u64>() {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("seed {seed}: {:?}", info(broker, topic));
}

#[tokio::test]
async fn whatever_happens_what_is_counted_is_what_the_files_have() {
    for seed in 0..12 {
        let mut random = Random::new(seed);
        let sim = SimDisk::new();
        let mut broker = Broker::with(Arc::new(sim.clone()), |config| {
            config.quota_bytes = Some(3 * QUOTA);
            config.retention_check_interval = Duration::from_millis(1);
        })
        .await;
        let names = ["a", "b", "c"];
        for (name, on_full) in names.into_iter().zip([OnFull::Reject, OnFull::DropOldest, OnFull::DropOldest]) {
            let quota = (random.percent(60) || name == "a").then_some(QUOTA);
            broker.engine.create_topic(limited(name, 2, quota, on_full)).await.expect("it can be made");
        }
        for step in 0..150 {
            let topic = names[usize::try_from(random.below(3)).expect("small")];
            let partition = u32::from(random.percent(50));
            match random.below(40) {
                0 => {
                    let request = DeleteRecords { topic: topic.to_owned(), partition, before: Position::End };
                    let _ = broker.engine.delete_records(&request).await;
                }
                1 => sim.fail(Operation::Remove, 1 + random.below(3), Fault::Device),
                2 => sim.fail(Operation::Write, 1 + random.below(3), Fault::NoSpace),
                3 => sim.limit_bytes(random.percent(50).then_some(sim.used_bytes() + random.below(60_000))),
                4 => {
                    sim.limit_bytes(None);
                    broker = broker.restart().await;
                }
                5 => {
                    sim.crash(step);
                    broker = broker.restart().await;
                }
                6 if topic != "a" => {
                    sim.limit_bytes(None);
                    sim.forget_failures(Operation::Write);
                    broker.engine.delete_topic(topic).await.expect("it is there");
                    let quota = random.percent(50).then_some(QUOTA);
                    broker.engine.create_topic(limited(topic, 2, quota, OnFull::DropOldest)).await.expect("its name is free");
                }
                _ => {
                    let mut producer = broker.producer(topic, Some(partition));
                    let mut answers = Vec::new();
                    for number in 0..=random.below(8) {
                        answers.push(broker.submit(&mut producer, batch(&[&value(usize::try_from(number).expect("small"))])).await);
                    }
                    join_all(answers).await.into_iter().filter_map(Result::err).for_each(|error| {
                        // A file that can't be removed may have stopped a log.
                        assert!([ErrorCode::StorageFull, ErrorCode::StorageFailed].contains(&error.code()), "seed {seed}: {error:?}");
                    });
                }
            }
            for name in names {
                assert!(info(&broker, name).config.quota_bytes.is_none_or(|quota| info(&broker, name).used_bytes <= quota), "seed {seed}");
            }
        }
        sim.limit_bytes(None);
        for name in names {
            counts_what_it_has(&broker, name, seed).await;
        }
        assert_eq!(info(&broker, "a").dropped, Dropped::default());
        broker = broker.restart().await;
        for name in names {
            assert_eq!(info(&broker, name).used_bytes, log_bytes(&broker, &sim, name), "seed {seed}, topic {name}");
        }
    }
}

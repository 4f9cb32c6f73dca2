//! Each thing that is refused, with the code and the words that the one who asked can act on.

use crate::broker::{Broker, batch, create};
use millpond_engine::{Engine, EngineConfig, EngineError, SimClock};
use millpond_log::{
    Disk, RealDisk,
    sim::{Fault, Operation, SimDisk},
};
use millpond_protocol::{
    error::{ErrorCode, WireError},
    message::{CreateTopic, OpenConsume, OpenProduce, Position, TopicConfig},
};
use std::{fs, path::Path, sync::Arc};

#[tokio::test]
async fn an_unknown_topic_comes_with_the_nearest_name_or_with_the_command_that_makes_it() {
    let (broker, _) = Broker::simulated().await;
    broker.topic("readings", 1, "os").await;
    let open = |topic: &str| {
        let open = OpenProduce { topic: topic.to_owned(), partition: Some(0) };
        broker.engine.open_produce(&open).map(|_| ()).expect_err("there is none").to_wire()
    };
    let near = open("readnigs");
    assert_eq!(near.code, ErrorCode::TopicNotFound);
    assert_eq!(near.hint.as_deref(), Some("did you mean `readings`?"));
    let far = open("orders");
    assert_eq!(far.message, "there is no topic `orders`");
    assert_eq!(far.hint.as_deref(), Some("`millpond topic create orders` makes it"));
}

#[tokio::test]
async fn a_partition_or_an_offset_out_of_range_comes_with_the_range() {
    let (broker, _) = Broker::simulated().await;
    broker.topic("t", 3, "sync").await;
    broker.produce("t", 0, &["a", "b"]).await.expect("it is stored");
    let produce = OpenProduce { topic: "t".to_owned(), partition: Some(3) };
    let error = broker.engine.open_produce(&produce).map(|_| ()).expect_err("it has three").to_wire();
    assert_eq!(error.code, ErrorCode::PartitionOutOfRange);
    assert!(error.message.contains("no partition 3") && error.message.contains("from 0 to 2"), "{}", error.message);
    assert!(error.hint.is_some_and(|hint| hint.ends_with("to leave the choice to the partitioner")), "a producer may leave it open");
    let consume = OpenConsume { topic: "t".to_owned(), partition: 3, from: Position::End, view: None };
    let error = broker.engine.open_consume(&consume).await.map(|_| ()).expect_err("it has three").to_wire();
    assert_eq!(error.hint.as_deref(), Some("name a partition from 0 to 2"), "a consumer may not");
    for offset in [-1, 3, i64::MAX] {
        let consume = OpenConsume { topic: "t".to_owned(), partition: 0, from: Position::Offset(offset), view: None };
        let error = broker.engine.open_consume(&consume).await.map(|_| ()).expect_err("it is outside").to_wire();
        assert_eq!((error.code, error.range), (ErrorCode::OffsetOutOfRange, Some((0, 2))), "{offset}");
        assert!(error.message.contains("0 up to, not including, 2"), "{}", error.message);
        assert!(error.hint.is_some_and(|hint| hint.starts_with("read from the beginning")));
    }
}

#[tokio::test]
async fn a_bad_batch_is_refused_with_its_own_code_and_the_next_one_is_taken() {
    let (broker, _) = Broker::simulated().await;
    let config = TopicConfig { max_batch_bytes: 4096, ..TopicConfig::default() };
    broker.engine.create_topic(CreateTopic { config, ..create("t", 1, "os") }).await.expect("it can be made");
    let mut producer = broker.producer("t", Some(0));
    let mut submit = async |bytes: Vec<u8>| -> Result<(), WireError> {
        broker.submit(&mut producer, bytes.into()).await.await.map(|_| ()).map_err(|error| error.to_wire())
    };
    let mut flipped = batch(&["a"]).to_vec();
    flipped[65] ^= 1;
    let cases = [
        (flipped, ErrorCode::CorruptBatch, "checksum"),
        (batch(&["x".repeat(5000).as_str()]).to_vec(), ErrorCode::BatchTooLarge, "limit of 4096 bytes"),
        (b"GET / HTTP/1.1\r\n".to_vec(), ErrorCode::InvalidBatch, "cut off"),
        (Vec::new(), ErrorCode::InvalidBatch, "cut off"),
        ([&batch(&["a"])[..], &batch(&["b"])].concat(), ErrorCode::InvalidBatch, "follow"),
    ];
    for (bytes, code, words) in cases {
        let error = submit(bytes).await.expect_err(words);
        assert_eq!(error.code, code);
        assert!(error.message.contains(words), "{}", error.message);
        assert!(error.hint.is_some(), "{error:?}");
    }
    submit(batch(&["good"]).to_vec()).await.expect("it is stored");
    assert_eq!(broker.read_all("t", 0).await, [(0, "good".to_owned())]);
}

#[tokio::test]
async fn names_numbers_and_settings_outside_their_rules_are_refused_with_the_rule() {
    let (broker, _) = Broker::simulated().await;
    broker.topic("taken", 1, "os").await;
    let config = |change: fn(&mut TopicConfig)| {
        let mut config = TopicConfig::default();
        change(&mut config);
        CreateTopic { config, ..create("t", 1, "os") }
    };
    let cases = [
        (create("a b", 1, "os"), ErrorCode::InvalidTopic, "' '"),
        (create("..", 1, "os"), ErrorCode::InvalidTopic, "dot"),
        (create("", 1, "os"), ErrorCode::InvalidTopic, "empty"),
        (create("t", 0, "os"), ErrorCode::InvalidTopic, "1 to 10000"),
        (create("t", 10_001, "os"), ErrorCode::InvalidTopic, "1 to 10000"),
        (create("taken", 1, "os"), ErrorCode::TopicExists, "`taken`"),
        (config(|config| config.segment_bytes = 1), ErrorCode::InvalidConfig, "segment_bytes"),
        (config(|config| config.max_batch_bytes = u32::MAX), ErrorCode::InvalidConfig, "max_batch_bytes"),
    ];
    for (request, code, words) in cases {
        let error = broker.engine.create_topic(request).await.expect_err(words).to_wire();
        assert!(error.hint.is_some(), "{error:?}");
        assert_eq!(error.code, code, "{}", error.message);
        assert!(error.message.contains(words), "{}", error.message);
    }
    assert_eq!(broker.engine.topics().len(), 1);
}

#[tokio::test]
async fn the_number_of_topics_and_partitions_has_a_limit() {
    let change = |config: &mut EngineConfig| (config.topics_max, config.partitions_max) = (2, 10);
    let broker = Broker::with(Arc::new(SimDisk::new()), change).await;
    broker.topic("a", 6, "os").await;
    let error = broker.engine.create_topic(create("b", 5, "os")).await.expect_err("eleven partitions");
    assert!(matches!(error, EngineError::TooMany { what: "partitions", limit: 10 }), "{error:?}");
    broker.topic("b", 4, "os").await;
    broker.engine.delete_topic("a").await.expect("it is there");
    broker.topic("c", 1, "os").await;
    let error = broker.engine.create_topic(create("d", 1, "os")).await.expect_err("three topics");
    assert!(matches!(error, EngineError::TooMany { what: "topics", limit: 2 }), "{error:?}");
}

#[tokio::test]
async fn partitions_share_the_open_files_whatever_their_durability() {
    let sim = SimDisk::new();
    let broker = Broker::with(Arc::new(sim.clone()), |config| config.segment_files_max = Some(20)).await;
    for (topic, durability) in [("s", "sync"), ("i", "interval:60s"), ("o", "os")] {
        broker.topic(topic, 100, durability).await;
    }
    // New ones were created, and none has a file open by now but those that the pool keeps.
    assert!(sim.open_files() <= 20, "{}", sim.open_files());
    // Under `interval` and `os` nobody asks for a flush: all of their files would stay pinned.
    for round in 0..3 {
        for (topic, partition) in (0..100).flat_map(|partition| ["s", "i", "o"].map(|topic| (topic, partition))) {
            broker.produce(topic, partition, &["a"]).await.unwrap_or_else(|error| panic!("{topic}/{partition}, {round}: {error:?}"));
        }
    }
    for topic in ["s", "i", "o"] {
        for (partition, info) in broker.engine.topic(topic).expect("it is there").partitions.into_iter().enumerate() {
            assert_eq!((info.log_end, info.failure), (3, None), "{topic}/{partition}");
        }
    }
    broker.engine.shutdown().await;
    assert!(sim.open_files() <= 20, "{}", sim.open_files());
}

#[tokio::test]
async fn a_lower_limit_of_the_broker_holds_for_a_topic_that_was_made_before_it() {
    let (broker, _) = Broker::simulated().await;
    let config = TopicConfig { max_batch_bytes: 1 << 20, ..TopicConfig::default() };
    broker.engine.create_topic(CreateTopic { config, ..create("t", 1, "os") }).await.expect("it can be made");
    broker.engine.shutdown().await;

    let config = EngineConfig { max_batch_bytes: 64 << 10, ..EngineConfig::new(broker.dir.path()) };
    let engine = Engine::open(config, Arc::clone(&broker.disk), Arc::clone(&broker.clock) as _).await.expect("it opens");
    let limited = Broker { engine, ..broker };
    let (_, opened) = limited.engine.open_produce(&OpenProduce { topic: "t".to_owned(), partition: Some(0) }).expect("it opens");
    assert_eq!(opened.max_batch_bytes, 64 << 10, "what a producer is told is what is taken");
    assert_eq!(limited.engine.topic("t").expect("it is there").config.max_batch_bytes, 64 << 10);
    let error = limited.produce("t", 0, &["x".repeat(70_000).as_str()]).await.expect_err("it is larger");
    assert!(matches!(error, EngineError::BatchTooLarge { limit: 65_536, .. }), "{error:?}");
    assert!(error.hint().is_some_and(|hint| hint.contains("--max-batch-bytes")));
    limited.produce("t", 0, &["x".repeat(60_000).as_str()]).await.expect("it fits");

    let broker = limited.restart().await;
    assert_eq!(broker.engine.topic("t").expect("it is there").config.max_batch_bytes, 1 << 20, "the topic's own limit is kept");
}

async fn open_folder(dir: &Path) -> Result<(), EngineError> {
    let opened = millpond_engine::Engine::open(EngineConfig::new(dir), Arc::new(RealDisk), Arc::new(SimClock::at(0))).await;
    opened.map(|_| ())
}

#[tokio::test]
async fn a_folder_that_another_broker_uses_is_refused_until_that_one_stops() {
    let broker = Broker::real().await;
    let error = open_folder(broker.dir.path()).await.expect_err("it is in use");
    assert!(matches!(error, EngineError::Locked { .. }), "{error:?}");
    assert!(error.to_string().contains(&broker.dir.path().display().to_string()), "{error}");
    assert!(error.hint().is_some_and(|hint| hint.contains("stop the other broker")));
    broker.engine.shutdown().await;
    open_folder(broker.dir.path()).await.expect("it is free now, although the engine is still there");
}

#[tokio::test]
async fn a_folder_that_can_not_be_made_is_named() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("a-file");
    fs::write(&file, "not a folder").expect("it can be written");
    let error = open_folder(&file.join("data")).await.expect_err("its parent is a file");
    assert!(matches!(error, EngineError::DataDir { .. }), "{error:?}");
    assert_eq!(error.to_string(), format!("can't create the data folder {}", file.join("data").display()));
    assert!(error.hint().is_some_and(|hint| hint.contains("is a file where a folder is needed")), "{:?}", error.hint());
    let error = open_folder(&file).await.expect_err("it is a file");
    assert_eq!(error.to_string(), format!("can't create the data folder {}", file.display()));
    assert!(error.hint().is_some_and(|hint| hint.contains("is a file where a folder is needed")), "{:?}", error.hint());
}

#[tokio::test]
async fn a_folder_whose_lock_can_not_be_taken_is_named_and_not_the_lock() {
    let dir = tempfile::tempdir().expect("a folder");
    // Whoever runs the test, nobody can write to a folder.
    fs::create_dir(dir.path().join("lock")).expect("it can be made");
    let error = open_folder(dir.path()).await.expect_err("it can't be locked");
    assert_eq!(error.to_string(), format!("can't write to the data folder {}", dir.path().display()));
    assert!(error.hint().is_some_and(|hint| hint.contains(&dir.path().display().to_string())), "{:?}", error.hint());
}

#[tokio::test]
async fn a_damaged_catalogue_is_named_and_nothing_is_touched() {
    let broker = Broker::real().await;
    broker.topic("t", 1, "sync").await;
    broker.produce("t", 0, &["precious"]).await.expect("it is stored");
    broker.engine.shutdown().await;
    let [path, second] = ["catalogue.json", "catalogue.2.json"].map(|name| broker.dir.path().join(name));
    let good = fs::read(&path).expect("it is there");
    assert_eq!(fs::read(&second).expect("it is there"), good);
    // Half of it, nothing, zeros, and one that is well formed and has another number somewhere.
    let other = String::from_utf8(good.clone()).expect("text").replace("\"partitions\": 1", "\"partitions\": 2");
    for damaged in [&good[..good.len() / 2], b"", b"\0\0\0\0", other.as_bytes()] {
        fs::write(&path, damaged).expect("it can be written");
        fs::write(&second, damaged).expect("it can be written");
        let error = open_folder(broker.dir.path()).await.expect_err("it is damaged");
        assert!(matches!(error, EngineError::CatalogueDamaged { .. }), "{error:?}");
        assert!(error.to_string().contains("catalogue.json"), "{error}");
        assert_eq!(fs::read(&path).expect("it is there"), damaged, "it is left as it is");
    }
    // Without either the topics would be hidden.
    for path in [&path, &second] {
        fs::remove_file(path).expect("it is there");
    }
    let error = open_folder(broker.dir.path()).await.expect_err("it is gone");
    assert!(error.to_string().contains("it is not there"), "{error}");
    // By hand, and without a checksum that says so.
    let checksum = other.find("crc32c:").expect("it has one");
    let by_hand = format!("{}none{}", &other[..checksum], &other[checksum + 15..]).replace("\"partitions\": 2", "\"partitions\": 1");
    fs::write(&path, by_hand).expect("it can be written");
    let broker = broker.restart().await;
    assert_eq!(broker.values("t", 0).await, ["precious"]);
}

#[tokio::test]
async fn of_two_catalogues_one_is_enough_whatever_has_become_of_the_other() {
    let mut broker = Broker::real().await;
    broker.topic("t", 1, "sync").await;
    broker.produce("t", 0, &["precious"]).await.expect("it is stored");
    broker.engine.shutdown().await;
    let paths = ["catalogue.json", "catalogue.2.json"].map(|name| broker.dir.path().join(name));
    let good = fs::read(&paths[0]).expect("it is there");
    for path in &paths {
        for at in (0..good.len()).step_by(7) {
            let mut flipped = good.clone();
            flipped[at] ^= 4;
            fs::write(path, &flipped).expect("it can be written");
            broker = broker.restart().await;
            assert_eq!(broker.values("t", 0).await, ["precious"], "{path:?}, byte {at}");
            broker.engine.shutdown().await;
            assert!(paths.iter().all(|path| fs::read(path).expect("it is there") == good), "both are whole again: {path:?}, byte {at}");
        }
        fs::remove_file(path).expect("it is there");
        broker = broker.restart().await;
        assert_eq!(broker.values("t", 0).await, ["precious"]);
        broker.engine.shutdown().await;
    }
}

#[tokio::test]
async fn one_log_that_can_not_be_opened_does_not_stop_the_others() {
    let (broker, sim) = Broker::simulated().await;
    broker.topic("t", 2, "sync").await;
    broker.produce("t", 1, &["a"]).await.expect("it is stored");
    broker.engine.shutdown().await;
    // A file where a folder is expected.
    let folder = broker.dir.path().join("topics/t/0");
    sim.remove_dir_all(&folder).expect("it is there");
    millpond_log::write_atomically(&sim, &folder, b"in the way").expect("it can be written");
    let broker = broker.restart().await;
    assert_eq!(broker.values("t", 1).await, ["a"]);
    let error = broker.produce("t", 0, &["b"]).await.expect_err("it has no log");
    assert!(matches!(error, EngineError::LogNotOpened { partition: 0, .. }), "{error:?}");
    let hint = error.hint().expect("always there");
    assert!(hint.contains("until the log can be opened") && !hint.contains("still served"), "{hint}");
    let said = broker.engine.topic("t").expect("it is there").partitions[0].failure_hint.clone();
    assert_eq!(said, Some(hint), "the same everywhere");
    assert!(broker.engine.topic("t").expect("it is there").partitions[0].failure.is_some());
    let open = OpenConsume { topic: "t".to_owned(), ..OpenConsume::default() };
    assert!(matches!(broker.engine.open_consume(&open).await, Err(EngineError::LogNotOpened { .. })));
}

#[tokio::test]
async fn a_folder_that_no_topic_owns_is_neither_taken_over_nor_removed() {
    let (broker, sim) = Broker::simulated().await;
    let folder = broker.dir.path().join("topics/t");
    sim.create_dir_all(&folder).expect("it can be made");
    let error = broker.engine.create_topic(create("t", 1, "os")).await.expect_err("a folder is in the way");
    assert!(matches!(error, EngineError::FolderInTheWay { .. }), "{error:?}");
    let broker = broker.restart().await;
    assert!(sim.exists(&folder).expect("it can be asked"));
    sim.remove_dir_all(&folder).expect("it is there");
    broker.topic("t", 1, "os").await;
}

#[tokio::test]
async fn a_topic_that_could_not_be_made_is_not_there_afterwards() {
    for operation in [Operation::Create, Operation::SyncDir, Operation::Write] {
        for nth in 1..8 {
            let (broker, sim) = Broker::simulated().await;
            sim.fail(operation, nth, Fault::NoSpace);
            let made = broker.engine.create_topic(create("t", 2, "os")).await.is_ok();
            assert_eq!(broker.engine.topics().len(), usize::from(made));
            let broker = broker.restart().await;
            assert_eq!(broker.engine.topics().len(), usize::from(made), "{operation:?} {nth}");
            if !made {
                broker.topic("t", 1, "os").await;
            }
        }
    }
}

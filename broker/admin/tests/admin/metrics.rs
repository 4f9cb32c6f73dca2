//! What a scrape says, and that it is true.

use crate::{broker::Broker, exposition::Scrape};
use millpond_log::sim::{Fault, Operation};

async fn scrape(broker: &Broker) -> Scrape {
    let reply = broker.door.get("/metrics").await;
    assert_eq!(reply.code, 200, "{}", reply.body);
    assert!(reply.fields.contains("Content-Type: text/plain; version=0.0.4; charset=utf-8"), "{}", reply.fields);
    Scrape::read(&reply.body)
}

#[tokio::test]
async fn a_scrape_says_what_the_engine_knows() {
    let broker = Broker::start().await;
    broker.topic("readings", 2, "sync").await;
    broker.topic("a.b-c_d", 1, "interval:200ms").await;
    for _ in 0..3 {
        broker.produce("readings", 1, "21.4").await.expect("it is stored");
    }
    let scrape = scrape(&broker).await;
    assert_eq!(scrape.value(concat!("millpond_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"}")), "1");
    assert!(scrape.value("millpond_start_time_seconds").parse::<f64>().expect("a number") > 1.7e9);
    assert_eq!(scrape.value("millpond_ready"), "1");
    assert_eq!(scrape.value("millpond_topic_info{topic=\"readings\",durability=\"sync\",cleanup=\"delete\"}"), "1");
    assert_eq!(scrape.value("millpond_topic_info{topic=\"a.b-c_d\",durability=\"interval:200ms\",cleanup=\"delete\"}"), "1");
    let info = broker.engine.topic("readings").expect("it is there").partitions[1].clone();
    assert!(info.high_watermark == 3 && info.size_bytes > 0);
    for (family, expected) in [
        ("log_start_offset", "0"),
        ("high_watermark", "3"),
        ("log_end_offset", "3"),
        ("size_bytes", &info.size_bytes.to_string()),
        ("writable", "1"),
    ] {
        assert_eq!(scrape.value(&format!("millpond_partition_{family}{{topic=\"readings\",partition=\"1\"}}")), expected, "{family}");
        assert_eq!(scrape.count(&format!("millpond_partition_{family}")), 3, "{family}");
    }
    assert_eq!(scrape.value("millpond_topic_used_bytes{topic=\"readings\"}"), info.size_bytes.to_string());
    for dropped in ["segments", "records", "bytes"] {
        assert_eq!(scrape.value(&format!("millpond_topic_dropped_{dropped}_total{{topic=\"readings\"}}")), "0");
    }
}

#[tokio::test]
async fn memory_and_files_are_shown_with_their_limits() {
    let broker = Broker::start().await;
    broker.topic("t", 1, "os").await;
    broker.produce("t", 0, "a").await.expect("it is stored");
    // A batch's room is given back a moment after its answer.
    while scrape(&broker).await.value("millpond_inflight_bytes") != "0" {}
    let permit = broker.engine.reserve_inflight(10_000).await;
    let during = scrape(&broker).await;
    assert_eq!(during.value("millpond_inflight_bytes"), "10240", "whole KiB");
    assert_eq!(during.value("millpond_inflight_limit_bytes"), (64 << 20).to_string());
    assert_eq!((during.value("millpond_segment_files_open"), during.value("millpond_segment_files_unsynced")), ("1", "1"));
    assert!(during.value("millpond_segment_files_limit").parse::<u32>().expect("a number") >= 16);
    drop(permit);
    assert_eq!(scrape(&broker).await.value("millpond_inflight_bytes"), "0");
}

#[tokio::test]
async fn a_partition_whose_disk_failed_is_not_writable_and_describe_says_the_same() {
    for operation in [Operation::Write, Operation::Sync] {
        let broker = Broker::start().await;
        broker.topic("t", 2, "sync").await;
        broker.produce("t", 0, "before").await.expect("it is stored");
        broker.disk.fail(operation, 1, Fault::Device);
        broker.produce("t", 0, "during").await.expect_err("the disk failed");
        let scrape = scrape(&broker).await;
        assert_eq!(scrape.value("millpond_partition_writable{topic=\"t\",partition=\"0\"}"), "0");
        assert_eq!(scrape.value("millpond_partition_writable{topic=\"t\",partition=\"1\"}"), "1");
        let described = broker.engine.topic("t").expect("it is there");
        let failure = described.partitions[0].failure.as_ref().expect("`topic describe` says it, too");
        assert_eq!(described.partitions[1].failure, None);

        let ready = broker.door.get("/health/ready").await;
        assert_eq!((ready.code, ready.body.as_str()), (200, format!("ready\nt[0] takes no records: {failure}\n").as_str()));
        broker.produce("t", 1, "elsewhere").await.expect("the other one goes on");
    }
}

#[tokio::test]
async fn a_broker_that_starts_has_metrics_of_its_own_and_one_that_stops_has_all() {
    let broker = Broker::start().await;
    broker.topic("t", 1, "sync").await;
    broker.door.status.stopping();
    broker.engine.shutdown().await;
    let stopping = scrape(&broker).await;
    assert_eq!(stopping.value("millpond_ready"), "0");
    assert_eq!(stopping.count("millpond_partition_high_watermark"), 1);

    let door = crate::broker::Door::open(millpond_admin::AdminLimits::default()).await;
    let starting = Scrape::read(&door.get("/metrics").await.body);
    assert_eq!((starting.value("millpond_ready"), starting.has("millpond_inflight_bytes")), ("0", false));
}

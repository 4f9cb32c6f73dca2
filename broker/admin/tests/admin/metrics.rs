//! What a scrape says, and that it is true.

use crate::{broker::Broker, exposition::Scrape};
use millpond_admin::AdminLimits;
use millpond_engine::EngineConfig;
use millpond_log::{
    VerifyOnRead,
    sim::{Fault, Operation},
};
use millpond_protocol::message::{AlterTopic, AttachPoint, AttachTransform, Cleanup, CreateTopic, ModuleRef, OnFull, TopicConfig};
use std::{path::Path, time::Duration};

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
    for bound in ["topic", "node", "disk"] {
        assert_eq!(scrape.value(&format!("millpond_topic_refused_batches_total{{topic=\"readings\",bound=\"{bound}\"}}")), "0");
    }
    assert_eq!(scrape.count("millpond_partition_damaged_ranges"), 3);
    assert_eq!(scrape.value("millpond_storage_used_bytes"), info.size_bytes.to_string());
    assert_eq!((scrape.value("millpond_storage_reserve_held"), scrape.value("millpond_storage_reserve_bytes")), ("1", "8388608"));
    for unset in ["millpond_storage_quota_bytes", "millpond_topic_quota_bytes", "millpond_topic_compaction_passes_total"] {
        assert_eq!(scrape.count(unset), 0, "{unset}");
    }
}

/// A quota for four of the largest batches.
const QUOTA: u64 = 4 << 18;

fn limited(name: &str, quota_bytes: Option<u64>, on_full: OnFull) -> CreateTopic {
    let config = TopicConfig { quota_bytes, on_full, max_batch_bytes: 1 << 18, segment_bytes: 1 << 16, ..TopicConfig::default() };
    CreateTopic { name: name.to_owned(), partitions: 2, config }
}

#[tokio::test]
async fn what_is_refused_and_dropped_is_counted_by_what_had_no_room() {
    let broker = Broker::with(|config| config.quota_bytes = Some(3 * QUOTA), AdminLimits::default()).await;
    let large = "x".repeat(100_000);
    for request in [
        limited("unlimited", None, OnFull::Reject),
        limited("rejects", Some(QUOTA), OnFull::Reject),
        limited("drops", Some(QUOTA), OnFull::DropOldest),
    ] {
        if request.name == "rejects" {
            // Nobody yields yet.
            broker.disk.limit_bytes(Some(broker.disk.used_bytes()));
            broker.produce("unlimited", 1, &large).await.expect_err("the disk is full");
            broker.disk.limit_bytes(None);
        }
        broker.engine.create_topic(request).await.expect("it can be made");
    }
    for _ in 0..30 {
        broker.produce("drops", 0, &large).await.expect("room is made for it");
    }
    let mut refused = 0;
    for partition in [0, 1] {
        while broker.produce("rejects", partition, &large).await.is_ok() {}
        refused += 1;
    }
    // Room is still being made behind the last batch.
    let dropped = || broker.engine.topic("drops").expect("it is there").dropped;
    let mut before = dropped();
    let mut scrape = scrape(&broker).await;
    while std::mem::replace(&mut before, dropped()) != before {
        scrape = self::scrape(&broker).await;
    }
    let topic =
        |family: &str, topic: &str, more: &str| scrape.value(&format!("millpond_topic_{family}{{topic=\"{topic}\"{more}}}")).to_owned();
    for (name, by_topic, by_disk) in [("drops", 0, 0), ("rejects", refused, 0), ("unlimited", 0, 1)] {
        for (bound, batches) in [("topic", by_topic), ("node", 0), ("disk", by_disk)] {
            let found = topic("refused_batches_total", name, &format!(",bound=\"{bound}\""));
            assert_eq!(found, batches.to_string(), "{name} {bound}");
        }
    }
    let dropped = before;
    assert!(dropped.segments > 10 && dropped.bytes > 10 * 100_000);
    for (what, value) in [("segments", dropped.segments), ("records", dropped.records), ("bytes", dropped.bytes)] {
        assert_eq!(topic(&format!("dropped_{what}_total"), "drops", ""), value.to_string());
    }
    assert_eq!((topic("quota_bytes", "rejects", ""), scrape.count("millpond_topic_quota_bytes")), (QUOTA.to_string(), 2));
    assert_eq!(scrape.value("millpond_storage_quota_bytes"), (3 * QUOTA).to_string());
    let used: u64 = broker.engine.topics().iter().map(|topic| topic.used_bytes).sum();
    assert_eq!(scrape.value("millpond_storage_used_bytes"), used.to_string());
}

#[tokio::test]
async fn compaction_is_shown_for_topics_that_have_it_and_damage_for_every_partition() {
    let change = |config: &mut EngineConfig| {
        (config.retention_check_interval, config.verify_on_read) = (Duration::from_millis(1), VerifyOnRead::Always);
    };
    let broker = Broker::with(change, AdminLimits::default()).await;
    for name in ["latest", "other"] {
        broker.engine.create_topic(limited(name, None, OnFull::Reject)).await.expect("it can be made");
    }
    let large = "x".repeat(100_000);
    for _ in 0..20 {
        broker.produce_keyed("latest", 0, Some("k"), &large).await.expect("it is stored");
        broker.produce("other", 1, &large).await.expect("it is stored");
    }
    // Only now, so that one pass has all there is to do.
    let change = AlterTopic { name: "latest".to_owned(), cleanup: Some(Cleanup::Compact), ..AlterTopic::default() };
    broker.engine.alter_topic(change).await.expect("it can be changed");
    let compaction = |scrape: &Scrape, what: &str| -> u64 {
        scrape.value(&format!("millpond_topic_compaction_{what}{{topic=\"latest\"}}")).parse().expect("a number")
    };
    let seen = loop {
        let seen = scrape(&broker).await;
        if compaction(&seen, "passes_total") > 0 && compaction(&seen, "dirty_bytes") == 0 {
            break seen;
        }
    };
    let (read, written, removed) =
        (compaction(&seen, "read_bytes_total"), compaction(&seen, "written_bytes_total"), compaction(&seen, "removed_bytes_total"));
    assert!(read > 20 * 100_000 && written > 0 && removed > 15 * 100_000, "{read} {written} {removed}");
    assert_eq!((compaction(&seen, "failures_total"), seen.count("millpond_topic_compaction_passes_total")), (0, 1));

    let damaged = |scrape: &Scrape| scrape.value("millpond_partition_damaged_ranges{topic=\"other\",partition=\"1\"}").to_owned();
    assert_eq!(damaged(&seen), "0");
    broker.damage("other", 1, 7);
    broker.read("other", 1, 7).await.expect_err("it is damaged");
    let seen = scrape(&broker).await;
    assert_eq!((damaged(&seen).as_str(), seen.value("millpond_partition_writable{topic=\"other\",partition=\"1\"}")), ("1", "1"));
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

    let door = crate::broker::Door::open(AdminLimits::default()).await;
    let starting = Scrape::read(&door.get("/metrics").await.body);
    assert_eq!((starting.value("millpond_ready"), starting.has("millpond_inflight_bytes")), ("0", false));
}

#[tokio::test]
async fn modules_are_measured_wherever_they_are_attached_and_no_series_is_there_twice() {
    let broker = Broker::start().await;
    broker.topic("t", 1, "os").await;
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../plugins/dist/hostile.wasm");
    let hostile = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}; plugins/build.sh makes it", path.display()));
    broker.engine.deploy_module("hostile", hostile.into()).await.expect("it can be deployed");
    let params = [("mode", "trap"), ("only", "poison")].map(|(name, value)| (name.to_owned(), value.to_owned()));
    let on = |on, view: Option<&str>| AttachTransform {
        params: params.clone().into(),
        view: view.map(str::to_owned),
        ..AttachTransform::new("t", ModuleRef::current("hostile"), on)
    };
    for attachment in [on(AttachPoint::Produce, None), on(AttachPoint::Fetch, Some("a")), on(AttachPoint::Fetch, Some("b"))] {
        broker.engine.attach(attachment).await.expect("it can be attached");
    }
    broker.produce("t", 0, "good").await.expect("it is stored");
    for _ in 0..3 {
        broker.produce("t", 0, "poison").await.expect_err("it traps");
    }
    // The reader of the text fails on a series that is there twice.
    let scrape = scrape(&broker).await;
    let place = "topic=\"t\",on=\"produce\",module=\"hostile\",version=\"1\"";
    for (series, expected) in [
        (format!("batches_total{{{place}}}"), "4"),
        (format!("records_in_total{{{place}}}"), "4"),
        (format!("records_out_total{{{place}}}"), "1"),
        (format!("records_failed_total{{{place},outcome=\"rejected\"}}"), "3"),
        (format!("failures_total{{{place},kind=\"guest_trapped\"}}"), "3"),
        (format!("failures_total{{{place},kind=\"guest_timed_out\"}}"), "0"),
        (format!("batch_seconds_bucket{{{place},le=\"+Inf\"}}"), "4"),
        (format!("batch_seconds_count{{{place}}}"), "4"),
        (format!("paused{{{place}}}"), "0"),
    ] {
        assert_eq!(scrape.value(&format!("millpond_transform_{series}")), expected, "{series}");
    }
    let peak: u64 = scrape.value(&format!("millpond_transform_memory_peak_bytes{{{place}}}")).parse().expect("a number");
    let limit: u64 = scrape.value(&format!("millpond_transform_memory_limit_bytes{{{place}}}")).parse().expect("a number");
    assert!(65_536 <= peak && peak <= limit, "{peak} of {limit}");
    assert_eq!(scrape.count("millpond_transform_batches_total"), 3);
    for _ in 0..7 {
        broker.produce("t", 0, "poison").await.expect_err("it traps");
    }
    assert_eq!(self::scrape(&broker).await.value(&format!("millpond_transform_paused{{{place}}}")), "1", "after ten in a row");
}

//! Records that come back from a module and lie about themselves, as those of `plugins/hostile` do, which `plugins/build.sh` builds.

use crate::broker::{Broker, NOW_MS, attachment};
use bytes::Bytes;
use millpond_protocol::{
    error::ErrorCode,
    message::{AttachTransform, Position},
};
use std::{collections::BTreeMap, path::Path};

/// The module in a mode, for batches with this text in them.
fn hostile(topic: &str, mode: &str, only: &str) -> AttachTransform {
    let params = [("mode", mode), ("only", only)].map(|(name, value)| (name.to_owned(), value.to_owned()));
    AttachTransform { params: BTreeMap::from(params), ..attachment(topic, "hostile", 'i') }
}

fn hostile_module() -> Bytes {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../plugins/dist/hostile.wasm");
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}; plugins/build.sh makes it", path.display())).into()
}

#[tokio::test]
async fn a_lie_about_offsets_lengths_or_counts_is_told_and_nothing_is_stored() {
    let (broker, _) = Broker::simulated().await;
    broker.engine.deploy_module("hostile", hostile_module()).await.expect("it can be deployed");
    for (mode, words) in [
        ("lie-offset", "offset delta 2147483647 in a batch that ends at 1"),
        ("lie-length", "a length of 2147483647 where"),
        ("lie-headers", "2147483647 headers in 0 bytes"),
        ("garbage", "record 0"),
    ] {
        broker.topic(mode, 1, "sync").await;
        broker.engine.attach(hostile(mode, mode, "")).await.expect("it can be attached");
        let error = broker.produce(mode, 0, &["a", "b"]).await.expect_err("a lie");
        assert_eq!(error.code(), ErrorCode::GuestOutputInvalid);
        let wire = error.to_wire();
        assert!(wire.message.contains(words) && wire.message.contains("`hostile`"), "{mode}: {}", wire.message);
        assert!(wire.hint.is_some_and(|hint| hint.len() > 20), "{mode}: it says what can be done");
        assert_eq!(broker.engine.topic(mode).expect("it is there").partitions[0].log_end, 0, "{mode}");
        broker.topic(&format!("{mode}-beside"), 1, "sync").await;
        broker.produce(&format!("{mode}-beside"), 0, &["a"]).await.expect("another topic is as it was");
    }
}

#[tokio::test]
async fn a_lie_about_the_order_or_the_time_changes_no_offset_and_no_other_records_time() {
    let (broker, _) = Broker::simulated().await;
    broker.engine.deploy_module("hostile", hostile_module()).await.expect("it can be deployed");
    for (mode, lied) in [("lie-order", 2), ("lie-time", 1)] {
        broker.topic(mode, 1, "sync").await;
        broker.engine.attach(hostile(mode, mode, "poison")).await.expect("it can be attached");
        for (value, expected) in [("a", 0), ("poison", 1)] {
            let ack = broker.produce(mode, 0, &[value]).await.expect("it is stored");
            assert_eq!(ack.base_offset, expected, "{mode}");
        }
        let ack = broker.produce(mode, 0, &["b", "c"]).await.expect("it is stored");
        assert_eq!((ack.base_offset, ack.last_offset), (1 + lied, 2 + lied), "{mode}");
        let found = broker.read_all(mode, 0).await;
        assert_eq!(found.first(), Some(&(0, "a".to_owned())), "{mode}");
        assert_eq!(found[1..].iter().filter(|(_, value)| value == "lies").count(), usize::try_from(lied).expect("few"), "{mode}");
        assert_eq!(found.last(), Some(&(2 + lied, "c".to_owned())), "{mode}");
        let found = broker.offset_at(mode, 0, Position::Time(NOW_MS)).await.expect("it is there");
        assert_eq!(found.offset, 0, "{mode}: the first record of that time is found as before");
    }
}

//! Two hundred kills under producers that reconnect and retry.
//!
//! Producers number their batches, so a repetition after a kill is recognised: each partition holds the records of each producer once, in
//! order and without a gap. That is looked at after each start, from where the last look ended, while the producers go on.
//!
//! Beside them a topic is compacted, again and again. Its producers go on through the kill and have a pause afterwards, until all that is
//! left of it is looked at.

use crate::{
    client,
    compacted::{self, Compacted},
    create_topic,
    load::{Load, Sent, Writer, value},
    seen::{PARTITIONS, Seen},
};
use millpond::{Record, TopicConfig};
use millpond_tests::{Broker, Site, millpond, text};
use rand::{RngExt, SeedableRng, rngs::StdRng};

const KILLS: u32 = 200;

const PRODUCERS: u32 = 3;

/// So few that each partition begins a segment about as often as the broker is killed: more files would only take long to remove.
const VALUE_BYTES: usize = 100;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn producers_that_reconnect_store_everything_once_and_in_order_through_two_hundred_kills() {
    let site = Site::new();
    let start = || site.start_with(&["--set", "storage.retention_check_interval=5ms"]);
    let mut broker = start();
    create_topic(broker.url(), "readings", PARTITIONS, TopicConfig::default()).await;
    create_topic(broker.url(), compacted::TOPIC, compacted::PARTITIONS, compacted::config()).await;
    let (load, state_load) = (Load::new(reading), Load::new(compacted::record));
    let (mut seen, mut state) = (Seen::new("readings"), Compacted::default());
    let producing = load.run(writers(&broker, "readings", PRODUCERS).await);
    let mut state_writers = writers(&broker, compacted::TOPIC, compacted::PRODUCERS).await;
    let mut random = StdRng::seed_from_u64(0x006d_696c_6c70_6f6e);
    for _ in 0..KILLS {
        let producing_state = state_load.run(state_writers);
        // At any moment, but for the first answer that shows that the producers have found the broker again.
        load.acknowledge(random.random_range(1..400)).await;
        state.count_passes(&broker.log());
        broker.kill();
        broker = start();
        seen.look(broker.url(), &load).await;
        state_writers = producing_state.stop().await;
        state.look(broker.url(), &state_load).await;
    }
    producing.stop().await;
    seen.look(broker.url(), &load).await;
    assert!(load.retries() > 0, "answers were lost, and their batches sent again");
    assert!(broker.stop().success(), "the broker stops cleanly");

    // Everything once more: behind a clean stop, from the beginning, and by the tool that looks at every byte.
    let verified = millpond().args(["log", "verify"]).arg(site.data_dir()).output().expect("the millpond binary is built");
    assert!(verified.status.success(), "{}{}", text(&verified.stdout), text(&verified.stderr));
    broker = start();
    assert_eq!(seen.look_again(broker.url(), &load).await, [0; PARTITIONS as usize], "nothing was ever deleted");
    state.look(broker.url(), &state_load).await;
    state.must_have_been_compacted(&state_load);
    assert!(broker.stop().success(), "the broker stops cleanly");
}

/// Producers of a topic, which begin with the first record.
pub(crate) async fn writers(broker: &Broker, topic: &str, count: u32) -> Vec<Writer> {
    let mut writers = Vec::new();
    for name in 0..count {
        let producer = client(broker.url()).await.producer(topic).batch_bytes(8 * 1024).build().await.expect("the topic is there");
        writers.push((name, producer, 0));
    }
    writers
}

fn reading(sent: Sent) -> Record {
    Record::new(value(sent, VALUE_BYTES)).with_partition(sent.number % PARTITIONS)
}

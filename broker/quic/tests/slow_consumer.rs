//! A consumer that does not read, while others do. Alone in its process, because it looks at the process's memory.

mod common;

use common::{Broker, Frames, big_batch};
use millpond_protocol::message::{Durability, Position};
use millpond_quic::QuicLimits;
use quinn::TransportConfig;

const BATCH_BYTES: usize = 256 << 10;
const BATCHES: usize = 512;

/// Far less than the 128 MiB that a broker without backpressure would hold for each stream: the windows of the connections and a few
/// pushes.
const GROWTH_BYTES_MAX: u64 = 64 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn consumers_that_do_not_read_cost_little_and_hold_nobody_up() {
    let broker = Broker::start_with(QuicLimits { transit_bytes_max: 16 << 20, ..QuicLimits::default() }).await;
    let connection = broker.connect().await;
    broker.create_topic(&connection, "readings", Durability::Os).await;
    let mut producer = Frames::produce(&connection, "readings").await;
    let batch = big_batch(BATCH_BYTES);
    for _ in 0..BATCHES {
        producer.send_batch(&batch).await;
        producer.ack().await.expect("stored");
    }
    let before_bytes = resident_bytes();

    // Ten streams on a connection of their own, of which nothing is read after the first answer.
    let mut transport = TransportConfig::default();
    transport.stream_receive_window(quinn::VarInt::from_u32(64 << 10));
    let lazy_connection = broker.connect_with(transport).await;
    let mut lazy = Vec::new();
    for _ in 0..10 {
        lazy.push(Frames::consume(&lazy_connection, "readings", Position::Beginning).await);
    }

    let mut batches = 0;
    let mut consumer = Frames::consume(&connection, "readings", Position::Beginning).await;
    while batches < BATCHES {
        batches += consumer.push().await.expect("a push").1.len();
    }
    producer.send_batch(&batch).await;
    producer.ack().await.expect("producers go on as well");

    let growth_bytes = resident_bytes().saturating_sub(before_bytes);
    assert!(growth_bytes < GROWTH_BYTES_MAX, "memory grew by {growth_bytes} bytes");

    // They were only slow.
    for mut consumer in lazy {
        assert!(!consumer.push().await.expect("a push").1.is_empty());
    }
    broker.stop().await;
}

/// What the process has in memory (proc(5), `VmRSS`).
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("procfs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
    kib * 1024
}

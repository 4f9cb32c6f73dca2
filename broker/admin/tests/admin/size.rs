//! A scrape of a broker with thousands of partitions: what it costs, and what it holds up.

use crate::{broker::Broker, exposition::Scrape};
use millpond_admin::AdminLimits;
use std::time::Instant;

const TOPICS: u32 = 500;
const PARTITIONS: u32 = 10;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_thousand_partitions_are_scraped_while_records_come_in() {
    let broker = Broker::with(|config| config.partitions_max = 10_000, AdminLimits::default()).await;
    for number in 0..TOPICS {
        broker.topic(&format!("site-{number:04}.readings"), PARTITIONS, "os").await;
    }
    let began = Instant::now();
    let seen = broker.engine.topics_with_counts();
    let look = began.elapsed();
    let began = Instant::now();
    let (reply, stored) = tokio::join!(broker.door.get("/metrics"), async {
        let mut stored = 0;
        for number in 0..100 {
            broker.produce(&format!("site-{number:04}.readings"), 0, "a").await.expect("a scrape is in nobody's way");
            stored += 1;
        }
        stored
    });
    let took = began.elapsed();
    eprintln!(
        "5,000 partitions: {} bytes, {took:?} for a scrape beside 100 batches, of which {look:?} for the look at all topics",
        reply.body.len()
    );
    assert_eq!((seen.len(), stored), (TOPICS as usize, 100));
    let scrape = Scrape::read(&reply.body);
    for family in ["log_start_offset", "high_watermark", "log_end_offset", "size_bytes", "writable"] {
        assert_eq!(scrape.count(&format!("millpond_partition_{family}")), (TOPICS * PARTITIONS) as usize);
    }
    assert!(reply.body.len() < 4 << 20, "{} bytes", reply.body.len());
}

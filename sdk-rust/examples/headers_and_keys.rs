//! Keys decide about the partition, headers carry what is about a record.
//!
//! `cargo run --release --example headers_and_keys -- millpond://localhost:9440?fp=sha256:...`
#![expect(clippy::print_stdout, reason = "it shows what happens")]

use millpond::{Client, CreateTopic, Error, Record, Start};
use std::collections::{BTreeMap, BTreeSet};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let url = std::env::args().nth(1).expect("the URL of a broker");
    let client = Client::connect(&url).await?;
    client.admin().ensure_topic(CreateTopic { name: "devices".to_owned(), partitions: 4, ..CreateTopic::default() }).await?;

    let producer = client.producer("devices").build().await?;
    for number in 0..12 {
        let record = Record::new(format!("reading {number}")).with_key(format!("device-{}", number % 3));
        drop(producer.enqueue(record.with_header("unit", "C").with_header("trace", format!("{number:04x}"))).await?);
    }
    // The value of this key is gone.
    drop(producer.enqueue(Record::tombstone("device-0")).await?);
    producer.close().await?;

    let mut partitions: BTreeMap<String, BTreeSet<u32>> = BTreeMap::new();
    let mut consumer = client.consumer("devices").start(Start::Beginning).until_end(true).build().await?;
    while let Some(record) = consumer.next().await.transpose()? {
        let key = String::from_utf8_lossy(record.key.as_deref().unwrap_or_default()).into_owned();
        let value = record.value.as_deref().map(String::from_utf8_lossy);
        println!("{key} {} {:?}", value.as_deref().unwrap_or("is deleted"), record.headers.get("trace"));
        partitions.entry(key).or_default().insert(record.partition);
    }
    for (device, found) in partitions {
        println!("{device} is in {} partition", found.len());
    }
    client.close().await;
    Ok(())
}

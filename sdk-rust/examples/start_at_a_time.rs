//! Reads what happened from a time on.
//!
//! `cargo run --release --example start_at_a_time -- millpond://localhost:9440?fp=sha256:...`
#![expect(clippy::print_stdout, reason = "it shows what happens")]

use millpond::{Client, CreateTopic, Error, Record, Start};

/// 2026-01-01 00:00 UTC, in milliseconds since 1970.
const MIDNIGHT: i64 = 1_767_225_600_000;
const HOUR: i64 = 3_600_000;

#[tokio::main]
async fn main() -> Result<(), Error> {
    let url = std::env::args().nth(1).expect("the URL of a broker");
    let client = Client::connect(&url).await?;
    client.admin().ensure_topic(CreateTopic { name: "door".to_owned(), partitions: 1, ..CreateTopic::default() }).await?;

    let producer = client.producer("door").build().await?;
    for hour in 0..24 {
        drop(producer.enqueue(Record::new(format!("opened in hour {hour}")).with_timestamp(MIDNIGHT + hour * HOUR)).await?);
    }
    producer.close().await?;

    let evening = Start::Time(MIDNIGHT + 21 * HOUR);
    let mut consumer = client.consumer("door").start(evening).until_end(true).build().await?;
    while let Some(record) = consumer.next().await.transpose()? {
        let hours = (record.timestamp - MIDNIGHT) / HOUR;
        println!("{hours}:00 {}", String::from_utf8_lossy(&record.value.unwrap_or_default()));
    }
    consumer.seek(None, Start::Time(MIDNIGHT)).await?;
    println!("back at offset {}", consumer.position(0).unwrap_or(-1));
    client.close().await;
    Ok(())
}

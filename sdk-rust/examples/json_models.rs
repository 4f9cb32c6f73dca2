//! Types of your own as JSON, and a record that is none: it is put aside with the reason.
//!
//! `cargo run --release --example json_models -- millpond://localhost:9440?fp=sha256:...`
#![expect(clippy::print_stdout, reason = "it shows what happens")]

use millpond::{Client, CreateTopic, Record, Start};
use serde::{Deserialize, Serialize};
use std::error::Error;

#[derive(Debug, Serialize, Deserialize)]
struct Reading {
    device: String,
    celsius: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    note: Option<String>,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let url = std::env::args().nth(1).ok_or("the URL of a broker is missing")?;
    let client = Client::connect(&url).await?;
    for topic in ["readings", "readings-bad"] {
        client.admin().ensure_topic(CreateTopic { name: topic.to_owned(), partitions: 1, ..CreateTopic::default() }).await?;
    }

    let producer = client.producer("readings").build().await?;
    let readings = [
        Reading { device: "device-7".to_owned(), celsius: 21.4, note: None },
        Reading { device: "device-8".to_owned(), celsius: 19.9, note: Some("window open".to_owned()) },
    ];
    for reading in &readings {
        drop(producer.enqueue(Record::new(serde_json::to_vec(reading)?).with_key(reading.device.clone())).await?);
    }
    drop(producer.enqueue(Record::new("this is no reading")).await?);
    producer.close().await?;

    let bad = client.producer("readings-bad").build().await?;
    let mut consumer = client.consumer("readings").start(Start::Beginning).until_end(true).build().await?;
    while let Some(record) = consumer.next().await.transpose()? {
        let value = record.value.unwrap_or_default();
        match serde_json::from_slice::<Reading>(&value) {
            Ok(Reading { device, celsius, note }) => println!("{device}: {celsius} {}", note.unwrap_or_default()),
            Err(error) => {
                let place = bad.send(Record::new(value).with_header("error", error.to_string())).await?;
                println!("a bad one, kept at offset {}: {error}", place.offset);
            }
        }
    }
    bad.close().await?;
    client.close().await;
    Ok(())
}

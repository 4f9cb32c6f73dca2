//! Sends three records and reads them back.
//!
//! `cargo run --release --example produce_and_consume -- millpond://localhost:9440?fp=sha256:...`
#![expect(clippy::print_stdout, reason = "it shows what happens")]

use millpond::{Client, CreateTopic, Error, Record, Start};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let url = std::env::args().nth(1).expect("the URL of a broker");
    let client = Client::connect(&url).await?;
    client.admin().ensure_topic(CreateTopic { name: "greetings".to_owned(), partitions: 2, ..CreateTopic::default() }).await?;

    let producer = client.producer("greetings").build().await?;
    for word in ["hello", "from"] {
        // It waits for room in the buffer only; what becomes of the record is told by the delivery, or by `flush`.
        drop(producer.enqueue(Record::new(word)).await?);
    }
    let place = producer.send(Record::new("Rust")).await?;
    println!("the last one is at partition {}, offset {}", place.partition, place.offset);
    producer.close().await?;

    let mut consumer = client.consumer("greetings").start(Start::Beginning).until_end(true).build().await?;
    while let Some(record) = consumer.next().await.transpose()? {
        println!("{} {} {}", record.partition, record.offset, String::from_utf8_lossy(&record.value.unwrap_or_default()));
    }
    client.close().await;
    Ok(())
}

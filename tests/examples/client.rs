//! The client of the README.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use millpond::{Client, Record, Start};

#[tokio::main]
async fn main() -> Result<(), millpond::Error> {
    let client = Client::connect("millpond://localhost:9440?fp=sha256:…").await?;
    let producer = client.producer("readings").build().await?;
    let place = producer.send(Record::new("21.4").with_key("pump-1")).await?;
    println!("stored at {}[{}]", place.partition, place.offset);

    let mut consumer = client.consumer("readings").start(Start::Beginning).build().await?;
    while let Some(record) = consumer.next().await {
        println!("{:?}", record?.value);
    }
    Ok(())
}

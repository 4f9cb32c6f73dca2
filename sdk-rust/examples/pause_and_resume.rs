//! Holds a partition back while something else is slow, and goes on with it.
//!
//! `cargo run --release --example pause_and_resume -- millpond://localhost:9440?fp=sha256:...`
#![expect(clippy::print_stdout, reason = "it shows what happens")]

use millpond::{Client, Consumer, CreateTopic, Error, Record, Start};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let url = std::env::args().nth(1).expect("the URL of a broker");
    let client = Client::connect(&url).await?;
    client.admin().ensure_topic(CreateTopic { name: "work".to_owned(), partitions: 2, ..CreateTopic::default() }).await?;

    let producer = client.producer("work").build().await?;
    for number in 0..6 {
        drop(producer.enqueue(Record::new(format!("job {number}")).with_partition(number % 2)).await?);
    }
    producer.close().await?;

    let mut consumer = client.consumer("work").start(Start::Beginning).build().await?;
    consumer.pause(0)?;
    println!("while partition 0 is paused: {}", three(&mut consumer).await?);
    println!("it waits at offset {}", consumer.position(0).unwrap_or(-1));
    consumer.resume(0).await?;
    println!("afterwards: {}", three(&mut consumer).await?);
    client.close().await;
    Ok(())
}

async fn three(consumer: &mut Consumer) -> Result<String, Error> {
    let mut values = Vec::new();
    while values.len() < 3
        && let Some(record) = consumer.next().await.transpose()?
    {
        values.push(String::from_utf8_lossy(&record.value.unwrap_or_default()).into_owned());
    }
    Ok(values.join(", "))
}

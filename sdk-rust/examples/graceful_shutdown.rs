//! Ends as a service should: on SIGTERM the work at hand is done, what was sent is stored, nothing hangs.
//!
//! `cargo run --release --example graceful_shutdown -- millpond://localhost:9440?fp=sha256:...`
#![expect(clippy::print_stdout, reason = "it shows what happens")]

use millpond::{Client, CreateTopic, Record, Start};
use std::error::Error;
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let url = std::env::args().nth(1).ok_or("the URL of a broker is missing")?;
    let mut stop = signal(SignalKind::terminate())?;
    let client = Client::connect(&url).await?;
    for topic in ["orders", "receipts"] {
        client.admin().ensure_topic(CreateTopic { name: topic.to_owned(), partitions: 1, ..CreateTopic::default() }).await?;
    }
    let receipts = client.producer("receipts").build().await?;
    let mut orders = client.consumer("orders").start(Start::Beginning).build().await?;
    println!("ready");
    let mut next = 0;
    loop {
        // Either may be dropped at any point: no record is lost by that.
        let order = tokio::select! {
            order = orders.next() => order.transpose()?,
            _ = stop.recv() => None,
        };
        let Some(order) = order else { break };
        let receipt = Record::new(format!("receipt for {}", order.offset));
        drop(receipts.enqueue(order.key.into_iter().fold(receipt, Record::with_key)).await?);
        next = order.offset + 1;
    }
    // Every receipt is stored behind this.
    receipts.close().await?;
    client.close().await;
    println!("{} receipts are stored, next is offset {next}", receipts.stats().records);
    Ok(())
}

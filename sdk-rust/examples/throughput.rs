//! Records a second of this client, for benchmarks of the language packages beside it: `throughput URL TOPIC RECORDS BYTES WORK`.
//!
//! `WORK` is `produce`, `consume` (one by one) or `batches`; records are made with a value of so many bytes, and read from the beginning of the topic.
//! Prints one number, which connecting is no part of.

use bytes::Bytes;
use millpond::{Client, Error, Record, Start};
use std::{env, process, time::Instant};

#[tokio::main(worker_threads = 2)]
async fn main() -> Result<(), Error> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [url, topic, records, bytes, work] = arguments.as_slice() else { usage() };
    let (Ok(records), Ok(bytes)) = (records.parse::<u32>(), bytes.parse::<usize>()) else { usage() };

    let client = Client::connect(url).await?;
    let began = Instant::now();
    let total = match work.as_str() {
        "produce" => produce(&client, topic, records, bytes).await?,
        "consume" => one_by_one(&client, topic, records).await?,
        "batches" => by_batch(&client, topic, records).await?,
        _ => usage(),
    };
    let rate = f64::from(records) / began.elapsed().as_secs_f64();
    assert_eq!(total, records as usize * bytes, "every byte is there");
    #[expect(clippy::print_stdout, reason = "it is what it is for")]
    let () = println!("{rate:.0}");
    client.close().await;
    Ok(())
}

fn usage() -> ! {
    eprintln!("usage: throughput URL TOPIC RECORDS BYTES produce|consume|batches");
    process::exit(2);
}

/// Makes so many records, and says how many bytes their values have.
async fn produce(client: &Client, topic: &str, records: u32, bytes: usize) -> Result<usize, Error> {
    let value = Bytes::from(vec![b'x'; bytes]);
    let producer = client.producer(topic).build().await?;
    for _ in 0..records {
        drop(producer.enqueue(Record::new(value.clone())).await?);
    }
    producer.close().await?;
    Ok(records as usize * bytes)
}

/// Reads so many records, and says how many bytes their values have.
async fn one_by_one(client: &Client, topic: &str, records: u32) -> Result<usize, Error> {
    let mut consumer = client.consumer(topic).start(Start::Beginning).build().await?;
    let (mut read, mut total) = (0, 0);
    while read < records {
        let Some(record) = consumer.next().await.transpose()? else { break };
        read += 1;
        total += record.value.map_or(0, |value| value.len());
    }
    Ok(total)
}

async fn by_batch(client: &Client, topic: &str, records: u32) -> Result<usize, Error> {
    let mut consumer = client.consumer(topic).start(Start::Beginning).build().await?;
    let (mut read, mut total) = (0, 0);
    while read < records {
        let Some(batch) = consumer.next_batch().await.transpose()? else { break };
        for record in batch {
            read += 1;
            total += record?.value.map_or(0, |value| value.len());
        }
    }
    Ok(total)
}

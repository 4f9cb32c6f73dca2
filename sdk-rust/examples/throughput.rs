//! Records a second of this client, for benchmarks of the language packages beside it: `throughput URL TOPIC RECORDS BYTES`.
//!
//! Prints one JSON object, with records a second for producing, and for consuming one by one and by batch.

use bytes::Bytes;
use millpond::{Client, Error, Record, Start};
use std::{env, time::Instant};

#[tokio::main(worker_threads = 2)]
async fn main() -> Result<(), Error> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [url, topic, records, bytes] = arguments.as_slice() else {
        eprintln!("usage: throughput URL TOPIC RECORDS BYTES");
        std::process::exit(2);
    };
    let number = |text: &String| text.parse::<usize>().unwrap_or_else(|_| panic!("{text} is not a number"));
    let (records, value) = (number(records), Bytes::from(vec![b'x'; number(bytes)]));

    let client = Client::connect(url).await?;
    let producer = client.producer(topic.as_str()).build().await?;
    let began = Instant::now();
    for _ in 0..records {
        drop(producer.enqueue(Record::new(value.clone())).await?);
    }
    producer.close().await?;
    let producing = began.elapsed();

    let began = Instant::now();
    assert_eq!(one_by_one(&client, topic, records).await?, records * value.len(), "every byte is there");
    let consuming = began.elapsed();
    let began = Instant::now();
    assert_eq!(by_batch(&client, topic, records).await?, records * value.len(), "every byte is there");
    let consuming_batches = began.elapsed();
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let rate = |time: std::time::Duration| (records as f64 / time.as_secs_f64()).round();
    #[expect(clippy::print_stdout, reason = "it is what it is for")]
    let () = println!(
        "{{\"produce\": {}, \"consume\": {}, \"consume batches\": {}}}",
        rate(producing),
        rate(consuming),
        rate(consuming_batches)
    );
    client.close().await;
    Ok(())
}

/// Reads so many records, and says how many bytes their values have.
async fn one_by_one(client: &Client, topic: &str, records: usize) -> Result<usize, Error> {
    let mut consumer = client.consumer(topic).start(Start::Beginning).build().await?;
    let (mut read, mut total) = (0, 0);
    while read < records {
        let Some(record) = consumer.next().await.transpose()? else { break };
        read += 1;
        total += record.value.map_or(0, |value| value.len());
    }
    Ok(total)
}

async fn by_batch(client: &Client, topic: &str, records: usize) -> Result<usize, Error> {
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

//! Loads a CSV file into a topic, with a progress bar: a record for each line, as JSON, with its first column as the key.
//!
//! `cargo run --release --example load_csv -- millpond://localhost:9440?fp=sha256:... file.csv topic`
//!
//! Columns are split at commas: a file with quotes wants the crate `csv`.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "it shows what happens")]

use millpond::{Client, Codec, CreateTopic, Record};
use std::{
    error::Error,
    fs::File,
    io::{BufRead, BufReader, IsTerminal},
    time::{Duration, Instant},
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, path, topic] = arguments.as_slice() else { return Err("usage: URL FILE.csv TOPIC".into()) };
    let file = File::open(path)?;
    let mut bar = Bar::new(file.metadata()?.len());
    let mut lines = BufReader::new(file).lines();
    let columns = lines.next().transpose()?.ok_or("the file is empty")?;
    let columns: Vec<&str> = columns.split(',').collect();

    let client = Client::connect(url).await?;
    client.admin().ensure_topic(CreateTopic { name: topic.clone(), partitions: 1, ..CreateTopic::default() }).await?;
    let producer = client.producer(topic.as_str()).compression(Codec::Zstd).build().await?;
    for line in lines {
        let line = line?;
        let row: serde_json::Map<_, _> = columns.iter().map(ToString::to_string).zip(line.split(',').map(Into::into)).collect();
        let key = line.split(',').next().unwrap_or_default().to_owned();
        drop(producer.enqueue(Record::new(serde_json::to_vec(&row)?).with_key(key)).await?);
        bar.add(line.len() + 1);
    }
    producer.close().await?;
    bar.end();
    println!("{} records are stored in {topic}", producer.stats().records);
    client.close().await;
    Ok(())
}

/// A progress bar on stderr; only its last line where that is no terminal.
struct Bar {
    total: u64,
    done: u64,
    shown_at: Instant,
}

impl Bar {
    const CHARS: u64 = 40;
    const SHOWN_EVERY: Duration = Duration::from_millis(100);

    fn new(total: u64) -> Bar {
        Bar { total: total.max(1), done: 0, shown_at: Instant::now() }
    }

    fn add(&mut self, bytes: usize) {
        self.done += bytes as u64;
        if self.shown_at.elapsed() >= Self::SHOWN_EVERY && std::io::stderr().is_terminal() {
            eprint!("\r{}", self.line());
            self.shown_at = Instant::now();
        }
    }

    fn end(mut self) {
        self.done = self.total;
        eprintln!("\r{}", self.line());
    }

    fn line(&self) -> String {
        let filled = usize::try_from((self.done * Self::CHARS / self.total).min(Self::CHARS)).unwrap_or(0);
        format!("[{:<40}] {:3} %", "#".repeat(filled), (self.done * 100 / self.total).min(100))
    }
}

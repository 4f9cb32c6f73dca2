//! `millpond produce`: lines become records.
//!
//! ```text
//!  thread: reads, splits, parses  ──chunks──>  enqueues, waits for room  ──deliveries──>  awaits answers in order, prints them
//!           input.rs                            mod.rs                                     answers.rs
//! ```
//!
//! Each arrow is a bounded channel, so memory stays bounded however fast the input is. It promises that after an exit with 0 every
//! line is stored as the topic's durability asks, and that else the first line that is not is named.
//!
//! A line that is not a record, and a record that is refused, end the reading: what was sent by then is answered, and nothing behind is
//! sent. With `-o jsonl` each line that was sent or refused has one line in the output, in the order of the input.

mod answers;
mod input;
mod summary;

use crate::{
    config::{self, ByteSize, Span},
    connection::ClientArgs,
    failure::{Failure, Outcome},
    names, output,
    progress::RecordProgress,
    stdout::StdoutWriter,
};
use answers::{Answers, Refusal, Report, Sent};
use bytes::Bytes;
use clap::{Args, ValueEnum};
use input::{BadLine, Chunk, LineFormat, Numbered};
use millpond::{Client, Producer};
use millpond_protocol::compression::Codec;
use std::{
    fs::File,
    io::{self, IsTerminal, Read},
    ops::RangeInclusive,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};
use summary::Summary;
use tokio::{
    signal,
    sync::mpsc::{Receiver, Sender, channel},
};
use tokio_util::sync::CancellationToken;

/// Arguments of `millpond produce`.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ProduceArgs {
    /// The topic
    #[arg(value_parser = names::parse)]
    topic: String,
    /// Read this file instead of stdin
    #[arg(long, short = 'f', value_name = "PATH")]
    file: Option<PathBuf>,
    /// What a line is: text (the value, as it is) or jsonl (see below)
    #[arg(long, short = 'i', value_name = "FORMAT", value_enum, default_value_t = InputFormat::Text, hide_possible_values = true)]
    input: InputFormat,
    /// Print what became of each record, in the order of the input: jsonl (see below)
    #[arg(long, short = 'o', value_name = "FORMAT", value_enum, hide_possible_values = true)]
    output: Option<OutputFormat>,
    /// What stands between key and value in a line of text, such as `:`; without it lines are values
    #[arg(long, short = 'k', value_name = "TEXT")]
    key_separator: Option<String>,
    /// Store all records in this partition, whatever their keys
    #[arg(long, short = 'p', value_name = "N")]
    partition: Option<u32>,
    /// Compress batches: none, gzip, snappy, lz4 or zstd
    #[arg(long, short = 'c', value_name = "CODEC")]
    compression: Option<Codec>,
    /// Wait this long for more records before a batch is sent, such as 5ms
    #[arg(long, value_name = "TIME", value_parser = parse_linger)]
    linger: Option<Span>,
    /// Send a batch when it has grown to this size, such as 256KiB
    #[arg(long, value_name = "SIZE", value_parser = parse_batch_bytes)]
    batch_bytes: Option<ByteSize>,
    /// Give a record up that is not acknowledged in this time, sending again included, such as 2m
    #[arg(long, value_name = "TIME", value_parser = parse_delivery_timeout)]
    delivery_timeout: Option<Span>,
    /// Send nothing again: what is not answered when the connection is lost fails
    #[arg(long)]
    no_retry: bool,
    /// Write the summary as JSON to this file
    #[arg(long, value_name = "PATH")]
    stats_json: Option<PathBuf>,
    /// Write nothing to stderr but errors
    #[arg(long, short = 'q')]
    quiet: bool,
    #[command(flatten)]
    client: ClientArgs,
}

/// What a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum InputFormat {
    /// The value of a record, as it is
    Text,
    /// {"key","value","headers","timestamp","partition"}
    Jsonl,
}

/// How the answers are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum OutputFormat {
    /// {"partition","offset"}, with "dropped" if a transform left the record out and "error" if it was not stored
    Jsonl,
}

/// Runs `millpond produce`.
pub(crate) async fn run(arguments: ProduceArgs) -> Outcome {
    let format = arguments.line_format()?;
    let (input, input_bytes) = arguments.open_input()?;
    if let Some(path) = &arguments.stats_json {
        summary::check(path)?;
    }
    arguments.client.with(async |client| produce(&arguments, client, input, input_bytes, format).await).await
}

async fn produce(
    arguments: &ProduceArgs,
    client: &Client,
    input: Box<dyn Read + Send>,
    input_bytes: Option<u64>,
    format: LineFormat,
) -> Outcome {
    let producer = arguments.producer(client).await?;
    let output = arguments.output.map(|_| StdoutWriter::start()).transpose()?;
    let is_terminal = |stream: &dyn IsTerminal| stream.is_terminal();
    let typed = arguments.file.is_none() && is_terminal(&io::stdin());
    if typed && !arguments.quiet {
        output::note("Each line becomes a record; Ctrl-D ends.");
    }
    // Anything else that appears on the same terminal would run into the line.
    let disturbed = typed || (output.is_some() && is_terminal(&io::stdout()));
    let progress = RecordProgress::start(!disturbed && !arguments.quiet, input_bytes);
    let started = Instant::now();
    let (report, ended) = stream(arguments, &producer, input, format, Answers::new(output, progress)).await?;
    let summary = Summary::new(&report, &producer.stats(), started.elapsed());
    // Where nothing came of it, the error says all there is to say.
    if !arguments.quiet && (report.records > 0 || ended.is_ok() && !report.has_failed()) {
        output::note(summary.words());
    }
    if let Some(path) = &arguments.stats_json {
        summary.write(path)?;
    }
    report.outcome()?;
    ended
}

/// Moves everything from the input to the broker. Gives what was answered, and why it ended early if it did.
async fn stream(
    arguments: &ProduceArgs,
    producer: &Producer,
    input: Box<dyn Read + Send>,
    format: LineFormat,
    answers: Answers,
) -> Outcome<(Report, Outcome)> {
    let (chunks_out, mut chunks) = channel(CHUNKS_WAITING_MAX);
    // Not joined: it may wait for a line that never comes.
    thread::Builder::new()
        .name("input".to_owned())
        .spawn(move || input::read_all(input, &format, &chunks_out))
        .map_err(|error| Failure::new("can't start a thread").because(&error))?;
    let (sent_out, sent) = channel(CHUNKS_SENT_MAX);
    let refused = CancellationToken::new();
    let answering = tokio::spawn(answers.run(sent, refused.clone()));
    // Records of a chunk that is interrupted are answered like all others.
    let mut partial = Vec::new();
    let ended = tokio::select! {
        ended = enqueue_all(arguments.partition, producer, &mut chunks, &mut partial, &sent_out) => ended,
        () = refused.cancelled() => Ok(()),
        _ = signal::ctrl_c() => Err(Failure::new("interrupted: not all of the input was read").hint("what was read is stored")),
    };
    let finish = async {
        // Fails only if the answers are not waited for any more.
        let _ = sent_out.send(partial).await;
        drop(sent_out);
        // What could not be stored, the answers say for each record.
        let _ = producer.flush().await;
        answering.await
    };
    tokio::select! {
        report = finish => {
            let report = report.map_err(|error| Failure::new("waiting for the answers failed").because(&error))?;
            Ok((report, ended))
        }
        _ = signal::ctrl_c() => Err(Failure::new("interrupted before the broker had answered everything")),
    }
}

/// Takes records from the input until it ends, or until one is refused or a line is not a record.
async fn enqueue_all(
    partition: Option<u32>,
    producer: &Producer,
    chunks: &mut Receiver<Outcome<Chunk>>,
    partial: &mut Vec<Sent>,
    sent_out: &Sender<Vec<Sent>>,
) -> Outcome {
    while let Some(chunk) = chunks.recv().await {
        let Chunk { records, not_a_record, input_bytes } = chunk?;
        partial.reserve(records.len() + 1);
        for Numbered { line, mut record } in records {
            record.partition = record.partition.or(partition);
            let bytes = record.key.as_ref().map_or(0, Bytes::len) + record.value.as_ref().map_or(0, Bytes::len);
            let delivery = producer.enqueue(record).await.map_err(|error| Refusal::of_record(line, error));
            let is_refused = delivery.is_err();
            partial.push(Sent { line, bytes, input_bytes, delivery });
            if is_refused {
                return Ok(());
            }
        }
        if let Some(BadLine { line, failure }) = not_a_record {
            partial.push(Sent { line, bytes: 0, input_bytes, delivery: Err(Refusal::not_a_record(failure)) });
            return Ok(());
        }
        if sent_out.send(std::mem::take(partial)).await.is_err() {
            break;
        }
    }
    Ok(())
}

impl ProduceArgs {
    fn line_format(&self) -> Outcome<LineFormat> {
        match (self.input, &self.key_separator) {
            (InputFormat::Jsonl, Some(_)) => {
                Err(Failure::usage("--key-separator is for text").hint("with `-i jsonl` the key is the field `key`"))
            }
            (InputFormat::Jsonl, None) => Ok(LineFormat::Jsonl),
            (InputFormat::Text, Some(separator)) if separator.is_empty() => Err(Failure::usage("--key-separator is empty")),
            (InputFormat::Text, separator) => {
                Ok(LineFormat::Text { key_separator: separator.as_ref().map(|text| Bytes::copy_from_slice(text.as_bytes())) })
            }
        }
    }

    /// The input, and its size where it has one.
    fn open_input(&self) -> Outcome<(Box<dyn Read + Send>, Option<u64>)> {
        let Some(path) = &self.file else { return Ok((Box::new(io::stdin()), None)) };
        let unreadable = |error: io::Error| Failure::usage(format!("can't read {}", path.display())).because(&error);
        let file = File::open(path).map_err(unreadable)?;
        let status = file.metadata().map_err(unreadable)?;
        if status.is_dir() {
            return Err(Failure::usage(format!("{} is a folder", path.display())));
        }
        Ok((Box::new(file), Some(status.len()).filter(|_| status.is_file())))
    }

    async fn producer(&self, client: &Client) -> Outcome<Producer> {
        let mut builder = client.producer(self.topic.as_str());
        if let Some(codec) = self.compression {
            builder = builder.compression(codec);
        }
        if let Some(linger) = self.linger {
            builder = builder.linger(linger.0);
        }
        if let Some(size) = self.batch_bytes {
            builder = builder.batch_bytes(size.bytes());
        }
        if let Some(timeout) = self.delivery_timeout {
            builder = builder.delivery_timeout(timeout.0);
        }
        Ok(builder.retry(!self.no_retry).build().await?)
    }
}

fn parse_linger(text: &str) -> Result<Span, String> {
    text.parse::<Span>().map_err(|error| error.to_string())?.within(&LINGER)
}

fn parse_delivery_timeout(text: &str) -> Result<Span, String> {
    text.parse::<Span>().map_err(|error| error.to_string())?.within(&DELIVERY_TIMEOUT)
}

fn parse_batch_bytes(text: &str) -> Result<ByteSize, String> {
    text.parse::<ByteSize>().map_err(|error| error.to_string())?.within(&config::BATCH_BYTES)
}

/// A record that waits for longer is not waiting for company.
const LINGER: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_hours(1);

/// From less than a round trip to a day without a network.
const DELIVERY_TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_hours(24);

/// Chunks that were read and wait for the producer.
const CHUNKS_WAITING_MAX: usize = 8;

/// Chunks that were sent and wait for their answers. In bytes they are bounded by the producer's buffer.
const CHUNKS_SENT_MAX: usize = 256;

const EXAMPLES: &str = "\
With `-i jsonl` a line is {\"key\":…,\"value\":…,\"headers\":{…},\"timestamp\":…,\"partition\":…}; only the value is \
needed. Strings are stored as UTF-8, any other JSON as its text without blanks; `key_base64` and `value_base64` take other \
bytes. A timestamp is in milliseconds since 1970, or a text such as \"2026-01-01T00:00:00Z\". The output of `consume -o jsonl` \
can be fed in as it is. Blank lines are passed over.

With `-o jsonl` each record gets a line {\"partition\":0,\"offset\":7} once it is acknowledged, in the order of the input. A record \
that a transform left out has null for both and \"dropped\":true. Where the broker can't tell which records of a batch were left \
out, \"maybe_dropped\":true stands beside the place; where a transform made more of them, \"expanded\":true. One that was not \
stored has null for both, \"error\" with a code (not_a_record for a line that is none), \"line\" (from 1) and \"message\".

At the first line that is not a record, or that could not be stored, it stops reading and ends with exit code 1. Lines that were \
sent by then are stored all the same and have their answers; what is behind them in the input is not stored, and has none.

Examples:
  seq 1 100000 | millpond produce readings
  tail -f app.log | millpond produce logs --linger 50ms --compression zstd
  echo '{\"key\":\"a\",\"value\":{\"t\":21.5}}' | millpond produce readings -i jsonl -o jsonl";

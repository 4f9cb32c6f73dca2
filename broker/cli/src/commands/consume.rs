//! `millpond consume`: records become lines.
//!
//! Output is written in large blocks while records come fast, and at once when none are waiting, so that a live tail shows each
//! record as it comes. Memory is bounded by the SDK's read-ahead and by the few blocks that wait for stdout.
//!
//! A partition that can't be read any further, and a batch that can't be decoded, is told when it is met, and the rest is printed all the
//! same. That something was left out is what the exit code says in the end.

use crate::{
    connection::ClientArgs,
    failure::{Failure, Outcome},
    json_line::{self, Place},
    names,
    output::{self, counted, thousands},
    progress::RecordProgress,
    stdout::{self, BLOCK_BYTES, StdoutWriter},
};
use clap::{Args, ValueEnum};
use jiff::Timestamp;
use millpond::{Client, ConsumedRecord, Consumer, Start};
use std::{
    future::{Future, poll_fn},
    io::{self, IsTerminal},
    pin::pin,
    task::Poll,
};
use tokio::signal::{
    ctrl_c,
    unix::{SignalKind, signal},
};

/// Arguments of `millpond consume`.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ConsumeArgs {
    /// The topic
    #[arg(value_parser = names::parse)]
    topic: String,
    /// Begin with the first record that is still there
    #[arg(long, conflicts_with = "from")]
    from_beginning: bool,
    /// Where to begin: beginning, end, offset:N, time:2026-01-01T00:00:00Z or time:MILLISECONDS [default: end]
    #[arg(long, value_name = "PLACE", value_parser = parse_start)]
    from: Option<Start>,
    /// Only this partition; may be repeated
    #[arg(long, short = 'p', value_name = "N")]
    partition: Vec<u32>,
    /// The records as a view of the topic has them: modules filter or change them before they are sent
    #[arg(long, value_name = "NAME", value_parser = names::parse)]
    view: Option<String>,
    /// Stop at what is the end when the command starts, instead of waiting for more
    #[arg(long)]
    until_end: bool,
    /// Stop after this many records
    #[arg(long, short = 'n', value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    max: Option<u64>,
    /// How records are printed: text (the value, as it is, and a line break) or jsonl (see below)
    #[arg(long, short = 'o', value_name = "FORMAT", value_enum, default_value_t = Format::Text, hide_possible_values = true)]
    output: Format,
    #[command(flatten)]
    client: ClientArgs,
}

/// How records are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// The value as it is, and a line break
    Text,
    /// {"topic","partition","offset","timestamp","key","value","headers"}
    Jsonl,
}

/// Why there is nothing more to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Enough,
    Interrupted,
    /// Nobody reads stdout any more, or it can't be written to.
    OutputClosed,
}

/// Runs `millpond consume`.
pub(crate) async fn run(arguments: ConsumeArgs) -> Outcome {
    arguments.client.with(async |client| consume(&arguments, client).await).await
}

async fn consume(arguments: &ConsumeArgs, client: &Client) -> Outcome {
    let start = if arguments.from_beginning { Start::Beginning } else { arguments.from.unwrap_or(Start::End) };
    let mut builder = client.consumer(arguments.topic.as_str()).start(start).until_end(arguments.until_end);
    if let Some(view) = &arguments.view {
        builder = builder.view(view.as_str());
    }
    if !arguments.partition.is_empty() {
        builder = builder.partitions(arguments.partition.iter().copied());
    }
    let mut consumer = builder.build().await?;
    let mut printing = Printing::new(arguments, StdoutWriter::start()?);
    let ending = printing.run(&mut consumer).await;
    let (records, missed) = (printing.records, printing.missed);
    printing.finish().await?;
    if ending? == Ending::Interrupted && io::stderr().is_terminal() {
        // Behind the ^C that the terminal shows.
        output::note(format!("\n{}", counted(records, "record")));
    }
    missed.outcome(consumer.partitions().count() as u64)
}

/// What could not be printed.
#[derive(Clone, Copy, Debug, Default)]
struct Missed {
    /// Partitions that ended with an error.
    partitions: u64,
    /// Batches whose records can't be decoded, in partitions that went on.
    batches: u64,
}

impl Missed {
    fn outcome(self, partitions: u64) -> Outcome {
        let of_partitions = match self.partitions {
            0 => None,
            // The error has said it, and nothing went on.
            1 if partitions == 1 && self.batches == 0 => return Err(Failure::told()),
            missed => Some(format!("{} of {} can't be read to the end", thousands(missed), counted(partitions, "partition"))),
        };
        let of_batches = (self.batches > 0).then(|| format!("the records of {} can't be read", batches(self.batches)));
        let words: Vec<_> = [of_partitions, of_batches].into_iter().flatten().collect();
        if words.is_empty() { Ok(()) } else { Err(Failure::new(words.join(", and "))) }
    }
}

/// A number of batches in words.
fn batches(number: u64) -> String {
    if number == 1 { "one batch".to_owned() } else { format!("{} batches", thousands(number)) }
}

/// What is printed, and how much of it there was.
struct Printing {
    format: Format,
    records_max: u64,
    stdout: StdoutWriter,
    block: Vec<u8>,
    progress: RecordProgress,
    records: u64,
    bytes: u64,
    missed: Missed,
    /// The error that was told last: where a topic is gone, all its partitions say the same.
    told: String,
}

impl Printing {
    fn new(arguments: &ConsumeArgs, stdout: StdoutWriter) -> Printing {
        Printing {
            format: arguments.output,
            records_max: arguments.max.unwrap_or(u64::MAX),
            stdout,
            block: Vec::with_capacity(BLOCK_BYTES + BLOCK_BYTES / 4),
            progress: RecordProgress::start(!io::stdout().is_terminal(), None),
            records: 0,
            bytes: 0,
            missed: Missed::default(),
            told: String::new(),
        }
    }

    async fn run(&mut self, consumer: &mut Consumer) -> Outcome<Ending> {
        let failed = |error| Failure::new("can't listen for signals").because(&error);
        let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
        let mut reader_gone = pin!(stdout::reader_gone());
        while self.records < self.records_max {
            let mut next = pin!(consumer.next_batch());
            let batch = match poll_fn(|context| Poll::Ready(next.as_mut().poll(context))).await {
                Poll::Ready(batch) => batch,
                Poll::Pending => {
                    if !self.stdout.write(&mut self.block).await {
                        return Ok(Ending::OutputClosed);
                    }
                    tokio::select! {
                        batch = next => batch,
                        () = &mut reader_gone => return Ok(Ending::OutputClosed),
                        _ = ctrl_c() => return Ok(Ending::Interrupted),
                        _ = terminate.recv() => return Ok(Ending::Interrupted),
                    }
                }
            };
            let batch = match batch {
                None => break,
                Some(Ok(batch)) => batch,
                // It ends this partition. The consumer goes on with the others, and ends once there is none.
                Some(Err(error)) => {
                    self.missed.partitions += 1;
                    if !self.tell(error).await {
                        return Ok(Ending::OutputClosed);
                    }
                    continue;
                }
            };
            for record in batch {
                if self.records == self.records_max {
                    break;
                }
                let is_open = match record {
                    Ok(record) => self.print(&record).await,
                    // Behind that batch it goes on.
                    Err(error) => {
                        self.missed.batches += 1;
                        self.tell(error).await
                    }
                };
                if !is_open {
                    return Ok(Ending::OutputClosed);
                }
            }
        }
        Ok(Ending::Enough)
    }

    /// False when stdout is closed.
    async fn print(&mut self, record: &ConsumedRecord) -> bool {
        self.records += 1;
        self.bytes += record.value.as_ref().map_or(0, |value| value.len() as u64);
        write_record(&mut self.block, self.format, record);
        self.progress.update(self.records, self.bytes, 0);
        self.block.len() < BLOCK_BYTES || self.stdout.write(&mut self.block).await
    }

    /// Tells of an error, behind the records that came before it. False when stdout is closed.
    async fn tell(&mut self, error: millpond::Error) -> bool {
        let is_open = self.stdout.write(&mut self.block).await;
        let words = error.to_string();
        if self.told != words {
            self.progress.hide();
            Failure::from(error).tell();
            self.told = words;
        }
        is_open
    }

    async fn finish(mut self) -> Outcome {
        self.stdout.write(&mut self.block).await;
        self.progress.finish();
        self.stdout.finish().await
    }
}

fn write_record(out: &mut Vec<u8>, format: Format, record: &ConsumedRecord) {
    match format {
        Format::Text => {
            out.extend_from_slice(record.value.as_deref().unwrap_or_default());
            out.push(b'\n');
        }
        Format::Jsonl => {
            let place = Place { topic: &record.topic, partition: record.partition, offset: record.offset, timestamp: record.timestamp };
            let headers: Vec<_> = record.headers.iter().collect();
            json_line::write(out, place, record.key.as_deref(), record.value.as_deref(), &headers);
        }
    }
}

pub(crate) fn parse_start(text: &str) -> Result<Start, String> {
    match text.split_once(':') {
        None if text == "beginning" => Ok(Start::Beginning),
        None if text == "end" => Ok(Start::End),
        Some(("offset", number)) => match number.parse() {
            Ok(offset) if offset >= 0 => Ok(Start::Offset(offset)),
            _ => Err(format!("`{number}` is not an offset: it is a number from 0")),
        },
        Some(("time", time)) => match (time.parse::<i64>(), time.parse::<Timestamp>()) {
            (Ok(ms), _) => Ok(Start::Time(ms)),
            (_, Ok(time)) => Ok(Start::Time(time.as_millisecond())),
            _ => Err(format!("`{time}` is not a time: write 2026-01-01T00:00:00Z, or milliseconds since 1970")),
        },
        _ => Err("it is beginning, end, offset:N, time:2026-01-01T00:00:00Z or time:MILLISECONDS".to_owned()),
    }
}

const EXAMPLES: &str = "\
Without `--from` it waits for records that come from now on. Ctrl-C ends it.

Where a partition can't be read any further, as at a damaged place, that is told on stderr, and the others go on; in the end the exit \
code is 1.

With `-o jsonl` a line is {\"topic\",\"partition\",\"offset\",\"timestamp\",\"key\",\"value\",\"headers\"}. Where a key or value is \
not UTF-8, its base64 stands in `key_base64` or `value_base64` instead, and {\"base64\":…} in a header. A header that comes \
several times is an array. `produce -i jsonl` takes such lines.

Examples:
  millpond consume readings --from-beginning --until-end
  millpond consume readings --from offset:500 --partition 1 -o jsonl
  millpond consume readings --from time:2026-01-01T00:00:00Z --max 10";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_missed_is_summed_up_unless_there_was_nothing_else() {
        let words = |partitions, batches, of| Missed { partitions, batches }.outcome(of).err().map(|failure| failure.to_string());
        assert_eq!(words(0, 0, 3), None);
        assert_eq!(words(1, 0, 3).as_deref(), Some("1 of 3 partitions can't be read to the end"));
        assert_eq!(words(0, 1, 1).as_deref(), Some("the records of one batch can't be read"));
        assert_eq!(
            words(2, 3, 2).as_deref(),
            Some("2 of 2 partitions can't be read to the end, and the records of 3 batches can't be read")
        );
        assert_eq!(words(1, 0, 1), Some(Failure::told().to_string()));
    }

    #[test]
    fn a_place_to_begin_is_a_word_an_offset_or_a_time() {
        for (text, place) in [
            ("beginning", Start::Beginning),
            ("end", Start::End),
            ("offset:500", Start::Offset(500)),
            ("time:1767225600000", Start::Time(1_767_225_600_000)),
            ("time:2026-01-01T00:00:00Z", Start::Time(1_767_225_600_000)),
            ("time:2026-01-01T00:00:00.5+01:00", Start::Time(1_767_222_000_500)),
        ] {
            assert_eq!(parse_start(text), Ok(place), "{text}");
        }
        for text in ["", "start", "offset", "offset:", "offset:-1", "time:", "time:yesterday", "7"] {
            assert!(parse_start(text).is_err(), "{text}");
        }
    }
}

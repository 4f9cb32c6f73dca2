//! `millpond transform test`: a module on records from a file, in the broker's own host and under its limits, without a broker.
//!
//! ```text
//!  input.rs   JSON lines  --->  records, each with its line   --->  batches as a producer would make them
//!                                                                       |
//!             the host of broker/plugin: compiled, started, called      |  guest.rs
//!                                                                       v
//!  fate.rs    what became of each record: kept, changed, dropped, became several; or its partition
//!  derived.rs likewise for a module that derives topics: the topic of each record, and the state from batch to batch
//!                                                                       |
//!  expect.rs  what came out against what was expected               <---+--->  report.rs: the words
//! ```
//!
//! What a module may do where is asked of the broker's own rules, and what it returns is held against the same ones: records, well formed,
//! none behind the end of its batch. The clock is left out: records without a time get one after the other, so the same file gives the same
//! output.

mod derived;
mod expect;
mod fate;
mod guest;
mod input;
mod report;

use super::attach::LimitArgs;
use crate::{
    failure::{Failure, Outcome},
    logging, names,
    output::print,
};
use clap::{Args, ValueEnum};
use derived::DerivedArgs;
use fate::Output;
use guest::Guest;
use input::{Lines, Numbered};
use report::Report;
use std::{path::PathBuf, thread};

/// Arguments of `millpond transform test`.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct TestArgs {
    /// The .wasm file
    file: PathBuf,
    /// Records to be passed to the module: JSON lines, as `consume -o jsonl` writes them; only `value` is needed
    #[arg(long, value_name = "FILE")]
    input: PathBuf,
    /// The records that must come out, in the same format; a timestamp, a partition, or the name of a derived topic counts where a line has
    /// one
    #[arg(long, value_name = "FILE")]
    expect: Option<PathBuf>,
    /// What the module is told when it starts; may be repeated
    #[arg(long = "param", visible_alias = "params", value_name = "KEY=VALUE", value_parser = super::attach::parse_param)]
    params: Vec<(String, String)>,
    /// How many records the module gets at once, at most
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    batch: u32,
    /// The topic that the module is told
    #[arg(long, value_name = "TOPIC", default_value = "test", value_parser = names::parse)]
    topic: String,
    /// For a partitioner: how many partitions the topic has; with --into how many each topic has that says nothing else
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..))]
    partitions: u32,
    /// What becomes of records on which the module fails: reject (the test ends at the first one) or skip (they are found, told and left out, as
    /// a broker leaves them out with skip and dead-letter)
    #[arg(long, value_name = "WHAT", value_enum, default_value_t = OnFailure::Reject, hide_possible_values = true)]
    on_error: OnFailure,
    /// What is printed: text (what each record became), brief (a line for each batch) or jsonl (the records that come out)
    #[arg(long, short = 'o', value_name = "FORMAT", value_enum, default_value_t = Format::Text, hide_possible_values = true)]
    output: Format,
    #[command(flatten)]
    derived: DerivedArgs,
    #[command(flatten)]
    limits: LimitArgs,
}

/// What becomes of records on which the module fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum OnFailure {
    /// The test ends
    Reject,
    /// They are left out
    Skip,
}

/// What is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// What each record became
    Text,
    /// A line for each batch
    Brief,
    /// The records that come out, a JSON object each
    Jsonl,
}

/// Runs `millpond transform test`.
pub(super) fn run(arguments: TestArgs) -> Outcome {
    logging::start_module_test()?;
    // The compiler and the guest need more stack than the thread of a program is sure to have.
    let work = thread::Builder::new().stack_size(STACK_BYTES).spawn(move || test(&arguments));
    let work = work.map_err(|error| Failure::new("can't start a thread for the module").because(&error))?;
    work.join().unwrap_or_else(|_| Err(Failure::new("the test of the module came to no end").hint("the log above says why")))
}

fn test(arguments: &TestArgs) -> Outcome {
    let lines = Lines::read(&arguments.input)?;
    let expected = match &arguments.expect {
        Some(path) => Some((path, Lines::read(path)?.records()?)),
        None => None,
    };
    let records = lines.records()?;
    let (mut guest, started) = Guest::start(arguments)?;
    let mut report = Report::new(arguments.output, &arguments.topic);
    report.started(&arguments.file, &started);
    print(&report.take())?;
    let mut came: Vec<Output> = Vec::new();
    for batch in records.chunks(arguments.batch as usize) {
        pass(arguments, batch, &mut guest, &mut report, &mut came)?;
    }
    report.finish(records.len(), guest.state());
    print(&report.take())?;
    match expected {
        Some((path, expected)) => expect::compare(path, &expected, &came),
        None => Ok(()),
    }
}

/// Passes a batch to the module. Where it fails, and that is to be borne, the batch is taken apart down to the records on which it does: at the one
/// that it names, else in the middle. Each part is a batch of its own, in order.
fn pass(arguments: &TestArgs, batch: &[Numbered], guest: &mut Guest, report: &mut Report, came: &mut Vec<Output>) -> Outcome {
    let mut left = vec![batch];
    while let Some(part) = left.pop() {
        match guest.pass(arguments, part) {
            Ok(passed) => {
                report.batch(part, &passed);
                came.extend(passed.output);
            }
            Err(failed) if arguments.on_error == OnFailure::Reject => {
                report.flush_before_failure(guest.state());
                return Err(failed.failure);
            }
            Err(failed) => match (part, failed.record) {
                ([one], _) => {
                    report.failed(one, &failed.reason);
                    guest.leave_out(part);
                }
                (_, Some(index)) if index < part.len() => {
                    let parts = [&part[index + 1..], &part[index..=index], &part[..index]];
                    left.extend(parts.into_iter().filter(|part| !part.is_empty()));
                }
                _ => {
                    let (first, second) = part.split_at(part.len() / 2);
                    left.extend([second, first]);
                }
            },
        }
        print(&report.take())?;
    }
    Ok(())
}

/// As much as a thread of the broker that compiles and runs modules has.
const STACK_BYTES: usize = 2 << 20;

const _: () = assert!(STACK_BYTES >= millpond_plugin::THREAD_STACK_BYTES_MIN, "a guest's stack fits");

const EXAMPLES: &str = "\
Nothing is asked of a broker: the module runs here, in the same host and under the same limits. What it logs is on stderr. Exit code 1 says \
that it failed, or that something else came out than was expected. With --into it runs as on a derived topic with one partition: what it keeps \
lives as long as the test, and what it changes on a batch on which it fails is taken back.

Examples:
  millpond transform test hot.wasm --input readings.jsonl --param limit=80
  millpond transform test hot.wasm --input readings.jsonl -o jsonl > expected.jsonl
  millpond transform test hot.wasm --input readings.jsonl --expect expected.jsonl
  millpond transform test csv-to-json.wasm --input meters.jsonl --on-error skip
  millpond transform test changes.wasm --input readings.jsonl --into changed --state-bytes 1MiB
  millpond transform test route.wasm --input events.jsonl --into alarms,readings:12";

//! `millpond transform test`: a module on records from a file, in the broker's own host and under its limits, without a broker.
//!
//! ```text
//!  input.rs   JSON lines  --->  records, each with its line   --->  batches as a producer would make them
//!                                                                       |
//!             the host of broker/plugin: compiled, started, called      |  mod.rs
//!                                                                       v
//!  fate.rs    what became of each record: kept, changed, dropped, became several; or its partition
//!                                                                       |
//!  expect.rs  what came out against what was expected               <---+--->  report.rs: the words
//! ```
//!
//! What a module returns is held against the same rules as in a broker: records, well formed, none behind the end of its batch. The clock
//! is left out: records without a time get one after the other, so the same file gives the same output.

mod expect;
mod fate;
mod input;
mod report;

use super::{attach::LimitArgs, deploy::read_module};
use crate::{
    failure::{Failure, Outcome},
    logging, names,
    output::print,
};
use clap::{Args, ValueEnum};
use fate::Passed;
use input::{Lines, Prepared};
use millpond::Record;
use millpond_plugin::{ArtifactCache, BatchInfo, Module, Partitioner, PluginError, PluginHost, Transform, World};
use report::{Report, Started};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Instant,
};

/// Arguments of `millpond transform test`.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct TestArgs {
    /// The .wasm file
    file: PathBuf,
    /// Records to be passed to the module: JSON lines, as `consume -o jsonl` writes them; only `value` is needed
    #[arg(long, value_name = "FILE")]
    input: PathBuf,
    /// The records that must come out, in the same format; a timestamp or a partition counts where a line has one
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
    /// For a partitioner: how many partitions the topic has
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..))]
    partitions: u32,
    /// What is printed: text (what each record became), brief (a line for each batch) or jsonl (the records that come out)
    #[arg(long, short = 'o', value_name = "FORMAT", value_enum, default_value_t = Format::Text, hide_possible_values = true)]
    output: Format,
    #[command(flatten)]
    limits: LimitArgs,
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

/// A module that was started.
enum Guest {
    Transform(Transform),
    Partitioner(Partitioner),
}

fn test(arguments: &TestArgs) -> Outcome {
    let lines = Lines::read(&arguments.input)?;
    let expected = match &arguments.expect {
        Some(path) => Some((path, Lines::read(path)?.records()?)),
        None => None,
    };
    let records = lines.records()?;
    let (guest, started) = start(arguments)?;
    let mut report = Report::new(arguments.output);
    report.started(&arguments.file, &started);
    print(&report.take())?;
    let mut came: Vec<Record> = Vec::new();
    for batch in records.chunks(arguments.batch as usize) {
        let passed = pass(arguments, &guest, batch).inspect_err(|_| report.flush_before_failure())?;
        report.batch(&arguments.topic, came.len(), batch, &passed);
        came.extend(passed.into_output());
        print(&report.take())?;
    }
    report.finish(records.len());
    print(&report.take())?;
    match expected {
        Some((path, expected)) => expect::compare(path, &expected, &came, &arguments.topic),
        None => Ok(()),
    }
}

fn start(arguments: &TestArgs) -> Outcome<(Guest, Started)> {
    let wasm = read_module(&arguments.file)?;
    let refused = |error: &PluginError| failure(format!("{} can't be used as a module", arguments.file.display()), error);
    let begin = Instant::now();
    let host = PluginHost::new(Arc::new(NoCache)).map_err(|error| refused(&error))?;
    let module: Module = host.load(&wasm).map_err(|error| refused(&error))?.named(&name_of(&arguments.file));
    let compile = begin.elapsed();
    let limits = arguments.limits.plugin_limits();
    let begin = Instant::now();
    let guest = match module.world() {
        World::Transform => Transform::new(&host, &module, limits, &arguments.params).map(Guest::Transform),
        World::Partitioner => Partitioner::new(&host, &module, limits, &arguments.params).map(Guest::Partitioner),
        World::Derive => {
            let said = format!("{} derives topics, which `millpond transform test` can't run", arguments.file.display());
            return Err(Failure::new(said).hint("test it in its own project with `cargo test`; the guest SDK runs it there"));
        }
    };
    let guest = guest.map_err(|error| failure(format!("{} can't be started", arguments.file.display()), &error))?;
    let started = Started { world: module.world(), size_bytes: wasm.len() as u64, compile, start: begin.elapsed() };
    Ok((guest, started))
}

/// Passes one batch through the module.
fn pass(arguments: &TestArgs, guest: &Guest, batch: &[input::Numbered]) -> Outcome<Passed> {
    let prepared = Prepared::new(batch)?;
    let info = BatchInfo {
        topic: &arguments.topic,
        partition: matches!(guest, Guest::Transform(_)).then_some(0),
        base_timestamp: prepared.base_timestamp,
        record_count: u32::try_from(batch.len()).unwrap_or(u32::MAX),
    };
    let begin = Instant::now();
    let (passed, time) = match guest {
        Guest::Transform(transform) => {
            let output = transform.run(&info, &prepared.section);
            let time = begin.elapsed();
            (output.map(|output| Passed::transformed(&prepared, &output)), time)
        }
        Guest::Partitioner(partitioner) => {
            let partitions = partitioner.run(&info, &prepared.section, arguments.partitions);
            let time = begin.elapsed();
            (partitions.map(|partitions| Ok(Passed::placed(&prepared, partitions))), time)
        }
    };
    let memory_bytes_peak = match guest {
        Guest::Transform(transform) => transform.memory_bytes_peak(),
        Guest::Partitioner(partitioner) => partitioner.memory_bytes_peak(),
    };
    let mut passed = match passed {
        Ok(passed) => passed.map_err(|reason| {
            Failure::new(format!("what the module returned for {} would be refused by a broker", lines_of(batch)))
                .cause(reason)
                .hint("build the guest with the SDK for its language, it keeps to the contract")
        })?,
        Err(error) => {
            let index = match &error {
                PluginError::Guest { record_index: Some(index), .. } => batch.get(*index as usize),
                _ => None,
            };
            let place = index.map_or(lines_of(batch), |record| lines_of(std::slice::from_ref(record)));
            return Err(failure(format!("the module failed on {place} of {}", arguments.input.display()), &error));
        }
    };
    passed.time = time;
    passed.memory_bytes_peak = memory_bytes_peak as u64;
    Ok(passed)
}

/// Where a batch comes from.
fn lines_of(batch: &[input::Numbered]) -> String {
    match batch {
        [one] => format!("line {}", one.line),
        [first, .., last] => format!("lines {} to {}", first.line, last.line),
        [] => "no line".to_owned(),
    }
}

/// What the host said, as a person reads it here: there is no broker whose log could be looked into.
pub(super) fn failure(what: String, error: &PluginError) -> Failure {
    let failure = Failure::new(what).cause(error.to_string());
    match (error.backtrace(), error.hint()) {
        (Some(backtrace), _) => {
            failure.cause(backtrace.to_owned()).hint("what the module logged stands above; the innermost function is the first")
        }
        (None, Some(hint)) => failure.hint(hint),
        (None, None) => failure,
    }
}

fn name_of(file: &Path) -> String {
    file.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// Compiles anew each time: what is tested has changed.
#[derive(Debug)]
struct NoCache;

impl ArtifactCache for NoCache {
    fn load(&self, _key: &str) -> Option<Vec<u8>> {
        None
    }

    fn store(&self, _key: &str, _artifact: &[u8]) {}
}

/// As much as a thread of the broker that compiles and runs modules has.
const STACK_BYTES: usize = 2 << 20;

const _: () = assert!(STACK_BYTES >= millpond_plugin::THREAD_STACK_BYTES_MIN, "a guest's stack fits");

const EXAMPLES: &str = "\
Nothing is asked of a broker: the module runs here, in the same host and under the same limits. What it logs is on stderr. Exit code 1 says \
that it failed, or that something else came out than was expected.

Examples:
  millpond transform test hot.wasm --input readings.jsonl --param limit=80
  millpond transform test hot.wasm --input readings.jsonl -o jsonl > expected.jsonl
  millpond transform test hot.wasm --input readings.jsonl --expect expected.jsonl";

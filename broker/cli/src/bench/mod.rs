//! `millpond bench`: the limits of this machine, and Millpond against them, in one run.
//!
//! # What it promises
//!
//! - Each number of Millpond's stands beside the limit that it can't pass, measured in the same minute, in the same folder, with
//!   the same two processes on the same cores; the ratio of the two says more about Millpond than the number does.
//! - A limit and its cases take turns in several rounds, and the median of the rounds counts: on a shared machine a single run can
//!   be off by a factor of two.
//! - Records go through the SDK as a user's would: for throughput by `enqueue` with the producer's defaults, for latency without
//!   linger. A throughput case has 3 partitions, a latency case one. The broker is asked how many records it has; if one that was
//!   acknowledged is missing, the run fails. Group commit alone leaves the network out: its writers hand their batches to the engine.
//! - What misses its target is named at the end, and the command ends with 1.
//! - Nothing stays behind: broker, peer and folder go when the run ends, by Ctrl-C, SIGTERM or a terminal that goes away as well.
//!
//! # How the limits are measured
//!
//! | limit | is |
//! |---|---|
//! | `quinn_mb_s` | bulk transfer over one connection of raw quinn, half of the rounds in each direction, until all has arrived |
//! | `quinn_ping_*` | 1 KiB there and 16 bytes back, one after the other on one open stream: a producer keeps its stream open, too |
//! | `seq_write_mb_s` | 1 MiB writes to a new file, one fdatasync at the end, which is part of the time |
//! | `flushed_write_mb_s` | 512 KiB appended and flushed, one after the other: half of what `group_commit` has under way |
//! | `fdatasync_*` | 4 KiB appended and flushed, one after the other |
//!
//! | module | holds |
//! |---|---|
//! | `plan` | the cases, what each is held against, how long all takes |
//! | `rounds` | the order of the measurements |
//! | `raw`, `disk` | the limits |
//! | `broker`, `child` | the broker as a process of its own |
//! | `produce`, `consume`, `commit`, `latency`, `deploy`, `restart` | the cases |
//! | `modules` | what some of them run in the broker |
//! | `payload` | what is sent |
//! | `samples`, `report` | numbers, medians, table and JSON |
//! | `help` | all of this for whoever types `millpond bench --help` |

mod broker;
mod child;
mod commit;
mod consume;
mod deploy;
mod disk;
mod error;
mod help;
mod latency;
mod modules;
mod payload;
mod plan;
mod produce;
mod raw;
mod report;
mod restart;
mod rounds;
mod samples;

pub(crate) use error::BenchError;

use crate::{failure::Outcome, output::OutputArgs};
use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use modules::Modules;
use plan::{Case, Plan};
use report::Report;
use rounds::Rounds;
use std::{
    env, fs, io,
    io::Write as _,
    path::{Path, PathBuf},
    thread,
};
use tempfile::TempDir;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    task::JoinSet,
};

/// What `millpond bench` can be told.
#[derive(Args, Debug)]
#[command(after_help = help::SHORT, after_long_help = help::LONG)]
pub(crate) struct BenchArgs {
    /// Take less than 40 seconds, in short rounds
    #[arg(long)]
    quick: bool,
    #[command(flatten)]
    output: OutputArgs,
    /// Measure in a temporary folder in this one: on the disk that matters to you [default: the system's temporary folder]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Measure these cases alone, and the limits
    #[arg(long, value_name = "CASE", num_args = 1.., value_enum)]
    only: Vec<Case>,
    /// The transform for `produce_100b_json` [default: `drop-idle.wasm` from plugins/dist, or from beside the binary]
    #[arg(long, value_name = "FILE")]
    plugin: Option<PathBuf>,
    /// Seconds that each throughput measurement takes in each round [default: 3, or 0.7 with --quick]
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds)]
    seconds: Option<f64>,
    /// Serve the raw measurements of another bench process
    #[arg(long, hide = true)]
    raw_peer: bool,
}

impl BenchArgs {
    /// Whether this process is the peer of the raw measurements: then it stands where the broker stands in the others, and gets as
    /// many threads.
    pub(crate) fn is_in_place_of_a_broker(&self) -> bool {
        self.raw_peer
    }
}

/// Measures, and prints what it found.
pub(crate) async fn run(args: BenchArgs) -> Outcome {
    if args.raw_peer {
        return Ok(raw::serve().await?);
    }
    // On a worker, where the tasks of quinn and of the SDK run: otherwise each packet would wake another thread, and a latency would be
    // mostly that.
    let output = args.output;
    let signals = listen();
    let mut task = JoinSet::new();
    task.spawn(measure(args));
    let (report, heading) = tokio::select! {
        Some(outcome) = task.join_next() => match outcome {
            Ok(report) => report?,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        },
        interrupted = interrupted(signals) => {
            // Waits until processes and folder are gone.
            task.shutdown().await;
            return Err(interrupted.into());
        }
    };
    output.one(&report, |report| report.words(&heading))?;
    report.failure().map_or(Ok(()), Err)
}

/// The results, and a line for a person that says how they were measured.
async fn measure(args: BenchArgs) -> Result<(Report, String), BenchError> {
    let mut cases = if args.only.is_empty() { Case::ALL.to_vec() } else { args.only.clone() };
    let modules = Modules::find(&args, &mut cases)?;
    let folder = temporary_folder(args.data_dir.as_deref())?;
    if disk::is_in_memory(folder.path()) {
        note(&format!(
            "{} is in memory: what it says about the disk means nothing; choose another with --data-dir",
            folder.path().display()
        ));
    }
    let plan = if args.quick { Plan::QUICK } else { Plan::FULL };
    let plan = args.seconds.map_or(plan, |seconds| plan.with_seconds(seconds));
    let samples = Rounds::prepare(folder.path().to_owned(), plan, cases, modules).await?.run().await?;
    let report = Report::new(&samples, if args.only.is_empty() { &Case::ALL } else { &args.only });
    Ok((report, heading(plan, folder.path())))
}

fn temporary_folder(parent: Option<&Path>) -> Result<TempDir, BenchError> {
    let parent = parent.map_or_else(env::temp_dir, Path::to_owned);
    let create = || {
        fs::create_dir_all(&parent)?;
        tempfile::Builder::new().prefix("millpond-bench-").tempdir_in(&parent)
    };
    create().map_err(|source| BenchError::File { action: "create a folder in", path: parent.clone(), source })
}

fn heading(plan: Plan, folder: &Path) -> String {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    format!(
        "millpond {} on {cores} cores, in {}; {} rounds, {:.1} s for each throughput, {:.1} s for each latency",
        env!("CARGO_PKG_VERSION"),
        folder.parent().unwrap_or(folder).display(),
        plan.rounds,
        plan.throughput.as_secs_f64(),
        plan.latency.as_secs_f64()
    )
}

/// By Ctrl-C, by a supervisor, and by a terminal that goes away. From the moment of this on.
fn listen() -> io::Result<[Signal; 3]> {
    Ok([signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?, signal(SignalKind::hangup())?])
}

/// Ends when one of them comes.
async fn interrupted(signals: io::Result<[Signal; 3]>) -> BenchError {
    match signals {
        Ok([mut interrupt, mut terminate, mut hangup]) => {
            tokio::select! { _ = interrupt.recv() => {} _ = terminate.recv() => {} _ = hangup.recv() => {} }
        }
        // Signals then end the process as they always do.
        Err(error) => {
            tracing::warn!(%error, "an interrupted bench will leave its folder behind");
            std::future::pending::<()>().await;
        }
    }
    BenchError::Interrupted
}

/// On a terminal, on stderr; nothing in a pipe.
fn progress_bar(steps: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {msg}").unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::with_draw_target(Some(steps), ProgressDrawTarget::stderr()).with_style(style)
}

fn note(text: &str) {
    // Nobody can be told that stderr is closed.
    let _ = writeln!(io::stderr().lock(), "note: {text}");
}

/// From a tenth of a second, below which the numbers are noise, to a minute.
fn parse_seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.1..=60.0).contains(&seconds) => Ok(seconds),
        _ => Err("it is a number from 0.1 to 60".to_owned()),
    }
}

#[cfg(test)]
mod tests;

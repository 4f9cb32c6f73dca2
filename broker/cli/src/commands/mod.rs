//! One file for each command: its arguments, and what it does.

mod alter;
mod attachments;
pub(crate) mod completions;
pub(crate) mod config;
pub(crate) mod consume;
pub(crate) mod log;
pub(crate) mod produce;
pub(crate) mod serve;
mod shared;
mod space;
mod state;
pub(crate) mod topic;
pub(crate) mod transform;

use crate::{
    bench,
    cli::Command,
    failure::{Failure, Outcome},
    logging,
};
use std::{future::Future, thread, time::Duration};
use tokio::runtime::{Builder, Runtime};

/// Does what the command line says.
pub(crate) fn run(command: Command) -> Outcome {
    match command {
        Command::Serve(arguments) => serve::run(&arguments),
        Command::Topic(command) => client(topic::run(command)),
        Command::Produce(arguments) => client(produce::run(arguments)),
        Command::Consume(arguments) => client(consume::run(arguments)),
        Command::Transform(command) if command.is_offline() => transform::run_offline(command),
        Command::Transform(command) => client(transform::run(command)),
        Command::Log(command) => log::run(&command),
        Command::Bench(arguments) if arguments.is_in_place_of_a_broker() => on_workers(broker_workers(), bench::run(arguments)),
        Command::Bench(arguments) => client(bench::run(arguments)),
        Command::Config(command) => config::run(&command),
        Command::Completions(arguments) => completions::run(&arguments),
    }
}

/// Runs a command that talks to a broker.
fn client(work: impl Future<Output = Outcome>) -> Outcome {
    on_workers(CLIENT_WORKERS, work)
}

fn on_workers(workers: usize, work: impl Future<Output = Outcome>) -> Outcome {
    logging::start_client()?;
    let runtime = runtime(workers)?;
    let outcome = runtime.block_on(work);
    // A read from stdin that nobody waits for any more must not hold up the end.
    runtime.shutdown_timeout(RUNTIME_END_TIMEOUT);
    outcome
}

/// How many async workers a broker has on this machine.
fn broker_workers() -> usize {
    thread::available_parallelism().map_or(1, usize::from).max(BROKER_WORKERS_MIN)
}

fn runtime(workers: usize) -> Outcome<Runtime> {
    Builder::new_multi_thread()
        .worker_threads(workers)
        .enable_all()
        .build()
        .map_err(|error| Failure::new("can't start the threads of the runtime").because(&error))
}

/// One for the connection, one for the command's own work.
const CLIENT_WORKERS: usize = 2;

/// With a single worker, one long computation in a task would hold up everything.
const BROKER_WORKERS_MIN: usize = 2;

const RUNTIME_END_TIMEOUT: Duration = Duration::from_millis(100);

//! `millpond log`: the files of a data folder, looked at and mended without a broker.

mod dump;
mod offsets;
mod repair;
mod rows;
mod target;
mod verify;

use crate::{failure::Outcome, logging};
use clap::Subcommand;

/// Look into the files of a data folder, and mend them
#[derive(Debug, Subcommand)]
pub(crate) enum LogCommand {
    /// Print the batches or the records of segment files, and the entries of index files
    Dump(dump::DumpArgs),
    /// Check every batch, every index and every file name, and say what is wrong
    Verify(verify::VerifyArgs),
    /// Mend damage in the middle of a log, with the broker stopped
    Repair(repair::RepairArgs),
}

/// Runs `millpond log`.
pub(crate) fn run(command: &LogCommand) -> Outcome {
    logging::start_client()?;
    match command {
        LogCommand::Dump(arguments) => dump::run(arguments),
        LogCommand::Verify(arguments) => verify::run(arguments),
        LogCommand::Repair(arguments) => repair::run(arguments),
    }
}

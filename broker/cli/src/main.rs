//! `millpond`: the broker and every command that talks to one.
//!
//! | module | holds |
//! |---|---|
//! | [`cli`] | which commands there are |
//! | [`commands`] | one file for each: its arguments and what it does |
//! | [`config`] | the broker's configuration: keys, layers, where each value came from |
//! | [`names`] | what can be the name of a topic or of a module |
//! | [`connection`] | which broker a client command talks to |
//! | [`json_line`] | a record as a line of JSON |
//! | [`output`], [`stdout`] | results: tables and JSON, and the stream of records |
//! | [`progress`], [`logging`], [`failure`] | words on stderr, and the exit codes |
//! | [`folders`] | where a user's files belong |
//! | [`mod@bench`] | `millpond bench` |

#![forbid(unsafe_code)]
// They panic where nothing can be written, which must not end a broker: `output` and `logging` have what is used in their place.
#![deny(clippy::print_stdout, clippy::print_stderr)]

mod bench;
mod cli;
mod commands;
mod config;
mod connection;
mod failure;
mod folders;
mod json_line;
mod logging;
mod names;
mod output;
mod progress;
mod stdout;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    match commands::run(cli::Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

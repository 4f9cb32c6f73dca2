//! The command line: which commands there are. Each has its own arguments in its own file under `commands`.

use crate::{
    bench,
    commands::{completions, config, consume, log, produce, serve, topic, transform},
};
use clap::{Parser, Subcommand};

/// Millpond: partitioned logs at the edge, reached over QUIC, with WebAssembly beside them
#[derive(Debug, Parser)]
#[command(name = "millpond", version, after_help = EXAMPLES, disable_help_subcommand = true, args_override_self = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What `millpond` can do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the broker
    Serve(serve::ServeArgs),
    /// Create, list, describe, change and delete topics
    #[command(subcommand)]
    Topic(topic::TopicCommand),
    /// Store lines from stdin or a file as records
    Produce(produce::ProduceArgs),
    /// Print records as they come
    Consume(consume::ConsumeArgs),
    /// Deploy WebAssembly modules and attach them to topics
    #[command(subcommand)]
    Transform(transform::TransformCommand),
    /// Look into the files of a data folder, and mend them
    #[command(subcommand)]
    Log(log::LogCommand),
    /// Measure this machine's limits, and Millpond against them
    Bench(bench::BenchArgs),
    /// Show the configuration and where each value comes from
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Print a completion script for a shell
    Completions(completions::CompletionsArgs),
}

const EXAMPLES: &str = "\
Examples:
  millpond serve --data-dir ./data
  millpond topic create readings --partitions 3
  seq 1 100000 | millpond produce readings
  millpond consume readings --from-beginning --until-end

Results go to stdout, words and logs to stderr. In what is for a person, sizes are in KiB, MiB and GiB (powers of 1024), rates in MB/s \
(10^6 bytes a second), and values of the configuration are written as they would be typed. With `-o json` or `-o jsonl`, sizes are \
numbers of bytes.

Exit codes:
  0  done
  1  failed: the broker refused, could not be reached, or something broke on the way
  2  bad usage: an argument, a variable, the configuration or a file that they name can't be
     meant that way, which shows without asking a broker";

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}

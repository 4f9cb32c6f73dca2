//! The command line: which commands there are. Each has its own arguments in its own file under `commands`.

use crate::{
    bench,
    commands::{completions, config, consume, produce, serve, topic, transform},
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
    /// Create, list, describe and delete topics
    #[command(subcommand)]
    Topic(topic::TopicCommand),
    /// Store lines from stdin or a file as records
    Produce(produce::ProduceArgs),
    /// Print records as they come
    Consume(consume::ConsumeArgs),
    /// Deploy WebAssembly modules and attach them to topics
    #[command(subcommand)]
    Transform(transform::TransformCommand),
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

Exit codes: 0 done, 1 failed, 2 bad usage.";

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}

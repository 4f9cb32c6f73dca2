//! `millpond completions`: a script that teaches a shell the commands.

use crate::{cli::Cli, failure::Outcome, output};
use clap::{Args, CommandFactory};
use clap_complete::Shell;

/// Arguments of `millpond completions`.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Prints the script.
pub(crate) fn run(arguments: &CompletionsArgs) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Cli::command(), "millpond", &mut script);
    output::print(&String::from_utf8_lossy(&script))
}

const EXAMPLES: &str = "\
Examples:
  millpond completions bash > ~/.local/share/bash-completion/completions/millpond
  millpond completions fish > ~/.config/fish/completions/millpond.fish";

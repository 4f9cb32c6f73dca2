//! `millpond config`: what is in force, and why.

use crate::{
    config::{ConfigArgs, KEYS},
    failure::Outcome,
    output::{OutputArgs, Row},
};
use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::Value;

/// Show the configuration and where each value comes from
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Print every key with its value and where it comes from: default, file, environment or flag
    Show(ShowArgs),
}

/// Arguments of `millpond config show`.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ShowArgs {
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    config: ConfigArgs,
}

/// One key, as it is shown.
#[derive(Serialize)]
struct Shown {
    key: &'static str,
    value: Value,
    from: crate::config::Origin,
    about: &'static str,
}

impl Row for Shown {
    const HEADINGS: &'static [&'static str] = &["KEY", "VALUE", "FROM"];

    fn cells(&self) -> Vec<String> {
        vec![self.key.to_owned(), plain(&self.value), self.from.to_string()]
    }
}

/// Runs `millpond config`.
pub(crate) fn run(command: &ConfigCommand) -> Outcome {
    let ConfigCommand::Show(arguments) = command;
    let loaded = arguments.config.load()?;
    let shown =
        |key: &crate::config::Key| Shown { key: key.name, value: loaded.value(key.name), from: loaded.origin(key.name), about: key.about };
    arguments.output.list(&KEYS.iter().map(shown).collect::<Vec<_>>())
}

/// A value without the quotes and brackets of JSON.
fn plain(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) if items.is_empty() => "-".to_owned(),
        Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

const EXAMPLES: &str = "\
Later ones win: defaults, the file, the environment, flags. The key quic.listen, for example, is set
  in the file         [quic] and below it listen = \"0.0.0.0:9440\"
  in the environment  MILLPOND_QUIC__LISTEN=0.0.0.0:9440
  by a flag           --quic-listen 0.0.0.0:9440, or for any key --set quic.listen=0.0.0.0:9440

With `-o jsonl` each key is a line {\"key\",\"value\",\"from\":{\"kind\",\"name\"},\"about\"}; with `-o json` all of them are one \
array. A value is what it would be in the file (null where nothing is set); `kind` is default, file, environment or flag, and `name` \
says which file and line, which variable or which flag; a default has no name.

Examples:
  millpond config show --config /etc/millpond.toml
  MILLPOND_QUIC__LISTEN=0.0.0.0:9440 millpond config show -o jsonl";

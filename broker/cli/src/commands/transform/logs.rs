//! `millpond transform logs`: what a module has logged, and how it failed.
//!
//! Text that came from a guest is shown without what could drive a terminal, whatever the broker has let through.

use crate::{
    connection::ClientArgs,
    failure::{Failure, Outcome},
    names,
    output::{Format, OutputArgs, counted, escaped, note},
    stdout::{self, StdoutWriter},
};
use clap::Args;
use jiff::Timestamp;
use millpond::Client;
use millpond_protocol::message::{MODULE_LOG_LINES_MAX, ModuleLog, ModuleLogLine, ReadModuleLog};
use serde::Serialize;
use std::{
    fmt::Write,
    io::{self, IsTerminal},
    pin::pin,
    time::Duration,
};
use tokio::{
    signal::{
        ctrl_c,
        unix::{SignalKind, signal},
    },
    time::sleep,
};

/// Arguments of `millpond transform logs`.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct LogsArgs {
    /// The module, in all its versions
    #[arg(value_parser = names::parse)]
    module: String,
    /// Only what it logs on this topic
    #[arg(long, value_name = "TOPIC", value_parser = names::parse)]
    topic: Option<String>,
    /// Go on with what comes, until Ctrl-C
    #[arg(long, short = 'f')]
    follow: bool,
    /// How many of the last lines to show, or to begin with
    #[arg(
        long,
        short = 'n',
        value_name = "N",
        default_value_t = LINES_DEFAULT,
        value_parser = clap::value_parser!(u32).range(1..=i64::from(MODULE_LOG_LINES_MAX))
    )]
    limit: u32,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    client: ClientArgs,
}

/// A line for a program.
#[derive(Serialize)]
struct Told<'a> {
    module: &'a str,
    #[serde(flatten)]
    line: &'a ModuleLogLine,
}

/// What stands for lines that are not there any more, for a program.
#[derive(Serialize)]
struct Lost {
    lines_lost: u64,
}

/// Runs `millpond transform logs`.
pub(super) async fn logs(arguments: LogsArgs) -> Outcome {
    if arguments.follow && arguments.output.format() == Format::Json {
        return Err(Failure::usage("one JSON document has an end, and --follow has none").hint("write a line for each with `-o jsonl`"));
    }
    arguments.client.with(async |client| show(&arguments, client).await).await
}

async fn show(arguments: &LogsArgs, client: &Client) -> Outcome {
    let LogsArgs { module, topic, limit, output, .. } = arguments;
    let request = ReadModuleLog { module: module.clone(), topic: topic.clone(), lines_max: *limit, after: Vec::new() };
    let first = client.admin().module_log(request.clone()).await?;
    if output.format() == Format::Json {
        let told: Vec<_> = first.lines.iter().map(|line| Told { module, line }).collect();
        return output.one(&told, |_| String::new());
    }
    if first.lines.is_empty() && io::stdout().is_terminal() {
        note(format_args!("{module} has logged nothing yet where it is attached, and has not failed."));
    }
    let mut printing = Printing { module, format: output.format(), stdout: StdoutWriter::start()? };
    let printed = printing.print(&first).await;
    if arguments.follow && printed? {
        let request = ReadModuleLog { lines_max: MODULE_LOG_LINES_MAX, after: first.next, ..request };
        let followed = printing.follow(client, request).await;
        printing.stdout.finish().await?;
        return followed;
    }
    printing.stdout.finish().await
}

/// Where lines go, and how.
struct Printing<'a> {
    module: &'a str,
    format: Format,
    stdout: StdoutWriter,
}

impl Printing<'_> {
    async fn follow(&mut self, client: &Client, mut request: ReadModuleLog) -> Outcome {
        let failed = |error| Failure::new("can't listen for signals").because(&error);
        let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
        let mut reader_gone = pin!(stdout::reader_gone());
        loop {
            let more = async {
                sleep(POLL_INTERVAL).await;
                client.admin().module_log(request.clone()).await
            };
            let log = tokio::select! {
                log = more => log?,
                () = &mut reader_gone => return Ok(()),
                _ = ctrl_c() => return Ok(()),
                _ = terminate.recv() => return Ok(()),
            };
            if !self.print(&log).await? {
                return Ok(());
            }
            request.after = log.next;
        }
    }

    /// False when stdout is closed.
    async fn print(&mut self, log: &ModuleLog) -> Outcome<bool> {
        let mut block = String::new();
        if log.lines_lost > 0 {
            match self.format {
                Format::Jsonl => push_json(&mut block, &Lost { lines_lost: log.lines_lost })?,
                Format::Table | Format::Json => note(lost_words(log.lines_lost)),
            }
        }
        for line in &log.lines {
            match self.format {
                Format::Jsonl => push_json(&mut block, &Told { module: self.module, line })?,
                Format::Table | Format::Json => block.push_str(&words(self.module, line)),
            }
        }
        Ok(self.stdout.write(&mut block.into_bytes()).await)
    }
}

fn push_json<T: Serialize>(block: &mut String, value: &T) -> Outcome {
    let line = serde_json::to_string(value).map_err(|error| Failure::new("can't write a line as JSON").because(&error))?;
    block.push_str(&line);
    block.push('\n');
    Ok(())
}

fn lost_words(lines: u64) -> String {
    format!(
        "... {} lost here: the broker keeps the last ones of each attachment alone",
        if lines == 1 { "1 line is".to_owned() } else { format!("{} are", counted(lines, "line")) }
    )
}

/// A line for a person, and under it what is known of a failure.
fn words(module: &str, line: &ModuleLogLine) -> String {
    let ModuleLogLine { at_ms, level, topic, partition, on, view, version, message, failure } = line;
    let partition = partition.map(|partition| format!("[{partition}]")).unwrap_or_default();
    let view = view.as_ref().map(|view| format!(" {view}")).unwrap_or_default();
    let (level, at) = (level.name().to_uppercase(), time(*at_ms));
    let place = escaped(&format!("{topic}{partition} {on}{view} {module}@{version}")).into_owned();
    let mut words = format!("{at} {level:>5} {place}: {}\n", escaped(message));
    let Some(failure) = failure else { return words };
    // Writing to a String does not fail.
    let _ = writeln!(words, "    {}: {}", escaped(&failure.code), failure.batch);
    for line in failure.backtrace.iter().flat_map(|backtrace| backtrace.lines()) {
        let _ = writeln!(words, "    {}", escaped(line.trim_end()));
    }
    if failure.left_out > 0 {
        let _ = writeln!(words, "    {} before this one left out: too many in a second", counted(failure.left_out, "failure"));
    }
    words
}

/// To the millisecond.
fn time(at_ms: i64) -> String {
    Timestamp::from_millisecond(at_ms).map_or_else(|_| at_ms.to_string(), |at| at.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string())
}

/// How long to wait before asking for more.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

const LINES_DEFAULT: u32 = 100;

const EXAMPLES: &str = "\
The broker keeps the last lines of each attachment in memory, whatever its own log shows, until it stops or the module is detached; a new \
version goes on with the same ones. A failure has its batch and the functions of the module below it. With `-o jsonl`, lines that \
are lost while following are an object {\"lines_lost\":N}.

Examples:
  millpond transform logs drop-idle
  millpond transform logs drop-idle --topic readings --follow
  millpond transform logs drop-idle --limit 1000 -o jsonl";

#[cfg(test)]
mod tests {
    use super::*;
    use millpond_protocol::message::{AttachPoint, BatchCoordinates, LogLevel, ModuleFailure};

    fn line() -> ModuleLogLine {
        ModuleLogLine {
            at_ms: 1_767_225_600_007,
            level: LogLevel::Warn,
            topic: "readings".to_owned(),
            partition: Some(2),
            on: AttachPoint::Produce,
            view: None,
            version: 3,
            message: "too hot".to_owned(),
            failure: None,
        }
    }

    #[test]
    fn a_line_says_when_where_and_what() {
        assert_eq!(words("m", &line()), "2026-01-01T00:00:00.007Z  WARN readings[2] produce m@3: too hot\n");
        let of_view = ModuleLogLine { partition: None, on: AttachPoint::Fetch, view: Some("hot".to_owned()), ..line() };
        assert!(words("m", &of_view).contains(" readings fetch hot m@3: "));
    }

    #[test]
    fn a_failure_has_its_batch_and_the_functions_of_the_module_below_it() {
        let batch = BatchCoordinates { records: 2, base_offset: Some(7), ..BatchCoordinates::default() };
        let backtrace = Some("    0: 0x1 - m!deep\n    1: 0x2 - m!transform".to_owned());
        let failure = ModuleFailure { code: "guest_trapped".to_owned(), batch, backtrace, left_out: 1 };
        let told = words("m", &ModuleLogLine { level: LogLevel::Error, failure: Some(failure), ..line() });
        let expected = "    guest_trapped: 2 records from offset 7, base timestamp 0\n        0: 0x1 - m!deep\n        1: 0x2 - m!transform\n    \
                        1 failure before this one left out: too many in a second\n";
        assert!(told.ends_with(expected), "{told}");
    }

    #[test]
    fn nothing_of_a_guest_drives_the_terminal() {
        let hostile = "a\x1b[2J\nERROR forged\u{202e}\u{9b}";
        let failure = ModuleFailure { code: hostile.to_owned(), backtrace: Some(hostile.to_owned()), ..ModuleFailure::default() };
        let told = words("m", &ModuleLogLine { message: hostile.to_owned(), topic: hostile.to_owned(), failure: Some(failure), ..line() });
        assert!(told.chars().all(|c| c == '\n' || !c.is_control()) && !told.contains('\u{202e}'), "{told:?}");
        assert!(told.lines().next().is_some_and(|first| first.contains("a\\u{1b}[2J\\u{a}ERROR forged\\u{202e}\\u{9b}")), "{told}");
        assert_eq!(told.lines().count(), 4, "the backtrace has two lines: {told}");
    }

    #[test]
    fn what_is_lost_is_counted() {
        assert!(lost_words(1).starts_with("... 1 line is lost here") && lost_words(2_000).starts_with("... 2,000 lines are lost here"));
    }
}

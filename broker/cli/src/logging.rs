//! The log: always on stderr, so that results on stdout stay results.

use crate::{
    config::{LogFormat, LogLevel},
    failure::{Failure, Outcome, colours_on_stderr},
};
use std::{
    backtrace::{Backtrace, BacktraceStatus},
    env, io, panic,
    panic::PanicHookInfo,
    thread,
};
use tracing_subscriber::{EnvFilter, fmt};

/// Starts logging for the broker. `MILLPOND_LOG` (such as `debug` or `millpond_engine=trace,warn`) takes the place of the level.
pub(crate) fn start_broker(format: LogFormat, level: LogLevel) -> Outcome {
    // Libraries speak up only when something is wrong; every crate of ours begins with the same word.
    start(format, &format!("warn,millpond={}", level.name()))
}

/// Starts logging for a client command, which has its own words for what it does.
pub(crate) fn start_client() -> Outcome {
    start(LogFormat::Pretty, "warn")
}

/// Starts logging for a test of a module, whose own lines belong to what its author wants to see.
pub(crate) fn start_module_test() -> Outcome {
    start(LogFormat::Pretty, "warn,millpond::guest=debug")
}

fn start(format: LogFormat, default: &str) -> Outcome {
    let wanted = env::var(VARIABLE).ok().filter(|directives| !directives.is_empty());
    let filter = EnvFilter::try_new(wanted.as_deref().unwrap_or(default)).map_err(|error| {
        Failure::usage(format!("{VARIABLE} is not a log filter"))
            .because(&error)
            .hint("write a level (error, warn, info, debug, trace), or levels for modules such as `millpond_quic=debug,warn`")
    })?;
    let log = fmt().with_env_filter(filter).with_writer(io::stderr);
    match format {
        LogFormat::Pretty => log.compact().with_ansi(colours_on_stderr()).with_target(false).init(),
        LogFormat::Json => log.json().flatten_event(true).with_current_span(false).init(),
    }
    log_panics();
    Ok(())
}

/// From now on a panic is a line of the log like any other: a text of several lines from the standard library has no place in a log
/// of JSON. That a panic is caught (by a library that looks at an upload, by a task of its own) does not make it less of a mistake, so
/// it is always told. Where the filter leaves errors out, the standard library's own words are better than none.
fn log_panics() {
    let default = panic::take_hook();
    panic::set_hook(Box::new(move |info| if tracing::enabled!(tracing::Level::ERROR) { log_panic(info) } else { default(info) }));
}

fn log_panic(info: &PanicHookInfo<'_>) {
    let message = info.payload_as_str().unwrap_or("it has no message").replace('\n', " ");
    let place = info.location().map(ToString::to_string).unwrap_or_default();
    let (current, backtrace) = (thread::current(), Backtrace::capture());
    let thread = current.name().unwrap_or("-");
    if backtrace.status() == BacktraceStatus::Captured {
        tracing::error!(place, thread, %backtrace, "panicked: {message}");
    } else {
        tracing::error!(place, thread, "panicked: {message}");
    }
}

/// The variable that says what is logged, in the syntax of `tracing-subscriber`'s `EnvFilter`.
const VARIABLE: &str = "MILLPOND_LOG";

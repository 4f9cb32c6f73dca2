//! The log: always on stderr, so that results on stdout stay results.

use crate::{
    config::{LogFormat, LogLevel},
    failure::{Failure, Outcome, colours_on_stderr},
};
use std::{env, io};
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
    Ok(())
}

/// The variable that says what is logged, in the syntax of `tracing-subscriber`'s `EnvFilter`.
const VARIABLE: &str = "MILLPOND_LOG";

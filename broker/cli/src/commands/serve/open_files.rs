//! How many files the broker may have open: the more segment files stay open, the fewer are opened again.
//!
//! The system's usual soft limit of 1024 is for programs that wait with `select`, which can't count further; the hard one is what the
//! administrator means (getrlimit(2)). So the soft limit is raised to it.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::{debug, info, warn};

/// Raises the limit as far as it goes. Gives what holds from now on, or none if there is no limit.
pub(super) fn raise() -> Option<u64> {
    let before = getrlimit(Resource::Nofile);
    if before.current == before.maximum {
        debug!(limit = before.current, "open files");
        return before.current;
    }
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: before.maximum, maximum: before.maximum }) {
        warn!(limit = before.current, wanted = before.maximum, %error, "the limit on open files can't be raised");
        return before.current;
    }
    info!(from = before.current, to = before.maximum, "the limit on open files was raised");
    before.maximum
}

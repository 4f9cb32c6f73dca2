//! Where a user's files belong, by the XDG base directory specification.

use std::{
    env,
    path::{Path, PathBuf},
};

/// The data folder of a broker that was not given one: `$XDG_DATA_HOME/millpond`, else `~/.local/share/millpond`, else, for a
/// service without a home, `/var/lib/millpond`.
pub(crate) fn data() -> PathBuf {
    under("XDG_DATA_HOME", ".local/share").unwrap_or_else(|| PathBuf::from("/var/lib/millpond"))
}

/// Where a broker leaves its URL for clients of the same user: `$XDG_STATE_HOME/millpond`, else `~/.local/state/millpond`; none
/// without a home.
pub(crate) fn state() -> Option<PathBuf> {
    under("XDG_STATE_HOME", ".local/state")
}

/// The file with the URL of the local broker whose QUIC door has this port.
pub(crate) fn url_file(state: &Path, port: u16) -> PathBuf {
    state.join(format!("broker-{port}.url"))
}

/// The specification asks to ignore relative paths.
fn under(variable: &str, in_home: &str) -> Option<PathBuf> {
    let absolute = |variable| env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = absolute(variable).or_else(|| absolute("HOME").map(|home| home.join(in_home)))?;
    Some(base.join("millpond"))
}

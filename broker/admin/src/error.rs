//! Why the door could not open.

use std::{io, net::SocketAddr};
use thiserror::Error;

/// Why the door could not open. What goes wrong on a connection later is nobody's business but its client's.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AdminError {
    /// The address could not be listened on: taken, not of this machine, or not permitted.
    #[error("can't listen on TCP {address}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// The cause.
        source: io::Error,
    },
}

impl AdminError {
    /// What a person can do about it, if something is known to help.
    pub fn hint(&self) -> Option<String> {
        let AdminError::Bind { address, source } = self;
        match source.kind() {
            io::ErrorKind::AddrInUse => Some(format!(
                "the port is taken: stop whatever listens on TCP {} (perhaps another broker; `ss -tlpn` shows it), or listen on another port",
                address.port()
            )),
            io::ErrorKind::AddrNotAvailable => {
                Some(format!("{} is not an address of this machine; 127.0.0.1 is, and reaches only this machine", address.ip()))
            }
            io::ErrorKind::PermissionDenied if address.port() < 1024 => {
                Some("ports below 1024 need the capability CAP_NET_BIND_SERVICE; listen on a higher one".to_owned())
            }
            _ => None,
        }
    }
}

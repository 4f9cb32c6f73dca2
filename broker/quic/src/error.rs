//! Why the door could not open.

use std::{io, net::SocketAddr, path::PathBuf};
use thiserror::Error;

/// Why the door could not open. What goes wrong on a connection later is told to its client and to the log, never here.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum QuicError {
    /// The address could not be listened on: taken, not of this machine, or not permitted.
    #[error("can't listen on UDP {address}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// The cause.
        source: io::Error,
    },
    /// The bound socket could not be used.
    #[error("can't {operation} the UDP socket")]
    Socket {
        /// What was tried.
        operation: &'static str,
        /// The cause.
        source: io::Error,
    },
    /// A certificate or key file could not be read or written.
    #[error("can't {operation} {}", path.display())]
    TlsFile {
        /// What was tried.
        operation: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A certificate or key file is missing while others of its set are there.
    #[error("{} is missing", path.display())]
    TlsFileMissing {
        /// The file.
        path: PathBuf,
        /// What to do about it.
        hint: String,
    },
    /// A certificate or key file is damaged, or does not belong to the others.
    #[error("{} {reason}", path.display())]
    TlsFileDamaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, to be read after its name.
        reason: String,
        /// What to do about it.
        hint: String,
    },
    /// A name for the certificate is neither an IP address nor a DNS name.
    #[error("`{name}` can't stand in a certificate: it is neither an IP address nor a DNS name")]
    TlsName {
        /// The name.
        name: String,
    },
    /// A certificate could not be made.
    #[error("can't make a certificate")]
    TlsIssue {
        /// The cause.
        source: rcgen::Error,
    },
    /// The TLS library refused the certificate or the key.
    #[error("the TLS library refuses the certificate")]
    Tls {
        /// The cause.
        source: rustls::Error,
    },
}

impl QuicError {
    /// What a person can do about it, if something is known to help.
    pub fn hint(&self) -> Option<String> {
        match self {
            QuicError::Bind { address, source } => bind_hint(*address, source),
            QuicError::TlsFileMissing { hint, .. } | QuicError::TlsFileDamaged { hint, .. } => Some(hint.clone()),
            QuicError::TlsFile { path, source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Some(format!("let the user that runs the broker read and write {}", path.display()))
            }
            _ => None,
        }
    }
}

fn bind_hint(address: SocketAddr, source: &io::Error) -> Option<String> {
    match source.kind() {
        io::ErrorKind::AddrInUse => Some(format!(
            "the port is taken: stop whatever listens on UDP {} (perhaps another broker; `ss -ulpn` shows it), or listen on another port",
            address.port()
        )),
        io::ErrorKind::AddrNotAvailable => {
            Some(format!("{} is not an address of this machine; 127.0.0.1 reaches only this machine, 0.0.0.0 all networks", address.ip()))
        }
        io::ErrorKind::PermissionDenied if address.port() < 1024 => {
            Some("ports below 1024 need the capability CAP_NET_BIND_SERVICE; listen on a higher one".to_owned())
        }
        _ => None,
    }
}

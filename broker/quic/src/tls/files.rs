//! PEM files: read with a limit, written whole or not at all.

use crate::QuicError;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use std::{
    fs::{DirBuilder, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

/// A chain of certificates is some kilobytes.
const PEM_BYTES_MAX: u64 = 1 << 20;

/// Who may read a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Readers {
    /// Keys.
    Owner,
    /// Certificates.
    Everyone,
}

/// Where the files are.
pub(super) struct TlsPaths {
    pub(super) dir: PathBuf,
    pub(super) ca_certificate: PathBuf,
    pub(super) ca_key: PathBuf,
    pub(super) server_certificate: PathBuf,
    pub(super) server_key: PathBuf,
}

impl TlsPaths {
    pub(super) fn new(dir: &Path) -> TlsPaths {
        TlsPaths {
            dir: dir.to_owned(),
            ca_certificate: dir.join("ca.pem"),
            ca_key: dir.join("ca.key"),
            server_certificate: dir.join("server.pem"),
            server_key: dir.join("server.key"),
        }
    }
}

/// Makes the folder, for the owner alone, if it is not there.
pub(super) fn create_dir(dir: &Path) -> Result<(), QuicError> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed("create the folder", dir))
}

/// The certificates in a file, at least one.
pub(super) fn read_certificates(path: &Path, hint: &str) -> Result<Vec<CertificateDer<'static>>, QuicError> {
    let pem = read(path)?;
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|error| damaged(path, format!("is not a PEM file of certificates: {error}"), hint))?;
    if certificates.is_empty() {
        return Err(damaged(path, "holds no certificate".to_owned(), hint));
    }
    Ok(certificates)
}

/// The private key in a file.
pub(super) fn read_key(path: &Path, hint: &str) -> Result<PrivateKeyDer<'static>, QuicError> {
    let pem = read(path)?;
    warn_if_others_can_read(path);
    PrivateKeyDer::from_pem_slice(&pem).map_err(|error| damaged(path, format!("holds no private key: {error}"), hint))
}

/// A text file, whole.
pub(super) fn read_text(path: &Path, hint: &str) -> Result<String, QuicError> {
    String::from_utf8(read(path)?).map_err(|_| damaged(path, "is not a text file".to_owned(), hint))
}

/// Writes a file so that after a power cut it is there whole or not at all.
pub(super) fn write(path: &Path, text: &str, readers: Readers) -> Result<(), QuicError> {
    let temporary = path.with_added_extension("tmp");
    // A left-over of an interrupted start may have other permissions, and the mode below is for new files only.
    match std::fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("remove", &temporary)(error)),
        _ => {}
    }
    let mode = if readers == Readers::Owner { 0o600 } else { 0o644 };
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary).map_err(failed("create", &temporary))?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed("write", &temporary))?;
    std::fs::rename(&temporary, path).map_err(failed("put in place", path))?;
    let dir = path.parent().unwrap_or(Path::new("."));
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed("flush", dir))
}

/// What this machine is called, if it has a name.
pub(super) fn host_name() -> Option<String> {
    let name = ["/proc/sys/kernel/hostname", "/etc/hostname"].iter().find_map(|path| std::fs::read_to_string(path).ok())?;
    let name = name.trim();
    (!name.is_empty() && name != "(none)").then(|| name.to_owned())
}

fn read(path: &Path) -> Result<Vec<u8>, QuicError> {
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(PEM_BYTES_MAX).read_to_end(&mut bytes)).map_err(failed("read", path))?;
    Ok(bytes)
}

fn warn_if_others_can_read(path: &Path) {
    let Ok(metadata) = std::fs::metadata(path) else { return };
    let mode = metadata.permissions().mode();
    if mode & 0o077 != 0 {
        tracing::warn!(
            "other users of this machine can read the private key {0} (mode {1:03o}): `chmod 600 {0}`",
            path.display(),
            mode & 0o777
        );
    }
}

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> QuicError {
    let path = path.to_owned();
    move |source| QuicError::TlsFile { operation, path, source }
}

fn damaged(path: &Path, reason: String, hint: &str) -> QuicError {
    QuicError::TlsFileDamaged { path: path.to_owned(), reason, hint: hint.to_owned() }
}

//! Why the broker did not start, with a hint that fits.

use crate::failure::Failure;
use millpond_admin::AdminError;
use millpond_engine::{DirLock, EngineError};
use millpond_quic::QuicError;
use std::{io, path::Path};

/// The engine did not open the data folder.
pub(super) fn of_engine(error: &EngineError, data_dir: &Path) -> Failure {
    let failure = Failure::new("the broker did not start").because(error);
    let hint = match error {
        EngineError::DataDir { source, .. } => data_dir_hint(data_dir, source.kind()).or_else(|| error.hint()),
        _ => error.hint(),
    };
    hint.into_iter().fold(failure, Failure::hint)
}

/// A port could not be taken. Of a second broker by mistake, the folder that is in use says more than that.
pub(super) fn of_ports(failure: Failure, data_dir: &Path) -> Failure {
    // Where there is no file to lock, there is no other broker, and none is made to find out.
    let locked = if data_dir.join("lock").is_file() { DirLock::take(data_dir).err() } else { None };
    match locked {
        Some(error @ EngineError::Locked { .. }) => of_engine(&error, data_dir),
        _ => failure,
    }
}

/// The QUIC door did not open.
pub(super) fn of_door(error: &QuicError) -> Failure {
    let failure = Failure::new("the QUIC door did not open").because(error);
    error.hint().into_iter().fold(failure, Failure::hint)
}

/// The admin door did not open.
pub(super) fn of_admin(error: &AdminError) -> Failure {
    let failure = Failure::new("the admin door did not open").because(error);
    let hint = error.hint().map(|hint| hint + "; ").unwrap_or_default();
    failure.hint(format!("{hint}`admin.listen` (--admin-listen) is its address, and `off` leaves it shut"))
}

/// As [`of_door`], for the certificate that the configuration names.
pub(super) fn of_named_tls(error: &QuicError) -> Failure {
    let failure = Failure::usage("the QUIC door did not open").because(error);
    let failure = error.hint().into_iter().fold(failure, Failure::hint);
    failure.hint_if_none("`tls.cert` and `tls.key` name PEM files that the broker can read")
}

/// What helps against this kind of error of the file system, if something is known to.
fn data_dir_hint(data_dir: &Path, kind: io::ErrorKind) -> Option<String> {
    let in_the_way = || data_dir.ancestors().find(|path| path.exists() && !path.is_dir());
    let hint = match kind {
        io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory => {
            format!("{} is not a folder: name another place with --data-dir", in_the_way()?.display())
        }
        io::ErrorKind::NotFound => {
            let parent = data_dir.ancestors().find(|path| path.is_dir())?;
            format!("no folder can be made in {}: name another place with --data-dir", parent.display())
        }
        io::ErrorKind::PermissionDenied => format!(
            "let the user that runs the broker write in {} (`chown`), or name another place with --data-dir",
            data_dir.ancestors().find(|path| path.exists())?.display()
        ),
        io::ErrorKind::ReadOnlyFilesystem => format!(
            "{} lies on a file system that is mounted read-only: mount it for writing, or name another place with --data-dir",
            data_dir.display()
        ),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            format!("free some space on the file system of {}, or name another place with --data-dir", data_dir.display())
        }
        _ => return None,
    };
    Some(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hint_names_what_is_in_the_way() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("file");
        std::fs::write(&file, "").expect("written");
        for (data_dir, kind) in [(file.clone(), io::ErrorKind::AlreadyExists), (file.join("data"), io::ErrorKind::NotADirectory)] {
            let hint = data_dir_hint(&data_dir, kind).expect("a hint");
            assert!(hint.starts_with(&format!("{} is not a folder", file.display())), "{hint}");
        }
    }

    #[test]
    fn each_cause_has_a_hint_of_its_own() {
        let missing = Path::new("/proc/no-such-folder/data");
        let hint = |kind| data_dir_hint(missing, kind).expect("a hint");
        assert!(hint(io::ErrorKind::NotFound).starts_with("no folder can be made in /proc:"));
        assert!(hint(io::ErrorKind::PermissionDenied).contains("write in /proc (`chown`)"));
        assert!(
            hint(io::ErrorKind::ReadOnlyFilesystem).contains("/proc/no-such-folder/data lies on a file system that is mounted read-only")
        );
        assert!(hint(io::ErrorKind::StorageFull).starts_with("free some space"));
        assert_eq!(data_dir_hint(missing, io::ErrorKind::Other), None);
    }
}

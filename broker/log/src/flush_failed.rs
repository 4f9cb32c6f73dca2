//! The note that a flush has failed, so that the next opening does not take the system's word for what is on disk.
//!
//! After a failed fsync Linux marks the pages clean that it could not write, and goes on showing them: whoever reads the file sees bytes
//! that are not on disk, and the next fsync of them says yes ("Can Applications Recover from fsync Failures?", Rebello and others, 2020). A
//! restart of the broker alone changes nothing about that. What helps is to write the bytes once more, which makes the pages dirty again.
//!
//! ```text
//! flush-failed            in the manner of crate::sidecar, without a body
//! ```
//!
//! The note is written when the log latches, and by an opening that can't flush what it has walked. An opening that finds it, writes every
//! segment that a recovery reads once more, in place, before it syncs and counts them as durable, and removes the note when that has
//! worked. Twice is harmless, and so is a note that outlives a reboot. If the disk takes not even the note, nothing is known at the next
//! opening; it is then said in the log. The tries of one opening know of each other without it, by their common
//! [`RecoveryReport`](crate::RecoveryReport).

use std::io::{self, IoSlice};
use std::path::Path;

use crate::disk::{Disk, DiskFile, sync_names, write_all_at};
use crate::sidecar::write_sealed;

/// Notes that a flush has failed. Failing is logged: there is nothing else to be done.
pub(crate) fn note(disk: &dyn Disk, dir: &Path) {
    if let Err(error) = write_sealed(disk, &dir.join(FLUSH_FAILED), FLUSH_FAILED_HEADING, "") {
        tracing::error!(
            dir = %dir.display(), %error,
            "that a flush has failed can't be noted; restart the machine, not only the broker, before the log is opened again"
        );
    }
}

/// Whether a flush has failed since the log was opened last. Whatever is in the file: that it is there is enough.
pub(crate) fn is_noted(disk: &dyn Disk, dir: &Path) -> io::Result<bool> {
    disk.exists(&dir.join(FLUSH_FAILED))
}

/// What the note speaks of has been written and synced since.
pub(crate) fn forget(disk: &dyn Disk, dir: &Path) -> io::Result<()> {
    match disk.remove_file(&dir.join(FLUSH_FAILED)) {
        // On a full disk it could not be written.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed.and_then(|()| sync_names(disk, dir)),
    }
}

/// Writes a file of so many bytes once more, its length too.
pub(crate) fn rewrite(file: &dyn DiskFile, bytes: u64) -> io::Result<()> {
    file.set_len(bytes)?;
    let (mut at, mut chunk) = (0, Vec::new());
    while at < bytes {
        chunk.clear();
        let wanted = usize::try_from(bytes - at).unwrap_or(usize::MAX).min(CHUNK_BYTES);
        if file.read_at(&mut chunk, wanted, at)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        write_all_at(file, &mut [IoSlice::new(&chunk)], at)?;
        at += chunk.len() as u64;
    }
    Ok(())
}

/// The file that holds the note.
pub(crate) const FLUSH_FAILED: &str = "flush-failed";

const FLUSH_FAILED_HEADING: &str = "millpond flush failed 1";

/// Bytes that are written at once.
const CHUNK_BYTES: usize = 1 << 20;

//! Puts a segment that was written in the place of those that it was made from, in steps of which each can be the last.
//!
//! ```text
//!   1  4711.log.cleaned, .index.cleaned, .timeindex.cleaned    written, durable        the old log; an opening removes them
//!   2  compaction                                              durable: the intent     from here on an opening goes on
//!   3  4711.log.cleaned -> 4711.log, and the indexes           renamed                 readers get the new segment
//!      the folder                                              synced
//!   4  9012.log, 13337.log, and their indexes                  removed
//!      the folder                                              synced
//!   5  compaction                                              removed, durably        the new log
//! ```
//!
//! The intent says which segment is new, how many bytes it has, and which it replaces beside the one whose name it takes:
//!
//! ```text
//! millpond compaction 1
//! 00000000000000004711 65536
//! 00000000000000009012
//! 00000000000000013337
//! crc32c 1a2b3c4d
//! ```
//!
//! An opening that finds it has one of these before it, and knows which:
//!
//! | `.log.cleaned` | `.log` | then |
//! |---|---|---|
//! | is there | is there | the steps from 3 on |
//! | is there | is not | its segment was deleted meanwhile: the draft is removed |
//! | is not | has the bytes, or is not there | the steps from 4 on |
//! | is not | has others | a folder that was put together by hand: nothing is removed |
//!
//! # Readers
//!
//! One that has the old list of segments goes on with the old files, by handles that are opened before the first name changes and live as
//! long as the reader needs them. Cursors know the generation of their segment, and look their place up again in another one.

use std::fmt::Write;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::MutexGuard;

use crate::compact::write::{Drafted, cleaned_path, discard};
use crate::compact::{COMPACTION, Folders};
use crate::disk::{Disk, sync_names};
use crate::error::LogError;
use crate::folder::{INDEX, LOG, TIME_INDEX, file_path};
use crate::index::{Index, LazyFile};
use crate::log_start::remove_files;
use crate::open_files::PooledFile;
use crate::segment::{Content, Segment};
use crate::sidecar::{read_sealed, write_sealed};
use crate::verified::Verified;

/// What an opening goes on with.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Intent {
    base_offset: i64,
    bytes: u64,
    /// Base offsets of the segments that go.
    replaced: Vec<i64>,
}

/// How an exchange ended that did not work.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) error: LogError,
    /// Whether the folder may hold an intent that only the next opening resolves. Nothing more may be compacted until then.
    pub(super) is_half_done: bool,
}

/// Fails while the oldest segment is half deleted. What lies behind it must not be compacted then: a tombstone there may remove a value in it,
/// which a power cut may bring back. A deletion that is under way is none of that, which is what `changing` is for.
pub(super) fn refuse_half_deleted(folders: &Folders, changing: &MutexGuard<'_, ()>) -> Result<(), LogError> {
    let Some(segment) = folders.shared.half_deleted(changing) else { return Ok(()) };
    let source = io::Error::other("its deletion is not complete, and a power cut may bring it back");
    Err(LogError::io("compact", &segment.path(), source))
}

/// Puts the draft in the place of the segments that it was made from. None if one of them was deleted since; the draft is removed then.
pub(super) fn exchange(folders: &Folders, old: &[Arc<Segment>], draft: Drafted) -> Result<Option<Arc<Segment>>, Failed> {
    let changing = folders.shared.changing();
    let (disk, dir) = (&*folders.disk, folders.dir.as_path());
    refuse_half_deleted(folders, &changing).map_err(|error| {
        discard(disk, dir, draft.base_offset);
        Failed { error, is_half_done: false }
    })?;
    let current = folders.shared.segments();
    let is_current = |old: &Arc<Segment>| current.iter().any(|segment| segment.generation() == old.generation());
    if !old.iter().all(is_current) {
        discard(disk, dir, draft.base_offset);
        return Ok(None);
    }
    let replaced = old.iter().skip(1).map(|segment| segment.base_offset()).collect();
    let intent = Intent { base_offset: draft.base_offset, bytes: draft.bytes, replaced };
    announce(folders, old, &intent).map_err(|error| withdraw(disk, dir, &intent, error))?;

    let (from, to) = (cleaned_path(dir, intent.base_offset, LOG), file_path(dir, intent.base_offset, LOG));
    // If this fails, the old segments go on by their handles, and without their indexes.
    disk.rename(&from, &to).map_err(|source| withdraw(disk, dir, &intent, LogError::io("rename", &from, source)))?;
    let half_done = |error| Failed { error, is_half_done: true };
    let renamed = rename_indexes(disk, dir, intent.base_offset);
    let new = Arc::new(segment(folders, draft));
    folders.shared.replace(old, &new);
    renamed.and_then(|()| sync(disk, dir)).map_err(half_done)?;
    remove_replaced(disk, dir, &intent).map_err(half_done)?;
    for old in old {
        old.log().discard();
    }
    finish(disk, dir).map_err(half_done)?;
    Ok(Some(new))
}

/// Opens the old files for those who still read them, and writes the intent down.
fn announce(folders: &Folders, old: &[Arc<Segment>], intent: &Intent) -> Result<(), LogError> {
    let open = |segment: &Arc<Segment>| segment.file().map_err(|source| LogError::io("open", &segment.path(), source));
    let handles = old.iter().map(open).collect::<Result<Vec<_>, _>>()?;
    let path = folders.dir.join(COMPACTION);
    write_sealed(&*folders.disk, &path, HEADING, &intent.encode()).map_err(|source| LogError::io("write", &path, source))?;
    for (segment, file) in old.iter().zip(handles) {
        segment.mark_replaced(file);
    }
    Ok(())
}

/// Takes the intent back, and only then the draft: an intent that stays finds it.
fn withdraw(disk: &dyn Disk, dir: &Path, intent: &Intent, error: LogError) -> Failed {
    if let Err(undo) = finish(disk, dir) {
        tracing::warn!(error = undo.chain(), "a compaction that failed can't be taken back; the next opening completes it");
        return Failed { error, is_half_done: true };
    }
    discard(disk, dir, intent.base_offset);
    Failed { error, is_half_done: false }
}

/// The new segment, under its own names.
fn segment(folders: &Folders, draft: Drafted) -> Segment {
    let path = |extension| file_path(&folders.dir, draft.base_offset, extension);
    let index = |extension| LazyFile::new(Arc::clone(&folders.disk), path(extension));
    let offsets = Index::durable(index(INDEX), draft.offset_entries);
    let times = Index::durable(index(TIME_INDEX), draft.time_entries);
    let log = PooledFile::new(&folders.files, Arc::clone(&folders.disk), path(LOG));
    // Its batches were compared with their checksums on the way, or sealed here.
    let verified = Verified::new(folders.config.verify_on_read, 0);
    let content = Content { bytes: draft.bytes, max_timestamp: draft.max_timestamp, verified };
    Segment::assemble(draft.base_offset, log, offsets, times, content)
}

/// Completes, or takes back, an exchange that a crash has interrupted. To be called before the folder is looked at. Gives the files that
/// were removed.
pub(crate) fn resume(disk: &dyn Disk, dir: &Path) -> Result<Vec<PathBuf>, LogError> {
    let path = dir.join(COMPACTION);
    let exists = |path: &Path| disk.exists(path).map_err(|source| LogError::io("look for", path, source));
    if !exists(&path)? {
        return Ok(Vec::new());
    }
    // After a kill its name need not be durable, and names survive in no order: no change of others may outlive it.
    sync(disk, dir)?;
    let found = read_sealed(disk, &path, HEADING, BYTES_MAX).map_err(|source| LogError::io("read", &path, source))?;
    let mut removed = vec![path];
    if let Some(intent) = found.and_then(|body| Intent::decode(&body)) {
        let (draft, log) = (cleaned_path(dir, intent.base_offset, LOG), file_path(dir, intent.base_offset, LOG));
        let bytes_of = |path: &Path| disk.open(path, crate::OpenMode::Read).and_then(|file| file.size_bytes());
        let measured = |path: &Path| bytes_of(path).map_err(|source| LogError::io("open", path, source));
        let has_draft = exists(&draft)? && measured(&draft)? == intent.bytes;
        let completes = if has_draft { exists(&log)? } else { !exists(&log)? || measured(&log)? == intent.bytes };
        if completes {
            if has_draft {
                disk.rename(&draft, &log).map_err(|source| LogError::io("rename", &draft, source))?;
            }
            rename_indexes(disk, dir, intent.base_offset)?;
            sync(disk, dir)?;
            remove_replaced(disk, dir, &intent)?;
            removed.extend(intent.replaced.iter().map(|base| file_path(dir, *base, LOG)));
        } else {
            tracing::warn!(dir = %dir.display(), base_offset = intent.base_offset, "a compaction that was interrupted is taken back");
        }
    }
    finish(disk, dir)?;
    Ok(removed)
}

/// The segments that are in the folder beside the one that has replaced them, while an exchange is under way or was interrupted. None if
/// there is no exchange.
pub(crate) fn replaced_already(disk: &dyn Disk, dir: &Path) -> io::Result<Option<Vec<i64>>> {
    let path = dir.join(COMPACTION);
    if !disk.exists(&path)? {
        return Ok(None);
    }
    let intent = read_sealed(disk, &path, HEADING, BYTES_MAX)?.and_then(|body| Intent::decode(&body));
    let Some(intent) = intent else { return Ok(Some(Vec::new())) };
    let is_renamed = !disk.exists(&cleaned_path(dir, intent.base_offset, LOG))?;
    Ok(Some(if is_renamed { intent.replaced } else { Vec::new() }))
}

/// Gives the indexes their names, as far as they are there: before a crash some may have had them.
fn rename_indexes(disk: &dyn Disk, dir: &Path, base_offset: i64) -> Result<(), LogError> {
    for extension in [INDEX, TIME_INDEX] {
        let (from, to) = (cleaned_path(dir, base_offset, extension), file_path(dir, base_offset, extension));
        match disk.rename(&from, &to) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => return Err(LogError::io("rename", &from, source)),
            _ => {}
        }
    }
    Ok(())
}

fn remove_replaced(disk: &dyn Disk, dir: &Path, intent: &Intent) -> Result<(), LogError> {
    for base in &intent.replaced {
        remove_files(disk, dir, *base, &[LOG, INDEX, TIME_INDEX])?;
    }
    sync(disk, dir)
}

/// Removes the intent, durably.
fn finish(disk: &dyn Disk, dir: &Path) -> Result<(), LogError> {
    let path = dir.join(COMPACTION);
    match disk.remove_file(&path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => return Err(LogError::io("remove", &path, source)),
        _ => {}
    }
    sync(disk, dir)
}

fn sync(disk: &dyn Disk, dir: &Path) -> Result<(), LogError> {
    sync_names(disk, dir).map_err(|source| LogError::io("flush", dir, source))
}

impl Intent {
    fn encode(&self) -> String {
        let mut body = format!("{:020} {}", self.base_offset, self.bytes);
        for base in &self.replaced {
            // Writing to a string can't fail.
            let _ = write!(body, "\n{base:020}");
        }
        body
    }

    fn decode(body: &str) -> Option<Intent> {
        let mut lines = body.lines();
        let (base, bytes) = lines.next()?.split_once(' ')?;
        let base_offset = base.parse().ok().filter(|base| *base >= 0)?;
        let replaced = lines.map(|line| line.parse().ok().filter(|base| *base > base_offset)).collect::<Option<Vec<_>>>()?;
        Some(Intent { base_offset, bytes: bytes.parse().ok()?, replaced })
    }
}

const HEADING: &str = "millpond compaction 1";

/// More than the file ever has: 21 bytes for each segment of a group.
const BYTES_MAX: usize = 4 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compact::group::GROUP_SEGMENTS_MAX;

    #[test]
    fn the_intent_is_read_back_and_the_largest_one_fits() {
        let replaced = (1..i64::try_from(GROUP_SEGMENTS_MAX).expect("small")).map(|number| i64::MAX - 10_000 + number).collect();
        let largest = Intent { base_offset: 4711, bytes: u64::MAX, replaced };
        assert_eq!(Intent::decode(&largest.encode()).as_ref(), Some(&largest));
        assert!(largest.encode().len() + 100 < BYTES_MAX);
        let alone = Intent { base_offset: 0, bytes: 61, replaced: Vec::new() };
        assert_eq!(Intent::decode(&alone.encode()), Some(alone));
        for wrong in ["", "1", "x 1", "-1 5", "5 5\n4", "5 5\n5", "5 5\nx"] {
            assert_eq!(Intent::decode(wrong), None, "{wrong}");
        }
    }
}

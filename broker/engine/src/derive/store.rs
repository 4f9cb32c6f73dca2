//! Position, state and outputs of one attachment on one partition of its source, on disk: what makes its effects exactly once.
//!
//! ```text
//!   derived/ID/PARTITION.snapshot    all that commits up to a number have made; replaced atomically
//!   derived/ID/PARTITION.journal     the commits since, one behind the other (drawn in `frame`)
//! ```
//!
//! A commit holds the new position, the changes of the state and the batches for the targets, whole, in one frame. The one sync of that frame is
//! the moment at which all three have happened. Only then are the batches appended to the targets, where each is known by the id and the
//! sequence of its producer, so that what a crash leaves to be done again is done once. There is one commit at a time that the targets
//! may not have; the next one says that they have it, and so does a note behind it, which nobody waits for.
//!
//! ```text
//!   round ──> commit n, sync ──> targets, durable ──> applied n ──> round ──> commit n+1, sync ...
//!                   │                    │                │
//!                   │                    │                '── after a crash: nothing to do
//!                   │                    '── after a crash: the batches are appended again, and known there
//!                   '── after a crash before the sync: as if the round had never been
//! ```
//!
//! So nothing depends on whether a module gives the same answer twice: not on its version, its settings, or on how long it was let run.
//!
//! # After a crash
//!
//! The journal is read up to the first frame that is not whole or not the next one. What is behind that is a torn write, and no
//! one has acted on it; if a whole commit is found there all the same, the file is damaged in the middle, and nothing goes on: what was
//! committed is never forgotten in silence. What was read is written once more, to a new file, before anything follows from it: what a
//! process that has failed saw in the file need not be on the disk.
//!
//! The journal begins anew, behind a new snapshot, once it has [`JOURNAL_BYTES_MIN`] and twice what the state has. A journal whose frames
//! the snapshot has already is of no use, and is replaced by the next commit.
//!
//! # Bounds
//!
//! What both files may come to is [`file_bytes_max`]: by what a module is granted and may return, not by what it does. While one of them is
//! replaced there are two of it. A quota counts none of this; [`Store::file_bytes`] is told in the topic's description.
//!
//! No file is open between two calls. After an error the store in memory is of no use: it is opened again.

use super::frame::{Commit, Frame, HEADER_BYTES, Kind, Output, Snapshot};
use crate::{data_dir::read_whole, error::EngineError};
use bytes::Bytes;
use millpond_log::{Disk, OpenMode, write_all_at, write_atomically};
use millpond_plugin::KeyValues;
use millpond_protocol::batch::{BatchHeader, sequence_after};
use std::{
    collections::BTreeMap,
    io::IoSlice,
    path::{Path, PathBuf},
    sync::Arc,
};

/// What is known of one attachment on one partition.
#[derive(Debug)]
pub(crate) struct Store {
    disk: Arc<dyn Disk>,
    snapshot: PathBuf,
    journal: PathBuf,
    /// Of the last commit.
    number: u64,
    position: i64,
    /// The position that is on the disk: behind the other one after rounds without effect.
    position_committed: i64,
    /// For a target and a partition, the sequence with which the next batch begins.
    sequences: BTreeMap<(u32, u32), i32>,
    state: Arc<KeyValues>,
    /// Of the last commit, where the targets may not have them.
    pending: Vec<Output>,
    /// Bytes of frames in the journal; none where it is replaced by the next commit.
    journal_bytes: Option<u64>,
    /// How large the files are.
    snapshot_file_bytes: u64,
    journal_file_bytes: u64,
}

impl Store {
    /// Makes the first snapshot, durably: nothing was done yet, and this is where it begins. Blocking.
    pub(crate) fn create(disk: &dyn Disk, dir: &Path, partition: u32, position: i64) -> Result<(), EngineError> {
        let body = Snapshot::encode(position, [].into_iter(), ([].into_iter(), 0));
        write_snapshot(disk, &snapshot_path(dir, partition), 0, &body).map(drop)
    }

    /// Reads what was committed. Blocking.
    pub(crate) fn open(disk: Arc<dyn Disk>, dir: &Path, partition: u32) -> Result<Store, EngineError> {
        let (snapshot, journal) = (snapshot_path(dir, partition), dir.join(format!("{partition}.journal")));
        let lost = |reason: &str| EngineError::DerivedDamaged { path: snapshot.clone(), reason: reason.to_owned() };
        let bytes = read_whole(&*disk, &snapshot, FILE_BYTES_MAX)?.ok_or_else(|| lost("it is not there"))?;
        let bytes = Bytes::from(bytes);
        let (frame, length) = Frame::decode(&bytes).ok_or_else(|| lost("its checksum is wrong"))?;
        if frame.kind != Kind::Snapshot || length != bytes.len() {
            return Err(lost("it is no snapshot"));
        }
        let Snapshot { position, sequences, entries } = Snapshot::decode(frame.body).ok_or_else(|| lost("it can't be read"))?;
        let mut state = KeyValues::default();
        for (key, value) in entries {
            state.apply((key, Some(value)));
        }
        let mut store = Store {
            disk,
            snapshot,
            journal,
            number: frame.number,
            position,
            position_committed: position,
            sequences: sequences.into_iter().collect(),
            state: Arc::new(state),
            pending: Vec::new(),
            journal_bytes: None,
            snapshot_file_bytes: length as u64,
            journal_file_bytes: 0,
        };
        store.replay()?;
        Ok(store)
    }

    /// All records before this offset of the source have had their effect, or will have once the outputs are applied.
    pub(crate) fn position(&self) -> i64 {
        self.position
    }

    /// The position that a crash leaves.
    pub(crate) fn position_committed(&self) -> i64 {
        self.position_committed
    }

    /// How large both files are, in bytes.
    pub(crate) fn file_bytes(&self) -> u64 {
        self.snapshot_file_bytes + self.journal_file_bytes
    }

    pub(crate) fn state(&self) -> &Arc<KeyValues> {
        &self.state
    }

    /// Batches that were committed, and that the targets may not have.
    pub(crate) fn pending(&self) -> &[Output] {
        &self.pending
    }

    /// The sequence with which the next batch for this partition begins.
    pub(crate) fn next_sequence(&self, target: u32, partition: u32) -> i32 {
        self.sequences.get(&(target, partition)).copied().unwrap_or(0)
    }

    /// Makes a round durable, whole. Nothing may be pending. Blocking.
    pub(crate) fn commit(&mut self, commit: Commit) -> Result<(), EngineError> {
        assert!(self.pending.is_empty(), "the targets have what was committed before");
        let limit = JOURNAL_BYTES_MIN.max(2 * self.state.bytes());
        if self.journal_bytes.is_some_and(|bytes| bytes > limit) {
            self.write_snapshot()?;
        }
        let number = self.number + 1;
        let frame = Frame::encode(Kind::Commit, number, &commit.encode()).ok_or_else(|| EngineError::DerivedDamaged {
            path: self.journal.clone(),
            reason: "one round has more than 4 GiB".to_owned(),
        })?;
        self.append(&frame, true)?;
        self.take_over(number, commit);
        Ok(())
    }

    /// The targets have what is pending, durably. Blocking, but not on a sync.
    pub(crate) fn applied(&mut self) {
        self.pending.clear();
        // Without the note a crash would only have them look for it once more.
        if let Some(frame) = Frame::encode(Kind::Applied, self.number, &[]) {
            let _ = self.append(&frame, false);
        }
    }

    /// Records that have no effect: the position moves on, and is written with the next commit.
    pub(crate) fn pass(&mut self, position: i64) {
        self.position = position;
    }

    fn append(&mut self, frame: &[u8], sync: bool) -> Result<(), EngineError> {
        let failed = |source| EngineError::data_dir("write", &self.journal, source);
        let Some(at) = self.journal_bytes else {
            write_atomically(&*self.disk, &self.journal, frame).map_err(failed)?;
            self.journal_is_now(frame.len() as u64);
            return Ok(());
        };
        let file = self.disk.open(&self.journal, OpenMode::ReadWrite).map_err(failed)?;
        write_all_at(&*file, &mut [IoSlice::new(frame)], at).map_err(failed)?;
        if sync {
            file.sync_data().map_err(failed)?;
        }
        self.journal_is_now(at + frame.len() as u64);
        Ok(())
    }

    /// All its bytes are frames.
    fn journal_is_now(&mut self, bytes: u64) {
        (self.journal_bytes, self.journal_file_bytes) = (Some(bytes), bytes);
    }

    fn write_snapshot(&mut self) -> Result<(), EngineError> {
        let sequences: Vec<_> = self.sequences.iter().map(|(place, next)| (*place, *next)).collect();
        let body = Snapshot::encode(self.position, sequences.into_iter(), (self.state.iter(), self.state.len()));
        self.snapshot_file_bytes = write_snapshot(&*self.disk, &self.snapshot, self.number, &body)?;
        self.journal_bytes = None;
        Ok(())
    }

    fn take_over(&mut self, number: u64, commit: Commit) {
        self.number = number;
        (self.position, self.position_committed) = (commit.position, commit.position);
        let state = Arc::make_mut(&mut self.state);
        commit.changes.into_iter().for_each(|change| state.apply(change));
        for Output { target, partition, batch } in &commit.outputs {
            // Its bytes are ours, or have our checksum.
            if let Ok(header) = BatchHeader::parse(batch) {
                self.sequences.insert((*target, *partition), sequence_after(header.last_sequence(), 1));
            }
        }
        self.pending = commit.outputs;
    }

    /// Reads the commits since the snapshot, and sees to it that they are on the disk.
    fn replay(&mut self) -> Result<(), EngineError> {
        let Some(bytes) = read_whole(&*self.disk, &self.journal, FILE_BYTES_MAX)? else { return Ok(()) };
        let (bytes, mut at) = (Bytes::from(bytes), 0);
        self.journal_file_bytes = bytes.len() as u64;
        while let Some(length) = self.replay_frame(&bytes.slice(at..))? {
            at += length;
        }
        let rest = &bytes[at..];
        if let Some(number) = later_commit(rest, self.number) {
            let reason = format!("bytes from {at} on are damaged, and commit {number} lies behind them");
            return Err(EngineError::DerivedDamaged { path: self.journal.clone(), reason });
        }
        if at > 0 {
            if !rest.is_empty() {
                tracing::info!(path = %self.journal.display(), bytes = rest.len(), "the end of a journal was not written whole; it is cut off");
            }
            let failed = |source| EngineError::data_dir("write", &self.journal, source);
            write_atomically(&*self.disk, &self.journal, &bytes[..at]).map_err(failed)?;
            self.journal_is_now(at as u64);
        }
        Ok(())
    }

    /// Takes over the next frame, and says how many bytes it takes; none at the end.
    fn replay_frame(&mut self, bytes: &Bytes) -> Result<Option<usize>, EngineError> {
        // A note that all was applied is not synced, so it may be missing in front of a commit, which says the same.
        let behind_note = || Frame::decode(&bytes.slice(HEADER_BYTES.min(bytes.len())..)).filter(|(frame, _)| frame.kind == Kind::Commit);
        let found = Frame::decode(bytes).map(|found| (found, 0)).or_else(|| behind_note().map(|found| (found, HEADER_BYTES)));
        let Some(((Frame { kind, number, body }, length), missing)) = found else { return Ok(None) };
        match kind {
            Kind::Commit if number == self.number + 1 => self.replay_commit(number, body)?,
            Kind::Applied if number == self.number => self.pending.clear(),
            Kind::Commit | Kind::Applied | Kind::Snapshot => return Ok(None),
        }
        Ok(Some(missing + length))
    }

    fn replay_commit(&mut self, number: u64, body: Bytes) -> Result<(), EngineError> {
        let unread = || EngineError::DerivedDamaged { path: self.journal.clone(), reason: format!("commit {number} can't be read") };
        let commit = Commit::decode(body).ok_or_else(unread)?;
        self.take_over(number, commit);
        Ok(())
    }
}

/// A whole commit behind damage, with a number that the snapshot and the commits before the damage don't have.
fn later_commit(rest: &[u8], known: u64) -> Option<u64> {
    let mut checked_bytes = 0;
    for at in 0..rest.len().saturating_sub(HEADER_BYTES) {
        let Some((Kind::Commit, number, length)) = Frame::decode_header(&rest[at..]) else { continue };
        checked_bytes += length;
        if checked_bytes > SEARCH_BYTES_MAX {
            return None;
        }
        let is_whole = number > known && at + HEADER_BYTES + length <= rest.len();
        if is_whole && Frame::decode(&Bytes::copy_from_slice(&rest[at..at + HEADER_BYTES + length])).is_some() {
            return Some(number);
        }
    }
    None
}

fn snapshot_path(dir: &Path, partition: u32) -> PathBuf {
    dir.join(format!("{partition}.snapshot"))
}

/// Says how large the file is.
fn write_snapshot(disk: &dyn Disk, path: &Path, number: u64, body: &[u8]) -> Result<u64, EngineError> {
    let too_large = || EngineError::DerivedDamaged { path: path.to_owned(), reason: "it would have more than 4 GiB".to_owned() };
    let frame = Frame::encode(Kind::Snapshot, number, body).ok_or_else(too_large)?;
    write_atomically(disk, path, &frame).map_err(|source| EngineError::data_dir("write", path, source))?;
    Ok(frame.len() as u64)
}

/// What the files of one attachment on one partition may come to, in bytes, where its state may have so many and the outputs of one round,
/// packed as batches, so many.
///
/// The journal is appended to while it is within its limit, by one commit more: the new entries of the state, and the keys of all old ones. An
/// entry counts more in the state than it takes in a file.
pub(crate) const fn file_bytes_max(state_bytes: u64, output_bytes: u64) -> u64 {
    let journal = if 2 * state_bytes > JOURNAL_BYTES_MIN { 2 * state_bytes } else { JOURNAL_BYTES_MIN };
    let commit = 2 * state_bytes + output_bytes;
    let snapshot = state_bytes;
    journal + commit + snapshot + SMALL_BYTES_MAX
}

/// A journal has as much before it begins anew, and twice what the state has.
const JOURNAL_BYTES_MIN: u64 = 4 << 20;

/// What frames take beside what they hold: their headers, positions, and the sequence of each partition of each target.
const SMALL_BYTES_MAX: u64 = 1 << 20;

/// What is read of a file at most: the journal at its limit, and one commit of the largest output.
const FILE_BYTES_MAX: u64 = 1 << 32;

/// What is looked through behind damage: a state may hold bytes that look like the beginning of frames, as many as it likes.
const SEARCH_BYTES_MAX: usize = 64 << 20;

#[cfg(test)]
mod tests;

//! A piece of the disk that is kept for the broker itself, so that a full disk can still be cleaned up, stopped and started.
//!
//! It is a file of the data folder, `reserve`, written in full and synced: no other user of the file system can take its blocks, and no
//! batch is ever stored in them.
//!
//! ```text
//!           a step for cleaning up finds the disk full: the file is cut by an eighth, or else removed; the step is tried again
//!   whole ────────────────────────────────────────────────────────────────────────────────────────────────────────> a part of it
//!     ^                                                                                                                  │
//!     └──────────────────────────────────────────────────────────────────────────────────────────────────────────────────┘
//!           right behind the step, what it has left is written again; the rest once there is room for all of it
//! ```
//!
//! What a step does not need is not left free: others would take it, and with it the way to clean up after a `kill -9`. Only what is lent
//! is at stake, from the cut to the end of its being written again.
//!
//! The steps that may have it: changes of the catalogue but for a new topic, which is how a topic or a module is deleted; putting folders
//! aside; beginning a log with a later record; opening the data folder; a pass of a compaction; and closing logs in order. A part is lent
//! as the whole is. As long as it is not whole no batch is taken, or batches would use up what was meant for the next deletion.
//!
//! What is free is known from the file system, which may promise more than it gives: a user's quota, the metadata of btrfs. Then all of it
//! is written in vain, and flash wears out. So after a failure it is tried again once the broker has removed something, or after
//! [`PAUSE`], which makes 8 MiB a minute at most of the default size.
//!
//! Its size says how much of it there is. The last byte of the whole is written after all others are synced, so that a power cut does not
//! make one of a file with holes.
//!
//! Where a file system has less room than the reserve from the start, it says so, and a smaller one has to be configured.

use crate::error::is_no_room;
use millpond_log::{Disk, OpenMode, write_all_at};
use parking_lot::Mutex;
use std::{
    io::{self, IoSlice},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::time::Instant;

/// The reserve of one data folder.
#[derive(Debug)]
pub(crate) struct Reserve {
    disk: Arc<dyn Disk>,
    data_dir: PathBuf,
    /// How large the whole is; nothing where none is kept.
    bytes: u64,
    /// It is whole. Changed under `state`, and looked at without it: async workers ask, and files are cut under it.
    is_held: AtomicBool,
    state: Mutex<State>,
    /// Held while the file is changed, and while what it has given up is used: who writes it must not take that away. Whether it is not to
    /// be written at all for now.
    making: Mutex<bool>,
}

#[derive(Debug, Default)]
struct State {
    /// Bytes that are there of it.
    there: u64,
    /// Counts how often some of it was given up.
    given_up: u64,
    /// Whether it was said that it can't be made, since it was last whole.
    is_said: bool,
    /// When writing it has failed last, and what [`Space::removals`](crate::space::Space::removals) said before.
    failed: Option<(Instant, u64)>,
}

impl Reserve {
    /// The reserve of this data folder, as it was left. Blocking.
    pub(crate) fn open(disk: Arc<dyn Disk>, data_dir: &Path, bytes: u64) -> Reserve {
        let (is_held, state, making) = (AtomicBool::new(false), Mutex::default(), Mutex::default());
        let reserve = Reserve { disk, data_dir: data_dir.to_owned(), bytes, is_held, state, making };
        if reserve.size_bytes() > bytes {
            // A smaller one, or none, is configured now. Where that can't be had, it stays as it is.
            let _ = reserve.cut(bytes);
        }
        reserve.is_now(reserve.size_bytes());
        reserve
    }

    /// Whether batches may be stored: the reserve is there, or none is kept. Waits for nobody.
    pub(crate) fn is_held(&self) -> bool {
        self.bytes == 0 || self.is_held.load(Ordering::Acquire)
    }

    /// How large it is.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Does a step for cleaning up. Where it finds the disk full, it is done again with an eighth of the reserve, and then with all of it.
    /// What is left of that is held again at once.
    pub(crate) fn lend<T, E>(&self, is_full: impl Fn(&E) -> bool, mut step: impl FnMut() -> Result<T, E>) -> Result<T, E> {
        let before = self.state.lock().given_up;
        let mut outcome = step();
        if !outcome.as_ref().is_err_and(&is_full) {
            return outcome;
        }
        let is_paused = self.making.lock();
        let (there, given_up) = self.there();
        if given_up != before {
            // For another step, which may have left more room than there was.
            outcome = step();
        }
        for left in [there - there / 8, 0] {
            if outcome.as_ref().is_err_and(&is_full) && self.give_up(left) {
                outcome = step();
            }
        }
        let (left, _) = self.there();
        let again = self.reachable_bytes(left).min(there);
        if !*is_paused && again > left {
            // If others are faster, it is missing from then on: that is said when it is to be made for a batch.
            let _ = self.grow(left, again);
        }
        outcome
    }

    /// Before the logs are closed: on a disk with hardly any room, the reserve is what they are closed with. Until then it is not written
    /// again. Blocking.
    pub(crate) fn give_up_if_tight(&self) {
        let mut is_paused = self.making.lock();
        *is_paused = true;
        if self.free_bytes().is_some_and(|free| free < CLOSING_BYTES) {
            self.give_up(0);
        }
    }

    /// Gives all of it up, as if a step had used it.
    #[cfg(test)]
    pub(crate) fn lose(&self) {
        let _making = self.making.lock();
        self.give_up(0);
    }

    /// After the logs are closed: what is left is kept, for what has to be deleted after the next start. Blocking.
    pub(crate) fn make_after_all(&self, now: Instant) {
        *self.making.lock() = false;
        self.state.lock().failed = None;
        self.make(now, 0);
    }

    /// Writes as much of it as is free, and the whole as soon as there is room; nothing within [`PAUSE`] of a failure, unless more was
    /// removed since (`removals` counts that). Says whether batches may be stored. Blocking; not on an async worker.
    pub(crate) fn make(&self, now: Instant, removals: u64) -> bool {
        let is_paused = self.making.lock();
        if self.is_held() || *is_paused {
            return self.is_held();
        }
        let failed = self.state.lock().failed;
        if failed.is_some_and(|(at, before)| before == removals && now.saturating_duration_since(at) < PAUSE) {
            return false;
        }
        let (there, _) = self.there();
        let reachable = self.reachable_bytes(there);
        // A part is begun once, and then it is all or nothing: flash wears out.
        let grown = if reachable == self.bytes || there == 0 { self.grow(there, reachable) } else { Ok(()) };
        let is_said = {
            let mut state = self.state.lock();
            state.failed = grown.is_err().then_some((now, removals));
            std::mem::replace(&mut state.is_said, !self.is_held())
        };
        if !self.is_held() && !is_said {
            let (bytes, free, error) = (self.bytes, self.free_bytes(), grown.err().map(|error| error.to_string()));
            tracing::warn!(
                bytes,
                free,
                error,
                "there is no room for the whole reserve (`storage.reserve`), so no batch is taken; it is made once there is"
            );
        }
        self.is_held()
    }

    /// Bytes that have to become free before it can be whole; 0 if it is not for want of them. None where the system does not say.
    pub(crate) fn missing_bytes(&self) -> Option<u64> {
        let free = self.free_bytes()?;
        let needed = self.bytes.saturating_sub(self.state.lock().there);
        // A file system takes some for itself.
        Some(needed.saturating_add(needed / 8).saturating_sub(free))
    }

    /// Bytes that are there of it, and how often some were given up.
    fn there(&self) -> (u64, u64) {
        let state = self.state.lock();
        (state.there, state.given_up)
    }

    /// What size it can have, by what the file system says.
    fn reachable_bytes(&self, there: u64) -> u64 {
        self.free_bytes().map_or(self.bytes, |free| there.saturating_add(free).min(self.bytes))
    }

    fn free_bytes(&self) -> Option<u64> {
        self.disk.free_bytes(&self.data_dir).ok().flatten()
    }

    /// From now on so much is there, as the size of the file says.
    fn is_now(&self, bytes: u64) {
        let mut state = self.state.lock();
        state.there = bytes.min(self.bytes);
        self.is_held.store(bytes >= self.bytes, Ordering::Release);
    }

    /// Leaves so many bytes of it, and none where they would be of no use. Says whether there is more room than before. Under `making`.
    fn give_up(&self, left: u64) -> bool {
        let (there, _) = self.there();
        let left = if left < PART_BYTES_MIN { 0 } else { left };
        if there <= left {
            return false;
        }
        // Before its room is free: from then on no batch takes it.
        self.is_now(left);
        let cut = self.cut(left);
        self.is_now(self.size_bytes());
        match cut {
            Ok(()) => {
                self.state.lock().given_up += 1;
                let (bytes, whole) = (there - left, self.bytes);
                tracing::warn!(
                    bytes,
                    whole,
                    "the disk is full; of the reserve this is given up to clean up with, and no batch is taken until it is back"
                );
                true
            }
            Err(error) => {
                tracing::warn!(path = %self.path().display(), %error, "the disk is full, and the reserve can't be given up");
                false
            }
        }
    }

    /// Makes the `from` bytes of it `to`, or as many between them as can be had. Fails with why they are not what was asked for. Under
    /// `making`.
    fn grow(&self, from: u64, to: u64) -> io::Result<()> {
        let grown = self.extend(from, to);
        // The system has promised too much, or somebody else was faster. What could be had is held, or others take that too.
        let is_kept = grown.is_ok() || grown.as_ref().is_err_and(is_no_room) && self.sync().is_ok() && self.size_bytes() >= PART_BYTES_MIN;
        if !is_kept {
            let _ = self.cut(from);
        }
        self.is_now(self.size_bytes());
        let mut state = self.state.lock();
        if self.is_held() && (state.given_up > 0 || state.is_said) {
            state.is_said = false;
            tracing::info!(bytes = self.bytes, "the reserve is there again, and batches are taken");
        }
        grown
    }

    /// Writes its bytes from `from` to `to`.
    fn extend(&self, from: u64, to: u64) -> io::Result<()> {
        let file = self.disk.open(&self.path(), if from == 0 { OpenMode::Replace } else { OpenMode::ReadWrite })?;
        let mut seed = to;
        let mut at = from;
        while at < to {
            // The last byte of all for itself.
            let end = to.min(at + CHUNK_BYTES).min(if at + 1 < self.bytes { self.bytes - 1 } else { self.bytes });
            let chunk = noise(&mut seed, end - at);
            if end == self.bytes {
                file.sync_data()?;
            }
            write_all_at(&*file, &mut [IoSlice::new(&chunk)], at)?;
            at = end;
        }
        drop(file);
        self.sync()
    }

    /// Makes it durable, or that it is gone.
    fn sync(&self) -> io::Result<()> {
        match self.disk.open(&self.path(), OpenMode::ReadWrite) {
            Ok(file) => file.sync_data()?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        self.disk.sync_dir(&self.data_dir)
    }

    /// Cuts it to so many bytes, and removes it where that is none, or can't be done.
    fn cut(&self, bytes: u64) -> io::Result<()> {
        let shorten = || self.disk.open(&self.path(), OpenMode::ReadWrite)?.set_len(bytes);
        if bytes == 0 || shorten().is_err() {
            self.disk.remove_file(&self.path())?;
        }
        // Some file systems give the blocks out again only after this. If it fails, they do so by themselves, later.
        let _ = self.sync();
        Ok(())
    }

    /// Of the file; nothing where there is none.
    fn size_bytes(&self) -> u64 {
        self.disk.open(&self.path(), OpenMode::Read).and_then(|file| file.size_bytes()).unwrap_or(0)
    }

    fn path(&self) -> PathBuf {
        self.data_dir.join(RESERVE)
    }
}

/// Bytes that no file system stores in fewer, as some do with zeros (xorshift, G. Marsaglia 2003).
fn noise(seed: &mut u64, bytes: u64) -> Vec<u8> {
    let mut chunk = Vec::with_capacity(usize::try_from(CHUNK_BYTES).unwrap_or(0));
    while (chunk.len() as u64) < bytes {
        *seed ^= *seed << 13;
        *seed ^= *seed >> 7;
        *seed ^= *seed << 17;
        chunk.extend_from_slice(&seed.to_le_bytes());
    }
    chunk.truncate(usize::try_from(bytes).unwrap_or(usize::MAX));
    chunk
}

/// In the data folder.
const RESERVE: &str = "reserve";

/// After it could not be written, it is not written again for so long.
const PAUSE: Duration = Duration::from_mins(1);

/// A part that is smaller is of no use: the catalogue of a few topics takes as much.
const PART_BYTES_MIN: u64 = 4 << 10;

/// What is written at once.
const CHUNK_BYTES: u64 = 256 << 10;

/// With less room than this, it is not sure that all logs can note how they were closed.
const CLOSING_BYTES: u64 = 1 << 20;

#[cfg(test)]
mod tests;

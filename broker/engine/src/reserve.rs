//! A piece of the disk that is kept for the broker itself, so that a full disk can still be cleaned up, stopped and started.
//!
//! It is a file of the data folder, `reserve`, written in full and synced: no other user of the file system can take its blocks, and no
//! batch is ever stored in them.
//!
//! ```text
//!           a step for cleaning up finds the disk full: the file is removed, the step tried again
//!   held ──────────────────────────────────────────────────────────────────────────────────────────> given up
//!     ^                                                                                                │
//!     └──────────────────────────────────── in part: `reserve.tmp` <───────────────────────────────────┘
//!        the rest is written when it is free      what is free at once, so that nobody else takes it
//! ```
//!
//! The steps that may have it: changes of the catalogue but for a new topic, which is how a topic or a module is deleted; putting folders
//! aside; beginning a log with a later record; opening the data folder; and closing logs in order. A part of it is given up as the whole is.
//! As long as it is not whole no batch is taken, or batches would use up what was meant for the next deletion.
//!
//! What is free is known from the file system, which may promise more than it gives: a user's quota, the metadata of btrfs. Then all of it
//! is written in vain, and flash wears out. So after a failure it is tried again once the broker has removed something, or after
//! [`PAUSE`], which makes 8 MiB a minute of the default size.
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
    /// None is kept where this is nothing.
    bytes: u64,
    /// The file is there, and whole. Changed under `state`, and looked at without it: async workers ask, and files are removed under it.
    is_held: AtomicBool,
    state: Mutex<State>,
    /// Held while the file is written, and while what it has given up is used: who writes it must not take that away. Whether it is not to be
    /// written at all for now.
    making: Mutex<bool>,
}

#[derive(Debug, Default)]
struct State {
    /// Bytes of what is there of it otherwise.
    part_bytes: u64,
    /// Counts how often it was given up.
    given_up: u64,
    /// Whether it was said that it can't be made, since it was last there.
    is_said: bool,
    /// When writing it has failed last, and what [`Space::removals`](crate::space::Space::removals) said before.
    failed: Option<(Instant, u64)>,
}

impl Reserve {
    /// The reserve of this data folder, as it was left. Blocking.
    pub(crate) fn open(disk: Arc<dyn Disk>, data_dir: &Path, bytes: u64) -> Reserve {
        let (is_held, state, making) = (AtomicBool::new(false), Mutex::default(), Mutex::default());
        let reserve = Reserve { disk, data_dir: data_dir.to_owned(), bytes, is_held, state, making };
        let size_of = |path: &Path| reserve.disk.open(path, OpenMode::Read).and_then(|file| file.size_bytes()).ok();
        let (whole, part) = (size_of(&reserve.path(RESERVE)), size_of(&reserve.path(TEMPORARY)));
        let is_held = bytes > 0 && whole == Some(bytes);
        // Of another size than it should have now, or left over.
        let is_part = !is_held && part.is_some_and(|part| part <= bytes) && bytes > 0;
        if whole.is_some() && !is_held {
            drop(reserve.remove(RESERVE));
        }
        if part.is_some() && !is_part {
            drop(reserve.remove(TEMPORARY));
        }
        reserve.is_held.store(is_held, Ordering::Release);
        reserve.state.lock().part_bytes = part.filter(|_| is_part).unwrap_or(0);
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

    /// Does a step for cleaning up. Where it finds the disk full, the reserve is given up, and the step done once more.
    pub(crate) fn lend<T, E>(&self, is_full: impl Fn(&E) -> bool, mut step: impl FnMut() -> Result<T, E>) -> Result<T, E> {
        let before = self.state.lock().given_up;
        let outcome = step();
        if !outcome.as_ref().is_err_and(is_full) {
            return outcome;
        }
        let _making = self.making.lock();
        if self.give_up(before) { step() } else { outcome }
    }

    /// Before the logs are closed: on a disk with hardly any room, the reserve is what they are closed with. Until then it is not written
    /// again. Blocking.
    pub(crate) fn give_up_if_tight(&self) {
        let mut is_paused = self.making.lock();
        *is_paused = true;
        let free = self.disk.free_bytes(&self.data_dir).ok().flatten();
        if free.is_some_and(|free| free < CLOSING_BYTES) {
            let before = self.state.lock().given_up;
            self.give_up(before);
        }
    }

    /// After the logs are closed: what is left is kept, for what has to be deleted after the next start. Blocking.
    pub(crate) fn make_after_all(&self, now: Instant) {
        *self.making.lock() = false;
        self.state.lock().failed = None;
        self.make(now, 0);
    }

    /// Gives it up. Says whether there may be more room than at the time when it had been given up `before` times.
    fn give_up(&self, before: u64) -> bool {
        let mut state = self.state.lock();
        // Before its room is free: from then on no batch takes it.
        let was_held = self.is_held.swap(false, Ordering::AcqRel);
        if was_held || state.part_bytes > 0 {
            let name = if was_held { RESERVE } else { TEMPORARY };
            if let Err(error) = self.remove(name) {
                self.is_held.store(was_held, Ordering::Release);
                tracing::warn!(path = %self.path(name).display(), %error, "the disk is full, and the reserve can't be given up");
                return false;
            }
            (state.part_bytes, state.given_up) = (0, state.given_up + 1);
            let bytes = self.bytes;
            tracing::warn!(bytes, "the disk is full; the reserve is given up to clean up with, and no batch is taken until it is back");
        }
        state.given_up != before
    }

    /// Writes as much of it as is free, and the whole as soon as there is room; nothing within [`PAUSE`] of a failure, unless more was
    /// removed since (`removals` counts that). Says whether batches may be stored. Blocking; not on an async worker.
    pub(crate) fn make(&self, now: Instant, removals: u64) -> bool {
        let is_paused = self.making.lock();
        if self.is_held() || *is_paused {
            return self.is_held();
        }
        let (before, given_up) = {
            let state = self.state.lock();
            if state.failed.is_some_and(|(at, before)| before == removals && now.saturating_duration_since(at) < PAUSE) {
                return false;
            }
            (state.part_bytes, state.given_up)
        };
        let free = self.disk.free_bytes(&self.data_dir).ok().flatten();
        let reachable = free.map_or(self.bytes, |free| before.saturating_add(free).min(self.bytes));
        // A part is begun once, and then it is all or nothing: flash wears out.
        let mut made = if reachable == self.bytes || before == 0 { self.extend(before, reachable) } else { Ok(before) };
        let has_failed = made.is_err();
        // The system has promised too much, or somebody else was faster. Whatever can be had is held at once, or others take that too.
        let mut smaller = reachable / 2;
        while made.as_ref().is_err_and(is_no_room) && smaller >= PART_BYTES_MIN {
            made = self.extend(0, smaller);
            smaller /= 2;
        }
        let mut state = self.state.lock();
        state.failed = has_failed.then_some((now, removals));
        if state.given_up != given_up {
            // It was given up while it was written.
            return false;
        }
        state.part_bytes = *made.as_ref().unwrap_or(&0);
        let is_held = state.part_bytes == self.bytes;
        self.is_held.store(is_held, Ordering::Release);
        let (bytes, is_said) = (self.bytes, state.is_said);
        state.is_said = !is_held;
        if is_held {
            state.part_bytes = 0;
            if state.given_up > 0 || is_said {
                tracing::info!(bytes, "the reserve is there again, and batches are taken");
            }
        } else if !is_said {
            let error = made.err().map(|error| error.to_string());
            tracing::warn!(
                bytes,
                free,
                error,
                "there is no room for the whole reserve (`storage.reserve`), so no batch is taken; it is made once there is"
            );
        }
        is_held
    }

    /// Bytes that have to become free before it can be whole; 0 if it is not for want of them. None where the system does not say.
    pub(crate) fn missing_bytes(&self) -> Option<u64> {
        let free = self.disk.free_bytes(&self.data_dir).ok().flatten()?;
        let needed = self.bytes.saturating_sub(self.state.lock().part_bytes);
        // A file system takes some for itself.
        Some(needed.saturating_add(needed / 8).saturating_sub(free))
    }

    /// Makes the part of `from` bytes one of `to`, and the whole if that is all. Gives what there is then.
    fn extend(&self, from: u64, to: u64) -> io::Result<u64> {
        let (whole, part) = (self.path(RESERVE), self.path(TEMPORARY));
        let extended = self.fill(&part, from, to).and_then(|()| {
            if to == self.bytes {
                self.disk.rename(&part, &whole)?;
            }
            self.disk.sync_dir(&self.data_dir)
        });
        if extended.is_err() {
            // Every byte counts. What stays is looked at by the next start.
            let _ = self.disk.remove_file(&part);
        }
        extended.map(|()| to)
    }

    fn fill(&self, path: &Path, from: u64, to: u64) -> io::Result<()> {
        let file = self.disk.open(path, if from == 0 { OpenMode::Replace } else { OpenMode::ReadWrite })?;
        let mut seed = to;
        let mut at = from;
        while at < to {
            let chunk = noise(&mut seed, (to - at).min(CHUNK_BYTES));
            write_all_at(&*file, &mut [IoSlice::new(&chunk)], at)?;
            at += chunk.len() as u64;
        }
        file.sync_data()
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove_file(&self.path(name))?;
        // Some file systems give the blocks out again only after this. If it fails, they do so by themselves, later.
        let _ = self.disk.sync_dir(&self.data_dir);
        Ok(())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.data_dir.join(name)
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

/// The same as long as it is not whole.
const TEMPORARY: &str = "reserve.tmp";

/// After it could not be written, it is not written again for so long.
const PAUSE: Duration = Duration::from_mins(1);

/// A part that is smaller is of no use: the catalogue of a few topics takes as much.
const PART_BYTES_MIN: u64 = 4 << 10;

/// What is written at once.
const CHUNK_BYTES: u64 = 256 << 10;

/// With less room than this, it is not sure that all logs can note how they were closed.
const CLOSING_BYTES: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use millpond_log::sim::{Fault, Operation, SimDisk};

    fn disk() -> SimDisk {
        let disk = SimDisk::new();
        disk.create_dir_all(Path::new("/data")).expect("a new disk");
        disk
    }

    fn reserve(disk: &SimDisk, bytes: u64) -> Reserve {
        Reserve::open(Arc::new(disk.clone()), Path::new("/data"), bytes)
    }

    fn is_full(error: &io::Error) -> bool {
        error.kind() == io::ErrorKind::StorageFull
    }

    fn note(disk: &SimDisk) -> io::Result<()> {
        millpond_log::write_atomically(disk, Path::new("/data/note"), &[7; 100])
    }

    #[test]
    fn it_is_written_in_full_and_survives_a_power_cut() {
        let disk = disk();
        let made = reserve(&disk, 700_000);
        assert!(!made.is_held() && made.make(Instant::now(), 0) && made.is_held());
        disk.sync_dir(Path::new("/")).expect("it syncs");
        disk.crash(1);
        let bytes = disk.bytes(Path::new("/data/reserve")).expect("it is there");
        assert_eq!(bytes.len(), 700_000);
        assert!(bytes.chunks(64).all(|chunk| chunk.iter().any(|byte| *byte != 0)), "no hole, and nothing to leave out");
        let writes = disk.count(Operation::Write);
        assert!(reserve(&disk, 700_000).is_held());
        assert_eq!(disk.count(Operation::Write), writes, "it is not written at every start");
        let smaller = reserve(&disk, 1_000);
        assert!(!smaller.is_held() && smaller.make(Instant::now(), 0));
        assert_eq!(disk.bytes(Path::new("/data/reserve")).expect("it is there").len(), 1_000);
        assert!(reserve(&disk, 0).is_held());
        assert!(!disk.exists(Path::new("/data/reserve")).expect("it can be asked"), "none is wanted any more");
    }

    #[test]
    fn a_step_that_finds_the_disk_full_gets_the_room_and_batches_wait_until_it_is_back() {
        let disk = disk();
        let reserve = reserve(&disk, 10_000);
        assert!(reserve.make(Instant::now(), 0));
        disk.limit_bytes(Some(disk.used_bytes()));
        reserve.lend(is_full, || note(&disk)).expect("there is room in the reserve");
        assert!(!reserve.is_held());
        assert!(!reserve.make(Instant::now(), 0), "the note has taken some of it");
        assert_eq!(disk.bytes(Path::new("/data/reserve.tmp")).expect("a part").len(), 9_900, "and nobody else gets the rest");
        let writes = disk.count(Operation::Write);
        assert!(!reserve.make(Instant::now(), 0));
        assert_eq!(disk.count(Operation::Write), writes, "nothing is written in vain");
        disk.limit_bytes(Some(10_099));
        assert!(!reserve.make(Instant::now(), 0));
        disk.limit_bytes(Some(10_100));
        assert!(reserve.make(Instant::now(), 0) && reserve.is_held());
        assert_eq!(disk.bytes(Path::new("/data/reserve")).expect("the whole").len(), 10_000);
    }

    #[test]
    fn a_part_is_given_up_as_the_whole_is_also_after_a_restart() {
        let disk = disk();
        disk.limit_bytes(Some(700));
        let first = reserve(&disk, 1_000);
        assert!(!first.make(Instant::now(), 0));
        let reserve = reserve(&disk, 1_000);
        assert!(!reserve.is_held());
        for number in 0..3 {
            reserve.lend(is_full, || note(&disk)).unwrap_or_else(|error| panic!("{number}: {error}"));
            assert!(!reserve.make(Instant::now(), 0));
        }
        disk.limit_bytes(None);
        assert!(reserve.make(Instant::now(), 0));
        assert!(!disk.exists(Path::new("/data/reserve.tmp")).expect("it can be asked"));
    }

    #[test]
    fn a_step_that_came_too_late_for_the_reserve_is_tried_again_all_the_same() {
        let disk = disk();
        let reserve = reserve(&disk, 10_000);
        assert!(reserve.make(Instant::now(), 0));
        disk.limit_bytes(Some(disk.used_bytes()));
        let mut tries = 0;
        let outcome = reserve.lend(is_full, || {
            tries += 1;
            if tries == 1 {
                // Another step has given it up between this one's failure and its question.
                reserve.lend(is_full, || note(&disk)).expect("there is room in the reserve");
                return Err(io::ErrorKind::StorageFull.into());
            }
            note(&disk)
        });
        outcome.expect("there is room now");
        let outcome = reserve.lend(is_full, || Err::<(), _>(io::ErrorKind::StorageFull.into()));
        outcome.expect_err("and there is no second reserve");
    }

    #[test]
    fn without_a_name_left_the_reserve_gives_its_own() {
        let disk = disk();
        let reserve = reserve(&disk, 10_000);
        assert!(reserve.make(Instant::now(), 0));
        disk.limit_names(Some(disk.used_names()));
        reserve.lend(is_full, || note(&disk)).expect("there is a name");
    }

    #[test]
    fn a_failure_of_another_kind_costs_nothing() {
        let disk = disk();
        let reserve = reserve(&disk, 10_000);
        assert!(reserve.make(Instant::now(), 0));
        disk.fail(Operation::Write, 1, Fault::Device);
        reserve.lend(is_full, || note(&disk)).expect_err("the device failed");
        assert!(reserve.is_held());
        reserve.give_up_if_tight();
        assert!(reserve.is_held(), "there is no limit");
        disk.limit_bytes(Some(disk.used_bytes() + 1_000));
        reserve.give_up_if_tight();
        assert!(!reserve.is_held() && !reserve.make(Instant::now(), 0), "nobody takes it before the logs are closed");
        reserve.make_after_all(Instant::now());
        assert!(reserve.is_held());
    }

    #[test]
    fn after_a_failure_it_is_written_again_once_something_was_removed_or_some_time_has_passed() {
        let disk = disk();
        let (reserve, begun) = (reserve(&disk, 10_000), Instant::now());
        // There is room by what the file system says.
        let fail = || disk.fail(Operation::Write, 1, Fault::NoSpace);
        fail();
        assert!(!reserve.make(begun, 7));
        let writes = disk.count(Operation::Write);
        for seconds in [0, 1, 59] {
            assert!(!reserve.make(begun + Duration::from_secs(seconds), 7), "it is too early");
        }
        assert_eq!(disk.count(Operation::Write), writes, "and nothing is written in vain");
        fail();
        assert!(!reserve.make(begun + Duration::from_secs(1), 8));
        assert!(disk.count(Operation::Write) > writes, "something was removed, so it was tried");
        assert!(!reserve.make(begun + Duration::from_mins(1), 8), "a minute after the last time");
        assert!(reserve.make(begun + Duration::from_secs(61), 8));
    }

    #[test]
    fn where_less_can_be_written_than_is_free_a_smaller_part_is_held_at_once() {
        let disk = disk();
        let made = reserve(&disk, 100_000);
        disk.limit_bytes(Some(disk.used_bytes() + 60_000));
        disk.fail(Operation::Write, 1, Fault::NoSpace);
        let now = Instant::now();
        assert!(!made.make(now, 0));
        assert_eq!(disk.bytes(Path::new("/data/reserve.tmp")).expect("nobody else takes it").len(), 30_000);
        assert!(!made.make(now, 0) && disk.count(Operation::Write) > 0, "and it is left alone for a while");
        disk.limit_bytes(Some(disk.used_bytes()));
        note(&disk).expect_err("the disk is full");
        made.lend(is_full, || note(&disk)).expect("the part is there for this");
    }

    #[test]
    fn whoever_asks_whether_it_is_held_waits_for_nobody_who_removes_or_writes_it() {
        let disk = disk();
        let reserve = reserve(&disk, 10_000);
        assert!(reserve.make(Instant::now(), 0));
        let reserve = &reserve;
        std::thread::scope(|scope| {
            let (_state, _making) = (reserve.state.lock(), reserve.making.lock());
            let (sender, answer) = std::sync::mpsc::channel();
            scope.spawn(move || sender.send(reserve.is_held()));
            let answer = answer.recv_timeout(Duration::from_secs(20));
            assert_eq!(answer, Ok(true));
        });
    }
}

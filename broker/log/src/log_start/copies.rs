//! The two files that hold the log start.
//!
//! ```text
//! log-start, log-start.2, in the manner of crate::sidecar
//!
//! millpond log start 1
//! 00000000000000004711                  the first offset that is left
//! crc32c 1a2b3c4d
//! ```
//!
//! Nothing else in the folder knows this offset, so there are two of them. `log-start` is written first, and is durable before the first
//! segment goes; then `log-start.2`, where there is room. A crash in between, or a full disk, leaves the second one behind the first or
//! missing, as it is in a folder from before there were two. The log start never goes back, so the larger of the two is true.
//!
//! | `log-start` | the other | the log begins at | an opening |
//! |---|---|---|---|
//! | none | none | its first segment | does nothing |
//! | says an offset | says another, or none | the larger offset | writes the one that lags |
//! | damaged | says an offset | that offset | writes the damaged one anew, and says so |
//! | damaged | damaged, none, or 0 | its first segment | writes both, and says that deleted records of that segment are back |
//!
//! The last two likewise with the names exchanged. One that the disk does not give back counts as damaged where the other says an offset
//! behind 0; otherwise the log stays closed, since it may be read again later.
//!
//! A log that is created has the second file alone, which says 0: no segment was deleted. So where the second file is there, the
//! first segment begins at the log start or before it, and if it does not, segments are gone that nobody has deleted. A deletion on a full
//! disk, which can't say what it deletes, removes the second file before it removes a segment.

use std::io;
use std::path::{Path, PathBuf};

use crate::disk::Disk;
use crate::error::{LogError, is_out_of_files, is_unreadable};
use crate::recovery::RecoveryReport;
use crate::sidecar::{Found, find_sealed, once_more, write_sealed};

/// How the second file stops claiming that no segment is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Withdrawal {
    /// It claims nothing.
    Done,
    /// The first file says as much.
    Removed,
    /// The first file does not: it becomes the first.
    TakesFirstPlace,
}

/// What the two files say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StartFiles([Found<i64>; 2]);

impl StartFiles {
    /// Reads them. A second one that can't be read is a damaged one where the first is whole, which is never behind it, and so is a first
    /// one that the disk does not give back, where the second knows of a deletion.
    ///
    /// # Errors
    ///
    /// [`LogError::Io`] with the file: it can't be read, and the other one does not say where the log begins. To begin with the first segment
    /// then could serve what was deleted, although the file may be read again later.
    pub(crate) fn read(disk: &dyn Disk, dir: &Path) -> Result<StartFiles, LogError> {
        let find = |name| once_more(|| find_sealed(disk, (&dir.join(name), LOG_START_HEADING), LOG_START_BYTES_MAX, parse));
        let failed = |name, error| LogError::io("read", &dir.join(name), error);
        let (first, copy) = (find(LOG_START), find(LOG_START_COPY));
        match (first, copy) {
            (Ok(first), Ok(copy)) => Ok(StartFiles([first, copy])),
            (Ok(first @ Found::Whole(_)), Err(error)) if !is_out_of_files(&error) => Ok(StartFiles([first, Found::Damaged])),
            (Err(error), Ok(copy @ Found::Whole(1..))) if is_unreadable(&error) => Ok(StartFiles([Found::Damaged, copy])),
            (Err(error), _) => Err(failed(LOG_START, error)),
            (Ok(_), Err(error)) => Err(failed(LOG_START_COPY, error)),
        }
    }

    /// The first offset that is left. None if nothing was ever deleted, or nobody knows any more.
    pub(crate) fn start(&self) -> Option<i64> {
        if self.0 == [Found::Damaged, Found::Whole(0)] {
            // No deletion starts a log at 0. It is from before the first one.
            return None;
        }
        let said = |found: &Found<i64>| if let Found::Whole(start) = found { Some(*start) } else { None };
        self.0.iter().filter_map(said).max()
    }

    /// Whether records were deleted, and nobody knows any more up to where.
    pub(crate) fn is_lost(&self) -> bool {
        self.start().is_none() && self.0.contains(&Found::Damaged)
    }

    /// The first segment begins there or before it, as long as nobody has removed any but by a deletion. None if nobody knows.
    pub(crate) fn claimed(&self) -> Option<i64> {
        self.start().filter(|_| self.0[1] != Found::Nothing)
    }

    /// What becomes of the second file so that it claims nothing, and nothing is lost with it.
    fn without_claim(&self) -> Withdrawal {
        match self.0 {
            // It claims nothing as it is; and two that are damaged tell the next opening that something is lost.
            [_, Found::Nothing] | [Found::Damaged, Found::Damaged | Found::Whole(0)] | [Found::Nothing, Found::Damaged] => Withdrawal::Done,
            [Found::Whole(first), Found::Whole(start)] if first < start => Withdrawal::TakesFirstPlace,
            [Found::Nothing, Found::Whole(0)] | [Found::Whole(_), _] => Withdrawal::Removed,
            [Found::Nothing | Found::Damaged, Found::Whole(_)] => Withdrawal::TakesFirstPlace,
        }
    }

    /// Those that are damaged.
    pub(crate) fn damaged(&self, dir: &Path) -> Vec<PathBuf> {
        let damaged = self.0.iter().zip(NAMES).filter(|(found, _)| **found == Found::Damaged);
        damaged.map(|(_, name)| dir.join(name)).collect()
    }

    /// Writes anew what is damaged or lags, when a log is opened whose first segment begins at `first`, and says what follows. What can't be
    /// written is left to the next opening, which says it again.
    pub(crate) fn mend(&self, disk: &dyn Disk, dir: &Path, first: Option<i64>, report: &mut RecoveryReport) {
        let damaged = self.damaged(dir);
        let start = match self.start() {
            // As the log was created with.
            Some(0) if self.0[0] == Found::Nothing => return,
            // What lay before the first segment, a deletion may have removed that had no room to say so.
            Some(start) if self.0[1] == Found::Nothing => first.map_or(start, |first| first.max(start)),
            Some(start) => start,
            None if damaged.is_empty() => return,
            None => first.unwrap_or(0),
        };
        let (said, dir_shown) = ("the files with the log start can't be written anew, and the next opening tries it again", dir.display());
        let settled = self.settle(disk, dir, start);
        if let Err(error) = &settled {
            tracing::warn!(dir = %dir_shown, start, %error, "{said}");
        }
        if self.is_lost() {
            let hint = "delete them again if they must not be read";
            let said = "the log start is damaged, and begins with the first segment: deleted records of that segment are served again";
            tracing::error!(dir = %dir_shown, start, hint, "{said}");
            report.lost_log_start = Some(start);
            return;
        }
        for path in damaged {
            if settled.is_ok() {
                tracing::warn!(path = %path.display(), start, "the log start was damaged here, and was written anew from the other file");
            }
            if !report.mended_log_start.contains(&path) {
                report.mended_log_start.push(path);
            }
        }
    }

    /// Makes both say `start`, durably, as far as they don't.
    pub(crate) fn settle(&self, disk: &dyn Disk, dir: &Path, start: i64) -> io::Result<()> {
        let others = self.0.iter().zip(NAMES).filter(|(found, _)| **found != Found::Whole(start));
        others.map(|(_, name)| write(disk, &dir.join(name), start)).fold(Ok(()), io::Result::and)
    }
}

/// Writes the first of the two, durably.
pub(super) fn write_log_start(disk: &dyn Disk, dir: &Path, start: i64) -> io::Result<()> {
    write(disk, &dir.join(LOG_START), start)
}

/// Writes the second, durably, once the first is.
pub(super) fn write_copy(disk: &dyn Disk, dir: &Path, start: i64) -> io::Result<()> {
    write(disk, &dir.join(LOG_START_COPY), start)
}

/// Says, durably, that a log which is created begins with offset 0. Failing is harmless: nobody misses a segment then that is gone.
pub(crate) fn note_first_start(disk: &dyn Disk, dir: &Path) {
    if let Err(error) = write_copy(disk, dir, 0) {
        tracing::warn!(dir = %dir.display(), %error, "it can't be noted that a log begins with offset 0");
    }
}

/// Takes back that no segment is missing, before one is removed without a word; needs no room. Durable with the next sync of the names.
pub(super) fn withdraw_claim(disk: &dyn Disk, dir: &Path) -> Result<(), LogError> {
    let (first, copy) = (dir.join(LOG_START), dir.join(LOG_START_COPY));
    match StartFiles::read(disk, dir)?.without_claim() {
        Withdrawal::Done => Ok(()),
        Withdrawal::Removed => disk.remove_file(&copy).map_err(|source| LogError::io("remove", &copy, source)),
        Withdrawal::TakesFirstPlace => {
            // One that the disk does not give back just now may say more.
            find_sealed(disk, (&first, LOG_START_HEADING), LOG_START_BYTES_MAX, parse)
                .map_err(|source| LogError::io("read", &first, source))?;
            disk.rename(&copy, &first).map_err(|source| LogError::io("rename", &copy, source))
        }
    }
}

fn write(disk: &dyn Disk, path: &Path, start: i64) -> io::Result<()> {
    write_sealed(disk, path, LOG_START_HEADING, &format!("{start:020}"))
}

fn parse(digits: &str) -> Option<i64> {
    digits.parse().ok().filter(|start| *start >= 0)
}

/// The file that holds the log start.
pub(crate) const LOG_START: &str = "log-start";

/// The one that holds it once more.
pub(crate) const LOG_START_COPY: &str = "log-start.2";

const NAMES: [&str; 2] = [LOG_START, LOG_START_COPY];

const LOG_START_HEADING: &str = "millpond log start 1";

/// More than the file ever has.
const LOG_START_BYTES_MAX: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::{Fault, Operation, SimDisk};

    #[test]
    fn the_larger_start_is_read_back_and_both_are_made_to_say_it() {
        let (disk, dir) = (SimDisk::new(), Path::new("/"));
        let read = || StartFiles::read(&disk, dir).expect("reads");
        assert_eq!((read().start(), read().is_lost()), (None, false));
        for (first, second, larger) in [(0, 0, 0), (4711, 0, 4711), (12, 4711, 4711), (i64::MAX, 5, i64::MAX)] {
            write_log_start(&disk, dir, first).expect("writes");
            write_copy(&disk, dir, second).expect("writes");
            assert_eq!(read().start(), Some(larger));
            read().settle(&disk, dir, larger).expect("writes");
            assert_eq!(read(), StartFiles([Found::Whole(larger); 2]));
            let before = disk.count(Operation::Read);
            read();
            let reads_of_one = (disk.count(Operation::Read) - before) / 2;
            let fail_twice = |nth| [nth, nth + 1].map(|nth| disk.fail(Operation::Read, nth, Fault::Device));
            disk.fail(Operation::Read, 1, Fault::Device);
            assert_eq!(read(), StartFiles([Found::Whole(larger); 2]), "it passes");
            fail_twice(reads_of_one + 1);
            assert_eq!(read(), StartFiles([Found::Whole(larger), Found::Damaged]), "the first is enough");
            fail_twice(1);
            match second {
                // It is settled by now.
                _ if larger > 0 => assert_eq!(read(), StartFiles([Found::Damaged, Found::Whole(larger)]), "the second is enough"),
                _ => assert!(StartFiles::read(&disk, dir).expect_err("from before a deletion").chain().contains("/log-start: ")),
            }
        }
        disk.damage(&dir.join(LOG_START), Vec::clear);
        assert_eq!((read().start(), read().is_lost(), read().damaged(dir)), (Some(i64::MAX), false, vec![dir.join(LOG_START)]));
        disk.remove_file(&dir.join(LOG_START_COPY)).expect("removes");
        assert_eq!((read().start(), read().is_lost()), (None, true));
    }

    #[test]
    fn a_claim_is_withdrawn_whatever_is_readable_and_no_start_is_lost_with_it() {
        let (bad, none) = (Some(None), None);
        let said = |start: i64| Some(Some(start));
        let cases = [
            (none, said(0)),
            (none, said(7)),
            (bad, said(0)),
            (bad, said(7)),
            (said(7), said(7)),
            (said(7), said(5)),
            (said(5), said(7)),
            (said(7), bad),
            (said(7), none),
            (none, none),
            (none, bad),
            (bad, bad),
        ];
        for (first, second) in cases {
            for unreadable in [false, true] {
                // The first is never behind the second, but for damage that nobody can tell then.
                if unreadable && first < second {
                    continue;
                }
                let (disk, dir) = (SimDisk::new(), Path::new("/"));
                for (name, start) in NAMES.into_iter().zip([first, second]) {
                    let Some(start) = start else { continue };
                    write(&disk, &dir.join(name), start.unwrap_or(1)).expect("writes");
                    if start.is_none() {
                        disk.damage(&dir.join(name), Vec::clear);
                    }
                }
                let read = || StartFiles::read(&disk, dir).expect("reads");
                let before = (read().start().filter(|start| *start > 0), read().is_lost());
                if unreadable {
                    let reads = disk.count(Operation::Read);
                    read();
                    let nth = (disk.count(Operation::Read) - reads) / 2 + 1;
                    // It is read once more before it counts as one that can't be.
                    disk.fail(Operation::Read, nth, Fault::Device);
                    disk.fail(Operation::Read, nth + 1, Fault::Device);
                }
                if withdraw_claim(&disk, dir).is_err() {
                    assert!(unreadable, "{first:?} {second:?}");
                    continue;
                }
                disk.forget_failures(Operation::Read);
                assert_eq!(read().claimed(), None, "{first:?} {second:?}");
                assert_eq!((read().start().filter(|start| *start > 0), read().is_lost()), before, "{first:?} {second:?}");
            }
        }
    }
}

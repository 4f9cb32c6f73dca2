//! The log start offset: where a log begins, when what was before it has been deleted.
//!
//! A log begins with its first segment, or later: `log-start` holds the first offset that is left, and `log-start.2`
//! holds it once more, so that no damage to one of them brings back what was deleted ([`copies`]).
//! Whole segments before it are of no use; the one that it lies in is kept, and its first batches are not served any more.
//!
//! ```text
//!   log-start, durable      seen by readers          files removed, when there is time
//! ----------o------------o-----------o--------------------------o------------------------> deleting
//!           |            |           '--- no segment of the log from here on, but perhaps in the folder
//!           |            '--- log-start.2 says so as well, if there is room for it
//!           '--- from here on no opening brings anything before it back
//! ```
//!
//! A crash between two of these steps leaves files, which the next opening removes: any of them, since names that were not synced
//! survive in no order. If the end of the log is lost in a crash too, and lies before the log start then, the log begins anew at its
//! start: an offset that was given out, or answered as the start, is never given to another record.
//!
//! On a full disk the file can't be written. Then the oldest segments go first, one after the other and each made durable before the
//! next, until there is room for it: what is left after a crash is the end of the log, without any file that says so. `log-start.2` goes
//! before them: while it is there, a segment that is not there is a loss.
//!
//! ```text
//!   in the list, as any other     in the list, leaving: read and flushed by a handle       not in the list, removed
//! -----------------------------o--------------------o--------------------------------o----------------------------->
//!                              |                    |                                '-- the folder synced
//!                       a handle taken     the .log has no name                              (never back)
//!                              ^                    |
//!                              '--------------------'  if the name can't be removed
//! ```
//!
//! A segment counts as removed only when no power cut brings it back. If the folder can't be synced, it stays as it is there, half
//! deleted: the log begins where it did, nothing is compacted, and the next deletion, from whatever offset on, completes this one.
//!
//! # Readers
//!
//! They have their own list of segments, which may be older. A file that is open stays readable when its name is gone; one that is not,
//! can't be opened any more, and the read says that its offset is out of range. No name is ever used a second time.

mod copies;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::MutexGuard;

use crate::disk::{Disk, sync_names};
use crate::error::LogError;
use crate::folder::{INDEX, LOG, TIME_INDEX, file_path};
use crate::reader::Shared;
use crate::segment::Segment;

pub(crate) use copies::{LOG_START, LOG_START_COPY, StartFiles, note_first_start};
use copies::{withdraw_claim, write_copy, write_log_start};

/// A deletion of the oldest records, apart from the log: it can go to another thread, while the log takes appends. From
/// [`Log::begin_delete`](crate::Log::begin_delete).
#[derive(Debug)]
#[must_use = "nothing is deleted before it is run"]
pub struct Deletion {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    shared: Arc<Shared>,
    start: i64,
}

impl Deletion {
    pub(crate) fn new(disk: &Arc<dyn Disk>, dir: &Path, shared: &Arc<Shared>, start: i64) -> Deletion {
        Deletion { disk: Arc::clone(disk), dir: dir.to_path_buf(), shared: Arc::clone(shared), start }
    }

    /// Makes the log begin at the new start, durably, and then removes the files of the segments that lie before it. Blocking. One
    /// deletion of a log runs at a time, and it ends before the log is closed.
    ///
    /// Returns the log start from now on. A file that can't be removed is logged, and goes with the next deletion, or at the next opening
    /// ([`LogReader::has_unremoved_files`](crate::LogReader::has_unremoved_files)).
    ///
    /// # Errors
    ///
    /// [`LogError::Io`], [`LogError::TooManyOpenFiles`]: the new start could not be made durable, and readers don't see it; the next
    /// opening may. [`LogError::Full`]: likewise, but some of the oldest segments may be gone. The log goes on in all these cases.
    pub fn run(&self) -> Result<i64, LogError> {
        let changing = self.shared.changing();
        self.run_under(&changing)
    }

    /// The same without waiting for a compaction: None while it puts a segment in the place of others, and nothing is done then.
    ///
    /// # Errors
    ///
    /// As [`Deletion::run`].
    pub fn try_run(&self) -> Result<Option<i64>, LogError> {
        self.shared.try_changing().map(|changing| self.run_under(&changing)).transpose()
    }

    fn run_under(&self, _changing: &MutexGuard<'_, ()>) -> Result<i64, LogError> {
        let segments = self.shared.segments();
        // A deletion that has failed half way is completed, whatever this one was asked for.
        let start = match &segments[..] {
            [first, next, ..] if first.is_leaving() => self.start.max(next.base_offset()),
            _ => self.start,
        };
        let gone = count_before(segments.iter().map(|segment| segment.base_offset()), start);
        let mut removed = 0;
        self.remove_or_note(&self.shared.take_unremoved());
        if gone == 0 && start <= self.shared.log_start() {
            return Ok(self.shared.log_start());
        }
        while let Err(source) = write_log_start(&*self.disk, &self.dir, start) {
            let error = LogError::io("write", &self.dir.join(LOG_START), source);
            if !matches!(error, LogError::Full { .. }) || removed == gone {
                return Err(error);
            }
            withdraw_claim(&*self.disk, &self.dir)?;
            self.remove_alone(&segments[removed], segments[removed + 1].base_offset())?;
            removed += 1;
            if start <= self.shared.log_start() {
                // It ends with a segment: there is nothing left to write down.
                return Ok(self.shared.log_start());
            }
        }
        let copied = write_copy(&*self.disk, &self.dir, start);
        self.shared.advance_start(start);
        // The mark comes before the first name goes: whoever then can't open a file knows why.
        segments[removed..gone].iter().for_each(|segment| segment.mark_removed());
        self.remove_or_note(&segments[removed..gone]);
        // There may be room for it now. If not, the next opening writes it, or the next deletion.
        if let Err(error) = copied.or_else(|_| write_copy(&*self.disk, &self.dir, start)) {
            let path = self.dir.join(LOG_START_COPY);
            tracing::warn!(path = %path.display(), %error, "the second copy of the log start can't be written yet");
        }
        Ok(self.shared.log_start())
    }

    fn remove_or_note(&self, segments: &[Arc<Segment>]) {
        let mut failed = Vec::new();
        for segment in segments {
            if let Err(error) = self.remove_files(segment, &[LOG, INDEX, TIME_INDEX]) {
                self.shared.add_unremoved(segment);
                failed.push(error);
            }
        }
        if let Some(error) = failed.first() {
            tracing::warn!(segments = failed.len(), error = error.chain(), "segments that were deleted can't be removed yet");
        }
    }

    /// Removes the oldest segment without `log-start`. The names are synced on both sides: of the later segments, so that there is
    /// something left behind a crash, and of this one, so that no older one is left.
    fn remove_alone(&self, segment: &Arc<Segment>, next_base: i64) -> Result<(), LogError> {
        let sync = || sync_names(&*self.disk, &self.dir).map_err(|source| LogError::io("flush", &self.dir, source));
        sync()?;
        let is_half_deleted = segment.is_leaving();
        segment.begin_leaving().map_err(|source| LogError::io("open", &segment.path(), source))?;
        let removed = remove_files(&*self.disk, &self.dir, segment.base_offset(), &[LOG]);
        // What has lost its name in an attempt before this one does not get it back.
        removed.inspect_err(|_| {
            if !is_half_deleted {
                segment.stay();
            }
        })?;
        sync().inspect_err(|error| {
            if !is_half_deleted {
                let (segment, error) = (segment.path(), error.chain());
                let hint = "the log is compacted again once its deletion is completed, by the next one or when the log is opened";
                tracing::warn!(segment = %segment.display(), error, hint, "a segment is deleted by halves: a power cut may bring it back");
            }
        })?;
        self.shared.advance_start(next_base);
        segment.mark_removed();
        segment.log().discard();
        // Without the batches the indexes are of no use, to the next opening neither.
        if let Err(error) = remove_files(&*self.disk, &self.dir, segment.base_offset(), &[INDEX, TIME_INDEX]) {
            tracing::warn!(error = error.chain(), "an index of a segment that was deleted can't be removed yet");
            self.shared.add_unremoved(segment);
        }
        Ok(())
    }

    fn remove_files(&self, segment: &Segment, extensions: &[&str]) -> Result<(), LogError> {
        remove_files(&*self.disk, &self.dir, segment.base_offset(), extensions)?;
        // Without a name it takes up room for as long as it is open; a read that is under way has it to itself.
        segment.log().discard();
        Ok(())
    }
}

/// Removes files of a segment, as far as they are there.
pub(crate) fn remove_files(disk: &dyn Disk, dir: &Path, base_offset: i64, extensions: &[&str]) -> Result<(), LogError> {
    for extension in extensions {
        let path = file_path(dir, base_offset, extension);
        match disk.remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(LogError::io("remove", &path, error)),
            _ => {}
        }
    }
    Ok(())
}

/// How many of the first segments lie wholly before `start`, by their base offsets. Never the last one: nothing says where it ends.
pub(crate) fn count_before(bases: impl Iterator<Item = i64>, start: i64) -> usize {
    bases.skip(1).take_while(|next_base| *next_base <= start).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deletion_that_does_not_wait_does_nothing_while_segments_are_exchanged() {
        let disk = crate::sim::SimDisk::new();
        let (mut log, _) = crate::Log::open(Arc::new(disk.clone()), Path::new("/log"), crate::LogConfig::default()).expect("opens");
        let mut builder = millpond_protocol::batch::BatchBuilder::new();
        builder.push(&millpond_protocol::record::NewRecord::default()).expect("fits");
        let bytes = builder.finish(millpond_protocol::compression::Codec::None).expect("has a record");
        log.append(&[millpond_protocol::batch::Batch::parse(bytes).expect("a batch")], 0).expect("appends");
        let deletion = log.begin_delete(1).expect("there is a record");
        let shared = Arc::clone(&deletion.shared);
        let exchanging = shared.changing();
        let before = disk.count(crate::sim::Operation::Write);
        assert_eq!(deletion.try_run().expect("nothing fails"), None);
        assert_eq!((log.log_start(), disk.count(crate::sim::Operation::Write)), (0, before));
        drop(exchanging);
        assert_eq!(deletion.try_run().expect("nothing fails"), Some(1));
        assert_eq!(log.log_start(), 1);
    }

    #[test]
    fn segments_before_the_start_are_counted_and_the_last_one_never_is() {
        for (start, expected) in [(-1, 0), (0, 0), (99, 0), (100, 1), (101, 1), (250, 2), (i64::MAX, 2)] {
            assert_eq!(count_before([0, 100, 200].into_iter(), start), expected, "{start}");
        }
        assert_eq!(count_before(std::iter::empty(), 5), 0);
    }
}

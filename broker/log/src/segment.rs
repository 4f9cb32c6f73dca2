//! One segment: its three files, and how much of them readers may see.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use crate::ahead::RoomAhead;
use crate::config::LogConfig;
use crate::damages::{DamagedSpan, Damages, Extent, Survey, survey};
use crate::disk::{Disk, DiskFile, OpenMode};
use crate::error::{LogError, is_unreadable};
use crate::folder::{INDEX, LOG, TIME_INDEX, file_path};
use crate::index::{Index, LazyFile, NO_TIMESTAMP, OffsetEntry, TimeEntry};
use crate::inspect::SegmentWalk;
use crate::open_files::{OpenFiles, PooledFile};
use crate::scan::{Found, Scan};
use crate::verified::Verified;

/// A segment, shared by the tail, the flushes and the readers. Its bytes only ever grow, and a batch stays where it is.
#[derive(Debug)]
pub(crate) struct Segment {
    base_offset: i64,
    log: PooledFile,
    pub(crate) offsets: Index<OffsetEntry>,
    pub(crate) times: Index<TimeEntry>,
    /// Bytes that readers may see, always a whole number of batches. Behind them there may be a write in progress.
    bytes: AtomicU64,
    /// No batch that readers may see has a larger timestamp.
    max_timestamp: AtomicI64,
    /// That is what the last entry of the time index says, and nobody has compared it with the batch that it names.
    is_claimed: AtomicBool,
    verified: Verified,
    /// What is known of damage in the middle.
    damages: Damages,
    /// Nobody has learned yet how many bytes it has: the disk did not give that back when the log was opened.
    unmeasured: AtomicBool,
    room: RoomAhead,
    /// Its records are deleted for good, it is in no list any more, and its files go, or are gone.
    removed: AtomicBool,
    /// The file of a segment whose name goes, or is gone, without its deletion being durable yet: a power cut may bring it back.
    leaving: Mutex<Option<Arc<dyn DiskFile>>>,
    /// Set before compaction gives its name to another file: the file as it was, for those who still read it.
    replaced: OnceLock<Arc<dyn DiskFile>>,
    /// Tells it from every other segment of this process, those with the same base offset included.
    generation: u64,
}

/// What is known of a segment when it is opened.
pub(crate) struct Content {
    /// Bytes of whole batches.
    pub(crate) bytes: u64,
    /// No batch has a larger timestamp.
    pub(crate) max_timestamp: i64,
    pub(crate) verified: Verified,
}

impl Segment {
    /// Creates the files of a new segment. If that fails, there is no `.log` file by this name.
    pub(crate) fn create(
        disk: &Arc<dyn Disk>,
        files: &OpenFiles,
        dir: &Path,
        base_offset: i64,
        config: &LogConfig,
    ) -> Result<Segment, LogError> {
        let create = |extension, mode| {
            let path = file_path(dir, base_offset, extension);
            match disk.open(&path, mode) {
                Ok(file) => Ok((path, file)),
                Err(source) => Err(LogError::io("create", &path, source)),
            }
        };
        // The indexes may be left from an attempt that failed. The .log is last, so nothing can fail once it is there. They are opened
        // again when the first entries move to them, which takes megabytes of batches.
        let (offsets, _) = create(INDEX, OpenMode::Replace)?;
        let (times, _) = create(TIME_INDEX, OpenMode::Replace)?;
        let (log, file) = create(LOG, OpenMode::CreateNew)?;
        let log = PooledFile::opened(files, Arc::clone(disk), log, file);
        let offsets = Index::new(LazyFile::new(Arc::clone(disk), offsets), 0, Vec::new());
        let times = Index::new(LazyFile::new(Arc::clone(disk), times), 0, Vec::new());
        let content = Content { bytes: 0, max_timestamp: NO_TIMESTAMP, verified: Verified::new(config.verify_on_read, 0) };
        Ok(Segment::assemble(base_offset, log, offsets, times, content))
    }

    pub(crate) fn assemble(
        base_offset: i64,
        log: PooledFile,
        offsets: Index<OffsetEntry>,
        times: Index<TimeEntry>,
        content: Content,
    ) -> Segment {
        let Content { bytes, max_timestamp, verified } = content;
        let (bytes, max_timestamp) = (AtomicU64::new(bytes), AtomicI64::new(max_timestamp));
        let (damages, room) = (Damages::default(), RoomAhead::default());
        let (removed, leaving, replaced) = (AtomicBool::new(false), Mutex::default(), OnceLock::new());
        let is_claimed = AtomicBool::new(false);
        let (generation, unmeasured) = (NEXT_GENERATION.fetch_add(1, Ordering::Relaxed), AtomicBool::new(false));
        Segment {
            base_offset,
            log,
            offsets,
            times,
            bytes,
            max_timestamp,
            is_claimed,
            verified,
            damages,
            unmeasured,
            room,
            removed,
            leaving,
            replaced,
            generation,
        }
    }

    /// The same segment, with damage that a recovery has found.
    pub(crate) fn with_damages(self, spans: Vec<DamagedSpan>) -> Segment {
        Segment { damages: Damages::new(spans), ..self }
    }

    /// The same closed segment, of whose largest timestamp nothing but the time index is known.
    pub(crate) fn with_claimed_times(self) -> Segment {
        Segment { is_claimed: AtomicBool::new(true), ..self }
    }

    /// The same closed segment, which could not even be measured: damage as a whole, up to where the next one begins.
    pub(crate) fn unmeasured(self, next_base: i64) -> Segment {
        let span = DamagedSpan { position: 0, behind: 0, offset: self.base_offset, next_offset: next_base };
        Segment { unmeasured: AtomicBool::new(true), ..self.with_damages(vec![span]) }
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    pub(crate) fn base_offset(&self) -> i64 {
        self.base_offset
    }

    pub(crate) fn log(&self) -> &PooledFile {
        &self.log
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.log.path().to_path_buf()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Acquire)
    }

    pub(crate) fn max_timestamp(&self) -> i64 {
        self.max_timestamp.load(Ordering::Acquire)
    }

    /// Whether nobody has compared that with a batch yet.
    pub(crate) fn is_max_timestamp_claimed(&self) -> bool {
        self.is_claimed.load(Ordering::Acquire)
    }

    /// Notes whether the last entry of the time index is true. If it is not, any timestamp may be in the segment.
    pub(crate) fn settle_max_timestamp(&self, is_true: bool) {
        if !is_true {
            self.max_timestamp.store(i64::MAX, Ordering::Release);
        }
        self.is_claimed.store(false, Ordering::Release);
    }

    /// Which batches need no comparison with their checksums any more.
    pub(crate) fn verified(&self) -> &Verified {
        &self.verified
    }

    /// Lets readers see the bytes up to here. They are in the file.
    pub(crate) fn publish(&self, bytes: u64, max_timestamp: i64) {
        self.max_timestamp.store(max_timestamp, Ordering::Release);
        self.bytes.store(bytes, Ordering::Release);
    }

    /// Notes that its deletion is durable and it is in no list any more. The files that are there go next. Never taken back.
    pub(crate) fn mark_removed(&self) {
        self.removed.store(true, Ordering::Release);
        *self.leaving.lock() = None;
    }

    /// Whether it is deleted for good. To be asked after a file could not be opened: the mark comes before one can't be.
    pub(crate) fn is_removed(&self) -> bool {
        self.removed.load(Ordering::Acquire)
    }

    /// Takes hold of the file before its name goes, while a power cut may bring that back: until then the segment is a part of the log, which
    /// is read and flushed as any other.
    pub(crate) fn begin_leaving(&self) -> io::Result<()> {
        let file = self.file()?;
        *self.leaving.lock() = Some(file);
        Ok(())
    }

    /// Its name could not be removed.
    pub(crate) fn stay(&self) {
        *self.leaving.lock() = None;
    }

    /// Whether its deletion is under way, or has failed half way.
    pub(crate) fn is_leaving(&self) -> bool {
        self.leaving.lock().is_some()
    }

    /// Room on the disk for what it will hold next.
    pub(crate) fn room(&self) -> &RoomAhead {
        &self.room
    }

    /// Gives back the room that no batch has taken, for the next sync to make durable. Nothing is written to the segment any more, or not
    /// now. Failing is harmless.
    pub(crate) fn release_room(&self) {
        if self.is_gone() || !self.room.is_held(self.bytes()) {
            return;
        }
        match self.file().and_then(|file| file.release()) {
            Ok(()) => self.room.is_released(),
            Err(error) => {
                tracing::warn!(path = %self.log.path().display(), %error, "room that a segment does not need can't be given back");
            }
        }
    }

    /// Notes that its names are about to stand for another file, or for none. Whoever has this segment goes on reading the file as it was,
    /// by this handle, and without its indexes.
    pub(crate) fn mark_replaced(&self, file: Arc<dyn DiskFile>) {
        // A second handle would be one of the same file.
        let _ = self.replaced.set(file);
    }

    /// Whether its names may stand for another file. To be asked after one was opened: the mark comes before the first name changes.
    pub(crate) fn is_replaced(&self) -> bool {
        self.replaced.get().is_some()
    }

    /// Whether its files are no concern of the log any more.
    fn is_gone(&self) -> bool {
        self.is_removed() || self.is_replaced()
    }

    /// The file that holds this segment's batches, whatever its name stands for by now.
    pub(crate) fn file(&self) -> io::Result<Arc<dyn DiskFile>> {
        if let Some(file) = self.replaced.get() {
            return Ok(Arc::clone(file));
        }
        let opened = self.log.get().or_else(|error| self.leaving.lock().clone().ok_or(error));
        // Asked again: what was opened may be the other file.
        self.replaced.get().map_or(opened, |file| Ok(Arc::clone(file)))
    }

    /// Makes the batches durable. Of a segment that was deleted for good there is nothing to keep.
    pub(crate) fn sync_log(&self) -> Result<(), LogError> {
        if self.is_gone() {
            return Ok(());
        }
        match self.log.sync() {
            // It has no name any more and no open file. One with unsynced bytes would be open.
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.is_leaving() => Ok(()),
            // In this order: the mark comes before it has left.
            Err(source) if !self.is_gone() => Err(LogError::io("flush", self.log.path(), source)),
            _ => Ok(()),
        }
    }

    /// Moves index entries to their files once enough of them have gathered. Failing is harmless: they stay in memory, and recovery
    /// can do without.
    pub(crate) fn spill_indexes(&self) {
        let spilled = [
            (self.offsets.wants_spill().then(|| self.offsets.spill()), self.offsets.path()),
            (self.times.wants_spill().then(|| self.times.spill()), self.times.path()),
        ];
        for (outcome, path) in spilled {
            if let Some(Err(error)) = outcome {
                tracing::warn!(path = %path.display(), %error, "index entries can't be written and stay in memory");
            }
        }
    }

    /// Completes both index files and makes them durable. Returns whether that worked.
    pub(crate) fn settle_indexes(&self) -> bool {
        if self.is_gone() {
            return true;
        }
        let mut settled = true;
        for (outcome, path) in [(self.offsets.settle(), self.offsets.path()), (self.times.settle(), self.times.path())] {
            if let Err(error) = outcome
                && !self.is_gone()
            {
                tracing::warn!(path = %path.display(), %error, "an index can't be completed; it will be rebuilt when the log is opened");
                settled = false;
            }
        }
        settled
    }

    /// Appends bytes of the `.log` to `into`, as [`crate::DiskFile::read_at`].
    pub(crate) fn read_at(&self, into: &mut Vec<u8>, bytes_max: usize, at: u64) -> Result<usize, LogError> {
        self.file().and_then(|file| file.read_at(into, bytes_max, at)).map_err(|source| LogError::io("read", self.log.path(), source))
    }

    /// A walk over the batches that readers may see, from a position where one begins.
    pub(crate) fn scan(&self, position: u64) -> Result<Scan, LogError> {
        let opened = self.file().map_err(|source| LogError::io("open", self.log.path(), source));
        let file = opened.map_err(|error| error.at(position, self.base_offset))?;
        Ok(Scan::new(file, self.path(), self.base_offset, position, self.bytes()))
    }

    /// What is known of damage in the middle.
    pub(crate) fn damages(&self) -> &Damages {
        &self.damages
    }

    /// Reads the segment through for damage, if nothing is known of what was met at this position. Returns whether what failed is worth another
    /// try. `next_base` is where the next segment begins.
    pub(crate) fn survey_for(&self, position: u64, next_base: Option<i64>) -> bool {
        let is_new = self.measure() || !self.damages.have(position, self.extent(next_base));
        is_new && self.survey(next_base)
    }

    /// Learns how many bytes there are, if nobody could before. Returns whether it has.
    fn measure(&self) -> bool {
        if !self.unmeasured.load(Ordering::Acquire) {
            return false;
        }
        let Ok(bytes) = self.file().and_then(|file| file.size_bytes()) else { return false };
        self.bytes.store(bytes, Ordering::Release);
        self.unmeasured.swap(false, Ordering::AcqRel)
    }

    /// Reads the segment through for damage: what is known of it is not what was met. Returns whether that was done.
    pub(crate) fn survey(&self, next_base: Option<i64>) -> bool {
        // Its name may stand for another file.
        if self.is_replaced() {
            return false;
        }
        self.damages.survey(|| self.look_through(next_base)).unwrap_or_else(|error| {
            tracing::warn!(error = %error.chain(), "a damaged segment can't be read through");
            false
        })
    }

    fn look_through(&self, next_base: Option<i64>) -> Result<Survey, LogError> {
        let extent = self.extent(next_base);
        let walk = SegmentWalk::open(&**self.log.disk(), self.log.path(), self.base_offset, next_base);
        let found = match (walk, next_base) {
            (Err(LogError::Io { source, .. }), Some(next_offset)) if is_unreadable(&source) => {
                let span = DamagedSpan { position: 0, behind: extent.bytes, offset: self.base_offset, next_offset };
                Survey { spans: vec![span], extent, ..Survey::default() }
            }
            (walk, _) => survey(walk?.up_to(extent.bytes), extent)?,
        };
        let (path, places) = (self.log.path().display(), found.spans.len() + usize::from(found.lost_from.is_some()));
        if places == 0 {
            tracing::warn!(%path, "what was damaged in a segment, or could not be read, is whole now");
        } else {
            tracing::error!(%path, places, "a segment is damaged; what is behind is still served");
        }
        Ok(found)
    }

    fn extent(&self, next_base: Option<i64>) -> Extent {
        Extent { bytes: self.bytes(), is_closed: next_base.is_some() }
    }

    /// Why nothing can be read where the segment is damaged. If the disk has thought better of it, the batch that holds `offset`, and those in
    /// front of it are whole too.
    fn find_damaged(&self, damaged: DamagedSpan, offset: i64) -> Result<Option<(Found, Scan)>, LogError> {
        let mut scan = self.scan(damaged.position)?.resume(damaged.position, damaged.offset);
        while let Some(found) = scan.next_header()? {
            scan.batch(&found)?;
            if offset < found.next_offset {
                return Ok(Some((found, scan)));
            }
        }
        Ok(None)
    }

    /// The batch that holds `offset`, with the walk behind it. None if the segment ends before.
    pub(crate) fn find(&self, offset: i64) -> Result<Option<(Found, Scan)>, LogError> {
        if let Some(damaged) = self.damages.holding(offset) {
            return self.find_damaged(damaged, offset);
        }
        let (start, expected) = self.damages.last_before(offset).map_or((0, self.base_offset), |span| (span.behind, span.next_offset));
        // Whether it was replaced is asked last: the entry may be one of another file's index.
        if let Some(entry) = self.offsets.lookup(offset - self.base_offset).filter(|entry| u64::from(entry.position) >= start)
            && !self.is_replaced()
        {
            let mut scan = self.scan(u64::from(entry.position))?;
            match scan.next_header() {
                Ok(Some(first)) if first.next_offset - 1 == self.base_offset + i64::from(entry.relative_offset) => {
                    return walk_to(offset, first, scan);
                }
                Err(error @ LogError::Io { .. }) => return Err(error),
                // Either the index is wrong, or the batch that it names is damaged: the walk from further in front will tell.
                _ => self.offsets.say_mismatch(entry),
            }
        }
        let mut scan = self.scan(start)?.resume(start, expected);
        match scan.next_header()? {
            Some(first) => walk_to(offset, first, scan),
            None => Ok(None),
        }
    }
}

/// Walks from the batch `found` to the one that holds `offset`.
fn walk_to(offset: i64, mut found: Found, mut scan: Scan) -> Result<Option<(Found, Scan)>, LogError> {
    while found.next_offset <= offset {
        match scan.next_header()? {
            Some(next) => found = next,
            None => return Ok(None),
        }
    }
    Ok(Some((found, scan)))
}

/// Counts the segments of this process.
static NEXT_GENERATION: AtomicU64 = AtomicU64::new(0);

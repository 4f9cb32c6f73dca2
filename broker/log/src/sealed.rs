//! Closed segments and index files, when a log is opened.
//!
//! A closed segment that is known to be durable is not read in full. Before the recovery point its indexes are complete and durable too,
//! so what can be wrong was done to them later; the check looks at their sizes and last entries, and walks over the headers behind the
//! last entry to the end of the file. Indexes that fail are built again by a walk over all headers, and so are those of a segment behind
//! the recovery point: that its batches are durable, the note of a clean stop can say as well, while it was the last one.
//!
//! A segment that is damaged, or that the disk does not give back, is opened all the same, and the walk goes on behind. So one that is bad
//! in the middle of a log takes nothing of the others.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::LogConfig;
use crate::damages::{DamagedSpan, SPANS_MAX};
use crate::disk::{Disk, DiskFile, OpenMode, write_all_at, write_atomically};
use crate::error::{Damage, LogError, is_unreadable};
use crate::folder::{INDEX, LOG, TIME_INDEX, file_path};
use crate::index::{Entries, Entry, Index, Indexer, LazyFile, NO_TIMESTAMP, OffsetEntry, TimeEntry, encode};
use crate::inspect::{DamagedRange, Piece, SegmentWalk};
use crate::open_files::{OpenFiles, PooledFile};
use crate::recovery::RecoveryReport;
use crate::scan::Scan;
use crate::segment::{Content, Segment};
use crate::verified::Verified;

/// Opens a closed segment that is durable. Damage is noted in the report and changes nothing on disk. With it comes whether its indexes
/// are complete on disk, as far as there can be any.
pub(crate) fn open_sealed(
    (disk, files): (&Arc<dyn Disk>, &OpenFiles),
    dir: &Path,
    (base_offset, next_base): (i64, i64),
    config: &LogConfig,
    keeping: Keeping,
    report: &mut RecoveryReport,
) -> Result<(Segment, bool), LogError> {
    let sealed = Sealed { disk, dir, base_offset, next_base, config };
    let path = file_path(dir, base_offset, LOG);
    let assemble = |bytes: Option<u64>, offsets, times, max_timestamp| {
        // A log with many segments has none of them open until they are read.
        let file = PooledFile::new(files, Arc::clone(disk), path.clone());
        let verified = Verified::new(config.verify_on_read, bytes.unwrap_or(u64::MAX));
        let content = Content { bytes: bytes.unwrap_or(0), max_timestamp, verified };
        Segment::assemble(base_offset, file, offsets, times, content)
    };
    let opened = disk.open(&path, OpenMode::Read).and_then(|file| file.size_bytes().map(|bytes| (file, bytes)));
    let (log, bytes) = match opened {
        Ok(opened) => opened,
        // Nobody knows how long it is, until somebody can open it.
        Err(source) if is_unreadable(&source) => {
            report.add_damaged(path.clone(), 0, Damage::Unreadable(source));
            let segment = assemble(None, sealed.index(INDEX, 0), sealed.index(TIME_INDEX, 0), i64::MAX);
            return Ok((segment.unmeasured(next_base), true));
        }
        Err(source) => return Err(LogError::io("open", &path, source)),
    };
    let (offsets, times) = (sealed.last_entry::<OffsetEntry>(INDEX), sealed.last_entry::<TimeEntry>(TIME_INDEX));
    if let (Some((offset_count, last_offset)), Some((time_count, last_time))) = (offsets, times)
        && keeping == Keeping::SealedDurable
        && sealed.ends_as_indexed(&log, bytes, last_offset, last_time)?
    {
        let max_timestamp = last_time.map_or(NO_TIMESTAMP, |entry| entry.timestamp);
        let (offsets, times) = (sealed.index(INDEX, offset_count), sealed.index(TIME_INDEX, time_count));
        return Ok((assemble(Some(bytes), offsets, times, max_timestamp).with_claimed_times(), true));
    }

    let HeaderWalk { entries, max_timestamp, is_straight, damages } = sealed.walk(&log, bytes)?;
    if !is_straight {
        let spans = damages.iter().map(|(span, _)| *span).collect();
        for (span, reason) in damages {
            report.add_damaged(path.clone(), span.position, reason);
        }
        // The indexes stay: an entry behind the damage may still be true, and each is checked when it is used. Nothing is known of the
        // timestamps behind it, so a lookup by time must not skip the segment.
        let (offsets, times) = (sealed.index(INDEX, offsets.map_or(0, |(count, _)| count)), sealed.index(TIME_INDEX, 0));
        return Ok((assemble(Some(bytes), offsets, times, i64::MAX).with_damages(spans), true));
    }
    let offsets = reconcile(disk, file_path(dir, base_offset, INDEX), entries.offsets, None, keeping);
    let times = reconcile(disk, file_path(dir, base_offset, TIME_INDEX), entries.times, None, keeping);
    let is_complete = offsets.unwritten.is_none() && times.unwritten.is_none();
    report.unwritten_indexes.extend(offsets.unwritten.into_iter().chain(times.unwritten));
    // One that lacks its newest entries is wrong only where all of them were durable.
    let is_durable = keeping == Keeping::SealedDurable;
    let rebuilt = [
        (offsets.wrong || is_durable && offsets.changed, offsets.index.path()),
        (times.wrong || is_durable && times.changed, times.index.path()),
    ];
    report.rebuilt_indexes.extend(rebuilt.into_iter().filter(|(is_rebuilt, _)| *is_rebuilt).map(|(_, path)| path.to_path_buf()));
    Ok((assemble(Some(bytes), offsets.index, times.index, max_timestamp), is_complete))
}

struct Sealed<'a> {
    disk: &'a Arc<dyn Disk>,
    dir: &'a Path,
    base_offset: i64,
    next_base: i64,
    config: &'a LogConfig,
}

/// What the headers of a closed segment have shown.
struct HeaderWalk {
    /// What the indexes should hold, and the largest timestamp, if the walk was straight.
    entries: Entries,
    max_timestamp: i64,
    /// Whether nothing had to be stepped over, be it that it was whole when it was looked at.
    is_straight: bool,
    /// What the walk has stepped over, rising, [`SPANS_MAX`] at most.
    damages: Vec<(DamagedSpan, Damage)>,
}

impl Sealed<'_> {
    fn index<E: Entry>(&self, extension: &str, entries: u64) -> Index<E> {
        let path = file_path(self.dir, self.base_offset, extension);
        Index::new(LazyFile::new(Arc::clone(self.disk), path), entries, Vec::new())
    }

    /// The number of entries in an index file, and the last one. None if it can't be read or is not made of entries.
    fn last_entry<E: Entry>(&self, extension: &str) -> Option<(u64, Option<E>)> {
        let path = file_path(self.dir, self.base_offset, extension);
        let read = || -> io::Result<Option<(u64, Option<E>)>> {
            let file = self.disk.open(&path, OpenMode::Read)?;
            let bytes = file.size_bytes()?;
            let entry_bytes = E::BYTES as u64;
            if !bytes.is_multiple_of(entry_bytes) {
                return Ok(None);
            }
            let mut last = Vec::new();
            if bytes > 0 {
                file.read_at(&mut last, E::BYTES, bytes - entry_bytes)?;
            }
            Ok(Some((bytes / entry_bytes, (last.len() == E::BYTES).then(|| E::decode(&last)))))
        };
        read().unwrap_or_else(|error| {
            tracing::warn!(path = %path.display(), %error, "an index can't be read");
            None
        })
    }

    /// Whether the end of the segment is as the last entries say: the offset entry names a batch, no further entry was due behind it,
    /// no batch there has a larger timestamp than the time entry, and the last one ends where the file and the offsets end.
    fn ends_as_indexed(
        &self,
        log: &Arc<dyn DiskFile>,
        bytes: u64,
        last_offset: Option<OffsetEntry>,
        last_time: Option<TimeEntry>,
    ) -> Result<bool, LogError> {
        let max_timestamp = last_time.map_or(NO_TIMESTAMP, |entry| entry.timestamp);
        let start = last_offset.map_or(0, |entry| u64::from(entry.position));
        let mut scan = self.scan(log, start, bytes);
        let mut indexer = Indexer::new(self.base_offset, self.config.index_interval_bytes);
        let mut due = Entries::default();
        // The batch that the entry names comes first.
        let mut named = last_offset.map(|entry| self.base_offset + i64::from(entry.relative_offset));
        let mut next_offset = self.base_offset;
        loop {
            match scan.next_header() {
                Ok(Some(found)) => {
                    next_offset = found.next_offset;
                    indexer.add(&found.header, found.position, &mut due);
                    let misnamed = named.take().is_some_and(|named| named != found.next_offset - 1);
                    if misnamed || !due.offsets.is_empty() || found.header.max_timestamp > max_timestamp {
                        return Ok(false);
                    }
                }
                Ok(None) => break,
                Err(LogError::Corrupt { .. }) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(next_offset == self.next_base)
    }

    /// Walks over all headers. What is met that does not fit is looked at by the checksums, from the last batch in front of it on: that one's
    /// length may be what is wrong.
    fn walk(&self, log: &Arc<dyn DiskFile>, bytes: u64) -> Result<HeaderWalk, LogError> {
        let mut scan = self.scan(log, 0, bytes);
        let mut indexer = Indexer::new(self.base_offset, self.config.index_interval_bytes);
        let (mut entries, mut is_straight, mut damages) = (Entries::default(), true, Vec::new());
        let (mut last, mut next_offset) = ((0, self.base_offset), self.base_offset);
        loop {
            let met_at = match scan.next_header() {
                Ok(Some(found)) => {
                    indexer.add(&found.header, found.position, &mut entries);
                    (last, next_offset) = ((found.position, found.header.base_offset), found.next_offset);
                    continue;
                }
                Ok(None) if next_offset == self.next_base => break,
                Ok(None) => bytes,
                Err(LogError::Corrupt { position, .. }) => position,
                Err(error) => return Err(error),
            };
            last = self.step_over(last, met_at, &mut damages)?;
            (is_straight, next_offset) = (false, last.1);
            if last.0 <= met_at || damages.len() >= SPANS_MAX {
                break;
            }
            scan = scan.resume(last.0, next_offset);
        }
        entries.times.extend(indexer.time_entry());
        Ok(HeaderWalk { entries, max_timestamp: indexer.max_timestamp(), is_straight, damages })
    }

    /// Goes on from a batch until it is behind a position, or at the end of the file. Returns where that is, and the offset there.
    fn step_over(&self, from: (u64, i64), met_at: u64, damages: &mut Vec<(DamagedSpan, Damage)>) -> Result<(u64, i64), LogError> {
        let path = file_path(self.dir, self.base_offset, LOG);
        let mut walk = SegmentWalk::open(&**self.disk, &path, self.base_offset, Some(self.next_base))?.resume(from.0, from.1);
        while walk.position() <= met_at
            && let Some(piece) = walk.next_piece()?
        {
            if let Piece::Damage(DamagedRange { position, bytes, offset, next_offset: Some(next_offset), reason, .. }) = piece {
                damages.push((DamagedSpan { position, behind: position + bytes, offset, next_offset }, reason));
            }
        }
        Ok((walk.position(), walk.next_offset()))
    }

    fn scan(&self, log: &Arc<dyn DiskFile>, position: u64, end: u64) -> Scan {
        Scan::new(Arc::clone(log), file_path(self.dir, self.base_offset, LOG), self.base_offset, position, end)
    }
}

/// An index that agrees with its segment.
pub(crate) struct Reconciled<E> {
    pub(crate) index: Index<E>,
    /// Whether the file held anything but the expected entries.
    pub(crate) changed: bool,
    /// Whether it was missing or wrong. One that merely lacks its newest entries, as after a crash, is neither.
    pub(crate) wrong: bool,
    /// Why the file is not as it should be, and durable where that was asked for, if it is not.
    pub(crate) unwritten: Option<io::Error>,
}

/// Which index file it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keeping {
    /// Of a closed segment before the recovery point: what is right in it is durable.
    SealedDurable,
    /// Of a closed segment behind the recovery point.
    Sealed,
    /// Of the segment that will be written to: it need not be durable yet.
    Active,
}

/// Makes an index file hold the expected entries. `extra` may follow them, and is cut off. The file of a closed segment is replaced in
/// one step and synced.
///
/// Behind the recovery point a file is written again even if it looks right. Its last sync may have failed, in a process that was killed
/// then: the system shows the bytes until the next boot, takes them for written, and says of every later sync that all is well.
///
/// If the file can't be written, as on a full disk, the entries stay in memory instead: a log must be readable all the same.
pub(crate) fn reconcile<E: Entry>(
    disk: &Arc<dyn Disk>,
    path: PathBuf,
    expected: Vec<E>,
    extra: Option<E>,
    keeping: Keeping,
) -> Reconciled<E> {
    let wanted = encode(&expected);
    let found = read_file(&**disk, &path, wanted.len() + E::BYTES);
    let as_closed = [wanted.clone(), encode(extra.as_slice())].concat();
    let wrong = found.as_ref().is_none_or(|found| !as_closed.starts_with(found));
    let changed = found.as_ref() != Some(&wanted);
    let written = match keeping {
        Keeping::SealedDurable if !changed => Ok(()),
        Keeping::SealedDurable | Keeping::Sealed => write_atomically(&**disk, &path, &wanted),
        Keeping::Active => overwrite(&**disk, &path, &wanted),
    };
    let count = expected.len() as u64;
    let file = LazyFile::new(Arc::clone(disk), path);
    let (index, unwritten) = match written {
        Ok(()) => (Index::new(file, count, Vec::new()), None),
        Err(error) => (Index::new(file, 0, expected), Some(error)),
    };
    Reconciled { index, changed, wrong, unwritten }
}

/// The bytes of a file, up to one more than `bytes_max`. None if it is missing or can't be read.
fn read_file(disk: &dyn Disk, path: &Path, bytes_max: usize) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    disk.open(path, OpenMode::Read).and_then(|file| file.read_at(&mut bytes, bytes_max + 1, 0)).ok()?;
    Some(bytes)
}

fn overwrite(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let file = disk.open(path, OpenMode::Replace)?;
    write_all_at(&*file, &mut [IoSlice::new(bytes)], 0)
}

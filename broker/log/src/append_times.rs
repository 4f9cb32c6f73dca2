//! When the segments of a log got their last appends, as the broker's own clock says.
//!
//! Kafka's files have no place for it, and their timestamps are the producers'. So there is a file of ours beside the segments, in the
//! manner of [`crate::sidecar`]:
//!
//! ```text
//! millpond append times 1
//! 00000000000000000000 1763700000000 134217640 1763786400000
//! 00000000000000004711 1763786400000 - -
//! crc32c 1a2b3c4d
//! |                    |             |         '-- the last append to it, in milliseconds since 1970
//! |                    |             '-- bytes in it then: with any other number of bytes, the time says nothing
//! |                    '-- when it was begun
//! '-- base offset of the segment
//! ```
//!
//! Times are taken when somebody looks ([`AppendTimes::observe`]), not at each append: a segment that has grown since the last look is
//! as young as this one. It makes nothing older than it is, and costs an append nothing. The file is written when a segment is begun or
//! closed, and for the active one once it has been quiet for an hour; a busy log does not write it.
//!
//! # Clocks
//!
//! Gateways boot in 1970, are set by the network an hour later, and lose their batteries. Nothing of that may delete a record early:
//!
//! - Ages grow by the monotonic clock alone. A step of the wall clock in a running process changes no age; it changes what is written
//!   down.
//! - A wall clock before [`WALL_CLOCK_FLOOR_MS`] is not believed: nothing is read by it, nothing is written by it.
//! - A time in the future, as it is found after the clock was set back, counts as now.
//! - A segment of which nothing is known is as old as the first look at it.
//!
//! # Crashes
//!
//! A crash can take the end of a segment, and what is appended in its place can make it as large again. So an opening that is not after a
//! clean stop takes back what the file says of bytes that are gone, before the first append.
//!
//! What can't be told from the truth is a clock that is years ahead when the broker starts; the first look should come a while after the
//! start for that reason, when the time service has had its chance.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::Disk;
use crate::error::LogError;
use crate::kept::WhenFull;
use crate::reader::SegmentInfo;
use crate::retention::SegmentAge;
use crate::sidecar::{Found, Stale, find_sealed, read_sealed, write_sealed};

/// The time at one moment, by two clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds since 1970-01-01 UTC, as far as the machine knows.
    pub wall_ms: i64,
    /// Milliseconds since some moment, the same for the life of the process. Never goes back, and no one sets it.
    pub monotonic_ms: i64,
}

/// The append times of one log's segments.
#[derive(Debug)]
pub struct AppendTimes {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    /// By base offset.
    seen: BTreeMap<i64, Seen>,
    /// Whether the file was read. It waits for a wall clock that can be believed.
    is_loaded: bool,
    /// What the file holds.
    written: BTreeMap<i64, Line>,
}

/// A segment, its times by the monotonic clock. They may lie before its start.
#[derive(Clone, Copy, Debug)]
struct Seen {
    begun_ms: i64,
    bytes: u64,
    appended_ms: i64,
    /// Not written to since the log was opened. What the file says may be true of no other: a segment that lost its end in a crash can
    /// grow to the very size that it had before.
    is_as_opened: bool,
}

/// A line of the file, its times by the wall clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Line {
    begun_ms: i64,
    /// None where the segment was being written to.
    last_append: Option<LastAppend>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct LastAppend {
    bytes: u64,
    at_ms: i64,
}

impl AppendTimes {
    /// For the log in this folder, with its segments as they were when it was opened. No I/O.
    pub fn new(disk: Arc<dyn Disk>, dir: &Path, opened: &[SegmentInfo], monotonic_ms: i64) -> AppendTimes {
        let seen = |segment: &SegmentInfo| {
            let bytes = segment.bytes;
            (segment.base_offset, Seen { begun_ms: monotonic_ms, bytes, appended_ms: monotonic_ms, is_as_opened: true })
        };
        AppendTimes { disk, dir: dir.to_path_buf(), seen: opened.iter().map(seen).collect(), is_loaded: false, written: BTreeMap::new() }
    }

    /// Looks at the segments of the log ([`LogReader::segments`](crate::LogReader::segments)), and says how old they are. The first look
    /// reads the file; one that can't be read is logged, and counts as none.
    pub fn observe(&mut self, now: Now, segments: &[SegmentInfo]) -> Vec<SegmentAge> {
        let (first, monotonic_ms) = (segments.first().map_or(i64::MAX, |segment| segment.base_offset), now.monotonic_ms);
        self.seen.retain(|base, _| *base >= first);
        for segment in segments {
            let fresh = Seen { begun_ms: monotonic_ms, bytes: segment.bytes, appended_ms: monotonic_ms, is_as_opened: false };
            let seen = self.seen.entry(segment.base_offset).or_insert(fresh);
            if seen.bytes != segment.bytes {
                *seen = Seen { begun_ms: seen.begun_ms, ..fresh };
            }
        }
        if !self.is_loaded && is_plausible(now.wall_ms) {
            self.is_loaded = true;
            self.load(now);
        }
        let since = |then_ms: i64| monotonic_ms.saturating_sub(then_ms).max(0).unsigned_abs();
        let age = |segment: &SegmentInfo| {
            let seen = self.seen.get(&segment.base_offset);
            SegmentAge {
                end_offset: segment.end_offset,
                bytes: segment.bytes,
                since_begun_ms: seen.map_or(0, |seen| since(seen.begun_ms)),
                since_append_ms: seen.map_or(0, |seen| since(seen.appended_ms)),
            }
        };
        segments.iter().map(age).collect()
    }

    /// Takes note that compaction has put one segment in the place of all that began at its offsets: its records are as old as theirs.
    pub fn replaced(&mut self, segment: &SegmentInfo) {
        let Some(begun_ms) = self.seen.range(segment.base_offset..segment.end_offset).map(|(_, seen)| seen.begun_ms).min() else { return };
        let appended_ms = self.seen.range(segment.base_offset..segment.end_offset).map(|(_, seen)| seen.appended_ms).max();
        self.seen.retain(|base, _| !(segment.base_offset..segment.end_offset).contains(base));
        let appended_ms = appended_ms.unwrap_or(begun_ms);
        self.seen.insert(segment.base_offset, Seen { begun_ms, bytes: segment.bytes, appended_ms, is_as_opened: false });
    }

    /// Writes the file if it would say something new, durably. Blocking. Says whether it did.
    ///
    /// # Errors
    ///
    /// Those of the disk. The file is as it was; the next call tries again.
    pub fn save(&mut self, now: Now) -> io::Result<bool> {
        if !self.is_loaded || !is_plausible(now.wall_ms) {
            return Ok(false);
        }
        let lines = self.lines(now);
        if !self.is_news(&lines) {
            return Ok(false);
        }
        write(&*self.disk, &self.dir.join(APPEND_TIMES), &lines)?;
        self.written = lines;
        Ok(true)
    }

    /// Takes over what the file knows of segments that are as they were.
    fn load(&mut self, now: Now) {
        let path = self.dir.join(APPEND_TIMES);
        let body = read_sealed(&*self.disk, &path, APPEND_TIMES_HEADING, APPEND_TIMES_BYTES_MAX).unwrap_or_else(|error| {
            tracing::warn!(path = %path.display(), %error, "the append times can't be read; segments count as appended to just now");
            None
        });
        self.written = body.iter().flat_map(|body| body.lines()).filter_map(parse_line).collect();
        // Nothing is in the future, and what was taken before the clock was set is not in the past.
        let moment = |wall_ms: i64| is_plausible(wall_ms).then(|| now.monotonic_ms - (now.wall_ms - wall_ms.min(now.wall_ms)));
        for (base, line) in &self.written {
            let Some(seen) = self.seen.get_mut(base) else { continue };
            if let Some(begun_ms) = moment(line.begun_ms) {
                seen.begun_ms = seen.begun_ms.min(begun_ms);
            }
            if let Some(last) = line.last_append.filter(|last| seen.is_as_opened && last.bytes == seen.bytes)
                && let Some(appended_ms) = moment(last.at_ms)
            {
                seen.appended_ms = seen.appended_ms.min(appended_ms);
            }
        }
    }

    /// What the file should say.
    fn lines(&self, now: Now) -> BTreeMap<i64, Line> {
        let wall = |then_ms: i64| now.wall_ms.saturating_sub(now.monotonic_ms.saturating_sub(then_ms));
        let active = self.seen.last_key_value().map(|(base, _)| *base);
        let line = |base: i64, seen: &Seen| {
            let is_quiet = Some(base) != active || now.monotonic_ms.saturating_sub(seen.appended_ms) >= QUIET_MS;
            let last_append = is_quiet.then(|| LastAppend { bytes: seen.bytes, at_ms: wall(seen.appended_ms) });
            Line { begun_ms: wall(seen.begun_ms), last_append }
        };
        // An empty one has nothing to keep a time for.
        let seen = self.seen.iter().filter(|(_, seen)| seen.bytes > 0);
        seen.map(|(base, seen)| (*base, line(*base, seen))).collect()
    }

    /// Whether these lines say what the file does not. A segment that is written to again is no news: its bytes tell. One that is smaller
    /// than it was is: it may come to that size again.
    fn is_news(&self, lines: &BTreeMap<i64, Line>) -> bool {
        let apart = |a: i64, b: i64| a.abs_diff(b) > TOLERANCE_MS;
        let differs = |(base, line): (&i64, &Line)| {
            let Some(old) = self.written.get(base) else { return true };
            let append_differs =
                line.last_append.is_some_and(|new| old.last_append.is_none_or(|old| old.bytes != new.bytes || apart(old.at_ms, new.at_ms)));
            let has_shrunk = old.last_append.is_some_and(|old| self.seen.get(base).is_some_and(|seen| seen.bytes < old.bytes));
            append_differs || has_shrunk || apart(old.begun_ms, line.begun_ms)
        };
        // Lines of segments that are gone do no harm, and go with the next news.
        lines.iter().any(differs)
    }
}

/// Takes back what the file says of bytes that a crash has taken, before anything is appended in their place: a segment could come to the
/// size that it had then, and would pass for as old. Of the segments at hand by their base offsets, with their bytes.
/// A file that can't be read, or not be written for lack of room, is removed: see [`Stale`].
pub(crate) fn forget_lost(disk: &dyn Disk, dir: &Path, sizes: &BTreeMap<i64, u64>, when_full: WhenFull) -> Result<(), LogError> {
    let path = dir.join(APPEND_TIMES);
    let stale = Stale { disk, path: &path, when_full, without: "segments count as appended to just now" };
    let read = || read_sealed(disk, &path, APPEND_TIMES_HEADING, APPEND_TIMES_BYTES_MAX);
    let Some(body) = stale.read(read)? else { return Ok(()) };
    let mut lines: BTreeMap<i64, Line> = body.lines().filter_map(parse_line).collect();
    let before = lines.clone();
    let first = sizes.keys().next().copied().unwrap_or(i64::MIN);
    // Those before the first segment were deleted, and no segment begins there again.
    lines.retain(|base, _| *base < first || sizes.get(base).is_some_and(|bytes| *bytes > 0));
    for (base, line) in &mut lines {
        line.last_append = line.last_append.filter(|last| sizes.get(base).is_none_or(|bytes| *bytes >= last.bytes));
    }
    if lines == before { Ok(()) } else { stale.replace(|| write(disk, &path, &lines)) }
}

/// What there is in the place of the file.
pub(crate) fn find_append_times(disk: &dyn Disk, dir: &Path) -> io::Result<Found<()>> {
    find_sealed(disk, (&dir.join(APPEND_TIMES), APPEND_TIMES_HEADING), APPEND_TIMES_BYTES_MAX, |_| Some(()))
}

fn write(disk: &dyn Disk, path: &Path, lines: &BTreeMap<i64, Line>) -> io::Result<()> {
    let mut body = String::with_capacity(lines.len() * LINE_BYTES_TYPICAL);
    for (base, line) in lines {
        let separator = if body.is_empty() { "" } else { "\n" };
        // Writing to a string can't fail.
        let _ = match line.last_append {
            Some(LastAppend { bytes, at_ms }) => write!(body, "{separator}{base:020} {} {bytes} {at_ms}", line.begun_ms),
            None => write!(body, "{separator}{base:020} {} - -", line.begun_ms),
        };
    }
    write_sealed(disk, path, APPEND_TIMES_HEADING, &body)
}

fn parse_line(line: &str) -> Option<(i64, Line)> {
    let mut fields = line.split(' ');
    let (base, begun_ms) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    let last_append = match (fields.next()?, fields.next()?) {
        ("-", "-") => None,
        (bytes, at_ms) => Some(LastAppend { bytes: bytes.parse().ok()?, at_ms: at_ms.parse().ok()? }),
    };
    fields.next().is_none().then_some((base, Line { begun_ms, last_append }))
}

fn is_plausible(wall_ms: i64) -> bool {
    wall_ms >= WALL_CLOCK_FLOOR_MS
}

/// A wall clock before 2025-01-01 UTC was not set: this software is younger.
pub const WALL_CLOCK_FLOOR_MS: i64 = 1_735_689_600_000;

/// The file that holds the times.
pub(crate) const APPEND_TIMES: &str = "append-times";

const APPEND_TIMES_HEADING: &str = "millpond append times 1";

/// Some 60 bytes a segment, at a quarter of a million segments in one log.
const APPEND_TIMES_BYTES_MAX: usize = 16 << 20;

const LINE_BYTES_TYPICAL: usize = 64;

/// The active segment's last append is written down when it was so long ago. Before that, a crash makes the records younger by as much.
const QUIET_MS: i64 = 3_600_000;

/// Times in the file that are off by less than this are left as they are: clocks are drawn, and a file is not written for that.
const TOLERANCE_MS: u64 = 60_000;

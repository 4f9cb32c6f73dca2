//! Opening a log whose files hold less than was durable: see [`super`].

use std::sync::Arc;

use super::{Durable, Recovered, Recovery};
use crate::clean_stop::clean_stop_path;
use crate::damages::{DamagedSpan, SPANS_MAX};
use crate::error::LogError;
use crate::folder::{INDEX, LOG, TIME_INDEX, file_path};
use crate::inspect::{Piece, SegmentWalk};
use crate::log_start::remove_files;
use crate::sealed::{Keeping, open_sealed};
use crate::segment::Segment;
use crate::sidecar::{Found, clear};
use crate::tail::Tail;

impl Recovery<'_> {
    /// Whether the log was closed in order and the files are as they were then. A note that is not whole is removed, durably; one that is,
    /// but not to be believed, when all else is done.
    pub(super) fn is_closed(&mut self, durable: &Durable, last: Option<i64>) -> Result<bool, LogError> {
        let interval_bytes = Some(u64::from(self.config.index_interval_bytes));
        if !self.report.flush_has_failed && durable.closed_end(last, self.log_start, interval_bytes).is_some() {
            return Ok(true);
        }
        let path = clean_stop_path(self.dir);
        let said = match &durable.note {
            Found::Nothing => return Ok(false),
            Found::Damaged => "the note of a clean stop is damaged; the last segment is read instead",
            Found::Whole(_) => "the files are not as the note of a clean stop says; the last segment is read instead",
        };
        tracing::warn!(path = %path.display(), "{said}");
        self.has_note = matches!(durable.note, Found::Whole(_));
        if !self.has_note {
            clear(&**self.disk, &path).map_err(|source| LogError::io("remove", &path, source))?;
        }
        Ok(false)
    }

    /// A log without segments: new, or somebody has removed them.
    pub(super) fn open_emptied(mut self, mut durable: Durable) -> Result<Recovered, LogError> {
        let (point, start) = (durable.point, self.log_start.unwrap_or(0));
        let Some(end) = durable.end().filter(|end| *end > start) else {
            self.producers.restore(durable.listed.unwrap_or_default());
            return self.create_first(point);
        };
        let listed = durable.producers_at(end);
        self.restore_or_observe(listed, &[])?;
        self.create_stand_in(start)?;
        self.go_on_behind(point, Vec::new(), (start, end))
    }

    /// Creates an empty segment that stands for those that are gone, durably, before there is one behind it.
    fn create_stand_in(&self, base_offset: i64) -> Result<(), LogError> {
        Segment::create(self.disk, self.files, self.dir, base_offset, self.config)?.log().close();
        self.sync_names()
    }

    /// What stands for the segments in front of the first one, if some are gone that nobody has deleted.
    pub(super) fn lost_front(&mut self, first: i64) -> Result<Option<Arc<Segment>>, LogError> {
        let Some(start) = self.claimed_start.filter(|start| *start < first) else { return Ok(None) };
        self.create_stand_in(start)?;
        self.open_with_loss(start, first).map(|segment| Some(Arc::new(segment)))
    }

    /// Closes the last segment as it is, although it lacks what was durable, and lets the log go on behind that in a new one.
    pub(super) fn go_on_behind(
        mut self,
        point: Option<i64>,
        mut segments: Vec<Arc<Segment>>,
        (last, end): (i64, i64),
    ) -> Result<Recovered, LogError> {
        segments.push(Arc::new(self.open_with_loss(last, end)?));
        self.base_producers = self.producers.snapshot();
        let next = Arc::new(Segment::create(self.disk, self.files, self.dir, end, self.config)?);
        next.log().close();
        segments.push(next);
        let tail = Tail::new(end, self.config);
        self.finish(point, segments, tail)
    }

    /// Opens a segment that does not hold all that was durable, and says what is gone.
    fn open_with_loss(&mut self, base_offset: i64, next_base: i64) -> Result<Segment, LogError> {
        let path = file_path(self.dir, base_offset, LOG);
        let mut walk = SegmentWalk::open(&**self.disk, &path, base_offset, Some(next_base))?;
        let mut spans = Vec::new();
        while let Some(piece) = walk.next_piece()? {
            let Piece::Damage(range) = piece else { continue };
            let (position, behind, offset) = (range.position, range.position + range.bytes, range.offset);
            let Some(next_offset) = range.next_offset.filter(|_| spans.len() < SPANS_MAX) else { continue };
            spans.push(DamagedSpan { position, behind, offset, next_offset });
            self.report.add_damaged(path.clone(), position, range.reason);
        }
        self.report.scanned_bytes += walk.file_bytes();
        if let Some(gone) = spans.last().filter(|span| span.next_offset == next_base) {
            let (path, from_offset, to_offset) = (path.display(), gone.offset, gone.next_offset - 1);
            let hint = "restore the folder from a backup, or give the offsets up with `millpond log repair`";
            let said = "records that were durable are gone: reads of them fail, and the log goes on behind them";
            tracing::error!(%path, from_offset, to_offset, hint, "{said}");
        }
        let place = (base_offset, next_base);
        let (segment, _) = open_sealed((self.disk, self.files), self.dir, place, self.config, Keeping::SealedDurable, self.report)?;
        Ok(segment.with_damages(spans))
    }

    /// The end of the log was lost in a crash, and lay behind the log start: what is left was deleted, and the next offset is the start.
    pub(super) fn begin_anew(mut self, point: Option<i64>, segments: &[Arc<Segment>]) -> Result<Recovered, LogError> {
        self.sync_names()?;
        for segment in segments {
            remove_files(&**self.disk, self.dir, segment.base_offset(), &[LOG, INDEX, TIME_INDEX])?;
            self.report.removed_leftovers.push(segment.path());
        }
        self.incomplete.clear();
        self.create_first(point)
    }

    /// Removes the note of a clean stop, durably, before anything is appended that it does not speak of. Where it is the only one to know
    /// of a loss in front of the last segment it stays, and is never believed: it speaks of another last segment.
    pub(super) fn forget_note(&self, is_at_last: bool, segments: &[Arc<Segment>]) -> Result<(), LogError> {
        let has_loss = || segments.iter().rev().nth(1).is_some_and(|segment| !segment.damages().is_empty());
        if !self.has_note || (!is_at_last && has_loss()) {
            return Ok(());
        }
        let path = clean_stop_path(self.dir);
        clear(&**self.disk, &path).map_err(|source| LogError::io("remove", &path, source))
    }
}

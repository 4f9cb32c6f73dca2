//! Bits that flip while the broker is away.

use std::ops::Range;
use std::path::Path;

use millpond_log::Disk;
use millpond_log::inspect::{Piece, SegmentWalk, WalkedBatch};
use millpond_log::sim::{Random, SimDisk};

use super::index;
use super::partition::Partition;

impl Partition {
    /// Flips a bit in some durable batches that have a whole one behind them: what has none can't be told from a torn tail.
    pub(super) fn rot(&mut self, disk: &SimDisk, random: &mut Random) {
        if !self.rots || !random.percent(40) {
            return;
        }
        let durable_end = self.known.durable.checked_sub(1).map_or(0, |last| self.known.batches[last].next);
        let Ok(names) = disk.list(&self.dir) else { return };
        // The next opening may exchange the damaged segment for one that was written before.
        if names.iter().any(|name| name == "compaction") {
            return;
        }
        let mut bases: Vec<i64> = names
            .iter()
            .filter_map(|name| Path::new(name).file_stem().filter(|_| name.to_string_lossy().ends_with(".log")))
            .filter_map(|stem| stem.to_str()?.parse().ok())
            .collect();
        bases.sort_unstable();
        let walks = bases.iter().enumerate().map(|(number, base)| {
            let path = self.dir.join(format!("{base:020}.log"));
            let batches = walk(disk, &path, *base, bases.get(number + 1).copied());
            (path, batches)
        });
        let segments: Vec<_> = walks.collect();
        let whole: Vec<_> = segments.iter().flat_map(|(_, batches)| batches).map(offsets_of).collect();
        for (path, batches) in &segments {
            for pair in batches.windows(2) {
                let (batch, behind) = (&pair[0], &pair[1]);
                let range = offsets_of(batch);
                let is_safe = behind.header.next_offset() <= durable_end && behind.header.base_offset == range.end;
                let bytes = batch.header.total_bytes();
                let at = index(random.below(bytes as u64));
                // The leader epoch is the broker's, and stands before what the checksum covers.
                let may_flip = range.start >= self.known.start && is_safe && !(12..16).contains(&at) && random.percent(8);
                if !may_flip || !self.stands_apart(&whole, &range) {
                    continue;
                }
                disk.damage(path, |found| found[index(batch.position) + at] ^= 1 << random.below(8));
                self.known.has_rotten = true;
                if let Some(keyed) = &mut self.keyed {
                    keyed.has_rotten(range.clone());
                }
                self.rotten.push(range);
            }
        }
    }

    /// Whether there are whole batches between this one and every damaged one. No checksum covers a base offset: behind damage it is believed
    /// where the damaged header announces it, or where what follows begins with the offset behind it. A flipped bit may have hit what the
    /// one says, and another one what the other says; then a batch that stands alone between the two counts as damaged, and rightly. Of two
    /// or more each has a whole one beside it, in front or behind, that vouches for it.
    fn stands_apart(&self, whole: &[Range<i64>], range: &Range<i64>) -> bool {
        self.rotten.iter().all(|other| {
            let between = other.end.min(range.end)..other.start.max(range.start);
            let is_between = |batch: &&Range<i64>| between.start <= batch.start && batch.end <= between.end;
            whole.iter().filter(is_between).count() >= WHOLE_BETWEEN_MIN
        })
    }
}

fn offsets_of(batch: &WalkedBatch) -> Range<i64> {
    batch.header.base_offset..batch.header.next_offset()
}

/// The whole batches of a segment.
fn walk(disk: &SimDisk, path: &Path, base_offset: i64, next_base: Option<i64>) -> Vec<WalkedBatch> {
    let Ok(mut walk) = SegmentWalk::open(disk, path, base_offset, next_base) else { return Vec::new() };
    let mut batches = Vec::new();
    while let Ok(Some(piece)) = walk.next_piece() {
        if let Piece::Batch(batch) = piece {
            batches.push(batch);
        }
    }
    batches
}

/// Whole batches between two damaged ones.
const WHOLE_BETWEEN_MIN: usize = 2;

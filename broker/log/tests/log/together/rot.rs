//! Bits that flip while the broker is away.

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
        for (number, base) in bases.iter().enumerate() {
            let path = self.dir.join(format!("{base:020}.log"));
            let batches = walk(disk, &path, *base, bases.get(number + 1).copied());
            for pair in batches.windows(2) {
                let (batch, behind) = (&pair[0], &pair[1]);
                let range = batch.header.base_offset..batch.header.next_offset();
                let is_beside_rotten = self.rotten.iter().any(|other| other.start <= range.end && other.end >= range.start);
                let is_safe = behind.header.next_offset() <= durable_end && behind.header.base_offset == range.end;
                let bytes = batch.header.total_bytes();
                let at = index(random.below(bytes as u64));
                // The leader epoch is the broker's, and stands before what the checksum covers.
                if range.start < self.known.start || is_beside_rotten || !is_safe || (12..16).contains(&at) || !random.percent(8) {
                    continue;
                }
                disk.damage(&path, |found| found[index(batch.position) + at] ^= 1 << random.below(8));
                self.known.has_rotten = true;
                if let Some(keyed) = &mut self.keyed {
                    keyed.has_rotten(range.clone());
                }
                self.rotten.push(range);
            }
        }
    }
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

//! Reads around what the disk does not give back.
//!
//! ```text
//!   asked for   |--------------------------------------------|    fails as a whole
//!   halves      |---------------------|----------------------|    until a part works, or is a block
//!   found       |=====================|======|000000|========|    zeros in the place of what can't be read, and a note of where
//! ```
//!
//! A system reads a page at once, so nothing smaller is tried apart. On a disk that is dying a read that fails can take seconds: after a
//! number of them what fails is not halved any more, and no place is tried twice.

use std::io;
use std::ops::Range;

use rustix::io::Errno;

use crate::disk::DiskFile;
use crate::error::is_unreadable;

/// What can't be read of one file, as far as somebody has tried.
#[derive(Debug)]
pub(crate) struct Unreadable {
    /// Rising and apart from each other, each with what the system said.
    ranges: Vec<(Range<u64>, Errno)>,
    /// How many more reads that fail are tried again in halves.
    halvings_left: u32,
}

impl Default for Unreadable {
    fn default() -> Unreadable {
        Unreadable { ranges: Vec::new(), halvings_left: HALVINGS_MAX }
    }
}

impl Unreadable {
    /// Appends the bytes from `at` on to `into`, fewer only where the file ends, with zeros in the place of what can't be read. They should lie
    /// within the file: of a part that fails nobody learns where it ends.
    ///
    /// # Errors
    ///
    /// Any other error than that the disk does not give bytes back. `into` may have grown then.
    pub(crate) fn read(&mut self, file: &dyn DiskFile, into: &mut Vec<u8>, bytes: usize, at: u64) -> io::Result<()> {
        let whole = at..at.saturating_add(bytes as u64);
        let mut parts = vec![whole];
        while let Some(part) = parts.pop() {
            let wanted = usize::try_from(part.end - part.start).unwrap_or(usize::MAX);
            match self.first_in(&part) {
                _ if part.is_empty() => {}
                Some(known) if known.start == part.start => {
                    into.resize(into.len() + usize::try_from(known.end - known.start).unwrap_or(0), 0);
                    parts.push(known.end..part.end);
                }
                Some(known) => parts.extend([known.start..part.end, part.start..known.start]),
                None => match file.read_at(into, wanted, part.start) {
                    // The file ends.
                    Ok(read) if read < wanted => return Ok(()),
                    Ok(_) => {}
                    Err(error) if is_unreadable(&error) => {
                        if let Some(middle) = self.middle(&part) {
                            parts.extend([middle..part.end, part.start..middle]);
                        } else {
                            self.note(part.clone(), Errno::from_io_error(&error).unwrap_or(Errno::IO));
                            parts.push(part);
                        }
                    }
                    Err(error) => return Err(error),
                },
            }
        }
        Ok(())
    }

    /// What the system has said of the first bytes in this range that can't be read; None if there are none.
    pub(crate) fn error_in(&self, range: Range<u64>) -> Option<io::Error> {
        self.ranges[self.first_index(range.start)..].first().filter(|(known, _)| known.start < range.end).map(|(_, errno)| (*errno).into())
    }

    /// How many bytes of this range can't be read.
    pub(crate) fn bytes_in(&self, range: Range<u64>) -> u64 {
        let known = self.ranges[self.first_index(range.start)..].iter().map(|(known, _)| known).take_while(|known| known.start < range.end);
        known.map(|known| known.end.min(range.end) - known.start.max(range.start)).sum()
    }

    /// The first known range that ends behind a position.
    fn first_index(&self, position: u64) -> usize {
        self.ranges.partition_point(|(known, _)| known.end <= position)
    }

    fn first_in(&self, part: &Range<u64>) -> Option<Range<u64>> {
        let (known, _) = self.ranges.get(self.first_index(part.start)).filter(|(known, _)| known.start < part.end)?;
        Some(known.start.max(part.start)..known.end.min(part.end))
    }

    /// Where to halve what could not be read; None if it is a block, or enough was tried.
    fn middle(&mut self, part: &Range<u64>) -> Option<u64> {
        let half = part.start + (part.end - part.start) / 2;
        let middle = (half / BLOCK_BYTES * BLOCK_BYTES).max((part.start + 1).next_multiple_of(BLOCK_BYTES));
        let is_divisible = middle < part.end && self.halvings_left > 0;
        self.halvings_left -= u32::from(is_divisible);
        is_divisible.then_some(middle)
    }

    /// Notes a part of which nothing is known yet.
    fn note(&mut self, part: Range<u64>, errno: Errno) {
        let at = self.first_index(part.start);
        match at.checked_sub(1).and_then(|before| self.ranges.get_mut(before)) {
            Some((before, _)) if before.end == part.start => before.end = part.end,
            _ => self.ranges.insert(at, (part, errno)),
        }
    }
}

/// What a system reads at once, and its place is a multiple of: a page.
const BLOCK_BYTES: u64 = 4096;

/// Reads that fail and are tried again in halves, for one pass over a file.
const HALVINGS_MAX: u32 = 1024;

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::slice;

    use super::*;
    use crate::disk::{Disk, OpenMode};
    use crate::sim::{Operation, Random, SimDisk};

    /// A file of so many bytes, none of them zero.
    fn file(disk: &SimDisk, bytes: usize) -> Vec<u8> {
        let path = Path::new("/file");
        disk.open(path, OpenMode::Replace).expect("opens");
        let content: Vec<u8> = (0..bytes).map(|at| u8::try_from(at % 255 + 1).expect("below 256")).collect();
        disk.damage(path, |found| found.clone_from(&content));
        content
    }

    #[test]
    fn everything_is_read_but_the_blocks_that_fail() {
        let mut random = Random::new(7);
        for _ in 0..300 {
            let disk = SimDisk::new();
            let bytes = 1 + random.below(100_000);
            let mut expected = file(&disk, usize::try_from(bytes).expect("small"));
            let broken: Vec<u64> = (0..=bytes / BLOCK_BYTES).filter(|_| random.percent(20)).collect();
            let ranges: Vec<_> = broken.iter().map(|block| block * BLOCK_BYTES + 100..block * BLOCK_BYTES + 101).collect();
            disk.make_unreadable(Path::new("/file"), &ranges);
            let (at, end) = (random.below(bytes), bytes);
            for block in &broken {
                let touched = block * BLOCK_BYTES + 100;
                let zeros = (block * BLOCK_BYTES).max(at)..((block + 1) * BLOCK_BYTES).min(end);
                if touched < end && touched >= at {
                    expected[usize::try_from(zeros.start).expect("small")..usize::try_from(zeros.end).expect("small")].fill(0);
                }
            }
            let file = disk.open(Path::new("/file"), OpenMode::Read).expect("opens");
            let (mut unreadable, mut found) = (Unreadable::default(), Vec::new());
            for _ in 0..2 {
                found.clear();
                unreadable.read(&*file, &mut found, usize::try_from(end - at).expect("small"), at).expect("reads");
                assert!(found == expected[usize::try_from(at).expect("small")..], "from {at} of {bytes}, broken {broken:?}");
            }
            let zeros = found.len() as u64 - found.iter().filter(|byte| **byte > 0).count() as u64;
            assert_eq!(unreadable.bytes_in(at..end), zeros);
            assert_eq!(unreadable.error_in(at..end).is_some(), zeros > 0);
            assert!(unreadable.error_in(end..u64::MAX).is_none());
        }
    }

    #[test]
    fn a_file_that_is_lost_as_a_whole_costs_a_bounded_number_of_reads_and_no_place_two() {
        let disk = SimDisk::new();
        let bytes = file(&disk, 32 << 20).len();
        disk.make_unreadable(Path::new("/file"), slice::from_ref(&(0..bytes as u64)));
        let file = disk.open(Path::new("/file"), OpenMode::Read).expect("opens");
        let mut unreadable = Unreadable::default();
        for round in 0..2 {
            let before = disk.count(Operation::Read);
            for at in (0..bytes).step_by(1 << 20) {
                let mut found = Vec::new();
                unreadable.read(&*file, &mut found, 1 << 20, at as u64).expect("reads");
                assert_eq!(found.len(), 1 << 20);
            }
            let reads = disk.count(Operation::Read) - before;
            assert!(if round == 0 { reads <= 2 * u64::from(HALVINGS_MAX) + 32 } else { reads == 0 }, "{reads} reads in round {round}");
        }
        assert_eq!(unreadable.bytes_in(0..u64::MAX), bytes as u64);
    }
}

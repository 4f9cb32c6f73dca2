//! Room on the disk for what a segment will hold next.
//!
//! A file that grows by small writes gets its blocks piece by piece, between those of all other files that grow at that time. Asking for a
//! larger piece ahead of the writes keeps a segment together, and takes the search for free blocks out of the append. The size of the
//! file stays what was written (fallocate(2) with `FALLOC_FL_KEEP_SIZE`), so a crash leaves no bytes that nobody has written.
//!
//! ```text
//!   | batches                | room ahead  |                a half of what is there, 4 MiB at most
//!   0                        size          up to            never behind LogConfig::segment_bytes
//! ```
//!
//! It is a hint: where the file system has no such thing, or no room, the append does without. The room that is not used is given back when
//! the segment is closed and flushed, when the log is closed, and when it is opened after a crash. A segment below 128 KiB has none,
//! so that many small logs hold nothing.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::disk::DiskFile;

/// How far one segment has room.
#[derive(Debug, Default)]
pub(crate) struct RoomAhead {
    /// No further room is asked for before the segment is this large.
    up_to: AtomicU64,
    /// How far room was got that was not given back.
    held: AtomicU64,
}

impl RoomAhead {
    /// Asks for room before a write that makes the file `bytes` bytes large. From the thread that owns the log's tail.
    pub(crate) fn ensure(&self, file: &dyn DiskFile, bytes: u64, segment_bytes_max: u64) {
        if bytes <= self.up_to.load(Ordering::Relaxed) {
            return;
        }
        let step = (bytes / 2).min(STEP_BYTES_MAX);
        let up_to = (bytes + step).min(segment_bytes_max);
        if step < STEP_BYTES_MIN || up_to <= bytes {
            return;
        }
        match file.allocate(up_to) {
            Ok(()) => self.held.store(up_to, Ordering::Relaxed),
            // No room, or no such thing: the write will tell what it needs. Asked again a step further on.
            Err(error) => tracing::debug!(%error, up_to, "no room is held for what a segment will hold next"),
        }
        self.up_to.store(up_to, Ordering::Relaxed);
    }

    /// Whether there is room to give back behind so many bytes.
    pub(crate) fn is_held(&self, bytes: u64) -> bool {
        self.held.load(Ordering::Relaxed) > bytes
    }

    /// Notes that it was given back.
    pub(crate) fn is_released(&self) {
        self.held.store(0, Ordering::Relaxed);
    }
}

/// The least that is worth asking for.
const STEP_BYTES_MIN: u64 = 64 << 10;

/// The most that a segment holds ahead.
const STEP_BYTES_MAX: u64 = 4 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{Disk, OpenMode, write_all_at};
    use crate::sim::SimDisk;
    use std::io::IoSlice;
    use std::path::Path;

    #[test]
    fn the_steps_grow_with_the_segment_and_end_with_it() {
        let disk = SimDisk::new();
        let file = disk.open(Path::new("/0.log"), OpenMode::CreateNew).expect("creates");
        let (room, mut steps) = (RoomAhead::default(), Vec::new());
        let (mut bytes, mut asked) = (0, 0);
        while bytes < 64 << 20 {
            bytes += 10_000;
            room.ensure(&*file, bytes, 64 << 20);
            let ahead = disk.allocated_bytes(Path::new("/0.log"));
            assert!(ahead <= 64 << 20 && ahead <= bytes + bytes / 2, "{ahead} bytes for {bytes}");
            assert_eq!(file.size_bytes().expect("a size"), 0, "the size is what was written");
            if ahead > asked {
                steps.push(ahead - bytes);
                asked = ahead;
            }
        }
        assert!(steps.is_sorted_by(|one, next| one <= next || *next < STEP_BYTES_MAX), "{steps:?}");
        assert!(steps[0] >= STEP_BYTES_MIN && steps[0] < 2 * STEP_BYTES_MIN && steps.len() < 40, "{steps:?}");
    }

    #[test]
    fn room_that_is_not_there_is_not_asked_for_with_every_write() {
        let disk = SimDisk::new();
        disk.limit_bytes(Some(1 << 20));
        let file = disk.open(Path::new("/0.log"), OpenMode::CreateNew).expect("creates");
        let room = RoomAhead::default();
        for bytes in (0..10 << 20).step_by(1_000) {
            room.ensure(&*file, bytes, 1 << 30);
        }
        write_all_at(&*file, &mut [IoSlice::new(&vec![1; 1 << 20])], 0).expect("what fits is written");
        assert!(disk.allocations() < 20 && !room.is_held(2 << 20), "{}", disk.allocations());
    }
}

//! What readers may see: the bytes that were appended, or an error that tells of a flipped bit.

use millpond_log::sim::{Operation, Random, SimDisk};
use millpond_log::{Cursor, Damage, LogError};

use crate::harness::check_from;
use crate::time::expected_time;

use super::index;
use super::partition::Partition;

impl Partition {
    /// Compares everything that can be read with what there should be.
    pub(super) fn check_contents(&self) {
        let Some(running) = &self.running else { return };
        let reader = running.log.reader();
        let (start, end) = (reader.log_start(), reader.log_end());
        if let Some(keyed) = &self.keyed {
            keyed.check(&reader);
        } else if self.rotten.is_empty() {
            check_from(&reader, &self.known.batches, start);
        } else {
            for stored in &self.known.batches {
                for offset in [stored.base.max(start), stored.next - 1] {
                    match reader.read(offset, 1, i64::MAX) {
                        Ok(read) => assert!(read == stored.bytes && !self.is_rotten(offset), "a wrong byte at offset {offset}"),
                        Err(LogError::Corrupt { .. }) => assert!(self.is_rotten(offset), "nothing was damaged at {offset}"),
                        Err(error) => panic!("offset {offset}: {error}"),
                    }
                }
            }
        }
        for range in self.rotten.iter().filter(|range| range.start >= start) {
            let read = reader.read(range.start, 1, i64::MAX);
            assert!(matches!(read, Err(LogError::Corrupt { .. })), "damage at {range:?} is not told: {read:?}");
        }
        for timestamp in [0, 2_000, 40_000, 90_000] {
            self.check_find_time(timestamp, end);
        }
    }

    fn is_rotten(&self, offset: i64) -> bool {
        self.rotten.iter().any(|range| range.contains(&offset))
    }

    fn check_find_time(&self, timestamp: i64, end: i64) {
        let Some(running) = &self.running else { return };
        let reader = running.log.reader();
        match reader.find_time(timestamp, end) {
            Ok(found) if self.keyed.is_some() => assert!(found.is_none_or(|(_, found)| found >= timestamp)),
            Ok(found) => {
                let expected = expected_time(&reader, &self.known.batches, timestamp, end);
                assert_eq!(found, expected, "timestamp {timestamp}, end {end}");
            }
            Err(LogError::Corrupt { .. }) => assert!(!self.rotten.is_empty(), "nothing was damaged"),
            Err(error) => panic!("timestamp {timestamp}: {error}"),
        }
    }

    /// What readers see between two steps. A consumer goes on where it was, up to the high watermark; another looks anywhere.
    pub(super) fn look(&mut self, disk: &SimDisk, random: &mut Random) {
        let Some(running) = &self.running else { return };
        let (start, visible, watermark) = (running.log.log_start(), running.log.log_end(), running.log.durable_end());
        assert!(watermark >= self.high_watermark && watermark <= visible, "{watermark} after {}", self.high_watermark);
        self.high_watermark = watermark;
        let max_bytes = index(random.below(3_000));
        // As each client has a position of its own, one may lie before the start by now.
        self.position = self.position.max(start);
        if self.position <= watermark {
            self.position = self.read(disk, self.position, max_bytes, watermark);
        }
        let anywhere = start + random.below((visible - start).unsigned_abs() + 1).cast_signed();
        self.read(disk, anywhere, max_bytes, visible);
        self.read_on(disk, max_bytes);
        if random.percent(10) {
            disk.forget_failures(Operation::Read);
            self.check_find_time(random.below(100_000).cast_signed(), visible);
        }
    }

    /// Reads at an offset, and compares every byte. Returns where a consumer goes on.
    fn read(&self, disk: &SimDisk, from: i64, max_bytes: usize, end: i64) -> i64 {
        let running = self.running.as_ref().expect("it runs");
        let reader = running.log.reader();
        let mut cursor = Cursor::new(from);
        let mut next = from;
        let outcome = if let Some(keyed) = &self.keyed {
            keyed.read(&reader, &mut cursor, max_bytes).map(|_| next = cursor.offset())
        } else {
            reader.read_next(&mut cursor, max_bytes, end).map(|read| {
                let mut rest = &read[..];
                for stored in self.known.batches.iter().filter(|stored| stored.next > from) {
                    if rest.is_empty() {
                        break;
                    }
                    assert!(stored.next <= end, "a batch behind the end {end} is served");
                    rest = rest.strip_prefix(&stored.bytes[..]).expect("the bytes that were appended there");
                    next = stored.next;
                }
                assert!(rest.is_empty() && cursor.offset() == next, "more is served than was appended");
            })
        };
        outcome.err().map_or(next, |error| self.step_over(disk, from, &error))
    }

    /// Goes on with the reader that holds its place in the files.
    fn read_on(&mut self, disk: &SimDisk, max_bytes: usize) {
        let running = self.running.as_mut().expect("it runs");
        let reader = running.log.reader();
        if running.cursor.offset() < reader.log_start() {
            running.cursor = Cursor::new(reader.log_start());
        }
        let (from, mut cursor) = (running.cursor.offset(), running.cursor.clone());
        let outcome = match &self.keyed {
            Some(keyed) => keyed.read(&reader, &mut cursor, max_bytes).map(|_| ()),
            None => reader.read_next(&mut cursor, max_bytes, i64::MAX).map(|read| {
                let expected = self.known.batches.iter().filter(|stored| stored.next > from && stored.next <= cursor.offset());
                let expected: Vec<u8> = expected.flat_map(|stored| stored.bytes.iter().copied()).collect();
                assert!(read == expected, "a wrong byte from offset {from} on");
            }),
        };
        match outcome {
            Ok(()) if cursor.offset() == from => cursor = Cursor::new(reader.log_start()),
            Ok(()) => {}
            Err(error) => cursor = Cursor::new(self.step_over(disk, from, &error)),
        }
        self.running.as_mut().expect("it runs").cursor = cursor;
    }

    /// A read at this offset has failed, as it may. Returns where to go on.
    fn step_over(&self, disk: &SimDisk, offset: i64, error: &LogError) -> i64 {
        match error {
            // The disk was told to fail, and has more than once.
            LogError::Corrupt { reason: Damage::Unreadable(_), .. } => offset,
            LogError::Corrupt { .. } => {
                let range = self.rotten.iter().find(|range| range.contains(&offset));
                range.unwrap_or_else(|| panic!("nothing was damaged at {offset}: {}", error.chain())).end
            }
            // The disk was told to fail.
            LogError::Io { .. } if disk.has_just_failed(Operation::Read) => offset,
            _ => panic!("offset {offset}: {}", error.chain()),
        }
    }
}

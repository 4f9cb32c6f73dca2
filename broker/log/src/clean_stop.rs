//! The note that a log was closed in order, so that the next opening has nothing to read.
//!
//! It is written when everything else is durable, and removed, durably, before the first append after an opening. It says how the last
//! segment ends and what of its indexes counts; an opening believes it if it is whole, if it speaks of the last segment, if the recovery
//! point lies there, and if the three files have just the sizes that it says. In every other case it is removed and the segment is read.
//!
//! ```text
//! clean-stop, all integers big-endian
//!
//!  0           8             16         24            32              40             48
//!  +-----------+-------------+----------+-------------+---------------+--------------+--------------------
//!  | magic     | base offset | bytes of | next offset | entries of    | entries of   | 1 if a closing entry
//!  | "mpclean2"| of the last | its .log | of the log  | its .index    | its          | follows them in the
//!  |           | segment     |          |             |               | .timeindex   | .timeindex, else 0
//!  +-----------+-------------+----------+-------------+---------------+--------------+--------------------
//!  56             64                 72               80                 88                 96            n-4         n
//!  +--------------+------------------+----------------+------------------+------------------+-------------+-----------+
//!  | index        | bytes since the  | largest        | last offset of   | timestamp of the | producers,  | CRC-32C   |
//!  | interval in  | last entry of    | timestamp      | the batch that   | last entry of    | as lines of | of all    |
//!  | bytes        | the .index       |                | brought it       | the .timeindex   | text        | before it |
//!  +--------------+------------------+----------------+------------------+------------------+-------------+-----------+
//! ```
//!
//! What stands for the producers is drawn in [`crate::producers`]; the layout before this one, "mpclean1", has nothing there, and is
//! read as the note of a log without producers. The five fields before it are what decides which of the next batches get an index entry.
//! The closing entry is not one of those that the next appends continue: it is cut off before them.
//!
//! That it is removed durably is one of two safeguards. The other: as long as nothing was appended to the segment, its `.log` has the size
//! that is noted, and with one batch more it never has again, since bytes of a segment are only ever added behind those that are there.
//! So even a note that comes back after a power cut, because the folder has lost its removal, tells the truth or is not believed.

use std::io;
use std::path::{Path, PathBuf};

use millpond_protocol::batch::checksum;

use crate::disk::{Disk, OpenMode, write_atomically};
use crate::folder::{CLEAN_STOP, INDEX, LOG, TIME_INDEX, file_path};
use crate::index::{Entry, Indexer, OffsetEntry, TimeEntry};
use crate::producers::{Listed, SNAPSHOT_BYTES_MAX, Snapshot, parse};
use crate::sidecar::{Found, read_bounded};
use crate::tail::Tail;

/// How a log ends that was closed in order.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CleanStop {
    pub(crate) tail: Tail,
    pub(crate) offset_entries: u64,
    /// Without the closing one.
    pub(crate) time_entries: u64,
    pub(crate) has_closing_entry: bool,
}

pub(crate) fn clean_stop_path(dir: &Path) -> PathBuf {
    dir.join(CLEAN_STOP)
}

impl CleanStop {
    /// Writes the note, durably, with the producers as they are at the end of the log. Everything that it speaks of must be durable.
    pub(crate) fn write(&self, producers: &Snapshot, disk: &dyn Disk, dir: &Path) -> io::Result<()> {
        write_atomically(disk, &clean_stop_path(dir), &self.encode(producers))
    }

    /// The note in this folder, with its producers.
    pub(crate) fn find(disk: &dyn Disk, dir: &Path) -> io::Result<Found<(CleanStop, Listed)>> {
        let bytes = read_bounded(disk, &clean_stop_path(dir), BYTES_MAX + 1)?;
        Ok(bytes.map_or(Found::Nothing, |bytes| CleanStop::decode(&bytes).map_or(Found::Damaged, Found::Whole)))
    }

    /// Whether the last segment's files have the sizes that it says.
    pub(crate) fn fits(&self, disk: &dyn Disk, dir: &Path) -> io::Result<bool> {
        let times = self.time_entries.checked_add(u64::from(self.has_closing_entry));
        let expected = [
            (LOG, Some(self.tail.bytes)),
            (INDEX, self.offset_entries.checked_mul(OffsetEntry::BYTES as u64)),
            (TIME_INDEX, times.and_then(|entries| entries.checked_mul(TimeEntry::BYTES as u64))),
        ];
        for (extension, bytes) in expected {
            let path = file_path(dir, self.tail.base_offset, extension);
            if !disk.exists(&path)? || Some(disk.open(&path, OpenMode::Read)?.size_bytes()?) != bytes {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn encode(&self, producers: &Snapshot) -> Vec<u8> {
        let indexer = &self.tail.indexer;
        let fields = [
            MAGIC,
            self.tail.base_offset.cast_unsigned(),
            self.tail.bytes,
            self.tail.next_offset.cast_unsigned(),
            self.offset_entries,
            self.time_entries,
            u64::from(self.has_closing_entry),
            indexer.interval_bytes,
            indexer.bytes_since_entry,
            indexer.max_timestamp.cast_unsigned(),
            indexer.offset_of_max.cast_unsigned(),
            indexer.timestamp_indexed.cast_unsigned(),
        ];
        let mut bytes: Vec<u8> = fields.iter().flat_map(|field| field.to_be_bytes()).collect();
        bytes.extend_from_slice(producers.text().as_bytes());
        bytes.extend_from_slice(&checksum(&bytes).to_be_bytes());
        bytes
    }

    /// None for anything that no log was ever closed with.
    fn decode(bytes: &[u8]) -> Option<(CleanStop, Listed)> {
        let (checked, crc) = bytes.split_last_chunk::<4>()?;
        if bytes.len() > BYTES_MAX || checksum(checked) != u32::from_be_bytes(*crc) {
            return None;
        }
        let (fields, text) = checked.split_at_checked(FIELDS_BYTES)?;
        let field = |number: usize| fields.get(number * 8..)?.first_chunk::<8>().map(|bytes| u64::from_be_bytes(*bytes));
        let signed = |number: usize| field(number).map(u64::cast_signed);
        let base_offset = signed(1)?;
        let indexer = Indexer {
            base_offset,
            interval_bytes: field(7)?,
            bytes_since_entry: field(8)?,
            max_timestamp: signed(9)?,
            offset_of_max: signed(10)?,
            timestamp_indexed: signed(11)?,
        };
        let tail = Tail { base_offset, bytes: field(2)?, next_offset: signed(3)?, indexer };
        let stop = CleanStop { tail, offset_entries: field(4)?, time_entries: field(5)?, has_closing_entry: field(6)? == 1 };
        let producers = match field(0)? {
            MAGIC => parse(std::str::from_utf8(text).ok()?)?,
            FIRST_MAGIC if text.is_empty() => Listed::new(),
            _ => return None,
        };
        let is_sane = field(6)? <= 1
            && (0..=tail.next_offset).contains(&base_offset)
            && (base_offset..=tail.next_offset).contains(&indexer.offset_of_max)
            && indexer.bytes_since_entry <= tail.bytes;
        is_sane.then_some((stop, producers))
    }
}

/// The first eight bytes; another layout gets another number.
const MAGIC: u64 = u64::from_be_bytes(*b"mpclean2");

/// Those of the layout before.
const FIRST_MAGIC: u64 = u64::from_be_bytes(*b"mpclean1");

/// Twelve of them.
const FIELDS_BYTES: usize = 96;

/// More than the note ever has.
const BYTES_MAX: usize = FIELDS_BYTES + SNAPSHOT_BYTES_MAX + 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn stop() -> CleanStop {
        let mut indexer = Indexer::new(4_711, 4_096);
        (indexer.bytes_since_entry, indexer.max_timestamp, indexer.offset_of_max) = (17, 1_700_000_000_000, 4_720);
        let tail = Tail { base_offset: 4_711, bytes: 5_000, next_offset: 4_730, indexer };
        CleanStop { tail, offset_entries: 1, time_entries: 1, has_closing_entry: true }
    }

    const PRODUCERS: &str = "producers 1\n815 3 2:120:122:0badcafe:1763700000000:0 9:-1:-1:1a2b3c4d:1763700000500:7";

    fn producers() -> Snapshot {
        let mut producers = crate::producers::Producers::new(&crate::Pools::default(), &crate::LogConfig::default());
        producers.restore(parse(PRODUCERS).expect("a producer"));
        producers.snapshot()
    }

    /// The fields of [`stop`] behind the magic.
    const GOLDEN_FIELDS: [u64; 11] = [4_711, 5_000, 4_730, 1, 1, 1, 4_096, 17, 1_700_000_000_000, 4_720, u64::MAX];

    fn golden(magic: [u8; 8], text: &str) -> Vec<u8> {
        let mut bytes = magic.to_vec();
        bytes.extend(GOLDEN_FIELDS.iter().flat_map(|field| field.to_be_bytes()));
        bytes.extend_from_slice(text.as_bytes());
        bytes.extend_from_slice(&checksum(&bytes).to_be_bytes());
        bytes
    }

    #[test]
    fn both_layouts_are_these_to_the_byte() {
        assert_eq!(stop().encode(&producers()), golden(*b"mpclean2", PRODUCERS));
        assert_eq!(stop().encode(&Snapshot::default()), golden(*b"mpclean2", "producers 0"));
        let (first, listed) = CleanStop::decode(&golden(*b"mpclean1", "")).expect("the layout before");
        assert_eq!((format!("{first:?}"), listed.len()), (format!("{:?}", stop()), 0));
        for (magic, text) in [(*b"mpclean1", PRODUCERS), (*b"mpclean2", ""), (*b"mpclean2", "producers unknown"), (*b"mpclean3", PRODUCERS)]
        {
            assert!(CleanStop::decode(&golden(magic, text)).is_none(), "{text}");
        }
        assert!(CleanStop::decode(&golden(*b"mpclean2", &"x".repeat(SNAPSHOT_BYTES_MAX + 1))).is_none());
    }

    #[test]
    fn the_note_is_read_back_and_no_flipped_bit_is_believed() {
        let bytes = stop().encode(&producers());
        assert_eq!(bytes.len(), FIELDS_BYTES + PRODUCERS.len() + 4);
        let (read, listed) = CleanStop::decode(&bytes).expect("it is whole");
        assert_eq!((format!("{read:?}"), listed.len()), (format!("{:?}", stop()), 1));
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(CleanStop::decode(&damaged).is_none(), "bit {bit}");
        }
        for length in 0..bytes.len() {
            assert!(CleanStop::decode(&bytes[..length]).is_none());
        }
        assert!(CleanStop::decode(&[&bytes[..], &[0]].concat()).is_none());
    }

    #[test]
    fn a_note_that_contradicts_itself_is_not_believed() {
        let changes: [fn(&mut CleanStop); 4] = [
            |stop| stop.tail.next_offset = 4_710,
            |stop| stop.tail.indexer.offset_of_max = 4_800,
            |stop| stop.tail.indexer.bytes_since_entry = 5_001,
            |stop| stop.tail.base_offset = -1,
        ];
        for change in changes {
            let mut lying = stop();
            change(&mut lying);
            assert!(CleanStop::decode(&lying.encode(&producers())).is_none(), "{lying:?}");
        }
    }
}

//! One partition's log on disk: batches in, batches out, and what is left after the power went.
//!
//! The log takes Kafka record batches as they are, gives them offsets, and serves them back from any offset or time. It knows no
//! topics, no network and no async runtime; every call blocks, and the broker runs it on threads of its own.
//!
//! # Files
//!
//! A log is a folder. It holds segments in Kafka's layout, so that Kafka's own dump tool reads them, and small files of ours:
//!
//! ```text
//! 00000000000000000000.log         batches, one behind the other, offsets 0..4711
//! 00000000000000000000.index       sparse: offset    -> position in the .log
//! 00000000000000000000.timeindex   sparse: timestamp -> offset
//! 00000000000000004711.log         the active segment: the only one that is written to
//! 00000000000000004711.index
//! 00000000000000004711.timeindex
//! recovery-point                   every segment before this one is known to be whole and durable, and its producers are
//! clean-stop                       nothing was appended since the log was closed in order
//! log-start                        records before this offset are deleted
//! log-start.2                      the same once more, since nothing else knows it; from the beginning, when it says 0
//! flush-failed                     what the system shows of the last segments may not be on disk
//! append-times                     when the segments got their last appends, by the broker's clock
//! compacted-to                     of the records before this offset, only the latest of each key are left
//! compaction                       segments are being exchanged: the next opening completes it
//! ```
//!
//! The number in a name is the offset of the segment's first batch, in 20 digits. A segment is closed, and the next one opened, when
//! a batch would make it larger than [`LogConfig::segment_bytes`]; a batch larger than that has a segment to itself.
//!
//! ```text
//! .log        +----------------------------------------------+-----------------+ ...
//!             | batch                                        | batch           |
//!             +----------------------------------------------+-----------------+ ...
//!              0            8         12          16      17      21
//!             +------------+---------+-----------+-------+-------+-------------
//!             | baseOffset | length  | leader    | magic | crc   | attributes, records ...
//!             | i64        | i32     | epoch i32 | = 2   | 32C   | (what the crc covers)
//!             +------------+---------+-----------+-------+-------+-------------
//!             '---- written by this crate ------' '--- the producer's bytes, never touched or copied
//!
//! .index      0                  4                8            an entry for the batch that begins when more than
//!             +------------------+----------------+ ...        index_interval_bytes were written since the last one:
//!             | last offset of   | position of    |            (a) its last offset less the segment's base
//!             | the batch (a)    | the batch      |
//!             +------------------+----------------+ ...
//!
//! .timeindex  0                  8                12           an entry beside each of those, where the largest timestamp
//!             +------------------+----------------+ ...        so far has grown, and one when the segment is closed:
//!             | largest time-    | last offset of |            (b) the batch that brought it, less the segment's base
//!             | stamp so far     | the batch (b)  |
//!             +------------------+----------------+ ...
//! ```
//!
//! All integers are big-endian. Both indexes follow from the `.log` alone, byte for byte, whoever writes them: the append, or the
//! recovery. They are hints: an entry is checked against the batch that it names before it is believed.
//!
//! # Invariants
//!
//! - The offsets of a log have no gap between batches: a batch's base offset is the last offset of the one before, plus one.
//! - Offsets never change. Where compaction leaves records out, their offsets are unused; where whole batches, an empty one takes them.
//! - What a reader can see is in the file whole: `log_end` moves after the bytes are written, and a failed append never moves it.
//! - What was flushed survives a power cut. What was not may survive in part; recovery keeps the whole batches up to the first hole.
//! - Only segments at or behind the recovery point, and always the last one, may lose bytes in a recovery: a torn tail, and what is behind
//!   a hole as an interrupted write leaves it. Whole batches among that are kept in files that no opening looks at (`*.removed-<n>`),
//!   and nothing is cut before they are durable there, unless no room for them can be had at all ([`WhenFull`]).
//! - What a whole recovery point or note of a clean stop says was durable is never contradicted in silence: where the files hold less, the
//!   log goes on behind it, and what is gone is damage in the middle.
//! - Any other damage is left as it is, named in the [`RecoveryReport`] of the opening that reads it, and answers reads with
//!   [`LogError::Corrupt`]; what is in front of it and behind it is served, and appends go on behind the last whole batch.
//!   [`inspect::RepairPlan`] mends it when somebody asks, and keeps what it removes likewise.
//! - What the disk does not give back is such damage too, for as long as it does not. Only an end of the last segment that can't be read
//!   keeps a log from being opened: nobody can say what of it was acknowledged.
//! - After a failed write or flush the log takes no appends until it is opened again; reads go on. A full disk is not such a failure,
//!   and neither is a file that could not be opened because too many are.
//! - What is remembered of a producer is what the headers of its batches say, whatever became of the process between them.
//! - Readers take no lock that the writer holds across I/O.
//!
//! # Use
//!
//! ```
//! use std::path::Path;
//! use std::sync::Arc;
//!
//! use millpond_log::{Cursor, Log, LogConfig, sim::SimDisk};
//! use millpond_protocol::{batch::{Batch, BatchBuilder}, compression::Codec, record::NewRecord};
//!
//! let (mut log, recovery) = Log::open(Arc::new(SimDisk::new()), Path::new("/readings-0"), LogConfig::default())?;
//! assert!(recovery.is_clean());
//!
//! let mut builder = BatchBuilder::new();
//! builder.push(&NewRecord { timestamp: 1_700_000_000_000, key: None, value: Some(b"21.5"), headers: &[] })?;
//! let batch = Batch::parse(builder.finish(Codec::None)?)?;
//! assert_eq!(log.append(&[batch.clone(), batch], 0)?, 0);
//!
//! // The flush may run on another thread while this one appends.
//! let flush = log.begin_flush().expect("two batches are not durable yet");
//! assert_eq!(log.end_flush(flush.run())?, 2);
//!
//! let mut cursor = Cursor::new(log.log_start());
//! let batches = log.reader().read_next(&mut cursor, 1 << 20, log.durable_end())?;
//! assert_eq!((batches.len() as u64, cursor.offset()), (log.size_bytes(), 2));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Map
//!
//! | module | holds |
//! |---|---|
//! | `log` | [`Log`], the tail: append, roll, close |
//! | `tail` | which batch goes where: pure, decided before the first byte is written |
//! | `flush` | [`Flush`]: group commit, apart from the appends |
//! | `reader`, `time` | [`LogReader`], [`Cursor`]: reads by offset, by position, by time |
//! | `recovery`, `sealed`, `folder` | what is done with the files when a log is opened |
//! | `verdict`, `kept` | whether damage is a torn tail, an interrupted write or rot; [`SetAside`]: what is cut off and kept |
//! | `damages` | where segments are damaged in the middle, so that readers step over it |
//! | `log_start` | [`Deletion`]: where a log begins, once its oldest records were deleted |
//! | `retention`, `append_times` | [`RetentionLimits`], [`AppendTimes`]: which records are old enough for that |
//! | `compact` | [`Compactor`]: of each key the latest record is kept |
//! | `producers` | [`AppendRun`], [`ProducerState`]: which batches of which producers are here, so that none is stored twice |
//! | `recovery_point` | how far the segments are proven, and which producers there are up to there |
//! | `flush_failed` | the note that a flush has failed |
//! | `sidecar` | the form of our small files |
//! | `clean_stop` | the note that nothing need be done |
//! | `open_files` | [`OpenFiles`]: which segments are open, for all logs together |
//! | `ahead` | room on the disk for what a segment will hold next |
//! | `verified` | which checksums need not be compared again |
//! | `segment`, `index`, `scan` | the files of one segment, and the walk over its batches |
//! | `disk`, `real` | the [`Disk`] trait and the operating system behind it |
//! | [`inspect`] | a log seen from outside: its batches, what is wrong with them, repairs |
//! | [`sim`] | a disk in memory that loses power, fails and fills up on demand |
//!
//! # Open files
//!
//! The `.log` of a segment is opened when it is read or written, and closed when its descriptor is needed elsewhere: [`OpenFiles`] is the
//! pool, with a bound for all logs that share it. One with unsynced bytes is never closed, so that no failure to write them is missed.
//! Indexes are open only while they are read or written. An idle log has nothing open.
//!
//! # Producers
//!
//! A batch that its producer sends again is found by its sequence, and not stored again: [`Log::begin_run`], [`Log::admit`] for each batch,
//! [`Log::append`] for those that are new, [`Log::settle_run`]. The state follows from the headers of the batches; it is written down
//! beside the recovery point, so that an opening reads no more than it would without. [`ProducerPool`] bounds it for all logs together.
//!
//! # Checksums
//!
//! Every batch is compared with its checksum on its way in, by whoever took it in; in a recovery, if it is read there; and on its way out,
//! the first time since the log was opened ([`LogConfig::verify_on_read`]). Damage is never served: a read that meets it answers
//! [`LogError::Corrupt`], and the log goes on.

#![forbid(unsafe_code)]

mod ahead;
mod append_times;
mod clean_stop;
mod compact;
mod config;
mod damages;
mod disk;
mod error;
mod flush;
mod flush_failed;
mod folder;
mod index;
pub mod inspect;
mod kept;
mod log;
mod log_start;
mod open_files;
mod producers;
mod reader;
mod real;
mod recovery;
mod recovery_point;
mod retention;
mod scan;
mod sealed;
mod segment;
mod sidecar;
pub mod sim;
mod tail;
mod time;
mod verdict;
mod verified;

pub use append_times::{AppendTimes, Now, WALL_CLOCK_FLOOR_MS};
pub use compact::{Compacted, Compaction, CompactionPass, CompactionStep, Compactor, Progress};
pub use config::{LogConfig, VerifyOnRead};
pub use disk::{Disk, DiskFile, OpenMode, WRITE_BUFFERS_MAX, write_all_at, write_atomically};
pub use error::{Damage, LogError, is_out_of_files};
pub use flush::{Flush, FlushedTo};
pub use kept::{REMOVALS_KEPT_MAX, SetAside, WhenFull};
pub use log::Log;
pub use log_start::Deletion;
pub use open_files::{OPEN_FILES_DEFAULT_MAX, OpenFiles};
pub use producers::{
    Admission, AppendRun, Appended, BROKER_PRODUCER_ID_MIN, PRODUCER_BATCHES_MAX, PRODUCERS_DEFAULT_MAX, PRODUCERS_MAX, Pools,
    ProducerBatch, ProducerPool, ProducerState, SequenceError, SequenceOrder,
};
pub use reader::{Cursor, KnownDamage, LogReader, SegmentInfo};
pub use real::RealDisk;
pub use recovery::{Cut, DamagedSegment, RecoveryReport};
pub use retention::{Expired, RetentionLimits, SegmentAge};

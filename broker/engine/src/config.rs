//! What the engine is told when it opens, with a bound for everything that could grow.

use millpond_log::{OPEN_FILES_DEFAULT_MAX, VerifyOnRead};
use millpond_plugin::Limits;
use std::{path::PathBuf, time::Duration};

/// How the engine works. Every bound has a default that suits a gateway with 2 cores and 512 MB.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// The data folder. It is made if it is not there.
    pub data_dir: PathBuf,
    /// Threads that append and read.
    pub io_threads: usize,
    /// Threads that wait for `fdatasync`: so many partitions can flush at once.
    pub flush_threads: usize,
    /// Threads that run modules, and that split batches which the broker places.
    pub plugin_threads: usize,
    /// What a module may use.
    pub plugin_limits: Limits,
    /// The largest batch that any topic may allow, in bytes as it travels.
    pub max_batch_bytes: u32,
    /// The largest upload of a module, in bytes.
    pub max_module_bytes: u64,
    /// Bytes of batches that are on their way to the log, over all producers; who wants to send more waits.
    pub inflight_bytes_max: usize,
    /// Bytes of batches that wait for one partition's next append; who wants to queue more waits.
    pub partition_queue_bytes_max: usize,
    /// The largest records section that is unpacked for a module or for placing records, in uncompressed bytes. At most
    /// `plugin_threads` of them are in memory at once, each with its result.
    pub section_bytes_max: usize,
    /// How many topics there may be.
    pub topics_max: usize,
    /// How many partitions there may be over all topics. An idle one takes memory, and no open file.
    pub partitions_max: usize,
    /// How many files the process may have open, sockets included (`RLIMIT_NOFILE`); none if there is no limit, or nobody knows it.
    pub open_files_max: Option<u64>,
    /// How many segment files all partitions together keep open; none for a half of what `open_files_max` leaves, and at most
    /// [`OPEN_FILES_DEFAULT_MAX`]. One that is read or written is opened when it is needed, so this bounds descriptors and not
    /// partitions; only so many partitions can have bytes that are not flushed yet, and a batch for one more is refused for the moment.
    pub segment_files_max: Option<usize>,
    /// Which reads compare the checksums of batches that come from the disk.
    pub verify_on_read: VerifyOnRead,
    /// Bytes of batches that all topics together may have; none for what the disk has. While a segment is compacted, what is written of it
    /// comes on top, a segment of one topic at most.
    pub quota_bytes: Option<u64>,
    /// Bytes that are kept free for deleting, starting and stopping on a full disk; 0 for none.
    pub reserve_bytes: u64,
    /// The time between two checks of what retention allows to be deleted, of what is to be compacted, and of the room on the disk; from a
    /// millisecond to an hour.
    pub retention_check_interval: Duration,
    /// How long a producer is remembered that stores nothing, so that its batches are stored once (Kafka's `producer.id.expiration.ms`).
    pub producer_id_expiration: Duration,
    /// How many modules there may be.
    pub modules_max: usize,
    /// Bytes that compiled modules may take on the disk, which are made again where they are missing. Those that the next start needs stay
    /// all the same.
    pub module_cache_bytes_max: u64,
    /// How many versions one module may have: at least two, for one to go back to. For one more the oldest goes that nothing needs.
    pub module_versions_max: usize,
    /// How many modules may run on one topic.
    pub attachments_per_topic_max: usize,
}

impl EngineConfig {
    /// The defaults, over this data folder.
    pub fn new(data_dir: impl Into<PathBuf>) -> EngineConfig {
        EngineConfig { data_dir: data_dir.into(), ..EngineConfig::default() }
    }

    /// The segment files that are kept open.
    pub(crate) fn segment_files(&self) -> usize {
        let room = |limit: u64| usize::try_from(limit.saturating_sub(OPEN_FILES_HEADROOM) / 2).unwrap_or(usize::MAX);
        let fits = self.open_files_max.map_or(OPEN_FILES_DEFAULT_MAX, room);
        self.segment_files_max.unwrap_or(fits.min(OPEN_FILES_DEFAULT_MAX)).max(SEGMENT_FILES_MIN)
    }
}

impl Default for EngineConfig {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        EngineConfig {
            data_dir: PathBuf::from("data"),
            // Appends and reads are copies to and from the page cache: one thread a core, and a second one where there is one core,
            // so that a read that has to go to the disk does not hold up an append.
            io_threads: cores.clamp(2, IO_THREADS_DEFAULT_MAX),
            // A flush waits for the disk and uses no core, so there are more of them than cores.
            // Thirty-two logs with unsynced bytes are durable in a third of the time that one thread takes; more threads gain little.
            flush_threads: 8,
            plugin_threads: cores.clamp(1, PLUGIN_THREADS_DEFAULT_MAX),
            plugin_limits: Limits::default(),
            max_batch_bytes: 16 << 20,
            max_module_bytes: 64 << 20,
            inflight_bytes_max: 64 << 20,
            partition_queue_bytes_max: 16 << 20,
            section_bytes_max: 32 << 20,
            topics_max: 10_000,
            partitions_max: 20_000,
            open_files_max: None,
            segment_files_max: None,
            verify_on_read: VerifyOnRead::First,
            quota_bytes: None,
            reserve_bytes: 8 << 20,
            retention_check_interval: Duration::from_mins(1),
            producer_id_expiration: Duration::from_hours(24),
            modules_max: 256,
            module_cache_bytes_max: 512 << 20,
            module_versions_max: 32,
            attachments_per_topic_max: 8,
        }
    }
}

/// Files that are left for what is always there: the socket, the catalogue, modules, and one for each thread that looks into an index,
/// flushes a folder, or reads a segment that the others have no room for.
const OPEN_FILES_HEADROOM: u64 = 128;

/// With fewer the threads would take the files from each other.
const SEGMENT_FILES_MIN: usize = 16;

/// More threads than this do not make a disk faster.
const IO_THREADS_DEFAULT_MAX: usize = 8;

/// Each may hold a section of [`EngineConfig::section_bytes_max`] and its result.
const PLUGIN_THREADS_DEFAULT_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_on_segment_files_follows_the_limit_of_the_process() {
        let bound = |open_files_max, segment_files_max| {
            EngineConfig { open_files_max, segment_files_max, ..EngineConfig::default() }.segment_files()
        };
        assert_eq!(bound(None, None), OPEN_FILES_DEFAULT_MAX);
        assert_eq!(bound(Some(1 << 20), None), OPEN_FILES_DEFAULT_MAX);
        assert_eq!(bound(Some(1024), None), 448);
        assert_eq!(bound(Some(64), None), SEGMENT_FILES_MIN);
        assert_eq!(bound(Some(1024), Some(100)), 100);
        assert_eq!(bound(None, Some(0)), SEGMENT_FILES_MIN);
    }
}

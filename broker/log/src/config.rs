//! What can be set for one log.

/// The settings of one log. They may differ from one opening to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// A segment is closed before it grows beyond this many bytes. Values above 2 GiB - 1 count as that: positions in Kafka's index
    /// are 31 bits wide.
    pub segment_bytes: u64,
    /// Bytes of batches between two entries of the sparse indexes.
    pub index_interval_bytes: u32,
    /// Which reads compare checksums.
    pub verify_on_read: VerifyOnRead,
    /// A producer that was not used for so many milliseconds is forgotten (`producer.id.expiration.ms` in Kafka). 0 counts as 1.
    pub producer_id_expiration_ms: u64,
}

/// When the checksum of a batch is compared that is read from a segment file. Batches that this process has appended count as compared:
/// that was done when they came in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum VerifyOnRead {
    /// The first time that it is read since the log was opened. What rots on the disk after that is found by the next opening's first
    /// read, or by [`VerifyOnRead::Always`].
    #[default]
    First,
    /// Every time.
    Always,
    /// Never: a consumer gets what the disk gives, and has the checksum to compare for itself.
    Never,
}

impl LogConfig {
    pub(crate) fn segment_bytes_max(&self) -> u64 {
        self.segment_bytes.min(SEGMENT_BYTES_LIMIT)
    }
}

impl Default for LogConfig {
    /// 128 MiB, because the last segment is read in full when a log is opened after a crash, about a second from a slow flash disk; and
    /// Kafka's index interval and time for producers, a day.
    fn default() -> LogConfig {
        LogConfig {
            segment_bytes: 128 << 20,
            index_interval_bytes: 4096,
            verify_on_read: VerifyOnRead::First,
            producer_id_expiration_ms: 86_400_000,
        }
    }
}

/// The largest position that an entry of Kafka's offset index can name.
const SEGMENT_BYTES_LIMIT: u64 = i32::MAX.unsigned_abs() as u64;

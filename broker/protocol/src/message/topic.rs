//! What a topic can be told: its durability and its limits.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr, time::Duration};
use thiserror::Error;

/// When a batch counts as stored, and is acknowledged.
///
/// Written as `sync`, `interval:200ms` or `os`, on the command line, in the configuration and on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Durability {
    /// After `fdatasync`: an acknowledged record survives a power cut.
    #[default]
    Sync,
    /// After the write; the disk is flushed at the latest this long afterwards. A power cut can cost that much.
    Interval(Duration),
    /// After the write; the operating system flushes when it likes.
    Os,
}

/// Why a durability was not understood.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("`{0}` is not a durability: it is `sync`, `interval:200ms` (1ms to 1h) or `os`")]
pub struct ParseDurabilityError(String);

const INTERVAL_MAX: Duration = Duration::from_hours(1);

impl FromStr for Durability {
    type Err = ParseDurabilityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || ParseDurabilityError(text.to_owned());
        match text {
            "sync" => Ok(Durability::Sync),
            "os" => Ok(Durability::Os),
            _ => {
                let interval = text.strip_prefix("interval:").ok_or_else(wrong)?;
                let unit = interval.trim_start_matches(|digit: char| digit.is_ascii_digit());
                let unit_ms = match unit {
                    "ms" => 1,
                    "s" => 1_000,
                    "m" => 60_000,
                    "h" => 3_600_000,
                    _ => return Err(wrong()),
                };
                let number = &interval[..interval.len() - unit.len()];
                let number: u64 = number.parse().map_err(|_| wrong())?;
                let interval = Duration::from_millis(number.checked_mul(unit_ms).ok_or_else(wrong)?);
                if interval.is_zero() || interval > INTERVAL_MAX {
                    return Err(wrong());
                }
                Ok(Durability::Interval(interval))
            }
        }
    }
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Durability::Sync => f.write_str("sync"),
            Durability::Os => f.write_str("os"),
            Durability::Interval(interval) => write!(f, "interval:{}ms", interval.as_millis()),
        }
    }
}

impl Serialize for Durability {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Durability {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// The settings of a topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TopicConfig {
    /// When a batch is acknowledged.
    pub durability: Durability,
    /// A segment file is closed and the next one begun when it would grow over this many bytes.
    pub segment_bytes: u64,
    /// The largest batch that is taken, in bytes as they travel (Kafka's `max.message.bytes`).
    pub max_batch_bytes: u32,
    /// Records are deleted once they were appended longer ago than this many milliseconds, by the broker's clock and in whole segments
    /// (Kafka's `retention.ms`). None keeps them for ever.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retention_ms: Option<u64>,
    /// The oldest segments of a partition are deleted as long as it has at least this many bytes without them (Kafka's
    /// `retention.bytes`). None keeps them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retention_bytes: Option<u64>,
    /// What becomes of old records (Kafka's `cleanup.policy`).
    pub cleanup: Cleanup,
    /// How long a tombstone is kept at least in a compacted topic, in milliseconds since the segment that holds it was first compacted
    /// (Kafka's `delete.retention.ms`): what a consumer has at most to come from the beginning to the end and miss no removal. It goes with
    /// the next pass of compaction, and a pass comes when enough new records have come.
    pub delete_retention_ms: u64,
    /// Bytes of batches that the topic may have, all its partitions together. None leaves it to the quota of the broker.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quota_bytes: Option<u64>,
    /// What becomes of a batch for which a quota or the disk has no room.
    pub on_full: OnFull,
}

/// Milliseconds of a day, as in Kafka.
const DELETE_RETENTION_MS_DEFAULT: u64 = 86_400_000;

/// Declares an enum that is a text on the wire, on the command line and in the configuration. It is written by the first of its names, and
/// read by any.
macro_rules! named_choice {
    (
        $(#[$doc:meta])* $type:ident, $error:ident, $expected:literal,
        { $( $(#[$about:meta])* $variant:ident = $name:literal $(| $other:literal)* ),+ $(,)? }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
        pub enum $type {
            $( $(#[$about])* $variant ),+
        }

        #[doc = concat!("Why a text is no [`", stringify!($type), "`].")]
        #[derive(Clone, Debug, PartialEq, Eq, Error)]
        #[error("`{0}` is not {expected}", expected = $expected)]
        pub struct $error(String);

        impl FromStr for $type {
            type Err = $error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                match text {
                    $( $name $(| $other)* => Ok($type::$variant), )+
                    _ => Err($error(text.to_owned())),
                }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self {
                    $( $type::$variant => $name, )+
                })
            }
        }

        impl Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

named_choice! {
    /// What becomes of old records.
    Cleanup, ParseCleanupError, "a way to clean up: it is `delete`, `compact` or `compact,delete`", {
        /// They go by age and size, where the topic limits them.
        #[default]
        Delete = "delete",
        /// Of each key the latest record is kept; age and size delete nothing, and a limit on them is refused.
        Compact = "compact",
        /// Of each key the latest record is kept, until it goes by age or size.
        CompactDelete = "compact,delete" | "delete,compact",
    }
}

impl Cleanup {
    /// Whether only the latest record of each key is kept.
    pub const fn compacts(self) -> bool {
        matches!(self, Cleanup::Compact | Cleanup::CompactDelete)
    }

    /// Whether records go by age and size.
    pub const fn deletes(self) -> bool {
        matches!(self, Cleanup::Delete | Cleanup::CompactDelete)
    }
}

named_choice! {
    /// What becomes of a batch for which there is no room.
    OnFull, ParseOnFullError, "a choice for a full disk: it is `reject` or `drop-oldest`", {
        /// It is refused, and may be sent again later.
        #[default]
        Reject = "reject",
        /// The topic's oldest segments are deleted until there is room.
        DropOldest = "drop-oldest",
    }
}

/// A limit that can be given or lifted.
///
/// On the wire the text `unlimited`, or a map of one entry: `of` to the number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// There is none.
    Unlimited,
    /// It is this, in the unit of the setting.
    Of(u64),
}

impl From<Limit> for Option<u64> {
    fn from(limit: Limit) -> Option<u64> {
        match limit {
            Limit::Unlimited => None,
            Limit::Of(value) => Some(value),
        }
    }
}

impl Default for TopicConfig {
    fn default() -> Self {
        TopicConfig {
            durability: Durability::default(),
            segment_bytes: 256 << 20,
            max_batch_bytes: 4 << 20,
            retention_ms: None,
            retention_bytes: None,
            cleanup: Cleanup::default(),
            delete_retention_ms: DELETE_RETENTION_MS_DEFAULT,
            quota_bytes: None,
            on_full: OnFull::default(),
        }
    }
}

/// Where in a topic's path a module runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttachPoint {
    /// Before the append, inside the producer's acknowledgement. Several modules form a chain.
    Produce,
    /// In place of the default partitioner. One module at most.
    Partition,
    /// After the read, for consumers that ask for a view by its name. Several modules of one view form a chain.
    Fetch,
    /// On its own, into other topics. Each module runs for itself.
    Derive,
}

impl fmt::Display for AttachPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            AttachPoint::Produce => "produce",
            AttachPoint::Partition => "partition",
            AttachPoint::Fetch => "fetch",
            AttachPoint::Derive => "derive",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_durability_is_read_as_it_is_written() {
        for (written, durability) in [
            ("sync", Durability::Sync),
            ("os", Durability::Os),
            ("interval:1ms", Durability::Interval(Duration::from_millis(1))),
            ("interval:3600000ms", Durability::Interval(Duration::from_hours(1))),
        ] {
            assert_eq!(written.parse(), Ok(durability));
            assert_eq!(durability.to_string(), written);
        }
        for (written, seconds) in [("interval:2s", 2), ("interval:30m", 1_800), ("interval:1h", 3_600)] {
            assert_eq!(written.parse(), Ok(Durability::Interval(Duration::from_secs(seconds))));
        }
        let wrong =
            ["", "fsync", "interval:", "interval:0ms", "interval:5", "interval:ms", "interval:3601s", "interval:2h", "interval:-1ms"];
        for wrong in wrong.into_iter().chain(["interval:99999999999999999999s"]) {
            assert!(wrong.parse::<Durability>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn choices_are_read_as_they_are_written_and_an_unknown_one_says_what_there_is() {
        for cleanup in [Cleanup::Delete, Cleanup::Compact, Cleanup::CompactDelete] {
            assert_eq!(cleanup.to_string().parse(), Ok(cleanup));
        }
        assert_eq!("delete,compact".parse(), Ok(Cleanup::CompactDelete), "in either order, as in Kafka");
        for on_full in [OnFull::Reject, OnFull::DropOldest] {
            assert_eq!(on_full.to_string().parse(), Ok(on_full));
        }
        let error = "drop".parse::<OnFull>().expect_err("there is no such choice").to_string();
        assert_eq!(error, "`drop` is not a choice for a full disk: it is `reject` or `drop-oldest`");
        let error = "".parse::<Cleanup>().expect_err("there is no such choice").to_string();
        assert!(error.contains("`compact,delete`"), "{error}");
    }
}

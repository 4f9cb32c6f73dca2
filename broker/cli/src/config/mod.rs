//! The broker's configuration: which keys there are, their defaults, and what values they take.
//!
//! Later ones win: defaults, the TOML file (`--config`, else `MILLPOND_CONFIG`, else none), the environment (`MILLPOND_…`), flags.

mod flags;
mod keys;
mod layers;
mod listen;
#[cfg(test)]
mod tests;
mod units;

pub(crate) use flags::{ConfigArgs, ConfigFileArgs};
pub(crate) use keys::{KEYS, Key};
pub(crate) use layers::{Loaded, Origin};
pub(crate) use listen::Listen;
pub(crate) use units::{ByteSize, Limited, Span, UNLIMITED};

use millpond_admin::AdminServer;
use millpond_engine::EngineConfig;
use millpond_protocol::message::{Cleanup, Durability, OnFull, TopicConfig};
use millpond_quic::QuicConfig;
use serde::{Deserialize, Serialize};
use std::{net::SocketAddr, ops::RangeInclusive, path::PathBuf, time::Duration};

/// Everything that can be configured. Each field is described in [`KEYS`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Config {
    pub(crate) data_dir: PathBuf,
    pub(crate) memory_limit: ByteSize,
    pub(crate) max_batch_bytes: ByteSize,
    pub(crate) quic: Quic,
    pub(crate) kafka: Door,
    pub(crate) admin: Admin,
    pub(crate) tls: Tls,
    pub(crate) threads: Threads,
    pub(crate) storage: Storage,
    pub(crate) plugin: Plugin,
    pub(crate) topic: Topic,
    pub(crate) log: Log,
}

/// `[quic]`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Quic {
    #[serde(deserialize_with = "units::address")]
    pub(crate) listen: SocketAddr,
    pub(crate) connections_max: usize,
    pub(crate) streams_per_connection_max: u32,
    pub(crate) produce_inflight_batches_max: usize,
    pub(crate) push_bytes_max: ByteSize,
    pub(crate) idle_timeout: Span,
    pub(crate) handshake_timeout: Span,
    pub(crate) stall_timeout: Span,
    pub(crate) socket_buffer_bytes: ByteSize,
}

/// `[admin]`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Admin {
    pub(crate) listen: Listen,
}

/// `[kafka]`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Door {
    #[serde(deserialize_with = "units::address")]
    pub(crate) listen: SocketAddr,
}

/// `[tls]`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Tls {
    pub(crate) cert: Option<PathBuf>,
    pub(crate) key: Option<PathBuf>,
    pub(crate) names: Vec<String>,
}

/// `[threads]`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Threads {
    pub(crate) io: usize,
    pub(crate) flush: usize,
    pub(crate) plugin: usize,
}

/// `[storage]`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Storage {
    pub(crate) quota: Limited<ByteSize>,
    pub(crate) reserve: ByteSize,
    pub(crate) retention_check_interval: Span,
    pub(crate) producer_id_expiration: Span,
    pub(crate) segment_files_max: Option<usize>,
    pub(crate) verify_on_read: VerifyOnRead,
}

/// When checksums are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum VerifyOnRead {
    /// The first time that a batch is read since the start.
    First,
    /// At every read.
    Always,
    /// At no read.
    Never,
}

/// `[plugin]`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Plugin {
    pub(crate) memory_bytes: ByteSize,
    pub(crate) time: Span,
    pub(crate) output_bytes: ByteSize,
    pub(crate) log_bytes_per_second: ByteSize,
    pub(crate) max_module_bytes: ByteSize,
    pub(crate) max_modules: usize,
    pub(crate) max_module_versions: usize,
    pub(crate) max_modules_per_topic: usize,
    pub(crate) max_cache_bytes: ByteSize,
}

/// `[topic]`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Topic {
    pub(crate) durability: Durability,
    pub(crate) segment_bytes: ByteSize,
    pub(crate) max_batch_bytes: ByteSize,
    pub(crate) retention: Limited<Span>,
    pub(crate) retention_bytes: Limited<ByteSize>,
    pub(crate) cleanup: Cleanup,
    pub(crate) delete_retention: Span,
    pub(crate) quota: Limited<ByteSize>,
    pub(crate) on_full: OnFull,
}

/// `[log]`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Log {
    pub(crate) format: LogFormat,
    pub(crate) level: LogLevel,
}

/// How the log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    /// For a person; coloured on a terminal.
    Pretty,
    /// One JSON object a line.
    Json,
}

/// What is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// A value that its type allows and the broker does not.
#[derive(Debug)]
pub(crate) struct BadValue {
    key: &'static str,
    why: String,
}

impl LogLevel {
    /// As the log filter writes it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            LogLevel::Error => "error",
            LogLevel::Warn => "warn",
            LogLevel::Info => "info",
            LogLevel::Debug => "debug",
            LogLevel::Trace => "trace",
        }
    }
}

impl Config {
    /// The defaults. `data_dir` depends on whose home it is, so the caller gives it. Whatever belongs to a crate has the default that
    /// the crate gives it.
    pub(crate) fn defaults(data_dir: PathBuf) -> Config {
        let engine = EngineConfig::default();
        let topic = TopicConfig::default();
        Config {
            data_dir,
            memory_limit: ByteSize(256 << 20),
            max_batch_bytes: ByteSize(u64::from(engine.max_batch_bytes)),
            quic: Quic::default(),
            kafka: Door { listen: SocketAddr::from(([127, 0, 0, 1], KAFKA_PORT)) },
            admin: Admin { listen: Listen::At(SocketAddr::from(([127, 0, 0, 1], AdminServer::DEFAULT_PORT))) },
            tls: Tls { cert: None, key: None, names: Vec::new() },
            threads: Threads { io: engine.io_threads, flush: engine.flush_threads, plugin: engine.plugin_threads },
            storage: Storage {
                quota: engine.quota_bytes.map(ByteSize).into(),
                reserve: ByteSize(engine.reserve_bytes),
                retention_check_interval: Span(engine.retention_check_interval),
                producer_id_expiration: Span(engine.producer_id_expiration),
                segment_files_max: engine.segment_files_max,
                verify_on_read: VerifyOnRead::First,
            },
            plugin: Plugin {
                memory_bytes: size_of(engine.plugin_limits.memory_bytes),
                time: Span(engine.plugin_limits.time),
                output_bytes: size_of(engine.plugin_limits.output_bytes),
                log_bytes_per_second: ByteSize(engine.plugin_limits.log_bytes_per_second),
                max_module_bytes: ByteSize(engine.max_module_bytes),
                max_modules: engine.modules_max,
                max_module_versions: engine.module_versions_max,
                max_modules_per_topic: engine.attachments_per_topic_max,
                max_cache_bytes: ByteSize(engine.module_cache_bytes_max),
            },
            topic: Topic {
                durability: topic.durability,
                segment_bytes: ByteSize(topic.segment_bytes),
                max_batch_bytes: ByteSize(u64::from(topic.max_batch_bytes)),
                retention: topic.retention_ms.map(|ms| Span(Duration::from_millis(ms))).into(),
                retention_bytes: topic.retention_bytes.map(ByteSize).into(),
                cleanup: topic.cleanup,
                delete_retention: Span(Duration::from_millis(topic.delete_retention_ms)),
                quota: topic.quota_bytes.map(ByteSize).into(),
                on_full: topic.on_full,
            },
            log: Log { format: LogFormat::Pretty, level: LogLevel::Info },
        }
    }

    /// Holds values against what the broker can work with.
    fn check(&self) -> Result<(), BadValue> {
        let bad = |key| move |why| BadValue { key, why };
        let size = |key, value: ByteSize, range: RangeInclusive<u64>| value.within(&range).map(drop).map_err(bad(key));
        let time = |key, value: Span, range: RangeInclusive<Duration>| value.within(&range).map(drop).map_err(bad(key));
        let count = |key, value: usize, range: RangeInclusive<usize>| {
            let outside = || format!("{value} is outside {} to {}", range.start(), range.end());
            if range.contains(&value) { Ok(()) } else { Err(BadValue { key, why: outside() }) }
        };
        size("memory_limit", self.memory_limit, 16 << 20..=1 << 40)?;
        // A quarter of the memory is for batches on their way to the log, and the largest must fit.
        size("max_batch_bytes", self.max_batch_bytes, *BATCH_BYTES.start()..=(self.memory_limit.0 / 4).min(*BATCH_BYTES.end()))?;
        count("quic.connections_max", self.quic.connections_max, 1..=1_000_000)?;
        count("quic.streams_per_connection_max", self.quic.streams_per_connection_max as usize, 1..=100_000)?;
        count("quic.produce_inflight_batches_max", self.quic.produce_inflight_batches_max, 1..=100_000)?;
        size("quic.push_bytes_max", self.quic.push_bytes_max, 1 << 10..=1 << 30)?;
        time("quic.idle_timeout", self.quic.idle_timeout, Duration::from_secs(1)..=Duration::from_hours(1))?;
        time("quic.handshake_timeout", self.quic.handshake_timeout, Duration::from_millis(100)..=Duration::from_mins(10))?;
        time("quic.stall_timeout", self.quic.stall_timeout, Duration::from_millis(100)..=Duration::from_hours(1))?;
        size("quic.socket_buffer_bytes", self.quic.socket_buffer_bytes, 1 << 12..=1 << 30)?;
        count("threads.io", self.threads.io, 1..=THREADS_MAX)?;
        count("threads.flush", self.threads.flush, 1..=THREADS_MAX)?;
        count("threads.plugin", self.threads.plugin, 1..=THREADS_MAX)?;
        count("storage.segment_files_max", self.storage.segment_files_max.unwrap_or(SEGMENT_FILES_MIN), SEGMENT_FILES_MIN..=1_000_000)?;
        size("plugin.memory_bytes", self.plugin.memory_bytes, 1 << 16..=128 << 20)?;
        time("plugin.time", self.plugin.time, Duration::from_millis(1)..=Duration::from_mins(1))?;
        size("plugin.output_bytes", self.plugin.output_bytes, 1 << 10..=1 << 30)?;
        size("plugin.log_bytes_per_second", self.plugin.log_bytes_per_second, 0..=1 << 20)?;
        size("plugin.max_module_bytes", self.plugin.max_module_bytes, 1 << 10..=1 << 30)?;
        count("plugin.max_modules", self.plugin.max_modules, 1..=10_000)?;
        // One to run, and one to go back to.
        count("plugin.max_module_versions", self.plugin.max_module_versions, 2..=1_000)?;
        count("plugin.max_modules_per_topic", self.plugin.max_modules_per_topic, 1..=100)?;
        size("plugin.max_cache_bytes", self.plugin.max_cache_bytes, 0..=1 << 40)?;
        size("topic.segment_bytes", self.topic.segment_bytes, SEGMENT_BYTES)?;
        size("topic.max_batch_bytes", self.topic.max_batch_bytes, *BATCH_BYTES.start()..=self.max_batch_bytes.0)?;
        self.check_limits()?;
        match (&self.tls.cert, &self.tls.key) {
            (Some(_), None) => Err(BadValue { key: "tls.cert", why: "it needs `tls.key` beside it".to_owned() }),
            (None, Some(_)) => Err(BadValue { key: "tls.key", why: "it needs `tls.cert` beside it".to_owned() }),
            _ => Ok(()),
        }
    }
}

impl Config {
    /// The same for what is kept of the records.
    fn check_limits(&self) -> Result<(), BadValue> {
        let bad = |key| move |why| BadValue { key, why };
        let size = |key, value: Option<ByteSize>, range: RangeInclusive<u64>| {
            value.map_or(Ok(()), |value| value.within(&range).map(drop).map_err(bad(key)))
        };
        let time = |key, value: Option<Span>, range: RangeInclusive<Duration>| {
            value.map_or(Ok(()), |value| value.within(&range).map(drop).map_err(bad(key)))
        };
        size("storage.quota", self.storage.quota.value(), QUOTA_BATCHES_MIN * self.max_batch_bytes.0..=*RETENTION_BYTES.end())?;
        size("storage.reserve", Some(self.storage.reserve), 0..=1 << 40)?;
        let interval = self.storage.retention_check_interval;
        time("storage.retention_check_interval", Some(interval), Duration::from_millis(1)..=Duration::from_hours(1))?;
        let expiration = self.storage.producer_id_expiration;
        time("storage.producer_id_expiration", Some(expiration), Duration::from_secs(1)..=Duration::from_hours(365 * 24))?;
        time("topic.retention", self.topic.retention.value(), RETENTION)?;
        size("topic.retention_bytes", self.topic.retention_bytes.value(), RETENTION_BYTES)?;
        time("topic.delete_retention", Some(self.topic.delete_retention), RETENTION)?;
        size("topic.quota", self.topic.quota.value(), QUOTA_BYTES)
    }
}

impl Default for Quic {
    fn default() -> Self {
        let door = QuicConfig::new(SocketAddr::from(([127, 0, 0, 1], QuicConfig::DEFAULT_PORT)));
        let limits = door.limits;
        Quic {
            listen: door.listen,
            connections_max: limits.connections_max,
            streams_per_connection_max: limits.streams_per_connection_max,
            produce_inflight_batches_max: limits.produce_inflight_batches_max,
            push_bytes_max: size_of(limits.push_bytes_max),
            idle_timeout: Span(limits.idle_timeout),
            handshake_timeout: Span(limits.handshake_timeout),
            stall_timeout: Span(limits.stall_timeout),
            socket_buffer_bytes: size_of(door.socket_buffer_bytes),
        }
    }
}

const fn size_of(bytes: usize) -> ByteSize {
    ByteSize(bytes as u64)
}

/// What a topic's segment files may grow to, in bytes: from what is for tests and tiny disks to what an index can say.
pub(crate) const SEGMENT_BYTES: RangeInclusive<u64> = 64 << 10..=i32::MAX as u64;

/// What a topic's largest batch may be, in bytes. A broker takes what its own limit allows, of that.
pub(crate) const BATCH_BYTES: RangeInclusive<u64> = 1 << 10..=1 << 30;

/// How long records may be kept, at least and at most.
pub(crate) const RETENTION: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_hours(36_525 * 24);

/// How many bytes may be kept of a partition, at least and at most.
pub(crate) const RETENTION_BYTES: RangeInclusive<u64> = 64 << 10..=1 << 60;

/// What a topic's quota may be, in bytes. A broker takes one that holds four of the topic's largest batches.
pub(crate) const QUOTA_BYTES: RangeInclusive<u64> = QUOTA_BATCHES_MIN * *BATCH_BYTES.start()..=1 << 60;

/// How many of the largest batches a quota holds at least.
const QUOTA_BATCHES_MIN: u64 = 4;

/// With fewer segment files the broker's threads would take them from each other.
const SEGMENT_FILES_MIN: usize = 16;

/// The port of the Kafka door, as everybody expects it.
const KAFKA_PORT: u16 = 9092;

/// No machine that this runs on gains from more threads of one kind.
const THREADS_MAX: usize = 256;

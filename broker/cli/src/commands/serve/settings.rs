//! What the configuration means for the engine and for the QUIC door.

use crate::config::{Config, VerifyOnRead};
use millpond_engine::EngineConfig;
use millpond_quic::{QuicConfig, QuicLimits};

/// `memory_limit` goes to bytes in transit on connections, as one part of this many.
const TRANSIT_PART: usize = 2;

/// To batches on their way to the log. [`Config`] makes sure that the largest batch fits.
const INFLIGHT_PART: usize = 4;

/// To the unpacked records of one batch, which a module or the placing of records needs.
const SECTION_PART: usize = 8;

/// To the batches that wait for one partition, which are among those in flight.
const PARTITION_QUEUE_PART: usize = 16;

pub(super) fn engine(config: &Config) -> EngineConfig {
    let memory = config.memory_limit.bytes();
    let largest = config.max_batch_bytes.bytes();
    let defaults = EngineConfig::default();
    let mut plugin_limits = defaults.plugin_limits.clone();
    plugin_limits.memory_bytes = config.plugin.memory_bytes.bytes();
    plugin_limits.time = config.plugin.time.0;
    plugin_limits.output_bytes = config.plugin.output_bytes.bytes();
    plugin_limits.log_bytes_per_second = config.plugin.log_bytes_per_second.0;
    EngineConfig {
        data_dir: config.data_dir.clone(),
        io_threads: config.threads.io,
        flush_threads: config.threads.flush,
        plugin_threads: config.threads.plugin,
        plugin_limits,
        quota_bytes: config.storage.quota.value().map(|quota| quota.0),
        reserve_bytes: config.storage.reserve.0,
        retention_check_interval: config.storage.retention_check_interval.0,
        producer_id_expiration: config.storage.producer_id_expiration.0,
        segment_files_max: config.storage.segment_files_max,
        verify_on_read: match config.storage.verify_on_read {
            VerifyOnRead::First => millpond_log::VerifyOnRead::First,
            VerifyOnRead::Always => millpond_log::VerifyOnRead::Always,
            VerifyOnRead::Never => millpond_log::VerifyOnRead::Never,
        },
        max_batch_bytes: u32::try_from(largest).unwrap_or(u32::MAX),
        max_module_bytes: config.plugin.max_module_bytes.0,
        modules_max: config.plugin.max_modules,
        module_versions_max: config.plugin.max_module_versions,
        attachments_per_topic_max: config.plugin.max_modules_per_topic,
        module_cache_bytes_max: config.plugin.max_cache_bytes.0,
        inflight_bytes_max: (memory / INFLIGHT_PART).max(largest),
        partition_queue_bytes_max: (memory / PARTITION_QUEUE_PART).max(largest),
        section_bytes_max: (memory / SECTION_PART).max(largest),
        ..defaults
    }
}

pub(super) fn quic(config: &Config) -> QuicConfig {
    let quic = &config.quic;
    QuicConfig {
        listen: quic.listen,
        limits: QuicLimits {
            connections_max: quic.connections_max,
            streams_per_connection_max: quic.streams_per_connection_max,
            idle_timeout: quic.idle_timeout.0,
            handshake_timeout: quic.handshake_timeout.0,
            stall_timeout: quic.stall_timeout.0,
            produce_inflight_batches_max: quic.produce_inflight_batches_max,
            push_bytes_max: quic.push_bytes_max.bytes(),
            transit_bytes_max: (config.memory_limit.bytes() / TRANSIT_PART) as u64,
        },
        socket_buffer_bytes: quic.socket_buffer_bytes.bytes(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ByteSize;

    #[test]
    fn the_defaults_are_those_of_the_crates() {
        let config = Config::defaults("data".into());
        assert_eq!(format!("{:?}", engine(&config)), format!("{:?}", EngineConfig::new("data")));
        let quic_config = QuicConfig::new(config.quic.listen);
        assert_eq!(format!("{:?}", quic(&config)), format!("{quic_config:?}"));
    }

    #[test]
    fn the_largest_batch_fits_into_every_budget() {
        let mut config = Config::defaults("data".into());
        config.memory_limit = ByteSize(64 << 20);
        let engine = engine(&config);
        assert!(engine.inflight_bytes_max >= engine.max_batch_bytes as usize);
        assert!(engine.partition_queue_bytes_max >= engine.max_batch_bytes as usize);
    }
}

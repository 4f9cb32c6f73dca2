//! Every key of the configuration: its name, how it is written, what it is for.
//!
//! In the file a key is written in its section (`[quic]` and `listen = …`), in the environment in capitals with two underscores for
//! the dot (`MILLPOND_QUIC__LISTEN`), on the command line as `--set quic.listen=…` and, for the frequent ones, as a flag.

/// One key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Key {
    /// Its name, with dots between the sections.
    pub(crate) name: &'static str,
    /// How its value is written where there is only text.
    pub(crate) shape: Shape,
    /// What it is for.
    pub(crate) about: &'static str,
}

/// How a value is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// As it is: paths, addresses, sizes, times, names.
    Text,
    /// A whole number.
    Number,
    /// Several texts; commas between them.
    List,
}

/// What the names of the environment variables begin with.
pub(crate) const ENVIRONMENT_PREFIX: &str = "MILLPOND_";

/// Variables that begin that way and are not keys: the client commands and the logger read them, and the packages for Python and Node.js find
/// this binary by the last.
pub(crate) const RESERVED_VARIABLES: &[&str] = &["MILLPOND_URL", "MILLPOND_CA_FILE", "MILLPOND_CONFIG", "MILLPOND_LOG", "MILLPOND_BIN"];

/// All keys, in the order in which they are shown.
pub(crate) const KEYS: &[Key] = &[
    text("data_dir", "the folder that holds topics, modules and certificates"),
    text("memory_limit", "the memory for batches: half for bytes on connections, a quarter for what is on its way to the log"),
    text("max_batch_bytes", "the largest batch that the broker reads, for any topic; at most a quarter of memory_limit"),
    text("quic.listen", "the UDP address of the QUIC door, such as 127.0.0.1:9440, or 0.0.0.0:9440 for all of the machine's addresses"),
    number("quic.connections_max", "how many connections there may be at the same time"),
    number("quic.streams_per_connection_max", "how many streams one connection may have at the same time"),
    number("quic.produce_inflight_batches_max", "how many batches of one produce stream may wait for their answers"),
    text("quic.push_bytes_max", "the size of one push to a consumer; a single batch may be larger"),
    text("quic.idle_timeout", "the time after which a silent connection is closed"),
    text("quic.handshake_timeout", "the time that a handshake may take"),
    text("quic.stall_timeout", "the time that a peer may stand still in the middle of a frame"),
    text("quic.socket_buffer_bytes", "the size that the system is asked for, for each of the two UDP buffers"),
    text("kafka.listen", "the TCP address of the Kafka door, such as 127.0.0.1:9092"),
    text("admin.listen", "the TCP address of the admin door (HTTP, for metrics and health), such as 127.0.0.1:9640, or off"),
    text("tls.cert", "the PEM file of the server's certificate and its chain; without it one is made in the data folder"),
    text("tls.key", "the PEM file of the certificate's private key"),
    list("tls.names", "a list of more names and addresses for the certificate that is made here"),
    number("threads.io", "how many threads append to the logs and read them"),
    number("threads.flush", "how many threads wait for the disk to flush"),
    number("threads.plugin", "how many threads run modules"),
    text("storage.quota", "how many bytes of records the broker keeps over all topics, or unlimited; at least four of the largest batches"),
    text("storage.reserve", "the disk space that is kept free for deleting, stopping and starting when the disk is full; 0B for none"),
    text("storage.retention_check_interval", "the time between two looks at what can be deleted"),
    text("storage.producer_id_expiration", "how long a producer that stores nothing is remembered, so that nothing of it is stored twice"),
    number("storage.segment_files_max", "how many segment files are kept open; without it half of the limit on open files, 1024 at most"),
    text(
        "storage.verify_on_read",
        "when the checksum of a batch that is read from a file is compared: first (the first time since the start), always or never",
    ),
    text("plugin.memory_bytes", "the memory that one instance of a module may have"),
    text("plugin.time", "the time that a module may take for one batch"),
    text("plugin.output_bytes", "the size of what a module may return for one batch"),
    text("plugin.log_bytes_per_second", "the bytes that a module may log each second in the long run, on each topic"),
    text("plugin.max_module_bytes", "the largest module that can be deployed"),
    number("plugin.max_modules", "how many modules there may be"),
    number("plugin.max_module_versions", "how many versions a module may have; for one more the oldest goes that nothing needs"),
    number("plugin.max_modules_per_topic", "how many modules may run on one topic"),
    text("plugin.max_cache_bytes", "the disk space for what modules compile to; what the next start needs is kept all the same"),
    text("topic.durability", "when a topic's batches are acknowledged (sync, interval:200ms, os), unless `topic create` says"),
    text("topic.segment_bytes", "the size over which no segment file of a topic grows, unless `topic create` says"),
    text("topic.max_batch_bytes", "the largest batch that a topic takes, unless `topic create` says"),
    text("topic.retention", "after which time a topic's records are deleted, or unlimited, unless `topic create` says"),
    text("topic.retention_bytes", "how many bytes of records a partition keeps, or unlimited, unless `topic create` says"),
    text("topic.cleanup", "what becomes of a topic's old records, unless `topic create` says: delete, compact or compact,delete"),
    text("topic.delete_retention", "how long a compacted topic keeps a key without a value, unless `topic create` says"),
    text("topic.quota", "how many bytes of records a topic takes at most, or unlimited, unless `topic create` says"),
    text("topic.on_full", "what happens when a quota or the disk is full, unless `topic create` says: reject or drop-oldest"),
    text("log.format", "how the log is written: pretty or json"),
    text("log.level", "the least severe level that is logged: error, warn, info, debug or trace"),
];

/// The key with this name.
pub(crate) fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

/// Whether some keys lie under this name.
pub(crate) fn is_section(name: &str) -> bool {
    KEYS.iter().any(|key| key.name.strip_prefix(name).is_some_and(|rest| rest.starts_with('.')))
}

/// The known key that someone who wrote `name` most likely meant.
pub(crate) fn nearest(name: &str) -> Option<&'static str> {
    let name = name.to_ascii_lowercase().replace('-', "_");
    let likeness = |key: &Key| {
        let last = |name: &str| name.rsplit('.').next().unwrap_or_default().to_owned();
        let whole = strsim::jaro_winkler(&name, key.name);
        // A key that was written outside its section, or in a wrong one.
        let end = strsim::jaro_winkler(&last(&name), &last(key.name)) * OTHER_SECTION_WEIGHT;
        whole.max(end)
    };
    let (key, likeness) = KEYS.iter().map(|key| (key, likeness(key))).max_by(|(_, a), (_, b)| a.total_cmp(b))?;
    (likeness >= LIKENESS_MIN).then_some(key.name)
}

/// The section that someone who wrote `[name]` most likely meant.
pub(crate) fn nearest_section(name: &str) -> Option<&'static str> {
    let name = name.to_ascii_lowercase();
    let sections = KEYS.iter().filter_map(|key| key.name.rsplit_once('.').map(|(section, _)| section));
    let alike = sections.map(|section| (section, strsim::jaro_winkler(&name, section)));
    alike.max_by(|(_, a), (_, b)| a.total_cmp(b)).filter(|(_, likeness)| *likeness >= LIKENESS_MIN).map(|(section, _)| section)
}

/// The environment variable for a key.
pub(crate) fn variable(key: &str) -> String {
    format!("{ENVIRONMENT_PREFIX}{}", key.replace('.', "__").to_ascii_uppercase())
}

/// Less alike than this (0 to 1, Jaro-Winkler), and a suggestion would only puzzle.
const LIKENESS_MIN: f64 = 0.8;

/// How much the last part of a name counts against the whole of it.
const OTHER_SECTION_WEIGHT: f64 = 0.95;

const fn text(name: &'static str, about: &'static str) -> Key {
    Key { name, shape: Shape::Text, about }
}

const fn number(name: &'static str, about: &'static str) -> Key {
    Key { name, shape: Shape::Number, about }
}

const fn list(name: &'static str, about: &'static str) -> Key {
    Key { name, shape: Shape::List, about }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_finds_its_key() {
        for (written, meant) in [
            ("quic.lisen", "quic.listen"),
            ("data-dir", "data_dir"),
            ("datadir", "data_dir"),
            ("durability", "topic.durability"),
            ("quic_listen", "quic.listen"),
            ("tls.certificate", "tls.cert"),
            ("plugins.time", "plugin.time"),
        ] {
            assert_eq!(nearest(written), Some(meant), "{written}");
        }
        assert_eq!(nearest("zzz"), None);
    }

    #[test]
    fn a_slip_of_the_finger_finds_its_section() {
        for (written, meant) in [("quik", "quic"), ("QUIC", "quic"), ("topics", "topic"), ("plugins", "plugin"), ("thread", "threads")] {
            assert_eq!(nearest_section(written), Some(meant), "{written}");
        }
        assert_eq!(nearest_section("zzz"), None);
    }

    #[test]
    fn a_section_is_not_a_key() {
        assert!(is_section("quic") && !is_section("quic.listen") && !is_section("qu") && !is_section("data_dir"));
        assert_eq!(variable("quic.listen"), "MILLPOND_QUIC__LISTEN");
    }
}

//! What survives a restart beside the records: which topics there are, with their settings, and which modules run on them.
//!
//! One JSON file that a person can read, replaced as a whole and atomically at each change. What the catalogue says is what exists: a topic
//! is there once the catalogue names it, and gone once it does not. Its folders are made before, so that one that is missing is a loss.
//!
//! Fields that this version does not know are kept as they are, so that going back to an older broker and forward again loses
//! nothing. A file that can't be understood is an error that names it, never an empty catalogue: that would hide every topic.

use crate::{data_dir::read_whole, error::EngineError, name, name::NameOf};
use millpond_log::Disk;
use millpond_protocol::message::{AttachPoint, TopicConfig};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

/// The most partitions that one topic may have.
pub(crate) const PARTITIONS_PER_TOPIC_MAX: u32 = 10_000;

/// The version that is written. It goes up when an older broker would misunderstand the file.
const VERSION: u32 = 1;

/// Some 500 bytes a topic at 10,000 topics are 5 MB; this leaves room and still bounds what a damaged file can cost.
const FILE_BYTES_MAX: u64 = 256 << 20;

/// Everything in the file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Catalogue {
    version: u32,
    #[serde(default)]
    pub(crate) topics: BTreeMap<String, StoredTopic>,
    #[serde(default)]
    pub(crate) modules: BTreeMap<String, StoredModule>,
    /// Topics that were deleted and whose folder may still be there.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub(crate) deleted_topics: BTreeSet<String>,
    #[serde(flatten)]
    unknown: Map<String, Value>,
}

/// One topic.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct StoredTopic {
    pub(crate) partitions: u32,
    #[serde(default)]
    pub(crate) config: StoredConfig,
    #[serde(default)]
    pub(crate) epoch: u32,
    /// In the order in which they run.
    #[serde(default)]
    pub(crate) attachments: Vec<StoredAttachment>,
    #[serde(flatten)]
    unknown: Map<String, Value>,
}

/// A topic's settings.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct StoredConfig {
    #[serde(flatten)]
    pub(crate) known: TopicConfig,
    #[serde(flatten)]
    unknown: Map<String, Value>,
}

/// A module on a topic.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct StoredAttachment {
    pub(crate) module: String,
    pub(crate) on: AttachPoint,
    #[serde(default)]
    pub(crate) params: BTreeMap<String, String>,
    #[serde(flatten)]
    unknown: Map<String, Value>,
}

/// A module. Its bytes are in `modules/SHA256.wasm`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct StoredModule {
    pub(crate) sha256: String,
    pub(crate) size_bytes: u64,
    /// `transform` or `partitioner`.
    pub(crate) world: String,
    #[serde(flatten)]
    unknown: Map<String, Value>,
}

impl Default for Catalogue {
    fn default() -> Self {
        Catalogue {
            version: VERSION,
            topics: BTreeMap::new(),
            modules: BTreeMap::new(),
            deleted_topics: BTreeSet::new(),
            unknown: Map::new(),
        }
    }
}

impl StoredTopic {
    pub(crate) fn new(partitions: u32, config: TopicConfig) -> StoredTopic {
        let config = StoredConfig { known: config, unknown: Map::new() };
        StoredTopic { partitions, config, epoch: 0, attachments: Vec::new(), unknown: Map::new() }
    }
}

impl StoredAttachment {
    pub(crate) fn new(module: String, on: AttachPoint, params: BTreeMap<String, String>) -> StoredAttachment {
        StoredAttachment { module, on, params, unknown: Map::new() }
    }

    /// The parameters as a module takes them.
    pub(crate) fn param_pairs(&self) -> Vec<(String, String)> {
        self.params.iter().map(|(key, value)| (key.clone(), value.clone())).collect()
    }
}

impl StoredModule {
    pub(crate) fn new(sha256: String, size_bytes: u64, world: String) -> StoredModule {
        StoredModule { sha256, size_bytes, world, unknown: Map::new() }
    }
}

impl Catalogue {
    /// The catalogue in this file; an empty one if there is no file. Blocking.
    pub(crate) fn load(disk: &dyn Disk, path: &Path) -> Result<Catalogue, EngineError> {
        match read_whole(disk, path, FILE_BYTES_MAX)? {
            Some(bytes) => Catalogue::decode(&bytes, path),
            None => Ok(Catalogue::default()),
        }
    }

    /// Replaces the file as a whole: after a crash it is the old one or the new one. Blocking.
    pub(crate) fn save(&self, disk: &dyn Disk, path: &Path) -> Result<(), EngineError> {
        let bytes = self.encode();
        millpond_log::write_atomically(disk, path, &bytes).map_err(|source| EngineError::data_dir("write", path, source))
    }

    /// Partitions over all topics.
    pub(crate) fn partition_count(&self) -> usize {
        self.topics.values().map(|topic| topic.partitions as usize).sum()
    }

    /// The topics that a module is attached to.
    pub(crate) fn topics_with(&self, module: &str) -> Vec<String> {
        let attached = |topic: &StoredTopic| topic.attachments.iter().any(|attachment| attachment.module == module);
        self.topics.iter().filter(|(_, topic)| attached(topic)).map(|(name, _)| name.clone()).collect()
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec_pretty(self)
            .unwrap_or_else(|error| unreachable!("the catalogue has text for keys and encodes into memory: {error}"));
        bytes.push(b'\n');
        bytes
    }

    fn decode(bytes: &[u8], path: &Path) -> Result<Catalogue, EngineError> {
        let damaged = |reason: String| EngineError::CatalogueDamaged { path: path.to_owned(), reason };
        // The version first: what a newer file means is not ours to guess.
        let version = serde_json::from_slice::<VersionOnly>(bytes).map_err(|error| damaged(error.to_string()))?.version;
        if version > VERSION {
            return Err(EngineError::CatalogueTooNew { path: path.to_owned(), version, supported: VERSION });
        }
        let catalogue: Catalogue = serde_json::from_slice(bytes).map_err(|error| damaged(error.to_string()))?;
        catalogue.check().map_err(damaged)?;
        Ok(catalogue)
    }

    /// Names become paths, so they are held against the rules again: the file may have been edited by hand.
    fn check(&self) -> Result<(), String> {
        let topics = self.topics.keys().chain(&self.deleted_topics).map(|name| (NameOf::Topic, name));
        let modules = self.modules.keys().map(|name| (NameOf::Module, name));
        for (of, name) in topics.chain(modules) {
            name::check(of, name).map_err(|error| error.to_string())?;
        }
        for (name, topic) in &self.topics {
            if !(1..=PARTITIONS_PER_TOPIC_MAX).contains(&topic.partitions) {
                return Err(format!("the topic `{name}` has {} partitions", topic.partitions));
            }
        }
        for (name, module) in &self.modules {
            if module.sha256.len() != 64 || !module.sha256.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                return Err(format!("the module `{name}` has no SHA-256 but `{}`", module.sha256));
            }
        }
        Ok(())
    }
}

#[derive(Deserialize)]
struct VersionOnly {
    version: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(text: &str) -> Result<Catalogue, EngineError> {
        Catalogue::decode(text.as_bytes(), Path::new("data/catalogue.json"))
    }

    #[test]
    fn fields_of_a_newer_broker_survive_being_written_by_this_one() {
        let text = r#"{
            "version": 1, "cluster": {"id": 7},
            "topics": {"readings": {"partitions": 3, "retention": "7d",
                "config": {"durability": "interval:200ms", "quota_bytes": 5},
                "attachments": [{"module": "drop-idle", "on": "produce", "on_error": "skip"}]}},
            "modules": {}
        }"#;
        let catalogue = decode(text).expect("it is well formed");
        assert_eq!(catalogue.topics["readings"].config.known.durability.to_string(), "interval:200ms");
        let again = Catalogue::decode(&catalogue.encode(), Path::new("x")).expect("it reads what it wrote");
        assert_eq!(again, catalogue);
        let value: Value = serde_json::from_slice(&catalogue.encode()).expect("it is JSON");
        assert_eq!(value["cluster"]["id"], 7);
        let topic = &value["topics"]["readings"];
        assert_eq!(topic["retention"], "7d");
        assert_eq!(topic["config"]["quota_bytes"], 5);
        assert_eq!(topic["attachments"][0]["on_error"], "skip");
    }

    #[test]
    fn a_damaged_file_is_an_error_that_names_it() {
        let names_that_leave = r#"{"version":1,"topics":{"../../etc":{"partitions":1}}}"#;
        let no_hash = r#"{"version":1,"modules":{"m":{"sha256":"../x","size_bytes":1,"world":"transform"}}}"#;
        let no_partitions = r#"{"version":1,"topics":{"t":{"partitions":0}}}"#;
        for text in ["", "{", "[]", "{}", "\0\0\0", names_that_leave, no_hash, no_partitions] {
            let error = decode(text).expect_err(text);
            assert!(matches!(error, EngineError::CatalogueDamaged { .. }), "{error:?}");
            assert!(error.to_string().contains("data/catalogue.json"), "{error}");
        }
    }

    #[test]
    fn a_file_of_a_newer_version_is_not_guessed_at() {
        let error = decode(r#"{"version": 2, "topics": "elsewhere"}"#).expect_err("it is newer");
        assert!(matches!(error, EngineError::CatalogueTooNew { version: 2, supported: 1, .. }), "{error:?}");
    }
}

//! What survives a restart beside the records: which topics there are, with their settings, and which modules run on them.
//!
//! One JSON file that a person can read, replaced as a whole and atomically at each change, and kept twice ([`file`]). What the catalogue says is what exists: a topic
//! is there once the catalogue names it, and gone once it does not. Its folders are made before, so that one that is missing is a loss.
//!
//! Fields that this version does not know are kept as they are, so that going back to an older broker and forward again loses
//! nothing. A file that can't be understood is an error that names it, never an empty catalogue: that would hide every topic.

mod file;

pub(crate) use file::Copied;

use crate::{
    derive::StoredDerive, error::EngineError, modules::AttachmentPlan, name, name::NameOf, transform::Lasting, versions::StoredModule,
};
use millpond_protocol::message::{AlterTransform, AttachLimits, AttachPoint, AttachTransform, DeriveInto, ModuleRef, OnError, TopicConfig};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
};

/// The most partitions that one topic may have.
pub(crate) const PARTITIONS_PER_TOPIC_MAX: u32 = 10_000;

/// The version that is written. It goes up when an older broker would misunderstand the file.
const VERSION: u32 = 2;

/// The one before, in which a module has one version.
const VERSION_1: u32 = 1;

/// Everything in the file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Catalogue {
    version: u32,
    /// Made and held against the file by [`file`].
    #[serde(default)]
    checksum: String,
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
    /// The version that it stays. None is whichever is the current one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) version: Option<u32>,
    pub(crate) on: AttachPoint,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) view: Option<String>,
    #[serde(default)]
    pub(crate) params: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "AttachLimits::is_empty")]
    pub(crate) limits: AttachLimits,
    #[serde(default, skip_serializing_if = "OnError::is_default")]
    pub(crate) on_error: OnError,
    /// On derive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) derive: Option<StoredDerive>,
    #[serde(flatten)]
    unknown: Map<String, Value>,
}

impl Default for Catalogue {
    fn default() -> Self {
        Catalogue {
            version: VERSION,
            checksum: file::UNSEALED.to_owned(),
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
    /// As it was asked for; `version` is the one that was named.
    pub(crate) fn new(request: AttachTransform, version: Option<u32>, derive: Option<StoredDerive>) -> StoredAttachment {
        let AttachTransform { module, on, view, params, limits, on_error, .. } = request;
        let on_error = on_error_at(on, on_error);
        StoredAttachment { module: module.name, version, on, view, params, limits, on_error, derive, unknown: Map::new() }
    }

    /// Whether it is this one: a module is in one place once.
    pub(crate) fn is(&self, module: &str, on: AttachPoint, view: Option<&str>) -> bool {
        self.module == module && self.on == on && self.view.as_deref() == view
    }

    /// As it would be asked for, on this topic.
    pub(crate) fn request(&self, topic: &str) -> AttachTransform {
        let into = |stored: &StoredDerive| DeriveInto {
            state_bytes: stored.state_bytes,
            retries: Some(stored.retries),
            ..DeriveInto::new(stored.targets.iter().cloned())
        };
        AttachTransform {
            view: self.view.clone(),
            params: self.params.clone(),
            limits: self.limits.clone(),
            on_error: self.on_error.clone(),
            derive: self.derive.as_ref().map(into),
            ..AttachTransform::new(topic, ModuleRef::current(self.module.clone()), self.on)
        }
    }

    /// With other settings. `version` is the one that was named.
    #[must_use]
    pub(crate) fn altered(&self, change: &AlterTransform, version: Option<u32>) -> StoredAttachment {
        let mut next = self.clone();
        next.version = if change.follow_current { None } else { version.or(self.version) };
        next.params.retain(|name, _| !change.params_removed.contains(name));
        next.params.extend(change.params.clone());
        let before = if change.limits_reset { &AttachLimits::default() } else { &self.limits };
        next.limits = change.limits.clone().or(before);
        if let Some(on_error) = &change.on_error {
            next.on_error = on_error_at(self.on, on_error.clone());
        }
        if let Some(derive) = &mut next.derive {
            derive.state_bytes = change.state_bytes.unwrap_or(derive.state_bytes);
            derive.retries = change.retries.unwrap_or(derive.retries);
            derive.note_letters(&self.on_error, &next.on_error);
        }
        next
    }

    /// What it runs, in this version.
    pub(crate) fn plan(&self, version: u32, lasting: Lasting) -> AttachmentPlan {
        AttachmentPlan {
            name: self.module.clone(),
            version,
            pinned: self.version.is_some(),
            on: self.on,
            view: self.view.as_deref().map(Arc::from),
            params: self.params.iter().map(|(key, value)| (key.clone(), value.clone())).collect(),
            limits: self.limits.clone(),
            on_error: self.on_error.clone(),
            derive: self.derive.clone(),
            lasting,
        }
    }
}

/// Where topics are derived there is no producer to refuse a batch to: the topic stops before it.
fn on_error_at(on: AttachPoint, on_error: OnError) -> OnError {
    if (on, &on_error) == (AttachPoint::Derive, &OnError::Reject) { OnError::Stop } else { on_error }
}

impl Catalogue {
    /// Partitions over all topics.
    pub(crate) fn partition_count(&self) -> usize {
        self.topics.values().map(|topic| topic.partitions as usize).sum()
    }

    /// What derives topics from others: from which, and what of it is an attachment like any other.
    pub(crate) fn derivations(&self) -> impl Iterator<Item = (&str, &StoredAttachment, &StoredDerive)> {
        let attached = self.topics.iter().flat_map(|(name, topic)| topic.attachments.iter().map(move |attachment| (name, attachment)));
        attached.filter_map(|(name, attachment)| Some((name.as_str(), attachment, attachment.derive.as_ref()?)))
    }

    /// A file of this version, not yet held against the rules.
    fn parse(bytes: &[u8], version: u32, path: &Path) -> Result<Catalogue, EngineError> {
        let damaged = |reason: String| EngineError::CatalogueDamaged { path: path.to_owned(), reason };
        if version > VERSION {
            return Err(EngineError::CatalogueTooNew { path: path.to_owned(), version, supported: VERSION });
        }
        let mut catalogue: Value = serde_json::from_slice(bytes).map_err(|error| damaged(error.to_string()))?;
        if version <= VERSION_1 {
            from_version_1(&mut catalogue);
        }
        serde_json::from_value(catalogue).map_err(|error| damaged(error.to_string()))
    }

    /// A module whose dead letters go to this topic, and the topics that it is on. Itself does not count: it goes as a whole.
    pub(crate) fn senders_of_dead_letters(&self, to: &str) -> Option<(String, Vec<String>)> {
        let others = self.topics.iter().filter(|(name, _)| *name != to);
        let attached = others.flat_map(|(name, topic)| topic.attachments.iter().map(move |attachment| (name, attachment)));
        let senders: Vec<_> = attached.filter(|(_, attachment)| attachment.on_error.dead_letter_topic() == Some(to)).collect();
        let (_, StoredAttachment { module, .. }) = senders.first()?;
        let topics = senders.iter().filter(|(_, sender)| sender.module == *module).map(|(name, _)| (*name).clone());
        Some((module.clone(), topics.collect()))
    }

    /// A module that derives records into this topic, and the topics that it is on. Itself does not count: it goes as a whole.
    pub(crate) fn deriving_into(&self, to: &str) -> Option<(String, Vec<String>)> {
        let into = |(from, _, derive): &(&str, &StoredAttachment, &StoredDerive)| *from != to && derive.targets.iter().any(|one| one == to);
        let found: Vec<_> = self.derivations().filter(into).collect();
        let (_, StoredAttachment { module, .. }, _) = found.first()?;
        let topics = found.iter().filter(|(_, one, _)| one.module == *module).map(|(from, ..)| (*from).to_owned());
        Some((module.clone(), topics.collect()))
    }

    /// Whether modules run on what producers send to a topic, which don't on what the broker itself writes there.
    pub(crate) fn runs_on_produced(&self, topic: &str) -> bool {
        let attachments = self.topics.get(topic).map(|topic| topic.attachments.as_slice()).unwrap_or_default();
        attachments.iter().any(|attachment| matches!(attachment.on, AttachPoint::Produce | AttachPoint::Partition))
    }

    /// The hashes of the uploads that the next start loads: current versions, and those that a topic has named.
    pub(crate) fn needed_uploads(&self) -> BTreeSet<String> {
        let current = self.modules.values().map(StoredModule::current);
        let attachments = self.topics.values().flat_map(|topic| &topic.attachments);
        let named = attachments.filter_map(|attachment| self.modules.get(&attachment.module)?.find(attachment.version?));
        current.chain(named).map(|version| version.sha256.clone()).collect()
    }

    /// Whether these bytes are those of any version of any module.
    pub(crate) fn has_upload(&self, sha256: &str) -> bool {
        self.modules.values().flat_map(StoredModule::versions).any(|version| version.sha256 == sha256)
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
            module.check().map_err(|wrong| format!("the module `{name}`: {wrong}"))?;
        }
        Ok(())
    }
}

/// Makes what was a module its first version.
fn from_version_1(catalogue: &mut Value) {
    let Some(catalogue) = catalogue.as_object_mut() else { return };
    catalogue.insert("version".to_owned(), VERSION.into());
    let Some(modules) = catalogue.get_mut("modules").and_then(Value::as_object_mut) else { return };
    for module in modules.values_mut() {
        let mut first = module.take();
        if let Some(first) = first.as_object_mut() {
            first.insert("version".to_owned(), 1.into());
        }
        *module = json!({ "current": 1, "last": 1, "versions": [first] });
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
                "attachments": [{"module": "drop-idle", "on": "produce", "color": "red"}]}},
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
        assert_eq!(topic["attachments"][0]["color"], "red");
    }

    #[test]
    fn a_damaged_file_is_an_error_that_names_it() {
        let names_that_leave = r#"{"version":1,"topics":{"../../etc":{"partitions":1}}}"#;
        let no_hash = r#"{"version":1,"modules":{"m":{"sha256":"../x","size_bytes":1,"world":"transform"}}}"#;
        let no_versions = r#"{"version":2,"modules":{"m":{"current":1,"last":1,"versions":[]}}}"#;
        let no_partitions = r#"{"version":1,"topics":{"t":{"partitions":0}}}"#;
        for text in ["", "{", "[]", "[1]", "{}", "\0\0\0", names_that_leave, no_hash, no_versions, no_partitions] {
            let error = decode(text).expect_err(text);
            assert!(matches!(error, EngineError::CatalogueDamaged { .. }), "{error:?}");
            assert!(error.to_string().contains("data/catalogue.json"), "{error}");
        }
    }

    #[test]
    fn a_file_of_a_newer_version_is_not_guessed_at() {
        let error = decode(r#"{"version": 3, "topics": "elsewhere"}"#).expect_err("it is newer");
        assert!(matches!(error, EngineError::CatalogueTooNew { version: 3, supported: 2, .. }), "{error:?}");
    }

    #[test]
    fn a_module_of_an_older_broker_is_the_first_version_of_itself() {
        let sha256 = "0f".repeat(32);
        let text = format!(
            r#"{{"version":1,"topics":{{}},"modules":{{"m":{{"sha256":"{sha256}","size_bytes":7,"world":"transform","color":"red"}}}}}}"#
        );
        let catalogue = decode(&text).expect("it is well formed");
        let module = &catalogue.modules["m"];
        assert_eq!((module.versions().len(), module.current().version, module.current().sha256.as_str()), (1, 1, sha256.as_str()));
        let value: Value = serde_json::from_slice(&catalogue.encode()).expect("it is JSON");
        assert_eq!((&value["version"], &value["modules"]["m"]["versions"][0]["color"]), (&2.into(), &"red".into()));
        assert_eq!(Catalogue::decode(&catalogue.encode(), Path::new("x")).expect("it reads what it wrote"), catalogue);
    }
}

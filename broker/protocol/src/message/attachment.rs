//! Modules on topics: what is asked for, and how they are doing.

use super::{
    derive::{DeriveInto, DerivedStatus},
    module::ModuleRef,
    topic::AttachPoint,
    work::AttachmentWork,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    str::FromStr,
};
use thiserror::Error;

/// Runs a module on a topic.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AttachTransform {
    /// The topic's name.
    pub topic: String,
    /// The module. Where a version is named it stays that one; else it is the current one, also when another one becomes that.
    pub module: ModuleRef,
    /// Where in the topic's path.
    pub on: AttachPoint,
    /// On fetch: the view that it makes, or takes part in. The same rules as for a topic's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub view: Option<String>,
    /// What the module is given when it starts, as it was typed.
    #[serde(default)]
    pub params: BTreeMap<String, String>,
    /// What it may use.
    #[serde(default, skip_serializing_if = "AttachLimits::is_empty")]
    pub limits: AttachLimits,
    /// What becomes of records on which it fails.
    #[serde(default, skip_serializing_if = "OnError::is_default")]
    pub on_error: OnError,
    /// On derive: where the records go, and how it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub derive: Option<DeriveInto>,
}

impl AttachTransform {
    /// The current version of a module, with the broker's limits.
    pub fn new(topic: impl Into<String>, module: ModuleRef, on: AttachPoint) -> AttachTransform {
        AttachTransform {
            topic: topic.into(),
            module,
            on,
            view: None,
            params: BTreeMap::new(),
            limits: AttachLimits::default(),
            on_error: OnError::default(),
            derive: None,
        }
    }
}

/// Stops running a module on a topic.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DetachTransform {
    /// The topic's name.
    pub topic: String,
    /// The module's name.
    pub module: String,
    /// Where in the topic's path.
    pub on: AttachPoint,
    /// On fetch: the view.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub view: Option<String>,
    /// On derive: what it has made and its targets can't take at this moment is lost with it, rather than a reason to refuse.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force: bool,
}

impl DetachTransform {
    /// Loses nothing.
    pub fn new(topic: impl Into<String>, module: impl Into<String>, on: AttachPoint) -> DetachTransform {
        DetachTransform { topic: topic.into(), module: module.into(), on, view: None, force: false }
    }
}

/// Changes how a module runs on a topic: from the next batch on, and in its place. What is not named stays as it is; what derives topics goes
/// on where it is, with its state. Answered with how it is then.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AlterTransform {
    /// The topic's name.
    pub topic: String,
    /// The module's name. With a version it stays that one from here on.
    pub module: ModuleRef,
    /// Where in the topic's path.
    pub on: AttachPoint,
    /// On fetch: the view.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub view: Option<String>,
    /// It runs whichever version is the current one, from here on.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub follow_current: bool,
    /// What it is told when it starts, beside what it is told now or in place of it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub params: BTreeMap<String, String>,
    /// What it is told no more, by name.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub params_removed: BTreeSet<String>,
    /// The broker's settings hold again, but for the limits that are named.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub limits_reset: bool,
    /// What it may use.
    #[serde(default, skip_serializing_if = "AttachLimits::is_empty")]
    pub limits: AttachLimits,
    /// What becomes of records on which it fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_error: Option<OnError>,
    /// On derive: as in [`DeriveInto::state_bytes`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state_bytes: Option<u64>,
    /// On derive: as in [`DeriveInto::retries`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retries: Option<u32>,
}

impl AlterTransform {
    /// Changes nothing yet.
    pub fn new(topic: impl Into<String>, module: ModuleRef, on: AttachPoint) -> AlterTransform {
        AlterTransform {
            topic: topic.into(),
            module,
            on,
            view: None,
            follow_current: false,
            params: BTreeMap::new(),
            params_removed: BTreeSet::new(),
            limits_reset: false,
            limits: AttachLimits::default(),
            on_error: None,
            state_bytes: None,
            retries: None,
        }
    }

    /// Whether it changes nothing, whatever the attachment.
    pub fn is_empty(&self) -> bool {
        let plain = AlterTransform::new(self.topic.clone(), ModuleRef::current(self.module.name.clone()), self.on);
        *self == AlterTransform { view: self.view.clone(), ..plain }
    }
}

/// What a module may use on one topic. Where there is none, the broker's setting holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AttachLimits {
    /// Bytes of memory for one instance (`plugin.memory_bytes`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Milliseconds of processor time for one batch (`plugin.time`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_ms: Option<u64>,
    /// Bytes that it may return for one batch (`plugin.output_bytes`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_bytes: Option<u64>,
    /// Bytes that it may log each second in the long run (`plugin.log_bytes_per_second`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_bytes_per_second: Option<u64>,
}

impl AttachLimits {
    /// Whether the broker's settings hold for all of them.
    pub fn is_empty(&self) -> bool {
        *self == AttachLimits::default()
    }

    /// These, and those of `others` that these don't name.
    #[must_use]
    pub fn or(self, others: &AttachLimits) -> AttachLimits {
        AttachLimits {
            memory_bytes: self.memory_bytes.or(others.memory_bytes),
            time_ms: self.time_ms.or(others.time_ms),
            output_bytes: self.output_bytes.or(others.output_bytes),
            log_bytes_per_second: self.log_bytes_per_second.or(others.log_bytes_per_second),
        }
    }
}

/// What becomes of records on which a module fails.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum OnError {
    /// The whole batch is refused, and the producer gets the error.
    #[default]
    Reject,
    /// They are left out, and counted. The others of the batch go on.
    Skip,
    /// They go to this topic, with what went wrong in their headers. The others of the batch go on.
    DeadLetter(String),
    /// On derive, where there is no producer to hear of it: the topic stops before them, until another version runs or the broker starts
    /// again. It is what holds there where nothing is said.
    Stop,
}

impl OnError {
    /// Whether it is what holds where nothing is said.
    pub fn is_default(&self) -> bool {
        *self == OnError::default()
    }

    /// The topic that the records go to.
    pub fn dead_letter_topic(&self) -> Option<&str> {
        match self {
            OnError::DeadLetter(topic) => Some(topic),
            OnError::Reject | OnError::Skip | OnError::Stop => None,
        }
    }
}

/// Text that is no [`OnError`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("`{text}` is not a choice for failed records: it is `reject`, `skip`, `dead-letter:TOPIC` or, for a derived topic, `stop`")]
pub struct ParseOnErrorError {
    text: String,
}

impl FromStr for OnError {
    type Err = ParseOnErrorError;

    fn from_str(text: &str) -> Result<OnError, ParseOnErrorError> {
        match (text, text.strip_prefix(DEAD_LETTER)) {
            ("reject", _) => Ok(OnError::Reject),
            ("skip", _) => Ok(OnError::Skip),
            ("stop", _) => Ok(OnError::Stop),
            (_, Some(topic)) if !topic.is_empty() => Ok(OnError::DeadLetter(topic.to_owned())),
            _ => Err(ParseOnErrorError { text: text.chars().take(SHOWN_CHARS_MAX).collect() }),
        }
    }
}

impl fmt::Display for OnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OnError::Reject => f.write_str("reject"),
            OnError::Skip => f.write_str("skip"),
            OnError::Stop => f.write_str("stop"),
            OnError::DeadLetter(topic) => write!(f, "{DEAD_LETTER}{topic}"),
        }
    }
}

impl Serialize for OnError {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for OnError {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<OnError, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A module on a topic, and what it has done since the broker started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachmentStatus {
    /// The module's name.
    pub module: String,
    /// Which of its versions runs. A broker that does not know this field sends none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
    /// It stays this version, whichever is the current one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pinned: bool,
    /// The SHA-256 of the upload, in hex.
    #[serde(default)]
    pub sha256: String,
    /// Where it runs.
    pub on: AttachPoint,
    /// On fetch: the view.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub view: Option<String>,
    /// The settings that it was attached with. A broker that does not know this field sends none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub params: BTreeMap<String, String>,
    /// What it may use: the limits that it was attached with, and the broker's where it was given none. None of a broker that does not
    /// know this field.
    #[serde(default, skip_serializing_if = "AttachLimits::is_empty")]
    pub limits: AttachLimits,
    /// What becomes of a batch on which it fails.
    #[serde(default, skip_serializing_if = "OnError::is_default")]
    pub on_error: OnError,
    /// Why it does not run at this moment: it has failed too often, or could not be loaded. None where it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<String>,
    /// Records that were given to it.
    #[serde(default)]
    pub records_in: u64,
    /// Records that it gave back.
    #[serde(default)]
    pub records_out: u64,
    /// Records that it left out.
    #[serde(default)]
    pub records_dropped: u64,
    /// Records that came back with other bytes.
    #[serde(default)]
    pub records_changed: u64,
    /// Batches that it ran on.
    #[serde(default)]
    pub batches: u64,
    /// Batches on which it failed.
    #[serde(default)]
    pub failures: u64,
    /// Records that were left out because it failed on them ([`OnError::Skip`], [`OnError::DeadLetter`]).
    #[serde(default)]
    pub records_failed: u64,
    /// Time, memory, and how it failed. None of a broker that does not know this field.
    #[serde(default, skip_serializing_if = "AttachmentWork::is_empty")]
    pub work: AttachmentWork,
    /// On derive: how it is doing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub derived: Option<DerivedStatus>,
}

impl AttachmentStatus {
    /// A module that has done nothing yet.
    pub fn new(module: impl Into<String>, on: AttachPoint) -> AttachmentStatus {
        AttachmentStatus {
            module: module.into(),
            version: None,
            pinned: false,
            sha256: String::new(),
            on,
            view: None,
            params: BTreeMap::new(),
            limits: AttachLimits::default(),
            on_error: OnError::default(),
            paused: None,
            records_in: 0,
            records_out: 0,
            records_dropped: 0,
            records_changed: 0,
            batches: 0,
            failures: 0,
            records_failed: 0,
            work: AttachmentWork::default(),
            derived: None,
        }
    }
}

/// Before the topic.
const DEAD_LETTER: &str = "dead-letter:";

/// Of text that can't be understood, in an error.
const SHOWN_CHARS_MAX: usize = 100;

#[cfg(test)]
mod tests {
    use super::super::tests::{array, is_golden, map, text};
    use super::*;
    use crate::message::Request;

    #[test]
    fn what_becomes_of_failed_records_is_read_as_it_is_written() {
        for on_error in [OnError::Reject, OnError::Skip, OnError::Stop, OnError::DeadLetter("dead".to_owned())] {
            assert_eq!(on_error.to_string().parse(), Ok(on_error));
        }
        for wrong in ["", "Skip", "dead-letter", "dead-letter:", "dead_letter:t"] {
            let error = wrong.parse::<OnError>().expect_err(wrong).to_string();
            assert!(error.contains("`dead-letter:TOPIC`"), "{error}");
        }
    }

    #[test]
    fn requests_about_attachments_have_golden_bytes() {
        let params = BTreeMap::from([("b".to_owned(), "2".to_owned()), ("a".to_owned(), "1".to_owned())]);
        let plain = AttachTransform { params, ..AttachTransform::new("t", ModuleRef::current("m"), AttachPoint::Produce) };
        let fields =
            [("topic", text("t")), ("module", text("m")), ("on", text("produce")), ("params", map(&[("a", text("1")), ("b", text("2"))]))];
        is_golden(&Request::AttachTransform(plain.clone()), &map(&[("attach_transform", map(&fields))]));
        let limits = AttachLimits { memory_bytes: Some(1), time_ms: Some(2), output_bytes: Some(3), log_bytes_per_second: Some(4) };
        let limited = AttachTransform { limits, on_error: OnError::DeadLetter("d".to_owned()), ..plain };
        let limits = map(&[("memory_bytes", vec![1]), ("time_ms", vec![2]), ("output_bytes", vec![3]), ("log_bytes_per_second", vec![4])]);
        let more = [("limits", limits), ("on_error", text("dead-letter:d"))];
        is_golden(&limited, &map(&[&fields[..], &more].concat()));
        let view = AttachTransform { view: Some("v".to_owned()), ..AttachTransform::new("t", ModuleRef::current("m"), AttachPoint::Fetch) };
        let fields = [("topic", text("t")), ("module", text("m")), ("on", text("fetch")), ("view", text("v")), ("params", map(&[]))];
        is_golden(&view, &map(&fields));
        let derive = Some(DeriveInto::new(["d"]));
        let derived = AttachTransform { derive, ..AttachTransform::new("t", ModuleRef::current("m"), AttachPoint::Derive) };
        let into = map(&[("targets", array(&[text("d")])), ("start", text("beginning")), ("state_bytes", vec![0])]);
        let fields = [("topic", text("t")), ("module", text("m")), ("on", text("derive")), ("params", map(&[])), ("derive", into)];
        is_golden(&derived, &map(&fields));
        is_golden(
            &Request::DetachTransform(DetachTransform::new("t", "m", AttachPoint::Partition)),
            &map(&[("detach_transform", map(&[("topic", text("t")), ("module", text("m")), ("on", text("partition"))]))]),
        );
    }

    #[test]
    fn a_change_of_an_attachment_has_golden_bytes_and_nothing_in_it_is_said_in_vain() {
        let nothing = AlterTransform::new("t", ModuleRef::current("m"), AttachPoint::Derive);
        let fields = [("topic", text("t")), ("module", text("m")), ("on", text("derive"))];
        is_golden(&Request::AlterTransform(nothing.clone()), &map(&[("alter_transform", map(&fields))]));
        assert!(nothing.is_empty() && AlterTransform { view: Some("v".to_owned()), ..nothing.clone() }.is_empty());
        let everything = AlterTransform {
            module: "m@3".parse().expect("a version"),
            view: Some("v".to_owned()),
            follow_current: true,
            params: BTreeMap::from([("a".to_owned(), "1".to_owned())]),
            params_removed: BTreeSet::from(["b".to_owned()]),
            limits_reset: true,
            limits: AttachLimits { time_ms: Some(2), ..AttachLimits::default() },
            on_error: Some(OnError::Skip),
            state_bytes: Some(4),
            retries: Some(5),
            ..nothing.clone()
        };
        let golden = map(&[
            ("topic", text("t")),
            ("module", text("m@3")),
            ("on", text("derive")),
            ("view", text("v")),
            ("follow_current", vec![0xf5]),
            ("params", map(&[("a", text("1"))])),
            ("params_removed", array(&[text("b")])),
            ("limits_reset", vec![0xf5]),
            ("limits", map(&[("time_ms", vec![2])])),
            ("on_error", text("skip")),
            ("state_bytes", vec![4]),
            ("retries", vec![5]),
        ]);
        is_golden(&everything, &golden);
        let all = everything;
        for one in [
            AlterTransform { module: all.module, ..nothing.clone() },
            AlterTransform { follow_current: true, ..nothing.clone() },
            AlterTransform { params: all.params, ..nothing.clone() },
            AlterTransform { params_removed: all.params_removed, ..nothing.clone() },
            AlterTransform { limits_reset: true, ..nothing.clone() },
            AlterTransform { limits: all.limits, ..nothing.clone() },
            AlterTransform { on_error: all.on_error, ..nothing.clone() },
            AlterTransform { state_bytes: all.state_bytes, ..nothing.clone() },
            AlterTransform { retries: all.retries, ..nothing },
        ] {
            assert!(!one.is_empty(), "{one:?}");
        }
    }

    #[test]
    fn an_attachment_has_golden_bytes() {
        let status = AttachmentStatus {
            version: Some(7),
            pinned: true,
            sha256: "ab".into(),
            params: BTreeMap::from([("by".to_owned(), "device".to_owned())]),
            limits: AttachLimits { time_ms: Some(9), ..AttachLimits::default() },
            on_error: OnError::Skip,
            paused: Some("why".into()),
            records_in: 1,
            records_out: 2,
            records_dropped: 3,
            records_changed: 4,
            batches: 5,
            failures: 6,
            records_failed: 8,
            work: AttachmentWork { records_rejected: 9, ..AttachmentWork::default() },
            ..AttachmentStatus::new("m", AttachPoint::Partition)
        };
        let golden = map(&[
            ("module", text("m")),
            ("version", vec![7]),
            ("pinned", vec![0xf5]),
            ("sha256", text("ab")),
            ("on", text("partition")),
            ("params", map(&[("by", text("device"))])),
            ("limits", map(&[("time_ms", vec![9])])),
            ("on_error", text("skip")),
            ("paused", text("why")),
            ("records_in", vec![1]),
            ("records_out", vec![2]),
            ("records_dropped", vec![3]),
            ("records_changed", vec![4]),
            ("batches", vec![5]),
            ("failures", vec![6]),
            ("records_failed", vec![8]),
            ("work", map(&[("records_rejected", vec![9])])),
        ]);
        is_golden(&status, &golden);
    }
}

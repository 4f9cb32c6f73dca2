//! Modules: which one is meant, what is asked of them, what is told of them.

use super::{attachment::AttachmentStatus, topic::AttachPoint};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::{fmt, str::FromStr};
use thiserror::Error;

/// Which module is meant, and which version of it: `NAME`, `NAME@3` or `NAME@sha256:HEX`. No name has an `@`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModuleRef {
    /// Its name, as it was given: whether one can have it is the broker's to say.
    pub name: String,
    /// The version.
    pub pick: Pick,
}

/// A version of a module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Pick {
    /// The one that was deployed or rolled back to last.
    #[default]
    Current,
    /// This one; the first is 1.
    Version(u32),
    /// The one whose upload has this SHA-256: lower-case hex, 8 to 64 digits, of which no two versions with different bytes may begin alike.
    Sha256(String),
}

/// Text that names no module.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("`{text}` is no version of a module: write NAME, NAME@3 or NAME@sha256: and at least {SHA256_DIGITS_MIN} hex digits")]
pub struct ParseModuleRefError {
    text: String,
}

impl ModuleRef {
    /// The current version of a module.
    pub fn current(name: impl Into<String>) -> ModuleRef {
        ModuleRef { name: name.into(), pick: Pick::Current }
    }

    /// This version of it.
    pub fn version(name: impl Into<String>, version: u32) -> ModuleRef {
        ModuleRef { name: name.into(), pick: Pick::Version(version) }
    }
}

impl FromStr for ModuleRef {
    type Err = ParseModuleRefError;

    fn from_str(text: &str) -> Result<ModuleRef, ParseModuleRefError> {
        let Some((name, version)) = text.split_once('@') else { return Ok(ModuleRef::current(text)) };
        let pick = match version.strip_prefix("sha256:") {
            Some(digits) => is_sha256(digits).then(|| Pick::Sha256(digits.to_ascii_lowercase())),
            // A sign is not for a version, though Rust's numbers may have one.
            None if version.starts_with('+') => None,
            None => version.parse().ok().filter(|version| *version > 0).map(Pick::Version),
        };
        let pick = pick.ok_or_else(|| ParseModuleRefError { text: text.chars().take(SHOWN_CHARS_MAX).collect() })?;
        Ok(ModuleRef { name: name.to_owned(), pick })
    }
}

fn is_sha256(digits: &str) -> bool {
    (SHA256_DIGITS_MIN..=SHA256_DIGITS).contains(&digits.len()) && digits.bytes().all(|digit| digit.is_ascii_hexdigit())
}

impl fmt::Display for ModuleRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.pick {
            Pick::Current => f.write_str(&self.name),
            Pick::Version(version) => write!(f, "{}@{version}", self.name),
            Pick::Sha256(digits) => write!(f, "{}@sha256:{digits}", self.name),
        }
    }
}

impl Serialize for ModuleRef {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ModuleRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ModuleRef, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Announces the upload of a module.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeployModule {
    /// What it will be called; the same rules as for a topic's name.
    pub name: String,
    /// How many bytes follow in `Body` frames.
    pub size_bytes: u64,
}

/// Asks for one module.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DescribeModule {
    /// The module's name.
    pub name: String,
}

/// Makes another version of a module the current one. Topics that run the current one run it from their next batch on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RollbackModule {
    /// The module's name.
    pub name: String,
    /// The version; none is the one that was current before the current one was deployed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<u32>,
}

/// Removes a module with all its versions, or one version.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeleteModule {
    /// All versions, where none is named.
    pub module: ModuleRef,
}

/// One module, as its current version is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ModuleInfo {
    /// Its name.
    pub name: String,
    /// Which version is the current one.
    pub version: u32,
    /// The SHA-256 of the upload, in hex.
    pub sha256: String,
    /// Bytes of the upload.
    pub size_bytes: u64,
    /// The world that it implements, but for its state: `transform`, `partitioner` or `derive`.
    pub world: String,
    /// Whether it is that world's stateful one.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub stateful: bool,
    /// The topics that it is attached to, in any version.
    pub attached_to: Vec<String>,
    /// All that there are, the oldest first. In the answer to `describe_module` alone.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub versions: Vec<ModuleVersion>,
    /// What an upload or a rollback has taken the place of; none where the name was free, or had the same bytes, and in listings.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replaced: Option<ReplacedModule>,
    /// The versions that an upload has removed, because a module has only so many: the oldest that nothing needed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub removed: Vec<u32>,
}

/// One version of a module.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ModuleVersion {
    /// The first is 1. The number of a version that was deleted is not used again.
    pub version: u32,
    /// The SHA-256 of the upload, in hex.
    pub sha256: String,
    /// Bytes of the upload.
    pub size_bytes: u64,
    /// The world that it implements, but for its state.
    pub world: String,
    /// Whether it is that world's stateful one.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub stateful: bool,
    /// When it was deployed, in milliseconds since 1970-01-01 UTC by the broker's clock.
    pub deployed_at_ms: i64,
    /// Where it runs: because it is the current one, or because it was named.
    pub attached: Vec<AttachedModule>,
    /// Why it can't run; none where it can.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unavailable: Option<String>,
}

/// Where a module runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachedModule {
    /// The topic.
    pub topic: String,
    /// Where in its path.
    pub on: AttachPoint,
    /// On fetch: the view.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub view: Option<String>,
    /// It stays this version, whichever is the current one.
    #[serde(default)]
    pub pinned: bool,
    /// How it is doing there. In the answer to `describe_module` alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<AttachmentStatus>,
}

/// The version that was the current one before.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ReplacedModule {
    /// Its number.
    pub version: u32,
    /// The SHA-256 of its upload, in hex.
    pub sha256: String,
    /// The topics on which the new one runs in its place.
    pub topics: Vec<String>,
}

/// Of a version named by its hash. Fewer could be a number that was meant.
const SHA256_DIGITS_MIN: usize = 8;

const SHA256_DIGITS: usize = 64;

/// Of text that can't be understood, in an error.
const SHOWN_CHARS_MAX: usize = 100;

#[cfg(test)]
mod tests {
    use super::super::tests::{array, is_golden, map, text};
    use super::*;
    use crate::message::{Request, Response};

    #[test]
    fn a_module_is_named_with_and_without_a_version() {
        for (written, pick) in [
            ("drop-idle", Pick::Current),
            ("drop-idle@3", Pick::Version(3)),
            ("drop-idle@4294967295", Pick::Version(u32::MAX)),
            ("drop-idle@sha256:0123abcd", Pick::Sha256("0123abcd".to_owned())),
        ] {
            let module = ModuleRef { name: "drop-idle".to_owned(), pick };
            assert_eq!(written.parse(), Ok(module.clone()));
            assert_eq!(module.to_string(), written);
        }
        assert_eq!("m@sha256:0123ABCD".parse(), "m@sha256:0123abcd".parse::<ModuleRef>());
        let long = format!("m@sha256:{}", "0".repeat(65));
        for wrong in
            ["m@", "m@0", "m@-1", "m@+1", "m@1.0", "m@v1", "m@4294967296", "m@1@2", "m@sha256:", "m@sha256:012345g7", "m@sha256:1", &long]
        {
            let error = wrong.parse::<ModuleRef>().expect_err(wrong).to_string();
            assert!(error.contains("NAME@3"), "{error}");
        }
    }

    #[test]
    fn requests_about_modules_have_golden_bytes() {
        is_golden(
            &Request::DeployModule(DeployModule { name: "m".into(), size_bytes: 21_000 }),
            &map(&[("deploy_module", map(&[("name", text("m")), ("size_bytes", vec![0x19, 0x52, 0x08])]))]),
        );
        is_golden(
            &Request::DeleteModule(DeleteModule { module: ModuleRef::version("m", 2) }),
            &map(&[("delete_module", map(&[("module", text("m@2"))]))]),
        );
        is_golden(&Request::DescribeModule(DescribeModule { name: "m".into() }), &map(&[("describe_module", map(&[("name", text("m"))]))]));
        is_golden(
            &Request::RollbackModule(RollbackModule { name: "m".into(), to: Some(7) }),
            &map(&[("rollback_module", map(&[("name", text("m")), ("to", vec![7])]))]),
        );
    }

    #[test]
    fn modules_have_golden_bytes() {
        let module = ModuleInfo {
            name: "m".into(),
            version: 3,
            sha256: "00ff".into(),
            size_bytes: 9,
            world: "transform".into(),
            attached_to: vec!["t".into()],
            ..ModuleInfo::default()
        };
        let fields = [
            ("name", text("m")),
            ("version", vec![3]),
            ("sha256", text("00ff")),
            ("size_bytes", vec![9]),
            ("world", text("transform")),
            ("attached_to", array(&[text("t")])),
        ];
        let module_bytes = map(&fields);
        is_golden(&Response::Module(module.clone()), &map(&[("module", module_bytes.clone())]));
        is_golden(&Response::Modules(vec![module.clone()]), &map(&[("modules", array(&[module_bytes]))]));

        let replaced = ReplacedModule { version: 2, sha256: "0a".into(), topics: vec!["t".into(), "u".into()] };
        let attached = AttachedModule { topic: "t".into(), on: AttachPoint::Produce, view: None, pinned: true, status: None };
        let version = ModuleVersion { version: 3, deployed_at_ms: 5, attached: vec![attached], ..ModuleVersion::default() };
        let more = [("stateful", vec![0xf5])];
        let removed = [("removed", array(&[vec![1]]))];
        is_golden(
            &ModuleInfo { stateful: true, removed: vec![1], ..module.clone() },
            &map(&[&fields[..5], &more[..], &fields[5..], &removed].concat()),
        );
        let whole = ModuleInfo { versions: vec![version], replaced: Some(replaced), ..module };
        let attached_bytes = map(&[("topic", text("t")), ("on", text("produce")), ("pinned", vec![0xf5])]);
        let version_bytes = map(&[
            ("version", vec![3]),
            ("sha256", text("")),
            ("size_bytes", vec![0]),
            ("world", text("")),
            ("deployed_at_ms", vec![5]),
            ("attached", array(&[attached_bytes])),
        ]);
        let replaced_bytes = map(&[("version", vec![2]), ("sha256", text("0a")), ("topics", array(&[text("t"), text("u")]))]);
        is_golden(&whole, &map(&[&fields[..], &[("versions", array(&[version_bytes])), ("replaced", replaced_bytes)]].concat()));
    }
}

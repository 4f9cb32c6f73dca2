//! The versions of a module: which there are, which is the current one, and which a name means. Pure: the catalogue keeps it, the engine acts.
//!
//! ```text
//!   deploy a     deploy b     deploy c     roll back      deploy d            roll back
//!     1*     ──>   1 2*   ──>   1 2 3* ──>   1 2* 3  ──>   1 2 3 4*       ──>   1 2* 3 4
//!                                                          before(4) = 2
//! ```
//!
//! Each version remembers which one was the current one when it was deployed, and that is the one that a rollback goes back to: never to one
//! that was taken back itself. A number is given once, also where its version was deleted.

use crate::error::{EngineError, VersionsFull};
use millpond_protocol::message::{ModuleRef, Pick};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// A module: the versions that have one name. Never without one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct StoredModule {
    current: u32,
    /// The highest number that was given.
    last: u32,
    /// The oldest first.
    versions: Vec<StoredVersion>,
    #[serde(flatten)]
    unknown: Map<String, Value>,
}

/// One version. Its bytes are in `modules/SHA256.wasm`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct StoredVersion {
    pub(crate) version: u32,
    pub(crate) sha256: String,
    pub(crate) size_bytes: u64,
    /// `transform`, `partitioner` or `derive`.
    pub(crate) world: String,
    /// Whether it asks for state. An older broker did not note it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) stateful: bool,
    /// Milliseconds since 1970-01-01 UTC.
    #[serde(default)]
    pub(crate) deployed_at_ms: i64,
    /// The one that was current before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    before: Option<u32>,
    #[serde(flatten)]
    unknown: Map<String, Value>,
}

/// What was uploaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Upload {
    pub(crate) sha256: String,
    pub(crate) size_bytes: u64,
    pub(crate) world: String,
    pub(crate) stateful: bool,
    pub(crate) deployed_at_ms: i64,
}

impl StoredModule {
    /// A name that is new.
    pub(crate) fn new(upload: Upload) -> StoredModule {
        StoredModule { current: 1, last: 1, versions: vec![upload.into_version(1, None)], unknown: Map::new() }
    }

    /// The current version.
    pub(crate) fn current(&self) -> &StoredVersion {
        self.find(self.current).unwrap_or_else(|| unreachable!("version {} is the current one and can't be deleted", self.current))
    }

    /// All versions, the oldest first.
    pub(crate) fn versions(&self) -> &[StoredVersion] {
        &self.versions
    }

    /// The version of this number.
    pub(crate) fn find(&self, version: u32) -> Option<&StoredVersion> {
        self.versions.iter().find(|found| found.version == version)
    }

    /// The version that is meant. Of several with the very same bytes, the newest.
    pub(crate) fn pick(&self, name: &str, pick: &Pick) -> Result<&StoredVersion, EngineError> {
        let none = |reason| {
            let wanted = ModuleRef { name: name.to_owned(), pick: pick.clone() };
            EngineError::ModuleVersionNotFound { wanted, reason, versions: self.versions.iter().map(|found| found.version).collect() }
        };
        match pick {
            Pick::Current => Ok(self.current()),
            Pick::Version(version) => self.find(*version).ok_or_else(|| none("there is no such version")),
            Pick::Sha256(digits) => {
                let mut found = self.versions.iter().rev().filter(|found| found.sha256.starts_with(digits));
                let newest = found.next().ok_or_else(|| none("no version has this hash"))?;
                if found.all(|other| other.sha256 == newest.sha256) { Ok(newest) } else { Err(none("more than one hash begins so")) }
            }
        }
    }

    /// With this upload as its newest version, and its current one. The very bytes of the current one are no new version.
    #[must_use]
    pub(crate) fn deployed(&self, upload: Upload) -> StoredModule {
        let mut next = self.clone();
        if upload.sha256 != self.current().sha256 {
            next.last = self.last.saturating_add(1);
            next.versions.push(upload.into_version(next.last, Some(self.current)));
            next.current = next.last;
        }
        next
    }

    /// With another version as the current one: this, or the one that was current before.
    pub(crate) fn rolled_back(&self, name: &str, to: Option<u32>) -> Result<StoredModule, EngineError> {
        let to = match to {
            Some(version) => self.pick(name, &Pick::Version(version))?.version,
            None => self.current().before.ok_or_else(|| EngineError::NoVersionBefore { module: name.to_owned(), version: self.current })?,
        };
        Ok(StoredModule { current: to, ..self.clone() })
    }

    /// Without this version, which is not the current one. What was deployed over it goes back to what it was deployed over.
    #[must_use]
    pub(crate) fn without(&self, version: u32) -> StoredModule {
        let mut next = self.clone();
        let before = self.find(version).and_then(|removed| removed.before);
        next.versions.retain(|kept| kept.version != version);
        next.versions.iter_mut().filter(|kept| kept.before == Some(version)).for_each(|kept| kept.before = before);
        next
    }

    /// With so many versions at most, and what that took away: the oldest that are not used. Never the current one, nor the one that a
    /// rollback goes back to.
    ///
    /// # Errors
    ///
    /// [`VersionsFull`] where too many are left.
    pub(crate) fn within(
        &self,
        limit: usize,
        name: &str,
        uses: &BTreeMap<u32, Vec<String>>,
    ) -> Result<(StoredModule, Vec<StoredVersion>), VersionsFull> {
        let back = self.current().before;
        let can_go =
            |found: &&StoredVersion| found.version != self.current && back != Some(found.version) && !uses.contains_key(&found.version);
        let surplus = self.versions.len().saturating_sub(limit);
        let gone: Vec<_> = self.versions.iter().filter(can_go).take(surplus).cloned().collect();
        if gone.len() == surplus {
            return Ok((gone.iter().fold(self.clone(), |left, gone| left.without(gone.version)), gone));
        }
        let why = |found: &StoredVersion| match uses.get(&found.version) {
            Some(topics) if topics.len() > 1 => format!("version {} runs on {} and {} more", found.version, topics[0], topics.len() - 1),
            Some(topics) => format!("version {} runs on {}", found.version, topics.join("")),
            None => format!("version {} is the one to go back to", found.version),
        };
        let kept = self.versions.iter().filter(|found| found.version != self.current && !gone.contains(found)).map(why);
        Err(VersionsFull { module: name.to_owned(), limit, kept: kept.take(VERSIONS_SHOWN_MAX).collect() })
    }

    /// Of a file that may have been edited by hand: what is wrong with it.
    pub(crate) fn check(&self) -> Result<(), String> {
        if !self.versions.is_sorted_by(|one, next| one.version < next.version) {
            return Err("its versions are not in order".to_owned());
        }
        if self.find(self.current).is_none() || self.versions.last().is_none_or(|newest| newest.version > self.last) {
            return Err(format!("its current version {} or the last one, {}, is none of its versions", self.current, self.last));
        }
        for StoredVersion { version, sha256, before, .. } in &self.versions {
            if sha256.len() != SHA256_DIGITS || !sha256.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                return Err(format!("its version {version} has no SHA-256 but `{sha256}`"));
            }
            if before.is_some_and(|before| before >= *version || self.find(before).is_none()) {
                return Err(format!("its version {version} was deployed over one that is not there"));
            }
        }
        Ok(())
    }
}

impl Upload {
    fn into_version(self, version: u32, before: Option<u32>) -> StoredVersion {
        let Upload { sha256, size_bytes, world, stateful, deployed_at_ms } = self;
        StoredVersion { version, sha256, size_bytes, world, stateful, deployed_at_ms, before, unknown: Map::new() }
    }
}

const SHA256_DIGITS: usize = 64;

/// Of those that can't go, in an error.
const VERSIONS_SHOWN_MAX: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn upload(digit: char) -> Upload {
        Upload {
            sha256: digit.to_string().repeat(SHA256_DIGITS),
            size_bytes: 1,
            world: "transform".to_owned(),
            stateful: false,
            deployed_at_ms: 5,
        }
    }

    /// Versions 1, 2 and 3, with other bytes each.
    fn three() -> StoredModule {
        StoredModule::new(upload('a')).deployed(upload('b')).deployed(upload('c'))
    }

    fn numbers(module: &StoredModule) -> Vec<u32> {
        module.versions().iter().map(|found| found.version).collect()
    }

    #[test]
    fn each_upload_is_a_version_of_its_own_but_for_the_very_bytes_of_the_current_one() {
        let module = three();
        assert_eq!((numbers(&module), module.current().version), (vec![1, 2, 3], 3));
        assert_eq!(module.deployed(upload('c')), module);
        let again = module.deployed(upload('a'));
        assert_eq!((numbers(&again), again.current().version), (vec![1, 2, 3, 4], 4), "an old one that comes back is new");
    }

    #[test]
    fn a_rollback_goes_to_what_was_current_before_and_never_to_what_was_taken_back() {
        let back = three().rolled_back("m", None).expect("there was one before");
        assert_eq!(back.current().version, 2);
        let fixed = back.deployed(upload('d'));
        assert_eq!(fixed.current().version, 4);
        let back = fixed.rolled_back("m", None).expect("there was one before");
        assert_eq!(back.current().version, 2, "not to 3, which was taken back");
        let back = back.rolled_back("m", None).expect("there was one before");
        assert_eq!(back.current().version, 1);
        let error = back.rolled_back("m", None).expect_err("it is the first");
        assert!(matches!(error, EngineError::NoVersionBefore { version: 1, .. }), "{error:?}");
        assert_eq!(back.rolled_back("m", Some(3)).expect("it is there").current().version, 3, "by its number any of them");
        let error = back.rolled_back("m", Some(9)).expect_err("there is none");
        assert!(error.to_string().contains("m@9"), "{error}");
        assert_eq!(back.check(), Ok(()));
    }

    #[test]
    fn a_version_that_is_deleted_leaves_a_way_back_and_its_number_is_not_given_again() {
        let module = three().without(2);
        assert_eq!((numbers(&module), module.check()), (vec![1, 3], Ok(())));
        assert_eq!(module.rolled_back("m", None).expect("there is one").current().version, 1);
        let module = three().rolled_back("m", None).expect("there was one before").without(3).deployed(upload('e'));
        assert_eq!(numbers(&module), [1, 2, 4]);
        let module = three().without(1).without(2);
        module.rolled_back("m", None).expect_err("nothing is left before it");
    }

    #[test]
    fn the_oldest_versions_that_nothing_needs_make_room() {
        let uses = |used: &[u32]| used.iter().map(|version| (*version, vec![format!("t{version}")])).collect();
        let four = three().deployed(upload('d'));
        let within = |limit, used: &[u32]| {
            let (left, gone) = four.within(limit, "m", &uses(used))?;
            assert_eq!(left.check(), Ok(()));
            Ok((numbers(&left), gone.into_iter().map(|gone| gone.version).collect::<Vec<_>>()))
        };
        assert_eq!(within(4, &[]), Ok((vec![1, 2, 3, 4], vec![])));
        assert_eq!(within(3, &[]), Ok((vec![2, 3, 4], vec![1])));
        assert_eq!(within(3, &[1]), Ok((vec![1, 3, 4], vec![2])));
        assert_eq!(within(2, &[]), Ok((vec![3, 4], vec![1, 2])), "a limit that was lowered");
        let error: VersionsFull = within(2, &[1]).expect_err("1 runs, and 3 is the one to go back to");
        assert_eq!(error.kept, ["version 1 runs on t1", "version 3 is the one to go back to"]);
        // After a rollback to 1 and a new upload, 1 is the one to go back to, and 2 is the oldest that can go.
        let after = three().rolled_back("m", Some(1)).expect("it is there").deployed(upload('d'));
        let (left, gone) = after.within(3, "m", &uses(&[])).expect("2 can go");
        assert_eq!((numbers(&left), gone[0].version), (vec![1, 3, 4], 2));
    }

    #[test]
    fn a_version_is_picked_by_number_and_by_hash() {
        let module = three().deployed(upload('a'));
        let pick = |pick: &Pick| module.pick("m", pick).map(|found| found.version).map_err(|error| error.to_string());
        let sha256 = |digits: &str| Pick::Sha256(digits.to_owned());
        assert_eq!(pick(&Pick::Current), Ok(4));
        assert_eq!(pick(&Pick::Version(2)), Ok(2));
        assert_eq!(pick(&sha256("bbbbbbbb")), Ok(2));
        assert_eq!(pick(&sha256("aaaaaaaa")), Ok(4), "two have these bytes");
        assert!(pick(&sha256("dddddddd")).is_err_and(|error| error.contains("no version has this hash")));
        assert!(pick(&Pick::Version(5)).is_err_and(|error| error.contains("m@5")));
        let other = Upload { sha256: format!("{}b", "a".repeat(SHA256_DIGITS - 1)), ..upload('a') };
        let error = module.deployed(other).pick("m", &sha256("aaaaaaaa")).expect_err("two begin so").to_string();
        assert!(error.contains("more than one"), "{error}");
    }

    #[test]
    fn what_was_edited_by_hand_is_held_against_the_rules() {
        let wrong: [fn(&mut StoredModule); 6] = [
            |module| module.versions.clear(),
            |module| module.versions.reverse(),
            |module| module.current = 7,
            |module| module.last = 2,
            |module| module.versions[1].sha256 = "../../etc/passwd".to_owned(),
            |module| module.versions[1].before = Some(2),
        ];
        for (number, wrong) in wrong.into_iter().enumerate() {
            let mut module = three();
            wrong(&mut module);
            assert!(module.check().is_err(), "{number}");
        }
        assert_eq!(three().check(), Ok(()));
    }
}

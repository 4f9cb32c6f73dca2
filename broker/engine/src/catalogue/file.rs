//! The catalogue as files: `catalogue.json`, and the same once more as `catalogue.2.json`. Both are written before a change is in force.
//!
//! The document has its own CRC-32C in the field `checksum`, over all bytes of the file, with zeros in the place of the eight digits:
//!
//! ```text
//!   {
//!     "version": 2,
//!     "checksum": "crc32c:9f0b6c1e",
//!     ...
//! ```
//!
//! One changed byte could give a topic another retention, and with that delete its records, or hide it. So a file without a checksum, or
//! with another one, is damaged, and the second one takes its place; it is kept as `catalogue.json.damaged`. Whoever edits the file by
//! hand writes `"checksum": "none"`, and removes the second one. Version 1 had none.
//!
//! Where neither can be used nothing is begun: an empty catalogue would hide every topic.

use super::{Catalogue, VERSION_1, VersionOnly};
use crate::{data_dir::read_whole, error::EngineError};
use millpond_log::Disk;
use millpond_protocol::batch::checksum;
use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

/// Some 500 bytes a topic at 10,000 topics are 5 MB; this leaves room and still bounds what a damaged file can cost.
const FILE_BYTES_MAX: u64 = 256 << 20;

/// The catalogue in one of its files, if that is there.
pub(crate) type Copied = Result<Option<Catalogue>, EngineError>;

/// What stands in the document while its checksum is computed.
pub(super) const UNSEALED: &str = "crc32c:00000000";

/// Stands before the digits.
const SEAL_PREFIX: &[u8] = b"\"checksum\": \"crc32c:";

const DIGITS: usize = 8;

/// Written by hand.
const NONE: &str = "none";

impl Catalogue {
    /// The catalogue in these files; none if there is neither. Blocking.
    pub(crate) fn load(disk: &dyn Disk, path: &Path) -> Result<Option<Catalogue>, EngineError> {
        let second = second(path);
        let damage = match read(disk, path) {
            Ok(Some(catalogue)) => {
                catalogue.copy_to(disk, &second);
                return Ok(Some(catalogue));
            }
            Ok(None) => None,
            Err(error @ EngineError::CatalogueDamaged { .. }) => Some(error),
            Err(error) => return Err(error),
        };
        let Ok(Some(catalogue)) = read(disk, &second) else { return damage.map_or(Ok(None), Err) };
        let reason = damage.map_or_else(|| "it is not there".to_owned(), |error| error.to_string());
        tracing::error!(path = %path.display(), reason, "the catalogue can't be used; the second one takes its place");
        // Somebody may want to look at it. If it can't be kept it is replaced.
        let _ = disk.rename(path, &with_ending(path, ".damaged"));
        catalogue.save(disk, path)?;
        Ok(Some(catalogue))
    }

    /// The first one of a data folder, which is empty. Blocking.
    pub(crate) fn begin(disk: &dyn Disk, path: &Path) -> Result<Catalogue, EngineError> {
        let catalogue = Catalogue::default();
        catalogue.save(disk, path)?;
        Ok(catalogue)
    }

    /// Replaces the files as a whole: after a crash each is the old one or the new one. Blocking.
    pub(crate) fn save(&self, disk: &dyn Disk, path: &Path) -> Result<(), EngineError> {
        let bytes = self.encode();
        for path in [path, &second(path)] {
            millpond_log::write_atomically(disk, path, &bytes).map_err(|source| EngineError::data_dir("write", path, source))?;
        }
        Ok(())
    }

    /// What each of the two files holds, for whoever only looks at them. Blocking.
    pub(crate) fn copies(disk: &dyn Disk, path: &Path) -> [(PathBuf, Copied); 2] {
        [path.to_owned(), second(path)].map(|path| {
            let copied = read(disk, &path);
            (path, copied)
        })
    }

    /// Whether a start could find this one in one of the files. Blocking.
    pub(crate) fn may_be_stored(&self, disk: &dyn Disk, path: &Path) -> bool {
        let may_be = |copied: Copied| copied.map_or(true, |copy| copy.as_ref() == Some(self));
        Catalogue::copies(disk, path).into_iter().any(|(_, copied)| may_be(copied))
    }

    /// Sees to it that the second file is the same. Nothing depends on it as long as the first one is whole.
    fn copy_to(&self, disk: &dyn Disk, second: &Path) {
        if !matches!(read(disk, second), Ok(Some(copy)) if copy == *self)
            && let Err(error) = millpond_log::write_atomically(disk, second, &self.encode())
        {
            tracing::warn!(path = %second.display(), %error, "the second catalogue can't be written");
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec_pretty(self)
            .unwrap_or_else(|error| unreachable!("the catalogue has text for keys and encodes into memory: {error}"));
        bytes.push(b'\n');
        let digits = format!("{:08x}", checksum(&bytes));
        if let Some(place) = sealed_at(&bytes) {
            bytes[place..place + DIGITS].copy_from_slice(digits.as_bytes());
        }
        bytes
    }

    pub(super) fn decode(bytes: &[u8], path: &Path) -> Result<Catalogue, EngineError> {
        let damaged = |reason: String| EngineError::CatalogueDamaged { path: path.to_owned(), reason };
        // The version first: what a newer file means is not ours to guess.
        let version = serde_json::from_slice::<VersionOnly>(bytes).map_err(|error| damaged(error.to_string()))?.version;
        let catalogue = Catalogue::parse(bytes, version, path)?;
        if version > VERSION_1 && catalogue.checksum != NONE {
            let sealed = sealed_at(bytes).and_then(|place| std::str::from_utf8(&bytes[place..place + DIGITS]).ok());
            let found = sealed.ok_or_else(|| damaged("it has no checksum".to_owned()))?;
            let mut unsealed = bytes.to_vec();
            if let Some(place) = sealed_at(bytes) {
                unsealed[place..place + DIGITS].fill(b'0');
            }
            let computed = format!("{:08x}", checksum(&unsealed));
            if found != computed {
                return Err(damaged(format!(
                    "its checksum is {computed}, and it says {found}; after a change by hand, write `\"checksum\": \"none\"`"
                )));
            }
        }
        catalogue.check().map_err(damaged)?;
        Ok(Catalogue { checksum: UNSEALED.to_owned(), ..catalogue })
    }
}

fn read(disk: &dyn Disk, path: &Path) -> Copied {
    read_whole(disk, path, FILE_BYTES_MAX)?.map(|bytes| Catalogue::decode(&bytes, path)).transpose()
}

/// Where the digits are.
fn sealed_at(bytes: &[u8]) -> Option<usize> {
    let place = bytes.windows(SEAL_PREFIX.len()).position(|window| window == SEAL_PREFIX)? + SEAL_PREFIX.len();
    (place + DIGITS <= bytes.len()).then_some(place)
}

/// The file that holds the same.
fn second(path: &Path) -> PathBuf {
    path.with_extension("2.json")
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(ending);
    PathBuf::from(name)
}

//! Compiled modules between two starts of the broker: where they are kept, and how one is known to be undamaged.
//!
//! ```text
//!  0         8                            40                       n
//!  +---------+----------------------------+------------------------+
//!  | "MPART1"| SHA-256 of what follows    | wasmtime's own format  |
//!  | 0 0     | 32 bytes                   |                        |
//!  +---------+----------------------------+------------------------+
//! ```
//!
//! An artifact is native code. It is never taken from outside, and the digest keeps a damaged file from being run.

use std::hash::{Hash, Hasher};

use sha2::{Digest, Sha256};

/// Where compiled modules are kept. A cache may forget anything at any time; what it returns is checked.
pub trait ArtifactCache: Send + Sync {
    /// What was stored under this key, if it is still there.
    fn load(&self, key: &str) -> Option<Vec<u8>>;

    /// Keeps an artifact. Keys consist of hexadecimal digits and a hyphen, so they can be file names. A failure to store costs
    /// time at the next start and nothing else, so it isn't reported here.
    fn store(&self, key: &str, artifact: &[u8]);
}

/// Keeps nothing: each module is compiled whenever it is loaded.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoCache;

impl ArtifactCache for NoCache {
    fn load(&self, _key: &str) -> Option<Vec<u8>> {
        None
    }

    fn store(&self, _key: &str, _artifact: &[u8]) {}
}

/// The key of a module's artifact: the digest of the upload, and of all that the compiled code depends on.
pub(crate) fn key(module_sha256: &str, compatibility: &impl Hash) -> String {
    let mut hasher = Fingerprint(Sha256::new());
    compatibility.hash(&mut hasher);
    format!("{module_sha256}-{}", &hex(&hasher.0.finalize())[..16])
}

/// Puts the header before the compiled code.
pub(crate) fn seal(code: &[u8]) -> Vec<u8> {
    let mut artifact = Vec::with_capacity(HEADER_BYTES + code.len());
    artifact.extend_from_slice(MAGIC);
    artifact.extend_from_slice(&Sha256::digest(code));
    artifact.extend_from_slice(code);
    artifact
}

/// The compiled code of an artifact, if it is whole.
pub(crate) fn open(artifact: &[u8]) -> Option<&[u8]> {
    let (header, code) = artifact.split_at_checked(HEADER_BYTES)?;
    let digest = header.strip_prefix(MAGIC)?;
    (Sha256::digest(code).as_slice() == digest).then_some(code)
}

/// Bytes in hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]).filter_map(|digit| char::from_digit(digit.into(), 16)).collect()
}

/// A hasher whose result is the same in every build of the broker, which the standard library's is not.
struct Fingerprint(Sha256);

impl Hasher for Fingerprint {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        0 // never asked for: the digest is taken instead
    }
}

const MAGIC: &[u8; 8] = b"MPART1\0\0";
const HEADER_BYTES: usize = MAGIC.len() + 32;

#[cfg(test)]
mod tests {
    use super::{hex, key, open, seal};

    #[test]
    fn an_artifact_opens_as_it_was_sealed() {
        for code in [&b""[..], b"x", &[7; 1000]] {
            assert_eq!(open(&seal(code)), Some(code));
        }
    }

    #[test]
    fn a_damaged_artifact_does_not_open() {
        let artifact = seal(b"native code");
        for byte in 0..artifact.len() {
            let mut damaged = artifact.clone();
            damaged[byte] ^= 1;
            assert_eq!(open(&damaged), None, "byte {byte}");
            assert_eq!(open(&artifact[..byte]), None, "cut at {byte}");
        }
    }

    #[test]
    fn the_key_depends_on_the_module_and_on_the_engine() {
        assert_eq!(hex(&[0x00, 0x9a, 0xff]), "009aff");
        assert_ne!(key("aa", &1), key("aa", &2));
        assert_ne!(key("aa", &1), key("bb", &1));
        assert_eq!(key("aa", &1), key("aa", &1));
    }
}

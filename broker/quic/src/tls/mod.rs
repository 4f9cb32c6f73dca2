//! The broker's certificate: made at the first start, kept for good, checked at every start.
//!
//! ```text
//! DATA_DIR/tls/          0700
//!   ca.pem               the authority of this broker alone; what clients are given to trust
//!   ca.key        0600   its key: needed only to issue another server certificate, so it may be kept elsewhere
//!   server.pem           the server's certificate, and the authority's behind it
//!   server.key    0600   its key
//! ```
//!
//! The certificates are valid from 1970 to the year 9999, because a gateway without a battery boots in 1970 and must still be
//! reachable, and because nobody comes by to renew them. What protects a client is the pinned authority or fingerprint.
//!
//! An identity is never replaced behind anyone's back: clients have pinned it. When `server.pem` and `server.key` are both gone,
//! another pair is issued from the same authority. Anything else that is missing or damaged is an error that names the file.

mod files;
mod issue;

use crate::QuicError;
use quinn::EndpointConfig;
use quinn_proto::HashedConnectionIdGenerator;
use ring::hmac;
use rustls::{
    CertificateError, RootCertStore,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier, verify_server_name},
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime},
    server::{ParsedCertificate, ServerSessionMemoryCache},
    sign::CertifiedKey,
};
use sha2::{Digest, Sha256};
use std::{fmt, fmt::Write as _, net::IpAddr, path::Path, sync::Arc};

/// Sessions that a client may resume, and send early data in. A session is forgotten when it is used, which is what keeps early
/// data from being replayed.
const SESSIONS_MAX: usize = 1024;

/// A certificate chain and the key of its first certificate.
pub struct TlsMaterial {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl TlsMaterial {
    /// Takes a chain, leaf first, and its key from PEM files that somebody else looks after.
    ///
    /// # Errors
    ///
    /// A file that can't be read, holds nothing of its kind, or a key that does not belong to the leaf.
    pub fn from_pem_files(certificate: &Path, key: &Path) -> Result<TlsMaterial, QuicError> {
        Self::from_files(certificate, key, "give the certificate chain, leaf first, and its key as PEM files")
    }

    /// `sha256:` and the hash of the server's certificate in hex: what a client may pin in its URL.
    pub fn fingerprint(&self) -> String {
        let mut text = String::from("sha256:");
        for byte in Sha256::digest(self.leaf()) {
            // Writing to a string can't fail.
            let _ = write!(text, "{byte:02x}");
        }
        text
    }

    /// What rustls needs to serve QUIC: TLS 1.3 alone, `millpond/1` alone.
    pub(crate) fn server_config(&self) -> Result<rustls::ServerConfig, QuicError> {
        let mut config = rustls::ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|source| QuicError::Tls { source })?
            .with_no_client_auth()
            .with_single_cert(self.chain.clone(), self.key.clone_key())
            .map_err(|source| QuicError::Tls { source })?;
        config.alpn_protocols = vec![millpond_protocol::ALPN.to_vec()];
        config.session_storage = ServerSessionMemoryCache::new(SESSIONS_MAX);
        // RFC 9001, section 4.6.1: in QUIC it is all or nothing, flow control limits the bytes.
        config.max_early_data_size = u32::MAX;
        Ok(config)
    }

    /// Keys that a broker has again after a crash, because they follow from its private key: a packet of a connection that the process
    /// before this one had is answered with a stateless reset that its client believes (RFC 9000, section 10.3.2). The client reconnects
    /// after a round trip instead of waiting until the connection has been silent for too long.
    pub(crate) fn endpoint_config(&self) -> EndpointConfig {
        let reset_key = hmac::Key::new(hmac::HMAC_SHA256, &self.derive(b"millpond stateless reset"));
        let mut connection_id_key = [0; 8];
        connection_id_key.copy_from_slice(&self.derive(b"millpond connection id")[..8]);
        let connection_id_key = u64::from_be_bytes(connection_id_key);
        let mut config = EndpointConfig::new(Arc::new(reset_key));
        config.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(connection_id_key)));
        config
    }

    /// A secret that follows from the private key and tells nothing about it.
    fn derive(&self, purpose: &[u8]) -> [u8; 32] {
        let mut secret = [0; 32];
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, self.key.secret_der()), purpose);
        secret.copy_from_slice(tag.as_ref());
        secret
    }

    fn from_files(certificate: &Path, key: &Path, hint: &str) -> Result<TlsMaterial, QuicError> {
        let chain = files::read_certificates(certificate, hint)?;
        let key_path = key;
        let key = files::read_key(key_path, hint)?;
        let damaged = |path: &Path, reason: String| QuicError::TlsFileDamaged { path: path.to_owned(), reason, hint: hint.to_owned() };
        let signing_key = provider()
            .key_provider
            .load_private_key(key.clone_key())
            .map_err(|error| damaged(key_path, format!("holds a key that TLS can't use: {error}")))?;
        match CertifiedKey::new(chain.clone(), signing_key).keys_match() {
            Ok(()) => Ok(TlsMaterial { chain, key }),
            Err(rustls::Error::InconsistentKeys(_)) => {
                Err(damaged(key_path, format!("is not the key of the certificate in {}", certificate.display())))
            }
            Err(error) => Err(damaged(certificate, format!("holds a certificate that can't be read: {error}"))),
        }
    }

    fn leaf(&self) -> &CertificateDer<'static> {
        // `files::read_certificates` and `issue` give one certificate at least.
        &self.chain[0]
    }

    /// Whether a client that trusts `authority` would trust this chain. Names and dates are not looked at.
    fn is_issued_by(&self, authority: &CertificateDer<'static>) -> Result<bool, rustls::Error> {
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone())?;
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider())
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?;
        let any_name = ServerName::from(IpAddr::from([127, 0, 0, 1]));
        match verifier.verify_server_cert(self.leaf(), &self.chain[1..], &any_name, &[], UnixTime::now()) {
            Err(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature)) => Ok(false),
            _ => Ok(true),
        }
    }

    /// Says in the log which of these names a client that checks the certificate can't use.
    fn warn_about_missing_names(&self, names: &[String], dir: &Path) {
        let Ok(leaf) = ParsedCertificate::try_from(self.leaf()) else { return };
        for name in names {
            let covered = ServerName::try_from(name.as_str()).is_ok_and(|server_name| verify_server_name(&leaf, &server_name).is_ok());
            if !covered {
                tracing::warn!(
                    name,
                    "the server's certificate does not cover this name, so clients that check names can't use it; to issue another \
                     certificate from the same authority, delete server.pem and server.key in {} and start again (pinned \
                     fingerprints must then be given anew)",
                    dir.display()
                );
            }
        }
    }
}

impl fmt::Debug for TlsMaterial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the key.
        f.debug_struct("TlsMaterial").field("fingerprint", &self.fingerprint()).finish_non_exhaustive()
    }
}

/// Loads the broker's certificate from `dir`, the folder `tls` in the data folder, and makes what a first start needs.
///
/// The certificate covers `localhost`, the loopback addresses, this host's name, and `extra_names`: DNS names and IP addresses
/// (unspecified ones, such as `0.0.0.0`, are passed over).
///
/// # Errors
///
/// A file that can't be read or written, one that is missing while others are there, a damaged one, one that does not belong to the
/// others, or a name that can't stand in a certificate.
pub fn load_or_create_tls(dir: &Path, extra_names: &[String]) -> Result<TlsMaterial, QuicError> {
    let names = names(extra_names)?;
    let paths = files::TlsPaths::new(dir);
    let hint = format!(
        "restore it from a backup; or delete the folder {} and start again: the broker then makes itself a new identity, and its \
         clients must be given the new ca.pem or fingerprint",
        dir.display()
    );
    let missing = |path: &Path| QuicError::TlsFileMissing { path: path.to_owned(), hint: hint.clone() };

    files::create_dir(dir)?;
    if !paths.server_certificate.exists() {
        // Without ca.pem nobody can have been told to trust anything: a first start, or one that was interrupted.
        if !paths.ca_certificate.exists() {
            issue::authority(&paths)?;
        } else if !paths.ca_key.exists() {
            return Err(missing(&paths.ca_key));
        }
        issue::server(&paths, &names, &hint)?;
    }
    for path in [&paths.server_key, &paths.ca_certificate] {
        if !path.exists() {
            return Err(missing(path));
        }
    }

    let material = TlsMaterial::from_files(&paths.server_certificate, &paths.server_key, &hint)?;
    let authority = files::read_certificates(&paths.ca_certificate, &hint)?.swap_remove(0);
    let damaged = |path: &Path, reason: String| QuicError::TlsFileDamaged { path: path.to_owned(), reason, hint: hint.clone() };
    match material.is_issued_by(&authority) {
        Ok(true) => {}
        Ok(false) => {
            let reason = format!("was not issued by the authority in {}", paths.ca_certificate.display());
            return Err(damaged(&paths.server_certificate, reason));
        }
        Err(error) => return Err(damaged(&paths.ca_certificate, format!("holds a certificate that can't be read: {error}"))),
    }
    material.warn_about_missing_names(&names, dir);
    Ok(material)
}

/// The names that the certificate should cover, each once.
fn names(extra_names: &[String]) -> Result<Vec<String>, QuicError> {
    let mut names: Vec<String> = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).into();
    if let Some(host_name) = files::host_name().filter(|name| ServerName::try_from(name.as_str()).is_ok()) {
        names.push(host_name);
    }
    for name in extra_names {
        ServerName::try_from(name.as_str()).map_err(|_| QuicError::TlsName { name: name.clone() })?;
        if !name.parse::<IpAddr>().is_ok_and(|address| address.is_unspecified()) {
            names.push(name.clone());
        }
    }
    let mut seen = std::collections::BTreeSet::new();
    names.retain(|name| seen.insert(name.clone()));
    Ok(names)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

#[cfg(test)]
mod tests;

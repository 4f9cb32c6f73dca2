//! Whose certificate is accepted.
//!
//! TLS 1.3 is always on. A broker is known by the SHA-256 of its certificate, by an authority that signed it, or by the authorities of
//! the operating system. There is no way to accept just any certificate.

use crate::error::Error;
use parking_lot::Mutex;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
};
use sha2::{Digest, Sha256};
use std::{fmt, path::Path, path::PathBuf, str::FromStr, sync::Arc};

/// Whom to trust.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Trust {
    /// The one certificate with this fingerprint, whatever names and dates are in it.
    Fingerprint(Fingerprint),
    /// Certificates that an authority in this PEM file signed for the host's name.
    CaFile(PathBuf),
    /// Certificates that an authority of the operating system signed for the host's name.
    #[default]
    SystemRoots,
}

/// The SHA-256 of a certificate's DER bytes. Written as `sha256:` and 64 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// The fingerprint of a certificate.
    pub fn of(certificate_der: &[u8]) -> Fingerprint {
        Fingerprint(Sha256::digest(certificate_der).into())
    }

    /// Looks at every byte whatever the first ones say, so that the time it takes tells nothing.
    fn matches(self, other: Fingerprint) -> bool {
        self.0.iter().zip(other.0).fold(0, |difference, (ours, theirs)| difference | (ours ^ theirs)) == 0
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Fingerprint {
    type Err = String;

    fn from_str(text: &str) -> Result<Fingerprint, String> {
        let hex = text.strip_prefix("sha256:").ok_or_else(|| format!("the fingerprint `{text}` does not start with sha256:"))?;
        let wrong = || format!("the fingerprint `{text}` does not have 64 hex digits behind sha256:");
        if hex.len() != 64 || !hex.is_ascii() {
            return Err(wrong());
        }
        let mut bytes = [0; 32];
        for (byte, digits) in bytes.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
            let digit = |at: usize| char::from(digits[at]).to_digit(16).ok_or_else(wrong);
            *byte = u8::try_from(digit(0)? * 16 + digit(1)?).map_err(|_| wrong())?;
        }
        Ok(Fingerprint(bytes))
    }
}

/// What rustls needs, and the verifier that remembers which certificate it refused.
pub(crate) struct Tls {
    pub(crate) config: ClientConfig,
    pub(crate) verifier: Option<Arc<FingerprintVerifier>>,
}

/// Builds the TLS side: TLS 1.3 alone, ALPN, resumption of sessions.
pub(crate) fn tls(trust: &Trust) -> Result<Tls, Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap_or_else(|error| unreachable!("ring has the cipher suites of TLS 1.3: {error}"));
    let (builder, verifier) = match trust {
        Trust::Fingerprint(expected) => {
            let verifier = Arc::new(FingerprintVerifier { expected: *expected, provider, refused: Mutex::new(None) });
            (builder.dangerous().with_custom_certificate_verifier(Arc::clone(&verifier) as _), Some(verifier))
        }
        Trust::CaFile(path) => (builder.with_root_certificates(roots_in(path)?), None),
        Trust::SystemRoots => (builder.with_root_certificates(system_roots()?), None),
    };
    let mut config = builder.with_no_client_auth();
    config.alpn_protocols = vec![millpond_protocol::ALPN.to_vec()];
    Ok(Tls { config, verifier })
}

fn roots_in(path: &Path) -> Result<RootCertStore, Error> {
    let wrong = |reason: String| Error::CaFile { path: path.to_owned(), reason };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| wrong(error.to_string()))? {
        roots.add(certificate.map_err(|error| wrong(error.to_string()))?).map_err(|error| wrong(error.to_string()))?;
    }
    if roots.is_empty() { Err(wrong("there is no CERTIFICATE in it".to_owned())) } else { Ok(roots) }
}

fn system_roots() -> Result<RootCertStore, Error> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (added, ignored) = roots.add_parsable_certificates(found.certs);
    if added > 0 {
        return Ok(roots);
    }
    let errors: Vec<String> = found.errors.iter().map(ToString::to_string).collect();
    Err(Error::NoSystemRoots { reason: format!("{ignored} unreadable certificates; {}", errors.join("; ")) })
}

/// Accepts one certificate, by its fingerprint.
///
/// The fingerprint only says which certificate it is. That the broker holds its key is shown by the handshake's signature, which
/// is verified as for any other certificate.
#[derive(Debug)]
pub(crate) struct FingerprintVerifier {
    expected: Fingerprint,
    provider: Arc<CryptoProvider>,
    refused: Mutex<Option<Fingerprint>>,
}

impl FingerprintVerifier {
    /// The fingerprint that was expected and the last one that was refused, if one was since the last call.
    pub(crate) fn take_refused(&self) -> Option<(Fingerprint, Fingerprint)> {
        self.refused.lock().take().map(|actual| (self.expected, actual))
    }
}

impl ServerCertVerifier for FingerprintVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let actual = Fingerprint::of(end_entity);
        if actual.matches(self.expected) {
            return Ok(ServerCertVerified::assertion());
        }
        *self.refused.lock() = Some(actual);
        Err(CertificateError::ApplicationVerificationFailure.into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verifier(expected: Fingerprint) -> FingerprintVerifier {
        FingerprintVerifier { expected, provider: Arc::new(rustls::crypto::ring::default_provider()), refused: Mutex::new(None) }
    }

    fn verify(verifier: &FingerprintVerifier, certificate: &[u8]) -> Result<ServerCertVerified, rustls::Error> {
        let name = ServerName::try_from("localhost").unwrap();
        verifier.verify_server_cert(&CertificateDer::from(certificate.to_vec()), &[], &name, &[], UnixTime::now())
    }

    #[test]
    fn the_one_certificate_is_accepted_and_any_other_is_refused_and_remembered() {
        let (ours, theirs) = (Fingerprint::of(b"ours"), Fingerprint::of(b"theirs"));
        let verifier = verifier(ours);
        assert!(verify(&verifier, b"ours").is_ok());
        assert_eq!(verifier.take_refused(), None);
        assert!(verify(&verifier, b"theirs").is_err());
        assert_eq!(verifier.take_refused(), Some((ours, theirs)));
        assert_eq!(verifier.take_refused(), None, "told once");
    }

    #[test]
    fn a_fingerprint_that_differs_in_its_last_bit_alone_does_not_match() {
        let ours = Fingerprint([7; 32]);
        let mut close = [7; 32];
        close[31] ^= 1;
        assert!(ours.matches(ours) && !ours.matches(Fingerprint(close)));
    }

    #[test]
    fn a_fingerprint_reads_back_as_it_was_written_in_either_case() {
        let fingerprint = Fingerprint::of(b"x");
        assert_eq!(fingerprint.to_string().parse(), Ok(fingerprint));
        let upper = format!("sha256:{}", fingerprint.to_string()[7..].to_uppercase());
        assert_eq!(upper.parse(), Ok(fingerprint));
        assert!("sha256:+1".parse::<Fingerprint>().is_err());
        assert!(format!("sha256:{}", "ü".repeat(32)).parse::<Fingerprint>().is_err());
    }

    #[test]
    fn a_ca_file_that_is_none_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = roots_in(file.path()).unwrap_err();
        assert!(error.to_string().contains("no CERTIFICATE"), "{error}");
        assert!(error.to_string().contains(&*file.path().to_string_lossy()), "{error}");
        assert_eq!(roots_in(Path::new("/does/not/exist")).unwrap_err().code(), "ca_file_unusable");
    }
}

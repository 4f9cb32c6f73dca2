//! Making the authority and the server's certificate.

use super::files::{self, Readers, TlsPaths};
use crate::QuicError;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    date_time_ymd,
};

/// The same for every broker, so that the authority's parameters need not be read back from its certificate. Clients tell
/// authorities apart by their keys.
const CA_NAME: &str = "Millpond broker CA";

/// Makes an authority and writes it. `ca.pem` comes last: as long as it is missing, nothing has begun.
pub(super) fn authority(paths: &TlsPaths) -> Result<(), QuicError> {
    let key = KeyPair::generate().map_err(failed)?;
    let certificate = authority_parameters()?.self_signed(&key).map_err(failed)?;
    files::write(&paths.ca_key, &key.serialize_pem(), Readers::Owner)?;
    files::write(&paths.ca_certificate, &certificate.pem(), Readers::Everyone)?;
    tracing::info!("made a certificate authority for this broker in {}", paths.dir.display());
    Ok(())
}

/// Issues a server certificate from the authority and writes it. `server.pem` comes last, for the same reason.
pub(super) fn server(paths: &TlsPaths, names: &[String], hint: &str) -> Result<(), QuicError> {
    let ca_key = KeyPair::from_pem(&files::read_text(&paths.ca_key, hint)?).map_err(|error| QuicError::TlsFileDamaged {
        path: paths.ca_key.clone(),
        reason: format!("holds no private key: {error}"),
        hint: hint.to_owned(),
    })?;
    let issuer = Issuer::new(authority_parameters()?, ca_key);
    let key = KeyPair::generate().map_err(failed)?;
    let certificate = server_parameters(names)?.signed_by(&key, &issuer).map_err(failed)?;
    let chain = certificate.pem() + &files::read_text(&paths.ca_certificate, hint)?;
    files::write(&paths.server_key, &key.serialize_pem(), Readers::Owner)?;
    files::write(&paths.server_certificate, &chain, Readers::Everyone)?;
    tracing::info!(?names, "issued a server certificate in {}", paths.dir.display());
    Ok(())
}

fn authority_parameters() -> Result<CertificateParams, QuicError> {
    let mut parameters = parameters(CA_NAME, &[])?;
    // It signs server certificates and no further authorities.
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    Ok(parameters)
}

fn server_parameters(names: &[String]) -> Result<CertificateParams, QuicError> {
    let mut parameters = parameters("Millpond broker", names)?;
    parameters.use_authority_key_identifier_extension = true;
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    Ok(parameters)
}

fn parameters(common_name: &str, names: &[String]) -> Result<CertificateParams, QuicError> {
    let mut parameters = CertificateParams::new(names).map_err(failed)?;
    parameters.distinguished_name = DistinguishedName::new();
    parameters.distinguished_name.push(DnType::CommonName, common_name);
    parameters.not_before = date_time_ymd(1970, 1, 1);
    // RFC 5280, section 4.1.2.5: the last day of 9999 stands for "no end".
    parameters.not_after = date_time_ymd(9999, 12, 31);
    Ok(parameters)
}

fn failed(source: rcgen::Error) -> QuicError {
    QuicError::TlsIssue { source }
}

use super::*;
use std::{
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    time::{Duration, SystemTime},
};

/// A fresh data folder; its `tls` folder is not there yet.
fn tls_dir() -> (tempfile::TempDir, PathBuf) {
    let data_dir = tempfile::tempdir().expect("a temporary folder");
    let dir = data_dir.path().join("tls");
    (data_dir, dir)
}

fn verify(dir: &Path, material: &TlsMaterial, name: &str, now: UnixTime) -> Result<(), rustls::Error> {
    let mut roots = RootCertStore::empty();
    roots.add(files::read_certificates(&dir.join("ca.pem"), "").expect("ca.pem").swap_remove(0))?;
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider()).build().expect("a verifier");
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    verifier.verify_server_cert(material.leaf(), &material.chain[1..], &name, &[], now).map(|_| ())
}

#[test]
fn a_first_start_makes_an_identity_that_clients_can_verify_in_any_year() {
    let (_data_dir, dir) = tls_dir();
    let extra_names = ["broker.example".to_owned(), "192.0.2.7".to_owned(), "0.0.0.0".to_owned()];
    let material = load_or_create_tls(&dir, &extra_names).expect("a first start");
    assert_eq!(material.chain.len(), 2, "leaf and authority are presented");

    for years in [0, 56, 1000] {
        let now = UnixTime::since_unix_epoch(Duration::from_secs(years * 365 * 86_400 + 60));
        for name in ["localhost", "127.0.0.1", "::1", "broker.example", "192.0.2.7"] {
            verify(&dir, &material, name, now).unwrap_or_else(|error| panic!("{name}, {years} years after 1970: {error}"));
        }
        assert!(verify(&dir, &material, "elsewhere.example", now).is_err());
    }
}

#[test]
fn keys_are_for_the_owner_alone() {
    let (_data_dir, dir) = tls_dir();
    load_or_create_tls(&dir, &[]).expect("a first start");
    let mode = |path: &Path| std::fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
    assert_eq!(mode(&dir), 0o700);
    assert_eq!(mode(&dir.join("ca.key")), 0o600);
    assert_eq!(mode(&dir.join("server.key")), 0o600);
}

#[test]
fn the_identity_survives_a_restart() {
    let (_data_dir, dir) = tls_dir();
    let first = load_or_create_tls(&dir, &[]).expect("a first start");
    let changed_at = |name: &str| std::fs::metadata(dir.join(name)).and_then(|metadata| metadata.modified()).expect("a time");
    let before: Vec<SystemTime> = ["ca.pem", "ca.key", "server.pem", "server.key"].map(changed_at).into();
    let second = load_or_create_tls(&dir, &["a.name.that.came.later".to_owned()]).expect("a second start");
    assert_eq!(first.fingerprint(), second.fingerprint());
    assert_eq!(before, ["ca.pem", "ca.key", "server.pem", "server.key"].map(changed_at));
}

#[test]
fn a_fingerprint_is_the_hash_of_the_leaf() {
    let (_data_dir, dir) = tls_dir();
    let material = load_or_create_tls(&dir, &[]).expect("a first start");
    let fingerprint = material.fingerprint();
    let hex = fingerprint.strip_prefix("sha256:").expect("the scheme");
    assert_eq!(hex.len(), 64);
    assert!(hex.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)), "{fingerprint}");
    let same = TlsMaterial::from_pem_files(&dir.join("server.pem"), &dir.join("server.key")).expect("the same files");
    assert_eq!(same.fingerprint(), fingerprint);
}

#[test]
fn deleting_the_server_pair_issues_another_from_the_same_authority() {
    let (_data_dir, dir) = tls_dir();
    let first = load_or_create_tls(&dir, &[]).expect("a first start");
    let authority = std::fs::read(dir.join("ca.pem")).expect("ca.pem");
    for name in ["server.pem", "server.key"] {
        std::fs::remove_file(dir.join(name)).expect("it was there");
    }
    let second = load_or_create_tls(&dir, &["new.example".to_owned()]).expect("a start with the authority alone");
    assert_ne!(first.fingerprint(), second.fingerprint());
    assert_eq!(authority, std::fs::read(dir.join("ca.pem")).expect("ca.pem"));
    verify(&dir, &second, "new.example", UnixTime::now()).expect("issued by the same authority");
}

#[test]
fn a_first_start_that_was_interrupted_is_started_over() {
    let (_data_dir, dir) = tls_dir();
    load_or_create_tls(&dir, &[]).expect("a first start");
    for name in ["server.pem", "server.key", "ca.pem"] {
        std::fs::remove_file(dir.join(name)).expect("it was there");
    }
    std::fs::write(dir.join("ca.pem.tmp"), "half a certif").expect("a left-over");
    let material = load_or_create_tls(&dir, &[]).expect("the start after the power cut");
    verify(&dir, &material, "localhost", UnixTime::now()).expect("a whole identity");
}

#[test]
fn the_key_of_the_authority_may_be_kept_elsewhere() {
    let (_data_dir, dir) = tls_dir();
    load_or_create_tls(&dir, &[]).expect("a first start");
    std::fs::remove_file(dir.join("ca.key")).expect("it was there");
    load_or_create_tls(&dir, &[]).expect("it is not needed to serve");
}

#[test]
fn a_missing_file_is_named() {
    for (gone, named) in
        [(vec!["server.key"], "server.key"), (vec!["ca.pem"], "ca.pem"), (vec!["server.pem", "server.key", "ca.key"], "ca.key")]
    {
        let (_data_dir, dir) = tls_dir();
        load_or_create_tls(&dir, &[]).expect("a first start");
        for name in &gone {
            std::fs::remove_file(dir.join(name)).expect("it was there");
        }
        let error = load_or_create_tls(&dir, &[]).expect_err("something is missing");
        assert_eq!(error.to_string(), format!("{} is missing", dir.join(named).display()));
        assert!(error.hint().is_some_and(|hint| hint.contains("backup")), "{error:?}");
    }
}

#[test]
fn a_damaged_file_is_named() {
    for name in ["ca.pem", "server.pem", "server.key"] {
        for damage in ["", "not PEM", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            let (_data_dir, dir) = tls_dir();
            load_or_create_tls(&dir, &[]).expect("a first start");
            std::fs::write(dir.join(name), damage).expect("written");
            let error = load_or_create_tls(&dir, &[]).expect_err("a damaged file");
            assert!(matches!(error, QuicError::TlsFileDamaged { .. }), "{error:?}");
            assert!(error.to_string().starts_with(&dir.join(name).display().to_string()), "{error}");
        }
    }
}

#[test]
fn files_of_another_identity_are_noticed() {
    let (_data_dir, dir) = tls_dir();
    let (_other_data_dir, other) = tls_dir();
    load_or_create_tls(&dir, &[]).expect("a first start");
    load_or_create_tls(&other, &[]).expect("another broker's first start");

    std::fs::copy(other.join("ca.pem"), dir.join("ca.pem")).expect("copied");
    let error = load_or_create_tls(&dir, &[]).expect_err("another authority").to_string();
    assert!(error.contains("server.pem was not issued by the authority"), "{error}");

    std::fs::copy(other.join("server.pem"), dir.join("server.pem")).expect("copied");
    let error = load_or_create_tls(&dir, &[]).expect_err("another certificate").to_string();
    assert!(error.contains("server.key is not the key of the certificate"), "{error}");
}

#[test]
fn a_name_that_no_certificate_can_hold_is_an_error() {
    let (_data_dir, dir) = tls_dir();
    let error = load_or_create_tls(&dir, &["not a name".to_owned()]).expect_err("spaces");
    assert_eq!(error.to_string(), "`not a name` can't stand in a certificate: it is neither an IP address nor a DNS name");
}

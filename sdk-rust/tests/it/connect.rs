//! Connecting: whom to trust, and what to say when it does not work.

use crate::support::{FakeBroker, Identity, OnRequest, endpoint, soon, tls_builder};
use millpond::{Client, Error, Fingerprint};
use rustls::{server::ClientHello, server::ResolvesServerCert, sign::CertifiedKey};
use std::{net::Ipv4Addr, sync::Arc, time::Duration, time::Instant};

async fn fails(url: &str) -> Error {
    soon(Client::connect(url)).await.unwrap_err()
}

#[tokio::test]
async fn the_fingerprint_in_the_url_is_enough() {
    let broker = FakeBroker::start(1);
    let client = broker.client().await;
    assert!(client.is_connected());
    assert!(client.round_trip().is_some());
    assert_eq!(client.url().trust, broker.trust());
    assert_eq!(soon(client.admin().broker_info()).await.unwrap().version, "fake");
}

#[tokio::test]
async fn another_fingerprint_is_refused_and_both_are_named() {
    let broker = FakeBroker::start(1);
    let expected = Fingerprint::of(b"another certificate");
    let error = fails(&format!("millpond://{}?fp={expected}", broker.address)).await;
    assert_eq!(error.code(), "fingerprint_mismatch");
    assert!(!error.retryable());
    let text = error.to_string();
    assert!(text.contains(&expected.to_string()) && text.contains(&broker.identity.fingerprint().to_string()), "{text}");
    assert!(error.hint().unwrap().contains("<data-dir>/url"));
}

#[tokio::test]
async fn a_broker_that_has_the_certificate_and_not_its_key_is_refused() {
    #[derive(Debug)]
    struct Impostor(Arc<CertifiedKey>);
    impl ResolvesServerCert for Impostor {
        fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
            Some(Arc::clone(&self.0))
        }
    }
    let (real, other) = (Identity::new(), Identity::new());
    let key = rustls::crypto::ring::sign::any_supported_type(&other.key()).unwrap();
    let certified = Arc::new(CertifiedKey::new(vec![real.certificate.clone()], key));
    let mut tls = tls_builder().with_no_client_auth().with_cert_resolver(Arc::new(Impostor(certified)));
    tls.alpn_protocols = vec![b"millpond/1".to_vec()];
    let server = endpoint(tls, (Ipv4Addr::LOCALHOST, 0).into());
    let accepting = server.clone();
    tokio::spawn(async move {
        while let Some(incoming) = accepting.accept().await {
            drop(incoming.await);
        }
    });
    let error = fails(&format!("millpond://{}?fp={}", server.local_addr().unwrap(), real.fingerprint())).await;
    assert_eq!(error.code(), "certificate_untrusted", "{error}");
}

#[tokio::test]
async fn a_certificate_that_no_authority_of_the_system_signed_is_refused_with_a_hint() {
    let broker = FakeBroker::start(1);
    let error = fails(&format!("millpond://localhost:{}", broker.address.port())).await;
    // A machine may have no authorities at all.
    assert!(["certificate_untrusted", "no_system_roots"].contains(&error.code()), "{error}");
    assert!(error.hint().unwrap().contains("?fp=sha256:"));
}

#[tokio::test]
async fn an_authority_s_file_makes_its_certificates_trusted_for_their_names_alone() {
    let broker = FakeBroker::start(1);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a b.pem");
    std::fs::write(&path, &broker.identity.pem).unwrap();
    let url = format!("millpond://localhost:{}?ca={}", broker.address.port(), path.to_string_lossy().replace(' ', "%20"));
    soon(Client::connect(&url)).await.unwrap();
    let by_builder = Client::builder().url(&format!("millpond://localhost:{}", broker.address.port())).ca_file(&path);
    soon(by_builder.connect()).await.unwrap();

    let error = fails(&format!("millpond://{}?ca={}", broker.address, path.to_string_lossy().replace(' ', "%20"))).await;
    assert_eq!(error.code(), "certificate_untrusted", "it is for localhost and not for 127.0.0.1: {error}");
    std::fs::write(&path, Identity::new().pem).unwrap();
    assert_eq!(fails(&url).await.code(), "certificate_untrusted");
}

#[tokio::test]
async fn nobody_listening_is_told_at_once() {
    let port = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
    let begun = Instant::now();
    let error = fails(&format!("millpond://127.0.0.1:{port}?fp={}", Fingerprint::of(b""))).await;
    assert_eq!(error.code(), "connect_failed");
    assert!(error.retryable());
    assert!(error.to_string().contains("nobody listens there"), "{error}");
    assert!(error.hint().unwrap().contains("is `millpond serve` running there?"));
    assert!(begun.elapsed() < Duration::from_secs(5), "not only after the timeout");
}

#[tokio::test]
async fn a_port_that_does_not_answer_is_given_up_after_the_timeout() {
    let silent = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let url = format!("millpond://{}?fp={}", silent.local_addr().unwrap(), Fingerprint::of(b""));
    let client = Client::builder().url(&url).connect_timeout(Duration::from_millis(200));
    let error = soon(client.connect()).await.unwrap_err();
    assert_eq!((error.code(), error.retryable()), ("connect_failed", true));
    assert!(error.to_string().contains("no answer within 200ms"), "{error}");
}

#[tokio::test]
async fn a_name_that_does_not_exist_is_told() {
    let error = fails("millpond://no-such-host.invalid").await;
    assert_eq!(error.code(), "connect_failed");
    assert!(error.to_string().contains("no-such-host.invalid:9440"), "{error}");
}

#[tokio::test]
async fn a_server_of_another_protocol_is_recognised() {
    let identity = Identity::new();
    for protocols in [vec![b"h3".to_vec()], Vec::new()] {
        let mut tls = identity.tls();
        tls.alpn_protocols = protocols;
        let server = endpoint(tls, (Ipv4Addr::LOCALHOST, 0).into());
        let accepting = server.clone();
        tokio::spawn(async move {
            while let Some(incoming) = accepting.accept().await {
                if let Ok(connection) = incoming.await {
                    connection.closed().await;
                }
            }
        });
        let error = fails(&format!("millpond://{}?fp={}", server.local_addr().unwrap(), identity.fingerprint())).await;
        assert_eq!(error.code(), "wrong_protocol", "{error}");
    }
}

#[tokio::test]
async fn a_broker_that_takes_no_more_connections_is_told_apart_from_none() {
    let identity = Identity::new();
    let server = endpoint(identity.tls(), (Ipv4Addr::LOCALHOST, 0).into());
    let accepting = server.clone();
    tokio::spawn(async move {
        while let Some(incoming) = accepting.accept().await {
            incoming.refuse();
        }
    });
    let error = fails(&format!("millpond://{}?fp={}", server.local_addr().unwrap(), identity.fingerprint())).await;
    assert_eq!((error.code(), error.retryable()), ("connect_failed", true));
    assert!(error.to_string().contains("takes no more connections"), "{error}");
    assert!(error.hint().is_some_and(|hint| hint.contains("quic.connections_max")), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_who_find_the_connection_lost_make_one_new_connection_together() {
    let broker = FakeBroker::start(1);
    let client = broker.client().await;
    broker.state.script_requests([OnRequest::LoseBefore]);
    let requests: Vec<_> = (0..50)
        .map(|_| {
            let admin = client.admin();
            tokio::spawn(async move { admin.topics().await })
        })
        .collect();
    for request in requests {
        assert_eq!(soon(request).await.unwrap().unwrap().len(), 1);
    }
    assert_eq!(broker.state.connections(), 2);
}

#[tokio::test]
async fn a_client_that_is_closed_says_so_and_its_broker_knows() {
    let broker = FakeBroker::start(1);
    let client = broker.client().await;
    soon(client.close()).await;
    assert_eq!(soon(client.admin().topics()).await.unwrap_err().code(), "closed");
    assert!(!client.is_connected());
}

#[tokio::test]
async fn a_wrong_address_is_told_before_anything_is_sent() {
    let error = fails("localhost:9440").await;
    assert_eq!(error.code(), "invalid_url");
    assert!(error.hint().unwrap().contains("millpond://localhost:9440?fp=sha256:"));
    let error = soon(Client::builder().fingerprint("sha256:12").connect()).await.unwrap_err();
    assert_eq!(error.code(), "invalid_setting");
}

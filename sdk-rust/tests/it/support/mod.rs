//! A broker in memory that does what a test tells it to, on a real QUIC socket.

mod sequences;
mod serve;
mod state;

pub(crate) use state::{FakeTopic, OnBatch, OnPush, OnRequest, State};

use millpond::{Client, Fingerprint, Trust};
use quinn::{Endpoint, VarInt, crypto::rustls::QuicServerConfig};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use std::{
    future::Future,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

/// How long anything in a test may take before it counts as stuck.
const STUCK_AFTER: Duration = Duration::from_secs(20);

/// A certificate with its key.
pub(crate) struct Identity {
    pub(crate) certificate: CertificateDer<'static>,
    pub(crate) pem: String,
    key: Vec<u8>,
}

impl Identity {
    pub(crate) fn new() -> Identity {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        Identity { certificate: made.cert.der().clone(), pem: made.cert.pem(), key: made.signing_key.serialize_der() }
    }

    pub(crate) fn key(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.key.clone()).into()
    }

    pub(crate) fn tls(&self) -> rustls::ServerConfig {
        let mut tls = tls_builder().with_no_client_auth().with_single_cert(vec![self.certificate.clone()], self.key()).unwrap();
        tls.alpn_protocols = vec![b"millpond/1".to_vec()];
        tls
    }

    pub(crate) fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.certificate)
    }
}

pub(crate) fn tls_builder() -> rustls::ConfigBuilder<rustls::ServerConfig, rustls::WantsVerifier> {
    rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
}

/// A running broker. It ends when it is dropped.
pub(crate) struct FakeBroker {
    pub(crate) state: Arc<State>,
    pub(crate) identity: Arc<Identity>,
    pub(crate) address: SocketAddr,
    endpoint: Endpoint,
    /// Ends with the broker, and with it all that serves streams.
    serving: tokio::task::JoinHandle<()>,
}

impl FakeBroker {
    /// A broker with one topic, `readings`.
    pub(crate) fn start(partitions: usize) -> FakeBroker {
        FakeBroker::start_with(Arc::new(State::new("readings", FakeTopic::new(partitions))))
    }

    pub(crate) fn start_with(state: Arc<State>) -> FakeBroker {
        FakeBroker::listen(state, Arc::new(Identity::new()), (Ipv4Addr::LOCALHOST, 0).into())
    }

    fn listen(state: Arc<State>, identity: Arc<Identity>, address: SocketAddr) -> FakeBroker {
        let endpoint = endpoint_with(identity.tls(), address, state.streams_max);
        let address = endpoint.local_addr().unwrap();
        let serving = tokio::spawn(serve::run(endpoint.clone(), Arc::clone(&state)));
        FakeBroker { state, identity, address, endpoint, serving }
    }

    /// Stops, as a broker that shuts down does, and frees the port.
    pub(crate) async fn stop(self) -> Stopped {
        self.endpoint.close(VarInt::from_u32(2), b"");
        self.endpoint.wait_idle().await;
        let stopped = Stopped { state: Arc::clone(&self.state), identity: Arc::clone(&self.identity), address: self.address };
        drop(self);
        soon(async {
            while std::net::UdpSocket::bind(stopped.address).is_err() {
                tokio::task::yield_now().await;
            }
        })
        .await;
        stopped
    }

    pub(crate) fn url(&self) -> String {
        format!("millpond://{}?fp={}", self.address, self.identity.fingerprint())
    }

    pub(crate) async fn client(&self) -> Client {
        Client::connect(&self.url()).await.unwrap()
    }

    pub(crate) fn trust(&self) -> Trust {
        Trust::Fingerprint(self.identity.fingerprint())
    }
}

impl Drop for FakeBroker {
    fn drop(&mut self) {
        self.endpoint.close(VarInt::from_u32(2), b"");
        self.serving.abort();
    }
}

/// A broker that can be started again, at the same address, with what it had.
pub(crate) struct Stopped {
    pub(crate) state: Arc<State>,
    identity: Arc<Identity>,
    address: SocketAddr,
}

impl Stopped {
    pub(crate) fn start(self) -> FakeBroker {
        FakeBroker::listen(self.state, self.identity, self.address)
    }
}

pub(crate) fn endpoint(tls: rustls::ServerConfig, address: SocketAddr) -> Endpoint {
    endpoint_with(tls, address, 1024)
}

fn endpoint_with(tls: rustls::ServerConfig, address: SocketAddr, streams_max: u32) -> Endpoint {
    let crypto = QuicServerConfig::try_from(tls).unwrap();
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    let mut transport = quinn::TransportConfig::default();
    transport.max_concurrent_bidi_streams(VarInt::from_u32(streams_max));
    config.transport_config(Arc::new(transport));
    Endpoint::server(config, address).unwrap()
}

/// Waits for something that must happen.
pub(crate) async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(STUCK_AFTER, what).await.unwrap_or_else(|_| panic!("stuck for {STUCK_AFTER:?}"))
}

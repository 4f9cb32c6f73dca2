//! A broker on a free port and a client made of quinn alone, with the frames written by hand.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use bytes::Bytes;
use millpond_engine::{Engine, EngineConfig, SystemClock};
use millpond_log::{Disk, RealDisk};
use millpond_protocol::{
    ALPN,
    batch::{Batch, BatchBuilder},
    compression::Codec,
    error::WireError,
    frame::{FrameHeader, HEADER_BYTES, Kind},
    message::{
        self, Ack, CreateTopic, Durability, OpenConsume, OpenProduce, Position, Request, Response, TopicConfig, TopicInfo, Watermarks,
    },
    record::NewRecord,
};
use millpond_quic::{QuicConfig, QuicLimits, QuicServer, TlsMaterial, load_or_create_tls};
use quinn::{ClientConfig, Connection, ConnectionError, Endpoint, RecvStream, SendStream, TransportConfig, VarInt};
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};
use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// No test needs as long as this; one that waits for something that never comes fails instead of hanging.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

pub(crate) struct Broker {
    pub(crate) address: SocketAddr,
    pub(crate) engine: Arc<Engine>,
    pub(crate) shutdown: CancellationToken,
    pub(crate) running: JoinHandle<()>,
    data_dir: tempfile::TempDir,
}

impl Broker {
    pub(crate) async fn start() -> Broker {
        Broker::start_with(QuicLimits::default()).await
    }

    pub(crate) async fn start_with(limits: QuicLimits) -> Broker {
        Broker::start_on(Arc::new(RealDisk), limits).await
    }

    pub(crate) async fn start_on(disk: Arc<dyn Disk>, limits: QuicLimits) -> Broker {
        Broker::start_as(disk, limits, |config| config).await
    }

    /// A broker whose engine is not the usual one.
    pub(crate) async fn start_as(disk: Arc<dyn Disk>, limits: QuicLimits, engine: impl FnOnce(EngineConfig) -> EngineConfig) -> Broker {
        let data_dir = tempfile::tempdir().expect("a temporary folder");
        let tls = load_or_create_tls(&data_dir.path().join("tls"), &[]).expect("a certificate");
        let config = engine(EngineConfig::new(data_dir.path()));
        let engine = Engine::open(config, disk, Arc::new(SystemClock)).await.expect("an engine");
        let server = bind(&tls, limits, &engine);
        let (address, shutdown) = (server.local_addr(), CancellationToken::new());
        let running = tokio::spawn(server.run(shutdown.clone()));
        Broker { address, engine, shutdown, running, data_dir }
    }

    pub(crate) fn tls_dir(&self) -> PathBuf {
        self.data_dir.path().join("tls")
    }

    /// A connection with quinn's defaults.
    pub(crate) async fn connect(&self) -> Connection {
        self.try_connect(ALPN, TransportConfig::default()).await.expect("a connection")
    }

    pub(crate) async fn connect_with(&self, transport: TransportConfig) -> Connection {
        self.try_connect(ALPN, transport).await.expect("a connection")
    }

    pub(crate) async fn try_connect(&self, alpn: &[u8], transport: TransportConfig) -> Result<Connection, ConnectionError> {
        let endpoint = client_endpoint();
        let config = self.client_config(alpn, transport);
        endpoint.connect_with(config, self.address, "localhost").expect("a connection attempt").await
    }

    pub(crate) fn client_config(&self, alpn: &[u8], mut transport: TransportConfig) -> ClientConfig {
        transport.keep_alive_interval(Some(Duration::from_secs(5)));
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.tls_dir().join("ca.pem")).expect("ca.pem")).expect("an authority");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("TLS 1.3")
            .with_root_certificates(roots)
            .with_no_client_auth();
        tls.alpn_protocols = vec![alpn.to_vec()];
        tls.enable_early_data = true;
        let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(tls).expect("a suite for QUIC");
        let mut config = ClientConfig::new(Arc::new(crypto));
        config.transport_config(Arc::new(transport));
        config
    }

    /// Makes a topic of one partition.
    pub(crate) async fn create_topic(&self, connection: &Connection, name: &str, durability: Durability) -> TopicInfo {
        let config = TopicConfig { durability, ..TopicConfig::default() };
        let create = Request::CreateTopic(CreateTopic { name: name.to_owned(), partitions: 1, config });
        match ask(connection, &create).await {
            Ok(Response::Topic(topic)) => topic,
            other => panic!("a topic, not {other:?}"),
        }
    }

    /// Stops the broker and waits until it has drained.
    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        patiently(self.running).await.expect("the server ends without a panic");
        patiently(self.engine.shutdown()).await;
    }
}

pub(crate) fn bind(tls: &TlsMaterial, limits: QuicLimits, engine: &Arc<Engine>) -> QuicServer {
    let mut config = QuicConfig::new(SocketAddr::from(([127, 0, 0, 1], 0)));
    config.limits = limits;
    QuicServer::bind(config, tls, Arc::clone(engine)).expect("a free port")
}

pub(crate) fn client_endpoint() -> Endpoint {
    Endpoint::client(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a client endpoint")
}

pub(crate) async fn patiently<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it comes in time")
}

/// A stream of frames.
pub(crate) struct Frames {
    pub(crate) send: SendStream,
    pub(crate) receive: RecvStream,
}

impl Frames {
    /// Opens a stream and sends its first frame.
    pub(crate) async fn open(connection: &Connection, request: &Request) -> Frames {
        Frames::open_raw(connection, &frame(Kind::Request, &message::encode(request))).await
    }

    /// Opens a stream and sends these bytes.
    pub(crate) async fn open_raw(connection: &Connection, bytes: &[u8]) -> Frames {
        let (send, receive) = connection.open_bi().await.expect("a stream");
        let mut frames = Frames { send, receive };
        frames.write(bytes).await;
        frames
    }

    pub(crate) async fn produce(connection: &Connection, topic: &str) -> Frames {
        let open = OpenProduce { topic: topic.to_owned(), partition: Some(0) };
        let mut frames = Frames::open(connection, &Request::OpenProduce(open)).await;
        match frames.response().await {
            Ok(Response::ProduceOpened(_)) => frames,
            other => panic!("an open stream, not {other:?}"),
        }
    }

    pub(crate) async fn consume(connection: &Connection, topic: &str, from: Position) -> Frames {
        let open = OpenConsume { topic: topic.to_owned(), partition: 0, from, view: None };
        let mut frames = Frames::open(connection, &Request::OpenConsume(open)).await;
        match frames.response().await {
            Ok(Response::ConsumeOpened(_)) => frames,
            other => panic!("an open stream, not {other:?}"),
        }
    }

    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        patiently(self.send.write_all(bytes)).await.expect("the broker reads");
    }

    pub(crate) async fn send_batch(&mut self, batch: &[u8]) {
        self.write(&frame(Kind::Produce, batch)).await;
    }

    /// The next frame, or `None` at the end of the stream.
    pub(crate) async fn next(&mut self) -> Option<(Kind, Bytes)> {
        next_frame(&mut self.receive).await
    }

    pub(crate) async fn response(&mut self) -> Result<Response, WireError> {
        match self.next().await.expect("an answer") {
            (Kind::Response, payload) => Ok(message::decode(&payload).expect("a response")),
            (Kind::Error, payload) => Err(message::decode(&payload).expect("an error")),
            (kind, _) => panic!("an answer, not {kind:?}"),
        }
    }

    pub(crate) async fn ack(&mut self) -> Result<Ack, WireError> {
        next_ack(&mut self.receive).await
    }

    /// What is pushed next.
    pub(crate) async fn push(&mut self) -> Result<(Watermarks, Vec<Batch>), WireError> {
        match self.next().await.expect("a push") {
            (Kind::Batches, mut payload) => {
                let watermarks = Watermarks::decode_front(&payload).expect("watermarks");
                let mut bytes = payload.split_off(Watermarks::BYTES);
                let mut batches = Vec::new();
                while let Some(batch) = Batch::take_front(&mut bytes).expect("whole batches") {
                    batch.verify_crc().expect("batches as they were sent");
                    batches.push(batch);
                }
                Ok((watermarks, batches))
            }
            (Kind::Error, payload) => Err(message::decode(&payload).expect("an error")),
            (kind, _) => panic!("a push, not {kind:?}"),
        }
    }

    /// The values of the next so many records.
    pub(crate) async fn values(&mut self, count: usize) -> Vec<String> {
        let mut values = Vec::new();
        while values.len() < count {
            for batch in self.push().await.expect("a push").1 {
                for record in batch.records(usize::MAX).expect("records") {
                    let value = record.expect("a record").value.expect("a value");
                    values.push(String::from_utf8(value.to_vec()).expect("text"));
                }
            }
        }
        values
    }

    /// Waits until the broker tells that it does not read on, and gives the code.
    pub(crate) async fn stopped(&mut self) -> Option<VarInt> {
        patiently(self.send.stopped()).await.expect("the connection lives")
    }
}

/// The next frame, or `None` at the end of the stream.
pub(crate) async fn next_frame(receive: &mut RecvStream) -> Option<(Kind, Bytes)> {
    let mut header = [0; HEADER_BYTES];
    match patiently(receive.read_exact(&mut header)).await {
        Ok(()) => {}
        Err(quinn::ReadExactError::FinishedEarly(0)) => return None,
        Err(error) => panic!("a frame or the end, not {error:?}"),
    }
    let header = FrameHeader::decode(header, u32::MAX).expect("a frame");
    let mut payload = vec![0; header.length as usize];
    patiently(receive.read_exact(&mut payload)).await.expect("a whole frame");
    Some((header.kind, payload.into()))
}

/// The answer to a batch.
pub(crate) async fn next_ack(receive: &mut RecvStream) -> Result<Ack, WireError> {
    match next_frame(receive).await.expect("an acknowledgement") {
        (Kind::Ack, payload) => Ok(Ack::decode(&payload).expect("an acknowledgement")),
        (Kind::Error, payload) => Err(message::decode(&payload).expect("an error")),
        (kind, _) => panic!("an acknowledgement, not {kind:?}"),
    }
}

/// Asks one question.
pub(crate) async fn ask(connection: &Connection, request: &Request) -> Result<Response, WireError> {
    let mut frames = Frames::open(connection, request).await;
    let answer = frames.response().await;
    assert_eq!(frames.next().await, None, "one answer");
    answer
}

pub(crate) fn frame(kind: Kind, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a small payload");
    [&header(kind, length)[..], payload].concat()
}

pub(crate) fn header(kind: Kind, length: u32) -> [u8; HEADER_BYTES] {
    FrameHeader { kind, length }.encode()
}

/// One batch with these values.
pub(crate) fn batch(values: &[&str]) -> Bytes {
    let mut builder = BatchBuilder::new();
    for value in values {
        let record = NewRecord { timestamp: 1_700_000_000_000, key: None, value: Some(value.as_bytes()), headers: &[] };
        builder.push(&record).expect("room");
    }
    builder.finish(Codec::None).expect("a batch")
}

/// One batch of about so many bytes.
pub(crate) fn big_batch(bytes: usize) -> Bytes {
    batch(&["x".repeat(bytes).as_str()])
}

//! Clients that speak something else, too much, or too many at a time.

mod common;

use common::{Broker, Frames, ask, client_endpoint, frame, header, patiently};
use millpond_protocol::{
    ALPN,
    error::ErrorCode,
    frame::{CONTROL_PAYLOAD_BYTES_MAX, Kind},
    message::{self, CreateTopic, DescribeTopic, Durability, Request, Response},
};
use millpond_quic::QuicLimits;
use quinn::{ConnectionError, TransportConfig, VarInt};
use std::net::UdpSocket;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_application_protocol_is_refused_in_the_handshake() {
    let broker = Broker::start().await;
    let error = broker.try_connect(b"h3", TransportConfig::default()).await.expect_err("not HTTP");
    // TLS alert 120, no_application_protocol, as a QUIC error (RFC 9001, section 4.8).
    match error {
        ConnectionError::ConnectionClosed(close) => assert_eq!(u64::from(close.error_code), 0x0100 + 120, "{close}"),
        other => panic!("a close with a reason, not {other:?}"),
    }
    assert!(ask(&broker.connect().await, &Request::BrokerInfo).await.is_ok());
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_frame_that_is_no_request_is_refused() {
    let broker = Broker::start().await;
    let connection = broker.connect().await;
    let unknown = message::encode(&std::collections::BTreeMap::from([("teleport", 1)]));
    let too_large = header(Kind::Request, u32::try_from(CONTROL_PAYLOAD_BYTES_MAX + 1).expect("small"));
    for (bytes, code) in [
        (frame(Kind::Produce, b"x"), ErrorCode::InvalidRequest),
        (frame(Kind::Request, b"\xff\xfe\xfd garbage"), ErrorCode::InvalidRequest),
        (frame(Kind::Request, b""), ErrorCode::InvalidRequest),
        (frame(Kind::Request, &unknown), ErrorCode::UnsupportedRequest),
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), ErrorCode::InvalidRequest),
        (too_large.to_vec(), ErrorCode::FrameTooLarge),
    ] {
        let mut frames = Frames::open_raw(&connection, &bytes).await;
        assert_eq!(frames.response().await.expect_err("refused").code, code, "{bytes:?}");
        assert_eq!(frames.next().await, None);
        assert_eq!(frames.stopped().await, Some(VarInt::from_u32(1)));
    }
    let mut frames = Frames::open_raw(&connection, b"half").await;
    frames.send.finish().expect("open");
    assert_eq!(frames.response().await.expect_err("half a header").code, ErrorCode::InvalidRequest);
    assert!(ask(&connection, &Request::BrokerInfo).await.is_ok(), "the connection goes on");
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_datagrams_do_no_harm() {
    let broker = Broker::start().await;
    let before = broker.connect().await;
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for number in 0..2000 {
        let mut datagram: Vec<u8> = (0..random.below(1500)).map(|_| random.byte()).collect();
        // Some look like the long header of a QUIC packet of version 1, or of a version to negotiate.
        if let Some(front) = datagram.get_mut(..5)
            && number % 2 == 0
        {
            front.copy_from_slice(&[0xc0 | random.byte() & 0x3f, 0, 0, 0, random.byte() & 1]);
        }
        // A full buffer on the way is no concern of this test.
        let _ = socket.send_to(&datagram, broker.address);
    }
    assert!(ask(&broker.connect().await, &Request::BrokerInfo).await.is_ok());
    assert!(ask(&before, &Request::BrokerInfo).await.is_ok(), "a connection from before goes on");
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_over_the_limit_are_refused_until_one_goes() {
    let broker = Broker::start_with(QuicLimits { connections_max: 2, ..QuicLimits::default() }).await;
    let (first, second) = (broker.connect().await, broker.connect().await);
    let error = broker.try_connect(ALPN, TransportConfig::default()).await.expect_err("a third one");
    // CONNECTION_REFUSED (RFC 9000, section 20.1).
    match error {
        ConnectionError::ConnectionClosed(close) => assert_eq!(u64::from(close.error_code), 2, "{close}"),
        other => panic!("a refusal, not {other:?}"),
    }
    assert!(ask(&second, &Request::BrokerInfo).await.is_ok());

    first.close(VarInt::from_u32(0), b"done");
    // The broker learns of it from a packet that is on its way.
    let third = patiently(async {
        loop {
            if let Ok(connection) = broker.try_connect(ALPN, TransportConfig::default()).await {
                break connection;
            }
        }
    });
    assert!(ask(&third.await, &Request::BrokerInfo).await.is_ok());
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_over_the_limit_wait_for_their_turn() {
    let broker = Broker::start_with(QuicLimits { streams_per_connection_max: 2, ..QuicLimits::default() }).await;
    let connection = broker.connect().await;
    broker.create_topic(&connection, "readings", Durability::Os).await;
    let first = Frames::produce(&connection, "readings").await;
    let _second = Frames::produce(&connection, "readings").await;
    let mut third = Box::pin(connection.open_bi());
    assert!(std::future::poll_fn(|context| std::task::Poll::Ready(third.as_mut().poll(context))).await.is_pending());
    drop(first);
    patiently(third).await.expect("a stream");
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_that_arrives_at_once_is_let_in() {
    // More than may be in their handshake before addresses are validated.
    let broker = Broker::start().await;
    let config = broker.client_config(ALPN, TransportConfig::default());
    let mut attempts = tokio::task::JoinSet::new();
    let endpoint = client_endpoint();
    for _ in 0..100 {
        attempts.spawn(endpoint.connect_with(config.clone(), broker.address, "localhost").expect("an attempt"));
    }
    let connections: Vec<_> = patiently(attempts.join_all()).await;
    for connection in connections {
        assert!(ask(&connection.expect("let in"), &Request::BrokerInfo).await.is_ok());
    }
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_in_early_data_are_answered_each_in_its_time() {
    let broker = Broker::start().await;
    let config = broker.client_config(ALPN, TransportConfig::default());
    let endpoint = client_endpoint();
    let first = endpoint.connect_with(config.clone(), broker.address, "localhost").expect("an attempt").await.expect("a connection");
    // The tickets come with the first packets after the handshake, before this answer.
    assert!(ask(&first, &Request::BrokerInfo).await.is_ok());
    first.close(VarInt::from_u32(0), b"done");

    let connecting = endpoint.connect_with(config, broker.address, "localhost").expect("an attempt");
    let (connection, accepted) = connecting.into_0rtt().unwrap_or_else(|_| panic!("a session to resume"));
    let create = Request::CreateTopic(CreateTopic { name: "early".to_owned(), partitions: 1, ..CreateTopic::default() });
    let describe = Request::DescribeTopic(DescribeTopic { name: "early".to_owned() });
    // Both leave before the handshake is complete; the harmless one need not wait for it.
    let mut info = Frames::open(&connection, &Request::BrokerInfo).await;
    let mut created = Frames::open(&connection, &create).await;
    assert!(patiently(accepted).await, "early data is accepted");
    assert!(matches!(info.response().await, Ok(Response::BrokerInfo(_))));
    assert!(matches!(created.response().await, Ok(Response::Topic(_))));
    assert!(matches!(ask(&connection, &describe).await, Ok(Response::Topic(_))));
    broker.stop().await;
}

/// xorshift64: the same datagrams in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[3]
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

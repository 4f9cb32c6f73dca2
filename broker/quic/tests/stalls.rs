//! Clients that stand still.

mod common;

use common::{Broker, Frames, ask, batch, client_endpoint, header, patiently};
use millpond_protocol::{
    ALPN,
    error::ErrorCode,
    frame::Kind,
    message::{Durability, Request},
};
use millpond_quic::QuicLimits;
use quinn::{TransportConfig, VarInt};
use std::time::Duration;

fn impatient() -> QuicLimits {
    QuicLimits { stall_timeout: Duration::from_millis(100), ..QuicLimits::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_producer_that_stops_inside_a_frame_is_cut_off_after_its_answers() {
    let broker = Broker::start_with(impatient()).await;
    let connection = broker.connect().await;
    broker.create_topic(&connection, "readings", Durability::Os).await;
    let mut producer = Frames::produce(&connection, "readings").await;
    producer.send_batch(&batch(&["whole"])).await;
    producer.write(&header(Kind::Produce, 1000)).await;
    producer.write(b"the beginning of a batch").await;

    producer.ack().await.expect("the whole one is stored");
    let error = producer.ack().await.expect_err("cut off");
    assert_eq!((error.code, error.retryable), (ErrorCode::TimedOut, true));
    assert_eq!(producer.next().await, None);
    assert_eq!(producer.stopped().await, Some(VarInt::from_u32(1)));
    assert!(ask(&connection, &Request::BrokerInfo).await.is_ok(), "the connection goes on");
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_producer_that_trickles_is_cut_off() {
    let broker = Broker::start_with(impatient()).await;
    let connection = broker.connect().await;
    broker.create_topic(&connection, "readings", Durability::Os).await;
    let mut producer = Frames::produce(&connection, "readings").await;
    producer.write(&header(Kind::Produce, 1_000_000)).await;
    let stopped = producer.send.stopped();
    let trickle = async {
        let mut ticks = tokio::time::interval(Duration::from_millis(10));
        loop {
            ticks.tick().await;
            if producer.send.write_all(b"x").await.is_err() {
                break;
            }
        }
    };
    patiently(async { tokio::join!(stopped, trickle) }).await.0.expect("the connection lives");
    assert_eq!(producer.ack().await.expect_err("cut off").code, ErrorCode::TimedOut);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_without_a_whole_request_is_cut_off() {
    let broker = Broker::start_with(impatient()).await;
    let connection = broker.connect().await;
    for bytes in [&header(Kind::Request, 10)[..], &header(Kind::Request, 10)[..3]] {
        let mut frames = Frames::open_raw(&connection, bytes).await;
        assert_eq!(frames.response().await.expect_err("cut off").code, ErrorCode::TimedOut);
        assert_eq!(frames.stopped().await, Some(VarInt::from_u32(1)));
    }
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_producer_may_be_quiet_between_frames() {
    let broker = Broker::start_with(impatient()).await;
    let connection = broker.connect().await;
    broker.create_topic(&connection, "readings", Durability::Os).await;
    let mut quiet = Frames::produce(&connection, "readings").await;

    // Another stream has been cut off twice in the meantime, so the stall timeout has passed.
    for _ in 0..2 {
        let mut stalled = Frames::produce(&connection, "readings").await;
        stalled.write(&header(Kind::Produce, 1000)).await;
        assert_eq!(stalled.ack().await.expect_err("cut off").code, ErrorCode::TimedOut);
    }
    quiet.send_batch(&batch(&["at last"])).await;
    quiet.ack().await.expect("stored");
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_producer_that_does_not_read_its_answers_is_held_back_and_loses_none() {
    let broker = Broker::start_with(QuicLimits { produce_inflight_batches_max: 4, ..QuicLimits::default() }).await;
    let mut transport = TransportConfig::default();
    // Room for some five answers.
    transport.stream_receive_window(VarInt::from_u32(256));
    let connection = broker.connect_with(transport).await;
    broker.create_topic(&broker.connect().await, "readings", Durability::Os).await;
    let mut producer = Frames::produce(&connection, "readings").await;
    for _ in 0..200 {
        producer.send_batch(&batch(&["value"])).await;
    }
    // Others go on in the meantime.
    let mut other = Frames::produce(&connection, "readings").await;
    other.send_batch(&batch(&["other"])).await;
    other.ack().await.expect("stored");

    let mut last_offset = -1;
    for _ in 0..200 {
        let ack = producer.ack().await.expect("stored");
        assert!(ack.base_offset > last_offset, "in order");
        last_offset = ack.base_offset;
    }
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handshake_that_is_not_completed_frees_its_place() {
    let broker = Broker::start_with(QuicLimits {
        connections_max: 1,
        handshake_timeout: Duration::from_millis(100),
        // Longer than the test's patience.
        idle_timeout: Duration::from_mins(10),
        ..QuicLimits::default()
    })
    .await;
    // The first packet of a good client reaches the broker from an address where nobody listens.
    let stage = tokio::net::UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
    let config = broker.client_config(ALPN, TransportConfig::default());
    let stage_address = stage.local_addr().expect("an address");
    let attempt = client_endpoint().connect_with(config, stage_address, "localhost").expect("an attempt");
    let mut packet = [0; 2048];
    let (length, _) = patiently(stage.recv_from(&mut packet)).await.expect("the first packet");
    drop(attempt);
    stage.send_to(&packet[..length], broker.address).await.expect("sent");
    patiently(stage.recv_from(&mut packet)).await.expect("the broker has begun a handshake");

    let connection = patiently(async {
        loop {
            if let Ok(connection) = broker.try_connect(ALPN, TransportConfig::default()).await {
                break connection;
            }
        }
    });
    assert!(ask(&connection.await, &Request::BrokerInfo).await.is_ok());
    broker.stop().await;
}

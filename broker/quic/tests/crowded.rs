//! More streams than there is memory for. Nobody stands still here, so the stall timeout is longer than any test: what would be cut
//! off by it fails.

mod common;

use bytes::Bytes;
use common::{Broker, Frames, ask, batch, big_batch, frame, header, next_ack, patiently};
use millpond_engine::EngineConfig;
use millpond_log::RealDisk;
use millpond_protocol::{
    error::ErrorCode,
    frame::{BODY_PAYLOAD_BYTES_MAX, Kind},
    message::{DeployModule, Durability, OpenProduce, Request},
};
use millpond_quic::QuicLimits;
use quinn::{Connection, TransportConfig, VarInt};
use std::{sync::Arc, time::Duration};
use tokio::task::JoinSet;

const STREAMS: usize = 24;

/// Just room for one batch of [`BATCH_BYTES`].
const INFLIGHT_BYTES: usize = 1 << 20;
const BATCH_BYTES: u32 = 900 << 10;

async fn small_broker(transit_bytes_max: u64) -> Broker {
    let limits = QuicLimits { stall_timeout: Duration::from_mins(10), transit_bytes_max, ..QuicLimits::default() };
    let small = |config| EngineConfig { inflight_bytes_max: INFLIGHT_BYTES, ..config };
    Broker::start_as(Arc::new(RealDisk), limits, small).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_wait_for_memory_let_the_others_of_their_connection_finish() {
    // As many as go into a stream's window of 2 MiB; those of all streams are four times the connection's window.
    const BATCHES: usize = 2;
    let broker = small_broker(128 << 20).await;
    let mut transport = TransportConfig::default();
    transport.send_window(1 << 30);
    let connection = broker.connect_with(transport).await;
    broker.create_topic(&connection, "readings", Durability::Os).await;
    let whole = frame(Kind::Produce, &big_batch(BATCH_BYTES as usize));

    // The first has the memory. The rest of its bytes comes behind those of all the others.
    let (front, rest) = whole.split_at(whole.len() / 2);
    let mut first = Frames::produce(&connection, "readings").await;
    first.write(front).await;
    let mut others = Vec::new();
    for _ in 1..STREAMS {
        let mut other = Frames::produce(&connection, "readings").await;
        for _ in 0..BATCHES {
            other.write(&whole).await;
        }
        others.push(other);
    }
    first.write(rest).await;

    first.ack().await.expect("stored");
    for other in &mut others {
        for _ in 0..BATCHES {
            other.ack().await.expect("stored");
        }
    }
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_has_no_room_to_wait_is_told_to_come_again() {
    // Windows of the smallest size, and nothing to widen them with.
    let broker = small_broker(64 << 10).await;
    let connection = broker.connect().await;
    broker.create_topic(&connection, "readings", Durability::Os).await;

    // The first has the memory, and keeps it until its last byte comes.
    let mut first = Frames::produce(&connection, "readings").await;
    let whole = frame(Kind::Produce, &big_batch(BATCH_BYTES as usize));
    let (most, last) = whole.split_at(whole.len() - 1);
    first.write(most).await;
    let mut second = Frames::produce(&connection, "readings").await;
    second.write(&header(Kind::Produce, BATCH_BYTES)).await;
    let error = second.ack().await.expect_err("no room");
    assert_eq!((error.code, error.retryable), (ErrorCode::Overloaded, true));
    assert_eq!(second.next().await, None, "the answer is the stream's last");
    assert_eq!(second.stopped().await, Some(VarInt::from_u32(3)));

    first.write(last).await;
    first.ack().await.expect("it was not held up");
    let mut again = Frames::produce(&connection, "readings").await;
    again.send_batch(&batch(&["stored"])).await;
    again.ack().await.expect("stored");
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_on_small_windows_is_stored_by_and_by() {
    let broker = small_broker(4 << 20).await;
    let connection = broker.connect().await;
    broker.create_topic(&connection, "readings", Durability::Os).await;
    let batch = big_batch(BATCH_BYTES as usize / 2);
    let mut producers = JoinSet::new();
    for _ in 0..STREAMS {
        let (connection, batch) = (connection.clone(), batch.clone());
        producers.spawn(async move { while !try_to_store(&connection, &batch).await {} });
    }
    patiently(async { while producers.join_next().await.transpose().expect("no panic").is_some() {} }).await;
    broker.stop().await;
}

/// Whether it was stored; it may be refused as too much at this moment, and as nothing else.
async fn try_to_store(connection: &Connection, batch: &Bytes) -> bool {
    let open = OpenProduce { topic: "readings".to_owned(), partition: Some(0) };
    let mut producer = Frames::open(connection, &Request::OpenProduce(open)).await;
    producer.response().await.expect("open");
    let Frames { send, receive } = &mut producer;
    let bytes = frame(Kind::Produce, batch);
    let (written, answer) = tokio::join!(send.write_all(&bytes), next_ack(receive));
    match answer {
        Ok(_) => {
            written.expect("it was read whole");
            true
        }
        Err(error) => {
            assert_eq!(error.code, ErrorCode::Overloaded, "{error}");
            false
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_busy_stream_waits_without_room() {
    let broker = small_broker(0).await;
    let connection = broker.connect().await;
    broker.create_topic(&connection, "readings", Durability::Os).await;
    let mut slow = Frames::produce(&connection, "readings").await;
    slow.write(&header(Kind::Produce, u32::try_from(INFLIGHT_BYTES).expect("small"))).await;
    // More than the connection's window, so the broker is reading it when this is through.
    slow.write(&vec![b'x'; INFLIGHT_BYTES / 2]).await;

    // On another connection, so nobody on its own needs to be read while it waits.
    let other_connection = broker.connect().await;
    let mut other = Frames::produce(&other_connection, "readings").await;
    other.send_batch(&batch(&["waits"])).await;
    slow.send.reset(VarInt::from_u32(0)).expect("open");
    other.ack().await.expect("stored");
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uploads_that_wait_for_their_turn_let_the_others_finish() {
    const UPLOAD_BYTES: usize = 8 << 20;
    let broker = small_broker(128 << 20).await;
    let connection = broker.connect().await;
    let mut uploads = JoinSet::new();
    for number in 0..8 {
        let deploy = DeployModule { name: format!("module-{number}"), size_bytes: UPLOAD_BYTES as u64 };
        let mut upload = Frames::open(&connection, &Request::DeployModule(deploy)).await;
        uploads.spawn(async move {
            let part = frame(Kind::Body, &vec![7; BODY_PAYLOAD_BYTES_MAX]);
            for _ in 0..UPLOAD_BYTES / BODY_PAYLOAD_BYTES_MAX {
                upload.write(&part).await;
            }
            assert_eq!(upload.response().await.expect_err("sevens").code, ErrorCode::ModuleInvalid);
        });
    }
    patiently(async { while uploads.join_next().await.transpose().expect("no panic").is_some() {} }).await;
    assert!(ask(&connection, &Request::BrokerInfo).await.is_ok());
    broker.stop().await;
}

//! Uploads of modules.

mod common;

use common::{Broker, Frames, ask, frame, header};
use millpond_protocol::{
    error::ErrorCode,
    frame::{BODY_PAYLOAD_BYTES_MAX, Kind},
    message::{DeployModule, Request},
};
use millpond_quic::QuicLimits;
use std::time::Duration;

fn deploy(size_bytes: u64) -> Request {
    Request::DeployModule(DeployModule { name: "filter".to_owned(), size_bytes })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_over_the_limit_is_refused_before_its_bytes_come() {
    let broker = Broker::start().await;
    let connection = broker.connect().await;
    let limit_bytes = broker.engine.info().max_module_bytes;
    for size_bytes in [limit_bytes + 1, u64::MAX] {
        let error = ask(&connection, &deploy(size_bytes)).await.expect_err("too large");
        assert_eq!(error.code, ErrorCode::ModuleTooLarge);
        assert!(error.message.contains(&limit_bytes.to_string()), "{error}");
    }
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_in_many_frames_reaches_the_engine_whole() {
    let broker = Broker::start().await;
    let connection = broker.connect().await;
    let mut frames = Frames::open(&connection, &deploy(600_000)).await;
    for length in [BODY_PAYLOAD_BYTES_MAX, 1, BODY_PAYLOAD_BYTES_MAX, 600_000 - 1 - 2 * BODY_PAYLOAD_BYTES_MAX] {
        frames.write(&frame(Kind::Body, &vec![7; length])).await;
    }
    // It came through, and is no WebAssembly.
    assert_eq!(frames.response().await.expect_err("sevens").code, ErrorCode::ModuleInvalid);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_that_breaks_its_announcement_is_refused() {
    let broker = Broker::start().await;
    let connection = broker.connect().await;
    for (bytes, code) in [
        (frame(Kind::Body, &[7; 11]), ErrorCode::InvalidRequest),
        (frame(Kind::Body, &[]), ErrorCode::InvalidRequest),
        (frame(Kind::Produce, &[7; 10]), ErrorCode::InvalidRequest),
        (header(Kind::Body, u32::MAX).to_vec(), ErrorCode::FrameTooLarge),
    ] {
        let mut frames = Frames::open(&connection, &deploy(10)).await;
        frames.write(&bytes).await;
        assert_eq!(frames.response().await.expect_err("refused").code, code, "{bytes:?}");
        assert_eq!(frames.next().await, None);
    }
    let mut frames = Frames::open(&connection, &deploy(10)).await;
    frames.send.finish().expect("open");
    assert_eq!(frames.response().await.expect_err("nothing came").code, ErrorCode::InvalidRequest);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_that_stops_is_cut_off() {
    let broker = Broker::start_with(QuicLimits { stall_timeout: Duration::from_millis(100), ..QuicLimits::default() }).await;
    let connection = broker.connect().await;
    let mut frames = Frames::open(&connection, &deploy(100)).await;
    frames.write(&frame(Kind::Body, &[7; 10])).await;
    assert_eq!(frames.response().await.expect_err("cut off").code, ErrorCode::TimedOut);
    broker.stop().await;
}

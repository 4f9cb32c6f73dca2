//! What a stranger can take of the broker.

use crate::broker::{Broker, Door, Reply, read_all};
use millpond_admin::AdminLimits;
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

const REQUEST: &[u8] = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n";

#[tokio::test]
async fn a_head_that_does_not_come_to_its_end_is_answered_after_its_time() {
    let limits = AdminLimits { head_timeout: Duration::from_millis(50), ..AdminLimits::default() };
    let door = Door::open(limits).await;
    for begun in [&b""[..], b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n", b"\r\n\r\n"] {
        let reply = Reply::read(&door.exchange(begun).await);
        assert_eq!((reply.code, reply.body.as_str()), (408, "the request took too long to arrive\n"), "{begun:?}");
    }
}

#[tokio::test]
async fn a_head_that_is_too_large_is_answered_and_the_answer_arrives() {
    let door = Door::open(AdminLimits::default()).await;
    let mut fits = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nCookie: ".to_vec();
    fits.resize((8 << 10) - 4, b'x');
    fits.extend(b"\r\n\r\n");
    assert_eq!(Reply::read(&door.exchange(&fits).await).code, 200);
    // All of it is sent before the answer is read, and most of it is never looked at.
    let mut large = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nCookie: ".to_vec();
    large.resize(40 << 10, b'x');
    assert_eq!(Reply::read(&door.exchange(&large).await).code, 431);
    let many = "a: b\r\n".repeat(100);
    assert_eq!(Reply::read(&door.exchange(format!("GET / HTTP/1.1\r\n{many}\r\n").as_bytes()).await).code, 431);
}

#[tokio::test]
async fn a_body_is_not_read_and_a_second_request_is_not_answered() {
    let door = Door::open(AdminLimits::default()).await;
    let mut post = b"POST /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 30000\r\n\r\n".to_vec();
    post.resize(post.len() + 30_000, b'x');
    assert_eq!(Reply::read(&door.exchange(&post).await).code, 405);
    let answers = door.exchange(&REQUEST.repeat(3)).await;
    assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 1, "{answers}");
}

#[tokio::test]
async fn garbage_gets_an_answer_or_an_end() {
    let door = Door::open(AdminLimits { head_timeout: Duration::from_millis(50), ..AdminLimits::default() }).await;
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    for length in (0..400).step_by(7) {
        // Marsaglia's xorshift: the same bytes in every run.
        let bytes: Vec<u8> = std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[0]
        })
        .take(length)
        .collect();
        let code = Reply::read(&door.exchange(&bytes).await).code;
        assert!(matches!(code, 400 | 408), "{code} for {bytes:?}");
    }
    for bytes in
        [&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..], b"GET /metrics\r\n\r\n", b"GET /\xff\xfe HTTP/1.1\r\nHost: \0\r\n\r\n"]
    {
        assert_eq!(Reply::read(&door.exchange(bytes).await).code, 400, "{bytes:?}");
    }
    assert_eq!(door.get("/health/live").await.code, 200);
}

#[tokio::test]
async fn those_over_the_number_wait_and_none_is_turned_away() {
    let limits = AdminLimits { connections_max: 16, head_timeout: Duration::from_mins(1), ..AdminLimits::default() };
    let door = Door::open(limits).await;
    let mut silent = Vec::new();
    for _ in 0..16 {
        silent.push(door.connect().await);
    }
    // The sixteen were accepted before it, so it gets no answer while they are there.
    let mut waiting = door.connect().await;
    waiting.write_all(REQUEST).await.expect("the system takes it");
    let mut byte = [0];
    let early = tokio::time::timeout(Duration::from_millis(100), waiting.read(&mut byte)).await;
    assert!(early.is_err(), "it is served beside sixteen others: {early:?}");
    drop(silent.pop());
    assert_eq!(Reply::read(&read_all(&mut waiting).await).code, 200);
}

#[tokio::test]
async fn a_crowd_is_answered_to_the_last() {
    let broker = Broker::start().await;
    let door = std::sync::Arc::new(broker.door);
    let requests = (0..200).map(|_| {
        let door = std::sync::Arc::clone(&door);
        tokio::spawn(async move { door.get("/health/ready").await.code })
    });
    for request in requests.collect::<Vec<_>>() {
        assert_eq!(request.await.expect("no panic"), 200);
    }
}

/// A broker with more to tell than the buffers of a connection hold, and a scraper that has read the first line and reads no more.
async fn stuck_scraper(limits: AdminLimits) -> (Broker, TcpStream) {
    let broker = Broker::with(|_| {}, AdminLimits { scrapes_max: 1, ..limits }).await;
    for number in 0..10 {
        broker.topic(&format!("{number}{}", "x".repeat(200)), 400, "os").await;
    }
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4 << 10).expect("small");
    let mut stuck = socket.connect(broker.door.address).await.expect("it listens");
    stuck.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("it takes it");
    let mut first = [0; 15];
    stuck.read_exact(&mut first).await.expect("it begins to answer");
    assert_eq!(&first, b"HTTP/1.1 200 OK");
    (broker, stuck)
}

#[tokio::test]
async fn a_scraper_too_many_is_told_to_come_again() {
    let (broker, stuck) = stuck_scraper(AdminLimits { response_timeout: Duration::from_mins(1), ..AdminLimits::default() }).await;
    let second = broker.door.get("/metrics").await;
    assert_eq!((second.code, second.body.contains("other scrapes")), (503, true));
    assert_eq!(broker.door.get("/health/ready").await.code, 200, "others are answered");
    drop(stuck);
    while broker.door.get("/metrics").await.code != 200 {}
}

#[tokio::test]
async fn a_scraper_that_does_not_read_holds_its_place_for_a_time_only() {
    let (broker, mut stuck) = stuck_scraper(AdminLimits { response_timeout: Duration::from_millis(500), ..AdminLimits::default() }).await;
    while broker.door.request("HEAD", "/metrics").await.code != 200 {}
    let mut rest = Vec::new();
    // Cut off, by a reset or before the last chunk.
    let ended = stuck.read_to_end(&mut rest).await;
    assert!(ended.is_err() || !rest.ends_with(b"0\r\n\r\n"), "{} bytes", rest.len());
}

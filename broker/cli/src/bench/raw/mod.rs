//! What QUIC gives without Millpond: quinn on both sides, nothing but bytes, between two processes.
//!
//! The transport is set as Millpond sets its own: 16 MiB UDP buffers, windows that never bind on one machine, the same TLS. So a
//! ratio tells what Millpond adds to QUIC, not what settings add to quinn.
//!
//! Each measurement is one bidirectional stream that starts with one byte for what it is and eight for a length:
//!
//! ```text
//!  0      1                                9
//! +------+--------------------------------+-----------------
//! | kind | length  u64, big-endian        | bytes ...
//! +------+--------------------------------+-----------------
//!  1 sink:   the client sends until it finishes, the peer answers how many bytes came, as a u64 (length is 0)
//!  2 source: the peer sends `length` bytes and finishes
//!  3 echo:   the client sends 1 KiB, the peer answers 16 bytes, over and over (length is 0)
//! ```

mod client;
mod peer;

pub(super) use client::RawClient;
pub(super) use peer::{find_address, serve};

use super::BenchError;
use bytes::Bytes;
use quinn::{Endpoint, EndpointConfig, IdleTimeout, RecvStream, ServerConfig, TokioRuntime, TransportConfig, VarInt};
use std::{
    fmt,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::Arc,
    time::Duration,
};

/// The name in the peer's certificate.
const PEER_NAME: &str = "localhost";

/// Bytes of one write in bulk transfer.
const PIECE_BYTES: usize = 256 << 10;

/// Bytes of the request of a ping, and of its answer: those of a small record and its acknowledgement.
const PING_BYTES: usize = 1024;
const PONG_BYTES: usize = 16;

/// Bytes to ask of the kernel for each of a socket's two buffers.
const SOCKET_BUFFER_BYTES: usize = 16 << 20;

/// How much may be under way in either direction: no more than the sockets' buffers hold, or bursts would be lost.
const WINDOW_BYTES: u32 = 16 << 20;

/// Packets that one read takes off a stream.
const CHUNKS_AT_A_TIME: usize = 64;

/// A peer that is gone is noticed in this time.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// Between two raw measurements nothing else travels.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// What a stream is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Sink = 1,
    Source = 2,
    Echo = 3,
}

/// Bytes in front of every stream.
const PREFACE_BYTES: usize = 9;

fn preface(kind: Kind, length: u64) -> [u8; PREFACE_BYTES] {
    let mut bytes = [0; PREFACE_BYTES];
    bytes[0] = kind as u8;
    bytes[1..].copy_from_slice(&length.to_be_bytes());
    bytes
}

fn parse_preface(bytes: [u8; PREFACE_BYTES]) -> Option<(Kind, u64)> {
    let [number, length @ ..] = bytes;
    let kind = [Kind::Sink, Kind::Source, Kind::Echo].into_iter().find(|kind| *kind as u8 == number)?;
    Some((kind, u64::from_be_bytes(length)))
}

fn endpoint(server: Option<ServerConfig>) -> Result<Endpoint, BenchError> {
    let socket = UdpSocket::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).map_err(raw)?;
    enlarge_buffers(&socket);
    Endpoint::new(EndpointConfig::default(), server, socket, Arc::new(TokioRuntime)).map_err(raw)
}

/// Asks for large buffers; what the kernel does not grant is missing on Millpond's side as well.
fn enlarge_buffers(socket: &UdpSocket) {
    use rustix::net::sockopt;
    #[cfg(target_os = "linux")]
    let forced = sockopt::set_socket_recv_buffer_size_force(socket, SOCKET_BUFFER_BYTES).is_ok()
        && sockopt::set_socket_send_buffer_size_force(socket, SOCKET_BUFFER_BYTES).is_ok();
    #[cfg(not(target_os = "linux"))]
    let forced = false;
    if !forced {
        let _ = sockopt::set_socket_recv_buffer_size(socket, SOCKET_BUFFER_BYTES);
        let _ = sockopt::set_socket_send_buffer_size(socket, SOCKET_BUFFER_BYTES);
    }
}

fn transport() -> Result<Arc<TransportConfig>, BenchError> {
    let mut transport = TransportConfig::default();
    transport
        .stream_receive_window(VarInt::from_u32(WINDOW_BYTES))
        .receive_window(VarInt::from_u32(WINDOW_BYTES))
        .send_window(u64::from(WINDOW_BYTES))
        .keep_alive_interval(Some(KEEP_ALIVE))
        .max_idle_timeout(Some(IdleTimeout::try_from(IDLE_TIMEOUT).map_err(raw)?));
    Ok(Arc::new(transport))
}

/// Reads to the end of the stream without copying, and counts the bytes.
async fn count(receive: &mut RecvStream) -> Result<u64, BenchError> {
    let mut chunks = [const { Bytes::new() }; CHUNKS_AT_A_TIME];
    let mut bytes = 0;
    while let Some(filled) = receive.read_chunks(&mut chunks).await.map_err(raw)? {
        bytes += chunks[..filled].iter().map(|chunk| chunk.len() as u64).sum::<u64>();
    }
    Ok(bytes)
}

/// Any error of the raw connection, in its own words.
fn raw(error: impl fmt::Display) -> BenchError {
    BenchError::Raw(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::payload::Values;

    #[test]
    fn a_preface_reads_back_and_another_kind_is_refused() {
        assert_eq!(parse_preface(preface(Kind::Source, 1 << 40)), Some((Kind::Source, 1 << 40)));
        assert_eq!(parse_preface([9; PREFACE_BYTES]), None);
    }

    #[tokio::test]
    async fn a_client_measures_a_peer_in_all_three_ways() {
        let values = Values::large();
        let (endpoint, line) = peer::bind().expect("a socket on loopback");
        let peer = tokio::spawn(peer::accept(endpoint));
        let address = peer::find_address(&line).expect("the line names the address");
        let client = RawClient::connect(&address).await.expect("the peer answers");
        let sent = client.send(&values, Duration::from_millis(5)).await.expect("bulk transfer up");
        assert!(sent.bytes > 0 && sent.mb_s() > 0.0);
        let received = client.receive(1 << 20).await.expect("bulk transfer down");
        assert_eq!(received.bytes, 1 << 20);
        let pings = client.ping(&values, Duration::from_millis(5)).await.expect("pings");
        assert!(pings.len() > 0);
        peer.abort();
    }
}

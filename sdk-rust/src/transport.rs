//! UDP sockets and QUIC settings.

use quinn::{Endpoint, EndpointConfig, IdleTimeout, TokioRuntime, TransportConfig, VarInt};
use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    sync::Arc,
    time::Duration,
};

/// What a socket asks the kernel for, in bytes each way. With the usual 208 KiB a burst overruns the socket and thousands of packets
/// of each GiB are lost, which costs half the throughput.
const SOCKET_BUFFER_BYTES: usize = 16 << 20;

/// How much of one stream the broker may send ahead of its reader, in bytes. Bounds the memory of a consumer that does not
/// read, for each partition; at 20 ms of round trip it allows 200 MB/s a partition.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;

/// How much the client sends ahead of the broker's acknowledgements, over all streams, in bytes.
const SEND_WINDOW_BYTES: u64 = 16 << 20;

/// Streams that a broker may open towards the client. The protocol has none.
const BROKER_STREAMS_MAX: u32 = 0;

/// The settings of a connection.
pub(crate) fn config(idle_timeout: Duration, keep_alive: Duration) -> TransportConfig {
    let mut config = TransportConfig::default();
    let idle = IdleTimeout::try_from(idle_timeout).unwrap_or_else(|_| IdleTimeout::from(VarInt::MAX));
    config
        .max_idle_timeout(Some(idle))
        .keep_alive_interval(Some(keep_alive))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
        // No limit over all streams: a consumer that is not read for a while must not keep answers from a producer beside it.
        .receive_window(VarInt::MAX)
        .send_window(SEND_WINDOW_BYTES)
        .max_concurrent_bidi_streams(VarInt::from_u32(BROKER_STREAMS_MAX))
        .max_concurrent_uni_streams(VarInt::from_u32(BROKER_STREAMS_MAX))
        .datagram_receive_buffer_size(None);
    config
}

/// An endpoint of its own for one connection, on a port that the kernel chooses.
pub(crate) fn endpoint(remote: SocketAddr) -> io::Result<Endpoint> {
    let socket = UdpSocket::bind(local(remote))?;
    enlarge_buffers(&socket);
    Endpoint::new(EndpointConfig::default(), None, socket, Arc::new(TokioRuntime))
}

fn local(remote: SocketAddr) -> SocketAddr {
    if remote.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() }
}

/// Asks for large buffers: past the system's limit where this process may (Linux, `CAP_NET_ADMIN`), else up to it. What is not
/// granted costs throughput and nothing else, so it is no error here; the broker, which is on the receiving end of most bytes, says so.
fn enlarge_buffers(socket: &UdpSocket) {
    use rustix::net::sockopt;
    #[cfg(target_os = "linux")]
    let (received, sent) = (
        sockopt::set_socket_recv_buffer_size_force(socket, SOCKET_BUFFER_BYTES),
        sockopt::set_socket_send_buffer_size_force(socket, SOCKET_BUFFER_BYTES),
    );
    #[cfg(not(target_os = "linux"))]
    let (received, sent) = (Err(rustix::io::Errno::NOSYS), Err::<(), _>(rustix::io::Errno::NOSYS));
    let received = received.or_else(|_| sockopt::set_socket_recv_buffer_size(socket, SOCKET_BUFFER_BYTES));
    let sent = sent.or_else(|_| sockopt::set_socket_send_buffer_size(socket, SOCKET_BUFFER_BYTES));
    if let Err(error) = received.and(sent) {
        tracing::debug!(%error, "the UDP socket keeps its default buffers");
    }
}

/// Ends when the other side's kernel says that nobody listens there; never ends otherwise.
///
/// QUIC's own socket serves any address and so is not told; without this a broker that is not running would only show by a timeout. The
/// datagram is empty, which a broker ignores. A forged answer costs one attempt to connect, no more than a forged QUIC packet could.
pub(crate) async fn refusal(remote: SocketAddr) -> io::Error {
    let probe = async {
        let socket = tokio::net::UdpSocket::bind(local(remote)).await?;
        socket.connect(remote).await?;
        socket.send(&[]).await?;
        socket.recv(&mut [0; 1]).await
    };
    match probe.await {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => error,
        // Anything else is for the handshake to find out.
        _ => std::future::pending().await,
    }
}

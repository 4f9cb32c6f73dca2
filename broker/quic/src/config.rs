//! What an operator can set, with the defaults.

use std::{net::SocketAddr, time::Duration};

/// Where the door listens, and its bounds.
#[derive(Clone, Debug)]
pub struct QuicConfig {
    /// The UDP address to listen on. Port 0 lets the kernel choose one.
    pub listen: SocketAddr,
    /// The bounds.
    pub limits: QuicLimits,
    /// Bytes to ask of the kernel for each of the socket's two buffers. Loopback and fast networks overrun the kernel's default of
    /// about 200 KiB between two wake-ups, and every overrun is a lost packet.
    pub socket_buffer_bytes: usize,
}

/// Bounds on what clients can make the door hold.
#[derive(Clone, Debug)]
pub struct QuicLimits {
    /// Open connections, those in their handshake included. Further ones are refused.
    pub connections_max: usize,
    /// Streams that a client may have open at a time on one connection. It waits before it opens more.
    pub streams_per_connection_max: u32,
    /// A connection on which nothing was heard for this long is gone. Clients send keep-alives more often than that.
    pub idle_timeout: Duration,
    /// How long a handshake may take.
    pub handshake_timeout: Duration,
    /// How long a client may stand still in the middle of a frame. It is cut off after one to two times this.
    pub stall_timeout: Duration,
    /// Batches of one produce stream that are read but not answered. The next is read when an answer has left. At least 2.
    pub produce_inflight_batches_max: usize,
    /// The most bytes of batches in one push to a consumer. A single batch may be larger.
    pub push_bytes_max: usize,
    /// Memory for bytes in transit on all connections together: received and not yet read, sent and not yet acknowledged, read from
    /// the log and not yet sent. Connections share it; see the module `budget` for what the last ones get.
    pub transit_bytes_max: u64,
}

impl QuicConfig {
    /// The port that clients try when the URL names none.
    pub const DEFAULT_PORT: u16 = 9440;

    /// The defaults, on this address.
    pub fn new(listen: SocketAddr) -> QuicConfig {
        QuicConfig { listen, limits: QuicLimits::default(), socket_buffer_bytes: 16 << 20 }
    }
}

impl Default for QuicLimits {
    fn default() -> Self {
        QuicLimits {
            connections_max: 1000,
            streams_per_connection_max: 1024,
            idle_timeout: Duration::from_secs(30),
            handshake_timeout: Duration::from_secs(10),
            stall_timeout: Duration::from_secs(15),
            produce_inflight_batches_max: 256,
            push_bytes_max: 1 << 20,
            transit_bytes_max: 128 << 20,
        }
    }
}

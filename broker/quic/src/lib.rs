//! The QUIC front door of the broker.
//!
//! A connection speaks TLS 1.3 and the application protocol `millpond/1`. Every request is a bidirectional stream that the client
//! opens; [`millpond_protocol::frame`] says what travels on it. This crate moves frames between streams and the engine, and decides
//! nothing about topics, offsets or modules.
//!
//! | module | holds |
//! |---|---|
//! | `config` | [`QuicConfig`] and [`QuicLimits`]: every bound that an operator can move |
//! | `tls` | [`TlsMaterial`]: the certificate that is presented, made at the first start |
//! | `socket` | [`QuicSocket`]: the UDP socket, its buffers, and words about what the kernel did not grant |
//! | `transport` | QUIC's windows and timeouts, with the reason for each |
//! | `budget` | how connections share the memory for bytes in transit |
//! | `window` | a connection's receive window, which is wider while streams wait for memory |
//! | `server` | [`QuicServer`]: binding, accepting, draining |
//! | `connection` | one connection: handshake, streams, farewell |
//! | `frames` | frames from and to a stream, with a limit on length and on patience |
//! | `stream` | one stream: the first frame, then a handler for its request, one file each |
//!
//! # What it promises
//!
//! - Answers on a produce stream come in the order of the batches, whatever became of each.
//! - A batch is read from the network only after the engine has granted memory for it. Nothing is allocated by a length from the
//!   network that has not been held against a limit.
//! - A slow client blocks its own streams and nothing else: QUIC's flow control is the backpressure in both directions.
//! - Streams that wait for memory don't keep the others of their connection from being read. Where there is no room for what they
//!   send meanwhile, they are refused as overloaded and the client sends again.
//! - When it is told to stop, every batch that it has taken off the network is answered before the connection closes. What lies
//!   unread behind it is not, and is the client's to send again.
//!
//! # What it refuses
//!
//! Clients that do not speak `millpond/1`, connections and streams over their limits, frames over their limits, a client that stops
//! in the middle of a frame. Random bytes on the port cost a look at their header.

#![forbid(unsafe_code)]

mod budget;
mod config;
mod connection;
mod error;
mod frames;
mod noise;
mod server;
mod socket;
mod stream;
mod tls;
mod transport;
mod window;

pub use config::{QuicConfig, QuicLimits};
pub use error::QuicError;
pub use server::QuicServer;
pub use socket::QuicSocket;
pub use tls::{TlsMaterial, load_or_create_tls};

/// Why this side closed a connection, or ended a stream before its time, as a QUIC application error code. A connection over the limit
/// has none: it is refused by QUIC itself, before there is an application to name a reason.
mod close_code {
    use quinn::VarInt;

    /// There is nothing more to say, and nothing is wrong.
    pub(crate) const DONE: VarInt = VarInt::from_u32(0);

    /// The peer broke the protocol.
    pub(crate) const PROTOCOL_ERROR: VarInt = VarInt::from_u32(1);

    /// The broker stops.
    pub(crate) const SHUTTING_DOWN: VarInt = VarInt::from_u32(2);

    /// The broker has no memory for the stream at this moment.
    pub(crate) const OVERLOADED: VarInt = VarInt::from_u32(3);
}

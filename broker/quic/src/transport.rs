//! QUIC's own settings, each with its reason.

use crate::{QuicError, QuicLimits, budget::INITIAL_WINDOW_BYTES, tls::TlsMaterial};
use quinn::{IdleTimeout, ServerConfig, TransportConfig, VarInt, crypto::rustls::QuicServerConfig};
use std::{sync::Arc, time::Duration};

/// Connection attempts that wait for the accept loop. It only ever lags by a burst; further attempts are refused.
const INCOMING_MAX: usize = 512;

/// Who says nothing else keeps a connection alive every five seconds, for an idle timeout of its own of 20 s.
const CLIENT_IDLE_TIMEOUT: Duration = Duration::from_secs(20);

/// Bytes that one waiting attempt may hold: its handshake and a little early data.
const INCOMING_BYTES_MAX: u64 = 64 << 10;

/// Bytes that all waiting attempts together may hold.
const INCOMING_TOTAL_BYTES_MAX: u64 = 4 << 20;

/// What a client may send on one stream ahead of the broker's reading: 20 MB/s at 100 ms of round trip. It is less than the window
/// of an uncrowded connection, so that one produce stream that is not read at the moment, because its partition is busy, leaves room
/// for the others. Where several wait, [`crate::window`] sees to it.
pub(crate) const STREAM_WINDOW_BYTES: u32 = 2 << 20;

/// What every connection starts with. Its share of the memory follows, when its handshake is complete.
pub(crate) fn server_config(tls: &TlsMaterial, limits: &QuicLimits) -> Result<ServerConfig, QuicError> {
    let crypto = QuicServerConfig::try_from(tls.server_config()?)
        .map_err(|error| QuicError::Tls { source: rustls::Error::General(error.to_string()) })?;
    let mut config = ServerConfig::with_crypto(Arc::new(crypto));
    config
        .transport_config(Arc::new(transport(limits)))
        // A client that changes networks goes on.
        .migration(true)
        .max_incoming(INCOMING_MAX)
        .incoming_buffer_size(INCOMING_BYTES_MAX)
        .incoming_buffer_size_total(INCOMING_TOTAL_BYTES_MAX);
    Ok(config)
}

fn transport(limits: &QuicLimits) -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(limits.streams_per_connection_max.into())
        // Every request is a bidirectional stream; the protocol has no use for these two.
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        .receive_window(bytes(INITIAL_WINDOW_BYTES))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
        .send_window(INITIAL_WINDOW_BYTES)
        // Keep-alives come from the client: it knows whether it still wants the connection. Not from one that does not know in time that they are
        // wanted so often here.
        .keep_alive_interval((limits.idle_timeout < CLIENT_IDLE_TIMEOUT).then_some(limits.idle_timeout / 4))
        .max_idle_timeout(Some(IdleTimeout::from(milliseconds(limits.idle_timeout))));
    transport
}

/// A number of bytes as QUIC writes it.
pub(crate) fn bytes(number: u64) -> VarInt {
    VarInt::from_u64(number).unwrap_or(VarInt::MAX)
}

fn milliseconds(duration: std::time::Duration) -> VarInt {
    u64::try_from(duration.as_millis()).ok().and_then(|number| VarInt::from_u64(number).ok()).unwrap_or(VarInt::MAX)
}

//! The door itself: it binds, accepts, and drains.

use crate::{
    QuicConfig, QuicError, QuicLimits, QuicSocket, TlsMaterial, close_code,
    connection::{self, PendingHandshake},
    stream::Broker,
    transport,
};
use millpond_engine::Engine;
use quinn::{Endpoint, Incoming, TokioRuntime};
use std::{
    net::SocketAddr,
    sync::{Arc, atomic::AtomicUsize, atomic::Ordering},
    time::Duration,
};
use tokio::{task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

/// While more handshakes than this are pending, whoever wants to begin another must first show that it can be reached at its address
/// (RFC 9000, section 8.1.2). A flood from made-up addresses then costs no state.
const UNVALIDATED_HANDSHAKES_MAX: usize = 32;

/// How long to wait until the clients have noticed that their connections are closed.
const WAIT_IDLE_DURATION_MAX: Duration = Duration::from_secs(10);

/// The QUIC front door, bound and ready to run.
#[derive(Debug)]
pub struct QuicServer {
    endpoint: Endpoint,
    engine: Arc<Engine>,
    limits: QuicLimits,
    local_address: SocketAddr,
}

impl QuicServer {
    /// Binds the socket and opens the door on it.
    ///
    /// # Errors
    ///
    /// The address can't be listened on, or the certificate can't be served.
    ///
    /// # Panics
    ///
    /// When called outside of a tokio runtime.
    pub fn bind(config: QuicConfig, tls: &TlsMaterial, engine: Arc<Engine>) -> Result<QuicServer, QuicError> {
        let socket = QuicSocket::bind(config.listen, config.socket_buffer_bytes)?;
        QuicServer::open(socket, config.limits, tls, engine)
    }

    /// Opens the door on a socket. Clients can connect from now on, and are answered once [`QuicServer::run`] is called.
    ///
    /// # Errors
    ///
    /// The socket can't be used, or the certificate can't be served.
    ///
    /// # Panics
    ///
    /// When called outside of a tokio runtime.
    pub fn open(socket: QuicSocket, limits: QuicLimits, tls: &TlsMaterial, engine: Arc<Engine>) -> Result<QuicServer, QuicError> {
        let transport = transport::server_config(tls, &limits)?;
        let local_address = socket.local_addr();
        let endpoint = Endpoint::new(tls.endpoint_config(), Some(transport), socket.socket, Arc::new(TokioRuntime))
            .map_err(|source| QuicError::Socket { operation: "listen on", source })?;
        Ok(QuicServer { endpoint, engine, limits, local_address })
    }

    /// The address that is listened on, with the port that the kernel chose if it was left to choose.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_address
    }

    /// Serves until `shutdown` is cancelled, then drains and returns.
    ///
    /// Draining takes no new connections, streams or batches, answers every batch that was read whole, ends the consume streams, and
    /// closes each connection with code 2. It takes some 20 seconds at the very most, and usually a round trip.
    ///
    /// It also returns, with an error in the log, if the socket fails for good.
    pub async fn run(self, shutdown: CancellationToken) {
        // A child, so that a failing socket ends the connections without stopping whatever else the caller's token stops.
        let shutdown = shutdown.child_token();
        let broker = Arc::new(Broker::new(Arc::clone(&self.engine), self.limits.clone(), shutdown.clone()));
        let mut admission = Admission { broker, handshakes_pending: Arc::default(), connections: JoinSet::new() };
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                Some(ended) = admission.connections.join_next(), if !admission.connections.is_empty() => report(ended),
                incoming = self.endpoint.accept() => {
                    let Some(incoming) = incoming else {
                        tracing::error!(address = %self.local_address, "the UDP socket failed, nobody can connect any more");
                        shutdown.cancel();
                        break;
                    };
                    admission.admit(incoming);
                }
            }
        }
        let mut connections = admission.connections;
        while !connections.is_empty() {
            tokio::select! {
                Some(ended) = connections.join_next() => report(ended),
                Some(incoming) = self.endpoint.accept() => incoming.refuse(),
            }
        }
        self.endpoint.close(close_code::SHUTTING_DOWN, b"shutting down");
        if timeout(WAIT_IDLE_DURATION_MAX, self.endpoint.wait_idle()).await.is_err() {
            tracing::debug!("some clients did not notice in time that the broker stops");
        }
    }
}

/// Decides who comes in.
struct Admission {
    broker: Arc<Broker>,
    handshakes_pending: Arc<AtomicUsize>,
    connections: JoinSet<()>,
}

impl Admission {
    fn admit(&mut self, incoming: Incoming) {
        let remote = incoming.remote_address();
        let connections_max = self.broker.limits.connections_max;
        if self.connections.len() >= connections_max {
            if let Some(suppressed) = self.broker.noise.permit() {
                tracing::warn!(%remote, connections_max, suppressed, "a connection was refused: the limit is reached");
            }
            return incoming.refuse();
        }
        if self.handshakes_pending.load(Ordering::Relaxed) >= UNVALIDATED_HANDSHAKES_MAX && !incoming.remote_address_validated() {
            if let Err(error) = incoming.retry() {
                tracing::debug!(%remote, %error, "a client can't be asked to show its address");
            }
            return;
        }
        match incoming.accept() {
            Ok(connecting) => {
                let pending = PendingHandshake::begin(&self.handshakes_pending);
                let span = tracing::info_span!("connection", %remote);
                self.connections.spawn(connection::serve(Arc::clone(&self.broker), connecting, pending).instrument(span));
            }
            Err(error) => tracing::debug!(%remote, %error, "a connection attempt made no sense"),
        }
    }
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "the task of a connection panicked");
    }
}

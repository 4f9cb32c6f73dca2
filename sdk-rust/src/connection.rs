//! The one QUIC connection that all parts of a client share, made again when it is lost.
//!
//! Whoever needs it asks for it. While it is down, one of those who ask makes the attempt and the others wait for its outcome; how
//! often they ask again, and for how long, is their own decision. Attempts keep a growing distance from each other.

use crate::{
    backoff::Backoff,
    error::{Cause, Error},
    stream::StreamDemand,
    transport,
    trust::{self, FingerprintVerifier},
    url::BrokerUrl,
};
use parking_lot::Mutex;
use quinn::{ConnectionError, Endpoint, VarInt, crypto::rustls::QuicClientConfig};
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

/// How long a client that is closed waits until the broker has been told.
const GOODBYE_MAX: Duration = Duration::from_secs(1);

/// How often it is looked whether the goodbye has been sent.
const GOODBYE_LOOK: Duration = Duration::from_millis(1);

/// Close code: nothing is wrong.
pub(crate) const CODE_DONE: VarInt = VarInt::from_u32(0);
/// Close and reset code: the other side broke the protocol.
pub(crate) const CODE_PROTOCOL: VarInt = VarInt::from_u32(1);
/// Close and reset code: the broker is stopping.
const CODE_SHUTTING_DOWN: VarInt = VarInt::from_u32(2);
/// Close and reset code: the broker has no room.
const CODE_OVERLOADED: VarInt = VarInt::from_u32(3);

/// Times of a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timing {
    pub(crate) connect_timeout: Duration,
    pub(crate) idle_timeout: Duration,
    pub(crate) keep_alive: Duration,
}

/// The connection of a client.
pub(crate) struct Link {
    url: BrokerUrl,
    timing: Timing,
    config: quinn::ClientConfig,
    verifier: Option<Arc<FingerprintVerifier>>,
    live: Mutex<Option<Live>>,
    /// Held by whoever makes the attempt.
    attempts: tokio::sync::Mutex<Attempts>,
    /// Attempts that ended.
    finished: AtomicU64,
    /// The broker has done something over this connection: the next attempt to connect need not wait.
    useful: AtomicBool,
    /// Why the last attempt failed; none if it did not.
    last_error: Mutex<Option<Error>>,
    /// Who waits for a stream.
    pub(crate) streams: StreamDemand,
    closed: CancellationToken,
}

struct Live {
    connection: quinn::Connection,
    endpoint: Endpoint,
}

#[derive(Default)]
struct Attempts {
    backoff: Backoff,
    not_before: Option<Instant>,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("url", &self.url).field("connected", &self.live().is_some()).finish_non_exhaustive()
    }
}

impl Link {
    /// A connection that is not made yet.
    pub(crate) fn new(url: BrokerUrl, timing: Timing) -> Result<Link, Error> {
        let tls = trust::tls(&url.trust)?;
        let crypto = QuicClientConfig::try_from(tls.config)
            .unwrap_or_else(|error| unreachable!("TLS 1.3 and its initial cipher suite are there: {error}"));
        let mut config = quinn::ClientConfig::new(Arc::new(crypto));
        config.transport_config(Arc::new(transport::config(timing.idle_timeout, timing.keep_alive)));
        Ok(Link {
            url,
            timing,
            config,
            verifier: tls.verifier,
            live: Mutex::new(None),
            attempts: tokio::sync::Mutex::default(),
            finished: AtomicU64::new(0),
            useful: AtomicBool::new(false),
            last_error: Mutex::new(None),
            streams: StreamDemand::default(),
            closed: CancellationToken::new(),
        })
    }

    /// One more connection to the same broker. It is closed for whoever closes this one before it is made.
    pub(crate) fn another(&self) -> Result<Link, Error> {
        let link = Link::new(self.url.clone(), self.timing)?;
        Ok(Link { closed: self.closed.child_token(), ..link })
    }

    pub(crate) fn url(&self) -> &BrokerUrl {
        &self.url
    }

    /// The connection, if it is up at this moment.
    pub(crate) fn live(&self) -> Option<quinn::Connection> {
        let live = self.live.lock();
        live.as_ref().map(|live| &live.connection).filter(|connection| connection.close_reason().is_none()).cloned()
    }

    /// The broker has done something over this connection.
    pub(crate) fn was_useful(&self) {
        self.useful.store(true, Ordering::Relaxed);
    }

    /// Why the last attempt to connect failed; none if it did not.
    pub(crate) fn last_error(&self) -> Option<Error> {
        self.last_error.lock().clone()
    }

    /// The connection; where it is down, the outcome of one attempt, which may be under way already.
    pub(crate) async fn get(&self) -> Result<quinn::Connection, Error> {
        if let Some(connection) = self.live() {
            return Ok(connection);
        }
        let seen = self.finished.load(Ordering::Acquire);
        tokio::select! {
            biased;
            () = self.closed.cancelled() => Err(Error::Closed("client")),
            outcome = self.take_part(seen) => outcome,
        }
    }

    /// Waits for the attempt that is under way, or makes one. `seen` is the number of attempts that had ended when this began.
    async fn take_part(&self, seen: u64) -> Result<quinn::Connection, Error> {
        let mut attempts = self.attempts.lock().await;
        if let Some(connection) = self.live() {
            return Ok(connection);
        }
        if self.finished.load(Ordering::Acquire) > seen
            && let Some(error) = self.last_error()
        {
            return Err(error);
        }
        if self.useful.swap(false, Ordering::Relaxed) {
            attempts.backoff.reset();
        } else if let Some(not_before) = attempts.not_before {
            sleep_until(not_before).await;
        }
        let outcome = self.attempt().await;
        // Also after a success: a connection that is lost before it was of any use must not lead to the next one at once.
        attempts.not_before = Some(Instant::now() + attempts.backoff.next());
        if let Err(error) = &outcome {
            tracing::debug!(address = self.url.address(), %error, "could not connect");
        }
        *self.last_error.lock() = outcome.as_ref().err().cloned();
        self.finished.fetch_add(1, Ordering::Release);
        outcome
    }

    /// Tries each of the host's addresses in turn, each with its share of the time.
    async fn attempt(&self) -> Result<quinn::Connection, Error> {
        let deadline = Instant::now() + self.timing.connect_timeout;
        let lookup = tokio::net::lookup_host((self.url.host.as_str(), self.url.port));
        let addresses: Vec<SocketAddr> = match timeout_at(deadline, lookup).await {
            Ok(Ok(addresses)) => addresses.collect(),
            Ok(Err(error)) => return Err(self.connect_error(format!("the name could not be resolved: {error}"), Some(Arc::new(error)))),
            Err(_) => return Err(self.connect_error("the name was not resolved in time".to_owned(), None)),
        };
        let mut last = self.connect_error("the name has no address".to_owned(), None);
        for (tried, address) in addresses.iter().enumerate() {
            let left = u32::try_from(addresses.len() - tried).unwrap_or(u32::MAX);
            let share = deadline.saturating_duration_since(Instant::now()) / left;
            match timeout_at(Instant::now() + share, self.handshake(*address)).await {
                Ok(Ok(connection)) => return Ok(connection),
                Ok(Err(error)) if !error.retryable() => return Err(error),
                Ok(Err(error)) => last = error,
                Err(_) => last = self.connect_error(format!("no answer within {:?}", self.timing.connect_timeout), None),
            }
        }
        Err(last)
    }

    async fn handshake(&self, address: SocketAddr) -> Result<quinn::Connection, Error> {
        let no_socket = |error: std::io::Error| self.connect_error(format!("no UDP socket: {error}"), Some(Arc::new(error)));
        let endpoint = transport::endpoint(address).map_err(no_socket)?;
        let connecting = endpoint
            .connect_with(self.config.clone(), address, &self.url.host)
            .map_err(|error| self.connect_error(error.to_string(), Some(Arc::new(error))))?;
        let connection = tokio::select! {
            biased;
            outcome = connecting => outcome.map_err(|error| self.handshake_error(error))?,
            refused = transport::refusal(address) => {
                return Err(self.connect_error("nobody listens there".to_owned(), Some(Arc::new(refused))));
            }
        };
        if !speaks_millpond(&connection) {
            connection.close(CODE_DONE, b"");
            return Err(Error::WrongProtocol {
                address: self.url.address(),
                reason: "it named no protocol in the TLS handshake".to_owned(),
            });
        }
        tracing::debug!(%address, "connected");
        *self.live.lock() = Some(Live { connection: connection.clone(), endpoint });
        Ok(connection)
    }

    fn connect_error(&self, reason: String, cause: Option<Cause>) -> Error {
        Error::Connect { address: self.url.address(), reason, cause }
    }

    /// Tells apart what a person has to act on in different ways.
    fn handshake_error(&self, error: ConnectionError) -> Error {
        let address = self.url.address();
        if let Some((expected, actual)) = self.verifier.as_ref().and_then(|verifier| verifier.take_refused()) {
            return Error::Fingerprint { address, expected: expected.to_string(), actual: actual.to_string() };
        }
        match &error {
            ConnectionError::VersionMismatch => Error::WrongProtocol { address, reason: "it has no QUIC version in common".to_owned() },
            // Ours: this side refused what the broker showed.
            ConnectionError::TransportError(failure) if is_tls(failure.code) => {
                Error::Certificate { address, reason: failure.reason.clone() }
            }
            ConnectionError::ConnectionClosed(close) if u64::from(close.error_code) == TLS_NO_APPLICATION_PROTOCOL => {
                Error::WrongProtocol { address, reason: "it refused the protocol in the TLS handshake".to_owned() }
            }
            ConnectionError::ConnectionClosed(close) if is_tls(close.error_code) => {
                Error::WrongProtocol { address, reason: format!("it refused the TLS handshake: {error}") }
            }
            _ => self.connect_error(lost_reason(&error), Some(Arc::new(error))),
        }
    }

    /// Closes the connection for good and waits, for a moment, until the goodbye is on its way.
    pub(crate) async fn close(&self) {
        self.closed.cancel();
        let live = self.live.lock().take();
        if let Some(Live { connection, endpoint }) = live {
            let sent = connection.stats().udp_tx.datagrams;
            connection.close(CODE_DONE, b"");
            // A connection that is closed sends nothing but the goodbye. It is a courtesy: where it is lost, the broker finds out by its idle
            // timeout. So nobody waits three round trips for late packets, as the endpoint itself would (RFC 9000, section 10.2).
            let told = async {
                while connection.stats().udp_tx.datagrams == sent && endpoint.open_connections() > 0 {
                    sleep(GOODBYE_LOOK).await;
                }
                // It is counted a moment before the socket has it.
                sleep(GOODBYE_LOOK).await;
            };
            let _ = timeout(GOODBYE_MAX, told).await;
        }
    }
}

/// A server that knows nothing of ALPN takes part in the handshake all the same.
fn speaks_millpond(connection: &quinn::Connection) -> bool {
    let data = connection.handshake_data().and_then(|data| data.downcast::<quinn::crypto::rustls::HandshakeData>().ok());
    data.and_then(|data| data.protocol).is_some_and(|protocol| protocol == millpond_protocol::ALPN)
}

/// RFC 9001, section 4.8: TLS alerts are the codes from 0x100 to 0x1ff.
fn is_tls(code: quinn::TransportErrorCode) -> bool {
    (0x100..0x200).contains(&u64::from(code))
}

/// The alert `no_application_protocol` (120, RFC 7301) as a QUIC error code.
const TLS_NO_APPLICATION_PROTOCOL: u64 = 0x100 + 120;

/// Why a connection ended, in words.
fn lost_reason(error: &ConnectionError) -> String {
    match error {
        ConnectionError::ApplicationClosed(close) => {
            let said = String::from_utf8_lossy(&close.reason);
            let code = close_reason(close.error_code);
            if said.is_empty() { format!("the broker closed it: {code}") } else { format!("the broker closed it: {code} ({said})") }
        }
        ConnectionError::TimedOut => "the broker has not been heard of for too long".to_owned(),
        ConnectionError::Reset => "the broker does not know it any more; it was restarted".to_owned(),
        ConnectionError::LocallyClosed => "this client closed it".to_owned(),
        refused if is_refusal(refused) => "the broker takes no more connections at the moment".to_owned(),
        other => other.to_string(),
    }
}

/// Whether the broker is there and would not have this connection.
pub(crate) fn is_refusal(error: &(dyn std::error::Error + 'static)) -> bool {
    let refused = quinn::TransportErrorCode::CONNECTION_REFUSED;
    matches!(error.downcast_ref(), Some(ConnectionError::ConnectionClosed(close)) if close.error_code == refused)
}

/// What a close or reset code of the broker means.
pub(crate) fn close_reason(code: VarInt) -> String {
    match code {
        CODE_DONE => "it was done".to_owned(),
        CODE_PROTOCOL => "it found a fault in what this client sent".to_owned(),
        CODE_SHUTTING_DOWN => "it is shutting down".to_owned(),
        CODE_OVERLOADED => "it is overloaded".to_owned(),
        other => format!("code {other}"),
    }
}

/// The error for whoever was using a connection that ended.
pub(crate) fn lost(error: ConnectionError) -> Error {
    if matches!(error, ConnectionError::LocallyClosed) {
        return Error::Closed("client");
    }
    Error::ConnectionLost { reason: lost_reason(&error), cause: Some(Arc::new(error)) }
}

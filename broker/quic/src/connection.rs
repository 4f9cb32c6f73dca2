//! One connection: its handshake, its streams, its farewell.

use crate::{
    close_code,
    stream::{self, Broker, ConnectionContext},
};
use quinn::{Connecting, Connection, ConnectionError};
use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{task::JoinSet, time::timeout};

/// How long the streams of a connection may take to end when the broker stops.
const DRAIN_DURATION_MAX: Duration = Duration::from_secs(10);

/// How long the tasks of the streams may take to notice that the connection has been closed.
const ABORT_DURATION_MAX: Duration = Duration::from_secs(2);

/// Counts a handshake while it lasts.
pub(crate) struct PendingHandshake(Arc<AtomicUsize>);

impl PendingHandshake {
    pub(crate) fn begin(count: &Arc<AtomicUsize>) -> PendingHandshake {
        count.fetch_add(1, Ordering::Relaxed);
        PendingHandshake(Arc::clone(count))
    }
}

impl Drop for PendingHandshake {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Serves a connection to its end.
pub(crate) async fn serve(broker: Arc<Broker>, connecting: Connecting, pending: PendingHandshake) {
    // On the side of a server this always succeeds; it lets streams in that the client opened in early data.
    let Ok((connection, handshake)) = connecting.into_0rtt() else { return };
    let context = Arc::new(ConnectionContext::new(&broker, connection.clone()));
    let mut streams = JoinSet::new();
    let mut handshake = pin!(timeout(broker.limits.handshake_timeout, handshake));
    let mut pending = Some(pending);
    let lost = loop {
        tokio::select! {
            biased;
            () = broker.shutdown.cancelled() => break None,
            outcome = &mut handshake, if pending.is_some() => {
                pending = None;
                // A handshake that failed shows in `accept_bi`, with its cause.
                if outcome.is_err() {
                    if let Some(suppressed) = broker.noise.permit() {
                        tracing::warn!(suppressed, "a handshake took too long");
                    }
                    connection.close(close_code::PROTOCOL_ERROR, b"the handshake took too long");
                } else if connection.close_reason().is_none() {
                    context.establish(&broker);
                    tracing::debug!("connected");
                }
            }
            Some(ended) = streams.join_next(), if !streams.is_empty() => report(ended),
            opened = connection.accept_bi() => match opened {
                Ok((send, receive)) => {
                    streams.spawn(tracing::Instrument::in_current_span(stream::serve(
                        Arc::clone(&broker),
                        Arc::clone(&context),
                        send,
                        receive,
                    )));
                }
                Err(error) => break Some(error),
            },
        }
    };
    match lost {
        Some(error) => report_lost(&broker, &error, context.is_established()),
        None => drain(&connection, &mut streams).await,
    }
    // Every call on the connection fails now, so the tasks end. What the engine was given goes on there.
    while let Some(ended) = streams.join_next().await {
        report(ended);
    }
}

/// Lets the streams end by themselves, then says goodbye. A stream's task ends when its answers have been acknowledged, so that
/// closing does not take them back.
async fn drain(connection: &Connection, streams: &mut JoinSet<()>) {
    let ended = async {
        while let Some(ended) = streams.join_next().await {
            report(ended);
        }
    };
    if timeout(DRAIN_DURATION_MAX, ended).await.is_err() {
        tracing::warn!(remote = %connection.remote_address(), streams = streams.len(), "streams did not end in {DRAIN_DURATION_MAX:?} and are cut off");
    }
    connection.close(close_code::SHUTTING_DOWN, b"shutting down");
    let noticed = async { while streams.join_next().await.is_some() {} };
    if timeout(ABORT_DURATION_MAX, noticed).await.is_err() {
        streams.abort_all();
    }
}

/// A panic is a mistake of ours: its stream is gone, the broker goes on, and the log must say it.
fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "the task of a stream panicked");
    }
}

fn report_lost(broker: &Broker, error: &ConnectionError, was_established: bool) {
    match error {
        ConnectionError::ApplicationClosed(_) | ConnectionError::ConnectionClosed(_) if was_established => {
            tracing::debug!(%error, "the client closed the connection");
        }
        ConnectionError::LocallyClosed => tracing::debug!("the connection is closed from this side"),
        ConnectionError::Reset if was_established => tracing::debug!("the client has forgotten the connection"),
        ConnectionError::TimedOut if was_established => tracing::debug!("the client was not heard any more"),
        error => {
            if let Some(suppressed) = broker.noise.permit() {
                let what = if was_established { "a connection broke" } else { "a handshake failed" };
                tracing::warn!(error = error as &dyn std::error::Error, suppressed, "{what}");
            }
        }
    }
}

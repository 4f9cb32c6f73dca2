//! One stream: its first frame says what the client wants, then the handler for it takes over.
//!
//! A stream is one task, with a second one for the answers of a produce stream. The task ends when the client's side of the
//! connection has acknowledged every byte of the answer, so that closing the connection after all tasks loses nothing.

mod consume;
mod control;
mod deploy;
mod produce;
mod request;

use crate::{
    QuicLimits,
    budget::{INITIAL_WINDOW_BYTES, TransitBudget, TransitShare},
    close_code, frames,
    frames::FrameReader,
    noise::NoiseLimit,
    window::ReceiveWindow,
};
use millpond_engine::Engine;
use millpond_protocol::{
    error::{ErrorCode, WireError},
    message::Request,
};
use quinn::{Connection, RecvStream, SendStream, VarInt};
use request::RequestError;
use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicUsize, Ordering},
};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// Uploads that may be in memory at a time, on all connections. Further ones wait for their turn.
const UPLOADS_MAX: usize = 2;

/// What all streams of the broker share.
pub(crate) struct Broker {
    pub(crate) engine: Arc<Engine>,
    pub(crate) limits: QuicLimits,
    /// Cancelled when the broker stops.
    pub(crate) shutdown: CancellationToken,
    /// Lines about what strangers do.
    pub(crate) noise: NoiseLimit,
    /// Memory that connections share.
    pub(crate) budget: Arc<TransitBudget>,
    uploads: Semaphore,
}

impl Broker {
    pub(crate) fn new(engine: Arc<Engine>, limits: QuicLimits, shutdown: CancellationToken) -> Broker {
        let budget = TransitBudget::new(limits.transit_bytes_max);
        Broker { engine, limits, shutdown, noise: NoiseLimit::default(), budget, uploads: Semaphore::new(UPLOADS_MAX) }
    }
}

/// What the streams of one connection share.
pub(crate) struct ConnectionContext {
    pub(crate) connection: Connection,
    /// Cancelled when the handshake is complete, from when on nothing can be a recording.
    established: CancellationToken,
    /// What the connection may hold, once its handshake is complete.
    share: OnceLock<TransitShare>,
    /// What the client may have sent that is not read yet.
    window: ReceiveWindow,
    /// Consume streams that are open.
    consumers: AtomicUsize,
}

impl ConnectionContext {
    pub(crate) fn new(broker: &Broker, connection: Connection) -> ConnectionContext {
        let window = ReceiveWindow::new(connection.clone(), broker.budget.room());
        ConnectionContext {
            connection,
            established: CancellationToken::new(),
            share: OnceLock::new(),
            window,
            consumers: AtomicUsize::new(0),
        }
    }

    /// The client has shown that it is there: it is given its share of the memory, and what waited for it goes on.
    pub(crate) fn establish(&self, broker: &Broker) {
        let share = self.share.get_or_init(|| broker.budget.take());
        self.window.set_share(share.receive_bytes());
        self.connection.set_send_window(share.send_bytes());
        self.established.cancel();
    }

    pub(crate) fn is_established(&self) -> bool {
        self.established.is_cancelled()
    }

    /// What each consume stream may hold of bytes that QUIC has not taken yet.
    fn push_bytes(&self) -> u64 {
        let consumers = self.consumers.load(Ordering::Relaxed).max(1);
        self.share.get().map_or(INITIAL_WINDOW_BYTES, TransitShare::push_bytes) / consumers as u64
    }

    /// Counts a consume stream until the guard is dropped.
    fn count_consumer(&self) -> ConsumerGuard<'_> {
        self.consumers.fetch_add(1, Ordering::Relaxed);
        ConsumerGuard(self)
    }
}

struct ConsumerGuard<'a>(&'a ConnectionContext);

impl Drop for ConsumerGuard<'_> {
    fn drop(&mut self) {
        self.0.consumers.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Serves one stream to its end.
pub(crate) async fn serve(broker: Arc<Broker>, context: Arc<ConnectionContext>, mut send: SendStream, receive: RecvStream) {
    let mut reader = FrameReader::new(receive, broker.limits.stall_timeout);
    match read_request(&broker, &context, &mut reader).await {
        Ok(request) => match dispatch(&broker, &context, send, reader, request).await {
            Some(used) => send = used,
            None => return,
        },
        Err(RequestError::Refused(error)) => refuse(&broker, &mut send, &mut reader, error).await,
        Err(RequestError::ShuttingDown) => {
            reader.stop(close_code::SHUTTING_DOWN);
            let _ = frames::send_answer(&mut send, &Err(shutting_down())).await;
        }
        Err(RequestError::Gone(error)) => tracing::debug!(%error, "a stream ended before its request"),
    }
    frames::finish(&mut send);
    // An error is the client's word that it does not want the rest, or the end of the connection.
    let _ = send.stopped().await;
}

/// The request, once it may be acted on.
async fn read_request(broker: &Broker, context: &ConnectionContext, reader: &mut FrameReader) -> Result<Request, RequestError> {
    let request = async {
        let request = request::read(reader, &broker.engine, &context.window).await?;
        if reader.is_early() && !request.is_idempotent() {
            // What may be a recording is done only once the client has shown that it is there. If it does not, the connection ends.
            context.established.cancelled().await;
        }
        Ok(request)
    };
    tokio::select! {
        biased;
        // A request that has come whole is answered, even now.
        outcome = request => outcome,
        () = broker.shutdown.cancelled() => Err(RequestError::ShuttingDown),
        error = context.connection.closed() => Err(RequestError::Gone(error.into())),
    }
}

/// Lets the handler for the request do its work. Gives the stream back if there is an acknowledgement to wait for.
async fn dispatch(
    broker: &Broker,
    context: &ConnectionContext,
    mut send: SendStream,
    reader: FrameReader,
    request: Request,
) -> Option<SendStream> {
    match request {
        Request::OpenProduce(open) => return Some(produce::serve(broker, context, send, reader, &open).await),
        Request::OpenConsume(open) => return consume::serve(broker, context, send, reader, &open).await,
        Request::DeployModule(deploy) => deploy::serve(broker, context, &mut send, reader, deploy).await,
        simple => return control::serve(broker, send, reader, simple).await,
    }
    Some(send)
}

fn shutting_down() -> WireError {
    WireError::new(ErrorCode::ShuttingDown, "the broker is stopping").with_hint("try again in a moment")
}

/// Answers what is not a request, and says so in the log.
async fn refuse(broker: &Broker, send: &mut SendStream, reader: &mut FrameReader, error: WireError) {
    if let Some(suppressed) = broker.noise.permit() {
        tracing::warn!(code = %error.code, %error, suppressed, "not a request");
    }
    reader.stop(stop_code(&error));
    let _ = frames::send_answer(send, &Err(error)).await;
}

/// The code with which a stream is stopped whose client is told this error.
fn stop_code(error: &WireError) -> VarInt {
    match error.code {
        ErrorCode::Overloaded => close_code::OVERLOADED,
        ErrorCode::ShuttingDown => close_code::SHUTTING_DOWN,
        _ => close_code::PROTOCOL_ERROR,
    }
}

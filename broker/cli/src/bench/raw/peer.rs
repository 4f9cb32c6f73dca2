//! The side that is measured: `millpond bench --raw-peer`, which nobody types.

use super::{Kind, PEER_NAME, PIECE_BYTES, PING_BYTES, PONG_BYTES, PREFACE_BYTES, count, endpoint, parse_preface, raw, transport};
use crate::bench::{BenchError, payload::Values};
use quinn::{Connection, Endpoint, RecvStream, SendStream, ServerConfig};
use rustls::pki_types::PrivateKeyDer;
use std::{
    fmt::Write as _,
    io::{self, Write as _},
    sync::Arc,
};

/// What the line with the address starts with.
const LINE_START: &str = "raw peer ";

/// Prints `raw peer ADDRESS CERTIFICATE` and serves until standard input closes: when the bench ends, however it ends.
pub(in crate::bench) async fn serve() -> Result<(), BenchError> {
    let (endpoint, line) = bind()?;
    writeln!(io::stdout(), "{line}").map_err(BenchError::Output)?;
    let parent_is_gone = tokio::task::spawn_blocking(|| io::copy(&mut io::stdin().lock(), &mut io::sink()));
    tokio::select! {
        // On a worker, where quinn's own tasks run: a ping takes 25 us there, and 80 us when each packet wakes another thread.
        _ = tokio::spawn(accept(endpoint)) => {}
        _ = parent_is_gone => {}
    }
    Ok(())
}

/// The address and the certificate in the peer's line, for [`super::RawClient::connect`].
pub(in crate::bench) fn find_address(line: &str) -> Option<String> {
    line.strip_prefix(LINE_START).map(str::to_owned)
}

/// A socket that is ready, and the line that says where.
pub(super) fn bind() -> Result<(Endpoint, String), BenchError> {
    let identity = rcgen::generate_simple_self_signed([PEER_NAME.to_owned()]).map_err(raw)?;
    let certificate = identity.cert.der().clone();
    let mut line = String::new();
    for byte in certificate.iter() {
        write!(line, "{byte:02x}").map_err(raw)?;
    }
    let key = PrivateKeyDer::try_from(identity.signing_key.serialize_der()).map_err(raw)?;
    let mut config = ServerConfig::with_single_cert(vec![certificate], key).map_err(raw)?;
    config.transport_config(transport()?);
    let endpoint = endpoint(Some(config))?;
    let address = endpoint.local_addr().map_err(raw)?;
    Ok((endpoint, format!("{LINE_START}{address} {line}")))
}

/// Serves one connection after the other; there is one client.
pub(super) async fn accept(endpoint: Endpoint) {
    let values = Arc::new(Values::large());
    while let Some(incoming) = endpoint.accept().await {
        if let Ok(connection) = incoming.await {
            serve_connection(connection, Arc::clone(&values)).await;
        }
    }
}

async fn serve_connection(connection: Connection, values: Arc<Values>) {
    while let Ok((send, receive)) = connection.accept_bi().await {
        // One stream after the other: the client measures one thing at a time.
        if let Err(error) = serve_stream(send, receive, &values).await {
            tracing::debug!(%error, "a raw stream ended early");
        }
    }
}

async fn serve_stream(send: SendStream, mut receive: RecvStream, values: &Values) -> Result<(), BenchError> {
    let mut bytes = [0; PREFACE_BYTES];
    receive.read_exact(&mut bytes).await.map_err(raw)?;
    match parse_preface(bytes) {
        Some((Kind::Sink, _)) => sink(send, receive).await,
        Some((Kind::Source, length)) => source(send, length, values).await,
        Some((Kind::Echo, _)) => echo(send, receive).await,
        None => Err(raw("an unknown kind of stream")),
    }
}

async fn sink(mut send: SendStream, mut receive: RecvStream) -> Result<(), BenchError> {
    let counted = count(&mut receive).await?;
    send.write_all(&counted.to_be_bytes()).await.map_err(raw)?;
    send.finish().map_err(raw)
}

async fn source(mut send: SendStream, length: u64, values: &Values) -> Result<(), BenchError> {
    let mut left = length;
    let mut pieces = 0;
    while left > 0 {
        let mut piece = values.piece(pieces, PIECE_BYTES);
        piece.truncate(usize::try_from(left).unwrap_or(PIECE_BYTES));
        left -= piece.len() as u64;
        pieces += 1;
        send.write_chunk(piece).await.map_err(raw)?;
    }
    send.finish().map_err(raw)
}

async fn echo(mut send: SendStream, mut receive: RecvStream) -> Result<(), BenchError> {
    let mut request = [0; PING_BYTES];
    // The client ends the stream behind a whole request.
    while receive.read_exact(&mut request).await.is_ok() {
        send.write_all(&request[..PONG_BYTES]).await.map_err(raw)?;
    }
    send.finish().map_err(raw)
}

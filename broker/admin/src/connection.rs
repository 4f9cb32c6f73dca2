//! One connection: its request, its answer, its end.

use crate::{
    AdminLimits,
    request::{self, BadHead, Head},
    response::{Answer, Code},
    routes::Routes,
};
use std::{io, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// Serves one request, if one comes.
pub(crate) async fn serve(mut stream: TcpStream, limits: &AdminLimits, routes: &Routes) -> io::Result<()> {
    // An answer is written in few and large pieces.
    stream.set_nodelay(true)?;
    let head = match timeout(limits.head_timeout, read_head(&mut stream, limits.head_bytes_max)).await {
        Ok(Ok(Some(head))) => Ok(head),
        Ok(Ok(None)) => return Ok(()),
        Ok(Err(Unread::Io(error))) => return Err(error),
        Ok(Err(Unread::Bad(bad))) => Err(refusal(bad)),
        Err(_) => Err(Answer::text(Code::RequestTimeout, "the request took too long to arrive")),
    };
    let responding = async {
        match &head {
            Ok(head) => routes.respond(head, &mut stream).await?,
            Err(answer) => answer.write(&mut stream, true).await?,
        }
        stream.shutdown().await
    };
    timeout(limits.response_timeout, responding).await??;
    let _ = timeout(LINGER_TIMEOUT, discard_rest(&mut stream)).await;
    Ok(())
}

enum Unread {
    Io(io::Error),
    Bad(BadHead),
}

/// None if the peer closes before it has sent a whole head.
async fn read_head(stream: &mut TcpStream, bytes_max: usize) -> Result<Option<Head>, Unread> {
    let mut bytes = vec![0; bytes_max];
    let mut filled = 0;
    loop {
        if let Some(head) = request::parse(&bytes[..filled]).map_err(Unread::Bad)? {
            return Ok(Some(head));
        }
        if filled == bytes.len() {
            return Err(Unread::Bad(BadHead::TooLarge));
        }
        match stream.read(&mut bytes[filled..]).await.map_err(Unread::Io)? {
            0 => return Ok(None),
            count => filled += count,
        }
    }
}

fn refusal(bad: BadHead) -> Answer {
    match bad {
        BadHead::TooLarge => Answer::text(Code::HeadTooLarge, "the head of the request is too large"),
        BadHead::Malformed(reason) => Answer::text(Code::BadRequest, format!("this is not an HTTP request: {reason}")),
    }
}

/// Takes what the peer still sends: closing a socket with unread bytes resets the connection, and the peer may lose the answer
/// (RFC 9112, section 9.6).
async fn discard_rest(stream: &mut TcpStream) {
    let mut rest = stream.take(LINGER_BYTES_MAX);
    let _ = tokio::io::copy(&mut rest, &mut tokio::io::sink()).await;
}

/// What is taken of a peer that goes on sending after its answer.
const LINGER_BYTES_MAX: u64 = 64 << 10;

/// How long a peer has to close after its answer.
const LINGER_TIMEOUT: Duration = Duration::from_secs(1);

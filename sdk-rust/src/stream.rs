//! Frames on QUIC streams.

use crate::{
    connection::{Link, close_reason, lost},
    error::Error,
    spare::User,
};
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::FutureExt;
use millpond_protocol::{
    error::WireError,
    frame::{FrameHeader, HEADER_BYTES, Kind, RESPONSE_PAYLOAD_BYTES_MAX},
    message::{self, Request, Response},
};
use quinn::{ReadError, RecvStream, SendStream, WriteError};
use std::{
    pin::pin,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};
use tokio::{io::AsyncReadExt, sync::Notify, time::timeout};

/// The limit for an answer to a request as frames count it.
#[expect(clippy::cast_possible_truncation, reason = "16 MiB fit")]
const RESPONSE_BYTES_MAX: u32 = RESPONSE_PAYLOAD_BYTES_MAX as u32;

/// One whole frame.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) kind: Kind,
    pub(crate) payload: Bytes,
}

/// Puts frames together. The payload is copied once, from the packets into one buffer.
#[derive(Debug)]
pub(crate) struct FrameReader {
    stream: RecvStream,
    /// The header's bytes so far, or none.
    header: BytesMut,
    /// The frame whose payload is being read.
    open: Option<OpenFrame>,
    /// Where buffers come from, for a reader that has many large frames before it.
    spare: Option<User>,
}

#[derive(Debug)]
struct OpenFrame {
    kind: Kind,
    payload: BytesMut,
    length: usize,
}

impl FrameReader {
    pub(crate) fn new(stream: RecvStream) -> FrameReader {
        FrameReader { stream, header: BytesMut::with_capacity(HEADER_BYTES), open: None, spare: None }
    }

    /// Whether buffers that nobody has any more are read into again.
    pub(crate) fn reuse(&mut self, spare: Option<User>) {
        self.spare = spare;
    }

    /// The next frame; none when the broker ended the stream between two frames. A payload over `limit_bytes` is refused before it
    /// is allocated. Cancel-safe: what was read so far is kept.
    pub(crate) async fn next(&mut self, limit_bytes: u32) -> Result<Option<Frame>, Error> {
        loop {
            if let Some(open) = &mut self.open {
                if !fill(&mut self.stream, &mut open.payload, open.length).await? {
                    return Err(Error::Protocol("a stream ended in the middle of a frame".to_owned()));
                }
            } else {
                if !fill(&mut self.stream, &mut self.header, HEADER_BYTES).await? {
                    return if self.header.is_empty() {
                        Ok(None)
                    } else {
                        Err(Error::Protocol("a stream ended in the middle of a frame's header".to_owned()))
                    };
                }
                let mut bytes = [0; HEADER_BYTES];
                bytes.copy_from_slice(&self.header);
                self.header.clear();
                let header = FrameHeader::decode(bytes, limit_bytes).map_err(|error| Error::Protocol(error.to_string()))?;
                let length = header.length as usize;
                let payload = self.spare.as_ref().map_or_else(|| BytesMut::with_capacity(length), |spare| spare.take(length));
                self.open = Some(OpenFrame { kind: header.kind, payload, length });
                continue;
            }
            if let Some(OpenFrame { kind, payload, .. }) = self.open.take() {
                let payload = match &self.spare {
                    Some(spare) => spare.lend(payload),
                    None => payload.freeze(),
                };
                return Ok(Some(Frame { kind, payload }));
            }
        }
    }

    /// The answer to a request.
    pub(crate) async fn response(&mut self) -> Result<Response, Error> {
        match self.next(RESPONSE_BYTES_MAX).await? {
            Some(Frame { kind: Kind::Response, payload }) => {
                message::decode(&payload).map_err(|error| Error::Protocol(format!("a response is {error}")))
            }
            Some(Frame { kind: Kind::Error, payload }) => Err(wire_error(&payload)),
            Some(Frame { kind, .. }) => Err(Error::Protocol(format!("a frame of kind {kind:?} in place of a response"))),
            None => Err(ended()),
        }
    }
}

/// Reads until `buffer` has `length` bytes; false if the stream ends before. Cancel-safe, as each read is.
async fn fill(stream: &mut RecvStream, buffer: &mut BytesMut, length: usize) -> Result<bool, Error> {
    while buffer.len() < length {
        let missing = length - buffer.len();
        let read = stream.read_buf(&mut buffer.limit(missing)).await.map_err(|error| read_failed(&error))?;
        if read == 0 {
            return Ok(false);
        }
    }
    Ok(true)
}

/// `read_buf` speaks in `io::Error`; quinn's own error is inside.
fn read_failed(error: &std::io::Error) -> Error {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<ReadError>()) {
        Some(ReadError::ConnectionLost(error)) => lost(error.clone()),
        Some(ReadError::Reset(code)) => {
            Error::ConnectionLost { reason: format!("the broker reset a stream: {}", close_reason(*code)), cause: None }
        }
        _ => Error::ConnectionLost { reason: error.to_string(), cause: None },
    }
}

pub(crate) fn write_failed(error: WriteError) -> Error {
    match error {
        WriteError::ConnectionLost(error) => lost(error),
        WriteError::Stopped(code) => {
            Error::ConnectionLost { reason: format!("the broker stopped a stream: {}", close_reason(code)), cause: None }
        }
        other => Error::ConnectionLost { reason: other.to_string(), cause: None },
    }
}

/// The error for a stream that the broker ended where more was to come.
pub(crate) fn ended() -> Error {
    Error::ConnectionLost { reason: "the broker ended a stream".to_owned(), cause: None }
}

/// What an error frame says.
pub(crate) fn wire_error(payload: &[u8]) -> Error {
    match message::decode::<WireError>(payload) {
        Ok(error) => Error::Broker(error),
        Err(error) => Error::Protocol(format!("an error is {error}")),
    }
}

/// A frame's header and payload, to be written without copying the payload.
pub(crate) fn frame(kind: Kind, payload: Bytes) -> [Bytes; 2] {
    // Whoever makes payloads keeps them far below 4 GiB: batches have limits of their own, control messages are small.
    let length = u32::try_from(payload.len()).unwrap_or_else(|_| unreachable!("a frame of {} bytes", payload.len()));
    [Bytes::copy_from_slice(&FrameHeader { kind, length }.encode()), payload]
}

pub(crate) async fn write_frame(stream: &mut SendStream, kind: Kind, payload: Bytes) -> Result<(), WriteError> {
    stream.write_all_chunks(&mut frame(kind, payload)).await
}

/// How long a stream may have to wait for another one to end.
const STREAM_WAIT_MAX: Duration = Duration::from_secs(10);

/// Opens a stream and sends the request on it. After an error nothing has reached the broker.
pub(crate) async fn request(link: &Link, connection: &quinn::Connection, request: &Request) -> Result<(SendStream, FrameReader), Error> {
    let (mut send, receive) = open(&link.streams, connection).await?;
    let payload = Bytes::from(message::encode(request));
    write_frame(&mut send, Kind::Request, payload).await.map_err(write_failed)?;
    Ok((send, FrameReader::new(receive)))
}

/// Opens a stream as soon as the broker allows one more.
async fn open(demand: &StreamDemand, connection: &quinn::Connection) -> Result<(SendStream, RecvStream), Error> {
    let mut opening = pin!(connection.open_bi());
    let opened = if let Some(opened) = opening.as_mut().now_or_never() {
        opened
    } else {
        let _waiting = demand.wait();
        timeout(STREAM_WAIT_MAX, opening).await.map_err(|_| Error::TooManyStreams { after: STREAM_WAIT_MAX })?
    };
    opened.map_err(lost)
}

/// Who waits for a stream because the broker allows no more of them at a time. Lanes with nothing to do give theirs up for them: all
/// at once, because QUIC allows more only after a good part of the streams has ended (in quinn an eighth).
#[derive(Debug, Default)]
pub(crate) struct StreamDemand {
    waiting: AtomicUsize,
    begun: Notify,
}

impl StreamDemand {
    /// Counts one that waits until what this returns is dropped.
    pub(crate) fn wait(&self) -> Waiting<'_> {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        self.begun.notify_waiters();
        Waiting(self)
    }

    /// Ends at once if anybody waits, else as soon as somebody does.
    pub(crate) async fn wanted(&self) {
        // Made before the look at the counter, so that nobody who begins in between is missed.
        let begun = self.begun.notified();
        if self.waiting.load(Ordering::SeqCst) == 0 {
            begun.await;
        }
    }
}

/// One that waits.
pub(crate) struct Waiting<'a>(&'a StreamDemand);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_wanted_from_when_somebody_waits_until_nobody_does() {
        let demand = StreamDemand::default();
        let mut early = pin!(demand.wanted());
        assert!(early.as_mut().now_or_never().is_none());
        let waiting = demand.wait();
        assert!(early.now_or_never().is_some() && demand.wanted().now_or_never().is_some());
        drop(waiting);
        assert!(demand.wanted().now_or_never().is_none());
    }
}

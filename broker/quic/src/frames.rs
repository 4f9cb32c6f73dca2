//! Frames from a stream, with a limit on their length and on the patience with whoever sends them; frames to a stream.
//!
//! Waiting for the first byte of a frame has no limit: a producer may be quiet for hours. Once a frame has begun, its sender must go
//! on. In each [`crate::QuicLimits::stall_timeout`] it must bring [`PROGRESS_BYTES_MIN`] and one part in [`STALL_TIMEOUTS_MAX`] of
//! the frame, or its end, so that neither a client that stops nor one that trickles can hold on to the memory that was granted.

use bytes::{BufMut, Bytes, BytesMut};
use millpond_protocol::{
    error::{ErrorCode, WireError},
    frame::{FrameError, FrameHeader, HEADER_BYTES, Kind, RESPONSE_PAYLOAD_BYTES_MAX},
    message::{self, Response},
};
use quinn::{ConnectionError, ReadError, RecvStream, SendStream, VarInt, WriteError};
use std::{io, pin::Pin, time::Duration};
use thiserror::Error;
use tokio::{
    io::AsyncReadExt,
    time::{Instant, Sleep},
};

/// What a sender must bring in each stall timeout while a frame lasts: some 4 KB/s with the default, less than the slowest link that
/// QUIC itself works on.
const PROGRESS_BYTES_MIN: usize = 64 << 10;

/// How many stall timeouts the largest frame may take: a frame that holds more memory must come faster.
const STALL_TIMEOUTS_MAX: usize = 16;

/// Why a frame could not be read.
#[derive(Debug, Error)]
pub(crate) enum ReadFrameError {
    /// The stream ended inside a frame.
    #[error("the stream ended {missing} bytes before the end of a frame")]
    Truncated {
        /// Bytes that did not come.
        missing: usize,
    },
    /// The header was refused.
    #[error(transparent)]
    Header(#[from] FrameError),
    /// The sender stopped, or trickled, in the middle of a frame.
    #[error("the rest of a frame did not come: less than {expected_bytes} bytes in {timeout:?}")]
    Stalled {
        /// Bytes that should have come.
        expected_bytes: usize,
        /// The stall timeout.
        timeout: Duration,
    },
    /// The client gave the stream up.
    #[error("the client reset the stream with code {0}")]
    Reset(VarInt),
    /// The connection is gone.
    #[error("the connection is gone")]
    Lost(#[from] ConnectionError),
    /// The stream was used after its end: a mistake of ours.
    #[error("the stream can't be read")]
    Unusable(#[source] io::Error),
}

impl ReadFrameError {
    /// What to tell the client, if there still is one that listens.
    pub(crate) fn to_wire(&self) -> Option<WireError> {
        let code = match self {
            ReadFrameError::Header(FrameError::TooLarge { .. }) => ErrorCode::FrameTooLarge,
            ReadFrameError::Header(FrameError::UnknownKind(_)) | ReadFrameError::Truncated { .. } => ErrorCode::InvalidRequest,
            ReadFrameError::Stalled { .. } => ErrorCode::TimedOut,
            ReadFrameError::Reset(_) | ReadFrameError::Lost(_) | ReadFrameError::Unusable(_) => return None,
        };
        Some(WireError::new(code, self.to_string()))
    }
}

/// The receiving half of a stream, as frames.
pub(crate) struct FrameReader {
    stream: RecvStream,
    stall: Stall,
}

impl FrameReader {
    pub(crate) fn new(stream: RecvStream, stall_timeout: Duration) -> FrameReader {
        FrameReader { stream, stall: Stall::new(stall_timeout) }
    }

    /// The next header, however long it takes to begin; `None` if the client has finished the stream.
    ///
    /// Dropping the future may lose bytes of the header.
    pub(crate) async fn header(&mut self, limit_bytes: usize) -> Result<Option<FrameHeader>, ReadFrameError> {
        let mut bytes = [0; HEADER_BYTES];
        let filled = match self.stream.read(&mut bytes).await {
            Ok(Some(filled)) => filled,
            Ok(None) => return Ok(None),
            Err(error) => return Err(read_failed(error)),
        };
        self.stall.begin(HEADER_BYTES);
        self.rest_of_header(bytes, filled, limit_bytes).await.map(Some)
    }

    /// As [`FrameReader::header`], but for a frame that should be under way.
    pub(crate) async fn expected_header(&mut self, limit_bytes: usize) -> Result<FrameHeader, ReadFrameError> {
        self.stall.begin(HEADER_BYTES);
        self.rest_of_header([0; HEADER_BYTES], 0, limit_bytes).await
    }

    /// The payload behind a header. The caller has held `length` against a limit: it is allocated at once.
    pub(crate) async fn payload(&mut self, length: usize) -> Result<Bytes, ReadFrameError> {
        let mut payload = BytesMut::with_capacity(length);
        self.payload_into(&mut payload, length).await?;
        Ok(payload.freeze())
    }

    /// Appends the payload behind a header to `payload`, which has room for it.
    pub(crate) async fn payload_into(&mut self, payload: &mut BytesMut, length: usize) -> Result<(), ReadFrameError> {
        let end = payload.len() + length;
        // The wait for memory between header and payload is not the sender's.
        self.stall.begin(length);
        while payload.len() < end {
            let missing = end - payload.len();
            let mut room = (&mut *payload).limit(missing);
            // Copies what has come straight behind the bytes that are there, without filling the buffer with zeros first.
            let read = self.stall.guard(self.stream.read_buf(&mut room)).await?.map_err(io_failed)?;
            if read == 0 {
                return Err(ReadFrameError::Truncated { missing });
            }
            self.stall.progress(read);
        }
        Ok(())
    }

    /// Tells the client that nothing more will be read.
    pub(crate) fn stop(&mut self, code: VarInt) {
        // It fails when the stream has ended already, which is as good.
        let _ = self.stream.stop(code);
    }

    /// Whether the stream was opened in early data, which an attacker may have recorded and be sending again.
    pub(crate) fn is_early(&self) -> bool {
        self.stream.is_0rtt()
    }

    async fn rest_of_header(
        &mut self,
        mut bytes: [u8; HEADER_BYTES],
        mut filled: usize,
        limit_bytes: usize,
    ) -> Result<FrameHeader, ReadFrameError> {
        while filled < HEADER_BYTES {
            match self.stall.guard(self.stream.read(&mut bytes[filled..])).await?.map_err(read_failed)? {
                Some(read) => filled += read,
                None => return Err(ReadFrameError::Truncated { missing: HEADER_BYTES - filled }),
            }
        }
        // A limit of 4 GiB or more is none: a header can't announce more.
        Ok(FrameHeader::decode(bytes, u32::try_from(limit_bytes).unwrap_or(u32::MAX))?)
    }
}

/// A watch on progress that costs one timer for each timeout that passes, however many reads there are.
struct Stall {
    timeout: Duration,
    sleep: Pin<Box<Sleep>>,
    /// Bytes that must come before the timer fires again.
    expected_bytes: usize,
    /// Bytes that have come since the timer was set.
    progress_bytes: usize,
}

impl Stall {
    fn new(timeout: Duration) -> Stall {
        Stall { timeout, sleep: Box::pin(tokio::time::sleep(timeout)), expected_bytes: 0, progress_bytes: 0 }
    }

    /// So many bytes are awaited from now on. The timer may have run out while nothing was: the first time that it fires does not
    /// count.
    fn begin(&mut self, bytes: usize) {
        self.expected_bytes = PROGRESS_BYTES_MIN.max(bytes / STALL_TIMEOUTS_MAX);
        self.progress_bytes = self.expected_bytes;
    }

    fn progress(&mut self, bytes: usize) {
        self.progress_bytes = self.progress_bytes.saturating_add(bytes);
    }

    /// Waits for `read`, but not on somebody who brings too little.
    async fn guard<T>(&mut self, read: impl Future<Output = T>) -> Result<T, ReadFrameError> {
        let mut read = std::pin::pin!(read);
        loop {
            tokio::select! {
                biased;
                outcome = &mut read => return Ok(outcome),
                () = &mut self.sleep => {
                    if self.progress_bytes < self.expected_bytes {
                        return Err(ReadFrameError::Stalled { expected_bytes: self.expected_bytes, timeout: self.timeout });
                    }
                    self.progress_bytes = 0;
                    self.sleep.as_mut().reset(Instant::now() + self.timeout);
                }
            }
        }
    }
}

/// A frame as bytes. The payload is one of ours and far below 4 GiB.
pub(crate) fn frame(kind: Kind, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES + payload.len());
    put_frame(&mut bytes, kind, payload);
    bytes
}

/// Appends a frame.
pub(crate) fn put_frame(out: &mut Vec<u8>, kind: Kind, payload: &[u8]) {
    let length = u32::try_from(payload.len()).unwrap_or_else(|_| unreachable!("a frame of ours is below 4 GiB"));
    out.extend_from_slice(&FrameHeader { kind, length }.encode());
    out.extend_from_slice(payload);
}

/// Sends the one answer to a request, and nothing behind it.
pub(crate) async fn send_answer(stream: &mut SendStream, answer: &Result<Response, WireError>) -> Result<(), WriteError> {
    send_response(stream, answer).await?;
    finish(stream);
    Ok(())
}

/// Sends the answer to a request; more may follow.
pub(crate) async fn send_response(stream: &mut SendStream, answer: &Result<Response, WireError>) -> Result<(), WriteError> {
    stream.write_chunk(answer_frame(answer).into()).await
}

/// The answer to a request as a frame.
pub(crate) fn answer_frame(answer: &Result<Response, WireError>) -> Vec<u8> {
    match answer {
        Ok(response) => {
            let payload = message::encode(response);
            if payload.len() <= RESPONSE_PAYLOAD_BYTES_MAX {
                frame(Kind::Response, &payload)
            } else {
                error_frame(&answer_too_large(payload.len()))
            }
        }
        Err(error) => error_frame(error),
    }
}

/// An error as a frame.
pub(crate) fn error_frame(error: &WireError) -> Vec<u8> {
    frame(Kind::Error, &message::encode(error))
}

/// Says that nothing will follow.
pub(crate) fn finish(stream: &mut SendStream) {
    // It fails when the client has stopped the stream, which is as good.
    let _ = stream.finish();
}

fn answer_too_large(bytes: usize) -> WireError {
    WireError::new(
        ErrorCode::FrameTooLarge,
        format!("the answer takes {bytes} bytes, more than the {RESPONSE_PAYLOAD_BYTES_MAX} that an answer may have"),
    )
    .with_hint("ask for one topic at a time")
}

fn read_failed(error: ReadError) -> ReadFrameError {
    match error {
        ReadError::Reset(code) => ReadFrameError::Reset(code),
        ReadError::ConnectionLost(error) => ReadFrameError::Lost(error),
        other => ReadFrameError::Unusable(io::Error::other(other)),
    }
}

fn io_failed(error: io::Error) -> ReadFrameError {
    match error.downcast::<ReadError>() {
        Ok(error) => read_failed(error),
        Err(error) => ReadFrameError::Unusable(error),
    }
}

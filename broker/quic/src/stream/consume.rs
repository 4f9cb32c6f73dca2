//! A consume stream: batches are pushed as they become visible.
//!
//! The next read from the log runs beside the write to the network. QUIC's flow control is the backpressure: a client that pauses is
//! legitimate and may take as long as its connection lives. Meanwhile its stream holds one push that waits to be written and one
//! that was read ahead, each of the size that [`push_bytes`] allows.

use super::{Broker, ConnectionContext};
use crate::{
    close_code,
    frames::{self, FrameReader},
};
use bytes::Bytes;
use millpond_engine::{ConsumeStream, EngineError};
use millpond_protocol::{
    frame::{FrameHeader, HEADER_BYTES, Kind},
    message::{OpenConsume, Response, Watermarks},
};
use quinn::{SendStream, WriteError};
use std::{pin::pin, time::Duration};

/// However many streams share a connection's memory, a push may have this many bytes.
const PUSH_BYTES_MIN: usize = 16 << 10;

/// Pushes that a stream holds at a time: one being written, one read ahead.
const PUSHES_PER_STREAM: usize = 2;

/// How long a client that reads nothing is waited for when the broker stops. It loses nothing: the log keeps what it has not read.
const FAREWELL_DURATION_MAX: Duration = Duration::from_secs(1);

/// What comes after a push.
enum Next {
    Push(Watermarks, Bytes),
    Failed(EngineError),
    ShuttingDown,
}

/// Serves the stream until the client stops it, the partition fails, or the broker stops. Gives it back unless it was cut off.
pub(super) async fn serve(
    broker: &Broker,
    context: &ConnectionContext,
    mut send: SendStream,
    mut reader: FrameReader,
    open: &OpenConsume,
) -> Option<SendStream> {
    // The client has said all that it may say.
    reader.stop(close_code::DONE);
    let (stream, opened) = match broker.engine.open_consume(open).await {
        Ok(opened) => opened,
        Err(error) => {
            let _ = frames::send_answer(&mut send, &Err(error.to_wire())).await;
            return Some(send);
        }
    };
    let _counted = context.count_consumer();
    let stopped = send.stopped();
    let overstayed = async {
        broker.shutdown.cancelled().await;
        tokio::time::sleep(FAREWELL_DURATION_MAX).await;
    };
    tokio::select! {
        biased;
        _ = stopped => tracing::debug!(topic = open.topic, partition = open.partition, "the client stopped consuming"),
        outcome = push_all(broker, context, &mut send, stream, Response::ConsumeOpened(opened)) => {
            if let Err(error) = outcome {
                tracing::debug!(topic = open.topic, partition = open.partition, %error, "a consume stream ended");
            }
        }
        () = overstayed => {
            // A frame may be cut in the middle, so the stream must not look finished.
            let _ = send.reset(close_code::SHUTTING_DOWN);
            return None;
        }
    }
    Some(send)
}

async fn push_all(
    broker: &Broker,
    context: &ConnectionContext,
    send: &mut SendStream,
    mut stream: ConsumeStream,
    opened: Response,
) -> Result<(), WriteError> {
    frames::send_response(send, &Ok(opened)).await?;
    let mut next = read_next(broker, context, &mut stream).await;
    loop {
        match next {
            Next::Push(watermarks, batches) => {
                // A write fails together with `stopped` in `serve`, which then drops the read as well.
                let (written, following) = tokio::join!(write_push(send, watermarks, batches), read_next(broker, context, &mut stream));
                written?;
                next = following;
            }
            Next::Failed(error) => {
                let error = error.to_wire();
                tracing::debug!(code = %error.code, %error, "a consume stream failed");
                return send.write_chunk(frames::error_frame(&error).into()).await;
            }
            Next::ShuttingDown => return Ok(()),
        }
    }
}

async fn read_next(broker: &Broker, context: &ConnectionContext, stream: &mut ConsumeStream) -> Next {
    let max_bytes = push_bytes(broker, context);
    let next = pin!(stream.next(max_bytes));
    tokio::select! {
        biased;
        () = broker.shutdown.cancelled() => Next::ShuttingDown,
        next = next => match next {
            Ok((watermarks, batches)) => Next::Push(watermarks, batches),
            Err(error) => Next::Failed(error),
        },
    }
}

/// How many bytes the next push may have: this stream's part of what its connection may hold, for each of the pushes it holds.
fn push_bytes(broker: &Broker, context: &ConnectionContext) -> usize {
    let share_bytes = usize::try_from(context.push_bytes()).unwrap_or(usize::MAX);
    (share_bytes / PUSHES_PER_STREAM).max(PUSH_BYTES_MIN).min(broker.limits.push_bytes_max)
}

/// One `Batches` frame. The batches go to QUIC as they came from the log, without a copy.
async fn write_push(send: &mut SendStream, watermarks: Watermarks, batches: Bytes) -> Result<(), WriteError> {
    let length = u32::try_from(Watermarks::BYTES + batches.len()).unwrap_or_else(|_| unreachable!("a push is far below 4 GiB"));
    let mut front = [0; HEADER_BYTES + Watermarks::BYTES];
    front[..HEADER_BYTES].copy_from_slice(&FrameHeader { kind: Kind::Batches, length }.encode());
    front[HEADER_BYTES..].copy_from_slice(&watermarks.encode());
    send.write_all_chunks(&mut [Bytes::copy_from_slice(&front), batches]).await
}

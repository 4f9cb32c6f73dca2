//! A produce stream: batches come, answers go, in the same order.
//!
//! ```text
//!  QUIC --> read_batches --> engine.submit --> partition's writer
//!               |                                    |
//!               +-- queue of pending answers         | answers
//!                         |                          v
//!  QUIC <------------ write_answers <----------------+
//! ```
//!
//! The reader takes a place in the bounded queue before it reads a batch, and memory from the engine before it reads the batch's
//! bytes. So a client that does not read its answers, or that sends faster than the disk writes, is held back by QUIC's flow control.
//! A stream that would have to wait for memory where there is no room for what comes meanwhile is ended as overloaded.

use super::{Broker, ConnectionContext};
use crate::{
    close_code,
    frames::{self, FrameReader, ReadFrameError},
};
use bytes::Bytes;
use millpond_engine::{Answer, EngineError, InflightPermit, PendingAnswer, ProduceStream};
use millpond_protocol::{
    error::{ErrorCode, WireError},
    frame::{FrameError, Kind},
    message::{self, OpenProduce, Response},
};
use quinn::{SendStream, VarInt};
use std::{
    pin::{Pin, pin},
    task::Poll,
};
use tokio::sync::mpsc;
use tracing::Instrument;

/// Answers that are ready are written together up to this many bytes. A packet holds some thirty acknowledgements.
const ANSWERS_WRITE_BYTES: usize = 4 << 10;

/// What will be said to one frame of the client.
enum Queued {
    /// A batch is with the engine.
    Batch(PendingAnswer),
    /// The frame was no batch, and is the last that is answered.
    Refused(WireError),
}

/// Why a stream reads no more batches.
enum Refusal {
    /// Because of this frame, and the client should know.
    Told(WireError),
    /// Because there is nobody to tell.
    Gone(ReadFrameError),
}

/// Serves the stream until the client finishes it, breaks it, or the broker stops.
pub(super) async fn serve(
    broker: &Broker,
    context: &ConnectionContext,
    mut send: SendStream,
    mut reader: FrameReader,
    open: &OpenProduce,
) -> SendStream {
    let (mut stream, opened) = match broker.engine.open_produce(open) {
        Ok(opened) => opened,
        Err(error) => {
            reader.stop(close_code::DONE);
            let _ = frames::send_answer(&mut send, &Err(error.to_wire())).await;
            return send;
        }
    };
    if let Err(error) = frames::send_response(&mut send, &Ok(Response::ProduceOpened(opened))).await {
        tracing::debug!(%error, "the client did not wait for its produce stream");
        return send;
    }
    let (answers, queue) = mpsc::channel(queue_places(broker.limits.produce_inflight_batches_max));
    let writer = tokio::spawn(write_answers(send, queue).in_current_span());
    let code = read_batches(broker, context, &mut reader, &mut stream, &answers).await;
    reader.stop(code);
    drop(answers);
    // Only a panic ends the writer without giving the stream back: it goes on here.
    writer.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

/// The writer holds one batch that has left the queue.
fn queue_places(inflight_batches_max: usize) -> usize {
    inflight_batches_max.saturating_sub(1).max(1)
}

/// Reads batches and submits them, one after another. Gives the code with which to stop the client's side.
async fn read_batches(
    broker: &Broker,
    context: &ConnectionContext,
    reader: &mut FrameReader,
    stream: &mut ProduceStream,
    answers: &mpsc::Sender<Queued>,
) -> VarInt {
    let limit_bytes = broker.engine.info().max_batch_bytes as usize;
    // Made once and polled for each frame, which is cheaper than two registrations for each frame.
    let mut over = pin!(async {
        tokio::select! {
            () = broker.shutdown.cancelled() => close_code::SHUTTING_DOWN,
            // The client does not want answers, so it can't want batches stored either.
            () = answers.closed() => close_code::DONE,
        }
    });
    loop {
        let read = async {
            let place = answers.reserve().await.ok()?;
            Some((place, next_batch(broker, context, reader, limit_bytes).await))
        };
        let (place, read) = tokio::select! {
            biased;
            code = &mut over => return code,
            read = read => match read {
                Some(read) => read,
                None => return close_code::DONE,
            },
        };
        match read {
            // Not interrupted: a batch that has come whole is stored and answered.
            Ok(Some((batch, permit))) => place.send(Queued::Batch(stream.submit(batch, permit).await)),
            Ok(None) => return close_code::DONE,
            Err(Refusal::Told(error)) => {
                if let Some(suppressed) = broker.noise.permit() {
                    tracing::warn!(code = %error.code, %error, suppressed, "a produce stream was broken off");
                }
                let code = super::stop_code(&error);
                place.send(Queued::Refused(error));
                return code;
            }
            Err(Refusal::Gone(error)) => {
                tracing::debug!(%error, "the client left a produce stream");
                return close_code::DONE;
            }
        }
    }
}

/// The next batch and the memory that it takes; `None` if the client has finished.
async fn next_batch(
    broker: &Broker,
    context: &ConnectionContext,
    reader: &mut FrameReader,
    limit_bytes: usize,
) -> Result<Option<(Bytes, InflightPermit)>, Refusal> {
    let Some(header) = reader.header(limit_bytes).await.map_err(refusal)? else { return Ok(None) };
    if header.kind != Kind::Produce {
        let message = format!("a produce stream takes Produce frames, not {:?}", header.kind);
        return Err(Refusal::Told(WireError::new(ErrorCode::InvalidRequest, message)));
    }
    let length = header.length as usize;
    let (permit, busy) = context.window.obtain(length, broker.engine.reserve_inflight(length)).await.map_err(Refusal::Told)?;
    let batch = reader.payload(length).await.map_err(refusal)?;
    busy.done();
    Ok(Some((batch, permit)))
}

fn refusal(error: ReadFrameError) -> Refusal {
    match (error.to_wire(), &error) {
        (Some(told), ReadFrameError::Header(FrameError::TooLarge { limit, .. })) => {
            Refusal::Told(told.with_hint(format!("send batches of at most {limit} bytes; compression helps")))
        }
        (Some(told), _) => Refusal::Told(told),
        (None, _) => Refusal::Gone(error),
    }
}

/// Writes answers in the order of the queue, those that are ready together. Gives the stream back when the queue has ended, or when
/// nobody wants the answers.
async fn write_answers(mut send: SendStream, mut queue: mpsc::Receiver<Queued>) -> SendStream {
    let mut out = Vec::with_capacity(ANSWERS_WRITE_BYTES + ANSWERS_WRITE_BYTES / 4);
    let mut waiting = None;
    loop {
        let first = match waiting.take() {
            Some(first) => first,
            None => match queue.recv().await {
                Some(first) => first,
                None => return send,
            },
        };
        match first {
            Queued::Batch(pending) => put_answer(&mut out, &pending.await),
            Queued::Refused(error) => out.extend_from_slice(&frames::error_frame(&error)),
        }
        waiting = put_ready_answers(&mut out, &mut queue).await;
        if let Err(error) = send.write_all(&out).await {
            // The batches are with the engine, and are stored all the same.
            tracing::debug!(%error, "the client does not want its answers");
            return send;
        }
        out.clear();
    }
}

/// Adds the answers that are there already. Gives back the first that is not.
async fn put_ready_answers(out: &mut Vec<u8>, queue: &mut mpsc::Receiver<Queued>) -> Option<Queued> {
    while out.len() < ANSWERS_WRITE_BYTES {
        match queue.try_recv().ok()? {
            Queued::Batch(mut pending) => match poll_once(&mut pending).await {
                Poll::Ready(answer) => put_answer(out, &answer),
                Poll::Pending => return Some(Queued::Batch(pending)),
            },
            Queued::Refused(error) => out.extend_from_slice(&frames::error_frame(&error)),
        }
    }
    None
}

/// Whether an answer is there, without waiting for it.
async fn poll_once(pending: &mut PendingAnswer) -> Poll<Result<Answer, EngineError>> {
    std::future::poll_fn(|context| Poll::Ready(Pin::new(&mut *pending).poll(context))).await
}

fn put_answer(out: &mut Vec<u8>, answer: &Result<Answer, EngineError>) {
    match answer {
        Ok(Answer::Ack(ack)) => frames::put_frame(out, Kind::Ack, &ack.encode()),
        Ok(Answer::Placements(placements)) => frames::put_frame(out, Kind::Placements, &placements.encode()),
        Err(error) => {
            let error = error.to_wire();
            tracing::debug!(code = %error.code, %error, "a batch was refused");
            frames::put_frame(out, Kind::Error, &message::encode(&error));
        }
    }
}

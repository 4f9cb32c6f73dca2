//! Requests that are one question and one answer.
//!
//! Most answers are some hundred bytes. A list of thousands of partitions is megabytes, and a client may ask for it on each of its
//! streams without reading: such an answer takes room from the budget for bytes in transit until QUIC has taken it, and is not waited
//! for when its client stops reading.

use super::Broker;
use crate::{
    close_code,
    frames::{self, FrameReader},
};
use bytes::Bytes;
use millpond_engine::Engine;
use millpond_protocol::{
    error::{ErrorCode, WireError},
    message::{Request, Response},
};
use quinn::{SendStream, WriteError};
use std::sync::Arc;
use tokio::time::{error::Elapsed, timeout};

/// Answers of at most so many bytes take no room from the budget.
const SHORT_ANSWER_BYTES: usize = 64 << 10;

/// A long answer is written in pieces of so many bytes, each of which the client must take in one stall timeout.
const PIECE_BYTES: usize = 64 << 10;

/// Answers the request. Gives the stream back unless the answer was cut off.
pub(super) async fn serve(broker: &Broker, mut send: SendStream, mut reader: FrameReader, request: Request) -> Option<SendStream> {
    // What was done can't be undone, and its answer is not withheld.
    let may_be_refused = request.is_idempotent();
    let answer = answer(&broker.engine, request).await;
    // Whatever the client sends behind a simple request is of no interest.
    reader.stop(close_code::DONE);
    let mut bytes = Bytes::from(frames::answer_frame(&answer));
    let mut room = broker.budget.room();
    if bytes.len() > SHORT_ANSWER_BYTES && !room.resize(bytes.len() as u64) && may_be_refused {
        bytes = frames::error_frame(&no_room(bytes.len())).into();
    }
    let written =
        if bytes.len() > SHORT_ANSWER_BYTES { write_long(broker, &mut send, bytes).await } else { Ok(send.write_chunk(bytes).await) };
    match written {
        Ok(Ok(())) => frames::finish(&mut send),
        Ok(Err(error)) => tracing::debug!(%error, "the client did not wait for its answer"),
        Err(_) => {
            tracing::debug!("a client does not read its answer, which is cut off");
            // The answer must not look finished.
            let _ = send.reset(close_code::OVERLOADED);
            return None;
        }
    }
    Some(send)
}

async fn write_long(broker: &Broker, send: &mut SendStream, mut bytes: Bytes) -> Result<Result<(), WriteError>, Elapsed> {
    while !bytes.is_empty() {
        let piece = bytes.split_to(bytes.len().min(PIECE_BYTES));
        if let Err(error) = timeout(broker.limits.stall_timeout, send.write_chunk(piece)).await? {
            return Ok(Err(error));
        }
    }
    Ok(Ok(()))
}

fn no_room(bytes: usize) -> WireError {
    WireError::new(ErrorCode::Overloaded, format!("the broker has no memory for an answer of {bytes} bytes at this moment"))
        .with_hint("try again in a moment, or ask for one topic at a time")
}

/// Asks the engine.
async fn answer(engine: &Arc<Engine>, request: Request) -> Result<Response, WireError> {
    let outcome = match request {
        Request::BrokerInfo => Ok(Response::BrokerInfo(engine.info())),
        Request::CreateTopic(create) => engine.create_topic(create).await.map(Response::Topic),
        Request::DeleteTopic(delete) => engine.delete_topic(&delete.name).await.map(|()| Response::Done),
        Request::AlterTopic(alter) => engine.alter_topic(alter).await.map(Response::Topic),
        Request::DeleteRecords(delete) => engine.delete_records(&delete).await.map(Response::RecordsDeleted),
        Request::ListTopics => Ok(Response::Topics(engine.topics())),
        Request::DescribeTopic(describe) => engine.topic(&describe.name).map(Response::Topic),
        Request::ListOffset(list) => engine.list_offset(&list).await.map(Response::Offset),
        Request::ListModules => Ok(Response::Modules(engine.modules())),
        Request::DescribeModule(describe) => engine.module(&describe.name).map(Response::Module),
        Request::ReadModuleLog(read) => engine.read_module_log(&read).map(Response::ModuleLog),
        Request::RollbackModule(rollback) => engine.rollback_module(rollback).await.map(Response::Module),
        Request::DeleteModule(delete) => engine.delete_module(delete.module).await.map(|()| Response::Done),
        Request::AttachTransform(attach) => engine.attach(attach).await.map(|()| Response::Done),
        Request::AlterTransform(alter) => engine.alter_attachment(alter).await.map(|status| Response::Attachment(Box::new(status))),
        Request::DetachTransform(detach) => engine.detach(detach).await.map(|status| Response::Attachment(Box::new(status))),
        // The requests with handlers of their own don't come here; the enum may grow.
        other => return Err(WireError::new(ErrorCode::UnsupportedRequest, format!("the broker can't answer {other:?} here"))),
    };
    outcome.map_err(|error| error.to_wire())
}

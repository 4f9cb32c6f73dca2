//! The upload of a module: `Body` frames until the announced bytes have come, then one answer.

use super::{Broker, ConnectionContext};
use crate::{
    frames,
    frames::{FrameReader, ReadFrameError},
};
use bytes::{Bytes, BytesMut};
use millpond_protocol::{
    error::{ErrorCode, WireError},
    frame::{BODY_PAYLOAD_BYTES_MAX, Kind},
    message::{DeployModule, Response},
};
use quinn::SendStream;
use std::time::Duration;
use tokio::sync::SemaphorePermit;

/// How long an upload may take, so that slow ones don't keep the others waiting for ever.
const UPLOAD_DURATION_MAX: Duration = Duration::from_mins(5);

/// Takes the upload and answers.
pub(super) async fn serve(
    broker: &Broker,
    context: &ConnectionContext,
    send: &mut SendStream,
    mut reader: FrameReader,
    deploy: DeployModule,
) {
    let uploaded = tokio::select! {
        uploaded = upload(broker, context, &mut reader, &deploy) => uploaded,
        () = broker.shutdown.cancelled() => Err(Some(super::shutting_down())),
    };
    let answer = match uploaded {
        Ok((wasm, _turn)) => broker.engine.deploy_module(&deploy.name, wasm).await.map(Response::Module).map_err(|error| error.to_wire()),
        Err(Some(error)) => {
            reader.stop(super::stop_code(&error));
            Err(error)
        }
        Err(None) => return tracing::debug!(module = deploy.name, "the client gave up an upload"),
    };
    if let Err(error) = &answer {
        tracing::debug!(module = deploy.name, %error, "a module was not deployed");
    }
    if let Err(error) = frames::send_answer(send, &answer).await {
        tracing::debug!(%error, "the client did not wait for the answer to its upload");
    }
}

/// The bytes of the module, and the right to have them in memory; or what to tell the client if it is still there.
async fn upload<'a>(
    broker: &'a Broker,
    context: &'a ConnectionContext,
    reader: &mut FrameReader,
    deploy: &DeployModule,
) -> Result<(Bytes, SemaphorePermit<'a>), Option<WireError>> {
    let limit_bytes = broker.engine.info().max_module_bytes;
    let size_bytes = usize::try_from(deploy.size_bytes).ok().filter(|_| deploy.size_bytes <= limit_bytes).ok_or_else(|| {
        let message = format!("a module of {} bytes is over the limit of {limit_bytes} bytes", deploy.size_bytes);
        WireError::new(ErrorCode::ModuleTooLarge, message)
    })?;
    let (turn, busy) = context.window.obtain(size_bytes, broker.uploads.acquire()).await.map_err(Some)?;
    let turn = turn.unwrap_or_else(|_| unreachable!("the semaphore is never closed"));
    let body = tokio::time::timeout(UPLOAD_DURATION_MAX, read_body(reader, size_bytes)).await.map_err(|_| {
        let message = format!("the module did not come in {} seconds", UPLOAD_DURATION_MAX.as_secs());
        WireError::new(ErrorCode::TimedOut, message)
    })?;
    let body = body?;
    busy.done();
    Ok((body, turn))
}

async fn read_body(reader: &mut FrameReader, size_bytes: usize) -> Result<Bytes, Option<WireError>> {
    let told = |error: ReadFrameError| error.to_wire();
    let mut body = BytesMut::with_capacity(size_bytes);
    while body.len() < size_bytes {
        let header = reader.expected_header(BODY_PAYLOAD_BYTES_MAX).await.map_err(told)?;
        let length = header.length as usize;
        if header.kind != Kind::Body || length == 0 || length > size_bytes - body.len() {
            let message = format!(
                "a {:?} frame of {length} bytes where a Body frame of 1 to {} bytes was expected",
                header.kind,
                (size_bytes - body.len()).min(BODY_PAYLOAD_BYTES_MAX)
            );
            return Err(Some(WireError::new(ErrorCode::InvalidRequest, message)));
        }
        reader.payload_into(&mut body, length).await.map_err(told)?;
    }
    Ok(body.freeze())
}

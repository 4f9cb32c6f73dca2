//! Requests that are one question and one answer.

use millpond_engine::Engine;
use millpond_protocol::{
    error::{ErrorCode, WireError},
    message::{Request, Response},
};
use std::sync::Arc;

/// Asks the engine.
pub(super) async fn answer(engine: &Arc<Engine>, request: Request) -> Result<Response, WireError> {
    let outcome = match request {
        Request::BrokerInfo => Ok(Response::BrokerInfo(engine.info())),
        Request::CreateTopic(create) => engine.create_topic(create).await.map(Response::Topic),
        Request::DeleteTopic(delete) => engine.delete_topic(&delete.name).await.map(|()| Response::Done),
        Request::ListTopics => Ok(Response::Topics(engine.topics())),
        Request::DescribeTopic(describe) => engine.topic(&describe.name).map(Response::Topic),
        Request::ListOffset(list) => engine.list_offset(&list).await.map(Response::Offset),
        Request::ListModules => Ok(Response::Modules(engine.modules())),
        Request::DeleteModule(delete) => engine.delete_module(&delete.name).await.map(|()| Response::Done),
        Request::AttachTransform(attach) => engine.attach(attach).await.map(|()| Response::Done),
        Request::DetachTransform(detach) => engine.detach(detach).await.map(|()| Response::Done),
        // The requests with handlers of their own don't come here; the enum may grow.
        other => return Err(WireError::new(ErrorCode::UnsupportedRequest, format!("the broker can't answer {other:?} here"))),
    };
    outcome.map_err(|error| error.to_wire())
}

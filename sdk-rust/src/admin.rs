//! Requests about topics, modules and the broker.
//!
//! Each request is a QUIC stream of its own and has a deadline. One that changes nothing is sent again when the connection is lost. One
//! that changes something is sent again only where it is certain that the broker has not done it: it could not be sent, or the
//! broker said so. Else [`Error::Unanswered`] says that it may have been done.

use crate::{
    backoff::Backoff,
    client::Core,
    error::Error,
    stream::{self, write_failed, write_frame},
};
use bytes::Bytes;
use millpond_protocol::{
    error::ErrorCode,
    frame::{BODY_PAYLOAD_BYTES_MAX, Kind},
    message::{
        AlterTopic, AlterTransform, AttachTransform, AttachmentStatus, BrokerInfo, CreateTopic, DeleteModule, DeleteRecords, DeleteTopic,
        DeployModule, DescribeModule, DescribeTopic, DetachTransform, ListOffset, ModuleInfo, ModuleLog, ModuleRef, OffsetFound, Position,
        ReadModuleLog, RecordsDeleted, Request, Response, RollbackModule, TopicInfo,
    },
};
use quinn::WriteError;
use std::{sync::Arc, time::Duration};
use tokio::time::{sleep, timeout};

/// How long an upload may take at least, the broker's compilation included: a large module takes seconds on a small machine.
const DEPLOY_TIMEOUT_MIN: Duration = Duration::from_mins(3);

/// Requests about topics, modules and the broker. From [`crate::Client::admin`]; cheap to clone.
#[derive(Clone, Debug)]
pub struct Admin {
    core: Arc<Core>,
    timeout: Duration,
}

impl Admin {
    pub(crate) fn new(core: Arc<Core>) -> Admin {
        let timeout = core.request_timeout;
        Admin { core, timeout }
    }

    /// The same with another deadline for each request.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Admin {
        self.timeout = timeout;
        self
    }

    /// What the broker is.
    pub async fn broker_info(&self) -> Result<BrokerInfo, Error> {
        match self.call(Request::BrokerInfo).await? {
            Response::BrokerInfo(info) => Ok(info),
            other => Err(unexpected(&other)),
        }
    }

    /// Makes a topic. Fails with the code `topic_exists` if there is one with this name, and `invalid_topic` if it can't be.
    pub async fn create_topic(&self, topic: CreateTopic) -> Result<TopicInfo, Error> {
        match self.call(Request::CreateTopic(topic)).await? {
            Response::Topic(info) => Ok(info),
            other => Err(unexpected(&other)),
        }
    }

    /// The topic of this name, which is made if there is none. One that is there stays as it is, whatever settings it has.
    pub async fn ensure_topic(&self, topic: CreateTopic) -> Result<TopicInfo, Error> {
        let name = topic.name.clone();
        match self.create_topic(topic).await {
            Err(error) if error.code() == ErrorCode::TopicExists.name() => self.topic(&name).await,
            other => other,
        }
    }

    /// Changes settings of a topic while it is used; what is not named stays as it is. The answer is the topic as it is then. Fails with the
    /// code `topic_not_found` if there is none, and `invalid_config` if a setting can't have that value.
    pub async fn alter_topic(&self, change: AlterTopic) -> Result<TopicInfo, Error> {
        match self.call(Request::AlterTopic(change)).await? {
            Response::Topic(info) => Ok(info),
            other => Err(unexpected(&other)),
        }
    }

    /// Deletes the records of a partition that lie before a place, for good; their offsets are not used again. The answer is the first
    /// offset that is still there. Fails with the code `offset_out_of_range` if the place lies behind what consumers can see.
    pub async fn delete_records(&self, topic: &str, partition: u32, before: Position) -> Result<RecordsDeleted, Error> {
        match self.call(Request::DeleteRecords(DeleteRecords { topic: topic.to_owned(), partition, before })).await? {
            Response::RecordsDeleted(deleted) => Ok(deleted),
            other => Err(unexpected(&other)),
        }
    }

    /// Removes a topic and all its records. Fails with the code `topic_not_found` if there is none.
    pub async fn delete_topic(&self, name: &str) -> Result<(), Error> {
        self.done(Request::DeleteTopic(DeleteTopic { name: name.to_owned() })).await
    }

    /// All topics, in the order of their names.
    pub async fn topics(&self) -> Result<Vec<TopicInfo>, Error> {
        match self.call(Request::ListTopics).await? {
            Response::Topics(topics) => Ok(topics),
            other => Err(unexpected(&other)),
        }
    }

    /// One topic. Fails with the code `topic_not_found` if there is none.
    pub async fn topic(&self, name: &str) -> Result<TopicInfo, Error> {
        match self.call(Request::DescribeTopic(DescribeTopic { name: name.to_owned() })).await? {
            Response::Topic(info) => Ok(info),
            other => Err(unexpected(&other)),
        }
    }

    /// The offset of a place in a partition.
    pub async fn list_offset(&self, topic: &str, partition: u32, at: Position) -> Result<OffsetFound, Error> {
        match self.call(Request::ListOffset(ListOffset { topic: topic.to_owned(), partition, at })).await? {
            Response::Offset(found) => Ok(found),
            other => Err(unexpected(&other)),
        }
    }

    /// Uploads a module, a WebAssembly component or a core module that carries its component type. The broker checks and compiles it
    /// before it answers, so the deadline is at least three minutes.
    pub async fn deploy_module(&self, name: &str, wasm: Bytes) -> Result<ModuleInfo, Error> {
        let request = Request::DeployModule(DeployModule { name: name.to_owned(), size_bytes: wasm.len() as u64 });
        let deadline = self.timeout.max(DEPLOY_TIMEOUT_MIN);
        match call(&self.core, &request, &wasm, deadline).await? {
            Response::Module(info) => Ok(info),
            other => Err(unexpected(&other)),
        }
    }

    /// All modules, in the order of their names.
    pub async fn modules(&self) -> Result<Vec<ModuleInfo>, Error> {
        match self.call(Request::ListModules).await? {
            Response::Modules(modules) => Ok(modules),
            other => Err(unexpected(&other)),
        }
    }

    /// One module with all its versions.
    pub async fn module(&self, name: &str) -> Result<ModuleInfo, Error> {
        match self.call(Request::DescribeModule(DescribeModule { name: name.to_owned() })).await? {
            Response::Module(info) => Ok(info),
            other => Err(unexpected(&other)),
        }
    }

    /// What a module has logged where it is attached, and how it failed: the last lines, of which the broker keeps a bounded number. To follow
    /// it, ask again with [`ModuleLog::next`] of the answer as [`ReadModuleLog::after`].
    pub async fn module_log(&self, request: ReadModuleLog) -> Result<ModuleLog, Error> {
        match self.call(Request::ReadModuleLog(request)).await? {
            Response::ModuleLog(log) => Ok(log),
            other => Err(unexpected(&other)),
        }
    }

    /// Makes another version of a module the current one: this, or the one that was current before. Topics that run the current one run it
    /// from their next batch on.
    pub async fn rollback_module(&self, name: &str, to: Option<u32>) -> Result<ModuleInfo, Error> {
        let request = Request::RollbackModule(RollbackModule { name: name.to_owned(), to });
        // It may have to be compiled once more.
        match call(&self.core, &request, &Bytes::new(), self.timeout.max(DEPLOY_TIMEOUT_MIN)).await? {
            Response::Module(info) => Ok(info),
            other => Err(unexpected(&other)),
        }
    }

    /// Removes a module with all its versions, or the version that is named. Fails with the code `module_in_use` if it is attached to a
    /// topic, or is the current one of several.
    pub async fn delete_module(&self, module: ModuleRef) -> Result<(), Error> {
        self.done(Request::DeleteModule(DeleteModule { module })).await
    }

    /// Runs a module on a topic.
    pub async fn attach(&self, attachment: AttachTransform) -> Result<(), Error> {
        self.done(Request::AttachTransform(attachment)).await
    }

    /// Changes how a module runs on a topic, from the next batch on; what is not named stays as it is, and what derives topics goes on where it
    /// is, with its state. Gives how it is then.
    pub async fn alter_attachment(&self, change: AlterTransform) -> Result<AttachmentStatus, Error> {
        match self.call(Request::AlterTransform(change)).await? {
            Response::Attachment(status) => Ok(*status),
            other => Err(unexpected(&other)),
        }
    }

    /// Stops running a module on a topic. Gives how it was at its end: where it derived topics, with the offsets at which it would go on. None
    /// from a broker that does not tell.
    pub async fn detach(&self, attachment: DetachTransform) -> Result<Option<AttachmentStatus>, Error> {
        match self.call(Request::DetachTransform(attachment)).await? {
            Response::Attachment(status) => Ok(Some(*status)),
            _ => Ok(None),
        }
    }

    async fn call(&self, request: Request) -> Result<Response, Error> {
        call(&self.core, &request, &Bytes::new(), self.timeout).await
    }

    /// For requests whose answer says nothing more. A broker may answer with more one day.
    async fn done(&self, request: Request) -> Result<(), Error> {
        self.call(request).await.map(|_| ())
    }
}

fn unexpected(response: &Response) -> Error {
    let text = format!("{response:?}");
    let variant = text.split(['(', ' ']).next().unwrap_or_default();
    Error::Protocol(format!("the answer {variant} belongs to another request"))
}

/// What a request is for, in words for an error.
fn describe(request: &Request) -> String {
    match request {
        Request::BrokerInfo => "asking what the broker is".to_owned(),
        Request::CreateTopic(topic) => format!("creating topic `{}`", topic.name),
        Request::DeleteTopic(topic) => format!("deleting topic `{}`", topic.name),
        Request::AlterTopic(topic) => format!("changing topic `{}`", topic.name),
        Request::DeleteRecords(place) => format!("deleting records of {}[{}]", place.topic, place.partition),
        Request::ListTopics => "listing topics".to_owned(),
        Request::DescribeTopic(topic) => format!("asking for topic `{}`", topic.name),
        Request::ListOffset(place) => format!("asking for an offset of {}[{}]", place.topic, place.partition),
        Request::DeployModule(module) => format!("deploying module `{}`", module.name),
        Request::ListModules => "listing modules".to_owned(),
        Request::DescribeModule(module) => format!("asking for module `{}`", module.name),
        Request::ReadModuleLog(read) => format!("asking for the log of module `{}`", read.module),
        Request::RollbackModule(module) => format!("rolling back module `{}`", module.name),
        Request::DeleteModule(module) => format!("deleting module `{}`", module.module),
        Request::AttachTransform(a) => format!("attaching `{}` to `{}`", a.module, a.topic),
        Request::AlterTransform(a) => format!("changing how `{}` runs on `{}`", a.module, a.topic),
        Request::DetachTransform(d) => format!("detaching `{}` from `{}`", d.module, d.topic),
        other => format!("{other:?}"),
    }
}

/// A request that failed once.
struct Failure {
    error: Error,
    /// Whether the broker may have done it.
    maybe_done: bool,
}

impl Failure {
    fn certain(error: Error) -> Failure {
        Failure { maybe_done: error.maybe_done(), error }
    }
}

/// Sends a request and its body until it is answered, or until it must not be sent again, or until the time is over.
pub(crate) async fn call(core: &Core, request: &Request, body: &Bytes, within: Duration) -> Result<Response, Error> {
    let mut last = None;
    let mut maybe_done = false;
    let tries = async {
        let mut backoff = Backoff::default();
        loop {
            let connection = match core.link.get().await {
                Ok(connection) => connection,
                Err(error) if error.retryable() => {
                    last = Some(Box::new(error));
                    continue;
                }
                Err(error) => return Err(error),
            };
            maybe_done = !request.is_idempotent();
            let failure = match once(core, &connection, request, body).await {
                Ok(response) => {
                    core.link.was_useful();
                    return Ok(response);
                }
                Err(failure) => failure,
            };
            maybe_done = failure.maybe_done && !request.is_idempotent();
            if !failure.error.retryable() {
                return Err(failure.error);
            }
            if maybe_done {
                return Err(match failure.error {
                    said @ Error::Broker(_) => said,
                    error => Error::Unanswered { what: describe(request), reason: error.how_lost(), refused: None },
                });
            }
            last = Some(Box::new(failure.error));
            sleep(backoff.next()).await;
        }
    };
    match timeout(within, tries).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Error::TimedOut {
            what: describe(request),
            after: within,
            maybe_done,
            last: last.or_else(|| core.link.last_error().map(Box::new)),
        }),
    }
}

async fn once(core: &Core, connection: &quinn::Connection, request: &Request, body: &Bytes) -> Result<Response, Failure> {
    let (mut send, mut reader) = stream::request(&core.link, connection, request).await.map_err(Failure::certain)?;
    let mut rest = body.clone();
    while !rest.is_empty() {
        let part = rest.split_to(rest.len().min(BODY_PAYLOAD_BYTES_MAX));
        match write_frame(&mut send, Kind::Body, part).await {
            Ok(()) => {}
            // The broker has seen enough, and says why in its answer.
            Err(WriteError::Stopped(_)) => break,
            // It cannot act on an upload that it has not got all of.
            Err(error) => return Err(Failure::certain(write_failed(error))),
        }
    }
    // Fails only on a stream that the broker has stopped.
    let _ = send.finish();
    reader.response().await.map_err(|error| Failure { maybe_done: !matches!(error, Error::Broker(_)) || error.maybe_done(), error })
}

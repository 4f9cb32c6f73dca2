//! What can go wrong in the broker, one variant for each cause.
//!
//! [`EngineError::to_wire`] is what a client sees: the code, one sentence with the values that matter, and a hint. An error is
//! cheap to clone, because one failed write answers every batch of its run.

use crate::name::NameOf;
use millpond_log::LogError;
use millpond_plugin::{PluginError, World};
use millpond_protocol::{
    batch::BatchError,
    error::{ErrorCode, WireError},
    message::AttachPoint,
};
use std::{io, path::PathBuf, sync::Arc};
use thiserror::Error;

/// Why the engine did not do what it was asked.
#[derive(Clone, Debug, Error)]
pub enum EngineError {
    /// Another broker uses the data folder.
    #[error("the data folder {} is in use by another broker", .data_dir.display())]
    Locked {
        /// The data folder.
        data_dir: PathBuf,
    },
    /// The data folder can't be made, read or written.
    #[error("the data folder can't be used: {operation} {}", .path.display())]
    DataDir {
        /// What was tried, as a verb.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: Arc<io::Error>,
    },
    /// The threads did not start.
    #[error("the threads of the broker can't be started")]
    Threads(#[source] Arc<io::Error>),
    /// WebAssembly can't be run on this machine.
    #[error("the modules of the broker can't be run")]
    Plugins(#[source] Arc<PluginError>),
    /// `catalogue.json` is there and can't be understood.
    #[error("the catalogue {} is damaged: {reason}", .path.display())]
    CatalogueDamaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// `catalogue.json` was written by a newer broker, in a way that this one does not know.
    #[error("the catalogue {} has version {version}, this broker reads up to {supported}", .path.display())]
    CatalogueTooNew {
        /// The file.
        path: PathBuf,
        /// The version in the file.
        version: u32,
        /// The newest version that is understood.
        supported: u32,
    },

    /// A name breaks the rules.
    #[error("the {of} name `{name}` {rule}")]
    InvalidName {
        /// What was to be called so.
        of: NameOf,
        /// The name, cut to 249 characters.
        name: String,
        /// What is wrong with it.
        rule: String,
    },
    /// A topic with no partition, or with too many.
    #[error("a topic of {requested} partitions: 1 to {max} are allowed")]
    InvalidPartitionCount {
        /// Partitions asked for.
        requested: u32,
        /// Partitions allowed.
        max: u32,
    },
    /// The broker has as many of these as it is allowed.
    #[error("the broker's limit of {limit} {what} would be passed")]
    TooMany {
        /// `topics`, `partitions`, `modules` or `modules on one topic`.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
    /// A setting has a value that it can't take.
    #[error("`{setting}` is {value}: {rule}")]
    InvalidConfig {
        /// The setting's name.
        setting: &'static str,
        /// The value.
        value: u64,
        /// What it may be.
        rule: String,
    },
    /// The topic is there already.
    #[error("the topic `{name}` exists already")]
    TopicExists {
        /// Its name.
        name: String,
    },
    /// A folder that no topic owns is where the new topic's files would go.
    #[error("the folder {} is in the way of the new topic", .path.display())]
    FolderInTheWay {
        /// The folder.
        path: PathBuf,
    },
    /// No topic has this name.
    #[error("there is no topic `{name}`")]
    TopicNotFound {
        /// The name.
        name: String,
        /// An existing one that looks like it.
        nearest: Option<String>,
    },
    /// The topic has fewer partitions.
    #[error("the topic `{topic}` has no partition {partition}: it has {partitions}, from 0 to {}", .partitions.saturating_sub(1))]
    PartitionOutOfRange {
        /// The topic.
        topic: Arc<str>,
        /// The partition asked for.
        partition: u32,
        /// How many it has.
        partitions: u32,
    },
    /// The offset is not in the log, or not visible yet.
    #[error("offset {requested} of `{topic}`, partition {partition}, is out of range: it holds {start} up to, not including, {end}")]
    OffsetOutOfRange {
        /// The topic.
        topic: Arc<str>,
        /// The partition.
        partition: u32,
        /// The offset asked for.
        requested: i64,
        /// The first offset that is there.
        start: i64,
        /// The high watermark.
        end: i64,
    },

    /// The batch is larger than the topic takes.
    #[error("a batch of {bytes} bytes is over the limit of {limit} bytes of the topic `{topic}`")]
    BatchTooLarge {
        /// The topic.
        topic: Arc<str>,
        /// Bytes of the batch.
        bytes: usize,
        /// Bytes allowed.
        limit: u32,
    },
    /// The bytes are not one intact record batch.
    #[error(transparent)]
    Batch(Arc<BatchError>),
    /// The batch is intact but not one that a producer may send.
    #[error("the batch is refused: {reason}")]
    BatchRefused {
        /// The rule that it breaks.
        reason: &'static str,
    },
    /// A write, a read or a flush of a partition failed.
    #[error("the log of `{topic}`, partition {partition}, failed")]
    Log {
        /// The topic.
        topic: Arc<str>,
        /// The partition.
        partition: u32,
        /// How.
        source: Arc<LogError>,
    },
    /// A job of the partition panicked; it takes no more batches until the broker starts again.
    #[error("`{topic}`, partition {partition}, has stopped writing after a fault in the broker")]
    PartitionStopped {
        /// The topic.
        topic: Arc<str>,
        /// The partition.
        partition: u32,
    },

    /// No module has this name.
    #[error("there is no module `{name}`")]
    ModuleNotFound {
        /// The name.
        name: String,
        /// An existing one that looks like it.
        nearest: Option<String>,
    },
    /// The upload is larger than the broker takes.
    #[error("a module of {bytes} bytes is over the limit of {limit} bytes")]
    ModuleTooLarge {
        /// Bytes of the upload.
        bytes: u64,
        /// Bytes allowed.
        limit: u64,
    },
    /// The module was refused when it was uploaded or attached, or could not be loaded when the broker started.
    #[error("the module `{module}` can't be used")]
    Module {
        /// The module's name.
        module: String,
        /// Why.
        source: Arc<PluginError>,
    },
    /// The file of a module is missing or is not what was uploaded.
    #[error("the stored module `{module}` can't be read back: {reason}")]
    ModuleLost {
        /// The module's name.
        module: String,
        /// What is wrong.
        reason: String,
    },
    /// The module does something else than the place needs.
    #[error("the module `{module}` is a {found}, and on {on} runs a {wanted}")]
    ModuleWrongWorld {
        /// The module's name.
        module: String,
        /// What it is.
        found: World,
        /// Where it was to be attached.
        on: AttachPoint,
        /// What runs there.
        wanted: World,
    },
    /// The module is attached to these topics.
    #[error("the module `{module}` is in use by {}", .topics.join(", "))]
    ModuleInUse {
        /// The module's name.
        module: String,
        /// The topics.
        topics: Vec<String>,
    },
    /// The module is there already, or another one where only one can be.
    #[error("the topic `{topic}` has the module `{module}` on {on} already")]
    AttachmentExists {
        /// The topic.
        topic: String,
        /// The module that is there.
        module: String,
        /// Where.
        on: AttachPoint,
    },
    /// The module is not attached there.
    #[error("the topic `{topic}` has no module `{module}` on {on}")]
    AttachmentNotFound {
        /// The topic.
        topic: String,
        /// The module's name.
        module: String,
        /// Where.
        on: AttachPoint,
    },
    /// A module failed on a batch; the batch was not stored.
    #[error("the module `{module}` failed on a batch for the topic `{topic}`")]
    Guest {
        /// The topic.
        topic: Arc<str>,
        /// The module.
        module: Arc<str>,
        /// How.
        source: Arc<PluginError>,
    },
    /// What a module returned is not what it was asked for; the batch was not stored.
    #[error("the module `{module}` returned records for the topic `{topic}` that can't be stored: {reason}")]
    GuestOutput {
        /// The topic.
        topic: Arc<str>,
        /// The module.
        module: Arc<str>,
        /// What is wrong with it.
        reason: String,
    },

    /// The broker is stopping.
    #[error("the broker is shutting down")]
    ShuttingDown,
    /// A job of the broker panicked.
    #[error("a job of the broker's {pool} threads ended without an answer")]
    JobLost {
        /// The threads that it ran on.
        pool: &'static str,
    },
}

impl EngineError {
    /// The code that crosses the wire.
    pub fn code(&self) -> ErrorCode {
        match self {
            EngineError::Locked { .. } | EngineError::DataDir { .. } | EngineError::FolderInTheWay { .. } => ErrorCode::StorageFailed,
            EngineError::CatalogueDamaged { .. } | EngineError::CatalogueTooNew { .. } | EngineError::PartitionStopped { .. } => {
                ErrorCode::StorageFailed
            }
            EngineError::Threads(_) | EngineError::Plugins(_) | EngineError::JobLost { .. } => ErrorCode::Internal,
            EngineError::InvalidName { of: NameOf::Topic, .. } | EngineError::InvalidPartitionCount { .. } => ErrorCode::InvalidTopic,
            EngineError::InvalidName { of: NameOf::Module, .. } => ErrorCode::InvalidRequest,
            EngineError::TooMany { .. } | EngineError::InvalidConfig { .. } => ErrorCode::InvalidConfig,
            EngineError::TopicExists { .. } => ErrorCode::TopicExists,
            EngineError::TopicNotFound { .. } => ErrorCode::TopicNotFound,
            EngineError::PartitionOutOfRange { .. } => ErrorCode::PartitionOutOfRange,
            EngineError::OffsetOutOfRange { .. } => ErrorCode::OffsetOutOfRange,
            EngineError::BatchTooLarge { .. } => ErrorCode::BatchTooLarge,
            EngineError::Batch(source) => source.code(),
            EngineError::BatchRefused { .. } => ErrorCode::InvalidBatch,
            EngineError::Log { source, .. } => source.code(),
            EngineError::ModuleNotFound { .. } => ErrorCode::ModuleNotFound,
            EngineError::ModuleTooLarge { .. } => ErrorCode::ModuleTooLarge,
            EngineError::Module { source, .. } | EngineError::Guest { source, .. } => source.code(),
            EngineError::ModuleLost { .. } => ErrorCode::ModuleInvalid,
            EngineError::ModuleWrongWorld { .. } => ErrorCode::ModuleWrongWorld,
            EngineError::ModuleInUse { .. } => ErrorCode::ModuleInUse,
            EngineError::AttachmentExists { .. } => ErrorCode::AttachmentExists,
            EngineError::AttachmentNotFound { .. } => ErrorCode::AttachmentNotFound,
            EngineError::GuestOutput { .. } => ErrorCode::GuestOutputInvalid,
            EngineError::ShuttingDown => ErrorCode::ShuttingDown,
        }
    }

    /// What a person can do about it.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            EngineError::Locked { .. } => "stop the other broker, or give this one a data folder of its own".to_owned(),
            EngineError::DataDir { path, .. } => {
                format!("check that {} exists and that the user who runs the broker may write there", path.display())
            }
            EngineError::CatalogueDamaged { path, .. } => format!(
                "put back a copy of {} from a backup; the records under topics/ are untouched, and the broker changes nothing until then",
                path.display()
            ),
            EngineError::CatalogueTooNew { .. } => "start the newer broker again".to_owned(),
            EngineError::InvalidName { .. } => "take 1 to 249 characters from a-z A-Z 0-9 . _ -, not beginning with a dot".to_owned(),
            EngineError::TooMany { what, .. } => format!("delete {what} that are not needed, or raise the limit"),
            EngineError::FolderInTheWay { path } => format!("move {} somewhere else, or delete it", path.display()),
            EngineError::TopicNotFound { nearest: Some(nearest), .. } | EngineError::ModuleNotFound { nearest: Some(nearest), .. } => {
                format!("did you mean `{nearest}`?")
            }
            EngineError::TopicNotFound { name, nearest: None } => format!("`millpond topic create {name}` makes it"),
            EngineError::ModuleNotFound { name, nearest: None } => {
                format!("`millpond transform deploy FILE.wasm --name {name}` uploads it")
            }
            EngineError::PartitionOutOfRange { partitions, .. } => {
                format!("name a partition from 0 to {}, or none to leave the choice to the partitioner", partitions.saturating_sub(1))
            }
            EngineError::OffsetOutOfRange { start, end, .. } => {
                format!("read from the beginning, from the end, or from an offset between {start} and {end}")
            }
            EngineError::Batch(source) if source.code() == ErrorCode::CorruptBatch => {
                "the bytes changed on their way or in the sender's memory; sending the records again is safe, nothing was stored".to_owned()
            }
            EngineError::TopicExists { .. } => "choose another name, or delete the topic first".to_owned(),
            EngineError::BatchTooLarge { .. } => "send smaller batches, or give the topic a larger max_batch_bytes".to_owned(),
            EngineError::Log { source, .. } if is_full(source) => {
                "free some space on the broker's disk; nothing was stored, and sending it again is safe".to_owned()
            }
            EngineError::Log { .. } => {
                "records are still served; see the broker's log for the cause, check the disk, then start the broker again".to_owned()
            }
            EngineError::PartitionStopped { .. } | EngineError::JobLost { .. } => {
                "see the broker's log for the cause, and start the broker again".to_owned()
            }
            EngineError::Module { source, .. } | EngineError::Guest { source, .. } => return source.hint(),
            EngineError::ModuleLost { module, .. } => format!("`millpond transform deploy FILE.wasm --name {module}` uploads it again"),
            EngineError::ModuleWrongWorld { found, .. } => format!("a {found} is attached with `--on {}`", place_of(*found)),
            EngineError::ModuleInUse { topics, module } => {
                let topic = topics.first().map_or("TOPIC", String::as_str);
                format!("`millpond transform detach {topic} {module}` frees it")
            }
            EngineError::AttachmentExists { topic, module, .. } => format!("`millpond transform detach {topic} {module}` makes room"),
            EngineError::AttachmentNotFound { topic, .. } => format!("`millpond topic describe {topic}` shows what is attached"),
            EngineError::ShuttingDown => "try again when it is back".to_owned(),
            _ => return None,
        })
    }

    /// The error as a client gets it. The causes are part of the message, because a source does not cross the wire.
    pub fn to_wire(&self) -> WireError {
        let mut message = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(source) = cause {
            message.push_str(": ");
            message.push_str(&source.to_string());
            cause = source.source();
        }
        let mut wire = WireError::new(self.code(), message);
        wire.hint = self.hint();
        if let EngineError::OffsetOutOfRange { start, end, .. } = self {
            wire.range = Some((*start, *end));
        }
        wire
    }

    pub(crate) fn data_dir(operation: &'static str, path: impl Into<PathBuf>, source: io::Error) -> EngineError {
        EngineError::DataDir { operation, path: path.into(), source: Arc::new(source) }
    }
}

impl From<BatchError> for EngineError {
    fn from(source: BatchError) -> Self {
        EngineError::Batch(Arc::new(source))
    }
}

/// The attach point where a module of this world runs.
pub(crate) const fn place_of(world: World) -> AttachPoint {
    match world {
        World::Transform => AttachPoint::Produce,
        World::Partitioner => AttachPoint::Partition,
    }
}

/// The world that runs at this attach point.
pub(crate) const fn world_on(on: AttachPoint) -> World {
    match on {
        AttachPoint::Produce => World::Transform,
        AttachPoint::Partition => World::Partitioner,
    }
}

fn is_full(error: &LogError) -> bool {
    matches!(error, LogError::Full { .. })
}

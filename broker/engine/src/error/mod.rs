//! What can go wrong in the broker, one variant for each cause.
//!
//! [`EngineError::to_wire`] is what a client sees. An error is cheap to clone: one failed write answers every batch of its run.

mod full;
mod hint;
mod place;
mod setting;
mod size;
mod wire;

pub(crate) use full::is_no_room;
pub use full::{Shortage, StorageBound, VersionsFull};
pub use place::{FailedAt, Purpose};
pub(crate) use place::{place_of, runs_on, world_on};
pub(crate) use setting::{value_of, within};

use crate::name::NameOf;
use millpond_log::{LogError, SequenceError};
use millpond_plugin::{PluginError, World};
use millpond_protocol::{
    batch::BatchError,
    message::{AttachPoint, ModuleRef},
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
    /// The data folder, or something in it beside the logs, can't be made, read or written.
    #[error("can't {operation} {}", .path.display())]
    DataDir {
        /// What was tried: "write", "create the data folder".
        operation: &'static str,
        /// On what. The data folder where all of it is unusable.
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
        /// `topics`, `modules on one topic`.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
    /// A module has as many versions as it may, and each is needed.
    #[error(transparent)]
    VersionsFull(VersionsFull),
    /// A setting has a value that it can't take.
    #[error("`{setting}` is {}: {rule}", value_of(setting, *.value))]
    InvalidConfig {
        /// The setting's name.
        setting: &'static str,
        /// The value.
        value: u64,
        /// What it may be.
        rule: String,
    },
    /// A topic that keeps the latest record of each key is to drop its oldest records.
    #[error("`cleanup` is `compact` and `on_full` is `drop-oldest`: the latest record of each key is to be kept, and would be dropped")]
    CompactedDropsOldest,
    /// So is it to delete by age or size, as this setting says.
    #[error("`cleanup` is `compact` and `{0}` is set: the latest record of each key is to be kept, so nothing would be deleted by it")]
    CompactedRetention(&'static str),
    /// Dead letters of other topics go there.
    #[error("the topic `{topic}` takes the dead letters of `{module}` on {}", .topics.join(", "))]
    TopicInUse {
        /// The topic.
        topic: String,
        /// The module whose dead letters they are.
        module: String,
        /// The topics that it is attached to.
        topics: Vec<String>,
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
        /// What it was to be asked.
        purpose: Purpose,
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
        /// What the offset was for.
        purpose: Purpose,
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
    /// The batch says that it has more records than its bytes can hold, or than the broker unpacks.
    #[error("the batch announces {announced} records, over the limit of {limit} for its bytes")]
    TooManyRecords {
        /// Records that the header announces.
        announced: i32,
        /// Records that are possible.
        limit: usize,
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
    /// The batch is numbered, and its number is not the next one of its producer.
    #[error("the batch does not continue its producer in `{topic}`{}", .partition.map(|number| format!(", partition {number}")).unwrap_or_default())]
    Sequence {
        /// The topic.
        topic: Arc<str>,
        /// The partition; none where the broker places the records.
        partition: Option<u32>,
        /// How.
        source: SequenceError,
    },
    /// A batch is written, and could not be made durable: after the next start it is there, or not.
    #[error("the batch is written, and nobody knows whether it is on the disk")]
    NotFlushed(#[source] Box<EngineError>),
    /// Of a batch that the broker has placed some parts are stored, and this became of another one.
    #[error("some records of the batch are stored, and others are not")]
    PartlyStored(#[source] Box<EngineError>),
    /// A record without a key, for a compacted topic.
    #[error("record {record} of the batch has no key, and the topic `{topic}` is compacted; nothing of the batch was stored")]
    RecordWithoutKey {
        /// The topic.
        topic: Arc<str>,
        /// Which record, from 0.
        record: i32,
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
    /// The log of a partition could not be opened: nothing of it can be read or written until the broker starts again.
    #[error("the log of `{topic}`, partition {partition}, can't be opened")]
    LogNotOpened {
        /// The topic.
        topic: Arc<str>,
        /// The partition.
        partition: u32,
        /// Its folder.
        path: PathBuf,
        /// Why.
        source: Arc<LogError>,
    },
    /// A quota or the disk has no room for the batch at this moment.
    #[error("no room for a batch of {} in `{topic}`, partition {partition}: {shortage}", .shortage.batch())]
    Full {
        /// The topic.
        topic: Arc<str>,
        /// The partition.
        partition: u32,
        /// What has no room, and how full it is.
        shortage: Shortage,
        /// What the disk said, where it was asked.
        source: Option<Arc<LogError>>,
    },
    /// The folder of a partition was gone when the broker started. It is not replaced by an empty one.
    #[error("`{topic}`, partition {partition}, is lost: its folder {} is missing", .path.display())]
    PartitionLost {
        /// The topic.
        topic: Arc<str>,
        /// The partition.
        partition: u32,
        /// Where the folder should be.
        path: PathBuf,
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
    /// The module has no such version.
    #[error("the module has no version `{wanted}`: {reason}")]
    ModuleVersionNotFound {
        /// What was asked for.
        wanted: ModuleRef,
        /// Why nothing is meant by it.
        reason: &'static str,
        /// The versions that there are.
        versions: Vec<u32>,
    },
    /// There is nothing to roll back to.
    #[error("no version of the module `{module}` was current before version {version}, or it was deleted")]
    NoVersionBefore {
        /// The module's name.
        module: String,
        /// The current version.
        version: u32,
    },
    /// The current version of a module can't be deleted alone.
    #[error("version {version} of the module `{module}` is the current one")]
    VersionIsCurrent {
        /// The module's name.
        module: String,
        /// The version.
        version: u32,
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
    /// The module is there already.
    #[error("the topic `{topic}` has the module `{module}` on {on} already")]
    AttachmentExists {
        /// The topic.
        topic: String,
        /// The module.
        module: String,
        /// Where.
        on: AttachPoint,
    },
    /// Another module is where only one can be.
    #[error("the topic `{topic}` has the module `{module}` on {on}, where one can be")]
    PlaceTaken {
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
    /// No module makes this view.
    #[error("the topic `{topic}` has no view `{view}`")]
    ViewNotFound {
        /// The topic.
        topic: Arc<str>,
        /// The view's name.
        view: String,
        /// An existing one that looks like it.
        nearest: Option<String>,
    },
    /// A module failed on a batch; the batch was not stored.
    #[error("the module `{module}` failed on a batch for the topic `{topic}`{at}")]
    Guest {
        /// The topic.
        topic: Arc<str>,
        /// The module.
        module: Arc<str>,
        /// Where.
        at: FailedAt,
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
    /// A module has failed on everything for a while, and is not given this batch.
    #[error("the module `{module}` of the topic `{topic}` is paused for {seconds} s: it has failed on {failures} batches in a row")]
    ModulePaused {
        /// The topic.
        topic: Arc<str>,
        /// The module.
        module: Arc<str>,
        /// Batches in a row.
        failures: u32,
        /// Until it is tried again.
        seconds: u64,
        /// How it failed last.
        reason: String,
    },
    /// A module fails on so much of a batch that its records were not all tried; the batch was not stored.
    #[error("the module `{module}` fails on so much of a batch for `{topic}` that only {decided} of its {records} records were tried")]
    SearchEnded {
        /// The topic.
        topic: Arc<str>,
        /// The module.
        module: Arc<str>,
        /// Records of which it is known whether it fails on them.
        decided: usize,
        /// Records of the batch.
        records: usize,
        /// How it failed last.
        source: Box<EngineError>,
    },
    /// A record on which a module failed has no place in the topic for dead letters; nothing is acknowledged.
    #[error("a record can't become a dead letter in the topic `{topic}`")]
    DeadLetter {
        /// The topic for dead letters.
        topic: Arc<str>,
        /// Why.
        source: Box<EngineError>,
    },
    /// What is known of a derived topic is damaged, or missing.
    #[error("{} can't be used: {reason}", .path.display())]
    DerivedDamaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A topic has more of what was derived into it than the broker knows of.
    #[error("`{topic}`, partition {partition}, has more than was derived into it: it is at {expected}, and {found} was to follow")]
    DerivedDiverged {
        /// The target.
        topic: Arc<str>,
        /// Its partition.
        partition: u32,
        /// The sequence that it expects.
        expected: i32,
        /// The sequence that was to be written.
        found: i32,
    },
    /// The topic can't be deleted, because a module derives records into it.
    #[error("the topic `{topic}` gets what `{module}` derives from {}", .topics.join(", "))]
    TopicDerived {
        /// The topic.
        topic: String,
        /// The module.
        module: String,
        /// The topics that it is on.
        topics: Vec<String>,
    },
    /// A module can't be attached, changed or detached in that way.
    #[error("this can't be done: {reason}")]
    AttachRefused {
        /// Why.
        reason: String,
        /// What to do.
        hint: &'static str,
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

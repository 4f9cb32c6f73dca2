//! Messages: CBOR (RFC 8949) for control, fixed layouts for the hot path.
//!
//! In CBOR every message is a map with its field names. Unknown fields are ignored and missing ones take their default, so that
//! the versions at either end may differ. A request or a response is a map of one entry, the variant's name to its fields.
//!
//! The fixed layouts ([`Ack`], [`Placements`], [`Watermarks`]) are big-endian and drawn where they are defined.

mod attachment;
mod derive;
mod fixed;
mod module;
mod module_log;
mod request;
mod response;
mod topic;
mod work;

pub use attachment::{AlterTransform, AttachLimits, AttachTransform, AttachmentStatus, DetachTransform, OnError, ParseOnErrorError};
pub use derive::{DeriveInto, DerivedPartition, DerivedStatus, Undelivered};
pub use fixed::{Ack, PlacedRecord, Placements, Watermarks};
pub use module::{
    AttachedModule, DeleteModule, DeployModule, DescribeModule, ModuleInfo, ModuleRef, ModuleVersion, ParseModuleRefError, Pick,
    ReplacedModule, RollbackModule,
};
pub use module_log::{
    BatchCoordinates, LogLevel, MODULE_LOG_LINES_MAX, ModuleFailure, ModuleLog, ModuleLogLine, ModuleLogPlace, ReadModuleLog,
};
pub use request::{
    AlterTopic, CreateTopic, DeleteRecords, DeleteTopic, DescribeTopic, ListOffset, OpenConsume, OpenProduce, Position, Request,
};
pub use response::{
    BrokerInfo, CompactionStatus, ConsumeOpened, Dropped, KnownDamage, NodeSpace, OffsetFound, PartitionInfo, ProduceOpened,
    RecordsDeleted, Refused, Refusing, Response, TopicInfo,
};
pub use topic::{AttachPoint, Cleanup, Durability, Limit, OnFull, ParseCleanupError, ParseDurabilityError, ParseOnFullError, TopicConfig};
pub use work::{AttachmentWork, BATCH_TIME_BOUNDS_US, BatchTimes, TimeBucket};

use serde::{Serialize, de::DeserializeOwned};
use thiserror::Error;

/// How deep CBOR may nest. The messages here need four levels.
const RECURSION_MAX: usize = 16;

/// Why a message could not be read.
#[derive(Debug, Error)]
pub enum MessageError {
    /// Not CBOR, or not this message.
    #[error("not a valid message: {0}")]
    Malformed(String),
    /// A fixed layout with the wrong number of bytes.
    #[error("a message of {actual} bytes where {expected} were expected")]
    WrongLength {
        /// Bytes that the layout has.
        expected: usize,
        /// Bytes that came.
        actual: usize,
    },
}

/// A message as CBOR.
pub fn encode<T: Serialize>(message: &T) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(128);
    // Writing to a vector can't fail, and the messages hold no map keys that CBOR can't carry.
    ciborium::into_writer(message, &mut bytes).unwrap_or_else(|error| unreachable!("a message always encodes: {error}"));
    bytes
}

/// Reads one CBOR message. The caller has bounded the bytes. A length that they claim is not trusted: serde sets aside at most 1 MiB
/// for a list before its items have come.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, MessageError> {
    let mut rest = bytes;
    let message = ciborium::de::from_reader_with_recursion_limit(&mut rest, RECURSION_MAX)
        .map_err(|error| MessageError::Malformed(error.to_string()))?;
    if !rest.is_empty() {
        return Err(MessageError::Malformed(format!("{} bytes follow the message", rest.len())));
    }
    Ok(message)
}

#[cfg(test)]
mod tests;

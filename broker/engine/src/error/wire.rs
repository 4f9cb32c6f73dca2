//! Errors as clients get them.

use super::{EngineError, is_no_room};
use crate::name::NameOf;
use millpond_log::{LogError, SequenceError, is_out_of_files};
use millpond_protocol::{
    batch::BatchError,
    error::{ErrorCode, WireError},
};
use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

impl From<BatchError> for EngineError {
    fn from(source: BatchError) -> Self {
        EngineError::Batch(Arc::new(source))
    }
}

impl EngineError {
    /// Whether a batch that was refused so left nothing behind, for certain.
    pub(crate) fn says_nothing_is_stored(&self) -> bool {
        match self {
            EngineError::Sequence { source, .. } => matches!(source, SequenceError::OutOfOrder { .. }),
            EngineError::Full { .. }
            | EngineError::LogNotOpened { .. }
            | EngineError::PartitionLost { .. }
            | EngineError::PartitionStopped { .. }
            | EngineError::TopicNotFound { .. } => true,
            _ => false,
        }
    }

    /// The code that crosses the wire.
    pub fn code(&self) -> ErrorCode {
        match self {
            EngineError::DataDir { source, .. } if is_out_of_files(source) => ErrorCode::Overloaded,
            EngineError::DataDir { source, .. } if is_no_room(source) => ErrorCode::StorageFull,
            EngineError::Full { .. } => ErrorCode::StorageFull,
            EngineError::Locked { .. }
            | EngineError::DataDir { .. }
            | EngineError::FolderInTheWay { .. }
            | EngineError::CatalogueDamaged { .. }
            | EngineError::CatalogueTooNew { .. }
            | EngineError::PartitionLost { .. }
            | EngineError::DerivedDamaged { .. }
            | EngineError::DerivedDiverged { .. }
            | EngineError::PartitionStopped { .. } => ErrorCode::StorageFailed,
            EngineError::Threads(_) | EngineError::Plugins(_) | EngineError::JobLost { .. } => ErrorCode::Internal,
            EngineError::InvalidName { of: NameOf::Topic, .. } | EngineError::InvalidPartitionCount { .. } => ErrorCode::InvalidTopic,
            EngineError::InvalidName { of: NameOf::Module | NameOf::View, .. } => ErrorCode::InvalidRequest,
            EngineError::TooMany { .. }
            | EngineError::VersionsFull(_)
            | EngineError::InvalidConfig { .. }
            | EngineError::CompactedDropsOldest
            | EngineError::CompactedRetention(_)
            | EngineError::AttachRefused { .. } => ErrorCode::InvalidConfig,
            EngineError::TopicExists { .. } => ErrorCode::TopicExists,
            EngineError::TopicInUse { .. } | EngineError::TopicDerived { .. } => ErrorCode::TopicInUse,
            EngineError::TopicNotFound { .. } => ErrorCode::TopicNotFound,
            EngineError::PartitionOutOfRange { .. } => ErrorCode::PartitionOutOfRange,
            EngineError::OffsetOutOfRange { .. } => ErrorCode::OffsetOutOfRange,
            EngineError::BatchTooLarge { .. } => ErrorCode::BatchTooLarge,
            EngineError::Batch(source) => source.code(),
            EngineError::BatchRefused { .. } | EngineError::TooManyRecords { .. } => ErrorCode::InvalidBatch,
            EngineError::RecordWithoutKey { .. } => ErrorCode::InvalidRecord,
            EngineError::Log { source, .. } | EngineError::LogNotOpened { source, .. } => source.code(),
            EngineError::Sequence { source, .. } => source.code(),
            EngineError::PartlyStored(source) | EngineError::NotFlushed(source) | EngineError::DeadLetter { source, .. } => source.code(),
            EngineError::ModulePaused { .. } => ErrorCode::GuestPaused,
            EngineError::SearchEnded { .. } => ErrorCode::GuestSearchEnded,
            EngineError::ModuleNotFound { .. } | EngineError::ModuleVersionNotFound { .. } | EngineError::NoVersionBefore { .. } => {
                ErrorCode::ModuleNotFound
            }
            EngineError::ModuleTooLarge { .. } => ErrorCode::ModuleTooLarge,
            EngineError::Module { source, .. } | EngineError::Guest { source, .. } => source.code(),
            EngineError::ModuleLost { .. } => ErrorCode::ModuleInvalid,
            EngineError::ModuleWrongWorld { .. } => ErrorCode::ModuleWrongWorld,
            EngineError::ModuleInUse { .. } | EngineError::VersionIsCurrent { .. } => ErrorCode::ModuleInUse,
            EngineError::AttachmentExists { .. } | EngineError::PlaceTaken { .. } => ErrorCode::AttachmentExists,
            EngineError::AttachmentNotFound { .. } => ErrorCode::AttachmentNotFound,
            EngineError::ViewNotFound { .. } => ErrorCode::ViewNotFound,
            EngineError::GuestOutput { .. } => ErrorCode::GuestOutputInvalid,
            EngineError::ShuttingDown => ErrorCode::ShuttingDown,
        }
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
        match self {
            EngineError::OffsetOutOfRange { start, end, .. } => wire.range = Some((*start, *end)),
            EngineError::Log { source, .. } => wire.next_offset = source.next_offset(),
            _ => {}
        }
        wire.partly_stored = matches!(self, EngineError::PartlyStored(_) | EngineError::NotFlushed(_));
        wire
    }

    /// Whether the disk had no room for a step, so that the same step may work with the reserve.
    pub(crate) fn is_disk_full(&self) -> bool {
        match self {
            EngineError::DataDir { source, .. } => is_no_room(source),
            EngineError::Log { source, .. } | EngineError::LogNotOpened { source, .. } => matches!(**source, LogError::Full { .. }),
            _ => false,
        }
    }

    pub(crate) fn not_opened(topic: &Arc<str>, partition: u32, dir: &Path, source: LogError) -> EngineError {
        EngineError::LogNotOpened { topic: Arc::clone(topic), partition, path: dir.to_owned(), source: Arc::new(source) }
    }

    pub(crate) fn data_dir(operation: &'static str, path: impl Into<PathBuf>, source: io::Error) -> EngineError {
        EngineError::DataDir { operation, path: path.into(), source: Arc::new(source) }
    }
}

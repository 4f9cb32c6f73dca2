//! Errors as they cross the wire: a stable number, a retry flag, and words for a person.
//!
//! A code is never reused for another meaning and never renumbered. A peer that does not know a code still has the retry flag, the
//! message and the hint, so a newer broker can speak to an older client.

use serde::{Deserialize, Serialize};

macro_rules! error_codes {
    ($( $(#[$doc:meta])* $variant:ident = $number:literal, $name:literal, $retry:literal; )*) => {
        /// What went wrong, as a number that never changes its meaning.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum ErrorCode {
            $( $(#[$doc])* $variant, )*
            /// A code that this build does not know; it came from a newer peer.
            Unrecognised(u16),
        }

        impl ErrorCode {
            /// Every code that this build knows, in the order of their numbers.
            pub const ALL: &'static [ErrorCode] = &[ $( ErrorCode::$variant, )* ];

            /// The number on the wire.
            pub const fn number(self) -> u16 {
                match self {
                    $( ErrorCode::$variant => $number, )*
                    ErrorCode::Unrecognised(number) => number,
                }
            }

            /// The code with this number.
            pub const fn from_number(number: u16) -> ErrorCode {
                match number {
                    $( $number => ErrorCode::$variant, )*
                    other => ErrorCode::Unrecognised(other),
                }
            }

            /// The name that logs, JSON output and the SDKs show.
            pub const fn name(self) -> &'static str {
                match self {
                    $( ErrorCode::$variant => $name, )*
                    ErrorCode::Unrecognised(_) => "unrecognised",
                }
            }

            /// Whether the same request may succeed later without anyone changing anything.
            pub const fn retryable(self) -> bool {
                match self {
                    $( ErrorCode::$variant => $retry, )*
                    ErrorCode::Unrecognised(_) => false,
                }
            }
        }
    };
}

error_codes! {
    /// The broker failed in a way that it did not foresee; its log has the cause.
    Internal = 1, "internal", false;
    /// The request is not well formed: bad CBOR, a frame out of place, a field out of its range.
    InvalidRequest = 2, "invalid_request", false;
    /// The broker does not know this request; it is older than the client.
    UnsupportedRequest = 3, "unsupported_request", false;
    /// A frame announced more bytes than the limit.
    FrameTooLarge = 4, "frame_too_large", false;
    /// The broker is stopping and takes nothing new.
    ShuttingDown = 5, "shutting_down", true;
    /// A limit on connections, streams, memory or open files is reached at this moment.
    Overloaded = 6, "overloaded", true;
    /// The broker did not finish in the time that it allows itself.
    TimedOut = 7, "timed_out", true;

    /// No topic has this name.
    TopicNotFound = 20, "topic_not_found", false;
    /// A topic with this name is there already.
    TopicExists = 21, "topic_exists", false;
    /// The name or the number of partitions is not allowed.
    InvalidTopic = 22, "invalid_topic", false;
    /// The topic has fewer partitions than that.
    PartitionOutOfRange = 23, "partition_out_of_range", false;
    /// A setting has a value that it cannot take.
    InvalidConfig = 24, "invalid_config", false;
    /// Other topics send records there, and it can't be deleted.
    TopicInUse = 25, "topic_in_use", false;

    /// The offset lies before the start or behind the end of the log; the message names the range.
    OffsetOutOfRange = 40, "offset_out_of_range", false;
    /// The checksum of a batch does not match its bytes.
    CorruptBatch = 41, "corrupt_batch", false;
    /// A batch is larger than the topic takes.
    BatchTooLarge = 42, "batch_too_large", false;
    /// A batch breaks a rule of the format, checksum aside.
    InvalidBatch = 43, "invalid_batch", false;
    /// A write or a flush failed: the partition has stopped writing and still serves reads.
    StorageFailed = 44, "storage_failed", false;
    /// The disk has no room.
    StorageFull = 45, "storage_full", true;
    /// The sequence of a batch does not continue its producer's: one before it is missing.
    OutOfOrderSequence = 46, "out_of_order_sequence", false;
    /// The producer has begun a newer epoch.
    InvalidProducerEpoch = 47, "invalid_producer_epoch", false;
    /// Nothing is known of the producer, and the batch is not its first.
    UnknownProducerId = 48, "unknown_producer_id", false;
    /// The batch was stored before, or numbered like one that was, too long ago to say where.
    DuplicateSequence = 49, "duplicate_sequence", false;
    /// A record breaks a rule of the topic: it has no key, and the topic is compacted.
    InvalidRecord = 50, "invalid_record", false;

    /// No module has this name.
    ModuleNotFound = 60, "module_not_found", false;
    /// The upload is not a WebAssembly component, nor a core module that carries its component type.
    ModuleInvalid = 61, "module_invalid", false;
    /// The component exports none of the worlds that the broker runs.
    ModuleWrongWorld = 62, "module_wrong_world", false;
    /// The component asks for an import that is not granted.
    ModuleImportDenied = 63, "module_import_denied", false;
    /// The upload has more bytes than the limit; or more code, a more complex function or a longer signature than the broker compiles.
    ModuleTooLarge = 64, "module_too_large", false;
    /// The module is attached somewhere and can't be deleted.
    ModuleInUse = 65, "module_in_use", false;
    /// The place for an attachment is taken, or a module is attached there already.
    AttachmentExists = 66, "attachment_exists", false;
    /// Nothing by this name is attached there.
    AttachmentNotFound = 67, "attachment_not_found", false;
    /// The topic has no view of this name.
    ViewNotFound = 68, "view_not_found", false;

    /// The guest returned an error of its own.
    GuestFailed = 80, "guest_failed", false;
    /// The guest trapped: an abort, an unreachable instruction, an access outside its memory, a stack overflow.
    GuestTrapped = 81, "guest_trapped", false;
    /// The guest ran longer than its time limit.
    GuestTimedOut = 82, "guest_timed_out", false;
    /// The guest asked for more memory than its limit.
    GuestOutOfMemory = 83, "guest_out_of_memory", false;
    /// What the guest returned breaks the contract or is larger than its limit.
    GuestOutputInvalid = 84, "guest_output_invalid", false;
    /// The guest has failed on everything for a while, and is not called at this moment.
    GuestPaused = 85, "guest_paused", true;
    /// The guest fails on so much of a batch that its records were not all tried: nothing of it is stored. Smaller batches pass.
    GuestSearchEnded = 86, "guest_search_ended", false;
}

impl Serialize for ErrorCode {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u16(self.number())
    }
}

impl<'de> Deserialize<'de> for ErrorCode {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        u16::deserialize(deserializer).map(ErrorCode::from_number)
    }
}

impl std::fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ErrorCode::Unrecognised(number) => write!(f, "unrecognised ({number})"),
            known => f.write_str(known.name()),
        }
    }
}

/// An error as it is sent: in a [`crate::frame::Kind::Error`] frame, as CBOR.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct WireError {
    /// What went wrong.
    pub code: ErrorCode,
    /// Whether trying again can help. Carried beside the code so that a client obeys it for a code that it does not know.
    #[serde(default)]
    pub retryable: bool,
    /// What happened, with the values that matter, in one sentence without a full stop.
    #[serde(default)]
    pub message: String,
    /// What a person can do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// For [`ErrorCode::OffsetOutOfRange`]: the offsets that can be asked for, first to one past the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<(i64, i64)>,
    /// For [`ErrorCode::CorruptBatch`] of stored records: the first offset behind the damage that can be read, where it is known. A
    /// consumer goes on from there; the records in front of it can't be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_offset: Option<i64>,
    /// For a batch whose records the broker places: some of them are stored, and others are not. The same batch, sent again under the same
    /// numbers, stores those alone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub partly_stored: bool,
}

impl WireError {
    /// An error with the retry flag of its code and no hint.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> WireError {
        let (retryable, message) = (code.retryable(), message.into());
        WireError { code, retryable, message, hint: None, range: None, next_offset: None, partly_stored: false }
    }

    /// The same error with a hint.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> WireError {
        self.hint = Some(hint.into());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::ErrorCode;

    #[test]
    fn numbers_are_unique_and_survive_the_round_trip() {
        let mut seen = std::collections::BTreeSet::new();
        for code in ErrorCode::ALL {
            assert!(seen.insert(code.number()), "number {} is used twice", code.number());
            assert_eq!(ErrorCode::from_number(code.number()), *code);
        }
        assert_eq!(ErrorCode::from_number(65_000), ErrorCode::Unrecognised(65_000));
    }
}

//! Every error as data, with the kind that decides its class in each language.
//!
//! The code, the message, the hint and the retry flag are the client core's own, unchanged ([`millpond::Error`]). The kind is decided here, once,
//! so that Python and Node.js have the same classes.

use millpond::{Error, ErrorCode};
use std::{
    fmt,
    ops::{Deref, DerefMut},
    sync::Arc,
    time::Duration,
};

/// What sort of failure it is: a class in each language.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FailureKind {
    /// It took too long.
    Timeout,
    /// No connection came about, or it was lost.
    Connection,
    /// What answers is not the broker that was meant, or it is not allowed.
    Denied,
    /// There is no such topic, module, view or attachment.
    NotFound,
    /// There is one already.
    AlreadyExists,
    /// An argument, a setting or a request that cannot be.
    Invalid,
    /// A record, a batch or a module has too many bytes.
    TooLarge,
    /// An offset that the partition does not reach to, see [`Details::range`].
    OutOfRange,
    /// It is in use, and cannot be removed.
    InUse,
    /// The client, the producer or the consumer was closed.
    Closed,
    /// A module failed.
    Guest,
    /// Stored bytes are damaged, see [`Details::next_offset`].
    Corrupt,
    /// The broker's disk is full, or has failed.
    Storage,
    /// The broker takes nothing at this moment.
    Unavailable,
    /// What is sent does not go on where it ended: numbers of batches, epochs of producers.
    Sequence,
    /// The process is a child of the one that made the client.
    Forked,
    /// Something that should not be: a fault of the broker or of this client.
    Internal,
}

impl FailureKind {
    /// All of them.
    pub const ALL: [FailureKind; 17] = [
        FailureKind::Timeout,
        FailureKind::Connection,
        FailureKind::Denied,
        FailureKind::NotFound,
        FailureKind::AlreadyExists,
        FailureKind::Invalid,
        FailureKind::TooLarge,
        FailureKind::OutOfRange,
        FailureKind::InUse,
        FailureKind::Closed,
        FailureKind::Guest,
        FailureKind::Corrupt,
        FailureKind::Storage,
        FailureKind::Unavailable,
        FailureKind::Sequence,
        FailureKind::Forked,
        FailureKind::Internal,
    ];

    /// Its name, as in `not_found`.
    pub const fn name(self) -> &'static str {
        match self {
            FailureKind::Timeout => "timeout",
            FailureKind::Connection => "connection",
            FailureKind::Denied => "denied",
            FailureKind::NotFound => "not_found",
            FailureKind::AlreadyExists => "already_exists",
            FailureKind::Invalid => "invalid",
            FailureKind::TooLarge => "too_large",
            FailureKind::OutOfRange => "out_of_range",
            FailureKind::InUse => "in_use",
            FailureKind::Closed => "closed",
            FailureKind::Guest => "guest",
            FailureKind::Corrupt => "corrupt",
            FailureKind::Storage => "storage",
            FailureKind::Unavailable => "unavailable",
            FailureKind::Sequence => "sequence",
            FailureKind::Forked => "forked",
            FailureKind::Internal => "internal",
        }
    }
}

/// Why something failed, for whoever makes an exception of it. Its parts are those of [`Details`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure(Box<Details>);

/// The parts of a [`Failure`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Details {
    /// A name that never changes its meaning, as in `topic_not_found`.
    pub code: &'static str,
    /// What sort of failure it is.
    pub kind: FailureKind,
    /// What happened, in one sentence without a full stop.
    pub message: String,
    /// What a person can do about it.
    pub hint: Option<String>,
    /// Whether the same call may succeed later without anyone changing anything.
    pub retryable: bool,
    /// Whether what was asked for may have been done in spite of it.
    pub maybe_done: bool,
    /// With [`FailureKind::OutOfRange`], where the broker said so: the offsets that can be asked for, first to one past the last.
    pub range: Option<(i64, i64)>,
    /// With [`FailureKind::Corrupt`]: the offset behind the damage, where it is known.
    pub next_offset: Option<i64>,
    /// Where a partition failed that is being read, and with [`FailureKind::Corrupt`] where it is known: the partition.
    pub partition: Option<u32>,
    /// What led to it: of a wait that took too long what went wrong last. The message says it too.
    pub cause: Option<Failure>,
    /// Where a partition failed that is being read: its topic.
    pub topic: Option<Arc<str>>,
}

impl Failure {
    /// A failure with a code of a language package's own.
    pub fn new(kind: FailureKind, code: &'static str, message: impl Into<String>) -> Failure {
        Failure(Box::new(Details {
            code,
            kind,
            message: message.into(),
            hint: None,
            retryable: false,
            maybe_done: false,
            range: None,
            next_offset: None,
            partition: None,
            cause: None,
            topic: None,
        }))
    }

    /// The same with a hint.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Failure {
        self.0.hint = Some(hint.into());
        self
    }

    /// A setting or an argument that cannot be.
    pub fn invalid(message: impl Into<String>) -> Failure {
        Failure::new(FailureKind::Invalid, "invalid_setting", message)
    }

    /// `what` (the client, the producer, the consumer) is closed.
    pub fn closed(what: &str) -> Failure {
        Failure::new(FailureKind::Closed, "closed", format!("the {what} is closed"))
    }

    /// `what` was not done within a time.
    pub fn timed_out(what: &str, within: Duration) -> Failure {
        // What is left of a time that somebody has said is less than a millisecond from it.
        let whole = within.saturating_add(Duration::from_micros(500)).as_millis();
        let whole = u64::try_from(whole).map_or(within, Duration::from_millis);
        let within = if whole.is_zero() { within } else { whole };
        let mut failure = Failure::new(FailureKind::Timeout, ErrorCode::TimedOut.name(), format!("{what} took longer than {within:?}"));
        failure.0.retryable = true;
        failure
    }

    pub(crate) fn forked(owner: u32) -> Failure {
        let message = format!("this process was forked from process {owner}, in which the client was made: it has none of its threads");
        Failure::new(FailureKind::Forked, "forked", message).with_hint(
            "a process that has ever connected, even if all is closed again, has no children that can connect: connect in the children alone, or \
             start them in a way that does not fork it (Python: multiprocessing.get_context(\"spawn\"))",
        )
    }

    pub(crate) fn no_threads(reason: &str) -> Failure {
        Failure::new(FailureKind::Internal, "no_threads", format!("the threads for input and output could not be started: {reason}"))
            .with_hint("the process or its user may have as many threads as are allowed (`ulimit -u`)")
    }
}

impl Deref for Failure {
    type Target = Details;

    fn deref(&self) -> &Details {
        &self.0
    }
}

impl DerefMut for Failure {
    fn deref_mut(&mut self) -> &mut Details {
        &mut self.0
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::from(&error)
    }
}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Failure {
        let damage = match error {
            Error::UnreadableBatch { partition, next_offset, .. } => Some((Some(*partition), *next_offset)),
            _ => None,
        };
        let said = error.broker();
        Failure(Box::new(Details {
            code: error.code(),
            kind: kind_of(error),
            message: error.to_string(),
            hint: error.hint(),
            retryable: error.retryable(),
            maybe_done: error.maybe_done(),
            range: said.and_then(|said| said.range),
            next_offset: damage.and_then(|damage| damage.1).or_else(|| said.and_then(|said| said.next_offset)),
            partition: damage.and_then(|damage| damage.0),
            cause: match error {
                Error::TimedOut { last: cause, .. } | Error::Unanswered { refused: cause, .. } => cause.as_deref().map(Failure::from),
                _ => None,
            },
            topic: None,
        }))
    }
}

/// The one place that decides.
fn kind_of(error: &Error) -> FailureKind {
    match error {
        Error::InvalidUrl { .. } | Error::InvalidSetting { .. } | Error::CaFile { .. } | Error::NoSystemRoots { .. } => {
            FailureKind::Invalid
        }
        Error::InvalidRecord(_) | Error::PartitionOutOfRange { .. } => FailureKind::Invalid,
        Error::Connect { .. } | Error::ConnectionLost { .. } | Error::Unanswered { .. } | Error::WrongProtocol { .. } => {
            FailureKind::Connection
        }
        Error::Fingerprint { .. } | Error::Certificate { .. } => FailureKind::Denied,
        Error::TooManyStreams { .. } => FailureKind::Unavailable,
        Error::TimedOut { .. } => FailureKind::Timeout,
        Error::Broker(said) => kind_of_code(said.code),
        Error::UnreadableBatch { .. } => FailureKind::Corrupt,
        Error::RecordTooLarge { .. } => FailureKind::TooLarge,
        Error::Closed(_) => FailureKind::Closed,
        // `Protocol`, and what a newer core may add.
        _ => FailureKind::Internal,
    }
}

fn kind_of_code(code: ErrorCode) -> FailureKind {
    use ErrorCode as Code;
    match code {
        Code::TimedOut => FailureKind::Timeout,
        Code::ShuttingDown | Code::Overloaded => FailureKind::Unavailable,
        Code::TopicNotFound | Code::ModuleNotFound | Code::AttachmentNotFound | Code::ViewNotFound => FailureKind::NotFound,
        Code::TopicExists | Code::AttachmentExists => FailureKind::AlreadyExists,
        Code::TopicInUse | Code::ModuleInUse => FailureKind::InUse,
        Code::InvalidRequest | Code::UnsupportedRequest | Code::InvalidTopic | Code::PartitionOutOfRange | Code::InvalidConfig => {
            FailureKind::Invalid
        }
        Code::InvalidBatch | Code::InvalidRecord | Code::ModuleInvalid | Code::ModuleWrongWorld => FailureKind::Invalid,
        Code::ModuleImportDenied => FailureKind::Denied,
        Code::FrameTooLarge | Code::BatchTooLarge | Code::ModuleTooLarge => FailureKind::TooLarge,
        Code::OffsetOutOfRange => FailureKind::OutOfRange,
        Code::CorruptBatch => FailureKind::Corrupt,
        Code::StorageFailed | Code::StorageFull => FailureKind::Storage,
        Code::OutOfOrderSequence | Code::InvalidProducerEpoch | Code::UnknownProducerId | Code::DuplicateSequence => FailureKind::Sequence,
        Code::GuestFailed
        | Code::GuestTrapped
        | Code::GuestTimedOut
        | Code::GuestOutOfMemory
        | Code::GuestOutputInvalid
        | Code::GuestPaused
        | Code::GuestSearchEnded => FailureKind::Guest,
        // `Internal`, and codes of a newer broker.
        _ => FailureKind::Internal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use millpond::WireError;
    use std::collections::HashSet;

    #[test]
    fn every_code_of_a_broker_has_a_kind_of_its_own() {
        for code in ErrorCode::ALL {
            let expected = *code == ErrorCode::Internal;
            assert_eq!(kind_of_code(*code) == FailureKind::Internal, expected, "{code} needs a kind");
        }
        assert_eq!(kind_of_code(ErrorCode::Unrecognised(9_999)), FailureKind::Internal);
        let names: HashSet<_> = FailureKind::ALL.iter().map(|kind| kind.name()).collect();
        assert_eq!(names.len(), FailureKind::ALL.len());
    }

    #[test]
    fn what_the_broker_said_is_carried_unchanged() {
        let said =
            WireError { range: Some((5, 9)), ..WireError::new(ErrorCode::OffsetOutOfRange, "offset 1 is gone").with_hint("start later") };
        let failure = Failure::from(Error::Broker(said));
        assert_eq!((failure.code, failure.kind), ("offset_out_of_range", FailureKind::OutOfRange));
        assert_eq!((failure.to_string().as_str(), failure.hint.as_deref()), ("offset 1 is gone", Some("start later")));
        assert_eq!((failure.range, failure.retryable), (Some((5, 9)), false));
    }

    #[test]
    fn what_went_wrong_last_is_the_cause() {
        let lost = Error::Broker(WireError::new(ErrorCode::Overloaded, "too much"));
        let timed_out = Error::TimedOut {
            what: "opening".to_owned(),
            after: std::time::Duration::from_secs(1),
            maybe_done: false,
            last: Some(Box::new(lost)),
        };
        let cause = Failure::from(timed_out).cause.clone().unwrap();
        assert_eq!((cause.code, cause.kind, cause.cause.clone()), ("overloaded", FailureKind::Unavailable, None));
    }

    #[test]
    fn a_fork_is_told_with_a_way_out() {
        let failure = Failure::forked(7);
        assert_eq!((failure.code, failure.kind), ("forked", FailureKind::Forked));
        assert!(failure.hint.as_deref().unwrap().contains("spawn"));
    }
}

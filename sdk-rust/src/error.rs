//! What can go wrong, for whoever has to act on it.
//!
//! One variant for each cause. [`Error::code`] is a stable name, [`Error::retryable`] says whether trying again can help, and
//! [`Error::hint`] what a person can do. An error that the broker sent is carried unchanged in [`Error::Broker`]. The message of an error
//! is complete in itself; `source` is there for programs.

use crate::connection::is_refusal;
use millpond_protocol::{
    batch::BatchError,
    error::{ErrorCode, WireError},
};
use std::{path::PathBuf, sync::Arc, time::Duration};

/// The cause of an error. Shared, because every record of a batch gets the batch's error.
pub type Cause = Arc<dyn std::error::Error + Send + Sync>;

/// Why something failed. Cheap to clone.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The text is not the address of a broker.
    #[error("`{url}` is not the address of a broker: {reason}")]
    InvalidUrl {
        /// The text.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A setting has a value that it cannot take.
    #[error("{setting} cannot be {value}: {reason}")]
    InvalidSetting {
        /// The setting's name.
        setting: &'static str,
        /// The value.
        value: String,
        /// What it can be.
        reason: &'static str,
    },
    /// The file with the certificate authority's certificates could not be used.
    #[error("{} holds no certificates to trust: {reason}", path.display())]
    CaFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The operating system names no certificate authorities.
    #[error("the operating system names no certificate authorities to trust: {reason}")]
    NoSystemRoots {
        /// What was found instead.
        reason: String,
    },
    /// No connection came about.
    #[error("could not reach a broker at {address}: {reason}")]
    Connect {
        /// Host and port.
        address: String,
        /// What happened.
        reason: String,
        /// The cause, where there is one.
        #[source]
        cause: Option<Cause>,
    },
    /// The broker has another certificate than the one whose fingerprint was given.
    #[error("the broker at {address} has a certificate with the fingerprint {actual}, and {expected} was expected")]
    Fingerprint {
        /// Host and port.
        address: String,
        /// The fingerprint that was given.
        expected: String,
        /// The fingerprint of the certificate that the broker showed.
        actual: String,
    },
    /// The broker's certificate is not one of those to trust, or is for another name.
    #[error("the certificate of the broker at {address} is not trusted: {reason}")]
    Certificate {
        /// Host and port.
        address: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Something answered that does not speak this protocol.
    #[error("what answers at {address} does not speak millpond/1: {reason}")]
    WrongProtocol {
        /// Host and port.
        address: String,
        /// What it said.
        reason: String,
    },
    /// The connection, or one stream of it, ended early. Nothing was left undecided by it.
    #[error("the connection to the broker was lost: {reason}")]
    ConnectionLost {
        /// What happened.
        reason: String,
        /// The cause, where there is one.
        #[source]
        cause: Option<Cause>,
    },
    /// The broker allows no more streams on this connection, and none became free in time.
    #[error("the broker allows no more streams on this connection, and none became free within {after:?}")]
    TooManyStreams {
        /// How long that was.
        after: Duration,
    },
    /// The connection was lost between a request, or a batch, and its answer. Where it was sent again, that failed for good; a batch for
    /// instance because the broker had forgotten its producer in the meantime and cannot say whether it has the batch.
    #[error("the connection was lost before the broker answered: {what} may or may not have been done ({reason})")]
    Unanswered {
        /// What was asked for.
        what: String,
        /// How the connection was lost, or what came of sending it again.
        reason: String,
        /// Why sending it again failed for good; none where that was not tried.
        #[source]
        refused: Option<Box<Error>>,
    },
    /// It was not done in the time that was given.
    #[error("{what} took longer than {after:?}{}{}", if *maybe_done { " and may or may not have been done" } else { "; it was not done" },
        last.as_ref().map(|error| format!(" ({error})")).unwrap_or_default())]
    TimedOut {
        /// What was asked for.
        what: String,
        /// The time that was given.
        after: Duration,
        /// Whether it may have been done all the same.
        maybe_done: bool,
        /// What went wrong last on the way, if anything did.
        #[source]
        last: Option<Box<Error>>,
    },
    /// The broker said no.
    #[error("{0}")]
    Broker(WireError),
    /// The broker sent something that this client does not understand, or that is out of place.
    #[error("the broker broke the protocol: {0}")]
    Protocol(String),
    /// A batch that was read is damaged or not well formed.
    #[error("the batch at offset {offset} of {topic}[{partition}] cannot be read: {cause}")]
    UnreadableBatch {
        /// The topic.
        topic: Arc<str>,
        /// The partition.
        partition: u32,
        /// The batch's first offset, or the one that was asked for.
        offset: i64,
        /// The offset behind the batch, from which reading can go on; none where the batch does not even say that.
        next_offset: Option<i64>,
        /// What is wrong with it.
        #[source]
        cause: BatchError,
    },
    /// A record cannot be written, or a batch could not be compressed.
    #[error("the record cannot be written: {0}")]
    InvalidRecord(#[source] BatchError),
    /// A record is larger than the topic takes.
    #[error("the record takes {bytes} bytes in a batch of its own, and the topic takes batches of up to {limit} bytes")]
    RecordTooLarge {
        /// Bytes that a batch with this record alone takes, without compression.
        bytes: usize,
        /// The largest batch that the topic takes, in bytes.
        limit: usize,
    },
    /// A record or a consumer names a partition that the topic does not have.
    #[error("the topic `{topic}` has no partition {partition}: it has {partitions}, from 0 to {}", .partitions.saturating_sub(1))]
    PartitionOutOfRange {
        /// The topic.
        topic: Arc<str>,
        /// The partition that was named.
        partition: u32,
        /// How many there are.
        partitions: u32,
        /// Whether it was to be read; else to be written.
        reading: bool,
    },
    /// The client or the producer was closed.
    #[error("the {0} is closed")]
    Closed(&'static str),
}

impl Error {
    /// A name that never changes its meaning: the broker's own (see [`ErrorCode::name`]) or one of this client's.
    pub fn code(&self) -> &'static str {
        match self {
            Error::InvalidUrl { .. } => "invalid_url",
            Error::InvalidSetting { .. } => "invalid_setting",
            Error::CaFile { .. } => "ca_file_unusable",
            Error::NoSystemRoots { .. } => "no_system_roots",
            Error::Connect { .. } => "connect_failed",
            Error::Fingerprint { .. } => "fingerprint_mismatch",
            Error::Certificate { .. } => "certificate_untrusted",
            Error::WrongProtocol { .. } => "wrong_protocol",
            Error::ConnectionLost { .. } => "connection_lost",
            Error::TooManyStreams { .. } => "too_many_streams",
            Error::Unanswered { .. } => "unanswered",
            Error::TimedOut { .. } => ErrorCode::TimedOut.name(),
            Error::Broker(error) => error.code.name(),
            Error::Protocol(_) => "protocol_violation",
            Error::UnreadableBatch { cause, .. } => cause.code().name(),
            Error::InvalidRecord(_) => "invalid_record",
            Error::RecordTooLarge { .. } => "record_too_large",
            Error::PartitionOutOfRange { .. } => ErrorCode::PartitionOutOfRange.name(),
            Error::Closed(_) => "closed",
        }
    }

    /// Whether the same call may succeed later without anyone changing anything. Where [`Error::maybe_done`] holds too, a second
    /// try can do it twice.
    pub const fn retryable(&self) -> bool {
        match self {
            Error::Connect { .. }
            | Error::ConnectionLost { .. }
            | Error::TooManyStreams { .. }
            | Error::Unanswered { refused: None, .. }
            | Error::TimedOut { .. } => true,
            Error::Broker(error) => error.retryable,
            _ => false,
        }
    }

    /// Whether what was asked for may have been done in spite of the error.
    pub const fn maybe_done(&self) -> bool {
        match self {
            Error::Unanswered { .. } => true,
            Error::TimedOut { maybe_done, .. } => *maybe_done,
            Error::Broker(error) => error.partly_stored || matches!(error.code, ErrorCode::TimedOut),
            _ => false,
        }
    }

    /// What the broker sent, if it was the broker that said no.
    pub const fn broker(&self) -> Option<&WireError> {
        match self {
            Error::Broker(error) => Some(error),
            _ => None,
        }
    }

    /// How the connection was lost, for an error that says already that it was.
    pub(crate) fn how_lost(&self) -> String {
        match self {
            Error::ConnectionLost { reason, .. } => reason.clone(),
            other => other.to_string(),
        }
    }

    /// What a person can do about it.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Error::Broker(WireError { hint: None, code: ErrorCode::InvalidProducerEpoch, .. }) => {
                "another producer has the same producer id, as happens when a broker's data folder was put back to an older state; what is \
                 sent from now on goes under another id"
            }
            Error::Broker(error) => return error.hint.clone(),
            Error::TimedOut { last: Some(last), .. } => return last.hint(),
            Error::Unanswered { refused: Some(refused), .. } => {
                let look = "look whether it was done; an earlier try may have done it";
                return Some(refused.hint().map_or_else(|| look.to_owned(), |hint| format!("{look}. As for the last try: {hint}")));
            }
            Error::UnreadableBatch { next_offset: Some(next), .. } => return Some(format!("seek to offset {next} to read on behind it")),
            Error::InvalidUrl { .. } => {
                "an address looks like millpond://localhost:9440?fp=sha256:<64 hex digits>; `millpond serve` prints its own when it starts and \
                 writes it to <data-dir>/url"
            }
            Error::CaFile { .. } => "give the PEM file of the authority that signed the broker's certificate",
            Error::NoSystemRoots { .. } => {
                "put the broker's fingerprint into the address (?fp=sha256:...) or name the PEM file of the authority that signed its \
                 certificate (`--ca-file PATH`, the setting `ca_file` of a client, or ?ca=PATH in the address)"
            }
            Error::Connect { cause: Some(cause), .. } if is_refusal(&**cause) => {
                "it has as many connections as it takes (`quic.connections_max`), or it is stopping: try again after a moment"
            }
            Error::Connect { .. } => {
                "is `millpond serve` running there? Check host and port, and that UDP is let through: the broker listens on UDP port 9440 of \
                 the loopback address until told otherwise (--quic-listen)"
            }
            Error::Fingerprint { .. } => {
                "if the broker's certificate was renewed, take the new address from <data-dir>/url on its machine; if not, something else \
                 answers in its place"
            }
            Error::Certificate { .. } => {
                "a broker makes its own certificate when it starts for the first time: use the address that it printed (with ?fp=sha256:...), \
                 or name the PEM file of its authority, <data-dir>/tls/ca.pem (`--ca-file PATH`, the setting `ca_file` of a client, or ?ca=PATH in the \
                 address)"
            }
            Error::WrongProtocol { .. } => "check host and port, and that client and broker are of versions that go together",
            Error::Unanswered { .. } | Error::TimedOut { maybe_done: true, .. } => "look whether it was done before you do it again",
            Error::TooManyStreams { .. } => {
                "each partition takes a stream while it is read or written to: use several clients, or raise the broker's \
                 `quic.streams_per_connection_max`"
            }
            Error::RecordTooLarge { .. } => {
                "let the topic take larger batches (`millpond topic alter TOPIC --max-batch-bytes SIZE`), or send smaller records"
            }
            Error::PartitionOutOfRange { partitions, reading, .. } => {
                let last = partitions.saturating_sub(1);
                let none = if *reading { "to read them all" } else { "to leave the choice to the partitioner" };
                return Some(format!("name partitions from 0 to {last}, or none {none}"));
            }
            _ => return None,
        };
        Some(hint.to_owned())
    }
}

impl From<WireError> for Error {
    fn from(error: WireError) -> Error {
        Error::Broker(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_broker_said_is_carried_unchanged() {
        let wire = WireError::new(ErrorCode::StorageFull, "the disk has 0 bytes left").with_hint("make room");
        let error = Error::from(wire.clone());
        assert_eq!(error.code(), "storage_full");
        assert!(error.retryable());
        assert_eq!(error.hint().as_deref(), Some("make room"));
        assert_eq!(error.to_string(), "the disk has 0 bytes left");
        assert_eq!(error.broker(), Some(&wire));
    }

    #[test]
    fn the_retry_flag_of_a_code_from_a_newer_broker_is_obeyed() {
        let wire = WireError { retryable: true, ..WireError::new(ErrorCode::Unrecognised(9000), "later") };
        assert!(Error::from(wire).retryable());
    }

    #[test]
    fn a_timeout_says_whether_it_may_have_been_done_and_what_went_wrong_last() {
        let lost = Error::ConnectionLost { reason: "timed out".into(), cause: None };
        let error = Error::TimedOut {
            what: "create topic `a`".into(),
            after: Duration::from_secs(30),
            maybe_done: true,
            last: Some(Box::new(lost)),
        };
        assert_eq!(
            error.to_string(),
            "create topic `a` took longer than 30s and may or may not have been done (the connection to the broker was lost: timed out)"
        );
        assert!(error.maybe_done() && error.retryable());
    }

    #[test]
    fn a_partition_out_of_range_has_a_hint_for_whoever_reads_or_writes() {
        let hint = |reading| {
            let error = Error::PartitionOutOfRange { topic: "readings".into(), partition: 9, partitions: 3, reading };
            assert_eq!(error.to_string(), "the topic `readings` has no partition 9: it has 3, from 0 to 2");
            error.hint().unwrap()
        };
        assert_eq!(hint(true), "name partitions from 0 to 2, or none to read them all");
        assert_eq!(hint(false), "name partitions from 0 to 2, or none to leave the choice to the partitioner");
    }

    #[test]
    fn hints_name_what_there_is() {
        let hint = |error: Error| error.hint().unwrap();
        assert!(hint(Error::RecordTooLarge { bytes: 2, limit: 1 }).contains("`millpond topic alter TOPIC --max-batch-bytes SIZE`"));
        let certificate = hint(Error::Certificate { address: "localhost:9440".into(), reason: "unknown issuer".into() });
        assert!(["fp=sha256:", "--ca-file", "ca_file", "ca.pem"].iter().all(|way| certificate.contains(way)), "{certificate}");
    }
}

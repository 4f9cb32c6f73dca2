//! What becomes of a batch, by what is known of its producer. Pure.

use millpond_protocol::batch::BatchHeader;
use millpond_protocol::error::ErrorCode;
use thiserror::Error;

use super::producer::{Appended, Producer, ProducerBatch, is_newer, last_sequence, next_sequence};

/// What a batch must follow on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SequenceOrder {
    /// Each batch of the producer goes to this partition: it begins with the sequence after the last one.
    Next,
    /// Likewise, and a module has changed how many offsets the batch takes: its header says where it ends, and this where it began.
    NextFrom {
        /// The base sequence that its producer gave it.
        base_sequence: i32,
    },
    /// The broker places the records: the batch is the part of one that goes to this partition, and there may be any number of records
    /// between two parts.
    After {
        /// The last sequence of the previous part that the same stream has sent to this partition. None where there was none: any later
        /// one is taken, and it may begin a producer or an epoch anywhere.
        previous: Option<i32>,
    },
    /// On nothing: it is there already if one with its last sequence and its checksum is remembered, and taken wherever it comes if not. For what
    /// the broker makes of a batch that may come again, and of others nothing.
    Any,
}

/// Why a batch of a producer is not appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SequenceError {
    /// Batches before this one are missing.
    #[error("producer {producer_id} in epoch {epoch} goes on with sequence {found}, expected {expected}: batches before it are missing")]
    OutOfOrder {
        /// The producer.
        producer_id: i64,
        /// The epoch of the batch.
        epoch: i16,
        /// The sequence that follows on what is stored.
        expected: i32,
        /// The base sequence of the batch; of a part, the sequence after the part before it.
        found: i32,
    },
    /// The producer has begun a new epoch since.
    #[error("epoch {epoch} of producer {producer_id} is over: it has begun epoch {expected}")]
    OldEpoch {
        /// The producer.
        producer_id: i64,
        /// The epoch of the batch.
        epoch: i16,
        /// The newest epoch that the log knows.
        expected: i16,
    },
    /// Nothing is known of the producer, and the batch is not its first: it was forgotten, or its first batches were not stored.
    #[error("nothing is known of producer {producer_id}, and its batch in epoch {epoch} begins with sequence {found}, expected 0")]
    UnknownProducer {
        /// The producer.
        producer_id: i64,
        /// The epoch of the batch.
        epoch: i16,
        /// The base sequence of the batch.
        found: i32,
    },
    /// The batch was stored before, too long ago to say where; or the first time other records of it came to this partition.
    #[error(
        "producer {producer_id} in epoch {epoch} sends again what ends with sequence {found}, which was stored otherwise or too long ago \
         to say where: expected sequence {expected} to follow"
    )]
    Duplicate {
        /// The producer.
        producer_id: i64,
        /// The epoch of the batch.
        epoch: i16,
        /// The sequence that follows on what is stored.
        expected: i32,
        /// The last sequence of the batch.
        found: i32,
    },
    /// No producer has such numbers.
    #[error("producer id {producer_id}, epoch {epoch} and base sequence {found} do not go together: expected none of them to be negative")]
    InvalidProducer {
        /// The producer.
        producer_id: i64,
        /// The epoch of the batch.
        epoch: i16,
        /// The base sequence of the batch.
        found: i32,
    },
}

impl SequenceError {
    /// The code that crosses the wire for this error.
    pub fn code(&self) -> ErrorCode {
        match self {
            SequenceError::OutOfOrder { .. } => ErrorCode::OutOfOrderSequence,
            SequenceError::OldEpoch { .. } => ErrorCode::InvalidProducerEpoch,
            SequenceError::UnknownProducer { .. } => ErrorCode::UnknownProducerId,
            SequenceError::Duplicate { .. } => ErrorCode::DuplicateSequence,
            SequenceError::InvalidProducer { .. } => ErrorCode::InvalidBatch,
        }
    }
}

/// What becomes of a batch that is not refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is the next one.
    New,
    /// It is there already.
    Repeated(Appended),
}

/// Whether the fields of the producer are such as a producer has.
pub(super) fn is_valid(header: &BatchHeader) -> bool {
    header.producer_id >= 0 && header.producer_epoch >= 0 && header.base_sequence >= 0
}

/// Where these very bytes are, if they are remembered.
fn repeated(known: Option<&Producer>, header: &BatchHeader) -> Option<Appended> {
    let producer = known.filter(|producer| producer.epoch == header.producer_epoch)?;
    let is_same = |batch: &&ProducerBatch| (batch.last_sequence, batch.crc) == (last_sequence(header), header.crc);
    producer.batches().iter().rev().find(is_same).map(|same| same.appended)
}

/// Judges a batch with valid fields by what is known of its producer.
pub(super) fn judge(known: Option<&Producer>, header: &BatchHeader, order: SequenceOrder) -> Result<Verdict, SequenceError> {
    let (producer_id, epoch) = (header.producer_id, header.producer_epoch);
    // Where the batch says that it goes on; a part says it by the part before it.
    let found = match order {
        SequenceOrder::Next => Some(header.base_sequence),
        SequenceOrder::NextFrom { base_sequence } => Some(base_sequence),
        SequenceOrder::After { previous } => previous.map(next_sequence),
        SequenceOrder::Any => return Ok(repeated(known, header).map_or(Verdict::New, Verdict::Repeated)),
    };
    let begins = |found: i32| SequenceError::OutOfOrder { producer_id, epoch, expected: 0, found };
    let is_part = matches!(order, SequenceOrder::After { .. });
    let known = known.and_then(|producer| producer.last_sequence().map(|last| (producer, last)));
    let Some((producer, last)) = known else {
        return match found {
            None => Ok(Verdict::New),
            Some(0) if !is_part => Ok(Verdict::New),
            Some(found) if is_part => Err(begins(found)),
            Some(found) => Err(SequenceError::UnknownProducer { producer_id, epoch, found }),
        };
    };
    if epoch < producer.epoch {
        return Err(SequenceError::OldEpoch { producer_id, epoch, expected: producer.epoch });
    }
    if epoch > producer.epoch {
        return match found {
            None => Ok(Verdict::New),
            Some(0) if !is_part => Ok(Verdict::New),
            Some(found) => Err(begins(found)),
        };
    }

    let (last_found, expected) = (last_sequence(header), next_sequence(last));
    let duplicate = SequenceError::Duplicate { producer_id, epoch, expected, found: last_found };
    if let Some(same) = producer.batches().iter().rev().find(|batch| batch.last_sequence == last_found) {
        // Sent whole, it is what it was, whatever modules make of it this time. A part may be another one.
        let is_same = !is_part || same.crc == header.crc;
        return if is_same { Ok(Verdict::Repeated(same.appended)) } else { Err(duplicate) };
    }
    match found {
        Some(found) if found == expected && !is_part => Ok(Verdict::New),
        _ if !is_newer(last_found, last) => Err(duplicate),
        Some(found) if found != expected => Err(SequenceError::OutOfOrder { producer_id, epoch, expected, found }),
        _ => Ok(Verdict::New),
    }
}

//! From a commit into the targets: each batch once, however often it is tried.
//!
//! A target knows the sequence of what it has of this producer. What it answers is held against what the store says:
//!
//! | the target | means | and then |
//! |---|---|---|
//! | takes it, or has it | all is well | the next one |
//! | knows nothing of the producer, or is behind | it was forgotten over a long pause, or the target has lost its end | said, and appended |
//! | is ahead | the store has lost its last commits | nothing is written: [`EngineError::DerivedDiverged`] |

use super::frame::Output;
use crate::{
    engine::Engine,
    error::{EngineError, Purpose},
    inflight::{InflightPermit, Reserved},
    partition::{Partition, Submission},
    topic::Topic,
};
use futures_util::future::join_all;
use millpond_log::{PRODUCER_BATCHES_MAX, SequenceError, SequenceOrder};
use millpond_protocol::{
    batch::{Batch, sequence_before},
    message::Ack,
};
use std::sync::Arc;

impl Engine {
    /// Appends what was committed to the targets, and waits until they have it on disk. What was for a topic that has taken dead letters and is
    /// gone, is gone with it.
    pub(super) async fn apply(&self, targets: &[Option<Arc<Topic>>], outputs: &[Output]) -> Result<(), EngineError> {
        // Those for one partition follow each other, in order.
        let places = outputs.chunk_by(|one, next| (one.target, one.partition) == (next.target, next.partition));
        let applied = join_all(places.map(|outputs| apply_to(targets, outputs))).await;
        applied.into_iter().collect()
    }
}

/// For one partition of one target.
async fn apply_to(targets: &[Option<Arc<Topic>>], outputs: &[Output]) -> Result<(), EngineError> {
    let mut durable_to = None;
    for (index, output) in outputs.iter().enumerate() {
        let Some(Some(topic)) = targets.get(output.target as usize) else {
            tracing::warn!(partition = output.partition, "dead letters go nowhere: their topic was deleted before it had them");
            return Ok(());
        };
        let partition = topic.partition(output.partition, Purpose::Produce)?;
        let batch = Batch::parse(output.batch.clone())?;
        // Longer ago than a partition remembers, its producer's batches are known by their numbers alone.
        let may_be_forgotten = outputs.len() - index > PRODUCER_BATCHES_MAX;
        if let Some(ack) = append(topic, partition, batch, may_be_forgotten).await? {
            durable_to = Some((partition, ack.last_offset + 1));
        }
    }
    match durable_to {
        Some((partition, end_offset)) => partition.make_durable(end_offset).await,
        None => Ok(()),
    }
}

/// Appends a batch, unless it is there. No answer where it was, so long ago that nobody knows where.
async fn append(topic: &Topic, partition: &Arc<Partition>, batch: Batch, may_be_forgotten: bool) -> Result<Option<Ack>, EngineError> {
    let begins_with = batch.header().base_sequence;
    let previous = (begins_with != 0).then(|| sequence_before(begins_with, 1));
    let (expected, found) = match submit(topic, partition, &batch, previous).await {
        Ok(ack) => return Ok(Some(ack)),
        Err(EngineError::Sequence { source: SequenceError::Duplicate { .. }, .. }) if may_be_forgotten => return Ok(None),
        Err(EngineError::Sequence {
            source: SequenceError::Duplicate { expected, found, .. } | SequenceError::OutOfOrder { expected, found, .. },
            ..
        }) => (expected, found),
        Err(error) => return Err(error),
    };
    let behind = sequence_before(begins_with, expected);
    if expected != 0 && behind > SEQUENCES_BEHIND_MAX {
        return Err(EngineError::DerivedDiverged { topic: Arc::clone(&topic.name), partition: partition.number(), expected, found });
    }
    let (topic_name, number) = (&topic.name, partition.number());
    tracing::warn!(topic = %topic_name, partition = number, expected, found, "a topic has less than was derived into it; it goes on behind that");
    submit(topic, partition, &batch, None).await.map(Some)
}

async fn submit(topic: &Topic, partition: &Arc<Partition>, batch: &Batch, previous: Option<i32>) -> Result<Ack, EngineError> {
    let submission = Submission {
        batch: batch.clone(),
        records_dropped: 0,
        topic_epoch: topic.runtime().epoch,
        order: SequenceOrder::After { previous },
        is_nothing: false,
        // The memory is that of the round, of which there are few.
        permit: InflightPermit::new(Reserved::nothing()),
    };
    partition.submit(submission).await?.await.unwrap_or(Err(EngineError::JobLost { pool: "io" }))
}

/// On a circle of 2^31: what is further behind is ahead.
const SEQUENCES_BEHIND_MAX: i32 = 1 << 30;

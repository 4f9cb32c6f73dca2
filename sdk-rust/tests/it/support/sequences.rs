//! What a broker knows of the producers of a partition, and what it says to their batches (KIP-98).

use millpond_protocol::{batch::BatchHeader, error::ErrorCode};
use std::collections::{HashMap, VecDeque};

/// Batches of a producer whose answers are remembered.
const REMEMBERED_BATCHES: usize = 5;

/// The producers of a partition. `A` is the answer to a batch.
#[derive(Clone, Debug)]
pub(crate) struct Sequences<A> {
    producers: HashMap<i64, Known<A>>,
}

#[derive(Clone, Debug)]
struct Known<A> {
    epoch: i16,
    /// The sequence that the next batch must have.
    next: i32,
    /// Sequence and answer of the last batches.
    last: VecDeque<(i32, A)>,
}

/// What is to be done with a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict<A> {
    Append,
    /// It was stored before: this was the answer.
    Again(A),
    Refuse(ErrorCode),
}

impl<A: Clone> Sequences<A> {
    pub(crate) fn new() -> Sequences<A> {
        Sequences { producers: HashMap::new() }
    }

    /// What the numbers of a batch say about it.
    pub(crate) fn look_at(&self, batch: &BatchHeader) -> Verdict<A> {
        let first_or = |code| if batch.base_sequence == 0 { Verdict::Append } else { Verdict::Refuse(code) };
        if batch.producer_id < 0 {
            return Verdict::Append;
        }
        let Some(known) = self.producers.get(&batch.producer_id) else { return first_or(ErrorCode::UnknownProducerId) };
        if batch.producer_epoch < known.epoch {
            return Verdict::Refuse(ErrorCode::InvalidProducerEpoch);
        }
        if batch.producer_epoch > known.epoch {
            return first_or(ErrorCode::OutOfOrderSequence);
        }
        if batch.base_sequence == known.next {
            return Verdict::Append;
        }
        if let Some((_, answer)) = known.last.iter().find(|(sequence, _)| *sequence == batch.base_sequence) {
            return Verdict::Again(answer.clone());
        }
        // Behind the next one or before it, on a circle.
        let ahead = batch.base_sequence.wrapping_sub(known.next) & i32::MAX;
        Verdict::Refuse(if ahead < i32::MAX / 2 { ErrorCode::OutOfOrderSequence } else { ErrorCode::DuplicateSequence })
    }

    /// A batch was appended and has this answer.
    pub(crate) fn appended(&mut self, batch: &BatchHeader, answer: A) {
        if batch.producer_id < 0 {
            return;
        }
        let fresh = || Known { epoch: batch.producer_epoch, next: 0, last: VecDeque::new() };
        let known = self.producers.entry(batch.producer_id).or_insert_with(fresh);
        if known.epoch != batch.producer_epoch {
            *known = fresh();
        }
        known.next = batch.base_sequence.wrapping_add(batch.last_offset_delta).wrapping_add(1) & i32::MAX;
        known.last.push_back((batch.base_sequence, answer));
        if known.last.len() > REMEMBERED_BATCHES {
            known.last.pop_front();
        }
    }
}

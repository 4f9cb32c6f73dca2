//! Encoded batches of one partition: those that were sent and are not answered, and those that wait to be sent, first or again.
//!
//! Pure: time is an argument.

use super::pending::Pending;
use bytes::Bytes;
use std::{collections::VecDeque, sync::Arc, time::Duration};
use tokio::time::Instant;

/// An encoded batch.
#[derive(Debug)]
pub(crate) struct Outgoing {
    /// As it travels. Kept until it is answered, so that it can be sent again.
    pub(crate) bytes: Bytes,
    pub(crate) pending: Arc<Pending>,
    pub(crate) records: u32,
    /// Bytes that its records took from the producer's buffer.
    pub(crate) charged: usize,
    /// Its place in the order of the partition's batches.
    pub(crate) sequence: u64,
    /// When its first record came.
    pub(crate) opened_at: Instant,
    /// When it was sent last.
    pub(crate) sent_at: Option<Instant>,
    /// It was sent whole, and the answer got lost with the stream.
    pub(crate) maybe_stored: bool,
}

/// The encoded batches of one partition, each in its order.
#[derive(Debug, Default)]
pub(crate) struct Flight {
    sent: VecDeque<Slot>,
    waiting: VecDeque<Outgoing>,
    /// The newest of `sent` has not left whole: the broker cannot store it.
    writing: bool,
    /// A batch is being compressed.
    pub(crate) encoding: bool,
    /// The broker asked for patience: nothing is sent before.
    pub(crate) not_before: Option<Instant>,
    next_sequence: u64,
}

/// The broker answers in order, so a batch that was given up keeps its place until its answer comes.
#[derive(Debug)]
enum Slot {
    Sent(Outgoing),
    GivenUp,
}

/// What an answer belongs to.
#[derive(Debug)]
pub(crate) enum Answered {
    Batch(Outgoing),
    /// A batch whose records were told already that it took too long.
    GivenUp,
    /// There is no batch without an answer.
    Nothing,
}

impl Flight {
    /// The number of the next batch.
    pub(crate) fn number(&mut self) -> u64 {
        self.next_sequence += 1;
        self.next_sequence
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.sent.len()
    }

    /// Whether there is nothing to send, to encode or to wait for.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && !self.encoding && !self.is_waited_for()
    }

    /// Whether somebody waits for an answer on this stream.
    pub(crate) fn is_waited_for(&self) -> bool {
        self.sent.iter().any(|slot| matches!(slot, Slot::Sent(_)))
    }

    /// Puts a batch among those to be sent, where its number belongs.
    pub(crate) fn wait(&mut self, batch: Outgoing) {
        let at = self.waiting.partition_point(|other| other.sequence < batch.sequence);
        self.waiting.insert(at, batch);
    }

    /// The next batch to be sent.
    pub(crate) fn take(&mut self) -> Option<Outgoing> {
        self.waiting.pop_front()
    }

    /// A batch is sent now. It counts as in flight from here on: a broker that finds it too large answers before it has all of it.
    pub(crate) fn send(&mut self, mut batch: Outgoing, now: Instant) {
        batch.sent_at = Some(now);
        self.sent.push_back(Slot::Sent(batch));
        self.writing = true;
    }

    /// The batch that was sent last has left whole.
    pub(crate) fn written(&mut self) {
        self.writing = false;
    }

    /// An answer came: it belongs to the oldest batch in flight.
    pub(crate) fn answered(&mut self) -> Answered {
        match self.sent.pop_front() {
            Some(Slot::Sent(batch)) => Answered::Batch(batch),
            Some(Slot::GivenUp) => Answered::GivenUp,
            None => Answered::Nothing,
        }
    }

    /// The stream is gone, and with it all answers: what was in flight, and whether it may be stored.
    pub(crate) fn lost(&mut self) -> Vec<Outgoing> {
        let torn = if std::mem::take(&mut self.writing) { self.sent.pop_back() } else { None };
        let whole = self.sent.drain(..).map(|slot| match slot {
            Slot::Sent(batch) => Slot::Sent(Outgoing { maybe_stored: true, ..batch }),
            Slot::GivenUp => Slot::GivenUp,
        });
        let batch = |slot| match slot {
            Slot::Sent(batch) => Some(batch),
            Slot::GivenUp => None,
        };
        whole.chain(torn).filter_map(batch).collect()
    }

    /// When the first record of the oldest batch came.
    pub(crate) fn oldest(&self) -> Option<Instant> {
        let in_flight = self.sent.iter().find_map(|slot| match slot {
            Slot::Sent(batch) => Some(batch.opened_at),
            Slot::GivenUp => None,
        });
        let waiting = self.waiting.front().map(|batch| batch.opened_at);
        [in_flight, waiting].into_iter().flatten().min()
    }

    /// Takes out the batches whose first record came at `limit` or before.
    pub(crate) fn take_older(&mut self, limit: Instant) -> Vec<Outgoing> {
        let mut older = Vec::new();
        for slot in &mut self.sent {
            if matches!(slot, Slot::Sent(batch) if batch.opened_at <= limit)
                && let Slot::Sent(batch) = std::mem::replace(slot, Slot::GivenUp)
            {
                older.push(Outgoing { maybe_stored: true, ..batch });
            }
        }
        while self.waiting.front().is_some_and(|batch| batch.opened_at <= limit) {
            older.extend(self.waiting.pop_front());
        }
        older
    }

    /// Takes out every batch that waits to be sent.
    pub(crate) fn take_waiting(&mut self) -> Vec<Outgoing> {
        self.waiting.drain(..).collect()
    }

    /// The broker asked for patience.
    pub(crate) fn pause(&mut self, now: Instant, delay: Duration) {
        self.not_before = now.checked_add(delay);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outgoing(flight: &mut Flight, opened_at: Instant) -> Outgoing {
        Outgoing {
            bytes: Bytes::new(),
            pending: Arc::default(),
            records: 1,
            charged: 1,
            sequence: flight.number(),
            opened_at,
            sent_at: None,
            maybe_stored: false,
        }
    }

    fn with_sent(count: u32) -> (Flight, Instant) {
        let (mut flight, now) = (Flight::default(), Instant::now());
        for _ in 0..count {
            let batch = outgoing(&mut flight, now);
            flight.send(batch, now);
            flight.written();
        }
        (flight, now)
    }

    fn sequences(batches: &[Outgoing]) -> Vec<u64> {
        batches.iter().map(|batch| batch.sequence).collect()
    }

    #[test]
    fn answers_belong_to_batches_in_the_order_in_which_they_were_sent() {
        let (mut flight, _) = with_sent(2);
        for expected in [1, 2] {
            assert!(matches!(flight.answered(), Answered::Batch(batch) if batch.sequence == expected));
        }
        assert!(matches!(flight.answered(), Answered::Nothing), "an answer too many");
    }

    #[test]
    fn after_a_loss_everything_is_sent_again_in_its_order_before_anything_new() {
        let (mut flight, now) = with_sent(3);
        let Answered::Batch(refused) = flight.answered() else { panic!("no batch") };
        let fresh = outgoing(&mut flight, now);
        flight.wait(fresh);
        flight.wait(refused);
        for batch in flight.lost() {
            assert!(batch.maybe_stored);
            flight.wait(batch);
        }
        let order: Vec<u64> = std::iter::from_fn(|| flight.take()).map(|batch| batch.sequence).collect();
        assert_eq!(order, [1, 2, 3, 4]);
        assert!(flight.is_empty());
    }

    #[test]
    fn a_batch_that_was_torn_is_certainly_not_stored_unless_it_was_sent_whole_before() {
        let (mut flight, now) = with_sent(1);
        let torn = outgoing(&mut flight, now);
        flight.send(torn, now);
        let lost: Vec<(u64, bool)> = flight.lost().iter().map(|batch| (batch.sequence, batch.maybe_stored)).collect();
        assert_eq!(lost, [(1, true), (2, false)]);
        let again = Outgoing { maybe_stored: true, ..outgoing(&mut flight, now) };
        flight.send(again, now);
        assert!(flight.lost()[0].maybe_stored);
    }

    #[test]
    fn a_batch_that_was_refused_while_it_was_being_written_leaves_the_others_as_they_are() {
        let (mut flight, now) = with_sent(1);
        let large = outgoing(&mut flight, now);
        flight.send(large, now);
        for expected in [1, 2] {
            assert!(matches!(flight.answered(), Answered::Batch(batch) if batch.sequence == expected));
        }
        flight.written();
        assert!(!flight.is_waited_for() && flight.lost().is_empty());
    }

    #[test]
    fn a_batch_that_was_given_up_keeps_its_place_until_its_answer_comes() {
        let (mut flight, now) = with_sent(1);
        let later = outgoing(&mut flight, now + Duration::from_secs(1));
        flight.send(later, now);
        let older = flight.take_older(now);
        assert_eq!((sequences(&older), older[0].maybe_stored), (vec![1], true));
        assert_eq!(flight.oldest(), Some(now + Duration::from_secs(1)));
        assert!(matches!(flight.answered(), Answered::GivenUp));
        assert!(matches!(flight.answered(), Answered::Batch(batch) if batch.sequence == 2));
    }

    #[test]
    fn a_batch_that_was_never_sent_is_certainly_not_stored() {
        let (mut flight, now) = (Flight::default(), Instant::now());
        let batch = outgoing(&mut flight, now);
        flight.wait(batch);
        assert!(!flight.take_older(now)[0].maybe_stored);
    }
}

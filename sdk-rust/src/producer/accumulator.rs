//! Records on their way into batches: the open batch of one partition, and the full ones behind it that wait to be sent.
//!
//! Pure: time is an argument. A record is encoded where it ends up, and has no allocation of its own.

use super::pending::Pending;
use millpond_protocol::{
    batch::{BatchBuilder, BatchError},
    record::NewRecord,
};
use std::{collections::VecDeque, sync::Arc, time::Duration};
use tokio::time::Instant;

/// The most records in a batch. Keeps the answer that places each of them (12 bytes a record) below [`super::answers::ANSWER_BYTES_MAX`].
const BATCH_RECORDS_MAX: u32 = 1_000_000;

/// Builders that are kept for the next batches.
const SPARE_BUILDERS_MAX: usize = 4;

/// A batch that takes no more records.
#[derive(Debug)]
pub(crate) struct Sealed {
    pub(crate) builder: BatchBuilder,
    pub(crate) pending: Arc<Pending>,
    /// Bytes that its records took from the producer's buffer.
    pub(crate) charged: usize,
    /// When its first record came.
    pub(crate) opened_at: Instant,
}

/// Where a record went.
#[derive(Debug)]
pub(crate) struct Pushed {
    pub(crate) pending: Arc<Pending>,
    pub(crate) index: u32,
    /// The record is the first of a batch.
    pub(crate) opened: bool,
    /// The record did not fit into the batch before, which is full now.
    pub(crate) sealed: bool,
}

/// What can be sent.
#[derive(Debug)]
pub(crate) enum Next {
    /// This batch, which was full already.
    Full(Sealed),
    /// The batch that was open until now.
    Open(Sealed),
    /// The open batch, at this time.
    At(Instant),
    /// Nothing before another batch is answered.
    Later,
    /// There are no records.
    Nothing,
}

/// The records of one partition that are not sent yet.
#[derive(Debug, Default)]
pub(crate) struct Accumulator {
    builder: BatchBuilder,
    open: Option<Open>,
    full: VecDeque<Sealed>,
    spare: Vec<BatchBuilder>,
    /// Batches that were not answered when it was last looked at, oldest first.
    unanswered: VecDeque<Arc<Pending>>,
    closed: bool,
}

/// The batch that the builder holds.
#[derive(Debug)]
struct Open {
    pending: Arc<Pending>,
    charged: usize,
    opened_at: Instant,
    /// Somebody waits for it: it is not held back.
    urgent: bool,
}

impl Accumulator {
    /// Appends a record that takes at most `charge` bytes. A batch that would grow over `batch_bytes` is full; a record that
    /// is larger by itself gets a batch of its own. None if the accumulator is closed.
    pub(crate) fn push(
        &mut self,
        record: &NewRecord<'_>,
        charge: usize,
        batch_bytes: usize,
        now: impl FnOnce() -> Instant,
    ) -> Result<Option<Pushed>, BatchError> {
        if self.closed {
            return Ok(None);
        }
        let full = self.builder.size_bytes().saturating_add(charge) > batch_bytes || self.builder.len() >= BATCH_RECORDS_MAX;
        let mut sealed = full && self.seal();
        let index = match self.builder.push(record) {
            // A record from another epoch altogether starts a batch of its own.
            Err(BatchError::TimestampsTooFarApart { .. }) if self.seal() => {
                sealed = true;
                self.builder.push(record)?
            }
            pushed => pushed?,
        };
        let opened = self.open.is_none();
        if opened {
            self.open_batch(now());
        }
        let open = self.open.as_mut().unwrap_or_else(|| unreachable!("it was opened above"));
        open.charged += charge;
        Ok(Some(Pushed { pending: Arc::clone(&open.pending), index, opened, sealed }))
    }

    #[cold]
    fn open_batch(&mut self, opened_at: Instant) {
        let pending = Arc::new(Pending::default());
        while self.unanswered.front().is_some_and(|pending| pending.is_settled()) {
            self.unanswered.pop_front();
        }
        self.unanswered.push_back(Arc::clone(&pending));
        self.open = Some(Open { pending, charged: 0, opened_at, urgent: false });
    }

    /// Puts the open batch behind the full ones; false if there is none.
    fn seal(&mut self) -> bool {
        let sealed = self.take_open();
        let some = sealed.is_some();
        self.full.extend(sealed);
        some
    }

    fn take_open(&mut self) -> Option<Sealed> {
        let Open { pending, charged, opened_at, .. } = self.open.take()?;
        let builder = std::mem::replace(&mut self.builder, self.spare.pop().unwrap_or_default());
        Some(Sealed { builder, pending, charged, opened_at })
    }

    /// The next batch. A full one goes at once, and so does the open one if nothing is in flight (`idle`), if somebody waits for it
    /// (`urgent`), or if it is `linger` old.
    pub(crate) fn next(&mut self, now: Instant, linger: Duration, idle: bool, urgent: bool) -> Next {
        if let Some(sealed) = self.full.pop_front() {
            return Next::Full(sealed);
        }
        let Some(open) = &self.open else { return Next::Nothing };
        let due = open.opened_at.checked_add(linger);
        if idle || urgent || open.urgent || self.closed || due.is_some_and(|due| due <= now) {
            return self.take_open().map_or(Next::Nothing, Next::Open);
        }
        due.map_or(Next::Later, Next::At)
    }

    /// Keeps a builder that was emptied, and with it what it learnt about the size of batches.
    pub(crate) fn give_back(&mut self, builder: BatchBuilder) {
        if self.spare.len() < SPARE_BUILDERS_MAX {
            self.spare.push(builder);
        }
    }

    /// Takes no more records, and holds none back.
    pub(crate) fn close(&mut self) {
        self.closed = true;
    }

    /// Whether it was closed and holds nothing any more.
    pub(crate) fn is_finished(&self) -> bool {
        self.closed && self.is_empty()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.open.is_none() && self.full.is_empty()
    }

    /// When the first record of the oldest batch came.
    pub(crate) fn oldest(&self) -> Option<Instant> {
        self.full.front().map(|sealed| sealed.opened_at).or_else(|| self.open.as_ref().map(|open| open.opened_at))
    }

    /// Takes out the batches whose first record came at `limit` or before.
    pub(crate) fn take_older(&mut self, limit: Instant) -> Vec<Sealed> {
        let mut older = Vec::new();
        while self.full.front().is_some_and(|sealed| sealed.opened_at <= limit) {
            older.extend(self.full.pop_front());
        }
        if self.full.is_empty() && self.open.as_ref().is_some_and(|open| open.opened_at <= limit) {
            older.extend(self.take_open());
        }
        older
    }

    /// Takes out every batch.
    pub(crate) fn take_all(&mut self) -> Vec<Sealed> {
        self.seal();
        self.full.drain(..).collect()
    }

    /// The batches that are not answered, sent or not; the open one is held back no longer.
    pub(crate) fn hurry(&mut self) -> Vec<Arc<Pending>> {
        if let Some(open) = &mut self.open {
            open.urgent = true;
        }
        self.unanswered.retain(|pending| !pending.is_settled());
        self.unanswered.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use millpond_protocol::{batch::Batch, compression::Codec};

    const LINGER: Duration = Duration::from_millis(5);

    fn push(accumulator: &mut Accumulator, value: &[u8], now: Instant) -> Pushed {
        push_at(accumulator, value, 1_000, now)
    }

    fn push_at(accumulator: &mut Accumulator, value: &[u8], timestamp: i64, now: Instant) -> Pushed {
        let record = NewRecord { timestamp, key: None, value: Some(value), headers: &[] };
        accumulator.push(&record, value.len() + 20, 180, || now).unwrap().unwrap()
    }

    fn values(mut sealed: Sealed) -> Vec<Vec<u8>> {
        let batch = Batch::parse(sealed.builder.finish(Codec::None).unwrap()).unwrap();
        batch.records(1 << 20).unwrap().map(|record| record.unwrap().value.unwrap().to_vec()).collect()
    }

    fn batch(next: Next) -> Sealed {
        match next {
            Next::Full(sealed) | Next::Open(sealed) => sealed,
            other => panic!("{other:?} in place of a batch"),
        }
    }

    #[test]
    fn a_batch_waits_for_linger_while_another_is_in_flight() {
        let (mut accumulator, start) = (Accumulator::default(), Instant::now());
        assert!(push(&mut accumulator, b"a", start).opened);
        assert!(!push(&mut accumulator, b"b", start + LINGER / 2).opened);
        match accumulator.next(start, LINGER, false, false) {
            Next::At(at) => assert_eq!(at, start + LINGER, "counted from the first record"),
            other => panic!("{other:?}"),
        }
        assert_eq!(values(batch(accumulator.next(start + LINGER, LINGER, false, false))), [b"a", b"b"]);
        assert!(matches!(accumulator.next(start + LINGER, LINGER, false, false), Next::Nothing));
    }

    #[test]
    fn a_batch_goes_at_once_when_nothing_is_in_flight_or_somebody_waits_or_linger_is_zero() {
        let start = Instant::now();
        for (linger, idle, urgent) in [(LINGER, true, false), (LINGER, false, true), (Duration::ZERO, false, false)] {
            let mut accumulator = Accumulator::default();
            push(&mut accumulator, b"a", start);
            assert!(matches!(accumulator.next(start, linger, idle, urgent), Next::Open(_)), "{linger:?} {idle} {urgent}");
        }
        let mut accumulator = Accumulator::default();
        push(&mut accumulator, b"a", start);
        assert_eq!(accumulator.hurry().len(), 1);
        assert!(matches!(accumulator.next(start, LINGER, false, false), Next::Open(_)));
    }

    #[test]
    fn full_batches_go_first_and_in_order() {
        let (mut accumulator, now) = (Accumulator::default(), Instant::now());
        let indexes: Vec<(u32, bool)> =
            (0_u8..7).map(|number| push(&mut accumulator, &[number; 30], now)).map(|pushed| (pushed.index, pushed.sealed)).collect();
        assert_eq!(indexes, [(0, false), (1, false), (0, true), (1, false), (0, true), (1, false), (0, true)], "two records fill a batch");
        let first_bytes: Vec<Vec<u8>> =
            (0..4).map(|_| values(batch(accumulator.next(now, LINGER, true, false))).iter().map(|value| value[0]).collect()).collect();
        assert_eq!(first_bytes, [vec![0, 1], vec![2, 3], vec![4, 5], vec![6]]);
    }

    #[test]
    fn a_record_over_the_size_of_a_batch_gets_one_of_its_own() {
        let (mut accumulator, now) = (Accumulator::default(), Instant::now());
        push(&mut accumulator, b"a", now);
        let large = push(&mut accumulator, &[1; 500], now);
        assert!(large.sealed && large.opened && large.index == 0);
        assert!(push(&mut accumulator, b"b", now).sealed);
    }

    #[test]
    fn timestamps_that_do_not_fit_into_one_batch_go_into_two() {
        let (mut accumulator, now) = (Accumulator::default(), Instant::now());
        push_at(&mut accumulator, b"a", i64::MIN, now);
        let second = push_at(&mut accumulator, b"b", i64::MAX, now);
        assert!(second.opened && second.sealed && second.index == 0);
    }

    #[test]
    fn a_closed_accumulator_takes_nothing_and_holds_nothing_back() {
        let (mut accumulator, now) = (Accumulator::default(), Instant::now());
        push(&mut accumulator, b"a", now);
        accumulator.close();
        let record = NewRecord { value: Some(b"b"), ..NewRecord::default() };
        assert!(accumulator.push(&record, 10, 180, || now).unwrap().is_none());
        assert!(!accumulator.is_finished());
        assert!(matches!(accumulator.next(now, LINGER, false, false), Next::Open(_)));
        assert!(accumulator.is_finished());
    }

    #[test]
    fn what_is_too_old_is_taken_out_oldest_first() {
        let (mut accumulator, start) = (Accumulator::default(), Instant::now());
        for step in 0..5 {
            push(&mut accumulator, &[7; 60], start + LINGER * step);
        }
        assert_eq!(accumulator.oldest(), Some(start));
        assert_eq!(accumulator.take_older(start + LINGER * 2).len(), 3);
        assert_eq!(accumulator.oldest(), Some(start + LINGER * 3));
        assert_eq!(accumulator.take_all().len(), 2);
        assert!(accumulator.is_empty() && accumulator.oldest().is_none());
    }

    #[test]
    fn answered_batches_are_not_waited_for() {
        let (mut accumulator, now) = (Accumulator::default(), Instant::now());
        let first = push(&mut accumulator, &[0; 150], now).pending;
        push(&mut accumulator, &[0; 150], now);
        first.settle(Err(crate::Error::Closed("producer")));
        assert_eq!(accumulator.hurry().len(), 1);
    }
}

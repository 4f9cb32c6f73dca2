//! The answer that the records of a batch wait for.
//!
//! All records of a batch share one [`Pending`]; a [`Delivery`] is a reference to it and the record's number in the batch.

use crate::{
    error::Error,
    record::{Fate, RecordPlace},
};
use millpond_protocol::message::{Ack, PlacedRecord, Placements};
use parking_lot::Mutex;
use std::{
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll, Waker},
};

/// What the broker answered to a batch.
#[derive(Debug)]
pub(crate) enum Answer {
    /// To a batch for one partition.
    Ack { ack: Ack, partition: u32, records: u32 },
    /// To a batch that the broker spread; one entry for each record.
    Placements(Placements),
}

/// The state that the records of one batch share.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    answer: OnceLock<Result<Answer, Error>>,
    /// Whoever waits; each delivery holds at most one place. Emptied when the answer is there.
    wakers: Mutex<Vec<Waker>>,
    /// Of a batch that has failed: a bit for each record whose error somebody has looked at.
    looked_at: Mutex<Vec<u64>>,
}

impl Pending {
    /// Sets the answer and wakes all who wait for it. The first answer counts.
    pub(crate) fn settle(&self, answer: Result<Answer, Error>) {
        if self.answer.set(answer).is_ok() {
            let wakers = std::mem::take(&mut *self.wakers.lock());
            wakers.into_iter().for_each(Waker::wake);
        }
    }

    pub(crate) fn is_settled(&self) -> bool {
        self.answer.get().is_some()
    }

    /// `place` is where this waiter's waker is kept; it belongs to the waiter and starts as none.
    fn poll(&self, context: &Context<'_>, place: &mut Option<usize>) -> Poll<&Result<Answer, Error>> {
        if let Some(answer) = self.answer.get() {
            return Poll::Ready(answer);
        }
        let mut wakers = self.wakers.lock();
        // Whoever settles sets the answer before it takes the wakers: either it is there now, or this waker is taken.
        if let Some(answer) = self.answer.get() {
            return Poll::Ready(answer);
        }
        if let Some(waker) = place.and_then(|place| wakers.get_mut(place)) {
            waker.clone_from(context.waker());
        } else {
            *place = Some(wakers.len());
            wakers.push(context.waker().clone());
        }
        Poll::Pending
    }

    /// Records whose error somebody has looked at.
    pub(crate) fn looked_at(&self) -> u32 {
        self.looked_at.lock().iter().map(|bits| bits.count_ones()).sum()
    }

    /// What became of a record, for somebody who looks at it.
    fn look(&self, answer: &Result<Answer, Error>, index: u32) -> Result<RecordPlace, Error> {
        if answer.is_err() {
            let (word, bit) = (index as usize / 64, index % 64);
            let mut looked_at = self.looked_at.lock();
            if looked_at.len() <= word {
                looked_at.resize(word + 1, 0);
            }
            looked_at[word] |= 1 << bit;
        }
        place_of(answer, index)
    }

    /// Waits for the answer, whatever it is.
    pub(crate) async fn settled(&self) {
        let mut place = None;
        std::future::poll_fn(|context| self.poll(context, &mut place).map(|_| ())).await;
    }
}

/// The coming answer to one record: a future of where it was stored.
///
/// May be dropped: the record is sent all the same, and its error shows in [`crate::Producer::flush`]. Who gets the error here has heard of it, and
/// flush does not tell it again.
#[derive(Debug)]
#[must_use = "await it to know that the record is stored, or call flush and drop it"]
pub struct Delivery {
    pending: Arc<Pending>,
    index: u32,
    place: Option<usize>,
}

impl Delivery {
    pub(crate) fn new(pending: Arc<Pending>, index: u32) -> Delivery {
        Delivery { pending, index, place: None }
    }

    /// Whether the answer is there, an error included. That is no look at it.
    pub fn is_answered(&self) -> bool {
        self.pending.is_settled()
    }

    /// Ready once the answer is there, an error included. That is no look at it.
    pub fn poll_answered(&mut self, context: &Context<'_>) -> Poll<()> {
        self.pending.poll(context, &mut self.place).map(|_| ())
    }

    /// The answer, if it is there.
    pub fn try_get(&self) -> Option<Result<RecordPlace, Error>> {
        self.pending.answer.get().map(|answer| self.pending.look(answer, self.index))
    }

    /// Whether `next` is the answer to the record that lies `behind` records behind this one in the same batch: they come together, and
    /// [`Delivery::try_get_behind`] has it.
    pub fn is_followed_by(&self, next: &Delivery, behind: u32) -> bool {
        Arc::ptr_eq(&self.pending, &next.pending) && self.index.checked_add(behind) == Some(next.index)
    }

    /// The answer to the record that lies so many records behind this one in its batch, if it is there. That is no look at it.
    pub fn try_get_behind(&self, behind: u32) -> Option<Result<RecordPlace, Error>> {
        self.pending.answer.get().map(|answer| place_of(answer, self.index.saturating_add(behind)))
    }
}

impl Clone for Delivery {
    /// Another one for the same answer.
    fn clone(&self) -> Delivery {
        Delivery::new(Arc::clone(&self.pending), self.index)
    }
}

impl Future for Delivery {
    type Output = Result<RecordPlace, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Delivery { pending, index, place } = &mut *self;
        pending.poll(context, place).map(|answer| pending.look(answer, *index))
    }
}

fn place_of(answer: &Result<Answer, Error>, index: u32) -> Result<RecordPlace, Error> {
    match answer {
        Err(error) => Err(error.clone()),
        Ok(Answer::Ack { ack, partition, records }) => Ok(place_in_batch(ack, *partition, *records, index)),
        Ok(Answer::Placements(placements)) => {
            let placed = placements.records.get(index as usize).copied();
            let placed = placed.unwrap_or_else(|| unreachable!("the number of placements was compared with that of records"));
            let fate = if placed == PlacedRecord::DROPPED { Fate::Dropped } else { Fate::Stored };
            Ok(place(&placements.ack, fate, placed.partition, placed.offset))
        }
    }
}

/// The place of record number `index` of a batch that went to one partition; see [`Ack::base_offset`].
fn place_in_batch(ack: &Ack, partition: u32, records: u32, index: u32) -> RecordPlace {
    if ack.records_dropped >= records {
        return place(ack, Fate::Dropped, partition, PlacedRecord::DROPPED.offset);
    }
    let offset = ack.base_offset.saturating_add(i64::from(index));
    if ack.last_offset.saturating_sub(ack.base_offset) >= i64::from(records) {
        place(ack, Fate::Expanded, partition, ack.base_offset)
    } else if ack.records_dropped > 0 {
        place(ack, Fate::StoredUnlessDropped, partition, offset)
    } else {
        place(ack, Fate::Stored, partition, offset)
    }
}

fn place(ack: &Ack, fate: Fate, partition: u32, offset: i64) -> RecordPlace {
    // -1 in the answer to a batch that the broker had stored before.
    let append_time_ms = Some(ack.append_time_ms).filter(|ms| *ms >= 0);
    RecordPlace { fate, partition, offset, append_time_ms, durability: ack.durability }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::{FutureExt, future::join_all};
    use millpond_protocol::message::Durability;

    fn ack(base_offset: i64, last_offset: i64, records_dropped: u32) -> Ack {
        Ack { base_offset, last_offset, append_time_ms: 5, topic_epoch: 0, durability: Durability::Sync, records_dropped }
    }

    fn deliveries(pending: &Arc<Pending>, count: u32) -> Vec<Delivery> {
        (0..count).map(|index| Delivery::new(Arc::clone(pending), index)).collect()
    }

    #[tokio::test]
    async fn every_record_of_a_batch_gets_its_own_place() {
        let pending = Arc::new(Pending::default());
        let waiting = tokio::spawn(join_all(deliveries(&pending, 3)));
        tokio::task::yield_now().await;
        pending.settle(Ok(Answer::Ack { ack: ack(40, 42, 0), partition: 7, records: 3 }));
        let places = waiting.await.unwrap();
        let offsets: Vec<_> = places.into_iter().map(|place| place.map(|place| (place.fate, place.partition, place.offset))).collect();
        let expected: Vec<_> = (40..43).map(|offset| (Fate::Stored, 7, offset)).collect();
        assert_eq!(offsets.into_iter().collect::<Result<Vec<_>, _>>().unwrap(), expected);
    }

    #[tokio::test]
    async fn an_error_reaches_every_record_and_a_later_answer_changes_nothing() {
        let pending = Arc::new(Pending::default());
        pending.settle(Err(Error::Closed("producer")));
        pending.settle(Ok(Answer::Ack { ack: ack(0, 0, 0), partition: 0, records: 1 }));
        for delivery in deliveries(&pending, 2) {
            assert_eq!(delivery.clone().await.unwrap_err().code(), "closed");
            assert_eq!(delivery.await.unwrap_err().code(), "closed");
        }
    }

    #[tokio::test]
    async fn polling_again_and_again_keeps_one_waker() {
        let pending = Arc::new(Pending::default());
        let mut delivery = Delivery::new(Arc::clone(&pending), 0);
        for _ in 0..100 {
            assert!((&mut delivery).now_or_never().is_none());
        }
        assert_eq!(pending.wakers.lock().len(), 1);
        assert!(delivery.try_get().is_none());
    }

    #[test]
    fn records_of_a_batch_that_follow_each_other_have_one_wait() {
        let (pending, other) = (Arc::new(Pending::default()), Arc::new(Pending::default()));
        let run = deliveries(&pending, 3);
        assert!(run[0].is_followed_by(&run[1], 1) && run[0].is_followed_by(&run[2], 2));
        assert!(
            !run[0].is_followed_by(&run[2], 1)
                && !run[1].is_followed_by(&run[0], 1)
                && !run[0].is_followed_by(&deliveries(&other, 2)[1], 1)
        );
        assert!(run[0].try_get_behind(2).is_none());
        pending.settle(Ok(Answer::Ack { ack: ack(40, 42, 0), partition: 7, records: 3 }));
        assert_eq!(run[0].try_get_behind(2).unwrap().unwrap(), run[2].try_get().unwrap().unwrap());
    }

    #[test]
    fn a_dropped_record_is_told_apart_from_one_that_may_have_been() {
        let fate = |ack: Ack, records| place_in_batch(&ack, 0, records, 1);
        assert_eq!(fate(ack(10, 12, 3), 3).fate, Fate::Dropped, "all of the batch");
        assert_eq!(fate(ack(10, 12, 3), 3).offset, -1);
        assert_eq!((fate(ack(10, 12, 1), 3).fate, fate(ack(10, 12, 1), 3).offset), (Fate::StoredUnlessDropped, 11));
        assert_eq!((fate(ack(10, 19, 0), 3).fate, fate(ack(10, 19, 0), 3).offset), (Fate::Expanded, 10));
    }

    #[test]
    fn a_batch_that_was_stored_before_may_have_no_append_time() {
        let at = |append_time_ms| place_in_batch(&Ack { append_time_ms, ..ack(10, 12, 0) }, 0, 3, 1).append_time_ms;
        assert_eq!((at(5), at(0), at(-1)), (Some(5), Some(0), None));
    }

    #[test]
    fn placements_say_for_each_record_where_it_went() {
        let records = vec![PlacedRecord { partition: 2, offset: 9 }, PlacedRecord::DROPPED];
        let answer = Ok(Answer::Placements(Placements { ack: ack(-1, -1, 1), records }));
        let kept = place_of(&answer, 0).unwrap();
        assert_eq!((kept.fate, kept.partition, kept.offset), (Fate::Stored, 2, 9));
        assert!(place_of(&answer, 1).unwrap().is_dropped());
    }
}

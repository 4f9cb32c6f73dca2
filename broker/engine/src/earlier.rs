//! What a batch went through that may come again, where the broker places records.
//!
//! Such a batch becomes one part for each partition, and a part that comes again is known by its sequence and its checksum ([`crate::chain`]).
//! Another partitioner, another version or other settings would make other parts of the same batch: some records would be there twice and others
//! nowhere. So a batch of which something is stored, or may be, goes through the modules of its first try, whatever runs now. One of which nothing
//! was stored goes through what runs now: a module that was attached meanwhile sees it.
//!
//! ```text
//!   begin ──> modules ──> parts are queued ──> answered ──> stored, all or some ──────┐
//!     │          │              │                 │                                   ├─ it is kept: it may come again
//!     │          │              │                 '──── nobody was there to hear it ──┘
//!     │          '── they fail ─┴───────────────────── nothing is stored ──────────────── it is forgotten
//!     '── it is noted, before anything else: on another stream it may come again at any moment
//! ```
//!
//! Where the modules of the first try can't run any more, those that run now are asked: then the checksums of the parts tell. What is kept is in
//! memory, for so many batches and producers and for so long: behind a restart of the broker a batch goes through what is attached then.

use crate::{topic::Runtime, transform::Attachment};
use millpond_protocol::batch::BatchHeader;
use parking_lot::Mutex;
use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

/// The producers of a topic, with their last batches.
#[derive(Debug, Default)]
pub(crate) struct Earlier {
    producers: Mutex<HashMap<i64, Producer>>,
}

#[derive(Debug)]
struct Producer {
    epoch: i16,
    used_at: Instant,
    /// Oldest first.
    batches: VecDeque<Tried>,
}

/// A batch of a producer.
#[derive(Debug)]
struct Tried {
    base_sequence: i32,
    with: Arc<Placing>,
    /// Tries of it that are not over.
    under_way: u32,
    /// Something of it is stored, or may be.
    is_kept: bool,
}

/// What a batch goes through before it is stored.
#[derive(Clone, Debug)]
pub(crate) struct Placing {
    transforms: Vec<Arc<Attachment>>,
    partitioner: Option<Arc<Attachment>>,
}

/// One try to place a batch. Where it is dropped without an outcome, something may be stored.
#[derive(Debug)]
pub(crate) struct Try {
    /// None where the producer does not number its batches: then nothing can be known again.
    of: Option<(Arc<Earlier>, i64, i16, i32)>,
    /// What it goes through, if that is not what runs now.
    with: Option<Arc<Placing>>,
    /// Nothing was queued yet, or all was refused.
    is_nothing_stored: bool,
}

impl Earlier {
    /// Begins to place a batch.
    pub(crate) fn begin(self: &Arc<Self>, header: &BatchHeader, now: &Runtime, at: Instant) -> Try {
        if header.producer_id < 0 {
            return Try { of: None, with: None, is_nothing_stored: true };
        }
        let with = note(&mut self.producers.lock(), header, now, at);
        let of = Some((Arc::clone(self), header.producer_id, header.producer_epoch, header.base_sequence));
        Try { of, with: Some(with).filter(|with| !with.is_of(now)), is_nothing_stored: true }
    }

    /// Lets go of what nobody can ask for any more, and of the modules with it.
    pub(crate) fn forget(&self, at: Instant) {
        forget(&mut self.producers.lock(), at);
    }

    fn end(&self, producer_id: i64, epoch: i16, base_sequence: i32, is_kept: bool) {
        let mut producers = self.producers.lock();
        let Some(producer) = producers.get_mut(&producer_id).filter(|producer| producer.epoch == epoch) else { return };
        let Some(place) = producer.batches.iter().position(|batch| batch.base_sequence == base_sequence) else { return };
        let batch = &mut producer.batches[place];
        batch.under_way = batch.under_way.saturating_sub(1);
        batch.is_kept |= is_kept;
        if batch.under_way == 0 && !batch.is_kept {
            producer.batches.remove(place);
        }
    }
}

impl Try {
    /// What the batch goes through: what runs now, or what it went through before.
    pub(crate) fn runtime(&self, now: &Arc<Runtime>) -> Arc<Runtime> {
        match self.with.as_deref() {
            Some(Placing { transforms, partitioner }) => {
                Arc::new(Runtime { transforms: transforms.clone(), partitioner: partitioner.clone(), ..Runtime::clone(now) })
            }
            None => Arc::clone(now),
        }
    }

    /// Whether that is not what runs now.
    pub(crate) fn is_with_others(&self) -> bool {
        self.with.is_some()
    }

    /// A part of it is in the queue of its partition, or none is needed.
    pub(crate) fn may_be_stored(&mut self) {
        self.is_nothing_stored = false;
    }

    /// All that was queued was refused.
    pub(crate) fn was_refused(&mut self) {
        self.is_nothing_stored = true;
    }
}

impl Drop for Try {
    fn drop(&mut self) {
        if let Some((earlier, producer_id, epoch, base_sequence)) = self.of.take() {
            earlier.end(producer_id, epoch, base_sequence, !self.is_nothing_stored);
        }
    }
}

impl Placing {
    fn of(runtime: &Runtime) -> Placing {
        Placing { transforms: runtime.transforms.clone(), partitioner: runtime.partitioner.clone() }
    }

    /// Whether it is what these settings have.
    fn is_of(&self, runtime: &Runtime) -> bool {
        let same = |(one, other): (&Arc<Attachment>, &Arc<Attachment>)| Arc::ptr_eq(one, other);
        let (ours, theirs) = (self.transforms.iter(), runtime.transforms.iter());
        ours.len() == theirs.len()
            && ours.zip(theirs).all(same)
            && self.partitioner.is_some() == runtime.partitioner.is_some()
            && self.partitioner.iter().zip(&runtime.partitioner).all(same)
    }
}

/// Notes a try of a batch, and gives what the batch goes through.
fn note(producers: &mut HashMap<i64, Producer>, header: &BatchHeader, now: &Runtime, at: Instant) -> Arc<Placing> {
    let (id, epoch, base_sequence) = (header.producer_id, header.producer_epoch, header.base_sequence);
    if producers.len() >= PRODUCERS_MAX && !producers.contains_key(&id) {
        make_room(producers, at);
    }
    let new = || Producer { epoch, used_at: at, batches: VecDeque::with_capacity(BATCHES_MAX) };
    let producer = producers.entry(id).or_insert_with(new);
    if producer.epoch != epoch {
        *producer = new();
    }
    producer.used_at = at;
    if let Some(batch) = producer.batches.iter_mut().find(|batch| batch.base_sequence == base_sequence) {
        batch.under_way += 1;
        return Arc::clone(&batch.with);
    }
    if producer.batches.len() >= BATCHES_MAX {
        producer.batches.pop_front();
    }
    let last = producer.batches.back().map(|batch| &batch.with).filter(|with| with.is_of(now));
    let with = last.map_or_else(|| Arc::new(Placing::of(now)), Arc::clone);
    producer.batches.push_back(Tried { base_sequence, with: Arc::clone(&with), under_way: 1, is_kept: false });
    with
}

fn forget(producers: &mut HashMap<i64, Producer>, at: Instant) {
    producers.retain(|_, producer| at.saturating_duration_since(producer.used_at) < KEPT);
}

fn make_room(producers: &mut HashMap<i64, Producer>, at: Instant) {
    forget(producers, at);
    if producers.len() >= PRODUCERS_MAX {
        let oldest = producers.iter().min_by_key(|(_, producer)| producer.used_at).map(|(id, _)| *id);
        oldest.and_then(|id| producers.remove(&id));
    }
}

/// For how long a producer may send a batch again: several times what one tries for.
pub(crate) const KEPT: Duration = Duration::from_mins(10);

/// Batches of a producer. A partition knows five of them again.
const BATCHES_MAX: usize = 8;

/// Producers of a topic.
const PRODUCERS_MAX: usize = 1_024;

#[cfg(test)]
mod tests {
    use super::*;
    use millpond_protocol::{
        batch::{Batch, BatchBuilder},
        compression::Codec,
        message::TopicConfig,
        record::NewRecord,
    };

    fn header(producer_id: i64, epoch: i16, base_sequence: i32) -> BatchHeader {
        let mut builder = BatchBuilder::new();
        builder.push(&NewRecord::default()).expect("it fits");
        builder.set_producer(producer_id, epoch, base_sequence);
        *Batch::parse(builder.finish(Codec::None).expect("it has records")).expect("it is a batch").header()
    }

    fn begin(earlier: &Arc<Earlier>, (id, epoch, base_sequence): (i64, i16, i32), at: Instant) -> Try {
        earlier.begin(&header(id, epoch, base_sequence), &Runtime::new(0, TopicConfig::default(), u32::MAX), at)
    }

    /// The batches of producer 7.
    fn known(earlier: &Earlier) -> Vec<i32> {
        earlier
            .producers
            .lock()
            .get(&7)
            .map_or_else(Vec::new, |producer| producer.batches.iter().map(|batch| batch.base_sequence).collect())
    }

    #[test]
    fn a_batch_is_kept_unless_nothing_of_it_is_stored() {
        let (earlier, now) = (Arc::default(), Instant::now());
        drop(begin(&earlier, (7, 0, 0), now));
        assert!(known(&earlier).is_empty(), "its modules failed");
        let mut attempt = begin(&earlier, (7, 0, 10), now);
        assert_eq!(known(&earlier), [10], "it may come again while it is at its modules");
        attempt.may_be_stored();
        attempt.was_refused();
        drop(attempt);
        assert!(known(&earlier).is_empty());
        let mut attempt = begin(&earlier, (7, 0, 10), now);
        attempt.may_be_stored();
        drop(attempt);
        assert_eq!(known(&earlier), [10], "nobody was there to hear what became of it");
        let mut again = begin(&earlier, (7, 0, 10), now);
        again.may_be_stored();
        again.was_refused();
        drop(again);
        assert_eq!(known(&earlier), [10], "the first try may have stored something");
    }

    #[test]
    fn the_last_of_several_tries_lets_go_of_it() {
        let (earlier, now) = (Arc::default(), Instant::now());
        let [first, second] = [(); 2].map(|()| begin(&earlier, (7, 0, 0), now));
        drop(first);
        assert_eq!(known(&earlier), [0]);
        drop(second);
        assert!(known(&earlier).is_empty());
    }

    #[test]
    fn a_producer_that_begins_anew_has_no_batches_and_one_without_numbers_never() {
        let (earlier, now) = (Arc::default(), Instant::now());
        let mut old = begin(&earlier, (7, 0, 0), now);
        old.may_be_stored();
        let mut new = begin(&earlier, (7, 1, 0), now);
        drop(old);
        assert_eq!(known(&earlier), [0]);
        new.may_be_stored();
        drop(new);
        let mut unnumbered = begin(&earlier, (-1, -1, -1), now);
        unnumbered.may_be_stored();
        drop(unnumbered);
        assert_eq!((known(&earlier), earlier.producers.lock().len()), (vec![0], 1));
    }

    #[test]
    fn it_is_bounded_in_batches_in_producers_and_in_time() {
        let (earlier, begun): (Arc<Earlier>, _) = (Arc::default(), Instant::now());
        let keep = |of, at| {
            let mut attempt = begin(&earlier, of, at);
            attempt.may_be_stored();
        };
        (0..20).for_each(|number| keep((7, 0, number), begun));
        assert_eq!(known(&earlier), (12..20).collect::<Vec<_>>());
        let later = begun + Duration::from_secs(1);
        (1_000..).take(2 * PRODUCERS_MAX).for_each(|id| keep((id, 0, 0), later));
        assert_eq!(
            (known(&earlier), earlier.producers.lock().len()),
            (vec![], PRODUCERS_MAX),
            "the one that was used least lately went first"
        );
        earlier.forget(begun + KEPT);
        assert_eq!(earlier.producers.lock().len(), PRODUCERS_MAX);
        earlier.forget(later + KEPT);
        assert!(earlier.producers.lock().is_empty());
    }
}

//! The producers of one log.

use std::collections::HashMap;

use millpond_protocol::batch::BatchHeader;

use super::judge::is_valid;
use super::pool::ProducerPool;
use super::producer::{Producer, ProducerBatch, ProducerState};
use super::snapshot::{Listed, Snapshot};
use super::{BROKER_PRODUCER_ID_MIN, PRODUCERS_MAX, Pools};
use crate::config::LogConfig;

/// What a log remembers of its producers.
#[derive(Debug)]
pub(crate) struct Producers {
    by_id: HashMap<i64, Producer>,
    /// How many there may be in this log.
    max: usize,
    pool: ProducerPool,
    /// A producer that was not used for so long is forgotten, in milliseconds.
    expiration_ms: i64,
    /// When to look for those next, by the monotonic clock.
    look_ms: i64,
    /// Whether a batch was noted of which there is nothing in the log, so that only a note can keep it.
    pub(super) has_skipped: bool,
    /// The next use gets this number.
    pub(super) uses: u64,
    /// Empty; the memory of a run that has ended.
    pub(super) spare: HashMap<i64, Producer>,
}

impl Producers {
    /// No producers yet.
    pub(crate) fn new(pools: &Pools, config: &LogConfig) -> Producers {
        Producers::bounded(pools.producers.clone(), PRODUCERS_MAX, config.producer_id_expiration_ms)
    }

    pub(super) fn bounded(pool: ProducerPool, max: usize, expiration_ms: u64) -> Producers {
        Producers {
            by_id: HashMap::new(),
            max,
            pool,
            expiration_ms: i64::try_from(expiration_ms.max(1)).unwrap_or(i64::MAX),
            // The first look gives a time to those that an opening has found.
            look_ms: i64::MIN,
            has_skipped: false,
            uses: 0,
            spare: HashMap::new(),
        }
    }

    /// Takes over what was written down, the one that was used longest ago first.
    pub(crate) fn restore(&mut self, listed: Listed) {
        for (producer_id, mut producer) in listed {
            producer.used = self.next_use();
            let added = self.put(producer_id, producer);
            self.evict(added);
        }
    }

    /// Takes down what the header of a batch says that is in the log from this offset on.
    pub(crate) fn observe(&mut self, header: &BatchHeader, base_offset: i64) {
        if !is_valid(header) {
            return;
        }
        let (producer_id, epoch) = (header.producer_id, header.producer_epoch);
        let used = self.next_use();
        let mut added = 0;
        let pool = &self.pool;
        let producer = self.by_id.entry(producer_id).or_insert_with(|| {
            pool.take(1);
            added = 1;
            Producer::new(epoch)
        });
        // Nothing of an earlier epoch is admitted; by another way it may come, and changes nothing.
        if producer.epoch <= epoch {
            producer.add(epoch, ProducerBatch::of(header, base_offset, -1));
            (producer.used, producer.used_ms) = (used, None);
        }
        self.evict(added);
    }

    /// Forgets the producers that were not used for too long. Cheap: looks once in a while.
    pub(crate) fn expire(&mut self, monotonic_ms: i64) {
        if monotonic_ms < self.look_ms {
            return;
        }
        self.look_ms = monotonic_ms.saturating_add(LOOK_INTERVAL_MS);
        let (before, expiration_ms) = (self.by_id.len(), self.expiration_ms);
        self.by_id.retain(|_, producer| {
            let used_ms = *producer.used_ms.get_or_insert(monotonic_ms);
            monotonic_ms.saturating_sub(used_ms) < expiration_ms
        });
        let gone = before - self.by_id.len();
        if gone > 0 {
            self.pool.give_back(gone);
            self.by_id.shrink_to_fit();
        }
    }

    /// What is known of a producer, unless it has expired.
    pub(super) fn get(&self, producer_id: i64, monotonic_ms: i64) -> Option<&Producer> {
        let producer = self.by_id.get(&producer_id)?;
        let age_ms = producer.used_ms.map_or(0, |used_ms| monotonic_ms.saturating_sub(used_ms));
        (age_ms < self.expiration_ms).then_some(producer)
    }

    /// Takes over what a run knows of its producers, and its count of uses.
    pub(super) fn take_over(&mut self, mut touched: HashMap<i64, Producer>, uses: u64) {
        self.uses = self.uses.max(uses);
        // First all, then forget: whoever was used in the run is newer than whoever was not.
        let added = touched.drain().map(|(producer_id, producer)| self.put(producer_id, producer)).sum();
        self.evict(added);
        if touched.capacity() <= SPARE_PRODUCERS_MAX {
            self.spare = touched;
        }
    }

    /// Whether something is remembered that no header in the log says.
    pub(crate) fn has_skipped(&self) -> bool {
        self.has_skipped
    }

    /// What is remembered of every producer, by producer id.
    pub(crate) fn states(&self) -> Vec<ProducerState> {
        let state = |(producer_id, producer): (&i64, &Producer)| ProducerState {
            producer_id: *producer_id,
            epoch: producer.epoch,
            batches: producer.batches().to_vec(),
        };
        let mut states: Vec<_> = self.by_id.iter().map(state).collect();
        states.sort_unstable_by_key(|state| state.producer_id);
        states
    }

    /// All of it, to be written down.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let mut sorted: Vec<_> = self.by_id.iter().collect();
        sorted.sort_unstable_by_key(|(_, producer)| producer.used);
        Snapshot::of(&sorted)
    }

    /// Puts a producer in, and says how many there are more.
    fn put(&mut self, producer_id: i64, producer: Producer) -> usize {
        let added = usize::from(self.by_id.insert(producer_id, producer).is_none());
        self.pool.take(added);
        added
    }

    /// Producers that the bound of the pool leaves to this log: with fewer, two that write by turns would forget each other.
    fn pool_floor(&self) -> usize {
        POOL_FLOOR.min(self.max / 4).max(1)
    }

    /// Forgets those that were used longest ago, after `added` have come: as many as are too many here, or in the pool.
    fn evict(&mut self, added: usize) {
        let mut owed = added;
        while self.by_id.len() > self.max || (owed > 0 && self.by_id.len() > self.pool_floor() && self.pool.is_over()) {
            // Those of the broker itself only where there are too many of them alone.
            let is_own = |producer_id: i64| producer_id >= BROKER_PRODUCER_ID_MIN;
            let may_go = |producer_id: i64| !is_own(producer_id) || self.by_id.len() > self.max;
            let candidates = self.by_id.iter().filter(|(producer_id, _)| may_go(**producer_id));
            let oldest = candidates.min_by_key(|(producer_id, producer)| (is_own(**producer_id), producer.used));
            let oldest = oldest.map(|(producer_id, _)| *producer_id);
            let Some(oldest) = oldest else { break };
            self.by_id.remove(&oldest);
            self.pool.give_back(1);
            owed = owed.saturating_sub(1);
        }
    }

    fn next_use(&mut self) -> u64 {
        let number = self.uses;
        self.uses += 1;
        number
    }
}

impl Drop for Producers {
    fn drop(&mut self) {
        self.pool.give_back(self.by_id.len());
    }
}

/// How often the producers of a log are looked through for those that have expired. One that has is not believed in between either.
const LOOK_INTERVAL_MS: i64 = 60_000;

/// Producers whose memory a log keeps from one run to the next; most have a few. A thousand logs with this many keep 8 MB.
const SPARE_PRODUCERS_MAX: usize = 28;

/// Producers that each log may remember, however many the others do.
const POOL_FLOOR: usize = 16;

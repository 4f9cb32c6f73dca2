//! Which partition a record goes to.

use super::lane::Lane;
use crate::{error::Error, record::BorrowedRecord};
use millpond_protocol::partitioner;
use std::sync::{
    Arc,
    atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed},
};

/// How much goes to one partition before records without a key move on, in bytes: many records, so that batches fill, and yet so few that
/// the partitions get alike when they are not full.
const STICKY_BYTES: usize = 64 << 10;

/// The lanes of a topic and the rule for choosing one. Replaced as a whole when the topic changes.
#[derive(Debug)]
pub(crate) struct Placement {
    /// One for each partition.
    lanes: Vec<Arc<Lane>>,
    /// The lane whose records the broker places.
    by_broker: Arc<Lane>,
    /// A module of the topic places the records.
    is_by_broker: bool,
    sticky: Sticky,
}

impl Placement {
    pub(crate) fn new(partitions: u32, is_by_broker: bool) -> Placement {
        let lane = |partition| Arc::new(Lane::new(partition));
        let lanes = (0..partitions).map(|partition| lane(Some(partition))).collect();
        Placement { lanes, by_broker: lane(None), is_by_broker, sticky: Sticky::starting_at(rand::random()) }
    }

    /// The same lanes, and those of new partitions, under the topic's new rule. Lanes of partitions that are gone (the topic was made
    /// anew) are closed.
    pub(crate) fn changed(&self, partitions: u32, is_by_broker: bool) -> Placement {
        let mut changed = Placement::new(partitions, is_by_broker);
        for (new, old) in changed.lanes.iter_mut().zip(&self.lanes) {
            *new = Arc::clone(old);
        }
        changed.by_broker = Arc::clone(&self.by_broker);
        self.lanes.iter().skip(changed.lanes.len()).for_each(|gone| gone.close());
        changed
    }

    /// The lane for a record: the partition that it names; else where the topic's module says; else by its key, as Kafka does; else the
    /// partition whose batch is being filled.
    pub(crate) fn lane_for(&self, record: &BorrowedRecord<'_>, topic: &Arc<str>) -> Result<&Arc<Lane>, Error> {
        let partitions = u32::try_from(self.lanes.len()).unwrap_or(u32::MAX);
        let partition = match record.partition {
            Some(partition) => partition,
            None if self.is_by_broker => return Ok(&self.by_broker),
            None => match record.key {
                Some(key) => partitioner::for_key(key, partitions),
                None => self.sticky.current(partitions),
            },
        };
        let missing = || Error::PartitionOutOfRange { topic: Arc::clone(topic), partition, partitions, reading: false };
        self.lanes.get(partition as usize).ok_or_else(missing)
    }

    /// A record went to this lane and takes so many bytes there.
    #[inline]
    pub(crate) fn took(&self, lane: &Lane, record: &BorrowedRecord<'_>, bytes: usize) {
        if record.key.is_none() && record.partition.is_none() && self.sticky.is_full_with(bytes) {
            self.batch_is_full(lane);
        }
    }

    /// The batch of this lane takes no more records: the next records without a key fill another one.
    pub(crate) fn batch_is_full(&self, lane: &Lane) {
        if let Some(partition) = lane.partition {
            self.sticky.leave(partition, u32::try_from(self.lanes.len()).unwrap_or(u32::MAX));
        }
    }

    pub(crate) fn lanes(&self) -> impl Iterator<Item = &Arc<Lane>> {
        self.lanes.iter().chain(std::iter::once(&self.by_broker))
    }
}

/// Records without a key stay with one partition until its batch is full (KIP-480) or it got a good part of one (KIP-794), then go to the
/// next: in turn, so that all get their share.
#[derive(Debug)]
struct Sticky {
    turn: AtomicU32,
    /// Went to the partition whose turn it is.
    bytes: AtomicUsize,
}

impl Sticky {
    /// Producers start anywhere, so that many of them do not all fill the same partition.
    fn starting_at(random: u32) -> Sticky {
        Sticky { turn: AtomicU32::new(random), bytes: AtomicUsize::new(0) }
    }

    fn current(&self, partitions: u32) -> u32 {
        self.turn.load(Relaxed) % partitions.max(1)
    }

    /// Whether the partition has had its part with so many bytes more. Threads that race may be off by a record.
    #[inline]
    fn is_full_with(&self, bytes: usize) -> bool {
        self.bytes.fetch_add(bytes, Relaxed) + bytes >= STICKY_BYTES
    }

    /// Moves on from `partition`, unless somebody has.
    fn leave(&self, partition: u32, partitions: u32) {
        let current = self.turn.load(Relaxed);
        // If the exchange fails, another thread has moved on.
        if current % partitions.max(1) == partition && self.turn.compare_exchange(current, partition + 1, Relaxed, Relaxed).is_ok() {
            self.bytes.store(0, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOPIC: &str = "readings";

    const PLAIN: BorrowedRecord<'static> = BorrowedRecord { key: None, value: Some(b"x"), headers: &[], timestamp: None, partition: None };

    const fn keyed(key: &str) -> BorrowedRecord<'_> {
        BorrowedRecord { key: Some(key.as_bytes()), ..PLAIN }
    }

    fn choose(placement: &Placement, record: &BorrowedRecord<'_>) -> Option<u32> {
        placement.lane_for(record, &TOPIC.into()).unwrap().partition
    }

    #[test]
    fn a_key_goes_where_kafka_puts_it() {
        let placement = Placement::new(10, false);
        for key in ["21", "foobar", "a"] {
            let expected = partitioner::for_key(key.as_bytes(), 10);
            assert_eq!(choose(&placement, &keyed(key)), Some(expected));
        }
    }

    #[test]
    fn the_record_s_own_partition_counts_before_everything() {
        for is_by_broker in [false, true] {
            let placement = Placement::new(3, is_by_broker);
            assert_eq!(choose(&placement, &BorrowedRecord { partition: Some(2), ..keyed("k") }), Some(2));
            let error = placement.lane_for(&BorrowedRecord { partition: Some(3), ..PLAIN }, &TOPIC.into()).unwrap_err();
            assert_eq!(error.to_string(), "the topic `readings` has no partition 3: it has 3, from 0 to 2");
            assert_eq!(error.code(), "partition_out_of_range");
        }
    }

    #[test]
    fn a_topic_with_a_module_that_places_leaves_it_to_the_broker() {
        let placement = Placement::new(3, true);
        assert_eq!(choose(&placement, &keyed("k")), None);
        assert_eq!(choose(&placement, &PLAIN), None);
    }

    #[test]
    fn records_without_a_key_stay_until_the_batch_is_full_and_then_take_turns() {
        let placement = Placement::new(3, false);
        let record = PLAIN;
        let mut seen = Vec::new();
        for _ in 0..6 {
            let lane = placement.lane_for(&record, &TOPIC.into()).unwrap();
            assert_eq!(choose(&placement, &record), lane.partition, "stays");
            seen.push(lane.partition.unwrap());
            placement.batch_is_full(lane);
        }
        assert_eq!(seen[..3], seen[3..]);
        seen.truncate(3);
        seen.sort_unstable();
        assert_eq!(seen, [0, 1, 2]);
    }

    #[test]
    fn records_without_a_key_move_on_before_the_batch_is_full_if_they_are_many() {
        let placement = Placement::new(3, false);
        let (record, keyed) = (PLAIN, keyed("k"));
        let mut bytes = [0; 3];
        for _ in 0..3 * STICKY_BYTES / 100 {
            let lane = placement.lane_for(&record, &TOPIC.into()).unwrap();
            placement.took(lane, &record, 100);
            placement.took(lane, &keyed, 100_000);
            bytes[lane.partition.unwrap() as usize] += 100;
        }
        assert!(bytes.iter().all(|bytes| (STICKY_BYTES - 300..STICKY_BYTES + 100).contains(bytes)), "{bytes:?}");
    }

    #[test]
    fn a_full_batch_elsewhere_moves_nothing() {
        let placement = Placement::new(3, false);
        let here = choose(&placement, &PLAIN).unwrap();
        let elsewhere = placement.lanes().find(|lane| lane.partition != Some(here)).unwrap();
        placement.batch_is_full(elsewhere);
        assert_eq!(choose(&placement, &PLAIN), Some(here));
    }

    #[test]
    fn a_change_of_the_topic_keeps_the_lanes() {
        let before = Placement::new(2, false);
        let after = before.changed(3, true);
        assert_eq!(after.lanes().count(), 4);
        for (old, new) in before.lanes.iter().zip(&after.lanes) {
            assert!(Arc::ptr_eq(old, new));
        }
        assert!(Arc::ptr_eq(&before.by_broker, &after.by_broker));
        assert_eq!(choose(&after, &PLAIN), None);
    }
}

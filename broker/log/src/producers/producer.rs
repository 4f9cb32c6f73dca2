//! What is remembered of one producer.

use millpond_protocol::batch::BatchHeader;

use super::PRODUCER_BATCHES_MAX;

/// Where a batch is in the log, and since when: what its producer is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Its first offset. -1 if nothing of it was stored.
    pub base_offset: i64,
    /// Its last offset. -1 if nothing of it was stored.
    pub last_offset: i64,
    /// When it was appended, in milliseconds since 1970-01-01 UTC. -1 if that was forgotten in a restart.
    pub append_time_ms: i64,
    /// Offsets of the batch that have no record.
    pub records_dropped: u32,
}

/// A batch that is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerBatch {
    /// The sequence of its last record.
    pub last_sequence: i32,
    /// The checksum in its header.
    pub crc: u32,
    /// Where it is.
    pub appended: Appended,
}

/// What a log remembers of one producer, for whoever wants to see it (KIP-664 shows the like).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProducerState {
    /// The producer.
    pub producer_id: i64,
    /// Its epoch; batches of earlier ones are refused.
    pub epoch: i16,
    /// Its last batches, at least one and at most [`PRODUCER_BATCHES_MAX`], in the order in which they were appended.
    pub batches: Vec<ProducerBatch>,
}

/// A producer in one partition.
#[derive(Clone, Debug)]
pub(crate) struct Producer {
    pub(super) epoch: i16,
    /// The first `count` of them are true, in the order in which they were appended.
    batches: [ProducerBatch; PRODUCER_BATCHES_MAX],
    count: usize,
    /// Rises with every use: who has the lowest was used longest ago.
    pub(super) used: u64,
    /// When it was used, by the monotonic clock; none if nobody had a clock at hand.
    pub(super) used_ms: Option<i64>,
}

impl Producer {
    /// One of which no batch is known yet.
    pub(super) fn new(epoch: i16) -> Producer {
        let none = Appended { base_offset: -1, last_offset: -1, append_time_ms: -1, records_dropped: 0 };
        let batches = [ProducerBatch { last_sequence: -1, crc: 0, appended: none }; PRODUCER_BATCHES_MAX];
        Producer { epoch, batches, count: 0, used: 0, used_ms: None }
    }

    /// Remembers a batch, and forgets the oldest where there are too many. One of a new epoch is the first of it.
    pub(super) fn add(&mut self, epoch: i16, batch: ProducerBatch) {
        if epoch != self.epoch {
            (self.epoch, self.count) = (epoch, 0);
        }
        if self.count == PRODUCER_BATCHES_MAX {
            self.batches.rotate_left(1);
            self.count -= 1;
        }
        self.batches[self.count] = batch;
        self.count += 1;
    }

    pub(super) fn batches(&self) -> &[ProducerBatch] {
        &self.batches[..self.count]
    }

    pub(super) fn last_sequence(&self) -> Option<i32> {
        self.batches().last().map(|batch| batch.last_sequence)
    }
}

impl ProducerBatch {
    /// A batch that begins at this offset; -1 if nothing of it is stored.
    pub(super) fn of(header: &BatchHeader, base_offset: i64, append_time_ms: i64) -> ProducerBatch {
        let offsets = i64::from(header.last_offset_delta) + 1;
        let last_offset = if base_offset < 0 { -1 } else { base_offset.saturating_add(offsets - 1) };
        let records_dropped = u32::try_from((offsets - i64::from(header.record_count)).max(0)).unwrap_or(u32::MAX);
        let appended = Appended { base_offset, last_offset, append_time_ms, records_dropped };
        ProducerBatch { last_sequence: last_sequence(header), crc: header.crc, appended }
    }
}

/// The sequence of the last record of a batch (`DefaultRecordBatch.incrementSequence` in Kafka).
pub(super) fn last_sequence(header: &BatchHeader) -> i32 {
    let sum = header.base_sequence.wrapping_add(header.last_offset_delta);
    sum & i32::MAX
}

/// The sequence that follows.
pub(super) fn next_sequence(sequence: i32) -> i32 {
    sequence.wrapping_add(1) & i32::MAX
}

/// Whether `sequence` comes after `other`: less than half of all sequences ahead of it.
pub(super) fn is_newer(sequence: i32, other: i32) -> bool {
    let ahead = sequence.wrapping_sub(other) & i32::MAX;
    (1..1 << 30).contains(&ahead)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_wrap_behind_the_largest_number() {
        assert_eq!([next_sequence(0), next_sequence(i32::MAX - 1), next_sequence(i32::MAX)], [1, i32::MAX, 0]);
        let header = |base_sequence, last_offset_delta| BatchHeader { base_sequence, last_offset_delta, ..crate::producers::tests::HEADER };
        for (base, delta, last) in
            [(0, 0, 0), (5, 4, 9), (i32::MAX, 0, i32::MAX), (i32::MAX, 1, 0), (i32::MAX - 2, 9, 6), (i32::MAX, i32::MAX, i32::MAX - 1)]
        {
            assert_eq!(last_sequence(&header(base, delta)), last, "{base} and {delta} more");
        }
        for (sequence, other, newer) in
            [(1, 0, true), (0, 1, false), (0, 0, false), (0, i32::MAX, true), (i32::MAX, 0, false), (1 << 30, 0, false)]
        {
            assert_eq!(is_newer(sequence, other), newer, "{sequence} after {other}");
        }
    }
}

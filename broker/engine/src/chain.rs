//! The order of batches on a stream whose records the broker places. Pure.
//!
//! A batch becomes one part for each partition that its records go to, and each part has the sequence of its batch. Within a partition
//! the sequence of a producer has gaps then, so a missing part can't be told from one that went elsewhere. What can be told is which part
//! the stream sent there before:
//!
//! ```text
//!   batch of the stream      1      2      3      4
//!   its part in partition 0  1 <--- 2 <----------- 4      a part is taken if the one that it names was the last one taken
//!   its part in partition 1         2 <--- 3 <--- 4
//! ```
//!
//! If a part is refused, those behind it in its partition are refused as well, until the producer sends the batch again. Sending it
//! again begins the chain anew: the first part in each partition names none, and is taken if it is newer than all that were taken there,
//! or recognised if it was. That is right because the producer sends everything from the refused batch on again, in order, and because the
//! same records go to the same partition each time, [through the modules of the first](crate::earlier); where a module decides otherwise, the
//! checksum of the part gives it away.

use millpond_log::SequenceError;
use millpond_protocol::batch::{BatchHeader, sequence_after};

/// What a stream has submitted.
#[derive(Debug, Default)]
pub(crate) struct Chain {
    producer: Option<(i64, i16)>,
    /// The sequence that the next batch begins with. None where any may come.
    expected: Option<i32>,
    /// A batch has begun, and not all of its parts are submitted.
    is_begun: bool,
    /// For each partition the last sequence of the part that was submitted last.
    previous: Vec<Option<i32>>,
}

impl Chain {
    /// A batch comes. It continues the stream, or goes back to one that is sent again.
    pub(crate) fn begin(&mut self, header: &BatchHeader) -> Result<(), SequenceError> {
        let (producer, came) = ((header.producer_id, header.producer_epoch), header.base_sequence);
        if header.producer_id < 0 {
            return Ok(());
        }
        match self.expected.filter(|_| self.producer == Some(producer)) {
            Some(expected) if expected == came && !self.is_begun => {
                self.is_begun = true;
                return Ok(());
            }
            Some(expected) if expected != came && !is_before(came, expected) => {
                return Err(SequenceError::OutOfOrder { producer_id: producer.0, epoch: producer.1, expected, found: came });
            }
            _ => {}
        }
        *self = Chain { producer: Some(producer), expected: Some(came), is_begun: true, previous: Vec::new() };
        Ok(())
    }

    /// The part that was submitted last to this partition.
    pub(crate) fn previous(&self, partition: u32) -> Option<i32> {
        self.previous.get(partition as usize).copied().flatten()
    }

    /// A part of the batch is in the queue of its partition.
    pub(crate) fn submitted(&mut self, partition: u32, header: &BatchHeader) {
        if header.producer_id < 0 {
            return;
        }
        let partition = partition as usize;
        if partition >= self.previous.len() {
            self.previous.resize(partition + 1, None);
        }
        self.previous[partition] = Some(header.last_sequence());
    }

    /// All parts of the batch are. Before that, the stream expects the same batch again.
    pub(crate) fn complete(&mut self, header: &BatchHeader) {
        if header.producer_id >= 0 {
            self.expected = Some(sequence_after(header.last_sequence(), 1));
            self.is_begun = false;
        }
    }
}

/// Whether a sequence lies before another, on a circle of 2^31.
fn is_before(sequence: i32, other: i32) -> bool {
    const HALF: i32 = 1 << 30;
    let behind = other.wrapping_sub(sequence) & i32::MAX;
    behind > 0 && behind < HALF
}

/// A number that follows from which batch it is, and is spread evenly.
pub(crate) fn spread(header: &BatchHeader) -> u32 {
    // Fibonacci hashing: the upper half of the product depends on every bit of both.
    let number = header.producer_id.cast_unsigned() ^ u64::from(header.base_sequence.cast_unsigned());
    u32::try_from(number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use millpond_protocol::{
        batch::{Batch, BatchBuilder},
        compression::Codec,
        record::NewRecord,
    };

    fn header(producer_id: i64, epoch: i16, base_sequence: i32, records: u32) -> BatchHeader {
        let mut builder = BatchBuilder::new();
        for _ in 0..records {
            builder.push(&NewRecord::default()).expect("it fits");
        }
        builder.set_producer(producer_id, epoch, base_sequence);
        *Batch::parse(builder.finish(Codec::None).expect("it has records")).expect("it is a batch").header()
    }

    fn submit(chain: &mut Chain, header: &BatchHeader, partitions: &[u32]) -> Vec<Option<i32>> {
        chain.begin(header).expect("it continues");
        let mut named = Vec::new();
        for partition in partitions {
            named.push(chain.previous(*partition));
            chain.submitted(*partition, header);
        }
        chain.complete(header);
        named
    }

    #[test]
    fn a_part_names_the_one_before_it_in_its_partition() {
        let mut chain = Chain::default();
        assert_eq!(submit(&mut chain, &header(7, 0, 0, 2), &[0]), [None]);
        assert_eq!(submit(&mut chain, &header(7, 0, 2, 3), &[1, 0]), [None, Some(1)]);
        assert_eq!(submit(&mut chain, &header(7, 0, 5, 1), &[1]), [Some(4)]);
        assert_eq!(submit(&mut chain, &header(7, 0, 6, 1), &[0, 1]), [Some(4), Some(5)]);
    }

    #[test]
    fn a_batch_that_was_not_submitted_whole_is_waited_for_and_begins_the_chain_anew() {
        let mut chain = Chain::default();
        submit(&mut chain, &header(7, 0, 0, 2), &[0, 1]);
        let refused = header(7, 0, 2, 1);
        chain.begin(&refused).expect("it continues");
        chain.submitted(0, &refused);
        let error = chain.begin(&header(7, 0, 3, 1)).expect_err("the one before it is missing");
        assert!(matches!(error, SequenceError::OutOfOrder { expected: 2, found: 3, .. }), "{error:?}");
        // Nobody knows what became of the part that was submitted.
        assert_eq!(submit(&mut chain, &refused, &[0, 1]), [None, None]);
        assert_eq!(submit(&mut chain, &header(7, 0, 1, 1), &[0]), [None], "it goes back further");
        assert_eq!(submit(&mut chain, &header(7, 0, 2, 1), &[0, 1]), [Some(1), None]);
    }

    #[test]
    fn another_epoch_or_producer_begins_anew_and_one_without_numbers_is_no_part_of_it() {
        let mut chain = Chain::default();
        submit(&mut chain, &header(7, 0, 10, 1), &[0]);
        assert_eq!(submit(&mut chain, &header(-1, -1, -1, 1), &[0]), [Some(10)]);
        assert_eq!(submit(&mut chain, &header(7, 1, 0, 1), &[0]), [None]);
        assert_eq!(submit(&mut chain, &header(8, 1, 500, 1), &[0]), [None]);
    }

    #[test]
    fn the_numbers_go_round() {
        let mut chain = Chain::default();
        submit(&mut chain, &header(7, 0, i32::MAX - 1, 3), &[0]);
        assert_eq!(submit(&mut chain, &header(7, 0, 1, 1), &[0]), [Some(0)]);
        assert!(is_before(i32::MAX, 0) && !is_before(0, i32::MAX) && !is_before(5, 5));
    }

    #[test]
    fn batches_without_keys_are_spread_over_the_partitions() {
        let mut counts = [0_u32; 3];
        for number in 0..3_000 {
            counts[(spread(&header(0x1234_5678_9abc_def0, 0, number * 7, 1)) % 3) as usize] += 1;
        }
        assert!(counts.iter().all(|count| (800..1_200).contains(count)), "{counts:?}");
    }
}

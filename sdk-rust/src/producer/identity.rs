//! Who a lane is to its partition: the numbers that let the broker recognise a batch that it has stored already (KIP-98, KIP-360).
//!
//! ```text
//!            | producer id | epoch | sequence of its first record
//!  batch     |             |       |
//!  3 records | 7           | 0     | 0
//!  2 records | 7           | 0     | 3
//!  4 records | 7           | 0     | 5           <-- refused for good: the broker will not take 9 before it has 5
//!  2 records | 7           | 1     | 0  (was 9)  <-- so the numbers begin anew, in the next epoch
//! ```

use millpond_protocol::batch::sequence_after;

/// The last batches of each producer that a broker recognises, as in Kafka. No more than these are on their way at a time.
pub(crate) const REMEMBERED_BATCHES: u64 = 5;

/// The numbers of a batch, or those that the next batch of a lane gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Numbers {
    /// From the broker, which gives each only once.
    pub(crate) producer_id: i64,
    /// Goes up whenever the sequence begins anew. The broker takes nothing of an epoch once it has seen a later one.
    pub(crate) epoch: i16,
    /// The number of the first record of the batch, from 0. Behind `i32::MAX` comes 0.
    pub(crate) sequence: i32,
}

impl Numbers {
    /// In the header of a batch: it has no numbers.
    pub(crate) const NONE: Numbers = Numbers { producer_id: -1, epoch: -1, sequence: -1 };

    /// Those of the first batch under a new producer id.
    pub(crate) const fn first(producer_id: i64) -> Numbers {
        Numbers { producer_id, epoch: 0, sequence: 0 }
    }

    /// Those of the batch behind one with so many records.
    pub(crate) const fn behind(self, records: u32) -> Numbers {
        Numbers { sequence: sequence_after(self.sequence, records.cast_signed()), ..self }
    }

    /// The first ones of the next epoch; none behind the last epoch, when it takes another producer id.
    pub(crate) fn next_epoch(self) -> Option<Numbers> {
        Some(Numbers { epoch: self.epoch.checked_add(1)?, sequence: 0, ..self })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sequence_goes_on_from_0_behind_the_largest() {
        let at = |sequence| Numbers { sequence, ..Numbers::first(7) };
        assert_eq!(at(0).behind(3).sequence, 3);
        assert_eq!(at(i32::MAX - 1).behind(1).sequence, i32::MAX);
        assert_eq!(at(i32::MAX).behind(1).sequence, 0);
        assert_eq!(at(i32::MAX - 1).behind(1_000_000).sequence, 999_998);
    }

    #[test]
    fn an_epoch_begins_at_0_and_the_last_one_has_none_behind_it() {
        let numbers = Numbers { sequence: 5, ..Numbers::first(7) };
        assert_eq!(numbers.next_epoch(), Some(Numbers { producer_id: 7, epoch: 1, sequence: 0 }));
        assert_eq!(Numbers { epoch: i16::MAX, ..numbers }.next_epoch(), None);
    }
}

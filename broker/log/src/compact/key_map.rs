//! Which record of each key is the latest: a table of fixed size, from a fingerprint of the key to an offset.
//!
//! ```text
//! slot    +-------------------------+-----------+
//!         | fingerprint, 128 bits   | offset    |   24 bytes; an offset of -1 is an empty slot
//!         +-------------------------+-----------+
//! ```
//!
//! Two keys with one fingerprint would cost the earlier one its record. Keys come from producers, so the fingerprint is a keyed hash whose
//! keys are drawn for each map and never leave it: nobody can look for such a pair, and by chance there is none (of a million keys, once
//! in 10^27 maps). The hash is the standard library's (`SipHash`, by its documentation), made against just this; two of them with
//! different keys give 128 bits, without a dependency of our own.

use std::hash::{BuildHasher, RandomState};

/// The offset of the latest record of each key.
#[derive(Debug)]
pub(super) struct KeyMap {
    slots: Vec<Slot>,
    keys: usize,
    keys_max: usize,
    hashers: [RandomState; 2],
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    fingerprint: [u64; 2],
    offset: i64,
}

impl KeyMap {
    /// A map that takes at most this much memory, and no more than `records` records need. It holds one key at least.
    pub(super) fn new(bytes_max: usize, records: u64) -> KeyMap {
        let wanted = usize::try_from(records).unwrap_or(usize::MAX).saturating_mul(FULL_DENOMINATOR) / FULL_NUMERATOR;
        let slots = (bytes_max / size_of::<Slot>()).min(wanted.saturating_add(1)).max(2);
        let keys_max = (slots * FULL_NUMERATOR / FULL_DENOMINATOR).max(1);
        let hashers = [RandomState::new(), RandomState::new()];
        KeyMap { slots: vec![Slot { fingerprint: [0; 2], offset: EMPTY }; slots], keys: 0, keys_max, hashers }
    }

    /// Notes a record of the key, which is later than those before. False if there is no room for a further key.
    #[must_use]
    pub(super) fn insert(&mut self, key: &[u8], offset: i64) -> bool {
        let fingerprint = self.fingerprint(key);
        let at = self.find(fingerprint);
        if self.slots[at].offset == EMPTY {
            if self.keys == self.keys_max {
                return false;
            }
            self.keys += 1;
        }
        self.slots[at] = Slot { fingerprint, offset };
        true
    }

    /// The offset of the latest record of the key. None if no record of it was noted.
    pub(super) fn get(&self, key: &[u8]) -> Option<i64> {
        if self.keys == 0 {
            return None;
        }
        Some(self.slots[self.find(self.fingerprint(key))].offset).filter(|offset| *offset != EMPTY)
    }

    fn fingerprint(&self, key: &[u8]) -> [u64; 2] {
        [self.hashers[0].hash_one(key), self.hashers[1].hash_one(key)]
    }

    /// The slot that holds the fingerprint, or the empty one where it belongs. There is always an empty one.
    fn find(&self, fingerprint: [u64; 2]) -> usize {
        let count = self.slots.len();
        // The upper half of the product: as even as a remainder, and cheaper. Below `count`, so it fits.
        let scaled = (u128::from(fingerprint[0]) * count as u128) >> 64;
        let mut at = usize::try_from(scaled).unwrap_or(0);
        while self.slots[at].offset != EMPTY && self.slots[at].fingerprint != fingerprint {
            at = (at + 1) % count;
        }
        at
    }
}

/// The offset in an empty slot.
const EMPTY: i64 = -1;

/// Three quarters of the slots are used at most; a look-up of a key that is not there then takes some nine steps.
const FULL_NUMERATOR: usize = 3;
const FULL_DENOMINATOR: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn the_latest_offset_of_each_key_is_found_and_no_other() {
        let mut map = KeyMap::new(1 << 20, 10_000);
        let mut model = BTreeMap::new();
        for offset in 0..10_000_i64 {
            let key = (offset * 7919 % 1_000).to_be_bytes();
            assert!(map.insert(&key, offset));
            model.insert(key, offset);
        }
        for (key, offset) in &model {
            assert_eq!(map.get(key), Some(*offset));
        }
        assert_eq!((map.get(b"another"), map.get(b"")), (None, None));
    }

    #[test]
    fn a_full_map_says_so_and_still_takes_what_it_knows() {
        let mut map = KeyMap::new(24 * 8, u64::MAX);
        let taken = (0..100_u8).take_while(|key| map.insert(&[*key], i64::from(*key))).count();
        assert_eq!(taken, 6, "three quarters of eight slots");
        assert!(map.insert(&[0], 1_000) && !map.insert(&[99], 1_001));
        assert_eq!((map.get(&[0]), map.get(&[99])), (Some(1_000), None));
    }

    #[test]
    fn the_smallest_map_holds_one_key_and_memory_follows_the_records() {
        let mut map = KeyMap::new(0, 0);
        assert!(map.get(b"a").is_none() && map.insert(b"a", 0) && !map.insert(b"b", 1));
        assert_eq!(size_of::<Slot>(), 24);
        let small = KeyMap::new(8 << 20, 30);
        assert!(small.slots.len() < 50 && small.keys_max >= 30, "{}", small.slots.len());
    }
}

//! What a module keeps between batches: keys and values, for an attachment with derived topics that was granted some bytes (`--state-bytes`).
//!
//! There is one state for each partition of the source. It changes together with the position in the source and with what was written: after
//! any crash, all of it is there or nothing. What was changed in a batch on which the module failed is taken back. Where the
//! broker looks for the records of a batch on which a module fails, it gives it parts of the batch.
//!
//! A module that calls one of these can't be attached where there is no state, and they are there while a batch is processed, not in `new`. In a
//! native test the state is in memory, one for each thread, see [`crate::testing`].
//!
//! ```
//! use millpond_guest::state;
//!
//! # fn count(key: &[u8]) -> Result<u64, String> {
//! let count = state::get_u64(key) + 1;
//! state::put_u64(key, count)?;
//! # Ok(count) }
//! # assert_eq!((count(b"a"), count(b"a"), count(b"b")), (Ok(1), Ok(2), Ok(1)));
//! ```

#[cfg(target_arch = "wasm32")]
use crate::bindings::derive::millpond::plugin::state as store;
#[cfg(not(target_arch = "wasm32"))]
use crate::testing::state as store;

/// The value of a key.
pub fn get(key: &[u8]) -> Option<Vec<u8>> {
    store::get(key)
}

/// Gives a key a value.
///
/// # Errors
///
/// The key is longer than 1 KiB, or the state would have more bytes than were granted: those of all keys and values, and 64 for each. Nothing
/// is changed then.
pub fn put(key: &[u8], value: &[u8]) -> Result<(), String> {
    store::put(key, value)
}

/// Removes a key, if it is there.
pub fn delete(key: &[u8]) {
    store::delete(key);
}

/// The first entries whose key begins with `prefix` and comes behind `after`, in bytewise order of the keys: `limit` of them, or fewer where
/// they are many or large. None is the end; else ask again behind the last key. [`entries`] does that.
///
/// What was deleted in the batch is passed over one by one: a module that takes many from the front scans behind the last one that it took.
pub fn scan(prefix: &[u8], after: Option<&[u8]>, limit: u32) -> Vec<(Vec<u8>, Vec<u8>)> {
    store::scan(prefix, after, limit)
}

/// All entries whose key begins with `prefix`, in order. The state may be changed meanwhile: what is changed behind the place is seen.
pub fn entries(prefix: &[u8]) -> Entries<'_> {
    Entries { prefix, page: Vec::new().into_iter(), last: None }
}

/// A number that [`put_u64`] has put; 0 where there is none.
pub fn get_u64(key: &[u8]) -> u64 {
    get(key).and_then(|value| value.try_into().ok()).map_or(0, u64::from_be_bytes)
}

/// A time, or another number with a sign, as bytes whose order is that of the numbers: for a part of a key, so that [`entries`] gives the
/// smallest first. [`from_ordered`] reads it.
pub fn ordered(number: i64) -> [u8; 8] {
    (number ^ i64::MIN).to_be_bytes()
}

/// The number that [`ordered`] has written. None of other than 8 bytes.
pub fn from_ordered(bytes: &[u8]) -> Option<i64> {
    Some(i64::from_be_bytes(bytes.try_into().ok()?) ^ i64::MIN)
}

/// Gives a key a number.
///
/// # Errors
///
/// Those of [`put`].
pub fn put_u64(key: &[u8], number: u64) -> Result<(), String> {
    put(key, &number.to_be_bytes())
}

/// A number that [`put_f64`] has put.
pub fn get_f64(key: &[u8]) -> Option<f64> {
    get(key).and_then(|value| value.try_into().ok()).map(f64::from_be_bytes)
}

/// Gives a key a number.
///
/// # Errors
///
/// Those of [`put`].
pub fn put_f64(key: &[u8], number: f64) -> Result<(), String> {
    put(key, &number.to_be_bytes())
}

/// Entries of the state, a page at a time.
#[derive(Debug)]
pub struct Entries<'a> {
    prefix: &'a [u8],
    page: std::vec::IntoIter<(Vec<u8>, Vec<u8>)>,
    last: Option<Vec<u8>>,
}

impl Entries<'_> {
    /// The same, but only those that come behind a key.
    #[must_use]
    pub fn after(mut self, key: &[u8]) -> Self {
        self.last = Some(key.to_vec());
        self
    }
}

impl Iterator for Entries<'_> {
    type Item = (Vec<u8>, Vec<u8>);

    fn next(&mut self) -> Option<(Vec<u8>, Vec<u8>)> {
        if self.page.as_slice().is_empty() {
            self.page = scan(self.prefix, self.last.as_deref(), PAGE_ENTRIES).into_iter();
        }
        let entry = self.page.next()?;
        self.last = Some(entry.0.clone());
        Some(entry)
    }
}

/// Entries that are asked for at once.
const PAGE_ENTRIES: u32 = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn entries_come_in_order_over_any_number_of_pages() {
        for number in (0..700_u32).rev() {
            put(format!("a{number:04}").as_bytes(), b"x").expect("there is no limit");
        }
        put(b"b", b"y").expect("there is no limit");
        let found: Vec<_> = entries(b"a").map(|(key, _)| String::from_utf8(key).expect("text")).collect();
        assert_eq!(found, (0..700).map(|number| format!("a{number:04}")).collect::<Vec<_>>());
        assert_eq!(entries(b"a").after(b"a0100").next().map(|(key, _)| key), Some(b"a0101".to_vec()));
        delete(b"b");
        assert_eq!((get(b"b"), entries(b"b").count(), get(b"a0001")), (None, 0, Some(b"x".to_vec())));
    }

    #[test]
    fn numbers_in_keys_come_in_their_order() {
        let numbers = [i64::MIN, -1_000, -1, 0, 1, 255, 256, i64::MAX];
        for number in numbers.iter().rev() {
            put(&[b"t", &ordered(*number)[..]].concat(), b"").expect("there is no limit");
        }
        let found: Vec<_> = entries(b"t").map(|(key, _)| from_ordered(&key[1..])).collect();
        assert_eq!(found, numbers.map(Some));
        assert_eq!((from_ordered(&[0; 7]), from_ordered(&[0; 9])), (None, None));
    }

    #[test]
    fn a_state_that_is_full_refuses_what_would_make_it_larger() {
        testing::grant_state(2 * (64 + 9));
        put_u64(b"a", 1).expect("it fits");
        put_f64(b"b", -0.5).expect("it fits");
        assert!(put_u64(b"c", 1).expect_err("it does not fit").contains("full"));
        assert!(put(&[0; 1025], b"").expect_err("it is too long").contains("too long"));
        put_u64(b"a", 2).expect("it is no larger");
        assert_eq!((get_u64(b"a"), get_f64(b"b"), get_u64(b"c")), (2, Some(-0.5), 0));
    }
}

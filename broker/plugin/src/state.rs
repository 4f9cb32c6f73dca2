//! The state of a module: keys and values, as they are committed, and as a draft of what comes next.
//!
//! ```text
//!   KeyValues        a=1  b=2  c=3                     what is committed; nobody changes it while there are drafts
//!   StateDraft            b=7      d=4   c=(gone)      what a round of batches has changed
//!   undo                           d=(nothing)         what changes since the last mark have replaced, so that they can be taken back
//! ```
//!
//! A module reads through the draft. Where it fails on a batch, what it changed there is undone; when a round is committed, the changes
//! are applied to what was committed before.
//!
//! The size of a state is counted as the bytes of all keys and values and [`STATE_ENTRY_OVERHEAD_BYTES`] for each. A draft never has more than
//! its limit, but for one that was more already, because the limit came down: that one can shrink.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Bound;
use std::sync::Arc;

/// What each entry of a state counts beside its key and its value, in bytes.
pub const STATE_ENTRY_OVERHEAD_BYTES: u64 = 64;

/// The longest key of a state, in bytes.
pub const STATE_KEY_BYTES_MAX: usize = 1024;

/// The most entries that one `scan` gives.
pub const STATE_SCAN_ENTRIES_MAX: usize = 1000;

/// When one `scan` has given so many bytes it ends.
pub const STATE_SCAN_BYTES_MAX: usize = 256 * 1024;

/// What the changes of one batch may have replaced, beside the size of the state, in bytes: all of it is kept until the batch is through.
pub const STATE_UNDO_BYTES_MAX: u64 = 8 << 20;

/// Keys and values, in bytewise order of the keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyValues {
    entries: BTreeMap<Vec<u8>, Vec<u8>>,
    bytes: u64,
}

/// A key with its new value; without one it is gone.
pub type StateChange = (Vec<u8>, NewValue);

/// What a key has from now on; none is nothing.
type NewValue = Option<Vec<u8>>;

impl KeyValues {
    /// How much it counts, in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The value of a key.
    pub fn get(&self, key: &[u8]) -> Option<&[u8]> {
        self.entries.get(key).map(Vec::as_slice)
    }

    /// All entries, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.entries.iter().map(|(key, value)| (key.as_slice(), value.as_slice()))
    }

    /// Makes one change.
    pub fn apply(&mut self, (key, value): StateChange) {
        let (key_bytes, added) = (key.len(), value.as_ref().map(Vec::len));
        let before = match value {
            Some(value) => self.entries.insert(key, value),
            None => self.entries.remove(&key),
        };
        self.bytes += added.map_or(0, |value_bytes| entry_bytes(key_bytes, value_bytes));
        self.bytes -= before.map_or(0, |value| entry_bytes(key_bytes, value.len()));
    }
}

/// A moment of a draft, to which it can go back.
#[derive(Clone, Copy, Debug)]
#[must_use = "it is of use to go back to"]
pub struct StateMark {
    undo: usize,
    undo_bytes: u64,
    bytes: u64,
}

/// A state while a module works with it.
#[derive(Debug, Default)]
pub struct StateDraft {
    committed: Arc<KeyValues>,
    changes: BTreeMap<Vec<u8>, NewValue>,
    /// What `changes` had for the keys that were changed since [`StateDraft::keep`]; none is nothing.
    undo: Vec<(Vec<u8>, Option<NewValue>)>,
    undo_bytes: u64,
    bytes: u64,
    limit_bytes: u64,
}

impl StateDraft {
    /// A draft without changes.
    pub fn new(committed: Arc<KeyValues>, limit_bytes: u64) -> StateDraft {
        let bytes = committed.bytes();
        StateDraft { committed, bytes, limit_bytes, ..StateDraft::default() }
    }

    /// The moment.
    pub fn mark(&self) -> StateMark {
        StateMark { undo: self.undo.len(), undo_bytes: self.undo_bytes, bytes: self.bytes }
    }

    /// Takes back what was changed since a moment. Of several, the later ones are of no use any more.
    pub fn undo_to(&mut self, mark: StateMark) {
        for (key, before) in self.undo.drain(mark.undo.min(self.undo.len())..).rev() {
            match before {
                Some(before) => drop(self.changes.insert(key, before)),
                None => drop(self.changes.remove(&key)),
            }
        }
        (self.undo_bytes, self.bytes) = (mark.undo_bytes, mark.bytes);
    }

    /// What was changed until now stays. Marks that were set before are of no use any more.
    pub fn keep(&mut self) {
        self.undo.clear();
        self.undo_bytes = 0;
    }

    /// Whether nothing was changed.
    pub fn is_unchanged(&self) -> bool {
        self.changes.is_empty()
    }

    /// What was changed, in order of the keys.
    pub fn into_changes(self) -> Vec<StateChange> {
        self.changes.into_iter().collect()
    }

    /// The value of a key.
    pub fn get(&self, key: &[u8]) -> Option<&[u8]> {
        match self.changes.get(key) {
            Some(changed) => changed.as_deref(),
            None => self.committed.get(key),
        }
    }

    /// Gives a key a value.
    ///
    /// # Errors
    ///
    /// In words for the author: the key is too long, the state would be larger than it may, or the changes of one batch are too many
    /// ([`STATE_UNDO_BYTES_MAX`]).
    pub fn put(&mut self, key: Vec<u8>, value: Vec<u8>) -> Result<(), String> {
        if key.len() > STATE_KEY_BYTES_MAX {
            return Err(format!("a key of {} bytes is too long, {STATE_KEY_BYTES_MAX} are allowed", key.len()));
        }
        let before = self.get(&key).map_or(0, |value| entry_bytes(key.len(), value.len()));
        let bytes = self.bytes - before + entry_bytes(key.len(), value.len());
        if bytes > self.limit_bytes && bytes > self.bytes {
            let limit = self.limit_bytes;
            return Err(format!("the state is full: it would have {bytes} bytes, and {limit} are granted (`--state-bytes`)"));
        }
        if self.undo_bytes > self.limit_bytes.saturating_add(STATE_UNDO_BYTES_MAX) {
            return Err(format!("one batch has replaced {} bytes of the state, which is too much", self.undo_bytes));
        }
        self.bytes = bytes;
        self.change(key, Some(value));
        Ok(())
    }

    /// Removes a key, if it is there.
    pub fn delete(&mut self, key: Vec<u8>) {
        if let Some(value) = self.get(&key) {
            self.bytes -= entry_bytes(key.len(), value.len());
            self.change(key, None);
        }
    }

    /// The first entries whose key begins with `prefix` and comes behind `after`, `limit` of them or fewer ([`STATE_SCAN_ENTRIES_MAX`],
    /// [`STATE_SCAN_BYTES_MAX`]); none only where there is none.
    pub fn scan(&self, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Vec<(Vec<u8>, Vec<u8>)> {
        let from = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let range = (from, Bound::Unbounded);
        let mut committed = self.committed.entries.range::<[u8], _>(range).peekable();
        let mut changes = self.changes.range::<[u8], _>(range).peekable();
        let (mut found, mut bytes, limit) = (Vec::new(), 0, limit.min(STATE_SCAN_ENTRIES_MAX));
        while found.len() < limit && bytes < STATE_SCAN_BYTES_MAX {
            let is_changed = match (committed.peek(), changes.peek()) {
                (Some((old, _)), Some((new, _))) => new <= old,
                (None, Some(_)) => true,
                (Some(_), None) => false,
                (None, None) => break,
            };
            let (key, value) = if is_changed {
                let Some((key, value)) = changes.next() else { break };
                // What it changes is not what is there.
                committed.next_if(|(old, _)| *old == key);
                (key, value.as_ref())
            } else {
                let Some((key, value)) = committed.next() else { break };
                (key, Some(value))
            };
            if !key.starts_with(prefix) {
                break;
            }
            if let Some(value) = value {
                bytes += key.len() + value.len();
                found.push((key.clone(), value.clone()));
            }
        }
        found
    }

    /// The value of a key is another one from now on; without a trace where there was none before.
    fn change(&mut self, key: Vec<u8>, value: Option<Vec<u8>>) {
        let is_trace = value.is_some() || self.committed.get(&key).is_some();
        let before = match self.changes.entry(key.clone()) {
            Entry::Occupied(entry) if !is_trace => Some(entry.remove()),
            Entry::Occupied(mut entry) => Some(entry.insert(value)),
            Entry::Vacant(_) if !is_trace => None,
            Entry::Vacant(entry) => {
                entry.insert(value);
                None
            }
        };
        let replaced = before.as_ref().and_then(Option::as_ref).map_or(0, Vec::len);
        self.undo_bytes += entry_bytes(key.len(), replaced);
        self.undo.push((key, before));
    }
}

/// What an entry counts.
fn entry_bytes(key_bytes: usize, value_bytes: usize) -> u64 {
    key_bytes as u64 + value_bytes as u64 + STATE_ENTRY_OVERHEAD_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(entries: &[(&str, &str)]) -> Arc<KeyValues> {
        let mut state = KeyValues::default();
        for (key, value) in entries {
            state.apply((key.as_bytes().to_vec(), Some(value.as_bytes().to_vec())));
        }
        Arc::new(state)
    }

    fn put(draft: &mut StateDraft, key: &str, value: &str) -> Result<(), String> {
        draft.put(key.as_bytes().to_vec(), value.as_bytes().to_vec())
    }

    fn keys(draft: &StateDraft, prefix: &str, after: Option<&str>, limit: usize) -> String {
        let found = draft.scan(prefix.as_bytes(), after.map(str::as_bytes), limit);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        found.iter().map(|(key, value)| format!("{}={}", text(key), text(value))).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_scan_sees_what_is_committed_through_what_was_changed() {
        let mut draft = StateDraft::new(state(&[("a", "1"), ("ba", "2"), ("bb", "3"), ("bc", "4"), ("c", "5")]), 1 << 20);
        put(&mut draft, "bab", "6").expect("it fits");
        put(&mut draft, "bb", "7").expect("it fits");
        draft.delete(b"bc".to_vec());
        draft.delete(b"nothing".to_vec());
        assert_eq!(keys(&draft, "b", None, 9), "ba=2 bab=6 bb=7");
        assert_eq!(keys(&draft, "b", None, 2), "ba=2 bab=6");
        assert_eq!(keys(&draft, "b", Some("bab"), 2), "bb=7");
        assert_eq!(keys(&draft, "b", Some("bb"), 2), "");
        assert_eq!(keys(&draft, "b", Some("a"), 1), "ba=2", "a place before the prefix is its beginning");
        assert_eq!(keys(&draft, "", None, 99), "a=1 ba=2 bab=6 bb=7 c=5");
        assert_eq!(keys(&draft, "", None, 0), "");
    }

    #[test]
    fn what_a_failed_batch_changed_is_taken_back_and_nothing_else() {
        let mut draft = StateDraft::new(state(&[("a", "1"), ("b", "2")]), 1 << 20);
        put(&mut draft, "a", "3").expect("it fits");
        draft.keep();
        let before = draft.mark();
        put(&mut draft, "a", "4").expect("it fits");
        put(&mut draft, "c", "5").expect("it fits");
        let within = draft.mark();
        draft.delete(b"b".to_vec());
        draft.delete(b"c".to_vec());
        put(&mut draft, "a", "6").expect("it fits");
        assert_eq!(keys(&draft, "", None, 9), "a=6");
        draft.undo_to(within);
        assert_eq!(keys(&draft, "", None, 9), "a=4 b=2 c=5");
        draft.undo_to(before);
        assert_eq!((keys(&draft, "", None, 9), draft.bytes), ("a=3 b=2".to_owned(), draft.committed.bytes()));
        draft.delete(b"a".to_vec());
        assert_eq!(draft.into_changes(), [(b"a".to_vec(), None)]);
    }

    #[test]
    fn the_limit_counts_keys_values_and_entries_and_a_state_that_is_over_it_can_shrink() {
        let entry = |key: &str, value: &str| (key.len() + value.len()) as u64 + STATE_ENTRY_OVERHEAD_BYTES;
        let mut draft = StateDraft::new(Arc::default(), entry("a", "12345") + entry("b", ""));
        put(&mut draft, "a", "12345").expect("it fits");
        put(&mut draft, "b", "").expect("it fits");
        let error = put(&mut draft, "b", "1").expect_err("it is one byte too much");
        assert!(error.contains("is full"), "{error}");
        assert_eq!(keys(&draft, "", None, 9), "a=12345 b=");
        put(&mut draft, "a", "1234").expect("it is smaller");
        put(&mut draft, "b", "1").expect("there is room again");
        let error = draft.put(vec![0; STATE_KEY_BYTES_MAX + 1], vec![]).expect_err("the key is too long");
        assert!(error.contains("too long"), "{error}");

        let mut small = StateDraft::new(state(&[("a", "12345"), ("b", "1")]), 1);
        put(&mut small, "a", "1").expect("it shrinks");
        put(&mut small, "a", "123").expect_err("it would grow");
        small.delete(b"b".to_vec());
        assert_eq!(small.into_changes().len(), 2);
    }

    #[test]
    fn a_module_that_writes_the_same_key_for_ever_is_stopped_and_the_next_batch_may_write_again() {
        let limit = 1 << 20;
        let mut draft = StateDraft::new(Arc::default(), limit);
        let writes = (0..1_000).take_while(|_| draft.put(b"k".to_vec(), vec![0; 900_000]).is_ok()).count();
        assert!((9..=12).contains(&writes), "{writes}");
        draft.keep();
        draft.put(b"k".to_vec(), vec![1; 10]).expect("it is another batch");
        let small = (0..1_000_000).take_while(|_| draft.put(b"k".to_vec(), vec![]).is_ok()).count();
        assert!(small < 200_000, "{small}");
    }

    /// Random changes against a plain map, with undone batches between them.
    #[test]
    fn a_draft_does_what_a_map_does() {
        let mut seed = 7_u64;
        let mut random = move |below: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % below
        };
        let (mut committed, mut model) = (Arc::new(KeyValues::default()), BTreeMap::<Vec<u8>, Vec<u8>>::new());
        for _ in 0..300 {
            let mut draft = StateDraft::new(Arc::clone(&committed), u64::MAX);
            for _ in 0..random(4) {
                let (before, mark) = (model.clone(), draft.mark());
                for _ in 0..random(12) {
                    let key = vec![u8::try_from(random(3)).expect("small"); usize::try_from(random(4)).expect("small")];
                    if random(3) == 0 {
                        draft.delete(key.clone());
                        model.remove(&key);
                    } else {
                        let value = vec![1; usize::try_from(random(9)).expect("small")];
                        draft.put(key.clone(), value.clone()).expect("there is no limit");
                        model.insert(key, value);
                    }
                }
                if random(3) == 0 {
                    draft.undo_to(mark);
                    model = before;
                }
                let expected: Vec<_> = model.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
                assert_eq!(draft.scan(b"", None, 1000), expected);
            }
            let bytes = draft.bytes;
            for change in draft.into_changes() {
                Arc::make_mut(&mut committed).apply(change);
            }
            assert_eq!((committed.bytes(), committed.len()), (bytes, model.len()));
        }
    }
}

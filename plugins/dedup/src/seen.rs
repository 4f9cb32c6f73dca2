//! Which ids have gone on, and when: kept in the state of the module.
//!
//! ```text
//!  i id        ->  time     when a record with this id went on, the newest of them
//!  t time id   ->           the same in the order of time: what is to be forgotten first comes first in a scan
//!  n           ->  count    how many ids there are; only where their number is limited
//!
//!  time: 8 bytes, big-endian, with the sign bit turned around, so that the order of the bytes is that of the times
//! ```
//!
//! For each `i` there is one `t`. Whether a record is a duplicate is decided by the times alone, never by whether an id that is past its
//! window has been forgotten already: so it is enough that each record forgets a few ([`FORGOTTEN_PER_RECORD_MAX`]), which is more than it
//! adds.

use millpond_guest::{log, state};

/// See the module.
#[derive(Debug)]
pub(crate) struct Seen {
    /// None is for ever.
    window_ms: Option<i64>,
    count_max: Option<u64>,
    known: Known,
}

/// What is known of the state within a batch. Between two of them it may have been taken back.
#[derive(Debug, Default)]
struct Known {
    /// No id has a time before this.
    oldest: Option<i64>,
    /// No id is here or before it in the order of time: a scan behind it does not pass over all that is gone.
    forgotten_to: Option<Vec<u8>>,
    /// How many ids there are, where their number is limited.
    count: Option<u64>,
    count_in_state: Option<u64>,
    /// How often there was no room in this batch, less than [`FULL_ROUNDS_MAX`].
    times_full: u32,
}

impl Seen {
    pub(crate) fn new(window_ms: Option<i64>, count_max: Option<u64>) -> Seen {
        Seen { window_ms, count_max, known: Known::default() }
    }

    /// A batch begins.
    pub(crate) fn begin(&mut self) {
        self.known = Known::default();
    }

    /// Whether a record with this id and this time goes on. Then it is remembered.
    pub(crate) fn is_new(&mut self, id: &[u8], time: i64) -> Result<bool, String> {
        self.read_count()?;
        self.forget_past(time);
        let is_new = self.judge(id, time)?;
        self.write_count()?;
        Ok(is_new)
    }

    fn judge(&mut self, id: &[u8], time: i64) -> Result<bool, String> {
        if let Some(before) = state::get(&by_id(id)).and_then(|value| state::from_ordered(&value)) {
            match self.window_ms {
                None => return Ok(false),
                Some(window) if before.abs_diff(time) < window.unsigned_abs() => return Ok(false),
                // Late by more than the window; the newer one is of more use.
                Some(_) if time < before => return Ok(true),
                Some(_) => self.forget(&by_time(before, id)),
            }
        }
        self.forget_surplus();
        self.remember(id, time)?;
        Ok(true)
    }

    /// Forgets ids of which no record from this time on can be a duplicate.
    fn forget_past(&mut self, time: i64) {
        let Some(past) = self.window_ms.and_then(|window| time.checked_sub(window)) else { return };
        if self.known.oldest.is_some_and(|oldest| oldest > past) {
            return;
        }
        let entries = state::scan(BY_TIME, self.known.forgotten_to.as_deref(), FORGOTTEN_PER_RECORD_MAX);
        for (key, _) in &entries {
            match split(key) {
                Some((oldest, _)) if oldest > past => {
                    self.known.oldest = Some(oldest);
                    return;
                }
                _ => self.forget_first(key),
            }
        }
        let is_empty = entries.len() < FORGOTTEN_PER_RECORD_MAX as usize;
        self.known.oldest = is_empty.then_some(i64::MAX);
    }

    /// Forgets ids until there are less than there may be.
    fn forget_surplus(&mut self) {
        let (Some(count), Some(count_max)) = (self.known.count, self.count_max) else { return };
        let surplus = count.saturating_add(1).saturating_sub(count_max).min(FORGOTTEN_PER_RECORD_MAX.into());
        if let Ok(surplus @ 1..) = u32::try_from(surplus) {
            for (key, _) in state::scan(BY_TIME, self.known.forgotten_to.as_deref(), surplus) {
                self.forget_first(&key);
            }
        }
    }

    /// Remembers an id, in the place of older ones if the state is full; or does not where it would be the oldest itself.
    fn remember(&mut self, id: &[u8], time: i64) -> Result<(), String> {
        let mut rounds = 0;
        loop {
            let Err(full) = put(id, time) else {
                self.known.oldest = self.known.oldest.map(|oldest| oldest.min(time));
                self.known.forgotten_to.take_if(|forgotten_to| *forgotten_to >= by_time(time, id));
                self.known.count = self.known.count.map(|count| count.saturating_add(1));
                return Ok(());
            };
            if self.known.times_full == 0 {
                log::warn("the state is full: ids are forgotten before their window ends; more is granted with --state-bytes");
            }
            // The more often, the more at once: it costs less for each of many records.
            let entries = state::scan(BY_TIME, self.known.forgotten_to.as_deref(), 1 << self.known.times_full);
            self.known.times_full = (self.known.times_full + 1).min(FULL_ROUNDS_MAX - 1);
            let is_older = |key: &[u8]| split(key).is_none_or(|(oldest, _)| oldest <= time);
            match entries.first() {
                None => return Err(full),
                Some((first, _)) if !is_older(first) => return Ok(()),
                Some(_) if rounds == FULL_ROUNDS_MAX => return Err(full),
                Some(_) => entries.iter().take_while(|(key, _)| is_older(key)).for_each(|(key, _)| self.forget_first(key)),
            }
            rounds += 1;
        }
    }

    /// Forgets the first id in the order of time.
    fn forget_first(&mut self, by_time: &[u8]) {
        self.forget(by_time);
        self.known.forgotten_to = Some(by_time.to_vec());
    }

    /// Forgets an id, by its entry in the order of time.
    fn forget(&mut self, by_time: &[u8]) {
        state::delete(by_time);
        if let Some((_, id)) = split(by_time) {
            state::delete(&by_id(id));
            self.known.count = self.known.count.map(|count| count.saturating_sub(1));
        }
    }

    fn read_count(&mut self) -> Result<(), String> {
        if self.count_max.is_some() && self.known.count.is_none() {
            let count = state::get_u64(COUNT);
            if count == 0 {
                // Takes its room before ids do.
                state::put_u64(COUNT, 0)?;
            }
            (self.known.count, self.known.count_in_state) = (Some(count), Some(count));
        }
        Ok(())
    }

    fn write_count(&mut self) -> Result<(), String> {
        match self.known.count {
            Some(count) if self.known.count != self.known.count_in_state => {
                self.known.count_in_state = Some(count);
                state::put_u64(COUNT, count)
            }
            _ => Ok(()),
        }
    }
}

/// Puts both entries, or none.
fn put(id: &[u8], time: i64) -> Result<(), String> {
    state::put(&by_id(id), &state::ordered(time))?;
    state::put(&by_time(time, id), b"").inspect_err(|_| state::delete(&by_id(id)))
}

fn by_id(id: &[u8]) -> Vec<u8> {
    [BY_ID, id].concat()
}

fn by_time(time: i64, id: &[u8]) -> Vec<u8> {
    [BY_TIME, &state::ordered(time), id].concat()
}

/// Time and id of an entry in the order of time.
fn split(by_time: &[u8]) -> Option<(i64, &[u8])> {
    let (time, id) = by_time.strip_prefix(BY_TIME)?.split_at_checked(8)?;
    Some((state::from_ordered(time)?, id))
}

const BY_ID: &[u8] = b"i";
const BY_TIME: &[u8] = b"t";
const COUNT: &[u8] = b"n";

/// So many ids that are past their window one record forgets at most. It adds one, so what has piled up over a pause melts away.
const FORGOTTEN_PER_RECORD_MAX: u32 = 4;

/// So often one record makes room for its own: by 1, 2, 4, 8 and 16 ids. The longest takes as much as fifteen of the shortest.
const FULL_ROUNDS_MAX: u32 = 5;

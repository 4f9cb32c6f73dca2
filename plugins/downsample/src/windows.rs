//! The windows of all keys, kept in the state of the module.
//!
//! ```text
//!  c                 ->  time                    windows that begin before this are closed; it is a multiple of the window's length
//!  l                 ->  count                   records that came too late
//!  o start has key   ->  count sum least most    what is known of a key in a window, 8 bytes each; `has` is 0 for no key, or 1
//!
//!  time, start: 8 bytes, big-endian, with the sign bit turned around, so that the order of the bytes is that of the times
//! ```
//!
//! The windows that are closed come first in a scan. Each record writes a few of them at most ([`WRITTEN_PER_RECORD_MAX`]), which is more
//! than it opens, and each batch no more than fit its output ([`WRITTEN_PER_BATCH_MAX`]); the rest is written with the next records, and
//! takes no more readings meanwhile.

use std::fmt::Write;

use millpond_guest::{Output, Record, log, state};

/// Lengths of time, in milliseconds.
#[derive(Debug)]
pub(crate) struct SpansMs {
    /// More than 0.
    pub(crate) window: i64,
    pub(crate) grace: i64,
    pub(crate) ahead: i64,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Windows {
    spans: SpansMs,
    /// Windows that begin before this are closed. Known only within a batch: between two of them the state may have been taken back.
    closed_to: Option<i64>,
    /// Whether there may be closed ones that are not written; likewise.
    may_be_closed: bool,
    /// How many were written in this batch, and the last one: behind it the others are found without passing over what is gone.
    written: u32,
    last_written: Option<Vec<u8>>,
    has_said_late: bool,
}

impl Windows {
    pub(crate) fn new(spans: SpansMs) -> Windows {
        Windows { spans, closed_to: None, may_be_closed: true, written: 0, last_written: None, has_said_late: false }
    }

    /// A batch begins.
    pub(crate) fn begin(&mut self) {
        (self.closed_to, self.may_be_closed, self.has_said_late) = (None, true, false);
        (self.written, self.last_written) = (0, None);
    }

    /// A record has this time: closes what is over by then.
    pub(crate) fn pass_to(&mut self, time: i64) -> Result<(), String> {
        let to = self.start_of(time.saturating_sub(self.spans.grace));
        let known = self.closed_to.or_else(|| state::get(CLOSED_TO).and_then(|value| state::from_ordered(&value)));
        let Some(closed_to) = known else {
            // Takes its room before windows do.
            state::put_u64(LATE, 0)?;
            return self.close_to(to);
        };
        self.closed_to = Some(closed_to);
        let SpansMs { window, grace, ahead } = self.spans;
        // No record before it was later than the end of the first window that is open, and its grace.
        let newest = closed_to.saturating_add(window).saturating_add(grace);
        if time > newest.saturating_add(ahead) {
            return Err(format!("its time, {time}, is further ahead of all before it than `ahead` allows: is it in milliseconds?"));
        }
        if to > closed_to { self.close_to(to) } else { Ok(()) }
    }

    /// Writes closed windows, each as a record like this one in their place.
    pub(crate) fn write_closed(&mut self, record: &Record<'_>, out: &mut Output<'_>) {
        let room = (WRITTEN_PER_BATCH_MAX - self.written).min(WRITTEN_PER_RECORD_MAX);
        let Some(closed_to) = self.closed_to.filter(|_| self.may_be_closed && room > 0) else { return };
        let entries = state::scan(WINDOW, self.last_written.as_deref(), room);
        self.may_be_closed = entries.len() == room as usize;
        for (entry, readings) in entries {
            let Some((start, key)) = split(&entry) else { continue };
            if start >= closed_to {
                self.may_be_closed = false;
                return;
            }
            state::delete(&entry);
            self.last_written = Some(entry.clone());
            let Some(readings) = Readings::read(&readings) else { continue };
            let value = readings.json(start, start.saturating_add(self.spans.window));
            let change = record.change().with_value(value.as_bytes()).with_timestamp(start).with_headers(&[]);
            out.emit(&match key {
                Some(key) => change.with_key(key),
                None => change.without_key(),
            });
            self.written += 1;
        }
    }

    /// Adds a reading to the window of its time, or counts it if that is closed.
    pub(crate) fn add(&mut self, key: Option<&[u8]>, time: i64, reading: f64) -> Result<(), String> {
        if let Some(bytes) = key.map(<[u8]>::len).filter(|bytes| *bytes > KEY_BYTES_MAX) {
            return Err(format!("the key has {bytes} bytes, and {KEY_BYTES_MAX} are allowed"));
        }
        let start = self.start_of(time);
        if self.closed_to.is_some_and(|closed_to| start < closed_to) {
            return self.count_late(time);
        }
        let entry = entry(start, key);
        let readings = state::get(&entry).and_then(|value| Readings::read(&value));
        let readings = readings.map_or(Readings::one(reading), |readings| readings.and(reading));
        state::put(&entry, &readings.bytes())
    }

    fn start_of(&self, time: i64) -> i64 {
        time.div_euclid(self.spans.window).saturating_mul(self.spans.window)
    }

    fn close_to(&mut self, to: i64) -> Result<(), String> {
        self.closed_to = Some(to);
        self.may_be_closed = true;
        state::put(CLOSED_TO, &state::ordered(to))
    }

    fn count_late(&mut self, time: i64) -> Result<(), String> {
        let count = state::get_u64(LATE) + 1;
        state::put_u64(LATE, count)?;
        if !self.has_said_late {
            self.has_said_late = true;
            log::warn(&format!(
                "a record of the time {time} comes behind the end of its window; it is left out, as {count} in all until now"
            ));
        }
        Ok(())
    }
}

/// What is known of some readings.
#[derive(Clone, Copy, Debug)]
struct Readings {
    count: u64,
    sum: f64,
    least: f64,
    most: f64,
}

impl Readings {
    fn one(reading: f64) -> Readings {
        Readings { count: 1, sum: reading, least: reading, most: reading }
    }

    fn and(self, reading: f64) -> Readings {
        let Readings { count, sum, least, most } = self;
        Readings { count: count + 1, sum: sum + reading, least: least.min(reading), most: most.max(reading) }
    }

    fn bytes(&self) -> [u8; 32] {
        let mut bytes = [0; 32];
        let numbers = [self.count, self.sum.to_bits(), self.least.to_bits(), self.most.to_bits()];
        for (place, number) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(numbers) {
            *place = number.to_be_bytes();
        }
        bytes
    }

    fn read(bytes: &[u8]) -> Option<Readings> {
        let (numbers, []) = bytes.as_chunks::<8>() else { return None };
        let [count, sum, least, most] = *numbers else { return None };
        let number = |bytes| f64::from_bits(u64::from_be_bytes(bytes));
        Some(Readings { count: u64::from_be_bytes(count), sum: number(sum), least: number(least), most: number(most) })
    }

    /// What readings of a window become.
    fn json(&self, start: i64, end: i64) -> String {
        let Readings { count, sum, least, most } = *self;
        #[expect(clippy::cast_precision_loss, reason = "there are less than 2^53 readings in a window")]
        let mean = sum / count as f64;
        // Rounding may lead it out of their range; a sum that no number holds leaves none.
        let mean = if mean.is_finite() { mean.max(least).min(most) } else { f64::NAN };
        let mut json = format!("{{\"start\":{start},\"end\":{end},\"count\":{count}");
        for (name, number) in [("mean", mean), ("min", least), ("max", most)] {
            // Writing to a string can't fail.
            let _ = match number.abs() {
                0.0 | 1e-5..1e16 => write!(json, ",\"{name}\":{number}"),
                size if size.is_finite() => write!(json, ",\"{name}\":{number:e}"),
                _ => write!(json, ",\"{name}\":null"),
            };
        }
        json.push('}');
        json
    }
}

fn entry(start: i64, key: Option<&[u8]>) -> Vec<u8> {
    [WINDOW, &state::ordered(start), &[u8::from(key.is_some())], key.unwrap_or_default()].concat()
}

/// The window's start, and the key if there is one.
fn split(entry: &[u8]) -> Option<(i64, Option<&[u8]>)> {
    let (start, rest) = entry.strip_prefix(WINDOW)?.split_at_checked(8)?;
    let (has_key, key) = rest.split_first()?;
    Some((state::from_ordered(start)?, (*has_key == 1).then_some(key)))
}

const CLOSED_TO: &[u8] = b"c";
const LATE: &[u8] = b"l";
const WINDOW: &[u8] = b"o";

/// The longest key: it is a part of a key of the state, which has 1024 bytes.
pub(crate) const KEY_BYTES_MAX: usize = 1000;

/// So many closed windows one record writes at most. It opens one, so they become fewer from record to record.
pub(crate) const WRITTEN_PER_RECORD_MAX: u32 = 8;

/// So many closed windows are written in one batch at most: with the longest keys 2.3 MiB, of the 8 MiB that a module may return by default, and
/// time enough on a small machine.
pub(crate) const WRITTEN_PER_BATCH_MAX: u32 = 2048;

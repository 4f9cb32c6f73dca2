//! Deduplication: of the records with one id, those go on that are a window of time apart; the others are dropped.
//!
//! | setting | default | meaning |
//! |---|---|---|
//! | `field` | | the fields of the JSON object that are the id, as paths with commas between them; without one it is the key of the record |
//! | `window` | `10m` | a record is dropped if one with its id went on whose time is less than that away, before or behind |
//! | `last` | | at most so many ids are remembered, those of the newest records; without a `window` beside it, for ever |
//!
//! Time is the time of the records, for a guest has no clock. What is dropped does not begin a window anew, so of a key that comes all the
//! time one record goes on in each window. A record without the key, or without one of the fields, goes on as it is.
//!
//! It remembers ids, so it runs on derived topics: `--into TOPIC --state-bytes BYTES`. An id is forgotten once a record comes that is a
//! window newer. A record that comes so late that it could be a duplicate of one that is forgotten by then goes on: what nobody can know is
//! not dropped. Where the state is full, the oldest ids are forgotten early, which is logged; the newest duplicates are still found.

mod seen;

use std::time::Duration;

use millpond_guest::json::{self, Path};
use millpond_guest::{Batch, Output, Params, Record, Transform, transform};
use seen::Seen;

/// The transform.
#[derive(Debug)]
pub struct Dedup {
    /// None for the key of the record.
    fields: Vec<Path>,
    seen: Seen,
    /// The id of the record at hand.
    id: Vec<u8>,
}

impl Transform for Dedup {
    fn new(params: &Params) -> Result<Dedup, String> {
        params.expect_only(&["field", "window", "last"])?;
        let paths = Path::list(params.get("field").unwrap_or_default());
        let fields = paths.map_err(|error| format!("the setting `field` is no list of paths: {error}"))?;
        let last = params.get("last").map(|_| params.parse("last", 0_u64)).transpose()?;
        let window_ms = match (params.get("window"), last) {
            (None, Some(_)) => None,
            _ => Some(i64::try_from(params.duration("window", WINDOW)?.as_millis()).unwrap_or(i64::MAX)),
        };
        if window_ms == Some(0) || last == Some(0) {
            return Err("`window` and `last` are more than nothing: else nothing is a duplicate".to_owned());
        }
        Ok(Dedup { fields, seen: Seen::new(window_ms, last), id: Vec::new() })
    }

    fn begin(&mut self, _batch: &Batch) {
        self.seen.begin();
    }

    fn transform(&mut self, record: &Record<'_>, out: &mut Output<'_>) -> Result<(), String> {
        let goes_on = !self.read_id(record)? || self.seen.is_new(&self.id, record.timestamp())?;
        if goes_on {
            out.keep(record);
        }
        Ok(())
    }
}

transform!(Dedup);

impl Dedup {
    /// Whether there is an id.
    fn read_id(&mut self, record: &Record<'_>) -> Result<bool, String> {
        self.id.clear();
        if self.fields.is_empty() {
            let Some(key) = record.key() else { return Ok(false) };
            self.id.extend_from_slice(key);
        } else {
            let Ok(object) = json::object(record.value().unwrap_or_default()) else { return Ok(false) };
            for path in &self.fields {
                let Some(field) = object.at(path) else { return Ok(false) };
                let text = field.string().unwrap_or_else(|| field.text().into());
                if self.fields.len() > 1 {
                    // Or `ab` and `c` would be `a` and `bc`.
                    self.id.extend_from_slice(&u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes());
                }
                self.id.extend_from_slice(text.as_bytes());
            }
        }
        match self.id.len() {
            ..=ID_BYTES_MAX => Ok(true),
            bytes => Err(format!("the id has {bytes} bytes, and {ID_BYTES_MAX} are allowed")),
        }
    }
}

/// Where nothing else is set.
const WINDOW: Duration = Duration::from_mins(10);

/// The longest id: it is a part of a key of the state, which has 1024 bytes.
const ID_BYTES_MAX: usize = 1000;

#[cfg(test)]
mod tests;

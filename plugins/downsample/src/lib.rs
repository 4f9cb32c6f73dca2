//! Down-sampling by tumbling windows: of each key's readings in a minute, or whatever else the window is, one record with their count,
//! mean, least and greatest value.
//!
//! | setting | default | meaning |
//! |---|---|---|
//! | `field` | `value` | the field of the JSON object that holds the reading, a number: `celsius`, `engine.rpm` |
//! | `window` | `1m` | how long a window is; windows begin at whole multiples of it since 1970 |
//! | `grace` | `10s` | how long behind its end a window stays open for late records |
//! | `ahead` | `366d` | a record whose time is further ahead of all before it fails, for it would close all windows |
//!
//! Time is the time of the records, for a guest has no clock: a window of a partition is closed once a record comes whose time is its end
//! and `grace`, or later. Then each key that had readings in it gets a record, with the beginning of the window as its time:
//!
//! ```json
//! {"start":1767225600000,"end":1767225660000,"count":3,"mean":20.25,"min":19.5,"max":21}
//! ```
//!
//! It keeps what is open, so it runs on derived topics: `--into TOPIC --state-bytes BYTES`. A record that comes later than `grace` allows
//! is left out, counted, and the count is logged. A record without such a number is left out too; its time counts. Where the state is full,
//! the record fails that would open another window.

mod windows;

use std::time::Duration;

use millpond_guest::json::{self, Path};
use millpond_guest::{Batch, Output, Params, Record, Transform, transform};
use windows::{SpansMs, Windows};

/// The transform.
#[derive(Debug)]
pub struct Downsample {
    field: Path,
    windows: Windows,
}

impl Transform for Downsample {
    fn new(params: &Params) -> Result<Downsample, String> {
        params.expect_only(&["field", "window", "grace", "ahead"])?;
        let millis = |name, default| {
            let span = params.duration(name, default)?;
            i64::try_from(span.as_millis()).map_err(|_| format!("the setting `{name}` is too long"))
        };
        let spans = SpansMs { window: millis("window", WINDOW)?, grace: millis("grace", GRACE)?, ahead: millis("ahead", AHEAD)? };
        if spans.window == 0 {
            return Err("the setting `window` can't be nothing".to_owned());
        }
        let field = params.get("field").unwrap_or("value").parse();
        let field = field.map_err(|error| format!("the setting `field` is no path: {error}"))?;
        Ok(Downsample { field, windows: Windows::new(spans) })
    }

    fn begin(&mut self, _batch: &Batch) {
        self.windows.begin();
    }

    fn transform(&mut self, record: &Record<'_>, out: &mut Output<'_>) -> Result<(), String> {
        self.windows.pass_to(record.timestamp())?;
        self.windows.write_closed(record, out);
        let object = json::object(record.value().unwrap_or_default()).ok();
        let reading = object.and_then(|object| object.at(&self.field)?.number()).filter(|reading| reading.is_finite());
        match reading {
            Some(reading) => self.windows.add(record.key(), record.timestamp(), reading),
            None => Ok(()),
        }
    }
}

transform!(Downsample);

/// Where nothing else is set.
const WINDOW: Duration = Duration::from_mins(1);

/// Where nothing else is set.
const GRACE: Duration = Duration::from_secs(10);

/// Where nothing else is set. Shorter than any confusion of milliseconds with a smaller unit makes of a time.
const AHEAD: Duration = Duration::from_hours(366 * 24);

#[cfg(test)]
mod tests;

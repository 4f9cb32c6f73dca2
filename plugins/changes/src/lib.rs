//! Change detection with a deadband: of each key's readings, only those that differ enough from the last one that went on.
//!
//! | setting | default | meaning |
//! |---|---|---|
//! | `field` | `value` | the field of the JSON object that holds the reading, a number |
//! | `deadband` | `0` | a reading goes on if it differs by more than that |
//! | `every` | `0` | one goes on all the same after so many that did not; 0 is never |
//!
//! It keeps the last reading of each key that went on, so it runs on derived topics: `--into TOPIC --state-bytes BYTES`. A record whose value
//! is no JSON object with such a number goes on as it is, and so does the first one of each key.

use millpond_guest::{Output, Params, Record, Transform, json, state, transform};

/// The transform.
pub struct Changes {
    field: String,
    deadband: f64,
    every: u64,
}

impl Transform for Changes {
    fn new(params: &Params) -> Result<Changes, String> {
        params.expect_only(&["field", "deadband", "every"])?;
        let deadband = params.parse("deadband", 0.0)?;
        if !(0.0..f64::INFINITY).contains(&deadband) {
            return Err(format!("`deadband` is {deadband}: it is a number from 0 on"));
        }
        Ok(Changes { field: params.get("field").unwrap_or("value").to_owned(), deadband, every: params.parse("every", 0)? })
    }

    fn transform(&mut self, record: &Record<'_>, out: &mut Output<'_>) -> Result<(), String> {
        let reading: Option<f64> =
            json::object(record.value().unwrap_or_default()).ok().and_then(|object| object.get(&self.field)?.text().parse().ok());
        let Some(reading) = reading else {
            out.keep(record);
            return Ok(());
        };
        let key = record.key().unwrap_or_default();
        let last = Last::of(key);
        let goes_on = last.as_ref().is_none_or(|last| {
            let is_change = (reading - last.reading).abs() > self.deadband;
            is_change || (self.every > 0 && last.passed_over >= self.every)
        });
        let next = match last {
            Some(last) if !goes_on => Last { passed_over: last.passed_over.saturating_add(1), ..last },
            _ => Last { reading, passed_over: 0 },
        };
        if goes_on {
            out.keep(record);
        }
        // Without `every` a reading that does not go on changes nothing.
        if goes_on || self.every > 0 { next.put(key) } else { Ok(()) }
    }
}

transform!(Changes);

/// What is known of a key: the last reading that went on, and how many since did not.
struct Last {
    reading: f64,
    passed_over: u64,
}

impl Last {
    fn of(key: &[u8]) -> Option<Last> {
        let value = state::get(key)?;
        let (reading, passed_over) = value.split_first_chunk()?;
        Some(Last { reading: f64::from_be_bytes(*reading), passed_over: u64::from_be_bytes(passed_over.try_into().ok()?) })
    }

    fn put(&self, key: &[u8]) -> Result<(), String> {
        state::put(key, &[self.reading.to_be_bytes(), self.passed_over.to_be_bytes()].concat())
    }
}

#[cfg(test)]
mod tests {
    use super::Changes;
    use millpond_guest::testing::{Batch, Stored, grant_state, transform};

    fn run(params: &[(&str, &str)], readings: &[(&str, &str)]) -> Vec<String> {
        let batch =
            readings.iter().fold(Batch::new(), |batch, (key, value)| batch.record(Some(key.as_bytes()), Some(value.as_bytes()), &[]));
        transform::<Changes>(params, &batch).expect("it runs").iter().map(Stored::value_text).collect()
    }

    fn reading(value: f64) -> String {
        format!("{{\"value\":{value}}}")
    }

    #[test]
    fn only_what_differs_by_more_than_the_deadband_goes_on_for_each_key() {
        let (a, b, c, d) = (reading(20.0), reading(20.5), reading(20.6), reading(19.9));
        let readings = [("x", &*a), ("y", &b), ("x", &b), ("x", &c), ("y", &c), ("x", &d)];
        assert_eq!(run(&[("deadband", "0.5")], &readings), [a.clone(), b.clone(), c.clone(), d.clone()]);
        assert_eq!(run(&[("deadband", "0.5")], &[("x", &d), ("y", &d)]), std::slice::from_ref(&d), "the state is there in the next batch");
    }

    #[test]
    fn without_a_deadband_what_is_the_same_is_left_out() {
        let (one, other) = (reading(1.0), "{\"a\":0,\"value\":1.0}");
        assert_eq!(run(&[], &[("x", &one), ("x", &one), ("x", other), ("x", &reading(2.0))]), [one.clone(), reading(2.0)]);
    }

    #[test]
    fn after_so_many_one_goes_on_all_the_same() {
        let one = reading(1.0);
        assert_eq!(run(&[("every", "2")], &[("x", &*one); 8]).len(), 3, "the first, the fourth and the seventh");
    }

    #[test]
    fn what_is_no_reading_goes_on() {
        let values = ["text", "{}", "{\"value\":\"high\"}", "{\"value\":null}"];
        assert_eq!(run(&[], &values.map(|value| ("x", value))), values);
    }

    #[test]
    fn a_wrong_setting_is_refused_and_a_full_state_fails_the_record() {
        for (name, value) in [("deadband", "-1"), ("deadband", "NaN"), ("deadband", "much"), ("every", "-1"), ("feild", "x")] {
            transform::<Changes>(&[(name, value)], &Batch::new()).expect_err("it is refused");
        }
        grant_state(100);
        let batch = Batch::new().record(Some(b"a"), Some(b"{\"value\":1}"), &[]).record(Some(b"b"), Some(b"{\"value\":1}"), &[]);
        let error = transform::<Changes>(&[], &batch).expect_err("there is room for one key");
        assert!(error.starts_with("record 1") && error.contains("full"), "{error}");
    }
}

//! Alarms of devices: a reading above a limit raises the alarm of its device, which is the record's key, and one that is not clears it.
//! Attached with `--into ALARMS,READINGS --state-bytes BYTES`.
//!
//! | setting | default | meaning |
//! |---|---|---|
//! | `limit` | `80` | a reading above this is an alarm |
//! | `field` | `temperature` | the field of the JSON object that holds the reading |
//! | `page` | `100` | how many alarms answer a question, at most |
//!
//! A record without a key is a question for the alarms that are raised, of devices that begin with its value and come behind its header `after`.

use millpond_guest::{Derive, Outputs, Params, Record, Target, derive, json, state};

const ALARMS: usize = 0;
const READINGS: usize = 1;

/// The module, with its settings.
pub struct Alarms {
    limit: f64,
    field: String,
    page: usize,
}

impl Derive for Alarms {
    fn new(params: &Params, targets: &[Target]) -> Result<Alarms, String> {
        params.expect_only(&["limit", "field", "page"])?;
        let alarms = Alarms {
            limit: params.parse("limit", 80.0)?,
            field: params.get("field").unwrap_or("temperature").to_owned(),
            page: params.parse("page", 100)?,
        };
        if targets.len() == 2 { Ok(alarms) } else { Err("name two topics: one for the alarms, one for the readings".to_owned()) }
    }

    fn derive(&mut self, record: &Record<'_>, out: &mut Outputs) -> Result<(), String> {
        match (record.key(), record.value()) {
            (None, _) => self.answer(record, out),
            (Some(device), None) => {
                state::delete(device); // the device is gone
                out.keep(ALARMS, record);
                out.keep(READINGS, record);
            }
            (Some(device), Some(value)) => self.reading(device, value, record, out)?,
        }
        Ok(())
    }
}

impl Alarms {
    fn reading(&self, device: &[u8], value: &[u8], record: &Record<'_>, out: &mut Outputs) -> Result<(), String> {
        let object = json::object(value).map_err(|_| "the value is not a JSON object")?;
        let reading = object.get(&self.field).and_then(|field| field.number());
        let count = state::get_u64(device);
        if reading > Some(self.limit) {
            state::put_u64(device, count + 1)?;
            let text = (count + 1).to_string();
            let headers: Vec<_> = record.headers().chain([("count", Some(text.as_bytes()))]).collect();
            out.emit(ALARMS, &record.change().with_headers(&headers));
            return Ok(());
        }
        if count > 0 {
            state::delete(device);
            out.emit(ALARMS, &record.change().without_value().with_headers(&[("cleared", Some(count.to_string().as_bytes()))]));
        }
        out.keep(READINGS, record);
        Ok(())
    }

    fn answer(&self, question: &Record<'_>, out: &mut Outputs) {
        let raised = state::entries(question.value().unwrap_or_default());
        let raised = match question.header("after").flatten() {
            Some(after) => raised.after(after),
            None => raised,
        };
        for (device, count) in raised.take(self.page) {
            let count = count.try_into().map_or(0, u64::from_be_bytes).to_string();
            out.emit(ALARMS, &question.change().with_key(&device).with_value(count.as_bytes()).with_headers(&[]));
        }
    }
}

derive!(Alarms);

#[cfg(test)]
mod tests {
    use super::Alarms;
    use millpond_guest::state;
    use millpond_guest::testing::{Batch, Deriving, grant_state};

    const TARGETS: [&str; 2] = ["alarms", "readings"];

    fn readings<const N: usize>(readings: [(&str, f64); N]) -> Batch {
        readings.iter().fold(Batch::new(), |batch, (device, celsius)| {
            batch.record(Some(device.as_bytes()), Some(format!("{{\"temperature\":{celsius}}}").as_bytes()), &[])
        })
    }

    /// Starts it, with room for four devices.
    fn start(params: &[(&str, &str)]) -> Deriving<Alarms> {
        grant_state(4 * (64 + 8 + 1));
        Deriving::start(params, &TARGETS).expect("it starts")
    }

    /// Topic, key and first header of each record.
    fn run(alarms: &mut Deriving<Alarms>, batch: &Batch) -> Vec<String> {
        let written = alarms.run(batch).expect("it runs");
        let shown = written.iter().map(|(topic, record)| {
            let key = String::from_utf8_lossy(record.key.as_deref().unwrap_or_default()).into_owned();
            let header =
                record.headers.first().map(|(name, value)| (name.as_str(), String::from_utf8_lossy(value.as_deref().unwrap_or(b""))));
            header.map_or(format!("{topic} {key}"), |(name, value)| format!("{topic} {key} {name}={value}"))
        });
        shown.collect()
    }

    #[test]
    fn an_alarm_is_raised_counted_and_cleared() {
        let mut alarms = start(&[]);
        let written = run(&mut alarms, &readings([("a", 81.0), ("b", 20.0), ("a", 82.0)]));
        assert_eq!(written, ["alarms a count=1", "alarms a count=2", "readings b"]);
        assert_eq!(run(&mut alarms, &readings([("a", 80.0)])), ["alarms a cleared=2", "readings a"]);
        assert_eq!(state::get(b"a"), None);
    }

    #[test]
    fn a_question_is_answered_a_page_at_a_time() {
        let mut alarms = start(&[("page", "2")]);
        run(&mut alarms, &readings([("a", 90.0), ("c", 90.0), ("b", 90.0), ("d", 90.0)]));
        let questions = Batch::of_values([""]).record(None, Some(b""), &[("after", Some(b"b"))]).record(None, Some(b"c"), &[]);
        assert_eq!(run(&mut alarms, &questions), ["alarms a", "alarms b", "alarms c", "alarms d", "alarms c"]);
    }

    #[test]
    fn a_batch_that_fails_changes_nothing() {
        let mut alarms = start(&[]);
        run(&mut alarms, &readings([("a", 90.0)]));
        let error = alarms.run(&readings([("a", 90.0)]).record(Some(b"a"), Some(b"[1]"), &[])).expect_err("no object");
        assert_eq!(error, "record 1: the value is not a JSON object");
        let error = alarms.run(&readings(["a", "b", "c", "d", "e"].map(|device| (device, 90.0)))).expect_err("no room");
        assert!(error.starts_with("record 4: the state is full"), "{error}");
        assert_eq!((state::get_u64(b"a"), state::entries(b"").count()), (1, 1));
    }

    #[test]
    fn it_needs_two_topics() {
        let error = Deriving::<Alarms>::start(&[], &TARGETS[..1]).err();
        assert_eq!(error.as_deref(), Some("name two topics: one for the alarms, one for the readings"));
    }
}

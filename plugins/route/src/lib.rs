//! A router by a field: each record goes to the topic that has the name of the field's value, or that a setting names for it.
//!
//! | setting | default | meaning |
//! |---|---|---|
//! | `field` | `type` | the field of the JSON object that is looked at |
//! | `otherwise` | | the topic for all that belongs to no other; without one it is left out |
//! | `key` | | a field whose value becomes the key of the record; without one it keeps its key |
//! | `to.VALUE` | | the topic for this value, where it has another name |
//!
//! The topics are those that the module was attached with: `--into alarms,readings`.

use std::collections::BTreeMap;

use millpond_guest::{Derive, Outputs, Params, Record, Target, derive, json};

/// The router.
pub struct Route {
    field: String,
    /// Which topic, by value.
    topics: BTreeMap<String, usize>,
    otherwise: Option<usize>,
    key: Option<String>,
}

impl Derive for Route {
    fn new(params: &Params, targets: &[Target]) -> Result<Route, String> {
        let find = |name: &str| {
            let found = targets.iter().position(|target| target.name == name);
            found.ok_or_else(|| format!("`{name}` is none of the topics that it was attached with"))
        };
        let mut topics: BTreeMap<_, _> = targets.iter().map(|target| target.name.clone()).zip(0..).collect();
        for (name, topic) in params.iter() {
            match (name, name.strip_prefix("to.")) {
                ("field" | "otherwise" | "key", _) => {}
                (_, Some(value)) => drop(topics.insert(value.to_owned(), find(topic)?)),
                (name, None) => return Err(format!("there is no setting `{name}`; there are: field, otherwise, key, to.VALUE")),
            }
        }
        Ok(Route {
            field: params.get("field").unwrap_or("type").to_owned(),
            topics,
            otherwise: params.get("otherwise").map(find).transpose()?,
            key: params.get("key").map(str::to_owned),
        })
    }

    fn derive(&mut self, record: &Record<'_>, out: &mut Outputs) -> Result<(), String> {
        let object = json::object(record.value().unwrap_or_default()).ok();
        let text = |name: &str| {
            let field = object.as_ref()?.get(name)?;
            Some(field.string().map_or_else(|| field.text().to_owned(), std::borrow::Cow::into_owned))
        };
        let topic = text(&self.field).and_then(|value| self.topics.get(&value).copied()).or(self.otherwise);
        match (topic, self.key.as_deref().and_then(text)) {
            (Some(topic), Some(key)) => out.emit(topic, &record.change().with_key(key.as_bytes())),
            (Some(topic), None) => out.keep(topic, record),
            (None, _) => {}
        }
        Ok(())
    }
}

derive!(Route);

#[cfg(test)]
mod tests {
    use super::Route;
    use millpond_guest::testing::{Batch, Deriving};

    const VALUES: [&str; 5] =
        [r#"{"type":"alarm","device":"a"}"#, r#"{"type":"reading"}"#, r#"{"type":7,"device":8}"#, "text", r#"{"type":"b\u0065ll"}"#];

    fn run(params: &[(&str, &str)], targets: &[&str]) -> Result<Vec<String>, String> {
        let written = Deriving::<Route>::start(params, targets)?.run(&Batch::of_values(VALUES))?;
        let of = |index: usize| written.iter().filter(move |(topic, _)| topic == targets[index]);
        let place = |value: &str| VALUES.iter().position(|known| *known == value).expect("it is one of them");
        let show = |index| of(index).map(|(_, record)| place(&record.value_text()).to_string()).collect::<Vec<_>>().join(" ");
        Ok((0..targets.len()).map(show).collect())
    }

    #[test]
    fn a_record_goes_to_the_topic_of_its_value() {
        assert_eq!(run(&[], &["alarm", "reading"]), Ok(vec!["0".to_owned(), "1".to_owned()]));
        let params = [("to.alarm", "x"), ("to.7", "x"), ("to.bell", "x"), ("otherwise", "y")];
        assert_eq!(run(&params, &["y", "x"]), Ok(vec!["1 3".to_owned(), "0 2 4".to_owned()]));
        assert_eq!(run(&[("field", "device"), ("to.a", "x")], &["x", "8"]), Ok(vec!["0".to_owned(), "2".to_owned()]));
    }

    #[test]
    fn a_field_becomes_the_key_where_it_is_there() {
        let mut route = Deriving::<Route>::start(&[("key", "device"), ("otherwise", "t")], &["t"]).expect("it starts");
        let written = route.run(&VALUES.iter().fold(Batch::new(), |batch, value| batch.record(Some(b"old"), Some(value.as_bytes()), &[])));
        let keys: Vec<_> = written.expect("it runs").into_iter().map(|(_, record)| record.key.expect("it has one")).collect();
        assert_eq!(keys, [&b"a"[..], b"old", b"8", b"old", b"old"]);
    }

    #[test]
    fn a_topic_that_was_not_named_and_a_setting_that_there_is_not_are_refused() {
        for params in [("otherwise", "z"), ("to.a", "z"), ("feild", "x")] {
            assert!(run(&[params], &["x"]).is_err(), "{params:?}");
        }
    }
}

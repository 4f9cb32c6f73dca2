//! Drops the readings of idle devices and masks the name of the host in the others.
//!
//! | setting | default | meaning |
//! |---|---|---|
//! | `field` | `state` | the field of the JSON object that is looked at |
//! | `value` | `idle` | a record is dropped if the field has this value: a string, or a number, `true`, `false` or `null` written like this |
//! | `mask` | `host` | the field whose value is replaced by `"***"`; empty masks nothing |
//!
//! Only fields of the outermost object count. If one is there more than once, any of them drops the record, and all are masked. A record
//! that is not a JSON object, or has no value, is kept as it is: it is not telemetry, and losing it would be worse.

use millpond_guest::{Output, Params, Record, Transform, json, transform};

/// The transform, with its settings in the order above.
pub struct DropIdle([String; 3]);

impl Transform for DropIdle {
    fn new(params: &Params) -> Result<DropIdle, String> {
        params.with_defaults([("field", "state"), ("value", "idle"), ("mask", "host")]).map(DropIdle)
    }

    fn transform(&mut self, record: &Record<'_>, out: &mut Output<'_>) -> Result<(), String> {
        let DropIdle([field, value, mask]) = self;
        match json::object(record.value().unwrap_or_default()) {
            Ok(reading) if reading.all(field).any(|found| found.is(value)) => {} // neither kept nor emitted: dropped
            Ok(mut reading) => out.keep_with(record, reading.mask(mask)),
            Err(_) => out.keep(record),
        }
        Ok(())
    }
}

transform!(DropIdle);

#[cfg(test)]
mod tests {
    use super::DropIdle;
    use millpond_guest::testing::{Batch, Stored, transform};

    #[test]
    fn the_readme_of_the_plugins_shows_all_of_it() {
        let shown = include_str!("../../README.md").split("```rust\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a block");
        let code = include_str!("lib.rs").split("#[cfg(test)]").next().expect("code");
        let code: Vec<&str> = code.lines().filter(|line| !line.is_empty() && !line.trim_start().starts_with("//")).collect();
        assert_eq!(shown.lines().filter(|line| !line.is_empty()).collect::<Vec<_>>(), code);
        assert_eq!(code.len(), 17, "lines, and that is the point of the SDK");
    }

    fn run(params: &[(&str, &str)], values: &[&str]) -> Vec<(i32, String)> {
        let stored = transform::<DropIdle>(params, &Batch::of_values(values)).expect("it runs");
        stored.iter().map(|record| (record.offset_delta, record.value_text())).collect()
    }

    fn kept(values: &[(i32, &str)]) -> Vec<(i32, String)> {
        values.iter().map(|(offset, value)| (*offset, (*value).to_owned())).collect()
    }

    #[test]
    fn idle_readings_go_and_hosts_are_masked() {
        let values = [
            r#"{"device":"a","host":"gw-7","cpu_percent":91.5,"state":"busy"}"#,
            r#"{"device":"b","host":"gw-7","cpu_percent":0.1,"state":"idle"}"#,
            r#"{"state":"busy","host":"gw-8","tags":["x","y"]}"#,
        ];
        let expected = [
            (0, r#"{"device":"a","host":"***","cpu_percent":91.5,"state":"busy"}"#),
            (2, r#"{"state":"busy","host":"***","tags":["x","y"]}"#),
        ];
        assert_eq!(run(&[], &values), kept(&expected));
    }

    #[test]
    fn only_the_outermost_object_counts() {
        let value = r#"{"inner":{"state":"idle","host":"x"},"list":[{"state":"idle"}],"state":"busy"}"#;
        assert_eq!(run(&[], &[value]), kept(&[(0, value)]));
    }

    #[test]
    fn escapes_do_not_hide_a_value_or_a_name() {
        let values = [r#"{"st\u0061te":"\u0069dle"}"#, r#"{"h\u006fst":"gw \"7\", }","state":"busy"}"#];
        assert_eq!(run(&[], &values), kept(&[(1, r#"{"h\u006fst":"***","state":"busy"}"#)]));
    }

    #[test]
    fn a_host_that_is_not_a_string_and_one_that_is_there_twice_are_masked_too() {
        let values = [r#"{"host":{"name":"x"} }"#, r#"{"host":null,"a":1,"host":"x"}"#];
        assert_eq!(run(&[], &values), kept(&[(0, r#"{"host":"***" }"#), (1, r#"{"host":"***","a":1,"host":"***"}"#)]));
    }

    #[test]
    fn what_is_no_json_object_stays_as_it_is() {
        let values = ["", "plain text", "[1]", "{\"host\":\"x\"", "{\"state\":\"idle\"} ...", "\"idle\""];
        let expected: Vec<_> = (0..).zip(values).collect();
        assert_eq!(run(&[], &values), kept(&expected));
        let tombstone = Batch::new().record(Some(b"key"), None, &[]);
        assert_eq!(transform::<DropIdle>(&[], &tombstone).map(|stored| stored[0].value.clone()), Ok(None));
    }

    #[test]
    fn key_headers_and_time_of_a_masked_record_stay() {
        let batch = Batch::new().record(Some(b"key"), Some(br#"{"host":"x"}"#), &[("trace", Some(b"1")), ("flag", None)]);
        let stored = transform::<DropIdle>(&[], &batch).expect("it runs");
        let expected = Stored {
            value: Some(br#"{"host":"***"}"#.to_vec()),
            ..millpond_guest::testing::records(&batch.section()).expect("records")[0].clone()
        };
        assert_eq!(stored, [expected]);
    }

    #[test]
    fn settings_choose_field_value_and_mask() {
        let values = [r#"{"level":3,"user":"eve","host":"h"}"#, r#"{"level":0,"user":"bob","host":"h"}"#];
        let params = [("field", "level"), ("value", "0"), ("mask", "user")];
        assert_eq!(run(&params, &values), kept(&[(0, r#"{"level":3,"user":"***","host":"h"}"#)]));
        assert_eq!(run(&[("mask", "")], &[r#"{"host":"h","":1}"#]), kept(&[(0, r#"{"host":"h","":1}"#)]));
        let same = [("field", "user"), ("value", "eve"), ("mask", "user")];
        assert_eq!(run(&same, &values), kept(&[(1, r#"{"level":0,"user":"***","host":"h"}"#)]));
    }

    #[test]
    fn an_unknown_setting_is_refused() {
        let error = transform::<DropIdle>(&[("feild", "x")], &Batch::new()).expect_err("no such setting");
        assert_eq!(error, "there is no setting `feild`; there are: field, value, mask");
    }
}

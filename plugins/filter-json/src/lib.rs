//! Keeps the records whose JSON value satisfies a condition, and drops the others.
//!
//! | setting | default | meaning |
//! |---|---|---|
//! | `where` | none, it must be set | the condition, as in `temperature > 30 and site = "north"`; see [`condition`] |
//!
//! A record whose value is not a JSON object fails: what becomes of it is for the attachment to say (`--on-error`). A record without a value
//! is kept, for it deletes its key, and a key that has once passed must be deleted too.

pub mod condition;
mod parse;

use condition::Condition;
use millpond_guest::{Output, Params, Record, Transform, json, transform};

/// The transform.
#[derive(Debug)]
pub struct FilterJson {
    condition: Condition,
}

impl Transform for FilterJson {
    fn new(params: &Params) -> Result<FilterJson, String> {
        params.expect_only(&["where"])?;
        let text = params.required("where")?;
        let condition = text.parse::<Condition>().map_err(|error| format!("the setting `where` is no condition: {error}"))?;
        Ok(FilterJson { condition })
    }

    fn transform(&mut self, record: &Record<'_>, out: &mut Output<'_>) -> Result<(), String> {
        let Some(value) = record.value() else {
            out.keep(record);
            return Ok(());
        };
        let object = json::object(value).map_err(|error| format!("the value is {error}"))?;
        if self.condition.holds(&object) {
            out.keep(record);
        }
        Ok(())
    }
}

transform!(FilterJson);

#[cfg(test)]
mod tests {
    use super::FilterJson;
    use millpond_guest::testing::{Batch, transform};

    fn kept(condition: &str, values: &[&str]) -> Vec<i32> {
        let stored = transform::<FilterJson>(&[("where", condition)], &Batch::of_values(values)).expect(condition);
        stored.iter().map(|record| record.offset_delta).collect()
    }

    const READINGS: [&str; 5] = [
        r#"{"temperature": 31.5, "site": "north", "tags": ["a", "hot"], "gps": {"lat": 52.1}, "ok": true}"#,
        r#"{"temperature": 30, "site": "north", "gps": {"lat": -52.1}, "ok": false}"#,
        r#"{"temperature": 3.2e1, "site": "s\u006futh", "tags": [], "ok": null}"#,
        r#"{"temperature": "31", "site": "south 2"}"#,
        r"{}",
    ];

    #[test]
    fn a_condition_keeps_what_satisfies_it() {
        for (condition, expected) in [
            (r#"temperature > 30 and site = "north""#, &[0][..]),
            ("temperature >= 30", &[0, 1, 2]),
            ("temperature < 31", &[1]),
            ("temperature <= 30.0", &[1]),
            ("temperature = 32", &[2]),
            ("temperature = \"31\"", &[3]),
            ("site = 'south'", &[2]),
            ("site > 'north'", &[2, 3]),
            ("site != 'north'", &[2, 3, 4]),
            ("not site = 'north'", &[2, 3, 4]),
            ("site exists and site != 'north'", &[2, 3]),
            ("site in ('south', 'west', 'south 2')", &[2, 3]),
            ("temperature in (30, 31.5)", &[0, 1]),
            ("site contains 'out'", &[2, 3]),
            ("tags[*] = 'hot'", &[0]),
            ("tags[1] = 'hot' or ok = false", &[0, 1]),
            ("tags exists", &[0, 2]),
            ("not tags[0] exists", &[1, 2, 3, 4]),
            ("$.gps.lat < 0", &[1]),
            ("ok = true", &[0]),
            ("ok = null", &[2]),
            ("ok != null", &[0, 1, 3, 4]),
            ("ok = true or ok = false and temperature > 30", &[0]),
            ("(ok = true or ok = false) and temperature <= 30", &[1]),
            ("NOT (NOT (temperature == 30))", &[1]),
        ] {
            assert_eq!(kept(condition, &READINGS), expected, "{condition}");
        }
    }

    #[test]
    fn any_of_several_fields_of_one_name_satisfies_a_condition() {
        let values = [r#"{"a":1,"a":2}"#, r#"{"a":2,"a":1}"#, r#"{"a":2}"#];
        assert_eq!(kept("a = 1", &values), [0, 1]);
        assert_eq!(kept("a != 1", &values), [2]);
    }

    #[test]
    fn kept_records_stay_as_they_are_and_a_record_without_a_value_is_kept() {
        let batch = Batch::new().record(Some(b"key"), Some(br#" {"a": 1} "#), &[("h", None)]).record(Some(b"key"), None, &[]);
        let stored = transform::<FilterJson>(&[("where", "a = 1")], &batch).expect("it runs");
        assert_eq!(stored, millpond_guest::testing::records(&batch.section()).expect("records"));
    }

    #[test]
    fn a_value_that_is_no_object_fails_with_its_place() {
        for value in ["", "text", "[1]", r#"{"a":1"#] {
            let error = transform::<FilterJson>(&[("where", "a = 1")], &Batch::of_values([r#"{"a":1}"#, value])).expect_err(value);
            assert_eq!(error, "record 1: the value is not a JSON object");
        }
    }

    #[test]
    fn a_condition_that_is_none_is_refused_with_its_place() {
        let refusal = |condition: &str| transform::<FilterJson>(&[("where", condition)], &Batch::new()).expect_err(condition);
        for (condition, words) in [
            ("", "the name of a field is missing at the end"),
            ("temperature", "a comparison is missing after `temperature`"),
            ("temperature >", "a number, a text in quotes, true, false or null is missing at the end"),
            ("temperature > hot", "a text in quotes, true, false or null is missing before `hot`"),
            ("temperature > 30 site = 1", "`and`, `or` or the end is missing before `site = 1`"),
            ("(temperature > 30", "`)` is missing at the end"),
            ("temperature > 30)", "`and`, `or` or the end is missing before `)`"),
            ("site = 'north", "the text that begins with `'north` has no end"),
            ("site in 'north'", "`(` is missing before `'north'`"),
            ("site in ('north' 'south')", "`,` or `)` is missing before `'south')`"),
            ("site in ()", "is missing before `)`"),
            ("site contains 5", "a text in quotes is missing before `5`"),
            ("ok > true", "`>` can't compare with `true`"),
            ("a = 1e", "`1e` is no number"),
            (&format!("{}a = 1{}", "(".repeat(40), ")".repeat(40)), "more than 32 deep"),
            (&format!("a = '{}'", "x".repeat(5000)), "the limit is 4096"),
        ] {
            let error = refusal(condition);
            assert!(error.starts_with("the setting `where` is no condition: ") && error.contains(words), "{condition}: {error}");
        }
        assert_eq!(transform::<FilterJson>(&[], &Batch::new()), Err("the setting `where` is missing".to_owned()));
        let error = transform::<FilterJson>(&[("were", "a = 1")], &Batch::new()).expect_err("misspelt");
        assert_eq!(error, "there is no setting `were`; there are: where");
    }

    #[test]
    fn any_text_is_a_condition_or_refused() {
        const WORDS: [&str; 30] = [
            "a", "b.c", "$", "$.x", "[0]", "[*]", "['n m']", "not", "and", "or", "in", "exists", "contains", "(", ")", ",", "=", "!=", "<",
            ">=", "'", "\"", "'t'", "5", "-1e3", "true", "null", "\u{e4}", ".", " ",
        ];
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        let mut taken = 0;
        for _ in 0..50_000 {
            let mut text = String::new();
            loop {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                text += WORDS[usize::try_from(random >> 33).expect("31 bits") % WORDS.len()];
                text += ["", " "][usize::try_from(random & 1).expect("a bit")];
                if (random >> 20).is_multiple_of(8) {
                    break;
                }
            }
            taken += usize::from(transform::<FilterJson>(&[("where", &text)], &Batch::of_values(READINGS)).is_ok());
        }
        assert!(taken > 50, "{taken} were conditions");
    }

    #[test]
    fn the_readme_tells_the_truth() {
        let readme = include_str!("../README.md");
        let block = readme.split("```\n").nth(1).expect("the example");
        let (kept_lines, dropped): (Vec<&str>, Vec<&str>) = block.lines().partition(|line| line.ends_with("kept"));
        let value = |line: &&str| line.rsplit_once("  ").map(|(value, _)| value.trim_end().to_owned()).expect("two columns");
        let values: Vec<String> = kept_lines.iter().chain(&dropped).map(value).collect();
        let stored = transform::<FilterJson>(&[("where", r#"temperature > 30 and site = "north""#)], &Batch::of_values(&values));
        let stored: Vec<String> = stored.expect("it runs").iter().map(millpond_guest::testing::Stored::value_text).collect();
        assert_eq!(stored, values[..kept_lines.len()]);
        assert!(!dropped.is_empty());
    }
}

//! Converts numbers in JSON values from one unit to another.
//!
//! | setting | default | meaning |
//! |---|---|---|
//! | `field` | none, it must be set | paths of the fields, with commas between them: `temperature, tank.inlet` |
//! | `from` | none, it must be set | the unit that they have, see [`units`] |
//! | `to` | none, it must be set | the unit that they get, of the same quantity |
//! | `decimals` | `3` | digits behind the point at most, 0 to 12; zeros at the end are left out |
//!
//! `null` stays `null`, and a field that is not there stays away. A field that is something else than a number fails, so does a number that
//! would be infinite, and a value that is not a JSON object. A record without a value is kept.

pub mod units;

use std::io::Write as _;

use millpond_guest::json::{self, Edits, Field, Path};
use millpond_guest::{Output, Params, Record, Transform, transform};
use units::Conversion;

/// The transform.
#[derive(Debug)]
pub struct ConvertUnits {
    fields: Vec<Path>,
    conversion: Conversion,
    decimals: usize,
    edits: Edits,
}

impl Transform for ConvertUnits {
    fn new(params: &Params) -> Result<ConvertUnits, String> {
        params.expect_only(&["field", "from", "to", "decimals"])?;
        let fields = Path::list(params.required("field")?).map_err(|error| format!("the setting `field` is no list of paths: {error}"))?;
        if fields.is_empty() {
            return Err("the setting `field` names no field".to_owned());
        }
        let conversion = Conversion::new(params.required("from")?, params.required("to")?)?;
        let decimals = params.parse("decimals", DECIMALS_DEFAULT)?;
        if decimals > DECIMALS_MAX {
            return Err(format!("the setting `decimals` is {decimals}, the limit is {DECIMALS_MAX}"));
        }
        Ok(ConvertUnits { fields, conversion, decimals, edits: Edits::default() })
    }

    fn transform(&mut self, record: &Record<'_>, out: &mut Output<'_>) -> Result<(), String> {
        let Some(value) = record.value() else {
            out.keep(record);
            return Ok(());
        };
        let object = json::object(value).map_err(|error| format!("the value is {error}"))?;
        self.edits.clear();
        for path in &self.fields {
            let mut failure = None;
            object.each(path, |field| match converted(&field, &self.conversion) {
                Ok(Some(number)) => self.edits.replace(&field, |text| put_number(text, number, self.decimals)),
                Ok(None) => {}
                Err(reason) => failure = Some(format!("`{path}` {reason}")),
            });
            failure.map_or(Ok(()), Err)?;
        }
        drop(object);
        out.keep_with(record, self.edits.apply(value));
        Ok(())
    }
}

/// The number in the other unit; none for `null`.
fn converted(field: &Field<'_>, conversion: &Conversion) -> Result<Option<f64>, String> {
    let Some(number) = field.number() else {
        let text = field.text();
        return if text == "null" {
            Ok(None)
        } else {
            Err(format!("is no number: {}", &text[..text.floor_char_boundary(SHOWN_BYTES_MAX)]))
        };
    };
    let converted = conversion.of(number);
    if converted.is_finite() { Ok(Some(converted)) } else { Err(format!("is too large to be converted: {number:e}")) }
}

/// Appends a number with at most so many digits behind its point, and without zeros at its end.
fn put_number(text: &mut Vec<u8>, number: f64, decimals: usize) {
    let scaled = (number.abs() * POWERS_OF_TEN[decimals]).round_ties_even();
    if scaled >= EXACT_BELOW {
        return put_large(text, number, decimals);
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a whole number, and not a large one")]
    let mut digits = scaled as u64;
    let mut decimals = decimals;
    while decimals > 0 && digits.is_multiple_of(10) {
        digits /= 10;
        decimals -= 1;
    }
    if number < 0.0 && digits > 0 {
        text.push(b'-');
    }
    let start = text.len();
    // Backwards, and then the other way round.
    for place in 0.. {
        if place > decimals && digits == 0 {
            break;
        }
        if place == decimals && place > 0 {
            text.push(b'.');
        }
        text.push(b"0123456789"[usize::try_from(digits % 10).unwrap_or_default()]);
        digits /= 10;
    }
    text[start..].reverse();
}

/// The same for a number that takes all bits there are for its digits.
fn put_large(text: &mut Vec<u8>, number: f64, decimals: usize) {
    // To write into memory can't fail.
    if number.abs() >= EXPONENT_FROM {
        let _ = write!(text, "{number:e}");
        return;
    }
    let _ = write!(text, "{number:.decimals$}");
    while decimals > 0 && text.last() == Some(&b'0') {
        text.pop();
    }
    if text.last() == Some(&b'.') {
        text.pop();
    }
}

const DECIMALS_DEFAULT: usize = 3;

/// As many as a number of ordinary size has in 64 bits.
const DECIMALS_MAX: usize = 12;

/// From here on a number is written with its exponent: digits behind the point are not exact any more.
const EXPONENT_FROM: f64 = 1e15;

/// By the number of digits behind the point.
const POWERS_OF_TEN: [f64; DECIMALS_MAX + 1] = [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12];

/// Below it each whole number is one of 64 bits.
const EXACT_BELOW: f64 = 9_007_199_254_740_992.0;

/// How much of a field an error shows.
const SHOWN_BYTES_MAX: usize = 40;

transform!(ConvertUnits);

#[cfg(test)]
mod tests {
    use super::ConvertUnits;
    use millpond_guest::testing::{Batch, Stored, records, transform};

    fn run(params: &[(&str, &str)], values: &[&str]) -> Result<Vec<String>, String> {
        Ok(transform::<ConvertUnits>(params, &Batch::of_values(values))?.iter().map(Stored::value_text).collect())
    }

    fn to(from: &str, to: &str, number: &str, decimals: &str) -> String {
        let params = [("field", "x"), ("from", from), ("to", to), ("decimals", decimals)];
        let value = run(&params, &[&format!("{{\"x\":{number}}}")]).expect("it runs").remove(0);
        value.trim_start_matches("{\"x\":").trim_end_matches('}').to_owned()
    }

    #[test]
    fn numbers_are_converted_where_they_lie_and_the_rest_stays() {
        let params = [("field", "t, tank.in, s[*].t"), ("from", "\u{b0}F"), ("to", "\u{b0}C")];
        let values = [
            r#"{"t": 212, "tank": {"in": 32.0, "out": 50}, "s": [{"t": -40}, {"t": null}, {"u": 1}]}"#,
            r#"{"t":null,"other":1e3}"#,
            r#"{"t":1,"\u0074":2}"#,
        ];
        let expected = [
            r#"{"t": 100, "tank": {"in": 0, "out": 50}, "s": [{"t": -40}, {"t": null}, {"u": 1}]}"#,
            r#"{"t":null,"other":1e3}"#,
            r#"{"t":-17.222,"\u0074":-16.667}"#,
        ];
        assert_eq!(run(&params, &values), Ok(expected.map(str::to_owned).to_vec()));
    }

    #[test]
    fn the_number_is_rounded_and_written_short() {
        for (number, decimals, expected) in [
            ("21.5", "3", "70.7"),
            ("21.5", "0", "71"),
            ("21.234", "2", "70.22"),
            ("-17.77777777777778", "6", "0"),
            ("-17.8", "1", "0"),
            ("37.77777777777778", "0", "100"),
            ("1e20", "3", "1.8e20"),
            ("-1e20", "12", "-1.8e20"),
        ] {
            assert_eq!(to("C", "F", number, decimals), expected, "{number} {decimals}");
        }
        for number in
            ["1", "-1", "10", "100.5", "0.001", "0.0001", "-0.0004", "123456789.987", "1e14", "-12345678901234.5", "9e14", "0.1", "5e-324"]
        {
            for decimals in 0..=12 {
                let found = to("m", "m", number, &decimals.to_string());
                let (found, exact): (f64, f64) = (found.parse().expect("a number"), number.parse().expect("a number"));
                let half = 0.5 / 10_f64.powi(decimals) + exact.abs() * f64::EPSILON;
                assert!((found - exact).abs() <= half, "{number} {decimals}: {found}");
            }
        }
        assert_eq!(to("kWh", "J", "1E3", "0"), "3600000000");
        assert_eq!(to("mm", "km", "1", "3"), "0", "what is lost is lost to the setting");
        assert_eq!(to("mm", "km", "1", "12"), "0.000001");
    }

    #[test]
    fn what_can_not_be_converted_fails_with_its_place() {
        let params = [("field", "t"), ("from", "km"), ("to", "mm")];
        for (value, words) in [
            (r#"{"t":"12"}"#, "record 1: `t` is no number: \"12\""),
            (r#"{"t":true}"#, "record 1: `t` is no number: true"),
            (r#"{"t":[1]}"#, "record 1: `t` is no number: [1]"),
            (r#"{"t":1e305}"#, "record 1: `t` is too large to be converted: 1e305"),
            ("12", "record 1: the value is not a JSON object"),
        ] {
            assert_eq!(run(&params, &["{}", value]), Err(words.to_owned()), "{value}");
        }
    }

    #[test]
    fn a_record_without_a_value_and_one_without_the_field_are_kept() {
        let batch = Batch::new().record(Some(b"key"), None, &[("h", None)]).record(Some(b"key"), Some(b"{ }"), &[]);
        let params = [("field", "t"), ("from", "psi"), ("to", "bar")];
        assert_eq!(transform::<ConvertUnits>(&params, &batch), records(&batch.section()));
    }

    #[test]
    fn settings_that_make_no_sense_are_refused() {
        let field = ("field", "t");
        for (params, words) in [
            (&[("from", "m"), ("to", "ft")][..], "the setting `field` is missing"),
            (&[("field", " "), ("from", "m"), ("to", "ft")], "names no field"),
            (&[field, ("from", "m")], "the setting `to` is missing"),
            (&[field, ("from", "m"), ("to", "bar")], "`m` is a length and `bar` a pressure"),
            (&[field, ("from", "parsec"), ("to", "m")], "there is no unit `parsec`; there are: C, F, K, Pa"),
            (&[field, ("from", "m"), ("to", "ft"), ("decimals", "13")], "`decimals` is 13, the limit is 12"),
            (&[field, ("from", "m"), ("to", "ft"), ("decimals", "-1")], "the setting `decimals` can't be `-1`"),
            (&[field, ("from", "m"), ("to", "ft"), ("round", "1")], "there is no setting `round`"),
        ] {
            let error = transform::<ConvertUnits>(params, &Batch::new()).expect_err("it makes no sense");
            assert!(error.contains(words), "{params:?}: {error}");
        }
    }

    #[test]
    fn the_readme_tells_the_truth() {
        let readme = include_str!("../README.md");
        let block: Vec<&str> = readme.split("```\n").nth(1).expect("the example").lines().collect();
        let params = [("field", "temperature, tank.outlet"), ("from", "F"), ("to", "C"), ("decimals", "1")];
        assert_eq!(run(&params, &block[..1]), Ok(vec![block[1].to_owned()]));
        for name in super::units::names() {
            assert!(readme.contains(&format!("`{name}`")), "{name}");
        }
    }
}

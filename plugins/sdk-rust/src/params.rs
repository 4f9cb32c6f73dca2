//! The settings that a module was attached with.

use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

/// Names and values, as they were given to `millpond transform attach TOPIC MODULE --param NAME=VALUE`.
#[derive(Clone, Debug, Default)]
pub struct Params(Vec<(String, String)>);

impl Params {
    /// Settings from names and values. If a name is there twice, the last counts.
    pub fn new(params: Vec<(String, String)>) -> Params {
        Params(params)
    }

    /// The value of a setting, if it is set.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().rev().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// All settings, in the order in which they were given.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The value of a setting that must be set.
    ///
    /// # Errors
    ///
    /// Says that it is missing.
    pub fn required(&self, name: &str) -> Result<&str, String> {
        self.get(name).ok_or_else(|| format!("the setting `{name}` is missing"))
    }

    /// The value of a setting as a number or whatever else it is to be, or a default if it is not set.
    ///
    /// # Errors
    ///
    /// Says which setting has which value and what is wrong with it.
    pub fn parse<T: FromStr<Err: Display>>(&self, name: &str, default: T) -> Result<T, String> {
        match self.get(name) {
            Some(value) => value.parse().map_err(|error| format!("the setting `{name}` can't be `{value}`: {error}")),
            None => Ok(default),
        }
    }

    /// The value of a setting as a length of time, or a default if it is not set: a whole number with one of the units `ms`, `s`, `m`, `h` and
    /// `d`, as the options of `millpond` are written.
    ///
    /// ```
    /// # use millpond_guest::Params;
    /// # use std::time::Duration;
    /// let params = Params::new(vec![("window".to_owned(), "10m".to_owned())]);
    /// assert_eq!(params.duration("window", Duration::ZERO)?, Duration::from_secs(600));
    /// # Ok::<(), String>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Says which setting has which value, and how a length of time is written.
    pub fn duration(&self, name: &str, default: Duration) -> Result<Duration, String> {
        let Some(text) = self.get(name) else { return Ok(default) };
        let parse = || {
            let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
            let (_, millis) = TIME_UNITS.iter().find(|(name, _)| *name == unit)?;
            number.parse::<u64>().ok()?.checked_mul(*millis).map(Duration::from_millis)
        };
        parse().ok_or_else(|| {
            format!("the setting `{name}` can't be `{text}`: write a whole number with a unit, such as 500ms, 30s, 10m, 12h or 7d")
        })
    }

    /// The values of all settings that the module has, in the order of these names and their defaults. Refuses others, as
    /// [`Params::expect_only`] does.
    ///
    /// ```
    /// # use millpond_guest::Params;
    /// let params = Params::new(vec![("mask".to_owned(), "site".to_owned())]);
    /// let [field, mask] = params.with_defaults([("field", "state"), ("mask", "host")])?;
    /// assert_eq!((field.as_str(), mask.as_str()), ("state", "site"));
    /// # Ok::<(), String>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Says which name is unknown, and which there are.
    pub fn with_defaults<const N: usize>(&self, settings: [(&str, &str); N]) -> Result<[String; N], String> {
        self.expect_only(&settings.map(|(name, _)| name))?;
        Ok(settings.map(|(name, default)| self.get(name).unwrap_or(default).to_owned()))
    }

    /// Refuses settings that the module does not have, so that a misspelt name is not silently without effect.
    ///
    /// # Errors
    ///
    /// Says which name is unknown, and which there are.
    pub fn expect_only(&self, names: &[&str]) -> Result<(), String> {
        let Some((unknown, _)) = self.0.iter().find(|(name, _)| !names.contains(&name.as_str())) else { return Ok(()) };
        match names {
            [] => Err(format!("there is no setting `{unknown}`: this module has none")),
            names => Err(format!("there is no setting `{unknown}`; there are: {}", names.join(", "))),
        }
    }
}

/// In milliseconds, as the times of records are.
const TIME_UNITS: [(&str, u64); 5] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

#[cfg(test)]
mod tests {
    use super::Params;
    use std::time::Duration;

    fn params(params: &[(&str, &str)]) -> Params {
        Params::new(params.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn the_last_value_counts() {
        let params = params(&[("a", "1"), ("b", "2"), ("a", "3")]);
        assert_eq!(params.get("a"), Some("3"));
        assert_eq!(params.get("c"), None);
        assert_eq!(params.required("b"), Ok("2"));
    }

    #[test]
    fn errors_name_the_setting_and_its_value() {
        let params = params(&[("limit", "ten")]);
        assert_eq!(params.parse("limit", 5_u32), Err("the setting `limit` can't be `ten`: invalid digit found in string".to_owned()));
        assert_eq!(params.parse("other", 5_u32), Ok(5));
        assert_eq!(params.required("other"), Err("the setting `other` is missing".to_owned()));
    }

    #[test]
    fn a_length_of_time_has_a_unit() {
        let millis = |text: &str| params(&[("t", text)]).duration("t", Duration::ZERO).map(|found| found.as_millis());
        for (text, expected) in [("0s", 0), ("500ms", 500), ("30s", 30_000), ("10m", 600_000), ("12h", 43_200_000), ("7d", 604_800_000)] {
            assert_eq!(millis(text), Ok(expected), "{text}");
        }
        assert_eq!(params(&[]).duration("t", Duration::from_secs(5)), Ok(Duration::from_secs(5)));
        for wrong in
            ["", "10", "m", "10 m", "1.5h", "-1s", "10M", "10min", "1h30m", "18446744073709551616ms", "18446744073709551615d", "1\u{e4}"]
        {
            let error = millis(wrong).expect_err(wrong);
            assert!(error.starts_with(&format!("the setting `t` can't be `{wrong}`: ")) && error.contains("10m"), "{error}");
        }
    }

    #[test]
    fn a_misspelt_name_is_refused() {
        let params = params(&[("feild", "x")]);
        assert_eq!(params.expect_only(&["field", "value"]), Err("there is no setting `feild`; there are: field, value".to_owned()));
        assert_eq!(params.expect_only(&[]), Err("there is no setting `feild`: this module has none".to_owned()));
        assert_eq!(params.expect_only(&["feild"]), Ok(()));
        assert_eq!(params.with_defaults([("field", "state")]), Err("there is no setting `feild`; there are: field".to_owned()));
    }
}

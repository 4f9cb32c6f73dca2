//! The settings that a module was attached with.

use std::fmt::Display;
use std::str::FromStr;

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

#[cfg(test)]
mod tests {
    use super::Params;

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
    fn a_misspelt_name_is_refused() {
        let params = params(&[("feild", "x")]);
        assert_eq!(params.expect_only(&["field", "value"]), Err("there is no setting `feild`; there are: field, value".to_owned()));
        assert_eq!(params.expect_only(&[]), Err("there is no setting `feild`: this module has none".to_owned()));
        assert_eq!(params.expect_only(&["feild"]), Ok(()));
        assert_eq!(params.with_defaults([("field", "state")]), Err("there is no setting `feild`; there are: field".to_owned()));
    }
}

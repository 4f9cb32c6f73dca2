//! The rules for names of topics and modules, and the nearest name for a hint.

use crate::error::EngineError;

/// What is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameOf {
    /// A topic.
    Topic,
    /// A module.
    Module,
    /// A view of a topic.
    View,
}

impl std::fmt::Display for NameOf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            NameOf::Topic => "topic",
            NameOf::Module => "module",
            NameOf::View => "view",
        })
    }
}

/// Kafka's rule for topics: 1 to 249 characters from `a-z A-Z 0-9 . _ -`. A first dot is refused as well: it makes a hidden folder,
/// and deleted topics wait for their removal under such names.
pub(crate) fn check(of: NameOf, name: &str) -> Result<(), EngineError> {
    let rule = if name.is_empty() {
        "is empty".to_owned()
    } else if name.len() > LENGTH_MAX {
        format!("has {} characters, {LENGTH_MAX} at most are allowed", name.chars().count())
    } else if let Some(wrong) = name.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))) {
        format!("has the character {wrong:?}; allowed are a-z A-Z 0-9 . _ -")
    } else if name.starts_with('.') {
        "begins with a dot".to_owned()
    } else {
        return Ok(());
    };
    Err(EngineError::InvalidName { of, name: cut(name), rule })
}

/// A name that came from outside, for an error: not repeated at any length.
pub(crate) fn cut(name: &str) -> String {
    name.chars().take(LENGTH_MAX).collect()
}

/// The candidate that was probably meant: not more than a third of its letters differ.
pub(crate) fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<String> {
    // The distance costs the product of both lengths, so a name of any length is not compared.
    if name.len() > LENGTH_MAX {
        return None;
    }
    let distance_max = name.chars().count().div_ceil(3);
    candidates
        .map(|candidate| (strsim::damerau_levenshtein(name, candidate), candidate))
        .filter(|(distance, _)| *distance <= distance_max)
        .min()
        .map(|(_, candidate)| candidate.to_owned())
}

/// Leaves room for `-PARTITION` in a file name of 255 bytes, as in Kafka.
const LENGTH_MAX: usize = 249;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kafkas_rule_holds_and_the_error_names_it() {
        for name in ["a", "Readings_2.raw-1", "__consumer_offsets", &"x".repeat(249)] {
            assert!(check(NameOf::Topic, name).is_ok(), "{name}");
        }
        for (name, rule) in [
            ("", "empty"),
            (".", "dot"),
            ("..", "dot"),
            (".deleted-x-0", "dot"),
            ("a/b", "'/'"),
            ("a b", "' '"),
            ("größe", "'ö'"),
            ("a\0", r"'\0'"),
            (&*"x".repeat(250), "249"),
        ] {
            let error = check(NameOf::Topic, name).expect_err(name).to_string();
            assert!(error.contains(rule), "{error}");
        }
    }

    #[test]
    fn the_nearest_name_is_near() {
        let names = ["readings", "rainfall", "alarms"];
        assert_eq!(nearest("readnigs", names.into_iter()).as_deref(), Some("readings"));
        assert_eq!(nearest("alarm", names.into_iter()).as_deref(), Some("alarms"));
        assert_eq!(nearest("orders", names.into_iter()), None);
        assert_eq!(nearest(&"x".repeat(100_000), names.into_iter()), None);
    }
}

//! Looks at fields of JSON objects where they lie: nothing is allocated for fields that nobody asked for.
//!
//! ```
//! let value = br#"{"device": "pump-3", "readings": [1, 2], "state": "idle"}"#;
//! let mut idle = false;
//! millpond_guest::json::find(value, &["state"], |_, field| idle = field.is("idle"))?;
//! assert!(idle);
//! # Ok::<(), millpond_guest::json::NotAnObject>(())
//! ```

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The value of a field, as it is written.
#[derive(Clone, Debug)]
pub struct Field<'a> {
    text: &'a str,
    start: usize,
}

impl<'a> Field<'a> {
    /// As it is written, without the spaces around it: `"idle"` has its quotes.
    pub fn text(&self) -> &'a str {
        self.text
    }

    /// Where it is written, in bytes from the start of the value.
    pub fn range(&self) -> Range<usize> {
        self.start..self.start + self.text.len()
    }

    /// Its text if it is a string, with escapes resolved. `None` too for a string with half a surrogate pair, which is no text.
    pub fn string(&self) -> Option<Cow<'a, str>> {
        let inner = self.text.strip_prefix('"')?.strip_suffix('"')?;
        if inner.contains('\\') { serde_json::from_str(self.text).ok().map(Cow::Owned) } else { Some(Cow::Borrowed(inner)) }
    }

    /// Whether it is this string, or a number, `true`, `false` or `null` that is written like this.
    pub fn is(&self, expected: &str) -> bool {
        match self.string() {
            Some(string) => string == expected,
            None => self.text == expected,
        }
    }
}

/// The bytes are no JSON object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAnObject;

impl fmt::Display for NotAnObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a JSON object")
    }
}

impl std::error::Error for NotAnObject {}

/// Calls `found` for the fields of an object that have one of these names, with the place of the name among them. A field
/// that is there several times is found several times. Fields of objects inside the object are not looked at.
///
/// # Errors
///
/// [`NotAnObject`] if the bytes are anything else than one object from beginning to end; `found` may have been called by then.
pub fn find<'a>(value: &'a [u8], names: &[&str], mut found: impl FnMut(usize, Field<'a>)) -> Result<(), NotAnObject> {
    let text = std::str::from_utf8(value).map_err(|_| NotAnObject)?;
    let mut json = serde_json::Deserializer::from_str(text);
    let fields = Fields { text, names, found: &mut found };
    json.deserialize_map(fields).map_err(|_| NotAnObject)?;
    json.end().map_err(|_| NotAnObject)
}

struct Fields<'a, 'n, F> {
    text: &'a str,
    names: &'n [&'n str],
    found: &'n mut F,
}

impl<'a, F: FnMut(usize, Field<'a>)> Visitor<'a> for Fields<'a, '_, F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(wanted) = map.next_key_seed(Name(self.names))? {
            match wanted {
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
                Some(index) => {
                    let text = map.next_value::<&RawValue>()?.get();
                    // The value lies inside the text, so this is how far it is from the start.
                    let start = text.as_ptr().addr() - self.text.as_ptr().addr();
                    (self.found)(index, Field { text, start });
                }
            }
        }
        Ok(())
    }
}

/// Reads a name and says which of the wanted ones it is.
struct Name<'n>(&'n [&'n str]);

impl<'de> DeserializeSeed<'de> for Name<'_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Option<usize>, D::Error> {
        json.deserialize_str(self)
    }
}

impl Visitor<'_> for Name<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Option<usize>, E> {
        Ok(self.0.iter().position(|wanted| *wanted == name))
    }
}

#[cfg(test)]
mod tests {
    use super::{NotAnObject, find};

    fn found(value: &str, names: &[&str]) -> Result<Vec<(usize, String)>, NotAnObject> {
        let mut all = Vec::new();
        find(value.as_bytes(), names, |index, field| {
            assert_eq!(&value[field.range()], field.text());
            all.push((index, field.text().to_owned()));
        })?;
        Ok(all)
    }

    #[test]
    fn fields_are_found_where_they_lie() {
        let value = r#" {"a": 1, "b" : {"a": [2, {"a": 3}]}, "c":"x\"}", "d": null } "#;
        let all = found(value, &["a", "b", "c", "d", "e"]).expect("an object");
        let expected = [(0, "1"), (1, r#"{"a": [2, {"a": 3}]}"#), (2, r#""x\"}""#), (3, "null")];
        assert_eq!(all, expected.map(|(index, text)| (index, text.to_owned())));
    }

    #[test]
    fn names_and_strings_may_be_escaped() {
        let mut seen = Vec::new();
        find(br#"{"st\u0061te":"\u0069dle", "state":"a/\"b\""}"#, &["state"], |_, field| {
            seen.push((field.is("idle"), field.string().expect("a string").into_owned()));
        })
        .expect("an object");
        assert_eq!(seen, [(true, "idle".to_owned()), (false, "a/\"b\"".to_owned())]);
        find(br#"{"x":"\ud800"}"#, &["x"], |_, field| assert_eq!(field.string(), None)).expect("an object");
    }

    #[test]
    fn what_is_not_a_string_is_compared_as_it_is_written() {
        find(br#"{"n": 5, "t": true, "s": "5"}"#, &["n", "t", "s"], |index, field| {
            assert_eq!(field.is("5"), index != 1);
            assert_eq!(field.is("true"), index == 1);
        })
        .expect("an object");
    }

    #[test]
    fn anything_but_one_whole_object_is_refused() {
        for value in ["", "x", "[]", "5", "\"{}\"", "{", "{\"a\":}", "{\"a\":1", "{\"a\":1}x", "{\"a\":1}{}", "{a:1}", "{'a':1}"] {
            assert_eq!(found(value, &["a"]), Err(NotAnObject), "{value}");
        }
        assert_eq!(find(b"{\"\xff\":1}", &["a"], |_, _| ()), Err(NotAnObject));
        assert_eq!(found("{}", &["a"]), Ok(vec![]));
    }

    #[test]
    fn deep_nesting_overflows_nothing() {
        let value = format!("{{\"x\":{}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(found(&value, &[]), Ok(vec![]));
        assert_eq!(found(&value, &["x"]).map(|found| found[0].1.len()), Ok(200_001));
    }
}

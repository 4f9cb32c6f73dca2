//! Masks personal fields of JSON values, or puts a keyed hash in their place.
//!
//! | setting | default | meaning |
//! |---|---|---|
//! | `fields` | none | paths of the fields, with commas between them: `name, contact.email, cars[*].plate` |
//! | `how` | `mask` | `mask` writes `"***"`; `hash` writes the HMAC-SHA-256 of the field, in 64 hexadecimal digits |
//! | `salt` | | the key of the HMAC, of 16 bytes at least; must be set for a hash |
//! | `key` | `keep` | what becomes of the record's key: `keep`, `hash` or `remove` |
//!
//! One of `fields` and `key` must be set. What is hashed of a field is its text if it is a string, with escapes resolved, and else what is
//! written there: equal values get equal hashes wherever they are, so counting and joining goes on. A path may lead to an object or an array; it
//! is masked as a whole. If a name is there more than once, all are masked.
//!
//! A record whose value is not a JSON object fails if `fields` is set: nobody knows what is in it. A record without a value has none.

mod sha256;

use millpond_guest::json::{self, Edits, Field, Path};
use millpond_guest::{Output, Params, Record, Transform, transform};
use sha256::Hmac;

/// The transform.
#[derive(Debug)]
pub struct Mask {
    fields: Vec<Path>,
    how: How,
    key: Key,
    edits: Edits,
}

#[derive(Debug)]
enum How {
    Mask,
    Hash(Hmac),
}

#[derive(Debug)]
enum Key {
    Keep,
    Hash(Hmac),
    Remove,
}

impl Transform for Mask {
    fn new(params: &Params) -> Result<Mask, String> {
        let [fields, how, salt, key] = params.with_defaults([("fields", ""), ("how", "mask"), ("salt", ""), ("key", "keep")])?;
        let fields = Path::list(&fields).map_err(|error| format!("the setting `fields` is no list of paths: {error}"))?;
        let hmac = || match salt.len() {
            0 => Err("the setting `salt` is missing: without it, a hash of a short value is found out by trying all values".to_owned()),
            1..SALT_BYTES_MIN => Err(format!("the setting `salt` has {} bytes, a hash needs {SALT_BYTES_MIN} at least", salt.len())),
            _ => Ok(Hmac::new(salt.as_bytes())),
        };
        let how = match how.as_str() {
            "mask" => How::Mask,
            "hash" => How::Hash(hmac()?),
            other => return Err(format!("the setting `how` is `mask` or `hash`, and not `{other}`")),
        };
        let key = match key.as_str() {
            "keep" => Key::Keep,
            "hash" => Key::Hash(hmac()?),
            "remove" => Key::Remove,
            other => return Err(format!("the setting `key` is `keep`, `hash` or `remove`, and not `{other}`")),
        };
        if fields.is_empty() && matches!(key, Key::Keep) {
            return Err("the setting `fields` is missing, and `key` is not set either: there is nothing to mask".to_owned());
        }
        Ok(Mask { fields, how, key, edits: Edits::default() })
    }

    fn transform(&mut self, record: &Record<'_>, out: &mut Output<'_>) -> Result<(), String> {
        let Mask { fields, how, key, edits } = self;
        edits.clear();
        if let Some(value) = record.value().filter(|_| !fields.is_empty()) {
            let object = json::object(value).map_err(|error| format!("the value is {error}, so what is personal in it can't be told"))?;
            for path in fields.iter() {
                object.each(path, |field| edits.replace(&field, |text| how.write(&field, text)));
            }
        }
        let masked = match record.value() {
            Some(value) => edits.apply(value),
            None => None,
        };
        let hash;
        let mut change = match masked {
            Some(value) => record.with_value(value),
            None if record.key().is_none() || matches!(key, Key::Keep) => {
                out.keep(record);
                return Ok(());
            }
            None => record.change(),
        };
        match (key, record.key()) {
            (Key::Hash(hmac), Some(key)) => {
                hash = hmac.hex(key);
                change = change.with_key(&hash);
            }
            (Key::Remove, Some(_)) => change = change.without_key(),
            _ => {}
        }
        out.emit(&change);
        Ok(())
    }
}

impl How {
    fn write(&self, field: &Field<'_>, text: &mut Vec<u8>) {
        match self {
            How::Mask => text.extend_from_slice(b"\"***\""),
            How::Hash(hmac) => {
                let hash = match field.string() {
                    Some(string) => hmac.hex(string.as_bytes()),
                    None => hmac.hex(field.text().as_bytes()),
                };
                text.push(b'"');
                text.extend_from_slice(&hash);
                text.push(b'"');
            }
        }
    }
}

/// As many bits as nobody tries one after the other.
const SALT_BYTES_MIN: usize = 16;

transform!(Mask);

#[cfg(test)]
mod tests {
    use super::Mask;
    use millpond_guest::testing::{Batch, Stored, records, transform};

    const SALT: &str = "0123456789abcdef";

    /// `printf '%s' TEXT | openssl dgst -sha256 -hmac 0123456789abcdef`
    const OF_ANNA: &str = "851d0a04c935f6bc5acdd824339733ae6f288efa2a5145347349317b55471816";
    const OF_17: &str = "9ab8a6f4a4b05f76aac6a8c8c7c66d9a03e6bc9eb2ef7c8d073d8be90e431743";

    fn run(params: &[(&str, &str)], values: &[&str]) -> Vec<String> {
        let stored = transform::<Mask>(params, &Batch::of_values(values)).expect("it runs");
        stored.iter().map(Stored::value_text).collect()
    }

    #[test]
    fn fields_are_masked_wherever_they_are_and_the_rest_stays() {
        let values = [
            r#"{"name": "Anna", "contact": {"email": "a@b.c", "city": "Kiel"}, "cars": [{"plate": "KI-1"}, {"plate": 2}], "n": 1}"#,
            r#"{"contact":{"email":{"home":"x","work":"y"}},"nam\u0065":null,"name":"Eve"}"#,
            r#"{"other":1}"#,
        ];
        let expected = [
            r#"{"name": "***", "contact": {"email": "***", "city": "Kiel"}, "cars": [{"plate": "***"}, {"plate": "***"}], "n": 1}"#,
            r#"{"contact":{"email":"***"},"nam\u0065":"***","name":"***"}"#,
            r#"{"other":1}"#,
        ];
        assert_eq!(run(&[("fields", "name, contact.email, cars[*].plate")], &values), expected);
    }

    #[test]
    fn equal_values_get_equal_hashes_and_another_salt_gives_others() {
        let params = [("fields", "a,b,c"), ("how", "hash"), ("salt", SALT)];
        let values = [r#"{"a":"Anna","b":"\u0041nna","c":17}"#, r#"{"a":"17"}"#];
        let expected = [format!(r#"{{"a":"{OF_ANNA}","b":"{OF_ANNA}","c":"{OF_17}"}}"#), format!(r#"{{"a":"{OF_17}"}}"#)];
        assert_eq!(run(&params, &values), expected);
        let other = run(&[("fields", "a"), ("how", "hash"), ("salt", "0123456789abcdeF")], &values[1..]);
        assert_ne!(other, expected[1..]);
    }

    #[test]
    fn the_key_is_hashed_or_removed_if_it_is_asked_for() {
        let batch = Batch::new()
            .record(Some(b"Anna"), Some(br#"{"a":1}"#), &[("h", Some(b"x"))])
            .record(None, Some(br#"{"b":1}"#), &[])
            .record(Some(b"Anna"), None, &[]);
        let before = records(&batch.section()).expect("records");
        assert_eq!(transform::<Mask>(&[("fields", "c")], &batch), Ok(before.clone()));

        let with_key = |key: Option<&str>| {
            let mut after = before.clone();
            for record in after.iter_mut().filter(|record| record.key.is_some()) {
                record.key = key.map(|key| key.as_bytes().to_vec());
            }
            after
        };
        assert_eq!(transform::<Mask>(&[("key", "hash"), ("salt", SALT)], &batch), Ok(with_key(Some(OF_ANNA))));
        assert_eq!(transform::<Mask>(&[("key", "remove")], &batch), Ok(with_key(None)));

        let both = transform::<Mask>(&[("fields", "a"), ("key", "hash"), ("salt", SALT)], &batch).expect("it runs");
        assert_eq!((both[0].key.as_deref(), both[0].value_text()), (Some(OF_ANNA.as_bytes()), r#"{"a":"***"}"#.to_owned()));
        assert_eq!((&both[1], both[2].value.as_ref()), (&before[1], None));
    }

    #[test]
    fn what_is_no_object_fails_rather_than_to_pass_unmasked() {
        for value in ["", "Anna, a@b.c", r#"{"name":"Anna""#, r#"[{"name":"Anna"}]"#] {
            let error = transform::<Mask>(&[("fields", "name")], &Batch::of_values(["{}", value])).expect_err(value);
            assert_eq!(error, "record 1: the value is not a JSON object, so what is personal in it can't be told");
        }
        let stored = transform::<Mask>(&[("key", "remove")], &Batch::of_values(["text"])).expect("the value does not matter");
        assert_eq!(stored[0].value_text(), "text");
    }

    #[test]
    fn settings_that_make_no_sense_are_refused() {
        for (params, words) in [
            (&[][..], "the setting `fields` is missing"),
            (&[("fields", "a"), ("how", "encrypt")], "the setting `how` is `mask` or `hash`, and not `encrypt`"),
            (&[("fields", "a"), ("how", "hash")], "the setting `salt` is missing"),
            (&[("fields", "a"), ("how", "hash"), ("salt", "short")], "`salt` has 5 bytes, a hash needs 16"),
            (&[("key", "hash")], "the setting `salt` is missing"),
            (&[("key", "mask")], "the setting `key` is `keep`, `hash` or `remove`, and not `mask`"),
            (&[("fields", "a..b")], "no list of paths"),
            (&[("field", "a")], "there is no setting `field`"),
        ] {
            let error = transform::<Mask>(params, &Batch::new()).expect_err("it makes no sense");
            assert!(error.contains(words), "{params:?}: {error}");
        }
    }

    #[test]
    fn the_readme_tells_the_truth() {
        let readme = include_str!("../README.md");
        let block: Vec<&str> = readme.split("```\n").nth(1).expect("the example").lines().collect();
        assert_eq!(run(&[("fields", "name, contact.email")], &block[..1]), block[1..2]);
        assert_eq!(run(&[("fields", "name"), ("how", "hash"), ("salt", SALT)], &block[..1]), block[2..3]);
    }
}

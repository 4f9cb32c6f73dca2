//! What `json::object` takes and finds, held against `serde_json`: on documents made at random, and on the same with damage.

use std::collections::BTreeMap;
use std::fmt;

use millpond_guest::json::{self, NotAnObject};
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

#[test]
fn fields_are_found_where_they_lie() {
    let value = r#" {"a": 1, "b" : {"a": [2, {"a": 3}]}, "c":"x\"}", "d": null } "#;
    let object = json::object(value.as_bytes()).expect("an object");
    for (name, text) in [("a", "1"), ("b", r#"{"a": [2, {"a": 3}]}"#), ("c", r#""x\"}""#), ("d", "null")] {
        let field = object.get(name).expect(name);
        assert_eq!((field.text(), &value[field.range()]), (text, text));
    }
    assert!(object.get("e").is_none() && object.get("").is_none());
}

#[test]
fn of_several_fields_of_one_name_the_last_counts_and_all_are_replaced() {
    let mut object = json::object(br#"{"a":1,"b":2,"a":{"a":3}}"#).expect("an object");
    assert_eq!(object.get("a").map(|field| field.text()), Some(r#"{"a":3}"#));
    assert_eq!(object.all("a").map(|field| field.text()).collect::<Vec<_>>(), ["1", r#"{"a":3}"#]);
    assert_eq!(object.replace("a", "null"), Some(&br#"{"a":null,"b":2,"a":null}"#[..]));
    assert_eq!(object.replace("c", "null"), None);
    assert_eq!(object.mask("b"), Some(&br#"{"a":1,"b":"***","a":{"a":3}}"#[..]));
    assert_eq!(json::object(br#"{"":1}"#).expect("an object").mask(""), None);
}

#[test]
fn names_and_strings_may_be_escaped() {
    let object = json::object(br#"{"st\u0061te":"\u0069dle", "state":"a/\"b\"", "\ud83d\ude00":"\n"}"#).expect("an object");
    let states: Vec<_> = object.all("state").map(|field| (field.is("idle"), field.string().expect("a string").into_owned())).collect();
    assert_eq!(states, [(true, "idle".to_owned()), (false, "a/\"b\"".to_owned())]);
    assert!(object.get("\u{1f600}").is_some_and(|field| field.is("\n")));
    assert!(object.get(r"st\u0061te").is_none());
    for half in [r#"{"x":"\ud800"}"#, r#"{"x":"\udc00"}"#, r#"{"x":"\ud800\ud800"}"#, r#"{"x":"\ud800x"}"#] {
        let object = json::object(half.as_bytes()).expect("an object");
        assert_eq!(object.get("x").and_then(|field| field.string()), None, "{half}");
    }
}

#[test]
fn what_is_not_a_string_is_compared_as_it_is_written() {
    let object = json::object(br#"{"n": 5, "t": true, "s": "5", "long": "123456789"}"#).expect("an object");
    for (name, text, same) in [("n", "5", true), ("n", "5.0", false), ("t", "true", true), ("s", "5", true), ("s", "\"5\"", false)] {
        assert_eq!(object.get(name).expect(name).is(text), same, "{name} {text}");
    }
    for (text, same) in [("123456789", true), ("123406789", false), ("1234567890", false), ("", false)] {
        assert_eq!(object.get("long").expect("it is there").is(text), same, "{text}");
    }
}

#[test]
fn anything_but_one_whole_object_is_refused() {
    for value in ["", "x", "[]", "5", "\"{}\"", "{", "{\"a\":}", "{\"a\":1", "{\"a\":1}x", "{\"a\":1}{}", "{a:1}", "{'a':1}", "{\"a\":1,}"]
    {
        assert_eq!(json::object(value.as_bytes()).map(|_| ()), Err(NotAnObject), "{value}");
    }
    for value in [&b"{\"\xff\":1}"[..], b"{\"a\":\"\xc3\"}", b"{\"a\":[\"\xc3\"]}", b"\xef\xbb\xbf{}"] {
        assert!(json::object(value).is_err(), "{value:x?}");
    }
    assert!(json::object(b"{}").is_ok() && json::object(b" {\n} ").is_ok());
}

#[test]
fn deep_nesting_overflows_nothing() {
    let value = format!("{{\"x\":{}1{},\"y\":2}}", "[".repeat(100_000), "]".repeat(100_000));
    let object = json::object(value.as_bytes()).expect("an object");
    assert_eq!(object.get("x").map(|field| field.text().len()), Some(200_001));
    assert!(object.get("y").is_some_and(|field| field.is("2")));
}

#[test]
fn more_fields_and_quotes_than_an_index_holds_are_read_all_the_same() {
    let fields: Vec<String> = (0..20_000).map(|number| format!("\"n{number}\":\"{number}\"")).collect();
    let value = format!("{{{}}}", fields.join(","));
    let object = json::object(value.as_bytes()).expect("an object");
    assert!(object.get("n19999").is_some_and(|field| field.is("19999")));
}

#[test]
fn objects_can_be_read_side_by_side() {
    let mut one = json::object(br#"{"a":1}"#).expect("an object");
    let mut other = json::object(br#"{"b":1,"a":2}"#).expect("an object");
    assert_eq!((one.mask("a"), other.mask("a")), (Some(&br#"{"a":"***"}"#[..]), Some(&br#"{"b":1,"a":"***"}"#[..])));
}

#[test]
fn every_document_is_read_as_serde_reads_it() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for _ in 0..20_000 {
        let document = random.document();
        check(document.as_bytes());
    }
}

#[test]
fn every_damaged_document_is_read_or_refused_as_serde_does() {
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    let mut taken = 0;
    for _ in 0..60_000 {
        let mut document = random.document().into_bytes();
        for _ in 0..=random.below(3) {
            let at = random.below(document.len().max(1)).min(document.len());
            match random.below(4) {
                0 => document.truncate(at),
                1 => document.insert(at, *random.one_of(&DAMAGE)),
                2 if at < document.len() => document[at] = *random.one_of(&DAMAGE),
                3 if at < document.len() => drop(document.remove(at)),
                _ => {}
            }
        }
        taken += usize::from(check(&document));
    }
    assert!((6_000..54_000).contains(&taken), "{taken} of the damaged documents are objects: both sides are tried");
}

#[test]
fn a_document_that_is_cut_anywhere_is_refused() {
    let document = r#"{"device":"pump-3","host":"gateway-07.plant.example","tags":["a",{"b":null}],"celsius":-21.5e3,"state":"idle"}"#;
    assert!(check(document.as_bytes()));
    for end in 0..document.len() {
        assert!(!check(&document.as_bytes()[..end]), "cut at {end}");
    }
}

/// Holds what is found against what `serde_json` finds; says whether it is an object.
fn check(document: &[u8]) -> bool {
    let shown = String::from_utf8_lossy(document);
    // Nothing of it is made into numbers or text, so this is the grammar and nothing else.
    let text = std::str::from_utf8(document).ok().filter(|text| serde_json::from_str::<IgnoredAny>(text).is_ok());
    let is_object = text.is_some_and(|text| text.trim_ascii_start().starts_with('{'));
    let found = json::object(document);
    assert_eq!(found.is_ok(), is_object, "{shown}");
    let (Ok(mut object), Some(text)) = (found, text) else { return false };
    // A name with half a surrogate pair is none that serde_json could give.
    let Ok(expected) = serde_fields(text) else { return true };
    for (name, values) in &expected {
        let found: Vec<_> = object.all(name).map(|field| field.text()).collect();
        assert_eq!(&found, values, "{name:?} of {shown}");
        assert!(object.all(name).all(|field| &text[field.range()] == field.text()), "{shown}");
        assert_eq!(object.get(name).map(|field| field.text()), values.last().copied(), "{shown}");
        for field in object.all(name) {
            let string = serde_json::from_str::<String>(field.text()).ok();
            assert_eq!(field.string().as_deref(), string.as_deref(), "{} of {shown}", field.text());
            // A string with half a surrogate pair is no text, so it is none that could be asked for.
            let is_text = string.is_some() || !field.text().starts_with('"');
            assert_eq!(field.is(string.as_deref().unwrap_or(field.text())), is_text, "{} of {shown}", field.text());
        }
        let replaced = object.replace(name, "[0]").map(|bytes| String::from_utf8(bytes.to_vec()).expect("UTF-8"));
        let replaced = replaced.expect("the field is there");
        let after = serde_fields(&replaced).unwrap_or_else(|error| panic!("{replaced}: {error}"));
        for (other, values) in &expected {
            let wanted = if other == name { vec!["[0]"; values.len()] } else { values.clone() };
            assert_eq!(after[other], wanted, "{other:?} of {replaced}");
        }
    }
    for name in NAMES {
        assert_eq!(object.get(name).is_some(), expected.contains_key(name), "{name:?} of {shown}");
    }
    true
}

/// All fields of an object, by their names, as they are written.
fn serde_fields(text: &str) -> Result<BTreeMap<String, Vec<&str>>, serde_json::Error> {
    struct Fields;

    impl<'de> Visitor<'de> for Fields {
        type Value = BTreeMap<String, Vec<&'de str>>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut fields = BTreeMap::<_, Vec<_>>::new();
            while let Some((name, value)) = map.next_entry::<String, &RawValue>()? {
                fields.entry(name).or_default().push(value.get());
            }
            Ok(fields)
        }
    }

    serde_json::Deserializer::from_str(text).deserialize_map(Fields)
}

/// Marsaglia's xorshift64: the same documents in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).expect("31 bits") % limit
    }

    fn one_of<'a, T: ?Sized>(&mut self, these: &[&'a T]) -> &'a T {
        these[self.below(these.len())]
    }

    fn document(&mut self) -> String {
        // Most programs write no blanks, or one behind each colon and comma; people write anything.
        let style = self.below(3);
        let blanks = self.one_of(&["", " "]).to_owned() + &self.space(style);
        let object = self.object(style, 3);
        blanks + &object + &self.space(style)
    }

    fn object(&mut self, style: usize, depth: usize) -> String {
        let mut text = "{".to_owned() + &self.space(style);
        for index in 0..self.below(8) {
            if index > 0 {
                text += ",";
                text += &self.gap(style);
            }
            text += &self.string(true);
            text += &self.space(style);
            text += ":";
            text += &self.gap(style);
            text += &self.value(style, depth);
            text += &self.space(style);
        }
        text + "}"
    }

    fn value(&mut self, style: usize, depth: usize) -> String {
        match self.below(if depth == 0 { 6 } else { 8 }) {
            0..3 => self.string(false),
            3 | 4 => self.one_of(&NUMBERS).to_owned(),
            5 => self.one_of(&["true", "false", "null"]).to_owned(),
            6 => self.object(style, depth - 1),
            _ => {
                let values: Vec<_> = (0..self.below(4)).map(|_| self.value(style, depth - 1) + &self.space(style)).collect();
                format!("[{}{}]", self.space(style), values.join(&(",".to_owned() + &self.gap(style))))
            }
        }
    }

    fn string(&mut self, name: bool) -> String {
        if name && self.below(3) > 0 {
            return format!("{:?}", self.one_of(&NAMES));
        }
        // Plain text of all lengths around those at which the scanner changes its step.
        let plain = "x".repeat(self.below(70));
        let pieces: String = (0..self.below(3)).map(|_| self.one_of(&PIECES)).collect();
        match self.below(3) {
            0 => format!("\"{plain}{pieces}\""),
            1 => format!("\"{plain}\""),
            _ => format!("\"{}\"", self.one_of(&["idle", "busy", "gw-7", ""])),
        }
    }

    fn gap(&mut self, style: usize) -> String {
        if style == 1 { " ".to_owned() } else { self.space(style) }
    }

    fn space(&mut self, style: usize) -> String {
        if style < 2 { String::new() } else { self.one_of(&["", "", " ", "  ", "\n\t", "\r\n"]).to_owned() }
    }
}

const NAMES: [&str; 7] = ["state", "host", "a", "", "st\u{e4}te", "a name of more than sixteen", "hos"];

const NUMBERS: [&str; 12] =
    ["0", "-0", "7", "-12", "1.5", "0.25", "1e9", "-1.5E-300", "123456789", "12345678", "1234567.12345678", "1e999"];

const PIECES: [&str; 12] = [r#"\""#, r"\\", r"\/", r"\n", r"\u0061", r"\ud83d\ude00", r"\ud800", "\u{e4}", "\u{1f600}", "{", "]", ","];

const DAMAGE: [&u8; 24] = [
    &b'"', &b'\\', &b'{', &b'}', &b'[', &b']', &b',', &b':', &b' ', &b'0', &b'1', &b'-', &b'+', &b'.', &b'e', &b't', &b'n', &b'u', &b'\n',
    &0, &0x1f, &0x7f, &0x80, &0xc3,
];

#[test]
fn a_number_is_one_only_if_json_says_so() {
    let object = json::object(br#"{"a":1,"b":-2.5e3,"c":"1","d":null,"e":true,"f":[1],"g":1e999,"h":0}"#).expect("an object");
    let number = |name| object.get(name).and_then(|field| field.number());
    assert_eq!(["a", "b", "g", "h"].map(number), [Some(1.0), Some(-2500.0), Some(f64::INFINITY), Some(0.0)]);
    assert_eq!(["c", "d", "e", "f", "none"].map(number), [None; 5]);
}

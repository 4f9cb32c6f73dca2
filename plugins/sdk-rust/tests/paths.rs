//! Fields inside of fields: found by paths, and replaced together.

use millpond_guest::json::{self, Edits, Path, put_string};

fn path(text: &str) -> Path {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn found(value: &str, way: &str) -> Vec<String> {
    let mut found = Vec::new();
    json::object(value.as_bytes()).expect("an object").each(&path(way), |field| {
        assert_eq!(&value[field.range()], field.text());
        found.push(field.text().to_owned());
    });
    found
}

#[test]
fn a_path_leads_through_objects_and_arrays() {
    let value = r#" {"a": {"b c": [1, {"d": "x]}\"" } , [ 2,3 ] ], "e":{}}, "u":[{"m":1},{"n":0},{"m":[]}], "f": -1.5e3 } "#;
    for (way, expected) in [
        ("f", &["-1.5e3"][..]),
        ("$.f", &["-1.5e3"]),
        (r#"$["f"]"#, &["-1.5e3"]),
        (r#"a["b c"][1].d"#, &[r#""x]}\"""#]),
        ("a['b c'][2][1]", &["3"]),
        ("a.e", &["{}"]),
        ("u[*].m", &["1", "[]"]),
        ("a['b c'][2].*", &["2", "3"]),
        ("a.*[0]", &["1"]),
        ("u", &[r#"[{"m":1},{"n":0},{"m":[]}]"#]),
        ("a.b", &[]),
        ("f.x", &[]),
        ("u[3]", &[]),
        ("u.m", &[]),
        ("a[0]", &[]),
        ("a.e.*", &[]),
    ] {
        assert_eq!(found(value, way), expected, "{way}");
    }
    let object = json::object(value.as_bytes()).expect("an object");
    assert_eq!(object.at(&path("u[*].m")).map(|field| field.text()), Some("[]"), "the last");
    assert_eq!(object.at(&path("f")).and_then(|field| field.number()), Some(-1500.0));
    assert!(object.at(&path("f.g")).is_none());
}

#[test]
fn a_name_that_is_there_twice_or_is_escaped_hides_nothing() {
    let value = r#"{"a":{"b":1,"\u0062":2},"a":{"b":3},"\u0061":[{"b":4}]}"#;
    assert_eq!(found(value, "a.b"), ["1", "2", "3"]);
    assert_eq!(found(value, "a[*].b"), ["4"]);
    assert_eq!(found(value, "a.*"), ["1", "2", "3", r#"{"b":4}"#]);
}

#[test]
fn what_is_no_path_says_what_is_missing() {
    for (text, words) in [
        ("", "the name of a field is missing at the end"),
        ("$", "begins with the name of a field"),
        ("$[0]", "begins with the name of a field"),
        ("$.*", "begins with the name of a field"),
        ("[0]", "the name of a field is missing before `[0]`"),
        ("a..b", "the name of a field is missing before `.b`"),
        ("a.", "missing at the end"),
        ("a[b]", "a number from 0 on"),
        ("a[-1]", "and not `-1`"),
        ("a[0", "not closed by `]`"),
        ("a['b]", "not closed by `]`"),
        ("a b", "` b` can't be behind `a`"),
        (&format!("a{}", ".b".repeat(17)), "at most 16 steps"),
    ] {
        let error = text.parse::<Path>().expect_err(text);
        assert!(error.contains(words), "{text}: {error}");
    }
    let list = |text: &str| Path::list(text).map(|paths| paths.iter().map(ToString::to_string).collect::<Vec<_>>());
    assert_eq!(list(" a , b.c[*],$['x,y'] "), Ok(vec!["a".to_owned(), "b.c[*]".to_owned(), "$['x,y']".to_owned()]));
    assert_eq!(list(""), Ok(vec![]));
    assert!(list("a,").expect_err("a comma").contains("behind the last comma"));
    assert!(list("a b").expect_err("no comma").contains("a comma is missing before `b`"));
}

/// Documents made at random; while one is written, what lies where is noted.
struct Writer {
    random: u64,
    text: String,
    fields: Vec<(String, String)>,
}

impl Writer {
    fn below(&mut self, limit: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 33) % limit
    }

    fn space(&mut self) {
        let space = ["", "", " ", "\n\t"][usize::try_from(self.below(4)).expect("small")];
        self.text += space;
    }

    fn value(&mut self, way: &str, depth: u32) {
        let start = self.text.len();
        match self.below(if depth == 0 { 4 } else { 8 }) {
            0 => self.text += "-12.5e+7",
            1 => self.text += "null",
            2 => self.text += "\"],}\\\"\\\\\"",
            3 => self.text += "\"\u{e4}{[:,\"",
            4 | 5 => self.several(way, depth, ['[', ']']),
            _ => self.several(way, depth, ['{', '}']),
        }
        self.fields.push((way.to_owned(), self.text[start..].to_owned()));
    }

    fn several(&mut self, way: &str, depth: u32, [open, close]: [char; 2]) {
        self.text.push(open);
        self.space();
        for index in 0..self.below(4) {
            if index > 0 {
                self.text.push(',');
                self.space();
            }
            let way = if open == '[' {
                format!("{way}[{index}]")
            } else {
                let name = ["n", "a b", "\u{e4}", "]"][usize::try_from(index).expect("small")];
                self.text.push('"');
                self.text += name;
                self.text.push('"');
                self.space();
                self.text.push(':');
                self.space();
                format!("{way}[\"{name}\"]")
            };
            self.value(&way, depth - 1);
            self.space();
        }
        self.text.push(close);
    }
}

#[test]
fn whatever_is_written_is_found_where_it_lies_and_can_be_replaced() {
    let mut writer = Writer { random: 0x9e37_79b9_7f4a_7c15, text: String::new(), fields: Vec::new() };
    for _ in 0..2_000 {
        writer.text.clear();
        writer.fields.clear();
        writer.several("$", 4, ['{', '}']);
        for (way, text) in &writer.fields {
            assert_eq!(found(&writer.text, way), [text.as_str()], "{way} of {}", writer.text);
            let mut edits = Edits::default();
            json::object(writer.text.as_bytes()).expect("an object").each(&path(way), |field| edits.replace(&field, |out| out.push(b'7')));
            let edited = edits.apply(writer.text.as_bytes()).expect("one edit").to_vec();
            let edited = String::from_utf8(edited).expect("UTF-8");
            assert_eq!(found(&edited, way), ["7"], "{way} of {}", writer.text);
            assert_eq!(edited.len(), writer.text.len() - text.len() + 1);
        }
    }
}

#[test]
fn edits_may_overlap_and_come_in_any_order() {
    let value = r#"{"a":{"b":1,"c":2},"d":3}"#;
    let mut edits = Edits::default();
    assert_eq!(edits.apply(value.as_bytes()), None);
    for round in 0..2 {
        edits.clear();
        let object = json::object(value.as_bytes()).expect("an object");
        for (way, text) in [("d", "first"), ("a.c", "inner"), ("a", "outer"), ("d", "second")] {
            object.each(&path(way), |field| edits.replace(&field, |out| put_string(out, text)));
        }
        assert_eq!(edits.apply(value.as_bytes()), Some(&br#"{"a":"outer","d":"first"}"#[..]), "round {round}");
    }
}

#[test]
fn a_string_that_is_put_is_read_as_it_was() {
    let all: String = (0..0x300).filter_map(char::from_u32).chain(['\u{1f600}', '\u{2028}', '\\', '"']).collect();
    for text in ["", "plain", "\"\\\n\r\t\u{0}\u{1f}\u{8}\u{7f}", &all] {
        let mut value = b"{\"x\":".to_vec();
        put_string(&mut value, text);
        value.push(b'}');
        let object = json::object(&value).expect("an object");
        assert_eq!(object.get("x").and_then(|field| field.string()).as_deref(), Some(text));
    }
}

#[test]
fn only_a_number_has_one() {
    let object = json::object(br#"{"a":"1","b":true,"c":[1],"d":1e999,"e":-0}"#).expect("an object");
    let number = |name: &str| object.get(name).and_then(|field| field.number());
    assert_eq!(["a", "b", "c"].map(number), [None; 3]);
    assert_eq!((number("d"), number("e")), (Some(f64::INFINITY), Some(0.0)));
}

use super::CsvToJson;
use millpond_guest::testing::{Batch, Stored, transform};

fn run(params: &[(&str, &str)], values: &[&str]) -> Result<Vec<String>, String> {
    Ok(transform::<CsvToJson>(params, &Batch::of_values(values))?.iter().map(Stored::value_text).collect())
}

fn objects(params: &[(&str, &str)], value: &str) -> Vec<String> {
    run(params, &[value]).unwrap_or_else(|error| panic!("{value}: {error}"))
}

const ABC: &[(&str, &str)] = &[("header", "a,b,c")];

#[test]
fn a_line_becomes_an_object_and_several_lines_several_records() {
    assert_eq!(objects(ABC, "1,x,true"), [r#"{"a":1,"b":"x","c":true}"#]);
    let expected = [r#"{"a":1,"b":"x","c":null}"#, r#"{"a":-2.5e3,"b":"y z","c":false}"#];
    for text in
        ["1,x,\n-2.5e3,y z,FALSE", "1,x,\r\n-2.5e3,y z,FALSE\r\n", "\n1,x,\n\r\n\n-2.5e3,y z,FALSE\n\n", "\u{feff}1,x,\n-2.5e3,y z,FALSE\r"]
    {
        assert_eq!(objects(ABC, text), expected, "{text:?}");
    }
    assert_eq!(objects(ABC, ""), [""; 0]);
    assert_eq!(objects(ABC, "\r\n\n"), [""; 0]);
}

#[test]
fn the_first_line_may_have_the_names() {
    let text = "device,\"t, C\",\"say \"\"hi\"\"\"\npump-3,21.5,1\npump-4,22,2\n";
    let expected = [r#"{"device":"pump-3","t, C":21.5,"say \"hi\"":1}"#, r#"{"device":"pump-4","t, C":22,"say \"hi\"":2}"#];
    assert_eq!(objects(&[], text), expected);
    assert_eq!(run(&[], &["a\n1", "b\n2"]), Ok(vec![r#"{"a":1}"#.to_owned(), r#"{"b":2}"#.to_owned()]));
    assert_eq!(objects(&[], "a,b"), [""; 0]);
}

#[test]
fn quotes_hold_what_would_end_a_field() {
    assert_eq!(objects(ABC, "\"a,b\",\"\",\"12\""), [r#"{"a":"a,b","b":"","c":"12"}"#]);
    assert_eq!(
        objects(ABC, "\"two\r\nlines\",\"say \"\"hi\"\"\",\"\"\"\"\n1,2,3"),
        [r#"{"a":"two\r\nlines","b":"say \"hi\"","c":"\""}"#, r#"{"a":1,"b":2,"c":3}"#,]
    );
    assert_eq!(objects(ABC, "\"\u{e4}\\\u{1}\",\u{e4}\t,x\ry"), ["{\"a\":\"\u{e4}\\\\\\u0001\",\"b\":\"\u{e4}\\t\",\"c\":\"x\\ry\"}"]);
}

#[test]
fn the_delimiter_can_be_chosen() {
    let expected = [r#"{"a":"1,5","b":"x;y","c":2}"#];
    assert_eq!(objects(&[("header", "a,b,c"), ("delimiter", ";")], "1,5;\"x;y\";2"), expected);
    for tab in ["tab", "\\t", "\t"] {
        assert_eq!(objects(&[("header", "a,b,c"), ("delimiter", tab)], "1,5\tx;y\t2"), expected);
    }
}

#[test]
fn what_looks_like_a_number_is_one_and_codes_stay_texts() {
    for (field, expected) in [
        ("0", "0"),
        ("-0.50", "-0.50"),
        ("1E+5", "1E+5"),
        (" 12 ", "12"),
        ("12345678901234567890.12345678901234567890", "12345678901234567890.12345678901234567890"),
        ("007", r#""007""#),
        ("+5", r#""+5""#),
        (".5", r#"".5""#),
        ("5.", r#""5.""#),
        ("1e", r#""1e""#),
        ("-", r#""-""#),
        ("1.5.2", r#""1.5.2""#),
        ("0x1f", r#""0x1f""#),
        ("NaN", r#""NaN""#),
        ("True", "true"),
        ("truely", r#""truely""#),
        (" x ", r#"" x ""#),
        ("", "null"),
    ] {
        assert_eq!(objects(ABC, &format!("{field},,\"\"")), [format!(r#"{{"a":{expected},"b":null,"c":""}}"#)], "{field:?}");
    }
}

#[test]
fn types_can_be_given_for_some_or_for_all() {
    let given = |types| [("header", "a,b,c"), ("types", types)];
    assert_eq!(objects(&given("a:string, b:number, c:bool"), "12,\"+.50\",1"), [r#"{"a":"12","b":0.5,"c":true}"#]);
    assert_eq!(objects(&given("*:string,b:infer"), "1,2,true"), [r#"{"a":"1","b":2,"c":"true"}"#]);
    assert_eq!(objects(&given("a:number"), "007,x,"), [r#"{"a":7,"b":"x","c":null}"#]);
    assert_eq!(objects(&[("types", "b:string")], "a,b\n1,2"), [r#"{"a":1,"b":"2"}"#]);
    for (types, line, words) in [
        ("a:number", "x,1,2", "`a` is no number: x"),
        ("a:number", "inf,1,2", "`a` is no number: inf"),
        ("a:number", "1e999,1,2\n", ""),
        ("b:bool", "1,yes,2", "`b` is no bool: yes"),
    ] {
        match run(&given(types), &["1,1,1", line]) {
            Ok(_) => assert_eq!(words, ""),
            Err(error) => assert_eq!(error, format!("record 1: line 1: {words}")),
        }
    }
}

#[test]
fn what_is_no_csv_fails_with_its_record_line_and_field() {
    for (text, words) in [
        ("1,2", "line 1: it has 2 fields, and there are 3 columns"),
        ("1,2,3\n1,2,3,4", "line 2: it has 4 fields, and there are 3 columns"),
        ("\"1\n2\",2,3\n1,2", "line 3: it has 2 fields, and there are 3 columns"),
        ("1,\"2,3", "line 1, field 2: its quote has no end"),
        ("1,2,3\n1,\"2\"x,3", "line 2, field 2: behind its closing quote is 'x', and neither a delimiter nor the end of the line"),
        ("1,2\",3", "line 1, field 2: a quote is in a field that does not begin with one"),
    ] {
        assert_eq!(run(ABC, &["1,2,3", text]), Err(format!("record 1: {words}")), "{text:?}");
    }
    let batch = Batch::new().record(None, Some(b"a,b\xff"), &[]);
    assert_eq!(transform::<CsvToJson>(ABC, &batch), Err("record 0: the value is not UTF-8 from byte 3 on".to_owned()));
    for (text, words) in [("a,,c\n1,2,3", "column 2 has no name"), ("a,b,a\n1,2,3", "two columns have the name `a`")] {
        assert_eq!(run(&[], &[text]), Err(format!("record 0: {words}")));
    }
    let wide = vec!["x"; 2000].iter().enumerate().map(|(number, x)| format!("{x}{number}")).collect::<Vec<_>>().join(",");
    assert_eq!(run(&[], &[&wide]), Err("record 0: there are more than 1024 columns".to_owned()));
}

/// Marsaglia's xorshift64: the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).expect("31 bits") % limit
    }

    fn text(&mut self) -> String {
        (0..self.below(5)).map(|_| ["a", ",", "\"", "\n", "\r", "\r\n", " ", "\u{e4}", ";", "\\", "7"][self.below(11)]).collect()
    }
}

#[test]
fn whatever_is_written_as_csv_is_read_as_it_was() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for _ in 0..5_000 {
        let (mut csv, mut expected) = (String::new(), Vec::new());
        for _ in 0..=random.below(4) {
            let fields = [random.text(), random.text(), random.text()];
            let written = fields.each_ref().map(|field| {
                let is_plain = !field.is_empty() && !field.contains([',', '"', '\n', '\r']);
                if is_plain && random.below(2) == 0 { field.clone() } else { format!("\"{}\"", field.replace('"', "\"\"")) }
            });
            csv += &written.join(",");
            csv += ["\n", "\r\n", "\n\n"][random.below(3)];
            expected.push(fields);
        }
        let found = objects(&[("header", "a,b,c"), ("types", "*:string")], &csv);
        let found = found.iter().map(|object| {
            let object = millpond_guest::json::object(object.as_bytes()).expect("an object");
            ["a", "b", "c"].map(|name| object.get(name).and_then(|field| field.string()).expect("a text").into_owned())
        });
        assert_eq!(found.collect::<Vec<_>>(), expected, "{csv:?}");
    }
}

#[test]
fn any_text_is_read_or_refused() {
    let mut random = Random(7);
    for _ in 0..20_000 {
        let text: String = (0..random.below(6)).map(|_| random.text()).collect();
        for params in [&[][..], ABC, &[("header", "a"), ("delimiter", ";"), ("types", "a:number")]] {
            for object in run(params, &[&text]).unwrap_or_default() {
                assert!(millpond_guest::json::object(object.as_bytes()).is_ok(), "{text:?}: {object}");
            }
        }
        let _either = (run(&[("header", &text)], &[""]), run(&[("types", &text)], &[""]));
    }
}

#[test]
fn key_headers_and_time_go_to_every_record() {
    let batch = Batch::new().record(Some(b"key"), Some(b"1\n2"), &[("h", Some(b"x"))]).record(Some(b"key"), None, &[]);
    let stored = transform::<CsvToJson>(&[("header", "a")], &batch).expect("it runs");
    let [one, two, tombstone] = &stored[..] else { panic!("{stored:?}") };
    assert_eq!((one.value_text(), two.value_text()), (r#"{"a":1}"#.to_owned(), r#"{"a":2}"#.to_owned()));
    assert_eq!((&one.key, &one.headers, one.timestamp), (&two.key, &two.headers, two.timestamp));
    assert_eq!((one.headers.len(), one.key.as_deref()), (1, Some(&b"key"[..])));
    assert_eq!(tombstone.value, None);
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    for (params, words) in [
        (&[("header", "a,,b")][..], "the setting `header` makes no sense: column 2 has no name"),
        (&[("header", "a,\"b")], "the setting `header` makes no sense: line 1, field 2: its quote has no end"),
        (&[("delimiter", "")], "one character of ASCII, or `tab`, and not ``"),
        (&[("delimiter", ";;")], "one character of ASCII"),
        (&[("delimiter", "\u{a7}")], "one character of ASCII"),
        (&[("delimiter", "\"")], "can't be a quote or the end of a line"),
        (&[("types", "a")], "`a` is no name and type"),
        (&[("types", "a:date")], "and not `date`"),
        (&[("header", "a,b"), ("types", "c:number")], "names `c`, and there is no such column; there are: a, b"),
        (&[("headers", "a")], "there is no setting `headers`"),
    ] {
        let error = transform::<CsvToJson>(params, &Batch::new()).expect_err("it makes no sense");
        assert!(error.contains(words), "{params:?}: {error}");
    }
}

#[test]
fn the_readme_tells_the_truth() {
    let readme = include_str!("../README.md");
    let mut blocks = readme.split("```\n").skip(1).step_by(2);
    let (csv, json) = (blocks.next().expect("the input"), blocks.next().expect("the output"));
    let params = [("header", "device,zip,temperature,ok,note"), ("types", "zip:string")];
    assert_eq!(objects(&params, csv), json.lines().collect::<Vec<_>>());
}

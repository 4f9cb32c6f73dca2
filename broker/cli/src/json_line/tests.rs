use super::*;

const PLACE: Place<'static> = Place { topic: "t", partition: 2, offset: 7, timestamp: 1_000 };

fn line(key: Option<&[u8]>, value: Option<&[u8]>, headers: &[(&str, Option<&[u8]>)]) -> String {
    let mut out = Vec::new();
    write(&mut out, PLACE, key, value, headers);
    String::from_utf8(out).expect("JSON is UTF-8")
}

#[test]
fn a_record_of_text_is_written_with_exactly_these_fields() {
    assert_eq!(
        line(Some(b"k"), Some(b"say \"hi\"\n"), &[("unit", Some(b"C")), ("gone", None)]),
        "{\"topic\":\"t\",\"partition\":2,\"offset\":7,\"timestamp\":1000,\"key\":\"k\",\"value\":\"say \\\"hi\\\"\\n\",\
         \"headers\":{\"unit\":\"C\",\"gone\":null}}\n"
    );
    assert!(line(None, None, &[]).ends_with("\"key\":null,\"value\":null,\"headers\":{}}\n"));
}

#[test]
fn every_record_reads_back_as_it_was_written() {
    let bytes: &[u8] = &[0xff, 0x00, b'a'];
    let headers = [("a", Some(&b"1"[..])), ("b", Some(bytes)), ("a", None), ("a", Some(bytes)), ("", Some(&b""[..]))];
    for (key, value) in [(None, None), (Some(bytes), Some(bytes)), (Some(&b""[..]), Some(&b"\xc3\xa4"[..]))] {
        let record = read(line(key, value, &headers).as_bytes()).expect("a record");
        assert_eq!((record.key.as_deref(), record.value.as_deref()), (key, value));
        assert_eq!((record.partition, record.timestamp), (Some(2), Some(1_000)));
        let mut read: Vec<_> = record.headers.iter().map(|(name, value)| (name.as_str(), value.as_deref())).collect();
        let mut written = headers.to_vec();
        // Those of one name keep their order; the names come together.
        read.sort_by_key(|(name, _)| *name);
        written.sort_by_key(|(name, _)| *name);
        assert_eq!(read, written);
    }
}

#[test]
fn a_value_that_is_not_a_string_is_stored_as_its_text_without_blanks() {
    for (json, stored) in [
        (
            r#"{ "b" : 1.10, "a" : [ 1 , "x y" ], "big": 123456789012345678901234567890 }"#,
            r#"{"b":1.10,"a":[1,"x y"],"big":123456789012345678901234567890}"#,
        ),
        ("[ ]", "[]"),
        ("-1.50e3", "-1.50e3"),
        ("true", "true"),
        (r#"{"quoted \" , ": "}]"}"#, r#"{"quoted \" , ":"}]"}"#),
    ] {
        let record = read(format!("  {{\"value\" : {json} ,\"key\": 5 }} ").as_bytes()).expect("a record");
        assert_eq!(record.value.as_deref(), Some(stored.as_bytes()));
        assert_eq!(record.key.as_deref(), Some(&b"5"[..]));
    }
}

#[test]
fn times_are_milliseconds_or_rfc_3339() {
    for (json, expected) in [
        ("1767225600000", Some(1_767_225_600_000)),
        ("\"2026-01-01T01:00:00+01:00\"", Some(1_767_225_600_000)),
        ("null", None),
        ("-5", Some(-5)),
    ] {
        let record = read(format!("{{\"value\":null,\"timestamp\":{json}}}").as_bytes()).expect("a record");
        assert_eq!((record.value, record.timestamp), (None, expected));
    }
}

#[test]
fn escapes_are_understood() {
    let record = read(br#"{"v\u0061lue":"\u00e4\ud83d\ude00\t"}"#).expect("a record");
    assert_eq!(record.value.as_deref(), Some("ä😀\t".as_bytes()));
}

#[test]
fn what_is_not_a_record_is_refused_with_the_field_at_fault() {
    for (json, words) in [
        ("{", "it is not JSON"),
        ("", "it is not JSON"),
        ("{} {}", "it is not JSON"),
        ("[1]", "it is not a JSON object"),
        ("3", "it is not a JSON object"),
        ("{}", "there is no `value`"),
        (r#"{"key":"a"}"#, "there is no `value`"),
        (r#"{"value":"a","colour":1}"#, "a record has no field `colour`"),
        (r#"{"value":"a","value":"b"}"#, "the field `value` is there twice"),
        (r#"{"value":"a","value_base64":"YQ=="}"#, "the field `value` is there twice"),
        (r#"{"value_base64":"%"}"#, "`value_base64` must be a string in base64"),
        (r#"{"value":"a","partition":-1}"#, "`partition` must be a number from 0, or null"),
        (
            r#"{"value":"a","timestamp":"soon"}"#,
            "`timestamp` must be milliseconds since 1970 as a number, or a time such as \"2026-01-01T00:00:00Z\"",
        ),
        (r#"{"value":"a","headers":[]}"#, "`headers` must be an object"),
        (r#"{"value":"a","headers":{"h":1}}"#, "`headers.h` must be a string, null, {\"base64\":\"…\"} or an array of them"),
        (r#"{"value":"a","headers":{"h":[["x"]]}}"#, "`headers.h` must be a string, null, {\"base64\":\"…\"} or an array of them"),
    ] {
        let error = read(json.as_bytes()).expect_err(json);
        assert_eq!(error.to_string(), words, "{json}");
    }
}

#[test]
fn a_line_may_say_the_topic() {
    let found = |json: &str| topic(json.as_bytes());
    assert_eq!(found(r#"{"topic":"a","value":{"topic":"b"}}"#).expect("a topic").as_deref(), Some("a"));
    assert_eq!(found(r#"{"value":1,"to\u0070ic" : "a\u0062"}"#).expect("a topic").as_deref(), Some("ab"));
    for none in [r#"{"value":{"topic":"b"}}"#, r#"{"topic":null,"value":1}"#] {
        assert_eq!(found(none).expect("no topic"), None, "{none}");
    }
    assert_eq!(found(r#"{"topic":7,"value":1}"#).expect_err("no name").to_string(), "`topic` must be a string, or null");
}

#[test]
fn bytes_that_are_not_json_never_panic() {
    for length in 0..4 {
        for seed in 0..4_000_u32 {
            let bytes: Vec<u8> = (0..length).map(|at| b"{}[]\",:\\n1 \xff"[(seed >> (4 * at)) as usize % 12]).collect();
            let _ = (read(&bytes), topic(&bytes));
        }
    }
}

#[test]
fn numbers_are_written_in_decimal() {
    for number in [0, 7, -7, i64::MAX, i64::MIN, 1_767_225_600_000] {
        let mut out = Vec::new();
        write_number(&mut out, number);
        assert_eq!(String::from_utf8_lossy(&out), number.to_string());
    }
}

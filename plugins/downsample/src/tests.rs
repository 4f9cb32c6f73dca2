use std::collections::BTreeMap;

use super::Downsample;
use super::windows::{KEY_BYTES_MAX, WRITTEN_PER_BATCH_MAX, WRITTEN_PER_RECORD_MAX};
use millpond_guest::testing::{Batch, Stored, grant_state, take_log, transform};
use millpond_guest::{log::Level, state};

/// Records with a key, a time in seconds, and a value.
fn batch(records: &[(&str, i64, &str)]) -> Batch {
    let add = |batch: Batch, (key, seconds, value): &(&str, i64, &str)| {
        batch.record(Some(key.as_bytes()), Some(value.as_bytes()), &[("h", None)]).at(seconds * 1000)
    };
    records.iter().fold(Batch::new(), add)
}

/// What is written: key, and value.
fn run(params: &[(&str, &str)], records: &[(&str, i64, &str)]) -> Vec<String> {
    transform::<Downsample>(params, &batch(records)).expect("it runs").iter().map(shown).collect()
}

fn shown(record: &Stored) -> String {
    let value = record.value_text();
    assert!(record.headers.is_empty() && value.starts_with(&format!("{{\"start\":{},", record.timestamp)), "{record:?}");
    let key = record.key.as_deref().map_or("-".into(), String::from_utf8_lossy);
    format!("{key} {value}")
}

fn reading(value: f64) -> String {
    format!("{{\"value\":{value}}}")
}

fn windows() -> usize {
    state::entries(b"o").count()
}

#[test]
fn each_key_gets_a_record_when_its_window_is_closed() {
    let values = [19.5, 21.0, 23.0, 7.0].map(reading);
    let [low, high, next, other] = values.each_ref().map(String::as_str);
    assert_eq!(run(&[], &[("p", 5, low), ("q", 7, other), ("p", 35, high), ("p", 62, next)]), [""; 0], "there is grace");
    assert_eq!(
        run(&[], &[("q", 69, other), ("q", 70, other)]),
        [
            r#"p {"start":0,"end":60000,"count":2,"mean":20.25,"min":19.5,"max":21}"#,
            r#"q {"start":0,"end":60000,"count":1,"mean":7,"min":7,"max":7}"#
        ]
    );
    assert_eq!(windows(), 2);
    assert_eq!(
        run(&[], &[("r", 600, "text")]),
        [
            r#"p {"start":60000,"end":120000,"count":1,"mean":23,"min":23,"max":23}"#,
            r#"q {"start":60000,"end":120000,"count":2,"mean":7,"min":7,"max":7}"#
        ],
        "a record without a reading closes windows too"
    );
    assert_eq!(windows(), 0);
}

#[test]
fn windows_begin_at_whole_multiples_and_the_field_may_lie_deep() {
    let settings = [("window", "500ms"), ("grace", "0s"), ("field", "a.b")];
    let value = r#"{"a":{"b":-1e-7}}"#;
    let written = run(&settings, &[("k", -1, value), ("k", 0, value), ("k", 1, value)]);
    let of = |start: i64| format!(r#"k {{"start":{start},"end":{},"count":1,"mean":-1e-7,"min":-1e-7,"max":-1e-7}}"#, start + 500);
    assert_eq!(written, [of(-1000), of(0)]);
}

#[test]
fn no_key_is_another_than_an_empty_one() {
    let value = reading(1.0);
    let records = Batch::new().record(Some(b""), Some(value.as_bytes()), &[]).at(0).record(None, Some(value.as_bytes()), &[]).at(0);
    let written = transform::<Downsample>(&[], &records.record(None, None, &[]).at(70_000)).expect("it runs");
    assert_eq!(written.iter().map(|record| record.key.as_deref()).collect::<Vec<_>>(), [None, Some(&b""[..])]);
}

#[test]
fn what_comes_too_late_is_left_out_and_counted() {
    let one = reading(1.0);
    let one = one.as_str();
    assert_eq!(run(&[], &[("a", 59, one), ("b", 69, one), ("a", 58, one), ("b", 70, one)]).len(), 1, "within the grace it counts");
    assert!(take_log().is_empty());
    assert_eq!(run(&[], &[("a", 59, one), ("a", 0, one), ("a", 60, one), ("b", 130, one)]).len(), 2);
    let log = take_log();
    assert!(matches!(&log[..], [(Level::Warn, line)] if line.contains("as 1 in all")), "{log:?}");
    run(&[], &[("a", 59, one)]);
    let log = take_log();
    assert!(matches!(&log[..], [(Level::Warn, line)] if line.contains("as 3 in all")), "{log:?}");
}

#[test]
fn what_is_no_number_is_left_out() {
    let values = ["text", "{}", r#"{"value":"1"}"#, r#"{"value":null}"#, r#"{"value":1e999}"#, "[1]"];
    assert_eq!(run(&[], &values.map(|value| ("k", 0, value))), [""; 0]);
    assert_eq!(windows(), 0);
}

#[test]
fn numbers_are_written_as_json_has_them() {
    let huge = [reading(1e300), reading(1.7e308)];
    let written = run(&[("grace", "0s")], &[("k", 0, &*huge[1]), ("k", 0, &huge[1]), ("k", 60, &huge[0]), ("k", 120, "")]);
    assert!(written[0].ends_with(r#""count":2,"mean":null,"min":1.7e308,"max":1.7e308}"#), "{written:?}");
    assert!(written[1].ends_with(r#""mean":1e300,"min":1e300,"max":1e300}"#), "{written:?}");
    let tenth = reading(0.1);
    let written = run(&[("grace", "0s")], &[("k", 180, &*tenth), ("k", 180, &tenth), ("k", 180, &tenth), ("k", 240, "")]);
    assert!(written[0].ends_with(r#""count":3,"mean":0.1,"min":0.1,"max":0.1}"#), "no mean lies outside of what was measured: {written:?}");
}

#[test]
fn many_windows_that_are_closed_at_once_are_written_bit_by_bit() {
    let (one, keys) = (reading(1.0), WRITTEN_PER_BATCH_MAX + 3);
    let names: Vec<_> = (0..keys).map(|number| format!("{number:05}")).collect();
    let at = |seconds: i64| names.iter().map(|name| (name.as_str(), seconds, one.as_str())).collect::<Vec<_>>();
    assert_eq!(run(&[], &at(0)), [""; 0]);
    let written = transform::<Downsample>(&[], &batch(&[("x", 70, ""), ("x", 70, ""), ("x", 70, "")])).expect("it runs");
    assert_eq!(written.iter().map(|record| record.offset_delta).collect::<Vec<_>>(), [[0; 8], [1; 8], [2; 8]].concat());
    assert_eq!(run(&[], &[("00100", 59, &*one)]).len(), WRITTEN_PER_RECORD_MAX as usize, "and it is closed, though it is not written");
    let rest = keys - 4 * WRITTEN_PER_RECORD_MAX;
    assert_eq!(run(&[], &[("x", 70, ""); 300]).len(), rest as usize);
    assert_eq!(run(&[], &at(200)), [""; 0]);
    let written = run(&[], &[("x", 270, ""); 300]);
    assert_eq!(written.len(), WRITTEN_PER_BATCH_MAX as usize, "no more than there is room for in one batch");
    assert_eq!(run(&[], &[("x", 270, "")]).len() + written.len(), keys as usize, "the last ones come with the next");
}

#[test]
fn a_full_state_fails_what_would_open_a_window_and_lets_the_others_go_on() {
    let one = reading(1.0);
    let one = one.as_str();
    // The two numbers, and two windows of keys with one byte.
    grant_state(2 * (64 + 1 + 8) + 2 * (106 + 1));
    run(&[], &[("a", 0, one), ("b", 0, one)]);
    let error = transform::<Downsample>(&[], &batch(&[("a", 1, one), ("c", 2, one)])).expect_err("there is no room");
    assert!(error.starts_with("record 1") && error.contains("full"), "{error}");
    let written = run(&[], &[("a", 3, one), ("c", 70, one)]);
    assert!(
        written[0].starts_with(r#"a {"start":0,"end":60000,"count":2,"#) && written.len() == 2,
        "what failed has no effect: {written:?}"
    );
}

#[test]
fn a_clock_that_is_far_ahead_closes_nothing() {
    let one = reading(1.0);
    let day = 24 * 60 * 60;
    assert_eq!(run(&[("ahead", "1d")], &[("k", 0, &*one), ("k", day + 10, "")]).len(), 1);
    let error = transform::<Downsample>(&[("ahead", "1d")], &batch(&[("k", 3 * day, &*one)])).expect_err("it is too far ahead");
    assert!(error.contains("further ahead") && error.contains("milliseconds"), "{error}");
}

#[test]
fn microseconds_are_not_taken_for_milliseconds() {
    let (one, seconds) = (reading(1.0), 1_767_225_600);
    run(&[], &[("k", seconds, &*one)]);
    transform::<Downsample>(&[], &batch(&[("k", seconds * 1000, &*one)])).expect_err("these are microseconds");
}

#[test]
fn wrong_settings_and_long_keys_are_refused_and_times_at_both_ends_are_no_trouble() {
    for wrong in [("window", "0s"), ("window", "1"), ("grace", "x"), ("ahead", "18446744073709551615ms"), ("field", "a..b"), ("feild", "x")]
    {
        transform::<Downsample>(&[wrong], &Batch::new()).expect_err(wrong.0);
    }
    let (long, value) = ("x".repeat(KEY_BYTES_MAX + 1), reading(1.0));
    run(&[], &[(&long[1..], 0, &*value)]);
    let error = transform::<Downsample>(&[], &batch(&[(&long, 0, &*value)])).expect_err("it is longer");
    assert!(error.contains("1001 bytes, and 1000 are allowed"), "{error}");
    let ends = [i64::MIN, i64::MAX, 0, i64::MIN, i64::MAX, -1];
    let ahead = [("ahead", "9223372036854775807ms"), ("window", "9223372036854775807ms")];
    for params in [&ahead[..1], &ahead] {
        for time in ends {
            let ran = transform::<Downsample>(params, &Batch::new().record(None, Some(value.as_bytes()), &[]).at(time));
            assert!(ran.as_ref().err().is_none_or(|error| error.contains("further ahead")), "{time}: {ran:?}");
        }
    }
}

/// Windows in a plain map, of which the first are taken when they are closed.
#[derive(Default)]
struct Model {
    open: BTreeMap<(i64, Option<String>), Vec<f64>>,
    closed_to: Option<i64>,
    late: u64,
}

impl Model {
    fn take(&mut self, key: Option<&str>, time: i64, reading: Option<f64>) -> Vec<String> {
        let (window, grace) = (100, 30);
        let closed_to = self.closed_to.unwrap_or(i64::MIN).max((time - grace).div_euclid(window) * window);
        self.closed_to = Some(closed_to);
        let mut written = Vec::new();
        for _ in 0..WRITTEN_PER_RECORD_MAX {
            let Some(first) = self.open.first_entry().filter(|first| first.key().0 < closed_to) else { break };
            let ((start, key), readings) = first.remove_entry();
            let (sum, count) = (readings.iter().sum::<f64>(), u32::try_from(readings.len()).expect("few"));
            let (least, most) = (readings.iter().copied().fold(f64::MAX, f64::min), readings.iter().copied().fold(f64::MIN, f64::max));
            let (end, mean, key) = (start + window, sum / f64::from(count), key.unwrap_or("-".to_owned()));
            let value = format!(r#"{{"start":{start},"end":{end},"count":{count},"mean":{mean},"min":{least},"max":{most}}}"#);
            written.push(format!("{key} {value}"));
        }
        let start = time.div_euclid(window) * window;
        match reading {
            Some(_) if start < closed_to => self.late += 1,
            Some(reading) => self.open.entry((start, key.map(str::to_owned))).or_default().push(reading),
            None => {}
        }
        written
    }
}

#[test]
fn it_does_what_a_plain_map_does() {
    let mut seed = 5_u64;
    let mut random = move |below: u32| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u32::try_from((seed >> 33) % u64::from(below)).expect("small")
    };
    let (mut model, mut now) = (Model::default(), -5000_i64);
    for _ in 0..400 {
        let (mut batch, mut expected) = (Batch::new(), Vec::new());
        for _ in 0..random(20) {
            now += i64::from(random(25));
            let time = now - i64::from(if random(4) == 0 { random(300) } else { random(40) });
            let key = [Some("a"), Some("b"), Some("cc"), None].get(random(5) as usize).copied();
            let key = key.map_or_else(|| Some(random(40).to_string()), |key| key.map(str::to_owned));
            // Halves, of which every sum is exact.
            let reading = (random(10) > 0).then(|| f64::from(random(100)) / 2.0 - 10.0);
            let value = reading.map_or("{}".to_owned(), self::reading);
            batch = batch.record(key.as_deref().map(str::as_bytes), Some(value.as_bytes()), &[]).at(time);
            expected.extend(model.take(key.as_deref(), time, reading));
        }
        let written = transform::<Downsample>(&[("window", "100ms"), ("grace", "30ms")], &batch).expect("it runs");
        assert_eq!(written.iter().map(shown).collect::<Vec<_>>(), expected);
        assert_eq!((windows(), state::get_u64(b"l")), (model.open.len(), model.late));
    }
    assert!(model.late > 100, "{}", model.late);
}

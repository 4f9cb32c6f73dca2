use std::collections::BTreeMap;

use super::{Dedup, ID_BYTES_MAX};
use millpond_guest::testing::{Batch, Stored, grant_state, take_log, transform};
use millpond_guest::{log::Level, state};

const MINUTE: i64 = 60_000;

/// Records with a key, each at its minute; which of them go on.
fn run(params: &[(&str, &str)], records: &[(&str, i64)]) -> Vec<usize> {
    let batch = records.iter().enumerate().fold(Batch::new(), |batch, (index, (key, minute))| {
        batch.record(Some(key.as_bytes()), Some(index.to_string().as_bytes()), &[]).at(minute * MINUTE)
    });
    let stored = transform::<Dedup>(params, &batch).expect("it runs");
    stored.iter().map(|record| record.value_text().parse().expect("a number")).collect()
}

fn values(params: &[(&str, &str)], values: &[&str]) -> Vec<String> {
    transform::<Dedup>(params, &Batch::of_values(values)).expect("it runs").iter().map(Stored::value_text).collect()
}

fn ids() -> usize {
    state::entries(b"i").count()
}

#[test]
fn a_duplicate_within_the_window_is_dropped_and_does_not_begin_it_anew() {
    assert_eq!(run(&[], &[("a", 0), ("a", 0), ("b", 1), ("a", 9), ("a", 10), ("b", 10), ("a", 19), ("b", 11)]), [0, 2, 4, 7]);
    assert_eq!(run(&[], &[("a", 19), ("a", 20)]), [1], "what is known stays from batch to batch");
    assert_eq!(run(&[("window", "1d")], &[("c", 0), ("c", 1439), ("c", 1440)]), [0, 2]);
}

#[test]
fn a_late_record_is_judged_as_long_as_something_is_known() {
    // Before the one that went on as well as behind it.
    assert_eq!(
        run(&[], &[("a", 20), ("a", 11), ("a", 10), ("a", 20)]),
        [0, 2],
        "a window before is a record of its own, and not remembered"
    );
    assert_eq!(run(&[], &[("b", 100), ("b", 101), ("x", 109), ("b", 100), ("x", 110), ("b", 100)]), [0, 2, 5], "it is forgotten at 110");
}

#[test]
fn ids_may_be_fields() {
    let one = r#"{"device":"a","seq":{"n":1}}"#;
    let (same, other) = (r#"{"seq":{"n":1,"x":0},"device":"\u0061"}"#, r#"{"device":"a","seq":{"n":2}}"#);
    assert_eq!(values(&[("field", "device, seq.n")], &[one, same, other]), [one, other]);
    let (joined, apart) = (r#"{"p":"ab","q":"c"}"#, r#"{"p":"a","q":"bc"}"#);
    assert_eq!(values(&[("field", "p,q")], &[joined, apart, joined]), [joined, apart]);
    let (number, text) = (r#"{"n":7}"#, r#"{"n":"7"}"#);
    assert_eq!(values(&[("field", "n")], &[number, text]), [number]);
}

#[test]
fn what_has_no_id_goes_on() {
    assert_eq!(values(&[], &["a", "a"]), ["a", "a"]);
    let incomplete = ["text", "{}", r#"{"p":1}"#];
    assert_eq!(values(&[("field", "p,q")], &[incomplete, incomplete].concat()), [incomplete, incomplete].concat());
    assert_eq!(ids(), 0);
    assert_eq!(run(&[], &[("", 0), ("", 1)]), [0], "an empty key is a key");
}

#[test]
fn at_most_so_many_are_remembered() {
    let last = [("last", "2")];
    assert_eq!(run(&last, &[("a", 0), ("b", 1), ("a", 2), ("c", 900), ("b", 901), ("a", 902), ("b", 903)]), [0, 1, 3, 5, 6]);
    assert_eq!(ids(), 2);
    assert_eq!(run(&last, &[("b", 904), ("c", 905)]), [1], "the number is known in the next batch");
    // With a window besides, both count.
    assert_eq!(run(&[("last", "2"), ("window", "10m")], &[("b", 906), ("b", 913)]), [1]);
    assert_eq!((ids(), state::get_u64(b"n")), (2, 2));
}

#[test]
fn old_ids_are_forgotten_a_few_for_each_record() {
    let many: Vec<_> = (0..100).map(|number| number.to_string()).collect();
    run(&[], &many.iter().map(|key| (key.as_str(), 0)).collect::<Vec<_>>());
    assert_eq!(ids(), 100);
    assert_eq!(run(&[], &[("50", 10)]), [0], "it is past its window, whether it is forgotten or not");
    assert_eq!(ids(), 96, "four are forgotten, one is there anew");
    run(&[], &[("x", 10); 30]);
    assert_eq!((ids(), state::entries(b"").count()), (2, 4));
    // One that is older than what was forgotten last does not stay for ever.
    run(&[], &[("a", 100), ("b", 200), ("c", 50), ("d", 300)]);
    assert_eq!(ids(), 1);
}

#[test]
fn a_full_state_forgets_the_oldest_and_says_so() {
    let pair = 146 + 2;
    grant_state(3 * pair);
    assert_eq!(run(&[], &[("a", 0), ("b", 1), ("c", 2), ("d", 3), ("b", 3), ("c", 3), ("d", 3)]), [0, 1, 2, 3]);
    let full: Vec<_> = take_log().into_iter().filter(|(level, line)| *level == Level::Warn && line.contains("--state-bytes")).collect();
    assert_eq!(full.len(), 1, "once for the batch");
    assert_eq!(run(&[], &[("a", 3)]), [0], "it was forgotten");
    assert_eq!(run(&[], &[("z", -5), ("c", 4)]), [0], "the oldest of all is not remembered in the place of a newer one");
    // A long one needs the room of several, and leaves nothing behind.
    let long = "x".repeat(70);
    assert_eq!(run(&[], &[(&long, 5), (&long, 6)]), [0]);
    assert!(ids() < 3);
    grant_state(pair - 1);
    let error = transform::<Dedup>(&[], &Batch::new().record(Some(b"q"), None, &[]).at(i64::from(i32::MAX))).expect_err("there is no room");
    assert!(error.contains("full"), "{error}");
}

#[test]
fn a_wrong_setting_and_an_id_that_is_too_long_are_refused() {
    for wrong in [("window", "10"), ("window", "0s"), ("last", "0"), ("last", "-1"), ("last", "x"), ("field", "a..b"), ("feild", "x")] {
        transform::<Dedup>(&[wrong], &Batch::new()).expect_err(wrong.0);
    }
    let long = vec![b'x'; ID_BYTES_MAX + 1];
    transform::<Dedup>(&[], &Batch::new().record(Some(&long[1..]), None, &[])).expect("it is as long as it may be");
    let error = transform::<Dedup>(&[], &Batch::new().record(Some(&long), None, &[])).expect_err("it is longer");
    assert!(error.contains("1001 bytes, and 1000 are allowed"), "{error}");
}

#[test]
fn times_at_both_ends_are_no_trouble() {
    let ends = [i64::MIN, i64::MAX, 0, i64::MIN, i64::MAX, -1];
    for params in [&[][..], &[("window", "18446744073709551615ms")], &[("last", "1")]] {
        let batch = ends.iter().fold(Batch::new(), |batch, time| batch.record(Some(b"k"), None, &[]).at(*time));
        transform::<Dedup>(params, &batch).expect("it runs");
    }
}

/// Against all that went on, ever. Whatever the order of the times: what is dropped has a twin within the window, and one that has a twin
/// which can't be forgotten yet is dropped.
#[test]
fn it_does_what_a_list_of_all_that_went_on_does() {
    let mut seed = 11_u64;
    let mut random = move |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        i64::try_from((seed >> 33) % below).expect("small")
    };
    let (window, mut went_on, mut newest, mut now) = (50, BTreeMap::<String, Vec<i64>>::new(), i64::MIN, 0);
    for round in 0..400 {
        let disorder = if round % 2 == 0 { 1 } else { 120 };
        let records: Vec<_> = (0..=random(20))
            .map(|_| {
                now += random(4);
                (random(30).to_string(), now - random(disorder))
            })
            .collect();
        let batch = records.iter().fold(Batch::new(), |batch, (key, time)| batch.record(Some(key.as_bytes()), None, &[]).at(*time));
        let stored = transform::<Dedup>(&[("window", "50ms")], &batch).expect("it runs");
        for (index, (key, time)) in (0..).zip(records) {
            newest = newest.max(time);
            let twins = went_on.entry(key.clone()).or_default();
            let near = |twin: &&i64| twin.abs_diff(time) < window;
            let is_dropped = !stored.iter().any(|record| record.offset_delta == index);
            assert!(!is_dropped || twins.iter().any(|twin| near(&twin)), "{key} {time} has no twin");
            let is_known = |twin: &&i64| near(twin) && **twin + window.cast_signed() > newest;
            assert!(is_dropped || !twins.iter().any(|twin| is_known(&twin)), "{key} {time} has a twin");
            if !is_dropped {
                twins.push(time);
            }
        }
        assert_eq!(state::entries(b"i").count(), state::entries(b"t").count());
    }
}

//! Records through a transform: what is kept, changed, dropped and multiplied, and what happens to broken bytes.

use millpond_guest::testing::{Batch, Stored, records, transform};
use millpond_guest::{Output, Params, Record, Transform, filter};

/// Does with each record what its value says.
struct Obedient;

impl Transform for Obedient {
    fn new(_params: &Params) -> Result<Obedient, String> {
        Ok(Obedient)
    }

    fn transform(&mut self, record: &Record<'_>, out: &mut Output<'_>) -> Result<(), String> {
        match record.value().unwrap_or_default() {
            b"keep" => out.keep(record),
            b"drop" => {}
            b"change" => out.emit(&record.with_value(b"changed")),
            b"twice" => {
                out.keep(record);
                out.keep(record);
            }
            b"tombstone" => out.emit(&record.change().without_value()),
            b"all new" => {
                let headers = [("a", None), ("b", Some(&b"c"[..]))];
                out.emit(&record.change().with_key(b"key").with_headers(&headers).with_timestamp(record.timestamp() + 5).with_value(b""));
            }
            other => return Err(format!("can't {}", String::from_utf8_lossy(other))),
        }
        Ok(())
    }
}

fn values(stored: &[Stored]) -> Vec<(i32, String)> {
    stored.iter().map(|record| (record.offset_delta, record.value_text())).collect()
}

#[test]
fn kept_changed_and_dropped_records_hold_their_place() {
    // Every mix of three things over six records, so that runs of kept records begin, end and break everywhere.
    let words = ["keep", "drop", "change"];
    for mix in 0..3_usize.pow(6) {
        let chosen: Vec<&str> = (0..6).map(|place| words[mix / 3_usize.pow(place) % 3]).collect();
        let stored = transform::<Obedient>(&[], &Batch::of_values(&chosen)).expect("records");
        let expected: Vec<(i32, String)> = (0..)
            .zip(&chosen)
            .filter(|(_, word)| **word != "drop")
            .map(|(place, word)| (place, if *word == "keep" { "keep" } else { "changed" }.to_owned()))
            .collect();
        assert_eq!(values(&stored), expected, "{chosen:?}");
    }
}

#[test]
fn one_record_may_become_two() {
    let stored = transform::<Obedient>(&[], &Batch::of_values(["keep", "twice", "keep"])).expect("records");
    assert_eq!(stored.iter().map(|record| record.offset_delta).collect::<Vec<_>>(), [0, 1, 1, 2]);
}

#[test]
fn a_change_touches_what_it_names_and_nothing_else() {
    let headers: &[(&str, Option<&[u8]>)] = &[("trace", Some(b"1")), ("flag", None)];
    let batch = Batch::new().record(None, Some(b"drop"), &[]).record(Some(b"k"), Some(b"tombstone"), headers).record(
        Some(b"k"),
        Some(b"all new"),
        headers,
    );
    let before = records(&batch.section()).expect("records");
    let after = transform::<Obedient>(&[], &batch).expect("records");
    assert_eq!(after[0], Stored { value: None, ..before[1].clone() });
    let expected = Stored {
        offset_delta: 2,
        timestamp: before[2].timestamp + 5,
        key: Some(b"key".to_vec()),
        value: Some(Vec::new()),
        headers: vec![("a".to_owned(), None), ("b".to_owned(), Some(b"c".to_vec()))],
    };
    assert_eq!(after[1], expected);
}

#[test]
fn an_error_names_its_record() {
    let error = transform::<Obedient>(&[], &Batch::of_values(["keep", "fly"])).expect_err("an error");
    assert_eq!(error, "record 1: can't fly");
}

#[test]
fn broken_bytes_are_an_error_and_no_panic() {
    let batch = Batch::new().record(Some(b"key"), Some(&[7; 100]), &[("h", Some(b"x"))]);
    let section = batch.section();
    for end in 1..section.len() {
        assert!(records(&section[..end]).is_err(), "cut at {end}");
    }
    for place in 0..section.len() {
        for bit in 0..8 {
            let mut broken = section.clone();
            broken[place] ^= 1 << bit;
            let _either = records(&broken);
        }
    }
}

fn has_key(record: &Record<'_>) -> bool {
    record.key().is_some()
}

filter!(has_key);

#[test]
fn a_filter_is_one_function() {
    let batch = Batch::new().record(Some(b"k"), None, &[]).record(None, None, &[]);
    let stored = transform::<MillpondFilter>(&[], &batch).expect("records");
    assert_eq!(stored.len(), 1);
    assert!(transform::<MillpondFilter>(&[("x", "y")], &batch).is_err());
}

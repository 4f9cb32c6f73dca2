use super::{
    BenchError,
    payload::{LARGE_VALUE_BYTES, SMALL_VALUE_BYTES, Values},
    plan::{Case, Target},
    report::Report,
    samples::{Latencies, Limits, Sample, Samples, Throughput, median},
};
use crate::failure::Failure;
use std::{collections::HashSet, time::Duration};

fn samples() -> Samples {
    let mut samples = Samples {
        quinn_mb_s: vec![390.0, 400.0, 900.0],
        seq_write_mb_s: vec![500.0],
        flushed_write_mb_s: vec![250.0],
        fdatasync_us: vec![(1000.0, 4000.0)],
        quinn_ping_us: vec![(30.0, 90.0), (50.0, 100.0)],
        ..Samples::default()
    };
    let rates = |mb_s, records_s| Sample { mb_s: Some(mb_s), records_s: Some(records_s), ..Sample::default() };
    samples.add(Case::Produce1kOs, rates(300.0, 3e5));
    samples.add(Case::GroupCommit, rates(215.0, 13e3));
    samples.add(Case::Produce100bOs, rates(200.0, 2e6));
    samples.add(Case::Produce100bFilter, rates(150.0, 1.5e6));
    samples.add(Case::AckLatencySync, Sample { p50_us: Some(2080.0), p99_us: Some(5000.0), ..Sample::default() });
    samples
}

#[test]
fn the_json_has_the_promised_form_with_null_where_nothing_applies() {
    let cases = [Case::Produce1kOs, Case::GroupCommit, Case::Produce100bFilter, Case::AckLatencySync, Case::EndToEndOs];
    let json = serde_json::to_value(Report::new(&samples(), &cases)).expect("it is JSON");
    let expected = serde_json::json!({
        "limits": {
            "quinn_mb_s": 400.0, "seq_write_mb_s": 500.0, "flushed_write_mb_s": 250.0, "fdatasync_p50_us": 1000.0, "fdatasync_p99_us": 4000.0,
            "quinn_ping_p50_us": 40.0, "quinn_ping_p99_us": 95.0
        },
        "results": [
            {"name": "produce_1k_os", "mb_s": 300.0, "records_s": 300_000.0, "p50_us": null, "p99_us": null, "limit": 400.0, "ratio": 0.75,
             "target": 0.6, "reached": true},
            {"name": "group_commit", "mb_s": 215.0, "records_s": 13_000.0, "p50_us": null, "p99_us": null, "limit": 250.0, "ratio": 0.86,
             "target": 0.9, "reached": false},
            {"name": "produce_100b_filter", "mb_s": 150.0, "records_s": 1_500_000.0, "p50_us": null, "p99_us": null,
             "limit": 2_000_000.0, "ratio": 0.75, "target": 0.85, "reached": false},
            {"name": "ack_latency_sync", "mb_s": null, "records_s": null, "p50_us": 2080.0, "p99_us": 5000.0,
             "limit": 1040.0, "ratio": 2.0, "target": null, "reached": null},
            {"name": "end_to_end_os", "mb_s": null, "records_s": null, "p50_us": null, "p99_us": null, "limit": 40.0, "ratio": null,
             "target": null, "reached": null}
        ]
    });
    assert_eq!(json, expected);
}

#[test]
fn the_table_names_every_limit_and_says_what_a_ratio_means() {
    let words = Report::new(&samples(), &Case::ALL).words("two cores");
    for expected in ["two cores", "raw quinn", "fdatasync", "0.75 share", "2.00 times", "more is better", "less is better"] {
        let squeezed = words.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(squeezed.contains(expected), "`{expected}` is missing in\n{words}");
    }
    for case in Case::ALL {
        assert!(words.contains(case.name()), "{} is missing in\n{words}", case.name());
    }
}

#[test]
fn every_target_that_is_missed_is_named_with_what_was_reached() {
    let report = |cases: &[Case]| Report::new(&samples(), cases).failure().map(|failure| failure.to_string());
    assert_eq!(report(&[Case::Produce1kOs, Case::AckLatencySync, Case::EndToEndOs]), None, "reached, without a target, and not measured");
    let words = report(&Case::ALL).expect("some are missed");
    assert!(words.starts_with("2 of 3 targets were missed"), "{words}");
    for expected in ["group_commit is 0.86 of its limit, and 0.90 or more is the target", "produce_100b_filter is 0.75 of its limit"] {
        assert!(words.contains(expected), "`{expected}` is missing in {words}");
    }
}

#[test]
fn where_the_disk_is_faster_than_the_network_the_network_sets_the_target_on_disk() {
    let limits = |disk| Limits { quinn_mb_s: Some(600.0), seq_write_mb_s: Some(disk), flushed_write_mb_s: Some(disk), ..Limits::default() };
    assert_eq!(Case::GroupCommit.target(&limits(1200.0)), Some(Target::AtLeast(0.9)), "no network is in it");
    assert_eq!(Case::Produce1kSync.target(&limits(100.0)), Some(Target::AtLeast(0.7)));
    assert_eq!(Case::Produce1kSync.target(&limits(720.0)), Some(Target::AtLeast(0.5)));
    assert!(Target::AtLeast(0.9).is_reached(0.9) && !Target::AtLeast(0.9).is_reached(0.89));
    assert!(Target::AtMost(3.0).is_reached(3.0) && !Target::AtMost(3.0).is_reached(3.01));
}

#[test]
fn one_slow_round_does_not_move_a_median() {
    assert_eq!(median([1.0, 100.0, 2.0].into_iter()), Some(2.0));
    assert_eq!(median([1.0, 3.0].into_iter()), Some(2.0));
    assert_eq!(median([].into_iter()), None);
}

#[test]
fn percentiles_are_by_nearest_rank() {
    let mut latencies = Latencies::default();
    for micros in (1..=200).rev() {
        latencies.add(Duration::from_micros(micros));
    }
    let (p50, p99) = latencies.p50_p99_us();
    assert!((p50 - 100.0).abs() < 1e-6 && (p99 - 198.0).abs() < 1e-6, "{p50} {p99}");
    assert_eq!(Latencies::default().p50_p99_us(), (0.0, 0.0));
}

#[test]
fn megabytes_are_ten_to_the_sixth() {
    let throughput = Throughput { bytes: 3_000_000, records: 30, elapsed: Duration::from_secs(2) };
    assert!((throughput.mb_s() - 1.5).abs() < 1e-9 && (throughput.records_s() - 15.0).abs() < 1e-9);
}

#[test]
fn values_are_distinct_and_of_the_size_they_claim() {
    let large = Values::large();
    let distinct: HashSet<_> = (0..large.count()).map(|index| large.get(index)).collect();
    assert_eq!(distinct.len(), large.count());
    assert!(distinct.iter().all(|value| value.len() == LARGE_VALUE_BYTES));
    assert_eq!(large.get(0), large.get(large.count()), "they come round again");
}

#[test]
fn small_values_are_readings_in_json_a_quarter_of_them_idle() {
    let small = Values::small();
    let mut idle = 0;
    for index in 0..1000 {
        let value = small.get(index);
        assert_eq!(value.len(), SMALL_VALUE_BYTES);
        let reading: serde_json::Value = serde_json::from_slice(&value).expect("it is JSON");
        assert!(reading["device"].is_string() && reading["host"].is_string());
        idle += usize::from(reading["state"] == "idle");
    }
    assert_eq!(idle, 250);
}

#[test]
fn a_measurement_that_fails_is_named_with_the_last_words_of_the_broker() {
    let stuck = BenchError::Stuck { what: "consume_1k", limit: Duration::from_secs(9) };
    let broken = BenchError::Broken { what: "consume_1k".to_owned(), error: Box::new(stuck), log: "\n  no room".to_owned() };
    let words = Failure::from(broken).to_string();
    assert_eq!(words, "consume_1k could not be measured: consume_1k did not end within 9 s: the broker's last words:\n  no room");
}

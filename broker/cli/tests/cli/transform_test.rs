//! `millpond transform test`: what a module makes of records from a file, without a broker.

use crate::{
    guests,
    place::{Place, text},
};
use std::process::Output;

/// Records whose values end in 1 to 4; the second has everything that a record can have.
const FOUR: &str = r#"{"value":"1"}
{"key":"k","value":"2","headers":{"h":["a",null]},"timestamp":5}

{"value":"3"}
{"value":"4"}
"#;

fn prepared() -> Place {
    let place = Place::new();
    place.file("half.wasm", &guests::transform());
    place.file("deal.wasm", &guests::partitioner());
    place.file("four.jsonl", FOUR.as_bytes());
    place
}

fn run(place: &Place, arguments: &[&str]) -> Output {
    place.run(&[&["transform", "test"][..], arguments].concat())
}

/// What is printed on stdout, without sizes and times.
fn fates(place: &Place, arguments: &[&str]) -> String {
    let output = run(place, arguments);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let stdout = text(&output.stdout);
    stdout.lines().filter(|line| line.starts_with(' ')).flat_map(|line| [line, "\n"]).collect()
}

fn fails(place: &Place, arguments: &[&str], code: i32) -> (String, String) {
    let output = run(place, arguments);
    assert_eq!(output.status.code(), Some(code), "{}", text(&output.stderr));
    (text(&output.stdout), text(&output.stderr))
}

#[test]
fn each_record_is_told_by_its_line() {
    let place = prepared();
    let half = ["half.wasm", "--input", "four.jsonl", "--param"];
    let dropped = fates(&place, &[&half[..], &["mode=o"]].concat());
    assert_eq!(dropped, "  line 1: kept\n  line 2: dropped\n  line 4: kept\n  line 5: dropped\n");
    let twice = fates(&place, &[&half[..], &["mode=x"]].concat());
    let of_two = r#"    - {"timestamp":5,"key":"k","value":"2","headers":{"h":["a",null]}}
    + {"timestamp":5,"key":"k","value":"2","headers":{"h":["a",null]}}
    + {"timestamp":5,"key":"k","value":"2","headers":{"h":["a",null]}}
"#;
    assert!(twice.contains(&format!("  line 2: became 2\n{of_two}  line 4: became 2\n")), "{twice}");
    let changed = fates(
        &place,
        &["half.wasm", "--input", "letters.jsonl", "--param", "mode=c"].map(|word| {
            place.file("letters.jsonl", b"{\"value\":\"aB\"}\n");
            word
        }),
    );
    assert!(changed.starts_with("  line 1: changed\n    - ") && changed.contains(r#""value":"ab""#), "{changed}");
    let placed = fates(&place, &["deal.wasm", "--input", "four.jsonl", "--partitions", "3"]);
    assert_eq!(placed, "  line 1: partition 0\n  line 2: partition 1\n  line 4: partition 2\n  line 5: partition 0\n");
}

#[test]
fn time_and_peak_memory_are_told_for_each_batch() {
    let place = prepared();
    let output = run(&place, &["half.wasm", "--input", "four.jsonl", "--batch", "3", "-o", "brief"]);
    let stdout = text(&output.stdout);
    let lines: Vec<_> = stdout.lines().collect();
    assert!(lines[0].starts_with("half.wasm: transform, ") && lines[0].contains("compiled in "), "{stdout}");
    assert!(lines[1].starts_with("batch 1: 3 records, ") && lines[1].ends_with("peak memory 128.0 KiB"), "{stdout}");
    assert!(lines[2].starts_with("batch 2: 1 record, ") && lines[3].starts_with("4 records in: 4 kept; 4 records out, "), "{stdout}");
}

#[test]
fn what_comes_out_is_what_can_be_expected() {
    let place = prepared();
    let arguments = ["half.wasm", "--input", "four.jsonl", "--params", "mode=o", "--batch", "2"];
    let output = run(&place, &[&arguments[..], &["-o", "jsonl"]].concat());
    let came = text(&output.stdout);
    assert_eq!(came.lines().count(), 2, "{came}");
    assert!(came.starts_with(r#"{"topic":"test","partition":0,"offset":0,"timestamp":1767225600000,"key":null,"value":"1","headers":{}}"#));
    place.file("expected.jsonl", came.as_bytes());
    let stdout = text(&run(&place, &[&arguments[..], &["--expect", "expected.jsonl"]].concat()).stdout);
    assert!(stdout.ends_with("\nall as in expected.jsonl\n"), "{stdout}");
    // Without a timestamp any will do.
    place.file("loose.jsonl", b"{\"value\":\"1\"}\n{\"value\":\"3\"}\n");
    assert!(run(&place, &[&arguments[..], &["--expect", "loose.jsonl"]].concat()).status.success());
}

#[test]
fn a_difference_is_shown_and_fails() {
    let place = prepared();
    let arguments = ["half.wasm", "--input", "four.jsonl", "--param", "mode=o", "--expect", "wrong.jsonl"];
    for (wrong, shown) in [
        (&b"{\"value\":\"1\"}\n{\"value\":\"THREE\"}\n"[..], "in place of 1 record (-) there came 1 record (+)"),
        (b"{\"value\":\"1\"}\n", "in place of 0 records (-) there came 1 record (+)"),
        (b"{\"value\":\"1\"}\n{\"value\":\"3\"}\n{\"value\":\"4\"}\n", "in place of 1 record (-) there came 0 records (+)"),
        (b"{\"value\":\"1\"}\n{\"value\":\"3\",\"timestamp\":1}\n", "in place of 1 record (-)"),
        (b"{\"value\":\"1\"}\n{\"value\":\"3\",\"key\":\"\"}\n", "in place of 1 record (-)"),
    ] {
        place.file("wrong.jsonl", wrong);
        let (stdout, stderr) = fails(&place, &arguments, 1);
        assert!(stdout.contains(" as expected, then:\n"), "{stdout}");
        assert!(stderr.contains("what came out is not what wrong.jsonl says") && stderr.contains(shown), "{stderr}");
    }
    place.file("wrong.jsonl", b"{\"value\":\"1\"}\n{\"value\":\"THREE\"}\n");
    let (stdout, _) = fails(&place, &arguments, 1);
    assert!(
        stdout.contains("  - line 2: {") && stdout.contains(r#""value":"THREE""#) && stdout.contains(r#"  + {"timestamp":1767225600003"#)
    );
}

#[test]
fn a_line_that_is_no_record_is_named() {
    let place = prepared();
    for (line, cause) in [
        ("{\"value\":", "it is not JSON"),
        ("[]", "it is not a JSON object"),
        ("{\"vaule\":1}", "a record has no field `vaule`"),
        ("{}", "there is no `value`"),
    ] {
        place.file("bad.jsonl", format!("{{\"value\":1}}\n\n{line}\n").as_bytes());
        let (_, stderr) = fails(&place, &["half.wasm", "--input", "bad.jsonl"], 2);
        assert!(stderr.contains("error: line 3 of bad.jsonl is not a record") && stderr.contains(cause), "{stderr}");
        let (_, stderr) = fails(&place, &["half.wasm", "--input", "four.jsonl", "--expect", "bad.jsonl"], 2);
        assert!(stderr.contains("error: line 3 of bad.jsonl is not a record"), "{stderr}");
    }
    let (_, stderr) = fails(&place, &["half.wasm", "--input", "none.jsonl"], 2);
    assert!(stderr.contains("can't read the records in none.jsonl"), "{stderr}");
}

#[test]
fn a_module_that_fails_says_on_which_lines() {
    let place = prepared();
    place.file("end.jsonl", b"{\"value\":\"fine\"}\n{\"value\":\"trap!\"}\n");
    let (stdout, stderr) = fails(&place, &["half.wasm", "--input", "end.jsonl", "--batch", "1"], 1);
    assert!(stdout.contains("  line 1: kept\n"), "what went before is told: {stdout}");
    assert!(stderr.contains("the module failed on line 2 of end.jsonl") && stderr.contains("unreachable"), "{stderr}");
    place.file("end.jsonl", b"{\"value\":\"for ever~\"}\n");
    let (_, stderr) = fails(&place, &["half.wasm", "--input", "end.jsonl", "--time", "20ms"], 1);
    assert!(stderr.contains("the module ran longer than 20ms"), "{stderr}");
    let (_, stderr) = fails(&place, &["half.wasm", "--input", "four.jsonl", "--param", "mode=g"], 1);
    assert!(stderr.contains("would be refused by a broker"), "{stderr}");
    let (_, stderr) = fails(&place, &["half.wasm", "--input", "four.jsonl", "--param", "mode=r"], 1);
    assert!(stderr.contains("half.wasm can't be started") && stderr.contains("the module refused to start: refused"), "{stderr}");
    place.file("text.wasm", b"(module)");
    let (_, stderr) = fails(&place, &["text.wasm", "--input", "four.jsonl"], 1);
    assert!(stderr.contains("text.wasm can't be used as a module") && stderr.contains("it is WebAssembly text"), "{stderr}");
}

#[test]
fn records_on_which_it_fails_end_the_test_or_are_told_and_left_out() {
    let place = prepared();
    place.file("bad.jsonl", b"{\"value\":\"a\"}\n{\"value\":\"b!\"}\n{\"value\":\"c\"}\n{\"value\":\"d?\"}\n");
    let arguments = ["half.wasm", "--input", "bad.jsonl", "--param", "mode=c", "--batch", "2"];
    let (_, stderr) = fails(&place, &arguments, 1);
    assert!(stderr.contains("the module failed on lines 1 to 2 of bad.jsonl"), "{stderr}");
    let skipping = [&arguments[..], &["--on-error", "skip"]].concat();
    let told = fates(&place, &skipping);
    let whose = |line: &str| told.lines().find(|told| told.starts_with(line)).map(str::to_owned).unwrap_or_default();
    assert!(whose("  line 1: ").ends_with("changed") && whose("  line 3: ").ends_with("changed"), "{told}");
    assert!(whose("  line 2: ").contains("failed: the module trapped: "), "{told}");
    assert!(whose("  line 4: ").contains("failed: the module failed: refused"), "{told}");
    let output = run(&place, &[&skipping[..], &["-o", "jsonl"]].concat());
    let came = text(&output.stdout);
    assert!(came.lines().count() == 2 && came.contains("\"offset\":1,"), "{came}");
    let told = text(&output.stderr);
    assert!(told.contains("4 records in: 2 changed, 2 failed; 2 records out") && told.contains("line 2: failed"), "{told}");
    place.file("good.jsonl", b"{\"value\":\"A\"}\n{\"value\":\"C\"}\n");
    assert!(run(&place, &[&skipping[..], &["--expect", "good.jsonl"]].concat()).status.success());
}

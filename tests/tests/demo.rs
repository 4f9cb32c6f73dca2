//! The demo with files that are not its own: what `make demo INPUT=...` says about each.

use millpond_tests::{Site, millpond, text};
use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

#[test]
fn a_file_that_can_not_be_replayed_is_refused_before_anything_is_started() {
    let site = Site::new();
    let (empty, blank) = (site.folder().join("empty"), site.folder().join("blank"));
    fs::write(&empty, "").expect("the folder is writable");
    fs::write(&blank, "\n \n").expect("the folder is writable");
    for (input, cause) in [
        (site.folder().join("missing"), "No such file or directory"),
        (site.folder().to_owned(), "Is a directory"),
        (empty, "has no records"),
        (blank, "has no records"),
    ] {
        let output = demo(&site, &input);
        let words = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{words}");
        for part in ["error: INPUT=", &input.display().to_string(), cause, "hint: "] {
            assert!(words.contains(part), "`{part}` is not in:\n{words}");
        }
        assert!(!words.contains("listens"), "nothing was started:\n{words}");
    }
}

#[test]
fn a_file_of_two_records_is_counted_right() {
    let site = Site::new();
    let input = site.folder().join("two.jsonl");
    let lines = [r#"{"device":"a","host":"h","state":"busy"}"#, r#"{"device":"b","host":"h","state":"idle"}"#];
    fs::write(&input, lines.join("\n")).expect("the folder is writable");
    let output = demo(&site, &input);
    let table = table(&output);
    let (records, note) = &table["records in"];
    assert!(note.ends_with("live, 2 replayed"), "{note}");
    let stored: u64 = (0..3).map(|partition| table[&format!("stored in partition {partition}")].0).sum();
    assert_eq!(*records, table["dropped"].0 + stored);
    assert_eq!(table["changed"].0, stored, "each reading that is kept had a host name");
    assert!(table["throughput"].1.contains("takes 1,000 records to tell"), "{table:?}");
}

#[test]
fn a_file_that_is_not_json_is_stored_as_it_is_and_that_is_said() {
    let site = Site::new();
    let input = site.folder().join("noise");
    fs::write(&input, b"plain text\n\xff\xfe\x00\n[1]\nnull\n").expect("the folder is writable");
    let output = demo(&site, &input);
    assert!(table(&output)["records in"].1.ends_with("live, 4 replayed"));
    assert!(text(&output.stderr).contains("(2 lines are not JSON, and are stored as they are)"), "{}", text(&output.stderr));
}

/// Runs the demo with a second of live telemetry; what it leaves goes into the site's folder.
fn demo(site: &Site, input: &Path) -> Output {
    let script: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("demo/demo.py");
    Command::new("python3")
        .arg(script)
        .env("MILLPOND", millpond().get_program())
        .env("INPUT", input)
        .env("LIVE_SECONDS", "1")
        // They are built behind these tests; `make unit` runs the whole demo then.
        .env("PACKAGES", "none")
        .env("TMPDIR", site.folder())
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .expect("python3 is installed: tests/setup.sh sees to it")
}

/// The rows of the table by their labels: the number, 0 where it is none, and the note behind it.
fn table(output: &Output) -> HashMap<String, (u64, String)> {
    assert!(output.status.success(), "{}", text(&output.stderr));
    let said = text(&output.stdout);
    let rows = said.lines().take_while(|line| !line.starts_with("Try next")).filter(|line| line.starts_with("  "));
    let columns = |line: &str| line.split("  ").map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect::<Vec<_>>();
    rows.map(columns)
        .map(|columns| match &columns[..] {
            [label, number, note] => (label.clone(), (number.replace(',', "").parse().unwrap_or(0), note.clone())),
            other => panic!("a row of the table: {other:?}"),
        })
        .collect()
}

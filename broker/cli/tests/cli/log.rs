//! `millpond log`: on what a broker has written, and on what was done to it.

use crate::{
    place::{Broker, Place, lines, text},
    snapshot,
};
use serde_json::Value;
use std::{fs, path::PathBuf, process::Output};

const PARTITION: &str = "data/topics/readings/0";

/// A broker with twelve batches of one record each.
fn stored(place: &Place) -> Broker {
    let broker = place.serve();
    broker.ok(place, &["topic", "create", "readings", "--segment-bytes", "64KiB"], b"");
    for number in 0..12 {
        broker.ok(place, &["produce", "readings", "-i", "jsonl"], record_line(number).as_bytes());
    }
    broker
}

fn record_line(number: i64) -> String {
    let timestamp = 1_767_225_600_000 + number * 1_000;
    format!("{{\"key\":\"k{number}\",\"value\":\"value \\u001b {number}\",\"headers\":{{\"unit\":\"C\"}},\"timestamp\":{timestamp}}}\n")
}

fn segment(place: &Place) -> PathBuf {
    place.path(PARTITION).join("00000000000000000000.log")
}

fn damage(place: &Place, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(segment(place)).expect("a segment");
    change(&mut bytes);
    fs::write(segment(place), bytes).expect("is written");
}

fn run(place: &Place, arguments: &[&str]) -> Output {
    place.run(arguments)
}

fn ok(place: &Place, arguments: &[&str]) -> String {
    let output = run(place, arguments);
    assert!(output.status.success(), "{arguments:?}: {}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

fn fails(place: &Place, arguments: &[&str]) -> (String, String) {
    let output = run(place, arguments);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {}{}", text(&output.stdout), text(&output.stderr));
    (text(&output.stdout), text(&output.stderr))
}

/// As it is printed, without what differs from one run to the next.
fn shown(place: &Place, arguments: &[&str]) -> String {
    let folder = fs::canonicalize(place.path(".")).expect("it is there").display().to_string();
    masked(&snapshot::of(arguments, &run(place, arguments)).replace(&folder, "FOLDER")) + "\n"
}

fn json_lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"))).collect()
}

const CRC: &str = "\"crc\":\"";

/// Without the producer ids, which are others each time, and the checksums, which cover them.
fn masked(text: &str) -> String {
    let mut masked = String::new();
    let mut rest = text;
    while let Some(start) = rest.find(|character: char| character.is_ascii_digit()) {
        let digits = rest[start..].find(|character: char| !character.is_ascii_digit()).unwrap_or(rest.len() - start);
        let (before, number) = (&rest[..start], &rest[start..start + digits]);
        // Times have fewer digits; the names of files more, and zeros in front.
        let is_id = (14..20).contains(&digits) && !number.starts_with('0');
        masked.push_str(before);
        masked.push_str(if is_id { "PRODUCER-ID" } else { number });
        rest = &rest[start + digits..];
    }
    masked.push_str(rest);
    let mut parts = masked.split(CRC);
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| text + CRC + "CHECKSUM" + part.trim_start_matches(|character: char| character.is_ascii_hexdigit()))
}

#[test]
fn what_a_broker_has_written_is_dumped_and_verified() {
    let place = Place::new();
    assert!(stored(&place).stop().0.success());
    let file = format!("{PARTITION}/00000000000000000000.log");
    let index = format!("{PARTITION}/00000000000000000000.timeindex");
    let mut all = String::new();
    for arguments in [
        &["log", "dump", PARTITION][..],
        &["log", "dump", &file, "--offsets", "5..9", "--records"],
        &["log", "dump", PARTITION, "--offsets", "4..8", "-o", "json"],
        &["log", "dump", PARTITION, "--offsets", "11", "--records", "-o", "jsonl"],
        &["log", "dump", &index],
        &["log", "dump", &index, "-o", "jsonl"],
        &["log", "verify", "data"],
        &["log", "verify", "data", "-o", "jsonl"],
        &["log", "repair", "data", "--drop-batch"],
    ] {
        all.push_str(&shown(&place, arguments));
    }
    snapshot::check("log", &all);
}

#[test]
fn a_dump_of_records_is_what_a_consumer_gets_and_a_producer_takes() {
    let place = Place::new();
    let broker = stored(&place);
    let consumed = broker.ok(&place, &["consume", "readings", "--from-beginning", "--until-end", "-o", "jsonl"], b"");
    // Beside the broker.
    let output = run(&place, &["log", "dump", "data/topics/readings", "--records", "-o", "jsonl"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), consumed);
    if cfg!(target_os = "linux") {
        assert!(text(&output.stderr).contains("A broker is using this data folder"), "{}", text(&output.stderr));
    }
    broker.ok(&place, &["topic", "create", "rescued"], b"");
    broker.ok(&place, &["produce", "rescued", "-i", "jsonl"], consumed.as_bytes());
    let rescued = broker.ok(&place, &["consume", "rescued", "--from-beginning", "--until-end", "-o", "jsonl"], b"");
    assert_eq!(rescued, consumed.replace("\"readings\"", "\"rescued\""));
    assert_eq!(json_lines(&ok(&place, &["log", "verify", "data", "-o", "jsonl"])).len(), 2, "two partitions and no fault");
}

#[test]
fn damage_in_the_middle_is_met_shown_and_repaired() {
    for (mode, left) in [("--drop-batch", vec![0, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]), ("--truncate", vec![0])] {
        let place = Place::new();
        let mut broker = stored(&place);
        // Into a second segment, so that the first one is not the broker's to cut.
        broker.ok(&place, &["produce", "readings", "-c", "none"], lines((0..900).map(|number| format!("{number:0100}"))).as_bytes());
        assert!(broker.stop().0.success());
        let bytes = fs::read(segment(&place)).expect("a segment");
        let one = usize::try_from(u32::from_be_bytes(bytes[8..12].try_into().expect("four"))).expect("small") + 12;
        damage(&place, |bytes| bytes[one + 80] ^= 1);

        broker = place.serve();
        let refused = broker.fails(&place, &["consume", "readings", "--from-beginning", "--until-end"], b"");
        for words in ["readings", "partition 0", "offset 1", "00000000000000000000.log", "millpond log verify", "millpond log repair"] {
            assert!(refused.contains(words), "`{words}` is not in:\n{refused}");
        }
        // As the hint says, word for word.
        let hinted = "consume readings --partition 0 --from offset:2";
        assert!(refused.contains(&format!("records from offset 2 on can be read, `millpond {hinted}`")), "{refused}");
        let arguments: Vec<_> = hinted.split(' ').chain(["--max", "1", "-o", "jsonl"]).collect();
        assert_eq!(json_lines(&broker.ok(&place, &arguments, b""))[0]["offset"], 2);
        let described = broker.ok(&place, &["topic", "describe", "readings"], b"");
        assert!(described.contains("  damaged: 1 range\n") && described.contains("1 damaged range is known, at offset 1:"), "{described}");
        let (faults, _) = fails(&place, &["log", "verify", "data"]);
        assert!(faults.contains("00000000000000000000.log, byte") && faults.contains(", offset 1\n"), "{faults}");
        let (_, refused) = fails(&place, &["log", "repair", "data", mode, "--yes"]);
        assert!(refused.contains("in use by another broker") && refused.contains("hint: stop the broker first"), "{refused}");
        assert!(broker.stop().0.success());

        let (plan, refused) = fails(&place, &["log", "repair", PARTITION, mode]);
        assert!(
            plan.contains(if mode == "--truncate" { "offsets 1 to " } else { "offset 1 is lost" })
                && plan.contains(".removed-1")
                && refused.contains("nothing was changed"),
            "{plan}{refused}"
        );
        let (_, dumped) = fails(&place, &["log", "dump", PARTITION, "--offsets", "0..12"]);
        assert!(dumped.contains("1 damaged place met"), "{dumped}");
        let done = ok(&place, &["log", "repair", PARTITION, mode, "--yes"]);
        assert!(done.ends_with("no faults\n"), "{done}");
        ok(&place, &["log", "verify", "data"]);
        assert_eq!(ok(&place, &["log", "repair", "data", mode]), "nothing to repair\n");
        // What was removed can still be looked at.
        let names = fs::read_dir(place.path(PARTITION)).expect("a folder").flatten().map(|entry| entry.file_name());
        let kept = names.filter_map(|name| name.into_string().ok()).find(|name| name.starts_with("00000000000000000000.log."));
        let kept = format!("{PARTITION}/{}", kept.expect("it is kept"));
        let (dumped, refused) = fails(&place, &["log", "dump", &kept, "-o", "jsonl"]);
        assert!(refused.contains("1 damaged place met"), "{refused}");
        let offsets: Vec<_> = json_lines(&dumped).iter().filter_map(|row| row["base_offset"].as_i64()).take(2).collect();
        assert_eq!(offsets, if mode == "--truncate" { vec![2, 3] } else { Vec::new() }, "{dumped}");
        assert_eq!(run(&place, &["log", "verify", &kept]).status.code(), Some(2));

        let broker = place.serve();
        let read = broker.ok(&place, &["consume", "readings", "--from-beginning", "--until-end", "-o", "jsonl"], b"");
        let offsets: Vec<_> =
            json_lines(&read).iter().filter_map(|record| record["offset"].as_i64()).filter(|offset| *offset < 12).collect();
        assert_eq!(offsets, left, "{mode}");
        // From the gap itself, too.
        let next = broker.ok(&place, &["consume", "readings", "--from", "offset:1", "--max", "1", "--until-end", "-o", "jsonl"], b"");
        let next: Vec<_> = json_lines(&next).iter().filter_map(|record| record["offset"].as_i64()).collect();
        assert_eq!(next, left.iter().copied().find(|offset| *offset > 1).into_iter().collect::<Vec<_>>());
        let placed = broker.ok(&place, &["produce", "readings", "-o", "jsonl"], b"more\n");
        assert!(placed.contains(if mode == "--truncate" { "\"offset\":1}" } else { "\"offset\":912}" }), "{placed}");
    }
}

#[test]
fn a_path_that_is_no_log_is_bad_usage() {
    let place = Place::new();
    place.file("notes.txt", b"words");
    assert!(stored(&place).stop().0.success());
    let file = format!("{PARTITION}/00000000000000000000.log");
    for arguments in [
        &["log", "dump", "nowhere"][..],
        &["log", "dump", "notes.txt"],
        &["log", "verify", "."],
        &["log", "dump", PARTITION, "--offsets", "9..5"],
        &["log", "repair", PARTITION],
        &["log", "repair", PARTITION, "--drop-batch", "--truncate"],
        &["log", "repair", &file, "--truncate"],
        &["log"],
    ] {
        let output = run(&place, arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", text(&output.stderr));
    }
    let without_mode = text(&run(&place, &["log", "repair", PARTITION]).stderr);
    for words in ["has to be told what it may lose", "hint: `--drop-batch` loses the records", "`--truncate` loses all records from"] {
        assert!(without_mode.contains(words), "`{words}` is not in:\n{without_mode}");
    }
    // A copy is somebody's own, once that is said.
    let copy = place.path("copy");
    fs::create_dir(&copy).expect("creates");
    for entry in fs::read_dir(place.path(PARTITION)).expect("a folder").flatten() {
        fs::copy(entry.path(), copy.join(entry.file_name())).expect("copies");
    }
    assert_eq!(run(&place, &["log", "repair", "copy", "--truncate"]).status.code(), Some(2));
    assert_eq!(ok(&place, &["log", "repair", "copy", "--truncate", "--copy"]), "nothing to repair\n");
    ok(&place, &["log", "verify", "copy"]);
}

#[test]
fn a_reader_that_has_enough_ends_a_dump_quietly() {
    use std::io::{BufRead, BufReader, Read};
    let place = Place::new();
    let broker = place.serve();
    broker.ok(&place, &["topic", "create", "readings"], b"");
    broker.ok(&place, &["produce", "readings"], lines(0..200_000).as_bytes());
    drop(broker);
    let mut command = place.millpond();
    command.args(["log", "dump", "data", "--records"]).stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let mut dumping = command.spawn().expect("the binary runs");
    let mut out = BufReader::new(dumping.stdout.take().expect("piped"));
    out.read_line(&mut String::new()).expect("a line");
    drop(out);
    let mut words = String::new();
    dumping.stderr.take().expect("piped").read_to_string(&mut words).expect("it ends");
    assert!(dumping.wait().expect("it ends").success() && words.is_empty(), "{words}");
}

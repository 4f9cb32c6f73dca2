//! The guests of `plugins/`, which `plugins/build.sh` builds, in the real host.

use std::path::Path;
use std::sync::Arc;

use millpond_plugin::{Derive, Limits, Partitioner, PluginError, PluginHost, SourceBatch, StateDraft, Target, Transform, World};

use crate::support::{batch, host};

pub(crate) fn load(host: &PluginHost, name: &str) -> millpond_plugin::Module {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../plugins/dist").join(name).with_extension("wasm");
    let wasm = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}; plugins/build.sh makes it", path.display()));
    host.load(&wasm).unwrap_or_else(|error| panic!("{name}: {error}"))
}

pub(crate) fn params(params: &[(&str, &str)]) -> Vec<(String, String)> {
    params.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// Records with a value and nothing else. Lengths stay below 8192, so a length has two bytes at most.
pub(crate) fn section(values: &[&str]) -> Vec<u8> {
    let mut section = Vec::new();
    for (offset, value) in (0_i64..).zip(values) {
        let mut body = vec![0, 0];
        put(&mut body, offset);
        put(&mut body, -1);
        put(&mut body, i64::try_from(value.len()).expect("short"));
        body.extend_from_slice(value.as_bytes());
        body.push(0);
        put(&mut section, i64::try_from(body.len()).expect("short"));
        section.extend_from_slice(&body);
    }
    section
}

fn put(out: &mut Vec<u8>, value: i64) {
    let mut folded = (value << 1) ^ (value >> 63);
    while folded > 0x7f {
        out.push(u8::try_from(folded & 0x7f).expect("seven bits") | 0x80);
        folded >>= 7;
    }
    out.push(u8::try_from(folded).expect("seven bits"));
}

#[test]
fn identity_returns_every_byte() {
    let host = host();
    let transform = Transform::new(&host, &load(&host, "identity"), Limits::default(), &[]).expect("it starts");
    let records = section(&["a", "", &"long ".repeat(1000)]);
    assert_eq!(transform.run(&batch(3), &records), Ok(records));
    assert_eq!(transform.run(&batch(0), b""), Ok(vec![]));
}

#[test]
fn drop_idle_drops_and_masks() {
    let host = host();
    let transform = Transform::new(&host, &load(&host, "drop-idle"), Limits::default(), &[]).expect("it starts");
    let busy = r#"{"device":"b","host":"gw","state":"busy"}"#;
    let masked = r#"{"device":"b","host":"***","state":"busy"}"#;
    let output = transform.run(&batch(2), &section(&[r#"{"device":"a","host":"gw","state":"idle"}"#, busy])).expect("it runs");
    // What the second record of two is when it is the only one left.
    let both = section(&["", masked]);
    assert_eq!(output, both[section(&[""]).len()..]);

    let error = Transform::new(&host, &load(&host, "drop-idle"), Limits::default(), &params(&[("feild", "x")])).expect_err("misspelt");
    assert_eq!(error, PluginError::Init("there is no setting `feild`; there are: field, value, mask".to_owned()));
}

#[test]
fn drop_idle_finds_its_fields_wherever_they_lie_among_the_blocks_that_are_looked_at() {
    // The guest looks at 64 bytes in one go, with instructions that a native test of its SDK does not have.
    let host = host();
    let transform = Transform::new(&host, &load(&host, "drop-idle"), Limits::default(), &[]).expect("it starts");
    for length in 0..150 {
        let filler = "x".repeat(length);
        for piece in ["", "\u{e4}", "\\\"", "\\u00e4", "\\\\"] {
            let with =
                |host: &str, state: &str| format!(r#"{{"a":"{filler}{piece}","host":{host},"n":[{{"host":"x"}}],"state":"{state}"}}"#);
            let host = format!("\"{piece}{filler}\"");
            let output = transform.run(&batch(2), &section(&[&with(&host, "busy"), &with(&host, "idle")])).expect("it runs");
            assert_eq!(output, section(&[&with("\"***\"", "busy")]), "{length} {piece}");
        }
        for broken in [format!("{{\"state\":\"idle\",\"a\":\"{filler}\n\"}}"), format!("{{\"host\":\"{filler}\",\"state\":\"idle\"")] {
            let kept = section(&[&broken]);
            assert_eq!(transform.run(&batch(1), &kept), Ok(kept), "{broken}");
        }
    }
}

#[test]
fn by_device_places_devices() {
    let host = host();
    let module = load(&host, "by-device");
    assert_eq!(module.world(), World::Partitioner);
    let partitioner = Partitioner::new(&host, &module, Limits::default(), &[]).expect("it starts");
    let records = section(&[r#"{"device":"21"}"#, r#"{"device":"foobar"}"#, r#"{"device":"21"}"#, "nothing"]);
    // Kafka's murmur2 of the names, without the sign, modulo 1000.
    assert_eq!(partitioner.run(&batch(4), &records, 1000), Ok(vec![340, 166, 340, 0]));
}

#[test]
fn changes_and_count_remember_from_batch_to_batch() {
    let host = host();
    let (changes, count) = (load(&host, "changes"), load(&host, "count"));
    for module in [&changes, &count] {
        assert_eq!((module.world(), module.has_state()), (World::Transform, true));
    }
    let changes = Transform::new(&host, &changes, Limits::default(), &params(&[("deadband", "0.5")])).expect("it starts");
    let mut state = StateDraft::new(Arc::default(), 1 << 16);
    let mut run = |values: &[&str]| {
        let info = batch(u32::try_from(values.len()).expect("few"));
        changes.run_with(&info, &section(values), Limits::default().time, Some(&mut state)).expect("it runs")
    };
    let (low, same, high) = (r#"{"value":20}"#, r#"{"value":20.4}"#, r#"{"value":20.6}"#);
    assert_eq!(run(&[low, same]), section(&[low]));
    assert_eq!(run(&[same]), b"");
    assert_eq!(run(&[high, low]), section(&[high, low]));

    let count = Transform::new(&host, &count, Limits::default(), &[]).expect("it starts");
    let mut state = StateDraft::new(Arc::default(), 1 << 16);
    for number in ["1", "2", "3"] {
        let output = count.run_with(&batch(1), &section(&["x"]), Limits::default().time, Some(&mut state)).expect("it runs");
        assert!(output.ends_with(number.as_bytes()), "{output:?}");
    }
    let error = count.run(&batch(1), &section(&["x"])).expect_err("nothing was lent");
    assert!(error.to_string().contains("while a batch is processed"), "{error}");
}

#[test]
fn route_writes_to_the_topics_that_it_was_given() {
    let host = host();
    let module = load(&host, "route");
    assert_eq!((module.world(), module.has_state()), (World::Derive, false), "what it does not call is not imported");
    let targets = ["alarms", "rest"].map(|name| Target { name: name.to_owned(), partition_count: 1 });
    let settings = params(&[("to.alarm", "alarms"), ("otherwise", "rest")]);
    let derive = Derive::new(&host, &module, Limits::default(), &settings, &targets).expect("it starts");
    let (alarm, reading) = (r#"{"type":"alarm"}"#, r#"{"type":"reading"}"#);
    let source = SourceBatch { info: batch(3), base_offset: 7 };
    let output = derive.run(&source, &section(&[alarm, reading, alarm]), Limits::default().time, None).expect("it runs");
    let whole = section(&[alarm, reading, alarm]);
    let (first, rest) = whole.split_at(section(&[alarm]).len());
    let (second, third) = rest.split_at(rest.len() - first.len());
    assert_eq!(output, [(0, [first, third].concat()), (1, second.to_vec())]);
    let error = Derive::new(&host, &module, Limits::default(), &settings, &targets[..1]).expect_err("a topic is missing");
    assert!(matches!(&error, PluginError::Init(message) if message.contains("`rest`")), "{error}");
}

#[test]
fn the_hostile_guest_gets_the_errors_that_it_deserves() {
    let host = host();
    let module = load(&host, "hostile");
    let limits = Limits::default();
    let good = section(&["good", "batch"]);
    let poison = section(&["good", "poison"]);
    for mode in ["loop", "recurse", "grow", "trap", "huge-output", "fail", "garbage", "flood", "none"] {
        let transform = Transform::new(&host, &module, limits.clone(), &params(&[("mode", mode), ("only", "poison")])).expect("it starts");
        let result = transform.run(&batch(2), &poison);
        let expected = match (mode, &result) {
            ("loop", Err(PluginError::TimedOut { limit, .. })) => *limit == limits.time,
            ("recurse", Err(PluginError::Trapped { reason, backtrace })) => reason.contains("stack") && backtrace.contains("deeper"),
            ("trap", Err(PluginError::Trapped { reason, backtrace })) => {
                reason.contains("told to panic") && reason.contains("hostile/src/lib.rs") && backtrace.contains("transform")
            }
            ("grow", Err(PluginError::OutOfMemory { limit_bytes, .. })) => *limit_bytes == limits.memory_bytes,
            ("huge-output", Err(PluginError::OutputTooLarge { limit_bytes })) => *limit_bytes == limits.output_bytes,
            ("fail", Err(PluginError::Guest { message, record_index })) => message == "told to fail" && *record_index == Some(1),
            ("garbage", Ok(output)) => output == &vec![0xee; 1000],
            ("flood" | "none", Ok(output)) => *output == poison,
            _ => false,
        };
        assert!(expected, "{mode}: {result:?}");
        assert_eq!(transform.run(&batch(2), &good), Ok(good.clone()), "after {mode}");
    }
    let refused = Transform::new(&host, &module, limits, &params(&[("mode", "refuse")])).expect_err("refused");
    assert_eq!(refused, PluginError::Init("told to refuse".to_owned()));
}

//! The samples of `plugins/`, as they are built for WebAssembly, in the real host. What each of them does in full is tested beside its code.

use std::collections::BTreeMap;
use std::sync::Arc;

use millpond_plugin::{BatchInfo, KeyValues, Limits, Module, Partitioner, PluginError, PluginHost, StateDraft, Transform, World};
use millpond_protocol::batch::{Batch, BatchBuilder};
use millpond_protocol::compression::Codec;
use millpond_protocol::record::{self, NewRecord};

use crate::guests::{load, params, section};
use crate::support::{batch, host};

fn start(host: &PluginHost, name: &str, settings: &[(&str, &str)]) -> Result<Transform, PluginError> {
    Transform::new(host, &load(host, name), Limits::default(), &params(settings))
}

/// The values that come out, each with its offset delta; all of it is checked to be records.
fn run(transform: &Transform, values: &[&str]) -> Result<Vec<(i32, String)>, PluginError> {
    let output = transform.run(&batch(u32::try_from(values.len()).expect("few")), &section(values))?;
    let record = |record: Result<record::RecordRef<'_>, _>| {
        let record = record.expect("a record");
        (record.offset_delta, String::from_utf8(record.value.expect("a value").to_vec()).expect("text"))
    };
    Ok(record::iterate(&output).map(record).collect())
}

fn pairs(expected: &[(i32, &str)]) -> Vec<(i32, String)> {
    expected.iter().map(|(offset, value)| (*offset, (*value).to_owned())).collect()
}

/// What a sample makes of some records, what it says of a bad one, and of a bad setting.
struct Sample {
    name: &'static str,
    settings: &'static [(&'static str, &'static str)],
    values: &'static [&'static str],
    expected: &'static [(i32, &'static str)],
    bad_value: &'static str,
    failure: &'static str,
    bad_setting: (&'static str, &'static str),
    refusal: &'static str,
}

const SAMPLES: [Sample; 4] = [
    Sample {
        name: "filter-json",
        settings: &[("where", r#"temperature > 30 and site = "north" and not tags[*] = "test""#)],
        values: &[
            r#"{"temperature":31.5,"site":"north"}"#,
            r#"{"temperature":29,"site":"north"}"#,
            r#"{"temperature":4e1,"site":"nor\u0074h","tags":["a"]}"#,
            r#"{"temperature":40,"site":"north","tags":["a","test"]}"#,
        ],
        expected: &[(0, r#"{"temperature":31.5,"site":"north"}"#), (2, r#"{"temperature":4e1,"site":"nor\u0074h","tags":["a"]}"#)],
        bad_value: "temperature",
        failure: "the value is not a JSON object",
        bad_setting: ("where", "temperature >"),
        refusal: "is missing at the end",
    },
    Sample {
        name: "mask",
        settings: &[("fields", "name, cars[*].plate"), ("how", "hash"), ("salt", "0123456789abcdef")],
        values: &[r#"{"name":"Anna","cars":[{"plate":17}]}"#, r#"{"n":1}"#],
        expected: &[
            (
                0,
                r#"{"name":"851d0a04c935f6bc5acdd824339733ae6f288efa2a5145347349317b55471816","cars":[{"plate":"9ab8a6f4a4b05f76aac6a8c8c7c66d9a03e6bc9eb2ef7c8d073d8be90e431743"}]}"#,
            ),
            (1, r#"{"n":1}"#),
        ],
        bad_value: "Anna",
        failure: "the value is not a JSON object, so what is personal in it can't be told",
        bad_setting: ("salt", "short"),
        refusal: "a hash needs 16 at least",
    },
    Sample {
        name: "convert-units",
        settings: &[("field", "t, tank.in"), ("from", "F"), ("to", "C"), ("decimals", "1")],
        values: &[r#"{"t":212,"tank":{"in":0}}"#, r#"{"t":null}"#],
        expected: &[(0, r#"{"t":100,"tank":{"in":-17.8}}"#), (1, r#"{"t":null}"#)],
        bad_value: r#"{"t":"hot"}"#,
        failure: "`t` is no number: \"hot\"",
        bad_setting: ("to", "bar"),
        refusal: "`F` is a temperature and `bar` a pressure",
    },
    Sample {
        name: "csv-to-json",
        settings: &[("header", "device,zip,ok"), ("types", "zip:string")],
        values: &["pump-3,24103,true", "\"a \"\"b\"\"\",1,\nc,,0"],
        // One record became two, so the offset deltas do not rise; the broker numbers them anew.
        expected: &[
            (0, r#"{"device":"pump-3","zip":"24103","ok":true}"#),
            (1, r#"{"device":"a \"b\"","zip":"1","ok":null}"#),
            (1, r#"{"device":"c","zip":null,"ok":0}"#),
        ],
        bad_value: "pump-3,24103",
        failure: "line 1: it has 2 fields, and there are 3 columns",
        bad_setting: ("types", "zap:string"),
        refusal: "there is no such column; there are: device, zip, ok",
    },
];

#[test]
fn each_sample_does_what_its_readme_says_and_says_which_record_is_bad() {
    let host = host();
    for Sample { name, settings, values, expected, bad_value, failure, bad_setting, refusal } in SAMPLES {
        let transform = start(&host, name, settings).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(transform.module().world(), World::Transform);
        assert_eq!(run(&transform, values), Ok(pairs(expected)), "{name}");

        let failed = run(&transform, &[values[0], bad_value]).expect_err(name);
        assert_eq!(failed, PluginError::Guest { message: failure.to_owned(), record_index: Some(1) }, "{name}");
        assert_eq!(run(&transform, values), Ok(pairs(expected)), "{name} goes on after a bad record");

        let mut wrong = settings.to_vec();
        wrong.push(bad_setting);
        let refused = start(&host, name, &wrong).expect_err(name);
        assert!(matches!(&refused, PluginError::Init(message) if message.contains(refusal)), "{name}: {refused}");
    }
}

#[test]
fn by_geohash_places_what_is_near_together() {
    let host = host();
    let module = load(&host, "by-geohash");
    assert_eq!(module.world(), World::Partitioner);
    let partitioner = Partitioner::new(&host, &module, Limits::default(), &params(&[("precision", "4")])).expect("it starts");
    let records =
        section(&[r#"{"lat":57.64911,"lon":10.40744}"#, r#"{"lat":57.65,"lon":10.41}"#, r#"{"lat":48.8583,"lon":2.2945}"#, "text"]);
    let places = partitioner.run(&batch(4), &records, 1000).expect("it runs");
    let of = |geohash: &str| millpond_protocol::partitioner::for_key(geohash.as_bytes(), 1000);
    assert_eq!(places, [of("u4pr"), of("u4pr"), of("u09t"), 0]);
    let error = Partitioner::new(&host, &module, Limits::default(), &params(&[("precision", "13")])).expect_err("too many");
    assert!(matches!(&error, PluginError::Init(message) if message.contains("1 to 12 characters")), "{error}");
}

#[test]
fn no_sample_is_upset_by_bytes_that_no_producer_should_send() {
    let host = host();
    let settings: [(&str, &[(&str, &str)]); 4] = [
        ("filter-json", &[("where", "a[*].b exists or a contains 'x'")]),
        ("mask", &[("fields", "a[*].b, a.b, c.*")]),
        ("convert-units", &[("field", "a, a[*].b"), ("from", "m"), ("to", "ft")]),
        ("csv-to-json", &[]),
    ];
    let seed = r#"{"a":[{"b":"x\"\\,"},{"b":-1.5e300}],"c":{"d":[null,{}]},"a":1e999}"#;
    for (name, settings) in settings {
        let transform = start(&host, name, settings).unwrap_or_else(|error| panic!("{name}: {error}"));
        for cut in 0..seed.len() {
            for piece in ["", "\"", "\n", "\\", "{", "]", ",", "\u{0}", "\u{1f600}"] {
                let value = format!("{}{piece}{}", &seed[..cut], &seed[cut + 1..]);
                match run(&transform, &[&value]) {
                    Ok(_) | Err(PluginError::Guest { .. }) => {}
                    Err(other) => panic!("{name}: {value}: {other}"),
                }
            }
        }
        let deep = format!("{{\"a\":{}1{}}}", "[".repeat(2000), "]".repeat(2000));
        assert!(matches!(run(&transform, &[&deep]), Ok(_) | Err(PluginError::Guest { .. })), "{name}");
    }
}

/// A record of a sample with state: key, time, value.
type Timed = (Option<String>, i64, String);

/// A sample with state, as a derived topic has it: what a failed batch has changed is taken back, and now and then another instance takes over.
struct Derived {
    host: PluginHost,
    module: Module,
    settings: Vec<(String, String)>,
    transform: Transform,
    state: Arc<KeyValues>,
    draft: StateDraft,
}

impl Derived {
    const STATE_BYTES: u64 = 16 << 20;

    fn start(name: &str, settings: &[(&str, &str)]) -> Derived {
        let (host, settings) = (host(), params(settings));
        let module = load(&host, name);
        assert_eq!((module.world(), module.has_state()), (World::Transform, true));
        let transform = Transform::new(&host, &module, Limits::default(), &settings).expect("it starts");
        let (state, draft) = (Arc::default(), StateDraft::new(Arc::default(), Derived::STATE_BYTES));
        Derived { host, module, settings, transform, state, draft }
    }

    /// Another instance, and the state is what was committed.
    fn restart(&mut self) {
        let changes = std::mem::take(&mut self.draft).into_changes();
        let state = Arc::make_mut(&mut self.state);
        for change in changes {
            state.apply(change);
        }
        self.draft = StateDraft::new(Arc::clone(&self.state), Derived::STATE_BYTES);
        self.transform = Transform::new(&self.host, &self.module, Limits::default(), &self.settings).expect("it starts");
    }

    fn run(&mut self, records: &[Timed]) -> Result<Vec<Timed>, PluginError> {
        let mut builder = BatchBuilder::new();
        for (key, timestamp, value) in records {
            let (key, value) = (key.as_deref().map(str::as_bytes), Some(value.as_bytes()));
            builder.push(&NewRecord { timestamp: *timestamp, key, value, headers: &[] }).expect("it fits");
        }
        let batch = Batch::parse(builder.finish(Codec::None).expect("a batch")).expect("a batch");
        let (base_timestamp, record_count) = (batch.header().base_timestamp, u32::try_from(records.len()).expect("few"));
        let info = BatchInfo { topic: "readings", partition: Some(0), base_timestamp, record_count };
        let section = batch.records_section(1 << 26).expect("records");
        let mark = self.draft.mark();
        let ran = self.transform.run_with(&info, &section, Limits::default().time, Some(&mut self.draft));
        let output = ran.inspect_err(|_| self.draft.undo_to(mark))?;
        self.draft.keep();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
        let timed = |record: Result<record::RecordRef<'_>, _>| {
            let record = record.expect("a record");
            (record.key.map(text), base_timestamp + record.timestamp_delta, text(record.value.expect("a value")))
        };
        Ok(record::iterate(&output).map(timed).collect())
    }

    /// As a broker does where failures are skipped: a batch fails for its last record, and is run again without it.
    fn run_poisoned(&mut self, records: &[Timed]) -> Vec<Timed> {
        let newest = records.iter().map(|(_, time, _)| *time).max().expect("there are some");
        let poison = (Some("k".repeat(1001)), newest, r#"{"value":1}"#.to_owned());
        let error = self.run(&[records, &[poison]].concat()).expect_err("its key is too long");
        assert!(matches!(&error, PluginError::Guest { record_index: Some(_), .. }), "{error}");
        self.run(records).expect("it runs")
    }
}

/// Numbers below a bound, the same ones each time.
fn random(mut seed: u64) -> impl FnMut(u32) -> u32 {
    move |below| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u32::try_from((seed >> 33) % u64::from(below)).expect("below")
    }
}

/// Whatever the order of the times: what is dropped has a twin within the window, and one that has a twin which can't be forgotten yet is dropped.
/// In the end nothing is remembered that is past its window.
fn dedup_against_all_that_went_on(count_max: Option<u64>) {
    let last = count_max.map(|count| count.to_string());
    let settings: Vec<_> = [("window", "50ms")].into_iter().chain(last.as_deref().map(|last| ("last", last))).collect();
    let (window, mut dedup, mut random) = (50, Derived::start("dedup", &settings), random(3));
    let (mut went_on, mut newest, mut now) = (BTreeMap::<String, Vec<i64>>::new(), i64::MIN, 1_700_000_000_000);
    for round in 0..300 {
        let disorder = if round % 2 == 0 { 1 } else { 120 };
        let record = |index: u32| {
            now += i64::from(random(4));
            (Some(random(30).to_string()), now - i64::from(random(disorder)), index.to_string())
        };
        let records: Vec<_> = (0..20).map(record).collect();
        let came = match random(8) {
            0 => dedup.run_poisoned(&records),
            1 => {
                dedup.restart();
                dedup.run(&records).expect("it runs")
            }
            _ => dedup.run(&records).expect("it runs"),
        };
        for record in &records {
            let (key, time) = (record.0.clone().expect("a key"), record.1);
            newest = newest.max(time);
            let twins = went_on.entry(key).or_default();
            let near = |twin: &i64| twin.abs_diff(time) < window;
            let is_dropped = !came.contains(record);
            assert!(!is_dropped || twins.iter().any(near), "{record:?} has no twin");
            let is_known = |twin: &i64| count_max.is_none() && near(twin) && twin + window.cast_signed() > newest;
            assert!(is_dropped || !twins.iter().any(is_known), "{record:?} has a twin");
            if !is_dropped {
                twins.push(time);
            }
        }
        let remembered = u64::try_from(dedup.draft.scan(b"i", None, 1000).len()).expect("few");
        assert_eq!(dedup.draft.scan(b"t", None, 1000).len() as u64, remembered);
        let count = dedup.draft.get(b"n").map(|count| u64::from_be_bytes(count.try_into().expect("a number")));
        assert_eq!((count, remembered <= count_max.unwrap_or(30)), (count_max.map(|_| remembered), true));
    }
    let later: Vec<_> = (0..20).map(|index: i64| (Some("x".to_owned()), newest + 50, index.to_string())).collect();
    assert_eq!(dedup.run(&later), Ok(later[..1].to_vec()));
    assert_eq!(dedup.draft.scan(b"i", None, 1000).len(), 1);
}

#[test]
fn dedup_does_what_a_list_of_all_that_went_on_does() {
    dedup_against_all_that_went_on(None);
}

#[test]
fn dedup_remembers_no_more_than_it_is_told() {
    dedup_against_all_that_went_on(Some(12));
}

#[test]
fn downsample_does_what_a_plain_map_does() {
    let (mut downsample, mut random) = (Derived::start("downsample", &[("window", "100ms"), ("grace", "30ms")]), random(4));
    let (mut open, mut closed_to, mut now) = (BTreeMap::<(i64, Option<String>), Vec<i32>>::new(), i64::MIN, 1_700_000_000_000_i64);
    let mut late = 0;
    for _ in 0..300 {
        let record = |_| {
            now += i64::from(random(25));
            let disorder = if random(4) == 0 { 300 } else { 40 };
            let key = (random(9) > 0).then(|| random(30).to_string());
            (key, now - i64::from(random(disorder)), format!("{{\"value\":{}}}", random(100)))
        };
        let records: Vec<_> = (0..10).map(record).collect();
        let mut expected = Vec::new();
        for (key, time, value) in &records {
            closed_to = closed_to.max((time - 30).div_euclid(100) * 100);
            for _ in 0..8 {
                let Some(first) = open.first_entry().filter(|first| first.key().0 < closed_to) else { break };
                let ((start, key), readings) = first.remove_entry();
                let (count, least, most) = (readings.len(), readings.iter().min().expect("one"), readings.iter().max().expect("one"));
                let mean = f64::from(readings.iter().sum::<i32>()) / f64::from(u32::try_from(count).expect("few"));
                let end = start + 100;
                let value = format!(r#"{{"start":{start},"end":{end},"count":{count},"mean":{mean},"min":{least},"max":{most}}}"#);
                expected.push((key, start, value));
            }
            let start = time.div_euclid(100) * 100;
            if start < closed_to {
                late += 1;
            } else {
                let reading = value.trim_start_matches("{\"value\":").trim_end_matches('}').parse().expect("a number");
                open.entry((start, key.clone())).or_default().push(reading);
            }
        }
        let came = match random(8) {
            0 => downsample.run_poisoned(&records),
            1 => {
                downsample.restart();
                downsample.run(&records).expect("it runs")
            }
            _ => downsample.run(&records).expect("it runs"),
        };
        assert_eq!(came, expected);
    }
    downsample.restart();
    assert_eq!(downsample.state.len(), open.len() + 2);
    assert!(late > 100 && downsample.state.get(b"l") == Some(&u64::to_be_bytes(late)[..]), "{late}");
}

#[test]
fn windows_of_many_long_keys_that_are_closed_at_once_fit_the_default_limits() {
    let mut downsample = Derived::start("downsample", &[]);
    let record = |number: u32| (Some(format!("{number:01000}")), 0, r#"{"value":-1.2345678901234567}"#.to_owned());
    for first in (0..5000).step_by(500) {
        assert_eq!(downsample.run(&(first..first + 500).map(record).collect::<Vec<_>>()), Ok(vec![]));
    }
    let heartbeats = vec![(None, 70_000, String::new()); 1000];
    let mut written = Vec::new();
    for count in [2048, 2048, 904, 0] {
        let came = downsample.run(&heartbeats).expect("what is written fits, and there is time for it");
        assert_eq!(came.len(), count);
        written.extend(came);
        downsample.restart();
    }
    let keys: Vec<_> = written.iter().map(|(key, ..)| key).collect();
    assert!(keys.is_sorted() && keys.iter().all(|key| key.is_some()));
}

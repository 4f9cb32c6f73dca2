//! The samples of `plugins/`, as they are built for WebAssembly, in the real host. What each of them does in full is tested beside its code.

use millpond_plugin::{Limits, Partitioner, PluginError, PluginHost, Transform, World};
use millpond_protocol::record;

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

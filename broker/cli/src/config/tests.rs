use super::{ByteSize, Config, KEYS, Limited, Listen, Loaded, Span, keys, layers};
use crate::failure::{Failure, Outcome};
use millpond_protocol::message::{Cleanup, OnFull};
use std::{ffi::OsString, path::Path};

/// Loads a file with this text, these variables and these flags.
fn load(file: &str, variables: &[(&str, &str)], flags: &[(&str, &str, &str)]) -> Outcome<Loaded> {
    let mut settings = layers::from_file(Path::new("mill.toml"), file)?;
    settings.extend(layers::from_environment(variables.iter().map(|(name, text)| (OsString::from(name), OsString::from(text))))?);
    for (flag, key, text) in flags {
        settings.push(layers::Setting::from_flag(flag, key, text)?);
    }
    Loaded::from_layers(&Config::defaults("data".into()), settings)
}

fn refusal(file: &str, variables: &[(&str, &str)], flags: &[(&str, &str, &str)]) -> Failure {
    load(file, variables, flags).map(|loaded| loaded.config).expect_err("this must be refused")
}

/// A leaf of the configuration under each name, and nothing else.
fn leaves(value: &serde_json::Value, name: &str, found: &mut Vec<String>) {
    match value.as_object() {
        Some(fields) => {
            for (field, value) in fields {
                leaves(value, &if name.is_empty() { field.clone() } else { format!("{name}.{field}") }, found);
            }
        }
        None => found.push(name.to_owned()),
    }
}

#[test]
fn every_key_is_listed_and_every_listed_key_is_there() {
    let mut found = Vec::new();
    leaves(&serde_json::to_value(Config::defaults("data".into())).expect("JSON"), "", &mut found);
    let mut listed: Vec<_> = KEYS.iter().map(|key| key.name.to_owned()).collect();
    found.sort();
    listed.sort();
    assert_eq!(found, listed);
}

#[test]
fn the_defaults_are_accepted() {
    let loaded = load("", &[], &[]).expect("the defaults");
    assert!(KEYS.iter().all(|key| loaded.origin(key.name).to_string() == "default"));
    assert_eq!(loaded.value("quic.listen"), "127.0.0.1:9440");
    assert_eq!(loaded.value("tls.cert"), serde_json::Value::Null);
}

#[test]
fn a_later_layer_wins_and_each_value_knows_where_it_came_from() {
    let file = "data_dir = \"/file\"\nmemory_limit = \"128MiB\"\n\n[quic]\nlisten = \"0.0.0.0:1\"\nconnections_max = 5\n";
    let variables = [("MILLPOND_QUIC__LISTEN", "0.0.0.0:2"), ("MILLPOND_DATA_DIR", "/variable"), ("HOME", "/nowhere")];
    let loaded = load(file, &variables, &[("--data-dir", "data_dir", "/flag")]).expect("all of it is fine");
    let shown = |key: &str| format!("{} from {}", loaded.value(key), loaded.origin(key));
    assert_eq!(shown("data_dir"), "\"/flag\" from flag --data-dir");
    assert_eq!(shown("quic.listen"), "\"0.0.0.0:2\" from environment MILLPOND_QUIC__LISTEN");
    assert_eq!(shown("quic.connections_max"), "5 from file mill.toml:6");
    assert_eq!(shown("memory_limit"), "\"128MiB\" from file mill.toml:2");
    assert_eq!(shown("kafka.listen"), "\"127.0.0.1:9092\" from default");
    assert_eq!(loaded.config.quic.listen.port(), 2);
    assert_eq!(loaded.config.data_dir, Path::new("/flag"));
}

#[test]
fn lists_sizes_and_times_are_read_in_every_layer() {
    let file = "[tls]\nnames = [\"a\", \"b\"]\n[quic]\nidle_timeout = \"1m\"\npush_bytes_max = 4096\n";
    let loaded = load(file, &[("MILLPOND_PLUGIN__TIME", "5ms")], &[("--set", "topic.durability", "interval:50ms")]).expect("fine");
    assert_eq!(loaded.config.tls.names, ["a", "b"]);
    assert_eq!(loaded.config.quic.idle_timeout.0.as_secs(), 60);
    assert_eq!(loaded.config.quic.push_bytes_max.0, 4096);
    assert_eq!(loaded.config.plugin.time.0.as_millis(), 5);
    let file = "[storage]\nquota = 1073741824\n[topic]\nretention = \"7d\"\nquota = \"unlimited\"\n";
    let loaded = load(file, &[("MILLPOND_TOPIC__ON_FULL", "drop-oldest"), ("MILLPOND_TOPIC__QUOTA", "1GiB")], &[]).expect("fine");
    assert_eq!(loaded.config.storage.quota, Limited::To(ByteSize(1 << 30)));
    assert_eq!(loaded.config.topic.retention.value().map(Span::millis), Some(604_800_000));
    assert_eq!((loaded.config.topic.quota, loaded.config.topic.on_full), (Limited::To(ByteSize(1 << 30)), OnFull::DropOldest));
    let loaded = load(file, &[], &[]).expect("fine");
    assert_eq!((loaded.config.topic.quota, loaded.config.topic.on_full), (Limited::Unlimited, OnFull::Reject));
    let file = "[topic]\ncleanup = \"compact\"\ndelete_retention = \"2d\"\n";
    let topic = load(file, &[("MILLPOND_TOPIC__CLEANUP", "delete,compact")], &[]).expect("fine").config.topic;
    assert_eq!((topic.cleanup, topic.delete_retention.millis()), (Cleanup::CompactDelete, 172_800_000));
    let file = "[tls]\nnames = [\"a\", \"b\"]\n";
    let loaded = load(file, &[("MILLPOND_TLS__NAMES", "c, d,")], &[]).expect("fine");
    assert_eq!(loaded.config.tls.names, ["c", "d"]);
}

#[test]
fn variables_of_the_client_and_empty_ones_are_not_keys() {
    let variables = [
        ("MILLPOND_URL", "x"),
        ("MILLPOND_CONFIG", "x"),
        ("MILLPOND_LOG", "x"),
        ("MILLPOND_CA_FILE", "x"),
        ("MILLPOND_BIN", "x"),
        ("MILLPOND_DATA_DIR", ""),
    ];
    let loaded = load("", &variables, &[]).expect("none of them counts");
    assert_eq!(loaded.origin("data_dir").to_string(), "default");
}

#[test]
fn an_unknown_key_is_refused_with_the_nearest_one_and_its_place() {
    let refused = format!("{:?}", refusal("\n[quic]\nlisen = \"0.0.0.0:1\"\n", &[], &[]));
    assert!(refused.contains("unknown configuration key `quic.lisen` (file mill.toml:3)"), "{refused}");
    assert!(refused.contains("did you mean `quic.listen`?"), "{refused}");
    let refused = format!("{:?}", refusal("", &[("MILLPOND_QUIC_LISTEN", "0.0.0.0:1")], &[]));
    assert!(refused.contains("MILLPOND_QUIC_LISTEN is not a configuration key"), "{refused}");
    assert!(refused.contains("did you mean MILLPOND_QUIC__LISTEN?"), "{refused}");
    let refused = format!("{:?}", refusal("", &[], &[("--set", "loglevel", "info")]));
    assert!(refused.contains("unknown configuration key `loglevel` (flag --set)"), "{refused}");
    assert!(refused.contains("did you mean `log.level`?"), "{refused}");
}

#[test]
fn an_unknown_section_is_refused_with_the_nearest_one() {
    let refused = format!("{:?}", refusal("\n[quik]\nlisten = \"0.0.0.0:1\"\n", &[], &[]));
    assert!(refused.contains("unknown configuration section [quik] (file mill.toml:2)"), "{refused}");
    assert!(refused.contains("did you mean [quic]?"), "{refused}");
    let refused = format!("{:?}", refusal("quik.listen = \"0.0.0.0:1\"\n", &[], &[]));
    assert!(refused.contains("did you mean [quic]?"), "{refused}");
}

#[test]
fn an_address_that_is_none_is_refused_with_an_example() {
    for (key, port) in [("quic.listen", 9440), ("kafka.listen", 9440), ("admin.listen", 9640)] {
        let refused = format!("{:?}", refusal("", &[], &[("--set", key, "banana")]));
        assert!(refused.contains("`banana` is not an address") && refused.contains(&format!("such as 127.0.0.1:{port}")), "{refused}");
    }
}

#[test]
fn the_admin_door_can_be_left_shut_and_the_others_can_not() {
    let loaded = load("[admin]\nlisten = \"off\"\n", &[], &[]).expect("it can");
    assert_eq!((loaded.config.admin.listen, loaded.value("admin.listen")), (Listen::Off, "off".into()));
    let loaded = load("", &[("MILLPOND_ADMIN__LISTEN", "[::1]:0")], &[]).expect("it is an address");
    assert_eq!(loaded.config.admin.listen.to_string(), "[::1]:0");
    refusal("[quic]\nlisten = \"off\"\n", &[], &[]);
}

#[test]
fn a_section_in_place_of_a_key_and_the_other_way_round_are_refused() {
    let refused = refusal("quic = 3\n", &[], &[]).to_string();
    assert_eq!(refused, "bad value for `quic` (file mill.toml:1): it is a section: write [quic]");
    let refused = refusal("[data_dir]\nx = 1\n", &[], &[]).to_string();
    assert!(refused.starts_with("bad value for `data_dir` (file mill.toml:1): found map"), "{refused}");
    let refused = refusal("[nonsense]\nx = 1\n", &[], &[]).to_string();
    assert_eq!(refused, "unknown configuration section [nonsense] (file mill.toml:1)");
}

#[test]
fn a_value_that_a_key_can_not_take_is_refused_with_what_it_takes() {
    for (key, text, words) in [
        ("quic.listen", "localhost", "`localhost` is not an address: write an IP address and a port, such as 127.0.0.1:9440 or [::]:9440"),
        ("quic.idle_timeout", "30", "`30` is not a time: write a whole number with a unit, such as 200ms, 30s or 5m"),
        ("memory_limit", "much", "`much` is not a size: write a whole number with a unit, such as 512KiB, 16MiB or 1GiB"),
        ("memory_limit", "1MiB", "1MiB is outside 16MiB to 1TiB"),
        ("max_batch_bytes", "128MiB", "128MiB is outside 1KiB to 64MiB"),
        ("threads.io", "two", "`two` is not a whole number"),
        ("threads.io", "0", "0 is outside 1 to 256"),
        ("topic.durability", "maybe", "`maybe` is not a durability: it is `sync`, `interval:200ms` (1ms to 1h) or `os`"),
        ("topic.on_full", "burst", "`burst` is not a choice for a full disk: it is `reject` or `drop-oldest`"),
        ("topic.quota", "many", "`many` is not a size: write a whole number with a unit, such as 512KiB, 16MiB or 1GiB, or `unlimited`"),
        ("topic.quota", "1KiB", "1KiB is outside 4KiB to 1048576TiB"),
        ("topic.retention", "1ms", "1ms is outside 1s to 36525d"),
        ("topic.cleanup", "shrink", "`shrink` is not a way to clean up: it is `delete`, `compact` or `compact,delete`"),
        ("topic.delete_retention", "0s", "0s is outside 1s to 36525d"),
        ("storage.quota", "1MiB", "1MiB is outside 64MiB to 1048576TiB"),
        ("storage.retention_check_interval", "1d", "1d is outside 1ms to 1h"),
        ("storage.producer_id_expiration", "1ms", "1ms is outside 1s to 365d"),
        ("log.level", "loud", "`loud` is not one of error, warn, info, debug, trace"),
        ("tls.cert", "/cert.pem", "it needs `tls.key` beside it"),
    ] {
        let refused = refusal("", &[], &[("--set", key, text)]).to_string();
        assert_eq!(refused, format!("bad value for `{key}` (flag --set): {words}"));
        let refused = refusal("", &[(&keys::variable(key), text)], &[]).to_string();
        assert_eq!(refused, format!("bad value for `{key}` (environment {}): {words}", keys::variable(key)));
    }
}

#[test]
fn a_file_that_is_not_toml_is_refused_with_the_line() {
    let refused = refusal("data_dir = \n", &[], &[]).to_string();
    assert!(refused.starts_with("mill.toml is not valid TOML: ") && refused.contains("line 1"), "{refused}");
}

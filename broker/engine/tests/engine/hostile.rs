//! A neighbour beside a module that misbehaves at full speed, in each of the ways of `plugins/hostile`: all its batches are acknowledged, and the
//! broker's memory stays inside a bound.
//!
//! Memory is that of a process, so each attack has a process of its own: this program once more, with one test. The module is one of those that
//! `plugins/build.sh` makes.

use crate::broker::{Broker, attachment, batch};
use bytes::Bytes;
use millpond_engine::{EngineError, ProduceStream};
use millpond_log::RealDisk;
use millpond_protocol::{
    error::ErrorCode,
    message::{AttachTransform, OnError},
};
use std::{
    collections::BTreeMap,
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::mpsc;

/// The error that a producer gets for a batch which is treated so; none where all batches go through.
const ATTACKS: [(&str, Option<ErrorCode>); 15] = [
    ("loop", Some(ErrorCode::GuestTimedOut)),
    ("recurse", Some(ErrorCode::GuestTrapped)),
    ("grow", Some(ErrorCode::GuestOutOfMemory)),
    ("trap", Some(ErrorCode::GuestTrapped)),
    ("garbage", Some(ErrorCode::GuestOutputInvalid)),
    ("huge-output", Some(ErrorCode::GuestOutputInvalid)),
    ("flood", None),
    ("fail", Some(ErrorCode::GuestFailed)),
    ("leak", Some(ErrorCode::GuestOutOfMemory)),
    ("later", Some(ErrorCode::GuestTrapped)),
    ("lie-offset", Some(ErrorCode::GuestOutputInvalid)),
    ("lie-order", None),
    ("lie-time", None),
    ("lie-length", Some(ErrorCode::GuestOutputInvalid)),
    ("lie-headers", Some(ErrorCode::GuestOutputInvalid)),
];

/// Attacks that cost the most where the records on which a module fails are looked for, each in a smaller part of its batch.
const ATTACKS_ON_PARTS: [&str; 5] = ["loop", "recurse", "grow", "trap", "garbage"];

const PLUGIN_THREADS: usize = 2;

/// What a module may use in these tests; all but the time are the defaults.
const TIME_LIMIT: Duration = Duration::from_millis(20);
const MEMORY_BYTES_MAX: u64 = 16 << 20;
const OUTPUT_BYTES_MAX: u64 = 8 << 20;

/// How much the broker may grow while a module attacks it, in bytes: what each plugin thread's guest may have and return, and what the
/// batches on their way, the log and the allocator take.
const GROWTH_BYTES_MAX: u64 = PLUGIN_THREADS as u64 * (MEMORY_BYTES_MAX + OUTPUT_BYTES_MAX) + (16 << 20);

/// Producers of the topic that is attacked.
const ATTACKERS: usize = 4;

/// An attack goes on until so many batches have met it, so many have failed where they are to fail, and the neighbour has sent so many.
const ATTACKED_BATCHES_MIN: usize = 40;
const FAILED_BATCHES_MIN: usize = 3;
/// So many are enough where the module is called for the parts of each.
const ATTACKED_IN_PARTS_MIN: usize = 8;
const NEIGHBOUR_BATCHES_MIN: usize = 200;

/// Far more than that takes anywhere.
const NEIGHBOUR_BATCHES_MAX: usize = 2_000_000;

/// Records of each batch.
const RECORDS: usize = 100;

/// Set for the process that runs one attack: the mode, and what becomes of records on which the module fails.
const MODE: &str = "MILLPOND_HOSTILE_MODE";
const ON_ERROR: &str = "MILLPOND_HOSTILE_ON_ERROR";

#[test]
fn beside_each_attack_a_neighbour_goes_on_and_memory_stays_in_its_bound() {
    for (mode, _) in ATTACKS {
        in_a_process_of_its_own(mode, "reject");
    }
}

#[test]
fn the_same_holds_where_the_records_are_looked_for_on_which_a_module_fails() {
    for mode in ATTACKS_ON_PARTS {
        in_a_process_of_its_own(mode, "skip");
    }
}

#[expect(clippy::print_stdout, reason = "what was measured, for whoever asks for it with --nocapture")]
fn in_a_process_of_its_own(mode: &str, on_error: &str) {
    let output = Command::new(std::env::current_exe().expect("a path"))
        .args(["hostile::one_attack_in_a_process_of_its_own", "--exact", "--nocapture", "--test-threads=1"])
        .env(MODE, mode)
        .env(ON_ERROR, on_error)
        .output()
        .expect("it starts");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{mode} {on_error}: {text}\n{}", String::from_utf8_lossy(&output.stderr));
    let report = text.lines().find_map(|line| line.find("attack ").map(|at| &line[at..]));
    println!("{}", report.unwrap_or_else(|| panic!("{mode}: no report in {text}")));
}

#[expect(clippy::print_stdout, reason = "the process that started this one reads it")]
#[tokio::test]
async fn one_attack_in_a_process_of_its_own() {
    let Ok(mode) = std::env::var(MODE) else { return };
    let on_error: OnError = std::env::var(ON_ERROR).expect("it is set too").parse().expect("it is one");
    let (_, expected) = ATTACKS.into_iter().find(|(name, _)| *name == mode).expect("a mode");
    let (attacked_min, failed_min) = match (&on_error, expected) {
        (OnError::Reject, Some(_)) => (ATTACKED_BATCHES_MIN, FAILED_BATCHES_MIN),
        (OnError::Reject, None) => (ATTACKED_BATCHES_MIN, 0),
        _ => (ATTACKED_IN_PARTS_MIN, 0),
    };
    let broker = Arc::new(attacked(&mode, on_error).await);
    let mut neighbour = broker.producer("neighbour", Some(0));
    let quiet = values("quiet");
    for _ in 0..NEIGHBOUR_BATCHES_MIN {
        send(&broker, &mut neighbour, &quiet).await.expect("nobody attacks yet");
    }

    let before = memory_bytes_peak_from_now();
    let stop = Arc::new(AtomicBool::new(false));
    let (heard, mut answers) = mpsc::unbounded_channel();
    let attackers: Vec<_> = (0..ATTACKERS).map(|_| tokio::spawn(attack(Arc::clone(&broker), Arc::clone(&stop), heard.clone()))).collect();
    let mut latencies = Vec::new();
    let mut codes: BTreeMap<String, usize> = BTreeMap::new();
    let (mut attacked, mut failed) = (0, 0);
    while latencies.len() < NEIGHBOUR_BATCHES_MIN || attacked < attacked_min || failed < failed_min {
        assert!(latencies.len() < NEIGHBOUR_BATCHES_MAX, "the attack does not go on: {codes:?}");
        let begin = Instant::now();
        send(&broker, &mut neighbour, &quiet).await.expect("the neighbour is not attacked");
        latencies.push(begin.elapsed());
        while let Ok(code) = answers.try_recv() {
            attacked += 1;
            failed += usize::from(code.is_some());
            *codes.entry(code.map_or("stored".to_owned(), |code: ErrorCode| format!("{code:?}"))).or_default() += 1;
            assert!(code.is_none() || code == expected, "{mode}: {code:?}");
        }
    }
    stop.store(true, Ordering::Relaxed);
    for attacker in attackers {
        attacker.await.expect("it ends");
    }
    let grown = memory_bytes_peak().saturating_sub(before);
    let stored = broker.engine.topic("neighbour").expect("it is there").partitions[0].log_end;
    let sent = (NEIGHBOUR_BATCHES_MIN + latencies.len()) * RECORDS;
    assert_eq!(usize::try_from(stored).expect("not negative"), sent, "all that was acknowledged is there, once");
    println!("{}", report(&mode, &codes, &mut latencies, grown));
    assert!(grown <= GROWTH_BYTES_MAX, "{mode}: the broker grew by {grown} bytes, the limit is {GROWTH_BYTES_MAX}");
    broker.engine.shutdown().await;
}

/// A broker with a topic whose module attacks it, and a neighbour whose module is a good one.
async fn attacked(mode: &str, on_error: OnError) -> Broker {
    let broker = Broker::with(Arc::new(RealDisk), |config| {
        config.plugin_threads = PLUGIN_THREADS;
        config.plugin_limits.time = TIME_LIMIT;
        assert_eq!(config.plugin_limits.memory_bytes as u64, MEMORY_BYTES_MAX, "the bound is made of it");
        assert_eq!(config.plugin_limits.output_bytes as u64, OUTPUT_BYTES_MAX, "the bound is made of it");
    })
    .await;
    broker.topic("attacked", 1, "os").await;
    broker.topic("neighbour", 1, "os").await;
    broker.attach("neighbour", "good", 'o').await;
    broker.engine.deploy_module("hostile", hostile_module()).await.expect("it can be deployed");
    let attach = AttachTransform { on_error, ..hostile("attacked", mode, "poison") };
    broker.engine.attach(attach).await.expect("it can be attached");
    broker
}

/// The module in a mode, for batches with this text in them.
fn hostile(topic: &str, mode: &str, only: &str) -> AttachTransform {
    let params = [("mode", mode), ("only", only), ("after", "20")].map(|(name, value)| (name.to_owned(), value.to_owned()));
    AttachTransform { params: BTreeMap::from(params), ..attachment(topic, "hostile", 'i') }
}

fn hostile_module() -> Bytes {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../plugins/dist/hostile.wasm");
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}; plugins/build.sh makes it", path.display())).into()
}

/// Sends batches that the module attacks, each followed by one that it lets through: one that fails on everything would be paused, and do
/// no more harm.
async fn attack(broker: Arc<Broker>, stop: Arc<AtomicBool>, heard: mpsc::UnboundedSender<Option<ErrorCode>>) {
    let mut producer = broker.producer("attacked", Some(0));
    let (poison, good) = (values("poison"), values("good"));
    while !stop.load(Ordering::Relaxed) {
        let code = send(&broker, &mut producer, &poison).await.err().map(|error| error.code());
        heard.send(code).expect("somebody counts");
        send(&broker, &mut producer, &good).await.expect("a good batch goes through");
    }
}

async fn send(broker: &Broker, producer: &mut ProduceStream, values: &[String]) -> Result<(), EngineError> {
    let values: Vec<&str> = values.iter().map(String::as_str).collect();
    broker.submit(producer, batch(&values)).await.await.map(|_| ())
}

fn values(word: &str) -> Vec<String> {
    (0..RECORDS).map(|number| format!("{word} {number:0>90}")).collect()
}

fn report(mode: &str, codes: &BTreeMap<String, usize>, latencies: &mut [Duration], grown: u64) -> String {
    latencies.sort_unstable();
    let millis = |share: usize| latencies[(latencies.len() - 1) * share / 1000].as_secs_f64() * 1e3;
    format!(
        "attack {mode}: {codes:?}; neighbour {} batches, p50 {:.2} ms, p99 {:.2} ms, max {:.2} ms; memory +{} KiB of {} KiB",
        latencies.len(),
        millis(500),
        millis(990),
        millis(1000),
        grown >> 10,
        GROWTH_BYTES_MAX >> 10,
    )
}

/// Forgets the peak of this process's memory so far, where the kernel lets it, and gives the one from now on.
fn memory_bytes_peak_from_now() -> u64 {
    let _not_everywhere = std::fs::write("/proc/self/clear_refs", "5");
    memory_bytes_peak()
}

fn memory_bytes_peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("a Linux");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    peak.trim().trim_end_matches("kB").trim().parse::<u64>().expect("a number") * 1024
}

#[tokio::test]
async fn a_lie_about_offsets_lengths_or_counts_is_told_and_nothing_is_stored() {
    let (broker, _) = Broker::simulated().await;
    broker.engine.deploy_module("hostile", hostile_module()).await.expect("it can be deployed");
    for (mode, words) in [
        ("lie-offset", "offset delta 2147483647 in a batch that ends at 1"),
        ("lie-length", "a length of 2147483647 where"),
        ("lie-headers", "2147483647 headers in 0 bytes"),
        ("garbage", "record 0"),
    ] {
        broker.topic(mode, 1, "sync").await;
        broker.engine.attach(hostile(mode, mode, "")).await.expect("it can be attached");
        let error = broker.produce(mode, 0, &["a", "b"]).await.expect_err("a lie");
        assert_eq!(error.code(), ErrorCode::GuestOutputInvalid);
        let wire = error.to_wire();
        assert!(wire.message.contains(words) && wire.message.contains("`hostile`"), "{mode}: {}", wire.message);
        assert!(wire.hint.is_some_and(|hint| hint.len() > 20), "{mode}: it says what can be done");
        assert_eq!(broker.engine.topic(mode).expect("it is there").partitions[0].log_end, 0, "{mode}");
        broker.topic(&format!("{mode}-beside"), 1, "sync").await;
        broker.produce(&format!("{mode}-beside"), 0, &["a"]).await.expect("another topic is as it was");
    }
}

#[tokio::test]
async fn a_lie_about_the_order_or_the_time_changes_no_offset_and_no_other_records_time() {
    let (broker, _) = Broker::simulated().await;
    broker.engine.deploy_module("hostile", hostile_module()).await.expect("it can be deployed");
    for (mode, lied) in [("lie-order", 2), ("lie-time", 1)] {
        broker.topic(mode, 1, "sync").await;
        broker.engine.attach(hostile(mode, mode, "poison")).await.expect("it can be attached");
        for (value, expected) in [("a", 0), ("poison", 1)] {
            let ack = broker.produce(mode, 0, &[value]).await.expect("it is stored");
            assert_eq!(ack.base_offset, expected, "{mode}");
        }
        let ack = broker.produce(mode, 0, &["b", "c"]).await.expect("it is stored");
        assert_eq!((ack.base_offset, ack.last_offset), (1 + lied, 2 + lied), "{mode}");
        let found = broker.read_all(mode, 0).await;
        assert_eq!(found.first(), Some(&(0, "a".to_owned())), "{mode}");
        assert_eq!(found[1..].iter().filter(|(_, value)| value == "lies").count(), usize::try_from(lied).expect("few"), "{mode}");
        assert_eq!(found.last(), Some(&(2 + lied, "c".to_owned())), "{mode}");
        let broker_now = crate::broker::NOW_MS;
        let found = broker.offset_at(mode, 0, millpond_protocol::message::Position::Time(broker_now)).await.expect("it is there");
        assert_eq!(found.offset, 0, "{mode}: the first record of that time is found as before");
    }
}

//! A neighbour beside a module that misbehaves at full speed, in each of the ways of `plugins/hostile`: all its batches are acknowledged, and the
//! broker's memory stays inside a bound.
//!
//! Memory is that of a process, so each attack has a process of its own: this program once more, with one test. And this is no part of the
//! other tests of the engine, for a process that is just being started holds the locks that they let go of. The modules are those that
//! `plugins/build.sh` makes.

use bytes::Bytes;
use millpond_engine::{Engine, EngineConfig, EngineError, ProduceStream, SimClock};
use millpond_log::RealDisk;
use millpond_protocol::{
    batch::BatchBuilder,
    compression::Codec,
    error::ErrorCode,
    message::{AttachPoint, AttachTransform, CreateTopic, Durability, ModuleRef, OnError, OpenProduce, TopicConfig},
    record::NewRecord,
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
use tempfile::TempDir;
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
const MEMORY_BYTES_MAX: u64 = 32 << 20;
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

/// What the broker's clock shows.
const NOW_MS: i64 = 1_700_000_000_000;

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
        .args(["one_attack_in_a_process_of_its_own", "--exact", "--nocapture", "--test-threads=1"])
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
    let (engine, _dir) = attacked(&mode, on_error).await;
    let mut neighbour = producer(&engine, "neighbour");
    let quiet = batch("quiet");
    for _ in 0..NEIGHBOUR_BATCHES_MIN {
        send(&engine, &mut neighbour, &quiet).await.expect("nobody attacks yet");
    }

    let before = memory_bytes_peak_from_now();
    let stop = Arc::new(AtomicBool::new(false));
    let (heard, mut answers) = mpsc::unbounded_channel();
    let attackers: Vec<_> = (0..ATTACKERS).map(|_| tokio::spawn(attack(Arc::clone(&engine), Arc::clone(&stop), heard.clone()))).collect();
    let mut latencies = Vec::new();
    let mut codes: BTreeMap<String, usize> = BTreeMap::new();
    let (mut attacked, mut failed) = (0, 0);
    while latencies.len() < NEIGHBOUR_BATCHES_MIN || attacked < attacked_min || failed < failed_min {
        assert!(latencies.len() < NEIGHBOUR_BATCHES_MAX, "the attack does not go on: {codes:?}");
        let begin = Instant::now();
        send(&engine, &mut neighbour, &quiet).await.expect("the neighbour is not attacked");
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
    let stored = engine.topic("neighbour").expect("it is there").partitions[0].log_end;
    let sent = (NEIGHBOUR_BATCHES_MIN + latencies.len()) * RECORDS;
    assert_eq!(usize::try_from(stored).expect("not negative"), sent, "all that was acknowledged is there, once");
    println!("{}", report(&mode, &codes, &mut latencies, grown));
    assert!(grown <= GROWTH_BYTES_MAX, "{mode}: the broker grew by {grown} bytes, the limit is {GROWTH_BYTES_MAX}");
    engine.shutdown().await;
}

/// A broker with a topic whose module attacks it, and a neighbour whose module is a good one; and the folder that it is in.
async fn attacked(mode: &str, on_error: OnError) -> (Arc<Engine>, TempDir) {
    let dir = tempfile::tempdir().expect("a folder");
    let mut config = EngineConfig { plugin_threads: PLUGIN_THREADS, reserve_bytes: 0, ..EngineConfig::new(dir.path()) };
    config.plugin_limits.time = TIME_LIMIT;
    let limits = &config.plugin_limits;
    assert_eq!((limits.memory_bytes as u64, limits.output_bytes as u64), (MEMORY_BYTES_MAX, OUTPUT_BYTES_MAX), "the bound is made of them");
    let engine = Engine::open(config, Arc::new(RealDisk), Arc::new(SimClock::at(NOW_MS))).await.expect("it opens");
    let hostile = [("mode", mode), ("only", "poison"), ("after", "20")];
    for (topic, module, params) in [("neighbour", "identity", &[("drop_every", "2")][..]), ("attacked", "hostile", &hostile)] {
        let config = TopicConfig { durability: Durability::Os, ..TopicConfig::default() };
        engine.create_topic(CreateTopic { name: topic.to_owned(), partitions: 1, config }).await.expect("it can be made");
        engine.deploy_module(module, built(module)).await.expect("it can be deployed");
        let params = params.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let attach = AttachTransform::new(topic, ModuleRef::current(module), AttachPoint::Produce);
        engine.attach(AttachTransform { params, on_error: on_error.clone(), ..attach }).await.expect("it can be attached");
    }
    (engine, dir)
}

fn built(module: &str) -> Bytes {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../plugins/dist").join(module).with_extension("wasm");
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}; plugins/build.sh makes it", path.display())).into()
}

/// Sends batches that the module attacks, each followed by one that it lets through: one that fails on everything would be paused, and do
/// no more harm.
async fn attack(engine: Arc<Engine>, stop: Arc<AtomicBool>, heard: mpsc::UnboundedSender<Option<ErrorCode>>) {
    let mut producer = producer(&engine, "attacked");
    let (poison, good) = (batch("poison"), batch("good"));
    while !stop.load(Ordering::Relaxed) {
        let code = send(&engine, &mut producer, &poison).await.err().map(|error| error.code());
        heard.send(code).expect("somebody counts");
        send(&engine, &mut producer, &good).await.expect("a good batch goes through");
    }
}

fn producer(engine: &Arc<Engine>, topic: &str) -> ProduceStream {
    engine.open_produce(&OpenProduce { topic: topic.to_owned(), partition: Some(0) }).expect("it opens").0
}

async fn send(engine: &Engine, producer: &mut ProduceStream, batch: &Bytes) -> Result<(), EngineError> {
    // A copy, as each batch comes from the network anew.
    let batch = Bytes::copy_from_slice(batch);
    let permit = engine.reserve_inflight(batch.len()).await;
    producer.submit(batch, permit).await.await.map(|_| ())
}

/// One batch, of records of 100 bytes with this word in them.
fn batch(word: &str) -> Bytes {
    let mut builder = BatchBuilder::new();
    for number in 0..RECORDS {
        let value = format!("{word} {number:0>90}");
        let record = NewRecord { timestamp: NOW_MS, key: None, value: Some(value.as_bytes()), headers: &[] };
        builder.push(&record).expect("it fits");
    }
    builder.finish(Codec::None).expect("it has records")
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

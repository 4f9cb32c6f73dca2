//! A neighbour beside a module that misbehaves at full speed, in each of the ways of `plugins/hostile`, wherever a module can run: all the
//! neighbour's batches are acknowledged, half of them in less time than the module takes for one, and the broker's memory, and what it keeps
//! of the module on the disk, stay inside their bounds.
//!
//! Memory is that of a process, so each attack has a process of its own: this program once more, with one test. And this is no part of the
//! other tests of the engine, for a process that is just being started holds the locks that they let go of. The modules are those that
//! `plugins/build.sh` makes.
//!
//! | module | holds |
//! |---|---|
//! | [`attacks`] | which attacks there are, and what is to come of each |
//! | [`scene`] | the broker with the topic that is attacked and its neighbour |
//! | [`derived`] | what is looked at where a module keeps state |
//! | [`measure`] | memory, and how long batches take |

mod attacks;
mod derived;
mod measure;
mod scene;

use attacks::{Attack, Place};
use measure::{memory_bytes_peak, memory_bytes_peak_from_now, report};
use millpond_protocol::error::ErrorCode;
use scene::{Scene, batch, producer, send};
use std::{
    collections::BTreeMap,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::mpsc;

const PLUGIN_THREADS: usize = 2;

/// What a module may use in these tests; all but the time are the defaults.
const TIME_LIMIT: Duration = Duration::from_millis(20);
const MEMORY_BYTES_MAX: u64 = 32 << 20;
const OUTPUT_BYTES_MAX: u64 = 8 << 20;

/// How much the broker may grow while a module attacks it, in bytes: what each plugin thread's guest may have and return, and what the
/// batches on their way, the log and the allocator take.
const GROWTH_BYTES_MAX: u64 = PLUGIN_THREADS as u64 * (MEMORY_BYTES_MAX + OUTPUT_BYTES_MAX) + (16 << 20);

/// Who attacks at the same time.
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

/// Set for the process that runs one attack: which one.
const ATTACK: &str = "MILLPOND_HOSTILE_ATTACK";

#[test]
fn beside_each_attack_on_produce_a_neighbour_goes_on_and_memory_stays_in_its_bound() {
    attacks::ALL.iter().filter(|attack| attack.place == Place::Produce).for_each(in_a_process_of_its_own);
}

#[test]
fn beside_a_partitioner_or_a_view_too() {
    attacks::ALL.iter().filter(|attack| matches!(attack.place, Place::Partition | Place::View)).for_each(in_a_process_of_its_own);
}

#[test]
fn beside_a_derived_topic_whose_state_is_filled_to_the_brim_too() {
    attacks::ALL.iter().filter(|attack| attack.place == Place::Derive).for_each(in_a_process_of_its_own);
}

#[expect(clippy::print_stdout, reason = "what was measured, for whoever asks for it with --nocapture")]
fn in_a_process_of_its_own(attack: &Attack) {
    let output = Command::new(std::env::current_exe().expect("a path"))
        .args(["one_attack_in_a_process_of_its_own", "--exact", "--nocapture", "--test-threads=1"])
        .env(ATTACK, attack.to_string())
        .output()
        .expect("it starts");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{attack}: {text}\n{}", String::from_utf8_lossy(&output.stderr));
    let report = text.lines().find_map(|line| line.find("attack ").map(|at| &line[at..]));
    println!("{}", report.unwrap_or_else(|| panic!("{attack}: no report in {text}")));
}

#[expect(clippy::print_stdout, reason = "the process that started this one reads it")]
#[tokio::test]
async fn one_attack_in_a_process_of_its_own() {
    let Ok(name) = std::env::var(ATTACK) else { return };
    let attack = attacks::ALL.iter().find(|attack| attack.to_string() == name).expect("an attack");
    let scene = Scene::open(attack).await;
    let mut neighbour = producer(&scene.engine, "neighbour", Some(0));
    let quiet = batch("quiet", RECORDS);
    for _ in 0..NEIGHBOUR_BATCHES_MIN {
        send(&scene.engine, &mut neighbour, &quiet).await.expect("nobody attacks yet");
    }

    let before = memory_bytes_peak_from_now();
    let stop = Arc::new(AtomicBool::new(false));
    let (heard, mut answers) = mpsc::unbounded_channel();
    let attackers = scene.begin(attack, &stop, &heard).await;
    let (mut latencies, mut tally) = (Vec::new(), Tally::default());
    while latencies.len() < NEIGHBOUR_BATCHES_MIN || !tally.is_enough(attack) {
        assert!(latencies.len() < NEIGHBOUR_BATCHES_MAX, "the attack does not go on: {:?}", tally.codes);
        let begin = Instant::now();
        send(&scene.engine, &mut neighbour, &quiet).await.expect("the neighbour is not attacked");
        latencies.push(begin.elapsed());
        while let Ok(code) = answers.try_recv() {
            tally.add(attack, code);
        }
    }
    stop.store(true, Ordering::Relaxed);
    for attacker in attackers {
        attacker.await.expect("it ends");
    }
    let grown = memory_bytes_peak().saturating_sub(before);
    let stored = scene.engine.topic("neighbour").expect("it is there").partitions[0].log_end;
    let sent = (NEIGHBOUR_BATCHES_MIN + latencies.len()) * RECORDS;
    assert_eq!(usize::try_from(stored).expect("not negative"), sent, "all that was acknowledged is there, once");
    println!("{}", report(attack, &tally.codes, &mut latencies, grown));
    assert!(grown <= attack.growth_bytes_max(), "{attack}: the broker grew by {grown} bytes, the limit is {}", attack.growth_bytes_max());
    let half = latencies[latencies.len() / 2];
    assert!(half < TIME_LIMIT, "{attack}: half of the neighbour's batches took {half:?} or longer, as if they waited for the module");
    scene.end(attack).await;
}

/// What has come of an attack until now.
#[derive(Debug, Default)]
struct Tally {
    attacked: usize,
    failed: usize,
    codes: BTreeMap<String, usize>,
}

impl Tally {
    fn add(&mut self, attack: &Attack, code: Option<ErrorCode>) {
        self.attacked += 1;
        self.failed += usize::from(code.is_some());
        *self.codes.entry(code.map_or("went through".to_owned(), |code| format!("{code:?}"))).or_default() += 1;
        // On a busy machine its time may be over before it has come to the other limit: pages that it touches first count as its own time.
        // And where parts are tried, before it has tried them all.
        let is_ended = attack.takes_parts() && code == Some(ErrorCode::GuestSearchEnded);
        let is_late = code == Some(ErrorCode::GuestTimedOut);
        assert!(code.is_none() || code == attack.expected || is_late || is_ended, "{attack}: {code:?}");
    }

    fn is_enough(&self, attack: &Attack) -> bool {
        let (attacked, failed) = match (attack.takes_parts(), attack.expected) {
            // There the failures are counted, though the records are only left out.
            (true, Some(_)) if attack.place == Place::Derive => (ATTACKED_IN_PARTS_MIN, FAILED_BATCHES_MIN),
            (true, _) => (ATTACKED_IN_PARTS_MIN, 0),
            (false, Some(_)) => (ATTACKED_BATCHES_MIN, FAILED_BATCHES_MIN),
            (false, None) => (ATTACKED_BATCHES_MIN, 0),
        };
        self.attacked >= attacked && self.failed >= failed
    }
}

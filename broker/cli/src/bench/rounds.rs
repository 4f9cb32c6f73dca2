//! The measurements, round after round. A limit and what is held against it are measured right after each other, because a
//! machine's speed drifts: other guests on the same host, the disk's own housekeeping, the clock.

use super::{
    BenchError,
    broker::Broker,
    child::Child,
    commit::{self, commit},
    consume::consume,
    deploy::deploy,
    disk, latency,
    modules::Modules,
    payload::Values,
    plan::{Case, Plan},
    produce::{PARTITIONS, produce},
    raw::{self, RawClient},
    restart::Restart,
    samples::{Samples, Throughput},
};
use indicatif::ProgressBar;
use millpond::Durability;
use std::{ffi::OsString, path::PathBuf, time::Duration};
use tokio::time::timeout;

/// On top of ten times what a measurement is given. What takes longer hangs.
const STEP_TIMEOUT: Duration = Duration::from_mins(2);

/// Written once before the first round, to learn how much this disk takes in the time that a measurement has.
const CALIBRATION_BYTES: usize = 32 << 20;

/// Bounds on the sequential write of one round.
const SEQUENTIAL_BYTES_MIN: usize = 8 << 20;
const SEQUENTIAL_BYTES_MAX: usize = 2 << 30;

/// Steps of [`Rounds::round`] that the progress bar counts.
const STEPS_IN_A_ROUND: u64 = 18;

/// Steps before the first round.
const STEPS_BEFORE: u64 = 2;

/// Everything that is up and ready.
pub(super) struct Rounds {
    raw: RawClient,
    broker: Broker,
    plan: Plan,
    cases: Vec<Case>,
    folder: PathBuf,
    large: Values,
    small: Values,
    sequential_bytes: usize,
    restart: Option<Restart>,
    /// Modules that were uploaded to be measured, each with a number of its own.
    deployed: u32,
    progress: ProgressBar,
    samples: Samples,
    /// Dropped last, as the connection to it goes first.
    _raw_peer: Child,
}

impl Rounds {
    /// Starts the broker and the raw peer in `folder`. It needs the modules of the cases that have one.
    pub(super) async fn prepare(folder: PathBuf, plan: Plan, cases: Vec<Case>, modules: Modules) -> Result<Rounds, BenchError> {
        let arguments = ["bench", "--raw-peer"].map(OsString::from).to_vec();
        let (raw_peer, address) = Child::start("raw-peer", arguments, folder.clone(), raw::find_address).await?;
        let raw = RawClient::connect(&address).await?;
        let broker = Broker::start(folder.clone(), modules).await?;
        let (large, small) = (Values::large(), Values::small());
        Ok(Rounds {
            raw,
            broker,
            plan,
            cases,
            folder,
            large,
            small,
            sequential_bytes: CALIBRATION_BYTES,
            restart: None,
            deployed: 0,
            progress: super::progress_bar(STEPS_BEFORE + STEPS_IN_A_ROUND * plan.rounds as u64),
            samples: Samples::default(),
            _raw_peer: raw_peer,
        })
    }

    /// Measures everything.
    pub(super) async fn run(mut self) -> Result<Samples, BenchError> {
        let outcome = self.all_rounds().await;
        let what = self.progress.message();
        self.progress.finish_and_clear();
        match outcome {
            Ok(()) => Ok(self.samples),
            Err(error) => Err(BenchError::Broken { what, error: Box::new(error), log: self.broker.last_words() }),
        }
    }

    async fn all_rounds(&mut self) -> Result<(), BenchError> {
        let calibration = self.write_sequentially().await?;
        self.sequential_bytes = bytes_in(&calibration, self.plan.throughput);
        // Windows and caches open on the way; what it says is not kept.
        self.raw.send(&self.large, self.plan.throughput / 4).await?;
        // Before anything is measured: much is written for it.
        if self.wants(Case::Restart) {
            let prepared = Restart::prepare(&self.folder, &self.large, self.plan.restart_bytes);
            self.restart = self.step("filling a topic for restart", prepared).await?;
            if self.restart.is_none() {
                super::note(&format!("restart is left out: there is no room for {} GiB and the rest", self.plan.restart_bytes >> 30));
            }
        }
        for _ in 0..self.plan.rounds {
            self.round().await?;
        }
        Ok(())
    }

    async fn round(&mut self) -> Result<(), BenchError> {
        self.bulk().await?;
        self.synced().await?;
        self.group_commit().await?;
        self.small_records().await?;
        self.latencies().await?;
        self.deploys().await?;
        if let Some(restart) = &self.restart {
            let restarted = self.step(Case::Restart.name(), restart.measure()).await?;
            self.samples.add(Case::Restart, restarted);
        }
        Ok(())
    }

    /// Raw transfer in both directions beside producing and consuming.
    async fn bulk(&mut self) -> Result<(), BenchError> {
        let up = self.step("raw quinn, sending", self.raw.send(&self.large, self.plan.throughput)).await?;
        self.samples.quinn_mb_s.push(up.mb_s());
        let mut bytes = up.bytes;
        if self.wants(Case::Produce1kOs) || self.wants(Case::Consume1k) {
            let case = Case::Produce1kOs;
            self.progress.set_message(case.name());
            self.broker.create_topic(case, Durability::Os, PARTITIONS).await?;
            let produced = self.step(case.name(), produce(&self.broker, case, &self.large, self.plan.throughput)).await?;
            self.samples.add(case, produced.sample);
            bytes = produced.stored * self.large.value_bytes() as u64;
            if self.wants(Case::Consume1k) {
                let consumed = self.step(Case::Consume1k.name(), consume(&self.broker, case, produced.stored)).await?;
                self.samples.add(Case::Consume1k, consumed);
            }
            self.broker.delete_topic(case).await?;
        }
        let down = self.step("raw quinn, receiving", self.raw.receive(bytes)).await?;
        self.samples.quinn_mb_s.push(down.mb_s());
        Ok(())
    }

    /// The disk beside producing with a flush before each acknowledgement.
    async fn synced(&mut self) -> Result<(), BenchError> {
        let written = self.write_sequentially().await?;
        self.samples.seq_write_mb_s.push(written.mb_s());
        let case = Case::Produce1kSync;
        if self.wants(case) {
            self.progress.set_message(case.name());
            self.broker.create_topic(case, Durability::Sync, PARTITIONS).await?;
            let produced = self.step(case.name(), produce(&self.broker, case, &self.large, self.plan.throughput)).await?;
            self.samples.add(case, produced.sample);
            self.broker.delete_topic(case).await?;
        }
        Ok(())
    }

    /// Writes with a flush each beside many writers that wait for theirs.
    async fn group_commit(&mut self) -> Result<(), BenchError> {
        // While one flush is under way, those whose records the last one covered send the next: each flush has half of them.
        let (folder, values, bytes) = (self.folder.clone(), self.large.clone(), commit::WRITERS / 2 * commit::RECORD_BYTES);
        let written = self.step("flushed write", disk::write_and_flush(folder, values, bytes, self.plan.throughput)).await?;
        self.samples.flushed_write_mb_s.push(written.mb_s());
        let case = Case::GroupCommit;
        if self.wants(case) {
            let committed = self.step(case.name(), commit(&self.folder, &self.large, self.plan.throughput)).await?;
            self.samples.add(case, committed);
        }
        Ok(())
    }

    /// The same small records without and with transforms.
    async fn small_records(&mut self) -> Result<(), BenchError> {
        let cases = [Case::Produce100bOs, Case::Produce100bFilter, Case::Produce100bJson];
        let is_wanted = cases.map(|case| self.wants(case));
        for case in cases {
            // The others are held against the first.
            if self.wants(case) || (case == Case::Produce100bOs && is_wanted.contains(&true)) {
                self.progress.set_message(case.name());
                self.broker.create_topic(case, Durability::Os, PARTITIONS).await?;
                let produced = self.step(case.name(), produce(&self.broker, case, &self.small, self.plan.throughput)).await?;
                self.samples.add(case, produced.sample);
                self.broker.delete_topic(case).await?;
            }
        }
        Ok(())
    }

    /// Ping and flush beside single records.
    async fn latencies(&mut self) -> Result<(), BenchError> {
        let duration = self.plan.latency;
        let pings = self.step("quinn ping", self.raw.ping(&self.large, duration)).await?;
        self.samples.quinn_ping_us.push(pings.p50_p99_us());
        for (case, durability) in [(Case::AckLatencyOs, Durability::Os), (Case::EndToEndOs, Durability::Os)] {
            self.latency(case, durability).await?;
        }
        let (folder, values) = (self.folder.clone(), self.large.clone());
        let flushes = self.step("fdatasync", disk::flush_repeatedly(folder, values, duration)).await?;
        self.samples.fdatasync_us.push(flushes.p50_p99_us());
        self.latency(Case::AckLatencySync, Durability::Sync).await
    }

    async fn latency(&mut self, case: Case, durability: Durability) -> Result<(), BenchError> {
        if !self.wants(case) {
            return Ok(());
        }
        self.progress.set_message(case.name());
        // One partition: there is one record under way.
        self.broker.create_topic(case, durability, 1).await?;
        let (broker, values, duration) = (&self.broker, &self.large, self.plan.latency);
        let latencies = if case == Case::EndToEndOs {
            self.step(case.name(), latency::end_to_end(broker, case, values, duration)).await?
        } else {
            self.step(case.name(), latency::acknowledgements(broker, case, values, duration)).await?
        };
        self.samples.add(case, latencies);
        self.broker.delete_topic(case).await
    }

    /// Modules that the broker has not seen.
    async fn deploys(&mut self) -> Result<(), BenchError> {
        let case = Case::Deploy;
        let Some(module) = self.broker.modules.of(case).filter(|_| self.wants(case)) else { return Ok(()) };
        self.progress.set_message(case.name());
        self.broker.create_topic(case, Durability::Os, 1).await?;
        let mut deployed = self.deployed;
        let deploys = self.step(case.name(), deploy(&self.broker, case, module, &self.small, &mut deployed)).await?;
        self.deployed = deployed;
        self.samples.add(case, deploys);
        self.broker.delete_topic(case).await
    }

    async fn write_sequentially(&self) -> Result<Throughput, BenchError> {
        let (folder, values, bytes) = (self.folder.clone(), self.large.clone(), self.sequential_bytes);
        self.step("sequential write", disk::blocking(move || disk::write_sequentially(&folder, &values, bytes))).await
    }

    /// Says what is measured, and bounds how long it may take.
    async fn step<T>(&self, what: &'static str, work: impl Future<Output = Result<T, BenchError>>) -> Result<T, BenchError> {
        self.progress.set_message(what);
        let limit = STEP_TIMEOUT + self.plan.throughput * 10;
        let outcome = timeout(limit, work).await;
        self.progress.inc(1);
        outcome.unwrap_or(Err(BenchError::Stuck { what, limit }))
    }

    fn wants(&self, case: Case) -> bool {
        self.cases.contains(&case)
    }
}

/// What goes through in this time at this speed, within bounds.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to the bounds right behind")]
fn bytes_in(throughput: &Throughput, duration: Duration) -> usize {
    ((throughput.mb_s() * 1e6 * duration.as_secs_f64()) as usize).clamp(SEQUENTIAL_BYTES_MIN, SEQUENTIAL_BYTES_MAX)
}

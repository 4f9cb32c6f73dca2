//! One attachment on one partition of its source, from round to round.
//!
//! ```text
//!          ┌──────────────────────── a failure: all but the place is let go; a pause ───────────────────────┐
//!          v                                                                                                  │
//!   open the store ──> wait for records ──> wait for a turn ──> flush the source ──> read ──> round ──> commit ──> apply ──> ...
//!          '── outputs that are pending ──────────────────────────────────────────────────────────────────────────^
//! ```
//!
//! A task of its own, which does nothing but wait; what blocks runs on its threads. It holds the engine only while it is at work, and ends
//! when it is told to, when its attachment is gone, and when the engine is.
//!
//! Rounds without effect are not committed one by one: the place is, after [`ROUNDS_WITHOUT_EFFECT_MAX`] of them, before the module is tried
//! again on a batch on which it failed, when the runner ends, and as soon as records are deleted behind the place that is on the disk. So what was
//! read, and had no effect, is not read again and again, nor taken for something that was deleted before it was read.

use super::{
    Control, Derivation, PAUSE_MAX, PAUSE_MIN, STOP_GRACE,
    frame::Commit,
    round::{self, Round, Task, Tries},
    store::Store,
    turns::{Turn, Turns},
};
use crate::{
    engine::Engine,
    error::{EngineError, Purpose},
    partition::{Partition, Phase, View},
    pool::SLICE,
    topic::Topic,
    transform::Attachment,
};
use bytes::Bytes;
use millpond_log::{Cursor, LogError};
use millpond_protocol::message::Durability;
use std::{
    pin::pin,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::watch,
    time::{Instant, interval_at, sleep},
};

/// See the module.
pub(super) struct Runner {
    engine: Weak<Engine>,
    topic: Arc<str>,
    partition: u32,
    derivation: Arc<Derivation>,
    /// Of the source.
    view: watch::Receiver<View>,
    control: watch::Receiver<Control>,
    turns: Turns,
    /// Failures since something worked.
    failures: u32,
    /// Of these, those of the module on the batch at its position.
    tries: Tries,
    /// Rounds without effect since the last commit.
    without_effect: u32,
    /// Up to here the source was read, or passed over and counted: where the store is opened again, none of it is counted as passed over.
    seen_to: i64,
}

/// Why a runner need not wait any more.
enum Wake {
    /// There are records behind its position.
    Records,
    /// Records are deleted, and on the disk it has not read them.
    Deletion,
}

/// Why a runner does not go on.
enum Halt {
    /// Nobody wants it any more.
    End,
    /// It may work after a pause.
    Failure(EngineError),
    /// It works once another version runs, something is set anew, or the broker starts again.
    Stop(EngineError),
}

impl From<EngineError> for Halt {
    fn from(error: EngineError) -> Halt {
        Halt::Failure(error)
    }
}

/// What it works with for one round.
struct Place {
    engine: Arc<Engine>,
    topic: Arc<Topic>,
    source: Arc<Partition>,
    attachment: Arc<Attachment>,
    targets: Vec<Arc<Topic>>,
    /// The topics for dead letters, behind those: one that is none any more may be gone.
    letters: Vec<Option<Arc<Topic>>>,
    /// The one that holds, by its place among all of them.
    letters_now: Option<u32>,
}

impl Runner {
    pub(super) fn new(engine: &Arc<Engine>, topic: &Topic, source: &Arc<Partition>, derivation: &Arc<Derivation>, turns: Turns) -> Runner {
        Runner {
            engine: Arc::downgrade(engine),
            topic: Arc::clone(&topic.name),
            partition: source.number(),
            derivation: Arc::clone(derivation),
            view: source.subscribe(),
            control: derivation.control.subscribe(),
            turns,
            failures: 0,
            tries: Tries::default(),
            without_effect: 0,
            seen_to: 0,
        }
    }

    pub(super) async fn run(mut self) {
        loop {
            let (error, has_stopped) = match self.work().await {
                Halt::End => return,
                Halt::Failure(error) => (error, false),
                Halt::Stop(error) => (error, true),
            };
            self.say(&error, has_stopped);
            let pause = PAUSE_MIN.saturating_mul(1 << self.failures.min(16)).min(PAUSE_MAX);
            self.failures += 1;
            let pause = async move { if has_stopped { std::future::pending().await } else { sleep(pause).await } };
            tokio::select! {
                () = pause => {}
                changed = self.control.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    // Another version, or other settings, have all their tries.
                    self.tries = Tries::default();
                }
                // The source is gone, or the broker: `changed` comes with every append, so it is not looked at here.
                () = ended(self.view.clone()) => return,
            }
            if self.control.borrow_and_update().is_over {
                return;
            }
        }
    }

    /// Tells once what keeps it from going on.
    fn say(&self, error: &EngineError, has_stopped: bool) {
        let mut wire = error.to_wire().message;
        if has_stopped {
            wire = format!("stopped: {wire}");
        }
        let (topic, partition) = (&*self.topic, self.partition);
        self.derivation.note(partition, |progress| {
            if progress.error.as_ref() != Some(&wire) {
                tracing::warn!(topic, partition, error = wire, "a derived topic does not go on");
                progress.error = Some(wire);
            }
        });
    }

    /// From the store on disk, round after round, until something is in the way.
    async fn work(&mut self) -> Halt {
        let mut store = match self.open().await {
            Ok(store) => store,
            Err(halt) => return halt,
        };
        loop {
            match self.step(store).await {
                Ok(after) => store = after,
                Err(halt) => return halt,
            }
        }
    }

    async fn open(&mut self) -> Result<Store, Halt> {
        let place = self.place()?;
        let (disk, dir) = (Arc::clone(&place.engine.services.disk), place.engine.data.derivation(self.derivation.id));
        let partition = self.partition;
        let store = place.engine.services.io.run(move || Store::open(disk, &dir, partition)).await??;
        if store.pending().is_empty() {
            self.note_place(&store);
        } else {
            self.note_undelivered(&store);
        }
        Ok(store)
    }

    /// What there is at this moment; the attachment may have another version than before.
    fn place(&self) -> Result<Place, Halt> {
        let engine = self.engine.upgrade().ok_or(Halt::End)?;
        if self.control.borrow().is_over {
            return Err(Halt::End);
        }
        let topic = engine.find_topic(&self.topic).map_err(|_| Halt::End)?;
        let is_ours = |attachment: &&Arc<Attachment>| {
            attachment.lasting.derivation.as_ref().is_some_and(|derivation| Arc::ptr_eq(derivation, &self.derivation))
        };
        let attachment = topic.runtime().derived.iter().find(is_ours).map(Arc::clone).ok_or(Halt::End)?;
        let targets = self.derivation.targets.iter().map(|target| engine.find_topic(&target.name)).collect::<Result<Vec<_>, _>>()?;
        let names = attachment.derive.as_ref().map(|settings| settings.letters(&attachment.on_error)).unwrap_or_default();
        let now = attachment.on_error.dead_letter_topic();
        now.map_or(Ok(()), |now| engine.find_topic(now).map(drop))?;
        let letters_now = names.iter().position(|name| Some(name.as_str()) == now);
        let letters_now = letters_now.and_then(|place| u32::try_from(targets.len() + place).ok());
        let letters = names.iter().map(|name| engine.find_topic(name).ok()).collect();
        let source = Arc::clone(topic.partition(self.partition, Purpose::Read)?);
        Ok(Place { engine, topic, source, attachment, targets, letters, letters_now })
    }

    /// One round, or what is left of the one before.
    async fn step(&mut self, store: Store) -> Result<Store, Halt> {
        if store.pending().is_empty() {
            match self.wait(&store).await {
                Ok(Wake::Records) => {}
                Ok(Wake::Deletion) => return self.keep_place(store).await,
                Err(halt) => {
                    self.end(store).await;
                    return Err(halt);
                }
            }
        }
        let mut turn = tokio::select! {
            turn = self.turns.clone().take(store.pending().is_empty()) => turn.ok_or(Halt::End)?,
            () = is_over(self.control.clone()) => return Err(Halt::End),
        };
        let place = self.place()?;
        let mut store = store;
        if store.pending().is_empty() {
            let end = self.view.borrow().watermarks.high_watermark;
            place.source.make_durable(end).await?;
            let Some(batches) = self.read(&place, &mut store, end).await? else {
                self.note_place(&store);
                return Ok(store);
            };
            store = self.round(&place, store, batches, &mut turn).await?;
        }
        self.note_undelivered(&store);
        let store = self.apply(&place, store).await?;
        self.note_place(&store);
        self.failures = 0;
        self.derivation.note(self.partition, |progress| progress.error = None);
        Ok(store)
    }

    /// Until there is something behind the position, or to be written down.
    async fn wait(&mut self, store: &Store) -> Result<Wake, Halt> {
        let mut has_waited = false;
        loop {
            let View { watermarks, phase } = *self.view.borrow_and_update();
            if phase != Phase::Serving {
                return Err(Halt::End);
            }
            if store.position() < watermarks.high_watermark {
                break;
            }
            if is_to_be_kept(store, watermarks.log_start) {
                return Ok(Wake::Deletion);
            }
            if store.position() > watermarks.high_watermark {
                let (end, position) = (watermarks.high_watermark, store.position());
                let error = format!("its source ends at {end}, and it has read up to {position}: the records between are lost");
                self.derivation.note(self.partition, |progress| progress.error = Some(error));
            }
            has_waited = true;
            tokio::select! {
                changed = self.view.changed() => changed.map_err(|_| Halt::End)?,
                () = is_over(self.control.clone()) => return Err(Halt::End),
            }
        }
        // Where nothing is flushed for the producers' sake, one flush for a while of records rather than for each.
        let linger = if has_waited { self.linger() } else { Duration::ZERO };
        if !linger.is_zero() {
            tokio::select! {
                () = sleep(linger) => {}
                () = is_over(self.control.clone()) => return Err(Halt::End),
            }
        }
        Ok(Wake::Records)
    }

    fn linger(&self) -> Duration {
        let Some(topic) = self.engine.upgrade().and_then(|engine| engine.find_topic(&self.topic).ok()) else { return Duration::ZERO };
        match topic.runtime().config.durability {
            Durability::Sync => Duration::ZERO,
            Durability::Interval(interval) => interval.min(LINGER_MAX),
            Durability::Os => LINGER_OS,
        }
    }

    /// Whole batches from the position on. None where the position has moved instead, over what can't be read any more.
    async fn read(&mut self, place: &Place, store: &mut Store, end: i64) -> Result<Option<Bytes>, Halt> {
        let reader = place.source.reader()?.clone();
        let position = store.position();
        let read = place.engine.services.io.run(move || reader.read_next(&mut Cursor::new(position), READ_BYTES_MAX, end)).await?;
        let (next, why) = match read {
            Ok(batches) => return Ok(Some(batches)),
            Err(LogError::OffsetOutOfRange { start, .. }) if position < start => (start, "was deleted before it was read"),
            Err(error @ LogError::Corrupt { .. }) if error.next_offset().is_some_and(|next| next > position) => {
                (error.next_offset().unwrap_or(position), "is damaged")
            }
            Err(error) => {
                let (topic, partition) = (Arc::clone(&self.topic), self.partition);
                return Err(EngineError::Log { topic, partition, source: Arc::new(error) }.into());
            }
        };
        let from = position.max(self.seen_to);
        if from < next {
            let (topic, partition) = (&*self.topic, self.partition);
            tracing::warn!(topic, partition, from, to = next, "a part of a derived topic's source {why}");
            self.derivation.note(partition, |progress| progress.skipped += next.abs_diff(from));
        }
        self.pass(store, next);
        Ok(None)
    }

    /// Sends batches through the module, and commits what comes of them.
    async fn round(&mut self, place: &Place, store: Store, batches: Bytes, turn: &mut Turn) -> Result<Store, Halt> {
        let position = store.position();
        let settings = place.attachment.derive.as_ref().ok_or(Halt::End)?;
        let task = Task {
            topic: Arc::clone(&self.topic),
            partition: self.partition,
            attachment: Arc::clone(&place.attachment),
            targets: place.targets.clone(),
            letters: place.letters_now,
            topics: Arc::clone(&place.engine.topics),
            producer_id: self.derivation.producer_id(self.partition),
            state_bytes_max: settings.state_bytes,
            section_bytes_max: place.engine.services.config.section_bytes_max,
            retries_left: self.tries.left(position, settings.retries),
        };
        let retries_left = task.retries_left;
        let has_begun = Arc::new(AtomicBool::new(false));
        let job = {
            let has_begun = Arc::clone(&has_begun);
            move || {
                has_begun.store(true, Ordering::Relaxed);
                let round = round::run(&task, &store, batches);
                (store, round)
            }
        };
        let mut job = pin!(place.topic.plugin.run(job));
        let mut slices = interval_at(Instant::now() + SLICE, SLICE);
        let (store, round) = loop {
            tokio::select! {
                done = &mut job => break done?,
                _ = slices.tick() => if has_begun.load(Ordering::Relaxed) { turn.make_way() },
                // Others have the threads. When its turn comes it finds that it was interrupted, and it writes nothing.
                () = grace_is_over(self.control.clone()) => return Err(self.given_up("for a thread to run the module on")),
            }
        };
        turn.leave_module();
        let Round { commit, failure, mut tally } = round?;
        match failure {
            // The next round begins with the batch that failed.
            _ if commit.position > position => {
                let store = self.commit(place, store, commit).await?;
                tally.set_stored(true);
                Ok(store)
            }
            // Its batch goes to the one that has taken its place.
            _ if place.attachment.is_interrupted() && !place.attachment.is_over() => Ok(store),
            failure if place.attachment.is_over() => {
                if failure.is_some() {
                    let (topic, partition, module) = (&*self.topic, self.partition, &*place.attachment.module);
                    tracing::info!(topic, partition, module, "a module was stopped at a batch, which has had no effect");
                }
                self.end(store).await;
                Err(Halt::End)
            }
            Some(error) => {
                self.tries.failed(&error);
                if store.position() > store.position_committed() {
                    self.keep_place(store).await?;
                }
                let stops = round::stops(&place.attachment, &error, retries_left);
                Err(if stops { Halt::Stop(error) } else { Halt::Failure(error) })
            }
            None => Err(EngineError::BatchRefused { reason: "a read of the source gave nothing" }.into()),
        }
    }

    async fn commit(&mut self, place: &Place, mut store: Store, commit: Commit) -> Result<Store, Halt> {
        if commit.has_no_effect() {
            self.pass(&mut store, commit.position);
            self.without_effect += 1;
            let is_due = self.without_effect > ROUNDS_WITHOUT_EFFECT_MAX || is_to_be_kept(&store, place.source.watermarks().log_start);
            return if is_due { self.keep_place(store).await } else { Ok(store) };
        }
        self.without_effect = 0;
        let job = move || store.commit(commit).map(|()| store);
        Ok(place.engine.services.flush.run(job).await??)
    }

    /// Goes on behind records that have no effect.
    fn pass(&mut self, store: &mut Store, position: i64) {
        store.pass(position);
        self.seen_to = self.seen_to.max(position);
    }

    /// Writes down how far it is, where nothing else is to be.
    async fn keep_place(&mut self, mut store: Store) -> Result<Store, Halt> {
        let engine = self.engine.upgrade().ok_or(Halt::End)?;
        self.without_effect = 0;
        let place = Commit { position: store.position(), ..Commit::default() };
        let job = move || store.commit(place).map(|()| store);
        let store = engine.services.flush.run(job).await??;
        self.note_place(&store);
        Ok(store)
    }

    async fn apply(&mut self, place: &Place, mut store: Store) -> Result<Store, Halt> {
        if store.pending().is_empty() {
            return Ok(store);
        }
        let topics: Vec<_> = place.targets.iter().cloned().map(Some).chain(place.letters.iter().cloned()).collect();
        tokio::select! {
            applied = place.engine.apply(&topics, store.pending()) => applied?,
            () = grace_is_over(self.control.clone()) => return Err(self.given_up("for its targets")),
        }
        let job = move || {
            store.applied();
            store
        };
        Ok(place.engine.services.io.run(job).await?)
    }

    /// Where it is told to end, it writes down how far it is.
    async fn end(&mut self, store: Store) {
        if self.control.borrow().is_over && store.position() > store.position_committed() {
            // Else it reads from there once more after the next start, and that is all.
            let _ = self.keep_place(store).await;
        }
    }

    /// It ends in the middle of something. Nothing is lost: what was committed is on the disk, and what was not has had no effect.
    fn given_up(&self, waited: &str) -> Halt {
        let (topic, partition) = (&*self.topic, self.partition);
        tracing::warn!(topic, partition, "a derived topic stops, and does not wait {waited}");
        Halt::End
    }

    fn note_undelivered(&self, store: &Store) {
        self.derivation.note(self.partition, |progress| {
            progress.undelivered = super::undelivered(store);
            progress.state_bytes = store.state().bytes();
            progress.file_bytes = store.file_bytes();
        });
    }

    fn note_place(&self, store: &Store) {
        self.derivation.note(self.partition, |progress| {
            progress.position = Some(store.position());
            progress.undelivered = None;
            progress.state_bytes = store.state().bytes();
            progress.state_entries = store.state().len() as u64;
            progress.file_bytes = store.file_bytes();
        });
    }
}

/// Whether what it has read is being deleted, and the disk does not know that it was read.
fn is_to_be_kept(store: &Store, log_start: i64) -> bool {
    store.position() > store.position_committed() && log_start > store.position_committed()
}

/// Waits until nobody wants a runner any more.
async fn is_over(mut control: watch::Receiver<Control>) {
    // Without a sender nobody does.
    let _ = control.wait_for(|control| control.is_over).await;
}

/// Likewise, and then for as long as what it is at may still take.
async fn grace_is_over(control: watch::Receiver<Control>) {
    is_over(control).await;
    sleep(STOP_GRACE).await;
}

/// Waits until a partition is no longer there.
async fn ended(mut view: watch::Receiver<View>) {
    let _ = view.wait_for(|view| view.phase != Phase::Serving).await;
}

/// What a round reads at most, give or take a batch.
const READ_BYTES_MAX: usize = 512 << 10;

/// So many rounds without effect are not committed: after a crash they are done again, and have none again.
const ROUNDS_WITHOUT_EFFECT_MAX: u32 = 64;

/// How long records of a source with `interval` are left for its own flush, at most.
const LINGER_MAX: Duration = Duration::from_secs(1);

/// How long records of a source with `os` gather before they are flushed.
const LINGER_OS: Duration = Duration::from_millis(100);

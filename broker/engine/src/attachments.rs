//! Attaching modules to topics.
//!
//! A change takes effect between two batches. It is on disk before it is in force, so a broker that was restarted runs what its topics
//! were told to run.

use crate::{
    catalogue::{Catalogue, StoredAttachment, StoredTopic},
    derive::{self, check_state},
    earlier,
    engine::Engine,
    error::{EngineError, runs_on, within, world_on},
    name::{self, NameOf},
    topic::{Runtime, Topic},
    topics::to_the_end,
    transform::{Attachment, Lasting},
};
use millpond_plugin::{Interrupt, MEMORY_BYTES_MAX, Module};
use millpond_protocol::message::{
    AttachLimits, AttachPoint, AttachTransform, AttachmentStatus, DetachTransform, ModuleRef, OnError, Pick, Undelivered,
};
use std::{
    ops::RangeInclusive,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::time::sleep;

/// Holds a request against what its module is, whatever topics there are: the world, the state that it keeps, and how many topics it writes
/// to. Whoever runs a module without a broker asks it too.
///
/// # Errors
///
/// [`EngineError::ModuleWrongWorld`], [`EngineError::InvalidConfig`], [`EngineError::AttachRefused`], [`EngineError::TooMany`].
pub fn check_attachment(module: &Module, request: &AttachTransform) -> Result<(), EngineError> {
    let (name, on, found) = (&request.module.name, request.on, module.world());
    if !runs_on(found, on) {
        return Err(EngineError::ModuleWrongWorld { module: name.clone(), found, on, wanted: world_on(on) });
    }
    match on {
        AttachPoint::Derive => derive::check_request(request, module),
        AttachPoint::Produce | AttachPoint::Partition | AttachPoint::Fetch => check_state(module, name, on, 0),
    }
}

impl Engine {
    /// Runs a module on a topic from its next batch on, behind those that run there already.
    ///
    /// # Errors
    ///
    /// [`EngineError::TopicNotFound`] (of the topic, or of the one for dead letters), [`EngineError::ModuleNotFound`],
    /// [`EngineError::ModuleVersionNotFound`], [`EngineError::ModuleWrongWorld`], [`EngineError::InvalidConfig`], [`EngineError::AttachRefused`],
    /// [`EngineError::AttachmentExists`] (this very module is attached there), [`EngineError::PlaceTaken`], [`EngineError::TooMany`], [`EngineError::Module`] (its `init` refused),
    /// [`EngineError::DataDir`], [`EngineError::ShuttingDown`].
    pub async fn attach(self: &Arc<Self>, request: AttachTransform) -> Result<(), EngineError> {
        let engine = Arc::clone(self);
        to_the_end(async move { engine.attach_now(request).await }).await
    }

    /// Stops running a module on a topic from its next batch on. Gives how it was at its end.
    ///
    /// # Errors
    ///
    /// [`EngineError::TopicNotFound`], [`EngineError::AttachmentNotFound`], [`EngineError::DataDir`], [`EngineError::ShuttingDown`].
    pub async fn detach(self: &Arc<Self>, request: DetachTransform) -> Result<AttachmentStatus, EngineError> {
        let engine = Arc::clone(self);
        to_the_end(async move { engine.detach_now(request).await }).await
    }

    async fn attach_now(self: Arc<Self>, request: AttachTransform) -> Result<(), EngineError> {
        let AttachTransform { topic: topic_name, module: ModuleRef { name, pick }, on, view, .. } = request.clone();
        check_settings(&request)?;
        loop {
            self.refuse_while_closing()?;
            let version = self.find_module(&name)?.stored.pick(&name, &pick)?.version;
            // It may be an old one that has to be loaded first.
            let module = self.loaded(&name, version).await?;

            let mut catalogue = self.catalogue.lock().await;
            self.refuse_while_closing()?;
            let topic = self.find_topic(&topic_name)?;
            if self.find_module(&name)?.stored.pick(&name, &pick)?.version != version {
                // Another change came between.
                continue;
            }
            check_attachment(&module, &request)?;
            let runtime = topic.runtime();
            check_writers(&catalogue, &request)?;
            self.check_place(&runtime, &topic_name, &name, on, view.as_deref())?;
            if let Some(dead_letters) = request.on_error.dead_letter_topic() {
                self.find_topic(dead_letters)?;
            }
            let (derive, derivation) = match on {
                AttachPoint::Derive => Some(self.prepare_derivation(&catalogue, &request, &topic).await?).unzip(),
                _ => (None, None),
            };
            let pinned = (pick != Pick::Current).then_some(version);
            let derived = derive.as_ref().map(|derive| derive.id);
            let stored = StoredAttachment::new(request.clone(), pinned, derive);
            let attached =
                self.put_in_force(&mut catalogue, (&topic, &runtime), stored, (version, &module), self.workshop.lasting(derivation)).await;
            if attached.is_err() {
                self.remove_derivations(derived);
            }
            attached?;
            derive::start(&self, &topic);
            self.keep_loaded(&name, version, module);
            tracing::info!(topic = topic_name, module = name, version, on = %on, "a module was attached");
            return Ok(());
        }
    }

    /// Has a version that runs from now on at hand, and lets go of those that run no more.
    pub(crate) fn keep_loaded(&self, name: &str, version: u32, module: Module) {
        if let Some(deployed) = self.modules.write().get_mut(name) {
            deployed.loaded.insert(version, Ok(module));
        }
        self.forget_unused(name);
    }

    /// Starts a module, and attaches it: on disk, and then in memory.
    async fn put_in_force(
        &self,
        catalogue: &mut Catalogue,
        (topic, runtime): (&Topic, &Runtime),
        stored: StoredAttachment,
        (version, module): (u32, &Module),
        lasting: Lasting,
    ) -> Result<(), EngineError> {
        let attached = self.start(&stored, version, module, lasting).await?;
        let mut next_runtime = Runtime::clone(runtime);
        next_runtime.epoch += 1;
        next_runtime.add(attached);
        self.change_topic(catalogue, topic, next_runtime, |topic| topic.attachments.push(stored)).await
    }

    async fn detach_now(self: Arc<Self>, request: DetachTransform) -> Result<AttachmentStatus, EngineError> {
        let DetachTransform { topic: topic_name, module, on, view, force } = request;
        let mut catalogue = self.catalogue.lock().await;
        self.refuse_while_closing()?;
        let topic = self.find_topic(&topic_name)?;
        let runtime = topic.runtime();
        let is_it = |attachment: &&Arc<Attachment>| attachment.is(&module, on, view.as_deref());
        let Some(attachment) = runtime.attachments().find(is_it) else {
            return Err(EngineError::AttachmentNotFound { topic: topic_name, module, on });
        };
        let would_be_lost = attachment.lasting.derivation.as_ref().and_then(|derivation| derivation.would_be_lost());
        if let Some((partition, Undelivered { batches, committed })) = would_be_lost.filter(|_| !force) {
            return Err(EngineError::AttachRefused {
                reason: format!(
                    "what `{module}` has made of records before offset {committed} of partition {partition} is not in its targets yet \
                     ({batches} batches), and would be lost"
                ),
                hint: "`millpond topic describe TOPIC` says what they wait for; to lose it all the same, `--force`",
            });
        }
        let mut next_runtime = Runtime::clone(&runtime);
        next_runtime.epoch += 1;
        next_runtime.remove(&module, on, view.as_deref());
        let keep = |attachment: &StoredAttachment| !attachment.is(&module, on, view.as_deref());
        self.change_topic(&mut catalogue, &topic, next_runtime, |topic| topic.attachments.retain(keep)).await?;
        self.end([attachment]).await;
        if let Some(derivation) = &attachment.lasting.derivation {
            derivation.learn_places(&self.services, &self.data).await;
        }
        let status = topic.status_of(attachment, false);
        self.remove_derivations(attachment.lasting.derivation.as_ref().map(|derivation| derivation.id));
        self.forget_unused(&module);
        tracing::info!(topic = topic_name, module, on = %on, "a module was detached");
        Ok(status)
    }

    /// Lets go of what runs no more. Those that derive topics end now; the others have a while for the batches that they are at.
    pub(crate) async fn end(&self, attachments: impl IntoIterator<Item = &Arc<Attachment>>) {
        let (derived, others): (Vec<_>, Vec<_>) = attachments.into_iter().partition(|attachment| attachment.on == AttachPoint::Derive);
        derive::stop(&derived).await;
        self.end_later(others.into_iter().map(|attachment| (attachment, attachment.lasting.interrupt.clone())));
    }

    /// Writes a change of one topic, then puts it in force.
    pub(crate) async fn change_topic(
        &self,
        catalogue: &mut Catalogue,
        topic: &Topic,
        runtime: Runtime,
        change: impl FnOnce(&mut StoredTopic),
    ) -> Result<(), EngineError> {
        self.save(catalogue, |next| {
            if let Some(stored) = next.topics.get_mut(&*topic.name) {
                stored.epoch = runtime.epoch;
                change(stored);
            }
        })
        .await?;
        self.put_in_force_on(topic, runtime);
        Ok(())
    }

    /// From the next batch on. What an attachment is at that another one has taken the place of has a while to come to its end.
    pub(crate) fn put_in_force_on(&self, topic: &Topic, runtime: Runtime) {
        let before = topic.runtime();
        topic.set_runtime(runtime);
        let now = topic.runtime();
        let is_replaced = |old: &&Arc<Attachment>| {
            let takes_its_place = |new: &Arc<Attachment>| !Arc::ptr_eq(old, new) && new.is(&old.module, old.on, old.view.as_deref());
            now.attachments().any(takes_its_place)
        };
        let replaced = before.attachments().filter(is_replaced).inspect(|old| {
            // Lest it be forgotten with it.
            old.memory_bytes_peak();
        });
        self.end_later(replaced.map(|old| (old, old.interrupt.clone())));
        let earlier = Arc::downgrade(&topic.earlier);
        self.services.timers.spawn(async move {
            sleep(earlier::KEPT).await;
            if let Some(earlier) = earlier.upgrade() {
                earlier.forget(Instant::now());
            }
        });
    }

    /// Ends what attachments are at that run no more, after a while. One that a batch went through which may come again is ended only if it
    /// hangs, and looked at for as long as that one may come.
    fn end_later<'a>(&self, ending: impl Iterator<Item = (&'a Arc<Attachment>, Interrupt)>) {
        let (again, at_once): (Vec<_>, Vec<_>) =
            ending.partition(|(attachment, _)| matches!(attachment.on, AttachPoint::Produce | AttachPoint::Partition));
        let mut again: Vec<_> = again.into_iter().map(|(attachment, interrupt)| (Arc::downgrade(attachment), interrupt)).collect();
        let at_once: Vec<_> = at_once.into_iter().map(|(_, interrupt)| interrupt).collect();
        if again.is_empty() && at_once.is_empty() {
            return;
        }
        self.services.timers.spawn(async move {
            let begun = Instant::now();
            sleep(END_GRACE).await;
            at_once.iter().for_each(Interrupt::raise);
            while !again.is_empty() && begun.elapsed() < earlier::KEPT {
                again.retain(|(attachment, interrupt)| {
                    let Some(attachment) = attachment.upgrade() else { return false };
                    let hangs = attachment.busy_for().is_some_and(|time| time >= END_GRACE);
                    if hangs {
                        interrupt.raise();
                    }
                    !hangs
                });
                sleep(END_GRACE).await;
            }
        });
    }

    fn check_place(&self, runtime: &Runtime, topic: &str, module: &str, on: AttachPoint, view: Option<&str>) -> Result<(), EngineError> {
        if runtime.attachments().any(|attachment| attachment.is(module, on, view)) {
            return Err(EngineError::AttachmentExists { topic: topic.to_owned(), module: module.to_owned(), on });
        }
        if let (AttachPoint::Partition, Some(other)) = (on, &runtime.partitioner) {
            return Err(EngineError::PlaceTaken { topic: topic.to_owned(), module: other.module.as_ref().to_owned(), on });
        }
        let limit = self.services.config.attachments_per_topic_max;
        if runtime.attachments().count() >= limit {
            return Err(EngineError::TooMany { what: "modules on one topic", limit });
        }
        Ok(())
    }

    /// The topics that run another version once it is the current one, each with that started on it.
    pub(crate) async fn replacements(
        &self,
        catalogue: &Catalogue,
        name: &str,
        version: u32,
        module: &Module,
    ) -> Result<Vec<(Arc<Topic>, Runtime)>, EngineError> {
        let mut replacements = Vec::new();
        for (topic_name, stored) in &catalogue.topics {
            let follows = |attachment: &&StoredAttachment| attachment.module == name && attachment.version.is_none();
            let attachments: Vec<_> = stored.attachments.iter().filter(follows).collect();
            if attachments.is_empty() {
                continue;
            }
            let topic = self.find_topic(topic_name)?;
            let mut runtime = Runtime::clone(&topic.runtime());
            runtime.epoch += 1;
            for attachment in attachments {
                check_attachment(module, &attachment.request(topic_name)).map_err(|refused| in_place(refused, topic_name))?;
                let old = runtime.attachments().find(|old| old.is(name, attachment.on, attachment.view.as_deref())).map(Arc::clone);
                let lasting = old.map_or_else(|| self.workshop.lasting(None), |old| old.lasting.clone());
                let attached = self.start(attachment, version, module, lasting).await?;
                runtime.replace(&attached);
            }
            replacements.push((topic, runtime));
        }
        Ok(replacements)
    }

    /// Starts a module, which goes on counting where the one before it was.
    pub(crate) async fn start(
        &self,
        stored: &StoredAttachment,
        version: u32,
        module: &Module,
        lasting: Lasting,
    ) -> Result<Arc<Attachment>, EngineError> {
        let plan = stored.plan(version, lasting);
        let (workshop, module) = (self.workshop.clone(), module.clone());
        self.services.starts.run(move || workshop.attach(plan, &module)).await?
    }
}

/// Modules on produce and partitioners run on what producers send: not on dead letters, and not on what is derived. So no topic has both.
pub(crate) fn check_writers(catalogue: &Catalogue, request: &AttachTransform) -> Result<(), EngineError> {
    let AttachTransform { topic, on, on_error, .. } = request;
    if matches!(on, AttachPoint::Produce | AttachPoint::Partition) {
        if let Some((module, topics)) = catalogue.deriving_into(topic) {
            return Err(EngineError::TopicDerived { topic: topic.clone(), module, topics });
        }
        if let Some((module, topics)) = catalogue.senders_of_dead_letters(topic) {
            let topics = topics.join(", ");
            return Err(EngineError::AttachRefused {
                reason: format!("`{topic}` takes the dead letters of `{module}` on {topics}, and no module runs on those"),
                hint: "attach it to another topic, or give that one another `--on-error`: `millpond transform alter`",
            });
        }
    }
    match on_error.dead_letter_topic() {
        Some(letters) if catalogue.runs_on_produced(letters) => Err(EngineError::AttachRefused {
            reason: format!("modules run on what is produced to `{letters}`, and would not on dead letters"),
            hint: "name another topic for them, or detach those first: `millpond topic describe TOPIC` shows them",
        }),
        _ => Ok(()),
    }
}

/// Why a version can't take the place of the one that is attached to this topic.
fn in_place(refused: EngineError, topic: &str) -> EngineError {
    match refused {
        EngineError::ModuleWrongWorld { module, .. } => EngineError::ModuleInUse { module, topics: vec![topic.to_owned()] },
        EngineError::AttachRefused { reason, hint } => EngineError::AttachRefused {
            reason: format!("{reason}; as it is attached to `{topic}`, this version can't take its place"),
            hint,
        },
        other => other,
    }
}

/// Holds what an attachment may be against what the broker can do, whatever else there is.
pub(crate) fn check_settings(request: &AttachTransform) -> Result<(), EngineError> {
    let AttachLimits { memory_bytes, time_ms, output_bytes, log_bytes_per_second } = request.limits;
    let ranges = [
        ("memory_bytes", memory_bytes, MEMORY_BYTES),
        ("time_ms", time_ms, TIME_MS),
        ("output_bytes", output_bytes, OUTPUT_BYTES),
        ("log_bytes_per_second", log_bytes_per_second, LOG_BYTES_PER_SECOND),
    ];
    for (setting, value, range) in ranges {
        value.map_or(Ok(()), |value| within(setting, value, &range))?;
    }
    if request.derive.is_some() != (request.on == AttachPoint::Derive) {
        let hint = "attach it with `--into TOPIC[,TOPIC...]` to derive topics, and without to run it on another place";
        return Err(EngineError::AttachRefused { reason: "what derives topics has targets, and nothing else has".to_owned(), hint });
    }
    let refused = |reason: &str, hint| Err(EngineError::AttachRefused { reason: reason.to_owned(), hint });
    match (&request.view, request.on) {
        (Some(view), AttachPoint::Fetch) => name::check(NameOf::View, view)?,
        (None, AttachPoint::Fetch) => return refused("a view has a name, by which consumers ask for it", "give it one with `--name NAME`"),
        (Some(_), _) => return refused("only a view has a name", "leave out `--name`, or attach it with `--on fetch`"),
        (None, _) => {}
    }
    match &request.on_error {
        OnError::DeadLetter(_) if request.on == AttachPoint::Fetch => refused(
            "each consumer of a view reads for itself, and would make dead letters of the same records",
            "attach it with `--on-error skip`, or with `--on-error reject` to stop consumers at such a record",
        ),
        OnError::Skip | OnError::DeadLetter(_) if request.on == AttachPoint::Partition => {
            refused("a partitioner says where records go, and without an answer they have no place", "attach it with `--on-error reject`")
        }
        OnError::Stop if request.on != AttachPoint::Derive => {
            refused("only what derives topics can stop before a record", "attach it with `--on-error reject`")
        }
        OnError::DeadLetter(topic) if *topic == request.topic => {
            refused("the dead letters of a topic can't go to that topic itself", "make a topic for them: `millpond topic create TOPIC`")
        }
        _ => Ok(()),
    }
}

/// What a module is at when it is detached has so long to come to its end. Behind it the batch is refused and may be sent again; it is not held
/// against the module.
const END_GRACE: Duration = Duration::from_secs(1);

/// Of one instance: a page to what an instance can have at most.
const MEMORY_BYTES: RangeInclusive<u64> = 65_536..=MEMORY_BYTES_MAX as u64;

/// For one batch.
const TIME_MS: RangeInclusive<u64> = 1..=60_000;

/// For one batch.
const OUTPUT_BYTES: RangeInclusive<u64> = 1024..=1 << 30;

/// Of the broker's log.
const LOG_BYTES_PER_SECOND: RangeInclusive<u64> = 0..=1 << 20;

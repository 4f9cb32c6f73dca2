//! Changing how a module runs on a topic, in its place.
//!
//! ```text
//! what is asked for ──> what it is then, by the rules of attaching ──> the module starts with it ──> on disk ──> in force, between two batches
//! ```
//!
//! The module keeps its place in its chain, its counts and its log; one that derives topics keeps its position and its state, and what it writes
//! stays under the same producer. So nothing is derived twice or left out for it, and one that has stopped tries again. Where it is refused,
//! whatever ran goes on as it is.

use crate::{
    attachments::{check_attachment, check_settings, check_writers},
    catalogue::{Catalogue, StoredAttachment},
    derive::{check_bounds, check_targets},
    engine::Engine,
    error::EngineError,
    topic::{Runtime, Topic},
    topics::to_the_end,
    transform::Attachment,
};
use millpond_plugin::Module;
use millpond_protocol::message::{AlterTransform, AttachPoint, AttachmentStatus, Pick};
use std::sync::Arc;

impl Engine {
    /// Changes how a module runs on a topic, from the next batch on; what is not named stays as it is. Gives how it is then. Once begun it is
    /// finished, even if the future is dropped.
    ///
    /// # Errors
    ///
    /// [`EngineError::TopicNotFound`] (of the topic, or of the one for dead letters), [`EngineError::AttachmentNotFound`],
    /// [`EngineError::ModuleNotFound`], [`EngineError::ModuleVersionNotFound`], [`EngineError::ModuleWrongWorld`],
    /// [`EngineError::InvalidConfig`], [`EngineError::AttachRefused`], [`EngineError::Module`] (its `init` refused), [`EngineError::DataDir`],
    /// [`EngineError::ShuttingDown`]. In all these cases nothing is changed.
    pub async fn alter_attachment(self: &Arc<Self>, request: AlterTransform) -> Result<AttachmentStatus, EngineError> {
        let engine = Arc::clone(self);
        to_the_end(async move { engine.alter_attachment_now(&request).await }).await
    }

    async fn alter_attachment_now(self: Arc<Self>, request: &AlterTransform) -> Result<AttachmentStatus, EngineError> {
        check_change(request)?;
        let name = &request.module.name;
        loop {
            self.refuse_while_closing()?;
            let topic = self.find_topic(&request.topic)?;
            let (_, version) = self.after(&*self.catalogue.lock().await, request)?;
            // It may be an old one that has to be loaded first.
            let module = self.loaded(name, version).await?;

            let mut catalogue = self.catalogue.lock().await;
            self.refuse_while_closing()?;
            let (stored, version_now) = self.after(&catalogue, request)?;
            if version_now != version || !self.is_there(&topic) {
                // Another change came between.
                continue;
            }
            let runtime = topic.runtime();
            let old = find(&runtime, request)?;
            if let Some(derivation) = &old.lasting.derivation {
                derivation.learn_places(&self.services, &self.data).await;
            }
            self.check_altered(&catalogue, &topic, &stored, (&module, old))?;
            let attached = self.start(&stored, version, &module, old.lasting.clone()).await?;
            let mut next_runtime = Runtime::clone(&runtime);
            next_runtime.epoch += 1;
            next_runtime.replace(&attached);
            let change = |attachments: &mut Vec<StoredAttachment>| {
                let is_it = |one: &&mut StoredAttachment| one.is(&stored.module, stored.on, stored.view.as_deref());
                if let Some(before) = attachments.iter_mut().find(is_it) {
                    *before = stored.clone();
                }
            };
            self.change_topic(&mut catalogue, &topic, next_runtime, |topic| change(&mut topic.attachments)).await?;
            self.keep_loaded(name, version, module);
            tracing::info!(topic = request.topic, module = name, version, on = %request.on, "how a module runs was changed");
            return Ok(topic.status_of(&attached, false));
        }
    }

    /// What it is after the change, and the version that runs then.
    fn after(&self, catalogue: &Catalogue, request: &AlterTransform) -> Result<(StoredAttachment, u32), EngineError> {
        let AlterTransform { module, on, view, .. } = request;
        let topic = catalogue.topics.get(&request.topic);
        let attachments = topic.map(|topic| topic.attachments.as_slice()).unwrap_or_default();
        let before = attachments.iter().find(|one| one.is(&module.name, *on, view.as_deref())).ok_or_else(|| not_found(request))?;
        if let Some(name) = request.params_removed.iter().find(|name| !before.params.contains_key(*name)) {
            return Err(EngineError::AttachRefused {
                reason: format!("the module is told no parameter `{name}`, so it can't be removed"),
                hint: "`millpond topic describe TOPIC` shows what it is told",
            });
        }
        let versions = self.find_module(&module.name)?.stored;
        let named = match &module.pick {
            Pick::Current => None,
            pick => Some(versions.pick(&module.name, pick)?.version),
        };
        let stored = before.altered(request, named);
        let pick = stored.version.map_or(Pick::Current, Pick::Version);
        let version = versions.pick(&module.name, &pick)?.version;
        Ok((stored, version))
    }

    /// Holds what it would be against the rules of attaching.
    fn check_altered(
        &self,
        catalogue: &Catalogue,
        topic: &Topic,
        stored: &StoredAttachment,
        (module, old): (&Module, &Attachment),
    ) -> Result<(), EngineError> {
        let request = stored.request(&topic.name);
        check_settings(&request)?;
        check_attachment(module, &request)?;
        check_writers(catalogue, &request)?;
        let letters = request.on_error.dead_letter_topic();
        letters.map_or(Ok(()), |letters| self.find_topic(letters).map(drop))?;
        let (Some(into), Some(derivation)) = (&request.derive, &old.lasting.derivation) else { return Ok(()) };
        let all_letters = stored.derive.as_ref().map_or(0, |derive| derive.letters(&stored.on_error).len());
        if all_letters > LETTERS_MAX {
            return Err(EngineError::TooMany { what: "topics that have taken the dead letters of one module", limit: LETTERS_MAX });
        }
        check_targets(catalogue, &topic.name, into, letters)?;
        check_bounds(catalogue, topic.partition_count(), into, Some(derivation.id))?;
        let has = derivation.state_bytes();
        if has > into.state_bytes {
            let rule = format!("on one of the partitions it has {has} bytes of state already");
            return Err(EngineError::InvalidConfig { setting: "state_bytes", value: into.state_bytes, rule });
        }
        Ok(())
    }

    /// Whether it is still the topic of its name.
    fn is_there(&self, topic: &Arc<Topic>) -> bool {
        self.find_topic(&topic.name).is_ok_and(|found| Arc::ptr_eq(&found, topic))
    }
}

/// So many topics may one attachment be told for its dead letters, one after the other.
const LETTERS_MAX: usize = 32;

/// What can't be asked for, whatever there is.
fn check_change(request: &AlterTransform) -> Result<(), EngineError> {
    let refused = |reason: &str, hint| Err(EngineError::AttachRefused { reason: reason.to_owned(), hint });
    if request.follow_current && request.module.pick != Pick::Current {
        return refused("it can't stay one version and follow the current one", "name the version, or none");
    }
    if request.on != AttachPoint::Derive && (request.state_bytes.is_some() || request.retries.is_some()) {
        return refused("only what derives topics has state and retries", "leave out `--state-bytes` and `--retries`");
    }
    if let Some(name) = request.params_removed.iter().find(|name| request.params.contains_key(*name)) {
        return refused(&format!("the parameter `{name}` is set and removed"), "name it once");
    }
    Ok(())
}

fn find<'a>(runtime: &'a Runtime, request: &AlterTransform) -> Result<&'a Arc<Attachment>, EngineError> {
    let is_it = |one: &&Arc<Attachment>| one.is(&request.module.name, request.on, request.view.as_deref());
    runtime.attachments().find(is_it).ok_or_else(|| not_found(request))
}

fn not_found(request: &AlterTransform) -> EngineError {
    EngineError::AttachmentNotFound { topic: request.topic.clone(), module: request.module.name.clone(), on: request.on }
}

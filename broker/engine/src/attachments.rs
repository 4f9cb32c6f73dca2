//! Uploading modules, and attaching them to topics.
//!
//! A change takes effect between two batches. It is on disk before it is in force, so a broker that was restarted runs what its topics
//! were told to run. Uploading a module again under its name puts the new one in the place of the old one on every topic, or, if
//! one of them does not take it, on none.

use crate::{
    catalogue::{Catalogue, StoredAttachment, StoredModule, StoredTopic},
    engine::Engine,
    error::{EngineError, place_of, world_on},
    modules::{AttachmentPlan, Deployed},
    name,
    name::NameOf,
    topic::{Runtime, Topic},
    topics::to_the_end,
    transform::Attachment,
};
use bytes::Bytes;
use millpond_plugin::Module;
use millpond_protocol::message::{AttachPoint, AttachTransform, DetachTransform, ModuleInfo, ReplacedModule};
use std::{collections::BTreeMap, sync::Arc};
use tokio::sync::MutexGuard;

impl Engine {
    /// Checks, compiles and keeps a module. Takes seconds for a large one. Once begun it is finished, even if the future is dropped.
    ///
    /// The answer says which module it has taken the place of, if there was another one by this name.
    ///
    /// # Errors
    ///
    /// [`EngineError::InvalidName`], [`EngineError::ModuleTooLarge`], [`EngineError::Module`] (not a module, wrong world, an import
    /// that is not granted, or it does not start on a topic where the name is attached), [`EngineError::ModuleInUse`] (attached, and
    /// of another world than before), [`EngineError::TooMany`], [`EngineError::DataDir`], [`EngineError::ShuttingDown`].
    pub async fn deploy_module(self: &Arc<Self>, name: &str, wasm: Bytes) -> Result<ModuleInfo, EngineError> {
        let (engine, name) = (Arc::clone(self), name.to_owned());
        to_the_end(async move { engine.deploy_module_now(name, wasm).await }).await
    }

    /// Removes a module.
    ///
    /// # Errors
    ///
    /// [`EngineError::ModuleNotFound`], [`EngineError::ModuleInUse`], [`EngineError::DataDir`], [`EngineError::ShuttingDown`].
    pub async fn delete_module(self: &Arc<Self>, name: &str) -> Result<(), EngineError> {
        let (engine, name) = (Arc::clone(self), name.to_owned());
        to_the_end(async move { engine.delete_module_now(&name).await }).await
    }

    /// Runs a module on a topic from its next batch on, behind those that run there already.
    ///
    /// # Errors
    ///
    /// [`EngineError::TopicNotFound`], [`EngineError::ModuleNotFound`], [`EngineError::ModuleWrongWorld`],
    /// [`EngineError::AttachmentExists`] (this very module is attached there), [`EngineError::PlaceTaken`], [`EngineError::TooMany`], [`EngineError::Module`] (its `init` refused),
    /// [`EngineError::DataDir`], [`EngineError::ShuttingDown`].
    pub async fn attach(self: &Arc<Self>, request: AttachTransform) -> Result<(), EngineError> {
        let engine = Arc::clone(self);
        to_the_end(async move { engine.attach_now(request).await }).await
    }

    /// Stops running a module on a topic from its next batch on.
    ///
    /// # Errors
    ///
    /// [`EngineError::TopicNotFound`], [`EngineError::AttachmentNotFound`], [`EngineError::DataDir`], [`EngineError::ShuttingDown`].
    pub async fn detach(self: &Arc<Self>, request: DetachTransform) -> Result<(), EngineError> {
        let engine = Arc::clone(self);
        to_the_end(async move { engine.detach_now(request).await }).await
    }

    async fn deploy_module_now(self: Arc<Self>, name: String, wasm: Bytes) -> Result<ModuleInfo, EngineError> {
        name::check(NameOf::Module, &name)?;
        let limit = self.services.config.max_module_bytes;
        if wasm.len() as u64 > limit {
            return Err(EngineError::ModuleTooLarge { bytes: wasm.len() as u64, limit });
        }
        self.refuse_while_closing()?;
        // Compiled before the catalogue is held: it may take seconds.
        let module = {
            let (workshop, name, wasm) = (self.workshop.clone(), name.clone(), wasm.clone());
            self.services.background.run(move || workshop.load(&name, &wasm)).await??
        };

        let mut catalogue = self.catalogue.lock().await;
        self.refuse_while_closing()?;
        let modules_max = self.services.config.modules_max;
        if !catalogue.modules.contains_key(&name) && catalogue.modules.len() >= modules_max {
            return Err(EngineError::TooMany { what: "modules", limit: modules_max });
        }
        let replacements = self.replacements(&catalogue.topics, &name, &module).await?;
        let deployed = self.keep(&module, wasm).await?;
        let replaced = catalogue.modules.get(&name).filter(|old| old.sha256 != deployed.sha256);
        let replaced = replaced.map(|old| ReplacedModule { sha256: old.sha256.clone(), topics: catalogue.topics_with(&name) });
        self.save(&mut catalogue, |next| {
            let stored = StoredModule::new(deployed.sha256.clone(), deployed.size_bytes, deployed.world.clone());
            next.modules.insert(name.clone(), stored);
            for (topic, runtime) in &replacements {
                if let Some(stored) = next.topics.get_mut(&*topic.name) {
                    stored.epoch = runtime.epoch;
                }
            }
        })
        .await?;
        for (topic, runtime) in replacements {
            topic.set_runtime(runtime);
        }
        let info = ModuleInfo { replaced, ..deployed.info(&name, catalogue.topics_with(&name)) };
        tracing::info!(module = name, sha256 = info.sha256, world = info.world, "a module was deployed");
        self.modules.write().insert(name, deployed);
        if let Some(old) = &info.replaced {
            self.drop_unused(&catalogue, &old.sha256).await;
        }
        Ok(info)
    }

    async fn delete_module_now(self: Arc<Self>, name: &str) -> Result<(), EngineError> {
        let mut catalogue = self.catalogue.lock().await;
        self.refuse_while_closing()?;
        let deployed = self.find_module(name)?;
        let topics = catalogue.topics_with(name);
        if !topics.is_empty() {
            return Err(EngineError::ModuleInUse { module: name.to_owned(), topics });
        }
        self.save(&mut catalogue, |next| {
            next.modules.remove(name);
        })
        .await?;
        self.modules.write().remove(name);
        self.drop_unused(&catalogue, &deployed.sha256).await;
        tracing::info!(module = name, "a module was deleted");
        Ok(())
    }

    async fn attach_now(self: Arc<Self>, request: AttachTransform) -> Result<(), EngineError> {
        let AttachTransform { topic: topic_name, module: module_name, on, params } = request;
        let mut catalogue = self.catalogue.lock().await;
        self.refuse_while_closing()?;
        let topic = self.find_topic(&topic_name)?;
        let module = self.find_module(&module_name)?.module?;
        if place_of(module.world()) != on {
            return Err(EngineError::ModuleWrongWorld { module: module_name, found: module.world(), on, wanted: world_on(on) });
        }
        let runtime = topic.runtime();
        self.check_place(&runtime, &topic_name, &module_name, on)?;
        let stored = StoredAttachment::new(module_name, on, params);
        let attached = self.start(&stored, &module, None).await?;

        let mut next_runtime = Runtime::clone(&runtime);
        next_runtime.epoch += 1;
        let module = Arc::clone(&attached.module);
        next_runtime.add(attached);
        self.change_topic(&mut catalogue, &topic, next_runtime, |topic| topic.attachments.push(stored)).await?;
        tracing::info!(topic = topic_name, %module, on = %on, "a module was attached");
        Ok(())
    }

    async fn detach_now(self: Arc<Self>, request: DetachTransform) -> Result<(), EngineError> {
        let DetachTransform { topic: topic_name, module, on } = request;
        let mut catalogue = self.catalogue.lock().await;
        self.refuse_while_closing()?;
        let topic = self.find_topic(&topic_name)?;
        let runtime = topic.runtime();
        if !runtime.attachments().any(|attachment| *attachment.module == *module && attachment.on == on) {
            return Err(EngineError::AttachmentNotFound { topic: topic_name, module, on });
        }
        let mut next_runtime = Runtime::clone(&runtime);
        next_runtime.epoch += 1;
        next_runtime.remove(&module, on);
        let keep = |attachment: &StoredAttachment| attachment.module != module || attachment.on != on;
        self.change_topic(&mut catalogue, &topic, next_runtime, |topic| topic.attachments.retain(keep)).await?;
        tracing::info!(topic = topic_name, module, on = %on, "a module was detached");
        Ok(())
    }

    /// Writes a change of one topic, then puts it in force.
    async fn change_topic(
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
        topic.set_runtime(runtime);
        Ok(())
    }

    fn check_place(&self, runtime: &Runtime, topic: &str, module: &str, on: AttachPoint) -> Result<(), EngineError> {
        if runtime.attachments().any(|attachment| attachment.on == on && &*attachment.module == module) {
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

    /// The topics that a new upload changes, each with the module started on it.
    async fn replacements(
        &self,
        stored: &BTreeMap<String, StoredTopic>,
        name: &str,
        module: &Module,
    ) -> Result<Vec<(Arc<Topic>, Runtime)>, EngineError> {
        let mut replacements = Vec::new();
        for (topic_name, stored) in stored {
            let attachments: Vec<_> = stored.attachments.iter().filter(|attachment| attachment.module == name).collect();
            if attachments.is_empty() {
                continue;
            }
            let topic = self.find_topic(topic_name)?;
            let mut runtime = Runtime::clone(&topic.runtime());
            runtime.epoch += 1;
            for attachment in attachments {
                if place_of(module.world()) != attachment.on {
                    return Err(EngineError::ModuleInUse { module: name.to_owned(), topics: vec![topic_name.clone()] });
                }
                let old = runtime.attachments().find(|old| &*old.module == name && old.on == attachment.on).map(Arc::clone);
                let attached = self.start(attachment, module, old).await?;
                runtime.replace(&attached);
            }
            replacements.push((topic, runtime));
        }
        Ok(replacements)
    }

    /// Starts a module, which goes on counting where the one before it was.
    async fn start(
        &self,
        stored: &StoredAttachment,
        module: &Module,
        before: Option<Arc<Attachment>>,
    ) -> Result<Arc<Attachment>, EngineError> {
        let counters = before.map_or_else(Arc::default, |before| Arc::clone(&before.counters));
        let plan = AttachmentPlan { name: stored.module.clone(), on: stored.on, params: stored.param_pairs(), counters };
        let (workshop, module) = (self.workshop.clone(), module.clone());
        self.services.plugin.run(move || workshop.attach(plan, &module)).await?
    }

    /// Keeps the bytes of a module under their hash.
    async fn keep(&self, module: &Module, wasm: Bytes) -> Result<Deployed, EngineError> {
        let (path, size_bytes) = (self.data.module(module.sha256()), wasm.len() as u64);
        let disk = Arc::clone(&self.services.disk);
        let kept = self.services.io.run(move || {
            let written = millpond_log::write_atomically(&*disk, &path, &wasm);
            written.map_err(|source| EngineError::data_dir("write", path, source))
        });
        kept.await??;
        Ok(Deployed { sha256: module.sha256().to_owned(), size_bytes, world: module.world().to_string(), module: Ok(module.clone()) })
    }

    /// Removes the file of a module that no name has any more. It is gone when this returns: once the caller lets the catalogue go, the
    /// same bytes may be uploaded again.
    async fn drop_unused(&self, catalogue: &MutexGuard<'_, Catalogue>, sha256: &str) {
        if catalogue.modules.values().any(|module| module.sha256 == sha256) {
            return;
        }
        let (disk, path) = (Arc::clone(&self.services.disk), self.data.module(sha256));
        let removed = self.services.io.run(move || {
            if let Err(error) = disk.remove_file(&path) {
                tracing::warn!(path = %path.display(), %error, "the file of a module that is not used any more can't be removed");
            }
        });
        // Without an answer the job has panicked, and the pool has said so.
        let _ = removed.await;
    }
}

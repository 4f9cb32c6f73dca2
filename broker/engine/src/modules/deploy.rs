//! Uploading a version of a module, going back to one, deleting.
//!
//! A new current version takes the place of the old one on every topic that did not name a version, between two batches, or, if one of them
//! does not take it, on none. What takes seconds, compiling, is done before the catalogue is held.

use super::{Deployed, Use, load_stored, topics_of};
use crate::{
    catalogue::Catalogue,
    engine::Engine,
    error::EngineError,
    name,
    name::NameOf,
    topic::{Runtime, Topic},
    topics::to_the_end,
    versions::{StoredModule, StoredVersion, Upload},
};
use bytes::Bytes;
use millpond_plugin::Module;
use millpond_protocol::message::{ModuleInfo, ModuleRef, Pick, ReplacedModule, RollbackModule};
use std::{collections::BTreeMap, sync::Arc};
use tokio::sync::MutexGuard;

impl Engine {
    /// Checks, compiles and keeps a module as the newest version of its name, and makes that the current one. Takes seconds for a large one.
    /// Once begun it is finished, even if the future is dropped. The very bytes of the current version are no new one.
    ///
    /// The answer says which version it has taken the place of, if there was one, and which versions went because there were as many as there
    /// may be.
    ///
    /// # Errors
    ///
    /// [`EngineError::InvalidName`], [`EngineError::ModuleTooLarge`], [`EngineError::Module`] (not a module, wrong world, an import
    /// that is not granted, or it does not start on a topic where the name is attached), [`EngineError::ModuleInUse`] (attached, and
    /// of another world than before), [`EngineError::AttachRefused`] (it may not be attached as the name is), [`EngineError::TooMany`],
    /// [`EngineError::VersionsFull`], [`EngineError::DataDir`], [`EngineError::ShuttingDown`].
    pub async fn deploy_module(self: &Arc<Self>, name: &str, wasm: Bytes) -> Result<ModuleInfo, EngineError> {
        let (engine, name) = (Arc::clone(self), name.to_owned());
        to_the_end(async move { engine.deploy_module_now(name, wasm).await }).await
    }

    /// Makes another version the current one, by default the one that was before. As for an upload, all topics that follow the name run
    /// it from their next batch on, or none.
    ///
    /// # Errors
    ///
    /// [`EngineError::ModuleNotFound`], [`EngineError::ModuleVersionNotFound`], [`EngineError::NoVersionBefore`],
    /// [`EngineError::ModuleLost`], and those of [`Engine::deploy_module`] about topics.
    pub async fn rollback_module(self: &Arc<Self>, request: RollbackModule) -> Result<ModuleInfo, EngineError> {
        let engine = Arc::clone(self);
        to_the_end(async move { engine.rollback_module_now(request).await }).await
    }

    /// Removes a module, or one version of it.
    ///
    /// # Errors
    ///
    /// [`EngineError::ModuleNotFound`], [`EngineError::ModuleVersionNotFound`], [`EngineError::ModuleInUse`],
    /// [`EngineError::VersionIsCurrent`], [`EngineError::DataDir`], [`EngineError::ShuttingDown`].
    pub async fn delete_module(self: &Arc<Self>, module: ModuleRef) -> Result<(), EngineError> {
        let engine = Arc::clone(self);
        to_the_end(async move { engine.delete_module_now(module).await }).await
    }

    async fn deploy_module_now(self: Arc<Self>, name: String, wasm: Bytes) -> Result<ModuleInfo, EngineError> {
        name::check(NameOf::Module, &name)?;
        let limit = self.services.config.max_module_bytes;
        if wasm.len() as u64 > limit {
            return Err(EngineError::ModuleTooLarge { bytes: wasm.len() as u64, limit });
        }
        self.refuse_while_closing()?;
        let module = {
            let (workshop, name, wasm) = (self.workshop.clone(), name.clone(), wasm.clone());
            self.services.background.run(move || workshop.load(&name, &wasm)).await??
        };

        let mut catalogue = self.catalogue.lock().await;
        self.refuse_while_closing()?;
        let sha256 = module.sha256().to_owned();
        let deployed = self.deploy_loaded(&mut catalogue, &name, wasm, module).await;
        match &deployed {
            Ok(info) => {
                let ModuleInfo { version, world, removed, .. } = info;
                tracing::info!(module = name, version, sha256, world, ?removed, "a module was deployed");
            }
            Err(_) => self.drop_compiled(&catalogue, &sha256).await,
        }
        deployed
    }

    /// The newest version of its name, which is compiled.
    async fn deploy_loaded(
        &self,
        catalogue: &mut MutexGuard<'_, Catalogue>,
        name: &str,
        wasm: Bytes,
        module: Module,
    ) -> Result<ModuleInfo, EngineError> {
        let upload = Upload {
            sha256: module.sha256().to_owned(),
            size_bytes: wasm.len() as u64,
            world: module.world().to_string(),
            stateful: module.has_state(),
            deployed_at_ms: self.services.now().wall_ms,
        };
        let (next, gone) = self.next_version(catalogue, name, upload)?;
        let replacements = self.replacements(catalogue, name, next.current().version, &module).await?;
        self.keep(&module, wasm).await?;
        let info = self.make_current(catalogue, name, next, module, replacements).await?;
        for gone in &gone {
            self.drop_unused(catalogue, &gone.sha256).await;
        }
        Ok(ModuleInfo { removed: gone.into_iter().map(|gone| gone.version).collect(), ..info })
    }

    async fn rollback_module_now(self: Arc<Self>, request: RollbackModule) -> Result<ModuleInfo, EngineError> {
        let RollbackModule { name, to } = request;
        loop {
            self.refuse_while_closing()?;
            let next = self.find_module(&name)?.stored.rolled_back(&name, to)?;
            let module = self.loaded(&name, next.current().version).await?;

            let mut catalogue = self.catalogue.lock().await;
            self.refuse_while_closing()?;
            if self.find_module(&name)?.stored.rolled_back(&name, to)? != next {
                // Another change came between.
                continue;
            }
            let replacements = self.replacements(&catalogue, &name, next.current().version, &module).await?;
            let info = self.make_current(&mut catalogue, &name, next, module, replacements).await?;
            tracing::info!(module = name, version = info.version, sha256 = info.sha256, "a module was rolled back");
            return Ok(info);
        }
    }

    async fn delete_module_now(self: Arc<Self>, module: ModuleRef) -> Result<(), EngineError> {
        let ModuleRef { name, pick } = &module;
        let mut catalogue = self.catalogue.lock().await;
        self.refuse_while_closing()?;
        let stored = self.find_module(name)?.stored;
        let version = match pick {
            Pick::Current => None,
            pick => Some(stored.pick(name, pick)?.version).filter(|_| stored.versions().len() > 1),
        };
        let uses: Vec<_> = self.uses(name).into_iter().filter(|one| version.is_none_or(|version| one.version == version)).collect();
        if !uses.is_empty() {
            return Err(EngineError::ModuleInUse { module: module.to_string(), topics: topics_of(&uses) });
        }
        if version == Some(stored.current().version) {
            return Err(EngineError::VersionIsCurrent { module: name.clone(), version: stored.current().version });
        }
        let left = version.map(|version| stored.without(version));
        self.save(&mut catalogue, |next| match &left {
            Some(left) => drop(next.modules.insert(name.clone(), left.clone())),
            None => drop(next.modules.remove(name)),
        })
        .await?;
        {
            let mut modules = self.modules.write();
            match (left, modules.get_mut(name)) {
                (Some(left), Some(deployed)) => deployed.stored = left,
                _ => drop(modules.remove(name)),
            }
        }
        self.forget_unused(name);
        let removed = stored.versions().iter().filter(|removed| version.is_none_or(|version| removed.version == version));
        for removed in removed {
            self.drop_unused(&catalogue, &removed.sha256).await;
        }
        tracing::info!(module = name, version, "a module was deleted");
        Ok(())
    }

    /// The loaded version of a module, which is loaded now if need be.
    pub(crate) async fn loaded(&self, name: &str, version: u32) -> Result<Module, EngineError> {
        let Deployed { stored, loaded } = self.find_module(name)?;
        if let Some(Ok(module)) = loaded.get(&version) {
            return Ok(module.clone());
        }
        let stored = stored.pick(name, &Pick::Version(version))?.clone();
        let (services, data, workshop, name) = (Arc::clone(&self.services), self.data.clone(), self.workshop.clone(), name.to_owned());
        self.services.background.run(move || load_stored(&services, &data, &workshop, &name, &stored.sha256)).await?
    }

    /// Where a module runs, in the order of the topics' names.
    pub(crate) fn uses(&self, module: &str) -> Vec<Use> {
        let topics = self.topics.read();
        topics.values().flat_map(|topic| topic.uses(module)).collect()
    }

    /// Takes over what is the current version from now on.
    async fn make_current(
        &self,
        catalogue: &mut Catalogue,
        name: &str,
        next: StoredModule,
        module: Module,
        replacements: Vec<(Arc<Topic>, Runtime)>,
    ) -> Result<ModuleInfo, EngineError> {
        let before = catalogue.modules.get(name).map(|before| before.current().clone());
        self.save(catalogue, |catalogue| {
            catalogue.modules.insert(name.to_owned(), next.clone());
            for (topic, runtime) in &replacements {
                if let Some(stored) = catalogue.topics.get_mut(&*topic.name) {
                    stored.epoch = runtime.epoch;
                }
            }
        })
        .await?;
        let topics = replacements.iter().map(|(topic, _)| topic.name.as_ref().to_owned()).collect();
        for (topic, runtime) in replacements {
            self.put_in_force_on(&topic, runtime);
        }
        let current = next.current().version;
        {
            let mut modules = self.modules.write();
            let deployed = modules.entry(name.to_owned()).or_insert_with(|| Deployed { stored: next.clone(), loaded: BTreeMap::new() });
            deployed.stored = next;
            deployed.loaded.insert(current, Ok(module));
        }
        self.forget_unused(name);
        let info = self.find_module(name)?.info(name, &self.uses(name));
        let replaced = before.filter(|before| before.version != current);
        Ok(ModuleInfo {
            replaced: replaced.map(|before| ReplacedModule { version: before.version, sha256: before.sha256, topics }),
            ..info
        })
    }

    /// Lets go of loaded versions that don't run and are not the next to.
    pub(crate) fn forget_unused(&self, name: &str) {
        let uses = self.uses(name);
        let mut modules = self.modules.write();
        if let Some(Deployed { stored, loaded }) = modules.get_mut(name) {
            loaded.retain(|version, _| *version == stored.current().version || uses.iter().any(|one| one.version == *version));
        }
    }

    /// A module with an upload as its newest version, and the versions that go for it.
    fn next_version(&self, catalogue: &Catalogue, name: &str, upload: Upload) -> Result<(StoredModule, Vec<StoredVersion>), EngineError> {
        let (modules_max, versions_max) = (self.services.config.modules_max, self.services.config.module_versions_max);
        let Some(before) = catalogue.modules.get(name) else {
            if catalogue.modules.len() >= modules_max {
                return Err(EngineError::TooMany { what: "modules", limit: modules_max });
            }
            return Ok((StoredModule::new(upload), Vec::new()));
        };
        let next = before.deployed(upload);
        if next == *before {
            return Ok((next, Vec::new()));
        }
        let mut uses: BTreeMap<u32, Vec<String>> = BTreeMap::new();
        for one in self.uses(name).into_iter().filter(|one| one.at.pinned) {
            uses.entry(one.version).or_default().push(one.at.topic);
        }
        next.within(versions_max, name, &uses).map_err(EngineError::VersionsFull)
    }

    /// Keeps the bytes of a module under their hash.
    async fn keep(&self, module: &Module, wasm: Bytes) -> Result<(), EngineError> {
        let (disk, path) = (Arc::clone(&self.services.disk), self.data.module(module.sha256()));
        let kept = self.services.io.run(move || {
            let written = millpond_log::write_atomically(&*disk, &path, &wasm);
            written.map_err(|source| EngineError::data_dir("write", path, source))
        });
        kept.await?
    }

    /// Removes what an upload compiles to that is no version of any module, or has not become one.
    async fn drop_compiled(&self, catalogue: &MutexGuard<'_, Catalogue>, sha256: &str) {
        if catalogue.has_upload(sha256) {
            return;
        }
        let (cache, sha256) = (Arc::clone(&self.workshop.cache), sha256.to_owned());
        // Without an answer the job has panicked, and the pool has said so.
        let _ = self.services.io.run(move || cache.remove(&sha256)).await;
    }

    /// Removes the file of an upload that is no version of any module any more. It is gone when this returns: once the caller lets the
    /// catalogue go, the same bytes may be uploaded again.
    async fn drop_unused(&self, catalogue: &MutexGuard<'_, Catalogue>, sha256: &str) {
        if catalogue.has_upload(sha256) {
            return;
        }
        self.drop_compiled(catalogue, sha256).await;
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

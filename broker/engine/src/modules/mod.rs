//! Modules that were uploaded, in all their versions, and what makes them run.
//!
//! | part | holds |
//! |---|---|
//! | [`deploy`] | uploading a version, rolling back, deleting |
//! | [`cache`] | what versions compile to, as files |
//! | [`crate::versions`] | which versions there are, and which one is meant |
//! | [`crate::attachments`] | modules on topics |
//!
//! Loaded are the versions that run or may run next: the current ones and those that a topic has named. Another one is loaded when it is asked
//! for, from the cache.

mod cache;
mod deploy;

pub(crate) use cache::FileCache;

use crate::{
    data_dir::{DataDir, read_whole},
    derive::{Derivation, StoredDerive},
    error::EngineError,
    meters::KeptLog,
    services::Services,
    topic::Topic,
    transform::{Attachment, Breaker, Guest, Lasting},
    versions::{StoredModule, StoredVersion},
};
use millpond_log::Disk;
use millpond_plugin::{Derive, Interrupt, Limits, Module, Partitioner, PluginHost, Transform, World};
use millpond_protocol::message::{AttachLimits, AttachPoint, AttachedModule, ModuleInfo, ModuleVersion, OnError};
use sha2::{Digest, Sha256};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// A module of the catalogue.
#[derive(Clone)]
pub(crate) struct Deployed {
    pub(crate) stored: StoredModule,
    /// Versions that are loaded. The error is why one could not be when the broker started.
    pub(crate) loaded: BTreeMap<u32, Result<Module, EngineError>>,
}

impl std::fmt::Debug for Deployed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Deployed").field("stored", &self.stored).finish_non_exhaustive()
    }
}

/// Where a module runs, and which version of it.
#[derive(Clone, Debug)]
pub(crate) struct Use {
    pub(crate) topic: Arc<Topic>,
    pub(crate) version: u32,
    pub(crate) at: AttachedModule,
    pub(crate) attachment: Arc<Attachment>,
}

impl Use {
    /// With how it is doing there.
    fn with_status(&self) -> AttachedModule {
        AttachedModule { status: Some(self.topic.status_of(&self.attachment, false)), ..self.at.clone() }
    }
}

impl Deployed {
    /// The current version.
    pub(crate) fn info(&self, name: &str, uses: &[Use]) -> ModuleInfo {
        let current = self.stored.current();
        ModuleInfo {
            name: name.to_owned(),
            version: current.version,
            sha256: current.sha256.clone(),
            size_bytes: current.size_bytes,
            world: current.world.clone(),
            stateful: self.is_stateful(current),
            attached_to: topics_of(uses),
            versions: Vec::new(),
            replaced: None,
            removed: Vec::new(),
        }
    }

    fn is_stateful(&self, version: &StoredVersion) -> bool {
        let loaded = self.loaded.get(&version.version).and_then(|loaded| loaded.as_ref().ok());
        version.stateful || loaded.is_some_and(Module::has_state)
    }

    /// All versions.
    pub(crate) fn info_with_versions(&self, name: &str, uses: &[Use]) -> ModuleInfo {
        let info = |stored: &StoredVersion| ModuleVersion {
            version: stored.version,
            sha256: stored.sha256.clone(),
            size_bytes: stored.size_bytes,
            world: stored.world.clone(),
            stateful: self.is_stateful(stored),
            deployed_at_ms: stored.deployed_at_ms,
            attached: uses.iter().filter(|one| one.version == stored.version).map(Use::with_status).collect(),
            unavailable: self.loaded.get(&stored.version).and_then(|loaded| loaded.as_ref().err()).map(|error| error.to_wire().message),
        };
        ModuleInfo { versions: self.stored.versions().iter().map(info).collect(), ..self.info(name, uses) }
    }
}

/// The topics of some uses, each once.
pub(crate) fn topics_of(uses: &[Use]) -> Vec<String> {
    let mut topics: Vec<_> = uses.iter().map(|one| one.at.topic.clone()).collect();
    topics.dedup();
    topics
}

/// Makes modules run.
#[derive(Clone)]
pub(crate) struct Workshop {
    pub(crate) host: PluginHost,
    /// What the host compiles into.
    pub(crate) cache: Arc<FileCache>,
    pub(crate) limits: Limits,
    /// Ends all modules: the broker stops.
    pub(crate) interrupt: Interrupt,
}

impl std::fmt::Debug for Workshop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Workshop").field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// What an attachment is made of.
#[derive(Debug)]
pub(crate) struct AttachmentPlan {
    pub(crate) name: String,
    pub(crate) version: u32,
    /// It stays this version.
    pub(crate) pinned: bool,
    pub(crate) on: AttachPoint,
    pub(crate) view: Option<Arc<str>>,
    pub(crate) params: Vec<(String, String)>,
    pub(crate) limits: AttachLimits,
    pub(crate) on_error: OnError,
    pub(crate) derive: Option<StoredDerive>,
    pub(crate) lasting: Lasting,
}

impl Workshop {
    /// What a new attachment begins with.
    pub(crate) fn lasting(&self, derivation: Option<Arc<Derivation>>) -> Lasting {
        Lasting { meters: Arc::default(), interrupt: self.interrupt.child(), derivation }
    }

    /// Checks and compiles an upload. Blocking, up to many seconds.
    pub(crate) fn load(&self, name: &str, wasm: &[u8]) -> Result<Module, EngineError> {
        let loaded = self.host.load(wasm).map(|module| module.named(name));
        loaded.map_err(|source| EngineError::Module { module: name.to_owned(), source: Arc::new(source) })
    }

    /// Starts a module where its world runs; its `init` may refuse. Blocking.
    pub(crate) fn attach(&self, plan: AttachmentPlan, module: &Module) -> Result<Arc<Attachment>, EngineError> {
        let limits = self.limits_of(&plan.limits);
        let Lasting { meters, interrupt, derivation } = &plan.lasting;
        let log = Arc::new(KeptLog { meters: Arc::clone(meters), version: plan.version });
        let interrupt = interrupt.child();
        let module = &module.clone().logging_to(log).ended_by(interrupt.clone());
        let guest = match module.world() {
            World::Transform => Transform::new(&self.host, module, limits, &plan.params).map(Guest::Transform),
            World::Partitioner => Partitioner::new(&self.host, module, limits, &plan.params).map(Guest::Partitioner),
            World::Derive => {
                let targets = derivation.as_ref().map_or(&[][..], |derivation| derivation.targets.as_slice());
                Derive::new(&self.host, module, limits, &plan.params, targets).map(Guest::Derive)
            }
        };
        let guest = guest.map_err(|source| EngineError::Module { module: plan.name.clone(), source: Arc::new(source) })?;
        Ok(plan.finish(module.sha256().to_owned(), guest, interrupt))
    }

    /// The broker's limits where an attachment has none of its own.
    fn limits_of(&self, own: &AttachLimits) -> Limits {
        let bytes = |own: Option<u64>, default| own.map_or(default, |own| usize::try_from(own).unwrap_or(usize::MAX));
        Limits {
            memory_bytes: bytes(own.memory_bytes, self.limits.memory_bytes),
            time: own.time_ms.map_or(self.limits.time, Duration::from_millis),
            output_bytes: bytes(own.output_bytes, self.limits.output_bytes),
            log_bytes_per_second: own.log_bytes_per_second.unwrap_or(self.limits.log_bytes_per_second),
            ..self.limits.clone()
        }
    }
}

impl AttachmentPlan {
    /// An attachment that answers every batch with the reason why its module does not run.
    pub(crate) fn unavailable(self, sha256: String, reason: EngineError) -> Arc<Attachment> {
        self.finish(sha256, Guest::Unavailable(reason), Interrupt::default())
    }

    fn finish(self, sha256: String, guest: Guest, interrupt: Interrupt) -> Arc<Attachment> {
        let AttachmentPlan { name, version, pinned, on, view, params, limits, on_error, derive, lasting } = self;
        let (module, breaker) = (name.into(), Breaker::default());
        Arc::new(Attachment {
            module,
            version,
            pinned,
            sha256,
            on,
            view,
            params,
            limits,
            on_error,
            derive,
            guest,
            breaker,
            interrupt,
            lasting,
        })
    }
}

/// A version, from its stored bytes. Blocking; it is compiled if the cache does not have it.
pub(crate) fn load_stored(
    services: &Services,
    data: &DataDir,
    workshop: &Workshop,
    name: &str,
    sha256: &str,
) -> Result<Module, EngineError> {
    read_stored(&*services.disk, data, name, sha256, services.config.max_module_bytes).and_then(|wasm| workshop.load(name, &wasm))
}

/// The stored bytes of a module; an error if they are not what was uploaded. Blocking.
fn read_stored(disk: &dyn Disk, data: &DataDir, name: &str, sha256: &str, bytes_max: u64) -> Result<Vec<u8>, EngineError> {
    let lost = |reason: String| EngineError::ModuleLost { module: name.to_owned(), reason };
    let path = data.module(sha256);
    let bytes = read_whole(disk, &path, bytes_max)?.ok_or_else(|| lost(format!("{} is not there", path.display())))?;
    if sha256_hex(&bytes) == sha256 { Ok(bytes) } else { Err(lost(format!("the bytes of {} have changed", path.display()))) }
}

fn sha256_hex(bytes: &[u8]) -> String {
    let mut hex = String::with_capacity(SHA256_BYTES * 2);
    for byte in Sha256::digest(bytes) {
        hex.push(HEX_DIGITS[usize::from(byte >> 4)]);
        hex.push(HEX_DIGITS[usize::from(byte & 15)]);
    }
    hex
}

const SHA256_BYTES: usize = 32;
const HEX_DIGITS: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_written_in_hex() {
        assert_eq!(sha256_hex(b"abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
}

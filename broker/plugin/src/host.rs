//! The host: takes uploads, gives modules.

use std::sync::Arc;

use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use wasmtime::component::{Component, InstancePre};

use crate::artifact::{self, ArtifactCache};
use crate::contract::{self, World};
use crate::error::PluginError;
use crate::guest_log::LogSink;
use crate::instance::State;
use crate::interrupt::Interrupt;
use crate::runtime::Runtime;
use crate::upload::{self, Kind, compile};

/// Loads modules. Cheap to clone; clones share the engine.
#[derive(Clone)]
pub struct PluginHost {
    cache: Arc<dyn ArtifactCache>,
    /// Set up at the first load.
    runtime: Arc<Mutex<Option<Arc<Runtime>>>>,
}

impl PluginHost {
    /// A host that keeps compiled modules in `cache`. Nothing is allocated before the first [`PluginHost::load`].
    ///
    /// # Errors
    ///
    /// None now; the signature leaves room for a host that looks at the machine first.
    pub fn new(cache: Arc<dyn ArtifactCache>) -> Result<PluginHost, PluginError> {
        Ok(PluginHost { cache, runtime: Arc::new(Mutex::new(None)) })
    }

    /// Makes a module of an upload: a component, or a core module that carries its component type. Blocks, for seconds if the
    /// module is large and was not compiled before.
    ///
    /// # Errors
    ///
    /// [`PluginError::NotWasm`], [`PluginError::TooLarge`], [`PluginError::ImportDenied`], [`PluginError::WrongWorld`],
    /// [`PluginError::FunctionTooComplex`], [`PluginError::SignatureTooLong`], [`PluginError::CodeTooComplex`],
    /// [`PluginError::Compile`]; [`PluginError::Engine`] if this machine can't run modules at all.
    pub fn load(&self, wasm: &[u8]) -> Result<Module, PluginError> {
        let kind = upload::recognise(wasm)?;
        let runtime = self.runtime()?;
        let sha256 = artifact::hex(&Sha256::digest(wasm));
        let key = artifact::key(&sha256, &runtime.engine.precompile_compatibility_hash());
        let compiled_before = self.cached(&runtime, &key);
        let component = compiled_before.map_or_else(|| self.compile(&runtime, wasm, kind, &key), Ok)?;
        let component_type = component.component_type();
        let world = contract::world(&runtime.engine, &component_type)?;
        let has_state = contract::imports_state(&runtime.engine, &component_type);
        let pre = runtime.linker.instantiate_pre(&component).map_err(|error| compile(&format!("{error:#}")))?;
        let name = sha256[..SHORT_NAME_DIGITS].into();
        let inner = Arc::new(Inner { sha256, world, has_state, size_bytes: wasm.len(), pre, runtime });
        Ok(Module { name, log_sink: None, interrupt: Interrupt::default(), inner })
    }

    /// How often a module was compiled since the start, rather than taken from the cache.
    pub fn compilations(&self) -> u64 {
        self.runtime.lock().as_ref().map_or(0, |runtime| runtime.compilations())
    }

    /// The runtime, if the module was loaded by this host.
    pub(crate) fn runtime_of(&self, module: &Module) -> Result<Arc<Runtime>, PluginError> {
        let runtime = self.runtime()?;
        if !Arc::ptr_eq(&runtime, &module.inner.runtime) {
            return Err(PluginError::Settings { reason: "the module was loaded by another host".to_owned() });
        }
        Ok(runtime)
    }

    fn runtime(&self) -> Result<Arc<Runtime>, PluginError> {
        let mut runtime = self.runtime.lock();
        if let Some(runtime) = &*runtime {
            return Ok(Arc::clone(runtime));
        }
        Ok(Arc::clone(runtime.insert(Arc::new(Runtime::new()?))))
    }

    /// Compiles an upload and puts it into the cache.
    fn compile(&self, runtime: &Runtime, wasm: &[u8], kind: Kind, key: &str) -> Result<Component, PluginError> {
        let component = runtime.compile(&upload::component(wasm, kind, contract::granted)?)?;
        // A module of another world is not worth keeping.
        contract::world(&runtime.engine, &component.component_type())?;
        let code = component.serialize().map_err(|error| compile(&format!("{error:#}")))?;
        self.cache.store(key, &artifact::seal(&code));
        Ok(component)
    }

    /// A component that was compiled before, if its artifact is whole.
    fn cached(&self, runtime: &Runtime, key: &str) -> Option<Component> {
        let artifact = self.cache.load(key)?;
        let Some(code) = artifact::open(&artifact) else {
            tracing::warn!(key, bytes = artifact.len(), "a compiled module is damaged; it is compiled anew");
            return None;
        };
        #[expect(unsafe_code, reason = "a compiled module can't be loaded without")]
        // SAFETY: `deserialize` runs what it is given as native code. This code came from `Component::serialize` of an engine like this one,
        // for the key says so and wasmtime compares version and settings once more. It was kept in the broker's own data folder,
        // where no client can write: an upload that is compiled already is refused by `upload::recognise`. And it is whole, for its
        // SHA-256 was just checked.
        let component = unsafe { Component::deserialize(&runtime.engine, code) };
        component.inspect_err(|error| tracing::warn!(key, %error, "a compiled module can't be used; it is compiled anew")).ok()
    }
}

impl std::fmt::Debug for PluginHost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PluginHost").field("compilations", &self.compilations()).finish_non_exhaustive()
    }
}

/// A module that is compiled and checked. Cheap to clone.
#[derive(Clone)]
pub struct Module {
    name: Arc<str>,
    log_sink: Option<Arc<dyn LogSink>>,
    interrupt: Interrupt,
    inner: Arc<Inner>,
}

struct Inner {
    sha256: String,
    world: World,
    has_state: bool,
    size_bytes: usize,
    pre: InstancePre<State>,
    runtime: Arc<Runtime>,
}

impl Module {
    /// The same module under a name, which the lines that its guests log carry. Without one it is the start of the digest.
    #[must_use]
    pub fn named(mut self, name: &str) -> Module {
        self.name = name.into();
        self
    }

    /// The same module with somebody who takes what its guests log, beside the broker's log.
    #[must_use]
    pub fn logging_to(mut self, sink: Arc<dyn LogSink>) -> Module {
        self.log_sink = Some(sink);
        self
    }

    /// The same module, of which all that is started from here on ends once this is raised.
    #[must_use]
    pub fn ended_by(mut self, interrupt: Interrupt) -> Module {
        self.interrupt = interrupt;
        self
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The SHA-256 of the upload, in 64 hexadecimal digits.
    pub fn sha256(&self) -> &str {
        &self.inner.sha256
    }

    /// What the module does.
    pub fn world(&self) -> World {
        self.inner.world
    }

    /// Whether it wants to keep state, which there is on derived topics alone.
    pub fn has_state(&self) -> bool {
        self.inner.has_state
    }

    /// The size of the upload.
    pub fn size_bytes(&self) -> usize {
        self.inner.size_bytes
    }

    pub(crate) fn name_shared(&self) -> Arc<str> {
        Arc::clone(&self.name)
    }

    pub(crate) fn log_sink(&self) -> Option<Arc<dyn LogSink>> {
        self.log_sink.clone()
    }

    pub(crate) fn interrupt(&self) -> &Interrupt {
        &self.interrupt
    }

    pub(crate) fn instance_pre(&self) -> &InstancePre<State> {
        &self.inner.pre
    }
}

impl std::fmt::Debug for Module {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Module").field("name", &self.name).field("world", &self.world()).finish_non_exhaustive()
    }
}

/// Refuses a module of the other world.
pub(crate) fn expect_world(module: &Module, expected: World) -> Result<(), PluginError> {
    if module.world() == expected {
        return Ok(());
    }
    Err(PluginError::WrongWorld { found: format!("it is a {} where a {expected} is needed", module.world()) })
}

const SHORT_NAME_DIGITS: usize = 12;

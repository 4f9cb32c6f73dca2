//! The instances of one attachment: idle ones are used again, broken ones are not, and none is in two calls at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::BatchInfo;
use crate::derive::Target;
use crate::error::PluginError;
use crate::guest_log::{self, Outlets};
use crate::host::{Module, PluginHost};
use crate::instance::{Find, Guest, State};
use crate::limits::{Limits, MEMORY_BYTES_MAX, PARAMS_BYTES_MAX};
use crate::runtime::{Runtime, Shed};
use crate::state::StateDraft;

/// A module with its limits and settings, and the instances of it that exist.
pub(crate) struct Pool<F> {
    runtime: Arc<Runtime>,
    module: Module,
    limits: Limits,
    params: Box<[(String, String)]>,
    /// Of the world `derive` alone.
    targets: Option<Box<[Target]>>,
    find: Find<F>,
    outlets: Outlets,
    idle: Arc<Idle<F>>,
    /// The most memory that an instance had after a call.
    memory_bytes_peak: AtomicUsize,
    /// When the calls that are in progress have begun.
    begun: Mutex<Vec<Instant>>,
}

/// A call in progress.
struct Call<'a> {
    begun: Instant,
    calls: &'a Mutex<Vec<Instant>>,
}

impl<'a> Call<'a> {
    fn begin(calls: &'a Mutex<Vec<Instant>>) -> Call<'a> {
        let begun = Instant::now();
        calls.lock().push(begun);
        Call { begun, calls }
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        let mut calls = self.calls.lock();
        if let Some(index) = calls.iter().position(|begun| *begun == self.begun) {
            calls.swap_remove(index);
        }
    }
}

struct Idle<F>(Mutex<Vec<Guest<F>>>);

impl<F: Send + 'static> Pool<F> {
    /// Checks limits and settings and starts one instance, so that a module that can't start is not attached.
    pub(crate) fn new(
        host: &PluginHost,
        module: &Module,
        limits: Limits,
        params: &[(String, String)],
        find: Find<F>,
    ) -> Result<Pool<F>, PluginError> {
        Pool::begin(host, module, limits, (params, None), find)
    }

    /// Likewise, for the world `derive`.
    pub(crate) fn with_targets(
        host: &PluginHost,
        module: &Module,
        limits: Limits,
        params: &[(String, String)],
        targets: &[Target],
        find: Find<F>,
    ) -> Result<Pool<F>, PluginError> {
        Pool::begin(host, module, limits, (params, Some(targets)), find)
    }

    fn begin(
        host: &PluginHost,
        module: &Module,
        limits: Limits,
        (params, targets): (&[(String, String)], Option<&[Target]>),
        find: Find<F>,
    ) -> Result<Pool<F>, PluginError> {
        check(&limits, params)?;
        let runtime = host.runtime_of(module)?;
        let idle = Arc::new(Idle(Mutex::new(Vec::new())));
        let shed: Arc<dyn Shed> = Arc::clone(&idle) as _;
        runtime.register(Arc::downgrade(&shed));
        let outlets = guest_log::outlets(module.name_shared(), module.log_sink(), &limits);
        let memory_bytes_peak = AtomicUsize::new(0);
        let (module, params, targets) = (module.clone(), params.into(), targets.map(Box::from));
        let pool = Pool { runtime, module, limits, params, targets, find, outlets, idle, memory_bytes_peak, begun: Mutex::default() };
        let first = pool.start()?;
        pool.idle.give(first);
        Ok(pool)
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    pub(crate) fn module(&self) -> &Module {
        &self.module
    }

    /// The most memory that an instance had after a call, in bytes.
    pub(crate) fn memory_bytes_peak(&self) -> usize {
        self.memory_bytes_peak.load(Ordering::Relaxed)
    }

    /// How long the oldest call that is in progress is; none where there is none.
    pub(crate) fn busy_for(&self) -> Option<Duration> {
        self.begun.lock().iter().min().map(Instant::elapsed)
    }

    /// The targets; none but for the world `derive`.
    pub(crate) fn targets(&self) -> &[Target] {
        self.targets.as_deref().unwrap_or_default()
    }

    /// Calls an instance, for so much processor time at most. It is kept if the call came to a regular end, even with an error of the
    /// guest's own.
    pub(crate) fn call<R>(
        &self,
        batch: &BatchInfo<'_>,
        time: Duration,
        call: impl FnOnce(&mut wasmtime::Store<State>, &F) -> wasmtime::Result<R>,
    ) -> Result<R, PluginError> {
        self.call_with(batch, time, None, call)
    }

    /// As [`Pool::call`], with a state for the guest.
    pub(crate) fn call_with<R>(
        &self,
        batch: &BatchInfo<'_>,
        time: Duration,
        draft: Option<&mut StateDraft>,
        call: impl FnOnce(&mut wasmtime::Store<State>, &F) -> wasmtime::Result<R>,
    ) -> Result<R, PluginError> {
        if self.module.interrupt().is_raised() {
            return Err(PluginError::Interrupted);
        }
        let _in_progress = Call::begin(&self.begun);
        let idle = self.idle.take();
        let mut guest = match idle {
            Some(guest) => guest,
            None => self.start()?,
        };
        let limits = Limits { time, ..self.limits.clone() };
        let result = guest.call(&self.runtime, &limits, batch, draft, call);
        self.memory_bytes_peak.fetch_max(guest.memory_bytes(), Ordering::Relaxed);
        let result = result?;
        self.idle.give(guest);
        Ok(result)
    }

    fn start(&self) -> Result<Guest<F>, PluginError> {
        let given = (&*self.params, self.targets.as_deref());
        let limits = Limits { time: self.limits.time.min(START_TIME_MAX), ..self.limits.clone() };
        let start = || Guest::start(&self.runtime, &self.module, &limits, given, Arc::clone(&self.outlets), self.find);
        match start() {
            Err(PluginError::Busy { .. }) => {
                self.runtime.shed_idle();
                start()
            }
            started => started,
        }
    }
}

impl<F> Idle<F> {
    fn take(&self) -> Option<Guest<F>> {
        self.0.lock().pop()
    }

    fn give(&self, guest: Guest<F>) {
        let mut idle = self.0.lock();
        if idle.len() < IDLE_INSTANCES_MAX {
            idle.push(guest);
        }
    }
}

impl<F: Send> Shed for Idle<F> {
    fn shed(&self) {
        // Dropped outside the lock: unmapping memory takes a while.
        let idle = std::mem::take(&mut *self.0.lock());
        drop(idle);
    }
}

impl<F> std::fmt::Debug for Pool<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("module", &self.module).field("limits", &self.limits).finish_non_exhaustive()
    }
}

fn check(limits: &Limits, params: &[(String, String)]) -> Result<(), PluginError> {
    if limits.memory_bytes > MEMORY_BYTES_MAX {
        let reason = format!("a module's memory limit can be {MEMORY_BYTES_MAX} bytes at most, {} are set", limits.memory_bytes);
        return Err(PluginError::Settings { reason });
    }
    let params_bytes: usize = params.iter().map(|(name, value)| name.len().saturating_add(value.len())).sum();
    if params_bytes > PARAMS_BYTES_MAX {
        let reason = format!("a module's settings can have {PARAMS_BYTES_MAX} bytes together, these have {params_bytes}");
        return Err(PluginError::Settings { reason });
    }
    Ok(())
}

/// The most processor time that a guest has to start, however long it may take for a batch: others wait for a change that begins with it.
const START_TIME_MAX: Duration = Duration::from_secs(10);

/// The most idle instances that an attachment keeps: as many as a small node has processors to run them.
const IDLE_INSTANCES_MAX: usize = 4;

//! One living instance of a module: its store with its limits, and the meaning of what ends a call.

use std::fmt::Write;
use std::time::Duration;

use cpu_time::ThreadTime;
use wasmtime::component::Instance;
use wasmtime::{PoolConcurrencyLimitError, Store, StoreContextMut, Trap, UpdateDeadline, WasmBacktrace};

use crate::contract::{GuestTarget, Init, InitDerive};
use crate::derive::Target;
use crate::error::{BACKTRACE_BYTES_MAX, MESSAGE_BYTES_MAX, PluginError, cut};
use crate::guest_log::{GuestLog, Outlets, one_line};
use crate::host::Module;
use crate::interrupt::Interrupt;
use crate::limits::{GUEST_STACK_BYTES_MAX, INSTANCES_MAX, Limiter, Limits, Refused, TABLE_ELEMENTS_MAX};
use crate::runtime::Runtime;
use crate::state::StateDraft;
use crate::{BatchInfo, ticker};

/// What the host keeps beside an instance.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) limiter: Limiter,
    pub(crate) log: GuestLog,
    /// The state of the call that is in progress, if the module has one.
    pub(crate) draft: Option<StateDraft>,
    /// The calling thread's processor time at which the call that is in progress must end.
    deadline: Duration,
    /// Ends the call before that.
    interrupt: Interrupt,
}

/// An instance and the one function that batches go through.
pub(crate) struct Guest<F> {
    store: Store<State>,
    function: F,
}

/// How the function is found, by its world.
pub(crate) type Find<F> = fn(&Instance, &mut Store<State>) -> wasmtime::Result<F>;

impl<F> Guest<F> {
    /// Instantiates the module and calls its `init`.
    pub(crate) fn start(
        runtime: &Runtime,
        module: &Module,
        limits: &Limits,
        (params, targets): (&[(String, String)], Option<&[Target]>),
        outlets: Outlets,
        find: Find<F>,
    ) -> Result<Guest<F>, PluginError> {
        let log = GuestLog::new(outlets, limits.log_bytes_per_call);
        let interrupt = module.interrupt().clone();
        let state = State { limiter: Limiter::new(limits.memory_bytes), log, draft: None, deadline: Duration::ZERO, interrupt };
        let mut store = Store::new(&runtime.engine, state);
        store.limiter(|state| &mut state.limiter);
        store.set_hostcall_fuel(limits.output_bytes.max(HOSTCALL_BYTES_MIN));
        store.epoch_deadline_callback(|store| check_deadline(&store));
        set_deadline(&mut store, limits.time);
        let running = runtime.ticker.run();
        let started = (|| {
            let instance = module.instance_pre().instantiate(&mut store)?;
            let (refused,) = if let Some(targets) = targets {
                let targets: Vec<GuestTarget<'_>> = targets.iter().map(GuestTarget::from).collect();
                let init: InitDerive = instance.get_typed_func(&mut store, "init")?;
                init.call(&mut store, (params, &targets))?
            } else {
                let init: Init = instance.get_typed_func(&mut store, "init")?;
                init.call(&mut store, (params,))?
            };
            let function = find(&instance, &mut store)?;
            Ok((refused, function))
        })();
        drop(running);
        store.data_mut().log.end_call();
        match started {
            Ok((Ok(()), function)) => Ok(Guest { store, function }),
            Ok((Err(message), _)) => Err(PluginError::Init(one_line(&message, MESSAGE_BYTES_MAX))),
            Err(error) => Err(classify(&error, store.data(), limits, "in init: ")),
        }
    }

    /// Bytes of all its memories together.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.store.data().limiter.memory_bytes()
    }

    /// Calls the function under the limits, with a state that comes back whatever happens. After an error the instance must not be used
    /// again.
    pub(crate) fn call<R>(
        &mut self,
        runtime: &Runtime,
        limits: &Limits,
        batch: &BatchInfo<'_>,
        mut draft: Option<&mut StateDraft>,
        call: impl FnOnce(&mut Store<State>, &F) -> wasmtime::Result<R>,
    ) -> Result<R, PluginError> {
        let state = self.store.data_mut();
        state.limiter.begin_call();
        state.log.begin_call(batch);
        state.draft = draft.as_deref_mut().map(std::mem::take);
        set_deadline(&mut self.store, limits.time);
        let running = runtime.ticker.run();
        let result = call(&mut self.store, &self.function);
        drop(running);
        if let (Some(draft), Some(back)) = (draft, self.store.data_mut().draft.take()) {
            *draft = back;
        }
        self.store.data_mut().log.end_call();
        result.map_err(|error| classify(&error, self.store.data(), limits, ""))
    }
}

/// Lets the guest run for so long from now.
fn set_deadline(store: &mut Store<State>, time: Duration) {
    store.data_mut().deadline = ThreadTime::now().as_duration().saturating_add(time);
    store.set_epoch_deadline(ticks_to_look(time));
}

/// When to look at the guest again that has so much time left.
fn ticks_to_look(rest: Duration) -> u64 {
    ticker::ticks(rest.min(LOOK_INTERVAL))
}

/// Called now and then, and when the guest's time has passed on the clock. On a busy machine the thread may have run for a part of it only;
/// then the guest gets the rest, for a batch must not fail because something else was slow.
fn check_deadline(store: &StoreContextMut<'_, State>) -> wasmtime::Result<UpdateDeadline> {
    if store.data().interrupt.is_raised() {
        return Err(Trap::Interrupt.into());
    }
    match store.data().deadline.checked_sub(ThreadTime::now().as_duration()) {
        Some(rest) if !rest.is_zero() => Ok(UpdateDeadline::Continue(ticks_to_look(rest))),
        _ => Err(Trap::Interrupt.into()),
    }
}

/// What an error of wasmtime's means to whoever attached the module.
fn classify(error: &wasmtime::Error, state: &State, limits: &Limits, phase: &str) -> PluginError {
    if error.is::<PoolConcurrencyLimitError>() {
        return PluginError::Busy { limit: INSTANCES_MAX };
    }
    let trap = error.downcast_ref::<Trap>();
    if trap == Some(&Trap::Interrupt) {
        if state.interrupt.is_raised() {
            return PluginError::Interrupted;
        }
        return PluginError::TimedOut { limit: limits.time, backtrace: backtrace(error) };
    }
    match state.limiter.refused() {
        Some(Refused::Memory) => return PluginError::OutOfMemory { limit_bytes: limits.memory_bytes, backtrace: backtrace(error) },
        Some(Refused::Table) => return PluginError::TableFull { limit_elements: TABLE_ELEMENTS_MAX, backtrace: backtrace(error) },
        None => {}
    }
    if let Some(trap) = trap {
        let mut reason = format!("{phase}{}", trap.to_string().trim_start_matches("wasm trap: "));
        if *trap == Trap::StackOverflow {
            // Writing to a string can't fail.
            let _ = write!(reason, ", a module has {GUEST_STACK_BYTES_MAX} bytes of it");
        }
        if let Some(line) = state.log.last_error() {
            // Writing to a string can't fail.
            let _ = write!(reason, "; its last error: {line}");
        }
        return PluginError::Trapped { reason: cut(reason, MESSAGE_BYTES_MAX), backtrace: backtrace(error) };
    }
    let cause = error.root_cause().to_string();
    if cause.contains(FUEL_EXHAUSTED) {
        return PluginError::OutputTooLarge { limit_bytes: limits.output_bytes };
    }
    PluginError::OutputInvalid { reason: cut(format!("{phase}{cause}"), MESSAGE_BYTES_MAX) }
}

/// Where the guest was when it was ended; nothing where it was in none of its functions. The first line, which says that it is a backtrace, is
/// left out. The names in it are the guest's own.
fn backtrace(error: &wasmtime::Error) -> String {
    let backtrace = error.downcast_ref::<WasmBacktrace>().map(ToString::to_string).unwrap_or_default();
    let lines = backtrace.lines().filter(|line| !line.starts_with("error while executing"));
    let lines: Vec<_> = lines.map(|line| one_line(line.trim_end(), BACKTRACE_BYTES_MAX)).collect();
    cut(lines.join("\n"), BACKTRACE_BYTES_MAX)
}

/// How often a guest that runs is looked at, on the clock: so long after it was interrupted it still runs.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// What a guest may hand over at once even if its output is limited to less: room for a message about it.
const HOSTCALL_BYTES_MIN: usize = 64 * 1024;

/// How wasmtime says that a guest returned more than it may. Its type is private; a test holds this text.
const FUEL_EXHAUSTED: &str = "fuel allocated for hostcalls has been exhausted";

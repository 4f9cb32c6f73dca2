//! The WebAssembly engine: what it allows, and what it reserves. One for each host, set up at the first load.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use wasmtime::component::{Component, Linker};
use wasmtime::{Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, WasmBacktraceDetails};

use crate::error::PluginError;
use crate::instance::State;
use crate::limits::{
    CORE_INSTANCES_PER_INSTANCE_MAX, GUEST_STACK_BYTES_MAX, INSTANCES_MAX, MEMORIES_MAX, MEMORIES_PER_INSTANCE_MAX, MEMORY_BYTES_MAX,
    TABLE_ELEMENTS_MAX, TABLES_PER_INSTANCE_MAX,
};
use crate::ticker::Ticker;
use crate::upload::compile;
use crate::{guest_log, guest_state};

/// The engine, with what all modules share.
pub(crate) struct Runtime {
    pub(crate) engine: Engine,
    pub(crate) linker: Linker<State>,
    pub(crate) ticker: Ticker,
    compilations: AtomicU64,
    /// Held while something is compiled, so that a burst of uploads needs the memory of one.
    compiling: Mutex<()>,
    pools: Mutex<Vec<Weak<dyn Shed>>>,
}

/// Somebody who keeps idle instances and can let go of them.
pub(crate) trait Shed: Send + Sync {
    /// Drops all idle instances.
    fn shed(&self);
}

impl Runtime {
    pub(crate) fn new() -> Result<Runtime, PluginError> {
        let failed = |error: &dyn std::fmt::Display| PluginError::Engine { reason: format!("{error:#}") };
        let engine = Engine::new(&config(Reservation::Wide)).or_else(|error| {
            tracing::info!("modules run slower here, their memory gets less address space: {error:#}");
            Engine::new(&config(Reservation::Narrow))
        });
        let engine = engine.map_err(|error| failed(&error))?;
        let mut linker = Linker::new(&engine);
        guest_log::add_to_linker(&mut linker).map_err(|error| failed(&error))?;
        guest_state::add_to_linker(&mut linker).map_err(|error| failed(&error))?;
        let ticker = Ticker::start(engine.clone()).map_err(|error| failed(&error))?;
        Ok(Runtime { engine, linker, ticker, compilations: AtomicU64::new(0), compiling: Mutex::new(()), pools: Mutex::new(Vec::new()) })
    }

    /// Compiles a component that `cost.rs` let pass; takes seconds for a large one, on the calling thread alone.
    pub(crate) fn compile(&self, component: &[u8]) -> Result<Component, PluginError> {
        let _one_at_a_time = self.compiling.lock();
        self.compilations.fetch_add(1, Ordering::Relaxed);
        Component::from_binary(&self.engine, component).map_err(|error| compile(&format!("{error:#}")))
    }

    pub(crate) fn compilations(&self) -> u64 {
        self.compilations.load(Ordering::Relaxed)
    }

    /// Remembers who keeps idle instances.
    pub(crate) fn register(&self, pool: Weak<dyn Shed>) {
        let mut pools = self.pools.lock();
        pools.retain(|pool| pool.strong_count() > 0);
        pools.push(pool);
    }

    /// Drops the idle instances of all modules, for one that found no room.
    pub(crate) fn shed_idle(&self) {
        let pools: Vec<Arc<dyn Shed>> = self.pools.lock().iter().filter_map(Weak::upgrade).collect();
        for pool in pools {
            pool.shed();
        }
    }
}

/// How much address space is set aside for each memory, so that it never moves. It costs no memory until a guest writes to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reservation {
    /// All that a 32-bit address can reach: what a guest accesses needs no check then, an access outside faults. A filter took 26 ns
    /// for a record with it and 42 without.
    Wide,
    /// The largest limit that a memory can have, for machines that don't give away so much: each access is checked.
    Narrow,
}

fn config(reservation: Reservation) -> Config {
    let mut config = Config::new();
    config.wasm_component_model(true);
    // One thread, as a compilation is in nobody's hurry: the others serve, and no two large functions need memory at the same time.
    config.parallel_compilation(false);

    // Results must not depend on the processor or on another thread.
    config.cranelift_nan_canonicalization(true);
    config.wasm_relaxed_simd(false);
    config.relaxed_simd_deterministic(true);
    config.concurrency_support(false); // of the component model; calls get faster without it
    config.wasm_memory64(false);

    // What ends a guest: the ticker's epoch, the end of its stack.
    config.epoch_interruption(true);
    config.max_wasm_stack(GUEST_STACK_BYTES_MAX);

    // A backtrace has the names of functions. Lines would need the guest's DWARF, which is large and not ours to parse.
    config.wasm_backtrace_max_frames(std::num::NonZeroUsize::new(BACKTRACE_FRAMES_MAX));
    config.wasm_backtrace_details(WasmBacktraceDetails::Disable);
    config.native_unwind_info(false); // nobody debugs guests in this process

    let (reservation_bytes, guard_bytes) = match reservation {
        Reservation::Wide => (1 << 32, 32 * 1024 * 1024),
        Reservation::Narrow => (MEMORY_BYTES_MAX as u64, 64 * 1024),
    };
    config.memory_reservation(reservation_bytes);
    // A load at a constant distance up to this needs no check of its own.
    config.memory_guard_size(guard_bytes);
    config.memory_reservation_for_growth(0);
    config.guard_before_linear_memory(false);
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool()));
    config
}

fn pool() -> PoolingAllocationConfig {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(INSTANCES_MAX);
    pool.max_core_instances_per_component(CORE_INSTANCES_PER_INSTANCE_MAX);
    pool.max_memories_per_component(MEMORIES_PER_INSTANCE_MAX);
    pool.max_tables_per_component(TABLES_PER_INSTANCE_MAX);
    pool.max_memories_per_module(MEMORIES_PER_INSTANCE_MAX);
    pool.max_tables_per_module(TABLES_PER_INSTANCE_MAX);
    pool.total_core_instances(INSTANCES_MAX * CORE_INSTANCES_PER_INSTANCE_MAX);
    pool.total_memories(MEMORIES_MAX);
    pool.total_tables(INSTANCES_MAX * TABLES_PER_INSTANCE_MAX);
    pool.max_memory_size(MEMORY_BYTES_MAX);
    pool.table_elements(TABLE_ELEMENTS_MAX);
    // Idle instances are kept by the attachments that use them. A slot that nobody uses keeps no memory.
    pool.max_unused_warm_slots(0);
    pool.linear_memory_keep_resident(0);
    pool.table_keep_resident(0);
    pool
}

const BACKTRACE_FRAMES_MAX: usize = 32;

#[cfg(test)]
mod tests {
    use super::{Reservation, config};
    use wasmtime::Engine;
    use wasmtime::component::Component;

    #[test]
    fn the_engine_starts_with_much_and_with_little_address_space() {
        for reservation in [Reservation::Wide, Reservation::Narrow] {
            let engine = Engine::new(&config(reservation)).unwrap_or_else(|error| panic!("{reservation:?}: {error:#}"));
            let text = r#"(component (core module $m (memory (export "memory") 1 2048)) (core instance (instantiate $m)))"#;
            let component = wat::parse_str(text).expect("a component");
            Component::from_binary(&engine, &component).unwrap_or_else(|error| panic!("{reservation:?}: {error:#}"));
        }
    }
}

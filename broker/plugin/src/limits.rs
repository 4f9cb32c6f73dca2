//! What a guest may use, and the part of it that wasmtime asks about: memory and tables.

use std::time::Duration;

use wasmtime::ResourceLimiter;

/// What one call of a guest may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// All linear memories of an instance together. At most [`MEMORY_BYTES_MAX`].
    pub memory_bytes: usize,
    /// The processor time for one batch, and for one start. It is looked at once in a millisecond, so a call may take one or two more;
    /// the time in which the thread had to wait for a processor does not count.
    pub time: Duration,
    /// What a guest may return for one batch.
    pub output_bytes: usize,
    /// What a guest may write to the broker's log in one call; what is more is left out, and one line says how much.
    pub log_bytes_per_call: usize,
    /// What all instances of one attachment together may write to the broker's log in a second, in the long run. After a silence they may
    /// write as much at once as in eight seconds.
    pub log_bytes_per_second: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            // What the largest guests need, and as much again: Python with a batch takes 17 MiB.
            memory_bytes: 32 * 1024 * 1024,
            time: Duration::from_millis(100),
            output_bytes: 8 * 1024 * 1024,
            log_bytes_per_call: 8 * 1024,
            log_bytes_per_second: 8 * 1024,
        }
    }
}

/// The largest value of [`Limits::memory_bytes`].
pub const MEMORY_BYTES_MAX: usize = 128 * 1024 * 1024;

/// The most elements that one table of a guest may have.
pub const TABLE_ELEMENTS_MAX: usize = 32_768;

/// The most instances of modules that exist at the same time, idle ones included. Up to 8 GiB of address space (not of memory) are set
/// aside for each at the first load.
pub const INSTANCES_MAX: u32 = 32;

/// The largest upload, whatever the broker's own limit is.
pub const MODULE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The most bytes that all names and values of a module's settings may have together.
pub const PARAMS_BYTES_MAX: usize = 64 * 1024;

/// The longest line of a guest in the broker's log.
pub const LOG_LINE_BYTES_MAX: usize = 1024;

/// The stack that a thread needs to call a guest: 512 KiB that a guest may use before it traps, and as much again for the host around it.
pub const THREAD_STACK_BYTES_MIN: usize = 2 * GUEST_STACK_BYTES_MAX;

/// The stack that a guest may use before it traps.
pub(crate) const GUEST_STACK_BYTES_MAX: usize = 512 * 1024;

/// The most memories that one instance may have: its own, and those of components inside it, of which a guest in JavaScript has two.
pub(crate) const MEMORIES_PER_INSTANCE_MAX: u32 = 3;

/// The most memories that all instances have together. A guest has one, unless it is in JavaScript; address space for so many can be had
/// on every machine with 39 bits of it.
pub(crate) const MEMORIES_MAX: u32 = 2 * INSTANCES_MAX;

/// The most tables that one instance may have: its own, and those that the encoder adds around it.
pub(crate) const TABLES_PER_INSTANCE_MAX: u32 = 4;

/// The most core modules that one component may consist of. Python and its shared libraries are 38.
pub(crate) const CORE_INSTANCES_PER_INSTANCE_MAX: u32 = 48;

// What an upload may cost the compiler. In brackets is the most that was found in the largest guests there are: a Python interpreter
// as a component (6.6 MB of code) and three builds of a JavaScript engine (up to 10.7 MB). Peaks are of the whole process, of which
// 13 MB are there before.

/// The largest body of one function, in bytes (427 KB). Straight code of this size peaks at 54 to 100 MB.
pub(crate) const FUNCTION_BYTES_MAX: u64 = 512 * 1024;

/// The most locals of one function, its parameters included (483); code that was not optimised has more.
pub(crate) const LOCALS_PER_FUNCTION_MAX: u64 = 8192;

/// The most branches of one function, counted with the targets of each `br_table` and with checks of operands (16,298). As many
/// branches peak at 42 to 48 MB, divisions at 70 MB; 16,300 changes of one local at 99 MB, in 1.1 s.
pub(crate) const BRANCHES_PER_FUNCTION_MAX: u64 = 32_768;

/// The most loops within each other (6). With 1000 locals 250 such loops took 0.2 s, 1000 loops 15 s; 32 with 8000 take 0.2 s.
pub(crate) const LOOP_DEPTH_MAX: u64 = 32;

/// The most values that enter and leave the blocks of one function (1254). As many peak at 90 MB; four times as many at 1 GB.
pub(crate) const BLOCK_VALUES_PER_FUNCTION_MAX: u64 = 4096;

/// The most parameters and results that one signature, or the type of a block, may have together (24).
pub(crate) const SIGNATURE_VALUES_MAX: u64 = 48;

/// What the compilation of one function may cost, in the units of `cost.rs` (below 1 million). The product of locals and branches, most
/// of it, peaks at 24 to 78 MB; 4000 indirect calls with 15 values each at 119 MB, the most of all that was tried.
pub(crate) const COST_PER_FUNCTION_MAX: u64 = 1_500_000;

/// The most code that all functions of an upload may have together, in bytes. 9.2 MB of a JavaScript engine take 25 s and 322 MB on
/// one core, the Python interpreter 30 s and 329 MB; a build of 10.7 MB is refused.
pub(crate) const CODE_BYTES_MAX: u64 = 10 * 1024 * 1024;

/// What the compilation of all functions of an upload may cost, in the same units (16 million, and the squares). The slowest that was found, 28
/// functions of 4000 indirect calls each, takes 12 s.
pub(crate) const COST_MAX: u64 = 32_000_000;

/// The most functions, types, imports, exports and elements of tables that the core modules of an upload may have together. 49,000 empty
/// functions take 2 s and 283 MB, as many types of ten parameters 4 s and 334 MB.
pub(crate) const ITEMS_MAX: u64 = 49_152;

/// The most imports of an upload that is a core module; one that keeps to the contract has a handful. The time to make a component of it
/// grows with more than their square: 4 ms for 512, 36 ms for 1024, more than eight minutes for 60,000.
pub(crate) const CORE_IMPORTS_MAX: u64 = 1024;

/// What was refused to a guest in the call that is in progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// More memory.
    Memory,
    /// A larger table.
    Table,
}

/// Answers wasmtime when a guest wants to grow. A refusal is not a trap: the guest gets its -1 and may do without.
#[derive(Debug)]
pub(crate) struct Limiter {
    memory_bytes_max: usize,
    memory_bytes: usize,
    refused: Option<Refused>,
}

impl Limiter {
    pub(crate) fn new(memory_bytes_max: usize) -> Limiter {
        Limiter { memory_bytes_max, memory_bytes: 0, refused: None }
    }

    /// Forgets what was refused in an earlier call.
    pub(crate) fn begin_call(&mut self) {
        self.refused = None;
    }

    /// What the guest has.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.memory_bytes
    }

    pub(crate) fn refused(&self) -> Option<Refused> {
        self.refused
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        let total = self.memory_bytes.saturating_add(desired.saturating_sub(current));
        if total > self.memory_bytes_max {
            self.refused = Some(Refused::Memory);
            return Ok(false);
        }
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false); // the module's own limit, no concern of ours
        }
        self.memory_bytes = total;
        Ok(true)
    }

    fn table_growing(&mut self, _current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        if desired > TABLE_ELEMENTS_MAX {
            self.refused = Some(Refused::Table);
            return Ok(false);
        }
        Ok(maximum.is_none_or(|maximum| desired <= maximum))
    }

    fn instances(&self) -> usize {
        CORE_INSTANCES_PER_INSTANCE_MAX as usize
    }

    fn tables(&self) -> usize {
        TABLES_PER_INSTANCE_MAX as usize
    }

    fn memories(&self) -> usize {
        MEMORIES_PER_INSTANCE_MAX as usize
    }
}

#[cfg(test)]
mod tests {
    use super::{Limiter, Refused, TABLE_ELEMENTS_MAX};
    use wasmtime::ResourceLimiter;

    #[test]
    fn the_memories_of_an_instance_share_one_limit() {
        let mut limiter = Limiter::new(100);
        assert!(limiter.memory_growing(0, 60, None).expect("no trap"));
        assert!(limiter.memory_growing(0, 40, None).expect("no trap"));
        assert_eq!(limiter.refused(), None);
        assert!(!limiter.memory_growing(40, 41, None).expect("no trap"));
        assert_eq!(limiter.refused(), Some(Refused::Memory));
        limiter.begin_call();
        assert_eq!(limiter.refused(), None);
    }

    #[test]
    fn a_modules_own_maximum_is_not_held_against_it() {
        let mut limiter = Limiter::new(100);
        assert!(!limiter.memory_growing(0, 60, Some(50)).expect("no trap"));
        assert!(!limiter.table_growing(0, 60, Some(50)).expect("no trap"));
        assert_eq!(limiter.refused(), None);
    }

    #[test]
    fn a_table_stops_at_its_limit() {
        let mut limiter = Limiter::new(0);
        assert!(limiter.table_growing(0, TABLE_ELEMENTS_MAX, None).expect("no trap"));
        assert!(!limiter.table_growing(0, TABLE_ELEMENTS_MAX + 1, None).expect("no trap"));
        assert_eq!(limiter.refused(), Some(Refused::Table));
    }
}

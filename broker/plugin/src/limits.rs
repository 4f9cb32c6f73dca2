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
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            memory_bytes: 16 * 1024 * 1024,
            time: Duration::from_millis(100),
            output_bytes: 8 * 1024 * 1024,
            log_bytes_per_call: 8 * 1024,
        }
    }
}

/// The largest value of [`Limits::memory_bytes`].
pub const MEMORY_BYTES_MAX: usize = 128 * 1024 * 1024;

/// The most elements that one table of a guest may have.
pub const TABLE_ELEMENTS_MAX: usize = 32_768;

/// The most instances of modules that exist at the same time, idle ones included. Up to 4 GiB of address space (not of memory) are set
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

/// The most memories that one instance may have: languages without a linker of their own need one.
pub(crate) const MEMORIES_PER_INSTANCE_MAX: u32 = 2;

/// The most tables that one instance may have: its own, and those that the encoder adds around it.
pub(crate) const TABLES_PER_INSTANCE_MAX: u32 = 4;

/// The most core modules that one component may consist of.
pub(crate) const CORE_INSTANCES_PER_INSTANCE_MAX: u32 = 16;

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

//! Runs the modules that users upload: WebAssembly components, under limits, with nothing ambient.
//!
//! ```text
//!  upload ---> upload.rs      is it WebAssembly? a core module is made a component; imports are looked at
//!                 |           cost.rs: can it be compiled in little memory and time?
//!                 |
//!              artifact.rs    compiled before? then the cache has it, sealed with a digest
//!                 |
//!              host.rs        compile, or take from the cache  --->  Module
//!                 |
//!              contract.rs    which world? are the signatures those of plugins/wit/plugin.wit?
//!                 |
//!  attach ---> transform.rs   a module with its limits and settings  --->  Transform, Partitioner, Derive
//!              partitioner.rs
//!              derive.rs
//!                 |
//!  batch  ---> pool.rs        takes an idle instance or starts one, calls it, keeps it or throws it away
//!                 |
//!              instance.rs    store, memory, deadline (ticker.rs), log (guest_log.rs, log_budget.rs), limits (limits.rs)
//!              state.rs       what a module keeps between batches, as guest_state.rs lends it to an instance for one call
//! ```
//!
//! # What it promises
//!
//! - A guest can't hurt the broker: what it costs to compile, its memory, its tables, its time, its output and its log have limits,
//!   each with a name and a unit in [`Limits`] or beside it. Whatever a guest does, the call returns a value or a [`PluginError`].
//! - After a trap, a timeout or a broken output the instance is thrown away; the next batch gets a fresh one.
//! - The same batch gives the same answer: no clock, no random numbers, no threads, NaNs in one form.
//! - A broker without modules pays nothing: the engine and its memory are set up at the first [`PluginHost::load`].
//!
//! # What it refuses
//!
//! Modules that import anything but the interfaces of `millpond:plugin`, modules that somebody compiled ahead of time, and modules that
//! would take the compiler much more memory or time than their size lets expect.
//!
//! # Threads
//!
//! Everything here blocks: loading for seconds, a call for as long as [`Limits::time`]. The calling thread needs a stack of
//! [`THREAD_STACK_BYTES_MIN`].

mod artifact;
mod contract;
mod cost;
mod derive;
mod error;
mod guest_log;
mod guest_state;
mod host;
mod instance;
mod interrupt;
mod limits;
mod log_budget;
mod partitioner;
mod pool;
mod runtime;
mod state;
mod ticker;
mod transform;
mod upload;

pub use artifact::{ArtifactCache, NoCache};
pub use contract::World;
pub use derive::{Derive, SourceBatch, Target};
pub use error::PluginError;
pub use guest_log::{GuestLine, LogSink};
pub use host::{Module, PluginHost};
pub use interrupt::Interrupt;
pub use limits::{
    INSTANCES_MAX, LOG_LINE_BYTES_MAX, Limits, MEMORY_BYTES_MAX, MODULE_BYTES_MAX, PARAMS_BYTES_MAX, TABLE_ELEMENTS_MAX,
    THREAD_STACK_BYTES_MIN,
};
pub use partitioner::Partitioner;
pub use state::{
    KeyValues, STATE_ENTRY_OVERHEAD_BYTES, STATE_KEY_BYTES_MAX, STATE_SCAN_BYTES_MAX, STATE_SCAN_ENTRIES_MAX, STATE_UNDO_BYTES_MAX,
    StateChange, StateDraft, StateMark,
};
pub use transform::Transform;

/// What a guest is told about a batch.
#[derive(Clone, Copy, Debug)]
pub struct BatchInfo<'a> {
    /// The topic that the producer wrote to.
    pub topic: &'a str,
    /// The partition; `None` for a partitioner, which is to choose it.
    pub partition: Option<u32>,
    /// A record's timestamp is this plus its timestamp delta, in milliseconds since 1970-01-01 UTC.
    pub base_timestamp: i64,
    /// How many records the section holds.
    pub record_count: u32,
}

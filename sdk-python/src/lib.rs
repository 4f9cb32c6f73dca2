//! `millpond._core`: the native module under the Python package `millpond`.
//!
//! ```text
//!   millpond, millpond.aio      classes, types and documentation, in Python
//!            |
//!            v
//!      millpond._core           this: bytes in, records out, waiting without the GIL
//!            |
//!            v
//!      millpond-bridge          what all language packages share
//! ```
//!
//! | module | holds |
//! |---|---|
//! | `wait` | waiting: for a thread with an eye on signals, for asyncio through one notifier thread |
//! | `failure` | failures become the exceptions of `millpond.errors` |
//! | `client` | connection and admin calls |
//! | `producer` | sending |
//! | `encoding` | objects of Python on their way to a record, and arguments |
//! | `deliveries` | the coming answers to records |
//! | `consumer` | records on their way to an iterator |
//! | `record` | records, made when they are asked for, and batches of them |
//! | `arrow` | batches through the Arrow C data interface |
//!
//! Nothing here is public; it changes with the package around it. Its type stub, `python/millpond/_core.pyi`, is made of the signatures and the documentation
//! here (`stubs/generate.py`); types that Rust cannot tell are in `stubs/overlay.pyi`.

mod arrow;
mod client;
mod consumer;
mod decoding;
mod deliveries;
mod encoding;
mod failure;
mod producer;
mod record;
mod wait;

use pyo3::prelude::*;

/// The native module; private. What of it is public is exported by `millpond`.
#[pymodule(gil_used = true)]
mod _core {
    #[pymodule_export]
    #[expect(non_upper_case_globals, reason = "Python's name for it")]
    pub(crate) const __version__: &str = env!("CARGO_PKG_VERSION");

    #[pymodule_export]
    use crate::client::{Client, connect, connect_async};
    #[pymodule_export]
    use crate::consumer::{Consumer, RecordIterator};
    #[pymodule_export]
    use crate::deliveries::{Deliveries, Delivery, Places, PlacesIterator, RecordPlace};
    #[pymodule_export]
    use crate::producer::{Producer, Sends};
    #[pymodule_export]
    use crate::record::{Batch, BatchIterator, Record};
    #[pymodule_export]
    use crate::wait::{Operation, forked, forks_are_told, shut_down, task_count};
}

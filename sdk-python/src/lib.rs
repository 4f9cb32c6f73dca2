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
//! Nothing here is public; it changes with the package around it.

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

/// The native module.
#[pymodule(gil_used = true)]
fn _core(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add_class::<client::Client>()?;
    module.add_class::<producer::Producer>()?;
    module.add_class::<deliveries::Delivery>()?;
    module.add_class::<deliveries::Deliveries>()?;
    module.add_class::<deliveries::RecordPlace>()?;
    module.add_class::<deliveries::Places>()?;
    module.add_class::<deliveries::PlacesIterator>()?;
    module.add_class::<producer::Sends>()?;
    module.add_class::<consumer::Consumer>()?;
    module.add_class::<consumer::RecordIterator>()?;
    module.add_class::<record::Record>()?;
    module.add_class::<record::Batch>()?;
    module.add_class::<record::BatchIterator>()?;
    module.add_class::<wait::Operation>()?;
    module.add_function(wrap_pyfunction!(client::connect, module)?)?;
    module.add_function(wrap_pyfunction!(client::connect_async, module)?)?;
    module.add_function(wrap_pyfunction!(wait::shut_down, module)?)?;
    module.add_function(wrap_pyfunction!(wait::forks_are_told, module)?)?;
    module.add_function(wrap_pyfunction!(wait::forked, module)?)?;
    module.add_function(wrap_pyfunction!(wait::task_count, module)?)?;
    Ok(())
}

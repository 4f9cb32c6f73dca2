//! The host against modules that mean well and modules that don't. None needs a compiler for WebAssembly, but for `guests.rs`.

mod cache;
mod cost;
mod guests;
mod hostile;
mod limits;
mod log;
mod partitioner;
mod pool;
mod support;
mod upload;

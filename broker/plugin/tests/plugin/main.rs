//! The host against modules that mean well and modules that don't. None needs a compiler for WebAssembly, but for
//! those that load what `plugins/build.sh` makes: `guests.rs`, `samples.rs` and a part of `attacks.rs`.

mod attacks;
mod backtraces;
mod c_sdk;
mod cache;
mod cost;
mod derive;
mod guests;
mod hostile;
mod interrupt;
mod limits;
mod log;
mod partitioner;
mod pool;
mod samples;
mod state_attacks;
mod support;
mod upload;

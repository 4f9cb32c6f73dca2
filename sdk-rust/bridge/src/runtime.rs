//! The one runtime of the process, made at its first use and never dropped.
//!
//! After a `fork` the child has this runtime's memory and none of its threads: whoever waits for it waits for ever. So the process that made it is
//! remembered, and in any other one everything fails at once with the code `forked`. What has a thread to talk to when it is dropped is
//! in a [`Kept`], which leaks in a child.
//!
//! Nor does a child make a runtime of its own. All locks of `parking_lot`, which the client is built on, share one table of the threads that wait for
//! them. A child's copy may be locked for ever, by a thread that it does not have, and may list threads whose stacks the C library gives to new
//! ones: rarely, and then a hang or worse that nobody could find.

use crate::failure::Failure;
use std::{
    ops::{Deref, DerefMut},
    process,
    sync::{
        OnceLock,
        atomic::{AtomicU8, AtomicU32, Ordering},
    },
};
use tokio::runtime::{Builder, Handle, Runtime};

/// Threads that do all I/O of all clients. Two: one that encrypts does not hold up the other.
const WORKERS: usize = 2;

/// The process that the runtime belongs to; 0 before there is one. It is set first, so that a child which was forked in the middle of the
/// making does not wait for it.
static OWNER: AtomicU32 = AtomicU32::new(0);

/// Whether a language tells of forks, and has.
static FORKS: AtomicU8 = AtomicU8::new(UNTOLD);
const UNTOLD: u8 = 0;
const TOLD: u8 = 1;
const FORKED: u8 = 2;

static RUNTIME: OnceLock<Result<Runtime, String>> = OnceLock::new();

/// From now on every fork is told to the child with [`forked`], so that nobody has to ask the system for each record which process this is.
pub fn forks_are_told() {
    // A child that was told already stays one.
    let _ = FORKS.compare_exchange(UNTOLD, TOLD, Ordering::AcqRel, Ordering::Acquire);
}

/// This is a child that was forked a moment ago. Where its parent has made no runtime, it is as good as any process.
pub fn forked() {
    if OWNER.load(Ordering::Acquire) != 0 {
        FORKS.store(FORKED, Ordering::Release);
    }
}

/// Fails with the code `forked` in a child of the process that has made a runtime.
#[inline]
pub fn check_process() -> Result<(), Failure> {
    if FORKS.load(Ordering::Acquire) == TOLD { Ok(()) } else { check_owner() }
}

fn check_owner() -> Result<(), Failure> {
    let owner = OWNER.load(Ordering::Acquire);
    if owner == 0 || owner == process::id() { Ok(()) } else { Err(Failure::forked(owner)) }
}

/// Whether this is a child of the process that has made a runtime.
pub fn is_forked() -> bool {
    check_process().is_err()
}

/// The runtime, which is made if there is none yet.
pub fn handle() -> Result<&'static Handle, Failure> {
    if let Err(owner) = OWNER.compare_exchange(0, process::id(), Ordering::AcqRel, Ordering::Acquire)
        && owner != process::id()
    {
        return Err(Failure::forked(owner));
    }
    let runtime = RUNTIME.get_or_init(|| {
        let mut builder = Builder::new_multi_thread();
        builder.worker_threads(WORKERS).thread_name("millpond-io").enable_all();
        builder.build().map_err(|error| error.to_string())
    });
    match runtime {
        Ok(runtime) => Ok(runtime.handle()),
        Err(reason) => Err(Failure::no_threads(reason)),
    }
}

/// Runs something that waits on this thread, until it is done. Not from within the runtime.
pub fn block_on<F: Future>(future: F) -> Result<F::Output, Failure> {
    Ok(handle()?.block_on(future))
}

/// A value that is dropped inside the runtime, and not at all in a forked child.
#[derive(Debug)]
pub struct Kept<T>(Option<T>);

impl<T> Kept<T> {
    /// Keeps a value.
    pub const fn new(value: T) -> Kept<T> {
        Kept(Some(value))
    }
}

impl<T> Deref for Kept<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_ref().unwrap_or_else(|| unreachable!("it is taken when it is dropped"))
    }
}

impl<T> DerefMut for Kept<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.0.as_mut().unwrap_or_else(|| unreachable!("it is taken when it is dropped"))
    }
}

impl<T> Drop for Kept<T> {
    fn drop(&mut self) {
        match handle() {
            Ok(handle) => {
                let _inside = handle.enter();
                drop(self.0.take());
            }
            Err(_) => std::mem::forget(self.0.take()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn there_is_one_runtime_and_it_runs_what_waits() {
        assert_eq!(block_on(async { tokio::spawn(async { 7 }).await.unwrap() }).unwrap(), 7);
        assert_eq!(handle().unwrap().id(), handle().unwrap().id());
        assert!(!is_forked());
    }

    #[test]
    fn what_is_kept_is_dropped_inside_the_runtime() {
        struct Inside(Arc<AtomicU32>);
        impl Drop for Inside {
            fn drop(&mut self) {
                self.0.store(u32::from(Handle::try_current().is_ok()), Ordering::Release);
            }
        }
        let seen = Arc::new(AtomicU32::new(7));
        drop(Kept::new(Inside(Arc::clone(&seen))));
        assert_eq!(seen.load(Ordering::Acquire), 1);
    }
}

//! Ending guests from outside, before their time is over: whoever attached a module wants nothing of it any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Ends the calls of the modules that were given a copy of it, and lets none begin. Raised once, and for good.
///
/// A guest that is in a call then ends within some milliseconds of its running time, wherever it is, with
/// [`PluginError::Interrupted`](crate::PluginError::Interrupted).
#[derive(Clone, Debug, Default)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Ends them.
    pub fn raise(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether it was raised.
    pub fn is_raised(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

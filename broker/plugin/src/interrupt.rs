//! Ending guests from outside, before their time is over: nobody wants anything of them any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Ends the calls of the modules that were given a copy of it, their start included, and lets none begin. Raised once, and for good.
///
/// A guest that is in a call then ends within some milliseconds of its running time, wherever it is, with
/// [`PluginError::Interrupted`](crate::PluginError::Interrupted).
#[derive(Clone, Debug, Default)]
pub struct Interrupt(Arc<Flag>);

#[derive(Debug, Default)]
struct Flag {
    is_raised: AtomicBool,
    parent: Option<Interrupt>,
}

impl Interrupt {
    /// One that is raised with this one, and can be raised without it.
    #[must_use]
    pub fn child(&self) -> Interrupt {
        Interrupt(Arc::new(Flag { is_raised: AtomicBool::new(false), parent: Some(self.clone()) }))
    }

    /// Ends them.
    pub fn raise(&self) {
        self.0.is_raised.store(true, Ordering::Relaxed);
    }

    /// Whether it was raised.
    pub fn is_raised(&self) -> bool {
        self.0.is_raised.load(Ordering::Relaxed) || self.0.parent.as_ref().is_some_and(Interrupt::is_raised)
    }
}

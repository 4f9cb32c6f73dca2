//! Ending guests from outside, before their time is over: nobody wants anything of them any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Ends the calls of the modules that were given a copy of it, their start included, and lets none begin. Raised once, and for good.
///
/// A guest that is in a call then ends within some milliseconds of its running time, wherever it is, with
/// [`PluginError::Interrupted`](crate::PluginError::Interrupted).
#[derive(Clone, Debug, Default)]
pub struct Interrupt {
    own: Arc<AtomicBool>,
    /// Ends them as well.
    parent: Option<Arc<AtomicBool>>,
}

impl Interrupt {
    /// One that is raised with this one and can be raised without it. It takes no heed of what this one is a child of.
    #[must_use]
    pub fn child(&self) -> Interrupt {
        Interrupt { own: Arc::default(), parent: Some(Arc::clone(&self.own)) }
    }

    /// Ends them.
    pub fn raise(&self) {
        self.own.store(true, Ordering::Relaxed);
    }

    /// Whether it was raised.
    pub fn is_raised(&self) -> bool {
        self.own.load(Ordering::Relaxed) || self.parent.as_ref().is_some_and(|parent| parent.load(Ordering::Relaxed))
    }
}

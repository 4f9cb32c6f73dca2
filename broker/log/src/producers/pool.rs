//! What the logs of one broker share.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::open_files::OpenFiles;

/// What any number of logs share, so that it is bounded for all of them together. Clones are handles to the same pools.
#[derive(Clone, Debug, Default)]
pub struct Pools {
    /// Their open segment files.
    pub files: OpenFiles,
    /// The producers that they remember.
    pub producers: ProducerPool,
}

/// A bound on the producers that logs remember, all together. Clones are handles to the same count.
///
/// A log that would go over it forgets one of its own for each that it takes. One that has none takes one all the same: no log is without,
/// whatever the others hold. So no more are remembered than the bound, and one for each log.
#[derive(Clone, Debug)]
pub struct ProducerPool {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    max: usize,
    held: AtomicUsize,
}

impl ProducerPool {
    /// A pool for this many producers.
    pub fn new(producers_max: usize) -> ProducerPool {
        ProducerPool { shared: Arc::new(Shared { max: producers_max, held: AtomicUsize::new(0) }) }
    }

    /// How many producers the logs should remember at most.
    pub fn producers_max(&self) -> usize {
        self.shared.max
    }

    /// How many producers the logs remember now.
    pub fn producers(&self) -> usize {
        self.shared.held.load(Ordering::Relaxed)
    }

    pub(super) fn take(&self, count: usize) {
        self.shared.held.fetch_add(count, Ordering::Relaxed);
    }

    pub(super) fn give_back(&self, count: usize) {
        self.shared.held.fetch_sub(count, Ordering::Relaxed);
    }

    pub(super) fn is_over(&self) -> bool {
        self.producers() > self.shared.max
    }
}

impl Default for ProducerPool {
    /// A pool for [`PRODUCERS_DEFAULT_MAX`] producers.
    fn default() -> ProducerPool {
        ProducerPool::new(PRODUCERS_DEFAULT_MAX)
    }
}

/// Producers that all logs of a pool remember together, some 20 MiB of memory.
pub const PRODUCERS_DEFAULT_MAX: usize = 65_536;

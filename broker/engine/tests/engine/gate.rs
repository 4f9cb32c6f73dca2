//! A disk whose syncs, writes and removals wait for gates, so that a test sees what happens while one of them is under way.

use millpond_log::{
    Disk,
    sim::{HookedDisk, Operation},
};
use parking_lot::{Condvar, Mutex};
use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};
use tokio::sync::watch;

/// Passes everything on, and holds the syncs of batches, writes, and removals of files while their gates are shut. Drafts of compactions
/// pass two gates.
#[derive(Clone, Debug)]
pub(crate) struct GatedDisk {
    disk: HookedDisk,
    pub(crate) syncs: Arc<Gate>,
    pub(crate) writes: Arc<Gate>,
    pub(crate) removals: Arc<Gate>,
    /// Writes of what a compaction has left of segments, on their way to take their place.
    pub(crate) drafts: Arc<Gate>,
}

#[derive(Debug, Default)]
struct State {
    is_shut: bool,
    /// Whoever is at the gate when it opens passes, even if it is shut again a moment later.
    openings: u64,
}

/// Open until it is shut.
#[derive(Debug)]
pub(crate) struct Gate {
    state: Mutex<State>,
    opened: Condvar,
    /// How many have come to the gate while it was shut.
    arrived: watch::Sender<u64>,
    is_trapped: AtomicBool,
}

impl GatedDisk {
    pub(crate) fn new(disk: Arc<dyn Disk>) -> GatedDisk {
        let gate = || {
            Arc::new(Gate {
                state: Mutex::default(),
                opened: Condvar::new(),
                arrived: watch::Sender::new(0),
                is_trapped: AtomicBool::new(false),
            })
        };
        let (syncs, writes, removals, drafts) = (gate(), gate(), gate(), gate());
        let pass = {
            let (disk, syncs, writes) = (Arc::clone(&disk), Arc::clone(&syncs), Arc::clone(&writes));
            let (removals, drafts) = (Arc::clone(&removals), Arc::clone(&drafts));
            move |operation, path: &Path| match operation {
                // The catalogue and the indexes pass the gate for syncs.
                Operation::Sync if has_extension(path, "log") => syncs.pass(),
                Operation::Write => {
                    writes.pass();
                    if has_extension(path, "cleaned") {
                        drafts.pass();
                    }
                }
                Operation::Remove if disk.list(path).is_err() => removals.pass(),
                _ => {}
            }
        };
        GatedDisk { disk: HookedDisk::new(disk, pass), syncs, writes, removals, drafts }
    }

    pub(crate) fn disk(&self) -> Arc<dyn Disk> {
        Arc::new(self.disk.clone())
    }
}

impl Gate {
    pub(crate) fn shut(&self) {
        self.state.lock().is_shut = true;
    }

    pub(crate) fn open(&self) {
        let mut state = self.state.lock();
        (state.is_shut, state.openings) = (false, state.openings + 1);
        drop(state);
        self.opened.notify_all();
    }

    /// Waits until so many have come to the shut gate, since the beginning.
    pub(crate) async fn arrived(&self, times: u64) {
        let mut arrived = self.arrived.subscribe();
        arrived.wait_for(|count| *count >= times).await.expect("the gate is there");
    }

    /// The next one that passes panics.
    pub(crate) fn set_trap(&self) {
        self.is_trapped.store(true, Ordering::Relaxed);
    }

    fn pass(&self) {
        assert!(!self.is_trapped.swap(false, Ordering::Relaxed), "as the test wants");
        let mut state = self.state.lock();
        if state.is_shut {
            self.arrived.send_modify(|count| *count += 1);
        }
        let openings = state.openings;
        while state.is_shut && state.openings == openings {
            self.opened.wait(&mut state);
        }
    }
}

fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|found| found == extension)
}

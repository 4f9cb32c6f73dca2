//! A disk whose syncs, writes and removals wait for gates, so that a test sees what happens while one of them is under way.

use millpond_log::{Disk, DiskFile, OpenMode};
use parking_lot::{Condvar, Mutex};
use std::{
    ffi::OsString,
    io::{self, IoSlice},
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
    disk: Arc<dyn Disk>,
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
        GatedDisk { disk, syncs: gate(), writes: gate(), removals: gate(), drafts: gate() }
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

impl Disk for GatedDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.disk.open(path, mode)?;
        let holds_batches = path.extension().is_some_and(|extension| extension == "log");
        let is_draft = path.extension().is_some_and(|extension| extension == "cleaned");
        Ok(Arc::new(GatedFile { file, holds_batches, is_draft, disk: self.clone() }))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.disk.create_dir_all(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<OsString>> {
        self.disk.list(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.removals.pass();
        self.disk.remove_file(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.disk.remove_dir_all(path)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.disk.exists(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.disk.sync_dir(path)
    }
}

#[derive(Debug)]
struct GatedFile {
    file: Arc<dyn DiskFile>,
    /// The catalogue and the indexes pass the gate for syncs.
    holds_batches: bool,
    is_draft: bool,
    disk: GatedDisk,
}

impl DiskFile for GatedFile {
    fn read_at(&self, into: &mut Vec<u8>, bytes_max: usize, at: u64) -> io::Result<usize> {
        self.file.read_at(into, bytes_max, at)
    }

    fn write_vectored_at(&self, buffers: &[IoSlice<'_>], at: u64) -> io::Result<usize> {
        self.disk.writes.pass();
        if self.is_draft {
            self.disk.drafts.pass();
        }
        self.file.write_vectored_at(buffers, at)
    }

    fn size_bytes(&self) -> io::Result<u64> {
        self.file.size_bytes()
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.file.set_len(bytes)
    }

    fn sync_data(&self) -> io::Result<()> {
        if self.holds_batches {
            self.disk.syncs.pass();
        }
        self.file.sync_data()
    }
}

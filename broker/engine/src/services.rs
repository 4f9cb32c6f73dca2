//! What every part of one engine shares: the threads, the disk, the clock, and the lock on the data folder.

use crate::{
    clock::Clock, config::EngineConfig, data_dir::DirLock, derive::Rounds, error::EngineError, pool::Pool, reserve::Reserve, space::Space,
};
use millpond_log::{Disk, Now, OpenFiles, ProducerPool};
use std::sync::Arc;
use tokio::{runtime::Handle, time::Instant};

/// Shared by all partitions and streams of one engine.
#[derive(Debug)]
pub(crate) struct Services {
    /// Appends and reads.
    pub(crate) io: Pool,
    /// `fdatasync`, and closing logs.
    pub(crate) flush: Pool,
    /// Modules at work on batches, and splitting batches.
    pub(crate) plugin: Pool,
    /// Starting modules, for one change of the catalogue at a time. One thread, which no batch takes: whoever wants to be rid of modules that hold
    /// all others is not to wait for one of those.
    pub(crate) starts: Pool,
    /// What takes seconds and is in nobody's hurry: compiling modules, compaction, retention, removing folders. One thread, so that it
    /// takes one core at most, and no core's worth of plugin or I/O threads.
    pub(crate) background: Pool,
    /// Making room: the oldest segments of topics that drop them, and the reserve. One thread, which does nothing else: batches wait for it,
    /// and not for long.
    pub(crate) room: Pool,
    /// Rounds of derived topics at modules: as many as there are threads for them.
    pub(crate) derive_rounds: Rounds,
    pub(crate) disk: Arc<dyn Disk>,
    /// The open segment files of all partitions.
    pub(crate) files: OpenFiles,
    /// How many producers the partitions remember, all together.
    pub(crate) producers: ProducerPool,
    /// How much room there is.
    pub(crate) space: Arc<Space>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) config: EngineConfig,
    /// Where timers run.
    pub(crate) timers: Handle,
    /// Held for as long as anything of this engine may still write, jobs that were queued before it was dropped included.
    pub(crate) lock: DirLock,
}

impl Services {
    /// The time by both clocks.
    pub(crate) fn now(&self) -> Now {
        Now { wall_ms: self.clock.now_ms(), monotonic_ms: self.clock.monotonic_ms() }
    }

    /// The moment, by the clock that timers go by.
    pub(crate) fn instant(&self) -> Instant {
        let _timers = self.timers.enter();
        Instant::now()
    }

    /// Starts the threads. Needs a tokio runtime around it, for its timers.
    pub(crate) fn start(config: EngineConfig, disk: Arc<dyn Disk>, clock: Arc<dyn Clock>, lock: DirLock) -> Result<Services, EngineError> {
        let pool = |name, threads| Pool::new(name, threads).map_err(|source| EngineError::Threads(Arc::new(source)));
        let reserve = Reserve::open(Arc::clone(&disk), &config.data_dir, config.reserve_bytes);
        Ok(Services {
            space: Space::new(config.quota_bytes, reserve),
            io: pool("io", config.io_threads)?,
            flush: pool("flush", config.flush_threads)?,
            plugin: Pool::elastic("plugin", config.plugin_threads).map_err(|source| EngineError::Threads(Arc::new(source)))?,
            starts: pool("starts", 1)?,
            background: pool("background", 1)?,
            room: pool("room", 1)?,
            derive_rounds: Rounds::new(config.plugin_threads),
            disk,
            files: OpenFiles::new(config.segment_files()),
            producers: ProducerPool::default(),
            clock,
            config,
            timers: Handle::current(),
            lock,
        })
    }
}

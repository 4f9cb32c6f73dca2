//! How much of what is bounded is taken: memory for batches, segment files, and room on the disk.

use crate::engine::Engine;
use millpond_protocol::message::NodeSpace;

/// What the broker uses of its bounded means, at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Memory that batches on their way to the log have taken, in bytes; each counts in whole KiB.
    pub inflight_bytes: u64,
    /// What it is bounded by, in bytes ([`crate::EngineConfig::inflight_bytes_max`]).
    pub inflight_bytes_max: u64,
    /// Segment files that are open.
    pub segment_files: usize,
    /// How many are kept open at most ([`crate::EngineConfig::segment_files_max`]).
    pub segment_files_max: usize,
    /// Segment files with bytes that no flush has covered.
    pub segment_files_unsynced: usize,
    /// How often a module was compiled since the broker started, rather than taken from the cache of compiled modules.
    pub module_compilations: u64,
    /// Bytes of all batches, their quota, and the reserve.
    pub space: NodeSpace,
}

impl Engine {
    /// What the broker uses of its bounded means. Counts nothing by itself, and holds no lock for longer than a look.
    pub fn usage(&self) -> Usage {
        let files = &self.services.files;
        Usage {
            inflight_bytes: self.inflight.bytes_in_use(),
            inflight_bytes_max: self.inflight.bytes_max(),
            segment_files: files.files(),
            segment_files_max: files.files_max(),
            segment_files_unsynced: files.unsynced_files(),
            module_compilations: self.workshop.host.compilations(),
            space: self.space(),
        }
    }

    /// The room on the disk that all topics share.
    pub(crate) fn space(&self) -> NodeSpace {
        let space = &self.services.space;
        let level = space.level();
        NodeSpace {
            used_bytes: level.used,
            quota_bytes: level.quota,
            reserve_bytes: space.reserve.bytes(),
            reserve_held: space.reserve.is_held(),
        }
    }
}

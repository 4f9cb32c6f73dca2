//! Which modules run where, and what a partition is asked for.

use millpond_plugin::World;
use millpond_protocol::message::AttachPoint;

/// What a partition was asked for, and so whom a hint is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A producer sends batches.
    Produce,
    /// A consumer reads, or looks for an offset to read from.
    Read,
    /// An operator deletes records.
    DeleteRecords,
}

/// The first attach point where a module of this world runs.
pub(crate) const fn place_of(world: World) -> AttachPoint {
    match world {
        World::Transform => AttachPoint::Produce,
        World::Partitioner => AttachPoint::Partition,
        World::Derive => AttachPoint::Derive,
    }
}

/// Whether a module of this world runs at this attach point.
pub(crate) fn runs_on(world: World, on: AttachPoint) -> bool {
    world == world_on(on) || (world, on) == (World::Transform, AttachPoint::Derive)
}

/// The world that runs at this attach point; on derive it is one of two.
pub(crate) const fn world_on(on: AttachPoint) -> World {
    match on {
        AttachPoint::Produce | AttachPoint::Fetch => World::Transform,
        AttachPoint::Partition => World::Partitioner,
        AttachPoint::Derive => World::Derive,
    }
}

//! Which modules run where.

use millpond_plugin::World;
use millpond_protocol::message::AttachPoint;

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

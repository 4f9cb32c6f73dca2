//! Which modules run where and fail where, and what a partition is asked for.

use millpond_plugin::World;
use millpond_protocol::message::AttachPoint;
use std::fmt;

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

/// Where a module has failed, as far as anybody knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FailedAt {
    /// On some record of a batch that is not stored.
    #[default]
    Somewhere,
    /// On the record of this number, counted from 0, of its producer's batch.
    Record(i32),
    /// On this record of a partition.
    Offset {
        /// Its offset.
        offset: i64,
        /// The partition.
        partition: u32,
    },
    /// On one of the records of a partition from this one on.
    From {
        /// The offset of the first one that the module was given.
        offset: i64,
        /// The partition.
        partition: u32,
    },
}

impl fmt::Display for FailedAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FailedAt::Somewhere => Ok(()),
            FailedAt::Record(number) => write!(f, ", on record {number} of it, counted from 0"),
            FailedAt::Offset { offset, partition } => write!(f, ", on the record at offset {offset} of partition {partition}"),
            FailedAt::From { offset, partition } => write!(f, ", on a record from offset {offset} of partition {partition} on"),
        }
    }
}

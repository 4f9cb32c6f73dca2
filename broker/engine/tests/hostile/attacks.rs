//! The attacks: where, how, what becomes of records on which the module fails, and what error there is to be.

use crate::{ATTACKERS, GROWTH_BYTES_MAX, OUTPUT_BYTES_MAX, derived, scene};
use millpond_protocol::error::ErrorCode::{self, GuestFailed, GuestOutOfMemory, GuestOutputInvalid, GuestTimedOut, GuestTrapped};
use std::fmt;

/// Where the module runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Produce,
    Partition,
    View,
    Derive,
}

/// One of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attack {
    pub(crate) place: Place,
    /// A setting of the hostile module.
    pub(crate) mode: &'static str,
    /// As it is attached.
    pub(crate) on_error: &'static str,
    /// What a batch gets that is treated so; none where all go through.
    pub(crate) expected: Option<ErrorCode>,
}

impl Attack {
    /// Whether the module is called for the parts of each batch.
    pub(crate) fn takes_parts(&self) -> bool {
        self.on_error == "skip"
    }

    /// The module of `plugins/` that does it.
    pub(crate) fn module(&self) -> &'static str {
        match self.place {
            Place::Produce | Place::View => "hostile",
            Place::Partition => "hostile-partitioner",
            Place::Derive => "hostile-state",
        }
    }

    /// How much the broker may grow meanwhile, in bytes.
    pub(crate) fn growth_bytes_max(&self) -> u64 {
        GROWTH_BYTES_MAX
            + match self.place {
                Place::Produce | Place::Partition => 0,
                // What each consumer is about to be given: as much as it asks for, and one batch.
                Place::View => ATTACKERS as u64 * (scene::PUSH_BYTES as u64 + OUTPUT_BYTES_MAX),
                Place::Derive => derived::GROWTH_BYTES_MAX,
            }
    }
}

impl fmt::Display for Attack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {} {}", self.place, self.mode, self.on_error)
    }
}

const fn on(place: Place, mode: &'static str, on_error: &'static str, expected: Option<ErrorCode>) -> Attack {
    Attack { place, mode, on_error, expected }
}

/// All of them. Where the records are looked for on which a module fails, those that cost the most, each in a smaller part of its batch.
pub(crate) const ALL: &[Attack] = &[
    on(Place::Produce, "loop", "reject", Some(GuestTimedOut)),
    on(Place::Produce, "recurse", "reject", Some(GuestTrapped)),
    on(Place::Produce, "grow", "reject", Some(GuestOutOfMemory)),
    on(Place::Produce, "trap", "reject", Some(GuestTrapped)),
    on(Place::Produce, "garbage", "reject", Some(GuestOutputInvalid)),
    on(Place::Produce, "huge-output", "reject", Some(GuestOutputInvalid)),
    on(Place::Produce, "flood", "reject", None),
    on(Place::Produce, "fail", "reject", Some(GuestFailed)),
    on(Place::Produce, "leak", "reject", Some(GuestOutOfMemory)),
    on(Place::Produce, "later", "reject", Some(GuestTrapped)),
    on(Place::Produce, "lie-offset", "reject", Some(GuestOutputInvalid)),
    on(Place::Produce, "lie-order", "reject", None),
    on(Place::Produce, "lie-time", "reject", None),
    on(Place::Produce, "lie-length", "reject", Some(GuestOutputInvalid)),
    on(Place::Produce, "lie-headers", "reject", Some(GuestOutputInvalid)),
    on(Place::Produce, "loop", "skip", Some(GuestTimedOut)),
    on(Place::Produce, "recurse", "skip", Some(GuestTrapped)),
    on(Place::Produce, "grow", "skip", Some(GuestOutOfMemory)),
    on(Place::Produce, "trap", "skip", Some(GuestTrapped)),
    on(Place::Produce, "garbage", "skip", Some(GuestOutputInvalid)),
    on(Place::Produce, "swell", "skip", Some(GuestFailed)),
    on(Place::Partition, "loop", "reject", Some(GuestTimedOut)),
    on(Place::Partition, "grow", "reject", Some(GuestOutOfMemory)),
    on(Place::Partition, "trap", "reject", Some(GuestTrapped)),
    on(Place::Partition, "outside", "reject", Some(GuestOutputInvalid)),
    on(Place::Partition, "few", "reject", Some(GuestOutputInvalid)),
    on(Place::Partition, "many", "reject", Some(GuestOutputInvalid)),
    on(Place::Partition, "huge-output", "reject", Some(GuestOutputInvalid)),
    on(Place::View, "loop", "reject", Some(GuestTimedOut)),
    on(Place::View, "recurse", "reject", Some(GuestTrapped)),
    on(Place::View, "grow", "reject", Some(GuestOutOfMemory)),
    on(Place::View, "trap", "skip", Some(GuestTrapped)),
    on(Place::View, "huge-output", "reject", Some(GuestOutputInvalid)),
    on(Place::View, "flood", "reject", None),
    on(Place::View, "lie-order", "reject", Some(GuestOutputInvalid)),
    on(Place::View, "swell", "skip", None),
    on(Place::Derive, "fill", "skip", None),
    on(Place::Derive, "tiny", "skip", None),
    on(Place::Derive, "long-key", "skip", None),
    on(Place::Derive, "large-value", "skip", None),
    on(Place::Derive, "huge-value", "skip", Some(GuestOutputInvalid)),
    on(Place::Derive, "churn", "skip", Some(GuestTimedOut)),
    on(Place::Derive, "overwrite", "skip", None),
    on(Place::Derive, "scan", "skip", Some(GuestTimedOut)),
    on(Place::Derive, "sweep", "skip", None),
];

//! The engine from outside: what a front door sees. One program, because linking takes longer than testing.

mod broker;
mod compaction;
mod compaction_room;
mod derive;
mod derive_crash;
mod derive_guests;
mod durability;
mod failures;
mod fairness;
mod folders;
mod full_disk;
mod gate;
mod guests;
mod journey;
mod lies;
mod modules;
mod observed;
mod quotas;
mod refusals;
mod retention;
mod room;
mod said;
mod sequences;
mod status;
mod versions;
mod views;

//! The promises of the log, each with the damage that would break it.

mod append;
mod clean_stop;
mod compact;
mod compact_beside;
mod compact_model;
mod compacted;
mod crash;
mod damage;
mod delete;
mod faults;
mod full_disk;
mod harness;
mod index_files;
mod inspect;
mod model;
mod open_files;
mod producers;
mod real_disk;
mod repair;
mod retention;
mod retries;
mod room;
mod rot;
mod time;
mod verify;
